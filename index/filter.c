/* Metadata filters: parsed from JSON into a tree, compiled to SQL over the documents' metadata.
 *
 *   {"type": "and", "filters": [{"type": "eq", "key": "product", "value": "R2"},
 *                               {"type": "gte", "key": "year", "value": 2024}]}
 *
 * Values are strings, numbers and booleans, compared with their own kind only: the number 1, the
 * string "1" and true are three things. Strings compare bytewise, so ISO dates can be ranges. ne
 * and nin are the exact opposites of eq and in: a document without the key passes them.
 *
 * Keys and values reach SQL as bound parameters, never as text. The result is a set of chunk
 * ids: both searches look rows up in it. A document's chunks have consecutive ids, so the query
 * touches the documents' table alone. */
#include "index/index_int.h"

#include <stdio.h>
#include <string.h>

static const int64_t ROW_MAX = (int64_t)1 << 40; /* no database of one machine holds so many */

enum {
    RANGES_FIRST = 256 /* room of a fresh list of ranges of chunk ids */
};

typedef enum operation {
    OP_AND,
    OP_OR,
    OP_EQ,
    OP_NE,
    OP_GT,
    OP_GTE,
    OP_LT,
    OP_LTE,
    OP_IN,
    OP_NIN,
    OP_COUNT
} operation;

static const char *const operation_names[OP_COUNT] = {"and", "or", "eq",  "ne", "gt",
                                                      "gte", "lt", "lte", "in", "nin"};

typedef enum value_kind { VALUE_STRING, VALUE_NUMBER, VALUE_BOOL } value_kind;

typedef struct filter_value {
    value_kind kind;
    lore_str text;
    double number;
    bool truth;
} filter_value;

struct lore_filter {
    operation op;
    const lore_filter *first; /* and, or */
    const lore_filter *next;  /* of the same parent */
    lore_str key;             /* comparisons: a JSON path, or the bare key where is_bare */
    bool is_bare;             /* no path can spell it */
    const filter_value *values;
    int32_t value_count;
};

/* ---- parsing ---- */

typedef struct parser {
    const lore_limits *limits;
    lore_arena *arena;
    int32_t nodes, values;
} parser;

static lore_status fail_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a filter");
}

static lore_status parse_value(const lore_json *json, const char *path, filter_value *value,
                               lore_error *err)
{
    if (lore_json_is_string(json)) {
        *value = (filter_value){VALUE_STRING, lore_json_str(json), 0, false};
    } else if (lore_json_is_number(json)) {
        *value = (filter_value){VALUE_NUMBER, {NULL, 0}, lore_json_number(json), false};
    } else if (lore_json_is_bool(json)) {
        *value = (filter_value){VALUE_BOOL, {NULL, 0}, 0, lore_json_bool(json)};
    } else {
        return lore_fail(err, LORE_ERR_INVALID, "%s must be a string, a number or a boolean", path);
    }
    return LORE_OK;
}

/* Strings of the tree are borrowed: the filter outlives it. */
static lore_status keep_value(parser *p, filter_value *value, lore_error *err)
{
    if (value->kind != VALUE_STRING) {
        return LORE_OK;
    }
    value->text = lore_str_copy(p->arena, value->text);
    return value->text.ptr == NULL ? fail_memory(err) : LORE_OK;
}

static lore_status parse_values(parser *p, const lore_json *json, const char *path,
                                lore_filter *node, lore_error *err)
{
    char where[256];
    bool is_list = node->op == OP_IN || node->op == OP_NIN;
    const lore_json *value = lore_json_get(json, "value");
    if (is_list && !lore_json_is_array(value)) {
        return lore_fail(err, LORE_ERR_INVALID, "%s.value must be an array", path);
    }
    int32_t count = is_list ? lore_json_count(value) : 1;
    p->values += count;
    if (p->values > LORE_FILTER_VALUES_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "%s: a filter may hold %d values at most", path,
                         LORE_FILTER_VALUES_MAX);
    }
    filter_value *values = LORE_PUSH(p->arena, filter_value, count);
    if (values == NULL) {
        return fail_memory(err);
    }
    const lore_json *item = is_list ? lore_json_first(value) : value;
    for (int32_t i = 0; i < count; i++) {
        snprintf(where, sizeof where, is_list ? "%s.value[%d]" : "%s.value", path, i);
        lore_status status = parse_value(item, where, &values[i], err);
        if (status == LORE_OK) {
            status = keep_value(p, &values[i], err);
        }
        if (status != LORE_OK) {
            return status;
        }
        item = is_list ? lore_json_next(item) : NULL;
    }
    bool is_order = node->op >= OP_GT && node->op <= OP_LTE;
    if (is_order && values[0].kind == VALUE_BOOL) {
        return lore_fail(err, LORE_ERR_INVALID, "%s.value must be a string or a number", path);
    }
    node->values = values;
    node->value_count = count;
    return LORE_OK;
}

