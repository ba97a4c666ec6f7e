/* The walk of the web: pages in the order of their URLs, fetched ahead by a thread of its own.
 *
 * Invariants:
 * 1. Pages form one list, which only grows, behind the page that is being settled: a sitemap's
 *    pages come directly behind it, before it is done.
 * 2. A page goes WAITING -> UNDERWAY -> DONE, or back to WAITING for a redirect or another try. It
 *    is the thread's until it is DONE, and the reader's from then on.
 * 3. A page is asked for only when the robots.txt of the host it is asked at is known and allows
 *    it, after each redirect anew. That of an unreachable host forbids everything (RFC 9309, 2.3).
 * 4. What was fetched and not yet taken is bounded by WINDOW_PAGES and WINDOW_BYTES.
 * The lock guards the list, the states and the counts; never held in calls of fetch.c that move
 * bytes, nor while a sitemap is parsed. */
#include "ingest/web_walk_int.h"

#include "base/clock.h"

#include <string.h>

enum {
    WINDOW_PAGES = 64,
    WINDOW_BYTES = 64 * 1024 * 1024,
    WALK_BYTES_MAX = 512 * 1024 * 1024, /* URLs and rules */
    HOST_REQUESTS_MAX = 2,
    ROBOTS_BYTES_MAX = 512 * 1024, /* at least 500 KiB, says RFC 9309 */
    WAIT_MS = 500
};

/* ---- pages ---- */

static lore_status out_of_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory walking the web");
}

void lore_web_end_page(lore_web *web, lore_page *p)
{
    p->state = LORE_PAGE_DONE;
    web->open--;
    web->held_bytes += p->get == NULL ? 0 : p->get->body.len;
    lore_lock_wake_all(&web->lock);
}

void lore_web_fail_page(lore_web *web, lore_page *p, const lore_error *why)
{
    p->status = why->status;
    p->failure = lore_str_copy(&web->arena, lore_str_from(why->message));
    if (p->failure.ptr == NULL) {
        p->failure = LORE_STR("out of memory walking the web");
    }
    if (p->kind == LORE_PAGE_ROBOTS) {
        p->origin->is_unreachable = true;
        p->state = LORE_PAGE_DONE;
        return;
    }
    if (p->root >= 0 && p->kind == LORE_PAGE_SITEMAP) {
        web->roots[p->root].is_whole = false;
    }
    lore_web_end_page(web, p);
}

lore_origin *lore_web_origin_of(lore_web *web, const lore_url *url)
{
    lore_origin **slot = &web->origins[lore_str_hash(url->origin) % LORE_ORIGIN_SLOTS];
    for (lore_origin *o = *slot; o != NULL; o = o->next) {
        if (lore_str_equal(o->name, url->origin)) {
            return o;
        }
    }
    lore_origin *o = LORE_PUSH(&web->arena, lore_origin, 1);
    lore_error err;
    if (o == NULL || lore_url_resolve(url->origin, LORE_STR("/robots.txt"), &web->arena,
                                      &o->robots_page.at, &err) != LORE_OK) {
        return NULL;
    }
    o->name = url->origin;
    o->robots_page.kind = LORE_PAGE_ROBOTS;
    o->robots_page.origin = o;
    o->robots_page.is_allowed = true;
    o->robots_page.root = -1;
    o->next = *slot;
    *slot = o;
    return o;
}

