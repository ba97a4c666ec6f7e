/* Word (ECMA-376 part 1, WordprocessingML) to text.
 *
 * Headings are paragraphs whose style, or a style it is based on, has an outline level or the
 * built-in name of one (names are English in files of every language, ids are not). Items of
 * numbered lists carry their numbers. Deleted text, field codes and the second copy of a text box
 * for old programs are left out, and so are headers and footers. Footnotes and endnotes stand in
 * brackets where they are called; those that are not called there follow the body. */
#include "ingest/docx_int.h"

#include <string.h>

enum { STYLES_MAX = 1024, PLACES = 4096, BASED_ON_MAX = 8, STYLE_BYTES_MAX = 64 };

typedef struct style {
    char id[STYLE_BYTES_MAX], parent[STYLE_BYTES_MAX];
    int32_t level; /* of a heading; 0: it is none */
    bool is_item;
    int64_t list, list_level; /* of an item; -1: not given */
} style;

typedef struct docx {
    lore_office office; /* first: lore_office_is_full */
    style *styles;
    size_t style_count;
    uint16_t *places; /* [PLACES] by hash of the id: 1 + index in styles; every paragraph asks */
    bool is_in_style; /* the last of them is open */
    int32_t texts;    /* open text elements */
    int64_t list, list_level; /* of the open paragraph; -1: not given */
    char marker[LORE_LIST_MARKER_BYTES];
    lore_docx_lists lists;
    lore_docx_notes notes;
} docx;

/* ---- styles ---- */

static void set_name(char to[STYLE_BYTES_MAX], lore_str from)
{
    size_t size = from.len < STYLE_BYTES_MAX ? from.len : STYLE_BYTES_MAX - 1;
    memcpy(to, from.ptr, size);
    to[size] = '\0';
}

/* Word counts outline levels from 0; 9 is body text. */
static int32_t outline_level(const char *const *attributes)
{
    int64_t level = 9;
    bool is_number = lore_str_to_int64(lore_xml_attribute(attributes, "val"), &level);
    return !is_number || level < 0 || level > 8 ? 0
           : level < LORE_HEADING_LEVELS        ? (int32_t)level + 1
                                                : LORE_HEADING_LEVELS;
}

static int32_t level_of_name(lore_str name)
{
    if (lore_str_equal_nocase(name, LORE_STR("title"))) {
        return 1;
    }
    bool is_heading = name.len == 9 && name.ptr[8] >= '1' && name.ptr[8] <= '9' &&
                      lore_str_equal_nocase(lore_str_slice(name, 0, 8), LORE_STR("heading "));
    int32_t level = is_heading ? name.ptr[8] - '0' : 0;
    return level < LORE_HEADING_LEVELS ? level : LORE_HEADING_LEVELS;
}

/* Where the id stands, or the free place where it would. */
static uint16_t *find_place(const docx *d, const char *id)
{
    size_t at = (size_t)lore_str_hash(lore_str_from(id)) % PLACES;
    while (d->places[at] != 0 && strcmp(d->styles[d->places[at] - 1].id, id) != 0) {
        at = (at + 1) % PLACES;
    }
    return &d->places[at];
}

static void add_style(docx *d, lore_str id)
{
    style *fresh = &d->styles[d->style_count++];
    set_name(fresh->id, id);
    fresh->list = fresh->list_level = -1;
    uint16_t *place = find_place(d, fresh->id);
    *place = *place == 0 ? (uint16_t)d->style_count : *place;
}

