/* The JSON of the HTTP interface, written (docs/api.md); wire_query.c reads.
 *
 * One function per object of the contract, straight into a buffer. Failure is the buffer's sticky
 * flag, asked about once by whoever sends it. */
#include "api/wire.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- writing ---- */

/* Milliseconds with three digits are more than a clock is worth. */
static void write_ms(lore_json_writer *w, const char *key, double ms)
{
    lore_json_float(w, key, round(ms * 1000) / 1000);
}

static void write_id(lore_json_writer *w, const char *key, int64_t row)
{
    char id[32];
    snprintf(id, sizeof id, "c_%lld", (long long)row);
    lore_json_string(w, key, lore_str_from(id));
}

void lore_wire_page(lore_json_writer *w, const lore_chunk *chunk, size_t offset)
{
    int64_t page = lore_chunk_page(chunk, offset);
    if (page > 0) {
        lore_json_int(w, "page", page);
    } else {
        lore_json_null(w, "page");
    }
}

lore_str lore_wire_chunk_id(int64_t row, lore_arena *arena)
{
    return lore_str_printf(arena, "c_%lld", (long long)row);
}

static void write_scores(lore_json_writer *w, const lore_hit *hit)
{
    lore_json_float(w, "score", (double)hit->score);
    lore_json_object(w, "scores");
    lore_json_float(w, "dense", (double)hit->dense); /* NaN is written as null */
    lore_json_float(w, "lexical", (double)hit->lexical);
    lore_json_float(w, "rerank", (double)hit->rerank);
    lore_json_end(w);
}

static void write_passage(lore_json_writer *w, const lore_hit *hit, int32_t rank)
{
    const lore_chunk *chunk = &hit->chunk;
    lore_json_object(w, NULL);
    lore_json_int(w, "rank", rank);
    write_id(w, "chunk_id", chunk->row);
    lore_json_string(w, "document_id", chunk->document_id);
    lore_json_int(w, "document_version", chunk->version);
    lore_json_string(w, "collection", chunk->collection);
    lore_json_string(w, "title", chunk->title);
    lore_json_string(w, "heading", chunk->heading);
    lore_json_string(w, "source", chunk->source);
    lore_json_string(w, "url", chunk->url);
    lore_json_string(w, "text", chunk->text);
    lore_json_int(w, "start", (int64_t)chunk->start);
    lore_json_int(w, "end", (int64_t)chunk->end);
    lore_wire_page(w, chunk, chunk->start);
    write_scores(w, hit);
    lore_json_raw(w, "metadata", chunk->metadata.len > 0 ? chunk->metadata : LORE_STR("{}"));
    lore_json_end(w);
}

static void write_passages(lore_json_writer *w, const char *key, const lore_answer *answer)
{
    lore_json_array(w, key);
    for (int32_t i = 0; i < answer->hits.count; i++) {
        write_passage(w, &answer->hits.items[i], i + 1);
    }
    lore_json_end(w);
}

/* Where a reranker is configured: whether it decided the order, and if not, why. */
static void write_reranked(lore_json_writer *w, const lore_answer *answer)
{
    if (answer->hits.rerank == LORE_RERANK_OFF) {
        return;
    }
    lore_json_boolean(w, "reranked", answer->hits.rerank == LORE_RERANK_DONE);
    if (answer->hits.rerank != LORE_RERANK_DONE) {
        lore_json_string(w, "rerank_reason",
                         answer->hits.rerank == LORE_RERANK_LATE ? LORE_STR("deadline")
                                                                 : LORE_STR("error"));
    }
}

static void write_rerank_ms(lore_json_writer *w, const lore_answer *answer)
{
    if (answer->hits.rerank != LORE_RERANK_OFF) {
        write_ms(w, "rerank", answer->rerank_ms);
    }
}

