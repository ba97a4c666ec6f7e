/* See watch.h. */
#include "api/watch.h"

#include "base/clock.h"
#include "base/mem.h"

#include <poll.h>
#include <sys/socket.h>

struct lore_watched {
    lore_watched *next, *previous;
    int fd;
    int64_t deadline_ns;
};

struct lore_watch {
    lore_lock lock; /* guards the list, the deadlines in it, and the two below */
    lore_watched *first;
    int64_t next_ns; /* what the thread sleeps until; 0: until it is woken */
    bool is_stopping;
    lore_thread thread;
};

/* Lock held. Shut what is late; the earliest deadline that is left, 0: none. */
static int64_t shut_late(lore_watch *watch)
{
    int64_t next_ns = 0;
    for (lore_watched *entry = watch->first; entry != NULL; entry = entry->next) {
        if (lore_deadline_passed(entry->deadline_ns)) {
            shutdown(entry->fd, SHUT_RDWR); /* does not block */
            entry->deadline_ns = 0;
        } else if (entry->deadline_ns != 0 && (next_ns == 0 || entry->deadline_ns < next_ns)) {
            next_ns = entry->deadline_ns;
        }
    }
    return next_ns;
}

static void *look(void *self)
{
    lore_watch *watch = self;
    lore_lock_acquire(&watch->lock);
    while (!watch->is_stopping) {
        watch->next_ns = shut_late(watch);
        (void)lore_lock_wait(&watch->lock, watch->next_ns);
    }
    lore_lock_release(&watch->lock);
    return NULL;
}

/* Lock held. Deadlines mostly move into the future, so this rarely wakes the thread. */
static void set_deadline(lore_watch *watch, lore_watched *entry, int64_t deadline_ns)
{
    entry->deadline_ns = deadline_ns;
    if (deadline_ns != 0 && (watch->next_ns == 0 || deadline_ns < watch->next_ns)) {
        watch->next_ns = deadline_ns;
        lore_lock_wake_all(&watch->lock);
    }
}

lore_status lore_watch_open(lore_watch **watch_out, lore_error *err)
{
    lore_watch *watch = lore_alloc_zero(1, sizeof *watch);
    if (watch == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the HTTP service");
    }
    lore_lock_init(&watch->lock);
    lore_status status = lore_thread_start(&watch->thread, "lore-watch", look, watch, err);
    if (status != LORE_OK) {
        lore_watch_close(watch);
        return status;
    }
    *watch_out = watch;
    return LORE_OK;
}

void lore_watch_close(lore_watch *watch)
{
    if (watch == NULL) {
        return;
    }
    lore_lock_acquire(&watch->lock);
    watch->is_stopping = true;
    lore_lock_wake_all(&watch->lock);
    lore_lock_release(&watch->lock);
    lore_thread_join(&watch->thread);
    LORE_ASSERT(watch->first == NULL);
    lore_lock_destroy(&watch->lock);
    lore_free(watch);
}

lore_watched *lore_watch_add(lore_watch *watch, int fd, int64_t deadline_ns)
{
    lore_watched *entry = lore_alloc_zero(1, sizeof *entry);
    if (entry == NULL) {
        return NULL;
    }
    entry->fd = fd;
    lore_lock_acquire(&watch->lock);
    entry->next = watch->first;
    if (entry->next != NULL) {
        entry->next->previous = entry;
    }
    watch->first = entry;
    set_deadline(watch, entry, deadline_ns);
    lore_lock_release(&watch->lock);
    return entry;
}

void lore_watch_remove(lore_watch *watch, lore_watched *entry)
{
    if (entry == NULL) {
        return;
    }
    lore_lock_acquire(&watch->lock);
    if (entry->next != NULL) {
        entry->next->previous = entry->previous;
    }
    *(entry->previous != NULL ? &entry->previous->next : &watch->first) = entry->next;
    lore_lock_release(&watch->lock);
    lore_free(entry);
}

void lore_watch_set(lore_watch *watch, lore_watched *entry, int64_t deadline_ns)
{
    lore_lock_acquire(&watch->lock);
    set_deadline(watch, entry, deadline_ns);
    lore_lock_release(&watch->lock);
}

lore_peer lore_watch_peer(const lore_watched *entry)
{
    struct pollfd state = {.fd = entry->fd, .events = POLLRDHUP};
    if (poll(&state, 1, 0) <= 0) {
        return LORE_PEER_OPEN;
    }
    return (state.revents & (POLLHUP | POLLERR)) != 0 ? LORE_PEER_GONE : LORE_PEER_HALF_CLOSED;
}

bool lore_watch_tell(const lore_watched *entry, lore_str bytes)
{
    return send(entry->fd, bytes.ptr, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)bytes.len;
}
