/* A message to its parts: RFC 5322 headers, RFC 2045-2047 bodies and words, RFC 2231 names.
 *
 * The body is the first text that is no attachment; of alternatives the plain one, unless it is
 * empty. What else can be read is a part of its own, attached or not. A message that ends too early
 * keeps what there is of it. */
#include "ingest/container_int.h"

#include "base/utf8.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { PARTS_MAX = 256, LEVELS_MAX = 16, HEADER_BYTES_MAX = 4096 };

typedef struct parser {
    lore_arena *arena;
    lore_mail *mail;
    int32_t body; /* index of the body, -1: not found yet */
    lore_status failure;
} parser;

/* ---- headers ---- */

/* The header block ends at the first empty line; gives where the body begins. */
static size_t header_end(lore_str bytes)
{
    lore_str rest = bytes, line;
    while (lore_str_next_line(&rest, &line)) {
        if (line.len == 0) {
            break;
        }
    }
    return bytes.len - rest.len;
}

/* The value of a field with its folds, a slice; "" where it is missing. */
static lore_str find_header(lore_str headers, const char *name)
{
    lore_str rest = headers, line, wanted = lore_str_from(name);
    while (lore_str_next_line(&rest, &line) && line.len > 0) {
        bool is_it = line.len > wanted.len && line.ptr[wanted.len] == ':' &&
                     lore_str_equal_nocase(lore_str_slice(line, 0, wanted.len), wanted);
        if (!is_it) {
            continue;
        }
        const char *start = line.ptr + wanted.len + 1, *end = line.ptr + line.len;
        while (rest.len > 0 && (rest.ptr[0] == ' ' || rest.ptr[0] == '\t') &&
               lore_str_next_line(&rest, &line) &&
               (size_t)(line.ptr + line.len - start) < HEADER_BYTES_MAX) {
            end = line.ptr + line.len;
        }
        size_t length = (size_t)(end - start); /* more than any field needs is not looked at */
        return lore_str_trim(
            (lore_str){start, length < HEADER_BYTES_MAX ? length : HEADER_BYTES_MAX});
    }
    return (lore_str){"", 0};
}

/* "boundary" of `multipart/mixed; boundary="abc"`. */
static lore_str find_parameter(lore_str value, const char *name)
{
    lore_str wanted = lore_str_from(name);
    for (size_t at = lore_str_find(value, LORE_STR(";"), 0); at != SIZE_MAX && at < value.len;) {
        lore_str rest = lore_str_trim(lore_str_slice(value, at + 1, value.len));
        size_t begin = (size_t)(rest.ptr - value.ptr);
        bool is_it = rest.len > wanted.len && rest.ptr[wanted.len] == '=' &&
                     lore_str_equal_nocase(lore_str_slice(rest, 0, wanted.len), wanted);
        const char *equals = rest.len > 0 ? memchr(rest.ptr, '=', rest.len) : NULL;
        size_t from = equals == NULL ? value.len : begin + (size_t)(equals - rest.ptr) + 1;
        bool is_quoted = from < value.len && value.ptr[from] == '"';
        size_t end = lore_str_find(value, is_quoted ? LORE_STR("\"") : LORE_STR(";"),
                                   is_quoted ? from + 1 : from);
        end = end == SIZE_MAX ? value.len : end;
        if (is_it) {
            return lore_str_trim(lore_str_slice(value, from + (is_quoted ? 1 : 0), end));
        }
        at = lore_str_find(value, LORE_STR(";"), end);
    }
    return (lore_str){"", 0};
}

/* ---- transfer encodings ---- */

static int32_t base64_digit(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+' || c == '-' ? 62
           : c == '/' || c == '_' ? 63
                                  : -1;
}

/* Whatever is no digit is passed over, as mail wants it. Never longer than s. */
static size_t decode_base64(lore_str s, char *out)
{
    size_t used = 0;
    uint32_t bits = 0;
    int32_t count = 0;
    for (size_t i = 0; i < s.len && s.ptr[i] != '='; i++) {
        int32_t digit = base64_digit(s.ptr[i]);
        if (digit < 0) {
            continue;
        }
        bits = bits << 6 | (uint32_t)digit;
        if (++count % 4 != 1) {
            int32_t left = 6 - 2 * ((count - 1) % 4);
            out[used++] = (char)(bits >> left & 0xFF);
        }
    }
    return used;
}

