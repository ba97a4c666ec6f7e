/* Matrix products of few rows (decoding). Weights are read once and are nearly all the bytes:
 * memory bandwidth is the bound, and it is reached by bytes under way. 4.5 TB/s at about a
 * microsecond of latency are 4.5 MB, 34 KB a multiprocessor; two blocks of 48 KB each have them
 * there from before the kernel may begin (cuda_int.h) to its last tile. The next kernel may begin
 * when all lines have been asked for. At once, its blocks would stand where there happens to be
 * room, and multiprocessors with three of them end last: with lines of half the size 28,672 outputs
 * of one row, one product after another, took 77 us so, and 57 this way.
 *
 * A block takes tiles of sixteen rows of w, every gridDim-th; all blocks take the same number, so
 * that they end together. Its warps take turns at lines (128 bytes) of those rows. A lane copies 16
 * bytes of a row into a place of its own in shared memory, STAGES lines ahead, and it alone reads
 * them there: between the copy and the tensor core stands no barrier. Tiles follow one another in
 * the same pipeline.
 *
 * On the tensor core w is the operand of eight columns and x that of sixteen rows. Lane (g = lane /
 * 4, q = lane % 4) of a product holds depths 2q, 2q+1, 2q+8, 2q+9 of row g of either. The order of
 * the depth inside a sum is free, so its 16 bytes are used as they come: both operands take
 * elements 8q .. 8q+3 for one product and 8q+4 .. 8q+7 for the next.
 *
 * x is bf16, read where it is. Up to F32_ROWS rows of f32 are rounded by each block into shared
 * memory, and normed on the way: the weights of the norm are multiplied in there, and the length of
 * the row, summed meanwhile, divides the sums of the product. A gated product takes eight rows of
 * gate and the same eight of up for a tile.
 *
 * Whole numbers of 8 bits become bf16 in registers: 128 + the low seven bits is 0x4300 | bits, and
 * -128 or -256, as the sign says, is 0xc300 | sign; their sum is exact. */
#include "kernels/cuda/cuda_matmul_int.h"

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    EACH = 2,             /* blocks of a multiprocessor */
    STAGES = 3,           /* lines under way */
    LINE = 128,           /* bytes of a row that a warp takes at a time */
    PIECES = 4,           /* of 16 bytes, of a lane: two halves of a line of two rows */
    WIDE = 17,            /* sums of a row: sixteen, and one that keeps rows in different banks */
    F32_ROWS = 4,         /* more would read x from the cache as often as w from memory */
    F32_BYTES = 40 << 10, /* beside the lines this fits a block of any device */
    ROWS = 8,             /* of bf16: with more, x takes as much of the cache's bandwidth as w */
    ROWS_INT8 = 16,       /* where the other way is to widen w first */
    PAD = 32 /* elements behind a rounded row: two rows then begin in different banks */
};

typedef struct few {
    lore_cuda_finish finish;
    const char *w;
    int64_t row_bytes;
    int32_t outs, second; /* columns of out; rows of w between the two that a lane reads */
    int32_t tiles, depth, rows;
    const __nv_bfloat16 *x; /* or NULL: f32 */
    const float *raw, *norm;
    int64_t x_stride;
    float eps;
    const float *added; /* as lore_cuda_few */
} few;

static __device__ __forceinline__ void prefetch(const void *at)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}

/* ---- weights, ahead ---- */

/* Where a lane's next line is. */
struct reader {
    int32_t tile, line;
    const char *from[2];
    bool is_there[2];
};

template <bool is_gated>
static __device__ __forceinline__ void aim(const few &f, reader *r, int32_t tile)
{
    const int32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const int32_t col = tile * (is_gated ? 8 : 16) + g;
    r->tile = tile;
    r->line = (int32_t)threadIdx.x / 32;
    r->is_there[0] = tile < f.tiles && col < f.outs;
    r->is_there[1] = tile < f.tiles && col + (is_gated ? 0 : 8) < f.outs;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int64_t row = r->is_there[i] ? col + i * f.second : 0;
        r->from[i] = f.w + row * f.row_bytes + 16 * q;
    }
}

/* Copy the line and go on to the next, of the next tile where this one has no more. `slot` is the
 * lane's first place of the stage. */
