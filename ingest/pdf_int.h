/* Inside ingest/: a PDF as text.
 *
 * pdftotext, in a process of its own (child_int.h), says where which word stands on which page
 * (pdf.c). The rest is ours: pdf_reader.c takes its words in, pdf_layout.c puts the words of a page
 * into lines in the order in which people read, pdf_furniture.c drops what is repeated on every
 * page, pdf_text.c makes paragraphs and headings of the lines. Everything but the process is a
 * function of its input. Lengths are points from the upper left corner of the page, pages count
 * from 1. */
#ifndef LORE_INGEST_PDF_INT_H
#define LORE_INGEST_PDF_INT_H

#include "ingest/ingest_int.h"

typedef struct lore_pdf_box {
    float left, top, right, bottom;
} lore_pdf_box;

typedef struct lore_pdf_word {
    lore_pdf_box box;
    lore_str text; /* valid UTF-8, not empty */
} lore_pdf_word;

typedef struct lore_pdf_line {
    lore_pdf_box box;
    lore_str text;
    float size;        /* height of its letters, about the size of their font */
    float first_width; /* of its first word */
    float height;      /* of its page */
    int32_t page;
    int32_t region; /* lines of one column, one after another, have the same number */
    bool is_row;    /* of a table, cells separated by " | "; or another line of its own */
    bool is_left_out;
} lore_pdf_line;

typedef struct lore_pdf_lines {
    lore_pdf_line *items; /* in reading order */
    size_t count, room;
    int32_t pages, regions;
} lore_pdf_lines;

/* ---- pdf_reader.c ---- */

typedef struct lore_pdf_reader {
    lore_arena *arena; /* texts of lines and what the document says of itself */
    lore_arena words_arena;
    lore_buf rest; /* output that is not understood yet */
    lore_pdf_word *words;
    size_t word_count, word_room;
    float page_height;
    lore_pdf_lines lines;
    lore_str title, author, date;
    bool is_whole; /* the end was seen */
    lore_status status;
    lore_error error;
} lore_pdf_reader;

void lore_pdf_reader_init(lore_pdf_reader *reader, lore_arena *arena);
void lore_pdf_reader_destroy(lore_pdf_reader *reader);
/* Output of `pdftotext -bbox`, in pieces of any size. False: reader->status says why it ends here.
 */
bool lore_pdf_reader_feed(void *reader, lore_str piece);

/* ---- pdf_layout.c ---- */

/* Words of one page in any order; their lines are appended in reading order, texts in `arena`.
 * `scratch` is filled and left so. LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_pdf_layout(const lore_pdf_word *words, size_t count, float height,
                                          lore_arena *scratch, lore_arena *arena,
                                          lore_pdf_lines *lines, lore_error *err);
/* ---- pdf_furniture.c ---- */

/* Mark headers, footers and page numbers. body: the size of most of the text. */
LORE_MUST_USE lore_status lore_pdf_mark_furniture(lore_pdf_lines *lines, float body,
                                                  lore_error *err);

/* ---- pdf_hyphen.c: words that are broken at the end of a line ---- */

typedef struct lore_pdf_vocabulary {
    uint64_t *slots; /* hashes of the words that stand inside of lines; 0 is free */
    size_t slot_count;
} lore_pdf_vocabulary;

/* Empty where no line ends with a hyphen. */
LORE_MUST_USE lore_status lore_pdf_learn_words(const lore_pdf_lines *lines,
                                               lore_pdf_vocabulary *vocabulary, lore_error *err);
void lore_pdf_forget_words(lore_pdf_vocabulary *vocabulary);
/* Bytes of the hyphen at the end of a line, 0: there is none behind a letter. */
size_t lore_pdf_hyphen(lore_str line);
/* "exam-" and "ple of": is it "example", without the hyphen? */
bool lore_pdf_is_broken_word(const lore_pdf_vocabulary *vocabulary, lore_str line, lore_str next);

/* ---- pdf_text.c ---- */

/* Paragraphs, headings, items and rows, each at its page: source offsets are page numbers. */
LORE_MUST_USE lore_status lore_pdf_write(lore_pdf_lines *lines, lore_builder *builder,
                                         lore_error *err);

/* ---- pdf.c ---- */

/* The lines of a document and what it says of itself. Not a PDF, damaged, protected, or without
 * text: LORE_ERR_INVALID, LORE_ERR_UNSUPPORTED; pdftotext missing: LORE_ERR_UNSUPPORTED. */
LORE_MUST_USE lore_status lore_pdf_read(lore_str bytes, const lore_limits *limits,
                                        const lore_interrupt *interrupt, lore_arena *arena,
                                        lore_pdf_lines *lines, lore_clean_document *about,
                                        lore_error *err);

#endif
