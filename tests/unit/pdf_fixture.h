/* Pages for tests of PDF: words at places as `pdftotext -bbox` writes them, and what becomes of
 * them. Letters are half as wide as they are high, Chinese ones as wide. */
#ifndef LORE_TESTS_PDF_FIXTURE_H
#define LORE_TESTS_PDF_FIXTURE_H

#include "ingest/pdf_int.h"
#include "tests/check.h"

#include "base/utf8.h"

typedef struct pdf_output {
    lore_buf text;
    int32_t pages;
} pdf_output;

CHECK_UNUSED static void begin_pdf(pdf_output *pdf)
{
    *pdf = (pdf_output){.pages = 0};
    lore_buf_init(&pdf->text, 0);
    lore_buf_append(&pdf->text,
                    LORE_STR("<html>\n<head>\n<title></title>\n</head>\n<body>\n<doc>\n"));
}

CHECK_UNUSED static void begin_page(pdf_output *pdf)
{
    lore_buf_append(&pdf->text, pdf->pages++ > 0 ? LORE_STR("  </page>\n") : (lore_str){"", 0});
    lore_buf_append(&pdf->text, LORE_STR("  <page width=\"600.000000\" height=\"800.000000\">\n"));
}

static float text_width(lore_str text, float size)
{
    float width = 0;
    for (size_t at = 0; at < text.len;) {
        width += lore_utf8_next(text, &at) >= 0x2E80 ? size : size / 2;
    }
    return width;
}

/* A line whose upper left corner is at (x, y). */
CHECK_UNUSED static void put_line(pdf_output *pdf, float x, float y, float size, const char *text)
{
    for (lore_str rest = lore_str_from(text); rest.len > 0;) {
        const char *blank = memchr(rest.ptr, ' ', rest.len);
        lore_str word = {rest.ptr, blank == NULL ? rest.len : (size_t)(blank - rest.ptr)};
        float width = text_width(word, size);
        if (word.len > 0) {
            lore_buf_printf(
                &pdf->text,
                "    <word xMin=\"%f\" yMin=\"%f\" xMax=\"%f\" yMax=\"%f\">" LORE_STR_FMT
                "</word>\n",
                (double)x, (double)y, (double)(x + width), (double)(y + size), LORE_STR_ARG(word));
        }
        x += width + size / 2;
        rest = lore_str_slice(rest, word.len + (blank != NULL ? 1 : 0), rest.len);
    }
}

/* Lines below one another, a line's height and a fifth apart; NULL ends them. Gives the y behind.
 */
CHECK_UNUSED static float put_lines(pdf_output *pdf, float x, float y, float size,
                                    const char *const *lines)
{
    for (; *lines != NULL; lines++, y += 1.2F * size) {
        put_line(pdf, x, y, size, *lines);
    }
    return y;
}

/* Read all of it in pieces of piece_bytes, and clean it; texts live in the arena. */
CHECK_UNUSED static lore_clean_document end_pdf(pdf_output *pdf, size_t piece_bytes,
                                                lore_arena *arena)
{
    lore_pdf_reader reader;
    lore_error err = {0};
    lore_clean_document clean = {0};
    lore_buf_append(&pdf->text, LORE_STR("  </page>\n</doc>\n</body>\n</html>\n"));
    lore_pdf_reader_init(&reader, arena);
    lore_str all = lore_buf_str(&pdf->text);
    for (size_t at = 0; at < all.len; at += piece_bytes) {
        size_t end = at + piece_bytes < all.len ? at + piece_bytes : all.len;
        CHECK(lore_pdf_reader_feed(&reader, lore_str_slice(all, at, end)));
    }
    CHECK(reader.is_whole);
    static const char blanks[1024] = "";
    lore_builder builder;
    lore_builder_init(&builder, (lore_str){blanks, (size_t)pdf->pages + 1}, (lore_str){"", 0}, 0,
                      arena);
    CHECK_OK(lore_pdf_write(&reader.lines, &builder, &err), &err);
    CHECK_OK(lore_builder_finish(&builder, (lore_str){"", 0}, &clean, &err), &err);
    lore_builder_destroy(&builder);
    lore_pdf_reader_destroy(&reader);
    lore_buf_destroy(&pdf->text);
    return clean;
}

CHECK_UNUSED static void check_pdf(pdf_output *pdf, const char *expected)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = end_pdf(pdf, 4096, &arena);
    CHECK_STR(clean.text, expected);
    lore_arena_destroy(&arena);
}

#endif
