/* A document as JSON: one JSONL line, one PUT body, or an object of somebody else's (json_map.c).
 *
 * {"id"?, "title"?, "text" | "markdown" | "html", "metadata"?, "url"?}. Unknown members are
 * ignored; wrong types, two texts or none are errors that name the member. */
#include "ingest/ingest_int.h"

#include "base/json.h"
#include <math.h>

#define WHOLE_MAX 9007199254740992.0 /* whole numbers below are exact: 2^53 */

#define NATIVE(field, name)           \
    {                                 \
        field, name, (const char *[]) \
        {                             \
            name, NULL                \
        }                             \
    }
/* As clients send them. */
static const lore_mapped_field NATIVE_FIELDS[] = {
    NATIVE(LORE_JSON_ID, "id"),     NATIVE(LORE_JSON_TITLE, "title"),
    NATIVE(LORE_JSON_URL, "url"),   NATIVE(LORE_JSON_METADATA, "metadata"),
    NATIVE(LORE_JSON_TEXT, "text"), NATIVE(LORE_JSON_MARKDOWN, "markdown"),
    NATIVE(LORE_JSON_HTML, "html"),
};
static const lore_json_map NATIVE_MAP = {NATIVE_FIELDS,
                                         sizeof NATIVE_FIELDS / sizeof NATIVE_FIELDS[0]};

/* A string into the arena; of ids also a whole number, which others like to have. */
static lore_status take_string(const lore_json *node, const lore_mapped_field *field, bool is_id,
                               size_t bytes_max, lore_arena *arena, lore_str *out, lore_error *err)
{
    lore_str value = lore_json_str(node);
    double number = lore_json_number(node);
    bool is_number =
        is_id && lore_json_is_number(node) && fabs(number) < WHOLE_MAX && number == floor(number);
    if (is_number) {
        value = lore_str_printf(arena, "%lld", (long long)number);
    } else if (!lore_json_is_string(node)) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must be a string%s", field->path,
                         is_id ? " or a whole number" : "");
    }
    if (value.len > bytes_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "%s has %zu bytes, over %zu", field->path, value.len,
                         bytes_max);
    }
    *out = is_number ? value : lore_str_copy(arena, value);
    return out->ptr != NULL ? LORE_OK
                            : lore_fail(err, LORE_ERR_NOMEM, "out of memory for %s", field->path);
}

/* The compact text of a node, in the arena. */
static lore_status print(const lore_json *node, size_t bytes_max, lore_arena *arena, lore_str *text,
                         lore_error *err)
{
    lore_buf buf;
    lore_buf_init(&buf, 0);
    lore_status status = lore_json_print(node, &buf, err);
    if (status == LORE_OK && buf.len > bytes_max) {
        status = lore_fail(err, LORE_ERR_LIMIT,
                           "metadata has %zu bytes, over %zu (limits.metadata_bytes_max)", buf.len,
                           bytes_max);
    }
    if (status == LORE_OK) {
        *text = lore_str_copy(arena, lore_buf_str(&buf));
        if (text->ptr == NULL) {
            status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for metadata");
        }
    }
    lore_buf_destroy(&buf);
    return status;
}

