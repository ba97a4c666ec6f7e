/* What stands between two products of many rows, contracts in ops.h: the sum of a post-norm
 * encoder, its norm and the rounding in one pass; and what a product by cuBLASLt leaves to do to
 * its sums in bf16: scales, bias, activation. Memory bandwidth is the bound of both.
 *
 * x = layernorm(x + y), and the same rounded: a warp takes a row and keeps it in registers, so
 * nothing waits for a whole block. Of each element 4 bytes are read and 4 written of x, 2 of y and
 * 2 of what is rounded: 12 bytes, where three ops (an addition, a norm, a rounding) come to 24. The
 * variance is of differences to the mean, as in cuda_norm.cu. Rows that are too long, do not begin
 * and end at four elements, or meet a y of f32, take the plain kernel.
 *
 * Sums: a thread takes eight neighbours, 16 bytes. The exact GELU would be bound by erff, some
 * thirty operations each; what is rounded to bf16 behind it takes an approximation of half of them
 * (Abramowitz and Stegun 1964, 7.1.26), whose error of 1.5e-7 in erf is a thousandth of what the
 * rounding does to values of the size that matters. */
#include "kernels/cuda/cuda_matmul_int.h"

enum {
    WARPS = 4, /* rows of a block */
    FOUR = 4,  /* elements that a lane takes at a time */
    FOURS_MAX = 16,
    EIGHT = 8, /* sums that a thread takes */
    SUMS_THREADS = 256
};

typedef struct sum_norm {
    lore_view x, y, rounded; /* y and rounded without data: none */
    const float *w, *b;
    float eps;
} sum_norm;

static __device__ __forceinline__ int32_t row_here()
{
    return (int32_t)(blockIdx.x * WARPS + threadIdx.x / 32);
}

/* ---- rows in registers ---- */

static __device__ __forceinline__ __nv_bfloat16 *as_bf16(lore_view view)
{
    return (__nv_bfloat16 *)(void *)view.data;
}

static __device__ __forceinline__ float4 add_four(float4 a, uint2 b)
{
    return make_float4(a.x + __uint_as_float(b.x << 16), a.y + __uint_as_float(b.x & 0xffff0000u),
                       a.z + __uint_as_float(b.y << 16), a.w + __uint_as_float(b.y & 0xffff0000u));
}

static __device__ __forceinline__ float4 scale_four(float4 v, float mean, float inverse, float4 w,
                                                    float4 b)
{
    return make_float4((v.x - mean) * inverse * w.x + b.x, (v.y - mean) * inverse * w.y + b.y,
                       (v.z - mean) * inverse * w.z + b.z, (v.w - mean) * inverse * w.w + b.w);
}

/* Lane l holds elements 4 (l + 32 i) .. + 3 for each i below FOURS; those behind the row are zeros
 * that no sum counts. */
template <int FOURS>
static __global__ void __launch_bounds__(32 * WARPS) sum_norm_kernel(sum_norm n)
{
    const int32_t row = row_here(), cols = n.x.cols, first = FOUR * (int32_t)(threadIdx.x % 32);
    lore_cuda_release();
    lore_cuda_wait();
    if (row >= n.x.rows) {
        return; /* with its whole warp */
    }
    float4 v[FOURS];
    uint2 y[FOURS]; /* all loads are under way before the first is used */
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const int32_t c = first + 32 * FOUR * i;
        v[i] = c < cols ? *(const float4 *)(n.x.data + row * n.x.stride + c)
                        : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        y[i] = c < cols && n.y.data != NULL ? *(const uint2 *)(as_bf16(n.y) + row * n.y.stride + c)
                                            : make_uint2(0, 0);
    }
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        v[i] = add_four(v[i], y[i]);
        sum += (v[i].x + v[i].y) + (v[i].z + v[i].w);
    }
    const float mean = lore_warp_sum(sum) / (float)cols;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        if (first + 32 * FOUR * i < cols) {
            const float4 d =
                make_float4(v[i].x - mean, v[i].y - mean, v[i].z - mean, v[i].w - mean);
            squares += (d.x * d.x + d.y * d.y) + (d.z * d.z + d.w * d.w);
        }
    }
    const float inverse = 1.0f / sqrtf(lore_warp_sum(squares) / (float)cols + n.eps);
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const int32_t c = first + 32 * FOUR * i;
        if (c < cols) {
            const float4 w = *(const float4 *)(n.w + c);
            const float4 b =
                n.b != NULL ? *(const float4 *)(n.b + c) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            const float4 out = scale_four(v[i], mean, inverse, w, b);
            *(float4 *)(n.x.data + row * n.x.stride + c) = out;
            if (n.rounded.data != NULL) {
                *(uint2 *)(as_bf16(n.rounded) + row * n.rounded.stride + c) =
                    make_uint2(lore_pack_bf16(out.x, out.y), lore_pack_bf16(out.z, out.w));
            }
        }
    }
}

