/* Packed documents: parts, what they refer to, and what the document says of itself.
 *
 * ECMA-376 part 2 (Office), ODF 1.3 part 2, EPUB OCF 3.3: all are ZIP files of XML parts. Which
 * parts are unpacked is decided by name, so pictures and macros cost nothing. */
#include "ingest/package_int.h"

#include "base/utf8.h"

#include <fnmatch.h>
#include <string.h>

enum {
    NAMES_LOOKED_AT = 4096, /* to tell what a ZIP file is */
    PARTS_MAX = 4096,       /* they are looked for one by one */
    RELATIONS_MAX = 16384,
    MIMETYPE_BYTES_MAX = 256
};

/* ---- what it is ---- */

bool lore_media_is_packed(lore_media media)
{
    return media == LORE_MEDIA_DOCX || media == LORE_MEDIA_PPTX || media == LORE_MEDIA_XLSX ||
           media == LORE_MEDIA_ODF || media == LORE_MEDIA_EPUB;
}

static lore_media media_of_mimetype(lore_archive *archive)
{
    lore_buf type;
    lore_buf_init(&type, 0);
    lore_media media = LORE_MEDIA_AUTO;
    if (lore_archive_read(archive, MIMETYPE_BYTES_MAX, &type, NULL) == LORE_OK) {
        lore_str text = lore_str_trim(lore_buf_str(&type));
        media = lore_str_starts(text, LORE_STR("application/vnd.oasis.opendocument."))
                    ? LORE_MEDIA_ODF
                : lore_str_equal(text, LORE_STR("application/epub+zip")) ? LORE_MEDIA_EPUB
                                                                         : LORE_MEDIA_AUTO;
    }
    lore_buf_destroy(&type);
    return media;
}

lore_media lore_package_media(lore_str bytes)
{
    static const struct {
        const char *folder;
        lore_media media;
    } known[] = {{"word/", LORE_MEDIA_DOCX}, {"ppt/", LORE_MEDIA_PPTX}, {"xl/", LORE_MEDIA_XLSX}};
    lore_archive *archive = NULL;
    lore_arena names;
    lore_media office = LORE_MEDIA_AUTO, media = LORE_MEDIA_AUTO;
    bool has_types = false, done = false;
    lore_str name;
    if (lore_archive_open(bytes, UINT64_MAX, &archive, NULL) != LORE_OK) {
        return LORE_MEDIA_ARCHIVE; /* what is wrong is told when it is read */
    }
    lore_arena_init(&names, 0);
    for (int i = 0; i < NAMES_LOOKED_AT && media == LORE_MEDIA_AUTO; i++) {
        lore_arena_reset(&names);
        if (lore_archive_next(archive, &names, &name, &done, NULL) != LORE_OK || done) {
            break;
        }
        has_types = has_types || lore_str_equal_nocase(name, LORE_STR("[Content_Types].xml"));
        for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
            lore_str folder = lore_str_from(known[k].folder);
            bool is_in = name.len > folder.len &&
                         lore_str_equal_nocase(lore_str_slice(name, 0, folder.len), folder);
            office = is_in && office == LORE_MEDIA_AUTO ? known[k].media : office;
        }
        if (lore_str_equal(name, LORE_STR("mimetype"))) {
            media = media_of_mimetype(archive);
        } else if (lore_str_equal(name, LORE_STR("META-INF/container.xml"))) {
            media = LORE_MEDIA_EPUB; /* of a careless packer */
        } else if (has_types && office != LORE_MEDIA_AUTO) {
            media = office;
        }
    }
    lore_arena_destroy(&names);
    lore_archive_close(archive);
    return media == LORE_MEDIA_AUTO ? LORE_MEDIA_ARCHIVE : media;
}

/* ---- unpacking ---- */

