/* Exact search of vectors: each row is read once, and no score is written to memory.
 *
 * Rows are taken in groups of 32. Four kernels find the best k rows of up to 64 queries:
 *
 *   scan    a warp multiplies a group with all queries on the tensor cores and writes, for each
 *           query, the group's best row
 *   choose  the k best groups of each query. Their best rows are k rows, so a row outside of these
 *           groups, which is worse than the best of its own, is not among the best k
 *   rescan  the scores of all rows of those groups: k groups of one query, no more
 *   finish  the best k of these rows, and of what was found in the rows before, sorted
 *
 * A row is known by its key: the score as an ordered integer above the complement of the row's
 * number. Larger is better, equal scores go to the lower row, and no two keys are equal, so which
 * thread came first changes nothing. 0 is the key of a row that does not pass.
 *
 * Traffic: dim bytes a row (twice that in f16), once for 64 queries, which is the bound; 8 bytes a
 * group and query, k groups a query again. 1,000,000 x 384 int8 are 384 MB, 90 us at 4.25 TB/s. The
 * tensor cores take the columns of a row in any order, as long as the query's come in the same: so
 * a lane loads 16 bytes at a time, and four lanes together 64 of a row. (PTX ISA, mma.m16n8k32,
 * mma.m16n8k16.) Queries lie in shared memory in the order in which lanes take them. Rows that do
 * not begin at multiples of 16 bytes, or are too long for that, go the plain way: eight queries at
 * a time, straight from the cache, byte by byte. */
#include "kernels/cuda/cuda_select_int.h"
#include "kernels/search.h"

enum {
    GROUP = 32, /* rows: two tiles of the tensor cores, and a word of the bitmap */
    WARPS = 8,
    THREADS = 32 * WARPS,
    RESIDENT = 2,     /* blocks of a multiprocessor: 128 registers a thread; 16 warps with 6 KiB of
                         loads each under way are three times what the memory's delay asks for */
    PIECE_BYTES = 64, /* of a row that a step takes: 16 for each of four lanes */
    TILE_QUERIES = 8, /* columns of a product */
    TILES_MAX = 8,    /* 64 queries: their sums are 64 registers */
    SLICE_GROUPS = 1 << 17,         /* 4 million rows: their keys take 64 MiB at most */
    FRAGMENT_BYTES_MAX = 96 * 1024, /* of shared memory for queries; every GPU has as much */
};
static_assert((int)SELECT_THREADS == (int)LORE_SEARCH_HITS_MAX, "finish has a thread a hit");

/* What the kernels are told of one piece of queries and one slice of rows. */
typedef struct task {
    const char *queries; /* [count, row_bytes] */
    const float *query_scales;
    int32_t query_count;
    const char *vectors;
    const float *scales;
    const uint32_t *passing;
    int64_t row_count; /* of all slices */
    int32_t row_bytes, hits;
    int32_t first_group, groups; /* the slice */
} task;

/* ---- keys ---- */

static __device__ __forceinline__ uint64_t key_of(float score, int64_t row, bool passes)
{
    const uint32_t bits = __float_as_uint(score + 0.0f); /* both zeros are one */
    const uint32_t order = bits ^ ((uint32_t)((int32_t)bits >> 31) | 0x80000000u);
    const uint64_t key = (uint64_t)order << 32 | ~(uint32_t)row;
    return passes && score == score ? key : 0; /* not where it is NaN */
}

static __device__ __forceinline__ float score_of(uint64_t key)
{
    const uint32_t order = (uint32_t)(key >> 32);
    return __uint_as_float((order & 0x80000000u) != 0 ? order & 0x7FFFFFFFu : ~order);
}

/* ---- the two kinds of rows ---- */

