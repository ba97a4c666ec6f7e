/* Attention of an accelerator against ref where it matters for speed: many rows over pages
 * (prefill, with and without tokens already there), queries and results in the dtype that passes
 * between ops, and packed sequences as encoders have them. Shapes are ragged around the tiles of
 * the kernels; page lists are shuffled; what lies behind the tokens of a sequence, on pages of
 * nobody and between the rows of a view is NaN: it must neither be seen nor written. Speeds are
 * printed, not checked. LORE_TEST_BACKEND (ref, cpu, cuda) names another backend. */
#include "tests/ops/attention_cases.h"

enum { MANY_MAX = 3 };
static const uint16_t BF16_NAN = 0x7fc0;

/* ---- many rows over pages ---- */

typedef struct many_shape {
    int32_t sequences, rows[MANY_MAX], past[MANY_MAX];
    int32_t group, kv_heads, head_dim, page_tokens, window;
    int32_t gap; /* between rows of views */
    lore_dtype dtype;
} many_shape;

static plan plan_of(const many_shape *shape)
{
    plan made = {.sequences = shape->sequences, .page_tokens = shape->page_tokens};
    for (int32_t s = 0; s < shape->sequences; s++) {
        const int32_t rows = shape->rows[s], context = shape->past[s] + rows;
        made.past[s] = shape->past[s];
        made.row_start[s + 1] = made.row_start[s] + rows;
        made.page_start[s + 1] =
            made.page_start[s] + (context + shape->page_tokens - 1) / shape->page_tokens;
        made.rows_max = rows > made.rows_max ? rows : made.rows_max;
        made.context_max = context > made.context_max ? context : made.context_max;
    }
    made.page_count = made.page_start[shape->sequences] + 3;
    CHECK(made.page_count <= PAGES_MAX);
    shuffle(made.pages, made.page_count);
    return made;
}

/* Keys or values in bf16: random where a sequence has tokens, NaN elsewhere. */
static uint16_t *random_pages(const many_shape *shape, const plan *from)
{
    const int32_t tokens = shape->page_tokens, dim = shape->head_dim, heads = shape->kv_heads;
    const size_t count = (size_t)from->page_count * (size_t)(heads * tokens * dim);
    uint16_t *pages = host_new(count * sizeof *pages);
    for (size_t i = 0; i < count; i++) {
        pages[i] = BF16_NAN;
    }
    for (int32_t s = 0; s < shape->sequences; s++) {
        for (int32_t t = 0; t < shape->past[s] + shape->rows[s]; t++) {
            const size_t page = (size_t)from->pages[from->page_start[s] + t / tokens];
            for (int32_t g = 0; g < heads; g++) {
                uint16_t *to = pages + ((page * (size_t)heads + (size_t)g) * (size_t)tokens +
                                        (size_t)(t % tokens)) *
                                           (size_t)dim;
                for (int32_t c = 0; c < dim; c++) {
                    to[c] = lore_f32_to_bf16(random_value());
                }
            }
        }
    }
    return pages;
}

/* Pages that no row's window reaches may have become anybody's: here they are nobody's. */
static void forget_pages(const many_shape *shape, plan *of)
{
    for (int32_t s = 0; s < shape->sequences && shape->window > 0; s++) {
        const int32_t first = shape->past[s] - shape->window + 1;
        for (int32_t i = 0; i < first / shape->page_tokens; i++) {
            of->pages[of->page_start[s] + i] = of->pages[of->page_start[shape->sequences]];
        }
    }
}

static lore_dtype dtype_for(const side *at, lore_dtype wanted)
{
    return wanted == lore_backend_activation_dtype(at->backend) ? wanted : LORE_F32;
}

/* What one side makes of it. */
static float *attend_many(const side *at, const many_shape *shape, const plan *host,
                          const float *queries, const uint16_t *keys, const uint16_t *values)
{
    const int32_t dim = shape->head_dim, heads = shape->group * shape->kv_heads;
    const int32_t rows = host->row_start[host->sequences],
                  cols = (heads + 2 * shape->kv_heads) * dim;
    const lore_dtype dtype = dtype_for(at, shape->dtype);
    plan_copy copy = plan_upload(at, host);
    cache pages = cache_new(at, host, keys, values, LORE_BF16, shape->kv_heads, dim);
    grid in = grid_typed(at, dtype, NAN, queries, rows, cols, shape->gap),
         out = grid_typed(at, dtype, NAN, NULL, rows, heads * dim, shape->gap);
    copy.batch.context_max += 100; /* a bound */
    lore_op_attend_paged(at->queue, out.view, lore_view_columns(in.view, 0, heads * dim),
                         &pages.pages, &copy.batch,
                         &(lore_attention){.scale = ATTENTION_SCALE, .window = shape->window});
    float *result = grid_take(at, &out);
    lore_free(grid_take(at, &in));
    lore_free(cache_take(at, &pages));
    lore_backend_free(at->backend, copy.memory);
    return result;
}

