/* The engine thread: arrivals and cancels in, one step, tokens out, again. Where the decoder takes
 * two steps, the next one is submitted before the tokens of the last are read, so that the device
 * does not wait for the host.
 *
 * A request is built whole by the thread that asks (prompt, room for the answer, stop strings,
 * stream: all memory it will ever need), then its ownership moves through the channel. From there
 * on it belongs to the engine thread, which alone touches decoder and scheduler and allocates
 * nothing.
 *
 * What crosses threads: the request pointer (channel), tokens and the cancel flag (stream), those
 * to be woken (waker), the count of unfinished requests and the order to stop (atomics below), the
 * statistics (under stats_lock).
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
#include "generation/request_int.h"
#include "generation/waker.h"

#include <stdatomic.h>

#define HOST_CACHED_BYTES ((int64_t)64 << 20)
#define QUIET_NS ((int64_t)5 * 1000 * 1000) /* before each part of what is done while idle */
enum {
    BOUND_MAX = 1 << 20,   /* of rows, sequences and queue: far above use, far below overflow */
    PIECE_ROWS_FIRST = 64, /* beside running answers, until the speed is known */
    STEPS_MAX = 2,         /* in flight */
    PIECE_ROWS_MIN = 16, /* however slow: weights are read for every step, and prompts must go on */
    NOT_STOPPING = -1
};

struct lore_engine {
    lore_engine_model model;
    lore_limits limits;
    int32_t rows_max, sequences_max;
    int32_t steps_max;          /* in flight */
    int32_t request_cap;        /* running and waiting together */
    lore_request_bounds bounds; /* const after the start */
    lore_chan *arrivals;
    lore_thread thread;

    /* Relaxed: a bare count; requests themselves are handed over by the channel's lock. */
    atomic_int_least32_t unfinished;
    /* Absolute deadline of lore_engine_stop, 0 none, or NOT_STOPPING. Relaxed: nothing else is
     * published with it, and the closed channel wakes the thread. */
    _Atomic int64_t stop_deadline_ns;

    /* The engine thread's alone. */
    lore_sched *sched;
    lore_waker waker;    /* started where two steps are in flight */
    lore_request **live; /* [request_cap] */
    int32_t live_count;
    /* Submitted and not collected: the first so many, oldest first. */
    struct {
        const lore_step *step;
        int64_t submitted_ns;
    } flights[STEPS_MAX];
    int32_t flight_count;
    int64_t collected_ns; /* when the last step was */
    bool is_prepared;     /* no shape of steps is left to get ready for */
    int64_t row_ns;  /* a row of a step with pieces of prompts takes, smoothed; 0: not known yet */
    int32_t *ids;    /* [sequences_max] drawn by the step */
    float *logprobs; /* [sequences_max] */

    lore_lock stats_lock; /* guards stats */
    lore_sched_stats stats;
};

/* ---- requests, on the asking thread ---- */

