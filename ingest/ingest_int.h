/* Inside ingest/: what the parsers and the text builder share.
 *
 * A parser walks its format and hands pieces of text, each with its place in the decoded source, to
 * a lore_builder, which does all normalising (white space, NFC, invisible characters), keeps the
 * runs that lead back, and cuts sections at headings. So every format is cleaned alike. */
#ifndef LORE_INGEST_INGEST_INT_H
#define LORE_INGEST_INGEST_INT_H

#include "ingest/clean.h"
#include "ingest/pipeline.h"

enum {
    LORE_HEADING_BYTES_MAX = 200, /* a longer "heading" is a paragraph in large print */
    LORE_HEADING_LEVELS = 6
};

/* ---- encoding.c ---- */

/* bytes to UTF-8 without BOM: borrowed where they already are, else in the arena. LORE_ERR_INVALID
 * for binary or undecodable bytes. */
LORE_MUST_USE lore_status lore_decode(lore_str bytes, lore_media media, lore_arena *arena,
                                      lore_str *text, lore_error *err);
/* As the bytes say of themselves. Strict: LORE_ERR_INVALID where they are something else,
 * LORE_ERR_UNSUPPORTED for a charset that nobody knows, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_decode_as(lore_str charset, lore_str bytes, lore_arena *arena,
                                         lore_str *text);
/* Decoded text with NUL, or with more control characters than any text has. */
bool lore_is_binary(lore_str text);

/* ---- media.c ---- */

/* "md" of "kb/a.md"; "" where there is none. */
lore_str lore_media_extension(lore_str name);

/* ---- foreign.c ---- */

/* What is wrong with bytes of a format that is known and not read ("is RTF: save it as DOCX"); NULL
 * for all others. */
const char *lore_foreign_reason(lore_str bytes);
/* Has it the extension of such a format? */
bool lore_foreign_name(lore_str name);

/* ---- served.c ---- */

bool lore_is_url(lore_str source); /* of http or https */
/* "问 题.md" of "https://host/%E9%97%AE%20%E9%A2%98.md?version=2", in the arena; perhaps no UTF-8.
 * ptr NULL: out of memory. */
lore_str lore_url_name(lore_str url, lore_arena *arena);

/* ---- builder.c ---- */

/* Where a piece of the line under construction came from. */
typedef struct lore_piece {
    size_t line, source; /* offset in the line, offset in the decoded source */
    bool is_exact;
} lore_piece;

typedef struct lore_heading_mark {
    size_t start;  /* of the section, in the text */
    lore_str text; /* heading line, in the arena; "" for the left-out title */
    int32_t level; /* 1..6 */
} lore_heading_mark;

typedef struct lore_builder {
    lore_str source;     /* decoded; pieces are compared with it */
    lore_arena *arena;   /* headings, title, and at the end the result */
    lore_str title;      /* given before building, or found on the way */
    bool is_title_taken; /* a heading equal to the title was left out already */
    lore_buf text;       /* finished lines */
    lore_buf line;       /* the line under construction, raw */
    lore_piece *pieces;  /* of the line */
    size_t piece_count, piece_room;
    lore_offset_run *runs; /* of the text */
    size_t run_count, run_room;
    lore_heading_mark *marks;
    size_t mark_count, mark_room;
    size_t visible_bytes; /* of the line, list marker not counted */
    size_t outside_bytes; /* of these, not inside a link to this same page */
    size_t title_source;  /* where the left-out title heading stood */
    size_t last_source;   /* end of what was last emitted: where a line break probably is */
    bool is_verbatim;     /* the line keeps its blanks (code) */
    bool is_item;         /* the line began with a list marker */
    bool is_inside_link;  /* text now coming is the text of a link to this same page */
    bool is_full;         /* no memory, a cap was reached, or interrupted: parsers stop */
    bool is_interrupted;
    const lore_interrupt *interrupt; /* may be NULL */
    size_t asked;                    /* how often the text has grown by a step since */
} lore_builder;

/* source is borrowed; title may be empty. text_max: bytes of cleaned text. */
void lore_builder_init(lore_builder *builder, lore_str source, lore_str title, size_t text_max,
                       lore_arena *arena);
