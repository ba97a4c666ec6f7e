/* Every op on a backend under test, against ref, at ragged sizes.
 *
 * A case draws its inputs from a seed, runs the op on ref and on the subject through the backend
 * API (so that device memory works), and compares by normalised error: largest difference over the
 * root mean square of ref's answer. Outputs lie between sentinels and in rows wider than their
 * columns; both must stay untouched. Where the precision changes inputs (bf16, int8), ref is given
 * the inputs already rounded the way ops.h says, so tolerances stay those of f32 sums and a wrong
 * rounding shows.
 *
 * Included by ops_ref.c, ops_cpu.c and ops_gpu.c; a seed printed with a failure replays with
 * LORE_TEST_SEED. */
#ifndef LORE_TESTS_OPS_CASES_H
#define LORE_TESTS_OPS_CASES_H

#include "base/clock.h"
#include "base/thread.h"
#include "kernels/backend.h"
#include "tests/check.h"

/* ---- tolerances, with their reasons ----
 * EXACT       gathers and copies move bits
 * SUM         f32 sums of some hundred terms in another order than ref's doubles
 * NORM        plain C sums a row in one chain, and the mean is three deviations away
 * BF16_SUM    sums again, of pairs: bf16 units round a pair once and drop denormals
 * INT8_SUM    integer sums are exact: what is left is the epilogue's rounding
 * EXP         approximations of exp, good to some units in the last place
 * ACTIVATION  absolute, for |x| up to 10: erf and tanh are good to 4e-7, x (1 + erf x) cancels
 *             below 0
 * BF16_STORE  a unit of bf16 (2^-8 relative, twice at a tie) where an f32 rounding tips it
 * BF16_ATTEND a key that an f32 rounding tips by a unit of bf16 moves a score by some hundredths;
 *             probabilities rounded to bf16, 2^-9 each, of values up to some twenty times their
 *             spread (queries, keys and values are bf16 already)
 * LOGPROB     absolute, the sum of exp's over a row */
static const double TOLERANCE_EXACT = 0.0;
static const double TOLERANCE_SUM = 2e-5;
static const double TOLERANCE_NORM = 6e-5;
static const double TOLERANCE_BF16_SUM = 4e-5;
static const double TOLERANCE_INT8_SUM = 4e-6;
static const double TOLERANCE_EXP = 2e-5;
static const double TOLERANCE_ACTIVATION = 2e-5;
static const double TOLERANCE_BF16_STORE = 8e-3;
static const double TOLERANCE_BF16_ATTEND = 4e-2;
static const double TOLERANCE_LOGPROB = 2e-5;

enum { SENTINELS = 64 };
static const float SENTINEL = -12345.5f;

typedef struct side {
    lore_backend *backend;
    lore_queue *queue;
} side;

typedef struct subject {
    side ref, test;
    lore_pool *pool;
    lore_precision precision;
    const char *name;
} subject;

CHECK_UNUSED static uint64_t seed_of_run(void)
{
    const char *text = getenv("LORE_TEST_SEED");
    return text != NULL ? strtoull(text, NULL, 10) : 20260101;
}

/* ---- random inputs ---- */
static uint64_t random_state;

static int32_t random_below(int32_t bound)
{
    return (int32_t)(lore_random_next(&random_state) % (uint64_t)bound);
}

/* Roughly normal, with now and then a large one, as activations are. */
static float random_value(void)
{
    float sum = 0.0f;
    for (int i = 0; i < 4; i++) {
        sum += lore_random_unit(&random_state) - 0.5f;
    }
    return random_below(50) == 0 ? 6.0f * sum : sum;
}

static int32_t pick(const int32_t *values, size_t count)
{
    return values[random_below((int32_t)count)];
}
#define PICK(...) \
    pick((const int32_t[]){__VA_ARGS__}, sizeof(const int32_t[]){__VA_ARGS__} / sizeof(int32_t))

static void *host_new(size_t size_bytes)
{
    void *memory = lore_alloc(size_bytes > 0 ? size_bytes : 1);
    CHECK(memory != NULL);
    return memory;
}

static float *random_floats(size_t count)
{
    float *values = host_new(count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        values[i] = random_value();
    }
    return values;
}

/* ---- memory of a side ---- */
static void *upload(const side *on, const void *host, size_t size_bytes)
{
    void *memory = NULL;
    lore_error err = {0};
    CHECK_OK(lore_backend_alloc(on->backend, size_bytes > 0 ? size_bytes : 1, &memory, &err), &err);
    lore_queue_upload(on->queue, memory, host, size_bytes);
    return memory;
}

static void sync(const side *on)
{
    lore_error err = {0};
    CHECK_OK(lore_queue_sync(on->queue, &err), &err);
}

/* A view in a side's memory with sentinels before, behind and between its rows. */
typedef struct grid {
    float *memory;
    lore_view view;
    size_t count; /* floats allocated */
} grid;

static grid grid_new(const side *on, const float *values, int32_t rows, int32_t cols, int32_t gap)
{
    grid made = {.count = 2 * SENTINELS + (size_t)rows * (size_t)(cols + gap)};
    float *host = host_new(made.count * sizeof *host);
    for (size_t i = 0; i < made.count; i++) {
        host[i] = SENTINEL;
    }
    for (int32_t r = 0; r < rows && values != NULL; r++) {
        memcpy(host + SENTINELS + (size_t)r * (size_t)(cols + gap),
               values + (size_t)r * (size_t)cols, (size_t)cols * sizeof *host);
    }
    made.memory = upload(on, host, made.count * sizeof *host);
    made.view = (lore_view){made.memory + SENTINELS, rows, cols, cols + gap};
    lore_free(host);
    return made;
}

/* The columns first .. first+cols-1 of a view. */
static lore_view columns(lore_view view, int32_t first, int32_t cols)
{
    view.data += first;
    view.cols = cols;
    return view;
}

