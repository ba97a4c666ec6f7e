/* Attention on the tensor cores, in bf16 with a running softmax: scores never leave the registers,
 * keys and values go through shared memory in tiles of LORE_KEY_TILE, two under way. The query
 * heads that share a key/value head are rows of one product, so keys and values are read once for
 * all of them: row m of a sequence is query head m % group of token m / group. It comes in two
 * shapes. "Tall": a block has 64 rows, each warp 16 of them and all keys of the tile; arithmetic is
 * the bound (prefill, encoders). "Wide": at most 16 rows, and the warps share out the keys of each
 * tile, many blocks the keys of the sequence; the bytes of keys and values are the bound (decode).
 * Parts of one sequence are merged by a last small kernel (cuda_attention_merge.cu).
 *
 * Sources: Dao 2023 (FlashAttention-2), Dao et al. 2023 (Flash-Decoding), Kwon et al. 2023 (pages).
 * Scores of NaN or +inf make a row NaN, as ops.h says: fmaxf passes them by, exp does not. */
#include "kernels/cuda/cuda_attention_int.h"

enum {
    WARPS = 4,
    TALL_ROWS = 64, /* of a block: 16 a warp */
    PAD = 8         /* elements behind a row of a tile: rows then begin in different banks */
};

/* ---- instructions (PTX ISA) ---- */

/* Four 8 x 8 matrices of shared memory; lane i names row i % 8 of matrix i / 8. */
static __device__ __forceinline__ void load_matrices(uint32_t r[4], const __nv_bfloat16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

static __device__ __forceinline__ void load_transposed(uint32_t r[4], const __nv_bfloat16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

/* 16 bytes to shared memory, zeros where is_there is false. */
static __device__ __forceinline__ void copy_async(__nv_bfloat16 *to, const __nv_bfloat16 *from,
                                                  bool is_there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(is_there ? 16 : 0)
                 : "memory");
}

static __device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most `left` of the groups committed are under way. */
template <int left> static __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

/* ---- pieces ---- */

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
        copy_async(&t->keys[stage][row][c], (const __nv_bfloat16 *)a.keys + at, is_there);
        copy_async(&t->values[stage][row][c], (const __nv_bfloat16 *)a.values + at, is_there);
    }
}

/* A warp's 16 rows: rows g and g + 8 of a lane, g = lane / 4. */
template <int E> struct rows16 {
    uint32_t q[E / 16][4];
    float sum[E / 8][4];
    float largest[2], total[2];
    int2 range[2]; /* of positions seen; empty where there is no row */
    int2 all_see;  /* positions that every row of the warp sees: they need no mask */
};

template <int E, typename T>
static __device__ __forceinline__ void load_queries(const lore_attend &a, rows16<E> *r,
                                                    int32_t sequence, int32_t kv_head,
                                                    int32_t first)
{
    const int lane = threadIdx.x % 32, q = lane % 4;
    const int32_t rows = a.row_start[sequence + 1] - a.row_start[sequence];
    const T *queries =
        (const T *)a.q.data + a.row_start[sequence] * a.q.stride + (int64_t)kv_head * a.group * E;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t m = first + lane / 4 + 8 * i;
        const bool is_there = m / a.group < rows;
        const T *from = queries + (is_there ? m / a.group * a.q.stride + m % a.group * E : 0);
#pragma unroll
        for (int k = 0; k < E / 16; k++) {
            const int c = 16 * k + 2 * q;
            r->q[k][i] = is_there ? lore_read_2(from + c) : 0;
            r->q[k][i + 2] = is_there ? lore_read_2(from + c + 8) : 0;
        }
    }
}

template <int E>
static __device__ void load_rows(const lore_attend &a, rows16<E> *r, int32_t sequence,
                                 int32_t kv_head, int32_t past, int32_t first)
{
    if (a.q.dtype == LORE_F32) {
        load_queries<E, float>(a, r, sequence, kv_head, first);
    } else {
        load_queries<E, __nv_bfloat16>(a, r, sequence, kv_head, first);
    }
    const int32_t rows = a.row_start[sequence + 1] - a.row_start[sequence];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t token = (first + (int32_t)threadIdx.x % 32 / 4 + 8 * i) / a.group;
        r->range[i] = token < rows ? lore_seen(a, past + token, past + rows) : make_int2(0, 0);
        r->largest[i] = -INFINITY;
        r->total[i] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < E / 8; i++) {
        r->sum[i][0] = r->sum[i][1] = r->sum[i][2] = r->sum[i][3] = 0.0f;
    }
    r->all_see.x = __reduce_max_sync(0xffffffffu, max(r->range[0].x, r->range[1].x));
    r->all_see.y = __reduce_min_sync(0xffffffffu, min(r->range[0].y, r->range[1].y));
}

