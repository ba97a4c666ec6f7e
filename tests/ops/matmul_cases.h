/* Matmul on a backend under test, against ref: ref is given weights and inputs rounded the way
 * ops.h says, worked out here a second time. */
#ifndef LORE_TESTS_MATMUL_CASES_H
#define LORE_TESTS_MATMUL_CASES_H

#include "tests/ops/ops_subject.h"

#include <math.h>

/* ---- matmul ---- */

typedef struct source {
    lore_matrix matrix, effective; /* as given, and as its precision sees it */
    void *data, *rounded;
    float *scales, *own_scales;
    uint8_t *zeros;
    int32_t *columns;
} source;

static void source_free(source *from)
{
    lore_free(from->data);
    lore_free(from->rounded);
    lore_free(from->scales);
    lore_free(from->own_scales);
    lore_free(from->zeros);
    lore_free(from->columns);
}

/* Groups of 32 columns or one a row, with zero points or without, in order or not. */
static source source_new_i4(int32_t rows, int32_t cols)
{
    source made = {0};
    const int32_t group = random_below(3) == 0 ? cols : PICK(32, 64);
    const size_t groups = (size_t)rows * (size_t)((cols + group - 1) / group);
    const size_t size = (size_t)rows * (size_t)((cols + 1) / 2);
    uint8_t *data = host_new(size);
    for (size_t i = 0; i < size; i++) { /* the unused half of an odd row too */
        data[i] = (uint8_t)random_below(256);
    }
    made.data = data;
    made.scales = host_new(groups * sizeof *made.scales);
    made.zeros = host_new(groups);
    for (size_t i = 0; i < groups; i++) {
        made.scales[i] = 0.01f + 0.1f * lore_random_unit(&random_state);
        made.zeros[i] = (uint8_t)random_below(17); /* GPTQ stores one less: 16 may come */
    }
    made.columns = host_new((size_t)cols * sizeof *made.columns);
    shuffle(made.columns, cols);
    made.matrix = (lore_matrix){.dtype = LORE_I4,
                                .rows = rows,
                                .cols = cols,
                                .data = data,
                                .scales = made.scales,
                                .group = group,
                                .zeros = random_below(2) == 0 ? made.zeros : NULL,
                                .columns = random_below(2) == 0 ? made.columns : NULL};
    made.effective = made.matrix;
    return made;
}

/* int8 of what did not come as int8: 64 columns have a scale of their own. With has_low, which is
 * of inputs, those beyond 6 times the RMS of their row keep what is left over, in parts of 1/254.
 */
static void round_units(float *values, int32_t rows, int32_t cols, bool has_low)
{
    for (int32_t r = 0; r < rows; r++, values += cols) {
        double squares = 0.0;
        for (int32_t c = 0; c < cols; c++) {
            squares += (double)values[c] * (double)values[c];
        }
        for (int32_t c = 0; c < cols; c += 64) {
            int8_t steps[64];
            const int32_t size = cols - c < 64 ? cols - c : 64;
            const float scale = lore_quantize_row(steps, values + c, size);
            float top = 0.0f;
            for (int32_t k = 0; k < size; k++) {
                top = fmaxf(top, fabsf(values[c + k]));
            }
            const bool is_outlier = has_low && (double)top > 6.0 * sqrt(squares / cols);
            for (int32_t k = 0; k < size; k++) { /* in f32, so that ties fall to the same side */
                const float rest = values[c + k] * (127.0f / top) - steps[k];
                const double low = is_outlier ? (double)rintf(rest * 254.0f) / 254.0 : 0.0;
                values[c + k] = (float)((double)scale * (steps[k] + low));
            }
        }
    }
}

static source source_new(lore_dtype dtype, lore_precision precision, int32_t rows, int32_t cols)
{
    if (dtype == LORE_I4) {
        return source_new_i4(rows, cols);
    }
    source made = {0};
    const size_t count = (size_t)rows * (size_t)cols;
    float *values = random_floats(count);
    made.data = store_as(dtype, values, count);
    if (dtype == LORE_I8) {
        made.scales = host_new((size_t)rows * sizeof(float));
        for (int32_t r = 0; r < rows; r++) {
            made.scales[r] = 0.001f + 0.01f * lore_random_unit(&random_state);
        }
    }
    made.matrix = (lore_matrix){
        .dtype = dtype, .rows = rows, .cols = cols, .data = made.data, .scales = made.scales};
    made.effective = made.matrix;
    if (dtype != LORE_I8 && precision == LORE_PRECISION_BF16) {
        for (size_t i = 0; i < count; i++) {
            values[i] = read_as(dtype, made.data, i);
        }
        made.rounded = store_as(LORE_BF16, values, count);
        made.effective =
            (lore_matrix){.dtype = LORE_BF16, .rows = rows, .cols = cols, .data = made.rounded};
    } else if (dtype != LORE_I8 && precision == LORE_PRECISION_INT8) {
        for (size_t i = 0; i < count; i++) {
            values[i] = read_as(dtype, made.data, i);
        }
        round_units(values, rows, cols, false);
        made.rounded = store_as(LORE_F32, values, count);
        made.effective =
            (lore_matrix){.dtype = LORE_F32, .rows = rows, .cols = cols, .data = made.rounded};
    }
    lore_free(values);
    return made;
}

