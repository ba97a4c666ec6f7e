/* Attention over pages (decoders) and inside packed sequences (encoders): which kernel does it.
 * Heads of the usual sizes go to the tensor cores (cuda_attention_wide.cu for few rows,
 * cuda_attention_tiles.cu for many, on Hopper cuda_attention_hopper.cu); pages of f32, f32 as
 * precision and heads of odd sizes through the plain kernel here, one warp a query, a key at a
 * time.
 *
 * Launches know how many rows there are, but not how long the contexts: context_max is a bound, and
 * kernels read the lengths from the batch in device memory. So a recorded step can be replayed
 * while sequences grow, up to that bound. */
#include "kernels/cuda/cuda_attention_int.h"

enum {
    WARPS = 4,
    RESIDENT = 2,   /* wide blocks that a multiprocessor holds */
    PARTS_MORE = 3, /* at most, beyond those that fill the device */
    PART_TILES = 4  /* at least, of such parts */
};

/* ---- the plain kernel: one warp a row and head ---- */

template <typename T, bool is_paged, int PER_LANE>
static __global__ void plain_kernel(lore_attend a)
{
    lore_cuda_release();
    lore_cuda_wait();
    const int lane = threadIdx.x % 32;
    const int32_t head = (int32_t)(blockIdx.y * WARPS + threadIdx.x / 32),
                  row = (int32_t)blockIdx.x;
    if (head >= a.kv_heads * a.group) {
        return;
    }
    const int32_t sequence = lore_find_sequence(a.row_start, a.sequences, row);
    const int32_t past = is_paged ? a.past[sequence] : 0;
    const int32_t position = past + row - a.row_start[sequence];
    const int32_t context = past + a.row_start[sequence + 1] - a.row_start[sequence];
    const int2 range = lore_seen(a, position, context);
    const int64_t query = row * a.q.stride + (int64_t)head * a.head_dim;
    float q[PER_LANE], sum[PER_LANE] = {};
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        q[i] = lane + 32 * i < a.head_dim ? lore_read(a.q, query + lane + 32 * i) : 0.0f;
    }
    const float factor = lore_score_factor(a.attention);
    float largest = -INFINITY, total = 0.0f;
    for (int32_t t = range.x; t < range.y; t++) {
        const int64_t at = lore_key_offset<T, is_paged>(a, sequence, head / a.group, t);
        float dot = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            const int c = lane + 32 * i;
            dot += c < a.head_dim ? q[i] * lore_to_f32(((const T *)a.keys)[at + c]) : 0.0f;
        }
        dot = lore_warp_sum(dot);
        const float score = a.attention.softcap > 0.0f ? lore_capped(dot, a.attention) : dot;
        const float now = fmaxf(largest, score), base = lore_score_base(now);
        const float weight = exp2f((score - base) * factor),
                    kept = exp2f((largest - base) * factor);
        total = total * kept + weight;
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            const int c = lane + 32 * i;
            sum[i] = sum[i] * kept +
                     (c < a.head_dim ? weight * lore_to_f32(((const T *)a.values)[at + c]) : 0.0f);
        }
        largest = now;
    }
    const int64_t to = row * a.out.stride + (int64_t)head * a.head_dim;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        if (lane + 32 * i < a.head_dim) {
            lore_write(a.out, to + lane + 32 * i, sum[i] / total);
        }
    }
}

template <typename T, bool is_paged>
static cudaError_t plain_launch(lore_queue *queue, const lore_attend &a)
{
    const dim3 grid((unsigned)a.out.rows, (unsigned)((a.kv_heads * a.group + WARPS - 1) / WARPS));
    return a.head_dim <= 128
               ? lore_cuda_launch(queue, plain_kernel<T, is_paged, 4>, grid, dim3(32 * WARPS), 0, a)
               : lore_cuda_launch(queue, plain_kernel<T, is_paged, LORE_HEAD_MAX / 32>, grid,
                                  dim3(32 * WARPS), 0, a);
}

/* How full the device is, in parts of 64, while so many blocks run: the last of them leave some of
 * it idle. */
static int64_t fill_of(int64_t blocks, int64_t held)
{
    return 64 * blocks / ((blocks + held - 1) / held * held);
}

/* Parts of the keys of each sequence: blocks for the whole device, none without a tile of its own;
 * smaller ones while the last to run would leave much of it idle. All that is known to the launch,
 * so that a row's result does not change with its neighbours. */
static int32_t choose_parts(const lore_cuda_backend *backend, const lore_attend &a, int32_t tiles)
{
    const int64_t units = (int64_t)a.sequences * a.kv_heads,
                  held = (int64_t)RESIDENT * backend->processors;
    if (units > LORE_CUDA_ARRIVED) {
        return 1;
    }
    int64_t parts = units < held ? held / units : 1;
    const int64_t least = parts;
    while (fill_of(units * parts, held) < 56 && parts < least + PARTS_MORE &&
           (parts + 1) * PART_TILES <= tiles) {
        parts++;
    }
    parts = parts < tiles ? parts : tiles;
    return (int32_t)(parts < LORE_PARTS_MAX ? parts : (int64_t)LORE_PARTS_MAX);
}

static bool take_part_memory(lore_queue *queue, lore_attend *a)
{
    const size_t rows =
        (size_t)a->sequences * (size_t)a->kv_heads * (size_t)a->parts * LORE_WIDE_ROWS;
    if (a->parts == 1) {
        return true;
    }
    float *memory =
        (float *)lore_cuda_scratch(queue, rows * (size_t)(a->head_dim + 2) * sizeof(float));
    a->part_out = memory;
    a->part_sums = memory + rows * (size_t)a->head_dim;
    a->arrived = lore_cuda_queue_of(queue)->arrived;
    return memory != NULL;
}