struct int8_rows {
    typedef int32_t sum;
    static __device__ __forceinline__ void multiply(sum d[4], const uint32_t a[4], uint32_t b0,
                                                    uint32_t b1)
    {
        asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
            "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
    static __device__ __forceinline__ float scale_of(const float *scales, int64_t i)
    {
        return scales[i];
    }
    /* The operations of lore_op_scan, in its order. */
    static __device__ __forceinline__ float score(sum x, float query_scale, float scale)
    {
        return __fmul_rn((float)x, __fmul_rn(query_scale, scale));
    }
};

struct f16_rows {
    typedef float sum;
    static __device__ __forceinline__ void multiply(sum d[4], const uint32_t a[4], uint32_t b0,
                                                    uint32_t b1)
    {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
    static __device__ __forceinline__ float scale_of(const float *, int64_t)
    {
        return 1.0f;
    }
    static __device__ __forceinline__ float score(sum x, float, float)
    {
        return x;
    }
};

/* ---- products of a group ---- */

/* Bytes at .. at + 15 of a row, zeros behind its end. */
template <bool is_plain>
static __device__ __forceinline__ uint4 load_bytes(const char *row, int32_t at, const task &t)
{
    if (!is_plain) {
        return at < t.row_bytes ? __ldcs((const uint4 *)(row + at)) : make_uint4(0, 0, 0, 0);
    }
    uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
    for (int32_t i = 0; i < 16; i++) {
        if (at + i < t.row_bytes) {
            words[i / 4] |= (uint32_t)(uint8_t)row[at + i] << (i % 4 * 8);
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

static __device__ __forceinline__ int32_t steps_of(const task &t)
{
    return (t.row_bytes + PIECE_BYTES - 1) / PIECE_BYTES;
}

/* Which rows of the group pass, a bit each; none behind the last row. */
static __device__ __forceinline__ uint32_t passing_of(const task &t, int64_t first)
{
    const int64_t left = t.row_count - first;
    const uint32_t here = left < GROUP ? (1u << left) - 1 : 0xffffffffu;
    return t.passing != NULL ? t.passing[first / GROUP] & here : here;
}

/* d[half][tile][c] += the product of row 16 half + 8 (c / 2) + lane / 4 of the group and query 8
 * tile + 2 (lane % 4) + c % 2. Queries come from `fragments` (see fill_fragments), or where that is
 * NULL (one tile) column lane / 4 from `query`, and NULL there is a query of zeros. The whole warp
 * must come. */
template <typename rows, int TILES, bool is_plain>
static __device__ __forceinline__ void multiply_group(typename rows::sum (&d)[2][TILES][4],
                                                      const task &t, int64_t first,
                                                      const uint4 *fragments, const char *query)
{
    const int32_t lane = threadIdx.x % 32, own = lane % 4 * 16, steps = steps_of(t);
    const int64_t left = t.row_count - first;
    const char *group = t.vectors + first * t.row_bytes;
    int32_t from[4]; /* where the rows of the lane begin */
#pragma unroll
    for (int i = 0; i < 4; i++) { /* behind the last row: that one again, which does not pass */
        const int32_t row = 8 * i + lane / 4;
        from[i] = (row < left ? row : (int32_t)left - 1) * t.row_bytes;
    }
    /* Other warps multiply while this one waits; where registers are left it asks for several steps
     * at once. */
#pragma unroll(TILES == 1 && !is_plain ? 3 : 1)
    for (int32_t step = 0; step < steps; step++) {
        uint4 a[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            a[i] = load_bytes<is_plain>(group + from[i], step * PIECE_BYTES + own, t);
        }
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            uint4 b = make_uint4(0, 0, 0, 0);
            if (fragments != NULL) {
                b = fragments[(step * TILES + tile) * 32 + lane];
            } else if (query != NULL) {
                b = load_bytes<is_plain>(query, step * PIECE_BYTES + own, t);
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const uint4 u = a[2 * half], v = a[2 * half + 1];
                const uint32_t front[4] = {u.x, v.x, u.y, v.y}, back[4] = {u.z, v.z, u.w, v.w};
                rows::multiply(d[half][tile], front, b.x, b.y);
                rows::multiply(d[half][tile], back, b.z, b.w);
            }
        }
    }
}

/* ---- scan ---- */

/* Step by step and tile by tile the 16 bytes of each lane: of query lane / 4 of the tile, bytes 16
 * (lane % 4) of the step. */
template <int TILES>
static __device__ __forceinline__ void fill_fragments(uint4 *fragments, const task &t)
{
    for (int32_t i = threadIdx.x; i < steps_of(t) * TILES * 32; i += THREADS) {
        const int32_t lane = i % 32, tile = i / 32 % TILES, step = i / 32 / TILES;
        const int32_t query = tile * TILE_QUERIES + lane / 4;
        fragments[i] = query < t.query_count
                           ? load_bytes<false>(t.queries + (int64_t)query * t.row_bytes,
                                               step * PIECE_BYTES + lane % 4 * 16, t)
                           : make_uint4(0, 0, 0, 0);
    }
}

/* The best key of the lanes that hold the same query; all of them get it. */
static __device__ __forceinline__ uint64_t best_of_lanes(uint64_t key)
{
    for (int distance = 4; distance < 32; distance *= 2) {
        const uint64_t other = __shfl_xor_sync(0xffffffffu, key, distance);
        key = other > key ? other : key;
    }
    return key;
}

/* keys[q, group of the slice] = the best of the group. A block's warps take neighbouring groups and
 * walk in strides of the grid. */
template <typename rows, int TILES, bool is_plain>
static __global__ void __launch_bounds__(THREADS, RESIDENT) scan_kernel(uint64_t *keys, task t)
{
    extern __shared__ uint4 fragments[];
    __shared__ float query_scales[TILES * TILE_QUERIES];
    const int32_t lane = threadIdx.x % 32;
    const char *query = NULL;
    if (!is_plain) {
        fill_fragments<TILES>(fragments, t);
    } else if (lane / 4 < t.query_count) {
        query = t.queries + (int64_t)(lane / 4) * t.row_bytes;
    }
    for (int32_t i = threadIdx.x; i < TILES * TILE_QUERIES; i += THREADS) {
        query_scales[i] = i < t.query_count ? rows::scale_of(t.query_scales, i) : 0.0f;
    }
    __syncthreads();
    for (int32_t group = (int32_t)blockIdx.x * WARPS + (int32_t)threadIdx.x / 32; group < t.groups;
         group += (int32_t)gridDim.x * WARPS) {
        const int64_t first = (int64_t)(t.first_group + group) * GROUP;
        const uint32_t passing = passing_of(t, first);
        typename rows::sum d[2][TILES][4] = {};
        float scales[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (passing != 0) { /* the same in all lanes */
            multiply_group<rows, TILES, is_plain>(d, t, first, is_plain ? NULL : fragments, query);
#pragma unroll
            for (int i = 0; i < 4; i++) { /* now: there was no register for them before */
                const int64_t row = first + 8 * i + lane / 4;
                scales[i] = row < t.row_count ? rows::scale_of(t.scales, row) : 0.0f;
            }
        }
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            if (tile * TILE_QUERIES >= t.query_count) {
                break;
            }
#pragma unroll
            for (int c = 0; c < 2; c++) {
                const int32_t q = tile * TILE_QUERIES + lane % 4 * 2 + c;
                uint64_t best = 0;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int32_t row = 8 * i + lane / 4;
                    const float score =
                        rows::score(d[i / 2][tile][i % 2 * 2 + c], query_scales[q], scales[i]);
                    const uint64_t key = key_of(score, first + row, passing >> row & 1);
                    best = key > best ? key : best;
                }
                best = best_of_lanes(best);
                if (lane / 4 == 0 && q < t.query_count) {
                    keys[(int64_t)q * t.groups + group] = best;
                }
            }
        }
    }
}

/* ---- choosing ---- */

/* chosen[q, 0 .. hits-1] = the groups with the best keys, in any order; -1 behind them. */
static __global__ void __launch_bounds__(SELECT_THREADS)
    choose_kernel(int32_t *chosen, const uint64_t *keys, task t)
{
    __shared__ int32_t taken;
    const uint64_t *own = keys + (int64_t)blockIdx.x * t.groups;
    int32_t *out = chosen + (int64_t)blockIdx.x * t.hits;
    if (threadIdx.x == 0) {
        taken = 0;
    }
    const uint64_t least = find_least(own, t.groups, t.hits);
    __syncthreads();
    for (int32_t i = threadIdx.x; i < t.groups; i += SELECT_THREADS) {
        if (own[i] >= least) {
            out[atomicAdd(&taken, 1)] = t.first_group + i;
        }
    }
    __syncthreads();
    for (int32_t i = taken + (int32_t)threadIdx.x; i < t.hits; i += SELECT_THREADS) {
        out[i] = -1;
    }
}

/* ---- rescan ---- */

/* A query's candidates: the rows of its groups, then the best of the slices before. */
static __host__ __device__ __forceinline__ int64_t candidates_of(int32_t hits)
{
    return (int64_t)(GROUP + 1) * hits;
}

/* A warp a chosen group. The products are those of the scan to the last bit: a column of a tile
 * does not feel its neighbours. */
template <typename rows, bool is_plain>
static __global__ void __launch_bounds__(THREADS)
    rescan_kernel(uint64_t *candidates, const int32_t *chosen, task t)
{
    const int32_t lane = threadIdx.x % 32, q = (int32_t)blockIdx.y;
    const int32_t slot = (int32_t)blockIdx.x * WARPS + (int32_t)threadIdx.x / 32;
    if (slot >= t.hits) {
        return;
    }
    const int32_t group = chosen[(int64_t)q * t.hits + slot];
    uint64_t *out = candidates + q * candidates_of(t.hits) + (int64_t)slot * GROUP;
    if (group < 0) {
        out[lane] = 0;
        return;
    }
    const int64_t first = (int64_t)group * GROUP;
    const uint32_t passing = passing_of(t, first);
    const char *query = lane / 4 == 0 ? t.queries + (int64_t)q * t.row_bytes : NULL;
    typename rows::sum d[2][1][4] = {};
    multiply_group<rows, 1, is_plain>(d, t, first, NULL, query);
    if (lane % 4 == 0) { /* they hold column 0 */
        const float query_scale = rows::scale_of(t.query_scales, q);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int32_t row = 8 * i + lane / 4;
            const float scale =
                rows::scale_of(t.scales, first + row < t.row_count ? first + row : t.row_count - 1);
            const float score = rows::score(d[i / 2][0][i % 2 * 2], query_scale, scale);
            out[row] = key_of(score, first + row, passing >> row & 1);
        }
    }
}

/* ---- finish ---- */

static __global__ void __launch_bounds__(SELECT_THREADS)
    finish_kernel(int32_t *found_rows, float *scores, uint64_t *candidates, task t)
{
    __shared__ uint64_t best[SELECT_THREADS];
    __shared__ int32_t taken;
    uint64_t *own = candidates + blockIdx.x * candidates_of(t.hits);
    const int32_t i = (int32_t)threadIdx.x;
    const int32_t count = (t.first_group == 0 ? GROUP : GROUP + 1) * t.hits;
    best[i] = 0;
    if (i == 0) {
        taken = 0;
    }
    const uint64_t least = find_least(own, count, t.hits);
    __syncthreads();
    for (int32_t j = i; j < count; j += SELECT_THREADS) {
        const uint64_t key = own[j];
        if (key >= least) {
            best[atomicAdd(&taken, 1)] = key;
        }
    }
    int32_t size = 1;
    while (size < t.hits) {
        size *= 2;
    }
    __syncthreads();
    lore_sort_falling<SELECT_THREADS>(best, size);
    if (i < t.hits) {
        const int64_t at = (int64_t)blockIdx.x * t.hits + i;
        own[GROUP * t.hits + i] = best[i];
        found_rows[at] = best[i] != 0 ? (int32_t) ~(uint32_t)best[i] : -1;
        scores[at] = best[i] != 0 ? score_of(best[i]) : -INFINITY;
    }
}

/* ---- launchers ---- */

typedef struct scratch {
    uint64_t *keys;       /* [queries, groups of a slice] */
    uint64_t *candidates; /* [queries, candidates_of(hits)] */
    int32_t *chosen;      /* [queries, hits] */
} scratch;

static size_t fragment_bytes(const task &t, int tiles)
{
    return (size_t)((t.row_bytes + PIECE_BYTES - 1) / PIECE_BYTES) * tiles * 32 * sizeof(uint4);
}

template <typename rows, int TILES, bool is_plain>
static cudaError_t scan_launch(uint64_t *keys, const task &t, int processors, cudaStream_t stream)
{
    const size_t shared = is_plain ? 0 : fragment_bytes(t, TILES);
    const int resident = processors * RESIDENT;
    const int blocks = (t.groups + WARPS - 1) / WARPS, grid = blocks < resident ? blocks : resident;
    const auto kernel = scan_kernel<rows, TILES, is_plain>;
    if (shared > 32 * 1024) { /* unasked a kernel has 48 KiB, its static arrays among them */
        const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
        if (error != cudaSuccess) {
            return error;
        }
    }
    kernel<<<grid, THREADS, shared, stream>>>(keys, t);
    return cudaGetLastError();
}

template <typename rows>
static void scan_slice(lore_queue *queue, uint64_t *keys, const task &t, bool is_plain)
{
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    const int processors = lore_cuda_backend_of(queue)->processors;
    if (is_plain) {
        LORE_CUDA_NOTE(queue, (scan_launch<rows, 1, true>(keys, t, processors, stream)));
    } else if (t.query_count <= TILE_QUERIES) {
        LORE_CUDA_NOTE(queue, (scan_launch<rows, 1, false>(keys, t, processors, stream)));
    } else {
        LORE_CUDA_NOTE(queue, (scan_launch<rows, TILES_MAX, false>(keys, t, processors, stream)));
    }
}

/* One piece of queries over one slice of rows. */
template <typename rows>
static void search_slice(lore_queue *queue, int32_t *found_rows, float *scores, const task &t,
                         const scratch &s, bool is_plain)
{
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    const unsigned queries = (unsigned)t.query_count;
    const dim3 warps((unsigned)(t.hits + WARPS - 1) / WARPS, queries);
    scan_slice<rows>(queue, s.keys, t, is_plain);
    choose_kernel<<<queries, SELECT_THREADS, 0, stream>>>(s.chosen, s.keys, t);
    LORE_CUDA_NOTE(queue, cudaGetLastError());
    if (is_plain) {
        rescan_kernel<rows, true><<<warps, THREADS, 0, stream>>>(s.candidates, s.chosen, t);
    } else {
        rescan_kernel<rows, false><<<warps, THREADS, 0, stream>>>(s.candidates, s.chosen, t);
    }
    LORE_CUDA_NOTE(queue, cudaGetLastError());
    finish_kernel<<<queries, SELECT_THREADS, 0, stream>>>(found_rows, scores, s.candidates, t);
    LORE_CUDA_NOTE(queue, cudaGetLastError());
}

/* Nothing to search: no row, no score. */
static __global__ void clear_kernel(int32_t *found_rows, float *scores, int64_t count)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < count) {
        found_rows[i] = -1;
        scores[i] = -INFINITY;
    }
}

