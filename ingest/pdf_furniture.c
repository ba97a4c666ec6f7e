/* PDF furniture: headers, footers and page numbers, which would tear sentences that go on overleaf
 * and answer questions with the name of the book.
 *
 * A line is furniture when it stands near the edge of the page, is not larger than the text, and
 * comes again at the same height on other pages: letter for letter, or with a number that grows as
 * page numbers do. */
#include "ingest/pdf_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS_MAX = 4,    /* of a header or footer */
    NEIGHBOURS = 12, /* lines of the same words that are compared with one */
    PAGES_ENOUGH = 3 /* on so many it comes again; in short documents on half of the pages */
};

static const float EDGE = .15F, LARGEST = 1.2F, SAME_PLACE = 4.0F;

/* A line that may be furniture. */
typedef struct suspect {
    uint64_t words, text; /* hashes: without numbers, with them */
    int64_t first, last;  /* numbers in it; -1: none */
    float place;          /* from the edge */
    bool is_below;
    int32_t page;
    size_t line;
} suspect;

/* Value of a line that is nothing but a Roman number, below 1000; -1: it is not. */
static int64_t roman(lore_str text)
{
    static const char signs[] = "ivxlcd";
    static const int64_t values[] = {1, 5, 10, 50, 100, 500};
    int64_t sum = 0, before = 0;
    for (size_t i = text.len; i > 0; i--) {
        const char *sign = memchr(signs, text.ptr[i - 1] | 0x20, 6);
        if (sign == NULL) {
            return -1;
        }
        int64_t value = values[sign - signs];
        sum += value < before ? -value : value;
        before = value > before ? value : before;
    }
    return text.len > 0 && text.len < 8 ? sum : -1;
}

/* Read a line: its words without blanks and case, and its numbers. */
static void read_suspect(lore_str text, suspect *s)
{
    const uint64_t prime = 0x100000001B3;
    uint64_t words = 0xCBF29CE484222325;
    s->text = lore_str_hash(text);
    s->first = s->last = roman(lore_str_trim(text));
    bool is_roman = s->first >= 0, in_number = false;
    for (size_t i = 0; i < text.len && !is_roman; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool is_digit = c >= '0' && c <= '9';
        if (is_digit) {
            int64_t value = in_number ? s->last : 0;
            s->last = value < INT32_MAX ? value * 10 + (c - '0') : value;
        }
        if (in_number && !is_digit && s->first < 0) {
            s->first = s->last;
        }
        if (c > ' ' && !(is_digit && in_number)) {
            words = (words ^ (is_digit ? '#' : c >= 'A' && c <= 'Z' ? c + 32U : c)) * prime;
        }
        in_number = is_digit;
    }
    s->first = s->first < 0 ? s->last : s->first;
    s->words = is_roman ? (0xCBF29CE484222325 ^ '#') * prime : words;
}

static int by_words(const void *a, const void *b)
{
    const suspect *x = a, *y = b;
    if (x->words != y->words) {
        return x->words < y->words ? -1 : 1;
    }
    if (x->is_below != y->is_below) {
        return x->is_below ? 1 : -1;
    }
    return x->page != y->page ? (x->page < y->page ? -1 : 1) : x->line < y->line ? -1 : 1;
}

static bool is_same(const suspect *a, const suspect *b)
{
    int64_t pages = b->page - a->page;
    bool counts = a->last >= 0 && (b->last - a->last == pages || b->first - a->first == pages);
    return a->words == b->words && a->is_below == b->is_below && pages != 0 &&
           fabsf(a->place - b->place) <= SAME_PLACE && (a->text == b->text || counts);
}

/* On how many other pages it comes again, as far as that is of interest. */
static int32_t count_again(const suspect *all, size_t count, size_t at)
{
    int32_t again = 0, before = all[at].page;
    size_t from = at > NEIGHBOURS ? at - NEIGHBOURS : 0;
    for (size_t i = from; i < count && i <= at + NEIGHBOURS; i++) {
        if (is_same(&all[at], &all[i]) && all[i].page != before) {
            again++;
            before = all[i].page;
        }
    }
    return again;
}

/* ---- the edges of a page ---- */

typedef struct placed {
    float place; /* from the edge */
    size_t line;
} placed;

static int by_place(const void *a, const void *b)
{
    const placed *x = a, *y = b;
    return x->place != y->place ? (x->place < y->place ? -1 : 1) : x->line < y->line ? -1 : 1;
}

/* The outermost rows of lines [first, end), of one page, at one of its edges. */
static size_t take_edge(const lore_pdf_lines *lines, size_t first, size_t end, bool is_below,
                        float body, placed *room, suspect *out)
{
    size_t found = 0, used = 0;
    for (size_t i = first; i < end; i++) {
        const lore_pdf_line *line = &lines->items[i];
        float place = is_below ? line->height - line->box.bottom : line->box.top;
        if (place <= EDGE * line->height) {
            room[found++] = (placed){place, i};
        }
    }
    qsort(room, found, sizeof *room, by_place);
    float row = 0;
    int32_t rows = 0;
    for (size_t i = 0; i < found; i++) {
        const lore_pdf_line *line = &lines->items[room[i].line];
        if (i == 0 || room[i].place > row + line->size / 2) {
            rows++;
            row = room[i].place;
        }
        if (rows > ROWS_MAX) {
            break;
        }
        if (line->size <= LARGEST * body) {
            suspect *s = &out[used++];
            *s = (suspect){.place = room[i].place,
                           .is_below = is_below,
                           .page = line->page,
                           .line = room[i].line};
            read_suspect(line->text, s);
        }
    }
    return used;
}

lore_status lore_pdf_mark_furniture(lore_pdf_lines *lines, float body, lore_error *err)
{
    lore_status status = LORE_OK;
    size_t count = 0;
    placed *room = lore_alloc_zero(lines->count, sizeof *room);
    suspect *all = lore_alloc_zero(lines->count, 2 * sizeof *all); /* a line may be at both edges */
    if (room == NULL || all == NULL) {
        status =
            lore_fail(err, LORE_ERR_NOMEM, "out of memory for headers of %d pages", lines->pages);
        goto out;
    }
    for (size_t first = 0, end = 0; first < lines->count; first = end) {
        for (end = first; end < lines->count && lines->items[end].page == lines->items[first].page;
             end++) {
        }
        count += take_edge(lines, first, end, false, body, room, all + count);
        count += take_edge(lines, first, end, true, body, room, all + count);
    }
    qsort(all, count, sizeof *all, by_words);
    int32_t needed = (lines->pages + 1) / 2 < PAGES_ENOUGH ? (lines->pages + 1) / 2 : PAGES_ENOUGH;
    needed = needed < 2 ? 2 : needed;
    for (size_t i = 0; i < count; i++) {
        lore_pdf_line *line = &lines->items[all[i].line];
        bool is_first = i == 0 || !is_same(&all[i - 1], &all[i]);
        /* The head of a table that goes on overleaf is read once. */
        bool is_kept = line->is_row && is_first;
        line->is_left_out =
            line->is_left_out || (!is_kept && count_again(all, count, i) + 1 >= needed);
    }
out:
    lore_free(room);
    lore_free(all);
    return status;
}
