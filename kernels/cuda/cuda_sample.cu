/* Drawing a token from each row of logits, which never leave the device.
 *
 * The rules are those of kernels/sample.c: largest logit first, lowest id first among equals. One
 * block would read a row of 128k logits for some ten microseconds, so rows are read in slices of
 * SLICE, a block each, and one block a row puts together what they found:
 *
 *   survey    each slice's largest logit, and its sum for the log probability
 *   weigh     with the largest of the row known: each slice's weight, or, where top_k or top_p cut,
 *             a tally of the row: count and weight by distance from the top in TALLY_BINS steps
 *   collect   logits above the step in which the cut must fall, LIST_MAX of them at most
 *   draw      greedy rows are done; uncut ones look into the slice on which the random number
 *             falls; for the others the list is sorted, and the cut and the draw are places in the
 *             running sum of its weights
 *
 * Rows that keep more than the list holds (equals by the thousand, a flat row at a high
 * temperature) are cut by one block without it (cuda_descent_int.h).
 *
 * Expected bound: the first two kernels each read all logits, the second and third from the cache;
 * 64 rows of 128k are 33 MB. */
#include "kernels/cuda/cuda_descent_int.h"

enum {
    SLICE_THREADS = 256,
    EACH = 16, /* logits of a thread of a slice, in registers */
    SLICE = SLICE_THREADS * EACH,
    TALLY_BINS = 512,
    LIST_MAX = 4096,
    LISTED = LIST_MAX / ROW_THREADS /* of a thread: neighbours in the sorted list */
};
static_assert(SLICE % ROW_THREADS == 0, "a slice is read in whole runs");

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

/* In scratch. */
typedef struct survey {
    slice *slices; /* [rows, slice_count] */
    tally *tallies;
    uint64_t *lists; /* [rows, LIST_MAX] ranks */
    int32_t slice_count;
} survey;

/* The logits of this thread, those of a warp side by side. */
static __device__ __forceinline__ void load_slice(float x[EACH], const float *logits, int32_t count)
{
    const int32_t first = (int32_t)blockIdx.y * SLICE + (int32_t)threadIdx.x;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        const int32_t i = first + j * SLICE_THREADS;
        x[j] = i < count ? clean(logits[i]) : -INFINITY;
    }
}

/* Of logit j of load_slice; not below count: there is none. */
static __device__ __forceinline__ int32_t slice_id(int j)
{
    return (int32_t)blockIdx.y * SLICE + j * SLICE_THREADS + (int32_t)threadIdx.x;
}

/* The rank of the largest logit of this block's row. */
static __device__ uint64_t find_top(const survey &s)
{
    const slice *slices = s.slices + (int64_t)blockIdx.x * s.slice_count;
    uint64_t best = 0;
    for (int32_t i = threadIdx.x; i < s.slice_count; i += blockDim.x) {
        best = slices[i].best > best ? slices[i].best : best;
    }
    return block_max(best);
}