static bool is_wanted(lore_media media, const char *name)
{
    static const char *const docx[] = {
        "_rels/.rels",         "docProps/core.xml",  "word/_rels/*.rels",
        "word/document*.xml",  "word/styles*.xml",   "word/numbering*.xml",
        "word/footnotes*.xml", "word/endnotes*.xml", NULL};
    static const char *const pptx[] = {
        "_rels/.rels",      "docProps/core.xml",       "ppt/presentation*.xml", "ppt/_rels/*.rels",
        "ppt/slides/*.xml", "ppt/slides/_rels/*.rels", "ppt/notesSlides/*.xml", NULL};
    static const char *const xlsx[] = {
        "_rels/.rels",    "docProps/core.xml",     "xl/workbook*.xml",    "xl/_rels/*.rels",
        "xl/styles*.xml", "xl/sharedStrings*.xml", "xl/worksheets/*.xml", NULL};
    static const char *const odf[] = {"content.xml", "meta.xml", NULL};
    static const char *const epub[] = {
        "META-INF/container.xml", "*.opf", "*.xhtml", "*.html", "*.htm", "*.xml", NULL};
    const char *const *patterns = media == LORE_MEDIA_DOCX   ? docx
                                  : media == LORE_MEDIA_PPTX ? pptx
                                  : media == LORE_MEDIA_XLSX ? xlsx
                                  : media == LORE_MEDIA_ODF  ? odf
                                                             : epub;
    int flags = FNM_CASEFOLD | (media == LORE_MEDIA_EPUB ? 0 : FNM_PATHNAME);
    for (; *patterns != NULL; patterns++) {
        if (fnmatch(*patterns, name, flags) == 0) {
            return true;
        }
    }
    return false;
}

/* Chapters of a book go to a parser that takes UTF-8 only; XML parts tell expat what they are. */
static lore_status decode_chapter(lore_package *package, size_t start, lore_buf *all,
                                  lore_error *err)
{
    lore_str bytes = {all->ptr + start, all->len - start}, text;
    if (bytes.len == 0 || lore_utf8_valid(bytes) == bytes.len) {
        return LORE_OK;
    }
    lore_status status = lore_decode(bytes, LORE_MEDIA_HTML, package->arena, &text, err);
    if (status == LORE_OK) {
        all->len = start;
        lore_buf_append(all, text);
        status = lore_buf_failed(all) ? lore_fail(err, LORE_ERR_NOMEM, "out of memory unpacking")
                                      : LORE_OK;
    }
    return status;
}

/* One wanted part behind the others. */
static lore_status unpack_part(lore_package *package, lore_archive *archive, lore_media media,
                               lore_str name, lore_buf *all, lore_buf *parts, lore_error *err)
{
    size_t start = all->len;
    if (package->part_count == PARTS_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "has more than %d parts", PARTS_MAX);
    }
    lore_status status =
        lore_archive_read(archive, (size_t)package->limits->file_bytes_max, all, err);
    bool is_xml = lore_str_ends(name, LORE_STR(".opf")) || lore_str_ends(name, LORE_STR(".xml"));
    if (status == LORE_OK && media == LORE_MEDIA_EPUB && !is_xml) {
        status = decode_chapter(package, start, all, err);
    }
    if (status != LORE_OK) {
        return lore_error_prefix(err, "'" LORE_STR_FMT "'", LORE_STR_ARG(name));
    }
    if (all->len > INT32_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "has %zu bytes once unpacked", all->len);
    }
    lore_part part = {name, start, all->len};
    lore_buf_append(parts, (lore_str){(const char *)&part, sizeof part});
    package->part_count++;
    return LORE_OK;
}

lore_status lore_package_open(lore_str bytes, lore_media media, const lore_limits *limits,
                              const lore_interrupt *interrupt, lore_arena *arena,
                              lore_package *package, lore_error *err)
{
    lore_archive *archive = NULL;
    lore_buf all, parts;
    bool done = false;
    lore_buf_init(&all, lore_document_arena_cap(limits, bytes.len));
    lore_buf_init(&parts, 0);
    *package =
        (lore_package){.source = {"", 0}, .limits = limits, .interrupt = interrupt, .arena = arena};
    lore_status status =
        lore_archive_open(bytes, (uint64_t)limits->unpacked_bytes_max, &archive, err);
    while (status == LORE_OK) {
        lore_str name;
        status = lore_is_interrupted(interrupt)
                     ? lore_fail(err, LORE_ERR_CANCELLED, "cancelled while unpacking")
                     : lore_archive_next(archive, arena, &name, &done, err);
        if (status != LORE_OK || done) {
            break;
        }
        if (is_wanted(media, name.ptr)) {
            status = unpack_part(package, archive, media, name, &all, &parts, err);
        }
    }
    if (status == LORE_ERR_NOMEM && all.cap_bytes > 0 && all.len + all.len / 2 > all.cap_bytes) {
        status =
            lore_fail(err, LORE_ERR_LIMIT, "unpacks to more than %zu bytes of text", all.cap_bytes);
    }
    if (status == LORE_OK) {
        package->source = lore_str_copy(arena, lore_buf_str(&all));
        package->parts = LORE_PUSH(arena, lore_part, package->part_count + 1);
        bool has_memory =
            !lore_buf_failed(&parts) && package->source.ptr != NULL && package->parts != NULL;
        status = has_memory ? LORE_OK : lore_fail(err, LORE_ERR_NOMEM, "out of memory unpacking");
    }
    if (status == LORE_OK && package->part_count > 0) {
        memcpy(package->parts, parts.ptr, parts.len);
    }
    lore_archive_close(archive);
    lore_buf_destroy(&all);
    lore_buf_destroy(&parts);
    return status;
}

