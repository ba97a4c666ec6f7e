/* Operands: constants, variables, lists, calls, and what is written behind one, which binds tighter
 * than any operator: .name, [index], [a:b:c], .method(), |filter, is test.
 *
 * Words (filters, tests, methods, functions) are looked up here and their arguments counted, so
 * that a template with a word we do not know is refused before anybody asks a question. */
#include "generation/template_int.h"

#include <string.h>

static bool at_operator(const lore_jinja_parser *p, const char *text)
{
    return lore_jinja_at(p, LORE_JINJA_LEXEME_OPERATOR, text);
}

static bool at_name(const lore_jinja_parser *p, const char *text)
{
    return lore_jinja_at(p, LORE_JINJA_LEXEME_NAME, text);
}

lore_status lore_jinja_node_over(lore_jinja_parser *p, lore_jinja_node_kind kind,
                                 const lore_jinja_node *first, lore_jinja_node **out)
{
    *out = lore_jinja_node_new(p, kind);
    if (*out == NULL) {
        return lore_jinja_no_memory(p);
    }
    (*out)->first = first;
    return LORE_OK;
}

static lore_status new_constant(lore_jinja_parser *p, lore_jinja_value value, lore_jinja_node **out)
{
    lore_status status = lore_jinja_node_over(p, LORE_JINJA_NODE_CONSTANT, NULL, out);
    if (status == LORE_OK) {
        (*out)->value = value;
        (*out)->depth = 1;
    }
    return status;
}

/* ---- arguments ---- */

/* One argument: expression, or name = expression. */
static lore_status parse_argument(lore_jinja_parser *p, lore_jinja_node **out)
{
    lore_str keyword = {0};
    bool is_named = p->current.kind == LORE_JINJA_LEXEME_NAME &&
                    p->next.kind == LORE_JINJA_LEXEME_OPERATOR &&
                    lore_str_equal(p->next.text, LORE_STR("="));
    lore_status status = LORE_OK;
    if (is_named) {
        keyword = p->current.text;
        status = lore_jinja_advance(p);
        if (status == LORE_OK) {
            status = lore_jinja_advance(p);
        }
    }
    const lore_jinja_node *value = NULL;
    if (status == LORE_OK) {
        status = lore_jinja_expression(p, &value);
    }
    if (status == LORE_OK) {
        status = lore_jinja_node_over(p, LORE_JINJA_NODE_OR, NULL,
                                      out); /* a copy: its `next` is the argument's own */
    }
    if (status == LORE_OK) {
        **out = *value;
        (*out)->keyword = keyword;
        (*out)->next = NULL;
    }
    return status;
}

/* What stands between an opened bracket and `close`, which is taken too. */
static lore_status parse_arguments(lore_jinja_parser *p, const char *close,
                                   const lore_jinja_node **list)
{
    lore_jinja_node *last = NULL;
    lore_status status = lore_jinja_enter(p);
    while (status == LORE_OK && !at_operator(p, close)) {
        lore_jinja_node *argument = NULL;
        status = parse_argument(p, &argument);
        if (status != LORE_OK) {
            return status;
        }
        if (last != NULL) {
            last->next = argument;
        } else {
            *list = argument;
        }
        last = argument;
        if (!at_operator(p, close)) {
            status = lore_jinja_expect(p, LORE_JINJA_LEXEME_OPERATOR, ",");
        }
    }
    if (status == LORE_OK) {
        lore_jinja_leave(p);
        status = lore_jinja_advance(p);
    }
    return status;
}

/* ---- words ---- */

static bool is_constant_text(const lore_jinja_node *node)
{
    return node != NULL && node->kind == LORE_JINJA_NODE_CONSTANT &&
           node->value.kind == LORE_JINJA_VALUE_TEXT;
}

/* select('test', argument), selectattr('attribute', 'test', argument): the test must be known now.
 */
