/* What this machine could do at best, measured where nothing else is in the way: arithmetic that
 * never leaves the registers, and reading of memory that no cache can hold, in the best of several
 * ways: a limit that our own loops exceed would be none. */
#include "bench/bench_peak.h"

#include "base/clock.h"
#include "base/mem.h"
#include "bench/bench_report.h"

#include <math.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    READ_BYTES = 256 << 20,
    READ_ITEMS = 64,
    STREAMS_MAX = 4,
    LINE_BYTES = 64,
    PASSES_MIN = 6,
    PRODUCTS = 20,
    PRODUCTS_WARM = 3,
    PASSES_MS = 250 /* of each limit: on a shared machine the best of a moment is not the limit */
};

int64_t lore_bench_now_ns(const lore_pool *pool)
{
    struct timespec now;
    if (lore_pool_size(pool) == 1 && clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0) {
        return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
    }
    return lore_clock_ns();
}

static double seconds_since(const lore_pool *pool, int64_t start_ns)
{
    return (double)(lore_bench_now_ns(pool) - start_ns) * 1e-9;
}

typedef double (*peak_loop)(int64_t rounds); /* gives operations done */

#if defined(__x86_64__)

#define LORE_PEAK_TARGET "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,fma"

/* Sixteen independent chains hide the latency of the multipliers; the empty asm keeps the compiler
 * from seeing that nobody reads the sums. */
#define LORE_PEAK_BODY(type, zero, step, operations)          \
    type sums[16];                                            \
    _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++)     \
    {                                                         \
        sums[i] = zero;                                       \
    }                                                         \
    for (int64_t r = 0; r < rounds; r++) {                    \
        _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) \
        {                                                     \
            sums[i] = step;                                   \
            __asm__ volatile("" : "+v"(sums[i]));             \
        }                                                     \
    }                                                         \
    return (double)rounds * 16.0 * (operations)

__attribute__((target(LORE_PEAK_TARGET))) static double peak_f32(int64_t rounds)
{
    const __m512 x = _mm512_set1_ps(0.5f);
    LORE_PEAK_BODY(__m512, _mm512_setzero_ps(), _mm512_fmadd_ps(x, x, sums[i]), 32.0);
}

__attribute__((target(LORE_PEAK_TARGET))) static double peak_bf16(int64_t rounds)
{
    const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f003f00);
    LORE_PEAK_BODY(__m512, _mm512_setzero_ps(), _mm512_dpbf16_ps(sums[i], x, x), 64.0);
}

__attribute__((target(LORE_PEAK_TARGET))) static double peak_int8(int64_t rounds)
{
    const __m512i x = _mm512_set1_epi8(3);
    LORE_PEAK_BODY(__m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(sums[i], x, x), 128.0);
}

__attribute__((target("avx2,fma"))) static double peak_f32_avx2(int64_t rounds)
{
    const __m256 x = _mm256_set1_ps(0.5f);
    LORE_PEAK_BODY(__m256, _mm256_setzero_ps(), _mm256_fmadd_ps(x, x, sums[i]), 16.0);
}

