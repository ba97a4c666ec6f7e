/* Texts that remember where their bytes came from.
 *
 * Whatever a template does to a message (joins, strips, cuts, replaces, writes as JSON), each byte
 * of the result still says whether it is foreign. A text that is wholly the template's has no marks
 * at all, which is most of them. Positions are characters outside, as in Python, and bytes in here.
 */
#include "base/utf8.h"
#include "generation/template_int.h"

#include <string.h>

lore_jinja_text lore_jinja_text_own(lore_str text)
{
    return (lore_jinja_text){text.ptr, NULL, text.len};
}

lore_str lore_jinja_text_str(lore_jinja_text text)
{
    return (lore_str){text.ptr, text.len};
}

lore_jinja_text lore_jinja_text_slice(lore_jinja_text text, size_t start, size_t end)
{
    lore_str cut = lore_str_slice(lore_jinja_text_str(text), start, end);
    return (lore_jinja_text){cut.ptr, text.foreign != NULL ? text.foreign + start : NULL, cut.len};
}

bool lore_jinja_text_is_space(int32_t codepoint)
{
    return lore_utf8_is_space(codepoint) || (codepoint >= 0x1c && codepoint <= 0x1f);
}

/* ---- building ---- */

void lore_jinja_text_builder_init(lore_jinja_text_builder *builder)
{
    lore_buf_init(&builder->text, 0);
    lore_buf_init(&builder->foreign, 0);
    builder->is_over = false;
}

void lore_jinja_text_builder_destroy(lore_jinja_text_builder *builder)
{
    lore_buf_destroy(&builder->text);
    lore_buf_destroy(&builder->foreign);
}

void lore_jinja_text_append(lore_jinja_text_builder *builder, lore_jinja_text text)
{
    if (text.len > LORE_JINJA_OUTPUT_BYTES_MAX - builder->text.len) {
        builder->is_over = true;
        return;
    }
    lore_buf_append(&builder->text, lore_jinja_text_str(text));
    if (text.foreign != NULL) {
        lore_buf_append(&builder->foreign, (lore_str){(const char *)text.foreign, text.len});
    } else if (lore_buf_reserve(&builder->foreign, text.len)) {
        memset(builder->foreign.ptr + builder->foreign.len, 0, text.len);
        builder->foreign.len += text.len;
    }
}

lore_status lore_jinja_text_builder_check(lore_jinja_run *run,
                                          const lore_jinja_text_builder *builder)
{
    if (builder->is_over) {
        return lore_jinja_run_fail(run, LORE_ERR_LIMIT, "the template writes more than %d bytes",
                                   (int)LORE_JINJA_OUTPUT_BYTES_MAX);
    }
    return lore_buf_failed(&builder->text) || lore_buf_failed(&builder->foreign)
               ? lore_jinja_run_no_memory(run)
               : LORE_OK;
}

lore_status lore_jinja_text_finish(lore_jinja_run *run, lore_jinja_text_builder *builder,
                                   lore_jinja_value *out)
{
    size_t len = builder->text.len;
    char *text = NULL;
    uint8_t *foreign = NULL;
    lore_status status = lore_jinja_text_builder_check(run, builder);
    if (status == LORE_OK) {
        status = lore_jinja_run_spend_bytes(run, len);
    }
    if (status == LORE_OK) {
        text = lore_arena_push(&run->arena, len);
        foreign = lore_arena_push(&run->arena, len);
        status = text == NULL || foreign == NULL ? lore_jinja_run_no_memory(run) : LORE_OK;
    }
    if (status == LORE_OK && len > 0) {
        memcpy(text, builder->text.ptr, len);
        memcpy(foreign, builder->foreign.ptr, len);
    }
    if (status == LORE_OK) {
        *out = lore_jinja_value_text((lore_jinja_text){text, foreign, len});
    }
    lore_jinja_text_builder_destroy(builder);
    return status;
}

