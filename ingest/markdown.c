/* Markdown to text: the fence around md4c (CommonMark with GitHub tables and task lists).
 *
 * md4c hands out text as pointers into its input, so nearly every piece knows its exact place in
 * the source. Raw HTML is not rendered: its tags are stripped, block elements break lines, and what
 * looks like a tag but is no HTML ("<bucket>") stays text. */
#include "ingest/ingest_int.h"

#include <md4c.h>
#include <string.h>
#include <strings.h>

enum {
    LIST_DEPTH_MAX = 64, /* numbers are kept so deep; below that, items are bullets */
    TAG_NAME_CAP = 12,
    CLOSING_BYTES_MAX = 8192, /* how far the end tag of an element is looked for */
};

typedef struct list_level {
    bool is_ordered;
    uint32_t next;
} list_level;

/* What is known of an element's end tags: none begins in [from, searched), but for one at `found`
 * (0: none). */
typedef struct end_tags {
    size_t from, searched, found;
} end_tags;

typedef struct markdown {
    lore_builder *builder;
    const char *base; /* what md4c reads: source[from..] or its masked copy */
    size_t from, len;
    size_t last; /* source offset behind the last known piece */
    list_level lists[LIST_DEPTH_MAX];
    int32_t list_depth;
    int32_t cells;  /* of the row so far */
    bool is_code;   /* in a code block */
    bool is_joined; /* in a cell or heading: breaks are blanks */
    /* raw HTML, which may reach over several calls */
    bool is_comment, is_tag;
    char quote;                 /* open quote inside the tag */
    char skipped[TAG_NAME_CAP]; /* text is dropped until the end tag of this name; "" none */
    end_tags ends[LORE_HTML_NAMES];
} markdown;

/* ---- pieces ---- */

static size_t offset_of(const markdown *md, const char *text)
{
    bool is_inside = text >= md->base && text < md->base + md->len;
    return is_inside ? md->from + (size_t)(text - md->base) : SIZE_MAX;
}

static void put(markdown *md, lore_str text)
{
    size_t offset = offset_of(md, text.ptr);
    if (offset == SIZE_MAX) {
        lore_builder_made(md->builder, text, md->last);
        return;
    }
    md->last = offset + text.len;
    while (text.len > 0) { /* what is masked stays out, so that the rest is exact */
        const char *masked = memchr(text.ptr, LORE_MARKDOWN_MASK, text.len);
        size_t end = masked == NULL ? text.len : (size_t)(masked - text.ptr);
        lore_builder_piece(md->builder, lore_str_slice(text, 0, end), offset);
        end += masked == NULL ? 0 : 1;
        offset += end;
        text = lore_str_slice(text, end, text.len);
    }
}

static void put_break(markdown *md)
{
    if (md->is_joined) {
        lore_builder_made(md->builder, LORE_STR("\n"), md->last);
    } else {
        lore_builder_line(md->builder);
    }
}

static void put_entity(markdown *md, lore_str text)
{
    char utf8[4];
    size_t bytes = 0, offset = offset_of(md, text.ptr);
    if (lore_html_entity(text, utf8, &bytes) == 0) {
        put(md, text);
        return;
    }
    lore_builder_made(md->builder, (lore_str){utf8, bytes}, offset == SIZE_MAX ? md->last : offset);
}

/* Code: every line of the source is a line of text. */
static void put_code(markdown *md, lore_str text)
{
    while (text.len > 0) {
        const char *newline = memchr(text.ptr, '\n', text.len);
        size_t end = newline == NULL ? text.len : (size_t)(newline - text.ptr);
        put(md, lore_str_slice(text, 0, end));
        if (newline == NULL) {
            break;
        }
        lore_builder_code_line(md->builder);
        text = lore_str_slice(text, end + 1, text.len);
    }
}

/* ---- raw HTML ---- */

static void put_alternative(markdown *md, lore_str tag)
{
    for (size_t at = 0; at + 5 < tag.len; at++) {
        char quote = tag.ptr[at + 4];
        if (strncasecmp(tag.ptr + at, "alt=", 4) == 0 && (quote == '"' || quote == '\'')) {
            const char *start = tag.ptr + at + 5;
            const char *end = memchr(start, quote, tag.len - at - 5);
            if (end != NULL) {
                put(md, (lore_str){start, (size_t)(end - start)});
            }
            return;
        }
    }
}

