/* lore bench prefill and decode: the decoder driven directly, and a stream through the engine while
 * others' prompts arrive.
 *
 * Decoding reads every weight for each step whatever the number of streams, so its share is that
 * of the bytes of the weights a second against the read bandwidth of a moment before; keys and
 * values come on top and are not counted. Prefill is bound by multiplication: two operations a
 * weight and token, attention not counted. Figures are medians. */
#include "api/app.h"
#include "base/clock.h"
#include "bench/bench.h"
#include "bench/bench_peak.h"

#include <string.h>

enum {
    PROMPT = 400, /* tokens: the walk's usual prompt */
    PROMPT_MAX = 4096,
    STREAMS_MAX = 32,
    STEPS = 64, /* timed, for each number of streams */
    WARM_STEPS = 3,
    PREFILLS = 24,
    PREFILLS_WARM = 2,
    TEXT_BYTES = 64 * 1024,
    GAPS = 400,           /* tokens of the stream that is watched */
    PROMPT_EVERY_MS = 150 /* beside it a new prompt arrives so often */
};

typedef struct decoding {
    lore_bench *bench;
    lore_backend *backend;
    lore_decoder *decoder;
    const lore_decoder_info *info;
    lore_tokens text; /* real tokens, at least prompt + STREAMS_MAX */
    int32_t prompt, pages_each, streams_max;
    /* One step's arrays. */
    int32_t ids[PROMPT_MAX], row_start[STREAMS_MAX + 1], past[STREAMS_MAX];
    int32_t page_start[STREAMS_MAX + 1], *pages, logits_rows[STREAMS_MAX];
    lore_sample samples[STREAMS_MAX];
    int32_t drawn[STREAMS_MAX];
    float logprobs[STREAMS_MAX];
} decoding;

/* ---- the model ---- */

static lore_status read_text(decoding *d, lore_error *err)
{
    lore_str text = {0};
    lore_status status = lore_bench_text(d->bench, TEXT_BYTES, &text, err);
    if (status == LORE_OK) {
        status = lore_tokenizer_encode(lore_decoder_tokenizer(d->decoder), text,
                                       (lore_encode_options){0}, &d->bench->arena, &d->text, err);
    }
    return status == LORE_OK && d->text.count < d->prompt + STREAMS_MAX
               ? lore_fail(err, LORE_ERR_INVALID, "'%s' has %d tokens, %d are needed",
                           d->bench->documents, d->text.count, d->prompt + STREAMS_MAX)
               : status;
}

static lore_status plan_pages(decoding *d, lore_error *err)
{
    int32_t page = d->info->page_tokens, most = d->prompt + WARM_STEPS + STEPS;
    if (d->info->context < most) {
        return lore_fail(err, LORE_ERR_INVALID, "'%s' has a context of %d tokens, %d are needed",
                         d->info->name, d->info->context, most);
    }
    d->pages_each = (most + page - 1) / page;
    int32_t room = d->info->page_count / d->pages_each;
    int32_t batch = (int32_t)d->bench->config->limits.batch_sequences_max;
    d->streams_max = room < batch ? room : batch;
    d->streams_max = d->streams_max < STREAMS_MAX ? d->streams_max : STREAMS_MAX;
    if (d->streams_max < 1) {
        return lore_fail(err, LORE_ERR_LIMIT, "%d pages of keys and values, %d are needed",
                         d->info->page_count, d->pages_each);
    }
    d->pages = LORE_PUSH(&d->bench->arena, int32_t, STREAMS_MAX * d->pages_each);
    return d->pages == NULL ? lore_fail(err, LORE_ERR_NOMEM, "no memory for a list of pages")
                            : LORE_OK;
}

static lore_status open_decoder(decoding *d, lore_error *err)
{
    const lore_config *config = d->bench->config;
    d->prompt = d->bench->prompt > 0 ? d->bench->prompt : PROMPT;
    LORE_ASSERT(d->prompt <= PROMPT_MAX);
    lore_backend_options backend = {0};
    lore_decoder_options options = {.sequences_max = STREAMS_MAX};
    options.rows_max = d->prompt > STREAMS_MAX ? d->prompt : STREAMS_MAX;
    lore_status status = lore_app_device(config, &backend, err);
    if (status == LORE_OK) {
        backend.pool = d->bench->pool;
        status = lore_backend_open(&backend, &d->backend, err);
    }
    if (status == LORE_OK) {
        status = lore_engine_kv_dtype(config, d->backend, &options.kv_dtype, err);
    }
    if (status == LORE_OK) {
        status = lore_decoder_open(config->decoder, d->backend, &config->limits, &options,
                                   &d->decoder, err);
    }
    if (status == LORE_OK) {
        d->info = lore_decoder_get_info(d->decoder);
        status = plan_pages(d, err);
    }
    return status == LORE_OK ? read_text(d, err) : status;
}

