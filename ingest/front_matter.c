/* Front matter: the block of settings that static site generators put before a page.
 *
 * Only its end and the title in it are wanted, so this is no YAML reader: lines are looked at, and
 * of those that begin with "title:" (or "title =" in TOML) the plain or quoted scalar is taken. A
 * folded or structured title is left alone. */
#include "ingest/ingest_int.h"

#include <string.h>

/* A longer block is a document that happens to begin with a rule. */
enum { FRONT_MATTER_BYTES_MAX = 64 * 1024 };

/* The scalar behind "title:" without quotes and comment; "" when it is none. */
static lore_str scalar(lore_str value)
{
    value = lore_str_trim(value);
    if (value.len >= 2 && (value.ptr[0] == '"' || value.ptr[0] == '\'')) {
        const char *end = memchr(value.ptr + 1, value.ptr[0], value.len - 1);
        return end == NULL ? (lore_str){"", 0}
                           : (lore_str){value.ptr + 1, (size_t)(end - value.ptr) - 1};
    }
    if (value.len > 0 && strchr("|>[{&*!", value.ptr[0]) != NULL) {
        return (lore_str){"", 0};
    }
    size_t comment = lore_str_find(value, LORE_STR(" #"), 0);
    return lore_str_trim(comment == SIZE_MAX ? value : lore_str_slice(value, 0, comment));
}

/* Lines of settings, blank lines and comments only: nothing a reader would miss. */
static bool is_setting(lore_str line)
{
    lore_str trimmed = lore_str_trim(line);
    return trimmed.len == 0 || trimmed.ptr[0] == '#' || trimmed.ptr[0] == '-' ||
           line.ptr[0] == ' ' || line.ptr[0] == '\t' || memchr(line.ptr, ':', line.len) != NULL ||
           memchr(line.ptr, '=', line.len) != NULL || strchr("]}", trimmed.ptr[0]) != NULL;
}

size_t lore_front_matter(lore_str text, lore_str *title)
{
    *title = (lore_str){"", 0};
    lore_str rest = text, line;
    if (!lore_str_next_line(&rest, &line)) {
        return 0;
    }
    lore_str fence = line.len == 0 ? line : lore_str_trim(line);
    bool is_toml = lore_str_equal(fence, LORE_STR("+++"));
    if (!is_toml && !lore_str_equal(fence, LORE_STR("---"))) {
        return 0;
    }
    lore_str key = is_toml ? LORE_STR("=") : LORE_STR(":");
    lore_str found = {"", 0};
    while (lore_str_next_line(&rest, &line)) {
        lore_str trimmed = lore_str_trim(line);
        if (lore_str_equal(trimmed, fence) || (!is_toml && lore_str_equal(line, LORE_STR("...")))) {
            *title = found;
            return text.len - rest.len;
        }
        if (line.len > 0 &&
            (!is_setting(line) || (size_t)(line.ptr - text.ptr) > FRONT_MATTER_BYTES_MAX)) {
            return 0;
        }
        if (found.len == 0 && line.len > 5 && memcmp(line.ptr, "title", 5) == 0) {
            lore_str value = lore_str_trim(lore_str_slice(line, 5, line.len));
            if (lore_str_starts(value, key)) {
                found = scalar(lore_str_slice(value, 1, value.len));
            }
        }
    }
    return 0;
}