/* is_word: of a header, where '_' is a blank. */
static size_t decode_quoted(lore_str s, bool is_word, char *out)
{
    size_t used = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] != '=') {
            out[used++] = is_word && s.ptr[i] == '_' ? ' ' : s.ptr[i];
            continue;
        }
        int32_t high = i + 2 < s.len ? lore_hex_digit(s.ptr[i + 1]) : -1;
        int32_t low = high >= 0 ? lore_hex_digit(s.ptr[i + 2]) : -1;
        if (low >= 0) {
            out[used++] = (char)(high * 16 + low);
            i += 2;
        } else if (i + 1 < s.len && s.ptr[i + 1] == '\n') {
            i += 1; /* a soft line break */
        } else if (i + 2 < s.len && s.ptr[i + 1] == '\r' && s.ptr[i + 2] == '\n') {
            i += 2;
        } else if (i + 1 < s.len) {
            out[used++] = '=';
        }
    }
    return used;
}

/* Bytes that are not UTF-8 become '?'. In the arena. */
static lore_str force_utf8(lore_str bytes, lore_arena *arena)
{
    lore_str copy = lore_str_copy(arena, bytes);
    for (size_t at = 0; copy.ptr != NULL && at < copy.len; at++) {
        at += lore_utf8_valid(lore_str_slice(copy, at, copy.len));
        if (at < copy.len) {
            ((char *)copy.ptr)[at] = '?'; /* ours, just made */
        }
    }
    return copy;
}

/* One "=?charset?Q?text?=" at the start of s; gives its length, 0 if there is none. */
static size_t decode_word(lore_str s, lore_arena *arena, lore_str *text)
{
    size_t charset = 2, end = lore_str_find(s, LORE_STR("?"), charset);
    if (!lore_str_starts(s, LORE_STR("=?")) || end == SIZE_MAX || end + 3 > s.len ||
        s.ptr[end + 2] != '?') {
        return 0;
    }
    size_t close = lore_str_find(s, LORE_STR("?="), end + 3);
    char *out = close == SIZE_MAX ? NULL : lore_arena_push(arena, close - end);
    if (out == NULL) {
        return 0;
    }
    lore_str inner = lore_str_slice(s, end + 3, close);
    bool is_base64 = (s.ptr[end + 1] | 32) == 'b';
    lore_str bytes = {out, is_base64 ? decode_base64(inner, out) : decode_quoted(inner, true, out)};
    lore_str name = lore_str_slice(s, charset, end);
    size_t language = lore_str_find(name, LORE_STR("*"), 0); /* RFC 2231 */
    name.len = language == SIZE_MAX ? name.len : language;
    if (lore_decode_as(name, bytes, arena, text) != LORE_OK) {
        *text = force_utf8(bytes, arena);
    }
    return text->ptr == NULL ? 0 : close + 2;
}

/* A header value as one line of UTF-8, in the arena. */
static lore_str decode_header(parser *p, lore_str value)
{
    lore_buf out;
    lore_buf_init(&out, 0);
    bool is_after_word = false;
    for (size_t at = 0; at < value.len;) {
        lore_str word, rest = lore_str_slice(value, at, value.len);
        size_t length = value.ptr[at] == '=' ? decode_word(rest, p->arena, &word) : 0;
        if (length > 0) {
            /* Blanks between two words are only there for the line length. */
            while (is_after_word && out.len > 0 && out.ptr[out.len - 1] == ' ') {
                out.len--;
            }
            lore_buf_append(&out, word);
            is_after_word = true;
            at += length;
            continue;
        }
        unsigned char c = (unsigned char)value.ptr[at++];
        is_after_word = is_after_word && c <= ' ';
        lore_buf_byte(&out, c < ' ' ? ' ' : (char)c);
    }
    lore_str result = force_utf8(lore_str_trim(lore_buf_str(&out)), p->arena);
    if (lore_buf_failed(&out) || result.ptr == NULL) {
        p->failure = LORE_ERR_NOMEM;
        result = (lore_str){"", 0};
    }
    lore_buf_destroy(&out);
    return result;
}

/* "Tue, 1 Jul 2003 10:52:37 +0200" reads "2003-07-01T10:52:37+0200"; else as it stands. */
static lore_str read_date(parser *p, lore_str value)
{
    struct tm date = {0};
    char text[64];
    const char *comma = value.len > 0 ? memchr(value.ptr, ',', value.len) : NULL;
    size_t from = comma == NULL ? 0 : (size_t)(comma - value.ptr) + 1;
    const char *c = lore_str_to_c(p->arena, lore_str_trim(lore_str_slice(value, from, value.len)));
    if (c == NULL || strptime(c, "%d %b %Y %H:%M:%S %z", &date) == NULL) {
        return decode_header(p, value);
    }
    long minutes = date.tm_gmtoff / 60, size = minutes < 0 ? -minutes : minutes;
    size_t used = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &date);
    snprintf(text + used, sizeof text - used, "%c%02ld:%02ld", minutes < 0 ? '-' : '+', size / 60,
             size % 60);
    lore_str copy = lore_str_copy(p->arena, lore_str_from(text));
    p->failure = copy.ptr == NULL ? LORE_ERR_NOMEM : p->failure;
    return copy.ptr == NULL ? (lore_str){"", 0} : copy;
}

