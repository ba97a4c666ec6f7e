/* Inside ingest/: the parts of a Word document beside its body: how lists are numbered, and what
 * notes say. */
#ifndef LORE_INGEST_DOCX_INT_H
#define LORE_INGEST_DOCX_INT_H

#include "ingest/office_int.h"

/* ---- docx_lists.c ---- */

enum { LORE_LIST_LEVELS = 9, LORE_LIST_MARKER_BYTES = 64 };

typedef struct lore_docx_lists {
    lore_buf lists; /* definitions, each with its counters */
    lore_buf uses;  /* what paragraphs name: numbers of definitions */
    bool is_in_list, is_in_use;
    int32_t level; /* being defined, -1: none */
} lore_docx_lists;

void lore_docx_lists_init(lore_docx_lists *lists);
void lore_docx_lists_destroy(lore_docx_lists *lists);
/* word/numbering.xml; without it all items are alike. */
LORE_MUST_USE lore_status lore_docx_lists_read(lore_docx_lists *lists, const lore_package *package,
                                               lore_error *err);
/* The next item of list `id` on this level begins: what stands before it ("- ", "3. ", "2.1. "),
 * valid until the next call. */
lore_str lore_docx_lists_next(lore_docx_lists *lists, int64_t id, int64_t level,
                              char marker[LORE_LIST_MARKER_BYTES]);

/* ---- docx_notes.c ---- */

typedef struct lore_docx_note {
    int64_t id;
    size_t start, length; /* in text */
    size_t source;
    bool is_end, is_told;
} lore_docx_note;

typedef struct lore_docx_notes {
    lore_buf text, notes;
    size_t next;   /* the one that is likely to be called next */
    int32_t texts; /* open text elements */
    bool is_end;   /* endnotes are being read */
    bool is_open;  /* inside a note that is wanted */
} lore_docx_notes;

void lore_docx_notes_init(lore_docx_notes *notes);
void lore_docx_notes_destroy(lore_docx_notes *notes);
/* Foot- and endnotes of the document. */
LORE_MUST_USE lore_status lore_docx_notes_read(lore_docx_notes *notes, const lore_package *package,
                                               lore_error *err);
/* The note that is called here, once; NULL where there is none. */
const lore_docx_note *lore_docx_notes_call(lore_docx_notes *notes, int64_t id, bool is_end);
/* A note that nobody called yet; NULL: no more. */
const lore_docx_note *lore_docx_notes_left(lore_docx_notes *notes);
lore_str lore_docx_note_text(const lore_docx_notes *notes, const lore_docx_note *note);

#endif
