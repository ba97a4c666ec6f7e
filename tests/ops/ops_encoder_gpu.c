/* What an encoder's packs are made of on an accelerator, against ref: the sum of a post-norm family
 * with its norm and its rounding, and products of many rows from bf16 to bf16 with bias and
 * activation. cuda, or the backend that LORE_TEST_BACKEND names (ref, cpu), where what passes
 * between two ops is f32. */
#include "tests/ops/matmul_cases.h"

static void run(void (*cases)(const subject *on))
{
    subject on;
    subject_of_run(&on, LORE_PRECISION_BF16);
    cases(&on);
    subject_close(&on);
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
    grid x_grid = grid_typed(at, LORE_F32, SENTINEL, x, k->rows, k->cols, k->gap);
    grid y_grid = grid_typed(at, y_dtype, SENTINEL, y, k->rows, k->cols, k->gap);
    grid rounded = grid_typed(at, rounded_dtype, SENTINEL, NULL, k->rows, k->cols, k->gap);
    float *device_w = upload(at, w, cols * sizeof *w), *device_b = upload(at, b, cols * sizeof *b);
    lore_op_add_layernorm(at->queue, x_grid.view, k->has_rounded ? rounded.view : (lore_view){0},
                          k->has_y ? y_grid.view : (lore_view){0}, device_w,
                          k->has_b ? device_b : NULL, eps);
    float *out = grid_take(at, &x_grid);
    *rounded_out = grid_take(at, &rounded);
    lore_free(grid_take(at, &y_grid)); /* y is only read */
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
    grid in = grid_typed(at, dtype, SENTINEL, x, k->rows, k->depth, k->gap);
    grid out = grid_typed(at, dtype, SENTINEL, NULL, k->rows, k->outs, k->gap);
    float *device_bias = upload(at, bias, (size_t)k->outs * sizeof *bias);
    CHECK_OK(lore_weight_pack(at->backend, matrix, 1, LORE_USE_MATMUL, &weight, &err), &err);
    lore_op_matmul(
        at->queue, out.view, in.view, weight,
        (lore_epilogue){.bias = k->has_bias ? device_bias : NULL, .activation = k->activation});
    float *values = grid_take(at, &out);
    lore_free(grid_take(at, &in));
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
