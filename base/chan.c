/* The bounded channel: a ring of pointers under one lock.
 *
 * Senders and receivers wait on the same condition, so a change wakes all of them, but only when
 * the other side has somebody waiting; an uncontended send or receive costs a lock and an unlock.
 */
#include "base/mem.h"
#include "base/thread.h"

struct lore_chan {
    lore_lock lock; /* guards everything below */
    size_t cap;
    size_t head; /* the oldest item */
    size_t count;
    int32_t waiting_senders;
    int32_t waiting_receivers;
    bool is_closed;
    void *items[];
};

lore_chan *lore_chan_new(size_t cap)
{
    LORE_ASSERT(cap > 0);
    size_t size = 0;
    if (!lore_size_mul(cap, sizeof(void *), &size) ||
        !lore_size_add(size, sizeof(lore_chan), &size)) {
        return NULL;
    }
    lore_chan *chan = lore_alloc_zero(1, size);
    if (chan != NULL) {
        chan->cap = cap;
        lore_lock_init(&chan->lock);
    }
    return chan;
}

void lore_chan_free(lore_chan *chan)
{
    if (chan != NULL) {
        lore_lock_destroy(&chan->lock);
        lore_free(chan);
    }
}

/* Lock held. */
static void put(lore_chan *chan, void *item)
{
    chan->items[(chan->head + chan->count) % chan->cap] = item;
    chan->count++;
    if (chan->waiting_receivers > 0) {
        lore_lock_wake_all(&chan->lock);
    }
}

/* Lock held. */
static void *take(lore_chan *chan)
{
    void *item = chan->items[chan->head];
    chan->head = (chan->head + 1) % chan->cap;
    chan->count--;
    if (chan->waiting_senders > 0) {
        lore_lock_wake_all(&chan->lock);
    }
    return item;
}

lore_status lore_chan_send(lore_chan *chan, void *item, int64_t deadline_ns)
{
    lore_lock_acquire(&chan->lock);
    bool in_time = true;
    while (!chan->is_closed && chan->count == chan->cap && in_time) {
        chan->waiting_senders++;
        in_time = lore_lock_wait(&chan->lock, deadline_ns);
        chan->waiting_senders--;
    }
    lore_status status = LORE_OK;
    if (chan->is_closed) {
        status = LORE_ERR_CANCELLED;
    } else if (chan->count == chan->cap) {
        status = LORE_ERR_TIMEOUT;
    } else {
        put(chan, item);
    }
    lore_lock_release(&chan->lock);
    return status;
}

lore_status lore_chan_try_send(lore_chan *chan, void *item)
{
    lore_lock_acquire(&chan->lock);
    lore_status status = LORE_OK;
    if (chan->is_closed) {
        status = LORE_ERR_CANCELLED;
    } else if (chan->count == chan->cap) {
        status = LORE_ERR_BUSY;
    } else {
        put(chan, item);
    }
    lore_lock_release(&chan->lock);
    return status;
}

lore_status lore_chan_recv(lore_chan *chan, void **item, int64_t deadline_ns)
{
    lore_lock_acquire(&chan->lock);
    bool in_time = true;
    while (!chan->is_closed && chan->count == 0 && in_time) {
        chan->waiting_receivers++;
        in_time = lore_lock_wait(&chan->lock, deadline_ns);
        chan->waiting_receivers--;
    }
    lore_status status = LORE_OK;
    if (chan->count > 0) {
        *item = take(chan);
    } else {
        status = chan->is_closed ? LORE_ERR_CANCELLED : LORE_ERR_TIMEOUT;
    }
    lore_lock_release(&chan->lock);
    return status;
}

lore_status lore_chan_try_recv(lore_chan *chan, void **item)
{
    lore_lock_acquire(&chan->lock);
    lore_status status = LORE_OK;
    if (chan->count > 0) {
        *item = take(chan);
    } else {
        status = chan->is_closed ? LORE_ERR_CANCELLED : LORE_ERR_BUSY;
    }
    lore_lock_release(&chan->lock);
    return status;
}

void lore_chan_close(lore_chan *chan)
{
    lore_lock_acquire(&chan->lock);
    chan->is_closed = true;
    lore_lock_wake_all(&chan->lock);
    lore_lock_release(&chan->lock);
}

size_t lore_chan_count(lore_chan *chan)
{
    lore_lock_acquire(&chan->lock);
    size_t count = chan->count;
    lore_lock_release(&chan->lock);
    return count;
}
