/* Attention of many rows on the tensor cores of Hopper (sm_90a): prefill over pages of bf16, heads
 * of 64 or 128.
 *
 * A block has 128 rows (as in cuda_attention_tiles.cu, the query heads that share keys are rows of
 * one product) and three warpgroups. The last one brings keys and values, 128 of each at a time,
 * from their pages into two rings of shared memory, by the copy engine (TMA). The first two own 64
 * rows each: scores are a product of queries and keys in shared memory, the running softmax is in
 * registers, and its weights go from there into the product with the values. Two things hide the
 * softmax, which takes as long as the products: the scores of a tile and the sums of the one before
 * are issued together, so that the softmax of the tile runs beside the sums; and the warpgroups
 * take turns at issuing, so that one has its softmax while the other multiplies.
 *
 * A box of the copy engine is 64 columns (128 bytes) of the tokens of a page; it comes to lie in
 * the 128-byte swizzle: 16 bytes number c of row r are at place c ^ r % 8 of that row. Boxes of
 * later pages follow behind, so a tile is one matrix of [128][64] for each 64 columns. A product
 * reads it along its rows (keys) or down its columns (values): the descriptors below say so.
 *
 * Few rows behind a long context (a question behind cached passages) would leave most of the device
 * idle: then the keys of a block's rows are shared out among several blocks, and a last small
 * kernel joins their sums.
 *
 * Bound: arithmetic. Keys and values come from the L2 once for 128 rows: 64 KB for 8.4 MFLOP.
 * Sources: Shah et al. 2024 (FlashAttention-3); PTX ISA, wgmma (shared memory layouts, matrix
 * descriptor), mbarrier, cp.async.bulk.tensor, setmaxnreg. */
#include "kernels/cuda/cuda_attention_piece_int.h"
#include "kernels/cuda/cuda_hopper_int.h"

static_assert((int)LORE_PIECE_ROWS == 128, "two warpgroups of 64 rows");

enum {
    GROUP = 128, /* threads of a warpgroup */
    CONSUMERS = 2,
    WARP_ROWS = 16,
    GROUP_ROWS = 64,
    ROWS = LORE_PIECE_ROWS,
    KEYS = LORE_PIECE_KEYS,
    LEAST_PAGE = 8, /* tokens: the rows of a swizzle */
    BOX = 64,       /* columns */
    PART_TILES = 2, /* at least, of the keys that are shared out */
    STAGES = 2,
    ROW_BYTES = 2 * BOX,
    /* registers of a thread: 128 * (24 + 2 * 240) is what a multiprocessor has */
    PRODUCER_REGISTERS = 24,
    CONSUMER_REGISTERS = 240
};

/* Named barriers; 0 is that of __syncthreads. */
enum { TURN_BARRIER = 1, GROUP_BARRIER = TURN_BARRIER + CONSUMERS };

/* Tiles on their way. Copies of tile i go to stage i % STAGES; `full` completes when their bytes
 * are there, `free` when all warps of the consumers have read them. */
struct ring_barriers {
    uint64_t full[STAGES], free[STAGES];
};

