/* The HTTP service: the libmicrohttpd fence.
 *
 * One thread per connection, capped: a query is one straight function on one thread. A streamed
 * reply has a second thread that makes its bytes (sink.h). Bodies are counted, a request has to
 * arrive within its deadlines, a client that leaves ends the work for it. Thread: start and stop
 * from the owner; the rest any. */
#ifndef LORE_API_HTTP_H
#define LORE_API_HTTP_H

#include "api/app.h"

typedef struct lore_http lore_http;

/* Listens on config->listen ("127.0.0.1:0" takes a free port, "[::1]:8080" is IPv6). app is
 * borrowed until stop. LORE_ERR_INVALID: not an address; LORE_ERR_IO: it cannot be listened on, and
 * why. */
LORE_MUST_USE lore_status lore_http_start(lore_app *app, lore_http **http, lore_error *err);
const char *lore_http_address(const lore_http *http); /* "127.0.0.1:8080"; borrowed */
/* What a process on this machine connects to: the address with 0.0.0.0 and :: made loopback. */
const char *lore_http_local_address(const lore_http *http);
/* Drain: new requests get 503, open ones may finish until the deadline, then they are cancelled;
 * closes. Accepts NULL. */
void lore_http_stop(lore_http *http, int64_t deadline_ns);
/* Name and version of the library, for `lore doctor`. */
const char *lore_http_library(void);

#endif
