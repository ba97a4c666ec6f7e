/* Proves that reStructuredText becomes text: sections by their underlines, directives by kind,
 * literal blocks, tables, lists, fields; and that roles, references and emphasis leave their text.
 * (tests/golden/clean/router.rst is a whole document.) */
#include "tests/unit/ingest_fixture.h"

static void check(const char *source, const char *text)
{
    check_text(LORE_MEDIA_RST, source, "", text);
}

TEST(sections)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean =
        clean_literal(&arena, LORE_MEDIA_RST,
                      "#####\nGuide\n#####\n\nOne\n===\n\na\n\n设置\n----\n\nb\n\nTwo\n===\n\nc\n");
    CHECK_STR(clean.title, "Guide");
    CHECK_INT(clean.section_count, 3);
    CHECK_STR(clean.sections[0].heading, "One");
    CHECK_STR(clean.sections[1].heading, "One > 设置");
    CHECK_STR(clean.sections[2].heading, "Two");
    lore_arena_destroy(&arena);
    check_text(LORE_MEDIA_RST, "a\n----\n\nb\n\n-----\n\nc\n", "a", "b\nc"); /* a transition */
    check("No title\n==\n\nshort\n", "No title ==\nshort"); /* an underline of two */
}

TEST(inside_paragraphs)
{
    check("a **b c** *d* ``e *f*`` :ref:`g <h>` :py:func:`~i.j.k` :doc:`帮助` `l <m>`_ `n`__ o_ "
          "|p|\n",
          "a b c d e *f* g k 帮助 l n o p");
    check("2 * 3 * 4, a*b, \\*c\\*, d\\ e, f_g, \"*\" and `h\n",
          "2 * 3 * 4, a*b, *c*, de, f_g, \"*\" and `h");
    check("中文**强调**和``代码``。\n", "中文强调和代码。");
    check("**a\nb** [1]_ [#x]_\n", "a b [1] [#x]");
}

TEST(directives)
{
    check(".. note:: a\n   b\n\n.. tip::\n   :class: x\n\n   c\n\nd\n", "Note: a b\nTip: c\nd");
    check(".. code:: c\n   :linenos:\n\n   int x;\n\n     y\n\nz\n", "int x;\n  y\nz");
    check(".. raw:: html\n\n   <b>\n\n.. a comment\n   more\n\n.. _t: http://x\n.. |s| image:: "
          "a\n\nb\n",
          "b");
    check(".. figure:: a.png\n   :alt: what it shows\n\n   Caption.\n", "what it shows\nCaption.");
    check(".. function:: f(a, b)\n\n   Does it.\n", "f(a, b)\nDoes it.");
    check(".. unknown:: x\n\n   kept\n", "kept");
    check(".. [#n] A footnote\n   of two lines.\n", "[#n] A footnote of two lines.");
    check("..\n\na\n", "a");
}

TEST(blocks)
{
    check("Run::\n\n  a\n    b\n\nthen ::\n\n  c\n\n::\n\n  d\n", "Run:\na\n  b\nthen\nc\nd");
    check("- a\n  b\n\n  c\n- d\n\n1. e\n#. f\n", "- a b\nc\n- d\n1. e\n- f");
    check("term\n  what it is\n  and more\n", "term\nwhat it is and more");
    check("| one\n| two\n", "one\ntwo");
    check(":Version: 2\n:hidden:\n:Author: a\n  b\n", "Version: 2\nAuthor: a b");
    check(">>> f(1)\n2\n", ">>> f(1)\n2");
}

TEST(tables)
{
    check("+---+----+\n| a | b  |\n|   | c  |\n+===+====+\n| 红| d  |\n+---+----+\n",
          "a | b c\n红 | d");
    check("===  ====\na    b\n===  ====\nc    d\n     e\n中   f\n===  ====\n\nz\n",
          "a | b\nc | d e\n中 | f\nz");
    check(".. list-table:: T\n\n   * - a\n     - b\n   * - c\n       d\n     - e\n",
          "T\na | b\nc d | e");
    check("===  ===\na    b\n", "a | b"); /* never ended */
}

CHECK_MAIN(sections, inside_paragraphs, directives, blocks, tables)
