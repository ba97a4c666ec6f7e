/* Markup inside a paragraph of AsciiDoc: emphasis, links, references, macros, attributes. What it
 * looks like is left out, its text stays. */
#include "ingest/markup_int.h"

#include <string.h>

enum { MACRO_MAX = 2048 /* bytes of one macro or pair of signs */ };

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c < 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void put(lore_builder *b, size_t start, size_t end)
{
    lore_builder_piece(b, lore_str_slice(b->source, start, end), start);
}

/* ---- attributes ---- */

void lore_adoc_attribute_set(lore_adoc_attributes *attributes, lore_str name, lore_str value)
{
    for (int32_t i = 0; i < attributes->count; i++) {
        if (lore_str_equal(attributes->names[i], name)) {
            attributes->values[i] = value;
            return;
        }
    }
    if (attributes->count < LORE_ADOC_ATTRIBUTES) {
        attributes->names[attributes->count] = name;
        attributes->values[attributes->count++] = value;
    }
}

/* "{name}" at `at`: gives what is behind it, `at` where it is none. */
static size_t take_attribute(lore_builder *b, const lore_adoc_attributes *attributes, size_t at,
                             size_t to)
{
    static const char *const signs[][2] = {
        {"nbsp", " "},  {"sp", " "},  {"empty", ""},  {"blank", ""}, {"amp", "&"},
        {"lt", "<"},    {"gt", ">"},  {"plus", "+"},  {"vbar", "|"}, {"startsb", "["},
        {"endsb", "]"}, {"zwsp", ""}, {"cpp", "C++"}, {"apos", "'"}, {"quot", "\""}};
    size_t end = at + 1;
    while (end < to && (is_word(b->source.ptr[end]) || strchr("-_", b->source.ptr[end]) != NULL)) {
        end++;
    }
    if (end == at + 1 || end >= to || b->source.ptr[end] != '}') {
        return at;
    }
    lore_str name = lore_str_slice(b->source, at + 1, end);
    for (int32_t i = 0; i < attributes->count; i++) {
        if (lore_str_equal(attributes->names[i], name)) {
            lore_builder_made(b, attributes->values[i], at);
            return end + 1;
        }
    }
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        if (lore_str_equal(name, lore_str_from(signs[i][0]))) {
            lore_builder_made(b, lore_str_from(signs[i][1]), at);
            return end + 1;
        }
    }
    return at;
}

/* ---- macros ---- */

/* The ']' that ends what begins behind `open`; 0 for none. */
static size_t close_of(const lore_builder *b, size_t open, size_t to)
{
    size_t last = to - open > MACRO_MAX ? open + MACRO_MAX : to;
    for (size_t at = open + 1; at < last; at++) {
        if (b->source.ptr[at] == ']' && b->source.ptr[at - 1] != '\\') {
            return at;
        }
    }
    return 0;
}

typedef enum macro_kind { TEXT, ASIDE, DROPPED, TARGET_TOO } macro_kind;

/* "name:target[text]" at `at`; gives what is behind it, `at` where it is none. */
static size_t take_macro(lore_builder *b, size_t at, size_t to)
{
    static const struct {
        const char *name;
        macro_kind kind;
    } macros[] = {{"https://", TEXT},      {"http://", TEXT},       {"link:", TEXT},
                  {"xref:", TEXT},         {"mailto:", TEXT},       {"image:", TEXT},
                  {"kbd:", TEXT},          {"btn:", TEXT},          {"menu:", TARGET_TOO},
                  {"footnote:", ASIDE},    {"footnoteref:", ASIDE}, {"anchor:", DROPPED},
                  {"indexterm:", DROPPED}, {"indexterm2:", TEXT},   {"stem:", TEXT},
                  {"latexmath:", TEXT},    {"pass:", TEXT},         {"icon:", DROPPED}};
    lore_str rest = lore_str_slice(b->source, at, to);
    for (size_t i = 0; i < sizeof macros / sizeof macros[0]; i++) {
        lore_str name = lore_str_from(macros[i].name);
        if (!lore_str_starts(rest, name)) {
            continue;
        }
        size_t open = at + name.len;
        while (open < to && open - at < MACRO_MAX && b->source.ptr[open] != '[' &&
               !is_blank(b->source.ptr[open])) {
            open++;
        }
        size_t close = open < to && b->source.ptr[open] == '[' ? close_of(b, open, to) : 0;
        if (close == 0) {
            return at;
        }
        size_t start = open + 1, end = close;
        if (macros[i].kind == DROPPED) {
            return close + 1;
        }
        if (start == end || macros[i].kind == TARGET_TOO) {
            put(b, macros[i].name[0] == 'h' ? at : at + name.len, open);
            if (start < end) {
                lore_builder_made(b, LORE_STR(" > "), open);
            }
        }
        if (macros[i].kind == ASIDE) {
            lore_builder_made(b, LORE_STR(" ("), open);
        }
        size_t caret = start < end && b->source.ptr[end - 1] == '^' ? end - 1 : end;
        put(b, start, caret);
        if (macros[i].kind == ASIDE) {
            lore_builder_made(b, LORE_STR(")"), close);
        }
        return close + 1;
    }
    return at;
}