/* ---- any row: each lane its own columns, three times ---- */

static __global__ void __launch_bounds__(32 * WARPS) sum_norm_any_kernel(sum_norm n)
{
    const int32_t row = row_here(), cols = n.x.cols, lane = (int32_t)(threadIdx.x % 32);
    lore_cuda_release();
    lore_cuda_wait();
    if (row >= n.x.rows) {
        return;
    }
    float *x = n.x.data + row * n.x.stride;
    const int64_t y_at = row * n.y.stride, rounded_at = row * n.rounded.stride;
    float sum = 0.0f, squares = 0.0f;
    for (int32_t c = lane; c < cols; c += 32) {
        if (n.y.data != NULL) {
            x[c] +=
                n.y.dtype == LORE_F32 ? n.y.data[y_at + c] : lore_to_f32(as_bf16(n.y)[y_at + c]);
        }
        sum += x[c];
    }
    const float mean = lore_warp_sum(sum) / (float)cols;
    for (int32_t c = lane; c < cols; c += 32) {
        squares += (x[c] - mean) * (x[c] - mean);
    }
    const float inverse = 1.0f / sqrtf(lore_warp_sum(squares) / (float)cols + n.eps);
    for (int32_t c = lane; c < cols; c += 32) {
        x[c] = (x[c] - mean) * inverse * n.w[c] + (n.b != NULL ? n.b[c] : 0.0f);
        if (n.rounded.data != NULL && n.rounded.dtype == LORE_F32) {
            n.rounded.data[rounded_at + c] = x[c];
        } else if (n.rounded.data != NULL) {
            as_bf16(n.rounded)[rounded_at + c] = __float2bfloat16_rn(x[c]);
        }
    }
}

/* ---- launchers ---- */

static bool is_aligned(const void *memory)
{
    return (size_t)memory % 16 == 0;
}

/* A view of this dtype, where there is one, whose rows begin and end at four elements. */
static bool is_in_fours(lore_view view, lore_dtype dtype)
{
    return view.data == NULL || (view.dtype == dtype && is_aligned(view.data) &&
                                 view.stride % FOUR == 0 && view.cols % FOUR == 0);
}

static cudaError_t sum_norm_launch(lore_queue *queue, const sum_norm &n)
{
    const dim3 grid((unsigned)((n.x.rows + WARPS - 1) / WARPS)), block(32 * WARPS);
    const int32_t fours = (n.x.cols + 32 * FOUR - 1) / (32 * FOUR);
    void (*kernel)(sum_norm) = fours <= 3   ? sum_norm_kernel<3> /* 384 columns */
                               : fours <= 6 ? sum_norm_kernel<6> /* 768 */
                               : fours <= 8 ? sum_norm_kernel<8> /* 1024 */
                                            : sum_norm_kernel<FOURS_MAX>;
    if (fours > FOURS_MAX || !is_in_fours(n.x, LORE_F32) || !is_in_fours(n.y, LORE_BF16) ||
        !is_in_fours(n.rounded, LORE_BF16) || !is_aligned(n.w) || !is_aligned(n.b)) {
        kernel = sum_norm_any_kernel;
    }
    return lore_cuda_launch(queue, kernel, grid, block, 0, n);
}

