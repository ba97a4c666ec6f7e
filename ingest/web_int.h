/* Inside ingest/: documents from the web.
 *
 * web.c walks URLs and sitemaps in order on a thread of its own; fetch.c moves bytes (libcurl) and
 * knows URLs; robots.c, sitemap.c, proxy.c and address.c are pure: what a site allows, what it
 * lists, which proxy is meant, which addresses are nobody's business. */
#ifndef LORE_INGEST_WEB_INT_H
#define LORE_INGEST_WEB_INT_H

#include "ingest/package_int.h"

struct sockaddr;

/* ---- served.c ---- */

/* What it is, by its signature, its Content-Type and its URL, in this order. */
lore_media lore_media_served(lore_str type, lore_str url, lore_str bytes);
/* *bytes of a text as UTF-8 where the charset of the Content-Type is true. LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_decode_served(lore_str type, lore_media media, lore_arena *arena,
                                             lore_str *bytes, lore_error *err);

/* ---- address.c ---- */

/* What kind of address it is that documents do not come from ("loopback", "private", ...), NULL for
 * a public one. An IPv6 address that holds an IPv4 one is what that is. Source: the special-purpose
 * registries of IANA (RFC 6890). */
const char *lore_address_kind(const struct sockaddr *address);
/* The same of a host as it stands in a URL, whose IPv4 forms are dotted already; names that never
 * leave the machine count, others are public as far as their text tells. */
const char *lore_host_kind(lore_str host);

/* ---- proxy.c ---- */

/* The proxy for a scheme and a host as the environment says (http_proxy, https_proxy, all_proxy,
 * no_proxy, also in capitals, but HTTP_PROXY, which a server's client could set); "" for none. */
lore_str lore_proxy_of(lore_str scheme, lore_str host, const char *(*variable)(const char *name));

/* ---- robots.c ---- */

typedef struct lore_robots_rule {
    lore_str pattern; /* unreserved characters plain, all others as %XX */
    bool is_allowed;
} lore_robots_rule;

typedef struct lore_robots {
    lore_robots_rule *rules;
    size_t count;
    int64_t delay_ms; /* Crawl-delay; 0: none */
} lore_robots;

/* What a robots.txt says to `product`; in the arena. Anything is a robots.txt. LORE_ERR_NOMEM.
 * Source: RFC 9309; Crawl-delay as others read it. */
LORE_MUST_USE lore_status lore_robots_parse(lore_str text, lore_str product, lore_arena *arena,
                                            lore_robots *robots, lore_error *err);
/* May this path (with its query) be fetched? The longest rule that matches decides, of equals the
 * one that allows. */
bool lore_robots_allows(const lore_robots *robots, lore_str path);

/* ---- sitemap.c ---- */

typedef struct lore_sitemap {
    lore_str *urls; /* trimmed, as they stand there */
    size_t count;
    bool is_index; /* they are sitemaps */
} lore_sitemap;

/* Does the text begin like a sitemap or an index of sitemaps? */
bool lore_sitemap_is(lore_str bytes);
/* LORE_ERR_INVALID for what is no XML, LORE_ERR_LIMIT for more URLs than limits.fetch_pages_max. */
LORE_MUST_USE lore_status lore_sitemap_parse(lore_str bytes, const lore_limits *limits,
                                             lore_arena *arena, lore_sitemap *sitemap,
                                             lore_error *err);

/* ---- fetch.c: the fence of libcurl ---- */

typedef struct lore_url {
    const char *text;            /* normalised, without fragment */
    lore_str scheme, host, path; /* slices; path with its query, at least "/" */
    lore_str origin;             /* scheme, host and port */
} lore_url;

/* `reference` as it stands in a document at base ("" for an absolute one); in the arena.
 * LORE_ERR_INVALID where it is no URL of http or https or carries a password. */
LORE_MUST_USE lore_status lore_url_resolve(lore_str base, lore_str reference, lore_arena *arena,
                                           lore_url *url, lore_error *err);

typedef struct lore_fetcher lore_fetcher;

/* One request. The caller sets the first part, and everything else to zero. */
typedef struct lore_get {
    const char *url;
    lore_str scheme, host;   /* of the URL */
    lore_str etag, modified; /* of what is there already; "" none */
    size_t bytes_max;
    bool is_cut; /* in: what is longer may be cut; out: it was. Otherwise longer is an error */
    void *owner;

    lore_status status; /* of the exchange; LORE_OK for any answer that came whole */
    lore_error error;
    int32_t http_status;
    int64_t retry_ms;                                /* Retry-After, 0: none */
    lore_buf body;                                   /* without its gzip */
    lore_buf location;                               /* headers; "" where there were none */
    char type[128], new_etag[256], new_modified[64]; /* likewise */

    lore_fetcher *fetcher; /* the rest is fetch.c's */
    void *handle, *headers;
    const char *refused; /* kind of the address that was */
    char address[64];
    bool is_too_long, is_proxied;
    char words[256];
} lore_get;
void lore_get_destroy(lore_get *get);

LORE_MUST_USE lore_status lore_fetcher_open(const lore_limits *limits, bool may_be_private,
                                            lore_fetcher **fetcher, lore_error *err);
void lore_fetcher_close(lore_fetcher *fetcher); /* after all gets were taken or dropped */
/* The get is the fetcher's until it is taken or dropped. */
LORE_MUST_USE lore_status lore_fetcher_begin(lore_fetcher *fetcher, lore_get *get, lore_error *err);
/* Move bytes for at most so long; lore_fetcher_wake, from any thread, ends it sooner. */
void lore_fetcher_wait(lore_fetcher *fetcher, int32_t timeout_ms);
void lore_fetcher_wake(lore_fetcher *fetcher);
lore_get *lore_fetcher_take(lore_fetcher *fetcher); /* one that has ended; NULL: none */
void lore_fetcher_drop(lore_fetcher *fetcher, lore_get *get);

/* ---- web.c ---- */

typedef struct lore_web lore_web;

typedef struct lore_web_page {
    lore_str url;
    lore_str type; /* Content-Type */
    lore_str bytes;
    lore_str validators; /* lines: ETag, Last-Modified; "" where the server gave none */
    bool is_unchanged;   /* the server says so; no bytes */
    bool is_named;       /* by the caller */
} lore_web_page;

typedef struct lore_web_options {
    const lore_limits *limits;
    bool may_be_private;
    /* What is known of a URL: the validators of its document, in the arena, "" for none. Called on
     * the walk's thread. May be NULL. */
    lore_str (*known)(void *self, lore_str url, lore_arena *arena);
    void *self;
} lore_web_options;

LORE_MUST_USE lore_status lore_web_open(const lore_web_options *options, lore_web **web,
                                        lore_error *err);
void lore_web_close(lore_web *web);
/* Before the first lore_web_next. A bad URL is told in its turn. */
LORE_MUST_USE lore_status lore_web_add(lore_web *web, lore_str url, lore_error *err);
/* The next page in the arena, in the order of the URLs and of their sitemaps; *done at the end. A
 * page that cannot be had is an error with page->url set. */
LORE_MUST_USE lore_status lore_web_next(lore_web *web, lore_arena *arena, lore_web_page *page,
                                        bool *done, lore_error *err);
int64_t lore_web_count(lore_web *web); /* pages known so far */
void lore_web_cancel(lore_web *web);   /* from any thread: lore_web_next ends with *done */
/* At the end: the folders of the sitemaps that were read whole, their URLs up to the last slash. */
size_t lore_web_folder_count(const lore_web *web);
lore_str lore_web_folder(const lore_web *web, size_t index);

#endif
