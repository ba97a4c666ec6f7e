/* One map, two ways to apply it.
 *
 * sentencepiece takes the longest key at each place. `tokenizers` goes by user-perceived characters
 * instead: one of fewer than six bytes becomes, as a whole, the replacement of the shortest key
 * that it begins with; where there is none, and in longer ones, each code point is looked up alone.
 * Models are trained with the first and shipped with the second; a tokenizer.json means the second.
 *
 * What is replaced by more characters makes the last ones of them new (change 1), what is replaced
 * by fewer makes the last character written so far swallow the rest; where nothing was written yet
 * that is lost, and the origins of everything behind are late by as many characters. That is how
 * the library counts, and its offsets are the contract. */
#include "models/normal_stage_int.h"

#include "base/utf8.h"

enum { CLUSTER_BYTES = 5 };

static const char SPACE_SYMBOL[] = "\xe2\x96\x81"; /* U+2581 */

/* ---- as tokenizers does ---- */

typedef struct map_run {
    const lore_charsmap *map;
    lore_normal_walk walk;
    bool has_written;
    bool is_held; /* the last character written: its change is not known yet */
    int32_t held, change;
} map_run;

static void release(map_run *run)
{
    if (run->is_held) {
        lore_normal_emit(&run->walk, run->held, run->change);
    }
    run->is_held = false;
}

static void write(map_run *run, int32_t c, int32_t change)
{
    release(run);
    run->is_held = run->has_written = true;
    run->held = c;
    run->change = change;
}

/* Bytes [from, to) stay. */
static void keep(map_run *run, size_t from, size_t to)
{
    lore_str text = run->walk.w->in.text;
    if (from == to) {
        return;
    }
    release(run);
    if (run->walk.next != from) { /* origins are late */
        for (size_t at = from; at < to;) {
            write(run, lore_normal_next(text, &at), 0);
        }
        return;
    }
    size_t last = to;
    lore_utf8_prev(text, &last);
    lore_normal_copy(run->walk.w, from, last - from);
    run->walk.next = last;
    write(run, lore_normal_next(text, &last), 0);
}

static void replace(map_run *run, lore_str text, lore_str replacement)
{
    int32_t old_count = (int32_t)lore_utf8_count(text); /* of a cluster: five at most */
    int32_t count = (int32_t)lore_utf8_count(replacement);
    int32_t done = 0;
    for (size_t at = 0; at < replacement.len; done++) {
        int32_t c = lore_utf8_next(replacement, &at);
        write(run, c, done >= old_count);
    }
    if (count < old_count && run->has_written) {
        run->change -= old_count - count;
    }
}

/* Look up bytes [from, to). False: they stay. */
static bool look_up(map_run *run, size_t *kept, size_t from, size_t to)
{
    lore_str part = lore_str_slice(run->walk.w->in.text, from, to), replacement;
    if (lore_charsmap_match(run->map, part, false, &replacement) == 0) {
        return false;
    }
    keep(run, *kept, from);
    replace(run, part, replacement);
    *kept = to;
    return true;
}

static size_t cluster_end(lore_str text, size_t at)
{
    int32_t state = 0, left = lore_normal_next(text, &at);
    while (at < text.len) {
        size_t next = at;
        int32_t right = lore_normal_next(text, &next);
        if (left < 0 || right < 0 || lore_utf8_is_grapheme_break(left, right, &state)) {
            break;
        }
        left = right;
        at = next;
    }
    return at;
}

void lore_normal_precompiled(const lore_normal_stage *stage, lore_normal_writer *w)
{
    lore_str text = w->in.text;
    map_run run = {.map = stage->charsmap, .walk = {.w = w}};
    size_t kept = 0;
    for (size_t at = 0; at < text.len && w->failed == LORE_OK;) {
        uint8_t byte = (uint8_t)text.ptr[at];
        bool is_single = at + 1 == text.len || (uint8_t)text.ptr[at + 1] < 0x80;
        if (byte < 0x80 && is_single && byte != '\r' &&
            (run.map->ascii[byte] & LORE_CHARSMAP_IS_KEY) == 0) {
            at++;
            continue;
        }
        size_t end = cluster_end(text, at);
        bool is_done = end - at <= CLUSTER_BYTES && look_up(&run, &kept, at, end);
        for (size_t part = at; part < end && !is_done;) {
            size_t from = part;
            lore_normal_next(text, &part);
            look_up(&run, &kept, from, part);
        }
        at = end;
    }
    keep(&run, kept, text.len);
    release(&run);
}