static lore_status hand_over(lore_engine *engine, const lore_generation *generation,
                             lore_stream **stream_out, lore_error *err)
{
    lore_request *req = NULL;
    lore_status status = lore_request_new(&engine->bounds, generation, &req, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_stream *stream = req->stream; /* after the send, req may be gone already */
    status = lore_chan_try_send(engine->arrivals, req);
    if (status != LORE_OK) {
        lore_stream_release(stream);
        lore_stream_release(stream);
        lore_request_free(req);
        LORE_ASSERT(status == LORE_ERR_CANCELLED); /* invariant 1: the channel is not full */
        return lore_fail(err, LORE_ERR_CANCELLED, "the engine is stopping");
    }
    *stream_out = stream;
    return LORE_OK;
}

lore_status lore_engine_submit(lore_engine *engine, const lore_generation *generation,
                               lore_stream **stream, lore_error *err)
{
    lore_status status = lore_request_check(&engine->bounds, generation, err);
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
static void send_tokens(lore_engine *engine, lore_request *req, int32_t until, lore_finish finish,
                        int32_t cut_bytes)
{
    while (req->sent < until) {
        int32_t at = req->sent++;
        bool is_last = finish != LORE_FINISH_NONE && at == until - 1;
        lore_token_event event = {.id = req->tokens[req->prompt_count + at],
                                  .logprob = req->logprobs[at],
                                  .finish = is_last ? finish : LORE_FINISH_NONE,
                                  .cut_bytes = is_last ? cut_bytes : 0,
                                  .cached_tokens = req->cached_tokens};
        lore_waker_push(&engine->waker, req->stream, event);
        if (is_last) {
            return;
        }
    }
    if (finish != LORE_FINISH_NONE) {
        lore_token_event end = {.id = -1, .finish = finish, .cached_tokens = req->cached_tokens};
        lore_waker_push(&engine->waker, req->stream, end);
    }
}

/* The last event, then the end of the request. The place is given back first, so that whoever has
 * seen the last event can submit again at once. */
static void finish_request(lore_engine *engine, lore_request *req, int32_t until,
                           lore_finish finish, int32_t cut_bytes)
{
    lore_request *moved = engine->live[--engine->live_count];
    engine->live[req->live_index] = moved;
    moved->live_index = req->live_index;
    atomic_fetch_sub_explicit(&engine->unfinished, 1, memory_order_relaxed);
    send_tokens(engine, req, until, finish, cut_bytes);
    lore_stream_release(req->stream);
    lore_request_free(req);
}

/* lore_sched_token: one drawn token, or the end of a sequence without one. */
static bool take_token(void *self, void *owner, int32_t ticket, int32_t id, float logprob,
                       lore_finish finish)
{
    lore_engine *engine = self;
    lore_request *req = owner;
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
    send_tokens(engine, req, verdict.sendable, LORE_FINISH_NONE, 0);
    return false;
}

static void add_request(lore_engine *engine, lore_request *req)
{
    lore_sequence_request sequence = {.tokens = req->tokens,
                                      .prompt_count = req->prompt_count,
                                      .tokens_max = req->tokens_max,
                                      .sampling = req->sampling,
                                      .tops = lore_stream_tops(req->stream),
                                      .salt = req->salt,
                                      .cached_tokens = &req->cached_tokens,
                                      .owner = req};
    lore_status status = lore_sched_add(engine->sched, &sequence, &req->ticket, NULL);
    LORE_ASSERT(status == LORE_OK); /* submit has checked the size, invariant 1 the room */
    req->live_index = engine->live_count;
    engine->live[engine->live_count++] = req;
}

/* Wait for a request. Where none comes for a while, the model gets ready for one more shape of
 * steps, and so on: a part takes milliseconds, which whoever comes meanwhile waits for, and whoever
 * asks again at once does not. What fails here is left for the step that needs it. */
static lore_status wait_for_arrival(lore_engine *engine, void **item)
{
    lore_error err;
    while (!engine->is_prepared) {
        lore_status status = lore_chan_recv(engine->arrivals, item, lore_clock_ns() + QUIET_NS);
        if (status != LORE_ERR_TIMEOUT) {
            return status;
        }
        if (engine->model.prepare(engine->model.self, &engine->is_prepared, &err) != LORE_OK) {
            lore_log(LORE_LOG_WARN, "event=not_prepared status=%s message=\"%s\"",
                     lore_status_name(err.status), err.message);
            engine->is_prepared = true;
        }
    }
    return lore_chan_recv(engine->arrivals, item, 0);
}

/* Take all that has arrived; with nothing to do, wait for one. False: closed and nothing left. */
static bool take_arrivals(lore_engine *engine)
{
    void *item = NULL;
    if (engine->live_count == 0 && engine->flight_count == 0) {
        lore_waker_send(&engine->waker);
        if (wait_for_arrival(engine, &item) != LORE_OK) {
            return false;
        }
        add_request(engine, item);
    }
    while (lore_chan_try_recv(engine->arrivals, &item) == LORE_OK) {
        add_request(engine, item);
    }
    return true;
}

/* The oldest step in flight is over, well or not. */
static lore_status collect_step(lore_engine *engine, lore_error *err)
{
    lore_status status =
        engine->model.collect(engine->model.self, engine->ids, engine->logprobs, err);
    engine->flight_count--;
    engine->flights[0] = engine->flights[1];
    return status;
}

/* Nobody's tokens are of use any more, those of steps in flight included. */
static void end_all(lore_engine *engine, lore_finish finish)
{
    while (engine->flight_count > 0) {
        lore_error err;
        (void)collect_step(engine, &err);
    }
    lore_sched_abort(engine->sched, finish, take_token, engine);
}

static void take_cancels(lore_engine *engine)
{
    int64_t deadline_ns = atomic_load_explicit(&engine->stop_deadline_ns, memory_order_relaxed);
    if (deadline_ns != NOT_STOPPING && lore_deadline_passed(deadline_ns)) {
        end_all(engine, LORE_FINISH_CANCELLED);
        return;
    }
    for (int32_t i = 0; i < engine->live_count; i++) {
        if (lore_stream_is_cancelled(engine->live[i]->stream)) {
            lore_sched_cancel(engine->sched, engine->live[i]->ticket);
        }
    }
}

/* Cut prompts so that steps which running answers wait for keep to step_ms_max. Steps with pieces
 * show what a row takes, decode rows and the reading of weights included; with smaller pieces that
 * is more, so the rows settle where a whole step takes the time allowed. */
static void learn_pieces(lore_engine *engine, const lore_step *step, int64_t elapsed_ns)
{
    const int64_t allowed_ns = engine->limits.step_ms_max * 1000000;
    if (allowed_ns == 0 || elapsed_ns <= 0 || step->batch.rows_max < PIECE_ROWS_MIN) {
        return; /* single rows, and remainders of prompts, tell nothing about pieces */
    }
    int64_t row_ns = elapsed_ns / step->batch.rows + 1;
    engine->row_ns = engine->row_ns == 0 ? row_ns : (3 * engine->row_ns + row_ns) / 4;
    int64_t rows = allowed_ns / engine->row_ns;
    rows = rows < engine->rows_max ? rows : engine->rows_max;
    lore_sched_limit_pieces(engine->sched, rows > PIECE_ROWS_MIN ? (int32_t)rows : PIECE_ROWS_MIN);
}

static void publish_stats(lore_engine *engine)
{
    lore_sched_stats stats;
    lore_sched_get_stats(engine->sched, &stats);
    lore_lock_acquire(&engine->stats_lock);
    engine->stats = stats;
    lore_lock_release(&engine->stats_lock);
}

/* A failed step fails the requests that were live, and no later ones: the next step tries the
 * device again. */
static void fail_all(lore_engine *engine, lore_status status, const lore_error *err)
{
    lore_log(LORE_LOG_ERROR, "event=step_failed requests=%d status=%s message=\"%s\"",
             engine->live_count, lore_status_name(status), err->message);
    end_all(engine, LORE_FINISH_ERROR);
}

/* A step takes from the end of the one before it, or from its own submission where that came later,
 * to its own end. */
static void finish_step(lore_engine *engine)
{
    lore_error err;
    const lore_step *step = engine->flights[0].step;
    const int64_t submitted_ns = engine->flights[0].submitted_ns;
    const int64_t begin_ns =
        submitted_ns > engine->collected_ns ? submitted_ns : engine->collected_ns;
    lore_status status = collect_step(engine, &err);
    if (status != LORE_OK) {
        fail_all(engine, status, &err);
        return;
    }
    engine->collected_ns = lore_clock_ns();
    learn_pieces(engine, step, engine->collected_ns - begin_ns);
    lore_sched_apply(engine->sched, engine->ids, engine->logprobs, take_token, engine);
}

/* Plan and submit; then apply the oldest step, unless another one may be submitted before. */
static void run_step(lore_engine *engine)
{
    const lore_step *step = lore_sched_plan(engine->sched);
    const bool has_rows = step->batch.rows > 0;
    publish_stats(engine); /* a step can be long: what runs now is to be seen now */
    if (has_rows) {
        lore_error err;
        engine->flights[engine->flight_count].step = step;
        engine->flights[engine->flight_count].submitted_ns = lore_clock_ns();
        lore_status status = engine->model.submit(engine->model.self, step, &err);
        if (status != LORE_OK) {
            fail_all(engine, status, &err);
            return;
        }
        engine->flight_count++;
    }
    lore_waker_send(&engine->waker); /* now that the device has work */
    if (engine->flight_count == engine->steps_max || (!has_rows && engine->flight_count > 0)) {
        finish_step(engine);
    } else if (engine->flight_count == 0) {
        lore_sched_apply(engine->sched, NULL, NULL, take_token, engine); /* cancelled ones */
    }
}

static void *run_engine(void *self)
{
    lore_engine *engine = self;
    if (engine->steps_max > 1) {
        lore_waker_start(&engine->waker);
    }
    while (take_arrivals(engine)) {
        take_cancels(engine);
        run_step(engine);
        publish_stats(engine);
    }
    lore_waker_stop(&engine->waker);
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

/* A host's memory that was never used costs nothing, so that only some of it is kept in use; a
 * GPU's pages are taken in any case. */
static void limit_cached(lore_engine *engine, const lore_decoder_info *info)
{
    int64_t bytes = engine->limits.kv_cached_bytes_max;
    if (bytes == 0) {
        bytes = info->kv_on_device ? info->kv_bytes : HOST_CACHED_BYTES;
    }
    if (bytes < info->kv_bytes) {
        const double kept = (double)bytes / (double)info->kv_bytes;
        const int32_t pages = (int32_t)(kept * info->page_count);
        lore_sched_limit_cached(engine->sched, pages > 0 ? pages : 1);
    }
}

static lore_status make_parts(lore_engine *engine, lore_error *err)
{
    const lore_decoder_info *info = engine->model.info;
    engine->steps_max = info->steps_in_flight >= STEPS_MAX ? STEPS_MAX : 1;
    lore_sched_options options = {.rows_max = engine->rows_max,
                                  .sequences_max = engine->sequences_max,
                                  .waiting_max = engine->request_cap,
                                  .context = info->context,
                                  .page_tokens = info->page_tokens,
                                  .page_count = info->page_count,
                                  .eos_ids = info->eos_ids,
                                  .eos_count = info->eos_count,
                                  .steps_in_flight = engine->steps_max,
                                  .turn_tokens = info->turn_tokens};
    lore_status status = lore_sched_new(&options, &engine->sched, err);
    if (status != LORE_OK) {
        return status;
    }
    limit_cached(engine, info);
    if (engine->limits.step_ms_max > 0) {
        lore_sched_limit_pieces(engine->sched, PIECE_ROWS_FIRST);
    }
    engine->arrivals = lore_chan_new((size_t)engine->request_cap);
    engine->live = lore_alloc_zero((size_t)engine->request_cap, sizeof(lore_request *));
    engine->ids = lore_alloc_zero((size_t)engine->sequences_max, sizeof(int32_t));
    engine->logprobs = lore_alloc_zero((size_t)engine->sequences_max, sizeof(float));
    if (engine->arrivals == NULL || engine->live == NULL || engine->ids == NULL ||
        engine->logprobs == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the engine");
    }
    int32_t vocab = lore_tokenizer_vocab(engine->model.tokenizer);
    size_t longest = 0;
    for (int32_t id = 0; id < vocab; id++) {
        size_t bytes = lore_tokenizer_bytes(engine->model.tokenizer, id).len;
        longest = bytes > longest ? bytes : longest;
    }
    engine->bounds = (lore_request_bounds){&engine->limits, info, engine->sched, longest};
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
    engine->is_prepared = model->prepare == NULL;
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

static lore_status submit_step(void *self, const lore_step *step, lore_error *err)
{
    return lore_decoder_submit(self, step, err);
}

static lore_status collect_draws(void *self, int32_t *ids, float *logprobs, lore_error *err)
{
    return lore_decoder_collect(self, ids, logprobs, err);
}

static lore_status prepare_shape(void *self, bool *is_done, lore_error *err)
{
    return lore_decoder_prepare(self, is_done, err);
}

static void close_decoder(void *self)
{
    lore_decoder_close(self);
}

lore_status lore_engine_kv_dtype(const lore_config *config, const lore_backend *backend,
                                 lore_dtype *dtype, lore_error *err)
{
    lore_str name = lore_str_from(config->kv_dtype);
    bool is_auto = name.len == 0 || lore_str_equal(name, LORE_STR("auto"));
    if (is_auto && lore_backend_get_kind(backend) != LORE_BACKEND_REF) {
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
    lore_limits limits = config->limits;
    lore_limits_settle(&limits, lore_backend_get_kind(backend) == LORE_BACKEND_CUDA);
    lore_status status = lore_engine_kv_dtype(config, backend, &options.kv_dtype, err);
    lore_decoder *decoder = NULL;
    if (status == LORE_OK) {
        status = lore_decoder_open(folder, backend, &limits, &options, &decoder, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_engine_model model = {.self = decoder,
                               .submit = submit_step,
                               .collect = collect_draws,
                               .prepare = prepare_shape,
                               .close = close_decoder,
                               .info = lore_decoder_get_info(decoder),
                               .tokenizer = lore_decoder_tokenizer(decoder)};
    return lore_engine_start_model(&model, &limits, engine, err);
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

void lore_engine_end_at(lore_engine *engine, int32_t id)
{
    if (id >= 0) {
        lore_sched_end_at(engine->sched, id);
    }
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
