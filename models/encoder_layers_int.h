/* The encoder's struct, shared by its loader (encoder_load.c), the memory of its seats
 * (encoder_seat.c) and its forward pass (encoder.c). Const after loading but for the seats, each of
 * which belongs to the caller whose pack is in it. */
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

/* What one pack needs on its way through. */
typedef struct lore_encoder_seat {
    lore_queue *queue;
    lore_priority priority;
    /* host memory, for the copies of the queue */
    lore_encoder_pack pack;
    int32_t *positions; /* of its rows, counted anew in every sequence */
    float *whole; /* [sequences, out] where the caller gets less than the model makes, else NULL */
    /* backend memory; x is f32, as are pooled and dense, the others what the backend wants between
     * ops. rounded and added are there where that is not f32, of post-norm families: x as the next
     * product takes it, and what the last one gave. */
    float *x;
    void *rounded, *added, *qkv, *mixed, *gate_up, *hidden;
    float *pooled, *dense[LORE_DENSE_MAX]; /* what each layer behind pooling gives */
    int32_t *ids, *position_ids, *type_ids, *row_start;
} lore_encoder_seat;

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
    lore_dtype dtype;           /* of what passes between two ops */
    lore_encoder_seat seats[LORE_ENCODER_LANES][LORE_ENCODER_SEATS_MAX];
};

/* Every seat of the encoder's options, and back (encoder_seat.c). Close accepts what a failed open
 * left. */
LORE_MUST_USE lore_status lore_encoder_open_seats(lore_encoder *encoder, lore_error *err);
void lore_encoder_close_seats(lore_encoder *encoder);

#endif
