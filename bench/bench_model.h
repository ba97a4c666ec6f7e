/* A decoder driven directly, for benchmarks: streams of equal length whose contexts are filled by
 * real prefill, and steps of all of them together.
 *
 * Tokens are random and fixed by a seed: speed does not depend on them. All goes through the
 * interface that the engine uses. Thread: one. */
#ifndef LORE_BENCH_BENCH_MODEL_H
#define LORE_BENCH_BENCH_MODEL_H

#include "bench/bench.h"
#include "models/decoder.h"

typedef struct lore_bench_model {
    lore_bench *bench;
    lore_backend *backend;
    lore_decoder *decoder;
    const lore_decoder_info *info;
    lore_dtype kv_dtype;
    int32_t streams_max, rows_max;
    int32_t pages_each; /* of a stream */
    int32_t *filled;    /* [streams_max] tokens of each stream whose keys and values are there */
    uint64_t random;
    int64_t submit_ns; /* what the last step of lore_bench_model_decode took to make and submit */
    /* One step's arrays. */
    int32_t *ids, *row_start, *past, *page_start, *pages, *logits_rows, *drawn;
    lore_sample *samples;
    float *logprobs;
    /* Adapters, where the bench asks for some: stream s has number s % adapters. */
    lore_adapter_placed **placed;
    int32_t *adapters;    /* [streams_max] */
    bool is_adapted;      /* steps name them */
    double adapter_bytes; /* of one, as it is placed */
} lore_bench_model;

typedef struct lore_bench_model_needs {
    int32_t streams;  /* exactly so many; 0: as many as the configuration allows, up to most */
    int32_t most;     /* for streams 0 */
    int32_t tokens;   /* that one stream grows to */
    int32_t rows_max; /* of one step, beside one row a stream */
} lore_bench_model_needs;

/* The configured decoder on the configured device. Pages are as many as the configuration allows,
 * or just enough where `streams` says how many are wanted. */
LORE_MUST_USE lore_status lore_bench_model_open(lore_bench_model *model, lore_bench *bench,
                                                const lore_bench_model_needs *needs,
                                                lore_error *err);
void lore_bench_model_close(lore_bench_model *model); /* accepts a zeroed one */

/* One step: the first `count` streams, each with `rows` new rows behind what it has, which must be
 * equally much. ids [count * rows] are the caller's to set; drawn [count] comes back. */
LORE_MUST_USE lore_status lore_bench_model_step(lore_bench_model *model, int32_t count,
                                                int32_t rows, lore_error *err);
/* So many steps of one row for each of the first `count` streams, each row the token that the step
 * before drew, with as many steps in flight as the decoder takes: what the engine does. ended is
 * called when a step's tokens are there. */
LORE_MUST_USE lore_status lore_bench_model_decode(lore_bench_model *model, int32_t count,
                                                  int32_t steps,
                                                  void (*ended)(void *self, int32_t step),
                                                  void *self, lore_error *err);
/* The first `count` streams have exactly `context` tokens: what is missing is computed in steps of
 * up to rows_max rows, what is too much is forgotten. */
LORE_MUST_USE lore_status lore_bench_model_fill(lore_bench_model *model, int32_t count,
                                                int32_t context, lore_error *err);
/* Seat an adapter of random numbers in every slot (bench_adapters.c); closing the model gives them
 * back. */
LORE_MUST_USE lore_status lore_bench_model_adapt(lore_bench_model *model, int32_t rank,
                                                 lore_error *err);
void lore_bench_model_unadapt(lore_bench_model *model);
int32_t lore_bench_model_random_id(lore_bench_model *model);

/* Weights of the layers that each token is multiplied with; the head is for the last one only. */
double lore_bench_layer_weights(const lore_decoder_info *info);
double lore_bench_head_weights(const lore_decoder_info *info);
/* Operations of causal attention, all layers, of `rows` rows behind `past` others. */
double lore_bench_attention_operations(const lore_decoder_info *info, int32_t rows, int32_t past);
/* Operations a second at best in the precision of the weights. */
double lore_bench_model_peak(const lore_bench *bench, const lore_decoder_info *info);
/* Bytes of keys and values of one token. */
double lore_bench_kv_bytes(const lore_decoder_info *info, lore_dtype kv_dtype);

#endif