void lore_builder_destroy(lore_builder *builder);
/* Text that stands in the source at this offset; checked byte for byte, so a wrong claim only makes
 * the run inexact. A white space run with '\n' in it is a soft break: a blank, or nothing between
 * CJK characters. */
void lore_builder_piece(lore_builder *builder, lore_str text, size_t source_offset);
/* Text that we made (a decoded entity, a separator); it stands for what is at source_offset. */
void lore_builder_made(lore_builder *builder, lore_str text, size_t source_offset);
/* Begin a list item: "- " or "3. ", dropped again when nothing follows. */
void lore_builder_item(lore_builder *builder, lore_str marker, size_t source_offset);
/* End the line. Does nothing when there is no visible text in it (a marker stays for the next). */
void lore_builder_line(lore_builder *builder);
/* Forget the line under construction. */
void lore_builder_discard(lore_builder *builder);
/* End the item: a marker without text goes. Headings begin with this call, too. */
void lore_builder_item_end(lore_builder *builder);
/* The same as lore_builder_line, but the line is code: blanks are kept. */
void lore_builder_code_line(lore_builder *builder);
/* End the line as a heading of this level: a new section begins with it. A first heading of level
 * 1 becomes the title where there is none, and one that equals the title is left out of the text.
 */
void lore_builder_heading(lore_builder *builder, int32_t level);
/* Copy the result into the arena. fallback_title stands in where none was found. */
LORE_MUST_USE lore_status lore_builder_finish(lore_builder *builder, lore_str fallback_title,
                                              lore_clean_document *clean, lore_error *err);

/* ---- parsers: decoded source[from..] into the builder ---- */

LORE_MUST_USE lore_status lore_clean_text(lore_builder *builder, size_t from, lore_error *err);
LORE_MUST_USE lore_status lore_clean_markdown(lore_builder *builder, size_t from, lore_error *err);
LORE_MUST_USE lore_status lore_clean_html(lore_builder *builder, size_t from,
                                          const lore_limits *limits, lore_error *err);

/* Rows of separated values: each a line, every cell behind the name that the first row gives it. */
LORE_MUST_USE lore_status lore_clean_table(lore_builder *builder, lore_media media,
                                           lore_error *err);
/* Can it name a column: a letter in it, short, one line? */
bool lore_is_column_name(lore_str text);
/* Any JSON value as lines "path: value". */
LORE_MUST_USE lore_status lore_clean_json(lore_builder *builder, const lore_limits *limits,
                                          lore_error *err);

LORE_MUST_USE lore_status lore_clean_rst(lore_builder *builder, lore_error *err);
LORE_MUST_USE lore_status lore_clean_asciidoc(lore_builder *builder, lore_error *err);
/* name tells the language. */
LORE_MUST_USE lore_status lore_clean_code(lore_builder *builder, lore_str name, lore_error *err);

/* markdown_mask.c: text with what publishing tools add overwritten by LORE_MARKDOWN_MASK, a copy of
 * the same length in the arena; text itself where there is nothing. ptr NULL: out of memory. */
enum { LORE_MARKDOWN_MASK = '\x01' };
lore_str lore_mask_additions(lore_str text, lore_arena *arena);

/* front_matter.c: the end of a YAML ("---") or TOML ("+++") block at the start of text, 0 where
 * there is none; *title is borrowed from text, without quotes, "" if not given. */
size_t lore_front_matter(lore_str text, lore_str *title);

/* ---- language.c ---- */

/* The language of a text by scripts and n-grams, as a code like "en", "zh", "zh-Hant"; static. ""
 * where there are too few letters to tell. LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_language_of(lore_str text, lore_arena *arena, lore_str *language,
                                           lore_error *err);

/* ---- html_names.c: what elements mean ---- */

