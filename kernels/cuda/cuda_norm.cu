/* RMS and layer norms, contracts in ops.h. One block a row; x is read once, into registers where a
 * row fits (up to 16 elements a thread), else again from the cache, and out written once, four
 * neighbours at a time: memory bandwidth is the bound. The variance is of differences to the mean,
 * not E[x^2] - mean^2, which cancels where the mean is large. */
#include "kernels/cuda/cuda_int.h"

enum {
    KEPT = 4, /* fours of a row that a thread keeps */
    FEW = 128 /* rows that do not fill a device */
};

typedef struct norm_task {
    lore_view out, x;
    const float *w, *b;
    float eps;
    bool is_wide; /* fours of all of them may be read and written at once */
} norm_task;

/* Whole warps. Where there are many rows a thread keeps as much of its row as it can, so that many
 * rows are under way; one row alone is quickest over many threads. */
static int threads_for_row(int32_t rows, int32_t cols)
{
    const int each = rows < FEW ? 4 : 4 * KEPT;
    const int wanted = (cols + each - 1) / each;
    return wanted < 32 ? 32 : wanted > 1024 ? 1024 : (wanted + 31) / 32 * 32;
}

static __device__ __forceinline__ float sum_of(float4 v)
{
    return (v.x + v.y) + (v.z + v.w);
}

/* Squares of the differences of those that are there. */
static __device__ __forceinline__ float squares_of(float4 v, float mean, int32_t left)
{
    const float a = v.x - mean, b = left > 1 ? v.y - mean : 0.0f;
    const float c = left > 2 ? v.z - mean : 0.0f, d = left > 3 ? v.w - mean : 0.0f;
    return (a * a + b * b) + (c * c + d * d);
}

template <typename X, typename T>
static __device__ __forceinline__ void put_normed(const norm_task &t, T *to, int32_t c, float4 v,
                                                  float4 w, float mean, float inverse)
{
    const int32_t cols = t.x.cols;
    const float4 b = t.b != NULL ? lore_load_four(t.b, c, cols, t.is_wide) : float4{};
    lore_put_four(
        to, c, cols, t.is_wide,
        make_float4((v.x - mean) * inverse * w.x + b.x, (v.y - mean) * inverse * w.y + b.y,
                    (v.z - mean) * inverse * w.z + b.z, (v.w - mean) * inverse * w.w + b.w));
}

template <typename X, typename T, bool is_layernorm> static __global__ void norm_kernel(norm_task t)
{
    const int32_t cols = t.x.cols, first = 4 * (int32_t)threadIdx.x, step = 4 * (int32_t)blockDim.x;
    const X *from = (const X *)t.x.data + blockIdx.x * t.x.stride;
    T *to = (T *)t.out.data + blockIdx.x * t.out.stride;
    float4 kept[KEPT], weights[KEPT];
    float sum = 0.0f;
    lore_cuda_release();
#pragma unroll
    for (int i = 0; i < KEPT; i++) { /* nobody writes them: under way before x is there */
        const int32_t c = first + i * step;
        weights[i] = c < cols ? lore_load_four(t.w, c, cols, t.is_wide) : float4{};
    }
    lore_cuda_wait();
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const int32_t c = first + i * step;
        kept[i] = c < cols ? lore_load_four(from, c, cols, t.is_wide) : float4{};
    }
#pragma unroll
    for (int i = 0; i < KEPT; i++) { /* zeros behind the end add nothing to either */
        sum += is_layernorm ? sum_of(kept[i]) : squares_of(kept[i], 0.0f, 4);
    }
    for (int32_t c = first + KEPT * step; c < cols; c += step) {
        const float4 v = lore_load_four(from, c, cols, t.is_wide);
        sum += is_layernorm ? sum_of(v) : squares_of(v, 0.0f, 4);
    }
    sum = lore_block_sum(sum) / (float)cols;
    const float mean = is_layernorm ? sum : 0.0f;
    if (is_layernorm) {
        sum = 0.0f;
#pragma unroll
        for (int i = 0; i < KEPT; i++) {
            const int32_t c = first + i * step;
            sum += c < cols ? squares_of(kept[i], mean, cols - c) : 0.0f;
        }
        for (int32_t c = first + KEPT * step; c < cols; c += step) {
            sum += squares_of(lore_load_four(from, c, cols, t.is_wide), mean, cols - c);
        }
        sum = lore_block_sum(sum) / (float)cols;
    }
    const float inverse = 1.0f / sqrtf(sum + t.eps);
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const int32_t c = first + i * step;
        if (c < cols) {
            put_normed<X>(t, to, c, kept[i], weights[i], mean, inverse);
        }
    }
    for (int32_t c = first + KEPT * step; c < cols; c += step) {
        put_normed<X>(t, to, c, lore_load_four(from, c, cols, t.is_wide),
                      lore_load_four(t.w, c, cols, t.is_wide), mean, inverse);
    }
}

template <typename X, bool is_layernorm>
static cudaError_t norm_to(lore_queue *queue, const norm_task &t)
{
    const dim3 grid((unsigned)t.x.rows);
    const dim3 block((unsigned)threads_for_row(t.x.rows, t.x.cols));
    return t.out.dtype == LORE_BF16
               ? lore_cuda_launch(queue, norm_kernel<X, __nv_bfloat16, is_layernorm>, grid, block,
                                  0, t)
               : lore_cuda_launch(queue, norm_kernel<X, float, is_layernorm>, grid, block, 0, t);
}

template <bool is_layernorm>
static cudaError_t norm_launch(lore_queue *queue, lore_view out, lore_view x, const float *w,
                               const float *b, float eps)
{
    norm_task t = {out, x, w, b, eps, false};
    t.is_wide = x.cols % 4 == 0 && lore_is_aligned(out, 4) && lore_is_aligned(x, 4) &&
                (size_t)w % 16 == 0 && (size_t)b % 16 == 0;
    return x.dtype == LORE_BF16 ? norm_to<__nv_bfloat16, is_layernorm>(queue, t)
                                : norm_to<float, is_layernorm>(queue, t);
}

void lore_cuda_rmsnorm(lore_queue *queue, lore_view out, lore_view x, const float *w, float eps)
{
    if (x.rows > 0) { /* an empty batch is legal, an empty grid is not */
        LORE_CUDA_NOTE(queue, norm_launch<false>(queue, out, x, w, NULL, eps));
    }
}

void lore_cuda_layernorm(lore_queue *queue, lore_view out, lore_view x, const float *w,
                         const float *b, float eps)
{
    if (x.rows > 0) {
        LORE_CUDA_NOTE(queue, norm_launch<true>(queue, out, x, w, b, eps));
    }
}
