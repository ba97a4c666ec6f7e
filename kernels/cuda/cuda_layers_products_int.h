/* The products of cuda_layers.cu: the ring of weights, the rows that meet them, and where sums go.
 */
#ifndef LORE_KERNELS_CUDA_LAYERS_PRODUCTS_INT_H
#define LORE_KERNELS_CUDA_LAYERS_PRODUCTS_INT_H

#include "kernels/cuda/cuda_layers_int.h"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* ---- the ring ---- */

struct ring {
    char *memory; /* [slots, CHUNK] */
    uint64_t *full, *empty;
    int32_t slots, slot;
    uint32_t parity;
};

static __device__ __forceinline__ void go_on(ring *r)
{
    r->slot++;
    if (r->slot == r->slots) {
        r->slot = 0;
        r->parity ^= 1;
    }
}

static __device__ __forceinline__ void copy_bulk(void *to, const void *from, uint32_t bytes,
                                                 uint64_t *barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(lore_shared_address(to)),
                 "l"(from), "r"(bytes), "r"(lore_shared_address(barrier))
                 : "memory");
}

enum { QKV = 0, OUT, GATE_UP, DOWN, PRODUCTS };

struct matrix {
    const bf16 *w;
    int32_t depth, outs, tiles;
    bool is_gated;
};

static __device__ __forceinline__ matrix matrix_of(const layers_task &t, int32_t layer, int which,
                                                   int32_t head_dim)
{
    const layer_data &l = t.layers[layer];
    const int32_t mixed = t.heads * head_dim, qkv = mixed + 2 * t.kv_heads * head_dim;
    switch (which) {
    case QKV:
        return {l.qkv, t.width, qkv, (qkv + TILE - 1) / TILE, false};
    case OUT:
        return {l.out, mixed, t.width, (t.width + TILE - 1) / TILE, false};
    case GATE_UP:
        return {l.gate_up, t.width, t.ffn, (t.ffn + TILE / 2 - 1) / (TILE / 2), true};
    default:
        return {l.down, t.ffn, t.width, (t.width + TILE - 1) / TILE, false};
    }
}

/* The first tile of this block in a matrix, where `before` tiles have gone round. */
static __device__ __forceinline__ int32_t first_tile(int32_t before)
{
    const int32_t tile = (int32_t)blockIdx.x - before;
    return tile < 0 ? tile + (int32_t)gridDim.x : tile;
}

/* The warp that copies: all that this block will multiply, in order. */
static __device__ void copy_weights(const layers_task &t, ring r, int32_t head_dim)
{
    const int32_t lane = threadIdx.x % 32;
    int32_t before = 0, asked = 0;
    ring landed = r;
    for (int32_t i = 0; i < PRODUCTS * t.count; i++) {
        const matrix m = matrix_of(t, i / PRODUCTS, i % PRODUCTS, head_dim);
        for (int32_t tile = first_tile(before); tile < m.tiles; tile += (int32_t)gridDim.x) {
            for (int32_t k = 0; k < m.depth; k += COLS) {
                const uint32_t bytes = 2u * (uint32_t)(m.depth - k < COLS ? m.depth - k : COLS);
                for (int32_t group = 0; group < 2; group++) {
                    const int32_t col = m.is_gated ? tile * (TILE / 2) + lane
                                                   : tile * TILE + group * (TILE / 2) + lane;
                    const bool is_there = lane < TILE / 2 && col < m.outs;
                    const uint32_t rows = (uint32_t)__popc(__ballot_sync(0xffffffffu, is_there));
                    const int64_t row = is_there ? col + (m.is_gated ? group * m.outs : 0) : 0;
                    if (asked < UNDER_WAY) {
                        asked++;
                    } else {
                        lore_barrier_wait(&landed.full[landed.slot], landed.parity);
                        go_on(&landed);
                    }
                    lore_barrier_wait(&r.empty[r.slot], r.parity ^ 1);
                    if (lane == 0) {
                        lore_barrier_expect(&r.full[r.slot], rows * bytes);
                    }
                    __syncwarp();
                    if (is_there) {
                        copy_bulk(r.memory + r.slot * CHUNK + lane * PITCH, m.w + row * m.depth + k,
                                  bytes, &r.full[r.slot]);
                    }
                    go_on(&r);
                }
            }
        }
        before = (before + m.tiles) % (int32_t)gridDim.x;
    }
}

/* ---- rows ---- */

/* Rows of f32 times the weights of their norm, rounded; squares of each row, a part a warp. */
static __device__ void load_normed(const layers_task &t, const float *norm, bf16 *to, float *parts)
{
    for (int32_t r = 0; r < t.rows; r++) {
        const float *from = t.x + r * t.x_stride;
        float squares = 0.0f;
#pragma unroll 4
        for (int32_t c = 4 * threadIdx.x; c < t.width; c += 4 * COMPUTING) {
            const float4 v = __ldcg((const float4 *)(from + c)), w = lore_load4(norm + c);
            squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
            lore_put4(to + r * (t.width + PAD) + c,
                      make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w));
        }
        squares = lore_warp_sum(squares);
        if (threadIdx.x % 32 == 0) {
            parts[r * WARPS + threadIdx.x / 32] = squares;
        }
    }
    lore_named_sync(BARRIER, COMPUTING);
}