template <int E> struct block_memory {
    __nv_bfloat16 queries[CONSUMERS][E / BOX][GROUP_ROWS][BOX];
    __nv_bfloat16 keys[STAGES][E / BOX][KEYS][BOX], values[STAGES][E / BOX][KEYS][BOX];
    ring_barriers key_ring, value_ring;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* ---- the producer ---- */

/* Tile i of keys or values; a warp, a box a lane. Pages behind `end` stay away. */
template <int E>
static __device__ __forceinline__ void load_tile(const lore_attend &a, const lore_piece &p,
                                                 int32_t i, const CUtensorMap *map,
                                                 __nv_bfloat16 (*tiles)[E / BOX][KEYS][BOX],
                                                 ring_barriers *ring)
{
    static_assert(KEYS / LEAST_PAGE * (E / BOX) <= 32, "one box a lane");
    const int lane = threadIdx.x % 32, stage = i % STAGES, column = lane % (E / BOX);
    const int32_t at = p.start + i * KEYS, tokens = lane / (E / BOX) * a.page_tokens;
    const int32_t pages = (min(p.end - at, (int32_t)KEYS) + a.page_tokens - 1) / a.page_tokens;
    const bool is_there = lane < pages * (E / BOX);
    const int32_t page = /* on its way while we wait */
        is_there ? a.pages[a.page_start[p.sequence] + (at + tokens) / a.page_tokens] : 0;
    lore_barrier_wait(&ring->free[stage], (uint32_t)(i / STAGES) % 2 ^ 1);
    if (lane == 0) {
        lore_barrier_expect(&ring->full[stage],
                            (uint32_t)(pages * (E / BOX) * a.page_tokens * ROW_BYTES));
    }
    __syncwarp();
    if (is_there) {
        lore_copy_box(tiles[stage][column][tokens], map, column * BOX,
                      (page * a.kv_heads + p.kv_head) * a.page_tokens, &ring->full[stage]);
    }
}

/* In the order in which consumers ask: values of a tile behind the keys of the next. */
template <int E>
static __device__ __forceinline__ void produce(const lore_attend &a, const lore_piece &p,
                                               block_memory<E> *m, const CUtensorMap *keys,
                                               const CUtensorMap *values)
{
    for (int32_t i = 0; i <= p.tiles; i++) {
        if (i < p.tiles) {
            load_tile<E>(a, p, i, keys, m->keys, &m->key_ring);
        }
        if (i > 0) {
            load_tile<E>(a, p, i - 1, values, m->values, &m->value_ring);
        }
    }
}

/* ---- the consumers ---- */

/* A thread's share of 64 rows: rows g and g + 8 of its warp's 16, g = lane / 4; of 8 columns, two
 * from 2 * (lane % 4) on. So element i of a product is of row g + 8 * (i / 2 % 2), column 8 * (i /
 * 4) + 2 * (lane % 4) + i % 2, and eight of them in order are a thread's share of a left operand.
 */
template <int E> struct rows64 {
    float sum[E / 2];
    uint32_t weights[KEYS / 16][4];
    float largest[2], total[2], kept[2];
    int2 range[2]; /* of positions seen */
    int2 all_see;  /* positions that all rows of the warpgroup see: they need no mask */
};

/* 64 rows of queries, rounded, into shared memory as the copy engine would lay them. Behind the
 * last row comes the last row again, which nobody stores. */
template <int E, typename T>
static __device__ __forceinline__ void load_queries(const lore_attend &a, const lore_piece &p,
                                                    int32_t first,
                                                    __nv_bfloat16 (*to)[GROUP_ROWS][BOX])
{
    constexpr int COUNT = GROUP_ROWS * E / 8 / GROUP; /* of 8 columns each, a thread */
    const T *queries = (const T *)a.q.data + a.row_start[p.sequence] * a.q.stride +
                       (int64_t)p.kv_head * a.group * E;
    uint4 chunks[COUNT]; /* all on their way before the first is put down */
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        const int32_t chunk = i * GROUP + (int32_t)threadIdx.x % GROUP;
        const int32_t m = min(first + chunk / (E / 8), p.rows - 1), c = chunk % (E / 8) * 8;
        chunks[i] = lore_read_8(queries + m / a.group * a.q.stride + m % a.group * E + c);
    }
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        const int32_t chunk = i * GROUP + (int32_t)threadIdx.x % GROUP;
        const int32_t row = chunk / (E / 8), c = chunk % (E / 8) * 8;
        *(uint4 *)&to[c / BOX][row][(c % BOX / 8 ^ row % 8) * 8] = chunks[i];
    }
}

template <int E>
static __device__ __forceinline__ void begin_rows(const lore_attend &a, const lore_piece &p,
                                                  int32_t first, rows64<E> *r)
{
    const int32_t lane = threadIdx.x % 32, warp = (int32_t)threadIdx.x % GROUP / 32;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t m = first + warp * WARP_ROWS + lane / 4 + 8 * i;
        r->range[i] = lore_seen(a, p.past + m / a.group, p.context);
        r->largest[i] = -INFINITY;
        r->total[i] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < E / 2; i++) {
        r->sum[i] = 0.0f;
    }
    const int32_t last = min(first + GROUP_ROWS, p.rows) - 1;
    r->all_see.x = lore_seen(a, p.past + last / a.group, p.context).x;
    r->all_see.y = lore_seen(a, p.past + min(first, last) / a.group, p.context).y;
}

/* scores = queries keys^T, issued. */
template <int E>
static __device__ __forceinline__ void issue_scores(float (&scores)[KEYS / 2], uint64_t queries,
                                                    uint64_t keys)
{
    lore_products_begin();
#pragma unroll
    for (int k = 0; k < E / 16; k++) {
        const uint64_t a = queries + k / 4 * (GROUP_ROWS * ROW_BYTES >> 4) + k % 4 * (32 >> 4);
        const uint64_t b = keys + k / 4 * (KEYS * ROW_BYTES >> 4) + k % 4 * (32 >> 4);
        if (k == 0) {
            lore_multiply_rows<false>(scores, a, b);
        } else {
            lore_multiply_rows<true>(scores, a, b);
        }
    }
    lore_products_commit();
}

