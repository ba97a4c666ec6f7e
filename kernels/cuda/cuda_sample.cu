/* Drawing a token from each row of logits, which never leave the device.
 *
 * The rules are those of kernels/sample.c: largest logit first, lowest id first among equals. One
 * block would read a row of 128k logits for some ten microseconds, so rows are read in slices, a
 * block each. The last block of a row to be done with its slice puts together what all of them
 * found; so a way of drawing takes as many launches as it has to go over the logits, and the
 * queue's host says which ways there are in a batch:
 *
 *   survey    each slice's largest logit, and its sum for the log probability; then greedy rows are
 *             drawn
 *   weigh     with the largest of the row known: each slice's weight, then the slice on which the
 *             random number falls is looked into; or, where top_k or top_p cut, a tally of the row,
 *             count and weight by distance from the top in TALLY_BINS steps, then the step in which
 *             the cut must fall
 *   collect   logits down to that step, LIST_MAX of them at most; then the list is sorted, and the
 *             cut and the draw are places in the running sum of its weights
 *
 * Rows that keep more than the list holds (equals by the thousand, a flat row at a high
 * temperature) are cut by one block without it (cuda_descent_int.h).
 *
 * Expected bound: each of the three reads all logits, the second and third from the cache; 64 rows
 * of 128k are 33 MB. One row is latency: a load, a few sums over a block, and the round to memory
 * by which the last block knows that it is. */
#include "kernels/cuda/cuda_descent_int.h"
#include "kernels/cuda/cuda_list_int.h"

enum {
    SLICE_THREADS = 256,
    EACH = 8, /* logits of a thread of a slice, in registers, by fours */
    SLICE = SLICE_THREADS * EACH,
    COLLECT_SLICE = ROW_THREADS * EACH, /* blocks of collect may have to cut a whole row */
    TALLY_BINS = 512,
    BINS_EACH = TALLY_BINS / SLICE_THREADS
};

static const float SPAN = 28.0f; /* e^-28 SCALE is below 1: so far below the top weights are 0 */

/* ---- what slices leave for the row ---- */

typedef struct slice {
    uint64_t best; /* rank of its largest logit */
    uint64_t weight;
    float sum; /* of exp(logit - its largest) */
} slice;

typedef struct tally {
    unsigned long long weights[TALLY_BINS]; /* bin 0 holds the top */
    unsigned counts[TALLY_BINS];
    unsigned listed;
} tally;

/* What the last block of a kernel leaves for the next kernel. */
typedef struct outcome {
    uint64_t best;
    cut chosen;
    float sum; /* of exp(logit - top) */
} outcome;

typedef struct task {
    int32_t *ids;
    float *logprobs;
    lore_view logits;
    const lore_sample *samples;
    unsigned *arrived; /* [rows] blocks that are done; 0 between kernels */
    bool is_wide;      /* fours of a row may be read at once */
    int32_t slice_count;
    /* In scratch. */
    slice *slices; /* [rows, slice_count] */
    outcome *outcomes;
    tally *tallies;
    uint64_t *lists; /* [rows, LIST_MAX] ranks */
} task;

/* Of logit j of this thread; not below the columns: there is none. */
static __device__ __forceinline__ int32_t slice_id(int j)
{
    return (int32_t)(((blockIdx.y * (EACH / 4) + j / 4) * blockDim.x + threadIdx.x) * 4) + j % 4;
}

/* The logits of this thread: fours, those of a warp side by side; -inf where there is none. */
static __device__ __forceinline__ void load_slice(float x[EACH], const task &t)
{
    const float *logits = t.logits.data + blockIdx.x * t.logits.stride;
    const int32_t cols = t.logits.cols;
    float4 fours[EACH / 4];
#pragma unroll
    for (int j = 0; j < EACH / 4; j++) {
        const int32_t i = slice_id(4 * j);
        fours[j] = i < cols ? lore_load_four(logits, i, cols, t.is_wide)
                            : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        const float4 four = fours[j / 4];
        const float logit = j % 4 == 0   ? four.x
                            : j % 4 == 1 ? four.y
                            : j % 4 == 2 ? four.z
                                         : four.w;
        x[j] = slice_id(j) < cols ? clean(logit) : -INFINITY;
    }
}

