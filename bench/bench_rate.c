/* lore bench serve --engine: the engine under an open load, without HTTP or retrieval.
 *
 * Requests arrive at random moments (Poisson, from a seed) whatever the engine makes of them: 450
 * random tokens in, 234 out, the shape that published figures of serving use. Times to first tokens
 * count from when a request was due, so that a late submission hides nothing; those that were due
 * in the first quarter do not count. Answers that end early, because the model drew an end of text,
 * are counted and said.
 *
 * --find-rate first keeps every place of the batch busy, which gives the rate that is possible at
 * all, then narrows down the highest rate at which p99 of first tokens stays under two seconds. */
#include "base/clock.h"
#include "bench/bench_load.h"
#include "bench/bench_model.h"

#include <math.h>

enum {
    PROMPT = 450,
    ANSWER = 234,
    SECONDS = 20,
    LIVE_MAX = 1 << 14,
    FIRST_MS_MAX = 2000, /* p99 of first tokens at a rate that holds */
    PROBES = 4,
    DRAIN_SECONDS = 30
};

typedef struct open_load {
    lore_bench_load load;
    lore_bench_samples firsts, gaps; /* ms: to the first token, and from token to token after it */
    int64_t early;                   /* answers that ended before their length */
} open_load;

/* What one load showed. */
typedef struct shown {
    double first_p50, first_p99, gap_p50, gap_p99; /* ms */
    double tokens_each_second;
    int64_t requests, early;
} shown;

static void note_end(void *self, const lore_bench_request *request)
{
    open_load *o = self;
    o->early += request->finish == LORE_FINISH_STOP;
    if (!request->is_counted) {
        return;
    }
    /* Given up without a token: it has waited at least so long. */
    const int64_t first_ns = request->first_ns > 0 ? request->first_ns : lore_clock_ns();
    lore_bench_sample(&o->firsts, (double)(first_ns - request->due_ns) * 1e-6);
    if (request->tokens > 1) {
        lore_bench_sample(&o->gaps, (double)(request->last_ns - request->first_ns) * 1e-6 /
                                        (request->tokens - 1));
    }
}

static double seconds_of(const lore_bench *bench)
{
    return bench->seconds > 0 ? bench->seconds : SECONDS;
}

/* Every counted request has its first token or has waited too long already. */
static bool is_decided(const open_load *o)
{
    const int64_t now_ns = lore_clock_ns();
    for (int32_t i = 0; i < o->load.live_count; i++) {
        const lore_bench_request *request = &o->load.live[i];
        if (request->is_counted && request->first_ns == 0 &&
            now_ns - request->due_ns <= FIRST_MS_MAX * INT64_C(1000000)) {
            return false;
        }
    }
    return true;
}

static lore_status settle(open_load *o, lore_error *err)
{
    lore_status status = LORE_OK;
    while (status == LORE_OK && !is_decided(o)) {
        status = lore_bench_load_poll(&o->load, err);
    }
    lore_bench_load_cancel(&o->load);
    return status == LORE_OK
               ? lore_bench_load_drain(&o->load,
                                       lore_clock_ns() + DRAIN_SECONDS * INT64_C(1000000000), err)
               : status;
}

static lore_status read_shown(open_load *o, double tokens_each_second, shown *out, lore_error *err)
{
    lore_status status = lore_bench_samples_check(&o->firsts, "first tokens", err);
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&o->gaps, "times between tokens", err);
    }
    if (status == LORE_OK) {
        *out = (shown){lore_bench_percentile(&o->firsts, 50.0),
                       lore_bench_percentile(&o->firsts, 99.0),
                       lore_bench_percentile(&o->gaps, 50.0),
                       lore_bench_percentile(&o->gaps, 99.0),
                       tokens_each_second,
                       o->firsts.count,
                       o->early};
    }
    return status;
}

static void forget(open_load *o)
{
    lore_bench_samples_destroy(&o->firsts);
    lore_bench_samples_destroy(&o->gaps);
    o->early = 0;
}