static void write_citation(lore_json_writer *w, const lore_answer *answer,
                           const lore_citation *citation)
{
    const lore_chunk *chunk = &answer->hits.items[citation->hit].chunk;
    lore_json_object(w, NULL);
    lore_json_int(w, "marker", citation->marker);
    lore_json_int(w, "answer_start", (int64_t)citation->answer_start);
    lore_json_int(w, "answer_end", (int64_t)citation->answer_end);
    lore_json_string(w, "document_id", chunk->document_id);
    lore_json_int(w, "document_version", chunk->version);
    write_id(w, "chunk_id", chunk->row);
    lore_json_int(w, "start", (int64_t)citation->start);
    lore_json_int(w, "end", (int64_t)citation->end);
    lore_wire_page(w, chunk, citation->start);
    lore_json_string(w, "cited_text", citation->cited_text);
    lore_json_end(w);
}

static void write_usage(lore_json_writer *w, const lore_answer *answer)
{
    lore_json_object(w, "usage");
    lore_json_int(w, "prompt_tokens", answer->prompt_tokens);
    lore_json_int(w, "completion_tokens", answer->completion_tokens);
    lore_json_int(w, "total_tokens", answer->prompt_tokens + answer->completion_tokens);
    lore_json_int(w, "cached_tokens", answer->cached_tokens);
    lore_json_end(w);
}

static void write_timings(lore_json_writer *w, const lore_answer *answer)
{
    lore_json_object(w, "timings_ms");
    write_ms(w, "embed", answer->embed_ms);
    write_ms(w, "search", answer->search_ms);
    write_rerank_ms(w, answer);
    write_ms(w, "evidence", answer->evidence_ms);
    write_ms(w, "queue", answer->queue_ms);
    write_ms(w, "first_token", answer->first_token_ms);
    write_ms(w, "total", answer->total_ms);
    lore_json_end(w);
}

void lore_wire_answer(const lore_answer *answer, bool with_passages, lore_buf *out)
{
    lore_json_writer w;
    lore_json_write_begin(&w, out);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "id", lore_str_from(answer->id));
    lore_json_string(&w, "object", LORE_STR("lore.answer"));
    lore_json_int(&w, "created", answer->created);
    lore_json_string(&w, "model", lore_str_from(answer->model));
    if (answer->adapter.len > 0) {
        lore_json_string(&w, "adapter", answer->adapter);
    } else {
        lore_json_null(&w, "adapter");
    }
    lore_json_string(&w, "answer", answer->text);
    lore_json_boolean(&w, "refused", answer->is_refused);
    lore_json_string(&w, "mode", lore_str_from(lore_mode_name(answer->mode)));
    lore_json_string(&w, "mode_used", lore_str_from(lore_mode_name(answer->mode_used)));
    lore_json_string(&w, "query_used", answer->question);
    lore_json_array(&w, "citations");
    for (int32_t i = 0; i < answer->citation_count; i++) {
        write_citation(&w, answer, &answer->citations[i]);
    }
    lore_json_end(&w);
    if (with_passages) {
        write_passages(&w, "passages", answer);
    }
    write_reranked(&w, answer);
    lore_json_object(&w, "prompt");
    lore_json_string(&w, "name", lore_str_from(answer->prompt_name ? answer->prompt_name : ""));
    lore_json_int(&w, "version", 1);
    lore_json_end(&w);
    lore_json_float(&w, "support", (double)answer->support);
    lore_json_string(&w, "finish_reason",
                     lore_str_from(answer->finish_reason ? answer->finish_reason : "stop"));
    write_usage(&w, answer);
    write_timings(&w, answer);
    lore_json_end(&w);
}

void lore_wire_retrieval(const lore_answer *answer, lore_buf *out)
{
    lore_json_writer w;
    lore_json_write_begin(&w, out);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "id", lore_str_from(answer->id));
    lore_json_string(&w, "object", LORE_STR("lore.retrieval"));
    lore_json_int(&w, "created", answer->created);
    lore_json_string(&w, "query_used", answer->question);
    write_passages(&w, "passages", answer);
    write_reranked(&w, answer);
    lore_json_object(&w, "timings_ms");
    write_ms(&w, "embed", answer->embed_ms);
    write_ms(&w, "search", answer->search_ms);
    write_rerank_ms(&w, answer);
    write_ms(&w, "total", answer->total_ms);
    lore_json_end(&w);
    lore_json_end(&w);
}

