/* PowerPoint (ECMA-376 part 1, PresentationML) to text: a section for each slide, in the order of
 * the presentation, its title first wherever it was drawn, then the other shapes, tables by rows,
 * and the speaker's notes. Slide numbers, dates and footers are left out. */
#include "ingest/office_int.h"

#include <stdio.h>

enum { SLIDES_MAX = 16384 }; /* their relations are looked for one by one */

typedef enum shape_role { ROLE_TEXT, ROLE_TITLE, ROLE_FURNITURE } shape_role;

typedef struct pptx {
    lore_office office; /* first: lore_office_is_full */
    shape_role role;
    bool is_title_pass;   /* only titles are read, else all but titles */
    bool has_heading;     /* this slide's section has begun */
    int32_t slide, texts; /* number of the slide; open text elements */
    lore_str *slide_ids;  /* relations, in order */
    size_t slide_count, slide_room;
    bool is_out_of_memory;
    lore_arena *arena;
} pptx;

static bool is_read(const pptx *p)
{
    return p->role != ROLE_FURNITURE && (p->role == ROLE_TITLE) == p->is_title_pass;
}

static void begin_section(pptx *p, size_t source)
{
    if (!p->has_heading && !p->is_title_pass) {
        char name[32];
        snprintf(name, sizeof name, "Slide %d", p->slide);
        lore_office_heading(&p->office, lore_str_from(name), 2, source);
        p->has_heading = true;
    }
}

static void slide_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    static const char *const titles[] = {"title", "ctrTitle", NULL};
    static const char *const furniture[] = {"sldNum", "dt", "ftr", "hdr", "sldImg", NULL};
    pptx *p = self;
    if (lore_office_skip_start(&p->office, lore_str_equal(name, LORE_STR("Fallback")))) {
        return;
    }
    if (lore_str_equal(name, LORE_STR("sp")) || lore_str_equal(name, LORE_STR("graphicFrame"))) {
        p->role = ROLE_TEXT;
    } else if (lore_str_equal(name, LORE_STR("ph"))) {
        lore_str type = lore_xml_attribute(attributes, "type");
        p->role = lore_office_is_one(type, titles)      ? ROLE_TITLE
                  : lore_office_is_one(type, furniture) ? ROLE_FURNITURE
                                                        : ROLE_TEXT;
    } else if (lore_str_equal(name, LORE_STR("t"))) {
        p->texts++;
    } else if (!is_read(p)) {
        return;
    } else if (lore_str_equal(name, LORE_STR("p")) && p->role == ROLE_TEXT) {
        lore_office_paragraph(&p->office);
    } else if (lore_str_equal(name, LORE_STR("tr"))) {
        lore_office_row(&p->office);
    } else if (lore_str_equal(name, LORE_STR("tc"))) {
        lore_office_cell(&p->office);
    } else if (lore_str_equal(name, LORE_STR("br")) || lore_str_equal(name, LORE_STR("tab"))) {
        lore_builder_made(p->office.builder, LORE_STR(" "), source);
    }
}

static void slide_end(void *self, lore_str name, size_t source)
{
    pptx *p = self;
    if (lore_office_skip_end(&p->office)) {
        return;
    }
    if (lore_str_equal(name, LORE_STR("t"))) {
        p->texts -= p->texts > 0 ? 1 : 0;
    } else if (lore_str_equal(name, LORE_STR("sp"))) {
        if (p->role == ROLE_TITLE && p->is_title_pass) {
            size_t before = p->office.builder->mark_count;
            bool has_title = p->office.builder->title.len > 0;
            lore_builder_heading(p->office.builder, has_title ? 2 : 1);
            p->has_heading = p->has_heading || p->office.builder->mark_count > before;
        }
        p->role = ROLE_TEXT;
    } else if (lore_str_equal(name, LORE_STR("p")) && is_read(p)) {
        if (p->role == ROLE_TITLE) {
            lore_builder_made(p->office.builder, LORE_STR(" "), source);
        } else {
            lore_office_paragraph_end(&p->office);
        }
    } else if (lore_str_equal(name, LORE_STR("tr")) && is_read(p)) {
        lore_office_row_end(&p->office);
    }
}

