/* The engine thread: arrivals and cancels in, one step, tokens out, again.
 *
 * A request is built whole by the thread that asks (prompt, room for the answer, stop strings,
 * stream: all memory it will ever need), then its ownership moves through the channel. From there
 * on it belongs to the engine thread, which alone touches decoder and scheduler and allocates
 * nothing.
 *
 * What crosses threads: the request pointer (channel), tokens and the cancel flag (stream), the
 * count of unfinished requests and the order to stop (atomics below), the statistics (under
 * stats_lock).
 *
 * Invariants
 * 1. unfinished >= requests in the channel + live requests, and never above request_cap once a
 *    submit has returned: so neither the channel nor the scheduler can be full when one arrives.
 * 2. `live` holds exactly the requests that the scheduler has; live[i]->live_index is i.
 * 3. Each request ends in finish_request, once: one last event, its memory freed.
 *
 * States of the engine: serving -> draining (lore_engine_stop: the channel is closed) -> aborting
 * (the deadline has passed) -> ended (channel and `live` empty, the thread returns). */
#include "generation/engine.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "generation/engine_int.h"
#include "generation/stop.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    BOUND_MAX = 1 << 20, /* of rows, sequences and queue: far above use, far below overflow */
    REQUEST_BLOCK_BYTES = 2048, /* arena block of a request without long arrays */
    NOT_STOPPING = -1
};

typedef struct request {
    lore_stream *stream; /* the engine's reference */
    lore_arena arena;    /* the arrays below */
    int32_t *tokens;     /* [prompt_count + tokens_max], lent to the scheduler */
    float *logprobs;     /* [tokens_max] of the drawn tokens */
    int32_t prompt_count;
    int32_t tokens_max;
    lore_sampling sampling;
    lore_stop stop;
    int32_t drawn; /* tokens taken from the scheduler, without an end-of-text token */
    int32_t sent;  /* of these, pushed to the stream */
    int32_t ticket;
    int32_t live_index;
} request;

struct lore_engine {
    lore_engine_model model;
    lore_limits limits;
    int32_t rows_max, sequences_max;
    int32_t request_cap;    /* running and waiting together */
    size_t token_bytes_max; /* longest token of the vocabulary */
    lore_chan *arrivals;
    lore_thread thread;

    /* Relaxed: a bare count; requests themselves are handed over by the channel's lock. */
    atomic_int_least32_t unfinished;
    /* Absolute deadline of lore_engine_stop, 0 none, or NOT_STOPPING. Relaxed: nothing else is
     * published with it, and the closed channel wakes the thread. */
    _Atomic int64_t stop_deadline_ns;

    /* The engine thread's alone. */
    lore_sched *sched;
    request **live; /* [request_cap] */
    int32_t live_count;
    int32_t *ids;    /* [sequences_max] drawn by the step */
    float *logprobs; /* [sequences_max] */

    lore_lock stats_lock; /* guards stats */
    lore_sched_stats stats;
};

/* ---- requests, on the asking thread ---- */

static void request_free(request *req)
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
    if (temperature > 0.0f && !(top_p > 0.0f && top_p <= 1.0f)) {
        return lore_fail(err, LORE_ERR_INVALID, "top_p is %g, must be above 0 and at most 1",
                         (double)top_p);
    }
    if (sampling->top_k < 0) {
        return lore_fail(err, LORE_ERR_INVALID, "top_k is %d, must be at least 0", sampling->top_k);
    }
    return LORE_OK;
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

static lore_status check_prompt(const lore_engine *engine, const lore_generation *generation,
                                lore_error *err)
{
    if (generation->prompt_count > engine->limits.prompt_tokens_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "the prompt has %d tokens, at most %lld are allowed",
                         generation->prompt_count, (long long)engine->limits.prompt_tokens_max);
    }
    if (generation->tokens_max > engine->limits.answer_tokens_max) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "an answer of %d tokens was asked for, at most %lld are allowed",
                         generation->tokens_max, (long long)engine->limits.answer_tokens_max);
    }
    lore_status status =
        lore_sched_check(engine->sched, generation->prompt_count, generation->tokens_max, err);
    for (int32_t i = 0; i < generation->prompt_count && status == LORE_OK; i++) {
        int32_t id = generation->prompt[i];
        if (id < 0 || id >= engine->model.info->vocab) {
            status =
                lore_fail(err, LORE_ERR_INVALID, "prompt token %d is %d, the vocabulary has %d",
                          i + 1, id, engine->model.info->vocab);
        }
    }
    return status;
}