static bool has_room_for(lore_queue *queue, int32_t head_dim)
{
    if (head_dim > LORE_HEAD_MAX) {
        lore_queue_fail(queue, LORE_ERR_UNSUPPORTED, "heads of %d elements, the GPU takes up to %d",
                        (int)head_dim, (int)LORE_HEAD_MAX);
    }
    return head_dim <= LORE_HEAD_MAX;
}

void lore_cuda_attend_paged(lore_queue *queue, lore_view out, lore_view queries,
                            const lore_pages *pages, const lore_batch *batch,
                            const lore_attention *attention)
{
    const lore_cuda_backend *backend = lore_cuda_backend_of(queue);
    lore_attend a = {};
    a.out = out;
    a.q = queries;
    a.attention = *attention;
    a.kv_heads = pages->kv_heads;
    a.group = out.cols / pages->head_dim / pages->kv_heads;
    a.head_dim = pages->head_dim;
    a.sequences = batch->sequences;
    a.is_causal = true;
    a.row_start = batch->row_start;
    a.keys = pages->keys;
    a.values = pages->values;
    a.past = batch->past;
    a.page_start = batch->page_start;
    a.pages = batch->pages;
    a.page_tokens = pages->page_tokens;
    a.page_count = pages->page_count;
    if (batch->rows == 0 || !has_room_for(queue, a.head_dim)) {
        return;
    }
    const lore_head_kernels kernels = lore_cuda_find_kernels(a.head_dim);
    if (pages->dtype == LORE_F32) {
        LORE_CUDA_NOTE(queue, (plain_launch<float, true>(queue, a)));
        return;
    }
    if (backend->dtype == LORE_F32 || kernels.tall == NULL) {
        LORE_CUDA_NOTE(queue, (plain_launch<__nv_bfloat16, true>(queue, a)));
        return;
    }
    if (batch->rows_max * a.group > LORE_WIDE_ROWS) {
        LORE_CUDA_NOTE(queue, lore_cuda_can_hopper(queue, a)
                                  ? lore_cuda_hopper(queue, a, batch->context_max)
                                  : kernels.tall(queue, a, batch->rows_max));
    }
    /* a batch of one long sequence has nothing for it */
    if (batch->sequences > 1 || batch->rows_max * a.group <= LORE_WIDE_ROWS) {
        const int32_t tiles = (batch->context_max + LORE_KEY_TILE - 1) / LORE_KEY_TILE;
        a.parts = choose_parts(backend, a, tiles);
        if (take_part_memory(queue, &a)) {
            LORE_CUDA_NOTE(queue, lore_cuda_wide(queue, a, (tiles + a.parts - 1) / a.parts));
        }
    }
}

/* Whether tiles can be copied from keys and values as they are: 16 bytes at a time. */
static bool is_copyable(lore_view qkv)
{
    return qkv.dtype == LORE_BF16 && lore_is_aligned(qkv, 8);
}

/* Keys and values in bf16, row behind row, in the queue's scratch. */
static bool round_packed(lore_queue *queue, lore_attend *a, lore_view kv)
{
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    const size_t row_bytes = (size_t)kv.cols * sizeof(__nv_bfloat16);
    __nv_bfloat16 *rounded = (__nv_bfloat16 *)lore_cuda_scratch(queue, (size_t)kv.rows * row_bytes);
    if (rounded == NULL) {
        return false;
    }
    LORE_CUDA_NOTE(queue,
                   kv.dtype == LORE_F32
                       ? lore_cuda_round_rows(rounded, kv, stream)
                       : cudaMemcpy2DAsync(rounded, row_bytes, kv.data,
                                           (size_t)kv.stride * sizeof(__nv_bfloat16), row_bytes,
                                           (size_t)kv.rows, cudaMemcpyDeviceToDevice, stream));
    a->keys = rounded;
    a->values = rounded + kv.cols / 2;
    a->kv_stride = kv.cols;
    return true;
}

void lore_cuda_attend_packed(lore_queue *queue, lore_view out, lore_view qkv, int32_t heads,
                             int32_t kv_heads, int32_t sequences, const int32_t *row_start,
                             int32_t rows_max, bool is_causal, const lore_attention *attention)
{
    const int32_t kv_cols = out.cols / heads * kv_heads;
    const lore_view kv = lore_view_columns(qkv, out.cols, 2 * kv_cols);
    lore_attend a = {};
    a.out = out;
    a.q = qkv;
    a.attention = *attention;
    a.kv_heads = kv_heads;
    a.group = heads / kv_heads;
    a.head_dim = out.cols / heads;
    a.sequences = sequences;
    a.is_causal = is_causal;
    a.row_start = row_start;
    a.keys = kv.data;
    a.values = lore_view_columns(kv, kv_cols, kv_cols).data;
    a.kv_stride = qkv.stride;
    if (qkv.rows == 0 || !has_room_for(queue, a.head_dim)) {
        return;
    }
    const lore_head_kernels kernels = lore_cuda_find_kernels(a.head_dim);
    if (lore_cuda_backend_of(queue)->dtype == LORE_F32 || kernels.tall_packed == NULL) {
        LORE_CUDA_NOTE(queue,
                       (qkv.dtype == LORE_F32 ? plain_launch<float, false>(queue, a)
                                              : plain_launch<__nv_bfloat16, false>(queue, a)));
        return;
    }
    if (is_copyable(qkv) || round_packed(queue, &a, kv)) {
        LORE_CUDA_NOTE(queue, kernels.tall_packed(queue, a, rows_max));
    }
}
