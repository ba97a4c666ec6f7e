/* What an encoder's packs are made of on an accelerator, against ref: the sum of a post-norm family
 * with its norm and its rounding, and products of many rows from bf16 to bf16 with bias and
 * activation. cuda, or the backend that LORE_TEST_BACKEND names (ref, cpu), where what passes
 * between two ops is f32. */
#include "tests/ops/matmul_cases.h"

static lore_backend_kind kind_of_run(void)
{
    const char *name = getenv("LORE_TEST_BACKEND");
    if (name != NULL && strcmp(name, "ref") == 0) {
        return LORE_BACKEND_REF;
    }
    return name != NULL && strcmp(name, "cpu") == 0 ? LORE_BACKEND_CPU : LORE_BACKEND_CUDA;
}

static void run(void (*cases)(const subject *on))
{
    const lore_backend_kind kind = kind_of_run();
    if (kind == LORE_BACKEND_CUDA && lore_backend_cuda_count() == 0) {
        CHECK_SKIP("no CUDA device here, or built without CUDA");
    }
    subject on;
    const lore_precision precision =
        kind == LORE_BACKEND_CUDA ? LORE_PRECISION_BF16 : LORE_PRECISION_F32;
    subject_open(&on, (lore_backend_options){.kind = kind, .precision = precision}, 0,
                 kind == LORE_BACKEND_CUDA ? "cuda bf16" : getenv("LORE_TEST_BACKEND"));
    cases(&on);
    subject_close(&on);
}

/* ---- views of either dtype, with sentinels before, behind and between their rows ---- */

static const uint16_t SENTINEL_BF16 = 0xC5A7;

typedef struct typed_grid {
    char *memory;
    lore_view view;
    size_t count; /* elements allocated */
} typed_grid;

static void put(void *memory, lore_dtype dtype, size_t at, float value)
{
    if (dtype == LORE_BF16) {
        ((uint16_t *)memory)[at] = lore_f32_to_bf16(value);
    } else {
        ((float *)memory)[at] = value;
    }
}

/* values NULL: nothing but sentinels, which an output has to replace. */
static typed_grid typed_new(const side *on, lore_dtype dtype, const float *values, int32_t rows,
                            int32_t cols, int32_t gap)
{
    const size_t stride = (size_t)(cols + gap), size = lore_dtype_size(dtype);
    typed_grid made = {.count = 2 * SENTINELS + (size_t)rows * stride};
    char *host = host_new(made.count * size);
    for (size_t i = 0; i < made.count; i++) {
        put(host, dtype, i, dtype == LORE_BF16 ? lore_bf16_to_f32(SENTINEL_BF16) : SENTINEL);
    }
    for (int32_t r = 0; r < rows && values != NULL; r++) {
        for (int32_t c = 0; c < cols; c++) {
            put(host, dtype, SENTINELS + (size_t)r * stride + (size_t)c, values[r * cols + c]);
        }
    }
    made.memory = upload(on, host, made.count * size);
    made.view = lore_view_as(dtype, made.memory + SENTINELS * size, rows, cols);
    made.view.stride = (int64_t)stride;
    lore_free(host);
    return made;
}

/* The values of the view as f32; checks all sentinels. Frees the grid. */
static float *typed_take(const side *on, typed_grid *from)
{
    const lore_view view = from->view;
    char *host = host_new(from->count * lore_dtype_size(view.dtype));
    lore_queue_download(on->queue, host, from->memory, from->count * lore_dtype_size(view.dtype));
    sync(on);
    lore_backend_free(on->backend, from->memory);
    float *values = host_new((size_t)view.rows * (size_t)view.cols * sizeof *values);
    for (size_t i = 0; i < from->count; i++) {
        const int64_t at = (int64_t)i - SENTINELS;
        const int64_t row = at < 0 ? -1 : at / view.stride, col = at < 0 ? -1 : at % view.stride;
        const float value = read_as(view.dtype, host, i);
        if (row >= 0 && row < view.rows && col < view.cols) {
            values[row * view.cols + col] = value;
        } else if (value !=
                   (view.dtype == LORE_BF16 ? lore_bf16_to_f32(SENTINEL_BF16) : SENTINEL)) {
            CHECK_STOP("wrote %g outside the output, at row %" PRId64 " column %" PRId64,
                       (double)value, row, col);
        }
    }
    lore_free(host);
    return values;
}

static lore_dtype between(const subject *on)
{
    return lore_backend_activation_dtype(on->test.backend);
}

/* Random values that bf16 holds. */
static float *random_rounded(size_t count)
{
    float *values = random_floats(count);
    for (size_t i = 0; i < count; i++) {
        values[i] = lore_bf16_to_f32(lore_f32_to_bf16(values[i]));
    }
    return values;
}

