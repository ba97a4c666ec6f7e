/* AsciiDoc to text.
 *
 * A loop over lines: delimited blocks of code are taken whole, the delimiters of others are left
 * out and their content read like any, so nothing is recursive. Attributes of the document are
 * replaced where they are used. Source: the AsciiDoc language documentation (docs.asciidoctor.org).
 */
#include "ingest/markup_int.h"

#include <string.h>

enum { RULE_LEAST = 4, CELL_COLUMNS_MAX = LORE_ROW_CELLS };

typedef struct reader {
    lore_builder *builder;
    lore_str source;
    lore_adoc_attributes attributes;
    lore_row row;
    int32_t columns; /* of the next table, as "[cols=...]" says; 0: not */
    bool is_code;    /* "[source]" and its like: the next paragraph is code */
} reader;

static lore_str text_of(const reader *r, const lore_line *line)
{
    return lore_str_slice(r->source, line->start, line->end);
}

static void put_inline(void *self, size_t from, size_t to)
{
    reader *r = self;
    lore_adoc_inline(r->builder, &r->attributes, from, to);
}

/* ---- headings and attributes ---- */

/* "== Title": how many signs, and where the text begins; 0 for none. */
static int32_t heading_level(lore_str text, size_t *start)
{
    char sign = text.len > 0 ? text.ptr[0] : 0;
    int32_t level = 0;
    while ((size_t)level < text.len && text.ptr[level] == sign) {
        level++;
    }
    bool is_heading = (sign == '=' || sign == '#') && level <= LORE_HEADING_LEVELS &&
                      (size_t)level + 1 < text.len && text.ptr[level] == ' ';
    *start = (size_t)level + 1;
    while (is_heading && *start < text.len && text.ptr[*start] == ' ') {
        ++*start;
    }
    return is_heading ? level : 0;
}

/* ":name: value" and ":!name:"; false for other lines. */
static bool take_attribute(reader *r, const lore_line *line)
{
    lore_str text = text_of(r, line);
    size_t colon =
        text.len > 2 && text.ptr[0] == ':' ? lore_str_find(text, LORE_STR(":"), 1) : SIZE_MAX;
    bool is_attribute =
        colon != SIZE_MAX && colon > 1 && (colon + 1 == text.len || text.ptr[colon + 1] == ' ');
    for (size_t i = 1; is_attribute && i < colon; i++) {
        char c = text.ptr[i];
        is_attribute = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '!';
    }
    if (is_attribute) {
        lore_adoc_attribute_set(&r->attributes, lore_str_slice(text, 1, colon),
                                lore_str_trim(lore_str_slice(text, colon + 1, text.len)));
    }
    return is_attribute;
}

/* Behind the title: author, revision and attributes, up to a blank line. */
static size_t take_header(reader *r, size_t at)
{
    for (int32_t i = 0; at < r->source.len; i++) {
        lore_line line = lore_line_at(r->source, at);
        lore_str text = text_of(r, &line);
        bool is_comment = lore_str_starts(text, LORE_STR("//"));
        bool is_person = i == 0 && (memchr(text.ptr, '<', text.len) != NULL);
        bool is_revision = i > 0 && text.len > 1 &&
                           (text.ptr[0] == 'v' || (text.ptr[0] >= '0' && text.ptr[0] <= '9')) &&
                           i <= 2;
        if (lore_line_is_blank(&line) ||
            (!is_comment && !take_attribute(r, &line) && !is_person && !is_revision)) {
            break;
        }
        at = line.next;
    }
    return at;
}

static size_t take_heading(reader *r, const lore_line *line, int32_t level, size_t start)
{
    size_t end = line->end;
    while (end > line->start + start && r->source.ptr[end - 1] == r->source.ptr[line->start]) {
        end--; /* "== Title ==" */
    }
    lore_builder_item_end(r->builder);
    put_inline(r, line->start + start, end);
    lore_builder_heading(r->builder, level);
    r->is_code = false;
    return level == 1 ? take_header(r, line->next) : line->next;
}

/* ---- blocks ---- */

/* The line that ends a block begun by `fence`; the end of the source where none does. */
static size_t find_fence(const reader *r, size_t at, lore_str fence, size_t *behind)
{
    while (at < r->source.len) {
        lore_line line = lore_line_at(r->source, at);
        if (lore_str_equal(text_of(r, &line), fence)) {
            *behind = line.next;
            return line.begin;
        }
        at = line.next;
    }
    *behind = r->source.len;
    return r->source.len;
}

