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
#include "kernels/search.h"

#include <stdlib.h>
#include <string.h>

enum { CASE_MS = 200, TIMES_MAX = 4096, VOCABULARY = 24576, GROUP = 128 };

typedef struct bench {
    const lore_bench_ops_options *options;
    lore_pool *pool;
    lore_backend *backend;
    lore_queue *queue;
    lore_precision precision;
    bool is_int4;     /* weights in groups of GROUP columns */
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

static const char *name_weights(const bench *on)
{
    return on->is_int4 ? "int4" : lore_precision_name(on->precision);
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
                name, name_weights(on), (int)lore_pool_size(on->pool), (int)runs, best * 1e6,
                median * 1e6, rate * 1e-9, peak > 0.0 ? rate / peak : 0.0, read_rate * 1e-9,
                read_rate / on->read_peak);
        return;
    }
    fprintf(out, "%-40s %-5s %10.1f us %10.1f us", name, name_weights(on), best * 1e6,
            median * 1e6);
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
    {"0.5B qkv 1x896x1152", 1, 896, 1152, false, false},
    {"0.5B out 1x896x896", 1, 896, 896, false, true},
    {"0.5B gate_up 1x896x9728", 1, 896, 9728, false, false},
    {"0.5B down 1x4864x896", 1, 4864, 896, false, true},
    {"0.5B head 1x896x151936", 1, 896, 151936, false, false},
    {"0.5B gate_up 16x896x9728", 16, 896, 9728, false, false},
    {"0.5B down 16x4864x896", 16, 4864, 896, false, true},
    {"0.5B head 16x896x151936", 16, 896, 151936, false, false},
    {"0.5B qkv 512x896x1152", 512, 896, 1152, false, false},
    {"0.5B gate_up 512x896x9728", 512, 896, 9728, false, false},
    {"0.5B down 512x4864x896", 512, 4864, 896, false, true},
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

/* Random weights of a case, I4 or f32. *scales: NULL where there are none. */
static void *random_weights(const bench *on, const matmul_case *shape, lore_matrix *matrix,
                            float **scales)
{
    const size_t rows = (size_t)shape->outs, cols = (size_t)shape->depth;
    *matrix = (lore_matrix){.dtype = LORE_F32, .rows = shape->outs, .cols = shape->depth};
    *scales = NULL;
    void *data;
    if (on->is_int4) {
        const size_t groups = (cols + GROUP - 1) / GROUP, bytes = rows * ((cols + 1) / 2);
        data = lore_alloc_aligned(bytes);
        for (size_t i = 0; data != NULL && i < bytes; i++) {
            ((uint8_t *)data)[i] = (uint8_t)(lore_random_next(&random_state) >> 56);
        }
        *scales = random_floats(rows * groups);
        matrix->dtype = LORE_I4;
        matrix->group = GROUP;
        matrix->scales = *scales;
    } else {
        data = random_floats(rows * cols);
    }
    matrix->data = data;
    return on->is_int4 && *scales == NULL ? NULL : data;
}

static lore_status bench_matmul(bench *on, const matmul_case *shape, lore_error *err)
{
    const size_t weights = (size_t)shape->outs * (size_t)shape->depth;
    lore_matrix matrix;
    float *scales = NULL;
    void *values = random_weights(on, shape, &matrix, &scales);
    float *x = random_floats((size_t)shape->rows * (size_t)shape->depth);
    float *out = random_floats((size_t)shape->rows * (size_t)shape->outs),
          *bias = random_floats((size_t)shape->outs);
    matmul_work work = {.epilogue = {bias, shape->has_gelu ? LORE_ACT_GELU : LORE_ACT_NONE,
                                     shape->is_accumulating}};
    lore_status status = LORE_OK;
    if (values == NULL || x == NULL || out == NULL || bias == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for a benchmark");
    }
    if (status == LORE_OK) {
        status = lore_weight_pack(on->backend, &matrix, 1, LORE_USE_MATMUL, &work.weight, err);
    }
    if (status == LORE_OK) {
        work.x = lore_view_of(x, shape->rows, shape->depth);
        work.out = lore_view_of(out, shape->rows, shape->outs);
        const double bytes = shape->rows <= 8 ? (double)lore_weight_bytes(work.weight) : 0.0;
        time_case(on, shape->name, 2.0 * shape->rows * (double)weights, bytes, matmul_body, &work);
    }
    lore_weight_free(work.weight);
    lore_free_aligned((void *)(uintptr_t)matrix.data);
    lore_free_aligned(scales);
    lore_free_aligned(x);
    lore_free_aligned(out);
    lore_free_aligned(bias);
    return status;
}

