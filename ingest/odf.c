/* OpenDocument 1.3 (text, spreadsheet, presentation) to text.
 *
 * All of them keep their content in content.xml in the same elements. Footnotes stand in brackets
 * where they are called, comments, deleted text and tables of contents are left out. The tables of
 * a spreadsheet become sections under their names. */
#include "ingest/office_int.h"

typedef struct odf {
    lore_office office; /* first: lore_office_is_full */
    lore_sheet sheet;   /* of a spreadsheet */
    int64_t column;     /* of its next cell */
    lore_status status; /* of the sheets that have ended */
    int32_t notes;      /* open footnotes */
    int32_t items;      /* open list items */
    bool is_item_begun; /* the marker of the innermost item stands */
    bool is_spreadsheet;
} odf;

static void paragraph(odf *o, const char *const *attributes, bool is_heading)
{
    if (o->notes > 0 || o->is_spreadsheet) {
        o->office.paragraphs++;
        return;
    }
    lore_office_paragraph(&o->office);
    if (is_heading) {
        int64_t level = 1;
        (void)lore_str_to_int64(lore_xml_attribute(attributes, "outline-level"), &level);
        o->office.level = level < 1                     ? 1
                          : level > LORE_HEADING_LEVELS ? LORE_HEADING_LEVELS
                                                        : (int32_t)level;
    }
    o->office.is_item = o->items > 0 && !o->is_item_begun;
    o->is_item_begun = true;
}

/* Cells alike may be written once, with how often they come. */
static void cell(odf *o, const char *const *attributes)
{
    if (!o->is_spreadsheet) {
        lore_office_cell(&o->office);
        return;
    }
    int64_t repeated = 1;
    bool is_number =
        lore_str_to_int64(lore_xml_attribute(attributes, "number-columns-repeated"), &repeated);
    lore_sheet_cell(&o->sheet, o->column);
    o->column += is_number && repeated > 0 && repeated < INT32_MAX ? repeated : 1;
}

static void put_text(odf *o, lore_str text, size_t source)
{
    if (o->is_spreadsheet) {
        lore_sheet_text(&o->sheet, text, source);
    } else if (text.ptr[0] == ' ' && text.len == 1) {
        lore_builder_made(o->office.builder, text, source); /* opens no line */
    } else {
        lore_office_text(&o->office, text, source);
    }
}

static void content_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    static const char *const unwanted[] = {"tracked-changes",
                                           "annotation",
                                           "note-citation",
                                           "table-of-content",
                                           "forms",
                                           "scripts",
                                           "automatic-styles",
                                           "object",
                                           "object-ole",
                                           "binary-data",
                                           "title",
                                           "desc",
                                           NULL};
    static const char *const blanks[] = {"s", "tab", "line-break", NULL};
    odf *o = self;
    if (lore_office_skip_start(&o->office, lore_office_is_one(name, unwanted))) {
        return;
    }
    if (lore_str_equal(name, LORE_STR("p")) || lore_str_equal(name, LORE_STR("h"))) {
        paragraph(o, attributes, name.ptr[0] == 'h');
    } else if (lore_str_equal(name, LORE_STR("list-item"))) {
        o->items++;
        o->is_item_begun = false;
    } else if (lore_str_equal(name, LORE_STR("table-row"))) {
        o->column = 0;
        if (!o->is_spreadsheet) {
            lore_office_row(&o->office);
        }
    } else if (lore_str_equal(name, LORE_STR("table-cell")) ||
               lore_str_equal(name, LORE_STR("covered-table-cell"))) {
        cell(o, attributes);
    } else if (lore_office_is_one(name, blanks) && o->office.paragraphs > 0) {
        put_text(o, LORE_STR(" "), source);
    } else if (lore_str_equal(name, LORE_STR("note"))) {
        o->notes++;
        lore_office_made(&o->office, LORE_STR(" ("), source);
    } else if (lore_str_equal(name, LORE_STR("spreadsheet"))) {
        o->is_spreadsheet = true;
    } else if (lore_str_equal(name, LORE_STR("table")) && o->is_spreadsheet) {
        lore_office_heading(&o->office, lore_xml_attribute(attributes, "name"), 2, source);
    }
}

static void content_end(void *self, lore_str name, size_t source)
{
    odf *o = self;
    if (lore_office_skip_end(&o->office)) {
        return;
    }
    if (lore_str_equal(name, LORE_STR("p")) || lore_str_equal(name, LORE_STR("h"))) {
        if (o->is_spreadsheet) {
            o->office.paragraphs--;
            lore_sheet_text(&o->sheet, LORE_STR(" "), source); /* before the cell's next line */
        } else if (o->notes > 0) {
            o->office.paragraphs--;
        } else {
            lore_office_paragraph_end(&o->office);
        }
    } else if (lore_str_equal(name, LORE_STR("list-item"))) {
        o->items--;
    } else if (lore_str_equal(name, LORE_STR("table-row"))) {
        if (o->is_spreadsheet) {
            lore_sheet_row_end(&o->sheet);
        } else {
            lore_office_row_end(&o->office);
        }
    } else if (lore_str_equal(name, LORE_STR("table")) && o->is_spreadsheet) {
        lore_status status = lore_sheet_end(&o->sheet, NULL);
        o->status = o->status == LORE_OK ? status : o->status;
    } else if (lore_str_equal(name, LORE_STR("note"))) {
        o->notes--;
        lore_office_made(&o->office, LORE_STR(")"), source);
    }
}

static void content_text(void *self, lore_str text, size_t source)
{
    odf *o = self;
    if (o->office.paragraphs > 0 && o->office.skip_depth == 0) {
        put_text(o, text, source);
    }
}

lore_status lore_clean_odf(lore_builder *builder, const lore_package *package, lore_error *err)
{
    odf o = {.office = {.builder = builder}};
    const lore_xml_handler handler = {.self = &o,
                                      .start = content_start,
                                      .end = content_end,
                                      .text = content_text,
                                      .is_full = lore_office_is_full};
    const lore_part *part = lore_package_part(package, LORE_STR("content.xml"));
    if (part == NULL) {
        return lore_fail(err, LORE_ERR_INVALID, "has no part 'content.xml'");
    }
    lore_sheet_init(&o.sheet, builder, package->arena);
    lore_status status = lore_package_xml(package, part, &handler, err);
    lore_status ended = lore_sheet_end(&o.sheet, NULL); /* where the parser stopped inside one */
    o.status = o.status == LORE_OK ? ended : o.status;
    lore_sheet_destroy(&o.sheet);
    return status != LORE_OK || o.status == LORE_OK
               ? status
               : lore_fail(err, o.status, "out of memory for a sheet");
}