/* So many requests a second for the time of one load. */
static lore_status run_open(open_load *o, double rate, shown *out, lore_error *err)
{
    lore_bench_load *load = &o->load;
    const int64_t start_ns = lore_clock_ns();
    const int64_t all_ns = (int64_t)(seconds_of(load->bench) * 1e9);
    const int64_t counted_ns = start_ns + all_ns / 4, end_ns = start_ns + all_ns;
    int64_t due_ns = start_ns, tokens_before = -1;
    lore_status status = LORE_OK;
    while (status == LORE_OK && lore_clock_ns() < end_ns) {
        while (status == LORE_OK && due_ns <= lore_clock_ns() && due_ns < end_ns) {
            const lore_bench_request request = {.prompt_count = PROMPT,
                                                .tokens_max = ANSWER,
                                                .cancel_at = -1,
                                                .is_counted = due_ns >= counted_ns,
                                                .due_ns = due_ns};
            status = lore_bench_load_submit(load, &request, err);
            due_ns -= (int64_t)(log(1.0 - (double)lore_random_unit(&load->random)) / rate * 1e9);
        }
        if (status == LORE_OK) {
            status = lore_bench_load_poll(load, err);
        }
        if (tokens_before < 0 && lore_clock_ns() >= counted_ns) {
            tokens_before = load->tokens;
        }
    }
    const double tokens = (double)(load->tokens - tokens_before);
    const double seconds = (double)(lore_clock_ns() - counted_ns) * 1e-9;
    if (status == LORE_OK) {
        status = settle(o, err);
    }
    if (status == LORE_OK) {
        status = read_shown(o, tokens / seconds, out, err);
    }
    forget(o);
    return status;
}

/* Answers a second while every place of the batch is taken. The first answers have random lengths,
 * so that from the beginning they end at different moments. */
static lore_status measure_capacity(open_load *o, double *answers, lore_error *err)
{
    lore_bench_load *load = &o->load;
    const int32_t places = (int32_t)load->config.limits.batch_sequences_max;
    const int64_t start_ns = lore_clock_ns();
    const int64_t all_ns = (int64_t)(seconds_of(load->bench) * 1e9);
    int64_t tokens_before = -1;
    lore_status status = LORE_OK;
    while (status == LORE_OK && lore_clock_ns() < start_ns + all_ns) {
        while (status == LORE_OK && load->live_count < places + places / 8 + 1) {
            const bool is_first = load->requests < places;
            const lore_bench_request request = {
                .prompt_count = PROMPT,
                .tokens_max = is_first ? 1 + lore_bench_load_below(load, ANSWER) : ANSWER,
                .cancel_at = -1};
            status = lore_bench_load_submit(load, &request, err);
        }
        if (status == LORE_OK) {
            status = lore_bench_load_poll(load, err);
        }
        if (tokens_before < 0 && lore_clock_ns() >= start_ns + all_ns / 4) {
            tokens_before = load->tokens;
        }
    }
    *answers = (double)(load->tokens - tokens_before) / ANSWER / ((double)all_ns * 0.75e-9);
    if (status == LORE_OK) {
        status = settle(o, err);
    }
    forget(o);
    return status;
}

/* ---- reports ---- */

/* Requests a second that multiplication alone would allow. */
static double compute_bound(const open_load *o)
{
    const lore_decoder_info *info = lore_engine_info(o->load.engine);
    const double operations = 2.0 * (lore_bench_layer_weights(info) * (PROMPT + ANSWER) +
                                     lore_bench_head_weights(info) * ANSWER) +
                              lore_bench_attention_operations(info, PROMPT + ANSWER, 0);
    return lore_bench_model_peak(o->load.bench, info) / operations;
}

static void report_shown(lore_bench *bench, double rate, const shown *s)
{
    const struct {
        const char *name;
        double value;
        const char *unit;
    } FIGURES[] = {
        {"offered", rate, "requests/s"},           {"first token, p50", s->first_p50, "ms"},
        {"first token, p99", s->first_p99, "ms"},  {"token to token, p50", s->gap_p50, "ms"},
        {"token to token, p99", s->gap_p99, "ms"}, {"tokens", s->tokens_each_second, "tok/s"}};
    for (size_t i = 0; i < sizeof FIGURES / sizeof FIGURES[0]; i++) {
        lore_bench_report_figure(bench->report,
                                 &(lore_bench_figure){.name = FIGURES[i].name,
                                                      .value = FIGURES[i].value,
                                                      .unit = FIGURES[i].unit,
                                                      .samples = (int32_t)s->requests});
    }
    if (s->early > 0) {
        lore_bench_report_figure(bench->report,
                                 &(lore_bench_figure){.name = "answers that ended early",
                                                      .value = (double)s->early,
                                                      .unit = ""});
    }
}

