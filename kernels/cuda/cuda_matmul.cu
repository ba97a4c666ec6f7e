/* Matrix products: out[n, o] (+)= act(x[n, d] w[o, d]^T + bias), weights f32, bf16 or int8.
 *
 * Few rows go to cuda_few.cu, where memory bandwidth is the bound; many rows to cuBLASLt, where
 * arithmetic is; shapes that neither can do (odd depths, no library) to a tiled kernel in f32, slow
 * and right. */
#include "kernels/cuda/cuda_lora_int.h"
#include "kernels/cuda/cuda_matmul_int.h"

enum {
    TILE = 32,     /* of the slow kernel: outputs and rows of a block */
    THREADS = 256, /* of a block elsewhere */
    UNPACKED_BYTES =
        24 << 20 /* of int8 as bf16 at a time: the cache holds them until they are read */
};

/* ---- any shape ---- */

/* x as a weight of this type meets it. */
static __device__ __forceinline__ float rounded(float x, const float *)
{
    return x;
}

template <typename T> static __device__ __forceinline__ float rounded(float x, const T *)
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
                row + r < x.rows && c < depth ? rounded(lore_read(x, row + r, c), w) : 0.0f;
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
    } else if (w->dtype == LORE_I8) {
        tile_kernel<<<grid, 256, 0, stream>>>(f, x, (const int8_t *)w->values, w->base.cols);
    } else {
        tile_kernel<<<grid, 256, 0, stream>>>(f, x, (const __nv_bfloat16 *)w->values, w->base.cols);
    }
    return cudaGetLastError();
}

/* ---- many rows ---- */

/* store() of sums that lie in a matrix, perhaps in the output itself. */
static __global__ void finish_kernel(lore_cuda_finish f, lore_view sums)
{
    lore_cuda_release();
    lore_cuda_wait();
    for (int32_t c = (int32_t)threadIdx.x; c < f.out.cols; c += THREADS) {
        lore_cuda_store(f, (int32_t)blockIdx.x, c, lore_read(sums, blockIdx.x, c));
    }
}