static __global__ void __launch_bounds__(SLICE_THREADS) survey_kernel(survey s, lore_view logits)
{
    float x[EACH];
    load_slice(x, logits.data + blockIdx.x * logits.stride, logits.cols);
    uint64_t best = 0;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        const uint64_t rank = slice_id(j) < logits.cols ? rank_of(x[j], slice_id(j)) : 0;
        best = rank > best ? rank : best;
    }
    best = block_max(best);
    const float top = logit_of_rank(best);
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        if (slice_id(j) < logits.cols) {
            sum += x[j] == top ? 1.0f : expf(x[j] - top);
        }
    }
    sum = lore_block_sum(sum);
    if (threadIdx.x == 0) {
        s.slices[(int64_t)blockIdx.x * s.slice_count + blockIdx.y] = {best, 0, sum};
    }
    /* The slices of a row clear its tally for the kernels behind. */
    unsigned *words = (unsigned *)&s.tallies[blockIdx.x];
    for (unsigned i = blockIdx.y * SLICE_THREADS + threadIdx.x; i < sizeof(tally) / sizeof *words;
         i += gridDim.y * SLICE_THREADS) {
        words[i] = 0;
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

static __global__ void __launch_bounds__(SLICE_THREADS)
    weigh_kernel(survey s, lore_view logits, const lore_sample *samples)
{
    const lore_sample sample = samples[blockIdx.x];
    if (!(sample.temperature > 0.0f)) {
        return;
    }
    float x[EACH]; /* under way while the top is looked for */
    const float *values = logits.data + blockIdx.x * logits.stride;
    load_slice(x, values, logits.cols);
    const row r = {values, logits.cols, logit_of_rank(find_top(s)), sample.temperature};
    if (r.top == -INFINITY) {
        return;
    }
    if (is_cut(sample, logits.cols)) {
        tally_slice(r, x, &s.tallies[blockIdx.x]);
        return;
    }
    const uint32_t least = least_key(sample, r.top);
    uint64_t own = 0, total;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        own += slice_id(j) < logits.cols && key_of(x[j]) >= least ? weight_of(r, x[j]) : 0;
    }
    (void)sum_before(own, &total);
    if (threadIdx.x == 0) {
        s.slices[(int64_t)blockIdx.x * s.slice_count + blockIdx.y].weight = total;
    }
}

/* ---- the list ---- */

typedef struct cut {
    int bin;         /* the last one that the cut may leave something of */
    uint64_t count;  /* of logits up to and with it */
    uint64_t weight; /* of the whole row */
} cut;

/* Every thread must come; the first warp does it, a run of bins a lane. The last bin is never
 * needed: it weighs nothing. */
static __device__ cut choose_cut(const tally *t, const lore_sample &sample, int32_t cols)
{
    enum { RUN = TALLY_BINS / 32 };
    __shared__ cut chosen;
    if (threadIdx.x < 32) {
        const int lane = threadIdx.x, first = lane * RUN;
        const bool by_count = has_top_k(sample, cols);
        uint64_t own_weight = 0, own = 0;
        for (int i = 0; i < RUN; i++) {
            own_weight += t->weights[first + i];
            own += by_count ? t->counts[first + i] : t->weights[first + i];
        }
        const uint64_t weight = warp_sum(own_weight);
        uint64_t so_far = own;
        for (int distance = 1; distance < 32; distance *= 2) {
            const uint64_t other = __shfl_up_sync(0xffffffffu, so_far, distance);
            so_far += lane >= distance ? other : 0;
        }
        so_far -= own;
        const uint64_t wanted = by_count ? (uint64_t)sample.top_k : share_of(sample, weight);
        int bin = TALLY_BINS - 2;
        for (int i = 0; i < RUN; i++) {
            so_far += by_count ? t->counts[first + i] : t->weights[first + i];
            bin = so_far >= wanted && first + i < bin ? first + i : bin;
        }
        for (int distance = 16; distance > 0; distance /= 2) {
            const int other = __shfl_xor_sync(0xffffffffu, bin, distance);
            bin = other < bin ? other : bin;
        }
        uint64_t count = 0;
        for (int i = 0; i < RUN; i++) {
            count += first + i <= bin ? t->counts[first + i] : 0;
        }
        count = warp_sum(count);
        if (lane == 0) {
            chosen = {bin, count, weight};
        }
    }
    __syncthreads();
    return chosen;
}

