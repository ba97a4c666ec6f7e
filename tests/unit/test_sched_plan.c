/* Proves, on small cases written out, how a step is planned while the one before it is in flight:
 * who goes on by the number of its draw, who has to wait, who has a row for nothing, and when pages
 * come back. What holds for all cases is the business of tests/sim/sim_sched.c. */
#include "tests/unit/sched_fixture.h"

/* Eight rows, two sequences, pages of four tokens, two steps in flight. */
static bench bench_of(int32_t pages, int32_t turn_tokens)
{
    return bench_with((lore_sched_options){.rows_max = 8,
                                           .sequences_max = 2,
                                           .waiting_max = 4,
                                           .context = 32,
                                           .page_tokens = 4,
                                           .page_count = pages,
                                           .steps_in_flight = 2,
                                           .turn_tokens = turn_tokens});
}

static int32_t add(bench *b, int32_t first, int32_t *tokens, int32_t prompt_count,
                   int32_t tokens_max, float penalty)
{
    return add_sampled(b, first, tokens, prompt_count, tokens_max,
                       (lore_sampling){.repetition_penalty = penalty});
}

static void apply(bench *b, int32_t first, int32_t second)
{
    apply_draws(b, (const int32_t[DRAWS_MAX]){first, second});
}

static lore_sched_stats stats_of(const bench *b)
{
    lore_sched_stats stats;
    lore_sched_get_stats(b->sched, &stats);
    return stats;
}

TEST(goes_on_by_the_number_of_a_draw)
{
    bench b = bench_of(16, 0);
    int32_t a[32], c[32];
    add(&b, 100, a, 10, 9, 0);
    const lore_step *first = lore_sched_plan(b.sched);
    check_rows(first, 0, 0, 8, 100);
    CHECK_INT(first->logits_count, 0);
    const lore_step *second = lore_sched_plan(b.sched);
    check_rows(second, 0, 8, 2, 108); /* the next piece, while the first is under way */
    CHECK_INT(second->logits_count, 1);
    check_rows(first, 0, 0, 8, 100); /* it keeps its own arrays */
    apply(&b, 0, 0);
    CHECK_INT(b.result_count, 0);

    add(&b, 200, c, 2, 9, 0);
    const lore_step *third = lore_sched_plan(b.sched);
    CHECK_INT(third->batch.sequences, 2);
    check_rows(third, 0, 10, 1, LORE_ID_DRAWN(0));
    check_rows(third, 1, 0, 2, 200);
    CHECK_INT(third->lengths[0], 11);
    CHECK_INT(third->samples[0].position, 11);
    CHECK_INT(third->logits_count, 2);
    apply(&b, 50, 0);
    CHECK_INT(b.result_count, 1);
    const lore_step *fourth = lore_sched_plan(b.sched);
    check_rows(fourth, 0, 11, 1, LORE_ID_DRAWN(0));
    check_rows(fourth, 1, 2, 1, LORE_ID_DRAWN(1));
    CHECK_INT(fourth->batch.page_start[1], 3);
    apply(&b, 51, 60);
    apply(&b, 52, 61);
    CHECK_INT(a[12], 52);
    CHECK_INT(c[3], 61);
    const lore_step *fifth = lore_sched_plan(b.sched); /* nothing in flight: all is known */
    check_rows(fifth, 0, 12, 1, 52);
    check_rows(fifth, 1, 3, 1, 61);
    lore_sched_abort(b.sched, LORE_FINISH_ERROR, on_token, &b);
    CHECK_INT(stats_of(&b).pages_free, 16);
    lore_sched_free(b.sched);
}

/* An end shows when the next step is under way: its row there counts for nothing, and its pages
 * come back behind it. An end by length is known before. */
