/* Media: what a document is, by its content, and by its name where content cannot tell.
 *
 * Binary formats have signatures and are known whatever their name. Texts are told by name first (a
 * Markdown file may hold nothing but words), then by looks. */
#include "ingest/markup_int.h"
#include "ingest/package_int.h"

#include <stdio.h>
#include <string.h>

enum { SNIFF_BYTES = 4096 };

/* ---- media ---- */

lore_str lore_media_extension(lore_str name)
{
    for (size_t i = name.len; i > 0 && name.ptr[i - 1] != '/'; i--) {
        if (name.ptr[i - 1] == '.') {
            bool is_hidden = i == 1 || name.ptr[i - 2] == '/';
            return is_hidden ? (lore_str){"", 0} : lore_str_slice(name, i, name.len);
        }
    }
    return (lore_str){"", 0};
}

static const struct {
    const char *extension;
    lore_media media;
} EXTENSIONS[] = {{"md", LORE_MEDIA_MARKDOWN},    {"markdown", LORE_MEDIA_MARKDOWN},
                  {"mdown", LORE_MEDIA_MARKDOWN}, {"mdx", LORE_MEDIA_MARKDOWN},
                  {"mkd", LORE_MEDIA_MARKDOWN},   {"html", LORE_MEDIA_HTML},
                  {"htm", LORE_MEDIA_HTML},       {"xhtml", LORE_MEDIA_HTML},
                  {"txt", LORE_MEDIA_TEXT},       {"text", LORE_MEDIA_TEXT},
                  {"rst", LORE_MEDIA_RST},        {"adoc", LORE_MEDIA_ASCIIDOC},
                  {"asc", LORE_MEDIA_TEXT},       {"jsonl", LORE_MEDIA_JSONL},
                  {"ndjson", LORE_MEDIA_JSONL},   {"csv", LORE_MEDIA_CSV},
                  {"tsv", LORE_MEDIA_TSV},        {"json", LORE_MEDIA_JSON},
                  {"eml", LORE_MEDIA_MAIL},       {"mbox", LORE_MEDIA_MBOX},
                  {"docx", LORE_MEDIA_DOCX},      {"docm", LORE_MEDIA_DOCX},
                  {"pptx", LORE_MEDIA_PPTX},      {"pptm", LORE_MEDIA_PPTX},
                  {"xlsx", LORE_MEDIA_XLSX},      {"xlsm", LORE_MEDIA_XLSX},
                  {"odt", LORE_MEDIA_ODF},        {"ods", LORE_MEDIA_ODF},
                  {"odp", LORE_MEDIA_ODF},        {"epub", LORE_MEDIA_EPUB},
                  {"zip", LORE_MEDIA_ARCHIVE},    {"tar", LORE_MEDIA_ARCHIVE},
                  {"tgz", LORE_MEDIA_ARCHIVE},    {"gz", LORE_MEDIA_ARCHIVE},
                  {"bz2", LORE_MEDIA_ARCHIVE},    {"xz", LORE_MEDIA_ARCHIVE},
                  {"tbz2", LORE_MEDIA_ARCHIVE},   {"txz", LORE_MEDIA_ARCHIVE},
                  {"rest", LORE_MEDIA_RST},       {"asciidoc", LORE_MEDIA_ASCIIDOC},
                  {"ad", LORE_MEDIA_ASCIIDOC},    {"pdf", LORE_MEDIA_PDF}};

/* Of files that are source code. */
static const char CODE_EXTENSIONS[] =
    " c h cc cpp cxx hh hpp hxx m mm cs java kt kts scala groovy go rs swift js jsx mjs cjs ts tsx "
    "php dart zig v py pyi rb lua sh bash zsh sql proto css scss cu cuh ";