/* sum += weights values, issued. */
template <int E> static __device__ __forceinline__ void issue_sums(rows64<E> *r, uint64_t values)
{
    lore_products_begin();
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        lore_multiply_columns(r->sum, r->weights[k], values + k * (16 * ROW_BYTES >> 4));
    }
    lore_products_commit();
}

/* Scores of positions that a row does not see are -inf; `at` is the first position. */
template <int E>
static __device__ __forceinline__ void hide_scores(const rows64<E> &r, float (&scores)[KEYS / 2],
                                                   int32_t at)
{
    const int32_t first = at + 2 * (int32_t)(threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        const int32_t t = first + i / 4 * 8 + i % 2;
        const int2 range = r.range[i / 2 % 2];
        scores[i] = t >= range.x && t < range.y ? scores[i] : -INFINITY;
    }
}

/* The running softmax: scores become weights to a new base, and `kept` is what sums shrink by. Two
 * chains a row, since few warps are here to hide the latency of one. */
template <int E>
static __device__ __forceinline__ void weigh(rows64<E> *r, float (&scores)[KEYS / 2], float factor)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float top[2] = {r->largest[i], r->largest[i]};
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
            top[n % 2] = fmaxf(top[n % 2], fmaxf(scores[4 * n + 2 * i], scores[4 * n + 2 * i + 1]));
        }
        float now = fmaxf(top[0], top[1]);
        now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 1)); /* four lanes share a row */
        now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 2));
        const float base = lore_score_base(now) * factor;
        r->kept[i] = lore_power_of_two(r->largest[i] * factor - base);
        r->largest[i] = now;
        float total[2] = {r->total[i] * r->kept[i], 0.0f}; /* of this lane; joined at the end */
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
            float *pair = scores + 4 * n + 2 * i;
            pair[0] = lore_power_of_two(pair[0] * factor - base);
            pair[1] = lore_power_of_two(pair[1] * factor - base);
            total[n % 2] += pair[0] + pair[1];
        }
        r->total[i] = total[0] + total[1];
    }
}

/* Sums shrink to the new base, and weights take the place of those that were just added. */
template <int E>
static __device__ __forceinline__ void turn_over(rows64<E> *r, const float (&scores)[KEYS / 2])
{
#pragma unroll
    for (int i = 0; i < E / 2; i++) {
        r->sum[i] *= r->kept[i / 2 % 2];
    }
#pragma unroll
    for (int i = 0; i < KEYS / 4; i++) {
        r->weights[i / 4][i % 4] = lore_pack_bf16(scores[2 * i], scores[2 * i + 1]);
    }
}

/* One warpgroup's view of a block at work. */
template <int E> struct consumer {
    block_memory<E> *memory;
    uint64_t queries; /* descriptor */
    float factor;
    int32_t group; /* 0 or 1 */
};

/* Until the keys of tile i are there, if there is one. */
template <int E>
static __device__ __forceinline__ void wait_keys(const consumer<E> &c, const lore_piece &p,
                                                 int32_t i)
{
    if (i < p.tiles) {
        lore_barrier_wait(&c.memory->key_ring.full[i % STAGES], (uint32_t)(i / STAGES) % 2);
    }
}

/* Tile i > 0, whose keys are there: its scores and the sums of the tile before it. All warps of the
 * group come with the same is_masked, as they issue together. */
template <int E, bool is_masked>
static __device__ __forceinline__ void step(const consumer<E> &c, const lore_piece &p, rows64<E> *r,
                                            int32_t i)
{
    block_memory<E> *m = c.memory;
    const int stage = i % STAGES, before = (i - 1) % STAGES;
    const bool is_first_lane = threadIdx.x % 32 == 0;
    float scores[KEYS / 2];
    lore_named_sync(TURN_BARRIER + c.group, CONSUMERS * GROUP);
    issue_scores<E>(scores, c.queries, lore_describe(m->keys[stage], ROW_BYTES));
    lore_barrier_wait(&m->value_ring.full[before], (uint32_t)((i - 1) / STAGES) % 2);
    issue_sums<E>(r, lore_describe(m->values[before], KEYS * ROW_BYTES));
    if (c.group == 0 || i + 1 < p.tiles) { /* nobody waits for the very last turn */
        lore_named_arrive(TURN_BARRIER + 1 - c.group, CONSUMERS * GROUP);
    }
    lore_products_wait<1>();
    lore_pin(scores);
    lore_barrier_arrive_if(&m->key_ring.free[stage], is_first_lane);
    if (is_masked) {
        hide_scores(*r, scores, p.start + i * KEYS);
    }
    weigh(r, scores, c.factor);
    lore_pin(scores);
    /* This wait parts two blocks of instructions: without one, the assembler moves the wait for the
     * sums up, and the softmax behind it. */
    wait_keys(c, p, i + 1);
    lore_products_wait<0>();
    lore_pin(r->sum);
    lore_barrier_arrive_if(&m->value_ring.free[before], is_first_lane);
    turn_over(r, scores);
}

