/* The strict check of JSON text (RFC 8259), before the library sees it.
 *
 * cJSON is a lenient reader: it takes "01" and "+1", control characters in strings, bytes that are
 * not UTF-8, and stops at \u0000. So the text is walked once here, without recursion, against the
 * grammar and the limits; what passes is read by the library in one way only. The stack holds the
 * closer of each open container. */
#include "base/json.h"
#include "base/json_int.h"
#include "base/utf8.h"

#include <string.h>

enum { NUMBER_BYTES_MAX = 63 }; /* what the library copies of a number */

typedef struct scan {
    lore_str text;
    size_t at;
    int32_t depth;
    int32_t max_depth;
    int32_t nodes;
    lore_error *err;
    char closers[LORE_JSON_DEPTH_MAX];
} scan;

static lore_status fail_at(const scan *s, const char *what)
{
    return lore_fail(s->err, LORE_ERR_INVALID, "invalid JSON at byte %zu: %s", s->at, what);
}

/* The byte at the position, NUL at the end. A NUL in the text is refused wherever it stands. */
static char peek(const scan *s)
{
    return s->at < s->text.len ? s->text.ptr[s->at] : '\0';
}

static void skip_space(scan *s)
{
    while (s->at < s->text.len && strchr(" \t\r\n", s->text.ptr[s->at]) != NULL &&
           s->text.ptr[s->at] != '\0') {
        s->at++;
    }
}

/* Four hexadecimal digits at the position; -1 when they are not. */
static int32_t scan_hex4(scan *s)
{
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        int32_t digit = lore_hex_digit(peek(s));
        if (digit < 0) {
            return -1;
        }
        value = value * 16 + digit;
        s->at++;
    }
    return value;
}

/* Behind "\u". */
static lore_status scan_unicode_escape(scan *s)
{
    int32_t unit = scan_hex4(s);
    if (unit < 0) {
        return fail_at(s, "expected four hexadecimal digits");
    }
    if (unit == 0) {
        return fail_at(s, "\\u0000 is not allowed in a string");
    }
    if (unit >= 0xDC00 && unit <= 0xDFFF) {
        return fail_at(s, "a low surrogate without its high surrogate");
    }
    if (unit >= 0xD800 && unit <= 0xDBFF) {
        bool has_escape =
            peek(s) == '\\' && s->at + 1 < s->text.len && s->text.ptr[s->at + 1] == 'u';
        if (has_escape) {
            s->at += 2;
            unit = scan_hex4(s);
        }
        if (!has_escape || unit < 0xDC00 || unit > 0xDFFF) {
            return fail_at(s, "a high surrogate without its low surrogate");
        }
    }
    return LORE_OK;
}

static lore_status scan_escape(scan *s)
{
    s->at++;
    char c = peek(s);
    if (c == 'u') {
        s->at++;
        return scan_unicode_escape(s);
    }
    if (c == '\0' || strchr("\"\\/bfnrt", c) == NULL) {
        return fail_at(s, "unknown escape in a string");
    }
    s->at++;
    return LORE_OK;
}

static lore_status scan_string(scan *s)
{
    if (peek(s) != '"') {
        return fail_at(s, "expected a string");
    }
    s->at++;
    while (s->at < s->text.len) {
        unsigned char c = (unsigned char)s->text.ptr[s->at];
        if (c == '"') {
            s->at++;
            return LORE_OK;
        }
        if (c < 0x20) {
            return fail_at(s, "control character in a string");
        }
        if (c != '\\') {
            s->at++;
            continue;
        }
        lore_status status = scan_escape(s);
        if (status != LORE_OK) {
            return status;
        }
    }
    return fail_at(s, "the string does not end");
}

static bool scan_digits(scan *s)
{
    size_t start = s->at;
    while (peek(s) >= '0' && peek(s) <= '9') {
        s->at++;
    }
    return s->at > start;
}

