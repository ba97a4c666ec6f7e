/* See wording.h. */
#include "eval/wording.h"

#include "index/lexical.h"

#include <stdlib.h>
#include <string.h>

typedef struct words {
    lore_str *items;
    int32_t count;
    lore_arena *arena;
    bool failed;
} words;

static bool is_article(lore_str word)
{
    return lore_str_equal(word, LORE_STR("a")) || lore_str_equal(word, LORE_STR("an")) ||
           lore_str_equal(word, LORE_STR("the"));
}

static bool add_word(void *self, const lore_word *word)
{
    words *w = self;
    if (word->is_bigram || is_article(word->text)) {
        return true; /* a bigram's characters were visited too */
    }
    w->items[w->count] = lore_str_copy(w->arena, word->text);
    w->failed = w->items[w->count].ptr == NULL;
    return !w->failed && ++w->count < LORE_WORDING_WORDS_MAX;
}

static lore_status split(lore_str text, lore_arena *arena, words *w, lore_error *err)
{
    *w = (words){.items = LORE_PUSH(arena, lore_str, LORE_WORDING_WORDS_MAX), .arena = arena};
    lore_status status = LORE_OK;
    if (w->items != NULL) {
        status = lore_words_each(text, add_word, w, err);
    }
    return w->items == NULL || w->failed
               ? lore_fail(err, LORE_ERR_NOMEM, "no memory for the words of an answer")
               : status;
}

static double harmonic(int32_t common, int32_t a, int32_t b)
{
    if (common == 0) {
        return 0.0;
    }
    double precision = (double)common / (double)a;
    double recall = (double)common / (double)b;
    return 2.0 * precision * recall / (precision + recall);
}

static int by_bytes(const void *a, const void *b)
{
    return lore_str_compare(*(const lore_str *)a, *(const lore_str *)b);
}

/* How many words both hold, each as often as in the one that has fewer of it. Sorts both. */
static int32_t count_common(words *a, words *b)
{
    int32_t common = 0;
    qsort(a->items, (size_t)a->count, sizeof *a->items, by_bytes);
    qsort(b->items, (size_t)b->count, sizeof *b->items, by_bytes);
    for (int32_t i = 0, j = 0; i < a->count && j < b->count;) {
        int order = lore_str_compare(a->items[i], b->items[j]);
        common += order == 0;
        i += order <= 0;
        j += order >= 0;
    }
    return common;
}

static bool holds(const words *text, const words *part)
{
    for (int32_t at = 0; part->count > 0 && at + part->count <= text->count; at++) {
        int32_t same = 0;
        while (same < part->count && lore_str_equal(text->items[at + same], part->items[same])) {
            same++;
        }
        if (same == part->count) {
            return true;
        }
    }
    return false;
}

/* Two rows of the usual table: row[j + 1] is the longest for what was read of a and b[0 .. j]. */
static lore_status longest_common(const words *a, const words *b, lore_arena *arena,
                                  int32_t *longest, lore_error *err)
{
    int32_t *row = LORE_PUSH(arena, int32_t, b->count + 1);
    if (row == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for comparing answers");
    }
    for (int32_t i = 0; i < a->count; i++) {
        int32_t diagonal = 0;
        for (int32_t j = 0; j < b->count; j++) {
            int32_t above = row[j + 1];
            row[j + 1] = lore_str_equal(a->items[i], b->items[j]) ? diagonal + 1
                         : above > row[j]                         ? above
                                                                  : row[j];
            diagonal = above;
        }
    }
    *longest = row[b->count];
    return LORE_OK;
}

lore_status lore_wording_compare(lore_str text, const lore_str *expected, int32_t count,
                                 lore_arena *arena, lore_wording *wording, lore_error *err)
{
    lore_wording best = {0};
    words given, wanted, sorted;
    lore_status status = split(text, arena, &given, err);
    if (status == LORE_OK) { /* room for a copy that is sorted */
        status = split((lore_str){NULL, 0}, arena, &sorted, err);
    }
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        int32_t longest = 0;
        status = split(expected[i], arena, &wanted, err);
        if (status == LORE_OK) {
            status = longest_common(&given, &wanted, arena, &longest, err);
        }
        if (status != LORE_OK) {
            break;
        }
        bool is_held = holds(&given, &wanted);
        bool is_exact = is_held && given.count == wanted.count;
        double rouge = harmonic(longest, given.count, wanted.count);
        memcpy(sorted.items, given.items, (size_t)given.count * sizeof *given.items);
        sorted.count = given.count;
        double f1 = harmonic(count_common(&sorted, &wanted), given.count, wanted.count);
        best.exact = is_exact ? 1.0 : best.exact;
        best.is_held = best.is_held || is_held;
        best.f1 = f1 > best.f1 ? f1 : best.f1;
        best.rouge_l = rouge > best.rouge_l ? rouge : best.rouge_l;
    }
    if (status == LORE_OK) {
        *wording = best;
    }
    return status;
}

/* Length of a marker at the beginning of text, 0: none. */
static size_t marker_length(lore_str text, int32_t markers)
{
    int64_t number = 0;
    size_t end =
        text.len > 0 && text.ptr[0] == '[' ? lore_str_find(text, LORE_STR("]"), 1) : SIZE_MAX;
    bool is_marker = end != SIZE_MAX && end < 8 &&
                     lore_str_to_int64(lore_str_slice(text, 1, end), &number) && number >= 1 &&
                     number <= markers;
    return is_marker ? end + 1 : 0;
}

lore_str lore_wording_unmarked(lore_str text, int32_t markers, lore_arena *arena)
{
    char *out = lore_arena_push(arena, text.len + 1);
    size_t size = 0;
    for (size_t at = 0; at < text.len && out != NULL;) {
        size_t marker = marker_length(lore_str_slice(text, at, text.len), markers);
        if (marker == 0) {
            out[size++] = text.ptr[at++];
        }
        at += marker;
    }
    return (lore_str){out, size};
}
