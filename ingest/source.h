/* Sources: paths, folders, JSONL files, standard input, URLs and sitemaps, in stable order.
 *
 * Folders are walked when the source is opened (names sorted bytewise, depth first), files are read
 * one at a time as the caller asks, and JSONL line by line, so a file of any size needs the memory
 * of one line. Hidden entries, symbolic links to folders and files of unknown type inside folders
 * are passed over and counted; what the caller names is always tried. Pages of the web come behind
 * everything else, fetched ahead by a thread of the source's own. Thread: one at a time, but for
 * the two counts and lore_source_cancel. */
#ifndef LORE_INGEST_SOURCE_H
#define LORE_INGEST_SOURCE_H

#include "ingest/clean.h"

typedef struct lore_source lore_source;

typedef struct lore_source_options {
    const char *const *paths; /* files, folders, "-" (JSONL on standard input), http(s) URLs */
    int32_t path_count;
    int stdin_fd;     /* where "-" reads; 0 */
    bool are_found;   /* the paths were found in folders: what is gone, hidden or of unknown type is
                         passed over */
    const char *data; /* the data folder, passed over where it lies in another; NULL: none */
    lore_str metadata; /* JSON object merged into each document's, whose own members win; "" none */
    lore_str json_map; /* which members of JSON are what, as in "text=body,title=meta.name"; "" or
                          "none": as clients send documents */
    bool may_be_private; /* URLs may lead to private, loopback and link-local addresses */
} lore_source_options;

/* A path that cannot be read is an error of that document, told by lore_source_next; opening fails
 * on bad metadata or a bad map (LORE_ERR_INVALID), too many entries (LORE_ERR_LIMIT),
 * LORE_ERR_NOMEM. options is not needed after the call. */
LORE_MUST_USE lore_status lore_source_open(const lore_source_options *options,
                                           const lore_limits *limits, lore_source **source,
                                           lore_error *err);
void lore_source_close(lore_source *source);

/* The next document in the arena; *done at the end. A document that cannot be read returns its
 * error with raw->source set: the walk goes on with the next call. A document of a JSONL file has
 * the source "path#line", one of standard input none. */
LORE_MUST_USE lore_status lore_source_next(lore_source *source, lore_arena *arena,
                                           lore_raw_document *raw, bool *done, lore_error *err);
/* Before the first document: whom to ask what is known of a page (a document without bytes) before
 * it is fetched: the validators of the one that is stored, in the arena, "" for none. It is called
 * on the source's thread. */
void lore_source_ask(lore_source *source,
                     lore_str (*known)(void *self, const lore_raw_document *raw, lore_arena *arena),
                     void *self);
/* At the end: the folders of the sitemaps, as URLs up to a slash; "" for one that was not read
 * whole. */
size_t lore_source_sitemap_count(const lore_source *source);
lore_str lore_source_sitemap_folder(const lore_source *source, size_t index);
int64_t lore_source_total(const lore_source *source); /* documents known so far; for progress */
int64_t lore_source_passed_over(const lore_source *source);
/* From any thread: a read of standard input that waits, and all later calls, end with *done. */
void lore_source_cancel(lore_source *source);

/* Does source lie at or under one of `roots` (equal, or behind it a '/' or '#')? */
bool lore_source_is_below(lore_str source, const lore_str *roots, size_t count);

/* One JSONL line or PUT body ({"id"?,"title"?,"text"|"markdown"|"html","metadata"?,"url"?}, exactly
 * one of the three texts) to a raw document; strings in the arena. LORE_ERR_INVALID names the
 * field; LORE_ERR_LIMIT, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_raw_from_json(lore_str json, const lore_limits *limits,
                                             lore_arena *arena, lore_raw_document *raw,
                                             lore_error *err);

#endif
