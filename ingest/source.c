/* Where documents come from: each entry of the walk is a document, a JSONL file or a container.
 *
 * States: while `lines.fd >= 0` a JSONL entry yields its lines; while `open.depth > 0` the
 * innermost container yields its members; else the next entry is taken, and behind the last the
 * next page of the web. */
#include "ingest/source_int.h"
#include "ingest/web_int.h"

#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"

#include <stdatomic.h>
#include <string.h>

struct lore_source {
    lore_limits limits;
    lore_arena arena; /* paths, failures, metadata */
    lore_str metadata;
    lore_json_map *map; /* NULL: none */
    int stdin_fd;
    lore_walk walk;
    size_t next; /* entry of the walk */
    lore_lines lines;
    lore_containers open;
    lore_buf scratch;  /* the file being read */
    lore_web *web;     /* NULL where no URL was named */
    int64_t web_count; /* of its pages, as `total` has it */
    lore_str (*known)(void *self, const lore_raw_document *raw, lore_arena *arena);
    void *known_self;
    /* Read by the thread that shows progress; only the counts matter, so relaxed order is enough.
     */
    atomic_int_least64_t total, passed_over;
    atomic_bool is_cancelled; /* a flag without data behind it: relaxed */
};

static void count(atomic_int_least64_t *counter, int64_t more)
{
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

static lore_status out_of_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory listing files");
}

static bool is_cancelled(void *self)
{
    lore_source *source = self;
    return atomic_load_explicit(&source->is_cancelled, memory_order_relaxed);
}

/* ---- lines ---- */

/* "path#12", in the arena. */
static lore_status name_line(const lore_source *source, lore_arena *arena, lore_str *name,
                             lore_error *err)
{
    *name = lore_str_printf(arena, "%s#%lld", source->lines.path, (long long)source->lines.number);
    return name->ptr != NULL ? LORE_OK : out_of_memory(err);
}

/* The next document of the open JSONL file; *has_document false at its end. */
static lore_status next_json(lore_source *source, lore_arena *arena, lore_raw_document *raw,
                             bool *has_document, lore_error *err)
{
    lore_str line = {"", 0}, name = {"", 0};
    bool has_line = false;
    lore_status status = LORE_OK;
    *has_document = false;
    do {
        status = lore_lines_next(&source->lines, &line, &has_line, err);
        if (status == LORE_OK && has_line && source->lines.number == 1 &&
            lore_str_starts(line, LORE_STR("\xEF\xBB\xBF"))) {
            line = lore_str_slice(line, 3, line.len);
        }
        line = lore_str_trim(line);
    } while (status == LORE_OK && has_line && line.len == 0);
    if (status == LORE_OK && !has_line) {
        return LORE_OK;
    }
    count(&source->total, 1);
    *has_document = true;
    if (status == LORE_ERR_IO || status == LORE_ERR_NOMEM) {
        lore_lines_close(&source->lines); /* a read that failed would fail for ever */
    }
    if (status == LORE_OK) {
        lore_json *root = NULL;
        status = lore_json_parse(line, (int32_t)source->limits.json_depth_max, &root, err);
        if (status == LORE_OK) {
            status = lore_raw_from_node(root, source->map, &source->limits, arena, raw, err);
        }
        lore_json_free(root);
    }
    if (name_line(source, arena, &name, NULL) != LORE_OK) {
        return out_of_memory(err);
    }
    if (status != LORE_OK) {
        raw->source = name;
        return lore_error_prefix(err, "line %lld", (long long)source->lines.number);
    }
    raw->source = source->lines.is_stdin ? (lore_str){"", 0} : name;
    return LORE_OK;
}

/* ---- files ---- */

static lore_status pass_over(lore_source *source, bool *has_document)
{
    *has_document = false;
    count(&source->passed_over, 1);
    count(&source->total, -1);
    return LORE_OK;
}