/* ---- the others: one set of buffers, large enough for all ---- */

enum {
    ROWS = 4096,
    PAGE_TOKENS = 16,
    PAGES = 1024,
    POSITIONS = 4096,
    SEQUENCES_MAX = 32,
    OTHER_FLOATS = ROWS * 3072,
    CACHE_FLOATS = PAGES * PAGE_TOKENS * 8 * 128, /* of the widest cache */
    SCAN_COUNT = 200000,
    SCAN_DIM = 384
};

/* An attention: `sequences` alike, each with `rows` new rows behind `past` ones. Packed without
 * pages; paged keys are f32, or bf16 where the precision is. */
typedef struct attention_case {
    const char *name;
    bool is_packed, is_causal;
    int32_t heads, kv_heads, dim, sequences, rows, past, window;
} attention_case;

static const attention_case attention_cases[] = {
    {"attend_packed 20x200, 6x64", true, false, 6, 6, 64, 20, 200, 0, 0},
    {"attend_packed 16x256, 6x64", true, false, 6, 6, 64, 16, 256, 0, 0},
    {"attend_packed 32x128, 12x32", true, false, 12, 12, 32, 32, 128, 0, 0},
    {"attend_packed 2x1024, 12x64, window 64", true, false, 12, 12, 64, 2, 1024, 0, 64},
    {"attend_packed 4x512 causal, 14:2x64", true, true, 14, 2, 64, 4, 512, 0, 0},
    {"attend_paged prefill 400, 8:2x64", false, true, 8, 2, 64, 1, 400, 0, 0},
    {"attend_paged prefill 512, 14:2x64", false, true, 14, 2, 64, 1, 512, 0, 0},
    {"attend_paged prefill 2048, 14:2x64", false, true, 14, 2, 64, 1, 2048, 0, 0},
    {"attend_paged prefill 512, 16:8x128", false, true, 16, 8, 128, 1, 512, 0, 0},
    {"attend_paged prefill 2048, 16:8x128", false, true, 16, 8, 128, 1, 2048, 0, 0},
    {"attend_paged 2048, 16:8x128, window 256", false, true, 16, 8, 128, 1, 2048, 0, 256},
    {"attend_paged decode 1 at 400, 8:2x64", false, true, 8, 2, 64, 1, 1, 400, 0},
    {"attend_paged decode 1 at 2048, 14:2x64", false, true, 14, 2, 64, 1, 1, 2048, 0},
    {"attend_paged decode 8 at 400, 14:2x64", false, true, 14, 2, 64, 8, 1, 400, 0},
    {"attend_paged decode 16 at 900, 14:2x64", false, true, 14, 2, 64, 16, 1, 900, 0},
    {"attend_paged decode 1 at 2048, 16:8x128", false, true, 16, 8, 128, 1, 1, 2048, 0},
    {"attend_paged decode 1 at 2048, 8:1x256", false, true, 8, 1, 256, 1, 1, 2048, 0},
};

typedef struct other_work {
    float *x, *y, *weights, *keys, *values;
    int8_t *vectors;
    int32_t *pages, starts[SEQUENCES_MAX + 1], past[SEQUENCES_MAX], page_start[SEQUENCES_MAX + 1];
    const attention_case *shape;
    lore_batch batch;
    lore_pages cache;
} other_work;

