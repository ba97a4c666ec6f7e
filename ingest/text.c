/* Plain text to lines: what belongs together, and what is clearly a heading.
 *
 * Plain text has no grammar, so every rule here asks for strong signs and the default is harmless:
 * a line left alone is one block, and a heading not seen is a short paragraph.
 *
 * Paragraphs are runs of non-blank lines. A paragraph is read as one of: an underlined heading, a
 * block of "Key: value" settings, preformatted lines (tables made with blanks, code), or prose
 * whose soft-wrapped lines are joined. Whether two lines are one is the typesetter's question:
 * would the first word of the second have fitted into the first? Then somebody broke the line on
 * purpose. */
#include "ingest/markup_int.h"

#include "base/utf8.h"

#include <string.h>

enum {
    HEADING_COLUMNS_MAX = 80,
    TITLE_COLUMNS_MAX = 100,
    WRAP_COLUMNS_MIN = 40, /* nobody wraps prose narrower than this */
    GAP_BLANKS = 3,        /* inside a line: a column of a table */
    CODE_INDENT = 4,
    LINES_MAX = 4096 /* of one paragraph; a longer one is read in parts */
};

typedef struct text_line {
    size_t start, end; /* bytes of the source without line end and white space at both ends */
    size_t whole;      /* where the line began, indentation included */
    int32_t indent;    /* columns */
    int32_t columns;   /* of the visible text, wide characters count two */
} text_line;

typedef struct reader {
    lore_builder *builder;
    lore_str source;
    size_t at;
    text_line *lines; /* [room], the paragraph */
    int32_t count, room;
    bool is_first;                   /* no paragraph came before */
    bool follows_item;               /* the paragraph before began like "1. " */
    char rules[LORE_HEADING_LEVELS]; /* underline characters in order of appearance */
} reader;

static lore_str line_text(const reader *r, const text_line *line)
{
    return lore_str_slice(r->source, line->start, line->end);
}

/* ---- reading ---- */

int32_t lore_columns_of(lore_str s)
{
    int32_t columns = 0;
    for (size_t at = 0; at < s.len;) {
        if (s.ptr[at] > 0) {
            at++;
            columns++;
            continue;
        }
        int32_t c = lore_utf8_next(s, &at);
        bool is_wide = c >= 0x2E80 && (lore_utf8_is_cjk(c) || (c >= 0x3000 && c <= 0x303F) ||
                                       (c >= 0xFF01 && c <= 0xFF60));
        columns += is_wide ? 2 : 1;
    }
    return columns;
}

/* Read one line at *at. False for a blank one. */
static bool read_line(lore_str source, size_t *at, text_line *line)
{
    const char *newline = memchr(source.ptr + *at, '\n', source.len - *at);
    size_t end = newline == NULL ? source.len : (size_t)(newline - source.ptr);
    *line = (text_line){.whole = *at};
    size_t start = *at;
    for (; start < end && strchr(" \t\f\v\r", source.ptr[start]) != NULL; start++) {
        line->indent += source.ptr[start] == '\t' ? 8 - line->indent % 8 : 1;
    }
    *at = newline == NULL ? end : end + 1;
    while (end > start && strchr(" \t\f\v\r", source.ptr[end - 1]) != NULL) {
        end--;
    }
    line->start = start;
    line->end = end;
    line->columns = lore_columns_of(lore_str_slice(source, start, end));
    return end > start;
}

static bool read_paragraph(reader *r)
{
    r->count = 0;
    while (r->at < r->source.len && r->count < r->room) {
        if (read_line(r->source, &r->at, &r->lines[r->count])) {
            r->count++;
        } else if (r->count > 0) {
            break;
        }
    }
    return r->count > 0;
}

/* The first line of the next paragraph; false at the end. */
static bool peek_line(const reader *r, text_line *line)
{
    size_t at = r->at;
    while (at < r->source.len) {
        if (read_line(r->source, &at, line)) {
            return true;
        }
    }
    return false;
}