/* {name: node}, in the arena. */
static lore_status wrap(const char *name, const lore_json *node, size_t bytes_max,
                        lore_arena *arena, lore_str *text, lore_error *err)
{
    lore_buf buf;
    lore_json_writer writer;
    lore_str value = {"", 0};
    lore_status status = print(node, bytes_max, arena, &value, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_buf_init(&buf, 0);
    lore_json_write_begin(&writer, &buf);
    lore_json_object(&writer, NULL);
    lore_json_raw(&writer, name, value);
    lore_json_end(&writer);
    *text = lore_buf_failed(&buf) ? (lore_str){NULL, 0} : lore_str_copy(arena, lore_buf_str(&buf));
    lore_buf_destroy(&buf);
    return text->ptr != NULL ? LORE_OK
                             : lore_fail(err, LORE_ERR_NOMEM, "out of memory for metadata");
}

/* What was taken first wins. */
static lore_status take_metadata(const lore_json *node, const lore_mapped_field *field,
                                 bool is_native, const lore_limits *limits, lore_arena *arena,
                                 lore_raw_document *raw, lore_error *err)
{
    size_t bytes_max = (size_t)limits->metadata_bytes_max;
    lore_str text = {"", 0};
    lore_status status = LORE_OK;
    if (lore_json_is_object(node) && lore_json_count(node) == 0) {
        return LORE_OK;
    }
    if (lore_json_is_object(node) && field->field == LORE_JSON_METADATA) {
        status = print(node, bytes_max, arena, &text, err);
    } else if (is_native) {
        status = lore_fail(err, LORE_ERR_INVALID, "metadata must be an object");
    } else {
        const char *const *last = field->steps;
        while (last[1] != NULL) {
            last++;
        }
        status = wrap(field->field == LORE_JSON_DATE ? "date" : *last, node, bytes_max, arena,
                      &text, err);
    }
    return status == LORE_OK
               ? lore_metadata_merge(raw->metadata, text, limits, arena, &raw->metadata, err)
               : status;
}

static lore_status take_body(const lore_json *node, const lore_mapped_field *field,
                             const lore_limits *limits, const lore_mapped_field **found,
                             lore_arena *arena, lore_raw_document *raw, lore_error *err)
{
    if (*found != NULL) {
        return lore_fail(err, LORE_ERR_INVALID, "%s and %s are both given; one is wanted",
                         (*found)->path, field->path);
    }
    *found = field;
    raw->media = field->field == LORE_JSON_TEXT       ? LORE_MEDIA_TEXT
                 : field->field == LORE_JSON_MARKDOWN ? LORE_MEDIA_MARKDOWN
                                                      : LORE_MEDIA_HTML;
    return take_string(node, field, false, (size_t)limits->file_bytes_max, arena, &raw->bytes, err);
}

/* No text: say which members it was looked for in. */
static lore_status fail_without_text(const lore_json_map *map, lore_error *err)
{
    const lore_json_field texts[] = {LORE_JSON_TEXT, LORE_JSON_MARKDOWN, LORE_JSON_HTML};
    if (map == &NATIVE_MAP) {
        return lore_fail(err, LORE_ERR_INVALID, "text, markdown or html is missing");
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const lore_mapped_field *field = lore_json_map_field(map, texts[i]);
        if (field != NULL) {
            return lore_fail(err, LORE_ERR_INVALID, "%s (%s) is missing", field->path,
                             lore_json_field_name(texts[i]));
        }
    }
    return lore_fail(err, LORE_ERR_INVALID, "text is missing");
}

lore_status lore_raw_from_node(const lore_json *node, const lore_json_map *map,
                               const lore_limits *limits, lore_arena *arena, lore_raw_document *raw,
                               lore_error *err)
{
    const lore_str none = {"", 0};
    const lore_mapped_field *text = NULL;
    bool is_native = map == NULL;
    map = is_native ? &NATIVE_MAP : map;
    *raw = (lore_raw_document){none, none, none, none, none, LORE_MEDIA_AUTO, none, none, false};
    if (!lore_json_is_object(node)) {
        return lore_fail(err, LORE_ERR_INVALID, "a document must be a JSON object");
    }
    lore_status status = LORE_OK;
    for (size_t i = 0; i < map->count && status == LORE_OK; i++) {
        const lore_mapped_field *field = &map->fields[i];
        const lore_json *member =
            field->field == LORE_JSON_ITEMS ? NULL : lore_json_map_find(node, field);
        if (member == NULL) {
            continue;
        }
        switch (field->field) {
        case LORE_JSON_ID:
            status = take_string(member, field, !is_native, (size_t)limits->id_bytes_max, arena,
                                 &raw->id, err);
            break;
        case LORE_JSON_TITLE:
            status =
                take_string(member, field, false, LORE_TITLE_BYTES_MAX, arena, &raw->title, err);
            break;
        case LORE_JSON_URL:
            status = take_string(member, field, false, (size_t)limits->metadata_bytes_max, arena,
                                 &raw->url, err);
            break;
        case LORE_JSON_DATE:
        case LORE_JSON_METADATA:
            status = take_metadata(member, field, is_native, limits, arena, raw, err);
            break;
        default:
            status = take_body(member, field, limits, &text, arena, raw, err);
        }
    }
    return status == LORE_OK && text == NULL ? fail_without_text(map, err) : status;
}

lore_status lore_raw_from_json(lore_str json, const lore_limits *limits, lore_arena *arena,
                               lore_raw_document *raw, lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = lore_json_parse(json, (int32_t)limits->json_depth_max, &root, err);
    if (status == LORE_OK) {
        status = lore_raw_from_node(root, NULL, limits, arena, raw, err);
    }
    lore_json_free(root);
    return status;
}

/* ---- --meta ---- */

static lore_status parse_object(lore_str text, const lore_limits *limits, lore_json **root,
                                lore_error *err)
{
    lore_status status = lore_json_parse(text, (int32_t)limits->json_depth_max, root, err);
    if (status == LORE_OK && !lore_json_is_object(*root)) {
        lore_json_free(*root);
        *root = NULL;
        status = lore_fail(err, LORE_ERR_INVALID, "metadata must be a JSON object");
    }
    return status;
}

/* Write the members of `object`, but not those that `except` has. */
static lore_status write_members(lore_json_writer *writer, const lore_json *object,
                                 const lore_json *except, lore_arena *arena, lore_error *err)
{
    lore_status status = LORE_OK;
    for (const lore_json *child = lore_json_first(object); child != NULL && status == LORE_OK;
         child = lore_json_next(child)) {
        const char *key = lore_str_to_c(arena, lore_json_key(child));
        if (key == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory for metadata");
        }
        if (except != NULL && lore_json_get(except, key) != NULL) {
            continue;
        }
        lore_str value = {"", 0};
        status = print(child, SIZE_MAX, arena, &value, err);
        lore_json_raw(writer, key, value);
    }
    return status;
}

lore_status lore_metadata_merge(lore_str own, lore_str extra, const lore_limits *limits,
                                lore_arena *arena, lore_str *merged, lore_error *err)
{
    if (own.len == 0 || extra.len == 0) {
        *merged = own.len > 0 ? own : extra;
        return LORE_OK;
    }
    lore_json *own_root = NULL, *extra_root = NULL;
    lore_buf buf;
    lore_buf_init(&buf, (size_t)limits->metadata_bytes_max);
    lore_status status = parse_object(own, limits, &own_root, err);
    if (status == LORE_OK) {
        status = parse_object(extra, limits, &extra_root, err);
    }
    if (status == LORE_OK) {
        lore_json_writer writer;
        lore_json_write_begin(&writer, &buf);
        lore_json_object(&writer, NULL);
        status = write_members(&writer, own_root, NULL, arena, err);
        if (status == LORE_OK) {
            status = write_members(&writer, extra_root, own_root, arena, err);
        }
        lore_json_end(&writer);
    }
    if (status == LORE_OK && lore_buf_failed(&buf)) {
        status = lore_fail(
            err, buf.len + extra.len > buf.cap_bytes ? LORE_ERR_LIMIT : LORE_ERR_NOMEM,
            "metadata does not fit into %zu bytes (limits.metadata_bytes_max)", buf.cap_bytes);
    }
    if (status == LORE_OK) {
        *merged = lore_str_copy(arena, lore_buf_str(&buf));
        if (merged->ptr == NULL) {
            status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for metadata");
        }
    }
    lore_buf_destroy(&buf);
    lore_json_free(own_root);
    lore_json_free(extra_root);
    return status;
}