/* Scores of the rows against KEYS keys that begin at row `from` of the tile, position `first`. */
template <int E, int KEYS>
static __device__ __forceinline__ void score_keys(const lore_attend &a, const rows16<E> &r,
                                                  const __nv_bfloat16 (*keys)[E + PAD], int from,
                                                  int32_t first, float s[KEYS / 8][4])
{
    const int lane = threadIdx.x % 32, q = lane % 4;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n += 2) {
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
        s[n + 1][0] = s[n + 1][1] = s[n + 1][2] = s[n + 1][3] = 0.0f;
#pragma unroll
        for (int k = 0; k < E / 16; k++) {
            uint32_t b[4]; /* keys 0-7 at k and k + 8, keys 8-15 likewise */
            load_matrices(
                b, &keys[from + 8 * n + lane % 8 + lane / 16 * 8][16 * k + lane / 8 % 2 * 8]);
            lore_mma(s[n], r.q[k], b[0], b[1]);
            lore_mma(s[n + 1], r.q[k], b[2], b[3]);
        }
    }
    if (a.attention.softcap > 0.0f) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) {
            s[i / 4][i % 4] = lore_capped(s[i / 4][i % 4], a.attention);
        }
    }
    first += from;
    if (first >= r.all_see.x && first + KEYS <= r.all_see.y) {
        return;
    }
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        const int32_t t = first + i / 4 * 8 + 2 * q + i % 2;
        const int2 range = r.range[i / 2 % 2];
        s[i / 4][i % 4] = t >= range.x && t < range.y ? s[i / 4][i % 4] : -INFINITY;
    }
}

/* The running softmax: what was summed shrinks to the new base, scores become weights. */
template <int E, int KEYS>
static __device__ __forceinline__ void weigh(rows16<E> *r, float s[KEYS / 8][4], float factor)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float now = r->largest[i];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
            now = fmaxf(now, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
        }
        now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 1)); /* four lanes share a row */
        now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 2));
        const float base = lore_score_base(now) * factor;
        const float kept = lore_power_of_two(r->largest[i] * factor - base);
        float total = 0.0f;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
            s[n][2 * i] = lore_power_of_two(s[n][2 * i] * factor - base);
            s[n][2 * i + 1] = lore_power_of_two(s[n][2 * i + 1] * factor - base);
            total += s[n][2 * i] + s[n][2 * i + 1];
        }
        r->largest[i] = now;
        r->total[i] = r->total[i] * kept + total; /* of this lane's keys; summed at the end */
#pragma unroll
        for (int c = 0; c < E / 8; c++) {
            r->sum[c][2 * i] *= kept;
            r->sum[c][2 * i + 1] *= kept;
        }
    }
}

template <int E, int KEYS>
static __device__ __forceinline__ void add_values(rows16<E> *r, float s[KEYS / 8][4],
                                                  const __nv_bfloat16 (*values)[E + PAD], int from)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n += 2) {
        const uint32_t p[4] = {lore_pack_bf16(s[n][0], s[n][1]), lore_pack_bf16(s[n][2], s[n][3]),
                               lore_pack_bf16(s[n + 1][0], s[n + 1][1]),
                               lore_pack_bf16(s[n + 1][2], s[n + 1][3])};
#pragma unroll
        for (int c = 0; c < E / 8; c += 2) {
            uint32_t b[4]; /* keys 0-7 and 8-15 of columns 0-7, then of columns 8-15 */
            load_transposed(
                b, &values[from + 8 * n + lane % 8 + lane / 8 % 2 * 8][8 * c + lane / 16 * 8]);
            lore_mma(r->sum[c], p, b[0], b[1]);
            lore_mma(r->sum[c + 1], p, b[2], b[3]);
        }
    }
}

