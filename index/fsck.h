/* Is a data folder what docs/formats.md says, and making it so again.
 *
 * Everything is read: rows against each other, texts and their offsets, vectors, the words of the
 * full-text index against the texts, derived files byte for byte, the request log. Nothing is
 * changed without `repair`. A folder that somebody writes to meanwhile is looked at as it was at
 * one moment. Thread: one, and no index of the folder open in it. */
#ifndef LORE_INDEX_FSCK_H
#define LORE_INDEX_FSCK_H

#include "index/store.h"

enum { LORE_FSCK_SUBJECTS = 1000 }; /* of one finding that are named; all are counted */

typedef struct lore_fsck_finding {
    const char *name; /* "chunk_without_document" */
    const char *what; /* the same as words for people */
    int64_t count;
    const lore_str *subjects; /* documents, files, collections: the first of them */
    int32_t subject_count;
    bool is_loss;   /* what was there cannot be derived from the rest: ingest the subjects again */
    bool is_mended; /* after a repair: it is gone */
} lore_fsck_finding;

typedef struct lore_fsck_report { /* in the arena */
    const lore_fsck_finding *findings;
    int32_t count;
    int64_t documents, chunks, vectors, files; /* that were looked at */
    bool is_served; /* another process had the folder: stray files were not looked for */
} lore_fsck_report;

typedef struct lore_fsck_options {
    const lore_config *config; /* borrowed for the call */
    lore_backend *backend;     /* ref or cpu, for files made anew; NULL: those wait for a writer */
    bool repair;
} lore_fsck_options;

/* LORE_OK whatever was found. LORE_ERR_NOT_FOUND: no index; _BUSY: to repair, and another process
 * holds the folder; _UNSUPPORTED: another format (an earlier one is brought forward by a repair). A
 * repair that fails has changed nothing but derived files. */
LORE_MUST_USE lore_status lore_fsck(const char *folder, const lore_fsck_options *options,
                                    lore_arena *arena, lore_fsck_report *report, lore_error *err);

#endif
