/* v = x A^T, the first half of what adapters add to a product (cuda_lora.cu).
 *
 * A piece is sixteen ranks of a part, eight rows of a segment (a prefill's: 32) and one split of
 * the depth. The four warps of a block take turns at 64 columns of it. A lane copies sixteen bytes
 * of A into a place of its own in shared memory, ahead, and it alone reads them there, so nothing
 * waits for the block until the warps' sums come together. Rows of x come from the cache. */
#include "kernels/cuda/cuda_lora_int.h"
#include "kernels/cuda/cuda_matmul_int.h"

enum {
    STAGES = 2,        /* steps under way */
    PIECES = 4,        /* of 16 bytes, of a lane: two halves of the steps of two rows */
    SHRINK_BLOCKS = 6, /* of a multiprocessor */
    PREFILL_BLOCKS = 2,
    DECODE_ROWS = 256 /* more are a prefill's */
};

/* A piece: sixteen ranks of a part, some rows of a segment, one split of the depth. */
struct shrink_piece {
    int32_t first, count; /* rows, as they stand in `order` */
    int32_t tile, split;
    int32_t begin, end;     /* of the depth */
    const __nv_bfloat16 *a; /* the lane's row g, at its first element of a step */
    bool is_there[2];       /* row g, row g + 8 */
};

template <int NT>
static __device__ __forceinline__ shrink_piece find_shrink(const lore_cuda_lora_task &t,
                                                           const int32_t *sums, int32_t turn)
{
    const int32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    shrink_piece p;
    p.split = turn % t.splits;
    const int32_t unit = turn / t.splits;
    const int32_t which = lore_find_sequence(sums, t.rows.segments, unit);
    const lore_lora_segment s = lore_lora_find_segment(t, which);
    const int32_t tiles = lore_lora_tiles_of(s, LORE_LORA_PARTS_MAX), own = unit - sums[which];
    p.first = s.start + own / tiles * 8 * NT;
    p.count = min(s.start + s.count - p.first, 8 * NT);
    p.tile = own % tiles;
    int32_t sizes[LORE_LORA_PARTS_MAX], tile = p.tile;
#pragma unroll
    for (int i = 0; i < LORE_LORA_PARTS_MAX; i++) {
        sizes[i] = lore_lora_tiles(s.ranks[i]);
    }
    const lore_lora_part *part = s.product->parts + lore_lora_find_part(sizes, &tile);
    const int32_t left = __ldcg(&part->rank) - tile * LORE_LORA_TILE;
    const int64_t row = __ldcg(&part->rank_start) + tile * LORE_LORA_TILE + (g < left ? g : 0);
    p.is_there[0] = g < left;
    p.is_there[1] = g + 8 < left;
    p.a = (const __nv_bfloat16 *)lore_lora_load_pointer(&s.product->a) + row * t.depth + 8 * q;
    p.begin = p.split * t.chunk;
    p.end = min(p.begin + t.chunk, t.depth);
    return p;
}

/* A lane's part of a step of A into its own place; only it reads it there. */
static __device__ __forceinline__ void fetch_a(const lore_cuda_lora_task &t, const shrink_piece &p,
                                               int32_t at, uint4 *slot)
{
    const int32_t q = threadIdx.x % 4;
    if (at < p.begin + t.chunk) { /* else the place is the next piece's */
#pragma unroll
        for (int i = 0; i < PIECES; i++) { /* half i / 2, row g or g + 8 */
            const int32_t k = at + i / 2 * 32;
            const bool is_there = k + 8 * q < p.end && p.is_there[i % 2];
            lore_copy_async_line(slot + i * LORE_LORA_THREADS,
                                 is_there ? p.a + i % 2 * (int64_t)8 * t.depth + k : p.a, is_there);
        }
    }
    lore_copy_commit(); /* an empty one too: the waits count */
}

/* Eight neighbours of a row as operands; of f32, what they add to the row's squares. */
static __device__ __forceinline__ uint4 load_eight(const __nv_bfloat16 *x, const float *, float *)
{
    return *(const uint4 *)x;
}