static void slide_text(void *self, lore_str text, size_t source)
{
    pptx *p = self;
    if (p->texts > 0 && p->office.skip_depth == 0 && is_read(p)) {
        begin_section(p, source);
        lore_office_text(&p->office, text, source);
    }
}

static lore_status read_part(pptx *p, const lore_package *package, const lore_part *part,
                             bool is_title_pass, lore_error *err)
{
    const lore_xml_handler handler = {.self = p,
                                      .start = slide_start,
                                      .end = slide_end,
                                      .text = slide_text,
                                      .is_full = lore_office_is_full};
    p->is_title_pass = is_title_pass;
    p->role = ROLE_TEXT;
    p->texts = 0;
    p->office = (lore_office){.builder = p->office.builder};
    return part == NULL ? LORE_OK : lore_package_xml(package, part, &handler, err);
}

static lore_status read_slide(pptx *p, const lore_package *package, const lore_part *part,
                              lore_error *err)
{
    lore_relation *relations = NULL;
    size_t count = 0;
    p->slide++;
    p->has_heading = false;
    lore_status status = read_part(p, package, part, true, err);
    if (status == LORE_OK) {
        status = read_part(p, package, part, false, err);
    }
    if (status == LORE_OK) {
        status = lore_package_relations(package, part->name, &relations, &count, err);
    }
    for (size_t i = 0; i < count && status == LORE_OK; i++) {
        if (lore_str_equal(relations[i].type, LORE_STR("notesSlide"))) {
            status =
                read_part(p, package, lore_package_part(package, relations[i].target), false, err);
        }
    }
    return status;
}

/* ---- the presentation ---- */

static void presentation_start(void *self, lore_str name, const char *const *attributes,
                               size_t source)
{
    pptx *p = self;
    (void)source;
    if (!lore_str_equal(name, LORE_STR("sldId")) || p->slide_count == SLIDES_MAX) {
        return;
    }
    /* Both id and r:id: the relation is the one with a prefix, and stands last. */
    lore_str id = {"", 0};
    for (; attributes[0] != NULL; attributes += 2) {
        size_t length = lore_str_from(attributes[0]).len;
        bool is_relation =
            length > 3 && lore_str_ends(lore_str_from(attributes[0]), LORE_STR(":id"));
        id = is_relation ? lore_str_from(attributes[1]) : id;
    }
    if (p->slide_count == p->slide_room) {
        size_t room = p->slide_room == 0 ? 64 : p->slide_room * 2;
        lore_str *grown = lore_realloc(p->slide_ids, room * sizeof *grown);
        if (grown == NULL) {
            p->is_out_of_memory = true;
            return;
        }
        p->slide_ids = grown;
        p->slide_room = room;
    }
    lore_str copy = lore_str_copy(p->arena, id);
    p->is_out_of_memory = p->is_out_of_memory || copy.ptr == NULL;
    p->slide_ids[p->slide_count++] = copy;
}

static lore_status read_slides(pptx *p, const lore_package *package, const lore_part *main_part,
                               lore_error *err)
{
    lore_relation *relations = NULL;
    size_t count = 0;
    lore_status status = lore_package_relations(package, main_part->name, &relations, &count, err);
    for (size_t i = 0; i < p->slide_count && status == LORE_OK; i++) {
        const lore_part *slide = NULL;
        for (size_t k = 0; k < count && slide == NULL; k++) {
            if (lore_str_equal(relations[k].id, p->slide_ids[i])) {
                slide = lore_package_part(package, relations[k].target);
            }
        }
        status = slide == NULL || p->office.builder->is_full ? LORE_OK
                                                             : read_slide(p, package, slide, err);
    }
    return status;
}

lore_status lore_clean_pptx(lore_builder *builder, const lore_package *package, lore_error *err)
{
    pptx p = {.office = {.builder = builder}, .arena = package->arena};
    const lore_xml_handler handler = {.self = &p, .start = presentation_start};
    const lore_part *main_part = NULL;
    lore_status status =
        lore_package_main(package, LORE_STR("ppt/presentation.xml"), &main_part, err);
    if (status == LORE_OK) {
        status = lore_package_xml(package, main_part, &handler, err);
    }
    if (status == LORE_OK && p.is_out_of_memory) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for %zu slides", p.slide_count);
    }
    if (status == LORE_OK) {
        status = read_slides(&p, package, main_part, err);
    }
    lore_free(p.slide_ids);
    return status;
}
