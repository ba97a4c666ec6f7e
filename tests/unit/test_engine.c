/* Proves, with a decoder that answers by rule, fails and stalls on demand, that the engine gives
 * every request its answer and exactly one end: stop strings, cancels, a full queue, failing steps,
 * failing allocations, stopping under load; that steps allocate nothing; and, with the shipped
 * decoder on `ref`, that eight requests together get the tokens that each gets alone. */
#include "tests/check.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/thread.h"
#include "generation/engine_int.h"
#include "tests/sim/byte_tokenizer.h"

#include <stdatomic.h>
#include <time.h>

static const byte_merge merges[] = {{".", "\n"}};
enum { DOT_NEWLINE = BYTE_TOKENIZER_FIRST_MERGE, EOS = 0, SECOND_NS = 1000000000 };

/* ---- a decoder by rule ---- */

/* Token n of a sequence is script[n - 1] (prompts have one token), the letters of the alphabet by
 * seed and position where there is no script. '~' in a script stands for end of text, '|' for the
 * token ".\n". */
typedef struct fake {
    const char *script;
    lore_lock lock; /* guards is_held, failures */
    bool is_held;   /* steps wait */
    int32_t failures;
    int64_t row_us; /* a step takes this for each of its rows */
    atomic_int steps_begun;
    atomic_int rows_most;
    atomic_int mixed_rows_most; /* of a step with pieces of prompts beside other sequences */
    atomic_int sequences_most;
    /* Steps that are not collected, oldest first. The engine's thread alone. */
    struct {
        int32_t ids[8], draws, rows;
    } flights[2];
    int32_t flight_count;
    atomic_int flights_most;
    atomic_int parts_left; /* of what is prepared; the last one fails */
    bool is_closed;
    lore_decoder_info info;
    lore_tokenizer *tokenizer;
} fake;

static int32_t steps_in_flight = 1; /* of decoders by rule */

static int32_t fake_token(const fake *model, const lore_sample *sample)
{
    if (model->script == NULL) {
        return BYTE_TOKENIZER_FIRST + 'a' +
               (int32_t)((sample->seed + (uint64_t)sample->position) % 26);
    }
    char c = model->script[(sample->position - 1) % (int32_t)strlen(model->script)];
    return c == '~' ? EOS : c == '|' ? DOT_NEWLINE : BYTE_TOKENIZER_FIRST + (uint8_t)c;
}

/* A row that goes by a draw must go by one of the step before. */
static void check_ids(const fake *model, const lore_step *step)
{
    for (int32_t i = 0; i < step->batch.rows; i++) {
        CHECK(step->ids[i] < model->info.vocab);
        CHECK(step->ids[i] >= 0 ||
              (model->flight_count == 1 && -1 - step->ids[i] < model->flights[0].draws));
    }
}

static lore_status fake_submit(void *self, const lore_step *step, lore_error *err)
{
    (void)err;
    fake *model = self;
    CHECK(model->flight_count < steps_in_flight);
    check_ids(model, step);
    if (step->batch.sequences > atomic_load(&model->sequences_most)) {
        atomic_store(&model->sequences_most, step->batch.sequences);
    }
    if (step->batch.rows > atomic_load(&model->rows_most)) {
        atomic_store(&model->rows_most, step->batch.rows);
    }
    if (step->batch.rows_max > 1 && step->batch.row_start[1] == 1 &&
        step->batch.rows > atomic_load(&model->mixed_rows_most)) {
        atomic_store(&model->mixed_rows_most, step->batch.rows);
    }
    const int32_t at = model->flight_count++;
    model->flights[at].draws = step->logits_count;
    model->flights[at].rows = step->batch.rows;
    for (int32_t i = 0; i < step->logits_count; i++) {
        const int32_t id = fake_token(model, &step->samples[i]);
        model->flights[at].ids[i] = id;
        for (int32_t k = 0; k < step->samples[i].tops; k++) {
            step->tops[i * LORE_TOPS_MAX + k] = (lore_likely){id + k, -0.5f - (float)k};
        }
    }
    if (model->flight_count > atomic_load(&model->flights_most)) {
        atomic_store(&model->flights_most, model->flight_count);
    }
    atomic_fetch_add(&model->steps_begun, 1);
    return LORE_OK;
}

static lore_status fake_collect(void *self, int32_t *ids, float *logprobs, lore_error *err)
{
    fake *model = self;
    CHECK(model->flight_count > 0);
    const int64_t us = model->row_us * model->flights[0].rows;
    for (int32_t i = 0; i < model->flights[0].draws; i++) {
        ids[i] = model->flights[0].ids[i];
        logprobs[i] = -0.5f;
    }
    model->flights[0] = model->flights[1];
    model->flight_count--;
    lore_lock_acquire(&model->lock);
    while (model->is_held) {
        (void)lore_lock_wait(&model->lock, 0);
    }
    bool must_fail = model->failures > 0;
    model->failures -= must_fail;
    lore_lock_release(&model->lock);
    if (must_fail) {
        return lore_fail(err, LORE_ERR_DEVICE, "the test's device has failed");
    }
    nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
    return LORE_OK;
}

static lore_status fake_prepare(void *self, bool *is_done, lore_error *err)
{
    fake *model = self;
    CHECK_INT(model->flight_count, 0);
    *is_done = false;
    return atomic_fetch_sub(&model->parts_left, 1) > 1
               ? LORE_OK
               : lore_fail(err, LORE_ERR_DEVICE, "the test's device has failed");
}

static void fake_close(void *self)
{
    fake *model = self;
    model->is_closed = true;
}

static void set_held(fake *model, bool is_held)
{
    lore_lock_acquire(&model->lock);
    model->is_held = is_held;
    lore_lock_wake_all(&model->lock);
    lore_lock_release(&model->lock);
}

