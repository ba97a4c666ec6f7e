/* Proves, on small cases written out, what a plan looks like: pieces of prompts, decode rows first,
 * admission by pages, preemption of the youngest, and every way a sequence can end. What holds for
 * all cases is the business of tests/sim/sim_sched.c. */
#include "tests/unit/sched_fixture.h"

/* Rows 8, three sequences, pages of four tokens. */
static bench bench_of(int32_t pages, int32_t context)
{
    return bench_with((lore_sched_options){.rows_max = 8,
                                           .sequences_max = 3,
                                           .waiting_max = 3,
                                           .context = context,
                                           .page_tokens = 4,
                                           .page_count = pages});
}

static int32_t add_from(bench *b, int32_t first, int32_t *tokens, int32_t prompt_count,
                        int32_t tokens_max)
{
    const lore_sampling sampling = {.temperature = 0.5f, .top_p = 0.9f, .top_k = 3, .seed = 77};
    return add_sampled(b, first, tokens, prompt_count, tokens_max, sampling);
}

static int32_t add(bench *b, int32_t *tokens, int32_t prompt_count, int32_t tokens_max)
{
    return add_from(b, 100, tokens, prompt_count, tokens_max);
}

/* Every row that draws draws `id`. */
static void apply(bench *b, int32_t id)
{
    apply_draws(b, (const int32_t[DRAWS_MAX]){id, id, id});
}

TEST(cuts_prompts_into_pieces_and_puts_decode_rows_first)
{
    bench b = bench_of(16, 64);
    int32_t a[64], c[64];
    CHECK_INT(lore_sched_plan(b.sched)->batch.rows, 0);
    add(&b, a, 3, 10);
    const lore_step *step = lore_sched_plan(b.sched);
    CHECK_INT(step->batch.sequences, 1);
    check_rows(step, 0, 0, 3, 100);
    CHECK_INT(step->logits_count, 1);
    CHECK_INT(step->logits_rows[0], 2);
    CHECK_INT(step->samples[0].position, 3);
    CHECK_INT(step->samples[0].seed, 77);
    CHECK_INT(step->samples[0].top_k, 3);
    CHECK_NEAR(step->samples[0].temperature, 0.5, 0);
    CHECK_NEAR(step->samples[0].top_p, 0.9f, 0);
    apply(&b, 50);
    CHECK_INT(b.result_count, 1);
    CHECK_INT(b.results[0].id, 50);
    CHECK(b.results[0].owner == a);

    add(&b, c, 12, 10);
    step = lore_sched_plan(b.sched);
    CHECK_INT(step->batch.sequences, 2);
    check_rows(step, 0, 3, 1, 50);  /* the running answer */
    check_rows(step, 1, 0, 7, 100); /* what is left of eight rows */
    CHECK_INT(step->logits_count, 1);
    CHECK_INT(step->batch.rows_max, 7);
    CHECK_INT(step->batch.context_max, 7);
    CHECK_INT(step->batch.page_start[1], 1);
    CHECK_INT(step->batch.page_start[2], 3);
    apply(&b, 51);

    step = lore_sched_plan(b.sched);
    check_rows(step, 0, 4, 1, 51);
    check_rows(step, 1, 7, 5, 107);
    CHECK_INT(step->logits_count, 2);
    CHECK_INT(step->logits_rows[1], 5);
    CHECK_INT(step->samples[1].position, 12);
    CHECK_INT(step->batch.context_max, 12);
    apply(&b, 52);
    CHECK_INT(b.result_count, 2);
    lore_sched_stats stats;
    lore_sched_get_stats(b.sched, &stats);
    CHECK_INT(stats.running, 2);
    CHECK_INT(stats.steps, 3);
    CHECK_INT(stats.prompt_tokens, 15);
    CHECK_INT(stats.generated_tokens, 4);
    lore_sched_free(b.sched);
    lore_sched_free(NULL);
}

