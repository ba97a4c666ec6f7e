/* HTML to a tree: the fence around libxml2's HTML parser.
 *
 * The parser's own tree is not used: it would forget where text stood, and it cuts a deep document
 * off without a word. Its SAX events build a small tree in the document's arena instead, where
 * characters that stand in the source verbatim point into it, so every text knows its offset.
 * Entities come as characters that do not stand there; they are marked inexact.
 *
 * Limits: nesting (limits.markup_depth_max) is refused with an error, and so is a stack of open
 * elements in the parser itself, which is searched at every end tag; both together keep the work
 * linear. The arena's cap bounds the tree. No network, no DTD, no error output. */
#include "ingest/ingest_int.h"

#include "base/utf8.h"

#include <libxml/HTMLparser.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

enum {
    DEPTH_CAP = 1024,    /* html_text.c walks the tree by recursion */
    OPEN_PER_DEPTH = 16, /* the parser keeps elements open that we count as empty (wbr) */
    FULL_BUFFER = 900,   /* the parser collects a thousand bytes */
    STEP_EVENTS = 4096,  /* between two looks at whether it is still wanted */
    ENTITY_BYTES_MAX = 32
};

typedef struct tree {
    lore_str source;
    size_t from;
    lore_arena *arena;
    htmlParserCtxtPtr parser;
    lore_html_node *root, *current;
    size_t depth, depth_max;
    size_t last; /* source offset behind the last event */
    const lore_interrupt *interrupt;
    int32_t events; /* since it was asked */
    lore_status failure;
} tree;

static void stop(tree *t, lore_status failure)
{
    t->failure = failure;
    xmlStopParser(t->parser);
}

/* Where the parser reads now, as an offset of the source. */
static size_t position(const tree *t)
{
    xmlParserInputPtr input = t->parser->input;
    size_t at = t->from + (size_t)input->consumed + (size_t)(input->cur - input->base);
    return at < t->source.len ? at : t->source.len;
}

static lore_html_node *add_node(tree *t)
{
    lore_html_node *node = LORE_PUSH(t->arena, lore_html_node, 1);
    if (node == NULL) {
        stop(t, LORE_ERR_NOMEM);
        return NULL;
    }
    node->parent = t->current;
    node->number = -1;
    node->text = node->name = (lore_str){"", 0};
    node->flags = t->current->flags & LORE_HTML_SKIP;
    if (t->current->last == NULL) {
        t->current->first = node;
    } else {
        t->current->last->next = node;
    }
    t->current->last = node;
    return node;
}

/* ---- attributes ---- */

static bool has_word(const char *value, const char *word)
{
    return strcasestr(value, word) != NULL;
}

static lore_str keep(tree *t, const char *value)
{
    lore_str copy = lore_str_copy(t->arena, lore_str_from(value));
    if (copy.ptr == NULL) {
        stop(t, LORE_ERR_NOMEM);
        return (lore_str){"", 0};
    }
    return copy;
}

