/* Source code to text: every line stays as it is, and definitions begin sections.
 *
 * Nothing is parsed. A definition shows in its first line: by a word ("def", "fn", "CREATE TABLE")
 * or, in languages like C, by a name in front of "(" with a "{" before the next ";". Comments and
 * decorators directly above belong to it. Definitions that are not indented are sections of level
 * 2, those directly inside a class or the like of level 3. A wrong guess costs a section's edge,
 * never a line. */
#include "ingest/markup_int.h"

#include <stdio.h>
#include <string.h>

enum {
    SYMBOL_MAX = 100,
    HEAD_LINES_MAX = 12,  /* of a definition, to its '{' or ';' */
    ABOVE_LINES_MAX = 200 /* of comments above a definition */
};

typedef enum family { BRACES, PYTHON, SHELL, SQL } family;

typedef struct reader {
    lore_builder *builder;
    lore_str source;
    family family;
    bool is_in_comment; /* between lines: a comment or a long string */
    char quote;         /* of the long string of Python */
    int32_t outer;      /* indentation of the class we are in, -1 for none */
    int32_t inner;      /* of what is directly in it, 0: not seen yet */
} reader;

static family family_of(lore_str name)
{
    static const struct {
        const char *extension;
        family family;
    } extensions[] = {{"py", PYTHON},  {"pyi", PYTHON}, {"rb", PYTHON}, {"sh", SHELL},
                      {"bash", SHELL}, {"zsh", SHELL},  {"sql", SQL},   {"lua", PYTHON}};
    lore_str extension = lore_media_extension(name);
    for (size_t i = 0; i < sizeof extensions / sizeof extensions[0]; i++) {
        if (lore_str_equal_nocase(extension, lore_str_from(extensions[i].extension))) {
            return extensions[i].family;
        }
    }
    return BRACES;
}

static lore_str text_of(const reader *r, const lore_line *line)
{
    return lore_str_slice(r->source, line->start, line->end);
}

/* ---- words ---- */

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '$' || c < 0;
}

static lore_str word_at(lore_str text, size_t at)
{
    size_t end = at;
    while (end < text.len && is_name(text.ptr[end])) {
        end++;
    }
    return lore_str_slice(text, at, end);
}

static size_t skip_blanks(lore_str text, size_t at)
{
    while (at < text.len && (text.ptr[at] == ' ' || text.ptr[at] == '\t')) {
        at++;
    }
    return at;
}

