/* sim_engine: the engine under random load with real threads, and a fake model that notices every
 * mistake.
 *
 * Where sim_sched shows that plans are right, this shows that what crosses threads is: requests
 * through the channel, tokens and cancels through streams, the order to stop. Several askers submit
 * random requests and treat their streams as clients do: read to the end, read slowly, cancel in
 * the middle and read on, walk away without a word. Meanwhile steps fail now and then, statistics
 * are read, and at the end the engine is stopped at once, with a short deadline or with none, while
 * streams are still being read. The decoder and everybody else sleep and yield at random.
 *
 * The fake model keeps each position's id in fake pages, as in sim_sched, and draws a token from
 * all of them, so whatever is mixed up changes the answer; each asker knows what the answer must
 * be, with its stop strings.
 *
 *   sim_engine                200 seeds, what ctest runs
 *   sim_engine --seeds 20000  a long run; best in a build with LORE_SANITIZE=thread
 *   sim_engine --seed 42      the load of one again; the threads' timing is the machine's
 *
 * Checked for every seed: each stream ends exactly once, within seconds, for a reason that somebody
 * gave; its text is that of the request run alone, or the beginning of it where it was cancelled or
 * a step failed; nobody is told BUSY while there is room; pages are neither shared nor lost; no
 * memory is lost. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include "generation/engine_int.h"
#include "tests/sim/byte_tokenizer.h"
#include "tests/sim/seeds.h"

#include <inttypes.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    ASKERS_MAX = 5,
    REQUESTS_MAX = 8, /* of one asker */
    CONTEXT_MAX = 48,
    PAGES_MAX = 64,
    BATCH_MAX = 8,
    STEP_ROWS = 16,
    LETTERS = 4, /* a small alphabet meets its stop strings often */
    LETTER_FIRST = BYTE_TOKENIZER_FIRST + 'a',
    EOS = 0,
    STOPS_MAX = 2,
    STOP_BYTES_MAX = 3,
    PATIENCE_S = 60 /* a stream that has not ended by then never will */
};

typedef struct model {
    uint64_t random;
    int32_t failing; /* of 1,000 steps */
    int32_t fake_pages[PAGES_MAX * CONTEXT_MAX];
    /* What steps drew that are not collected, oldest first. */
    struct {
        int32_t ids[BATCH_MAX], count;
    } flights[2];
    int32_t flight_count;
    lore_decoder_info info;
} model;

typedef struct sim {
    uint64_t seed;
    model model;
    lore_limits limits;
    lore_engine *engine;
    int32_t askers;
    atomic_int submitting; /* askers that may still submit; the engine must outlive them */
    atomic_int refused, ended[LORE_FINISH_ERROR + 1];
    atomic_bool is_stopping;
    _Atomic(const char *) failed; /* the first violated rule */
} sim;

static sim state;
static lore_tokenizer *tokenizer;

static void rule_broken(sim *s, const char *words)
{
    const char *none = NULL;
    if (atomic_compare_exchange_strong(&s->failed, &none, words)) {
        fprintf(stderr, "sim_engine: seed %" PRIu64 ": %s\n", s->seed, words);
    }
}

#define RULE(condition, words)     \
    do {                           \
        if (!(condition)) {        \
            rule_broken(s, words); \
        }                          \
    } while (0)

static int32_t draw(uint64_t *random, int32_t low, int32_t high)
{
    return low + (int32_t)(lore_random_next(random) % (uint64_t)(high - low + 1));
}

/* Let others go first, mostly not at all, sometimes for long. */
static void dawdle(uint64_t *random)
{
    int32_t what = draw(random, 0, 63);
    if (what < 12) {
        sched_yield();
    } else if (what < 15) {
        nanosleep(&(struct timespec){0, draw(random, 1000, 200000)}, NULL);
    }
}

