/* Proves that words, their arguments and attributes of loops are checked when a template is read:
 * each test source would do nothing when run, since it stands in a branch that is never taken. */
#include "tests/unit/template_fixture.h"

static void check_unread(const char *expression, const char *words)
{
    lore_error err;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_str source =
        lore_str_printf(&arena, "{%% if false %%}\n{{ %s }}{%% endif %%}", expression);
    const lore_jinja_node *body = NULL;
    CHECK_FAILS(lore_jinja_parse_source(source, "t", &arena, &body, &err), LORE_ERR_UNSUPPORTED,
                &err, words);
    CHECK(strstr(err.message, "t:2: ") != NULL);
    CHECK(body == NULL);
    lore_arena_destroy(&arena);
}

TEST(refuses_unknown_words)
{
    check_unread("x | groupby", "the filter 'groupby' is not supported");
    check_unread("x is divisibleby(3)", "the test 'divisibleby' is not supported");
    check_unread("x.format(1)", "the method 'format' is not supported");
    check_unread("range(3)", "the function 'range' is not supported");
    check_unread("x[0](1)", "this call is not supported");
    check_unread("loop.cycle('a')", "the method 'cycle'");
    check_unread("loop.depth", "loop.depth is not supported");
}

TEST(counts_arguments)
{
    check_unread("x | trim('a')", "trim is not supported with 1 arguments");
    check_unread("x.split('a', 1)", "split is not supported with 2 arguments");
    check_unread("x.startswith()", "startswith is not supported with 0 arguments");
    check_unread("x | default(value=1)", "default is not supported with the argument value=");
    check_unread("x | tojson(4)", "tojson is not supported with the argument without a name");
    check_unread("x | tojson(ensure_ascii=true)", "with the argument ensure_ascii=");
    check_unread("namespace(1)", "namespace is not supported with the argument without a name");
    check_unread("raise_exception()", "raise_exception is not supported with 0");
}

TEST(knows_the_tests_that_filters_apply)
{
    check_unread("x | selectattr('a.b')", "the plain name of an attribute");
    check_unread("x | selectattr(y)", "the plain name of an attribute");
    check_unread("x | selectattr('a', 'odd')", "the test 'odd' that selectattr applies");
    check_unread("x | select(y)", "the plain name of a test");
    check_unread("x | select('equalto')", "'equalto' that select applies is not supported with 0");
    check_unread("x | reject('defined', 1)", "'defined' that reject applies is not supported with");
    check_gives("{{ messages | selectattr('role', 'ne', 'user') | list | length }}", "2", NULL);
}

/* What Jinja has beside words, in a branch that is never taken either. */
TEST(refuses_what_the_language_has_not)
{
    static const char *const rows[][2] = {{"{'a': 1}", "a mapping {...}"},
                                          {"{}", "a mapping {...}"},
                                          {"1.5", "not a decimal integer"},
                                          {"1 / 2", "the operator '/'"},
                                          {"2 ** 3", "the operator '**'"},
                                          {"'%d' % x", "the operator '%' of a text or a list"},
                                          {"x * '-'", "the operator '*' of a text or a list"},
                                          {"[0] * 3", "the operator '*' of a text or a list"},
                                          {"'a' 'b'", "strings side by side"},
                                          {"+x", "a '+' before a value"},
                                          {"1 < x < 3", "a chain of comparisons"},
                                          {"caller()", "the function 'caller'"},
                                          {"loop(x)", "the function 'loop'"},
                                          {"super()", "the function 'super'"},
                                          {"joiner()", "the function 'joiner'"},
                                          {"x | map(attribute='y')", "the filter 'map'"},
                                          {"x | sort", "the filter 'sort'"},
                                          {"x is sameas none", "the test 'sameas'"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_unread(rows[i][0], rows[i][1]);
    }
}

TEST(reads_indices_and_slices)
{
    check_gives("{{ 'abcd'[1] }}{{ 'abcd'[1:] }}{{ 'abcd'[:1] }}{{ 'abcd'[::2] }}{{ 'ab'[:] }}",
                "bbcdaacab", NULL);
    check_refuses("{{ x[] }}", LORE_ERR_INVALID, "t:1: ']' where a value should stand");
    check_refuses("{{ 'a'[1:2:3:4] }}", LORE_ERR_INVALID, "':' where ] should stand");
    check_refuses("{{ 'a'[1 2] }}", LORE_ERR_INVALID, "'2' where ] should stand");
    check_refuses("{{ 'a'[1:2 3] }}", LORE_ERR_INVALID, "'3' where ] should stand");
    check_refuses("{{ x. }}", LORE_ERR_INVALID, "where a name should stand");
    check_refuses("{{ x | }}", LORE_ERR_INVALID, "where a name should stand");
    check_refuses("{{ x is }}", LORE_ERR_INVALID, "where a name should stand");
}

CHECK_MAIN(refuses_unknown_words, counts_arguments, knows_the_tests_that_filters_apply,
           refuses_what_the_language_has_not, reads_indices_and_slices)