static lore_status scan_number(scan *s)
{
    size_t start = s->at;
    if (peek(s) == '-') {
        s->at++;
    }
    if (peek(s) == '0') {
        s->at++; /* a digit behind it is then an unexpected character, as the grammar wants */
    } else if (!scan_digits(s)) {
        return fail_at(s, "expected a value");
    }
    if (peek(s) == '.') {
        s->at++;
        if (!scan_digits(s)) {
            return fail_at(s, "expected a digit");
        }
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-') {
            s->at++;
        }
        if (!scan_digits(s)) {
            return fail_at(s, "expected a digit");
        }
    }
    if (s->at - start > NUMBER_BYTES_MAX) {
        return fail_at(s, "the number has more than 63 characters");
    }
    return LORE_OK;
}

static lore_status scan_literal(scan *s, lore_str literal)
{
    if (!lore_str_starts(lore_str_slice(s->text, s->at, s->text.len), literal)) {
        return fail_at(s, "expected a value");
    }
    s->at += literal.len;
    return LORE_OK;
}

/* "key" : */
static lore_status scan_key(scan *s)
{
    skip_space(s);
    lore_status status = scan_string(s);
    if (status != LORE_OK) {
        return status;
    }
    skip_space(s);
    if (peek(s) != ':') {
        return fail_at(s, "expected ':'");
    }
    s->at++;
    return LORE_OK;
}

static lore_status open_container(scan *s, char closer)
{
    if (s->depth == s->max_depth) {
        return lore_fail(s->err, LORE_ERR_LIMIT, "JSON at byte %zu is nested deeper than %d levels",
                         s->at, (int)s->max_depth);
    }
    s->closers[s->depth++] = closer;
    s->at++;
    return LORE_OK;
}

/* Start a value: a scalar is walked whole (`is_whole`), of a container only the opening, and in an
 * object the first key. */
static lore_status scan_value(scan *s, bool *is_whole)
{
    skip_space(s);
    *is_whole = true;
    if (++s->nodes > LORE_JSON_NODES_MAX) {
        return lore_fail(s->err, LORE_ERR_LIMIT, "JSON at byte %zu has more than %d values", s->at,
                         LORE_JSON_NODES_MAX);
    }
    char c = peek(s);
    switch (c) {
    case '"':
        return scan_string(s);
    case 't':
        return scan_literal(s, LORE_STR("true"));
    case 'f':
        return scan_literal(s, LORE_STR("false"));
    case 'n':
        return scan_literal(s, LORE_STR("null"));
    case '{':
    case '[':
        break;
    default:
        return scan_number(s);
    }
    char closer = c == '{' ? '}' : ']';
    lore_status status = open_container(s, closer);
    if (status != LORE_OK) {
        return status;
    }
    skip_space(s);
    if (peek(s) == closer) {
        s->at++;
        s->depth--;
        return LORE_OK;
    }
    *is_whole = false;
    return closer == '}' ? scan_key(s) : LORE_OK;
}

/* Behind a whole value: close containers until a comma asks for another value or the root is done.
 */
static lore_status scan_after_value(scan *s)
{
    while (s->depth > 0) {
        skip_space(s);
        char closer = s->closers[s->depth - 1];
        char c = peek(s);
        if (c == ',') {
            s->at++;
            return closer == '}' ? scan_key(s) : LORE_OK;
        }
        if (c != closer) {
            return fail_at(s, closer == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
        }
        s->at++;
        s->depth--;
    }
    return LORE_OK;
}

lore_status lore_json_scan(lore_str text, int32_t max_depth, lore_error *err)
{
    LORE_ASSERT(max_depth > 0);
    LORE_ASSERT(max_depth <= LORE_JSON_DEPTH_MAX);
    scan s;
    s.text = text;
    s.at = lore_utf8_valid(text);
    s.depth = 0;
    s.max_depth = max_depth;
    s.nodes = 0;
    s.err = err;
    if (s.at < text.len) {
        return fail_at(&s, "not valid UTF-8");
    }
    s.at = 0;
    do {
        bool is_whole = false;
        lore_status status = scan_value(&s, &is_whole);
        if (status == LORE_OK && is_whole) {
            status = scan_after_value(&s);
        }
        if (status != LORE_OK) {
            return status;
        }
    } while (s.depth > 0);
    skip_space(&s);
    return s.at == text.len ? LORE_OK : fail_at(&s, "unexpected text behind the value");
}
