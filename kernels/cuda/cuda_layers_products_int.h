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

static __device__ __forceinline__ matrix matrix_of(const layers_task &t, const layer_data &l,
                                                   int which, int32_t head_dim)
{
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

/* One thread of a warp that has come together. */
static __device__ __forceinline__ bool is_elected()
{
    uint32_t is_one = 0;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "elect.sync _|p, 0xffffffff;\n"
                 "selp.b32 %0, 1, 0, p;\n"
                 "}"
                 : "=r"(is_one));
    return is_one != 0;
}

/* The warp that copies: all that this block will multiply, in order. Every tile is whole. */
static __device__ void copy_weights(const layers_task &t, const layer_data *layers, ring r,
                                    int32_t head_dim)
{
    int32_t before = 0, asked = 0;
    ring landed = r;
    for (int32_t i = 0; i < PRODUCTS * t.count; i++) {
        const matrix m = matrix_of(t, layers[i / PRODUCTS], i % PRODUCTS, head_dim);
        const int64_t next = m.is_gated ? m.outs : HALF_TILE; /* rows to the other half of a tile */
        for (int32_t tile = first_tile(before); tile < m.tiles; tile += (int32_t)gridDim.x) {
            for (int32_t k = 0; k < m.depth; k += COLS) {
                const uint32_t bytes = 2u * (uint32_t)(m.depth - k < COLS ? m.depth - k : COLS);
                for (int32_t half = 0; half < 2; half++) {
                    const int64_t row =
                        (int64_t)tile * (m.is_gated ? HALF_TILE : TILE) + half * next;
                    const bf16 *from = m.w + row * m.depth + k;
                    if (asked < UNDER_WAY) {
                        asked++;
                    } else {
                        lore_barrier_wait(&landed.full[landed.slot], landed.parity);
                        go_on(&landed);
                    }
                    lore_barrier_wait(&r.empty[r.slot], r.parity ^ 1);
                    __syncwarp();
                    if (is_elected()) {
                        lore_barrier_expect(&r.full[r.slot], HALF_TILE * bytes);
#pragma unroll
                        for (int j = 0; j < HALF_TILE; j++) {
                            copy_bulk(r.memory + r.slot * CHUNK + j * PITCH,
                                      from + (int64_t)j * m.depth, bytes, &r.full[r.slot]);
                        }
                    }
                    __syncwarp();
                    go_on(&r);
                }
            }
        }
        before = (before + m.tiles) % (int32_t)gridDim.x;
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

/* Sums of tiles on their way from the warps that compute to the one that puts them. */
struct sums_ring {
    float *memory; /* [TURNS, WARPS, n, WIDE] */
    uint64_t *full, *empty;
    int32_t turn;
    uint32_t parity;
};

static __device__ __forceinline__ void go_on(sums_ring *s)
{
    s->turn++;
    if (s->turn == TURNS) {
        s->turn = 0;
        s->parity ^= 1;
    }
}

/* A warp's sums of a tile: outputs g and g + 8 of the rows 2q and 2q + 1. */
static __device__ __forceinline__ void leave_sums(const layers_task &t, sums_ring *s,
                                                  const float (&d)[4][4])
{
    const int32_t warp = (int32_t)threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    lore_barrier_wait(&s->empty[s->turn], s->parity ^ 1);
    float *to = s->memory + (s->turn * WARPS + warp) * t.rows * WIDE;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int32_t row = 2 * q + i % 2;
        if (row < t.rows) {
            to[row * WIDE + g + i / 2 * HALF_TILE] = (d[0][i] + d[1][i]) + (d[2][i] + d[3][i]);
        }
    }
    __syncwarp();
    lore_barrier_arrive_if(&s->full[s->turn], threadIdx.x % 32 == 0);
    go_on(s);
}

/* A lane's weights of a line in both halves of a tile, as they lie in shared memory. */
struct weights {
    uint4 low[LINES][2], high[LINES][2];
};

static __device__ __forceinline__ void load_chunk(ring *r, uint4 (&to)[LINES][2])
{
    const int32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    lore_barrier_wait(&r->full[r->slot], r->parity);
    const char *from = r->memory + r->slot * CHUNK + g * PITCH + threadIdx.x / 32 * 128 + q * 16;
#pragma unroll
    for (int i = 0; i < 2 * LINES; i++) {
        to[i / 2][i % 2] = *(const uint4 *)(from + i / 2 * WARPS * 128 + i % 2 * 64);
    }
    __syncwarp();
    lore_barrier_arrive_if(&r->empty[r->slot], threadIdx.x % 32 == 0);
    go_on(r);
}

/* The tiles of this block of a product: weights are the first operand, sixteen rows of them, and
 * the rows of x the other. Elements 8q .. 8q + 7 of 32 are a lane's; both operands have them in the
 * same order, whatever that is. */
static __device__ void run_product(const layers_task &t, const matrix &m, int32_t before, ring *r,
                                   const bf16 *x, sums_ring *s)
{
    const int32_t warp = (int32_t)threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const bool is_row = g < t.rows;
    const bf16 *own = x + g * (m.depth + PAD) + warp * 64 + q * 8;
    for (int32_t tile = first_tile(before); tile < m.tiles; tile += (int32_t)gridDim.x) {
        float d[4][4] = {};
        for (int32_t k = 0; k < m.depth; k += COLS) {
            const int32_t left = m.depth - k - warp * 64;
            const int32_t lines = left <= 0 ? 0 : (left + WARPS * 64 - 1) / (WARPS * 64);
            weights w;
            uint4 v[LINES][2];
#pragma unroll
            for (int i = 0; i < 2 * LINES; i++) {
                v[i / 2][i % 2] = is_row && i / 2 < lines
                                      ? *(const uint4 *)(own + k + i / 2 * WARPS * 64 + i % 2 * 32)
                                      : make_uint4(0, 0, 0, 0);
            }
            load_chunk(r, w.low);
            load_chunk(r, w.high);
#pragma unroll
            for (int i = 0; i < 2 * LINES; i++) {
                if (i / 2 < lines) { /* else its memory may hold anything */
                    const uint4 a = w.low[i / 2][i % 2], b = w.high[i / 2][i % 2];
                    const uint4 c = v[i / 2][i % 2];
                    const uint32_t one[4] = {a.x, b.x, a.y, b.y}, two[4] = {a.z, b.z, a.w, b.w};
                    lore_mma(d[i % 2 * 2], one, c.x, c.y);
                    lore_mma(d[i % 2 * 2 + 1], two, c.z, c.w);
                }
            }
        }
        leave_sums(t, s, d);
    }
}

/* ---- where sums go ---- */

/* The element of a tile that a lane adds up and puts. */
struct element {
    int32_t row, own, col;
    bool is_there;
    const uint64_t *from; /* the residual's packet; NULL: none, or x as it came */
    uint64_t residual;    /* asked for before the sums are there */
};

static __device__ __forceinline__ element element_of(const layers_task &t, int32_t layer, int which,
                                                     const matrix &m, int32_t tile, int32_t pass)
{
    const int32_t outs = m.is_gated ? HALF_TILE : TILE;
    const int32_t i = pass * 32 + (int32_t)threadIdx.x % 32;
    element e = {i / outs, i % outs, tile * outs + i % outs, i / outs < t.rows, NULL, 0};
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

static __device__ __forceinline__ void put_residual(const layers_task &t, int32_t layer,
                                                    uint32_t tag, int which, const element &e,
                                                    float sum)
{
    sum += e.from != NULL ? float_of(e.residual, e.from, which == OUT ? tag - 1 : tag)
                          : __uint_as_float((uint32_t)e.residual);
    if (which == DOWN && layer == t.count - 1) {
        t.x[e.row * t.x_stride + e.col] = sum;
    } else {
        put_packet((which == OUT ? t.attended : t.passed) + (int64_t)e.row * t.width + e.col,
                   __float_as_uint(sum), tag);
    }
}

/* Elements of a tile from the warps' sums; squares: those of its rows, a part a warp. */
static __device__ __forceinline__ void put_element(const layers_task &t, const layer_data &l,
                                                   int32_t layer, uint32_t tag, int which,
                                                   const matrix &m, const element &e,
                                                   const float *sums, const float *squares)
{
    float sum = e.is_there ? lore_sum_warps<WARPS, WIDE>(sums, t.rows, e.row, e.own) : 0.0f;
    if (which == OUT || which == DOWN) {
        if (e.is_there) {
            put_residual(t, layer, tag, which, e, sum);
        }
        return;
    }
    if (e.is_there) {
        const float factor = lore_norm_factor<WARPS>(squares + e.row * WARPS, t.width, t.eps);
        sum *= factor;
        if (which == QKV) {
            sum += l.qkv_bias != NULL ? l.qkv_bias[e.col] : 0.0f;
        } else {
            const float up = lore_sum_warps<WARPS, WIDE>(sums, t.rows, e.row, e.own + HALF_TILE);
            sum = lore_activate(sum, t.activation) * up * factor;
        }
    }
    const float next = __shfl_down_sync(0xffffffffu, sum, 1);
    if (e.is_there && e.col % 2 == 0) {
        put_packet((which == QKV ? t.qkv : t.hidden) + ((int64_t)e.row * m.outs + e.col) / 2,
                   lore_pack_bf16(sum, next), tag);
    }
}

/* The warp that puts: all sums of this block, in order. */
static __device__ void put_sums(const layers_task &t, const layer_data *layers, uint32_t epoch,
                                sums_ring s, const float (*squares)[ROWS_MAX * WARPS],
                                int32_t head_dim)
{
    constexpr int PASSES = ROWS_MAX * TILE / 32;
    int32_t before = 0;
    for (int32_t i = 0; i < PRODUCTS * t.count; i++) {
        const int32_t layer = i / PRODUCTS, which = i % PRODUCTS;
        const uint32_t tag = epoch + 1 + (uint32_t)layer;
        const matrix m = matrix_of(t, layers[layer], which, head_dim);
        const int32_t passes = (t.rows * (m.is_gated ? HALF_TILE : TILE) + 31) / 32;
        for (int32_t tile = first_tile(before); tile < m.tiles; tile += (int32_t)gridDim.x) {
            element e[PASSES];
#pragma unroll
            for (int pass = 0; pass < PASSES; pass++) {
                if (pass < passes) {
                    e[pass] = element_of(t, layer, which, m, tile, pass);
                }
            }
            lore_barrier_wait(&s.full[s.turn], s.parity);
#pragma unroll
            for (int pass = 0; pass < PASSES; pass++) {
                if (pass < passes) {
                    put_element(t, layers[layer], layer, tag, which, m, e[pass],
                                s.memory + s.turn * WARPS * t.rows * WIDE, squares[which / 2]);
                }
            }
            __syncwarp();
            lore_barrier_arrive_if(&s.empty[s.turn], threadIdx.x % 32 == 0);
            go_on(&s);
        }
        before = (before + m.tiles) % (int32_t)gridDim.x;
    }
}

#endif

#endif