static void fail_next(fake *model, int32_t failures)
{
    lore_lock_acquire(&model->lock);
    model->failures = failures;
    lore_lock_release(&model->lock);
}

static void wait_for_step(fake *model, int steps)
{
    while (atomic_load(&model->steps_begun) < steps) {
        lore_clock_sleep_ms(1);
    }
}

static void fake_init(fake *model)
{
    lore_error err;
    *model = (fake){.info = {.vocab = BYTE_TOKENIZER_FIRST_MERGE + 1,
                             .context = 64,
                             .page_tokens = 4,
                             .page_count = 40,
                             .steps_in_flight = steps_in_flight,
                             .eos_ids = {EOS},
                             .eos_count = 1}};
    lore_lock_init(&model->lock);
    model->tokenizer = byte_tokenizer_new(merges, 1, &err);
    if (model->tokenizer == NULL) {
        CHECK_STOP("%s", err.message);
    }
}

static void fake_destroy(fake *model)
{
    CHECK(model->is_closed);
    lore_tokenizer_close(model->tokenizer);
    lore_lock_destroy(&model->lock);
}

static lore_engine_model model_of(fake *model)
{
    return (lore_engine_model){.self = model,
                               .submit = fake_submit,
                               .collect = fake_collect,
                               .close = fake_close,
                               .info = &model->info,
                               .tokenizer = model->tokenizer};
}

static lore_limits limits_of_test(void)
{
    return (lore_limits){.stop_strings_max = 2,
                         .stop_bytes_max = 8,
                         .batch_sequences_max = 4,
                         .step_tokens_max = 16,
                         .queue_requests_max = 2,
                         .answer_tokens_max = 60,
                         .prompt_tokens_max = 32};
}

static lore_engine *start_with_queue(fake *model, int64_t queue_requests_max)
{
    lore_error err;
    lore_limits limits = limits_of_test();
    limits.queue_requests_max = queue_requests_max;
    lore_engine_model parts = model_of(model);
    lore_engine *engine = NULL;
    CHECK_OK(lore_engine_start_model(&parts, &limits, &engine, &err), &err);
    return engine;
}

static lore_engine *start(fake *model)
{
    return start_with_queue(model, 2);
}

static const int32_t prompt_of_test[] = {7};

static lore_generation generation_of(int32_t tokens_max, uint64_t seed)
{
    return (lore_generation){.prompt = prompt_of_test,
                             .prompt_count = 1,
                             .tokens_max = tokens_max,
                             .sampling = {.top_p = 1.0f, .seed = seed}};
}

static lore_stream *submit(lore_engine *engine, const lore_generation *generation)
{
    lore_error err;
    lore_stream *stream = NULL;
    CHECK_OK(lore_engine_submit(engine, generation, &stream, &err), &err);
    return stream;
}

/* ---- a consumer ---- */

typedef struct answer {
    int32_t ids[64];
    float logprobs[64];
    int32_t count, cached_tokens;
    lore_finish finish;
    char text[256];
    size_t text_len;
} answer;

/* Read to the end and release. */
static answer listen_to(lore_stream *stream, const lore_tokenizer *tokenizer)
{
    answer out = {0};
    lore_detok detok = {0};
    lore_buf text;
    lore_buf_init(&text, 0);
    lore_token_event event;
    lore_status status = LORE_OK;
    while (out.finish == LORE_FINISH_NONE &&
           (status = lore_stream_next(stream, lore_clock_ns() + 60ll * SECOND_NS, &event)) ==
               LORE_OK) {
        out.cached_tokens = event.cached_tokens;
        if (event.id >= 0 && out.count < 64) {
            out.logprobs[out.count] = event.logprob;
            out.ids[out.count++] = event.id;
            lore_detok_push(&detok, tokenizer, event.id, &text);
        }
        out.finish = event.finish;
        text.len -= (size_t)event.cut_bytes;
    }
    out.text_len = text.len < sizeof out.text ? text.len : sizeof out.text;
    memcpy(out.text, text.ptr == NULL ? "" : text.ptr, out.text_len);
    lore_buf_destroy(&text);
    lore_stream_release(stream);
    CHECK_INT(status, LORE_OK);
    return out;
}

static void check_text(const answer *out, const char *text)
{
    lore_str got = {out->text, out->text_len};
    CHECK_STR(got, text);
}

/* Statistics follow a moment after the events. */
static void wait_until_idle(lore_engine *engine)
{
    lore_sched_stats stats;
    int64_t deadline_ns = lore_clock_ns() + 20ll * SECOND_NS;
    do {
        lore_clock_sleep_ms(1);
        lore_engine_get_stats(engine, &stats);
    } while ((stats.running > 0 || stats.waiting > 0 || stats.pages_free < stats.pages_total) &&
             !lore_deadline_passed(deadline_ns));
    CHECK_INT(stats.running, 0);
    CHECK_INT(stats.waiting, 0);
    CHECK_INT(stats.pages_free, stats.pages_total);
}

/* ---- one request ---- */

