/* What adapters add to a product (lora.h), as the products of cuda_matmul.cu call it, and what the
 * two kernels of it share: their task, and how they find out who has how much to do. */
#ifndef LORE_KERNELS_CUDA_LORA_INT_H
#define LORE_KERNELS_CUDA_LORA_INT_H

#include "kernels/cuda/cuda_int.h"
#include "kernels/lora.h"

typedef struct lore_cuda_addition {
    lore_view out; /* what is added to */
    lore_view x;
    const float *norm; /* of f32 rows: an RMS norm before the product; or NULL */
    float eps;
    const lore_lora *lora;
    bool is_fresh; /* out is f32 in one piece that holds nothing yet: rows of nobody become -0,
                      which changes no sum, not even one of -0 */
} lore_cuda_addition;

/* Bytes of scratch that it takes. */
size_t lore_cuda_lora_bytes(const lore_cuda_addition *addition);
/* memory: so many bytes, 256-byte aligned. Failures are noted. */
void lore_cuda_lora_add(lore_queue *queue, const lore_cuda_addition *addition, void *memory);

/* ---- the kernels (cuda_lora.cu says how they go together) ---- */

enum {
    LORE_LORA_WARPS = 4,
    LORE_LORA_THREADS = 32 * LORE_LORA_WARPS,
    LORE_LORA_TILE = 16, /* of ranks, that are taken together */
    LORE_LORA_STEP = 64  /* of the depth, that a warp takes at a time: 128 bytes of A */
};

typedef struct lore_cuda_lora_task {
    lore_lora_rows rows;
    int32_t index, row_count, splits;
    int32_t depth, chunk; /* of x; of a split, in whole steps of all warps */
    lore_view x, out;
    const float *norm;
    float eps;
    float *v;       /* [splits, rows, v_stride]; rows as they stand in `order` */
    float *squares; /* [splits, rows], where there is a norm */
    int32_t v_stride;
    float *fresh; /* as many values become -0; or NULL */
    int64_t fresh_count;
    bool is_wide; /* eight neighbours of out may be read as one, where their column allows it */
} lore_cuda_lora_task;

/* Most sixteens of v: parts begin with whole ones, so all but one may leave one half empty. */
static inline int32_t lore_cuda_lora_tiles_max(const lore_lora *lora)
{
    return (lora->rank_max + LORE_LORA_TILE - 1) / LORE_LORA_TILE + LORE_LORA_PARTS_MAX - 1;
}

/* The blocks of a launch: as many as there may be pieces for, but no more than find a place. */
static inline dim3 lore_cuda_lora_blocks(const lore_queue *queue, int64_t most, int32_t each)
{
    const int64_t room = (int64_t)each * lore_cuda_backend_of(queue)->processors;
    const int64_t some = most > 1 ? most : 1; /* without segments there are none, but rows */
    return dim3((unsigned)(some < room ? some : room));
}

/* v and squares of a task. The quick ones are for adapters in bf16; shrink for depths of whole
 * eights, rows of which sixteen bytes can be read at a time. */
cudaError_t lore_cuda_shrink(lore_queue *queue, const lore_cuda_lora_task *t,
                             const lore_lora *lora);
cudaError_t lore_cuda_shrink_any(lore_queue *queue, const lore_cuda_lora_task *t, lore_dtype dtype);
cudaError_t lore_cuda_expand(lore_queue *queue, const lore_cuda_lora_task *t);
cudaError_t lore_cuda_expand_any(lore_queue *queue, const lore_cuda_lora_task *t);

#ifdef __CUDACC__
/* ---- who has how much to do ---- */

/* The rows of a segment, and the sizes of what its adapter adds: 0 of parts that it does not have.
 * The loads follow one another as little as can be: every block begins with them. */
struct lore_lora_segment {
    int32_t start, count;
    const lore_lora_product *product;
    int32_t ranks[LORE_LORA_PARTS_MAX], columns[LORE_LORA_PARTS_MAX];
};

