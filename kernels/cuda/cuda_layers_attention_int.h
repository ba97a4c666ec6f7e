/* The attention of cuda_layers.cu. A unit is a sequence, a head of keys and a part of the keys;
 * sixteen bytes of a key are a lane's. The block that has a head's last part done adds the parts
 * up, always in the same order. Heads are normed and rotated by who needs them, the new key and
 * value written by who has the last part. What earlier steps have written is asked for while the
 * product before is computed, and loaded before the blocks have met.
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
template <int E> static __device__ void ask_for_norms(const layers_task &t, int32_t layer)
{
    const int32_t each = 32, lines = t.width / each; /* floats in a line of the cache */
    const int32_t i = (int32_t)(blockIdx.x * COMPUTING + threadIdx.x);
    if (i < E / each && t.layers[layer].q_norm != NULL) {
        ask_for(t.layers[layer].q_norm + i * each);
    }
    if (i < E / each && t.layers[layer].k_norm != NULL) {
        ask_for(t.layers[layer].k_norm + i * each);
    }
    if (i < lines) {
        ask_for(t.layers[layer].ffn_norm + i * each);
    } else if (i < 2 * lines && layer + 1 < t.count) {
        ask_for(t.layers[layer + 1].attention_norm + (i - lines) * each);
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

/* Queries of the unit to `queries` [group, E], scaled; the new key and value to their page, and to
 * `fresh` [2, E], by the unit that has them. */
template <int E>
static __device__ void rotate_heads(const layers_task &t, const layer_data &l, const kept &k,
                                    const unit &u, uint32_t tag, float *queries, bf16 *fresh,
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
            float *to = queries + j * E;
            rotate_head<E>(t, head, l.q_norm, cosine, sine,
                           [&](int32_t i, float v) { to[i] = v * t.factor; });
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

/* What keys have left so far, for each head of the group: eight elements a lane. */
template <int GROUP> struct state {
    float largest[GROUP], total[GROUP], mixed[GROUP][8];
};

static __device__ __forceinline__ void unpack_8(const uint4 &v, float *out)
{
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = __uint_as_float(words[i] << 16);
        out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

/* Keys that a lane has under way: its sixteen bytes of each. */
template <int GROUP> struct ahead {
    static constexpr int COUNT = GROUP > 4 ? 1 : 4;
    uint4 keys[COUNT], values[COUNT];
};

/* The lane's key number b from `base` on. */
template <int E> static __device__ __forceinline__ int32_t key_at(int32_t base, int b)
{
    constexpr int KEYS = 32 / (E / 8); /* side by side in a warp */
    return base + (b * WARPS + (int32_t)threadIdx.x / 32) * KEYS +
           (int32_t)threadIdx.x % 32 / (E / 8);
}

/* Those of them below `end` are asked for; the others stay as they are. */
template <int E, int GROUP>
static __device__ __forceinline__ void load_keys(const layers_task &t, const layer_data &l,
                                                 const kept &k, const unit &u, int32_t base,
                                                 int32_t end, ahead<GROUP> *a)
{
#pragma unroll
    for (int b = 0; b < ahead<GROUP>::COUNT; b++) {
        const int32_t position = key_at<E>(base, b);
        if (position < end) {
            const int64_t at =
                key_offset<E>(t, k, u.sequence, u.kv_head, position) + threadIdx.x % (E / 8) * 8;
            a->keys[b] = __ldcg((const uint4 *)(l.keys + at));
            a->values[b] = __ldcg((const uint4 *)(l.values + at));
        }
    }
}

/* A unit's first keys, but for the one that this step writes. */
template <int E, int GROUP>
static __device__ __forceinline__ void load_first(const layers_task &t, const layer_data &l,
                                                  const kept &k, int32_t index, ahead<GROUP> *a)
{
#pragma unroll
    for (int b = 0; b < ahead<GROUP>::COUNT; b++) {
        a->keys[b] = a->values[b] = make_uint4(0, 0, 0, 0);
    }
    if (index < t.rows * t.kv_heads * t.parts) {
        const unit u = unit_of(t, k, l.window, index);
        load_keys<E, GROUP>(t, l, k, u, u.begin, u.end < u.position ? u.end : u.position, a);
    }
}

/* Scores of AHEAD keys and their values are added. */
template <int GROUP, int AHEAD>
static __device__ __forceinline__ void add_keys(state<GROUP> *s, float (&scores)[AHEAD][GROUP],
                                                const uint4 (&values)[AHEAD])
{
#pragma unroll
    for (int h = 0; h < GROUP; h++) {
        float now = s->largest[h];
#pragma unroll
        for (int b = 0; b < AHEAD; b++) {
            now = fmaxf(now, scores[b][h]);
        }
        const float against = lore_score_base(now), kept = exp2f(s->largest[h] - against);
        s->largest[h] = now;
        s->total[h] *= kept;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            s->mixed[h][i] *= kept;
        }
#pragma unroll
        for (int b = 0; b < AHEAD; b++) {
            scores[b][h] = exp2f(scores[b][h] - against);
            s->total[h] += scores[b][h];
        }
    }
#pragma unroll
    for (int b = 0; b < AHEAD; b++) {
        float v[8];
        unpack_8(values[b], v);
#pragma unroll
        for (int h = 0; h < GROUP; h++) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                s->mixed[h][i] += scores[b][h] * v[i];
            }
        }
    }
}

