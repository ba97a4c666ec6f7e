/* See bench_http.h. Bytes gather in one buffer; after each read it is looked at from the front
 * again, which is cheap for replies of a few kilobytes and keeps the parser a pure function. */
#include "bench/bench_http.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { REPLY_BYTES_MAX = 64 << 20, READ_BYTES = 1 << 16, TIMEOUT_S = 130 };

static lore_status connect_to(lore_bench_http *client, lore_error *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)client->port)};
    const struct timeval timeout = {TIMEOUT_S, 0};
    const int on = 1;
    if (inet_pton(AF_INET, client->host, &address.sin_addr) != 1) {
        return lore_fail(err, LORE_ERR_INVALID, "'%s' is no address", client->host);
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) != 0) {
        lore_status status = lore_fail(err, LORE_ERR_IO, "cannot connect to %s:%d: %s",
                                       client->host, (int)client->port, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return status;
    }
    client->fd = fd;
    return LORE_OK;
}

static void disconnect(lore_bench_http *client)
{
    if (client->fd >= 0) {
        close(client->fd);
        client->fd = -1;
    }
}

void lore_bench_http_init(lore_bench_http *client, const char *host, int32_t port)
{
    *client = (lore_bench_http){.host = host, .port = port, .fd = -1};
    lore_buf_init(&client->in, REPLY_BYTES_MAX);
    lore_buf_init(&client->out, 0);
}

void lore_bench_http_close(lore_bench_http *client)
{
    disconnect(client);
    lore_buf_destroy(&client->in);
    lore_buf_destroy(&client->out);
}

/* ---- the reply's shape ---- */

/* The value of a header, names in any case; ptr NULL where it is absent. */
static lore_str header(lore_str head, lore_str name)
{
    lore_str line;
    while (lore_str_next_line(&head, &line)) {
        if (line.len > name.len && line.ptr[name.len] == ':' &&
            lore_str_equal_nocase(lore_str_slice(line, 0, name.len), name)) {
            return lore_str_trim(lore_str_slice(line, name.len + 1, line.len));
        }
    }
    return (lore_str){0};
}

/* The size in front of a chunk, hexadecimal; -1: none. */
static int64_t chunk_size(lore_str line)
{
    int64_t size = 0;
    size_t i = 0;
    for (; i < line.len && line.ptr[i] != ';'; i++) {
        const char *at = strchr("00112233445566778899aAbBcCdDeEfF", line.ptr[i]);
        if (at == NULL || line.ptr[i] == '\0' || size > REPLY_BYTES_MAX) {
            return -1;
        }
        size = 16 * size + (at - "00112233445566778899aAbBcCdDeEfF") / 2;
    }
    return i > 0 ? size : -1;
}

static int64_t chunked_end(lore_str bytes, size_t at)
{
    for (;;) {
        size_t line_end = lore_str_find(bytes, LORE_STR("\r\n"), at);
        if (line_end == SIZE_MAX) {
            return 0;
        }
        int64_t size = chunk_size(lore_str_slice(bytes, at, line_end));
        if (size < 0 || size > REPLY_BYTES_MAX) {
            return -1;
        }
        at = line_end + 2 + (size_t)size + 2; /* no trailers: our server sends none */
        if (at > bytes.len) {
            return 0;
        }
        if (size == 0) {
            return (int64_t)at;
        }
    }
}

int64_t lore_bench_http_end(lore_str bytes, bool has_closed)
{
    size_t head_end = lore_str_find(bytes, LORE_STR("\r\n\r\n"), 0);
    int64_t length = 0;
    if (!lore_str_starts(bytes, LORE_STR("HTTP/1.1 "))) {
        return bytes.len >= 9 ? -1 : 0;
    }
    if (head_end == SIZE_MAX) {
        return 0;
    }
    lore_str head = lore_str_slice(bytes, 0, head_end);
    size_t body = head_end + 4;
    if (lore_str_equal_nocase(header(head, LORE_STR("transfer-encoding")), LORE_STR("chunked"))) {
        return chunked_end(bytes, body);
    }
    lore_str size = header(head, LORE_STR("content-length"));
    if (size.ptr == NULL) {
        return has_closed ? (int64_t)bytes.len : 0;
    }
    if (!lore_str_to_int64(size, &length) || length < 0 || length > REPLY_BYTES_MAX) {
        return -1;
    }
    return bytes.len >= body + (size_t)length ? (int64_t)body + length : 0;
}

