/* Excel (ECMA-376 part 1, SpreadsheetML) to text: a section for each sheet in the order of the
 * workbook, its rows as those of sheet_text.c.
 *
 * A cell shows what Excel computed last, not its formula. Numbers are written with the 15 digits
 * that Excel keeps; those whose format is one of dates are written as ISO 8601. */
#include "ingest/office_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CELL_BYTES_MAX = 64, /* of a number, boolean, index or date */
    FORMATS_MAX = 65536,
    FIRST_CUSTOM_FORMAT = 164,
    SECONDS_A_DAY = 86400,
    DAYS_TO_UNIX = 25569, /* from day 0 of Excel to 1970-01-01 */
    DAYS_TO_1904 = 1462,
    LAST_DAY = 2958465 /* 9999-12-31 */
};

typedef struct shared {
    size_t text, length; /* in texts */
    size_t source;
} shared;

typedef struct xlsx {
    lore_office office; /* first: lore_office_is_full */
    lore_sheet sheet;
    lore_arena *arena;
    lore_buf sheets;                  /* lore_str pairs: name, relation */
    lore_buf texts, strings;          /* shared strings: their bytes, struct shared */
    lore_buf dates, date_ids;         /* by cell style: 1 where it is a date; custom formats */
    bool is_in_styles, is_1904;       /* inside cellXfs; days count from 1904 */
    bool is_in_string, is_in_text;    /* shared strings */
    char type, value[CELL_BYTES_MAX]; /* of the open cell: first letter of t; what v holds */
    size_t value_length, value_source;
    int64_t style;
    bool is_in_value, is_in_inline, is_out_of_memory;
} xlsx;

/* ---- workbook ---- */

static void workbook_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    xlsx *x = self;
    (void)source;
    if (lore_str_equal(name, LORE_STR("workbookPr"))) {
        lore_str value = lore_xml_attribute(attributes, "date1904");
        x->is_1904 =
            lore_str_equal(value, LORE_STR("1")) || lore_str_equal(value, LORE_STR("true"));
    }
    if (!lore_str_equal(name, LORE_STR("sheet"))) {
        return;
    }
    lore_str sheet[2] = {lore_str_copy(x->arena, lore_xml_attribute(attributes, "name")),
                         lore_str_copy(x->arena, lore_xml_attribute(attributes, "id"))};
    x->is_out_of_memory = x->is_out_of_memory || sheet[0].ptr == NULL || sheet[1].ptr == NULL;
    lore_buf_append(&x->sheets, (lore_str){(const char *)sheet, sizeof sheet});
}

/* ---- styles: which numbers are dates ---- */

static bool is_date_code(lore_str code)
{
    bool is_quoted = false;
    for (size_t i = 0; i < code.len; i++) {
        char c = code.ptr[i];
        is_quoted = c == '"' || c == '[' || c == ']' ? !is_quoted : is_quoted;
        if (c == '\\') {
            i++;
        } else if (!is_quoted && strchr("yYdDhH", c) != NULL && c != '\0') {
            return true;
        }
    }
    return false;
}

static bool is_date_format(const xlsx *x, int64_t id)
{
    if (id < FIRST_CUSTOM_FORMAT) {
        return (id >= 14 && id <= 22) || (id >= 45 && id <= 47);
    }
    const int64_t *ids = (const int64_t *)(const void *)x->date_ids.ptr;
    for (size_t i = 0; i < x->date_ids.len / sizeof *ids; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

static void styles_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    xlsx *x = self;
    int64_t id = 0;
    (void)source;
    if (lore_str_equal(name, LORE_STR("cellXfs"))) {
        x->is_in_styles = true;
    } else if (lore_str_equal(name, LORE_STR("numFmt")) &&
               x->date_ids.len < 1024 * sizeof id && /* searched for every style */
               is_date_code(lore_xml_attribute(attributes, "formatCode")) &&
               lore_str_to_int64(lore_xml_attribute(attributes, "numFmtId"), &id)) {
        lore_buf_append(&x->date_ids, (lore_str){(const char *)&id, sizeof id});
    } else if (lore_str_equal(name, LORE_STR("xf")) && x->is_in_styles &&
               x->dates.len < FORMATS_MAX) {
        bool is_number = lore_str_to_int64(lore_xml_attribute(attributes, "numFmtId"), &id);
        lore_buf_byte(&x->dates, is_number && is_date_format(x, id) ? 1 : 0);
    }
}

static void styles_end(void *self, lore_str name, size_t source)
{
    xlsx *x = self;
    (void)source;
    x->is_in_styles = x->is_in_styles && !lore_str_equal(name, LORE_STR("cellXfs"));
}

/* ---- shared strings ---- */

static void strings_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    xlsx *x = self;
    (void)attributes;
    /* rPh tells how to pronounce what was said already. */
    if (lore_office_skip_start(&x->office, lore_str_equal(name, LORE_STR("rPh")))) {
        return;
    }
    if (lore_str_equal(name, LORE_STR("si"))) {
        shared fresh = {x->texts.len, 0, source};
        x->is_in_string = true;
        lore_buf_append(&x->strings, (lore_str){(const char *)&fresh, sizeof fresh});
    } else if (lore_str_equal(name, LORE_STR("t"))) {
        x->is_in_text = x->is_in_string;
    }
}

