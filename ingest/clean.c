/* Clean: which parser reads a document, and what all formats share before and after it.
 *
 * Decode, take front matter off, parse into a builder, give a title to what has none. */
#include "ingest/package_int.h"
#include "ingest/pdf_int.h"

#include "base/utf8.h"

#include <string.h>

/* ---- titles ---- */

/* One normalised line of text. LORE_ERR_NOMEM or LORE_ERR_LIMIT. */
static lore_status one_line(lore_str text, lore_arena *arena, lore_str *line, lore_error *err)
{
    lore_builder builder;
    lore_clean_document clean;
    lore_builder_init(&builder, text, (lore_str){"", 0}, 0, arena);
    lore_builder_piece(&builder, text, 0);
    lore_status status = lore_builder_finish(&builder, (lore_str){"", 0}, &clean, err);
    lore_builder_destroy(&builder);
    if (status == LORE_OK) {
        *line = clean.text;
    }
    return status;
}

static lore_status given_title(lore_str title, lore_arena *arena, lore_str *line, lore_error *err)
{
    *line = (lore_str){"", 0};
    if (title.len == 0) {
        return LORE_OK;
    }
    if (lore_utf8_valid(title) != title.len) {
        return lore_fail(err, LORE_ERR_INVALID, "the title is not valid UTF-8");
    }
    if (title.len > LORE_TITLE_BYTES_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "the title has %zu bytes, over %d", title.len,
                         LORE_TITLE_BYTES_MAX);
    }
    return one_line(title, arena, line, err);
}

/* "kb/Track-your-order.md" reads "Track your order". */
static lore_status title_of_name(lore_str source, lore_arena *arena, lore_str *line,
                                 lore_error *err)
{
    size_t start = source.len;
    while (start > 0 && source.ptr[start - 1] != '/') {
        start--;
    }
    lore_str name = lore_str_slice(source, start, source.len);
    *line = (lore_str){"", 0};
    if (lore_is_url(source) && memchr(source.ptr, '#', source.len) == NULL) {
        name = lore_url_name(source, arena);
        if (name.ptr == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a title");
        }
    }
    /* "all.zip#a.md" is called by what stands behind the last mark, and a number names nothing. */
    const char *first = memchr(name.ptr, '#', name.len), *last = memrchr(name.ptr, '#', name.len);
    lore_str holder = {name.ptr, first == NULL ? 0 : (size_t)(first - name.ptr)};
    lore_media media = lore_media_of(holder, (lore_str){"", 0});
    if (first != NULL && (lore_media_is_container(media) || media == LORE_MEDIA_JSON)) {
        int64_t number = 0;
        name = lore_str_slice(name, (size_t)(last - name.ptr) + 1, name.len);
        if (lore_str_to_int64(name, &number)) {
            return LORE_OK;
        }
    }
    lore_str extension = lore_media_extension(name);
    if (extension.len > 0 && lore_media_of(name, (lore_str){"", 0}) != LORE_MEDIA_AUTO) {
        name.len -=
            lore_media_of(name, (lore_str){"", 0}) == LORE_MEDIA_CODE ? 0 : extension.len + 1;
    }
    if (name.len == 0 || name.len > LORE_TITLE_BYTES_MAX || lore_utf8_valid(name) != name.len) {
        return LORE_OK;
    }
    lore_str copy = lore_str_copy(arena, name);
    if (copy.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a title");
    }
    const bool is_code = lore_media_of(name, (lore_str){"", 0}) == LORE_MEDIA_CODE;
    for (size_t i = 0; i < copy.len && !is_code; i++) {
        char *c = (char *)copy.ptr + i; /* ours, just made */
        *c = *c == '-' || *c == '_' ? ' ' : *c;
    }
    return one_line(copy, arena, line, err);
}

/* ---- clean ---- */

/* A document before its parser. */
typedef struct opened {
    lore_package package; /* its source is what any parser reads */
    lore_pdf_lines pdf;
    size_t from;               /* where the text begins in the source */
    lore_clean_document about; /* what the document says of itself */
} opened;

static lore_status parse(lore_builder *builder, lore_media media, lore_str name, opened *document,
                         const lore_limits *limits, lore_error *err)
{
    const lore_package *package = &document->package;
    size_t from = document->from;
    switch (media) {
    case LORE_MEDIA_MARKDOWN:
        return lore_clean_markdown(builder, from, err);
    case LORE_MEDIA_HTML:
        return lore_clean_html(builder, from, limits, err);
    case LORE_MEDIA_CSV:
    case LORE_MEDIA_TSV:
        return lore_clean_table(builder, media, err);
    case LORE_MEDIA_JSON:
        return lore_clean_json(builder, limits, err);
    case LORE_MEDIA_RST:
        return lore_clean_rst(builder, err);
    case LORE_MEDIA_ASCIIDOC:
        return lore_clean_asciidoc(builder, err);
    case LORE_MEDIA_CODE:
        return lore_clean_code(builder, name, err);
    case LORE_MEDIA_DOCX:
        return lore_clean_docx(builder, package, err);
    case LORE_MEDIA_PPTX:
        return lore_clean_pptx(builder, package, err);
    case LORE_MEDIA_XLSX:
        return lore_clean_xlsx(builder, package, err);
    case LORE_MEDIA_ODF:
        return lore_clean_odf(builder, package, err);
    case LORE_MEDIA_EPUB:
        return lore_clean_epub(builder, package, err);
    case LORE_MEDIA_PDF:
        return lore_pdf_write(&document->pdf, builder, err);
    default:
        return lore_clean_text(builder, from, err);
    }
}

