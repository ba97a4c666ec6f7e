/* Statements: text, {{ ... }}, set, if, for. What Jinja has beyond that is refused by its name and
 * line, here and in template_expr.c, so that nothing is left to find out while a question waits.
 *
 * Trees are walked by recursion later on, so their depth is bounded here: brackets and blocks by
 * counting them, and since chains like a + b + c nest to the left without either, each node also
 * knows the depth of what hangs below it. */
#include "base/utf8.h"
#include "generation/template_int.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- what both halves of the parser use ---- */

lore_status lore_jinja_fail(lore_jinja_parser *p, lore_status status, const char *format, ...)
{
    char message[LORE_ERROR_MESSAGE_CAP];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return lore_fail(p->err, status, "%s:%d: %s", p->lexer.name, p->current.line, message);
}

lore_status lore_jinja_no_memory(lore_jinja_parser *p)
{
    return lore_fail(p->err, LORE_ERR_NOMEM, "out of memory for the template '%s'", p->lexer.name);
}

lore_status lore_jinja_advance(lore_jinja_parser *p)
{
    p->current = p->next;
    return p->next.kind == LORE_JINJA_LEXEME_END ? LORE_OK
                                                 : lore_jinja_lexer_next(&p->lexer, &p->next);
}

lore_status lore_jinja_enter(lore_jinja_parser *p)
{
    if (p->nesting == LORE_JINJA_NESTING_MAX) {
        return lore_jinja_fail(p, LORE_ERR_LIMIT, "more than %d levels of brackets and blocks",
                               (int)LORE_JINJA_NESTING_MAX);
    }
    p->nesting++;
    return LORE_OK;
}

void lore_jinja_leave(lore_jinja_parser *p)
{
    p->nesting--;
}

static bool is_lexeme(const lore_jinja_lexeme *lexeme, lore_jinja_lexeme_kind kind,
                      const char *text)
{
    return lexeme->kind == kind &&
           (text == NULL || lore_str_equal(lexeme->text, lore_str_from(text)));
}

bool lore_jinja_at(const lore_jinja_parser *p, lore_jinja_lexeme_kind kind, const char *text)
{
    return is_lexeme(&p->current, kind, text);
}

static const char *kind_name(lore_jinja_lexeme_kind kind)
{
    static const char *const names[] = {"the end", "text",   "'{%'",     "'%}'",     "'{{'",
                                        "'}}'",    "a name", "a number", "a string", "an operator"};
    return names[kind];
}

lore_status lore_jinja_expect(lore_jinja_parser *p, lore_jinja_lexeme_kind kind, const char *text)
{
    if (lore_jinja_at(p, kind, text)) {
        return lore_jinja_advance(p);
    }
    const char *wanted = text != NULL ? text : kind_name(kind);
    if (p->current.kind < LORE_JINJA_LEXEME_NAME) {
        return lore_jinja_fail(p, LORE_ERR_INVALID, "%s where %s should stand",
                               kind_name(p->current.kind), wanted);
    }
    return lore_jinja_fail(p, LORE_ERR_INVALID, "'" LORE_STR_FMT "' where %s should stand",
                           LORE_STR_ARG(p->current.text), wanted);
}

lore_jinja_node *lore_jinja_node_new(lore_jinja_parser *p, lore_jinja_node_kind kind)
{
    lore_jinja_node *node = LORE_PUSH(p->arena, lore_jinja_node, 1);
    if (node != NULL) {
        node->kind = kind;
        node->line = p->current.line;
    }
    return node;
}

static int32_t deepest(const lore_jinja_node *list, int32_t depth)
{
    for (; list != NULL; list = list->next) {
        depth = list->depth > depth ? list->depth : depth;
    }
    return depth;
}