static lore_media media_by_name(lore_str name)
{
    lore_str extension = lore_media_extension(name);
    for (size_t i = 0; i < sizeof EXTENSIONS / sizeof EXTENSIONS[0]; i++) {
        if (lore_str_equal_nocase(extension, lore_str_from(EXTENSIONS[i].extension))) {
            return EXTENSIONS[i].media;
        }
    }
    char padded[16];
    if (extension.len == 0 || extension.len + 3 > sizeof padded) {
        return LORE_MEDIA_AUTO;
    }
    snprintf(padded, sizeof padded, " " LORE_STR_FMT " ", LORE_STR_ARG(extension));
    for (size_t i = 0; i < extension.len + 2; i++) {
        padded[i] = (char)(padded[i] >= 'A' && padded[i] <= 'Z' ? padded[i] | 32 : padded[i]);
    }
    return strstr(CODE_EXTENSIONS, padded) != NULL ? LORE_MEDIA_CODE : LORE_MEDIA_AUTO;
}

/* Formats that begin with bytes of their own; AUTO where there are none. */
static lore_media media_by_signature(lore_str bytes)
{
    enum { USTAR_AT = 257 };
    bool is_zip = lore_str_starts(bytes, LORE_STR("PK\x03\x04")) ||
                  lore_str_starts(bytes, LORE_STR("PK\x05\x06"));
    if (is_zip) {
        return lore_package_media(bytes);
    }
    if (lore_str_starts(bytes, LORE_STR("%PDF-"))) {
        return LORE_MEDIA_PDF;
    }
    bool is_archive = (bytes.len > USTAR_AT + 5 && memcmp(bytes.ptr + USTAR_AT, "ustar", 5) == 0) ||
                      lore_str_starts(bytes, LORE_STR("\x1F\x8B\x08")) || /* gzip */
                      lore_str_starts(bytes, LORE_STR("\xFD"
                                                      "7zXZ\x00")) || /* xz */
                      (bytes.len > 10 && memcmp(bytes.ptr, "BZh", 3) == 0 &&
                       memcmp(bytes.ptr + 4, "1AY&SY", 6) == 0);
    return is_archive ? LORE_MEDIA_ARCHIVE : LORE_MEDIA_AUTO;
}

static bool is_header_name(lore_str name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_letter && c != '-' && !(c >= '0' && c <= '9' && i > 0)) {
            return false;
        }
    }
    return name.len > 0;
}

/* A block of header fields, at least three of which only mail has. */
static bool looks_like_mail(lore_str head)
{
    static const char *const names[] = {"From",         "To",       "Date",         "Subject",
                                        "Message-ID",   "Received", "MIME-Version", "Return-Path",
                                        "Delivered-To", "Reply-To", "Content-Type"};
    int32_t known = 0;
    lore_str rest = head, line;
    while (lore_str_next_line(&rest, &line) && line.len > 0) {
        const char *colon = memchr(line.ptr, ':', line.len);
        if (line.ptr[0] == ' ' || line.ptr[0] == '\t') {
            continue;
        }
        lore_str name = {line.ptr, colon == NULL ? 0 : (size_t)(colon - line.ptr)};
        if (!is_header_name(name)) {
            return known >= 3 && rest.len == 0; /* cut off in the middle of a line */
        }
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            known += lore_str_equal_nocase(name, lore_str_from(names[i])) ? 1 : 0;
        }
    }
    return known >= 3;
}

/* "From somebody Sat Jan  3 01:05:34 1996", and then a message. */
static bool looks_like_mbox(lore_str head)
{
    lore_str line;
    return lore_str_starts(head, LORE_STR("From ")) && lore_str_next_line(&head, &line) &&
           looks_like_mail(head);
}

static bool looks_like_json(lore_str head)
{
    head = lore_str_trim(head);
    lore_str inner = head.len > 1 ? lore_str_trim(lore_str_slice(head, 1, head.len)) : head;
    return head.len > 1 && inner.len > 0 &&
           ((head.ptr[0] == '{' && inner.ptr[0] == '"') ||
            (head.ptr[0] == '[' && inner.ptr[0] == '{'));
}

