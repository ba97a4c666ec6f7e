/* What is proved here: two and three columns, on common baselines or not, below headings over all
 * of them, are read down each column; tables are rows; markers of lists and rivers in text are no
 * columns; the order of the words in the file does not matter. */
#include "tests/unit/pdf_fixture.h"

#include "base/clock.h"

static const char *const FIRST[] = {
    "the first column begins up here", "and goes on with lines that are",
    "about as long as it is wide, so", "that it looks like running text",
    "which it is until it stops.",     NULL};
static const char *const SECOND[] = {
    "while another one stands beside", "it on the right side of it with",
    "as many lines of the same width", "in them and little else to say",
    "before it comes to an end.",      NULL};
static const char FIRST_TEXT[] = "the first column begins up here and goes on with lines that are "
                                 "about as long as it is wide, so "
                                 "that it looks like running text which it is until it stops.";
static const char SECOND_TEXT[] = "while another one stands beside it on the right side of it with "
                                  "as many lines of the same width "
                                  "in them and little else to say before it comes to an end.";

static void check_columns(float offset)
{
    pdf_output pdf;
    char expected[2048];
    begin_pdf(&pdf);
    begin_page(&pdf);
    put_line(&pdf, 60, 60, 16, "The title");
    put_lines(&pdf, 60, 100, 10, FIRST);
    put_lines(&pdf, 240, 100 + offset, 10, SECOND);
    put_line(&pdf, 60, 200, 14, "Below both");
    put_lines(&pdf, 60, 240 + offset, 10, SECOND);
    put_lines(&pdf, 240, 240, 10, FIRST);
    put_lines(&pdf, 420, 240 + 2 * offset, 10, SECOND);
    snprintf(expected, sizeof expected, "%s\n%s\nBelow both\n%s\n%s\n%s", FIRST_TEXT, SECOND_TEXT,
             SECOND_TEXT, FIRST_TEXT, SECOND_TEXT);
    check_pdf(&pdf, expected);
}

TEST(columns_are_read_one_after_another)
{
    check_columns(0);
}

TEST(columns_need_no_common_baselines)
{
    check_columns(4);
    check_columns(6);
}

TEST(chinese_columns)
{
    static const char *const left[] = {
        "\xE4\xB8\x80\xE4\xB8\x80\xE4\xB8\x80\xE4\xB8\x80\xE4\xB8\x80"
        "\xE4\xB8\x80\xE4\xB8\x80\xE4\xB8\x80\xE4\xB8\x80\xE4\xB8\x80",
        "\xE4\xBA\x8C\xE4\xBA\x8C\xE4\xBA\x8C\xE4\xBA\x8C\xE4\xBA\x8C"
        "\xE4\xBA\x8C\xE4\xBA\x8C\xE4\xBA\x8C\xE4\xBA\x8C\xE4\xBA\x8C",
        "\xE4\xB8\x89\xE4\xB8\x89\xE3\x80\x82", NULL};
    pdf_output pdf;
    begin_pdf(&pdf);
    begin_page(&pdf);
    put_lines(&pdf, 60, 100, 10, left);
    put_lines(&pdf, 175, 100, 10, left);
    char one[128], both[256];
    snprintf(one, sizeof one, "%s%s%s", left[0], left[1], left[2]);
    snprintf(both, sizeof both, "%s\n%s", one, one);
    check_pdf(&pdf, both);
}

TEST(tables_are_rows)
{
    static const struct {
        const char *name, *size, *price;
    } rows[] = {{"Model", "Size", "Price"},
                {"Router R2", "12 cm", "40.00"},
                {"Switch", "", "7.50"},
                {"Access point", "9 cm", "112.00"}};
    pdf_output pdf;
    begin_pdf(&pdf);
    begin_page(&pdf);
    put_lines(&pdf, 60, 100, 10, FIRST);
    for (int i = 0; i < 4; i++) {
        float y = 180 + 15 * (float)i;
        put_line(&pdf, 60, y, 10, rows[i].name);
        put_line(&pdf, 160, y, 10, rows[i].size);
        put_line(&pdf, 260, y, 10, rows[i].price);
    }
    put_line(&pdf, 160, 236, 10, "deep");
    put_lines(&pdf, 60, 270, 10, SECOND);
    char expected[1024];
    snprintf(expected, sizeof expected,
             "%s\nModel | Size | Price\nRouter R2 | 12 cm | 40.00\nSwitch | | 7.50\n"
             "Access point | 9 cm deep | 112.00\n%s",
             FIRST_TEXT, SECOND_TEXT);
    check_pdf(&pdf, expected);
}

