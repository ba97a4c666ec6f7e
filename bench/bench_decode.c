/* lore bench decode: the decoder driven directly, and a stream through the engine while others'
 * prompts arrive.
 *
 * A step reads every weight whatever the number of streams, and the keys and values of every
 * stream; the floor is that many bytes over the read bandwidth of a moment before, and the share
 * the same the other way round. (Of layers that see a window, all keys count, so their share comes
 * out too high where contexts are longer.) Steps run as the engine runs them, on a GPU two at a
 * time with the tokens of one fed on before the host has seen them; figures are medians of the time
 * from the end of one to the end of the next. What the host does to submit a step stands beside it
 * where a GPU computes the step meanwhile. */
#include "api/app.h"
#include "base/clock.h"
#include "bench/bench.h"
#include "bench/bench_model.h"

enum {
    CONTEXT = 400, /* tokens: the walk's usual prompt */
    STREAMS_MAX = 32,
    FILL_ROWS = 2048, /* of a step that fills contexts */
    STEPS = 64,       /* timed, for each number of streams */
    TURN_STEPS = 16,  /* of these, for each turn */
    WARM_STEPS = 6,   /* a device records what it will repeat, two steps ahead */
    TEXT_BYTES = 64 * 1024,
    TURNS = 20,           /* with adapters and without */
    GAPS = 400,           /* tokens of the stream that is watched */
    PROMPT_EVERY_MS = 150 /* beside it a new prompt arrives so often */
};

/* ---- streams ---- */

typedef struct stopwatch {
    const lore_bench_model *model;
    lore_bench_samples times, host; /* seconds of a step, and of those the host's */
    int64_t last_ns;
} stopwatch;

static void note_step(void *self, int32_t step)
{
    stopwatch *watch = self;
    const int64_t now_ns = lore_clock_ns();
    if (step >= WARM_STEPS) {
        lore_bench_sample(&watch->times, (double)(now_ns - watch->last_ns) * 1e-9);
        lore_bench_sample(&watch->host, (double)watch->model->submit_ns * 1e-9);
    }
    watch->last_ns = now_ns;
}

static lore_status time_streams(lore_bench_model *m, int32_t count, int32_t timed, stopwatch *watch,
                                lore_error *err)
{
    const int32_t steps = WARM_STEPS + (int32_t)lore_bench_budget(m->bench, timed);
    watch->last_ns = lore_clock_ns();
    lore_status status = lore_bench_model_decode(m, count, steps, note_step, watch, err);
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&watch->times, "decoding", err);
    }
    return status == LORE_OK ? lore_bench_samples_check(&watch->host, "decoding", err) : status;
}

/* Seconds that reading alone takes, in the middle of the timed steps. */
static double floor_of(const lore_bench_model *m, int32_t count, int32_t context, double read_rate)
{
    const double steps = (double)lore_bench_budget(m->bench, STEPS);
    const double tokens = count * (context + WARM_STEPS + steps / 2.0);
    return ((double)m->info->weight_bytes + tokens * lore_bench_kv_bytes(m->info, m->kv_dtype)) /
           read_rate;
}

static void report_step(const lore_bench_model *m, const char *name, const char *unit, double scale,
                        lore_bench_samples *times, double floor)
{
    for (int32_t i = 0; i < times->count; i++) {
        times->items[i] *= scale;
    }
    lore_bench_report_median(m->bench->report, name, unit, times, floor * scale);
}

static void report_streams(const lore_bench_model *m, int32_t count, int32_t context,
                           stopwatch *watch, double floor)
{
    char name[64];
    lore_bench_samples *times = &watch->times;
    const double seconds = lore_bench_percentile(times, 50.0);
    snprintf(name, sizeof name, "%d stream%s, past %d", count, count == 1 ? "" : "s", context);
    lore_bench_report_figure(m->bench->report,
                             &(lore_bench_figure){name, count / seconds, "tok/s", floor / seconds,
                                                  "of read bandwidth", times->count});
    report_step(m, "  a step", "ms", 1e3, times, floor);
    if (lore_bench_has_gpu(m->bench)) { /* a processor has computed the step by then */
        report_step(m, "  of it the host's, to submit one", "us", 1e6, &watch->host, 0.0);
    }
}

