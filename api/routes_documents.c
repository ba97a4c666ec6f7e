/* Documents and collections over HTTP. What changes the index is handed to its writer, which
 * commits it together with what others hand over meanwhile; reading never waits for that. */
#include "api/routes_int.h"
#include "api/wire.h"
#include "base/clock.h"
#include "base/json.h"

#include <math.h>

/* Bounds of a page of documents. */
enum { PAGE_DEFAULT = 100, PAGE_MAX = 1000 };

/* ---- documents in ---- */

/* What the callbacks of one document need. */
typedef struct document_call {
    lore_app *app;
    lore_http_request *request;
} document_call;

static bool is_unwanted(void *self)
{
    lore_http_request *request = ((document_call *)self)->request;
    return lore_deadline_passed(request->deadline_ns) || lore_http_is_gone(request);
}

static lore_status why_unwanted(const document_call *call, lore_error *err)
{
    if (!lore_deadline_passed(call->request->deadline_ns)) {
        return lore_fail(err, LORE_ERR_CANCELLED, "the client left, or the service is stopping");
    }
    return lore_fail(err, LORE_ERR_TIMEOUT,
                     "the document was not ready within %lld ms (limits.request_timeout_ms); "
                     "nothing of it is written",
                     (long long)call->app->config->limits.request_timeout_ms);
}

/* Clean, cut and embed in the background, then be written. */
static lore_status ingest_document(lore_service *service, lore_http_request *request,
                                   const lore_raw_document *raw, lore_arena *arena,
                                   lore_ingest_result *result, lore_error *err)
{
    lore_app *app = service->app;
    lore_writer *writer = NULL;
    document_call call = {app, request};
    const lore_ingest_one_options options = {.collection = request->segments[0],
                                             .background = app->background,
                                             .deadline_ns = request->deadline_ns,
                                             .self = &call,
                                             .is_cancelled = is_unwanted};
    lore_status status = lore_app_writer(app, &writer, err);
    if (status == LORE_OK) {
        status = lore_app_begin_document(app, raw->bytes.len, is_unwanted, &call, err);
    }
    if (status == LORE_OK) {
        status =
            lore_ingest_one(writer, app->embedder, app->config, &options, raw, arena, result, err);
        lore_app_end_document(app, raw->bytes.len);
    }
    return status == LORE_ERR_CANCELLED ? why_unwanted(&call, err)
                                        : lore_document_limit(status, arena, err);
}

/* What a document of so many bytes may take, beside the copy of it that JSON needs. */
static void raise_cap(const lore_service *service, lore_arena *arena, size_t bytes)
{
    arena->cap_bytes =
        lore_document_arena_cap(&service->app->config->limits, bytes) + arena->used_bytes + bytes;
}

/* "Text/HTML; charset=x" without what follows the semicolon. */
static lore_str media_type(const lore_http_request *request)
{
    lore_str all = request->content_type;
    size_t end = lore_str_find(all, LORE_STR(";"), 0);
    return lore_str_trim(end == SIZE_MAX ? all : lore_str_slice(all, 0, end));
}

/* The media type as a raw body names it; LORE_MEDIA_AUTO: JSON, or none of ours. */
static lore_media media_of_body(lore_str content_type)
{
    lore_media media = lore_media_named(content_type);
    return lore_media_is_container(media) ? LORE_MEDIA_AUTO : media;
}

static bool is_json_type(lore_str content_type)
{
    /* curl -d says "form" unless told otherwise; nobody sends us forms. */
    return content_type.len == 0 ||
           lore_str_equal_nocase(content_type, LORE_STR("application/json")) ||
           lore_str_equal_nocase(content_type, LORE_STR("application/x-www-form-urlencoded"));
}

static lore_status refuse_media(lore_http_request *request, lore_http_reply *reply)
{
    lore_str message = lore_str_printf(
        request->arena,
        "a document must be application/json, application/x-ndjson, text/plain, text/markdown, "
        "text/html, text/csv or an Office, OpenDocument or EPUB file, not '" LORE_STR_FMT "'",
        LORE_STR_ARG(request->content_type));
    reply->status =
        lore_wire_error_as(415, message, LORE_STR("Content-Type"), "unsupported", &reply->body);
    return LORE_OK;
}

/* One document out of the body: JSON, or the bytes themselves with the rest in the query string.
 * The source is always an argument: JSON from clients is about documents that have none. */