static size_t take_code(reader *r, const lore_line *fence, bool is_text)
{
    lore_str sign = text_of(r, fence);
    bool is_backticks = lore_str_starts(sign, LORE_STR("```"));
    size_t behind = 0;
    sign = is_backticks ? lore_str_slice(sign, 0, 3) : sign;
    size_t end = find_fence(r, fence->next, sign, &behind);
    for (size_t at = fence->next; is_text && at < end && !r->builder->is_full;) {
        lore_line line = lore_line_at(r->source, at);
        if (!lore_line_is_blank(&line)) {
            lore_code_line(r->builder, &line, 0);
        }
        at = line.next;
    }
    r->is_code = false;
    return behind;
}

/* "[cols="1,2,3"]" and "[cols=3*]". */
static int32_t columns_of(lore_str text)
{
    size_t at = lore_str_find(text, LORE_STR("cols="), 0);
    if (at == SIZE_MAX) {
        return 0;
    }
    at += 5;
    bool is_quoted = at < text.len && text.ptr[at] == '"';
    int32_t count = 1, number = 0;
    for (at += is_quoted ? 1 : 0; at < text.len; at++) {
        char c = text.ptr[at];
        if (c == '"' || c == ']' || (c == ',' && !is_quoted)) {
            break;
        }
        number = c >= '0' && c <= '9' && number < 1000 ? number * 10 + (c - '0') : number;
        if (c == '*' && number > 0) {
            count += number - 1;
        }
        number = c >= '0' && c <= '9' ? number : 0;
        count += c == ',' ? 1 : 0;
    }
    return count <= CELL_COLUMNS_MAX ? count : 0;
}

/* "[source,ruby]", "[NOTE]", "[[anchor]]", "[cols=...]": about the next block. */
static void take_block_attributes(reader *r, const lore_line *line)
{
    static const char *const notes[] = {"NOTE", "TIP", "IMPORTANT", "WARNING", "CAUTION"};
    lore_str text = text_of(r, line), inner = lore_str_slice(text, 1, text.len - 1);
    int32_t columns = columns_of(text);
    r->columns = columns > 0 ? columns : r->columns;
    r->is_code = lore_str_starts(inner, LORE_STR("source")) ||
                 lore_str_starts(inner, LORE_STR("listing")) ||
                 lore_str_starts(inner, LORE_STR("literal"));
    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++) {
        if (lore_str_equal(inner, lore_str_from(notes[i]))) {
            lore_builder_line(r->builder);
            lore_builder_made(r->builder, inner, line->start);
            lore_builder_made(r->builder, LORE_STR(": "), line->start);
        }
    }
}

/* ---- tables ---- */

/* Does a cell begin at this '|'? Gives where its specification ("2+^.>a") begins, SIZE_MAX: no. */
static size_t cell_begin(lore_str text, size_t bar)
{
    size_t at = bar;
    while (at > 0 && strchr("0123456789.+*<^>aehlmsdv", text.ptr[at - 1]) != NULL &&
           text.ptr[at - 1] != '\0') {
        at--;
    }
    if (bar > 0 && text.ptr[bar - 1] == '\\') {
        return SIZE_MAX;
    }
    return at == 0 || text.ptr[at - 1] == ' ' || text.ptr[at - 1] == '\t' ? at : bar;
}

typedef struct table {
    int32_t columns, cell; /* the cell under construction, -1 before the first */
} table;

/* The cells of a line; what stands before the first belongs to the one before. */
static void add_cells(reader *r, table *t, const lore_line *line)
{
    lore_str text = text_of(r, line);
    size_t from = 0;
    int32_t seen = 0;
    for (size_t bar = lore_str_find(text, LORE_STR("|"), 0);;
         bar = lore_str_find(text, LORE_STR("|"), bar + 1)) {
        size_t begin = bar == SIZE_MAX ? text.len : cell_begin(text, bar);
        if (begin == SIZE_MAX) {
            continue;
        }
        begin = begin < from ? from : begin;
        lore_str cell = lore_str_trim(lore_str_slice(text, from, begin));
        if (t->cell >= 0 && cell.len > 0) {
            size_t at = line->start + (size_t)(cell.ptr - text.ptr);
            lore_row_add(&r->row, t->cell, at, at + cell.len);
        }
        if (bar == SIZE_MAX) {
            break;
        }
        if (t->columns > 0 && t->cell + 1 >= t->columns) {
            lore_row_end(&r->row, r->builder, put_inline, r);
            t->cell = -1;
        }
        t->cell++;
        seen++;
        from = bar + 1;
    }
    t->columns = t->columns == 0 ? seen : t->columns;
}

