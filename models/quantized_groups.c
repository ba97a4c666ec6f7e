/* Groups of a quantised matrix: which columns share a scale, the scales, and the zeros.
 *
 * How the three writers store them stands in the table of quantized.c. What leaves this file is the
 * same for all: f32 scales and unsigned zeros, [rows, groups], and for act-order the columns sorted
 * by group. */
#include "models/quantized_reader_int.h"

#include <math.h>
#include <string.h>

/* ---- groups of columns ---- */

/* How many groups the scales are for. compressed-tensors: [rows, groups], [rows] or [1]. */
static lore_status count_groups(lore_quantized_reader *r)
{
    const lore_tensor *t = r->set->scales;
    const bool is_compressed = r->config->method == LORE_QUANTIZED_COMPRESSED;
    int64_t groups = 0;
    if (lore_tensor_is_float(t) && t->rank == 2 && t->shape[is_compressed ? 0 : 1] == r->rows) {
        groups = t->shape[is_compressed ? 1 : 0];
    } else if (lore_tensor_is_float(t) && is_compressed && t->rank == 1 &&
               (t->shape[0] == r->rows || t->shape[0] == 1)) {
        groups = 1;
    }
    if (groups < 1 || groups > r->cols) {
        return is_compressed ? lore_quantized_refuse(r, t, "a float type, rows first,", r->rows, 1)
                             : lore_quantized_refuse(r, t, "a float type, rows last,", 1, r->rows);
    }
    r->groups = (int32_t)groups;
    return LORE_OK;
}

/* The size that the configuration allows and that makes so many groups. */
static lore_status find_group(lore_quantized_reader *r)
{
    int32_t found = 0;
    if (r->groups == 1) {
        r->group = r->cols;
        return LORE_OK;
    }
    for (int32_t i = 0; i < r->config->group_count; i++) {
        int32_t size = r->config->groups[i];
        if (size <= 0 || size == found ||
            ((int64_t)r->cols + size - 1) / size != (int64_t)r->groups) {
            continue;
        }
        if (found != 0) {
            return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                             "'%s': tensor '" LORE_STR_FMT
                             "' may have groups of %d or of %d columns: config.json allows both",
                             r->set->path, LORE_STR_ARG(r->set->scales->name), found, size);
        }
        found = size;
    }
    r->group = found;
    return found != 0 ? LORE_OK
                      : lore_quantized_refuse_value(
                            r, r->set->scales,
                            "has a number of groups that no group_size of config.json "
                            "makes",
                            r->groups);
}

static int64_t index_at(const lore_tensor *t, int32_t i)
{
    int64_t value = 0;
    if (lore_tensor_is(t, "I64")) {
        memcpy(&value, t->data + 8 * (size_t)i, 8);
        return value;
    }
    return (int32_t)lore_tensor_word(t, (size_t)i);
}

/* Copies g_idx. compressed-tensors writes -1 throughout where there is no order. */
static lore_status read_group_of(lore_quantized_reader *r)
{
    const lore_tensor *t = r->set->group_of;
    if ((!lore_tensor_is(t, "I32") && !lore_tensor_is(t, "I64")) || t->rank != 1 ||
        t->shape[0] != r->cols) {
        return lore_quantized_refuse(r, t, "I32", 1, r->cols);
    }
    int32_t unset = 0;
    r->group_of = lore_quantized_take((size_t)r->cols, 1, sizeof(int32_t));
    if (r->group_of == NULL) {
        return lore_quantized_fail_memory(r);
    }
    for (int32_t c = 0; c < r->cols; c++) {
        int64_t value = index_at(t, c);
        unset += value == -1;
        if (value < -1 || value >= r->groups) {
            return lore_quantized_refuse_value(r, t, "names a group that has no scale", value);
        }
        r->group_of[c] = (int32_t)value;
    }
    if (unset == r->cols) {
        lore_free_aligned(r->group_of);
        r->group_of = NULL;
        return find_group(r);
    }
    return unset == 0 ? LORE_OK
                      : lore_quantized_refuse_value(r, t, "names a group that has no scale", -1);
}

