/* Expressions to values, by recursion over a tree whose depth the parser bounded. Each node costs a
 * step, and so does each item or run of bytes that an operation touches: a run that goes on too
 * long ends with an error whatever the template does. */
#include "base/utf8.h"
#include "generation/template_int.h"

#include <string.h>

enum { ITEMS_PER_STEP = 16 }; /* that a copy of a list takes */

/* ---- operators ---- */

static lore_status wrong_operands(lore_jinja_run *run, const char *verb, const lore_jinja_value *a,
                                  const lore_jinja_value *b)
{
    return lore_jinja_run_fail(run, LORE_ERR_INVALID, "cannot %s %s and %s", verb,
                               lore_jinja_value_kind_name(a), lore_jinja_value_kind_name(b));
}

static bool is_number(const lore_jinja_value *value)
{
    return value->kind == LORE_JINJA_VALUE_INT || value->kind == LORE_JINJA_VALUE_BOOL;
}

/* Python's // and %: rounded down, the remainder has the divisor's sign. */
static lore_status divide(lore_jinja_run *run, lore_jinja_operator op, int64_t a, int64_t b,
                          int64_t *result)
{
    if (b == 0) {
        return lore_jinja_run_fail(run, LORE_ERR_INVALID, "a division by zero");
    }
    if (b == -1) { /* the one quotient that may not fit */
        *result = 0;
        bool is_over = op == LORE_JINJA_OPERATOR_DIVIDE && __builtin_sub_overflow(0, a, result);
        return is_over ? lore_jinja_run_fail(run, LORE_ERR_LIMIT, "a number over 64 bits")
                       : LORE_OK;
    }
    int64_t quotient = a / b, rest = a % b;
    bool is_off = rest != 0 && (rest < 0) != (b < 0);
    *result = op == LORE_JINJA_OPERATOR_DIVIDE ? quotient - is_off : rest + (is_off ? b : 0);
    return LORE_OK;
}

static lore_status calculate(lore_jinja_run *run, lore_jinja_operator op, const lore_jinja_value *a,
                             const lore_jinja_value *b, lore_jinja_value *out)
{
    int64_t result = 0;
    bool is_over = false;
    if (!is_number(a) || !is_number(b)) {
        return wrong_operands(run, "calculate with", a, b);
    }
    int64_t x = a->as.number, y = b->as.number;
    lore_status status = LORE_OK;
    switch (op) {
    case LORE_JINJA_OPERATOR_ADD:
        is_over = __builtin_add_overflow(x, y, &result);
        break;
    case LORE_JINJA_OPERATOR_SUBTRACT:
        is_over = __builtin_sub_overflow(x, y, &result);
        break;
    case LORE_JINJA_OPERATOR_MULTIPLY:
        is_over = __builtin_mul_overflow(x, y, &result);
        break;
    default:
        status = divide(run, op, x, y, &result);
    }
    *out = lore_jinja_value_int(result);
    return is_over ? lore_jinja_run_fail(run, LORE_ERR_LIMIT, "a number over 64 bits") : status;
}

static lore_status join_lists(lore_jinja_run *run, const lore_jinja_value *a,
                              const lore_jinja_value *b, lore_jinja_value *out)
{
    size_t count = (size_t)a->count + (size_t)b->count;
    lore_status status = lore_jinja_run_spend(run, count);
    if (status != LORE_OK) {
        return status;
    }
    lore_jinja_value *items = LORE_PUSH(&run->arena, lore_jinja_value, count);
    if (items == NULL) {
        return lore_jinja_run_no_memory(run);
    }
    if (a->count > 0) {
        memcpy(items, a->as.items, (size_t)a->count * sizeof *items);
    }
    if (b->count > 0) {
        memcpy(items + a->count, b->as.items, (size_t)b->count * sizeof *items);
    }
    *out = (lore_jinja_value){
        .kind = LORE_JINJA_VALUE_LIST, .count = (int32_t)count, .as.items = items};
    return LORE_OK;
}

static lore_status add(lore_jinja_run *run, const lore_jinja_value *a, const lore_jinja_value *b,
                       lore_jinja_value *out)
{
    if (a->kind == LORE_JINJA_VALUE_TEXT && b->kind == LORE_JINJA_VALUE_TEXT) {
        return lore_jinja_text_join(run, a->as.text, b->as.text, out);
    }
    if (a->kind == LORE_JINJA_VALUE_LIST && b->kind == LORE_JINJA_VALUE_LIST) {
        return join_lists(run, a, b, out);
    }
    return is_number(a) && is_number(b) ? calculate(run, LORE_JINJA_OPERATOR_ADD, a, b, out)
                                        : wrong_operands(run, "add", a, b);
}

