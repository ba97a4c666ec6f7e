/* PDF: pdftotext (poppler) reads it, in a process of its own, for it is a large program that parses
 * hostile bytes; what can go wrong with it is named here. Its output is taken in while it runs. */
#include "ingest/child_int.h"
#include "ingest/pdf_int.h"

#include <string.h>

enum {
    OUTPUT_PER_TEXT = 64, /* bytes it writes around one byte of text, at worst */
    BYTES_PER_SHARE = 1024 * 1024,
    NOT_OPENED = 1 /* its exit status */
};

/* Why there is no text; end says how it ended. */
static lore_status name_failure(const lore_child_end *end, const lore_limits *limits,
                                lore_error *err)
{
    if (strstr(end->message, "password") != NULL) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "is a PDF with a password: save it without one");
    }
    if (end->signal != 0 || strstr(end->message, "memory") != NULL) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "is a PDF that pdftotext dies of (signal %d; it may use %lld bytes, "
                         "limits.pdf_memory_bytes_max)",
                         end->signal, (long long)limits->pdf_memory_bytes_max);
    }
    return lore_fail(err, LORE_ERR_INVALID, "is no PDF, or a damaged one: %s",
                     end->message[0] != '\0' ? end->message : "pdftotext does not say why");
}

static lore_status run_reader(lore_str bytes, const lore_limits *limits,
                              const lore_interrupt *interrupt, lore_pdf_reader *reader,
                              lore_error *err)
{
    static const char *const arguments[] = {"-bbox", "-", "-", NULL};
    lore_child_end end;
    int64_t shares = 1 + (int64_t)(bytes.len / BYTES_PER_SHARE);
    const lore_child_options options = {.program = "pdftotext",
                                        .arguments = arguments,
                                        .input = bytes,
                                        .memory_bytes_max = (size_t)limits->pdf_memory_bytes_max,
                                        .output_bytes_max =
                                            (size_t)limits->document_bytes_max * OUTPUT_PER_TEXT,
                                        .ms_max = limits->pdf_ms_max * shares,
                                        .interrupt = interrupt,
                                        .take = lore_pdf_reader_feed,
                                        .self = reader};
    lore_status status = lore_child_run(&options, &end, err);
    if (status == LORE_ERR_NOT_FOUND) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "is a PDF, and pdftotext is not installed: install poppler-utils (Debian, "
                         "Ubuntu, Fedora) or poppler (Arch, Alpine: poppler-utils)");
    }
    if (status != LORE_OK) {
        return lore_error_prefix(err, "is a PDF that cannot be read");
    }
    if (end.is_stopped) {
        return lore_fail(err, reader->status, "%s", reader->error.message);
    }
    return end.exit_status != 0 || end.signal != 0 || !reader->is_whole
               ? name_failure(&end, limits, err)
               : LORE_OK;
}

/* Writers of PDF put the name of the file, or nothing, where a title should be. */
static lore_str title_of(lore_str title)
{
    static const char *const prefixes[] = {"Microsoft Word - ", "Microsoft PowerPoint - ",
                                           "Microsoft Excel - "};
    static const char *const endings[] = {".doc",  ".docx", ".ppt", ".pptx", ".xls", ".xlsx",
                                          ".indd", ".tex",  ".dvi", ".pdf",  ".odt", ".qxd"};
    const lore_str none = {"", 0};
    title = lore_str_trim(title);
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        lore_str prefix = lore_str_from(prefixes[i]);
        title =
            lore_str_starts(title, prefix) ? lore_str_slice(title, prefix.len, title.len) : title;
    }
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t size = strlen(endings[i]);
        if (title.len >= size &&
            lore_str_equal_nocase(lore_str_slice(title, title.len - size, title.len),
                                  lore_str_from(endings[i]))) {
            return none;
        }
    }
    lore_str start = lore_str_slice(title, 0, title.len < 8 ? title.len : 8);
    return lore_str_equal_nocase(start, LORE_STR("untitled")) ? none : title;
}

lore_status lore_pdf_read(lore_str bytes, const lore_limits *limits,
                          const lore_interrupt *interrupt, lore_arena *arena, lore_pdf_lines *lines,
                          lore_clean_document *about, lore_error *err)
{
    lore_pdf_reader reader;
    lore_pdf_reader_init(&reader, arena);
    lore_status status = run_reader(bytes, limits, interrupt, &reader, err);
    if (status == LORE_OK && reader.lines.count == 0) {
        status = lore_fail(err, LORE_ERR_UNSUPPORTED,
                           "has %d pages and no text: recognising text in pictures (OCR) is not "
                           "part of this program",
                           reader.lines.pages);
    }
    if (status == LORE_OK) {
        about->title = title_of(reader.title);
        about->author = lore_str_trim(reader.author);
        about->date = lore_str_trim(reader.date);
        *lines = reader.lines;
        reader.lines.items = NULL; /* now the caller's */
    }
    lore_pdf_reader_destroy(&reader);
    return status;
}