/* ---- signs ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "======": three or more of one character. Gives it, 0 if it is no rule. */
static char rule_of(lore_str s)
{
    if (s.len < 3 || strchr("=-~^\"#*+`:._'", s.ptr[0]) == NULL) {
        return 0;
    }
    for (size_t i = 1; i < s.len; i++) {
        if (s.ptr[i] != s.ptr[0]) {
            return 0;
        }
    }
    return s.ptr[0];
}

/* Bytes of a list marker with the blank behind it: "- ", "12. ", "a) ", "(3) ", "1、"; 0 for none.
 */
static size_t marker_bytes(lore_str s)
{
    static const char *const bullets[] = {"- ",           "* ",          "+ ",
                                          "\xE2\x80\xA2", "\xC2\xB7 ",   "\xE2\x80\x93 ",
                                          "\xE2\x97\x8F", "\xE2\x96\xAA"};
    for (size_t i = 0; i < sizeof bullets / sizeof bullets[0]; i++) {
        if (lore_str_starts(s, lore_str_from(bullets[i]))) {
            return strlen(bullets[i]);
        }
    }
    size_t at = s.len > 0 && s.ptr[0] == '(' ? 1 : 0, start = at;
    while (at < s.len && at - start < 3 && is_digit(s.ptr[at])) {
        at++;
    }
    bool is_letter =
        at == start && at < s.len && ((s.ptr[at] | 32) >= 'a' && (s.ptr[at] | 32) <= 'z');
    at += is_letter ? 1 : 0;
    lore_str rest = lore_str_slice(s, at, s.len);
    if (at > start && !is_letter && lore_str_starts(rest, LORE_STR("\xE3\x80\x81"))) {
        return at + 3;
    }
    bool has_end =
        rest.len > 1 && (rest.ptr[0] == ')' || (rest.ptr[0] == '.' && start == 0 && !is_letter));
    return at > start && has_end && rest.ptr[1] == ' ' ? at + 2 : 0;
}

static bool ends_like_prose(lore_str s)
{
    static const char *const ends[] = {".",
                                       "!",
                                       "?",
                                       ",",
                                       ";",
                                       ":",
                                       "\xE3\x80\x82",
                                       "\xEF\xBC\x81",
                                       "\xEF\xBC\x9F",
                                       "\xEF\xBC\x9B",
                                       "\xEF\xBC\x8C",
                                       "\xEF\xBC\x9A",
                                       "\xE2\x80\xA6"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (lore_str_ends(s, lore_str_from(ends[i]))) {
            return true;
        }
    }
    return false;
}

/* "2.3 Setup": components of the number, with *after behind it; 0 for none. */
static int32_t number_components(lore_str s, size_t *after)
{
    int32_t components = 0;
    size_t at = 0;
    while (at < s.len && is_digit(s.ptr[at]) && components < LORE_HEADING_LEVELS) {
        size_t start = at;
        while (at < s.len && is_digit(s.ptr[at])) {
            at++;
        }
        if (at - start > 3) {
            return 0;
        }
        components++;
        if (at < s.len && s.ptr[at] == '.') {
            at++;
        }
    }
    if (components == 0 || at + 1 >= s.len || s.ptr[at] != ' ') {
        return 0;
    }
    *after = at + 1;
    return components;
}

/* Does a capital or CJK character stand at `at`? */
static bool is_title_letter(lore_str s, size_t at)
{
    while (at < s.len && s.ptr[at] == ' ') {
        at++;
    }
    int32_t c = at < s.len ? lore_utf8_next(s, &at) : 0;
    return lore_utf8_is_upper(c) || lore_utf8_is_cjk(c);
}

static bool is_all_capitals(lore_str s)
{
    int32_t capitals = 0;
    for (size_t at = 0; at < s.len;) {
        int32_t c = lore_utf8_next(s, &at);
        if (lore_utf8_is_letter(c) && !lore_utf8_is_upper(c)) {
            return false;
        }
        capitals += lore_utf8_is_letter(c) ? 1 : 0;
    }
    return capitals >= 4;
}