/* The text of these is no text; what stands in a <button> or an <object> may be. */
static void begin_skipping(markdown *md, lore_str name, lore_str whole)
{
    static const char *const skipped[] = {"script", "style", "svg", "template"};
    for (size_t i = 0; i < sizeof skipped / sizeof skipped[0]; i++) {
        if (lore_str_equal_nocase(name, lore_str_from(skipped[i])) &&
            !lore_str_ends(whole, LORE_STR("/>"))) {
            memcpy(md->skipped, skipped[i], strlen(skipped[i]) + 1);
        }
    }
}

/* Does an end tag of this name follow within CLOSING_BYTES_MAX of `at`? What was searched before is
 * not searched again: a page may be one start tag after another. */
static bool has_end_tag(markdown *md, lore_str name, size_t at)
{
    end_tags *known = &md->ends[lore_html_name(name)];
    size_t limit = md->len - at < CLOSING_BYTES_MAX ? md->len : at + CLOSING_BYTES_MAX;
    lore_str text = {md->base, limit};
    if (at < known->from || at > known->searched) {
        *known = (end_tags){.from = at, .searched = at};
    }
    if (known->found < at) {
        known->found = 0;
    }
    while (known->found == 0 && known->searched < limit) {
        size_t next = lore_str_find(text, LORE_STR("</"), known->searched);
        if (next == SIZE_MAX || limit - next - 2 < name.len) {
            /* What begins here may end behind the limit. */
            size_t tail = name.len + 2;
            size_t done = limit > tail ? limit - tail : 0;
            known->searched = done > known->searched ? done : known->searched;
            break;
        }
        lore_str found = lore_str_slice(text, next + 2, next + 2 + name.len);
        known->found = lore_str_equal_nocase(found, name) ? next : 0;
        known->searched = next + 1;
    }
    return known->found > 0 && known->found < limit;
}

/* "<object>" in prose is a placeholder although there is an element of that name: it has no
 * attributes and is never closed. */
static bool is_placeholder(markdown *md, lore_tag tag, lore_str name, lore_str rest)
{
    if (rest.len <= name.len + 1 || rest.ptr[name.len + 1] != '>') {
        return false;
    }
    switch (tag) {
    case LORE_TAG_VOID:
        return !lore_str_equal_nocase(name, LORE_STR("wbr"));
    case LORE_TAG_META:
    case LORE_TAG_IMG:
        return true;
    case LORE_TAG_BR:
    case LORE_TAG_BLOCK:
    case LORE_TAG_LI:
    case LORE_TAG_ROW:
    case LORE_TAG_CELL:
        return false; /* these need no end */
    default:
        break;
    }
    size_t offset = offset_of(md, rest.ptr);
    return offset != SIZE_MAX && !has_end_tag(md, name, offset - md->from);
}

static void open_tag(markdown *md, lore_tag tag, lore_str name, lore_str whole)
{
    switch (tag) {
    case LORE_TAG_BR:
    case LORE_TAG_BLOCK:
    case LORE_TAG_TABLE:
        put_break(md);
        break;
    case LORE_TAG_H1:
    case LORE_TAG_H2:
    case LORE_TAG_H3:
    case LORE_TAG_H4:
    case LORE_TAG_H5:
    case LORE_TAG_H6:
        lore_builder_item_end(md->builder);
        md->is_joined = true;
        break;
    case LORE_TAG_LI:
        lore_builder_item(md->builder, LORE_STR("- "), md->last);
        break;
    case LORE_TAG_ROW:
        lore_builder_line(md->builder);
        md->cells = 0;
        break;
    case LORE_TAG_CELL:
        if (md->cells++ > 0) {
            lore_builder_made(md->builder, LORE_STR(" | "), md->last);
        }
        md->is_joined = true;
        break;
    case LORE_TAG_IMG:
        put_alternative(md, whole);
        break;
    case LORE_TAG_DROP:
        begin_skipping(md, name, whole);
        break;
    default:
        break;
    }
}

static void close_tag(markdown *md, lore_tag tag)
{
    if (tag >= LORE_TAG_H1 && tag <= LORE_TAG_H6) {
        lore_builder_heading(md->builder, (int32_t)(tag - LORE_TAG_H1) + 1);
        md->is_joined = false;
    } else if (tag == LORE_TAG_LI) {
        lore_builder_item_end(md->builder);
    } else if (tag == LORE_TAG_CELL) {
        md->is_joined = false;
    } else if (tag == LORE_TAG_ROW || tag == LORE_TAG_TABLE || tag == LORE_TAG_BLOCK) {
        md->is_joined = md->is_joined && tag == LORE_TAG_BLOCK;
        put_break(md);
    }
}

