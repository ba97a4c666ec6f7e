/* The libmicrohttpd fence: sockets and headers on one side, routes.h on the other.
 *
 * The library calls handle_request several times for one request: once when the headers are there,
 * then for each piece of the body, then once more when all has arrived. An http_exchange carries
 * what belongs to the request through these calls and lives until end_request.
 *
 *   new -> (refused early) ----------------------------> answered -> ended
 *       -> receiving body -> complete: run the route --> answered -> ended
 *                                      start its stream
 *
 * What the library does not do, and where it is done here:
 *   a limit for bodies            begin_request by Content-Length, receive_body by counting
 *   a deadline for a request      watch.c shuts the socket of one that drips
 *   noticing a client that left   lore_http_is_gone asks the socket
 *   a handler that takes longer   touch() before the reply, else the library takes the time in the
 *   than the idle timeout         handler for idleness and closes without a word
 *   draining                      lore_http_stop
 *
 * The two flags are atomics, relaxed: each is set once and only makes work end earlier. */
#include "api/http.h"

#include "api/listener.h"
#include "api/routes.h"
#include "api/watch.h"
#include "api/wire.h"
#include "base/clock.h"

#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    STACK_BYTES = 512 * 1024, /* of a connection's thread: a query's deepest walk uses a fifth */
    STREAM_ROOM_BYTES = 64 * 1024,  /* waiting for a slow client before its producer waits too */
    STREAM_BLOCK_BYTES = 16 * 1024, /* most that one read of a stream gives */
    PING_MS = 10000,                /* silence of a stream after which a comment is sent */
    CANCEL_GRACE_MS = 5000,         /* for cancelled requests to come back when stopping */
    /* A refused body is read and dropped up to so many times the limit: a client that only reads
     * after it has sent everything then sees the reason instead of a reset connection. */
    DISCARD_FACTOR = 4
};

struct lore_http {
    lore_app *app;
    struct MHD_Daemon *daemon;
    lore_service service;
    lore_listener listener;
    lore_watch *watch;
    lore_lock lock; /* guards active */
    int32_t active;
    atomic_bool is_draining, is_cancelling;
};

typedef struct http_exchange {
    lore_http *http;
    struct MHD_Connection *connection;
    lore_watched *watched;
    lore_arena arena;
    lore_buf body;
    lore_http_request request;
    lore_http_reply reply;
    lore_sink *sink;
    int32_t route;       /* -1: none */
    const char *allowed; /* with 405 */
    int64_t started_ns;
    int64_t received, body_max; /* bytes of the body so far, and its limit */
    int refusal;                /* HTTP status; 0: not refused. The words are in `error`. */
    lore_error error;
    char id[LORE_REQUEST_ID_CAP];
} http_exchange;

/* ---- what routes ask of us ---- */

lore_status lore_http_argument(const lore_http_request *request, const char *name, lore_str *value,
                               lore_error *err)
{
    const http_exchange *exchange = request->connection;
    const char *raw =
        MHD_lookup_connection_value(exchange->connection, MHD_GET_ARGUMENT_KIND, name);
    if (raw == NULL) {
        *value = (lore_str){NULL, 0};
        return LORE_OK;
    }
    lore_status status = lore_url_decode(lore_str_from(raw), request->arena, value, err);
    return status == LORE_OK ? status : lore_error_prefix(err, "%s", name);
}

bool lore_http_is_gone(void *self)
{
    const lore_http_request *request = self;
    const http_exchange *exchange = request->connection;
    return atomic_load_explicit(&exchange->http->is_cancelling, memory_order_relaxed) ||
           lore_watch_has_left(exchange->watched);
}

static bool is_draining(void *fence)
{
    lore_http *http = fence;
    return atomic_load_explicit(&http->is_draining, memory_order_relaxed);
}

/* ---- connections ---- */

static int64_t in_ms(int64_t ms)
{
    return lore_clock_ns() + ms * 1000000;
}

/* A connection was accepted or is about to be closed. */
static void on_connection(void *self, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    lore_http *http = self;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        lore_watch_remove(http->watch, *context);
        return;
    }
    int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    /* Small events must leave at once: nothing may wait for more bytes to fill a packet. */
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *context = lore_watch_add(http->watch, fd, in_ms(http->app->config->limits.idle_timeout_ms));
    if (*context == NULL) {
        shutdown(fd, SHUT_RDWR); /* no memory to watch it: do not serve it */
    }
}