static size_t take_table(reader *r, const lore_line *fence)
{
    table t = {r->columns, -1};
    size_t behind = 0, end = find_fence(r, fence->next, text_of(r, fence), &behind);
    for (size_t at = fence->next; at < end && !r->builder->is_full;) {
        lore_line line = lore_line_at(r->source, at);
        if (!lore_line_is_blank(&line)) {
            add_cells(r, &t, &line);
        }
        at = line.next;
    }
    lore_row_end(&r->row, r->builder, put_inline, r);
    r->columns = 0;
    return behind;
}

/* ---- lists and paragraphs ---- */

/* "** ", ".. ", "- ", "1. ", "<1> ": bytes of the marker; 0 for none. */
static size_t list_marker(lore_str text, lore_str *marker)
{
    size_t at = 0;
    *marker = LORE_STR("- ");
    char sign = text.len > 0 ? text.ptr[0] : 0;
    if (sign == '*' || sign == '.') {
        while (at < text.len && text.ptr[at] == sign) {
            at++;
        }
        return at <= LORE_HEADING_LEVELS && at + 1 < text.len && text.ptr[at] == ' ' ? at + 1 : 0;
    }
    if (sign == '<') {
        at = lore_str_find(text, LORE_STR("> "), 0);
        return at != SIZE_MAX && at > 0 && at <= 4 ? at + 2 : 0;
    }
    return sign == '+' ? 0 : lore_line_marker(text, marker);
}

/* "term:: what it is": where the signs begin, SIZE_MAX for none. */
static size_t description_signs(lore_str text)
{
    for (size_t at = lore_str_find(text, LORE_STR("::"), 1); at != SIZE_MAX;
         at = lore_str_find(text, LORE_STR("::"), at + 2)) {
        size_t end = at;
        while (end < text.len && text.ptr[end] == ':') {
            end++;
        }
        if (end - at <= 4 && (end == text.len || text.ptr[end] == ' ')) {
            return at;
        }
        at = end - 2;
    }
    return SIZE_MAX;
}

static const char *const MACROS[] = {"image::",  "include::", "ifdef::", "ifndef::", "endif::",
                                     "ifeval::", "video::",   "audio::", "toc::"};

/* Which of MACROS a line is, -1 for none. */
static int32_t macro_of(lore_str text)
{
    for (int32_t i = 0; i < (int32_t)(sizeof MACROS / sizeof MACROS[0]); i++) {
        if (lore_str_starts(text, lore_str_from(MACROS[i]))) {
            return i;
        }
    }
    return -1;
}

/* Does the line begin something of its own? */
static bool is_block_start(lore_str text)
{
    lore_str marker;
    size_t start = 0;
    return heading_level(text, &start) > 0 || macro_of(text) >= 0 ||
           list_marker(text, &marker) > 0 || lore_line_rule(text, "-=*_.+/`", RULE_LEAST) != 0 ||
           lore_str_equal(text, LORE_STR("--")) || lore_str_equal(text, LORE_STR("+")) ||
           lore_str_starts(text, LORE_STR("|===")) || lore_str_starts(text, LORE_STR("```")) ||
           lore_str_starts(text, LORE_STR("//")) ||
           (text.ptr[0] == '[' && text.ptr[text.len - 1] == ']');
}

static size_t take_paragraph(reader *r, size_t from, lore_line first)
{
    lore_line last = first;
    for (;;) {
        bool is_broken = last.end > last.start + 2 && r->source.ptr[last.end - 1] == '+' &&
                         r->source.ptr[last.end - 2] == ' ';
        lore_line line = lore_line_at(r->source, last.next);
        bool is_end = last.next >= r->source.len || lore_line_is_blank(&line) ||
                      is_block_start(text_of(r, &line)) ||
                      description_signs(text_of(r, &line)) != SIZE_MAX;
        if (is_broken || is_end) {
            size_t end = is_broken ? last.end - 1 : last.end;
            put_inline(r, from, end > from ? end : from);
            lore_builder_line(r->builder);
            from = line.start;
        }
        if (is_end) {
            return last.next;
        }
        last = line;
    }
}

