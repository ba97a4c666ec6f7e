/* Fuzz target of the XML inside packed formats. The input is the main part of a document of each
 * kind: its first byte chooses which. Property: what check_cleaned.h lists, of the package's
 * source.
 */
#include "tests/fuzz/check_cleaned.h"

#include "ingest/package_int.h"

typedef lore_status (*clean_part)(lore_builder *builder, const lore_package *package,
                                  lore_error *err);

static void check_part(const char *name, clean_part clean_it, lore_str xml)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_clean_document clean;
    lore_builder builder;
    lore_arena_init(&arena, 256 << 20);
    lore_part part = {lore_str_from(name), 0, xml.len};
    lore_package package = {
        .source = xml, .parts = &part, .part_count = 1, .limits = &FUZZ_LIMITS, .arena = &arena};
    lore_builder_init(&builder, xml, (lore_str){"", 0}, 32 << 20, &arena);
    lore_status status = clean_it(&builder, &package, &err);
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
    static const struct {
        const char *name;
        clean_part clean_it;
    } kinds[] = {{"word/document.xml", lore_clean_docx},
                 {"ppt/presentation.xml", lore_clean_pptx},
                 {"xl/workbook.xml", lore_clean_xlsx},
                 {"content.xml", lore_clean_odf},
                 {"a.opf", lore_clean_epub}};
    size_t kind = size == 0 ? 0 : data[0] % (sizeof kinds / sizeof kinds[0]);
    lore_str xml = {size == 0 ? "" : (const char *)data + 1, size == 0 ? 0 : size - 1};
    check_part(kinds[kind].name, kinds[kind].clean_it, xml);
    return 0;
}