TEST(drops_the_row_behind_an_end)
{
    bench b = bench_of(16, 0);
    int32_t a[32], c[32];
    add(&b, 100, a, 2, 9, 0);
    add(&b, 200, c, 2, 2, 0);
    (void)lore_sched_plan(b.sched);
    const lore_step *step = lore_sched_plan(b.sched);
    CHECK_INT(step->batch.sequences, 2);
    apply(&b, EOS, 60);
    CHECK_INT(b.result_count, 2);
    CHECK_INT(b.results[0].finish, LORE_FINISH_STOP);
    CHECK_INT(stats_of(&b).running, 1);
    CHECK_INT(stats_of(&b).pages_free, 13); /* both hold theirs, though one is over */
    step = lore_sched_plan(b.sched);
    CHECK_INT(step->batch.rows, 0); /* the last token of the other one is under way */
    apply(&b, 51, 61);
    CHECK_INT(b.result_count, 1);
    CHECK_INT(b.results[0].id, 61);
    CHECK_INT(b.results[0].finish, LORE_FINISH_LENGTH);
    CHECK_INT(stats_of(&b).pages_free, 16);
    CHECK_INT(stats_of(&b).generated_tokens, 3);

    int32_t ticket = add(&b, 100, a, 2, 9, 0);
    (void)lore_sched_plan(b.sched);
    (void)lore_sched_plan(b.sched);
    lore_sched_cancel(b.sched, ticket);
    apply(&b, 50, 0);
    CHECK_INT(b.result_count, 1);
    CHECK_INT(b.results[0].finish, LORE_FINISH_CANCELLED);
    CHECK(stats_of(&b).pages_free < 16);
    CHECK_INT(lore_sched_plan(b.sched)->batch.rows, 0);
    apply(&b, 51, 0);
    CHECK_INT(b.result_count, 0);
    CHECK_INT(stats_of(&b).pages_free, 16);
    lore_sched_free(b.sched);
}

TEST(waits_where_the_host_must_know_the_token)
{
    bench b = bench_of(16, 4);
    int32_t a[32], c[32];
    add(&b, 100, a, 2, 9, 1.5f);
    add(&b, 200, c, 4, 9, 0);
    (void)lore_sched_plan(b.sched);
    const lore_step *step = lore_sched_plan(b.sched);
    CHECK_INT(step->batch.rows, 0); /* one has a penalty, the other comes to its turn */
    apply(&b, 50, 60);
    CHECK_INT(b.result_count, 2);
    step = lore_sched_plan(b.sched);
    check_rows(step, 0, 2, 1, 50);
    check_rows(step, 1, 0, 5, 200);
    CHECK(step->penalties != NULL);
    CHECK_INT(step->penalties[0].count, 3);
    step = lore_sched_plan(b.sched);
    CHECK_INT(step->batch.sequences, 1);
    check_rows(step, 0, 5, 1, LORE_ID_DRAWN(1));
    lore_sched_abort(b.sched, LORE_FINISH_ERROR, on_token, &b);
    lore_sched_free(b.sched);
}

/* Who is in flight keeps its pages: the older one, which finds none, is left out for a step with
 * all that came after it, and then the younger one goes. */
TEST(preempts_nobody_in_flight)
{
    bench b = bench_of(4, 0);
    int32_t a[32], c[32];
    add(&b, 100, a, 4, 9, 0);
    add(&b, 200, c, 4, 9, 0);
    (void)lore_sched_plan(b.sched); /* two pages each */
    for (int32_t i = 0; i < 4; i++) {
        CHECK_INT(lore_sched_plan(b.sched)->batch.sequences, 2);
        apply(&b, 50 + i, 60 + i);
    }
    const lore_step *step = lore_sched_plan(b.sched); /* the ninth token, and no page */
    CHECK_INT(step->batch.rows, 0);
    CHECK_INT(stats_of(&b).preemptions, 0);
    apply(&b, 54, 64);
    CHECK_INT(b.result_count, 2);
    step = lore_sched_plan(b.sched);
    CHECK_INT(step->batch.sequences, 1);
    check_rows(step, 0, 8, 1, 54);
    CHECK_INT(stats_of(&b).preemptions, 1);
    step = lore_sched_plan(b.sched);
    check_rows(step, 0, 9, 1, LORE_ID_DRAWN(0));
    lore_sched_abort(b.sched, LORE_FINISH_ERROR, on_token, &b);
    CHECK_INT(b.result_count, 4);
    lore_sched_free(b.sched);
}

CHECK_MAIN(goes_on_by_the_number_of_a_draw, drops_the_row_behind_an_end,
           waits_where_the_host_must_know_the_token, preempts_nobody_in_flight)
