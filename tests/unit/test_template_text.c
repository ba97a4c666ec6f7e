/* Proves that whatever is done to a text, each byte of the result still says where it came from. */
#include "tests/unit/template_fixture.h"

#define USER "messages[1].content" /* " a<b> " */

TEST(joins_keep_origins)
{
    check_gives("<{{ '<' + " USER " + '>' }}", "<< a<b> >", "..xxxxxx.");
    check_gives("{{ " USER " ~ 1 ~ " USER " }}", " a<b> 1 a<b> ", "xxxxxx.xxxxxx");
    check_gives("{{ ['<', " USER ", '>'] | join('|') }}", "<| a<b> |>", "..xxxxxx..");
}

TEST(cuts_keep_origins)
{
    check_gives("{{ ('(' + " USER " + ')')[1:-1] }}", " a<b> ", "xxxxxx");
    check_gives("{{ ('(' + " USER " + ')')[::-1] }}", ") >b<a (", ".xxxxxx.");
    check_gives("{{ ('  ' + " USER ").strip() }}", "a<b>", "xxxx");
    check_gives("{{ ('-' + " USER ").split('<') | last }}", "b> ", "xxx");
    check_gives("{{ ('-' + " USER ")[0] }}{{ " USER "[2] }}", "-<", ".x");
    check_gives("{% for c in '-' + " USER " %}{{ c }}{% endfor %}", "- a<b> ", ".xxxxxx");
}

TEST(changes_keep_origins)
{
    check_gives("{{ " USER ".replace('<', '[[') }}", " a[[b> ", "xx..xxx");
    check_gives("{{ " USER ".upper() }}{{ " USER " | lower }}", " A<B>  a<b> ", "xxxxxxxxxxxx");
    check_gives("{{ [" USER "] | tojson }}", "[\" a<b> \"]", "..xxxxxx..");
    check_gives("{{ ('\\n' + " USER ") | tojson }}", "\"\\n a<b> \"", "...xxxxxx.");
    check_gives("{{ " USER " | string | trim | default('x') }}", "a<b>", "xxxx");
    check_gives("{% set x = " USER " %}{% set n = namespace(y=x) %}{{ n.y }}", " a<b> ", "xxxxxx");
}

TEST(roles_and_tokens_are_the_templates_own)
{
    check_gives("{{ bos_token }}{{ messages[1].role }}{{ eos_token }}", "<s>user</s>",
                "...........");
}

TEST(strips_any_characters)
{
    check_gives("{{ '\xe4\xb8\xad\xe6\x96\x87x'.lstrip('\xe4\xb8\xad') }}", "\xe6\x96\x87x", NULL);
    check_gives("[{{ '\xe3\x80\x80 a\xc2\xa0\x1c'.strip() }}]", "[a]", NULL);
}

TEST(refuses_what_it_cannot_change)
{
    check_refuses("{{ '\xc3\xa9' | upper }}", LORE_ERR_UNSUPPORTED, "other than ASCII");
    check_refuses("{{ 'a'.replace('', 'b') }}", LORE_ERR_UNSUPPORTED, "an empty text");
}

CHECK_MAIN(joins_keep_origins, cuts_keep_origins, changes_keep_origins,
           roles_and_tokens_are_the_templates_own, strips_any_characters,
           refuses_what_it_cannot_change)
