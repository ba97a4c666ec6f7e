/* Proves that an engine which has its consumers woken by another thread gives 64 of them, asleep on
 * their streams, every token in order and the end, whatever they do meanwhile: read on, cancel,
 * leave. Also where the engine stops with news on their way and where the thread cannot be started.
 * Prints what a step costs the engine's thread with and without; LORE_TEST_LONG=1 takes its time
 * over it. */
#include "tests/unit/deferred_backend.h"
#include "tests/unit/models_fixture.h"

#include "base/clock.h"
#include "base/thread.h"
#include "generation/engine_int.h"
#include "generation/waker.h"
#include "tests/sim/byte_tokenizer.h"

#include <stdatomic.h>
#include <time.h>

#define SECOND_NS INT64_C(1000000000)

enum { READERS = 64, TOKENS = 24, PATIENCE_S = 60 };

/* ---- readers, each a thread ---- */

typedef enum manner { READ_ON, CANCEL_AND_READ, LEAVE, MANNERS } manner;

typedef struct reader {
    lore_stream *stream;
    manner manner;
    int32_t patience; /* tokens after which it cancels or leaves */
    lore_thread thread;
    int32_t ids[TOKENS], count;
    atomic_int begun; /* tokens taken, for others to see */
    lore_finish finish;
    lore_status status; /* of the last call */
} reader;

static void *read_stream(void *self)
{
    reader *r = self;
    while (r->finish == LORE_FINISH_NONE && !(r->manner == LEAVE && r->count >= r->patience)) {
        lore_token_event event = {0};
        r->status = lore_stream_next(r->stream, lore_clock_ns() + PATIENCE_S * SECOND_NS, &event);
        if (r->status != LORE_OK) {
            break;
        }
        if (event.id >= 0) {
            r->ids[r->count++ % TOKENS] = event.id;
            atomic_fetch_add(&r->begun, 1);
        }
        if (r->manner == CANCEL_AND_READ && r->count == r->patience) {
            lore_stream_cancel(r->stream);
        }
        r->finish = event.finish;
    }
    lore_stream_release(r->stream);
    return NULL;
}

static void start_reader(reader *r, lore_stream *stream)
{
    lore_error err;
    r->stream = stream;
    CHECK_OK(lore_thread_start(&r->thread, "reader", read_stream, r, &err), &err);
}

static void join_readers(reader *readers)
{
    for (int32_t i = 0; i < READERS; i++) {
        lore_thread_join(&readers[i].thread);
        CHECK_INT(readers[i].status, LORE_OK); /* a missed event would have taken a minute */
    }
}

/* ---- the waker alone ---- */

/* Several pushes before one send, sends behind one another, an end that only the stop sends. */
TEST(wakes_all_who_were_pushed_to)
{
    static reader readers[READERS];
    lore_stream *streams[READERS];
    lore_waker waker = {0};
    lore_waker_stop(&waker);
    lore_waker_start(&waker);
    CHECK(waker.thread.is_started);
    memset(readers, 0, sizeof readers);
    for (int32_t i = 0; i < READERS; i++) {
        streams[i] = lore_stream_new(TOKENS, 0);
        CHECK(streams[i] != NULL);
        start_reader(&readers[i], streams[i]);
    }
    for (int32_t token = 0; token < TOKENS; token++) {
        for (int32_t i = 0; i < READERS; i++) {
            lore_waker_push(&waker, streams[i], (lore_token_event){.id = token});
        }
        if (token % 3 > 0) {
            lore_waker_send(&waker);
            lore_clock_sleep_ms(token % 5);
        }
    }
    const lore_token_event end = {.id = -1, .finish = LORE_FINISH_LENGTH};
    for (int32_t i = 0; i < READERS; i++) {
        lore_waker_push(&waker, streams[i], end);
        lore_stream_release(streams[i]);
    }
    lore_waker_stop(&waker);
    join_readers(readers);
    for (int32_t i = 0; i < READERS; i++) {
        CHECK_INT(readers[i].finish, LORE_FINISH_LENGTH);
        CHECK_INT(readers[i].count, TOKENS);
        for (int32_t token = 0; token < TOKENS; token++) {
            CHECK_INT(readers[i].ids[token], token);
        }
    }
}

typedef struct dozer {
    lore_stream *stream;
    atomic_bool must_leave;
} dozer;

static void *doze(void *self)
{
    dozer *d = self;
    lore_token_event event;
    lore_status status = LORE_OK;
    while (!atomic_load(&d->must_leave) && status != LORE_ERR_CANCELLED) {
        status = lore_stream_next(d->stream, lore_clock_ns() + 5000000, &event);
    }
    lore_stream_release(d->stream);
    return NULL;
}

/* Cancelled and left while a list has it: the engine sees that nobody listens, though the list
 * holds the stream too, and the list is the last to go. */
