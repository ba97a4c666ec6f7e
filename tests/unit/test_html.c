/* The HTML fence: the tree, where its text stood, entities, limits. */
#include "tests/unit/ingest_fixture.h"

static lore_html_node *parse(lore_arena *arena, lore_str source)
{
    lore_error err = {0};
    lore_html_node *root = NULL;
    CHECK_OK(lore_html_parse(source, 0, &LIMITS, NULL, arena, &root, &err), &err);
    return root;
}

static const lore_html_node *find(const lore_html_node *node, lore_tag tag)
{
    if (!node->is_text && node->tag == tag) {
        return node;
    }
    for (const lore_html_node *child = node->first; child != NULL; child = child->next) {
        const lore_html_node *found = find(child, tag);
        if (found != NULL) {
            return found;
        }
    }
    return NULL;
}

static size_t count_exact(const lore_html_node *node, lore_str source, size_t *inexact)
{
    size_t exact = 0;
    if (node->is_text && node->is_exact) {
        CHECK(memcmp(source.ptr + node->source, node->text.ptr, node->text.len) == 0);
        exact += node->text.len;
    } else if (node->is_text) {
        *inexact += node->text.len;
    }
    for (const lore_html_node *child = node->first; child != NULL; child = child->next) {
        CHECK(child->parent == node);
        exact += count_exact(child, source, inexact);
    }
    return exact;
}

/* Characters know their place; only entities do not. Long text goes through the parser's buffer in
 * pieces, which must not cost exactness. */
TEST(text_is_exact)
{
    lore_arena arena;
    lore_buf source;
    lore_arena_init(&arena, 0);
    lore_buf_init(&source, 0);
    lore_buf_append(&source, LORE_STR("<p>caf\xC3\xA9 &copy; bar</p>\r\n<p>"));
    for (int i = 0; i < 4000; i++) {
        lore_buf_append(&source, LORE_STR("\xE4\xB8\xAD\xE6\x96\x87 word "));
    }
    lore_str html = lore_buf_str(&source);
    size_t inexact = 0, exact = count_exact(parse(&arena, html), html, &inexact);
    CHECK_INT(inexact, 2);
    CHECK(exact > 4000 * 12);
    lore_buf_destroy(&source);
    lore_arena_destroy(&arena);
}

TEST(attributes)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    const lore_html_node *root =
        parse(&arena, LORE_STR("<ol start='7'><li><a href='#x'>a</a></ol><div hidden>h</div>"
                               "<meta property='og:title' content='T'><img alt='An image'>"
                               "<section role=main>m</section>"));
    CHECK_INT(find(root, LORE_TAG_OL)->number, 7);
    CHECK(find(root, LORE_TAG_A)->flags & LORE_HTML_SELF_LINK);
    CHECK_STR(find(root, LORE_TAG_META)->name, "og:title");
    CHECK_STR(find(root, LORE_TAG_META)->text, "T");
    CHECK_STR(find(root, LORE_TAG_IMG)->text, "An image");
    CHECK(find(root, LORE_TAG_MAIN) != NULL);
    lore_arena_destroy(&arena);
}

/* A page that nests without end is refused, and quickly; elements that hold nothing do not nest. */
TEST(depth)
{
    lore_arena arena;
    lore_buf source;
    lore_error err = {0};
    lore_html_node *root = NULL;
    lore_arena_init(&arena, 0);
    lore_buf_init(&source, 0);
    for (int i = 0; i < 100000; i++) {
        lore_buf_append(&source, LORE_STR("<b>"));
    }
    CHECK_FAILS(lore_html_parse(lore_buf_str(&source), 0, &LIMITS, NULL, &arena, &root, &err),
                LORE_ERR_LIMIT, &err, "markup_depth_max");
    lore_buf_reset(&source);
    lore_arena_reset(&arena);
    for (int i = 0; i < 1000; i++) {
        lore_buf_append(&source, LORE_STR("<p>wo<wbr>rd<br><i>x</i></p>"));
    }
    CHECK_OK(lore_html_parse(lore_buf_str(&source), 0, &LIMITS, NULL, &arena, &root, &err), &err);
    lore_buf_destroy(&source);
    lore_arena_destroy(&arena);
}

static void check_entity(const char *text, size_t length, const char *utf8)
{
    char out[5] = {0};
    size_t bytes = 0;
    CHECK_INT(lore_html_entity(lore_str_from(text), out, &bytes), length);
    if (length > 0) {
        CHECK_STR(((lore_str){out, bytes}), utf8);
    }
}

TEST(entities)
{
    check_entity("&amp;x", 5, "&");
    check_entity("&nbsp;", 6, "\xC2\xA0");
    check_entity("&apos;", 6, "'");
    check_entity("&#65;", 5, "A");
    check_entity("&#x4E2D;", 8, "\xE4\xB8\xAD");
    check_entity("&#xD800;", 0, "");
    check_entity("&#x110000;", 0, "");
    check_entity("&#99999999999999999999;", 0, "");
    check_entity("&#;", 0, "");
    check_entity("&nothing;", 0, "");
    check_entity("&amp", 0, "");
    check_entity("&", 0, "");
}

TEST(cap_of_memory)
{
    lore_arena arena;
    lore_error err = {0};
    lore_html_node *root = NULL;
    lore_arena_init(&arena, 4096);
    lore_buf source;
    lore_buf_init(&source, 0);
    for (int i = 0; i < 1000; i++) {
        lore_buf_append(&source, LORE_STR("<p>x"));
    }
    CHECK_FAILS(lore_html_parse(lore_buf_str(&source), 0, &LIMITS, NULL, &arena, &root, &err),
                LORE_ERR_NOMEM, &err, "out of memory");
    lore_buf_destroy(&source);
    lore_arena_destroy(&arena);
}

CHECK_MAIN(text_is_exact, attributes, depth, entities, cap_of_memory)
