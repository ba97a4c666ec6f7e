/* Proves the order in which operators bind, that what is refused is named, and that neither
 * brackets nor long chains make a tree too deep to walk. */
#include "tests/unit/template_fixture.h"

TEST(binds_as_jinja_does)
{
    check_gives("{{ 1 + 2 * 3 }}{{ 2 * 3 + 1 }}{{ 7 - 2 - 1 }}", "774", NULL);
    check_gives("{{ 'a' ~ 1 + 'b' ~ 2 }}", "a1b2", NULL); /* ~ is tighter than + */
    check_gives("{{ not false and false }}{{ true or false and false }}", "FalseTrue", NULL);
    check_gives("{{ 1 if false else 2 if false else 3 }}", "3", NULL);
    check_gives("{{ 1 + 1 == 2 }}{{ 'b' in 'a' ~ 'b' }}{{ not 'b' in 'a' }}", "TrueTrueTrue", NULL);
    check_gives("{{ 'A' + 'b' | upper }}{{ -1 | string }}", "AB-1", NULL);
}

TEST(refuses_by_name)
{
    check_refuses("{{ 1 / 2 }}", LORE_ERR_UNSUPPORTED, "t:1: the operator '/' is not supported");
    check_refuses("{{ 2 ** 2 }}", LORE_ERR_UNSUPPORTED, "the operator '**'");
    check_refuses("{{ 1 < 2 < 3 }}", LORE_ERR_UNSUPPORTED, "a chain of comparisons");
    check_refuses("{{ 1 in [1] in [2] }}", LORE_ERR_UNSUPPORTED, "a chain of comparisons");
    check_refuses("{{ 1 + }}", LORE_ERR_INVALID, "where a value should stand");
    check_refuses("{{ 1 if }}", LORE_ERR_INVALID, "where a value should stand");
    check_refuses("{{ not }}", LORE_ERR_INVALID, "where a value should stand");
}

static void check_long(const char *first, const char *part, const char *last, lore_status status)
{
    lore_buf source;
    lore_buf_init(&source, 0);
    lore_buf_printf(&source, "{{ %s", first);
    for (int32_t i = 0; i < 20000; i++) {
        lore_buf_append(&source, lore_str_from(part));
    }
    lore_buf_printf(&source, "%s }}", last);
    check_refuses(lore_buf_c(&source), status, "t:1: ");
    lore_buf_destroy(&source);
}

TEST(bounds_the_depth_of_a_tree)
{
    check_long("", "1 + ", "1", LORE_ERR_LIMIT);
    check_long("", "1 or ", "1", LORE_ERR_LIMIT);
    check_long("", "not ", "1", LORE_ERR_LIMIT);
    check_long("", "1 if 1 else ", "1", LORE_ERR_LIMIT);
    check_long("", "(", "1", LORE_ERR_LIMIT);
    check_long("", "[", "1", LORE_ERR_LIMIT);
    check_long("", "x[", "1", LORE_ERR_LIMIT);
    check_long("x", ".y", "", LORE_ERR_LIMIT);
    check_long("x", "|trim", "", LORE_ERR_LIMIT);
    check_long("", "-", "1", LORE_ERR_INVALID);
}

CHECK_MAIN(binds_as_jinja_does, refuses_by_name, bounds_the_depth_of_a_tree)
