/* PowerPoint: slides in the presentation's order, titles first, tables, notes, no slide numbers. */
#include "tests/unit/packed_fixture.h"

#define SP(role, text)                                                                   \
    "<p:sp><p:nvSpPr><p:nvPr>" role "</p:nvPr></p:nvSpPr><p:txBody><a:p><a:r><a:t>" text \
    "</a:t></a:r></a:p></p:txBody></p:sp>"
#define SLIDE(body) LORE_STR("<p:sld xmlns:p='p' xmlns:a='a'>" body "</p:sld>")

TEST(slides)
{
    const packed_file files[] = {
        {"[Content_Types].xml", LORE_STR("<Types/>")},
        {"ppt/slides/slide1.xml",
         SLIDE(SP(
             "<p:ph type='sldNum'/>",
             "2") "<p:graphicFrame><a:tbl><a:tr><a:tc><a:p><a:r><a:t>"
                  "x</a:t></a:r></a:p></a:tc><a:tc><a:p><a:r><a:t>y</a:t></a:r></a:p></a:tc></a:tr>"
                  "</a:tbl></p:graphicFrame>")},
        {"ppt/slides/slide2.xml",
         SLIDE(SP("", "Body text.") SP("<p:ph type='title'/>", "Welcome &amp; hello"))},
        {"ppt/slides/slide3.xml", SLIDE(SP("<p:ph type='ctrTitle'/>", "End") SP("", "Bye."))},
        {"ppt/slides/_rels/slide2.xml.rels",
         LORE_STR(
             "<R><Relationship Id='n' Type='t/notesSlide' Target='../notesSlides/n2.xml'/></R>")},
        {"ppt/notesSlides/n2.xml",
         SLIDE(SP("<p:ph type='body'/>", "Say this.") SP("<p:ph type='sldNum'/>", "1"))},
        {"ppt/presentation.xml",
         LORE_STR("<p:presentation xmlns:p='p' xmlns:r='r'><p:sldIdLst><p:sldId id='256' r:id='b'/>"
                  "<p:sldId id='257' r:id='a'/><p:sldId id='258' r:id='c'/></p:sldIdLst>"
                  "</p:presentation>")},
        {"ppt/_rels/presentation.xml.rels",
         LORE_STR("<R><Relationship Id='a' Type='t/slide' Target='slides/slide1.xml'/>"
                  "<Relationship Id='b' Type='t/slide' Target='slides/slide2.xml'/>"
                  "<Relationship Id='c' Type='t/slide' Target='slides/slide3.xml'/></R>")},
        {0}};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_packed(&arena, LORE_MEDIA_PPTX, files);
    CHECK_STR(clean.title, "Welcome & hello");
    CHECK_STR(describe_sections(&arena, &clean),
              "[]Body text.\nSay this.\n[Slide 2]Slide 2\nx | y\n[End]End\nBye.");
    check_exact(&clean, "Say this.");
    lore_arena_destroy(&arena);
}

CHECK_MAIN(slides)