template <bool is_gated>
static __device__ __forceinline__ void fetch(const few &f, reader *r, int32_t steps, uint4 *slot)
{
    const int32_t q = threadIdx.x % 4;
    const int64_t at = (int64_t)r->line * LINE;
    if (r->tile < f.tiles) {
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const bool is_inside = at + i / 2 * 64 + 16 * q < f.row_bytes;
            const bool is_there = is_inside && r->is_there[i % 2];
            lore_copy_async_line(slot + i * THREADS,
                                 is_there ? r->from[i % 2] + at + i / 2 * 64 : f.w, is_there);
        }
        r->line += WARPS;
        if (r->line >= steps * WARPS) {
            aim<is_gated>(f, r, r->tile + (int32_t)gridDim.x);
        }
    }
    lore_copy_commit(); /* an empty group too: the waits count */
}

/* ---- rows ---- */

/* A lane's part of a line of x: `per` elements of each half, of rows g and, where there are more
 * than eight, g + 8. */
template <typename W, int EIGHTS> struct operand {
    static constexpr int per = 16 / (int)sizeof(W);
    uint4 v[EIGHTS][2][per / 8];
};

/* `x` is the lane's own first element of row g; `rows` are those from g on. */
template <typename W, int EIGHTS>
static __device__ __forceinline__ void load_x(const __nv_bfloat16 *x, int64_t stride, int32_t rows,
                                              int32_t depth, int32_t line, operand<W, EIGHTS> *o)
{
    constexpr int per = operand<W, EIGHTS>::per;
    depth -= (int32_t)(threadIdx.x % 4) * per;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int32_t k = (line * 8 + half * 4) * per;
#pragma unroll
        for (int i = 0; i < EIGHTS; i++) {
            const bool is_there = k < depth && 8 * i < rows;
#pragma unroll
            for (int j = 0; j < per / 8; j++) {
                o->v[i][half][j] = is_there ? *(const uint4 *)(x + 8 * i * stride + k + 8 * j)
                                            : make_uint4(0, 0, 0, 0);
            }
        }
    }
}

/* Rows of f32 into shared memory, rounded; what divides them, as one part a warp. */
static __device__ void round_x(const few &f, __nv_bfloat16 *to, float (*parts)[WARPS])
{
    for (int32_t r = 0; r < f.rows; r++) {
        const float *from = f.raw + r * f.x_stride;
        float squares = 0.0f;
#pragma unroll 4
        for (int32_t c = 4 * threadIdx.x; c < f.depth; c += 4 * THREADS) {
            float4 v = lore_load4(from + c);
            squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
            if (f.norm != NULL) {
                const float4 w = lore_load4(f.norm + c);
                v = make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w);
            }
            lore_put4(to + r * (f.depth + PAD) + c, v);
        }
        squares = lore_warp_sum(squares);
        if (threadIdx.x % 32 == 0) {
            parts[r][threadIdx.x / 32] = squares;
        }
    }
    __syncthreads();
}

/* ---- sums ---- */

/* Two bytes, 0 and 1 or 2 and 3 of a word, as they are or as bf16. */
static __device__ __forceinline__ uint32_t widen(uint32_t four, uint32_t which)
{
    const uint32_t two = __byte_perm(four, 0, which);
    const uint32_t low = (two & 0x007f007fu) | 0x43004300u,
                   high = (two & 0x00800080u) | 0xc300c300u;
    __nv_bfloat162 a, b;
    memcpy(&a, &low, sizeof a);
    memcpy(&b, &high, sizeof b);
    const __nv_bfloat162 sum = __hadd2(a, b);
    uint32_t bits;
    memcpy(&bits, &sum, sizeof bits);
    return bits;
}

/* The i-th eight elements of a lane's 16 bytes, as operands. */
static __device__ __forceinline__ uint4 weights_of(const uint4 &piece, int, const __nv_bfloat16 *)
{
    return piece;
}

static __device__ __forceinline__ uint4 weights_of(const uint4 &piece, int i, const int8_t *)
{
    const uint32_t first = i == 0 ? piece.x : piece.z, second = i == 0 ? piece.y : piece.w;
    return make_uint4(widen(first, 0x4140), widen(first, 0x4342), widen(second, 0x4140),
                      widen(second, 0x4342));
}

/* d += x w over a line: d[group] are sixteen rows of x times eight of w. */
template <typename W, int EIGHTS>
static __device__ __forceinline__ void multiply(float d[2][4], const operand<W, EIGHTS> &x,
                                                const uint4 *slot)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