static __device__ __forceinline__ uint4 load_eight(const float *x, const float *norm,
                                                   float *squares)
{
    float4 a = lore_load4(x), b = lore_load4(x + 4);
    *squares += (a.x * a.x + a.y * a.y) + (a.z * a.z + a.w * a.w);
    *squares += (b.x * b.x + b.y * b.y) + (b.z * b.z + b.w * b.w);
    if (norm != NULL) {
        const float4 c = lore_load4(norm), d = lore_load4(norm + 4);
        a = make_float4(a.x * c.x, a.y * c.y, a.z * c.z, a.w * c.w);
        b = make_float4(b.x * d.x, b.y * d.y, b.z * d.z, b.w * d.w);
    }
    return make_uint4(lore_pack_bf16(a.x, a.y), lore_pack_bf16(a.z, a.w), lore_pack_bf16(b.x, b.y),
                      lore_pack_bf16(b.z, b.w));
}

/* A step of x: both halves, of rows g of each eight. */
template <typename X, int NT> struct shrink_rows {
    const X *from[NT]; /* NULL: there is none */
    uint4 next[NT][2];
    float squares[NT];
};

template <typename X, int NT>
static __device__ __forceinline__ void load_rows(const lore_cuda_lora_task &t,
                                                 const shrink_piece &p, int32_t at,
                                                 shrink_rows<X, NT> *r)
{
    const int32_t q = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < NT; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int32_t k = at + 32 * half + 8 * q;
            r->next[i][half] =
                r->from[i] != NULL && k < p.end
                    ? load_eight(r->from[i] + k, t.norm != NULL ? t.norm + k : NULL, &r->squares[i])
                    : make_uint4(0, 0, 0, 0);
        }
    }
}

/* d[i] are sixteen ranks of the rows 8i .. 8i + 7, this warp's share of the depth. */
template <typename X, int NT>
static __device__ __forceinline__ void shrink_sums(const lore_cuda_lora_task &t,
                                                   const shrink_piece &p, uint4 *slot,
                                                   float d[NT][4], float squares[NT])
{
    const int32_t g = threadIdx.x % 32 / 4, warp = threadIdx.x / 32;
    const int32_t first = p.begin + warp * LORE_LORA_STEP,
                  steps = t.chunk / (LORE_LORA_WARPS * LORE_LORA_STEP);
    shrink_rows<X, NT> r;
#pragma unroll
    for (int i = 0; i < NT; i++) {
        const bool is_there = 8 * i + g < p.count;
        const int64_t row = is_there ? __ldcg(t.rows.order + p.first + 8 * i + g) : 0;
        r.from[i] = is_there ? (const X *)(const void *)t.x.data + row * t.x.stride : NULL;
        r.squares[i] = 0.0f;
        d[i][0] = d[i][1] = d[i][2] = d[i][3] = 0.0f;
    }
    load_rows(t, p, first, &r);
#pragma unroll 1
    for (int32_t step = 0; step < steps; step++) {
        uint4 now[NT][2];
        uint4 *own = slot + step % STAGES * PIECES * LORE_LORA_THREADS;
#pragma unroll
        for (int i = 0; i < NT; i++) {
            now[i][0] = r.next[i][0];
            now[i][1] = r.next[i][1];
        }
        if (step + 1 < steps) {
            load_rows(t, p, first + (step + 1) * LORE_LORA_WARPS * LORE_LORA_STEP, &r);
        }
        lore_copy_wait<STAGES - 1>();
        __syncwarp();
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint4 low = own[2 * half * LORE_LORA_THREADS],
                        high = own[(2 * half + 1) * LORE_LORA_THREADS];
            const uint32_t one[4] = {low.x, high.x, low.y, high.y};
            const uint32_t two[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
            for (int i = 0; i < NT; i++) {
                if (8 * i < p.count) { /* of all lanes alike */
                    lore_mma(d[i], one, now[i][half].x, now[i][half].y);
                    lore_mma(d[i], two, now[i][half].z, now[i][half].w);
                }
            }
        }
        fetch_a(t, p, first + (step + STAGES) * LORE_LORA_WARPS * LORE_LORA_STEP, own);
    }
#pragma unroll
    for (int i = 0; i < NT; i++) {
        squares[i] = r.squares[i];
    }
}

/* The warps' shares become one. `shared` has room for them, [LORE_LORA_WARPS][8 NT][LORE_LORA_TILE
 * + 1] and then, of squares, [LORE_LORA_WARPS][8 NT]. */
