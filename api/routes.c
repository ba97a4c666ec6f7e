/* The table of routes, how a path finds its row, and the routes of the service itself.
 *
 * Each route is written like the walk it is: read the request, call one or two functions of the
 * floors below, write the reply. Failures go up as they are; http.c turns them into the error
 * object. */
#include "api/routes.h"

#include "api/assets.h"
#include "api/routes_int.h"
#include "base/clock.h"
#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

/* ---- the service itself ---- */

static void reply_state(lore_http_reply *reply, const char *state)
{
    lore_buf_printf(&reply->body, "{\"status\":\"%s\",\"version\":\"%s\"}", state, LORE_VERSION);
}

static lore_status get_health(lore_service *service, lore_http_request *request,
                              lore_http_reply *reply, lore_error *err)
{
    (void)service;
    (void)request;
    (void)err;
    reply_state(reply, "ok");
    return LORE_OK;
}

static lore_status get_ready(lore_service *service, lore_http_request *request,
                             lore_http_reply *reply, lore_error *err)
{
    (void)request;
    (void)err;
    bool is_draining = service->is_draining(service->fence);
    /* Without its decoder the service still answers, in quotations. */
    bool is_degraded = atomic_load_explicit(&service->app->is_failing, memory_order_relaxed);
    reply->status = is_draining ? 503 : 200;
    reply_state(reply, is_draining ? "draining" : is_degraded ? "degraded" : "ready");
    return LORE_OK;
}

static lore_status get_metrics(lore_service *service, lore_http_request *request,
                               lore_http_reply *reply, lore_error *err)
{
    (void)request;
    reply->content_type = "text/plain; version=0.0.4; charset=utf-8";
    return lore_metrics_print(service->metrics, service->app, &reply->body, err);
}

static void write_usage(const lore_usage *rows, int32_t count, int64_t days, int64_t dropped,
                        lore_buf *out)
{
    lore_json_writer w;
    lore_json_write_begin(&w, out);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "object", LORE_STR("lore.usage"));
    lore_json_int(&w, "days", days);
    lore_json_array(&w, "usage");
    for (int32_t i = 0; i < count; i++) {
        lore_json_object(&w, NULL);
        lore_json_string(&w, "day", rows[i].day);
        lore_json_string(&w, "collection", rows[i].collection);
        lore_json_string(&w, "adapter", rows[i].adapter);
        lore_json_string(&w, "key_id", rows[i].key_id);
        lore_json_int(&w, "requests", rows[i].requests);
        lore_json_int(&w, "refused", rows[i].refused);
        lore_json_int(&w, "failed", rows[i].failed);
        lore_json_int(&w, "prompt_tokens", rows[i].prompt_tokens);
        lore_json_int(&w, "completion_tokens", rows[i].completion_tokens);
        lore_json_end(&w);
    }
    lore_json_end(&w);
    lore_json_int(&w, "dropped", dropped);
    lore_json_end(&w);
}

static lore_status get_usage(lore_service *service, lore_http_request *request,
                             lore_http_reply *reply, lore_error *err)
{
    enum { DAYS_DEFAULT = 30 };
    const lore_request_log *log = service->app->log;
    lore_usage *rows = NULL;
    lore_str asked = {NULL, 0};
    int64_t days = DAYS_DEFAULT;
    int32_t count = 0;
    lore_status status = lore_http_argument(request, "days", &asked, err);
    if (status != LORE_OK) {
        return status;
    }
    if (asked.len > 0 &&
        (!lore_str_to_int64(asked, &days) || days < 1 || days > LORE_USAGE_DAYS_MAX)) {
        return lore_fail(err, LORE_ERR_INVALID, "days must be a number from 1 to %d",
                         LORE_USAGE_DAYS_MAX);
    }
    if (log == NULL) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "no request log is kept (request_log_rows is 0, or the data folder is "
                         "read-only)");
    }
    status = lore_request_log_usage(log, (int32_t)days, request->arena, &rows, &count, err);
    if (status == LORE_OK) {
        write_usage(rows, count, days, lore_request_log_dropped(log), &reply->body);
    }
    return status;
}

static lore_status get_openapi(lore_service *service, lore_http_request *request,
                               lore_http_reply *reply, lore_error *err)
{
    (void)service;
    (void)request;
    (void)err;
    reply->fixed = lore_asset_openapi();
    return LORE_OK;
}

static lore_status get_page(lore_service *service, lore_http_request *request,
                            lore_http_reply *reply, lore_error *err)
{
    (void)service;
    (void)request;
    (void)err;
    reply->content_type = "text/html; charset=utf-8";
    reply->policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                    "frame-ancestors 'none'";
    reply->fixed = lore_asset_page();
    return LORE_OK;
}

/* ---- the table ---- */

/* Behind the function: served while draining, takes files. */
const lore_route lore_routes[] = {
    {"POST", "/query", lore_route_post_query, false, false},
    {"POST", "/retrieve", lore_route_post_retrieve, false, false},
    {"GET", "/collections", lore_route_get_collections, false, false},
    {"PUT", "/collections/{}", lore_route_put_collection, false, false},
    {"DELETE", "/collections/{}", lore_route_delete_collection, false, false},
    {"GET", "/collections/{}/documents", lore_route_get_documents, false, false},
    {"POST", "/collections/{}/documents", lore_route_post_documents, false, true},
    {"GET", "/collections/{}/documents/{}", lore_route_get_document, false, false},
    {"PUT", "/collections/{}/documents/{}", lore_route_put_document, false, true},
    {"DELETE", "/collections/{}/documents/{}", lore_route_delete_document, false, false},
    {"GET", "/collections/{}/documents/{}/chunks", lore_route_get_chunks, false, false},
    {"GET", "/v1/adapters", lore_route_get_adapters, false, false},
    {"POST", "/v1/load_lora_adapter", lore_route_load_adapter, false, false},
    {"POST", "/v1/unload_lora_adapter", lore_route_unload_adapter, false, false},
    {"GET", "/usage", get_usage, false, false},
    {"GET", "/health", get_health, true, false},
    {"GET", "/ready", get_ready, true, false},
    {"GET", "/metrics", get_metrics, true, false},
    {"GET", "/openapi.json", get_openapi, true, false},
    {"GET", "/", get_page, true, false},
};
const int32_t lore_route_count = sizeof lore_routes / sizeof lore_routes[0];

