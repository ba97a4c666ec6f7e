/* What the files of kernels/cuda share: the structs behind a backend, a queue and a weight, how a
 * failure is noted, and the launchers.
 *
 * A queue is a stream. Its ops are enqueued and return at once; failures of a launch are noted in
 * the queue where they happen, failures of the device when lore_queue_sync waits. Memory that an op
 * needs for itself (rows rounded to bf16, parts of an attention) is the queue's scratch: ops of one
 * queue run one behind the other, so one block of it serves them all. It grows to the largest op
 * seen; growing waits for the stream, which a warm step never does. */
#ifndef LORE_KERNELS_CUDA_INT_H
#define LORE_KERNELS_CUDA_INT_H

#include "kernels/backend_int.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

typedef struct lore_cuda_blas lore_cuda_blas; /* cuda_blas.cu */
typedef struct lore_cuda_ring lore_cuda_ring; /* cuda_upload.cu */

/* ---- kernels that overlap ----
 * Launched by lore_cuda_launch, a kernel may begin while the one before it in the stream still runs
 * (programmatic dependent launch, sm_90 on; CUDA C++ Programming Guide). Its blocks take their
 * places, load what no kernel ever writes (weights, norms, biases, tables) and then wait. The
 * rules:
 *
 *   1. Nothing that another kernel writes is read, and nothing at all is written to global memory,
 *      before lore_cuda_wait(). A copy is no kernel, and ends this: it waits for all before it, and
 *      the kernels behind it for it. So the arrays of a batch, copied before its step, may be read
 *      at once, and so may keys and values of the steps before that.
 *   2. Every thread of every block calls lore_cuda_wait() before it leaves, also where it has
 *      nothing to do. So a kernel ends behind the one before it, and waiting for one kernel means
 *      all the earlier ones: neither a buffer read two kernels ago nor one written ten ago needs
 *      another thought.
 *   3. lore_cuda_release() lets the next kernel begin; it promises nothing about memory. Called
 *      early by all: the next kernel's blocks only take what this one's leave free, since it begins
 *      when the last block of this one has called.
 *   4. Before lore_cuda_wait() no load may come through a cache that is not kept coherent for what
 *      others write: __ldg and const __restrict__ are for what no kernel ever writes, __ldcg and
 *      cp.async.cg for what a copy or a step before it wrote.
 *
 * A kernel launched the usual way, a copy or an event waits for the end of all before it, as ever:
 * the two kinds mix. Below sm_90 both calls are nothing and launches are the usual ones. */

typedef struct lore_cuda_backend {
    lore_backend base;
    int device;
    int processors;                /* multiprocessors */
    bool has_overlap;              /* of kernels: sm_90 and later */
    const void *encode_tensor_map; /* the driver's; NULL: no kernel of Hopper's runs */
    lore_dtype dtype; /* of packed weights and of the rows that meet them: f32 or bf16 */
    void *
        blas_library; /* kept loaded; NULL where cuBLASLt is missing: own kernels do all products */
    lore_cuda_ring *ring;     /* of weights under way (cuda_upload.cu); NULL until the first */
    cudaMemPool_t pool;       /* of lore_backend_alloc; NULL: the device has none */
    cudaStream_t pool_stream; /* in whose order it gives and takes: nothing else is in it */
} lore_cuda_backend;

/* Page-locked memory of a queue, and when the device has read it. */
typedef struct lore_cuda_staging {
    void *memory;
    size_t size_bytes;
    cudaEvent_t is_read;
} lore_cuda_staging;

/* Counters of a queue: rows of a draw, heads of keys of the sequences of a batch. */
enum { LORE_CUDA_ARRIVED = 1024 };

/* Memory of a queue that grows with what is asked of it: by a quarter at least, from a megabyte, so
 * that both of a queue's are terabytes after so many times. */
enum { LORE_CUDA_OUTGROWN = 128 };
typedef struct lore_cuda_memory {
    void *at;
    size_t size_bytes;
} lore_cuda_memory;

