/* The decoder's struct, shared by its loader (decoder_load.c), the forward pass (decoder.c) and
 * what runs it step by step (decoder_step.c).
 *
 * Backend memory and packed weights are taken at opening and freed at close; a step only writes
 * into them. */
#ifndef LORE_MODELS_DECODER_INT_H
#define LORE_MODELS_DECODER_INT_H

#include "kernels/lora.h"
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

/* The arrays of a step: places in one block, which the largest step fixes, with what grows with the
 * texts at the end. */
typedef struct lore_step_memory {
    /* Which rows have adapters, where a step may have any: before the rest, so that a step without
     * them copies nothing of it. */
    const lore_lora_product **adapters;
    int32_t *lora_starts, *lora_order; /* of the batch's rows */
    int32_t *head_starts, *head_order; /* of those that want logits */
    lore_sample *samples;
    int32_t *row_start, *past, *page_start, *logits_rows, *rope_starts, *ids, *pages;
} lore_step_memory;

/* A step on its way, in memory that a device reaches by itself. */
typedef struct lore_step_slot {
    void *block;
    lore_step_memory at; /* in block */
    int32_t *drawn;      /* [sequences_max], and behind them */
    float *logprobs;     /* [sequences_max] */
    int32_t count;       /* of draws */
    lore_likely *tops;   /* [sequences_max, LORE_TOPS_MAX] */
    lore_likely *wanted; /* where those of the step go when it is collected; NULL: nowhere */
} lore_step_slot;

/* Steps of single rows, up to so many and up to so long a context (decoder_step.c). */
typedef struct lore_bucket {
    lore_recording *recording; /* NULL: not yet, or not to be had */
    bool is_warm, is_refused;
    int32_t lora_serial; /* of a bucket with adapters: what launches are sized for */
} lore_bucket;

/* An adapter where the decoder's products read it. */
struct lore_adapter_placed {
    void *block;
    int32_t rank_max[LORE_LINEARS]; /* of its products of a kind; 0: it has none */
};

/* The way of adapters to a device. */
typedef struct lore_adapter_loader {
    lore_queue *queue; /* NULL on the host */
    void *pieces[LORE_MARKS];
    size_t piece_bytes;
} lore_adapter_loader;

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
    lore_layer *fused;    /* the same, where nothing of them is beyond lore_op_layers; or NULL */
    float *cosine, *sine; /* [lore_rope_row_count, rope.dim / 2] */
    void *page_memory;
    int32_t rows_max, sequences_max, page_list_max;
    void *block;           /* of the step that runs, in backend memory */
    lore_step_memory step; /* in block */
    int32_t *drawn;        /* [sequences_max] by the last step, and behind them */
    float *logprobs;       /* [sequences_max] */
    size_t draws_bytes;    /* of both */
    lore_likely *tops;     /* [sequences_max, LORE_TOPS_MAX] */
    lore_step_slot slots[LORE_STEPS_MAX];
    int32_t oldest, in_flight; /* slots */
    int32_t drawn_count;       /* draws of the last step, which ids of the next may name */
    bool is_bucketed;          /* steps of single rows are padded to their bucket */
    int32_t row_buckets, context_buckets;
    bool is_refusal_told;  /* one is enough for the log */
    lore_bucket *recorded; /* [2, context_buckets, row_buckets], without adapters and with them;
                              NULL where nothing can be recorded */
    /* Adapters (decoder_adapters.c); NULL and 0 without slots. */
    const lore_adapter_placed **seats; /* [info.adapter_slots] */
    int32_t *segment_of;               /* [info.adapter_slots] of a step's table; -1 in between */
    int32_t *segments;                 /* [rows_max] of a step's rows; scratch */
    int32_t adapter_rank_max;
    int32_t lora_ranks[LORE_LINEARS]; /* what launches are sized for; 0: nobody changes these */
    lore_adapter_loader loader;       /* of whoever places an adapter */
    lore_dtype dtype;                 /* of what passes between two ops: normed .. last_normed */
    float *x, *last, *logits;
    void *normed, *qkv, *mixed, *gate_up, *hidden, *last_normed;
};

/* Pages that hold so many tokens of one sequence. */
static inline int32_t lore_pages_for(int32_t tokens, int32_t page_tokens)
{
    return (tokens + page_tokens - 1) / page_tokens;
}

/* ---- steps (decoder_step.c) ---- */
_Static_assert((int)LORE_STEPS_MAX <= (int)LORE_MARKS, "each step on its way has a mark");
/* Say where the arrays of a step stand in a block; NULL: only how many bytes it has. */
size_t lore_step_memory_place(const lore_decoder *decoder, void *block, lore_step_memory *memory);
lore_status lore_decoder_plan_buckets(lore_decoder *decoder, lore_error *err);
void lore_decoder_free_buckets(lore_decoder *decoder);
/* Run the largest step there can be, over nobody's tokens: what a device needs beside the memory
 * taken here, it takes now or not at all. */
lore_status lore_decoder_size_scratch(lore_decoder *decoder, lore_error *err);
/* Let the device choose, over nobody's tokens, how it multiplies few rows. */
lore_status lore_decoder_tune(lore_decoder *decoder, lore_error *err);

/* ---- pages (decoder_pages.c) ---- */
/* How many pages there can be at most, before anything is loaded. */
lore_status lore_decoder_plan_pages(lore_decoder *decoder, const lore_limits *limits,
                                    const lore_decoder_options *options, lore_error *err);
/* What a device has left for pages, of which so many bytes were free before the decoder was loaded
 * and are free now. vram_limit 0: none. May be below 0. */
int64_t lore_decoder_device_bytes(int64_t free_before, int64_t free_now, int64_t vram_limit);
/* Take as many as fit beside what was loaded since `free_before` bytes of a device were free. */
lore_status lore_decoder_take_pages(lore_decoder *decoder, const lore_limits *limits,
                                    const lore_decoder_options *options, int64_t free_before,
                                    lore_error *err);

/* ---- adapters (decoder_adapters.c) ---- */
lore_status lore_decoder_open_seats(lore_decoder *decoder, lore_error *err);
void lore_decoder_close_seats(lore_decoder *decoder);
/* Which product of an adapter belongs to a decoder's. */
int32_t lore_decoder_lora_index(const lore_decoder *decoder, int32_t layer, lore_linear which);
/* The largest rank that an adapter may have there, all parts together. */
int32_t lore_decoder_lora_rank_max(const lore_decoder *decoder, lore_linear which);
bool lore_step_has_adapters(const lore_step *step);
/* Write the table of a step that has adapters, filled up with empty segments to sequences_max.
 * Returns how many there are before those. */
int32_t lore_step_memory_fill_adapters(const lore_decoder *decoder, const lore_step_memory *to,
                                       const lore_step *step);
/* The table of a step in which nobody has one. */
void lore_step_memory_clear_adapters(const lore_decoder *decoder, const lore_step_memory *to);

/* Layers as lore_op_layers takes them (decoder.c). LORE_ERR_NOMEM. */
lore_status lore_decoder_fuse(lore_decoder *decoder, lore_error *err);
/* Embed .. logits (decoder.c): the rows d->step.ids of a batch whose arrays lie in backend memory;
 * logits of the rows logits_rows, there too, end up in d->logits. NULL: of all rows, in order.
 * segments: of the adapters' table in d->step; 0: nobody has one. Failures are the queue's. */
void lore_decoder_forward(lore_decoder *decoder, const lore_batch *batch, int32_t logits_count,
                          const int32_t *logits_rows, int32_t segments);

#endif
