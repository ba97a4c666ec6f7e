/* Fuzz target of sitemaps. Property: read or refused with a message; URLs are trimmed, not empty
 * and no more than the limit; all memory is given back. */
#include "ingest/web_int.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const lore_limits limits = {.markup_depth_max = 64, .fetch_pages_max = 50};
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_sitemap sitemap;
    lore_str bytes = {(const char *)data, size};
    lore_arena_init(&arena, 0);
    (void)lore_sitemap_is(bytes);
    lore_status status = lore_sitemap_parse(bytes, &limits, &arena, &sitemap, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
    }
    LORE_ASSERT(sitemap.count <= 50);
    for (size_t i = 0; i < sitemap.count && status == LORE_OK; i++) {
        lore_str url = sitemap.urls[i];
        LORE_ASSERT(url.len > 0 && lore_str_trim(url).len == url.len);
    }
    fuzz_check_cost(start_ns, size);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
