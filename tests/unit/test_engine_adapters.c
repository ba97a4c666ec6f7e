/* Proves, with a decoder that draws the value of whoever's adapter a row has, at the time when the
 * step is collected, that the engine gives each request the adapter it asked for from its first to
 * its last token: mixed with the base, while loads wait, fail, are cancelled or stopped, while
 * steps fail, while adapters are replaced and unloaded (LORE_CHURN times, 200 unless said); that
 * keys and values of one adapter are no other's; with one step in flight and with two. */
#include "tests/unit/adapter_source_fixture.h"

#include "base/clock.h"
#include "base/file.h"
#include "generation/engine_int.h"
#include "tests/sim/byte_tokenizer.h"

#include <time.h>

enum { PLACES = 12 }; /* sequences, and of the queue */
enum { BASE_VALUE = 255, SLOTS = 8, ANSWER = 6, NAMES = 4, VERSIONS = 60, CLIENTS = 4 };
#define SECOND_NS ((int64_t)1000000000)

static int32_t steps_in_flight = 1;

typedef struct fake {
    source s;
    struct {
        const source_item *items[SLOTS]; /* of each draw; NULL: the base */
        int32_t draws;
    } flights[2];
    int32_t flight_count;
    atomic_int failures; /* of the next steps */
    atomic_int steps;
    atomic_int prepared; /* calls */
    atomic_bool is_held; /* steps wait */
    int64_t step_us;
    lore_decoder_info info;
    lore_tokenizer *tokenizer;
    lore_engine *engine;
    lore_adapters *adapters;
} fake;

static lore_status fake_submit(void *self, const lore_step *step, lore_error *err)
{
    (void)err;
    fake *f = self;
    const int32_t at = f->flight_count++;
    int32_t sequence = 0;
    f->flights[at].draws = step->logits_count;
    for (int32_t i = 0; i < step->logits_count; i++) {
        while (step->batch.row_start[sequence + 1] <= step->logits_rows[i]) {
            sequence++;
        }
        const int32_t slot = step->adapters != NULL ? step->adapters[sequence] : -1;
        f->flights[at].items[i] = slot >= 0 ? f->s.slots[slot] : NULL;
        if (slot >= 0 && f->s.slots[slot] == NULL) {
            atomic_store(&f->s.is_wrong, true);
        }
    }
    bool is_any = step->adapters == NULL;
    for (int32_t i = 0; i < step->batch.sequences && !is_any; i++) {
        is_any = step->adapters[i] >= 0;
    }
    if (!is_any) {
        atomic_store(&f->s.is_wrong, true); /* steps of the base alone have no array */
    }
    return LORE_OK;
}

static lore_status fake_collect(void *self, int32_t *ids, float *logprobs, lore_error *err)
{
    fake *f = self;
    while (atomic_load(&f->is_held)) {
        lore_clock_sleep_ms(1);
    }
    if (f->step_us > 0) {
        nanosleep(&(struct timespec){0, f->step_us * 1000}, NULL);
    }
    for (int32_t i = 0; i < f->flights[0].draws; i++) {
        const source_item *item = f->flights[0].items[i];
        ids[i] = BYTE_TOKENIZER_FIRST + (item != NULL ? item->value : BASE_VALUE);
        logprobs[i] = -0.5f;
    }
    f->flights[0] = f->flights[1];
    f->flight_count--;
    atomic_fetch_add(&f->steps, 1);
    if (atomic_load(&f->failures) > 0) {
        atomic_fetch_sub(&f->failures, 1);
        return lore_fail(err, LORE_ERR_DEVICE, "the test's device has failed");
    }
    return LORE_OK;
}

static lore_status fake_prepare(void *self, bool *is_done, lore_error *err)
{
    fake *f = self;
    (void)err;
    *is_done = true;
    atomic_fetch_add(&f->prepared, 1);
    return LORE_OK;
}

