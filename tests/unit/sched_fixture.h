/* A scheduler under test with the results of its last apply, for the tests that write small cases
 * out: test_sched.c, test_sched_plan.c. */
#ifndef LORE_TESTS_SCHED_FIXTURE_H
#define LORE_TESTS_SCHED_FIXTURE_H

#include "tests/check.h"

#include "generation/sched.h"

enum { EOS = 9, RESULTS_MAX = 64, DRAWS_MAX = 3 };

typedef struct result {
    void *owner;
    int32_t ticket, id;
    lore_finish finish;
} result;

typedef struct bench {
    lore_sched *sched;
    result results[RESULTS_MAX];
    int32_t result_count;
    int32_t stop_id; /* the callback ends a sequence that draws it */
} bench;

/* Ends at EOS; the rest as the options say. */
static bench bench_with(lore_sched_options options)
{
    static const int32_t eos_ids[] = {EOS};
    lore_error err;
    bench b = {.stop_id = -1};
    options.eos_ids = eos_ids;
    options.eos_count = 1;
    CHECK_OK(lore_sched_new(&options, &b.sched, &err), &err);
    return b;
}

/* tokens: ids first, first + 1, ... */
static int32_t add_sampled(bench *b, int32_t first, int32_t *tokens, int32_t prompt_count,
                           int32_t tokens_max, lore_sampling sampling)
{
    for (int32_t i = 0; i < prompt_count; i++) {
        tokens[i] = first + i;
    }
    const lore_sequence_request request = {.tokens = tokens,
                                           .prompt_count = prompt_count,
                                           .tokens_max = tokens_max,
                                           .sampling = sampling,
                                           .owner = tokens};
    lore_error err;
    int32_t ticket = -1;
    CHECK_OK(lore_sched_add(b->sched, &request, &ticket, &err), &err);
    return ticket;
}

static bool on_token(void *self, void *owner, int32_t ticket, int32_t id, float logprob,
                     lore_finish finish)
{
    bench *b = self;
    (void)logprob;
    CHECK(b->result_count < RESULTS_MAX);
    b->results[b->result_count++] =
        (result){.owner = owner, .ticket = ticket, .id = id, .finish = finish};
    return id == b->stop_id;
}

/* The draws of the oldest step. */
static void apply_draws(bench *b, const int32_t ids[DRAWS_MAX])
{
    const float logprobs[DRAWS_MAX] = {0};
    b->result_count = 0;
    lore_sched_apply(b->sched, ids, logprobs, on_token, b);
}

static void check_rows(const lore_step *step, int32_t at, int32_t past, int32_t rows, int32_t id)
{
    CHECK(at < step->batch.sequences);
    CHECK_INT(step->batch.past[at], past);
    CHECK_INT(step->batch.row_start[at + 1] - step->batch.row_start[at], rows);
    CHECK_INT(step->ids[step->batch.row_start[at]], id);
}

#endif