/* The values of the view, row after row; checks all sentinels. Frees the grid. */
static float *grid_take(const side *on, grid *from)
{
    float *host = host_new(from->count * sizeof *host);
    lore_queue_download(on->queue, host, from->memory, from->count * sizeof *host);
    sync(on);
    lore_backend_free(on->backend, from->memory);
    const lore_view view = from->view;
    float *values = host_new((size_t)view.rows * (size_t)view.cols * sizeof *values);
    for (size_t i = 0; i < from->count; i++) {
        const int64_t at = (int64_t)i - SENTINELS;
        const int64_t row = at < 0 ? -1 : at / view.stride, col = at < 0 ? -1 : at % view.stride;
        if (row >= 0 && row < view.rows && col < view.cols) {
            values[row * view.cols + col] = host[i];
        } else if (memcmp(&host[i], &SENTINEL, sizeof SENTINEL) != 0) {
            CHECK_STOP("wrote %g outside the output, at row %" PRId64 " column %" PRId64,
                       (double)host[i], row, col);
        }
    }
    lore_free(host);
    return values;
}

/* Largest difference over the root mean square of `want`, or over `least` where that is larger. */
static double error_of(const float *got, const float *want, size_t count, double least)
{
    double squares = 0.0, worst = 0.0;
    for (size_t i = 0; i < count; i++) {
        const double difference = fabs((double)got[i] - (double)want[i]);
        worst = difference <= worst ? worst : difference; /* a NaN sticks */
        squares += (double)want[i] * (double)want[i];
    }
    const double scale = count > 0 ? sqrt(squares / (double)count) : 1.0;
    return worst == 0.0 ? 0.0 : worst / (scale > least ? scale : least);
}

/* Compare and free both. */
static void compare_above(const subject *on, const char *what, float *got, float *want,
                          size_t count, double tolerance, double least)
{
    const double error = error_of(got, want, count, least);
    lore_free(got);
    lore_free(want);
    if (!(error <= tolerance)) {
        CHECK_STOP("%s on %s: error %.3g, allowed %.3g", what, on->name, error, tolerance);
    }
}

static void compare(const subject *on, const char *what, float *got, float *want, size_t count,
                    double tolerance)
{
    compare_above(on, what, got, want, count, tolerance, 1e-30);
}

/* The statement behind it once for each side, ref first, with `at` naming it. */
#define ON_BOTH(on, at) for (const side *at = &(on)->ref; at <= &(on)->test; at++)

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

/* 0 .. count-1 in a random order. */
static void shuffle(int32_t *out, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        const int32_t j = random_below(i + 1);
        out[i] = out[j];
        out[j] = i;
    }
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

static void *store_as(lore_dtype dtype, const float *values, size_t count)
{
    void *data = host_new(count * lore_dtype_size(dtype));
    for (size_t i = 0; i < count; i++) {
        switch (dtype) {
        case LORE_F16:
            ((uint16_t *)data)[i] = lore_f32_to_f16(values[i]);
            break;
        case LORE_BF16:
            ((uint16_t *)data)[i] = lore_f32_to_bf16(values[i]);
            break;
        case LORE_I8:
            ((int8_t *)data)[i] = (int8_t)(random_below(255) - 127);
            break;
        default:
            ((float *)data)[i] = values[i];
        }
    }
    return data;
}

static float read_as(lore_dtype dtype, const void *data, size_t i)
{
    return dtype == LORE_F16    ? lore_f16_to_f32(((const uint16_t *)data)[i])
           : dtype == LORE_BF16 ? lore_bf16_to_f32(((const uint16_t *)data)[i])
                                : ((const float *)data)[i];
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
        made.rounded = host_new(count);
        made.own_scales = host_new((size_t)rows * sizeof(float));
        for (int32_t r = 0; r < rows; r++) {
            const size_t first = (size_t)r * (size_t)cols;
            for (size_t c = 0; c < (size_t)cols; c++) {
                values[first + c] = read_as(dtype, made.data, first + c);
            }
            made.own_scales[r] =
                lore_quantize_row((int8_t *)made.rounded + first, values + first, cols);
        }
        made.effective = (lore_matrix){.dtype = LORE_I8,
                                       .rows = rows,
                                       .cols = cols,
                                       .data = made.rounded,
                                       .scales = made.own_scales};
    }
    lore_free(values);
    return made;
}

/* What a precision makes of a batch of inputs. */
static float *effective_inputs(lore_precision precision, const float *x, int32_t rows, int32_t cols)
{
    const size_t count = (size_t)rows * (size_t)cols;
    float *out = host_new(count * sizeof *out);
    int8_t *bytes = host_new((size_t)cols);
    memcpy(out, x, count * sizeof *out);
    for (int32_t r = 0; r < rows && precision == LORE_PRECISION_INT8; r++) {
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
    const lore_epilogue epilogue = {own_bias, shape->activation, shape->is_accumulating};
    lore_op_matmul(at->queue, out.view, in.view, weight, epilogue);
    float *got = grid_take(at, &out);
    lore_free(grid_take(at, &in));
    lore_backend_free(at->backend, own_bias);
    lore_weight_free(weight);
    return got;
}

static double matmul_tolerance(lore_precision precision, const matmul_shape *shape)
{
    const double sums = precision == LORE_PRECISION_INT8   ? TOLERANCE_INT8_SUM
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
    float *rounded = effective_inputs(precision, x, shape->rows, shape->depth);
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

/* ---- embed and gather ---- */

CHECK_UNUSED static void cases_embed(const subject *on)
{
    static const lore_dtype dtypes[] = {LORE_F32, LORE_F16, LORE_BF16, LORE_I8, LORE_I4};
    for (int i = 0; i < 40; i++) {
        const float scale = i % 3 == 0 ? 1.0f : 22.627417f;
        const int32_t rows = PICK(0, 1, 7, 40), cols = PICK(1, 7, 8, 15, 16, 17, 33, 64, 384),
                      table_rows = 13;
        source from[2];
        for (int j = 0; j < 2; j++) {
            from[j] =
                source_new(dtypes[(i + j * (i / 5)) % 5], LORE_PRECISION_F32, table_rows, cols);
        }
        const lore_matrix parts[2] = {from[0].matrix, from[1].matrix};
        int32_t ids[40];
        for (int32_t r = 0; r < rows; r++) {
            ids[r] = random_below(2 * table_rows);
        }
        float *old = random_floats((size_t)rows * (size_t)cols), *results[2];
        int which = 0;
        ON_BOTH(on, at)
        {
            lore_weight *table = NULL;
            lore_error err = {0};
            CHECK_OK(lore_weight_pack(at->backend, parts, 2,
                                      i % 3 == 0 ? LORE_USE_BOTH : LORE_USE_EMBED, &table, &err),
                     &err);
            grid out = grid_new(at, old, rows, cols, 2);
            int32_t *own_ids = upload(at, ids, (size_t)rows * sizeof *ids);
            lore_op_embed(at->queue, out.view, table, own_ids, scale, i % 2 == 1);
            results[which++] = grid_take(at, &out);
            lore_backend_free(at->backend, own_ids);
            lore_weight_free(table);
        }
        source_free(&from[0]);
        source_free(&from[1]);
        lore_free(old);
        compare(on, "embed", results[1], results[0], (size_t)rows * (size_t)cols,
                6e-7); /* two roundings, one of them fused */
    }
}

CHECK_UNUSED static void cases_gather(const subject *on)
{
    for (int i = 0; i < 12; i++) {
        const int32_t rows = PICK(0, 1, 9), cols = PICK(1, 5, 16, 65);
        float *x = random_floats(20 * (size_t)cols), *results[2];
        int32_t indexes[9];
        for (int32_t r = 0; r < rows; r++) {
            indexes[r] = random_below(20);
        }
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, x, 20, cols, 1), out = grid_new(at, NULL, rows, cols, 7);
            int32_t *own = upload(at, indexes, (size_t)rows * sizeof *indexes);
            lore_op_gather(at->queue, out.view, in.view, own);
            results[which++] = grid_take(at, &out);
            lore_free(grid_take(at, &in));
            lore_backend_free(at->backend, own);
        }
        lore_free(x);
        compare(on, "gather", results[1], results[0], (size_t)rows * (size_t)cols, TOLERANCE_EXACT);
    }
}