/* What was read is a document, a container (opened; *has_document false) or nothing. */
static lore_status sort_file(lore_source *source, lore_raw_document *raw, bool is_named,
                             bool *has_document, lore_error *err)
{
    if (raw->media == LORE_MEDIA_AUTO && raw->bytes.len > 0) {
        /* A DOCX file that is none is an error wherever it was found, and so is a DOC file. */
        const char *reason = lore_foreign_reason(raw->bytes);
        is_named = is_named || reason != NULL ||
                   lore_media_is_packed(lore_media_of(raw->source, (lore_str){"", 0}));
        return is_named ? lore_fail(err, LORE_ERR_UNSUPPORTED, "%s",
                                    reason != NULL ? reason : "has no format that is known here")
                        : pass_over(source, has_document);
    }
    bool may_hold = lore_media_is_container(raw->media) || raw->media == LORE_MEDIA_JSON;
    if (!may_hold || raw->bytes.len == 0) {
        return LORE_OK;
    }
    lore_status status =
        lore_containers_push(&source->open, &source->limits, source->map, raw, err);
    count(&source->total, status == LORE_OK ? -1 : 0); /* its members are counted instead */
    if (raw->media == LORE_MEDIA_JSON && status == LORE_ERR_UNSUPPORTED) {
        return LORE_OK; /* any other value is a document itself */
    }
    *has_document = status != LORE_OK;
    return status;
}

/* *has_document false when it turned out to be nothing to read, or a container. */
static lore_status next_file(lore_source *source, const lore_entry *e, lore_arena *arena,
                             lore_raw_document *raw, bool *has_document, lore_error *err)
{
    *has_document = true;
    lore_buf_reset(&source->scratch);
    lore_status status =
        lore_file_read(e->path, (size_t)source->limits.file_bytes_max, &source->scratch, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_str bytes = lore_buf_str(&source->scratch);
    raw->media = lore_media_of(raw->source, bytes);
    bool is_known = e->is_named || lore_walk_takes(raw->source) ||
                    lore_media_is_packed(raw->media) || raw->media == LORE_MEDIA_PDF ||
                    lore_foreign_reason(bytes) != NULL;
    if (!is_known) {
        return pass_over(source, has_document); /* a ZIP file under a name of its own: a program */
    }
    raw->bytes = lore_str_copy(arena, bytes);
    if (raw->bytes.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for '%s' (%zu bytes)", e->path,
                         bytes.len);
    }
    source->open.unpacked_left = (uint64_t)source->limits.unpacked_bytes_max;
    return sort_file(source, raw, e->is_named, has_document, err);
}

/* The next member of the innermost container; *has_document false at its end, or where the member
 * is a container itself or nothing to read. */
static lore_status next_member(lore_source *source, lore_arena *arena, lore_raw_document *raw,
                               bool *has_document, lore_error *err)
{
    bool done = false;
    lore_status status =
        lore_containers_next(&source->open, &source->limits, arena, raw, &done, err);
    *has_document = !done;
    if (done) {
        return status;
    }
    count(&source->total, 1);
    if (status == LORE_OK && raw->media == LORE_MEDIA_AUTO && raw->bytes.len == 0) {
        return pass_over(source, has_document);
    }
    return status == LORE_OK ? sort_file(source, raw, false, has_document, err) : status;
}

/* ---- the web ---- */

static lore_str known_page(void *self, lore_str url, lore_arena *arena)
{
    lore_source *source = self;
    const lore_str none = {"", 0};
    const lore_raw_document raw = {.id = none,
                                   .source = url,
                                   .title = none,
                                   .url = url,
                                   .metadata = source->metadata,
                                   .bytes = none,
                                   .validators = none};
    return source->known == NULL ? none : source->known(source->known_self, &raw, arena);
}

static lore_status add_url(lore_source *source, const lore_source_options *options, const char *url,
                           lore_error *err)
{
    lore_status status = LORE_OK;
    if (source->web == NULL) {
        const lore_web_options web = {.limits = &source->limits,
                                      .may_be_private = options->may_be_private,
                                      .known = known_page,
                                      .self = source};
        status = lore_web_open(&web, &source->web, err);
    }
    return status == LORE_OK ? lore_web_add(source->web, lore_str_from(url), err) : status;
}

