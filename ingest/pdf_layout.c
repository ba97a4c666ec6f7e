/* PDF layout: the words of a page in the order in which people read them.
 *
 * A page is cut along white space. Bands are what white space separates over the whole width; a run
 * of bands that leave the same strip free from top to bottom, with text on both sides, is columns
 * or a table. The run with most text on both sides is taken out, what is above and below it is cut
 * in the same way, and so is each of its columns; so a heading over two columns, three columns
 * below them and a table inside a column come out right without a rule of their own. What has no
 * such strip is lines.
 *
 * Source: the recursive X-Y cut of Nagy and Seth (ICPR 1984), turned round: it cuts between rows
 * first, which tears columns with equal baselines into lines. */
#include "ingest/pdf_layout_int.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum {
    DEPTH_MAX = 48, /* columns in columns in parts of pages */
    GUTTERS_MAX = 31,
    WORK_MAX = 4 * 1000 * 1000, /* some 20 ms; the rest of such a page is read as lines */
    RIVER_LINES_MAX = 5
};

/* In units of the usual height of a word. */
static const float PROSE_WIDTH = 9.0F, PROSE_WIDTH_CASED = 7.5F, FLUSH = .3F, WRAP_GAP = .35F;

/* ---- columns of a run ---- */

/* Strips that all bands from first to last leave free, and that have words on both sides. */
static size_t common_strips(const lore_pdf_page *page, const lore_pdf_bands *all, size_t first,
                            size_t last, lore_pdf_span strips[GUTTERS_MAX])
{
    lore_pdf_span found[2][GUTTERS_MAX + 2] = {{{-LORE_PDF_FAR, LORE_PDF_FAR}}};
    size_t count = 1, now = 0;
    float left = LORE_PDF_FAR, right = -LORE_PDF_FAR;
    for (size_t i = first; i <= last; i++) {
        const lore_pdf_band *b = &all->items[i];
        size_t kept = 0;
        left = b->left < left ? b->left : left;
        right = b->right > right ? b->right : right;
        for (size_t k = 0; k < count; k++) {
            for (size_t g = 0; g < b->gap_count + 2 && kept < GUTTERS_MAX + 2; g++) {
                lore_pdf_span gap = g == 0 ? (lore_pdf_span){-LORE_PDF_FAR, b->left}
                                    : g == b->gap_count + 1
                                        ? (lore_pdf_span){b->right, LORE_PDF_FAR}
                                        : b->gaps[g - 1];
                gap.from = gap.from > found[now][k].from ? gap.from : found[now][k].from;
                gap.to = gap.to < found[now][k].to ? gap.to : found[now][k].to;
                if (gap.to - gap.from >= LORE_PDF_STRIP_LEAST * page->em) {
                    found[1 - now][kept++] = gap;
                }
            }
        }
        count = kept;
        now = 1 - now;
    }
    size_t used = 0;
    for (size_t k = 0; k < count && used < GUTTERS_MAX; k++) {
        if (found[now][k].from >= left && found[now][k].to <= right) {
            strips[used++] = found[now][k];
        }
    }
    return used;
}

typedef struct columns {
    lore_pdf_part parts[GUTTERS_MAX + 1];
    lore_pdf_rows rows[GUTTERS_MAX + 1];
    size_t count;
} columns;

static void split(lore_pdf_page *page, lore_pdf_part part, const lore_pdf_span *strips,
                  size_t strip_count, columns *into)
{
    into->count = strip_count + 1;
    page->work -= (int64_t)(part.count * into->count);
    for (size_t c = 0; c < into->count && !page->is_failed; c++) {
        float from = c == 0 ? -LORE_PDF_FAR : strips[c - 1].from;
        float to = c == strip_count ? LORE_PDF_FAR : strips[c].from;
        size_t count = 0;
        for (size_t i = 0; i < part.count; i++) {
            count += part.words[i]->box.left >= from && part.words[i]->box.left < to ? 1 : 0;
        }
        lore_pdf_part *column = &into->parts[c];
        *column = (lore_pdf_part){lore_pdf_push(page, count, sizeof *part.words), 0};
        for (size_t i = 0; i < part.count && !page->is_failed; i++) {
            if (part.words[i]->box.left >= from && part.words[i]->box.left < to) {
                column->words[column->count++] = part.words[i];
            }
        }
        into->rows[c] = lore_pdf_find_rows(page, *column);
    }
}