lore_status lore_jinja_text_join(lore_jinja_run *run, lore_jinja_text a, lore_jinja_text b,
                                 lore_jinja_value *out)
{
    size_t len = a.len + b.len;
    lore_status status = lore_jinja_run_spend_bytes(run, len);
    if (status != LORE_OK) {
        return status;
    }
    char *text = lore_arena_push(&run->arena, len);
    uint8_t *foreign = NULL;
    if (a.foreign != NULL || b.foreign != NULL) {
        foreign = LORE_PUSH(&run->arena, uint8_t, len);
        if (foreign == NULL) {
            return lore_jinja_run_no_memory(run);
        }
    }
    if (text == NULL) {
        return lore_jinja_run_no_memory(run);
    }
    const lore_jinja_text parts[] = {a, b};
    size_t at = 0;
    for (size_t i = 0; i < 2; i++) {
        if (parts[i].len > 0) {
            memcpy(text + at, parts[i].ptr, parts[i].len);
        }
        if (parts[i].len > 0 && parts[i].foreign != NULL) {
            memcpy(foreign + at, parts[i].foreign, parts[i].len);
        }
        at += parts[i].len;
    }
    *out = lore_jinja_value_text((lore_jinja_text){text, foreign, len});
    return LORE_OK;
}

/* ---- operations ---- */

static bool is_among(int32_t codepoint, lore_str characters)
{
    for (size_t at = 0; at < characters.len;) {
        if (lore_utf8_next(characters, &at) == codepoint) {
            return true;
        }
    }
    return false;
}

lore_jinja_text lore_jinja_text_strip(lore_jinja_text text, const lore_str *characters,
                                      bool at_start, bool at_end)
{
    lore_str s = lore_jinja_text_str(text);
    size_t start = 0, end = s.len;
    for (size_t next = start; at_start && next < end; start = next) {
        int32_t c = lore_utf8_next(s, &next);
        if (characters != NULL ? !is_among(c, *characters) : !lore_jinja_text_is_space(c)) {
            break;
        }
    }
    for (size_t before = end; at_end && before > start; end = before) {
        int32_t c = lore_utf8_prev(s, &before);
        if (characters != NULL ? !is_among(c, *characters) : !lore_jinja_text_is_space(c)) {
            break;
        }
    }
    return lore_jinja_text_slice(text, start, end);
}

lore_status lore_jinja_text_replace(lore_jinja_run *run, lore_jinja_text text, lore_jinja_text old,
                                    lore_jinja_text with, lore_jinja_value *out)
{
    if (old.len == 0) {
        return lore_jinja_run_fail(run, LORE_ERR_UNSUPPORTED,
                                   "replacing an empty text is not supported");
    }
    lore_jinja_text_builder builder;
    lore_jinja_text_builder_init(&builder);
    size_t at = 0;
    lore_status status = lore_jinja_run_spend_bytes(run, text.len);
    while (status == LORE_OK) {
        size_t found = lore_str_find(lore_jinja_text_str(text), lore_jinja_text_str(old), at);
        if (found == SIZE_MAX) {
            break;
        }
        lore_jinja_text_append(&builder, lore_jinja_text_slice(text, at, found));
        lore_jinja_text_append(&builder, with);
        at = found + old.len;
        status = lore_jinja_run_spend_bytes(run, with.len);
    }
    if (status != LORE_OK) {
        lore_jinja_text_builder_destroy(&builder);
        return status;
    }
    lore_jinja_text_append(&builder, lore_jinja_text_slice(text, at, text.len));
    return lore_jinja_text_finish(run, &builder, out);
}

/* The end of the white space (is_space) or of the word at `at`. */
static size_t span_end(lore_str s, size_t at, bool is_space)
{
    for (size_t next = at; next < s.len; at = next) {
        if (lore_jinja_text_is_space(lore_utf8_next(s, &next)) != is_space) {
            break;
        }
    }
    return at;
}