/* ---- the fake model ---- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    uint64_t state_of_hash = hash ^ (value * 0x9E3779B97F4A7C15u);
    return lore_random_next(&state_of_hash);
}

static int32_t next_token(const int32_t *ids, int32_t count, uint64_t seed)
{
    uint64_t hash = mix(seed, (uint64_t)count);
    for (int32_t i = 0; i < count; i++) {
        hash = mix(hash, (uint64_t)ids[i]);
    }
    return hash % 29 == 0 ? EOS : LETTER_FIRST + (int32_t)(hash / 29 % LETTERS);
}

static int32_t *place_of(model *m, const int32_t *list, int32_t position)
{
    int32_t page_tokens = m->info.page_tokens;
    return &m->fake_pages[list[position / page_tokens] * page_tokens + position % page_tokens];
}

/* Prompts of few letters often begin alike and share pages, which nobody may write then. */
static void check_pages(sim *s, const lore_batch *batch)
{
    int32_t lists_with[PAGES_MAX] = {0};
    for (int32_t i = 0; i < batch->page_start[batch->sequences]; i++) {
        int32_t page = batch->pages[i];
        if (page < 0 || page >= s->model.info.page_count) {
            rule_broken(s, "a page does not exist");
            return;
        }
        lists_with[page]++;
    }
    for (int32_t i = 0; i < batch->sequences; i++) {
        for (int32_t k = batch->page_start[i] + batch->past[i] / s->model.info.page_tokens;
             k < batch->page_start[i + 1]; k++) {
            RULE(lists_with[batch->pages[k]] == 1, "a page that others read is written");
        }
    }
}

static bool does_fail(model *m)
{
    if (draw(&m->random, 1, 1000) > m->failing) {
        return false;
    }
    memset(m->fake_pages, 0xEE, sizeof m->fake_pages);
    return true;
}

/* What is behind an id that the step before drew, or the id. */
static int32_t id_of(sim *s, int32_t id)
{
    const model *m = &s->model;
    if (id >= 0) {
        return id;
    }
    if (m->flight_count != 1 || -1 - id >= m->flights[0].count) {
        rule_broken(s, "a row goes by a draw that there is not");
        return 0;
    }
    return m->flights[0].ids[-1 - id];
}

/* Computed at once, in the order of the steps, and handed out later: as by a device. */
static lore_status fake_submit(void *self, const lore_step *step, lore_error *err)
{
    sim *s = self;
    model *m = &s->model;
    const lore_batch *batch = &step->batch;
    RULE(batch->rows <= s->limits.step_tokens_max, "more rows than allowed");
    RULE(m->flight_count < m->info.steps_in_flight, "more steps in flight than allowed");
    check_pages(s, batch);
    if (does_fail(m)) {
        return lore_fail(err, LORE_ERR_DEVICE, "this seed's device takes no step");
    }
    int32_t *ids = m->flights[m->flight_count].ids;
    int32_t drawn = 0;
    for (int32_t i = 0; i < batch->sequences && atomic_load(&s->failed) == NULL; i++) {
        const int32_t *list = batch->pages + batch->page_start[i];
        int32_t first = batch->row_start[i], rows = batch->row_start[i + 1] - first;
        int32_t context = batch->past[i] + rows;
        for (int32_t r = 0; r < rows; r++) {
            *place_of(m, list, batch->past[i] + r) = id_of(s, step->ids[first + r]);
        }
        if (drawn < step->logits_count && step->logits_rows[drawn] == first + rows - 1) {
            int32_t known[CONTEXT_MAX + 1];
            for (int32_t p = 0; p < context; p++) {
                known[p] = *place_of(m, list, p);
            }
            ids[drawn] = next_token(known, context, step->samples[drawn].seed);
            drawn++;
        }
    }
    RULE(drawn == step->logits_count, "a drawn row is not the last of a sequence");
    m->flights[m->flight_count++].count = drawn;
    return LORE_OK;
}

static lore_status fake_collect(void *self, int32_t *ids, float *logprobs, lore_error *err)
{
    sim *s = self;
    model *m = &s->model;
    RULE(m->flight_count > 0, "a step is collected that was not submitted");
    dawdle(&m->random);
    for (int32_t i = 0; i < m->flights[0].count; i++) {
        ids[i] = m->flights[0].ids[i];
        logprobs[i] = -1.0f;
    }
    m->flights[0] = m->flights[1];
    m->flight_count--;
    return does_fail(m) ? lore_fail(err, LORE_ERR_DEVICE, "this seed's device fails") : LORE_OK;
}

/* ---- askers ---- */

typedef enum manner { READ_ON, READ_SLOWLY, CANCEL_AND_READ, WALK_AWAY, MANNERS } manner;

typedef struct question {
    int32_t prompt[CONTEXT_MAX];
    int32_t prompt_count, tokens_max;
    uint64_t seed;
    char stop_bytes[STOPS_MAX][STOP_BYTES_MAX];
    lore_str stop[STOPS_MAX];
    int32_t stop_count;
    manner manner;
    int32_t patience; /* events after which it cancels or leaves */
    /* What must come: raw as the model says it, text without what a stop string cuts off. */
    char raw[CONTEXT_MAX];
    int32_t raw_count, text_count;
    lore_finish finish;
    /* What came. */
    char text[CONTEXT_MAX];
    int32_t count;
    lore_stream *stream;
} question;