/* Bullets and numbers of a list stand in no column of their own: takes the strips behind them out.
 */
static size_t drop_marker_strips(const columns *found, lore_pdf_span *strips, size_t strip_count)
{
    size_t kept = 0;
    for (size_t c = 0; c < strip_count; c++) {
        const lore_pdf_rows *rows = &found->rows[c];
        size_t markers = 0;
        for (size_t i = 0; i < rows->count; i++) {
            markers += lore_pdf_is_marker(&rows->items[i]) ? 1 : 0;
        }
        if (markers * 5 < rows->count * 4) {
            strips[kept++] = strips[c];
        }
    }
    return kept;
}

/* Running text: long lines, most of them as long as the column is wide, that begin in the middle of
 * sentences. */
static bool is_prose(const lore_pdf_page *page, const lore_pdf_rows *rows)
{
    float widest = 0;
    for (size_t i = 0; i < rows->count; i++) {
        float width = rows->items[i].box.right - rows->items[i].box.left;
        widest = width > widest ? width : widest;
    }
    size_t full = 0, inside = 0;
    bool is_cased = false;
    for (size_t i = 0; i < rows->count; i++) {
        const lore_pdf_row *row = &rows->items[i];
        size_t at = 0;
        int32_t c = lore_utf8_next(row->words[0]->text, &at);
        bool has_case = lore_utf8_lower(c) != c || (lore_utf8_is_letter(c) && c < 0x590);
        float width = row->box.right - row->box.left;
        bool is_full = width >= (has_case ? .7F : .9F) * widest;
        is_cased = is_cased || has_case;
        full += is_full ? 1 : 0;
        inside += has_case ? !lore_utf8_is_upper(c) : is_full && lore_utf8_is_letter(c);
    }
    return rows->count >= 2 && widest >= (is_cased ? PROSE_WIDTH_CASED : PROSE_WIDTH) * page->em &&
           full * 2 >= rows->count && inside * 10 >= rows->count * 3;
}

/* Of the column with fewest lines, the share of those on whose baseline another column has one. */
static float aligned_share(const lore_pdf_page *page, const columns *found)
{
    size_t sparse = 0;
    for (size_t c = 1; c < found->count; c++) {
        sparse = found->rows[c].count < found->rows[sparse].count ? c : sparse;
    }
    const lore_pdf_rows *rows = &found->rows[sparse];
    size_t aligned = 0;
    for (size_t c = 0, seen = 0; c < found->count && seen < rows->count; c++) {
        size_t other = 0;
        for (size_t i = 0; c != sparse && i < rows->count; i++) {
            const lore_pdf_rows *theirs = &found->rows[c];
            float at = rows->items[i].box.bottom, near = .2F * page->em;
            while (other < theirs->count && theirs->items[other].box.bottom < at - near) {
                other++;
            }
            aligned += other < theirs->count && theirs->items[other].box.bottom <= at + near;
        }
    }
    size_t pairs = rows->count * (found->count - 1);
    return pairs == 0 ? 0 : (float)aligned / (float)pairs;
}

/* Cells of a column begin at the same place and end where they like, or are figures; what lies
 * right of a river in a paragraph does neither, for all its lines end together. */