/* ---- bodies ---- */

static bool is_type(lore_str type, const char *prefix)
{
    lore_str wanted = lore_str_from(prefix);
    return type.len >= wanted.len &&
           lore_str_equal_nocase(lore_str_slice(type, 0, wanted.len), wanted);
}

static lore_str part_name(parser *p, lore_str type, lore_str disposition)
{
    lore_str name = find_parameter(disposition, "filename");
    name = name.len > 0 ? name : find_parameter(type, "name");
    if (name.len > 0) {
        return decode_header(p, name);
    }
    lore_str extended = find_parameter(disposition, "filename*");
    size_t quote = lore_str_find(extended, LORE_STR("''"), 0);
    if (quote == SIZE_MAX) {
        return (lore_str){"", 0};
    }
    lore_str resolved = lore_package_resolve(
        (lore_str){"", 0}, lore_str_slice(extended, quote + 2, extended.len), p->arena);
    lore_str text = resolved.ptr == NULL ? resolved : force_utf8(resolved, p->arena);
    p->failure = text.ptr == NULL ? LORE_ERR_NOMEM : p->failure;
    return text.ptr == NULL ? (lore_str){"", 0} : text;
}

static void add_leaf(parser *p, lore_str headers, lore_str type, lore_str body, bool is_top)
{
    lore_mail *mail = p->mail;
    if (mail->part_count == PARTS_MAX) {
        p->failure = LORE_ERR_LIMIT;
        return;
    }
    lore_str encoding = find_header(headers, "Content-Transfer-Encoding");
    lore_str disposition = find_header(headers, "Content-Disposition");
    lore_mail_part *part = &mail->parts[mail->part_count++];
    bool is_attached = is_type(disposition, "attachment");
    part->name = part_name(p, type, disposition);
    part->charset = find_parameter(type, "charset");
    part->encoded = body;
    part->encoding = is_type(encoding, "base64") ? 'b' : is_type(encoding, "quoted") ? 'q' : 0;
    part->media = is_type(type, "message/rfc822")                       ? LORE_MEDIA_MAIL
                  : part->name.len > 0                                  ? LORE_MEDIA_AUTO
                  : is_type(type, "text/html")                          ? LORE_MEDIA_HTML
                  : is_type(type, "text/") || (type.len == 0 && is_top) ? LORE_MEDIA_TEXT
                                                                        : LORE_MEDIA_AUTO;
    bool is_text = part->media == LORE_MEDIA_TEXT || part->media == LORE_MEDIA_HTML;
    part->is_attachment = is_attached || !is_text || p->body >= 0;
    if (!part->is_attachment) {
        p->body = mail->part_count - 1;
    }
}

static void walk_entity(parser *p, lore_str entity, int32_t level);

/* Of alternatives only one is told: the first text that says anything, else the last. */
static void choose_alternative(parser *p, int32_t first)
{
    lore_mail *mail = p->mail;
    int32_t chosen = -1;
    for (int32_t i = first; i < mail->part_count && chosen < 0; i++) {
        bool is_text = mail->parts[i].media == LORE_MEDIA_TEXT;
        chosen = is_text && lore_str_trim(mail->parts[i].encoded).len > 0 ? i : chosen;
    }
    for (int32_t i = first; i < mail->part_count && chosen < 0; i++) {
        chosen = mail->parts[i].media == LORE_MEDIA_HTML ? i : chosen;
    }
    if (chosen < 0) {
        return;
    }
    lore_mail_part kept = mail->parts[chosen];
    int32_t count = first;
    for (int32_t i = first; i < mail->part_count; i++) {
        lore_media media = mail->parts[i].media;
        if (i != chosen && media != LORE_MEDIA_TEXT && media != LORE_MEDIA_HTML) {
            mail->parts[count++] = mail->parts[i];
        }
    }
    bool is_body = p->body < 0 || p->body >= first;
    kept.is_attachment = !is_body;
    p->body = is_body ? count : p->body;
    mail->parts[count++] = kept;
    mail->part_count = count;
}