static void fake_open(fake *f, int64_t device_bytes, int64_t host_bytes)
{
    lore_error err;
    memset(f, 0, sizeof *f);
    const lore_adapter_source from = source_init(&f->s, SLOTS);
    f->info = (lore_decoder_info){.vocab = BYTE_TOKENIZER_FIRST_MERGE,
                                  .context = 64,
                                  .page_tokens = 4,
                                  .page_count = 64,
                                  .steps_in_flight = steps_in_flight,
                                  .name = "the-decoder"};
    f->tokenizer = byte_tokenizer_new(NULL, 0, &err);
    CHECK(f->tokenizer != NULL);
    const lore_limits limits = {.stop_strings_max = 2,
                                .stop_bytes_max = 8,
                                .batch_sequences_max = 4,
                                .step_tokens_max = 16,
                                .queue_requests_max = 8,
                                .answer_tokens_max = 60,
                                .prompt_tokens_max = 32,
                                .adapters_max = 16,
                                .adapter_bytes_max = device_bytes,
                                .adapter_host_bytes_max = host_bytes};
    const lore_engine_model model = {.self = f,
                                     .submit = fake_submit,
                                     .collect = fake_collect,
                                     .prepare = fake_prepare,
                                     .info = &f->info,
                                     .tokenizer = f->tokenizer,
                                     .adapters = from};
    CHECK_OK(lore_engine_start_model(&model, &limits, &f->engine, &err), &err);
    f->adapters = lore_engine_adapters(f->engine);
    CHECK(f->adapters != NULL);
}

static void fake_close(fake *f)
{
    lore_engine_stop(f->engine, 0);
    lore_tokenizer_close(f->tokenizer);
    source_destroy(&f->s);
}

static int64_t soon(void)
{
    return lore_clock_ns() + 20 * SECOND_NS;
}

#define PATIENT (&(lore_adapter_patience){.deadline_ns = soon()})

static lore_status load(fake *f, const char *name, const char *folder, bool is_replacing,
                        lore_error *err)
{
    const lore_adapter_spec spec = {
        .name = lore_str_from(name), .folder = lore_str_from(folder), .is_replacing = is_replacing};
    return lore_adapters_load(f->adapters, &spec, PATIENT, err);
}

static void load_good(fake *f, const char *name, const char *folder)
{
    lore_error err;
    CHECK_OK(load(f, name, folder, false, &err), &err);
}

static lore_status try_submit(fake *f, const char *adapter, int32_t tokens, lore_stream **stream,
                              lore_error *err)
{
    static const int32_t PROMPT[9] = {7, 8, 9, 10, 11, 12, 13, 14, 15};
    const lore_generation generation = {.prompt = PROMPT,
                                        .prompt_count = 9,
                                        .tokens_max = tokens,
                                        .sampling = {.top_p = 1.0f},
                                        .adapter = lore_str_from(adapter)};
    return lore_engine_submit(f->engine, &generation, stream, err);
}

static lore_stream *submit(fake *f, const char *adapter)
{
    lore_error err;
    lore_stream *stream = NULL;
    CHECK_OK(try_submit(f, adapter, ANSWER, &stream, &err), &err);
    return stream;
}

typedef struct answer {
    int32_t count, value, cached; /* value -1: tokens of more than one */
    lore_finish finish;
    lore_error error;
} answer;

/* Read to the end and release. finish NONE: there was none. */
static answer listen_to(lore_stream *stream)
{
    answer out = {.error.status = LORE_OK};
    lore_token_event event;
    while (out.finish == LORE_FINISH_NONE && lore_stream_next(stream, soon(), &event) == LORE_OK) {
        if (event.id >= 0) {
            const int32_t value = event.id - BYTE_TOKENIZER_FIRST;
            out.value = out.count == 0 || value == out.value ? value : -1;
            out.count++;
        }
        out.cached = event.cached_tokens;
        out.finish = event.finish;
    }
    if (lore_stream_error(stream) != NULL) {
        out.error = *lore_stream_error(stream);
    }
    lore_stream_release(stream);
    return out;
}

static void check_answer(lore_stream *stream, int32_t value, int32_t cached)
{
    const answer out = listen_to(stream);
    CHECK_INT(out.finish, LORE_FINISH_LENGTH);
    CHECK_INT(out.count, ANSWER);
    CHECK_INT(out.value, value);
    CHECK_INT(out.cached, cached);
}

static void each_way(void (*run)(void))
{
    for (steps_in_flight = 1; steps_in_flight <= 2; steps_in_flight++) {
        run();
    }
}

/* ---- whose keys and values ---- */

