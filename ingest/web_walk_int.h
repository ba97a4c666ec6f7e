/* Inside the walk of the web: what web.c, which asks, and web_answer.c, which settles what came,
 * share. The invariants are at the top of web.c. */
#ifndef LORE_INGEST_WEB_WALK_INT_H
#define LORE_INGEST_WEB_WALK_INT_H

#include "base/thread.h"
#include "ingest/web_int.h"

enum { LORE_ORIGIN_SLOTS = 256 };

typedef enum lore_page_state {
    LORE_PAGE_WAITING,
    LORE_PAGE_UNDERWAY,
    LORE_PAGE_DONE
} lore_page_state;
typedef enum lore_page_kind {
    LORE_PAGE_NAMED,
    LORE_PAGE_LISTED,
    LORE_PAGE_SITEMAP,
    LORE_PAGE_ROBOTS
} lore_page_kind;

typedef struct lore_origin lore_origin;

typedef struct lore_page {
    struct lore_page *next;
    lore_str url; /* as named or listed */
    lore_url at;  /* where it is asked for now */
    lore_origin *origin;
    lore_page_state state;
    lore_page_kind kind;
    bool is_allowed; /* by the robots.txt of `at` */
    bool is_list;    /* turned out to be a sitemap: its pages follow */
    bool is_unchanged;
    int32_t root;  /* sitemap it came from, an index of roots; -1 none */
    int32_t level; /* of indexes above it */
    int32_t hops, tries;
    int64_t ready_ns;
    lore_str validators; /* that were sent */
    lore_get *get;
    lore_status status;
    lore_str failure;
} lore_page;

struct lore_origin {
    lore_origin *next;
    lore_str name;
    lore_page robots_page;
    bool is_known, is_unreachable;
    lore_robots robots;
    int32_t active;
    int64_t ready_ns;
};

typedef struct lore_root {
    lore_str folder;
    bool is_whole;
} lore_root;

struct lore_web {
    lore_web_options options;
    lore_limits limits;
    lore_fetcher *fetcher;
    lore_thread thread;
    lore_lock lock;   /* guards all below; changed: a page is done */
    lore_arena arena; /* pages and what they point to; the thread's once it runs */
    lore_page *first, *head, *last;
    lore_origin *origins[LORE_ORIGIN_SLOTS]; /* by hash of the name */
    lore_id_set known;                       /* URLs */
    lore_root *roots;
    size_t root_count, root_room;
    int64_t count;  /* pages, without lists */
    int64_t open;   /* that are not done */
    int64_t listed; /* URLs ever put in, against limits.fetch_pages_max */
    size_t held_bytes;
    int32_t active;
    bool is_started, is_stopping;
};

/* All of these: lock held, or the walk has not begun. */
void lore_web_end_page(lore_web *web, lore_page *p);
void lore_web_fail_page(lore_web *web, lore_page *p, const lore_error *why);
/* NULL: out of memory. */
lore_origin *lore_web_origin_of(lore_web *web, const lore_url *url);
/* A page behind `before`, at the end where that is NULL. *added stays NULL for a URL that is in the
 * list already. LORE_ERR_NOMEM; LORE_ERR_LIMIT. */
LORE_MUST_USE lore_status lore_web_add_page(lore_web *web, lore_str reference, lore_page_kind kind,
                                            lore_page *before, lore_page **added, lore_error *err);
void lore_web_free_get(lore_page *p);

/* web_answer.c: a request has ended; the lock is taken inside. */
void lore_web_settle(lore_web *web, lore_get *get);

#endif