#pragma unroll
        for (int group = 0; group < 2; group++) {
            const uint4 piece = slot[(half * 2 + group) * THREADS];
#pragma unroll
            for (int j = 0; j < operand<W, EIGHTS>::per / 8; j++) {
                const uint4 w = weights_of(piece, j, (const W *)NULL);
                const uint4 low = x.v[0][half][j];
                const uint4 high = EIGHTS > 1 ? x.v[EIGHTS - 1][half][j] : make_uint4(0, 0, 0, 0);
                const uint32_t one[4] = {low.x, high.x, low.y, high.y};
                const uint32_t two[4] = {low.z, high.z, low.w, high.w};
                lore_mma(d[group], one, w.x, w.y);
                lore_mma(d[group], two, w.z, w.w);
            }
        }
    }
}

/* The warps' sums of a tile become outputs. `sums` is one of two that take turns, so that a tile
 * needs one barrier: who writes to it again has passed the barrier of the tile between. */
template <bool is_gated>
static __device__ __forceinline__ void put_tile(const few &f, const float d[2][4], int32_t tile,
                                                float *sums, const float (*parts)[WARPS])
{
    constexpr int OUTS = is_gated ? 8 : 16;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 8; i++) { /* group i / 4, row g or g + 8, column 2q or 2q + 1 */
        const int32_t row = g + i / 2 % 2 * 8;
        if (row < f.rows) {
            sums[(warp * f.rows + row) * WIDE + i / 4 * 8 + 2 * q + i % 2] = d[i / 4][i % 4];
        }
    }
    __syncthreads();
    if ((int32_t)threadIdx.x < f.rows * OUTS) {
        const int32_t row = threadIdx.x / OUTS, own = threadIdx.x % OUTS, col = tile * OUTS + own;
        const float factor =
            f.norm != NULL ? lore_norm_factor<WARPS>(parts[row], f.depth, f.eps) : 1.0f;
        const float sum = factor * lore_sum_warps<WARPS, WIDE>(sums, f.rows, row, own);
        if (col < f.outs && !is_gated) {
            lore_cuda_store(f.finish, row, col, sum);
        } else if (col < f.outs) {
            const float other = factor * lore_sum_warps<WARPS, WIDE>(sums, f.rows, row, own + 8);
            float gate = lore_cuda_finished(f.finish, col, sum, LORE_ACT_NONE);
            float up = lore_cuda_finished(f.finish, f.outs + col, other, LORE_ACT_NONE);
            if (f.added != NULL) {
                gate += f.added[(int64_t)row * 2 * f.outs + col];
                up += f.added[(int64_t)row * 2 * f.outs + f.outs + col];
            }
            lore_write(f.finish.out, row, col, lore_activate(gate, f.finish.activation) * up);
        }
    }
}

/* ---- the kernel ---- */

/* Shared memory: lines, two turns of sums, rounded rows and what divides them. */
static size_t shared_bytes_of(const few &f)
{
    const size_t lines = (size_t)STAGES * PIECES * THREADS * 16;
    const size_t sums = 2 * sizeof(float) * WARPS * WIDE * (size_t)f.rows;
    const size_t rounded = (size_t)f.rows * (size_t)(f.depth + PAD) * sizeof(__nv_bfloat16);
    return lines + (f.x != NULL ? 0 : rounded) + sums;
}