static void run_mixed(void)
{
    fake f;
    lore_error err;
    fake_open(&f, 1000, 1000);
    load_good(&f, "a", "100:1");
    load_good(&f, "b", "100:2");
    check_answer(submit(&f, ""), BASE_VALUE, 0);
    check_answer(submit(&f, "a"), 1, 0); /* not what the base has computed of the same prompt */
    check_answer(submit(&f, "b"), 2, 0);
    check_answer(submit(&f, ""), BASE_VALUE, 8);
    check_answer(submit(&f, "a"), 1, 8);
    lore_stream *streams[] = {submit(&f, "a"), submit(&f, ""), submit(&f, "b"), submit(&f, "a")};
    check_answer(streams[0], 1, 8);
    check_answer(streams[1], BASE_VALUE, 8);
    check_answer(streams[2], 2, 8);
    check_answer(streams[3], 1, 8);
    CHECK_OK(load(&f, "a", "100:3", true, &err), &err);
    check_answer(submit(&f, "a"), 3, 0); /* another reading, other keys and values */
    fake_close(&f);
}

TEST(each_request_has_its_adapter)
{
    each_way(run_mixed);
}

TEST(names_mean_the_base_or_an_adapter)
{
    fake f;
    lore_error err;
    lore_str adapter = LORE_STR("before");
    lore_stream *stream = NULL;
    fake_open(&f, 1000, 1000);
    load_good(&f, "a", "100:1");
    CHECK_OK(lore_engine_choose(f.engine, LORE_STR(""), true, &adapter, &err), &err);
    CHECK_INT(adapter.len, 0);
    CHECK_OK(lore_engine_choose(f.engine, LORE_STR("a"), true, &adapter, &err), &err);
    CHECK_STR(adapter, "a");
    CHECK_OK(lore_engine_choose(f.engine, LORE_STR("the-decoder"), true, &adapter, &err), &err);
    CHECK_INT(adapter.len, 0);
    CHECK_FAILS(load(&f, "the-decoder", "100:2", false, &err), LORE_ERR_INVALID, &err,
                "the decoder's own name"); /* the base would answer under it */
    CHECK_FAILS(lore_engine_choose(f.engine, LORE_STR("c"), true, &adapter, &err),
                LORE_ERR_NOT_FOUND, &err, "there is no adapter 'c'; of 1 that there are: a");
    CHECK_FAILS(try_submit(&f, "c", 4, &stream, &err), LORE_ERR_NOT_FOUND, &err, "'c'");
    fake_close(&f);
}

/* What is prepared is prepared once, and again where an adapter gives steps other shapes. */
TEST(prepares_anew_for_new_shapes_alone)
{
    fake f;
    fake_open(&f, 1000, 1000);
    load_good(&f, "a", "100:1");
    for (int32_t shapes = 0; shapes < 3; shapes++) {
        const int64_t deadline_ns = soon();
        f.info.step_shapes = shapes; /* the engine sleeps */
        for (int i = 0; i < 3; i++) {
            CHECK_INT(listen_to(submit(&f, "a")).value, 1);
            while (atomic_load(&f.prepared) <= shapes) {
                CHECK(lore_clock_ns() < deadline_ns);
                lore_clock_sleep_ms(1);
            }
            lore_clock_sleep_ms(12); /* more than it takes to begin */
            CHECK_INT(atomic_load(&f.prepared), shapes + 1);
        }
    }
    fake_close(&f);
}

/* Pages get what adapters do not need: room that nobody has asked for is not kept from them. */
TEST(room_of_a_gpu_is_kept_where_adapters_are_named)
{
    const int64_t gib = (int64_t)1 << 30;
    int64_t kept = 0;
    lore_config config;
    lore_config_default(&config);
    CHECK_INT(lore_engine_adapter_room(&config, 64 * gib, &kept), 4 * gib);
    CHECK_INT(kept, 0);
    config.limits.vram_bytes_max = 32 * gib; /* all that the decoder may have, adapters too */
    CHECK_INT(lore_engine_adapter_room(&config, 64 * gib, &kept), 2 * gib);
    CHECK_INT(kept, 2 * gib);
    lore_config_default(&config);
    snprintf(config.adapters, sizeof config.adapters, "a=folder");
    CHECK_INT(lore_engine_adapter_room(&config, 256 * gib, &kept), 8 * gib);
    CHECK_INT(kept, 8 * gib);
    lore_config_default(&config);
    config.limits.adapter_bytes_max = gib;
    CHECK_INT(lore_engine_adapter_room(&config, 64 * gib, &kept), gib);
    CHECK_INT(kept, gib);
}

