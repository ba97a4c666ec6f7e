/* PDF text: lines in reading order to paragraphs, headings, items and rows.
 *
 * A line goes on with the paragraph unless something says otherwise: more space above it than lines
 * have, letters of another size, an indent, a bullet, or a line before it that ended although the
 * first word of this one had room on it. A paragraph may go on in the next column or overleaf. */
#include "ingest/pdf_int.h"

#include "base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SIZES = 256, HEADING_LINES_MAX = 4, NUMBERED_BYTES_MAX = 100 };

/* In units of the size of letters, of the usual pitch of lines, or of the width of a column. */
static const float HEADING_SIZE = 1.15F, SAME_SIZE = .1F, WIDE_PITCH = 1.3F, INDENT = .8F,
                   EDGE_SLACK = .5F, SHORT_LINE = .4F, APART = 2.2F, FAR_APART = 3.5F;

typedef struct writer {
    const lore_pdf_lines *lines;
    lore_builder *builder;
    lore_pdf_vocabulary words;
    float body;
    int32_t levels[SIZES]; /* of headings, by twice their size */
    float *pitches;        /* room for those of a region */
    size_t part_end;       /* of a region, behind its last line; of that these are known: */
    float left, right, pitch;
    const lore_pdf_line *first,
        *last;     /* of the paragraph under construction; NULL: there is none */
    size_t hyphen; /* bytes at its end that are still owed */
    bool is_tight; /* Chinese and other letters stand side by side without a blank */
} writer;

/* ---- sizes ---- */

static size_t size_index(float size)
{
    float twice = size * 2 + .5F;
    return twice < 1 ? 0 : twice >= SIZES ? SIZES - 1 : (size_t)twice;
}

/* The size that most of the text has. */
static float body_size(const lore_pdf_lines *lines)
{
    size_t bytes[SIZES] = {0}, best = 0;
    for (size_t i = 0; i < lines->count; i++) {
        bytes[size_index(lines->items[i].size)] += lines->items[i].text.len;
    }
    for (size_t i = 1; i < SIZES; i++) {
        best = bytes[i] > bytes[best] ? i : best;
    }
    return best == 0 ? .5F : (float)best / 2;
}

static bool has_letter(lore_str text)
{
    for (size_t at = 0; at < text.len;) {
        if (lore_utf8_is_letter(lore_utf8_next(text, &at))) {
            return true;
        }
    }
    return false;
}

static bool is_large(const writer *w, const lore_pdf_line *line)
{
    return !line->is_left_out && !line->is_row && line->size >= HEADING_SIZE * w->body &&
           line->text.len <= LORE_HEADING_BYTES_MAX && has_letter(line->text);
}

/* The larger, the higher. */
static void rank_sizes(writer *w)
{
    for (size_t i = 0; i < w->lines->count; i++) {
        const lore_pdf_line *line = &w->lines->items[i];
        w->levels[size_index(line->size)] += is_large(w, line) ? 1 : 0;
    }
    int32_t level = 0;
    for (size_t i = SIZES; i > 0; i--) {
        if (w->levels[i - 1] > 0) {
            level += level < LORE_HEADING_LEVELS ? 1 : 0;
            w->levels[i - 1] = level;
        }
    }
}

static bool is_unspaced(int32_t c)
{
    return c >= 0x2E80 && lore_utf8_is_cjk(c);
}

/* How this document sets "第 1 章": a line break in there does not say. */
static bool is_tight(const lore_pdf_lines *lines)
{
    int64_t tight = 0;
    for (size_t i = 0; i < lines->count; i++) {
        lore_str text = lines->items[i].text;
        int32_t before = 0, last = 0; /* the last character, and the one before */
        for (size_t at = 0; at < text.len;) {
            int32_t c = lore_utf8_next(text, &at);
            bool is_meeting = last != ' ' && last != 0 && is_unspaced(c) != is_unspaced(last);
            bool is_apart = last == ' ' && before != 0 && is_unspaced(c) != is_unspaced(before);
            tight += is_meeting && c != ' ' ? 1 : is_apart ? -1 : 0;
            before = last;
            last = c;
        }
    }
    return tight > 0;
}

