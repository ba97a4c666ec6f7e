/* The values of a run: what is true, equal, printed, looked into. Python's rules wherever a
 * template could tell the difference; a case that none of the known templates has is an error, not
 * a guess.
 *
 * Lists cannot be changed, so only a namespace could lie inside itself, and namespaces are equal by
 * identity and have no text: no walk here can run in circles. How deep lists lie in lists is up to
 * the template, and bounded. */
#include "base/utf8.h"
#include "generation/template_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

lore_jinja_value lore_jinja_value_bool(bool is_true)
{
    return (lore_jinja_value){.kind = LORE_JINJA_VALUE_BOOL, .as.number = is_true};
}

lore_jinja_value lore_jinja_value_int(int64_t number)
{
    return (lore_jinja_value){.kind = LORE_JINJA_VALUE_INT, .as.number = number};
}

lore_jinja_value lore_jinja_value_text(lore_jinja_text text)
{
    return (lore_jinja_value){.kind = LORE_JINJA_VALUE_TEXT, .as.text = text};
}

const char *lore_jinja_value_kind_name(const lore_jinja_value *value)
{
    static const char *const names[] = {
        "something undefined", "none",        "a truth value", "a number",  "text", "a list",
        "a mapping",           "a namespace", "a loop",        "a function"};
    return names[value->kind];
}

bool lore_jinja_value_truth(const lore_jinja_value *value)
{
    switch (value->kind) {
    case LORE_JINJA_VALUE_UNDEFINED:
    case LORE_JINJA_VALUE_NONE:
        return false;
    case LORE_JINJA_VALUE_BOOL:
    case LORE_JINJA_VALUE_INT:
        return value->as.number != 0;
    case LORE_JINJA_VALUE_TEXT:
        return value->as.text.len > 0;
    case LORE_JINJA_VALUE_LIST:
        return value->count > 0;
    case LORE_JINJA_VALUE_MAP:
        return value->as.map->count > 0;
    case LORE_JINJA_VALUE_NAMESPACE:
    case LORE_JINJA_VALUE_LOOP:
    case LORE_JINJA_VALUE_FUNCTION:
        break;
    }
    return true;
}

/* ---- maps ---- */

static lore_jinja_entry *find_entry(const lore_jinja_map *map, lore_str key)
{
    lore_jinja_entry *entry = map->first;
    while (entry != NULL && !lore_str_equal(entry->key, key)) {
        entry = entry->next;
    }
    return entry;
}

const lore_jinja_value *lore_jinja_map_get(const lore_jinja_map *map, lore_str key)
{
    const lore_jinja_entry *entry = find_entry(map, key);
    return entry == NULL ? NULL : &entry->value;
}

lore_status lore_jinja_map_put(lore_jinja_run *run, lore_jinja_map *map, lore_str key,
                               lore_jinja_value value)
{
    lore_jinja_entry *entry = find_entry(map, key);
    if (entry == NULL && map->count == LORE_JINJA_NAMES_MAX) {
        return lore_jinja_run_fail(run, LORE_ERR_LIMIT, "more than %d names in one place",
                                   (int)LORE_JINJA_NAMES_MAX);
    }
    if (entry == NULL) {
        entry = LORE_PUSH(&run->arena, lore_jinja_entry, 1);
        if (entry == NULL) {
            return lore_jinja_run_no_memory(run);
        }
        entry->key = key;
        if (map->last != NULL) {
            map->last->next = entry;
        } else {
            map->first = entry;
        }
        map->last = entry;
        map->count++;
    }
    entry->value = value;
    return LORE_OK;
}

/* ---- equality ---- */

static lore_status too_deep(lore_jinja_run *run)
{
    return lore_jinja_run_fail(run, LORE_ERR_LIMIT, "lists in lists, more than %d deep",
                               (int)LORE_JINJA_VALUE_DEPTH_MAX);
}

static lore_status equal(lore_jinja_run *run, const lore_jinja_value *a, const lore_jinja_value *b,
                         int32_t depth, bool *is_equal);

static lore_status equal_lists(lore_jinja_run *run, const lore_jinja_value *a,
                               const lore_jinja_value *b, int32_t depth, bool *is_equal)
{
    lore_status status = LORE_OK;
    *is_equal = a->count == b->count;
    for (int32_t i = 0; i < a->count && *is_equal && status == LORE_OK; i++) {
        status = equal(run, &a->as.items[i], &b->as.items[i], depth + 1, is_equal);
    }
    return status;
}

