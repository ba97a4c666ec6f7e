/* sim_sched: the scheduler under random load, with a fake model that notices every mistake.
 *
 * The fake model keeps one number a position in fake pages: running a step writes, into the page
 * and place where the step says a row's key and value belong, a hash of its id and of the number
 * before it, so that a number stands for all tokens up to its own as keys and values do. The token
 * it draws is a hash of all numbers that the step's page list shows for the sequence, read back
 * from those pages, and of the sampling parameters. So a wrong id, a wrong position, a page shared
 * by two texts that differ, a page lost or reused too early, a piece of a prompt skipped or fed
 * twice: each changes the tokens, and the tokens are compared with those of the same request run
 * alone. Beside each id stands the salt of the request that wrote it, which must be that of whoever
 * reads it.
 *
 * Prompts begin alike: with the words of a family, or with the whole of an earlier request, as a
 * conversation does. Whose a row is, the simulation knows from the order in which sequences enter a
 * step. Ids below EOS_COUNT end a text; they are drawn but never fed.
 *
 *   sim_sched                 20,000 seeds, what ctest runs
 *   sim_sched --seeds 100000  a long run
 *   sim_sched --seed 42       replay one
 *
 * Checked for every seed: each request ends exactly once and for the right reason; its tokens are
 * right; rows, sequences and positions within bounds, pieces of prompts beside decode rows too,
 * while their limit changes from step to step; no page of two lists is written; free + held = all,
 * and all free at the end; decode rows of all admitted sequences before any piece of a prompt; the
 * oldest live request advances in every step (so nobody starves), and the number of steps is
 * bounded. */
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
    VALUES = 1 << 12, /* ids of one request; those of families are below */
    FAMILIES = 2,
    SALTS = 2,
    EOS_COUNT = 3,
    REQUESTS_MAX = 48,
    CONTEXT_MAX = 96,
    TOKENS_MAX = 2 * CONTEXT_MAX + 2, /* prompt and answer of one request, refused ones included */
    TOPS_MAX = 2,
    BATCH_MAX = 8,
    MISSED_MAX = 2, /* steps in a row, with two in flight */
    PAGES_MAX = 48,
    PAGE_TOKENS_MAX = 8
};

typedef struct sim_request {
    int32_t tokens[TOKENS_MAX]; /* lent to the scheduler */
    int32_t prompt[TOKENS_MAX];
    int32_t expected[TOKENS_MAX];            /* the answer when run alone */
    lore_likely tops[TOKENS_MAX * TOPS_MAX]; /* lent to the scheduler */
    int32_t prompt_count, tokens_max, expected_count;
    lore_finish expected_finish;
    lore_sampling sampling;
    uint64_t salt;
    int32_t cached_tokens; /* lent to the scheduler; -1: never admitted */
    int32_t stop_after;    /* the callback ends it after so many tokens, 0: never */
    int32_t ticket;
    int32_t received;
    int32_t ends; /* how often its end was reported */
    bool is_added, was_cancelled, was_aborted;
    bool was_in_step, is_running; /* running: has drawn, and was not thrown out since */
    bool is_admitted;
    int32_t past;    /* tokens in pages; -1: it begins with the pages it finds */
    int32_t awaited; /* tokens drawn by steps that are not applied */
    int32_t missed;  /* plans in a row without it, though it runs */
} sim_request;

/* A step that is computed, as a device does in the order of steps, and not applied. */
typedef struct sim_flight {
    int32_t ids[BATCH_MAX], draws;
    sim_request *drawn_for[BATCH_MAX];
    sim_request *listed_by[PAGES_MAX], *written_by[PAGES_MAX]; /* NULL: by none */
    int32_t lists_with[PAGES_MAX];
} sim_flight;

