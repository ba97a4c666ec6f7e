/* out += scale v B^T, the second half of what adapters add to a product (cuda_lora.cu).
 *
 * A piece is sixteen rows of a segment and 64 columns of a part. Warps work alone, each on a run of
 * pieces that follow one another, so that the parts of a block's tables are read once for many. B
 * comes straight into registers: lanes take four elements of a row each, so that what a warp loads
 * is whole sectors of 32 bytes, and those of the next piece are under way meanwhile. */
#include "kernels/cuda/cuda_lora_int.h"

enum {
    ROWS = 16,         /* of a piece */
    COLS = 64,         /* of a piece */
    EIGHTS = COLS / 8, /* of columns, as the tensor core takes them */
    EXPAND_BLOCKS = 4  /* of a multiprocessor */
};

/* Pieces for sixteen rows, of each part; returns of all. A piece counts as often as there are
 * sixteens in its rank, so that warps get as many bytes each. */
static __device__ __forceinline__ int32_t weigh(const lore_lora_segment &s,
                                                int32_t weights[LORE_LORA_PARTS_MAX])
{
    int32_t all = 0;
#pragma unroll
    for (int i = 0; i < LORE_LORA_PARTS_MAX; i++) {
        weights[i] = lore_lora_tiles(s.ranks[i]) * ((s.columns[i] + COLS - 1) / COLS);
        all += weights[i];
    }
    return all;
}

/* What the sums of a row, at its place in `order`, are multiplied with for its norm. */
static __device__ __forceinline__ float norm_factor(const lore_cuda_lora_task &t, int32_t at)
{
    if (t.norm == NULL) {
        return 1.0f;
    }
    float squares = 0.0f;
#pragma unroll 1
    for (int32_t i = 0; i < t.splits; i++) {
        squares += t.squares[(int64_t)i * t.row_count + at];
    }
    return 1.0f / sqrtf(squares / (float)t.depth + t.eps);
}

/* A piece: sixteen rows of a segment, 64 columns of a part; taken in sixteens of its rank. */
struct expand_piece {
    int32_t turn, end;    /* its first turn; that of the first piece of another part, or rows */
    int32_t first, count; /* rows, as they stand in `order` */
    int32_t col, columns, column_start;
    int32_t rank, steps, v_column;
    float scale;
    const __nv_bfloat16 *b;
};

/* The piece that a turn is of: it may have begun with an earlier one. */
static __device__ __forceinline__ expand_piece find_expand(const lore_cuda_lora_task &t,
                                                           const int32_t *sums, int32_t turn)
{
    const int32_t which = lore_find_sequence(sums, t.rows.segments, turn);
    const lore_lora_segment s = lore_lora_find_segment(t, which);
    int32_t weights[LORE_LORA_PARTS_MAX];
    const int32_t all = weigh(s, weights), group = (turn - sums[which]) / all;
    int32_t left = turn - sums[which] - group * all;
    const int32_t part = lore_lora_find_part(weights, &left);
    const int32_t own = part == 0 ? weights[0] : part == 1 ? weights[1] : weights[2];
    const lore_lora_part *at = s.product->parts + part;
    expand_piece p;
    p.rank = __ldcg(&at->rank);
    p.steps = lore_lora_tiles(p.rank);
    p.turn = turn - left % p.steps;
    p.end = turn - left + own;
    p.first = s.start + group * ROWS;
    p.count = min(s.start + s.count - p.first, (int32_t)ROWS);
    p.col = left / p.steps * COLS;
    p.columns = __ldcg(&at->columns);
    p.column_start = __ldcg(&at->column_start);
    p.v_column = lore_lora_tiles_of(s, part) * LORE_LORA_TILE;
    p.scale = __ldcg(&at->scale);
    p.b = (const __nv_bfloat16 *)lore_lora_load_pointer(&at->b);
    return p;
}

static __device__ __forceinline__ expand_piece next_piece(const lore_cuda_lora_task &t,
                                                          const int32_t *sums,
                                                          const expand_piece &now, int32_t turns)
{
    expand_piece p = now;
    p.turn += p.steps;
    p.col += COLS;
    return p.turn < p.end || p.turn >= turns ? p : find_expand(t, sums, p.turn);
}

/* Columns are dealt to the tensor core so that a lane gets sums of eight neighbours: column 2q or
 * 2q + 1 of the i-th eight is column 8q + 2i or 8q + 2i + 1 of 32. */
static __device__ __forceinline__ int32_t column_of(int32_t i, int32_t n)
{
    return i / 4 * 32 + n / 2 * 8 + i % 4 * 2 + n % 2;
}

/* A sixteen of the rank of 64 columns of B. Elements of a row are four or more where the rank is a
 * multiple of four; else one by one. */
