/* See bench_load.h. */
#include "bench/bench_load.h"

#include "base/clock.h"

enum {
    QUEUE_MAX = 1 << 16, /* an open load waits; it is not refused */
    LOOK_MS = 1,
    PAST_NS = 1 /* a deadline that has passed: look, but do not wait */
};

lore_status lore_bench_load_open(lore_bench_load *load, lore_bench *bench, int32_t live_max,
                                 lore_error *err)
{
    *load = (lore_bench_load){.bench = bench, .random = 20261122, .live_max = live_max};
    load->config = *bench->config;
    load->config.limits.queue_requests_max = QUEUE_MAX;
    load->prompt = LORE_PUSH(&bench->arena, int32_t, LORE_BENCH_LOAD_PROMPT_MAX);
    load->live = LORE_PUSH(&bench->arena, lore_bench_request, live_max);
    if (load->prompt == NULL || load->live == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d requests", live_max);
    }
    return lore_backend_open(&bench->device, &load->backend, err);
}

lore_status lore_bench_load_start(lore_bench_load *load, lore_error *err)
{
    return lore_engine_start(load->config.decoder, load->backend, &load->config, &load->engine,
                             err);
}

void lore_bench_load_stop(lore_bench_load *load)
{
    lore_bench_load_cancel(load);
    for (int32_t i = 0; i < load->live_count; i++) {
        lore_stream_release(load->live[i].stream);
    }
    load->live_count = 0;
    lore_engine_stop(load->engine, lore_clock_ns());
    load->engine = NULL;
}

void lore_bench_load_close(lore_bench_load *load)
{
    lore_bench_load_stop(load);
    lore_backend_close(load->backend);
    load->backend = NULL;
}

int32_t lore_bench_load_below(lore_bench_load *load, int32_t n)
{
    return (int32_t)(lore_random_next(&load->random) % (uint64_t)n);
}

/* Shared beginnings come from a generator of their own, which starts anew for each prompt. */
static void draw_prompt(lore_bench_load *load, const lore_bench_request *request)
{
    const uint64_t vocab = (uint64_t)lore_engine_info(load->engine)->vocab;
    uint64_t shared = 5;
    for (int32_t i = 0; i < request->prompt_count; i++) {
        uint64_t *state = i < request->shared ? &shared : &load->random;
        load->prompt[i] = (int32_t)(lore_random_next(state) % vocab);
    }
}

lore_status lore_bench_load_submit(lore_bench_load *load, const lore_bench_request *request,
                                   lore_error *err)
{
    LORE_ASSERT(request->prompt_count <= LORE_BENCH_LOAD_PROMPT_MAX);
    if (load->live_count == load->live_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "%d requests are under way at a time, no more",
                         load->live_max);
    }
    draw_prompt(load, request);
    const lore_generation generation = {.prompt = load->prompt,
                                        .prompt_count = request->prompt_count,
                                        .tokens_max = request->tokens_max,
                                        .sampling = {.temperature = request->temperature,
                                                     .top_p = 1.0f,
                                                     .seed = (uint64_t)load->requests}};
    lore_bench_request *made = &load->live[load->live_count];
    *made = *request;
    const lore_status status = lore_engine_submit(load->engine, &generation, &made->stream, err);
    load->live_count += status == LORE_OK;
    load->requests += status == LORE_OK;
    return status;
}

static void cancel_in_time(lore_bench_request *request)
{
    if (request->tokens == request->cancel_at && request->cancel_ns == 0) {
        request->cancel_ns = lore_clock_ns();
        lore_stream_cancel(request->stream);
    }
}

/* All events of one stream that are there. */
static lore_status take_events(lore_bench_load *load, lore_bench_request *request, lore_error *err)
{
    lore_token_event event = {0};
    cancel_in_time(request);
    while (request->finish == LORE_FINISH_NONE &&
           lore_stream_next(request->stream, PAST_NS, &event) == LORE_OK) {
        request->finish = event.finish;
        if (event.id >= 0) {
            request->last_ns = lore_clock_ns();
            request->first_ns = request->tokens == 0 ? request->last_ns : request->first_ns;
            request->tokens++;
            load->tokens++;
        }
        cancel_in_time(request);
    }
    return request->finish == LORE_FINISH_ERROR
               ? lore_fail(err, LORE_ERR_DEVICE, "the decoder failed")
               : LORE_OK;
}

lore_status lore_bench_load_poll(lore_bench_load *load, lore_error *err)
{
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < load->live_count && status == LORE_OK;) {
        lore_bench_request *request = &load->live[i];
        status = take_events(load, request, err);
        if (request->finish == LORE_FINISH_NONE) {
            i++;
            continue;
        }
        if (load->ended != NULL) {
            load->ended(load->self, request);
        }
        lore_stream_release(request->stream);
        *request = load->live[--load->live_count];
    }
    lore_clock_sleep_ms(LOOK_MS);
    return status == LORE_OK ? lore_bench_check_cancelled(load->bench, err) : status;
}

lore_status lore_bench_load_drain(lore_bench_load *load, int64_t deadline_ns, lore_error *err)
{
    lore_status status = LORE_OK;
    while (load->live_count > 0 && status == LORE_OK) {
        status = lore_deadline_passed(deadline_ns)
                     ? lore_fail(err, LORE_ERR_TIMEOUT, "%d requests do not end", load->live_count)
                     : lore_bench_load_poll(load, err);
    }
    return status;
}

void lore_bench_load_cancel(lore_bench_load *load)
{
    for (int32_t i = 0; i < load->live_count; i++) {
        lore_stream_cancel(load->live[i].stream);
    }
}
