/* The parts of the online softmax that all attention loops share, in words (simd_int.h). A row of
 * scores is whole vectors long: reading on behind the last one seen is safe, and what lies there
 * has no say. */
#ifndef LORE_KERNELS_CPU_SOFTMAX_BODY_H
#define LORE_KERNELS_CPU_SOFTMAX_BODY_H

#include "kernels/cpu/cpu_attention_int.h"
#include "kernels/cpu/simd_int.h"

/* The first element of the vector that holds the first score seen. */
static inline int32_t first_vector_of(lore_key_span seen)
{
    return seen.begin - seen.begin % VF_WIDTH;
}

/* Whether one of the elements from i on is not seen. */
static inline bool is_edge(lore_key_span seen, int32_t i)
{
    return i < seen.begin || seen.end - i < VF_WIDTH;
}

/* Scores become cap tanh(score / cap). */
static void cap_scores(float *scores, lore_key_span seen, float cap)
{
    const vf factor = vf_set(cap), inverse = vf_set(1.0f / cap);
    for (int32_t i = first_vector_of(seen); i < seen.end; i += VF_WIDTH) {
        vf_store(scores + i, vf_mul(vf_tanh(vf_mul(vf_load(scores + i), inverse)), factor));
    }
}

/* The largest score seen; -inf where there is none. A NaN may be passed over: its exponential is
 * one, and spoils the row as it should. */
static float largest_score(const float *scores, lore_key_span seen)
{
    vf top = vf_set(-INFINITY);
    for (int32_t i = first_vector_of(seen); i < seen.end; i += VF_WIDTH) {
        vf lanes = vf_load(scores + i);
        if (is_edge(seen, i)) {
            lanes = vf_between(lanes, seen.begin - i, seen.end - i, -INFINITY);
        }
        top = vf_max(lanes, top);
    }
    return vf_top(top);
}

/* What scores are compared with: the largest, but 0 where all are -inf, because -inf less -inf is
 * not 0. */
static inline float reference_score(float top)
{
    return top == -INFINITY ? 0.0f : top;
}

#endif