template <typename X, int NT>
static __device__ __forceinline__ void shrink_put(const lore_cuda_lora_task &t,
                                                  const shrink_piece &p, const float d[NT][4],
                                                  float squares[NT], float *shared)
{
    constexpr int WIDE = LORE_LORA_TILE + 1, COUNT = 8 * NT;
    const int32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4, warp = threadIdx.x / 32;
    float *parts = shared + LORE_LORA_WARPS * COUNT * WIDE;
#pragma unroll
    for (int i = 0; i < NT; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) { /* rank g or g + 8, row 2q or 2q + 1 */
            shared[(warp * COUNT + 8 * i + 2 * q + j % 2) * WIDE + g + j / 2 * 8] = d[i][j];
        }
        if (t.norm != NULL) {
            squares[i] += __shfl_xor_sync(0xffffffffu, squares[i], 1);
            squares[i] += __shfl_xor_sync(0xffffffffu, squares[i], 2);
            if (q == 0) {
                parts[warp * COUNT + 8 * i + g] = squares[i];
            }
        }
    }
    __syncthreads();
    const int64_t row = (int64_t)p.split * t.row_count + p.first;
#pragma unroll 1
    for (int32_t i = (int32_t)threadIdx.x; i < p.count * LORE_LORA_TILE; i += LORE_LORA_THREADS) {
        t.v[(row + i / LORE_LORA_TILE) * t.v_stride + p.tile * LORE_LORA_TILE +
            i % LORE_LORA_TILE] =
            lore_sum_warps<LORE_LORA_WARPS, WIDE>(shared, COUNT, i / LORE_LORA_TILE,
                                                  i % LORE_LORA_TILE);
    }
    if (t.norm != NULL && p.tile == 0 && (int32_t)threadIdx.x < p.count) {
        t.squares[row + threadIdx.x] =
            lore_sum_warps<LORE_LORA_WARPS, 1>(parts, COUNT, threadIdx.x, 0);
    }
    __syncthreads(); /* the next piece writes there */
}

template <int NT> static size_t shrink_shared_bytes(const lore_cuda_lora_task &t)
{
    const size_t sums = (size_t)LORE_LORA_WARPS * 8 * NT * (LORE_LORA_TILE + 2) * sizeof(float);
    return (size_t)STAGES * PIECES * LORE_LORA_THREADS * sizeof(uint4) + sums +
           ((size_t)t.rows.segments + 1) * sizeof(int32_t);
}

template <typename X, int NT>
static __global__ void __launch_bounds__(LORE_LORA_THREADS, NT > 1 ? PREFILL_BLOCKS : SHRINK_BLOCKS)
    shrink_kernel(lore_cuda_lora_task t)
{
    extern __shared__ uint4 memory[];
    uint4 *slot = memory + threadIdx.x;
    float *shared = (float *)(memory + STAGES * PIECES * LORE_LORA_THREADS);
    int32_t *sums = (int32_t *)(shared + LORE_LORA_WARPS * 8 * NT * (LORE_LORA_TILE + 2));
#pragma unroll 1
    for (int32_t i = (int32_t)threadIdx.x; i < t.rows.segments; i += LORE_LORA_THREADS) {
        const lore_lora_segment s = lore_lora_find_segment(t, i);
        const int32_t groups = (s.count + 8 * NT - 1) / (8 * NT);
        sums[i + 1] = groups * lore_lora_tiles_of(s, LORE_LORA_PARTS_MAX);
    }
    lore_lora_add_up(sums, t.rows.segments);
    const int32_t turns = sums[t.rows.segments] * t.splits;
    const int32_t warp = (int32_t)threadIdx.x / 32;
    bool is_first = true;
    for (int32_t turn = (int32_t)blockIdx.x; turn < turns; turn += (int32_t)gridDim.x) {
        const shrink_piece p = find_shrink<NT>(t, sums, turn);
        float d[NT][4], squares[NT];
#pragma unroll
        for (int i = 0; i < STAGES; i++) {
            fetch_a(t, p, p.begin + (warp + i * LORE_LORA_WARPS) * LORE_LORA_STEP,
                    slot + i * PIECES * LORE_LORA_THREADS);
        }
        if (is_first) {
            lore_cuda_release();
            lore_cuda_wait();
            lore_lora_write_fresh(t);
            is_first = false;
        }
        shrink_sums<X, NT>(t, p, slot, d, squares);
        shrink_put<X, NT>(t, p, d, squares, shared);
    }
    if (is_first) {
        lore_cuda_release();
        lore_cuda_wait();
        lore_lora_write_fresh(t);
    }
    lore_copy_wait<0>();
}