/* Values from `end` on become zeros: pages may hold anything there, and the rest of the tile holds
 * what was there before. Each warpgroup does it for itself; both write the same. */
template <int E>
static __device__ __forceinline__ void clear_tail(const lore_piece &p, int32_t group,
                                                  __nv_bfloat16 (*tile)[KEYS][BOX])
{
    const int32_t first = p.end - p.start - (p.tiles - 1) * KEYS;
    for (int32_t i = (int32_t)threadIdx.x % GROUP; i < (KEYS - first) * (E / 8); i += GROUP) {
        const int32_t row = first + i / (E / 8), c = i % (E / 8) * 8;
        *(uint4 *)&tile[c / BOX][row][c % BOX] = make_uint4(0, 0, 0, 0);
    }
    lore_fence_stores();
    lore_named_sync(GROUP_BARRIER + group, GROUP);
}

/* All tiles of the rows. Where warps wait for one another, all of them come: what they ask here is
 * of the block or of the warpgroup. */
template <int E>
static __device__ __forceinline__ void walk_tiles(const consumer<E> &c, const lore_piece &p,
                                                  rows64<E> *r)
{
    block_memory<E> *m = c.memory;
    if (c.group == 1 && p.tiles > 1) {
        lore_named_arrive(TURN_BARRIER, CONSUMERS * GROUP); /* the first turn is group 0's */
    }
    wait_keys(c, p, 0);
    {
        float scores[KEYS / 2];
        issue_scores<E>(scores, c.queries, lore_describe(m->keys[0], ROW_BYTES));
        lore_products_wait<0>();
        lore_pin(scores);
        lore_barrier_arrive_if(&m->key_ring.free[0], threadIdx.x % 32 == 0);
        hide_scores(*r, scores, p.start);
        weigh(r, scores, c.factor);
        turn_over(r, scores);
    }
    wait_keys(c, p, 1);
    for (int32_t i = 1; i < p.tiles; i++) {
        const int32_t at = p.start + i * KEYS;
        if (at >= r->all_see.x && at + KEYS <= r->all_see.y) {
            step<E, false>(c, p, r, i);
        } else {
            step<E, true>(c, p, r, i);
        }
    }
    const int32_t last = p.tiles - 1;
    __nv_bfloat16(*tile)[KEYS][BOX] = m->values[last % STAGES];
    lore_barrier_wait(&m->value_ring.full[last % STAGES], (uint32_t)(last / STAGES) % 2);
    if (p.start + p.tiles * KEYS > p.end) {
        clear_tail<E>(p, c.group, tile);
    }
    issue_sums<E>(r, lore_describe(tile, KEYS * ROW_BYTES));
    lore_products_wait<0>();
    lore_pin(r->sum);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        r->total[i] += __shfl_xor_sync(0xffffffffu, r->total[i], 1);
        r->total[i] += __shfl_xor_sync(0xffffffffu, r->total[i], 2);
    }
}

static __device__ __forceinline__ void put_2(float *to, float x, float y)
{
    *(float2 *)to = make_float2(x, y);
}

static __device__ __forceinline__ void put_2(__nv_bfloat16 *to, float x, float y)
{
    *(uint32_t *)to = lore_pack_bf16(x, y);
}

template <int E, typename T>
static __device__ __forceinline__ void store_rows(const lore_attend &a, const lore_piece &p,
                                                  int32_t first, const rows64<E> &r)
{
    const int32_t lane = threadIdx.x % 32, warp = (int32_t)threadIdx.x % GROUP / 32;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t m = first + warp * WARP_ROWS + lane / 4 + 8 * i;
        if (m >= p.rows) {
            continue;
        }
        const float inverse = 1.0f / r.total[i];
        T *to = (T *)a.out.data + (int64_t)(a.row_start[p.sequence] + m / a.group) * a.out.stride +
                (int64_t)(p.kv_head * a.group + m % a.group) * E + 2 * (lane % 4);
#pragma unroll
        for (int n = 0; n < E / 8; n++) {
            put_2(to + 8 * n, r.sum[4 * n + 2 * i] * inverse, r.sum[4 * n + 2 * i + 1] * inverse);
        }
    }
}