typedef struct lore_cuda_queue {
    lore_queue base;
    cudaStream_t stream;
    lore_priority priority; /* the stream's */
    lore_cuda_memory scratch;
    lore_cuda_memory packets; /* of cuda_layers.cu */
    lore_cuda_blas *blas; /* of this queue alone, as its workspace is; opened by the first product
                             of many rows */
    cudaEvent_t marks[LORE_MARKS]; /* each made when it is first set */
    lore_cuda_staging staging[2];  /* in turn */
    int32_t stage;
    unsigned *arrived; /* [LORE_CUDA_ARRIVED], 0 between kernels, for those whose last block goes on
                          alone: they count who is done, and clear what they counted */
    bool is_tuning;    /* products of new sizes try several algorithms */
    bool is_recording; /* then neither of both memories can grow */
    bool has_recordings;                /* which know the memory of their time by its address */
    void *outgrown[LORE_CUDA_OUTGROWN]; /* so that it is kept until the end */
    int32_t outgrown_count;
} lore_cuda_queue;

typedef struct lore_cuda_weight {
    lore_weight base;
    lore_dtype dtype; /* f32, bf16 or int8 */
    void *values;     /* [rows, cols], row-major */
    float *scales;    /* [rows], of int8, and of whole numbers in bf16, which hold them exactly; or
                         NULL */
} lore_cuda_weight;

/* The head that every op begins with. */
static inline lore_cuda_queue *lore_cuda_queue_of(lore_queue *queue)
{
    return (lore_cuda_queue *)queue;
}

/* Whether `count` neighbours of a view can be read as one, wherever a multiple of them begins. */
static inline bool lore_is_aligned(lore_view view, int32_t count)
{
    return view.stride % count == 0 &&
           (uintptr_t)view.data % ((size_t)count * lore_dtype_size(view.dtype)) == 0;
}

/* The rows of a view as what they are. */
static inline __nv_bfloat16 *lore_cuda_bf16(lore_view view)
{
    LORE_ASSERT(view.dtype == LORE_BF16);
    return (__nv_bfloat16 *)(void *)view.data;
}

static inline const lore_cuda_backend *lore_cuda_backend_of(const lore_queue *queue)
{
    return (const lore_cuda_backend *)queue->backend;
}

/* Note a failed call in the queue. */
void lore_cuda_note(lore_queue *queue, cudaError_t error, const char *call);
#define LORE_CUDA_NOTE(queue, call) lore_cuda_note(queue, call, #call)

/* As lore_fail, for a call outside of a queue: the device's words behind ours. */
lore_status lore_cuda_fail(lore_error *err, cudaError_t error, const char *what);

/* cudaMalloc, which also gets what the pool keeps for later. */
cudaError_t lore_cuda_malloc(const lore_cuda_backend *backend, void **memory, size_t size_bytes);

/* An allocation that failed: how much was wanted, how much is free, what helps. */
lore_status lore_cuda_fail_memory(lore_error *err, size_t size_bytes);

/* At least size_bytes of the queue's scratch, 256-byte aligned; NULL after noting the failure. */
void *lore_cuda_scratch(lore_queue *queue, size_t size_bytes);

/* At least `count` packets of cuda_layers.cu, 16-byte aligned, which nothing else ever writes, 0 at
 * first; gives two words of the same kind that go with them; NULL after noting the failure. */
uint32_t *lore_cuda_packets(lore_queue *queue, size_t count, uint64_t **packets);

/* ---- what needs no waiting (cuda_step.cu) ---- */
void lore_cuda_mark(lore_queue *queue, int32_t which);
void lore_cuda_wait_mark(lore_queue *queue, int32_t which);
lore_status lore_cuda_host_alloc(lore_backend *backend, size_t size_bytes, void **memory,
                                 lore_error *err);
void lore_cuda_host_free(lore_backend *backend, void *memory);
void lore_cuda_download_later(lore_queue *queue, void *host, const void *from, size_t size_bytes);
/* Page-locked memory to fill and to copy from in queue order, two blocks in turn; NULL after noting
 * the failure. Behind the copy comes stage_sent. */
void *lore_cuda_stage(lore_queue *queue, size_t size_bytes);
void lore_cuda_stage_sent(lore_queue *queue);
void lore_cuda_stage_close(lore_cuda_queue *queue);
void lore_cuda_record_begin(lore_queue *queue);
lore_recording *lore_cuda_record_end(lore_queue *queue);
void lore_cuda_replay(lore_queue *queue, lore_recording *recording);
void lore_cuda_recording_free(lore_recording *recording);

/* ---- large copies to the device (cuda_upload.cu) ---- */
/* Write rows first .. first + count - 1 of a source to `to`, one behind the other. Called from
 * threads of the pool, with different rows. */