/* All tiles of positions [first, end), two under way. A wide warp takes its own 16 keys of each. */
template <int E, bool is_paged, bool is_wide>
static __device__ void walk_keys(const lore_attend &a, tiles<E> *t, rows16<E> *r, int32_t sequence,
                                 int32_t kv_head, int32_t first, int32_t end)
{
    constexpr int KEYS = is_wide ? LORE_KEY_TILE / WARPS : LORE_KEY_TILE;
    const int from = is_wide ? (int)(threadIdx.x / 32) * KEYS : 0;
    const float factor = lore_score_factor(a.attention);
    if (first < end) {
        load_tile<E, is_paged>(a, t, 0, sequence, kv_head, first, end);
    }
    copy_commit();
    int stage = 0;
    for (int32_t at = first; at < end; at += LORE_KEY_TILE, stage ^= 1) {
        if (at + LORE_KEY_TILE < end) {
            load_tile<E, is_paged>(a, t, stage ^ 1, sequence, kv_head, at + LORE_KEY_TILE, end);
        }
        copy_commit();
        copy_wait<1>();
        __syncthreads();
        float s[KEYS / 8][4];
        score_keys<E, KEYS>(a, *r, t->keys[stage], from, at, s);
        weigh<E, KEYS>(r, s, factor);
        add_values<E, KEYS>(r, s, t->values[stage], from);
        __syncthreads();
    }
    copy_wait<0>();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        r->total[i] += __shfl_xor_sync(0xffffffffu, r->total[i], 1);
        r->total[i] += __shfl_xor_sync(0xffffffffu, r->total[i], 2);
    }
}

/* ---- tall: 64 rows a block ---- */

template <int E, bool is_paged>
static __global__ void __launch_bounds__(32 * WARPS) tall_kernel(lore_attend a)
{
    lore_cuda_release();
    lore_cuda_wait();
    extern __shared__ __align__(16) char memory[];
    const int32_t sequence = (int32_t)blockIdx.z, kv_head = (int32_t)blockIdx.y;
    const int32_t rows = a.row_start[sequence + 1] - a.row_start[sequence];
    const int32_t past = is_paged ? a.past[sequence] : 0, all = rows * a.group;
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
    load_rows(a, &r, sequence, kv_head, past, own);
    walk_keys<E, is_paged, false>(a, (tiles<E> *)memory, &r, sequence, kv_head, first, end);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t m = own + lane / 4 + 8 * i;
        if (m >= all) {
            continue;
        }
        const int64_t to = (int64_t)(a.row_start[sequence] + m / a.group) * a.out.stride +
                           (int64_t)(kv_head * a.group + m % a.group) * E + 2 * q;
        const float inverse = 1.0f / r.total[i];
#pragma unroll
        for (int c = 0; c < E / 8; c++) {
            lore_write_2(a.out, to + 8 * c, r.sum[c][2 * i] * inverse,
                         r.sum[c][2 * i + 1] * inverse);
        }
    }
}

/* ---- wide: a part of the keys a block ---- */

/* The warps' sums of the same 16 rows become one, in shared memory; then the result goes out, or
 * as a part to the merge. */