/* The keys of a warp, of which `a` has the first. */
template <int E, int GROUP>
static __device__ void see_keys(const layers_task &t, const layer_data &l, const kept &k,
                                const unit &u, const float *queries, const bf16 *fresh,
                                ahead<GROUP> *a, state<GROUP> *s)
{
    constexpr int LANES = E / 8, COUNT = ahead<GROUP>::COUNT;
    const int32_t c = (int32_t)threadIdx.x % LANES * 8;
    float q[GROUP][8];
#pragma unroll
    for (int h = 0; h < GROUP; h++) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            q[h][i] = h < t.group ? queries[h * E + c + i] : 0.0f;
            s->mixed[h][i] = 0.0f;
        }
        s->largest[h] = -INFINITY;
        s->total[h] = 0.0f;
    }
    for (int32_t base = u.begin; base < u.end; base += key_at<E>(0, COUNT) - key_at<E>(0, 0)) {
        float scores[COUNT][GROUP];
        if (base > u.begin) {
            load_keys<E, GROUP>(t, l, k, u, base, u.end < u.position ? u.end : u.position, a);
        }
#pragma unroll
        for (int b = 0; b < COUNT; b++) {
            float key[8];
            if (key_at<E>(base, b) == u.position && u.position < u.end) { /* of this step */
                a->keys[b] = *(const uint4 *)(fresh + c);
                a->values[b] = *(const uint4 *)(fresh + E + c);
            }
            unpack_8(a->keys[b], key);
#pragma unroll
            for (int h = 0; h < GROUP; h++) {
                float dot = 0.0f;
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    dot += q[h][i] * key[i];
                }
#pragma unroll
                for (int distance = LANES / 2; distance > 0; distance /= 2) {
                    dot += __shfl_xor_sync(0xffffffffu, dot, distance);
                }
                scores[b][h] = key_at<E>(base, b) < u.end ? dot : -INFINITY;
            }
        }
        add_keys<GROUP, COUNT>(s, scores, a->values);
    }
}

/* The keys side by side in a warp become one; then a warp's go to `memory` [WARPS, group, E + 2].
 */
