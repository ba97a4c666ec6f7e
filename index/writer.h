/* The one thread that writes to an index, and the queue before it.
 *
 * Whoever wants a change hands it over and waits; what has gathered while the last transaction was
 * on its way to the disk becomes the next one (group commit: DeWitt et al., SIGMOD 1984), so many
 * waiting callers share one sync. A caller returns when its changes are durable and found by the
 * next snapshot, or refused; a change that fails fails alone. Between transactions the thread folds
 * the tail into derived files and keeps the write-ahead log short. Thread: any but the writer's. */
#ifndef LORE_INDEX_WRITER_H
#define LORE_INDEX_WRITER_H

#include "index/store.h"

typedef struct lore_writer lore_writer;

/* From now until close nobody else may write to the index, which is borrowed and opened to write.
 */
LORE_MUST_USE lore_status lore_writer_open(lore_index *index, lore_writer **writer,
                                           lore_error *err);
/* Writes what is queued, publishes, joins. Nobody may be handing over any more. Accepts NULL. */
void lore_writer_close(lore_writer *writer);
lore_index *lore_writer_index(const lore_writer *writer);

typedef enum lore_change_kind {
    LORE_CHANGE_PUT, /* the document, and its collection where that is missing */
    LORE_CHANGE_DELETE,
    LORE_CHANGE_CREATE_COLLECTION,
    LORE_CHANGE_SET_COLLECTION, /* its settings */
    LORE_CHANGE_DELETE_COLLECTION
} lore_change_kind;

typedef enum lore_change_outcome {
    LORE_OUTCOME_NONE, /* unchanged (same hash), already there, or nothing to delete */
    LORE_OUTCOME_ADDED,
    LORE_OUTCOME_REPLACED,
    LORE_OUTCOME_DELETED
} lore_change_outcome;

typedef struct lore_change { /* everything borrowed until apply returns */
    lore_change_kind kind;
    lore_str collection;
    lore_str id;                              /* to delete */
    const lore_document_row *document;        /* to put */
    const lore_collection_settings *settings; /* to set */
    /* How it ended: */
    lore_status status;
    lore_error error; /* where status is a failure */
    lore_change_outcome outcome;
    bool is_near_duplicate; /* what was put nearly repeats another document */
} lore_change;

typedef struct lore_apply_options { /* NULL: wait as long as it takes */
    int64_t deadline_ns;
    void *self;
    bool (*is_cancelled)(void *self); /* polled on the caller's thread; may be NULL */
} lore_apply_options;

/* Apply 1..LORE_CHANGES_MAX changes in order. LORE_OK: each change says how it ended. _TIMEOUT,
 * _CANCELLED: the caller gave up before its turn came, and nothing of it is written. */
enum { LORE_CHANGES_MAX = 256 };
LORE_MUST_USE lore_status lore_writer_apply(lore_writer *writer, lore_change *changes,
                                            int32_t count, const lore_apply_options *options,
                                            lore_error *err);
/* The same for one; its own failure is the result. */
LORE_MUST_USE lore_status lore_writer_apply_one(lore_writer *writer, lore_change *change,
                                                const lore_apply_options *options, lore_error *err);
/* lore_index_publish on the writer's thread, after everything that was handed over before. */
LORE_MUST_USE lore_status lore_writer_publish(lore_writer *writer, lore_error *err);

#endif
