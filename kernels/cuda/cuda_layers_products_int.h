/* The products of cuda_layers.cu: the ring of weights, the rows that meet them, and where sums go.
 */
#ifndef LORE_KERNELS_CUDA_LAYERS_PRODUCTS_INT_H
#define LORE_KERNELS_CUDA_LAYERS_PRODUCTS_INT_H

#include "kernels/cuda/cuda_layers_packets_int.h"

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

/* Where a block is in all that it will multiply: chunk after chunk, tile after tile. */
struct place {
    int32_t product, before, tile, k, group;
    matrix m;
};

static __device__ __forceinline__ bool is_behind_all(const layers_task &t, const place &p)
{
    return p.product == PRODUCTS * t.count;
}

/* The first tile of this block from the product on. */
static __device__ __forceinline__ void find_tile(const layers_task &t, int32_t head_dim, place *p)
{
    while (p->tile >= p->m.tiles) {
        p->before = (p->before + p->m.tiles) % (int32_t)gridDim.x;
        p->product++;
        if (is_behind_all(t, *p)) {
            return;
        }
        p->m = matrix_of(t, p->product / PRODUCTS, p->product % PRODUCTS, head_dim);
        p->tile = first_tile(p->before);
    }
}

static __device__ __forceinline__ void go_on(const layers_task &t, int32_t head_dim, place *p)
{
    p->group ^= 1;
    if (p->group == 0) {
        p->k += COLS;
    }
    if (p->k >= p->m.depth) {
        p->k = 0;
        p->tile += (int32_t)gridDim.x;
        find_tile(t, head_dim, p);
    }
}

/* A chunk's rows in memory: a lane has one, or none (NULL). */
struct chunk_row {
    const bf16 *from;
    uint32_t bytes;
};

static __device__ __forceinline__ chunk_row row_of(const place &p)
{
    const int32_t lane = threadIdx.x % 32, half = TILE / 2;
    const int32_t col = p.m.is_gated ? p.tile * half + lane : p.tile * TILE + p.group * half + lane;
    const int32_t row = col + (p.m.is_gated ? p.group * p.m.outs : 0);
    const bool is_there = lane < half && col < p.m.outs;
    const int32_t left = p.m.depth - p.k;
    return {is_there ? p.m.w + (int64_t)row * p.m.depth + p.k : NULL,
            2u * (uint32_t)(left < COLS ? left : COLS)};
}

/* What is asked for beyond the ring, to wait in the second cache: `ahead` chunks up to `far`. */
struct stock {
    place far;
    int32_t ahead;
    uint32_t last; /* when something was asked of memory */
};

static __device__ __forceinline__ uint32_t now()
{
    uint32_t cycles = 0;
    asm volatile("mov.u32 %0, %clock;" : "=r"(cycles));
    return cycles;
}

static __device__ __forceinline__ void fill_stock(const layers_task &t, int32_t head_dim, stock *s)
{
    if (s->ahead >= STOCK || is_behind_all(t, s->far) || now() - s->last < PACE) {
        return;
    }
    const chunk_row row = row_of(s->far);
    if (row.from != NULL) {
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(row.from), "r"(row.bytes)
                     : "memory");
    }
    s->last = now();
    s->ahead++;
    go_on(t, head_dim, &s->far);
}

static __device__ __forceinline__ bool has_come(uint64_t *barrier, uint32_t parity)
{
    uint32_t is_complete = 0;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.b32 %0, 1, 0, p;\n"
                 "}"
                 : "=r"(is_complete)
                 : "r"(lore_shared_address(barrier)), "r"(parity)
                 : "memory");
    return __all_sync(0xffffffffu, is_complete != 0);
}

