/* The input of fuzz_xml as the parts of a packed document: the first byte chooses the format, NUL
 * bytes cut the rest, the main part first. */
#ifndef LORE_TESTS_XML_PARTS_H
#define LORE_TESTS_XML_PARTS_H

#include "ingest/package_int.h"

#include <string.h>

enum { XML_PARTS_MAX = 6 };

typedef struct xml_kind {
    lore_status (*clean_it)(lore_builder *builder, const lore_package *package, lore_error *err);
    const char *parts[XML_PARTS_MAX]; /* names, NULL behind the last */
    const char *mimetype;             /* a part by which the format is known; NULL: by names */
} xml_kind;

static const xml_kind XML_KINDS[] = {
    {lore_clean_docx,
     {"word/document.xml", "word/styles.xml", "word/numbering.xml", "word/footnotes.xml",
      "word/endnotes.xml"},
     NULL},
    {lore_clean_pptx,
     {"ppt/presentation.xml", "ppt/_rels/presentation.xml.rels", "ppt/slides/s.xml",
      "ppt/slides/_rels/s.xml.rels", "ppt/notesSlides/n.xml"},
     NULL},
    {lore_clean_xlsx,
     {"xl/workbook.xml", "xl/_rels/workbook.xml.rels", "xl/worksheets/s.xml",
      "xl/sharedStrings.xml", "xl/styles.xml"},
     NULL},
    {lore_clean_odf, {"content.xml"}, "application/vnd.oasis.opendocument.text"},
    {lore_clean_epub,
     {"a.opf", "META-INF/container.xml", "b.xhtml", "c/d.xhtml"},
     "application/epub+zip"}};

/* The parts as slices of xml, which begins behind the first byte. Gives how many. */
static inline size_t xml_cut(const xml_kind *kind, lore_str xml, lore_part parts[XML_PARTS_MAX])
{
    size_t count = 0;
    for (size_t at = 0; at <= xml.len && count < XML_PARTS_MAX && kind->parts[count] != NULL;) {
        const char *nul = at < xml.len ? memchr(xml.ptr + at, '\0', xml.len - at) : NULL;
        size_t end = nul == NULL ? xml.len : (size_t)(nul - xml.ptr);
        parts[count] = (lore_part){lore_str_from(kind->parts[count]), at, end};
        count++;
        at = end + 1;
    }
    return count;
}

static inline const xml_kind *xml_kind_of(uint8_t first)
{
    return &XML_KINDS[first % (sizeof XML_KINDS / sizeof XML_KINDS[0])];
}

#endif
