/* Proves what is true, equal, found and printed, that kinds which have no text say so, and that
 * lists in lists are bounded. */
#include "tests/unit/template_fixture.h"

TEST(tells_true_from_false)
{
    check_gives("{% for x in [0, '', none, nothing, [], false, 1, 'a', [0], true, messages[0], "
                "namespace(), loop] %}{{ 1 if x else 0 }}{% endfor %}",
                "0000001111110", NULL);
}

TEST(compares_deeply)
{
    check_gives("{{ messages[0] == messages[0] }}{{ messages[0] == messages[1] }}", "TrueFalse",
                NULL);
    check_gives("{{ [[1], 'a'] == [[1], 'a'] }}{{ [1] == [2] }}{{ [1] == [1, 1] }}",
                "TrueFalseFalse", NULL);
    check_gives("{{ nothing == nothing2 }}{{ none == nothing }}{{ true == 1 }}{{ '1' == 1 }}",
                "TrueFalseTrueFalse", NULL);
    check_gives("{% set a = namespace() %}{% set b = namespace() %}{{ a == a }}{{ a == b }}",
                "TrueFalse", NULL);
}

TEST(survives_a_namespace_within_itself)
{
    check_gives("{% set n = namespace() %}{% set n.n = n %}{{ n == n.n.n }}", "True", NULL);
    check_refuses("{% set n = namespace() %}{% set n.n = n %}{{ n | tojson }}", LORE_ERR_INVALID,
                  "a namespace cannot be written as JSON");
}

TEST(finds_attributes)
{
    check_gives("{{ messages[0].role }}{{ messages[0]['role'] }}{{ messages[0].x }}{{ 'a'.x }}",
                "systemsystem", NULL);
    check_refuses("{{ nothing.x }}", LORE_ERR_INVALID, "t:1: 'x' of something undefined");
    check_refuses("{% for x in 1 %}{% endfor %}", LORE_ERR_INVALID, "a number is no list");
}

TEST(prints_what_has_a_text)
{
    check_gives("{{ 1 }}{{ -5 }}{{ true }}{{ none }}{{ nothing }}", "1-5TrueNone", NULL);
    check_refuses("{{ [] }}", LORE_ERR_UNSUPPORTED, "writing a list as text");
    check_refuses("{{ messages[0] }}", LORE_ERR_UNSUPPORTED, "writing a mapping as text");
    check_refuses("{{ 'a' ~ namespace() }}", LORE_ERR_UNSUPPORTED, "writing a namespace as text");
    check_refuses("{{ nothing | tojson }}", LORE_ERR_INVALID, "undefined cannot be written");
}

TEST(bounds_lists_in_lists)
{
    static const char deep[] = "{% set n = namespace(l=[]) %}"
                               "{% for a in 'xxxxxxxxxx' %}{% for b in 'xxxxxxxxxx' %}"
                               "{% set n.l = [n.l] %}{% endfor %}{% endfor %}";
    lore_arena arena;
    lore_arena_init(&arena, 0);
    check_refuses(lore_str_printf(&arena, "%s{{ n.l == [n.l] }}{{ n.l | tojson }}", deep).ptr,
                  LORE_ERR_LIMIT, "lists in lists, more than 32 deep");
    check_refuses(lore_str_printf(&arena, "%s{{ n.l | tojson }}", deep).ptr, LORE_ERR_LIMIT,
                  "lists in lists");
    lore_arena_destroy(&arena);
}

CHECK_MAIN(tells_true_from_false, compares_deeply, survives_a_namespace_within_itself,
           finds_attributes, prints_what_has_a_text, bounds_lists_in_lists)