static lore_status check_test(lore_jinja_parser *p, lore_jinja_node *node)
{
    const lore_jinja_node *name = node->arguments;
    if (node->word->by_attribute) {
        if (!is_constant_text(name) ||
            memchr(name->value.as.text.ptr, '.', name->value.as.text.len) != NULL) {
            return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED,
                                   "%s is only supported with the plain name of an attribute",
                                   node->word->name);
        }
        name = name->next;
    }
    if (name == NULL) {
        return LORE_OK; /* what is true passes */
    }
    if (!is_constant_text(name)) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED,
                               "%s is only supported with the plain name of a test",
                               node->word->name);
    }
    lore_str wanted = lore_jinja_text_str(name->value.as.text);
    node->test = lore_jinja_test(wanted);
    int32_t count = name->next != NULL;
    if (node->test == NULL || count < node->test->arguments_min ||
        count > node->test->arguments_max) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED,
                               "the test '" LORE_STR_FMT
                               "' that %s applies is not supported with %d arguments",
                               LORE_STR_ARG(wanted), node->word->name, count);
    }
    return LORE_OK;
}

static lore_status check_word(lore_jinja_parser *p, lore_jinja_node *node)
{
    const lore_jinja_word *word = node->word;
    bool is_namespace = word->run == NULL && !word->takes_test;
    int32_t count = 0;
    for (const lore_jinja_node *a = node->arguments; a != NULL; a = a->next) {
        lore_str wanted = lore_str_from(word->keyword);
        if (is_namespace ? a->keyword.len == 0 : !lore_str_equal(a->keyword, wanted)) {
            return lore_jinja_fail(
                p, LORE_ERR_UNSUPPORTED, "%s is not supported with the argument " LORE_STR_FMT "%s",
                word->name, LORE_STR_ARG(a->keyword), a->keyword.len > 0 ? "=" : "without a name");
        }
        count++;
    }
    if (!is_namespace && (count < word->arguments_min || count > word->arguments_max)) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED, "%s is not supported with %d arguments",
                               word->name, count);
    }
    lore_status status = word->takes_test ? check_test(p, node) : LORE_OK;
    return status == LORE_OK ? lore_jinja_close_node(p, node) : status;
}

/* A word at the name in hand, with its arguments in brackets. *out is the node. */
static lore_status parse_word(lore_jinja_parser *p, const lore_jinja_word *(*find)(lore_str name),
                              const char *what, const lore_jinja_node *subject,
                              lore_jinja_node **out)
{
    lore_str name = p->current.text;
    if (p->current.kind != LORE_JINJA_LEXEME_NAME) {
        return lore_jinja_expect(p, LORE_JINJA_LEXEME_NAME, NULL);
    }
    const lore_jinja_word *word = find(name);
    if (word == NULL) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED,
                               "the %s '" LORE_STR_FMT "' is not supported", what,
                               LORE_STR_ARG(name));
    }
    lore_status status = lore_jinja_node_over(p, LORE_JINJA_NODE_WORD, subject, out);
    if (status != LORE_OK) {
        return status;
    }
    (*out)->word = word;
    status = lore_jinja_advance(p);
    if (status == LORE_OK && at_operator(p, "(")) {
        status = lore_jinja_advance(p);
        if (status == LORE_OK) {
            status = parse_arguments(p, ")", &(*out)->arguments);
        }
    }
    return status;
}

/* ---- operands ---- */

static lore_status parse_plain(lore_jinja_parser *p, const lore_jinja_node **out);

