/* Excel: sheets by name and order, shared and inline strings, numbers, dates, booleans. */
#include "tests/unit/packed_fixture.h"

TEST(workbook)
{
    const packed_file files[] = {
        {"[Content_Types].xml", LORE_STR("<Types/>")},
        {"xl/workbook.xml", LORE_STR("<x:workbook xmlns:x='x' xmlns:r='r'><x:sheets><x:sheet "
                                     "name='Prices' r:id='r2'/><x:sheet name='Notes' r:id='r1'/>"
                                     "</x:sheets></x:workbook>")},
        {"xl/_rels/workbook.xml.rels",
         LORE_STR("<R><Relationship Id='r1' Type='t/worksheet' Target='worksheets/s1.xml'/>"
                  "<Relationship Id='r2' Type='t/worksheet' Target='/xl/worksheets/s2.xml'/>"
                  "<Relationship Id='r3' Type='t/sharedStrings' Target='sharedStrings.xml'/>"
                  "<Relationship Id='r4' Type='t/styles' Target='styles.xml'/></R>")},
        {"xl/styles.xml",
         LORE_STR("<s><numFmts><numFmt numFmtId='170' formatCode='dd/mm/yyyy'/><numFmt "
                  "numFmtId='171' formatCode='0.0\"days\"'/></numFmts><cellXfs><xf numFmtId='0'/>"
                  "<xf numFmtId='14'/><xf numFmtId='170'/><xf numFmtId='171'/></cellXfs></s>")},
        {"xl/sharedStrings.xml",
         LORE_STR(
             "<sst><si><t>Item</t></si><si><r><t>Pl</t></r><r><t>ug</t></r><rPh><t>no</t></rPh>"
             "</si></sst>")},
        {"xl/worksheets/s1.xml",
         LORE_STR("<worksheet><sheetData><row><c t='inlineStr'><is><t>in place</t></is></c><c "
                  "t='str'><f>A1</f><v>made</v></c><c t='b'><v>1</v></c><c t='e'><v>#N/A</v></c>"
                  "</row></sheetData></worksheet>")},
        {"xl/worksheets/s2.xml",
         LORE_STR("<worksheet><sheetData><row><c t='s'><v>0</v></c><c t='s'><v>9</v></c></row><row>"
                  "<c t='s'><v>1</v></c><c><v>0.10000000000000001</v></c><c s='1'><v>43831</v></c>"
                  "<c s='2'><v>43831.75</v></c><c s='3'><v>2</v></c></row><row><c/></row>"
                  "</sheetData></worksheet>")},
        {0}};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_packed(&arena, LORE_MEDIA_XLSX, files);
    CHECK_STR(describe_sections(&arena, &clean),
              "[Prices]Prices\nItem\nPlug | 0.1 | 2020-01-01 | 2020-01-01 18:00:00 | 2\n"
              "[Notes]Notes\nin place | made | TRUE | #N/A");
    check_exact(&clean, "Item");
    lore_arena_destroy(&arena);
}

CHECK_MAIN(workbook)
