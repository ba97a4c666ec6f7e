/* The tensors of a model folder: one file or several behind an index, joined into one table by
 * name.
 *
 * After safetensors.c has checked a file, a tensor is a pointer into the map and nothing is copied,
 * except where a careless writer left a range at an address that its type cannot be read from.
 *
 * Invariants of an open lore_weights:
 *   1. tensors[] is sorted by name and no name occurs twice, over all files together;
 *   2. tensors[i].data .. + size_bytes lies inside the map of its file;
 *   3. elements * dtype size == size_bytes. */
#include "models/weights.h"

#include "base/file.h"
#include "base/json.h"
#include "models/model_folder_int.h"
#include "models/safetensors_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHARDS_MAX = 4096, /* files of one model */
    INDEX_DEPTH_MAX = 4,
    PATH_CAP = 4096,
    SAMPLE_BYTES = 4096, /* fingerprint: size of one sampled block ... */
    SAMPLE_COUNT = 64    /* ... and how many of each file */
};

typedef struct shard {
    char *path;
    lore_map map;
    size_t header_bytes;
} shard;

struct lore_weights {
    lore_arena arena; /* names, paths, tensor table */
    shard *shards;
    int32_t shard_count;
    lore_tensor *tensors;
    int32_t tensor_count;
    lore_backend
        *queue_backend; /* vectors go to their backend through one queue, opened on first use */
    lore_queue *queue;
};

static int by_name(const void *a, const void *b)
{
    return lore_str_compare(((const lore_tensor *)a)->name, ((const lore_tensor *)b)->name);
}

/* ---- a folder ---- */

