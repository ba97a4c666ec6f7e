/* Clean: which parser reads a document, and what all formats share before and after it.
 *
 * Decode, take front matter off, parse into a builder, give a title to what has none. */
#include "ingest/ingest_int.h"

#include "base/utf8.h"

#include <string.h>

enum { SNIFF_BYTES = 4096 };

/* ---- media ---- */

static lore_str extension_of(lore_str name)
{
    for (size_t i = name.len; i > 0 && name.ptr[i - 1] != '/'; i--) {
        if (name.ptr[i - 1] == '.') {
            bool is_hidden = i == 1 || name.ptr[i - 2] == '/';
            return is_hidden ? (lore_str){"", 0} : lore_str_slice(name, i, name.len);
        }
    }
    return (lore_str){"", 0};
}

static lore_media media_by_name(lore_str name)
{
    static const struct {
        const char *extension;
        lore_media media;
    } known[] = {{"md", LORE_MEDIA_MARKDOWN},    {"markdown", LORE_MEDIA_MARKDOWN},
                 {"mdown", LORE_MEDIA_MARKDOWN}, {"mdx", LORE_MEDIA_MARKDOWN},
                 {"mkd", LORE_MEDIA_MARKDOWN},   {"html", LORE_MEDIA_HTML},
                 {"htm", LORE_MEDIA_HTML},       {"xhtml", LORE_MEDIA_HTML},
                 {"txt", LORE_MEDIA_TEXT},       {"text", LORE_MEDIA_TEXT},
                 {"rst", LORE_MEDIA_TEXT},       {"adoc", LORE_MEDIA_TEXT},
                 {"asc", LORE_MEDIA_TEXT},       {"jsonl", LORE_MEDIA_JSONL},
                 {"ndjson", LORE_MEDIA_JSONL}};
    lore_str extension = extension_of(name);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (lore_str_equal_nocase(extension, lore_str_from(known[i].extension))) {
            return known[i].media;
        }
    }
    return LORE_MEDIA_AUTO;
}

/* Beginnings that only HTML has. */
static bool looks_like_html(lore_str head)
{
    static const char *const tags[] = {"html", "!doctype html", "head", "body", "title", "meta"};
    for (size_t at = lore_str_find(head, LORE_STR("<"), 0); at != SIZE_MAX;
         at = lore_str_find(head, LORE_STR("<"), at + 1)) {
        for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
            size_t size = strlen(tags[i]);
            if (head.len - at > size + 1 && strchr(" \t\r\n>", head.ptr[at + 1 + size]) != NULL &&
                lore_str_equal_nocase(lore_str_slice(head, at + 1, at + 1 + size),
                                      lore_str_from(tags[i]))) {
                return true;
            }
        }
    }
    return false;
}

/* Two different signs of Markdown, for one of them happens in any text. */
static bool looks_like_markdown(lore_str head)
{
    bool has_heading = false, has_fence = false, has_strong = false;
    bool has_link = lore_str_find(head, LORE_STR("](http"), 0) != SIZE_MAX;
    lore_str rest = head, line;
    while (lore_str_next_line(&rest, &line)) {
        has_heading = has_heading || lore_str_starts(line, LORE_STR("# ")) ||
                      lore_str_starts(line, LORE_STR("## "));
        has_fence = has_fence || lore_str_starts(line, LORE_STR("```"));
        has_strong = has_strong || lore_str_starts(line, LORE_STR("**"));
    }
    lore_str title;
    return (has_heading ? 1 : 0) + (has_fence ? 1 : 0) + (has_strong ? 1 : 0) +
                   (has_link ? 1 : 0) >=
               2 ||
           lore_front_matter(head, &title) > 0;
}

lore_media lore_media_of(lore_str name, lore_str bytes)
{
    lore_media media = media_by_name(name);
    if (media != LORE_MEDIA_AUTO || bytes.len == 0) {
        return media;
    }
    lore_str head = lore_str_slice(bytes, 0, bytes.len < SNIFF_BYTES ? bytes.len : SNIFF_BYTES);
    bool is_wide =
        lore_str_starts(head, LORE_STR("\xFF\xFE")) || lore_str_starts(head, LORE_STR("\xFE\xFF"));
    if (is_wide) {
        return LORE_MEDIA_TEXT;
    }
    if (lore_is_binary(head)) {
        return LORE_MEDIA_AUTO;
    }
    return looks_like_html(head)       ? LORE_MEDIA_HTML
           : looks_like_markdown(head) ? LORE_MEDIA_MARKDOWN
                                       : LORE_MEDIA_TEXT;
}

const char *lore_media_name(lore_media media)
{
    switch (media) {
    case LORE_MEDIA_TEXT:
        return "text/plain";
    case LORE_MEDIA_MARKDOWN:
        return "text/markdown";
    case LORE_MEDIA_HTML:
        return "text/html";
    case LORE_MEDIA_JSONL:
        return "application/jsonl";
    default:
        return "application/octet-stream";
    }
}

/* ---- titles ---- */

