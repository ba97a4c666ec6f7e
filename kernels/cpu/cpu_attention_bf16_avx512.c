/* Attention in bf16 for AVX-512 BF16: the product of cpu_attention_bf16_body.h in registers.
 *
 * 12 rows x 32 outputs are 24 sums; a step of one pair costs 2 loads and 12 broadcasts for 24
 * vdpbf16ps, so the multipliers are the bound, and a short sequence wastes little of a panel.
 * Definitions: https://www.intel.com/content/www/us/en/docs/intrinsics-guide/ (AVX512_BF16). */
enum { PRODUCT_ROWS = 12 };
#include "kernels/cpu/cpu_attention_bf16_body.h"

LORE_INLINE __m512bh load_pairs(const uint16_t *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

LORE_INLINE __m512bh repeat_pair(const uint16_t *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

LORE_INLINE void product_rows(const int32_t rows, const bool is_adding, int32_t pairs,
                              const uint16_t *a, int64_t a_stride, const uint16_t *b, float *c,
                              int64_t c_stride)
{
    vf left[PRODUCT_ROWS], right[PRODUCT_ROWS];
#pragma GCC unroll 12
    for (int32_t r = 0; r < rows; r++) {
        left[r] = is_adding ? vf_load(c + r * c_stride) : vf_zero();
        right[r] = is_adding ? vf_load(c + r * c_stride + VF_WIDTH) : vf_zero();
    }
    for (int32_t p = 0; p < pairs; p++) {
        const __m512bh w = load_pairs(b + (int64_t)p * PANEL_ROW);
        const __m512bh z = load_pairs(b + (int64_t)p * PANEL_ROW + PANEL);
#pragma GCC unroll 12
        for (int32_t r = 0; r < rows; r++) {
            const __m512bh x = repeat_pair(a + r * a_stride + 2 * p);
            left[r] = _mm512_dpbf16_ps(left[r], x, w);
            right[r] = _mm512_dpbf16_ps(right[r], x, z);
        }
    }
#pragma GCC unroll 12
    for (int32_t r = 0; r < rows; r++) {
        vf_store(c + r * c_stride, left[r]);
        vf_store(c + r * c_stride + VF_WIDTH, right[r]);
    }
}

/* One call for each count of rows, so that the sums are registers. */
static void product(int32_t rows, bool is_adding, int32_t pairs, const uint16_t *a,
                    int64_t a_stride, const uint16_t *b, float *c, int64_t c_stride)
{
#define ROWS(n)                                                         \
    case n:                                                             \
        if (is_adding) {                                                \
            product_rows(n, true, pairs, a, a_stride, b, c, c_stride);  \
        } else {                                                        \
            product_rows(n, false, pairs, a, a_stride, b, c, c_stride); \
        }                                                               \
        return;
    switch (rows) {
        ROWS(1)
        ROWS(2)
        ROWS(3)
        ROWS(4)
        ROWS(5)
        ROWS(6)
        ROWS(7)
        ROWS(8)
        ROWS(9)
        ROWS(10)
        ROWS(11)
    default:
        ROWS(12)
    }
#undef ROWS
}

const lore_attention_loops lore_attention_bf16_avx512 = {scratch_bytes, attend};
