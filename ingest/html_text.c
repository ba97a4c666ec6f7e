/* HTML to text: which parts of the tree are content, and how they read as lines.
 *
 * What is content is decided once, by share of the visible text, before anything is emitted:
 * navigation, side columns, forms, page headers and footers and cookie banners go, unless one of
 * them holds more than half of all text (pages that wrap everything in a form exist). Then, if
 * <main> or the <article>s hold at least half of the rest, only they count, with the page's heading
 * where it stands before them. */
#include "ingest/ingest_int.h"

#include "base/utf8.h"

#include <string.h>

enum { CELL_BYTES_MAX = 600 /* a table with longer cells is layout, or reads better as lines */ };

typedef struct list_level {
    bool is_ordered;
    int32_t next;
} list_level;

typedef struct walk {
    lore_builder *builder;
    lore_tag region; /* only what is inside elements of this tag counts; UNKNOWN: all */
    bool is_inside;  /* of the region */
    bool is_joined;  /* in a table cell or heading: breaks are blanks */
    bool is_pre;
    list_level *list;
    size_t last; /* source offset of what was emitted last */
} walk;

static bool is_heading(const lore_html_node *node)
{
    return node->tag >= LORE_TAG_H1 && node->tag <= LORE_TAG_H6;
}

static bool is_skipped(const lore_html_node *node)
{
    return (node->flags & LORE_HTML_SKIP) != 0;
}

/* ---- what is content ---- */

static uint32_t visible_bytes(lore_str text)
{
    uint32_t count = 0;
    for (size_t i = 0; i < text.len; i++) {
        count += (unsigned char)text.ptr[i] > ' ' ? 1 : 0;
    }
    return count;
}

static uint32_t measure(lore_html_node *node)
{
    node->text_bytes = node->is_text ? visible_bytes(node->text) : 0;
    if (is_skipped(node) || node->tag == LORE_TAG_TITLE) {
        node->text_bytes = 0;
        return 0;
    }
    for (lore_html_node *child = node->first; child != NULL; child = child->next) {
        node->text_bytes += measure(child);
    }
    return node->text_bytes;
}

static const lore_html_node *find_tag(const lore_html_node *node, lore_tag tag)
{
    if (is_skipped(node)) {
        return NULL;
    }
    if (!node->is_text && node->tag == tag) {
        return node;
    }
    for (const lore_html_node *child = node->first; child != NULL; child = child->next) {
        const lore_html_node *found = find_tag(child, tag);
        if (found != NULL) {
            return found;
        }
    }
    return NULL;
}

/* The header of the text, not of the site: it holds the first heading, and no navigation. */
static bool is_title_header(const lore_html_node *node)
{
    return node->tag == LORE_TAG_HEADER && find_tag(node, LORE_TAG_H1) != NULL &&
           find_tag(node, LORE_TAG_NAV) == NULL;
}

static bool is_boilerplate(const lore_html_node *node, bool is_in_content)
{
    switch ((lore_tag)node->tag) {
    case LORE_TAG_NAV:
    case LORE_TAG_ASIDE:
    case LORE_TAG_FORM:
        return true;
    case LORE_TAG_HEADER:
        return !is_in_content && !is_title_header(node);
    case LORE_TAG_FOOTER:
        return !is_in_content;
    default:
        return (node->flags & LORE_HTML_BOILERPLATE) != 0;
    }
}

/* Mark boilerplate as skipped and measure again without it. */
static uint32_t drop_boilerplate(lore_html_node *node, uint32_t total, bool is_in_content)
{
    if (node->is_text || is_skipped(node)) {
        return is_skipped(node) ? 0 : node->text_bytes;
    }
    if (is_boilerplate(node, is_in_content) && node->text_bytes <= total / 2) {
        node->flags |= LORE_HTML_SKIP;
        node->text_bytes = 0;
        return 0;
    }
    is_in_content = is_in_content || node->tag == LORE_TAG_MAIN || node->tag == LORE_TAG_ARTICLE;
    uint32_t kept = 0;
    for (lore_html_node *child = node->first; child != NULL; child = child->next) {
        kept += drop_boilerplate(child, total, is_in_content);
    }
    node->text_bytes = node->tag == LORE_TAG_TITLE ? 0 : kept;
    return node->text_bytes;
}

