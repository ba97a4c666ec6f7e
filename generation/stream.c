/* The token stream of one answer.
 *
 * Because the stream holds the whole answer, the ring never wraps: it is an array that the engine
 * fills from the front and the consumer reads behind it. `pushed` is the only word both sides look
 * at for data. The lock serves sleeping alone and guards no field: a consumer that finds events
 * never takes it, and who wakes takes it only while a consumer sleeps.
 *
 * Invariants
 * 1. taken <= pushed <= cap. Events below `pushed` never change, nor do the tops beside them.
 * 2. The engine writes events[pushed], then pushed; the consumer reads pushed, then events. Tops
 *    are written before the event that they belong to, the error before the last one.
 * 3. At most one event has a finish, and it is the last one pushed.
 * 4. `holders` counts 2, 1, 0, and LISTED for each list that holds the stream beside; whoever takes
 *    it to 0 frees.
 * 5. A stream that is_listed is in one list, or about to leave one for being woken. */
#include "generation/stream.h"

#include "base/mem.h"
#include "base/thread.h"

#include <stdatomic.h>

enum { LISTED = 1 << 8 }; /* a list's share of `holders` */

struct lore_stream {
    /* Stored with seq_cst by the engine, see put_event for why release is not enough. */
    atomic_int_least32_t pushed;
    /* Written by the consumer under the lock, read by the engine without it (Dekker's pattern). */
    atomic_bool is_waiting;
    /* Relaxed on both sides: the flag carries no data with it, and noticing it one step later is
     * what the contract allows. */
    atomic_bool is_cancelled;
    /* acq_rel on release: the last holder must see all that the other wrote before it frees. */
    atomic_int_least32_t holders;
    /* Set by the engine, which then owns `next` with the list, cleared by whoever wakes, who has
     * read `next` before. With seq_cst, see lore_stream_push_later. */
    atomic_bool is_listed;
    lore_stream *next;
    int32_t taken; /* the consumer's alone */
    int32_t cap;
    int32_t top_count; /* beside each token */
    lore_likely *tops; /* [cap - 1, top_count], behind the events */
    bool is_ended;     /* the engine's alone: the last event has been pushed */
    lore_error error;  /* written before the last event, read after it; LORE_OK: none */
    lore_lock lock;
    lore_token_event events[];
};

const char *lore_finish_name(lore_finish finish)
{
    switch (finish) {
    case LORE_FINISH_NONE:
        return "none";
    case LORE_FINISH_STOP:
        return "stop";
    case LORE_FINISH_LENGTH:
        return "length";
    case LORE_FINISH_CANCELLED:
        return "cancelled";
    case LORE_FINISH_ERROR:
        return "error";
    }
    return "none";
}

lore_stream *lore_stream_new(int32_t tokens_max, int32_t tops)
{
    LORE_ASSERT(tokens_max >= 0);
    LORE_ASSERT(tokens_max < INT32_MAX);
    LORE_ASSERT(tops >= 0);
    size_t size_bytes = 0, tops_bytes = 0;
    if (!lore_size_mul((size_t)tokens_max + 1, sizeof(lore_token_event), &size_bytes) ||
        !lore_size_add(size_bytes, sizeof(lore_stream), &size_bytes) ||
        !lore_size_mul((size_t)tokens_max, (size_t)tops * sizeof(lore_likely), &tops_bytes) ||
        !lore_size_add(size_bytes, tops_bytes, &size_bytes)) {
        return NULL;
    }
    lore_stream *stream = lore_alloc_zero(1, size_bytes);
    if (stream == NULL) {
        return NULL;
    }
    stream->cap = tokens_max + 1;
    stream->top_count = tops;
    stream->tops = (lore_likely *)(stream->events + stream->cap);
    atomic_init(&stream->pushed, 0);
    atomic_init(&stream->is_waiting, false);
    atomic_init(&stream->is_cancelled, false);
    atomic_init(&stream->holders, 2);
    atomic_init(&stream->is_listed, false);
    lore_lock_init(&stream->lock);
    return stream;
}

lore_likely *lore_stream_tops(lore_stream *stream)
{
    return stream->tops;
}

void lore_stream_set_error(lore_stream *stream, const lore_error *error)
{
    LORE_ASSERT(!stream->is_ended);
    stream->error = *error;
}

const lore_error *lore_stream_error(const lore_stream *stream)
{
    return stream->error.status != LORE_OK ? &stream->error : NULL;
}

/* The sleeping handshake. The consumer sets is_waiting, then looks at pushed once more; the engine
 * sets pushed, then looks at is_waiting. With sequentially consistent accesses at least one of the
 * two sees the other's store, so either the consumer finds the event or the engine wakes it.
 * Release and acquire alone would let both loads run ahead of both stores, and the wake-up would be
 * lost. True: the consumer may sleep, and must be woken. */