/* One normalised line of text. LORE_ERR_NOMEM or LORE_ERR_LIMIT. */
static lore_status one_line(lore_str text, lore_arena *arena, lore_str *line, lore_error *err)
{
    lore_builder builder;
    lore_clean_document clean;
    lore_builder_init(&builder, text, (lore_str){"", 0}, 0, arena);
    lore_builder_piece(&builder, text, 0);
    lore_status status = lore_builder_finish(&builder, (lore_str){"", 0}, &clean, err);
    lore_builder_destroy(&builder);
    if (status == LORE_OK) {
        *line = clean.text;
    }
    return status;
}

static lore_status given_title(lore_str title, lore_arena *arena, lore_str *line, lore_error *err)
{
    *line = (lore_str){"", 0};
    if (title.len == 0) {
        return LORE_OK;
    }
    if (lore_utf8_valid(title) != title.len) {
        return lore_fail(err, LORE_ERR_INVALID, "the title is not valid UTF-8");
    }
    if (title.len > LORE_TITLE_BYTES_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "the title has %zu bytes, over %d", title.len,
                         LORE_TITLE_BYTES_MAX);
    }
    return one_line(title, arena, line, err);
}

/* "kb/Track-your-order.md" reads "Track your order". */
static lore_status title_of_name(lore_str source, lore_arena *arena, lore_str *line,
                                 lore_error *err)
{
    size_t start = source.len;
    while (start > 0 && source.ptr[start - 1] != '/') {
        start--;
    }
    lore_str name = lore_str_slice(source, start, source.len);
    lore_str extension = extension_of(name);
    if (extension.len > 0 && media_by_name(name) != LORE_MEDIA_AUTO) {
        name.len -= extension.len + 1;
    }
    *line = (lore_str){"", 0};
    const char *mark = memrchr(name.ptr, '#', name.len);
    if (mark != NULL &&
        media_by_name(lore_str_slice(name, 0, (size_t)(mark - name.ptr))) == LORE_MEDIA_JSONL) {
        return LORE_OK; /* "export.jsonl#17" names no document */
    }
    if (name.len == 0 || name.len > LORE_TITLE_BYTES_MAX || lore_utf8_valid(name) != name.len) {
        return LORE_OK;
    }
    lore_str copy = lore_str_copy(arena, name);
    if (copy.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a title");
    }
    for (size_t i = 0; i < copy.len; i++) {
        char *c = (char *)copy.ptr + i; /* ours, just made */
        *c = *c == '-' || *c == '_' ? ' ' : *c;
    }
    return one_line(copy, arena, line, err);
}

/* ---- clean ---- */

static lore_status parse(lore_builder *builder, lore_media media, size_t from,
                         const lore_limits *limits, lore_error *err)
{
    switch (media) {
    case LORE_MEDIA_MARKDOWN:
        return lore_clean_markdown(builder, from, err);
    case LORE_MEDIA_HTML:
        return lore_clean_html(builder, from, limits, err);
    default:
        return lore_clean_text(builder, from, err);
    }
}

/* An empty string may come without a pointer; memory functions want one all the same. */
static lore_str not_null(lore_str s)
{
    return s.ptr == NULL ? (lore_str){"", 0} : s;
}

lore_status lore_clean(const lore_raw_document *given, const lore_limits *limits,
                       const lore_interrupt *interrupt, lore_arena *arena,
                       lore_clean_document *clean, lore_error *err)
{
    lore_raw_document copy = *given;
    const lore_raw_document *raw = &copy;
    copy.source = not_null(given->source);
    copy.bytes = not_null(given->bytes);
    lore_media media =
        raw->media != LORE_MEDIA_AUTO ? raw->media : lore_media_of(raw->source, raw->bytes);
    if (raw->bytes.len > 0 && (media == LORE_MEDIA_AUTO || media == LORE_MEDIA_JSONL)) {
        return lore_fail(err, LORE_ERR_INVALID, "is neither text, Markdown nor HTML");
    }
    if (raw->bytes.len > (size_t)limits->file_bytes_max || raw->bytes.len > INT32_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "has %zu bytes, over %lld (limits.file_bytes_max)",
                         raw->bytes.len, (long long)limits->file_bytes_max);
    }
    lore_str text = {"", 0}, title, fallback, found;
    lore_status status = given_title(raw->title, arena, &title, err);
    if (status == LORE_OK) {
        status = title_of_name(raw->source, arena, &fallback, err);
    }
    if (status == LORE_OK) {
        status = lore_decode(raw->bytes, media, arena, &text, err);
    }
    if (status == LORE_OK && text.len > INT32_MAX) {
        status = lore_fail(err, LORE_ERR_LIMIT, "has %zu bytes once decoded", text.len);
    }
    if (status != LORE_OK) {
        return status;
    }
    size_t from = media == LORE_MEDIA_TEXT ? 0 : lore_front_matter(text, &found);
    if (from > 0 && title.len == 0 && found.len > 0 && found.len <= LORE_TITLE_BYTES_MAX) {
        status = one_line(found, arena, &title, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    lore_builder builder;
    lore_builder_init(&builder, text, title, (size_t)limits->document_bytes_max, arena);
    builder.interrupt = interrupt;
    status = parse(&builder, media, from, limits, err);
    if (status == LORE_OK) {
        status = lore_builder_finish(&builder, fallback, clean, err);
    }
    lore_builder_destroy(&builder);
    return status;
}
