/* OpenDocument: headings, lists, tables, footnotes in brackets, comments left out, sheets by name.
 */
#include "tests/unit/packed_fixture.h"

#define CONTENT(body) \
    LORE_STR("<o:document-content xmlns:o='o' xmlns:t='t'>" body "</o:document-content>")

TEST(text)
{
    const packed_file files[] = {
        {"mimetype", LORE_STR("application/vnd.oasis.opendocument.text")},
        {"content.xml",
         CONTENT(
             "<t:h t:outline-level='2'>Care</t:h><t:p>Wipe<t:s/>it<t:note><t:note-citation>1"
             "</t:note-citation><t:note-body><t:p>dry</t:p></t:note-body></t:note>.<o:annotation>"
             "<t:p>really?</t:p></o:annotation></t:p><t:list><t:list-item><t:p>one</t:p><t:p>more"
             "</t:p></t:list-item></t:list><t:table><t:table-row><t:table-cell><t:p>a</t:p>"
             "</t:table-cell><t:table-cell><t:p>b</t:p></t:table-cell></t:table-row></t:table>")},
        {"meta.xml", LORE_STR("<m xmlns:dc='d'><dc:title>Lamp</dc:title><dc:creator>Bo</dc:creator>"
                              "<dc:date>2020-02-02</dc:date></m>")},
        {0}};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_packed(&arena, LORE_MEDIA_ODF, files);
    CHECK_STR(describe_sections(&arena, &clean), "[Care]Care\nWipe it (dry).\n- one\nmore\na | b");
    CHECK_STR(clean.title, "Lamp");
    CHECK_STR(clean.author, "Bo");
    check_exact(&clean, "more");
    lore_arena_destroy(&arena);
}

TEST(spreadsheet)
{
    const packed_file files[] = {
        {"mimetype", LORE_STR("application/vnd.oasis.opendocument.spreadsheet")},
        {"content.xml",
         CONTENT("<o:spreadsheet><t:table t:name='Sums'><t:table-row><t:table-cell><t:p>7</t:p>"
                 "</t:table-cell></t:table-row></t:table></o:spreadsheet>")},
        {0}};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_packed(&arena, LORE_MEDIA_ODF, files);
    CHECK_STR(describe_sections(&arena, &clean), "[Sums]Sums\n7");
    lore_arena_destroy(&arena);
}

/* Cells alike are written once: the column of the next is counted on. */
TEST(columns)
{
    const packed_file files[] = {
        {"mimetype", LORE_STR("application/vnd.oasis.opendocument.spreadsheet")},
        {"content.xml",
         CONTENT("<o:spreadsheet><t:table t:name='Rows'><t:table-row><t:table-cell><t:p>Item</t:p>"
                 "</t:table-cell><t:table-cell><t:p>数量</t:p></t:table-cell><t:table-cell><t:p>"
                 "Note</t:p></t:table-cell></t:table-row><t:table-row><t:table-cell "
                 "t:number-columns-repeated='2'/><t:table-cell><t:p>two</t:p><t:p>lines</t:p>"
                 "</t:table-cell></t:table-row></t:table></o:spreadsheet>")},
        {0}};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_packed(&arena, LORE_MEDIA_ODF, files);
    CHECK_STR(clean.text, "Rows\nNote: two lines");
    lore_arena_destroy(&arena);
}

CHECK_MAIN(text, spreadsheet, columns)
