/* reStructuredText to text.
 *
 * The grammar is that of lines: what a block is shows in its first line and in its indentation.
 * What a directive holds is read by the same loop, only deeper, so nothing is recursive. Paragraphs
 * are ranges of the source, from which markup inside the text is left out. Source: the docutils
 * specification. */
#include "ingest/markup_int.h"

#include <stdio.h>
#include <string.h>

#define ADORNMENTS "=-`:'\"~^_*+#<>.!$%&,;?@|/\\"

enum { RULE_LEAST = 4, NAME_MAX = 40, COLUMNS_MAX = 64, ROW_BYTES_MAX = 8192 };

typedef struct reader {
    lore_builder *builder;
    lore_str source;
    lore_row row;
    signed char
        styles[LORE_HEADING_LEVELS]; /* underlines in order of appearance; negative: over, too */
} reader;

static lore_str text_of(const reader *r, const lore_line *line)
{
    return lore_str_slice(r->source, line->start, line->end);
}

/* ---- paragraphs and lists ---- */

static void put(reader *r, size_t start, size_t end)
{
    lore_builder_piece(r->builder, lore_str_slice(r->source, start, end), start);
}

static void put_inline(void *self, size_t from, size_t to)
{
    lore_rst_inline(((reader *)self)->builder, from, to);
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c < 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Lines from `from` in `first` on, until one is blank or, `is_item`, not indented deeper than
 * `indent`, else not indented the same. A "::" at its end announces code. Gives what is behind. */
static size_t take_paragraph(reader *r, size_t from, lore_line first, bool is_item)
{
    lore_line last = first;
    for (lore_line line = lore_line_at(r->source, first.next);
         last.next < r->source.len && !lore_line_is_blank(&line) &&
         (is_item ? line.indent > first.indent : line.indent == first.indent);
         line = lore_line_at(r->source, last.next)) {
        lore_str marker;
        if (is_item && lore_line_marker(text_of(r, &line), &marker) > 0) {
            break;
        }
        last = line;
    }
    size_t end = last.end;
    bool is_before_code =
        end >= from + 2 && lore_str_ends(lore_str_slice(r->source, from, end), LORE_STR("::"));
    if (is_before_code) {
        end--;
        bool is_alone = end - from == 1 || is_blank(r->source.ptr[end - 2]);
        end = is_alone ? end - 1 : end;
    }
    put_inline(r, from, end);
    lore_builder_line(r->builder);
    return is_before_code ? lore_code_block(r->builder, r->source, last.next, first.indent)
                          : last.next;
}

static size_t take_item(reader *r, lore_line line, size_t bytes, lore_str marker)
{
    lore_builder_item(r->builder, marker, line.start);
    size_t at = take_paragraph(r, line.start + bytes, line, true);
    lore_builder_item_end(r->builder);
    return at;
}

/* ---- headings ---- */

static int32_t level_of(reader *r, signed char style)
{
    for (int32_t i = 0; i < LORE_HEADING_LEVELS; i++) {
        if (r->styles[i] == 0 || r->styles[i] == style) {
            r->styles[i] = style;
            return i + 1;
        }
    }
    return LORE_HEADING_LEVELS;
}

static char adornment(const reader *r, const lore_line *line, const lore_line *title)
{
    lore_str text = text_of(r, line);
    char rule = line->indent == 0 ? lore_line_rule(text, ADORNMENTS, 1) : 0;
    bool is_long =
        text.len >= RULE_LEAST || (int32_t)text.len >= lore_columns_of(text_of(r, title));
    return is_long ? rule : 0;
}

/* A heading at this line; gives what is behind it, 0 where there is none. */
static size_t take_heading(reader *r, const lore_line *line)
{
    lore_line second = lore_line_at(r->source, line->next);
    if (line->next >= r->source.len || lore_line_is_blank(&second)) {
        return 0;
    }
    lore_line third = lore_line_at(r->source, second.next);
    const lore_line *title = line;
    char rule = 0, over = adornment(r, line, &second);
    size_t behind = second.next;
    bool is_over = over != 0 && adornment(r, &third, &second) == over &&
                   lore_line_rule(text_of(r, &second), ADORNMENTS, 1) == 0;
    if (is_over) {
        title = &second;
        rule = over;
        behind = third.next;
    } else if (line->indent == 0 && lore_line_rule(text_of(r, line), ADORNMENTS, 2) == 0) {
        rule = adornment(r, &second, line);
    }
    if (rule == 0) {
        return 0;
    }
    lore_builder_item_end(r->builder);
    put_inline(r, title->start, title->end);
    lore_builder_heading(r->builder, level_of(r, (signed char)(is_over ? -rule : rule)));
    return behind;
}

/* ---- tables ---- */

/* "+---+---+" and "+===+". */
static bool is_grid_rule(lore_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (strchr("+-=", text.ptr[i]) == NULL) {
            return false;
        }
    }
    return text.len > 3 && text.ptr[0] == '+' && text.ptr[text.len - 1] == '+';
}

