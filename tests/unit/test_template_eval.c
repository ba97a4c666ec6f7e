/* Proves arithmetic at its limits, slices as Python clips them, and that operands of the wrong
 * kinds are errors with words and line. */
#include "tests/unit/template_fixture.h"

TEST(calculates_as_python_does)
{
    check_gives("{{ -7 // 2 }},{{ -7 % 2 }},{{ 7 // -2 }},{{ 7 % -2 }},{{ 6 % -3 }},{{ 5 % -1 }}",
                "-4,1,-4,-1,0,0", NULL);
    check_gives("{{ true + true }}{{ -true }}", "2-1", NULL);
}

TEST(refuses_numbers_over_64_bits)
{
    check_refuses("{{ 9223372036854775807 + 1 }}", LORE_ERR_LIMIT, "over 64 bits");
    check_refuses("{{ 9223372036854775807 * 2 }}", LORE_ERR_LIMIT, "over 64 bits");
    check_refuses("{{ (-9223372036854775807 - 1) // -1 }}", LORE_ERR_LIMIT, "over 64 bits");
    check_gives("{{ (-9223372036854775807 - 1) % -1 }}", "0", NULL);
    check_refuses("{{ 1 // 0 }}", LORE_ERR_INVALID, "a division by zero");
    check_refuses("{{ 1 % 0 }}", LORE_ERR_INVALID, "a division by zero");
}

TEST(clips_slices)
{
    check_gives(
        "{{ 'abc'[-9:2] }}{{ 'abc'[5:] }}{{ 'abc'[2:1] }}{{ 'abc'[:-9223372036854775807] }}", "ab",
        NULL);
    check_gives("{{ 'abcde'[3::-2] }}{{ 'abc'[::-9223372036854775807] }}"
                "{{ 'abc'[::9223372036854775807] }}{{ ''[::-1] }}",
                "dbca", NULL);
    check_gives("{{ [1, 2, 3][-2:] | join }}{{ [1, 2, 3][::-1] | join }}", "23321", NULL);
    check_refuses("{{ 'a'[::0] }}", LORE_ERR_INVALID, "steps of 0");
    check_refuses("{{ 'a'['b':] }}", LORE_ERR_INVALID, "a slice from text");
    check_refuses("{{ nothing[1:] }}", LORE_ERR_INVALID, "a slice of something undefined");
    check_gives("[{{ 1[1:] }}{{ none[0] }}{{ messages[0][0] }}{{ 'ab'[true] }}]", "[b]", NULL);
}

TEST(names_the_operands)
{
    check_refuses("a\n{{ 'a' + 1 }}", LORE_ERR_INVALID, "t:2: cannot add text and a number");
    check_refuses("{{ 'a' + nothing }}", LORE_ERR_INVALID, "text and something undefined");
    check_refuses("{{ messages[0].role * 2 }}", LORE_ERR_INVALID,
                  "cannot calculate with text and a number");
    check_refuses("{{ 'a' < 2 }}", LORE_ERR_INVALID, "cannot order text and a number");
    check_refuses("{{ 1 in 2 }}", LORE_ERR_INVALID, "a number and a number");
    check_refuses("{{ nothing[1] }}", LORE_ERR_INVALID, "something undefined and a number");
    check_refuses("{{ -'a' }}", LORE_ERR_INVALID, "text");
}

TEST(stops_at_the_operand_that_decides)
{
    check_gives("{{ true or nothing.x }}{{ false and nothing.x }}{{ 1 if true else nothing.x }}",
                "TrueFalse1", NULL);
    check_gives("{{ 'a' or 'b' }}{{ '' or 'b' }}{{ 'a' and 'b' }}", "abb", NULL);
}

CHECK_MAIN(calculates_as_python_does, refuses_numbers_over_64_bits, clips_slices,
           names_the_operands, stops_at_the_operand_that_decides)
