/* lore bench search --vectors on a processor: the exact scan alone, over so many random int8
 * vectors of 384, for one question and for 64 in a row. (A GPU's: bench_device_search.c.)
 *
 * The vectors are made here, so no data folder is needed. A call is timed until its scores are
 * complete; the floor is one reading of the vectors and their scales, whatever the number of
 * questions. */
#include "base/clock.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "kernels/search.h"

enum {
    DIM = 384,
    BATCH = 64,
    RUNS_MIN = 5,
    RUNS_MAX = 200,
    RUN_MS = 2000,
    WARM = 2,
    SLAB = 1 << 16 /* vectors made at a time */
};

typedef struct scanning {
    lore_bench *bench;
    lore_backend *backend;
    lore_queue *queue;
    int8_t *vectors; /* [count, DIM]; these four are of the backend */
    int8_t *queries; /* [BATCH, DIM] */
    float *scales;   /* [count] */
    float *scores;   /* [count] */
    int32_t count;
} scanning;

static lore_status take(scanning *s, size_t bytes, void **memory, lore_error *err)
{
    return lore_backend_alloc(s->backend, bytes, memory, err);
}

static lore_status take_memory(scanning *s, lore_error *err)
{
    const size_t count = (size_t)s->count;
    void *memory[4] = {0};
    const size_t sizes[4] = {count * DIM, BATCH * DIM, count * sizeof(float),
                             count * sizeof(float)};
    lore_status status = LORE_OK;
    for (int i = 0; i < 4 && status == LORE_OK; i++) {
        status = take(s, sizes[i], &memory[i], err);
    }
    s->vectors = memory[0];
    s->queries = memory[1];
    s->scales = memory[2];
    s->scores = memory[3];
    return status;
}

static void close_scan(scanning *s)
{
    lore_backend_free(s->backend, s->vectors);
    lore_backend_free(s->backend, s->queries);
    lore_backend_free(s->backend, s->scales);
    lore_backend_free(s->backend, s->scores);
    lore_queue_close(s->queue);
    lore_backend_close(s->backend);
}

/* Random vectors go up a slab at a time; the queries are the first of them. */
static lore_status fill(scanning *s, lore_error *err)
{
    uint64_t random = 1;
    uint64_t *words = lore_alloc(SLAB * DIM);
    float *scales = lore_alloc(SLAB * sizeof(float));
    lore_status status = words != NULL && scales != NULL
                             ? LORE_OK
                             : lore_fail(err, LORE_ERR_NOMEM, "no memory for vectors");
    for (int32_t i = 0; status == LORE_OK && i < SLAB; i++) {
        scales[i] = 0.001f + 0.001f * lore_random_unit(&random);
    }
    for (int32_t from = 0; status == LORE_OK && from < s->count; from += SLAB) {
        const size_t rows = (size_t)(s->count - from < SLAB ? s->count - from : SLAB);
        for (size_t i = 0; i < rows * DIM / sizeof *words; i++) {
            words[i] = lore_random_next(&random);
        }
        lore_queue_upload(s->queue, s->vectors + (size_t)from * DIM, words, rows * DIM);
        lore_queue_upload(s->queue, s->scales + from, scales, rows * sizeof *scales);
        if (from == 0) {
            lore_queue_upload(s->queue, s->queries, words,
                              (rows < BATCH ? rows : (size_t)BATCH) * DIM);
        }
        status = lore_queue_sync(s->queue, err);
    }
    lore_free(words);
    lore_free(scales);
    return status;
}

static lore_status bench_questions(scanning *s, int32_t questions, lore_error *err)
{
    char name[64];
    lore_bench_samples times = {0};
    double read_rate = 0.0;
    lore_status status = lore_bench_read_now(s->bench, &read_rate, err);
    const int64_t end_ns = lore_clock_ns() + lore_bench_budget(s->bench, RUN_MS) * 1000000;
    for (int32_t i = 0; status == LORE_OK && i < WARM + RUNS_MAX &&
                        (times.count < RUNS_MIN || lore_clock_ns() < end_ns);
         i++) {
        const int64_t begin = lore_clock_ns();
        lore_queue_begin(s->queue, LORE_PRIORITY_HIGH);
        for (int32_t q = 0; q < questions; q++) {
            lore_op_scan(s->queue, s->scores, s->queries + (size_t)q * DIM, 0.01f, s->vectors,
                         s->scales, s->count, DIM);
        }
        status = lore_queue_sync(s->queue, err);
        if (i >= WARM) {
            lore_bench_sample(&times, (double)(lore_clock_ns() - begin) * 1e-6);
        }
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&times, "scanning", err);
    }
    if (status == LORE_OK) {
        const double bytes = (double)s->count * (DIM + sizeof(float));
        snprintf(name, sizeof name, "%d question%s, %d x %d", questions, questions == 1 ? "" : "s",
                 s->count, DIM);
        lore_bench_report_median(s->bench->report, name, "ms", &times, bytes / read_rate * 1e3);
        status = lore_bench_check_cancelled(s->bench, err);
    }
    lore_bench_samples_destroy(&times);
    return status;
}

lore_status lore_bench_scan(lore_bench *bench, lore_error *err)
{
    scanning s = {.bench = bench, .count = bench->vectors};
    lore_status status = lore_backend_open(&bench->device, &s.backend, err);
    if (status == LORE_OK) {
        status = lore_queue_open(s.backend, &s.queue, err);
    }
    if (status == LORE_OK) {
        status = take_memory(&s, err);
    }
    if (status == LORE_OK) {
        status = fill(&s, err);
    }
    if (status == LORE_OK) {
        lore_bench_report_section(bench->report, "search", "exact scan of int8, scores alone");
        status = bench_questions(&s, 1, err);
    }
    if (status == LORE_OK) {
        status = bench_questions(&s, BATCH, err);
    }
    close_scan(&s);
    return status;
}