static lore_status read_document(const lore_service *service, lore_http_request *request,
                                 lore_raw_document *raw, lore_error *err)
{
    lore_media media = media_of_body(media_type(request));
    raise_cap(service, request->arena, request->body.len);
    if (media == LORE_MEDIA_AUTO) {
        lore_status status = lore_raw_from_json(request->body, &service->app->config->limits,
                                                request->arena, raw, err);
        return status == LORE_OK ? lore_http_argument(request, "source", &raw->source, err)
                                 : lore_document_limit(status, request->arena, err);
    }
    *raw = (lore_raw_document){.media = media, .bytes = request->body};
    const struct {
        const char *name;
        lore_str *value;
    } arguments[] = {{"id", &raw->id},
                     {"source", &raw->source},
                     {"title", &raw->title},
                     {"url", &raw->url},
                     {"metadata", &raw->metadata}};
    lore_status status = LORE_OK;
    for (size_t i = 0; status == LORE_OK && i < sizeof arguments / sizeof arguments[0]; i++) {
        status = lore_http_argument(request, arguments[i].name, arguments[i].value, err);
    }
    return status;
}

/* Of which document it is a near-duplicate. */
static void write_near(lore_json_writer *w, lore_str near)
{
    if (near.len > 0) {
        lore_json_string(w, "near_duplicate_of", near);
    } else {
        lore_json_null(w, "near_duplicate_of");
    }
}

static lore_status reply_document(lore_service *service, lore_http_request *request,
                                  const lore_ingest_result *result, lore_http_reply *reply,
                                  lore_error *err)
{
    lore_document_info info = {0};
    lore_status status = lore_index_get_document(service->app->index, request->segments[0],
                                                 result->id, false, request->arena, &info, err);
    if (status != LORE_OK) {
        return status;
    }
    reply->status = result->fate == LORE_FATE_ADDED ? 201 : 200;
    lore_json_writer w;
    lore_json_write_begin(&w, &reply->body);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "id", result->id);
    lore_json_string(&w, "object", LORE_STR("lore.document.status"));
    lore_json_string(&w, "status", lore_str_from(lore_ingest_fate_name(result->fate)));
    lore_json_int(&w, "version", info.version);
    lore_json_int(&w, "chunks", info.chunks);
    lore_json_int(&w, "text_bytes", info.text_bytes);
    lore_json_int(&w, "tokens", result->tokens);
    write_near(&w, info.near);
    lore_json_end(&w);
    return LORE_OK;
}

lore_status lore_route_put_document(lore_service *service, lore_http_request *request,
                                    lore_http_reply *reply, lore_error *err)
{
    lore_raw_document raw = {0};
    lore_ingest_result result = {0};
    if (!is_json_type(media_type(request)) &&
        media_of_body(media_type(request)) == LORE_MEDIA_AUTO) {
        return refuse_media(request, reply);
    }
    lore_status status = read_document(service, request, &raw, err);
    if (status != LORE_OK) {
        return status;
    }
    if (raw.id.len > 0 && !lore_str_equal(raw.id, request->segments[1])) {
        return lore_fail(err, LORE_ERR_INVALID, "id must be the one in the path, or absent");
    }
    raw.id = request->segments[1];
    status = ingest_document(service, request, &raw, request->arena, &result, err);
    return status == LORE_OK ? reply_document(service, request, &result, reply, err) : status;
}

/* ---- many documents in one body ---- */

typedef struct lines_run {
    int64_t added, replaced, unchanged, failed;
    lore_json_writer documents;
} lines_run;

static lore_status ingest_line(lore_service *service, lore_http_request *request, lore_str line,
                               int64_t number, lore_arena *arena, lines_run *run, lore_error *err)
{
    lore_raw_document raw = {0};
    lore_ingest_result result = {0};
    const lore_limits *limits = &service->app->config->limits;
    lore_status status =
        (int64_t)line.len > limits->jsonl_line_bytes_max
            ? lore_fail(err, LORE_ERR_LIMIT, "line has %zu bytes, the limit is %lld", line.len,
                        (long long)limits->jsonl_line_bytes_max)
            : lore_raw_from_json(line, limits, arena, &raw, err);
    status = lore_document_limit(status, arena, err);
    if (status == LORE_OK) {
        status = ingest_document(service, request, &raw, arena, &result, err);
    }
    lore_json_writer *w = &run->documents;
    lore_json_object(w, NULL);
    lore_json_int(w, "line", number);
    if (status == LORE_OK) {
        run->added += result.fate == LORE_FATE_ADDED;
        run->replaced += result.fate == LORE_FATE_REPLACED;
        run->unchanged += result.fate == LORE_FATE_UNCHANGED;
        lore_json_string(w, "id", result.id);
        lore_json_string(w, "status", lore_str_from(lore_ingest_fate_name(result.fate)));
    } else {
        run->failed++;
        lore_json_string(w, "status", LORE_STR("failed"));
        lore_json_string(w, "message", lore_str_from(err->message));
    }
    lore_json_end(w);
    /* A bad line fails alone; a full disk or a passed deadline would fail every line after it. */
    bool is_own = status == LORE_ERR_INVALID || status == LORE_ERR_LIMIT ||
                  status == LORE_ERR_UNSUPPORTED || status == LORE_ERR_CORRUPT;
    return is_own ? LORE_OK : status;
}