const lore_part *lore_package_part(const lore_package *package, lore_str name)
{
    for (size_t i = 0; i < package->part_count; i++) {
        if (lore_str_equal_nocase(package->parts[i].name, name)) {
            return &package->parts[i];
        }
    }
    return NULL;
}

lore_status lore_package_xml(const lore_package *package, const lore_part *part,
                             const lore_xml_handler *handler, lore_error *err)
{
    return lore_xml_parse(package->source, part->start, part->end, part->name, handler,
                          package->limits, package->interrupt, err);
}

/* ---- references ---- */

/* Take %20 and its like away, in place. */
static void decode_percent(lore_str *s)
{
    char *to = (char *)s->ptr; /* the caller's own copy */
    size_t used = 0;
    for (size_t i = 0; i < s->len; i++) {
        int32_t high = s->ptr[i] == '%' && i + 2 < s->len ? lore_hex_digit(s->ptr[i + 1]) : -1;
        int32_t low = high >= 0 ? lore_hex_digit(s->ptr[i + 2]) : -1;
        to[used++] = low >= 0 ? (char)(high * 16 + low) : s->ptr[i];
        i += low >= 0 ? 2 : 0;
    }
    s->len = used;
}

lore_str lore_package_resolve(lore_str base, lore_str target, lore_arena *arena)
{
    const char *mark = target.len > 0 ? memchr(target.ptr, '#', target.len) : NULL;
    target.len = mark == NULL ? target.len : (size_t)(mark - target.ptr);
    size_t folder = base.len;
    while (folder > 0 && base.ptr[folder - 1] != '/') {
        folder--;
    }
    bool is_absolute = target.len > 0 && target.ptr[0] == '/';
    char *path = lore_arena_push(arena, folder + target.len + 1);
    if (path == NULL) {
        return (lore_str){NULL, 0};
    }
    size_t used = is_absolute ? 0 : folder;
    memcpy(path, base.ptr, used);
    for (size_t at = 0; at < target.len;) {
        const char *slash = memchr(target.ptr + at, '/', target.len - at);
        size_t end = slash == NULL ? target.len : (size_t)(slash - target.ptr);
        lore_str step = lore_str_slice(target, at, end);
        if (lore_str_equal(step, LORE_STR(".."))) {
            used -= used > 0 ? 1 : 0;
            while (used > 0 && path[used - 1] != '/') {
                used--;
            }
        } else if (step.len > 0 && !lore_str_equal(step, LORE_STR("."))) {
            memcpy(path + used, step.ptr, step.len);
            used += step.len;
            if (slash != NULL) {
                path[used++] = '/';
            }
        }
        at = end + (slash == NULL ? 0 : 1);
    }
    lore_str resolved = {path, used};
    decode_percent(&resolved);
    path[resolved.len] = '\0';
    return resolved;
}

typedef struct relation_list {
    const lore_package *package;
    lore_str base;
    lore_buf items;
    bool is_full;
} relation_list;

static lore_str last_step(lore_str path)
{
    const char *slash = path.len > 0 ? memrchr(path.ptr, '/', path.len) : NULL;
    return slash == NULL ? path : lore_str_slice(path, (size_t)(slash - path.ptr) + 1, path.len);
}

static void on_relation(void *self, lore_str name, const char *const *attributes, size_t source)
{
    relation_list *list = self;
    (void)source;
    if (!lore_str_equal(name, LORE_STR("Relationship")) ||
        list->items.len >= RELATIONS_MAX * sizeof(lore_relation) ||
        lore_str_equal(lore_xml_attribute(attributes, "TargetMode"), LORE_STR("External"))) {
        return;
    }
    lore_arena *arena = list->package->arena;
    lore_relation relation = {
        lore_str_copy(arena, lore_xml_attribute(attributes, "Id")),
        lore_str_copy(arena, last_step(lore_xml_attribute(attributes, "Type"))),
        lore_package_resolve(list->base, lore_xml_attribute(attributes, "Target"), arena)};
    list->is_full = list->is_full || relation.id.ptr == NULL || relation.type.ptr == NULL ||
                    relation.target.ptr == NULL;
    lore_buf_append(&list->items, (lore_str){(const char *)&relation, sizeof relation});
}