/* ( expression ), or ( a, b ): a list. The bracket has been taken. */
static lore_status parse_brackets(lore_jinja_parser *p, const lore_jinja_node **out)
{
    lore_jinja_node *list = NULL;
    const lore_jinja_node *items = NULL;
    lore_status status = lore_jinja_enter(p);
    if (status == LORE_OK) {
        status = lore_jinja_expression(p, &items);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_jinja_leave(p);
    *out = items;
    if (!at_operator(p, ",")) {
        return lore_jinja_expect(p, LORE_JINJA_LEXEME_OPERATOR, ")");
    }
    status = lore_jinja_node_over(p, LORE_JINJA_NODE_LIST, NULL, &list);
    lore_jinja_node *first = NULL;
    if (status == LORE_OK) {
        status = lore_jinja_node_over(p, LORE_JINJA_NODE_OR, NULL, &first);
    }
    if (status == LORE_OK) {
        *first = *items;
        list->arguments = first;
        status = lore_jinja_advance(p);
    }
    if (status == LORE_OK) {
        status = parse_arguments(p, ")", &first->next);
    }
    *out = list;
    return status == LORE_OK ? lore_jinja_close_node(p, list) : status;
}

static lore_status parse_list(lore_jinja_parser *p, const lore_jinja_node **out)
{
    lore_jinja_node *list = NULL;
    lore_status status = lore_jinja_node_over(p, LORE_JINJA_NODE_LIST, NULL, &list);
    if (status == LORE_OK) {
        status = parse_arguments(p, "]", &list->arguments);
    }
    *out = list;
    return status == LORE_OK ? lore_jinja_close_node(p, list) : status;
}

static bool is_reserved(lore_str name)
{
    static const char *const words[] = {"in", "is", "and", "or", "not", "if", "else", "elif"};
    bool found = false;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        found = found || lore_str_equal(name, lore_str_from(words[i]));
    }
    return found;
}

/* A name by itself: a constant, a function that is called, or a variable. */
static lore_status parse_name(lore_jinja_parser *p, const lore_jinja_node **out)
{
    static const struct {
        const char *name;
        lore_jinja_value value;
    } constants[] = {{"true", {.kind = LORE_JINJA_VALUE_BOOL, .as.number = 1}},
                     {"True", {.kind = LORE_JINJA_VALUE_BOOL, .as.number = 1}},
                     {"false", {.kind = LORE_JINJA_VALUE_BOOL}},
                     {"False", {.kind = LORE_JINJA_VALUE_BOOL}},
                     {"none", {.kind = LORE_JINJA_VALUE_NONE}},
                     {"None", {.kind = LORE_JINJA_VALUE_NONE}}};
    lore_jinja_node *node = NULL;
    lore_str name = p->current.text;
    lore_status status = LORE_OK;
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        if (lore_str_equal(name, lore_str_from(constants[i].name))) {
            status = new_constant(p, constants[i].value, &node);
            *out = node;
            return status == LORE_OK ? lore_jinja_advance(p) : status;
        }
    }
    if (is_reserved(name)) {
        return lore_jinja_fail(p, LORE_ERR_INVALID, "'" LORE_STR_FMT "' where a value should stand",
                               LORE_STR_ARG(name));
    }
    if (p->next.kind == LORE_JINJA_LEXEME_OPERATOR && lore_str_equal(p->next.text, LORE_STR("("))) {
        status = parse_word(p, lore_jinja_function, "function", NULL, &node);
        *out = node;
        return status == LORE_OK ? check_word(p, node) : status;
    }
    status = lore_jinja_node_over(p, LORE_JINJA_NODE_NAME, NULL, &node);
    if (status == LORE_OK) {
        node->name = name;
        node->depth = 1;
        status = lore_jinja_advance(p);
    }
    *out = node;
    return status;
}