/* ---- a request ---- */

static lore_status send_all(lore_bench_http *client, lore_error *err)
{
    for (size_t at = 0; at < client->out.len;) {
        ssize_t sent = send(client->fd, client->out.ptr + at, client->out.len - at, MSG_NOSIGNAL);
        if (sent <= 0) {
            return lore_fail(err, LORE_ERR_IO, "cannot send: %s", strerror(errno));
        }
        at += (size_t)sent;
    }
    return LORE_OK;
}

/* *has_closed: the server has, and nothing was read. */
static lore_status read_more(lore_bench_http *client, bool *has_closed, lore_error *err)
{
    if (!lore_buf_reserve(&client->in, READ_BYTES)) {
        return lore_fail(err, LORE_ERR_LIMIT, "a reply of more than %d bytes",
                         (int)REPLY_BYTES_MAX);
    }
    ssize_t got = recv(client->fd, client->in.ptr + client->in.len, READ_BYTES, 0);
    if (got < 0) {
        return lore_fail(err, LORE_ERR_IO, "the connection failed in a reply: %s", strerror(errno));
    }
    *has_closed = got == 0;
    client->in.len += (size_t)got;
    return LORE_OK;
}

static lore_status read_reply(lore_bench_http *client, lore_bench_reply *reply, lore_error *err)
{
    int64_t end = 0, number = 0;
    bool has_closed = false;
    while (end == 0) {
        lore_status status = read_more(client, &has_closed, err);
        if (status != LORE_OK) {
            return status;
        }
        lore_str bytes = lore_buf_str(&client->in);
        reply->done_ns = lore_clock_ns();
        if (reply->first_text_ns == 0 &&
            lore_str_find(bytes, LORE_STR("event: delta"), 0) != SIZE_MAX) {
            reply->first_text_ns = reply->done_ns;
        }
        end = lore_bench_http_end(bytes, has_closed);
        if (end < 0 || (end == 0 && has_closed)) {
            return lore_fail(err, LORE_ERR_IO, "the server sent no whole HTTP reply");
        }
    }
    lore_str bytes = lore_buf_str(&client->in);
    if (lore_str_to_int64(lore_str_slice(bytes, 9, 12), &number)) {
        reply->status = (int32_t)number;
    }
    reply->is_whole = lore_str_find(bytes, LORE_STR("event: done"), 0) != SIZE_MAX;
    size_t head_end = lore_str_find(bytes, LORE_STR("\r\n\r\n"), 0);
    if (has_closed ||
        lore_str_equal_nocase(header(lore_str_slice(bytes, 0, head_end), LORE_STR("connection")),
                              LORE_STR("close"))) {
        disconnect(client);
    }
    return LORE_OK;
}

lore_status lore_bench_http_post(lore_bench_http *client, const char *path, lore_str body,
                                 lore_bench_reply *reply, lore_error *err)
{
    *reply = (lore_bench_reply){0};
    lore_buf_reset(&client->in);
    lore_buf_reset(&client->out);
    lore_buf_printf(&client->out,
                    "POST %s HTTP/1.1\r\nHost: lore\r\nContent-Type: application/json\r\n"
                    "Content-Length: %zu\r\n\r\n",
                    path, body.len);
    lore_buf_append(&client->out, body); /* one write: no packet waits for another's echo */
    if (lore_buf_failed(&client->out)) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a request");
    }
    reply->sent_ns = lore_clock_ns(); /* a new connection is part of the wait */
    lore_status status = client->fd < 0 ? connect_to(client, err) : LORE_OK;
    if (status == LORE_OK) {
        status = send_all(client, err);
    }
    if (status == LORE_OK) {
        status = read_reply(client, reply, err);
    }
    if (status != LORE_OK) {
        disconnect(client);
    }
    return status;
}