template <int E>
static __device__ void merge_warps(const lore_attend &a, float *memory, const rows16<E> &r,
                                   int32_t sequence, int32_t kv_head)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, q = lane % 4;
    float *sums = memory;                              /* [WARPS, 16, E] */
    float *tops = memory + WARPS * LORE_WIDE_ROWS * E; /* [WARPS, 16, 2] */
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = warp * LORE_WIDE_ROWS + lane / 4 + 8 * i;
#pragma unroll
        for (int c = 0; c < E / 8; c++) {
            sums[row * E + 8 * c + 2 * q] = r.sum[c][2 * i];
            sums[row * E + 8 * c + 2 * q + 1] = r.sum[c][2 * i + 1];
        }
        if (q == 0) {
            tops[2 * row] = r.largest[i];
            tops[2 * row + 1] = r.total[i];
        }
    }
    __syncthreads();
    const int32_t all = (a.row_start[sequence + 1] - a.row_start[sequence]) * a.group;
    const float factor = lore_score_factor(a.attention);
    const int64_t part =
        ((int64_t)(sequence * a.kv_heads + kv_head) * a.parts + blockIdx.x) * LORE_WIDE_ROWS;
    for (int i = threadIdx.x; i < all * E; i += 32 * WARPS) {
        const int32_t m = i / E, c = i % E;
        float largest = -INFINITY, total = 0.0f, sum = 0.0f;
        for (int w = 0; w < WARPS; w++) {
            largest = fmaxf(largest, tops[2 * (w * LORE_WIDE_ROWS + m)]);
        }
        const float base = lore_score_base(largest);
        for (int w = 0; w < WARPS; w++) {
            const int row = w * LORE_WIDE_ROWS + m;
            const float kept = exp2f((tops[2 * row] - base) * factor);
            total += tops[2 * row + 1] * kept;
            sum += sums[row * E + c] * kept;
        }
        if (a.parts == 1) {
            lore_write(a.out,
                       (int64_t)(a.row_start[sequence] + m / a.group) * a.out.stride +
                           (int64_t)(kv_head * a.group + m % a.group) * E + c,
                       sum / total);
            continue;
        }
        a.part_out[(part + m) * E + c] = sum;
        if (c == 0) {
            a.part_sums[2 * (part + m)] = largest;
            a.part_sums[2 * (part + m) + 1] = total;
        }
    }
}

template <int E> static __global__ void __launch_bounds__(32 * WARPS) wide_kernel(lore_attend a)
{
    lore_cuda_release();
    lore_cuda_wait();
    extern __shared__ __align__(16) char memory[];
    const int32_t sequence = (int32_t)blockIdx.z, kv_head = (int32_t)blockIdx.y;
    const int32_t rows = a.row_start[sequence + 1] - a.row_start[sequence];
    const int32_t past = a.past[sequence];
    if (rows == 0 || rows * a.group > LORE_WIDE_ROWS) {
        return;
    }
    const int32_t first = lore_seen(a, past, past + rows).x, end = past + rows;
    const int32_t all_tiles = (end - first + LORE_KEY_TILE - 1) / LORE_KEY_TILE;
    const int32_t tiles_each = (all_tiles + a.parts - 1) / a.parts;
    const int32_t begin = first + (int32_t)blockIdx.x * tiles_each * LORE_KEY_TILE;
    const int32_t own_end =
        begin + tiles_each * LORE_KEY_TILE < end ? begin + tiles_each * LORE_KEY_TILE : end;
    rows16<E> r;
    load_rows(a, &r, sequence, kv_head, past, 0);
    walk_keys<E, true, true>(a, (tiles<E> *)memory, &r, sequence, kv_head, begin, own_end);
    merge_warps(a, (float *)memory, r, sequence, kv_head);
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

/* The tiles are free when the warps merge; small heads need more for that than for tiles. */
template <int E> static constexpr size_t wide_bytes()
{
    const size_t merge = (size_t)WARPS * LORE_WIDE_ROWS * (E + 2) * sizeof(float);
    return sizeof(tiles<E>) > merge ? sizeof(tiles<E>) : merge;
}

template <int E>
static cudaError_t wide_launch(lore_queue *queue, const lore_attend &a, int32_t rows_max)
{
    const int32_t rows = rows_max * a.group < LORE_WIDE_ROWS ? rows_max * a.group : LORE_WIDE_ROWS;
    const dim3 grid((unsigned)a.parts, (unsigned)a.kv_heads, (unsigned)a.sequences);
    const cudaError_t error =
        lore_cuda_launch(queue, wide_kernel<E>, grid, dim3(32 * WARPS), wide_bytes<E>(), a);
    if (error != cudaSuccess || a.parts == 1) {
        return error;
    }
    return lore_cuda_merge_wide(queue, a, rows);
}

lore_head_kernels lore_cuda_find_kernels(int32_t head_dim)
{
    switch (head_dim) {
#define LORE_HEAD(E) \
    case E:          \
        return {tall_launch<E, true>, tall_launch<E, false>, wide_launch<E>};
        LORE_HEAD(32)
        LORE_HEAD(64)
        LORE_HEAD(80)
        LORE_HEAD(96)
        LORE_HEAD(128)
        LORE_HEAD(256)
#undef LORE_HEAD
    }
    return {};
}
