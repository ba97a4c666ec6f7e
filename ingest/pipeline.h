/* The run: read, clean, chunk, embed, write, in source order, searchable as documents land.
 *
 * A reader, several cleaners and one embedder run on threads joined by bounded channels; the
 * caller's thread puts them back in the order of the source and hands groups of documents (config
 * commit_documents, commit_ms) to the writer of the index. A document that fails is reported with
 * its reason and fails alone. Unchanged documents (same hash of content, metadata and settings) are
 * skipped before any work; changed ones are replaced whole. Thread: any; everything is written
 * through the process' one lore_writer, so a PUT lands between two commits of a long run. */
#ifndef LORE_INGEST_PIPELINE_H
#define LORE_INGEST_PIPELINE_H

#include "index/writer.h"
#include "ingest/background.h"
#include "ingest/source.h"
#include "models/embedder.h"

typedef struct lore_ingest_counts {
    int64_t seen, added, replaced, unchanged, failed, deleted, chunks, tokens, text_bytes;
    int64_t near_duplicates; /* of the added and replaced: nearly another document of the
                                collection; not known to a dry run */
} lore_ingest_counts;

typedef enum lore_ingest_fate {
    LORE_FATE_ADDED,
    LORE_FATE_REPLACED,
    LORE_FATE_UNCHANGED,
    LORE_FATE_DELETED, /* by pruning */
    LORE_FATE_FAILED
} lore_ingest_fate;
const char *lore_ingest_fate_name(lore_ingest_fate fate); /* "added" ... */

/* What became of one document, or in a dry run what would. Borrowed for the call. */
typedef struct lore_ingest_event {
    lore_ingest_fate fate;
    lore_str id;              /* may be empty where it failed */
    lore_str source;          /* may be empty */
    int64_t chunks;           /* of one that was added or replaced */
    const lore_error *reason; /* of one that failed, else NULL */
} lore_ingest_event;

typedef struct lore_ingest_options {
    lore_str collection; /* created when missing; empty: "default" */
    bool is_dry;         /* do all but embed and write; the writer may be NULL then */
    bool is_unembedded;  /* vectors are zeros: for measuring all but the encoder */
    lore_index *index;   /* of a dry run: what is there, only read; NULL: nothing */
    bool is_pruning; /* afterwards delete documents that were not seen and whose source lies in one
                        of the folders among the paths, or at or below one of `roots`; not after a
                        cancelled or failed run */
    const char *const *roots;
    int32_t root_count;
    void *self; /* for the callbacks, which run on the caller's thread and may be NULL */
    void (*progress)(void *self, const lore_ingest_counts *counts, int64_t total);
    void (*settled)(void *self, const lore_ingest_event *event);
    bool (*is_cancelled)(void *self); /* polled; true: stop, keep what is committed,
                                         LORE_ERR_CANCELLED; may be NULL */
} lore_ingest_options;

/* LORE_OK also when some documents failed (counts->failed says how many). counts is always set. A
 * dry run writes nothing and counts what a run would do.
 * Other failures are those of the run itself: database, embedder, threads, memory. */
LORE_MUST_USE lore_status lore_ingest_run(lore_writer *writer, lore_embedder *embedder,
                                          const lore_config *config, lore_source *source,
                                          const lore_source_options *source_options,
                                          const lore_ingest_options *options,
                                          lore_ingest_counts *counts, lore_error *err);

/* Memory one document may take: what its arena should be capped at. */
size_t lore_document_arena_cap(const lore_limits *limits, size_t raw_bytes);
/* A failure for want of memory becomes LORE_ERR_LIMIT where the arena's cap and not the machine was
 * the reason; any other status stays. */
lore_status lore_document_limit(lore_status status, const lore_arena *arena, lore_error *err);

typedef struct lore_ingest_one_options {
    lore_str collection;         /* created when missing; empty: "default" */
    lore_background *background; /* where to clean and embed; NULL: on the caller's thread */
    int64_t deadline_ns;         /* for the writer's turn, after all the slow work; 0: none */
    void *self;                  /* for the callback, which may run on any thread */
    /* Asked between batches of chunks and until the write begins; true: LORE_ERR_CANCELLED and
     * nothing is written. May be NULL. */
    bool (*is_cancelled)(void *self);
} lore_ingest_one_options;

typedef struct lore_ingest_result {
    lore_ingest_fate fate;              /* added, replaced or unchanged */
    lore_str id;                        /* in the arena */
    int64_t chunks, tokens, text_bytes; /* of what was written; of an unchanged one 0 */
    bool is_near_duplicate;
} lore_ingest_result;

/* One document, now (PUT route; bodies of JSONL call it per line): committed and searchable on
 * return. Callers on any thread. Of two callers with the same id the later write stays. Fails like
 * lore_clean, lore_index_put_document and lore_writer_apply. */
LORE_MUST_USE lore_status lore_ingest_one(lore_writer *writer, lore_embedder *embedder,
                                          const lore_config *config,
                                          const lore_ingest_one_options *options,
                                          const lore_raw_document *raw, lore_arena *arena,
                                          lore_ingest_result *result, lore_error *err);

#endif
