/* The op benchmark: shapes of the starter models, best and median of many runs, and the machine's
 * own limits for scale.
 *
 * The best time is the figure: on shared cores everything above it is somebody else's work; the
 * median beside it tells how much of that there was. A share near 1 of the arithmetic or the memory
 * peak says that an op is done; shares of both are printed for matmul, because small batches are
 * bound by the reading of weights and large ones by arithmetic. Weights of several hundred
 * megabytes would hide nothing in caches, but those of the starter models do fit a big L3, so
 * shares above 1 of memory bandwidth are no error. */
#include "bench/bench_ops.h"

#include "base/clock.h"
#include "base/mem.h"
#include "bench/bench_peak.h"

#include <stdlib.h>
#include <string.h>

enum { CASE_MS = 200, TIMES_MAX = 4096, VOCABULARY = 24576 };

typedef struct bench {
    const lore_bench_ops_options *options;
    lore_pool *pool;
    lore_backend *backend;
    lore_queue *queue;
    lore_precision precision;
    double peak[4];   /* operations a second with all threads, by precision (0: none) */
    double read_peak; /* bytes a second */
    double *times;    /* [TIMES_MAX] */
} bench;

/* ---- memory and inputs; a failure is noted once and ends the run ---- */

static uint64_t random_state = 1;

static float *random_floats(size_t count)
{
    float *values = lore_alloc_aligned(count * sizeof *values);
    for (size_t i = 0; values != NULL && i < count; i++) {
        values[i] = lore_random_unit(&random_state) * 2.0f - 1.0f;
    }
    return values;
}

/* ---- timing and printing ---- */

typedef void (*bench_body)(bench *on, void *self);

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Time a case and print its line. operations and bytes are those of one run; 0: not meaningful. */
static void time_case(bench *on, const char *name, double operations, double bytes, bench_body body,
                      void *self)
{
    const int64_t budget =
        (int64_t)(on->options->case_ms > 0 ? on->options->case_ms : CASE_MS) * 1000000;
    body(on, self); /* caches and scratch */
    int32_t runs = 0;
    const int64_t start = lore_clock_ns();
    while (runs < TIMES_MAX && (runs < 3 || lore_clock_ns() - start < budget)) {
        const int64_t begin = lore_bench_now_ns(on->pool);
        body(on, self);
        on->times[runs++] = (double)(lore_bench_now_ns(on->pool) - begin) * 1e-9;
    }
    qsort(on->times, (size_t)runs, sizeof on->times[0], compare_doubles);
    const double best = on->times[0], median = on->times[runs / 2];
    const double rate = operations / best, read_rate = bytes / best, peak = on->peak[on->precision];
    FILE *out = on->options->out;
    if (on->options->is_json) {
        fprintf(out,
                "{\"case\":\"%s\",\"precision\":\"%s\",\"threads\":%d,\"runs\":%d,\"best_us\":%.2f,"
                "\"median_us\":%.2f,\"gops\":%.1f,\"peak_share\":%.3f,\"gb_per_s\":%.2f,\"read_"
                "share\":%.3f}\n",
                name, lore_precision_name(on->precision), (int)lore_pool_size(on->pool), (int)runs,
                best * 1e6, median * 1e6, rate * 1e-9, peak > 0.0 ? rate / peak : 0.0,
                read_rate * 1e-9, read_rate / on->read_peak);
        return;
    }
    fprintf(out, "%-34s %-5s %10.1f us %10.1f us", name, lore_precision_name(on->precision),
            best * 1e6, median * 1e6);
    if (operations > 0.0) {
        fprintf(out, " %8.1f GOP/s", rate * 1e-9);
        if (peak > 0.0) {
            fprintf(out, " (%3.0f %%)", 100.0 * rate / peak);
        }
    }
    if (bytes > 0.0) {
        fprintf(out, " %7.1f GB/s (%3.0f %%)", read_rate * 1e-9, 100.0 * read_rate / on->read_peak);
    }
    fputc('\n', out);
    fflush(out);
}

static bool is_wanted(const bench *on, const char *name)
{
    return on->options->only == NULL || strstr(name, on->options->only) != NULL;
}

/* ---- matmul ---- */

typedef struct matmul_case {
    const char *name;
    int32_t rows, depth, outs;
    bool has_gelu, is_accumulating;
} matmul_case;

