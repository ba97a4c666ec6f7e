/* Cutting and drawing from a row of any kind, by one block, without a list.
 *
 * What the rules ask for (the logit of rank k, the logit at which a share of the weight is reached,
 * the logit on which a random number falls) is found by descending through the bits of the logits,
 * as ordered integers: three histograms of count and weight, each inside the bin that the one
 * before chose. Then only equals are left, which are taken by id. A row is read some ten times, so
 * cuda_sample.cu, whose part this is, comes here only with rows that its list does not hold. */
#ifndef LORE_KERNELS_CUDA_DESCENT_INT_H
#define LORE_KERNELS_CUDA_DESCENT_INT_H

#include "kernels/cuda/cuda_sample_int.h"

enum { BINS = 2048 };

/* A place in the order of a row: a logit, what lies before it, and how many equal it. */
typedef struct place {
    uint32_t key;
    uint64_t before; /* count or weight of larger ones */
    uint64_t weight; /* of one of them */
    int32_t equals;
} place;

typedef struct histogram { /* weights in halves */
    uint32_t counts[BINS], low[BINS], high[BINS];
} histogram;

static __device__ __forceinline__ uint64_t value_at(const histogram *h, bool by_weight, int bin)
{
    return by_weight ? (uint64_t)h->high[bin] << 32 | h->low[bin] : h->counts[bin];
}

typedef struct choice {
    int32_t bin, count;
    uint64_t before;
} choice;

/* The first bin from above at which `before` plus its own reaches more than target. One warp. */
static __device__ inline void choose_bin(const histogram *h, bool by_weight, uint64_t before,
                                         uint64_t target, choice *chosen)
{
    const int lane = threadIdx.x % 32;
    const int each = BINS / 32, first = BINS - 1 - lane * each;
    uint64_t own = 0;
    for (int i = 0; i < each; i++) {
        own += value_at(h, by_weight, first - i);
    }
    uint64_t up_to = own;
    for (int distance = 1; distance < 32; distance *= 2) {
        const uint64_t other = __shfl_up_sync(0xffffffffu, up_to, distance);
        up_to += lane >= distance ? other : 0;
    }
    const unsigned reached = __ballot_sync(0xffffffffu, before + up_to > target);
    if (reached == 0 || lane != __ffs(reached) - 1) {
        return;
    }
    uint64_t so_far = before + up_to - own;
    for (int i = 0; i < each; i++) {
        const uint64_t here = value_at(h, by_weight, first - i);
        if (so_far + here > target) {
            *chosen = {first - i, (int32_t)h->counts[first - i], so_far};
            return;
        }
        so_far += here;
    }
}

/* The place at which the count, or the weight, of logits from the largest down first exceeds
 * target, which is less than that of all. */
static __device__ inline place descend(const row &r, histogram *h, bool by_weight, uint64_t target)
{
    __shared__ choice chosen;
    static const int shifts[] = {21, 10, 0}, widths[] = {11, 11, 10};
    place found = {0, 0, 0, 0};
    uint32_t known = 0; /* bits of the key that are chosen already */
    for (int step = 0; step < 3; step++) {
        __syncthreads();
        for (int i = threadIdx.x; i < BINS; i += ROW_THREADS) {
            h->counts[i] = 0;
            h->low[i] = 0;
            h->high[i] = 0;
        }
        __syncthreads();
        for (int32_t i = threadIdx.x; i < r.count; i += ROW_THREADS) {
            const float logit = logit_at(r, i);
            const uint32_t key = key_of(logit);
            if ((key & known) == found.key) {
                const uint32_t bin = key >> shifts[step] & ((1u << widths[step]) - 1);
                atomicAdd(&h->counts[bin], 1u);
                if (by_weight) {
                    add_weight(&h->low[bin], &h->high[bin], weight_of(r, logit));
                }
            }
        }
        __syncthreads();
        if (threadIdx.x < 32) {
            choose_bin(h, by_weight, found.before, target, &chosen);
        }
        __syncthreads();
        found.key |= (uint32_t)chosen.bin << shifts[step];
        found.before = chosen.before;
        found.equals = chosen.count;
        known |= ((1u << widths[step]) - 1) << shifts[step];
    }
    found.weight = weight_of(r, logit_of(found.key));
    return found;
}

/* Weight of the logits with this key and larger ones. */
static __device__ inline uint64_t weight_from(const row &r, uint32_t key)
{
    uint64_t own = 0, total;
    for (int32_t i = threadIdx.x; i < r.count; i += ROW_THREADS) {
        const float logit = logit_at(r, i);
        own += key_of(logit) >= key ? weight_of(r, logit) : 0;
    }
    (void)sum_before(own, &total);
    return total;
}

/* The id of the nth (from 0) of those that equal a key, in the order of ids. Threads take runs of
 * ids. */
static __device__ inline int32_t find_equal(const row &r, uint32_t key, uint64_t nth)
{
    __shared__ int32_t id;
    const int32_t each = (r.count + ROW_THREADS - 1) / ROW_THREADS;
    const int32_t first = each * (int32_t)threadIdx.x,
                  end = first + each < r.count ? first + each : r.count;
    uint64_t own = 0, total;
    for (int32_t i = first; i < end; i++) {
        own += key_of(logit_at(r, i)) == key;
    }
    uint64_t at = sum_before(own, &total);
    for (int32_t i = first; i < end && at <= nth; i++) {
        if (key_of(logit_at(r, i)) == key && at++ == nth) {
            id = i;
        }
    }
    __syncthreads();
    return id;
}

/* Among the largest ones: a rank and a share cut the row off, then the random number falls on a
 * place above the cut. */
static __device__ inline int32_t draw_kept(const row &r, const lore_sample &sample, uint64_t weight,
                                           histogram *h)
{
    uint64_t mass = weight;
    if (has_top_k(sample, r.count)) {
        const place last = descend(r, h, false, (uint64_t)sample.top_k - 1);
        mass = weight_from(r, last.key + 1) + ((uint64_t)sample.top_k - last.before) * last.weight;
    }
    if (sample.top_p < 1.0f) {
        const uint64_t wanted = share_of(sample, mass);
        const place last = descend(r, h, true, wanted - 1);
        mass = last.before + (wanted - last.before + last.weight - 1) / last.weight * last.weight;
    }
    if (sample.min_p > 0.0f) {
        const uint64_t likely = weight_from(r, least_key(sample, r.top));
        mass = likely < mass ? likely : mass;
    }
    const uint64_t falls = fall_of(sample, mass);
    const place at = descend(r, h, true, falls);
    return find_equal(r, at.key, (falls - at.before) / at.weight);
}

#endif
