/* RMS and layer norms, contracts in ops.h. One block a row; x is read once into registers where a
 * row fits (up to 16 elements a thread), else again from the cache, and out written once: memory
 * bandwidth is the bound. The variance is of differences to the mean, not E[x^2] - mean^2, which
 * cancels where the mean is large. */
#include "kernels/cuda/cuda_int.h"

enum {
    KEPT = 16, /* elements of a row that a thread keeps */
    FEW = 128  /* rows that do not fill a device */
};

/* Whole warps. Where there are many rows a thread keeps as much of its row as it can, so that many
 * rows are under way; one row alone is quickest over many threads. */
static int threads_for_row(int32_t rows, int32_t cols)
{
    const int each = rows < FEW ? 4 : KEPT;
    const int wanted = (cols + each - 1) / each;
    return wanted < 32 ? 32 : wanted > 1024 ? 1024 : (wanted + 31) / 32 * 32;
}

template <bool is_layernorm>
static __global__ void norm_kernel(float *out, int64_t out_stride, const float *x, int64_t x_stride,
                                   int32_t cols, const float *w, const float *b, float eps)
{
    const float *from = x + blockIdx.x * x_stride;
    float *to = out + blockIdx.x * out_stride;
    float kept[KEPT];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const int32_t c = i * blockDim.x + threadIdx.x;
        kept[i] = c < cols ? from[c] : 0.0f;
        sum += is_layernorm ? kept[i] : kept[i] * kept[i];
    }
    for (int32_t c = KEPT * blockDim.x + threadIdx.x; c < cols; c += blockDim.x) {
        sum += is_layernorm ? from[c] : from[c] * from[c];
    }
    sum = lore_block_sum(sum) / (float)cols;
    const float mean = is_layernorm ? sum : 0.0f;
    if (is_layernorm) {
        sum = 0.0f;
#pragma unroll
        for (int i = 0; i < KEPT; i++) {
            const int32_t c = i * blockDim.x + threadIdx.x;
            sum += c < cols ? (kept[i] - mean) * (kept[i] - mean) : 0.0f;
        }
        for (int32_t c = KEPT * blockDim.x + threadIdx.x; c < cols; c += blockDim.x) {
            sum += (from[c] - mean) * (from[c] - mean);
        }
        sum = lore_block_sum(sum) / (float)cols;
    }
    const float inverse = 1.0f / sqrtf(sum + eps);
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const int32_t c = i * blockDim.x + threadIdx.x;
        if (c < cols) {
            to[c] = (kept[i] - mean) * inverse * w[c] + (b != NULL ? b[c] : 0.0f);
        }
    }
    for (int32_t c = KEPT * blockDim.x + threadIdx.x; c < cols; c += blockDim.x) {
        to[c] = (from[c] - mean) * inverse * w[c] + (b != NULL ? b[c] : 0.0f);
    }
}

template <bool is_layernorm>
static cudaError_t norm_launch(lore_view out, lore_view x, const float *w, const float *b,
                               float eps, cudaStream_t stream)
{
    norm_kernel<is_layernorm><<<x.rows, threads_for_row(x.rows, x.cols), 0, stream>>>(
        out.data, out.stride, x.data, x.stride, x.cols, w, b, eps);
    return cudaGetLastError();
}

void lore_cuda_rmsnorm(lore_queue *queue, lore_view out, lore_view x, const float *w, float eps)
{
    if (x.rows > 0) { /* an empty batch is legal, an empty grid is not */
        LORE_CUDA_NOTE(queue,
                       norm_launch<false>(out, x, w, NULL, eps, lore_cuda_queue_of(queue)->stream));
    }
}

void lore_cuda_layernorm(lore_queue *queue, lore_view out, lore_view x, const float *w,
                         const float *b, float eps)
{
    if (x.rows > 0) {
        LORE_CUDA_NOTE(queue,
                       norm_launch<true>(out, x, w, b, eps, lore_cuda_queue_of(queue)->stream));
    }
}
