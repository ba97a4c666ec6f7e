/* The decoder's struct, shared by its loader (decoder_load.c) and the forward pass (decoder.c).
 *
 * Backend memory and packed weights are taken at opening and freed at close; a step only writes
 * into them. */
#ifndef LORE_MODELS_DECODER_INT_H
#define LORE_MODELS_DECODER_INT_H

#include "models/decoder.h"
#include "models/model_config_int.h"
#include "models/model_folder_int.h"

typedef struct lore_decoder_layer {
    lore_weight *qkv, *attention_out, *gate_up, *down;
    float *attention_norm, *ffn_norm;
    /* NULL where the family has none. */
    float *qkv_bias, *attention_out_bias, *gate_up_bias, *down_bias;
    float *q_norm, *k_norm;
    float *attention_post_norm, *ffn_post_norm;
    lore_attention attention;
    lore_pages pages;
} lore_decoder_layer;

/* The arrays of a step, in backend memory. */
typedef struct lore_step_memory {
    int32_t *ids, *row_start, *past, *page_start, *pages, *logits_rows, *drawn, *rope_starts;
    lore_sample *samples;
    lore_likely *tops; /* [sequences_max, LORE_TOPS_MAX] */
    float *logprobs;
} lore_step_memory;

struct lore_decoder {
    lore_decoder_config config;
    lore_decoder_info info;
    lore_model_card card;
    lore_tokenizer *tokenizer;
    lore_weights *weights;
    lore_backend *backend;
    lore_queue *queue;
    lore_weight *table, *head; /* head NULL: logits with the table */
    float *norm;
    lore_decoder_layer *layers;
    float *cosine, *sine; /* [lore_rope_row_count, rope.dim / 2] */
    int32_t *rope_starts; /* [sequences_max] of the step in hand, host memory */
    int32_t *drawn;       /* [sequences_max] what the step submitted last drew, host memory */
    float *logprobs;      /* [sequences_max] likewise */
    int32_t drawn_count;
    bool is_submitted; /* and not collected */
    void *page_memory;
    int32_t rows_max, sequences_max, page_list_max;
    lore_step_memory step;
    float *x, *normed, *qkv, *mixed, *gate_up, *hidden, *last, *logits;
};

/* Pages that hold so many tokens of one sequence. */
static inline int32_t lore_pages_for(int32_t tokens, int32_t page_tokens)
{
    return (tokens + page_tokens - 1) / page_tokens;
}

#endif
