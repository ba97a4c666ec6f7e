/* The ops that touch every element once: embedding, gated activation, addition, caps, gather,
 * pooling, and the exact scan of vectors. Memory bandwidth is the bound of all of them; a thread
 * takes neighbouring columns, a block a piece of one row. */
#include "kernels/cuda/cuda_int.h"

enum { THREADS = 256, LANES = 8 }; /* of a block; of a vector in scan */

/* One block for THREADS columns of a row. */
static dim3 grid_over(int32_t rows, int32_t cols)
{
    return dim3((unsigned)rows, (unsigned)((cols + THREADS - 1) / THREADS));
}

static __device__ __forceinline__ int32_t column_here()
{
    return (int32_t)(blockIdx.y * THREADS + threadIdx.x);
}

/* ---- copies: rounding, embed, gather ---- */

static __global__ void round_kernel(__nv_bfloat16 *out, lore_view x)
{
    const int32_t c = column_here();
    if (c < x.cols) {
        out[(int64_t)blockIdx.x * x.cols + c] =
            __float2bfloat16_rn(x.data[blockIdx.x * x.stride + c]);
    }
}

cudaError_t lore_cuda_round_rows(__nv_bfloat16 *out, lore_view x, cudaStream_t stream)
{
    round_kernel<<<grid_over(x.rows, x.cols), THREADS, 0, stream>>>(out, x);
    return cudaGetLastError();
}

template <typename T>
static __global__ void embed_kernel(lore_view out, const T *table, const float *scales,
                                    const int32_t *ids, float scale, bool is_accumulating)
{
    const int32_t c = column_here();
    if (c < out.cols) {
        float *to = out.data + blockIdx.x * out.stride + c;
        const int32_t id = ids[blockIdx.x];
        const float own = scales != NULL ? scale * scales[id] : scale;
        const float value = own * lore_to_f32(table[(int64_t)id * out.cols + c]);
        *to = is_accumulating ? *to + value : value;
    }
}

void lore_cuda_embed(lore_queue *queue, lore_view out, const lore_weight *table, const int32_t *ids,
                     float scale, bool is_accumulating)
{
    const lore_cuda_weight *own = (const lore_cuda_weight *)table;
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    LORE_ASSERT(out.cols == table->cols);
    if (out.rows == 0) {
        return;
    }
    if (own->dtype == LORE_F32) {
        embed_kernel<<<grid_over(out.rows, out.cols), THREADS, 0, stream>>>(
            out, (const float *)own->values, own->scales, ids, scale, is_accumulating);
    } else {
        embed_kernel<<<grid_over(out.rows, out.cols), THREADS, 0, stream>>>(
            out, (const __nv_bfloat16 *)own->values, own->scales, ids, scale, is_accumulating);
    }
    LORE_CUDA_NOTE(queue, cudaGetLastError());
}

static __global__ void gather_kernel(lore_view out, lore_view x, const int32_t *rows)
{
    const int32_t c = column_here();
    if (c < out.cols) {
        out.data[blockIdx.x * out.stride + c] = x.data[(int64_t)rows[blockIdx.x] * x.stride + c];
    }
}

void lore_cuda_gather(lore_queue *queue, lore_view out, lore_view x, const int32_t *rows)
{
    if (out.rows > 0) {
        gather_kernel<<<grid_over(out.rows, out.cols), THREADS, 0,
                        lore_cuda_queue_of(queue)->stream>>>(out, x, rows);
        LORE_CUDA_NOTE(queue, cudaGetLastError());
    }
}

/* ---- activations and sums ---- */

static __global__ void glu_kernel(lore_view out, lore_view gate_up, lore_activation activation)
{
    const int32_t c = column_here();
    if (c < out.cols) {
        const float *gate = gate_up.data + blockIdx.x * gate_up.stride + c;
        out.data[blockIdx.x * out.stride + c] = lore_activate(*gate, activation) * gate[out.cols];
    }
}

void lore_cuda_glu(lore_queue *queue, lore_view out, lore_view gate_up, lore_activation activation)
{
    if (out.rows > 0) {
        glu_kernel<<<grid_over(out.rows, out.cols), THREADS, 0,
                     lore_cuda_queue_of(queue)->stream>>>(out, gate_up, activation);
        LORE_CUDA_NOTE(queue, cudaGetLastError());
    }
}

static __global__ void add_kernel(lore_view out, lore_view x)
{
    const int32_t c = column_here();
    if (c < out.cols) {
        out.data[blockIdx.x * out.stride + c] += x.data[blockIdx.x * x.stride + c];
    }
}

void lore_cuda_add(lore_queue *queue, lore_view out, lore_view x)
{
    if (out.rows > 0) {
        add_kernel<<<grid_over(out.rows, out.cols), THREADS, 0,
                     lore_cuda_queue_of(queue)->stream>>>(out, x);
        LORE_CUDA_NOTE(queue, cudaGetLastError());
    }
}

static __global__ void softcap_kernel(lore_view x, float cap)
{
    const int32_t c = column_here();
    if (c < x.cols) {
        float *at = x.data + blockIdx.x * x.stride + c;
        *at = cap * tanhf(*at / cap);
    }
}

