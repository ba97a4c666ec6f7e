/* safetensors (github.com/huggingface/safetensors, "Format"): eight bytes of header length, little
 * endian; a JSON object name -> {dtype, shape, data_offsets}; the data.
 *
 * The file is somebody else's. So the header is believed only after it has been shown to describe
 * exactly the bytes behind it: every range in order, none overlapping, none missing, each as long
 * as its shape and type say. */
#include "models/safetensors_int.h"

#include "base/json.h"
#include "models/model_folder_int.h"
#include "models/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TENSORS_MAX = 1 << 20, /* of one file */
    HEADER_DEPTH_MAX = 4   /* object, entry, array, number */
};

static const lore_stored_type STORED_TYPES[] = {
    {"F32", 4, true, LORE_F32},      {"F16", 2, true, LORE_F16},
    {"BF16", 2, true, LORE_BF16},    {"I8", 1, true, LORE_I8},
    {"F64", 8, false, LORE_F32},     {"I64", 8, false, LORE_F32},
    {"U64", 8, false, LORE_F32},     {"I32", 4, false, LORE_F32},
    {"U32", 4, false, LORE_F32},     {"I16", 2, false, LORE_F32},
    {"U16", 2, false, LORE_F32},     {"U8", 1, false, LORE_F32},
    {"BOOL", 1, false, LORE_F32},    {"F8_E4M3", 1, false, LORE_F32},
    {"F8_E5M2", 1, false, LORE_F32}, {"F8_E8M0", 1, false, LORE_F32}};

static const lore_stored_type *find_type(lore_str name)
{
    for (size_t i = 0; i < sizeof STORED_TYPES / sizeof STORED_TYPES[0]; i++) {
        if (lore_str_equal(name, lore_str_from(STORED_TYPES[i].name))) {
            return &STORED_TYPES[i];
        }
    }
    return NULL;
}

/* A whole number that a double holds exactly. */
static bool whole_number(const lore_json *node, int64_t *value)
{
    const double exact_max = 9007199254740992.0; /* 2^53 */
    if (!lore_json_is_number(node)) {
        return false;
    }
    double number = lore_json_number(node);
    if (!(number >= 0 && number <= exact_max) || number != floor(number)) {
        return false;
    }
    *value = (int64_t)number;
    return true;
}

static lore_status read_shape(const lore_json *shape, const char *file, lore_tensor *out,
                              lore_error *err)
{
    if (!lore_json_is_array(shape) || lore_json_count(shape) > LORE_TENSOR_RANK_MAX) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "'%s': shape of tensor '" LORE_STR_FMT
                         "' must be an array of at most %d numbers",
                         file, LORE_STR_ARG(out->name), LORE_TENSOR_RANK_MAX);
    }
    out->rank = 0;
    for (const lore_json *n = lore_json_first(shape); n != NULL; n = lore_json_next(n)) {
        if (!whole_number(n, &out->shape[out->rank++])) {
            return lore_fail(err, LORE_ERR_CORRUPT,
                             "'%s': shape of tensor '" LORE_STR_FMT "' must hold whole numbers",
                             file, LORE_STR_ARG(out->name));
        }
    }
    return LORE_OK;
}

/* Elements times size of the type; false on overflow. */
static bool tensor_bytes(const lore_tensor *t, size_t *bytes)
{
    size_t product = t->type->size_bytes;
    for (int32_t i = 0; i < t->rank; i++) {
        if (!lore_size_mul(product, (size_t)t->shape[i], &product)) {
            return false;
        }
    }
    *bytes = product;
    return true;
}

/* data: first byte behind the header, of data_bytes. */
static lore_status read_entry(const lore_json *entry, const char *file, const uint8_t *data,
                              size_t data_bytes, lore_tensor *out, lore_error *err)
{
    const lore_json *offsets = lore_json_get(entry, "data_offsets");
    const lore_json *first = lore_json_first(offsets);
    const lore_json *second = first != NULL ? lore_json_next(first) : NULL;
    int64_t begin = 0, end = 0;
    size_t wanted = 0;

    out->type = find_type(lore_json_str(lore_json_get(entry, "dtype")));
    if (out->type == NULL) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "'%s': tensor '" LORE_STR_FMT "' has the unknown dtype '" LORE_STR_FMT "'",
                         file, LORE_STR_ARG(out->name),
                         LORE_STR_ARG(lore_json_str(lore_json_get(entry, "dtype"))));
    }
    lore_status status = read_shape(lore_json_get(entry, "shape"), file, out, err);
    if (status != LORE_OK) {
        return status;
    }
    if (!lore_json_is_array(offsets) || lore_json_count(offsets) != 2 ||
        !whole_number(first, &begin) || !whole_number(second, &end) || begin > end ||
        (uint64_t)end > data_bytes) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "'%s': data_offsets of tensor '" LORE_STR_FMT
                         "' must be [begin, end] within %zu bytes of data",
                         file, LORE_STR_ARG(out->name), data_bytes);
    }
    out->data = data + begin;
    out->size_bytes = (size_t)(end - begin);
    if (!tensor_bytes(out, &wanted) || wanted != out->size_bytes) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "'%s': tensor '" LORE_STR_FMT
                         "' has %zu bytes, which is not what its shape and %s need",
                         file, LORE_STR_ARG(out->name), out->size_bytes, out->type->name);
    }
    return LORE_OK;
}