TEST(answers_until_length_context_or_end_of_text)
{
    fake model;
    fake_init(&model);
    lore_engine *engine = start(&model);
    lore_generation generation = generation_of(5, 2);
    answer out = listen_to(submit(engine, &generation), model.tokenizer);
    CHECK_INT(out.finish, LORE_FINISH_LENGTH);
    check_text(&out, "defgh"); /* seed 2, positions 1.. */

    int32_t prompt[30] = {0};
    generation = generation_of(60, 0);
    generation.prompt = prompt;
    generation.prompt_count = 30;
    out = listen_to(submit(engine, &generation), model.tokenizer);
    CHECK_INT(out.finish, LORE_FINISH_LENGTH);
    CHECK_INT(out.count, 34);

    model.script = "hi~";
    generation = generation_of(50, 0);
    out = listen_to(submit(engine, &generation), model.tokenizer);
    CHECK_INT(out.finish, LORE_FINISH_STOP);
    CHECK_INT(out.count, 2); /* the end-of-text token is not of the answer */
    check_text(&out, "hi");
    wait_until_idle(engine);
    CHECK(lore_engine_info(engine) == &model.info);
    CHECK(lore_engine_tokenizer(engine) == model.tokenizer);
    lore_engine_stop(engine, 0);
    lore_engine_stop(NULL, 0);
    fake_destroy(&model);
}

static void check_stop(fake *model, lore_engine *engine, const char *script, const char *stop_text,
                       int32_t tokens_max, lore_finish finish, const char *text)
{
    model->script = script; /* the engine is idle */
    lore_str stop[] = {lore_str_from(stop_text), LORE_STR("\n\n")};
    lore_generation generation = generation_of(tokens_max, 0);
    generation.stop = stop;
    generation.stop_count = 2;
    answer out = listen_to(submit(engine, &generation), model->tokenizer);
    CHECK_INT(out.finish, finish);
    check_text(&out, text);
    wait_until_idle(engine);
}

TEST(ends_at_stop_strings_across_tokens)
{
    fake model;
    fake_init(&model);
    lore_engine *engine = start(&model);
    check_stop(&model, engine, "one END two", "END", 40, LORE_FINISH_STOP, "one ");
    check_stop(&model, engine, "one EN two~", "END", 40, LORE_FINISH_STOP, "one EN two");
    check_stop(&model, engine, "done|more", "\n", 40, LORE_FINISH_STOP, "done."); /* in a token */
    check_stop(&model, engine, "done|more", ".\nm", 40, LORE_FINISH_STOP, "done");
    check_stop(&model, engine, "oneEN", "END", 5, LORE_FINISH_LENGTH,
               "oneEN"); /* held, then sent */
    check_stop(&model, engine, "oneEN~", "END", 40, LORE_FINISH_STOP, "oneEN");
    check_stop(&model, engine, "oneEND", "END", 6, LORE_FINISH_STOP, "one"); /* both at once */
    check_stop(&model, engine, "END", "END", 40, LORE_FINISH_STOP, "");
    lore_engine_stop(engine, 0);
    fake_destroy(&model);
}

TEST(refuses_bad_requests)
{
    fake model;
    fake_init(&model);
    lore_engine *engine = start(&model);
    lore_error err;
    lore_stream *stream = NULL;
    int32_t prompt[64] = {0};
    lore_generation good = generation_of(5, 0), bad = good;
#define CHECK_REFUSED(status, words)                                                   \
    CHECK_FAILS(lore_engine_submit(engine, &bad, &stream, &err), status, &err, words); \
    bad = good
    bad.prompt = prompt;
    bad.prompt_count = 33;
    CHECK_REFUSED(LORE_ERR_LIMIT, "the prompt has 33 tokens, at most 32");
    bad.tokens_max = 61;
    CHECK_REFUSED(LORE_ERR_LIMIT, "an answer of 61 tokens was asked for, at most 60");
    bad.tokens_max = 0;
    CHECK_REFUSED(LORE_ERR_INVALID, "at least 1");
    bad.prompt_count = 0;
    CHECK_REFUSED(LORE_ERR_INVALID, "at least 1");
    prompt[0] = model.info.vocab;
    bad.prompt = prompt;
    CHECK_REFUSED(LORE_ERR_INVALID, "prompt token 1 is 261, the vocabulary has 261");
    bad.sampling.temperature = -1.0f;
    CHECK_REFUSED(LORE_ERR_INVALID, "temperature is -1");
    bad.sampling.temperature = NAN;
    CHECK_REFUSED(LORE_ERR_INVALID, "temperature is");
    bad.sampling = (lore_sampling){.temperature = 1.0f, .top_p = 1.5f};
    CHECK_REFUSED(LORE_ERR_INVALID, "top_p is 1.5");
    bad.sampling.top_k = -1;
    CHECK_REFUSED(LORE_ERR_INVALID, "top_k is -1");
    lore_str stop[] = {LORE_STR("123456789"), LORE_STR(""), LORE_STR("x")};
    bad.stop = stop;
    bad.stop_count = 1;
    CHECK_REFUSED(LORE_ERR_LIMIT, "stop string 1 has 9 bytes, at most 8");
    bad.stop = stop + 1;
    bad.stop_count = 1;
    CHECK_REFUSED(LORE_ERR_INVALID, "stop string 1 is empty");
    bad.stop = stop;
    bad.stop_count = 3;
    CHECK_REFUSED(LORE_ERR_LIMIT, "3 stop strings, at most 2");
    lore_engine_stop(engine, 0);
    fake_destroy(&model);
}

/* ---- many requests ---- */