static bool is_chinese_numeral(int32_t c)
{
    static const int32_t numerals[] = {0x4E00, 0x4E8C, 0x4E09, 0x56DB, 0x4E94, 0x516D,
                                       0x4E03, 0x516B, 0x4E5D, 0x5341, 0x767E};
    for (size_t i = 0; i < sizeof numerals / sizeof numerals[0]; i++) {
        if (numerals[i] == c) {
            return true;
        }
    }
    return c >= '0' && c <= '9';
}

/* "第三章 ..." and "二、..."; the level, 0 for none. */
static int32_t chinese_heading(lore_str s)
{
    size_t at = 0;
    int32_t c = s.len > 0 ? lore_utf8_next(s, &at) : 0;
    bool is_ordinal = c == 0x7B2C; /* 第 */
    if (is_ordinal) {
        c = at < s.len ? lore_utf8_next(s, &at) : 0;
    }
    int32_t digits = 0;
    for (; is_chinese_numeral(c) && digits < 5; digits++) {
        c = at < s.len ? lore_utf8_next(s, &at) : 0;
    }
    if (digits == 0) {
        return 0;
    }
    if (is_ordinal) { /* 章 部 篇, or 节 条 */
        return c == 0x7AE0 || c == 0x90E8 || c == 0x7BC7 ? 2 : c == 0x8282 || c == 0x6761 ? 3 : 0;
    }
    return c == 0x3001 && s.ptr[0] < 0 ? 2 : 0; /* 、 behind a Chinese numeral */
}

/* ---- headings ---- */

/* Is this line alone, between blank lines, a heading? Gives its level, 0 if not. */
static int32_t lone_heading(const reader *r, const text_line *line)
{
    lore_str s = line_text(r, line);
    text_line following;
    if (line->columns > HEADING_COLUMNS_MAX || ends_like_prose(s) || !peek_line(r, &following)) {
        return 0;
    }
    size_t after = 0, next_after = 0;
    int32_t components = number_components(s, &after);
    if (components > 0 && is_title_letter(s, after)) {
        bool is_list =
            components == 1 &&
            (r->follows_item || number_components(line_text(r, &following), &next_after) == 1);
        int32_t level = components + 1;
        return is_list ? 0 : level < LORE_HEADING_LEVELS ? level : LORE_HEADING_LEVELS;
    }
    int32_t level = chinese_heading(s);
    return level > 0 ? level : is_all_capitals(s) && marker_bytes(s) == 0 ? 2 : 0;
}

/* Order of appearance decides the depth of an underline, as in reStructuredText. */
static int32_t rule_level(reader *r, char rule)
{
    for (int32_t i = 0; i < LORE_HEADING_LEVELS - 1; i++) {
        if (r->rules[i] == rule || r->rules[i] == 0) {
            r->rules[i] = rule;
            return i + 2;
        }
    }
    return LORE_HEADING_LEVELS;
}

static bool is_underlined(const reader *r, int32_t i)
{
    if (i + 1 >= r->count) {
        return false;
    }
    const text_line *line = &r->lines[i], *rule = &r->lines[i + 1];
    char c = rule_of(line_text(r, rule));
    return c != 0 && rule_of(line_text(r, line)) == 0 && line->columns <= TITLE_COLUMNS_MAX &&
           rule->columns * 2 >= line->columns && rule->columns <= line->columns + 40 &&
           rule->indent <= line->indent;
}

static void put_line(reader *r, const text_line *line)
{
    lore_builder_piece(r->builder, line_text(r, line), line->start);
}

static void put_heading(reader *r, const text_line *line, int32_t level)
{
    lore_builder_item_end(r->builder);
    put_line(r, line);
    lore_builder_heading(r->builder, level);
}

/* Does the same underline come again? Then the first one marks a section, not the title. */
static bool rule_comes_again(const reader *r, char rule)
{
    size_t at = r->at;
    text_line line;
    while (at < r->source.len) {
        if (read_line(r->source, &at, &line) && rule_of(line_text(r, &line)) == rule) {
            return true;
        }
    }
    return false;
}