static lore_status post_lines(lore_service *service, lore_http_request *request,
                              lore_http_reply *reply, lore_error *err)
{
    lines_run run = {0};
    document_call call = {service->app, request};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_json_write_begin(&run.documents, &reply->body);
    lore_json_object(&run.documents, NULL);
    lore_json_array(&run.documents, "documents");
    lore_str rest = request->body, line;
    lore_status status = LORE_OK;
    for (int64_t number = 1; status == LORE_OK && lore_str_next_line(&rest, &line); number++) {
        if (is_unwanted(&call)) {
            status = why_unwanted(&call, err);
        } else if (lore_str_trim(line).len > 0) {
            lore_arena_reset(&arena);
            raise_cap(service, &arena, line.len);
            status = ingest_line(service, request, line, number, &arena, &run, err);
        }
    }
    lore_arena_destroy(&arena);
    if (status != LORE_OK) {
        return status;
    }
    lore_json_end(&run.documents);
    lore_json_int(&run.documents, "added", run.added);
    lore_json_int(&run.documents, "replaced", run.replaced);
    lore_json_int(&run.documents, "unchanged", run.unchanged);
    lore_json_int(&run.documents, "failed", run.failed);
    lore_json_end(&run.documents);
    return LORE_OK;
}

lore_status lore_route_post_documents(lore_service *service, lore_http_request *request,
                                      lore_http_reply *reply, lore_error *err)
{
    lore_raw_document raw = {0};
    lore_ingest_result result = {0};
    if (lore_str_equal_nocase(media_type(request), LORE_STR("application/x-ndjson")) ||
        lore_str_equal_nocase(media_type(request), LORE_STR("application/jsonl"))) {
        return post_lines(service, request, reply, err);
    }
    if (!is_json_type(media_type(request)) &&
        media_of_body(media_type(request)) == LORE_MEDIA_AUTO) {
        return refuse_media(request, reply);
    }
    lore_status status = read_document(service, request, &raw, err);
    if (status == LORE_OK) {
        status = ingest_document(service, request, &raw, request->arena, &result, err);
    }
    return status == LORE_OK ? reply_document(service, request, &result, reply, err) : status;
}

/* ---- documents out ---- */

void lore_routes_write_document(lore_json_writer *w, const lore_document_info *document)
{
    lore_json_string(w, "id", document->id);
    lore_json_string(w, "title", document->title);
    lore_json_string(w, "source", document->source);
    lore_json_string(w, "url", document->url);
    lore_json_string(w, "media", document->media);
    lore_json_int(w, "version", document->version);
    write_near(w, document->near);
    lore_json_raw(w, "metadata", document->metadata.len > 0 ? document->metadata : LORE_STR("{}"));
    lore_json_int(w, "text_bytes", document->text_bytes);
    lore_json_int(w, "chunks", document->chunks);
    lore_json_int(w, "updated", document->updated_ms / 1000);
}

void lore_routes_write_text(lore_json_writer *w, const lore_document_info *document)
{
    lore_json_string(w, "text", document->text);
    if (!lore_media_has_pages(document->media)) {
        lore_json_null(w, "pages");
        return;
    }
    lore_json_array(w, "pages");
    for (int32_t i = 0; i < document->run_count; i++) {
        lore_json_object(w, NULL);
        lore_json_int(w, "page", document->runs[i].source);
        lore_json_int(w, "start", document->runs[i].text);
        lore_json_end(w);
    }
    lore_json_end(w);
}

typedef struct page_request {
    int32_t limit;
    lore_str cursor, source;
} page_request;