TEST(markers_stay_with_their_items)
{
    pdf_output pdf;
    begin_pdf(&pdf);
    begin_page(&pdf);
    for (int i = 0; i < 4; i++) {
        float y = 100 + 24 * (float)i;
        put_line(&pdf, 60, y, 10, i < 2 ? "\xE2\x80\xA2" : i == 2 ? "3." : "(b)");
        put_line(&pdf, 85, y, 10, "an item of a list whose text goes on in");
        put_line(&pdf, 85, y + 12, 10, "a second line.");
    }
    check_pdf(&pdf, "- an item of a list whose text goes on in a second line.\n"
                    "- an item of a list whose text goes on in a second line.\n"
                    "3. an item of a list whose text goes on in a second line.\n"
                    "(b) an item of a list whose text goes on in a second line.");
}

TEST(rivers_are_no_columns)
{
    static const char *const lines[] = {"a paragraph that is set in full lines", NULL};
    pdf_output pdf;
    begin_pdf(&pdf);
    begin_page(&pdf);
    put_lines(&pdf, 60, 100, 10, lines);
    for (int i = 0; i < 3; i++) { /* three long words a line, stretched to its end */
        put_line(&pdf, 60, 112 + 12 * (float)i, 10, i == 1 ? "transatlantic" : "extraordinary");
        put_line(&pdf, 150, 112 + 12 * (float)i, 10, i == 1 ? "telephones" : "hypothesis");
    }
    lore_str text = lore_buf_str(&pdf.text);
    CHECK(text.len > 0);
    check_pdf(&pdf, "a paragraph that is set in full lines extraordinary hypothesis transatlantic "
                    "telephones extraordinary hypothesis");
}

TEST(figures_beside_letters_are_of_their_line)
{
    pdf_output pdf;
    begin_pdf(&pdf);
    begin_page(&pdf);
    put_line(&pdf, 60, 100, 10, "the area is 40 m");
    put_line(&pdf, 60 + 16 * 5, 98, 6, "2");
    put_line(&pdf, 60, 112, 10, "and water is H");
    put_line(&pdf, 60 + 14 * 5, 116, 6, "2");
    check_pdf(&pdf, "the area is 40 m2 and water is H2");
}

TEST(turned_words_come_last)
{
    pdf_output pdf;
    begin_pdf(&pdf);
    begin_page(&pdf);
    lore_buf_printf(&pdf.text, "<word xMin=\"20.0\" yMin=\"300.0\" xMax=\"32.0\" yMax=\"380.0\">"
                               "sideways</word>\n");
    put_lines(&pdf, 60, 100, 10, FIRST);
    char expected[512];
    snprintf(expected, sizeof expected, "%s\nsideways", FIRST_TEXT);
    check_pdf(&pdf, expected);
}

/* Columns with as many words as a page can have, in time. */
TEST(large_pages_end)
{
    pdf_output pdf;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    begin_pdf(&pdf);
    begin_page(&pdf);
    for (int i = 0; i < 20000; i++) {
        put_line(&pdf, (float)(i * 37 % 590), (float)(i * 101 % 7919) / 10, 2, "ab");
    }
    int64_t start = lore_clock_ns();
    lore_clean_document clean = end_pdf(&pdf, 65536, &arena);
    CHECK(clean.text.len >= 60000 - 1);
    CHECK(lore_clock_ns() - start < (int64_t)10 * 1000 * 1000 * 1000);
    lore_arena_destroy(&arena);
}

CHECK_MAIN(columns_are_read_one_after_another, columns_need_no_common_baselines, chinese_columns,
           tables_are_rows, markers_stay_with_their_items, rivers_are_no_columns,
           figures_beside_letters_are_of_their_line, turned_words_come_last, large_pages_end)
