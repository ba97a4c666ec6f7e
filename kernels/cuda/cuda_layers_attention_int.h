/* The attention of cuda_layers.cu. A unit is a sequence, a head of keys and a part of the keys,
 * with all queries of the group; where heads have several parts each has a block of its own, and
 * the blocks of a head add them up together, always in the same order. Heads are normed and rotated
 * by who needs them, the new key and value written by who has the last part. What earlier steps
 * have written is asked for while the product before is computed, and loaded before its rows are
 * there.
 *
 * Scores and sums are products on the tensor cores, of which a warp makes eight keys' at a time:
 * first queries by keys, whose result is, lane by lane, the operand that sums the values up.
 *
 * Source: Flash-Decoding, Dao et al. 2023, for the parts. */
#ifndef LORE_KERNELS_CUDA_LAYERS_ATTENTION_INT_H
#define LORE_KERNELS_CUDA_LAYERS_ATTENTION_INT_H

#include "kernels/cuda/cuda_layers_packets_int.h"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* ---- heads ---- */

/* A head normed and rotated: put(i, value) takes its elements. One warp. */
template <int E, typename Put>
static __device__ __forceinline__ void rotate_head(const layers_task &t, const bf16 *head,
                                                   const float *norm, const float *cosine,
                                                   const float *sine, Put put)
{
    const int32_t half = t.rope.dim / 2, lane = threadIdx.x % 32;
    float scale = 1.0f;
    if (norm != NULL) {
        float squares = 0.0f;
        for (int32_t i = lane; i < E; i += 32) {
            const float value = __bfloat162float(head[i]);
            squares += value * value;
        }
        scale = 1.0f / sqrtf(lore_warp_sum(squares) / (float)E + t.eps);
    }
    for (int32_t i = lane; i < half; i += 32) {
        const float c = cosine[i], s = sine[i];
        const float a = __bfloat162float(head[i]) * scale * (norm != NULL ? norm[i] : 1.0f);
        const float b =
            __bfloat162float(head[i + half]) * scale * (norm != NULL ? norm[i + half] : 1.0f);
        put(i, a * c - b * s);
        put(i + half, b * c + a * s);
    }
    for (int32_t i = t.rope.dim + lane; i < E; i += 32) {
        put(i, __bfloat162float(head[i]) * scale * (norm != NULL ? norm[i] : 1.0f));
    }
}

template <int E>
static __device__ __forceinline__ int64_t key_offset(const layers_task &t, const kept &k,
                                                     int32_t sequence, int32_t kv_head,
                                                     int32_t position)
{
    const int32_t index = position / t.page_tokens;
    const int64_t page = sequence == k.sequence && index < k.page_count
                             ? k.pages[index]
                             : t.pages[t.page_start[sequence] + index];
    return ((page * t.kv_heads + kv_head) * t.page_tokens + position % t.page_tokens) * E;
}

/* A unit: a part of the keys of a sequence's head. */
struct unit {
    int32_t sequence, kv_head, position, begin, end;
};

static __device__ __forceinline__ unit unit_of(const layers_task &t, const kept &k, int32_t window,
                                               int32_t index)
{
    const int32_t pair = index / t.parts, sequence = pair / t.kv_heads;
    const int32_t position = k.position[sequence];
    const int32_t first = window > 0 && position >= window ? position - window + 1 : 0;
    const int32_t each = (position + 1 - first + t.parts - 1) / t.parts;
    const int32_t begin = first + index % t.parts * each;
    const int32_t end = begin + each < position + 1 ? begin + each : position + 1;
    return {sequence, pair % t.kv_heads, position, begin, end};
}

/* Ask for the keys and values of earlier steps that this block will look at. */
template <int E>
static __device__ void ask_for_keys(const layers_task &t, const layer_data &l, const kept &k)
{
    constexpr int EACH = (E * (int)sizeof(bf16) + 127) / 128; /* lines of the cache, of a key */
    const int32_t units = t.rows * t.kv_heads * t.parts;
    for (int32_t index = (int32_t)blockIdx.x; index < units; index += (int32_t)gridDim.x) {
        const unit u = unit_of(t, k, l.window, index);
        const int32_t end = u.end < u.position ? u.end : u.position;
        for (int32_t i = (int32_t)threadIdx.x; i < (end - u.begin) * EACH; i += COMPUTING) {
            const int64_t at =
                key_offset<E>(t, k, u.sequence, u.kv_head, u.begin + i / EACH) + i % EACH * 64;
            ask_for(l.keys + at);
            ask_for(l.values + at);
        }
    }
}

