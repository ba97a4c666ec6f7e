/* What the parts of cuda_layers.cu share: sizes, what the kernel is told, and what a block keeps
 * for all layers. These headers are parts of that one file and of no other. */
#ifndef LORE_KERNELS_CUDA_LAYERS_INT_H
#define LORE_KERNELS_CUDA_LAYERS_INT_H

#include "kernels/cuda/cuda_attention_int.h"
#include "kernels/cuda/cuda_hopper_int.h"
#include "kernels/cuda/cuda_matmul_int.h"

enum {
    WARPS = 8, /* that compute; one more copies, and one puts sums where they go */
    COMPUTING = 32 * WARPS,
    THREADS = COMPUTING + 64,
    ROWS_MAX = 4,
    LAYERS_MAX = 80,           /* as fit the parameters of a kernel */
    TILE = 16,                 /* rows of weights, */
    HALF_TILE = 8,             /* and those of a chunk */
    LINES = 2,                 /* of 64 elements, of a warp */
    UNDER_WAY = 3,             /* chunks */
    COLS = 64 * WARPS * LINES, /* elements of a row in a chunk */
    PITCH = 2 * COLS + 64,     /* bytes from row to row: two rows lie in different banks */
    CHUNK = HALF_TILE * PITCH,
    SLOTS_MAX = 12,
    SLOTS_MIN = UNDER_WAY,
    PAD = 32,       /* elements behind a row of x, for the same reason */
    TURNS = 4,      /* tiles whose sums may wait to be put */
    WIDE = 17,      /* sums of a row and warp, again */
    PART_KEYS = 64, /* fewer are not worth a part of their own */
    PARTS_MAX = 32, /* one a lane where they meet */
    GROUP_MAX = 8,
    PAGES_KEPT = 512,         /* of a sequence, in shared memory */
    PAIRS_MAX = 64,           /* of elements, that are rotated */
    BARRIER = 1,              /* of the threads that compute */
    EPOCH_MAX = 1 << 18,      /* layers: then tags begin anew */
    SHARED_BYTES = 227 << 10, /* of a block of sm_90, */
    STATIC_BYTES = 5632       /* of shared memory, beside what is counted */
};

typedef __nv_bfloat16 bf16;

typedef struct layer_data {
    const bf16 *qkv, *out, *gate_up, *down;
    const float *attention_norm, *ffn_norm, *qkv_bias, *q_norm, *k_norm;
    bf16 *keys, *values;
    int32_t window;
} layer_data;

typedef struct layers_task {
    layer_data layers[LAYERS_MAX];
    int32_t count, rows, width, ffn, heads, kv_heads, group, page_tokens;
    lore_activation activation;
    float eps, factor; /* of scores, to base 2 */
    lore_rope rope;
    const int32_t *past, *page_start, *pages;
    float *x;
    int64_t x_stride;
    int32_t slots, region_bytes, parts;
    /* What blocks tell one another (cuda_layers_packets_int.h). */
    uint32_t *epoch;   /* the last tag that was used */
    uint32_t *left;    /* blocks that are done; 0 between kernels */
    uint64_t *packets; /* all of them */
    int64_t packet_count;
    uint64_t *attended;   /* [n, d] floats: x behind the attention, */
    uint64_t *passed;     /* [n, d] and behind the layer */
    uint64_t *qkv;        /* [n, (h + 2g) e / 2] pairs of bf16 */
    uint64_t *mixed;      /* [n, h e / 2] pairs */
    uint64_t *hidden;     /* [n, f / 2] pairs */
    uint64_t *part_mixed; /* [n, g, parts, group, e] floats */
    uint64_t *part_sums;  /* [n, g, parts, group, 2] floats: largest score, sum of weights */
} layers_task;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* What is the same for all layers: where sequences end, angles there, and the pages of the sequence
 * that this block looks at. */
struct kept {
    int32_t position[ROWS_MAX], sequence, page_count;
    int32_t pages[PAGES_KEPT];
    float cosine[ROWS_MAX][PAIRS_MAX], sine[ROWS_MAX][PAIRS_MAX];
};

static __device__ void keep(const layers_task &t, kept *k)
{
    const int32_t half = t.rope.dim / 2, pair = (int32_t)blockIdx.x / t.parts;
    const int32_t sequence = pair / t.kv_heads < t.rows ? pair / t.kv_heads : 0;
    for (int32_t i = (int32_t)threadIdx.x; i < t.rows * half; i += COMPUTING) {
        const int32_t row = i / half;
        const int64_t angle = t.past[row] + (t.rope.starts != NULL ? t.rope.starts[row] : 0);
        k->cosine[row][i % half] = t.rope.cosine[angle * half + i % half];
        k->sine[row][i % half] = t.rope.sine[angle * half + i % half];
    }
    const int32_t first = t.page_start[sequence], all = t.page_start[sequence + 1] - first;
    const int32_t count = all < PAGES_KEPT ? all : (int32_t)PAGES_KEPT;
    for (int32_t i = (int32_t)threadIdx.x; i < count; i += COMPUTING) {
        k->pages[i] = t.pages[first + i];
    }
    if ((int32_t)threadIdx.x < t.rows) {
        k->position[threadIdx.x] = t.past[threadIdx.x];
    }
    if (threadIdx.x == 0) {
        k->sequence = sequence;
        k->page_count = count;
    }
    lore_named_sync(BARRIER, COMPUTING);
}

static __device__ __forceinline__ void ask_for(const void *at)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}

#endif

#endif