static void style_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    docx *d = self;
    (void)source;
    if (lore_str_equal(name, LORE_STR("style"))) {
        d->is_in_style = d->style_count < STYLES_MAX;
        if (d->is_in_style) {
            add_style(d, lore_xml_attribute(attributes, "styleId"));
        }
    }
    if (!d->is_in_style) {
        return;
    }
    style *s = &d->styles[d->style_count - 1];
    if (lore_str_equal(name, LORE_STR("name")) && s->level == 0) {
        s->level = level_of_name(lore_xml_attribute(attributes, "val"));
    } else if (lore_str_equal(name, LORE_STR("basedOn"))) {
        set_name(s->parent, lore_xml_attribute(attributes, "val"));
    } else if (lore_str_equal(name, LORE_STR("outlineLvl")) && s->level == 0) {
        s->level = outline_level(attributes);
    } else if (lore_str_equal(name, LORE_STR("numPr"))) {
        s->is_item = true;
    } else if (lore_str_equal(name, LORE_STR("numId"))) {
        (void)lore_str_to_int64(lore_xml_attribute(attributes, "val"), &s->list);
    } else if (lore_str_equal(name, LORE_STR("ilvl"))) {
        (void)lore_str_to_int64(lore_xml_attribute(attributes, "val"), &s->list_level);
    }
}

static void style_end(void *self, lore_str name, size_t source)
{
    docx *d = self;
    (void)source;
    d->is_in_style = d->is_in_style && !lore_str_equal(name, LORE_STR("style"));
}

static void apply_style(docx *d, lore_str id)
{
    char name[STYLE_BYTES_MAX];
    set_name(name, id);
    for (int hops = 0; hops < BASED_ON_MAX && d->places != NULL; hops++) {
        uint16_t place = *find_place(d, name);
        if (place == 0) {
            return;
        }
        const style *s = &d->styles[place - 1];
        d->office.level = d->office.level == 0 ? s->level : d->office.level;
        d->office.is_item = d->office.is_item || s->is_item;
        d->list = d->list < 0 ? s->list : d->list;
        d->list_level = d->list_level < 0 ? s->list_level : d->list_level;
        memcpy(name, s->parent, sizeof name);
    }
}

/* ---- the body ---- */

/* All that is known of a paragraph is known, and its text begins. List 0 is "no list". */
static void settle_item(docx *d)
{
    if (d->list == 0) {
        d->office.is_item = false;
    } else if (d->office.is_item && d->office.level == 0 && d->office.rows == 0) {
        lore_str marker = lore_docx_lists_next(&d->lists, d->list, d->list_level, d->marker);
        d->office.marker = marker;
        d->office.is_item = marker.len > 0;
    }
}

static void call_note(docx *d, const char *const *attributes, bool is_end, size_t source)
{
    int64_t id = 0;
    if (d->office.level > 0 || !lore_str_to_int64(lore_xml_attribute(attributes, "id"), &id)) {
        return; /* a heading is to stay one */
    }
    const lore_docx_note *note = lore_docx_notes_call(&d->notes, id, is_end);
    if (note != NULL) {
        lore_office_made(&d->office, LORE_STR(" ("), source);
        lore_office_text(&d->office, lore_docx_note_text(&d->notes, note), note->source);
        lore_office_made(&d->office, LORE_STR(")"), source);
    }
}

static void body_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    /* "tabs/tab" defines where tabs lead, "pPrChange" tells what a paragraph was before. */
    static const char *const unwanted[] = {"Fallback", "moveFrom", "instrText", "delText",
                                           "pict",     "tabs",     "pPrChange", NULL};
    static const char *const blanks[] = {"tab", "br", "cr", NULL};
    docx *d = self;
    if (lore_office_skip_start(&d->office, lore_office_is_one(name, unwanted))) {
        return;
    }
    if (lore_str_equal(name, LORE_STR("p"))) {
        lore_office_paragraph(&d->office);
        d->list = d->list_level = -1;
    } else if (lore_str_equal(name, LORE_STR("t"))) {
        d->texts++;
    } else if (lore_str_equal(name, LORE_STR("tr"))) {
        lore_office_row(&d->office);
    } else if (lore_str_equal(name, LORE_STR("tc"))) {
        lore_office_cell(&d->office);
    } else if (lore_str_equal(name, LORE_STR("pStyle"))) {
        apply_style(d, lore_xml_attribute(attributes, "val"));
    } else if (lore_str_equal(name, LORE_STR("outlineLvl"))) {
        d->office.level = outline_level(attributes);
    } else if (lore_str_equal(name, LORE_STR("numPr"))) {
        d->office.is_item = true;
    } else if (lore_str_equal(name, LORE_STR("numId"))) {
        (void)lore_str_to_int64(lore_xml_attribute(attributes, "val"), &d->list);
    } else if (lore_str_equal(name, LORE_STR("ilvl"))) {
        (void)lore_str_to_int64(lore_xml_attribute(attributes, "val"), &d->list_level);
    } else if (lore_str_equal(name, LORE_STR("footnoteReference"))) {
        call_note(d, attributes, false, source);
    } else if (lore_str_equal(name, LORE_STR("endnoteReference"))) {
        call_note(d, attributes, true, source);
    } else if (lore_office_is_one(name, blanks)) {
        lore_builder_made(d->office.builder, LORE_STR(" "), source);
    } else if (lore_str_equal(name, LORE_STR("noBreakHyphen"))) {
        lore_office_made(&d->office, LORE_STR("-"), source);
    }
}