lore_status lore_web_add_page(lore_web *web, lore_str reference, lore_page_kind kind,
                              lore_page *before, lore_page **added, lore_error *err)
{
    lore_error bad;
    *added = NULL;
    lore_page *p = LORE_PUSH(&web->arena, lore_page, 1);
    if (p == NULL) {
        return out_of_memory(err);
    }
    p->kind = kind;
    p->root = -1;
    lore_status status = lore_url_resolve((lore_str){"", 0}, reference, &web->arena, &p->at, &bad);
    bool is_good = status == LORE_OK;
    p->url = is_good ? lore_str_from(p->at.text) : lore_str_copy(&web->arena, reference);
    p->origin = is_good ? lore_web_origin_of(web, &p->at) : NULL;
    if (status == LORE_ERR_NOMEM || p->url.ptr == NULL || (is_good && p->origin == NULL)) {
        return out_of_memory(err);
    }
    if (lore_id_set_has(&web->known, p->url)) {
        return LORE_OK;
    }
    if (web->listed >= web->limits.fetch_pages_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "more than %lld URLs (limits.fetch_pages_max)",
                         (long long)web->limits.fetch_pages_max);
    }
    status = lore_id_set_add(&web->known, p->url, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_page *behind = before == NULL ? web->last : before;
    p->next = behind == NULL ? NULL : behind->next;
    if (behind == NULL) {
        web->first = web->head = p;
    } else {
        behind->next = p;
    }
    web->last = p->next == NULL ? p : web->last;
    web->head = web->head == NULL ? p : web->head;
    web->count++;
    web->open++;
    web->listed++;
    if (!is_good) {
        lore_web_fail_page(web, p, &bad);
    }
    *added = p;
    return LORE_OK;
}

void lore_web_free_get(lore_page *p)
{
    if (p->get != NULL) {
        lore_get_destroy(p->get);
        lore_free(p->get);
        p->get = NULL;
    }
}

/* ---- what to ask for next; lock held ---- */

static void sooner(int64_t *wake_ns, int64_t ns)
{
    *wake_ns = ns < *wake_ns ? ns : *wake_ns;
}

/* May the page be asked for? Fails it where it never may. */
static bool is_page_allowed(lore_web *web, lore_page *p)
{
    lore_error err;
    const lore_origin *o = p->origin;
    if (o->is_unreachable) {
        lore_fail(&err, LORE_ERR_IO,
                  "robots.txt of '" LORE_STR_FMT "' cannot be read: " LORE_STR_FMT,
                  LORE_STR_ARG(o->name), LORE_STR_ARG(o->robots_page.failure));
    } else if (lore_robots_allows(&o->robots, p->at.path)) {
        return true;
    } else {
        lore_fail(&err, LORE_ERR_UNSUPPORTED, "robots.txt of '" LORE_STR_FMT "' forbids it",
                  LORE_STR_ARG(o->name));
    }
    lore_web_fail_page(web, p, &err);
    return false;
}

/* The page itself, the robots.txt that it waits for, or NULL. */
static lore_page *ready_page(lore_web *web, lore_page *p, int64_t now, int64_t *wake_ns)
{
    lore_origin *o = p->origin;
    if (!o->is_known && !o->is_unreachable) {
        lore_page *robots = &o->robots_page;
        bool is_ready = robots->state == LORE_PAGE_WAITING && robots->ready_ns <= now;
        if (robots->state == LORE_PAGE_WAITING && !is_ready) {
            sooner(wake_ns, robots->ready_ns);
        }
        return is_ready ? robots : NULL;
    }
    p->is_allowed = p->is_allowed || is_page_allowed(web, p);
    if (!p->is_allowed) {
        return NULL;
    }
    int64_t ready_ns = p->ready_ns > o->ready_ns ? p->ready_ns : o->ready_ns;
    if (ready_ns > now) {
        sooner(wake_ns, ready_ns);
        return NULL;
    }
    return o->active < (o->robots.delay_ms > 0 ? 1 : HOST_REQUESTS_MAX) ? p : NULL;
}

static lore_page *pick(lore_web *web, int64_t now, int64_t *wake_ns)
{
    int32_t seen = 0;
    for (lore_page *p = web->head; p != NULL && seen < WINDOW_PAGES; p = p->next, seen++) {
        bool has_room = web->active < web->limits.fetch_connections_max &&
                        (p == web->head || web->held_bytes < WINDOW_BYTES);
        lore_page *ready =
            p->state == LORE_PAGE_WAITING && has_room ? ready_page(web, p, now, wake_ns) : NULL;
        if (ready != NULL) {
            ready->state = LORE_PAGE_UNDERWAY;
            web->active++;
            ready->origin->active++;
            ready->origin->ready_ns = now + ready->origin->robots.delay_ms * 1000000;
            return ready;
        }
    }
    return NULL;
}

