/* Loops of the small ops over one row, in words (simd_int.h); included once for each instruction
 * set. All are bound by the reading and writing of their row; formulas and sources are in ops.h. */
#include "kernels/cpu/cpu_int.h"
#include "kernels/cpu/simd_int.h"

/* The sum of x, or of (x - mean)^2: in four lines, so that additions need not wait for one another.
 * is_squared must be a constant where this is inlined. */
LORE_INLINE float sum_row(const bool is_squared, const float *x, float mean, int32_t n)
{
    enum { LINES = 4 };
    const vf middle = vf_set(mean);
    vf sums[LINES] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    int32_t i = 0;
    for (; i + LINES * VF_WIDTH <= n; i += LINES * VF_WIDTH) {
#pragma GCC unroll 4
        for (int32_t j = 0; j < LINES; j++) {
            const vf lanes = vf_sub(vf_load(x + i + j * VF_WIDTH), middle);
            sums[j] = is_squared ? vf_fma(lanes, lanes, sums[j]) : vf_add(sums[j], lanes);
        }
    }
    for (; i < n; i += VF_WIDTH) {
        vf lanes = vf_sub(vf_load_some(x + i, n - i), middle);
        lanes = vf_fills(n - i) ? lanes : vf_first(lanes, n - i, 0.0f);
        sums[0] = is_squared ? vf_fma(lanes, lanes, sums[0]) : vf_add(sums[0], lanes);
    }
    return vf_sum(vf_add(vf_add(sums[0], sums[1]), vf_add(sums[2], sums[3])));
}

static float sum_squares(const float *x, int32_t n)
{
    return sum_row(true, x, 0.0f, n);
}

static void rmsnorm(float *out, const float *x, const float *w, float eps, int32_t n)
{
    const vf inverse = vf_set(1.0f / sqrtf(sum_squares(x, n) / (float)n + eps));
    for (int32_t i = 0; i < n; i += VF_WIDTH) {
        const vf lanes = vf_mul(vf_load_some(x + i, n - i), inverse);
        vf_store_some(out + i, n - i, vf_mul(lanes, vf_load_some(w + i, n - i)));
    }
}

static void layernorm(float *out, const float *x, const float *w, const float *b, float eps,
                      int32_t n)
{
    const float mean = sum_row(false, x, 0.0f, n) / (float)n;
    /* A second pass over a cached row, against the cancellation of E[x^2] - mean^2. */
    const vf inverse = vf_set(1.0f / sqrtf(sum_row(true, x, mean, n) / (float)n + eps));
    for (int32_t i = 0; i < n; i += VF_WIDTH) {
        const vf lanes = vf_mul(vf_sub(vf_load_some(x + i, n - i), vf_set(mean)), inverse);
        const vf bias = b != NULL ? vf_load_some(b + i, n - i) : vf_zero();
        vf_store_some(out + i, n - i, vf_fma(lanes, vf_load_some(w + i, n - i), bias));
    }
}

LORE_INLINE void glu_as(const lore_activation activation, float *out, const float *gate,
                        const float *up, int32_t n)
{
    for (int32_t i = 0; i < n; i += VF_WIDTH) {
        const vf lanes = vf_activate(vf_load_some(gate + i, n - i), activation);
        vf_store_some(out + i, n - i, vf_mul(lanes, vf_load_some(up + i, n - i)));
    }
}

/* One loop for each activation that gated networks use. */
static void glu(float *out, const float *gate, const float *up, lore_activation activation,
                int32_t n)
{
    if (activation == LORE_ACT_SILU) {
        glu_as(LORE_ACT_SILU, out, gate, up, n);
    } else if (activation == LORE_ACT_GELU) {
        glu_as(LORE_ACT_GELU, out, gate, up, n);
    } else if (activation == LORE_ACT_GELU_TANH) {
        glu_as(LORE_ACT_GELU_TANH, out, gate, up, n);
    } else {
        glu_as(activation, out, gate, up, n);
    }
}

