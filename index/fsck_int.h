/* What the files of fsck share: fsck.c opens, notes and ends; fsck_rows.c asks the tables and mends
 * them; fsck_documents.c reads what each document holds; fsck_vectors.c the vectors and files of a
 * collection; fsck_text.c its full-text index. */
#ifndef LORE_INDEX_FSCK_INT_H
#define LORE_INDEX_FSCK_INT_H

#include "index/fsck.h"
#include "index/index_int.h"

typedef enum lore_fsck_kind {
    LORE_FSCK_DATABASE,
    LORE_FSCK_COLLECTION_OF_DOCUMENT,
    LORE_FSCK_TEXT_OF_DOCUMENT,
    LORE_FSCK_DOCUMENT_FIELDS,
    LORE_FSCK_DOCUMENT_METADATA,
    LORE_FSCK_DOCUMENT_HASH,
    LORE_FSCK_DOCUMENT_CHUNKS,
    LORE_FSCK_CHUNK_OFFSETS,
    LORE_FSCK_SOURCE_OFFSETS,
    LORE_FSCK_PAGE_OFFSETS,
    LORE_FSCK_ORPHAN_TEXT,
    LORE_FSCK_ORPHAN_PAGES,
    LORE_FSCK_ORPHAN_SKETCH,
    LORE_FSCK_NEAR,
    LORE_FSCK_ORPHAN_CHUNK,
    LORE_FSCK_ORPHAN_VECTOR,
    LORE_FSCK_VECTOR_OF_CHUNK,
    LORE_FSCK_VECTOR_COLLECTION,
    LORE_FSCK_VECTOR_DAMAGED,
    LORE_FSCK_DELETION,
    LORE_FSCK_SEQUENCE,
    LORE_FSCK_NEXT_CHUNK,
    LORE_FSCK_COUNTERS,
    LORE_FSCK_FULL_TEXT,
    LORE_FSCK_FULL_TEXT_TABLE,
    LORE_FSCK_VECTOR_FILE,
    LORE_FSCK_INVERTED_FILE,
    LORE_FSCK_STRAY_FILE,
    LORE_FSCK_REQUEST_LOG,
    LORE_FSCK_KINDS
} lore_fsck_kind;

typedef struct lore_fsck_note {
    int64_t count;
    lore_str *subjects;
    int32_t subject_count;
} lore_fsck_note;

typedef struct lore_fsck_run {
    const char *folder;
    char path[LORE_INDEX_PATH_CAP]; /* of lore.db */
    const lore_config *config;
    lore_arena *arena;
    lore_db *db;
    bool is_held; /* nobody can write to the folder meanwhile */
    int32_t dim;  /* of the vectors; 0: no encoder is known */
    lore_fsck_note notes[LORE_FSCK_KINDS];
    int64_t documents, chunks, vectors, files;
} lore_fsck_run;

/* One more of a kind. */
LORE_MUST_USE lore_status lore_fsck_found(lore_fsck_run *run, lore_fsck_kind kind, lore_str subject,
                                          lore_error *err);
/* What is left of a document: it must be read in again; its chunks are of no use; it has no text.
 */
typedef enum lore_fsck_harm {
    LORE_FSCK_REREAD = 1,
    LORE_FSCK_UNCUT,
    LORE_FSCK_GONE
} lore_fsck_harm;
/* The same of a document, which a repair treats so. */
LORE_MUST_USE lore_status lore_fsck_found_in(lore_fsck_run *run, lore_fsck_kind kind,
                                             int64_t document, lore_fsck_harm harm,
                                             lore_error *err);

/* SQLite's own check of an open database, and where has_rules the rules over rows: LORE_ERR_CORRUPT
 * names the first thing that is wrong. */
LORE_MUST_USE lore_status lore_fsck_brief(const char *path, lore_db *db, bool has_rules,
                                          lore_error *err);

/* fsck_rows.c. A look makes temp.harmed; a mend acts on it, in the caller's transaction. */
LORE_MUST_USE lore_status lore_fsck_rows(lore_fsck_run *run, lore_error *err);
LORE_MUST_USE lore_status lore_fsck_mend_rows(lore_fsck_run *run, lore_error *err);
/* fsck_documents.c */
LORE_MUST_USE lore_status lore_fsck_documents(lore_fsck_run *run, lore_error *err);
/* fsck_vectors.c: of one collection. */
LORE_MUST_USE lore_status lore_fsck_vectors(lore_fsck_run *run, const lore_collection_state *state,
                                            lore_error *err);
/* fsck_text.c: of one collection. */
LORE_MUST_USE lore_status lore_fsck_text(lore_fsck_run *run, const lore_collection_state *state,
                                         lore_error *err);
LORE_MUST_USE lore_status lore_fsck_mend_text(lore_fsck_run *run, int64_t collection,
                                              lore_error *err);

/* Calls visit for each row of a query without parameters. The statement is the caller's to read. */
typedef lore_status (*lore_fsck_visit)(lore_fsck_run *run, lore_stmt *row, void *self,
                                       lore_error *err);
LORE_MUST_USE lore_status lore_fsck_each(lore_fsck_run *run, const char *sql, lore_fsck_visit visit,
                                         void *self, lore_error *err);

#endif