static bool has_cells(const lore_pdf_page *page, const lore_pdf_rows *rows)
{
    lore_pdf_span left = {LORE_PDF_FAR, -LORE_PDF_FAR}, right = {LORE_PDF_FAR, -LORE_PDF_FAR};
    size_t figures = 0;
    for (size_t i = 0; i < rows->count; i++) {
        lore_pdf_box box = rows->items[i].box;
        left.from = box.left < left.from ? box.left : left.from;
        left.to = box.left > left.to ? box.left : left.to;
        right.from = box.right < right.from ? box.right : right.from;
        right.to = box.right > right.to ? box.right : right.to;
        char first = rows->items[i].words[0]->text.ptr[0];
        figures += (first >= '0' && first <= '9') || first == '-' || first == '$' ? 1 : 0;
    }
    return figures * 2 >= rows->count || (left.to - left.from <= FLUSH * page->em &&
                                          right.to - right.from > FLUSH / 3 * page->em);
}

/* A few lines with a wide strip: only a table is as narrow. */
static bool is_river(const lore_pdf_page *page, const lore_pdf_run *r, const columns *found)
{
    bool has_all = true;
    for (size_t c = 1; c < found->count; c++) {
        has_all = has_all && has_cells(page, &found->rows[c]);
    }
    return !has_all && lore_pdf_run_lines(page, r) < (float)RIVER_LINES_MAX;
}

static size_t prose_columns(const lore_pdf_page *page, const columns *found)
{
    size_t prose = 0;
    for (size_t c = 0; c < found->count; c++) {
        prose += is_prose(page, &found->rows[c]) ? 1 : 0;
    }
    return prose;
}

/* ---- the walk ---- */

static void cut(lore_pdf_page *page, lore_pdf_part part, int32_t depth);

static lore_pdf_part slice(lore_pdf_part part, size_t from, size_t to)
{
    return (lore_pdf_part){part.words + from, to - from};
}

static lore_pdf_part words_of(lore_pdf_part part, const lore_pdf_bands *all, size_t first,
                              size_t last)
{
    const lore_pdf_band *end = &all->items[last];
    return slice(part, all->items[first].first, end->first + end->count);
}

static void emit_lines(lore_pdf_page *page, lore_pdf_part part)
{
    lore_pdf_rows rows = lore_pdf_find_rows(page, part);
    if (!page->is_failed) {
        lore_pdf_emit_rows(page, &rows);
    }
}

/* The strip at which to part columns. That of the run is free over all of it; where it stands
 * behind bullets, another, as far as that is known to be free. */
static lore_pdf_span choose_strip(lore_pdf_run *r, size_t first_both, size_t last_both,
                                  const lore_pdf_span *strips, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strips[i].from < r->strip.to && strips[i].to > r->strip.from) {
            return r->strip;
        }
    }
    r->first = first_both;
    r->last = last_both;
    return strips[0];
}

/* Columns one after another, or rows; false: a list, which is lines. */
static bool emit_run(lore_pdf_page *page, lore_pdf_part part, const lore_pdf_bands *all,
                     lore_pdf_run *r, int32_t depth)
{
    lore_pdf_span strips[GUTTERS_MAX];
    columns *found = lore_pdf_push(page, 1, sizeof *found);
    /* What stands beside something; a column may go on alone above and below, a table does not. */
    size_t first = r->left.first > r->right.first ? r->left.first : r->right.first;
    size_t last = r->left.last < r->right.last ? r->left.last : r->right.last;
    LORE_ASSERT(first <= last); /* is_sound saw lines side by side */
    size_t count = common_strips(page, all, first, last, strips);
    while (count > 0 && last < r->last && all->items[last + 1].left >= strips[0].from &&
           lore_pdf_gap_above(all, last + 1) <= WRAP_GAP * page->em) {
        last++; /* cells of more lines than the first one of their row */
    }
    count = common_strips(page, all, first, last, strips);
    lore_pdf_part both = words_of(part, all, first, last);
    if (found == NULL || count == 0) {
        return false;
    }
    split(page, both, strips, count, found);
    size_t kept = page->is_failed ? 0 : drop_marker_strips(found, strips, count);
    if (kept == 0) {
        return false;
    }
    if (kept < count) {
        split(page, both, strips, kept, found);
    }
    bool is_text = page->is_failed || prose_columns(page, found) >= 2;
    if (!is_text && is_river(page, r, found)) {
        return false;
    }
    if (!is_text && aligned_share(page, found) >= .6F) {
        r->first = first;
        r->last = last;
        cut(page, slice(part, 0, all->items[r->first].first), depth + 1);
        lore_pdf_emit_table(page, found->rows, found->count);
        return true;
    }
    lore_pdf_span strip = choose_strip(r, first, last, strips, kept);
    split(page, words_of(part, all, r->first, r->last), &strip, 1, found);
    cut(page, slice(part, 0, all->items[r->first].first), depth + 1);
    for (size_t c = 0; c < found->count && !page->is_failed; c++) {
        cut(page, found->parts[c], depth + 1);
    }
    return true;
}

