/* One safetensors file: from its bytes to a table of checked tensors.
 *
 * A table entry points into the bytes it was read from. Thread: any, no state. */
#ifndef LORE_MODELS_SAFETENSORS_INT_H
#define LORE_MODELS_SAFETENSORS_INT_H

#include "base/str.h"
#include "kernels/backend.h"

#include <string.h>

enum {
    LORE_TENSOR_RANK_MAX = 8,  /* dimensions */
    LORE_TENSOR_NAME_CAP = 512 /* bytes of a name */
};

/* What a file may hold. Types we cannot compute with are known all the same: their length is
 * checked, and they are refused by name when somebody asks for them. */
typedef struct lore_stored_type {
    const char *name;
    size_t size_bytes;
    bool is_usable;
    lore_dtype dtype;
} lore_stored_type;

typedef struct lore_tensor {
    lore_str name;
    const lore_stored_type *type;
    int32_t rank;
    int64_t shape[LORE_TENSOR_RANK_MAX];
    const uint8_t *data; /* in the file, at whatever address */
    size_t size_bytes;
    int32_t shard;
    void *copy; /* the same bytes at an aligned address, or NULL */
    bool is_taken;
} lore_tensor;

/* One value of a tensor of F32, F16 or BF16. */
static inline float lore_tensor_value(const lore_tensor *t, size_t i)
{
    float value = 0;
    uint16_t half = 0;
    if (t->type->dtype == LORE_F32) {
        memcpy(&value, t->data + i * sizeof value, sizeof value);
        return value;
    }
    memcpy(&half, t->data + i * sizeof half, sizeof half);
    return t->type->dtype == LORE_F16 ? lore_f16_to_f32(half) : lore_bf16_to_f32(half);
}

/* Read and check the header of one whole file. Names and table go to the arena; entries are in
 * order of their data. LORE_ERR_CORRUPT, LORE_ERR_LIMIT (header over header_max), LORE_ERR_NOMEM;
 * messages name `file`. */
LORE_MUST_USE lore_status lore_safetensors_parse(lore_str bytes, const char *file,
                                                 size_t header_max, lore_arena *arena,
                                                 lore_tensor **tensors, int32_t *count,
                                                 size_t *header_bytes, lore_error *err);

#endif