/* ---- asking; the thread's own, without the lock ---- */

static void split_validators(lore_str both, lore_str *etag, lore_str *modified)
{
    lore_str rest = both;
    *etag = *modified = (lore_str){"", 0};
    if (lore_str_next_line(&rest, etag)) {
        (void)lore_str_next_line(&rest, modified);
    }
}

static void start_page(lore_web *web, lore_page *p)
{
    lore_error err;
    lore_get *get = lore_alloc_zero(1, sizeof *get);
    if (get != NULL) {
        bool is_robots = p->kind == LORE_PAGE_ROBOTS;
        if (p->kind != LORE_PAGE_ROBOTS && p->kind != LORE_PAGE_SITEMAP &&
            web->options.known != NULL) {
            p->validators = web->options.known(web->options.self, p->url, &web->arena);
        }
        get->url = p->at.text;
        get->scheme = p->at.scheme;
        get->host = p->at.host;
        split_validators(p->validators, &get->etag, &get->modified);
        get->bytes_max = is_robots ? ROBOTS_BYTES_MAX : (size_t)web->limits.file_bytes_max;
        get->is_cut = is_robots;
        get->owner = p;
    }
    lore_status status =
        get == NULL ? out_of_memory(&err) : lore_fetcher_begin(web->fetcher, get, &err);
    lore_lock_acquire(&web->lock);
    if (status == LORE_OK) {
        p->get = get;
    } else {
        web->active--;
        p->origin->active--;
        lore_web_fail_page(web, p, &err);
    }
    lore_lock_release(&web->lock);
    if (status != LORE_OK && get != NULL) {
        lore_get_destroy(get);
        lore_free(get);
    }
}

static void *run(void *self)
{
    lore_web *web = self;
    for (;;) {
        int64_t now = lore_clock_ns(), wake_ns = now + (int64_t)WAIT_MS * 1000000;
        lore_lock_acquire(&web->lock);
        bool is_over = web->is_stopping || web->open == 0;
        lore_page *p = is_over ? NULL : pick(web, now, &wake_ns);
        lore_lock_release(&web->lock);
        if (is_over) {
            return NULL;
        }
        if (p != NULL) {
            start_page(web, p);
            continue;
        }
        int64_t wait_ms = (wake_ns - now) / 1000000 + 1;
        lore_fetcher_wait(web->fetcher, (int32_t)wait_ms);
        for (lore_get *get = lore_fetcher_take(web->fetcher); get != NULL;
             get = lore_fetcher_take(web->fetcher)) {
            lore_web_settle(web, get);
        }
    }
}

/* ---- public ---- */

lore_status lore_web_open(const lore_web_options *options, lore_web **web, lore_error *err)
{
    lore_web *opened = lore_alloc_zero(1, sizeof *opened);
    if (opened == NULL) {
        return out_of_memory(err);
    }
    opened->options = *options;
    opened->limits = *options->limits;
    lore_lock_init(&opened->lock);
    lore_arena_init(&opened->arena, WALK_BYTES_MAX);
    lore_status status =
        lore_fetcher_open(options->limits, options->may_be_private, &opened->fetcher, err);
    if (status != LORE_OK) {
        lore_web_close(opened);
        return status;
    }
    *web = opened;
    return LORE_OK;
}

static void drop(lore_web *web, lore_page *p)
{
    if (p->get != NULL && p->state == LORE_PAGE_UNDERWAY) {
        lore_fetcher_drop(web->fetcher, p->get);
    }
    lore_web_free_get(p);
}

