/* Penalties, and drawing one token from one row of logits, for every backend that computes on the
 * host.
 *
 * ref and cpu share this file on purpose: equal logits must give equal tokens, and the choice hangs
 * on the order of sums and on ties, so two implementations would only be a chance to differ. All
 * that decides the token is done in double, in one fixed order: largest logit first, lowest id
 * first among equals.
 *
 * top_p asks for the smallest set of largest probabilities. Sorting a whole vocabulary for it would
 * cost a millisecond; a heap gives the largest ones in order, and a few dozen are usually enough:
 * O(v + kept log v).
 *
 * The random number is a pure function of (seed, position), so that a request gives the same tokens
 * whatever else is in its batch: splitmix64 (Steele, Lea, Flood 2014) of the seed, crossed with
 * splitmix64 of the position. */
#include "base/clock.h"
#include "kernels/backend_int.h"

#include <math.h>
#include <string.h>

/* ---- penalties ---- */

/* The row in hand. What is done to a token once asks the bit that each token has whether it has
 * been done: 16 KiB for a vocabulary of 128k, which cost less than to keep the set of every
 * sequence while it grows. Passed by value, so that stores to the bits do not bring it from memory
 * again. */
typedef struct penalised {
    float *logits;
    int32_t count;
    uint8_t *is_done; /* [(count + 7) / 8] */
} penalised;

static void forget_done(penalised row)
{
    memset(row.is_done, 0, ((size_t)row.count + 7) / 8);
}

static bool is_first(penalised row, int32_t id)
{
    const uint8_t bit = (uint8_t)(1u << (id % 8));
    LORE_ASSERT(id >= 0 && id < row.count);
    if ((row.is_done[id / 8] & bit) != 0) {
        return false;
    }
    row.is_done[id / 8] |= bit;
    return true;
}

static void add_biases(penalised row, lore_penalty penalty)
{
    for (int32_t i = 0; i < penalty.bias_count; i++) {
        const lore_bias bias = penalty.biases[i];
        LORE_ASSERT(bias.id >= 0 && bias.id < row.count);
        row.logits[bias.id] += bias.bias;
    }
}

static void penalise_repetition(penalised row, lore_penalty penalty)
{
    forget_done(row);
    for (int32_t i = 0; i < penalty.count; i++) {
        const int32_t id = penalty.ids[i];
        if (is_first(row, id)) {
            row.logits[id] = row.logits[id] > 0.0f ? row.logits[id] / penalty.repetition
                                                   : row.logits[id] * penalty.repetition;
        }
    }
}

/* Time after time, not by a product with the count: so nobody has to count, and a backend whose
 * threads each take one time gets the same bits. */
static void penalise_frequency(penalised row, lore_penalty penalty)
{
    for (int32_t i = penalty.answer_start; i < penalty.count; i++) {
        LORE_ASSERT(penalty.ids[i] >= 0 && penalty.ids[i] < row.count);
        row.logits[penalty.ids[i]] -= penalty.frequency;
    }
}

static void penalise_presence(penalised row, lore_penalty penalty)
{
    forget_done(row);
    for (int32_t i = penalty.answer_start; i < penalty.count; i++) {
        if (is_first(row, penalty.ids[i])) {
            row.logits[penalty.ids[i]] -= penalty.presence;
        }
    }
}

void lore_host_penalise(lore_queue *queue, lore_view logits, const lore_penalty *penalties)
{
    for (int32_t r = 0; r < logits.rows; r++) {
        const lore_penalty penalty = penalties[r];
        penalised row = {logits.data + r * logits.stride, logits.cols, NULL};
        LORE_ASSERT(penalty.repetition > 0.0f);
        if (penalty.repetition != 1.0f || penalty.presence != 0.0f) {
            row.is_done = lore_host_scratch(queue, ((size_t)logits.cols + 7) / 8);
            if (row.is_done == NULL) {
                return;
            }
        }
        add_biases(row, penalty);
        if (penalty.repetition != 1.0f) {
            penalise_repetition(row, penalty);
        }
        if (penalty.frequency != 0.0f) {
            penalise_frequency(row, penalty);
        }
        if (penalty.presence != 0.0f) {
            penalise_presence(row, penalty);
        }
    }
}