/* ---- regions ---- */

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* Measure what begins with line `at` of its region, up to a heading. */
static void enter_part(writer *w, size_t at)
{
    const lore_pdf_line *first = &w->lines->items[at];
    size_t pitches = 0;
    w->left = first->box.left;
    w->right = first->box.right;
    size_t i = at;
    for (; i < w->lines->count && w->lines->items[i].region == first->region; i++) {
        const lore_pdf_line *line = &w->lines->items[i];
        if (line->is_left_out) {
            continue;
        }
        if (is_large(w, line) != is_large(w, first)) {
            break;
        }
        w->left = line->box.left < w->left ? line->box.left : w->left;
        w->right = line->box.right > w->right ? line->box.right : w->right;
        float pitch = i == at ? 0 : line->box.bottom - line[-1].box.bottom;
        if (pitch > 0 && fabsf(line->size - line[-1].size) <= SAME_SIZE * line->size) {
            w->pitches[pitches++] = pitch;
        }
    }
    w->part_end = i;
    qsort(w->pitches, pitches, sizeof *w->pitches, by_value);
    w->pitch = pitches == 0 ? 0 : w->pitches[pitches / 2];
}

/* ---- where paragraphs end ---- */

static int32_t first_letter(lore_str text)
{
    size_t at = 0;
    return text.len == 0 ? 0 : lore_utf8_next(text, &at);
}

static int32_t last_letter(lore_str text)
{
    size_t at = text.len;
    return text.len == 0 ? 0 : lore_utf8_prev(text, &at);
}

static bool is_lower(int32_t c)
{
    return lore_utf8_is_letter(c) && !lore_utf8_is_upper(c) && c < 0x590;
}

/* Does a sentence end with it? Quotes and brackets may stand behind. */
static bool is_end(lore_str text)
{
    static const int32_t ends[] = {'.',    '!',    '?',    ':',    ';',   0x3002,
                                   0xFF01, 0xFF1F, 0xFF1A, 0xFF1B, 0x2026};
    static const int32_t closings[] = {'"', '\'', ')', ']', 0x201D, 0x2019, 0x300D, 0xFF09, 0xBB};
    for (size_t at = text.len; at > 0;) {
        int32_t c = lore_utf8_prev(text, &at);
        for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
            if (c == ends[i]) {
                return true;
            }
        }
        bool is_closing = false;
        for (size_t i = 0; i < sizeof closings / sizeof closings[0]; i++) {
            is_closing = is_closing || c == closings[i];
        }
        if (!is_closing) {
            return false;
        }
    }
    return false;
}

/* Bytes of a bullet and the blank behind it; 0: there is none. */
static size_t bullet_bytes(lore_str text)
{
    static const char *const bullets[] = {"\xE2\x80\xA2",
                                          "\xE2\x97\x8F",
                                          "\xE2\x97\x8B",
                                          "\xE2\x96\xAA",
                                          "\xE2\x96\xA0",
                                          "\xE2\x80\xA3",
                                          "\xE2\x97\xA6",
                                          "\xEF\x82\xB7",
                                          "\xC2\xB7",
                                          "\xE2\x80\x93",
                                          "-",
                                          "*"};
    for (size_t i = 0; i < sizeof bullets / sizeof bullets[0]; i++) {
        lore_str bullet = lore_str_from(bullets[i]);
        if (lore_str_starts(text, bullet) && text.len > bullet.len + 1 &&
            text.ptr[bullet.len] == ' ') {
            return bullet.len + 1;
        }
    }
    return 0;
}

/* Had the first word of the line room on the one before? Where letters say that the sentence goes
 * on, only a line that ends far too soon was ended on purpose. */
static bool is_short(const writer *w, const lore_pdf_line *before, const lore_pdf_line *line)
{
    float room = w->right - before->box.right - EDGE_SLACK * before->size;
    float needed = line->first_width + .3F * line->size;
    bool goes_on = !is_end(before->text) &&
                   (is_lower(first_letter(line->text)) || is_unspaced(last_letter(before->text)));
    return room > needed && (!goes_on || room > SHORT_LINE * (w->right - w->left));
}