void lore_web_close(lore_web *web)
{
    if (web == NULL) {
        return;
    }
    lore_web_cancel(web);
    lore_thread_join(&web->thread);
    for (lore_page *p = web->first; p != NULL; p = p->next) {
        drop(web, p);
    }
    for (size_t i = 0; i < LORE_ORIGIN_SLOTS; i++) {
        for (lore_origin *o = web->origins[i]; o != NULL; o = o->next) {
            drop(web, &o->robots_page);
        }
    }
    lore_fetcher_close(web->fetcher);
    lore_id_set_destroy(&web->known);
    lore_free(web->roots);
    lore_arena_destroy(&web->arena);
    lore_lock_destroy(&web->lock);
    lore_free(web);
}

lore_status lore_web_add(lore_web *web, lore_str url, lore_error *err)
{
    lore_page *added = NULL;
    LORE_ASSERT(!web->is_started);
    return lore_web_add_page(web, url, LORE_PAGE_NAMED, NULL, &added, err);
}

/* The page in its turn; NULL at the end. Lock held. */
static lore_page *next_page(lore_web *web)
{
    while (!web->is_stopping && web->head != NULL) {
        lore_page *p = web->head;
        if (p->state != LORE_PAGE_DONE) {
            (void)lore_lock_wait(&web->lock, lore_clock_ns() + (int64_t)WAIT_MS * 1000000);
            continue;
        }
        web->head = p->next;
        web->held_bytes -= p->get == NULL ? 0 : p->get->body.len;
        if (!p->is_list) {
            return p;
        }
    }
    return NULL;
}

static lore_status read_page(lore_page *p, lore_arena *arena, lore_web_page *out, lore_error *err)
{
    out->url = lore_str_copy(arena, p->url);
    out->is_named = p->kind == LORE_PAGE_NAMED;
    out->is_unchanged = p->is_unchanged;
    out->type = out->bytes = out->validators = (lore_str){"", 0};
    if (p->status != LORE_OK) {
        return lore_fail(err, p->status, LORE_STR_FMT, LORE_STR_ARG(p->failure));
    }
    const lore_get *get = p->get;
    bool has_validators = get->new_etag[0] != '\0' || get->new_modified[0] != '\0';
    out->type = lore_str_copy(arena, lore_str_from(get->type));
    if (!p->is_unchanged) {
        out->bytes = lore_str_copy(arena, lore_buf_str(&get->body));
    }
    if (has_validators) {
        out->validators = lore_str_printf(arena, "%s\n%s", get->new_etag, get->new_modified);
    }
    bool has_memory = out->url.ptr != NULL && out->type.ptr != NULL && out->bytes.ptr != NULL &&
                      out->validators.ptr != NULL;
    return has_memory
               ? LORE_OK
               : lore_fail(err, LORE_ERR_NOMEM, "out of memory for %zu bytes", get->body.len);
}

lore_status lore_web_next(lore_web *web, lore_arena *arena, lore_web_page *out, bool *done,
                          lore_error *err)
{
    *done = false;
    if (!web->is_started) {
        lore_status status = lore_thread_start(&web->thread, "lore-fetch", run, web, err);
        if (status != LORE_OK) {
            *done = true;
            return status;
        }
        web->is_started = true;
    }
    lore_lock_acquire(&web->lock);
    lore_page *p = next_page(web);
    lore_lock_release(&web->lock);
    lore_fetcher_wake(web->fetcher);
    *done = p == NULL;
    if (p == NULL) {
        return LORE_OK;
    }
    lore_status status = read_page(p, arena, out, err);
    lore_web_free_get(p);
    return status;
}

int64_t lore_web_count(lore_web *web)
{
    lore_lock_acquire(&web->lock);
    int64_t count = web->count;
    lore_lock_release(&web->lock);
    return count;
}

void lore_web_cancel(lore_web *web)
{
    lore_lock_acquire(&web->lock);
    web->is_stopping = true;
    lore_lock_wake_all(&web->lock);
    lore_lock_release(&web->lock);
    if (web->fetcher != NULL) {
        lore_fetcher_wake(web->fetcher);
    }
}

size_t lore_web_folder_count(const lore_web *web)
{
    return web->root_count;
}

lore_str lore_web_folder(const lore_web *web, size_t index)
{
    return web->roots[index].is_whole ? web->roots[index].folder : (lore_str){"", 0};
}
