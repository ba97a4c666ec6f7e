/* What is proved here: where paragraphs begin and end, in columns and overleaf; headings by size
 * and number; headers and footers go, hyphens at the ends of lines go where they should; every part
 * of the text knows its page. */
#include "tests/unit/pdf_fixture.h"

TEST(paragraphs)
{
    static const char *const lines[] = {"a first paragraph of lines as",
                                        "wide as this one here, which",
                                        "ends early.",
                                        "the second one has no space",
                                        "before it at all.",
                                        NULL};
    pdf_output pdf;
    begin_pdf(&pdf);
    begin_page(&pdf);
    float y = put_lines(&pdf, 60, 100, 10, lines);
    y = put_lines(&pdf, 60, y + 8, 10, lines); /* space says it, too */
    put_line(&pdf, 75, y, 10, "An indent so wide as this");
    put_line(&pdf, 60, y + 12, 10, "begins one as well, does it?");
    check_pdf(&pdf, "a first paragraph of lines as wide as this one here, which ends early.\n"
                    "the second one has no space before it at all.\n"
                    "a first paragraph of lines as wide as this one here, which ends early.\n"
                    "the second one has no space before it at all.\n"
                    "An indent so wide as this begins one as well, does it?");
}

TEST(headings)
{
    pdf_output pdf;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    begin_pdf(&pdf);
    begin_page(&pdf);
    put_line(&pdf, 60, 100, 20, "The whole");
    put_line(&pdf, 60, 140, 14, "A part of it that");
    put_line(&pdf, 60, 157, 14, "needs two lines");
    put_line(&pdf, 60, 180, 10, "Text of the part.");
    put_line(&pdf, 60, 210, 10, "2.1.3 A numbered part");
    put_line(&pdf, 60, 240, 10, "Text of that.");
    lore_clean_document clean = end_pdf(&pdf, 7, &arena);
    CHECK_STR(clean.title, "The whole");
    CHECK_INT(clean.section_count, 2);
    CHECK_STR(clean.sections[0].heading, "A part of it that needs two lines");
    CHECK_STR(clean.sections[1].heading,
              "A part of it that needs two lines > 2.1.3 A numbered part");
    lore_arena_destroy(&arena);
}

/* Broken at every line, as a book does it. */
TEST(hyphens)
{
    static const char *const lines[] = {"this is an exam-",
                                        "ple of a well-",
                                        "known rule of self-",
                                        "control, for Anglo-",
                                        "Saxon re-",
                                        "entry and for COVID-",
                                        "19 and re-entry and inter\xC2\xAD",
                                        "national pages.",
                                        NULL};
    pdf_output pdf;
    begin_pdf(&pdf);
    begin_page(&pdf);
    put_lines(&pdf, 60, 100, 10, lines);
    check_pdf(&pdf,
              "this is an example of a well-known rule of self-control, for Anglo-Saxon re-entry "
              "and for COVID-19 and re-entry and international pages.");
}

TEST(headers_and_footers)
{
    pdf_output pdf;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    begin_pdf(&pdf);
    for (int i = 0; i < 6; i++) {
        char line[64];
        begin_page(&pdf);
        put_line(&pdf, 60, 30, 10, i % 2 == 0 ? "Book of things" : "Chapter of this");
        snprintf(line, sizeof line, "Text of page no. %c begins with a capital and a full stop.",
                 'a' + i * i % 7 + i);
        put_line(&pdf, 60, 100, 10, line);
        put_line(&pdf, 60, 730, 10, i == 2 ? "Only once down here." : "");
        snprintf(line, sizeof line, "page %d of 6", i + 1);
        put_line(&pdf, 280, 770, 8, line);
    }
    lore_clean_document clean = end_pdf(&pdf, 4096, &arena);
    CHECK(lore_str_find(clean.text, LORE_STR("Book"), 0) == SIZE_MAX);
    CHECK(lore_str_find(clean.text, LORE_STR("Chapter"), 0) == SIZE_MAX);
    CHECK(lore_str_find(clean.text, LORE_STR(" of 6"), 0) == SIZE_MAX);
    CHECK(lore_str_find(clean.text, LORE_STR("Only once"), 0) != SIZE_MAX);
    size_t found = 0;
    for (size_t at = 0; (at = lore_str_find(clean.text, LORE_STR("Text of page"), at)) != SIZE_MAX;
         at++) {
        found++;
    }
    CHECK_INT(found, 6);
    lore_arena_destroy(&arena);
}

/* Numbers that do not count pages are text, and so is what stands anywhere else on each page. */
TEST(text_that_comes_again_is_no_header)
{
    static const char *const rates[] = {"Rate 40 percent", "Rate 12 percent", "Rate 77 percent"};
    pdf_output pdf;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    begin_pdf(&pdf);
    for (int i = 0; i < 3; i++) {
        begin_page(&pdf);
        put_line(&pdf, 60, 30, 10, rates[i]);
        put_line(&pdf, 60, 300, 10, "Again.");
    }
    lore_clean_document clean = end_pdf(&pdf, 4096, &arena);
    CHECK_STR(clean.text,
              "Rate 40 percent\nAgain.\nRate 12 percent\nAgain.\nRate 77 percent\nAgain.");
    lore_arena_destroy(&arena);
}

TEST(pages)
{
    pdf_output pdf;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    begin_pdf(&pdf);
    for (int i = 0; i < 3; i++) { /* the second one is empty */
        begin_page(&pdf);
        put_line(&pdf, 60, 300, 10,
                 i == 0   ? "a sentence that goes on"
                 : i == 2 ? "over a page."
                          : "");
    }
    lore_clean_document clean = end_pdf(&pdf, 4096, &arena);
    CHECK_STR(clean.text, "a sentence that goes on over a page.");
    CHECK_INT(lore_offset_to_source(clean.runs, clean.run_count, 0), 1);
    CHECK_INT(lore_offset_to_source(clean.runs, clean.run_count, 22), 1);
    CHECK_INT(lore_offset_to_source(clean.runs, clean.run_count, 24), 3);
    CHECK_INT(clean.run_count, 2);
    lore_arena_destroy(&arena);
}

TEST(chinese)
{
    pdf_output pdf;
    begin_pdf(&pdf);
    begin_page(&pdf);
    put_line(&pdf, 60, 100, 10,
             "\xE9\x87\x8D\xE7\xBD\xAE\xE8\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8"
             "\xE6\x8C\x89\xE4\xBD\x8F");
    put_line(&pdf, 60, 112, 10,
             "\xE6\x8C\x89\xE9\x92\xAE"
             "10\xE7\xA7\x92\xE4\xB8\x8D\xE6\x94\xBE");
    put_line(&pdf, 60, 124, 10, "5\xE7\xA7\x92\xE5\x90\x8E\xE3\x80\x82");
    check_pdf(&pdf,
              "\xE9\x87\x8D\xE7\xBD\xAE\xE8\xB7\xAF\xE7\x94\xB1\xE5\x99\xA8\xE6\x8C\x89\xE4\xBD\x8F"
              "\xE6\x8C\x89\xE9\x92\xAE"
              "10\xE7\xA7\x92\xE4\xB8\x8D\xE6\x94\xBE"
              "5\xE7\xA7\x92\xE5\x90\x8E\xE3\x80\x82");
}

CHECK_MAIN(paragraphs, headings, hyphens, headers_and_footers, text_that_comes_again_is_no_header,
           pages, chinese)