/* The first line of a paragraph, or one behind an item whose lines hang. */
static bool is_moved(const writer *w, const lore_pdf_line *before, const lore_pdf_line *line)
{
    float step = line->box.left - before->box.left, size = line->size;
    if (step > INDENT * size) {
        return is_end(before->text) && before->box.left < w->left + INDENT * size;
    }
    return step < -INDENT * size && w->first != before &&
           before->box.left > w->first->box.left + INDENT * size &&
           fabsf(line->box.left - w->first->box.left) < INDENT * size / 2;
}

/* "2.1 Results" and its like; the level, 0: it is none. */
static int32_t numbered_level(lore_str text)
{
    size_t at = 0;
    int32_t dots = 0;
    if (text.len > NUMBERED_BYTES_MAX || is_end(text)) {
        return 0;
    }
    if (lore_str_starts(text, LORE_STR("\xE7\xAC\xAC"))) { /* "the ...th" */
        lore_str chapter = LORE_STR("\xE7\xAB\xA0"), section = LORE_STR("\xE8\x8A\x82");
        size_t near = text.len < 18 ? text.len : 18;
        lore_str head = lore_str_slice(text, 0, near);
        return lore_str_find(head, chapter, 3) != SIZE_MAX   ? 1
               : lore_str_find(head, section, 3) != SIZE_MAX ? 2
                                                             : 0;
    }
    while (at < text.len && ((text.ptr[at] >= '0' && text.ptr[at] <= '9') || text.ptr[at] == '.')) {
        bool is_inside = text.ptr[at] == '.' && at > 0 && at + 1 < text.len &&
                         text.ptr[at + 1] >= '0' && text.ptr[at + 1] <= '9';
        dots += is_inside ? 1 : 0;
        at++;
    }
    bool is_title = at > 2 && at + 2 < text.len && text.ptr[at] == ' ';
    int32_t c = is_title ? first_letter(lore_str_slice(text, at + 1, text.len)) : 0;
    bool is_capital = lore_utf8_is_upper(c) || is_unspaced(c);
    return dots > 0 && dots < LORE_HEADING_LEVELS && is_capital ? dots + 1 : 0;
}

/* Lines of one region. */
static bool is_parted(const writer *w, const lore_pdf_line *before, const lore_pdf_line *line)
{
    float pitch = line->box.bottom - before->box.bottom;
    if (fabsf(line->size - before->size) > SAME_SIZE * line->size || pitch <= 0 ||
        (w->pitch > 0 && pitch > WIDE_PITCH * w->pitch) || bullet_bytes(line->text) > 0) {
        return true;
    }
    if (lore_pdf_hyphen(before->text) > 0) {
        return false;
    }
    if (pitch > (is_end(before->text) || numbered_level(before->text) > 0 ? APART : FAR_APART) *
                    line->size) {
        return true;
    }
    return is_moved(w, before, line) || is_short(w, before, line);
}

/* The last line of one region and the first of the next: only what cannot stand alone goes on. */
static bool is_carried(const writer *w, const lore_pdf_line *before, const lore_pdf_line *line)
{
    if (fabsf(line->size - before->size) > SAME_SIZE * line->size || is_end(before->text)) {
        return false;
    }
    bool is_chinese = is_unspaced(last_letter(before->text)) &&
                      is_unspaced(first_letter(line->text)) &&
                      line->box.left < w->left + INDENT * line->size;
    return is_lower(first_letter(line->text)) || is_chinese;
}

/* ---- writing ---- */

static void made(const writer *w, lore_str text, const lore_pdf_line *line)
{
    lore_builder_made(w->builder, text, (size_t)line->page);
}

static void end_paragraph(writer *w)
{
    if (w->last != NULL) {
        lore_str text = w->last->text;
        made(w, lore_str_slice(text, text.len - w->hyphen, text.len), w->last);
        int32_t level = w->first == w->last ? numbered_level(text) : 0;
        if (level > 0) {
            lore_builder_heading(w->builder, level);
        } else {
            lore_builder_item_end(w->builder);
        }
    }
    w->first = w->last = NULL;
    w->hyphen = 0;
}

