/* Matrix products: out[n, o] (+)= act(x[n, d] w[o, d]^T + bias), weights f32 or bf16.
 *
 * Few rows of bf16 go to cuda_few.cu, where memory bandwidth is the bound; many rows to cuBLASLt,
 * where arithmetic is; shapes that neither can do (odd depths, no library) to a tiled kernel in
 * f32, slow and right. */
#include "kernels/cuda/cuda_matmul_int.h"

enum { TILE = 32 }; /* of the slow kernel: outputs and rows of a block */

static bool is_aligned(const void *memory, int64_t stride_bytes)
{
    return (size_t)memory % 16 == 0 && stride_bytes % 16 == 0;
}

/* ---- any shape ---- */

/* x as a weight of this type meets it. */
static __device__ __forceinline__ float rounded(float x, const float *)
{
    return x;
}

static __device__ __forceinline__ float rounded(float x, const __nv_bfloat16 *)
{
    return __bfloat162float(__float2bfloat16_rn(x));
}

/* TILE x TILE outputs by 256 threads of 2 x 2, the depth in steps of TILE through shared memory. */
template <typename T>
static __global__ void tile_kernel(lore_cuda_finish f, lore_view x, const T *w, int32_t depth)
{
    __shared__ float xs[TILE][TILE + 1], ws[TILE][TILE + 1];
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const int32_t col = (int32_t)blockIdx.x * TILE, row = (int32_t)blockIdx.y * TILE;
    float sum[2][2] = {};
    for (int32_t k = 0; k < depth; k += TILE) {
        for (int i = threadIdx.x; i < TILE * TILE; i += 256) {
            const int32_t r = i / TILE, c = k + i % TILE;
            xs[r][i % TILE] =
                row + r < x.rows && c < depth ? rounded(x.data[(row + r) * x.stride + c], w) : 0.0f;
            ws[r][i % TILE] = col + r < f.out.cols && c < depth
                                  ? lore_to_f32(w[(int64_t)(col + r) * depth + c])
                                  : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (int c = 0; c < TILE; c++) {
            for (int i = 0; i < 2; i++) {
                for (int j = 0; j < 2; j++) {
                    sum[i][j] += xs[ty + 16 * i][c] * ws[tx + 16 * j][c];
                }
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 2; j++) {
            const int32_t r = row + ty + 16 * i, c = col + tx + 16 * j;
            if (r < x.rows && c < f.out.cols) {
                lore_cuda_store(f, r, c, sum[i][j]);
            }
        }
    }
}

static cudaError_t tile_launch(const lore_cuda_finish &f, lore_view x, const lore_cuda_weight *w,
                               cudaStream_t stream)
{
    const dim3 grid((unsigned)((f.out.cols + TILE - 1) / TILE),
                    (unsigned)((x.rows + TILE - 1) / TILE));
    if (w->dtype == LORE_F32) {
        tile_kernel<<<grid, 256, 0, stream>>>(f, x, (const float *)w->values, w->base.cols);
    } else {
        tile_kernel<<<grid, 256, 0, stream>>>(f, x, (const __nv_bfloat16 *)w->values, w->base.cols);
    }
    return cudaGetLastError();
}

/* ---- many rows ---- */

/* store() of sums that lie in a matrix. */
static __global__ void finish_kernel(lore_cuda_finish f, const float *sums, int64_t stride)
{
    const int32_t c = (int32_t)(blockIdx.y * 256 + threadIdx.x);
    if (c < f.out.cols) {
        lore_cuda_store(f, (int32_t)blockIdx.x, c, sums[blockIdx.x * stride + c]);
    }
}

static dim3 grid_over(int32_t rows, int32_t cols)
{
    return dim3((unsigned)rows, (unsigned)((cols + 255) / 256));
}

/* The queue's cuBLASLt, opened when it is first wanted; NULL after noting the failure. */
static lore_cuda_blas *take_blas(lore_queue *queue)
{
    lore_cuda_queue *own = lore_cuda_queue_of(queue);
    lore_error err;
    if (own->blas == NULL && lore_cuda_blas_open(&own->blas, &err) != LORE_OK) {
        lore_queue_fail(queue, err.status, "%s", err.message);
    }
    return own->blas;
}

/* Rows of f32 are used where they are; others are rounded into scratch. What has a bias or an
 * activation passes once more over the output. False: nothing was done. */
static bool blas_matmul(lore_queue *queue, const lore_cuda_finish &f, lore_view x,
                        const lore_cuda_weight *w)
{
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    const bool is_plain = f.scales == NULL && f.bias == NULL && f.activation == LORE_ACT_NONE;
    const size_t elements = (size_t)x.rows * (size_t)x.cols, align = 255;
    const size_t x_bytes = w->dtype == LORE_F32 ? 0 : (elements * 2 + align) & ~align;
    const bool has_sums = f.is_accumulating && !is_plain;
    const size_t sums_bytes = has_sums ? (size_t)x.rows * (size_t)f.out.cols * sizeof(float) : 0;
    char *scratch = NULL;
    if (lore_cuda_backend_of(queue)->blas_library == NULL ||
        (w->dtype == LORE_BF16 && x.cols % 8 != 0)) {
        return false;
    }
    lore_cuda_blas *blas = take_blas(queue);
    if (blas == NULL) {
        return true; /* noted */
    }
    if (x_bytes + sums_bytes > 0) {
        scratch = (char *)lore_cuda_scratch(queue, x_bytes + sums_bytes);
        if (scratch == NULL) {
            return true;
        }
    }
    lore_cuda_product p = {
        f.out, x.data, x.stride, w->values, x.cols, w->dtype, f.is_accumulating && is_plain};
    if (x_bytes > 0) {
        LORE_CUDA_NOTE(queue, lore_cuda_round_rows((__nv_bfloat16 *)scratch, x, stream));
        p.x = scratch;
        p.x_stride = x.cols;
    }
    if (has_sums) {
        p.out = lore_view_of((float *)(scratch + x_bytes), x.rows, f.out.cols);
    }
    if (!lore_cuda_blas_multiply(blas, queue, &p)) {
        return false;
    }
    if (!is_plain) {
        finish_kernel<<<grid_over(x.rows, f.out.cols), 256, 0, stream>>>(f, p.out.data,
                                                                         p.out.stride);
        LORE_CUDA_NOTE(queue, cudaGetLastError());
    }
    return true;
}

void lore_cuda_matmul(lore_queue *queue, lore_view out, lore_view x, const lore_weight *w,
                      lore_epilogue epilogue)
{
    const lore_cuda_weight *own = (const lore_cuda_weight *)w;
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    const lore_cuda_finish f = {out, own->scales, epilogue.bias, epilogue.activation,
                                epilogue.is_accumulating};
    LORE_ASSERT(out.cols == w->rows && x.cols == w->cols);
    if (x.rows == 0) {
        return;
    }
    if (own->dtype == LORE_BF16 && x.rows <= LORE_FEW_ROWS && x.cols % 8 == 0 &&
        is_aligned(x.data, x.stride * (int64_t)sizeof(float))) {
        LORE_CUDA_NOTE(queue, lore_cuda_few_rows(&f, x, own, stream));
    } else if (!blas_matmul(queue, f, x, own)) {
        LORE_CUDA_NOTE(queue, tile_launch(f, x, own, stream));
    }
}