/* Results that are stored in bf16 may be off by a unit of it, 2^-8 of themselves: rows that see few
 * keys are some twenty times as large as the root mean square, which alone is .04 to .09 of it (as
 * the same sums in f64 have it, weights and results rounded). What is left is bound as everywhere,
 * and the root mean square of all differences by some times what those roundings make of it, which
 * is .0022 at most. Frees both. */
static void compare_stored(const subject *on, const char *what, lore_dtype dtype, float *got,
                           float *want, size_t count)
{
    static const double RMS_MAX = 5e-3;
    double squares = 0.0, wanted = 0.0;
    for (size_t i = 0; i < count; i++) {
        const double difference = (double)got[i] - (double)want[i];
        squares += difference * difference;
        wanted += (double)want[i] * (double)want[i];
        if (dtype == LORE_BF16) { /* a NaN stays one */
            const double unit = ldexp(fabs((double)want[i]), -8), off = fabs(difference);
            got[i] = off <= unit ? want[i] : got[i] - (float)copysign(unit, difference);
        }
    }
    if (!(sqrt(squares) <= RMS_MAX * sqrt(wanted))) {
        CHECK_STOP("%s on %s: RMS error %.3g, allowed %.3g", what, on->name, sqrt(squares / wanted),
                   RMS_MAX);
    }
    compare(on, what, got, want, count, TOLERANCE_BF16_ATTEND);
}

static void check_many(const subject *on, const many_shape *shape)
{
    plan host = plan_of(shape);
    const int32_t heads = shape->group * shape->kv_heads, rows = host.row_start[host.sequences];
    const size_t cols = (size_t)((heads + 2 * shape->kv_heads) * shape->head_dim);
    float *queries = random_floats((size_t)rows * cols);
    uint16_t *keys = random_pages(shape, &host), *values = random_pages(shape, &host);
    round_inputs(on, queries, (size_t)rows * cols);
    forget_pages(shape, &host);
    float *want = attend_many(&on->ref, shape, &host, queries, keys, values);
    float *got = attend_many(&on->test, shape, &host, queries, keys, values);
    lore_free(queries);
    lore_free(keys);
    lore_free(values);
    char what[200];
    snprintf(what, sizeof what,
             "attend_paged, rows %d %d %d behind %d %d %d, %d x %d heads of %d, pages of %d, "
             "window %d, gap %d, %s",
             shape->rows[0], shape->rows[1], shape->rows[2], shape->past[0], shape->past[1],
             shape->past[2], shape->group, shape->kv_heads, shape->head_dim, shape->page_tokens,
             shape->window, shape->gap, lore_dtype_name(shape->dtype));
    compare_stored(on, what, dtype_for(&on->test, shape->dtype), got, want,
                   (size_t)rows * (size_t)(heads * shape->head_dim));
}

static void cases_many_rows(const subject *on)
{
    for (int i = 0; i < 40; i++) {
        many_shape shape = {
            .sequences = 1 + i % 3,
            .group = PICK(1, 4, 8),
            .kv_heads = PICK(1, 2),
            .head_dim = i % 8 == 7 ? PICK(32, 80, 96) : PICK(64, 128),
            .page_tokens = PICK(8, 16, 32, 32, 64, 128),
            .window = i % 5 < 4 ? 0 : PICK(1, 31, 100, 128, 1000),
            .gap = i % 7 < 6 ? 8 : 5,
            .dtype = i % 2 == 0 ? LORE_F32 : LORE_BF16,
        };
        for (int32_t s = 0; s < shape.sequences; s++) {
            shape.rows[s] = PICK(1, 2, 17, 63, 64, 65, 127, 128, 129, 300);
            shape.past[s] = PICK(0, 1, 31, 32, 100, 500);
        }
        check_many(on, &shape);
    }
    static const many_shape large[] = {
        {1, {300}, {0}, 4, 2, 128, 32, 0, 8, LORE_F32},
        {1, {300}, {0}, 4, 2, 64, 32, 0, 8, LORE_BF16},
        /* long contexts: few rows share out their keys */
        {1, {33}, {4000}, 4, 1, 128, 32, 0, 8, LORE_BF16},
        {1, {129}, {4000}, 1, 1, 64, 32, 0, 8, LORE_F32},
        {2, {32, 1}, {2048, 3000}, 4, 2, 128, 32, 0, 8, LORE_BF16},
        {1, {64}, {4000}, 1, 2, 128, 16, 1500, 8, LORE_F32},
        /* decoding rows beside pieces of prompts */
        {3, {1, 200, 1}, {700, 31, 5}, 4, 2, 128, 32, 0, 8, LORE_BF16},
        {3, {2, 3, 128}, {64, 65, 4000}, 8, 1, 64, 32, 0, 8, LORE_F32},
    };
    for (size_t i = 0; i < sizeof large / sizeof large[0]; i++) {
        check_many(on, &large[i]);
    }
}

