/* Attention of few rows over long contexts (decode), on the tensor cores: a block has at most 16
 * rows, the queries of one key/value head of a sequence, and one part of the keys; its warps share
 * out the keys of each tile. Keys and values are read once; their bytes are the bound.
 *
 * A warp has a ring of tiles for itself and waits for nobody: what it has read it fills again at
 * once, so some 70 KB of a block are under way all the time, and two blocks fill a multiprocessor.
 * Blocks begin while kernels before them still run, and ask for keys and values of earlier steps at
 * once: where they are was copied to the device before the step, and a step writes only those of
 * its own rows. Of the parts of a sequence the last to be done merges all, in their order, so that
 * the result is the same whichever that was.
 *
 * Sources: Dao et al. 2023 (Flash-Decoding), Kwon et al. 2023 (pages). */
#include "kernels/cuda/cuda_attention_rows_int.h"

enum {
    WARP_KEYS = LORE_KEY_TILE / WARPS, /* of a tile */
    STAGES_MAX = 4,                    /* of a warp's ring */
    BLOCK_BYTES = 110 << 10            /* at most: half of what a multiprocessor has */
};

/* ---- what a block works on ---- */

/* The share of a warp of a tile. */
template <int E> struct warp_tile {
    __nv_bfloat16 keys[WARP_KEYS][E + PAD], values[WARP_KEYS][E + PAD];
};

/* What a block works on: positions [first, end) of a sequence and key/value head, one part of
 * `parts`. */
struct wide_part {
    sequence_rows of;
    int32_t sequence, kv_head, first, end, parts;
    const int32_t *pages; /* of the sequence */
};

/* False: the block has nothing to do. Nobody has waited yet: the arrays were copied to the device
 * before the step, and the first cache may hold what they were in the last one. */
static __device__ __forceinline__ bool find_part(const lore_attend &a, wide_part *p)
{
    p->sequence = (int32_t)blockIdx.z;
    p->kv_head = (int32_t)blockIdx.y;
    const int32_t start = __ldcg(a.row_start + p->sequence),
                  count = __ldcg(a.row_start + p->sequence + 1) - start,
                  past = __ldcg(a.past + p->sequence);
    p->pages = a.pages + __ldcg(a.page_start + p->sequence);
    p->of = {start, count, past};
    if (count == 0 || count * a.group > LORE_WIDE_ROWS) {
        return false;
    }
    const int32_t first = lore_seen(a, past, past + count).x, end = past + count;
    const int32_t tiles = (end - first + LORE_KEY_TILE - 1) / LORE_KEY_TILE;
    const int32_t each = (tiles + a.parts - 1) / a.parts;
    p->parts = (tiles + each - 1) / each;
    p->first = first + (int32_t)blockIdx.x * each * LORE_KEY_TILE;
    p->end = min(end, p->first + each * LORE_KEY_TILE);
    return p->first < p->end;
}

/* Where the pages have the position that is a lane's to find: the row's number. */
static __device__ __forceinline__ int32_t find_row(const lore_attend &a, const wide_part &p,
                                                   int32_t at)
{
    const int32_t position = min(at + (int32_t)threadIdx.x % WARP_KEYS, p.end - 1);
    const int32_t page = __ldcg(p.pages + position / a.page_tokens);
    return (page * a.kv_heads + p.kv_head) * a.page_tokens + position % a.page_tokens;
}

/* A warp's share from position `at` on, as far as it lies in [from, to); zeros from p.end on, where
 * pages may hold anything. */
template <int E>
static __device__ __forceinline__ void copy_share(const lore_attend &a, const wide_part &p,
                                                  warp_tile<E> *t, int32_t row, int32_t at,
                                                  int32_t from, int32_t to)
{
    static_assert(WARP_KEYS * E / 8 % 32 == 0, "all lanes have as much to copy");
#pragma unroll(E <= 128 ? 8 : 2)
    for (int i = 0; i < WARP_KEYS * E / 8 / 32; i++) {
        const int chunk = (int)threadIdx.x % 32 + 32 * i, k = chunk / (E / 8),
                  c = chunk % (E / 8) * 8;
        const int64_t offset = (int64_t)__shfl_sync(0xffffffffu, row, k) * E + c;
        if (at + k >= from && at + k < to) {
            lore_copy_async(&t->keys[k][c], (const __nv_bfloat16 *)a.keys + offset, at + k < p.end);
            lore_copy_async(&t->values[k][c], (const __nv_bfloat16 *)a.values + offset,
                            at + k < p.end);
        }
    }
}

/* The first tiles of a warp are on their way, those of earlier steps before any waiting. All pages
 * are looked up at once; then loops that are not unrolled, as code that runs once has to be fetched
 * too. */