TEST(runs_requests_together_and_refuses_one_too_many)
{
    fake model;
    fake_init(&model);
    set_held(&model, true);
    lore_engine *engine = start(&model);
    lore_stream *streams[6]; /* four places and two waiting */
    for (int32_t i = 0; i < 6; i++) {
        lore_generation generation = generation_of(3, (uint64_t)i);
        streams[i] = submit(engine, &generation);
    }
    lore_generation more = generation_of(3, 0);
    lore_error err;
    lore_stream *stream = NULL;
    CHECK_FAILS(lore_engine_submit(engine, &more, &stream, &err), LORE_ERR_BUSY, &err,
                "6 requests, 4 running and 2 waiting");
    lore_sched_stats stats;
    wait_for_step(&model, 1); /* which is held: nothing ends until it is let go */
    const int64_t deadline_ns = lore_clock_ns() + 20ll * SECOND_NS;
    do { /* those on their way from the queue to the next step are counted with that */
        lore_engine_get_stats(engine, &stats);
    } while (stats.running + stats.waiting < 6 && !lore_deadline_passed(deadline_ns));
    CHECK(stats.running > 0);
    CHECK_INT(stats.running + stats.waiting, 6);
    set_held(&model, false);
    for (int32_t i = 0; i < 6; i++) {
        answer out = listen_to(streams[i], model.tokenizer);
        CHECK_INT(out.finish, LORE_FINISH_LENGTH);
        CHECK_INT(out.count, 3);
        CHECK_INT(out.ids[0], BYTE_TOKENIZER_FIRST + 'a' + i + 1);
    }
    CHECK_INT(atomic_load(&model.sequences_most), 4);
    answer out =
        listen_to(submit(engine, &more), model.tokenizer); /* there is room again at once */
    CHECK_INT(out.count, 3);
    wait_until_idle(engine);
    lore_engine_get_stats(engine, &stats);
    CHECK_INT(stats.prompt_tokens, 7);
    CHECK_INT(stats.generated_tokens, 21);
    lore_engine_stop(engine, 0);
    fake_destroy(&model);
}

TEST(forgets_cancelled_and_abandoned_requests)
{
    fake model;
    fake_init(&model);
    set_held(&model, true);
    lore_engine *engine = start(&model);
    lore_generation generation = generation_of(50, 0);
    lore_stream *cancelled = submit(engine, &generation);
    lore_stream *abandoned = submit(engine, &generation);
    lore_stream *kept = submit(engine, &generation);
    wait_for_step(&model, 1);
    lore_stream_cancel(cancelled);
    lore_stream_release(abandoned);
    set_held(&model, false);
    answer out = listen_to(cancelled, model.tokenizer);
    CHECK_INT(out.finish, LORE_FINISH_CANCELLED);
    CHECK(out.count < 50);
    out = listen_to(kept, model.tokenizer);
    CHECK_INT(out.finish, LORE_FINISH_LENGTH);
    CHECK_INT(out.count, 50);
    wait_until_idle(engine); /* all pages are free */
    lore_engine_stop(engine, 0);
    fake_destroy(&model);
}

static void drop_line(void *self, const char *line)
{
    int32_t *lines = self;
    *lines += strstr(line, "event=step_failed") != NULL;
}

TEST(survives_a_failing_device)
{
    fake model;
    fake_init(&model);
    int32_t lines = 0;
    lore_log_set_sink(drop_line, &lines);
    set_held(&model, true);
    fail_next(&model, 1);
    lore_engine *engine = start(&model);
    lore_generation generation = generation_of(5, 0);
    lore_stream *first = submit(engine, &generation);
    wait_for_step(&model, 1);
    lore_stream *second = submit(engine, &generation); /* arrives during the failing step */
    set_held(&model, false);
    answer out = listen_to(first, model.tokenizer);
    CHECK_INT(out.finish, LORE_FINISH_ERROR);
    CHECK_INT(out.count, 0);
    out = listen_to(second, model.tokenizer);
    CHECK_INT(out.finish, LORE_FINISH_LENGTH);
    CHECK_INT(out.count, 5);
    wait_until_idle(engine);
    lore_engine_stop(engine, 0);
    lore_log_set_sink(NULL, NULL);
    CHECK_INT(lines, 1);
    fake_destroy(&model);
}

/* Part after part while nobody asks, answers in between, and no more of it behind a failure. */
TEST(prepares_while_idle)
{
    fake model;
    fake_init(&model);
    atomic_store(&model.parts_left, 3);
    lore_engine_model parts = model_of(&model);
    parts.prepare = fake_prepare;
    const lore_limits limits = limits_of_test();
    lore_engine *engine = NULL;
    lore_error err;
    CHECK_OK(lore_engine_start_model(&parts, &limits, &engine, &err), &err);
    lore_generation generation = generation_of(5, 0);
    for (int before = 3; before >= 0; before--) {
        while (atomic_load(&model.parts_left) > before) {
            lore_clock_sleep_ms(1);
        }
        CHECK_INT(listen_to(submit(engine, &generation), model.tokenizer).count, 5);
    }
    CHECK_INT(atomic_load(&model.parts_left), 0);
    lore_engine_stop(engine, 0);
    fake_destroy(&model);
}

/* ---- stopping ---- */

TEST(finishes_what_was_accepted_before_it_stops)
{
    fake model;
    fake_init(&model);
    set_held(&model, true);
    lore_engine *engine = start(&model);
    lore_stream *streams[6];
    lore_generation generation = generation_of(20, 0);
    for (int32_t i = 0; i < 6; i++) {
        streams[i] = submit(engine, &generation);
    }
    set_held(&model, false);
    lore_engine_stop(engine, 0);
    for (int32_t i = 0; i < 6; i++) {
        answer out = listen_to(streams[i], model.tokenizer);
        CHECK_INT(out.finish, LORE_FINISH_LENGTH);
        CHECK_INT(out.count, 20);
    }
    fake_destroy(&model);
}

typedef struct stopper {
    lore_engine *engine;
    int64_t deadline_ns;
} stopper;

static void *stop_engine(void *self)
{
    stopper *s = self;
    lore_engine_stop(s->engine, s->deadline_ns);
    return NULL;
}

enum { LATE_MAX = 2000 };

/* A step is under way and held, so the engine cannot end; it refuses new work as soon as it knows.
 * Gives how many were accepted until then, the first of them before the stop. */