/* ---- replies ---- */

/* Tell the library that now is activity, as far as its idle timeout is concerned. */
static void touch(const http_exchange *exchange)
{
    int64_t idle_ms = exchange->http->app->config->limits.idle_timeout_ms;
    unsigned int seconds = (unsigned int)((idle_ms + 999) / 1000);
    MHD_set_connection_option(exchange->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0U);
    MHD_set_connection_option(exchange->connection, MHD_CONNECTION_OPTION_TIMEOUT, seconds);
}

/* The library's question for more bytes of a stream. */
static ssize_t read_stream(void *self, uint64_t position, char *out, size_t cap_bytes)
{
    (void)position;
    static const char PING[] = ": ping\n\n";
    http_exchange *exchange = self;
    int64_t idle_ms = exchange->http->app->config->limits.idle_timeout_ms;
    int64_t ping_ms = idle_ms / 2 < PING_MS ? idle_ms / 2 : PING_MS;
    size_t size = 0;
    lore_status status = lore_sink_read(exchange->sink, out, cap_bytes, in_ms(ping_ms), &size);
    if (status == LORE_OK) {
        return (ssize_t)size;
    }
    if (status == LORE_ERR_TIMEOUT && cap_bytes >= sizeof PING - 1) {
        /* The queue holds whole events and is empty, so this never lands inside one. */
        memcpy(out, PING, sizeof PING - 1);
        return (ssize_t)(sizeof PING - 1);
    }
    return lore_sink_is_cancelled(exchange->sink) ? MHD_CONTENT_READER_END_WITH_ERROR
                                                  : MHD_CONTENT_READER_END_OF_STREAM;
}

static struct MHD_Response *make_response(http_exchange *exchange)
{
    if (exchange->sink != NULL) {
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream,
                                                 exchange, NULL);
    }
    const lore_http_reply *reply = &exchange->reply;
    lore_str body = reply->fixed.ptr != NULL ? reply->fixed : lore_buf_str(&reply->body);
    /* The bytes live until end_request: the library need not copy them. It does not write either.
     */
    return MHD_create_response_from_buffer(body.len, (void *)(uintptr_t)body.ptr,
                                           MHD_RESPMEM_PERSISTENT);
}

static void add_headers(http_exchange *exchange, struct MHD_Response *response)
{
    const lore_http_reply *reply = &exchange->reply;
    MHD_add_response_header(response, "Content-Type",
                            exchange->sink ? "text/event-stream; charset=utf-8"
                                           : reply->content_type);
    MHD_add_response_header(response, "X-Request-Id", exchange->id);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Cache-Control",
                            reply->fixed.ptr != NULL ? "no-cache" : "no-store");
    if (exchange->sink != NULL) {
        MHD_add_response_header(response, "X-Accel-Buffering", "no");
    }
    if (reply->policy != NULL) {
        MHD_add_response_header(response, "Content-Security-Policy", reply->policy);
    }
    if (reply->status == 429 || reply->status == 503) {
        MHD_add_response_header(response, "Retry-After", "1");
    }
    if (exchange->allowed != NULL) {
        MHD_add_response_header(response, "Allow", exchange->allowed);
    }
    if (is_draining(exchange->http)) {
        MHD_add_response_header(response, "Connection", "close");
    }
}

static enum MHD_Result send_reply(http_exchange *exchange)
{
    if (lore_buf_failed(&exchange->reply.body)) {
        lore_buf_reset(&exchange->reply.body);
        lore_fail(&exchange->error, LORE_ERR_NOMEM, "no memory for the reply");
        exchange->reply.status = lore_wire_error(&exchange->error, &exchange->reply.body);
        if (lore_buf_failed(&exchange->reply.body)) {
            return MHD_NO; /* not even for the error object: close */
        }
    }
    struct MHD_Response *response = make_response(exchange);
    if (response == NULL) {
        return MHD_NO;
    }
    add_headers(exchange, response);
    touch(exchange);
    enum MHD_Result result =
        MHD_queue_response(exchange->connection, (unsigned int)exchange->reply.status, response);
    MHD_destroy_response(response);
    return result;
}

