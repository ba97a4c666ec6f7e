/* Bytes arrive in order and whole, a full queue makes the producer wait, an end and a failure are
 * told apart, and close ends a producer in any state. */
#include "api/sink.h"

#include "base/clock.h"
#include "tests/check.h"

static int64_t soon(int64_t ms)
{
    return lore_clock_ns() + ms * 1000000;
}

enum { PIECES = 500 };

static lore_status count_up(void *self, lore_sink *sink, lore_error *err)
{
    (void)self;
    for (int i = 0; i < PIECES; i++) {
        char piece[16];
        int size = snprintf(piece, sizeof piece, "%d,", i);
        if (!lore_sink_write(sink, (lore_str){piece, (size_t)size})) {
            return lore_fail(err, LORE_ERR_CANCELLED, "cancelled at %d", i);
        }
    }
    return LORE_OK;
}

TEST(bytes_arrive_in_order)
{
    lore_error err;
    lore_sink *sink = NULL;
    lore_buf seen, wanted;
    lore_buf_init(&seen, 0);
    lore_buf_init(&wanted, 0);
    CHECK_OK(lore_sink_open(count_up, NULL, 64, &sink, &err), &err);
    for (;;) {
        char room[7];
        size_t size = 0;
        lore_status status = lore_sink_read(sink, room, sizeof room, soon(10000), &size);
        if (status == LORE_ERR_CANCELLED) {
            break;
        }
        CHECK_INT(status, LORE_OK);
        CHECK(size > 0 && size <= sizeof room);
        lore_buf_append(&seen, (lore_str){room, size});
    }
    for (int i = 0; i < PIECES; i++) {
        lore_buf_printf(&wanted, "%d,", i);
    }
    CHECK(lore_str_equal(lore_buf_str(&seen), lore_buf_str(&wanted)));
    CHECK_INT(lore_sink_result(sink, &err), LORE_OK);
    lore_sink_close(sink);
    lore_buf_destroy(&seen);
    lore_buf_destroy(&wanted);
}

TEST(close_frees_a_producer_that_waits_for_room)
{
    lore_error err;
    lore_sink *sink = NULL;
    CHECK_OK(lore_sink_open(count_up, NULL, 8, &sink, &err), &err);
    CHECK_INT(lore_sink_wait(sink, soon(10000)), LORE_OK);
    lore_sink_cancel(sink);
    char room[4096];
    size_t size = 0;
    lore_status status = LORE_OK;
    while (status == LORE_OK) {
        status = lore_sink_read(sink, room, sizeof room, soon(10000), &size);
    }
    CHECK_INT(status, LORE_ERR_CANCELLED);
    CHECK_INT(lore_sink_result(sink, &err), LORE_ERR_CANCELLED);
    lore_sink_close(sink);
    CHECK_OK(lore_sink_open(count_up, NULL, 8, &sink, &err), &err);
    lore_sink_close(sink); /* at once, whatever the producer does */
    lore_sink_close(NULL);
}

static lore_status fail_at_once(void *self, lore_sink *sink, lore_error *err)
{
    (void)self;
    (void)sink;
    return lore_fail(err, LORE_ERR_NOT_FOUND, "nothing here");
}

static lore_status wait_for_cancel(void *self, lore_sink *sink, lore_error *err)
{
    (void)self;
    (void)err;
    while (!lore_sink_is_cancelled(sink)) {
        lore_clock_sleep_ms(1);
    }
    return LORE_OK;
}

TEST(a_failure_before_the_first_byte_is_kept)
{
    lore_error err = {0};
    lore_sink *sink = NULL;
    CHECK_OK(lore_sink_open(fail_at_once, NULL, 8, &sink, &err), &err);
    CHECK_INT(lore_sink_wait(sink, soon(10000)), LORE_ERR_CANCELLED);
    CHECK_FAILS(lore_sink_result(sink, &err), LORE_ERR_NOT_FOUND, &err, "nothing here");
    lore_sink_close(sink);
}

TEST(a_silent_producer_times_out)
{
    lore_error err;
    lore_sink *sink = NULL;
    size_t size = 0;
    char room[8];
    CHECK_OK(lore_sink_open(wait_for_cancel, NULL, 8, &sink, &err), &err);
    CHECK_INT(lore_sink_read(sink, room, sizeof room, soon(20), &size), LORE_ERR_TIMEOUT);
    CHECK_INT(lore_sink_wait(sink, soon(20)), LORE_ERR_TIMEOUT);
    lore_sink_close(sink);
}

TEST(no_thread_no_sink)
{
    lore_error err;
    lore_sink *sink = NULL;
    lore_thread_fail_at(1);
    CHECK(lore_sink_open(count_up, NULL, 8, &sink, &err) != LORE_OK);
    lore_thread_fail_at(0);
    CHECK(sink == NULL);
    lore_mem_fail_at(1, false);
    CHECK_INT(lore_sink_open(count_up, NULL, 8, &sink, &err), LORE_ERR_NOMEM);
    lore_mem_fail_at(0, false);
}

CHECK_MAIN(bytes_arrive_in_order, close_frees_a_producer_that_waits_for_room,
           a_failure_before_the_first_byte_is_kept, a_silent_producer_times_out, no_thread_no_sink)
