/* sim_sched: the scheduler under random load, with a fake model that notices every mistake.
 *
 * The fake model keeps one int32 a position in fake pages: running a step writes each row's id into
 * the page and place where the step says its key and value belong. The token it draws is a hash of
 * all ids that the step's page list shows for the sequence, read back from those pages, and of the
 * sampling parameters. So a wrong id, a wrong position, a page shared by two sequences, a page lost
 * or reused too early, a piece of a prompt skipped or fed twice: each changes the tokens, and the
 * tokens are compared with those of the same request run alone.
 *
 * An id is the request's number plus one, times VALUES, plus a small value, so that every row tells
 * whose it is. Ids below EOS_COUNT end a text; they are drawn but never fed.
 *
 *   sim_sched                 20,000 seeds, what ctest runs
 *   sim_sched --seeds 100000  a long run
 *   sim_sched --seed 42       replay one
 *
 * Checked for every seed: each request ends exactly once and for the right reason; its tokens are
 * right; rows, sequences and positions within bounds, pieces of prompts beside decode rows too,
 * while their limit changes from step to step; no page in two lists; free + owned = all, and all
 * free at the end; decode rows of all admitted sequences before any piece of a prompt; the oldest
 * live request advances in every step (so nobody starves), and the number of steps is bounded. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "generation/sched.h"
#include "tests/sim/seeds.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    VALUES = 1 << 12, /* ids of one request */
    EOS_COUNT = 3,
    REQUESTS_MAX = 48,
    CONTEXT_MAX = 96,
    TOKENS_MAX = 2 * CONTEXT_MAX + 2, /* prompt and answer of one request, refused ones included */
    BATCH_MAX = 8,
    PAGES_MAX = 48,
    PAGE_TOKENS_MAX = 8
};

typedef struct sim_request {
    int32_t tokens[TOKENS_MAX]; /* lent to the scheduler */
    int32_t prompt[TOKENS_MAX];
    int32_t expected[TOKENS_MAX]; /* the answer when run alone */
    int32_t prompt_count, tokens_max, expected_count;
    lore_finish expected_finish;
    lore_sampling sampling;
    int32_t stop_after; /* the callback ends it after so many tokens, 0: never */
    int32_t ticket;
    int32_t received;
    int32_t ends; /* how often its end was reported */
    bool is_added, was_cancelled, was_aborted;
    bool was_in_step, is_running; /* running: has drawn, and was not thrown out since */
} sim_request;

typedef struct sim {
    uint64_t seed, random;
    lore_sched *sched;
    lore_sched_options options;
    /* [page_count, page_tokens] ids, and what each was rotated for: a text beyond turn_tokens */
    int32_t fake_pages[PAGES_MAX * PAGE_TOKENS_MAX];
    bool is_turned[PAGES_MAX * PAGE_TOKENS_MAX];
    bool page_seen[PAGES_MAX];
    int32_t piece_rows_max; /* beside running requests */
    sim_request requests[REQUESTS_MAX];
    int32_t request_count, added_count, ended_count;
    int64_t steps, idle_turns; /* idle: nothing was live */
    const char *failed;        /* first violated rule */
} sim;

static sim state; /* one at a time; too large for a stack */

