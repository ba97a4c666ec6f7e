/* A model folder's safetensors, mapped: names, shapes and dtypes checked before anything is
 * believed.
 *
 * The file is hostile until proven otherwise: header size, JSON, offsets (in range, not
 * overlapping, exactly as long as shape and dtype say), duplicate names. A model takes tensors by
 * name with the shape it needs; at the end lore_weights_finish refuses a folder with tensors that
 * nobody took. Formats: f32, f16, bf16, int8 rows with `<name>_scale` (f32 [rows]), and what
 * config.json's quantization_config names: GPTQ, AWQ, compressed-tensors (docs/formats.md §6), all
 * behind the name "X.weight". One file model.safetensors, or several named by
 * model.safetensors.index.json. Thread: one at a time; tensors are valid until close. */
#ifndef LORE_MODELS_WEIGHTS_H
#define LORE_MODELS_WEIGHTS_H

#include "base/config.h"
#include "kernels/backend.h"

typedef struct lore_weights lore_weights;

LORE_MUST_USE lore_status lore_weights_open(const char *folder, const lore_limits *limits,
                                            lore_weights **weights, lore_error *err);
void lore_weights_close(lore_weights *weights);
bool lore_weights_has(const lore_weights *weights, const char *name);
/* There is a matrix "X.weight", plain or quantised. */
bool lore_weights_has_matrix(const lore_weights *weights, const char *name);
/* The tensor as a [rows, cols] matrix; missing, or of another shape or dtype: LORE_ERR_CORRUPT
 * naming file, tensor, wanted and found. Marks it (and its scales, zeros, ...) as taken. Plain
 * tensors are borrowed from the file; a quantised one is converted on each call, into memory that
 * lives until lore_weights_release or the close. */
LORE_MUST_USE lore_status lore_weights_matrix(lore_weights *weights, const char *name, int32_t rows,
                                              int32_t cols, lore_matrix *matrix, lore_error *err);
/* The matrix was packed and will not be read again: what a conversion took for it is freed. Does
 * nothing for plain tensors. Not for a table, whose rows the backend borrows. */
void lore_weights_release(lore_weights *weights, const lore_matrix *matrix);
/* A vector of `count` values converted to f32 into backend memory the caller frees with
 * lore_backend_free. */
LORE_MUST_USE lore_status lore_weights_vector(lore_weights *weights, const char *name,
                                              int32_t count, lore_backend *backend, float **vector,
                                              lore_error *err);
/* The same for several vectors of `count` values each, one behind the other (the biases of q, k and
 * v). */
LORE_MUST_USE lore_status lore_weights_vectors(lore_weights *weights, const char *const *names,
                                               int32_t names_count, int32_t count,
                                               lore_backend *backend, float **vector,
                                               lore_error *err);
/* Mark a tensor (and its scales) as taken without reading it; false where there is none of that
 * name. */
bool lore_weights_ignore(lore_weights *weights, const char *name);
/* LORE_ERR_CORRUPT naming the first tensor that nobody took (ignored: names ending in
 * `position_ids`, `rotary_emb.inv_freq`). */
LORE_MUST_USE lore_status lore_weights_finish(const lore_weights *weights, lore_error *err);
/* SHA-256 over the header and sampled blocks of the data: what a fingerprint stands on. hex: 65
 * bytes. */
LORE_MUST_USE lore_status lore_weights_fingerprint(const lore_weights *weights, char hex[65],
                                                   lore_error *err);
/* Values of the network: scales and zeros are not counted, codes are by the values they stand for.
 */
int64_t lore_weights_parameters(const lore_weights *weights);
int64_t lore_weights_bytes(const lore_weights *weights);

/* Checks a header alone (the fuzz target's entrance): LORE_OK or LORE_ERR_CORRUPT; reads no tensor
 * data. */
LORE_MUST_USE lore_status lore_weights_check(lore_str file, const char *name, lore_error *err);

#endif
