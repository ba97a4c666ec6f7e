/* Penalties and the draw of a token, one block a row; logits never leave the device.
 *
 * The rules are those of kernels/sample.c: largest logit first, lowest id first among equals. No
 * row is sorted. Weights exp((x - top) / temperature) are whole numbers, SCALE of them to one, so
 * that sums do not hang on the order of additions; what the rules ask for (the logit of rank k, the
 * logit at which a share of the weight is reached, the logit on which a random number falls) is
 * found by descending through the bits of the logits, as ordered integers: three histograms of
 * count and weight, each inside the bin that the one before chose. Then only equals are left, which
 * are taken by id. A row is read from the cache some ten times; greedy rows twice.
 *
 * Random numbers are those of sample.c: splitmix64 of seed and position. */
#include "kernels/cuda/cuda_int.h"

#include <string.h>

enum { THREADS = 1024, WARPS = THREADS / 32, BINS = 2048 };

static const float SCALE = 1099511627776.0f; /* 2^40: a quarter of a million of them fit 64 bits */

/* ---- numbers ---- */

/* As lore_random_next. */
static __device__ uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static __device__ double draw_unit(uint64_t seed, int32_t position)
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

/* ---- sums over the block; every thread must come, all get the result ---- */

static __device__ uint64_t warp_sum(uint64_t x)
{
    for (int distance = 16; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    }
    return x;
}

