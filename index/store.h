/* The truth on disk: one SQLite database of collections, documents, chunks, vectors and the
 * full-text index.
 *
 * A write transaction is begin .. commit on the one writer; after commit returns, what it holds is
 * durable (synchronous=FULL) and found by the next snapshot. Replacing or deleting a document takes
 * its chunks, vectors and full-text rows out in the same transaction. Document and chunk row ids
 * are never used twice. Tables and formats: docs/formats.md. Thread: writing functions from one
 * thread at a time (the owner of the data folder's lock; writer.h has such a thread and a queue
 * before it); reading ones any. */
#ifndef LORE_INDEX_STORE_H
#define LORE_INDEX_STORE_H

#include "base/config.h"
#include "base/file.h"
#include "base/str.h"
#include "index/sketch.h"
#include "kernels/backend.h"

typedef struct lore_index lore_index;

typedef struct lore_index_options {
    const lore_config *config; /* borrowed until close */
    lore_backend *backend;     /* ref or cpu; scans run on it; borrowed; NULL: no dense search */
    bool is_writer;            /* take the data folder's lock: LORE_ERR_BUSY names the holder */
    const char *encoder;  /* fingerprint of the embedder; vectors of another one make opening fail
                             with LORE_ERR_INVALID unless the index is empty; NULL: do not care
                             (doctor, documents list) */
    int32_t dim;          /* of the embedder's vectors; 0 with encoder NULL */
    lore_backend *device; /* where vector files are copied to in the background and searched, as far
                             as its memory goes; borrowed; NULL: none */
} lore_index_options;

/* Opens (and creates, when writing) the folder. Missing or damaged derived files are rebuilt from
 * the database; a damaged database is LORE_ERR_CORRUPT that names the file. A reader of a folder
 * that does not exist: LORE_ERR_NOT_FOUND. */
LORE_MUST_USE lore_status lore_index_open(const char *folder, const lore_index_options *options,
                                          lore_index **index, lore_error *err);
void lore_index_close(lore_index *index);
/* Append who holds the folder for writing: the address that was announced, "process 4711" where
 * none was, nothing where nobody does. */
LORE_MUST_USE lore_status lore_index_holder(const char *folder, lore_buf *holder, lore_error *err);
/* Write the address of the serving process into the lock file (writer only). */
LORE_MUST_USE lore_status lore_index_announce(lore_index *index, lore_str address, lore_error *err);

typedef struct lore_chunk_row { /* to write */
    size_t start, end;          /* bytes of the document's text */
    lore_str heading;           /* "Reset > Factory reset" */
    const float *vector;        /* f32 [dim], unit length */
} lore_chunk_row;

/* The text from `text` to the next run's came from the source at `source`: byte for byte where
 * is_exact is 1; where it is 0 something was folded (entities, white space). */
typedef struct lore_offset_run {
    uint32_t text, source;
    uint32_t is_exact;
} lore_offset_run;

typedef struct lore_document_row {
    lore_str id;     /* external id, unique in its collection: "d_..." or the client's own */
    lore_str source; /* path or URL, may be empty */
    lore_str title;
    lore_str url;
    lore_str metadata;   /* JSON object text, "" = none */
    lore_str media;      /* "text/markdown" ... */
    uint8_t hash[32];    /* SHA-256 of raw bytes, metadata, title, settings: unchanged means skip */
    lore_str validators; /* of a document from the web (formats.md §1); "" = none */
    lore_str text;       /* cleaned */
    const lore_offset_run *runs;
    int32_t run_count;
    const lore_chunk_row *chunks;
    int32_t chunk_count;
    const lore_sketch *sketch; /* of the text, to find near-duplicates by; NULL: not sought */
} lore_document_row;

typedef struct lore_put_outcome {
    bool was_replaced;
    bool is_near_duplicate; /* of another document of the collection */
} lore_put_outcome;

/* Writing. All of begin..commit on one thread. A document that is refused (LORE_ERR_INVALID,
 * _LIMIT, _NOT_FOUND) leaves the transaction as it was: go on with the next. After any other
 * failure only lore_index_rollback is left; then the database is as at begin. A failed commit has
 * rolled back; one without changes writes nothing. */
LORE_MUST_USE lore_status lore_index_begin(lore_index *index, lore_error *err);
LORE_MUST_USE lore_status lore_index_put_document(lore_index *index, lore_str collection,
                                                  const lore_document_row *document,
                                                  lore_put_outcome *outcome, lore_error *err);
/* *found false when there is none. */
LORE_MUST_USE lore_status lore_index_delete_document(lore_index *index, lore_str collection,
                                                     lore_str id, bool *found, lore_error *err);
/* Is the document stored with just this hash? As the open transaction sees it. */
LORE_MUST_USE lore_status lore_index_is_unchanged(lore_index *index, lore_str collection,
                                                  lore_str id, const uint8_t hash[32],
                                                  bool *is_unchanged, lore_error *err);
LORE_MUST_USE lore_status lore_index_commit(lore_index *index, lore_error *err);
void lore_index_rollback(lore_index *index);
/* Move what was committed from the write-ahead log into the database, so that the log stays short:
 * only where it has grown, or when idle, and then it is emptied. Nothing else does it: whoever
 * commits calls this now and then, best when nobody waits. LORE_ERR_BUSY: a reader is still in the
 * log; try again later. */
