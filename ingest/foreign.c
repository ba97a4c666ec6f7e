/* Formats that are known but not read: a reason that says what a file is and what to do about it.
 *
 * Office of before 2007, Outlook and Office files with a password share one container (MS-CFB),
 * whose directory names the streams in UTF-16; the names tell which program it was. They are
 * looked for in all of the file instead of in its directory, which a damaged file has not. */
#include "ingest/ingest_int.h"

#include <string.h>

static const struct {
    const char *stream; /* its name as UTF-16 without the last zero byte */
    size_t size;
    const char *reason;
} STREAMS[] = {
#define STREAM(name, reason)          \
    {                                 \
        name, sizeof name - 1, reason \
    }
    STREAM("E\0n\0c\0r\0y\0p\0t\0e\0d\0P\0a\0c\0k\0a\0g\0e",
           "is an Office file with a password: save it without one"),
    STREAM("W\0o\0r\0d\0D\0o\0c\0u\0m\0e\0n\0t", "is a Word 97-2003 file: save it as DOCX"),
    STREAM("P\0o\0w\0e\0r\0P\0o\0i\0n\0t\0 \0D\0o\0c\0u\0m\0e\0n\0t",
           "is a PowerPoint 97-2003 file: save it as PPTX"),
    STREAM("W\0o\0r\0k\0b\0o\0o\0k", "is an Excel 97-2003 file: save it as XLSX"),
    STREAM("B\0o\0o\0k", "is an Excel 5.0 file: save it as XLSX"),
    STREAM("_\0_\0p\0r\0o\0p\0e\0r\0t\0i\0e\0s\0_\0v\0e\0r\0s\0i\0o\0n",
           "is an Outlook message: save it as EML"),
#undef STREAM
};

static const char *reason_of_compound(lore_str bytes)
{
    for (size_t i = 0; i < sizeof STREAMS / sizeof STREAMS[0]; i++) {
        if (lore_str_find(bytes, (lore_str){STREAMS[i].stream, STREAMS[i].size}, 0) != SIZE_MAX) {
            return STREAMS[i].reason;
        }
    }
    return "is an Office file of before 2007 or a damaged one: save it as DOCX, PPTX or XLSX";
}

const char *lore_foreign_reason(lore_str bytes)
{
    static const struct {
        const char *signature, *reason;
    } others[] = {{"{\\rtf", "is RTF: save it as DOCX"},
                  {"7z\xBC\xAF\x27\x1C", "is a 7z archive: pack it as ZIP or tar"},
                  {"Rar!\x1A\x07", "is a RAR archive: pack it as ZIP or tar"}};
    if (lore_str_starts(bytes, LORE_STR("\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"))) {
        return reason_of_compound(bytes);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (lore_str_starts(bytes, lore_str_from(others[i].signature))) {
            return others[i].reason;
        }
    }
    return NULL;
}

bool lore_foreign_name(lore_str name)
{
    static const char *const extensions[] = {"doc", "dot", "xls", "xlt", "ppt",
                                             "pps", "msg", "rtf", "7z",  "rar"};
    lore_str extension = lore_media_extension(name);
    for (size_t i = 0; i < sizeof extensions / sizeof extensions[0]; i++) {
        if (lore_str_equal_nocase(extension, lore_str_from(extensions[i]))) {
            return true;
        }
    }
    return false;
}
