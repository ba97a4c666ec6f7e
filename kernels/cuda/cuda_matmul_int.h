/* What the two files of matrix products share: what happens to a sum on its way out, and the entry
 * of the one for few rows. */
#ifndef LORE_KERNELS_CUDA_MATMUL_INT_H
#define LORE_KERNELS_CUDA_MATMUL_INT_H

#include "kernels/cuda/cuda_int.h"

enum { LORE_FEW_ROWS = 16 };

typedef struct lore_cuda_finish {
    lore_view out;
    const float *scales; /* of the rows of w, or NULL */
    const float *bias;
    lore_activation activation;
    bool is_accumulating;
} lore_cuda_finish;

/* bf16 weights, x.rows up to LORE_FEW_ROWS; rows of x and w begin at multiples of 16 bytes. */
cudaError_t lore_cuda_few_rows(const lore_cuda_finish *finish, lore_view x,
                               const lore_cuda_weight *w, cudaStream_t stream);

#ifdef __CUDACC__
static __device__ __forceinline__ void lore_cuda_store(const lore_cuda_finish &f, int32_t row,
                                                       int32_t col, float sum)
{
    float *to = f.out.data + row * f.out.stride + col;
    sum = f.scales != NULL ? sum * f.scales[col] : sum;
    const float value = lore_activate(f.bias != NULL ? sum + f.bias[col] : sum, f.activation);
    *to = f.is_accumulating ? *to + value : value;
}
#endif

#endif