static size_t take_grid(reader *r, lore_line line)
{
    while (!lore_line_is_blank(&line)) {
        lore_str text = text_of(r, &line);
        if (text.ptr[0] == '+') {
            lore_row_end(&r->row, r->builder, put_inline, r);
        } else if (text.ptr[0] != '|') {
            break;
        }
        int32_t cell = 0;
        for (size_t at = 1; text.ptr[0] == '|' && at < text.len; cell++) {
            size_t end = lore_str_find(text, LORE_STR("|"), at);
            end = end == SIZE_MAX ? text.len : end;
            lore_str inner = lore_str_trim(lore_str_slice(text, at, end));
            size_t start = line.start + (inner.len > 0 ? (size_t)(inner.ptr - text.ptr) : at);
            lore_row_add(&r->row, cell, start, start + inner.len);
            at = end + 1;
        }
        if (line.next >= r->source.len) {
            line.begin = r->source.len;
            break;
        }
        line = lore_line_at(r->source, line.next);
    }
    lore_row_end(&r->row, r->builder, put_inline, r);
    return line.begin;
}

/* "====  ===": where the columns of a simple table begin; gives how many. */
static int32_t simple_columns(lore_str text, int32_t starts[COLUMNS_MAX])
{
    int32_t count = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] != '=' && text.ptr[i] != ' ') {
            return 0;
        }
        bool is_start = text.ptr[i] == '=' && (i == 0 || text.ptr[i - 1] == ' ');
        if (is_start && count < COLUMNS_MAX) {
            starts[count++] = (int32_t)i;
        }
    }
    return count > 1 ? count : 0;
}

/* The byte at which a column begins, counted in the width of characters. */
static size_t byte_of_column(lore_str text, int32_t column)
{
    int32_t seen = 0;
    size_t at = 0;
    while (at < text.len && seen < column) {
        size_t next = at + 1;
        while (next < text.len && ((unsigned char)text.ptr[next] & 0xC0) == 0x80) {
            next++;
        }
        seen += lore_columns_of(lore_str_slice(text, at, next));
        at = next;
    }
    return at;
}

static void add_simple_row(reader *r, const lore_line *line, int32_t indent, const int32_t *starts,
                           int32_t count)
{
    lore_str text = lore_str_slice(r->source, line->begin, line->end);
    count = text.len > ROW_BYTES_MAX ? 1 : count;
    for (int32_t i = 0; i < count; i++) {
        size_t start = byte_of_column(text, indent + starts[i]);
        size_t end = i + 1 < count ? byte_of_column(text, indent + starts[i + 1]) : text.len;
        lore_str cell = lore_str_trim(lore_str_slice(text, start, end));
        size_t at = line->begin + (cell.len > 0 ? (size_t)(cell.ptr - text.ptr) : start);
        bool is_new_row = i == 0 && cell.len > 0; /* an empty first cell continues the row */
        if (is_new_row) {
            lore_row_end(&r->row, r->builder, put_inline, r);
        }
        lore_row_add(&r->row, i, at, at + cell.len);
    }
}

static size_t take_simple(reader *r, const lore_line *rule, const int32_t *starts, int32_t count)
{
    int32_t again[COLUMNS_MAX], rules = 1;
    size_t at = rule->next;
    while (at < r->source.len && !r->builder->is_full) {
        lore_line line = lore_line_at(r->source, at), next = lore_line_at(r->source, line.next);
        lore_str text = text_of(r, &line);
        bool is_rule = !lore_line_is_blank(&line) && simple_columns(text, again) > 0;
        rules += is_rule ? 1 : 0;
        at = line.next;
        if (is_rule && (rules == 3 || lore_line_is_blank(&next))) {
            break;
        }
        if (!is_rule && !lore_line_is_blank(&line) && lore_line_rule(text, "-", 1) == 0) {
            if (line.indent < rule->indent) {
                at = line.begin; /* never ended */
                break;
            }
            add_simple_row(r, &line, rule->indent, starts, count);
        }
    }
    lore_row_end(&r->row, r->builder, put_inline, r);
    return at;
}