/* Beginnings that only HTML has. */
static bool looks_like_html(lore_str head)
{
    static const char *const tags[] = {"html", "!doctype html", "head", "body", "title", "meta"};
    for (size_t at = lore_str_find(head, LORE_STR("<"), 0); at != SIZE_MAX;
         at = lore_str_find(head, LORE_STR("<"), at + 1)) {
        for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
            size_t size = strlen(tags[i]);
            if (head.len - at > size + 1 && strchr(" \t\r\n>", head.ptr[at + 1 + size]) != NULL &&
                lore_str_equal_nocase(lore_str_slice(head, at + 1, at + 1 + size),
                                      lore_str_from(tags[i]))) {
                return true;
            }
        }
    }
    return false;
}

/* Two different signs of Markdown, for one of them happens in any text. */
static bool looks_like_markdown(lore_str head)
{
    bool has_heading = false, has_fence = false, has_strong = false;
    bool has_link = lore_str_find(head, LORE_STR("](http"), 0) != SIZE_MAX;
    lore_str rest = head, line;
    while (lore_str_next_line(&rest, &line)) {
        has_heading = has_heading || lore_str_starts(line, LORE_STR("# ")) ||
                      lore_str_starts(line, LORE_STR("## "));
        has_fence = has_fence || lore_str_starts(line, LORE_STR("```"));
        has_strong = has_strong || lore_str_starts(line, LORE_STR("**"));
    }
    lore_str title;
    return (has_heading ? 1 : 0) + (has_fence ? 1 : 0) + (has_strong ? 1 : 0) +
                   (has_link ? 1 : 0) >=
               2 ||
           lore_front_matter(head, &title) > 0;
}

/* Directives, roles and underlined titles: two kinds of them, for one happens in any text. */
static bool looks_like_rst(lore_str head)
{
    bool has_directive = false, has_rule = false;
    bool has_role = lore_str_find(head, LORE_STR(":ref:`"), 0) != SIZE_MAX ||
                    lore_str_find(head, LORE_STR(":doc:`"), 0) != SIZE_MAX ||
                    lore_str_find(head, LORE_STR("`_"), 0) != SIZE_MAX;
    lore_str rest = head, line, before = {"", 0};
    while (lore_str_next_line(&rest, &line)) {
        size_t colons = lore_str_find(line, LORE_STR("::"), 0);
        has_directive = has_directive || (lore_str_starts(line, LORE_STR(".. ")) &&
                                          (colons != SIZE_MAX || line.ptr[3] == '_'));
        char rule = line.len >= 4 ? lore_line_rule(line, "=-~^*", 4) : 0;
        has_rule = has_rule || (rule != 0 && before.len > 0 && before.len <= line.len);
        before = line;
    }
    return (has_directive ? 1 : 0) + (has_role ? 1 : 0) + (has_rule ? 1 : 0) >= 2;
}

/* A title and what no other format has. */
static bool looks_like_asciidoc(lore_str head)
{
    bool has_title = lore_str_starts(head, LORE_STR("= ")), has_section = false, has_sign = false;
    lore_str rest = head, line;
    while (lore_str_next_line(&rest, &line)) {
        has_section = has_section || lore_str_starts(line, LORE_STR("== "));
        has_sign = has_sign || lore_str_starts(line, LORE_STR("[source")) ||
                   lore_str_starts(line, LORE_STR("|===")) ||
                   lore_str_starts(line, LORE_STR(":toc:")) ||
                   lore_str_starts(line, LORE_STR("include::"));
    }
    return (has_title ? 1 : 0) + (has_section ? 1 : 0) + (has_sign ? 1 : 0) >= 2;
}