/* What a precision makes of a batch of inputs to a weight that came as `dtype`. */
static float *effective_inputs(lore_precision precision, lore_dtype dtype, const float *x,
                               int32_t rows, int32_t cols)
{
    const size_t count = (size_t)rows * (size_t)cols;
    float *out = host_new(count * sizeof *out);
    int8_t *bytes = host_new((size_t)cols);
    memcpy(out, x, count * sizeof *out);
    if (precision == LORE_PRECISION_INT8 && dtype != LORE_I8) {
        round_units(out, rows, cols, true);
    }
    for (int32_t r = 0; r < rows && precision == LORE_PRECISION_INT8 && dtype == LORE_I8; r++) {
        const float scale = lore_quantize_row(bytes, x + (size_t)r * (size_t)cols, cols);
        for (int32_t c = 0; c < cols; c++) {
            out[(size_t)r * (size_t)cols + (size_t)c] = (float)bytes[c] * scale;
        }
    }
    for (size_t i = 0; i < count && precision == LORE_PRECISION_BF16; i++) {
        out[i] = lore_bf16_to_f32(lore_f32_to_bf16(x[i]));
    }
    lore_free(bytes);
    return out;
}

static const char *const activation_names[] = {"", ", gelu", ", gelu_tanh", ", silu", ", tanh"};
enum { ACTIVATIONS = 5 };

typedef struct matmul_shape {
    int32_t rows, depth, outs, parts;
    lore_dtype dtype;
    bool has_bias;
    lore_activation activation;
    bool is_accumulating;
} matmul_shape;

static float *run_matmul(const side *at, const matmul_shape *shape, const lore_matrix *parts,
                         const float *x, const float *bias, const float *old)
{
    lore_weight *weight = NULL;
    lore_error err = {0};
    CHECK_OK(lore_weight_pack(at->backend, parts, shape->parts, LORE_USE_MATMUL, &weight, &err),
             &err);
    CHECK_INT(lore_weight_rows(weight), shape->outs * shape->parts);
    CHECK_INT(lore_weight_cols(weight), shape->depth);
    CHECK(lore_weight_bytes(weight) > 0);
    grid in = grid_new(at, x, shape->rows, shape->depth, 5);
    grid out = grid_new(at, old, shape->rows, shape->outs * shape->parts, 3);
    float *own_bias =
        shape->has_bias ? upload(at, bias, (size_t)out.view.cols * sizeof *bias) : NULL;
    const lore_epilogue epilogue = {.bias = own_bias,
                                    .activation = shape->activation,
                                    .is_accumulating = shape->is_accumulating};
    lore_op_matmul(at->queue, out.view, in.view, weight, epilogue);
    float *got = grid_take(at, &out);
    lore_free(grid_take(at, &in));
    lore_backend_free(at->backend, own_bias);
    lore_weight_free(weight);
    return got;
}

static double matmul_tolerance(lore_precision precision, const matmul_shape *shape)
{
    const bool is_whole = precision == LORE_PRECISION_INT8 && shape->dtype == LORE_I8;
    const double sums = is_whole                           ? TOLERANCE_INT8_SUM
                        : precision == LORE_PRECISION_BF16 ? TOLERANCE_BF16_SUM
                                                           : TOLERANCE_SUM;
    const bool is_plain = shape->activation == LORE_ACT_NONE || sums >= TOLERANCE_ACTIVATION;
    return is_plain ? sums : TOLERANCE_ACTIVATION;
}

