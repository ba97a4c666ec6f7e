/* What the cases of tests/ops share: a backend under test beside ref, random inputs, memory on both
 * with sentinels around it, and how two results are compared.
 *
 * A seed printed with a failure replays with LORE_TEST_SEED. */
#ifndef LORE_TESTS_OPS_SUBJECT_H
#define LORE_TESTS_OPS_SUBJECT_H

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
 * EXP         approximations of exp, good to some units in the last place; five times that for
 *             attention, where rounding a query or a key moves a score of some hundreds as much
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

CHECK_UNUSED static int32_t pick(const int32_t *values, size_t count)
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

CHECK_UNUSED static float *random_floats(size_t count)
{
    float *values = host_new(count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        values[i] = random_value();
    }
    return values;
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

CHECK_UNUSED static void *store_as(lore_dtype dtype, const float *values, size_t count)
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

CHECK_UNUSED static float read_as(lore_dtype dtype, const void *data, size_t i)
{
    return dtype == LORE_F16    ? lore_f16_to_f32(((const uint16_t *)data)[i])
           : dtype == LORE_BF16 ? lore_bf16_to_f32(((const uint16_t *)data)[i])
                                : ((const float *)data)[i];
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
    char *memory;
    lore_view view;
    size_t count; /* elements allocated */
    float sentinel;
} grid;

static void put_as(lore_dtype dtype, void *to, size_t i, float value)
{
    if (dtype == LORE_BF16) {
        ((uint16_t *)to)[i] = lore_f32_to_bf16(value);
    } else {
        ((float *)to)[i] = value;
    }
}

/* values NULL: NaN, which an output has to replace. */
static grid grid_typed(const side *on, lore_dtype dtype, float sentinel, const float *values,
                       int32_t rows, int32_t cols, int32_t gap)
{
    const size_t stride = (size_t)(cols + gap), size = lore_dtype_size(dtype);
    grid made = {.count = 2 * SENTINELS + (size_t)rows * stride, .sentinel = sentinel};
    char *host = host_new(made.count * size);
    for (size_t i = 0; i < made.count; i++) {
        put_as(dtype, host, i, sentinel);
    }
    for (int32_t r = 0; r < rows; r++) {
        for (int32_t c = 0; c < cols; c++) {
            put_as(dtype, host, SENTINELS + (size_t)r * stride + (size_t)c,
                   values != NULL ? values[(int64_t)r * cols + c] : NAN);
        }
    }
    made.memory = upload(on, host, made.count * size);
    made.view = lore_view_as(dtype, made.memory + SENTINELS * size, rows, cols);
    made.view.stride = (int64_t)stride;
    lore_free(host);
    return made;
}

CHECK_UNUSED static grid grid_new(const side *on, const float *values, int32_t rows, int32_t cols,
                                  int32_t gap)
{
    return grid_typed(on, LORE_F32, SENTINEL, values, rows, cols, gap);
}

/* The columns first .. first+cols-1 of a view. */
CHECK_UNUSED static lore_view columns(lore_view view, int32_t first, int32_t cols)
{
    view.data += first;
    view.cols = cols;
    return view;
}

/* The values of the view, row after row; checks all sentinels. Frees the grid. */
CHECK_UNUSED static float *grid_take(const side *on, grid *from)
{
    const lore_view view = from->view;
    const size_t size = lore_dtype_size(view.dtype);
    char *host = host_new(from->count * size), sentinel[sizeof(float)];
    put_as(view.dtype, sentinel, 0, from->sentinel);
    lore_queue_download(on->queue, host, from->memory, from->count * size);
    sync(on);
    lore_backend_free(on->backend, from->memory);
    float *values = host_new((size_t)view.rows * (size_t)view.cols * sizeof *values);
    for (size_t i = 0; i < from->count; i++) {
        const int64_t at = (int64_t)i - SENTINELS;
        const int64_t row = at < 0 ? -1 : at / view.stride, col = at < 0 ? -1 : at % view.stride;
        if (row >= 0 && row < view.rows && col < view.cols) {
            values[row * view.cols + col] = read_as(view.dtype, host, i);
        } else if (memcmp(host + i * size, sentinel, size) != 0) {
            CHECK_STOP("wrote %g outside the output, at row %" PRId64 " column %" PRId64,
                       (double)read_as(view.dtype, host, i), row, col);
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

CHECK_UNUSED static void compare(const subject *on, const char *what, float *got, float *want,
                                 size_t count, double tolerance)
{
    compare_above(on, what, got, want, count, tolerance, 1e-30);
}

/* The statement behind it once for each side, ref first, with `at` naming it. */
#define ON_BOTH(on, at) for (const side *at = &(on)->ref; at <= &(on)->test; at++)

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

/* A subject of a run on an accelerator: cuda, or the backend that LORE_TEST_BACKEND names (ref,
 * cpu, cuda), to try the cases themselves. ref computes in f32 alone. Without a device the test
 * ends. */
CHECK_UNUSED static void subject_of_run(subject *on, lore_precision precision)
{
    static char named[64];
    const char *name = getenv("LORE_TEST_BACKEND");
    lore_backend_options options = {.kind = LORE_BACKEND_CUDA, .precision = precision};
    if (name != NULL && strcmp(name, "cpu") == 0) {
        options.kind = LORE_BACKEND_CPU;
    } else if (name != NULL && strcmp(name, "ref") == 0) {
        options = (lore_backend_options){.kind = LORE_BACKEND_REF, .precision = LORE_PRECISION_F32};
    } else if (lore_backend_cuda_count() == 0) {
        CHECK_SKIP("no CUDA device here, or built without CUDA");
    }
    snprintf(named, sizeof named, "%s %s", name != NULL ? name : "cuda",
             lore_precision_name(options.precision));
    subject_open(on, options, 0, named);
}

CHECK_UNUSED static bool is_on_device(const subject *on)
{
    return lore_backend_get_kind(on->test.backend) == LORE_BACKEND_CUDA;
}

CHECK_UNUSED static void subject_close(subject *on)
{
    side_close(&on->ref);
    side_close(&on->test);
    lore_pool_free(on->pool);
}

#endif