static __device__ __forceinline__ void load_b(const expand_piece &p, int32_t step, uint2 b[EIGHTS])
{
    const int32_t g = threadIdx.x % 32 / 4,
                  k = step * LORE_LORA_TILE + 4 * (int32_t)(threadIdx.x % 4);
    const bool is_wide = p.rank % 4 == 0;
#pragma unroll
    for (int i = 0; i < EIGHTS; i++) {
        const int32_t col = p.col + column_of(i, g);
        const __nv_bfloat16 *from = p.b + (int64_t)col * p.rank + k;
        b[i] = make_uint2(0, 0);
        if (col < p.columns && k < p.rank) {
            if (is_wide) {
                b[i] = __ldcg((const uint2 *)from);
            } else {
                const uint16_t *bits = (const uint16_t *)from;
                b[i].x = __ldcg(bits) | (k + 1 < p.rank ? (uint32_t)__ldcg(bits + 1) << 16 : 0);
                b[i].y = (k + 2 < p.rank ? __ldcg(bits + 2) : 0) |
                         (k + 3 < p.rank ? (uint32_t)__ldcg(bits + 3) << 16 : 0);
            }
        }
    }
}

/* Four neighbours of v, summed over the splits, as operands. */
static __device__ __forceinline__ uint2 load_v(const lore_cuda_lora_task &t, int32_t at,
                                               int32_t col, bool is_there)
{
    if (!is_there) {
        return make_uint2(0, 0);
    }
    const float *from = t.v + (int64_t)at * t.v_stride + col;
    const int64_t step = (int64_t)t.row_count * t.v_stride;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
    for (int32_t i = 0; i < t.splits; i++) {
        const float4 v = *(const float4 *)(from + i * step);
        sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
    }
    return make_uint2(lore_pack_bf16(sum.x, sum.y), lore_pack_bf16(sum.z, sum.w));
}

/* Eight neighbours of a row of out get theirs. */
static __device__ __forceinline__ void add_eight(const lore_cuda_lora_task &t,
                                                 const expand_piece &p, int32_t row, int32_t col,
                                                 const float v[8])
{
    const int64_t at = (int64_t)row * t.out.stride + p.column_start + col;
    const bool is_wide = t.is_wide && p.column_start % 8 == 0 && col + 8 <= p.columns;
    if (is_wide && t.out.dtype == LORE_F32) {
        float *to = t.out.data + at;
        const float4 a = lore_load4(to), b = lore_load4(to + 4);
        lore_put4(to, make_float4(a.x + v[0], a.y + v[1], a.z + v[2], a.w + v[3]));
        lore_put4(to + 4, make_float4(b.x + v[4], b.y + v[5], b.z + v[6], b.w + v[7]));
    } else if (is_wide) {
        uint4 *to = (uint4 *)((__nv_bfloat16 *)(void *)t.out.data + at);
        const uint4 old = *to;
        const uint32_t words[4] = {old.x, old.y, old.z, old.w};
        uint32_t sums[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sums[i] = lore_pack_bf16(__uint_as_float(words[i] << 16) + v[2 * i],
                                     __uint_as_float(words[i] & 0xffff0000u) + v[2 * i + 1]);
        }
        *to = make_uint4(sums[0], sums[1], sums[2], sums[3]);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (col + i < p.columns) {
                const int32_t c = p.column_start + col + i;
                lore_write(t.out, row, c, lore_read(t.out, row, c) + v[i]);
            }
        }
    }
}

/* What a warp keeps while pieces are of the same rows and part: rows g and g + 8. */
struct held_rows {
    int32_t end; /* as that of the pieces */
    int32_t row[2];
    float factor[2];
    uint32_t v[4]; /* of a sixteen of the rank */
};

static __device__ __forceinline__ void hold_rows(const lore_cuda_lora_task &t,
                                                 const expand_piece &p, int32_t step,
                                                 held_rows *rows)
{
    const int32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const int32_t col = p.v_column + step * LORE_LORA_TILE + 4 * q;
    const bool is_new = rows->end != p.end;
    if (is_new || p.steps > 1) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int32_t at = p.first + g + 8 * half;
            const bool is_there = g + 8 * half < p.count;
            const uint2 v = load_v(t, at, col, is_there);
            rows->v[half] = v.x;
            rows->v[2 + half] = v.y;
            if (is_new && is_there) {
                rows->row[half] = __ldcg(t.rows.order + at);
                rows->factor[half] = p.scale * norm_factor(t, at);
            }
        }
        rows->end = p.end;
    }
    __syncwarp();
}

static __device__ __forceinline__ void expand_put(const lore_cuda_lora_task &t,
                                                  const expand_piece &p, const held_rows &rows,
                                                  const float d[EIGHTS][4])
{
    const int32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (g + 8 * half < p.count) {
#pragma unroll
            for (int i = 0; i < EIGHTS; i += 4) {
                float v[8];
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    v[j] = rows.factor[half] * d[i + j / 2][2 * half + j % 2];
                }
                add_eight(t, p, rows.row[half], p.col + column_of(i, 2 * q), v);
            }
        }
    }
}