static __device__ void load_rows(const bf16 *from, int64_t stride, int32_t rows, int32_t depth,
                                 bf16 *to)
{
    for (int32_t r = 0; r < rows; r++) {
#pragma unroll 4
        for (int32_t c = 8 * threadIdx.x; c < depth; c += 8 * COMPUTING) {
            *(uint4 *)(to + r * (depth + PAD) + c) = __ldcg((const uint4 *)(from + r * stride + c));
        }
    }
    lore_named_sync(BARRIER, COMPUTING);
}

/* ---- products ---- */

struct sums {
    float d[2][2][4]; /* of each half of a line, and group of eight outputs */
};

/* A warp's elements of a chunk by those of the rows. */
static __device__ __forceinline__ void multiply(sums *s, int group, const char *chunk,
                                                const uint4 (&x)[LINES][2], int32_t lines)
{
    const int32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const char *w = chunk + g * PITCH + threadIdx.x / 32 * 128 + q * 16;
#pragma unroll
    for (int line = 0; line < LINES; line++) {
        if (line < lines) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const uint4 v = x[line][half];
                const uint4 b = *(const uint4 *)(w + line * WARPS * 128 + half * 64);
                const uint32_t one[4] = {v.x, 0, v.y, 0}, two[4] = {v.z, 0, v.w, 0};
                lore_mma(s->d[half][group], one, b.x, b.y);
                lore_mma(s->d[half][group], two, b.z, b.w);
            }
        }
    }
}

/* Sums of a tile to where the product's go. `memory` is one of two that take turns: who writes to
 * it again has passed the barrier of the tile between. */
static __device__ void put_tile(const layers_task &t, const layer_data &l, int which,
                                const matrix &m, int32_t tile, const sums &s, float *memory,
                                const float *parts)
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    if (g < t.rows) {
#pragma unroll
        for (int i = 0; i < 4; i++) { /* group i / 2, column 2q or 2q + 1 */
            memory[(warp * t.rows + g) * WIDE + i / 2 * 8 + 2 * q + i % 2] =
                s.d[0][i / 2][i % 2] + s.d[1][i / 2][i % 2];
        }
    }
    lore_named_sync(BARRIER, COMPUTING);
    const int32_t outs = m.is_gated ? TILE / 2 : TILE;
    const int32_t row = (int32_t)threadIdx.x / outs, own = (int32_t)threadIdx.x % outs;
    const int32_t col = tile * outs + own;
    if (row >= t.rows || col >= m.outs) {
        return;
    }
    float sum = lore_sum_warps<WARPS, WIDE>(memory, t.rows, row, own);
    if (which == QKV) {
        sum *= lore_norm_factor<WARPS>(parts + row * WARPS, t.width, t.eps);
        t.qkv[row * t.qkv_stride + col] =
            __float2bfloat16_rn(l.qkv_bias != NULL ? sum + l.qkv_bias[col] : sum);
    } else if (which == GATE_UP) {
        const float factor = lore_norm_factor<WARPS>(parts + row * WARPS, t.width, t.eps);
        const float up = lore_sum_warps<WARPS, WIDE>(memory, t.rows, row, own + TILE / 2);
        t.hidden[row * t.hidden_stride + col] =
            __float2bfloat16_rn(lore_activate(sum * factor, t.activation) * up * factor);
    } else {
        float *to = t.x + row * t.x_stride + col;
        *to = __ldcg(to) + sum;
    }
}

/* The tiles of this block of a product. */
static __device__ void run_product(const layers_task &t, int32_t layer, int which, const matrix &m,
                                   int32_t before, ring *r, const bf16 *x, float *sum_memory,
                                   const float *parts)
{
    const int32_t warp = (int32_t)threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const bool is_row = g < t.rows;
    const bf16 *own = x + g * (m.depth + PAD) + warp * 64 + q * 8;
    int turn = 0;
    for (int32_t tile = first_tile(before); tile < m.tiles; tile += (int32_t)gridDim.x) {
        sums s = {};
        for (int32_t k = 0; k < m.depth; k += COLS) {
            const int32_t left = m.depth - k - warp * 64;
            const int32_t lines = left <= 0 ? 0 : (left + WARPS * 64 - 1) / (WARPS * 64);
            uint4 v[LINES][2];
#pragma unroll
            for (int i = 0; i < 2 * LINES; i++) {
                v[i / 2][i % 2] = is_row && i / 2 < lines
                                      ? *(const uint4 *)(own + k + i / 2 * WARPS * 64 + i % 2 * 32)
                                      : make_uint4(0, 0, 0, 0);
            }
#pragma unroll
            for (int group = 0; group < 2; group++) {
                lore_barrier_wait(&r->full[r->slot], r->parity);
                multiply(&s, group, r->memory + r->slot * CHUNK, v, lines);
                __syncwarp();
                lore_barrier_arrive_if(&r->empty[r->slot], threadIdx.x % 32 == 0);
                go_on(r);
            }
        }
        put_tile(t, t.layers[layer], which, m, tile, s, sum_memory + turn * WARPS * WIDE * t.rows,
                 parts);
        turn ^= 1;
    }
}

#endif

#endif