static void count_pages(lore_source *source)
{
    int64_t pages = source->web == NULL ? 0 : lore_web_count(source->web);
    count(&source->total, pages - source->web_count);
    source->web_count = pages;
}

/* The next page; *has_document false at the end, or where it is a container. */
static lore_status next_page(lore_source *source, lore_arena *arena, lore_raw_document *raw,
                             bool *has_document, bool *is_end, lore_error *err)
{
    lore_web_page page = {.url = {"", 0}};
    lore_status status = lore_web_next(source->web, arena, &page, is_end, err);
    count_pages(source);
    *has_document = !*is_end;
    if (*is_end) {
        return status;
    }
    raw->source = raw->url = page.url;
    raw->is_unchanged = page.is_unchanged;
    if (status != LORE_OK || page.is_unchanged) {
        return status;
    }
    raw->media = lore_media_served(page.type, page.url, page.bytes);
    status = lore_decode_served(page.type, raw->media, arena, &page.bytes, err);
    if (status != LORE_OK) {
        return status;
    }
    raw->bytes = page.bytes;
    raw->validators = page.validators;
    source->open.unpacked_left = (uint64_t)source->limits.unpacked_bytes_max;
    return sort_file(source, raw, page.is_named, has_document, err);
}

/* A path as UTF-8, for messages and as the source; *is_valid false where it is not. */
static lore_str path_text(const char *path, lore_arena *arena, bool *is_valid)
{
    lore_str copy = lore_str_copy(arena, lore_str_from(path));
    *is_valid = true;
    while (copy.ptr != NULL) {
        size_t bad = lore_utf8_valid(copy);
        if (bad == copy.len) {
            break;
        }
        ((char *)copy.ptr)[bad] = '?'; /* ours, just made */
        *is_valid = false;
    }
    return copy;
}

/* Take one entry: a document, its error, or (a JSONL file now open, a file passed over) nothing. */
static lore_status next_entry(lore_source *source, lore_arena *arena, lore_raw_document *raw,
                              bool *has_document, lore_error *err)
{
    const lore_entry *e = &source->walk.entries[source->next++];
    bool is_valid = false;
    *has_document = true;
    raw->source = path_text(e->path, arena, &is_valid);
    if (raw->source.ptr == NULL) {
        raw->source = (lore_str){"", 0};
        return out_of_memory(err);
    }
    if (e->failure != NULL) {
        return lore_fail(err, e->status, "%s", e->failure);
    }
    if (!is_valid) {
        return lore_fail(err, LORE_ERR_INVALID, "the file name is not valid UTF-8");
    }
    bool is_stdin = strcmp(e->path, "-") == 0;
    if (is_stdin || lore_media_of(raw->source, (lore_str){"", 0}) == LORE_MEDIA_JSONL) {
        *has_document = false;
        lore_status status = lore_lines_open(&source->lines, e->path, source->stdin_fd, err);
        count(&source->total, status == LORE_OK ? -1 : 0); /* its lines are counted instead */
        return status;
    }
    return next_file(source, e, arena, raw, has_document, err);
}

/* ---- public ---- */