/* ---- x = layernorm(x + y) ---- */

typedef struct norm_case {
    int32_t rows, cols, gap;
    bool has_y, has_rounded, has_b;
    lore_dtype y_dtype, rounded_dtype;
} norm_case;

/* Gives x, and `rounded` where there is one. */
static float *run_norm(const side *at, const norm_case *k, lore_dtype y_dtype,
                       lore_dtype rounded_dtype, const float *x, const float *y, const float *w,
                       const float *b, float **rounded_out)
{
    const float eps = 1e-5f;
    const size_t cols = (size_t)k->cols;
    typed_grid x_grid = typed_new(at, LORE_F32, x, k->rows, k->cols, k->gap);
    typed_grid y_grid = typed_new(at, y_dtype, y, k->rows, k->cols, k->gap);
    typed_grid rounded = typed_new(at, rounded_dtype, NULL, k->rows, k->cols, k->gap);
    float *device_w = upload(at, w, cols * sizeof *w), *device_b = upload(at, b, cols * sizeof *b);
    lore_op_add_layernorm(at->queue, x_grid.view, k->has_rounded ? rounded.view : (lore_view){0},
                          k->has_y ? y_grid.view : (lore_view){0}, device_w,
                          k->has_b ? device_b : NULL, eps);
    float *out = typed_take(at, &x_grid);
    *rounded_out = typed_take(at, &rounded);
    lore_free(typed_take(at, &y_grid)); /* y is only read */
    lore_backend_free(at->backend, device_w);
    lore_backend_free(at->backend, device_b);
    return out;
}

static void check_norm(const subject *on, const norm_case *k)
{
    const size_t count = (size_t)k->rows * (size_t)k->cols;
    float *x = random_floats(count), *y = random_rounded(count);
    float *w = random_floats((size_t)k->cols), *b = random_floats((size_t)k->cols);
    float *rounded = NULL, *unused = NULL;
    float *want = run_norm(&on->ref, k, LORE_F32, LORE_F32, x, y, w, b, &unused);
    float *got = run_norm(&on->test, k, k->y_dtype, k->rounded_dtype, x, y, w, b, &rounded);
    for (size_t i = 0; i < count && k->has_rounded; i++) {
        const float value =
            k->rounded_dtype == LORE_BF16 ? lore_bf16_to_f32(lore_f32_to_bf16(got[i])) : got[i];
        if (memcmp(&rounded[i], &value, sizeof value) != 0) {
            CHECK_STOP("%d x %d: element %zu is %g, rounded %g", (int)k->rows, (int)k->cols, i,
                       (double)got[i], (double)rounded[i]);
        }
    }
    char what[96];
    snprintf(what, sizeof what, "add_layernorm %d x %d, gap %d, y %d of %s", (int)k->rows,
             (int)k->cols, (int)k->gap, k->has_y, lore_dtype_name(k->y_dtype));
    compare(on, what, got, want, count, TOLERANCE_NORM);
    float *all[] = {x, y, w, b, rounded, unused};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        lore_free(all[i]);
    }
}

/* Around each size of the fast kernel, in and out of fours, and everything that may be missing. */
static void cases_add_layernorm(const subject *on)
{
    static const int32_t COLS[] = {1,   3,   4,   32,  36,   127,  128,  129,  380,  384, 388,
                                   512, 766, 768, 772, 1020, 1024, 1028, 2044, 2048, 2052};
    for (size_t i = 0; i < sizeof COLS / sizeof COLS[0]; i++) {
        for (int32_t kind = 0; kind < 16; kind++) {
            const norm_case k = {.rows = PICK(1, 3, 4, 5, 63, 130),
                                 .cols = COLS[i],
                                 .gap = PICK(0, 4, 8, 3),
                                 .has_y = (kind & 1) == 0,
                                 .has_rounded = (kind & 2) == 0,
                                 .has_b = (kind & 4) == 0,
                                 .y_dtype = (kind & 8) == 0 ? between(on) : LORE_F32,
                                 .rounded_dtype = random_below(8) > 0 ? between(on) : LORE_F32};
            check_norm(on, &k);
        }
    }
    check_norm(on, &(norm_case){.cols = 384, .has_y = true, .y_dtype = between(on)});
}