lore_status lore_package_relations(const lore_package *package, lore_str base,
                                   lore_relation **relations, size_t *count, lore_error *err)
{
    lore_str file = last_step(base), folder = {base.ptr, base.len - file.len};
    lore_str name = lore_str_printf(package->arena, LORE_STR_FMT "_rels/" LORE_STR_FMT ".rels",
                                    LORE_STR_ARG(folder), LORE_STR_ARG(file));
    *relations = NULL;
    *count = 0;
    if (name.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for relations");
    }
    const lore_part *part = lore_package_part(package, name);
    if (part == NULL) {
        return LORE_OK;
    }
    relation_list list = {.package = package, .base = base};
    lore_buf_init(&list.items, 0);
    const lore_xml_handler handler = {.self = &list, .start = on_relation};
    lore_status status = lore_package_xml(package, part, &handler, err);
    if (status == LORE_OK) {
        *count = list.items.len / sizeof(lore_relation);
        *relations = LORE_PUSH(package->arena, lore_relation, *count + 1);
        bool has_memory = !list.is_full && !lore_buf_failed(&list.items) && *relations != NULL;
        status =
            has_memory ? LORE_OK : lore_fail(err, LORE_ERR_NOMEM, "out of memory for relations");
    }
    if (status == LORE_OK && *count > 0) {
        memcpy(*relations, list.items.ptr, list.items.len);
    }
    lore_buf_destroy(&list.items);
    return status;
}

lore_status lore_package_main(const lore_package *package, lore_str fallback,
                              const lore_part **part, lore_error *err)
{
    lore_relation *relations = NULL;
    size_t count = 0;
    *part = NULL;
    lore_status status = lore_package_relations(package, LORE_STR(""), &relations, &count, err);
    for (size_t i = 0; i < count && status == LORE_OK && *part == NULL; i++) {
        if (lore_str_equal(relations[i].type, LORE_STR("officeDocument"))) {
            *part = lore_package_part(package, relations[i].target);
        }
    }
    *part = *part == NULL ? lore_package_part(package, fallback) : *part;
    return status != LORE_OK || *part != NULL
               ? status
               : lore_fail(err, LORE_ERR_INVALID, "has no part '" LORE_STR_FMT "'",
                           LORE_STR_ARG(fallback));
}

/* ---- about ---- */

typedef struct about_reader {
    lore_clean_document *about;
    lore_str *field; /* whose element is open; NULL: none */
    lore_buf text;
    lore_arena *arena;
    bool is_out_of_memory;
} about_reader;

static void about_start(void *self, lore_str name, const char *const *attributes, size_t source)
{
    static const struct {
        const char *name;
        size_t offset;
    } fields[] = {{"title", offsetof(lore_clean_document, title)},
                  {"creator", offsetof(lore_clean_document, author)},
                  {"date", offsetof(lore_clean_document, date)},
                  {"modified", offsetof(lore_clean_document, date)},
                  {"language", offsetof(lore_clean_document, language)}};
    about_reader *reader = self;
    (void)attributes, (void)source;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        lore_str *field = (lore_str *)(void *)((char *)reader->about + fields[i].offset);
        if (lore_str_equal(name, lore_str_from(fields[i].name)) && field->len == 0) {
            reader->field = field;
            lore_buf_reset(&reader->text);
        }
    }
}

static void about_text(void *self, lore_str text, size_t source)
{
    about_reader *reader = self;
    (void)source;
    if (reader->field != NULL && reader->text.len + text.len <= LORE_TITLE_BYTES_MAX) {
        lore_buf_append(&reader->text, text);
    }
}

static void about_end(void *self, lore_str name, size_t source)
{
    about_reader *reader = self;
    (void)name, (void)source;
    if (reader->field != NULL) {
        *reader->field = lore_str_copy(reader->arena, lore_str_trim(lore_buf_str(&reader->text)));
        reader->is_out_of_memory = reader->is_out_of_memory || reader->field->ptr == NULL;
        reader->field = NULL;
    }
}

lore_status lore_package_about(const lore_package *package, const lore_part *part,
                               lore_clean_document *about, lore_error *err)
{
    if (part == NULL) {
        return LORE_OK;
    }
    about_reader reader = {.about = about, .arena = package->arena};
    lore_buf_init(&reader.text, 0);
    const lore_xml_handler handler = {
        .self = &reader, .start = about_start, .end = about_end, .text = about_text};
    lore_status status = lore_package_xml(package, part, &handler, err);
    if (status == LORE_OK && (reader.is_out_of_memory || lore_buf_failed(&reader.text))) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for a title");
    }
    lore_buf_destroy(&reader.text);
    return status;
}
