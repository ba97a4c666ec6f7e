/* Proves that AsciiDoc becomes text: the header, sections, delimited blocks, tables, lists and
 * macros. (tests/golden/clean/router.adoc is a whole document.) */
#include "tests/unit/ingest_fixture.h"

static void check(const char *source, const char *text)
{
    check_text(LORE_MEDIA_ASCIIDOC, source, "", text);
}

TEST(sections)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_literal(&arena, LORE_MEDIA_ASCIIDOC,
                                              "= Guide\nA B <a@b.c>\nv1, 2024\n:x: y\n\n== One "
                                              "==\n\na\n\n=== 设置\n\nb {x}\n\n== Two\n\nc\n");
    CHECK_STR(clean.title, "Guide");
    CHECK_STR(clean.sections[0].heading, "One");
    CHECK_STR(clean.sections[1].heading, "One > 设置");
    CHECK_STR(clean.sections[2].heading, "Two");
    CHECK_STR(clean.text, "One\na\n设置\nb y\nTwo\nc");
    lore_arena_destroy(&arena);
}

TEST(inside_paragraphs)
{
    check("a *b* _c_ `d` #e# **f**g __h__ `*i*` ^j^\n", "a b c d e fg h i ^j^");
    check("2 * 3 * 4, a_b_c, *open and C++\n", "2 * 3 * 4, a_b_c, *open and C++");
    check("中文*强调*和`代码`。\n", "中文强调和代码。");
    check("https://a.b/c[text^] https://d.e link:f[g] xref:h[i] <<j,k l>> <<m>> mailto:n@o[p]\n",
          "text https://d.e g i k l m p");
    check("image:q.png[r] kbd:[Ctrl] s((t))u(((v,w))) footnote:[x] [[y]]z icon:a[]\n",
          "r Ctrl stu (x) z");
    check("{nbsp}a{plus}b {unknown} {\n", "a+b {unknown} {");
}

TEST(blocks)
{
    check("[source,c]\n----\nint x;\n\n  y\n----\n\n....\nz\n....\n", "int x;\n  y\nz");
    check("```c\na\n```\n\n indented\n", "a\nindented");
    check("////\nhidden\n////\n// also\na\n\n++++\n<b>\n++++\n", "a");
    check("====\na\n\n****\nb\n****\n====\n\n--\nc\n--\n", "a\nb\nc");
    check("[NOTE]\n====\na\n====\n\nTIP: b\n", "NOTE: a\nTIP: b");
    check(".Title\na\n'''\n<<<\nb +\nc\n", "Title\na ''' <<< b\nc");
    check("----\nnever ended\n", "never ended");
    check("ifdef::x[]\na\nendif::[]\nimage::b.png[c,10]\n", "a\nc");
}

TEST(lists)
{
    check("* a\nb\n** c\n+\nd\n\n. e\n.. f\n- [x] g\n<1> h\n", "- a b\n- c\nd\n- e\n- f\n- g\n- h");
    check("term:: what\nother::\n  that\n", "term: what\nother\nthat");
}

TEST(tables)
{
    check("|===\n|a |b\n\n|c\n|d\n\n2+|e\n|===\n", "a | b\nc | d\ne");
    check("[cols=\"1,2*\"]\n|===\n|a\n|b\n|c\nd\n|f \\| g |h |红\n|===\nz\n",
          "a | b | c d\nf \\| g | h | 红\nz");
}

CHECK_MAIN(sections, inside_paragraphs, blocks, lists, tables)