/* Skip to the end of a tag that began before `at`. Gives the offset behind '>' or the end. */
static size_t skip_tag(markdown *md, lore_str text, size_t at)
{
    md->is_tag = true;
    while (at < text.len) {
        char c = text.ptr[at++];
        if (md->quote != 0) {
            md->quote = c == md->quote ? 0 : md->quote;
        } else if (c == '"' || c == '\'') {
            md->quote = c;
        } else if (c == '>') {
            md->is_tag = false;
            break;
        }
    }
    return at;
}

static size_t skip_comment(markdown *md, lore_str text, size_t at)
{
    size_t end = lore_str_find(text, LORE_STR("-->"), at);
    md->is_comment = end == SIZE_MAX;
    return md->is_comment ? text.len : end + 3;
}

/* A '<' at `at`. Gives the offset behind the tag, or `at` if it is text. */
static size_t strip_tag(markdown *md, lore_str text, size_t at)
{
    lore_str rest = lore_str_slice(text, at, text.len);
    if (lore_str_starts(rest, LORE_STR("<!--"))) {
        return skip_comment(md, text, at + 4);
    }
    if (rest.len > 1 && (rest.ptr[1] == '!' || rest.ptr[1] == '?')) {
        return skip_tag(md, text, at + 2);
    }
    bool is_end = rest.len > 1 && rest.ptr[1] == '/';
    size_t start = is_end ? 2 : 1, end = start;
    while (end < rest.len && strchr(" \t\r\n/>", rest.ptr[end]) == NULL) {
        end++;
    }
    lore_str name = lore_str_slice(rest, start < rest.len ? start : rest.len, end);
    lore_tag tag = lore_html_tag(name);
    if (md->skipped[0] != '\0') {
        if (is_end && lore_str_equal_nocase(name, lore_str_from(md->skipped))) {
            md->skipped[0] = '\0';
            return skip_tag(md, text, at + end);
        }
        return at + 1;
    }
    if (tag == LORE_TAG_UNKNOWN || (!is_end && is_placeholder(md, tag, name, rest))) {
        return at;
    }
    size_t after = skip_tag(md, text, at + end);
    if (is_end) {
        close_tag(md, tag);
    } else {
        open_tag(md, tag, name, lore_str_slice(text, at, after));
    }
    return after;
}

/* The text of raw HTML, tags stripped. */
static void put_html(markdown *md, lore_str text)
{
    size_t at = md->is_comment ? skip_comment(md, text, 0) : md->is_tag ? skip_tag(md, text, 0) : 0;
    while (at < text.len) {
        size_t end = at;
        while (end < text.len && text.ptr[end] != '<' && text.ptr[end] != '&') {
            end++;
        }
        if (md->skipped[0] == '\0') {
            put(md, lore_str_slice(text, at, end));
        }
        at = end;
        if (at == text.len) {
            break;
        }
        size_t next = at;
        lore_str rest = lore_str_slice(text, at, text.len);
        if (text.ptr[at] == '<') {
            next = strip_tag(md, text, at);
        } else if (md->skipped[0] == '\0') {
            char utf8[4];
            size_t bytes = 0, used = lore_html_entity(rest, utf8, &bytes);
            put_entity(md, lore_str_slice(rest, 0, used > 0 ? used : 1));
            next = at + (used > 0 ? used : 1);
        }
        if (next == at) {
            put(md, lore_str_slice(rest, 0, md->skipped[0] == '\0' ? 1 : 0));
            next = at + 1;
        }
        at = next;
    }
}

/* ---- md4c's callbacks ---- */

static void begin_item(markdown *md)
{
    list_level *level = NULL;
    if (md->list_depth > 0 && md->list_depth <= LIST_DEPTH_MAX) {
        level = &md->lists[md->list_depth - 1];
    }
    if (level == NULL || !level->is_ordered) {
        lore_builder_item(md->builder, LORE_STR("- "), md->last);
        return;
    }
    lore_str marker = lore_str_printf(md->builder->arena, "%u. ", level->next++);
    if (marker.ptr == NULL) {
        md->builder->is_full = true;
        return;
    }
    lore_builder_item(md->builder, marker, md->last);
}

static void begin_list(markdown *md, bool is_ordered, uint32_t start)
{
    lore_builder_line(md->builder);
    if (md->list_depth < LIST_DEPTH_MAX) {
        md->lists[md->list_depth] = (list_level){is_ordered, start};
    }
    md->list_depth++;
}