TEST(ends_in_every_way)
{
    bench b = bench_of(16, 8);
    int32_t a[64], c[64], d[64];
    lore_sched_stats stats;
    add(&b, a, 2, 10);
    (void)lore_sched_plan(b.sched);
    apply(&b, EOS);
    CHECK_INT(b.results[0].finish, LORE_FINISH_STOP);
    CHECK_INT(b.results[0].id, EOS);

    add(&b, a, 2, 2);  /* two new tokens */
    add(&b, c, 6, 99); /* two until the context is full */
    (void)lore_sched_plan(b.sched);
    apply(&b, 50);
    CHECK_INT(b.results[0].finish, LORE_FINISH_NONE);
    (void)lore_sched_plan(b.sched);
    apply(&b, 51);
    CHECK_INT(b.result_count, 2);
    CHECK_INT(b.results[0].finish, LORE_FINISH_LENGTH);
    CHECK_INT(b.results[1].finish, LORE_FINISH_LENGTH);
    CHECK_INT(c[6], 50);
    CHECK_INT(c[7], 51);

    b.stop_id = 60; /* the caller's own reason */
    add(&b, a, 2, 10);
    (void)lore_sched_plan(b.sched);
    apply(&b, 60);
    lore_sched_get_stats(b.sched, &stats);
    CHECK_INT(stats.running, 0);
    CHECK_INT(stats.pages_free, stats.pages_total);

    add(&b, a, 2, 10);
    add(&b, c, 2, 10);
    add(&b, d, 2, 10);
    (void)lore_sched_plan(b.sched);
    b.result_count = 0;
    lore_sched_abort(b.sched, LORE_FINISH_ERROR, on_token, &b);
    CHECK_INT(b.result_count, 3);
    CHECK_INT(b.results[2].finish, LORE_FINISH_ERROR);
    CHECK_INT(b.results[2].id, -1);
    CHECK(b.results[2].owner == d);
    CHECK_INT(lore_sched_plan(b.sched)->batch.rows, 0);
    lore_sched_free(b.sched);
}

TEST(ends_at_one_more_token)
{
    bench b = bench_of(16, 8);
    int32_t a[64];
    lore_sched_end_at(b.sched, 70);
    for (int32_t i = 0; i < 2; i++) { /* and still at the model's own */
        add(&b, a, 2, 10);
        (void)lore_sched_plan(b.sched);
        apply(&b, i == 0 ? 70 : EOS);
        CHECK_INT(b.results[0].finish, LORE_FINISH_STOP);
    }
    lore_sched_free(b.sched);
}

TEST(cancels_waiting_and_running_sequences)
{
    bench b = bench_of(4, 64); /* 16 tokens */
    int32_t a[64], c[64];
    lore_sched_stats stats;
    int32_t running = add(&b, a, 8, 6);
    int32_t waiting = add(&b, c, 8, 6); /* two pages and one more do not fit beside a */
    CHECK_INT(lore_sched_plan(b.sched)->batch.sequences, 1);
    lore_sched_cancel(b.sched, waiting);
    lore_sched_cancel(b.sched, waiting);
    apply(&b, 50);
    CHECK_INT(b.result_count, 2);
    CHECK_INT(b.results[1].ticket, waiting);
    CHECK_INT(b.results[1].finish, LORE_FINISH_CANCELLED);
    CHECK_INT(b.results[1].id, -1);

    (void)lore_sched_plan(b.sched);
    lore_sched_cancel(b.sched, running); /* in the step: its token is dropped */
    apply(&b, 51);
    CHECK_INT(b.result_count, 1);
    CHECK_INT(b.results[0].finish, LORE_FINISH_CANCELLED);

    running = add(&b, a, 8, 6);
    (void)lore_sched_plan(b.sched);
    apply(&b, 50);
    lore_sched_cancel(b.sched, running); /* between steps: free before the next plan */
    add(&b, c, 8, 6);
    const lore_step *step = lore_sched_plan(b.sched);
    CHECK_INT(step->batch.sequences, 1);
    check_rows(step, 0, 4, 4, 104); /* what the first one computed is there */
    apply(&b, 50);
    CHECK_INT(b.result_count, 2);
    lore_sched_get_stats(b.sched, &stats);
    CHECK_INT(stats.running, 1);
    lore_sched_free(b.sched);
}