/* The warp that copies: all that this block will multiply, in order. */
static __device__ void copy_weights(const layers_task &t, ring r, int32_t head_dim)
{
    const int32_t lane = threadIdx.x % 32;
    int32_t asked = 0;
    ring landed = r;
    place p = {0, 0, first_tile(0), 0, 0, matrix_of(t, 0, 0, head_dim)};
    find_tile(t, head_dim, &p);
    stock s = {p, 0, now()};
    while (!is_behind_all(t, p)) {
        const chunk_row row = row_of(p);
        const uint32_t rows = (uint32_t)__popc(__ballot_sync(0xffffffffu, row.from != NULL));
        fill_stock(t, head_dim, &s);
        if (asked < UNDER_WAY) {
            asked++;
        } else {
            while (!has_come(&landed.full[landed.slot], landed.parity)) {
                fill_stock(t, head_dim, &s);
            }
            go_on(&landed);
        }
        while (!has_come(&r.empty[r.slot], r.parity ^ 1)) {
            fill_stock(t, head_dim, &s);
        }
        if (lane == 0) {
            lore_barrier_expect(&r.full[r.slot], rows * row.bytes);
        }
        __syncwarp();
        if (row.from != NULL) {
            copy_bulk(r.memory + r.slot * CHUNK + lane * PITCH, row.from, row.bytes,
                      &r.full[r.slot]);
        }
        go_on(&r);
        go_on(t, head_dim, &p);
        if (s.ahead > 0) {
            s.ahead--;
        } else {
            s.far = p;
            s.last = now();
        }
    }
}

/* ---- rows ---- */

/* Rows of x times the weights of a norm, rounded; squares of each row, a part a warp. packets NULL:
 * x as it came. */
static __device__ void load_normed(const layers_task &t, const uint64_t *packets, uint32_t tag,
                                   const float *norm, bf16 *to, float *parts)
{
    constexpr int N = 8;
    const int32_t count = t.width / 2;
    for (int32_t r = 0; r < t.rows; r++) {
        float squares = 0.0f;
        for (int32_t base = (int32_t)threadIdx.x; base < count; base += N * COMPUTING) {
            float2 w[N];
            uint2 v[N];
#pragma unroll
            for (int i = 0; i < N; i++) {
                const int32_t at = base + i * COMPUTING;
                w[i] = at < count ? *(const float2 *)(norm + 2 * at) : make_float2(0.0f, 0.0f);
            }
            if (packets != NULL) {
                read_pairs<N>(packets + (int64_t)r * t.width, base, COMPUTING, count, tag, v);
            } else {
#pragma unroll
                for (int i = 0; i < N; i++) {
                    const int32_t at = base + i * COMPUTING;
                    v[i] = at < count ? __ldcg((const uint2 *)(t.x + r * t.x_stride + 2 * at))
                                      : make_uint2(0, 0);
                }
            }
#pragma unroll
            for (int i = 0; i < N; i++) {
                const int32_t at = base + i * COMPUTING;
                const float x = __uint_as_float(v[i].x), y = __uint_as_float(v[i].y);
                squares += x * x + y * y;
                if (at < count) {
                    *(uint32_t *)(to + r * (t.width + PAD) + 2 * at) =
                        lore_pack_bf16(x * w[i].x, y * w[i].y);
                }
            }
        }
        squares = lore_warp_sum(squares);
        if (threadIdx.x % 32 == 0) {
            parts[r * WARPS + threadIdx.x / 32] = squares;
        }
    }
    lore_named_sync(BARRIER, COMPUTING);
}

