/* Taking tensors from an open model folder: as matrices, as vectors, and facts about the whole.
 *
 * A plain tensor is borrowed from the map, except where a careless writer left it at an address
 * that its type cannot be read from. A quantised matrix is made of its set (quantized.c) when it is
 * asked for. */
#include "models/weights_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    SAMPLE_BYTES = 4096, /* fingerprint: size of one sampled block ... */
    SAMPLE_COUNT = 64    /* ... and how many of each file */
};

/* ---- quantised sets ---- */

/* What the tensors of a module "X" are called behind "X.", by what they are. The rest of a set is
 * how its writer quantised activations: the backend does that as it likes. */
typedef struct set_names {
    const char *codes, *scales, *zeros, *group_of, *shape;
    const char *others[4];
} set_names;

static const set_names WORD_NAMES = {"qweight", "scales", "qzeros", "g_idx", NULL, {NULL}};
static const set_names PACKED_NAMES = {
    "weight_packed",     "weight_scale",
    "weight_zero_point", "weight_g_idx",
    "weight_shape",      {"input_scale", "input_zero_point", "output_scale", "output_zero_point"}};

static lore_tensor *find(const lore_weights *w, const char *name)
{
    return lore_weights_find(w, lore_str_from(name));
}

/* "X" and "weight" together; NULL where part is NULL or there is no such tensor. */
static lore_tensor *find_part(const lore_weights *w, lore_str module, const char *part)
{
    char name[LORE_TENSOR_NAME_CAP];
    if (part == NULL) {
        return NULL;
    }
    int len = snprintf(name, sizeof name, LORE_STR_FMT ".%s", LORE_STR_ARG(module), part);
    return len > 0 && len < (int)sizeof name ? find(w, name) : NULL;
}

static const lore_tensor *add_part(const lore_weights *w, lore_str module, const char *part,
                                   lore_tensor *parts[LORE_PARTS_MAX], int32_t *count)
{
    lore_tensor *t = find_part(w, module, part);
    if (t != NULL) {
        parts[(*count)++] = t;
    }
    return t;
}

static const set_names *names_of(const lore_weights *w)
{
    return w->quantized.method == LORE_QUANTIZED_COMPRESSED ? &PACKED_NAMES : &WORD_NAMES;
}

/* int8 of compressed-tensors keeps the name of a plain tensor. */
static lore_tensor *find_codes(const lore_weights *w, lore_str module)
{
    if (w->quantized.method == LORE_QUANTIZED_NONE) {
        return NULL;
    }
    lore_tensor *t = find_part(w, module, names_of(w)->codes);
    if (t != NULL || w->quantized.method != LORE_QUANTIZED_COMPRESSED) {
        return t;
    }
    t = find_part(w, module, "weight");
    return t != NULL && t->type->is_usable && t->type->dtype == LORE_I8 ? t : NULL;
}

bool lore_weights_find_set(const lore_weights *w, lore_str module, lore_quantized_set *set,
                           lore_tensor *parts[LORE_PARTS_MAX], int32_t *part_count)
{
    const set_names *names = names_of(w);
    lore_tensor *codes = find_codes(w, module);
    if (codes == NULL) {
        return false;
    }
    parts[0] = codes;
    *part_count = 1;
    set->codes = codes;
    set->path = w->shards[codes->shard].path;
    set->scales = add_part(w, module, names->scales, parts, part_count);
    set->zeros = add_part(w, module, names->zeros, parts, part_count);
    set->group_of = add_part(w, module, names->group_of, parts, part_count);
    set->shape = add_part(w, module, names->shape, parts, part_count);
    for (size_t i = 0; i < sizeof names->others / sizeof names->others[0]; i++) {
        (void)add_part(w, module, names->others[i], parts, part_count);
    }
    return true;
}

static bool is_part_name(const set_names *names, lore_str part)
{
    const char *const known[] = {names->scales,    names->zeros,     names->group_of,
                                 names->shape,     names->others[0], names->others[1],
                                 names->others[2], names->others[3]};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i] != NULL && lore_str_equal(part, lore_str_from(known[i]))) {
            return true;
        }
    }
    return false;
}

lore_str lore_weights_module_of(const lore_weights *w, const lore_tensor *t, bool *is_codes)
{
    const lore_str none = {NULL, 0};
    size_t dot = t->name.len;
    while (dot > 0 && t->name.ptr[dot - 1] != '.') {
        dot--;
    }
    *is_codes = false;
    if (dot < 2 || w->quantized.method == LORE_QUANTIZED_NONE) {
        return none;
    }
    lore_str module = lore_str_slice(t->name, 0, dot - 1);
    const lore_tensor *codes = find_codes(w, module);
    *is_codes = codes == t;
    bool is_part = is_part_name(names_of(w), lore_str_slice(t->name, dot, t->name.len));
    return codes != NULL && (codes == t || is_part) ? module : none;
}

/* "X" of "X.weight"; empty for other names. */
static lore_str module_of_name(const char *name)
{
    lore_str suffix = LORE_STR(".weight"), whole = lore_str_from(name);
    return lore_str_ends(whole, suffix) ? lore_str_slice(whole, 0, whole.len - suffix.len)
                                        : (lore_str){NULL, 0};
}