template <typename W, int EIGHTS, bool is_gated>
static __global__ void __launch_bounds__(THREADS, sizeof(W) == 1 ? 2 : 4) few_kernel(few f)
{
    extern __shared__ uint4 memory[];
    __shared__ float parts[F32_ROWS][WARPS];
    __nv_bfloat16 *rounded = (__nv_bfloat16 *)(memory + STAGES * PIECES * THREADS);
    float *sums = (float *)(f.x != NULL ? rounded : rounded + f.rows * (f.depth + PAD));
    uint4 *slot = memory + threadIdx.x;
    const int32_t warp = (int32_t)threadIdx.x / 32;
    const int32_t lines = (int32_t)((f.row_bytes + LINE - 1) / LINE);
    const int32_t steps = (lines + WARPS - 1) / WARPS;
    reader r;
    aim<is_gated>(f, &r, (int32_t)blockIdx.x);
#pragma unroll
    for (int i = 0; i < STAGES; i++) {
        fetch<is_gated>(f, &r, steps, slot + i * PIECES * THREADS);
    }
    bool is_released = r.tile >= f.tiles;
    if (is_released) {
        lore_cuda_release();
    }
    for (int32_t c = 32 * threadIdx.x; f.norm != NULL && c < f.depth; c += 32 * THREADS) {
        prefetch(f.norm + c);
    }
    lore_cuda_wait();
    if (f.x == NULL) {
        round_x(f, rounded, parts);
    }
    const int32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const int64_t stride = f.x != NULL ? f.x_stride : f.depth + PAD;
    const __nv_bfloat16 *x =
        (f.x != NULL ? f.x : rounded) + g * stride + q * operand<W, EIGHTS>::per;
    operand<W, EIGHTS> next;
    load_x(x, stride, f.rows - g, f.depth, warp, &next);
    int stage = 0, turn = 0;
    for (int32_t tile = (int32_t)blockIdx.x; tile < f.tiles; tile += (int32_t)gridDim.x) {
        float d[2][4] = {};
        for (int32_t step = 1; step <= steps; step++) {
            const operand<W, EIGHTS> now = next;
            load_x(x, stride, f.rows - g, f.depth, (step < steps ? step * WARPS : 0) + warp, &next);
            lore_copy_wait<STAGES - 1>();
            multiply(d, now, slot + stage * PIECES * THREADS);
            fetch<is_gated>(f, &r, steps, slot + stage * PIECES * THREADS);
            if (!is_released && r.tile >= f.tiles) {
                lore_cuda_release();
                is_released = true;
            }
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        put_tile<is_gated>(f, d, tile, sums + turn * WARPS * WIDE * f.rows, parts);
        turn ^= 1;
    }
    lore_copy_wait<0>();
}

/* ---- launching ---- */

bool lore_cuda_few_takes(const lore_cuda_weight *w, int32_t rows)
{
    return (w->dtype == LORE_BF16 && w->base.cols % 8 == 0 && rows <= ROWS) ||
           (w->dtype == LORE_I8 && w->base.cols % 16 == 0 && rows <= ROWS_INT8);
}

bool lore_cuda_few_takes_f32(int32_t rows, int32_t depth)
{
    return rows <= F32_ROWS && (int64_t)rows * depth <= F32_BYTES / (int64_t)sizeof(__nv_bfloat16);
}

template <typename W, int EIGHTS>
static cudaError_t launch(lore_queue *queue, const few &f, bool is_gated)
{
    /* as few rounds as fill the device, and then no more blocks than these rounds need */
    const int32_t most = EACH * lore_cuda_backend_of(queue)->processors;
    const int32_t rounds = (f.tiles + most - 1) / most;
    const dim3 grid((unsigned)((f.tiles + rounds - 1) / rounds));
    return is_gated ? lore_cuda_launch(queue, few_kernel<W, EIGHTS, true>, grid, dim3(THREADS),
                                       shared_bytes_of(f), f)
                    : lore_cuda_launch(queue, few_kernel<W, EIGHTS, false>, grid, dim3(THREADS),
                                       shared_bytes_of(f), f);
}

cudaError_t lore_cuda_few_rows(lore_queue *queue, const lore_cuda_few *few_rows)
{
    const lore_view x = few_rows->x;
    const lore_cuda_weight *w = few_rows->w;
    const bool is_gated = few_rows->is_gated, is_bf16 = x.dtype == LORE_BF16;
    LORE_ASSERT(x.rows > 0 && lore_cuda_few_takes(w, x.rows));
    LORE_ASSERT(is_bf16 ? few_rows->norm == NULL : lore_cuda_few_takes_f32(x.rows, x.cols));
    few f = {};
    f.finish = few_rows->finish;
    f.w = (const char *)w->values;
    f.row_bytes = (int64_t)x.cols * (int64_t)lore_dtype_size(w->dtype);
    f.outs = f.finish.out.cols;
    f.second = is_gated ? f.outs : 8;
    f.tiles = is_gated ? (f.outs + 7) / 8 : (f.outs + 15) / 16;
    f.depth = x.cols;
    f.rows = x.rows;
    f.x = is_bf16 ? lore_cuda_bf16(x) : NULL;
    f.raw = is_bf16 ? NULL : x.data;
    f.x_stride = x.stride;
    f.norm = few_rows->norm;
    f.eps = few_rows->eps;
    f.added = few_rows->added;
    LORE_ASSERT(f.added == NULL || is_gated);
    if (w->dtype == LORE_BF16) {
        return launch<__nv_bfloat16, 1>(queue, f, is_gated);
    }
    return x.rows <= 8 ? launch<int8_t, 1>(queue, f, is_gated)
                       : launch<int8_t, 2>(queue, f, is_gated);
}
