/* Each plain stage on texts that show its corners; golden_pieces compares all with `tokenizers`. */
#include "tests/unit/normal_fixture.h"

static lore_normal_stage map(int32_t (*of)(int32_t))
{
    return (lore_normal_stage){.run = lore_normal_characters, .map = of};
}

TEST(characters)
{
    fixture_check(map(lore_normal_map_lower), "A\xc3\x89z", "a\xc3\xa9z", "0123");
    fixture_check(map(lore_normal_map_lower), "\xc4\xb0X", "i\xcc\x87x", "0002"); /* U+0130 */
    fixture_check(map(lore_normal_map_marks), "e\xcc\x81x", "ex", "03");
    fixture_check(map(lore_normal_map_nonspacing), "e\xcc\x81x\xe0\xa4\x83", "ex\xe0\xa4\x83",
                  "03456");
    fixture_check(map(lore_normal_map_clean),
                  "a\tb\001\xff\xef\xbf\xbd\xc2\xa0"
                  "c",
                  "a b c", "0128:");
    fixture_check(map(lore_normal_map_nmt), "a\001\xe2\x80\x8b\xff", "a \xff", "025");
}

TEST(spaces_round_han)
{
    lore_normal_stage stage = {.run = lore_normal_han};
    fixture_check(stage, "a\xe4\xbd\xa0", "a \xe4\xbd\xa0 ", "011233");
    fixture_check(stage, "\xe3\x81\x82", "\xe3\x81\x82", "012");
}

TEST(ends)
{
    lore_normal_stage both = {.run = lore_normal_strip, .left = true, .right = true};
    lore_normal_stage left = {.run = lore_normal_strip, .left = true};
    fixture_check(both, " \xc2\xa0 a b\n", "a b", "456");
    fixture_check(left, " a ", "a ", "12");
    fixture_check(both, "  ", "", "");
    lore_normal_stage prepend = {.run = lore_normal_prepend, .content = LORE_STR("__")};
    fixture_check(prepend, "ab", "__ab", "0001");
    fixture_check(prepend, "", "", "");
}

TEST(replacing)
{
    lore_normal_stage string = {
        .run = lore_normal_replace_string, .pattern = LORE_STR("''"), .content = LORE_STR("\"")};
    fixture_check(string, "a''''b'", "a\"\"b'", "02456");
    lore_normal_stage run = {.run = lore_normal_replace_run,
                             .pattern = LORE_STR(" "),
                             .run_min = 2,
                             .content = LORE_STR("_")};
    fixture_check(run, " a   b", " a_b", "0145");
    lore_error err;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_normal_stage regex = {.run = lore_normal_replace_regex, .content = LORE_STR("-")};
    CHECK_OK(lore_regex_compile(LORE_STR("[0-9]+|x"), &arena, &regex.regex, &err), &err);
    fixture_check(regex, "a12xb3", "a--b-", "02345");
    CHECK_OK(lore_regex_compile(LORE_STR("a*"), &arena, &regex.regex, &err), &err);
    fixture_check(regex, "abab", "-b-b-", "01233");
    lore_arena_destroy(&arena);
}

CHECK_MAIN(characters, spaces_round_han, ends, replacing)
