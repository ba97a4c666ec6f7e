/* Fuzz target of the XML inside packed formats (xml_parts.h). Property: what check_cleaned.h lists,
 * of the package's source.
 */
#include "tests/fuzz/check_cleaned.h"
#include "tests/fuzz/xml_parts.h"

static void check_package(const xml_kind *k, lore_str xml)
{
    if (k->clean_it == lore_clean_epub && lore_utf8_valid(xml) != xml.len) {
        return; /* unpacking decodes chapters */
    }
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_clean_document clean;
    lore_builder builder;
    lore_part parts[XML_PARTS_MAX];
    lore_arena_init(&arena, 256 << 20);
    lore_package package = {.source = xml, .parts = parts, .limits = &FUZZ_LIMITS, .arena = &arena};
    package.part_count = xml_cut(k, xml, parts);
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
    lore_str xml = {size == 0 ? "" : (const char *)data + 1, size == 0 ? 0 : size - 1};
    check_package(xml_kind_of(size == 0 ? 0 : data[0]), xml);
    return 0;
}