static bool is_boilerplate_role(const char *role)
{
    static const char *const roles[] = {"navigation",    "contentinfo", "search",
                                        "complementary", "dialog",      "alertdialog",
                                        "menubar",       "menu",        "toolbar"};
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        if (strcasecmp(role, roles[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* What the attributes of one element say together. */
typedef struct attributes {
    bool has_role, has_aria, is_about_consent, is_banner;
} attributes;

/* class, id or aria-label. */
static void read_label(lore_html_node *node, attributes *seen, const char *value)
{
    seen->is_about_consent = seen->is_about_consent || has_word(value, "cookie") ||
                             has_word(value, "consent") || has_word(value, "gdpr");
    seen->is_banner = seen->is_banner || has_word(value, "banner") || has_word(value, "notice") ||
                      has_word(value, "popup") || has_word(value, "modal") ||
                      has_word(value, "overlay") || has_word(value, "-bar");
    if (has_word(value, "breadcrumb")) {
        node->flags |= LORE_HTML_BOILERPLATE;
    }
    bool is_permalink = has_word(value, "headerlink") || has_word(value, "anchor-link") ||
                        has_word(value, "anchorjs-link") || has_word(value, "permalink") ||
                        has_word(value, "hash-link") || has_word(value, "skip-link") ||
                        has_word(value, "skip-to") || has_word(value, "skiplink");
    if (node->tag == LORE_TAG_A && is_permalink) {
        node->flags |= LORE_HTML_SKIP;
    }
}

static void read_role(lore_html_node *node, const char *role)
{
    if (strcasecmp(role, "main") == 0) {
        node->tag = LORE_TAG_MAIN;
    } else if (is_boilerplate_role(role)) {
        node->flags |= LORE_HTML_BOILERPLATE;
    } else if (strcasecmp(role, "presentation") == 0 || strcasecmp(role, "none") == 0) {
        node->flags |= LORE_HTML_PRESENTATION;
    }
}

static void read_number(lore_html_node *node, const char *value)
{
    int64_t number = 0;
    if (lore_str_to_int64(lore_str_trim(lore_str_from(value)), &number) && number >= 0 &&
        number < 1000000000) {
        node->number = (int32_t)number;
    }
}

static void read_attribute(tree *t, lore_html_node *node, attributes *seen, const char *name,
                           const char *value)
{
    if (strcmp(name, "class") == 0 || strcmp(name, "id") == 0) {
        read_label(node, seen, value);
    } else if (strcmp(name, "role") == 0) {
        seen->has_role = true;
        read_role(node, value);
    } else if (strcmp(name, "hidden") == 0) {
        node->flags |= LORE_HTML_SKIP;
    } else if (strcmp(name, "aria-hidden") == 0) {
        node->flags |= strcasecmp(value, "true") == 0 ? LORE_HTML_SKIP : 0;
    } else if (strncmp(name, "aria-", 5) == 0) {
        seen->has_aria = true;
        if (strcmp(name, "aria-label") == 0) {
            read_label(node, seen, value);
        }
    } else if (strcmp(name, "style") == 0) {
        bool is_hidden = has_word(value, "display:none") || has_word(value, "display: none") ||
                         has_word(value, "visibility:hidden") ||
                         has_word(value, "visibility: hidden");
        node->flags |= is_hidden ? LORE_HTML_SKIP : 0;
    } else if (strcmp(name, "href") == 0) {
        node->flags |= value[0] == '#' ? LORE_HTML_SELF_LINK : 0;
    } else if (node->tag == LORE_TAG_IMG && strcmp(name, "alt") == 0) {
        node->text = keep(t, value);
    } else if (node->tag == LORE_TAG_META && strcmp(name, "content") == 0) {
        node->text = keep(t, value);
    } else if (node->tag == LORE_TAG_META &&
               (strcmp(name, "name") == 0 || strcmp(name, "property") == 0)) {
        node->name = keep(t, value);
    } else if (strcmp(name, "start") == 0 || strcmp(name, "value") == 0) {
        read_number(node, value);
    }
}

/* ---- events ---- */

/* False once the tree is not to grow any more. */
static bool goes_on(tree *t)
{
    if (t->failure == LORE_OK && ++t->events == STEP_EVENTS) {
        t->events = 0;
        if (lore_is_interrupted(t->interrupt)) {
            stop(t, LORE_ERR_CANCELLED);
        }
    }
    return t->failure == LORE_OK;
}

static void on_start(void *self, const xmlChar *name, const xmlChar **atts)
{
    tree *t = self;
    if (!goes_on(t)) {
        return;
    }
    lore_tag tag = lore_html_tag(lore_str_from((const char *)name));
    if ((size_t)t->parser->nameNr > t->depth_max * OPEN_PER_DEPTH ||
        (t->depth >= t->depth_max && tag != LORE_TAG_VOID)) {
        stop(t, LORE_ERR_LIMIT);
        return;
    }
    t->last = position(t);
    if (tag == LORE_TAG_VOID) {
        return;
    }
    lore_html_node *node = add_node(t);
    if (node == NULL) {
        return;
    }
    node->tag = (uint8_t)(tag == LORE_TAG_UNKNOWN ? LORE_TAG_INLINE : tag);
    node->source = (uint32_t)t->last;
    node->flags |= tag == LORE_TAG_DROP ? LORE_HTML_SKIP : 0;
    attributes seen = {0};
    for (; atts != NULL && atts[0] != NULL && t->failure == LORE_OK; atts += 2) {
        read_attribute(t, node, &seen, (const char *)atts[0],
                       atts[1] == NULL ? "" : (const char *)atts[1]);
    }
    if (seen.is_about_consent && (seen.has_role || seen.has_aria || seen.is_banner)) {
        node->flags |= LORE_HTML_BOILERPLATE;
    }
    if (tag == LORE_TAG_BODY ||
        lore_str_equal(lore_str_from((const char *)name), LORE_STR("html"))) {
        node->flags = 0; /* pages hide themselves until their script has run */
    }
    t->current = node;
    t->depth++;
}

static void on_end(void *self, const xmlChar *name)
{
    tree *t = self;
    lore_tag tag = lore_html_tag(lore_str_from((const char *)name));
    if (t->failure != LORE_OK || tag == LORE_TAG_VOID) {
        return;
    }
    t->last = position(t);
    /* The parser balances its events; a node whose role changed its tag still matches by depth. */
    if (t->current != t->root) {
        t->current = t->current->parent;
        t->depth--;
    }
}

/* Characters that stand in the source near where the parser is? Gives SIZE_MAX if not. */
static size_t find_verbatim(const tree *t, lore_str text)
{
    size_t end = position(t);
    size_t start = end >= text.len ? end - text.len : 0;
    lore_str source = t->source;
    if (start >= t->from && source.len - start >= text.len &&
        memcmp(source.ptr + start, text.ptr, text.len) == 0) {
        return start;
    }
    /* The parser flushes a full buffer a character early. */
    size_t early = text.len >= FULL_BUFFER ? 8 : 0;
    size_t far = end + early < source.len ? end + early : source.len;
    size_t near = t->last < far ? t->last : far;
    return lore_str_find(lore_str_slice(source, 0, far), text, near);
}

static void on_characters(void *self, const xmlChar *characters, int length)
{
    tree *t = self;
    if (!goes_on(t) || length <= 0 || (t->current->flags & LORE_HTML_SKIP)) {
        return;
    }
    lore_str text = {(const char *)characters, (size_t)length};
    size_t at = find_verbatim(t, text);
    lore_html_node *last = t->current->last;
    if (at != SIZE_MAX && last != NULL && last->is_text && last->is_exact &&
        last->source + last->text.len == at) {
        last->text.len += text.len;
        t->last = at + text.len;
        return;
    }
    lore_html_node *node = add_node(t);
    if (node == NULL) {
        return;
    }
    node->is_text = true;
    node->is_exact = at != SIZE_MAX;
    node->source = (uint32_t)(node->is_exact ? at : t->last);
    node->text = node->is_exact ? lore_str_slice(t->source, at, at + text.len)
                                : lore_str_copy(t->arena, text);
    if (node->text.ptr == NULL) {
        stop(t, LORE_ERR_NOMEM);
        return;
    }
    t->last = node->is_exact ? at + text.len : position(t);
}

/* ---- entrance ---- */

static void init_library(void)
{
    xmlInitParser();
}

static lore_status report(const tree *t, bool is_out_of_memory, lore_error *err)
{
    if (t->failure == LORE_ERR_LIMIT) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "HTML elements nest deeper than %zu (limits.markup_depth_max)",
                         t->depth_max);
    }
    if (t->failure == LORE_ERR_CANCELLED) {
        return lore_fail(err, LORE_ERR_CANCELLED, "cancelled while parsing HTML");
    }
    if (t->failure != LORE_OK || is_out_of_memory) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory parsing HTML");
    }
    return LORE_OK;
}

lore_status lore_html_parse(lore_str source, size_t from, const lore_limits *limits,
                            const lore_interrupt *interrupt, lore_arena *arena,
                            lore_html_node **root, lore_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_library);
    size_t depth_max =
        limits->markup_depth_max < DEPTH_CAP ? (size_t)limits->markup_depth_max : DEPTH_CAP;
    tree t = {.source = source,
              .from = from,
              .arena = arena,
              .depth_max = depth_max,
              .last = from,
              .interrupt = interrupt};
    t.root = LORE_PUSH(arena, lore_html_node, 1);
    t.current = t.root;
    t.parser = t.root == NULL ? NULL : htmlNewParserCtxt();
    if (t.parser == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory parsing HTML");
    }
    t.root->text = t.root->name = (lore_str){"", 0};
    t.root->tag = LORE_TAG_BLOCK;
    *t.parser->sax = (htmlSAXHandler){.initialized = 1,
                                      .startElement = on_start,
                                      .endElement = on_end,
                                      .characters = on_characters,
                                      .ignorableWhitespace = on_characters,
                                      .cdataBlock = on_characters};
    t.parser->userData = &t;
    lore_str text = lore_str_slice(source, from, source.len);
    bool is_out_of_memory = false;
    if (text.len > 0) {
        htmlDocPtr doc =
            htmlCtxtReadMemory(t.parser, text.ptr, (int)text.len, NULL, "UTF-8",
                               HTML_PARSE_RECOVER | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING |
                                   HTML_PARSE_NONET | HTML_PARSE_IGNORE_ENC);
        is_out_of_memory = t.parser->errNo == XML_ERR_NO_MEMORY;
        if (doc != NULL) {
            xmlFreeDoc(doc);
        }
    }
    htmlFreeParserCtxt(t.parser);
    *root = t.root;
    return report(&t, is_out_of_memory, err);
}

