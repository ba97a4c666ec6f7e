/* Proves the filters and tests where the golden snippets leave room: kinds they cannot take, and
 * bounds. */
#include "tests/unit/template_fixture.h"

TEST(filters_take_what_they_can)
{
    check_gives("{{ 12 | length if false else [1] | length }}{{ nothing | length }}", "10", NULL);
    check_gives("{{ [1, 2] | first }}{{ [1, 2] | last }}{{ [] | first }}{{ [] | last }}", "12",
                NULL);
    check_gives("{{ [1, none, true] | join('+') }}", "1+None+True", NULL);
    check_gives("{{ nothing | default }}|{{ 0 | default(3, true) }}|{{ 0 | d(3) }}", "|3|0", NULL);
    check_gives("{{ [3, 0] | select | list | tojson }}{{ [3, 0] | reject | list | tojson }}",
                "[3][0]", NULL);
    check_gives("{{ [[1]] | tojson(indent=2) }}", "[\n  [\n    1\n  ]\n]", NULL);
}

/* A long text is not taken apart for one of its characters or their number. */
TEST(ends_of_long_texts_are_cheap)
{
    enum { LONG = 12 << 20 };
    lore_error err;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    char *text = lore_arena_push(&arena, LONG);
    memset(text, 'a', LONG);
    memcpy(text, "\xe4\xb8\xad", 3);
    memcpy(text + LONG - 2, "\xc3\xa9", 2);
    lore_template_message turn = {LORE_STR("user"), {text, LONG}};
    lore_template_chat chat = {.messages = &turn, .count = 1};
    lore_template_output output = {0};
    CHECK_OK(run_source(LORE_STR("{% set t = messages[0].content %}{{ t | first }}{{ t | last }}"
                                 "{{ t | length }}{{ t | count }}{{ '' | first }}{{ '' | last }}"),
                        &chat, &arena, &output, &err),
             &err);
    CHECK_STR(output.text, "\xe4\xb8\xad\xc3\xa9"
                           "12582909"
                           "12582909");
    for (size_t i = 0; i < output.text.len; i++) {
        CHECK_INT(output.foreign[i], i < 5);
    }
    lore_arena_destroy(&arena);
}

TEST(filters_refuse_the_rest)
{
    check_refuses("{{ 1 | length }}", LORE_ERR_INVALID, "t:1: a number is no list");
    check_refuses("{{ none | join }}", LORE_ERR_INVALID, "none is no list");
    check_refuses("{{ [[]] | join }}", LORE_ERR_UNSUPPORTED, "writing a list");
    check_refuses("{{ 1 | items }}", LORE_ERR_INVALID, "the items of a number");
    check_refuses("{{ [1] | tojson(indent=9) }}", LORE_ERR_LIMIT, "an indent that is not within");
    check_refuses("{{ [1] | tojson(indent=-1) }}", LORE_ERR_LIMIT, "an indent that is not within");
    check_refuses("{{ [nothing] | selectattr('x') | list }}", LORE_ERR_INVALID, "undefined");
}

TEST(tests_tell_kinds_apart)
{
    check_gives("{{ 1 is number }}{{ true is boolean }}{{ 1 is boolean }}{{ 'a' is string }}",
                "TrueTrueFalseTrue", NULL);
    check_gives("{{ messages is iterable }}{{ none is iterable }}{{ messages[0] is mapping }}",
                "TrueFalseTrue", NULL);
    check_gives("{{ namespace() is mapping }}{{ 1 is true }}{{ false is false }}", "FalseFalseTrue",
                NULL);
    check_gives("{{ 1 is equalto 1 }}{{ 1 is ne(1) }}{{ 1 is eq 2 }}", "TrueFalseFalse", NULL);
}

CHECK_MAIN(filters_take_what_they_can, ends_of_long_texts_are_cheap, filters_refuse_the_rest,
           tests_tell_kinds_apart)
