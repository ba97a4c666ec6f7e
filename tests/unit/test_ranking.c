/* Figures of a ranking, against values worked out by hand from the definitions. */
#include "tests/check.h"

#include "eval/ranking.h"

static const lore_judgement JUDGEMENTS[] = {
    {{"a", 1}, 3}, {{"b", 1}, 0}, {{"c", 1}, 1}, {{"d", 1}, -1}, {{"e", 1}, 2}};
static const int32_t IDEAL[] = {3, 2, 1};
static const lore_topic TOPIC = {
    .judgements = JUDGEMENTS, .judgement_count = 5, .ideal = IDEAL, .relevant_count = 3};

/* Every document gets its own grade; one that nobody judged gets none. */
TEST(grades_by_document)
{
    const lore_str documents[] = {LORE_STR("e"), LORE_STR("x"),  LORE_STR("a"),
                                  LORE_STR("d"), LORE_STR("aa"), LORE_STR("")};
    const int32_t expected[] = {2, 0, 3, -1, 0, 0};
    int32_t grades[6];
    lore_ranking_grades(&TOPIC, documents, 6, grades);
    for (int32_t i = 0; i < 6; i++) {
        CHECK_INT(grades[i], expected[i]);
    }
}

/* Ranking e x a c: gains 2, 0, 3, 1 at discounts log2(2), log2(3), log2(4), log2(5). */
TEST(figures_by_hand)
{
    const int32_t grades[] = {2, 0, 3, 1};
    double ideal = 3.0 + 2.0 / log2(3) + 1.0 / 2.0;
    CHECK_NEAR(lore_ranking_ndcg(&TOPIC, grades, 4, 10), (2.0 + 1.5 + 1.0 / log2(5)) / ideal, 0);
    CHECK_NEAR(lore_ranking_ndcg(&TOPIC, grades, 4, 1), 2.0 / 3.0, 0); /* the ideal is cut too */
    CHECK_NEAR(lore_ranking_recall(&TOPIC, grades, 4, 10), 1.0, 0);
    CHECK_NEAR(lore_ranking_recall(&TOPIC, grades, 4, 3), 2.0 / 3.0, 0);
    CHECK_NEAR(lore_ranking_reciprocal(grades, 4, 10), 1.0, 0);
    CHECK_NEAR(lore_ranking_reciprocal(grades + 1, 3, 10), 0.5, 0);
    CHECK_NEAR(lore_ranking_reciprocal(grades + 1, 3, 1), 0.0, 0);
    CHECK_NEAR(lore_ranking_average_precision(&TOPIC, grades, 4),
               (1.0 + 2.0 / 3.0 + 3.0 / 4.0) / 3.0, 0);
}

/* Nothing found, and negative grades, are worth nothing. */
TEST(nothing_is_zero)
{
    const int32_t grades[] = {-1, 0};
    for (int32_t count = 0; count <= 2; count++) {
        CHECK_NEAR(lore_ranking_ndcg(&TOPIC, grades, count, 10), 0.0, 0);
        CHECK_NEAR(lore_ranking_recall(&TOPIC, grades, count, 10), 0.0, 0);
        CHECK_NEAR(lore_ranking_reciprocal(grades, count, 10), 0.0, 0);
        CHECK_NEAR(lore_ranking_average_precision(&TOPIC, grades, count), 0.0, 0);
    }
}

CHECK_MAIN(grades_by_document, figures_by_hand, nothing_is_zero)