/* $."key", which SQLite compares with the stored key byte by byte. A key that the path or the
 * stored text would have to escape, and the empty one, are looked for among the members instead. */
static lore_status parse_key(parser *p, const lore_json *json, const char *path, lore_filter *node,
                             lore_error *err)
{
    lore_str key = {NULL, 0};
    lore_status status = lore_json_get_str_required(json, path, "key", &key, err);
    if (status != LORE_OK) {
        return status;
    }
    node->is_bare = key.len == 0;
    for (size_t i = 0; i < key.len; i++) {
        unsigned char c = (unsigned char)key.ptr[i];
        node->is_bare = node->is_bare || c < 0x20 || c == '"' || c == '\\' || c == 0x7f;
    }
    node->key = node->is_bare
                    ? lore_str_copy(p->arena, key)
                    : lore_str_printf(p->arena, "$.\"" LORE_STR_FMT "\"", LORE_STR_ARG(key));
    return node->key.ptr == NULL ? fail_memory(err) : LORE_OK;
}

static lore_status parse_operation(const lore_json *json, const char *path, operation *op,
                                   lore_error *err)
{
    lore_str type = {NULL, 0};
    lore_status status = lore_json_get_str_required(json, path, "type", &type, err);
    if (status != LORE_OK) {
        return status;
    }
    for (int i = 0; i < OP_COUNT; i++) {
        if (lore_str_equal(type, lore_str_from(operation_names[i]))) {
            *op = (operation)i;
            return LORE_OK;
        }
    }
    return lore_fail(err, LORE_ERR_INVALID,
                     "%s.type must be one of and, or, eq, ne, gt, gte, lt, lte, in, nin", path);
}

static lore_status parse_node(parser *p, const lore_json *json, const char *path, lore_filter **out,
                              lore_error *err);

static lore_status parse_children(parser *p, const lore_json *json, const char *path,
                                  lore_filter *node, lore_error *err)
{
    char where[256];
    const lore_json *filters = lore_json_get(json, "filters");
    if (!lore_json_is_array(filters) || lore_json_count(filters) == 0) {
        return lore_fail(err, LORE_ERR_INVALID, "%s.filters must be an array of filters", path);
    }
    const lore_filter **end = &node->first;
    int32_t i = 0;
    for (const lore_json *item = lore_json_first(filters); item != NULL;
         item = lore_json_next(item), i++) {
        lore_filter *child = NULL;
        snprintf(where, sizeof where, "%s.filters[%d]", path, i);
        lore_status status = parse_node(p, item, where, &child, err);
        if (status != LORE_OK) {
            return status;
        }
        *end = child;
        end = &child->next;
    }
    return LORE_OK;
}

/* Recursion ends: each call counts a node, and the nodes have a limit. */
static lore_status parse_node(parser *p, const lore_json *json, const char *path, lore_filter **out,
                              lore_error *err)
{
    if (++p->nodes > p->limits->filter_nodes_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "filter has more than filter_nodes_max (%lld) nodes",
                         (long long)p->limits->filter_nodes_max);
    }
    if (!lore_json_is_object(json)) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must be an object", path);
    }
    lore_filter *node = LORE_PUSH(p->arena, lore_filter, 1);
    if (node == NULL) {
        return fail_memory(err);
    }
    lore_status status = parse_operation(json, path, &node->op, err);
    if (status == LORE_OK && (node->op == OP_AND || node->op == OP_OR)) {
        status = parse_children(p, json, path, node, err);
    } else if (status == LORE_OK) {
        status = parse_key(p, json, path, node, err);
        if (status == LORE_OK) {
            status = parse_values(p, json, path, node, err);
        }
    }
    if (status == LORE_OK) {
        *out = node;
    }
    return status;
}

lore_status lore_filter_parse(const lore_json *json, const lore_limits *limits, lore_arena *arena,
                              const lore_filter **filter, lore_error *err)
{
    parser p = {limits, arena, 0, 0};
    lore_filter *root = NULL;
    lore_status status = parse_node(&p, json, "filter", &root, err);
    if (status == LORE_OK) {
        *filter = root;
    }
    return status;
}

/* ---- compiling: write the text, then bind in the same order ---- */

typedef struct writer {
    lore_buf *sql;
    int parameter; /* the last one used */
} writer;

