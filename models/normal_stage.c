/* The stages that need no tables of their own. All of them go over the text once, leave what stays
 * to lore_normal_copy in runs as long as they can, and put what changes. */
#include "models/normal_stage_int.h"

#include "base/utf8.h"
#include "models/character_int.h"

#include <string.h>

enum { DOTTED_CAPITAL_I = 0x130, DOT_ABOVE = 0x307 };

/* ---- character by character ---- */

void lore_normal_characters(const lore_normal_stage *stage, lore_normal_writer *w)
{
    lore_str text = w->in.text;
    bool is_lower = stage->map == lore_normal_map_lower;
    bool stays[128];
    for (int32_t c = 0; c < 128; c++) {
        stays[c] = stage->map(c) == c;
    }
    size_t kept = 0; /* from here on nothing changed */
    for (size_t at = 0; at < text.len;) {
        uint8_t byte = (uint8_t)text.ptr[at];
        if (byte < 0x80 && stays[byte]) {
            at++;
            continue;
        }
        size_t start = at;
        int32_t c = lore_normal_next(text, &at);
        int32_t mapped = stage->map(c);
        if (mapped == c) {
            continue;
        }
        lore_normal_copy(w, kept, start - kept);
        if (mapped != LORE_NORMAL_DROP) {
            lore_normal_put_character(w, mapped, start, at - start);
        }
        if (is_lower && c == DOTTED_CAPITAL_I) { /* the one letter that becomes two */
            lore_normal_put_character(w, DOT_ABOVE, start, 0);
        }
        kept = at;
    }
    lore_normal_copy(w, kept, text.len - kept);
}

int32_t lore_normal_map_lower(int32_t c)
{
    return c < 0 ? c : lore_character_lower(c);
}

int32_t lore_normal_map_marks(int32_t c)
{
    return c >= 0x300 && lore_character_is_mark(c) ? LORE_NORMAL_DROP : c;
}

int32_t lore_normal_map_nonspacing(int32_t c)
{
    return c >= 0x300 && lore_character_is_nonspacing(c) ? LORE_NORMAL_DROP : c;
}

int32_t lore_normal_map_clean(int32_t c)
{
    if (c == '\t' || c == '\n' || c == '\r') {
        return ' ';
    }
    if (c <= 0 || c == 0xFFFD || lore_character_is_control(c)) {
        return LORE_NORMAL_DROP;
    }
    return lore_utf8_is_space(c) ? ' ' : c;
}

int32_t lore_normal_map_nmt(int32_t c)
{
    bool is_control = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
                      c == 0x8F || c == 0x9F;
    bool is_space = c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 ||
                    (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                    c == 0xFEFF || c == 0xFFFD;
    return is_control ? LORE_NORMAL_DROP : is_space ? ' ' : c;
}

void lore_normal_han(const lore_normal_stage *stage, lore_normal_writer *w)
{
    (void)stage;
    lore_str text = w->in.text;
    size_t kept = 0;
    for (size_t at = 0; at < text.len;) {
        at += lore_normal_ascii(text, at);
        size_t start = at;
        if (at < text.len && lore_character_is_han(lore_normal_next(text, &at))) {
            lore_normal_copy(w, kept, start - kept);
            lore_normal_put(w, LORE_STR(" "), start, 0);
            lore_normal_copy(w, start, at - start);
            lore_normal_put(w, LORE_STR(" "), start, 0);
            kept = at;
        }
    }
    lore_normal_copy(w, kept, text.len - kept);
}

/* ---- ends ---- */

void lore_normal_strip(const lore_normal_stage *stage, lore_normal_writer *w)
{
    lore_str text = w->in.text;
    size_t start = 0, end = text.len;
    for (size_t at = 0; stage->left && at < text.len;) {
        if (!lore_utf8_is_space(lore_utf8_next(text, &at))) {
            break;
        }
        start = at;
    }
    for (size_t at = end; stage->right && at > start;) {
        if (!lore_utf8_is_space(lore_utf8_prev(text, &at))) {
            break;
        }
        end = at;
    }
    lore_normal_copy(w, start, end - start);
}

void lore_normal_prepend(const lore_normal_stage *stage, lore_normal_writer *w)
{
    if (w->in.text.len > 0) {
        lore_normal_put(w, stage->content, 0, 0);
        lore_normal_copy(w, 0, w->in.text.len);
    }
}

/* ---- replacing ---- */

/* Put the content in place of a match, whose last character it comes from; what stands before the
 * match was kept. */
static void replace(const lore_normal_stage *stage, lore_normal_writer *w, size_t kept,
                    size_t start, size_t end)
{
    size_t last = end;
    if (last > 0) {
        lore_utf8_prev(w->in.text, &last);
    }
    lore_normal_copy(w, kept, start - kept);
    lore_normal_put(w, stage->content, last, start == end ? 0 : end - last);
}

void lore_normal_replace_string(const lore_normal_stage *stage, lore_normal_writer *w)
{
    lore_str text = w->in.text, pattern = stage->pattern;
    size_t kept = 0;
    while (kept < text.len && w->failed == LORE_OK) {
        const char *found = memmem(text.ptr + kept, text.len - kept, pattern.ptr, pattern.len);
        if (found == NULL) {
            break;
        }
        size_t start = (size_t)(found - text.ptr);
        replace(stage, w, kept, start, start + pattern.len);
        kept = start + pattern.len;
    }
    lore_normal_copy(w, kept, text.len - kept);
}

void lore_normal_replace_run(const lore_normal_stage *stage, lore_normal_writer *w)
{
    lore_str text = w->in.text;
    char byte = stage->pattern.ptr[0];
    size_t kept = 0;
    for (size_t at = 0; at < text.len && w->failed == LORE_OK;) {
        const char *found = memchr(text.ptr + at, byte, text.len - at);
        if (found == NULL) {
            break;
        }
        size_t start = (size_t)(found - text.ptr);
        for (at = start; at < text.len && text.ptr[at] == byte;) {
            at++;
        }
        if (at - start >= stage->run_min) {
            replace(stage, w, kept, start, at);
            kept = at;
        }
    }
    lore_normal_copy(w, kept, text.len - kept);
}

void lore_normal_replace_regex(const lore_normal_stage *stage, lore_normal_writer *w)
{
    lore_str text = w->in.text;
    lore_regex_search search = {.regex = stage->regex, .arena = w->arena};
    size_t kept = 0, last_end = SIZE_MAX;
    lore_status searched = lore_regex_begin(&search, text);
    for (size_t at = 0; at <= text.len && w->failed == LORE_OK && searched == LORE_OK;) {
        size_t start = 0, end = 0;
        searched = lore_regex_find(&search, at, &start, &end);
        if (searched != LORE_OK || start == SIZE_MAX) {
            break;
        }
        at = end;
        if (start == end) { /* nothing, but not right behind the last match */
            bool is_again = start == last_end;
            if (at < text.len) {
                lore_utf8_next(text, &at);
            } else {
                at = text.len + 1;
            }
            if (is_again) {
                continue;
            }
        }
        replace(stage, w, kept, start, end);
        kept = last_end = end;
    }
    if (searched != LORE_OK) {
        w->failed = searched;
        w->regex = stage->regex;
    }
    lore_normal_copy(w, kept, text.len - kept);
}