TEST(holds_a_stream_that_both_sides_have_left)
{
    enum { ROOM = 100000 };
    lore_error err;
    const int64_t live = lore_mem_live();
    lore_stream_list list = {0}, later = {0};
    dozer d = {.stream = lore_stream_new(ROOM, 0)};
    lore_stream *stream = d.stream;
    lore_thread thread;
    CHECK(stream != NULL);
    CHECK_OK(lore_thread_start(&thread, "doze", doze, &d, &err), &err);
    for (int32_t i = 0; i < ROOM && list.first == NULL; i++) {
        lore_stream_push_later(stream, (lore_token_event){.id = i}, &list);
        lore_clock_sleep_ms(1);
    }
    CHECK(list.first == stream && list.last == stream);
    lore_stream_push_later(stream, (lore_token_event){.id = 1}, &later);
    CHECK(later.first == NULL); /* still in the other one */
    CHECK(!lore_stream_is_cancelled(stream));
    atomic_store(&d.must_leave, true);
    lore_thread_join(&thread);
    CHECK(lore_stream_is_cancelled(stream));
    lore_stream_push_later(stream, (lore_token_event){.id = -1, .finish = LORE_FINISH_CANCELLED},
                           &later);
    lore_stream_release(stream);
    CHECK(lore_mem_live() > live);
    lore_stream_list_join(&list, &later);
    lore_stream_list_wake(&list);
    CHECK(list.first == NULL);
    CHECK_INT(lore_mem_live(), live);
}

TEST(joins_lists_in_order)
{
    lore_stream_list all = {0}, more = {0};
    lore_stream *streams[3];
    lore_thread threads[3];
    static dozer dozers[3];
    lore_error err;
    for (int32_t i = 0; i < 3; i++) {
        streams[i] = lore_stream_new(100000, 0);
        dozers[i] = (dozer){.stream = streams[i]};
        CHECK(streams[i] != NULL);
        CHECK_OK(lore_thread_start(&threads[i], "doze", doze, &dozers[i], &err), &err);
    }
    lore_stream_list_join(&all, &more);
    CHECK(all.first == NULL && all.last == NULL);
    for (int32_t i = 0; i < 3; i++) {
        lore_stream_list *list = i == 0 ? &all : &more;
        while (list->last != streams[i]) {
            lore_stream_push_later(streams[i], (lore_token_event){.id = 1}, list);
            lore_clock_sleep_ms(1);
        }
    }
    lore_stream_list_join(&all, &more);
    CHECK(all.first == streams[0] && all.last == streams[2]);
    CHECK(more.first == NULL && more.last == NULL);
    lore_stream_list_wake(&all);
    for (int32_t i = 0; i < 3; i++) {
        lore_stream_release(streams[i]);
        atomic_store(&dozers[i].must_leave, true);
        lore_thread_join(&threads[i]);
    }
}

/* ---- the engine, on a device that computes when somebody waits for it ---- */

static lore_engine *start_engine(lore_backend *backend)
{
    lore_error err;
    lore_engine *engine = NULL;
    lore_config config;
    lore_config_default(&config);
    snprintf(config.kv_dtype, sizeof config.kv_dtype, "f32");
    config.limits.kv_bytes_max = 8 << 20;
    config.limits.adapters_max = 0; /* whose thread would be the one that does not start */
    config.limits.batch_sequences_max = READERS;
    config.limits.step_tokens_max = 2 * READERS;
    CHECK_OK(lore_engine_start(LORE_FAMILIES "/llama", backend, &config, &engine, &err), &err);
    return engine;
}

static void ask_all(lore_engine *engine, reader *readers, bool is_restless)
{
    lore_error err;
    memset(readers, 0, READERS * sizeof *readers);
    for (int32_t i = 0; i < READERS; i++) {
        const int32_t prompt[] = {'a' + i % 26, 'a' + i / 26, 'x'};
        const lore_generation generation = {
            .prompt = prompt, .prompt_count = 3, .tokens_max = TOKENS};
        lore_stream *stream = NULL;
        readers[i].manner = is_restless ? (manner)(i % MANNERS) : READ_ON;
        readers[i].patience = 1 + i % (TOKENS / 2);
        CHECK_OK(lore_engine_submit(engine, &generation, &stream, &err), &err);
        start_reader(&readers[i], stream);
    }
}

/* The beginning of what came alone, all of it where it was not cut short. */
static void check_readers(const reader *readers, const reader *expected)
{
    for (int32_t i = 0; i < READERS; i++) {
        const reader *got = &readers[i], *want = &expected[i];
        CHECK(got->count <= want->count);
        CHECK(memcmp(got->ids, want->ids, (size_t)got->count * sizeof got->ids[0]) == 0);
        if (got->finish == want->finish) {
            CHECK_INT(got->count, want->count);
        } else if (got->manner == LEAVE && got->finish == LORE_FINISH_NONE) {
            CHECK_INT(got->count, got->patience);
        } else {
            CHECK_INT(got->finish, LORE_FINISH_CANCELLED);
        }
    }
}