lore_status lore_jinja_close_node(lore_jinja_parser *p, lore_jinja_node *node)
{
    int32_t depth = deepest(node->arguments, 0);
    depth = deepest(node->first, depth);
    depth = deepest(node->second, depth);
    node->depth = 1 + deepest(node->third, depth);
    return node->depth <= LORE_JINJA_DEPTH_MAX
               ? LORE_OK
               : lore_jinja_fail(p, LORE_ERR_LIMIT,
                                 "an expression or block of more than %d parts "
                                 "within parts",
                                 (int)LORE_JINJA_DEPTH_MAX);
}

/* ---- statements ---- */

static lore_status parse_body(lore_jinja_parser *p, const lore_jinja_node **body);

static lore_status take_name(lore_jinja_parser *p, lore_str *name)
{
    *name = p->current.text;
    return lore_jinja_expect(p, LORE_JINJA_LEXEME_NAME, NULL);
}

static lore_status end_block(lore_jinja_parser *p)
{
    return lore_jinja_expect(p, LORE_JINJA_LEXEME_BLOCK_END, NULL);
}

/* {% set name = expression %}, {% set name.attribute = expression %}. */
static lore_status parse_set(lore_jinja_parser *p, lore_jinja_node *node)
{
    node->kind = LORE_JINJA_NODE_SET;
    lore_status status = take_name(p, &node->name);
    if (status == LORE_OK && lore_jinja_at(p, LORE_JINJA_LEXEME_OPERATOR, ".")) {
        status = lore_jinja_advance(p);
        if (status == LORE_OK) {
            status = take_name(p, &node->attribute);
        }
    }
    if (status == LORE_OK && !lore_jinja_at(p, LORE_JINJA_LEXEME_OPERATOR, "=")) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED,
                               "{%% set %%} is only supported as NAME = VALUE");
    }
    if (status == LORE_OK) {
        status = lore_jinja_advance(p);
    }
    if (status == LORE_OK) {
        status = lore_jinja_expression(p, &node->first);
    }
    if (status == LORE_OK && lore_jinja_at(p, LORE_JINJA_LEXEME_OPERATOR, ",")) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED,
                               "{%% set %%} to several values is not supported without brackets");
    }
    return status == LORE_OK ? end_block(p) : status;
}

/* Behind the condition and up to {% endif %}, which an elif shares with its if. */
static lore_status parse_branches(lore_jinja_parser *p, lore_jinja_node *node)
{
    lore_status status = lore_jinja_expression(p, &node->first);
    if (status == LORE_OK) {
        status = end_block(p);
    }
    if (status == LORE_OK) {
        status = parse_body(p, &node->second);
    }
    if (status == LORE_OK) {
        status = lore_jinja_expect(p, LORE_JINJA_LEXEME_BLOCK_BEGIN, NULL);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (lore_jinja_at(p, LORE_JINJA_LEXEME_NAME, "elif")) {
        lore_jinja_node *branch = lore_jinja_node_new(p, LORE_JINJA_NODE_IF);
        node->third = branch;
        status = branch == NULL ? lore_jinja_no_memory(p) : lore_jinja_enter(p);
        if (status == LORE_OK) {
            status = lore_jinja_advance(p);
        }
        if (status == LORE_OK) {
            status = parse_branches(p, branch);
        }
        if (status == LORE_OK) {
            lore_jinja_leave(p);
            status = lore_jinja_close_node(p, branch);
        }
        return status;
    }
    if (lore_jinja_at(p, LORE_JINJA_LEXEME_NAME, "else")) {
        status = lore_jinja_advance(p);
        if (status == LORE_OK) {
            status = end_block(p);
        }
        if (status == LORE_OK) {
            status = parse_body(p, &node->third);
        }
        if (status == LORE_OK) {
            status = lore_jinja_expect(p, LORE_JINJA_LEXEME_BLOCK_BEGIN, NULL);
        }
    }
    if (status == LORE_OK) {
        status = lore_jinja_expect(p, LORE_JINJA_LEXEME_NAME, "endif");
    }
    return status == LORE_OK ? end_block(p) : status;
}

/* Behind the names: in LIST [if CONDITION] %} ... {% endfor %} */
static lore_status parse_loop(lore_jinja_parser *p, lore_jinja_node *node)
{
    lore_status status = lore_jinja_expect(p, LORE_JINJA_LEXEME_NAME, "in");
    if (status == LORE_OK) {
        status = lore_jinja_expression_or(p, &node->first);
    }
    if (status == LORE_OK && lore_jinja_at(p, LORE_JINJA_LEXEME_NAME, "if")) {
        status = lore_jinja_advance(p);
        if (status == LORE_OK) {
            status = lore_jinja_expression(p, &node->third);
        }
    }
    if (status == LORE_OK && lore_jinja_at(p, LORE_JINJA_LEXEME_NAME, "recursive")) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED, "a recursive loop is not supported");
    }
    if (status == LORE_OK) {
        status = end_block(p);
    }
    if (status == LORE_OK) {
        status = parse_body(p, &node->second);
    }
    if (status == LORE_OK) {
        status = lore_jinja_expect(p, LORE_JINJA_LEXEME_BLOCK_BEGIN, NULL);
    }
    if (status == LORE_OK && lore_jinja_at(p, LORE_JINJA_LEXEME_NAME, "else")) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED, "{%% else %%} of a loop is not supported");
    }
    if (status == LORE_OK) {
        status = lore_jinja_expect(p, LORE_JINJA_LEXEME_NAME, "endfor");
    }
    return status == LORE_OK ? end_block(p) : status;
}