void lore_wire_passages(const lore_answer *answer, lore_buf *out)
{
    lore_json_writer w;
    lore_json_write_begin(&w, out);
    write_passages(&w, NULL, answer);
}

void lore_wire_citation(const lore_answer *answer, const lore_citation *citation, lore_buf *out)
{
    lore_json_writer w;
    lore_json_write_begin(&w, out);
    write_citation(&w, answer, citation);
}

/* ---- errors ---- */

int lore_wire_status(lore_status status)
{
    switch (status) {
    case LORE_OK:
        return 200;
    case LORE_ERR_INVALID:
        return 400;
    case LORE_ERR_NOT_FOUND:
        return 404;
    case LORE_ERR_LIMIT:
        return 413;
    case LORE_ERR_BUSY:
        return 429;
    case LORE_ERR_UNSUPPORTED:
        return 501;
    case LORE_ERR_NOMEM:
    case LORE_ERR_CANCELLED:
        return 503;
    case LORE_ERR_TIMEOUT:
        return 504;
    case LORE_ERR_IO:
    case LORE_ERR_CORRUPT:
    case LORE_ERR_DEVICE:
        break;
    }
    return 500;
}

/* The names that clients of other servers already know. */
static const char *error_type(int http_status)
{
    switch (http_status) {
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    case 501:
        return "not_supported_error";
    case 503:
        return "unavailable_error";
    case 504:
        return "timeout_error";
    default:
        return http_status >= 500 ? "server_error" : "invalid_request_error";
    }
}

/* The field that a message is about. Messages of this floor and of base/json start with its path
 * ("history[2].role must be ..."); other messages start with a verb, so the first member of the
 * path must be a field that requests have. */
static lore_str error_param(const lore_error *error)
{
    static const char *const FIELDS[] = {"question",
                                         "collection",
                                         "top_k",
                                         "filter",
                                         "mode",
                                         "history",
                                         "prompt",
                                         "adapter",
                                         "stream",
                                         "seed",
                                         "stop",
                                         "metadata",
                                         "id",
                                         "title",
                                         "text",
                                         "markdown",
                                         "html",
                                         "url",
                                         "source",
                                         "cursor",
                                         "limit",
                                         "body",
                                         "max_tokens",
                                         "temperature",
                                         "top_p",
                                         "min_p",
                                         "repetition_penalty",
                                         "presence_penalty",
                                         "frequency_penalty",
                                         "lora_name",
                                         "lora_path",
                                         "load_inplace",
                                         "pinned"};
    if (error->status != LORE_ERR_INVALID && error->status != LORE_ERR_LIMIT) {
        return (lore_str){NULL, 0};
    }
    const char *message = error->message;
    size_t field = strspn(message, "abcdefghijklmnopqrstuvwxyz_");
    size_t path = field;
    while (message[path] == '.' || message[path] == '[') {
        path++;
        path += strcspn(message + path, " .:[,");
    }
    if (message[path] != ' ' && message[path] != ':') {
        return (lore_str){NULL, 0};
    }
    for (size_t i = 0; i < sizeof FIELDS / sizeof FIELDS[0]; i++) {
        if (strlen(FIELDS[i]) == field && strncmp(message, FIELDS[i], field) == 0) {
            return (lore_str){message, path};
        }
    }
    return (lore_str){NULL, 0};
}

int lore_wire_error_as(int http_status, lore_str message, lore_str param, const char *code,
                       lore_buf *out)
{
    lore_json_writer w;
    lore_json_write_begin(&w, out);
    lore_json_object(&w, NULL);
    lore_json_object(&w, "error");
    lore_json_string(&w, "message", message);
    lore_json_string(&w, "type", lore_str_from(error_type(http_status)));
    if (param.len > 0) {
        lore_json_string(&w, "param", param);
    } else {
        lore_json_null(&w, "param");
    }
    lore_json_string(&w, "code", lore_str_from(code));
    lore_json_end(&w);
    lore_json_end(&w);
    return http_status;
}

int lore_wire_error(const lore_error *error, lore_buf *out)
{
    return lore_wire_error_as(lore_wire_status(error->status), lore_str_from(error->message),
                              error_param(error), lore_status_name(error->status), out);
}