/* Single rows behind contexts around tiles, parts and pages. The keys of a sequence are shared out
 * among blocks, and whichever ends last merges: a second run has the same bits, and so has a row
 * whose neighbours have other contexts, where the bounds of the launch are the same. */
static void cases_decode(const subject *on)
{
    for (int i = 0; i < 24; i++) {
        many_shape shape = {
            .sequences = MANY_MAX,
            .rows = {1, 1, 1},
            .past = {3000, PICK(0, 1, 62, 63, 64, 511, 1023), PICK(127, 128, 700, 2047, 2048)},
            .group = PICK(1, 4, 8, 16),
            .kv_heads = PICK(1, 2),
            .head_dim = i % 4 == 3 ? PICK(32, 80, 96, 256) : PICK(64, 128),
            .page_tokens = PICK(32, 64),
            .window = i % 6 == 5 ? 600 : 0,
            .gap = 8,
            .dtype = i % 2 == 0 ? LORE_BF16 : LORE_F32,
        };
        check_many(on, &shape);
        plan host = plan_of(&shape);
        const int32_t heads = shape.group * shape.kv_heads, cols = heads * shape.head_dim;
        float *queries =
                  random_floats((size_t)(MANY_MAX * (heads + 2 * shape.kv_heads) * shape.head_dim)),
              *results[3];
        uint16_t *keys = random_pages(&shape, &host), *values = random_pages(&shape, &host);
        for (int pass = 0; pass < 3; pass++) {
            host.past[2] -= pass == 2 ? 100 : 0;
            results[pass] = attend_many(&on->test, &shape, &host, queries, keys, values);
        }
        CHECK(memcmp(results[0], results[1], (size_t)(MANY_MAX * cols) * sizeof(float)) == 0);
        CHECK(memcmp(results[0], results[2], (size_t)(2 * cols) * sizeof(float)) == 0);
        for (int pass = 0; pass < 3; pass++) {
            lore_free(results[pass]);
        }
        lore_free(queries);
        lore_free(keys);
        lore_free(values);
    }
}

/* A NaN among the keys is for the rows that see it, no other: rows before it are as they were. */
static void cases_many_not_finite(const subject *on)
{
    const many_shape shape = {1, {400}, {100}, 4, 1, 128, 32, 0, 8, LORE_F32};
    enum { BAD = 300 };
    const plan host = plan_of(&shape);
    const size_t cols = (size_t)(6 * shape.head_dim);
    float *queries = random_floats((size_t)shape.rows[0] * cols), *results[2];
    uint16_t *keys = random_pages(&shape, &host), *values = random_pages(&shape, &host);
    for (int pass = 0; pass < 2; pass++) {
        results[pass] = attend_many(&on->test, &shape, &host, queries, keys, values);
        const size_t page = (size_t)host.pages[BAD / shape.page_tokens];
        const int32_t token = BAD % shape.page_tokens;
        keys[(page * (size_t)shape.page_tokens + (size_t)token) * (size_t)shape.head_dim] =
            BF16_NAN;
    }
    for (int32_t i = 0; i < shape.rows[0] * 4 * shape.head_dim; i++) {
        const bool is_seeing = shape.past[0] + i / (4 * shape.head_dim) >= BAD;
        CHECK(is_seeing ? isnan(results[1][i]) != 0 : results[1][i] == results[0][i]);
    }
    lore_free(queries);
    lore_free(keys);
    lore_free(values);
    lore_free(results[0]);
    lore_free(results[1]);
}

/* ---- packed sequences in the dtype between ops ---- */

