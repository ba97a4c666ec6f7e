/* One request and its reply, on the connection's own thread. See http_int.h.
 *
 * The library calls lore_exchange_handle several times for one request: once when the headers are
 * there, then for each piece of the body, then once more when all has arrived. An http_exchange
 * carries what belongs to the request through these calls and lives until lore_exchange_end.
 *
 *   new -> (refused early) ----------------------------> answered -> ended
 *       -> receiving body -> complete: run the route --> answered -> ended
 *                                      start its stream
 *
 * What the library does not do, and where it is done here:
 *   a limit for bodies            begin_request by Content-Length, receive_body by counting
 *   deadlines                     watch.c shuts the socket of one that drips or does not read
 *   lengths told twice            framing.c
 *   noticing a client that left   lore_http_is_gone asks the socket */
#include "api/framing.h"
#include "api/http_int.h"
#include "api/wire.h"
#include "base/clock.h"

#include <string.h>

enum {
    STREAM_ROOM_BYTES = 64 * 1024,  /* waiting for a slow client before its producer waits too */
    STREAM_BLOCK_BYTES = 16 * 1024, /* most that one read of a stream gives */
    PING_MS = 10000,                /* silence of a stream after which a comment is sent */
    /* A refused body is read and dropped up to so many times the limit: a client that only reads
     * after it has sent everything then sees the reason instead of a reset connection. */
    DISCARD_FACTOR = 4
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
    int32_t route;        /* -1: none */
    const char *allowed;  /* with 405 */
    bool must_close;      /* nobody knows where the next request would begin */
    bool is_old;          /* HTTP/1.0: knows no interim replies */
    atomic_bool is_asked; /* a half-closed client was sent one to see whether it is there */
    int64_t started_ns, reply_deadline_ns;
    int64_t received, body_max; /* bytes of the body so far, and its limit */
    int refusal;                /* HTTP status; 0: not refused. The words are in `error`. */
    lore_error error;
    char id[LORE_REQUEST_ID_CAP];
} http_exchange;

static int64_t in_ms(int64_t ms)
{
    return lore_clock_ns() + ms * 1000000;
}

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

/* A client may finish sending and still want its answer, or it has closed: only sending tells. An
 * interim reply means nothing to the first and makes the system of the second reset the connection
 * (RFC 9110, section 15.2). A stream needs none: its events are such bytes. */
static void ask_whether_there(http_exchange *exchange)
{
    if (!exchange->is_old && exchange->reply.stream == NULL &&
        !atomic_exchange_explicit(&exchange->is_asked, true, memory_order_relaxed)) {
        (void)lore_watch_tell(exchange->watched, LORE_STR("HTTP/1.1 100 Continue\r\n\r\n"));
    }
}

bool lore_http_is_gone(void *self)
{
    const lore_http_request *request = self;
    http_exchange *exchange = request->connection;
    lore_peer peer = lore_watch_peer(exchange->watched);
    if (peer == LORE_PEER_HALF_CLOSED) {
        ask_whether_there(exchange);
    }
    return peer == LORE_PEER_GONE ||
           atomic_load_explicit(&exchange->http->is_cancelling, memory_order_relaxed);
}

/* ---- replies ---- */

/* The client has taken what there was of the reply. All of it must be taken by reply_deadline_ns; a
 * stream must be read from now and then. */
static void expect_reader(const http_exchange *exchange)
{
    int64_t last_ns = exchange->reply_deadline_ns;
    int64_t soon_ns = in_ms(exchange->http->app->config->limits.idle_timeout_ms);
    lore_watch_set(exchange->http->watch, exchange->watched,
                   exchange->sink != NULL && soon_ns < last_ns ? soon_ns : last_ns);
}

/* What an idle connection may take, behind the deadline of the request; behind now where the work
 * has overrun it, or nobody would hear why. */
static int64_t reply_deadline(const http_exchange *exchange)
{
    int64_t idle_ms = exchange->http->app->config->limits.idle_timeout_ms;
    int64_t planned_ns = exchange->request.deadline_ns + idle_ms * 1000000;
    return planned_ns > in_ms(idle_ms) ? planned_ns : in_ms(idle_ms);
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
    expect_reader(exchange); /* it has taken all before this */
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
    /* The bytes live until lore_exchange_end: the library need not copy them. It does not write
     * either.
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
    if (exchange->must_close || exchange->http->service.is_draining(exchange->http)) {
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
    exchange->reply_deadline_ns = reply_deadline(exchange);
    expect_reader(exchange);
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
    if (text != NULL && !lore_str_to_int64(lore_str_from(text), &size)) {
        return INT64_MAX; /* the library has seen to it that it is a number */
    }
    return size;
}

