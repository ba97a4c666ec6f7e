/* Separated values (RFC 4180, and as programs write them) to text.
 *
 * The first row names the columns where it can: no cell of it is empty or a number. Then every
 * cell of a later row stands behind its name ("City: Bonn | Year: 1949"), because a chunk far down
 * has to say what its numbers are. Without names, rows are "a | b | c". */
#include "ingest/ingest_int.h"

#include <string.h>

enum { COLUMNS_MAX = 4096, NAME_BYTES_MAX = 200 };

typedef struct table {
    lore_builder *builder;
    char separator;
    lore_str *names; /* of columns, slices of the source, quotes taken off */
    size_t name_count;
} table;

/* One cell: [start, end) without its quotes. */
typedef struct cell {
    size_t start, end;
    bool is_quoted, is_last; /* of its row */
} cell;

/* The cell at `at`; gives where the next begins. */
static size_t next_cell(const table *t, size_t at, cell *c)
{
    lore_str s = t->builder->source;
    *c = (cell){.start = at};
    if (at < s.len && s.ptr[at] == '"') {
        c->is_quoted = true;
        c->start = ++at;
        while (at < s.len && (s.ptr[at] != '"' || (at + 1 < s.len && s.ptr[at + 1] == '"'))) {
            at += s.ptr[at] == '"' ? 2 : 1;
        }
        c->end = at;
    }
    while (at < s.len && s.ptr[at] != t->separator && s.ptr[at] != '\n' && s.ptr[at] != '\r') {
        at++;
    }
    c->end = c->is_quoted ? c->end : at;
    c->is_last = at >= s.len || s.ptr[at] != t->separator;
    if (at + 1 < s.len && s.ptr[at] == '\r' && s.ptr[at + 1] == '\n') {
        at++;
    }
    return at < s.len ? at + 1 : at;
}

static bool is_blank_cell(lore_str s, const cell *c)
{
    return lore_str_trim(lore_str_slice(s, c->start, c->end)).len == 0;
}

bool lore_is_column_name(lore_str text)
{
    bool has_letter = false;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        has_letter = has_letter || (c | 32) >= 'a';
    }
    return has_letter && text.len <= NAME_BYTES_MAX && memchr(text.ptr, '\n', text.len) == NULL;
}

/* The separator that splits the first line most often; of equals the first. */
static char choose_separator(lore_str source, lore_media media)
{
    lore_str line = {"", 0}, rest = source;
    size_t best = 0;
    char chosen = media == LORE_MEDIA_TSV ? '\t' : ',';
    (void)lore_str_next_line(&rest, &line);
    for (const char *c = media == LORE_MEDIA_TSV ? "" : ",;\t|"; *c != '\0'; c++) {
        size_t count = 0;
        for (size_t i = 0; i < line.len; i++) {
            count += line.ptr[i] == *c ? 1 : 0;
        }
        chosen = count > best ? *c : chosen;
        best = count > best ? count : best;
    }
    return chosen;
}

/* The names of the first row, if it holds names; gives where the rows of values begin. */
static size_t read_names(table *t, lore_arena *arena)
{
    lore_str s = t->builder->source;
    size_t at = 0;
    t->names = LORE_PUSH(arena, lore_str, COLUMNS_MAX);
    for (cell c = {0}; t->names != NULL && at < s.len && !c.is_last;) {
        at = next_cell(t, at, &c);
        lore_str text = lore_str_trim(lore_str_slice(s, c.start, c.end));
        if (t->name_count == COLUMNS_MAX || !lore_is_column_name(text)) {
            t->name_count = 0;
            return 0;
        }
        t->names[t->name_count++] = text;
    }
    t->name_count = t->name_count > 1 ? t->name_count : 0; /* one cell is a line of text */
    return t->name_count > 0 ? at : 0;
}

/* The text of a cell: doubled quotes are one. */
static void put_cell(const table *t, const cell *c)
{
    lore_str s = t->builder->source;
    size_t from = c->start;
    for (size_t i = from; c->is_quoted && i + 1 < c->end; i++) {
        if (s.ptr[i] == '"' && s.ptr[i + 1] == '"') {
            lore_builder_piece(t->builder, lore_str_slice(s, from, i + 1), from);
            from = ++i + 1;
        }
    }
    lore_builder_piece(t->builder, lore_str_slice(s, from, c->end), from);
}

/* One row; gives where the next begins. */
static size_t put_row(const table *t, size_t at)
{
    lore_str s = t->builder->source;
    size_t place = 0;
    bool has_text = false;
    for (cell c = {0}; !c.is_last; place++) {
        at = next_cell(t, at, &c);
        bool is_blank = is_blank_cell(s, &c);
        if (is_blank && (t->name_count > 0 || !has_text)) {
            continue;
        }
        if (has_text) {
            lore_builder_made(t->builder, LORE_STR(" | "), c.start);
        }
        if (place < t->name_count) {
            lore_builder_made(t->builder, t->names[place], c.start);
            lore_builder_made(t->builder, LORE_STR(": "), c.start);
        }
        put_cell(t, &c);
        has_text = true;
        if (at >= s.len && c.is_last) {
            break;
        }
    }
    lore_builder_line(t->builder);
    return at;
}

lore_status lore_clean_table(lore_builder *builder, lore_media media, lore_error *err)
{
    table t = {.builder = builder, .separator = choose_separator(builder->source, media)};
    size_t at = read_names(&t, builder->arena);
    if (t.names == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the columns of a table");
    }
    if (t.name_count > 0 && at >= builder->source.len) {
        at = 0; /* nothing but names: they are all there is to find */
        t.name_count = 0;
    }
    while (at < builder->source.len && !builder->is_full) {
        at = put_row(&t, at);
    }
    return LORE_OK;
}
