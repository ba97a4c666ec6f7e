/* Matmul on AVX2: f32 and bf16 by fused multiply-add, int8 by vpmaddwd, int4 by vpmaddubsw.
 *
 * int8 takes the exact way: weights are sign-extended to int16 on load and pairs of products summed
 * into int32. (vpmaddubsw would be twice as fast, but it saturates at 16 bits, and the sums must be
 * those of every other set.) int4 weights are too small to saturate anything: eight products of 15
 * and 127 pairwise summed, four times over, end below 2^15, and are then widened. */
#include "kernels/cpu/cpu_matmul_body.h"

#include "kernels/cpu/cpu_matmul_bf16_body.h"

enum { INT8_PANEL = 16 };

LORE_INLINE __m256i load_words(const int8_t *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
}

LORE_INLINE __m256i set_pair(const int16_t *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return _mm256_set1_epi32(pair);
}

LORE_INLINE __m256i add_pairs(__m256i sum, __m256i a, __m256i b)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}

LORE_INLINE void sum_rows(const int32_t rows, int32_t groups, const int16_t *a, int64_t a_stride,
                          const int8_t *b, int32_t *sums)
{
    __m256i sum[6][2];
#pragma GCC unroll 6
    for (int32_t r = 0; r < rows; r++) {
        sum[r][0] = _mm256_setzero_si256();
        sum[r][1] = _mm256_setzero_si256();
    }
    for (int32_t g = 0; g < groups; g++, b += 2 * INT8_PANEL) {
        const __m256i low = load_words(b), high = load_words(b + INT8_PANEL);
#pragma GCC unroll 6
        for (int32_t r = 0; r < rows; r++) {
            const __m256i x = set_pair(a + r * a_stride + 2 * g);
            sum[r][0] = add_pairs(sum[r][0], x, low);
            sum[r][1] = add_pairs(sum[r][1], x, high);
        }
    }
#pragma GCC unroll 6
    for (int32_t r = 0; r < rows; r++) {
        _mm256_storeu_si256((__m256i *)(void *)(sums + r * INT8_PANEL), sum[r][0]);
        _mm256_storeu_si256((__m256i *)(void *)(sums + r * INT8_PANEL + 8), sum[r][1]);
    }
}

static void sum_int8(const lore_tile *tile)
{
    const int64_t stride = tile->a_stride / (int64_t)sizeof(int16_t);
    const int32_t groups = tile->groups;
    const void *a = tile->a, *b = tile->b;
    void *sums = tile->sums;
    switch (tile->rows) {
    case 1:
        sum_rows(1, groups, a, stride, b, sums);
        return;
    case 2:
        sum_rows(2, groups, a, stride, b, sums);
        return;
    case 3:
        sum_rows(3, groups, a, stride, b, sums);
        return;
    case 4:
        sum_rows(4, groups, a, stride, b, sums);
        return;
    case 5:
        sum_rows(5, groups, a, stride, b, sums);
        return;
    default:
        sum_rows(6, groups, a, stride, b, sums);
        return;
    }
}

static const lore_matmul_form form_int8 = {LORE_ROW_S16, 6, true, false, NULL, NULL, sum_int8};

/* ---- int8 and int4 in units ---- */

enum { INT4_COLUMNS = 8, INT4_ROWS = 4, WIDEN_GROUPS = 4, INT4_LINE = 4 * INT8_PANEL };

LORE_INLINE __m256i set_bytes(const char *p)
{
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

/* Four groups (a whole part of every unit) in sums of 16 bits, added to those of 32. */
LORE_INLINE void sum_four_groups(const int32_t rows, const char *a, int64_t a_stride, const char *b,
                                 __m256i sum[INT4_ROWS][2])
{
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256i words[INT4_ROWS][2];
#pragma GCC unroll 4
    for (int32_t g = 0; g < WIDEN_GROUPS; g++) {
#pragma GCC unroll 2
        for (int32_t v = 0; v < 2; v++) {
            const __m256i both = _mm256_loadu_si256((const void *)(b + g * INT4_LINE + 32 * v));
            const __m256i first = _mm256_and_si256(both, low);
            const __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
#pragma GCC unroll 4
            for (int32_t r = 0; r < rows; r++) {
                const char *x = a + r * a_stride + g * INT4_COLUMNS;
                const __m256i pairs =
                    _mm256_add_epi16(_mm256_maddubs_epi16(first, set_bytes(x)),
                                     _mm256_maddubs_epi16(second, set_bytes(x + 4)));
                words[r][v] = g == 0 ? pairs : _mm256_add_epi16(words[r][v], pairs);
            }
        }
    }
#pragma GCC unroll 4
    for (int32_t r = 0; r < rows; r++) {
        sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(words[r][0], ones));
        sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(words[r][1], ones));
    }
}

/* Two bytes of a row as two words, in all lanes. */
LORE_INLINE __m256i set_byte_pair(const char *p)
{
    int16_t pair;
    memcpy(&pair, p, sizeof pair);
    return _mm256_cvtepi8_epi16(_mm_set1_epi16(pair));
}

/* The integer sums of `groups` pairs of columns; the weights are unsigned bytes. */
LORE_INLINE void sum_pairs(const int32_t rows, int32_t groups, const char *a, int64_t a_stride,
                           const char *b, __m256i sum[INT4_ROWS][2])
{
    for (int32_t g = 0; g < groups; g++, a += 2, b += 2 * INT8_PANEL) {
        const __m256i low = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)b));
        const __m256i high = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(b + INT8_PANEL)));
#pragma GCC unroll 4
        for (int32_t r = 0; r < rows; r++) {
            const __m256i x = set_byte_pair(a + r * a_stride);
            sum[r][0] = add_pairs(sum[r][0], x, low);
            sum[r][1] = add_pairs(sum[r][1], x, high);
        }
    }
}

