/* Opening a model folder: one file of tensors or several behind an index, joined into one table by
 * name, and what config.json says of quantisation.
 *
 * After safetensors.c has checked a file, a tensor is a pointer into the map and nothing is copied.
 */
#include "base/json.h"
#include "models/model_folder_int.h"
#include "models/weights_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHARDS_MAX = 4096, /* files of one model */
    INDEX_DEPTH_MAX = 4,
    PATH_CAP = 4096
};

static int by_name(const void *a, const void *b)
{
    return lore_str_compare(((const lore_tensor *)a)->name, ((const lore_tensor *)b)->name);
}

static lore_status open_shard(lore_weights *w, const char *folder, lore_str file_name,
                              const lore_limits *limits, lore_tensor **tensors, int32_t *count,
                              lore_error *err)
{
    lore_shard *s = &w->shards[w->shard_count];
    lore_str path = lore_str_printf(&w->arena, "%s/" LORE_STR_FMT, folder, LORE_STR_ARG(file_name));
    s->path = lore_str_to_c(&w->arena, path);
    if (s->path == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory opening '%s'", folder);
    }
    lore_status status = lore_map_open(s->path, &s->map, err);
    if (status != LORE_OK) {
        return status;
    }
    w->shard_count++;
    if (s->map.size_bytes > (uint64_t)limits->model_file_bytes_max) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "'%s' has %zu bytes, over limits.model_file_bytes_max", s->path,
                         s->map.size_bytes);
    }
    lore_str bytes = {(const char *)s->map.ptr, s->map.size_bytes};
    status = lore_safetensors_parse(bytes, s->path, (size_t)limits->model_header_bytes_max,
                                    &w->arena, tensors, count, &s->header_bytes, err);
    for (int32_t i = 0; status == LORE_OK && i < *count; i++) {
        (*tensors)[i].shard = w->shard_count - 1;
    }
    return status;
}

/* Files in order of first appearance, and their numbers in order of their names: an index may name
 * a million tensors. */
typedef struct file_list {
    lore_str files[SHARDS_MAX];
    uint16_t by_name[SHARDS_MAX];
    int32_t count;
} file_list;