/* Whether all other blocks of this row are done. */
static __device__ __forceinline__ bool is_last_of_row(const task &t)
{
    return lore_is_last_block(&t.arrived[blockIdx.x], gridDim.y);
}

/* One thread does it. */
static __device__ __forceinline__ void put_draw(const task &t, const outcome &o, int32_t id)
{
    const float top = logit_of_rank(o.best),
                logit = clean(t.logits.data[blockIdx.x * t.logits.stride + id]);
    t.ids[blockIdx.x] = id;
    t.logprobs[blockIdx.x] = (logit == top ? 0.0f : logit - top) - logf(o.sum);
}

/* Whether a random number is needed, not only the largest logit. */
static __device__ __forceinline__ bool is_drawn(const lore_sample &sample, float top)
{
    return sample.temperature > 0.0f && top > -INFINITY;
}

/* ---- the largest ---- */

/* The sum of a part of a row, from its own largest logit to that of the whole. */
static __device__ __forceinline__ float rescale(float sum, uint64_t best, float top)
{
    const float own = logit_of_rank(best);
    return own == top ? sum : sum * expf(own - top);
}

/* Warps by themselves, then one for all: a barrier, not four. */
static __device__ __forceinline__ void survey_slice(const task &t, const float x[EACH])
{
    enum { WARPS = SLICE_THREADS / 32 };
    __shared__ uint64_t bests[WARPS];
    __shared__ float sums[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint64_t best = 0;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        const uint64_t rank = rank_of(x[j], slice_id(j)); /* where there is none: behind all */
        best = rank > best ? rank : best;
    }
    best = warp_max(best);
    const float top = logit_of_rank(best);
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        const float weight = expf(x[j] - top);
        sum += slice_id(j) >= t.logits.cols ? 0.0f : x[j] == top ? 1.0f : weight;
    }
    sum = lore_warp_sum(sum);
    if (lane == 0) {
        bests[warp] = best;
        sums[warp] = sum;
    }
    __syncthreads();
    if (warp == 0) {
        const uint64_t own = lane < WARPS ? bests[lane] : 0;
        best = warp_max(own);
        sum = lore_warp_sum(lane < WARPS ? rescale(sums[lane], own, logit_of_rank(best)) : 0.0f);
        if (lane == 0) {
            t.slices[(int64_t)blockIdx.x * t.slice_count + blockIdx.y] = {best, 0, sum};
        }
    }
}

static __global__ void __launch_bounds__(SLICE_THREADS) survey_kernel(task t)
{
    lore_cuda_release();
    lore_cuda_wait();
    const lore_sample sample = t.samples[blockIdx.x]; /* under way with the logits */
    float x[EACH];
    load_slice(x, t);
    survey_slice(t, x);
    if (is_cut(sample, t.logits.cols)) { /* the slices of a row clear its tally */
        unsigned *words = (unsigned *)&t.tallies[blockIdx.x];
        for (unsigned i = blockIdx.y * SLICE_THREADS + threadIdx.x;
             i < sizeof(tally) / sizeof *words; i += gridDim.y * SLICE_THREADS) {
            words[i] = 0;
        }
    }
    if (!is_last_of_row(t)) {
        return;
    }
    const slice *slices = t.slices + (int64_t)blockIdx.x * t.slice_count;
    uint64_t best = 0;
    for (int32_t i = threadIdx.x; i < t.slice_count; i += SLICE_THREADS) {
        best = slices[i].best > best ? slices[i].best : best;
    }
    best = block_max(best);
    const float top = logit_of_rank(best);
    float sum = 0.0f;
    for (int32_t i = threadIdx.x; i < t.slice_count; i += SLICE_THREADS) {
        sum += rescale(slices[i].sum, slices[i].best, top);
    }
    sum = lore_block_sum(sum);
    if (threadIdx.x == 0) {
        const outcome o = {best, {0, 0, 0}, sum};
        t.outcomes[blockIdx.x] = o;
        if (!is_drawn(sample, top)) {
            put_draw(t, o, id_of(best));
        }
    }
}

