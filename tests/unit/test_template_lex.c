/* Proves the fine print of white space and of strings, and that broken sources end with their line
 * instead of being read past their end. (What Jinja gives is in tests/golden/templates.) */
#include "tests/unit/template_fixture.h"

static void check_kinds(const char *source, const char *kinds)
{
    static const char letters[] = "et{}<>nisox"; /* in the order of lore_jinja_lexeme_kind */
    lore_error err;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_jinja_lexer lexer;
    lore_jinja_lexeme lexeme = {.kind = LORE_JINJA_LEXEME_TEXT};
    CHECK_OK(lore_jinja_lexer_init(&lexer, lore_str_from(source), "t", &arena, &err), &err);
    size_t at = 0;
    while (lexeme.kind != LORE_JINJA_LEXEME_END) {
        CHECK_OK(lore_jinja_lexer_next(&lexer, &lexeme), &err);
        CHECK(kinds[at] != '\0' && letters[lexeme.kind] == kinds[at]);
        at++;
    }
    CHECK_INT(strlen(kinds), at);
    lore_arena_destroy(&arena);
}

TEST(cuts_a_source_into_lexemes)
{
    check_kinds("", "e");
    check_kinds("a{{ b }}", "t<n>e");
    check_kinds("{% if a1 >= 23 %}{# c #}", "{nnoi}te");
    check_kinds("{{'x'|y[-1:]}}", "<sonooioo>e");
    check_kinds("{ { % } #", "te");
}

TEST(counts_lines)
{
    lore_error err;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_jinja_lexer lexer;
    lore_jinja_lexeme lexeme = {0};
    CHECK_OK(lore_jinja_lexer_init(&lexer, LORE_STR("a\r\nb\r{#\n#}\n{{\n'\n' ~\nx }}"), "t",
                                   &arena, &err),
             &err);
    while (lexeme.kind != LORE_JINJA_LEXEME_NAME) {
        CHECK_OK(lore_jinja_lexer_next(&lexer, &lexeme), &err);
    }
    CHECK_INT(lexeme.line, 8);
    lore_arena_destroy(&arena);
}

TEST(keeps_and_drops_white_space)
{
    check_gives("a \n{%- if true -%}\n b {%- endif %}\n c\n", "ab c", NULL);
    check_gives(" \t{% if true %}\n x\n {%+ endif %}\ny", " x\n y", NULL);
    check_gives("a\n  {# c #}\n {{- 1 }} ", "a\n1 ", NULL);
}

TEST(reads_escapes)
{
    check_gives("{{ 'a\\n\\x41\\u00e9\\U0001F600\\'\\q\\\\' }}",
                "a\nA\xc3\xa9\xf0\x9f\x98\x80'\\q\\", NULL);
    check_gives("{{ 'a\\\nb' }}", "ab", NULL);
}

TEST(refuses_broken_sources)
{
    check_refuses("a\n{{ 'x }}", LORE_ERR_INVALID, "t:2: a string without its closing quote");
    check_refuses("{{ 'x\\", LORE_ERR_INVALID, "closing quote");
    check_refuses("\n{# x", LORE_ERR_INVALID, "t:2: a comment without its end");
    check_refuses("{{ x", LORE_ERR_INVALID, "t:1: the template ends inside a tag");
    check_refuses("{{", LORE_ERR_INVALID, "ends inside a tag");
    check_refuses("{%", LORE_ERR_INVALID, "ends inside a tag");
    check_refuses("{{ ! }}", LORE_ERR_INVALID, "a character that belongs to no expression");
    check_refuses("{{ \xc3\xa9 }}", LORE_ERR_INVALID, "a character that belongs");
    check_refuses("{{ {'a': 1} }}", LORE_ERR_UNSUPPORTED, "a mapping {...}");
    check_refuses("{{ 1.5 }}", LORE_ERR_UNSUPPORTED, "decimal integer");
    check_refuses("{{ 99999999999999999999 }}", LORE_ERR_UNSUPPORTED, "64 bits");
    check_refuses("{{ '\\ud800' }}", LORE_ERR_UNSUPPORTED, "an escape");
    check_refuses("{{ '\\x4' }}", LORE_ERR_UNSUPPORTED, "an escape");
    check_refuses("{{ '\\123' }}", LORE_ERR_UNSUPPORTED, "an escape");
    check_refuses("\xff", LORE_ERR_INVALID, "not UTF-8");
}

CHECK_MAIN(cuts_a_source_into_lexemes, counts_lines, keeps_and_drops_white_space, reads_escapes,
           refuses_broken_sources)
