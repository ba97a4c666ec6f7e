/* EPUB 2 and 3 to text: the chapters in the order of the spine, each read as HTML.
 *
 * The first package document that META-INF/container.xml names counts; further renditions of a
 * book say the same again. */
#include "ingest/package_int.h"

enum { ITEMS_MAX = 16384 }; /* each is looked for among the parts */

typedef struct item {
    lore_str id;
    const lore_part *part;
} item;

typedef struct epub {
    const lore_package *package;
    const lore_part *opf;
    lore_buf items; /* of the manifest, those that are read */
    lore_buf spine; /* parts, in order */
    int64_t item_count;
    bool is_out_of_memory;
} epub;

/* ---- container.xml ---- */

typedef struct rootfile {
    const lore_package *package;
    const lore_part *part;
    bool is_out_of_memory;
} rootfile;

static void container_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    rootfile *r = self;
    (void)source;
    if (!lore_str_equal(name, LORE_STR("rootfile")) || r->part != NULL) {
        return;
    }
    lore_str path = lore_package_resolve(
        (lore_str){"", 0}, lore_xml_attribute(attributes, "full-path"), r->package->arena);
    r->is_out_of_memory = r->is_out_of_memory || path.ptr == NULL;
    r->part = path.ptr == NULL ? NULL : lore_package_part(r->package, path);
}

lore_status lore_epub_main(const lore_package *package, const lore_part **part, lore_error *err)
{
    rootfile r = {.package = package};
    const lore_part *container = lore_package_part(package, LORE_STR("META-INF/container.xml"));
    const lore_xml_handler handler = {.self = &r, .start = container_start};
    lore_status status =
        container == NULL ? LORE_OK : lore_package_xml(package, container, &handler, err);
    if (status == LORE_OK && r.is_out_of_memory) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for a book");
    }
    for (size_t i = 0; i < package->part_count && status == LORE_OK && r.part == NULL; i++) {
        bool is_opf = lore_str_ends(package->parts[i].name, LORE_STR(".opf"));
        r.part = is_opf ? &package->parts[i] : NULL;
    }
    *part = r.part;
    return status != LORE_OK || r.part != NULL
               ? status
               : lore_fail(err, LORE_ERR_INVALID, "has no package document (*.opf)");
}

/* ---- package document ---- */

static void add_item(epub *e, const char *const *attributes)
{
    lore_arena *arena = e->package->arena;
    lore_str type = lore_xml_attribute(attributes, "media-type");
    lore_str path =
        lore_package_resolve(e->opf->name, lore_xml_attribute(attributes, "href"), arena);
    item fresh = {lore_str_copy(arena, lore_xml_attribute(attributes, "id")), NULL};
    if (path.ptr == NULL || fresh.id.ptr == NULL) {
        e->is_out_of_memory = true;
        return;
    }
    bool is_navigation =
        lore_str_find(lore_xml_attribute(attributes, "properties"), LORE_STR("nav"), 0) != SIZE_MAX;
    fresh.part = is_navigation || lore_str_find(type, LORE_STR("html"), 0) == SIZE_MAX
                     ? NULL
                     : lore_package_part(e->package, path);
    if (fresh.part != NULL) {
        lore_buf_append(&e->items, (lore_str){(const char *)&fresh, sizeof fresh});
    }
}

static void opf_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    epub *e = self;
    (void)source;
    if (lore_str_equal(name, LORE_STR("item")) && e->item_count++ < ITEMS_MAX) {
        add_item(e, attributes);
    } else if (lore_str_equal(name, LORE_STR("itemref"))) {
        lore_str id = lore_xml_attribute(attributes, "idref");
        item *items = (item *)(void *)e->items.ptr;
        for (size_t i = 0; i < e->items.len / sizeof(item); i++) {
            if (items[i].part != NULL && lore_str_equal(items[i].id, id)) {
                lore_buf_append(&e->spine,
                                (lore_str){(const char *)&items[i].part, sizeof items[i].part});
                items[i].part = NULL; /* named twice, a chapter is still read once */
                break;
            }
        }
    }
}

static lore_status read_chapters(const epub *e, lore_builder *builder, lore_error *err)
{
    const lore_part *const *parts = (const lore_part *const *)(const void *)e->spine.ptr;
    size_t count = e->spine.len / sizeof *parts, whole = builder->source.len;
    lore_status status = LORE_OK;
    for (size_t i = 0; i < count && status == LORE_OK && !builder->is_full; i++) {
        /* The parser reads to the end of the source. */
        builder->source.len = parts[i]->end;
        status = lore_clean_html(builder, parts[i]->start, e->package->limits, err);
        builder->source.len = whole;
    }
    return status;
}

lore_status lore_clean_epub(lore_builder *builder, const lore_package *package, lore_error *err)
{
    epub e = {.package = package};
    lore_status status = lore_epub_main(package, &e.opf, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_buf_init(&e.items, 0);
    lore_buf_init(&e.spine, 0);
    const lore_xml_handler handler = {.self = &e, .start = opf_start};
    status = lore_package_xml(package, e.opf, &handler, err);
    bool has_memory =
        !e.is_out_of_memory && !lore_buf_failed(&e.items) && !lore_buf_failed(&e.spine);
    if (status == LORE_OK && !has_memory) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for the chapters of a book");
    }
    if (status == LORE_OK) {
        status = read_chapters(&e, builder, err);
    }
    lore_buf_destroy(&e.items);
    lore_buf_destroy(&e.spine);
    return status;
}
