/* Formats are known by content whatever the name, and by name where content cannot tell. */
#include "tests/unit/ingest_fixture.h"

static void check_media(const char *name, lore_str bytes, lore_media expected)
{
    CHECK_INT(lore_media_of(lore_str_from(name), bytes), expected);
}

TEST(by_content)
{
    check_media("a.txt", LORE_STR("PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
                LORE_MEDIA_ARCHIVE);
    check_media("a.txt", LORE_STR("\x1F\x8B\x08\0"), LORE_MEDIA_ARCHIVE);
    check_media("a", LORE_STR("Received: x\nFrom: a\nDate: b\n\nbody"), LORE_MEDIA_MAIL);
    check_media("a", LORE_STR("From a Sat\nFrom: a\nTo: c\nDate: b\n\nbody"), LORE_MEDIA_MBOX);
    check_media("a", LORE_STR("Note: x\nFrom: a\n\nbody"), LORE_MEDIA_TEXT);
    check_media("a", LORE_STR("{ \"a\": 1}"), LORE_MEDIA_JSON);
    check_media("a", LORE_STR("[see below] {text}"), LORE_MEDIA_TEXT);
    check_media("a",
                LORE_STR("\xFD"
                         "7zXZ\0"),
                LORE_MEDIA_ARCHIVE);
    check_media("a.rst", LORE_STR("BZh91AY&SY...."), LORE_MEDIA_ARCHIVE);
    check_media("a.txt", LORE_STR("{\\rtf1"), LORE_MEDIA_AUTO);
    /* A ZIP file without the parts of a document is a damaged one under the name of one. */
    check_media("a.docx", LORE_STR("PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
                LORE_MEDIA_DOCX);
    check_media("a", LORE_STR("\xD0\xCF\x11\xE0\0\0"), LORE_MEDIA_AUTO);
    const char *rst = "Guide\n=====\n\n.. note:: x\n", *adoc = "= Guide\n:toc:\n\n== One\n";
    check_media("README", lore_str_from(rst), LORE_MEDIA_RST);
    check_media("a.txt", lore_str_from(rst), LORE_MEDIA_RST);
    check_media("a.txt", LORE_STR("Guide\n=====\n\n... and so on\n"), LORE_MEDIA_TEXT);
    check_media("README", lore_str_from(adoc), LORE_MEDIA_ASCIIDOC);
    check_media("a.txt", lore_str_from(adoc), LORE_MEDIA_ASCIIDOC);
    check_media("a.txt", LORE_STR("= Guide\n\n1 == 2\n"), LORE_MEDIA_TEXT);
    check_media("run", LORE_STR("#!/bin/sh\necho\n"), LORE_MEDIA_CODE);
    /* The name lies: no ZIP file, so it is what it looks like. */
    check_media("a.docx", LORE_STR("plain words"), LORE_MEDIA_TEXT);
    check_media("a.docx", LORE_STR("\0\1\2"), LORE_MEDIA_AUTO);
}

TEST(by_name)
{
    const lore_str none = {"", 0};
    check_media("a.CSV", LORE_STR("a,b"), LORE_MEDIA_CSV);
    check_media("a.json", LORE_STR("[1]"), LORE_MEDIA_JSON);
    check_media("x/a.docx", none, LORE_MEDIA_DOCX);
    check_media("x/.zip", none, LORE_MEDIA_AUTO);
    check_media("a.rst", none, LORE_MEDIA_RST);
    check_media("a.adoc", LORE_STR("words"), LORE_MEDIA_ASCIIDOC);
    check_media("a.PY", LORE_STR("x = 1"), LORE_MEDIA_CODE);
    check_media("a.hpp", none, LORE_MEDIA_CODE);
    check_media("a.png", none, LORE_MEDIA_AUTO);
}

TEST(names)
{
    for (int media = LORE_MEDIA_AUTO + 1; media < LORE_MEDIA_COUNT; media++) {
        lore_str name = lore_str_from(lore_media_name((lore_media)media));
        CHECK(name.len > 0);
        CHECK_INT(lore_media_named(name), media);
    }
    CHECK_INT(lore_media_named(LORE_STR("image/png")), LORE_MEDIA_AUTO);
}

CHECK_MAIN(by_content, by_name, names)