static lore_status parse_primary(lore_jinja_parser *p, const lore_jinja_node **out)
{
    lore_jinja_node *node = NULL;
    lore_status status = LORE_OK;
    if (p->current.kind == LORE_JINJA_LEXEME_NAME) {
        return parse_name(p, out);
    }
    if (p->current.kind == LORE_JINJA_LEXEME_STRING ||
        p->current.kind == LORE_JINJA_LEXEME_INTEGER) {
        status = new_constant(p,
                              p->current.kind == LORE_JINJA_LEXEME_STRING
                                  ? lore_jinja_value_text(lore_jinja_text_own(p->current.text))
                                  : lore_jinja_value_int(p->current.number),
                              &node);
        *out = node;
        if (status == LORE_OK && p->current.kind == LORE_JINJA_LEXEME_STRING &&
            p->next.kind == LORE_JINJA_LEXEME_STRING) {
            return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED,
                                   "strings side by side are not supported: join them by ~");
        }
        return status == LORE_OK ? lore_jinja_advance(p) : status;
    }
    if (at_operator(p, "+")) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED, "a '+' before a value is not supported");
    }
    if (at_operator(p, "(") || at_operator(p, "[")) {
        bool is_list = at_operator(p, "[");
        status = lore_jinja_advance(p);
        if (status != LORE_OK) {
            return status;
        }
        return is_list ? parse_list(p, out) : parse_brackets(p, out);
    }
    return lore_jinja_expect(p, LORE_JINJA_LEXEME_NAME, "a value");
}

/* ---- what follows an operand ---- */

/* One of the three parts of [a:b:c]; none where it is empty. */
static lore_status parse_bound(lore_jinja_parser *p, bool is_empty, lore_jinja_node **out)
{
    if (!is_empty) {
        return parse_argument(p, out);
    }
    lore_status status = lore_jinja_node_over(p, LORE_JINJA_NODE_CONSTANT, NULL, out);
    if (status == LORE_OK) {
        (*out)->value.kind = LORE_JINJA_VALUE_NONE;
        (*out)->depth = 1;
    }
    return status;
}

/* Behind the bracket that opened: index or slice of `first`. */
static lore_status parse_subscript(lore_jinja_parser *p, const lore_jinja_node *first,
                                   const lore_jinja_node **out)
{
    lore_jinja_node *node = NULL, *bounds[3] = {NULL, NULL, NULL};
    lore_status status = lore_jinja_node_over(p, LORE_JINJA_NODE_INDEX, first, &node);
    if (status == LORE_OK) {
        status = lore_jinja_enter(p);
    }
    bool has_part = true; /* nothing before it, or a colon */
    for (int32_t i = 0; i < 3 && status == LORE_OK; i++) {
        bool is_empty = at_operator(p, ":") || (i > 0 && at_operator(p, "]"));
        status = parse_bound(p, is_empty || !has_part, &bounds[i]);
        has_part = i < 2 && at_operator(p, ":");
        if (status == LORE_OK && has_part) {
            node->kind = LORE_JINJA_NODE_SLICE;
            status = lore_jinja_advance(p);
        }
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_jinja_leave(p);
    *out = node;
    if (node->kind == LORE_JINJA_NODE_SLICE) {
        bounds[0]->next = bounds[1];
        bounds[1]->next = bounds[2];
        node->arguments = bounds[0];
    } else {
        node->second = bounds[0];
    }
    status = lore_jinja_expect(p, LORE_JINJA_LEXEME_OPERATOR, "]");
    return status == LORE_OK ? lore_jinja_close_node(p, node) : status;
}

/* What `loop` can tell. */
static bool is_loop_attribute(lore_str name)
{
    static const char *const names[] = {"index", "index0", "revindex", "revindex0", "first",
                                        "last",  "length", "previtem", "nextitem"};
    bool found = false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        found = found || lore_str_equal(name, lore_str_from(names[i]));
    }
    return found;
}

/* Behind the dot: an attribute of `first`, or a method that is called. */
static lore_status parse_member(lore_jinja_parser *p, const lore_jinja_node *first,
                                const lore_jinja_node **out)
{
    lore_jinja_node *node = NULL;
    lore_status status = LORE_OK;
    if (p->next.kind == LORE_JINJA_LEXEME_OPERATOR && lore_str_equal(p->next.text, LORE_STR("("))) {
        status = parse_word(p, lore_jinja_method, "method", first, &node);
        *out = node;
        return status == LORE_OK ? check_word(p, node) : status;
    }
    status = lore_jinja_node_over(p, LORE_JINJA_NODE_ATTRIBUTE, first, &node);
    if (status != LORE_OK) {
        return status;
    }
    *out = node;
    node->name = p->current.text;
    bool is_loop =
        first->kind == LORE_JINJA_NODE_NAME && lore_str_equal(first->name, LORE_STR("loop"));
    if (is_loop && !is_loop_attribute(node->name)) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED, "loop." LORE_STR_FMT " is not supported",
                               LORE_STR_ARG(node->name));
    }
    status = lore_jinja_expect(p, LORE_JINJA_LEXEME_NAME, NULL);
    return status == LORE_OK ? lore_jinja_close_node(p, node) : status;
}