static lore_status read_page(const lore_http_request *request, page_request *page, lore_error *err)
{
    int64_t limit = PAGE_DEFAULT;
    lore_str asked = {0};
    lore_status status = lore_http_argument(request, "limit", &asked, err);
    if (status == LORE_OK) {
        status = lore_http_argument(request, "cursor", &page->cursor, err);
    }
    if (status == LORE_OK) {
        status = lore_http_argument(request, "source", &page->source, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (asked.len > 0 && (!lore_str_to_int64(asked, &limit) || limit < 1 || limit > PAGE_MAX)) {
        return lore_fail(err, LORE_ERR_INVALID, "limit must be a number from 1 to %d", PAGE_MAX);
    }
    page->limit = (int32_t)limit;
    return LORE_OK;
}

lore_status lore_route_get_documents(lore_service *service, lore_http_request *request,
                                     lore_http_reply *reply, lore_error *err)
{
    page_request page = {0};
    lore_status status = read_page(request, &page, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_document_info *list = NULL;
    int32_t count = 0;
    lore_str next = {0};
    status = lore_index_list_documents(service->app->index, request->segments[0], page.cursor,
                                       page.source, page.limit, request->arena, &list, &count,
                                       &next, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_json_writer w;
    lore_json_write_begin(&w, &reply->body);
    lore_json_object(&w, NULL);
    lore_json_array(&w, "documents");
    for (int32_t i = 0; i < count; i++) {
        lore_json_object(&w, NULL);
        lore_routes_write_document(&w, &list[i]);
        lore_json_end(&w);
    }
    lore_json_end(&w);
    if (next.len > 0) {
        lore_json_string(&w, "next_cursor", next);
    } else {
        lore_json_null(&w, "next_cursor");
    }
    lore_json_end(&w);
    return LORE_OK;
}

lore_status lore_route_get_document(lore_service *service, lore_http_request *request,
                                    lore_http_reply *reply, lore_error *err)
{
    lore_document_info document = {0};
    lore_status status =
        lore_index_get_document(service->app->index, request->segments[0], request->segments[1],
                                true, request->arena, &document, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_json_writer w;
    lore_json_write_begin(&w, &reply->body);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "object", LORE_STR("lore.document"));
    lore_json_string(&w, "collection", request->segments[0]);
    lore_routes_write_document(&w, &document);
    lore_routes_write_text(&w, &document);
    lore_json_end(&w);
    return LORE_OK;
}

void lore_routes_write_chunk(lore_json_writer *w, const lore_chunk *chunk, lore_arena *arena)
{
    lore_json_object(w, NULL);
    lore_json_string(w, "chunk_id", lore_wire_chunk_id(chunk->row, arena));
    lore_json_int(w, "ordinal", chunk->ordinal);
    lore_json_string(w, "heading", chunk->heading);
    lore_json_int(w, "start", (int64_t)chunk->start);
    lore_json_int(w, "end", (int64_t)chunk->end);
    lore_wire_page(w, chunk, chunk->start);
    lore_json_string(w, "text", chunk->text);
    lore_json_end(w);
}

lore_status lore_route_get_chunks(lore_service *service, lore_http_request *request,
                                  lore_http_reply *reply, lore_error *err)
{
    lore_chunk *chunks = NULL;
    int32_t count = 0;
    lore_snapshot *snapshot = lore_index_acquire(service->app->index);
    lore_status status = lore_load_document_chunks(
        snapshot, request->segments[0], request->segments[1], request->arena, &chunks, &count, err);
    lore_snapshot_release(snapshot);
    if (status != LORE_OK) {
        return status;
    }
    lore_json_writer w;
    lore_json_write_begin(&w, &reply->body);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "document_id", request->segments[1]);
    lore_json_array(&w, "chunks");
    for (int32_t i = 0; i < count; i++) {
        lore_routes_write_chunk(&w, &chunks[i], request->arena);
    }
    lore_json_end(&w);
    lore_json_end(&w);
    return LORE_OK;
}

/* ---- deleting, and collections ---- */

/* Have the writer make the change, within the time that the request has. */
static lore_status apply_change(lore_service *service, lore_http_request *request,
                                lore_change *change, lore_error *err)
{
    lore_writer *writer = NULL;
    document_call call = {service->app, request};
    const lore_apply_options patience = {
        .deadline_ns = request->deadline_ns, .self = &call, .is_cancelled = is_unwanted};
    lore_status status = lore_app_writer(service->app, &writer, err);
    return status == LORE_OK ? lore_writer_apply_one(writer, change, &patience, err) : status;
}

static void reply_deleted(lore_http_reply *reply, const char *key, lore_str name)
{
    lore_json_writer w;
    lore_json_write_begin(&w, &reply->body);
    lore_json_object(&w, NULL);
    lore_json_string(&w, key, name);
    lore_json_boolean(&w, "deleted", true);
    lore_json_end(&w);
}

lore_status lore_route_delete_document(lore_service *service, lore_http_request *request,
                                       lore_http_reply *reply, lore_error *err)
{
    lore_change change = {
        .kind = LORE_CHANGE_DELETE, .collection = request->segments[0], .id = request->segments[1]};
    lore_status status = apply_change(service, request, &change, err);
    if (status == LORE_OK && change.outcome == LORE_OUTCOME_NONE) {
        status = lore_fail(err, LORE_ERR_NOT_FOUND, "no document '" LORE_STR_FMT "'",
                           LORE_STR_ARG(request->segments[1]));
    }
    if (status == LORE_OK) {
        reply_deleted(reply, "id", request->segments[1]);
    }
    return status;
}

lore_status lore_route_put_collection(lore_service *service, lore_http_request *request,
                                      lore_http_reply *reply, lore_error *err)
{
    lore_change change = {.kind = LORE_CHANGE_CREATE_COLLECTION,
                          .collection = request->segments[0]};
    lore_collection_settings settings;
    lore_change set = {.kind = LORE_CHANGE_SET_COLLECTION,
                       .collection = request->segments[0],
                       .settings = &settings};
    lore_status status = lore_collection_settings_parse(
        request->body, &service->app->config->limits, request->arena, &settings, err);
    if (status == LORE_OK) {
        status = apply_change(service, request, &change, err);
    }
    if (status == LORE_OK && request->body.len > 0) {
        status = apply_change(service, request, &set, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    bool is_new = change.outcome == LORE_OUTCOME_ADDED;
    reply->status = is_new ? 201 : 200;
    lore_json_writer w;
    lore_json_write_begin(&w, &reply->body);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "name", request->segments[0]);
    lore_json_boolean(&w, "created", is_new);
    lore_json_end(&w);
    return LORE_OK;
}

lore_status lore_route_delete_collection(lore_service *service, lore_http_request *request,
                                         lore_http_reply *reply, lore_error *err)
{
    lore_change change = {.kind = LORE_CHANGE_DELETE_COLLECTION,
                          .collection = request->segments[0]};
    lore_status status = apply_change(service, request, &change, err);
    if (status == LORE_OK && change.outcome == LORE_OUTCOME_NONE) {
        status = lore_fail(err, LORE_ERR_NOT_FOUND, "no collection '" LORE_STR_FMT "'",
                           LORE_STR_ARG(request->segments[0]));
    }
    if (status == LORE_OK) {
        reply_deleted(reply, "name", request->segments[0]);
    }
    return status;
}

/* null: as the configuration has it */
static void write_setting(lore_json_writer *w, const char *name, int64_t value, bool is_own)
{
    if (is_own) {
        lore_json_int(w, name, value);
    } else {
        lore_json_null(w, name);
    }
}

void lore_routes_write_collections(const lore_collection_info *list, int32_t count, lore_buf *out)
{
    lore_json_writer w;
    lore_json_write_begin(&w, out);
    lore_json_object(&w, NULL);
    lore_json_array(&w, "collections");
    for (int32_t i = 0; i < count; i++) {
        lore_json_object(&w, NULL);
        lore_json_string(&w, "name", list[i].name);
        lore_json_int(&w, "documents", list[i].documents);
        lore_json_int(&w, "chunks", list[i].chunks);
        lore_json_int(&w, "created", list[i].created_ms / 1000);
        lore_json_float(&w, "fusion_weight", list[i].fusion_weight);
        lore_json_float(&w, "expansion", list[i].expansion);
        write_setting(&w, "chunk_tokens", list[i].chunk_tokens, list[i].chunk_tokens > 0);
        write_setting(&w, "chunk_overlap", list[i].chunk_overlap, list[i].chunk_overlap >= 0);
        if (list[i].refusal.len > 0) {
            lore_json_string(&w, "refusal", list[i].refusal);
        } else {
            lore_json_null(&w, "refusal");
        }
        lore_json_end(&w);
    }
    lore_json_end(&w);
    lore_json_end(&w);
}

lore_status lore_route_get_collections(lore_service *service, lore_http_request *request,
                                       lore_http_reply *reply, lore_error *err)
{
    lore_collection_info *list = NULL;
    int32_t count = 0;
    lore_status status =
        lore_index_collections(service->app->index, request->arena, &list, &count, err);
    if (status == LORE_OK) {
        lore_routes_write_collections(list, count, &reply->body);
    }
    return status;
}