/* ---- waiting ---- */

/* a is on the disk again, and b in memory. */
static void fill_with_b(fake *f)
{
    load_good(f, "a", "100:1");
    check_answer(submit(f, "a"), 1, 0);
    load_good(f, "b", "100:2");
    check_answer(submit(f, "b"), 2, 0);
    CHECK_INT(atomic_load(&f->s.opens), 2);
}

static void wait_for_open(fake *f, int opens)
{
    const int64_t deadline_ns = soon();
    while (atomic_load(&f->s.opens) < opens) {
        CHECK(lore_clock_ns() < deadline_ns);
        lore_clock_sleep_ms(1);
    }
}

static void wait_for_waiting(fake *f, int32_t count)
{
    const int64_t deadline_ns = soon();
    lore_sched_stats stats;
    do {
        lore_engine_get_stats(f->engine, &stats);
        CHECK(lore_clock_ns() < deadline_ns);
    } while (stats.waiting != count || stats.running != 0);
}

static void run_waiting(void)
{
    fake f;
    lore_error err;
    lore_stream *refused = NULL;
    fake_open(&f, 100, 1);
    fill_with_b(&f);
    source_hold(&f.s, true);
    lore_stream *first = submit(&f, "a"), *second = submit(&f, "a"), *left = submit(&f, "a");
    wait_for_open(&f, 3); /* it begins with the submit */
    check_answer(submit(&f, ""), BASE_VALUE, 0);
    check_answer(submit(&f, "b"), 2, 8);
    wait_for_waiting(&f, 3);
    lore_stream_cancel(left); /* as a deadline of its consumer does */
    CHECK_INT(listen_to(left).finish, LORE_FINISH_CANCELLED);
    lore_stream *more[2 * PLACES];
    int32_t count = 0;
    for (; count < PLACES - 2; count++) { /* with first and second, as many as there are places */
        more[count] = submit(&f, "a");
    }
    wait_for_waiting(&f, PLACES);
    for (int i = 0; i < 10; i++) { /* which they leave to others */
        CHECK_OK(try_submit(&f, "b", 1, &refused, &err), &err);
        CHECK_INT(listen_to(refused).value, 2);
    }
    for (int32_t i = 0; i < PLACES; i++) { /* but no more than so many do */
        more[count++] = submit(&f, "a");
    }
    CHECK_FAILS(try_submit(&f, "a", ANSWER, &refused, &err), LORE_ERR_BUSY, &err,
                "waiting at most");
    CHECK_FAILS(try_submit(&f, "b", 1, &refused, &err), LORE_ERR_BUSY, &err, "waiting at most");
    lore_stream_cancel(more[--count]);
    CHECK_INT(listen_to(more[count]).finish, LORE_FINISH_CANCELLED);
    CHECK_OK(try_submit(&f, "b", 1, &refused, &err), &err);
    CHECK_INT(listen_to(refused).value, 2);
    source_hold(&f.s, false);
    CHECK_INT(listen_to(first).value, 1);
    CHECK_INT(listen_to(second).value, 1);
    for (int32_t i = 0; i < count; i++) {
        CHECK_INT(listen_to(more[i]).value, 1);
    }
    check_answer(submit(&f, "b"), 2, 0); /* read anew: who knows what is in the folder now */
    fake_close(&f);
}

TEST(a_load_keeps_nobody_else_waiting)
{
    each_way(run_waiting);
}

typedef struct stopping {
    fake *f;
    int64_t deadline_ns;
} stopping;

static void *run_stop(void *self)
{
    stopping *s = self;
    lore_engine_stop(s->f->engine, s->deadline_ns);
    return NULL;
}

/* The engine ends with requests whose load is under way: it lets them finish, or ends them at the
 * deadline. */
static void stop_while_loading(bool is_late)
{
    fake f;
    lore_error err;
    lore_thread thread = {0};
    fake_open(&f, 100, 1);
    fill_with_b(&f);
    source_hold(&f.s, true);
    lore_stream *stream = submit(&f, "a");
    wait_for_open(&f, 3);
    stopping s = {&f, lore_clock_ns() + (is_late ? SECOND_NS / 20 : 20 * SECOND_NS)};
    CHECK_OK(lore_thread_start(&thread, "stop", run_stop, &s, &err), &err);
    if (is_late) {
        CHECK_INT(listen_to(stream).finish, LORE_FINISH_CANCELLED);
        source_hold(&f.s, false);
    } else {
        lore_clock_sleep_ms(50);
        source_hold(&f.s, false);
        check_answer(stream, 1, 0);
    }
    lore_thread_join(&thread);
    lore_tokenizer_close(f.tokenizer);
    source_destroy(&f.s);
}