static void add_line(writer *w, const lore_pdf_line *line)
{
    lore_str text = line->text;
    if (w->last == NULL) {
        size_t bullet = bullet_bytes(text);
        w->first = line;
        if (bullet > 0) {
            lore_builder_item(w->builder, LORE_STR("- "), (size_t)line->page);
            text = lore_str_slice(text, bullet, text.len);
        }
    } else if (w->hyphen > 0) {
        lore_str before = w->last->text;
        if (!lore_pdf_is_broken_word(&w->words, before, text)) {
            made(w, lore_str_slice(before, before.len - w->hyphen, before.len), w->last);
        }
    } else if (!w->is_tight ||
               is_unspaced(last_letter(w->last->text)) == is_unspaced(first_letter(line->text))) {
        made(w, LORE_STR("\n"), line); /* a blank, in Chinese nothing */
    }
    w->hyphen = lore_pdf_hyphen(text);
    made(w, lore_str_slice(text, 0, text.len - w->hyphen), line);
    w->last = line;
}

/* A heading of several lines; gives the index behind it. Too long for one: 0. */
static size_t write_heading(writer *w, size_t at)
{
    const lore_pdf_line *first = &w->lines->items[at];
    size_t end = at, bytes = 0;
    while (end < w->lines->count && is_large(w, &w->lines->items[end]) &&
           w->lines->items[end].region == first->region &&
           fabsf(w->lines->items[end].size - first->size) <= SAME_SIZE / 2 * first->size &&
           (end == at || w->lines->items[end].box.bottom - w->lines->items[end - 1].box.bottom <=
                             2 * first->size)) {
        bytes += w->lines->items[end].text.len + 1;
        end++;
    }
    if (end - at > HEADING_LINES_MAX || bytes > LORE_HEADING_BYTES_MAX) {
        return 0;
    }
    end_paragraph(w);
    for (size_t i = at; i < end; i++) {
        made(w, i > at ? LORE_STR("\n") : (lore_str){"", 0}, first);
        made(w, w->lines->items[i].text, &w->lines->items[i]);
    }
    lore_builder_heading(w->builder, w->levels[size_index(first->size)]);
    return end;
}

static void write_line(writer *w, const lore_pdf_line *line)
{
    if (line->is_row) {
        end_paragraph(w);
        made(w, line->text, line);
        lore_builder_item_end(w->builder);
        return;
    }
    bool is_same_region = w->last != NULL && w->last->region == line->region;
    if (w->last != NULL &&
        (is_same_region ? is_parted(w, w->last, line) : !is_carried(w, w->last, line))) {
        end_paragraph(w);
    }
    add_line(w, line);
}

lore_status lore_pdf_write(lore_pdf_lines *lines, lore_builder *builder, lore_error *err)
{
    writer w = {.lines = lines, .builder = builder, .body = body_size(lines)};
    lore_status status = lore_pdf_mark_furniture(lines, w.body, err);
    if (status == LORE_OK) {
        status = lore_pdf_learn_words(lines, &w.words, err);
    }
    w.pitches = lore_alloc_zero(lines->count, sizeof *w.pitches);
    if (status == LORE_OK && w.pitches == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for %zu lines", lines->count);
    }
    if (status == LORE_OK) {
        rank_sizes(&w);
        w.is_tight = is_tight(lines);
    }
    for (size_t i = 0; status == LORE_OK && i < lines->count && !builder->is_full;) {
        const lore_pdf_line *line = &lines->items[i];
        if (i >= w.part_end) {
            enter_part(&w, i);
        }
        size_t end = is_large(&w, line) ? write_heading(&w, i) : 0;
        if (end == 0 && !line->is_left_out) {
            write_line(&w, line);
        }
        i = end > 0 ? end : i + 1;
    }
    if (status == LORE_OK) {
        end_paragraph(&w);
    }
    lore_pdf_forget_words(&w.words);
    lore_free(w.pitches);
    return status;
}