static bool goes_plain(const lore_search *search, const task &t)
{
    return t.row_bytes % 16 != 0 || (size_t)search->query % 16 != 0 ||
           (size_t)search->vectors % 16 != 0 || fragment_bytes(t, 1) > FRAGMENT_BYTES_MAX;
}

static bool take_scratch(lore_queue *queue, scratch *s, int32_t queries, int32_t groups,
                         int32_t hits)
{
    const size_t keys = (size_t)queries * (size_t)groups;
    const size_t candidates = (size_t)queries * (size_t)candidates_of(hits);
    const size_t chosen = (size_t)queries * (size_t)hits;
    s->keys = (uint64_t *)lore_cuda_scratch(queue, (keys + candidates) * sizeof(uint64_t) +
                                                       chosen * sizeof(int32_t));
    if (s->keys == NULL) {
        return false;
    }
    s->candidates = s->keys + keys;
    s->chosen = (int32_t *)(s->candidates + candidates);
    return true;
}

template <typename rows>
static void search_all(lore_queue *queue, int32_t *found_rows, float *scores, task t,
                       const lore_search *search)
{
    const int32_t groups = (int32_t)((search->count + GROUP - 1) / GROUP);
    const bool is_plain = goes_plain(search, t);
    const bool has_room = !is_plain && fragment_bytes(t, TILES_MAX) <= FRAGMENT_BYTES_MAX;
    const int32_t piece = has_room ? TILES_MAX * TILE_QUERIES : TILE_QUERIES;
    const int32_t most = search->queries < piece ? search->queries : piece;
    scratch s;
    if (!take_scratch(queue, &s, most, groups < SLICE_GROUPS ? groups : SLICE_GROUPS, t.hits)) {
        return;
    }
    for (int32_t first = 0; first < search->queries; first += piece) {
        const int32_t left = search->queries - first;
        t.queries = (const char *)search->query + (int64_t)first * t.row_bytes;
        t.query_scales = search->query_scales + (search->query_scales != NULL ? first : 0);
        t.query_count = left < piece ? left : piece;
        for (t.first_group = 0; t.first_group < groups; t.first_group += SLICE_GROUPS) {
            const int32_t rest = groups - t.first_group;
            t.groups = rest < SLICE_GROUPS ? rest : SLICE_GROUPS;
            search_slice<rows>(queue, found_rows + (int64_t)first * t.hits,
                               scores + (int64_t)first * t.hits, t, s, is_plain);
        }
    }
}

void lore_cuda_search(lore_queue *queue, int32_t *found_rows, float *scores, int32_t hits,
                      const lore_search *search)
{
    const size_t row_bytes = (size_t)search->dim * lore_dtype_size(search->dtype);
    LORE_ASSERT(row_bytes <= INT32_MAX / (2 * GROUP)); /* offsets into a group are int32 */
    task t = {};
    t.vectors = (const char *)search->vectors;
    t.scales = search->scales;
    t.passing = search->passing;
    t.row_count = search->count;
    t.row_bytes = (int32_t)row_bytes;
    t.hits = hits;
    if (search->queries == 0) {
        return;
    }
    if (search->count == 0) {
        const int64_t count = (int64_t)search->queries * hits;
        clear_kernel<<<(unsigned)((count + THREADS - 1) / THREADS), THREADS, 0,
                       lore_cuda_queue_of(queue)->stream>>>(found_rows, scores, count);
        LORE_CUDA_NOTE(queue, cudaGetLastError());
    } else if (search->dtype == LORE_I8) {
        search_all<int8_rows>(queue, found_rows, scores, t, search);
    } else {
        search_all<f16_rows>(queue, found_rows, scores, t, search);
    }
}
