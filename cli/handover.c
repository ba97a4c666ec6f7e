/* See handover.h. A document travels as it is, with what is known about it in the query string: so
 * its body is never longer than the file. Where that does not fit into an address it travels as the
 * JSON of the interface. Either way the server makes of it what a direct run would have made, id
 * included. */
#include "cli/handover.h"

#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"
#include "cli/client.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of id, title, url and metadata that go into an address. Escaped they can be three times as
 * many, beside a path of at most some kilobytes: well below the default of limits.header_bytes_max.
 */
enum { ARGUMENTS_MAX = 4096 };

typedef struct name_list {
    lore_str *items; /* each owns its bytes */
    size_t count, cap;
} name_list;

typedef struct handover {
    lore_client *client;
    const lore_ingest_options *options;
    lore_ingest_counts *counts;
    lore_source *source;
    lore_buf path;    /* "/collections/NAME/documents" */
    lore_buf address; /* the same with arguments */
    lore_buf body, reply;
    name_list seen; /* ids, for pruning; sorted once the walk is over */
    name_list kept; /* sources: what could not be read says nothing about what lies under it */
} handover;

/* ---- what goes out ---- */

static const char *text_field(lore_media media)
{
    return media == LORE_MEDIA_HTML ? "html" : media == LORE_MEDIA_MARKDOWN ? "markdown" : "text";
}

static void write_optional(lore_json_writer *w, const char *key, lore_str value)
{
    if (value.len > 0) {
        lore_json_string(w, key, value);
    }
}

static void write_json(const lore_raw_document *raw, lore_buf *out)
{
    lore_json_writer w;
    lore_json_write_begin(&w, out);
    lore_json_object(&w, NULL);
    write_optional(&w, "id", raw->id);
    write_optional(&w, "title", raw->title);
    write_optional(&w, "url", raw->url);
    if (raw->metadata.len > 0) {
        lore_json_raw(&w, "metadata", raw->metadata);
    }
    lore_json_string(&w, text_field(raw->media), raw->bytes);
    lore_json_end(&w);
}

static void write_argument(lore_buf *out, const char *name, lore_str value)
{
    if (value.len > 0) {
        lore_buf_byte(out, memchr(out->ptr, '?', out->len) != NULL ? '&' : '?');
        lore_buf_printf(out, "%s=", name);
        lore_url_encode(value, out);
    }
}

static bool is_plain_utf8(lore_str bytes)
{
    return lore_utf8_valid(bytes) == bytes.len &&
           (bytes.len == 0 || memchr(bytes.ptr, '\0', bytes.len) == NULL);
}

/* May it stand in an address? The server takes no control characters there. */
static bool is_plain_argument(lore_str value)
{
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if (c < 0x20 || c == 0x7F) {
            return false;
        }
    }
    return lore_utf8_valid(value) == value.len;
}

static bool fits_address(const lore_raw_document *raw)
{
    const lore_str values[] = {raw->id, raw->title, raw->url, raw->metadata};
    size_t size = 0;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        if (!is_plain_argument(values[i])) {
            return false;
        }
        size += values[i].len;
    }
    return size <= ARGUMENTS_MAX;
}

static lore_status send_document(handover *h, const lore_raw_document *raw, int32_t *http_status,
                                 lore_error *err)
{
    const char *type = "application/json";
    lore_str body = raw->bytes;
    lore_media media =
        raw->media == LORE_MEDIA_AUTO ? lore_media_of(raw->source, raw->bytes) : raw->media;
    lore_buf_reset(&h->address);
    lore_buf_append(&h->address, lore_buf_str(&h->path));
    if (media == LORE_MEDIA_AUTO) {
        return lore_fail(err, LORE_ERR_INVALID, "a document of no known format");
    }
    write_argument(&h->address, "source", raw->source);
    bool is_text = media == LORE_MEDIA_TEXT || media == LORE_MEDIA_MARKDOWN ||
                   media == LORE_MEDIA_HTML; /* what JSON has a member for */
    if (is_text && !fits_address(raw) && is_plain_utf8(raw->bytes)) {
        lore_raw_document known = *raw;
        known.media = media;
        lore_buf_reset(&h->body);
        write_json(&known, &h->body);
        body = lore_buf_str(&h->body);
    } else {
        type = lore_media_name(media);
        write_argument(&h->address, "id", raw->id);
        write_argument(&h->address, "title", raw->title);
        write_argument(&h->address, "url", raw->url);
        write_argument(&h->address, "metadata", raw->metadata);
    }
    if (lore_buf_failed(&h->body) || lore_buf_failed(&h->address)) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the document");
    }
    return lore_client_send(h->client, "POST", lore_buf_c(&h->address), type, body, &h->reply,
                            http_status, err);
}

