/* Matmul with weights in I4 on a backend under test, against ref.
 *
 * ref is given what ops.h says that a precision makes of them, worked out here a second time: dense
 * f32 weights in the order in which columns are stored, and rows quantised in units of that order.
 * Weights whose parts disagree about columns are dense matrices to every backend. */
#ifndef LORE_TESTS_INT4_CASES_H
#define LORE_TESTS_INT4_CASES_H

#include "tests/ops/matmul_cases.h"

typedef struct int4_shape {
    int32_t rows, depth, outs, parts, group;
    bool has_zeros;  /* the last part only, so that the others' 8 stands beside it */
    int32_t columns; /* 0: none; 1: the same ones for all parts; 2: others for the last part */
    bool has_bias, is_accumulating;
} int4_shape;

typedef struct int4_source {
    lore_matrix matrix;
    uint8_t *data, *zeros;
    float *scales, *stored; /* dequantised, in the order of its own columns */
    int32_t *columns;
} int4_source;

/* Any elements, columns that come twice among them; the row's last half byte is noise. */
static int4_source int4_source_new(const int4_shape *shape, bool has_zeros, const int32_t *columns)
{
    const size_t rows = (size_t)shape->outs, cols = (size_t)shape->depth, row = (cols + 1) / 2;
    const size_t groups = (cols + (size_t)shape->group - 1) / (size_t)shape->group;
    int4_source made = {.data = host_new(rows * row),
                        .zeros = has_zeros ? host_new(rows * groups) : NULL,
                        .scales = host_new(rows * groups * sizeof(float)),
                        .stored = host_new(rows * cols * sizeof(float)),
                        .columns = columns != NULL ? host_new(cols * sizeof *columns) : NULL};
    for (size_t i = 0; i < rows * row; i++) {
        made.data[i] = (uint8_t)random_below(256);
    }
    for (size_t i = 0; i < rows * groups; i++) {
        made.scales[i] = 0.001f + 0.01f * lore_random_unit(&random_state);
        if (has_zeros) {
            made.zeros[i] = (uint8_t)random_below(17); /* GPTQ's may be 16 */
        }
    }
    if (columns != NULL) {
        memcpy(made.columns, columns, cols * sizeof *columns);
    }
    for (size_t i = 0; i < rows * cols; i++) {
        const size_t r = i / cols, k = i % cols, at = r * groups + k / (size_t)shape->group;
        const int32_t element = made.data[r * row + k / 2] >> (k % 2 * 4) & 15;
        made.stored[i] = made.scales[at] * (float)(element - (has_zeros ? made.zeros[at] : 8));
    }
    made.matrix = (lore_matrix){.dtype = LORE_I4,
                                .rows = shape->outs,
                                .cols = shape->depth,
                                .data = made.data,
                                .scales = made.scales,
                                .group = shape->group,
                                .zeros = made.zeros,
                                .columns = made.columns};
    return made;
}

static void int4_source_free(int4_source *from)
{
    lore_free(from->data);
    lore_free(from->zeros);
    lore_free(from->scales);
    lore_free(from->stored);
    lore_free(from->columns);
}

/* Random order, and now and then one column twice, another never. */
static int32_t *int4_columns_new(int32_t depth)
{
    int32_t *columns = host_new((size_t)depth * sizeof *columns);
    for (int32_t k = 0; k < depth; k++) {
        columns[k] = k;
    }
    for (int32_t k = depth - 1; k > 0; k--) {
        const int32_t other = random_below(k + 1), kept = columns[k];
        columns[k] = columns[other];
        columns[other] = kept;
    }
    columns[0] = random_below(4) == 0 ? columns[depth - 1] : columns[0];
    return columns;
}

/* What ops.h says of int8 rows before I4 weights: quantised in units, in the stored order. */
static float *int4_inputs(const int4_shape *shape, const float *x, const int32_t *columns)
{
    const size_t depth = (size_t)shape->depth, count = (size_t)shape->rows * depth;
    float *out = host_new(count * sizeof *out);
    int8_t bytes[128];
    int32_t unit = 128;
    while (unit > 32 && (unit / 2 >= shape->depth ||
                         (shape->group < shape->depth && shape->group % unit != 0))) {
        unit /= 2;
    }
    for (size_t i = 0; i < count; i++) {
        const size_t k = i % depth;
        out[i] = columns != NULL ? x[i - k + (size_t)columns[k]] : x[i];
    }
    for (size_t i = 0; i < count;) {
        const size_t left = depth - i % depth, size = left < (size_t)unit ? left : (size_t)unit;
        const float scale = lore_quantize_row(bytes, out + i, (int32_t)size);
        for (size_t k = 0; k < size; k++) {
            out[i + k] = (float)bytes[k] * scale;
        }
        i += size;
    }
    return out;
}

/* The dense matrix of a part; in the order of x unless it is multiplied as it is stored. */
static void int4_dense(const int4_source *from, bool is_stored, float *out)
{
    const size_t cols = (size_t)from->matrix.cols, count = (size_t)from->matrix.rows * cols;
    memset(out, 0, count * sizeof *out);
    for (size_t i = 0; i < count; i++) {
        const size_t k = i % cols;
        out[from->columns != NULL && !is_stored ? i - k + (size_t)from->columns[k] : i] +=
            from->stored[i];
    }
}