/* Sums and what they are to be divided by, for the merge: of row first_row + i at row blockIdx.x *
 * ROWS + i. */
template <int E>
static __device__ __forceinline__ void store_part(const lore_attend &a, const lore_piece &p,
                                                  int32_t first, const rows64<E> &r)
{
    const int32_t lane = threadIdx.x % 32, warp = (int32_t)threadIdx.x % GROUP / 32;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int64_t row =
            (int64_t)blockIdx.x * ROWS + first - p.first_row + warp * WARP_ROWS + lane / 4 + 8 * i;
        if (lane % 4 == 0) {
            put_2(a.part_sums + 2 * row, r.largest[i], r.total[i]);
        }
#pragma unroll
        for (int n = 0; n < E / 8; n++) {
            put_2(a.part_out + row * E + 8 * n + 2 * (lane % 4), r.sum[4 * n + 2 * i],
                  r.sum[4 * n + 2 * i + 1]);
        }
    }
}

template <int E>
static __device__ __forceinline__ void consume(const lore_attend &a, const lore_piece &p,
                                               block_memory<E> *m, int32_t group)
{
    const int32_t first = p.first_row + group * GROUP_ROWS;
    const consumer<E> c = {m, lore_describe(m->queries[group], ROW_BYTES),
                           lore_score_factor(a.attention), group};
    if (a.q.dtype == LORE_F32) {
        load_queries<E, float>(a, p, first, m->queries[group]);
    } else {
        load_queries<E, __nv_bfloat16>(a, p, first, m->queries[group]);
    }
    lore_fence_stores();
    lore_named_sync(GROUP_BARRIER + group, GROUP);
    rows64<E> r;
    begin_rows(a, p, first, &r);
    walk_tiles(c, p, &r);
    if (a.parts > 1) {
        store_part(a, p, first, r);
    } else if (a.out.dtype == LORE_F32) {
        store_rows<E, float>(a, p, first, r);
    } else {
        store_rows<E, __nv_bfloat16>(a, p, first, r);
    }
}

static __device__ __forceinline__ void init_ring(ring_barriers *ring)
{
    for (int i = 0; i < STAGES; i++) {
        lore_barrier_init(&ring->full[i], 1);
        lore_barrier_init(&ring->free[i], CONSUMERS * GROUP / 32);
    }
}

#endif

template <int E>
static __global__ void __launch_bounds__((CONSUMERS + 1) * GROUP, 1)
    hopper_kernel(const __grid_constant__ lore_attend a, const __grid_constant__ CUtensorMap keys,
                  const __grid_constant__ CUtensorMap values)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    lore_cuda_release();
    if (threadIdx.x == 0) {
        lore_prefetch_map(&keys);
        lore_prefetch_map(&values);
    }
    lore_cuda_wait();
    extern __shared__ char memory[];
    block_memory<E> *m =
        (block_memory<E> *)(memory + (LORE_SWIZZLE_BYTES -
                                      lore_shared_address(memory) % LORE_SWIZZLE_BYTES) %
                                         LORE_SWIZZLE_BYTES);
    lore_piece p;
    if (!lore_find_piece(a, (int32_t)blockIdx.x / a.parts, &p)) {
        return;
    }
    lore_take_part(&p, (int32_t)blockIdx.x % a.parts, a.parts);
    if (p.tiles == 0) { /* the merge needs to know */
        if (threadIdx.x < ROWS) {
            put_2(a.part_sums + 2 * ((int64_t)blockIdx.x * ROWS + threadIdx.x), -INFINITY, 0.0f);
        }
        return;
    }
    if (threadIdx.x == 0) {
        init_ring(&m->key_ring);
        init_ring(&m->value_ring);
        lore_fence_barrier_init();
    }
    __syncthreads();
    /* by a shuffle, so that the compiler knows it for one of the warp */
    const int32_t group = __shfl_sync(0xffffffffu, (int32_t)threadIdx.x / GROUP, 0);
    if (group == CONSUMERS) {
        lore_give_registers<PRODUCER_REGISTERS>();
        if (threadIdx.x < CONSUMERS * GROUP + 32) {
            produce<E>(a, p, m, &keys, &values);
        }
    } else {
        lore_take_registers<CONSUMER_REGISTERS>();
        consume<E>(a, p, m, group);
    }
