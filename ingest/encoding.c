/* Bytes to UTF-8: the fence around uchardet and iconv.
 *
 * Order of belief: a byte order mark; valid UTF-8; UTF-16 without a mark, told by where its NULs
 * stand; nearly valid UTF-8 (a page with a few broken bytes: those become U+FFFD); what an HTML
 * page says of itself; Western text, where single high bytes stand among ASCII letters (statistics
 * cannot tell "cafe" in six code pages apart, windows-1252 is what such files are); and what
 * uchardet recognises. Every conversion is strict and its result must look like text, or the next
 * is tried. */
#include "ingest/ingest_int.h"

#include "base/utf8.h"

#include <errno.h>
#include <iconv.h>
#include <string.h>
#include <strings.h>
#include <uchardet/uchardet.h>

enum {
    DETECT_BYTES = 256 * 1024, /* uchardet is slow, and sure long before */
    DECLARATION_BYTES = 4096,  /* HTML asks for it in the first 1024; some pages are late */
    CHARSET_CAP = 64,
    CONTROLS_FREE = 8,    /* a few stray control characters happen ... */
    CONTROLS_PERCENT = 2, /* ... beyond this share the bytes are not text */
    BROKEN_PER_GOOD = 20  /* nearly UTF-8: one bad byte for so many good sequences */
};

static size_t count_byte(lore_str bytes, char byte)
{
    size_t count = 0;
    const char *end = bytes.ptr + bytes.len;
    for (const char *p = bytes.ptr; p < end; p++) {
        p = memchr(p, byte, (size_t)(end - p));
        if (p == NULL) {
            break;
        }
        count++;
    }
    return count;
}

bool lore_is_binary(lore_str text)
{
    size_t controls = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c == 0) {
            return true;
        }
        bool is_control = (c < 0x20 && c != '\t' && c != '\n' && c != '\r' && c != '\f') ||
                          c == 0x7F ||
                          (c == 0xC2 && i + 1 < text.len && (unsigned char)text.ptr[i + 1] < 0xA0);
        controls += is_control ? 1 : 0;
    }
    return controls > CONTROLS_FREE && controls * 100 > text.len * CONTROLS_PERCENT;
}

/* ---- conversion ---- */

/* Grow out by doubling in the arena; earlier copies stay behind until its reset, which costs at
 * most as much again. */
static bool grow(lore_arena *arena, char **out, size_t used, size_t *room)
{
    size_t wider = 0;
    if (!lore_size_mul(*room, 2, &wider)) {
        return false;
    }
    char *copy = lore_arena_push(arena, wider);
    if (copy == NULL) {
        return false;
    }
    memcpy(copy, *out, used);
    *out = copy;
    *room = wider;
    return true;
}

/* Strict: LORE_ERR_INVALID at the first byte that `charset` does not know, or where the result is
 * not text; LORE_ERR_UNSUPPORTED for an unknown charset. */
static lore_status convert(const char *charset, lore_str bytes, lore_arena *arena, lore_str *text)
{
    iconv_t handle = iconv_open("UTF-8", charset);
    if (handle == (iconv_t)-1) {
        return errno == ENOMEM ? LORE_ERR_NOMEM : LORE_ERR_UNSUPPORTED;
    }
    lore_status status = LORE_ERR_NOMEM;
    size_t room = 0, used = 0;
    char *out =
        lore_size_add(bytes.len + bytes.len / 2, 64, &room) ? lore_arena_push(arena, room) : NULL;
    char *in = (char *)bytes.ptr; /* iconv's prototype lacks the const */
    size_t left = bytes.len;
    while (out != NULL && left > 0) {
        char *at = out + used;
        size_t free_bytes = room - used;
        size_t result = iconv(handle, &in, &left, &at, &free_bytes);
        used = (size_t)(at - out);
        if (result != (size_t)-1) {
            break;
        }
        if (errno != E2BIG) {
            status = LORE_ERR_INVALID;
            goto out;
        }
        if (!grow(arena, &out, used, &room)) {
            goto out;
        }
    }
    if (out != NULL) {
        lore_str decoded = {out, used};
        bool is_text = lore_utf8_valid(decoded) == used && !lore_is_binary(decoded);
        status = is_text ? LORE_OK : LORE_ERR_INVALID;
        *text = decoded;
    }
out:
    iconv_close(handle);
    return status;
}

