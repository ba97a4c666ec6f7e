/* What the kernels that order logits share (cuda_sample.cu, cuda_tops.cu): logits as ordered
 * integers, weights as whole numbers, and sums over a block.
 *
 * Weights exp((x - top) / temperature) are whole numbers, SCALE of them to one, so that sums do not
 * hang on the order of additions, and a row's token not on how threads share it. Random numbers are
 * those of sample.c: splitmix64 of seed and position. */
#ifndef LORE_KERNELS_CUDA_SAMPLE_INT_H
#define LORE_KERNELS_CUDA_SAMPLE_INT_H

#include "kernels/cuda/cuda_int.h"

enum { ROW_THREADS = 1024 }; /* of a block that has a whole row */

static const float SCALE = 1099511627776.0f; /* 2^40: a quarter of a million of them fit 64 bits */

/* ---- numbers ---- */

/* As lore_random_next. */
static __device__ inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static __device__ inline double draw_unit(uint64_t seed, int32_t position)
{
    uint64_t place = (uint64_t)(int64_t)position;
    uint64_t state = seed ^ random_next(&place);
    return (double)(random_next(&state) >> 11) * 0x1p-53;
}

/* NaN counts as -inf, and both zeros are one. */
static __device__ __forceinline__ float clean(float x)
{
    return isnan(x) ? -INFINITY : x + 0.0f;
}

/* Larger logits have larger keys. */
static __device__ __forceinline__ uint32_t key_of(float x)
{
    const uint32_t bits = __float_as_uint(x);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

static __device__ __forceinline__ float logit_of(uint32_t key)
{
    return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7FFFFFFFu : ~key);
}

typedef struct row {
    const float *logits;
    int32_t count;
    float top, temperature;
} row;

/* Orders as the draw does: larger logits, then lower ids, are larger. No logit at all is 0. */
static __device__ __forceinline__ uint64_t rank_of(float logit, int32_t id)
{
    return (uint64_t)key_of(logit) << 32 | (uint32_t)~id;
}

static __device__ __forceinline__ int32_t id_of(uint64_t rank)
{
    return (int32_t) ~(uint32_t)rank;
}

static __device__ __forceinline__ float logit_of_rank(uint64_t rank)
{
    return logit_of((uint32_t)(rank >> 32));
}

static __device__ __forceinline__ float logit_at(const row &r, int32_t i)
{
    return clean(r.logits[i]);
}

static __device__ __forceinline__ uint64_t weight_of(const row &r, float logit)
{
    if (logit == r.top) { /* infinities too */
        return (uint64_t)SCALE;
    }
    return (uint64_t)(expf((logit - r.top) / r.temperature) * SCALE);
}

static __device__ __forceinline__ bool has_top_k(const lore_sample &sample, int32_t count)
{
    return sample.top_k > 0 && sample.top_k < count;
}

static __device__ __forceinline__ bool is_cut(const lore_sample &sample, int32_t count)
{
    return sample.top_p < 1.0f || has_top_k(sample, count);
}

/* The smallest number of weights that reaches top_p of a mass; at least one. */
static __device__ inline uint64_t share_of(const lore_sample &sample, uint64_t mass)
{
    const double share = ceil((double)sample.top_p * (double)mass);
    return share < 1.0 ? 1 : share > (double)mass ? mass : (uint64_t)share;
}

/* The key of the least logit that min_p leaves. */
static __device__ inline uint32_t least_key(const lore_sample &sample, float top)
{
    return sample.min_p > 0.0f
               ? key_of(__double2float_ru((double)top +
                                          (double)sample.temperature * log((double)sample.min_p)))
               : 0;
}

/* Where the random number falls in a mass above 0. */
static __device__ inline uint64_t fall_of(const lore_sample &sample, uint64_t mass)
{
    const uint64_t falls = (uint64_t)(draw_unit(sample.seed, sample.position) * (double)mass);
    return falls < mass ? falls : mass - 1;
}

/* ---- over the block; every thread must come, all get the result ---- */

static __device__ inline uint64_t warp_sum(uint64_t x)
{
    for (int distance = 16; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    }
    return x;
}

static __device__ inline uint64_t warp_max(uint64_t x)
{
    for (int distance = 16; distance > 0; distance /= 2) {
        const uint64_t other = __shfl_xor_sync(0xffffffffu, x, distance);
        x = other > x ? other : x;
    }
    return x;
}

static __device__ inline uint64_t block_max(uint64_t x)
{
    __shared__ uint64_t parts[32];
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    x = warp_max(x);
    __syncthreads(); /* the last one's readers are done */
    if (lane == 0) {
        parts[threadIdx.x / 32] = x;
    }
    __syncthreads();
    return warp_max(lane < warps ? parts[lane] : 0);
}

/* The sum of what threads before this one bring; *total gets all. */
static __device__ inline uint64_t sum_before(uint64_t x, uint64_t *total)
{
    __shared__ uint64_t parts[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    uint64_t up_to = x;
    for (int distance = 1; distance < 32; distance *= 2) {
        const uint64_t other = __shfl_up_sync(0xffffffffu, up_to, distance);
        up_to += lane >= distance ? other : 0;
    }
    __syncthreads();
    if (lane == 31) {
        parts[warp] = up_to;
    }
    __syncthreads();
    const uint64_t part = lane < warps ? parts[lane] : 0;
    const uint64_t before = warp_sum(lane < warp ? part : 0);
    *total = warp_sum(part);
    return before + up_to - x;
}

/* One more weight in a sum of shared memory, in halves: it adds 32 bits at once. */
static __device__ __forceinline__ void add_weight(uint32_t *low_sum, uint32_t *high_sum,
                                                  uint64_t weight)
{
    const uint32_t low = (uint32_t)weight, before = atomicAdd(low_sum, low);
    const uint32_t high = (uint32_t)(weight >> 32) + (before + low < before ? 1 : 0);
    if (high != 0) {
        atomicAdd(high_sum, high);
    }
}

#endif