/* Unpack, and ask the document who it is. */
static lore_status unpack(const lore_raw_document *raw, lore_media media, lore_package *package,
                          const lore_limits *limits, const lore_interrupt *interrupt,
                          lore_arena *arena, lore_clean_document *about, lore_error *err)
{
    lore_status status =
        lore_package_open(raw->bytes, media, limits, interrupt, arena, package, err);
    const lore_part *part = NULL;
    if (status == LORE_OK && media == LORE_MEDIA_EPUB) {
        status = lore_epub_main(package, &part, err);
    } else if (status == LORE_OK) {
        part = lore_package_part(package, media == LORE_MEDIA_ODF ? LORE_STR("meta.xml")
                                                                  : LORE_STR("docProps/core.xml"));
    }
    return status == LORE_OK ? lore_package_about(package, part, about, err) : status;
}

/* Its source is a blank for each page, so that an offset can be a page. */
static lore_status open_pdf(const lore_raw_document *raw, const lore_limits *limits,
                            const lore_interrupt *interrupt, lore_arena *arena, opened *document,
                            lore_error *err)
{
    lore_status status =
        lore_pdf_read(raw->bytes, limits, interrupt, arena, &document->pdf, &document->about, err);
    size_t pages = (size_t)document->pdf.pages + 1;
    char *blanks = status == LORE_OK ? lore_arena_push(arena, pages) : NULL;
    if (status == LORE_OK && blanks == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for %zu pages", pages);
    }
    if (status == LORE_OK) {
        memset(blanks, ' ', pages);
        document->package.source = (lore_str){blanks, pages};
    }
    return status;
}

/* Before the parser: the text it reads, where that begins, and the title as the document gives it.
 */
static lore_status open_text(const lore_raw_document *raw, lore_media media,
                             const lore_limits *limits, const lore_interrupt *interrupt,
                             lore_arena *arena, opened *document, lore_error *err)
{
    lore_package *package = &document->package;
    lore_status status = LORE_OK;
    if (lore_media_is_packed(media)) {
        status = unpack(raw, media, package, limits, interrupt, arena, &document->about, err);
    } else if (media == LORE_MEDIA_PDF) {
        status = open_pdf(raw, limits, interrupt, arena, document, err);
    } else {
        status = lore_decode(raw->bytes, media, arena, &package->source, err);
    }
    if (status == LORE_OK && package->source.len > INT32_MAX) {
        status = lore_fail(err, LORE_ERR_LIMIT, "has %zu bytes once decoded", package->source.len);
    }
    if (status == LORE_OK && (media == LORE_MEDIA_MARKDOWN || media == LORE_MEDIA_HTML)) {
        document->from = lore_front_matter(package->source, &document->about.title);
    }
    return status;
}

/* An empty string may come without a pointer; memory functions want one all the same. */
static lore_str not_null(lore_str s)
{
    return s.ptr == NULL ? (lore_str){"", 0} : s;
}

lore_status lore_clean(const lore_raw_document *given, const lore_limits *limits,
                       const lore_interrupt *interrupt, lore_arena *arena,
                       lore_clean_document *clean, lore_error *err)
{
    lore_raw_document copy = *given;
    const lore_raw_document *raw = &copy;
    copy.source = not_null(given->source);
    copy.bytes = not_null(given->bytes);
    lore_media media =
        raw->media != LORE_MEDIA_AUTO ? raw->media : lore_media_of(raw->source, raw->bytes);
    if (raw->bytes.len > 0 && (media == LORE_MEDIA_AUTO || lore_media_is_container(media))) {
        const char *reason = lore_foreign_reason(raw->bytes);
        return lore_fail(err, LORE_ERR_INVALID, "%s",
                         reason != NULL ? reason : "is no document of a known format");
    }
    if (raw->bytes.len > (size_t)limits->file_bytes_max || raw->bytes.len > INT32_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "has %zu bytes, over %lld (limits.file_bytes_max)",
                         raw->bytes.len, (long long)limits->file_bytes_max);
    }
    const lore_str none = {"", 0};
    lore_str title, fallback;
    opened document = {.package = {.source = none},
                       .about = {.title = none, .author = none, .date = none, .language = none}};
    const lore_clean_document *about = &document.about;
    lore_status status = given_title(raw->title, arena, &title, err);
    if (status == LORE_OK) {
        status = title_of_name(raw->source, arena, &fallback, err);
    }
    if (status == LORE_OK) {
        status = open_text(raw, media, limits, interrupt, arena, &document, err);
    }
    if (status == LORE_OK && title.len == 0 && about->title.len > 0 &&
        about->title.len <= LORE_TITLE_BYTES_MAX) {
        status = one_line(about->title, arena, &title, err);
    }
    if (status != LORE_OK) {
        goto out;
    }
    lore_builder builder;
    lore_builder_init(&builder, document.package.source, title, (size_t)limits->document_bytes_max,
                      arena);
    builder.interrupt = interrupt;
    status = parse(&builder, media, raw->source, &document, limits, err);
    if (status == LORE_OK) {
        status = lore_builder_finish(&builder, fallback, clean, err);
    }
    lore_builder_destroy(&builder);
    if (status == LORE_OK) {
        clean->author = about->author;
        clean->date = about->date;
        clean->language = about->language;
    }
    if (status == LORE_OK && clean->language.len == 0) {
        status = lore_language_of(clean->text, arena, &clean->language, err);
    }
out:
    lore_free(document.pdf.items);
    return status;
}
