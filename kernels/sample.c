/* Drawing one token from one row of logits, for every backend that computes on the host.
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

/* A token is penalised once, so a bit of each says whether it has been: 16 KiB for a vocabulary of
 * 128k, which costs less than to keep the set of every sequence while it grows. */
void lore_host_penalise(lore_queue *queue, lore_view logits, const lore_penalty *penalties)
{
    const size_t bytes = ((size_t)logits.cols + 7) / 8;
    for (int32_t r = 0; r < logits.rows; r++) {
        const lore_penalty *penalty = &penalties[r];
        LORE_ASSERT(penalty->factor > 0.0f);
        if (penalty->factor == 1.0f || penalty->count == 0) {
            continue;
        }
        uint8_t *is_done = lore_host_scratch(queue, bytes);
        if (is_done == NULL) {
            return;
        }
        memset(is_done, 0, bytes);
        float *row = logits.data + r * logits.stride;
        for (int32_t i = 0; i < penalty->count; i++) {
            const int32_t id = penalty->ids[i];
            const uint8_t bit = (uint8_t)(1u << (id % 8));
            LORE_ASSERT(id >= 0 && id < logits.cols);
            if ((is_done[id / 8] & bit) == 0) {
                is_done[id / 8] |= bit;
                row[id] = row[id] > 0.0f ? row[id] / penalty->factor : row[id] * penalty->factor;
            }
        }
    }
}

void lore_host_take_drawn(lore_queue *queue, int32_t *ids, const int32_t *drawn, int32_t count)
{
    (void)queue;
    for (int32_t i = 0; i < count; i++) {
        ids[i] = ids[i] < 0 ? drawn[-1 - ids[i]] : ids[i];
    }
}

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
    /* The mass that top_p is a share of: that of the top_k, where both are asked for. */
    double mass = sum_weights(logits, count, top, sample->temperature);
    const bool has_top_p = sample->top_p < 1.0f;
    if (kept_max < count) {
        mass = INFINITY; /* known only when all top_k are out of the heap */
    }
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
    const bool is_cut = sample->top_p < 1.0f || (sample->top_k > 0 && sample->top_k < count);
    if (!(sample->temperature > 0.0f) || top == -INFINITY) {
        *id = top_id;
    } else if (is_cut) {
        *id = draw_kept(logits, count, top, sample, candidates);
    } else {
        *id = draw_any(logits, count, top, top_id, sample);
    }
    const double difference = excess(logits[*id], top, 1.0f);
    *logprob = (float)(difference - log(math->sum_exp(logits, count, top)));
}
