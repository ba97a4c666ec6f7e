/* Inside ingest/: lines out of Office documents, whose paragraphs, rows and cells are alike in all
 * of them. The formats' own files know the names of elements and call these. */
#ifndef LORE_INGEST_OFFICE_INT_H
#define LORE_INGEST_OFFICE_INT_H

#include "ingest/package_int.h"

typedef struct lore_office {
    lore_builder *builder;
    size_t skip_depth;  /* open elements inside one whose text is not wanted */
    int32_t paragraphs; /* open ones */
    int32_t rows;       /* open ones: inside a row everything is one line */
    int32_t separators; /* owed before the next text of the row */
    bool is_blank_owed; /* between two paragraphs of a cell */
    bool has_cell;      /* of this row there was one already */
    bool is_item;       /* the paragraph is one of a list ... */
    bool has_marker;    /* ... whose marker stands already */
    lore_str marker;    /* what stands before it; "": "- " */
    int32_t level;      /* the paragraph is a heading of this level; 0: it is none */
} lore_office;

/* An element inside of which nothing counts. Call them first in both handlers: true, go no further.
 */
bool lore_office_skip_start(lore_office *office, bool is_unwanted);
bool lore_office_skip_end(lore_office *office);
void lore_office_paragraph(lore_office *office);
void lore_office_paragraph_end(lore_office *office);
void lore_office_row(lore_office *office);
void lore_office_row_end(lore_office *office);
void lore_office_cell(lore_office *office);
/* Text that stands at `source`; what is owed before it goes first. */
void lore_office_text(lore_office *office, lore_str text, size_t source);
/* Text that we make: a blank for a tab. */
void lore_office_made(lore_office *office, lore_str text, size_t source);
/* A heading that stands in an attribute, or that we make. */
void lore_office_heading(lore_office *office, lore_str text, int32_t level, size_t source);
bool lore_office_is_full(void *self); /* a lore_office first in what self points to */

/* ---- sheet_text.c ---- */

typedef struct lore_sheet {
    lore_builder *builder;
    lore_arena *arena;
    lore_buf row, cells; /* text of the open row, and its cells with any */
    int32_t column;      /* of the open cell; -1: before the first */
    lore_str *names;     /* [name_count] of the columns, in the arena; "" before the first */
    int32_t name_count;  /* 0: they have none */
    size_t names_source;
    bool is_open;        /* the cell has text already */
    bool is_searched;    /* the row that may hold names has been seen */
    bool has_only_names; /* no row has followed it */
    bool is_out_of_memory;
} lore_sheet;

void lore_sheet_init(lore_sheet *sheet, lore_builder *builder, lore_arena *arena);
void lore_sheet_destroy(lore_sheet *sheet);
/* A cell begins in this column, counted from 0; anything not behind the last is its neighbour. */
void lore_sheet_cell(lore_sheet *sheet, int64_t column);
/* Text of the cell that stands at `source`, or that we made there. */
void lore_sheet_text(lore_sheet *sheet, lore_str text, size_t source);
void lore_sheet_row_end(lore_sheet *sheet);
/* The sheet ends, and the next may begin. LORE_ERR_NOMEM for anything since its beginning. */
LORE_MUST_USE lore_status lore_sheet_end(lore_sheet *sheet, lore_error *err);

/* Is name one of these? NULL ends the list. */
bool lore_office_is_one(lore_str name, const char *const *names);

#endif