void lore_cuda_add_layernorm(lore_queue *queue, lore_view x, lore_view rounded, lore_view y,
                             const float *w, const float *b, float eps)
{
    const sum_norm n = {x, y, rounded, w, b, eps};
    if (x.rows > 0) { /* an empty batch is legal, an empty grid is not */
        LORE_CUDA_NOTE(queue, sum_norm_launch(queue, n));
    }
}

/* ---- sums of a product, in place ---- */

/* Phi(-|x|) = erfc(|x| / sqrt 2) / 2, and gelu(x) = x Phi(x). NaN stays NaN, infinity infinity. */
static __device__ __forceinline__ float gelu_to_round(float x)
{
    const float z = fabsf(x) * 0.70710678118654752f;
    const float t = __fdividef(1.0f, 1.0f + 0.3275911f * z);
    const float sum =
        t * (0.127414796f +
             t * (-0.142248368f + t * (0.7107068705f + t * (-0.7265760135f + t * 0.5307027145f))));
    const float tail = sum * __expf(-z * z);
    return x * (x >= 0.0f ? 1.0f - tail : tail);
}

template <bool is_gelu>
static __device__ __forceinline__ float finished(const lore_cuda_finish &f, float sum, float scale,
                                                 float bias)
{
    const float value = sum * scale + bias;
    return is_gelu ? gelu_to_round(value) : lore_activate(value, f.activation);
}

static __device__ __forceinline__ float4 four_or(const float *values, int32_t at, float otherwise)
{
    return values != NULL ? *(const float4 *)(values + at)
                          : make_float4(otherwise, otherwise, otherwise, otherwise);
}

template <bool is_gelu>
static __global__ void __launch_bounds__(SUMS_THREADS)
    sums_kernel(lore_cuda_finish f, uint32_t eights, uint32_t count)
{
    const uint32_t i = blockIdx.x * SUMS_THREADS + threadIdx.x;
    lore_cuda_release();
    lore_cuda_wait();
    if (i >= count) {
        return;
    }
    const uint32_t row = i / eights;
    const int32_t c = EIGHT * (int32_t)(i - row * eights);
    uint4 *at = (uint4 *)(as_bf16(f.out) + (int64_t)row * f.out.stride + c);
    const uint4 sums = *at;
    const float4 scale[2] = {four_or(f.scales, c, 1.0f), four_or(f.scales, c + 4, 1.0f)};
    const float4 bias[2] = {four_or(f.bias, c, 0.0f), four_or(f.bias, c + 4, 0.0f)};
    const uint32_t pairs[4] = {sums.x, sums.y, sums.z, sums.w};
    uint32_t out[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const float4 s = scale[k / 2], b = bias[k / 2];
        const bool is_low = k % 2 == 0;
        out[k] = lore_pack_bf16(finished<is_gelu>(f, __uint_as_float(pairs[k] << 16),
                                                  is_low ? s.x : s.z, is_low ? b.x : b.z),
                                finished<is_gelu>(f, __uint_as_float(pairs[k] & 0xffff0000u),
                                                  is_low ? s.y : s.w, is_low ? b.y : b.w));
    }
    *at = make_uint4(out[0], out[1], out[2], out[3]);
}

bool lore_cuda_finishes_sums(const lore_cuda_finish *f, lore_view sums)
{
    return sums.data == f->out.data && sums.dtype == LORE_BF16 && f->out.dtype == LORE_BF16 &&
           (int64_t)f->out.rows * f->out.cols <= INT32_MAX && !f->is_accumulating &&
           f->out.cols % EIGHT == 0 && f->out.stride % EIGHT == 0 && is_aligned(f->out.data) &&
           is_aligned(f->scales) && is_aligned(f->bias);
}

cudaError_t lore_cuda_finish_sums(lore_queue *queue, const lore_cuda_finish *f)
{
    const uint32_t eights = (uint32_t)(f->out.cols / EIGHT);
    const uint32_t count = (uint32_t)f->out.rows * eights;
    const dim3 grid((count + SUMS_THREADS - 1) / SUMS_THREADS), block(SUMS_THREADS);
    return lore_cuda_launch(queue,
                            f->activation == LORE_ACT_GELU ? sums_kernel<true> : sums_kernel<false>,
                            grid, block, 0, *f, eights, count);
}
