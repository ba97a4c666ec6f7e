/* Fuzz target of the XML inside packed formats. The first byte of the input chooses the format, NUL
 * bytes cut the rest into its parts, the main part first. Property: what check_cleaned.h lists, of
 * the package's source.
 */
#include "tests/fuzz/check_cleaned.h"

#include "ingest/package_int.h"

typedef lore_status (*clean_part)(lore_builder *builder, const lore_package *package,
                                  lore_error *err);

enum { PARTS_MAX = 6 };

/* Names of the parts of a format, in the order of the input. */
typedef struct kind {
    clean_part clean_it;
    const char *parts[PARTS_MAX];
} kind;

static void check_package(const kind *k, lore_str xml)
{
    if (k->clean_it == lore_clean_epub && lore_utf8_valid(xml) != xml.len) {
        return; /* unpacking decodes chapters */
    }
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_clean_document clean;
    lore_builder builder;
    lore_part parts[PARTS_MAX];
    lore_arena_init(&arena, 256 << 20);
    lore_package package = {.source = xml, .parts = parts, .limits = &FUZZ_LIMITS, .arena = &arena};
    for (size_t at = 0;
         at <= xml.len && package.part_count < PARTS_MAX && k->parts[package.part_count] != NULL;) {
        const char *nul = at < xml.len ? memchr(xml.ptr + at, '\0', xml.len - at) : NULL;
        size_t end = nul == NULL ? xml.len : (size_t)(nul - xml.ptr);
        parts[package.part_count] =
            (lore_part){lore_str_from(k->parts[package.part_count]), at, end};
        package.part_count++;
        at = end + 1;
    }
    lore_builder_init(&builder, xml, (lore_str){"", 0}, 32 << 20, &arena);
    lore_status status = k->clean_it(&builder, &package, &err);
    if (status == LORE_OK) {
        status = lore_builder_finish(&builder, (lore_str){"", 0}, &clean, &err);
    }
    lore_builder_destroy(&builder);
    if (status == LORE_OK) {
        check_text(&clean);
        check_runs(&clean, xml);
    } else {
        fuzz_check_refusal(status, &err);
    }
    fuzz_check_cost(start_ns, xml.len);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const kind kinds[] = {
        {lore_clean_docx,
         {"word/document.xml", "word/styles.xml", "word/numbering.xml", "word/footnotes.xml",
          "word/endnotes.xml"}},
        {lore_clean_pptx,
         {"ppt/presentation.xml", "ppt/_rels/presentation.xml.rels", "ppt/slides/s.xml",
          "ppt/slides/_rels/s.xml.rels", "ppt/notesSlides/n.xml"}},
        {lore_clean_xlsx,
         {"xl/workbook.xml", "xl/_rels/workbook.xml.rels", "xl/worksheets/s.xml",
          "xl/sharedStrings.xml", "xl/styles.xml"}},
        {lore_clean_odf, {"content.xml"}},
        {lore_clean_epub, {"a.opf", "META-INF/container.xml", "b.xhtml", "c/d.xhtml"}}};
    const kind *k = &kinds[size == 0 ? 0 : data[0] % (sizeof kinds / sizeof kinds[0])];
    check_package(k, (lore_str){size == 0 ? "" : (const char *)data + 1, size == 0 ? 0 : size - 1});
    return 0;
}