typedef struct asker {
    sim *s;
    uint64_t random;
    lore_thread thread;
    question questions[REQUESTS_MAX];
    int32_t wanted;
} asker;

/* The longest stop string that the text ends with. */
static size_t stop_at_end(const question *q, int32_t count)
{
    size_t longest = 0;
    for (int32_t i = 0; i < q->stop_count; i++) {
        lore_str text = {q->raw, (size_t)count};
        if (lore_str_ends(text, q->stop[i]) && q->stop[i].len > longest) {
            longest = q->stop[i].len;
        }
    }
    return longest;
}

static void run_alone(const sim *s, question *q)
{
    int32_t ids[CONTEXT_MAX + 1];
    int32_t count = q->prompt_count, room = s->model.info.context - count;
    int32_t most = q->tokens_max < room ? q->tokens_max : room;
    memcpy(ids, q->prompt, (size_t)count * sizeof ids[0]);
    q->finish = LORE_FINISH_NONE;
    while (q->finish == LORE_FINISH_NONE) {
        ids[count] = next_token(ids, count, q->seed);
        if (ids[count] == EOS) {
            q->finish = LORE_FINISH_STOP;
            q->text_count = q->raw_count;
            return;
        }
        q->raw[q->raw_count++] = (char)(ids[count] - BYTE_TOKENIZER_FIRST);
        count++;
        size_t cut = stop_at_end(q, q->raw_count);
        q->finish = cut > 0                ? LORE_FINISH_STOP
                    : q->raw_count == most ? LORE_FINISH_LENGTH
                                           : LORE_FINISH_NONE;
        q->text_count = q->raw_count - (int32_t)cut;
    }
}

static void make_question(asker *a, question *q)
{
    uint64_t *random = &a->random;
    int32_t context = a->s->model.info.context;
    memset(q, 0, sizeof *q);
    q->prompt_count = draw(random, 1, draw(random, 0, 3) == 0 ? context - 1 : 1 + context / 4);
    q->tokens_max = draw(random, 1, context);
    q->seed = lore_random_next(random);
    for (int32_t i = 0; i < q->prompt_count; i++) {
        q->prompt[i] = LETTER_FIRST + draw(random, 0, LETTERS - 1);
    }
    q->stop_count = draw(random, 0, 2) == 0 ? draw(random, 1, STOPS_MAX) : 0;
    for (int32_t i = 0; i < q->stop_count; i++) {
        size_t length = (size_t)draw(random, 1, STOP_BYTES_MAX);
        for (size_t j = 0; j < length; j++) {
            q->stop_bytes[i][j] = (char)('a' + draw(random, 0, LETTERS - 1));
        }
        q->stop[i] = (lore_str){q->stop_bytes[i], length};
    }
    q->manner = (manner)draw(random, 0, MANNERS - 1);
    q->patience = draw(random, 0, 8);
    run_alone(a->s, q);
}

/* Submit; while there are too many, try again, or give up. False: it never ran. */
static bool submit(asker *a, question *q)
{
    sim *s = a->s;
    const lore_generation generation = {.prompt = q->prompt,
                                        .prompt_count = q->prompt_count,
                                        .tokens_max = q->tokens_max,
                                        .sampling = {.seed = q->seed},
                                        .stop = q->stop,
                                        .stop_count = q->stop_count,
                                        .salt = q->seed % 2};
    for (int tries = 0; tries < 20; tries++) {
        lore_error err;
        lore_status status = lore_engine_submit(s->engine, &generation, &q->stream, &err);
        if (status == LORE_OK) {
            return true;
        }
        RULE(status == LORE_ERR_BUSY, "a request that fits was refused");
        RULE(s->askers * REQUESTS_MAX >
                 s->limits.batch_sequences_max + s->limits.queue_requests_max,
             "busy where there is room for all");
        atomic_fetch_add(&s->refused, 1);
        nanosleep(&(struct timespec){0, draw(&a->random, 1000, 100000)}, NULL);
    }
    return false;
}

static void take_event(sim *s, question *q, const lore_token_event *event)
{
    RULE(event->id >= 0 || event->finish != LORE_FINISH_NONE, "an event that says nothing");
    if (event->id >= 0 && q->count < CONTEXT_MAX) {
        q->text[q->count++] = (char)(event->id - BYTE_TOKENIZER_FIRST);
    }
    RULE(event->cut_bytes >= 0 && event->cut_bytes <= q->count, "more is cut than came");
    q->count -= event->cut_bytes <= q->count ? event->cut_bytes : 0;
}

