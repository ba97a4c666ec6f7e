/* Expressions, by recursive descent. From loosest to tightest, as in Jinja:
 *
 *     a if b else c     or     and     not     == != < <= > >= in, not in
 *     + -     ~     * // %     and the operands of template_operand.c */
#include "generation/template_int.h"

static bool at_operator(const lore_jinja_parser *p, const char *text)
{
    return lore_jinja_at(p, LORE_JINJA_LEXEME_OPERATOR, text);
}

static bool at_name(const lore_jinja_parser *p, const char *text)
{
    return lore_jinja_at(p, LORE_JINJA_LEXEME_NAME, text);
}

/* ---- operators ---- */

typedef struct operator_row {
    const char *text;
    lore_jinja_operator op;
} operator_row;

typedef struct operator_level {
    const operator_row *rows;
    int32_t count;
} operator_level;

static const operator_row ADDITIONS[] = {{"+", LORE_JINJA_OPERATOR_ADD},
                                         {"-", LORE_JINJA_OPERATOR_SUBTRACT}};
static const operator_row JOINS[] = {{"~", LORE_JINJA_OPERATOR_JOIN}};
static const operator_row PRODUCTS[] = {{"*", LORE_JINJA_OPERATOR_MULTIPLY},
                                        {"//", LORE_JINJA_OPERATOR_DIVIDE},
                                        {"%", LORE_JINJA_OPERATOR_MODULO}};
static const operator_level LEVELS[] = {{ADDITIONS, 2}, {JOINS, 1}, {PRODUCTS, 3}};
enum { LEVEL_COUNT = 3 };

static const operator_row COMPARISONS[] = {
    {"==", LORE_JINJA_OPERATOR_EQUAL},  {"!=", LORE_JINJA_OPERATOR_UNEQUAL},
    {"<", LORE_JINJA_OPERATOR_LESS},    {"<=", LORE_JINJA_OPERATOR_LESS_EQUAL},
    {">", LORE_JINJA_OPERATOR_GREATER}, {">=", LORE_JINJA_OPERATOR_GREATER_EQUAL}};

static const operator_row *row_at(const lore_jinja_parser *p, const operator_row *rows,
                                  int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        if (at_operator(p, rows[i].text)) {
            return &rows[i];
        }
    }
    return NULL;
}

/* first and second joined, closed, in *out. */
static lore_status join_nodes(lore_jinja_parser *p, lore_jinja_node_kind kind,
                              lore_jinja_operator op, const lore_jinja_node *first,
                              const lore_jinja_node *second, const lore_jinja_node **out)
{
    lore_jinja_node *node = NULL;
    lore_status status = lore_jinja_node_over(p, kind, first, &node);
    if (status == LORE_OK) {
        node->op = op;
        node->second = second;
        *out = node;
        status = lore_jinja_close_node(p, node);
    }
    return status;
}

static bool is_text_or_list(const lore_jinja_node *node)
{
    return node->kind == LORE_JINJA_NODE_LIST ||
           (node->kind == LORE_JINJA_NODE_CONSTANT && node->value.kind == LORE_JINJA_VALUE_TEXT);
}

/* Texts and lists are only added and joined: no 'a' * 3, no '%d' % x. */
static lore_status check_product(lore_jinja_parser *p, const operator_row *row,
                                 const lore_jinja_node *first, const lore_jinja_node *second)
{
    bool is_product = row >= PRODUCTS && row < PRODUCTS + sizeof PRODUCTS / sizeof PRODUCTS[0];
    return is_product && (is_text_or_list(first) || is_text_or_list(second))
               ? lore_jinja_fail(p, LORE_ERR_UNSUPPORTED,
                                 "the operator '%s' of a text or a list is not supported",
                                 row->text)
               : LORE_OK;
}

static lore_status parse_level(lore_jinja_parser *p, int32_t level, const lore_jinja_node **out)
{
    if (level == LEVEL_COUNT) {
        return lore_jinja_operand(p, out);
    }
    lore_status status = parse_level(p, level + 1, out);
    const operator_row *row = NULL;
    while (status == LORE_OK &&
           (row = row_at(p, LEVELS[level].rows, LEVELS[level].count)) != NULL) {
        const lore_jinja_node *second = NULL;
        status = lore_jinja_advance(p);
        if (status == LORE_OK) {
            status = parse_level(p, level + 1, &second);
        }
        if (status == LORE_OK) {
            status = check_product(p, row, *out, second);
        }
        if (status == LORE_OK) {
            status = join_nodes(p, LORE_JINJA_NODE_BINARY, row->op, *out, second, out);
        }
    }
    if (status == LORE_OK && (at_operator(p, "/") || at_operator(p, "**"))) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED,
                               "the operator '" LORE_STR_FMT "' is not supported",
                               LORE_STR_ARG(p->current.text));
    }
    return status;
}

