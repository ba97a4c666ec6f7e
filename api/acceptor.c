/* See acceptor.h.
 *
 * Invariants: (1) guests[0 .. guest_count) are the connections that were admitted and have not
 * left, each descriptor once; (2) leaving[0 .. leaving_count) are descriptors nobody else has,
 * their way out shut; (3) only the loop's thread closes those, or close() when it has ended. */
#include "api/acceptor.h"

#include "api/wire.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    LEAVING_MAX = 128,      /* connections that are read empty at one time */
    LINGER_MS = 1000,       /* how long each of them */
    PAUSE_MS = 100,         /* without accepting, when the system has nothing left to give */
    BURST_MAX = 64,         /* connections accepted before those that leave get their turn */
    DESCRIPTORS_SPARE = 32, /* clients do not get the last ones: the index needs files, too */
    DISCARD_BYTES = 16 * 1024,
    PREFIX_BYTES = 8
};

/* An IPv4 address, or the network part of an IPv6 one. */
typedef struct origin {
    unsigned char bytes[PREFIX_BYTES];
} origin;

typedef struct guest {
    int fd;
    origin from;
} guest;

typedef struct leaver {
    int fd;
    int64_t deadline_ns;
} leaver;

struct lore_acceptor {
    lore_acceptor_options options; /* const after open, like the replies */
    lore_buf full, crowded;        /* replies for the two caps */
    int wake_fd;                   /* written when the loop has to look again */
    lore_lock lock;                /* guards all below but the thread's own */
    guest *guests;                 /* room for connections_max */
    int32_t guest_count;
    leaver leaving[LEAVING_MAX];
    int32_t leaving_count;
    bool is_stopping;
    int64_t paused_until_ns; /* the loop's own; 0: it accepts */
    lore_thread thread;
};

/* ---- who is there ---- */

static origin origin_of(const struct sockaddr_storage *address)
{
    origin from = {{0}};
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        memcpy(from.bytes, &v4->sin_addr, sizeof v4->sin_addr);
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
            memcpy(from.bytes, v6->sin6_addr.s6_addr + 12, 4);
        } else {
            memcpy(from.bytes, v6->sin6_addr.s6_addr, PREFIX_BYTES);
        }
    }
    return from;
}

/* Lock held. */
static bool forget(lore_acceptor *acceptor, int fd)
{
    for (int32_t i = 0; i < acceptor->guest_count; i++) {
        if (acceptor->guests[i].fd == fd) {
            acceptor->guests[i] = acceptor->guests[--acceptor->guest_count];
            return true;
        }
    }
    return false;
}

/* Clients get no descriptor among the last of the process: numbers are given lowest first, so the
 * number of a new one says how many are taken. */
static bool is_spare(int fd)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
           (rlim_t)fd + DESCRIPTORS_SPARE >= limit.rlim_cur;
}

/* Count the connection in; or the reply that it gets instead. */
static const lore_buf *enter(lore_acceptor *acceptor, int fd, origin from)
{
    const lore_buf *refusal = NULL;
    int64_t same = 0;
    lore_lock_acquire(&acceptor->lock);
    /* The number is free again, so whoever had it is gone, whether or not we were told. */
    bool is_stale = forget(acceptor, fd);
    for (int32_t i = 0; i < acceptor->guest_count; i++) {
        same += memcmp(&acceptor->guests[i].from, &from, sizeof from) == 0;
    }
    if (acceptor->guest_count >= acceptor->options.connections_max || is_spare(fd)) {
        refusal = &acceptor->full;
    } else if (same >= acceptor->options.per_ip_max) {
        refusal = &acceptor->crowded;
    } else {
        acceptor->guests[acceptor->guest_count++] = (guest){fd, from};
    }
    lore_lock_release(&acceptor->lock);
    lore_metrics_connection(acceptor->options.metrics, (refusal == NULL) - is_stale);
    return refusal;
}

/* ---- those who leave ---- */

/* Takes fd. It is closed at once where too many are leaving: then the client may see a reset. */
static void see_off(lore_acceptor *acceptor, int fd)
{
    shutdown(fd, SHUT_WR);
    lore_lock_acquire(&acceptor->lock);
    bool has_room = acceptor->leaving_count < LEAVING_MAX && !acceptor->is_stopping;
    if (has_room) {
        acceptor->leaving[acceptor->leaving_count++] =
            (leaver){fd, lore_clock_ns() + LINGER_MS * 1000000LL};
    }
    lore_lock_release(&acceptor->lock);
    if (!has_room) {
        close(fd);
    }
}

