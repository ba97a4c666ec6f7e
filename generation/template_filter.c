/* Filters and tests: one function each, and the tables in which the parser finds them. */
#include "base/utf8.h"
#include "generation/template_int.h"

#include <string.h>

/* ---- filters ---- */

static lore_status text_of(lore_jinja_run *run, const lore_jinja_value *value,
                           lore_jinja_text *text)
{
    return lore_jinja_value_print(run, value, text);
}

static lore_status run_trim(lore_jinja_run *run, const lore_jinja_value *arguments,
                            lore_jinja_value *out)
{
    lore_jinja_text text;
    lore_status status = text_of(run, &arguments[0], &text);
    if (status == LORE_OK) {
        status = lore_jinja_run_spend_bytes(run, text.len);
        *out = lore_jinja_value_text(lore_jinja_text_strip(text, NULL, true, true));
    }
    return status;
}

static lore_status recase(lore_jinja_run *run, const lore_jinja_value *arguments,
                          lore_jinja_text_case to, lore_jinja_value *out)
{
    lore_jinja_text text;
    lore_status status = text_of(run, &arguments[0], &text);
    return status == LORE_OK ? lore_jinja_text_recase(run, text, to, out) : status;
}

static lore_status run_upper(lore_jinja_run *run, const lore_jinja_value *arguments,
                             lore_jinja_value *out)
{
    return recase(run, arguments, LORE_JINJA_TEXT_UPPER, out);
}

static lore_status run_lower(lore_jinja_run *run, const lore_jinja_value *arguments,
                             lore_jinja_value *out)
{
    return recase(run, arguments, LORE_JINJA_TEXT_LOWER, out);
}

static lore_status run_string(lore_jinja_run *run, const lore_jinja_value *arguments,
                              lore_jinja_value *out)
{
    lore_jinja_text text;
    lore_status status = text_of(run, &arguments[0], &text);
    if (status == LORE_OK) {
        *out = lore_jinja_value_text(text);
    }
    return status;
}

static lore_status run_list(lore_jinja_run *run, const lore_jinja_value *arguments,
                            lore_jinja_value *out)
{
    return lore_jinja_value_items(run, &arguments[0], out);
}

static lore_status run_length(lore_jinja_run *run, const lore_jinja_value *arguments,
                              lore_jinja_value *out)
{
    lore_jinja_value list = {0};
    if (arguments[0].kind == LORE_JINJA_VALUE_TEXT) {
        lore_str text = lore_jinja_text_str(arguments[0].as.text);
        *out = lore_jinja_value_int((int64_t)lore_utf8_count(text));
        return lore_jinja_run_spend_bytes(run, text.len);
    }
    lore_status status = lore_jinja_value_items(run, &arguments[0], &list);
    *out = lore_jinja_value_int(list.count);
    return status;
}

/* The first item or the last; of a text, that character alone is looked at. */
static lore_status take_end(lore_jinja_run *run, const lore_jinja_value *value, bool is_last,
                            lore_jinja_value *out)
{
    lore_jinja_value list = {0};
    *out = (lore_jinja_value){0};
    if (value->kind == LORE_JINJA_VALUE_TEXT && value->as.text.len > 0) {
        lore_str text = lore_jinja_text_str(value->as.text);
        size_t start = is_last ? text.len : 0;
        size_t end = start;
        (void)(is_last ? lore_utf8_prev(text, &start) : lore_utf8_next(text, &end));
        *out = lore_jinja_value_text(lore_jinja_text_slice(value->as.text, start, end));
        return LORE_OK;
    }
    lore_status status = lore_jinja_value_items(run, value, &list);
    if (status == LORE_OK && list.count > 0) {
        *out = list.as.items[is_last ? list.count - 1 : 0];
    }
    return status;
}

static lore_status run_first(lore_jinja_run *run, const lore_jinja_value *arguments,
                             lore_jinja_value *out)
{
    return take_end(run, &arguments[0], false, out);
}

static lore_status run_last(lore_jinja_run *run, const lore_jinja_value *arguments,
                            lore_jinja_value *out)
{
    return take_end(run, &arguments[0], true, out);
}