/* And for the weights of the next norms: each block some lines. */
template <int E>
static __device__ void ask_for_norms(const layers_task &t, const layer_data *layers, int32_t layer)
{
    const int32_t each = 32, lines = t.width / each; /* floats in a line of the cache */
    const int32_t i = (int32_t)(blockIdx.x * COMPUTING + threadIdx.x);
    if (i < E / each && layers[layer].q_norm != NULL) {
        ask_for(layers[layer].q_norm + i * each);
    }
    if (i < E / each && layers[layer].k_norm != NULL) {
        ask_for(layers[layer].k_norm + i * each);
    }
    if (i < lines) {
        ask_for(layers[layer].ffn_norm + i * each);
    } else if (i < 2 * lines && layer + 1 < t.count) {
        ask_for(layers[layer + 1].attention_norm + (i - lines) * each);
    }
}

/* The unit's heads of the row, queries, and key and value where it has those, to `raw`
 * [group + 2, E]. */
template <int E>
static __device__ __forceinline__ void load_heads(const layers_task &t, const unit &u, uint32_t tag,
                                                  int32_t heads, bf16 *raw)
{
    const uint64_t *row = t.qkv + (int64_t)u.sequence * (t.heads + 2 * t.kv_heads) * E / 2;
    for (int32_t i = 4 * (int32_t)threadIdx.x; i < heads * E; i += 4 * COMPUTING) {
        const int32_t h = i / E;
        const int32_t from = h < t.group ? u.kv_head * t.group + h
                                         : t.heads + (h - t.group) * t.kv_heads + u.kv_head;
        uint2 v[1];
        read_pairs<1>(row, (from * E + i % E) / 4, 1, INT32_MAX, tag, v);
        *(uint2 *)(raw + i) = v[0];
    }
    lore_named_sync(BARRIER, COMPUTING);
}

/* From query to query in shared memory, in elements: lanes of two meet different banks. */
template <int E> static constexpr int QUERY = E + 32;

/* Queries of the unit to `queries` [group, QUERY]; the new key and value to their page, and to
 * `fresh` [2, E], by the unit that has them. */
template <int E>
static __device__ void rotate_heads(const layers_task &t, const layer_data &l, const kept &k,
                                    const unit &u, uint32_t tag, bf16 *queries, bf16 *fresh,
                                    bf16 *raw)
{
    const float *cosine = k.cosine[u.sequence], *sine = k.sine[u.sequence];
    const bool has_last = u.begin <= u.position && u.end == u.position + 1;
    const int32_t count = t.group + (has_last ? 2 : 0);
    load_heads<E>(t, u, tag, count, raw);
    for (int32_t j = (int32_t)threadIdx.x / 32; j < count; j += WARPS) {
        const bf16 *head = raw + j * E;
        const int64_t at = key_offset<E>(t, k, u.sequence, u.kv_head, u.position);
        if (j < t.group) {
            bf16 *to = queries + j * QUERY<E>;
            rotate_head<E>(t, head, l.q_norm, cosine, sine,
                           [&](int32_t i, float v) { to[i] = __float2bfloat16_rn(v); });
        } else if (j == t.group) {
            bf16 *to = l.keys + at;
            rotate_head<E>(t, head, l.k_norm, cosine, sine,
                           [&](int32_t i, float v) { fresh[i] = to[i] = __float2bfloat16_rn(v); });
        } else {
            for (int32_t i = threadIdx.x % 32; i < E; i += 32) {
                fresh[E + i] = l.values[at + i] = head[i];
            }
        }
    }
    lore_named_sync(BARRIER, COMPUTING);
}

/* ---- keys ---- */

/* Eight keys of a warp as operands: of key g the elements 8q .. 8q + 7 of each 32; of the values of
 * keys 2q and 2q + 1 the elements from g E/8 on. */
template <int E> struct ahead {
    static constexpr int PIECES = E / 32, WORDS = E / 16;
    uint4 keys[PIECES];
    uint32_t values[2][WORDS];
};