static lore_status check_generation(const lore_engine *engine, const lore_generation *generation,
                                    lore_error *err)
{
    lore_status status = check_prompt(engine, generation, err);
    if (status == LORE_OK) {
        status = check_sampling(&generation->sampling, err);
    }
    if (status == LORE_OK) {
        status = check_stop(&engine->limits, generation->stop, generation->stop_count, err);
    }
    return status;
}

/* All memory that the request will need, the prompt and the stop strings copied. */
static lore_status request_new(const lore_engine *engine, const lore_generation *generation,
                               request **req_out, lore_error *err)
{
    request *req = lore_alloc_zero(1, sizeof *req);
    if (req == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a request");
    }
    int32_t room = engine->model.info->context - generation->prompt_count;
    req->prompt_count = generation->prompt_count;
    req->tokens_max = generation->tokens_max < room ? generation->tokens_max : room;
    req->sampling = generation->sampling;
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
                                req->tokens_max, engine->token_bytes_max, &req->arena, err);
    }
    if (status == LORE_OK) {
        req->stream = lore_stream_new(req->tokens_max);
        if (req->stream == NULL) {
            status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for an answer of %d tokens",
                               req->tokens_max);
        }
    }
    if (status != LORE_OK) {
        request_free(req);
        return status;
    }
    *req_out = req;
    return LORE_OK;
}