typedef void (*lore_cuda_fill)(void *self, char *to, int64_t first, int64_t count);
/* rows of row_bytes each go to `to` on the device, through page-locked memory that the backend's
 * pool fills. Complete on return. One thread at a time, as lore_weight_pack. */
cudaError_t lore_cuda_upload_large(lore_backend *backend, void *to, int64_t rows, size_t row_bytes,
                                   lore_cuda_fill fill, void *self);
void lore_cuda_ring_close(lore_cuda_ring *ring); /* NULL: nothing */

/* ---- weights (cuda_weight.cu) ---- */
lore_status lore_cuda_weight_pack(lore_backend *backend, const lore_matrix *parts, int32_t count,
                                  lore_weight_use use, lore_weight **weight, lore_error *err);
void lore_cuda_weight_free(lore_weight *weight);

/* ---- cuBLASLt behind its fence (cuda_blas.cu) ---- */
/* The library, for dlclose, or NULL. */
void *lore_cuda_blas_load(void);
lore_status lore_cuda_blas_open(lore_cuda_blas **blas, lore_error *err);
void lore_cuda_blas_close(lore_cuda_blas *blas);
/* out[n, o] (+)= x[n, d] w[o, d]^T + bias, both inputs of `dtype`, out f32 or bf16. False where the
 * library has nothing for the shape, the alignment or the bias; a failure is noted. */
typedef struct lore_cuda_product {
    lore_view out;
    const void *x; /* [n, d], rows x_stride apart */
    int64_t x_stride;
    const void *w;     /* [o, d] */
    const float *bias; /* [o] or NULL */
    int32_t depth;
    lore_dtype dtype;
    bool is_accumulating;
} lore_cuda_product;
bool lore_cuda_blas_multiply(lore_cuda_blas *blas, lore_queue *queue, const lore_cuda_product *p);
/* lore_queue_tune: its products that are the library's. */
void lore_cuda_tune(lore_queue *queue, bool is_on);

/* The driver's cuTensorMapEncodeTiled where this build has kernels for sm_90a, else NULL
 * (cuda_attention_hopper.cu). */
const void *lore_cuda_find_tensor_map(void);

/* out[n, d] = x rounded to bf16, rows one behind the other (cuda_small.cu). */
cudaError_t lore_cuda_round_rows(__nv_bfloat16 *out, lore_view x, cudaStream_t stream);

/* ---- ops ---- */
void lore_cuda_embed(lore_queue *, lore_view out, const lore_weight *table, const int32_t *ids,
                     const int32_t *drawn, float scale, bool is_accumulating);
void lore_cuda_rmsnorm(lore_queue *, lore_view out, lore_view x, const float *w, float eps);
void lore_cuda_layernorm(lore_queue *, lore_view out, lore_view x, const float *w, const float *b,
                         float eps);
void lore_cuda_add_layernorm(lore_queue *, lore_view x, lore_view rounded, lore_view y,
                             const float *w, const float *b, float eps); /* cuda_encoder.cu */
void lore_cuda_matmul(lore_queue *, lore_view out, lore_view x, const lore_weight *w,
                      lore_epilogue epilogue);
bool lore_cuda_matmul_fused(lore_queue *, lore_view out, lore_view x, const lore_weight *w,
                            lore_epilogue epilogue, const lore_fusion *);
bool lore_cuda_layers(lore_queue *, lore_view x, const lore_layers *,
                      const lore_batch *); /* cuda_layers.cu */
void lore_cuda_glu(lore_queue *, lore_view out, lore_view gate_up, lore_activation);
void lore_cuda_add(lore_queue *, lore_view out, lore_view x);
void lore_cuda_softcap(lore_queue *, lore_view x, float cap);
void lore_cuda_rope_append(lore_queue *, lore_view qkv, const lore_rope *, const lore_pages *,
                           const lore_batch *);
void lore_cuda_rope_packed(lore_queue *, lore_view qkv, const lore_rope *, int32_t kv_heads,
                           int32_t head_dim, int32_t sequences, const int32_t *row_start);
void lore_cuda_attend_paged(lore_queue *, lore_view out, lore_view q, const lore_pages *,
                            const lore_batch *, const lore_attention *);
void lore_cuda_attend_packed(lore_queue *, lore_view out, lore_view qkv, int32_t heads,
                             int32_t kv_heads, int32_t sequences, const int32_t *row_start,
                             int32_t rows_max, bool is_causal, const lore_attention *);
