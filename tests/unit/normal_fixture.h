/* One stage over one text. */
#ifndef LORE_TESTS_NORMAL_FIXTURE_H
#define LORE_TESTS_NORMAL_FIXTURE_H

#include "models/normal_stage_int.h"
#include "tests/check.h"

static lore_arena fixture_arena;

static inline lore_normal fixture_run(lore_normal_stage stage, const char *text)
{
    lore_error err;
    lore_normal out;
    lore_normal_writer w = {
        .in = {lore_str_from(text), NULL}, .cap = 1 << 20, .arena = &fixture_arena};
    stage.run(&stage, &w);
    CHECK_OK(lore_normal_finish(&w, &out, &err), &err);
    return out;
}

/* The text becomes `wanted`, and byte i of it comes from offset origins[i] ('0' and up). */
static inline void fixture_check(lore_normal_stage stage, const char *text, const char *wanted,
                                 const char *origins)
{
    lore_arena_init(&fixture_arena, 0);
    lore_normal out = fixture_run(stage, text);
    CHECK_STR(out.text, wanted);
    CHECK(strlen(origins) == out.text.len);
    for (size_t i = 0; i < out.text.len; i++) {
        CHECK_INT(out.origin != NULL ? out.origin[i] : i, origins[i] - '0');
    }
    lore_arena_destroy(&fixture_arena);
}

#endif
