/* Rows of a spreadsheet to text, as those of CSV (table_text.c): the first row with more than one
 * cell names the columns where all its cells are names without a gap, and then every cell stands
 * behind its name ("City: Bonn | Year: 1949"). Otherwise a row is "a | b | | d": empty cells
 * between others keep their columns. */
#include "ingest/office_int.h"

enum {
    COLUMNS_MAX = 16384, /* of Excel and LibreOffice; cells beyond are left out */
    GAP_MAX = 32         /* a wider gap is written as one of this width: nobody counts them */
};

typedef struct sheet_cell {
    int32_t column;
    size_t start, length; /* in row */
    size_t source;
} sheet_cell;

static const sheet_cell *cells_of(const lore_sheet *sheet, size_t *count)
{
    *count = sheet->cells.len / sizeof(sheet_cell);
    return (const sheet_cell *)(const void *)sheet->cells.ptr;
}

void lore_sheet_init(lore_sheet *sheet, lore_builder *builder, lore_arena *arena)
{
    *sheet = (lore_sheet){.builder = builder, .arena = arena, .column = -1};
    lore_buf_init(&sheet->row, 0);
    lore_buf_init(&sheet->cells, 0);
}

void lore_sheet_destroy(lore_sheet *sheet)
{
    lore_buf_destroy(&sheet->row);
    lore_buf_destroy(&sheet->cells);
}

void lore_sheet_cell(lore_sheet *sheet, int64_t column)
{
    bool is_forward = column > sheet->column && column < COLUMNS_MAX;
    sheet->column = is_forward ? (int32_t)column : sheet->column + 1;
    sheet->is_open = false;
}

void lore_sheet_text(lore_sheet *sheet, lore_str text, size_t source)
{
    if (sheet->column < 0 || sheet->column >= COLUMNS_MAX) {
        return;
    }
    if (!sheet->is_open && lore_str_trim(text).len == 0) {
        return;
    }
    if (!sheet->is_open) {
        sheet_cell fresh = {sheet->column, sheet->row.len, 0, source};
        lore_buf_append(&sheet->cells, (lore_str){(const char *)&fresh, sizeof fresh});
        sheet->is_open = true;
    }
    lore_buf_append(&sheet->row, text);
    if (lore_buf_failed(&sheet->row) || lore_buf_failed(&sheet->cells)) {
        sheet->builder->is_full = true; /* and the end of the sheet tells why */
        return;
    }
    sheet_cell *last = (sheet_cell *)(void *)(sheet->cells.ptr + sheet->cells.len) - 1;
    last->length += text.len;
}

static void put_row(lore_sheet *sheet)
{
    size_t count = 0;
    const sheet_cell *cells = cells_of(sheet, &count);
    for (size_t i = 0; i < count; i++) {
        const sheet_cell *cell = &cells[i];
        lore_str whole = {sheet->row.ptr + cell->start, cell->length}, text = lore_str_trim(whole);
        size_t source = cell->source + (size_t)(text.ptr - whole.ptr);
        int32_t gap = i == 0 ? 0 : sheet->name_count > 0 ? 1 : cell->column - cells[i - 1].column;
        for (gap = gap < GAP_MAX ? gap : GAP_MAX; gap > 0; gap--) {
            lore_builder_made(sheet->builder, LORE_STR(" | "), cell->source);
        }
        if (cell->column < sheet->name_count) {
            lore_builder_made(sheet->builder, sheet->names[cell->column], cell->source);
            lore_builder_made(sheet->builder, LORE_STR(": "), cell->source);
        }
        lore_builder_piece(sheet->builder, text, source);
    }
    lore_builder_line(sheet->builder);
}

/* Does the row name columns? Then its cells are kept as the names. */
static bool take_names(lore_sheet *sheet)
{
    size_t count = 0;
    const sheet_cell *cells = cells_of(sheet, &count);
    lore_str row = lore_str_copy(sheet->arena, lore_buf_str(&sheet->row));
    int32_t first = count > 0 ? cells[0].column : 0;
    sheet->names = LORE_PUSH(sheet->arena, lore_str, (size_t)first + count);
    if (sheet->names == NULL || row.ptr == NULL) {
        sheet->is_out_of_memory = true;
        return false;
    }
    for (int32_t i = 0; i < first; i++) {
        sheet->names[i] = (lore_str){"", 0};
    }
    for (size_t i = 0; i < count; i++) {
        lore_str name =
            lore_str_trim(lore_str_slice(row, cells[i].start, cells[i].start + cells[i].length));
        if (!lore_is_column_name(name) || cells[i].column != first + (int32_t)i) {
            return false;
        }
        sheet->names[first + (int32_t)i] = name;
    }
    sheet->name_count = first + (int32_t)count;
    return true;
}

void lore_sheet_row_end(lore_sheet *sheet)
{
    size_t count = 0;
    const sheet_cell *cells = cells_of(sheet, &count);
    bool may_name = !sheet->is_searched && count > 1;
    sheet->is_searched = sheet->is_searched || may_name;
    if (may_name && take_names(sheet)) {
        sheet->has_only_names = true;
        sheet->names_source = cells[0].source;
    } else if (count > 0) {
        sheet->has_only_names = false;
        put_row(sheet);
    }
    sheet->column = -1;
    sheet->is_open = false;
    lore_buf_reset(&sheet->row);
    lore_buf_reset(&sheet->cells);
}

lore_status lore_sheet_end(lore_sheet *sheet, lore_error *err)
{
    if (sheet->has_only_names) { /* they are all there is to find */
        for (int32_t i = 0; i < sheet->name_count; i++) {
            bool is_between = i > 0 && sheet->names[i - 1].len > 0;
            lore_builder_made(sheet->builder, is_between ? LORE_STR(" | ") : LORE_STR(""),
                              sheet->names_source);
            lore_builder_made(sheet->builder, sheet->names[i], sheet->names_source);
        }
        lore_builder_line(sheet->builder);
    }
    sheet->name_count = 0;
    sheet->is_searched = sheet->has_only_names = false;
    bool has_memory = !sheet->is_out_of_memory && !lore_buf_failed(&sheet->row) &&
                      !lore_buf_failed(&sheet->cells);
    return has_memory ? LORE_OK : lore_fail(err, LORE_ERR_NOMEM, "out of memory for a sheet");
}