/* __metadata__ is a flat object of strings; nothing here reads it. */
static bool is_metadata_fine(const lore_json *metadata)
{
    if (!lore_json_is_object(metadata)) {
        return false;
    }
    for (const lore_json *n = lore_json_first(metadata); n != NULL; n = lore_json_next(n)) {
        if (!lore_json_is_string(n)) {
            return false;
        }
    }
    return true;
}

static int by_address(const void *a, const void *b)
{
    const lore_tensor *x = a, *y = b;
    if (x->data != y->data) {
        return x->data < y->data ? -1 : 1;
    }
    return x->size_bytes < y->size_bytes ? -1 : x->size_bytes > y->size_bytes;
}

/* The ranges must cover the data from its first byte to its last, once. */
static lore_status check_cover(lore_tensor *tensors, int32_t count, const char *file,
                               const uint8_t *data, size_t data_bytes, lore_error *err)
{
    qsort(tensors, (size_t)count, sizeof *tensors, by_address);
    const uint8_t *expected = data;
    for (int32_t i = 0; i < count; i++) {
        if (tensors[i].data != expected) {
            return lore_fail(err, LORE_ERR_CORRUPT, "'%s': tensor '" LORE_STR_FMT "' %s", file,
                             LORE_STR_ARG(tensors[i].name),
                             tensors[i].data < expected ? "overlaps another one"
                                                        : "leaves a hole before it");
        }
        expected += tensors[i].size_bytes;
    }
    if (expected != data + data_bytes) {
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s': %zu bytes behind the last tensor", file,
                         (size_t)(data + data_bytes - expected));
    }
    return LORE_OK;
}

static lore_status read_entries(const lore_json *root, const char *file, const uint8_t *data,
                                size_t data_bytes, lore_arena *arena, lore_tensor *tensors,
                                int32_t *count, lore_error *err)
{
    int32_t n = 0;
    for (const lore_json *e = lore_json_first(root); e != NULL; e = lore_json_next(e)) {
        lore_str name = lore_json_key(e);
        if (lore_str_equal(name, LORE_STR("__metadata__"))) {
            if (!is_metadata_fine(e)) {
                return lore_fail(err, LORE_ERR_CORRUPT,
                                 "'%s': __metadata__ must be an object of strings", file);
            }
            continue;
        }
        if (name.len == 0 || name.len >= LORE_TENSOR_NAME_CAP || !lore_json_is_object(e)) {
            return lore_fail(
                err, LORE_ERR_CORRUPT,
                "'%s': '" LORE_STR_FMT "' is no tensor (name of 1 to %d bytes, object)", file,
                LORE_STR_ARG(lore_str_slice(name, 0, name.len < 64 ? name.len : 64)),
                LORE_TENSOR_NAME_CAP - 1);
        }
        tensors[n].name = lore_str_copy(arena, name);
        if (tensors[n].name.ptr == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory reading '%s'", file);
        }
        lore_status status = read_entry(e, file, data, data_bytes, &tensors[n], err);
        if (status != LORE_OK) {
            return status;
        }
        n++;
    }
    *count = n;
    return check_cover(tensors, n, file, data, data_bytes, err);
}

lore_status lore_safetensors_parse(lore_str bytes, const char *file, size_t header_max,
                                   lore_arena *arena, lore_tensor **tensors, int32_t *count,
                                   size_t *header_bytes, lore_error *err)
{
    uint64_t length = 0;
    if (bytes.len < 8) {
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s' is no safetensors file: only %zu bytes", file,
                         bytes.len);
    }
    for (int i = 7; i >= 0; i--) {
        length = length << 8 | (uint8_t)bytes.ptr[i];
    }
    if (length > bytes.len - 8) {
        return lore_fail(err, LORE_ERR_CORRUPT,
                         "'%s' is no safetensors file: header of %llu bytes in a file of %zu", file,
                         (unsigned long long)length, bytes.len);
    }
    if (length > header_max) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "'%s': header of %llu bytes is over limits.model_header_bytes_max (%zu)",
                         file, (unsigned long long)length, header_max);
    }
    lore_json *root = NULL;
    lore_status status =
        lore_json_parse(lore_str_slice(bytes, 8, 8 + (size_t)length), HEADER_DEPTH_MAX, &root, err);
    if (status != LORE_OK) {
        return lore_model_blame(err, status, file);
    }
    const uint8_t *data = (const uint8_t *)bytes.ptr + 8 + length;
    size_t data_bytes = bytes.len - 8 - (size_t)length;
    int32_t entries = lore_json_count(root);
    if (!lore_json_is_object(root) || entries > TENSORS_MAX) {
        status =
            lore_fail(err, LORE_ERR_CORRUPT, "'%s': header must be an object of at most %d tensors",
                      file, TENSORS_MAX);
        goto out;
    }
    *tensors = LORE_PUSH(arena, lore_tensor, entries + 1);
    if (*tensors == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory reading '%s'", file);
        goto out;
    }
    *header_bytes = 8 + (size_t)length;
    status = read_entries(root, file, data, data_bytes, arena, *tensors, count, err);
out:
    lore_json_free(root);
    return status;
}

lore_status lore_weights_check(lore_str file, const char *name, lore_error *err)
{
    lore_arena arena;
    lore_tensor *tensors = NULL;
    int32_t count = 0;
    size_t header_bytes = 0;
    lore_arena_init(&arena, 0);
    lore_status status =
        lore_safetensors_parse(file, name, file.len, &arena, &tensors, &count, &header_bytes, err);
    lore_arena_destroy(&arena);
    return status;
}
