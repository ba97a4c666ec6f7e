/* The f32 product tile in words (simd_int.h), shared by matmul and attention of each instruction
 * set.
 *
 * A tile is rows x (TILE_VECTORS * VF_WIDTH) sums held in registers while k runs: per k,
 * TILE_VECTORS loads of weights and one broadcast a row feed rows * TILE_VECTORS multiply-adds, so
 * from about four rows on the multipliers are the bound, and below that the memory the weights come
 * from. Source of the shape: Goto, van de Geijn 2008. */
#ifndef LORE_KERNELS_CPU_TILE_BODY_H
#define LORE_KERNELS_CPU_TILE_BODY_H

#include "kernels/cpu/simd_int.h"

enum { TILE_PANEL = TILE_VECTORS * VF_WIDTH };

LORE_INLINE vf tile_load(const void *b, int64_t index, const bool is_bf16)
{
    return is_bf16 ? vf_load_bf16((const uint16_t *)b + index) : vf_load((const float *)b + index);
}

/* c[r][j] (+)= sum over k of a[r][k] b[k][j]; j < TILE_PANEL. Parameters marked const must be
 * constants where this is inlined. */
LORE_INLINE void tile_sum(const int32_t rows, const bool is_bf16, const bool is_adding,
                          int32_t depth, const float *a, int64_t a_stride, const void *b, float *c,
                          int64_t c_stride)
{
    vf sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 8
    for (int32_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int32_t v = 0; v < TILE_VECTORS; v++) {
            sum[r][v] = is_adding ? vf_load(c + r * c_stride + v * VF_WIDTH) : vf_zero();
        }
    }
    for (int32_t k = 0; k < depth; k++) {
        vf w[TILE_VECTORS];
#pragma GCC unroll 4
        for (int32_t v = 0; v < TILE_VECTORS; v++) {
            w[v] = tile_load(b, (int64_t)k * TILE_PANEL + v * VF_WIDTH, is_bf16);
        }
#pragma GCC unroll 8
        for (int32_t r = 0; r < rows; r++) {
            const vf x = vf_set(a[r * a_stride + k]);
#pragma GCC unroll 4
            for (int32_t v = 0; v < TILE_VECTORS; v++) {
                sum[r][v] = vf_fma(x, w[v], sum[r][v]);
            }
        }
    }
#pragma GCC unroll 8
    for (int32_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int32_t v = 0; v < TILE_VECTORS; v++) {
            vf_store(c + r * c_stride + v * VF_WIDTH, sum[r][v]);
        }
    }
}

/* The same for any rows up to TILE_ROWS. */
LORE_INLINE void tile_rows(int32_t rows, const bool is_bf16, const bool is_adding, int32_t depth,
                           const float *a, int64_t a_stride, const void *b, float *c,
                           int64_t c_stride)
{
    switch (rows) {
    case 1:
        tile_sum(1, is_bf16, is_adding, depth, a, a_stride, b, c, c_stride);
        return;
    case 2:
        tile_sum(2, is_bf16, is_adding, depth, a, a_stride, b, c, c_stride);
        return;
    case 3:
        tile_sum(3, is_bf16, is_adding, depth, a, a_stride, b, c, c_stride);
        return;
    case 4:
        tile_sum(4, is_bf16, is_adding, depth, a, a_stride, b, c, c_stride);
        return;
    case 5:
        tile_sum(5, is_bf16, is_adding, depth, a, a_stride, b, c, c_stride);
        return;
    default:
        tile_sum(6, is_bf16, is_adding, depth, a, a_stride, b, c, c_stride);
        return;
    }
}

#endif