static void strings_text(void *self, lore_str text, size_t source)
{
    xlsx *x = self;
    if (!x->is_in_text || x->office.skip_depth > 0 || lore_buf_failed(&x->strings)) {
        return;
    }
    shared *last = (shared *)(void *)(x->strings.ptr + x->strings.len - sizeof *last);
    last->source = last->length == 0 ? source : last->source;
    last->length += text.len;
    lore_buf_append(&x->texts, text);
}

static void strings_end(void *self, lore_str name, size_t source)
{
    xlsx *x = self;
    (void)source;
    if (lore_office_skip_end(&x->office)) {
        return;
    }
    x->is_in_text = x->is_in_text && !lore_str_equal(name, LORE_STR("t"));
    x->is_in_string = x->is_in_string && !lore_str_equal(name, LORE_STR("si"));
}

/* ---- cells ---- */

static void put_date(xlsx *x, double serial)
{
    char text[CELL_BYTES_MAX];
    struct tm date;
    double days = floor(serial), seconds = floor((serial - days) * SECONDS_A_DAY + .5);
    time_t at =
        (time_t)((days - DAYS_TO_UNIX + (x->is_1904 ? DAYS_TO_1904 : 0)) * SECONDS_A_DAY + seconds);
    gmtime_r(&at, &date);
    const char *format = days < 1 ? "%H:%M:%S" : seconds > 0 ? "%Y-%m-%d %H:%M:%S" : "%Y-%m-%d";
    strftime(text, sizeof text, format, &date);
    lore_sheet_text(&x->sheet, lore_str_from(text), x->value_source);
}

static void put_number(xlsx *x)
{
    char *end = NULL, text[CELL_BYTES_MAX];
    double number = strtod(x->value, &end);
    if (end == x->value || *end != '\0' || !isfinite(number)) {
        lore_sheet_text(&x->sheet, (lore_str){x->value, x->value_length}, x->value_source);
        return;
    }
    bool is_date = x->style >= 0 && (size_t)x->style < x->dates.len &&
                   x->dates.ptr[x->style] != 0 && number >= 0 && number < LAST_DAY;
    if (is_date) {
        put_date(x, number);
        return;
    }
    snprintf(text, sizeof text, "%.15g", number);
    lore_sheet_text(&x->sheet, lore_str_from(text), x->value_source);
}

static void put_shared(xlsx *x)
{
    int64_t index = -1;
    bool is_number = lore_str_to_int64((lore_str){x->value, x->value_length}, &index);
    if (!is_number || index < 0 || (uint64_t)index >= x->strings.len / sizeof(shared)) {
        return;
    }
    const shared *string = (const shared *)(const void *)x->strings.ptr + index;
    if (string->length > 0) {
        lore_sheet_text(&x->sheet, (lore_str){x->texts.ptr + string->text, string->length},
                        string->source);
    }
}

static void put_value(xlsx *x)
{
    x->value[x->value_length] = '\0';
    if (x->value_length == 0) {
        return;
    }
    if (x->type == 's') {
        put_shared(x);
    } else if (x->type == 'b') {
        lore_sheet_text(&x->sheet, x->value[0] == '1' ? LORE_STR("TRUE") : LORE_STR("FALSE"),
                        x->value_source);
    } else if (x->type == 'n') {
        put_number(x);
    }
}

/* s: shared string, i: inline, t: text of a formula, b: boolean, e: error, d: ISO date, n: number
 */
static char cell_type(lore_str type)
{
    return lore_str_equal(type, LORE_STR("str")) ? 't' : type.len == 0 ? 'n' : type.ptr[0];
}

/* "AB12" reads 27; -1 where no column is given. */
static int64_t column_of(lore_str reference)
{
    int64_t column = 0;
    for (size_t i = 0; i < reference.len && i < 4; i++) {
        char letter = reference.ptr[i];
        if (letter < 'A' || letter > 'Z') {
            break;
        }
        column = column * 26 + (letter - 'A' + 1);
    }
    return column - 1;
}

static void sheet_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    xlsx *x = self;
    if (lore_office_skip_start(&x->office, lore_str_equal(name, LORE_STR("rPh")))) {
        return;
    }
    if (lore_str_equal(name, LORE_STR("c"))) {
        lore_sheet_cell(&x->sheet, column_of(lore_xml_attribute(attributes, "r")));
        x->type = cell_type(lore_xml_attribute(attributes, "t"));
        x->style = -1;
        (void)lore_str_to_int64(lore_xml_attribute(attributes, "s"), &x->style);
        x->value_length = 0;
        x->value_source = source;
    } else if (lore_str_equal(name, LORE_STR("v"))) {
        x->is_in_value = true;
    } else if (lore_str_equal(name, LORE_STR("t"))) {
        x->is_in_inline = x->type == 'i';
    }
}