static void cut(lore_pdf_page *page, lore_pdf_part part, int32_t depth)
{
    while (part.count > 0 && !page->is_failed) {
        lore_pdf_run r = {0};
        lore_pdf_bands all = lore_pdf_find_bands(page, part);
        if (page->is_failed) {
            return;
        }
        if (depth >= DEPTH_MAX || page->work <= 0 || !lore_pdf_find_run(page, part, &all, &r)) {
            emit_lines(page, part);
            return;
        }
        if (!emit_run(page, part, &all, &r, depth) && !page->is_failed) {
            cut(page, slice(part, 0, all.items[r.first].first), depth + 1);
            emit_lines(page, words_of(part, &all, r.first, r.last));
        }
        const lore_pdf_band *end = &all.items[r.last];
        part = slice(part, end->first + end->count, part.count);
    }
}

/* ---- a page ---- */

static int by_core(const void *a, const void *b)
{
    const lore_pdf_word *x = *(const lore_pdf_word *const *)a,
                        *y = *(const lore_pdf_word *const *)b;
    float p = lore_pdf_core_top(x), q = lore_pdf_core_top(y);
    if (p == q) {
        p = x->box.left;
        q = y->box.left;
    }
    return p < q ? -1 : p > q ? 1 : x < y ? -1 : x > y;
}

/* A word of several letters that is far higher than wide runs up or down the page. */
static bool is_turned(const lore_pdf_word *word)
{
    size_t letters = lore_utf8_count(word->text);
    float width = word->box.right - word->box.left, height = word->box.bottom - word->box.top;
    return (letters == 2 && height > 3 * width) || (letters > 2 && height > 2 * width);
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static float median_height(lore_pdf_page *page, lore_pdf_part part)
{
    float *heights = lore_pdf_push(page, part.count, sizeof *heights);
    for (size_t i = 0; heights != NULL && i < part.count; i++) {
        heights[i] = part.words[i]->box.bottom - part.words[i]->box.top;
    }
    if (heights == NULL || part.count == 0) {
        return 1;
    }
    qsort(heights, part.count, sizeof *heights, by_value);
    float median = heights[part.count / 2];
    return median > 1 ? median : 1;
}

lore_status lore_pdf_layout(const lore_pdf_word *words, size_t count, float height,
                            lore_arena *scratch, lore_arena *arena, lore_pdf_lines *lines,
                            lore_error *err)
{
    lore_pdf_page page = {
        .scratch = scratch, .arena = arena, .lines = lines, .height = height, .work = WORK_MAX};
    lore_pdf_part upright = {lore_pdf_push(&page, count, sizeof(lore_pdf_word *)), 0},
                  turned = {lore_pdf_push(&page, count, sizeof(lore_pdf_word *)), 0};
    for (size_t i = 0; i < count && !page.is_failed; i++) {
        lore_pdf_part *part = is_turned(&words[i]) ? &turned : &upright;
        part->words[part->count++] = &words[i];
    }
    if (!page.is_failed) {
        page.em = median_height(&page, upright);
        qsort(upright.words, upright.count, sizeof *upright.words, by_core);
        cut(&page, upright, 0);
        lore_pdf_emit_turned(&page, turned);
    }
    return page.is_failed
               ? lore_fail(err, LORE_ERR_NOMEM, "out of memory laying out page %d", lines->pages)
               : LORE_OK;
}