/* A NaN or an infinity spoils its own row and no other. */
static void cases_not_finite(const subject *on)
{
    enum { ROWS = 6, COLS = 384 };
    const norm_case k = {.rows = ROWS, .cols = COLS, .has_y = true, .has_rounded = true};
    float *x = random_floats(ROWS * COLS), *y = random_rounded(ROWS * COLS), *rounded = NULL;
    float *w = random_floats(COLS), *b = random_floats(COLS);
    x[1 * COLS + 7] = NAN;
    y[4 * COLS + 300] = INFINITY;
    float *got = run_norm(&on->test, &k, between(on), between(on), x, y, w, b, &rounded);
    for (int32_t r = 0; r < ROWS; r++) {
        for (int32_t c = 0; c < COLS; c++) {
            CHECK(isnan(got[r * COLS + c]) == (r == 1 || r == 4));
            CHECK(isnan(rounded[r * COLS + c]) == (r == 1 || r == 4));
        }
    }
    float *all[] = {x, y, w, b, got, rounded};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        lore_free(all[i]);
    }
}

/* ---- products ---- */

typedef struct product_case {
    int32_t rows, depth, outs, gap;
    lore_dtype weight;
    lore_activation activation;
    bool has_bias;
} product_case;

static float *run_product(const side *at, const product_case *k, lore_dtype dtype,
                          const lore_matrix *matrix, const float *x, const float *bias)
{
    lore_error err = {0};
    lore_weight *weight = NULL;
    typed_grid in = typed_new(at, dtype, x, k->rows, k->depth, k->gap);
    typed_grid out = typed_new(at, dtype, NULL, k->rows, k->outs, k->gap);
    float *device_bias = upload(at, bias, (size_t)k->outs * sizeof *bias);
    CHECK_OK(lore_weight_pack(at->backend, matrix, 1, LORE_USE_MATMUL, &weight, &err), &err);
    lore_op_matmul(at->queue, out.view, in.view, weight,
                   (lore_epilogue){k->has_bias ? device_bias : NULL, k->activation, false});
    float *values = typed_take(at, &out);
    lore_free(typed_take(at, &in));
    lore_backend_free(at->backend, device_bias);
    lore_weight_free(weight);
    return values;
}

/* Sums may be rounded to bf16 before the bias, and are after the activation: 2^-9 each time, of
 * values that bias and activation may have made much smaller. */
static void check_product(const subject *on, const product_case *k)
{
    const size_t count = (size_t)k->rows * (size_t)k->outs;
    source weight = source_new(k->weight, on->precision, k->outs, k->depth);
    float *x = random_rounded((size_t)k->rows * (size_t)k->depth);
    float *bias = random_floats((size_t)k->outs);
    float *want = run_product(&on->ref, k, LORE_F32, &weight.effective, x, bias);
    float *got = run_product(&on->test, k, between(on), &weight.matrix, x, bias);
    product_case plain = *k;
    plain.activation = LORE_ACT_NONE;
    float *sums = run_product(&on->ref, &plain, LORE_F32, &weight.effective, x, bias);
    double squares = 0.0;
    for (size_t i = 0; i < count; i++) {
        squares += (double)sums[i] * (double)sums[i];
    }
    const double rms = sqrt(squares / (double)(count > 0 ? count : 1));
    for (size_t i = 0; i < count; i++) {
        const double before = k->has_bias ? fabs((double)bias[i % (size_t)k->outs]) : 0.0;
        const double allowed =
            (fabs((double)sums[i]) + before + fabs((double)want[i])) / 128 + 2e-3 * rms;
        if (!(fabs((double)got[i] - (double)want[i]) <= allowed)) {
            CHECK_STOP("%d x %d x %d, activation %d, weight %s, element %zu: %g, not %g",
                       (int)k->rows, (int)k->depth, (int)k->outs, (int)k->activation,
                       lore_dtype_name(k->weight), i, (double)got[i], (double)want[i]);
        }
    }
    float *all[] = {x, bias, want, got, sums};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        lore_free(all[i]);
    }
    source_free(&weight);
}

static void cases_products(const subject *on)
{
    static const lore_dtype WEIGHTS[] = {LORE_BF16, LORE_F32, LORE_I8};
    for (lore_activation a = LORE_ACT_NONE; a < (lore_activation)ACTIVATIONS; a++) {
        for (size_t w = 0; w < sizeof WEIGHTS / sizeof WEIGHTS[0]; w++) {
            for (int32_t n = 0; n < 8; n++) {
                check_product(on, &(product_case){.rows = PICK(1, 16, 17, 64, 129, 300),
                                                  .depth = PICK(32, 48, 384, 100),
                                                  .outs = PICK(8, 24, 36, 384, 1152),
                                                  .gap = PICK(0, 8, 4),
                                                  .weight = WEIGHTS[w],
                                                  .activation = a,
                                                  .has_bias = n % 2 == 0});
            }
        }
    }
}

TEST(encoder_add_layernorm)
{
    run(cases_add_layernorm);
}

TEST(encoder_not_finite)
{
    run(cases_not_finite);
}

TEST(encoder_products)
{
    run(cases_products);
}

CHECK_MAIN(encoder_add_layernorm, encoder_not_finite, encoder_products)