/* Is the word one of a list " a b c "? */
static bool is_one_of(lore_str word, const char *list, bool any_case)
{
    char padded[32];
    if (word.len == 0 || word.len + 3 > sizeof padded) {
        return false;
    }
    snprintf(padded, sizeof padded, " " LORE_STR_FMT " ", LORE_STR_ARG(word));
    for (size_t i = 0; any_case && i < word.len + 2; i++) {
        char c = padded[i];
        padded[i] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    return strstr(list, padded) != NULL;
}

/* ---- symbols ---- */

#define MODIFIERS                                                                                  \
    " public private protected internal static final abstract async export default extern inline " \
    "unsafe virtual override sealed partial open suspend data pub const native synchronized "      \
    "declare local readonly "
#define HOLDERS                                                                 \
    " class interface struct enum trait impl module namespace object protocol " \
    "extension record union mod "
#define DEFINERS " def fn func function fun sub proc procedure macro_rules type task "
#define NO_SYMBOLS                                                                               \
    " if for while switch return else do case catch sizeof typedef using import goto throw new " \
    "delete match loop with until foreach assert elif try "

typedef struct definition {
    lore_str symbol; /* "" none */
    bool is_holder;  /* what is in it are definitions, too */
} definition;

/* "public async" and "pub(crate)" in front. */
static size_t skip_modifiers(lore_str text)
{
    size_t at = 0;
    for (;;) {
        lore_str word = word_at(text, at);
        if (!is_one_of(word, MODIFIERS, false)) {
            return at;
        }
        at += word.len;
        if (at < text.len && text.ptr[at] == '(') {
            size_t close = lore_str_find(text, LORE_STR(")"), at);
            at = close == SIZE_MAX ? at : close + 1;
        }
        size_t next = skip_blanks(text, at);
        if (next == at) {
            return 0; /* "constant", "export=" */
        }
        at = next;
    }
}

/* The name behind "class", or "(r *T) Name" of Go, or all of "impl A for B". */
static lore_str named(lore_str text, size_t at, bool is_impl)
{
    at = skip_blanks(text, at);
    if (at < text.len && text.ptr[at] == '(') {
        size_t close = lore_str_find(text, LORE_STR(")"), at);
        at = close == SIZE_MAX ? text.len : skip_blanks(text, close + 1);
    }
    if (is_impl) {
        size_t close = at < text.len && text.ptr[at] == '<' ? lore_str_find(text, LORE_STR(">"), at)
                                                            : SIZE_MAX;
        at = close == SIZE_MAX ? at : close + 1; /* "impl<T>" */
        size_t end = at;
        while (end < text.len && text.ptr[end] != '{') {
            end++;
        }
        return lore_str_trim(lore_str_slice(text, at, end));
    }
    at += at < text.len && (text.ptr[at] == '*' || text.ptr[at] == '!') ? 1 : 0;
    lore_str name = word_at(text, at);
    /* "self.call", "Outer::inner" */
    while (name.len > 0 && at + name.len + 1 < text.len &&
           strchr(".:", text.ptr[at + name.len]) != NULL && is_name(text.ptr[at + name.len + 1])) {
        size_t more = word_at(text, at + name.len + 1).len;
        name.len += more + 1;
    }
    return name;
}

/* Does "{" come before ";" from here on, within a few lines? */
static bool has_body(const reader *r, size_t at)
{
    int32_t lines = 0;
    for (; at < r->source.len && lines < HEAD_LINES_MAX; at++) {
        char c = r->source.ptr[at];
        if (c == '{' || c == ';') {
            return c == '{';
        }
        lines += c == '\n' ? 1 : 0;
    }
    return false;
}

/* Does the parenthesis at `open` end on this line? */
static bool is_closed(lore_str text, size_t open)
{
    int32_t depth = 0;
    for (size_t at = open; at < text.len; at++) {
        depth += text.ptr[at] == '(' ? 1 : text.ptr[at] == ')' ? -1 : 0;
        if (depth == 0) {
            return true;
        }
    }
    return false;
}

/* "static int name(...) {" and "const name = (...) => {". */
static lore_str function_of(const reader *r, const lore_line *line, lore_str text)
{
    const lore_str none = {"", 0};
    size_t open = lore_str_find(text, LORE_STR("("), 0);
    lore_str first = word_at(text, 0);
    bool is_declared = is_one_of(first, " const let var ", false) ||
                       lore_str_starts(text, LORE_STR("export const "));
    if (is_declared) {
        size_t equals = lore_str_find(text, LORE_STR("="), 0);
        bool is_function =
            equals != SIZE_MAX && (lore_str_find(text, LORE_STR("=>"), equals) != SIZE_MAX ||
                                   lore_str_find(text, LORE_STR("function"), equals) != SIZE_MAX);
        size_t at = lore_str_starts(text, LORE_STR("export ")) ? 13 : first.len + 1;
        return is_function && at < text.len ? word_at(text, skip_blanks(text, at)) : none;
    }
    if (open == SIZE_MAX || open == 0 || is_one_of(first, NO_SYMBOLS, false) ||
        strchr("}{#/*'\"(.<@", text.ptr[0]) != NULL || !has_body(r, line->start)) {
        return none;
    }
    size_t end = open;
    while (end > 0 && text.ptr[end - 1] == ' ') {
        end--;
    }
    size_t start = end;
    while (start > 0) {
        char c = text.ptr[start - 1];
        size_t open_sign = start;
        while (c == '>' && open_sign > 0 && text.ptr[open_sign - 1] != '<') {
            open_sign--; /* of "Queue<T>::put" */
        }
        if (!is_name(c) && strchr(":~>", c) == NULL) {
            break;
        }
        start = c == '>' && open_sign > 0 ? open_sign - 1 : start - 1;
    }
    lore_str name = lore_str_slice(text, start, end);
    lore_str before = lore_str_slice(text, 0, start);
    bool is_call =
        memchr(before.ptr, '=', before.len) != NULL || memchr(before.ptr, '.', before.len) != NULL;
    /* "name() {" is a method, "name(function () {" is none. */
    bool is_bare = start == 0 && !is_closed(text, open);
    return is_call || is_bare || is_one_of(name, NO_SYMBOLS, false) ? none : name;
}

/* "CREATE OR REPLACE TABLE IF NOT EXISTS shop.orders (": the name. */
static lore_str sql_object(lore_str text)
{
    if (!is_one_of(word_at(text, 0), " create alter ", true)) {
        return (lore_str){"", 0};
    }
    size_t at = skip_blanks(text, word_at(text, 0).len);
    bool has_kind = false;
    for (lore_str word = word_at(text, at); word.len > 0; word = word_at(text, at)) {
        bool is_kind =
            is_one_of(word,
                      " table view function procedure index trigger type schema sequence "
                      "database role policy domain ",
                      true);
        bool is_filler = is_one_of(word,
                                   " or replace temporary temp unique materialized if not exists "
                                   "global local external concurrently recursive constraint only ",
                                   true);
        if (!is_kind && !is_filler) {
            break;
        }
        has_kind = has_kind || is_kind;
        at = skip_blanks(text, at + word.len);
    }
    size_t end = at;
    while (end < text.len && (is_name(text.ptr[end]) || strchr(".\"`[]", text.ptr[end]) != NULL)) {
        end++;
    }
    return has_kind ? lore_str_slice(text, at, end) : (lore_str){"", 0};
}

static definition definition_of(const reader *r, const lore_line *line)
{
    lore_str text = text_of(r, line);
    definition found = {{"", 0}, false};
    if (r->family == SQL) {
        found.symbol = sql_object(text);
        return found;
    }
    size_t at = skip_modifiers(text);
    lore_str word = word_at(text, at);
    bool is_spaced = at + word.len < text.len && strchr(" \t!<", text.ptr[at + word.len]) != NULL;
    found.is_holder = is_spaced && is_one_of(word, HOLDERS, false);
    if (found.is_holder || (is_spaced && is_one_of(word, DEFINERS, false))) {
        bool is_impl = lore_str_equal(word, LORE_STR("impl"));
        bool is_body = !found.is_holder || r->family == PYTHON || has_body(r, line->start);
        found.symbol = is_body ? named(text, at + word.len, is_impl) : found.symbol;
        /* "struct point make(void) {" defines make. */
        bool is_c = found.is_holder && r->family == BRACES &&
                    lore_str_find(text, LORE_STR("("), at) > at + word.len &&
                    lore_str_find(text, LORE_STR("("), at) != SIZE_MAX &&
                    is_one_of(word, " struct enum union ", false);
        if (is_c) {
            found = (definition){function_of(r, line, text), false};
        }
    } else if (r->family == SHELL) {
        size_t end = word.len;
        bool is_function = lore_str_starts(lore_str_slice(text, end, text.len), LORE_STR("()")) ||
                           lore_str_starts(lore_str_slice(text, end, text.len), LORE_STR(" ()"));
        found.symbol = is_function ? word : found.symbol;
    } else if (r->family == BRACES) {
        found.symbol = function_of(r, line, text);
    }
    found.symbol.len = found.symbol.len > SYMBOL_MAX ? 0 : found.symbol.len;
    return found;
}

/* ---- comments ---- */

/* Follow comments of several lines and long strings over this line. */
static void follow(reader *r, lore_str text)
{
    for (size_t at = 0; at < text.len; at++) {
        if (r->is_in_comment) {
            bool is_end = r->family == PYTHON
                              ? at + 3 <= text.len && text.ptr[at] == r->quote &&
                                    text.ptr[at + 1] == r->quote && text.ptr[at + 2] == r->quote
                              : at + 2 <= text.len && memcmp(text.ptr + at, "*/", 2) == 0;
            at += is_end ? (r->family == PYTHON ? 2 : 1) : 0;
            r->is_in_comment = !is_end;
        } else if (r->family == PYTHON) {
            char c = text.ptr[at];
            bool is_long = (c == '"' || c == '\'') && at + 3 <= text.len && text.ptr[at + 1] == c &&
                           text.ptr[at + 2] == c;
            if (c == '#') {
                return;
            }
            r->quote = is_long ? c : r->quote;
            r->is_in_comment = is_long;
            at += is_long ? 2 : 0;
        } else if (r->family != SHELL && at + 2 <= text.len) {
            if (memcmp(text.ptr + at, "//", 2) == 0) {
                return;
            }
            r->is_in_comment = memcmp(text.ptr + at, "/*", 2) == 0;
            at += r->is_in_comment ? 1 : 0;
        }
    }
}

/* A line that belongs to what is below it. */
static bool is_above(const reader *r, lore_str text)
{
    static const char *const signs[] = {"//", "/*", "*", "@", "#[", "template", "--", "///"};
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        if (lore_str_starts(text, lore_str_from(signs[i]))) {
            return true;
        }
    }
    return r->family != BRACES && text.len > 0 && text.ptr[0] == '#';
}

