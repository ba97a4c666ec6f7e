/* Each function reads one field and blames it by name; the caller adds the file's name once, at its
 * end (lore_model_blame). */
#include "models/config_reader_int.h"

#include "models/model_folder_int.h"

lore_status lore_config_open(lore_str json, const char *name, lore_json **root, lore_error *err)
{
    lore_status status = lore_json_parse(json, LORE_MODEL_JSON_DEPTH_MAX, root, err);
    if (status != LORE_OK) {
        return lore_model_blame(err, status, name);
    }
    if (!lore_json_is_object(*root)) {
        lore_json_free(*root);
        *root = NULL;
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s' must hold an object", name);
    }
    return LORE_OK;
}

lore_status lore_config_need_int(lore_config_reader *r, const char *key, int64_t max, int32_t *out)
{
    int64_t value = 0;
    lore_status status = lore_json_get_int_required(r->root, "", key, 1, max, &value, r->err);
    *out = (int32_t)value;
    return status;
}

lore_status lore_config_may_int(lore_config_reader *r, const char *key, int64_t max, int32_t *out)
{
    int64_t value = *out;
    lore_status status = lore_json_get_int(r->root, "", key, 1, max, &value, r->err);
    *out = (int32_t)value;
    return status;
}

/* Refuse a flag that is on. */
lore_status lore_config_need_off(lore_config_reader *r, const char *key)
{
    bool value = false;
    lore_status status = lore_json_get_bool(r->root, "", key, &value, r->err);
    return status == LORE_OK && value
               ? lore_fail(r->err, LORE_ERR_UNSUPPORTED, "%s true is not supported", key)
               : status;
}

/* Refuse a string other than the one we compute; absent is fine. */
lore_status lore_config_need_text(lore_config_reader *r, const char *key, const char *wanted)
{
    lore_str value = lore_str_from(wanted);
    lore_status status = lore_json_get_str(r->root, "", key, &value, r->err);
    return status == LORE_OK && !lore_str_equal(value, lore_str_from(wanted))
               ? lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                           "%s '" LORE_STR_FMT "' is not supported (only %s)", key,
                           LORE_STR_ARG(lore_str_slice(value, 0, value.len < 64 ? value.len : 64)),
                           wanted)
               : status;
}

/* Refuse a structure that means another network. */
lore_status lore_config_need_absent(lore_config_reader *r, const char *key)
{
    const lore_json *node = lore_json_get(r->root, key);
    return lore_json_is_object(node) || lore_json_is_array(node)
               ? lore_fail(r->err, LORE_ERR_UNSUPPORTED, "%s is not supported", key)
               : LORE_OK;
}
