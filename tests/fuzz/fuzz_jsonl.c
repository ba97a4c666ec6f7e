/* Fuzz target of JSON documents. Property: every line is taken or refused with a message; what is
 * taken has a text, merges with further metadata, and cleans like any other document. */
#include "tests/fuzz/check_cleaned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_line(lore_str line)
{
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_raw_document raw;
    lore_arena_init(&arena, 0);
    if (lore_raw_from_json(line, &FUZZ_LIMITS, &arena, &raw, &err) != LORE_OK) {
        LORE_ASSERT(err.status != LORE_OK);
        LORE_ASSERT(err.message[0] != '\0');
    } else {
        LORE_ASSERT(raw.media != LORE_MEDIA_AUTO && raw.bytes.ptr != NULL);
        lore_str merged;
        lore_status status = lore_metadata_merge(raw.metadata, LORE_STR("{\"a\":{\"b\":[1]}}"),
                                                 &FUZZ_LIMITS, &arena, &merged, &err);
        LORE_ASSERT(status == LORE_OK || status == LORE_ERR_LIMIT);
        check_cleaned(raw.media, raw.bytes);
    }
    lore_arena_destroy(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lore_str rest = {(const char *)data, size}, line;
    while (lore_str_next_line(&rest, &line)) {
        check_line(line);
    }
    return 0;
}
