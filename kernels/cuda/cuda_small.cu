/* The ops that touch every element once: embedding, gated activation, addition, caps, gather,
 * pooling, and the exact scan of vectors. Memory bandwidth is the bound of all of them; a thread
 * takes neighbouring columns, a block a piece of one row. */
#include "kernels/cuda/cuda_int.h"

enum { THREADS = 256, LANES = 8 }; /* of a block; of a vector in scan */

/* One block for 4 THREADS columns of a row. */
static dim3 grid_over(int32_t rows, int32_t cols)
{
    return dim3((unsigned)rows, (unsigned)((cols + 4 * THREADS - 1) / (4 * THREADS)));
}

/* The first of a thread's four columns. */
static __device__ __forceinline__ int32_t column_here()
{
    return (int32_t)(4 * (blockIdx.y * THREADS + threadIdx.x));
}

/* Whether fours of a row may be read or written at once. */
static bool is_wide(lore_view view)
{
    return view.cols % 4 == 0 && lore_is_aligned(view, 4);
}

template <typename T> static __device__ __forceinline__ T *row_here(const lore_view &view)
{
    return (T *)view.data + blockIdx.x * view.stride;
}

/* ---- copies: rounding, embed, gather ---- */

template <typename T>
static __global__ void round_kernel(__nv_bfloat16 *out, lore_view x, bool is_wide)
{
    const int32_t c = column_here();
    if (c < x.cols) {
        lore_put_four(out + (int64_t)blockIdx.x * x.cols, c, x.cols, is_wide,
                      lore_load_four(row_here<T>(x), c, x.cols, is_wide));
    }
}

cudaError_t lore_cuda_round_rows(__nv_bfloat16 *out, lore_view x, cudaStream_t stream)
{
    const dim3 grid = grid_over(x.rows, x.cols);
    if (x.dtype == LORE_BF16) {
        round_kernel<__nv_bfloat16><<<grid, THREADS, 0, stream>>>(out, x, is_wide(x));
    } else {
        round_kernel<float><<<grid, THREADS, 0, stream>>>(out, x, is_wide(x));
    }
    return cudaGetLastError();
}

typedef struct embed_task {
    lore_view out;
    const void *table;
    const float *scales;
    const int32_t *ids, *drawn; /* drawn NULL: no id is below 0 */
    float scale;
    bool is_accumulating, is_wide;
} embed_task;

