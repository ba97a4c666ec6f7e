/* Proves order, bounds, deadlines and closing of the channel, and with several senders and
 * receivers that every item arrives exactly once. */
#include "tests/check.h"

#include "base/clock.h"
#include "base/thread.h"

#include <stdatomic.h>

static void *item_of(intptr_t number)
{
    return (void *)number;
}

TEST(keeps_order_and_bound)
{
    lore_chan *chan = lore_chan_new(3);
    CHECK(chan != NULL);
    void *item = NULL;
    intptr_t sent = 0;
    intptr_t received = 0;
    for (int round = 0; round < 10; round++) {
        while (lore_chan_try_send(chan, item_of(sent + 1)) == LORE_OK) {
            sent++;
        }
        CHECK_INT(lore_chan_count(chan), 3);
        CHECK_INT(lore_chan_try_send(chan, item_of(99)), LORE_ERR_BUSY);
        for (int i = 0; i < 2; i++) {
            CHECK_INT(lore_chan_try_recv(chan, &item), LORE_OK);
            CHECK_INT((intptr_t)item, ++received);
        }
    }
    CHECK_INT(lore_chan_recv(chan, &item, 0), LORE_OK);
    CHECK_INT((intptr_t)item, ++received);
    CHECK_INT(sent, received);
    CHECK_INT(lore_chan_try_recv(chan, &item), LORE_ERR_BUSY);
    lore_chan_free(chan);
    lore_chan_free(NULL);
}

TEST(gives_up_at_the_deadline)
{
    lore_chan *chan = lore_chan_new(1);
    void *item = NULL;
    int64_t deadline_ns = lore_clock_ns() + 2000000;
    CHECK_INT(lore_chan_recv(chan, &item, deadline_ns), LORE_ERR_TIMEOUT);
    CHECK(lore_clock_ns() >= deadline_ns);
    CHECK_INT(lore_chan_send(chan, item_of(1), 1),
              LORE_OK); /* room: the deadline does not matter */
    CHECK_INT(lore_chan_send(chan, item_of(2), 1), LORE_ERR_TIMEOUT);
    CHECK_INT(lore_chan_recv(chan, &item, 1), LORE_OK);
    lore_chan_free(chan);
}

TEST(hands_out_what_was_sent_before_close)
{
    lore_chan *chan = lore_chan_new(2);
    void *item = NULL;
    CHECK_INT(lore_chan_send(chan, item_of(7), 0), LORE_OK);
    lore_chan_close(chan);
    lore_chan_close(chan);
    CHECK_INT(lore_chan_send(chan, item_of(8), 0), LORE_ERR_CANCELLED);
    CHECK_INT(lore_chan_try_send(chan, item_of(8)), LORE_ERR_CANCELLED);
    CHECK_INT(lore_chan_recv(chan, &item, 0), LORE_OK);
    CHECK_INT((intptr_t)item, 7);
    CHECK_INT(lore_chan_recv(chan, &item, 0), LORE_ERR_CANCELLED);
    CHECK_INT(lore_chan_try_recv(chan, &item), LORE_ERR_CANCELLED);
    lore_chan_free(chan);
}

typedef struct blocked {
    lore_chan *chan;
    lore_status status;
} blocked;

static void *block_in_recv(void *self)
{
    blocked *b = self;
    void *item = NULL;
    b->status = lore_chan_recv(b->chan, &item, 0);
    return NULL;
}

static void *block_in_send(void *self)
{
    blocked *b = self;
    b->status = lore_chan_send(b->chan, item_of(2), 0);
    return NULL;
}

TEST(close_wakes_the_blocked)
{
    for (int side = 0; side < 2; side++) {
        blocked b = {lore_chan_new(1), LORE_OK};
        lore_thread thread;
        lore_error err;
        if (side == 1) {
            CHECK_INT(lore_chan_send(b.chan, item_of(1), 0), LORE_OK);
        }
        CHECK_OK(lore_thread_start(&thread, "blocked", side == 0 ? block_in_recv : block_in_send,
                                   &b, &err),
                 &err);
        lore_clock_sleep_ms(20); /* until it waits */
        lore_chan_close(b.chan);
        lore_thread_join(&thread);
        CHECK_INT(b.status, LORE_ERR_CANCELLED);
        lore_chan_free(b.chan);
    }
}

enum { SENDERS = 3, RECEIVERS = 3, PER_SENDER = 5000 };

typedef struct crowd {
    lore_chan *chan;
    _Atomic int next_sender;
    _Atomic int seen[SENDERS * PER_SENDER];
    _Atomic int failures;
} crowd;

static void *send_many(void *self)
{
    crowd *c = self;
    int sender = atomic_fetch_add(&c->next_sender, 1);
    for (int i = 0; i < PER_SENDER; i++) {
        if (lore_chan_send(c->chan, item_of(sender * PER_SENDER + i + 1), 0) != LORE_OK) {
            atomic_fetch_add(&c->failures, 1);
        }
    }
    return NULL;
}

static void *receive_many(void *self)
{
    crowd *c = self;
    void *item = NULL;
    while (lore_chan_recv(c->chan, &item, 0) == LORE_OK) {
        atomic_fetch_add(&c->seen[(intptr_t)item - 1], 1);
    }
    return NULL;
}

TEST(loses_and_doubles_nothing)
{
    static crowd c;
    c.chan = lore_chan_new(4);
    lore_thread senders[SENDERS];
    lore_thread receivers[RECEIVERS];
    lore_error err;
    for (int i = 0; i < SENDERS; i++) {
        CHECK_OK(lore_thread_start(&senders[i], "sender", send_many, &c, &err), &err);
    }
    for (int i = 0; i < RECEIVERS; i++) {
        CHECK_OK(lore_thread_start(&receivers[i], "receiver", receive_many, &c, &err), &err);
    }
    for (int i = 0; i < SENDERS; i++) {
        lore_thread_join(&senders[i]);
    }
    lore_chan_close(c.chan); /* wakes the receivers that wait for more */
    for (int i = 0; i < RECEIVERS; i++) {
        lore_thread_join(&receivers[i]);
    }
    CHECK_INT(c.failures, 0);
    for (int i = 0; i < SENDERS * PER_SENDER; i++) {
        CHECK_INT(c.seen[i], 1);
    }
    lore_chan_free(c.chan);
}

TEST(refuses_what_memory_cannot_hold)
{
    CHECK(lore_chan_new(SIZE_MAX / 4) == NULL);
    lore_mem_fail_at(1, false);
    CHECK(lore_chan_new(1) == NULL);
}

CHECK_MAIN(keeps_order_and_bound, gives_up_at_the_deadline, hands_out_what_was_sent_before_close,
           close_wakes_the_blocked, loses_and_doubles_nothing, refuses_what_memory_cannot_hold)