static void write_access(writer *w, const lore_filter *node, int key, bool is_type)
{
    if (node->is_bare) {
        lore_buf_printf(w->sql, "(SELECT %s FROM json_each(metadata) WHERE key=?%d)",
                        is_type ? "type" : "value", key);
    } else {
        lore_buf_printf(w->sql, "%s(metadata,?%d)", is_type ? "json_type" : "json_extract", key);
    }
}

static void write_kind(writer *w, const lore_filter *node, int key, value_kind kind)
{
    write_access(w, node, key, true);
    lore_buf_printf(w->sql, "%s", kind == VALUE_STRING ? "='text'" : " IN ('integer','real')");
}

/* (kind = ... AND value <comparison> ?n) */
static void write_order(writer *w, const lore_filter *node, int key, const char *comparison)
{
    lore_buf_append(w->sql, LORE_STR("("));
    write_kind(w, node, key, node->values[0].kind);
    lore_buf_append(w->sql, LORE_STR(" AND "));
    write_access(w, node, key, false);
    lore_buf_printf(w->sql, "%s?%d)", comparison, ++w->parameter);
}

static void write_list(writer *w, const lore_filter *node, int key, value_kind kind)
{
    int32_t count = 0;
    for (int32_t i = 0; i < node->value_count; i++) {
        if (node->values[i].kind != kind) {
            continue;
        }
        if (count++ == 0) {
            lore_buf_append(w->sql, LORE_STR(" OR ("));
            write_kind(w, node, key, kind);
            lore_buf_append(w->sql, LORE_STR(" AND "));
            write_access(w, node, key, false);
            lore_buf_append(w->sql, LORE_STR(" IN ("));
        } else {
            lore_buf_append(w->sql, LORE_STR(","));
        }
        lore_buf_printf(w->sql, "?%d", ++w->parameter);
    }
    if (count > 0) {
        lore_buf_append(w->sql, LORE_STR("))"));
    }
}

/* eq is a list of one. coalesce: a missing key compares as NULL, which must become false before it
 * is negated. */
static void write_membership(writer *w, const lore_filter *node, int key)
{
    lore_buf_append(w->sql, LORE_STR("coalesce(0"));
    write_list(w, node, key, VALUE_STRING);
    write_list(w, node, key, VALUE_NUMBER);
    for (int32_t i = 0; i < node->value_count; i++) {
        if (node->values[i].kind == VALUE_BOOL) {
            lore_buf_append(w->sql, LORE_STR(" OR "));
            write_access(w, node, key, true);
            lore_buf_printf(w->sql, "='%s'", node->values[i].truth ? "true" : "false");
        }
    }
    lore_buf_append(w->sql, LORE_STR(",0)"));
}

static void write_node(writer *w, const lore_filter *node)
{
    static const char *const comparisons[] = {">", ">=", "<", "<="};
    if (node->op == OP_AND || node->op == OP_OR) {
        lore_buf_append(w->sql, LORE_STR("("));
        for (const lore_filter *child = node->first; child != NULL; child = child->next) {
            write_node(w, child);
            if (child->next != NULL) {
                lore_buf_append(w->sql, node->op == OP_AND ? LORE_STR(" AND ") : LORE_STR(" OR "));
            }
        }
        lore_buf_append(w->sql, LORE_STR(")"));
        return;
    }
    if (node->value_count == 0) { /* a member of nothing; no parameter would be left to bind */
        lore_buf_append(w->sql, node->op == OP_NIN ? LORE_STR("1") : LORE_STR("0"));
        return;
    }
    int key = ++w->parameter;
    if (node->op >= OP_GT && node->op <= OP_LTE) {
        write_order(w, node, key, comparisons[node->op - OP_GT]);
        return;
    }
    if (node->op == OP_NE || node->op == OP_NIN) {
        lore_buf_append(w->sql, LORE_STR("NOT "));
    }
    write_membership(w, node, key);
}

static void bind_kind(lore_stmt *stmt, const lore_filter *node, value_kind kind, int *parameter)
{
    for (int32_t i = 0; i < node->value_count; i++) {
        const filter_value *value = &node->values[i];
        if (value->kind != kind) {
            continue;
        }
        if (kind == VALUE_STRING) {
            lore_bind_text(stmt, ++*parameter, value->text);
        } else {
            lore_bind_float(stmt, ++*parameter, value->number);
        }
    }
}

