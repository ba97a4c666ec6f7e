/* See fit.h. */
#include "eval/fit.h"

#include "base/error.h"

#include <math.h>

/* .4 and .6 rank nearly the same. */
static const double EXPANSION = 0.5;

void lore_fit_tunings(lore_tuning configured, lore_tuning *tunings)
{
    for (int32_t w = 0; w < LORE_FIT_WEIGHTS; w++) {
        tunings[w] = (lore_tuning){(double)w / (LORE_FIT_WEIGHTS - 1), 0.0};
    }
    for (int32_t w = 0; w < LORE_FIT_EXPANDED; w++) {
        tunings[LORE_FIT_WEIGHTS + w] =
            (lore_tuning){(double)w / (LORE_FIT_EXPANDED - 1), EXPANSION};
    }
    tunings[LORE_FIT_STEPS] = configured;
}

/* The best step by its mean over the questions that are not in the fold; fold -1: over all. */
static int32_t best_step(const double *scores, int32_t count, int32_t fold, lore_tuning configured)
{
    double sums[LORE_FIT_TRIED] = {0.0};
    lore_tuning tried[LORE_FIT_TRIED];
    int32_t best = 0;
    lore_fit_tunings(configured, tried);
    for (int32_t i = 0; i < count; i++) {
        for (int32_t w = 0; w < LORE_FIT_STEPS && i % LORE_FIT_FOLDS != fold; w++) {
            sums[w] += scores[(int64_t)i * LORE_FIT_TRIED + w];
        }
    }
    for (int32_t w = 1; w < LORE_FIT_STEPS; w++) {
        bool is_nearer = tried[w].expansion == tried[best].expansion &&
                         fabs(tried[w].fusion_weight - configured.fusion_weight) <
                             fabs(tried[best].fusion_weight - configured.fusion_weight);
        if (sums[w] > sums[best] || (sums[w] == sums[best] && is_nearer)) {
            best = w;
        }
    }
    return best;
}

void lore_fit_choose(const double *scores, int32_t count, lore_tuning configured, double *fitted,
                     lore_fit *fit)
{
    LORE_ASSERT(count >= LORE_FIT_QUERIES_MIN);
    lore_tuning tried[LORE_FIT_TRIED];
    int32_t steps[LORE_FIT_FOLDS];
    *fit = (lore_fit){0};
    lore_fit_tunings(configured, tried);
    for (int32_t fold = 0; fold < LORE_FIT_FOLDS; fold++) {
        steps[fold] = best_step(scores, count, fold, configured);
        fit->fold_tunings[fold] = tried[steps[fold]];
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
    fit->tuning = tried[best_step(scores, count, -1, configured)];
    fit->is_better = fit->fitted > fit->means[LORE_FIT_STEPS];
}