lore_media lore_media_of(lore_str name, lore_str bytes)
{
    lore_media media = media_by_name(name);
    if (bytes.len == 0) {
        return media;
    }
    if (lore_foreign_reason(bytes) != NULL) {
        return LORE_MEDIA_AUTO;
    }
    lore_media signature = media_by_signature(bytes);
    if (signature != LORE_MEDIA_AUTO) {
        /* A ZIP file called DOCX without a part of one is a damaged DOCX. */
        bool is_damaged = signature == LORE_MEDIA_ARCHIVE && lore_media_is_packed(media);
        return is_damaged ? media : signature;
    }
    lore_str head = lore_str_slice(bytes, 0, bytes.len < SNIFF_BYTES ? bytes.len : SNIFF_BYTES);
    if (media == LORE_MEDIA_TEXT && !lore_is_binary(head)) { /* ".txt" is any markup of text */
        return looks_like_rst(head)        ? LORE_MEDIA_RST
               : looks_like_asciidoc(head) ? LORE_MEDIA_ASCIIDOC
                                           : media;
    }
    /* What should have had a signature has to be something else. */
    if (media != LORE_MEDIA_AUTO && media != LORE_MEDIA_ARCHIVE && !lore_media_is_packed(media)) {
        return media;
    }
    bool is_wide =
        lore_str_starts(head, LORE_STR("\xFF\xFE")) || lore_str_starts(head, LORE_STR("\xFE\xFF"));
    if (is_wide) {
        return LORE_MEDIA_TEXT;
    }
    if (lore_is_binary(head)) {
        return LORE_MEDIA_AUTO;
    }
    return looks_like_mbox(head)                    ? LORE_MEDIA_MBOX
           : looks_like_mail(head)                  ? LORE_MEDIA_MAIL
           : looks_like_html(head)                  ? LORE_MEDIA_HTML
           : looks_like_json(head)                  ? LORE_MEDIA_JSON
           : lore_str_starts(head, LORE_STR("#!/")) ? LORE_MEDIA_CODE
           : looks_like_rst(head)                   ? LORE_MEDIA_RST
           : looks_like_asciidoc(head)              ? LORE_MEDIA_ASCIIDOC
           : looks_like_markdown(head)              ? LORE_MEDIA_MARKDOWN
                                                    : LORE_MEDIA_TEXT;
}

#define OFFICE "application/vnd.openxmlformats-officedocument."

static const char *const NAMES[LORE_MEDIA_COUNT] = {
    [LORE_MEDIA_AUTO] = "application/octet-stream",
    [LORE_MEDIA_TEXT] = "text/plain",
    [LORE_MEDIA_MARKDOWN] = "text/markdown",
    [LORE_MEDIA_HTML] = "text/html",
    [LORE_MEDIA_CSV] = "text/csv",
    [LORE_MEDIA_TSV] = "text/tab-separated-values",
    [LORE_MEDIA_JSON] = "text/json", /* application/json is a document as clients send it */
    [LORE_MEDIA_RST] = "text/x-rst",
    [LORE_MEDIA_ASCIIDOC] = "text/asciidoc",
    [LORE_MEDIA_CODE] = "text/x-source",
    [LORE_MEDIA_DOCX] = OFFICE "wordprocessingml.document",
    [LORE_MEDIA_PPTX] = OFFICE "presentationml.presentation",
    [LORE_MEDIA_XLSX] = OFFICE "spreadsheetml.sheet",
    [LORE_MEDIA_ODF] = "application/vnd.oasis.opendocument.text",
    [LORE_MEDIA_EPUB] = "application/epub+zip",
    [LORE_MEDIA_PDF] = "application/pdf",
    [LORE_MEDIA_JSONL] = "application/jsonl",
    [LORE_MEDIA_ARCHIVE] = "application/zip",
    [LORE_MEDIA_MAIL] = "message/rfc822",
    [LORE_MEDIA_MBOX] = "application/mbox"};

const char *lore_media_name(lore_media media)
{
    return NAMES[media];
}

lore_media lore_media_named(lore_str name)
{
    for (int i = LORE_MEDIA_AUTO + 1; i < LORE_MEDIA_COUNT; i++) {
        if (lore_str_equal_nocase(name, lore_str_from(NAMES[i]))) {
            return (lore_media)i;
        }
    }
    return LORE_MEDIA_AUTO;
}

bool lore_media_is_container(lore_media media)
{
    return media >= LORE_MEDIA_JSONL;
}