static void close_decoder(decoding *d)
{
    lore_decoder_close(d->decoder);
    lore_backend_close(d->backend);
}

/* Weights of the layers that each token is multiplied with; the head is for the last one only. */
static double layer_weights(const lore_decoder_info *info)
{
    double attention = (double)(2 * info->heads + 2 * info->kv_heads) * info->head_dim;
    return info->layers * (double)info->width * (attention + 3.0 * info->ffn);
}

static double multiply_peak(const decoding *d)
{
    double weights = layer_weights(d->info) + (double)d->info->vocab * d->info->width;
    double each = (double)d->info->weight_bytes / weights;
    return d->bench->multiply_peak[each < 1.5   ? LORE_PRECISION_INT8
                                   : each < 3.0 ? LORE_PRECISION_BF16
                                                : LORE_PRECISION_F32];
}

/* ---- steps ---- */

/* Stream `first` and the following `count`, each with `rows` new rows behind `past` others. */
static lore_status run_step(decoding *d, int32_t first, int32_t count, int32_t rows, int32_t past,
                            lore_error *err)
{
    int32_t page = d->info->page_tokens, pages = (past + rows + page - 1) / page;
    for (int32_t s = 0; s <= count; s++) {
        d->row_start[s] = s * rows;
        d->page_start[s] = s * pages;
    }
    for (int32_t s = 0; s < count; s++) {
        d->past[s] = past;
        d->logits_rows[s] = (s + 1) * rows - 1;
        d->samples[s] = (lore_sample){.top_p = 1.0f, .position = past + rows};
        for (int32_t i = 0; i < pages; i++) {
            d->pages[s * pages + i] = (first + s) * d->pages_each + i;
        }
    }
    const lore_step step = {.ids = d->ids,
                            .batch = {count, count * rows, d->row_start, d->past, d->page_start,
                                      d->pages, rows, past + rows},
                            .logits_rows = d->logits_rows,
                            .samples = d->samples,
                            .logits_count = count};
    return lore_decoder_step(d->decoder, &step, d->drawn, d->logprobs, NULL, err);
}

/* Each stream begins at another place of the text, so that they are not one and the same. */
static lore_status prefill(decoding *d, int32_t stream, lore_error *err)
{
    int32_t from = stream % (d->text.count - d->prompt + 1);
    memcpy(d->ids, d->text.ids + from, (size_t)d->prompt * sizeof d->ids[0]);
    return run_step(d, stream, 1, d->prompt, 0, err);
}

static lore_status time_streams(decoding *d, int32_t count, lore_bench_samples *times,
                                lore_error *err)
{
    lore_status status = LORE_OK;
    int32_t steps = (int32_t)lore_bench_budget(d->bench, STEPS);
    for (int32_t s = 0; s < count; s++) {
        d->drawn[s] = d->text.ids[s];
    }
    for (int32_t i = 0; i < WARM_STEPS + steps && status == LORE_OK; i++) {
        memcpy(d->ids, d->drawn, (size_t)count * sizeof d->ids[0]);
        const int64_t begin = lore_clock_ns();
        status = run_step(d, 0, count, 1, d->prompt + i, err);
        if (i >= WARM_STEPS) {
            lore_bench_sample(times, (double)(lore_clock_ns() - begin) * 1e-9);
        }
    }
    return status == LORE_OK ? lore_bench_samples_check(times, "decoding", err) : status;
}

/* *rate: tokens a second of one stream, from the first call. */
static lore_status bench_streams(decoding *d, int32_t count, double *rate, lore_error *err)
{
    char name[64];
    lore_bench_samples times = {0};
    double best = 0.0, read_rate = 0.0; /* measured here: on shared machines it is not constant */
    lore_status status = lore_bench_read_peak(d->bench->pool, &best, &read_rate, err);
    if (status == LORE_OK) {
        status = time_streams(d, count, &times, err);
    }
    if (status == LORE_OK) {
        double seconds = lore_bench_percentile(&times, 50.0), tokens = count / seconds;
        *rate = count == 1 ? tokens : *rate;
        snprintf(name, sizeof name, "%d stream%s, past %d", count, count == 1 ? "" : "s",
                 d->prompt);
        lore_bench_report_figure(
            d->bench->report,
            &(lore_bench_figure){name, tokens, "tok/s",
                                 (double)d->info->weight_bytes / seconds / read_rate,
                                 "of read bandwidth", times.count});
        snprintf(name, sizeof name, "%d streams over one", count);
        if (count > 1 && d->bench->streams == 0) {
            lore_bench_report_figure(
                d->bench->report,
                &(lore_bench_figure){.name = name, .value = tokens / *rate, .unit = "times"});
        }
    }
    lore_bench_samples_destroy(&times);
    return status;
}