/* Make the reply an error object. http_status 0: what the error's status means. */
static void set_error(http_exchange *exchange, int http_status)
{
    lore_http_reply *reply = &exchange->reply;
    lore_buf_reset(&reply->body);
    reply->fixed = (lore_str){NULL, 0};
    reply->content_type = "application/json";
    reply->status = lore_wire_error(&exchange->error, &reply->body);
    if (http_status != 0 && http_status != reply->status) {
        lore_buf_reset(&reply->body);
        reply->status = lore_wire_error_as(http_status, lore_str_from(exchange->error.message),
                                           (lore_str){NULL, 0},
                                           lore_status_name(exchange->error.status), &reply->body);
    }
    if (reply->status >= 500 && exchange->error.status != LORE_ERR_CANCELLED) {
        lore_log(LORE_LOG_ERROR, "event=request_failed id=%s method=%s path=%s error=%s",
                 exchange->id, exchange->request.method, LORE_LOG_STR(exchange->request.path),
                 LORE_LOG_STR(lore_str_from(exchange->error.message)));
    }
}

/* Start the route's stream and wait for its first event: until then a failure is still an ordinary
 * reply with its own status. The producer ends by itself when the client leaves. */
static lore_status open_stream(http_exchange *exchange, lore_error *err)
{
    lore_status status = lore_sink_open(exchange->reply.stream, exchange->reply.self,
                                        STREAM_ROOM_BYTES, &exchange->sink, err);
    if (status != LORE_OK) {
        return status;
    }
    if (lore_sink_wait(exchange->sink, 0) == LORE_OK) {
        return LORE_OK;
    }
    status = lore_sink_result(exchange->sink, err);
    if (status != LORE_OK) {
        lore_sink_close(exchange->sink);
        exchange->sink = NULL;
    }
    return status;
}

static enum MHD_Result answer_request(http_exchange *exchange)
{
    lore_watch_set(exchange->http->watch, exchange->watched, 0);
    if (exchange->refusal != 0) {
        set_error(exchange, exchange->refusal);
        return send_reply(exchange);
    }
    exchange->request.body = lore_buf_str(&exchange->body);
    lore_status status = lore_routes[exchange->route].run(
        &exchange->http->service, &exchange->request, &exchange->reply, &exchange->error);
    if (status == LORE_OK && exchange->reply.stream != NULL) {
        status = open_stream(exchange, &exchange->error);
    }
    if (status != LORE_OK) {
        set_error(exchange, 0);
    }
    return send_reply(exchange);
}

/* ---- requests ---- */

static void refuse(http_exchange *exchange, int http_status, lore_status status, const char *words)
{
    exchange->refusal = http_status;
    lore_fail(&exchange->error, status, "%s", words);
    lore_buf_destroy(&exchange->body);
}

static void refuse_size(http_exchange *exchange, int64_t size)
{
    bool is_file = exchange->body_max != exchange->http->app->config->limits.body_bytes_max;
    exchange->refusal = 413;
    lore_fail(&exchange->error, LORE_ERR_LIMIT,
              "body has %lld bytes or more, the limit is %lld (limits.%s_bytes_max)",
              (long long)size, (long long)exchange->body_max, is_file ? "file" : "body");
    lore_buf_destroy(&exchange->body);
}

static const char *header(const http_exchange *exchange, const char *name)
{
    return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, name);
}

static int64_t content_length(const http_exchange *exchange)
{
    const char *text = header(exchange, "Content-Length");
    int64_t size = 0;
    return text != NULL && lore_str_to_int64(lore_str_from(text), &size) ? size : 0;
}