#else
    __trap(); /* lore_cuda_find_tensor_map gives NULL where this is all there is */
#endif
}

/* ---- launchers ---- */

typedef CUresult (*map_encoder)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

const void *lore_cuda_find_tensor_map(void)
{
    void *entry = NULL;
#if defined(LORE_HAVE_SM90A)
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry,
                                                               12000, cudaEnableDefault, &found);
    if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) {
        (void)cudaGetLastError();
        return NULL;
    }
#endif
    return entry;
}

/* All rows of the pages of a layer as one matrix; a box is the half or all of a page's columns. */
static bool encode_map(const void *encoder, CUtensorMap *map, const lore_attend &a,
                       const void *data)
{
    const cuuint64_t sizes[2] = {(cuuint64_t)a.head_dim, (cuuint64_t)a.page_count *
                                                             (cuuint64_t)a.kv_heads *
                                                             (cuuint64_t)a.page_tokens};
    const cuuint64_t row_bytes[1] = {(cuuint64_t)a.head_dim * sizeof(__nv_bfloat16)};
    const cuuint32_t box[2] = {BOX, (cuuint32_t)a.page_tokens}, steps[2] = {1, 1};
    return ((map_encoder)encoder)(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)data, sizes,
                                  row_bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                  CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* Parts of the keys of each piece, where there are more multiprocessors than pieces, and memory for
 * what they leave. False: there is none. */
static bool choose_parts(lore_queue *queue, lore_attend *a, int32_t context_max)
{
    const int32_t units = lore_count_slots(*a) * a->kv_heads;
    const int32_t most = context_max / (PART_TILES * KEYS);
    const int32_t wanted = lore_cuda_backend_of(queue)->processors / units;
    a->parts = wanted < most ? wanted : most;
    if (a->parts <= 1) {
        a->parts = 1;
        return true;
    }
    const size_t rows = (size_t)units * (size_t)a->parts * ROWS;
    a->part_out =
        (float *)lore_cuda_scratch(queue, rows * (size_t)(a->head_dim + 2) * sizeof(float));
    a->part_sums = a->part_out + rows * (size_t)a->head_dim;
    return a->part_out != NULL;
}

template <int E>
static cudaError_t hopper_launch(lore_queue *queue, const lore_attend &a, const CUtensorMap &keys,
                                 const CUtensorMap &values)
{
    const size_t bytes = sizeof(block_memory<E>) + LORE_SWIZZLE_BYTES; /* to align it */
    const int32_t units = lore_count_slots(a) * a.kv_heads;
    const cudaError_t error =
        lore_cuda_launch(queue, hopper_kernel<E>, dim3((unsigned)(units * a.parts)),
                         dim3((CONSUMERS + 1) * GROUP), bytes, a, keys, values);
    return error != cudaSuccess || a.parts == 1 ? error : lore_cuda_merge_pieces(queue, a);
}

bool lore_cuda_can_hopper(const lore_queue *queue, const lore_attend &a)
{
    const int64_t rows = (int64_t)a.page_count * a.kv_heads * a.page_tokens;
    return lore_cuda_backend_of(queue)->encode_tensor_map != NULL &&
           (a.head_dim == 64 || a.head_dim == 128) && a.attention.softcap == 0.0f &&
           a.page_tokens % LEAST_PAGE == 0 && KEYS % a.page_tokens == 0 && rows <= INT32_MAX &&
           lore_is_aligned(a.q, 8) && lore_is_aligned(a.out, 2) && (uintptr_t)a.keys % 16 == 0 &&
           (uintptr_t)a.values % 16 == 0;
}

cudaError_t lore_cuda_hopper(lore_queue *queue, lore_attend a, int32_t context_max)
{
    const void *encoder = lore_cuda_backend_of(queue)->encode_tensor_map;
    CUtensorMap keys, values;
    if (!encode_map(encoder, &keys, a, a.keys) || !encode_map(encoder, &values, a, a.values)) {
        return cudaErrorInvalidValue;
    }
    if (!choose_parts(queue, &a, context_max)) {
        return cudaSuccess; /* noted */
    }
    return a.head_dim == 64 ? hopper_launch<64>(queue, a, keys, values)
                            : hopper_launch<128>(queue, a, keys, values);
}