/* "* - a" and "  - b" inside a list-table. */
static size_t take_list_table(reader *r, size_t at, int32_t indent)
{
    size_t end = lore_skip_block(r->source, at, indent);
    int32_t cell = 0;
    while (at < end && !r->builder->is_full) {
        lore_line line = lore_line_at(r->source, at);
        lore_str text = text_of(r, &line);
        size_t start = line.start;
        at = line.next;
        if (lore_str_starts(text, LORE_STR("* -"))) {
            lore_row_end(&r->row, r->builder, put_inline, r);
            cell = 0;
            start += 3;
        } else if (lore_str_starts(text, LORE_STR("-"))) {
            cell++;
            start += 1;
        }
        while (start < line.end && is_blank(r->source.ptr[start])) {
            start++;
        }
        lore_row_add(&r->row, cell, start, line.end);
    }
    lore_row_end(&r->row, r->builder, put_inline, r);
    return end;
}

/* ---- explicit markup ---- */

typedef enum directive_kind {
    DROPPED,   /* with all it holds */
    CODE,      /* what it holds is code */
    NOTE,      /* its name is a word of the text */
    TITLED,    /* its argument is text */
    SIGNATURE, /* its argument is a line of code */
    LIST_TABLE,
    OPEN /* only what it holds is text */
} directive_kind;

static directive_kind kind_of(lore_str name)
{
    static const struct {
        const char *names;
        directive_kind kind;
    } kinds[] = {
        {" raw include literalinclude toctree contents index highlight meta image tabularcolumns "
         "currentmodule module py:module py:currentmodule role default-role sectnum header footer "
         "default-domain testsetup testcleanup graphviz digraph automodule autoclass autofunction "
         "bibliography title target-notes ",
         DROPPED},
        {" code code-block sourcecode parsed-literal math doctest prompt console productionlist "
         "testcode testoutput ipython literal ",
         CODE},
        {" note warning tip important caution danger hint attention error seealso versionadded "
         "versionchanged deprecated todo versionremoved ",
         NOTE},
        {" admonition topic sidebar rubric table csv-table centered epigraph pull-quote glossary "
         "tab dropdown ",
         TITLED},
        {" function class method attribute data exception option envvar describe object cmdoption "
         "program confval decorator staticmethod classmethod ",
         SIGNATURE},
        {" list-table ", LIST_TABLE}};
    char padded[NAME_MAX + 4];
    const char *colon = memrchr(name.ptr, ':', name.len);
    bool is_domain = colon != NULL && !lore_str_starts(name, LORE_STR("py:module"));
    if (is_domain) {
        return SIGNATURE; /* "c:function", "rst:directive" */
    }
    snprintf(padded, sizeof padded, " " LORE_STR_FMT " ", LORE_STR_ARG(name));
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strstr(kinds[i].names, padded) != NULL) {
            return kinds[i].kind;
        }
    }
    return OPEN;
}

/* ":option: value" lines below a directive; what an image shows is its text. */
static size_t take_options(reader *r, size_t at, int32_t indent)
{
    while (at < r->source.len) {
        lore_line line = lore_line_at(r->source, at);
        lore_str text = text_of(r, &line);
        if (lore_line_is_blank(&line) || line.indent <= indent || text.ptr[0] != ':') {
            break;
        }
        if (lore_str_starts(text, LORE_STR(":alt:")) ||
            lore_str_starts(text, LORE_STR(":caption:"))) {
            size_t colon = lore_str_find(text, LORE_STR(":"), 1);
            put_inline(r, line.start + colon + 1, line.end);
            lore_builder_line(r->builder);
        }
        at = line.next;
    }
    return at;
}

static void put_note(reader *r, lore_str name, size_t at)
{
    char word[NAME_MAX + 4];
    snprintf(word, sizeof word, LORE_STR_FMT ": ", LORE_STR_ARG(name));
    word[0] = (char)(word[0] >= 'a' && word[0] <= 'z' ? word[0] - 'a' + 'A' : word[0]);
    lore_builder_made(r->builder, lore_str_from(word), at);
}

static size_t take_directive(reader *r, const lore_line *line, lore_str name, size_t argument)
{
    directive_kind kind = kind_of(name);
    if (kind == NOTE) {
        put_note(r, name, line->start);
        if (argument < line->end) {
            return take_paragraph(r, argument, *line, true);
        }
        lore_line content = lore_line_visible(r->source, take_options(r, line->next, line->indent));
        bool is_inside = !lore_line_is_blank(&content) && content.indent > line->indent;
        if (!is_inside) {
            lore_builder_discard(r->builder);
            return content.begin;
        }
        return take_paragraph(r, content.start, content, false);
    }
    if (kind == SIGNATURE && argument < line->end) {
        put(r, argument, line->end);
        lore_builder_code_line(r->builder);
    } else if (kind == TITLED || kind == LIST_TABLE) {
        put_inline(r, argument, line->end);
        lore_builder_line(r->builder);
    }
    size_t at = take_options(r, line->next, line->indent);
    return kind == DROPPED      ? lore_skip_block(r->source, at, line->indent)
           : kind == CODE       ? lore_code_block(r->builder, r->source, at, line->indent)
           : kind == LIST_TABLE ? take_list_table(r, at, line->indent)
                                : at;
}