#define RULE(condition, words)                                                                     \
    do {                                                                                           \
        if (!(condition) && s->failed == NULL) {                                                   \
            s->failed = words;                                                                     \
            fprintf(stderr, "sim_sched: seed %" PRIu64 ": %s (%s)\n", s->seed, words, #condition); \
        }                                                                                          \
    } while (0)

/* low..high, both included. */
static int32_t draw_between(sim *s, int32_t low, int32_t high)
{
    return low + (int32_t)(lore_random_next(&s->random) % (uint64_t)(high - low + 1));
}

/* ---- the fake model ---- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    uint64_t state_of_hash = hash ^ (value * 0x9E3779B97F4A7C15u);
    return lore_random_next(&state_of_hash);
}

/* The token after these ids. Depends on every id and its position, and on how it is drawn. */
static int32_t next_token(const int32_t *ids, int32_t count, const lore_sample *sample)
{
    uint64_t hash = mix(sample->seed, (uint64_t)sample->position);
    hash = mix(hash, (uint64_t)sample->top_k);
    hash = mix(hash, (uint64_t)(sample->temperature * 1000.0f + sample->top_p));
    for (int32_t i = 0; i < count; i++) {
        hash = mix(hash, (uint64_t)ids[i]);
    }
    if (hash % 24 == 0) {
        return (int32_t)(hash / 24 % EOS_COUNT);
    }
    return ids[0] / VALUES * VALUES + (int32_t)(hash % VALUES);
}

/* The request run alone: what it must receive however it is scheduled. */
static void run_alone(const sim *s, sim_request *req)
{
    int32_t ids[TOKENS_MAX];
    int32_t count = req->prompt_count;
    int32_t room = s->options.context - count;
    int32_t most = req->tokens_max < room ? req->tokens_max : room;
    memcpy(ids, req->prompt, (size_t)count * sizeof(int32_t));
    req->expected_count = 0;
    req->expected_finish = LORE_FINISH_NONE;
    while (req->expected_finish == LORE_FINISH_NONE) {
        lore_sample sample = {.temperature = req->sampling.temperature,
                              .top_p = req->sampling.top_p,
                              .top_k = req->sampling.top_k,
                              .seed = req->sampling.seed,
                              .position = count};
        ids[count] = next_token(ids, count, &sample);
        req->expected[req->expected_count++] = ids[count++];
        if (ids[count - 1] < EOS_COUNT || req->expected_count == req->stop_after) {
            req->expected_finish = LORE_FINISH_STOP;
        } else if (req->expected_count == most) {
            req->expected_finish = LORE_FINISH_LENGTH;
        }
    }
}

static int32_t place_of(const sim *s, const int32_t *list, int32_t position)
{
    int32_t page_tokens = s->options.page_tokens;
    return list[position / page_tokens] * page_tokens + position % page_tokens;
}

/* A text of so many tokens is rotated in the second way. */
static bool is_turned_at(const sim *s, int32_t tokens)
{
    return s->options.turn_tokens > 0 && tokens > s->options.turn_tokens;
}

static void check_page_list(sim *s, const lore_batch *batch, int32_t at, int32_t context)
{
    int32_t pages = batch->page_start[at + 1] - batch->page_start[at];
    RULE(pages * s->options.page_tokens >= context, "a page list has no room for its rows");
    for (int32_t i = batch->page_start[at]; i < batch->page_start[at + 1]; i++) {
        int32_t page = batch->pages[i];
        RULE(page >= 0 && page < s->options.page_count, "a page does not exist");
        if (s->failed != NULL) {
            return;
        }
        RULE(!s->page_seen[page], "a page is in two lists");
        s->page_seen[page] = true;
    }
}

/* Every known token counts, those of the prompt too. */
static void check_penalty(sim *s, const lore_step *step, int32_t draw, const sim_request *req,
                          int32_t context)
{
    float wanted = req->sampling.repetition_penalty;
    wanted = wanted == 0 ? 1 : wanted;
    if (step->penalties == NULL) {
        RULE(wanted == 1, "a penalty is lost");
        return;
    }
    const lore_penalty *penalty = &step->penalties[draw];
    RULE(penalty->factor == wanted, "another penalty than asked for");
    RULE(penalty->count == context && penalty->ids == req->tokens, "a penalty on other tokens");
}

/* Run one sequence of the step: write its rows, and draw when the step wants it to. */
static void run_sequence(sim *s, const lore_step *step, int32_t at, int32_t *draw, int32_t *out)
{
    const lore_batch *batch = &step->batch;
    int32_t first = batch->row_start[at], rows = batch->row_start[at + 1] - first;
    int32_t past = batch->past[at], context = past + rows;
    RULE(rows >= 1, "a sequence without rows");
    RULE(context < s->options.context + 1, "a position beyond the context");
    RULE(rows <= batch->rows_max && context <= batch->context_max, "a maximum is too small");
    check_page_list(s, batch, at, context);
    const int32_t *list = batch->pages + batch->page_start[at];
    RULE(step->lengths[at] >= context, "a text is shorter than its rows");
    for (int32_t i = 0; i < rows && s->failed == NULL; i++) {
        s->fake_pages[place_of(s, list, past + i)] = step->ids[first + i];
        s->is_turned[place_of(s, list, past + i)] = is_turned_at(s, step->lengths[at]);
    }
    int32_t number = step->ids[first] / VALUES - 1;
    RULE(number >= 0 && number < s->request_count, "a row of no request");
    if (s->failed != NULL) {
        return;
    }
    RULE(!s->requests[number].was_in_step, "a request is in the step twice");
    s->requests[number].was_in_step = true;
    if (*draw < step->logits_count && step->logits_rows[*draw] == first + rows - 1) {
        int32_t ids[TOKENS_MAX];
        for (int32_t p = 0; p < context; p++) {
            ids[p] = s->fake_pages[place_of(s, list, p)];
            RULE(s->is_turned[place_of(s, list, p)] == is_turned_at(s, context),
                 "keys of a shorter text");
        }
        check_penalty(s, step, *draw, &s->requests[number], context);
        RULE(step->samples[*draw].position == context, "a token is drawn for another position");
        out[*draw] = next_token(ids, context, &step->samples[*draw]);
        (*draw)++;
    }
}

/* A running request misses a step only when it was thrown out. */
static void check_running(sim *s, int64_t preempted)
{
    for (int32_t i = 0; i < s->request_count; i++) {
        sim_request *req = &s->requests[i];
        if (req->is_running && req->ends == 0 && !req->was_cancelled && !req->was_in_step) {
            req->is_running = false;
            preempted--;
        }
    }
    RULE(preempted >= 0, "a running request was left out");
}

/* Decode rows come first: behind a longer piece there is none but the first of a sequence. Beside
 * them pieces are limited. */
static void check_order(sim *s, const lore_step *step)
{
    bool has_long_piece = false, has_decode = false;
    int32_t piece_rows = 0;
    for (int32_t i = 0; i < step->batch.sequences; i++) {
        const sim_request *req = &s->requests[step->ids[step->batch.row_start[i]] / VALUES - 1];
        int32_t rows = step->batch.row_start[i + 1] - step->batch.row_start[i];
        bool is_decode = rows == 1 && step->batch.past[i] == req->prompt_count + req->received - 1;
        RULE(!is_decode || step->batch.past[i] == 0 || !has_long_piece,
             "a decode row behind a piece of a prompt");
        has_long_piece = has_long_piece || rows > 1;
        has_decode = has_decode || (is_decode && req->received > 0);
        piece_rows += rows > 1 ? rows : 0;
    }
    RULE(!has_decode || piece_rows <= s->piece_rows_max, "pieces keep a running request waiting");
}

static void run_step(sim *s, const lore_step *step, int32_t *out)
{
    const lore_batch *batch = &step->batch;
    RULE(batch->rows <= s->options.rows_max, "more rows than rows_max");
    RULE(batch->sequences <= s->options.sequences_max, "more sequences than sequences_max");
    RULE(batch->row_start[0] == 0 && batch->row_start[batch->sequences] == batch->rows,
         "row_start does not span the rows");
    memset(s->page_seen, 0, sizeof s->page_seen);
    for (int32_t i = 0; i < s->request_count; i++) {
        s->requests[i].was_in_step = false;
    }
    int32_t draw = 0;
    for (int32_t i = 0; i < batch->sequences && s->failed == NULL; i++) {
        run_sequence(s, step, i, &draw, out);
    }
    RULE(draw == step->logits_count, "a drawn row is not the last of a sequence");
    check_order(s, step);
}

/* ---- results ---- */

static bool on_token(void *self, void *owner, int32_t ticket, int32_t id, float logprob,
                     lore_finish finish)
{
    sim *s = self;
    sim_request *req = owner;
    RULE(req->ticket == ticket, "a result with the ticket of another request");
    RULE(req->ends == 0, "a result after the end");
    if (id < 0) {
        RULE(finish == LORE_FINISH_CANCELLED ? req->was_cancelled : req->was_aborted,
             "an end that nobody asked for");
        req->ends++;
        s->ended_count++;
        return false;
    }
    RULE(!req->was_cancelled, "a token after the cancel");
    RULE(req->received < req->expected_count, "more tokens than alone");
    RULE(s->failed != NULL || req->expected[req->received] == id, "another token than alone");
    RULE((int32_t)-logprob == id % VALUES, "the logprob of another token");
    req->received++;
    /* At its turn it prefills again. */
    req->is_running = req->prompt_count + req->received - 1 != s->options.turn_tokens;
    bool is_stopped = req->received == req->stop_after;
    bool is_over = is_stopped || finish != LORE_FINISH_NONE;
    if (is_over) {
        RULE(req->received == req->expected_count, "it ended early");
        RULE((is_stopped ? LORE_FINISH_STOP : finish) == req->expected_finish,
             "it ended for another reason than alone");
        req->ends++;
        s->ended_count++;
        memset(req->tokens, 0xEE, sizeof req->tokens); /* lent until now, not a moment longer */
    }
    RULE(is_over == (req->received == req->expected_count), "it went on too long");
    return is_stopped;
}

/* ---- load ---- */

static void make_request(sim *s, int32_t number)
{
    sim_request *req = &s->requests[number];
    int32_t context = s->options.context;
    memset(req, 0, sizeof *req);
    /* Mostly short, sometimes as long as can be, sometimes too long to be accepted. */
    int32_t longest = draw_between(s, 0, 3) == 0 ? context + 1 : 1 + context / 4;
    req->prompt_count = draw_between(s, 1, longest < TOKENS_MAX ? longest : TOKENS_MAX);
    req->tokens_max = draw_between(s, 1, draw_between(s, 0, 3) == 0 ? context : 1 + context / 3);
    req->stop_after = draw_between(s, 0, 5) == 0 ? draw_between(s, 1, 6) : 0;
    req->sampling = (lore_sampling){.temperature = (float)draw_between(s, 0, 2),
                                    .top_p = 1.0f,
                                    .top_k = draw_between(s, 0, 5),
                                    .seed = lore_random_next(&s->random),
                                    .repetition_penalty = 0.5f * (float)draw_between(s, 0, 3)};
    for (int32_t i = 0; i < req->prompt_count; i++) {
        req->prompt[i] = (number + 1) * VALUES + draw_between(s, 0, VALUES - 1);
    }
    memcpy(req->tokens, req->prompt, sizeof req->prompt);
}

static bool can_ever_run(const sim *s, const sim_request *req)
{
    int32_t total = req->prompt_count + req->tokens_max;
    total = total < s->options.context ? total : s->options.context;
    int32_t pages = (total - 1 + s->options.page_tokens - 1) / s->options.page_tokens;
    return req->prompt_count < s->options.context && pages <= s->options.page_count;
}

static void arrive(sim *s)
{
    lore_sched_stats stats;
    lore_sched_get_stats(s->sched, &stats);
    int32_t number = s->request_count;
    make_request(s, number);
    sim_request *req = &s->requests[number];
    lore_sequence_request request = {.tokens = req->tokens,
                                     .prompt_count = req->prompt_count,
                                     .tokens_max = req->tokens_max,
                                     .sampling = req->sampling,
                                     .owner = req};
    lore_error err;
    lore_status status = lore_sched_add(s->sched, &request, &req->ticket, &err);
    if (!can_ever_run(s, req)) {
        RULE(status == LORE_ERR_LIMIT, "a request that can never fit was not refused");
        s->request_count++;
        req->ends = 1;
        return;
    }
    if (status == LORE_ERR_BUSY) {
        RULE(stats.waiting >= s->options.waiting_max ||
                 s->added_count - s->ended_count >=
                     s->options.waiting_max + s->options.sequences_max,
             "busy without reason");
        return; /* the number is used again */
    }
    RULE(status == LORE_OK, "a request that fits was refused");
    s->request_count++;
    s->added_count++;
    req->is_added = true;
    run_alone(s, req);
}

static void cancel_one(sim *s)
{
    if (s->request_count == 0) {
        return;
    }
    sim_request *req = &s->requests[draw_between(s, 0, s->request_count - 1)];
    if (req->is_added && req->ends == 0) {
        lore_sched_cancel(s->sched, req->ticket);
        req->was_cancelled = true;
    }
}

static sim_request *oldest_live(sim *s)
{
    for (int32_t i = 0; i < s->request_count; i++) {
        sim_request *req = &s->requests[i];
        if (req->is_added && req->ends == 0 && !req->was_cancelled) {
            return req;
        }
    }
    return NULL;
}

static void check_stats(sim *s)
{
    lore_sched_stats stats;
    lore_sched_get_stats(s->sched, &stats);
    RULE(stats.pages_total == s->options.page_count, "pages_total has changed");
    RULE(stats.pages_free >= 0 && stats.pages_free <= stats.pages_total, "pages_free is wrong");
    RULE(stats.running <= s->options.sequences_max, "more running than allowed");
    RULE(stats.running > 0 || stats.pages_free == stats.pages_total, "a page without an owner");
    RULE(stats.waiting + stats.running == s->added_count - s->ended_count,
         "a request was lost or is counted twice");
}

/* One turn of the engine's loop: plan, run or fail, apply. */
static void turn(sim *s, int32_t trouble)
{
    int32_t ids[BATCH_MAX];
    float logprobs[BATCH_MAX];
    sim_request *oldest = oldest_live(s);
    lore_sched_stats before, after;
    lore_sched_get_stats(s->sched, &before);
    if (draw_between(s, 0, 3) == 0) {
        s->piece_rows_max = draw_between(s, 1, s->options.rows_max + 1);
        lore_sched_limit_pieces(s->sched, s->piece_rows_max);
    }
    const lore_step *step = lore_sched_plan(s->sched);
    lore_sched_get_stats(s->sched, &after);
    if (step->batch.rows > 0) {
        run_step(s, step, ids);
        RULE(oldest == NULL || oldest->was_in_step, "the oldest request stands still");
        check_running(s, after.preemptions - before.preemptions);
        for (int32_t i = 0; i < step->logits_count; i++) {
            logprobs[i] = -(float)(ids[i] % VALUES);
        }
    }
    RULE(step->batch.rows > 0 || oldest == NULL, "nothing planned while a request is live");
    if (s->failed != NULL) {
        return;
    }
    if (trouble == 1) {
        cancel_one(s); /* in the middle of a step */
    }
    if (trouble == 2) {
        for (int32_t i = 0; i < s->request_count; i++) {
            s->requests[i].was_aborted = s->requests[i].ends == 0;
        }
        lore_sched_abort(s->sched, LORE_FINISH_ERROR, on_token, s);
        RULE(s->ended_count == s->added_count, "abort left a request behind");
    } else {
        lore_sched_apply(s->sched, ids, logprobs, on_token, s);
    }
    s->steps++;
    s->idle_turns += oldest == NULL;
    check_stats(s);
}

/* ---- one seed ---- */

static void draw_options(sim *s)
{
    static const int32_t eos_ids[EOS_COUNT] = {0, 1, 2};
    s->options =
        (lore_sched_options){.rows_max = draw_between(s, 1, 24),
                             .sequences_max = draw_between(s, 1, BATCH_MAX),
                             .waiting_max = draw_between(s, 1, 12),
                             .context = draw_between(s, 2, CONTEXT_MAX),
                             .page_tokens = draw_between(s, 1, PAGE_TOKENS_MAX),
                             .page_count = draw_between(s, 1, draw_between(s, 2, PAGES_MAX)),
                             .eos_ids = eos_ids,
                             .eos_count = EOS_COUNT};
    if (draw_between(s, 0, 1) == 0) {
        s->options.turn_tokens = draw_between(s, 1, s->options.context);
    }
}

/* The worst case of invariant 5 in sched.c: the requests one after another, each one token a step,
 * those before its turn twice. */
static int64_t steps_bound(const sim *s)
{
    int64_t bound = 0;
    for (int32_t i = 0; i < s->request_count; i++) {
        if (s->requests[i].is_added) {
            bound += s->requests[i].prompt_count + s->requests[i].expected_count + 1;
            bound += s->options.turn_tokens;
        }
    }
    return bound;
}

static void play(sim *s)
{
    int32_t wanted = draw_between(s, 1, REQUESTS_MAX - 1);
    int32_t burst = draw_between(s, 1, 8); /* arrivals a turn at most */
    int32_t cancels = draw_between(s, 0, 2) == 0 ? draw_between(s, 2, 20) : 0;
    int32_t failures = draw_between(s, 0, 4) == 0 ? draw_between(s, 20, 60) : 0;
    /* Turns without arrivals still need something live, so they cannot go on for ever. */
    while (s->failed == NULL && (s->request_count < wanted || s->ended_count < s->added_count)) {
        for (int32_t i = draw_between(s, 0, burst); i > 0 && s->request_count < wanted; i--) {
            arrive(s);
        }
        int32_t trouble = 0;
        if (cancels > 0 && draw_between(s, 0, cancels) == 0) {
            cancel_one(s); /* before the plan, and then perhaps again in the step */
            trouble = draw_between(s, 0, 1);
        }
        if (failures > 0 && draw_between(s, 0, failures) == 0) {
            trouble = 2;
        }
        int64_t idle_turns = s->idle_turns;
        turn(s, trouble);
        RULE(s->steps - idle_turns <= steps_bound(s) + 1,
             "more steps than the requests have tokens");
    }
}

static void check_end(sim *s)
{
    lore_sched_stats stats;
    lore_sched_get_stats(s->sched, &stats);
    RULE(stats.pages_free == stats.pages_total, "a page was lost");
    RULE(stats.waiting == 0 && stats.running == 0, "the scheduler is not empty");
    for (int32_t i = 0; i < s->request_count; i++) {
        RULE(s->requests[i].ends == 1, "a request did not end exactly once");
    }
}

/* True: all rules hold. */
static bool run_seed(sim *s, uint64_t seed, lore_sched_stats *stats)
{
    memset(s, 0, sizeof *s);
    s->seed = seed;
    s->random = seed;
    draw_options(s);
    s->piece_rows_max = s->options.rows_max;
    int64_t live = lore_mem_live();
    lore_error err;
    lore_status status = lore_sched_new(&s->options, &s->sched, &err);
    RULE(status == LORE_OK, "the scheduler could not be made");
    if (status != LORE_OK) {
        return false;
    }
    int64_t made = lore_mem_count();
    play(s);
    RULE(lore_mem_count() == made, "the scheduler allocated");
    if (s->failed == NULL) {
        check_end(s);
    }
    lore_sched_get_stats(s->sched, stats);
    lore_sched_free(s->sched);
    RULE(lore_mem_live() == live, "memory was lost");
    return s->failed == NULL;
}

int main(int argc, char **argv)
{
    int64_t first = 1, count = 20000;
    if (!sim_parse_seeds(argc, argv, &first, &count)) {
        return 2;
    }
    int64_t steps = 0, tokens = 0, preemptions = 0;
    for (int64_t i = 0; i < count; i++) {
        lore_sched_stats stats = {0};
        if (!run_seed(&state, (uint64_t)(first + i), &stats)) {
            fprintf(stderr, "sim_sched: replay with --seed %lld\n", (long long)(first + i));
            return 1;
        }
        steps += stats.steps;
        tokens += stats.generated_tokens;
        preemptions += stats.preemptions;
    }
    printf("%lld seeds: %lld steps, %lld tokens, %lld preemptions, all rules hold\n",
           (long long)count, (long long)steps, (long long)tokens, (long long)preemptions);
    return 0;
}