template <int E>
static __device__ __forceinline__ void begin_ring(const lore_attend &a, const wide_part &p,
                                                  warp_tile<E> *ring, int32_t own)
{
    static_assert(STAGES_MAX == 4, "as below");
    int32_t rows[STAGES_MAX];
#pragma unroll
    for (int i = 0; i < STAGES_MAX; i++) {
        rows[i] = find_row(a, p, own + i * LORE_KEY_TILE);
    }
#pragma unroll 1
    for (int is_new = 0; is_new < 2; is_new++) {
        if (is_new) {
            lore_cuda_wait();
        }
#pragma unroll 1
        for (int i = 0; i < a.stages; i++) {
            const int32_t at = own + i * LORE_KEY_TILE, end = at + WARP_KEYS, past = p.of.past;
            const int32_t row = i == 0 ? rows[0] : i == 1 ? rows[1] : i == 2 ? rows[2] : rows[3];
            if (at < p.end && (is_new ? end > past : at < past)) {
                copy_share(a, p, ring + i, row, at, is_new ? past : at, is_new ? end : past);
            }
            if (is_new) {
                lore_copy_commit();
            }
        }
    }
}

/* Until the oldest of `stages` groups of copies is there. */
static __device__ __forceinline__ void wait_oldest(int32_t stages)
{
    switch (stages) {
    case 1:
        lore_copy_wait<0>();
        break;
    case 2:
        lore_copy_wait<1>();
        break;
    case 3:
        lore_copy_wait<2>();
        break;
    default:
        lore_copy_wait<3>();
    }
}

/* A warp's share of all tiles; a stage that was read is filled again. */
template <int E>
static __device__ __forceinline__ void walk_ring(const lore_attend &a, const wide_part &p,
                                                 warp_tile<E> *ring, rows16<E> *r, int32_t own)
{
    const float factor = lore_score_factor(a.attention);
    const int32_t ahead = a.stages * LORE_KEY_TILE;
    int32_t stage = 0, row = find_row(a, p, own + ahead);
    for (int32_t at = own; at < p.end; at += LORE_KEY_TILE) {
        warp_tile<E> *t = ring + stage;
        float s[WARP_KEYS / 8][4];
        wait_oldest(a.stages);
        __syncwarp();
        score_keys<E, WARP_KEYS>(a, *r, t->keys, at, s);
        weigh<E, WARP_KEYS>(r, s, factor);
        add_values<E, WARP_KEYS>(r, s, t->values);
        __syncwarp();
        if (at + ahead < p.end) {
            copy_share(a, p, t, row, at + ahead, at + ahead, at + ahead + WARP_KEYS);
            row = find_row(a, p, at + ahead + LORE_KEY_TILE);
        }
        lore_copy_commit();
        stage = stage + 1 < a.stages ? stage + 1 : 0;
    }
    lore_copy_wait<0>();
    join_totals(r);
}

template <int E>
static __device__ __forceinline__ void write_four(const lore_attend &a, const wide_part &p,
                                                  int32_t m, int32_t c, float4 v)
{
    const int64_t to = out_offset<E>(a, p.of, p.kv_head, m) + c;
    lore_write_2(a.out, to, v.x, v.y);
    lore_write_2(a.out, to + 2, v.z, v.w);
}

static __device__ __forceinline__ void add_four(float4 *sum, float weight, float4 v)
{
    *sum = make_float4(sum->x + weight * v.x, sum->y + weight * v.y, sum->z + weight * v.z,
                       sum->w + weight * v.w);
}

/* The row of part_out and part_sums that is row 0 of a part. */
static __device__ __forceinline__ int64_t part_row(const lore_attend &a, const wide_part &p,
                                                   int32_t part)
{
    return ((int64_t)(p.sequence * a.kv_heads + p.kv_head) * a.parts + part) * LORE_WIDE_ROWS;
}

/* The warps' sums of the same 16 rows become one, in shared memory; then the result goes out, or
 * as a part to the merge. */
template <int E>
static __device__ __forceinline__ void merge_warps(const lore_attend &a, const wide_part &p,
                                                   float *memory, const rows16<E> &r)
{
    constexpr int PITCH = E + 4;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, q = lane % 4;
    const int32_t all = p.of.count * a.group;
    const float factor = lore_score_factor(a.attention);
    float *sums = memory;                                               /* [WARPS, 16, PITCH] */
    float2 *tops = (float2 *)(memory + WARPS * LORE_WIDE_ROWS * PITCH); /* [WARPS, 16] */
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int m = lane / 4 + 8 * i, row = warp * LORE_WIDE_ROWS + m;
#pragma unroll
        for (int c = 0; c < E / 8; c++) {
            if (m < all) {
                *(float2 *)&sums[row * PITCH + 8 * c + 2 * q] =
                    make_float2(r.sum[c][2 * i], r.sum[c][2 * i + 1]);
            }
        }
        if (q == 0 && m < all) {
            tops[row] = make_float2(r.largest[i], r.total[i]);
        }
    }
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < all * (E / 4); i += 32 * WARPS) {
        const int32_t m = i / (E / 4), c = i % (E / 4) * 4;
        float largest = -INFINITY, total = 0.0f;
        float4 sum = {};
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            largest = fmaxf(largest, tops[w * LORE_WIDE_ROWS + m].x);
        }
        const float base = lore_score_base(largest);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float2 top = tops[w * LORE_WIDE_ROWS + m];
            const float kept = exp2f((top.x - base) * factor);
            total += top.y * kept;
            add_four(&sum, kept, *(float4 *)&sums[(w * LORE_WIDE_ROWS + m) * PITCH + c]);
        }
        if (p.parts == 1) {
            write_four<E>(a, p, m, c,
                          make_float4(sum.x / total, sum.y / total, sum.z / total, sum.w / total));
            continue;
        }
        const int64_t row = part_row(a, p, (int32_t)blockIdx.x) + m;
        *(float4 *)&a.part_out[row * E + c] = sum;
        if (c == 0) {
            ((float2 *)a.part_sums)[row] = make_float2(largest, total);
        }
    }
}

