/* Requests: what a generation asks for is checked and copied by the thread that asks.
 *
 * Everything that can fail happens here, before the request goes to the engine: limits, values,
 * memory. The engine's thread then only moves tokens. */
#include "generation/request_int.h"

#include <math.h>
#include <string.h>

enum { REQUEST_BLOCK_BYTES = 2048 /* arena block of a request without long arrays */ };

void lore_request_free(lore_request *req)
{
    if (req == NULL) {
        return;
    }
    lore_stop_destroy(&req->stop);
    lore_arena_destroy(&req->arena);
    lore_free(req);
}

static lore_status check_sampling(const lore_sampling *sampling, lore_error *err)
{
    float temperature = sampling->temperature, top_p = sampling->top_p;
    if (!isfinite(temperature) || temperature < 0.0f) {
        return lore_fail(err, LORE_ERR_INVALID, "temperature is %g, must be at least 0",
                         (double)temperature);
    }
    if (temperature > 0.0f && !(top_p >= 0.0f && top_p <= 1.0f)) {
        return lore_fail(err, LORE_ERR_INVALID, "top_p is %g, must be at least 0 and at most 1",
                         (double)top_p);
    }
    if (sampling->top_k < 0) {
        return lore_fail(err, LORE_ERR_INVALID, "top_k is %d, must be at least 0", sampling->top_k);
    }
    float penalty = sampling->repetition_penalty;
    if (penalty != 0.0f && !(penalty >= (float)LORE_PENALTY_MIN && penalty <= LORE_PENALTY_MAX)) {
        return lore_fail(err, LORE_ERR_INVALID, "repetition_penalty is %g, must be %g to %g",
                         (double)penalty, LORE_PENALTY_MIN, LORE_PENALTY_MAX);
    }
    return LORE_OK;
}

/* What the request leaves open is as the model's folder says. */
static lore_sampling complete(lore_sampling sampling, const lore_generation_defaults *defaults)
{
    if (sampling.top_p == 0.0f) {
        sampling.top_p = defaults->top_p;
    }
    if (sampling.top_k == 0) {
        sampling.top_k = defaults->top_k;
    }
    if (sampling.repetition_penalty == 0.0f) {
        sampling.repetition_penalty = defaults->repetition_penalty;
    }
    return sampling;
}

static lore_status check_stop(const lore_limits *limits, const lore_str *stop, int32_t count,
                              lore_error *err)
{
    if (count < 0 || count > limits->stop_strings_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "%d stop strings, at most %lld are allowed", count,
                         (long long)limits->stop_strings_max);
    }
    for (int32_t i = 0; i < count; i++) {
        if (stop[i].len == 0) {
            return lore_fail(err, LORE_ERR_INVALID, "stop string %d is empty", i + 1);
        }
        if (stop[i].len > (size_t)limits->stop_bytes_max) {
            return lore_fail(err, LORE_ERR_LIMIT,
                             "stop string %d has %zu bytes, at most %lld are allowed", i + 1,
                             stop[i].len, (long long)limits->stop_bytes_max);
        }
    }
    return LORE_OK;
}

static lore_status check_prompt(const lore_request_bounds *bounds,
                                const lore_generation *generation, lore_error *err)
{
    if (generation->prompt_count > bounds->limits->prompt_tokens_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "the prompt has %d tokens, at most %lld are allowed",
                         generation->prompt_count, (long long)bounds->limits->prompt_tokens_max);
    }
    if (generation->tokens_max > bounds->limits->answer_tokens_max) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "an answer of %d tokens was asked for, at most %lld are allowed",
                         generation->tokens_max, (long long)bounds->limits->answer_tokens_max);
    }
    lore_status status =
        lore_sched_check(bounds->sched, generation->prompt_count, generation->tokens_max, err);
    for (int32_t i = 0; i < generation->prompt_count && status == LORE_OK; i++) {
        int32_t id = generation->prompt[i];
        if (id < 0 || id >= bounds->info->vocab) {
            status =
                lore_fail(err, LORE_ERR_INVALID, "prompt token %d is %d, the vocabulary has %d",
                          i + 1, id, bounds->info->vocab);
        }
    }
    return status;
}

lore_status lore_request_check(const lore_request_bounds *bounds, const lore_generation *generation,
                               lore_error *err)
{
    lore_status status = check_prompt(bounds, generation, err);
    if (status == LORE_OK) {
        status = check_sampling(&generation->sampling, err);
    }
    if (status == LORE_OK) {
        status = check_stop(bounds->limits, generation->stop, generation->stop_count, err);
    }
    return status;
}

/* All memory that the request will need, the prompt and the stop strings copied. */
lore_status lore_request_new(const lore_request_bounds *bounds, const lore_generation *generation,
                             lore_request **req_out, lore_error *err)
{
    lore_request *req = lore_alloc_zero(1, sizeof *req);
    if (req == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a request");
    }
    int32_t room = bounds->info->context - generation->prompt_count;
    req->prompt_count = generation->prompt_count;
    req->tokens_max = generation->tokens_max < room ? generation->tokens_max : room;
    req->sampling = complete(generation->sampling, &bounds->info->generation);
    lore_arena_init(&req->arena, 0);
    req->arena.block_bytes = REQUEST_BLOCK_BYTES;
    size_t token_count = (size_t)req->prompt_count + (size_t)req->tokens_max;
    req->tokens = lore_arena_push(&req->arena, token_count * sizeof(int32_t));
    req->logprobs = LORE_PUSH(&req->arena, float, req->tokens_max);
    lore_status status = LORE_OK;
    if (req->tokens == NULL || req->logprobs == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for a request");
    } else {
        memcpy(req->tokens, generation->prompt, (size_t)req->prompt_count * sizeof(int32_t));
        status = lore_stop_init(&req->stop, generation->stop, generation->stop_count,
                                req->tokens_max, bounds->token_bytes_max, &req->arena, err);
    }
    if (status == LORE_OK) {
        req->stream = lore_stream_new(req->tokens_max);
        if (req->stream == NULL) {
            status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for an answer of %d tokens",
                               req->tokens_max);
        }
    }
    if (status != LORE_OK) {
        lore_request_free(req);
        return status;
    }
    *req_out = req;
    return LORE_OK;
}
