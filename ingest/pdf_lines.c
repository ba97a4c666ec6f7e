/* PDF lines: words that stand beside one another become lines, and cells in rows of a table.
 *
 * A word belongs to a line when its middle lies in the line's height; heights of neighbouring lines
 * overlap, middles never do. Raised and lowered figures are small words of their line. */
#include "ingest/pdf_layout_int.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { OPEN_ROWS = 6, FIRST_ROOM = 64, LEADER_DOTS = 4 };

/* In units of the height of a word. */
static const float SMALLEST = .45F, GAP_OF_BLANK = .1F, GAP_OF_UNSPACED = .6F, WRAP_PITCH = 1.35F;

static float height_of(const lore_pdf_word *word)
{
    return word->box.bottom - word->box.top;
}

static void widen(lore_pdf_box *box, lore_pdf_box other)
{
    box->left = other.left < box->left ? other.left : box->left;
    box->top = other.top < box->top ? other.top : box->top;
    box->right = other.right > box->right ? other.right : box->right;
    box->bottom = other.bottom > box->bottom ? other.bottom : box->bottom;
}

/* ---- rows ---- */

static int by_left(const void *a, const void *b)
{
    const lore_pdf_word *x = *(const lore_pdf_word *const *)a,
                        *y = *(const lore_pdf_word *const *)b;
    return x->box.left < y->box.left ? -1 : x->box.left > y->box.left ? 1 : x < y ? -1 : x > y;
}

/* Does the word stand in the line that this one, the largest of it, speaks for? */
static bool belongs(const lore_pdf_word *word, const lore_pdf_word *speaker)
{
    bool is_smaller = height_of(word) <= height_of(speaker);
    const lore_pdf_word *small = is_smaller ? word : speaker, *large = is_smaller ? speaker : word;
    float middle = (small->box.top + small->box.bottom) / 2;
    return middle >= large->box.top && middle <= large->box.bottom &&
           height_of(small) >= SMALLEST * height_of(large);
}

static void measure_row(lore_pdf_row *row)
{
    float sum = 0, letters = 0;
    qsort(row->words, row->count, sizeof *row->words, by_left);
    row->box = row->words[0]->box;
    for (size_t i = 0; i < row->count; i++) {
        float bytes = (float)row->words[i]->text.len;
        widen(&row->box, row->words[i]->box);
        sum += height_of(row->words[i]) * bytes;
        letters += bytes;
    }
    row->size = sum / letters; /* no text is empty */
}

lore_pdf_rows lore_pdf_find_rows(lore_pdf_page *page, lore_pdf_part part)
{
    const lore_pdf_word **speakers = lore_pdf_push(page, part.count, sizeof *speakers);
    size_t *row_of = lore_pdf_push(page, part.count, sizeof *row_of), rows = 0;
    const lore_pdf_word **words = lore_pdf_push(page, part.count, sizeof *words);
    if (page->is_failed) {
        return (lore_pdf_rows){NULL, 0};
    }
    for (size_t i = 0; i < part.count; i++) {
        const lore_pdf_word *word = part.words[i];
        size_t at = rows, least = rows > OPEN_ROWS ? rows - OPEN_ROWS : 0;
        while (at > least && !belongs(word, speakers[at - 1])) {
            at--;
        }
        row_of[i] = at > least ? at - 1 : rows;
        rows += at > least ? 0 : 1;
        const lore_pdf_word **speaker = &speakers[row_of[i]];
        *speaker = *speaker == NULL || height_of(word) > height_of(*speaker) ? word : *speaker;
    }
    lore_pdf_rows found = {lore_pdf_push(page, rows, sizeof *found.items), rows};
    for (size_t i = 0; i < part.count && !page->is_failed; i++) {
        found.items[row_of[i]].count++;
    }
    for (size_t i = 0, at = 0; i < rows && !page->is_failed; i++) {
        found.items[i].words = words + at;
        at += found.items[i].count;
        found.items[i].count = 0;
    }
    for (size_t i = 0; i < part.count && !page->is_failed; i++) {
        lore_pdf_row *row = &found.items[row_of[i]];
        row->words[row->count++] = part.words[i];
    }
    for (size_t i = 0; i < rows && !page->is_failed; i++) {
        measure_row(&found.items[i]);
    }
    return found;
}

bool lore_pdf_is_marker(const lore_pdf_row *row)
{
    static const char *const bullets[] = {"\xE2\x80\xA2",
                                          "\xE2\x97\x8F",
                                          "\xE2\x97\x8B",
                                          "\xE2\x96\xAA",
                                          "\xE2\x96\xA0",
                                          "\xE2\x80\x93",
                                          "\xE2\x80\x94",
                                          "\xE2\x80\xA3",
                                          "\xE2\x97\xA6",
                                          "\xC2\xB7",
                                          "\xEF\x82\xB7",
                                          "-",
                                          "*"};
    lore_str text = row->words[0]->text;
    if (row->count != 1) {
        return false;
    }
    for (size_t i = 0; i < sizeof bullets / sizeof bullets[0]; i++) {
        if (lore_str_equal(text, lore_str_from(bullets[i]))) {
            return true;
        }
    }
    /* "12.", "(a)", "1.2.3", "[7]", "iv)" */
    size_t letters = 0, digits = 0, signs = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        digits += c >= '0' && c <= '9' ? 1 : 0;
        letters += (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ? 1 : 0;
        signs += strchr(".()[]:", c) != NULL && c != '\0' ? 1 : 0;
    }
    return text.len <= 8 && signs > 0 && digits + letters > 0 &&
           digits + letters + signs == text.len &&
           (letters == 0 ? digits <= 6 : letters <= 4 && digits == 0);
}

