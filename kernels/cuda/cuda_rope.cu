/* Rotation of heads, norms of heads, and the write of keys and values into pages. One warp a head
 * of a row: queries are rotated where they are, keys go rotated to their page, values as they are.
 * Every element is read and written once: memory bandwidth is the bound.
 *
 * Sources: rotary embedding, Su et al. 2021 (half-split layout); norms of heads as in Qwen3. */
#include "kernels/cuda/cuda_int.h"

enum { WARPS = 8 };

/* 1 / sqrt(mean of squares + eps) of a head, or 1 without a norm. */
static __device__ float head_scale(const float *head, int32_t head_dim, const float *w, float eps)
{
    if (w == NULL) {
        return 1.0f;
    }
    float sum = 0.0f;
    for (int32_t i = threadIdx.x % 32; i < head_dim; i += 32) {
        sum += head[i] * head[i];
    }
    return 1.0f / sqrtf(lore_warp_sum(sum) / (float)head_dim + eps);
}

static __device__ __forceinline__ void put(float *to, float value)
{
    *to = value;
}

static __device__ __forceinline__ void put(__nv_bfloat16 *to, float value)
{
    *to = __float2bfloat16_rn(value);
}

/* to[] = rotate(norm(head)) by row `angle` of the tables. A lane owns both elements of its pairs,
 * so to may be head. */
template <typename T>
static __device__ void rotate(T *to, const float *head, int32_t head_dim, const float *w,
                              const lore_rope &rope, int32_t angle)
{
    const int32_t half = rope.dim / 2;
    const float scale = head_scale(head, head_dim, w, rope.eps);
    const float *cosine = rope.cosine + (int64_t)angle * half;
    const float *sine = rope.sine + (int64_t)angle * half;
    for (int32_t i = threadIdx.x % 32; i < half; i += 32) {
        const float a = head[i] * scale * (w != NULL ? w[i] : 1.0f);
        const float b = head[i + half] * scale * (w != NULL ? w[i + half] : 1.0f);
        put(to + i, a * cosine[i] - b * sine[i]);
        put(to + i + half, b * cosine[i] + a * sine[i]);
    }
    for (int32_t i = rope.dim + threadIdx.x % 32; i < head_dim; i += 32) {
        put(to + i, head[i] * scale * (w != NULL ? w[i] : 1.0f));
    }
}

static __device__ int64_t page_offset(const lore_pages &pages, const lore_batch &batch,
                                      int32_t sequence, int32_t position, int32_t kv_head)
{
    const int64_t page = batch.pages[batch.page_start[sequence] + position / pages.page_tokens];
    return ((page * pages.kv_heads + kv_head) * pages.page_tokens + position % pages.page_tokens) *
           pages.head_dim;
}

/* Head `j` of (h + 2g) of row blockIdx.x. */
template <typename T>
static __global__ void append_kernel(lore_view qkv, lore_rope rope, lore_pages pages,
                                     lore_batch batch)
{
    const int32_t j = (int32_t)(blockIdx.y * WARPS + threadIdx.x / 32), row = (int32_t)blockIdx.x;
    const int32_t e = pages.head_dim;
    if (j >= rope.heads + 2 * pages.kv_heads) {
        return;
    }
    const int32_t sequence = lore_find_sequence(batch.row_start, batch.sequences, row);
    const int32_t position = batch.past[sequence] + row - batch.row_start[sequence];
    const int32_t angle = position + (rope.starts != NULL ? rope.starts[sequence] : 0);
    float *head = qkv.data + row * qkv.stride + (int64_t)j * e;
    if (j < rope.heads) {
        rotate(head, head, e, rope.q_norm, rope, angle);
        return;
    }
    const int32_t kv_head = (j - rope.heads) % pages.kv_heads;
    const int64_t at = page_offset(pages, batch, sequence, position, kv_head);
    if (j < rope.heads + pages.kv_heads) {
        rotate((T *)pages.keys + at, head, e, rope.k_norm, rope, angle);
        return;
    }
    for (int32_t i = threadIdx.x % 32; i < e; i += 32) {
        put((T *)pages.values + at + i, head[i]);
    }
}

void lore_cuda_rope_append(lore_queue *queue, lore_view qkv, const lore_rope *rope,
                           const lore_pages *pages, const lore_batch *batch)
{
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    const int32_t heads = rope->heads + 2 * pages->kv_heads;
    const dim3 grid((unsigned)batch->rows, (unsigned)((heads + WARPS - 1) / WARPS));
    if (batch->rows == 0) {
        return;
    }
    if (pages->dtype == LORE_F32) {
        append_kernel<float><<<grid, 32 * WARPS, 0, stream>>>(qkv, *rope, *pages, *batch);
    } else {
        LORE_ASSERT(pages->dtype == LORE_BF16);
        append_kernel<__nv_bfloat16><<<grid, 32 * WARPS, 0, stream>>>(qkv, *rope, *pages, *batch);
    }
    LORE_CUDA_NOTE(queue, cudaGetLastError());
}

static __global__ void packed_kernel(lore_view qkv, lore_rope rope, int32_t kv_heads,
                                     int32_t head_dim, int32_t sequences, const int32_t *row_start)
{
    const int32_t j = (int32_t)(blockIdx.y * WARPS + threadIdx.x / 32), row = (int32_t)blockIdx.x;
    if (j >= rope.heads + kv_heads) {
        return;
    }
    const int32_t position = row - row_start[lore_find_sequence(row_start, sequences, row)];
    float *head = qkv.data + row * qkv.stride + (int64_t)j * head_dim;
    rotate(head, head, head_dim, j < rope.heads ? rope.q_norm : rope.k_norm, rope, position);
}

void lore_cuda_rope_packed(lore_queue *queue, lore_view qkv, const lore_rope *rope,
                           int32_t kv_heads, int32_t head_dim, int32_t sequences,
                           const int32_t *row_start)
{
    const int32_t heads = rope->heads + kv_heads;
    const dim3 grid((unsigned)qkv.rows, (unsigned)((heads + WARPS - 1) / WARPS));
    if (qkv.rows > 0) {
        packed_kernel<<<grid, 32 * WARPS, 0, lore_cuda_queue_of(queue)->stream>>>(
            qkv, *rope, kv_heads, head_dim, sequences, row_start);
        LORE_CUDA_NOTE(queue, cudaGetLastError());
    }
}