/* The same streams with adapters, in turns with those without. */
static lore_status bench_adapted(lore_bench_model *m, int32_t count, int32_t context,
                                 lore_error *err)
{
    stopwatch watches[2] = {{.model = m}, {.model = m}};
    lore_status status = LORE_OK;
    for (int32_t turn = 0; turn < 2 * TURNS && status == LORE_OK; turn++) {
        m->is_adapted = turn % 2 == 1;
        status = lore_bench_model_fill(m, count, context, err);
        if (status == LORE_OK) {
            status = time_streams(m, count, TURN_STEPS, &watches[turn % 2], err);
        }
    }
    m->is_adapted = false;
    if (status == LORE_OK) {
        const double base = lore_bench_percentile(&watches[0].times, 50.0);
        const double adapted = lore_bench_percentile(&watches[1].times, 50.0);
        char name[96];
        snprintf(name, sizeof name, "  %d adapters of rank %d, %.1f MB each", m->bench->adapters,
                 m->bench->adapter_rank, m->adapter_bytes * 1e-6);
        lore_bench_report_figure(m->bench->report,
                                 &(lore_bench_figure){name, count / adapted, "tok/s",
                                                      base / adapted, "of the base, in turns",
                                                      watches[1].times.count});
    }
    for (int32_t i = 0; i < 2; i++) {
        lore_bench_samples_destroy(&watches[i].times);
        lore_bench_samples_destroy(&watches[i].host);
    }
    return status;
}

/* *rate: tokens a second of one stream, from the first call. */
static lore_status bench_streams(lore_bench_model *m, int32_t count, int32_t context, double *rate,
                                 lore_error *err)
{
    stopwatch watch = {.model = m};
    double read_rate = 0.0;
    lore_status status = lore_bench_model_fill(m, count, context, err);
    if (status == LORE_OK) {
        status = lore_bench_read_now(m->bench, &read_rate, err);
    }
    if (status == LORE_OK) {
        status = time_streams(m, count, STEPS, &watch, err);
    }
    if (status == LORE_OK) {
        const double tokens = count / lore_bench_percentile(&watch.times, 50.0);
        report_streams(m, count, context, &watch, floor_of(m, count, context, read_rate));
        *rate = count == 1 ? tokens : *rate;
        if (count > 1 && *rate > 0.0) {
            char name[64];
            snprintf(name, sizeof name, "%d streams over one", count);
            lore_bench_report_figure(
                m->bench->report,
                &(lore_bench_figure){.name = name, .value = tokens / *rate, .unit = "times"});
        }
        status = lore_bench_check_cancelled(m->bench, err);
    }
    if (status == LORE_OK && m->info->adapter_slots > 0) {
        status = bench_adapted(m, count, context, err);
    }
    lore_bench_samples_destroy(&watch.times);
    lore_bench_samples_destroy(&watch.host);
    return status;
}

/* ---- a stream beside arriving prompts ---- */

typedef struct watched {
    lore_bench *bench;
    lore_engine *engine;
    lore_tokens text; /* real tokens: an answer to random ones may end at once */
    lore_stream *others[STREAMS_MAX];
    int32_t other_count;
} watched;

static void drop_others(watched *w)
{
    for (int32_t i = 0; i < w->other_count; i++) {
        lore_stream_cancel(w->others[i]);
        lore_stream_release(w->others[i]);
    }
    w->other_count = 0;
}

/* Another prompt of 400 tokens that wants one token, from another place of the text; its
 * predecessors are over or go now. */
static lore_status arrive(watched *w, int32_t number, lore_error *err)
{
    const int32_t places = w->text.count - CONTEXT + 1;
    const lore_generation generation = {
        .prompt = w->text.ids + number % places, .prompt_count = CONTEXT, .tokens_max = 1};
    if (w->other_count == STREAMS_MAX) {
        drop_others(w);
    }
    lore_status status =
        lore_engine_submit(w->engine, &generation, &w->others[w->other_count], err);
    w->other_count += status == LORE_OK;
    return status;
}

/* Times between the tokens of one answer, in milliseconds; an answer that ends early is asked
 * again, and its first token does not count. */
static lore_status watch(watched *w, bool with_arrivals, lore_bench_samples *gaps, lore_error *err)
{
    const int32_t wanted = (int32_t)lore_bench_budget(w->bench, GAPS);
    const lore_generation generation = {.prompt = w->text.ids,
                                        .prompt_count = CONTEXT,
                                        .tokens_max = (int32_t)w->bench->config->max_tokens};
    lore_status status = LORE_OK;
    int64_t arrival_ns = lore_clock_ns();
    int32_t arrivals = 0;
    while (status == LORE_OK && gaps->count < wanted && !gaps->failed) {
        lore_stream *stream = NULL;
        status = lore_engine_submit(w->engine, &generation, &stream, err);
        lore_token_event event = {0};
        int64_t last_ns = 0;
        while (status == LORE_OK && event.finish == LORE_FINISH_NONE && gaps->count < wanted) {
            status = lore_stream_next(stream, 0, &event);
            const int64_t now = lore_clock_ns();
            if (last_ns > 0 && event.id >= 0) {
                lore_bench_sample(gaps, (double)(now - last_ns) * 1e-6);
            }
            last_ns = now;
            if (with_arrivals && now - arrival_ns >= PROMPT_EVERY_MS * 1000000LL) {
                arrival_ns = now;
                status = arrive(w, ++arrivals, err);
            }
        }
        if (status == LORE_OK && event.finish == LORE_FINISH_ERROR) {
            status = lore_fail(err, LORE_ERR_DEVICE, "the decoder failed");
        }
        if (stream != NULL) {
            lore_stream_cancel(stream);
            lore_stream_release(stream);
        }
        if (status == LORE_OK) {
            status = lore_bench_check_cancelled(w->bench, err);
        }
    }
    return status == LORE_OK ? lore_bench_samples_check(gaps, "a stream", err) : status;
}

