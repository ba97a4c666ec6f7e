/* What came of a request: a page, a redirect, a robots.txt, a sitemap whose pages go behind it, or
 * a failure. All of it on the walk's thread. */
#include "ingest/web_walk_int.h"

#include "base/clock.h"

#include <string.h>

enum {
    ROBOTS_HOPS_MAX = 5,
    DELAY_MS_MAX = 30000, /* of Crawl-delay: more is not obeyed, or nobody would see the end */
    SITEMAP_LEVELS_MAX = 4,
    TRIES_MAX = 3,
    RETRY_MS = 1000,
    RETRY_MS_MAX = 60000
};

static lore_status out_of_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory walking the web");
}

/* ---- redirects and other tries ---- */

static void wait_again(lore_page *p, int64_t ready_ns)
{
    lore_web_free_get(p);
    p->ready_ns = ready_ns;
    p->state = LORE_PAGE_WAITING;
}

/* False: the redirect leads nowhere, err says why. */
static bool follow(lore_web *web, lore_page *p, lore_error *err)
{
    lore_url to;
    lore_str location = lore_buf_str(&p->get->location);
    int64_t hops_max =
        p->kind == LORE_PAGE_ROBOTS ? ROBOTS_HOPS_MAX : web->limits.fetch_redirects_max;
    if (location.len == 0) {
        lore_fail(err, LORE_ERR_INVALID, "the server answered with status %d and no address",
                  (int)p->get->http_status);
        return false;
    }
    if (p->hops++ >= hops_max) {
        lore_fail(err, LORE_ERR_LIMIT, "redirects more than %lld times%s", (long long)hops_max,
                  p->kind == LORE_PAGE_ROBOTS ? "" : " (limits.fetch_redirects_max)");
        return false;
    }
    if (lore_url_resolve(lore_str_from(p->at.text), location, &web->arena, &to, err) != LORE_OK) {
        (void)lore_error_prefix(err, "redirects");
        return false;
    }
    if (lore_str_equal(p->at.scheme, LORE_STR("https")) &&
        !lore_str_equal(to.scheme, p->at.scheme)) {
        lore_fail(err, LORE_ERR_INVALID, "redirects from https to '%s'", to.text);
        return false;
    }
    lore_origin *o = p->kind == LORE_PAGE_ROBOTS ? p->origin : lore_web_origin_of(web, &to);
    if (o == NULL) {
        (void)out_of_memory(err);
        return false;
    }
    p->at = to;
    p->origin = o;
    p->is_allowed = p->kind == LORE_PAGE_ROBOTS;
    wait_again(p, 0);
    return true;
}

