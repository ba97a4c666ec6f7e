/* A client that times: one connection kept open, one request at a time, and the moment at which the
 * first released text of a stream arrived.
 *
 * It trusts its server, which is ours, but not its lengths: a reply has a cap. Thread: one a
 * client. */
#ifndef LORE_BENCH_BENCH_HTTP_H
#define LORE_BENCH_BENCH_HTTP_H

#include "base/str.h"

typedef struct lore_bench_http {
    const char *host; /* borrowed */
    int32_t port;
    int fd; /* -1: not connected, which the next request mends */
    lore_buf in;
    lore_buf out;
} lore_bench_http;

typedef struct lore_bench_reply {
    int32_t status;
    int64_t sent_ns, first_text_ns, done_ns; /* first_text_ns 0: no delta event came */
    bool is_whole;                           /* a stream ended with its done event */
} lore_bench_reply;

/* host is numeric and borrowed until close. Nothing is sent yet. */
void lore_bench_http_init(lore_bench_http *client, const char *host, int32_t port);
void lore_bench_http_close(lore_bench_http *client);
/* Send and read the whole reply: plain, chunked, or up to where the server closes. LORE_ERR_IO,
 * LORE_ERR_LIMIT, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_bench_http_post(lore_bench_http *client, const char *path,
                                               lore_str body, lore_bench_reply *reply,
                                               lore_error *err);

/* How far a reply that is being read has come: bytes of it, headers included, or 0 while more must
 * be read; -1 for what is no reply. has_closed: nothing more will come. Pure. */
int64_t lore_bench_http_end(lore_str bytes, bool has_closed);

#endif
