/* Which members of a foreign JSON object are the parts of a document: "text=body,title=meta.name".
 *
 * A path is names of members with dots between them; in an array a number counts its elements from
 * 0. A name that holds a dot itself cannot be written. */
#include "ingest/ingest_int.h"

#include "base/json.h"

#include <string.h>

enum { FIELDS_MAX = 64, STEPS_MAX = 16 };

static const char *const NAMES[LORE_JSON_FIELDS] = {"id",  "title", "text",     "markdown", "html",
                                                    "url", "date",  "metadata", "items"};

const char *lore_json_field_name(lore_json_field field)
{
    return NAMES[field];
}

/* The path as the C strings that lookups want: "a.b" reads "a", "b", and NULL behind them. */
static lore_status split(lore_str path, lore_arena *arena, lore_mapped_field *field,
                         lore_error *err)
{
    size_t count = 0;
    field->path = lore_str_to_c(arena, path);
    field->steps = LORE_PUSH(arena, const char *, STEPS_MAX + 1);
    if (field->path == NULL || field->steps == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a map");
    }
    for (size_t at = 0; at <= path.len;) {
        size_t dot = lore_str_find(path, LORE_STR("."), at), end = dot < path.len ? dot : path.len;
        if (end == at || count == STEPS_MAX) {
            return lore_fail(err, LORE_ERR_INVALID, "'%s' is no path of 1 to %d members",
                             field->path, STEPS_MAX);
        }
        field->steps[count] = lore_str_to_c(arena, lore_str_slice(path, at, end));
        if (field->steps[count++] == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a map");
        }
        at = end + 1;
    }
    field->steps[count] = NULL;
    return LORE_OK;
}

static lore_status add_field(lore_json_map *map, lore_mapped_field *fields, lore_str item,
                             lore_arena *arena, lore_error *err)
{
    size_t equals = lore_str_find(item, LORE_STR("="), 0);
    lore_str name = lore_str_trim(lore_str_slice(item, 0, equals < item.len ? equals : item.len));
    lore_json_field field = 0;
    while (field < LORE_JSON_FIELDS && !lore_str_equal(name, lore_str_from(NAMES[field]))) {
        field++;
    }
    if (equals == SIZE_MAX || field == LORE_JSON_FIELDS) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "'" LORE_STR_FMT "' must be FIELD=PATH with id, title, text, markdown, "
                         "html, url, date, metadata or items",
                         LORE_STR_ARG(item));
    }
    for (size_t i = 0; i < map->count && field != LORE_JSON_METADATA; i++) {
        if (map->fields[i].field == field) {
            return lore_fail(err, LORE_ERR_INVALID, "%s is given twice", NAMES[field]);
        }
    }
    if (map->count == FIELDS_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "more than %d fields", FIELDS_MAX);
    }
    fields[map->count].field = field;
    lore_str path = lore_str_trim(lore_str_slice(item, equals + 1, item.len));
    return split(path, arena, &fields[map->count++], err);
}

lore_status lore_json_map_parse(lore_str spec, lore_arena *arena, lore_json_map **map,
                                lore_error *err)
{
    lore_json_map *made = LORE_PUSH(arena, lore_json_map, 1);
    lore_mapped_field *fields = LORE_PUSH(arena, lore_mapped_field, FIELDS_MAX);
    if (made == NULL || fields == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a map");
    }
    *made = (lore_json_map){.fields = fields};
    lore_status status = LORE_OK;
    for (size_t at = 0; at <= spec.len && status == LORE_OK;) {
        size_t comma = lore_str_find(spec, LORE_STR(","), at);
        size_t end = comma < spec.len ? comma : spec.len;
        status = add_field(made, fields, lore_str_slice(spec, at, end), arena, err);
        at = end + 1;
    }
    bool has_text = false;
    for (size_t i = 0; i < made->count; i++) {
        lore_json_field field = fields[i].field;
        has_text = has_text || field == LORE_JSON_TEXT || field == LORE_JSON_MARKDOWN ||
                   field == LORE_JSON_HTML;
    }
    if (status == LORE_OK && !has_text) {
        status = lore_fail(err, LORE_ERR_INVALID, "text, markdown or html is missing");
    }
    if (status != LORE_OK) {
        return lore_error_prefix(err, "map");
    }
    *map = made;
    return LORE_OK;
}

const lore_mapped_field *lore_json_map_field(const lore_json_map *map, lore_json_field field)
{
    for (size_t i = 0; i < map->count; i++) {
        if (map->fields[i].field == field) {
            return &map->fields[i];
        }
    }
    return NULL;
}

static const lore_json *element_at(const lore_json *array, const char *step)
{
    int64_t index = -1;
    const lore_json *element = NULL;
    if (lore_str_to_int64(lore_str_from(step), &index) && index >= 0) {
        element = lore_json_first(array);
        for (; element != NULL && index > 0; index--) {
            element = lore_json_next(element);
        }
    }
    return element;
}

const lore_json *lore_json_map_find(const lore_json *node, const lore_mapped_field *field)
{
    for (const char *const *step = field->steps; *step != NULL && node != NULL; step++) {
        node = lore_json_is_object(node)  ? lore_json_get(node, *step)
               : lore_json_is_array(node) ? element_at(node, *step)
                                          : NULL;
    }
    return node == NULL || lore_json_is_null(node) ? NULL : node;
}