/* Warps work alone, each on a run of pieces; the next B is under way meanwhile. */
static __global__ void __launch_bounds__(LORE_LORA_THREADS, EXPAND_BLOCKS)
    expand_kernel(lore_cuda_lora_task t)
{
    extern __shared__ int32_t sums[];
#pragma unroll 1
    for (int32_t i = (int32_t)threadIdx.x; i < t.rows.segments; i += LORE_LORA_THREADS) {
        const lore_lora_segment s = lore_lora_find_segment(t, i);
        int32_t weights[LORE_LORA_PARTS_MAX];
        sums[i + 1] = (s.count + ROWS - 1) / ROWS * weigh(s, weights);
    }
    lore_lora_add_up(sums, t.rows.segments);
    const int32_t turns = sums[t.rows.segments];
    const int64_t warp = (int64_t)blockIdx.x * LORE_LORA_WARPS + threadIdx.x / 32;
    const int64_t warps = (int64_t)gridDim.x * LORE_LORA_WARPS;
    const int32_t begin = (int32_t)(turns * warp / warps);
    const int32_t end = (int32_t)(turns * (warp + 1) / warps);
    expand_piece next = {};
    uint2 b[EIGHTS] = {};
    next.turn = end;
    if (begin < end) {
        next = find_expand(t, sums, begin);
        next = next.turn < begin ? next_piece(t, sums, next, turns) : next; /* a neighbour's */
    }
    int32_t step = 0;
    if (next.turn < end) {
        load_b(next, 0, b);
    }
    lore_cuda_release();
    lore_cuda_wait();
    float d[EIGHTS][4] = {};
    held_rows rows = {};
    while (next.turn < end) {
        const expand_piece p = next;
        const int32_t now = step;
        uint2 own[EIGHTS];
#pragma unroll
        for (int i = 0; i < EIGHTS; i++) {
            own[i] = b[i];
        }
        step = now + 1 < p.steps ? now + 1 : 0;
        next = step == 0 ? next_piece(t, sums, p, turns) : p;
        if (next.turn < end) {
            load_b(next, step, b);
        }
        hold_rows(t, p, now, &rows);
#pragma unroll
        for (int i = 0; i < EIGHTS; i++) {
            lore_mma(d[i], rows.v, own[i].x, own[i].y);
        }
        if (step == 0) {
            expand_put(t, p, rows, d);
#pragma unroll
            for (int i = 0; i < EIGHTS; i++) {
                d[i][0] = d[i][1] = d[i][2] = d[i][3] = 0.0f;
            }
        }
    }
}

/* Adapters in f32: a thread has a column of a row. */
static __global__ void __launch_bounds__(LORE_LORA_THREADS) expand_any_kernel(lore_cuda_lora_task t)
{
    const int32_t at = (int32_t)blockIdx.x;
    lore_cuda_release();
    lore_cuda_wait();
    if (at >= __ldcg(t.rows.starts + t.rows.segments)) {
        return;
    }
    const lore_lora_segment s =
        lore_lora_find_segment(t, lore_find_sequence(t.rows.starts, t.rows.segments, at));
    const int32_t row = __ldcg(t.rows.order + at);
    const int32_t tiles = lore_lora_tiles_of(s, LORE_LORA_PARTS_MAX);
    const int32_t parts = tiles > 0 ? s.product->part_count : 0;
    for (int32_t i = 0; i < parts; i++) {
        const lore_lora_part *part = &s.product->parts[i];
        const float *v = t.v + (int64_t)at * t.v_stride + lore_lora_tiles_of(s, i) * LORE_LORA_TILE;
        const float factor = part->scale * norm_factor(t, at);
        for (int32_t c = (int32_t)threadIdx.x; c < part->columns; c += LORE_LORA_THREADS) {
            const float *b = (const float *)part->b + (int64_t)c * part->rank;
            float sum = 0.0f;
            for (int32_t k = 0; k < part->rank; k++) {
                sum += v[k] * b[k];
            }
            const int32_t col = part->column_start + c;
            lore_write(t.out, row, col, lore_read(t.out, row, col) + factor * sum);
        }
    }
}

/* ---- launching ---- */

cudaError_t lore_cuda_expand(lore_queue *queue, const lore_cuda_lora_task *t)
{
    const int32_t segments = min(t->rows.segments, t->row_count);
    const int64_t groups = segments + t->row_count / ROWS;
    const int64_t pieces = groups * (t->out.cols / COLS + LORE_LORA_PARTS_MAX);
    return lore_cuda_launch(
        queue, expand_kernel,
        lore_cuda_lora_blocks(queue, (pieces + LORE_LORA_WARPS - 1) / LORE_LORA_WARPS,
                              EXPAND_BLOCKS),
        dim3(LORE_LORA_THREADS), ((size_t)t->rows.segments + 1) * sizeof(int32_t), *t);
}

cudaError_t lore_cuda_expand_any(lore_queue *queue, const lore_cuda_lora_task *t)
{
    return lore_cuda_launch(queue, expand_any_kernel, dim3((unsigned)t->row_count),
                            dim3(LORE_LORA_THREADS), 0, *t);
}
