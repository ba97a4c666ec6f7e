/* lore bench prefill: prompts of given lengths in one step, and how soon an answer begins where the
 * engine has seen the beginning of its prompt before.
 *
 * Prefill is bound by multiplication: two operations a weight and token, and those of attention;
 * the floor is all of them over the multiply rate. Beside tokens a second stands the share of the
 * products with weights alone, and beside operations a second that of all. */
#include "base/clock.h"
#include "bench/bench.h"
#include "bench/bench_model.h"
#include "generation/engine.h"

enum {
    PROMPT = 400, /* tokens: the walk's usual prompt */
    PREFILLS = 24,
    PREFILLS_WARM = 2,
    PREFIX = 2048, /* tokens that prompts share, half of a context that is shorter, */
    QUESTION = 32, /* and that each has of its own */
    FIRSTS = 12    /* first tokens waited for */
};

static void report_prompt(const lore_bench_model *m, int32_t tokens, lore_bench_samples *times)
{
    char name[32];
    lore_bench_report *report = m->bench->report;
    const double seconds = lore_bench_percentile(times, 50.0);
    const double peak = lore_bench_model_peak(m->bench, m->info);
    const double products = 2.0 * lore_bench_layer_weights(m->info) * tokens;
    const double all = products + 2.0 * lore_bench_head_weights(m->info) +
                       lore_bench_attention_operations(m->info, tokens, 0);
    for (int32_t i = 0; i < times->count; i++) {
        times->items[i] *= 1e3;
    }
    snprintf(name, sizeof name, "%d tokens", tokens);
    lore_bench_report_median(report, name, "ms", times, peak > 0.0 ? all / peak * 1e3 : 0.0);
    lore_bench_report_figure(report,
                             &(lore_bench_figure){name, tokens / seconds, "tok/s",
                                                  peak > 0.0 ? products / seconds / peak : 0.0,
                                                  "of the multiply rate", times->count});
    lore_bench_report_figure(
        report, &(lore_bench_figure){
                    name, all / seconds * 1e-12, "TOP/s", peak > 0.0 ? all / seconds / peak : 0.0,
                    "of the multiply rate, attention and head counted", times->count});
}

static lore_status bench_prompt(lore_bench_model *m, int32_t tokens, lore_error *err)
{
    lore_bench_samples times = {0};
    lore_status status = LORE_OK;
    const int64_t runs = lore_bench_budget(m->bench, PREFILLS);
    for (int32_t i = 0; i < tokens; i++) {
        m->ids[i] = lore_bench_model_random_id(m);
    }
    for (int64_t i = 0; i < PREFILLS_WARM + runs && status == LORE_OK; i++) {
        m->filled[0] = 0;
        const int64_t begin = lore_clock_ns();
        status = lore_bench_model_step(m, 1, tokens, err);
        if (i >= PREFILLS_WARM) {
            lore_bench_sample(&times, (double)(lore_clock_ns() - begin) * 1e-9);
        }
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&times, "prefill", err);
    }
    if (status == LORE_OK) {
        report_prompt(m, tokens, &times);
        status = lore_bench_check_cancelled(m->bench, err);
    }
    lore_bench_samples_destroy(&times);
    return status;
}

/* ---- the beginning of a prompt known ---- */

typedef struct asking {
    lore_bench *bench;
    lore_engine *engine;
    uint64_t random;
    int32_t prefix;
    int32_t prompt[PREFIX + QUESTION];
} asking;

static void draw_ids(asking *a, int32_t from, int32_t to)
{
    const int32_t vocab = lore_engine_info(a->engine)->vocab;
    for (int32_t i = from; i < to; i++) {
        a->prompt[i] = (int32_t)(lore_random_next(&a->random) % (uint64_t)vocab);
    }
}

/* Milliseconds from submitting to the first event. */
static lore_status ask(asking *a, double *ms, lore_error *err)
{
    lore_stream *stream = NULL;
    lore_token_event event = {0};
    const lore_generation generation = {
        .prompt = a->prompt, .prompt_count = a->prefix + QUESTION, .tokens_max = 1};
    const int64_t begin = lore_clock_ns();
    lore_status status = lore_engine_submit(a->engine, &generation, &stream, err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_stream_next(stream, 0, &event);
    *ms = (double)(lore_clock_ns() - begin) * 1e-6;
    lore_stream_release(stream);
    return status == LORE_OK && event.finish == LORE_FINISH_ERROR
               ? lore_fail(err, LORE_ERR_DEVICE, "the decoder failed")
               : status;
}

/* Each question behind another prefix, or all behind one that was asked once before. */
static lore_status bench_first(asking *a, bool is_known, lore_error *err)
{
    char name[64];
    lore_bench_samples times = {0};
    lore_status status = LORE_OK;
    const int64_t runs = lore_bench_budget(a->bench, FIRSTS);
    draw_ids(a, 0, a->prefix);
    for (int64_t i = -1; i < runs && status == LORE_OK; i++) {
        double ms = 0.0;
        draw_ids(a, is_known ? a->prefix : 0, a->prefix + QUESTION);
        status = ask(a, &ms, err);
        if (i >= 0) {
            lore_bench_sample(&times, ms);
        }
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&times, "first tokens", err);
    }
    if (status == LORE_OK) {
        snprintf(name, sizeof name, "first token, %d %s + %d", a->prefix,
                 is_known ? "known" : "new", QUESTION);
        lore_bench_report_median(a->bench->report, name, "ms", &times, 0.0);
        status = lore_bench_check_cancelled(a->bench, err);
    }
    lore_bench_samples_destroy(&times);
    return status;
}

static lore_status bench_prefix(lore_bench *bench, lore_error *err)
{
    asking a = {.bench = bench, .random = 7};
    lore_backend *backend = NULL;
    lore_status status = lore_backend_open(&bench->device, &backend, err);
    if (status == LORE_OK) {
        status = lore_engine_start(bench->config->decoder, backend, bench->config, &a.engine, err);
    }
    if (status == LORE_OK) {
        const int32_t context = lore_engine_info(a.engine)->context;
        a.prefix = context > PREFIX + QUESTION ? PREFIX : context / 2;
        status = bench_first(&a, false, err);
    }
    if (status == LORE_OK) {
        status = bench_first(&a, true, err);
    }
    lore_engine_stop(a.engine, lore_clock_ns());
    lore_backend_close(backend);
    return status;
}

lore_status lore_bench_prefill(lore_bench *bench, lore_error *err)
{
    lore_bench_model m = {0};
    const lore_bench_list usual = {{PROMPT}, 1};
    const lore_bench_list *prompts = bench->prompts.count > 0 ? &bench->prompts : &usual;
    const int32_t longest = prompts->items[prompts->count - 1];
    const lore_bench_model_needs needs = {.streams = 1, .tokens = longest, .rows_max = longest};
    lore_status status = lore_bench_model_open(&m, bench, &needs, err);
    if (status == LORE_OK) {
        lore_bench_report_section(bench->report, "prefill", m.info->name);
    }
    for (int32_t i = 0; i < prompts->count && status == LORE_OK; i++) {
        status = bench_prompt(&m, prompts->items[i], err);
    }
    lore_bench_model_close(&m);
    return status == LORE_OK ? bench_prefix(bench, err) : status;
}