/* ---- norms and activation ---- */

static float *run_norm(const side *at, const float *x, const float *w, const float *b, int32_t rows,
                       int32_t cols, float eps, bool is_layernorm, bool is_in_place)
{
    grid in = grid_new(at, x, rows, cols, 3), out = grid_new(at, NULL, rows, cols, 1);
    float *own_w = upload(at, w, (size_t)cols * sizeof *w),
          *own_b = b != NULL ? upload(at, b, (size_t)cols * sizeof *b) : NULL;
    grid *to = is_in_place ? &in : &out, *other = is_in_place ? &out : &in;
    if (is_layernorm) {
        lore_op_layernorm(at->queue, to->view, in.view, own_w, own_b, eps);
    } else {
        lore_op_rmsnorm(at->queue, to->view, in.view, own_w, eps);
    }
    float *got = grid_take(at, to);
    lore_free(grid_take(at, other));
    lore_backend_free(at->backend, own_w);
    lore_backend_free(at->backend, own_b);
    return got;
}

CHECK_UNUSED static void cases_norms(const subject *on)
{
    for (int i = 0; i < 40; i++) {
        const int32_t rows = PICK(0, 1, 2, 33, 150),
                      cols = PICK(2, 7, 8, 9, 15, 16, 17, 64, 100, 384, 512);
        float *x = random_floats((size_t)rows * (size_t)cols);
        const float eps =
            cols < 15 ? 0.1f : 1e-12f; /* two nearly equal numbers have no variance to divide by */
        for (size_t j = 0; j < (size_t)rows * (size_t)cols && cols >= 15; j++) {
            x[j] += 3.0f; /* a mean far from zero: E[x^2] - mean^2 would cancel */
        }
        float *w = random_floats((size_t)cols), *b = random_floats((size_t)cols);
        const float *bias = i % 8 < 4 ? b : NULL;
        float *want = run_norm(&on->ref, x, w, bias, rows, cols, eps, i % 2 == 0, false);
        float *got = run_norm(&on->test, x, w, bias, rows, cols, eps, i % 2 == 0, i % 4 < 2);
        lore_free(x);
        lore_free(w);
        lore_free(b);
        compare(on, i % 2 == 0 ? "layernorm" : "rmsnorm", got, want, (size_t)rows * (size_t)cols,
                TOLERANCE_NORM);
    }
}

CHECK_UNUSED static void cases_glu(const subject *on)
{
    for (int i = 0; i < 30; i++) {
        const int32_t rows = PICK(0, 1, 3, 40), cols = PICK(1, 7, 8, 9, 16, 17, 100, 1536);
        float *x = random_floats((size_t)rows * 2 * (size_t)cols), *results[2];
        for (int32_t j = 0; j < rows; j++) { /* exp must neither overflow nor lose its sign here */
            x[(size_t)j * 2 * (size_t)cols] = j % 2 == 0 ? 95.0f : -95.0f;
        }
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, x, rows, 2 * cols, 1), out = grid_new(at, NULL, rows, cols, 2);
            lore_op_glu(at->queue, out.view, in.view, (lore_activation)(i % ACTIVATIONS));
            results[which++] = grid_take(at, &out);
            lore_free(grid_take(at, &in));
        }
        lore_free(x);
        char what[32];
        snprintf(what, sizeof what, "glu%s", activation_names[i % ACTIVATIONS]);
        compare_above(on, what, results[1], results[0], (size_t)rows * (size_t)cols,
                      TOLERANCE_ACTIVATION, 1.0);
    }
}

/* Every activation over a fine grid of its whole range, against ref: relative where the result is
 * large, absolute where it is small. */