static bool put_event(lore_stream *stream, lore_token_event event)
{
    int32_t at = atomic_load_explicit(&stream->pushed, memory_order_relaxed); /* our own word */
    LORE_ASSERT(!stream->is_ended);
    LORE_ASSERT(at < stream->cap);
    LORE_ASSERT(event.id >= 0 || event.finish != LORE_FINISH_NONE);
    stream->is_ended = event.finish != LORE_FINISH_NONE;
    if (event.id >= 0 && stream->top_count > 0) {
        LORE_ASSERT(at < stream->cap - 1);
        event.tops = stream->tops + (size_t)at * (size_t)stream->top_count;
    }
    stream->events[at] = event;
    atomic_store_explicit(&stream->pushed, at + 1, memory_order_seq_cst);
    return atomic_load_explicit(&stream->is_waiting, memory_order_seq_cst);
}

/* The consumer holds the lock from setting is_waiting until it sleeps, so that once the lock was in
 * hand the wake-up cannot come too early. It is given back first, or the consumer would wake up
 * only to wait for it. */
static void wake_consumer(lore_stream *stream)
{
    lore_lock_acquire(&stream->lock);
    lore_lock_release(&stream->lock);
    lore_lock_wake_one(&stream->lock);
}

void lore_stream_push(lore_stream *stream, lore_token_event event)
{
    if (put_event(stream, event)) {
        wake_consumer(stream);
    }
}

/* A stream that is listed already is left alone: `pushed` was stored before is_listed is looked at,
 * and whoever wakes clears is_listed before it looks at is_waiting. It therefore stands for an
 * engine that has pushed this event too, and the handshake holds. */
void lore_stream_push_later(lore_stream *stream, lore_token_event event, lore_stream_list *list)
{
    if (!put_event(stream, event) ||
        atomic_exchange_explicit(&stream->is_listed, true, memory_order_seq_cst)) {
        return;
    }
    /* Relaxed: the engine has a reference, so the count cannot reach 0 meanwhile. */
    atomic_fetch_add_explicit(&stream->holders, LISTED, memory_order_relaxed);
    stream->next = NULL;
    lore_stream_list_join(list, &(lore_stream_list){stream, stream});
}

void lore_stream_list_join(lore_stream_list *list, lore_stream_list *from)
{
    if (list->first == NULL) {
        *list = *from;
    } else if (from->first != NULL) {
        list->last->next = from->first;
        list->last = from->last;
    }
    *from = (lore_stream_list){0};
}

bool lore_stream_is_cancelled(const lore_stream *stream)
{
    return atomic_load_explicit(&stream->is_cancelled, memory_order_relaxed) ||
           atomic_load_explicit(&stream->holders, memory_order_relaxed) % LISTED == 1;
}

/* Sleep until an event is there. False: the deadline passed first. */
static bool wait_for_event(lore_stream *stream, int64_t deadline_ns)
{
    bool is_in_time = true;
    lore_lock_acquire(&stream->lock);
    atomic_store_explicit(&stream->is_waiting, true, memory_order_seq_cst);
    while (is_in_time &&
           atomic_load_explicit(&stream->pushed, memory_order_seq_cst) == stream->taken) {
        is_in_time = lore_lock_wait(&stream->lock, deadline_ns);
    }
    atomic_store_explicit(&stream->is_waiting, false,
                          memory_order_relaxed); /* a spare wake is harmless */
    lore_lock_release(&stream->lock);
    return atomic_load_explicit(&stream->pushed, memory_order_acquire) != stream->taken;
}

lore_status lore_stream_next(lore_stream *stream, int64_t deadline_ns, lore_token_event *event)
{
    if (stream->taken > 0 && stream->events[stream->taken - 1].finish != LORE_FINISH_NONE) {
        return LORE_ERR_CANCELLED;
    }
    bool is_there = atomic_load_explicit(&stream->pushed, memory_order_acquire) != stream->taken;
    if (!is_there && !wait_for_event(stream, deadline_ns)) {
        return LORE_ERR_TIMEOUT;
    }
    *event = stream->events[stream->taken++];
    return LORE_OK;
}

void lore_stream_cancel(lore_stream *stream)
{
    atomic_store_explicit(&stream->is_cancelled, true, memory_order_relaxed);
}

static void give_up(lore_stream *stream, int32_t share)
{
    int32_t before = atomic_fetch_sub_explicit(&stream->holders, share, memory_order_acq_rel);
    LORE_ASSERT(before >= share);
    if (before == share) {
        lore_lock_destroy(&stream->lock);
        lore_free(stream);
    }
}

void lore_stream_release(lore_stream *stream)
{
    if (stream != NULL) {
        give_up(stream, 1);
    }
}

void lore_stream_list_wake(lore_stream_list *list)
{
    lore_stream *stream = list->first;
    *list = (lore_stream_list){0};
    while (stream != NULL) {
        lore_stream *next = stream->next; /* the engine's again once is_listed is cleared */
        atomic_store_explicit(&stream->is_listed, false, memory_order_seq_cst);
        if (atomic_load_explicit(&stream->is_waiting, memory_order_seq_cst)) {
            wake_consumer(stream);
        }
        give_up(stream, LISTED);
        stream = next;
    }
}