/* Columns sorted by their group, in their order within it, and the size of the groups where all but
 * the last are equal (group stays 0 otherwise). Columns that are in order need no list. */
lore_status lore_quantized_sort_columns(lore_quantized_reader *r)
{
    int32_t *starts = lore_alloc_zero((size_t)r->groups + 1, sizeof(int32_t));
    int32_t *columns = lore_quantized_take((size_t)r->cols, 1, sizeof(int32_t));
    bool is_sorted = true;
    if (starts == NULL || columns == NULL) {
        lore_free(starts);
        lore_free_aligned(columns);
        return lore_quantized_fail_memory(r);
    }
    r->out.columns = columns;
    for (int32_t c = 0; c < r->cols; c++) {
        starts[r->group_of[c] + 1]++;
        is_sorted = is_sorted && (c == 0 || r->group_of[c - 1] <= r->group_of[c]);
    }
    const int32_t size = starts[1];
    bool is_even = starts[r->groups] > 0 && starts[r->groups] <= size;
    for (int32_t g = 1; g < r->groups; g++) {
        is_even = is_even && starts[g] == size;
    }
    for (int32_t g = 0; g < r->groups; g++) {
        starts[g + 1] += starts[g];
    }
    for (int32_t c = 0; c < r->cols; c++) {
        columns[starts[r->group_of[c]]++] = c;
    }
    lore_free(starts);
    r->group = is_even ? size : 0;
    if (is_sorted) {
        lore_free_aligned(columns);
        r->out.columns = NULL;
    }
    return LORE_OK;
}

/* ---- scales and zeros ---- */

/* To f32 [rows, groups]. */
static lore_status read_scales(lore_quantized_reader *r)
{
    const lore_tensor *t = r->set->scales;
    const bool is_compressed = r->config->method == LORE_QUANTIZED_COMPRESSED;
    const bool is_one = t->rank == 1 && t->shape[0] == 1;
    float *scales = lore_quantized_take((size_t)r->rows, (size_t)r->groups, sizeof(float));
    r->out.scales = scales;
    if (scales == NULL) {
        return lore_quantized_fail_memory(r);
    }
    for (int32_t i = 0; i < r->rows; i++) {
        for (int32_t g = 0; g < r->groups; g++) {
            size_t row_first = (size_t)i * (size_t)r->groups + (size_t)g;
            size_t group_first = (size_t)g * (size_t)r->rows + (size_t)i;
            float value = lore_tensor_value(t, is_one          ? 0
                                               : is_compressed ? row_first
                                                               : group_first);
            if (!isfinite(value)) { /* negative ones are used: the codes stand upside down */
                return lore_quantized_refuse_value(r, t, "has an impossible scale in row", i);
            }
            scales[row_first] = value;
        }
    }
    return LORE_OK;
}