TEST(it_stops_while_adapters_load)
{
    for (steps_in_flight = 1; steps_in_flight <= 2; steps_in_flight++) {
        stop_while_loading(false);
        stop_while_loading(true);
    }
}

/* ---- failures ---- */

/* A folder with a configuration, so that it can be registered before it is read. */
static void make_folder(char folder[128], const char *name)
{
    char path[192];
    lore_error err;
    snprintf(folder, 128, "%s/%s", check_temp, name);
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    CHECK_OK(lore_dir_make(folder, &err), &err);
    CHECK_OK(lore_file_replace(path, LORE_STR("{}"), &err), &err);
}

static void run_failing(void)
{
    fake f;
    lore_error err;
    lore_stream *stream = NULL;
    fake_open(&f, 100, 1);
    f.s.is_mended = true;
    load_good(&f, "a", "broken"); /* it is not, yet */
    check_answer(submit(&f, "a"), 0, 0);
    load_good(&f, "b", "100:2");
    check_answer(submit(&f, "b"), 2, 0);
    load_good(&f, "c", "100:3"); /* b leaves; a has no bytes, but c takes them all */
    check_answer(submit(&f, "c"), 3, 0);
    CHECK_OK(lore_adapters_remove(f.adapters, LORE_STR("a"), PATIENT, &err), &err);
    load_good(&f, "a", "1:9");
    check_answer(submit(&f, "a"), 9, 0);
    load_good(&f, "d", "also broken");
    check_answer(submit(&f, "d"), 0, 0);
    check_answer(submit(&f, "c"), 3, 0); /* evicts a, least recently used */

    source_hold(&f.s, true);
    f.s.is_mended = false;
    lore_stream *waiting = submit(&f, "b");
    atomic_store(&f.failures, 1);
    CHECK_INT(listen_to(submit(&f, "")).finish, LORE_FINISH_ERROR); /* a step fails */
    check_answer(submit(&f, "c"), 3, 0); /* the cache forgot all, c is still there */
    source_hold(&f.s, false);
    check_answer(waiting, 2, 0); /* whoever waits is not of the step */
    CHECK_FAILS(load(&f, "c", "broken", true, &err), LORE_ERR_CORRUPT, &err, "adapter 'c'");
    check_answer(submit(&f, "c"), 3, 0);
    CHECK_FAILS(try_submit(&f, "x", 1, &stream, &err), LORE_ERR_NOT_FOUND, &err, "'x'");
    fake_close(&f);
}

TEST(failures_are_only_whose_they_are)
{
    each_way(run_failing);
}

/* The folder is damaged after it was loaded once: who waits for the next reading hears why. */
static void run_damaged(void)
{
    fake f;
    lore_error err;
    lore_stream *stream = NULL;
    fake_open(&f, 100, 1);
    f.s.is_mended = true;
    load_good(&f, "a", "no number"); /* 0 bytes, so it is replaced by one that has some */
    CHECK_OK(lore_adapters_remove(f.adapters, LORE_STR("a"), PATIENT, &err), &err);
    const lore_adapter_spec spec = {.name = LORE_STR("a"), .folder = LORE_STR(LORE_SOURCE_DIR)};
    CHECK_FAILS(lore_adapters_add(f.adapters, &spec, &err), LORE_ERR_NOT_FOUND, &err, "no adapter");
    char folder[128];
    make_folder(folder, "damaged");
    const lore_adapter_spec damaged = {.name = LORE_STR("a"), .folder = lore_str_from(folder)};
    CHECK_OK(lore_adapters_add(f.adapters, &damaged, &err), &err);
    source_hold(&f.s, true);
    f.s.is_mended = false;
    lore_stream *waiting[] = {submit(&f, "a"), submit(&f, "a")};
    check_answer(submit(&f, ""), BASE_VALUE, 0);
    source_hold(&f.s, false);
    for (int i = 0; i < 2; i++) {
        const answer out = listen_to(waiting[i]);
        CHECK_INT(out.finish, LORE_FINISH_ERROR);
        CHECK_INT(out.count, 0);
        CHECK_FAILS(out.error.status, LORE_ERR_CORRUPT, &out.error, "adapter 'a': the tensor");
    }
    CHECK_FAILS(try_submit(&f, "a", 1, &stream, &err), LORE_ERR_CORRUPT, &err, "adapter 'a'");
    check_answer(submit(&f, ""), BASE_VALUE, 8);
    fake_close(&f);
}