/* The next part of a split at *at, which moves behind the separator; false behind the last. */
static bool next_part(lore_jinja_text text, lore_str separator, size_t *at, lore_jinja_text *part)
{
    lore_str s = lore_jinja_text_str(text);
    if (separator.len == 0) {
        size_t start = *at > s.len ? s.len : span_end(s, *at, true);
        size_t end = span_end(s, start, false);
        *part = lore_jinja_text_slice(text, start, end);
        *at = end;
        return start < s.len;
    }
    if (*at > s.len) {
        return false;
    }
    size_t found = lore_str_find(s, separator, *at);
    size_t end = found == SIZE_MAX ? s.len : found;
    *part = lore_jinja_text_slice(text, *at, end);
    *at = found == SIZE_MAX ? s.len + 1 : found + separator.len;
    return true;
}

lore_status lore_jinja_text_split(lore_jinja_run *run, lore_jinja_text text, lore_str separator,
                                  lore_jinja_value *out)
{
    lore_jinja_text part;
    size_t count = 0, at = 0;
    while (next_part(text, separator, &at, &part)) {
        count++;
    }
    lore_status status = lore_jinja_run_spend_bytes(run, text.len);
    if (status == LORE_OK) {
        status = lore_jinja_run_spend(run, count);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_jinja_value *items = LORE_PUSH(&run->arena, lore_jinja_value, count);
    if (items == NULL) {
        return lore_jinja_run_no_memory(run);
    }
    at = 0;
    for (size_t i = 0; i < count && next_part(text, separator, &at, &part); i++) {
        items[i] = lore_jinja_value_text(part);
    }
    *out = (lore_jinja_value){
        .kind = LORE_JINJA_VALUE_LIST, .count = (int32_t)count, .as.items = items};
    return LORE_OK;
}

lore_status lore_jinja_text_recase(lore_jinja_run *run, lore_jinja_text text,
                                   lore_jinja_text_case to, lore_jinja_value *out)
{
    lore_status status = lore_jinja_run_spend_bytes(run, text.len);
    char *copy = status == LORE_OK ? lore_arena_push(&run->arena, text.len) : NULL;
    if (status == LORE_OK && copy == NULL) {
        status = lore_jinja_run_no_memory(run);
    }
    bool is_first = true;
    for (size_t i = 0; i < text.len && status == LORE_OK; i++) {
        char c = text.ptr[i];
        bool is_low = c >= 'a' && c <= 'z', is_high = c >= 'A' && c <= 'Z';
        if ((uint8_t)c >= 0x80) {
            status = lore_jinja_run_fail(run, LORE_ERR_UNSUPPORTED,
                                         "changing the case of other than ASCII is not supported");
        }
        bool to_high = to == LORE_JINJA_TEXT_UPPER || (to != LORE_JINJA_TEXT_LOWER && is_first);
        copy[i] = (char)(is_low && to_high ? c - 32 : is_high && !to_high ? c + 32 : c);
        is_first = to == LORE_JINJA_TEXT_TITLE && !is_low && !is_high;
    }
    if (status == LORE_OK) {
        *out = lore_jinja_value_text((lore_jinja_text){copy, text.foreign, text.len});
    }
    return status;
}

lore_status lore_jinja_text_characters(lore_jinja_run *run, lore_jinja_text text,
                                       lore_jinja_value *out)
{
    lore_str s = lore_jinja_text_str(text);
    size_t count = lore_utf8_count(s);
    lore_status status = lore_jinja_run_spend_bytes(run, text.len);
    if (status != LORE_OK) {
        return status;
    }
    lore_jinja_value *items = LORE_PUSH(&run->arena, lore_jinja_value, count);
    if (items == NULL) {
        return lore_jinja_run_no_memory(run);
    }
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        size_t start = at;
        (void)lore_utf8_next(s, &at);
        items[i] = lore_jinja_value_text(lore_jinja_text_slice(text, start, at));
    }
    *out = (lore_jinja_value){
        .kind = LORE_JINJA_VALUE_LIST, .count = (int32_t)count, .as.items = items};
    return LORE_OK;
}
