/* Rotation of heads, norms of heads, and the write of keys and values into pages. One warp a head
 * of a row: queries are rotated where they are, keys go rotated to their page, values as they are,
 * two neighbours at a time. Every element is read and written once: memory bandwidth is the bound.
 *
 * Sources: rotary embedding, Su et al. 2021 (half-split layout); norms of heads as in Qwen3. */
#include "kernels/cuda/cuda_int.h"

enum { WARPS = 8 };

/* ---- two neighbours, or one where a head is not made of pairs of them ---- */

static __device__ __forceinline__ float2 load_two(const float *at, bool is_wide)
{
    return is_wide ? *(const float2 *)at : make_float2(*at, 0.0f);
}

static __device__ __forceinline__ float2 load_two(const __nv_bfloat16 *at, bool is_wide)
{
    return is_wide ? __bfloat1622float2(*(const __nv_bfloat162 *)at)
                   : make_float2(__bfloat162float(*at), 0.0f);
}

static __device__ __forceinline__ void put_two(float *at, bool is_wide, float2 v)
{
    if (is_wide) {
        *(float2 *)at = v;
    } else {
        *at = v.x;
    }
}

static __device__ __forceinline__ void put_two(__nv_bfloat16 *at, bool is_wide, float2 v)
{
    if (is_wide) {
        *(__nv_bfloat162 *)at = __floats2bfloat162_rn(v.x, v.y);
    } else {
        *at = __float2bfloat16_rn(v.x);
    }
}

static __device__ __forceinline__ float2 times(float2 v, float2 w, float scale)
{
    return make_float2(v.x * scale * w.x, v.y * scale * w.y);
}

/* 1 / sqrt(mean of squares + eps) of a head, or 1 without a norm. */
template <typename X>
static __device__ float head_scale(const X *head, int32_t head_dim, const float *w, float eps)
{
    if (w == NULL) {
        return 1.0f;
    }
    float sum = 0.0f;
    for (int32_t i = threadIdx.x % 32; i < head_dim; i += 32) {
        const float value = lore_to_f32(head[i]);
        sum += value * value;
    }
    return 1.0f / sqrtf(lore_warp_sum(sum) / (float)head_dim + eps);
}

/* Cosines and sines of the pairs from i on. */
struct turn {
    float2 cosine, sine;
};

static __device__ __forceinline__ turn load_turn(const lore_rope &rope, int32_t angle, int32_t i,
                                                 bool is_wide)
{
    const int64_t at = (int64_t)angle * (rope.dim / 2) + i;
    return {load_two(rope.cosine + at, is_wide), load_two(rope.sine + at, is_wide)};
}

/* The first of a lane; no kernel writes the tables, so it need not wait. */
static __device__ __forceinline__ turn load_first_turn(const lore_rope &rope, int32_t angle,
                                                       bool is_wide)
{
    const int32_t i = (int32_t)(threadIdx.x % 32) * (is_wide ? 2 : 1);
    return i < rope.dim / 2 ? load_turn(rope, angle, i, is_wide) : turn{};
}

/* to[] = rotate(norm(head)) by row `angle` of the tables, of which `t` is the lane's first turn. A
 * lane owns both elements of its pairs, so to may be head. */
template <typename T, typename X>
static __device__ void rotate(T *to, const X *head, int32_t head_dim, const float *w,
                              const lore_rope &rope, int32_t angle, turn t, bool is_wide)
{
    const int32_t half = rope.dim / 2, each = is_wide ? 2 : 1;
    const float scale = head_scale(head, head_dim, w, rope.eps);
    const float2 ones = make_float2(1.0f, 1.0f);
    for (int32_t i = (int32_t)(threadIdx.x % 32) * each; i < half; i += 32 * each) {
        if (i >= 32 * each) {
            t = load_turn(rope, angle, i, is_wide);
        }
        const float2 c = t.cosine, s = t.sine;
        const float2 a =
            times(load_two(head + i, is_wide), w != NULL ? load_two(w + i, is_wide) : ones, scale);
        const float2 b = times(load_two(head + i + half, is_wide),
                               w != NULL ? load_two(w + i + half, is_wide) : ones, scale);
        put_two(to + i, is_wide, make_float2(a.x * c.x - b.x * s.x, a.y * c.y - b.y * s.y));
        put_two(to + i + half, is_wide, make_float2(b.x * c.x + a.x * s.x, b.y * c.y + a.y * s.y));
    }
    for (int32_t i = rope.dim + (int32_t)(threadIdx.x % 32) * each; i < head_dim; i += 32 * each) {
        put_two(
            to + i, is_wide,
            times(load_two(head + i, is_wide), w != NULL ? load_two(w + i, is_wide) : ones, scale));
    }
}

/* Whether heads can be read in twos: halves and heads are even, and everything begins at two. */
static bool is_wide(lore_view qkv, const lore_rope *rope, int32_t head_dim)
{
    return rope->dim % 4 == 0 && head_dim % 2 == 0 && lore_is_aligned(qkv, 2);
}

/* Where a row is in its text. The arrays of a batch are copied to the device before the step: they
 * are read while the kernel before this one still runs, past the first cache. */
struct place {
    int32_t sequence, position;
};

