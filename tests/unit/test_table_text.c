/* Separated values: names before values, quotes, separators, tables without names. */
#include "tests/unit/ingest_fixture.h"

TEST(named_columns)
{
    check_text(LORE_MEDIA_CSV,
               "City,Year,Note\r\nBonn,1949,\"a \"\"quoted\"\", word\"\r\nBerlin,,\n\nRom,1,x", "",
               "City: Bonn | Year: 1949 | Note: a \"quoted\", word\nCity: Berlin\n"
               "City: Rom | Year: 1 | Note: x");
    check_text(LORE_MEDIA_CSV, "a;b;c,d\n1;2;3", "", "a: 1 | b: 2 | c,d: 3");
    check_text(LORE_MEDIA_TSV, "a,x\tb\n1\t\"two\nlines\"\n", "", "a,x: 1 | b: two lines");
}

TEST(no_names)
{
    check_text(LORE_MEDIA_CSV, "1,2\n3,4\n", "", "1 | 2\n3 | 4");
    check_text(LORE_MEDIA_CSV, "a,b", "", "a | b");
    check_text(LORE_MEDIA_CSV, "only\nwords", "", "only\nwords");
    check_text(LORE_MEDIA_CSV, "a,b\n\"open", "", "a: open");
    check_text(LORE_MEDIA_CSV, "", "", "");
}

CHECK_MAIN(named_columns, no_names)