static lore_status open_shard(lore_weights *w, const char *folder, lore_str file_name,
                              const lore_limits *limits, lore_tensor **tensors, int32_t *count,
                              lore_error *err)
{
    shard *s = &w->shards[w->shard_count];
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

/* The distinct file names of an index, in order of first appearance. They must be plain names. */
static lore_status list_files(const lore_json *map, const char *index_path, lore_str *files,
                              int32_t *count, lore_error *err)
{
    *count = 0;
    for (const lore_json *n = lore_json_first(map); n != NULL; n = lore_json_next(n)) {
        lore_str file = lore_json_str(n);
        if (!lore_str_ends(file, LORE_STR(".safetensors")) || file.ptr[0] == '.' ||
            memchr(file.ptr, '/', file.len) != NULL) {
            return lore_fail(err, LORE_ERR_CORRUPT,
                             "'%s': '" LORE_STR_FMT
                             "' must be the name of a .safetensors file beside it",
                             index_path, LORE_STR_ARG(file));
        }
        int32_t i = *count - 1; /* neighbours nearly always share a file */
        while (i >= 0 && !lore_str_equal(files[i], file)) {
            i--;
        }
        if (i >= 0) {
            continue;
        }
        if (*count == SHARDS_MAX) {
            return lore_fail(err, LORE_ERR_LIMIT, "'%s' names more than %d files", index_path,
                             SHARDS_MAX);
        }
        files[(*count)++] = file;
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

static lore_tensor *find_str(const lore_weights *w, lore_str name)
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
        const lore_tensor *t = find_str(w, lore_json_key(n));
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
    w->shards = LORE_PUSH(&w->arena, shard, count);
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
    lore_str *files = LORE_PUSH(&w->arena, lore_str, SHARDS_MAX);
    int32_t count = 0;
    lore_buf_init(&text, 0);
    lore_status status = files == NULL
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
    status = list_files(map, index_path, files, &count, err);
    if (status == LORE_OK) {
        status = open_files(w, folder, files, count, limits, err);
    }
    if (status == LORE_OK) {
        status = check_index(w, map, index_path, err);
    }
out:
    lore_json_free(root);
    lore_buf_destroy(&text);
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
    for (int32_t i = 0; i < w->shard_count; i++) {
        lore_map_close(&w->shards[i].map);
    }
    if (w->queue != NULL) {
        lore_queue_close(w->queue);
    }
    lore_arena_destroy(&w->arena);
    lore_free(w);
}

/* ---- taking tensors ---- */

static lore_tensor *find(const lore_weights *w, const char *name)
{
    return find_str(w, lore_str_from(name));
}

/* The row scales of an int8 tensor, or NULL. */
static lore_tensor *find_scales(const lore_weights *w, lore_str name)
{
    char scale_name[LORE_TENSOR_NAME_CAP + 8];
    int len = snprintf(scale_name, sizeof scale_name, LORE_STR_FMT "_scale", LORE_STR_ARG(name));
    return len < (int)sizeof scale_name ? find(w, scale_name) : NULL;
}

bool lore_weights_has(const lore_weights *w, const char *name)
{
    return find(w, name) != NULL;
}

bool lore_weights_ignore(lore_weights *w, const char *name)
{
    lore_tensor *t = find(w, name);
    if (t == NULL) {
        return false;
    }
    t->is_taken = true;
    lore_tensor *scales = find_scales(w, t->name);
    if (scales != NULL) {
        scales->is_taken = true;
    }
    return true;
}

static const char *shape_text(const lore_tensor *t, char *text, size_t cap)
{
    size_t used = 0;
    text[0] = '\0';
    for (int32_t i = 0; i < t->rank && used < cap; i++) {
        int n =
            snprintf(text + used, cap - used, "%s%lld", i > 0 ? ", " : "", (long long)t->shape[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    return text;
}

/* The tensor of this name with exactly this shape (rows < 0: a vector of cols), of a type that we
 * compute with. */
static lore_status take(lore_weights *w, const char *name, int64_t rows, int64_t cols,
                        lore_tensor **out, lore_error *err)
{
    char found[128];
    lore_tensor *t = find(w, name);
    if (t == NULL) {
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s' has no tensor '%s'", w->shards[0].path, name);
    }
    const char *path = w->shards[t->shard].path;
    bool is_shape_right = rows < 0 ? t->rank == 1 && t->shape[0] == cols
                                   : t->rank == 2 && t->shape[0] == rows && t->shape[1] == cols;
    if (!is_shape_right && rows < 0) {
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s': tensor '%s' must be [%lld], is [%s]", path,
                         name, (long long)cols, shape_text(t, found, sizeof found));
    }
    if (!is_shape_right) {
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s': tensor '%s' must be [%lld, %lld], is [%s]",
                         path, name, (long long)rows, (long long)cols,
                         shape_text(t, found, sizeof found));
    }
    if (!t->type->is_usable || (rows < 0 && t->type->dtype == LORE_I8)) {
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s': tensor '%s' must be F32, F16%s, is %s", path,
                         name, rows < 0 ? " or BF16" : ", BF16 or I8", t->type->name);
    }
    t->is_taken = true;
    *out = t;
    return LORE_OK;
}

/* Data at an address that its type may be read from: the map itself nearly always, else a copy. */
static lore_status aligned_data(lore_weights *w, lore_tensor *t, const void **data, lore_error *err)
{
    if (t->copy == NULL && (uintptr_t)t->data % t->type->size_bytes != 0) {
        t->copy = lore_alloc_aligned(t->size_bytes);
        if (t->copy == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM,
                             "out of memory for tensor '" LORE_STR_FMT "' of '%s'",
                             LORE_STR_ARG(t->name), w->shards[t->shard].path);
        }
        memcpy(t->copy, t->data, t->size_bytes);
    }
    *data = t->copy != NULL ? t->copy : (const void *)t->data;
    return LORE_OK;
}

/* Scales of an int8 matrix: f32, one a row, none of them negative, infinite or NaN. */
static lore_status take_scales(lore_weights *w, const lore_tensor *t, int32_t rows,
                               const float **scales, lore_error *err)
{
    char name[LORE_TENSOR_NAME_CAP + 8];
    lore_tensor *s = NULL;
    const void *data = NULL;
    snprintf(name, sizeof name, LORE_STR_FMT "_scale", LORE_STR_ARG(t->name));
    lore_status status = take(w, name, -1, rows, &s, err);
    if (status != LORE_OK) {
        return status;
    }
    if (s->type->dtype != LORE_F32) {
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s': tensor '%s' must be F32, is %s",
                         w->shards[s->shard].path, name, s->type->name);
    }
    status = aligned_data(w, s, &data, err);
    if (status != LORE_OK) {
        return status;
    }
    *scales = data;
    for (int32_t i = 0; i < rows; i++) {
        if (!isfinite((*scales)[i]) || (*scales)[i] < 0) {
            return lore_fail(err, LORE_ERR_CORRUPT,
                             "'%s': tensor '%s' has an impossible scale in row %d",
                             w->shards[s->shard].path, name, i);
        }
    }
    return LORE_OK;
}