/* "<<id,text>>", "((term))", "(((term)))", "[[anchor]]". */
static size_t take_pair(lore_builder *b, size_t at, size_t to)
{
    static const char *const pairs[][2] = {
        {"<<", ">>"}, {"(((", ")))"}, {"((", "))"}, {"[[", "]]"}};
    lore_str rest = lore_str_slice(b->source, at, to - at > MACRO_MAX ? at + MACRO_MAX : to);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        size_t width = strlen(pairs[i][0]);
        if (!lore_str_starts(rest, lore_str_from(pairs[i][0]))) {
            continue;
        }
        size_t close = lore_str_find(rest, lore_str_from(pairs[i][1]), width);
        if (close == SIZE_MAX) {
            return at;
        }
        size_t start = width;
        const char *comma = memchr(rest.ptr + start, ',', close - start);
        if (i == 0 && comma != NULL) {
            start = (size_t)(comma - rest.ptr) + 1;
            start += start < close && rest.ptr[start] == ' ' ? 1 : 0;
        }
        if (i == 0 || i == 2) {
            put(b, at + start, at + close);
        }
        return at + close + width;
    }
    return at;
}

/* ---- signs ---- */

/* "*strong*", "__em__", "`code`", "#mark#", "+plain+": the signs at `at` if they have a partner.
 * *inner is what they enclose. */
static size_t sign_width(const lore_builder *b, size_t at, size_t from, size_t to, size_t *close)
{
    const char *s = b->source.ptr;
    size_t width = at + 1 < to && s[at + 1] == s[at] ? 2 : 1;
    bool is_open = at + width < to && !is_blank(s[at + width]) &&
                   (width == 2 || at == from || !is_word(s[at - 1]) || s[at - 1] < 0);
    size_t last = to - at > MACRO_MAX ? at + MACRO_MAX : to;
    for (size_t i = at + width + 1; is_open && i + width <= last; i++) {
        bool is_close = s[i] == s[at] && (width == 1 || s[i + 1] == s[at]) && !is_blank(s[i - 1]);
        bool is_free = width == 2 || i + 1 == to || !is_word(s[i + 1]) || s[i + 1] < 0;
        if (is_close && is_free) {
            *close = i;
            return width;
        }
    }
    return 0;
}

void lore_adoc_inline(lore_builder *b, const lore_adoc_attributes *attributes, size_t from,
                      size_t to)
{
    enum { OPEN_MAX = 16 };
    size_t closes[OPEN_MAX], widths[OPEN_MAX], plain = from;
    int32_t open = 0;
    for (size_t at = from; at < to && !b->is_full;) {
        char c = b->source.ptr[at];
        size_t behind = at, close = 0, width = 0;
        if (open > 0 && at == closes[open - 1]) {
            put(b, plain, at);
            at += widths[--open];
            plain = at;
            continue;
        }
        bool may_be_macro = is_word(c) && (at == from || !is_word(b->source.ptr[at - 1]));
        bool is_sign = c > 0 && strchr("*_`#+", c) != NULL;
        bool is_other = c > 0 && strchr("{<([", c) != NULL;
        if (!may_be_macro && !is_sign && !is_other) {
            at++;
            continue;
        }
        size_t limit = open > 0 ? closes[open - 1] : to;
        put(b, plain, at);
        plain = at;
        if (is_sign && open < OPEN_MAX) {
            width = sign_width(b, at, from, limit, &close);
        } else if (c == '{') {
            behind = take_attribute(b, attributes, at, limit);
        } else if (may_be_macro) {
            behind = take_macro(b, at, limit);
        } else {
            behind = take_pair(b, at, limit);
        }
        if (width > 0) {
            closes[open] = close;
            widths[open++] = width;
            behind = at + width;
        }
        plain = behind;
        at = behind > at ? behind : at + 1;
    }
    put(b, plain < to ? plain : to, to);
}