static int32_t submit_until_refused(fake *model, const lore_generation *generation, stopper *s,
                                    lore_thread *thread, lore_stream **streams)
{
    lore_engine *engine = s->engine;
    lore_error err;
    int32_t count = 0;
    lore_status status = LORE_OK;
    streams[count++] = submit(engine, generation);
    wait_for_step(model, 1);
    CHECK_OK(lore_thread_start(thread, "stop", stop_engine, s, &err), &err);
    while (status == LORE_OK && count < LATE_MAX) {
        status = lore_engine_submit(engine, generation, &streams[count], &err);
        count += status == LORE_OK;
        lore_clock_sleep_ms(5);
    }
    CHECK_INT(status, LORE_ERR_CANCELLED);
    CHECK_STR(lore_str_from(err.message), "the engine is stopping");
    return count;
}

TEST(cancels_what_is_left_at_the_deadline)
{
    static lore_stream *streams[LATE_MAX];
    fake model;
    fake_init(&model);
    set_held(&model, true);
    lore_engine *engine = start_with_queue(&model, LATE_MAX);
    lore_generation generation = generation_of(50, 0);
    stopper s = {.engine = engine, .deadline_ns = 1};
    lore_thread thread;
    int32_t count = submit_until_refused(&model, &generation, &s, &thread, streams);
    int64_t begun_ns = lore_clock_ns();
    set_held(&model, false);
    lore_thread_join(&thread);
    CHECK(lore_clock_ns() - begun_ns < 2ll * SECOND_NS);
    for (int32_t i = 0; i < count; i++) {
        answer out = listen_to(streams[i], model.tokenizer);
        CHECK_INT(out.finish, LORE_FINISH_CANCELLED);
        CHECK(out.count < 5);
    }
    fake_destroy(&model);
}

TEST(refuses_work_while_it_stops)
{
    static lore_stream *streams[LATE_MAX];
    fake model;
    fake_init(&model);
    set_held(&model, true);
    lore_engine *engine = start_with_queue(&model, LATE_MAX);
    lore_generation generation = generation_of(2, 0);
    stopper s = {.engine = engine, .deadline_ns = 0};
    lore_thread thread;
    int32_t count = submit_until_refused(&model, &generation, &s, &thread, streams);
    set_held(&model, false);
    lore_thread_join(&thread);
    for (int32_t i = 0; i < count; i++) {
        CHECK_INT(listen_to(streams[i], model.tokenizer).count, 2);
    }
    fake_destroy(&model);
}

/* ---- memory ---- */

/* A row takes 200 us and a step may take 6 ms: prompts come in pieces of some 30 rows while an
 * answer runs, though 256 would fit. On a busy machine sleeping takes longer and pieces get
 * smaller, never larger. */
TEST(cuts_prompts_so_that_running_answers_do_not_wait)
{
    enum { PROMPT = 200, STEP_MS = 6, ROW_US = 200 };
    static int32_t prompt[PROMPT];
    fake model;
    lore_error err;
    lore_engine *engine = NULL;
    lore_stream *running = NULL, *late = NULL;
    lore_token_event event = {0};
    fake_init(&model);
    model.row_us = ROW_US;
    model.info.context = 512;
    model.info.page_count = 400;
    lore_limits limits = limits_of_test();
    limits.step_tokens_max = 256;
    limits.step_ms_max = STEP_MS;
    limits.prompt_tokens_max = PROMPT;
    limits.answer_tokens_max = 200;
    const lore_engine_model fake_model = model_of(&model);
    CHECK_OK(lore_engine_start_model(&fake_model, &limits, &engine, &err), &err);
    for (int32_t i = 0; i < PROMPT; i++) {
        prompt[i] = BYTE_TOKENIZER_FIRST + 'a';
    }
    lore_generation generation = {.prompt = prompt, .prompt_count = PROMPT, .tokens_max = 200};
    CHECK_OK(lore_engine_submit(engine, &generation, &running, &err), &err);
    CHECK_INT(lore_stream_next(running, 0, &event), LORE_OK); /* a lone prompt is read whole */
    CHECK_INT(atomic_load(&model.rows_most), PROMPT);
    generation.tokens_max = 1;
    generation.salt = 1; /* or it would find itself computed */
    CHECK_OK(lore_engine_submit(engine, &generation, &late, &err), &err);
    CHECK_INT(lore_stream_next(late, 0, &event), LORE_OK);
    CHECK_INT(event.finish, LORE_FINISH_LENGTH);
    CHECK(atomic_load(&model.mixed_rows_most) >= 16);
    CHECK(atomic_load(&model.mixed_rows_most) <= 2 * STEP_MS * 1000 / ROW_US);
    lore_stream_release(running);
    lore_stream_release(late);
    lore_engine_stop(engine, lore_clock_ns());
    fake_destroy(&model);
}

TEST(allocates_nothing_in_a_step)
{
    fake model;
    fake_init(&model);
    set_held(&model, true);
    lore_engine *engine = start(&model);
    lore_str stop[] = {LORE_STR("zzz"), LORE_STR("abcdefgx")};
    lore_generation generation = generation_of(60, 0);
    generation.stop = stop;
    generation.stop_count = 2;
    lore_stream *streams[6];
    for (int32_t i = 0; i < 6; i++) {
        streams[i] = submit(engine, &generation);
    }
    int64_t made = lore_mem_count();
    set_held(&model, false);
    lore_token_event event = {0};
    for (int32_t i = 0; i < 6; i++) {
        event.finish = LORE_FINISH_NONE;
        while (event.finish == LORE_FINISH_NONE) {
            CHECK_INT(lore_stream_next(streams[i], 0, &event), LORE_OK);
        }
        lore_stream_release(streams[i]);
    }
    CHECK_INT(lore_mem_count(), made);
    lore_engine_stop(engine, 0);
    fake_destroy(&model);
}