/* Multiply the sums of a unit with its scales and add them to those before it. */
LORE_INLINE void add_unit(const int32_t rows, const lore_tile *tile, const char *plane,
                          int32_t index, const char *scales, bool is_first,
                          __m256i sum[INT4_ROWS][2])
{
#pragma GCC unroll 2
    for (int32_t v = 0; v < 2; v++) {
        const vf scale = vf_load((const float *)(const void *)scales + v * VF_WIDTH);
        const char *zeros = scales + INT8_PANEL * sizeof(float) + 8 * (size_t)v;
        __m256i zero = _mm256_set1_epi32(tile->zero);
        if (tile->has_zeros) { /* else nothing lies there */
            zero = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)zeros));
        }
#pragma GCC unroll 4
        for (int32_t r = 0; r < rows; r++) {
            const lore_unit *unit = lore_tile_unit(tile, plane, r, index);
            float *out = (float *)tile->sums + r * INT8_PANEL + v * VF_WIDTH;
            const __m256i centred =
                _mm256_sub_epi32(sum[r][v], _mm256_mullo_epi32(zero, _mm256_set1_epi32(unit->sum)));
            vf_store(out, vf_fma(_mm256_cvtepi32_ps(centred), vf_mul(scale, vf_set(unit->scale)),
                                 is_first ? vf_zero() : vf_load(out)));
        }
    }
}

/* One unit of a plane. */
LORE_INLINE void sum_unit(const int32_t rows, const bool is_int4, const lore_tile *tile,
                          const char *plane, int32_t index, const char *b, const char *scales,
                          bool is_first)
{
    const int32_t groups = tile->unit_groups;
    const char *a = plane + (int64_t)index * groups * (is_int4 ? INT4_COLUMNS : 2);
    __m256i sum[INT4_ROWS][2];
#pragma GCC unroll 4
    for (int32_t r = 0; r < rows; r++) {
        sum[r][0] = _mm256_setzero_si256();
        sum[r][1] = _mm256_setzero_si256();
    }
    if (is_int4) {
        for (int32_t g = 0; g < groups; g += WIDEN_GROUPS) {
            sum_four_groups(rows, a, tile->a_stride, b, sum);
            a += WIDEN_GROUPS * INT4_COLUMNS;
            b += WIDEN_GROUPS * INT4_LINE;
        }
    } else {
        sum_pairs(rows, groups, a, tile->a_stride, b, sum);
    }
    add_unit(rows, tile, plane, index, scales, is_first, sum);
}

LORE_INLINE void sum_rows_units(const int32_t rows, const bool is_int4, const lore_tile *tile)
{
    const char *a = tile->a, *b = tile->b;
    for (int32_t u = 0; u < tile->groups / tile->unit_groups; u++) {
        const char *scales = b + tile->unit_groups * (is_int4 ? INT4_LINE : 2 * INT8_PANEL);
        sum_unit(rows, is_int4, tile, a, u, b, scales, u == 0);
        if (!is_int4 && lore_tile_has_low(tile, u)) {
            sum_unit(rows, is_int4, tile, a + tile->low, u, b, scales, false);
        }
        b = scales + (size_t)INT8_PANEL * (sizeof(float) + (tile->has_zeros ? 1 : 0));
    }
}

static void sum_int4(const lore_tile *tile)
{
    switch (tile->rows) {
    case 1:
        sum_rows_units(1, true, tile);
        return;
    case 2:
        sum_rows_units(2, true, tile);
        return;
    case 3:
        sum_rows_units(3, true, tile);
        return;
    default:
        sum_rows_units(4, true, tile);
        return;
    }
}

static void sum_int8_units(const lore_tile *tile)
{
    switch (tile->rows) {
    case 1:
        sum_rows_units(1, false, tile);
        return;
    case 2:
        sum_rows_units(2, false, tile);
        return;
    case 3:
        sum_rows_units(3, false, tile);
        return;
    default:
        sum_rows_units(4, false, tile);
        return;
    }
}

static const lore_matmul_form form_int8_units = {LORE_ROW_UNITS, INT4_ROWS, false,         false,
                                                 NULL,           NULL,      sum_int8_units};
static const lore_matmul_form form_int4 = {LORE_ROW_UNITS, INT4_ROWS, false,   false,
                                           NULL,           NULL,      sum_int4};

const lore_matmul_kernel lore_matmul_avx2[LORE_MATMUL_KERNELS] = {
    {"avx2-f32", LORE_ISA_AVX2, LORE_PACKED_F32, LORE_CPU_AVX2, TILE_PANEL, 1, 1, 0, &form_f32,
     &form_f32, prepare_row, NULL, finish},
    {"avx2-bf16", LORE_ISA_AVX2, LORE_PACKED_BF16, LORE_CPU_AVX2, TILE_PANEL, 1, 1, 0, &form_bf16,
     &form_bf16, prepare_row, NULL, finish},
    {"avx2-int8", LORE_ISA_AVX2, LORE_PACKED_I8, LORE_CPU_AVX2, INT8_PANEL, 2, 2, 0, &form_int8,
     &form_int8, prepare_row, NULL, finish},
    {"avx2-int8-units", LORE_ISA_AVX2, LORE_PACKED_I8_UNITS, LORE_CPU_AVX2, INT8_PANEL, 2, 0, 0,
     &form_int8_units, &form_int8_units, NULL, prepare_units, finish},
    {"avx2-int4", LORE_ISA_AVX2, LORE_PACKED_I4, LORE_CPU_AVX2, INT8_PANEL, INT4_COLUMNS, 0, 0,
     &form_int4, &form_int4, NULL, prepare_units, finish},
};
