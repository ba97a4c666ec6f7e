/* lore bench serve --soak: mixed traffic on the engine alone for some time, and then a look whether
 * anything is missing.
 *
 * Prompts and answers of all lengths, a third of them with a common beginning, greedy and drawn, a
 * fifth cancelled in the middle, twice as many as have places in the batch, and pages for a quarter
 * of those: so that sequences wait, share pages, are preempted and computed again. Afterwards every
 * stream must have ended once, and pages, allocations of this process and memory of the device must
 * be back; a soak in which nothing was preempted or cancelled has shown nothing and fails too. */
#include "base/clock.h"
#include "base/mem.h"
#include "bench/bench_load.h"
#include "bench/bench_model.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum {
    PROMPT_MAX = 600,
    ANSWER_MAX = 300,
    SHARED = 256,
    SEQUENCES_LEAST = 3, /* of the longest, for which there are pages */
    DRAIN_SECONDS = 120,
    STATS_MS = 2000,
    STATM_BYTES_MAX = 256,
#ifdef LORE_SANITIZED
    RESIDENT_SLACK = 1 << 30, /* what was freed is kept, to catch whoever still uses it */
#else
    RESIDENT_SLACK = 64 << 20, /* what the C library and a driver may keep for the next time */
#endif
    DEVICE_SLACK = 16 << 20
};

typedef struct soak {
    lore_bench_load load;
    int64_t ended, cancelled;
    lore_bench_samples cancels;            /* ms from a cancel to the last event */
    int64_t allocations, resident, device; /* before */
} soak;

static void note_end(void *self, const lore_bench_request *request)
{
    soak *s = self;
    s->ended++;
    s->cancelled += request->finish == LORE_FINISH_CANCELLED;
    if (request->finish == LORE_FINISH_CANCELLED) {
        lore_bench_sample(&s->cancels, (double)(lore_clock_ns() - request->cancel_ns) * 1e-6);
    }
}

static int64_t resident_bytes(void)
{
    char text[STATM_BYTES_MAX];
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file != NULL && fgets(text, sizeof text, file) != NULL) {
        (void)sscanf(text, "%*d %ld", &pages);
    }
    if (file != NULL) {
        fclose(file);
    }
    return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

/* Free memory of a GPU; 0 without. */
static int64_t device_bytes(const soak *s)
{
    int64_t left = 0, all = 0;
    lore_backend_memory(s->load.backend, &left, &all);
    return left;
}

/* The engine once, without work: what a first opening leaves behind for good (a library, a context
 * of the device) is there before anything is counted. Sets the pages of the soak. */
static lore_status prepare(soak *s, lore_error *err)
{
    lore_bench_load *load = &s->load;
    lore_status status = lore_bench_load_start(load, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_dtype kv_dtype = LORE_F32;
    const lore_decoder_info *info = lore_engine_info(load->engine);
    status = lore_engine_kv_dtype(&load->config, load->backend, &kv_dtype, err);
    const int64_t places = load->config.limits.batch_sequences_max / 4;
    const int64_t sequences = places > SEQUENCES_LEAST ? places : SEQUENCES_LEAST;
    load->config.limits.kv_bytes_max =
        (int64_t)(lore_bench_kv_bytes(info, kv_dtype) * (double)sequences *
                  (PROMPT_MAX + ANSWER_MAX + info->page_tokens));
    lore_bench_report_section(load->bench->report, "soak", info->name);
    if (status == LORE_OK && info->context < PROMPT_MAX + ANSWER_MAX) {
        status = lore_fail(err, LORE_ERR_INVALID, "'%s' has a context of %d tokens, %d are needed",
                           info->name, info->context, PROMPT_MAX + ANSWER_MAX);
    }
    lore_bench_load_stop(load);
    return status;
}

static lore_bench_request draw_request(soak *s)
{
    lore_bench_load *load = &s->load;
    const int32_t prompt = 1 + lore_bench_load_below(load, PROMPT_MAX);
    const int32_t answer = 1 + lore_bench_load_below(load, ANSWER_MAX);
    return (lore_bench_request){
        .prompt_count = prompt,
        .tokens_max = answer,
        .shared = prompt > SHARED && lore_bench_load_below(load, 3) == 0 ? SHARED : 0,
        .cancel_at = lore_bench_load_below(load, 5) == 0 ? lore_bench_load_below(load, answer) : -1,
        .temperature = lore_bench_load_below(load, 2) == 0 ? 0.8f : 0.0f,
        .due_ns = lore_clock_ns()};
}

/* Is there still to be given more? A slow machine gets up to four times as long to preempt and to
 * cancel something. */
static bool is_going_on(const soak *s, int64_t start_ns)
{
    lore_sched_stats stats;
    const int64_t passed_ns = lore_clock_ns() - start_ns;
    const int64_t asked_ns = s->load.bench->soak_seconds * INT64_C(1000000000);
    lore_engine_get_stats(s->load.engine, &stats);
    return passed_ns < asked_ns ||
           (passed_ns < 4 * asked_ns && (stats.preemptions == 0 || s->cancelled == 0));
}

static lore_status run_traffic(soak *s, lore_error *err)
{
    lore_bench_load *load = &s->load;
    const int64_t start_ns = lore_clock_ns();
    lore_status status = LORE_OK;
    while (status == LORE_OK && is_going_on(s, start_ns)) {
        while (status == LORE_OK && load->live_count < load->live_max) {
            const lore_bench_request request = draw_request(s);
            status = lore_bench_load_submit(load, &request, err);
        }
        if (status == LORE_OK) {
            status = lore_bench_load_poll(load, err);
        }
    }
    return status == LORE_OK ? lore_bench_load_drain(
                                   load, lore_clock_ns() + DRAIN_SECONDS * INT64_C(1000000000), err)
                             : status;
}

/* What the engine says once nothing is under way. */
static lore_status check_engine(const soak *s, const lore_sched_stats *stats, lore_error *err)
{
    if (s->ended != s->load.requests) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "%" PRId64 " requests were given and %" PRId64 " ended", s->load.requests,
                         s->ended);
    }
    if (stats->running != 0 || stats->waiting != 0 || stats->pages_free != stats->pages_total) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "after the last answer %d run, %d wait and %d pages of %d are free",
                         stats->running, stats->waiting, stats->pages_free, stats->pages_total);
    }
    if (stats->preemptions == 0 || s->cancelled == 0) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "%" PRId64 " were preempted and %" PRId64
                         " cancelled: the soak was too short to show anything",
                         stats->preemptions, s->cancelled);
    }
    return LORE_OK;
}