/* The best that can be done without waiting: what does not fit is not worth a thread. */
static void reply(int fd, const lore_buf *text)
{
    (void)!send(fd, text->ptr, text->len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void wake(lore_acceptor *acceptor)
{
    const uint64_t one = 1;
    (void)!write(acceptor->wake_fd, &one, sizeof one); /* it only fails when it is set already */
}

void lore_acceptor_leave(lore_acceptor *acceptor, int fd)
{
    lore_lock_acquire(&acceptor->lock);
    bool is_known = forget(acceptor, fd);
    lore_lock_release(&acceptor->lock);
    lore_metrics_connection(acceptor->options.metrics, is_known ? -1 : 0);
    /* The library shuts the way out behind each reply. Where it is open no thread could be started
     * for the connection, and this is the only word its client gets. */
    reply(fd, &acceptor->full);
    struct pollfd state = {.fd = fd, .events = POLLRDHUP};
    bool has_left = poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR));
    int copy = has_left || is_spare(fd) ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy >= 0) {
        see_off(acceptor, copy);
        wake(acceptor);
    }
}

/* Read what has come; true when there is nothing more to wait for. */
static bool is_through(const leaver *one, bool has_events)
{
    char room[DISCARD_BYTES];
    if (lore_deadline_passed(one->deadline_ns)) {
        return true;
    }
    ssize_t size = has_events ? recv(one->fd, room, sizeof room, MSG_DONTWAIT) : 1;
    return size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR);
}

/* events: of the first `count` leavers. Nobody else touches these; others may join behind them. */
static void sweep(lore_acceptor *acceptor, const struct pollfd *events, int32_t count)
{
    for (int32_t i = count - 1; i >= 0; i--) { /* backwards: removal moves the last one here */
        int fd = acceptor->leaving[i].fd;
        if (is_through(&acceptor->leaving[i], events[i].revents != 0)) {
            lore_lock_acquire(&acceptor->lock);
            acceptor->leaving[i] = acceptor->leaving[--acceptor->leaving_count];
            lore_lock_release(&acceptor->lock);
            close(fd);
        }
    }
}

/* ---- the loop ---- */

/* False: none is waiting, or none can be had now. */
static bool accept_one(lore_acceptor *acceptor)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    int fd = accept4(acceptor->options.listen_fd, (struct sockaddr *)&address, &size,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        bool is_short = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
        if (is_short) {
            acceptor->paused_until_ns = lore_clock_ns() + PAUSE_MS * 1000000LL;
        }
        /* Else this one gave up before it was accepted: the next one has not. */
        return !is_short && errno != EAGAIN && errno != EWOULDBLOCK;
    }
    const lore_buf *refusal = enter(acceptor, fd, origin_of(&address));
    if (refusal != NULL) {
        lore_metrics_refused(acceptor->options.metrics);
        reply(fd, refusal);
        see_off(acceptor, fd);
    } else if (!acceptor->options.admit(acceptor->options.self, fd,
                                        (const struct sockaddr *)&address, size)) {
        lore_lock_acquire(&acceptor->lock);
        bool is_known = forget(acceptor, fd);
        lore_lock_release(&acceptor->lock);
        lore_metrics_connection(acceptor->options.metrics, is_known ? -1 : 0);
    }
    return true;
}

/* What to wait for: the wake-up, the listening socket, those who leave. */
static int32_t gather(lore_acceptor *acceptor, struct pollfd *events, bool *is_stopping)
{
    int64_t until_ns = acceptor->paused_until_ns;
    bool is_paused = until_ns != 0 && !lore_deadline_passed(until_ns);
    events[0] = (struct pollfd){.fd = acceptor->wake_fd, .events = POLLIN};
    events[1] = (struct pollfd){.fd = is_paused ? -1 : acceptor->options.listen_fd,
                                .events = POLLIN}; /* poll passes over negative ones */
    lore_lock_acquire(&acceptor->lock);
    int32_t count = acceptor->leaving_count;
    for (int32_t i = 0; i < count; i++) {
        events[2 + i] = (struct pollfd){.fd = acceptor->leaving[i].fd, .events = POLLIN};
    }
    *is_stopping = acceptor->is_stopping;
    lore_lock_release(&acceptor->lock);
    return count;
}

