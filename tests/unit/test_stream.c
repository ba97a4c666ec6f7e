/* Proves that a stream gives its events once, in order and whatever the speed of either side, keeps
 * deadlines, ends after the last event, passes the cancel flag, and is freed by the last holder. */
#include "tests/check.h"

#include "base/clock.h"
#include "base/thread.h"
#include "generation/stream.h"

#include <sched.h>

static lore_token_event token_of(int32_t id)
{
    return (lore_token_event){.id = id, .logprob = -(float)id};
}

TEST(gives_events_in_order_and_then_ends)
{
    lore_stream *stream = lore_stream_new(3, 0);
    CHECK(stream != NULL);
    for (int32_t i = 0; i < 3; i++) {
        lore_stream_push(stream, token_of(10 + i));
    }
    lore_stream_push(stream, (lore_token_event){.id = -1, .finish = LORE_FINISH_LENGTH});
    lore_token_event event;
    for (int32_t i = 0; i < 3; i++) {
        CHECK_INT(lore_stream_next(stream, 1, &event), LORE_OK); /* there: no waiting */
        CHECK_INT(event.id, 10 + i);
        CHECK_NEAR(event.logprob, -(10 + i), 0);
        CHECK_INT(event.finish, LORE_FINISH_NONE);
    }
    CHECK_INT(lore_stream_next(stream, 1, &event), LORE_OK);
    CHECK_INT(event.id, -1);
    CHECK_INT(event.finish, LORE_FINISH_LENGTH);
    CHECK_INT(lore_stream_next(stream, 0, &event), LORE_ERR_CANCELLED);
    CHECK_INT(lore_stream_next(stream, 0, &event), LORE_ERR_CANCELLED);
    lore_stream_release(stream);
    lore_stream_release(stream);
    lore_stream_release(NULL);
}

/* As many beside each token as were asked for, and none beside an end without one. */
TEST(holds_the_most_probable_tokens)
{
    lore_stream *stream = lore_stream_new(3, 2);
    CHECK(stream != NULL);
    for (int32_t i = 0; i < 3; i++) {
        lore_likely *tops = lore_stream_tops(stream) + 2 * (size_t)i;
        tops[0] = (lore_likely){10 * i, -0.5f};
        tops[1] = (lore_likely){10 * i + 1, -1.5f};
        lore_stream_push(stream, token_of(10 * i));
    }
    lore_stream_push(stream, (lore_token_event){.id = -1, .finish = LORE_FINISH_LENGTH});
    lore_token_event events[4];
    for (int32_t i = 0; i < 4; i++) {
        CHECK_INT(lore_stream_next(stream, 1, &events[i]), LORE_OK);
    }
    for (int32_t i = 0; i < 3; i++) { /* all of them stay as long as the stream does */
        CHECK_INT(events[i].tops[0].id, 10 * i);
        CHECK_INT(events[i].tops[1].id, 10 * i + 1);
        CHECK_NEAR(events[i].tops[1].logprob, -1.5, 0);
    }
    CHECK(events[3].tops == NULL);
    lore_stream_release(stream);
    lore_stream_release(stream);
}

TEST(ends_with_a_token_that_says_so)
{
    lore_stream *stream = lore_stream_new(1, 0);
    lore_stream_push(stream,
                     (lore_token_event){.id = 5, .finish = LORE_FINISH_STOP, .cut_bytes = 2});
    lore_token_event event;
    CHECK_INT(lore_stream_next(stream, 0, &event), LORE_OK);
    CHECK_INT(event.id, 5);
    CHECK(event.tops == NULL);
    CHECK_INT(event.cut_bytes, 2);
    CHECK_INT(lore_stream_next(stream, 0, &event), LORE_ERR_CANCELLED);
    lore_stream_release(stream);
    lore_stream_release(stream);
}

TEST(waits_until_the_deadline)
{
    lore_stream *stream = lore_stream_new(1, 0);
    lore_token_event event;
    int64_t deadline_ns = lore_clock_ns() + 3000000;
    CHECK_INT(lore_stream_next(stream, deadline_ns, &event), LORE_ERR_TIMEOUT);
    CHECK(lore_clock_ns() >= deadline_ns);
    CHECK_INT(lore_stream_next(stream, 1, &event), LORE_ERR_TIMEOUT); /* long past */
    lore_stream_push(stream, token_of(1));
    CHECK_INT(lore_stream_next(stream, 1, &event), LORE_OK);
    lore_stream_release(stream);
    lore_stream_release(stream);
}