/* Where the name stands in by_name, or would. */
static int32_t place_of(const file_list *list, lore_str file)
{
    int32_t low = 0, high = list->count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (lore_str_compare(list->files[list->by_name[middle]], file) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The distinct file names of an index. They must be plain names. */
static lore_status list_files(const lore_json *map, const char *index_path, file_list *list,
                              lore_error *err)
{
    for (const lore_json *n = lore_json_first(map); n != NULL; n = lore_json_next(n)) {
        lore_str file = lore_json_str(n);
        if (!lore_str_ends(file, LORE_STR(".safetensors")) || file.ptr[0] == '.' ||
            memchr(file.ptr, '/', file.len) != NULL) {
            return lore_fail(err, LORE_ERR_CORRUPT,
                             "'%s': '" LORE_STR_FMT
                             "' must be the name of a .safetensors file beside it",
                             index_path, LORE_STR_ARG(file));
        }
        int32_t at = place_of(list, file);
        if (at < list->count && lore_str_equal(list->files[list->by_name[at]], file)) {
            continue;
        }
        if (list->count == SHARDS_MAX) {
            return lore_fail(err, LORE_ERR_LIMIT, "'%s' names more than %d files", index_path,
                             SHARDS_MAX);
        }
        memmove(list->by_name + at + 1, list->by_name + at,
                (size_t)(list->count - at) * sizeof *list->by_name);
        list->by_name[at] = (uint16_t)list->count;
        list->files[list->count++] = file;
    }
    return LORE_OK;
}

/* Join the tables of all files, sort by name, refuse a name that occurs twice. */
static lore_status join_tables(lore_weights *w, lore_tensor **tables, const int32_t *counts,
                               lore_error *err)
{
    int64_t total = 0;
    for (int32_t i = 0; i < w->shard_count; i++) {
        total += counts[i];
    }
    if (total > INT32_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "too many tensors");
    }
    w->tensors = LORE_PUSH(&w->arena, lore_tensor, total + 1);
    if (w->tensors == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for %lld tensors", (long long)total);
    }
    for (int32_t i = 0; i < w->shard_count; i++) {
        memcpy(w->tensors + w->tensor_count, tables[i], (size_t)counts[i] * sizeof(lore_tensor));
        w->tensor_count += counts[i];
    }
    qsort(w->tensors, (size_t)w->tensor_count, sizeof(lore_tensor), by_name);
    for (int32_t i = 1; i < w->tensor_count; i++) {
        if (lore_str_equal(w->tensors[i - 1].name, w->tensors[i].name)) {
            return lore_fail(err, LORE_ERR_CORRUPT, "'%s': tensor '" LORE_STR_FMT "' occurs twice",
                             w->shards[w->tensors[i].shard].path, LORE_STR_ARG(w->tensors[i].name));
        }
    }
    return LORE_OK;
}

lore_tensor *lore_weights_find(const lore_weights *w, lore_str name)
{
    lore_tensor key = {.name = name};
    return w->tensor_count == 0
               ? NULL
               : bsearch(&key, w->tensors, (size_t)w->tensor_count, sizeof(lore_tensor), by_name);
}

static bool is_file_of(const char *path, lore_str file)
{
    return lore_str_equal(lore_str_from(strrchr(path, '/') + 1), file);
}

/* Every tensor that the index promises must be in the file that it names. */
static lore_status check_index(const lore_weights *w, const lore_json *map, const char *index_path,
                               lore_error *err)
{
    for (const lore_json *n = lore_json_first(map); n != NULL; n = lore_json_next(n)) {
        const lore_tensor *t = lore_weights_find(w, lore_json_key(n));
        if (t == NULL || !is_file_of(w->shards[t->shard].path, lore_json_str(n))) {
            return lore_fail(
                err, LORE_ERR_CORRUPT,
                "'%s' promises tensor '" LORE_STR_FMT "' in '" LORE_STR_FMT "', which lacks it",
                index_path, LORE_STR_ARG(lore_json_key(n)), LORE_STR_ARG(lore_json_str(n)));
        }
    }
    return LORE_OK;
}

static lore_status open_files(lore_weights *w, const char *folder, const lore_str *files,
                              int32_t count, const lore_limits *limits, lore_error *err)
{
    w->shards = LORE_PUSH(&w->arena, lore_shard, count);
    lore_tensor **tables = LORE_PUSH(&w->arena, lore_tensor *, count);
    int32_t *counts = LORE_PUSH(&w->arena, int32_t, count);
    if (w->shards == NULL || tables == NULL || counts == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory opening '%s'", folder);
    }
    for (int32_t i = 0; i < count; i++) {
        lore_status status = open_shard(w, folder, files[i], limits, &tables[i], &counts[i], err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return join_tables(w, tables, counts, err);
}

static lore_status open_index(lore_weights *w, const char *folder, const char *index_path,
                              const lore_limits *limits, lore_error *err)
{
    lore_json *root = NULL;
    lore_buf text;
    file_list *list = LORE_PUSH(&w->arena, file_list, 1);
    lore_buf_init(&text, 0);
    lore_status status = list == NULL
                             ? lore_fail(err, LORE_ERR_NOMEM, "out of memory opening '%s'", folder)
                             : LORE_OK;
    if (status == LORE_OK) {
        status = lore_file_read(index_path, (size_t)limits->model_json_bytes_max, &text, err);
    }
    if (status != LORE_OK) {
        goto out;
    }
    status = lore_json_parse(lore_buf_str(&text), INDEX_DEPTH_MAX, &root, err);
    if (status != LORE_OK) {
        status = lore_model_blame(err, status, index_path);
        goto out;
    }
    const lore_json *map = lore_json_get(root, "weight_map");
    if (!lore_json_is_object(map) || lore_json_count(map) == 0) {
        status = lore_fail(err, LORE_ERR_CORRUPT, "'%s': weight_map must be an object with tensors",
                           index_path);
        goto out;
    }
    list->count = 0;
    status = list_files(map, index_path, list, err);
    if (status == LORE_OK) {
        status = open_files(w, folder, list->files, list->count, limits, err);
    }
    if (status == LORE_OK) {
        status = check_index(w, map, index_path, err);
    }
out:
    lore_json_free(root);
    lore_buf_destroy(&text);
    return status;
}

/* Tests and tools open folders that hold nothing but tensors: those are plain ones. */
static lore_status read_quantisation(lore_weights *w, const char *folder, const lore_limits *limits,
                                     lore_error *err)
{
    lore_json *root = NULL;
    char path[PATH_CAP];
    if (!lore_model_has(folder, "config.json")) {
        return LORE_OK;
    }
    lore_status status = lore_model_json(folder, "config.json", limits, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_quantized_config_read(root, &w->quantized, err);
    if (status != LORE_OK) {
        snprintf(path, sizeof path, "%s/config.json", folder); /* as long as the others */
        status = lore_model_blame(err, status, path);
    }
    lore_json_free(root);
    return status;
}

lore_status lore_weights_open(const char *folder, const lore_limits *limits, lore_weights **weights,
                              lore_error *err)
{
    char single[PATH_CAP], index_path[PATH_CAP];
    int single_len = snprintf(single, sizeof single, "%s/model.safetensors", folder);
    int index_len =
        snprintf(index_path, sizeof index_path, "%s/model.safetensors.index.json", folder);
    if (single_len >= PATH_CAP || index_len >= PATH_CAP) {
        return lore_fail(err, LORE_ERR_INVALID, "path of the model folder is too long");
    }
    bool has_single = lore_file_exists(single);
    if (!has_single && !lore_file_exists(index_path)) {
        return lore_fail(err, LORE_ERR_NOT_FOUND,
                         "'%s' holds neither model.safetensors nor model.safetensors.index.json",
                         folder);
    }
    lore_weights *w = lore_alloc_zero(1, sizeof *w);
    if (w == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory opening '%s'", folder);
    }
    lore_arena_init(&w->arena, 0);
    lore_str name = LORE_STR("model.safetensors");
    lore_status status = has_single ? open_files(w, folder, &name, 1, limits, err)
                                    : open_index(w, folder, index_path, limits, err);
    if (status == LORE_OK) {
        status = read_quantisation(w, folder, limits, err);
    }
    if (status != LORE_OK) {
        lore_weights_close(w);
        return status;
    }
    *weights = w;
    return LORE_OK;
}

void lore_weights_close(lore_weights *w)
{
    if (w == NULL) {
        return;
    }
    for (int32_t i = 0; i < w->tensor_count; i++) {
        lore_free_aligned(w->tensors[i].copy);
    }
    while (w->converted != NULL) {
        lore_converted *next = w->converted->next;
        lore_quantized_free(&w->converted->quantized);
        lore_free(w->converted);
        w->converted = next;
    }
    for (int32_t i = 0; i < w->shard_count; i++) {
        lore_map_close(&w->shards[i].map);
    }
    if (w->queue != NULL) {
        lore_queue_close(w->queue);
    }
    lore_arena_destroy(&w->arena);
    lore_free(w);
}
