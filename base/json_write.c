/* Writing JSON straight into a buffer: the writer only keeps the open containers and whether each
 * already has an item. */
#include "base/json.h"
#include "base/json_int.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Integers up to here are exact in a double. */
#define EXACT_INTEGER_MAX 9007199254740992.0

static void append_escaped_byte(lore_buf *buf, unsigned char byte)
{
    switch (byte) {
    case '"':
        lore_buf_append(buf, LORE_STR("\\\""));
        break;
    case '\\':
        lore_buf_append(buf, LORE_STR("\\\\"));
        break;
    case '\n':
        lore_buf_append(buf, LORE_STR("\\n"));
        break;
    case '\r':
        lore_buf_append(buf, LORE_STR("\\r"));
        break;
    case '\t':
        lore_buf_append(buf, LORE_STR("\\t"));
        break;
    default:
        lore_buf_printf(buf, "\\u%04x", byte);
    }
}

/* Append plain text of which nothing needs an escape; bytes that are not UTF-8 become U+FFFD. */
static void append_plain(lore_buf *buf, lore_str text)
{
    for (;;) {
        size_t valid = lore_utf8_valid(text);
        lore_buf_append(buf, lore_str_slice(text, 0, valid));
        if (valid == text.len) {
            return;
        }
        lore_buf_append(buf, LORE_STR("\xEF\xBF\xBD"));
        text = lore_str_slice(text, valid + 1, text.len);
    }
}

void lore_json_append_string(lore_buf *buf, lore_str value)
{
    lore_buf_byte(buf, '"');
    size_t start = 0;
    for (size_t i = 0; i < value.len; i++) {
        unsigned char byte = (unsigned char)value.ptr[i];
        if (byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7F) {
            continue;
        }
        append_plain(buf, lore_str_slice(value, start, i));
        append_escaped_byte(buf, byte);
        start = i + 1;
    }
    append_plain(buf, lore_str_slice(value, start, value.len));
    lore_buf_byte(buf, '"');
}

void lore_json_append_number(lore_buf *buf, double value, bool is_float)
{
    if (!isfinite(value)) {
        lore_buf_append(buf, LORE_STR("null"));
        return;
    }
    if (!is_float && value == trunc(value) && fabs(value) <= EXACT_INTEGER_MAX) {
        lore_buf_printf(buf, "%" PRId64, (int64_t)value);
        return;
    }
    /* The digits a type surely keeps, then as many more as it takes. %g drops trailing zeros. */
    char text[40];
    int digits = is_float ? 6 : 15;
    int digits_max = is_float ? 9 : 17;
    for (; digits <= digits_max; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (is_float ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value) {
            break;
        }
    }
    lore_buf_append(buf, lore_str_from(text));
}

void lore_json_write_begin(lore_json_writer *w, lore_buf *buf)
{
    *w = (lore_json_writer){.buf = buf};
}

/* What stands before an item: a comma if it is not the first, and the key in an object. */
static void begin_item(lore_json_writer *w, const char *key)
{
    if (w->depth == 0) {
        LORE_ASSERT(key == NULL);
        return;
    }
    bool is_member = w->closers[w->depth - 1] == '}';
    LORE_ASSERT(is_member == (key != NULL));
    if (w->has_items[w->depth - 1]) {
        lore_buf_byte(w->buf, ',');
    }
    w->has_items[w->depth - 1] = true;
    if (is_member) {
        lore_json_append_string(w->buf, lore_str_from(key));
        lore_buf_byte(w->buf, ':');
    }
}

static void open_container(lore_json_writer *w, const char *key, char opener, char closer)
{
    LORE_ASSERT(w->depth < LORE_JSON_WRITER_DEPTH_MAX);
    begin_item(w, key);
    lore_buf_byte(w->buf, opener);
    w->closers[w->depth] = closer;
    w->has_items[w->depth] = false;
    w->depth++;
}

void lore_json_object(lore_json_writer *w, const char *key)
{
    open_container(w, key, '{', '}');
}

void lore_json_array(lore_json_writer *w, const char *key)
{
    open_container(w, key, '[', ']');
}

void lore_json_end(lore_json_writer *w)
{
    LORE_ASSERT(w->depth > 0);
    w->depth--;
    lore_buf_byte(w->buf, w->closers[w->depth]);
}

void lore_json_string(lore_json_writer *w, const char *key, lore_str value)
{
    begin_item(w, key);
    lore_json_append_string(w->buf, value);
}

void lore_json_int(lore_json_writer *w, const char *key, int64_t value)
{
    begin_item(w, key);
    lore_buf_printf(w->buf, "%" PRId64, value);
}

void lore_json_float(lore_json_writer *w, const char *key, double value)
{
    begin_item(w, key);
    lore_json_append_number(w->buf, value, true);
}

void lore_json_double(lore_json_writer *w, const char *key, double value)
{
    begin_item(w, key);
    lore_json_append_number(w->buf, value, false);
}

void lore_json_boolean(lore_json_writer *w, const char *key, bool value)
{
    begin_item(w, key);
    lore_buf_append(w->buf, value ? LORE_STR("true") : LORE_STR("false"));
}

void lore_json_null(lore_json_writer *w, const char *key)
{
    begin_item(w, key);
    lore_buf_append(w->buf, LORE_STR("null"));
}

void lore_json_raw(lore_json_writer *w, const char *key, lore_str json)
{
    begin_item(w, key);
    lore_buf_append(w->buf, json);
}
