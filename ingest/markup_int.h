/* Inside ingest/: what the parsers of markup that is read line by line (reStructuredText, AsciiDoc,
 * source code) share: lines of the source, blocks of code, and rows of tables. */
#ifndef LORE_INGEST_MARKUP_INT_H
#define LORE_INGEST_MARKUP_INT_H

#include "ingest/ingest_int.h"

/* A line of the source; blank where start == end. */
typedef struct lore_line {
    size_t begin, start, end; /* its first byte; the text in it, without blanks at both ends */
    size_t next;              /* the line behind it */
    int32_t indent;           /* columns */
} lore_line;

lore_line lore_line_at(lore_str source, size_t at);
/* The next line that is not blank, or the end of the source (blank then). */
lore_line lore_line_visible(lore_str source, size_t at);
static inline bool lore_line_is_blank(const lore_line *line)
{
    return line->start == line->end;
}
/* "====": at least `least` times the same character out of `of`; gives it, 0 for none. */
char lore_line_rule(lore_str text, const char *of, size_t least);
/* Bytes of "- ", "* ", "12. ", "a) ", "(3) ", "#. " with the blanks behind it; 0 for none. *marker
 * is what an item of the text begins with. */
size_t lore_line_marker(lore_str text, lore_str *marker);

/* The line as code, without `indent` columns of its indentation. */
void lore_code_line(lore_builder *builder, const lore_line *line, int32_t indent);
/* The lines from `at` that are indented by more than `indent`, and blank ones between them, as code
 * without what they have in common; gives what comes behind. */
size_t lore_code_block(lore_builder *builder, lore_str source, size_t at, int32_t indent);
/* The same lines, left out. */
size_t lore_skip_block(lore_str source, size_t at, int32_t indent);

/* A row of a table under construction: cells of pieces of the source. */
enum { LORE_ROW_CELLS = 64, LORE_ROW_PIECES = 512 };
typedef struct lore_row {
    struct {
        size_t start, end;
        int32_t cell;
    } pieces[LORE_ROW_PIECES];
    int32_t count, cells;
} lore_row;
/* What does not fit any more is left out. */
void lore_row_add(lore_row *row, int32_t cell, size_t start, size_t end);
/* The row as a line "a | b | c", each piece through `put`; nothing for an empty one. */
void lore_row_end(lore_row *row, lore_builder *builder,
                  void (*put)(void *self, size_t start, size_t end), void *self);

/* rst_inline.c: source[from, to) of a paragraph, without the markup in it. */
void lore_rst_inline(lore_builder *builder, size_t from, size_t to);

/* asciidoc_inline.c: the same of AsciiDoc. Attributes are slices of the source; more than fit are
 * left as they are written. */
enum { LORE_ADOC_ATTRIBUTES = 64 };
typedef struct lore_adoc_attributes {
    lore_str names[LORE_ADOC_ATTRIBUTES], values[LORE_ADOC_ATTRIBUTES];
    int32_t count;
} lore_adoc_attributes;
void lore_adoc_attribute_set(lore_adoc_attributes *attributes, lore_str name, lore_str value);
void lore_adoc_inline(lore_builder *builder, const lore_adoc_attributes *attributes, size_t from,
                      size_t to);

/* Columns of a text; wide characters count two. */
int32_t lore_columns_of(lore_str text);

#endif
