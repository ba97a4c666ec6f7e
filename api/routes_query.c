/* POST /query and POST /retrieve.
 *
 * Blocking, the answer's walk runs on the connection's thread. Streaming, it runs on the thread of
 * a sink and its callbacks write events; a failure before the first event is still an ordinary
 * error reply, a later one is the `error` event. Events, in this order: passages, then delta and
 * citation mixed, then done or error (docs/api.md). */
#include "api/routes_int.h"
#include "api/wire.h"
#include "base/json.h"

/* One question under way: what its callbacks need. Lives in the request's arena. */
typedef struct query_run {
    lore_service *service;
    lore_http_request *request;
    lore_wire_query parsed;
    lore_sink *sink; /* streaming only */
    lore_buf event;  /* scratch for one event */
    bool has_sent;   /* an event went out: failures are events from then on */
} query_run;

static void release_query(void *self)
{
    query_run *run = self;
    lore_json_free(run->parsed.root);
    lore_buf_destroy(&run->event);
}

/* "a,b". */
static lore_status join_collections(const lore_query *query, lore_arena *arena, lore_str *joined,
                                    lore_error *err)
{
    *joined = query->collection_count == 0 ? LORE_STR("default") : query->collections[0];
    for (int32_t i = 1; i < query->collection_count; i++) {
        *joined = lore_str_printf(arena, LORE_STR_FMT "," LORE_STR_FMT, LORE_STR_ARG(*joined),
                                  LORE_STR_ARG(query->collections[i]));
        if (joined->ptr == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "no memory for a query");
        }
    }
    return LORE_OK;
}

/* What the request log says of a question whose answer is there, or failed for `reason`. */
static void note_answer(lore_request_entry *entry, const lore_answer *answer, lore_status reason)
{
    if (reason != LORE_OK) {
        entry->error = lore_str_from(lore_status_name(reason));
        return;
    }
    entry->mode = lore_str_from(lore_mode_name(answer->mode_used));
    entry->is_refused = answer->is_refused;
    entry->embed_ms = answer->embed_ms;
    entry->search_ms = answer->search_ms;
    entry->evidence_ms = answer->evidence_ms;
    entry->queue_ms = answer->queue_ms;
    entry->first_token_ms = answer->first_token_ms;
    entry->prompt_tokens = answer->prompt_tokens;
    entry->completion_tokens = answer->completion_tokens;
}

static lore_status begin_query(lore_service *service, lore_http_request *request,
                               lore_http_reply *reply, query_run **run_out, lore_error *err)
{
    query_run *run = LORE_PUSH(request->arena, query_run, 1);
    if (run == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a query");
    }
    run->service = service;
    run->request = request;
    lore_buf_init(&run->event, 0);
    lore_status status = lore_wire_parse_query(request->body, service->app->config, request->arena,
                                               &run->parsed, err);
    if (status != LORE_OK) {
        return status;
    }
    run->parsed.query.deadline_ns = request->deadline_ns;
    reply->self = run;
    reply->release = release_query;
    *run_out = run;
    request->entry.mode = lore_str_from(lore_mode_name(run->parsed.query.mode));
    request->entry.question = run->parsed.query.question;
    request->entry.adapter = run->parsed.query.adapter;
    return join_collections(&run->parsed.query, request->arena, &request->entry.collection, err);
}

/* Frame what run->event holds and send it. The scratch is laid out as "event: name\ndata: ", JSON.
 */
static void send_event(query_run *run)
{
    lore_buf_append(&run->event, LORE_STR("\n\n"));
    if (!lore_buf_failed(&run->event)) {
        run->has_sent = true;
        /* A false return means cancelled: the answer's walk hears of it through is_gone. */
        (void)lore_sink_write(run->sink, lore_buf_str(&run->event));
    } else {
        lore_sink_cancel(run->sink); /* out of memory: a stream with a hole would be a lie */
    }
}

static lore_buf *begin_event(query_run *run, const char *name)
{
    lore_buf_reset(&run->event);
    lore_buf_printf(&run->event, "event: %s\ndata: ", name);
    return &run->event;
}

static void on_passages(void *self, const lore_answer *answer)
{
    query_run *run = self;
    lore_wire_passages(answer, begin_event(run, "passages"));
    send_event(run);
}

static void on_delta(void *self, lore_str text)
{
    query_run *run = self;
    lore_json_writer w;
    lore_json_write_begin(&w, begin_event(run, "delta"));
    lore_json_object(&w, NULL);
    lore_json_string(&w, "text", text);
    lore_json_end(&w);
    send_event(run);
}

static void on_citation(void *self, const lore_answer *answer, const lore_citation *citation)
{
    query_run *run = self;
    lore_wire_citation(answer, citation, begin_event(run, "citation"));
    send_event(run);
}

static bool is_stream_gone(void *self)
{
    query_run *run = self;
    return lore_sink_is_cancelled(run->sink) || lore_http_is_gone(run->request);
}

static bool is_query_gone(void *self)
{
    query_run *run = self;
    return lore_http_is_gone(run->request);
}

/* Runs on the sink's thread. A failure before the first event is returned and becomes an ordinary
 * error reply; later ones are the `error` event. */
static lore_status stream_query(void *self, lore_sink *sink, lore_error *err)
{
    query_run *run = self;
    run->sink = sink;
    lore_answer_events events = {run, on_passages, on_delta, on_citation, is_stream_gone};
    lore_answer answer = {0};
    lore_status status = lore_answer_run(&run->service->app->answerer, &run->parsed.query, &events,
                                         run->request->arena, &answer, err);
    note_answer(&run->request->entry, &answer, status);
    if (status == LORE_OK) {
        lore_metrics_answer(run->service->metrics, &answer);
        lore_wire_answer(&answer, false, begin_event(run, "done"));
        send_event(run);
    } else if (run->has_sent) {
        (void)lore_wire_error(err, begin_event(run, "error"));
        send_event(run);
    }
    return status;
}

static lore_status run_query(lore_service *service, query_run *run, lore_answer *answer,
                             lore_error *err)
{
    lore_answer_events events = {.self = run, .is_gone = is_query_gone};
    lore_status status = lore_answer_run(&service->app->answerer, &run->parsed.query, &events,
                                         run->request->arena, answer, err);
    note_answer(&run->request->entry, answer, status);
    if (status == LORE_OK) {
        lore_metrics_answer(service->metrics, answer);
    }
    return status;
}

lore_status lore_route_post_query(lore_service *service, lore_http_request *request,
                                  lore_http_reply *reply, lore_error *err)
{
    query_run *run = NULL;
    lore_status status = begin_query(service, request, reply, &run, err);
    if (status != LORE_OK) {
        return status;
    }
    if (run->parsed.is_streaming) {
        reply->stream = stream_query;
        return LORE_OK;
    }
    lore_answer answer = {0};
    status = run_query(service, run, &answer, err);
    if (status == LORE_OK) {
        lore_wire_answer(&answer, true, &reply->body);
    }
    return status;
}

lore_status lore_route_post_retrieve(lore_service *service, lore_http_request *request,
                                     lore_http_reply *reply, lore_error *err)
{
    query_run *run = NULL;
    lore_status status = begin_query(service, request, reply, &run, err);
    if (status != LORE_OK) {
        return status;
    }
    run->parsed.query.mode = LORE_MODE_CONTEXT;
    request->entry.mode = lore_str_from(lore_mode_name(LORE_MODE_CONTEXT));
    lore_answer answer = {0};
    status = run_query(service, run, &answer, err);
    if (status == LORE_OK) {
        lore_wire_retrieval(&answer, &reply->body);
    }
    return status;
}