LORE_INLINE vf load_any(const void *values, lore_dtype dtype, int32_t i)
{
    switch (dtype) {
    case LORE_F16:
        return vf_load_f16((const uint16_t *)values + i);
    case LORE_BF16:
        return vf_load_bf16((const uint16_t *)values + i);
    case LORE_I8:
        return vf_load_i8((const int8_t *)values + i);
    case LORE_F32:
    case LORE_I32:
    case LORE_I4:
        break;
    }
    return vf_load((const float *)values + i);
}

static void embed(float *out, const void *values, lore_dtype dtype, float scale,
                  bool is_accumulating, int32_t n)
{
    for (int32_t i = 0; i < n; i += VF_WIDTH) {
        const int32_t left = n - i;
        vf lanes;
        if (vf_fills(left)) {
            lanes = load_any(values, dtype, i);
        } else { /* the table may end here: take the rest through a buffer */
            float buffer[VF_WIDTH] = {0};
            const size_t size = lore_dtype_size(dtype);
            memcpy(buffer, (const char *)values + (size_t)i * size, (size_t)left * size);
            lanes = load_any(buffer, dtype, 0);
        }
        lanes = vf_mul(lanes, vf_set(scale));
        if (is_accumulating) {
            lanes = vf_add(lanes, vf_load_some(out + i, left));
        }
        vf_store_some(out + i, left, lanes);
    }
}

/* The next min(left, VF_WIDTH) elements of an f32 or bf16 row. */
LORE_INLINE void store_any(void *out, lore_dtype dtype, int32_t i, int32_t left, vf lanes)
{
    if (dtype == LORE_F32) {
        vf_store_some((float *)out + i, left, lanes);
    } else if (vf_fills(left)) {
        vf_store_bf16((uint16_t *)out + i, lanes);
    } else {
        uint16_t halves[VF_WIDTH];
        vf_store_bf16(halves, lanes);
        memcpy((uint16_t *)out + i, halves, (size_t)left * sizeof halves[0]);
    }
}

static void convert(void *out, lore_dtype dtype, const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i += VF_WIDTH) {
        store_any(out, dtype, i, n - i, vf_load_some(x + i, n - i));
    }
}

static void rotate(void *out, lore_dtype dtype, const float *x, const float *w, float eps,
                   const float *cosine, const float *sine, int32_t dim, int32_t n)
{
    const int32_t half = dim / 2;
    const float inverse = w != NULL ? 1.0f / sqrtf(sum_squares(x, n) / (float)n + eps) : 1.0f;
    for (int32_t i = 0; i < half; i += VF_WIDTH) {
        const int32_t left = half - i;
        vf a = vf_load_some(x + i, left), b = vf_load_some(x + half + i, left);
        if (w != NULL) {
            a = vf_mul(vf_mul(a, vf_set(inverse)), vf_load_some(w + i, left));
            b = vf_mul(vf_mul(b, vf_set(inverse)), vf_load_some(w + half + i, left));
        }
        const vf c = vf_load_some(cosine + i, left), s = vf_load_some(sine + i, left);
        store_any(out, dtype, i, left, vf_sub(vf_mul(a, c), vf_mul(b, s)));
        store_any(out, dtype, half + i, left, vf_fma(b, c, vf_mul(a, s)));
    }
    for (int32_t i = dim; i < n; i += VF_WIDTH) {
        vf lanes = vf_load_some(x + i, n - i);
        if (w != NULL) {
            lanes = vf_mul(vf_mul(lanes, vf_set(inverse)), vf_load_some(w + i, n - i));
        }
        store_any(out, dtype, i, n - i, lanes);
    }
}

static void add(float *out, const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i += VF_WIDTH) {
        vf_store_some(out + i, n - i,
                      vf_add(vf_load_some(out + i, n - i), vf_load_some(x + i, n - i)));
    }
}

static void multiply(float *out, float factor, int32_t n)
{
    for (int32_t i = 0; i < n; i += VF_WIDTH) {
        vf_store_some(out + i, n - i, vf_mul(vf_load_some(out + i, n - i), vf_set(factor)));
    }
}

static void softcap(float *x, float cap, int32_t n)
{
    const vf factor = vf_set(cap), inverse = vf_set(1.0f / cap);
    for (int32_t i = 0; i < n; i += VF_WIDTH) {
        const vf lanes = vf_tanh(vf_mul(vf_load_some(x + i, n - i), inverse));
        vf_store_some(x + i, n - i, vf_mul(lanes, factor));
    }
}