static void check_packed_dtype(const subject *on, int32_t group, int32_t dim, int32_t gap,
                               bool is_causal)
{
    enum { PACKED = 4 };
    int32_t starts[PACKED + 1] = {0}, rows_max = 0;
    for (int32_t s = 0; s < PACKED; s++) {
        const int32_t rows = PICK(0, 1, 31, 63, 64, 65, 128, 129);
        starts[s + 1] = starts[s] + rows;
        rows_max = rows > rows_max ? rows : rows_max;
    }
    const int32_t heads = 2 * group, rows = starts[PACKED], cols = (heads + 4) * dim;
    float *x = random_floats((size_t)rows * (size_t)cols), *results[2];
    round_inputs(on, x, (size_t)rows * (size_t)cols);
    int which = 0;
    ON_BOTH(on, at)
    {
        const lore_dtype dtype = dtype_for(at, LORE_BF16);
        grid in = grid_typed(at, dtype, NAN, x, rows, cols, gap),
             out = grid_typed(at, dtype, NAN, NULL, rows, heads * dim, gap);
        int32_t *own = upload(at, starts, sizeof starts);
        lore_op_attend_packed(at->queue, out.view, in.view, heads, 2, PACKED, own, rows_max,
                              is_causal, &(lore_attention){.scale = ATTENTION_SCALE});
        results[which++] = grid_take(at, &out);
        lore_free(grid_take(at, &in));
        lore_backend_free(at->backend, own);
    }
    lore_free(x);
    char what[100];
    snprintf(what, sizeof what, "attend_packed %d rows, %d heads of %d, gap %d%s", rows, heads, dim,
             gap, is_causal ? ", causal" : "");
    compare_stored(on, what, dtype_for(&on->test, LORE_BF16), results[1], results[0],
                   (size_t)rows * (size_t)(heads * dim));
}

static void cases_packed_dtype(const subject *on)
{
    for (int i = 0; i < 24; i++) {
        check_packed_dtype(on, PICK(1, 3), PICK(15, 32, 64, 128), i % 3 == 2 ? 5 : 8, i % 4 == 3);
    }
}

/* ---- speed ---- */

/* Rows of values that a product with them is work for: a million random ones, again and again. */
static void *repeated_values(lore_dtype dtype, size_t count)
{
    enum { PERIOD = 1 << 20 };
    float *values = random_floats(PERIOD);
    char *once = store_as(dtype, values, PERIOD);
    char *data = host_new(count * lore_dtype_size(dtype));
    const size_t period = PERIOD * lore_dtype_size(dtype), all = count * lore_dtype_size(dtype);
    for (size_t at = 0; at < all; at += period) {
        memcpy(data + at, once, all - at < period ? all - at : period);
    }
    lore_free(values);
    lore_free(once);
    return data;
}

static lore_view view_of_values(const side *at, lore_dtype dtype, int32_t rows, int32_t cols)
{
    void *host = repeated_values(dtype, (size_t)rows * (size_t)cols);
    void *memory = upload(at, host, (size_t)rows * (size_t)cols * lore_dtype_size(dtype));
    sync(at);
    lore_free(host);
    return lore_view_as(dtype, memory, rows, cols);
}

static void print_many(const subject *on, const many_shape *shape)
{
    enum { TIMES = 20, BEST_OF = 5 };
    const side *at = &on->test;
    const plan host = plan_of(shape);
    const int32_t dim = shape->head_dim, heads = shape->group * shape->kv_heads,
                  rows = host.row_start[host.sequences];
    const lore_dtype dtype = dtype_for(at, shape->dtype);
    const lore_view pool = view_of_values(at, LORE_BF16, 2 * host.page_count * shape->page_tokens,
                                          shape->kv_heads * dim);
    const lore_view in = view_of_values(at, dtype, rows, (heads + 2 * shape->kv_heads) * dim),
                    out = view_of_values(at, dtype, rows, heads * dim);
    char *keys = (char *)(void *)pool.data, *values = keys + (size_t)pool.rows * (size_t)pool.cols;
    const lore_pages pages = {
        keys, /* values: half of the rows further, two bytes each */
        values, LORE_BF16, host.page_count, shape->page_tokens, shape->kv_heads, dim};
    plan_copy copy = plan_upload(at, &host);
    double flops = 0.0, best = 1e30;
    for (int32_t s = 0; s < shape->sequences; s++) {
        for (int32_t r = 0; r < shape->rows[s]; r++) {
            flops += 4.0 * dim * heads * (shape->past[s] + r + 1);
        }
    }
    for (int i = 0; i < BEST_OF; i++) {
        sync(at);
        const int64_t start = lore_clock_ns();
        for (int k = 0; k < TIMES; k++) {
            lore_op_attend_paged(at->queue, out, lore_view_columns(in, 0, heads * dim), &pages,
                                 &copy.batch, &(lore_attention){.scale = 0.1f});
        }
        sync(at);
        const double seconds = (double)(lore_clock_ns() - start) * 1e-9 / TIMES;
        best = seconds < best ? seconds : best;
    }
    printf("attention of %d x %d rows behind %d, %d x %d heads of %d, %s: %.1f us, %.0f TFLOP/s\n",
           shape->sequences, shape->rows[0], shape->past[0], shape->group, shape->kv_heads, dim,
           lore_dtype_name(dtype), best * 1e6, flops / best * 1e-12);
    lore_backend_free(at->backend, pool.data);
    lore_backend_free(at->backend, in.data);
    lore_backend_free(at->backend, out.data);
    lore_backend_free(at->backend, copy.memory);
}

