/* Proves that statements nest, that what is not supported is refused at parsing by name and line,
 * and that depth and size of a source are bounded. */
#include "tests/unit/template_fixture.h"

TEST(nests_statements)
{
    check_gives("{% for m in messages %}{% if m.role == 'user' %}u{% elif m.role == 'system' %}s"
                "{% else %}a{% endif %}{% endfor %}",
                "sua", NULL);
    check_gives("", "", NULL);
}

TEST(refuses_what_it_has_not)
{
    check_refuses("\n{% macro f() %}{% endmacro %}", LORE_ERR_UNSUPPORTED,
                  "t:2: {% macro %} is not supported");
    check_refuses("{% raw %}x{% endraw %}", LORE_ERR_UNSUPPORTED, "{% raw %}");
    check_refuses("{% include 'x' %}", LORE_ERR_UNSUPPORTED, "{% include %}");
    check_refuses("{% break %}", LORE_ERR_UNSUPPORTED, "{% break %}");
    check_refuses("{% set x %}a{% endset %}", LORE_ERR_UNSUPPORTED, "NAME = VALUE");
    check_refuses("{% for x in [] recursive %}{% endfor %}", LORE_ERR_UNSUPPORTED, "recursive");
    check_refuses("{% for x in [] %}{% else %}{% endfor %}", LORE_ERR_UNSUPPORTED, "else");
}

/* Statements by their names and lines, where no conversation would ever come by. */
TEST(refuses_statements_that_are_never_run)
{
    static const char *const names[] = {"macro f()",
                                        "import 'x' as y",
                                        "from 'x' import y",
                                        "include 'x'",
                                        "extends 'x'",
                                        "block a",
                                        "call f()",
                                        "filter upper",
                                        "do x.pop()",
                                        "with a = 1",
                                        "raw",
                                        "autoescape true",
                                        "trans",
                                        "generation",
                                        "break",
                                        "continue",
                                        "elseif x",
                                        "debug"};
    static const char *const others[][2] = {
        {"{% set x %}a{% endset %}", "{% set %} is only supported as NAME = VALUE"},
        {"{% set a, b = x %}", "{% set %} is only supported as NAME = VALUE"},
        {"{% set a = 1, 2 %}", "{% set %} to several values"},
        {"{% for x in y recursive %}{% endfor %}", "a recursive loop"},
        {"{% for x in y %}{% else %}{% endfor %}", "{% else %} of a loop"},
        {"{% for a, b, c in y %}{% endfor %}", "a loop over more than two names"},
        {"{% for (a, b) in y %}{% endfor %}", "a loop over names in brackets"}};
    char source[256], words[64];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(source, sizeof source, "{%% if false %%}\n\n{%% %s %%}{%% endif %%}", names[i]);
        snprintf(words, sizeof words, "t:3: {%% %.*s %%} is not supported",
                 (int)strcspn(names[i], " "), names[i]);
        check_refuses(source, LORE_ERR_UNSUPPORTED, words);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        snprintf(source, sizeof source, "{%% if false %%}\n\n%s{%% endif %%}", others[i][0]);
        snprintf(words, sizeof words, "t:3: %s", others[i][1]);
        check_refuses(source, LORE_ERR_UNSUPPORTED, words);
    }
}

TEST(refuses_what_does_not_match)
{
    check_refuses("{% if true %}", LORE_ERR_INVALID, "the end where '{%' should stand");
    check_refuses("{% for x in [] %}{% endif %}", LORE_ERR_INVALID, "'endif' where endfor");
    check_refuses("a\n{% endif %}", LORE_ERR_INVALID, "t:2: {% endif %} closes nothing");
    check_refuses("{{ 1 2 }}", LORE_ERR_INVALID, "'2' where '}}' should stand");
    check_refuses("{% set 1 = 2 %}", LORE_ERR_INVALID, "'1' where a name should stand");
    check_refuses("{% for x on y %}", LORE_ERR_INVALID, "'on' where in should stand");
    check_refuses("{{ }}", LORE_ERR_INVALID, "where a value should stand");
}

static void check_repeated(const char *open, const char *middle, const char *close, int32_t count,
                           lore_status status, const char *words)
{
    lore_buf source;
    lore_buf_init(&source, 0);
    for (int32_t i = 0; i < count; i++) {
        lore_buf_append(&source, lore_str_from(open));
    }
    lore_buf_append(&source, lore_str_from(middle));
    for (int32_t i = 0; i < count; i++) {
        lore_buf_append(&source, lore_str_from(close));
    }
    check_refuses(lore_buf_c(&source), status, words);
    lore_buf_destroy(&source);
}

TEST(bounds_the_depth)
{
    check_repeated("{% if true %}", "", "{% endif %}", 200, LORE_ERR_LIMIT, "100 levels");
    check_repeated("{% if true %}{% elif x %}", "", "{% endif %}", 200, LORE_ERR_LIMIT, "levels");
    check_repeated("{% for x in [] %}", "", "", 10000, LORE_ERR_LIMIT, "100 levels");
}

TEST(bounds_the_size)
{
    lore_error err;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_template_output output;
    char *text = lore_arena_push_zero(&arena, LORE_JINJA_SOURCE_MAX + 1, 1);
    memset(text, 'a', LORE_JINJA_SOURCE_MAX + 1);
    CHECK_FAILS(run_source((lore_str){text, LORE_JINJA_SOURCE_MAX + 1}, &TEMPLATE_CHAT, &arena,
                           &output, &err),
                LORE_ERR_LIMIT, &err, "at most 262144");
    CHECK_OK(
        run_source((lore_str){text, LORE_JINJA_SOURCE_MAX}, &TEMPLATE_CHAT, &arena, &output, &err),
        &err);
    CHECK_INT(output.text.len, LORE_JINJA_SOURCE_MAX);
    lore_arena_destroy(&arena);
}

CHECK_MAIN(nests_statements, refuses_what_it_has_not, refuses_statements_that_are_never_run,
           refuses_what_does_not_match, bounds_the_depth, bounds_the_size)