static lore_status equal_maps(lore_jinja_run *run, const lore_jinja_map *a, const lore_jinja_map *b,
                              int32_t depth, bool *is_equal)
{
    lore_status status = LORE_OK;
    *is_equal = a->count == b->count;
    for (const lore_jinja_entry *e = a->first; e != NULL && *is_equal && status == LORE_OK;
         e = e->next) {
        const lore_jinja_value *other = lore_jinja_map_get(b, e->key);
        *is_equal = other != NULL;
        if (other != NULL) {
            status = equal(run, &e->value, other, depth + 1, is_equal);
        }
    }
    return status;
}

static bool is_number(const lore_jinja_value *value)
{
    return value->kind == LORE_JINJA_VALUE_BOOL || value->kind == LORE_JINJA_VALUE_INT;
}

static lore_status equal(lore_jinja_run *run, const lore_jinja_value *a, const lore_jinja_value *b,
                         int32_t depth, bool *is_equal)
{
    lore_status status =
        depth > LORE_JINJA_VALUE_DEPTH_MAX ? too_deep(run) : lore_jinja_run_spend(run, 1);
    if (status != LORE_OK) {
        return status;
    }
    if (is_number(a) && is_number(b)) {
        *is_equal = a->as.number == b->as.number;
        return LORE_OK;
    }
    *is_equal = a->kind == b->kind;
    if (!*is_equal) {
        return LORE_OK;
    }
    switch (a->kind) {
    case LORE_JINJA_VALUE_TEXT:
        *is_equal =
            lore_str_equal(lore_jinja_text_str(a->as.text), lore_jinja_text_str(b->as.text));
        return lore_jinja_run_spend_bytes(run, a->as.text.len);
    case LORE_JINJA_VALUE_LIST:
        return equal_lists(run, a, b, depth, is_equal);
    case LORE_JINJA_VALUE_MAP:
        return equal_maps(run, a->as.map, b->as.map, depth, is_equal);
    case LORE_JINJA_VALUE_NAMESPACE:
        *is_equal = a->as.map == b->as.map;
        break;
    case LORE_JINJA_VALUE_LOOP:
        *is_equal = a->as.loop == b->as.loop;
        break;
    default:
        break;
    }
    return LORE_OK;
}

lore_status lore_jinja_value_equal(lore_jinja_run *run, const lore_jinja_value *a,
                                   const lore_jinja_value *b, bool *is_equal)
{
    return equal(run, a, b, 0, is_equal);
}

/* ---- looking into values ---- */

static lore_status keys_of(lore_jinja_run *run, const lore_jinja_map *map, lore_jinja_value *list)
{
    lore_status status = lore_jinja_run_spend(run, (size_t)map->count);
    lore_jinja_value *items = LORE_PUSH(&run->arena, lore_jinja_value, map->count);
    if (status == LORE_OK && items == NULL) {
        status = lore_jinja_run_no_memory(run);
    }
    int32_t count = 0;
    for (const lore_jinja_entry *e = map->first; e != NULL && status == LORE_OK; e = e->next) {
        items[count++] = lore_jinja_value_text(lore_jinja_text_own(e->key));
    }
    *list = (lore_jinja_value){.kind = LORE_JINJA_VALUE_LIST, .count = count, .as.items = items};
    return status;
}

lore_status lore_jinja_value_items(lore_jinja_run *run, const lore_jinja_value *value,
                                   lore_jinja_value *list)
{
    switch (value->kind) {
    case LORE_JINJA_VALUE_UNDEFINED:
        *list = (lore_jinja_value){.kind = LORE_JINJA_VALUE_LIST};
        return LORE_OK;
    case LORE_JINJA_VALUE_LIST:
        *list = *value;
        return LORE_OK;
    case LORE_JINJA_VALUE_MAP:
        return keys_of(run, value->as.map, list);
    case LORE_JINJA_VALUE_TEXT:
        return lore_jinja_text_characters(run, value->as.text, list);
    default:
        return lore_jinja_run_fail(run, LORE_ERR_INVALID, "%s is no list",
                                   lore_jinja_value_kind_name(value));
    }
}

