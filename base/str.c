/* Byte strings and the growing buffer.
 *
 * A lore_buf always keeps one byte more than its length allocated, so that lore_buf_c can end it
 * with a NUL without failing. Growth doubles; the hard cap bounds len, not the allocation. */
#include "base/str.h"

#include <stdio.h>
#include <string.h>

static char lower_ascii(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static bool is_space_ascii(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

lore_str lore_str_from(const char *text)
{
    return text == NULL ? (lore_str){"", 0} : (lore_str){text, strlen(text)};
}

bool lore_str_equal(lore_str a, lore_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool lore_str_equal_nocase(lore_str a, lore_str b)
{
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        if (lower_ascii(a.ptr[i]) != lower_ascii(b.ptr[i])) {
            return false;
        }
    }
    return true;
}

bool lore_str_starts(lore_str s, lore_str prefix)
{
    return s.len >= prefix.len && lore_str_equal((lore_str){s.ptr, prefix.len}, prefix);
}

bool lore_str_ends(lore_str s, lore_str suffix)
{
    return s.len >= suffix.len &&
           lore_str_equal(lore_str_slice(s, s.len - suffix.len, s.len), suffix);
}

int lore_str_compare(lore_str a, lore_str b)
{
    size_t shared = a.len < b.len ? a.len : b.len;
    int order = shared == 0 ? 0 : memcmp(a.ptr, b.ptr, shared);
    if (order != 0) {
        return order;
    }
    return a.len < b.len ? -1 : a.len > b.len;
}

size_t lore_str_find(lore_str s, lore_str needle, size_t from)
{
    if (from > s.len) {
        return SIZE_MAX;
    }
    if (needle.len == 0) {
        return from;
    }
    if (s.len - from < needle.len) {
        return SIZE_MAX;
    }
    const char *found = memmem(s.ptr + from, s.len - from, needle.ptr, needle.len);
    return found == NULL ? SIZE_MAX : (size_t)(found - s.ptr);
}

lore_str lore_str_slice(lore_str s, size_t start, size_t end)
{
    LORE_ASSERT(start <= end);
    LORE_ASSERT(end <= s.len);
    return (lore_str){s.ptr == NULL ? NULL : s.ptr + start, end - start};
}

lore_str lore_str_trim(lore_str s)
{
    size_t start = 0;
    size_t end = s.len;
    while (start < end && is_space_ascii(s.ptr[start])) {
        start++;
    }
    while (end > start && is_space_ascii(s.ptr[end - 1])) {
        end--;
    }
    return lore_str_slice(s, start, end);
}

bool lore_str_next_line(lore_str *rest, lore_str *line)
{
    if (rest->len == 0) {
        return false;
    }
    const char *newline = memchr(rest->ptr, '\n', rest->len);
    size_t end = newline == NULL ? rest->len : (size_t)(newline - rest->ptr);
    size_t next = newline == NULL ? end : end + 1;
    if (newline != NULL && end > 0 && rest->ptr[end - 1] == '\r') {
        end--;
    }
    *line = lore_str_slice(*rest, 0, end);
    *rest = lore_str_slice(*rest, next, rest->len);
    return true;
}

lore_str lore_str_copy(lore_arena *arena, lore_str s)
{
    char *copy = lore_str_to_c(arena, s);
    return (lore_str){copy, copy == NULL ? 0 : s.len};
}

char *lore_str_to_c(lore_arena *arena, lore_str s)
{
    size_t size = 0;
    char *copy = lore_size_add(s.len, 1, &size) ? lore_arena_push(arena, size) : NULL;
    if (copy == NULL) {
        return NULL;
    }
    if (s.len > 0) {
        memcpy(copy, s.ptr, s.len);
    }
    copy[s.len] = '\0';
    return copy;
}

lore_str lore_str_printf(lore_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = length < 0 ? NULL : lore_arena_push(arena, (size_t)length + 1);
    if (text == NULL) {
        return (lore_str){NULL, 0};
    }
    va_start(args, format);
    vsnprintf(text, (size_t)length + 1, format, args);
    va_end(args);
    return (lore_str){text, (size_t)length};
}

bool lore_str_to_int64(lore_str s, int64_t *value)
{
    bool is_negative = s.len > 0 && s.ptr[0] == '-';
    size_t at = is_negative ? 1 : 0;
    if (at == s.len) {
        return false;
    }
    int64_t result = 0;
    for (; at < s.len; at++) {
        int digit = s.ptr[at] - '0';
        if (digit < 0 || digit > 9) {
            return false;
        }
        /* Counting down from zero reaches INT64_MIN, which has no positive twin. */
        if (__builtin_mul_overflow(result, 10, &result) ||
            __builtin_sub_overflow(result, digit, &result)) {
            return false;
        }
    }
    if (!is_negative && result == INT64_MIN) {
        return false;
    }
    *value = is_negative ? result : -result;
    return true;
}

int32_t lore_hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static int32_t sextet(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

bool lore_str_from_base64(lore_str s, char *out, size_t *size)
{
    size_t padding = 0;
    while (padding < 2 && padding < s.len && s.ptr[s.len - 1 - padding] == '=') {
        padding++;
    }
    uint32_t bits = 0;
    *size = 0;
    for (size_t i = 0; i < s.len; i++) {
        int32_t value = i < s.len - padding ? sextet(s.ptr[i]) : 0;
        if (value < 0) {
            return false;
        }
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 == 3) {
            out[(*size)++] = (char)(bits >> 16);
            out[(*size)++] = (char)(bits >> 8);
            out[(*size)++] = (char)bits;
        }
    }
    *size -= padding <= *size ? padding : 0;
    return s.len % 4 == 0;
}

uint64_t lore_str_hash(lore_str s)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (size_t i = 0; i < s.len; i++) {
        hash = (hash ^ (unsigned char)s.ptr[i]) * 0x100000001B3u;
    }
    return hash;
}

/* ---- lore_buf ---- */

enum { BUF_FIRST = 64 };

void lore_buf_init(lore_buf *buf, size_t cap_bytes)
{
    *buf = (lore_buf){.cap_bytes = cap_bytes};
}

void lore_buf_destroy(lore_buf *buf)
{
    if (buf == NULL) {
        return;
    }
    lore_free(buf->ptr);
    *buf = (lore_buf){.cap_bytes = buf->cap_bytes};
}

void lore_buf_reset(lore_buf *buf)
{
    buf->len = 0;
    buf->failed = false;
}

bool lore_buf_reserve(lore_buf *buf, size_t extra_bytes)
{
    if (buf->failed) {
        return false;
    }
    size_t len = 0;
    size_t needed = 0;
    buf->failed = !lore_size_add(buf->len, extra_bytes, &len) || !lore_size_add(len, 1, &needed) ||
                  (buf->cap_bytes != 0 && len > buf->cap_bytes);
    if (buf->failed || needed <= buf->room) {
        return !buf->failed;
    }
    size_t room = buf->room < BUF_FIRST ? BUF_FIRST : buf->room;
    while (room < needed) {
        room = room > SIZE_MAX / 2 ? needed : room * 2;
    }
    if (buf->cap_bytes != 0 && room - 1 > buf->cap_bytes) {
        room = buf->cap_bytes + 1; /* at least needed, as len <= cap_bytes */
    }
    char *grown = lore_realloc(buf->ptr, room);
    if (grown == NULL) {
        buf->failed = true;
        return false;
    }
    buf->ptr = grown;
    buf->room = room;
    return true;
}

void lore_buf_append(lore_buf *buf, lore_str s)
{
    if (s.len == 0 || !lore_buf_reserve(buf, s.len)) {
        return;
    }
    memcpy(buf->ptr + buf->len, s.ptr, s.len);
    buf->len += s.len;
}

void lore_buf_byte(lore_buf *buf, char byte)
{
    lore_buf_append(buf, (lore_str){&byte, 1});
}

void lore_buf_printf(lore_buf *buf, const char *format, ...)
{
    if (!lore_buf_reserve(buf, 0)) {
        return;
    }
    va_list args;
    va_start(args, format);
    size_t room = buf->room - buf->len;
    int length = vsnprintf(buf->ptr + buf->len, room, format, args);
    va_end(args);
    if (length < 0) {
        buf->failed = true;
        return;
    }
    if (!lore_buf_reserve(buf, (size_t)length)) {
        return;
    }
    if ((size_t)length >= room) {
        va_start(args, format);
        vsnprintf(buf->ptr + buf->len, (size_t)length + 1, format, args);
        va_end(args);
    }
    buf->len += (size_t)length;
}

bool lore_buf_failed(const lore_buf *buf)
{
    return buf->failed;
}

lore_str lore_buf_str(const lore_buf *buf)
{
    return (lore_str){buf->ptr == NULL ? "" : buf->ptr, buf->len};
}

const char *lore_buf_c(lore_buf *buf)
{
    if (buf->failed || buf->ptr == NULL) {
        return "";
    }
    buf->ptr[buf->len] = '\0';
    return buf->ptr;
}