/* Refusals that the headers alone decide. */
static void check_headers(http_exchange *exchange)
{
    const char *site = header(exchange, "Sec-Fetch-Site");
    lore_status status =
        lore_route_find(&exchange->request, &exchange->route, &exchange->allowed, &exchange->error);
    bool is_known = status == LORE_OK && exchange->route >= 0;
    exchange->body_max = lore_route_body_max(exchange->route, &exchange->http->app->config->limits);
    lore_buf_init(&exchange->body, (size_t)exchange->body_max);
    if (status != LORE_OK) {
        exchange->refusal = lore_wire_status(status);
        exchange->allowed = NULL;
        exchange->route = -1;
    } else if (exchange->route == -2) {
        refuse(exchange, 405, LORE_ERR_INVALID, "this address does not take that method");
    } else if (!is_known) {
        refuse(exchange, 404, LORE_ERR_NOT_FOUND, "no such address: GET /openapi.json lists them");
    } else {
        exchange->allowed = NULL;
    }
    if (!is_known) {
        return;
    }
    if (is_draining(exchange->http) && !lore_routes[exchange->route].is_always_open) {
        refuse(exchange, 503, LORE_ERR_CANCELLED, "the service is stopping");
    } else if (site != NULL && strcmp(site, "cross-site") == 0 &&
               strcmp(exchange->request.method, "GET") != 0) {
        /* A page of another site makes a visitor's browser write to a service on his machine. */
        refuse(exchange, 403, LORE_ERR_INVALID, "requests from pages of other sites are refused");
    } else if (content_length(exchange) > exchange->body_max) {
        refuse_size(exchange, content_length(exchange));
    }
}

static http_exchange *new_exchange(lore_http *http, struct MHD_Connection *connection,
                                   const char *method, const char *path)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    http_exchange *exchange = lore_alloc_zero(1, sizeof *exchange);
    if (exchange == NULL || info->socket_context == NULL) {
        lore_free(exchange);
        return NULL;
    }
    const lore_limits *limits = &http->app->config->limits;
    exchange->http = http;
    exchange->connection = connection;
    exchange->watched = info->socket_context;
    exchange->route = -1;
    exchange->started_ns = lore_clock_ns();
    lore_arena_init(&exchange->arena, (size_t)limits->arena_bytes_max);
    lore_buf_init(&exchange->reply.body, 0);
    exchange->reply.status = 200;
    exchange->reply.content_type = "application/json";
    lore_request_id(header(exchange, "X-Request-Id"), exchange->id);
    exchange->request = (lore_http_request){
        .id = exchange->id,
        .method = method, /* the library keeps both until the request is over */
        .path = lore_str_from(path),
        .content_type = lore_str_from(header(exchange, "Content-Type")),
        .arena = &exchange->arena,
        .deadline_ns = in_ms(limits->request_timeout_ms),
        .connection = exchange,
    };
    return exchange;
}

static enum MHD_Result begin_request(lore_http *http, struct MHD_Connection *connection,
                                     const char *method, const char *path, void **context)
{
    http_exchange *exchange = new_exchange(http, connection, method, path);
    if (exchange == NULL) {
        return MHD_NO;
    }
    *context = exchange;
    lore_watch_set(http->watch, exchange->watched, exchange->request.deadline_ns); /* its body */
    lore_lock_acquire(&http->lock);
    http->active++;
    lore_lock_release(&http->lock);
    lore_metrics_active(http->service.metrics, 1);
    check_headers(exchange);
    /* A client that asks first, or would send without end, hears the refusal before it sends. */
    bool is_asking = header(exchange, "Expect") != NULL;
    if (exchange->refusal != 0 &&
        (is_asking || content_length(exchange) / DISCARD_FACTOR > exchange->body_max)) {
        return answer_request(exchange);
    }
    return MHD_YES;
}

static enum MHD_Result receive_body(http_exchange *exchange, const char *data, size_t size)
{
    exchange->received += (int64_t)size;
    if (exchange->refusal != 0) {
        return exchange->received / DISCARD_FACTOR > exchange->body_max ? MHD_NO : MHD_YES;
    }
    if (exchange->received > exchange->body_max) {
        refuse_size(exchange, exchange->received);
        return MHD_YES;
    }
    lore_buf_append(&exchange->body, (lore_str){data, size});
    if (lore_buf_failed(&exchange->body)) {
        refuse(exchange, 503, LORE_ERR_NOMEM, "no memory for the body");
    }
    return MHD_YES;
}

