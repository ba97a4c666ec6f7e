/* Editing the text of a JSON object. It is parsed first, so that what walks over its members may
 * take for granted that brackets and quotes are closed. */
#include "models/config_edit_int.h"

#include "base/json.h"
#include "models/model_folder_int.h"

#include <string.h>

static size_t skip_blanks(lore_str text, size_t at)
{
    while (at < text.len && strchr(" \t\r\n", text.ptr[at]) != NULL) {
        at++;
    }
    return at;
}

/* Behind the string that begins here. */
static size_t skip_string(lore_str text, size_t at)
{
    for (at++; at < text.len && text.ptr[at] != '"'; at++) {
        at += text.ptr[at] == '\\';
    }
    return at + 1;
}

/* Behind the value that begins here: at the comma or the bracket that ends it. */
static size_t skip_value(lore_str text, size_t at)
{
    int32_t depth = 0;
    while (at < text.len) {
        const char c = text.ptr[at];
        if (c == '"') {
            at = skip_string(text, at);
            continue;
        }
        if (depth == 0 && (c == ',' || c == '}')) {
            break;
        }
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        at++;
    }
    return at;
}

static void add_member(lore_buf *out, bool *is_first, lore_str key, lore_str value)
{
    lore_buf_append(out, *is_first ? LORE_STR("\n  \"") : LORE_STR(",\n  \""));
    lore_buf_append(out, key);
    lore_buf_append(out, LORE_STR("\": "));
    lore_buf_append(out, value);
    *is_first = false;
}

/* name: the key without its escapes. */
static void copy_member(lore_buf *out, bool *is_first, lore_str name, lore_str key, lore_str value,
                        const lore_config_edit *edits, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        if (lore_str_equal(name, lore_str_from(edits[i].key))) {
            if (edits[i].value.len > 0) {
                add_member(out, is_first, key, edits[i].value);
            }
            return;
        }
    }
    add_member(out, is_first, key, value);
}

lore_status lore_config_edit_text(lore_str json, const char *name, const lore_config_edit *edits,
                                  int32_t count, lore_buf *out, lore_error *err)
{
    lore_json *root = NULL;
    bool is_first = true;
    lore_status status = lore_json_parse(json, LORE_MODEL_JSON_DEPTH_MAX, &root, err);
    if (status != LORE_OK) {
        return lore_model_blame(err, status, name);
    }
    if (!lore_json_is_object(root)) {
        lore_json_free(root);
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s' must hold an object", name);
    }
    size_t at = lore_str_find(json, LORE_STR("{"), 0) + 1;
    lore_buf_byte(out, '{');
    for (const lore_json *n = lore_json_first(root); n != NULL; n = lore_json_next(n)) {
        at = skip_blanks(json, at);
        const size_t key_end = skip_string(json, at);
        const lore_str key = lore_str_slice(json, at + 1, key_end - 1);
        const size_t value = lore_str_find(json, LORE_STR(":"), key_end) + 1;
        const size_t end = skip_value(json, value);
        copy_member(out, &is_first, lore_json_key(n), key,
                    lore_str_trim(lore_str_slice(json, value, end)), edits, count);
        at = end + 1; /* behind the comma, or the last bracket */
    }
    for (int32_t i = 0; i < count; i++) {
        if (edits[i].is_added && lore_json_get(root, edits[i].key) == NULL) {
            add_member(out, &is_first, lore_str_from(edits[i].key), edits[i].value);
        }
    }
    lore_buf_append(out, LORE_STR("\n}\n"));
    lore_json_free(root);
    return lore_buf_failed(out)
               ? lore_fail(err, LORE_ERR_NOMEM, "out of memory for a new '%s'", name)
               : LORE_OK;
}