TEST(preempts_the_youngest_and_computes_it_again)
{
    bench b = bench_of(5, 64); /* 20 tokens */
    int32_t a[64], c[64];
    lore_sched_stats stats;
    add(&b, a, 4, 13);          /* two pages on admission, four at the end */
    add_from(&b, 200, c, 4, 8); /* two pages, three at the end */
    for (int32_t i = 0; i < 5; i++) {
        CHECK_INT(lore_sched_plan(b.sched)->batch.sequences, 2);
        apply(&b, 50 + i);
        CHECK_INT(b.result_count, 2);
    }
    /* Each has nine tokens and two pages; one page is left, and the older takes it. */
    const lore_step *step = lore_sched_plan(b.sched);
    CHECK_INT(step->batch.sequences, 1);
    check_rows(step, 0, 8, 1, 54);
    lore_sched_get_stats(b.sched, &stats);
    CHECK_INT(stats.preemptions, 1);
    CHECK_INT(stats.waiting, 1);
    for (int32_t i = 0; i < 8; i++) { /* alone until it ends */
        CHECK_INT(step->batch.sequences, 1);
        apply(&b, 60 + i);
        CHECK_INT(b.result_count, 1);
        step = lore_sched_plan(b.sched);
    }
    CHECK_INT(b.results[0].finish, LORE_FINISH_LENGTH);
    /* Of its nine tokens, prompt and answer, the second page had to make room. */
    check_rows(step, 0, 4, 5, 50);
    CHECK_INT(step->samples[0].position, 9);
    lore_sched_get_stats(b.sched, &stats);
    CHECK_INT(stats.evictions, 3);     /* and two pages of the first one, to come in */
    CHECK_INT(stats.cached_tokens, 0); /* of prompts that came new */
    apply(&b, 1);
    CHECK_INT(b.result_count, 1);
    lore_sched_free(b.sched);
}

/* A prompt that begins as one before it is computed from where they part, or from its last token;
 * another salt shares nothing, and nothing outlives a failure. */
TEST(starts_behind_pages_that_are_there)
{
    bench b = bench_of(16, 64);
    int32_t a[64], c[64];
    int32_t cached = -1, ticket = 0;
    lore_error err;
    lore_sched_stats stats;
    lore_sequence_request request = {
        .tokens = c, .prompt_count = 8, .tokens_max = 1, .cached_tokens = &cached, .owner = c};
    add(&b, a, 7, 2);
    (void)lore_sched_plan(b.sched);
    apply(&b, 107); /* so that a continuation finds the answer too */
    (void)lore_sched_plan(b.sched);
    apply(&b, 50);
    for (int32_t i = 0; i < 64; i++) {
        c[i] = 100 + i;
    }
    CHECK_OK(lore_sched_add(b.sched, &request, &ticket, &err), &err);
    const lore_step *step = lore_sched_plan(b.sched);
    check_rows(step, 0, 4, 4, 104); /* the last token is always computed */
    CHECK_INT(cached, 4);
    CHECK_INT(step->batch.page_start[1], 2);
    apply(&b, 60);
    request.prompt_count = 10;
    CHECK_OK(lore_sched_add(b.sched, &request, &ticket, &err), &err);
    c[9] = 9;
    step = lore_sched_plan(b.sched);
    check_rows(step, 0, 8, 2, 60); /* over the answer's first token */
    CHECK_INT(cached, 8);
    apply(&b, 61);
    lore_sched_get_stats(b.sched, &stats);
    CHECK_INT(stats.cached_tokens, 12);
    CHECK_INT(stats.pages_free, 16);
    CHECK(stats.pages_cached >= 2);

    request.salt = 1;
    CHECK_OK(lore_sched_add(b.sched, &request, &ticket, &err), &err);
    check_rows(lore_sched_plan(b.sched), 0, 0, 8, 100);
    CHECK_INT(cached, 0);
    lore_sched_abort(b.sched, LORE_FINISH_ERROR, on_token, &b);
    request.salt = 0;
    CHECK_OK(lore_sched_add(b.sched, &request, &ticket, &err), &err);
    check_rows(lore_sched_plan(b.sched), 0, 0, 8, 100);
    lore_sched_get_stats(b.sched, &stats);
    CHECK_INT(stats.pages_cached, 0);
    lore_sched_free(b.sched);
}

