/* See fit.h. */
#include "eval/fit.h"

#include "base/error.h"

#include <math.h>

void lore_fit_weights(double configured, double *weights)
{
    for (int32_t w = 0; w < LORE_FIT_STEPS; w++) {
        weights[w] = (double)w / (LORE_FIT_STEPS - 1);
    }
    weights[LORE_FIT_STEPS] = configured;
}

/* The best step by its mean over the questions that are not in the fold; fold -1: over all. */
static int32_t best_step(const double *scores, int32_t count, int32_t fold, double configured)
{
    double sums[LORE_FIT_TRIED] = {0.0}, weights[LORE_FIT_TRIED];
    int32_t best = 0;
    lore_fit_weights(configured, weights);
    for (int32_t i = 0; i < count; i++) {
        for (int32_t w = 0; w < LORE_FIT_STEPS && i % LORE_FIT_FOLDS != fold; w++) {
            sums[w] += scores[(int64_t)i * LORE_FIT_TRIED + w];
        }
    }
    for (int32_t w = 1; w < LORE_FIT_STEPS; w++) {
        bool is_nearer = fabs(weights[w] - configured) < fabs(weights[best] - configured);
        if (sums[w] > sums[best] || (sums[w] == sums[best] && is_nearer)) {
            best = w;
        }
    }
    return best;
}

void lore_fit_choose(const double *scores, int32_t count, double configured, double *fitted,
                     lore_fit *fit)
{
    LORE_ASSERT(count >= LORE_FIT_QUERIES_MIN);
    double weights[LORE_FIT_TRIED];
    int32_t steps[LORE_FIT_FOLDS];
    *fit = (lore_fit){0};
    lore_fit_weights(configured, weights);
    for (int32_t fold = 0; fold < LORE_FIT_FOLDS; fold++) {
        steps[fold] = best_step(scores, count, fold, configured);
        fit->fold_weights[fold] = weights[steps[fold]];
    }
    for (int32_t i = 0; i < count; i++) {
        const double *row = scores + (int64_t)i * LORE_FIT_TRIED;
        fitted[i] = row[steps[i % LORE_FIT_FOLDS]];
        fit->fitted += fitted[i];
        for (int32_t w = 0; w < LORE_FIT_TRIED; w++) {
            fit->means[w] += row[w];
        }
    }
    fit->fitted /= count;
    for (int32_t w = 0; w < LORE_FIT_TRIED; w++) {
        fit->means[w] /= count;
    }
    fit->weight = weights[best_step(scores, count, -1, configured)];
    fit->is_better = fit->fitted > fit->means[LORE_FIT_STEPS];
}
