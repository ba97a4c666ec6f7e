/* Sitemaps (sitemaps.org 0.9): <urlset> of <url>, or <sitemapindex> of <sitemap>, each with its
 * <loc>. Only a <loc> directly in one of these counts: extensions for images have theirs, too. */
#include "ingest/web_int.h"

#include <string.h>

enum { URL_BYTES_MAX = 8192 };

typedef struct reader {
    lore_arena *arena;
    lore_sitemap *sitemap;
    size_t room, count_max;
    int32_t depth;
    bool is_entry; /* inside <url> or <sitemap> */
    bool is_open;  /* inside its <loc> */
    lore_buf text;
    lore_status failure;
} reader;

static void on_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    reader *r = self;
    (void)attributes, (void)source;
    r->depth++;
    if (r->depth == 1) {
        r->sitemap->is_index = lore_str_equal(name, LORE_STR("sitemapindex"));
    } else if (r->depth == 2) {
        r->is_entry =
            lore_str_equal(name, r->sitemap->is_index ? LORE_STR("sitemap") : LORE_STR("url"));
    } else if (r->depth == 3 && r->is_entry && lore_str_equal(name, LORE_STR("loc"))) {
        r->is_open = true;
        lore_buf_reset(&r->text);
    }
}

static void on_text(void *self, lore_str text, size_t source)
{
    reader *r = self;
    (void)source;
    if (r->is_open && r->text.len <= URL_BYTES_MAX) {
        lore_buf_append(&r->text, text);
    }
}

static void add_url(reader *r, lore_str url)
{
    lore_sitemap *sitemap = r->sitemap;
    if (sitemap->count == r->count_max) {
        r->failure = LORE_ERR_LIMIT;
        return;
    }
    if (sitemap->count == r->room) {
        size_t room = r->room == 0 ? 64 : r->room * 2;
        lore_str *grown = LORE_PUSH(r->arena, lore_str, room);
        if (grown == NULL) {
            r->failure = LORE_ERR_NOMEM;
            return;
        }
        if (sitemap->count > 0) {
            memcpy(grown, sitemap->urls, sitemap->count * sizeof *grown);
        }
        sitemap->urls = grown;
        r->room = room;
    }
    lore_str copy = lore_str_copy(r->arena, url);
    r->failure = copy.ptr == NULL ? LORE_ERR_NOMEM : r->failure;
    sitemap->urls[sitemap->count++] = copy;
}

static void on_end(void *self, lore_str name, size_t source)
{
    reader *r = self;
    (void)name, (void)source;
    if (r->is_open && r->depth == 3) {
        r->is_open = false;
        lore_str url = lore_str_trim(lore_buf_str(&r->text));
        if (lore_buf_failed(&r->text)) {
            r->failure = LORE_ERR_NOMEM;
        } else if (url.len > 0 && url.len <= URL_BYTES_MAX) {
            add_url(r, url);
        }
    }
    r->depth--;
}

static bool is_full(void *self)
{
    return ((reader *)self)->failure != LORE_OK;
}

bool lore_sitemap_is(lore_str bytes)
{
    enum { HEAD_BYTES = 4096 };
    lore_str rest = lore_str_slice(bytes, 0, bytes.len < HEAD_BYTES ? bytes.len : HEAD_BYTES);
    if (lore_str_starts(rest, LORE_STR("\xEF\xBB\xBF"))) {
        rest = lore_str_slice(rest, 3, rest.len);
    }
    for (rest = lore_str_trim(rest); lore_str_starts(rest, LORE_STR("<"));
         rest = lore_str_trim(rest)) {
        bool is_comment = lore_str_starts(rest, LORE_STR("<!--"));
        if (!is_comment && rest.len > 1 && rest.ptr[1] != '?' && rest.ptr[1] != '!') {
            size_t end = 1, start = 1;
            for (; end < rest.len && strchr(" \t\r\n/>", rest.ptr[end]) == NULL; end++) {
                start = rest.ptr[end] == ':' ? end + 1 : start;
            }
            lore_str name = lore_str_slice(rest, start, end);
            return lore_str_equal(name, LORE_STR("urlset")) ||
                   lore_str_equal(name, LORE_STR("sitemapindex"));
        }
        size_t bracket = lore_str_find(rest, LORE_STR("["), 0); /* <!DOCTYPE x [ ... ]> */
        bool has_subset = bracket < lore_str_find(rest, LORE_STR(">"), 0);
        lore_str close = is_comment ? LORE_STR("-->") : has_subset ? LORE_STR("]>") : LORE_STR(">");
        size_t end = lore_str_find(rest, close, 1);
        if (end == SIZE_MAX) {
            return false;
        }
        rest = lore_str_slice(rest, end + close.len, rest.len);
    }
    return false;
}

lore_status lore_sitemap_parse(lore_str bytes, const lore_limits *limits, lore_arena *arena,
                               lore_sitemap *sitemap, lore_error *err)
{
    *sitemap = (lore_sitemap){.urls = NULL};
    reader r = {.arena = arena, .sitemap = sitemap, .count_max = (size_t)limits->fetch_pages_max};
    const lore_xml_handler handler = {
        .self = &r, .start = on_start, .end = on_end, .text = on_text, .is_full = is_full};
    lore_buf_init(&r.text, 0);
    lore_status status =
        lore_xml_parse(bytes, 0, bytes.len, LORE_STR("sitemap"), &handler, limits, NULL, err);
    lore_buf_destroy(&r.text);
    if (status == LORE_OK && r.failure == LORE_ERR_LIMIT) {
        return lore_fail(err, LORE_ERR_LIMIT, "lists more than %lld URLs (limits.fetch_pages_max)",
                         (long long)limits->fetch_pages_max);
    }
    return status == LORE_OK && r.failure != LORE_OK
               ? lore_fail(err, r.failure, "out of memory reading a sitemap")
               : status;
}