/* Start, ask, listen, stop. The engine's thread allocates nothing, so the count is the same each
 * time. */
static lore_status one_life(void *self)
{
    fake *model = self;
    lore_error err;
    lore_limits limits = limits_of_test();
    lore_engine_model parts = model_of(model);
    lore_engine *engine = NULL;
    lore_status status = lore_engine_start_model(&parts, &limits, &engine, &err);
    if (status != LORE_OK) {
        return status;
    }
    lore_str stop[] = {LORE_STR("zzz")};
    lore_generation generation = generation_of(4, 0);
    generation.stop = stop;
    generation.stop_count = 1;
    lore_stream *stream = NULL;
    status = lore_engine_submit(engine, &generation, &stream, &err);
    if (status == LORE_OK) {
        lore_token_event event;
        while (lore_stream_next(stream, 0, &event) == LORE_OK) {
        }
        lore_stream_release(stream);
    }
    lore_engine_stop(engine, 0);
    return status;
}

TEST(survives_every_failing_allocation)
{
    fake model;
    fake_init(&model);
    check_alloc_sweep(one_life, &model);
    lore_error err;
    lore_limits limits = limits_of_test();
    lore_engine_model parts = model_of(&model);
    lore_engine *engine = NULL;
    lore_thread_fail_at(1);
    CHECK_FAILS(lore_engine_start_model(&parts, &limits, &engine, &err), LORE_ERR_NOMEM, &err,
                "cannot start thread 'engine'");
    lore_thread_fail_at(0);
    limits.step_tokens_max = 0;
    CHECK_FAILS(lore_engine_start_model(&parts, &limits, &engine, &err), LORE_ERR_INVALID, &err,
                "limits.step_tokens_max is 0");
    fake_destroy(&model);
}

/* ---- many threads ---- */

enum { ASKERS = 6, QUESTIONS = 60 };

typedef struct asker {
    lore_engine *engine;
    uint64_t seed;
    int32_t right, wrong;
} asker;

/* One question to its end. True: its tokens and its end are right. */
static bool ask_once(asker *a, const lore_generation *generation, bool is_leaving)
{
    lore_stream *stream = NULL;
    lore_status status = lore_engine_submit(a->engine, generation, &stream, NULL);
    if (status != LORE_OK) {
        return status == LORE_ERR_BUSY;
    }
    lore_token_event event = {0};
    int32_t count = 0;
    bool is_right = true;
    while (event.finish == LORE_FINISH_NONE && is_right) {
        is_right = lore_stream_next(stream, lore_clock_ns() + 60ll * SECOND_NS, &event) == LORE_OK;
        if (event.id >= 0) {
            count++;
            is_right =
                is_right &&
                event.id == BYTE_TOKENIZER_FIRST + 'a' +
                                (int32_t)((generation->sampling.seed + (uint64_t)count) % 26);
        }
        if (is_leaving && count == 2) {
            lore_stream_cancel(stream);
        }
    }
    lore_stream_release(stream);
    a->right += event.finish == LORE_FINISH_LENGTH;
    return is_right &&
           (event.finish == LORE_FINISH_LENGTH ? count == generation->tokens_max : is_leaving);
}

static void *ask_often(void *self)
{
    asker *a = self;
    for (int32_t i = 0; i < QUESTIONS; i++) {
        lore_generation generation =
            generation_of(1 + (int32_t)(lore_random_next(&a->seed) % 40), a->seed % 1000);
        a->wrong += !ask_once(a, &generation, lore_random_next(&a->seed) % 4 == 0);
    }
    return NULL;
}

TEST(serves_many_threads_with_few_pages)
{
    fake model;
    fake_init(&model);
    model.info.page_count = 17; /* one and a half long answers: preemption */
    lore_engine *engine = start(&model);
    asker askers[ASKERS];
    lore_thread threads[ASKERS];
    lore_error err;
    for (int32_t i = 0; i < ASKERS; i++) {
        askers[i] = (asker){.engine = engine, .seed = 100 + (uint64_t)i};
        CHECK_OK(lore_thread_start(&threads[i], "ask", ask_often, &askers[i], &err), &err);
    }
    int32_t right = 0, wrong = 0;
    for (int32_t i = 0; i < ASKERS; i++) {
        lore_thread_join(&threads[i]);
        right += askers[i].right;
        wrong += askers[i].wrong;
    }
    CHECK_INT(wrong, 0);
    CHECK(right > ASKERS * QUESTIONS / 4);
    wait_until_idle(engine);
    lore_sched_stats stats;
    lore_engine_get_stats(engine, &stats);
    CHECK(stats.preemptions > 0);
    lore_engine_stop(engine, 0);
    fake_destroy(&model);
}

/* The most probable tokens come with their token, held back for a stop string or not, and stay
 * readable to the end of the stream. */
TEST(hands_out_the_most_probable_tokens)
{
    fake model;
    fake_init(&model);
    lore_engine *engine = start(&model);
    lore_str stop[] = {LORE_STR("bcx")};
    lore_generation generation = generation_of(5, 0);
    generation.sampling.tops = 3;
    generation.stop = stop;
    generation.stop_count = 1;
    lore_stream *with = submit(engine, &generation);
    generation.sampling.tops = 0;
    lore_stream *without = submit(engine, &generation);
    lore_token_event events[5], bare;
    for (int32_t i = 0; i < 5; i++) {
        CHECK_INT(lore_stream_next(with, 0, &events[i]), LORE_OK);
        CHECK_INT(lore_stream_next(without, 0, &bare), LORE_OK);
        CHECK_INT(events[i].id, bare.id);
        CHECK(bare.tops == NULL);
    }
    for (int32_t i = 0; i < 5; i++) {
        for (int32_t k = 0; k < 3; k++) {
            CHECK_INT(events[i].tops[k].id, events[i].id + k);
            CHECK_NEAR(events[i].tops[k].logprob, -0.5 - k, 0);
        }
    }
    lore_stream_release(with);
    lore_stream_release(without);
    lore_engine_stop(engine, 0);
    fake_destroy(&model);
}