static void count_no_waker(void *self, const char *line)
{
    atomic_fetch_add((atomic_int *)self, strstr(line, "event=no_waker") != NULL);
}

/* The engine's own thread starts, the one that it starts then does not. */
static lore_engine *start_without_waker(lore_engine *(*start)(void *self), void *self)
{
    static atomic_int lines;
    atomic_store(&lines, 0);
    lore_log_set_sink(count_no_waker, &lines);
    lore_thread_fail_at(2);
    lore_engine *engine = start(self);
    const int64_t deadline_ns = lore_clock_ns() + PATIENCE_S * SECOND_NS;
    while (atomic_load(&lines) == 0 && !lore_deadline_passed(deadline_ns)) {
        lore_clock_sleep_ms(1);
    }
    lore_thread_fail_at(0);
    lore_log_set_sink(NULL, NULL);
    CHECK_INT(atomic_load(&lines), 1);
    return engine;
}

static lore_engine *start_on(void *self)
{
    return start_engine(self);
}

TEST(gives_64_sleepers_their_tokens)
{
    static reader expected[READERS], readers[READERS];
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    lore_engine *engine = start_engine(f.backend);
    CHECK_INT(lore_engine_info(engine)->steps_in_flight, 1);
    ask_all(engine, expected, false);
    lore_engine_stop(engine, 0);
    join_readers(expected);
    for (int32_t round = 0; round < 6; round++) {
        deferred_backend device = deferred_open(f.backend, INT64_C(1) << 30);
        engine =
            round < 4 ? start_engine(&device.base) : start_without_waker(start_on, &device.base);
        CHECK_INT(lore_engine_info(engine)->steps_in_flight, 2);
        ask_all(engine, readers, round % 2 == 1);
        lore_engine_stop(engine, 0);
        join_readers(readers);
        check_readers(readers, expected);
    }
    fixture_close(&f);
}

/* The deadline passes while all of them sleep and some are to be woken. */
TEST(stops_with_news_on_their_way)
{
    static reader readers[READERS];
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    for (int32_t round = 0; round < 4; round++) {
        deferred_backend device = deferred_open(f.backend, INT64_C(1) << 30);
        lore_engine *engine = start_engine(&device.base);
        ask_all(engine, readers, false);
        while (atomic_load(&readers[READERS - 1].begun) < 1 + round) {
            lore_clock_sleep_ms(1);
        }
        lore_engine_stop(engine, lore_clock_ns());
        join_readers(readers);
        for (int32_t i = 0; i < READERS; i++) {
            CHECK(readers[i].finish != LORE_FINISH_NONE);
        }
    }
    fixture_close(&f);
}

/* ---- what a step costs the engine's thread ---- */

enum { STEP_NS = 4700000, WARM_STEPS = 8, STEPS_MAX = 400 };

/* Steps one after the other, each a 7B decoder's on an H200; what the engine's thread does between
 * collecting one and collecting the next is the host's work for a step. */
typedef struct pace {
    reader readers[READERS];
    int32_t draws[2], flights, steps, steps_wanted, drawn; /* drawn: by all that are collected */
    bool is_starving;
    int64_t over_ns[2];                   /* when the device is done */
    int64_t cpu_ns, collected_ns, gap_ns; /* gap: from there to the next submission */
    double cpu_us[STEPS_MAX], gap_us[STEPS_MAX];
    lore_decoder_info info;
    lore_tokenizer *tokenizer;
} pace;

static int64_t thread_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * SECOND_NS + now.tv_nsec;
}

static lore_status pace_submit(void *self, const lore_step *step, lore_error *err)
{
    (void)err;
    pace *p = self;
    const int64_t now_ns = lore_clock_ns();
    p->gap_ns = now_ns - p->collected_ns;
    const int64_t from_ns = p->flights > 0 && p->over_ns[0] > now_ns ? p->over_ns[0] : now_ns;
    p->draws[p->flights] = step->logits_count;
    p->over_ns[p->flights++] = from_ns + STEP_NS;
    return LORE_OK;
}

/* Before it waits for a step, the engine has had everybody woken for the steps before: with the
 * device at rest, all of their tokens are read. */
static void wait_for_readers(pace *p)
{
    const int64_t deadline_ns = lore_clock_ns() + PATIENCE_S / 2 * SECOND_NS;
    int32_t taken = 0;
    while (taken < p->drawn && !p->is_starving) {
        lore_clock_sleep_ms(1);
        p->is_starving = lore_deadline_passed(deadline_ns);
        taken = 0;
        for (int32_t i = 0; i < READERS; i++) {
            taken += atomic_load(&p->readers[i].begun);
        }
    }
}