/* libmicrohttpd 0.9.75 glues a line that begins with a blank to the name of the header before it:
 * "Content: 10", " -Length" becomes a Content-Length, and "Content-Length:", " 10" none. It copies
 * the name for that. Any other name and its value stand in one line, only blanks between them. */
static bool is_folded(const char *name, size_t name_size, const char *value)
{
    uintptr_t at = (uintptr_t)name + name_size, end = (uintptr_t)value;
    const char *gap = name + name_size;
    while (at < end && (*gap == '\0' || *gap == ' ' || *gap == '\t')) {
        at++;
        gap++;
    }
    return at != end;
}

static enum MHD_Result add_header(void *self, enum MHD_ValueKind kind, const char *name,
                                  size_t name_size, const char *value, size_t value_size)
{
    lore_framing *framing = self;
    (void)kind;
    framing->is_folded |= is_folded(name, name_size, value);
    lore_framing_add(framing, (lore_str){name, name_size},
                     (lore_str){value, value != NULL ? value_size : 0});
    return MHD_YES;
}

/* False: it is not certain where this request ends, and it is refused. */
static bool check_framing(http_exchange *exchange, const char *version)
{
    lore_framing framing = {0};
    MHD_get_connection_values_n(exchange->connection, MHD_HEADER_KIND, add_header, &framing);
    exchange->is_old = strcmp(version, "HTTP/1.1") != 0;
    exchange->refusal = lore_framing_check(&framing, version, &exchange->error);
    exchange->must_close = exchange->refusal != 0;
    return exchange->refusal == 0;
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
    if (exchange->http->service.is_draining(exchange->http) &&
        !lore_routes[exchange->route].is_always_open) {
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
                                     const char *method, const char *path, const char *version,
                                     void **context)
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
    if (check_framing(exchange, version)) {
        check_headers(exchange);
    }
    /* A client that asks first, or would send without end, hears the refusal before it sends. */
    bool is_asking = header(exchange, "Expect") != NULL;
    if (exchange->refusal != 0 &&
        (exchange->must_close || is_asking ||
         content_length(exchange) / DISCARD_FACTOR > exchange->body_max)) {
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

enum MHD_Result lore_exchange_handle(void *self, struct MHD_Connection *connection,
                                     const char *path, const char *method, const char *version,
                                     const char *data, size_t *size, void **context)
{
    http_exchange *exchange = *context;
    if (exchange == NULL) {
        return begin_request(self, connection, method, path, version, context);
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

/* Probes and pages are not logged, nor what found no route. */
static void log_request(const http_exchange *exchange, int32_t status, int64_t elapsed_ns)
{
    lore_request_log *log = exchange->http->app->log;
    const lore_http_request *request = &exchange->request;
    if (log == NULL || exchange->route < 0 || lore_routes[exchange->route].is_always_open) {
        return;
    }
    char route[LORE_ROUTE_NAME_CAP];
    lore_request_entry entry = request->entry;
    lore_route_name(exchange->route, route);
    entry.id = lore_str_from(request->id);
    entry.time_ms = lore_clock_unix_ms() - elapsed_ns / 1000000;
    entry.route = lore_str_from(route);
    entry.status = status;
    entry.total_ms = (double)elapsed_ns / 1e6;
    if (entry.collection.len == 0) {
        entry.collection = request->segments[0]; /* of every path that has segments */
    }
    if (status >= 400 && entry.error.len == 0) {
        bool is_ours = exchange->error.status != LORE_OK;
        entry.error = is_ours ? lore_str_from(lore_status_name(exchange->error.status))
                              : LORE_STR("client_left");
    }
    lore_request_log_push(log, &entry);
}

/* The reply is out, or the connection is gone: everything of the request ends here. */
void lore_exchange_end(void *self, struct MHD_Connection *connection, void **context,
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
    int32_t status = final_status(exchange, how);
    int64_t elapsed_ns = lore_clock_ns() - exchange->started_ns;
    log_request(exchange, status, elapsed_ns); /* its strings may be the reply's */
    if (exchange->reply.release != NULL) {
        exchange->reply.release(exchange->reply.self);
    }
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

size_t lore_exchange_unescape(void *self, struct MHD_Connection *connection, char *text)
{
    (void)self;
    (void)connection;
    return strlen(text);
}