static void check_end(sim *s, const question *q, lore_finish finish, bool was_cancelled)
{
    atomic_fetch_add(&s->ended[finish], 1);
    RULE(q->count <= q->raw_count && memcmp(q->text, q->raw, (size_t)q->count) == 0,
         "another text than alone");
    switch (finish) {
    case LORE_FINISH_STOP:
    case LORE_FINISH_LENGTH:
        RULE(finish == q->finish, "it ended for another reason than alone");
        RULE(q->count == q->text_count, "it ended early or late");
        break;
    case LORE_FINISH_CANCELLED:
        RULE(was_cancelled || atomic_load(&s->is_stopping), "an end that nobody asked for");
        break;
    case LORE_FINISH_ERROR:
        RULE(s->model.failing > 0, "an error without a failure");
        break;
    case LORE_FINISH_NONE:
        rule_broken(s, "a stream without an end");
        break;
    }
}

/* One stream to its end, in its manner. */
static void consume(asker *a, question *q)
{
    sim *s = a->s;
    const int64_t patience_ns = lore_clock_ns() + PATIENCE_S * INT64_C(1000000000);
    bool was_cancelled = false;
    lore_token_event event = {0};
    for (int32_t events = 0; event.finish == LORE_FINISH_NONE; events++) {
        if (events >= q->patience && q->manner == WALK_AWAY) {
            break;
        }
        if (events >= q->patience && q->manner == CANCEL_AND_READ) {
            lore_stream_cancel(q->stream);
            was_cancelled = true;
        }
        if (q->manner == READ_SLOWLY) {
            dawdle(&a->random);
        }
        int64_t deadline_ns = draw(&a->random, 0, 3) == 0 ? lore_clock_ns() + 20000 : patience_ns;
        lore_status status = lore_stream_next(q->stream, deadline_ns, &event);
        if (status == LORE_ERR_TIMEOUT) {
            event = (lore_token_event){0};
            if (lore_deadline_passed(patience_ns)) {
                rule_broken(s, "a stream does not end");
                break;
            }
            continue;
        }
        RULE(status == LORE_OK, "a stream ended without saying so");
        if (status != LORE_OK) {
            break;
        }
        take_event(s, q, &event);
    }
    if (event.finish != LORE_FINISH_NONE) {
        lore_token_event behind;
        check_end(s, q, event.finish, was_cancelled);
        RULE(lore_stream_next(q->stream, 1, &behind) == LORE_ERR_CANCELLED,
             "something behind the end");
    }
    lore_stream_release(q->stream);
}

/* Submit some, read them, submit more; whoever reads last may do so while the engine stops. */
static void *run_asker(void *self)
{
    asker *a = self;
    int32_t from = 0, to = 0;
    while (from < a->wanted) {
        for (int32_t more = draw(&a->random, 1, 4); more > 0 && to < a->wanted; more--) {
            make_question(a, &a->questions[to]);
            if (submit(a, &a->questions[to])) {
                to++;
            } else {
                a->wanted--;
            }
            dawdle(&a->random);
        }
        if (to == a->wanted) {
            break;
        }
        for (; from < to; from++) {
            consume(a, &a->questions[from]);
        }
    }
    atomic_fetch_sub(&a->s->submitting, 1);
    for (; from < to; from++) {
        consume(a, &a->questions[from]);
    }
    return NULL;
}

/* ---- one seed ---- */

static lore_engine_model draw_setting(sim *s, uint64_t *random)
{
    model *m = &s->model;
    int32_t page_tokens = draw(random, 1, 8), context = draw(random, 4, CONTEXT_MAX);
    int32_t least = (context + page_tokens - 1) / page_tokens; /* any request fits alone */
    m->random = lore_random_next(random);
    m->failing = draw(random, 0, 3) == 0 ? 20 : 0;
    m->info = (lore_decoder_info){
        .vocab = BYTE_TOKENIZER_FIRST_MERGE,
        .context = context,
        .page_tokens = page_tokens,
        .page_count = draw(random, least, PAGES_MAX > 3 * least ? 3 * least : PAGES_MAX),
        .steps_in_flight = draw(random, 1, 2),
        .eos_ids = {EOS},
        .eos_count = 1};
    s->limits = (lore_limits){.stop_strings_max = STOPS_MAX,
                              .stop_bytes_max = STOP_BYTES_MAX,
                              .batch_sequences_max = draw(random, 1, BATCH_MAX),
                              .step_tokens_max = draw(random, 1, STEP_ROWS),
                              .step_ms_max = draw(random, 0, 1),
                              .queue_requests_max = draw(random, 1, 40),
                              .answer_tokens_max = CONTEXT_MAX,
                              .prompt_tokens_max = CONTEXT_MAX};
    s->askers = draw(random, 1, ASKERS_MAX);
    return (lore_engine_model){.self = s,
                               .submit = fake_submit,
                               .collect = fake_collect,
                               .info = &m->info,
                               .tokenizer = tokenizer};
}