/* Bytes in the outermost elements of this tag. */
static uint32_t bytes_in(const lore_html_node *node, lore_tag tag)
{
    if (is_skipped(node) || (!node->is_text && node->tag == tag)) {
        return is_skipped(node) ? 0 : node->text_bytes;
    }
    uint32_t bytes = 0;
    for (const lore_html_node *child = node->first; child != NULL; child = child->next) {
        bytes += bytes_in(child, tag);
    }
    return bytes;
}

static lore_tag choose_region(const lore_html_node *root)
{
    uint32_t half = root->text_bytes / 2;
    if (root->text_bytes == 0) {
        return LORE_TAG_UNKNOWN;
    }
    return bytes_in(root, LORE_TAG_MAIN) > half      ? LORE_TAG_MAIN
           : bytes_in(root, LORE_TAG_ARTICLE) > half ? LORE_TAG_ARTICLE
                                                     : LORE_TAG_UNKNOWN;
}

/* ---- the title ---- */

/* The text below node with blanks folded; sticks at the title limit. */
static void gather(const lore_html_node *node, lore_buf *out)
{
    if (is_skipped(node)) {
        return;
    }
    for (size_t i = 0; node->is_text && i < node->text.len; i++) {
        char c = node->text.ptr[i];
        bool is_blank = c == ' ' || (c >= '\t' && c <= '\r');
        if (!is_blank) {
            lore_buf_byte(out, c);
        } else if (out->len > 0 && out->ptr[out->len - 1] != ' ') {
            lore_buf_byte(out, ' ');
        }
    }
    for (const lore_html_node *child = node->first; child != NULL; child = child->next) {
        gather(child, out);
    }
}

/* In the arena; "" where there is none, or one too long to be a title. */
static lore_str gathered(const lore_html_node *node, lore_arena *arena)
{
    lore_buf buf;
    lore_buf_init(&buf, LORE_TITLE_BYTES_MAX);
    if (node != NULL) {
        gather(node, &buf);
    }
    lore_str text = {"", 0};
    if (!lore_buf_failed(&buf) && buf.len > 0) {
        text = lore_str_copy(arena, lore_str_trim(lore_buf_str(&buf)));
    }
    lore_buf_destroy(&buf);
    return text.ptr == NULL ? (lore_str){"", 0} : text;
}

static lore_str meta_content(const lore_html_node *node, lore_str name)
{
    if (!node->is_text && node->tag == LORE_TAG_META && lore_str_equal_nocase(node->name, name)) {
        return lore_str_trim(node->text);
    }
    for (const lore_html_node *child = node->first; child != NULL; child = child->next) {
        lore_str found = meta_content(child, name);
        if (found.len > 0) {
            return found;
        }
    }
    return (lore_str){"", 0};
}

static const char *const separators[] = {" | ",        " - ",  " \xE2\x80\x93 ", " \xE2\x80\x94 ",
                                         " \xC2\xB7 ", " :: ", " \xC2\xAB ",     " \xC2\xBB ",
                                         "_"};
enum { SEPARATORS = sizeof separators / sizeof separators[0] };

/* Is page `part` + separator + site, or the other way round? */
static bool is_page_of_site(lore_str page, lore_str part)
{
    for (size_t i = 0; part.len > 0 && part.len < page.len && i < SEPARATORS; i++) {
        lore_str separator = lore_str_from(separators[i]);
        lore_str tail = lore_str_slice(page, part.len, page.len);
        lore_str head = lore_str_slice(page, 0, page.len - part.len);
        if ((lore_str_starts(page, part) && lore_str_starts(tail, separator)) ||
            (lore_str_ends(page, part) && lore_str_ends(head, separator))) {
            return true;
        }
    }
    return false;
}

/* Cut " | Site" where the page itself says that this is the site's name. */
static lore_str without_site(lore_str page, lore_str site)
{
    for (size_t i = 0; site.len > 0 && site.len < page.len && i < SEPARATORS; i++) {
        lore_str separator = lore_str_from(separators[i]);
        lore_str head = lore_str_slice(page, 0, page.len - site.len);
        if (lore_str_ends(page, site) && lore_str_ends(head, separator) &&
            head.len > separator.len) {
            return lore_str_slice(head, 0, head.len - separator.len);
        }
    }
    return page;
}

