/* The log of requests, and what they used by day: log.db in the data folder (docs/formats.md §5).
 *
 * A database of its own, written by one thread of its own, so that it never waits for ingest and no
 * answer ever waits for it: an entry goes into a bounded queue, and where that is full, or the disk
 * is, the entry is dropped and counted. A log.db that is damaged is set aside and a new one begun.
 * What people asked is kept only where the configuration says so. Thread: any. */
#ifndef LORE_INDEX_REQUEST_LOG_H
#define LORE_INDEX_REQUEST_LOG_H

#include "base/str.h"

typedef struct lore_request_log lore_request_log;

typedef struct lore_request_log_options {
    const char *folder; /* of the data */
    int64_t rows_max;   /* requests kept, the youngest; at least 1 */
    bool with_questions;
} lore_request_log_options;

/* Starts the thread, which opens or makes the file: a failure of that is logged, not returned. */
LORE_MUST_USE lore_status lore_request_log_open(const lore_request_log_options *options,
                                                lore_request_log **log, lore_error *err);
void lore_request_log_close(lore_request_log *log); /* writes what is queued; accepts NULL */

/* One request that is over; zero and empty where something does not apply. Copied by push. */
typedef struct lore_request_entry {
    lore_str id;
    int64_t time_ms; /* of its arrival */
    lore_str route;  /* "POST /query" */
    int32_t status;  /* of HTTP */
    lore_str error;  /* what kind of failure */
    lore_str mode;   /* that answered; empty: no question, or refused before it was one */
    bool is_refused; /* nothing supported an answer */
    double total_ms, embed_ms, search_ms, evidence_ms, queue_ms, first_token_ms;
    int64_t prompt_tokens, completion_tokens;
    lore_str collection; /* several: with "," between them */
    lore_str adapter, key_id;
    lore_str question;
} lore_request_entry;
/* Never waits. */
void lore_request_log_push(lore_request_log *log, const lore_request_entry *entry);
/* Entries that were lost since the start: the queue was full, or they could not be written. */
int64_t lore_request_log_dropped(const lore_request_log *log);

/* What questions used on one day (UTC), by collection, adapter and key. */
typedef struct lore_usage {
    lore_str day; /* "2026-01-31" */
    lore_str collection, adapter, key_id;
    int64_t requests, refused, failed, prompt_tokens, completion_tokens;
} lore_usage;
enum { LORE_USAGE_DAYS_MAX = 400, LORE_USAGE_ROWS_MAX = 10000 };
/* Of the last days, today included, oldest first; what is still queued comes within a second. Over
 * LORE_USAGE_ROWS_MAX rows: LORE_ERR_LIMIT. */
LORE_MUST_USE lore_status lore_request_log_usage(const lore_request_log *log, int32_t days,
                                                 lore_arena *arena, lore_usage **rows,
                                                 int32_t *count, lore_error *err);

#endif