/* In any order: sorting takes it away. */
static __global__ void __launch_bounds__(SLICE_THREADS)
    collect_kernel(survey s, lore_view logits, const lore_sample *samples)
{
    __shared__ unsigned start;
    const lore_sample sample = samples[blockIdx.x];
    if (!(sample.temperature > 0.0f) || !is_cut(sample, logits.cols)) {
        return;
    }
    float x[EACH];
    const float *values = logits.data + blockIdx.x * logits.stride;
    load_slice(x, values, logits.cols);
    const row r = {values, logits.cols, logit_of_rank(find_top(s)), sample.temperature};
    if (r.top == -INFINITY) {
        return;
    }
    tally *t = &s.tallies[blockIdx.x];
    const cut chosen = choose_cut(t, sample, logits.cols);
    if (chosen.count > LIST_MAX) {
        return;
    }
    uint64_t own = 0, total;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        own += slice_id(j) < logits.cols && tally_bin(r, x[j]) <= chosen.bin;
    }
    const uint64_t before = sum_before(own, &total);
    if (threadIdx.x == 0) {
        start = atomicAdd(&t->listed, (unsigned)total);
    }
    __syncthreads();
    uint64_t *list = s.lists + (int64_t)blockIdx.x * LIST_MAX + start + before;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        if (slice_id(j) < logits.cols && tally_bin(r, x[j]) <= chosen.bin) {
            *list++ = rank_of(x[j], slice_id(j));
        }
    }
}

/* Largest first; `size`, a power of two, at most LIST_MAX. (Batcher 1968) */
static __device__ void sort_ranks(uint64_t *ranks, int size)
{
    for (int run = 2; run <= size; run *= 2) {
        for (int distance = run / 2; distance > 0; distance /= 2) {
            __syncthreads();
            for (int pair = threadIdx.x; pair < size / 2; pair += ROW_THREADS) {
                const int i = 2 * pair - (pair & (distance - 1));
                const uint64_t a = ranks[i], b = ranks[i + distance];
                const bool is_falling = (i & run) == 0;
                if ((a < b) == is_falling) {
                    ranks[i] = b;
                    ranks[i + distance] = a;
                }
            }
        }
    }
    __syncthreads();
}

/* The weights of LISTED neighbours of the sorted list, and what lies before them. */
typedef struct listed {
    uint64_t weights[LISTED], before;
} listed;

typedef struct fallen {
    int at;          /* in the list */
    uint64_t weight; /* up to and with it */
} fallen;

/* The place at which the running weight first exceeds target, which is less than that of all. */
static __device__ fallen find_listed(const listed &own, uint64_t target)
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
static __device__ uint64_t weight_of_first(const listed &own, int count)
{
    uint64_t mine = 0, total;
#pragma unroll
    for (int k = 0; k < LISTED; k++) {
        mine += (int)threadIdx.x * LISTED + k < count ? own.weights[k] : 0;
    }
    (void)sum_before(mine, &total);
    return total;
}