/* ---- what comes back ---- */

static void tell(const handover *h, const lore_ingest_event *event)
{
    if (h->options->settled != NULL) {
        h->options->settled(h->options->self, event);
    }
}

static lore_status remember(name_list *list, lore_str source, lore_error *err)
{
    if (list->count == list->cap) {
        size_t cap = list->cap == 0 ? 1024 : 2 * list->cap;
        lore_str *grown = lore_realloc(list->items, cap * sizeof *grown);
        if (grown == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "no memory for a list of names");
        }
        list->items = grown;
        list->cap = cap;
    }
    char *copy = lore_alloc(source.len + 1); /* a document of standard input has none */
    if (copy == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a list of names");
    }
    memcpy(copy, source.len > 0 ? source.ptr : "", source.len);
    list->items[list->count++] = (lore_str){copy, source.len};
    return LORE_OK;
}

static lore_status count_reply(handover *h, lore_str source, lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = lore_json_parse(lore_buf_str(&h->reply), 8, &root, err);
    if (status != LORE_OK) {
        return lore_error_prefix(err, "the server's reply");
    }
    lore_str id = lore_json_str(lore_json_get(root, "id"));
    if (h->options->is_pruning) {
        status = remember(&h->seen, id, err);
    }
    lore_str outcome = lore_json_str(lore_json_get(root, "status"));
    bool is_added = lore_str_equal(outcome, LORE_STR("added"));
    bool is_replaced = lore_str_equal(outcome, LORE_STR("replaced"));
    h->counts->added += is_added;
    h->counts->replaced += is_replaced;
    h->counts->unchanged += !is_added && !is_replaced;
    lore_ingest_event event = {
        .fate = is_added      ? LORE_FATE_ADDED
                : is_replaced ? LORE_FATE_REPLACED
                              : LORE_FATE_UNCHANGED,
        .id = id,
        .source = source,
    };
    if (is_added || is_replaced) {
        event.chunks = (int64_t)lore_json_number(lore_json_get(root, "chunks"));
        h->counts->chunks += event.chunks;
        h->counts->near_duplicates +=
            lore_json_str(lore_json_get(root, "near_duplicate_of")).len > 0;
        h->counts->tokens += (int64_t)lore_json_number(lore_json_get(root, "tokens"));
        h->counts->text_bytes += (int64_t)lore_json_number(lore_json_get(root, "text_bytes"));
    }
    tell(h, &event);
    lore_json_free(root);
    return status;
}

static void forget_all(name_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        lore_free((void *)(uintptr_t)list->items[i].ptr);
    }
    lore_free(list->items);
}

/* The file that a line of JSON Lines came from; any other source as it is. */
static lore_str file_of(lore_str source)
{
    const char *mark = source.len > 0 ? memrchr(source.ptr, '#', source.len) : NULL;
    lore_str file = mark == NULL ? source : lore_str_slice(source, 0, (size_t)(mark - source.ptr));
    return lore_media_of(file, (lore_str){"", 0}) == LORE_MEDIA_JSONL ? file : source;
}

static lore_status report_failure(handover *h, lore_str source, const lore_error *reason,
                                  lore_error *err)
{
    const lore_ingest_event event = {.fate = LORE_FATE_FAILED, .source = source, .reason = reason};
    const bool is_needed = h->options->is_pruning && source.len > 0;
    h->counts->failed++;
    tell(h, &event);
    return is_needed ? remember(&h->kept, file_of(source), err) : LORE_OK;
}

/* One document there and back. A refusal is the document's failure; a server that cannot be
 * reached, is stopping or has no room for anybody is the run's. */