/* Row of the k-th code of a word that AWQ packed. */
int32_t lore_quantized_awq_row(int32_t k)
{
    static const int8_t ORDER[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    return ORDER[k];
}

/* [groups, rows / n] words: GPTQ and AWQ. */
static void unpack_zeros(const lore_quantized_reader *r, uint8_t *zeros)
{
    const int32_t n = 32 / r->bits, mask = (1 << r->bits) - 1;
    const int32_t more = r->config->is_zero_less_one ? 1 : 0;
    for (int32_t g = 0; g < r->groups; g++) {
        for (int32_t i = 0; i < r->rows; i += n) {
            size_t at = ((size_t)g * (size_t)r->rows + (size_t)i) / (size_t)n;
            uint32_t word = lore_tensor_word(r->set->zeros, at);
            for (int32_t k = 0; k < n; k++) {
                int32_t row =
                    i + (r->config->method == LORE_QUANTIZED_AWQ ? lore_quantized_awq_row(k) : k);
                int32_t zero = (int32_t)(word >> (k * r->bits)) & mask;
                zeros[(size_t)row * (size_t)r->groups + (size_t)g] =
                    (uint8_t)((zero + more) & mask); /* a zero of 0 was stored as all ones */
            }
        }
    }
}

/* int8 [rows, groups], or words packed down the rows: compressed-tensors. */
static lore_status read_signed_zeros(const lore_quantized_reader *r, uint8_t *zeros)
{
    const lore_tensor *t = r->set->zeros;
    const int32_t half = 1 << (r->bits - 1), n = 32 / r->bits;
    const bool is_packed = lore_tensor_is_words(t);
    for (int32_t i = 0; i < r->rows; i++) {
        for (int32_t g = 0; g < r->groups; g++) {
            const size_t at = (size_t)i * (size_t)r->groups + (size_t)g;
            const size_t packed_at = (size_t)(i / n) * (size_t)r->groups + (size_t)g;
            int32_t zero = 0;
            if (is_packed) {
                zero =
                    (int32_t)(lore_tensor_word(t, packed_at) >> (i % n * r->bits)) & (2 * half - 1);
            } else {
                zero = (int8_t)t->data[at] + half;
            }
            if (zero < 0 || zero >= 2 * half) {
                return lore_quantized_refuse_value(r, t, "has an impossible zero point in row", i);
            }
            zeros[at] = (uint8_t)zero;
        }
    }
    return LORE_OK;
}

static lore_status check_zeros(const lore_quantized_reader *r)
{
    const lore_tensor *t = r->set->zeros;
    const int64_t rows = r->rows, groups = r->groups;
    const int64_t words = lore_quantized_words(rows, r->bits);
    if (r->config->method != LORE_QUANTIZED_COMPRESSED) {
        return lore_tensor_is_words(t) && lore_tensor_is_shape(t, groups, words)
                   ? LORE_OK
                   : lore_quantized_refuse(r, t, "I32", groups, words);
    }
    const bool is_vector = groups == 1 && t->rank == 1 && t->shape[0] == rows;
    if (lore_tensor_is(t, "I8") && (is_vector || lore_tensor_is_shape(t, rows, groups))) {
        return LORE_OK;
    }
    return lore_tensor_is_words(t) && lore_tensor_is_shape(t, words, groups)
               ? LORE_OK
               : lore_quantized_refuse(r, t, "I8", rows, groups);
}

/* To one byte each, [rows, groups]; none where all are the middle of the codes. */
static lore_status read_zeros(lore_quantized_reader *r)
{
    const uint8_t middle = (uint8_t)(1 << (r->bits - 1));
    const size_t count = (size_t)r->rows * (size_t)r->groups;
    if (r->set->zeros == NULL) {
        return LORE_OK;
    }
    lore_status status = check_zeros(r);
    if (status != LORE_OK) {
        return status;
    }
    uint8_t *zeros = lore_quantized_take(count, 1, 1);
    if (zeros == NULL) {
        return lore_quantized_fail_memory(r);
    }
    r->out.zeros = zeros;
    if (r->config->method == LORE_QUANTIZED_COMPRESSED) {
        status = read_signed_zeros(r, zeros);
    } else {
        unpack_zeros(r, zeros);
    }
    size_t i = 0;
    while (status == LORE_OK && i < count && zeros[i] == middle) {
        i++;
    }
    if (i == count) {
        lore_free_aligned(zeros);
        r->out.zeros = NULL;
    }
    return status;
}

lore_status lore_quantized_read_groups(lore_quantized_reader *r)
{
    lore_status status = count_groups(r);
    if (status == LORE_OK) {
        status = r->set->group_of != NULL ? read_group_of(r) : find_group(r);
    }
    if (status == LORE_OK) {
        status = read_scales(r);
    }
    return status == LORE_OK ? read_zeros(r) : status;
}
