/* Matrix products of few rows (up to LORE_FEW_ROWS, decoding): weights are read once and are nearly
 * all the bytes, so memory bandwidth is the bound.
 *
 * A block takes sixteen outputs, its warps take turns at pieces of the depth. Each lane loads 16
 * bytes of two rows of w and multiplies them on the tensor cores with the rows of x, rounded, as
 * the other operand. The order of the depth inside a product is free, so the lanes' bytes are used
 * as they come: both operands agree on a permutation (few_kernel says which). */
#include "kernels/cuda/cuda_matmul_int.h"

enum {
    OUTS = 16, /* of a block: the rows of one tensor core product */
    WARPS = 8,
    CHUNK = 32, /* of depth that a warp takes at a time: four lanes of 8 elements */
    AHEAD = 4   /* chunks under way, to cover the memory's latency */
};

/* Eight elements of a row of x, rounded, or zeros. */
static __device__ __forceinline__ uint4 load_x(const float *x, bool is_there)
{
    if (!is_there) {
        return make_uint4(0, 0, 0, 0);
    }
    const float4 a = *(const float4 *)x, b = *(const float4 *)(x + 4);
    return make_uint4(lore_pack_bf16(a.x, a.y), lore_pack_bf16(a.z, a.w), lore_pack_bf16(b.x, b.y),
                      lore_pack_bf16(b.z, b.w));
}

/* Weights are read once: they need not stay in the cache. */
static __device__ __forceinline__ uint4 load_w(const __nv_bfloat16 *w, bool is_there)
{
    return is_there ? __ldcs((const uint4 *)w) : make_uint4(0, 0, 0, 0);
}

/* Lane (g = lane / 4, q = lane % 4) of a product wants a[g, 2q], a[g, 2q+1], the same of row g+8,
 * then all at 2q+8; and b at those places of column g. It takes elements 8q .. 8q+7 of rows g and
 * g+8, the first four for one product and the last four for another, and the same eight of row g of
 * x: each element of the depth meets itself, which is all that a sum asks. */
template <int EIGHTS> /* of rows of x */
static __global__ void __launch_bounds__(32 * WARPS)
    few_kernel(lore_cuda_finish f, lore_view x, const __nv_bfloat16 *w, int32_t depth)
{
    __shared__ float sums[WARPS][EIGHTS * 8][OUTS + 1];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, q = lane % 4;
    const int32_t first = (int32_t)blockIdx.x * OUTS;
    const bool has_low = first + g < f.out.cols, has_high = first + g + 8 < f.out.cols;
    const __nv_bfloat16 *low = w + (int64_t)(has_low ? first + g : 0) * depth + 8 * q;
    const __nv_bfloat16 *high = w + (int64_t)(has_high ? first + g + 8 : 0) * depth + 8 * q;
    float d[EIGHTS][4] = {};
    for (int32_t k = warp * CHUNK * AHEAD; k < depth; k += WARPS * CHUNK * AHEAD) {
        uint4 a[AHEAD], b[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const bool is_inside = k + i * CHUNK + 8 * q < depth;
            a[i] = load_w(low + k + i * CHUNK, is_inside && has_low);
            b[i] = load_w(high + k + i * CHUNK, is_inside && has_high);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int32_t at = k + i * CHUNK + 8 * q;
            const uint32_t one[4] = {a[i].x, b[i].x, a[i].y, b[i].y};
            const uint32_t two[4] = {a[i].z, b[i].z, a[i].w, b[i].w};
#pragma unroll
            for (int j = 0; j < EIGHTS; j++) {
                const int32_t row = 8 * j + g;
                const uint4 v = load_x(x.data + row * x.stride + at, at < depth && row < x.rows);
                lore_mma(d[j], one, v.x, v.y);
                lore_mma(d[j], two, v.z, v.w);
            }
        }
    }
#pragma unroll
    for (int j = 0; j < EIGHTS; j++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sums[warp][8 * j + 2 * q + i % 2][g + i / 2 * 8] = d[j][i];
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < EIGHTS * 8 * OUTS; i += 32 * WARPS) {
        const int32_t row = i / OUTS, col = i % OUTS;
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < WARPS; j++) {
            sum += sums[j][row][col];
        }
        if (row < x.rows && first + col < f.out.cols) {
            lore_cuda_store(f, row, first + col, sum);
        }
    }
}

cudaError_t lore_cuda_few_rows(const lore_cuda_finish *finish, lore_view x,
                               const lore_cuda_weight *w, cudaStream_t stream)
{
    const unsigned blocks = (unsigned)((finish->out.cols + OUTS - 1) / OUTS);
    const __nv_bfloat16 *values = (const __nv_bfloat16 *)w->values;
    if (x.rows <= 8) {
        few_kernel<1><<<blocks, 32 * WARPS, 0, stream>>>(*finish, x, values, w->base.cols);
    } else {
        few_kernel<2><<<blocks, 32 * WARPS, 0, stream>>>(*finish, x, values, w->base.cols);
    }
    return cudaGetLastError();
}