static lore_jinja_value loop_attribute(const lore_jinja_loop *loop, lore_str name)
{
    const struct {
        const char *name;
        lore_jinja_value value;
    } rows[] = {
        {"index", lore_jinja_value_int(loop->index + 1)},
        {"index0", lore_jinja_value_int(loop->index)},
        {"revindex", lore_jinja_value_int(loop->count - loop->index)},
        {"revindex0", lore_jinja_value_int(loop->count - loop->index - 1)},
        {"first", lore_jinja_value_bool(loop->index == 0)},
        {"last", lore_jinja_value_bool(loop->index == loop->count - 1)},
        {"length", lore_jinja_value_int(loop->count)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (lore_str_equal(name, lore_str_from(rows[i].name))) {
            return rows[i].value;
        }
    }
    if (lore_str_equal(name, LORE_STR("previtem")) && loop->index > 0) {
        return loop->items[loop->index - 1];
    }
    if (lore_str_equal(name, LORE_STR("nextitem")) && loop->index + 1 < loop->count) {
        return loop->items[loop->index + 1];
    }
    return (lore_jinja_value){0};
}

lore_status lore_jinja_value_attribute(lore_jinja_run *run, const lore_jinja_value *value,
                                       lore_str name, lore_jinja_value *out)
{
    *out = (lore_jinja_value){0};
    if (value->kind == LORE_JINJA_VALUE_UNDEFINED) {
        return lore_jinja_run_fail(run, LORE_ERR_INVALID,
                                   "'" LORE_STR_FMT "' of something undefined", LORE_STR_ARG(name));
    }
    if (value->kind == LORE_JINJA_VALUE_LOOP) {
        *out = loop_attribute(value->as.loop, name);
    } else if (value->kind == LORE_JINJA_VALUE_MAP || value->kind == LORE_JINJA_VALUE_NAMESPACE) {
        const lore_jinja_value *found = lore_jinja_map_get(value->as.map, name);
        *out = found != NULL ? *found : *out;
    }
    return LORE_OK;
}

/* ---- as text ---- */

static lore_status print_number(lore_jinja_run *run, int64_t number, lore_jinja_text *out)
{
    lore_str digits = lore_str_printf(&run->arena, "%" PRId64, number);
    *out = lore_jinja_text_own(digits);
    return digits.ptr == NULL ? lore_jinja_run_no_memory(run) : LORE_OK;
}

lore_status lore_jinja_value_print(lore_jinja_run *run, const lore_jinja_value *value,
                                   lore_jinja_text *out)
{
    switch (value->kind) {
    case LORE_JINJA_VALUE_UNDEFINED:
        *out = lore_jinja_text_own(LORE_STR(""));
        return LORE_OK;
    case LORE_JINJA_VALUE_NONE:
        *out = lore_jinja_text_own(LORE_STR("None"));
        return LORE_OK;
    case LORE_JINJA_VALUE_BOOL:
        *out = lore_jinja_text_own(value->as.number != 0 ? LORE_STR("True") : LORE_STR("False"));
        return LORE_OK;
    case LORE_JINJA_VALUE_INT:
        return print_number(run, value->as.number, out);
    case LORE_JINJA_VALUE_TEXT:
        *out = value->as.text;
        return LORE_OK;
    default:
        return lore_jinja_run_fail(run, LORE_ERR_UNSUPPORTED, "writing %s as text is not supported",
                                   lore_jinja_value_kind_name(value));
    }
}

/* ---- JSON ---- */

typedef struct json_writer {
    lore_jinja_run *run;
    lore_jinja_text_builder builder;
    int64_t indent;
} json_writer;

static void put_own(json_writer *w, lore_str text)
{
    lore_jinja_text_append(&w->builder, lore_jinja_text_own(text));
}

/* The escape of one byte keeps the byte's origin. */
static void put_escape(json_writer *w, uint8_t byte, bool is_foreign)
{
    static const char letters[] = "\"\\\n\r\t\b\f", escapes[] = "\"\\nrtbf";
    const char *letter = byte == 0 ? NULL : strchr(letters, byte);
    char text[8];
    uint8_t foreign[8];
    int len = letter != NULL ? snprintf(text, sizeof text, "\\%c", escapes[letter - letters])
                             : snprintf(text, sizeof text, "\\u%04x", byte);
    memset(foreign, is_foreign, sizeof foreign);
    lore_jinja_text_append(&w->builder, (lore_jinja_text){text, foreign, (size_t)len});
}

static void put_string(json_writer *w, lore_jinja_text text)
{
    size_t start = 0;
    put_own(w, LORE_STR("\""));
    for (size_t i = 0; i < text.len; i++) {
        uint8_t byte = (uint8_t)text.ptr[i];
        if (byte >= 0x20 && byte != '"' && byte != '\\') {
            continue;
        }
        lore_jinja_text_append(&w->builder, lore_jinja_text_slice(text, start, i));
        put_escape(w, byte, text.foreign != NULL && text.foreign[i] != 0);
        start = i + 1;
    }
    lore_jinja_text_append(&w->builder, lore_jinja_text_slice(text, start, text.len));
    put_own(w, LORE_STR("\""));
}

static void put_line(json_writer *w, int32_t depth)
{
    static const char spaces[LORE_JINJA_INDENT_MAX + 1] = "        ";
    if (w->indent < 0) {
        return;
    }
    put_own(w, LORE_STR("\n"));
    for (int32_t i = 0; i < depth; i++) {
        put_own(w, (lore_str){spaces, (size_t)w->indent});
    }
}

static lore_status put_value(json_writer *w, const lore_jinja_value *value, int32_t depth);

/* Between the brackets: what stands before an item. */
static void put_separator(json_writer *w, bool is_first, int32_t depth)
{
    put_own(w, is_first ? LORE_STR("") : w->indent < 0 ? LORE_STR(", ") : LORE_STR(","));
    put_line(w, depth);
}

static lore_status put_list(json_writer *w, const lore_jinja_value *value, int32_t depth)
{
    lore_status status = LORE_OK;
    put_own(w, LORE_STR("["));
    for (int32_t i = 0; i < value->count && status == LORE_OK; i++) {
        put_separator(w, i == 0, depth + 1);
        status = put_value(w, &value->as.items[i], depth + 1);
    }
    if (value->count > 0) {
        put_line(w, depth);
    }
    put_own(w, LORE_STR("]"));
    return status;
}

static lore_status put_map(json_writer *w, const lore_jinja_map *map, int32_t depth)
{
    lore_status status = LORE_OK;
    put_own(w, LORE_STR("{"));
    for (const lore_jinja_entry *e = map->first; e != NULL && status == LORE_OK; e = e->next) {
        put_separator(w, e == map->first, depth + 1);
        put_string(w, lore_jinja_text_own(e->key));
        put_own(w, LORE_STR(": "));
        status = put_value(w, &e->value, depth + 1);
    }
    if (map->count > 0) {
        put_line(w, depth);
    }
    put_own(w, LORE_STR("}"));
    return status;
}

static lore_status put_value(json_writer *w, const lore_jinja_value *value, int32_t depth)
{
    lore_jinja_text text = lore_jinja_text_own(LORE_STR("null"));
    lore_status status =
        depth > LORE_JINJA_VALUE_DEPTH_MAX ? too_deep(w->run) : lore_jinja_run_spend(w->run, 1);
    if (status != LORE_OK) {
        return status;
    }
    switch (value->kind) {
    case LORE_JINJA_VALUE_TEXT:
        put_string(w, value->as.text);
        return lore_jinja_run_spend_bytes(w->run, value->as.text.len);
    case LORE_JINJA_VALUE_LIST:
        return put_list(w, value, depth);
    case LORE_JINJA_VALUE_MAP:
        return put_map(w, value->as.map, depth);
    case LORE_JINJA_VALUE_BOOL:
        text = lore_jinja_text_own(value->as.number != 0 ? LORE_STR("true") : LORE_STR("false"));
        break;
    case LORE_JINJA_VALUE_INT:
        status = print_number(w->run, value->as.number, &text);
        break;
    case LORE_JINJA_VALUE_NONE:
        break;
    default:
        status = lore_jinja_run_fail(w->run, LORE_ERR_INVALID, "%s cannot be written as JSON",
                                     lore_jinja_value_kind_name(value));
    }
    lore_jinja_text_append(&w->builder, text);
    return status;
}

lore_status lore_jinja_value_json(lore_jinja_run *run, const lore_jinja_value *value,
                                  int64_t indent, lore_jinja_value *out)
{
    json_writer w = {.run = run, .indent = indent};
    lore_jinja_text_builder_init(&w.builder);
    lore_status status = put_value(&w, value, 0);
    if (status != LORE_OK) {
        lore_jinja_text_builder_destroy(&w.builder);
        return status;
    }
    return lore_jinja_text_finish(run, &w.builder, out);
}
