/* The fitted weight: each question is scored at a weight it had no say in. */
#include "tests/check.h"

#include "eval/fit.h"

enum { QUERIES = 50 };
static double scores[QUERIES * LORE_FIT_TRIED];
static double fitted[QUERIES];
static const lore_tuning usual = {.3, 0.0};

static void set_peak(int32_t query, int32_t step)
{
    for (int32_t w = 0; w < LORE_FIT_TRIED; w++) {
        scores[query * LORE_FIT_TRIED + w] = w == step ? 1.0 : 0.0;
    }
}

/* A weight that all questions like is found, and beats the configured one. */
TEST(finds_the_peak)
{
    lore_fit fit;
    for (int32_t i = 0; i < QUERIES; i++) {
        set_peak(i, 12);
    }
    lore_fit_choose(scores, QUERIES, usual, fitted, &fit);
    CHECK_NEAR(fit.tuning.fusion_weight, .6, 0);
    CHECK_NEAR(fit.tuning.expansion, 0.0, 0);
    CHECK_NEAR(fit.fitted, 1.0, 0);
    CHECK_NEAR(fit.means[12], 1.0, 0);
    CHECK_NEAR(fit.means[LORE_FIT_STEPS], 0.0, 0);
    CHECK(fit.is_better);
    for (int32_t fold = 0; fold < LORE_FIT_FOLDS; fold++) {
        CHECK_NEAR(fit.fold_tunings[fold].fusion_weight, .6, 0);
    }
}

/* Terms of the best passages are kept where they win. */
TEST(finds_the_expansion)
{
    lore_fit fit;
    for (int32_t i = 0; i < QUERIES; i++) {
        set_peak(i, LORE_FIT_WEIGHTS + 2);
    }
    lore_fit_choose(scores, QUERIES, usual, fitted, &fit);
    CHECK_NEAR(fit.tuning.fusion_weight, .2, 0);
    CHECK_NEAR(fit.tuning.expansion, .5, 0);
    CHECK(fit.is_better);
}

/* Where each fold likes another weight, none of them profits from its own. */
TEST(folds_do_not_see_themselves)
{
    lore_fit fit;
    for (int32_t i = 0; i < QUERIES; i++) {
        set_peak(i, 2 + i % LORE_FIT_FOLDS);
    }
    lore_fit_choose(scores, QUERIES, usual, fitted, &fit);
    CHECK_NEAR(fit.fitted, 0.0, 0);
    CHECK(!fit.is_better);
    CHECK(fit.tuning.fusion_weight > .05 && fit.tuning.fusion_weight < .35);
}

/* Of equal weights the one nearest to the configured one; a draw is no improvement. */
TEST(ties_stay_near_the_configured)
{
    lore_fit fit;
    for (int32_t i = 0; i < QUERIES * LORE_FIT_TRIED; i++) {
        scores[i] = .5;
    }
    lore_fit_choose(scores, LORE_FIT_QUERIES_MIN, (lore_tuning){.31, 0.0}, fitted, &fit);
    CHECK_NEAR(fit.tuning.fusion_weight, .3, 0);
    CHECK_NEAR(fit.tuning.expansion, 0.0, 0);
    CHECK(!fit.is_better);
    lore_fit_choose(scores, LORE_FIT_QUERIES_MIN, (lore_tuning){1.0, 0.0}, fitted, &fit);
    CHECK_NEAR(fit.tuning.fusion_weight, 1.0, 0);
}

CHECK_MAIN(finds_the_peak, finds_the_expansion, folds_do_not_see_themselves,
           ties_stay_near_the_configured)
