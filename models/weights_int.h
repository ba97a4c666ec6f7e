/* An open model folder, shared by its opening (weights_open.c), the taking of tensors (weights.c)
 * and the writer of quantised folders (quantize.c). */
#ifndef LORE_MODELS_WEIGHTS_INT_H
#define LORE_MODELS_WEIGHTS_INT_H

#include "base/file.h"
#include "models/quantized_int.h"
#include "models/weights.h"

enum { LORE_PARTS_MAX = 16 }; /* tensors that may belong to one quantised matrix */

typedef struct lore_shard {
    char *path;
    lore_map map;
    size_t header_bytes;
} lore_shard;

/* A matrix that was made of a quantised set: lives until it is released or the weights close. */
typedef struct lore_converted {
    struct lore_converted *next;
    lore_quantized quantized;
} lore_converted;

/* Invariants of an open lore_weights:
 *   1. tensors[] is sorted by name and no name occurs twice, over all files together;
 *   2. tensors[i].data .. + size_bytes lies inside the map of its file;
 *   3. elements * dtype size == size_bytes. */
struct lore_weights {
    lore_arena arena; /* names, paths, tensor table */
    lore_shard *shards;
    int32_t shard_count;
    lore_tensor *tensors;
    int32_t tensor_count;
    lore_quantized_config quantized;
    lore_converted *converted;
    lore_backend
        *queue_backend; /* vectors go to their backend through one queue, opened on first use */
    lore_queue *queue;
};

/* NULL: there is none. */
lore_tensor *lore_weights_find(const lore_weights *weights, lore_str name);
/* The quantised set of the module "X" (its matrix is "X.weight"), and all tensors that belong to
 * it. False: there is none. */
bool lore_weights_find_set(const lore_weights *weights, lore_str module, lore_quantized_set *set,
                           lore_tensor *parts[LORE_PARTS_MAX], int32_t *part_count);
/* The module that a tensor is the codes, a scale, ... of; empty for plain tensors. */
lore_str lore_weights_module_of(const lore_weights *weights, const lore_tensor *tensor,
                                bool *is_codes);
/* The row scales of a plain int8 tensor. */
bool lore_weights_is_scale(const lore_weights *weights, lore_str name);

#endif