typedef struct sim {
    uint64_t seed, random;
    lore_sched *sched;
    lore_sched_options options;
    /* [page_count, page_tokens] numbers, and what each was rotated for: a text beyond turn_tokens
     */
    uint64_t fake_pages[PAGES_MAX * PAGE_TOKENS_MAX];
    bool is_turned[PAGES_MAX * PAGE_TOKENS_MAX];
    uint64_t salts[PAGES_MAX * PAGE_TOKENS_MAX];
    sim_flight flights[2], *now; /* oldest first; the step in hand */
    int32_t flight_count;
    sim_request *rows_of[BATCH_MAX]; /* whose rows the sequences of the step are */
    int32_t piece_rows_max;          /* beside running requests */
    sim_request requests[REQUESTS_MAX];
    int32_t request_count, added_count, ended_count;
    int64_t steps, idle_turns; /* idle: nothing was live */
    const sim_request *oldest; /* of the last turn */
    int32_t oldest_missed;     /* turns without it, in a row */
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

/* The token after these numbers. Depends on all of them and on how it is drawn. */
static int32_t next_token(const sim *s, const sim_request *req, const uint64_t *numbers,
                          int32_t count, const lore_sample *sample)
{
    uint64_t hash = mix(sample->seed, (uint64_t)sample->position);
    hash = mix(hash, (uint64_t)sample->top_k);
    hash = mix(hash, (uint64_t)(sample->temperature * 1000.0f + sample->top_p));
    for (int32_t i = 0; i < count; i++) {
        hash = mix(hash, numbers[i]);
    }
    if (hash % 24 == 0) {
        return (int32_t)(hash / 24 % EOS_COUNT);
    }
    return (int32_t)(req - s->requests + 1) * VALUES + (int32_t)(hash % VALUES);
}

/* The request run alone: what it must receive however it is scheduled. */
static void run_alone(const sim *s, sim_request *req)
{
    int32_t ids[TOKENS_MAX];
    uint64_t numbers[TOKENS_MAX];
    int32_t count = req->prompt_count, numbered = 0;
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
        for (; numbered < count; numbered++) {
            numbers[numbered] =
                mix(numbered > 0 ? numbers[numbered - 1] : 0, (uint64_t)ids[numbered]);
        }
        ids[count] = next_token(s, req, numbers, count, &sample);
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

static void check_page_lists(sim *s, const lore_batch *batch)
{
    int32_t *lists_with = s->now->lists_with;
    for (int32_t i = 0; i < batch->page_start[batch->sequences]; i++) {
        RULE(batch->pages[i] >= 0 && batch->pages[i] < s->options.page_count,
             "a page does not exist");
        if (s->failed != NULL) {
            return;
        }
        lists_with[batch->pages[i]]++;
    }
    for (int32_t at = 0; at < batch->sequences; at++) {
        int32_t rows = batch->row_start[at + 1] - batch->row_start[at];
        int32_t pages = batch->page_start[at + 1] - batch->page_start[at];
        RULE(pages * s->options.page_tokens >= batch->past[at] + rows,
             "a page list has no room for its rows");
        for (int32_t i = batch->past[at] / s->options.page_tokens; i < pages; i++) {
            RULE(lists_with[batch->pages[batch->page_start[at] + i]] == 1,
                 "a page that others read is written");
        }
    }
}

/* ---- whose rows ---- */

static bool is_live(const sim_request *req)
{
    return req->is_added && req->ends == 0 && !req->was_cancelled;
}

static int32_t known_of(const sim_request *req)
{
    return req->prompt_count + req->received;
}

static int32_t length_of(const sim_request *req)
{
    return known_of(req) + req->awaited;
}

static bool is_steered(const sim_request *req)
{
    const float factor = req->sampling.repetition_penalty;
    return (factor != 0 && factor != 1) || req->sampling.presence_penalty != 0;
}

/* Who holds pages after the plan: of those that did, the youngest may have been thrown out; then
 * those that wait come in, by arrival. Gives how many came in. */
static int32_t follow_admissions(sim *s, int64_t preempted, int32_t running)
{
    int32_t admitted = 0, entered = 0;
    for (int32_t i = 0; i < s->request_count; i++) {
        s->requests[i].is_admitted = s->requests[i].is_admitted && is_live(&s->requests[i]);
        admitted += s->requests[i].is_admitted;
    }
    for (int32_t i = s->request_count - 1; i >= 0 && preempted > 0; i--) {
        if (s->requests[i].is_admitted) {
            s->requests[i].is_admitted = false;
            admitted--;
            preempted--;
        }
    }
    RULE(preempted == 0, "more preemptions than sequences");
    for (int32_t i = 0; i < s->request_count && admitted < running; i++) {
        if (is_live(&s->requests[i]) && !s->requests[i].is_admitted) {
            s->requests[i].is_admitted = true;
            s->requests[i].past = -1;
            admitted++;
            entered++;
        }
    }
    RULE(admitted == running, "more or fewer run than came in");
    return entered;
}

/* The next request behind *from, by arrival, that sequence `at` may be: like it, with one pending
 * token or with more. At its turn only its tokens tell, of which the last is no one else's. */
static sim_request *next_row_owner(sim *s, int32_t *from, const lore_step *step, int32_t at)
{
    const int32_t past = step->batch.past[at], length = step->lengths[at];
    while (*from < s->request_count) {
        sim_request *req = &s->requests[(*from)++];
        bool is_alike = req->past < 0
                            ? length == known_of(req) &&
                                  req->tokens[past] == step->ids[step->batch.row_start[at]]
                            : (known_of(req) - req->past > 1) == (length - past > 1);
        if (req->is_admitted && req->awaited == 0 && !req->was_in_step && is_alike) {
            return req;
        }
    }
    return NULL;
}

/* The request whose token the step before draws; only that one knows it. */
static sim_request *find_drawn(sim *s, int32_t id)
{
    const int32_t draw = -1 - id;
    RULE(s->flight_count == 1 && draw < s->flights[0].draws, "a row goes by a draw there is not");
    return s->failed == NULL ? s->flights[0].drawn_for[draw] : NULL;
}

static bool takes_rows(sim *s, sim_request *req)
{
    RULE(req->is_admitted && req->awaited == 1 && req->ends == 0, "a row behind the end");
    RULE(!is_steered(req), "a penalty that does not know the last token");
    RULE(length_of(req) < req->prompt_count + req->tokens_max &&
             length_of(req) < s->options.context,
         "a row behind the last token");
    return s->failed == NULL;
}

/* Sequences with one token to go come first, then pieces of prompts, then those that came in with
 * this plan, each by arrival. */
static void find_owners(sim *s, const lore_step *step, int32_t entered)
{
    const lore_batch *batch = &step->batch;
    int32_t running = 0, prefilling = 0, arriving = s->request_count;
    for (int32_t left = entered; left > 0; left -= s->requests[arriving].is_admitted) {
        arriving--;
    }
    for (int32_t at = 0; at < batch->sequences && s->failed == NULL; at++) {
        int32_t *from = at >= batch->sequences - entered          ? &arriving
                        : step->lengths[at] - batch->past[at] > 1 ? &prefilling
                                                                  : &running;
        const int32_t id = step->ids[batch->row_start[at]];
        sim_request *req = id < 0 ? find_drawn(s, id) : next_row_owner(s, from, step, at);
        RULE(req != NULL, "rows of nobody");
        if (req == NULL || (id < 0 && !takes_rows(s, req))) {
            return;
        }
        RULE(!req->was_in_step, "a request is in the step twice");
        if (req->past < 0) {
            RULE(batch->past[at] % s->options.page_tokens == 0, "a part of a page was found");
            RULE(req->cached_tokens >= 0, "nobody said what was found");
            req->past = batch->past[at];
        }
        RULE(batch->past[at] == req->past, "tokens are skipped or computed twice");
        RULE(step->lengths[at] == length_of(req), "a text is longer or shorter than it is");
        req->was_in_step = true;
        s->rows_of[at] = req;
    }
}

/* Every known token counts, those of the prompt too. */
static void check_penalty(sim *s, const lore_step *step, int32_t draw, const sim_request *req,
                          int32_t context)
{
    float wanted = req->sampling.repetition_penalty;
    wanted = wanted == 0 ? 1 : wanted;
    if (step->penalties == NULL) {
        RULE(wanted == 1 && req->sampling.presence_penalty == 0, "a penalty is lost");
        return;
    }
    const lore_penalty *penalty = &step->penalties[draw];
    RULE(penalty->repetition == wanted && penalty->presence == req->sampling.presence_penalty,
         "another penalty than asked for");
    RULE(penalty->count == (is_steered(req) ? context : known_of(req)) &&
             penalty->ids == req->tokens,
         "a penalty on other tokens");
    RULE(penalty->answer_start == req->prompt_count, "a penalty on tokens of the prompt");
}

/* Pages of a step in flight are neither written nor read by anybody else. */
static void check_flight(sim *s, const lore_step *step, int32_t at)
{
    const lore_batch *batch = &step->batch;
    sim_request *req = s->rows_of[at];
    const sim_flight *before = s->flight_count > 0 ? &s->flights[0] : NULL;
    for (int32_t i = batch->page_start[at]; i < batch->page_start[at + 1]; i++) {
        const int32_t page = batch->pages[i];
        const bool is_written =
            i - batch->page_start[at] >= batch->past[at] / s->options.page_tokens;
        s->now->listed_by[page] = req;
        s->now->written_by[page] = is_written ? req : s->now->written_by[page];
        if (before == NULL) {
            continue;
        }
        RULE(before->written_by[page] == NULL || before->written_by[page] == req,
             "a page is read while somebody else writes it");
        RULE(!is_written || before->lists_with[page] == 0 ||
                 (before->lists_with[page] == 1 && before->listed_by[page] == req),
             "a page is written while somebody else reads it");
    }
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
    const int32_t *list = batch->pages + batch->page_start[at];
    sim_request *req = s->rows_of[at];
    check_flight(s, step, at);
    RULE(step->lengths[at] >= context, "a text is shorter than its rows");
    for (int32_t i = 0; i < rows && s->failed == NULL; i++) {
        uint64_t before = past + i > 0 ? s->fake_pages[place_of(s, list, past + i - 1)] : 0;
        int32_t id = step->ids[first + i];
        id = id < 0 ? s->flights[0].ids[-1 - id] : id;
        s->fake_pages[place_of(s, list, past + i)] = mix(before, (uint64_t)id);
        s->is_turned[place_of(s, list, past + i)] = is_turned_at(s, step->lengths[at]);
        s->salts[place_of(s, list, past + i)] = req->salt;
    }
    req->past += rows;
    if (*draw < step->logits_count && step->logits_rows[*draw] == first + rows - 1) {
        uint64_t numbers[TOKENS_MAX];
        for (int32_t p = 0; p < context; p++) {
            numbers[p] = s->fake_pages[place_of(s, list, p)];
            RULE(s->is_turned[place_of(s, list, p)] == is_turned_at(s, context),
                 "keys of a shorter or longer text");
            RULE(s->salts[place_of(s, list, p)] == req->salt, "keys of another salt");
        }
        check_penalty(s, step, *draw, req, context);
        RULE(step->samples[*draw].position == context, "a token is drawn for another position");
        out[*draw] = next_token(s, req, numbers, context, &step->samples[*draw]);
        for (int32_t i = 0; i < step->samples[*draw].tops; i++) {
            step->tops[*draw * LORE_TOPS_MAX + i].id = out[*draw] + i;
        }
        s->now->drawn_for[*draw] = req;
        req->awaited++;
        (*draw)++;
    }
}

/* A running request misses a step only when it was thrown out; with two steps in flight also while
 * it or a page is waited for, which is over soon. */
static void check_running(sim *s, int64_t preempted, int32_t pages_free)
{
    for (int32_t i = 0; s->options.steps_in_flight == 2 && i < s->request_count; i++) {
        sim_request *req = &s->requests[i];
        const bool is_missing =
            req->is_running && req->is_admitted && is_live(req) && !req->was_in_step;
        req->missed = is_missing ? req->missed + 1 : 0;
        req->is_running = req->is_running && req->is_admitted;
        RULE(req->missed <= MISSED_MAX, "a running request was left out");
        RULE(!is_missing || is_steered(req) || s->options.turn_tokens > 0 || pages_free == 0 ||
                 length_of(req) == req->prompt_count + req->tokens_max ||
                 length_of(req) == s->options.context,
             "a running request was left out without need");
    }
    for (int32_t i = 0; s->options.steps_in_flight == 1 && i < s->request_count; i++) {
        sim_request *req = &s->requests[i];
        if (req->is_running && req->ends == 0 && !req->was_cancelled && !req->was_in_step) {
            req->is_running = false;
            preempted--;
        }
    }
    RULE(preempted >= 0 || s->options.steps_in_flight == 2, "a running request was left out");
}

/* Decode rows come first: behind a longer piece there is none but of a sequence that came in just
 * now. Beside them pieces are limited. */
static void check_order(sim *s, const lore_step *step, int32_t entered)
{
    bool has_long_piece = false, has_decode = false;
    int32_t piece_rows = 0;
    for (int32_t i = 0; i < step->batch.sequences; i++) {
        const sim_request *req = s->rows_of[i];
        int32_t rows = step->batch.row_start[i + 1] - step->batch.row_start[i];
        bool is_decode = rows == 1 && i < step->batch.sequences - entered &&
                         step->batch.past[i] == step->lengths[i] - 1;
        RULE(!is_decode || !has_long_piece, "a decode row behind a piece of a prompt");
        has_long_piece = has_long_piece || rows > 1;
        has_decode = has_decode || (is_decode && step->lengths[i] > req->prompt_count);
        piece_rows += rows > 1 ? rows : 0;
    }
    RULE(!has_decode || piece_rows <= s->piece_rows_max, "pieces keep a running request waiting");
}

static void run_step(sim *s, const lore_step *step, int32_t entered)
{
    const lore_batch *batch = &step->batch;
    s->now = &s->flights[s->flight_count];
    memset(s->now, 0, sizeof *s->now);
    RULE(batch->rows <= s->options.rows_max, "more rows than rows_max");
    RULE(batch->sequences <= s->options.sequences_max, "more sequences than sequences_max");
    RULE(batch->row_start[0] == 0 && batch->row_start[batch->sequences] == batch->rows,
         "row_start does not span the rows");
    check_page_lists(s, batch);
    find_owners(s, step, entered);
    int32_t draw = 0;
    for (int32_t i = 0; i < batch->sequences && s->failed == NULL; i++) {
        run_sequence(s, step, i, &draw, s->now->ids);
    }
    RULE(draw == step->logits_count, "a drawn row is not the last of a sequence");
    check_order(s, step, entered);
    s->now->draws = draw;
    s->flight_count++;
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
    for (int32_t i = 0; i < req->sampling.tops; i++) {
        RULE(req->tops[req->received * req->sampling.tops + i].id == id + i,
             "the most probable tokens beside another one");
    }
    req->received++;
    /* At its turn it prefills again. */
    req->is_running = known_of(req) - 1 != s->options.turn_tokens;
    req->past = req->is_running ? req->past : -1;
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

/* The prompt of an earlier request and, when that is over, its answer, or the words of a family;
 * then its own. */
static void spell_prompt(sim *s, sim_request *req, int32_t number)
{
    const int32_t family = draw_between(s, 0, FAMILIES - 1);
    int32_t shared = draw_between(s, 0, 1) * draw_between(s, 0, req->prompt_count);
    const sim_request *earlier = number > 0 && draw_between(s, 0, 2) == 0
                                     ? &s->requests[draw_between(s, 0, number - 1)]
                                     : NULL;
    for (int32_t i = 0; i < req->prompt_count; i++) {
        int32_t id = (number + 1) * VALUES + draw_between(s, 0, VALUES - 1);
        if (earlier != NULL && i < earlier->prompt_count) {
            id = earlier->prompt[i];
        } else if (earlier != NULL && earlier->ends > 0 &&
                   i < earlier->prompt_count + earlier->expected_count) {
            id = earlier->expected[i - earlier->prompt_count];
        } else if (i < shared) {
            id = EOS_COUNT + family +
                 (family == 0 ? i * FAMILIES : 0); /* or one word again and again */
        }
        req->prompt[i] = id;
    }
}

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
                                    .repetition_penalty = 0.5f * (float)draw_between(s, 0, 3),
                                    .presence_penalty = (float)draw_between(s, 0, 1),
                                    .tops = draw_between(s, 0, TOPS_MAX)};
    req->salt = (uint64_t)draw_between(s, 1, SALTS);
    req->cached_tokens = -1;
    spell_prompt(s, req, number);
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
                                     .tops = req->tops,
                                     .salt = req->salt,
                                     .cached_tokens = &req->cached_tokens,
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
        if (is_live(req)) {
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
    RULE(stats.running > 0 || s->flight_count > 0 || stats.pages_free == stats.pages_total,
         "a page without an owner");
    /* A cancelled request is in neither once a plan has seen it, and reported by the next apply. */
    int32_t cancelled = 0;
    for (int32_t i = 0; i < s->request_count && s->flight_count > 0; i++) {
        cancelled += s->requests[i].was_cancelled && s->requests[i].ends == 0;
    }
    RULE(stats.waiting + stats.running <= s->added_count - s->ended_count &&
             stats.waiting + stats.running >= s->added_count - s->ended_count - cancelled,
         "a request was lost or is counted twice");
}

/* The oldest step in flight comes to its end; without one, cancelled requests are reported. */
static void apply_oldest(sim *s)
{
    float logprobs[BATCH_MAX];
    const sim_flight flight = s->flights[0];
    for (int32_t i = 0; s->flight_count > 0 && i < flight.draws; i++) {
        logprobs[i] = -(float)(flight.ids[i] % VALUES);
        flight.drawn_for[i]->awaited--;
    }
    lore_sched_apply(s->sched, flight.ids, logprobs, on_token, s);
    s->flights[0] = s->flights[1];
    s->flight_count -= s->flight_count > 0;
}

/* The device fails: nothing in its pages can be trusted. */
static void abort_all(sim *s)
{
    for (int32_t i = 0; i < s->request_count; i++) {
        s->requests[i].was_aborted = s->requests[i].ends == 0;
        s->requests[i].awaited = 0;
    }
    memset(s->fake_pages, 0xEE, sizeof s->fake_pages);
    lore_sched_abort(s->sched, LORE_FINISH_ERROR, on_token, s);
    s->flight_count = 0;
    RULE(s->ended_count == s->added_count, "abort left a request behind");
}

static void check_progress(sim *s, const sim_request *oldest, bool has_rows)
{
    const int32_t missed_max = s->options.steps_in_flight == 1 ? 0 : MISSED_MAX;
    s->oldest_missed = oldest != s->oldest ? 0 : s->oldest_missed;
    s->oldest = oldest;
    s->oldest_missed = oldest == NULL || oldest->was_in_step ? 0 : s->oldest_missed + 1;
    RULE(s->oldest_missed <= missed_max, "the oldest request stands still");
    RULE(has_rows || oldest == NULL || s->flight_count > 0, "nothing planned, a request is live");
}

/* One turn of the engine's loop: plan, run or fail, apply. */
static void turn(sim *s, int32_t trouble)
{
    sim_request *oldest = oldest_live(s);
    lore_sched_stats before, after;
    lore_sched_get_stats(s->sched, &before);
    if (draw_between(s, 0, 3) == 0) {
        s->piece_rows_max = draw_between(s, 1, s->options.rows_max + 1);
        lore_sched_limit_pieces(s->sched, s->piece_rows_max);
    }
    if (draw_between(s, 0, 15) == 0) {
        lore_sched_limit_cached(s->sched, draw_between(s, 1, s->options.page_count));
    }
    const lore_step *step = lore_sched_plan(s->sched);
    lore_sched_get_stats(s->sched, &after);
    int32_t entered = follow_admissions(s, after.preemptions - before.preemptions, after.running);
    for (int32_t i = 0; i < s->request_count; i++) {
        s->requests[i].was_in_step = false;
    }
    const bool has_rows = step->batch.rows > 0;
    if (has_rows) {
        run_step(s, step, entered);
        check_running(s, after.preemptions - before.preemptions, after.pages_free);
    }
    check_progress(s, oldest, has_rows);
    if (s->failed != NULL) {
        return;
    }
    if (trouble == 1) {
        cancel_one(s); /* in the middle of a step */
    }
    if (trouble == 2) {
        abort_all(s);
    } else if (s->flight_count == s->options.steps_in_flight || !has_rows) {
        apply_oldest(s);
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
                             .eos_count = EOS_COUNT,
                             .steps_in_flight = draw_between(s, 1, 2)};
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
    return s->options.steps_in_flight == 1 ? bound : 3 * bound;
}

static void play(sim *s)
{
    int32_t wanted = draw_between(s, 1, REQUESTS_MAX - 1);
    int32_t burst = draw_between(s, 1, 8); /* arrivals a turn at most */
    int32_t cancels = draw_between(s, 0, 2) == 0 ? draw_between(s, 2, 20) : 0;
    int32_t failures = draw_between(s, 0, 4) == 0 ? draw_between(s, 20, 60) : 0;
    /* Turns without arrivals still need something live, so they cannot go on for ever. */
    while (s->failed == NULL &&
           (s->request_count < wanted || s->ended_count < s->added_count || s->flight_count > 0)) {
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
    int64_t steps = 0, tokens = 0, preemptions = 0, cached = 0, evictions = 0;
    for (int64_t i = 0; i < count; i++) {
        lore_sched_stats stats = {0};
        if (!run_seed(&state, (uint64_t)(first + i), &stats)) {
            fprintf(stderr, "sim_sched: replay with --seed %lld\n", (long long)(first + i));
            return 1;
        }
        steps += stats.steps;
        tokens += stats.generated_tokens;
        preemptions += stats.preemptions;
        cached += stats.cached_tokens;
        evictions += stats.evictions;
    }
    printf("%lld seeds: %lld steps, %lld tokens, %lld preemptions, %lld tokens of prompts found, "
           "%lld evictions, all rules hold\n",
           (long long)count, (long long)steps, (long long)tokens, (long long)preemptions,
           (long long)cached, (long long)evictions);
    return 0;
}