static lore_status hand_over(handover *h, const lore_raw_document *raw, lore_error *err)
{
    int32_t http_status = 0;
    lore_error reason;
    lore_status status = send_document(h, raw, &http_status, &reason);
    if (status == LORE_ERR_INVALID) {
        return report_failure(h, raw->source, &reason, err);
    }
    *err = reason;
    if (status != LORE_OK) {
        return status;
    }
    if (http_status == 200 || http_status == 201) {
        return count_reply(h, raw->source, err);
    }
    status = lore_client_refusal(&h->reply, http_status, &reason);
    if (status == LORE_ERR_BUSY || status == LORE_ERR_CANCELLED) {
        *err = reason;
        return lore_error_prefix(err, "the server");
    }
    return report_failure(h, raw->source, &reason, err);
}

/* ---- pruning ---- */

static int compare_names(const void *a, const void *b)
{
    return lore_str_compare(*(const lore_str *)a, *(const lore_str *)b);
}

static lore_status delete_document(handover *h, lore_str id, lore_str source, lore_error *err)
{
    const lore_ingest_event event = {.fate = LORE_FATE_DELETED, .id = id, .source = source};
    int32_t http_status = 0;
    lore_buf_reset(&h->address);
    lore_buf_append(&h->address, lore_buf_str(&h->path));
    lore_buf_byte(&h->address, '/');
    lore_url_encode(id, &h->address);
    lore_status status =
        lore_client_send(h->client, "DELETE", lore_buf_c(&h->address), "application/json",
                         (lore_str){NULL, 0}, &h->reply, &http_status, err);
    if (status == LORE_OK && http_status == 200) {
        h->counts->deleted++;
        tell(h, &event);
    } else if (status == LORE_OK && http_status != 404) {
        status = lore_client_refusal(&h->reply, http_status, err);
    }
    return status;
}

static bool is_gone(const handover *h, lore_str id, lore_str source)
{
    return bsearch(&id, h->seen.items, h->seen.count, sizeof *h->seen.items, compare_names) ==
               NULL &&
           !lore_source_is_below(source, h->kept.items, h->kept.count);
}

/* One page of the server's documents whose source begins with prefix (is_root: that lie at or below
 * it); deletes those that are gone. *cursor is emptied at the end of the list. */