/* ---- as sentencepiece does (normalizer.cc, Normalizer::Normalize) ---- */

/* What the text at `at` begins with, normalised; gives its size in the text. */
static size_t next_prefix(const lore_normal_stage *stage, lore_str text, size_t at,
                          lore_str *prefix)
{
    lore_str rest = lore_str_slice(text, at, text.len);
    size_t size =
        stage->charsmap != NULL ? lore_charsmap_match(stage->charsmap, rest, true, prefix) : 0;
    if (size == 0) {
        bool is_bad = lore_normal_next(rest, &size) < 0;
        *prefix = is_bad ? LORE_STR("\xef\xbf\xbd") : lore_str_slice(rest, 0, size);
    }
    return size;
}

static lore_str space_of(const lore_normal_stage *stage)
{
    return stage->is_escaped ? LORE_STR(SPACE_SYMBOL) : LORE_STR(" ");
}

/* Write a prefix of `size` bytes at `from`, its spaces escaped, without those at its front where a
 * space came before. */
static void put_prefix(const lore_normal_stage *stage, lore_normal_writer *w, lore_str prefix,
                       size_t from, size_t size, bool *is_behind_space)
{
    size_t at = 0;
    while (*is_behind_space && at < prefix.len && prefix.ptr[at] == ' ') {
        at++;
    }
    if (at == prefix.len) {
        return;
    }
    *is_behind_space = stage->is_squeezed && prefix.ptr[prefix.len - 1] == ' ';
    size = prefix.len == size ? size : 0; /* else every byte comes from the first */
    while (at < prefix.len) {
        lore_str rest = lore_str_slice(prefix, at, prefix.len);
        size_t space = lore_str_find(rest, LORE_STR(" "), 0);
        size_t end = space == SIZE_MAX ? rest.len : space;
        lore_normal_put(w, lore_str_slice(rest, 0, end), from, size);
        at += end;
        if (space != SIZE_MAX) {
            lore_normal_put(w, space_of(stage), from, size);
            at++;
        }
    }
}

/* Bytes of ASCII from `at` on that no key begins at, without spaces. */
static size_t plain_run(const lore_charsmap *map, lore_str text, size_t at)
{
    size_t start = at;
    for (; at < text.len; at++) {
        uint8_t byte = (uint8_t)text.ptr[at];
        if (byte >= 0x80 || byte == ' ') {
            break;
        }
        uint8_t flags = map != NULL ? map->ascii[byte] : 0;
        bool is_before_ascii = at + 1 == text.len || (uint8_t)text.ptr[at + 1] < 0x80;
        if (flags != 0 && (flags != LORE_CHARSMAP_BEGINS || !is_before_ascii)) {
            break;
        }
    }
    return at - start;
}

void lore_normal_sentencepiece(const lore_normal_stage *stage, lore_normal_writer *w)
{
    lore_str text = w->in.text, prefix = {0};
    size_t at = 0;
    while (stage->is_squeezed && at < text.len) {
        size_t size = next_prefix(stage, text, at, &prefix);
        if (!lore_str_equal(prefix, LORE_STR(" "))) {
            break;
        }
        at += size;
    }
    if (at == text.len) {
        return;
    }
    if (stage->has_prefix) {
        lore_normal_put(w, space_of(stage), at, 0);
    }
    bool is_behind_space = stage->is_squeezed;
    while (at < text.len && w->failed == LORE_OK) {
        size_t run = plain_run(stage->charsmap, text, at);
        if (run > 0) {
            lore_normal_copy(w, at, run);
            is_behind_space = false;
            at += run;
            continue;
        }
        size_t size = next_prefix(stage, text, at, &prefix);
        put_prefix(stage, w, prefix, at, size, &is_behind_space);
        at += size;
    }
    if (stage->is_squeezed) {
        lore_normal_trim(w, space_of(stage));
    }
}