static void walk_multipart(parser *p, lore_str type, lore_str body, int32_t level)
{
    lore_str boundary = find_parameter(type, "boundary"), rest = body, line;
    int32_t first = p->mail->part_count;
    const char *start = NULL;
    bool is_closed = false;
    while (!is_closed && p->failure == LORE_OK && lore_str_next_line(&rest, &line)) {
        bool is_edge = boundary.len > 0 && line.len >= boundary.len + 2 && line.ptr[0] == '-' &&
                       line.ptr[1] == '-' && memcmp(line.ptr + 2, boundary.ptr, boundary.len) == 0;
        if (!is_edge) {
            continue;
        }
        if (start != NULL) {
            walk_entity(p, (lore_str){start, (size_t)(line.ptr - start)}, level + 1);
        }
        start = rest.ptr;
        is_closed =
            lore_str_starts(lore_str_slice(line, boundary.len + 2, line.len), LORE_STR("--"));
    }
    if (!is_closed && start != NULL && p->failure == LORE_OK) {
        walk_entity(p, (lore_str){start, (size_t)(body.ptr + body.len - start)}, level + 1);
    }
    if (is_type(type, "multipart/alternative")) {
        choose_alternative(p, first);
    }
}

static void walk_entity(parser *p, lore_str entity, int32_t level)
{
    size_t end = header_end(entity);
    lore_str headers = lore_str_slice(entity, 0, end);
    lore_str body = lore_str_slice(entity, end, entity.len);
    lore_str type = find_header(headers, "Content-Type");
    if (level > LEVELS_MAX) {
        p->failure = LORE_ERR_LIMIT;
    } else if (is_type(type, "multipart/")) {
        walk_multipart(p, type, body, level);
    } else {
        add_leaf(p, headers, type, body, true);
    }
}

lore_status lore_mail_parse(lore_str bytes, lore_arena *arena, lore_mail *mail, lore_error *err)
{
    const lore_str none = {"", 0};
    parser p = {.arena = arena, .mail = mail, .body = -1};
    lore_str first = {"", 0}, rest = bytes;
    if (lore_str_starts(bytes, LORE_STR("From ")) && lore_str_next_line(&rest, &first)) {
        bytes = rest; /* saved with the line that separates messages of a mailbox */
    }
    lore_str headers = lore_str_slice(bytes, 0, header_end(bytes));
    rest = headers;
    (void)lore_str_next_line(&rest, &first);
    *mail = (lore_mail){none, none, none, none, LORE_PUSH(arena, lore_mail_part, PARTS_MAX), 0};
    if (mail->parts == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a message");
    }
    if (first.len == 0 || memchr(first.ptr, ':', first.len) == NULL) {
        return lore_fail(err, LORE_ERR_INVALID, "is no message: it does not begin with headers");
    }
    mail->subject = decode_header(&p, find_header(headers, "Subject"));
    mail->from = decode_header(&p, find_header(headers, "From"));
    mail->to = decode_header(&p, find_header(headers, "To"));
    mail->date = read_date(&p, find_header(headers, "Date"));
    walk_entity(&p, bytes, 0);
    if (p.failure == LORE_ERR_LIMIT) {
        return lore_fail(err, LORE_ERR_LIMIT, "the message has more than %d parts or %d levels",
                         PARTS_MAX, LEVELS_MAX);
    }
    if (p.failure != LORE_OK) {
        return lore_fail(err, p.failure, "out of memory for a message");
    }
    if (p.body > 0) {
        lore_mail_part body = mail->parts[p.body];
        memmove(mail->parts + 1, mail->parts, (size_t)p.body * sizeof body);
        mail->parts[0] = body;
    }
    return LORE_OK;
}

lore_status lore_mail_decode(const lore_mail_part *part, lore_arena *arena, lore_str *bytes,
                             lore_error *err)
{
    *bytes = part->encoded;
    if (part->encoding != 0) {
        char *out = lore_arena_push(arena, part->encoded.len + 1);
        if (out == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a part of a message");
        }
        *bytes = (lore_str){out, part->encoding == 'b' ? decode_base64(part->encoded, out)
                                                       : decode_quoted(part->encoded, false, out)};
    }
    bool is_text = part->media == LORE_MEDIA_TEXT || part->media == LORE_MEDIA_HTML;
    lore_str text = {"", 0};
    if (is_text && part->charset.len > 0 && bytes->len > 0 &&
        lore_decode_as(part->charset, *bytes, arena, &text) == LORE_OK) {
        *bytes = text;
    }
    return LORE_OK;
}