CHECK_UNUSED static void cases_activations(const subject *on)
{
    enum { STEPS = 40001 };
    float *x = host_new(2 * STEPS * sizeof *x), *results[2];
    for (int32_t i = 0; i < STEPS; i++) {
        x[i] = (float)(i - STEPS / 2) * 0.001f;
        x[STEPS + i] = 1.0f;
    }
    for (int activation = 0; activation < ACTIVATIONS; activation++) {
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, x, 1, 2 * STEPS, 0), out = grid_new(at, NULL, 1, STEPS, 0);
            lore_op_glu(at->queue, out.view, in.view, (lore_activation)activation);
            results[which++] = grid_take(at, &out);
            lore_free(grid_take(at, &in));
        }
        for (int32_t i = 0; i < STEPS; i++) {
            const double want = (double)results[0][i], least = fabs(want) > 1.0 ? fabs(want) : 1.0;
            if (!(fabs((double)results[1][i] - want) <= 2e-6 * least)) {
                CHECK_STOP("activation %d of %g on %s: %.9g, not %.9g", activation, (double)x[i],
                           on->name, (double)results[1][i], want);
            }
        }
        lore_free(results[0]);
        lore_free(results[1]);
    }
    lore_free(x);
    for (int activation = 0; activation < ACTIVATIONS; activation++) {
        const float special[6] = {NAN, INFINITY, -INFINITY, 1.0f, 1.0f, 1.0f};
        const bool is_tanh = activation == LORE_ACT_TANH;
        grid in = grid_new(&on->test, special, 1, 6, 0), out = grid_new(&on->test, NULL, 1, 3, 0);
        lore_op_glu(on->test.queue, out.view, in.view, (lore_activation)activation);
        float *got = grid_take(&on->test, &out);
        CHECK(isnan(got[0]));
        CHECK(is_tanh ? got[1] > 0.999999f : isinf(got[1]) && got[1] > 0.0f);
        CHECK(!is_tanh || got[2] < -0.999999f);
        lore_free(got);
        lore_free(grid_take(&on->test, &in));
    }
}

CHECK_UNUSED static void cases_add_and_softcap(const subject *on)
{
    for (int i = 0; i < 24; i++) {
        const int32_t rows = PICK(0, 1, 3, 40), cols = PICK(1, 7, 8, 9, 16, 17, 100, 20000);
        const float cap = i % 3 == 0 ? 30.0f : 0.7f;
        float *x = random_floats((size_t)rows * (size_t)cols), *results[2];
        float *y = random_floats((size_t)rows * (size_t)cols);
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, x, rows, cols, 1), out = grid_new(at, y, rows, cols, 2);
            if (i % 2 == 0) {
                lore_op_add(at->queue, out.view, in.view);
            } else {
                lore_op_softcap(at->queue, out.view, cap);
            }
            results[which++] = grid_take(at, &out);
            lore_free(grid_take(at, &in));
        }
        lore_free(x);
        lore_free(y);
        compare_above(on, i % 2 == 0 ? "add" : "softcap", results[1], results[0],
                      (size_t)rows * (size_t)cols, i % 2 == 0 ? TOLERANCE_EXACT : 2e-6, 1.0);
    }
}

/* ---- pooling ---- */

CHECK_UNUSED static void cases_pool(const subject *on)
{
    for (int i = 0; i < 18; i++) {
        const int32_t sequences = PICK(0, 1, 5), cols = PICK(1, 8, 15, 16, 17, 384);
        int32_t starts[6] = {0};
        for (int32_t s = 0; s < sequences; s++) {
            starts[s + 1] = starts[s] + 1 + random_below(9);
        }
        const int32_t rows = starts[sequences];
        float *x = random_floats((size_t)rows * (size_t)cols), *results[2];
        if (sequences == 1) { /* a zero vector stays zero, not NaN */
            memset(x, 0, (size_t)rows * (size_t)cols * sizeof *x);
        }
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, x, rows, cols, 4), out = grid_new(at, NULL, sequences, cols, 1);
            int32_t *own = upload(at, starts, sizeof starts);
            lore_op_pool(at->queue, out.view, in.view, own, (lore_pooling)(i % 3), i / 3 % 2 == 0);
            results[which++] = grid_take(at, &out);
            lore_free(grid_take(at, &in));
            lore_backend_free(at->backend, own);
        }
        lore_free(x);
        compare(on, "pool", results[1], results[0], (size_t)sequences * (size_t)cols,
                TOLERANCE_SUM);
    }
}

/* ---- rotation, pages and attention ---- */

/* Rounds queries, keys and values where the backend may: half of ln 2 is a scale that leaves a
 * rounded query rounded when it is scaled for powers of two. */
static const float ATTENTION_SCALE = 0.34657359f;
static void round_inputs(const subject *on, float *x, size_t count)
{
    for (size_t i = 0; i < count && on->precision != LORE_PRECISION_F32; i++) {
        x[i] = lore_bf16_to_f32(lore_f32_to_bf16(x[i]));
    }
}

enum { SEQUENCES_MAX = 6, PAGES_MAX = 512, POSITIONS_MAX = 1024 };

/* A batch on the host, and its copies in a side's memory. */
typedef struct plan {
    int32_t sequences, rows_max, context_max, page_tokens;
    int32_t row_start[SEQUENCES_MAX + 1], past[SEQUENCES_MAX], page_start[SEQUENCES_MAX + 1],
        pages[PAGES_MAX];
    int32_t page_count;
} plan;

static plan plan_new(int32_t sequences, int32_t rows_most, int32_t past_most, int32_t page_tokens)
{
    plan made = {.sequences = sequences, .page_tokens = page_tokens};
    for (int32_t s = 0; s < sequences; s++) {
        const int32_t rows = 1 + random_below(rows_most);
        made.past[s] = random_below(past_most + 1);
        const int32_t context = made.past[s] + rows;
        made.row_start[s + 1] = made.row_start[s] + rows;
        made.page_start[s + 1] = made.page_start[s] + (context + page_tokens - 1) / page_tokens;
        made.rows_max = rows > made.rows_max ? rows : made.rows_max;
        made.context_max = context > made.context_max ? context : made.context_max;
    }
    made.page_count =
        made.page_start[sequences] + 3; /* some that nobody owns: they must stay untouched */
    CHECK(made.page_count <= PAGES_MAX);
    shuffle(made.pages, made.page_count);
    return made;
}

typedef struct plan_copy {
    lore_batch batch;
    int32_t *memory;
} plan_copy;

static plan_copy plan_upload(const side *at, const plan *from)
{
    plan_copy made = {.memory =
                          upload(at, from->row_start, sizeof *from - offsetof(plan, row_start))};
    int32_t *next = made.memory;
    made.batch = (lore_batch){
        .sequences = from->sequences,
        .rows = from->row_start[from->sequences],
        .row_start = next,
        .past = next + SEQUENCES_MAX + 1,
        .page_start = next + 2 * SEQUENCES_MAX + 1,
        .pages = next + 3 * SEQUENCES_MAX + 2,
        .rows_max = from->rows_max,
        .context_max = from->context_max,
    };
    return made;
}

/* Pages of one layer with random contents, and what they become. */
typedef struct cache {
    lore_pages pages;
    size_t count, size_bytes;
} cache;

