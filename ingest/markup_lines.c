/* Lines, blocks of code and rows: see markup_int.h. */
#include "ingest/markup_int.h"

#include <string.h>

enum { TAB_COLUMNS = 8, NUMBER_DIGITS_MAX = 4 };

lore_line lore_line_at(lore_str source, size_t at)
{
    const char *newline = at < source.len ? memchr(source.ptr + at, '\n', source.len - at) : NULL;
    size_t end = newline == NULL ? source.len : (size_t)(newline - source.ptr);
    lore_line line = {.begin = at, .next = newline == NULL ? end : end + 1};
    size_t start = at;
    for (; start < end && strchr(" \t\f\v\r", source.ptr[start]) != NULL; start++) {
        line.indent += source.ptr[start] == '\t' ? TAB_COLUMNS - line.indent % TAB_COLUMNS : 1;
    }
    while (end > start && strchr(" \t\f\v\r", source.ptr[end - 1]) != NULL) {
        end--;
    }
    line.start = start;
    line.end = end;
    return line;
}

lore_line lore_line_visible(lore_str source, size_t at)
{
    lore_line line = lore_line_at(source, at);
    while (lore_line_is_blank(&line) && line.next < source.len) {
        line = lore_line_at(source, line.next);
    }
    return line;
}

char lore_line_rule(lore_str text, const char *of, size_t least)
{
    if (text.len < least || text.len == 0 || text.ptr[0] == '\0' ||
        strchr(of, text.ptr[0]) == NULL) {
        return 0;
    }
    for (size_t i = 1; i < text.len; i++) {
        if (text.ptr[i] != text.ptr[0]) {
            return 0;
        }
    }
    return text.ptr[0];
}

static size_t with_blanks(lore_str text, size_t at)
{
    size_t end = at;
    while (end < text.len && (text.ptr[end] == ' ' || text.ptr[end] == '\t')) {
        end++;
    }
    return end == at || end == text.len ? 0 : end;
}

size_t lore_line_marker(lore_str text, lore_str *marker)
{
    *marker = LORE_STR("- ");
    if (text.len == 0) {
        return 0;
    }
    if (strchr("-*+", text.ptr[0]) != NULL) {
        return with_blanks(text, 1);
    }
    if (lore_str_starts(text, LORE_STR("\xE2\x80\xA2"))) {
        return with_blanks(text, 3);
    }
    if (lore_str_starts(text, LORE_STR("#. "))) {
        return with_blanks(text, 2);
    }
    size_t open = text.ptr[0] == '(' ? 1 : 0, at = open;
    while (at < text.len && at - open < NUMBER_DIGITS_MAX && text.ptr[at] >= '0' &&
           text.ptr[at] <= '9') {
        at++;
    }
    if (at == open && at < text.len && (text.ptr[at] | 32) >= 'a' && (text.ptr[at] | 32) <= 'z') {
        at++;
    }
    bool has_end =
        at > open && at < text.len && (text.ptr[at] == ')' || (text.ptr[at] == '.' && open == 0));
    size_t bytes = has_end ? with_blanks(text, at + 1) : 0;
    *marker = lore_str_slice(text, 0, bytes > 0 ? at + 2 : 0);
    return bytes;
}

/* ---- code ---- */

void lore_code_line(lore_builder *builder, const lore_line *line, int32_t indent)
{
    lore_str source = builder->source;
    size_t from = line->begin;
    for (int32_t column = 0; from < line->start && column < indent; from++) {
        column += source.ptr[from] == '\t' ? TAB_COLUMNS - column % TAB_COLUMNS : 1;
    }
    lore_builder_piece(builder, lore_str_slice(source, from, line->end), from);
    lore_builder_code_line(builder);
}

size_t lore_skip_block(lore_str source, size_t at, int32_t indent)
{
    size_t end = at;
    while (at < source.len) {
        lore_line line = lore_line_at(source, at);
        if (!lore_line_is_blank(&line)) {
            if (line.indent <= indent) {
                break;
            }
            end = line.next;
        }
        at = line.next;
    }
    return end;
}

size_t lore_code_block(lore_builder *builder, lore_str source, size_t at, int32_t indent)
{
    size_t end = lore_skip_block(source, at, indent);
    int32_t common = INT32_MAX;
    for (size_t from = at; from < end;) {
        lore_line line = lore_line_at(source, from);
        if (!lore_line_is_blank(&line) && line.indent < common) {
            common = line.indent;
        }
        from = line.next;
    }
    for (size_t from = at; from < end && !builder->is_full;) {
        lore_line line = lore_line_at(source, from);
        lore_code_line(builder, &line, common);
        from = line.next;
    }
    return end;
}

/* ---- rows ---- */

void lore_row_add(lore_row *row, int32_t cell, size_t start, size_t end)
{
    if (row->count < LORE_ROW_PIECES && cell < LORE_ROW_CELLS && start < end) {
        row->pieces[row->count].start = start;
        row->pieces[row->count].end = end;
        row->pieces[row->count++].cell = cell;
        row->cells = cell >= row->cells ? cell + 1 : row->cells;
    }
}

void lore_row_end(lore_row *row, lore_builder *builder,
                  void (*put)(void *self, size_t start, size_t end), void *self)
{
    bool has_any = false;
    for (int32_t cell = 0; cell < row->cells && row->count > 0; cell++) {
        bool is_first = true;
        if (cell > 0 && has_any) {
            lore_builder_made(builder, LORE_STR(" | "), builder->last_source);
        }
        for (int32_t i = 0; i < row->count; i++) {
            if (row->pieces[i].cell != cell) {
                continue;
            }
            if (!is_first) {
                lore_builder_made(builder, LORE_STR("\n"), row->pieces[i].start);
            }
            put(self, row->pieces[i].start, row->pieces[i].end);
            is_first = false;
            has_any = true;
        }
    }
    lore_builder_line(builder);
    row->count = row->cells = 0;
}
