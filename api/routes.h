/* What a route sees of HTTP: a request, a reply, the service. The library stays behind http.c.
 *
 * A route is one function. It fills the reply's buffer (or names a stream) and returns LORE_OK, or
 * fails like any other function: the fence turns the failure into the error object. Thread: the
 * connection's own; a stream runs on the thread of its sink. */
#ifndef LORE_API_ROUTES_H
#define LORE_API_ROUTES_H

#include "api/app.h"
#include "api/metrics.h"
#include "api/sink.h"

enum { LORE_ROUTE_SEGMENTS_MAX = 3, LORE_REQUEST_ID_CAP = 129, LORE_ROUTE_NAME_CAP = 96 };

typedef struct lore_http_request {
    const char *id;     /* X-Request-Id */
    const char *method; /* "GET"; HEAD is served as GET */
    lore_str path;      /* as sent, still percent-encoded, without the query string */
    lore_str segments[LORE_ROUTE_SEGMENTS_MAX]; /* what the pattern's {} stand for, decoded */
    lore_str content_type;                      /* as sent; empty: none */
    lore_str body;
    lore_arena *arena; /* lives until the reply, streamed or not, is over */
    int64_t deadline_ns;
    /* What the request log will say of it. A route fills in what it alone knows; strings must live
     * as long as the arena. */
    lore_request_entry entry;
    void *connection; /* of the fence */
} lore_http_request;

/* The decoded value of one argument of the query string, in the request's arena; empty when absent.
 * LORE_ERR_INVALID where lore_url_decode refuses it. */
LORE_MUST_USE lore_status lore_http_argument(const lore_http_request *request, const char *name,
                                             lore_str *value, lore_error *err);
/* True when the client has left or the service stops: work for it can end. self is a request. */
bool lore_http_is_gone(void *self);

typedef struct lore_http_reply {
    int status;               /* 200 */
    const char *content_type; /* "application/json" */
    lore_buf body;
    lore_str fixed;       /* a body that is part of the program, instead of `body` */
    const char *policy;   /* Content-Security-Policy, or NULL */
    lore_sink_run stream; /* not NULL: server-sent events, run(self, sink) */
    void *self;
    void (*release)(void *self); /* not NULL: called once when the reply is over */
} lore_http_reply;

typedef struct lore_service {
    lore_app *app; /* borrowed */
    lore_metrics *metrics;
    bool (*is_draining)(void *fence); /* true once the service is stopping */
    void *fence;
} lore_service;

typedef lore_status (*lore_route_run)(lore_service *service, lore_http_request *request,
                                      lore_http_reply *reply, lore_error *err);
typedef struct lore_route {
    const char *method;  /* what it accepts */
    const char *pattern; /* "/collections/{}/documents": {} stands for one segment */
    lore_route_run run;
    bool is_always_open; /* also served while draining */
    bool takes_files;    /* the body may be as long as a file */
} lore_route;

extern const lore_route lore_routes[];
extern const int32_t lore_route_count;

/* The index of the route of method and path, segments decoded into the request's arena; -1: no such
 * path, -2: the path knows other methods only (*allowed lists them, in the request's arena).
 * LORE_ERR_INVALID: a segment is not valid. */
LORE_MUST_USE lore_status lore_route_find(lore_http_request *request, int32_t *route,
                                          const char **allowed, lore_error *err);
/* "PUT /collections/{}", as metrics and the request log name it. */
void lore_route_name(int32_t route, char out[LORE_ROUTE_NAME_CAP]);
/* Bytes that the body of a request to the route may have; route may be -1. */
int64_t lore_route_body_max(int32_t route, const lore_limits *limits);
/* Percent-decoding; LORE_ERR_INVALID for broken escapes, bytes that are not UTF-8 and control
 * characters. */
LORE_MUST_USE lore_status lore_url_decode(lore_str text, lore_arena *arena, lore_str *decoded,
                                          lore_error *err);

/* The client's request id where it is harmless in headers and logs (printable, without quotes, at
 * most 128 characters), else one of ours. given may be NULL. */
void lore_request_id(const char *given, char out[LORE_REQUEST_ID_CAP]);

/* Objects of the contract that commands print too. write_document adds the members to an open
 * object; the others write whole objects. */
void lore_routes_write_document(lore_json_writer *w, const lore_document_info *document);
/* Its text, and where its pages begin in it. */
void lore_routes_write_text(lore_json_writer *w, const lore_document_info *document);
void lore_routes_write_chunk(lore_json_writer *w, const lore_chunk *chunk, lore_arena *arena);
void lore_routes_write_adapters(const lore_adapter_view *list, int32_t count,
                                const lore_adapters_stats *stats, lore_buf *out);
void lore_routes_write_collections(const lore_collection_info *list, int32_t count, lore_buf *out);

#endif