static __device__ __forceinline__ float4 add_four(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

template <typename T> static __global__ void embed_kernel(embed_task t)
{
    const int32_t c = column_here(), cols = t.out.cols;
    lore_cuda_release();
    lore_cuda_wait();
    if (c < cols) {
        float *to = row_here<float>(t.out);
        int32_t id = t.ids[blockIdx.x];
        id = id < 0 && t.drawn != NULL ? t.drawn[-1 - id] : id;
        const float own = t.scales != NULL ? t.scale * t.scales[id] : t.scale;
        const float4 v =
            lore_load_four((const T *)t.table + (int64_t)id * cols, c, cols, t.is_wide);
        float4 value = make_float4(own * v.x, own * v.y, own * v.z, own * v.w);
        if (t.is_accumulating) {
            value = add_four(lore_load_four((const float *)to, c, cols, t.is_wide), value);
        }
        lore_put_four(to, c, cols, t.is_wide, value);
    }
}

void lore_cuda_embed(lore_queue *queue, lore_view out, const lore_weight *table, const int32_t *ids,
                     const int32_t *drawn, float scale, bool is_accumulating)
{
    const lore_cuda_weight *own = (const lore_cuda_weight *)table;
    const embed_task t = {out,   own->values, own->scales,     ids,
                          drawn, scale,       is_accumulating, is_wide(out)};
    LORE_ASSERT(out.cols == table->cols);
    if (out.rows > 0) {
        LORE_CUDA_NOTE(queue,
                       lore_cuda_launch(queue,
                                        own->dtype == LORE_F32  ? embed_kernel<float>
                                        : own->dtype == LORE_I8 ? embed_kernel<int8_t>
                                                                : embed_kernel<__nv_bfloat16>,
                                        grid_over(out.rows, out.cols), dim3(THREADS), 0, t));
    }
}

template <typename T>
static __global__ void gather_kernel(lore_view out, lore_view x, const int32_t *rows, bool is_wide)
{
    const int32_t c = column_here();
    lore_cuda_release();
    lore_cuda_wait();
    if (c < out.cols) {
        const T *from = (const T *)x.data + (int64_t)rows[blockIdx.x] * x.stride;
        lore_put_four(row_here<T>(out), c, out.cols, is_wide,
                      lore_load_four(from, c, out.cols, is_wide));
    }
}

void lore_cuda_gather(lore_queue *queue, lore_view out, lore_view x, const int32_t *rows)
{
    if (out.rows > 0) {
        LORE_CUDA_NOTE(queue, lore_cuda_launch(queue,
                                               x.dtype == LORE_BF16 ? gather_kernel<__nv_bfloat16>
                                                                    : gather_kernel<float>,
                                               grid_over(out.rows, out.cols), dim3(THREADS), 0, out,
                                               x, rows, is_wide(out) && is_wide(x)));
    }
}

/* ---- activations and sums ---- */

template <typename X, typename T>
static __global__ void glu_kernel(lore_view out, lore_view gate_up, lore_activation activation,
                                  bool is_wide)
{
    const int32_t c = column_here(), cols = out.cols;
    lore_cuda_release();
    lore_cuda_wait();
    if (c < cols) {
        const X *from = row_here<X>(gate_up);
        const float4 gate = lore_load_four(from, c, cols, is_wide);
        const float4 up = lore_load_four(from + cols, c, cols, is_wide);
        lore_put_four(row_here<T>(out), c, cols, is_wide,
                      make_float4(lore_activate(gate.x, activation) * up.x,
                                  lore_activate(gate.y, activation) * up.y,
                                  lore_activate(gate.z, activation) * up.z,
                                  lore_activate(gate.w, activation) * up.w));
    }
}

template <typename X>
static cudaError_t glu_launch(lore_queue *queue, lore_view out, lore_view gate_up,
                              lore_activation activation)
{
    return lore_cuda_launch(
        queue, out.dtype == LORE_BF16 ? glu_kernel<X, __nv_bfloat16> : glu_kernel<X, float>,
        grid_over(out.rows, out.cols), dim3(THREADS), 0, out, gate_up, activation,
        is_wide(out) && is_wide(gate_up));
}

void lore_cuda_glu(lore_queue *queue, lore_view out, lore_view gate_up, lore_activation activation)
{
    if (out.rows > 0) {
        LORE_CUDA_NOTE(queue, gate_up.dtype == LORE_BF16
                                  ? glu_launch<__nv_bfloat16>(queue, out, gate_up, activation)
                                  : glu_launch<float>(queue, out, gate_up, activation));
    }
}

template <typename X> static __global__ void add_kernel(lore_view out, lore_view x, bool is_wide)
{
    const int32_t c = column_here(), cols = out.cols;
    lore_cuda_release();
    lore_cuda_wait();
    if (c < cols) {
        float *to = row_here<float>(out);
        lore_put_four(to, c, cols, is_wide,
                      add_four(lore_load_four((const float *)to, c, cols, is_wide),
                               lore_load_four((const X *)row_here<X>(x), c, cols, is_wide)));
    }
}

void lore_cuda_add(lore_queue *queue, lore_view out, lore_view x)
{
    if (out.rows > 0) {
        LORE_CUDA_NOTE(queue, lore_cuda_launch(queue,
                                               x.dtype == LORE_BF16 ? add_kernel<__nv_bfloat16>
                                                                    : add_kernel<float>,
                                               grid_over(out.rows, out.cols), dim3(THREADS), 0, out,
                                               x, is_wide(out) && is_wide(x)));
    }
}

static __global__ void softcap_kernel(lore_view x, float cap, bool is_wide)
{
    const int32_t c = column_here();
    lore_cuda_release();
    lore_cuda_wait();
    if (c < x.cols) {
        float *at = row_here<float>(x);
        const float4 v = lore_load_four((const float *)at, c, x.cols, is_wide);
        lore_put_four(at, c, x.cols, is_wide,
                      make_float4(cap * tanhf(v.x / cap), cap * tanhf(v.y / cap),
                                  cap * tanhf(v.z / cap), cap * tanhf(v.w / cap)));
    }
}

void lore_cuda_softcap(lore_queue *queue, lore_view x, float cap)
{
    if (x.rows > 0) {
        LORE_CUDA_NOTE(queue, lore_cuda_launch(queue, softcap_kernel, grid_over(x.rows, x.cols),
                                               dim3(THREADS), 0, x, cap, is_wide(x)));
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
            sum += lore_read(x, r, c);
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
