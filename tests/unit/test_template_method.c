/* Proves the methods and functions where the golden snippets leave room. */
#include "tests/unit/template_fixture.h"

#include <time.h>

TEST(methods_take_texts_and_mappings)
{
    check_gives("{{ 'xay'.strip('xy') }}{{ ' a'.strip(none) }}{{ 'a b'.split(none) | join('-') }}",
                "aaa-b", NULL);
    check_gives("{% for k, v in messages[0].items() %}{{ k }}{{ v }}{% endfor %}",
                "rolesystemcontentS", ".................x");
    check_gives("{{ messages[0].get('role') }}{{ messages[0].get('x') }}", "systemNone", NULL);
    check_gives("{{ nothing.items() | length }}", "0", NULL);
}

TEST(methods_refuse_the_rest)
{
    check_refuses("{{ 1.strip() }}", LORE_ERR_INVALID, "t:1: a method of texts with a number");
    check_refuses("{{ nothing.strip() }}", LORE_ERR_INVALID, "with something undefined");
    check_refuses("{{ 'a'.strip(1) }}", LORE_ERR_INVALID, "with a number");
    check_refuses("{{ 'a'.split('') }}", LORE_ERR_INVALID, "a split at an empty text");
    check_refuses("{{ 'a'.startswith(['a']) }}", LORE_ERR_INVALID, "with a list");
    check_refuses("{{ 'a'.get('a') }}", LORE_ERR_INVALID, "get of text");
    check_refuses("{{ 'a'.items() }}", LORE_ERR_INVALID, "the items of text");
}

static void strcat_checked(char *text, size_t cap, const char *more)
{
    size_t len = strlen(text);
    CHECK(len + strlen(more) < cap);
    memcpy(text + len, more, strlen(more) + 1);
}

TEST(dates_are_those_of_the_run)
{
    setenv("TZ", "UTC0", 1);
    tzset();
    check_gives("{{ strftime_now('%d %b %Y, %H:%M') }}", "01 Mar 2026, 12:00", NULL);
    check_refuses("{{ strftime_now('%999999999d') }}", LORE_ERR_UNSUPPORTED, "format of a date");
    check_refuses("{{ strftime_now('%') }}", LORE_ERR_UNSUPPORTED, "format of a date");
    check_refuses("{{ strftime_now('%c') }}", LORE_ERR_UNSUPPORTED, "format of a date");
    check_refuses("{{ strftime_now('') }}", LORE_ERR_UNSUPPORTED, "format of a date");
    check_refuses("{{ strftime_now(1) }}", LORE_ERR_INVALID, "with a number");
    check_refuses("{{ strftime_now('%\\x00') }}", LORE_ERR_UNSUPPORTED, "format of a date");
    check_refuses("{{ strftime_now('%Y\\x00%Y') }}", LORE_ERR_UNSUPPORTED, "format of a date");
    /* Letters of a message stay foreign. */
    check_gives("{{ strftime_now(messages[2].content) }}{{ strftime_now('y') }}", "yesy", "xxx.");
    check_gives("{{ strftime_now(messages[2].content ~ '%d') }}", "yes01", "xxxxx");
}

/* As long as one may be, of the longest names; and one byte more. */
TEST(dates_have_a_length)
{
    char source[512] = "{{ strftime_now('", text[2048] = "";
    for (int32_t i = 0; i < 127; i++) {
        strcat_checked(source, sizeof source, "%A");
        strcat_checked(text, sizeof text, "Sunday");
    }
    strcat_checked(source, sizeof source, ".') }}");
    strcat_checked(text, sizeof text, ".");
    check_gives(source, text, NULL);
    source[strlen(source) - strlen("') }}")] = '\0';
    strcat_checked(source, sizeof source, ".') }}");
    check_refuses(source, LORE_ERR_LIMIT, "of 256 bytes, at most 255");
}

TEST(a_refusal_is_in_the_templates_words)
{
    check_refuses("{{ raise_exception('not ' ~ messages[1].content) }}", LORE_ERR_INVALID,
                  "the chat template 't' refuses this conversation: not  a<b> ");
}

TEST(namespaces_hold_what_they_are_given)
{
    check_gives("{% set n = namespace(a=1, b=[2]) %}{% set n.c = n.a + 2 %}{{ n.a }}{{ n.b[0] }}"
                "{{ n.c }}{{ n.d is defined }}",
                "123False", NULL);
    check_refuses("{% set n.a = 1 %}", LORE_ERR_INVALID, "t:1: 'n' is no namespace");
    check_refuses("{% set n = messages[0] %}{% set n.a = 1 %}", LORE_ERR_INVALID, "no namespace");
}

CHECK_MAIN(methods_take_texts_and_mappings, methods_refuse_the_rest, dates_are_those_of_the_run,
           dates_have_a_length, a_refusal_is_in_the_templates_words,
           namespaces_hold_what_they_are_given)