/* The line with the definition that this one begins, or is a comment above; blank for none. */
static lore_line definition_line(const reader *r, lore_line line, definition *found)
{
    reader ahead = *r;
    int32_t indent = line.indent;
    const lore_line none = {.next = 0};
    for (int32_t i = 0; i < ABOVE_LINES_MAX; i++) {
        lore_str text = text_of(r, &line);
        bool is_comment = ahead.is_in_comment || is_above(r, text);
        if (lore_line_is_blank(&line) || (!ahead.is_in_comment && line.indent != indent)) {
            return none;
        }
        if (!is_comment) {
            *found = definition_of(r, &line);
            return found->symbol.len > 0 ? line : none;
        }
        follow(&ahead, text);
        if (line.next >= r->source.len) {
            return none;
        }
        line = lore_line_at(r->source, line.next);
    }
    return none;
}

/* ---- lines ---- */

static void put_heading(reader *r, lore_str symbol, size_t at, int32_t level)
{
    lore_builder_item_end(r->builder);
    lore_builder_made(r->builder, symbol, at);
    lore_builder_heading(r->builder, level);
}

/* A definition at the margin, or directly inside a class: a section begins. Gives how far the lines
 * are that belong to its head. */
static size_t take_definition(reader *r, const lore_line *line)
{
    bool is_margin = line->indent == 0;
    bool is_inside = r->outer >= 0 && line->indent > r->outer;
    r->inner = is_inside && r->inner == 0 ? line->indent : r->inner;
    if (!is_margin && (!is_inside || line->indent != r->inner)) {
        return line->begin;
    }
    definition found = {{"", 0}, false};
    lore_line first = definition_line(r, *line, &found);
    if (lore_line_is_blank(&first)) {
        return line->begin;
    }
    put_heading(r, found.symbol, first.start, is_margin ? 2 : 3);
    if (is_margin) {
        r->outer = found.is_holder ? line->indent : -1;
        r->inner = 0;
    }
    return first.next;
}

lore_status lore_clean_code(lore_builder *builder, lore_str name, lore_error *err)
{
    reader r = {
        .builder = builder, .source = builder->source, .family = family_of(name), .outer = -1};
    size_t head = 0; /* lines up to here are known to belong to a definition */
    bool is_after_comment = false;
    for (size_t at = 0; at < r.source.len && !builder->is_full;) {
        lore_line line = lore_line_at(r.source, at);
        lore_str text = text_of(&r, &line);
        bool is_comment = r.is_in_comment || is_above(&r, text);
        if (at >= head && !r.is_in_comment && !lore_line_is_blank(&line) && !is_after_comment) {
            head = take_definition(&r, &line);
        }
        is_after_comment = is_comment && !lore_line_is_blank(&line);
        if (!lore_line_is_blank(&line)) {
            lore_code_line(builder, &line, 0);
        }
        follow(&r, text);
        at = line.next;
    }
    (void)err;
    return LORE_OK;
}