void lore_cuda_pool(lore_queue *, lore_view out, lore_view x, const int32_t *row_start,
                    lore_pooling, bool is_normalised);
void lore_cuda_gather(lore_queue *, lore_view out, lore_view x, const int32_t *rows);
void lore_cuda_penalise(lore_queue *, lore_view logits, const lore_penalty *penalties);
void lore_cuda_tops(lore_queue *, lore_likely *tops, lore_view logits, const lore_sample *samples);
void lore_cuda_sample(lore_queue *, int32_t *ids, float *logprobs, lore_view logits,
                      const lore_sample *samples, lore_drawing widest);
void lore_cuda_scan(lore_queue *, float *scores, const int8_t *query, float query_scale,
                    const int8_t *vectors, const float *scales, int64_t count, int32_t dim);
void lore_cuda_search(lore_queue *, int32_t *rows, float *scores, int32_t hits,
                      const lore_search *);

#ifdef __CUDACC__
/* Launch a kernel that keeps the rules above. */
template <typename... Parameters, typename... Arguments>
static inline cudaError_t lore_cuda_launch(lore_queue *queue, void (*kernel)(Parameters...),
                                           dim3 grid, dim3 block, size_t shared_bytes,
                                           Arguments... arguments)
{
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = lore_cuda_queue_of(queue)->stream;
    config.attrs = &attribute;
    config.numAttrs = lore_cuda_backend_of(queue)->has_overlap ? 1 : 0;
    /* A multiprocessor divides its memory into cache and shared memory in one way at a time:
     * kernels that are to be there together have to want the same. */
    cudaError_t error =
        cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                             cudaSharedmemCarveoutMaxShared);
    if (error == cudaSuccess && shared_bytes > 48 << 10) {
        error = cudaFuncSetAttribute(
            (const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    }
    if (error != cudaSuccess) {
        return error;
    }
    return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

/* ---- device helpers ---- */

/* Until all kernels before this one have ended and what they wrote can be seen. PTX ISA,
 * griddepcontrol. */
__device__ __forceinline__ void lore_cuda_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The next kernel may begin, as far as this thread is concerned. */
__device__ __forceinline__ void lore_cuda_release()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ float lore_warp_sum(float x)
{
    for (int distance = 16; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    }
    return x;
}

/* Sum over the block; all threads get it. Every thread must come. */
__device__ __forceinline__ float lore_block_sum(float x)
{
    __shared__ float parts[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    x = lore_warp_sum(x);
    __syncthreads(); /* the last sum's readers are done */
    if (lane == 0) {
        parts[warp] = x;
    }
    __syncthreads();
    return lore_warp_sum(lane < warps ? parts[lane] : 0.0f);
}

__device__ __forceinline__ float lore_activate(float x, lore_activation activation)
{
    switch (activation) {
    case LORE_ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case LORE_ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case LORE_ACT_SILU:
        return x / (1.0f + __expf(-x));
    case LORE_ACT_TANH:
        return tanhf(x);
    default:
        return x;
    }
}

/* 16 bytes from memory to shared memory, zeros where is_there is false; a thread's copies since the
 * last commit are a group. Not through the first cache. PTX ISA, cp.async. */
__device__ __forceinline__ void lore_copy_async(void *to, const void *from, bool is_there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(is_there ? 16 : 0)
                 : "memory");
}

/* The same, and the second cache gets the 128 bytes around them: the next copies want them. */
__device__ __forceinline__ void lore_copy_async_line(void *to, const void *from, bool is_there)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(is_there ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void lore_copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most `left` of the groups committed are under way. */
template <int left> __device__ __forceinline__ void lore_copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

/* Whether this block is the last of `blocks` to come here: what the others wrote before can be read
 * then. The counter is left as it was found, at zero. Every thread must come. (CUDA C++ Programming
 * Guide, "Memory Fence Functions") */
__device__ __forceinline__ bool lore_is_last_block(unsigned *arrived, unsigned blocks)
{
    bool is_last = false;
    __syncthreads(); /* all of the block have written; the fence stands for them all */
    if (threadIdx.x == 0) {
        __threadfence();
        is_last = atomicAdd(arrived, 1u) == blocks - 1;
        __threadfence();
        if (is_last) {
            *arrived = 0;
        }
    }
    return __syncthreads_or(is_last) != 0;
}

/* Largest first, by a block of `threads`; `size` is a power of two. (Batcher 1968) */
template <int threads> __device__ __forceinline__ void lore_sort_falling(uint64_t *keys, int size)
{
    for (int run = 2; run <= size; run *= 2) {
        for (int distance = run / 2; distance > 0; distance /= 2) {
            __syncthreads();
            for (int pair = threadIdx.x; pair < size / 2; pair += threads) {
                const int i = 2 * pair - (pair & (distance - 1));
                const uint64_t a = keys[i], b = keys[i + distance];
                const bool is_falling = (i & run) == 0;
                if ((a < b) == is_falling) {
                    keys[i] = b;
                    keys[i + distance] = a;
                }
            }
        }
    }
    __syncthreads();
}

/* Two values, rounded, as one operand of the tensor cores. */
__device__ __forceinline__ uint32_t lore_pack_bf16(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

/* d += a b on the tensor cores: a [16, 16] rows, b [16, 8] columns, bf16 pairs; d [16, 8] f32.
 * PTX ISA, mma.m16n8k16. */
__device__ __forceinline__ void lore_mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ float lore_to_f32(float x)
{
    return x;
}

__device__ __forceinline__ float lore_to_f32(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

__device__ __forceinline__ float lore_to_f32(int8_t x)
{
    return (float)x;
}

__device__ __forceinline__ void lore_put(float *to, float value)
{
    *to = value;
}

__device__ __forceinline__ void lore_put(__nv_bfloat16 *to, float value)
{
    *to = __float2bfloat16_rn(value);
}

/* Four neighbours at once; `at` is a multiple of their bytes. */
__device__ __forceinline__ float4 lore_load4(const float *at)
{
    return *(const float4 *)at;
}

__device__ __forceinline__ float4 lore_load4(const __nv_bfloat16 *at)
{
    const uint2 bits = *(const uint2 *)at;
    return make_float4(__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
                       __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u));
}

__device__ __forceinline__ float4 lore_load4(const int8_t *at)
{
    const char4 v = *(const char4 *)at;
    return make_float4((float)v.x, (float)v.y, (float)v.z, (float)v.w);
}

__device__ __forceinline__ void lore_put4(float *to, float4 value)
{
    *(float4 *)to = value;
}

__device__ __forceinline__ void lore_put4(__nv_bfloat16 *to, float4 value)
{
    *(uint2 *)to = make_uint2(lore_pack_bf16(value.x, value.y), lore_pack_bf16(value.z, value.w));
}

/* The four elements from c on, zeros behind the end. */
template <typename T>
__device__ __forceinline__ float4 lore_load_four(const T *row, int32_t c, int32_t cols,
                                                 bool is_wide)
{
    if (is_wide) {
        return lore_load4(row + c);
    }
    return make_float4(lore_to_f32(row[c]), c + 1 < cols ? lore_to_f32(row[c + 1]) : 0.0f,
                       c + 2 < cols ? lore_to_f32(row[c + 2]) : 0.0f,
                       c + 3 < cols ? lore_to_f32(row[c + 3]) : 0.0f);
}

template <typename T>
__device__ __forceinline__ void lore_put_four(T *row, int32_t c, int32_t cols, bool is_wide,
                                              float4 v)
{
    if (is_wide) {
        lore_put4(row + c, v);
        return;
    }
    const float values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (c + i < cols) {
            lore_put(row + c + i, values[i]);
        }
    }
}

/* One element of a view of either dtype, where speed does not matter. */
__device__ __forceinline__ float lore_read(const lore_view &v, int64_t row, int64_t col)
{
    const int64_t at = row * v.stride + col;
    return v.dtype == LORE_F32 ? v.data[at] : lore_to_f32(((const __nv_bfloat16 *)v.data)[at]);
}

__device__ __forceinline__ void lore_write(const lore_view &v, int64_t row, int64_t col,
                                           float value)
{
    const int64_t at = row * v.stride + col;
    if (v.dtype == LORE_F32) {
        v.data[at] = value;
    } else {
        ((__nv_bfloat16 *)v.data)[at] = __float2bfloat16_rn(value);
    }
}

/* The sequence that owns a row: the last one that begins at or before it. */
__device__ __forceinline__ int32_t lore_find_sequence(const int32_t *row_start, int32_t sequences,
                                                      int32_t row)
{
    int32_t low = 0, high = sequences; /* row_start[low] <= row < row_start[high] */
    while (high - low > 1) {
        const int32_t middle = (low + high) / 2;
        if (row_start[middle] <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}
#endif

#endif