TEST(who_waited_for_a_failed_load_hears_why)
{
    each_way(run_damaged);
}

TEST(a_submit_without_memory_holds_nothing)
{
    fake f;
    lore_error err;
    lore_stream *stream = NULL;
    fake_open(&f, 100, 1000);
    load_good(&f, "a", "100:1");
    check_answer(submit(&f, "a"), 1, 0);
    lore_status status = LORE_ERR_NOMEM;
    for (int n = 1; status == LORE_ERR_NOMEM; n++) {
        lore_mem_fail_at(n, false);
        status = try_submit(&f, "a", 4, &stream, &err);
        lore_mem_fail_at(0, false);
    }
    CHECK_INT(status, LORE_OK);
    CHECK_INT(listen_to(stream).value, 1);
    CHECK_OK(lore_adapters_remove(f.adapters, LORE_STR("a"), PATIENT, &err), &err); /* no user */
    fake_close(&f);
}

/* ---- under traffic ---- */

typedef struct churn {
    fake *f;
    atomic_bool must_stop;
    atomic_int begun[NAMES], done[NAMES]; /* versions whose load has begun, is over */
    atomic_int answers, cancelled, absent;
    lore_lock lock; /* guards the message: the first thing that went wrong */
    char message[256];
} churn;

LORE_PRINTF(2, 3) static void complain(churn *c, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    lore_lock_acquire(&c->lock);
    if (c->message[0] == '\0') {
        vsnprintf(c->message, sizeof c->message, format, arguments);
    }
    lore_lock_release(&c->lock);
    va_end(arguments);
    atomic_store(&c->must_stop, true);
}

static uint32_t draw(uint64_t *random, uint32_t below)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*random >> 33) % below;
}

/* One request, of an adapter or of the base. */
static void ask_once(churn *c, uint64_t *random)
{
    const uint32_t who = draw(random, NAMES + 1);
    const bool leaves = draw(random, 8) == 0;
    char name[8] = "";
    lore_error err;
    lore_stream *stream = NULL;
    if (who < NAMES) {
        snprintf(name, sizeof name, "n%u", who);
    }
    const int32_t least = who < NAMES ? atomic_load(&c->done[who]) : 0;
    lore_status status = try_submit(c->f, name, ANSWER, &stream, &err);
    if (status == LORE_ERR_NOT_FOUND && who < NAMES) {
        atomic_fetch_add(&c->absent, 1);
        return;
    }
    if (status != LORE_OK) {
        complain(c, "'%s' is refused: %s", name, err.message);
        return;
    }
    if (leaves) {
        lore_stream_cancel(stream);
    }
    const answer out = listen_to(stream);
    const int32_t most = who < NAMES ? atomic_load(&c->begun[who]) : 0;
    if (leaves && out.finish == LORE_FINISH_CANCELLED) {
        atomic_fetch_add(&c->cancelled, 1);
    } else if (out.finish != LORE_FINISH_LENGTH || out.count != ANSWER) {
        complain(c, "'%s' ends with %s after %d tokens: %s", name, lore_finish_name(out.finish),
                 out.count, out.error.message);
    }
    if (out.count == 0) {
        return;
    }
    const int32_t version = out.value % VERSIONS;
    const bool is_of_name = who < NAMES && out.value / VERSIONS == (int32_t)who;
    const int32_t age = (version - least % VERSIONS + VERSIONS) % VERSIONS;
    if (who == NAMES ? out.value != BASE_VALUE : !is_of_name || age > most - least) {
        complain(c, "'%s' gets %d, versions %d to %d were there", name, out.value, least, most);
    }
    atomic_fetch_add(&c->answers, 1);
}

typedef struct client {
    churn *c;
    uint64_t random;
    lore_thread thread;
} client;

static void *run_client(void *self)
{
    client *me = self;
    while (!atomic_load(&me->c->must_stop)) {
        ask_once(me->c, &me->random);
    }
    return NULL;
}