/* ---- text ---- */

static bool is_unspaced(int32_t c)
{
    bool is_hangul = (c >= 0x1100 && c <= 0x11FF) || (c >= 0xAC00 && c <= 0xD7FF);
    return c >= 0x2E80 && c <= 0xFFFF && !is_hangul;
}

/* Is there a blank between two words of a line? Their gap says so; Chinese that is set wide has
 * none. */
static bool has_blank(const lore_pdf_word *word, const lore_pdf_word *next)
{
    size_t end = word->text.len, start = 0;
    float size = height_of(word) > height_of(next) ? height_of(word) : height_of(next);
    float gap = next->box.left - word->box.right;
    bool is_wide = is_unspaced(lore_utf8_prev(word->text, &end)) &&
                   is_unspaced(lore_utf8_next(next->text, &start));
    return gap > (is_wide ? GAP_OF_UNSPACED : GAP_OF_BLANK) * size || gap < -size;
}

/* The dots of a table of contents lead the eye, not the reader of text. Gives how many words they
 * are; 0: there are too few of them. */
static size_t leader_words(const lore_pdf_word *const *words, size_t count)
{
    size_t dots = 0, i = 0;
    for (bool is_dots = true; i < count; i++) {
        lore_str text = words[i]->text;
        for (size_t k = 0; k < text.len && is_dots; k++) {
            is_dots = text.ptr[k] == '.' || text.ptr[k] == '_';
        }
        if (!is_dots) {
            break;
        }
        dots += text.len;
    }
    return dots >= LEADER_DOTS ? i : 0;
}

static lore_str join(const lore_pdf_word *const *words, size_t count, lore_arena *arena)
{
    size_t room = 1, used = 0;
    const lore_pdf_word *before = NULL;
    for (size_t i = 0; i < count; i++) {
        room += words[i]->text.len + 1;
    }
    char *text = lore_arena_push(arena, room);
    for (size_t i = 0; text != NULL && i < count; i++) {
        i += leader_words(words + i, count - i);
        if (i == count) {
            break;
        }
        if (before != NULL && (before != words[i - 1] || has_blank(before, words[i]))) {
            text[used++] = ' ';
        }
        before = words[i];
        memcpy(text + used, before->text.ptr, before->text.len);
        used += before->text.len;
    }
    return (lore_str){text, used};
}

/* ---- lines ---- */

static lore_pdf_line *push_line(lore_pdf_page *page)
{
    lore_pdf_lines *lines = page->lines;
    if (lines->count == lines->room) {
        size_t room = lines->room == 0 ? FIRST_ROOM : lines->room * 2;
        lore_pdf_line *grown = lore_realloc(lines->items, room * sizeof *grown);
        if (grown == NULL) {
            page->is_failed = true;
            return NULL;
        }
        lines->items = grown;
        lines->room = room;
    }
    lore_pdf_line *line = &lines->items[lines->count];
    *line = (lore_pdf_line){.page = lines->pages, .region = lines->regions, .height = page->height};
    return line;
}

static void emit_row(lore_pdf_page *page, const lore_pdf_row *row, bool is_alone)
{
    lore_str text = join(row->words, row->count, page->arena);
    lore_pdf_line *line = text.ptr == NULL ? NULL : push_line(page);
    page->is_failed = line == NULL;
    if (line != NULL && text.len > 0) {
        size_t at = 0;
        const lore_pdf_word *first = row->words[0];
        float width = first->box.right - first->box.left;
        bool breaks_anywhere = is_unspaced(lore_utf8_next(first->text, &at));
        line->box = row->box;
        line->text = text;
        line->size = row->size;
        line->is_row = is_alone;
        line->first_width = breaks_anywhere && width > row->size ? row->size : width;
        page->lines->count++;
    }
}

void lore_pdf_emit_rows(lore_pdf_page *page, const lore_pdf_rows *rows)
{
    for (size_t i = 0; i < rows->count && !page->is_failed; i++) {
        emit_row(page, &rows->items[i], false);
    }
    page->lines->regions++;
}

void lore_pdf_emit_turned(lore_pdf_page *page, lore_pdf_part part)
{
    /* pdftotext has them in order; words that are not in one column are of different lines. */
    for (size_t first = 0, end = 0; first < part.count && !page->is_failed; first = end) {
        lore_pdf_row row = {part.words + first, 0, part.words[first]->box, 0};
        for (end = first; end < part.count; end++) {
            lore_pdf_box box = part.words[end]->box;
            if (box.left > row.box.right || box.right < row.box.left) {
                break;
            }
            widen(&row.box, box);
            row.count++;
        }
        row.size = row.box.right - row.box.left;
        emit_row(page, &row, true);
        page->lines->regions++;
    }
}

