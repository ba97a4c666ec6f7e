/* A document as JSON: one JSONL line or one PUT body.
 *
 * {"id"?, "title"?, "text" | "markdown" | "html", "metadata"?, "url"?}. Unknown members are
 * ignored; wrong types, two texts or none are errors that name the member. */
#include "ingest/ingest_int.h"

#include "base/json.h"
#include "base/utf8.h"

/* Text members and what they hold. */
static const struct {
    const char *key;
    lore_media media;
} bodies[] = {
    {"text", LORE_MEDIA_TEXT}, {"markdown", LORE_MEDIA_MARKDOWN}, {"html", LORE_MEDIA_HTML}};

/* An optional string member into the arena. */
static lore_status take_string(const lore_json *object, const char *key, size_t bytes_max,
                               lore_arena *arena, lore_str *out, lore_error *err)
{
    lore_str value = {"", 0};
    lore_status status = lore_json_get_str(object, "", key, &value, err);
    if (status != LORE_OK) {
        return status;
    }
    if (value.len > bytes_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "%s has %zu bytes, over %zu", key, value.len,
                         bytes_max);
    }
    *out = lore_str_copy(arena, value);
    return out->ptr != NULL ? LORE_OK : lore_fail(err, LORE_ERR_NOMEM, "out of memory for %s", key);
}

static lore_status take_body(const lore_json *object, const lore_limits *limits, lore_arena *arena,
                             lore_raw_document *raw, lore_error *err)
{
    const char *found = NULL;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        const lore_json *member = lore_json_get(object, bodies[i].key);
        if (member == NULL || lore_json_is_null(member)) {
            continue;
        }
        if (found != NULL) {
            return lore_fail(err, LORE_ERR_INVALID, "%s and %s are both given; one is wanted",
                             found, bodies[i].key);
        }
        found = bodies[i].key;
        raw->media = bodies[i].media;
        lore_status status =
            take_string(object, found, (size_t)limits->file_bytes_max, arena, &raw->bytes, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    if (found == NULL) {
        return lore_fail(err, LORE_ERR_INVALID, "text, markdown or html is missing");
    }
    return LORE_OK;
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

static lore_status take_metadata(const lore_json *object, const lore_limits *limits,
                                 lore_arena *arena, lore_raw_document *raw, lore_error *err)
{
    const lore_json *metadata = lore_json_get(object, "metadata");
    if (metadata == NULL || lore_json_is_null(metadata)) {
        return LORE_OK;
    }
    if (!lore_json_is_object(metadata)) {
        return lore_fail(err, LORE_ERR_INVALID, "metadata must be an object");
    }
    if (lore_json_count(metadata) == 0) {
        return LORE_OK;
    }
    return print(metadata, (size_t)limits->metadata_bytes_max, arena, &raw->metadata, err);
}

lore_status lore_raw_from_json(lore_str json, const lore_limits *limits, lore_arena *arena,
                               lore_raw_document *raw, lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = lore_json_parse(json, (int32_t)limits->json_depth_max, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    const lore_str none = {"", 0};
    *raw = (lore_raw_document){none, none, none, none, none, LORE_MEDIA_AUTO, none};
    size_t id_max = (size_t)limits->id_bytes_max;
    if (!lore_json_is_object(root)) {
        status = lore_fail(err, LORE_ERR_INVALID, "a document must be a JSON object");
    }
    if (status == LORE_OK) {
        status = take_string(root, "id", id_max, arena, &raw->id, err);
    }
    if (status == LORE_OK) {
        status = take_string(root, "title", LORE_TITLE_BYTES_MAX, arena, &raw->title, err);
    }
    if (status == LORE_OK) {
        status =
            take_string(root, "url", (size_t)limits->metadata_bytes_max, arena, &raw->url, err);
    }
    if (status == LORE_OK) {
        status = take_metadata(root, limits, arena, raw, err);
    }
    if (status == LORE_OK) {
        status = take_body(root, limits, arena, raw, err);
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