static int enter_block(MD_BLOCKTYPE type, void *detail, void *self)
{
    markdown *md = self;
    switch (type) {
    case MD_BLOCK_UL:
        begin_list(md, false, 0);
        break;
    case MD_BLOCK_OL:
        begin_list(md, true, ((MD_BLOCK_OL_DETAIL *)detail)->start);
        break;
    case MD_BLOCK_LI:
        begin_item(md);
        break;
    case MD_BLOCK_H:
        lore_builder_item_end(md->builder);
        md->is_joined = true;
        break;
    case MD_BLOCK_CODE:
        lore_builder_line(md->builder);
        md->is_code = true;
        break;
    case MD_BLOCK_HTML:
    case MD_BLOCK_P:
        lore_builder_line(md->builder);
        break;
    case MD_BLOCK_TR:
        md->cells = 0;
        break;
    case MD_BLOCK_TH:
    case MD_BLOCK_TD:
        if (md->cells++ > 0) {
            lore_builder_made(md->builder, LORE_STR(" | "), md->last);
        }
        md->is_joined = true;
        break;
    default:
        break;
    }
    return md->builder->is_full ? 1 : 0;
}

static void end_row(markdown *md)
{
    /* Nothing visible but the separators: an empty row. */
    if (md->builder->visible_bytes < (size_t)md->cells) {
        lore_builder_discard(md->builder);
    }
    lore_builder_line(md->builder);
}

static int leave_block(MD_BLOCKTYPE type, void *detail, void *self)
{
    markdown *md = self;
    switch (type) {
    case MD_BLOCK_UL:
    case MD_BLOCK_OL:
        md->list_depth--;
        break;
    case MD_BLOCK_LI:
        lore_builder_item_end(md->builder);
        break;
    case MD_BLOCK_H:
        md->is_joined = false;
        lore_builder_heading(md->builder, (int32_t)((MD_BLOCK_H_DETAIL *)detail)->level);
        break;
    case MD_BLOCK_CODE:
        lore_builder_code_line(md->builder);
        md->is_code = false;
        break;
    case MD_BLOCK_P:
        md->skipped[0] = '\0'; /* what was not closed here never will be */
        lore_builder_line(md->builder);
        break;
    case MD_BLOCK_HTML:
        lore_builder_line(md->builder);
        break;
    case MD_BLOCK_TR:
        end_row(md);
        break;
    case MD_BLOCK_TH:
    case MD_BLOCK_TD:
        md->is_joined = false;
        break;
    default:
        break;
    }
    return md->builder->is_full ? 1 : 0;
}

static int enter_span(MD_SPANTYPE type, void *detail, void *self)
{
    markdown *md = self;
    if (type == MD_SPAN_A) {
        MD_ATTRIBUTE href = ((MD_SPAN_A_DETAIL *)detail)->href;
        md->builder->is_inside_link = href.size > 0 && href.text[0] == '#';
    }
    return 0;
}

static int leave_span(MD_SPANTYPE type, void *detail, void *self)
{
    (void)detail;
    if (type == MD_SPAN_A) {
        ((markdown *)self)->builder->is_inside_link = false;
    }
    return 0;
}

static int on_text(MD_TEXTTYPE type, const MD_CHAR *text, MD_SIZE size, void *self)
{
    markdown *md = self;
    lore_str s = {text, size};
    if (md->skipped[0] != '\0' && type != MD_TEXT_HTML) {
        return 0;
    }
    switch (type) {
    case MD_TEXT_BR:
        put_break(md);
        break;
    case MD_TEXT_SOFTBR:
        lore_builder_made(md->builder, LORE_STR("\n"), md->last);
        break;
    case MD_TEXT_ENTITY:
        put_entity(md, s);
        break;
    case MD_TEXT_HTML:
        put_html(md, s);
        break;
    case MD_TEXT_CODE:
        if (md->is_code) {
            put_code(md, s);
            break;
        }
        put(md, s);
        break;
    case MD_TEXT_NULLCHAR:
        break;
    default:
        put(md, s);
        break;
    }
    return md->builder->is_full ? 1 : 0;
}

lore_status lore_clean_markdown(lore_builder *builder, size_t from, lore_error *err)
{
    lore_str text = lore_str_slice(builder->source, from, builder->source.len);
    if (text.len == 0) {
        return LORE_OK;
    }
    lore_str masked = lore_mask_additions(text, builder->arena);
    if (masked.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory copying %zu bytes", text.len);
    }
    markdown md = {
        .builder = builder, .base = masked.ptr, .from = from, .len = masked.len, .last = from};
    MD_PARSER parser = {.flags = MD_FLAG_TABLES | MD_FLAG_STRIKETHROUGH | MD_FLAG_TASKLISTS,
                        .enter_block = enter_block,
                        .leave_block = leave_block,
                        .enter_span = enter_span,
                        .leave_span = leave_span,
                        .text = on_text};
    if (md_parse(masked.ptr, (MD_SIZE)masked.len, &parser, &md) != 0 && !builder->is_full) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory parsing Markdown");
    }
    return LORE_OK;
}