lore_status lore_url_decode(lore_str text, lore_arena *arena, lore_str *decoded, lore_error *err)
{
    char *out = lore_arena_push(arena, text.len + 1);
    if (out == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for an address");
    }
    size_t size = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '%') {
            int high = i + 2 < text.len ? lore_hex_digit(text.ptr[i + 1]) : -1;
            int low = i + 2 < text.len ? lore_hex_digit(text.ptr[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return lore_fail(err, LORE_ERR_INVALID, "address: broken percent escape");
            }
            c = (char)(high * 16 + low);
            i += 2;
        }
        if ((unsigned char)c < 32 || c == 127) {
            return lore_fail(err, LORE_ERR_INVALID, "address: control characters are not allowed");
        }
        out[size++] = c;
    }
    out[size] = '\0';
    *decoded = (lore_str){out, size};
    return lore_utf8_valid(*decoded) == size
               ? LORE_OK
               : lore_fail(err, LORE_ERR_INVALID, "address: not valid UTF-8");
}

/* Does the path have the pattern's shape? Raw segments for {} go to `raw`. */
static bool match_pattern(const char *pattern, lore_str path, lore_str *raw, int32_t *raw_count)
{
    size_t at = 0;
    *raw_count = 0;
    while (*pattern != '\0') {
        if (pattern[0] == '{') {
            size_t start = at;
            while (at < path.len && path.ptr[at] != '/') {
                at++;
            }
            if (at == start) {
                return false;
            }
            raw[(*raw_count)++] = lore_str_slice(path, start, at);
            pattern += 2;
        } else if (at < path.len && path.ptr[at] == *pattern) {
            at++;
            pattern++;
        } else {
            return false;
        }
    }
    return at == path.len;
}

/* One more method of a path: "GET, HEAD, PUT". */
static lore_status allow_method(lore_http_request *request, const char *method,
                                const char **allowed, lore_error *err)
{
    const char *words = strcmp(method, "GET") == 0 ? "GET, HEAD" : method;
    lore_str joined = *allowed == NULL ? lore_str_from(words)
                                       : lore_str_printf(request->arena, "%s, %s", *allowed, words);
    *allowed = joined.ptr != NULL ? lore_str_to_c(request->arena, joined) : NULL;
    return *allowed != NULL ? LORE_OK : lore_fail(err, LORE_ERR_NOMEM, "no memory for an address");
}

static lore_status decode_segments(lore_http_request *request, const lore_str *raw, int32_t count,
                                   lore_error *err)
{
    lore_status status = LORE_OK;
    for (int32_t k = 0; status == LORE_OK && k < count; k++) {
        status = lore_url_decode(raw[k], request->arena, &request->segments[k], err);
    }
    return status;
}

lore_status lore_route_find(lore_http_request *request, int32_t *route, const char **allowed,
                            lore_error *err)
{
    lore_str raw[LORE_ROUTE_SEGMENTS_MAX];
    int32_t raw_count = 0;
    const char *method = strcmp(request->method, "HEAD") == 0 ? "GET" : request->method;
    lore_status status = LORE_OK;
    *route = -1;
    *allowed = NULL;
    for (int32_t i = 0; status == LORE_OK && i < lore_route_count; i++) {
        if (!match_pattern(lore_routes[i].pattern, request->path, raw, &raw_count)) {
            continue;
        }
        if (strcmp(lore_routes[i].method, method) != 0) {
            *route = -2;
            status = allow_method(request, lore_routes[i].method, allowed, err);
            continue;
        }
        *route = i;
        return decode_segments(request, raw, raw_count, err);
    }
    return status;
}

void lore_route_name(int32_t route, char out[LORE_ROUTE_NAME_CAP])
{
    snprintf(out, LORE_ROUTE_NAME_CAP, "%s %s", lore_routes[route].method,
             lore_routes[route].pattern);
}

int64_t lore_route_body_max(int32_t route, const lore_limits *limits)
{
    bool takes_files = route >= 0 && lore_routes[route].takes_files;
    return takes_files && limits->file_bytes_max > limits->body_bytes_max ? limits->file_bytes_max
                                                                          : limits->body_bytes_max;
}

void lore_request_id(const char *given, char out[LORE_REQUEST_ID_CAP])
{
    size_t size = given != NULL ? strnlen(given, LORE_REQUEST_ID_CAP) : 0;
    bool is_usable = size > 0 && size < LORE_REQUEST_ID_CAP;
    for (size_t i = 0; is_usable && i < size; i++) {
        is_usable = given[i] > ' ' && given[i] < 127 && given[i] != '"' && given[i] != '\\';
    }
    if (is_usable) {
        memcpy(out, given, size + 1);
    } else {
        lore_id_new("r_", out, LORE_REQUEST_ID_CAP);
    }
}
