/* JSON that is no document of ours: a line for each value, under its path. */
#include "tests/unit/ingest_fixture.h"

TEST(values)
{
    check_text(LORE_MEDIA_JSON,
               "{\"a\":{\"b\":\"x y\",\"n\":3,\"z\":null},\"l\":[true,\" \",\"q\"]}", "",
               "a.b: x y\na.n: 3\nl: true\nl: q");
    check_text(LORE_MEDIA_JSON, "\"alone\"", "", "alone");
}

TEST(refused)
{
    lore_arena arena;
    lore_error err = {0};
    lore_clean_document clean;
    lore_raw_document raw = {.media = LORE_MEDIA_JSON, .bytes = LORE_STR("{\"a\":")};
    lore_arena_init(&arena, 0);
    CHECK_FAILS(lore_clean(&raw, &LIMITS, NULL, &arena, &clean, &err), LORE_ERR_INVALID, &err,
                "byte");
    lore_arena_destroy(&arena);
}

CHECK_MAIN(values, refused)