static lore_status prune_page(handover *h, lore_str prefix, bool is_root, lore_buf *cursor,
                              lore_error *err)
{
    int32_t http_status = 0;
    lore_json *root = NULL;
    lore_buf_reset(&h->address);
    lore_buf_append(&h->address, lore_buf_str(&h->path));
    write_argument(&h->address, "source", prefix);
    write_argument(&h->address, "cursor", lore_buf_str(cursor));
    lore_status status =
        lore_client_send(h->client, "GET", lore_buf_c(&h->address), "application/json",
                         (lore_str){NULL, 0}, &h->reply, &http_status, err);
    if (status == LORE_OK && http_status != 200) {
        status = lore_client_refusal(&h->reply, http_status, err);
    }
    if (status == LORE_OK) {
        status = lore_json_parse(lore_buf_str(&h->reply), 32, &root, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_buf_reset(cursor);
    lore_buf_append(cursor, lore_json_str(lore_json_get(root, "next_cursor")));
    const lore_json *item = lore_json_first(lore_json_get(root, "documents"));
    for (; status == LORE_OK && item != NULL; item = lore_json_next(item)) {
        lore_str id = lore_json_str(lore_json_get(item, "id"));
        lore_str source = lore_json_str(lore_json_get(item, "source"));
        if ((!is_root || lore_source_is_below(source, &prefix, 1)) && is_gone(h, id, source)) {
            status = delete_document(h, id, source, err);
        }
    }
    lore_json_free(root);
    return status;
}

static lore_status prune_place(handover *h, lore_str prefix, bool is_root, lore_error *err)
{
    lore_buf cursor;
    lore_buf_init(&cursor, 0);
    lore_status status = LORE_OK;
    do {
        status = prune_page(h, prefix, is_root, &cursor, err);
    } while (status == LORE_OK && cursor.len > 0);
    lore_buf_destroy(&cursor);
    return status;
}

static lore_status prune_folder(handover *h, const char *path, lore_error *err)
{
    lore_str folder = lore_str_from(path);
    while (folder.len > 1 && folder.ptr[folder.len - 1] == '/') {
        folder.len--;
    }
    lore_buf prefix;
    lore_buf_init(&prefix, 0);
    lore_buf_append(&prefix, folder);
    if (!lore_str_ends(folder, LORE_STR("/"))) {
        lore_buf_byte(&prefix, '/');
    }
    lore_status status = lore_buf_failed(&prefix)
                             ? lore_fail(err, LORE_ERR_NOMEM, "no memory for a path")
                             : prune_place(h, lore_buf_str(&prefix), false, err);
    lore_buf_destroy(&prefix);
    return status;
}

static lore_status prune(handover *h, const lore_source_options *source_options, lore_error *err)
{
    const lore_ingest_options *options = h->options;
    lore_status status = LORE_OK;
    if (h->seen.count > 0) {
        qsort(h->seen.items, h->seen.count, sizeof *h->seen.items, compare_names);
    }
    for (int32_t i = 0; status == LORE_OK && i < source_options->path_count; i++) {
        if (lore_file_is_dir(source_options->paths[i])) {
            status = prune_folder(h, source_options->paths[i], err);
        }
    }
    for (size_t i = 0; status == LORE_OK && i < lore_source_sitemap_count(h->source); i++) {
        lore_str folder = lore_source_sitemap_folder(h->source, i);
        status = folder.len > 0 ? prune_place(h, folder, false, err) : status;
    }
    for (int32_t i = 0; status == LORE_OK && i < options->root_count; i++) {
        status = prune_place(h, lore_str_from(options->roots[i]), true, err);
    }
    return status;
}

/* ---- the run ---- */

static lore_status walk(handover *h, lore_arena *arena, lore_error *err)
{
    for (;;) {
        lore_raw_document raw = {0};
        bool is_done = false;
        if (h->options->is_cancelled != NULL && h->options->is_cancelled(h->options->self)) {
            return lore_fail(err, LORE_ERR_CANCELLED, "interrupted");
        }
        lore_arena_reset(arena);
        lore_status status = lore_source_next(h->source, arena, &raw, &is_done, err);
        if (is_done) {
            return LORE_OK;
        }
        h->counts->seen++;
        lore_error reason = *err;
        status = status == LORE_OK ? hand_over(h, &raw, err)
                                   : report_failure(h, raw.source, &reason, err);
        if (status != LORE_OK) {
            return status;
        }
        if (h->options->progress != NULL) {
            h->options->progress(h->options->self, h->counts, lore_source_total(h->source));
        }
    }
}

lore_status lore_handover_run(lore_str base, const lore_config *config, lore_source *source,
                              const lore_source_options *source_options,
                              const lore_ingest_options *options, lore_ingest_counts *counts,
                              lore_error *err)
{
    handover h = {.options = options, .counts = counts, .source = source};
    lore_arena arena;
    memset(counts, 0, sizeof *counts);
    lore_arena_init(
        &arena, lore_document_arena_cap(&config->limits, (size_t)config->limits.file_bytes_max));
    lore_buf_init(&h.path, 0);
    lore_buf_init(&h.address, 0);
    lore_buf_init(&h.body, 0);
    lore_buf_init(&h.reply, 0);
    lore_buf_append(&h.path, LORE_STR("/collections/"));
    lore_url_encode(options->collection.len > 0 ? options->collection : LORE_STR("default"),
                    &h.path);
    lore_buf_append(&h.path, LORE_STR("/documents"));
    lore_error failure = {0};
    lore_status status = lore_client_open(base, &config->limits, &h.client, &failure);
    if (status == LORE_OK) {
        status = walk(&h, &arena, &failure);
    }
    if (status == LORE_OK && options->is_pruning) {
        status = prune(&h, source_options, &failure);
    }
    if (status != LORE_OK && err != NULL) {
        *err = failure;
    }
    forget_all(&h.seen);
    forget_all(&h.kept);
    lore_client_close(h.client);
    lore_buf_destroy(&h.reply);
    lore_buf_destroy(&h.body);
    lore_buf_destroy(&h.address);
    lore_buf_destroy(&h.path);
    lore_arena_destroy(&arena);
    return status;
}
