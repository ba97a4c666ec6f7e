/* The encoder's struct, shared by its loader (encoder_load.c) and its forward pass (encoder.c).
 * Const after loading but for the lanes, each of which belongs to the caller that computes in it.
 */
#ifndef LORE_MODELS_ENCODER_LAYERS_INT_H
#define LORE_MODELS_ENCODER_LAYERS_INT_H

#include "models/encoder_int.h"

/* A bias that the model does not have is NULL; so is the weight of a norm that it does not have. */
typedef struct lore_encoder_norm {
    float *weight, *bias;
} lore_encoder_norm;

typedef struct lore_encoder_linear {
    lore_weight *weight;
    float *bias;
} lore_encoder_linear;

typedef struct lore_encoder_layer {
    lore_encoder_linear qkv, attention_out, up, down; /* up: gate and up where there is a gate */
    lore_encoder_norm attention_norm, ffn_norm;
    float *q_norm, *k_norm;
} lore_encoder_layer;

/* What one pack needs on its way through; backend memory but for the last two. */
typedef struct lore_encoder_scratch {
    lore_queue *queue;
    lore_priority priority;
    float *x, *qkv, *mixed, *gate_up, *hidden, *pooled;
    float *dense[LORE_DENSE_MAX]; /* what each layer behind pooling gives */
    int32_t *ids, *position_ids, *type_ids, *row_start;
    int32_t *host_positions, *host_zeros;
    float *host_vectors; /* where the caller gets less than the model makes */
} lore_encoder_scratch;

struct lore_encoder {
    lore_encoder_config config;
    lore_backend *backend;
    lore_encoder_options options;
    lore_weight *words, *positions, *types;
    lore_encoder_norm embed_norm, final_norm;
    lore_encoder_layer *layers;
    lore_encoder_linear dense[LORE_DENSE_MAX];
    lore_encoder_norm dense_norm[LORE_DENSE_MAX];
    float *cosine[2], *sine[2]; /* rope of layers that see all, and of those that see a window */
    lore_encoder_scratch lanes[LORE_ENCODER_LANES];
};

#endif
