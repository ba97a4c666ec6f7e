/* PDF strips: white space that runs down the page between words.
 *
 * Bands are what white space parts over the whole width; a run is bands that leave the same strip
 * free from top to bottom, with text on both sides. */
#include "ingest/pdf_layout_int.h"

#include <stdlib.h>
#include <string.h>

enum { WORK_PER_WORD = 16 /* of finding bands: it takes memory, too */ };

/* In units of the usual height of a word. */
static const float STRIP_USUAL = 1.1F, STRIP_WIDE = 1.5F, LINE_PITCH = 1.2F, LOOSE_BAND = 2.0F,
                   HEADING_SIZE = 1.25F, RETREAT_MORE = .3F, RETREAT_MOST = 8.0F;
enum { LINES_LEAST = 5 }; /* that a narrow strip must pass */

/* ---- bands ---- */

static int by_left(const void *a, const void *b)
{
    const lore_pdf_word *x = *(const lore_pdf_word *const *)a,
                        *y = *(const lore_pdf_word *const *)b;
    return x->box.left < y->box.left ? -1 : x->box.left > y->box.left ? 1 : x < y ? -1 : x > y;
}

/* What of the band's width is free of words, where that is wide enough to be a strip. */
static bool measure_band(lore_pdf_page *page, lore_pdf_part part, lore_pdf_band *b)
{
    const lore_pdf_word **sorted = lore_pdf_push(page, b->count, sizeof *sorted);
    b->gaps = lore_pdf_push(page, b->count, sizeof *b->gaps);
    if (page->is_failed) {
        return false;
    }
    memcpy(sorted, part.words + b->first, b->count * sizeof *sorted);
    qsort(sorted, b->count, sizeof *sorted, by_left);
    b->left = sorted[0]->box.left;
    b->right = sorted[0]->box.right;
    b->top = LORE_PDF_FAR;
    b->bottom = -LORE_PDF_FAR;
    for (size_t i = 0; i < b->count; i++) {
        lore_pdf_box box = sorted[i]->box;
        if (box.left - b->right >= LORE_PDF_STRIP_LEAST * page->em) {
            b->gaps[b->gap_count++] = (lore_pdf_span){b->right, box.left};
        }
        b->right = box.right > b->right ? box.right : b->right;
        b->top = box.top < b->top ? box.top : b->top;
        b->bottom = box.bottom > b->bottom ? box.bottom : b->bottom;
        b->tallest = box.bottom - box.top > b->tallest ? box.bottom - box.top : b->tallest;
    }
    return true;
}

lore_pdf_bands lore_pdf_find_bands(lore_pdf_page *page, lore_pdf_part part)
{
    lore_pdf_bands found = {lore_pdf_push(page, part.count, sizeof(lore_pdf_band)), 0};
    float reach = -LORE_PDF_FAR;
    page->work -= (int64_t)part.count * WORK_PER_WORD;
    for (size_t i = 0; i < part.count && !page->is_failed; i++) {
        if (lore_pdf_core_top(part.words[i]) > reach) {
            found.items[found.count++].first = i;
        }
        found.items[found.count - 1].count++;
        float bottom = lore_pdf_core_bottom(part.words[i]);
        reach = bottom > reach ? bottom : reach;
    }
    for (size_t i = 0; i < found.count && !page->is_failed; i++) {
        (void)measure_band(page, part, &found.items[i]);
    }
    return found;
}

/* ---- runs ---- */

/* The part of the strip that the band leaves free: its widest free overlap with it. */
static lore_pdf_span free_part(const lore_pdf_band *b, lore_pdf_span strip)
{
    lore_pdf_span best = {0, 0};
    for (size_t i = 0; i < b->gap_count + 2; i++) {
        lore_pdf_span gap = i == 0                  ? (lore_pdf_span){-LORE_PDF_FAR, b->left}
                            : i == b->gap_count + 1 ? (lore_pdf_span){b->right, LORE_PDF_FAR}
                                                    : b->gaps[i - 1];
        gap.from = gap.from > strip.from ? gap.from : strip.from;
        gap.to = gap.to < strip.to ? gap.to : strip.to;
        if (gap.to - gap.from > best.to - best.from) {
            best = gap;
        }
    }
    return best;
}

/* May the run go on through this band, `gap` below or above it? A line in large letters, or a line
 * on its own far away, is of something else. */
static bool continues(const lore_pdf_page *page, const lore_pdf_band *b, float gap, bool is_both)
{
    bool is_line = b->bottom - b->top < 2 * b->tallest;
    if (!is_both && b->tallest >= HEADING_SIZE * page->em) {
        return false;
    }
    return !(is_line && gap >= LOOSE_BAND * page->em);
}

static void add_to_side(lore_pdf_side *to, size_t at, const lore_pdf_band *b, size_t words,
                        float lines)
{
    bool is_new = to->words == 0;
    to->first = is_new || at < to->first ? at : to->first;
    to->last = is_new || at > to->last ? at : to->last;
    to->top = is_new || b->top < to->top ? b->top : to->top;
    to->bottom = is_new || b->bottom > to->bottom ? b->bottom : to->bottom;
    to->words += words;
    to->lines += lines;
}