static lore_status join_as_text(lore_jinja_run *run, const lore_jinja_value *a,
                                const lore_jinja_value *b, lore_jinja_value *out)
{
    lore_jinja_text left, right;
    lore_status status = lore_jinja_value_print(run, a, &left);
    if (status == LORE_OK) {
        status = lore_jinja_value_print(run, b, &right);
    }
    return status == LORE_OK ? lore_jinja_text_join(run, left, right, out) : status;
}

static lore_status compare(lore_jinja_run *run, lore_jinja_operator op, const lore_jinja_value *a,
                           const lore_jinja_value *b, lore_jinja_value *out)
{
    int order = 0;
    if (is_number(a) && is_number(b)) {
        order = a->as.number < b->as.number ? -1 : a->as.number > b->as.number;
    } else if (a->kind == LORE_JINJA_VALUE_TEXT && b->kind == LORE_JINJA_VALUE_TEXT) {
        lore_str left = lore_jinja_text_str(a->as.text), right = lore_jinja_text_str(b->as.text);
        lore_status status =
            lore_jinja_run_spend_bytes(run, left.len < right.len ? left.len : right.len);
        if (status != LORE_OK) {
            return status;
        }
        order = lore_str_compare(left, right);
    } else {
        return wrong_operands(run, "order", a, b);
    }
    *out = lore_jinja_value_bool(op == LORE_JINJA_OPERATOR_LESS         ? order < 0
                                 : op == LORE_JINJA_OPERATOR_LESS_EQUAL ? order <= 0
                                 : op == LORE_JINJA_OPERATOR_GREATER    ? order > 0
                                                                        : order >= 0);
    return LORE_OK;
}

static lore_status contains(lore_jinja_run *run, const lore_jinja_value *item,
                            const lore_jinja_value *in, lore_jinja_value *out)
{
    bool found = false;
    lore_status status = LORE_OK;
    bool is_text = item->kind == LORE_JINJA_VALUE_TEXT;
    if (in->kind == LORE_JINJA_VALUE_TEXT && is_text) {
        lore_str text = lore_jinja_text_str(in->as.text);
        status = lore_jinja_run_spend_bytes(run, text.len);
        found = lore_str_find(text, lore_jinja_text_str(item->as.text), 0) != SIZE_MAX;
    } else if (in->kind == LORE_JINJA_VALUE_MAP && is_text) {
        found = lore_jinja_map_get(in->as.map, lore_jinja_text_str(item->as.text)) != NULL;
    } else if (in->kind == LORE_JINJA_VALUE_LIST) {
        for (int32_t i = 0; i < in->count && !found && status == LORE_OK; i++) {
            status = lore_jinja_value_equal(run, item, &in->as.items[i], &found);
        }
    } else if (in->kind != LORE_JINJA_VALUE_UNDEFINED && in->kind != LORE_JINJA_VALUE_MAP) {
        status = wrong_operands(run, "look for one in the other:", item, in);
    }
    *out = lore_jinja_value_bool(found);
    return status;
}

static lore_status eval_binary(lore_jinja_run *run, const lore_jinja_node *node,
                               lore_jinja_value *out)
{
    lore_jinja_value a = {0}, b = {0};
    bool is_equal = false;
    lore_status status = lore_jinja_run_eval(run, node->first, &a);
    if (status == LORE_OK) {
        status = lore_jinja_run_eval(run, node->second, &b);
    }
    if (status != LORE_OK) {
        return status;
    }
    switch (node->op) {
    case LORE_JINJA_OPERATOR_ADD:
        return add(run, &a, &b, out);
    case LORE_JINJA_OPERATOR_JOIN:
        return join_as_text(run, &a, &b, out);
    case LORE_JINJA_OPERATOR_EQUAL:
    case LORE_JINJA_OPERATOR_UNEQUAL:
        status = lore_jinja_value_equal(run, &a, &b, &is_equal);
        *out = lore_jinja_value_bool(is_equal == (node->op == LORE_JINJA_OPERATOR_EQUAL));
        return status;
    case LORE_JINJA_OPERATOR_IN:
        return contains(run, &a, &b, out);
    case LORE_JINJA_OPERATOR_SUBTRACT:
    case LORE_JINJA_OPERATOR_MULTIPLY:
    case LORE_JINJA_OPERATOR_DIVIDE:
    case LORE_JINJA_OPERATOR_MODULO:
        return calculate(run, node->op, &a, &b, out);
    default:
        return compare(run, node->op, &a, &b, out);
    }
}