static void bind_node(lore_stmt *stmt, const lore_filter *node, int *parameter)
{
    if (node->op == OP_AND || node->op == OP_OR) {
        for (const lore_filter *child = node->first; child != NULL; child = child->next) {
            bind_node(stmt, child, parameter);
        }
        return;
    }
    if (node->value_count == 0) {
        return;
    }
    lore_bind_text(stmt, ++*parameter, node->key);
    bind_kind(stmt, node, VALUE_STRING, parameter);
    bind_kind(stmt, node, VALUE_NUMBER, parameter);
}

/* ---- what tells filters apart: the text, and what would be bound to it ---- */

static void write_bytes(lore_buf *key, const void *bytes, size_t size)
{
    lore_buf_append(key, (lore_str){(const char *)&size, sizeof size});
    lore_buf_append(key, (lore_str){bytes, size});
}

static void write_values(lore_buf *key, const lore_filter *node)
{
    for (const lore_filter *child = node->first; child != NULL; child = child->next) {
        write_values(key, child);
    }
    write_bytes(key, node->key.ptr, node->key.len);
    for (int32_t i = 0; i < node->value_count; i++) {
        const filter_value *value = &node->values[i];
        write_bytes(key, &value->kind, sizeof value->kind);
        write_bytes(key, &value->number, sizeof value->number);
        write_bytes(key, value->text.ptr, value->text.len);
    }
}

lore_status lore_filter_key(const lore_filter *filter, lore_buf *key, lore_error *err)
{
    writer w = {key, 0};
    write_node(&w, filter);
    write_values(key, filter);
    return lore_buf_failed(key) ? fail_memory(err) : LORE_OK;
}

/* ---- running ---- */

typedef struct range_list {
    lore_row_range *ranges;
    int64_t count, cap;
} range_list;

static lore_status add_range(range_list *list, lore_row_range range, lore_error *err)
{
    if (list->count == list->cap) {
        int64_t cap = list->cap == 0 ? RANGES_FIRST : 2 * list->cap;
        lore_row_range *grown = lore_realloc(list->ranges, (size_t)cap * sizeof *grown);
        if (grown == NULL) {
            return fail_memory(err);
        }
        list->ranges = grown;
        list->cap = cap;
    }
    list->ranges[list->count++] = range;
    return LORE_OK;
}

static lore_status collect(lore_stmt *stmt, range_list *list, lore_error *err)
{
    for (;;) {
        bool has_row = false;
        lore_status status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            return status;
        }
        lore_row_range range = {lore_column_int(stmt, 0), lore_column_int(stmt, 1)};
        if (range.first < 0 || range.count < 0 || range.first > ROW_MAX || range.count > ROW_MAX) {
            return lore_fail(err, LORE_ERR_CORRUPT, "a document has %lld chunks from %lld on",
                             (long long)range.count, (long long)range.first);
        }
        status = range.count > 0 ? add_range(list, range, err) : LORE_OK;
        if (status != LORE_OK) {
            return status;
        }
    }
}

static lore_status make_statement(const lore_filter *filter, lore_db *db, int64_t collection,
                                  int64_t from_chunk, lore_stmt **stmt, lore_error *err)
{
    enum { PARAMETERS = 2 };
    lore_buf sql;
    lore_buf_init(&sql, 0);
    lore_buf_append(&sql, LORE_STR("SELECT first_chunk, chunk_count FROM documents "
                                   "WHERE collection=?1 AND "));
    if (from_chunk > 0) {
        lore_buf_append(&sql, LORE_STR("id IN (SELECT document FROM chunks WHERE id>=?2) AND "));
    }
    writer w = {&sql, PARAMETERS};
    write_node(&w, filter);
    const char *text = lore_buf_c(&sql);
    lore_status status =
        lore_buf_failed(&sql) ? fail_memory(err) : lore_stmt_new(db, text, stmt, err);
    lore_buf_destroy(&sql);
    if (status == LORE_OK) {
        int parameter = PARAMETERS;
        lore_bind_int(*stmt, 1, collection);
        if (from_chunk > 0) {
            lore_bind_int(*stmt, 2, from_chunk);
        }
        bind_node(*stmt, filter, &parameter);
    }
    return status;
}

lore_status lore_filter_rows(const lore_filter *filter, lore_db *db, int64_t collection,
                             const lore_row_set *known, int64_t from_chunk, lore_row_set **set,
                             lore_error *err)
{
    lore_stmt *stmt = NULL;
    range_list list = {NULL, 0, 0};
    lore_status status = make_statement(filter, db, collection, from_chunk, &stmt, err);
    if (status == LORE_OK) {
        status = collect(stmt, &list, err);
    }
    lore_stmt_free(stmt);
    if (status == LORE_OK) {
        status = lore_row_set_new(known, list.ranges, list.count, set, err);
    }
    lore_free(list.ranges);
    return status;
}
