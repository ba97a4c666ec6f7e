/* Requests given to the engine directly, many at a time, and watched by one thread.
 *
 * The thread that submits also looks at every stream once a millisecond, so hundreds of answers
 * cost no thread each, and times are exact to about a millisecond. Prompts are random tokens, so
 * none begins as another does unless that is asked for. Thread: one. */
#ifndef LORE_BENCH_BENCH_LOAD_H
#define LORE_BENCH_BENCH_LOAD_H

#include "bench/bench.h"
#include "generation/engine.h"

typedef struct lore_bench_request {
    int32_t prompt_count, tokens_max;
    int32_t shared;    /* so many of its first tokens are those of every such prompt */
    int32_t cancel_at; /* cancelled once it has so many tokens; -1: never */
    float temperature;
    bool is_counted;  /* for whoever gave it */
    int64_t due_ns;   /* when it was to be submitted: first tokens are waited for from here */
    int64_t first_ns; /* of the first token; 0: none yet */
    int64_t last_ns;  /* of the last one */
    int64_t cancel_ns;
    int32_t tokens;
    lore_finish finish; /* NONE while it runs */
    lore_stream *stream;
} lore_bench_request;

typedef struct lore_bench_load {
    lore_bench *bench;
    lore_config config; /* of the engine: as configured, but with room for all that arrive */
    lore_backend *backend;
    lore_engine *engine;
    uint64_t random;
    int32_t *prompt;          /* [PROMPT_MAX] of the request that is made */
    lore_bench_request *live; /* [live_max] */
    int32_t live_count, live_max;
    int64_t tokens, requests; /* that have come, that were submitted */
    /* Each request that ends or is given up is shown once. */
    void (*ended)(void *self, const lore_bench_request *request);
    void *self;
} lore_bench_load;

enum { LORE_BENCH_LOAD_PROMPT_MAX = 4096 };

/* Backend open, arrays taken; no engine yet. live_max bounds what is under way at a time. */
LORE_MUST_USE lore_status lore_bench_load_open(lore_bench_load *load, lore_bench *bench,
                                               int32_t live_max, lore_error *err);
void lore_bench_load_close(lore_bench_load *load); /* accepts a zeroed one; stops the engine */
/* The engine of load->config. */
LORE_MUST_USE lore_status lore_bench_load_start(lore_bench_load *load, lore_error *err);
void lore_bench_load_stop(lore_bench_load *load);

/* Below n, at least 0. */
int32_t lore_bench_load_below(lore_bench_load *load, int32_t n);
/* Submit; LORE_ERR_LIMIT where live_max are under way. */
LORE_MUST_USE lore_status lore_bench_load_submit(lore_bench_load *load,
                                                 const lore_bench_request *request,
                                                 lore_error *err);
/* Take what has come on all streams. LORE_ERR_DEVICE where a step failed. */
LORE_MUST_USE lore_status lore_bench_load_poll(lore_bench_load *load, lore_error *err);
/* Poll until nothing is under way. LORE_ERR_TIMEOUT at the deadline, naming how many are left;
 * LORE_ERR_CANCELLED. */
LORE_MUST_USE lore_status lore_bench_load_drain(lore_bench_load *load, int64_t deadline_ns,
                                                lore_error *err);
/* Cancel all that is under way. */
void lore_bench_load_cancel(lore_bench_load *load);

#endif
