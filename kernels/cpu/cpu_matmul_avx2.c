/* Matmul on AVX2: f32 and bf16 by fused multiply-add, int8 by vpmaddwd.
 *
 * int8 takes the exact way: weights are sign-extended to int16 on load and pairs of products summed
 * into int32. (vpmaddubsw would be twice as fast, but it saturates at 16 bits, and the sums must be
 * those of every other set.) */
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

const lore_matmul_kernel lore_matmul_avx2[LORE_MATMUL_KERNELS] = {
    {"avx2-f32", LORE_ISA_AVX2, LORE_PRECISION_F32, LORE_CPU_AVX2, TILE_PANEL, 1, 1, 0, &form_f32,
     &form_f32, prepare_row, finish},
    {"avx2-bf16", LORE_ISA_AVX2, LORE_PRECISION_BF16, LORE_CPU_AVX2, TILE_PANEL, 1, 1, 0,
     &form_bf16, &form_bf16, prepare_row, finish},
    {"avx2-int8", LORE_ISA_AVX2, LORE_PRECISION_INT8, LORE_CPU_AVX2, INT8_PANEL, 2, 2, 0,
     &form_int8, &form_int8, prepare_row, finish},
};