/* Names that pages and detectors use for the smaller sets that real text oversteps. */
static const char *wider_charset(const char *name)
{
    static const char *const wider[][2] = {{"gb2312", "GB18030"},
                                           {"gbk", "GB18030"},
                                           {"x-gbk", "GB18030"},
                                           {"gb_2312-80", "GB18030"},
                                           {"shift_jis", "CP932"},
                                           {"shift-jis", "CP932"},
                                           {"x-sjis", "CP932"},
                                           {"sjis", "CP932"},
                                           {"windows-31j", "CP932"},
                                           {"big5", "BIG5-HKSCS"},
                                           {"iso-8859-1", "CP1252"},
                                           {"latin1", "CP1252"},
                                           {"ascii", "CP1252"},
                                           {"us-ascii", "CP1252"},
                                           {"euc-kr", "UHC"},
                                           {"ks_c_5601-1987", "UHC"},
                                           {"iso-8859-9", "CP1254"},
                                           {"utf8", "UTF-8"},
                                           {"mac-cyrillic", "MAC-CYRILLIC"}};
    for (size_t i = 0; i < sizeof wider / sizeof wider[0]; i++) {
        if (strcasecmp(name, wider[i][0]) == 0) {
            return wider[i][1];
        }
    }
    return name;
}

/* ---- guesses ---- */

/* UTF-16 without a mark: ASCII in it puts NULs at odd (little endian) or even offsets alone. */
static const char *utf16_by_nuls(lore_str bytes)
{
    size_t even = 0, odd = 0;
    for (size_t i = 0; i + 1 < bytes.len; i += 2) {
        even += bytes.ptr[i] == 0 ? 1 : 0;
        odd += bytes.ptr[i + 1] == 0 ? 1 : 0;
    }
    if (bytes.len % 2 != 0 || (even > 0) == (odd > 0)) {
        return NULL;
    }
    return odd > 0 ? "UTF-16LE" : "UTF-16BE";
}

/* Sequences that are valid UTF-8, and bytes that are not. */
static void count_utf8(lore_str bytes, size_t *good, size_t *bad)
{
    size_t at = 0;
    while (at < bytes.len) {
        lore_str rest = lore_str_slice(bytes, at, bytes.len);
        size_t valid = lore_utf8_valid(rest);
        for (size_t i = 0; i < valid; i++) {
            *good += ((unsigned char)rest.ptr[i] & 0xC0) == 0xC0 ? 1 : 0;
        }
        *bad += valid < rest.len ? 1 : 0;
        at += valid + 1;
    }
}

static lore_status replace_broken(lore_str bytes, lore_arena *arena, lore_str *text)
{
    size_t room = 0;
    if (!lore_size_mul(bytes.len, 3, &room)) {
        return LORE_ERR_NOMEM;
    }
    char *out = lore_arena_push(arena, room);
    if (out == NULL) {
        return LORE_ERR_NOMEM;
    }
    size_t used = 0, at = 0;
    while (at < bytes.len) {
        lore_str rest = lore_str_slice(bytes, at, bytes.len);
        size_t valid = lore_utf8_valid(rest);
        memcpy(out + used, rest.ptr, valid);
        used += valid;
        if (valid < rest.len) {
            memcpy(out + used, "\xEF\xBF\xBD", 3);
            used += 3;
        }
        at += valid + 1;
    }
    *text = (lore_str){out, used};
    return LORE_OK;
}

/* The charset an HTML page or XML declaration names: what follows "charset=" or "encoding=". */
static bool declared_charset(lore_str bytes, char name[CHARSET_CAP])
{
    lore_str head = {bytes.ptr, bytes.len < DECLARATION_BYTES ? bytes.len : DECLARATION_BYTES};
    for (size_t at = 0; at + 8 < head.len; at++) {
        lore_str rest = lore_str_slice(head, at, head.len);
        if (strncasecmp(rest.ptr, "charset", 7) != 0 && strncasecmp(rest.ptr, "encoding", 8) != 0) {
            continue;
        }
        size_t i = (rest.ptr[0] | 32) == 'c' ? 7 : 8;
        while (i < rest.len && strchr(" \t\r\n=\"'", rest.ptr[i]) != NULL) {
            i++;
        }
        size_t len = 0;
        while (i < rest.len && len + 1 < CHARSET_CAP && rest.ptr[i] > ' ' &&
               strchr("\"'>;/?", rest.ptr[i]) == NULL) {
            name[len++] = rest.ptr[i++];
        }
        name[len] = '\0';
        if (len > 0) {
            return true;
        }
    }
    return false;
}

/* Single high bytes beside ASCII letters, as in windows-1252; two neighbours are another script. */
static bool looks_western(lore_str bytes)
{
    size_t high = 0, joined = 0;
    for (size_t i = 0; i < bytes.len; i++) {
        if ((unsigned char)bytes.ptr[i] >= 0x80) {
            high++;
            joined += i + 1 < bytes.len && (unsigned char)bytes.ptr[i + 1] >= 0x80 ? 1 : 0;
        }
    }
    return joined * 10 <= high;
}

static lore_status detected_charset(lore_str bytes, char name[CHARSET_CAP])
{
    uchardet_t detector = uchardet_new();
    if (detector == NULL) {
        return LORE_ERR_NOMEM;
    }
    size_t len = bytes.len < DETECT_BYTES ? bytes.len : DETECT_BYTES;
    name[0] = '\0';
    if (uchardet_handle_data(detector, bytes.ptr, len) == 0) {
        uchardet_data_end(detector);
        const char *found = uchardet_get_charset(detector);
        size_t found_len = strlen(found);
        if (found_len < CHARSET_CAP) {
            memcpy(name, found, found_len + 1);
        }
    }
    uchardet_delete(detector);
    return LORE_OK;
}

