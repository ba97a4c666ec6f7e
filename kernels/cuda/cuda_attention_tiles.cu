/* Attention of many rows on the tensor cores (prefill, encoders), in bf16 with a running softmax:
 * scores never leave the registers, keys and values go through shared memory in tiles of
 * LORE_KEY_TILE, two under way. The query heads that share a key/value head are rows of one
 * product, so keys and values are read once for all of them: row m of a sequence is query head m %
 * group of token m / group. A block has 64 rows, each warp 16 of them and all keys of the tile;
 * arithmetic is the bound.
 *
 * Sources: Dao 2023 (FlashAttention-2), Kwon et al. 2023 (pages). */
#include "kernels/cuda/cuda_attention_rows_int.h"

enum { TALL_ROWS = 64 /* of a block: 16 a warp */ };

/* ---- tiles ---- */

template <int E> struct tiles { /* of a block, in shared memory */
    __nv_bfloat16 keys[2][LORE_KEY_TILE][E + PAD], values[2][LORE_KEY_TILE][E + PAD];
};

/* Positions first .. first + LORE_KEY_TILE - 1; zeros from `end` on, where pages may hold anything.
 */
template <int E, bool is_paged>
static __device__ void load_tile(const lore_attend &a, tiles<E> *t, int stage, int32_t sequence,
                                 int32_t kv_head, int32_t first, int32_t end)
{
    for (int i = threadIdx.x; i < LORE_KEY_TILE * (E / 8); i += 32 * WARPS) {
        const int32_t row = i / (E / 8), c = i % (E / 8) * 8;
        const bool is_there = first + row < end;
        const int64_t at = lore_key_offset<__nv_bfloat16, is_paged>(
                               a, sequence, kv_head, is_there ? first + row : first) +
                           c;
        lore_copy_async(&t->keys[stage][row][c], (const __nv_bfloat16 *)a.keys + at, is_there);
        lore_copy_async(&t->values[stage][row][c], (const __nv_bfloat16 *)a.values + at, is_there);
    }
}

/* All tiles of positions [first, end), two under way. */
template <int E, bool is_paged>
static __device__ void walk_keys(const lore_attend &a, tiles<E> *t, rows16<E> *r, int32_t sequence,
                                 int32_t kv_head, int32_t first, int32_t end)
{
    const float factor = lore_score_factor(a.attention);
    if (first < end) {
        load_tile<E, is_paged>(a, t, 0, sequence, kv_head, first, end);
    }
    lore_copy_commit();
    int stage = 0;
    for (int32_t at = first; at < end; at += LORE_KEY_TILE, stage ^= 1) {
        if (at + LORE_KEY_TILE < end) {
            load_tile<E, is_paged>(a, t, stage ^ 1, sequence, kv_head, at + LORE_KEY_TILE, end);
        }
        lore_copy_commit();
        lore_copy_wait<1>();
        __syncthreads();
        float s[LORE_KEY_TILE / 8][4];
        score_keys<E, LORE_KEY_TILE>(a, *r, t->keys[stage], at, s);
        weigh<E, LORE_KEY_TILE>(r, s, factor);
        add_values<E, LORE_KEY_TILE>(r, s, t->values[stage]);
        __syncthreads();
    }
    lore_copy_wait<0>();
    join_totals(r);
}

template <int E, bool is_paged>
static __global__ void __launch_bounds__(32 * WARPS) tall_kernel(lore_attend a)
{
    lore_cuda_release();
    lore_cuda_wait();
    extern __shared__ __align__(16) char memory[];
    const int32_t sequence = (int32_t)blockIdx.z, kv_head = (int32_t)blockIdx.y;
    const int32_t start = a.row_start[sequence], rows = a.row_start[sequence + 1] - start;
    const int32_t past = is_paged ? a.past[sequence] : 0, all = rows * a.group;
    const sequence_rows of = {start, rows, past};
    /* the last tiles, which see most, begin first */
    const int32_t tile = (int32_t)(gridDim.x - 1 - blockIdx.x) * TALL_ROWS;
    if (tile >= all || (is_paged && all <= LORE_WIDE_ROWS)) {
        return;
    }
    const int32_t last = (tile + TALL_ROWS < all ? tile + TALL_ROWS : all) - 1;
    const int32_t first = lore_seen(a, past + tile / a.group, past + rows).x;
    const int32_t end = lore_seen(a, past + last / a.group, past + rows).y;
    const int lane = threadIdx.x % 32, q = lane % 4;
    const int32_t own = tile + (int32_t)(threadIdx.x / 32) * 16;
    rows16<E> r;
    load_rows(a, &r, of, kv_head, own);
    walk_keys<E, is_paged>(a, (tiles<E> *)memory, &r, sequence, kv_head, first, end);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t m = own + lane / 4 + 8 * i;
        if (m >= all) {
            continue;
        }
        const int64_t to = out_offset<E>(a, of, kv_head, m) + 2 * q;
        const float inverse = 1.0f / r.total[i];
#pragma unroll
        for (int c = 0; c < E / 8; c++) {
            lore_write_2(a.out, to + 8 * c, r.sum[c][2 * i] * inverse,
                         r.sum[c][2 * i + 1] * inverse);
        }
    }
}

/* ---- launchers ---- */

template <int E, bool is_paged>
static cudaError_t tall_launch(lore_queue *queue, const lore_attend &a, int32_t rows_max)
{
    const int64_t rows = (int64_t)rows_max * a.group;
    const dim3 grid((unsigned)((rows + TALL_ROWS - 1) / TALL_ROWS), (unsigned)a.kv_heads,
                    (unsigned)a.sequences);
    return lore_cuda_launch(queue, tall_kernel<E, is_paged>, grid, dim3(32 * WARPS),
                            sizeof(tiles<E>), a);
}

lore_head_kernels lore_cuda_find_kernels(int32_t head_dim)
{
    switch (head_dim) {
#define LORE_HEAD(E) \
    case E:          \
        return {tall_launch<E, true>, tall_launch<E, false>};
        LORE_HEADS
#undef LORE_HEAD
    }
    return {};
}