static size_t take_item(reader *r, lore_line line, size_t bytes, lore_str marker)
{
    size_t from = line.start + bytes;
    lore_str rest = lore_str_slice(r->source, from, line.end);
    bool is_check = lore_str_starts(rest, LORE_STR("[x] ")) ||
                    lore_str_starts(rest, LORE_STR("[*] ")) ||
                    lore_str_starts(rest, LORE_STR("[ ] "));
    lore_builder_item(r->builder, marker, line.start);
    size_t at = take_paragraph(r, from + (is_check ? 4 : 0), line);
    lore_builder_item_end(r->builder);
    return at;
}

static size_t take_description(reader *r, lore_line line, size_t signs)
{
    size_t end = line.start + signs;
    put_inline(r, line.start, end);
    while (end < line.end && r->source.ptr[end] == ':') {
        end++;
    }
    if (end == line.end) {
        lore_builder_line(r->builder);
        return line.next;
    }
    lore_builder_made(r->builder, LORE_STR(": "), end);
    return take_paragraph(r, end, line);
}

/* ---- lines ---- */

/* "image::path[text]", "include::path[]", "ifdef::name[]": the text of an image; true: it was one.
 */
static bool take_macro(reader *r, const lore_line *line)
{
    lore_str text = text_of(r, line);
    int32_t macro = macro_of(text);
    size_t open = macro == 0 ? lore_str_find(text, LORE_STR("["), 0) : SIZE_MAX;
    if (open != SIZE_MAX && text.ptr[text.len - 1] == ']') {
        size_t end = text.len - 1;
        const char *comma = memchr(text.ptr + open + 1, ',', end - open - 1);
        end = comma == NULL ? end : (size_t)(comma - text.ptr);
        put_inline(r, line->start + open + 1, line->start + end);
        lore_builder_line(r->builder);
    }
    return macro >= 0;
}

/* Lines that say something about others; true: it was one. */
static bool take_mark(reader *r, const lore_line *line)
{
    lore_str text = text_of(r, line);
    char rule = lore_line_rule(text, "=*_", RULE_LEAST);
    bool is_open = rule != 0 || lore_str_equal(text, LORE_STR("--")) ||
                   lore_str_equal(text, LORE_STR("+")) || lore_str_equal(text, LORE_STR("'''")) ||
                   lore_str_equal(text, LORE_STR("<<<"));
    bool is_comment =
        lore_str_starts(text, LORE_STR("//")) && lore_line_rule(text, "/", RULE_LEAST) == 0;
    if (is_open || is_comment || take_attribute(r, line) || take_macro(r, line)) {
        return true;
    }
    if (text.ptr[0] == '[' && text.ptr[text.len - 1] == ']' && text.len > 1) {
        take_block_attributes(r, line);
        return true;
    }
    return false;
}

static size_t take_block(reader *r, lore_line line)
{
    lore_str text = text_of(r, &line), marker;
    size_t start = 0;
    int32_t level = line.indent == 0 ? heading_level(text, &start) : 0;
    if (level > 0) {
        return take_heading(r, &line, level, start);
    }
    char fence = lore_line_rule(text, "-.+/", RULE_LEAST);
    if (fence != 0 || lore_str_starts(text, LORE_STR("```"))) {
        return take_code(r, &line, fence != '/' && fence != '+');
    }
    if (lore_str_starts(text, LORE_STR("|==="))) {
        return take_table(r, &line);
    }
    if (take_mark(r, &line)) {
        return line.next;
    }
    size_t bytes = list_marker(text, &marker), signs = description_signs(text);
    if (bytes > 0) {
        return take_item(r, line, bytes, marker);
    }
    if (r->is_code || line.indent > 0) {
        lore_code_line(r->builder, &line, r->is_code ? 0 : line.indent);
        lore_line next = lore_line_at(r->source, line.next);
        r->is_code = r->is_code && !lore_line_is_blank(&next);
        return line.next;
    }
    bool is_title = text.len > 1 && text.ptr[0] == '.' && strchr(". ", text.ptr[1]) == NULL;
    if (is_title) { /* of the next block */
        put_inline(r, line.start + 1, line.end);
        lore_builder_line(r->builder);
        return line.next;
    }
    return signs != SIZE_MAX ? take_description(r, line, signs)
                             : take_paragraph(r, line.start, line);
}

lore_status lore_clean_asciidoc(lore_builder *builder, lore_error *err)
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
    }
    return LORE_OK;
}