/* Steps of the base alone have no array; equal prompts of two adapters share nothing. */
TEST(says_whose_adapter_a_sequence_has)
{
    bench b = bench_of(16, 64);
    int32_t tokens[3][64];
    lore_error err;
    add(&b, tokens[0], 6, 10);
    CHECK(lore_sched_plan(b.sched)->adapters == NULL);
    apply(&b, 50);
    for (int32_t i = 1; i < 3; i++) {
        int32_t ticket = -1, cached = -1;
        memcpy(tokens[i], tokens[0], 6 * sizeof(int32_t));
        const lore_sequence_request request = {.tokens = tokens[i],
                                               .prompt_count = 6,
                                               .tokens_max = i == 1 ? 1 : 10,
                                               .adapter = (uint64_t)i,
                                               .adapter_slot = 2 - i,
                                               .cached_tokens = &cached,
                                               .owner = tokens[i]};
        CHECK_OK(lore_sched_add(b.sched, &request, &ticket, &err), &err);
        const lore_step *step = lore_sched_plan(b.sched);
        CHECK_INT(step->batch.sequences, 2);
        CHECK_INT(step->adapters[0], -1);
        CHECK_INT(step->adapters[1], 2 - i);
        CHECK_INT(cached, 0);
        apply(&b, 50);
    }
    lore_sched_abort(b.sched, LORE_FINISH_ERROR, on_token, &b);
    lore_sched_free(b.sched);
}

TEST(refuses_what_cannot_run)
{
    bench b = bench_of(4, 64); /* 16 tokens */
    int32_t tokens[64] = {0}, ticket = 0;
    lore_error err;
    lore_sequence_request request = {.tokens = tokens, .prompt_count = 1, .tokens_max = 1};
    for (int32_t i = 0; i < 3; i++) {
        CHECK_OK(lore_sched_add(b.sched, &request, &ticket, &err), &err);
    }
    CHECK_FAILS(lore_sched_add(b.sched, &request, &ticket, &err), LORE_ERR_BUSY, &err,
                "3 requests");
    CHECK_OK(lore_sched_check(b.sched, 10, 7, &err), &err); /* 16 places: the last is not fed */
    CHECK_FAILS(lore_sched_check(b.sched, 10, 8, &err), LORE_ERR_LIMIT, &err, "room for 17 tokens");
    CHECK_FAILS(lore_sched_check(b.sched, 64, 1, &err), LORE_ERR_LIMIT, &err,
                "the prompt has 64 tokens, the model's context of 64 takes at most 63");
    CHECK_FAILS(lore_sched_check(b.sched, 0, 1, &err), LORE_ERR_INVALID, &err, "at least 1");
    CHECK_FAILS(lore_sched_check(b.sched, 1, 0, &err), LORE_ERR_INVALID, &err, "at least 1");
    lore_sched_free(b.sched);

    lore_sched *sched = NULL;
    lore_sched_options options = {
        .rows_max = 0, .sequences_max = 1, .waiting_max = 1, .context = 8};
    CHECK_FAILS(lore_sched_new(&options, &sched, &err), LORE_ERR_INVALID, &err, "0 rows");
    options = (lore_sched_options){
        .rows_max = 1, .sequences_max = 1, .waiting_max = 1, .context = 8, .page_tokens = 4};
    CHECK_FAILS(lore_sched_new(&options, &sched, &err), LORE_ERR_INVALID, &err, "0 pages");
}

static lore_status make_and_free(void *self)
{
    (void)self;
    lore_sched_options options = {.rows_max = 8,
                                  .sequences_max = 3,
                                  .waiting_max = 2,
                                  .context = 64,
                                  .page_tokens = 4,
                                  .page_count = 16};
    lore_sched *sched = NULL;
    lore_error err;
    lore_status status = lore_sched_new(&options, &sched, &err);
    lore_sched_free(sched);
    return status;
}