static float clean(float *x, int32_t count)
{
    const vf lowest = vf_set(-INFINITY);
    vf top = lowest;
    for (int32_t i = 0; i < count; i += VF_WIDTH) {
        const int32_t left = count - i;
        vf lanes = vf_max(vf_load_some(x + i, left), lowest); /* a NaN gives the second */
        vf_store_some(x + i, left, lanes);
        top = vf_max(top, vf_fills(left) ? lanes : vf_first(lanes, left, -INFINITY));
    }
    return vf_top(top);
}

static double sum_exp(const float *x, int32_t count, float top)
{
    double sum = 0.0;
    if (isinf(top)) { /* differences to an infinity are not numbers: only its equals count */
        for (int32_t i = 0; i < count; i++) {
            sum += x[i] == top ? 1.0 : 0.0;
        }
        return sum;
    }
    enum { BLOCK = 1024 }; /* f32 sums of a block, double sums of blocks */
    for (int32_t first = 0; first < count; first += BLOCK) {
        const int32_t end = count - first < BLOCK ? count : first + BLOCK;
        vf lanes = vf_zero();
        for (int32_t i = first; i < end; i += VF_WIDTH) {
            vf e = vf_exp(vf_sub(vf_load_some(x + i, end - i), vf_set(top)));
            lanes = vf_add(lanes, vf_fills(end - i) ? e : vf_first(e, end - i, 0.0f));
        }
        sum += (double)vf_sum(lanes);
    }
    return sum;
}

#if defined(__AVX512VNNI__)

/* vpdpbusd takes unsigned bytes on one side only. The vectors' bytes, flipped in their top bit, are
 * themselves plus 128, so that what comes out too much is 128 * sum(query): the same for every
 * vector. */
static void dot_i8(int32_t *sums, const int8_t *query, const int8_t *vectors, int64_t count,
                   int32_t n)
{
    int32_t query_sum = 0;
    for (int32_t i = 0; i < n; i++) {
        query_sum += query[i];
    }
    const __m512i flip = _mm512_set1_epi8((char)-128);
    for (int64_t v = 0; v < count; v++) {
        const int8_t *from = vectors + v * n;
        __m512i sum = _mm512_setzero_si512();
        int32_t i = 0;
        for (; i + 64 <= n; i += 64) {
            const __m512i bytes = _mm512_xor_si512(_mm512_loadu_si512(from + i), flip);
            sum = _mm512_dpbusd_epi32(sum, bytes, _mm512_loadu_si512(query + i));
        }
        if (i < n) { /* absent bytes meet zeros of the query */
            const __m512i bytes = _mm512_maskz_loadu_epi8(((__mmask64)1 << (n - i)) - 1, from + i);
            sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(bytes, flip),
                                      _mm512_loadu_si512(query + i));
        }
        sums[v] = _mm512_reduce_add_epi32(sum) - 128 * query_sum;
    }
}

#elif defined(__AVX2__)

static void dot_i8(int32_t *sums, const int8_t *query, const int8_t *vectors, int64_t count,
                   int32_t n)
{
    for (int64_t v = 0; v < count; v++) {
        const int8_t *from = vectors + v * n;
        __m256i lanes = _mm256_setzero_si256();
        int32_t i = 0;
        for (; i + 16 <= n; i += 16) {
            const __m256i a =
                _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(from + i)));
            const __m256i b =
                _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(query + i)));
            lanes = _mm256_add_epi32(lanes, _mm256_madd_epi16(a, b));
        }
        __m128i four =
            _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
        int32_t sum = _mm_cvtsi128_si32(four);
        for (; i < n; i++) {
            sum += from[i] * query[i];
        }
        sums[v] = sum;
    }
}

#else

static void dot_i8(int32_t *sums, const int8_t *query, const int8_t *vectors, int64_t count,
                   int32_t n)
{
    for (int64_t v = 0; v < count; v++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < n; i++) {
            sum += vectors[v * n + i] * query[i];
        }
        sums[v] = sum;
    }
}

#endif