static lore_status hand_over(lore_engine *engine, const lore_generation *generation,
                             lore_stream **stream_out, lore_error *err)
{
    request *req = NULL;
    lore_status status = request_new(engine, generation, &req, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_stream *stream = req->stream; /* after the send, req may be gone already */
    status = lore_chan_try_send(engine->arrivals, req);
    if (status != LORE_OK) {
        lore_stream_release(stream);
        lore_stream_release(stream);
        request_free(req);
        LORE_ASSERT(status == LORE_ERR_CANCELLED); /* invariant 1: the channel is not full */
        return lore_fail(err, LORE_ERR_CANCELLED, "the engine is stopping");
    }
    *stream_out = stream;
    return LORE_OK;
}

lore_status lore_engine_submit(lore_engine *engine, const lore_generation *generation,
                               lore_stream **stream, lore_error *err)
{
    lore_status status = check_generation(engine, generation, err);
    if (status != LORE_OK) {
        return status;
    }
    if (atomic_fetch_add_explicit(&engine->unfinished, 1, memory_order_relaxed) >=
        engine->request_cap) {
        status = lore_fail(err, LORE_ERR_BUSY,
                           "the engine has %d requests, %d running and %lld waiting at most",
                           engine->request_cap, engine->sequences_max,
                           (long long)engine->limits.queue_requests_max);
    } else {
        status = hand_over(engine, generation, stream, err);
    }
    if (status != LORE_OK) {
        atomic_fetch_sub_explicit(&engine->unfinished, 1, memory_order_relaxed);
    }
    return status;
}

/* ---- the engine thread ---- */

/* Push the drawn tokens up to `until`. Where the answer ends, the last of them says so, or an event
 * of its own when there is none to carry it. */
static void send_tokens(request *req, int32_t until, lore_finish finish, int32_t cut_bytes)
{
    while (req->sent < until) {
        int32_t at = req->sent++;
        bool is_last = finish != LORE_FINISH_NONE && at == until - 1;
        lore_token_event event = {.id = req->tokens[req->prompt_count + at],
                                  .logprob = req->logprobs[at],
                                  .finish = is_last ? finish : LORE_FINISH_NONE,
                                  .cut_bytes = is_last ? cut_bytes : 0};
        lore_stream_push(req->stream, event);
        if (is_last) {
            return;
        }
    }
    if (finish != LORE_FINISH_NONE) {
        lore_stream_push(req->stream, (lore_token_event){.id = -1, .finish = finish});
    }
}

/* The last event, then the end of the request. The place is given back first, so that whoever has
 * seen the last event can submit again at once. */
static void finish_request(lore_engine *engine, request *req, int32_t until, lore_finish finish,
                           int32_t cut_bytes)
{
    request *moved = engine->live[--engine->live_count];
    engine->live[req->live_index] = moved;
    moved->live_index = req->live_index;
    atomic_fetch_sub_explicit(&engine->unfinished, 1, memory_order_relaxed);
    send_tokens(req, until, finish, cut_bytes);
    lore_stream_release(req->stream);
    request_free(req);
}

/* lore_sched_token: one drawn token, or the end of a sequence without one. */
static bool take_token(void *self, void *owner, int32_t ticket, int32_t id, float logprob,
                       lore_finish finish)
{
    lore_engine *engine = self;
    request *req = owner;
    LORE_ASSERT(req->ticket == ticket);
    if (id < 0 || finish == LORE_FINISH_STOP) {
        /* Cancelled, failed, or an end-of-text token, which is not of the answer. What was held
         * back for a stop string that did not come is of the answer. */
        finish_request(engine, req, req->drawn, finish, 0);
        return true;
    }
    req->logprobs[req->drawn++] = logprob; /* the scheduler has written the id to req->tokens */
    lore_stop_verdict verdict = lore_stop_push(&req->stop, engine->model.tokenizer, id);
    if (verdict.is_match) {
        finish_request(engine, req, verdict.sendable, LORE_FINISH_STOP, verdict.cut_bytes);
        return true;
    }
    if (finish != LORE_FINISH_NONE) {
        finish_request(engine, req, req->drawn, finish, 0);
        return true;
    }
    send_tokens(req, verdict.sendable, LORE_FINISH_NONE, 0);
    return false;
}

static void add_request(lore_engine *engine, request *req)
{
    lore_sequence_request sequence = {.tokens = req->tokens,
                                      .prompt_count = req->prompt_count,
                                      .tokens_max = req->tokens_max,
                                      .sampling = req->sampling,
                                      .owner = req};
    lore_status status = lore_sched_add(engine->sched, &sequence, &req->ticket, NULL);
    LORE_ASSERT(status == LORE_OK); /* submit has checked the size, invariant 1 the room */
    req->live_index = engine->live_count;
    engine->live[engine->live_count++] = req;
}

/* Take all that has arrived; without live requests, wait for one. False: closed and nothing left.
 */
static bool take_arrivals(lore_engine *engine)
{
    void *item = NULL;
    if (engine->live_count == 0) {
        if (lore_chan_recv(engine->arrivals, &item, 0) != LORE_OK) {
            return false;
        }
        add_request(engine, item);
    }
    while (lore_chan_try_recv(engine->arrivals, &item) == LORE_OK) {
        add_request(engine, item);
    }
    return true;
}

static void take_cancels(lore_engine *engine)
{
    int64_t deadline_ns = atomic_load_explicit(&engine->stop_deadline_ns, memory_order_relaxed);
    if (deadline_ns != NOT_STOPPING && lore_deadline_passed(deadline_ns)) {
        lore_sched_abort(engine->sched, LORE_FINISH_CANCELLED, take_token, engine);
        return;
    }
    for (int32_t i = 0; i < engine->live_count; i++) {
        if (lore_stream_is_cancelled(engine->live[i]->stream)) {
            lore_sched_cancel(engine->sched, engine->live[i]->ticket);
        }
    }
}

/* Plan, run, apply. A failed step fails the requests that were live, and no later ones: the next
 * step tries the device again. */
static void run_step(lore_engine *engine)
{
    const lore_step *step = lore_sched_plan(engine->sched);
    if (step->batch.rows > 0) {
        lore_error err;
        lore_status status =
            engine->model.step(engine->model.self, step, engine->ids, engine->logprobs, &err);
        if (status != LORE_OK) {
            lore_log(LORE_LOG_ERROR, "event=step_failed requests=%d status=%s message=\"%s\"",
                     engine->live_count, lore_status_name(status), err.message);
            lore_sched_abort(engine->sched, LORE_FINISH_ERROR, take_token, engine);
            return;
        }
    }
    lore_sched_apply(engine->sched, engine->ids, engine->logprobs, take_token, engine);
}

static void publish_stats(lore_engine *engine)
{
    lore_sched_stats stats;
    lore_sched_get_stats(engine->sched, &stats);
    lore_lock_acquire(&engine->stats_lock);
    engine->stats = stats;
    lore_lock_release(&engine->stats_lock);
}

static void *run_engine(void *self)
{
    lore_engine *engine = self;
    while (take_arrivals(engine)) {
        take_cancels(engine);
        run_step(engine);
        publish_stats(engine);
    }
    return NULL;
}

/* ---- start and stop ---- */

static lore_status bounded(int64_t value, const char *name, int32_t *out, lore_error *err)
{
    if (value < 1 || value > BOUND_MAX) {
        return lore_fail(err, LORE_ERR_INVALID, "limits.%s is %lld, must be 1 to %d", name,
                         (long long)value, (int)BOUND_MAX);
    }
    *out = (int32_t)value;
    return LORE_OK;
}

static lore_status read_bounds(lore_engine *engine, lore_error *err)
{
    const lore_limits *limits = &engine->limits;
    int32_t queue = 0;
    lore_status status =
        bounded(limits->step_tokens_max, "step_tokens_max", &engine->rows_max, err);
    if (status == LORE_OK) {
        status = bounded(limits->batch_sequences_max, "batch_sequences_max", &engine->sequences_max,
                         err);
    }
    if (status == LORE_OK) {
        status = bounded(limits->queue_requests_max, "queue_requests_max", &queue, err);
    }
    engine->request_cap = engine->sequences_max + queue;
    return status;
}

static void close_engine(lore_engine *engine)
{
    lore_sched_free(engine->sched);
    lore_free(engine->live);
    lore_free(engine->ids);
    lore_free(engine->logprobs);
    lore_chan_free(engine->arrivals);
    lore_lock_destroy(&engine->stats_lock);
    if (engine->model.close != NULL) {
        engine->model.close(engine->model.self);
    }
    lore_free(engine);
}

static lore_status make_parts(lore_engine *engine, lore_error *err)
{
    const lore_decoder_info *info = engine->model.info;
    lore_sched_options options = {.rows_max = engine->rows_max,
                                  .sequences_max = engine->sequences_max,
                                  .waiting_max = engine->request_cap,
                                  .context = info->context,
                                  .page_tokens = info->page_tokens,
                                  .page_count = info->page_count,
                                  .eos_ids = info->eos_ids,
                                  .eos_count = info->eos_count};
    lore_status status = lore_sched_new(&options, &engine->sched, err);
    if (status != LORE_OK) {
        return status;
    }
    engine->arrivals = lore_chan_new((size_t)engine->request_cap);
    engine->live = lore_alloc_zero((size_t)engine->request_cap, sizeof(request *));
    engine->ids = lore_alloc_zero((size_t)engine->sequences_max, sizeof(int32_t));
    engine->logprobs = lore_alloc_zero((size_t)engine->sequences_max, sizeof(float));
    if (engine->arrivals == NULL || engine->live == NULL || engine->ids == NULL ||
        engine->logprobs == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the engine");
    }
    int32_t vocab = lore_tokenizer_vocab(engine->model.tokenizer);
    for (int32_t id = 0; id < vocab; id++) {
        size_t bytes = lore_tokenizer_bytes(engine->model.tokenizer, id).len;
        engine->token_bytes_max = bytes > engine->token_bytes_max ? bytes : engine->token_bytes_max;
    }
    return LORE_OK;
}

lore_status lore_engine_start_model(const lore_engine_model *model, const lore_limits *limits,
                                    lore_engine **engine_out, lore_error *err)
{
    lore_engine *engine = lore_alloc_zero(1, sizeof *engine);
    if (engine == NULL) {
        if (model->close != NULL) {
            model->close(model->self);
        }
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the engine");
    }
    engine->model = *model;
    engine->limits = *limits;
    atomic_init(&engine->unfinished, 0);
    atomic_init(&engine->stop_deadline_ns, NOT_STOPPING);
    lore_lock_init(&engine->stats_lock);
    lore_status status = read_bounds(engine, err);
    if (status == LORE_OK) {
        status = make_parts(engine, err);
    }
    if (status == LORE_OK) {
        publish_stats(engine);
        status = lore_thread_start(&engine->thread, "engine", run_engine, engine, err);
    }
    if (status != LORE_OK) {
        close_engine(engine);
        return status;
    }
    *engine_out = engine;
    return LORE_OK;
}

static lore_status step_decoder(void *self, const lore_step *step, int32_t *ids, float *logprobs,
                                lore_error *err)
{
    return lore_decoder_step(self, step, ids, logprobs, NULL, err);
}

static void close_decoder(void *self)
{
    lore_decoder_close(self);
}

/* bf16 pages halve what attention reads and what a sequence occupies; "auto" takes them where
 * bandwidth is the bound (cuda), and keeps f32 on the host, where results are compared with `ref`.
 */
static lore_status kv_dtype_of(const lore_config *config, const lore_backend *backend,
                               lore_dtype *dtype, lore_error *err)
{
    lore_str name = lore_str_from(config->kv_dtype);
    bool is_auto = name.len == 0 || lore_str_equal(name, LORE_STR("auto"));
    if (is_auto && lore_backend_get_kind(backend) == LORE_BACKEND_CUDA) {
        *dtype = LORE_BF16;
    } else if (is_auto || lore_str_equal(name, LORE_STR("f32"))) {
        *dtype = LORE_F32;
    } else if (lore_str_equal(name, LORE_STR("bf16"))) {
        *dtype = LORE_BF16;
    } else {
        return lore_fail(err, LORE_ERR_INVALID, "kv_dtype is '%s', must be auto, f32 or bf16",
                         config->kv_dtype);
    }
    return LORE_OK;
}

lore_status lore_engine_start(const char *folder, lore_backend *backend, const lore_config *config,
                              lore_engine **engine, lore_error *err)
{
    lore_decoder_options options = {0};
    lore_status status =
        bounded(config->limits.step_tokens_max, "step_tokens_max", &options.rows_max, err);
    if (status == LORE_OK) {
        status = bounded(config->limits.batch_sequences_max, "batch_sequences_max",
                         &options.sequences_max, err);
    }
    if (status == LORE_OK) {
        status = kv_dtype_of(config, backend, &options.kv_dtype, err);
    }
    lore_decoder *decoder = NULL;
    if (status == LORE_OK) {
        status = lore_decoder_open(folder, backend, &config->limits, &options, &decoder, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_engine_model model = {.self = decoder,
                               .step = step_decoder,
                               .close = close_decoder,
                               .info = lore_decoder_get_info(decoder),
                               .tokenizer = lore_decoder_tokenizer(decoder)};
    return lore_engine_start_model(&model, &config->limits, engine, err);
}

void lore_engine_stop(lore_engine *engine, int64_t deadline_ns)
{
    if (engine == NULL) {
        return;
    }
    /* A deadline before the clock's zero is as passed as any other. */
    int64_t stop_ns = deadline_ns < 0 ? 1 : deadline_ns;
    atomic_store_explicit(&engine->stop_deadline_ns, stop_ns, memory_order_relaxed);
    lore_chan_close(engine->arrivals);
    lore_thread_join(&engine->thread);
    close_engine(engine);
}

const lore_decoder_info *lore_engine_info(const lore_engine *engine)
{
    return engine->model.info;
}

const lore_tokenizer *lore_engine_tokenizer(const lore_engine *engine)
{
    return engine->model.tokenizer;
}

void lore_engine_get_stats(lore_engine *engine, lore_sched_stats *stats)
{
    lore_lock_acquire(&engine->stats_lock);
    *stats = engine->stats;
    lore_lock_release(&engine->stats_lock);
    stats->waiting += (int32_t)lore_chan_count(engine->arrivals);
}