static __device__ place find_place(const lore_batch &batch, int32_t row)
{
    int32_t low = 0, high = batch.sequences; /* row_start[low] <= row < row_start[high] */
    if (row < high && __ldcg(batch.row_start + row) == row &&
        __ldcg(batch.row_start + row + 1) > row) {
        low = row; /* as it is where every sequence has one row */
        high = row + 1;
    }
    while (high - low > 1) {
        const int32_t middle = (low + high) / 2;
        if (__ldcg(batch.row_start + middle) <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return {low, __ldcg(batch.past + low) + row - __ldcg(batch.row_start + low)};
}

static __device__ int64_t page_offset(const lore_pages &pages, const lore_batch &batch,
                                      const place &p, int32_t kv_head)
{
    const int64_t page = __ldcg(batch.pages + __ldcg(batch.page_start + p.sequence) +
                                p.position / pages.page_tokens);
    return ((page * pages.kv_heads + kv_head) * pages.page_tokens +
            p.position % pages.page_tokens) *
           pages.head_dim;
}

/* Head `j` of (h + 2g) of row blockIdx.x. */
template <typename T, typename X>
static __global__ void append_kernel(lore_view qkv, lore_rope rope, lore_pages pages,
                                     lore_batch batch, bool is_wide)
{
    const int32_t j = (int32_t)(blockIdx.y * WARPS + threadIdx.x / 32), row = (int32_t)blockIdx.x;
    const int32_t e = pages.head_dim, each = is_wide ? 2 : 1;
    lore_cuda_release();
    if (j >= rope.heads + 2 * pages.kv_heads) {
        lore_cuda_wait();
        return;
    }
    const place p = find_place(batch, row);
    const int32_t angle = p.position + (rope.starts != NULL ? __ldcg(rope.starts + p.sequence) : 0);
    const int32_t kv_head = j < rope.heads ? 0 : (j - rope.heads) % pages.kv_heads;
    const int64_t at = j < rope.heads ? 0 : page_offset(pages, batch, p, kv_head);
    const turn first = load_first_turn(rope, angle, is_wide);
    X *head = (X *)qkv.data + row * qkv.stride + (int64_t)j * e;
    lore_cuda_wait();
    if (j < rope.heads) {
        rotate(head, head, e, rope.q_norm, rope, angle, first, is_wide);
        return;
    }
    if (j < rope.heads + pages.kv_heads) {
        rotate((T *)pages.keys + at, head, e, rope.k_norm, rope, angle, first, is_wide);
        return;
    }
    for (int32_t i = (int32_t)(threadIdx.x % 32) * each; i < e; i += 32 * each) {
        put_two((T *)pages.values + at + i, is_wide, load_two(head + i, is_wide));
    }
}

template <typename T>
static cudaError_t append_launch(lore_queue *queue, lore_view qkv, const lore_rope *rope,
                                 const lore_pages *pages, const lore_batch *batch)
{
    const int32_t heads = rope->heads + 2 * pages->kv_heads;
    const dim3 grid((unsigned)batch->rows, (unsigned)((heads + WARPS - 1) / WARPS));
    return lore_cuda_launch(
        queue, qkv.dtype == LORE_BF16 ? append_kernel<T, __nv_bfloat16> : append_kernel<T, float>,
        grid, dim3(32 * WARPS), 0, qkv, *rope, *pages, *batch, is_wide(qkv, rope, pages->head_dim));
}

void lore_cuda_rope_append(lore_queue *queue, lore_view qkv, const lore_rope *rope,
                           const lore_pages *pages, const lore_batch *batch)
{
    LORE_ASSERT(pages->dtype == LORE_F32 || pages->dtype == LORE_BF16);
    if (batch->rows > 0) {
        LORE_CUDA_NOTE(queue, pages->dtype == LORE_F32
                                  ? append_launch<float>(queue, qkv, rope, pages, batch)
                                  : append_launch<__nv_bfloat16>(queue, qkv, rope, pages, batch));
    }
}

template <typename X>
static __global__ void packed_kernel(lore_view qkv, lore_rope rope, int32_t kv_heads,
                                     int32_t head_dim, int32_t sequences, const int32_t *row_start,
                                     bool is_wide)
{
    const int32_t j = (int32_t)(blockIdx.y * WARPS + threadIdx.x / 32), row = (int32_t)blockIdx.x;
    lore_cuda_release();
    lore_cuda_wait();
    if (j >= rope.heads + kv_heads) {
        return;
    }
    const int32_t position = row - row_start[lore_find_sequence(row_start, sequences, row)];
    X *head = (X *)qkv.data + row * qkv.stride + (int64_t)j * head_dim;
    rotate(head, head, head_dim, j < rope.heads ? rope.q_norm : rope.k_norm, rope, position,
           load_first_turn(rope, position, is_wide), is_wide);
}

void lore_cuda_rope_packed(lore_queue *queue, lore_view qkv, const lore_rope *rope,
                           int32_t kv_heads, int32_t head_dim, int32_t sequences,
                           const int32_t *row_start)
{
    const int32_t heads = rope->heads + kv_heads;
    const dim3 grid((unsigned)qkv.rows, (unsigned)((heads + WARPS - 1) / WARPS));
    if (qkv.rows > 0) {
        LORE_CUDA_NOTE(queue,
                       lore_cuda_launch(queue,
                                        qkv.dtype == LORE_BF16 ? packed_kernel<__nv_bfloat16>
                                                               : packed_kernel<float>,
                                        grid, dim3(32 * WARPS), 0, qkv, *rope, kv_heads, head_dim,
                                        sequences, row_start, is_wide(qkv, rope, head_dim)));
    }
}