/* ".. " begins directives, comments, targets, footnotes and definitions. */
static size_t take_explicit(reader *r, const lore_line *line)
{
    lore_str text = text_of(r, line);
    size_t at = 2;
    while (at < text.len && is_blank(text.ptr[at])) {
        at++;
    }
    if (at < text.len && text.ptr[at] == '[') {
        return take_paragraph(r, line->start + at, *line, true); /* a footnote */
    }
    size_t end = at;
    while (end < text.len && end - at < NAME_MAX &&
           (is_word(text.ptr[end]) || strchr("-_.+", text.ptr[end]) != NULL ||
            (text.ptr[end] == ':' && end + 1 < text.len && text.ptr[end + 1] != ':'))) {
        end++;
    }
    lore_str name = lore_str_slice(text, at, end);
    bool is_directive = name.len > 0 && name.ptr[0] != '_' && end + 2 <= text.len &&
                        memcmp(text.ptr + end, "::", 2) == 0 &&
                        (end + 2 == text.len || is_blank(text.ptr[end + 2]));
    if (!is_directive) {
        return lore_skip_block(r->source, line->next, line->indent);
    }
    size_t argument = end + 2;
    while (argument < text.len && is_blank(text.ptr[argument])) {
        argument++;
    }
    return take_directive(r, line, name, line->start + argument);
}

/* ---- lines ---- */

/* ":name: value"; one without a value is about the page, not of it. 0 where it is none. */
static size_t take_field(reader *r, const lore_line *line)
{
    lore_str text = text_of(r, line);
    size_t colon = text.ptr[0] == ':' ? lore_str_find(text, LORE_STR(":"), 1) : SIZE_MAX;
    bool is_field = colon != SIZE_MAX && colon > 1 && colon < NAME_MAX && !is_blank(text.ptr[1]) &&
                    (colon + 1 == text.len || is_blank(text.ptr[colon + 1]));
    if (!is_field) {
        return 0;
    }
    if (colon + 1 < text.len) {
        put(r, line->start + 1, line->start + colon);
        lore_builder_made(r->builder, LORE_STR(": "), line->start + colon);
        return take_paragraph(r, line->start + colon + 1, *line, true);
    }
    return line->next;
}

static size_t take_block(reader *r, lore_line line)
{
    lore_str text = text_of(r, &line), marker;
    int32_t starts[COLUMNS_MAX], columns = simple_columns(text, starts);
    size_t behind = line.indent == 0 ? take_heading(r, &line) : 0;
    if (behind > 0) {
        return behind;
    }
    if (lore_str_equal(text, LORE_STR("..")) || lore_str_starts(text, LORE_STR(".. "))) {
        return take_explicit(r, &line);
    }
    if (lore_str_starts(text, LORE_STR("__ ")) || lore_line_rule(text, ADORNMENTS, RULE_LEAST)) {
        return line.next; /* an anonymous target; a transition */
    }
    if (is_grid_rule(text)) {
        return take_grid(r, line);
    }
    if (columns > 0) {
        return take_simple(r, &line, starts, columns);
    }
    if (lore_str_starts(text, LORE_STR(">>> "))) {
        lore_code_line(r->builder, &line, line.indent);
        return line.next;
    }
    if (lore_str_starts(text, LORE_STR("| "))) {
        put_inline(r, line.start + 2, line.end);
        lore_builder_line(r->builder);
        return line.next;
    }
    size_t bytes = lore_line_marker(text, &marker);
    if (bytes > 0) {
        return take_item(r, line, bytes, marker);
    }
    behind = take_field(r, &line);
    return behind > 0 ? behind : take_paragraph(r, line.start, line, false);
}

lore_status lore_clean_rst(lore_builder *builder, lore_error *err)
{
    reader *r = LORE_PUSH(builder->arena, reader, 1);
    if (r == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory reading text");
    }
    r->builder = builder;
    r->source = builder->source;
    for (size_t at = 0; at < r->source.len && !builder->is_full;) {
        lore_line line = lore_line_at(r->source, at);
        at = lore_line_is_blank(&line) ? line.next : take_block(r, line);
        LORE_ASSERT(at > line.begin);
    }
    return LORE_OK;
}