/* ---- parts of lists and texts ---- */

/* Byte at which character `index` of the text begins. */
static size_t position_of(lore_str text, int64_t index)
{
    size_t at = 0;
    for (int64_t i = 0; i < index && at < text.len; i++) {
        (void)lore_utf8_next(text, &at);
    }
    return at;
}

static lore_jinja_text characters_between(lore_jinja_text text, int64_t start, int64_t end)
{
    size_t from = position_of(lore_jinja_text_str(text), start);
    size_t to = end <= start ? from : position_of(lore_jinja_text_str(text), end);
    return lore_jinja_text_slice(text, from, to);
}

static lore_status eval_index(lore_jinja_run *run, const lore_jinja_node *node,
                              lore_jinja_value *out)
{
    lore_jinja_value subject = {0}, index = {0};
    lore_status status = lore_jinja_run_eval(run, node->first, &subject);
    if (status == LORE_OK) {
        status = lore_jinja_run_eval(run, node->second, &index);
    }
    if (status != LORE_OK) {
        return status;
    }
    bool is_text = subject.kind == LORE_JINJA_VALUE_TEXT;
    if (index.kind == LORE_JINJA_VALUE_TEXT) {
        return lore_jinja_value_attribute(run, &subject, lore_jinja_text_str(index.as.text), out);
    }
    *out = (lore_jinja_value){0};
    if (subject.kind == LORE_JINJA_VALUE_UNDEFINED) {
        return wrong_operands(run, "index one with the other:", &subject, &index);
    }
    if ((subject.kind != LORE_JINJA_VALUE_LIST && !is_text) || !is_number(&index)) {
        return LORE_OK; /* undefined */
    }
    lore_jinja_text text = subject.as.text;
    int64_t count =
        is_text ? (int64_t)lore_utf8_count(lore_jinja_text_str(text)) : (int64_t)subject.count;
    int64_t at = index.as.number < 0 ? index.as.number + count : index.as.number;
    if (at >= 0 && at < count) {
        *out = is_text ? lore_jinja_value_text(characters_between(text, at, at + 1))
                       : subject.as.items[at];
    }
    return is_text ? lore_jinja_run_spend_bytes(run, text.len) : LORE_OK;
}

/* A bound of a slice as Python clips it: counted from the end where negative, within [low, high].
 */
static int64_t clip(const lore_jinja_value *bound, int64_t absent, int64_t count, int64_t low,
                    int64_t high)
{
    if (bound->kind == LORE_JINJA_VALUE_NONE) {
        return absent;
    }
    int64_t at = bound->as.number < 0 ? bound->as.number + count : bound->as.number;
    return at < low ? low : at > high ? high : at;
}

/* The items from start to end, in steps. */
static lore_status take_items(lore_jinja_run *run, const lore_jinja_value *list, int64_t start,
                              int64_t end, int64_t step, lore_jinja_value *out)
{
    lore_status status = lore_jinja_run_spend(run, (size_t)list->count / ITEMS_PER_STEP);
    lore_jinja_value *items = LORE_PUSH(&run->arena, lore_jinja_value, list->count);
    if (status == LORE_OK && items == NULL) {
        status = lore_jinja_run_no_memory(run);
    }
    int32_t taken = 0;
    for (int64_t i = start; status == LORE_OK && (step < 0 ? i > end : i < end); i += step) {
        items[taken++] = list->as.items[i];
    }
    *out = (lore_jinja_value){.kind = LORE_JINJA_VALUE_LIST, .count = taken, .as.items = items};
    return status;
}

