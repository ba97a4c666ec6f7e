/* Fuzz target of references and Content-Types from servers. Property: a reference is refused with a
 * message or gives a URL of http or https without control characters or blanks, which gives itself
 * again; a Content-Type gives a media type. */
#include "ingest/web_int.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void check_again(const lore_url *url, lore_arena *arena)
{
    lore_url again;
    lore_error err;
    LORE_ASSERT(strncmp(url->text, "http://", 7) == 0 || strncmp(url->text, "https://", 8) == 0);
    for (const char *c = url->text; *c != '\0'; c++) {
        LORE_ASSERT((unsigned char)*c > 0x20 && *c != 0x7F);
    }
    LORE_ASSERT(url->path.len > 0 && url->path.ptr[0] == '/' && url->host.len > 0);
    lore_status status =
        lore_url_resolve((lore_str){"", 0}, lore_str_from(url->text), arena, &again, &err);
    LORE_ASSERT(status == LORE_OK || strlen(url->text) > 4096);
    if (status == LORE_OK) {
        LORE_ASSERT(lore_str_equal(again.origin, url->origin));
        LORE_ASSERT(lore_str_equal(again.path, url->path));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live();
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_url url;
    lore_str text = {(const char *)data, size}, bytes = LORE_STR("words"), base = LORE_STR("");
    lore_arena_init(&arena, 0);
    if (size > 0 && data[0] % 2 == 0) {
        base = LORE_STR("https://example.com/a/b?c");
        text = lore_str_slice(text, 1, text.len);
    }
    lore_status status = lore_url_resolve(base, text, &arena, &url, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
    } else {
        check_again(&url, &arena);
    }
    lore_media media = lore_media_served(text, base, bytes);
    LORE_ASSERT(lore_decode_served(text, media, &arena, &bytes, &err) == LORE_OK);
    LORE_ASSERT(lore_url_name(text, &arena).len <= text.len);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
