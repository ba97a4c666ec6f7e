/* Lines out of paragraphs, rows and cells.
 *
 * A paragraph is a line, a heading or an item; inside a row it is a part of the row's line
 * ("a | b | c"), and paragraphs of one cell are joined by blanks. Separators are written only
 * before text, so rows of empty cells leave nothing behind. A paragraph inside another (a text box)
 * ends the line of the outer one. */
#include "ingest/office_int.h"

bool lore_office_is_one(lore_str name, const char *const *names)
{
    for (; *names != NULL; names++) {
        if (lore_str_equal(name, lore_str_from(*names))) {
            return true;
        }
    }
    return false;
}

bool lore_office_is_full(void *self)
{
    const lore_office *office = self;
    return office->builder->is_full;
}

bool lore_office_skip_start(lore_office *office, bool is_unwanted)
{
    office->skip_depth += office->skip_depth > 0 || is_unwanted ? 1 : 0;
    return office->skip_depth > 0;
}

bool lore_office_skip_end(lore_office *office)
{
    bool is_inside = office->skip_depth > 0;
    office->skip_depth -= is_inside ? 1 : 0;
    return is_inside;
}

static void end_line(lore_office *office)
{
    if (office->level > 0) {
        lore_builder_heading(office->builder, office->level);
    } else {
        lore_builder_item_end(office->builder);
    }
    office->level = 0;
    office->is_item = false;
    office->has_marker = false;
    office->marker = (lore_str){"", 0};
}

void lore_office_paragraph(lore_office *office)
{
    office->paragraphs++;
    if (office->rows == 0) {
        end_line(office);
    }
}

void lore_office_paragraph_end(lore_office *office)
{
    office->paragraphs -= office->paragraphs > 0 ? 1 : 0;
    if (office->rows == 0) {
        end_line(office);
    } else {
        office->is_blank_owed = true;
        office->level = 0;
        office->is_item = false;
    }
}

void lore_office_row(lore_office *office)
{
    if (office->rows++ == 0) {
        end_line(office);
        office->has_cell = false;
        office->separators = 0;
        office->is_blank_owed = false;
    }
}

void lore_office_row_end(lore_office *office)
{
    if (office->rows > 0 && --office->rows == 0) {
        end_line(office);
    }
}

void lore_office_cell(lore_office *office)
{
    if (office->rows == 1) {
        office->separators += office->has_cell ? 1 : 0;
        office->has_cell = true;
        office->is_blank_owed = false;
    }
}

static void settle(lore_office *office, size_t source)
{
    lore_builder *builder = office->builder;
    if (office->rows > 0) {
        if (office->separators == 0 && office->is_blank_owed) {
            lore_builder_made(builder, LORE_STR(" "), source);
        }
        for (; office->separators > 0; office->separators--) {
            lore_builder_made(builder, LORE_STR(" | "), source);
        }
        office->is_blank_owed = false;
    } else if (office->is_item && !office->has_marker && office->level == 0) {
        lore_builder_item(builder, office->marker.len > 0 ? office->marker : LORE_STR("- "),
                          source);
        office->has_marker = true;
    }
}

void lore_office_text(lore_office *office, lore_str text, size_t source)
{
    settle(office, source);
    lore_builder_piece(office->builder, text, source);
}

void lore_office_made(lore_office *office, lore_str text, size_t source)
{
    settle(office, source);
    lore_builder_made(office->builder, text, source);
}

void lore_office_heading(lore_office *office, lore_str text, int32_t level, size_t source)
{
    end_line(office);
    lore_builder_made(office->builder, text, source);
    lore_builder_heading(office->builder, level);
}