static bool is_redirect(int32_t status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* Busy or out for a moment: another try later. */
static bool may_retry(const lore_page *p)
{
    int32_t status = p->get->http_status;
    bool is_passing = status == 429 || status == 502 || status == 503 || status == 504;
    return p->get->status == LORE_OK && is_passing && p->tries + 1 < TRIES_MAX &&
           p->get->retry_ms <= RETRY_MS_MAX;
}

static void retry(lore_page *p, int64_t now)
{
    int64_t pause_ms = p->get->retry_ms > 0 ? p->get->retry_ms : (int64_t)RETRY_MS << p->tries;
    p->tries++;
    p->origin->ready_ns = now + pause_ms * 1000000;
    wait_again(p, now + pause_ms * 1000000);
}

/* What there is of robots.txt. Lock held, but for the parser. */
static void settle_robots(lore_web *web, lore_page *p)
{
    lore_error err;
    lore_origin *o = p->origin;
    int32_t status = p->get->http_status;
    if (p->get->status != LORE_OK) {
        lore_web_fail_page(web, p, &p->get->error);
    } else if (is_redirect(status) && follow(web, p, &err)) {
        return;
    } else if (status >= 500 || status == 429) {
        lore_fail(&err, LORE_ERR_IO, "the server answered with status %d", (int)status);
        lore_web_fail_page(web, p, &err);
    } else if (status == 200 && lore_robots_parse(lore_buf_str(&p->get->body), LORE_STR("lore"),
                                                  &web->arena, &o->robots, &err) != LORE_OK) {
        lore_web_fail_page(web, p, &err);
    } else { /* none (any other status): everything is allowed */
        o->robots.delay_ms = o->robots.delay_ms > DELAY_MS_MAX ? DELAY_MS_MAX : o->robots.delay_ms;
        o->is_known = true;
        p->state = LORE_PAGE_DONE;
    }
    lore_web_free_get(p);
}

/* ---- sitemaps ---- */

static bool is_compressed(lore_str bytes)
{
    return lore_str_starts(bytes, LORE_STR("\x1F\x8B"));
}

/* Of a file that is compressed as such, what is in it. */
static lore_status unpack(const lore_web *web, lore_str bytes, lore_buf *out, lore_error *err)
{
    lore_archive *archive = NULL;
    lore_arena arena;
    lore_str name;
    bool is_done = true;
    lore_arena_init(&arena, 0);
    lore_status status =
        lore_archive_open(bytes, (uint64_t)web->limits.unpacked_bytes_max, &archive, err);
    if (status == LORE_OK) {
        status = lore_archive_next(archive, &arena, &name, &is_done, err);
    }
    if (status == LORE_OK && !is_done) {
        status = lore_archive_read(archive, (size_t)web->limits.file_bytes_max, out, err);
    }
    lore_archive_close(archive);
    lore_arena_destroy(&arena);
    return status;
}

/* Up to the last slash of the path. */
static lore_str folder_of(const lore_url *url)
{
    lore_str text = lore_str_from(url->text);
    const char *query = memchr(text.ptr, '?', text.len);
    text.len = query == NULL ? text.len : (size_t)(query - text.ptr);
    while (text.len > 0 && text.ptr[text.len - 1] != '/') {
        text.len--;
    }
    return text;
}

static bool add_root(lore_web *web, lore_page *p)
{
    if (web->root_count == web->root_room) {
        size_t room = web->root_room == 0 ? 8 : web->root_room * 2;
        lore_root *grown = lore_realloc(web->roots, room * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        web->roots = grown;
        web->root_room = room;
    }
    lore_url url = {.text = p->url.ptr}; /* normalised, so it ends with a NUL */
    p->root = (int32_t)web->root_count;
    web->roots[web->root_count++] = (lore_root){folder_of(&url), true};
    return true;
}

/* Put what the sitemap lists behind it. Lock held. */
static lore_status list_pages(lore_web *web, lore_page *p, const lore_sitemap *sitemap,
                              lore_error *err)
{
    lore_page *before = p;
    lore_status status = LORE_OK;
    if (sitemap->is_index && p->level + 1 >= SITEMAP_LEVELS_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "indexes of sitemaps nest deeper than %d",
                         SITEMAP_LEVELS_MAX);
    }
    if (p->kind == LORE_PAGE_NAMED && !add_root(web, p)) {
        return out_of_memory(err);
    }
    for (size_t i = 0; i < sitemap->count && status == LORE_OK; i++) {
        lore_page *added = NULL;
        status = lore_web_add_page(web, sitemap->urls[i],
                                   sitemap->is_index ? LORE_PAGE_SITEMAP : LORE_PAGE_LISTED, before,
                                   &added, err);
        if (added != NULL) {
            added->root = p->root;
            added->level = p->level + 1;
            before = added;
        }
    }
    if (status != LORE_OK && p->root >= 0) {
        web->roots[p->root].is_whole = false;
    }
    p->is_list = status == LORE_OK;
    web->count -= p->is_list ? 1 : 0;
    return status;
}

/* Does the page have to be a sitemap, or is it one? Its bytes may be replaced by what they unpack
 * to. */
static lore_status read_sitemap(lore_web *web, lore_page *p, lore_arena *arena,
                                lore_sitemap *sitemap, bool *is_sitemap, lore_error *err)
{
    lore_buf unpacked;
    lore_str bytes = lore_buf_str(&p->get->body);
    bool may_be = p->kind == LORE_PAGE_SITEMAP || p->kind == LORE_PAGE_NAMED;
    lore_status status = LORE_OK;
    lore_buf_init(&unpacked, 0);
    if (is_compressed(bytes) && (p->kind == LORE_PAGE_SITEMAP ||
                                 (may_be && lore_str_ends(p->at.path, LORE_STR(".xml.gz"))))) {
        status = unpack(web, bytes, &unpacked, err);
        bytes = lore_buf_str(&unpacked);
    }
    *is_sitemap = status == LORE_OK && may_be && lore_sitemap_is(bytes);
    if (*is_sitemap) {
        status = lore_sitemap_parse(bytes, &web->limits, arena, sitemap, err);
    } else if (status == LORE_OK && p->kind == LORE_PAGE_SITEMAP) {
        status = lore_fail(err, LORE_ERR_INVALID, "is no sitemap");
    }
    lore_buf_destroy(&unpacked);
    return status;
}

/* ---- settling ---- */

static void settle_page(lore_web *web, lore_page *p, lore_status status,
                        const lore_sitemap *sitemap, bool is_sitemap, lore_error *err)
{
    int32_t http_status = p->get->http_status;
    if (p->get->status != LORE_OK) {
        status = p->get->status;
        *err = p->get->error;
    } else if (is_redirect(http_status)) {
        if (follow(web, p, err)) {
            return;
        }
        status = err->status;
    } else if (http_status == 304 && p->validators.len > 0) {
        p->is_unchanged = true;
    } else if (http_status != 200) {
        status = lore_fail(
            err, http_status == 404 || http_status == 410 ? LORE_ERR_NOT_FOUND : LORE_ERR_IO,
            "the server answered with status %d", (int)http_status);
    } else if (is_sitemap && status == LORE_OK) {
        status = list_pages(web, p, sitemap, err);
    }
    if (status != LORE_OK || p->is_list) {
        lore_web_free_get(p);
    }
    if (status != LORE_OK) {
        lore_web_fail_page(web, p, err);
    } else {
        lore_web_end_page(web, p);
    }
}

void lore_web_settle(lore_web *web, lore_get *get)
{
    lore_page *p = get->owner;
    lore_error err;
    lore_arena arena;
    lore_sitemap sitemap = {.urls = NULL};
    bool is_sitemap = false;
    lore_status status = LORE_OK;
    lore_arena_init(&arena, 0);
    if (get->status == LORE_OK && get->http_status == 200 && p->kind != LORE_PAGE_ROBOTS) {
        status = read_sitemap(web, p, &arena, &sitemap, &is_sitemap, &err);
    }
    lore_lock_acquire(&web->lock);
    web->active--;
    p->origin->active--;
    if (may_retry(p)) {
        retry(p, lore_clock_ns());
    } else if (p->kind == LORE_PAGE_ROBOTS) {
        settle_robots(web, p);
    } else {
        settle_page(web, p, status, &sitemap, is_sitemap, &err);
    }
    lore_lock_release(&web->lock);
    lore_arena_destroy(&arena);
}