static void report_number(const soak *s, const char *name, double value, const char *unit)
{
    lore_bench_report_figure(s->load.bench->report,
                             &(lore_bench_figure){.name = name, .value = value, .unit = unit});
}

static lore_status check_memory(const soak *s, lore_error *err)
{
    const int64_t allocations = lore_mem_live() - s->allocations;
    const int64_t resident = resident_bytes() - s->resident;
    const int64_t device = s->device - device_bytes(s);
    report_number(s, "allocations left", (double)allocations, "");
    report_number(s, "memory grown (resident)", (double)resident / (1 << 20), "MiB");
    if (s->device > 0) {
        report_number(s, "memory of the device gone", (double)device / (1 << 20), "MiB");
    }
    if (allocations != 0) {
        return lore_fail(err, LORE_ERR_INVALID, "%" PRId64 " allocations were not freed",
                         allocations);
    }
    if (resident > RESIDENT_SLACK || device > DEVICE_SLACK) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "%" PRId64 " bytes of memory and %" PRId64 " of the device are gone",
                         resident, device);
    }
    return LORE_OK;
}

/* The last event comes before the engine says what is left: it gets a moment for that. */
static void read_stats(lore_bench_load *load, lore_sched_stats *stats)
{
    const int64_t deadline_ns = lore_clock_ns() + STATS_MS * INT64_C(1000000);
    do {
        lore_clock_sleep_ms(1);
        lore_engine_get_stats(load->engine, stats);
    } while ((stats->running > 0 || stats->waiting > 0) && !lore_deadline_passed(deadline_ns));
}

static lore_status run_soak(soak *s, lore_error *err)
{
    lore_bench_load *load = &s->load;
    lore_sched_stats stats = {0};
    lore_status status = prepare(s, err);
    if (status != LORE_OK) {
        return status;
    }
    s->allocations = lore_mem_live();
    s->resident = resident_bytes();
    s->device = device_bytes(s);
    status = lore_bench_load_start(load, err);
    if (status == LORE_OK) {
        status = run_traffic(s, err);
    }
    if (status == LORE_OK) {
        read_stats(load, &stats);
        report_number(s, "requests", (double)load->requests, "");
        report_number(s, "tokens", (double)load->tokens, "");
        report_number(s, "cancelled", (double)s->cancelled, "");
        report_number(s, "preempted", (double)stats.preemptions, "");
        status = check_engine(s, &stats, err);
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&s->cancels, "cancels", err);
    }
    if (status == LORE_OK) {
        lore_bench_report_times(load->bench->report, "from a cancel to the end", "ms", &s->cancels);
    }
    lore_bench_load_stop(load);
    lore_bench_samples_destroy(&s->cancels);
    return status == LORE_OK ? check_memory(s, err) : status;
}

lore_status lore_bench_soak(lore_bench *bench, lore_error *err)
{
    soak *s = LORE_PUSH(&bench->arena, soak, 1);
    if (s == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a soak");
    }
    const int64_t places = 2 * bench->config->limits.batch_sequences_max;
    lore_status status = lore_bench_load_open(&s->load, bench, (int32_t)places, err);
    s->load.ended = note_end;
    s->load.self = s;
    if (status == LORE_OK) {
        status = run_soak(s, err);
    }
    lore_bench_load_close(&s->load);
    return status;
}