typedef enum lore_tag {
    LORE_TAG_UNKNOWN = 0, /* not HTML */
    LORE_TAG_INLINE,
    LORE_TAG_BLOCK, /* stands on lines of its own */
    LORE_TAG_DROP,  /* never text: script, style ... */
    LORE_TAG_VOID,  /* never holds anything */
    LORE_TAG_A,
    LORE_TAG_ARTICLE,
    LORE_TAG_ASIDE,
    LORE_TAG_BODY,
    LORE_TAG_BR,
    LORE_TAG_CELL,
    LORE_TAG_FOOTER,
    LORE_TAG_FORM,
    LORE_TAG_H1,
    LORE_TAG_H2,
    LORE_TAG_H3,
    LORE_TAG_H4,
    LORE_TAG_H5,
    LORE_TAG_H6,
    LORE_TAG_HEADER,
    LORE_TAG_IMG,
    LORE_TAG_LI,
    LORE_TAG_MAIN,
    LORE_TAG_META,
    LORE_TAG_NAV,
    LORE_TAG_OL,
    LORE_TAG_PRE,
    LORE_TAG_ROW,
    LORE_TAG_TABLE,
    LORE_TAG_TITLE,
    LORE_TAG_UL
} lore_tag;
lore_tag lore_html_tag(lore_str name); /* any case */
/* A number below LORE_HTML_NAMES for each known name, -1 for others. */
enum { LORE_HTML_NAMES = 128 };
int32_t lore_html_name(lore_str name);

/* ---- html.c: the fence of libxml2 ---- */

enum {
    LORE_HTML_SKIP = 1,        /* nothing in it is text: hidden, script, a permalink sign */
    LORE_HTML_BOILERPLATE = 2, /* by role or label: navigation, cookie banner */
    LORE_HTML_SELF_LINK = 4,   /* leads to this same page */
    LORE_HTML_PRESENTATION = 8 /* a table that is only layout */
};

/* An element, or a run of characters. */
typedef struct lore_html_node {
    struct lore_html_node *parent, *first, *last, *next;
    lore_str text;       /* characters; of an image its alternative text, of meta its content */
    lore_str name;       /* of meta: its name or property */
    uint32_t source;     /* offset in the source of the text, or roughly of the element */
    uint32_t text_bytes; /* visible bytes below; 0 until html_text.c measures */
    int32_t number;      /* of ol its start, of li its value; -1 if not given */
    uint8_t tag;         /* lore_tag; UNKNOWN for characters */
    uint8_t flags;       /* LORE_HTML_* as the attributes say; SKIP is inherited */
    bool is_text;
    bool is_exact; /* text is source[source, source + text.len) itself */
} lore_html_node;

/* Parse source[from..] into a tree in the arena; *root has the document's elements as children.
 * LORE_ERR_LIMIT beyond limits->markup_depth_max; LORE_ERR_CANCELLED. */
LORE_MUST_USE lore_status lore_html_parse(lore_str source, size_t from, const lore_limits *limits,
                                          const lore_interrupt *interrupt, lore_arena *arena,
                                          lore_html_node **root, lore_error *err);
/* Decode the entity that text begins with ("&amp;", "&#x20;"). Gives its length in bytes, 0 if it
 * is none, and 1..4 bytes of UTF-8 in out. */
size_t lore_html_entity(lore_str text, char out[4], size_t *out_bytes);

/* ---- document.c: one document up to the writer ---- */

typedef struct lore_prepared {
    lore_str id;
    uint8_t hash[32];
    lore_clean_document clean;
    lore_str metadata;   /* what came with it, and what it says of itself */
    lore_str validators; /* as they are stored; "" none */
    lore_chunk_row *chunks;
    lore_str *embed_texts; /* [chunk_count] */
    float *vectors;        /* [chunk_count, dim], NULL until asked for */
    int32_t chunk_count;
    int32_t token_count;
    lore_sketch sketch;
} lore_prepared;

/* Id and hash, cheap: enough to know whether the document is unchanged. */
LORE_MUST_USE lore_status lore_identify(const lore_raw_document *raw, const lore_config *config,
                                        const lore_embedder *embedder, lore_arena *arena,
                                        lore_prepared *prepared, lore_error *err);
/* The validators of raw as they are stored: behind a digest of all else that decides what becomes
 * of it, because a page that has not changed since is to be made anew where that has. */