static enum MHD_Result handle_request(void *self, struct MHD_Connection *connection,
                                      const char *path, const char *method, const char *version,
                                      const char *data, size_t *size, void **context)
{
    (void)version;
    http_exchange *exchange = *context;
    if (exchange == NULL) {
        return begin_request(self, connection, method, path, context);
    }
    if (*size > 0) {
        enum MHD_Result result = receive_body(exchange, data, *size);
        *size = 0;
        return result;
    }
    return answer_request(exchange);
}

static int32_t final_status(const http_exchange *exchange, enum MHD_RequestTerminationCode how)
{
    switch (how) {
    case MHD_REQUEST_TERMINATED_COMPLETED_OK:
        return exchange->reply.status;
    case MHD_REQUEST_TERMINATED_TIMEOUT_REACHED:
        return 408;
    case MHD_REQUEST_TERMINATED_DAEMON_SHUTDOWN:
        return 503;
    case MHD_REQUEST_TERMINATED_WITH_ERROR:
    case MHD_REQUEST_TERMINATED_READ_ERROR:
    case MHD_REQUEST_TERMINATED_CLIENT_ABORT:
        break;
    }
    return 499; /* the client left */
}

/* The reply is out, or the connection is gone: everything of the request ends here. */
static void end_request(void *self, struct MHD_Connection *connection, void **context,
                        enum MHD_RequestTerminationCode how)
{
    (void)connection;
    lore_http *http = self;
    http_exchange *exchange = *context;
    if (exchange == NULL) {
        return;
    }
    *context = NULL;
    lore_sink_close(exchange->sink); /* cancels and joins where the client left in the middle */
    if (exchange->reply.release != NULL) {
        exchange->reply.release(exchange->reply.self);
    }
    int32_t status = final_status(exchange, how);
    int64_t elapsed_ns = lore_clock_ns() - exchange->started_ns;
    lore_metrics_request(http->service.metrics,
                         exchange->route >= 0 ? exchange->route : lore_route_count, status,
                         elapsed_ns);
    lore_metrics_active(http->service.metrics, -1);
    lore_log(LORE_LOG_DEBUG, "event=request id=%s method=%s path=%s status=%d ms=%.1f",
             exchange->id, exchange->request.method, LORE_LOG_STR(exchange->request.path),
             (int)status, (double)elapsed_ns / 1e6);
    lore_watch_set(http->watch, exchange->watched,
                   in_ms(http->app->config->limits.idle_timeout_ms));
    lore_lock_acquire(&http->lock);
    http->active--;
    lore_lock_wake_all(&http->lock);
    lore_lock_release(&http->lock);
    lore_buf_destroy(&exchange->body);
    lore_buf_destroy(&exchange->reply.body);
    lore_arena_destroy(&exchange->arena);
    lore_free(exchange);
}

/* ---- the service ---- */

/* Leave the path as it was sent: a document id may hold an encoded slash, so it is split first and
 * decoded after (lore_url_decode). */
static size_t keep_escapes(void *self, struct MHD_Connection *connection, char *text)
{
    (void)self;
    (void)connection;
    return strlen(text);
}

static lore_status start_daemon(lore_http *http, lore_error *err)
{
    const lore_limits *limits = &http->app->config->limits;
    unsigned int flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                         MHD_USE_POLL | MHD_USE_ITC | (http->listener.is_ipv6 ? MHD_USE_IPv6 : 0U);
    http->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, handle_request, http, MHD_OPTION_LISTEN_SOCKET, http->listener.fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned int)limits->connections_max,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned int)limits->connections_per_ip_max,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int)((limits->idle_timeout_ms + 999) / 1000),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)limits->header_bytes_max,
        MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES, MHD_OPTION_NOTIFY_COMPLETED, end_request,
        http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_UNESCAPE_CALLBACK,
        keep_escapes, NULL, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    return http->daemon != NULL
               ? LORE_OK
               : lore_fail(err, LORE_ERR_IO, "cannot start the HTTP service: %s", strerror(errno));
}

static void free_http(lore_http *http)
{
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
        status = start_daemon(http, err); /* the socket is the library's from here */
    }
    if (status != LORE_OK) {
        if (http->listener.fd >= 0) {
            close(http->listener.fd);
        }
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
    MHD_stop_daemon(http->daemon); /* ends every connection, joins their threads */
    free_http(http);
}

const char *lore_http_library(void)
{
    return MHD_get_version();
}