static lore_status parse_for(lore_jinja_parser *p, lore_jinja_node *node)
{
    node->kind = LORE_JINJA_NODE_FOR;
    if (lore_jinja_at(p, LORE_JINJA_LEXEME_OPERATOR, "(")) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED,
                               "a loop over names in brackets is not supported");
    }
    lore_status status = take_name(p, &node->name);
    if (status == LORE_OK && lore_jinja_at(p, LORE_JINJA_LEXEME_OPERATOR, ",")) {
        status = lore_jinja_advance(p);
        if (status == LORE_OK) {
            status = take_name(p, &node->attribute);
        }
    }
    if (status == LORE_OK && lore_jinja_at(p, LORE_JINJA_LEXEME_OPERATOR, ",")) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED,
                               "a loop over more than two names is not supported");
    }
    return status == LORE_OK ? parse_loop(p, node) : status;
}

/* Behind {%. */
static lore_status parse_block(lore_jinja_parser *p, lore_jinja_node **out)
{
    lore_str name = p->current.text;
    lore_jinja_node *node = lore_jinja_node_new(p, LORE_JINJA_NODE_IF);
    if (node == NULL) {
        return lore_jinja_no_memory(p);
    }
    *out = node;
    bool is_set = lore_jinja_at(p, LORE_JINJA_LEXEME_NAME, "set");
    bool is_if = lore_jinja_at(p, LORE_JINJA_LEXEME_NAME, "if");
    if (!is_set && !is_if && !lore_jinja_at(p, LORE_JINJA_LEXEME_NAME, "for")) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED,
                               "{%% " LORE_STR_FMT " %%} is not supported here (there are set, "
                               "if, elif, else, for)",
                               LORE_STR_ARG(name));
    }
    lore_status status = lore_jinja_enter(p);
    if (status == LORE_OK) {
        status = lore_jinja_advance(p);
    }
    if (status == LORE_OK) {
        status = is_set ? parse_set(p, node) : is_if ? parse_branches(p, node) : parse_for(p, node);
    }
    if (status == LORE_OK) {
        lore_jinja_leave(p);
        status = lore_jinja_close_node(p, node);
    }
    return status;
}

static lore_status parse_output(lore_jinja_parser *p, lore_jinja_node **out)
{
    lore_jinja_node *node = lore_jinja_node_new(p, LORE_JINJA_NODE_OUTPUT);
    if (node == NULL) {
        return lore_jinja_no_memory(p);
    }
    *out = node;
    lore_status status = lore_jinja_expression(p, &node->first);
    if (status == LORE_OK) {
        status = lore_jinja_expect(p, LORE_JINJA_LEXEME_OUTPUT_END, NULL);
    }
    return status == LORE_OK ? lore_jinja_close_node(p, node) : status;
}