LORE_MUST_USE lore_status lore_index_checkpoint(lore_index *index, bool is_idle, lore_error *err);
/* Collections. Names: 1..128 bytes of letters, digits, '-', '_', '.'; "default" is made by the
 * first open. */
LORE_MUST_USE lore_status lore_index_create_collection(lore_index *index, lore_str name,
                                                       lore_error *err); /* existing: LORE_OK */
LORE_MUST_USE lore_status lore_index_delete_collection(lore_index *index, lore_str name,
                                                       bool *found, lore_error *err);
/* How a collection is searched. */
typedef struct lore_tuning {
    double fusion_weight; /* share of the dense score */
    double expansion;     /* share of terms of the best passages in a second search; 0: none */
} lore_tuning;
/* Settings of a collection: those that are marked are written, the others stay.
 * LORE_ERR_NOT_FOUND names it. */
typedef struct lore_collection_settings {
    bool has_weight, has_expansion, has_refusal, has_tokens, has_overlap;
    double fusion_weight;  /* NaN: the configuration's */
    double expansion;      /* likewise */
    lore_str refusal;      /* empty: the default text */
    int64_t chunk_tokens;  /* 0: the configuration's */
    int64_t chunk_overlap; /* sentences; -1: the configuration's */
} lore_collection_settings;
LORE_MUST_USE lore_status lore_index_set_collection(lore_index *index, lore_str name,
                                                    const lore_collection_settings *settings,
                                                    lore_error *err);
/* A JSON object of settings, or an empty text for none: "fusion_weight", "expansion", "refusal",
 * "chunk_tokens", "chunk_overlap"; null is the configuration's. Strings in the arena.
 * LORE_ERR_INVALID names the field. */
LORE_MUST_USE lore_status lore_collection_settings_parse(lore_str json, const lore_limits *limits,
                                                         lore_arena *arena,
                                                         lore_collection_settings *settings,
                                                         lore_error *err);
/* Fold the tail into the vector files (vec-*.i8) crash-safely, and wake the thread that sorts
 * collections above ann_min_vectors. Cheap when there is nothing to do; does nothing while the tail
 * is small. */
LORE_MUST_USE lore_status lore_index_publish(lore_index *index, lore_error *err);

/* Reading for listings and for ingest's skip test (own short read transaction each). */
typedef struct lore_collection_info {
    lore_str name;
    int64_t documents, chunks, created_ms;
    double fusion_weight;  /* NaN: none stored, use the config's */
    double expansion;      /* likewise */
    lore_str refusal;      /* empty: default text */
    int64_t chunk_tokens;  /* 0: the config's */
    int64_t chunk_overlap; /* -1: the config's */
} lore_collection_info;
LORE_MUST_USE lore_status lore_index_collections(lore_index *index, lore_arena *arena,
                                                 lore_collection_info **list, int32_t *count,
                                                 lore_error *err);
/* The config that documents of a collection are cut by: *own is a copy of config with the
 * collection's settings, with lore_free, or NULL where it has none of its own or is not there. */
LORE_MUST_USE lore_status lore_index_collection_config(lore_index *index, lore_str collection,
                                                       const lore_config *config, lore_config **own,
                                                       lore_error *err);
LORE_MUST_USE lore_status lore_index_document_hash(lore_index *index, lore_str collection,
                                                   lore_str id, uint8_t hash[32], bool *found,
                                                   lore_error *err);
/* What lore_document_row.validators was, in the arena; "" also where there is no such document. */
LORE_MUST_USE lore_status lore_index_document_validators(lore_index *index, lore_str collection,
                                                         lore_str id, lore_arena *arena,
                                                         lore_str *validators, lore_error *err);

typedef struct lore_document_info {
    int64_t row;
    lore_str id, source, title, url, metadata, media, text; /* text only where asked */
    int64_t text_bytes, chunks, updated_ms;
    int64_t version; /* 1, and one more with each replacement */
    lore_str near; /* id of the document that it nearly repeated when written; empty: none, or that
                      one is gone or has changed since */
    const lore_offset_run *runs; /* with the text */
    int32_t run_count;
} lore_document_info;
/* LORE_ERR_NOT_FOUND names it. */
LORE_MUST_USE lore_status lore_index_get_document(lore_index *index, lore_str collection,
                                                  lore_str id, bool with_text, lore_arena *arena,
                                                  lore_document_info *document, lore_error *err);
/* A page in order of id, ids > cursor (empty: from the start); at most `limit`. *next is empty at
 * the end. source_prefix, where not empty, keeps documents whose source starts with it (for
 * --prune). */
LORE_MUST_USE lore_status lore_index_list_documents(lore_index *index, lore_str collection,
                                                    lore_str cursor, lore_str source_prefix,
                                                    int32_t limit, lore_arena *arena,
                                                    lore_document_info **list, int32_t *count,
                                                    lore_str *next, lore_error *err);

/* Byte offset of the cleaned text to the byte offset of the source; the run's start where it is not
 * verbatim. */
size_t lore_offset_to_source(const lore_offset_run *runs, int32_t count, size_t text_offset);
/* Of such documents the source of a run is the number of the page, from 1, on which its text
 * stands.
 */
bool lore_media_has_pages(lore_str media);

#endif