lore_status lore_source_open(const lore_source_options *options, const lore_limits *limits,
                             lore_source **source, lore_error *err)
{
    lore_source *opened = lore_alloc_zero(1, sizeof *opened);
    if (opened == NULL) {
        return out_of_memory(err);
    }
    opened->limits = *limits;
    opened->stdin_fd = options->stdin_fd;
    opened->walk = (lore_walk){.limits = &opened->limits,
                               .arena = &opened->arena,
                               .are_found = options->are_found,
                               .data = options->data};
    lore_arena_init(&opened->arena, 0);
    lore_lines_init(&opened->lines, &opened->limits, (lore_interrupt){is_cancelled, opened});
    lore_buf_init(&opened->scratch, 0);
    lore_status status = LORE_OK;
    if (options->metadata.len > 0) {
        lore_json *root = NULL;
        status = lore_json_parse(options->metadata, (int32_t)limits->json_depth_max, &root, err);
        if (status == LORE_OK && !lore_json_is_object(root)) {
            status = lore_fail(err, LORE_ERR_INVALID, "metadata must be a JSON object");
        }
        lore_json_free(root);
        opened->metadata = lore_str_copy(&opened->arena, options->metadata);
        if (status == LORE_OK && opened->metadata.ptr == NULL) {
            status = out_of_memory(err);
        }
    }
    if (status == LORE_OK && options->json_map.len > 0 &&
        !lore_str_equal(options->json_map, LORE_STR("none"))) {
        status = lore_json_map_parse(options->json_map, &opened->arena, &opened->map, err);
    }
    for (int32_t i = 0; i < options->path_count && status == LORE_OK; i++) {
        status = lore_is_url(lore_str_from(options->paths[i]))
                     ? add_url(opened, options, options->paths[i], err)
                     : lore_walk_add(&opened->walk, options->paths[i], err);
    }
    if (status != LORE_OK) {
        lore_source_close(opened);
        return status;
    }
    count(&opened->total, (int64_t)opened->walk.count);
    count_pages(opened);
    count(&opened->passed_over, opened->walk.passed_over);
    *source = opened;
    return LORE_OK;
}

void lore_source_close(lore_source *source)
{
    if (source != NULL) {
        lore_web_close(source->web);
        lore_lines_destroy(&source->lines);
        lore_containers_close(&source->open);
        lore_buf_destroy(&source->scratch);
        lore_walk_destroy(&source->walk);
        lore_arena_destroy(&source->arena);
        lore_free(source);
    }
}

lore_status lore_source_next(lore_source *source, lore_arena *arena, lore_raw_document *raw,
                             bool *done, lore_error *err)
{
    const lore_str none = {"", 0};
    *done = false;
    for (;;) {
        *raw =
            (lore_raw_document){none, none, none, none, none, LORE_MEDIA_AUTO, none, none, false};
        bool has_document = false, is_end = false, is_open = source->lines.fd >= 0,
             is_inside = source->open.depth > 0;
        bool is_walked = !is_open && !is_inside && source->next == source->walk.count;
        if (is_cancelled(source) || (is_walked && source->web == NULL)) {
            *done = true;
            return LORE_OK;
        }
        lore_status status = is_open     ? next_json(source, arena, raw, &has_document, err)
                             : is_inside ? next_member(source, arena, raw, &has_document, err)
                             : is_walked
                                 ? next_page(source, arena, raw, &has_document, &is_end, err)
                                 : next_entry(source, arena, raw, &has_document, err);
        if (status != LORE_OK || is_end) {
            *done = is_end;
            return status;
        }
        if (has_document) {
            return lore_metadata_merge(raw->metadata, source->metadata, &source->limits, arena,
                                       &raw->metadata, err);
        }
        if (is_open) {
            lore_lines_close(&source->lines);
        }
    }
}

int64_t lore_source_total(const lore_source *source)
{
    return atomic_load_explicit(&source->total, memory_order_relaxed);
}

int64_t lore_source_passed_over(const lore_source *source)
{
    return atomic_load_explicit(&source->passed_over, memory_order_relaxed);
}

void lore_source_cancel(lore_source *source)
{
    atomic_store_explicit(&source->is_cancelled, true, memory_order_relaxed);
    if (source->web != NULL) {
        lore_web_cancel(source->web);
    }
}

void lore_source_ask(lore_source *source,
                     lore_str (*known)(void *self, const lore_raw_document *raw, lore_arena *arena),
                     void *self)
{
    source->known = known;
    source->known_self = self;
}

size_t lore_source_sitemap_count(const lore_source *source)
{
    return source == NULL || source->web == NULL ? 0 : lore_web_folder_count(source->web);
}

lore_str lore_source_sitemap_folder(const lore_source *source, size_t index)
{
    return lore_web_folder(source->web, index);
}