static __device__ void load_rows(const uint64_t *packets, uint32_t tag, int32_t rows, int32_t depth,
                                 bf16 *to)
{
    constexpr int N = 8;
    const int32_t count = depth / 4;
    for (int32_t r = 0; r < rows; r++) {
        for (int32_t base = (int32_t)threadIdx.x; base < count; base += N * COMPUTING) {
            uint2 v[N];
            read_pairs<N>(packets + (int64_t)r * depth / 2, base, COMPUTING, count, tag, v);
#pragma unroll
            for (int i = 0; i < N; i++) {
                const int32_t at = base + i * COMPUTING;
                if (at < count) {
                    *(uint2 *)(to + r * (depth + PAD) + 4 * at) = v[i];
                }
            }
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

/* The element of a tile that a thread adds up and puts; residuals are asked for with its weights.
 */
struct element {
    int32_t row, own, col;
    bool is_there;
    const uint64_t *from; /* the residual's packet; NULL: none, or x as it came */
    uint64_t residual;
};

static __device__ __forceinline__ element element_of(const layers_task &t, int32_t layer, int which,
                                                     const matrix &m, int32_t tile)
{
    const int32_t outs = m.is_gated ? TILE / 2 : TILE;
    element e = {(int32_t)threadIdx.x / outs, (int32_t)threadIdx.x % outs, 0, false, NULL, 0};
    e.col = tile * outs + e.own;
    e.is_there = e.row < t.rows && e.col < m.outs;
    if (!e.is_there || which == QKV || which == GATE_UP) {
        return e;
    }
    if (which == OUT && layer == 0) {
        e.residual = __float_as_uint(__ldcg(t.x + e.row * t.x_stride + e.col));
        return e;
    }
    e.from = (which == OUT ? t.passed : t.attended) + (int64_t)e.row * t.width + e.col;
    e.residual = read_packet(e.from);
    return e;
}

/* Sums of a tile to where the product's go. `memory` is one of two that take turns: who writes to
 * it again has passed the barrier of the tile between. */
static __device__ void put_tile(const layers_task &t, int32_t layer, uint32_t tag, int which,
                                const matrix &m, const element &e, const sums &s, float *memory,
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
    if (threadIdx.x >= ROWS_MAX * TILE) {
        return;
    }
    float sum = e.is_there ? lore_sum_warps<WARPS, WIDE>(memory, t.rows, e.row, e.own) : 0.0f;
    if (which == OUT || which == DOWN) {
        if (!e.is_there) {
            return;
        }
        const uint32_t before = which == OUT ? tag - 1 : tag;
        sum += e.from != NULL ? float_of(e.residual, e.from, before)
                              : __uint_as_float((uint32_t)e.residual);
        if (which == DOWN && layer == t.count - 1) {
            t.x[e.row * t.x_stride + e.col] = sum;
        } else {
            put_packet((which == OUT ? t.attended : t.passed) + (int64_t)e.row * t.width + e.col,
                       __float_as_uint(sum), tag);
        }
        return;
    }
    if (e.is_there) {
        const float factor = lore_norm_factor<WARPS>(parts + e.row * WARPS, t.width, t.eps);
        if (which == QKV) {
            const float *bias = t.layers[layer].qkv_bias;
            sum = bias != NULL ? sum * factor + bias[e.col] : sum * factor;
        } else {
            const float up = lore_sum_warps<WARPS, WIDE>(memory, t.rows, e.row, e.own + TILE / 2);
            sum = lore_activate(sum * factor, t.activation) * up * factor;
        }
    }
    const float next = __shfl_down_sync(0xffffffffu, sum, 1);
    if (e.is_there && e.col % 2 == 0) {
        put_packet((which == QKV ? t.qkv : t.hidden) + ((int64_t)e.row * m.outs + e.col) / 2,
                   lore_pack_bf16(sum, next), tag);
    }
}

/* The tiles of this block of a product. */
static __device__ void run_product(const layers_task &t, int32_t layer, uint32_t tag, int which,
                                   const matrix &m, int32_t before, ring *r, const bf16 *x,
                                   float *sum_memory, const float *parts)
{
    const int32_t warp = (int32_t)threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const bool is_row = g < t.rows;
    const bf16 *own = x + g * (m.depth + PAD) + warp * 64 + q * 8;
    int turn = 0;
    for (int32_t tile = first_tile(before); tile < m.tiles; tile += (int32_t)gridDim.x) {
        const element e = element_of(t, layer, which, m, tile);
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
        put_tile(t, layer, tag, which, m, e, s, sum_memory + turn * WARPS * WIDE * t.rows, parts);
        turn ^= 1;
    }
}

#endif

#endif