/* ---- weights ---- */

/* The step below the top, as wide everywhere, so that the logits of a model spread over many: their
 * leading bits are much the same. In the last one, which is not counted, weights are 0 (a NaN, of
 * an infinite distance in steps of infinite width, falls there too). */
static __device__ __forceinline__ int tally_bin(const row &r, float logit)
{
    if (logit == r.top) {
        return 0;
    }
    const float steps = (r.top - logit) * ((float)(TALLY_BINS - 1) / (SPAN * r.temperature));
    return (int)fminf(steps, (float)(TALLY_BINS - 1));
}

static __device__ void tally_slice(const row &r, const float x[EACH], tally *into)
{
    __shared__ uint32_t counts[TALLY_BINS], low[TALLY_BINS], high[TALLY_BINS];
    for (int i = threadIdx.x; i < TALLY_BINS; i += SLICE_THREADS) {
        counts[i] = 0;
        low[i] = 0;
        high[i] = 0;
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        if (slice_id(j) < r.count) {
            const int bin = tally_bin(r, x[j]);
            if (bin < TALLY_BINS - 1) { /* where most of a row lies at low temperatures */
                atomicAdd(&counts[bin], 1u);
                add_weight(&low[bin], &high[bin], weight_of(r, x[j]));
            }
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TALLY_BINS; i += SLICE_THREADS) {
        if (counts[i] != 0) {
            atomicAdd(&into->counts[i], counts[i]);
            atomicAdd(&into->weights[i], (unsigned long long)high[i] << 32 | low[i]);
        }
    }
}

/* Among all that min_p leaves, in the order of ids: first the slice, then the place in it. Threads
 * take runs of slices, and runs of a slice. */
static __device__ int32_t draw_any(const row &r, const lore_sample &sample, const slice *slices,
                                   int32_t slice_count)
{
    __shared__ int32_t found;
    __shared__ uint64_t found_before;
    const int32_t each = (slice_count + SLICE_THREADS - 1) / SLICE_THREADS;
    const int32_t first = each * (int32_t)threadIdx.x,
                  end = first + each < slice_count ? first + each : slice_count;
    uint64_t own = 0, total;
    for (int32_t i = first; i < end; i++) {
        own += slices[i].weight;
    }
    uint64_t at = sum_before(own, &total);
    const uint64_t falls = fall_of(sample, total);
    for (int32_t i = first; i < end; i++) {
        if (at <= falls && falls < at + slices[i].weight) {
            found = i;
            found_before = at;
        }
        at += slices[i].weight;
    }
    __syncthreads();
    const int32_t start = found * SLICE + (int32_t)threadIdx.x * EACH;
    const uint32_t least = least_key(sample, r.top);
    uint64_t weights[EACH];
    own = 0;
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const float logit = start + k < r.count ? logit_at(r, start + k) : -INFINITY;
        weights[k] = start + k < r.count && key_of(logit) >= least ? weight_of(r, logit) : 0;
        own += weights[k];
    }
    at = found_before + sum_before(own, &total); /* its barriers part the readers of found */
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        if (at <= falls && falls < at + weights[k]) {
            found = start + k;
        }
        at += weights[k];
    }
    __syncthreads();
    return found;
}

/* Every thread must come, and takes BINS_EACH neighbours. The last bin is never needed: nothing is
 * counted there, for it weighs nothing. */
