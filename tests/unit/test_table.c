/* Tables of figures: values, intervals, pairs of runs, and the text they are kept as. */
#include "tests/check.h"

#include "eval/table.h"

static lore_arena arena;
static const lore_str NAMES[] = {{"mean", 4}, {"ratio", 5}};

static void fill(lore_table *table, int32_t rows, double shift)
{
    lore_error err = {0};
    CHECK_OK(lore_table_new(NAMES, 2, rows, &arena, table, &err), &err);
    for (int32_t i = 0; i < rows; i++) {
        table->ids[i] = lore_str_printf(&arena, "q%03d", i);
        lore_table_row(table, i)[0] = (lore_cell){(double)(i % 10) / 10.0 + shift, 1.0};
        lore_table_row(table, i)[1] = (lore_cell){i % 3, i % 3 == 0 ? 0.0 : 2.0};
    }
}

/* A figure is sum over count; the interval holds it, is the same each time, and is as wide as the
 * normal approximation of the mean says. */
TEST(values_and_intervals)
{
    lore_error err = {0};
    lore_table table;
    lore_estimate first[2], second[2];
    fill(&table, 300, 0.0);
    CHECK_OK(lore_table_estimate(&table, 2000, &arena, first, &err), &err);
    CHECK_OK(lore_table_estimate(&table, 2000, &arena, second, &err), &err);
    CHECK_INT(memcmp(first, second, sizeof first), 0);
    CHECK_NEAR(first[0].value, .45, 1e-12);
    CHECK_INT(first[0].rows, 300);
    double half = 1.96 * sqrt(0.0825 / 300.0); /* 0 .. .9 have a variance of .0825 */
    CHECK_NEAR(first[0].low, .45 - half, .004);
    CHECK_NEAR(first[0].high, .45 + half, .004);
    CHECK_NEAR(first[1].value, .75, 1e-12); /* 300 over 400 */
    CHECK_INT(first[1].rows, 200);
    CHECK(first[1].low < .75 && first[1].high > .75);
    lore_arena_destroy(&arena);
}

/* A figure that nothing was counted for has no value; one query has no spread. */
TEST(little_to_estimate)
{
    lore_error err = {0};
    lore_table table;
    lore_estimate estimates[2];
    fill(&table, 1, .5);
    CHECK_OK(lore_table_estimate(&table, 100, &arena, estimates, &err), &err);
    CHECK_NEAR(estimates[0].low, .5, 0);
    CHECK_NEAR(estimates[0].high, .5, 0);
    CHECK(isnan(estimates[1].value) && isnan(estimates[1].low));
    CHECK_INT(estimates[1].rows, 0);
    lore_arena_destroy(&arena);
}

/* The same queries are drawn for both runs: a constant shift has no spread, however wide the
 * figures are spread themselves. */
TEST(compares_in_pairs)
{
    lore_error err = {0};
    lore_table before, after;
    lore_difference d[2];
    int32_t common = 0;
    fill(&before, 100, 0.0);
    fill(&after, 120, .125);
    CHECK_OK(lore_table_compare(&before, &after, 1000, &arena, d, &common, &err), &err);
    CHECK_INT(common, 100);
    CHECK_NEAR(d[0].value, .125, 1e-12);
    CHECK_NEAR(d[0].low, .125, 1e-12);
    CHECK_NEAR(d[0].high, .125, 1e-12);
    CHECK_NEAR(d[0].p, 0.0, 0);
    CHECK_NEAR(d[1].value, 0.0, 0);
    CHECK_NEAR(d[1].p, 1.0, 0);
    lore_arena_destroy(&arena);
}

TEST(compares_what_both_have)
{
    lore_error err = {0};
    lore_table before, after;
    lore_difference d[2];
    int32_t common = 0;
    fill(&before, 5, 0.0);
    fill(&after, 5, 0.0);
    before.figures[1] = LORE_STR("other");
    CHECK_OK(lore_table_compare(&before, &after, 100, &arena, d, &common, &err), &err);
    CHECK_INT(d[0].rows, 5);
    CHECK_INT(d[1].rows, 0);
    CHECK(isnan(d[1].value));
    for (int32_t i = 0; i < 5; i++) {
        before.ids[i] = LORE_STR("elsewhere");
    }
    CHECK_INT(lore_table_compare(&before, &after, 100, &arena, d, &common, &err), LORE_ERR_INVALID);
    lore_arena_destroy(&arena);
}

/* What is written reads back as the same bits. */
TEST(text_keeps_every_digit)
{
    lore_error err = {0};
    lore_table table, again;
    lore_buf text;
    fill(&table, 20, 1.0 / 3.0);
    lore_buf_init(&text, 0);
    lore_table_write(&table, &text);
    CHECK_OK(lore_table_parse(lore_buf_str(&text), "t", &arena, &again, &err), &err);
    CHECK_INT(again.row_count, 20);
    CHECK_INT(again.figure_count, 2);
    for (int32_t i = 0; i < 20; i++) {
        CHECK(lore_str_equal(table.ids[i], again.ids[i]));
        CHECK(lore_table_row(&table, i)[0].sum == lore_table_row(&again, i)[0].sum);
        CHECK(lore_table_row(&table, i)[1].count == lore_table_row(&again, i)[1].count);
    }
    lore_buf_destroy(&text);
    lore_arena_destroy(&arena);
}

TEST(refuses_other_text)
{
    const char *const cases[] = {"",
                                 "ndcg\n",
                                 "query\n",
                                 "query\t\n",
                                 "query\ta\nq1\n",
                                 "query\ta\nq1\t1\t2\n",
                                 "query\ta\nq1\tx\n",
                                 "query\ta\nq1\t-1\n",
                                 "query\ta\nq1\tnan\n",
                                 "query\ta\nq1\t1/0\n",
                                 "query\ta\nq1\t1/\n",
                                 "query\ta\nq2\t1\nq1\t1\n",
                                 "query\ta\nq1\t1\nq1\t1\n"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lore_error err = {0};
        lore_table table;
        CHECK_INT(lore_table_parse(lore_str_from(cases[i]), "base.tsv", &arena, &table, &err),
                  LORE_ERR_INVALID);
        CHECK(strstr(err.message, "base.tsv") != NULL);
        lore_arena_destroy(&arena);
    }
}

CHECK_MAIN(values_and_intervals, little_to_estimate, compares_in_pairs, compares_what_both_have,
           text_keeps_every_digit, refuses_other_text)