static const matmul_case matmul_cases[] = {
    {"encoder qkv 4096x384x1152", 4096, 384, 1152, false, false},
    {"encoder out 4096x384x384", 4096, 384, 384, false, true},
    {"encoder up 4096x384x1536 gelu", 4096, 384, 1536, true, false},
    {"encoder down 4096x1536x384", 4096, 1536, 384, false, true},
    {"encoder qkv 1024x384x1152", 1024, 384, 1152, false, false},
    {"encoder out 1024x384x384", 1024, 384, 384, false, true},
    {"encoder up 1024x384x1536 gelu", 1024, 384, 1536, true, false},
    {"encoder down 1024x1536x384", 1024, 1536, 384, false, true},
    {"encoder qkv 20x384x1152", 20, 384, 1152, false, false},
    {"prefill qkv 400x512x768", 400, 512, 768, false, false},
    {"prefill gate_up 400x512x3072", 400, 512, 3072, false, false},
    {"prefill down 400x1536x512", 400, 1536, 512, false, true},
    {"decode qkv 1x512x768", 1, 512, 768, false, false},
    {"decode gate_up 1x512x3072", 1, 512, 3072, false, false},
    {"decode gate_up 8x512x3072", 8, 512, 3072, false, false},
    {"decode down 8x1536x512", 8, 1536, 512, false, true},
    {"logits 1x512x24576", 1, 512, VOCABULARY, false, false},
    {"logits 2x512x24576", 2, 512, VOCABULARY, false, false},
    {"logits 4x512x24576", 4, 512, VOCABULARY, false, false},
    {"logits 8x512x24576", 8, 512, VOCABULARY, false, false},
    {"big 1x2048x32768", 1, 2048, 32768, false, false},
};

typedef struct matmul_work {
    lore_view out, x;
    lore_weight *weight;
    lore_epilogue epilogue;
} matmul_work;

static void matmul_body(bench *on, void *self)
{
    const matmul_work *work = self;
    lore_op_matmul(on->queue, work->out, work->x, work->weight, work->epilogue);
}

static lore_status bench_matmul(bench *on, const matmul_case *shape, lore_error *err)
{
    const size_t weights = (size_t)shape->outs * (size_t)shape->depth;
    float *values = random_floats(weights),
          *x = random_floats((size_t)shape->rows * (size_t)shape->depth);
    float *out = random_floats((size_t)shape->rows * (size_t)shape->outs),
          *bias = random_floats((size_t)shape->outs);
    matmul_work work = {.epilogue = {bias, shape->has_gelu ? LORE_ACT_GELU : LORE_ACT_NONE,
                                     shape->is_accumulating}};
    lore_status status = LORE_OK;
    if (values == NULL || x == NULL || out == NULL || bias == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for a benchmark");
    }
    if (status == LORE_OK) {
        const lore_matrix matrix = {LORE_F32, shape->outs, shape->depth, values, NULL};
        status = lore_weight_pack(on->backend, &matrix, 1, false, &work.weight, err);
    }
    if (status == LORE_OK) {
        work.x = lore_view_of(x, shape->rows, shape->depth);
        work.out = lore_view_of(out, shape->rows, shape->outs);
        const double bytes = shape->rows <= 8 ? (double)lore_weight_bytes(work.weight) : 0.0;
        time_case(on, shape->name, 2.0 * shape->rows * (double)weights, bytes, matmul_body, &work);
    }
    lore_weight_free(work.weight);
    lore_free_aligned(values);
    lore_free_aligned(x);
    lore_free_aligned(out);
    lore_free_aligned(bias);
    return status;
}

/* ---- the others: one set of buffers, large enough for all ---- */

enum {
    ROWS = 4096,
    DIM = 64,
    ENCODER_HEADS = 6,
    HEADS = 8,
    KV_HEADS = 2,
    PAGE_TOKENS = 16,
    PAGES = 2048,
    POSITIONS = 2048
};

typedef struct other_work {
    float *x, *y, *weights, *keys, *values;
    int8_t *vectors;
    int32_t *pages, starts[33], past[33], page_start[33];
    lore_batch batch;
    lore_pages cache;
    lore_rope rope;
} other_work;

enum {
    OTHER_FLOATS = ROWS * 3072,
    CACHE_FLOATS = PAGES * KV_HEADS * PAGE_TOKENS * DIM,
    SCAN_COUNT = 200000,
    SCAN_DIM = 384
};

static bool other_init(other_work *work)
{
    work->x = random_floats(OTHER_FLOATS);
    work->y = random_floats(OTHER_FLOATS);
    work->weights = random_floats(POSITIONS * DIM);
    work->keys = random_floats(CACHE_FLOATS);
    work->values = random_floats(CACHE_FLOATS);
    work->vectors = lore_alloc_aligned((size_t)SCAN_COUNT * SCAN_DIM);
    work->pages = lore_alloc(PAGES * sizeof *work->pages);
    if (work->x == NULL || work->y == NULL || work->weights == NULL || work->keys == NULL ||
        work->values == NULL || work->vectors == NULL || work->pages == NULL) {
        return false;
    }
    for (size_t i = 0; i < (size_t)SCAN_COUNT * SCAN_DIM; i++) {
        work->vectors[i] = (int8_t)(i * 2654435761u >> 24);
    }
    for (int32_t i = 0; i < PAGES; i++) {
        work->pages[i] = (i * 797) % PAGES; /* 797 is odd: every page once, scattered */
    }
    work->cache =
        (lore_pages){work->keys, work->values, LORE_F32, PAGES, PAGE_TOKENS, KV_HEADS, DIM};
    work->rope = (lore_rope){work->weights, work->weights, POSITIONS, HEADS,
                             work->weights, work->weights, 1e-6f};
    return true;
}