/* The page's title without the name of the site, where the page gives a reason to cut it. */
static lore_str page_title(const lore_html_node *root, lore_arena *arena)
{
    lore_str page = gathered(find_tag(root, LORE_TAG_TITLE), arena);
    lore_str heading = gathered(find_tag(root, LORE_TAG_H1), arena);
    lore_str shared = meta_content(root, LORE_STR("og:title"));
    if (shared.len > LORE_TITLE_BYTES_MAX) {
        shared = (lore_str){"", 0};
    }
    if (page.len == 0) {
        return shared.len > 0 ? shared : heading;
    }
    if (is_page_of_site(page, heading)) {
        return heading;
    }
    if (is_page_of_site(page, shared)) {
        return shared;
    }
    return without_site(page, meta_content(root, LORE_STR("og:site_name")));
}

/* ---- lines ---- */

static void put_break(walk *w)
{
    if (w->is_joined) {
        lore_builder_made(w->builder, LORE_STR("\n"), w->last);
    } else if (w->is_pre) {
        lore_builder_code_line(w->builder);
    } else {
        lore_builder_line(w->builder);
    }
}

static void put_text(walk *w, lore_str text, size_t source, bool is_exact)
{
    if (is_exact) {
        lore_builder_piece(w->builder, text, source);
        w->last = source + text.len;
    } else {
        lore_builder_made(w->builder, text, source);
        w->last = source;
    }
}

static void put_characters(walk *w, const lore_html_node *node)
{
    lore_str text = node->text;
    size_t source = node->source;
    while (w->is_pre && text.len > 0) {
        const char *newline = memchr(text.ptr, '\n', text.len);
        if (newline == NULL) {
            break;
        }
        size_t end = (size_t)(newline - text.ptr);
        put_text(w, lore_str_slice(text, 0, end), source, node->is_exact);
        put_break(w);
        source += node->is_exact ? end + 1 : 0;
        text = lore_str_slice(text, end + 1, text.len);
    }
    put_text(w, text, source, node->is_exact);
}

static void walk_node(walk *w, const lore_html_node *node);

static void walk_children(walk *w, const lore_html_node *node)
{
    for (const lore_html_node *child = node->first; child != NULL && !w->builder->is_full;
         child = child->next) {
        walk_node(w, child);
    }
}

static void walk_item(walk *w, const lore_html_node *node)
{
    if (w->is_joined) {
        put_break(w);
        walk_children(w, node);
        return;
    }
    lore_str marker = LORE_STR("- ");
    if (w->list != NULL && w->list->is_ordered) {
        w->list->next = node->number >= 0 ? node->number : w->list->next;
        marker = lore_str_printf(w->builder->arena, "%d. ", w->list->next++);
        if (marker.ptr == NULL) {
            w->builder->is_full = true;
            return;
        }
    }
    lore_builder_item(w->builder, marker, node->source);
    walk_children(w, node);
    lore_builder_item_end(w->builder);
}

static void walk_list(walk *w, const lore_html_node *node)
{
    list_level level = {node->tag == LORE_TAG_OL, node->number >= 0 ? node->number : 1};
    list_level *outer = w->list;
    put_break(w);
    w->list = &level;
    walk_children(w, node);
    w->list = outer;
    put_break(w);
}

static void walk_heading(walk *w, const lore_html_node *node)
{
    if (w->is_joined) {
        walk_children(w, node);
        return;
    }
    lore_builder_item_end(w->builder);
    w->is_joined = true;
    walk_children(w, node);
    w->is_joined = false;
    lore_builder_heading(w->builder, node->tag - LORE_TAG_H1 + 1);
}

/* A table of data: short cells without structure, more than one to a row. */
static bool is_data(const lore_html_node *node, bool *has_row_of_two)
{
    int32_t cells = 0;
    for (const lore_html_node *child = node->first; child != NULL; child = child->next) {
        bool is_structure = !child->is_text && (child->tag == LORE_TAG_TABLE ||
                                                child->tag == LORE_TAG_PRE || is_heading(child));
        if (is_structure || (!child->is_text && child->tag == LORE_TAG_CELL &&
                             child->text_bytes > CELL_BYTES_MAX)) {
            return false;
        }
        cells += !child->is_text && child->tag == LORE_TAG_CELL ? 1 : 0;
        if (!is_data(child, has_row_of_two)) {
            return false;
        }
    }
    *has_row_of_two = *has_row_of_two || cells > 1;
    return true;
}

/* A cell of a data table becomes part of its row's line. */
static void walk_cell(walk *w, const lore_html_node *node, int32_t place)
{
    if (place > 0) {
        lore_builder_made(w->builder, LORE_STR(" | "), node->source);
    }
    w->is_joined = true;
    walk_children(w, node);
    w->is_joined = false;
}

