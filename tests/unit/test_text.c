/* Plain text: which lines belong together, and which are clearly headings. */
#include "tests/unit/ingest_fixture.h"

static void text(const char *source, const char *expected)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    CHECK_STR(clean_literal(&arena, LORE_MEDIA_TEXT, source).text, expected);
    lore_arena_destroy(&arena);
}

TEST(paragraphs)
{
    text("This paragraph was wrapped by an editor at some\r\ncolumn, so its lines belong "
         "together.\r\n"
         "\r\nNext one.",
         "This paragraph was wrapped by an editor at some column, so its lines belong together.\n"
         "Next one.");
    text("\xE8\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8\xE8\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8\xE8\xB7\xAF\xE7"
         "\x94"
         "\xB1\xE5\x99\xA8\xE8\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8\xE8\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8"
         "\xE8"
         "\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8\xE8\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8\n\xE9\x87\x8D\xE5"
         "\x90\xAF"
         "\xE3\x80\x82",
         "\xE8\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8\xE8\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8\xE8\xB7\xAF\xE7"
         "\x94"
         "\xB1\xE5\x99\xA8\xE8\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8\xE8\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8"
         "\xE8"
         "\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8\xE8\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8\xE9\x87\x8D\xE5\x90"
         "\xAF"
         "\xE3\x80\x82");
    text("Dear customer,\nplease call us.\nYours", "Dear customer,\nplease call us.\nYours");
    text("", "");
    text("\n \n\t\n", "");
}

TEST(lists)
{
    text("Steps to take are the following ones, in this order:\n\n"
         "1. Hold the button for ten seconds until the light\n   turns white and stays so.\n"
         "2. Wait.\n- a bullet\n* another\n",
         "Steps to take are the following ones, in this order:\n"
         "1. Hold the button for ten seconds until the light turns white and stays so.\n"
         "2. Wait.\n- a bullet\n* another");
}

TEST(preformatted)
{
    text("Name      Price\nApple     1.00\nPear      2.00\n\nThe code is this one here, see "
         "below.\n\n"
         "    if (x) {\n        y();\n    }\n",
         "Name      Price\nApple     1.00\nPear      2.00\nThe code is this one here, see below.\n"
         "    if (x) {\n        y();\n    }");
}

static void check_headings(const char *source, const char *title, const char *headings)
{
    lore_arena arena;
    lore_buf found;
    lore_arena_init(&arena, 0);
    lore_buf_init(&found, 0);
    lore_clean_document clean = clean_literal(&arena, LORE_MEDIA_TEXT, source);
    for (int32_t i = 0; i < clean.section_count; i++) {
        lore_buf_printf(&found, "[" LORE_STR_FMT "]", LORE_STR_ARG(clean.sections[i].heading));
    }
    CHECK_STR(lore_buf_str(&found), headings);
    CHECK_STR(clean.title, title);
    lore_buf_destroy(&found);
    lore_arena_destroy(&arena);
}

TEST(headings)
{
    check_headings(
        "The Manual\n==========\n\nintro text.\n\nReset\n-----\n\ntext.\n\nCare\n----\n\ntext.\n",
        "The Manual", "[][Reset][Care]");
    check_headings("One\n===\n\ntext.\n\nTwo\n===\n\ntext.\n\nSub\n---\n\ntext.\n", "",
                   "[One][Two][Two > Sub]");
    check_headings("=====\nTitle\n=====\n\nPart\n----\n\ntext.\n", "Title", "[Part]");
    check_headings("A short title line\n\nThen the text follows here.\n", "A short title line",
                   "[]");
    check_headings("Some text first.\n\n2.1 Setting up\n\ntext.\n\nWARNINGS AND LIMITS\n\ntext.\n",
                   "", "[][2.1 Setting up][WARNINGS AND LIMITS]");
    check_headings(
        "\xE5\x89\x8D\xE8\xA8\x80\xE3\x80\x82\n\n\xE7\xAC\xAC\xE4\xB8\x80\xE7\xAB\xA0 \xE5\xAE\x89"
        "\xE8\xA3\x85\n\n\xE6\xAD\xA3\xE6\x96\x87\xE3\x80\x82\n",
        "", "[][\xE7\xAC\xAC\xE4\xB8\x80\xE7\xAB\xA0 \xE5\xAE\x89\xE8\xA3\x85]");
    /* Items of a list are none. */
    check_headings("Text here.\n\n1. Open\n\n2. Close\n\nEnd of it.\n", "", "[]");
}

TEST(settings)
{
    check_headings("PEP: 8\nTitle: Style Guide\nAuthor: Guido,\n        Barry\n\nBody text.\n",
                   "Style Guide", "[]");
    text("PEP: 8\nTitle: Style Guide\nAuthor: Guido\n\nBody text.\n",
         "PEP: 8\nTitle: Style Guide\nAuthor: Guido\nBody text.");
}

/* A paragraph without end is read in parts, none of it lost. */
TEST(long_paragraph)
{
    lore_arena arena;
    lore_buf source;
    lore_arena_init(&arena, 0);
    lore_buf_init(&source, 0);
    for (int i = 0; i < 10000; i++) {
        lore_buf_printf(&source, "line%d\n", i);
    }
    lore_clean_document clean = clean_bytes(&arena, LORE_MEDIA_TEXT, lore_buf_str(&source));
    CHECK_INT(clean.text.len, source.len - 1);
    lore_buf_destroy(&source);
    lore_arena_destroy(&arena);
}

CHECK_MAIN(paragraphs, lists, preformatted, headings, settings, long_paragraph)