/* The matrix that a precision makes of a dense one, in its own memory. */
static source int4_rounded(const subject *on, float *dense, int32_t rows, int32_t cols,
                           bool is_kept)
{
    const size_t count = (size_t)rows * (size_t)cols;
    source made = {.data = dense};
    made.effective = (lore_matrix){.dtype = LORE_F32, .rows = rows, .cols = cols, .data = dense};
    if (on->precision == LORE_PRECISION_BF16) {
        made.rounded = store_as(LORE_BF16, dense, count);
        made.effective.dtype = LORE_BF16;
        made.effective.data = made.rounded;
    } else if (on->precision == LORE_PRECISION_INT8 && !is_kept) {
        round_units(dense, rows, cols, false);
    }
    return made;
}

static void check_int4(const subject *on, const int4_shape *shape)
{
    const size_t weights = (size_t)shape->outs * (size_t)shape->depth;
    const int32_t outs = shape->outs * shape->parts;
    int4_source from[3];
    source rounded[3];
    lore_matrix given[3], effective[3];
    int32_t *columns = shape->columns > 0 ? int4_columns_new(shape->depth) : NULL;
    int32_t *others = shape->columns > 1 ? int4_columns_new(shape->depth) : NULL;
    /* With other columns for one part the weight is packed like any other. */
    const bool is_kept = on->precision == LORE_PRECISION_INT8 &&
                         (others == NULL || shape->parts == 1 ||
                          memcmp(others, columns, (size_t)shape->depth * sizeof *columns) == 0);
    for (int32_t i = 0; i < shape->parts; i++) {
        const bool is_last = i + 1 == shape->parts;
        const bool has_others = is_last && others != NULL && shape->parts > 1;
        from[i] =
            int4_source_new(shape, is_last && shape->has_zeros, has_others ? others : columns);
        float *dense = host_new(weights * sizeof *dense);
        int4_dense(&from[i], is_kept, dense);
        rounded[i] = int4_rounded(on, dense, shape->outs, shape->depth, is_kept);
        given[i] = from[i].matrix;
        effective[i] = rounded[i].effective;
    }
    const matmul_shape run = {.rows = shape->rows,
                              .depth = shape->depth,
                              .outs = shape->outs,
                              .parts = shape->parts,
                              .has_bias = shape->has_bias,
                              .is_accumulating = shape->is_accumulating};
    float *x = random_floats((size_t)shape->rows * (size_t)shape->depth);
    if (shape->rows > 2) {
        memset(x + shape->depth, 0, (size_t)shape->depth * sizeof *x);
    }
    float *inputs = is_kept
                        ? int4_inputs(shape, x, columns)
                        : effective_inputs(on->precision, LORE_I4, x, shape->rows, shape->depth);
    float *bias = random_floats((size_t)outs);
    float *old = random_floats((size_t)shape->rows * (size_t)outs);
    float *want = run_matmul(&on->ref, &run, effective, inputs, bias, old);
    float *got = run_matmul(&on->test, &run, given, x, bias, old);
    for (int32_t i = 0; i < shape->parts; i++) {
        int4_source_free(&from[i]);
        source_free(&rounded[i]);
    }
    lore_free(columns);
    lore_free(others);
    lore_free(x);
    lore_free(inputs);
    lore_free(bias);
    lore_free(old);
    char what[128];
    snprintf(what, sizeof what, "int4 matmul %d x %d x %d (%d parts, groups of %d%s%s)",
             shape->rows, shape->depth, shape->outs, shape->parts, shape->group,
             shape->has_zeros ? ", zeros" : "", shape->columns > 0 ? ", columns" : "");
    compare(on, what, got, want, (size_t)shape->rows * (size_t)outs,
            on->precision == LORE_PRECISION_BF16 ? TOLERANCE_BF16_SUM : TOLERANCE_SUM);
}

CHECK_UNUSED static void cases_int4(const subject *on)
{
    for (int i = 0; i < 160; i++) {
        const int32_t depth = PICK(1, 2, 3, 31, 32, 33, 63, 64, 65, 96, 127, 128, 130, 200, 384);
        const int4_shape shape = {
            .rows = PICK(0, 1, 2, 3, 4, 5, 6, 7, 11, 13, 16, 17, 31, 32, 33, 67),
            .depth = depth,
            .outs = PICK(1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 130),
            .parts = 1 + random_below(3),
            .group = random_below(4) == 0 ? depth : PICK(32, 64, 96, 128, 256),
            .has_zeros = random_below(2) == 0,
            .columns = random_below(3),
            .has_bias = random_below(2) == 0,
            .is_accumulating = random_below(3) == 0,
        };
        check_int4(on, &shape);
    }
    /* Runs of many panels, few rows and many, and blocks of rows with a ragged last one. */
    check_int4(on, &(int4_shape){1, 260, 1500, 1, 128, true, 0, true, false});
    check_int4(on, &(int4_shape){13, 260, 1500, 1, 64, false, 1, false, true});
    check_int4(on, &(int4_shape){205, 2048, 330, 1, 128, true, 1, true, false});
}

#endif