/* Packs of an encoder of 384 columns: 256 sequences of 128 tokens, 12 heads of 32. */
static void print_packed(const subject *on, lore_dtype wanted)
{
    enum { TIMES = 20, CHUNKS = 256, TOKENS = 128, HEADS = 12, DIM = 32 };
    const side *at = &on->test;
    const lore_dtype dtype = dtype_for(at, wanted);
    int32_t starts[CHUNKS + 1];
    for (int32_t i = 0; i <= CHUNKS; i++) {
        starts[i] = i * TOKENS;
    }
    const lore_view in = view_of_values(at, dtype, CHUNKS * TOKENS, 3 * HEADS * DIM),
                    out = view_of_values(at, dtype, CHUNKS * TOKENS, HEADS * DIM);
    int32_t *own = upload(at, starts, sizeof starts);
    double best = 1e30;
    for (int i = 0; i < 5; i++) {
        sync(at);
        const int64_t start = lore_clock_ns();
        for (int k = 0; k < TIMES; k++) {
            lore_op_attend_packed(at->queue, out, in, HEADS, HEADS, CHUNKS, own, TOKENS, false,
                                  &(lore_attention){.scale = 0.1f});
        }
        sync(at);
        const double seconds = (double)(lore_clock_ns() - start) * 1e-9 / TIMES;
        best = seconds < best ? seconds : best;
    }
    printf("attention of %d chunks of %d tokens, %d heads of %d, %s: %.2f us a chunk and layer\n",
           CHUNKS, TOKENS, HEADS, DIM, lore_dtype_name(dtype), best * 1e6 / CHUNKS);
    lore_backend_free(at->backend, in.data);
    lore_backend_free(at->backend, out.data);
    lore_backend_free(at->backend, own);
}

static void cases_speed(const subject *on)
{
    if (!is_on_device(on)) {
        CHECK_SKIP("speed is the GPU's");
    }
    static const many_shape shapes[] = {
        {1, {4096}, {0}, 4, 8, 128, 32, 0, 0, LORE_BF16},
        {1, {4096}, {0}, 4, 8, 128, 32, 0, 0, LORE_F32},
        {1, {2048}, {0}, 4, 8, 128, 32, 0, 0, LORE_BF16},
        {1, {2048}, {2048}, 4, 8, 128, 32, 0, 0, LORE_BF16},
        {1, {512}, {2048}, 4, 8, 128, 32, 0, 0, LORE_BF16},
        {1, {32}, {2048}, 4, 8, 128, 32, 0, 0, LORE_BF16},
        {3, {450, 450, 450}, {0, 0, 0}, 4, 8, 128, 32, 0, 0, LORE_BF16},
        {1, {4096}, {0}, 4, 8, 64, 32, 0, 0, LORE_BF16},
        {3, {1, 1, 1}, {2048, 2048, 2048}, 4, 8, 128, 32, 0, 0, LORE_BF16},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        print_many(on, &shapes[i]);
    }
    print_packed(on, LORE_BF16);
    print_packed(on, LORE_F32);
}

static void run(void (*cases)(const subject *on))
{
    subject on;
    subject_of_run(&on, LORE_PRECISION_BF16);
    cases(&on);
    subject_close(&on);
}

#define GPU_TEST(name, cases) \
    TEST(name)                \
    {                         \
        run(cases);           \
    }

GPU_TEST(gpu_many_rows, cases_many_rows)
GPU_TEST(gpu_decode, cases_decode)
GPU_TEST(gpu_many_rows_not_finite, cases_many_not_finite)
GPU_TEST(gpu_packed_dtype, cases_packed_dtype)
GPU_TEST(gpu_attention_speed, cases_speed)

CHECK_MAIN(gpu_many_rows, gpu_decode, gpu_many_rows_not_finite, gpu_packed_dtype,
           gpu_attention_speed)