template <int E, int GROUP>
static __device__ void put_state(const layers_task &t, state<GROUP> *s, float *memory)
{
    constexpr int LANES = E / 8;
    const int32_t lane = threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
#pragma unroll
    for (int h = 0; h < GROUP; h++) {
#pragma unroll
        for (int distance = LANES; distance < 32; distance *= 2) {
            const float other = __shfl_xor_sync(0xffffffffu, s->largest[h], distance);
            const float now = fmaxf(s->largest[h], other), against = lore_score_base(now);
            const float kept = exp2f(s->largest[h] - against), added = exp2f(other - against);
            s->largest[h] = now;
            s->total[h] =
                s->total[h] * kept + __shfl_xor_sync(0xffffffffu, s->total[h], distance) * added;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                s->mixed[h][i] = s->mixed[h][i] * kept +
                                 __shfl_xor_sync(0xffffffffu, s->mixed[h][i], distance) * added;
            }
        }
        float *to = memory + (warp * t.group + h) * (E + 2);
        if (lane < LANES && h < t.group) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                to[lane * 8 + i] = s->mixed[h][i];
            }
            if (lane == 0) {
                to[E] = s->largest[h];
                to[E + 1] = s->total[h];
            }
        }
    }
    lore_named_sync(BARRIER, COMPUTING);
}

/* Element c of a head from what the warps have left. */
struct joined {
    float largest, total, mixed;
};

static __device__ __forceinline__ joined join_warps(const float *memory, int32_t each, int32_t e,
                                                    int32_t c)
{
    joined j = {-INFINITY, 0.0f, 0.0f};
#pragma unroll
    for (int32_t i = 0; i < WARPS; i++) {
        j.largest = fmaxf(j.largest, memory[i * each + e]);
    }
    const float against = lore_score_base(j.largest);
#pragma unroll
    for (int32_t i = 0; i < WARPS; i++) {
        const float kept = exp2f(memory[i * each + e] - against);
        j.total += memory[i * each + e + 1] * kept;
        j.mixed += memory[i * each + c] * kept;
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
        const joined j = join_warps(memory + h * (E + 2), t.group * (E + 2), E, c);
        const joined k = join_warps(memory + h * (E + 2), t.group * (E + 2), E, c + 1);
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
        uint2 mixed[1] = {make_uint2(0, 0)};
        uint2 sums[1] = {make_uint2(__float_as_uint(-INFINITY), 0)};
        if (is_there && part < t.parts) {
            read_pairs<1>(t.part_mixed + from * E, pair, 1, INT32_MAX, tag, mixed);
            read_pairs<1>(t.part_sums + 2 * from, 2 * pair / E, 1, INT32_MAX, tag, sums);
        }
        const float largest = __uint_as_float(sums[0].x);
        float all = largest;
        for (int32_t distance = lanes / 2; distance > 0; distance /= 2) {
            all = fmaxf(all, __shfl_xor_sync(0xffffffffu, all, distance));
        }
        const float weight = exp2f(largest - lore_score_base(all));
        float total = __uint_as_float(sums[0].y) * weight;
        float low = __uint_as_float(mixed[0].x) * weight;
        float high = __uint_as_float(mixed[0].y) * weight;
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
template <int E, int GROUP>
static __device__ void attend(const layers_task &t, const layer_data &l, const kept &k,
                              uint32_t tag, float *region)
{
    float *queries = region, *memory = region + (t.group + 1) * E;
    bf16 *fresh = (bf16 *)(region + t.group * E);
    const int32_t units = t.rows * t.kv_heads * t.parts;
    for (int32_t index = (int32_t)blockIdx.x; index < units; index += (int32_t)gridDim.x) {
        const unit u = unit_of(t, k, l.window, index);
        ahead<GROUP> a;
        state<GROUP> s;
        load_first<E, GROUP>(t, l, k, index, &a); /* earlier steps wrote it: no waiting */
        rotate_heads<E>(t, l, k, u, tag, queries, fresh, (bf16 *)memory);
        see_keys<E, GROUP>(t, l, k, u, queries, fresh, &a, &s);
        put_state<E, GROUP>(t, &s, memory);
        put_unit<E>(t, u, index, tag, memory);
        if (t.parts > 1) {
            merge_parts<E>(t, u, index, tag);
        }
        lore_named_sync(BARRIER, COMPUTING); /* the region is the next unit's */
    }
}

#endif

#endif