void lore_cuda_softcap(lore_queue *queue, lore_view x, float cap)
{
    if (x.rows > 0) {
        softcap_kernel<<<grid_over(x.rows, x.cols), THREADS, 0,
                         lore_cuda_queue_of(queue)->stream>>>(x, cap);
        LORE_CUDA_NOTE(queue, cudaGetLastError());
    }
}

/* ---- pooling: one block a sequence ---- */

static __global__ void pool_kernel(lore_view out, lore_view x, const int32_t *row_start,
                                   lore_pooling pooling, bool is_normalised)
{
    int32_t first = row_start[blockIdx.x], end = row_start[blockIdx.x + 1];
    first = pooling == LORE_POOL_LAST ? end - 1 : first;
    end = pooling == LORE_POOL_CLS ? first + 1 : end;
    float *to = out.data + blockIdx.x * out.stride;
    float squares = 0.0f;
    for (int32_t c = threadIdx.x; c < out.cols; c += THREADS) {
        float sum = 0.0f;
        for (int32_t r = first; r < end; r++) {
            sum += x.data[r * x.stride + c];
        }
        to[c] = sum / (float)(end - first);
        squares += to[c] * to[c];
    }
    if (!is_normalised) {
        return;
    }
    const float length = fmaxf(sqrtf(lore_block_sum(squares)), 1e-12f);
    for (int32_t c = threadIdx.x; c < out.cols; c += THREADS) {
        to[c] /= length; /* each thread its own columns again */
    }
}

void lore_cuda_pool(lore_queue *queue, lore_view out, lore_view x, const int32_t *row_start,
                    lore_pooling pooling, bool is_normalised)
{
    if (out.rows > 0) {
        pool_kernel<<<out.rows, THREADS, 0, lore_cuda_queue_of(queue)->stream>>>(
            out, x, row_start, pooling, is_normalised);
        LORE_CUDA_NOTE(queue, cudaGetLastError());
    }
}

/* ---- scan: eight lanes a vector ---- */

/* Sum over the lanes that share a vector. */
static __device__ __forceinline__ int32_t lanes_sum(int32_t x)
{
    for (int distance = LANES / 2; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    }
    return x;
}

/* Vectors of a multiple of 16 bytes are read 16 bytes at a time; others byte by byte. Blocks walk
 * over the vectors in strides of the grid. int32 holds the sum of 131,000 products of -128. */
template <bool is_wide>
static __global__ void scan_kernel(float *scores, const int8_t *query, float query_scale,
                                   const int8_t *vectors, const float *scales, int64_t count,
                                   int32_t dim)
{
    const int32_t lane = threadIdx.x % LANES;
    const int64_t step = (int64_t)gridDim.x * (THREADS / LANES);
    const int64_t rounds = (count + step - 1) / step; /* all lanes of a warp go around together */
    int64_t i = (int64_t)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    for (int64_t round = 0; round < rounds; round++, i += step) {
        const int8_t *vector = vectors + (i < count ? i : 0) * dim;
        int32_t sum = 0;
        if (is_wide) {
#pragma unroll 4
            for (int32_t c = lane * 16; c < dim; c += LANES * 16) {
                const int4 v = __ldcs((const int4 *)(vector + c)); /* read once */
                const int4 q = *(const int4 *)(query + c);
                sum = __dp4a(v.x, q.x, sum);
                sum = __dp4a(v.y, q.y, sum);
                sum = __dp4a(v.z, q.z, sum);
                sum = __dp4a(v.w, q.w, sum);
            }
        } else {
            for (int32_t c = lane; c < dim; c += LANES) {
                sum += (int32_t)vector[c] * (int32_t)query[c];
            }
        }
        sum = lanes_sum(sum);
        if (lane == 0 && i < count) {
            scores[i] = (float)sum * (query_scale * scales[i]);
        }
    }
}

static bool is_aligned(const void *memory, size_t bytes)
{
    return (size_t)memory % bytes == 0;
}

void lore_cuda_scan(lore_queue *queue, float *scores, const int8_t *query, float query_scale,
                    const int8_t *vectors, const float *scales, int64_t count, int32_t dim)
{
    if (count == 0) {
        return;
    }
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    const int64_t blocks = (count + THREADS / LANES - 1) / (THREADS / LANES);
    const int64_t blocks_max = 8 * (int64_t)lore_cuda_backend_of(queue)->processors; /* resident */
    const unsigned grid = (unsigned)(blocks < blocks_max ? blocks : blocks_max);
    if (dim % 16 == 0 && is_aligned(query, 16) && is_aligned(vectors, 16)) {
        scan_kernel<true>
            <<<grid, THREADS, 0, stream>>>(scores, query, query_scale, vectors, scales, count, dim);
    } else {
        scan_kernel<false>
            <<<grid, THREADS, 0, stream>>>(scores, query, query_scale, vectors, scales, count, dim);
    }
    LORE_CUDA_NOTE(queue, cudaGetLastError());
}