/* What the heads of a group have of the keys so far. A lane has the largest score of head g and the
 * weights of its own keys, and the sums of elements g E/8 + j of the heads 2q and 2q + 1. */
template <int E> struct state {
    float largest, total;
    float mixed[E / 16][4]; /* j of head 2q, of 2q + 1; j + E/16 of both */
};

template <int E>
static __device__ __forceinline__ void copy_values(uint32_t (&to)[E / 16], const bf16 *from)
{
    if (E == 32) {
        const uint2 v = *(const uint2 *)from;
        to[0] = v.x, to[1] = v.y;
    } else {
#pragma unroll
        for (int i = 0; i < E / 64; i++) {
            const uint4 v = ((const uint4 *)from)[i];
            to[4 * i] = v.x, to[4 * i + 1] = v.y, to[4 * i + 2] = v.z, to[4 * i + 3] = v.w;
        }
    }
}

/* Keys at base .. base + 63 that earlier steps have written, zeros for others. They never change
 * while this kernel runs. */
template <int E>
static __device__ __forceinline__ void load_keys(const layers_task &t, const layer_data &l,
                                                 const kept &k, const unit &u, int32_t base,
                                                 ahead<E> *a)
{
    const int32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const int32_t end = u.end < u.position ? u.end : u.position;
    const int32_t first = base + (int32_t)threadIdx.x / 32 * 8;
    *a = {};
    if (first + g < end) {
        const bf16 *from = l.keys + key_offset<E>(t, k, u.sequence, u.kv_head, first + g) + q * 8;
#pragma unroll
        for (int i = 0; i < ahead<E>::PIECES; i++) {
            a->keys[i] = *(const uint4 *)(from + i * 32);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t position = first + 2 * q + i;
        if (position < end) {
            copy_values<E>(a->values[i], l.values +
                                             key_offset<E>(t, k, u.sequence, u.kv_head, position) +
                                             g * (E / 8));
        }
    }
}

/* The key and value of this step, where they are among the keys from `base` on. */
template <int E>
static __device__ __forceinline__ void take_fresh(const unit &u, int32_t base, const bf16 *fresh,
                                                  ahead<E> *a)
{
    const int32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const int32_t own = u.position - base - (int32_t)threadIdx.x / 32 * 8;
    if (u.position >= u.end) {
        return;
    }
    if (own == g) {
#pragma unroll
        for (int i = 0; i < ahead<E>::PIECES; i++) {
            a->keys[i] = *(const uint4 *)(fresh + i * 32 + q * 8);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (own == 2 * q + i) {
            copy_values<E>(a->values[i], fresh + E + g * (E / 8));
        }
    }
}

/* Scores of head g with the keys 2q and 2q + 1. */
template <int E>
static __device__ __forceinline__ float2 score(const layers_task &t, const bf16 *queries,
                                               const ahead<E> &a)
{
    const int32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    float d[2][4] = {};
#pragma unroll
    for (int i = 0; i < ahead<E>::PIECES; i++) {
        const uint4 v = g < t.group ? *(const uint4 *)(queries + g * QUERY<E> + i * 32 + q * 8)
                                    : make_uint4(0, 0, 0, 0);
        const uint32_t one[4] = {v.x, 0, v.y, 0}, two[4] = {v.z, 0, v.w, 0};
        lore_mma(d[0], one, a.keys[i].x, a.keys[i].y);
        lore_mma(d[1], two, a.keys[i].z, a.keys[i].w);
    }
    return make_float2((d[0][0] + d[1][0]) * t.factor, (d[0][1] + d[1][1]) * t.factor);
}

/* Eight keys of the warp and their values are added, those below u.end of the ones from base on. */
template <int E>
static __device__ __forceinline__ void add_keys(const layers_task &t, const unit &u, int32_t base,
                                                const bf16 *queries, const ahead<E> &a, state<E> *s)
{
    const int32_t q = threadIdx.x % 4;
    const int32_t position = base + (int32_t)threadIdx.x / 32 * 8 + 2 * q;
    float2 p = score<E>(t, queries, a);
    p.x = position < u.end ? p.x : -INFINITY;
    p.y = position + 1 < u.end ? p.y : -INFINITY;
    float now = fmaxf(p.x, p.y);
    now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 1));
    now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 2));
    now = fmaxf(now, s->largest);
    const float against = lore_score_base(now), kept = exp2f(s->largest - against);
    p = make_float2(exp2f(p.x - against), exp2f(p.y - against));
    s->largest = now;
    s->total = s->total * kept + p.x + p.y;
    const float low = __shfl_sync(0xffffffffu, kept, 8 * q); /* of the heads 2q and 2q + 1 */
    const float high = __shfl_sync(0xffffffffu, kept, 8 * q + 4);
    const uint32_t weights = lore_pack_bf16(p.x, p.y);
