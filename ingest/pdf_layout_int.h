/* Inside ingest/, between the files that lay out a page: pdf_strips.c finds white space that runs
 * down it, pdf_layout.c cuts columns and tables there, pdf_lines.c makes lines of words. */
#ifndef LORE_INGEST_PDF_LAYOUT_INT_H
#define LORE_INGEST_PDF_LAYOUT_INT_H

#include "ingest/pdf_int.h"

/* Words of a part of the page, from top to bottom by their cores. */
typedef struct lore_pdf_part {
    const lore_pdf_word **words;
    size_t count;
} lore_pdf_part;

/* Words of one line, from left to right. */
typedef struct lore_pdf_row {
    const lore_pdf_word **words;
    size_t count;
    lore_pdf_box box;
    float size; /* of most of its text */
} lore_pdf_row;

typedef struct lore_pdf_rows {
    lore_pdf_row *items; /* from top to bottom */
    size_t count;
} lore_pdf_rows;

typedef struct lore_pdf_span {
    float from, to;
} lore_pdf_span;

/* What white space parts over the whole width of a part. */
typedef struct lore_pdf_band {
    size_t first, count; /* words of the part */
    lore_pdf_span *gaps; /* white space between words, from left to right */
    size_t gap_count;
    float left, right, top, bottom, tallest;
} lore_pdf_band;

typedef struct lore_pdf_bands {
    lore_pdf_band *items;
    size_t count;
} lore_pdf_bands;

typedef struct lore_pdf_page {
    lore_arena *scratch, *arena;
    lore_pdf_lines *lines;
    float em, height; /* usual height of a word; of the page */
    int64_t work;     /* steps that may still be spent on looking for columns */
    bool is_failed;   /* out of memory */
} lore_pdf_page;

/* White space between words is a strip from so many heights of a word on. */
static const float LORE_PDF_STRIP_LEAST = .8F;
static const float LORE_PDF_FAR = 1e9F;

/* The middle half of a word's height: those of neighbouring lines never touch. */
static inline float lore_pdf_core_top(const lore_pdf_word *word)
{
    return word->box.top + .25F * (word->box.bottom - word->box.top);
}
static inline float lore_pdf_core_bottom(const lore_pdf_word *word)
{
    return word->box.bottom - .25F * (word->box.bottom - word->box.top);
}

/* What of a run stands on one side of its strip. */
typedef struct lore_pdf_side {
    size_t first, last; /* bands with text there */
    size_t words;
    float lines, top, bottom;
} lore_pdf_side;

typedef struct lore_pdf_run {
    size_t first, last; /* bands, inclusive */
    lore_pdf_span strip;
    lore_pdf_side left, right;
} lore_pdf_run;

/* White space over the whole width between a band and the one before. */
static inline float lore_pdf_gap_above(const lore_pdf_bands *all, size_t at)
{
    return all->items[at].top - all->items[at - 1].bottom;
}

/* Zeroed memory for the page; NULL: it has failed. */
static inline void *lore_pdf_push(lore_pdf_page *page, size_t count, size_t size)
{
    void *memory = lore_arena_push_zero(page->scratch, count, size);
    page->is_failed = page->is_failed || memory == NULL;
    return memory;
}

/* ---- pdf_strips.c ---- */

/* Bands of a part, from top to bottom. */
lore_pdf_bands lore_pdf_find_bands(lore_pdf_page *page, lore_pdf_part part);
/* The run with most text on both sides of its strip; false where there is none. */
bool lore_pdf_find_run(lore_pdf_page *page, lore_pdf_part part, const lore_pdf_bands *all,
                       lore_pdf_run *best);
/* About how many lines stand side by side. */
float lore_pdf_run_lines(const lore_pdf_page *page, const lore_pdf_run *r);

/* ---- pdf_lines.c ---- */

/* Words that stand beside one another, as lines. */
lore_pdf_rows lore_pdf_find_rows(lore_pdf_page *page, lore_pdf_part part);
/* Does a list item begin so: a bullet, a number, a letter in parentheses? */
bool lore_pdf_is_marker(const lore_pdf_row *row);
void lore_pdf_emit_rows(lore_pdf_page *page, const lore_pdf_rows *rows);
/* columns[count] as rows of a table. */
void lore_pdf_emit_table(lore_pdf_page *page, const lore_pdf_rows *columns, size_t count);
/* Words that run up or down the page. */
void lore_pdf_emit_turned(lore_pdf_page *page, lore_pdf_part part);

#endif