static lore_status run_join(lore_jinja_run *run, const lore_jinja_value *arguments,
                            lore_jinja_value *out)
{
    lore_jinja_value list = {0};
    lore_jinja_text separator, text;
    lore_jinja_text_builder builder;
    lore_status status = text_of(run, &arguments[1], &separator);
    if (status == LORE_OK) {
        status = lore_jinja_value_items(run, &arguments[0], &list);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_jinja_text_builder_init(&builder);
    for (int32_t i = 0; i < list.count && status == LORE_OK; i++) {
        status = text_of(run, &list.as.items[i], &text);
        if (status == LORE_OK && i > 0) {
            lore_jinja_text_append(&builder, separator);
        }
        if (status == LORE_OK) {
            lore_jinja_text_append(&builder, text);
            status = lore_jinja_run_spend_bytes(run, separator.len + text.len);
        }
    }
    if (status != LORE_OK) {
        lore_jinja_text_builder_destroy(&builder);
        return status;
    }
    return lore_jinja_text_finish(run, &builder, out);
}

/* default(value, also_where_false) */
static lore_status run_default(lore_jinja_run *run, const lore_jinja_value *arguments,
                               lore_jinja_value *out)
{
    (void)run;
    bool is_absent =
        arguments[0].kind == LORE_JINJA_VALUE_UNDEFINED ||
        (lore_jinja_value_truth(&arguments[2]) && !lore_jinja_value_truth(&arguments[0]));
    *out = is_absent ? arguments[1] : arguments[0];
    if (is_absent && arguments[1].kind == LORE_JINJA_VALUE_UNDEFINED) {
        *out = lore_jinja_value_text(lore_jinja_text_own(LORE_STR("")));
    }
    return LORE_OK;
}

static lore_status run_tojson(lore_jinja_run *run, const lore_jinja_value *arguments,
                              lore_jinja_value *out)
{
    bool has_indent = arguments[1].kind == LORE_JINJA_VALUE_INT;
    int64_t indent = has_indent ? arguments[1].as.number : -1;
    if (indent > LORE_JINJA_INDENT_MAX || (has_indent && indent < 0)) {
        return lore_jinja_run_fail(run, LORE_ERR_LIMIT, "an indent that is not within 0 and %d",
                                   (int)LORE_JINJA_INDENT_MAX);
    }
    return lore_jinja_value_json(run, &arguments[0], indent, out);
}

/* ---- tests ---- */

#define KIND_TEST(function, condition)                                                  \
    static lore_status function(lore_jinja_run *run, const lore_jinja_value *arguments, \
                                lore_jinja_value *out)                                  \
    {                                                                                   \
        (void)run;                                                                      \
        lore_jinja_value_kind kind = arguments[0].kind;                                 \
        int64_t number = kind == LORE_JINJA_VALUE_BOOL ? arguments[0].as.number : -1;   \
        (void)number;                                                                   \
        *out = lore_jinja_value_bool(condition);                                        \
        return LORE_OK;                                                                 \
    }

KIND_TEST(run_is_defined, kind != LORE_JINJA_VALUE_UNDEFINED)
KIND_TEST(run_is_undefined, kind == LORE_JINJA_VALUE_UNDEFINED)
KIND_TEST(run_is_none, kind == LORE_JINJA_VALUE_NONE)
KIND_TEST(run_is_string, kind == LORE_JINJA_VALUE_TEXT)
KIND_TEST(run_is_mapping, kind == LORE_JINJA_VALUE_MAP)
KIND_TEST(run_is_number, kind == LORE_JINJA_VALUE_INT || kind == LORE_JINJA_VALUE_BOOL)
KIND_TEST(run_is_boolean, kind == LORE_JINJA_VALUE_BOOL)
KIND_TEST(run_is_true, number == 1)
KIND_TEST(run_is_false, number == 0)
KIND_TEST(run_is_iterable, kind == LORE_JINJA_VALUE_TEXT || kind == LORE_JINJA_VALUE_LIST ||
                               kind == LORE_JINJA_VALUE_MAP || kind == LORE_JINJA_VALUE_UNDEFINED)

static lore_status run_is_equal(lore_jinja_run *run, const lore_jinja_value *arguments,
                                lore_jinja_value *out)
{
    bool is_equal = false;
    lore_status status = lore_jinja_value_equal(run, &arguments[0], &arguments[1], &is_equal);
    *out = lore_jinja_value_bool(is_equal);
    return status;
}

static lore_status run_is_unequal(lore_jinja_run *run, const lore_jinja_value *arguments,
                                  lore_jinja_value *out)
{
    bool is_equal = false;
    lore_status status = lore_jinja_value_equal(run, &arguments[0], &arguments[1], &is_equal);
    *out = lore_jinja_value_bool(!is_equal);
    return status;
}

/* ---- filters that apply a test ---- */

lore_status lore_jinja_select(lore_jinja_run *run, const lore_jinja_node *node,
                              const lore_jinja_value *arguments, lore_jinja_value *out)
{
    lore_jinja_value list = {0};
    const lore_jinja_word *word = node->word;
    lore_status status = lore_jinja_value_items(run, &arguments[0], &list);
    lore_jinja_value *items =
        status == LORE_OK ? LORE_PUSH(&run->arena, lore_jinja_value, list.count) : NULL;
    if (status == LORE_OK && items == NULL) {
        status = lore_jinja_run_no_memory(run);
    }
    int32_t taken = 0;
    for (int32_t i = 0; i < list.count && status == LORE_OK; i++) {
        lore_jinja_value verdict = {0}, tested[LORE_JINJA_ARGUMENTS_MAX] = {list.as.items[i]};
        if (word->by_attribute) {
            status = lore_jinja_value_attribute(
                run, &list.as.items[i], lore_jinja_text_str(arguments[1].as.text), &tested[0]);
        }
        tested[1] = arguments[word->by_attribute ? 3 : 2];
        verdict = tested[0];
        if (status == LORE_OK && node->test != NULL) {
            status = node->test->run(run, tested, &verdict);
        }
        if (status == LORE_OK) {
            status = lore_jinja_run_spend(run, 1);
        }
        if (lore_jinja_value_truth(&verdict) != word->is_reject) {
            items[taken++] = list.as.items[i];
        }
    }
    *out = (lore_jinja_value){.kind = LORE_JINJA_VALUE_LIST, .count = taken, .as.items = items};
    return status;
}

/* ---- tables ---- */

static const lore_jinja_word FILTERS[] = {
    {"trim", run_trim, 0, 0, NULL, false, false, false},
    {"length", run_length, 0, 0, NULL, false, false, false},
    {"count", run_length, 0, 0, NULL, false, false, false},
    {"tojson", run_tojson, 0, 1, "indent", false, false, false},
    {"join", run_join, 0, 1, NULL, false, false, false},
    {"list", run_list, 0, 0, NULL, false, false, false},
    {"string", run_string, 0, 0, NULL, false, false, false},
    {"upper", run_upper, 0, 0, NULL, false, false, false},
    {"lower", run_lower, 0, 0, NULL, false, false, false},
    {"first", run_first, 0, 0, NULL, false, false, false},
    {"last", run_last, 0, 0, NULL, false, false, false},
    {"default", run_default, 0, 2, NULL, false, false, false},
    {"d", run_default, 0, 2, NULL, false, false, false},
    {"items", lore_jinja_items, 0, 0, NULL, false, false, false},
    {"select", NULL, 0, 2, NULL, true, false, false},
    {"reject", NULL, 0, 2, NULL, true, true, false},
    {"selectattr", NULL, 1, 3, NULL, true, false, true},
    {"rejectattr", NULL, 1, 3, NULL, true, true, true},
};

static const lore_jinja_word TESTS[] = {
    {"defined", run_is_defined, 0, 0, NULL, false, false, false},
    {"undefined", run_is_undefined, 0, 0, NULL, false, false, false},
    {"none", run_is_none, 0, 0, NULL, false, false, false},
    {"string", run_is_string, 0, 0, NULL, false, false, false},
    {"mapping", run_is_mapping, 0, 0, NULL, false, false, false},
    {"iterable", run_is_iterable, 0, 0, NULL, false, false, false},
    {"sequence", run_is_iterable, 0, 0, NULL, false, false, false},
    {"number", run_is_number, 0, 0, NULL, false, false, false},
    {"boolean", run_is_boolean, 0, 0, NULL, false, false, false},
    {"true", run_is_true, 0, 0, NULL, false, false, false},
    {"false", run_is_false, 0, 0, NULL, false, false, false},
    {"equalto", run_is_equal, 1, 1, NULL, false, false, false},
    {"eq", run_is_equal, 1, 1, NULL, false, false, false},
    {"==", run_is_equal, 1, 1, NULL, false, false, false},
    {"ne", run_is_unequal, 1, 1, NULL, false, false, false},
    {"!=", run_is_unequal, 1, 1, NULL, false, false, false},
};

static const lore_jinja_word *find_word(const lore_jinja_word *words, size_t count, lore_str name)
{
    for (size_t i = 0; i < count; i++) {
        if (lore_str_equal(name, lore_str_from(words[i].name))) {
            return &words[i];
        }
    }
    return NULL;
}

const lore_jinja_word *lore_jinja_filter(lore_str name)
{
    return find_word(FILTERS, sizeof FILTERS / sizeof FILTERS[0], name);
}

const lore_jinja_word *lore_jinja_test(lore_str name)
{
    return find_word(TESTS, sizeof TESTS / sizeof TESTS[0], name);
}