#pragma unroll
    for (int j = 0; j < E / 16; j++) {
        const uint32_t which = j % 2 == 0 ? 0x5410 : 0x7632; /* element j of both keys */
        const uint32_t v[4] = {
            __byte_perm(a.values[0][j / 2], a.values[1][j / 2], which),
            __byte_perm(a.values[0][(j + E / 16) / 2], a.values[1][(j + E / 16) / 2], which), 0, 0};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s->mixed[j][i] *= i % 2 == 0 ? low : high;
        }
        lore_mma(s->mixed[j], v, weights, 0);
    }
}

/* ---- what keys leave ---- */

/* From head to head of what a warp leaves: its elements, j of all g side by side, then the largest
 * score and the sum of weights. */
template <int E> static constexpr int LEFT = E + 4;

/* What a warp has goes to `memory` [WARPS, group, LEFT]. */
template <int E> static __device__ void put_state(const layers_task &t, state<E> *s, float *memory)
{
    const int32_t g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    float *to = memory + (int32_t)threadIdx.x / 32 * t.group * LEFT<E>;
    s->total += __shfl_xor_sync(0xffffffffu, s->total, 1);
    s->total += __shfl_xor_sync(0xffffffffu, s->total, 2);
    if (q == 0 && g < t.group) {
        to[g * LEFT<E> + E] = s->largest;
        to[g * LEFT<E> + E + 1] = s->total;
    }
#pragma unroll
    for (int j = 0; j < E / 16; j++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int32_t head = 2 * q + i % 2;
            if (head < t.group) {
                to[head * LEFT<E> + (j + i / 2 * (E / 16)) * 8 + g] = s->mixed[j][i];
            }
        }
    }
    lore_named_sync(BARRIER, COMPUTING);
}

/* Element c of a head from what the warps have left of it. */
struct joined {
    float largest, total, mixed;
};

template <int E>
static __device__ __forceinline__ joined join_warps(const float *memory, int32_t group, int32_t c)
{
    joined j = {-INFINITY, 0.0f, 0.0f};
    const int32_t at = c % (E / 8) * 8 + c / (E / 8), each = group * LEFT<E>;
#pragma unroll
    for (int32_t i = 0; i < WARPS; i++) {
        j.largest = fmaxf(j.largest, memory[i * each + E]);
    }
    const float against = lore_score_base(j.largest);
#pragma unroll
    for (int32_t i = 0; i < WARPS; i++) {
        const float kept = exp2f(memory[i * each + E] - against);
        j.total += memory[i * each + E + 1] * kept;
        j.mixed += memory[i * each + at] * kept;
    }
    return j;
}

/* What the warps have left of a unit becomes its part, or the row where there is one part. A thread
 * has two elements. */
template <int E>
static __device__ void put_unit(const layers_task &t, const unit &u, int32_t index, uint32_t tag,
                                const float *memory)
{
    const int64_t row = ((int64_t)u.sequence * t.kv_heads + u.kv_head) * t.group * E;
    for (int32_t i = 2 * (int32_t)threadIdx.x; i < t.group * E; i += 2 * COMPUTING) {
        const int32_t h = i / E, c = i % E;
        const joined j = join_warps<E>(memory + h * LEFT<E>, t.group, c);
        const joined k = join_warps<E>(memory + h * LEFT<E>, t.group, c + 1);
        if (t.parts == 1) {
            put_packet(t.mixed + (row + i) / 2,
                       lore_pack_bf16(j.mixed / j.total, k.mixed / j.total), tag);
            continue;
        }
        const int64_t at = (int64_t)index * t.group + h;
        put_packet(t.part_mixed + at * E + c, __float_as_uint(j.mixed), tag);
        put_packet(t.part_mixed + at * E + c + 1, __float_as_uint(k.mixed), tag);
        if (c == 0) {
            put_packet(t.part_sums + 2 * at, __float_as_uint(j.largest), tag);
            put_packet(t.part_sums + 2 * at + 1, __float_as_uint(j.total), tag);
        }
    }
}

