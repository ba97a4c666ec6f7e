/* Writing safetensors files: the header of one file, and the index of several.
 *
 * Whoever writes decides which tensors lie in which file and where, says so here, and writes the
 * bytes behind the header itself. A header and an index are made in steps, one tensor after
 * another. Thread: any, no state. */
#ifndef LORE_MODELS_SAFETENSORS_WRITE_INT_H
#define LORE_MODELS_SAFETENSORS_WRITE_INT_H

#include "base/json.h"
#include "models/safetensors_int.h"

/* One tensor of a new file. */
typedef struct lore_output {
    lore_str name;
    const char *dtype;
    size_t element_bytes, size_bytes;
    size_t offset; /* in the data of its file */
    int32_t rank;
    int64_t shape[LORE_TENSOR_RANK_MAX];
} lore_output;

/* The header, its length in front. out is empty; it may have failed when end says so:
 * LORE_ERR_NOMEM. */
void lore_safetensors_begin(lore_json_writer *json, lore_buf *out);
void lore_safetensors_add(lore_json_writer *json, const lore_output *output);
LORE_MUST_USE lore_status lore_safetensors_end(lore_json_writer *json, lore_error *err);

/* "F32", "F16" or "BF16". */
const char *lore_safetensors_type(lore_dtype dtype);
/* File `shard` of `count` of a model: "model.safetensors" where there is one. */
void lore_safetensors_file(int32_t shard, int32_t count, char *name, size_t cap);
/* model.safetensors.index.json, likewise. size_bytes: of all tensors. */
void lore_safetensors_index_begin(lore_json_writer *json, lore_buf *out);
void lore_safetensors_index_add(lore_json_writer *json, const lore_output *output, int32_t shard,
                                int32_t count);
LORE_MUST_USE lore_status lore_safetensors_index_end(lore_json_writer *json, int64_t size_bytes,
                                                     lore_error *err);

#endif
