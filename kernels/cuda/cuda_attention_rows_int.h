/* What the kernels of attention by mma share (cuda_attention_tiles.cu, cuda_attention_wide.cu): a
 * warp has 16 rows in registers, takes keys and values from tiles in shared memory and has the
 * running softmax in between.
 *
 * Sources: Dao 2023 (FlashAttention-2). Scores of NaN or +inf make a row NaN, as ops.h says: fmaxf
 * passes them by, exp does not. */
#ifndef LORE_KERNELS_CUDA_ATTENTION_ROWS_INT_H
#define LORE_KERNELS_CUDA_ATTENTION_ROWS_INT_H

#include "kernels/cuda/cuda_attention_int.h"

enum {
    WARPS = 4, /* of a block */
    PAD = 8    /* elements behind a row of a tile: rows then begin in different banks */
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

/* ---- 16 rows ---- */

/* The rows of a sequence: where they begin, how many, and the tokens before them. */
struct sequence_rows {
    int32_t start, count, past;
};

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
                                                    const sequence_rows &of, int32_t kv_head,
                                                    int32_t first)
{
    const int lane = threadIdx.x % 32, q = lane % 4;
    const T *queries = (const T *)a.q.data + of.start * a.q.stride + (int64_t)kv_head * a.group * E;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t m = first + lane / 4 + 8 * i;
        const bool is_there = m / a.group < of.count;
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
static __device__ __forceinline__ void load_rows(const lore_attend &a, rows16<E> *r,
                                                 const sequence_rows &of, int32_t kv_head,
                                                 int32_t first)
{
    if (a.q.dtype == LORE_F32) {
        load_queries<E, float>(a, r, of, kv_head, first);
    } else {
        load_queries<E, __nv_bfloat16>(a, r, of, kv_head, first);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t token = (first + (int32_t)threadIdx.x % 32 / 4 + 8 * i) / a.group;
        r->range[i] =
            token < of.count ? lore_seen(a, of.past + token, of.past + of.count) : make_int2(0, 0);
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

/* Scores of the rows against KEYS keys; the first is that of position `first`. */
template <int E, int KEYS>
static __device__ __forceinline__ void score_keys(const lore_attend &a, const rows16<E> &r,
                                                  const __nv_bfloat16 (*keys)[E + PAD],
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
            load_matrices(b, &keys[8 * n + lane % 8 + lane / 16 * 8][16 * k + lane / 8 % 2 * 8]);
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
                                                  const __nv_bfloat16 (*values)[E + PAD])
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
            load_transposed(b, &values[8 * n + lane % 8 + lane / 8 % 2 * 8][8 * c + lane / 16 * 8]);
            lore_mma(r->sum[c], p, b[0], b[1]);
            lore_mma(r->sum[c + 1], p, b[2], b[3]);
        }
    }
}

/* Lanes have summed the weights of their own keys; four of them share a row. */
template <int E> static __device__ __forceinline__ void join_totals(rows16<E> *r)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        r->total[i] += __shfl_xor_sync(0xffffffffu, r->total[i], 1);
        r->total[i] += __shfl_xor_sync(0xffffffffu, r->total[i], 2);
    }
}

/* Where row m of a sequence and key/value head goes. */
template <int E>
static __device__ __forceinline__ int64_t out_offset(const lore_attend &a, const sequence_rows &of,
                                                     int32_t kv_head, int32_t m)
{
    return (int64_t)(of.start + m / a.group) * a.out.stride +
           (int64_t)(kv_head * a.group + m % a.group) * E;
}

#endif
