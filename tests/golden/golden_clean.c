/* tests/golden/clean: each input with what cleaning makes of it beside it (NAME.expected): title,
 * then every section with its heading and text, or the error. Whoever changes the result on purpose
 * runs this with LORE_GOLDEN_WRITE=1 and reviews the difference. */
#include "tests/unit/ingest_fixture.h"

#define FOLDER LORE_SOURCE_DIR "/tests/golden/clean"

static void describe(lore_str name, lore_str bytes, lore_buf *out)
{
    lore_arena arena;
    lore_error err = {0};
    lore_clean_document clean;
    lore_arena_init(&arena, 0);
    lore_raw_document raw = {.source = name, .bytes = bytes};
    lore_status status = lore_clean(&raw, &LIMITS, NULL, &arena, &clean, &err);
    if (status != LORE_OK) {
        lore_buf_printf(out, "error: %s: %s\n", lore_status_name(status), err.message);
    } else {
        lore_buf_printf(out, "title: " LORE_STR_FMT "\n", LORE_STR_ARG(clean.title));
        for (int32_t i = 0; i < clean.section_count; i++) {
            const lore_section *section = &clean.sections[i];
            lore_str text = lore_str_slice(clean.text, section->start, section->end);
            lore_buf_printf(out, "[" LORE_STR_FMT "]\n" LORE_STR_FMT,
                            LORE_STR_ARG(section->heading), LORE_STR_ARG(text));
        }
        lore_buf_append(out, LORE_STR("\n"));
    }
    lore_arena_destroy(&arena);
}

TEST(documents)
{
    lore_arena arena;
    lore_error err = {0};
    lore_str *names = NULL;
    size_t count = 0, checked = 0;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_dir_list(&arena, FOLDER, 1000, &names, &count, &err), &err);
    for (size_t i = 0; i < count; i++) {
        if (lore_str_ends(names[i], LORE_STR(".expected"))) {
            continue;
        }
        char path[512], expected_path[512];
        snprintf(path, sizeof path, FOLDER "/" LORE_STR_FMT, LORE_STR_ARG(names[i]));
        snprintf(expected_path, sizeof expected_path, FOLDER "/" LORE_STR_FMT ".expected",
                 LORE_STR_ARG(names[i]));
        lore_buf bytes, found, expected;
        lore_buf_init(&found, 0);
        read_file(path, &bytes);
        describe(names[i], lore_buf_str(&bytes), &found);
        if (getenv("LORE_GOLDEN_WRITE") != NULL) {
            write_file(expected_path, lore_buf_str(&found));
        }
        read_file(expected_path, &expected);
        if (!lore_str_equal(lore_buf_str(&found), lore_buf_str(&expected))) {
            CHECK_STOP("%s: cleaned to\n" LORE_STR_FMT "\nnot to\n" LORE_STR_FMT, path,
                       LORE_STR_ARG(lore_buf_str(&found)), LORE_STR_ARG(lore_buf_str(&expected)));
        }
        lore_buf_destroy(&bytes);
        lore_buf_destroy(&found);
        lore_buf_destroy(&expected);
        checked++;
    }
    CHECK(checked >= 12);
    lore_arena_destroy(&arena);
}

CHECK_MAIN(documents)