static void check_matmul(const subject *on, const matmul_shape *shape)
{
    const lore_precision precision = on->precision;
    source from[3];
    lore_matrix given[3], effective[3];
    for (int32_t i = 0; i < shape->parts; i++) {
        from[i] = source_new(shape->dtype, precision, shape->outs, shape->depth);
        given[i] = from[i].matrix;
        effective[i] = from[i].effective;
    }
    const int32_t outs = shape->outs * shape->parts;
    float *x = random_floats((size_t)shape->rows * (size_t)shape->depth);
    if (shape->rows > 2) { /* a row of zeros must give the bias, not a division by zero */
        memset(x + shape->depth, 0, (size_t)shape->depth * sizeof *x);
    }
    if (precision == LORE_PRECISION_INT8 && shape->rows > 3) { /* outliers, in a column and one */
        const int32_t column = random_below(shape->depth);
        for (int32_t r = 2; r < shape->rows; r += 3) {
            x[(size_t)r * (size_t)shape->depth + (size_t)column] *= 6.0f;
        }
        x[random_below(shape->rows * shape->depth)] *= 16.0f;
    }
    float *rounded = effective_inputs(precision, shape->dtype, x, shape->rows, shape->depth);
    float *bias = random_floats((size_t)outs),
          *old = random_floats((size_t)shape->rows * (size_t)outs);
    float *want = run_matmul(&on->ref, shape, effective, rounded, bias, old);
    float *got = run_matmul(&on->test, shape, given, x, bias, old);
    for (int32_t i = 0; i < shape->parts; i++) {
        source_free(&from[i]);
    }
    lore_free(x);
    lore_free(rounded);
    lore_free(bias);
    lore_free(old);
    char what[128];
    snprintf(what, sizeof what, "matmul %d x %d x %d (%d parts of %s%s%s%s)", shape->rows,
             shape->depth, shape->outs, shape->parts, lore_dtype_name(shape->dtype),
             shape->has_bias ? ", bias" : "", activation_names[shape->activation],
             shape->is_accumulating ? ", accumulating" : "");
    compare_above(on, what, got, want, (size_t)shape->rows * (size_t)outs,
                  matmul_tolerance(precision, shape),
                  shape->activation != LORE_ACT_NONE ? 1.0 : 1e-30);
}

/* A NaN or an infinity in a row, wherever it stands, leaves no finite number in that row of the
 * output, and the others alone. */
static void check_not_finite(const subject *on, lore_dtype dtype, int32_t depth, float bad)
{
    const matmul_shape shape = {.rows = 7, .depth = depth, .outs = 67, .parts = 1, .dtype = dtype};
    source from = source_new(dtype, LORE_PRECISION_F32, shape.outs, depth);
    float *x = random_floats((size_t)shape.rows * (size_t)depth);
    float *old = random_floats((size_t)shape.rows * (size_t)shape.outs);
    for (int32_t row = 0; row < shape.rows; row += 2) {
        x[(size_t)row * (size_t)depth + (size_t)random_below(depth)] = bad;
    }
    float *got = run_matmul(&on->test, &shape, &from.matrix, x, NULL, old);
    for (int32_t i = 0; i < shape.rows * shape.outs; i++) {
        CHECK(isfinite(got[i]) == (i / shape.outs % 2 == 1));
    }
    source_free(&from);
    lore_free(x);
    lore_free(old);
    lore_free(got);
}

CHECK_UNUSED static void cases_matmul_not_finite(const subject *on)
{
    static const lore_dtype dtypes[] = {LORE_F32, LORE_BF16, LORE_I8, LORE_I4};
    for (int i = 0; i < 48; i++) {
        check_not_finite(on, dtypes[i % 4], PICK(16, 31, 64, 130, 384),
                         i % 3 == 0 ? (float)INFINITY : (float)NAN);
    }
}

CHECK_UNUSED static void cases_matmul(const subject *on)
{
    static const lore_dtype dtypes[] = {LORE_F32, LORE_F16, LORE_BF16, LORE_I8};
    for (int i = 0; i < 160; i++) {
        const matmul_shape shape = {
            .rows = PICK(0, 1, 2, 3, 4, 5, 6, 7, 11, 13, 16, 17, 31, 32, 33, 95, 97),
            .depth = PICK(1, 2, 3, 15, 16, 31, 33, 63, 64, 65, 100, 127, 128, 130, 384),
            .outs = PICK(1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 130),
            .parts = 1 + random_below(3),
            .dtype = dtypes[i % 4],
            .has_bias = random_below(2) == 0,
            .activation =
                random_below(2) == 0 ? LORE_ACT_NONE : (lore_activation)random_below(ACTIVATIONS),
            .is_accumulating = random_below(3) == 0,
        };
        check_matmul(on, &shape);
    }
    check_matmul(on, &(matmul_shape){400, 384, 130, 1, LORE_I8, true, LORE_ACT_GELU, false});
    check_matmul(on, &(matmul_shape){401, 72, 64, 2, LORE_BF16, false, LORE_ACT_NONE, true});
    check_matmul(on, &(matmul_shape){2, 512, 3000, 1, LORE_I8, false, LORE_ACT_NONE, false});
    check_matmul(on, &(matmul_shape){40, 1536, 384, 1, LORE_F32, true, LORE_ACT_NONE, true});
    /* Several blocks of rows, the last one ragged, against several runs of panels. */
    check_matmul(on, &(matmul_shape){205, 2048, 330, 1, LORE_I8, true, LORE_ACT_NONE, false});
    /* Runs of many panels with one, two, three and six tiles to share out what is fetched ahead. */
    static const int32_t few_rows[] = {1, 8, 13, 32};
    for (size_t i = 0; i < sizeof few_rows / sizeof few_rows[0]; i++) {
        check_matmul(
            on, &(matmul_shape){few_rows[i], 260, 1500, 1, LORE_I8, false, LORE_ACT_NONE, true});
    }
}

#endif