/* Whole numbers as bf16, sixteen a thread. */
static __global__ void unpack_kernel(__nv_bfloat16 *out, const int8_t *values, int64_t count)
{
    lore_cuda_release();
    lore_cuda_wait();
    const int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 16;
    if (at < count) {
        const uint4 v = __ldcs((const uint4 *)(values + at));
        const uint32_t words[4] = {v.x, v.y, v.z, v.w};
        uint32_t pairs[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint32_t two = words[i / 2] >> 16 * (i % 2);
            pairs[i] = lore_pack_bf16((float)(int8_t)two, (float)(int8_t)(two >> 8));
        }
        *(uint4 *)(out + at) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        *(uint4 *)(out + at + 8) = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
    }
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

/* Memory of a product by cuBLASLt: x rounded, sums that must not yet be added to out, a piece of
 * int8 as bf16. */
typedef struct big_memory {
    __nv_bfloat16 *x, *unpacked;
    float *sums;
    int32_t piece; /* rows of w in `unpacked` */
} big_memory;

static size_t aligned(size_t size_bytes)
{
    return (size_bytes + 255) & ~(size_t)255;
}

/* False after noting that there is none. */
static bool take_memory(lore_queue *queue, const lore_cuda_finish &f, lore_view x,
                        const lore_cuda_weight *w, big_memory *memory)
{
    const bool is_ready = w->dtype == LORE_F32 || (x.dtype == LORE_BF16 && lore_is_aligned(x, 8));
    const size_t row_bytes = (size_t)x.cols * sizeof(__nv_bfloat16);
    const size_t fitting = UNPACKED_BYTES / row_bytes, all = (size_t)w->base.rows;
    const size_t piece = w->dtype != LORE_I8 ? 0 : fitting < 1 ? 1 : fitting < all ? fitting : all;
    const size_t x_bytes = is_ready ? 0 : aligned((size_t)x.rows * row_bytes);
    const size_t unpacked_bytes = aligned(piece * row_bytes);
    const size_t sums_bytes =
        f.is_accumulating ? (size_t)x.rows * (size_t)f.out.cols * sizeof(float) : 0;
    char *scratch = (char *)lore_cuda_scratch(queue, x_bytes + unpacked_bytes + sums_bytes);
    memory->x = x_bytes > 0 ? (__nv_bfloat16 *)scratch : NULL;
    memory->unpacked = piece > 0 ? (__nv_bfloat16 *)(scratch + x_bytes) : NULL;
    memory->sums = sums_bytes > 0 ? (float *)(scratch + x_bytes + unpacked_bytes) : NULL;
    memory->piece = (int32_t)piece;
    return scratch != NULL || x_bytes + unpacked_bytes + sums_bytes == 0;
}

static void finish(lore_queue *queue, const lore_cuda_finish &f, lore_view sums)
{
    if (lore_cuda_finishes_sums(&f, sums)) {
        LORE_CUDA_NOTE(queue, lore_cuda_finish_sums(queue, &f));
        return;
    }
    LORE_CUDA_NOTE(queue, lore_cuda_launch(queue, finish_kernel, dim3((unsigned)sums.rows),
                                           dim3(THREADS), 0, f, sums));
}

/* The product with its bias and the addition to out, and the activation after it. */
static bool multiply_and_add(lore_queue *queue, lore_cuda_blas *blas, const lore_cuda_finish &f,
                             lore_cuda_product p)
{
    p.out = f.out;
    p.bias = f.activation == LORE_ACT_NONE ? f.bias : NULL; /* else the pass adds it, unrounded */
    p.is_accumulating = f.is_accumulating;
    if (f.scales != NULL || (f.is_accumulating && f.activation != LORE_ACT_NONE) ||
        !lore_cuda_blas_multiply(blas, queue, &p)) {
        return false;
    }
    if (f.activation != LORE_ACT_NONE) {
        finish(queue, f, f.out);
    }
    return true;
}

/* The product alone, then all the rest in a pass over its sums. */
static bool multiply_then_finish(lore_queue *queue, lore_cuda_blas *blas, const lore_cuda_finish &f,
                                 lore_cuda_product p, const lore_cuda_weight *w,
                                 const big_memory *memory)
{
    const lore_view sums =
        memory->sums != NULL ? lore_view_of(memory->sums, f.out.rows, f.out.cols) : f.out;
    const int32_t piece = memory->unpacked != NULL ? memory->piece : f.out.cols;
    for (int32_t first = 0; first < f.out.cols; first += piece) {
        const int32_t outs = f.out.cols - first < piece ? f.out.cols - first : piece;
        const int64_t count = (int64_t)outs * p.depth;
        p.out = lore_view_columns(sums, first, outs);
        if (memory->unpacked != NULL) {
            const dim3 grid((unsigned)((count / 16 + THREADS - 1) / THREADS));
            p.w = memory->unpacked;
            LORE_CUDA_NOTE(
                queue,
                lore_cuda_launch(queue, unpack_kernel, grid, dim3(THREADS), 0, memory->unpacked,
                                 (const int8_t *)w->values + (int64_t)first * p.depth, count));
        }
        if (!lore_cuda_blas_multiply(blas, queue, &p)) {
            return false; /* the first piece then: the library refuses shapes it has seen none of */
        }
    }
    finish(queue, f, sums);
    return true;
}

/* False: nothing was done to out. */
static bool blas_matmul(lore_queue *queue, const lore_cuda_finish &f, lore_view x,
                        const lore_cuda_weight *w)
{
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    big_memory memory;
    const int32_t each = w->dtype == LORE_I8 ? 16 : 8; /* of the depth, that a row is aligned */
    if (lore_cuda_backend_of(queue)->blas_library == NULL ||
        (w->dtype != LORE_F32 && x.cols % each != 0) ||
        (w->dtype == LORE_F32 && x.dtype != LORE_F32)) {
        return false;
    }
    lore_cuda_blas *blas = take_blas(queue);
    if (blas == NULL || !take_memory(queue, f, x, w, &memory)) {
        return true; /* noted */
    }
    lore_cuda_product p = {};
    p.x = x.data;
    p.x_stride = x.stride;
    p.w = w->values;
    p.depth = x.cols;
    p.dtype = w->dtype == LORE_F32 ? LORE_F32 : LORE_BF16;
    if (memory.x != NULL) {
        LORE_CUDA_NOTE(queue, lore_cuda_round_rows(memory.x, x, stream));
        p.x = memory.x;
        p.x_stride = x.cols;
    }
    return multiply_and_add(queue, blas, f, p) ||
           multiply_then_finish(queue, blas, f, p, w, &memory);
}

/* ---- few rows, and which way a product goes ---- */

/* Rows of f32 that the kernel does not round itself are rounded in scratch. False: not its shape.
 */
static bool few_matmul(lore_queue *queue, lore_cuda_few few)
{
    if (!lore_cuda_few_takes(few.w, few.x.rows)) {
        return false;
    }
    const bool is_f32 = few.x.dtype == LORE_F32;
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    if (!lore_is_aligned(few.x, 16 / (int32_t)lore_dtype_size(few.x.dtype)) ||
        (is_f32 && !lore_cuda_few_takes_f32(few.x.rows, few.x.cols))) {
        __nv_bfloat16 *rounded = (__nv_bfloat16 *)lore_cuda_scratch(
            queue, (size_t)few.x.rows * (size_t)few.x.cols * sizeof(__nv_bfloat16));
        if (rounded == NULL) {
            return true; /* noted */
        }
        LORE_CUDA_NOTE(queue, lore_cuda_round_rows(rounded, few.x, stream));
        few.x = lore_view_as(LORE_BF16, rounded, few.x.rows, few.x.cols);
    }
    LORE_CUDA_NOTE(queue, lore_cuda_few_rows(queue, &few));
    return true;
}

/* ---- what adapters add ----
 * Where the product adds to what is there, they do so first: their kernels follow one another, and
 * those before them, without a gap, which cuBLASLt's do not. Elsewhere they come behind it. */

static void add_adapters(lore_queue *queue, const lore_cuda_few &few, const lore_lora *lora)
{
    const lore_cuda_addition addition = {few.finish.out, few.x, few.norm, few.eps, lora, false};
    void *memory = lore_cuda_scratch(queue, lore_cuda_lora_bytes(&addition));
    if (memory != NULL) {
        lore_cuda_lora_add(queue, &addition, memory);
    }
}

/* A gated product has no sums for them to be added to: it gets all that they add, [n, 2f]. False
 * after noting that there is no memory. It is behind what few_matmul may take. */
static bool collect_adapters(lore_queue *queue, lore_cuda_few *few, const lore_lora *lora)
{
    const int32_t rows = few->x.rows, outs = few->w->base.rows;
    const size_t before = aligned((size_t)rows * (size_t)few->x.cols * sizeof(__nv_bfloat16));
    const size_t added_bytes = aligned((size_t)rows * (size_t)outs * sizeof(float));
    lore_cuda_addition addition = {{}, few->x, few->norm, few->eps, lora, true};
    addition.out = lore_view_of(NULL, rows, outs);
    char *memory =
        (char *)lore_cuda_scratch(queue, before + added_bytes + lore_cuda_lora_bytes(&addition));
    if (memory == NULL) {
        return false;
    }
    addition.out.data = (float *)(void *)(memory + before);
    lore_cuda_lora_add(queue, &addition, memory + before + added_bytes);
    few->added = addition.out.data;
    return true;
}

void lore_cuda_matmul(lore_queue *queue, lore_view out, lore_view x, const lore_weight *w,
                      lore_epilogue epilogue)
{
    lore_cuda_few few = {};
    few.w = (const lore_cuda_weight *)w;
    few.finish = {out, few.w->scales, epilogue.bias, epilogue.activation, epilogue.is_accumulating};
    few.x = x;
    LORE_ASSERT(out.cols == w->rows && x.cols == w->cols);
    if (x.rows == 0) {
        return;
    }
    if (epilogue.lora != NULL && epilogue.is_accumulating) {
        add_adapters(queue, few, epilogue.lora);
    }
    if (!few_matmul(queue, few) && !blas_matmul(queue, few.finish, x, few.w)) {
        LORE_CUDA_NOTE(queue, tile_launch(few.finish, x, few.w, lore_cuda_queue_of(queue)->stream));
    }
    if (epilogue.lora != NULL && !epilogue.is_accumulating) {
        add_adapters(queue, few, epilogue.lora);
    }
}

/* One to four rows are normed by the product itself; more by the op, into the scratch that came
 * along, and only the gate is the product's. Many rows gain by neither. */
bool lore_cuda_matmul_fused(lore_queue *queue, lore_view out, lore_view x, const lore_weight *w,
                            lore_epilogue epilogue, const lore_fusion *fused)
{
    const lore_lora *lora = epilogue.lora;
    lore_cuda_few few = {};
    few.w = (const lore_cuda_weight *)w;
    few.finish = {out, few.w->scales, epilogue.bias, epilogue.activation, epilogue.is_accumulating};
    few.x = x;
    few.is_gated = fused->is_gated;
    LORE_ASSERT(w->rows == (fused->is_gated ? 2 * out.cols : out.cols) && x.cols == w->cols);
    if (x.rows == 0) {
        return true;
    }
    if (!lore_cuda_few_takes(few.w, x.rows)) {
        return false;
    }
    if (lore_is_aligned(x, 4) && lore_cuda_few_takes_f32(x.rows, x.cols)) {
        few.norm = fused->norm;
        few.eps = fused->eps;
    } else {
        lore_cuda_rmsnorm(queue, fused->normed, x, fused->norm, fused->eps);
        few.x = fused->normed;
    }
    if (lora != NULL && fused->is_gated && !collect_adapters(queue, &few, lora)) {
        return true; /* noted */
    }
    if (lora != NULL && !fused->is_gated && epilogue.is_accumulating) {
        add_adapters(queue, few, lora);
    }
    const bool is_done = few_matmul(queue, few);
    if (lora != NULL && !fused->is_gated && !epilogue.is_accumulating) {
        add_adapters(queue, few, lora);
    }
    return is_done;
}
