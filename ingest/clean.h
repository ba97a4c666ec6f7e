/* Clean: the bytes of a document to normalised text with sections and a way back to the source.
 *
 * The cleaned text is UTF-8 in NFC, one block per line: a paragraph, heading, list item ("- ...",
 * "1. ..."), table row ("a | b | c") or line of code. Blocks are separated by one '\n',
 * soft-wrapped lines of the source are joined, and there are no blank lines, control characters or
 * invisible marks. Thread: any, no state; results live in the caller's arena. */
#ifndef LORE_INGEST_CLEAN_H
#define LORE_INGEST_CLEAN_H

#include "base/config.h"
#include "index/store.h"

/* A found title longer than this is no title; a given one is refused. */
enum { LORE_TITLE_BYTES_MAX = 512 };

typedef enum lore_media {
    LORE_MEDIA_AUTO = 0, /* by content, and by name where that cannot tell */
    LORE_MEDIA_TEXT,
    LORE_MEDIA_MARKDOWN,
    LORE_MEDIA_HTML,
    LORE_MEDIA_CSV, /* with any separator */
    LORE_MEDIA_TSV,
    LORE_MEDIA_JSON, /* any value, as lines of text */
    LORE_MEDIA_RST,  /* reStructuredText */
    LORE_MEDIA_ASCIIDOC,
    LORE_MEDIA_CODE, /* source code of any language */
    LORE_MEDIA_DOCX,
    LORE_MEDIA_PPTX,
    LORE_MEDIA_XLSX,
    LORE_MEDIA_ODF, /* OpenDocument of any kind */
    LORE_MEDIA_EPUB,
    LORE_MEDIA_PDF,
    /* These hold documents and are none themselves; source.h opens them. */
    LORE_MEDIA_JSONL,
    LORE_MEDIA_ARCHIVE, /* ZIP, tar, tar.gz */
    LORE_MEDIA_MAIL,    /* one message */
    LORE_MEDIA_MBOX,
    LORE_MEDIA_COUNT
} lore_media;

/* AUTO: nothing we can read (binary, unknown). Binary formats are known by their content whatever
 * the name, texts by name first; bytes may be empty or only the beginning of the content. */
lore_media lore_media_of(lore_str name, lore_str bytes);
/* "text/plain", "text/markdown" ...; AUTO: "application/octet-stream". */
const char *lore_media_name(lore_media media);
/* The other way round; AUTO for what is none of ours. */
lore_media lore_media_named(lore_str name);
/* Does it hold documents instead of being one? */
bool lore_media_is_container(lore_media media);

/* One document, however it came. All strings are borrowed. */
typedef struct lore_raw_document {
    lore_str id;     /* empty: made from the source, else the url, else the bytes */
    lore_str source; /* path as walked, or URL, or "" */
    lore_str title;  /* empty: found in the text */
    lore_str url;
    lore_str metadata; /* JSON object text or empty */
    lore_media media;
    lore_str bytes;      /* as read, any encoding */
    lore_str validators; /* of a page of the web, lines ETag and Last-Modified; "" none */
    bool is_unchanged;   /* the web server says so; there are no bytes then */
} lore_raw_document;

typedef struct lore_section {
    size_t start, end; /* bytes of text; sections follow one another without holes */
    lore_str heading;  /* path "Reset > Factory reset", without the document's title; "" for the
                          part before the first */
} lore_section;

typedef struct lore_clean_document {
    lore_str
        title; /* never longer than LORE_TITLE_BYTES_MAX; "" only where nothing could be found */
    lore_str author, date; /* as the document says of itself; "" where it does not */
    lore_str language;     /* likewise, else as the text shows: "en", "zh-Hant"; "" cannot tell */
    lore_str text;
    lore_section *sections;
    int32_t section_count;
    lore_offset_run *runs; /* text offset -> offset in `bytes` as decoded to UTF-8, without BOM; of
                              a packed document, in its parts as unpacked one after another; of a
                              PDF, the number of the page */
    int32_t run_count;
} lore_clean_document;

/* Asked between pieces of work, many times a second; true ends it with LORE_ERR_CANCELLED. Callers
 * pass NULL where nothing may. */
typedef struct lore_interrupt {
    bool (*is_wanted)(void *self);
    void *self;
} lore_interrupt;
static inline bool lore_is_interrupted(const lore_interrupt *interrupt)
{
    return interrupt != NULL && interrupt->is_wanted(interrupt->self);
}

/* Everything in the arena, except that nothing of raw is copied that does not change. A document
 * without any text is legal and gives an empty text. LORE_ERR_INVALID (binary, undecodable, a media
 * type that cannot be told), LORE_ERR_LIMIT, LORE_ERR_NOMEM, LORE_ERR_CANCELLED; the message says
 * why. */
LORE_MUST_USE lore_status lore_clean(const lore_raw_document *raw, const lore_limits *limits,
                                     const lore_interrupt *interrupt, lore_arena *arena,
                                     lore_clean_document *clean, lore_error *err);

#endif
