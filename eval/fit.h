/* How a collection is searched best, chosen on its own judged questions: the share of the dense
 * score, and whether terms of the best passages are searched for too.
 *
 * Weights 0, .05 .. 1 are tried without them, 0, .1 .. 1 with them. What is reported is
 * cross-validated: the questions are dealt into folds, and each fold is scored at the tuning that
 * is best on the others, so no question has a say in the tuning it is scored at. Pure. Thread: any.
 */
#ifndef LORE_EVAL_FIT_H
#define LORE_EVAL_FIT_H

#include "index/store.h"

enum {
    LORE_FIT_WEIGHTS = 21,  /* tried without expansion: 0 (lexical alone) to 1 (dense alone) ... */
    LORE_FIT_EXPANDED = 11, /* ... and with it: such searches are dear */
    LORE_FIT_STEPS = LORE_FIT_WEIGHTS + LORE_FIT_EXPANDED,
    LORE_FIT_TRIED = LORE_FIT_STEPS + 1, /* ... and behind them the configuration's */
    LORE_FIT_FOLDS = 5,                  /* question i is in fold i mod 5 */
    LORE_FIT_QUERIES_MIN = 10
};

typedef struct lore_fit {
    lore_tuning tuning; /* best on all questions */
    lore_tuning fold_tunings[LORE_FIT_FOLDS];
    double fitted;                /* mean score, cross-validated */
    double means[LORE_FIT_TRIED]; /* at each tuning */
    bool is_better;               /* fitted beats the configuration's */
} lore_fit;

/* The tunings: LORE_FIT_TRIED of them. */
void lore_fit_tunings(lore_tuning configured, lore_tuning *tunings);
/* scores: [count][LORE_FIT_TRIED], count >= LORE_FIT_QUERIES_MIN. fitted: [count], each question's
 * cross-validated score. Of equally good ones that without expansion wins, then the nearest to the
 * configured weight, then the smaller. */
void lore_fit_choose(const double *scores, int32_t count, lore_tuning configured, double *fitted,
                     lore_fit *fit);

#endif