static bool at_not_in(const lore_jinja_parser *p)
{
    return at_name(p, "not") && p->next.kind == LORE_JINJA_LEXEME_NAME &&
           lore_str_equal(p->next.text, LORE_STR("in"));
}

static lore_status parse_comparison(lore_jinja_parser *p, const lore_jinja_node **out)
{
    lore_status status = parse_level(p, 0, out);
    if (status != LORE_OK) {
        return status;
    }
    bool is_not_in = at_not_in(p);
    bool is_in = is_not_in || at_name(p, "in");
    const operator_row *row = row_at(p, COMPARISONS, 6);
    if (!is_in && row == NULL) {
        return LORE_OK;
    }
    const lore_jinja_node *second = NULL;
    status = lore_jinja_advance(p);
    if (status == LORE_OK && is_not_in) {
        status = lore_jinja_advance(p);
    }
    if (status == LORE_OK) {
        status = parse_level(p, 0, &second);
    }
    if (status == LORE_OK) {
        status = join_nodes(p, LORE_JINJA_NODE_BINARY, is_in ? LORE_JINJA_OPERATOR_IN : row->op,
                            *out, second, out);
    }
    if (status == LORE_OK && is_not_in) {
        status = join_nodes(p, LORE_JINJA_NODE_NOT, LORE_JINJA_OPERATOR_IN, *out, NULL, out);
    }
    if (status == LORE_OK &&
        (row_at(p, COMPARISONS, 6) != NULL || at_name(p, "in") || at_not_in(p))) {
        return lore_jinja_fail(p, LORE_ERR_UNSUPPORTED, "a chain of comparisons is not supported");
    }
    return status;
}

static lore_status parse_not(lore_jinja_parser *p, const lore_jinja_node **out)
{
    if (!at_name(p, "not")) {
        return parse_comparison(p, out);
    }
    const lore_jinja_node *operand = NULL;
    lore_status status = lore_jinja_enter(p);
    if (status == LORE_OK) {
        status = lore_jinja_advance(p);
    }
    if (status == LORE_OK) {
        status = parse_not(p, &operand);
    }
    if (status == LORE_OK) {
        lore_jinja_leave(p);
        status = join_nodes(p, LORE_JINJA_NODE_NOT, LORE_JINJA_OPERATOR_IN, operand, NULL, out);
    }
    return status;
}

/* a and b and c, or one floor up, a or b or c. */
static lore_status parse_junction(lore_jinja_parser *p, bool is_or, const lore_jinja_node **out)
{
    lore_status status = is_or ? parse_junction(p, false, out) : parse_not(p, out);
    while (status == LORE_OK && at_name(p, is_or ? "or" : "and")) {
        const lore_jinja_node *second = NULL;
        status = lore_jinja_advance(p);
        if (status == LORE_OK) {
            status = is_or ? parse_junction(p, false, &second) : parse_not(p, &second);
        }
        if (status == LORE_OK) {
            status = join_nodes(p, is_or ? LORE_JINJA_NODE_OR : LORE_JINJA_NODE_AND,
                                LORE_JINJA_OPERATOR_IN, *out, second, out);
        }
    }
    return status;
}

lore_status lore_jinja_expression_or(lore_jinja_parser *p, const lore_jinja_node **out)
{
    return parse_junction(p, true, out);
}

lore_status lore_jinja_expression(lore_jinja_parser *p, const lore_jinja_node **out)
{
    lore_status status = parse_junction(p, true, out);
    while (status == LORE_OK && at_name(p, "if")) {
        lore_jinja_node *node = NULL;
        const lore_jinja_node *value = *out;
        status = lore_jinja_node_over(p, LORE_JINJA_NODE_CHOICE, NULL, &node);
        if (status == LORE_OK) {
            status = lore_jinja_advance(p);
        }
        if (status == LORE_OK) {
            status = parse_junction(p, true, &node->first);
        }
        if (status != LORE_OK) {
            return status;
        }
        node->second = value;
        *out = node;
        if (at_name(p, "else")) {
            status = lore_jinja_enter(p);
            if (status == LORE_OK) {
                status = lore_jinja_advance(p);
            }
            if (status == LORE_OK) {
                status = lore_jinja_expression(p, &node->third);
            }
            if (status == LORE_OK) {
                lore_jinja_leave(p);
            }
        }
        if (status == LORE_OK) {
            status = lore_jinja_close_node(p, node);
        }
    }
    return status;
}
