/* Requests: what a generation asks for is checked and copied by the thread that asks.
 *
 * Everything that can fail happens here, before the request goes to the engine: limits, values,
 * memory. The engine's thread then only moves tokens. */
#include "generation/request_int.h"

#include <math.h>
#include <string.h>

enum {
    REQUEST_BLOCK_BYTES = 2048, /* arena block of a request without long arrays */
    BIASES_MAX = 1024           /* of one request: more is a grammar, not a bias */
};
#define BIAS_MAX 100.0f /* of a logit, up or down: as good as a ban or a must; the OpenAI API's */
#define ADDED_MAX 2.0f  /* of presence and frequency penalties: the OpenAI API's */

void lore_request_free(lore_request *req)
{
    if (req == NULL) {
        return;
    }
    lore_stop_destroy(&req->stop);
    lore_arena_destroy(&req->arena);
    lore_free(req);
}

/* Values from outside: comparisons that a NaN fails. */
static lore_status check_range(const char *name, float value, float least, float most,
                               lore_error *err)
{
    if (!(value >= least && value <= most)) {
        return lore_fail(err, LORE_ERR_INVALID, "%s is %g, must be %g to %g", name, (double)value,
                         (double)least, (double)most);
    }
    return LORE_OK;
}

static lore_status check_penalties(const lore_sampling *sampling, lore_error *err)
{
    lore_status status = LORE_OK;
    if (sampling->repetition_penalty != 0.0f) {
        status = check_range("repetition_penalty", sampling->repetition_penalty,
                             (float)LORE_PENALTY_MIN, (float)LORE_PENALTY_MAX, err);
    }
    if (status == LORE_OK) {
        status =
            check_range("presence_penalty", sampling->presence_penalty, -ADDED_MAX, ADDED_MAX, err);
    }
    if (status == LORE_OK) {
        status = check_range("frequency_penalty", sampling->frequency_penalty, -ADDED_MAX,
                             ADDED_MAX, err);
    }
    return status;
}

/* Of different tokens, so that nobody has to say which of two counts. */
static lore_status check_biases(const lore_sampling *sampling, int32_t vocab, lore_error *err)
{
    const lore_bias *biases = sampling->biases;
    if (sampling->bias_count < 0 || sampling->bias_count > BIASES_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "logit_bias has %d tokens, at most %d are allowed",
                         sampling->bias_count, (int)BIASES_MAX);
    }
    for (int32_t i = 0; i < sampling->bias_count; i++) {
        if (biases[i].id < 0 || biases[i].id >= vocab) {
            return lore_fail(err, LORE_ERR_INVALID, "logit_bias of token %d, the vocabulary has %d",
                             biases[i].id, vocab);
        }
        for (int32_t j = 0; j < i; j++) {
            if (biases[j].id == biases[i].id) {
                return lore_fail(err, LORE_ERR_INVALID, "logit_bias has token %d twice",
                                 biases[i].id);
            }
        }
        if (!(biases[i].bias >= -BIAS_MAX && biases[i].bias <= BIAS_MAX)) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "logit_bias of token %d is %g, must be %g to %g", biases[i].id,
                             (double)biases[i].bias, -(double)BIAS_MAX, (double)BIAS_MAX);
        }
    }
    return LORE_OK;
}

static lore_status check_sampling(const lore_sampling *sampling, int32_t vocab, lore_error *err)
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
    const int32_t tops_max = vocab < LORE_TOPS_MAX ? vocab : LORE_TOPS_MAX;
    if (sampling->tops < 0 || sampling->tops > tops_max) {
        return lore_fail(err, LORE_ERR_INVALID, "top_logprobs is %d, must be 0 to %d",
                         sampling->tops, tops_max);
    }
    lore_status status = check_range("min_p", sampling->min_p, 0.0f, 1.0f, err);
    if (status == LORE_OK) {
        status = check_penalties(sampling, err);
    }
    return status == LORE_OK ? check_biases(sampling, vocab, err) : status;
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
        status = check_sampling(&generation->sampling, bounds->info->vocab, err);
    }
    if (status == LORE_OK) {
        status = check_stop(bounds->limits, generation->stop, generation->stop_count, err);
    }
    return status;
}

/* The arrays that the request and the scheduler work on, with what the generation lends. */
static lore_status copy_arrays(lore_request *req, const lore_generation *generation,
                               lore_error *err)
{
    const size_t token_count = (size_t)req->prompt_count + (size_t)req->tokens_max;
    const size_t bias_count = (size_t)req->sampling.bias_count;
    req->tokens = lore_arena_push(&req->arena, token_count * sizeof(int32_t));
    req->logprobs = LORE_PUSH(&req->arena, float, req->tokens_max);
    lore_bias *biases = LORE_PUSH(&req->arena, lore_bias, bias_count);
    if (req->tokens == NULL || req->logprobs == NULL || biases == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a request");
    }
    memcpy(req->tokens, generation->prompt, (size_t)req->prompt_count * sizeof(int32_t));
    if (bias_count > 0) {
        memcpy(biases, generation->sampling.biases, bias_count * sizeof *biases);
    }
    req->sampling.biases = biases;
    return LORE_OK;
}

/* All memory that the request will need; prompt, biases and stop strings are copied. */
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
    req->salt = generation->salt;
    lore_arena_init(&req->arena, 0);
    req->arena.block_bytes = REQUEST_BLOCK_BYTES;
    lore_status status = copy_arrays(req, generation, err);
    if (status == LORE_OK) {
        status = lore_stop_init(&req->stop, generation->stop, generation->stop_count,
                                req->tokens_max, bounds->token_bytes_max, &req->arena, err);
    }
    if (status == LORE_OK) {
        req->stream = lore_stream_new(req->tokens_max, req->sampling.tops);
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
