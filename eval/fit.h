/* The fusion weight of a collection, chosen on its own judged questions.
 *
 * Weights 0, .05 .. 1 are tried. What is reported is cross-validated: the questions are dealt into
 * folds, and each fold is scored at the weight that is best on the others, so no question has a say
 * in the weight it is scored at. Pure. Thread: any. */
#ifndef LORE_EVAL_FIT_H
#define LORE_EVAL_FIT_H

#include <stdbool.h>
#include <stdint.h>

enum {
    LORE_FIT_STEPS = 21, /* weights tried: 0 (lexical alone) to 1 (dense alone) */
    LORE_FIT_TRIED = 22, /* ... and behind them the configuration's */
    LORE_FIT_FOLDS = 5,  /* question i is in fold i mod 5 */
    LORE_FIT_QUERIES_MIN = 10
};

typedef struct lore_fit {
    double weight; /* best on all questions */
    double fold_weights[LORE_FIT_FOLDS];
    double fitted;                /* mean score, cross-validated */
    double means[LORE_FIT_TRIED]; /* at each weight */
    bool is_better;               /* fitted beats the configuration's weight */
} lore_fit;

/* The weights: LORE_FIT_TRIED of them. */
void lore_fit_weights(double configured, double *weights);
/* scores: [count][LORE_FIT_TRIED], count >= LORE_FIT_QUERIES_MIN. fitted: [count], each question's
 * cross-validated score. Of equally good weights the nearest to the configured one wins, and of
 * two as near the smaller. */
void lore_fit_choose(const double *scores, int32_t count, double configured, double *fitted,
                     lore_fit *fit);

#endif
