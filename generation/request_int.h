/* One generation on its way through the engine, with all memory it will ever need.
 *
 * Made by the thread that asks; its ownership moves through the engine's channel, and from there on
 * it belongs to the engine's thread. Thread: one at a time. */
#ifndef LORE_GENERATION_REQUEST_INT_H
#define LORE_GENERATION_REQUEST_INT_H

#include "generation/adapters_int.h"
#include "generation/engine.h"
#include "generation/stop.h"

typedef struct lore_request {
    lore_stream *stream; /* the engine's reference; the other one is the caller's */
    lore_arena arena;    /* the arrays below */
    int32_t *tokens;     /* [prompt_count + tokens_max], lent to the scheduler */
    float *logprobs;     /* [tokens_max] of the drawn tokens */
    int32_t prompt_count;
    int32_t tokens_max;
    lore_sampling sampling;
    uint64_t salt;
    int32_t cached_tokens; /* of the prompt; the scheduler writes it */
    lore_stop stop;
    int32_t drawn; /* tokens taken from the scheduler, without an end-of-text token */
    int32_t sent;  /* of these, pushed to the stream */
    lore_adapter_version *adapter; /* a lease; NULL: the base */
    int64_t arrived_ns;            /* where it has one */
    bool is_placeless;             /* it waits for that, and others may have its place */
    int32_t ticket;
    int32_t live_index;
} lore_request;

/* What a request is held against; never changes, so any thread may look. */
typedef struct lore_request_bounds {
    const lore_limits *limits;
    const lore_decoder_info *info;
    const lore_sched *sched; /* for lore_sched_check */
    size_t token_bytes_max;  /* longest token of the vocabulary */
} lore_request_bounds;

/* Could it run? Fails as lore_engine_submit says. */
LORE_MUST_USE lore_status lore_request_check(const lore_request_bounds *bounds,
                                             const lore_generation *generation, lore_error *err);
/* Of a generation that has been checked: prompt, biases and stop strings copied. LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_request_new(const lore_request_bounds *bounds,
                                           const lore_generation *generation,
                                           lore_request **request, lore_error *err);
void lore_request_free(lore_request *request); /* without the stream; accepts NULL */

#endif