static lore_status pace_collect(void *self, int32_t *ids, float *logprobs, lore_error *err)
{
    (void)err;
    pace *p = self;
    if (p->draws[0] == READERS && p->flights == 2 && ++p->steps > WARM_STEPS) {
        const int32_t at = p->steps - WARM_STEPS - 1;
        p->cpu_us[at % STEPS_MAX] = (double)(thread_ns() - p->cpu_ns) * 1e-3;
        p->gap_us[at % STEPS_MAX] = (double)p->gap_ns * 1e-3;
    }
    if (p->steps <= WARM_STEPS / 2) {
        wait_for_readers(p);
    }
    const struct timespec until = {p->over_ns[0] / SECOND_NS, p->over_ns[0] % SECOND_NS};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    for (int32_t i = 0; i < p->draws[0]; i++) {
        ids[i] = BYTE_TOKENIZER_FIRST + 'a';
        logprobs[i] = -0.5f;
    }
    p->drawn += p->draws[0];
    p->draws[0] = p->draws[1];
    p->over_ns[0] = p->over_ns[1];
    p->flights--;
    p->cpu_ns = thread_ns();
    p->collected_ns = lore_clock_ns();
    return LORE_OK;
}

static lore_engine *start_paced(void *self)
{
    pace *p = self;
    lore_error err;
    const lore_engine_model model = {.self = p,
                                     .submit = pace_submit,
                                     .collect = pace_collect,
                                     .info = &p->info,
                                     .tokenizer = p->tokenizer};
    const lore_limits limits = {.stop_strings_max = 2,
                                .stop_bytes_max = 8,
                                .batch_sequences_max = READERS,
                                .step_tokens_max = 256,
                                .queue_requests_max = READERS,
                                .answer_tokens_max = 512,
                                .prompt_tokens_max = 32};
    lore_engine *engine = NULL;
    CHECK_OK(lore_engine_start_model(&model, &limits, &engine, &err), &err);
    return engine;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void time_steps(pace *p, bool has_waker)
{
    reader *readers = p->readers;
    lore_error err;
    p->steps = p->flights = p->drawn = 0;
    memset(readers, 0, sizeof p->readers);
    lore_engine *engine = has_waker ? start_paced(p) : start_without_waker(start_paced, p);
    for (int32_t i = 0; i < READERS; i++) {
        const lore_generation generation = {.prompt = &(int32_t){7},
                                            .prompt_count = 1,
                                            .tokens_max = p->steps_wanted + WARM_STEPS + 2};
        lore_stream *stream = NULL;
        CHECK_OK(lore_engine_submit(engine, &generation, &stream, &err), &err);
        start_reader(&readers[i], stream);
    }
    lore_engine_stop(engine, 0);
    join_readers(readers);
    CHECK(!p->is_starving);
    const int32_t steps = p->steps - WARM_STEPS;
    CHECK(steps > 0 && steps <= STEPS_MAX);
    qsort(p->cpu_us, (size_t)steps, sizeof p->cpu_us[0], by_size);
    qsort(p->gap_us, (size_t)steps, sizeof p->gap_us[0], by_size);
    printf("  64 sleepers, woken by the %s: %.0f us of processor a step (p90 %.0f), the next one "
           "submitted after %.0f us (p90 %.0f); medians of %d\n",
           has_waker ? "waker" : "engine", p->cpu_us[steps / 2], p->cpu_us[steps * 9 / 10],
           p->gap_us[steps / 2], p->gap_us[steps * 9 / 10], steps);
}

TEST(takes_the_waking_off_the_step)
{
    static pace p;
    lore_error err;
    const bool is_long = getenv("LORE_TEST_LONG") != NULL;
    p = (pace){.steps_wanted = is_long ? 300 : 30,
               .info = {.vocab = BYTE_TOKENIZER_FIRST_MERGE,
                        .context = 512,
                        .page_tokens = 32,
                        .page_count = READERS * 16,
                        .steps_in_flight = 2,
                        .eos_ids = {0},
                        .eos_count = 1}};
    p.tokenizer = byte_tokenizer_new(NULL, 0, &err);
    CHECK(p.tokenizer != NULL);
    for (int32_t round = 0; round < (is_long ? 6 : 2); round++) {
        time_steps(&p, round % 2 == 1);
    }
    lore_tokenizer_close(p.tokenizer);
}

CHECK_MAIN(wakes_all_who_were_pushed_to, holds_a_stream_that_both_sides_have_left,
           joins_lists_in_order, gives_64_sleepers_their_tokens, stops_with_news_on_their_way,
           takes_the_waking_off_the_step)
