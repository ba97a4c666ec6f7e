/* What the files of matrix products share: how sums come together and leave, and the entry
 * of the one for few rows. */
#ifndef LORE_KERNELS_CUDA_MATMUL_INT_H
#define LORE_KERNELS_CUDA_MATMUL_INT_H

#include "kernels/cuda/cuda_int.h"

typedef struct lore_cuda_finish {
    lore_view out;
    const float *scales; /* of the rows of w, or NULL */
    const float *bias;
    lore_activation activation;
    bool is_accumulating;
} lore_cuda_finish;

/* A product of few rows. */
typedef struct lore_cuda_few {
    lore_cuda_finish finish;
    lore_view x; /* bf16; or f32 where lore_cuda_few_takes_f32 says so */
    const lore_cuda_weight *w;
    const float *norm; /* of f32 rows: an RMS norm before the product; or NULL */
    float eps;
    bool is_gated;      /* w is [2f, d], gate first; out [n, f] */
    const float *added; /* [n, 2f] of a gated product, to the sums before the activation; or NULL */
} lore_cuda_few;

/* Whether these weights can be read so, by so many rows, which begin at multiples of 16 bytes. */
bool lore_cuda_few_takes(const lore_cuda_weight *w, int32_t rows);
/* Whether so many rows of f32 are rounded, and normed, by the product itself. */
bool lore_cuda_few_takes_f32(int32_t rows, int32_t depth);
cudaError_t lore_cuda_few_rows(lore_queue *queue, const lore_cuda_few *few);

/* Sums of bf16 that lie in the output itself, in rows of whole 16 bytes (cuda_encoder.cu). */
bool lore_cuda_finishes_sums(const lore_cuda_finish *finish, lore_view sums);
cudaError_t lore_cuda_finish_sums(lore_queue *queue, const lore_cuda_finish *finish);

#ifdef __CUDACC__
/* One sum of output `col` (and row `col` of w) becomes what the activation gives. */
static __device__ __forceinline__ float lore_cuda_finished(const lore_cuda_finish &f, int32_t col,
                                                           float sum, lore_activation activation)
{
    sum = f.scales != NULL ? sum * f.scales[col] : sum;
    return lore_activate(f.bias != NULL ? sum + f.bias[col] : sum, activation);
}

static __device__ __forceinline__ void lore_cuda_store(const lore_cuda_finish &f, int32_t row,
                                                       int32_t col, float sum)
{
    const float value = lore_cuda_finished(f, col, sum, f.activation);
    lore_write(f.out, row, col, f.is_accumulating ? lore_read(f.out, row, col) + value : value);
}

/* One sum of all warps of a block, which each left theirs in rows of `wide`, in the same order
 * always. */
template <int warps, int wide>
static __device__ __forceinline__ float lore_sum_warps(const float *sums, int32_t rows, int32_t row,
                                                       int32_t col)
{
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < warps; j++) {
        sum += sums[(j * rows + row) * wide + col];
    }
    return sum;
}

/* What the sums of a row are multiplied with for its RMS norm: `parts` are the warps' squares. */
template <int warps>
static __device__ __forceinline__ float lore_norm_factor(const float *parts, int32_t depth,
                                                         float eps)
{
    float squares = 0.0f;
#pragma unroll
    for (int j = 0; j < warps; j++) {
        squares += parts[j];
    }
    return 1.0f / sqrtf(squares / (float)depth + eps);
}
#endif

#endif