static __device__ cut choose_cut(const tally *t, const lore_sample &sample, int32_t cols)
{
    __shared__ cut chosen;
    const int first = BINS_EACH * (int)threadIdx.x;
    const bool by_count = has_top_k(sample, cols);
    uint64_t counts[BINS_EACH], weights[BINS_EACH], own_count = 0, own_weight = 0, count, weight;
#pragma unroll
    for (int i = 0; i < BINS_EACH; i++) {
        counts[i] = t->counts[first + i];
        weights[i] = t->weights[first + i];
        own_count += counts[i];
        own_weight += weights[i];
    }
    uint64_t count_at = sum_before(own_count, &count);
    uint64_t weight_at = sum_before(own_weight, &weight);
    const uint64_t wanted = by_count ? (uint64_t)sample.top_k : share_of(sample, weight);
    if (threadIdx.x == 0) {
        chosen = {TALLY_BINS - 2, count, weight}; /* where less is there than is wanted */
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < BINS_EACH; i++) {
        const uint64_t before = by_count ? count_at : weight_at;
        count_at += counts[i];
        weight_at += weights[i];
        if (before < wanted && wanted <= (by_count ? count_at : weight_at)) {
            chosen = {first + i, count_at, weight}; /* of one thread: wanted is above 0 */
        }
    }
    __syncthreads();
    return chosen;
}

static __global__ void __launch_bounds__(SLICE_THREADS) weigh_kernel(task t)
{
    lore_cuda_release();
    lore_cuda_wait();
    const lore_sample sample = t.samples[blockIdx.x];
    outcome *o = &t.outcomes[blockIdx.x];
    const int32_t cols = t.logits.cols;
    const row r = {t.logits.data + blockIdx.x * t.logits.stride, cols, logit_of_rank(o->best),
                   sample.temperature};
    if (!is_drawn(sample, r.top)) {
        return;
    }
    float x[EACH];
    load_slice(x, t);
    if (is_cut(sample, cols)) {
        tally_slice(r, x, &t.tallies[blockIdx.x]);
        if (is_last_of_row(t)) {
            const cut chosen = choose_cut(&t.tallies[blockIdx.x], sample, cols);
            if (threadIdx.x == 0) {
                o->chosen = chosen;
            }
        }
        return;
    }
    const uint32_t least = least_key(sample, r.top);
    uint64_t own = 0, total;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        own += slice_id(j) < cols && key_of(x[j]) >= least ? weight_of(r, x[j]) : 0;
    }
    (void)sum_before(own, &total);
    slice *slices = t.slices + (int64_t)blockIdx.x * t.slice_count;
    if (threadIdx.x == 0) {
        slices[blockIdx.y].weight = total;
    }
    if (is_last_of_row(t)) {
        const int32_t id = draw_any(r, sample, slices, t.slice_count);
        if (threadIdx.x == 0) {
            put_draw(t, *o, id);
        }
    }
}

/* ---- the list ---- */

/* Add this block's part of the list, in any order: sorting takes it away. */
static __device__ void list_slice(const task &t, const row &r, int bin)
{
    __shared__ unsigned start;
    float x[EACH];
    load_slice(x, t);
    uint64_t own = 0, total;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        own += slice_id(j) < r.count && tally_bin(r, x[j]) <= bin;
    }
    const uint64_t before = sum_before(own, &total);
    if (threadIdx.x == 0) {
        start = atomicAdd(&t.tallies[blockIdx.x].listed, (unsigned)total);
    }
    __syncthreads();
    uint64_t *list = t.lists + (int64_t)blockIdx.x * LIST_MAX + start + before;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        if (slice_id(j) < r.count && tally_bin(r, x[j]) <= bin) {
            *list++ = rank_of(x[j], slice_id(j));
        }
    }
}

