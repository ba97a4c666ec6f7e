/* A writer is in one of three states: same (nothing stored), text (bytes stored, origins by place),
 * text and origins. It only goes forward through them. */
#include "models/normal_writer_int.h"

#include "base/utf8.h"

#include <string.h>

enum { ROOM_MORE = 64 };

static void fail(lore_normal_writer *w, lore_status status)
{
    w->failed = w->failed == LORE_OK ? status : w->failed;
}

/* Room for `extra` bytes of text of our own (and their origins, once there are any). */
static bool reserve(lore_normal_writer *w, size_t extra)
{
    if (w->failed != LORE_OK) {
        return false;
    }
    if (w->len > w->cap || extra > w->cap - w->len) {
        fail(w, LORE_ERR_LIMIT);
        return false;
    }
    if (w->text != NULL && extra <= w->room - w->len) {
        return true;
    }
    size_t least = w->len + extra + ROOM_MORE;
    size_t wanted = w->text == NULL ? w->in.text.len + w->in.text.len / 8 : w->room * 2;
    size_t room = wanted > least ? wanted : least;
    char *text = lore_arena_push(w->arena, room);
    uint32_t *origin = w->origin != NULL ? lore_arena_push(w->arena, room * sizeof *origin) : NULL;
    if (text == NULL || (w->origin != NULL && origin == NULL)) {
        fail(w, LORE_ERR_NOMEM);
        return false;
    }
    if (w->len > 0) {
        memcpy(text, w->text != NULL ? w->text : w->in.text.ptr, w->len);
    }
    if (origin != NULL) {
        memcpy(origin, w->origin, w->len * sizeof *origin);
    }
    w->text = text;
    w->origin = origin;
    w->room = room;
    return true;
}

/* Where byte i of in comes from; behind its end, where its last byte comes from. */
static uint32_t origin_of(const lore_normal_writer *w, size_t i)
{
    if (i >= w->in.text.len) {
        i = w->in.text.len > 0 ? w->in.text.len - 1 : 0;
    }
    bool is_mapped = w->in.origin != NULL && w->in.text.len > 0;
    return is_mapped ? w->in.origin[i] : (uint32_t)(w->base + i);
}

/* From here on bytes come from other places than their own. */
static bool keep_origins(lore_normal_writer *w)
{
    if (w->origin != NULL) {
        return true;
    }
    w->origin = lore_arena_push(w->arena, w->room * sizeof *w->origin);
    if (w->origin == NULL) {
        fail(w, LORE_ERR_NOMEM);
        return false;
    }
    for (size_t i = 0; i < w->len; i++) {
        w->origin[i] = origin_of(w, i);
    }
    return true;
}

void lore_normal_copy(lore_normal_writer *w, size_t from, size_t count)
{
    bool is_place = from == w->len && w->origin == NULL;
    if (w->text == NULL && is_place) {
        w->len += count; /* nothing is stored, so the cap does not matter */
        return;
    }
    if (count == 0 || !reserve(w, count) || (!is_place && !keep_origins(w))) {
        return;
    }
    memcpy(w->text + w->len, w->in.text.ptr + from, count);
    if (w->origin != NULL && w->in.origin != NULL) {
        memcpy(w->origin + w->len, w->in.origin + from, count * sizeof *w->origin);
    } else if (w->origin != NULL) {
        uint32_t first = (uint32_t)(w->base + from);
        for (size_t i = 0; i < count; i++) {
            w->origin[w->len + i] = first + (uint32_t)i;
        }
    }
    w->len += count;
}

void lore_normal_put(lore_normal_writer *w, lore_str text, size_t from, size_t size)
{
    bool is_place = from == w->len && size == text.len && w->origin == NULL;
    if (w->text == NULL && is_place && memcmp(w->in.text.ptr + from, text.ptr, size) == 0) {
        w->len += size;
        return;
    }
    if (text.len == 0 || !reserve(w, text.len) || (!is_place && !keep_origins(w))) {
        return;
    }
    memcpy(w->text + w->len, text.ptr, text.len);
    for (size_t i = 0; w->origin != NULL && i < text.len; i++) {
        /* Never back: what comes from the start of a character may follow its copied end. */
        size_t to = w->len + i;
        uint32_t origin = origin_of(w, size == text.len ? from + i : from);
        bool is_back = to > 0 && origin < w->origin[to - 1];
        w->origin[to] = is_back ? w->origin[to - 1] : origin;
    }
    w->len += text.len;
}

void lore_normal_put_character(lore_normal_writer *w, int32_t c, size_t from, size_t size)
{
    char bytes[4] = {(char)-c};
    size_t count = c < 0 ? 1 : lore_utf8_encode(c, bytes);
    lore_normal_put(w, (lore_str){bytes, count}, from, size);
}

void lore_normal_trim(lore_normal_writer *w, lore_str end)
{
    const char *text = w->text != NULL ? w->text : w->in.text.ptr;
    while (lore_str_ends((lore_str){text, w->len}, end)) {
        w->len -= end.len;
    }
}

lore_status lore_normal_finish(lore_normal_writer *w, lore_normal *out, lore_error *err)
{
    if (w->regex != NULL) {
        return lore_regex_explain(w->regex, w->failed, err);
    }
    if (w->failed == LORE_ERR_LIMIT) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "the text that it makes is longer than its limit of %zu bytes", w->cap);
    }
    if (w->failed != LORE_OK) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for normalised text");
    }
    const char *text = w->text != NULL ? w->text : w->in.text.ptr;
    *out = (lore_normal){{text, w->len}, w->origin != NULL ? w->origin : w->in.origin};
    return LORE_OK;
}

void lore_normal_skip(lore_normal_walk *walk, size_t characters)
{
    lore_str text = walk->w->in.text;
    for (; characters > 0 && walk->next < text.len; characters--) {
        walk->last = walk->next;
        lore_utf8_next(text, &walk->next);
    }
}

void lore_normal_emit(lore_normal_walk *walk, int32_t c, int32_t change)
{
    if (change > 0) {
        lore_normal_put_character(walk->w, c, walk->last, 0);
        return;
    }
    size_t from = walk->next;
    lore_normal_skip(walk, 1);
    lore_normal_put_character(walk->w, c, from, walk->next - from);
    lore_normal_skip(walk, (size_t)-change);
}

int32_t lore_normal_next(lore_str text, size_t *at)
{
    size_t start = *at;
    int32_t c = lore_utf8_next(text, at);
    bool is_bad = c == 0xFFFD && *at - start == 1;
    return is_bad ? -(int32_t)(uint8_t)text.ptr[start] : c;
}

size_t lore_normal_ascii(lore_str text, size_t at)
{
    size_t start = at;
    while (text.len - at >= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, text.ptr + at, sizeof word);
        if ((word & UINT64_C(0x8080808080808080)) != 0) {
            break;
        }
        at += sizeof word;
    }
    while (at < text.len && (uint8_t)text.ptr[at] < 0x80) {
        at++;
    }
    return at - start;
}