/* Any depth, any alignment, any dtype: a warp has a rank of a row. One split. */
template <typename T>
static __global__ void __launch_bounds__(LORE_LORA_THREADS) shrink_any_kernel(lore_cuda_lora_task t)
{
    const int32_t lane = (int32_t)threadIdx.x % 32;
    const int32_t at = (int32_t)blockIdx.x;
    lore_cuda_release();
    lore_cuda_wait();
    lore_lora_write_fresh(t);
    if (at >= __ldcg(t.rows.starts + t.rows.segments)) {
        return;
    }
    const lore_lora_segment s =
        lore_lora_find_segment(t, lore_find_sequence(t.rows.starts, t.rows.segments, at));
    const int32_t row = __ldcg(t.rows.order + at);
    const int32_t columns = lore_lora_tiles_of(s, LORE_LORA_PARTS_MAX) * LORE_LORA_TILE;
    const T *a = columns > 0 ? (const T *)lore_lora_load_pointer(&s.product->a) : NULL;
    for (int32_t c = (int32_t)threadIdx.x / 32; c < columns; c += LORE_LORA_WARPS) {
        int32_t sizes[LORE_LORA_PARTS_MAX], own = c;
#pragma unroll
        for (int i = 0; i < LORE_LORA_PARTS_MAX; i++) {
            sizes[i] = lore_lora_tiles(s.ranks[i]) * LORE_LORA_TILE;
        }
        const lore_lora_part *part = s.product->parts + lore_lora_find_part(sizes, &own);
        const bool is_there = own < __ldcg(&part->rank);
        const T *from = a + (int64_t)(is_there ? __ldcg(&part->rank_start) + own : 0) * t.depth;
        float sum = 0.0f, squares = 0.0f;
        for (int32_t k = lane; k < t.depth; k += 32) {
            const float x = lore_read(t.x, row, k);
            squares += x * x;
            sum += is_there ? (t.norm != NULL ? x * t.norm[k] : x) * lore_to_f32(from[k]) : 0.0f;
        }
        sum = lore_warp_sum(sum);
        squares = lore_warp_sum(squares);
        if (lane == 0) {
            t.v[(int64_t)at * t.v_stride + c] = sum;
            if (t.norm != NULL && c == 0) {
                t.squares[at] = squares;
            }
        }
    }
}

/* ---- launching ---- */

template <typename X, int NT>
static cudaError_t launch_shrink(lore_queue *queue, const lore_cuda_lora_task &t,
                                 const lore_lora *lora)
{
    const int32_t segments = min(t.rows.segments, t.row_count);
    const int64_t groups = segments + t.row_count / (8 * NT);
    return lore_cuda_launch(
        queue, shrink_kernel<X, NT>,
        lore_cuda_lora_blocks(queue, groups * lore_cuda_lora_tiles_max(lora) * t.splits,
                              NT > 1 ? PREFILL_BLOCKS : SHRINK_BLOCKS),
        dim3(LORE_LORA_THREADS), shrink_shared_bytes<NT>(t), t);
}

template <typename X>
static cudaError_t launch_shrink_of(lore_queue *queue, const lore_cuda_lora_task &t,
                                    const lore_lora *lora)
{
    return t.row_count <= DECODE_ROWS ? launch_shrink<X, 1>(queue, t, lora)
                                      : launch_shrink<X, 4>(queue, t, lora);
}

cudaError_t lore_cuda_shrink(lore_queue *queue, const lore_cuda_lora_task *t, const lore_lora *lora)
{
    return t->x.dtype == LORE_BF16 ? launch_shrink_of<__nv_bfloat16>(queue, *t, lora)
                                   : launch_shrink_of<float>(queue, *t, lora);
}

cudaError_t lore_cuda_shrink_any(lore_queue *queue, const lore_cuda_lora_task *t, lore_dtype dtype)
{
    const dim3 grid((unsigned)t->row_count), block(LORE_LORA_THREADS);
    return dtype == LORE_F32
               ? lore_cuda_launch(queue, shrink_any_kernel<float>, grid, block, 0, *t)
               : lore_cuda_launch(queue, shrink_any_kernel<__nv_bfloat16>, grid, block, 0, *t);
}