static cache cache_new(const side *at, const plan *from, const void *keys, const void *values,
                       lore_dtype dtype, int32_t kv_heads, int32_t head_dim)
{
    cache made = {.count =
                      (size_t)from->page_count * (size_t)(kv_heads * from->page_tokens * head_dim)};
    made.size_bytes = made.count * lore_dtype_size(dtype);
    made.pages = (lore_pages){upload(at, keys, made.size_bytes),
                              upload(at, values, made.size_bytes),
                              dtype,
                              from->page_count,
                              from->page_tokens,
                              kv_heads,
                              head_dim};
    return made;
}

/* Contents as f32, keys then values; frees the cache. */
static float *cache_take(const side *at, cache *from)
{
    void *bytes = host_new(2 * from->size_bytes);
    lore_queue_download(at->queue, bytes, from->pages.keys, from->size_bytes);
    lore_queue_download(at->queue, (char *)bytes + from->size_bytes, from->pages.values,
                        from->size_bytes);
    sync(at);
    lore_backend_free(at->backend, from->pages.keys);
    lore_backend_free(at->backend, from->pages.values);
    float *values = host_new(2 * from->count * sizeof *values);
    for (size_t i = 0; i < 2 * from->count; i++) {
        values[i] = read_as(from->pages.dtype, bytes, i);
    }
    lore_free(bytes);
    return values;
}

typedef struct decoder_shape {
    int32_t sequences, rows_most, past_most, page_tokens, group, kv_heads, head_dim;
    lore_dtype dtype;
    bool has_norms;
    int32_t rope_dim; /* 0: head_dim */
    float softcap;
    int32_t window;
} decoder_shape;

/* Cosines and sines of `dim / 2` random angles a position, or of none. */
static void random_tables(float *cosine, float *sine, int32_t dim, bool is_turning)
{
    for (size_t i = 0; i < (size_t)POSITIONS_MAX * (size_t)(dim / 2); i++) {
        const float angle = is_turning ? random_value() : 0.0f;
        cosine[i] = cosf(angle);
        sine[i] = sinf(angle);
    }
}

static void check_decoder(const subject *on, const decoder_shape *shape)
{
    const plan host =
        plan_new(shape->sequences, shape->rows_most, shape->past_most, shape->page_tokens);
    const int32_t dim = shape->head_dim, heads = shape->group * shape->kv_heads;
    const int32_t rope_dim = shape->rope_dim > 0 ? shape->rope_dim : dim;
    const int32_t rows = host.row_start[host.sequences], cols = (heads + 2 * shape->kv_heads) * dim;
    const size_t cached =
        (size_t)host.page_count * (size_t)(shape->kv_heads * host.page_tokens * dim);
    float *old = random_floats(2 * cached), *qkv = random_floats((size_t)rows * (size_t)cols);
    void *old_cache = store_as(shape->dtype, old, 2 * cached);
    const size_t table_bytes = (size_t)POSITIONS_MAX * (size_t)(rope_dim / 2) * sizeof(float);
    float *cosine = host_new(table_bytes), *sine = host_new(table_bytes);
    const bool is_bf16 = shape->dtype == LORE_BF16;
    /* Rounded queries stay so only if nothing turns or scales them. */
    const bool is_rounded = is_bf16 && on->precision != LORE_PRECISION_F32;
    const bool has_norms = shape->has_norms && !is_rounded;
    random_tables(cosine, sine, rope_dim, !is_rounded);
    round_inputs(on, qkv, (size_t)rows * (size_t)cols);
    float *norms = random_floats(2 * (size_t)dim);
    float *queries[2], *caches[2], *outs[2];
    int which = 0;
    ON_BOTH(on, at)
    {
        plan_copy copy = plan_upload(at, &host);
        cache pages = cache_new(at, &host, old_cache,
                                (char *)old_cache + cached * lore_dtype_size(shape->dtype),
                                shape->dtype, shape->kv_heads, dim);
        float *own_cosine = upload(at, cosine, table_bytes),
              *own_sine = upload(at, sine, table_bytes);
        float *own_norms = upload(at, norms, 2 * (size_t)dim * sizeof *norms);
        const lore_rope rope = {own_cosine,
                                own_sine,
                                POSITIONS_MAX,
                                heads,
                                rope_dim,
                                has_norms ? own_norms : NULL,
                                has_norms ? own_norms + dim : NULL,
                                1e-6f};
        grid in = grid_new(at, qkv, rows, cols, 6), out = grid_new(at, NULL, rows, heads * dim, 2);
        lore_op_rope_append(at->queue, in.view, &rope, &pages.pages, &copy.batch);
        lore_op_attend_paged(
            at->queue, out.view, columns(in.view, 0, heads * dim), &pages.pages, &copy.batch,
            &(lore_attention){is_rounded ? ATTENTION_SCALE : 0.31f, shape->softcap, shape->window});
        outs[which] = grid_take(at, &out);
        float *all = grid_take(at, &in); /* only the query columns are defined afterwards */
        queries[which] = host_new((size_t)rows * (size_t)(heads * dim) * sizeof *all);
        for (int32_t r = 0; r < rows; r++) {
            memcpy(queries[which] + (size_t)r * (size_t)(heads * dim),
                   all + (size_t)r * (size_t)cols, (size_t)(heads * dim) * sizeof *all);
        }
        lore_free(all);
        caches[which++] = cache_take(at, &pages);
        lore_backend_free(at->backend, own_cosine);
        lore_backend_free(at->backend, own_sine);
        lore_backend_free(at->backend, own_norms);
        lore_backend_free(at->backend, copy.memory);
    }
    lore_free(old);
    lore_free(old_cache);
    lore_free(qkv);
    lore_free(sine);
    lore_free(cosine);
    lore_free(norms);
    const size_t count = (size_t)rows * (size_t)(heads * dim);
    /* Values of bf16 pages are compared absolutely against their own spread; the largest decides,
     * some eight times it. */
    compare(on, "rope_append, queries", queries[1], queries[0], count, TOLERANCE_SUM);
    compare(on, "rope_append, pages", caches[1], caches[0], 2 * cached,
            is_bf16 ? 8 * TOLERANCE_BF16_STORE : TOLERANCE_SUM);
    compare(on, "attend_paged", outs[1], outs[0], count,
            is_bf16 ? TOLERANCE_BF16_ATTEND : 4 * TOLERANCE_EXP);
}