TEST(limits_pieces_beside_running_sequences_only)
{
    bench b = bench_of(16, 64);
    int32_t a[64], c[64], d[64];
    lore_sched_limit_pieces(b.sched, 2);
    add(&b, a, 5, 10);
    const lore_step *step = lore_sched_plan(b.sched);
    check_rows(step, 0, 0, 5, 100); /* nobody waits for this one */
    apply(&b, 50);

    add(&b, c, 3, 10);
    add(&b, d, 4, 10);
    step = lore_sched_plan(b.sched);
    CHECK_INT(step->batch.sequences, 2);
    check_rows(step, 0, 5, 1, 50);
    check_rows(step, 1, 0, 2, 100);
    apply(&b, 51);
    step = lore_sched_plan(b.sched); /* the end of one prompt and the beginning of the next */
    CHECK_INT(step->batch.sequences, 3);
    check_rows(step, 1, 2, 1, 102); /* its last token is a row like those of answers */
    check_rows(step, 2, 0, 2, 100);
    CHECK_INT(step->logits_count, 2);
    apply(&b, 52);
    lore_sched_limit_pieces(b.sched, 1000); /* rows_max still holds */
    step = lore_sched_plan(b.sched);
    CHECK_INT(step->batch.rows, 4);
    check_rows(step, 2, 2, 2, 102);
    apply(&b, 53);
    lore_sched_abort(b.sched, LORE_FINISH_ERROR, on_token, &b);
    lore_sched_free(b.sched);
}

/* A text that grows beyond turn_tokens is computed again from its first token, on the pages that it
 * has and one more, beside others that go on; one that was longer from the start is not. */
TEST(computes_again_at_the_turn)
{
    static const int32_t eos_ids[] = {EOS};
    const lore_sched_options options = {.rows_max = 8,
                                        .sequences_max = 3,
                                        .waiting_max = 3,
                                        .context = 64,
                                        .page_tokens = 4,
                                        .page_count = 16,
                                        .eos_ids = eos_ids,
                                        .eos_count = 1,
                                        .turn_tokens = 4};
    lore_error err;
    bench b = {.stop_id = -1};
    int32_t a[64], c[64];
    CHECK_OK(lore_sched_new(&options, &b.sched, &err), &err);
    add(&b, a, 3, 10);
    add(&b, c, 5, 10);
    const lore_step *step = lore_sched_plan(b.sched);
    check_rows(step, 0, 0, 3, 100);
    check_rows(step, 1, 0, 5, 100);
    CHECK_INT(step->lengths[0], 3);
    CHECK_INT(step->lengths[1], 5);
    apply(&b, 50);
    step = lore_sched_plan(b.sched);
    check_rows(step, 0, 3, 1, 50);
    check_rows(step, 1, 5, 1, 50);
    CHECK_INT(step->lengths[0], 4);
    apply(&b, 51); /* the fifth token of the first text */
    step = lore_sched_plan(b.sched);
    check_rows(step, 0, 6, 1, 51);
    check_rows(step, 1, 0, 5, 100);
    CHECK_INT(step->lengths[1], 5);
    CHECK_INT(step->batch.page_start[2] - step->batch.page_start[1], 2);
    CHECK_INT(step->logits_count, 2);
    CHECK_INT(step->samples[1].position, 5);
    apply(&b, 52);
    step = lore_sched_plan(b.sched);
    check_rows(step, 0, 5, 1, 52); /* the order of arrival again */
    check_rows(step, 1, 7, 1, 52);
    lore_sched_free(b.sched);
}

/* All known tokens of a sequence that asks for it, and no array where none asks. */
TEST(penalises_prompt_and_answer)
{
    bench b = bench_of(16, 64);
    int32_t a[64], c[64] = {100, 101};
    int32_t ticket;
    lore_error err;
    add(&b, a, 3, 10);
    CHECK(lore_sched_plan(b.sched)->penalties == NULL);
    apply(&b, 50);
    const lore_sequence_request request = {.tokens = c,
                                           .prompt_count = 2,
                                           .tokens_max = 4,
                                           .sampling = {.top_p = 1, .repetition_penalty = 1.5f},
                                           .owner = c};
    CHECK_OK(lore_sched_add(b.sched, &request, &ticket, &err), &err);
    CHECK(lore_sched_plan(b.sched)->penalties != NULL);
    apply(&b, 51);
    const lore_step *step = lore_sched_plan(b.sched);
    CHECK_INT(step->logits_count, 2);
    CHECK_NEAR(step->penalties[0].repetition, 1, 0);
    CHECK_NEAR(step->penalties[1].repetition, 1.5, 0);
    CHECK_INT(step->penalties[1].answer_start, 2);
    CHECK(step->penalties[1].ids == c);
    CHECK_INT(step->penalties[1].count, 3);
    CHECK_INT(c[2], 51);
    lore_sched_free(b.sched);
}

