/* The engine thread: arrivals and cancels in, one step, tokens out, again. Where the decoder takes
 * two steps, the next one is submitted before the tokens of the last are read, so that the device
 * does not wait for the host.
 *
 * A request is built whole by the thread that asks (prompt, room for the answer, stop strings,
 * stream: all memory it will ever need), then its ownership moves through the channel. From there
 * on it belongs to the engine thread, which alone touches decoder and scheduler and allocates
 * nothing.
 *
 * A request whose adapter is not in memory is parked, in order of arrival, and goes to the
 * scheduler when it is; the others do not wait for it.
 *
 * What crosses threads: the request pointer (channel), tokens and the cancel flag (stream), those
 * to be woken (waker), the count of unfinished requests and the order to stop (atomics below), the
 * statistics (under stats_lock), what is loaded (adapters, whose thread wakes this one with an item
 * of the channel that is no request).
 *
 * Invariants
 * 1. unfinished >= requests in the channel + live ones + parked ones that have a place; a submit
 *    that finds request_cap of them is refused, so that the channel is never full. Who waits for an
 *    adapter gives its place to others, up to request_cap of them, and takes one when it goes on:
 *    live and parked ones are below twice that, which is what there is room for.
 * 2. `live` holds exactly the requests that the scheduler has; live[i]->live_index is i.
 * 3. Each request ends in end_request, once: one last event, its lease and its memory given back.
 *
 * States of the engine: serving -> draining (lore_engine_stop: the channel is closed) -> aborting
 * (the deadline has passed) -> ended (channel, `parked` and `live` empty, the thread returns). */
#include "generation/engine_state_int.h"

#include "base/clock.h"
#include "base/log.h"

#define PARKED_NS ((int64_t)20 * 1000 * 1000) /* how often an idle engine looks after who waits */
#define QUIET_NS ((int64_t)5 * 1000 * 1000)   /* before each part of what is done while idle */
enum {
    PIECE_ROWS_MIN = 16 /* however slow: weights are read for every step, and prompts must go on */
};

/* ---- requests, on the asking thread ---- */

static lore_status refuse_adapter(const lore_engine *engine, lore_str name, lore_error *err)
{
    return lore_fail(
        err, LORE_ERR_NOT_FOUND, "there is no adapter '" LORE_STR_FMT "': %s", LORE_STR_ARG(name),
        engine == NULL ? "no decoder is loaded" : "the decoder takes none (limits.adapters_max)");
}

static void drop_request(lore_engine *engine, lore_request *req)
{
    if (req->adapter != NULL) {
        lore_adapters_release(engine->adapters, req->adapter);
    }
    lore_stream_release(req->stream); /* ours, and what would have been the caller's */
    lore_stream_release(req->stream);
    lore_request_free(req);
}

