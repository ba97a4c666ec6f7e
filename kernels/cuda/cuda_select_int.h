/* Selection by a whole block: which of many keys of 64 bits are the largest. No two keys but 0,
 * which counts for nothing, are equal; so the result does not depend on which thread comes first.
 * Every thread of a block of SELECT_THREADS must come to each of these. */
#ifndef LORE_KERNELS_CUDA_SELECT_INT_H
#define LORE_KERNELS_CUDA_SELECT_INT_H

#include "kernels/cuda/cuda_int.h"

enum { SELECT_THREADS = 1024, DIGIT_BITS = 11, BINS = 1 << DIGIT_BITS };
static_assert(2 * (int)SELECT_THREADS == (int)BINS, "a thread sums two bins");

/* The sum of what the threads up to and with this one bring; *total gets all. */
static __device__ int32_t sum_up_to(int32_t x, int32_t *total)
{
    __shared__ int32_t parts[SELECT_THREADS / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int32_t up_to = x;
    for (int distance = 1; distance < 32; distance *= 2) {
        const int32_t other = __shfl_up_sync(0xffffffffu, up_to, distance);
        up_to += lane >= distance ? other : 0;
    }
    __syncthreads(); /* the last sum's readers are done */
    if (lane == 31) {
        parts[warp] = up_to;
    }
    __syncthreads();
    const int32_t part = parts[lane];
    *total = __reduce_add_sync(0xffffffffu, part);
    return up_to + __reduce_add_sync(0xffffffffu, lane < warp ? part : 0);
}

typedef struct choice {
    uint32_t bin;
    int32_t before, inside; /* keys in bins above it, and in it */
} choice;

/* The least key of those to take, so that just `wanted` are; 1, which takes all, where there are no
 * more than that. Descends through the keys' bits, eleven at a time. All threads get it. */
static __device__ uint64_t find_least(const uint64_t *keys, int32_t count, int32_t wanted)
{
    __shared__ int32_t bins[BINS];
    __shared__ choice chosen;
    uint64_t found = 0, known = 0; /* the bits chosen so far, and which they are */
    int32_t before = 0;            /* keys above all that begin like `found` */
    for (int shift = 64; shift > 0;) {
        const int width = shift < DIGIT_BITS ? shift : (int)DIGIT_BITS;
        const uint32_t mask = (1u << width) - 1;
        shift -= width;
        bins[threadIdx.x] = 0;
        bins[threadIdx.x + SELECT_THREADS] = 0;
        __syncthreads();
        for (int32_t i = threadIdx.x; i < count; i += SELECT_THREADS) {
            const uint64_t key = keys[i];
            if (key != 0 && (key & known) == found) {
                atomicAdd(&bins[(uint32_t)(key >> shift) & mask], 1);
            }
        }
        __syncthreads();
        const int32_t high = BINS - 1 - 2 * (int32_t)threadIdx.x; /* the first thread: the top */
        const int32_t own = bins[high] + bins[high - 1];
        int32_t total;
        const int32_t up_to = sum_up_to(own, &total);
        if (before + total <= wanted) { /* only at first: later ones hold the wanted one */
            return 1;
        }
        if (before + up_to - own < wanted && wanted <= before + up_to) {
            const bool is_high = before + up_to - bins[high - 1] >= wanted;
            chosen.bin = (uint32_t)(is_high ? high : high - 1);
            chosen.inside = is_high ? bins[high] : bins[high - 1];
            chosen.before = before + up_to - (is_high ? own : bins[high - 1]);
        }
        __syncthreads();
        found |= (uint64_t)chosen.bin << shift;
        known |= (uint64_t)mask << shift;
        before = chosen.before;
        if (before + chosen.inside == wanted) {
            break;
        }
    }
    return found;
}

#endif