/* The parts become rows of the output: scaled to the largest score of all they add up. */
template <int E>
static __device__ __forceinline__ void merge_parts(const lore_attend &a, const wide_part &p,
                                                   float (*weights)[LORE_PARTS_MAX])
{
    static_assert(LORE_PARTS_MAX == 32, "a part a lane");
    const int32_t lane = threadIdx.x % 32, all = p.of.count * a.group;
    const int64_t first = part_row(a, p, 0);
    for (int32_t m = (int32_t)threadIdx.x / 32; m < all; m += WARPS) {
        const float2 top =
            lane < p.parts ? __ldcg((const float2 *)a.part_sums + first + lane * LORE_WIDE_ROWS + m)
                           : make_float2(-INFINITY, 0.0f);
        float largest = top.x;
        for (int distance = 16; distance > 0; distance /= 2) {
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, distance));
        }
        const float kept =
            exp2f((top.x - lore_score_base(largest)) * lore_score_factor(a.attention));
        weights[m][lane] = kept / lore_warp_sum(top.y * kept);
    }
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < all * (E / 4); i += 32 * WARPS) {
        const int32_t m = i / (E / 4), c = i % (E / 4) * 4;
        const float4 *part = (const float4 *)(a.part_out + (first + m) * E + c);
        float4 sum = {};
#pragma unroll 8
        for (int32_t k = 0; k < p.parts; k++) {
            add_four(&sum, weights[m][k], __ldcg(part + k * (LORE_WIDE_ROWS * E / 4)));
        }
        write_four<E>(a, p, m, c, sum);
    }
}

template <int E>
static __global__ void __launch_bounds__(32 * WARPS, E <= 128 ? 2 : 1) wide_kernel(lore_attend a)
{
    extern __shared__ __align__(16) char memory[];
    lore_cuda_release();
    wide_part p;
    if (!find_part(a, &p)) {
        lore_cuda_wait();
        return;
    }
    const int32_t warp = (int32_t)threadIdx.x / 32, own = p.first + warp * WARP_KEYS;
    warp_tile<E> *ring = (warp_tile<E> *)memory + warp * a.stages;
    rows16<E> r;
    begin_ring(a, p, ring, own);
    load_rows(a, &r, p.of, p.kv_head, 0);
    walk_ring(a, p, ring, &r, own);
    __syncthreads(); /* the rings are free when all have read theirs */
    merge_warps(a, p, (float *)memory, r);
    unsigned *arrived = a.arrived + p.sequence * a.kv_heads + p.kv_head;
    if (p.parts > 1 && lore_is_last_block(arrived, (unsigned)p.parts)) {
        merge_parts<E>(a, p, (float(*)[LORE_PARTS_MAX])memory);
    }
}

/* As many stages as are of use and leave room for a second block. The rings are free when the warps
 * merge, and one stage is memory enough for that. */
template <int E>
static cudaError_t wide_launch(lore_queue *queue, lore_attend a, int32_t part_tiles)
{
    constexpr int STAGE_BYTES = WARPS * (int)sizeof(warp_tile<E>);
    static_assert(STAGE_BYTES >= WARPS * LORE_WIDE_ROWS * (E + 6) * (int)sizeof(float), "to merge");
    static_assert(STAGE_BYTES >= LORE_WIDE_ROWS * LORE_PARTS_MAX * (int)sizeof(float), "to merge");
    int most = 0;
    const cudaError_t error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                                     lore_cuda_backend_of(queue)->device);
    if (error != cudaSuccess) {
        return error;
    }
    const int32_t room = (most < BLOCK_BYTES ? most : (int)BLOCK_BYTES) / STAGE_BYTES;
    a.stages = part_tiles < STAGES_MAX ? part_tiles : (int32_t)STAGES_MAX;
    a.stages = a.stages < room ? a.stages : room > 0 ? room : 1;
    const dim3 grid((unsigned)a.parts, (unsigned)a.kv_heads, (unsigned)a.sequences);
    return lore_cuda_launch(queue, wide_kernel<E>, grid, dim3(32 * WARPS),
                            (size_t)a.stages * STAGE_BYTES, a);
}

cudaError_t lore_cuda_wide(lore_queue *queue, const lore_attend &a, int32_t part_tiles)
{
    switch (a.head_dim) {
#define LORE_HEAD(E) \
    case E:          \
        return wide_launch<E>(queue, a, part_tiles);
        LORE_HEADS
#undef LORE_HEAD
    }
    return cudaErrorInvalidValue; /* lore_cuda_find_kernels has none either */
}
