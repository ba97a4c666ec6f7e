/* Unicode's normal forms as a stream, with `tokenizers`' account of where characters come from.
 *
 * Only stretches of characters that are not inert are looked at, and the ASCII character before
 * one, which a mark may join. There each character is decomposed; what collects behind the last
 * starter is sorted by combining class (equal ones as they stand) and, for NFC and NFKC, joined to
 * it (UAX #15, D115, D117). The first character of a decomposition takes the place of the old one
 * (change 0), the others follow (1); joining adds the changes up, minus one. */
#include "models/normal_stage_int.h"

#include "base/utf8.h"
#include "models/character_int.h"

#include <string.h>

enum { ROOM_MIN = 256 };

typedef struct form_mark {
    int32_t c; /* first: lore_utf8_sort_marks looks here */
    int32_t change, class;
} form_mark;

typedef struct form_run {
    bool is_composed, is_compatible;
    lore_normal_walk walk;
    form_mark *marks; /* a starter, unless the stretch begins without, and what follows it */
    size_t count, room;
} form_run;

/* Room for one more; the upper half is for sorting. */
static bool reserve(form_run *run)
{
    lore_normal_writer *w = run->walk.w;
    if (run->count < run->room) {
        return true;
    }
    size_t room = run->room == 0 ? ROOM_MIN : run->room * 2;
    form_mark *marks = lore_arena_push(w->arena, 2 * room * sizeof *marks);
    if (marks == NULL) {
        w->failed = LORE_ERR_NOMEM;
        return false;
    }
    if (run->count > 0) {
        memcpy(marks, run->marks, run->count * sizeof *marks);
    }
    run->marks = marks;
    run->room = room;
    return true;
}

static bool join(form_mark *starter, form_mark mark)
{
    int32_t composite = lore_utf8_compose(starter->c, mark.c);
    if (composite < 0 || lore_character_is_inert(composite)) { /* inert: newer than the library */
        return false;
    }
    starter->c = composite;
    starter->change += mark.change - 1;
    return true;
}

/* Bring what is collected into its form. */
static void settle(form_run *run)
{
    size_t marks_from = run->count > 0 && run->marks[0].class == 0 ? 1 : 0;
    lore_utf8_sort_marks(run->marks + marks_from, run->count - marks_from, sizeof *run->marks,
                         run->marks + run->room);
    if (!run->is_composed || marks_from == 0) {
        return;
    }
    size_t kept = 1;
    int32_t last_class = 0; /* of the last mark that was not joined */
    for (size_t i = 1; i < run->count; i++) {
        form_mark mark = run->marks[i];
        if (last_class >= mark.class || !join(&run->marks[0], mark)) {
            last_class = mark.class;
            run->marks[kept++] = mark;
        }
    }
    run->count = kept;
}

static void flush(form_run *run)
{
    for (size_t i = 0; i < run->count; i++) {
        lore_normal_emit(&run->walk, run->marks[i].c, run->marks[i].change);
    }
    run->count = 0;
}

static void push(form_run *run, form_mark mark)
{
    if (mark.class == 0 && run->count > 0) {
        settle(run);
        bool is_alone = run->count == 1 && run->marks[0].class == 0;
        if (is_alone && run->is_composed && join(&run->marks[0], mark)) {
            return;
        }
        flush(run);
    }
    if (reserve(run)) {
        run->marks[run->count++] = mark;
    }
}

static void push_character(form_run *run, int32_t c)
{
    int32_t parts[LORE_UTF8_DECOMPOSED_MAX] = {c};
    size_t count = c < 0x80 ? 1 : lore_utf8_decompose(c, run->is_compatible, parts);
    for (size_t i = 0; i < count; i++) {
        form_mark mark = {parts[i], i > 0,
                          parts[i] < 0x80 ? 0 : lore_utf8_combining_class(parts[i])};
        push(run, mark);
    }
}

/* End of the stretch of characters that begins at `at` and may change. */
static size_t stretch_end(lore_str text, size_t at)
{
    while (at < text.len && (uint8_t)text.ptr[at] >= 0x80) {
        size_t next = at;
        if (lore_character_is_inert(lore_normal_next(text, &next))) {
            break;
        }
        at = next;
    }
    return at;
}

void lore_normal_form(const lore_normal_stage *stage, lore_normal_writer *w)
{
    lore_str text = w->in.text;
    form_run run = {
        .is_composed = stage->is_composed, .is_compatible = stage->is_compatible, .walk = {.w = w}};
    size_t kept = 0;
    for (size_t at = 0; at < text.len && w->failed == LORE_OK;) {
        at += lore_normal_ascii(text, at);
        size_t end = stretch_end(text, at);
        if (end == at) {
            if (at < text.len) {
                lore_normal_next(text, &at);
            }
            continue;
        }
        size_t start = at > kept && (uint8_t)text.ptr[at - 1] < 0x80 ? at - 1 : at;
        lore_normal_copy(w, kept, start - kept);
        run.walk.next = run.walk.last = start;
        while (start < end) {
            push_character(&run, lore_normal_next(text, &start));
        }
        settle(&run);
        flush(&run);
        at = kept = end;
    }
    lore_normal_copy(w, kept, text.len - kept);
}
