/* Drawing from the largest logits of a row, which stand in a list, by one block: the list is
 * sorted, and the cut and the draw are places in the running sum of its weights. */
#ifndef LORE_KERNELS_CUDA_LIST_INT_H
#define LORE_KERNELS_CUDA_LIST_INT_H

#include "kernels/cuda/cuda_sample_int.h"

enum {
    LIST_MAX = 4096,
    LISTED = LIST_MAX / ROW_THREADS /* of a thread: neighbours in the sorted list */
};

typedef struct cut {
    int bin;         /* of the tally: the last one that the cut may leave something of */
    uint64_t count;  /* of logits up to and with it */
    uint64_t weight; /* of the whole row */
} cut;

/* The weights of LISTED neighbours of the sorted list, and what lies before them. */
typedef struct listed {
    uint64_t weights[LISTED], before;
} listed;

typedef struct fallen {
    int at;          /* in the list */
    uint64_t weight; /* up to and with it */
} fallen;

/* The place at which the running weight first exceeds target, which is less than that of all. */
static __device__ inline fallen find_listed(const listed &own, uint64_t target)
{
    __shared__ fallen found;
    uint64_t so_far = own.before;
    __syncthreads(); /* the last one's readers are done */
#pragma unroll
    for (int k = 0; k < LISTED; k++) {
        const uint64_t up_to = so_far + own.weights[k];
        if (so_far <= target && target < up_to) {
            found = {(int)threadIdx.x * LISTED + k, up_to};
        }
        so_far = up_to;
    }
    __syncthreads();
    return found;
}

/* The weight of the first `count` of the list. */
static __device__ inline uint64_t weight_of_first(const listed &own, int count)
{
    uint64_t mine = 0, total;
#pragma unroll
    for (int k = 0; k < LISTED; k++) {
        mine += (int)threadIdx.x * LISTED + k < count ? own.weights[k] : 0;
    }
    (void)sum_before(mine, &total);
    return total;
}

static __device__ inline int32_t draw_listed(const row &r, const lore_sample &sample,
                                             const cut &chosen, const uint64_t *list,
                                             uint64_t *ranks)
{
    const int count = (int)chosen.count;
    int size = 2;
    while (size < count) {
        size *= 2;
    }
    for (int i = threadIdx.x; i < size; i += ROW_THREADS) {
        ranks[i] = i < count ? list[i] : 0;
    }
    lore_sort_falling<ROW_THREADS>(ranks, size);
    const uint32_t least = least_key(sample, r.top);
    listed own;
    uint64_t sum = 0, likely = 0, mass;
#pragma unroll
    for (int k = 0; k < LISTED; k++) {
        const int at = (int)threadIdx.x * LISTED + k;
        own.weights[k] = at < count ? weight_of(r, logit_of_rank(ranks[at])) : 0;
        sum += own.weights[k];
        likely += at < count && (uint32_t)(ranks[at] >> 32) >= least ? own.weights[k] : 0;
    }
    own.before = sum_before(sum, &mass);
    (void)sum_before(likely, &likely);
    if (has_top_k(sample, r.count)) {
        mass = weight_of_first(own, sample.top_k);
    } else {
        mass = chosen.weight; /* of which top_p is a share, and the list holds that */
    }
    if (sample.top_p < 1.0f) {
        mass = find_listed(own, share_of(sample, mass) - 1).weight;
    }
    mass = likely < mass ? likely : mass;
    return id_of(ranks[find_listed(own, fall_of(sample, mass)).at]);
}

#endif