/* Headings at line i of the paragraph; gives how many lines they took. */
static int32_t take_headings(reader *r, int32_t i)
{
    lore_str s = line_text(r, &r->lines[i]);
    bool has_over = i + 2 < r->count && rule_of(s) != 0 && is_underlined(r, i + 1) &&
                    rule_of(line_text(r, &r->lines[i + 2])) == rule_of(s);
    int32_t at = has_over ? i + 1 : i;
    if (!has_over && !is_underlined(r, i)) {
        return 0;
    }
    char rule = rule_of(line_text(r, &r->lines[at + 1]));
    bool is_title = r->is_first && i == 0 && (has_over || !rule_comes_again(r, rule));
    /* An overlined heading is another style than the same character below only. */
    put_heading(r, &r->lines[at], is_title ? 1 : rule_level(r, has_over ? (char)-rule : rule));
    return at + 2 - i;
}

/* ---- blocks ---- */

static bool is_setting(lore_str s, lore_str *key, lore_str *value)
{
    const char *colon = memchr(s.ptr, ':', s.len < 32 ? s.len : 32);
    if (colon == NULL || colon == s.ptr || s.ptr[0] < 'A' || s.ptr[0] > 'Z') {
        return false;
    }
    size_t at = (size_t)(colon - s.ptr);
    *key = lore_str_slice(s, 0, at);
    *value = lore_str_trim(lore_str_slice(s, at + 1, s.len));
    return memchr(s.ptr, ' ', at) == NULL && (at + 1 == s.len || s.ptr[at + 1] == ' ');
}

/* "Title: ..." and its like at the top of a document. False when the paragraph is none. */
static bool take_settings(reader *r)
{
    int32_t found = 0;
    lore_str key, value, title = {"", 0};
    for (int32_t i = 0; i < r->count; i++) {
        if (r->lines[i].indent == 0 && is_setting(line_text(r, &r->lines[i]), &key, &value)) {
            found++;
            bool is_title = lore_str_equal_nocase(key, LORE_STR("title")) ||
                            lore_str_equal_nocase(key, LORE_STR("subject"));
            title = is_title && title.len == 0 ? value : title;
        } else if (r->lines[i].indent == 0) {
            return false;
        }
    }
    if (found < 2) {
        return false;
    }
    if (r->builder->title.len == 0 && title.len <= LORE_TITLE_BYTES_MAX) {
        r->builder->title = title;
    }
    for (int32_t i = 0; i < r->count; i++) {
        put_line(r, &r->lines[i]);
        lore_builder_line(r->builder);
    }
    return true;
}

/* Columns set with blanks or tabs, or symbols of code in a block of its own. */
static bool is_preformatted_line(const reader *r, const text_line *line)
{
    lore_str s = line_text(r, line);
    int32_t blanks = 0, symbols = 0;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        blanks = c == ' ' ? blanks + 1 : 0;
        if (c == '\t' || blanks >= GAP_BLANKS) {
            return true;
        }
        symbols += strchr("={}();<>[]|&$_\\", c) != NULL ? 1 : 0;
    }
    static const char *const comments[] = {"# ", "//", "-- ", ">>>", "$ ", "/*"};
    bool is_code = symbols >= 2;
    for (size_t i = 0; i < sizeof comments / sizeof comments[0]; i++) {
        is_code = is_code || lore_str_starts(s, lore_str_from(comments[i]));
    }
    return line->indent >= CODE_INDENT && is_code;
}

static bool is_preformatted(const reader *r, int32_t from)
{
    int32_t signs = 0;
    for (int32_t i = from; i < r->count; i++) {
        signs += is_preformatted_line(r, &r->lines[i]) ? 1 : 0;
    }
    return signs > 0 && signs * 2 >= r->count - from;
}

static void take_preformatted(reader *r, int32_t from)
{
    for (int32_t i = from; i < r->count; i++) {
        const text_line *line = &r->lines[i];
        lore_builder_piece(r->builder, lore_str_slice(r->source, line->whole, line->end),
                           line->whole);
        lore_builder_code_line(r->builder);
    }
}

