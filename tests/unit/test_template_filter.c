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

CHECK_MAIN(filters_take_what_they_can, filters_refuse_the_rest, tests_tell_kinds_apart)