LORE_MUST_USE lore_status lore_validators_join(const lore_raw_document *raw,
                                               const lore_config *config,
                                               const lore_embedder *embedder, lore_arena *arena,
                                               lore_str *validators, lore_error *err);
/* Clean, tokenise, chunk, and room for the vectors. */
LORE_MUST_USE lore_status lore_prepare(const lore_raw_document *raw, const lore_config *config,
                                       const lore_embedder *embedder,
                                       const lore_interrupt *interrupt, lore_arena *arena,
                                       lore_prepared *prepared, lore_error *err);
/* The row to write; points into both. */
void lore_prepared_row(const lore_raw_document *raw, const lore_prepared *prepared, int32_t dim,
                       lore_document_row *row);
/* ---- prune.c: what a run has seen, and what is gone from its folders ---- */

/* A set of document ids, by 128 bits of their SHA-256. */
typedef struct lore_id_set {
    uint64_t (*keys)[2]; /* open addressing; zero keys are free places */
    size_t count, room;
} lore_id_set;
LORE_MUST_USE lore_status lore_id_set_add(lore_id_set *set, lore_str id, lore_error *err);
bool lore_id_set_has(const lore_id_set *set, lore_str id);
void lore_id_set_destroy(lore_id_set *set);

typedef struct lore_prune_options {
    lore_str collection;
    const char *const *paths; /* folders among them are pruned */
    int32_t path_count;
    const char *const *roots; /* whatever they are, if anything: what lies at or below goes */
    int32_t root_count;
    const lore_source *source; /* may be NULL; its sitemaps that were read whole are folders, too */
    const lore_id_set *seen;
    const lore_str *kept_roots; /* sources that could not be read: nothing under them goes */
    size_t kept_count;
    lore_writer *writer;            /* NULL: count only */
    const lore_ingest_options *run; /* its callbacks */
} lore_prune_options;
LORE_MUST_USE lore_status lore_prune(lore_index *index, const lore_prune_options *options,
                                     int64_t *deleted, lore_error *err);

/* ---- json_map.c: which members of an object are the parts of a document ---- */

typedef enum lore_json_field {
    LORE_JSON_ID,
    LORE_JSON_TITLE,
    LORE_JSON_TEXT,
    LORE_JSON_MARKDOWN,
    LORE_JSON_HTML,
    LORE_JSON_URL,
    LORE_JSON_DATE,     /* of the metadata */
    LORE_JSON_METADATA, /* an object, or a value under its own name; may come more than once */
    LORE_JSON_ITEMS,    /* of a whole file: the array of documents */
    LORE_JSON_FIELDS
} lore_json_field;

typedef struct lore_mapped_field {
    lore_json_field field;
    const char *path;   /* "meta.name" */
    const char **steps; /* its members, NULL behind the last */
} lore_mapped_field;

typedef struct lore_json_map {
    const lore_mapped_field *fields;
    size_t count;
} lore_json_map;

const char *lore_json_field_name(lore_json_field field);
/* "FIELD=PATH,...", into the arena. LORE_ERR_INVALID, LORE_ERR_LIMIT, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_json_map_parse(lore_str spec, lore_arena *arena, lore_json_map **map,
                                              lore_error *err);
/* NULL: the map has none. */
const lore_mapped_field *lore_json_map_field(const lore_json_map *map, lore_json_field field);
struct lore_json;
/* NULL: nothing there, or null. */
const struct lore_json *lore_json_map_find(const struct lore_json *node,
                                           const lore_mapped_field *field);

/* ---- jsonl.c ---- */

/* An object as a document; strings in the arena. map NULL: as clients send them. */
LORE_MUST_USE lore_status lore_raw_from_node(const struct lore_json *node, const lore_json_map *map,
                                             const lore_limits *limits, lore_arena *arena,
                                             lore_raw_document *raw, lore_error *err);

/* Add the members of `extra` (an object's text) that `own` (likewise, or "") lacks. */
LORE_MUST_USE lore_status lore_metadata_merge(lore_str own, lore_str extra,
                                              const lore_limits *limits, lore_arena *arena,
                                              lore_str *merged, lore_error *err);

#endif