static int32_t first_word_columns(lore_str s)
{
    size_t end = 0;
    int32_t first = s.len > 0 ? lore_utf8_next(s, &end) : 0;
    if (lore_utf8_is_cjk(first)) {
        return 2;
    }
    const char *blank = memchr(s.ptr, ' ', s.len);
    return lore_columns_of(lore_str_slice(s, 0, blank == NULL ? s.len : (size_t)(blank - s.ptr)));
}

/* Is `line` the soft-wrapped continuation of the block whose last line is `previous` and whose text
 * begins at column `content`? */
static bool continues(const reader *r, const text_line *previous, const text_line *line,
                      int32_t content, int32_t width)
{
    lore_str s = line_text(r, line);
    if (width < WRAP_COLUMNS_MIN || marker_bytes(s) > 0 || rule_of(s) != 0 ||
        line->indent != content) {
        return false;
    }
    /* A quarter of slack: ragged prose is common, tables of short lines are shorter. */
    int32_t fitted = previous->indent + previous->columns + 1 + first_word_columns(s);
    return fitted * 4 > width * 3;
}

static void take_prose(reader *r, int32_t from)
{
    int32_t width = 0, content = 0;
    for (int32_t i = from; i < r->count; i++) {
        int32_t line_width = r->lines[i].indent + r->lines[i].columns;
        width = line_width > width ? line_width : width;
    }
    for (int32_t i = from; i < r->count; i++) {
        const text_line *line = &r->lines[i];
        lore_str s = line_text(r, line);
        if (i > from && continues(r, &r->lines[i - 1], line, content, width)) {
            lore_builder_made(r->builder, LORE_STR("\n"), r->lines[i - 1].end);
        } else {
            lore_builder_line(r->builder);
            size_t marker = marker_bytes(s);
            content = line->indent + lore_columns_of(lore_str_slice(s, 0, marker));
        }
        if (rule_of(s) == 0) {
            put_line(r, line); /* a rule on its own is a separator, not text */
        }
    }
    lore_builder_line(r->builder);
}

/* A short line on top, followed by more, is the title. */
static bool is_title_line(const reader *r)
{
    const text_line *line = &r->lines[0];
    text_line following;
    lore_str s = line_text(r, line), title = r->builder->title;
    return r->is_first && r->count == 1 && line->columns <= TITLE_COLUMNS_MAX &&
           marker_bytes(s) == 0 && rule_of(s) == 0 && !ends_like_prose(s) &&
           peek_line(r, &following) && (title.len == 0 || lore_str_equal_nocase(title, s));
}

static void take_paragraph(reader *r)
{
    int32_t i = 0;
    for (int32_t taken = 0; i < r->count && (taken = take_headings(r, i)) > 0; i += taken) {
    }
    if (i == r->count) {
        return;
    }
    if (r->is_first && i == 0 && take_settings(r)) {
        return;
    }
    if (is_title_line(r)) {
        put_heading(r, &r->lines[0], 1);
        return;
    }
    int32_t level = r->count == 1 ? lone_heading(r, &r->lines[0]) : 0;
    if (level > 0) {
        put_heading(r, &r->lines[0], level);
    } else if (is_preformatted(r, i)) {
        take_preformatted(r, i);
    } else {
        take_prose(r, i);
    }
}

lore_status lore_clean_text(lore_builder *builder, size_t from, lore_error *err)
{
    reader r = {.builder = builder, .source = builder->source, .at = from, .is_first = true};
    size_t lines_max =
        (r.source.len - from) / 2 + 1; /* a line that counts has two bytes, or ends */
    r.room = lines_max < LINES_MAX ? (int32_t)lines_max : LINES_MAX;
    r.lines = LORE_PUSH(builder->arena, text_line, r.room);
    if (r.lines == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory reading text");
    }
    while (!builder->is_full && read_paragraph(&r)) {
        size_t after = 0;
        bool is_item = number_components(line_text(&r, &r.lines[0]), &after) == 1;
        take_paragraph(&r);
        r.is_first = false;
        r.follows_item = is_item;
    }
    return LORE_OK;
}