static __global__ void __launch_bounds__(ROW_THREADS) collect_kernel(task t)
{
    __shared__ union {
        histogram bins;
        uint64_t ranks[LIST_MAX];
    } space;
    lore_cuda_release();
    lore_cuda_wait();
    const lore_sample sample = t.samples[blockIdx.x];
    const outcome o = t.outcomes[blockIdx.x];
    const row r = {t.logits.data + blockIdx.x * t.logits.stride, t.logits.cols,
                   logit_of_rank(o.best), sample.temperature};
    if (!is_drawn(sample, r.top) || !is_cut(sample, r.count)) {
        return;
    }
    const bool is_listed = o.chosen.count <= LIST_MAX;
    if (is_listed) {
        list_slice(t, r, o.chosen.bin);
    }
    if (!is_last_of_row(t)) {
        return;
    }
    const int32_t id = is_listed
                           ? draw_listed(r, sample, o.chosen,
                                         t.lists + (int64_t)blockIdx.x * LIST_MAX, space.ranks)
                           : draw_kept(r, sample, o.chosen.weight, &space.bins);
    if (threadIdx.x == 0) {
        put_draw(t, o, id);
    }
}

static cudaError_t sample_launch(lore_queue *queue, const task &t, lore_drawing widest)
{
    const unsigned rows = (unsigned)t.logits.rows;
    const dim3 slices(rows, (unsigned)t.slice_count);
    const dim3 lists(rows, ((unsigned)t.logits.cols - 1) / COLLECT_SLICE + 1);
    cudaError_t error = lore_cuda_launch(queue, survey_kernel, slices, dim3(SLICE_THREADS), 0, t);
    if (error == cudaSuccess && widest > LORE_DRAW_LARGEST) {
        error = lore_cuda_launch(queue, weigh_kernel, slices, dim3(SLICE_THREADS), 0, t);
    }
    if (error == cudaSuccess && widest > LORE_DRAW_ANY) {
        error = lore_cuda_launch(queue, collect_kernel, lists, dim3(ROW_THREADS), 0, t);
    }
    return error;
}

/* Where everything lies in scratch; NULL: only how many bytes that takes. Each part is a multiple
 * of 8 bytes, so that all lie aligned. */
static size_t place_scratch(task *t, char *scratch)
{
    const size_t rows = (size_t)t->logits.rows;
    size_t used = 0;
    t->lists = (uint64_t *)(scratch + used);
    used += rows * LIST_MAX * sizeof *t->lists;
    t->tallies = (tally *)(scratch + used);
    used += rows * sizeof *t->tallies;
    t->outcomes = (outcome *)(scratch + used);
    used += rows * sizeof *t->outcomes;
    t->slices = (slice *)(scratch + used);
    return used + rows * (size_t)t->slice_count * sizeof *t->slices;
}

/* As many rows at once as the queue has counters for. Greedy batches take the scratch of others
 * too: it grows once, when the device is not at work yet. */
void lore_cuda_sample(lore_queue *queue, int32_t *ids, float *logprobs, lore_view logits,
                      const lore_sample *samples, lore_drawing widest)
{
    for (int32_t first = 0; first < logits.rows; first += LORE_CUDA_ARRIVED) {
        const int32_t left = logits.rows - first;
        task t = {};
        t.ids = ids + first;
        t.logprobs = logprobs + first;
        t.logits = logits;
        t.logits.data += first * logits.stride;
        t.logits.rows = left < LORE_CUDA_ARRIVED ? left : (int32_t)LORE_CUDA_ARRIVED;
        t.samples = samples + first;
        t.arrived = lore_cuda_queue_of(queue)->arrived;
        t.is_wide = logits.cols % 4 == 0 && lore_is_aligned(logits, 4);
        t.slice_count = (logits.cols - 1) / SLICE + 1;
        char *scratch = (char *)lore_cuda_scratch(queue, place_scratch(&t, NULL));
        if (scratch == NULL) {
            return;
        }
        (void)place_scratch(&t, scratch);
        LORE_CUDA_NOTE(queue, sample_launch(queue, t, widest));
    }
}
