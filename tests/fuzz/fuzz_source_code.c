/* Fuzz target of cleaning source code; the first byte chooses the language. Property: what
 * check_cleaned.h lists, and that no visible line is lost. */
#include "tests/fuzz/check_cleaned.h"

static size_t visible_lines(lore_str text)
{
    size_t count = 0;
    lore_str line;
    while (lore_str_next_line(&text, &line)) {
        count += fuzz_is_blank(line) ? 0 : 1;
    }
    return count;
}

static bool is_plain(lore_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if ((text.ptr[i] < 0x20 && text.ptr[i] != '\n') || text.ptr[i] == 0x7F) {
            return false; /* what is beyond ASCII may be invisible */
        }
    }
    return true;
}

static void check_lines(lore_str bytes)
{
    lore_arena arena;
    lore_clean_document clean;
    lore_raw_document raw = {.source = FUZZ_NAME, .media = LORE_MEDIA_CODE, .bytes = bytes};
    lore_arena_init(&arena, 64 << 20);
    if (lore_clean(&raw, &FUZZ_LIMITS, NULL, &arena, &clean, NULL) == LORE_OK) {
        LORE_ASSERT(visible_lines(clean.text) >= visible_lines(bytes));
    }
    lore_arena_destroy(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"a.c", "a.py", "a.sh", "a.sql", "a.go", "a.rs"};
    lore_str bytes = {(const char *)data, size};
    if (size > 0) {
        FUZZ_NAME = lore_str_from(names[data[0] % (sizeof names / sizeof names[0])]);
        bytes = lore_str_slice(bytes, 1, size);
    }
    check_cleaned(LORE_MEDIA_CODE, bytes);
    if (is_plain(bytes)) {
        check_lines(bytes);
    }
    return 0;
}
