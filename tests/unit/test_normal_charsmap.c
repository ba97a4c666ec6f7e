/* The same map applied in the library's way and in sentencepiece's. */
#include "tests/unit/charsmap_fixture.h"
#include "tests/unit/normal_fixture.h"

static const char *const PAIRS[] = {
    "A",  "a", "e\xcc\x81",        "\xc3\xa9", "\xc2\xbd",     "1/2", "\001", "",
    "\t", " ", "\xc2\xbd\xcc\x81", "!",        "\xe3\x80\x80", " ",   NULL};
static lore_arena arena;
static charsmap_fixture f;
static lore_charsmap map;

static void open_map(void)
{
    lore_error err;
    lore_arena_init(&arena, 0);
    fixture_make(&f, PAIRS);
    CHECK_OK(lore_charsmap_open(&map, fixture_blob(&f), &arena, &err), &err);
}

TEST(as_tokenizers)
{
    open_map();
    lore_normal_stage stage = {.run = lore_normal_precompiled, .charsmap = &map};
    fixture_check(stage, "xAe\xcc\x81y", "xa\xc3\xa9y", "01225");
    fixture_check(stage, "x\xc2\xbd", "x1/2", "0111");
    /* The whole cluster becomes what its shortest key does. */
    fixture_check(stage, "\xc2\xbd\xcc\x81y", "1/2y", "0224");
    /* Six bytes and more go by code point. */
    fixture_check(stage, "e\xcc\x81\xcc\x81\xcc\x81", "e\xcc\x81\xcc\x81\xcc\x81", "0123456");
    fixture_check(stage, "x\001y", "xy", "02");
    fixture_check(stage, "\001xy", "xy", "01"); /* what goes first makes the rest late */
    fixture_check(stage, "\xc2\xbd\001y", "1/2y", "0023");
    lore_arena_destroy(&arena);
}

TEST(as_sentencepiece)
{
    open_map();
    lore_normal_stage all = {.run = lore_normal_sentencepiece,
                             .charsmap = &map,
                             .has_prefix = true,
                             .is_squeezed = true,
                             .is_escaped = true};
    fixture_check(all, " \t A b  ",
                  "\xe2\x96\x81"
                  "a\xe2\x96\x81"
                  "b",
                  "33334445");
    fixture_check(all, "\xc2\xbd\xcc\x81", "\xe2\x96\x81!", "0000");
    fixture_check(all, " \xe3\x80\x80", "", "");
    fixture_check(all, "x\xff", "\xe2\x96\x81x\xef\xbf\xbd", "0000111");
    lore_normal_stage none = {.run = lore_normal_sentencepiece};
    fixture_check(none, " A  b ", " A  b ", "012345");
    lore_normal_stage escaped = {.run = lore_normal_sentencepiece, .is_escaped = true};
    fixture_check(escaped, "a  ", "a\xe2\x96\x81\xe2\x96\x81", "0111222");
    lore_arena_destroy(&arena);
}

CHECK_MAIN(as_tokenizers, as_sentencepiece)