/* Any slice of a text but one with steps of 1: its characters one by one. */
static lore_status take_characters(lore_jinja_run *run, lore_jinja_text text, int64_t start,
                                   int64_t end, int64_t step, lore_jinja_value *out)
{
    lore_jinja_value list = {0}, taken = {0};
    lore_jinja_text_builder builder;
    lore_status status = lore_jinja_text_characters(run, text, &list);
    if (status == LORE_OK) {
        status = take_items(run, &list, start, end, step, &taken);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_jinja_text_builder_init(&builder);
    for (int32_t i = 0; i < taken.count; i++) {
        lore_jinja_text_append(&builder, taken.as.items[i].as.text);
    }
    return lore_jinja_text_finish(run, &builder, out);
}

static lore_status take_slice(lore_jinja_run *run, const lore_jinja_value *subject,
                              const lore_jinja_value bounds[3], lore_jinja_value *out)
{
    bool is_text = subject->kind == LORE_JINJA_VALUE_TEXT;
    if (subject->kind == LORE_JINJA_VALUE_UNDEFINED) {
        return lore_jinja_run_fail(run, LORE_ERR_INVALID, "a slice of something undefined");
    }
    if (!is_text && subject->kind != LORE_JINJA_VALUE_LIST) {
        *out = (lore_jinja_value){0};
        return LORE_OK;
    }
    int64_t count = is_text ? (int64_t)lore_utf8_count(lore_jinja_text_str(subject->as.text))
                            : (int64_t)subject->count;
    int64_t step = bounds[2].kind == LORE_JINJA_VALUE_NONE ? 1 : bounds[2].as.number;
    bool is_back = step < 0;
    step = step < -count - 1 ? -count - 1 : step > count + 1 ? count + 1 : step;
    int64_t low = is_back ? -1 : 0, high = is_back ? count - 1 : count;
    int64_t start = clip(&bounds[0], is_back ? high : low, count, low, high);
    int64_t end = clip(&bounds[1], is_back ? low : high, count, low, high);
    if (step == 0) {
        return lore_jinja_run_fail(run, LORE_ERR_INVALID, "a slice with steps of 0");
    }
    if (!is_text) {
        return take_items(run, subject, start, end, step, out);
    }
    if (step != 1) {
        return take_characters(run, subject->as.text, start, end, step, out);
    }
    *out = lore_jinja_value_text(characters_between(subject->as.text, start, end));
    return lore_jinja_run_spend_bytes(run, subject->as.text.len);
}

static lore_status eval_slice(lore_jinja_run *run, const lore_jinja_node *node,
                              lore_jinja_value *out)
{
    lore_jinja_value subject = {0}, bounds[3] = {{0}};
    int32_t count = 0;
    lore_status status = lore_jinja_run_eval(run, node->first, &subject);
    for (const lore_jinja_node *a = node->arguments; a != NULL && status == LORE_OK; a = a->next) {
        status = lore_jinja_run_eval(run, a, &bounds[count]);
        if (status == LORE_OK && bounds[count].kind != LORE_JINJA_VALUE_NONE &&
            bounds[count].kind != LORE_JINJA_VALUE_INT) {
            status = lore_jinja_run_fail(run, LORE_ERR_INVALID, "a slice from %s",
                                         lore_jinja_value_kind_name(&bounds[count]));
        }
        count++;
    }
    return status == LORE_OK ? take_slice(run, &subject, bounds, out) : status;
}

/* ---- the other nodes ---- */

static lore_status eval_list(lore_jinja_run *run, const lore_jinja_node *node,
                             lore_jinja_value *out)
{
    int32_t count = 0;
    for (const lore_jinja_node *a = node->arguments; a != NULL; a = a->next) {
        count++;
    }
    lore_jinja_value *items = LORE_PUSH(&run->arena, lore_jinja_value, count);
    lore_status status = items == NULL ? lore_jinja_run_no_memory(run) : LORE_OK;
    int32_t filled = 0;
    for (const lore_jinja_node *a = node->arguments; a != NULL && status == LORE_OK; a = a->next) {
        status = lore_jinja_run_eval(run, a, &items[filled++]);
    }
    *out = (lore_jinja_value){.kind = LORE_JINJA_VALUE_LIST, .count = count, .as.items = items};
    return status;
}

static lore_status eval_word(lore_jinja_run *run, const lore_jinja_node *node,
                             lore_jinja_value *out)
{
    lore_jinja_value arguments[LORE_JINJA_ARGUMENTS_MAX] = {{0}};
    lore_status status = LORE_OK;
    int32_t count = 1;
    if (node->word->run == NULL && !node->word->takes_test) {
        return lore_jinja_namespace(run, node, out);
    }
    if (node->first != NULL) {
        status = lore_jinja_run_eval(run, node->first, &arguments[0]);
    }
    for (const lore_jinja_node *a = node->arguments; a != NULL && status == LORE_OK; a = a->next) {
        LORE_ASSERT(count < LORE_JINJA_ARGUMENTS_MAX); /* the parser counted them */
        status = lore_jinja_run_eval(run, a, &arguments[count++]);
    }
    if (status != LORE_OK) {
        return status;
    }
    run->node = node;
    return node->word->takes_test ? lore_jinja_select(run, node, arguments, out)
                                  : node->word->run(run, arguments, out);
}

/* The last operand that decides is the value, as in Python. */
static lore_status eval_junction(lore_jinja_run *run, const lore_jinja_node *node,
                                 lore_jinja_value *out)
{
    lore_status status = lore_jinja_run_eval(run, node->first, out);
    bool is_decided = lore_jinja_value_truth(out) == (node->kind == LORE_JINJA_NODE_OR);
    return status != LORE_OK || is_decided ? status : lore_jinja_run_eval(run, node->second, out);
}

static lore_status eval_not(lore_jinja_run *run, const lore_jinja_node *node, lore_jinja_value *out)
{
    lore_jinja_value value = {0};
    lore_status status = lore_jinja_run_eval(run, node->first, &value);
    *out = lore_jinja_value_bool(!lore_jinja_value_truth(&value));
    return status;
}

static lore_status eval_negate(lore_jinja_run *run, const lore_jinja_node *node,
                               lore_jinja_value *out)
{
    lore_jinja_value value = {0}, zero = lore_jinja_value_int(0);
    lore_status status = lore_jinja_run_eval(run, node->first, &value);
    return status == LORE_OK ? calculate(run, LORE_JINJA_OPERATOR_SUBTRACT, &zero, &value, out)
                             : status;
}

static lore_status eval_choice(lore_jinja_run *run, const lore_jinja_node *node,
                               lore_jinja_value *out)
{
    lore_jinja_value condition = {0};
    lore_status status = lore_jinja_run_eval(run, node->first, &condition);
    *out = (lore_jinja_value){0};
    if (status != LORE_OK) {
        return status;
    }
    const lore_jinja_node *chosen = lore_jinja_value_truth(&condition) ? node->second : node->third;
    return chosen == NULL ? LORE_OK : lore_jinja_run_eval(run, chosen, out);
}

static lore_status eval_attribute(lore_jinja_run *run, const lore_jinja_node *node,
                                  lore_jinja_value *out)
{
    lore_jinja_value subject = {0};
    lore_status status = lore_jinja_run_eval(run, node->first, &subject);
    run->node = node;
    return status == LORE_OK ? lore_jinja_value_attribute(run, &subject, node->name, out) : status;
}

lore_status lore_jinja_run_eval(lore_jinja_run *run, const lore_jinja_node *node,
                                lore_jinja_value *out)
{
    run->node = node;
    lore_status status = lore_jinja_run_spend(run, 1);
    if (status != LORE_OK) {
        return status;
    }
    switch (node->kind) {
    case LORE_JINJA_NODE_CONSTANT:
        *out = node->value;
        return LORE_OK;
    case LORE_JINJA_NODE_NAME:
        return lore_jinja_run_find(run, node->name, out);
    case LORE_JINJA_NODE_LIST:
        return eval_list(run, node, out);
    case LORE_JINJA_NODE_NOT:
        return eval_not(run, node, out);
    case LORE_JINJA_NODE_NEGATE:
        return eval_negate(run, node, out);
    case LORE_JINJA_NODE_AND:
    case LORE_JINJA_NODE_OR:
        return eval_junction(run, node, out);
    case LORE_JINJA_NODE_CHOICE:
        return eval_choice(run, node, out);
    case LORE_JINJA_NODE_BINARY:
        return eval_binary(run, node, out);
    case LORE_JINJA_NODE_ATTRIBUTE:
        return eval_attribute(run, node, out);
    case LORE_JINJA_NODE_INDEX:
        return eval_index(run, node, out);
    case LORE_JINJA_NODE_SLICE:
        return eval_slice(run, node, out);
    case LORE_JINJA_NODE_WORD:
        return eval_word(run, node, out);
    case LORE_JINJA_NODE_TEXT:
    case LORE_JINJA_NODE_OUTPUT:
    case LORE_JINJA_NODE_SET:
    case LORE_JINJA_NODE_IF:
    case LORE_JINJA_NODE_FOR:
        break;
    }
    LORE_ASSERT(!"a statement is no expression");
    return LORE_ERR_INVALID;
}
