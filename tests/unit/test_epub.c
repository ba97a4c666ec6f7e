/* EPUB: chapters in the order of the spine, metadata of the package document, no navigation. */
#include "tests/unit/packed_fixture.h"

TEST(book)
{
    const packed_file files[] = {
        {"mimetype", LORE_STR("application/epub+zip")},
        {"OPS/two.xhtml", LORE_STR("<html><body><h1>Two</h1><p>Second.</p></body></html>")},
        {"OPS/nav.xhtml", LORE_STR("<html><body><p>Contents</p></body></html>")},
        {"OPS/text/one a.xhtml", LORE_STR("<html><body><h1>One</h1><p>First.</p></body></html>")},
        {"META-INF/container.xml",
         LORE_STR("<container><rootfiles><rootfile full-path='OPS/book.opf'/><rootfile "
                  "full-path='A.opf'/></rootfiles></container>")},
        {"A.opf", LORE_STR("<package><metadata><title>Other</title></metadata></package>")},
        {"OPS/book.opf",
         LORE_STR(
             "<package xmlns:dc='d'><metadata><dc:title>Tales</dc:title><dc:creator>Eve"
             "</dc:creator><dc:language>en</dc:language></metadata><manifest>"
             "<item id='b' href='two.xhtml' media-type='application/xhtml+xml'/>"
             "<item id='n' href='nav.xhtml' media-type='application/xhtml+xml' "
             "properties='nav'/><item id='a' href='text/one%20a.xhtml' "
             "media-type='application/xhtml+xml'/></manifest><spine><itemref idref='n'/>"
             "<itemref idref='a'/><itemref idref='b'/><itemref idref='a'/></spine></package>")},
        {0}};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_packed(&arena, LORE_MEDIA_EPUB, files);
    CHECK_STR(describe_sections(&arena, &clean), "[One]One\nFirst.\n[Two]Two\nSecond.");
    CHECK_STR(clean.title, "Tales");
    CHECK_STR(clean.author, "Eve");
    CHECK_STR(clean.language, "en");
    check_exact(&clean, "Second.");
    lore_arena_destroy(&arena);
}

/* A chapter that is not UTF-8 is decoded as HTML is. */
TEST(encodings)
{
    const packed_file files[] = {
        {"mimetype", LORE_STR("application/epub+zip")},
        {"a.opf", LORE_STR("<p><manifest><item id='a' href='a.html' media-type='text/html'/>"
                           "</manifest><spine><itemref idref='a'/></spine></p>")},
        {"a.html",
         LORE_STR("<html><head><meta charset='gbk'></head><body><p>\xC4\xFA\xBA\xC3</p>")},
        {0}};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_packed(&arena, LORE_MEDIA_EPUB, files);
    CHECK_STR(clean.text, "您好");
    lore_arena_destroy(&arena);
}

TEST(without_package_document)
{
    const packed_file files[] = {{"mimetype", LORE_STR("application/epub+zip")}, {0}};
    check_refused(files, &LIMITS, LORE_ERR_INVALID, "opf");
}

CHECK_MAIN(book, encodings, without_package_document)
