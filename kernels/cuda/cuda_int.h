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

typedef struct lore_cuda_backend {
    lore_backend base;
    int device;
    int processors;   /* multiprocessors */
    lore_dtype dtype; /* of packed weights and of the rows that meet them: f32 or bf16 */
    void *
        blas_library; /* kept loaded; NULL where cuBLASLt is missing: own kernels do all products */
} lore_cuda_backend;

typedef struct lore_cuda_queue {
    lore_queue base;
    cudaStream_t stream;
    void *scratch;
    size_t scratch_bytes;
    lore_cuda_blas *blas; /* of this queue alone, as its workspace is; opened by the first product
                             of many rows */
} lore_cuda_queue;

typedef struct lore_cuda_weight {
    lore_weight base;
    lore_dtype dtype; /* f32 or bf16 */
    void *values;     /* [rows, cols], row-major */
    float *scales;    /* [rows], of whole numbers in bf16, which hold int8 exactly; or NULL */
} lore_cuda_weight;

/* The head that every op begins with. */
static inline lore_cuda_queue *lore_cuda_queue_of(lore_queue *queue)
{
    return (lore_cuda_queue *)queue;
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

/* At least size_bytes of the queue's scratch, 256-byte aligned; NULL after noting the failure. */
void *lore_cuda_scratch(lore_queue *queue, size_t size_bytes);

/* ---- weights (cuda_weight.cu) ---- */
lore_status lore_cuda_weight_pack(lore_backend *backend, const lore_matrix *parts, int32_t count,
                                  lore_weight_use use, lore_weight **weight, lore_error *err);
void lore_cuda_weight_free(lore_weight *weight);

/* ---- cuBLASLt behind its fence (cuda_blas.cu) ---- */
/* The library, for dlclose, or NULL. */
void *lore_cuda_blas_load(void);
lore_status lore_cuda_blas_open(lore_cuda_blas **blas, lore_error *err);
void lore_cuda_blas_close(lore_cuda_blas *blas);
/* out[n, o] (+)= x[n, d] w[o, d]^T, both inputs of `dtype`, out f32. False where the library has
 * nothing for the shape or the alignment; a failure is noted. */
typedef struct lore_cuda_product {
    lore_view out;
    const void *x; /* [n, d], rows x_stride apart */
    int64_t x_stride;
    const void *w; /* [o, d] */
    int32_t depth;
    lore_dtype dtype;
    bool is_accumulating;
} lore_cuda_product;
bool lore_cuda_blas_multiply(lore_cuda_blas *blas, lore_queue *queue, const lore_cuda_product *p);

/* out[n, d] = x rounded to bf16, rows one behind the other (cuda_small.cu). */
cudaError_t lore_cuda_round_rows(__nv_bfloat16 *out, lore_view x, cudaStream_t stream);

/* ---- ops ---- */
void lore_cuda_embed(lore_queue *, lore_view out, const lore_weight *table, const int32_t *ids,
                     float scale, bool is_accumulating);
void lore_cuda_rmsnorm(lore_queue *, lore_view out, lore_view x, const float *w, float eps);
void lore_cuda_layernorm(lore_queue *, lore_view out, lore_view x, const float *w, const float *b,
                         float eps);
void lore_cuda_matmul(lore_queue *, lore_view out, lore_view x, const lore_weight *w,
                      lore_epilogue epilogue);
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
                      const lore_sample *samples);
void lore_cuda_scan(lore_queue *, float *scores, const int8_t *query, float query_scale,
                    const int8_t *vectors, const float *scales, int64_t count, int32_t dim);

#ifdef __CUDACC__
/* ---- device helpers ---- */

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