/* One statement; *out stays NULL for a text that is empty. */
static lore_status parse_statement(lore_jinja_parser *p, lore_jinja_node **out)
{
    if (lore_jinja_at(p, LORE_JINJA_LEXEME_TEXT, NULL)) {
        lore_jinja_node *node = lore_jinja_node_new(p, LORE_JINJA_NODE_TEXT);
        if (node == NULL) {
            return lore_jinja_no_memory(p);
        }
        node->value = lore_jinja_value_text(lore_jinja_text_own(p->current.text));
        node->depth = 1;
        *out = p->current.text.len > 0 ? node : NULL;
        return lore_jinja_advance(p);
    }
    bool is_block = lore_jinja_at(p, LORE_JINJA_LEXEME_BLOCK_BEGIN, NULL);
    lore_status status = lore_jinja_advance(p);
    if (status != LORE_OK) {
        return status;
    }
    return is_block ? parse_block(p, out) : parse_output(p, out);
}

/* {% and a word that belongs to the block around. */
static bool is_at_body_end(const lore_jinja_parser *p)
{
    static const char *const enders[] = {"elif", "else", "endif", "endfor"};
    bool is_end = lore_jinja_at(p, LORE_JINJA_LEXEME_END, NULL);
    for (size_t i = 0; i < sizeof enders / sizeof enders[0]; i++) {
        is_end = is_end || (lore_jinja_at(p, LORE_JINJA_LEXEME_BLOCK_BEGIN, NULL) &&
                            is_lexeme(&p->next, LORE_JINJA_LEXEME_NAME, enders[i]));
    }
    return is_end;
}

static lore_status parse_body(lore_jinja_parser *p, const lore_jinja_node **body)
{
    lore_jinja_node *last = NULL;
    while (!is_at_body_end(p)) {
        lore_jinja_node *node = NULL;
        lore_status status = parse_statement(p, &node);
        if (status != LORE_OK) {
            return status;
        }
        if (node != NULL && last != NULL) {
            last->next = node;
        } else if (node != NULL) {
            *body = node;
        }
        last = node != NULL ? node : last;
    }
    return LORE_OK;
}

lore_status lore_jinja_parse_source(lore_str source, const char *name, lore_arena *arena,
                                    const lore_jinja_node **body, lore_error *err)
{
    lore_jinja_parser p = {.arena = arena, .err = err};
    const lore_jinja_node *parsed = NULL;
    if (source.len > LORE_JINJA_SOURCE_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "the template '%s' has %zu bytes, at most %d may be",
                         name, source.len, (int)LORE_JINJA_SOURCE_MAX);
    }
    size_t invalid = lore_utf8_valid(source);
    if (invalid < source.len) {
        return lore_fail(err, LORE_ERR_INVALID, "the template '%s' is not UTF-8: byte %zu is wrong",
                         name, invalid);
    }
    lore_status status = lore_jinja_lexer_init(&p.lexer, source, name, arena, err);
    if (status == LORE_OK) {
        status = lore_jinja_lexer_next(&p.lexer, &p.next);
    }
    if (status == LORE_OK) {
        status = lore_jinja_advance(&p);
    }
    if (status == LORE_OK) {
        status = parse_body(&p, &parsed);
    }
    if (status == LORE_OK && !lore_jinja_at(&p, LORE_JINJA_LEXEME_END, NULL)) {
        p.current = p.next;
        status = lore_jinja_fail(&p, LORE_ERR_INVALID,
                                 "{%% " LORE_STR_FMT " %%} closes nothing that was opened",
                                 LORE_STR_ARG(p.current.text));
    }
    if (status == LORE_OK) {
        *body = parsed;
    }
    return status;
}
