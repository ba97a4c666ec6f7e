/* Fusion: each chunk once, scores in [0, 1], ties by chunk id, and the order of the input does not
 * matter. */
#include "tests/check.h"

#include "base/clock.h"
#include "retrieval/fuse.h"

static lore_candidates list_of(lore_candidate *items, int32_t count)
{
    return (lore_candidates){items, count};
}

/* A chunk that both find beats one that only one of them finds with the same score. */
TEST(agreement_wins)
{
    lore_candidate dense[] = {{1, 0.9F}, {2, 0.9F}, {3, 0.1F}};
    lore_candidate text[] = {{2, 7.0F}, {4, 7.0F}};
    lore_fused fused[5];
    int32_t count = lore_fuse_scores(list_of(dense, 3), list_of(text, 2), 0.5, fused);
    CHECK_INT(count, 4);
    CHECK_INT(fused[0].chunk, 2);
    CHECK_NEAR(fused[0].score, 1.0, 1e-6);
    CHECK_INT(fused[1].chunk, 1); /* tie with 4: lower id first */
    CHECK_INT(fused[2].chunk, 4);
    CHECK_NEAR(fused[2].lexical, 7.0, 1e-6);
    CHECK(isnan(fused[2].dense));
    CHECK_INT(fused[3].chunk, 3);
}

/* Weight 1 is the dense order, weight 0 the lexical one. */
TEST(weights_reach_both_ends)
{
    lore_candidate dense[] = {{1, 0.9F}, {2, 0.5F}};
    lore_candidate text[] = {{2, 9.0F}, {1, 1.0F}};
    lore_fused fused[4];
    CHECK_INT(lore_fuse_scores(list_of(dense, 2), list_of(text, 2), 1.0, fused), 2);
    CHECK_INT(fused[0].chunk, 1);
    CHECK_INT(lore_fuse_scores(list_of(dense, 2), list_of(text, 2), 0.0, fused), 2);
    CHECK_INT(fused[0].chunk, 2);
}

TEST(empty_lists_give_nothing)
{
    lore_fused fused[1];
    CHECK_INT(lore_fuse_scores((lore_candidates){0}, (lore_candidates){0}, 0.3, fused), 0);
    CHECK_INT(lore_fuse_ranks((lore_candidates){0}, (lore_candidates){0}, 0.3, fused), 0);
}

static void shuffle(lore_candidate *items, int32_t count, uint64_t *seed)
{
    for (int32_t i = count - 1; i > 0; i--) {
        int32_t j = (int32_t)(lore_random_next(seed) % (uint64_t)(i + 1));
        lore_candidate kept = items[i];
        items[i] = items[j];
        items[j] = kept;
    }
}

/* 500 random pairs of lists: any order of the input gives the same output, every chunk appears
 * once, scores fall and stay in [0, 1]. */
TEST(input_order_does_not_matter)
{
    enum { COUNT = 40 };
    uint64_t seed = 20261122;
    for (int32_t round = 0; round < 500; round++) {
        lore_candidate dense[COUNT];
        lore_candidate text[COUNT];
        int32_t dense_count = (int32_t)(lore_random_next(&seed) % COUNT);
        int32_t text_count = (int32_t)(lore_random_next(&seed) % COUNT);
        for (int32_t i = 0; i < COUNT; i++) {
            dense[i] = (lore_candidate){2 * i + 1, lore_random_unit(&seed) * 2.0F - 1.0F};
            text[i] = (lore_candidate){3 * i, (float)(lore_random_next(&seed) % 5)}; /* many ties */
        }
        lore_fused first[2 * COUNT];
        lore_fused second[2 * COUNT];
        bool by_rank = round % 2 == 1;
        int32_t (*fuse)(lore_candidates, lore_candidates, double, lore_fused *) =
            by_rank ? lore_fuse_ranks : lore_fuse_scores;
        int32_t count = fuse(list_of(dense, dense_count), list_of(text, text_count), 0.4, first);
        shuffle(dense, dense_count, &seed);
        shuffle(text, text_count, &seed);
        CHECK_INT(fuse(list_of(dense, dense_count), list_of(text, text_count), 0.4, second), count);
        for (int32_t i = 0; i < count; i++) {
            CHECK_INT(first[i].chunk, second[i].chunk);
            CHECK_NEAR(first[i].score, second[i].score, 0.0);
            CHECK(first[i].score >= 0.0F && first[i].score <= 1.0001F);
            CHECK(i == 0 || first[i - 1].score >= first[i].score);
            for (int32_t j = 0; j < i; j++) {
                CHECK(first[j].chunk != first[i].chunk);
            }
        }
    }
}

CHECK_MAIN(agreement_wins, weights_reach_both_ends, empty_lists_give_nothing,
           input_order_does_not_matter)
