/* What publishing tools add to Markdown: heading attributes "{#id}", includes, ":::" directives,
 * "[!NOTE]".
 *
 * Before parsing, it is overwritten in a copy of the same length with a control character, which
 * the builder drops: so all offsets stay true, and md4c sees neither blanks (which could make code
 * of a line) nor the braces. */
#include "ingest/ingest_int.h"

#include <string.h>
#include <strings.h>

enum { CALL_BYTES_MAX = 1024 /* of one "[!...]" */ };

static void mask(char *text, size_t start, size_t end)
{
    memset(text + start, LORE_MARKDOWN_MASK, end - start);
}

/* "# Heading {#id .class}": the braces go. */
static void mask_attributes(char *line, size_t len)
{
    size_t end = len;
    while (end > 0 && (line[end - 1] == ' ' || line[end - 1] == '\t' || line[end - 1] == '\r')) {
        end--;
    }
    if (end < 3 || line[end - 1] != '}') {
        return;
    }
    const char *open = memrchr(line, '{', end);
    if (open != NULL && open + 1 < line + end && strchr("#.:", open[1]) != NULL) {
        mask(line, (size_t)(open - line), end);
    }
}

/* ":::image alt-text="..." :::" keeps the quoted text, "::: note Title" the title. */
static void mask_directive(char *line, size_t start, size_t len)
{
    lore_str s = {line, len};
    size_t alternative = lore_str_find(s, LORE_STR("alt-text=\""), start);
    if (alternative != SIZE_MAX) {
        size_t from = alternative + 10;
        const char *end = memchr(line + from, '"', len - from);
        if (end != NULL) {
            mask(line, start, from);
            mask(line, (size_t)(end - line), len);
            return;
        }
    }
    size_t at = start;
    while (at < len && (line[at] == ':' || line[at] == ' ')) {
        at++;
    }
    while (at < len && line[at] != ' ') {
        at++;
    }
    bool has_settings = memchr(line + at, '=', len - at) != NULL ||
                        lore_str_find(s, LORE_STR(":::"), start + 3) != SIZE_MAX;
    mask(line, start, has_settings ? len : at);
}

/* "[!NOTE]" reads "Note:"; "[!INCLUDE [name](path)]" and "[!VIDEO url]" go. Gives the offset to go
 * on from. */
static size_t mask_call(char *line, size_t at, size_t len)
{
    static const char *const notes[] = {"note", "tip", "important", "warning", "caution"};
    char *text = line + at + 2;
    size_t left = len - at - 2 < CALL_BYTES_MAX ? len - at - 2 : CALL_BYTES_MAX;
    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++) {
        size_t size = strlen(notes[i]);
        if (left > size && strncasecmp(text, notes[i], size) == 0 && text[size] == ']') {
            mask(line, at, at + 2);
            for (size_t k = 1; k < size; k++) {
                text[k] = (char)(text[k] | 32);
            }
            text[size] = ':';
            return at + 3 + size;
        }
    }
    const char *end = NULL;
    if (left > 8 && strncasecmp(text, "include", 7) == 0) {
        const char *inner = memmem(text, left, "](", 2);
        const char *path_end =
            inner == NULL ? NULL : memchr(inner, ')', left - (size_t)(inner - text));
        bool is_whole = path_end != NULL && path_end + 1 < text + left && path_end[1] == ']';
        end = is_whole ? path_end + 1 : NULL;
    } else if (left > 4 &&
               (strncasecmp(text, "video ", 6) == 0 || strncasecmp(text, "div ", 4) == 0)) {
        end = memchr(text, ']', left);
    }
    if (end == NULL) {
        return at + 2;
    }
    mask(line, at, (size_t)(end - line) + 1);
    return (size_t)(end - line) + 1;
}

static void mask_line(char *line, size_t len)
{
    size_t start = 0;
    while (start < len && (line[start] == ' ' || line[start] == '>')) {
        start++;
    }
    if (start < len && line[start] == '#') {
        mask_attributes(line, len);
    }
    if (len - start >= 3 && memcmp(line + start, ":::", 3) == 0) {
        mask_directive(line, start, len);
    }
    for (size_t at = start; at + 2 < len;) {
        const char *call = memmem(line + at, len - at, "[!", 2);
        if (call == NULL) {
            break;
        }
        at = mask_call(line, (size_t)(call - line), len);
    }
}

/* A copy with the additions masked, or text itself where there are none. ptr NULL: out of memory.
 */
lore_str lore_mask_additions(lore_str text, lore_arena *arena)
{
    if (memmem(text.ptr, text.len, "[!", 2) == NULL &&
        memmem(text.ptr, text.len, ":::", 3) == NULL &&
        memmem(text.ptr, text.len, "{", 1) == NULL) {
        return text;
    }
    lore_str copy = lore_str_copy(arena, text);
    char *bytes = (char *)copy.ptr; /* ours, just made */
    bool is_fenced = false;
    for (size_t at = 0; copy.ptr != NULL && at < copy.len;) {
        const char *newline = memchr(bytes + at, '\n', copy.len - at);
        size_t end = newline == NULL ? copy.len : (size_t)(newline - bytes);
        lore_str line = lore_str_trim(lore_str_slice(copy, at, end));
        if (lore_str_starts(line, LORE_STR("```")) || lore_str_starts(line, LORE_STR("~~~"))) {
            is_fenced = !is_fenced;
        } else if (!is_fenced) {
            mask_line(bytes + at, end - at);
        }
        at = end + 1;
    }
    return copy;
}