/* ---- entities ---- */

static int32_t numeric_entity(lore_str digits)
{
    bool is_hex = digits.len > 1 && (digits.ptr[0] | 32) == 'x';
    int32_t value = 0;
    for (size_t i = is_hex ? 1 : 0; i < digits.len; i++) {
        int c = digits.ptr[i] | 32;
        int digit = c >= '0' && c <= '9'             ? c - '0'
                    : is_hex && c >= 'a' && c <= 'f' ? c - 'a' + 10
                                                     : 99;
        if (digit == 99 || value > 0x10FFFF) {
            return 0;
        }
        value = value * (is_hex ? 16 : 10) + digit;
    }
    bool is_scalar = value > 0 && value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF);
    return is_scalar ? value : 0;
}

size_t lore_html_entity(lore_str text, char out[4], size_t *out_bytes)
{
    if (text.len < 3 || text.ptr[0] != '&') {
        return 0;
    }
    size_t window = text.len < ENTITY_BYTES_MAX ? text.len : ENTITY_BYTES_MAX;
    const char *end = memchr(text.ptr, ';', window);
    if (end == NULL) {
        return 0;
    }
    size_t length = (size_t)(end - text.ptr) - 1;
    int32_t codepoint = 0;
    if (text.ptr[1] == '#') {
        codepoint = length > 1 ? numeric_entity(lore_str_slice(text, 2, length + 1)) : 0;
    } else {
        char name[ENTITY_BYTES_MAX];
        memcpy(name, text.ptr + 1, length);
        name[length] = '\0';
        const htmlEntityDesc *entity = htmlEntityLookup((const xmlChar *)name);
        codepoint = strcmp(name, "apos") == 0 ? '\'' : entity == NULL ? 0 : (int32_t)entity->value;
    }
    if (codepoint == 0) {
        return 0;
    }
    *out_bytes = lore_utf8_encode(codepoint, out);
    return length + 2;
}
