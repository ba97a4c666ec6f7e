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

#define SHEET(rows) LORE_STR("<worksheet><sheetData>" rows "</sheetData></worksheet>")
#define ROW(cells) "<row>" cells "</row>"
#define TEXT(place, text) "<c r='" place "' t='inlineStr'><is><t>" text "</t></is></c>"
#define NUMBER(place, number) "<c r='" place "'><v>" number "</v></c>"

static void check_sheet(lore_str sheet, const char *expected)
{
    const packed_file files[] = {
        {"[Content_Types].xml", LORE_STR("<Types/>")},
        {"xl/workbook.xml", LORE_STR("<w xmlns:r='r'><sheet name='S' r:id='r1'/></w>")},
        {"xl/_rels/workbook.xml.rels",
         LORE_STR("<R><Relationship Id='r1' Type='t/worksheet' Target='worksheets/s.xml'/></R>")},
        {"xl/worksheets/s.xml", sheet},
        {0}};
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_clean_document clean = clean_packed(&arena, LORE_MEDIA_XLSX, files);
    CHECK_STR(clean.text, expected);
    lore_arena_destroy(&arena);
}

/* Values stand behind the names of their columns wherever the cells between are missing; without
 * names the gaps are kept; names alone are still found. */
TEST(columns)
{
    check_sheet(SHEET(ROW(TEXT("B1", "Prices of 2024"))
                          ROW(TEXT("B3", "城市") TEXT("C3", "Year") TEXT("D3", "Sum"))
                              ROW(TEXT("B4", "北京") NUMBER("D4", "7")) ROW(NUMBER("E5", "8"))),
                "S\nPrices of 2024\n城市: 北京 | Sum: 7\n8");
    check_sheet(SHEET(ROW(TEXT("A1", "a") NUMBER("D1", "1")) ROW(TEXT("A2", "b") TEXT("B2", "c"))),
                "S\na | | | 1\nb | c");
    check_sheet(SHEET(ROW(TEXT("A1", "a") TEXT("C1", "c"))), "S\na | | c");
    check_sheet(SHEET(ROW(TEXT("B1", "Name") TEXT("C1", "Date"))), "S\nName | Date");
    /* Far apart, or out of order: no more than some separators, and neighbours. */
    check_sheet(SHEET(ROW(NUMBER("A1", "1") NUMBER("XFD1", "2") NUMBER("B1", "3"))),
                "S\n1 | | | | | | | | | | | | | | | | | | | | | | | | | | | | | | | | 2");
}

CHECK_MAIN(workbook, columns)