static void load_next(churn *c, uint32_t who, bool is_replacing, uint64_t *random)
{
    char name[8], folder[32];
    lore_error err;
    const int32_t version = atomic_fetch_add(&c->begun[who], 1) + 1;
    snprintf(name, sizeof name, "n%u", who);
    snprintf(folder, sizeof folder, "%u:%d", 50 + draw(random, 70),
             (int)who * VERSIONS + version % VERSIONS);
    if (load(c->f, name, folder, is_replacing, &err) != LORE_OK) {
        complain(c, "cannot load: %s", err.message);
    }
    atomic_store(&c->done[who], version);
}

/* Replace, unload and load again, or try to load what is refused. */
static void change_once(churn *c, uint64_t *random)
{
    const uint32_t who = draw(random, NAMES), what = draw(random, 4);
    char name[8];
    lore_error err;
    snprintf(name, sizeof name, "n%u", who);
    if (what == 0 && load(c->f, name, "broken", true, &err) != LORE_ERR_CORRUPT) {
        complain(c, "a broken folder was loaded");
    } else if (what == 1) {
        if (lore_adapters_remove(c->f->adapters, lore_str_from(name), PATIENT, &err) != LORE_OK) {
            complain(c, "cannot unload: %s", err.message);
        }
        load_next(c, who, false, random);
    } else if (what > 1) {
        load_next(c, who, true, random);
    }
}

static void run_churn(void)
{
    const char *asked = getenv("LORE_CHURN");
    int64_t changes = 200;
    CHECK(asked == NULL || lore_str_to_int64(lore_str_from(asked), &changes));
    fake f;
    lore_error err;
    churn c = {.f = &f};
    client clients[CLIENTS];
    uint64_t random = 12345;
    fake_open(&f, 250, 150);
    f.step_us = 50;
    lore_lock_init(&c.lock);
    for (uint32_t i = 0; i < NAMES; i++) {
        load_next(&c, i, false, &random);
    }
    const int64_t live = lore_mem_live();
    for (uint64_t i = 0; i < CLIENTS; i++) {
        clients[i] = (client){.c = &c, .random = i + 1};
        CHECK_OK(lore_thread_start(&clients[i].thread, "client", run_client, &clients[i], &err),
                 &err);
    }
    for (int64_t i = 0; i < changes && !atomic_load(&c.must_stop); i++) {
        const int32_t before = atomic_load(&c.answers);
        const int64_t deadline_ns = soon();
        change_once(&c, &random);
        while (atomic_load(&c.answers) == before && !atomic_load(&c.must_stop) &&
               lore_clock_ns() < deadline_ns) {
            nanosleep(&(struct timespec){0, 20000}, NULL); /* traffic in between */
        }
    }
    atomic_store(&c.must_stop, true);
    for (int i = 0; i < CLIENTS; i++) {
        lore_thread_join(&clients[i].thread);
    }
    if (c.message[0] != '\0') {
        CHECK_STOP("%s", c.message);
    }
    printf("  %d changes, %d answers, %d cancelled, %d while unloaded\n", (int)changes,
           atomic_load(&c.answers), atomic_load(&c.cancelled), atomic_load(&c.absent));
    CHECK(atomic_load(&c.answers) >= changes);
    for (uint32_t i = 0; i < NAMES; i++) {
        char name[8];
        snprintf(name, sizeof name, "n%u", i);
        CHECK_OK(lore_adapters_remove(f.adapters, lore_str_from(name), PATIENT, &err), &err);
    }
    CHECK(lore_mem_live() <= live); /* less what the names had */
    CHECK_INT(atomic_load(&f.s.open_now), 0);
    CHECK_INT(atomic_load(&f.s.placed_now), 0);
    lore_lock_destroy(&c.lock);
    fake_close(&f);
}

TEST(no_answer_is_mixed_or_lost_under_traffic)
{
    each_way(run_churn);
}

CHECK_MAIN(each_request_has_its_adapter, names_mean_the_base_or_an_adapter,
           prepares_anew_for_new_shapes_alone, room_of_a_gpu_is_kept_where_adapters_are_named,
           a_load_keeps_nobody_else_waiting, it_stops_while_adapters_load,
           failures_are_only_whose_they_are, who_waited_for_a_failed_load_hears_why,
           a_submit_without_memory_holds_nothing, no_answer_is_mixed_or_lost_under_traffic)