static __device__ int32_t draw_listed(const row &r, const lore_sample &sample, const cut &chosen,
                                      const uint64_t *list, uint64_t *ranks)
{
    const int count = (int)chosen.count;
    int size = 2;
    while (size < count) {
        size *= 2;
    }
    for (int i = threadIdx.x; i < size; i += ROW_THREADS) {
        ranks[i] = i < count ? list[i] : 0;
    }
    sort_ranks(ranks, size);
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

/* ---- the draw ---- */

/* Among all that min_p leaves, in the order of ids: first the slice, then the place in it. Threads
 * take runs of slices, and runs of a slice. */
static __device__ int32_t draw_any(const row &r, const lore_sample &sample, const slice *slices,
                                   int32_t slice_count)
{
    enum { RUN = SLICE / ROW_THREADS };
    __shared__ int32_t found;
    __shared__ uint64_t found_before;
    const int32_t each = (slice_count + ROW_THREADS - 1) / ROW_THREADS;
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
    const int32_t start = found * SLICE + (int32_t)threadIdx.x * RUN;
    const uint32_t least = least_key(sample, r.top);
    uint64_t weights[RUN];
    own = 0;
#pragma unroll
    for (int k = 0; k < RUN; k++) {
        const float logit = start + k < r.count ? logit_at(r, start + k) : -INFINITY;
        weights[k] = start + k < r.count && key_of(logit) >= least ? weight_of(r, logit) : 0;
        own += weights[k];
    }
    at = found_before + sum_before(own, &total); /* its barriers part the readers of found */
#pragma unroll
    for (int k = 0; k < RUN; k++) {
        if (at <= falls && falls < at + weights[k]) {
            found = start + k;
        }
        at += weights[k];
    }
    __syncthreads();
    return found;
}

static __global__ void __launch_bounds__(ROW_THREADS)
    draw_kernel(int32_t *ids, float *logprobs, survey s, lore_view logits,
                const lore_sample *samples)
{
    __shared__ union {
        histogram bins;
        uint64_t ranks[LIST_MAX];
    } space;
    const lore_sample sample = samples[blockIdx.x];
    const float *values = logits.data + blockIdx.x * logits.stride;
    const slice *slices = s.slices + (int64_t)blockIdx.x * s.slice_count;
    const uint64_t best = find_top(s);
    const row r = {values, logits.cols, logit_of_rank(best), sample.temperature};
    int32_t id = id_of(best);
    const bool is_drawn = sample.temperature > 0.0f && r.top > -INFINITY;
    if (is_drawn && !is_cut(sample, logits.cols)) {
        id = draw_any(r, sample, slices, s.slice_count);
    } else if (is_drawn) {
        const cut chosen = choose_cut(&s.tallies[blockIdx.x], sample, logits.cols);
        id = chosen.count > LIST_MAX
                 ? draw_kept(r, sample, chosen.weight, &space.bins)
                 : draw_listed(r, sample, chosen, s.lists + (int64_t)blockIdx.x * LIST_MAX,
                               space.ranks);
    }
    float sum = 0.0f;
    for (int32_t i = threadIdx.x; i < s.slice_count; i += ROW_THREADS) {
        const float top = logit_of_rank(slices[i].best);
        sum += slices[i].sum * (top == r.top ? 1.0f : expf(top - r.top));
    }
    sum = lore_block_sum(sum);
    if (threadIdx.x == 0) {
        const float logit = logit_at(r, id);
        ids[blockIdx.x] = id;
        logprobs[blockIdx.x] = (logit == r.top ? 0.0f : logit - r.top) - logf(sum);
    }
}

static cudaError_t sample_launch(int32_t *ids, float *logprobs, survey s, lore_view logits,
                                 const lore_sample *samples, cudaStream_t stream)
{
    const dim3 grid((unsigned)logits.rows, (unsigned)s.slice_count);
    survey_kernel<<<grid, SLICE_THREADS, 0, stream>>>(s, logits);
    weigh_kernel<<<grid, SLICE_THREADS, 0, stream>>>(s, logits, samples);
    collect_kernel<<<grid, SLICE_THREADS, 0, stream>>>(s, logits, samples);
    draw_kernel<<<(unsigned)logits.rows, ROW_THREADS, 0, stream>>>(ids, logprobs, s, logits,
                                                                   samples);
    return cudaGetLastError();
}

void lore_cuda_sample(lore_queue *queue, int32_t *ids, float *logprobs, lore_view logits,
                      const lore_sample *samples)
{
    if (logits.rows == 0) {
        return;
    }
    /* Lists, tallies, slices: each a multiple of 8 bytes, so that all lie aligned. */
    const size_t rows = (size_t)logits.rows, slices = ((size_t)logits.cols - 1) / SLICE + 1;
    const size_t list_bytes = rows * LIST_MAX * sizeof(uint64_t);
    const size_t tally_bytes = rows * sizeof(tally);
    char *scratch =
        (char *)lore_cuda_scratch(queue, list_bytes + tally_bytes + rows * slices * sizeof(slice));
    if (scratch != NULL) {
        const survey s = {(slice *)(scratch + list_bytes + tally_bytes),
                          (tally *)(scratch + list_bytes), (uint64_t *)scratch, (int32_t)slices};
        LORE_CUDA_NOTE(queue, sample_launch(ids, logprobs, s, logits, samples,
                                            lore_cuda_queue_of(queue)->stream));
    }
}