/* Take band `at`, `gap` away from the last one, into the run. */
static bool extend(lore_pdf_page *page, lore_pdf_part part, const lore_pdf_bands *all, size_t at,
                   float gap, lore_pdf_run *r)
{
    const lore_pdf_band *b = &all->items[at];
    lore_pdf_span strip = free_part(b, r->strip);
    if (strip.to - strip.from < LORE_PDF_STRIP_LEAST * page->em) {
        return false;
    }
    size_t left = 0;
    for (size_t i = 0; i < b->count; i++) {
        left += part.words[b->first + i]->box.left < strip.to ? 1 : 0;
    }
    page->work -= (int64_t)b->count + 8;
    if (!continues(page, b, gap, left > 0 && left < b->count)) {
        return false;
    }
    float lines = (b->bottom - b->top) / (LINE_PITCH * page->em);
    lines = lines > 1 ? lines : 1;
    r->strip = strip;
    if (left > 0) {
        add_to_side(&r->left, at, b, left, lines);
    }
    if (left < b->count) {
        add_to_side(&r->right, at, b, b->count - left, lines);
    }
    return true;
}

/* A run met a band that bars its way, at the far side of band `end`. Lines before that may be of
 * either; they go with the run only up to the widest white space near it. */
static size_t retreat(const lore_pdf_page *page, const lore_pdf_bands *all, size_t start,
                      size_t end)
{
    bool is_down = end >= start;
    size_t best = end, steps = is_down ? end - start : start - end;
    float widest = lore_pdf_gap_above(all, is_down ? end + 1 : end) + RETREAT_MORE * page->em;
    float edge = is_down ? all->items[end].bottom : all->items[end].top;
    for (size_t i = 0; i < steps; i++) {
        size_t at = is_down ? end - i : end + i; /* to be given up, and all behind it */
        float gap = lore_pdf_gap_above(all, is_down ? at : at + 1);
        float far = is_down ? edge - all->items[at].top : all->items[at].bottom - edge;
        if (far > RETREAT_MOST * page->em) {
            break;
        }
        if (gap > widest) {
            widest = gap;
            best = is_down ? at - 1 : at + 1;
        }
    }
    return best;
}

/* Grow a run from a gap in band `start`, or between it and the next, downwards, then upwards. */
static lore_pdf_run grow(lore_pdf_page *page, lore_pdf_part part, const lore_pdf_bands *all,
                         size_t start, lore_pdf_span gap)
{
    lore_pdf_run r = {.strip = gap};
    size_t first = start, last = start;
    bool is_good = extend(page, part, all, start, 0, &r);
    while (is_good && last + 1 < all->count && page->work > 0 &&
           extend(page, part, all, last + 1, lore_pdf_gap_above(all, last + 1), &r)) {
        last++;
    }
    while (is_good && first > 0 && page->work > 0 &&
           extend(page, part, all, first - 1, lore_pdf_gap_above(all, first), &r)) {
        first--;
    }
    size_t least = first > 0 ? retreat(page, all, start, first) : first;
    size_t most = last + 1 < all->count ? retreat(page, all, start, last) : last;
    if (least != first || most != last) {
        lore_pdf_span strip = r.strip;
        r = (lore_pdf_run){.strip = strip};
        for (size_t i = least; i <= most; i++) {
            (void)extend(page, part, all, i, 0, &r); /* its strip is free in all of them */
        }
    }
    r.first = least;
    r.last = most;
    return r;
}

static size_t weight(const lore_pdf_run *r)
{
    return r->left.words < r->right.words ? r->left.words : r->right.words;
}

/* About how many lines stand side by side. */
float lore_pdf_run_lines(const lore_pdf_page *page, const lore_pdf_run *r)
{
    const lore_pdf_side *a = &r->left, *b = &r->right;
    float top = a->top > b->top ? a->top : b->top;
    float bottom = a->bottom < b->bottom ? a->bottom : b->bottom;
    float lines = (bottom - top) / (LINE_PITCH * page->em) + .5F;
    lines = a->lines < lines ? a->lines : lines;
    return weight(r) == 0 ? 0 : b->lines < lines ? b->lines : lines;
}

/* The narrower a strip, the more lines it has to pass: rivers in text do not go far. */
static bool is_sound(const lore_pdf_page *page, const lore_pdf_run *r)
{
    float width = (r->strip.to - r->strip.from) / page->em;
    float least = width >= STRIP_WIDE ? 2 : width >= STRIP_USUAL ? 3 : (float)LINES_LEAST;
    return lore_pdf_run_lines(page, r) >= least;
}

/* Where columns have baselines of their own, a strip may lie between lines of neighbouring bands.
 */
static lore_pdf_span gap_between(const lore_pdf_band *b, const lore_pdf_band *next)
{
    return b->right < next->left ? (lore_pdf_span){b->right, next->left}
                                 : (lore_pdf_span){next->right, b->left};
}

/* The run with most text on both sides; false where there is none. */
bool lore_pdf_find_run(lore_pdf_page *page, lore_pdf_part part, const lore_pdf_bands *all,
                       lore_pdf_run *best)
{
    bool is_found = false;
    for (size_t i = 0; i < all->count && page->work > 0; i++) {
        const lore_pdf_band *b = &all->items[i];
        lore_pdf_span between = i + 1 < all->count ? gap_between(b, b + 1) : (lore_pdf_span){0, 0};
        bool has_between = between.to - between.from >= LORE_PDF_STRIP_LEAST * page->em;
        for (size_t k = 0; k < b->gap_count + (has_between ? 1 : 0) && page->work > 0; k++) {
            lore_pdf_run r = grow(page, part, all, i, k < b->gap_count ? b->gaps[k] : between);
            if (is_sound(page, &r) && (!is_found || weight(&r) > weight(best))) {
                *best = r;
                is_found = true;
            }
        }
    }
    return is_found;
}
