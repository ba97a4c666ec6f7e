/* Reading the JSON files of a model folder. Nothing here knows what is in them, except lore.json.
 */
#include "models/model_folder_int.h"

#include "base/file.h"

#include <stdio.h>
#include <string.h>

enum { PATH_CAP = 4096 };

lore_status lore_model_blame(lore_error *err, lore_status status, const char *path)
{
    lore_status blamed = status == LORE_ERR_INVALID ? LORE_ERR_CORRUPT : status;
    if (err != NULL) {
        lore_error_prefix(err, "'%s'", path);
        err->status = blamed;
    }
    return blamed;
}

static lore_status path_of(const char *folder, const char *file, char path[PATH_CAP],
                           lore_error *err)
{
    int len = snprintf(path, PATH_CAP, "%s/%s", folder, file);
    if (len < 0 || len >= PATH_CAP) {
        return lore_fail(err, LORE_ERR_INVALID, "path of the model folder is too long");
    }
    return LORE_OK;
}

bool lore_model_has(const char *folder, const char *file)
{
    char path[PATH_CAP];
    return path_of(folder, file, path, NULL) == LORE_OK && lore_file_exists(path);
}

lore_status lore_model_read(const char *folder, const char *file, const lore_limits *limits,
                            lore_buf *out, lore_error *err)
{
    char path[PATH_CAP];
    lore_status status = path_of(folder, file, path, err);
    if (status != LORE_OK) {
        return status;
    }
    if (!lore_file_exists(path)) {
        return lore_fail(err, LORE_ERR_NOT_FOUND, "model folder '%s' has no %s", folder, file);
    }
    return lore_file_read(path, (size_t)limits->model_json_bytes_max, out, err);
}

lore_status lore_model_json(const char *folder, const char *file, const lore_limits *limits,
                            lore_json **root, lore_error *err)
{
    char path[PATH_CAP];
    lore_buf text;
    lore_buf_init(&text, 0);
    lore_status status = lore_model_read(folder, file, limits, &text, err);
    if (status == LORE_OK) {
        status = path_of(folder, file, path, err);
    }
    if (status == LORE_OK) {
        status = lore_json_parse(lore_buf_str(&text), LORE_MODEL_JSON_DEPTH_MAX, root, err);
        if (status != LORE_OK) {
            status = lore_model_blame(err, status, path);
        }
    }
    lore_buf_destroy(&text);
    return status;
}

/* The last part of the path, without slashes at its end. */
static lore_str last_part(const char *folder)
{
    lore_str s = lore_str_from(folder);
    while (s.len > 1 && s.ptr[s.len - 1] == '/') {
        s.len--;
    }
    size_t start = s.len;
    while (start > 0 && s.ptr[start - 1] != '/') {
        start--;
    }
    return lore_str_slice(s, start, s.len);
}

static lore_status set_name(lore_model_card *card, lore_str name, const char *folder,
                            lore_error *err)
{
    if (name.len == 0 || name.len >= LORE_MODEL_NAME_CAP) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "model folder '%s': its name must have 1 to %d bytes", folder,
                         LORE_MODEL_NAME_CAP - 1);
    }
    memcpy(card->name, name.ptr, name.len);
    card->name[name.len] = '\0';
    return LORE_OK;
}

lore_status lore_model_card_read(const char *folder, const lore_limits *limits,
                                 lore_model_card *card, lore_error *err)
{
    lore_json *root = NULL;
    lore_str name = last_part(folder);
    lore_status status = LORE_OK;
    card->needs_guard = false;
    if (lore_model_has(folder, "lore.json")) {
        status = lore_model_json(folder, "lore.json", limits, &root, err);
        if (status != LORE_OK) {
            return status;
        }
        status = lore_json_is_object(root)
                     ? LORE_OK
                     : lore_fail(err, LORE_ERR_CORRUPT, "lore.json must hold an object");
        if (status == LORE_OK) {
            status = lore_json_get_str(root, "", "name", &name, err);
        }
        if (status == LORE_OK) {
            status = lore_json_get_bool(root, "", "needs_guard", &card->needs_guard, err);
        }
        if (status != LORE_OK) {
            status = lore_model_blame(err, status, folder);
        }
    }
    if (status == LORE_OK) {
        status = set_name(card, name, folder, err);
    }
    lore_json_free(root);
    return status;
}