lore_status lore_bench_prefill(lore_bench *bench, lore_error *err)
{
    decoding d = {.bench = bench};
    lore_bench_samples times = {0};
    lore_status status = open_decoder(&d, err);
    if (status == LORE_OK) {
        lore_bench_report_section(bench->report, "prefill", d.info->name);
    }
    int64_t runs = lore_bench_budget(bench, PREFILLS);
    for (int64_t i = 0; i < PREFILLS_WARM + runs && status == LORE_OK; i++) {
        const int64_t begin = lore_clock_ns();
        status = prefill(&d, 0, err);
        if (i >= PREFILLS_WARM) {
            lore_bench_sample(&times, (double)(lore_clock_ns() - begin) * 1e-9);
        }
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&times, "prefill", err);
    }
    if (status == LORE_OK) {
        double seconds = lore_bench_percentile(&times, 50.0), peak = multiply_peak(&d);
        double share = peak > 0.0 ? 2.0 * layer_weights(d.info) * d.prompt / seconds / peak : 0.0;
        char name[32];
        snprintf(name, sizeof name, "%d tokens", d.prompt);
        lore_bench_report_figure(
            bench->report, &(lore_bench_figure){name, seconds * 1e3, "ms", 0.0, NULL, times.count});
        lore_bench_report_figure(bench->report,
                                 &(lore_bench_figure){name, d.prompt / seconds, "tok/s", share,
                                                      "of the multiply rate", times.count});
    }
    lore_bench_samples_destroy(&times);
    close_decoder(&d);
    return status;
}

/* ---- a stream beside arriving prompts ---- */

typedef struct watched {
    lore_bench *bench;
    lore_engine *engine;
    const decoding *decoding;
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

/* Another prompt of 400 tokens that wants one token; its predecessors are over or go now. */
static lore_status arrive(watched *w, lore_error *err)
{
    const lore_generation generation = {
        .prompt = w->decoding->text.ids, .prompt_count = w->decoding->prompt, .tokens_max = 1};
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
    const lore_generation generation = {.prompt = w->decoding->text.ids,
                                        .prompt_count = w->decoding->prompt,
                                        .tokens_max = (int32_t)w->bench->config->max_tokens};
    lore_status status = LORE_OK;
    int64_t arrival_ns = lore_clock_ns();
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
                status = arrive(w, err);
            }
        }
        if (status == LORE_OK && event.finish == LORE_FINISH_ERROR) {
            status = lore_fail(err, LORE_ERR_DEVICE, "the decoder failed");
        }
        if (stream != NULL) {
            lore_stream_cancel(stream);
            lore_stream_release(stream);
        }
    }
    return status == LORE_OK ? lore_bench_samples_check(gaps, "a stream", err) : status;
}

static lore_status bench_watched(decoding *d, lore_error *err)
{
    static const char *const NAMES[] = {"between tokens, alone",
                                        "between tokens, 400-token prompts arriving"};
    watched w = {.bench = d->bench, .decoding = d};
    lore_status status =
        lore_engine_start(d->bench->config->decoder, d->backend, d->bench->config, &w.engine, err);
    for (int i = 0; i < 2 && status == LORE_OK; i++) {
        lore_bench_samples gaps = {0};
        status = watch(&w, i == 1, &gaps, err);
        if (status == LORE_OK) {
            lore_bench_report_times(d->bench->report, NAMES[i], "ms", &gaps);
        }
        lore_bench_samples_destroy(&gaps);
    }
    drop_others(&w);
    lore_engine_stop(w.engine, lore_clock_ns());
    return status;
}

lore_status lore_bench_decode(lore_bench *bench, lore_error *err)
{
    decoding d = {.bench = bench};
    double rate = 0.0;
    lore_status status = open_decoder(&d, err);
    if (status == LORE_OK) {
        lore_bench_report_section(bench->report, "decode", d.info->name);
        lore_bench_report_figure(bench->report,
                                 &(lore_bench_figure){.name = "weights read for a token",
                                                      .value = (double)d.info->weight_bytes * 1e-6,
                                                      .unit = "MB"});
    }
    if (status == LORE_OK && bench->streams > d.streams_max) {
        status = lore_fail(err, LORE_ERR_LIMIT, "there is room for %d streams, not for %d",
                           d.streams_max, bench->streams);
    }
    const int32_t least = bench->streams > 0 ? bench->streams : 1;
    const int32_t most = bench->streams > 0 ? bench->streams : d.streams_max;
    for (int32_t s = 0; s < most && status == LORE_OK; s++) {
        status = prefill(&d, s, err);
    }
    for (int32_t count = least; count <= most && status == LORE_OK; count *= 2) {
        status = bench_streams(&d, count, &rate, err);
        if (status == LORE_OK) {
            status = lore_bench_check_cancelled(bench, err);
        }
    }
    if (status == LORE_OK && bench->streams == 0) {
        status = bench_watched(&d, err);
    }
    close_decoder(&d);
    return status;
}
