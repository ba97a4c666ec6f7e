/* The HTTP service: its connections, its start and its end. See http_int.h for the other half.
 *
 * What libmicrohttpd does not do as we need it, and where it is done:
 *   accepting, and how many   acceptor.c; the library has no listening socket
 *   deadlines                 watch.c. The library's own timeout starts again with each byte, and
 *                             spins through its last second
 *   draining                  lore_http_stop
 *
 * The two flags are atomics, relaxed: each is set once and only makes work end earlier. */
#include "api/http_int.h"
#include "base/clock.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

enum {
    STACK_BYTES = 512 * 1024, /* of a connection's thread: a query's deepest walk uses a fifth */
    CLOSING_MAX = 16,         /* connections that have left but that the library still has */
    CANCEL_GRACE_MS = 5000    /* for cancelled requests to come back when stopping */
};

static int64_t in_ms(int64_t ms)
{
    return lore_clock_ns() + ms * 1000000;
}

static bool is_draining(void *fence)
{
    lore_http *http = fence;
    return atomic_load_explicit(&http->is_draining, memory_order_relaxed);
}

/* ---- connections ---- */

/* A connection was accepted or is about to be closed. */
static void on_connection(void *self, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    lore_http *http = self;
    int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        lore_watch_remove(http->watch, *context);
        lore_acceptor_leave(http->acceptor, fd);
        return;
    }
    /* Small events must leave at once: nothing may wait for more bytes to fill a packet. */
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *context = lore_watch_add(http->watch, fd, in_ms(http->app->config->limits.idle_timeout_ms));
    if (*context == NULL) {
        shutdown(fd, SHUT_RDWR); /* no memory to watch it: do not serve it */
    }
}

/* ---- the service ---- */

static lore_status start_daemon(lore_http *http, lore_error *err)
{
    const lore_limits *limits = &http->app->config->limits;
    unsigned int flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                         MHD_USE_POLL | MHD_USE_ITC | MHD_USE_NO_LISTEN_SOCKET;
    http->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, lore_exchange_handle, http, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned int)(limits->connections_max + CLOSING_MAX), MHD_OPTION_CONNECTION_TIMEOUT, 0U,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)limits->header_bytes_max,
        MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES, MHD_OPTION_NOTIFY_COMPLETED,
        lore_exchange_end, http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
        MHD_OPTION_UNESCAPE_CALLBACK, lore_exchange_unescape, NULL,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    return http->daemon != NULL
               ? LORE_OK
               : lore_fail(err, LORE_ERR_IO, "cannot start the HTTP service: %s", strerror(errno));
}

/* On the acceptor's thread. The library closes what it cannot take. */
static bool admit(void *self, int fd, const struct sockaddr *address, socklen_t size)
{
    lore_http *http = self;
    return MHD_add_connection(http->daemon, fd, address, size) == MHD_YES;
}

static lore_status start_acceptor(lore_http *http, lore_error *err)
{
    const lore_limits *limits = &http->app->config->limits;
    const lore_acceptor_options options = {
        .listen_fd = http->listener.fd,
        .connections_max = limits->connections_max,
        .per_ip_max = limits->connections_per_ip_max,
        .metrics = http->service.metrics,
        .admit = admit,
        .self = http,
    };
    return lore_acceptor_open(&options, &http->acceptor, err);
}

/* Also of a service that did not start. Ends every connection and joins their threads. */
static void free_http(lore_http *http)
{
    if (http->acceptor != NULL) {
        lore_acceptor_stop(http->acceptor);
    }
    if (http->daemon != NULL) {
        MHD_stop_daemon(http->daemon);
    }
    lore_acceptor_close(http->acceptor);
    if (http->listener.fd >= 0) {
        close(http->listener.fd);
    }
    lore_watch_close(http->watch);
    lore_metrics_free(http->service.metrics);
    lore_lock_destroy(&http->lock);
    lore_free(http);
}

lore_status lore_http_start(lore_app *app, lore_http **http_out, lore_error *err)
{
    lore_http *http = lore_alloc_zero(1, sizeof *http);
    if (http == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the HTTP service");
    }
    http->app = app;
    http->listener.fd = -1;
    lore_lock_init(&http->lock);
    http->service = (lore_service){app, lore_metrics_new(), is_draining, http};
    lore_status status = http->service.metrics != NULL
                             ? lore_watch_open(&http->watch, err)
                             : lore_fail(err, LORE_ERR_NOMEM, "no memory for the HTTP service");
    if (status == LORE_OK) {
        status = lore_listener_open(app->config->listen, &http->listener, err);
    }
    if (status == LORE_OK) {
        status = start_daemon(http, err);
    }
    if (status == LORE_OK) {
        status = start_acceptor(http, err);
    }
    if (status != LORE_OK) {
        free_http(http);
        return status;
    }
    *http_out = http;
    return LORE_OK;
}

const char *lore_http_address(const lore_http *http)
{
    return http->listener.address;
}

const char *lore_http_local_address(const lore_http *http)
{
    return http->listener.local;
}

static void wait_idle(lore_http *http, int64_t deadline_ns)
{
    lore_lock_acquire(&http->lock);
    while (http->active > 0 && lore_lock_wait(&http->lock, deadline_ns)) {
    }
    lore_lock_release(&http->lock);
}

void lore_http_stop(lore_http *http, int64_t deadline_ns)
{
    if (http == NULL) {
        return;
    }
    atomic_store_explicit(&http->is_draining, true, memory_order_relaxed);
    wait_idle(http, deadline_ns);
    atomic_store_explicit(&http->is_cancelling, true, memory_order_relaxed);
    wait_idle(http, in_ms(CANCEL_GRACE_MS));
    free_http(http);
}

const char *lore_http_library(void)
{
    return MHD_get_version();
}