static bool other_init(other_work *work)
{
    work->x = random_floats(OTHER_FLOATS);
    work->y = random_floats(OTHER_FLOATS);
    work->weights = random_floats(POSITIONS * 64);
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

static void set_attention(other_work *work, const attention_case *shape, lore_dtype dtype)
{
    const int32_t pages = (shape->past + shape->rows + PAGE_TOKENS - 1) / PAGE_TOKENS;
    LORE_ASSERT(shape->sequences <= SEQUENCES_MAX && shape->sequences * pages <= PAGES);
    for (int32_t s = 0; s <= shape->sequences; s++) {
        work->starts[s] = s * shape->rows;
        work->page_start[s] = s * pages;
    }
    for (int32_t s = 0; s < shape->sequences; s++) {
        work->past[s] = shape->past;
    }
    work->shape = shape;
    work->batch = (lore_batch){shape->sequences, shape->sequences * shape->rows,
                               work->starts,     work->past,
                               work->page_start, work->pages,
                               shape->rows,      shape->past + shape->rows};
    work->cache = (lore_pages){work->keys,  work->values,    dtype,     PAGES,
                               PAGE_TOKENS, shape->kv_heads, shape->dim};
}

static void attend_body(bench *on, void *self)
{
    other_work *work = self;
    const attention_case *shape = work->shape;
    const int32_t rows = work->batch.rows, cols = shape->heads * shape->dim;
    const int32_t wide = cols + 2 * shape->kv_heads * shape->dim;
    const lore_attention attention = {.scale = 0.125f, .window = shape->window};
    const lore_view out = lore_view_of(work->y, rows, cols);
    if (shape->is_packed) {
        lore_op_attend_packed(on->queue, out, lore_view_of(work->x, rows, wide), shape->heads,
                              shape->kv_heads, shape->sequences, work->starts, shape->rows,
                              shape->is_causal, &attention);
    } else {
        const lore_view queries = lore_view_columns(lore_view_of(work->x, rows, wide), 0, cols);
        lore_op_attend_paged(on->queue, out, queries, &work->cache, &work->batch, &attention);
    }
}

/* Keys that all rows of a sequence see together. */
static double pairs_of(const attention_case *shape)
{
    double pairs = 0.0;
    for (int32_t p = shape->past; p < shape->past + shape->rows; p++) {
        const int32_t window = shape->window > 0 ? shape->window : INT32_MAX;
        const int32_t last = shape->past + shape->rows - 1 - p;
        const int32_t behind = p < window - shape->is_causal ? p : window - shape->is_causal;
        const int32_t ahead = shape->is_causal ? 0 : last < window ? last : window;
        pairs += behind + 1 + ahead;
    }
    return pairs;
}

static void bench_attention(bench *on, other_work *work)
{
    const bool is_bf16 = on->precision == LORE_PRECISION_BF16;
    for (size_t i = 0; i < sizeof attention_cases / sizeof attention_cases[0]; i++) {
        const attention_case *shape = &attention_cases[i];
        if (!is_wanted(on, shape->name)) {
            continue;
        }
        set_attention(work, shape, is_bf16 ? LORE_BF16 : LORE_F32);
        const double pairs = shape->sequences * pairs_of(shape);
        const double operations = 4.0 * pairs * shape->heads * shape->dim;
        const double read = 2.0 * pairs * shape->kv_heads * shape->dim * (is_bf16 ? 2 : 4);
        time_case(on, shape->name, operations, shape->rows == 1 ? read : 0.0, attend_body, work);
    }
}

/* Qwen2-0.5B, a prefill of 512 rows and a step of one. */
static void rope_append_rows(bench *on, other_work *work, int32_t rows, bool has_norms)
{
    static const attention_case shape = {"rope", false, true, 14, 2, 64, 1, 512, 0, 0};
    set_attention(work, &shape, on->precision == LORE_PRECISION_BF16 ? LORE_BF16 : LORE_F32);
    work->batch.rows = rows;
    work->starts[1] = rows;
    const float *norm = has_norms ? work->weights : NULL;
    const lore_rope rope = {work->weights, work->weights, POSITIONS, NULL, 14, 64,
                            norm,          norm,          1e-6f};
    lore_op_rope_append(on->queue, lore_view_of(work->y, rows, 18 * 64), &rope, &work->cache,
                        &work->batch);
}

static void rope_append_body(bench *on, void *self)
{
    rope_append_rows(on, self, 512, false);
}

static void rope_append_one_body(bench *on, void *self)
{
    rope_append_rows(on, self, 1, false);
}

static void rope_norm_body(bench *on, void *self)
{
    rope_append_rows(on, self, 512, true);
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
    lore_op_rmsnorm(on->queue, lore_view_of(work->y, 512, 896), lore_view_of(work->x, 512, 896),
                    work->weights, 1e-6f);
}

static void rmsnorm_one_body(bench *on, void *self)
{
    other_work *work = self;
    lore_op_rmsnorm(on->queue, lore_view_of(work->y, 1, 896), lore_view_of(work->x, 1, 896),
                    work->weights, 1e-6f);
}

static void glu_as(bench *on, const other_work *work, int32_t rows, lore_activation activation)
{
    lore_op_glu(on->queue, lore_view_of(work->y, rows, 4864), lore_view_of(work->x, rows, 2 * 4864),
                activation);
}

static void glu_silu_body(bench *on, void *self)
{
    glu_as(on, self, 512, LORE_ACT_SILU);
}

static void glu_silu_one_body(bench *on, void *self)
{
    glu_as(on, self, 1, LORE_ACT_SILU);
}

static void glu_gelu_body(bench *on, void *self)
{
    glu_as(on, self, 512, LORE_ACT_GELU);
}

static void glu_gelu_tanh_body(bench *on, void *self)
{
    glu_as(on, self, 512, LORE_ACT_GELU_TANH);
}

static void add_body(bench *on, void *self)
{
    other_work *work = self;
    lore_op_add(on->queue, lore_view_of(work->y, 512, 896), lore_view_of(work->x, 512, 896));
}

static void softcap_body(bench *on, void *self)
{
    other_work *work = self;
    lore_op_softcap(on->queue, lore_view_of(work->y, 1, 256000), 30.0f);
}

static void sample_greedy_body(bench *on, void *self)
{
    other_work *work = self;
    const lore_sample sample = {.top_p = 1.0f};
    int32_t id;
    float logprob;
    lore_op_sample(on->queue, &id, &logprob, lore_view_of(work->x, 1, VOCABULARY), &sample,
                   lore_drawing_of(&sample, 1));
}

static void sample_top_p_body(bench *on, void *self)
{
    other_work *work = self;
    const lore_sample sample = {.temperature = 0.2f, .top_p = 0.9f, .top_k = 50};
    int32_t id;
    float logprob;
    lore_op_sample(on->queue, &id, &logprob, lore_view_of(work->x, 1, VOCABULARY), &sample,
                   lore_drawing_of(&sample, 1));
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
    double bytes;
} other_case;

static const other_case other_cases[] = {
    {"rope_append 512, 14:2x64", rope_append_body, 512.0 * 2 * 18 * 64 * 4},
    {"rope_append 1, 14:2x64", rope_append_one_body, 2.0 * 18 * 64 * 4},
    {"rope_append 512, 14:2x64, norms", rope_norm_body, 512.0 * 2 * 18 * 64 * 4},
    {"layernorm 4096x384", layernorm_body, 2.0 * 4096 * 384 * 4},
    {"rmsnorm 512x896", rmsnorm_body, 2.0 * 512 * 896 * 4},
    {"rmsnorm 1x896", rmsnorm_one_body, 2.0 * 896 * 4},
    {"glu silu 512x4864", glu_silu_body, 3.0 * 512 * 4864 * 4},
    {"glu silu 1x4864", glu_silu_one_body, 3.0 * 4864 * 4},
    {"glu gelu 512x4864", glu_gelu_body, 3.0 * 512 * 4864 * 4},
    {"glu gelu_tanh 512x4864", glu_gelu_tanh_body, 3.0 * 512 * 4864 * 4},
    {"add 512x896", add_body, 3.0 * 512 * 896 * 4},
    {"softcap 1x256000", softcap_body, 2.0 * 256000 * 4},
    {"sample greedy 24576", sample_greedy_body, 4.0 * VOCABULARY},
    {"sample top_k 50, top_p .9", sample_top_p_body, 4.0 * VOCABULARY},
    {"scan 200000x384 int8", scan_body, 200000.0 * 388},
};

static lore_status bench_others(bench *on, lore_error *err)
{
    other_work work = {0};
    lore_status status = LORE_OK;
    if (!other_init(&work)) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for a benchmark");
    }
    if (status == LORE_OK) {
        bench_attention(on, &work);
    }
    for (size_t i = 0; i < sizeof other_cases / sizeof other_cases[0] && status == LORE_OK; i++) {
        const other_case *one = &other_cases[i];
        if (is_wanted(on, one->name) && on->precision == LORE_PRECISION_F32) {
            time_case(on, one->name, 0.0, one->bytes, one->body, &work);
        }
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
                    lore_backend_describe(on->backend), name_weights(on),
                    on->peak[on->precision] * 1e-9, on->read_peak * 1e-9);
        }
    }
    for (size_t i = 0; i < sizeof matmul_cases / sizeof matmul_cases[0] && status == LORE_OK; i++) {
        if (is_wanted(on, matmul_cases[i].name)) {
            status = bench_matmul(on, &matmul_cases[i], err);
        }
    }
    if (status == LORE_OK && on->precision != LORE_PRECISION_INT8) {
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
    static const lore_precision precisions[] = {LORE_PRECISION_INT8, LORE_PRECISION_INT8,
                                                LORE_PRECISION_BF16, LORE_PRECISION_F32};
    for (int i = 0; i < 4 && status == LORE_OK; i++) {
        on.precision = precisions[i];
        on.is_int4 = i == 0;
        status = bench_precision(&on, err);
    }
    lore_pool_free(on.pool);
    lore_free(on.times);
    return status;
}