CHECK_UNUSED static void cases_decoder(const subject *on)
{
    for (int i = 0; i < 48; i++) {
        decoder_shape shape = {
            .sequences = PICK(0, 1, 2, 6),
            .rows_most = PICK(1, 5, 30),
            .past_most = PICK(0, 3, 40),
            .page_tokens = PICK(1, 3, 16, 32),
            .group = PICK(1, 2, 3, 4, 7),
            .kv_heads = PICK(1, 2, 3),
            .head_dim = PICK(2, 6, 16, 32, 34, 64, 80, 96, 128, 256),
            .dtype = i % 2 == 0 ? LORE_F32 : LORE_BF16,
            .has_norms = i % 3 == 0,
            .softcap = i % 4 < 2 ? 0.0f : 1.5f,
            .window = i % 8 < 4 ? 0 : PICK(1, 2, 7, 16, 31, 1000),
        };
        shape.rope_dim = i % 3 == 1 ? 2 * (1 + random_below(shape.head_dim / 2)) : 0;
        check_decoder(on, &shape);
    }
    static const decoder_shape large[] = {
        /* several blocks and runs */
        {.sequences = 2, .rows_most = 300, .past_most = 300, .group = 4, .window = 0},
        {.sequences = 2, .rows_most = 300, .past_most = 300, .group = 4, .window = 65},
        {.sequences = 1, .rows_most = 600, .past_most = 0, .group = 7, .window = 300},
        {.sequences = 1, .rows_most = 500, .past_most = 80, .group = 2, .softcap = 3.0f},
        /* decoding */
        {.sequences = 6, .rows_most = 1, .past_most = 600, .group = 4},
        {.sequences = 3, .rows_most = 1, .past_most = 900, .group = 7, .window = 300},
        {.sequences = 3, .rows_most = 2, .past_most = 900, .group = 3, .window = 257},
        {.sequences = 3, .rows_most = 8, .past_most = 900, .group = 1, .window = 5},
        /* the same with so few heads that their keys are shared out; the last has an empty part */
        {.sequences = 1, .rows_most = 1, .past_most = 1000, .group = 7, .kv_heads = 1},
        {.sequences = 1, .rows_most = 1, .past_most = 1000, .group = 2, .kv_heads = 1},
        {.sequences = 1,
         .rows_most = 9,
         .past_most = 900,
         .group = 3,
         .kv_heads = 1,
         .window = 700},
        {.sequences = 1,
         .rows_most = 20,
         .past_most = 900,
         .group = 1,
         .kv_heads = 1,
         .softcap = 2},
        {.sequences = 1,
         .rows_most = 1,
         .past_most = 1000,
         .group = 4,
         .kv_heads = 1,
         .window = 300},
    };
    for (size_t i = 0; i < 2 * (sizeof large / sizeof large[0]); i++) {
        decoder_shape shape = large[i / 2];
        shape.dtype = i % 2 == 0 ? LORE_F32 : LORE_BF16;
        shape.page_tokens = 16;
        shape.kv_heads = shape.kv_heads > 0 ? shape.kv_heads : 2;
        shape.head_dim = 64;
        check_decoder(on, &shape);
    }
}

typedef struct packed_shape {
    int32_t sequences, rows_most, group, kv_heads, head_dim;
    bool is_causal, has_empty;
    float softcap;
    int32_t window;
} packed_shape;

static void check_packed(const subject *on, const packed_shape *shape)
{
    int32_t starts[SEQUENCES_MAX + 1] = {0}, rows_max = 0;
    for (int32_t s = 0; s < shape->sequences; s++) {
        const bool is_empty = shape->has_empty && s == 1; /* a sequence of none is legal */
        const int32_t rows = is_empty ? 0 : shape->rows_most - random_below(shape->rows_most);
        starts[s + 1] = starts[s] + rows;
        rows_max = rows > rows_max ? rows : rows_max;
    }
    const int32_t heads = shape->group * shape->kv_heads, dim = shape->head_dim;
    const int32_t rows = starts[shape->sequences], cols = (heads + 2 * shape->kv_heads) * dim;
    const lore_attention attention = {ATTENTION_SCALE, shape->softcap, shape->window};
    float *x = random_floats((size_t)rows * (size_t)cols), *results[2];
    round_inputs(on, x, (size_t)rows * (size_t)cols);
    int which = 0;
    ON_BOTH(on, at)
    {
        grid in = grid_new(at, x, rows, cols, 5), out = grid_new(at, NULL, rows, heads * dim, 3);
        int32_t *own = upload(at, starts, sizeof starts);
        lore_op_attend_packed(at->queue, out.view, in.view, heads, shape->kv_heads,
                              shape->sequences, own, rows_max, shape->is_causal, &attention);
        results[which++] = grid_take(at, &out);
        lore_free(grid_take(at, &in));
        lore_backend_free(at->backend, own);
    }
    lore_free(x);
    char what[128];
    snprintf(what, sizeof what, "attend_packed %d rows, %d x %d heads of %d%s, window %d, cap %g",
             rows, shape->group, shape->kv_heads, dim, shape->is_causal ? ", causal" : "",
             shape->window, (double)shape->softcap);
    compare(on, what, results[1], results[0], (size_t)rows * (size_t)(heads * dim),
            on->precision == LORE_PRECISION_F32 ? 4 * TOLERANCE_EXP : TOLERANCE_BF16_ATTEND);
}

CHECK_UNUSED static void cases_packed_attention(const subject *on)
{
    for (int i = 0; i < 48; i++) {
        const packed_shape shape = {
            .sequences = PICK(0, 1, 3, 5),
            .rows_most = PICK(1, 2, 7, 33, 65),
            .group = i % 2 == 0 ? 1 : PICK(2, 3, 7),
            .kv_heads = PICK(1, 2, 3),
            .head_dim = PICK(1, 8, 15, 16, 32, 64, 80, 96, 100, 128, 256),
            .is_causal = i % 3 == 0,
            .has_empty = i % 4 == 0,
            .softcap = i % 5 == 0 ? 2.0f : 0.0f,
            .window = i % 4 < 2 ? 0 : PICK(1, 2, 5, 16, 64, 1000),
        };
        check_packed(on, &shape);
    }
    for (int i = 0; i < 8; i++) { /* several blocks of keys and runs of queries */
        const packed_shape shape = {.sequences = 2,
                                    .rows_most = 560,
                                    .group = i < 4 ? 1 : 3,
                                    .kv_heads = 1,
                                    .head_dim = 64,
                                    .is_causal = i % 2 == 1,
                                    .window = i % 4 < 2 ? 0 : PICK(40, 64, 129, 300)};
        check_packed(on, &shape);
    }
}