lore_status lore_weights_matrix(lore_weights *w, const char *name, int32_t rows, int32_t cols,
                                lore_matrix *matrix, lore_error *err)
{
    lore_tensor *t = NULL;
    const void *data = NULL;
    const float *scales = NULL;
    LORE_ASSERT(rows > 0 && cols > 0);
    lore_status status = take(w, name, rows, cols, &t, err);
    if (status == LORE_OK) {
        status = aligned_data(w, t, &data, err);
    }
    if (status == LORE_OK && t->type->dtype == LORE_I8) {
        status = take_scales(w, t, rows, &scales, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    *matrix = (lore_matrix){t->type->dtype, rows, cols, data, scales};
    return LORE_OK;
}

static float value_at(const lore_tensor *t, int32_t i)
{
    uint16_t half = 0;
    float value = 0;
    if (t->type->dtype == LORE_F32) {
        memcpy(&value, t->data + 4 * (size_t)i, 4);
        return value;
    }
    memcpy(&half, t->data + 2 * (size_t)i, 2);
    return t->type->dtype == LORE_F16 ? lore_f16_to_f32(half) : lore_bf16_to_f32(half);
}

/* Convert the named vectors into host memory, one behind the other. */
static lore_status read_vectors(lore_weights *w, const char *const *names, int32_t names_count,
                                int32_t count, float *out, lore_error *err)
{
    for (int32_t n = 0; n < names_count; n++) {
        lore_tensor *t = NULL;
        lore_status status = take(w, names[n], -1, count, &t, err);
        if (status != LORE_OK) {
            return status;
        }
        for (int32_t i = 0; i < count; i++) {
            float value = value_at(t, i);
            if (!isfinite(value)) {
                return lore_fail(err, LORE_ERR_CORRUPT, "'%s': tensor '%s' is not finite at %d",
                                 w->shards[t->shard].path, names[n], i);
            }
            out[(size_t)n * (size_t)count + (size_t)i] = value;
        }
    }
    return LORE_OK;
}

static lore_status upload(lore_weights *w, lore_backend *backend, float *to, const float *host,
                          size_t size_bytes, lore_error *err)
{
    if (w->queue_backend != backend) {
        if (w->queue != NULL) {
            lore_queue_close(w->queue);
        }
        w->queue = NULL;
        w->queue_backend = NULL;
        lore_status status = lore_queue_open(backend, &w->queue, err);
        if (status != LORE_OK) {
            return status;
        }
        w->queue_backend = backend;
    }
    lore_queue_upload(w->queue, to, host, size_bytes);
    return lore_queue_sync(w->queue, err);
}

lore_status lore_weights_vectors(lore_weights *w, const char *const *names, int32_t names_count,
                                 int32_t count, lore_backend *backend, float **vector,
                                 lore_error *err)
{
    void *memory = NULL;
    LORE_ASSERT(names_count > 0 && count > 0);
    size_t size_bytes = (size_t)names_count * (size_t)count * sizeof(float);
    float *host = lore_alloc(size_bytes);
    if (host == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for tensor '%s'", names[0]);
    }
    lore_status status = read_vectors(w, names, names_count, count, host, err);
    if (status == LORE_OK) {
        status = lore_backend_alloc(backend, size_bytes, &memory, err);
    }
    if (status == LORE_OK) {
        status = upload(w, backend, memory, host, size_bytes, err);
    }
    lore_free(host);
    if (status != LORE_OK) {
        if (memory != NULL) {
            lore_backend_free(backend, memory);
        }
        return status;
    }
    *vector = memory;
    return LORE_OK;
}

lore_status lore_weights_vector(lore_weights *w, const char *name, int32_t count,
                                lore_backend *backend, float **vector, lore_error *err)
{
    return lore_weights_vectors(w, &name, 1, count, backend, vector, err);
}

/* Buffers that old exporters wrote and that hold nothing learnt. */
static bool is_derived(lore_str name)
{
    return lore_str_ends(name, LORE_STR("position_ids")) ||
           lore_str_ends(name, LORE_STR("rotary_emb.inv_freq"));
}

lore_status lore_weights_finish(const lore_weights *w, lore_error *err)
{
    for (int32_t i = 0; i < w->tensor_count; i++) {
        const lore_tensor *t = &w->tensors[i];
        if (!t->is_taken && !is_derived(t->name)) {
            return lore_fail(err, LORE_ERR_CORRUPT,
                             "'%s' holds tensor '" LORE_STR_FMT
                             "', which this model has no use for",
                             w->shards[t->shard].path, LORE_STR_ARG(t->name));
        }
    }
    for (int32_t i = 0; i < w->shard_count; i++) {
        lore_map_drop(&w->shards[i].map); /* what was packed is hardly read again */
    }
    return LORE_OK;
}

/* ---- facts about the whole ---- */

lore_status lore_weights_fingerprint(const lore_weights *w, char hex[65], lore_error *err)
{
    lore_sha256 sha;
    uint8_t digest[32];
    (void)err;
    lore_sha256_init(&sha);
    for (int32_t i = 0; i < w->shard_count; i++) {
        const shard *s = &w->shards[i];
        const char *bytes = (const char *)s->map.ptr;
        lore_sha256_update(&sha, (lore_str){bytes, s->header_bytes});
        size_t data_bytes = s->map.size_bytes - s->header_bytes;
        size_t step =
            data_bytes / SAMPLE_COUNT > SAMPLE_BYTES ? data_bytes / SAMPLE_COUNT : SAMPLE_BYTES;
        for (size_t at = 0; at < data_bytes; at += step) {
            size_t left = data_bytes - at;
            lore_sha256_update(&sha, (lore_str){bytes + s->header_bytes + at,
                                                left < SAMPLE_BYTES ? left : SAMPLE_BYTES});
        }
    }
    lore_sha256_final(&sha, digest);
    lore_sha256_hex(digest, hex);
    return LORE_OK;
}

static bool is_scale(const lore_weights *w, lore_str name)
{
    lore_str suffix = LORE_STR("_scale");
    if (!lore_str_ends(name, suffix)) {
        return false;
    }
    const lore_tensor *base = find_str(w, lore_str_slice(name, 0, name.len - suffix.len));
    return base != NULL && base->type->is_usable && base->type->dtype == LORE_I8;
}

int64_t lore_weights_parameters(const lore_weights *w)
{
    int64_t count = 0;
    for (int32_t i = 0; i < w->tensor_count; i++) {
        const lore_tensor *t = &w->tensors[i];
        if (!is_derived(t->name) && !is_scale(w, t->name)) {
            count += (int64_t)(t->size_bytes / t->type->size_bytes);
        }
    }
    return count;
}

int64_t lore_weights_bytes(const lore_weights *w)
{
    int64_t bytes = 0;
    for (int32_t i = 0; i < w->tensor_count; i++) {
        bytes += (int64_t)w->tensors[i].size_bytes;
    }
    return bytes;
}