/* ---- decisions ---- */

/* The charset its byte order mark names, and the mark's length. */
static const char *marked_charset(lore_str bytes, size_t *mark_bytes)
{
    static const struct {
        lore_str mark;
        const char *charset;
    } marks[] = {{{"\xFF\xFE\x00\x00", 4}, "UTF-32LE"},
                 {{"\x00\x00\xFE\xFF", 4}, "UTF-32BE"},
                 {{"\xEF\xBB\xBF", 3}, "UTF-8"},
                 {{"\xFF\xFE", 2}, "UTF-16LE"},
                 {{"\xFE\xFF", 2}, "UTF-16BE"}};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        if (lore_str_starts(bytes, marks[i].mark)) {
            *mark_bytes = marks[i].mark.len;
            return marks[i].charset;
        }
    }
    return NULL;
}

/* Bytes of an 8-bit or multi-byte charset that nothing in them names for certain. */
static lore_status decode_legacy(lore_str bytes, lore_media media, lore_arena *arena,
                                 lore_str *text)
{
    char name[CHARSET_CAP];
    if (media == LORE_MEDIA_HTML && declared_charset(bytes, name)) {
        lore_status status = convert(wider_charset(name), bytes, arena, text);
        if (status == LORE_OK || status == LORE_ERR_NOMEM) {
            return status;
        }
    }
    if (!looks_western(bytes)) {
        lore_status status = detected_charset(bytes, name);
        if (status == LORE_OK) {
            status = name[0] == '\0' ? LORE_ERR_INVALID
                                     : convert(wider_charset(name), bytes, arena, text);
        }
        if (status == LORE_OK || status == LORE_ERR_NOMEM) {
            return status;
        }
        /* Too short for statistics: the commonest multi-byte set is stricter than it looks. */
        status = convert("GB18030", bytes, arena, text);
        if (status == LORE_OK || status == LORE_ERR_NOMEM) {
            return status;
        }
    }
    return convert("CP1252", bytes, arena, text);
}

lore_status lore_decode_as(lore_str charset, lore_str bytes, lore_arena *arena, lore_str *text)
{
    char name[CHARSET_CAP];
    for (size_t i = 0; i < charset.len; i++) {
        char c = charset.ptr[i];
        bool is_letter = ((c | 32) >= 'a' && (c | 32) <= 'z') || (c >= '0' && c <= '9');
        if (!is_letter && c != '-' && c != '_' && c != ':' && c != '.') {
            return LORE_ERR_UNSUPPORTED; /* iconv takes orders behind slashes */
        }
    }
    if (charset.len == 0 || charset.len >= sizeof name) {
        return LORE_ERR_UNSUPPORTED;
    }
    memcpy(name, charset.ptr, charset.len);
    name[charset.len] = '\0';
    return convert(wider_charset(name), bytes, arena, text);
}

lore_status lore_decode(lore_str bytes, lore_media media, lore_arena *arena, lore_str *text,
                        lore_error *err)
{
    if (bytes.len == 0) {
        *text = (lore_str){"", 0};
        return LORE_OK;
    }
    size_t mark_bytes = 0;
    const char *charset = marked_charset(bytes, &mark_bytes);
    lore_str body = lore_str_slice(bytes, mark_bytes, bytes.len);
    bool is_utf8 = charset == NULL || strcmp(charset, "UTF-8") == 0;
    bool has_nul = body.len > 0 && memchr(body.ptr, 0, body.len) != NULL;
    if (charset == NULL && has_nul) {
        charset = utf16_by_nuls(body);
        is_utf8 = charset == NULL;
    }
    lore_status status = LORE_OK;
    if (!is_utf8) {
        status = convert(charset, body, arena, text);
    } else if (has_nul) {
        return lore_fail(err, LORE_ERR_INVALID, "holds %zu NUL bytes: binary, not text",
                         count_byte(body, '\0'));
    } else if (lore_utf8_valid(body) == body.len) {
        *text = body;
        if (lore_is_binary(body)) {
            return lore_fail(err, LORE_ERR_INVALID, "holds too many control characters: not text");
        }
    } else {
        size_t good = 0, bad = 0;
        count_utf8(body, &good, &bad);
        status = mark_bytes > 0 || good >= bad * BROKEN_PER_GOOD
                     ? replace_broken(body, arena, text)
                     : decode_legacy(body, media, arena, text);
    }
    if (status == LORE_ERR_NOMEM) {
        return lore_fail(err, status, "out of memory decoding %zu bytes", bytes.len);
    }
    if (status != LORE_OK) {
        return lore_fail(err, LORE_ERR_INVALID, "byte %zu is not UTF-8, and no other encoding fits",
                         is_utf8 ? mark_bytes + lore_utf8_valid(body) : 0);
    }
    return LORE_OK;
}