static void report_probe(lore_bench *bench, double rate, const shown *s)
{
    char name[64];
    snprintf(name, sizeof name, "first token at %.3g requests/s, p99", rate);
    lore_bench_report_figure(bench->report, &(lore_bench_figure){.name = name,
                                                                 .value = s->first_p99,
                                                                 .unit = "ms",
                                                                 .samples = (int32_t)s->requests});
}

static lore_status find_rate(open_load *o, lore_error *err)
{
    lore_bench *bench = o->load.bench;
    double capacity = 0.0, held = 0.0;
    shown best = {0};
    lore_status status = measure_capacity(o, &capacity, err);
    if (status == LORE_OK && capacity <= 0.0) {
        status = lore_fail(err, LORE_ERR_INVALID, "no token came in %g seconds", seconds_of(bench));
    }
    if (status == LORE_OK) {
        lore_bench_report_figure(bench->report,
                                 &(lore_bench_figure){.name = "answers, every place taken",
                                                      .value = capacity,
                                                      .unit = "requests/s"});
    }
    double failed = 1.15 * capacity, rate = 0.85 * capacity;
    for (int i = 0; i < PROBES && status == LORE_OK; i++) {
        shown s = {0};
        status = run_open(o, rate, &s, err);
        if (status != LORE_OK) {
            break;
        }
        report_probe(bench, rate, &s);
        if (s.first_p99 < FIRST_MS_MAX) {
            held = rate;
            best = s;
        } else {
            failed = rate;
        }
        rate = held > 0.0 ? 0.5 * (held + failed) : 0.7 * failed;
    }
    if (status == LORE_OK && held > 0.0) {
        report_shown(bench, held, &best);
    }
    if (status == LORE_OK) {
        const double bound = compute_bound(o);
        lore_bench_report_figure(bench->report,
                                 &(lore_bench_figure){.name = "p99 of first tokens under 2 s up to",
                                                      .value = held,
                                                      .unit = "requests/s",
                                                      .share = bound > 0.0 ? held / bound : 0.0,
                                                      .limit = "of the compute bound"});
    }
    return status;
}

static lore_status run_rate(open_load *o, lore_error *err)
{
    lore_bench *bench = o->load.bench;
    shown s = {0};
    const double bound = compute_bound(o);
    if (bound > 0.0) {
        lore_bench_report_figure(
            bench->report,
            &(lore_bench_figure){.name = "compute bound", .value = bound, .unit = "requests/s"});
    }
    if (bench->finds_rate) {
        return find_rate(o, err);
    }
    lore_status status = run_open(o, bench->rate, &s, err);
    if (status == LORE_OK) {
        report_shown(bench, bench->rate, &s);
    }
    return status;
}

lore_status lore_bench_rate(lore_bench *bench, lore_error *err)
{
    open_load *o = LORE_PUSH(&bench->arena, open_load, 1);
    if (o == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a load");
    }
    LORE_ASSERT(bench->finds_rate || bench->rate > 0.0);
    lore_status status = lore_bench_load_open(&o->load, bench, LIVE_MAX, err);
    o->load.ended = note_end;
    o->load.self = o;
    if (status == LORE_OK) {
        status = lore_bench_load_start(&o->load, err);
    }
    if (status == LORE_OK) {
        char title[160];
        snprintf(title, sizeof title, "%.80s, %d tokens in, %d out",
                 lore_engine_info(o->load.engine)->name, PROMPT, ANSWER);
        lore_bench_report_section(bench->report, "load", title);
        status = run_rate(o, err);
    }
    lore_bench_load_close(&o->load);
    forget(o);
    return status;
}