static void body_end(void *self, lore_str name, size_t source)
{
    docx *d = self;
    (void)source;
    if (lore_office_skip_end(&d->office)) {
        return;
    }
    if (lore_str_equal(name, LORE_STR("p"))) {
        lore_office_paragraph_end(&d->office);
    } else if (lore_str_equal(name, LORE_STR("pPr"))) {
        settle_item(d);
    } else if (lore_str_equal(name, LORE_STR("t"))) {
        d->texts--;
    } else if (lore_str_equal(name, LORE_STR("tr"))) {
        lore_office_row_end(&d->office);
    }
}

static void body_text(void *self, lore_str text, size_t source)
{
    docx *d = self;
    if (d->texts > 0 && d->office.skip_depth == 0) {
        lore_office_text(&d->office, text, source);
    }
}

static lore_status read_styles(docx *d, const lore_package *package, lore_error *err)
{
    const lore_part *part = lore_package_part(package, LORE_STR("word/styles.xml"));
    if (part == NULL) {
        return LORE_OK;
    }
    d->styles = LORE_PUSH(package->arena, style, STYLES_MAX);
    d->places = LORE_PUSH(package->arena, uint16_t, PLACES);
    if (d->styles == NULL || d->places == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for styles");
    }
    const lore_xml_handler handler = {.self = d, .start = style_start, .end = style_end};
    return lore_package_xml(package, part, &handler, err);
}

static lore_status read_body(docx *d, const lore_package *package, lore_error *err)
{
    const lore_xml_handler handler = {.self = d,
                                      .start = body_start,
                                      .end = body_end,
                                      .text = body_text,
                                      .is_full = lore_office_is_full};
    const lore_part *part = NULL;
    lore_status status = lore_package_main(package, LORE_STR("word/document.xml"), &part, err);
    if (status == LORE_OK) {
        status = read_styles(d, package, err);
    }
    if (status == LORE_OK) {
        status = lore_docx_lists_read(&d->lists, package, err);
    }
    if (status == LORE_OK) {
        status = lore_docx_notes_read(&d->notes, package, err);
    }
    if (status == LORE_OK) {
        status = lore_package_xml(package, part, &handler, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    for (const lore_docx_note *note = lore_docx_notes_left(&d->notes);
         note != NULL && !d->office.builder->is_full; note = lore_docx_notes_left(&d->notes)) {
        lore_office_paragraph(&d->office);
        lore_office_text(&d->office, lore_docx_note_text(&d->notes, note), note->source);
        lore_office_paragraph_end(&d->office);
    }
    return LORE_OK;
}

lore_status lore_clean_docx(lore_builder *builder, const lore_package *package, lore_error *err)
{
    docx d = {.office = {.builder = builder}, .list = -1, .list_level = -1};
    lore_docx_lists_init(&d.lists);
    lore_docx_notes_init(&d.notes);
    lore_status status = read_body(&d, package, err);
    lore_docx_lists_destroy(&d.lists);
    lore_docx_notes_destroy(&d.notes);
    return status;
}