/* ---- tables ---- */

typedef struct cell {
    const lore_pdf_row *row;
    size_t column;
} cell;

static int by_middle(const void *a, const void *b)
{
    const cell *x = a, *y = b;
    float p = x->row->box.top + x->row->box.bottom, q = y->row->box.top + y->row->box.bottom;
    if (p != q) {
        return p < q ? -1 : 1;
    }
    return x->column < y->column   ? -1
           : x->column > y->column ? 1
           : x->row < y->row       ? -1
                                   : x->row > y->row;
}

/* Cells [first, end) in the order of their columns; lines of one cell stay in order. */
static int by_column(const void *a, const void *b)
{
    const cell *x = a, *y = b;
    return x->column < y->column ? -1 : x->column > y->column ? 1 : by_middle(a, b);
}

/* One row of the table: cells in order of their columns, empty ones between others, too. */
static void emit_cells(lore_pdf_page *page, const cell *cells, size_t count)
{
    lore_pdf_line *line = push_line(page);
    lore_buf text;
    lore_buf_init(&text, 0);
    for (size_t i = 0, column = 0; line != NULL && i < count && !page->is_failed; i++) {
        const lore_pdf_row *row = cells[i].row;
        lore_str part = join(row->words, row->count, page->scratch);
        page->is_failed = part.ptr == NULL;
        if (i > 0 && cells[i].column == column) {
            lore_buf_byte(&text, '\n'); /* the builder makes a blank of it, in Chinese nothing */
        }
        for (; column < cells[i].column; column++) {
            lore_buf_append(&text, text.len > 0 || column > 0 ? LORE_STR(" | ") : LORE_STR("| "));
        }
        lore_buf_append(&text, page->is_failed ? (lore_str){"", 0} : part);
        line->box = i == 0 ? row->box : line->box;
        widen(&line->box, row->box);
        line->size = row->size > line->size ? row->size : line->size;
    }
    lore_str copy = lore_str_copy(page->arena, lore_buf_str(&text));
    page->is_failed = page->is_failed || lore_buf_failed(&text) || copy.ptr == NULL;
    if (!page->is_failed && copy.len > 0) {
        line->text = copy;
        line->is_row = true;
        page->lines->count++;
    }
    lore_buf_destroy(&text);
}

/* Where the row that begins at `first` ends: cells whose middles lie in its height. */
static size_t row_end(const cell *cells, size_t count, size_t first)
{
    size_t end = first + 1;
    while (end < count && (cells[end].row->box.top + cells[end].row->box.bottom) / 2 <
                              cells[first].row->box.bottom) {
        end++;
    }
    return end;
}

/* Is the row [from, to) what did not fit into cells of the one before: nothing in the first column,
 * no number at its start, and close below, closer than rows of this table are? */
static bool is_wrapped(const cell *cells, size_t before, size_t from, size_t to, float pitch)
{
    size_t least = cells[from].column;
    for (size_t i = from; i < to; i++) {
        least = cells[i].column < least ? cells[i].column : least;
    }
    char first = cells[from].row->words[0]->text.ptr[0];
    float step = cells[from].row->box.bottom - cells[before].row->box.bottom;
    return least > 0 && !(first >= '0' && first <= '9') &&
           step <= WRAP_PITCH * cells[from].row->size && step < .9F * pitch;
}

/* The usual distance of rows that have a first cell. */
static float usual_pitch(const lore_pdf_rows *first)
{
    float sum = 0;
    for (size_t i = 1; i < first->count; i++) {
        sum += first->items[i].box.bottom - first->items[i - 1].box.bottom;
    }
    return first->count > 1 ? sum / (float)(first->count - 1) : 0;
}

void lore_pdf_emit_table(lore_pdf_page *page, const lore_pdf_rows *columns, size_t count)
{
    size_t total = 0, used = 0;
    for (size_t c = 0; c < count; c++) {
        total += columns[c].count;
    }
    cell *cells = lore_pdf_push(page, total, sizeof *cells);
    for (size_t c = 0; c < count && !page->is_failed; c++) {
        for (size_t i = 0; i < columns[c].count; i++) {
            cells[used++] = (cell){&columns[c].items[i], c};
        }
    }
    if (!page->is_failed) {
        qsort(cells, used, sizeof *cells, by_middle);
    }
    float pitch = usual_pitch(&columns[0]);
    for (size_t first = 0, end = 0; first < used && !page->is_failed; first = end) {
        end = row_end(cells, used, first);
        for (size_t last = first; end < used;) {
            size_t next = row_end(cells, used, end);
            if (!is_wrapped(cells, last, end, next, pitch)) {
                break;
            }
            last = end;
            end = next;
        }
        qsort(cells + first, end - first, sizeof *cells, by_column);
        emit_cells(page, cells + first, end - first);
    }
    page->lines->regions++;
}
