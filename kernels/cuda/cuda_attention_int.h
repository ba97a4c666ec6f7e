/* What the files of attention share: where queries, keys and values are, what a row sees, and the
 * tensor core kernels by head size. */
#ifndef LORE_KERNELS_CUDA_ATTENTION_INT_H
#define LORE_KERNELS_CUDA_ATTENTION_INT_H

#include "kernels/cuda/cuda_int.h"

enum {
    LORE_KEY_TILE = 64,  /* keys in shared memory at a time */
    LORE_WIDE_ROWS = 16, /* most rows of a wide block: queries times the heads that share keys */
    LORE_PARTS_MAX = 32, /* of the keys of a sequence, wide */
    LORE_HEAD_MAX = 512  /* of the plain kernel */
};

typedef struct lore_attend {
    lore_view out, q;
    lore_attention attention;
    int32_t kv_heads, group, head_dim, sequences;
    bool is_causal;
    const int32_t *row_start;
    /* pages ... */
    const void *keys, *values;
    const int32_t *past, *page_start, *pages;
    int32_t page_tokens, page_count;
    /* ... or rows of one matrix: keys and values of row r at r * stride */
    int64_t kv_stride;
    /* parts of the keys of a sequence (wide) or of a piece, and where their results go; rows are
     * those of a block: LORE_WIDE_ROWS or LORE_PIECE_ROWS */
    int32_t parts;
    float *part_out;   /* [s or slots, g, parts, rows, e] */
    float *part_sums;  /* [s or slots, g, parts, rows, 2]: largest score, sum of weights */
    unsigned *arrived; /* [s, g] parts that are done (wide); 0 between kernels */
    int32_t stages;    /* of the rings of a wide block */
} lore_attend;

/* The kernels of many rows of a head size, NULL where there are none. */
typedef struct lore_head_kernels {
    cudaError_t (*tall)(lore_queue *, const lore_attend &, int32_t rows_max);
    cudaError_t (*tall_packed)(lore_queue *, const lore_attend &, int32_t rows_max);
} lore_head_kernels;

lore_head_kernels lore_cuda_find_kernels(int32_t head_dim);

/* The head sizes that have kernels; the same have the wide one (cuda_attention_wide.cu), of few
 * rows over pages. It merges its parts itself; part_tiles is the most that one has. */
#define LORE_HEADS \
    LORE_HEAD(32) LORE_HEAD(64) LORE_HEAD(80) LORE_HEAD(96) LORE_HEAD(128) LORE_HEAD(256)
cudaError_t lore_cuda_wide(lore_queue *, const lore_attend &, int32_t part_tiles);

/* Hopper's kernel of many rows over pages (cuda_attention_hopper.cu), and what it is for. */
bool lore_cuda_can_hopper(const lore_queue *, const lore_attend &);
cudaError_t lore_cuda_hopper(lore_queue *, lore_attend, int32_t context_max);

/* What parts of keys have left of pieces becomes rows of the output (cuda_attention_merge.cu). */
cudaError_t lore_cuda_merge_pieces(lore_queue *, const lore_attend &);

#ifdef __CUDACC__
static const float LORE_LOG2_E = 1.44269504088896340736f;

template <typename T, bool is_paged>
static __device__ __forceinline__ int64_t lore_key_offset(const lore_attend &a, int32_t sequence,
                                                          int32_t kv_head, int32_t position)
{
    if (!is_paged) {
        return (a.row_start[sequence] + position) * a.kv_stride + (int64_t)kv_head * a.head_dim;
    }
    const int64_t page = a.pages[a.page_start[sequence] + position / a.page_tokens];
    return ((page * a.kv_heads + kv_head) * a.page_tokens + position % a.page_tokens) * a.head_dim;
}

/* Positions [first, end) that a row at `position` of a sequence of `context` tokens sees. */
static __device__ __forceinline__ int2 lore_seen(const lore_attend &a, int32_t position,
                                                 int32_t context)
{
    const int32_t window = a.attention.window;
    const int32_t behind = window == 0 ? position : window - (a.is_causal ? 1 : 0);
    const int32_t ahead = a.is_causal ? 0 : window == 0 ? context : window;
    const int32_t first = position > behind ? position - behind : 0;
    const int32_t end = context - 1 - position < ahead ? context : position + ahead + 1;
    return make_int2(first, end);
}

static __device__ __forceinline__ float lore_read(const lore_view &from, int64_t at)
{
    return from.dtype == LORE_F32 ? from.data[at]
                                  : __bfloat162float(((const __nv_bfloat16 *)from.data)[at]);
}

/* Two or eight neighbours, rounded, as an operand. Eight are aligned to 16 bytes. */
static __device__ __forceinline__ uint32_t lore_read_2(const float *from)
{
    return lore_pack_bf16(from[0], from[1]);
}

static __device__ __forceinline__ uint32_t lore_read_2(const __nv_bfloat16 *from)
{
    return (uint32_t)__bfloat16_as_ushort(from[0]) | (uint32_t)__bfloat16_as_ushort(from[1]) << 16;
}

static __device__ __forceinline__ uint4 lore_read_8(const float *from)
{
    const float4 x = ((const float4 *)from)[0], y = ((const float4 *)from)[1];
    return make_uint4(lore_pack_bf16(x.x, x.y), lore_pack_bf16(x.z, x.w), lore_pack_bf16(y.x, y.y),
                      lore_pack_bf16(y.z, y.w));
}

static __device__ __forceinline__ uint4 lore_read_8(const __nv_bfloat16 *from)
{
    return *(const uint4 *)from;
}

/* One or two neighbours of the output; two at once where they lie so. */
static __device__ __forceinline__ void lore_write(const lore_view &to, int64_t at, float x)
{
    if (to.dtype == LORE_F32) {
        to.data[at] = x;
    } else {
        ((__nv_bfloat16 *)to.data)[at] = __float2bfloat16_rn(x);
    }
}

static __device__ __forceinline__ void lore_write_2(const lore_view &to, int64_t at, float x,
                                                    float y)
{
    float *pair = to.data + at;
    uint32_t *rounded = (uint32_t *)((__nv_bfloat16 *)to.data + at);
    if (to.dtype == LORE_F32 && (uintptr_t)pair % sizeof(float2) == 0) {
        *(float2 *)pair = make_float2(x, y);
    } else if (to.dtype == LORE_BF16 && (uintptr_t)rounded % sizeof *rounded == 0) {
        *rounded = lore_pack_bf16(x, y);
    } else {
        lore_write(to, at, x);
        lore_write(to, at + 1, y);
    }
}

/* Scores are kept as products of query and key, or capped; this factor makes them powers of two. */
static __device__ __forceinline__ float lore_score_factor(const lore_attention &attention)
{
    return (attention.softcap > 0.0f ? 1.0f : attention.scale) * LORE_LOG2_E;
}

static __device__ __forceinline__ float lore_capped(float dot, const lore_attention &attention)
{
    return attention.softcap * tanhf(dot * attention.scale / attention.softcap);
}

/* 2^x, an approximation good to two units in the last place. PTX ISA, ex2. */
static __device__ __forceinline__ float lore_power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* What is subtracted: nothing, while all scores so far are -inf. */
static __device__ __forceinline__ float lore_score_base(float largest)
{
    return largest == -INFINITY ? 0.0f : largest;
}

#endif

#endif
