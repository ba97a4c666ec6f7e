/* What comes from the web says of itself what it is: its Content-Type, and its URL. Servers are
 * often wrong, so signatures go first, and a charset that the bytes contradict is passed over. */
#include "ingest/web_int.h"

#include <string.h>

bool lore_is_url(lore_str source)
{
    size_t colon = lore_str_find(source, LORE_STR("://"), 0);
    lore_str scheme = lore_str_slice(source, 0, colon == SIZE_MAX ? 0 : colon);
    return lore_str_equal_nocase(scheme, LORE_STR("http")) ||
           lore_str_equal_nocase(scheme, LORE_STR("https"));
}

/* "a.md" of "https://host/kb/a.md?version=2". */
static lore_str name_of(lore_str url)
{
    const char *query = url.len == 0 ? NULL : memchr(url.ptr, '?', url.len);
    url.len = query == NULL ? url.len : (size_t)(query - url.ptr);
    size_t start = url.len;
    while (start > 0 && url.ptr[start - 1] != '/') {
        start--;
    }
    return lore_str_slice(url, start, url.len);
}

lore_str lore_url_name(lore_str url, lore_arena *arena)
{
    lore_str name = lore_str_copy(arena, name_of(url));
    char *out = (char *)name.ptr; /* ours, just made */
    size_t used = 0;
    for (size_t i = 0; out != NULL && i < name.len; i++) {
        int32_t high =
            i + 2 < name.len && name.ptr[i] == '%' ? lore_hex_digit(name.ptr[i + 1]) : -1;
        int32_t low = high >= 0 ? lore_hex_digit(name.ptr[i + 2]) : -1;
        out[used++] = low >= 0 ? (char)(high * 16 + low) : name.ptr[i];
        i += low >= 0 ? 2 : 0;
    }
    name.len = used;
    return name;
}

/* "text/html" of "text/html; charset=gbk". */
static lore_media media_of_type(lore_str type)
{
    const char *end = type.len == 0 ? NULL : memchr(type.ptr, ';', type.len);
    lore_str name =
        lore_str_trim(lore_str_slice(type, 0, end == NULL ? type.len : (size_t)(end - type.ptr)));
    if (lore_str_equal_nocase(name, LORE_STR("application/xhtml+xml"))) {
        return LORE_MEDIA_HTML;
    }
    return lore_str_equal_nocase(name, LORE_STR("application/json")) ? LORE_MEDIA_JSON
                                                                     : lore_media_named(name);
}

static bool has_signature(lore_media media)
{
    return lore_media_is_packed(media) || media == LORE_MEDIA_ARCHIVE || media == LORE_MEDIA_PDF;
}

lore_media lore_media_served(lore_str type, lore_str url, lore_str bytes)
{
    const lore_str none = {"", 0};
    lore_str name = name_of(url);
    lore_media said = media_of_type(type), found = lore_media_of(name, bytes);
    if (said == LORE_MEDIA_AUTO || has_signature(found) || has_signature(said)) {
        return found;
    }
    if (said != LORE_MEDIA_TEXT) {
        return said;
    }
    /* Plain text may be of any kind that its name tells, but what merely looks like a page is an
     * example of one. */
    bool is_example = found == LORE_MEDIA_HTML && lore_media_of(name, none) != LORE_MEDIA_HTML;
    return is_example ? LORE_MEDIA_TEXT : found;
}

/* The value of "charset", "" where there is none. */
static lore_str charset_of(lore_str type)
{
    for (size_t at = lore_str_find(type, LORE_STR(";"), 0); at != SIZE_MAX;
         at = lore_str_find(type, LORE_STR(";"), at + 1)) {
        size_t end = lore_str_find(type, LORE_STR(";"), at + 1);
        lore_str parameter =
            lore_str_trim(lore_str_slice(type, at + 1, end == SIZE_MAX ? type.len : end));
        bool is_charset =
            parameter.len > 8 &&
            lore_str_equal_nocase(lore_str_slice(parameter, 0, 8), LORE_STR("charset="));
        if (is_charset) {
            lore_str value = lore_str_slice(parameter, 8, parameter.len);
            bool is_quoted =
                value.len > 1 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"';
            return is_quoted ? lore_str_slice(value, 1, value.len - 1) : value;
        }
    }
    return (lore_str){"", 0};
}

lore_status lore_decode_served(lore_str type, lore_media media, lore_arena *arena, lore_str *bytes,
                               lore_error *err)
{
    lore_str charset = charset_of(type), text;
    bool is_packed = has_signature(media) || media == LORE_MEDIA_MAIL || media == LORE_MEDIA_MBOX;
    if (charset.len == 0 || bytes->len == 0 || is_packed || media == LORE_MEDIA_AUTO) {
        return LORE_OK;
    }
    lore_status status = lore_decode_as(charset, *bytes, arena, &text);
    if (status == LORE_ERR_NOMEM) {
        return lore_fail(err, status, "out of memory decoding %zu bytes", bytes->len);
    }
    *bytes = status == LORE_OK ? text : *bytes;
    return LORE_OK;
}