/* Each of the blocks that have the parts of a head adds up some of its elements, two at a time: a
 * lane has those of one part. */
template <int E>
static __device__ void merge_parts(const layers_task &t, const unit &u, int32_t index, uint32_t tag)
{
    int32_t lanes = 2;
    while (lanes < t.parts) {
        lanes *= 2;
    }
    const int32_t pairs = t.group * E / 2, each = (pairs + t.parts - 1) / t.parts;
    const int32_t part = (int32_t)threadIdx.x % lanes, first = index % t.parts * each;
    const int64_t from = (int64_t)(index / t.parts * t.parts + part) * t.group; /* heads */
    const int64_t row = ((int64_t)u.sequence * t.kv_heads + u.kv_head) * t.group * E;
    for (int32_t base = 0; base < each; base += COMPUTING / lanes) {
        const int32_t own = base + (int32_t)threadIdx.x / lanes, pair = first + own;
        const bool is_there = own < each && pair < pairs;
        uint2 mixed = make_uint2(0, 0), sums = make_uint2(__float_as_uint(-INFINITY), 0);
        if (is_there && part < t.parts) {
            read_both(t.part_mixed + from * E + 2 * pair, t.part_sums + 2 * (from + 2 * pair / E),
                      tag, &mixed, &sums);
        }
        const float largest = __uint_as_float(sums.x);
        float all = largest;
        for (int32_t distance = lanes / 2; distance > 0; distance /= 2) {
            all = fmaxf(all, __shfl_xor_sync(0xffffffffu, all, distance));
        }
        const float weight = exp2f(largest - lore_score_base(all));
        float total = __uint_as_float(sums.y) * weight;
        float low = __uint_as_float(mixed.x) * weight;
        float high = __uint_as_float(mixed.y) * weight;
        for (int32_t distance = lanes / 2; distance > 0; distance /= 2) {
            total += __shfl_xor_sync(0xffffffffu, total, distance);
            low += __shfl_xor_sync(0xffffffffu, low, distance);
            high += __shfl_xor_sync(0xffffffffu, high, distance);
        }
        if (is_there && part == 0) {
            put_packet(t.mixed + row / 2 + pair, lore_pack_bf16(low / total, high / total), tag);
        }
    }
}

/* The units of this block: one, where heads have parts, which wait for one another. */
template <int E>
static __device__ void attend(const layers_task &t, const layer_data &l, const kept &k,
                              uint32_t tag, char *region)
{
    bf16 *queries = (bf16 *)region, *fresh = queries + GROUP_MAX * QUERY<E>;
    float *memory = (float *)(fresh + 2 * E);
    const int32_t units = t.rows * t.kv_heads * t.parts;
    for (int32_t index = (int32_t)blockIdx.x; index < units; index += (int32_t)gridDim.x) {
        const unit u = unit_of(t, k, l.window, index);
        ahead<E> a;
        state<E> s = {-INFINITY};
        load_keys<E>(t, l, k, u, u.begin, &a);
        rotate_heads<E>(t, l, k, u, tag, queries, fresh, (bf16 *)memory);
        for (int32_t base = u.begin; base < u.end; base += 8 * WARPS) {
            if (base > u.begin) {
                load_keys<E>(t, l, k, u, base, &a);
            }
            take_fresh<E>(u, base, fresh, &a);
            add_keys<E>(t, u, base, queries, a, &s);
        }
        put_state<E>(t, &s, memory);
        put_unit<E>(t, u, index, tag, memory);
        if (t.parts > 1) {
            merge_parts<E>(t, u, index, tag);
        }
        lore_named_sync(BARRIER, COMPUTING); /* the region is the next unit's */
    }
}

#endif

/* Bytes of the region that the attention takes. */
static int32_t attention_bytes(int32_t group, int32_t head_dim)
{
    const int32_t heads = GROUP_MAX * (head_dim + 32) + 2 * head_dim;
    const int32_t left = WARPS * group * (head_dim + 4) * (int32_t)sizeof(float);
    const int32_t raw = (group + 2) * head_dim * (int32_t)sizeof(bf16);
    return heads * (int32_t)sizeof(bf16) + (left > raw ? left : raw);
}

#endif
