/* What the files of attention share: where queries, keys and values are, what a row sees, and the
 * tensor core kernels by head size. */
#ifndef LORE_KERNELS_CUDA_ATTENTION_INT_H
#define LORE_KERNELS_CUDA_ATTENTION_INT_H

#include "kernels/cuda/cuda_int.h"

enum {
    LORE_KEY_TILE = 64,  /* keys in shared memory at a time */
    LORE_WIDE_ROWS = 16, /* most rows of a wide block: queries times the heads that share keys */
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
    int32_t page_tokens;
    /* ... or rows of one matrix: keys and values of row r at r * stride */
    int64_t kv_stride;
    /* wide: parts of a sequence's keys, and where their results go */
    int32_t parts;
    float *part_out;  /* [s, g, parts, 16, e] */
    float *part_sums; /* [s, g, parts, 16, 2]: largest score, sum of weights */
} lore_attend;

/* The kernels of a head size, NULL where there are none. */
typedef struct lore_head_kernels {
    cudaError_t (*tall)(const lore_attend &, int32_t rows_max, cudaStream_t);
    cudaError_t (*tall_packed)(const lore_attend &, int32_t rows_max, cudaStream_t);
    cudaError_t (*wide)(const lore_attend &, int32_t rows_max, cudaStream_t);
} lore_head_kernels;

lore_head_kernels lore_cuda_find_kernels(int32_t head_dim);

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

/* Scores are kept as products of query and key, or capped; this factor makes them powers of two. */
static __device__ __forceinline__ float lore_score_factor(const lore_attention &attention)
{
    return (attention.softcap > 0.0f ? 1.0f : attention.scale) * LORE_LOG2_E;
}

static __device__ __forceinline__ float lore_capped(float dot, const lore_attention &attention)
{
    return attention.softcap * tanhf(dot * attention.scale / attention.softcap);
}

/* What is subtracted: nothing, while all scores so far are -inf. */
static __device__ __forceinline__ float lore_score_base(float largest)
{
    return largest == -INFINITY ? 0.0f : largest;
}

#endif

#endif