/* Make the matrix of a set, and keep what it stands on. */
static lore_status convert(lore_weights *w, const lore_quantized_set *set, int32_t rows,
                           int32_t cols, lore_matrix *matrix, lore_error *err)
{
    lore_converted *converted = lore_alloc_zero(1, sizeof *converted);
    if (converted == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for tensor '" LORE_STR_FMT "'",
                         LORE_STR_ARG(set->codes->name));
    }
    lore_status status =
        lore_quantized_read(&w->quantized, set, rows, cols, &converted->quantized, err);
    if (status != LORE_OK) {
        lore_free(converted);
        return status;
    }
    converted->next = w->converted;
    w->converted = converted;
    *matrix = converted->quantized.matrix;
    return LORE_OK;
}

void lore_weights_release(lore_weights *w, const lore_matrix *matrix)
{
    lore_converted **at = &w->converted;
    while (*at != NULL && ((*at)->quantized.matrix.data != matrix->data ||
                           (*at)->quantized.matrix.scales != matrix->scales)) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        lore_converted *found = *at;
        *at = found->next;
        lore_quantized_free(&found->quantized);
        lore_free(found);
    }
}

/* ---- taking tensors ---- */

/* The row scales of a plain int8 tensor, or NULL. */
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

bool lore_weights_has_matrix(const lore_weights *w, const char *name)
{
    lore_quantized_set set;
    lore_tensor *parts[LORE_PARTS_MAX];
    int32_t count = 0;
    lore_str module = module_of_name(name);
    return find(w, name) != NULL ||
           (module.len > 0 && lore_weights_find_set(w, module, &set, parts, &count));
}

bool lore_weights_ignore(lore_weights *w, const char *name)
{
    lore_quantized_set set;
    lore_tensor *parts[LORE_PARTS_MAX];
    int32_t count = 0;
    lore_str module = module_of_name(name);
    if (module.len > 0 && lore_weights_find_set(w, module, &set, parts, &count)) {
        for (int32_t i = 0; i < count; i++) {
            parts[i]->is_taken = true;
        }
        return true;
    }
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
    lore_quantized_set set;
    lore_tensor *parts[LORE_PARTS_MAX];
    int32_t count = 0;
    lore_str module = module_of_name(name);
    LORE_ASSERT(rows > 0 && cols > 0);
    if (module.len > 0 && lore_weights_find_set(w, module, &set, parts, &count)) {
        for (int32_t i = 0; i < count; i++) {
            parts[i]->is_taken = true;
        }
        return convert(w, &set, rows, cols, matrix, err);
    }
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
    *matrix = (lore_matrix){
        .dtype = t->type->dtype, .rows = rows, .cols = cols, .data = data, .scales = scales};
    return LORE_OK;
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
            float value = lore_tensor_value(t, (size_t)i);
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

/* Buffers that old exporters wrote and that hold nothing learnt, and what quantised folders say of
 * a cache of keys and values in few bits: ours is not. */
static bool is_derived(const lore_weights *w, lore_str name)
{
    return lore_str_ends(name, LORE_STR("position_ids")) ||
           lore_str_ends(name, LORE_STR("rotary_emb.inv_freq")) ||
           (w->quantized.method == LORE_QUANTIZED_COMPRESSED &&
            (lore_str_ends(name, LORE_STR(".k_scale")) ||
             lore_str_ends(name, LORE_STR(".v_scale"))));
}

lore_status lore_weights_finish(const lore_weights *w, lore_error *err)
{
    for (int32_t i = 0; i < w->tensor_count; i++) {
        const lore_tensor *t = &w->tensors[i];
        if (!t->is_taken && !is_derived(w, t->name)) {
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
        const lore_shard *s = &w->shards[i];
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

bool lore_weights_is_scale(const lore_weights *w, lore_str name)
{
    lore_str suffix = LORE_STR("_scale");
    if (!lore_str_ends(name, suffix)) {
        return false;
    }
    const lore_tensor *base = lore_weights_find(w, lore_str_slice(name, 0, name.len - suffix.len));
    return base != NULL && base->type->is_usable && base->type->dtype == LORE_I8;
}

/* How many values of the network a tensor holds. */
static int64_t count_parameters(const lore_weights *w, const lore_tensor *t)
{
    lore_quantized_set set;
    lore_tensor *parts[LORE_PARTS_MAX];
    int32_t count = 0, rows = 0, cols = 0;
    bool is_codes = false;
    lore_str module = lore_weights_module_of(w, t, &is_codes);
    if (is_derived(w, t->name) || lore_weights_is_scale(w, t->name) ||
        (module.len > 0 && !is_codes)) {
        return 0;
    }
    if (module.len > 0 && lore_weights_find_set(w, module, &set, parts, &count) &&
        lore_quantized_shape(&w->quantized, &set, &rows, &cols)) {
        return (int64_t)rows * cols;
    }
    return (int64_t)(t->size_bytes / t->type->size_bytes);
}

int64_t lore_weights_parameters(const lore_weights *w)
{
    int64_t count = 0;
    for (int32_t i = 0; i < w->tensor_count; i++) {
        int64_t more = count_parameters(w, &w->tensors[i]);
        count += more < INT64_MAX - count ? more : 0; /* a hostile weight_shape */
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
