/* Formats that are not read are named with what to do. */
#include "tests/unit/ingest_fixture.h"

#define OLE "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"

static void check_reason(lore_str bytes, const char *words)
{
    const char *reason = lore_foreign_reason(bytes);
    CHECK(reason != NULL && strstr(reason, words) != NULL);
    lore_raw_document raw = {.source = LORE_STR("a.docx"), .bytes = bytes};
    lore_clean_document clean;
    lore_error err = {0};
    CHECK_FAILS(lore_clean(&raw, &LIMITS, NULL, NULL, &clean, &err), LORE_ERR_INVALID, &err, words);
}

TEST(reasons)
{
    check_reason(LORE_STR(OLE "....W\0o\0r\0d\0D\0o\0c\0u\0m\0e\0n\0t\0"), "DOCX");
    check_reason(LORE_STR(OLE "....W\0o\0r\0k\0b\0o\0o\0k\0"), "XLSX");
    check_reason(LORE_STR(OLE "P\0o\0w\0e\0r\0P\0o\0i\0n\0t\0 \0D\0o\0c\0u\0m\0e\0n\0t\0"), "PPTX");
    check_reason(LORE_STR(OLE "E\0n\0c\0r\0y\0p\0t\0e\0d\0P\0a\0c\0k\0a\0g\0e\0"), "password");
    check_reason(LORE_STR(OLE "_\0_\0p\0r\0o\0p\0e\0r\0t\0i\0e\0s\0_\0v\0e\0r\0s\0i\0o\0n\0"),
                 "EML");
    check_reason(LORE_STR(OLE), "before 2007");
    check_reason(LORE_STR("{\\rtf1\\ansi x}"), "RTF");
    check_reason(LORE_STR("Rar!\x1A\x07\x01"), "ZIP");
    CHECK(lore_foreign_reason(LORE_STR("")) == NULL);
    CHECK(lore_foreign_reason(LORE_STR("{\\r")) == NULL);
    CHECK(lore_foreign_name(LORE_STR("x/a.DOC")) && !lore_foreign_name(LORE_STR("doc")));
}

CHECK_MAIN(reasons)