static lore_status read_text(watched *w, lore_error *err)
{
    lore_str text = {0};
    lore_status status = lore_bench_text(w->bench, TEXT_BYTES, &text, err);
    if (status == LORE_OK) {
        status = lore_tokenizer_encode(lore_engine_tokenizer(w->engine), text,
                                       (lore_encode_options){0}, &w->bench->arena, &w->text, err);
    }
    return status == LORE_OK && w->text.count < CONTEXT
               ? lore_fail(err, LORE_ERR_INVALID, "'%s' has %d tokens, %d are needed",
                           w->bench->documents, w->text.count, CONTEXT)
               : status;
}

static lore_status bench_watched(lore_bench_model *m, lore_error *err)
{
    static const char *const NAMES[] = {"between tokens, alone",
                                        "between tokens, 400-token prompts arriving"};
    watched w = {.bench = m->bench};
    lore_status status =
        lore_engine_start(m->bench->config->decoder, m->backend, m->bench->config, &w.engine, err);
    if (status == LORE_OK) {
        status = read_text(&w, err);
    }
    for (int i = 0; i < 2 && status == LORE_OK; i++) {
        lore_bench_samples gaps = {0};
        status = watch(&w, i == 1, &gaps, err);
        if (status == LORE_OK) {
            lore_bench_report_times(m->bench->report, NAMES[i], "ms", &gaps);
        }
        lore_bench_samples_destroy(&gaps);
    }
    drop_others(&w);
    lore_engine_stop(w.engine, lore_clock_ns());
    return status;
}

/* ---- all of it ---- */

/* 1, 2, 4 and so on, as many as the configuration allows, where no numbers were given. */
static lore_bench_list choose_batches(const lore_bench_model *m)
{
    lore_bench_list batches = m->bench->batches;
    for (int32_t count = 1; m->bench->batches.count == 0 && count <= m->streams_max; count *= 2) {
        batches.items[batches.count++] = count;
    }
    return batches;
}

static lore_status bench_contexts(lore_bench_model *m, const lore_bench_list *contexts,
                                  lore_error *err)
{
    lore_status status = LORE_OK;
    const lore_bench_list batches = choose_batches(m);
    for (int32_t c = 0; c < contexts->count && status == LORE_OK; c++) {
        double rate = 0.0;
        for (int32_t b = 0; b < batches.count && status == LORE_OK; b++) {
            status = bench_streams(m, batches.items[b], contexts->items[c], &rate, err);
        }
    }
    return status;
}

lore_status lore_bench_decode(lore_bench *bench, lore_error *err)
{
    lore_bench_model m = {0};
    const lore_bench_list usual = {{CONTEXT}, 1};
    const lore_bench_list *contexts = bench->contexts.count > 0 ? &bench->contexts : &usual;
    const lore_bench_list *batches = &bench->batches;
    const int64_t allowed = bench->config->limits.batch_sequences_max;
    const lore_bench_model_needs needs = {
        .streams = batches->count > 0 ? batches->items[batches->count - 1] : 0,
        .most = allowed < STREAMS_MAX ? (int32_t)allowed : STREAMS_MAX,
        .tokens = contexts->items[contexts->count - 1] + WARM_STEPS + STEPS,
        .rows_max = FILL_ROWS};
    lore_status status = lore_bench_model_open(&m, bench, &needs, err);
    if (status == LORE_OK) {
        lore_bench_report_section(bench->report, "decode", m.info->name);
        lore_bench_report_figure(bench->report,
                                 &(lore_bench_figure){.name = "weights read for a token",
                                                      .value = (double)m.info->weight_bytes * 1e-6,
                                                      .unit = "MB"});
        status = bench_contexts(&m, contexts, err);
    }
    if (status == LORE_OK && batches->count == 0) {
        lore_bench_model_unadapt(&m);
        lore_decoder_close(m.decoder); /* the engine opens its own */
        m.decoder = NULL;
        status = bench_watched(&m, err);
    }
    lore_bench_model_close(&m);
    return status;
}