CHECK_UNUSED static void cases_rope_packed(const subject *on)
{
    for (int i = 0; i < 24; i++) {
        const int32_t heads = PICK(1, 2, 5), kv_heads = PICK(1, 2),
                      dim = PICK(2, 6, 16, 34, 64, 96);
        const int32_t rope_dim = i % 2 == 0 ? dim : 2 * (1 + random_below(dim / 2));
        const int32_t sequences = PICK(0, 1, 4), cols = (heads + 2 * kv_heads) * dim;
        int32_t starts[5] = {0};
        for (int32_t s = 0; s < sequences; s++) {
            starts[s + 1] = starts[s] + (s == 2 ? 0 : 1 + random_below(60));
        }
        const int32_t rows = starts[sequences];
        const size_t table_bytes = (size_t)POSITIONS_MAX * (size_t)(rope_dim / 2) * sizeof(float);
        float *x = random_floats((size_t)rows * (size_t)cols), *results[2];
        float *cosine = host_new(table_bytes), *sine = host_new(table_bytes);
        float *norms = random_floats(2 * (size_t)dim);
        random_tables(cosine, sine, rope_dim, true);
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, x, rows, cols, 3);
            int32_t *own = upload(at, starts, sizeof starts);
            float *own_cosine = upload(at, cosine, table_bytes),
                  *own_sine = upload(at, sine, table_bytes);
            float *own_norms = upload(at, norms, 2 * (size_t)dim * sizeof *norms);
            const lore_rope rope = {own_cosine,
                                    own_sine,
                                    POSITIONS_MAX,
                                    heads,
                                    rope_dim,
                                    i % 3 == 0 ? own_norms : NULL,
                                    i % 3 < 2 ? own_norms + dim : NULL,
                                    1e-6f};
            lore_op_rope_packed(at->queue, in.view, &rope, kv_heads, dim, sequences, own);
            results[which++] = grid_take(at, &in);
            lore_backend_free(at->backend, own);
            lore_backend_free(at->backend, own_cosine);
            lore_backend_free(at->backend, own_sine);
            lore_backend_free(at->backend, own_norms);
        }
        for (int32_t r = 0; r < rows; r++) { /* values stay as they are */
            const size_t first = (size_t)r * (size_t)cols + (size_t)((heads + kv_heads) * dim);
            CHECK(memcmp(x + first, results[1] + first, (size_t)(kv_heads * dim) * sizeof *x) == 0);
        }
        lore_free(x);
        lore_free(cosine);
        lore_free(sine);
        lore_free(norms);
        compare(on, "rope_packed", results[1], results[0], (size_t)rows * (size_t)cols,
                TOLERANCE_SUM);
    }
}

/* What ops.h says of scores that are no numbers: rows that see a NaN or an infinity become NaN,
 * those that do not (earlier ones, and those whose window has passed it) stay as they are; scores
 * of -inf weigh nothing, also where a whole block of keys has no other. */
CHECK_UNUSED static void cases_attention_not_finite(const subject *on)
{
    enum { ROWS = 600, DIM = 16, BAD = 40, WINDOW = 320 };
    static const float bad[3] = {NAN, INFINITY, -INFINITY};
    const int32_t starts[2] = {0, ROWS};
    for (int i = 0; i < 6; i++) {
        float *x = random_floats((size_t)ROWS * 3 * DIM);
        for (int32_t r = 0; r < ROWS; r++) { /* queries have a first element of 1: keys decide */
            x[r * 3 * DIM] = 1.0f;
        }
        const int32_t first_bad = i < 3 ? BAD : 0, last_bad = i < 3 ? BAD : 299;
        float *copies[2] = {NULL, NULL};
        for (int pass = 0; pass < 2; pass++) {
            for (int32_t r = first_bad; r <= last_bad && pass == 1; r++) {
                x[r * 3 * DIM + DIM] = i < 3 ? bad[i] : -INFINITY;
            }
            grid in = grid_new(&on->test, x, ROWS, 3 * DIM, 0),
                 out = grid_new(&on->test, NULL, ROWS, DIM, 0);
            int32_t *own = upload(&on->test, starts, sizeof starts);
            lore_op_attend_packed(on->test.queue, out.view, in.view, 1, 1, 1, own, ROWS, true,
                                  &(lore_attention){.scale = 0.25f, .window = i < 3 ? WINDOW : 0});
            copies[pass] = grid_take(&on->test, &out);
            lore_free(grid_take(&on->test, &in));
            lore_backend_free(on->test.backend, own);
        }
        for (int32_t r = 0; r < ROWS * DIM; r++) {
            const int32_t row = r / DIM;
            const bool is_seeing = row >= first_bad && row - WINDOW < first_bad;
            const bool is_nan = i < 2 ? is_seeing : i > 2 && row <= last_bad;
            if (i < 3 && !is_seeing) {
                CHECK_NEAR(copies[1][r], copies[0][r], 0.0);
            } else if (isnan(copies[1][r]) != is_nan) {
                CHECK_STOP("case %d on %s: row %d is %g", i, on->name, (int)row,
                           (double)copies[1][r]);
            }
        }
        lore_free(copies[0]);
        lore_free(copies[1]);
        lore_free(x);
    }
}

/* ---- sampling ---- */