static void walk_rows(walk *w, const lore_html_node *node)
{
    if (is_skipped(node)) {
        return;
    }
    if (node->is_text || node->tag == LORE_TAG_BLOCK) {
        walk_node(w, node); /* the caption, or text that lost its cell */
        lore_builder_line(w->builder);
        return;
    }
    if (node->tag != LORE_TAG_ROW) {
        for (const lore_html_node *child = node->first; child != NULL; child = child->next) {
            walk_rows(w, child);
        }
        return;
    }
    int32_t place = 0;
    uint32_t bytes = 0;
    lore_builder_line(w->builder);
    for (const lore_html_node *child = node->first; child != NULL; child = child->next) {
        if (!child->is_text && child->tag == LORE_TAG_CELL && !is_skipped(child)) {
            walk_cell(w, child, place++);
            bytes += child->text_bytes;
        }
    }
    if (bytes == 0) {
        lore_builder_discard(w->builder);
    }
    lore_builder_line(w->builder);
}

static void walk_table(walk *w, const lore_html_node *node)
{
    bool has_row_of_two = false;
    put_break(w);
    if (w->is_joined || (node->flags & LORE_HTML_PRESENTATION) || !is_data(node, &has_row_of_two) ||
        !has_row_of_two) {
        walk_children(w, node);
    } else {
        walk_rows(w, node);
    }
    put_break(w);
}

static void walk_pre(walk *w, const lore_html_node *node)
{
    put_break(w);
    bool was_pre = w->is_pre;
    w->is_pre = !w->is_joined;
    walk_children(w, node);
    put_break(w);
    w->is_pre = was_pre;
}

static void walk_link(walk *w, const lore_html_node *node)
{
    bool was_inside = w->builder->is_inside_link;
    w->builder->is_inside_link = was_inside || (node->flags & LORE_HTML_SELF_LINK);
    walk_children(w, node);
    w->builder->is_inside_link = was_inside;
}

static void walk_element(walk *w, const lore_html_node *node)
{
    switch ((lore_tag)node->tag) {
    case LORE_TAG_TITLE:
    case LORE_TAG_META:
    case LORE_TAG_DROP:
    case LORE_TAG_VOID:
        return;
    case LORE_TAG_INLINE:
        walk_children(w, node);
        return;
    case LORE_TAG_A:
        walk_link(w, node);
        return;
    case LORE_TAG_BR:
        put_break(w);
        return;
    case LORE_TAG_IMG:
        put_text(w, node->text, node->source, false);
        return;
    case LORE_TAG_H1:
    case LORE_TAG_H2:
    case LORE_TAG_H3:
    case LORE_TAG_H4:
    case LORE_TAG_H5:
    case LORE_TAG_H6:
        walk_heading(w, node);
        return;
    case LORE_TAG_LI:
        walk_item(w, node);
        return;
    case LORE_TAG_UL:
    case LORE_TAG_OL:
        walk_list(w, node);
        return;
    case LORE_TAG_TABLE:
        walk_table(w, node);
        return;
    case LORE_TAG_PRE:
        walk_pre(w, node);
        return;
    default:
        put_break(w);
        walk_children(w, node);
        put_break(w);
        return;
    }
}

/* Outside the region only the page's heading, and what leads to the region, is walked. */
static void walk_node(walk *w, const lore_html_node *node)
{
    if (is_skipped(node)) {
        return;
    }
    if (!w->is_inside) {
        if (node->is_text) {
            return;
        }
        if (node->tag == w->region || node->tag == LORE_TAG_H1 || is_title_header(node)) {
            w->is_inside = true;
            walk_element(w, node);
            w->is_inside = false;
        } else {
            walk_children(w, node);
        }
        return;
    }
    if (node->is_text) {
        put_characters(w, node);
    } else {
        walk_element(w, node);
    }
}

lore_status lore_clean_html(lore_builder *builder, size_t from, const lore_limits *limits,
                            lore_error *err)
{
    lore_html_node *root = NULL;
    lore_status status = lore_html_parse(builder->source, from, limits, builder->interrupt,
                                         builder->arena, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    uint32_t total = measure(root);
    drop_boilerplate(root, total, false);
    if (builder->title.len == 0) {
        builder->title = page_title(root, builder->arena);
    }
    lore_tag region = choose_region(root);
    walk w = {.builder = builder,
              .region = region,
              .is_inside = region == LORE_TAG_UNKNOWN,
              .last = from};
    walk_node(&w, root);
    lore_builder_item_end(builder);
    return LORE_OK;
}