/* ---- the shipped decoder ---- */

enum { TOGETHER = 8, PROMPT = 5, ANSWER = 4 };

/* step_rows 0: as configured. The caller closes *backend behind the engine. */
static lore_engine *start_shipped(lore_backend_kind kind, int64_t step_rows, lore_backend **backend)
{
    lore_error err;
    lore_engine *engine = NULL;
    lore_config config;
    const lore_backend_options options = {.kind = kind};
    lore_config_default(&config);
    config.limits.kv_bytes_max = 4 << 20;
    if (step_rows > 0) {
        config.limits.step_tokens_max = step_rows;
    }
    CHECK_OK(lore_backend_open(&options, backend, &err), &err);
    CHECK_OK(
        lore_engine_start(LORE_SOURCE_DIR "/weights/decoder", *backend, &config, &engine, &err),
        &err);
    return engine;
}

TEST(gives_the_same_tokens_alone_and_together)
{
    if (!lore_file_exists(LORE_SOURCE_DIR "/weights/decoder/model.safetensors")) {
        CHECK_SKIP("no weights/decoder");
    }
    lore_backend *backend = NULL;
    /* 12 rows: prompts in pieces, mixed with decode rows */
    lore_engine *engine = start_shipped(LORE_BACKEND_REF, 12, &backend);
    int32_t vocab = lore_engine_info(engine)->vocab;
    int32_t prompts[TOGETHER][PROMPT];
    uint64_t seed = 11;
    for (int32_t i = 0; i < TOGETHER * PROMPT; i++) {
        prompts[i / PROMPT][i % PROMPT] =
            16 + (int32_t)(lore_random_next(&seed) % (uint64_t)(vocab - 16));
    }
    answer alone[TOGETHER];
    lore_stream *streams[TOGETHER];
    for (int32_t round = 0; round < 2; round++) {
        for (int32_t i = 0; i < TOGETHER; i++) {
            lore_generation generation = generation_of(ANSWER, 0);
            generation.prompt = prompts[i];
            generation.prompt_count = PROMPT;
            streams[i] = submit(engine, &generation);
            if (round == 0) {
                alone[i] = listen_to(streams[i], lore_engine_tokenizer(engine));
            }
        }
        for (int32_t i = 0; i < TOGETHER && round == 1; i++) {
            answer together = listen_to(streams[i], lore_engine_tokenizer(engine));
            CHECK_INT(together.finish, alone[i].finish);
            CHECK_INT(together.count, alone[i].count);
            for (int32_t k = 0; k < together.count; k++) {
                CHECK_INT(together.ids[k], alone[i].ids[k]);
            }
        }
    }
    wait_until_idle(engine);
    lore_engine_stop(engine, 0);
    lore_backend_close(backend);
}

/* How often the answer has the token. */
static int32_t count_of(const answer *out, int32_t id)
{
    int32_t count = 0;
    for (int32_t i = 0; i < out->count; i++) {
        count += out->ids[i] == id;
    }
    return count;
}

/* Through the whole engine: a bias is as good as a must or a ban, penalties drive out what was
 * said, the likeliest token is the greedy one's, and min_p 1 is greedy at any temperature. */
TEST(biases_and_penalties_turn_the_answer)
{
    enum { WORDS = 12, MUST = 1000 };
    static const int32_t prompt[PROMPT] = {504, 1000, 77, 300, 4242};
    if (!lore_file_exists(LORE_SOURCE_DIR "/weights/decoder/model.safetensors")) {
        CHECK_SKIP("no weights/decoder");
    }
    lore_backend *backend = NULL;
    lore_engine *engine = start_shipped(LORE_BACKEND_CPU, 0, &backend);
    const lore_tokenizer *tokenizer = lore_engine_tokenizer(engine);
    lore_generation generation = generation_of(WORDS, 0);
    generation.prompt = prompt;
    generation.prompt_count = PROMPT;
    generation.sampling.repetition_penalty = 1;

    lore_bias biases[1] = {{MUST, 20.0f}};
    generation.sampling.biases = biases;
    generation.sampling.bias_count = 1;
    answer out = listen_to(submit(engine, &generation), tokenizer);
    CHECK_INT(count_of(&out, MUST), WORDS);
    generation.sampling.frequency_penalty = 2; /* until another one is likelier */
    out = listen_to(submit(engine, &generation), tokenizer);
    const int32_t tired = count_of(&out, MUST);
    CHECK(tired > 1 && tired < WORDS);
    generation.sampling.frequency_penalty = 0;
    generation.sampling.presence_penalty = 2; /* once, which is too little here */
    out = listen_to(submit(engine, &generation), tokenizer);
    CHECK(count_of(&out, MUST) > tired);

    generation.sampling = (lore_sampling){.repetition_penalty = 1, .tops = 2};
    lore_stream *stream = submit(engine, &generation);
    lore_token_event event = {0};
    CHECK_INT(lore_stream_next(stream, 0, &event), LORE_OK);
    const int32_t first = event.id;
    CHECK_INT(event.tops[0].id, first);
    CHECK_NEAR(event.tops[0].logprob, event.logprob, 0);
    CHECK(event.tops[1].logprob <= event.logprob);
    const int32_t second = event.tops[1].id;
    lore_stream_cancel(stream);
    lore_stream_release(stream);

    generation.tokens_max = 1;
    biases[0] = (lore_bias){first, -100.0f};
    generation.sampling =
        (lore_sampling){.repetition_penalty = 1, .biases = biases, .bias_count = 1};
    out = listen_to(submit(engine, &generation), tokenizer);
    CHECK_INT(count_of(&out, second), 1);
    generation.sampling =
        (lore_sampling){.temperature = 2, .top_p = 1, .repetition_penalty = 1, .min_p = 1};
    for (uint64_t seed = 0; seed < 8; seed++) {
        generation.sampling.seed = seed;
        out = listen_to(submit(engine, &generation), tokenizer);
        CHECK_INT(count_of(&out, first), 1);
    }
    lore_engine_stop(engine, 0);
    lore_backend_close(backend);
}