static void other_destroy(other_work *work)
{
    lore_free_aligned(work->x);
    lore_free_aligned(work->y);
    lore_free_aligned(work->weights);
    lore_free_aligned(work->keys);
    lore_free_aligned(work->values);
    lore_free_aligned(work->vectors);
    lore_free(work->pages);
}

/* `sequences` alike, each with `rows` new rows behind `past` ones. */
static void set_batch(other_work *work, int32_t sequences, int32_t rows, int32_t past)
{
    const int32_t pages = (past + rows + PAGE_TOKENS - 1) / PAGE_TOKENS;
    for (int32_t s = 0; s <= sequences; s++) {
        work->starts[s] = s * rows;
        work->past[s] = past;
        work->page_start[s] = s * pages;
    }
    work->batch = (lore_batch){sequences,        sequences * rows, work->starts, work->past,
                               work->page_start, work->pages,      rows,         past + rows};
}

static void attend_packed_body(bench *on, void *self)
{
    other_work *work = self;
    const int32_t rows = work->batch.rows;
    lore_op_attend_packed(on->queue, lore_view_of(work->y, rows, ENCODER_HEADS * DIM),
                          lore_view_of(work->x, rows, 3 * ENCODER_HEADS * DIM), ENCODER_HEADS,
                          work->batch.sequences, work->starts, work->batch.rows_max, 0.125f);
}

static void attend_paged_body(bench *on, void *self)
{
    other_work *work = self;
    const int32_t rows = work->batch.rows;
    lore_op_attend_paged(on->queue, lore_view_of(work->y, rows, HEADS * DIM),
                         lore_view_of(work->x, rows, HEADS * DIM), &work->cache, &work->batch,
                         0.125f);
}

static void rope_append_body(bench *on, void *self)
{
    other_work *work = self;
    lore_op_rope_append(on->queue,
                        lore_view_of(work->y, work->batch.rows, (HEADS + 2 * KV_HEADS) * DIM),
                        &work->rope, &work->cache, &work->batch);
}

static void layernorm_body(bench *on, void *self)
{
    other_work *work = self;
    lore_op_layernorm(on->queue, lore_view_of(work->y, ROWS, 384), lore_view_of(work->x, ROWS, 384),
                      work->weights, work->weights, 1e-12f);
}

static void rmsnorm_body(bench *on, void *self)
{
    other_work *work = self;
    lore_op_rmsnorm(on->queue, lore_view_of(work->y, 400, 512), lore_view_of(work->x, 400, 512),
                    work->weights, 1e-6f);
}

static void silu_mul_body(bench *on, void *self)
{
    other_work *work = self;
    lore_op_silu_mul(on->queue, lore_view_of(work->y, 400, 1536), lore_view_of(work->x, 400, 3072));
}

static void sample_greedy_body(bench *on, void *self)
{
    other_work *work = self;
    const lore_sample sample = {.top_p = 1.0f};
    int32_t id;
    float logprob;
    lore_op_sample(on->queue, &id, &logprob, lore_view_of(work->x, 1, VOCABULARY), &sample);
}

static void sample_top_p_body(bench *on, void *self)
{
    other_work *work = self;
    const lore_sample sample = {.temperature = 0.2f, .top_p = 0.9f, .top_k = 50};
    int32_t id;
    float logprob;
    lore_op_sample(on->queue, &id, &logprob, lore_view_of(work->x, 1, VOCABULARY), &sample);
}

static void scan_body(bench *on, void *self)
{
    other_work *work = self;
    lore_op_scan(on->queue, work->y, work->vectors, 0.01f, work->vectors, work->x, SCAN_COUNT,
                 SCAN_DIM);
}

typedef struct other_case {
    const char *name;
    bench_body body;
    int32_t sequences, rows, past; /* of set_batch; 0: none */
    double operations, bytes;
} other_case;