static void *run(void *self)
{
    lore_acceptor *acceptor = self;
    struct pollfd events[2 + LEAVING_MAX];
    bool is_stopping = false;
    for (;;) {
        int32_t count = gather(acceptor, events, &is_stopping);
        if (is_stopping) {
            return NULL;
        }
        int timeout_ms = events[1].fd < 0 ? PAUSE_MS : count > 0 ? LINGER_MS / 4 : -1;
        if (poll(events, (nfds_t)(2 + count), timeout_ms) < 0) {
            (void)poll(NULL, 0, PAUSE_MS); /* fewer descriptors are allowed than are here */
            continue;
        }
        uint64_t wakes;
        (void)!read(acceptor->wake_fd, &wakes, sizeof wakes);
        sweep(acceptor, events + 2, count);
        for (int32_t i = 0; i < BURST_MAX && events[1].revents != 0; i++) {
            if (!accept_one(acceptor)) {
                break;
            }
        }
    }
}

/* ---- open and close ---- */

/* The whole reply to a client that is refused: what a route would have said. */
static void write_refusal(lore_buf *out, int http_status, const char *words)
{
    lore_buf body;
    lore_buf_init(&body, 0);
    lore_buf_init(out, 0);
    lore_wire_error_as(http_status, lore_str_from(words), (lore_str){NULL, 0},
                       lore_status_name(LORE_ERR_BUSY), &body);
    lore_buf_printf(out,
                    "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                    "Retry-After: 1\r\nConnection: close\r\n\r\n" LORE_STR_FMT,
                    http_status, http_status == 503 ? "Service Unavailable" : "Too Many Requests",
                    body.len, LORE_STR_ARG(lore_buf_str(&body)));
    if (lore_buf_failed(&body)) {
        out->failed = true;
    }
    lore_buf_destroy(&body);
}

lore_status lore_acceptor_open(const lore_acceptor_options *options, lore_acceptor **acceptor_out,
                               lore_error *err)
{
    lore_acceptor *acceptor = lore_alloc_zero(1, sizeof *acceptor);
    if (acceptor == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the HTTP service");
    }
    acceptor->options = *options;
    lore_lock_init(&acceptor->lock);
    write_refusal(&acceptor->full, 503, "all connections are in use (limits.connections_max)");
    write_refusal(&acceptor->crowded, 429,
                  "too many connections from this address (limits.connections_per_ip_max)");
    acceptor->guests = lore_alloc_zero((size_t)options->connections_max, sizeof *acceptor->guests);
    acceptor->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    lore_status status = LORE_OK;
    if (acceptor->guests == NULL || lore_buf_failed(&acceptor->full) ||
        lore_buf_failed(&acceptor->crowded)) {
        status = lore_fail(err, LORE_ERR_NOMEM, "no memory for the HTTP service");
    } else if (acceptor->wake_fd < 0) {
        status = lore_fail(err, LORE_ERR_IO, "cannot start the HTTP service: %s", strerror(errno));
    } else {
        *acceptor_out = acceptor; /* a connection may be admitted, and leave, before we return */
        status = lore_thread_start(&acceptor->thread, "lore-accept", run, acceptor, err);
    }
    if (status != LORE_OK) {
        *acceptor_out = NULL;
        lore_acceptor_close(acceptor);
    }
    return status;
}

void lore_acceptor_stop(lore_acceptor *acceptor)
{
    lore_lock_acquire(&acceptor->lock);
    acceptor->is_stopping = true;
    lore_lock_release(&acceptor->lock);
    wake(acceptor);
    lore_thread_join(&acceptor->thread);
}

void lore_acceptor_close(lore_acceptor *acceptor)
{
    if (acceptor == NULL) {
        return;
    }
    lore_acceptor_stop(acceptor);
    for (int32_t i = 0; i < acceptor->leaving_count; i++) {
        close(acceptor->leaving[i].fd);
    }
    if (acceptor->wake_fd >= 0) {
        close(acceptor->wake_fd);
    }
    lore_buf_destroy(&acceptor->full);
    lore_buf_destroy(&acceptor->crowded);
    lore_lock_destroy(&acceptor->lock);
    lore_free(acceptor->guests);
    lore_free(acceptor);
}