/* ---- drawing ---- */

/* Uniform in [0, 1), 53 bits. */
static double draw_unit(uint64_t seed, int32_t position)
{
    uint64_t place = (uint64_t)(int64_t)position;
    uint64_t state = seed ^ lore_random_next(&place);
    return (double)(lore_random_next(&state) >> 11) * 0x1p-53;
}

static bool is_before(lore_candidate a, lore_candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sift_down(lore_candidate *heap, int32_t count, int32_t at)
{
    const lore_candidate moving = heap[at];
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= count) {
            break;
        }
        if (child + 1 < count && is_before(heap[child + 1], heap[child])) {
            child++;
        }
        if (!is_before(heap[child], moving)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

/* Difference to the largest logit, in units of temperature; equal infinities are equal. */
static double excess(float logit, float top, float temperature)
{
    return logit == top ? 0.0 : ((double)logit - (double)top) / (double)temperature;
}

/* The logit whose probability is min_p times the largest: what is below it is cut off. */
static double least_of(const lore_sample *sample, float top)
{
    return (double)top + (double)sample->temperature * log((double)sample->min_p);
}

static double sum_weights(const float *logits, int32_t count, float top, float temperature)
{
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++) {
        sum += exp(excess(logits[i], top, temperature));
    }
    return sum;
}

/* Draw among all tokens, in the order of their ids. */
static int32_t draw_any(const float *logits, int32_t count, float top, int32_t top_id,
                        const lore_sample *sample)
{
    const double total = sum_weights(logits, count, top, sample->temperature);
    double left = draw_unit(sample->seed, sample->position) * total;
    for (int32_t i = 0; i < count; i++) {
        left -= exp(excess(logits[i], top, sample->temperature));
        if (left < 0.0) {
            return i;
        }
    }
    return top_id; /* rounding used up the whole sum */
}

/* Draw among all tokens that min_p leaves: the others lose what logit they had. */
static int32_t draw_likely(float *logits, int32_t count, float top, int32_t top_id,
                           const lore_sample *sample)
{
    const double least = least_of(sample, top);
    for (int32_t i = 0; i < count; i++) {
        logits[i] = (double)logits[i] < least ? -INFINITY : logits[i];
    }
    return draw_any(logits, count, top, top_id, sample);
}

/* Candidates lie best first from the end of their array. Cuts the `kept` first ones where min_p
 * says, the best of all never; gives the weight of those that stay. */
static double keep_likely(const lore_candidate *candidates, int32_t count, int32_t *kept, float top,
                          const lore_sample *sample)
{
    const double least = least_of(sample, top);
    double sum = 0.0;
    int32_t likely = 0;
    while (likely < *kept &&
           (likely == 0 || (double)candidates[count - 1 - likely].logit >= least)) {
        sum += exp(excess(candidates[count - 1 - likely].logit, top, sample->temperature));
        likely++;
    }
    *kept = likely;
    return sum;
}

/* Draw among the largest ones. They are taken off the heap in order and collected behind its
 * shrinking end. */
static int32_t draw_kept(const float *logits, int32_t count, float top, const lore_sample *sample,
                         lore_candidate *candidates)
{
    for (int32_t i = 0; i < count; i++) {
        candidates[i] = (lore_candidate){logits[i], i};
    }
    for (int32_t i = count / 2 - 1; i >= 0; i--) {
        sift_down(candidates, count, i);
    }
    const int32_t kept_max = sample->top_k > 0 && sample->top_k < count ? sample->top_k : count;
    const bool has_top_p = sample->top_p < 1.0f;
    /* The mass that top_p is a share of: that of the top_k, where both are asked for, which is
     * known only when all of them are out of the heap. */
    const double mass =
        kept_max < count ? INFINITY : sum_weights(logits, count, top, sample->temperature);
    double kept_mass = 0.0;
    int32_t kept = 0;
    while (kept < kept_max &&
           !(has_top_p && kept > 0 && kept_mass >= (double)sample->top_p * mass)) {
        const int32_t last = count - kept - 1;
        const lore_candidate best = candidates[0];
        candidates[0] = candidates[last];
        candidates[last] = best;
        sift_down(candidates, last, 0);
        kept_mass += exp(excess(best.logit, top, sample->temperature));
        kept++;
    }
    if (has_top_p && kept_max < count) { /* now cut the top_k list by the share of its own mass */
        const double wanted = (double)sample->top_p * kept_mass;
        double sum = 0.0;
        int32_t cut = 0;
        while (cut < kept && (cut == 0 || sum < wanted)) {
            sum += exp(excess(candidates[count - 1 - cut].logit, top, sample->temperature));
            cut++;
        }
        kept = cut;
        kept_mass = sum;
    }
    if (sample->min_p > 0.0f) {
        kept_mass = keep_likely(candidates, count, &kept, top, sample);
    }
    double left = draw_unit(sample->seed, sample->position) * kept_mass;
    for (int32_t i = 0; i < kept; i++) {
        left -= exp(excess(candidates[count - 1 - i].logit, top, sample->temperature));
        if (left < 0.0) {
            return candidates[count - 1 - i].id;
        }
    }
    return candidates[count - 1].id;
}

void lore_sample_row(int32_t *id, float *logprob, float *logits, int32_t count,
                     const lore_sample *sample, lore_candidate *candidates,
                     const lore_row_math *math)
{
    const float top = math->clean(logits, count);
    int32_t top_id = 0;
    while (logits[top_id] != top) {
        top_id++;
    }
    const double total = log(math->sum_exp(logits, count, top));
    const bool is_cut = sample->top_p < 1.0f || (sample->top_k > 0 && sample->top_k < count);
    if (!(sample->temperature > 0.0f) || top == -INFINITY) {
        *id = top_id;
    } else if (is_cut) {
        *id = draw_kept(logits, count, top, sample, candidates);
    } else if (sample->min_p > 0.0f) {
        *id = draw_likely(logits, count, top, top_id, sample);
    } else {
        *id = draw_any(logits, count, top, top_id, sample);
    }
    *logprob = (float)(excess(logits[*id], top, 1.0f) - total);
}

/* ---- the most probable ones ---- */

typedef struct tops_work {
    lore_likely *tops;
    lore_view logits;
    const lore_sample *samples;
    const lore_row_math *math;
} tops_work;

/* The `wanted` best candidates of a row, by insertion: all but a few logits are below the last of
 * them. Gives how many there are. */
static int32_t find_best(lore_candidate *best, int32_t wanted, const float *logits, int32_t count)
{
    int32_t found = 0;
    for (int32_t i = 0; i < count; i++) {
        if (found == wanted && !(logits[i] > best[found - 1].logit)) {
            continue; /* equals too: ids rise */
        }
        found += found < wanted;
        int32_t at = found - 1;
        for (; at > 0 && logits[i] > best[at - 1].logit; at--) {
            best[at] = best[at - 1];
        }
        best[at] = (lore_candidate){logits[i], i};
    }
    return found;
}

static void find_tops(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const tops_work *work = self;
    const int32_t count = work->logits.cols;
    for (int32_t r = begin; r < end; r++) {
        const int32_t wanted = work->samples[r].tops;
        float *row = work->logits.data + r * work->logits.stride;
        lore_candidate best[LORE_TOPS_MAX];
        LORE_ASSERT(wanted >= 0 && wanted <= LORE_TOPS_MAX);
        if (wanted == 0) {
            continue;
        }
        const float top = work->math->clean(row, count);
        const double total = log(work->math->sum_exp(row, count, top));
        const int32_t found = find_best(best, wanted, row, count);
        for (int32_t i = 0; i < found; i++) {
            work->tops[r * LORE_TOPS_MAX + i] =
                (lore_likely){best[i].id, (float)(excess(best[i].logit, top, 1.0f) - total)};
        }
    }
}

void lore_host_tops(lore_queue *queue, lore_likely *tops, lore_view logits,
                    const lore_sample *samples, const lore_row_math *math)
{
    tops_work work = {tops, logits, samples, math};
    lore_host_for(queue, logits.rows, 1, find_tops, &work);
}