/* Two prompts that begin alike, the second one computed whole and behind the pages of the first:
 * on `ref` not a bit of its answer differs. */
TEST(answers_alike_behind_pages_of_another_prompt)
{
    enum { ALIKE = 70, WHOLE = 75, ROUNDS = 3 };
    if (!lore_file_exists(LORE_SOURCE_DIR "/weights/decoder/model.safetensors")) {
        CHECK_SKIP("no weights/decoder");
    }
    static const uint64_t salts[ROUNDS] = {1, 1, 2};
    static const int32_t cached[ROUNDS] = {0, 64, 0}; /* two pages of 32 tokens */
    lore_backend *backend = NULL;
    lore_engine *engine = start_shipped(LORE_BACKEND_REF, 0, &backend);
    int32_t prompt[WHOLE];
    answer answers[ROUNDS];
    uint64_t seed = 12;
    for (int32_t i = 0; i < WHOLE; i++) {
        prompt[i] = 16 + (int32_t)(lore_random_next(&seed) % 1000);
    }
    for (int32_t round = 0; round < ROUNDS; round++) {
        lore_generation generation = generation_of(ANSWER, 0);
        generation.prompt = prompt;
        generation.prompt_count = WHOLE;
        generation.salt = salts[round];
        prompt[ALIKE] = round == 0 ? 17 : 18;
        answers[round] = listen_to(submit(engine, &generation), lore_engine_tokenizer(engine));
        CHECK_INT(answers[round].cached_tokens, cached[round]);
    }
    CHECK_INT(answers[1].count, answers[2].count);
    for (int32_t i = 0; i < answers[1].count; i++) {
        CHECK_INT(answers[1].ids[i], answers[2].ids[i]);
        CHECK_NEAR(answers[1].logprobs[i], answers[2].logprobs[i], 0);
    }
    lore_sched_stats stats;
    wait_until_idle(engine);
    lore_engine_get_stats(engine, &stats);
    CHECK_INT(stats.cached_tokens, 64);
    CHECK(stats.pages_cached >= 4);
    lore_engine_stop(engine, 0);
    lore_backend_close(backend);
}

/* All of the above again with a decoder that takes the next step before the last one is read. */
TEST(does_the_same_with_two_steps_in_flight)
{
    const check_case *const again[] = {
        answers_until_length_context_or_end_of_text,
        ends_at_stop_strings_across_tokens,
        runs_requests_together_and_refuses_one_too_many,
        forgets_cancelled_and_abandoned_requests,
        survives_a_failing_device,
        finishes_what_was_accepted_before_it_stops,
        cancels_what_is_left_at_the_deadline,
        refuses_work_while_it_stops,
        cuts_prompts_so_that_running_answers_do_not_wait,
        allocates_nothing_in_a_step,
        survives_every_failing_allocation,
        serves_many_threads_with_few_pages,
        hands_out_the_most_probable_tokens,
    };
    fake model;
    steps_in_flight = 2;
    for (size_t i = 0; i < sizeof again / sizeof again[0]; i++) {
        again[i]->run();
    }
    fake_init(&model);
    lore_engine *engine = start(&model);
    lore_generation generation = generation_of(20, 0);
    answer out = listen_to(submit(engine, &generation), model.tokenizer);
    CHECK_INT(out.count, 20);
    wait_until_idle(engine);
    CHECK_INT(atomic_load(&model.flights_most), 2);
    CHECK_INT(atomic_load(&model.steps_begun), 20); /* whose end is its length costs no row */
    generation.sampling.repetition_penalty = 1.5f;
    out = listen_to(submit(engine, &generation), model.tokenizer);
    CHECK_INT(out.count, 20);
    wait_until_idle(engine);
    atomic_store(&model.flights_most, 0);
    out = listen_to(submit(engine, &generation), model.tokenizer);
    CHECK_INT(out.count, 20);
    CHECK_INT(atomic_load(&model.flights_most), 1); /* the host must know each token */
    lore_engine_stop(engine, 0);
    fake_destroy(&model);
    steps_in_flight = 1;
}

CHECK_MAIN(answers_until_length_context_or_end_of_text, ends_at_stop_strings_across_tokens,
           refuses_bad_requests, runs_requests_together_and_refuses_one_too_many,
           forgets_cancelled_and_abandoned_requests, survives_a_failing_device, prepares_while_idle,
           finishes_what_was_accepted_before_it_stops, cancels_what_is_left_at_the_deadline,
           refuses_work_while_it_stops, cuts_prompts_so_that_running_answers_do_not_wait,
           allocates_nothing_in_a_step, survives_every_failing_allocation,
           serves_many_threads_with_few_pages, answers_alike_behind_pages_of_another_prompt,
           hands_out_the_most_probable_tokens, gives_the_same_tokens_alone_and_together,
           biases_and_penalties_turn_the_answer, does_the_same_with_two_steps_in_flight)