/* Each wish alone brings the array; biases, min_p and the rest reach the step as they were asked
 * for, and the most probable tokens come home beside the token that they were drawn with. */
TEST(hands_on_how_tokens_are_drawn)
{
    static const lore_bias bias = {7, -100.0f};
    const lore_sampling wishes[] = {{.top_p = 1, .presence_penalty = 0.5f},
                                    {.top_p = 1, .frequency_penalty = -0.5f},
                                    {.top_p = 1, .biases = &bias, .bias_count = 1}};
    int32_t a[64] = {100, 101}, ticket;
    lore_likely tops[4 * 3];
    lore_error err;
    for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
        bench b = bench_of(16, 64);
        const lore_sequence_request request = {
            .tokens = a, .prompt_count = 2, .tokens_max = 4, .sampling = wishes[i], .owner = a};
        CHECK_OK(lore_sched_add(b.sched, &request, &ticket, &err), &err);
        const lore_step *step = lore_sched_plan(b.sched);
        CHECK(step->penalties != NULL);
        CHECK(step->tops == NULL);
        CHECK_NEAR(step->penalties[0].repetition, 1, 0);
        CHECK_NEAR(step->penalties[0].presence, wishes[i].presence_penalty, 0);
        CHECK_NEAR(step->penalties[0].frequency, wishes[i].frequency_penalty, 0);
        CHECK(step->penalties[0].biases == wishes[i].biases);
        CHECK_INT(step->penalties[0].bias_count, wishes[i].bias_count);
        lore_sched_free(b.sched);
    }
    bench b = bench_of(16, 64);
    int32_t c[64];
    add(&b, c, 2, 4);
    const lore_sequence_request request = {.tokens = a,
                                           .prompt_count = 2,
                                           .tokens_max = 4,
                                           .sampling = {.min_p = 0.25f, .tops = 3},
                                           .tops = tops,
                                           .owner = a};
    CHECK_OK(lore_sched_add(b.sched, &request, &ticket, &err), &err);
    for (int32_t t = 0; t < 4; t++) {
        const lore_step *step = lore_sched_plan(b.sched);
        CHECK_INT(step->logits_count, 2);
        CHECK_INT(step->samples[0].tops, 0);
        CHECK_INT(step->samples[1].tops, 3);
        CHECK_NEAR(step->samples[1].min_p, 0.25, 0);
        CHECK(step->tops != NULL);
        for (int32_t i = 0; i < 3; i++) {
            step->tops[LORE_TOPS_MAX + i] = (lore_likely){10 * t + i, -(float)i};
        }
        apply(&b, 50 + t);
    }
    for (int32_t i = 0; i < 4 * 3; i++) {
        CHECK_INT(tops[i].id, i / 3 * 10 + i % 3);
        CHECK_NEAR(tops[i].logprob, -(i % 3), 0);
    }
    lore_sched_free(b.sched);
}

TEST(survives_every_failing_allocation)
{
    check_alloc_sweep(make_and_free, NULL);
}

CHECK_MAIN(cuts_prompts_into_pieces_and_puts_decode_rows_first, ends_in_every_way,
           ends_at_one_more_token, cancels_waiting_and_running_sequences,
           preempts_the_youngest_and_computes_it_again, starts_behind_pages_that_are_there,
           says_whose_adapter_a_sequence_has, refuses_what_cannot_run,
           limits_pieces_beside_running_sequences_only, computes_again_at_the_turn,
           penalises_prompt_and_answer, hands_on_how_tokens_are_drawn,
           survives_every_failing_allocation)