static void check_stats(sim *s)
{
    lore_sched_stats stats;
    lore_engine_get_stats(s->engine, &stats);
    RULE(stats.pages_total == s->model.info.page_count, "pages_total has changed");
    RULE(stats.pages_free >= 0 && stats.pages_free <= stats.pages_total, "pages_free is wrong");
    RULE(stats.running >= 0 && stats.running <= s->limits.batch_sequences_max, "too many run");
    RULE(stats.running > 0 || stats.pages_free == stats.pages_total ||
             s->model.info.steps_in_flight > 1,
         "a page without an owner");
}

/* 0: no deadline. */
static int64_t draw_deadline(uint64_t *random)
{
    int32_t what = draw(random, 0, 2);
    return what == 0   ? 0
           : what == 1 ? lore_clock_ns()
                       : lore_clock_ns() + draw(random, 1000, 2000000);
}

static void play(sim *s, asker *askers, uint64_t *random)
{
    int32_t started = 0;
    atomic_store(&s->submitting, s->askers);
    for (; started < s->askers; started++) {
        asker *a = &askers[started];
        memset(a, 0, sizeof *a);
        a->s = s;
        a->random = lore_random_next(random);
        a->wanted = draw(random, 1, REQUESTS_MAX);
        if (lore_thread_start(&a->thread, "asker", run_asker, a, NULL) != LORE_OK) {
            rule_broken(s, "a thread could not be started");
            atomic_fetch_sub(&s->submitting, s->askers - started);
            break;
        }
    }
    while (atomic_load(&s->submitting) > 0) {
        check_stats(s);
        nanosleep(&(struct timespec){0, 100000}, NULL);
    }
    dawdle(random);
    int64_t deadline_ns = draw_deadline(random);
    atomic_store(&s->is_stopping, deadline_ns != 0);
    lore_engine_stop(s->engine, deadline_ns);
    for (int32_t i = 0; i < started; i++) {
        lore_thread_join(&askers[i].thread);
    }
}

/* True: all rules hold. */
static bool run_seed(sim *s, uint64_t seed)
{
    static asker askers[ASKERS_MAX];
    uint64_t random = seed;
    lore_error err;
    memset(&s->model, 0, sizeof s->model);
    s->seed = seed;
    atomic_store(&s->is_stopping, false);
    atomic_store(&s->failed, NULL);
    const lore_engine_model fake = draw_setting(s, &random);
    int64_t live = lore_mem_live();
    lore_status status = lore_engine_start_model(&fake, &s->limits, &s->engine, &err);
    RULE(status == LORE_OK, "the engine did not start");
    if (status == LORE_OK) {
        play(s, askers, &random);
    }
    RULE(lore_mem_live() == live, "memory was lost");
    return atomic_load(&s->failed) == NULL;
}

static void drop_line(void *self, const char *line)
{
    (void)self;
    (void)line;
}

int main(int argc, char **argv)
{
    int64_t first = 1, count = 200;
    lore_error err;
    if (!sim_parse_seeds(argc, argv, &first, &count)) {
        return 2;
    }
    lore_log_set_sink(drop_line, NULL); /* failing steps are part of the plan */
    tokenizer = byte_tokenizer_new(NULL, 0, &err);
    if (tokenizer == NULL) {
        fprintf(stderr, "sim_engine: %s\n", err.message);
        return 1;
    }
    for (int64_t i = 0; i < count; i++) {
        if (!run_seed(&state, (uint64_t)(first + i))) {
            fprintf(stderr, "sim_engine: its load again with --seed %lld\n",
                    (long long)(first + i));
            return 1;
        }
    }
    lore_tokenizer_close(tokenizer);
    printf("%lld seeds: %d ended by themselves, %d at their length, %d cancelled, %d failed, %d "
           "times busy, all rules hold\n",
           (long long)count, atomic_load(&state.ended[LORE_FINISH_STOP]),
           atomic_load(&state.ended[LORE_FINISH_LENGTH]),
           atomic_load(&state.ended[LORE_FINISH_CANCELLED]),
           atomic_load(&state.ended[LORE_FINISH_ERROR]), atomic_load(&state.refused));
    return 0;
}