static void run_sample(const side *at, const float *logits, int32_t rows, int32_t cols,
                       const lore_sample *samples, int32_t *ids, float *logprobs)
{
    grid in = grid_new(at, logits, rows, cols, 9);
    const size_t count = (size_t)rows + 2; /* one sentinel on each side */
    int32_t marks[64];
    CHECK(count <= 64);
    for (size_t i = 0; i < count; i++) {
        marks[i] = -77;
    }
    int32_t *own_ids = upload(at, marks, count * sizeof *marks);
    float *own_logprobs = upload(at, marks, count * sizeof *marks);
    lore_sample *own_samples = upload(at, samples, (size_t)rows * sizeof *samples);
    lore_op_sample(at->queue, own_ids + 1, own_logprobs + 1, in.view, own_samples);
    int32_t taken[64];
    lore_queue_download(at->queue, taken, own_ids, count * sizeof *taken);
    sync(at);
    CHECK_INT(taken[0], -77);
    CHECK_INT(taken[count - 1], -77);
    memcpy(ids, taken + 1, (size_t)rows * sizeof *ids);
    lore_queue_download(at->queue, taken, own_logprobs, count * sizeof *taken);
    sync(at);
    CHECK_INT(taken[0], -77);
    CHECK_INT(taken[count - 1], -77);
    memcpy(logprobs, taken + 1, (size_t)rows * sizeof *logprobs);
    lore_free(grid_take(at, &in));
    lore_backend_free(at->backend, own_ids);
    lore_backend_free(at->backend, own_logprobs);
    lore_backend_free(at->backend, own_samples);
}

static lore_sample random_sample(int i)
{
    lore_sample made = {.temperature =
                            i % 5 == 0 ? 0.0f : 0.3f + 2.0f * lore_random_unit(&random_state),
                        .top_p = i % 3 == 0 ? 1.0f : lore_random_unit(&random_state),
                        .top_k = i % 2 == 0 ? 0 : 1 + random_below(40),
                        .seed = lore_random_next(&random_state),
                        .position = random_below(1000)};
    return made;
}

CHECK_UNUSED static void cases_sample(const subject *on)
{
    for (int i = 0; i < 40; i++) {
        const int32_t rows = PICK(0, 1, 7), cols = PICK(1, 2, 17, 63, 1000, 5000);
        float *logits = random_floats((size_t)rows * (size_t)cols);
        lore_sample samples[7];
        for (int32_t r = 0; r < rows; r++) {
            samples[r] = random_sample(i + r);
            float *row = logits + (size_t)r * (size_t)cols;
            for (int32_t c = 0; c < cols; c++) {
                row[c] = rintf(8.0f * row[c]); /* whole numbers: ties everywhere */
            }
            row[random_below(cols)] = r % 3 == 0 ? NAN : -INFINITY;
            if (r == 5) {
                row[random_below(cols)] = INFINITY;
            }
        }
        int32_t want[7], got[7];
        float want_logprobs[7], got_logprobs[7];
        run_sample(&on->ref, logits, rows, cols, samples, want, want_logprobs);
        run_sample(&on->test, logits, rows, cols, samples, got, got_logprobs);
        lore_free(logits);
        for (int32_t r = 0; r < rows; r++) {
            CHECK_INT(got[r], want[r]);
            if (got_logprobs[r] != want_logprobs[r]) { /* equal infinities need no difference */
                CHECK_NEAR(got_logprobs[r], want_logprobs[r], TOLERANCE_LOGPROB);
            }
        }
    }
}

/* ---- scan ---- */

CHECK_UNUSED static void cases_scan(const subject *on)
{
    for (int i = 0; i < 20; i++) {
        const int32_t count = PICK(0, 1, 255, 256, 257, 1500),
                      dim = PICK(1, 15, 16, 17, 63, 64, 65, 384);
        int8_t *query = store_as(LORE_I8, NULL, (size_t)dim);
        int8_t *vectors = store_as(LORE_I8, NULL, (size_t)count * (size_t)dim);
        if (i % 4 == 0) { /* the largest sum there is */
            memset(query, -128, (size_t)dim);
            memset(vectors, -128, (size_t)count * (size_t)dim);
        }
        float *scales = random_floats((size_t)count), *results[2];
        int which = 0;
        ON_BOTH(on, at)
        {
            grid out = grid_new(at, NULL, 1, count, 1);
            int8_t *own_query = upload(at, query, (size_t)dim);
            int8_t *own_vectors = upload(at, vectors, (size_t)count * (size_t)dim);
            float *own_scales = upload(at, scales, (size_t)count * sizeof *scales);
            lore_op_scan(at->queue, out.view.data, own_query, 0.02f, own_vectors, own_scales, count,
                         dim);
            results[which++] = grid_take(at, &out);
            lore_backend_free(at->backend, own_query);
            lore_backend_free(at->backend, own_vectors);
            lore_backend_free(at->backend, own_scales);
        }
        lore_free(query);
        lore_free(vectors);
        lore_free(scales);
        compare(on, "scan", results[1], results[0], (size_t)count, TOLERANCE_INT8_SUM);
    }
}

/* ---- a subject, start to end ---- */

static void side_open(side *on, const lore_backend_options *options)
{
    lore_error err = {0};
    CHECK_OK(lore_backend_open(options, &on->backend, &err), &err);
    CHECK_OK(lore_queue_open(on->backend, &on->queue, &err), &err);
}

static void side_close(side *on)
{
    lore_queue_close(on->queue);
    lore_backend_close(on->backend);
}

/* threads 0: no pool. */
CHECK_UNUSED static void subject_open(subject *on, lore_backend_options options, int32_t threads,
                                      const char *name)
{
    lore_error err = {0};
    *on = (subject){.precision = options.precision, .name = name};
    random_state = seed_of_run();
    printf("ops on %s, seed %" PRIu64 "\n", name, random_state);
    if (threads > 0) {
        CHECK_OK(lore_pool_new(threads, &on->pool, &err), &err);
    }
    options.pool = on->pool;
    side_open(&on->test, &options);
    side_open(&on->ref, &(lore_backend_options){.kind = LORE_BACKEND_REF});
}

CHECK_UNUSED static void subject_close(subject *on)
{
    side_close(&on->ref);
    side_close(&on->test);
    lore_pool_free(on->pool);
}

/* All ops but matmul, which has precisions of its own. */
CHECK_UNUSED static void cases_small(const subject *on)
{
    cases_embed(on);
    cases_gather(on);
    cases_norms(on);
    cases_glu(on);
    cases_activations(on);
    cases_add_and_softcap(on);
    cases_pool(on);
    cases_decoder(on);
    cases_packed_attention(on);
    cases_rope_packed(on);
    cases_attention_not_finite(on);
    cases_sample(on);
    cases_scan(on);
}

#endif