/* All eight tiles: four sums, so that four products are under way. */
__attribute__((target("amx-tile,amx-int8,amx-bf16"))) static double peak_tiles(int64_t rounds,
                                                                               bool is_int8)
{
    static const uint8_t config[64] __attribute__((aligned(64))) = {
        [0] = 1,   [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64,
        [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16};
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
    _tile_zero(4);
    _tile_zero(5);
    for (int64_t r = 0; r < rounds; r++) {
        if (is_int8) {
            _tile_dpbssd(0, 4, 5);
            _tile_dpbssd(1, 4, 5);
            _tile_dpbssd(2, 4, 5);
            _tile_dpbssd(3, 4, 5);
        } else {
            _tile_dpbf16ps(0, 4, 5);
            _tile_dpbf16ps(1, 4, 5);
            _tile_dpbf16ps(2, 4, 5);
            _tile_dpbf16ps(3, 4, 5);
        }
    }
    _tile_release();
    return (double)rounds * 4.0 * 2.0 * 16.0 * 16.0 * (is_int8 ? 64.0 : 32.0);
}

static double peak_tiles_int8(int64_t rounds)
{
    return peak_tiles(rounds / 16, true);
}

static double peak_tiles_bf16(int64_t rounds)
{
    return peak_tiles(rounds / 16, false);
}

#endif

/* The loop for a precision on this backend, or NULL where its limit is not known (plain C, int8 on
 * AVX2). */
static peak_loop find_peak(const char *name, lore_precision precision)
{
#if defined(__x86_64__)
    const bool is_avx512 = strstr(name, "AVX-512") != NULL;
    switch (precision) {
    case LORE_PRECISION_F32:
        return is_avx512 ? peak_f32 : strstr(name, "AVX2") != NULL ? peak_f32_avx2 : NULL;
    case LORE_PRECISION_BF16:
        return strstr(name, "AMX-BF16") != NULL ? peak_tiles_bf16
               : strstr(name, " BF16") != NULL  ? peak_bf16
                                                : find_peak(name, LORE_PRECISION_F32);
    case LORE_PRECISION_INT8:
        return strstr(name, "AMX-INT8") != NULL ? peak_tiles_int8 : is_avx512 ? peak_int8 : NULL;
    case LORE_PRECISION_AUTO:
        break;
    }
#else
    (void)name;
    (void)precision;
#endif
    return NULL;
}

typedef uint64_t word_vector __attribute__((vector_size(32), aligned(32)));

/* One way to read: so many streams side by side, asking for lines so far ahead (0: not at all). */
typedef struct read_pattern {
    int32_t streams;
    size_t ahead_bytes;
} read_pattern;

/* What the processor fetches by itself is the most on some machines; on others a core that asks for
 * lines of its second-level cache ahead of its loads, as matmul does, reads twice as much. */
static const read_pattern patterns[] = {{1, 0},     {2, 0},     {4, 0},     {1, 2048},
                                        {1, 16384}, {2, 16384}, {4, 16384}, {1, 98304}};
enum { PATTERNS = sizeof patterns / sizeof patterns[0] };

typedef struct peak_work {
    peak_loop loop;
    int64_t rounds;
    const word_vector *words; /* reading */
    size_t count;
    read_pattern pattern;
    double done[256]; /* of each item */
} peak_work;

static void run_peak(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    peak_work *work = self;
    for (int32_t i = begin; i < end; i++) {
        work->done[i % 256] = work->loop(work->rounds);
    }
}

/* Sum a share of a buffer far larger than the caches, two cache lines of each stream at a time. */
static inline __attribute__((always_inline)) uint64_t sum_words(const word_vector *from,
                                                                size_t count,
                                                                const read_pattern *pattern)
{
    word_vector sums[4] = {0};
    const size_t stream = count / (size_t)pattern->streams;
    const size_t ahead = pattern->ahead_bytes / sizeof *from;
    for (size_t j = 0; j + 4 <= stream; j += 4) {
        for (int32_t s = 0; s < pattern->streams; s++) {
            const word_vector *at = from + (size_t)s * stream + j;
            if (ahead > 0) { /* beyond the end too: a hint */
                const char *line = (const char *)(at + ahead);
                __builtin_prefetch(line, 0, 2);
                __builtin_prefetch(line + LINE_BYTES, 0, 2);
            }
#pragma GCC unroll 4
            for (size_t lane = 0; lane < 4; lane++) {
                sums[lane] += at[lane];
            }
        }
    }
    const word_vector all = sums[0] + sums[1] + sums[2] + sums[3];
    return all[0] + all[1] + all[2] + all[3];
}

static uint64_t sum_words_plain(const word_vector *from, size_t count, const read_pattern *pattern)
{
    return sum_words(from, count, pattern);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t sum_words_avx2(const word_vector *from,
                                                               size_t count,
                                                               const read_pattern *pattern)
{
    return sum_words(from, count, pattern);
}
#else
#define sum_words_avx2 sum_words_plain
#endif

static void run_read(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    peak_work *work = self;
    const size_t share = work->count / READ_ITEMS;
    const bool is_wide = lore_backend_isa() >= LORE_ISA_AVX2;
    for (int32_t i = begin; i < end; i++) {
        const word_vector *from = work->words + (size_t)i * share;
        work->done[i] = (double)(is_wide ? sum_words_avx2(from, share, &work->pattern)
                                         : sum_words_plain(from, share, &work->pattern));
    }
}

double lore_bench_peak(lore_pool *pool, const char *name, lore_precision precision)
{
    const int32_t threads = lore_pool_size(pool);
    peak_work work = {.loop = find_peak(name, precision), .rounds = 400000};
    double best = 0.0;
    const int64_t until = lore_clock_ns() + PASSES_MS * INT64_C(1000000);
    for (int i = 0; work.loop != NULL && (i < PASSES_MIN || lore_clock_ns() < until); i++) {
        const int64_t start = lore_bench_now_ns(pool);
        lore_pool_for(pool, 4 * threads, 1, false, run_peak, &work);
        const double rate = 4.0 * threads * work.done[0] / seconds_since(pool, start);
        best = rate > best ? rate : best;
    }
    return best;
}

/* The pages are touched by the threads that read them, as they are where a weight is packed. */
static void fill_words(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const peak_work *work = self;
    const size_t share = work->count / READ_ITEMS;
    memset((void *)(uintptr_t)(work->words + (size_t)begin * share), 1,
           (size_t)(end - begin) * share * sizeof *work->words);
}

lore_status lore_bench_read_peak(lore_pool *pool, double *best, double *median, lore_error *err)
{
    peak_work work = {.words = lore_alloc_aligned(READ_BYTES),
                      .count = READ_BYTES / sizeof(word_vector)};
    if (work.words == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the memory benchmark");
    }
    lore_pool_for(pool, READ_ITEMS, 1, false, fill_words, &work);
    lore_bench_samples rates[PATTERNS] = {0};
    const int64_t until = lore_clock_ns() + PATTERNS * PASSES_MS / 2 * INT64_C(1000000);
    for (int i = 0; i < PATTERNS * PASSES_MIN || lore_clock_ns() < until; i++) {
        work.pattern = patterns[i % PATTERNS]; /* in turn: the machine's moods meet all of them */
        const int64_t start = lore_bench_now_ns(pool);
        lore_pool_for(pool, READ_ITEMS, 1, false, run_read, &work);
        lore_bench_sample(&rates[i % PATTERNS], READ_BYTES / seconds_since(pool, start));
    }
    lore_free_aligned((void *)(uintptr_t)work.words);
    lore_status status = LORE_OK;
    *best = *median = 0.0;
    for (int i = 0; i < PATTERNS; i++) {
        if (status == LORE_OK) {
            status = lore_bench_samples_check(&rates[i], "reading memory", err);
        }
        if (status == LORE_OK) {
            *best = fmax(*best, lore_bench_percentile(&rates[i], 100.0));
            *median = fmax(*median, lore_bench_percentile(&rates[i], 50.0));
        }
        lore_bench_samples_destroy(&rates[i]);
    }
    return status;
}

/* ---- the products of a device ---- */

typedef struct product {
    lore_backend *backend;
    lore_queue *queue;
    lore_weight *weights[2]; /* [size, size], [2 size, size] */
    float *x, *out;          /* of the backend */
    int32_t size;
} product;

static void product_close(product *p)
{
    lore_weight_free(p->weights[0]);
    lore_weight_free(p->weights[1]);
    lore_backend_free(p->backend, p->x);
    lore_backend_free(p->backend, p->out);
    lore_queue_close(p->queue);
}

void lore_bench_draw(uint64_t *words, size_t count)
{
    uint64_t state = 20261122;
    for (size_t i = 0; i < count; i++) {
        words[i] = (lore_random_next(&state) & UINT64_C(0x81ff81ff81ff81ff)) |
                   UINT64_C(0x3e003e003e003e00);
    }
}

static lore_status product_open(product *p, const uint64_t *numbers, lore_error *err)
{
    const size_t bytes = (size_t)p->size * (size_t)p->size * sizeof(float);
    void *x = NULL, *out = NULL;
    lore_status status = lore_queue_open(p->backend, &p->queue, err);
    for (int32_t i = 0; i < 2 && status == LORE_OK; i++) {
        const lore_matrix matrix = {
            .dtype = LORE_BF16, .rows = (i + 1) * p->size, .cols = p->size, .data = numbers};
        status = lore_weight_pack(p->backend, &matrix, 1, LORE_USE_MATMUL, &p->weights[i], err);
    }
    if (status == LORE_OK) {
        status = lore_backend_alloc(p->backend, bytes, &x, err);
        p->x = x;
    }
    if (status == LORE_OK) {
        status = lore_backend_alloc(p->backend, 2 * bytes, &out, err);
        p->out = out;
    }
    if (status == LORE_OK) {
        lore_queue_upload(p->queue, p->x, numbers, bytes);
        status = lore_queue_sync(p->queue, err);
    }
    return status;
}

static lore_status time_product(product *p, int which, double *seconds, lore_error *err)
{
    const lore_dtype dtype = lore_backend_activation_dtype(p->backend);
    const int64_t begin = lore_clock_ns();
    lore_op_matmul(p->queue, lore_view_as(dtype, p->out, p->size, (which + 1) * p->size),
                   lore_view_as(dtype, p->x, p->size, p->size), p->weights[which],
                   (lore_epilogue){0});
    const lore_status status = lore_queue_sync(p->queue, err);
    *seconds = (double)(lore_clock_ns() - begin) * 1e-9;
    return status;
}

lore_status lore_bench_product_peak(lore_backend *backend, int32_t size, double *rate,
                                    lore_error *err)
{
    product p = {.backend = backend, .size = size};
    lore_bench_samples more = {0}, all = {0};
    const size_t words = (size_t)size * (size_t)size / 2; /* of the larger weight, and of x */
    uint64_t *numbers = lore_alloc_aligned(words * sizeof *numbers);
    if (numbers == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the matrix benchmark");
    }
    lore_bench_draw(numbers, words);
    lore_status status = product_open(&p, numbers, err);
    for (int i = 0; i < PRODUCTS_WARM + PRODUCTS && status == LORE_OK; i++) {
        double once = 0.0, twice = 0.0;
        status = time_product(&p, 0, &once, err);
        if (status == LORE_OK) {
            status = time_product(&p, 1, &twice, err);
        }
        if (i >= PRODUCTS_WARM) {
            lore_bench_sample(&more, twice - once);
            lore_bench_sample(&all, twice);
        }
    }
    product_close(&p);
    lore_free_aligned(numbers);
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&more, "products", err);
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&all, "products", err);
    }
    if (status == LORE_OK) {
        const double operations = 2.0 * size * (double)size * size;
        const double difference = lore_bench_percentile(&more, 50.0);
        *rate = 2.0 * operations / lore_bench_percentile(&all, 50.0);
        if (difference > 0.0) { /* else the clock is too coarse for so small a product */
            *rate = fmax(*rate, operations / difference);
        }
    }
    lore_bench_samples_destroy(&more);
    lore_bench_samples_destroy(&all);
    return status;
}
