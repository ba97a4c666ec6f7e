/* Markup inside a paragraph of reStructuredText: literals, roles, emphasis, references,
 * substitutions and escapes are left out, their text stays. */
#include "ingest/markup_int.h"

#include <string.h>

enum { NAME_MAX = 40 };

static void put(lore_builder *b, size_t start, size_t end)
{
    lore_builder_piece(b, lore_str_slice(b->source, start, end), start);
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c < 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* "`text <target>`": the text; "~package.name": the name. */
static void put_interpreted(lore_builder *b, size_t start, size_t end)
{
    const char *s = b->source.ptr;
    if (end > start && s[end - 1] == '>') {
        size_t open = end - 1;
        while (open > start && s[open] != '<') {
            open--;
        }
        if (open > start + 1 && is_blank(s[open - 1])) {
            end = open;
            while (end > start && is_blank(s[end - 1])) {
                end--;
            }
        }
    }
    if (end > start && (s[start] == '~' || s[start] == '!')) {
        size_t dot = s[start] == '~' ? end : start;
        while (dot > start && s[dot - 1] != '.') {
            dot--;
        }
        start = dot > start ? dot : start + 1;
    }
    put(b, start, end);
}

/* The end of ":name:" at `at`, when a '`' follows; 0 for none. */
static size_t role_end(const lore_builder *b, size_t at, size_t to)
{
    const char *s = b->source.ptr;
    size_t i = at + 1;
    while (i < to && i - at < NAME_MAX && (is_word(s[i]) || strchr("-_.+:", s[i]) != NULL)) {
        i++;
    }
    return i > at + 2 && i < to && s[i - 1] == ':' && s[i] == '`' ? i : 0;
}

static size_t find(const lore_builder *b, const char *what, size_t from, size_t to)
{
    size_t found = lore_str_find(lore_str_slice(b->source, 0, to), lore_str_from(what), from);
    return found == SIZE_MAX ? 0 : found;
}

/* Does emphasis or a reference begin at `at`? Behind a word none does. */
static bool may_begin(const lore_builder *b, size_t at, size_t from, size_t width, size_t to)
{
    return (at == from || !is_word(b->source.ptr[at - 1]) || b->source.ptr[at - 1] < 0) &&
           at + width < to && !is_blank(b->source.ptr[at + width]);
}

/* Behind what ends at `at`: the '_' of references. */
static size_t after_reference(const lore_builder *b, size_t at, size_t to)
{
    size_t end = at;
    while (end < to && end - at < 2 && b->source.ptr[end] == '_') {
        end++;
    }
    return end == to || !is_word(b->source.ptr[end]) || b->source.ptr[end] < 0 ? end : at;
}

/* Markup that begins at `at`: puts its text and gives what is behind it; `at` where there is none.
 */
static size_t take_inline(lore_builder *b, size_t at, size_t from, size_t to)
{
    const char *s = b->source.ptr;
    size_t role = s[at] == ':' ? role_end(b, at, to) : 0;
    if (role > 0) {
        size_t close = find(b, "`", role + 1, to);
        if (close > 0) {
            put_interpreted(b, role + 1, close);
            return close + 1;
        }
    }
    bool is_literal = s[at] == '`' && at + 1 < to && s[at + 1] == '`';
    if (is_literal) {
        size_t close = find(b, "``", at + 2, to);
        if (close > 0) {
            put(b, at + 2, close);
            return close + 2;
        }
    } else if (s[at] == '`' && may_begin(b, at, from, 1, to)) {
        size_t close = find(b, "`", at + 1, to);
        if (close > 0) {
            put_interpreted(b, at + 1, close);
            return after_reference(b, close + 1, to);
        }
    } else if (s[at] == '*') {
        size_t width = at + 1 < to && s[at + 1] == '*' ? 2 : 1;
        size_t close = may_begin(b, at, from, width, to)
                           ? find(b, width == 2 ? "**" : "*", at + width + 1, to)
                           : 0;
        if (close > 0 && !is_blank(s[close - 1])) {
            put(b, at + width, close);
            return close + width;
        }
    } else if (s[at] == '|' && may_begin(b, at, from, 1, to)) {
        size_t close = find(b, "|", at + 1, to);
        if (close > 0 && close - at < NAME_MAX && !is_blank(s[close - 1])) {
            put(b, at + 1, close);
            return after_reference(b, close + 1, to);
        }
    } else if (s[at] == '\\' && at + 1 < to) {
        if (!is_blank(s[at + 1])) {
            put(b, at + 1, at + 2);
        }
        return at + 2;
    }
    return at;
}

/* "name_" and "[1]_" refer to something: without the '_'. */
static bool is_reference_sign(const lore_builder *b, size_t at, size_t from, size_t to)
{
    const char *s = b->source.ptr;
    return s[at] == '_' && at > from && (is_word(s[at - 1]) || s[at - 1] == ']') && s[at - 1] > 0 &&
           (at + 1 == to || (!is_word(s[at + 1]) && s[at + 1] != '_'));
}

void lore_rst_inline(lore_builder *b, size_t from, size_t to)
{
    size_t plain = from;
    for (size_t at = from; at < to && !b->is_full;) {
        bool is_reference = is_reference_sign(b, at, from, to);
        bool is_sign = b->source.ptr[at] != '\0' && strchr("`*:|\\", b->source.ptr[at]) != NULL;
        if (!is_sign && !is_reference) {
            at++;
            continue;
        }
        put(b, plain, at);
        size_t behind = is_reference ? at + 1 : take_inline(b, at, from, to);
        plain = behind;
        at = behind > at ? behind : at + 1;
    }
    put(b, plain < to ? plain : to, to);
}