/* Behind `is`: [not] test [argument]. */
static lore_status parse_test(lore_jinja_parser *p, const lore_jinja_node *first,
                              const lore_jinja_node **out)
{
    lore_jinja_node *node = NULL, *negation = NULL;
    bool is_negated = at_name(p, "not");
    lore_status status = is_negated ? lore_jinja_advance(p) : LORE_OK;
    if (status == LORE_OK) {
        status = parse_word(p, lore_jinja_test, "test", first, &node);
    }
    if (status == LORE_OK && node->arguments == NULL && node->word->arguments_min > 0) {
        status = lore_jinja_enter(p); /* the argument may stand without brackets */
        if (status == LORE_OK) {
            status = parse_plain(p, &node->arguments);
        }
        if (status == LORE_OK) {
            lore_jinja_leave(p);
        }
    }
    if (status == LORE_OK) {
        status = check_word(p, node);
    }
    *out = node;
    if (status != LORE_OK || !is_negated) {
        return status;
    }
    status = lore_jinja_node_over(p, LORE_JINJA_NODE_NOT, node, &negation);
    *out = negation;
    return status == LORE_OK ? lore_jinja_close_node(p, negation) : status;
}

/* An operand with its indices, members and calls. */
static lore_status parse_plain(lore_jinja_parser *p, const lore_jinja_node **out)
{
    lore_status status = parse_primary(p, out);
    while (status == LORE_OK && (at_operator(p, ".") || at_operator(p, "["))) {
        bool is_member = at_operator(p, ".");
        status = lore_jinja_advance(p);
        if (status == LORE_OK) {
            status = is_member ? parse_member(p, *out, out) : parse_subscript(p, *out, out);
        }
    }
    if (status == LORE_OK && at_operator(p, "(")) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED, "this call is not supported");
    }
    return status;
}

/* The filters and tests behind an operand. */
static lore_status parse_filters(lore_jinja_parser *p, const lore_jinja_node **out)
{
    lore_status status = LORE_OK;
    while (status == LORE_OK && (at_operator(p, "|") || at_name(p, "is"))) {
        bool is_filter = at_operator(p, "|");
        lore_jinja_node *node = NULL;
        status = lore_jinja_advance(p);
        if (status != LORE_OK) {
            return status;
        }
        if (!is_filter) {
            status = parse_test(p, *out, out);
            continue;
        }
        status = parse_word(p, lore_jinja_filter, "filter", *out, &node);
        *out = node;
        if (status == LORE_OK) {
            status = check_word(p, node);
        }
    }
    return status;
}

/* -a is tighter than a filter behind it: -1|string is (-1)|string. */
lore_status lore_jinja_operand(lore_jinja_parser *p, const lore_jinja_node **out)
{
    lore_status status = LORE_OK;
    if (!at_operator(p, "-")) {
        status = parse_plain(p, out);
        return status == LORE_OK ? parse_filters(p, out) : status;
    }
    lore_jinja_node *node = NULL;
    const lore_jinja_node *operand = NULL;
    status = lore_jinja_advance(p);
    if (status == LORE_OK) {
        status = parse_plain(p, &operand);
    }
    if (status == LORE_OK) {
        status = lore_jinja_node_over(p, LORE_JINJA_NODE_NEGATE, operand, &node);
    }
    *out = node;
    if (status == LORE_OK) {
        status = lore_jinja_close_node(p, node);
    }
    return status == LORE_OK ? parse_filters(p, out) : status;
}
