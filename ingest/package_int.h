/* Inside ingest/: formats that are packed (Office, EPUB), and what they are made of.
 *
 * A packed document is a ZIP file of parts, most of them XML. The parts that hold text are unpacked
 * one after another into one string, and that is the source that the runs of such a document lead
 * to. Everything here reads bytes of strangers: what is unpacked is bounded by
 * limits.file_bytes_max a part and by the arena in all, nesting by limits.markup_depth_max, and XML
 * that declares entities is refused. */
#ifndef LORE_INGEST_PACKAGE_INT_H
#define LORE_INGEST_PACKAGE_INT_H

#include "ingest/ingest_int.h"

/* ---- archive.c: the fence of libarchive ---- */

typedef struct lore_archive lore_archive;

/* bytes are borrowed until the close. ZIP, tar, and what gzip, bzip2 or xz made of a tar or of any
 * other file; LORE_ERR_INVALID for anything else, there or from lore_archive_next. */
LORE_MUST_USE lore_status lore_archive_open(lore_str bytes, uint64_t unpacked_max,
                                            lore_archive **archive, lore_error *err);
/* The next regular file; *name in the arena, valid UTF-8. An encrypted or damaged member is told by
 * lore_archive_read, and the next call goes on. A failure here is told once and ends the archive:
 * LORE_ERR_INVALID, LORE_ERR_LIMIT when more than unpacked_max was unpacked or passed over. */
LORE_MUST_USE lore_status lore_archive_next(lore_archive *archive, lore_arena *arena,
                                            lore_str *name, bool *done, lore_error *err);
/* Is it one compressed file, whose name is not in it? Known after the first lore_archive_next. */
bool lore_archive_is_single(const lore_archive *archive);
/* The content of the member, appended. LORE_ERR_LIMIT beyond bytes_max. */
LORE_MUST_USE lore_status lore_archive_read(lore_archive *archive, size_t bytes_max, lore_buf *out,
                                            lore_error *err);
/* Bytes unpacked so far, those passed over included. */
uint64_t lore_archive_unpacked(const lore_archive *archive);
void lore_archive_close(lore_archive *archive);

/* ---- xml.c: the fence of expat ---- */

/* name is without its prefix, attributes come in pairs of name and value, NULL behind the last.
 * source: offset of the event. Any may be NULL. */
typedef struct lore_xml_handler {
    void *self;
    void (*start)(void *self, lore_str name, const char *const *attributes, size_t source);
    void (*end)(void *self, lore_str name, size_t source);
    void (*text)(void *self, lore_str text, size_t source);
    bool (*is_full)(void *self); /* true ends the parse, with LORE_OK */
} lore_xml_handler;

/* Parse source[from, to). `name` is for messages. LORE_ERR_INVALID, LORE_ERR_LIMIT,
 * LORE_ERR_NOMEM, LORE_ERR_CANCELLED. */
LORE_MUST_USE lore_status lore_xml_parse(lore_str source, size_t from, size_t to, lore_str name,
                                         const lore_xml_handler *handler, const lore_limits *limits,
                                         const lore_interrupt *interrupt, lore_error *err);
/* Of the attributes: the one of this name, whatever its prefix; "" where there is none. */
lore_str lore_xml_attribute(const char *const *attributes, const char *name);

/* ---- package.c: parts ---- */

typedef struct lore_part {
    lore_str name;
    size_t start, end; /* in the package's source; chapters of a book are UTF-8 */
} lore_part;

typedef struct lore_package {
    lore_str source;
    lore_part *parts;
    size_t part_count;
    const lore_limits *limits;
    const lore_interrupt *interrupt;
    lore_arena *arena;
} lore_package;

/* What a ZIP file is, by the names in it: one of the packed formats, else LORE_MEDIA_ARCHIVE. */
lore_media lore_package_media(lore_str bytes);
/* Is it read with lore_package_open? */
bool lore_media_is_packed(lore_media media);
/* Unpack the parts that the format needs. */
LORE_MUST_USE lore_status lore_package_open(lore_str bytes, lore_media media,
                                            const lore_limits *limits,
                                            const lore_interrupt *interrupt, lore_arena *arena,
                                            lore_package *package, lore_error *err);
/* NULL where there is none; the case of letters does not matter. */
const lore_part *lore_package_part(const lore_package *package, lore_str name);
/* Parse a part. */
LORE_MUST_USE lore_status lore_package_xml(const lore_package *package, const lore_part *part,
                                           const lore_xml_handler *handler, lore_error *err);
/* "../media/x.xml" as written in `base` to the name of a part; ptr NULL: out of memory. */
lore_str lore_package_resolve(lore_str base, lore_str target, lore_arena *arena);

typedef struct lore_relation {
    lore_str id, type, target; /* type: behind the last '/'; target: the name of a part */
} lore_relation;
/* What the part named `base` ("" the package) refers to. No relations are no error. */
LORE_MUST_USE lore_status lore_package_relations(const lore_package *package, lore_str base,
                                                 lore_relation **relations, size_t *count,
                                                 lore_error *err);
/* The main part of an Office document, NULL where there is none. */
LORE_MUST_USE lore_status lore_package_main(const lore_package *package, lore_str fallback,
                                            const lore_part **part, lore_error *err);
/* Of a book: the package document, and it has one. */
LORE_MUST_USE lore_status lore_epub_main(const lore_package *package, const lore_part **part,
                                         lore_error *err);
/* Title, author, date and language out of a part with Dublin Core elements; NULL is none. */
LORE_MUST_USE lore_status lore_package_about(const lore_package *package, const lore_part *part,
                                             lore_clean_document *about, lore_error *err);

/* ---- the formats; about is filled in ---- */

LORE_MUST_USE lore_status lore_clean_docx(lore_builder *builder, const lore_package *package,
                                          lore_error *err);
LORE_MUST_USE lore_status lore_clean_pptx(lore_builder *builder, const lore_package *package,
                                          lore_error *err);
LORE_MUST_USE lore_status lore_clean_xlsx(lore_builder *builder, const lore_package *package,
                                          lore_error *err);
LORE_MUST_USE lore_status lore_clean_odf(lore_builder *builder, const lore_package *package,
                                         lore_error *err);
LORE_MUST_USE lore_status lore_clean_epub(lore_builder *builder, const lore_package *package,
                                          lore_error *err);

#endif