static const other_case other_cases[] = {
    {"attend_packed 4x200, 6 heads", attend_packed_body, 4, 200, 0, 4.0 * 4 * 200 * 200 * 384, 0.0},
    {"attend_packed 20x200, 6 heads", attend_packed_body, 20, 200, 0, 4.0 * 20 * 200 * 200 * 384,
     0.0},
    {"attend_packed 16x256, 6 heads", attend_packed_body, 16, 256, 0, 4.0 * 16 * 256 * 256 * 384,
     0.0},
    {"attend_paged prefill 400", attend_paged_body, 1, 400, 0, 2.0 * 400 * 401 * 512, 0.0},
    {"attend_paged decode 1, past 400", attend_paged_body, 1, 1, 400, 0.0, 2.0 * 401 * 128 * 4},
    {"attend_paged decode 8, past 400", attend_paged_body, 8, 1, 400, 0.0, 8 * 2.0 * 401 * 128 * 4},
    {"attend_paged decode 1, past 2000", attend_paged_body, 1, 1, 2000, 0.0, 2.0 * 2001 * 128 * 4},
    {"rope_append 400", rope_append_body, 1, 400, 0, 0.0, 400.0 * 768 * 4},
    {"layernorm 4096x384", layernorm_body, 0, 0, 0, 0.0, 2.0 * 4096 * 384 * 4},
    {"rmsnorm 400x512", rmsnorm_body, 0, 0, 0, 0.0, 2.0 * 400 * 512 * 4},
    {"silu_mul 400x1536", silu_mul_body, 0, 0, 0, 0.0, 3.0 * 400 * 1536 * 4},
    {"sample greedy 24576", sample_greedy_body, 0, 0, 0, 0.0, 4.0 * VOCABULARY},
    {"sample top_k 50, top_p .9", sample_top_p_body, 0, 0, 0, 0.0, 4.0 * VOCABULARY},
    {"scan 200000x384 int8", scan_body, 0, 0, 0, 0.0, 200000.0 * 388},
};

static lore_status bench_others(bench *on, lore_error *err)
{
    other_work work = {0};
    lore_status status = LORE_OK;
    if (!other_init(&work)) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for a benchmark");
    }
    for (size_t i = 0; i < sizeof other_cases / sizeof other_cases[0] && status == LORE_OK; i++) {
        const other_case *one = &other_cases[i];
        if (!is_wanted(on, one->name)) {
            continue;
        }
        set_batch(&work, one->sequences, one->rows, one->past);
        time_case(on, one->name, one->operations, one->bytes, one->body, &work);
    }
    other_destroy(&work);
    return status;
}

/* ---- all of it ---- */

static lore_status bench_precision(bench *on, lore_error *err)
{
    const lore_backend_options options = {.kind = LORE_BACKEND_CPU,
                                          .pool = on->pool,
                                          .precision = on->precision,
                                          .isa = on->options->isa};
    lore_status status = lore_backend_open(&options, &on->backend, err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_queue_open(on->backend, &on->queue, err);
    if (status == LORE_OK) {
        on->peak[on->precision] =
            lore_bench_peak(on->pool, lore_backend_describe(on->backend), on->precision);
        if (!on->options->is_json) {
            fprintf(on->options->out, "\n%s, matmul in %s: peak %.0f GOP/s, memory %.1f GB/s\n",
                    lore_backend_describe(on->backend), lore_precision_name(on->precision),
                    on->peak[on->precision] * 1e-9, on->read_peak * 1e-9);
        }
    }
    for (size_t i = 0; i < sizeof matmul_cases / sizeof matmul_cases[0] && status == LORE_OK; i++) {
        if (is_wanted(on, matmul_cases[i].name)) {
            status = bench_matmul(on, &matmul_cases[i], err);
        }
    }
    if (status == LORE_OK && on->precision == LORE_PRECISION_F32) {
        status = bench_others(on, err);
    }
    if (status == LORE_OK) {
        status = lore_queue_sync(on->queue, err);
    }
    lore_queue_close(on->queue);
    lore_backend_close(on->backend);
    on->queue = NULL;
    on->backend = NULL;
    return status;
}

lore_status lore_bench_ops(const lore_bench_ops_options *options, lore_error *err)
{
    LORE_ASSERT(options->out != NULL);
    bench on = {.options = options, .times = lore_alloc(TIMES_MAX * sizeof(double))};
    lore_status status = LORE_OK;
    if (on.times == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for a benchmark");
    }
    if (status == LORE_OK) {
        status = lore_pool_new(options->threads, &on.pool, err);
    }
    if (status == LORE_OK) {
        double median = 0.0;
        status = lore_bench_read_peak(on.pool, &on.read_peak, &median, err);
    }
    static const lore_precision precisions[] = {LORE_PRECISION_INT8, LORE_PRECISION_BF16,
                                                LORE_PRECISION_F32};
    for (int i = 0; i < 3 && status == LORE_OK; i++) {
        on.precision = precisions[i];
        status = bench_precision(&on, err);
    }
    lore_pool_free(on.pool);
    lore_free(on.times);
    return status;
}