/* The sum of what threads before this one bring; *total gets all. */
static __device__ uint64_t sum_before(uint64_t x, uint64_t *total)
{
    __shared__ uint64_t parts[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
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
    const uint64_t part = parts[lane];
    const uint64_t before = warp_sum(lane < warp ? part : 0);
    *total = warp_sum(part);
    return before + up_to - x;
}

/* The largest logit, its lowest id in *id. */
static __device__ float find_top(const float *logits, int32_t count, int32_t *id)
{
    __shared__ uint64_t parts[WARPS];
    uint64_t best = 0;
    for (int32_t i = threadIdx.x; i < count; i += THREADS) {
        const uint64_t mine = (uint64_t)key_of(clean(logits[i])) << 32 | (uint32_t)~i;
        best = mine > best ? mine : best;
    }
    for (int round = 0; round < 2; round++) { /* inside of warps, then over them */
        for (int distance = 16; distance > 0; distance /= 2) {
            const uint64_t other = __shfl_xor_sync(0xffffffffu, best, distance);
            best = other > best ? other : best;
        }
        if (round == 0) {
            __syncthreads();
            if (threadIdx.x % 32 == 0) {
                parts[threadIdx.x / 32] = best;
            }
            __syncthreads();
            best = parts[threadIdx.x % 32];
        }
    }
    *id = (int32_t) ~(uint32_t)best;
    return logit_of((uint32_t)(best >> 32));
}

/* ---- descent ---- */

/* A place in the order of a row: a logit, what lies before it, and how many equal it. */
typedef struct place {
    uint32_t key;
    uint64_t before; /* count or weight of larger ones */
    uint64_t weight; /* of one of them */
    int32_t equals;
} place;

typedef struct histogram { /* weights in halves: shared memory adds 32 bits at once */
    uint32_t counts[BINS], low[BINS], high[BINS];
} histogram;

static __device__ __forceinline__ void add_weight(histogram *h, uint32_t bin, uint64_t weight)
{
    const uint32_t low = (uint32_t)weight, before = atomicAdd(&h->low[bin], low);
    const uint32_t high = (uint32_t)(weight >> 32) + (before + low < before ? 1 : 0);
    if (high != 0) {
        atomicAdd(&h->high[bin], high);
    }
}

static __device__ __forceinline__ uint64_t value_at(const histogram *h, bool by_weight, int bin)
{
    return by_weight ? (uint64_t)h->high[bin] << 32 | h->low[bin] : h->counts[bin];
}

typedef struct choice {
    int32_t bin, count;
    uint64_t before;
} choice;

/* The first bin from above at which `before` plus its own reaches more than target. One warp. */
static __device__ void choose_bin(const histogram *h, bool by_weight, uint64_t before,
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
static __device__ place descend(const row &r, histogram *h, bool by_weight, uint64_t target)
{
    __shared__ choice chosen;
    static const int shifts[] = {21, 10, 0}, widths[] = {11, 11, 10};
    place found = {0, 0, 0, 0};
    uint32_t known = 0; /* bits of the key that are chosen already */
    for (int step = 0; step < 3; step++) {
        __syncthreads();
        for (int i = threadIdx.x; i < BINS; i += THREADS) {
            h->counts[i] = 0;
            h->low[i] = 0;
            h->high[i] = 0;
        }
        __syncthreads();
        for (int32_t i = threadIdx.x; i < r.count; i += THREADS) {
            const float logit = logit_at(r, i);
            const uint32_t key = key_of(logit);
            if ((key & known) == found.key) {
                const uint32_t bin = key >> shifts[step] & ((1u << widths[step]) - 1);
                atomicAdd(&h->counts[bin], 1u);
                if (by_weight) {
                    add_weight(h, bin, weight_of(r, logit));
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

/* Weight of the logits above a place. */
static __device__ uint64_t weight_above(const row &r, const place &at)
{
    uint64_t own = 0, total;
    for (int32_t i = threadIdx.x; i < r.count; i += THREADS) {
        const float logit = logit_at(r, i);
        own += key_of(logit) > at.key ? weight_of(r, logit) : 0;
    }
    (void)sum_before(own, &total);
    return total;
}

/* The id of the nth (from 0) of those that equal a key, in the order of ids. Threads take runs of
 * ids. */
static __device__ int32_t find_equal(const row &r, uint32_t key, uint64_t nth)
{
    __shared__ int32_t id;
    const int32_t each = (r.count + THREADS - 1) / THREADS;
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

/* ---- the draw ---- */

/* Among all, in the order of ids. */
static __device__ int32_t draw_any(const row &r, double unit)
{
    __shared__ int32_t id;
    const int32_t each = (r.count + THREADS - 1) / THREADS;
    const int32_t first = each * (int32_t)threadIdx.x,
                  end = first + each < r.count ? first + each : r.count;
    uint64_t own = 0, total;
    for (int32_t i = first; i < end; i++) {
        own += weight_of(r, logit_at(r, i));
    }
    uint64_t at = sum_before(own, &total);
    const uint64_t wanted = (uint64_t)(unit * (double)total);
    if (at <= wanted && wanted < at + own) {
        for (int32_t i = first; i < end; i++) {
            at += weight_of(r, logit_at(r, i));
            if (at > wanted) {
                id = i;
                break;
            }
        }
    }
    __syncthreads();
    return id;
}

/* Among the largest ones: a rank and a share cut the row off, then the random number falls on a
 * place above the cut. */
static __device__ int32_t draw_kept(const row &r, const lore_sample &sample, histogram *h)
{
    uint64_t mass;
    if (sample.top_k > 0 && sample.top_k < r.count) {
        const place last = descend(r, h, false, (uint64_t)sample.top_k - 1);
        mass = weight_above(r, last) + ((uint64_t)sample.top_k - last.before) * last.weight;
    } else {
        uint64_t own = 0;
        for (int32_t i = threadIdx.x; i < r.count; i += THREADS) {
            own += weight_of(r, logit_at(r, i));
        }
        (void)sum_before(own, &mass);
    }
    if (sample.top_p < 1.0f) {
        /* The smallest number of weights that reaches the share; at least one. */
        const double share = ceil((double)sample.top_p * (double)mass);
        const uint64_t wanted = share < 1.0 ? 1 : share > (double)mass ? mass : (uint64_t)share;
        const place last = descend(r, h, true, wanted - 1);
        mass = last.before + (wanted - last.before + last.weight - 1) / last.weight * last.weight;
    }
    const uint64_t falls = (uint64_t)(draw_unit(sample.seed, sample.position) * (double)mass);
    const place at = descend(r, h, true, falls < mass ? falls : mass - 1);
    return find_equal(r, at.key, (falls - at.before) / at.weight);
}

static __global__ void __launch_bounds__(THREADS)
    sample_kernel(int32_t *ids, float *logprobs, lore_view logits, const lore_sample *samples)
{
    __shared__ histogram h;
    const lore_sample sample = samples[blockIdx.x];
    const float *values = logits.data + blockIdx.x * logits.stride;
    int32_t id;
    const float top = find_top(values, logits.cols, &id);
    const row r = {values, logits.cols, top, sample.temperature};
    const bool is_cut = sample.top_p < 1.0f || (sample.top_k > 0 && sample.top_k < logits.cols);
    if (sample.temperature > 0.0f && top > -INFINITY) {
        id = is_cut ? draw_kept(r, sample, &h)
                    : draw_any(r, draw_unit(sample.seed, sample.position));
    }
    float sum = 0.0f;
    for (int32_t i = threadIdx.x; i < logits.cols; i += THREADS) {
        const float logit = logit_at(r, i);
        sum += logit == top ? 1.0f : expf(logit - top);
    }
    sum = lore_block_sum(sum);
    if (threadIdx.x == 0) {
        const float logit = logit_at(r, id);
        ids[blockIdx.x] = id;
        logprobs[blockIdx.x] = (logit == top ? 0.0f : logit - top) - logf(sum);
    }
}

void lore_cuda_sample(lore_queue *queue, int32_t *ids, float *logprobs, lore_view logits,
                      const lore_sample *samples)
{
    if (logits.rows > 0) {
        sample_kernel<<<logits.rows, THREADS, 0, lore_cuda_queue_of(queue)->stream>>>(
            ids, logprobs, logits, samples);
        LORE_CUDA_NOTE(queue, cudaGetLastError());
    }
}

/* ---- penalties ---- */

/* A row that is kept from tokens: `count` ids from `first` on in the list of all. */
typedef struct penalised {
    int32_t row, first, count;
    float factor;
} penalised;

/* Block (x, y) takes every gridDim.x-th run of ids of row y. A token is penalised once: the first
 * to set its bit does it. */
static __global__ void penalise_kernel(lore_view logits, const penalised *rows, const int32_t *ids,
                                       unsigned *seen, int32_t words)
{
    const penalised own = rows[blockIdx.y];
    float *values = logits.data + own.row * logits.stride;
    unsigned *bits = seen + (int64_t)blockIdx.y * words;
    for (int32_t i = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x); i < own.count;
         i += (int32_t)(gridDim.x * blockDim.x)) {
        const int32_t id = ids[own.first + i];
        const unsigned bit = 1u << (id % 32);
        if ((atomicOr(&bits[id / 32], bit) & bit) == 0) {
            values[id] = values[id] > 0.0f ? values[id] / own.factor : values[id] * own.factor;
        }
    }
}

static bool is_penalised(const lore_penalty *penalty)
{
    return penalty->factor != 1.0f && penalty->count > 0;
}

/* Rows and their ids, one behind the other as the device gets them. */
static void fill_penalties(penalised *rows, int32_t *ids, const lore_penalty *penalties,
                           int32_t count)
{
    int32_t first = 0;
    for (int32_t r = 0; r < count; r++) {
        const lore_penalty *p = &penalties[r];
        if (is_penalised(p)) {
            *rows++ = {r, first, p->count, p->factor};
            memcpy(ids + first, p->ids, (size_t)p->count * sizeof *ids);
            first += p->count;
        }
    }
}

void lore_cuda_penalise(lore_queue *queue, lore_view logits, const lore_penalty *penalties)
{
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    const int32_t words = logits.cols / 32 + 1;
    size_t rows = 0, total = 0;
    int32_t longest = 0;
    for (int32_t r = 0; r < logits.rows; r++) {
        if (is_penalised(&penalties[r])) {
            rows++;
            total += (size_t)penalties[r].count;
            longest = penalties[r].count > longest ? penalties[r].count : longest;
        }
    }
    if (rows == 0) {
        return;
    }
    const size_t bits_bytes = rows * (size_t)words * sizeof(unsigned);
    const size_t list_bytes = rows * sizeof(penalised) + total * sizeof(int32_t);
    char *bits = (char *)lore_cuda_scratch(queue, bits_bytes + list_bytes + sizeof(penalised));
    char *stage = bits != NULL ? (char *)lore_cuda_stage(queue, list_bytes) : NULL;
    if (stage == NULL) {
        return; /* noted */
    }
    const size_t align = sizeof(penalised) - 1;
    char *list = bits + ((bits_bytes + align) & ~align);
    fill_penalties((penalised *)stage, (int32_t *)(stage + rows * sizeof(penalised)), penalties,
                   logits.rows);
    LORE_CUDA_NOTE(queue, cudaMemsetAsync(bits, 0, bits_bytes, stream));
    LORE_CUDA_NOTE(queue, cudaMemcpyAsync(list, stage, list_bytes, cudaMemcpyHostToDevice, stream));
    lore_cuda_stage_sent(queue);
    const int32_t runs = (longest + 1023) / 1024;
    penalise_kernel<<<dim3((unsigned)(runs < 64 ? runs : 64), (unsigned)rows), 256, 0, stream>>>(
        logits, (const penalised *)list, (const int32_t *)(list + rows * sizeof(penalised)),
        (unsigned *)bits, words);
    LORE_CUDA_NOTE(queue, cudaGetLastError());
}