TEST(tells_the_engine_that_nobody_listens)
{
    lore_stream *stream = lore_stream_new(0, 0);
    CHECK(!lore_stream_is_cancelled(stream));
    lore_stream_cancel(stream);
    lore_stream_cancel(stream);
    CHECK(lore_stream_is_cancelled(stream));
    lore_stream_push(stream, (lore_token_event){.id = -1, .finish = LORE_FINISH_CANCELLED});
    lore_stream_release(stream);
    lore_stream_release(stream);

    stream = lore_stream_new(0, 0);
    lore_stream_release(stream); /* the consumer left without a word */
    CHECK(lore_stream_is_cancelled(stream));
    lore_stream_push(stream, (lore_token_event){.id = -1, .finish = LORE_FINISH_CANCELLED});
    lore_stream_release(stream);
}

TEST(names_every_finish)
{
    CHECK_STR(lore_str_from(lore_finish_name(LORE_FINISH_NONE)), "none");
    CHECK_STR(lore_str_from(lore_finish_name(LORE_FINISH_STOP)), "stop");
    CHECK_STR(lore_str_from(lore_finish_name(LORE_FINISH_LENGTH)), "length");
    CHECK_STR(lore_str_from(lore_finish_name(LORE_FINISH_CANCELLED)), "cancelled");
    CHECK_STR(lore_str_from(lore_finish_name(LORE_FINISH_ERROR)), "error");
}

enum { RACE_TOKENS = 20000 };

typedef struct race {
    lore_stream *stream;
    uint64_t seed;
    bool is_slow;
} race;

/* Now and then let the other side catch up, so that both orders of the sleeping handshake occur. */
static void dawdle(race *side)
{
    if (side->is_slow && lore_random_next(&side->seed) % 64 == 0) {
        sched_yield();
    }
}

static void *produce(void *self)
{
    race *side = self;
    for (int32_t i = 0; i < RACE_TOKENS; i++) {
        lore_stream_push(side->stream, token_of(i));
        dawdle(side);
    }
    lore_stream_push(side->stream, (lore_token_event){.id = -1, .finish = LORE_FINISH_STOP});
    lore_stream_release(side->stream);
    return NULL;
}

static void run_race(bool is_producer_slow, bool is_consumer_slow)
{
    lore_error err;
    lore_stream *stream = lore_stream_new(RACE_TOKENS, 0);
    CHECK(stream != NULL);
    race producer = {.stream = stream, .seed = 1, .is_slow = is_producer_slow};
    race consumer = {.stream = stream, .seed = 2, .is_slow = is_consumer_slow};
    lore_thread thread;
    CHECK_OK(lore_thread_start(&thread, "produce", produce, &producer, &err), &err);
    lore_token_event event = {0};
    int32_t expected = 0;
    bool is_right = true;
    lore_status status = LORE_OK;
    /* A lost wake-up would let the deadline pass. */
    while ((status = lore_stream_next(stream, lore_clock_ns() + 20000000000, &event)) == LORE_OK) {
        is_right = is_right && (event.finish != LORE_FINISH_NONE || event.id == expected);
        expected += event.finish == LORE_FINISH_NONE;
        dawdle(&consumer);
    }
    lore_stream_release(stream);
    lore_thread_join(&thread);
    CHECK_INT(status, LORE_ERR_CANCELLED);
    CHECK(is_right);
    CHECK_INT(expected, RACE_TOKENS);
}

TEST(loses_nothing_between_two_threads)
{
    run_race(false, false);
    run_race(true, false);
    run_race(false, true);
    run_race(true, true);
}

TEST(reports_a_lack_of_memory)
{
    lore_mem_fail_at(1, false);
    lore_stream *stream = lore_stream_new(8, 0);
    lore_mem_fail_at(0, false);
    CHECK(stream == NULL);
}

CHECK_MAIN(gives_events_in_order_and_then_ends, holds_the_most_probable_tokens,
           ends_with_a_token_that_says_so, waits_until_the_deadline,
           tells_the_engine_that_nobody_listens, names_every_finish,
           loses_nothing_between_two_threads, reports_a_lack_of_memory)