static __device__ __forceinline__ lore_lora_segment
lore_lora_find_segment(const lore_cuda_lora_task &t, int32_t i)
{
    lore_lora_segment s = {};
    s.start = __ldcg(t.rows.starts + i);
    s.count = __ldcg(t.rows.starts + i + 1) - s.start;
    const lore_lora_product *products =
        (const lore_lora_product *)__ldcg((const unsigned long long *)t.rows.adapters + i);
    if (s.count > 0 && products != NULL) {
        s.product = products + t.index;
        const int32_t rank = __ldcg(&s.product->rank), parts = __ldcg(&s.product->part_count);
#pragma unroll
        for (int k = 0; k < LORE_LORA_PARTS_MAX; k++) { /* what is undefined is there too */
            s.ranks[k] = __ldcg(&s.product->parts[k].rank);
            s.columns[k] = __ldcg(&s.product->parts[k].columns);
        }
#pragma unroll
        for (int k = 0; k < LORE_LORA_PARTS_MAX; k++) {
            const bool is_there = rank > 0 && k < parts;
            s.ranks[k] = is_there ? s.ranks[k] : 0;
            s.columns[k] = is_there ? s.columns[k] : 0;
        }
    }
    return s;
}

static __device__ __forceinline__ const void *lore_lora_load_pointer(const void *const *at)
{
    return (const void *)__ldcg((const unsigned long long *)at);
}

static __device__ __forceinline__ int32_t lore_lora_tiles(int32_t rank)
{
    return (rank + LORE_LORA_TILE - 1) / LORE_LORA_TILE;
}

/* The sixteens of v that the first parts take. */
static __device__ __forceinline__ int32_t lore_lora_tiles_of(const lore_lora_segment &s,
                                                             int32_t parts)
{
    int32_t tiles = 0;
#pragma unroll
    for (int k = 0; k < LORE_LORA_PARTS_MAX; k++) {
        tiles += k < parts ? lore_lora_tiles(s.ranks[k]) : 0;
    }
    return tiles;
}

/* Which part a place is in, among as many as each part has; it becomes a place inside that. */
static __device__ __forceinline__ int32_t lore_lora_find_part(const int32_t *sizes, int32_t *place)
{
    int32_t part = 0;
#pragma unroll
    for (int k = 0; k + 1 < LORE_LORA_PARTS_MAX; k++) {
        if (part == k && *place >= sizes[k]) {
            *place -= sizes[k];
            part = k + 1;
        }
    }
    return part;
}

/* sums[i] becomes what is before segment i, from what each has in sums[i + 1]; by one block. */
static __device__ void lore_lora_add_up(int32_t *sums, int32_t segments)
{
    __syncthreads();
    if (threadIdx.x < 32) {
        const int32_t lane = (int32_t)threadIdx.x;
        int32_t before = 0;
#pragma unroll 1
        for (int32_t first = 0; first < segments; first += 32) {
            int32_t sum = first + lane < segments ? sums[first + lane + 1] : 0;
#pragma unroll
            for (int distance = 1; distance < 32; distance *= 2) {
                const int32_t other = __shfl_up_sync(0xffffffffu, sum, distance);
                sum += lane >= distance ? other : 0;
            }
            if (first + lane < segments) {
                sums[first + lane + 1] = before + sum;
            }
            before += __shfl_sync(0xffffffffu, sum, 31);
        }
        if (lane == 0) {
            sums[0] = 0;
        }
    }
    __syncthreads();
}

/* Rows of nobody in memory that was never written. */
static __device__ __forceinline__ void lore_lora_write_fresh(const lore_cuda_lora_task &t)
{
    if (t.fresh != NULL) {
        const int64_t step = (int64_t)gridDim.x * blockDim.x;
        for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < t.fresh_count;
             i += step) {
            t.fresh[i] = -0.0f;
        }
    }
}
#endif

#endif