static lore_status hand_over(lore_engine *engine, const lore_generation *generation,
                             lore_stream **stream_out, lore_error *err)
{
    lore_request *req = NULL;
    lore_status status = lore_request_new(&engine->bounds, generation, &req, err);
    if (status != LORE_OK) {
        return status;
    }
    if (generation->adapter.len > 0) {
        req->arrived_ns = lore_clock_ns();
        status =
            engine->adapters != NULL
                ? lore_adapters_lease(engine->adapters, generation->adapter, &req->adapter, err)
                : refuse_adapter(engine, generation->adapter, err);
    }
    if (status != LORE_OK) {
        drop_request(engine, req);
        return status;
    }
    lore_stream *stream = req->stream; /* after the send, req may be gone already */
    status = lore_chan_try_send(engine->arrivals, req);
    if (status != LORE_OK) {
        drop_request(engine, req);
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

/* The last event, then the end of the request. Place and lease are given back first, so that
 * whoever has seen the last event can submit again, or unload, at once. */
static void end_request(lore_engine *engine, lore_request *req, int32_t until, lore_finish finish,
                        int32_t cut_bytes)
{
    if (req->is_placeless) {
        engine->placeless_count--;
    } else {
        atomic_fetch_sub_explicit(&engine->unfinished, 1, memory_order_relaxed);
    }
    send_tokens(engine, req, until, finish, cut_bytes);
    lore_stream_release(req->stream);
    lore_request_free(req);
}

/* One that the scheduler had. */
static void finish_request(lore_engine *engine, lore_request *req, int32_t until,
                           lore_finish finish, int32_t cut_bytes)
{
    lore_request *moved = engine->live[--engine->live_count];
    engine->live[req->live_index] = moved;
    moved->live_index = req->live_index;
    if (req->adapter != NULL) {
        lore_adapters_leave(engine->adapters, req->adapter, engine->steps);
    }
    end_request(engine, req, until, finish, cut_bytes);
}

/* One that still waited for its adapter, which is out of `parked`. */
static void finish_parked(lore_engine *engine, lore_request *req, lore_finish finish)
{
    lore_adapters_release(engine->adapters, req->adapter);
    end_request(engine, req, 0, finish, 0);
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

static void add_request(lore_engine *engine, lore_request *req, uint64_t adapter, int32_t slot)
{
    lore_sequence_request sequence = {.tokens = req->tokens,
                                      .prompt_count = req->prompt_count,
                                      .tokens_max = req->tokens_max,
                                      .sampling = req->sampling,
                                      .tops = lore_stream_tops(req->stream),
                                      .salt = req->salt,
                                      .adapter = adapter,
                                      .adapter_slot = slot,
                                      .cached_tokens = &req->cached_tokens,
                                      .owner = req};
    lore_status status = lore_sched_add(engine->sched, &sequence, &req->ticket, NULL);
    LORE_ASSERT(status == LORE_OK); /* submit has checked the size, invariant 1 the room */
    req->live_index = engine->live_count;
    engine->live[engine->live_count++] = req;
}

/* An adapter of a larger rank than any before it: steps have shapes that nobody has prepared. */
static void look_at_shapes(lore_engine *engine)
{
    const int32_t shapes = engine->model.info->step_shapes;
    if (shapes != engine->prepared_shapes) {
        engine->prepared_shapes = shapes;
        engine->is_prepared = engine->model.prepare == NULL;
    }
}

/* Of those that others may submit into. */
static void give_place(lore_engine *engine, lore_request *req)
{
    if (!req->is_placeless && engine->placeless_count < engine->request_cap) {
        req->is_placeless = true;
        engine->placeless_count++;
        atomic_fetch_sub_explicit(&engine->unfinished, 1, memory_order_relaxed);
    }
}

/* There may be more than request_cap then, until some have ended: nobody submits meanwhile. */
static void take_place(lore_engine *engine, lore_request *req)
{
    if (req->is_placeless) {
        req->is_placeless = false;
        engine->placeless_count--;
        atomic_fetch_add_explicit(&engine->unfinished, 1, memory_order_relaxed);
    }
}

/* False: it waits on. */
static bool unpark(lore_engine *engine, lore_request *req)
{
    lore_error err;
    int32_t slot = -1;
    uint64_t serial = 0;
    if (lore_stream_is_cancelled(req->stream)) {
        finish_parked(engine, req, LORE_FINISH_CANCELLED);
        return true;
    }
    lore_status status =
        lore_adapters_enter(engine->adapters, req->adapter, req->arrived_ns, &slot, &serial, &err);
    if (status == LORE_ERR_BUSY) {
        return false;
    }
    if (status == LORE_OK) {
        take_place(engine, req);
        add_request(engine, req, serial, slot);
        look_at_shapes(engine);
    } else {
        lore_stream_set_error(req->stream, &err);
        finish_parked(engine, req, LORE_FINISH_ERROR);
    }
    return true;
}

/* Empty what slots nobody uses, let in who can be let in. */
static void look_after_adapters(lore_engine *engine)
{
    int32_t kept = 0;
    if (engine->adapters == NULL) {
        return;
    }
    lore_adapters_settle(engine->adapters, engine->steps);
    for (int32_t i = 0; i < engine->parked_count; i++) {
        lore_request *req = engine->parked[i];
        if (!unpark(engine, req)) {
            give_place(engine, req);
            engine->parked[kept++] = req;
        }
    }
    engine->parked_count = kept;
}

void lore_engine_nudge(void *self)
{
    lore_engine *engine = self;
    if (!atomic_exchange(&engine->is_nudged, true) &&
        lore_chan_try_send(engine->arrivals, &engine->is_nudged) != LORE_OK) {
        atomic_store(&engine->is_nudged, false); /* closed: the engine looks by itself then */
    }
}

static void take_item(lore_engine *engine, void *item)
{
    lore_request *req = item;
    if (item == (void *)&engine->is_nudged) {
        atomic_store(&engine->is_nudged, false);
    } else if (req->adapter != NULL) {
        engine->parked[engine->parked_count++] = req;
    } else {
        add_request(engine, req, 0, -1);
    }
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

/* Nothing can be done before something arrives, or an adapter does. False: closed and nothing left.
 */
static bool wait_idle(lore_engine *engine)
{
    void *item = NULL;
    const bool is_parked = engine->parked_count > 0;
    const int64_t look_ns = lore_clock_ns() + PARKED_NS;
    lore_waker_send(&engine->waker);
    lore_status status = is_parked ? lore_chan_recv(engine->arrivals, &item, look_ns)
                                   : wait_for_arrival(engine, &item);
    if (status == LORE_OK) {
        take_item(engine, item);
    } else if (is_parked && status == LORE_ERR_CANCELLED) {
        lore_adapters_wait(engine->adapters, look_ns);
    }
    return status == LORE_OK || is_parked;
}

/* Take all that has arrived; with nothing to do, wait for it. False: as wait_idle. */
static bool take_arrivals(lore_engine *engine)
{
    void *item = NULL;
    if (engine->live_count == 0 && engine->flight_count == 0) {
        look_after_adapters(engine); /* whose slots the last step has left */
        if (engine->live_count == 0 && !wait_idle(engine)) {
            return false;
        }
    }
    while (lore_chan_try_recv(engine->arrivals, &item) == LORE_OK) {
        take_item(engine, item);
    }
    look_after_adapters(engine);
    return true;
}

/* The oldest step in flight is over, well or not. */
static lore_status collect_step(lore_engine *engine, lore_error *err)
{
    lore_status status =
        engine->model.collect(engine->model.self, engine->ids, engine->logprobs, err);
    engine->flight_count--;
    engine->steps.collected++;
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
    if (deadline_ns != LORE_NOT_STOPPING && lore_deadline_passed(deadline_ns)) {
        end_all(engine, LORE_FINISH_CANCELLED);
        while (engine->parked_count > 0) {
            finish_parked(engine, engine->parked[--engine->parked_count], LORE_FINISH_CANCELLED);
        }
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

void lore_engine_publish_stats(lore_engine *engine)
{
    lore_sched_stats stats;
    lore_sched_get_stats(engine->sched, &stats);
    stats.waiting += engine->parked_count;
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
    lore_engine_publish_stats(engine); /* a step can be long: what runs now is to be seen now */
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
        engine->steps.submitted++;
    }
    lore_waker_send(&engine->waker); /* now that the device has work */
    if (engine->flight_count == engine->steps_max || (!has_rows && engine->flight_count > 0)) {
        finish_step(engine);
    } else if (engine->flight_count == 0) {
        lore_sched_apply(engine->sched, NULL, NULL, take_token, engine); /* cancelled ones */
    }
}

void *lore_engine_run(void *self)
{
    lore_engine *engine = self;
    if (engine->steps_max > 1) {
        lore_waker_start(&engine->waker);
    }
    while (take_arrivals(engine)) {
        take_cancels(engine);
        run_step(engine);
        lore_engine_publish_stats(engine);
    }
    lore_waker_stop(&engine->waker);
    return NULL;
}

/* ---- facts ---- */

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
    /* A nudge that is counted, or sent meanwhile, is no request. */
    const int32_t arrived =
        (int32_t)lore_chan_count(engine->arrivals) - atomic_load(&engine->is_nudged);
    stats->waiting += arrived > 0 ? arrived : 0;
}

lore_adapters *lore_engine_adapters(const lore_engine *engine)
{
    return engine->adapters;
}

lore_status lore_engine_choose(const lore_engine *engine, lore_str name, bool is_wanted,
                               lore_str *adapter, lore_error *err)
{
    const bool is_base =
        name.len == 0 ||
        (engine != NULL && lore_str_equal(name, lore_str_from(engine->model.info->name)));
    lore_status status = LORE_OK;
    if (!is_base) {
        status = engine != NULL && engine->adapters != NULL
                     ? lore_adapters_find(engine->adapters, name, is_wanted, err)
                     : refuse_adapter(engine, name, err);
    }
    if (status == LORE_OK) {
        *adapter = is_base ? (lore_str){NULL, 0} : name;
    }
    return status;
}