static void sheet_text(void *self, lore_str text, size_t source)
{
    xlsx *x = self;
    if (x->office.skip_depth > 0) {
        return;
    }
    bool is_as_it_stands = x->type == 't' || x->type == 'e' || x->type == 'd';
    if (x->is_in_inline || (x->is_in_value && is_as_it_stands)) {
        lore_sheet_text(&x->sheet, text, source);
    } else if (x->is_in_value && x->value_length + text.len < CELL_BYTES_MAX) {
        x->value_source = x->value_length == 0 ? source : x->value_source;
        memcpy(x->value + x->value_length, text.ptr, text.len);
        x->value_length += text.len;
    }
}

static void sheet_end(void *self, lore_str name, size_t source)
{
    xlsx *x = self;
    (void)source;
    if (lore_office_skip_end(&x->office)) {
        return;
    }
    if (lore_str_equal(name, LORE_STR("row"))) {
        lore_sheet_row_end(&x->sheet);
    } else if (lore_str_equal(name, LORE_STR("v"))) {
        x->is_in_value = false;
        put_value(x);
    } else if (lore_str_equal(name, LORE_STR("t"))) {
        x->is_in_inline = false;
    }
}

/* ---- together ---- */

static lore_status read_sheets(xlsx *x, const lore_package *package, const lore_relation *relations,
                               size_t count, lore_error *err)
{
    const lore_xml_handler handler = {.self = x,
                                      .start = sheet_start,
                                      .end = sheet_end,
                                      .text = sheet_text,
                                      .is_full = lore_office_is_full};
    const lore_str *sheets = (const lore_str *)(const void *)x->sheets.ptr;
    lore_status status = LORE_OK;
    for (size_t i = 0; i < x->sheets.len / sizeof(lore_str[2]) && status == LORE_OK; i++) {
        const lore_part *part = NULL;
        for (size_t k = 0; k < count && part == NULL; k++) {
            if (lore_str_equal(relations[k].id, sheets[2 * i + 1]) &&
                lore_str_equal(relations[k].type, LORE_STR("worksheet"))) {
                part = lore_package_part(package, relations[k].target);
            }
        }
        if (part != NULL && !x->office.builder->is_full) {
            lore_office_heading(&x->office, sheets[2 * i], 2, part->start);
            status = lore_package_xml(package, part, &handler, err);
            lore_error *told = status == LORE_OK ? err : NULL;
            lore_status ended = lore_sheet_end(&x->sheet, told);
            status = status == LORE_OK ? ended : status;
        }
    }
    return status;
}

static lore_status read_workbook(xlsx *x, const lore_package *package, lore_error *err)
{
    const lore_xml_handler workbook = {.self = x, .start = workbook_start};
    const lore_xml_handler styles = {.self = x, .start = styles_start, .end = styles_end};
    const lore_xml_handler strings = {
        .self = x, .start = strings_start, .end = strings_end, .text = strings_text};
    const lore_part *main_part = NULL;
    lore_relation *relations = NULL;
    size_t count = 0;
    lore_status status = lore_package_main(package, LORE_STR("xl/workbook.xml"), &main_part, err);
    if (status == LORE_OK) {
        status = lore_package_xml(package, main_part, &workbook, err);
    }
    if (status == LORE_OK) {
        status = lore_package_relations(package, main_part->name, &relations, &count, err);
    }
    for (size_t i = 0; i < count && status == LORE_OK; i++) {
        const lore_part *part = lore_package_part(package, relations[i].target);
        if (part != NULL && lore_str_equal(relations[i].type, LORE_STR("styles"))) {
            status = lore_package_xml(package, part, &styles, err);
        } else if (part != NULL && lore_str_equal(relations[i].type, LORE_STR("sharedStrings"))) {
            status = lore_package_xml(package, part, &strings, err);
        }
    }
    bool has_memory = !x->is_out_of_memory && !lore_buf_failed(&x->sheets) &&
                      !lore_buf_failed(&x->texts) && !lore_buf_failed(&x->strings) &&
                      !lore_buf_failed(&x->dates) && !lore_buf_failed(&x->date_ids);
    if (status == LORE_OK && !has_memory) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for a workbook");
    }
    return status == LORE_OK ? read_sheets(x, package, relations, count, err) : status;
}

lore_status lore_clean_xlsx(lore_builder *builder, const lore_package *package, lore_error *err)
{
    xlsx x = {.office = {.builder = builder}, .arena = package->arena};
    lore_buf *buffers[] = {&x.sheets, &x.texts, &x.strings, &x.dates, &x.date_ids};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        lore_buf_init(buffers[i], 0);
    }
    lore_sheet_init(&x.sheet, builder, package->arena);
    lore_status status = read_workbook(&x, package, err);
    lore_sheet_destroy(&x.sheet);
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        lore_buf_destroy(buffers[i]);
    }
    return status;
}
