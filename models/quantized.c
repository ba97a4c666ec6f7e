/* From the tensors of a quantised matrix to a matrix that backends pack.
 *
 * All writers store the same three things, in different orders: codes of 4 or 8 bits, a scale for
 * each row and each group of columns, and a zero for each scale: w = scale * (code - zero). What
 * differs:
 *
 *                    codes                              scales, zeros       zeros stored as
 *   GPTQ             [cols / n, rows]  words down cols  [groups, rows]      code - 1 (v2: code)
 *   AWQ              [cols, rows / 8]  words across rows, in the order 0 2 4 6 1 3 5 7
 *                                                       [groups, rows]      code
 *   compressed       [rows, cols / n]  words along cols [rows, groups]      code - 2^(bits - 1)
 *
 * A word is 32 bits, the first code lowest; n = 32 / bits. A word of GPTQ or compressed-tensors is
 * thus already the bytes of an I4 row: GPTQ is a transposition of words, and compressed-tensors
 * needs nothing and is borrowed. With act-order (GPTQ) the columns of a group are scattered: they
 * are sorted by group, and the order goes with the matrix.
 *
 * Where groups are no multiples of 32, unequal, or of 8 bits, no packed type holds the values: the
 * matrix becomes f32. Sources: Frantar et al. 2022 (GPTQ) and AutoGPTQ's QuantLinear; Lin et al.
 * 2023 (AWQ) and AutoAWQ's WQLinear_GEMM; compressed-tensors' pack_quantized. */
#include "models/quantized_reader_int.h"

#include <stdio.h>
#include <string.h>

enum {
    SHAPE_TEXT_CAP = 64,
    GROUP_UNIT = 32,  /* I4 groups are multiples of it */
    TRANSPOSE = 16,   /* words of a block's side: one line of memory */
    AWQ_COLUMNS = 256 /* columns taken at a time, so that what is written stays in the cache */
};

/* ---- checking tensors ---- */

uint32_t lore_tensor_word(const lore_tensor *t, size_t index)
{
    uint32_t word = 0;
    memcpy(&word, t->data + 4 * index, 4); /* a file promises no alignment */
    return word;
}

static const char *shape_text(const lore_tensor *t, char text[SHAPE_TEXT_CAP])
{
    size_t used = 0;
    text[0] = '\0';
    for (int32_t i = 0; i < t->rank && used < SHAPE_TEXT_CAP; i++) {
        int n = snprintf(text + used, SHAPE_TEXT_CAP - used, "%s%lld", i > 0 ? ", " : "",
                         (long long)t->shape[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    return text;
}

bool lore_tensor_is(const lore_tensor *t, const char *name)
{
    return strcmp(t->type->name, name) == 0;
}

bool lore_tensor_is_float(const lore_tensor *t)
{
    return lore_tensor_is(t, "F32") || lore_tensor_is(t, "F16") || lore_tensor_is(t, "BF16");
}

bool lore_tensor_is_words(const lore_tensor *t)
{
    return lore_tensor_is(t, "I32") || lore_tensor_is(t, "U32");
}

bool lore_tensor_is_shape(const lore_tensor *t, int64_t first, int64_t second)
{
    return t->rank == 2 && t->shape[0] == first && t->shape[1] == second;
}

/* Refuse a tensor, saying what it should have been. */
lore_status lore_quantized_refuse(const lore_quantized_reader *r, const lore_tensor *t,
                                  const char *type, int64_t first, int64_t second)
{
    char found[SHAPE_TEXT_CAP];
    return lore_fail(r->err, LORE_ERR_CORRUPT,
                     "'%s': tensor '" LORE_STR_FMT "' must be %s [%lld, %lld], is %s [%s]",
                     r->set->path, LORE_STR_ARG(t->name), type, (long long)first, (long long)second,
                     t->type->name, shape_text(t, found));
}

lore_status lore_quantized_refuse_value(const lore_quantized_reader *r, const lore_tensor *t,
                                        const char *what, int64_t value)
{
    return lore_fail(r->err, LORE_ERR_CORRUPT, "'%s': tensor '" LORE_STR_FMT "' %s (%lld)",
                     r->set->path, LORE_STR_ARG(t->name), what, (long long)value);
}

lore_status lore_quantized_fail_memory(const lore_quantized_reader *r)
{
    return lore_fail(r->err, LORE_ERR_NOMEM, "out of memory for tensor '" LORE_STR_FMT "' of '%s'",
                     LORE_STR_ARG(r->set->codes->name), r->set->path);
}

/* `count` elements of `element_bytes`; NULL when there is no memory, or no such size. */
void *lore_quantized_take(size_t rows, size_t cols, size_t element_bytes)
{
    size_t size_bytes = 0;
    return lore_size_mul(rows, cols, &size_bytes) &&
                   lore_size_mul(size_bytes, element_bytes, &size_bytes)
               ? lore_alloc_aligned(size_bytes)
               : NULL;
}

static size_t bytes_of_row(int32_t cols, int32_t bits)
{
    return bits == 8 ? (size_t)cols : ((size_t)cols + 1) / 2;
}

/* Words that hold so many codes. */
int64_t lore_quantized_words(int64_t codes, int32_t bits)
{
    return (codes * bits + 31) / 32;
}

/* Codes have the shape that rows and cols imply; finds out whether they are of 4 or 8 bits. */
static lore_status check_codes(lore_quantized_reader *r)
{
    const lore_tensor *t = r->set->codes;
    const int64_t rows = r->rows, cols = r->cols;
    int64_t shape[2] = {0, 0};
    if (lore_tensor_is(t, "I8") && r->config->method == LORE_QUANTIZED_COMPRESSED) {
        r->bits = 8;
        return lore_tensor_is_shape(t, rows, cols) ? LORE_OK
                                                   : lore_quantized_refuse(r, t, "I8", rows, cols);
    }
    for (int32_t bits = 4; bits <= 8 && lore_tensor_is_words(t); bits += 4) {
        bool is_whole = true;
        r->bits = bits;
        switch (r->config->method) {
        case LORE_QUANTIZED_GPTQ: /* words must be full: zeros of rows share them too */
            is_whole = cols % (32 / bits) == 0 && rows % (32 / bits) == 0;
            shape[0] = lore_quantized_words(cols, bits);
            shape[1] = rows;
            break;
        case LORE_QUANTIZED_AWQ:
            is_whole = rows % 8 == 0 && bits == 4;
            shape[0] = cols;
            shape[1] = rows / 8;
            break;
        default:
            shape[0] = rows;
            shape[1] = lore_quantized_words(cols, bits);
        }
        if (is_whole && lore_tensor_is_shape(t, shape[0], shape[1])) {
            return LORE_OK;
        }
    }
    return lore_fail(r->err, LORE_ERR_CORRUPT,
                     "'%s': tensor '" LORE_STR_FMT
                     "' (%s [%lld, %lld]) does not hold the codes of a [%lld, %lld] matrix",
                     r->set->path, LORE_STR_ARG(t->name), t->type->name,
                     (long long)(t->rank > 0 ? t->shape[0] : 0),
                     (long long)(t->rank > 1 ? t->shape[1] : 0), (long long)rows, (long long)cols);
}

static lore_status check_stored_shape(const lore_quantized_reader *r)
{
    const lore_tensor *t = r->set->shape;
    int64_t stored[2] = {0, 0};
    if (t == NULL) {
        return LORE_OK;
    }
    if (!lore_tensor_is(t, "I64") || t->rank != 1 || t->shape[0] != 2) {
        return lore_quantized_refuse_value(r, t, "must hold two I64, has rank", t->rank);
    }
    memcpy(stored, t->data, sizeof stored);
    return stored[0] == r->rows && stored[1] == r->cols
               ? LORE_OK
               : lore_quantized_refuse_value(r, t, "is not the shape that config.json implies",
                                             stored[0] == r->rows ? stored[1] : stored[0]);
}

/* ---- codes ---- */

/* out[c, r] = in[r, c], of words. */
static void transpose_words(uint8_t *out, const uint8_t *in, size_t rows, size_t cols)
{
    for (size_t r0 = 0; r0 < rows; r0 += TRANSPOSE) {
        const size_t r1 = rows - r0 < TRANSPOSE ? rows : r0 + TRANSPOSE;
        for (size_t c0 = 0; c0 < cols; c0 += TRANSPOSE) {
            const size_t c1 = cols - c0 < TRANSPOSE ? cols : c0 + TRANSPOSE;
            for (size_t c = c0; c < c1; c++) {
                for (size_t r = r0; r < r1; r++) {
                    memcpy(out + 4 * (c * rows + r), in + 4 * (r * cols + c), 4);
                }
            }
        }
    }
}

/* Words across eight rows to rows: two columns at a time give each of the rows a byte. */
static void read_awq(const lore_quantized_reader *r, uint8_t *out)
{
    const int32_t words = r->rows / 8;
    for (int32_t first = 0; first < r->cols; first += AWQ_COLUMNS) {
        const int32_t end = r->cols - first < AWQ_COLUMNS ? r->cols : first + AWQ_COLUMNS;
        for (int32_t w = 0; w < words; w++) {
            uint8_t *rows = out + (size_t)w * 8 * r->row_bytes;
            for (int32_t c = first; c < end; c += 2) {
                const size_t at = (size_t)c * (size_t)words + (size_t)w;
                const uint32_t even = lore_tensor_word(r->set->codes, at);
                const uint32_t odd =
                    c + 1 < r->cols ? lore_tensor_word(r->set->codes, at + (size_t)words) : 0;
                for (int32_t k = 0; k < 8; k++) {
                    rows[(size_t)lore_quantized_awq_row(k) * r->row_bytes + (size_t)c / 2] =
                        (uint8_t)((even >> 4 * k & 15) | (odd >> 4 * k & 15) << 4);
                }
            }
        }
    }
}

/* Rows of bytes as the file has them may be longer than ours: words are filled up. */
static void copy_rows(const lore_quantized_reader *r, uint8_t *out, size_t stored_bytes)
{
    for (int32_t i = 0; i < r->rows; i++) {
        memcpy(out + (size_t)i * r->row_bytes, r->set->codes->data + (size_t)i * stored_bytes,
               r->row_bytes);
    }
}

/* r->codes: unsigned codes, row after row. Borrowed where the file has them just so. */
static lore_status read_codes(lore_quantized_reader *r)
{
    const lore_tensor *t = r->set->codes;
    const bool is_signed = lore_tensor_is(t, "I8");
    const size_t stored_bytes = (size_t)lore_quantized_words(r->cols, r->bits) * 4;
    r->row_bytes = bytes_of_row(r->cols, r->bits);
    if (r->config->method == LORE_QUANTIZED_COMPRESSED && !is_signed &&
        stored_bytes == r->row_bytes) {
        r->codes = t->data;
        return LORE_OK;
    }
    uint8_t *codes = lore_quantized_take((size_t)r->rows, r->row_bytes, 1);
    if (codes == NULL) {
        return lore_quantized_fail_memory(r);
    }
    r->out.data = codes;
    r->codes = codes;
    if (r->config->method == LORE_QUANTIZED_GPTQ) {
        transpose_words(codes, t->data, (size_t)lore_quantized_words(r->cols, r->bits),
                        (size_t)r->rows);
    } else if (r->config->method == LORE_QUANTIZED_AWQ) {
        read_awq(r, codes);
    } else if (is_signed) {
        for (size_t i = 0; i < t->size_bytes; i++) {
            codes[i] = t->data[i] ^ 0x80;
        }
    } else {
        copy_rows(r, codes, stored_bytes);
    }
    return LORE_OK;
}

/* ---- the matrix ---- */

static uint32_t nibble_at(const uint8_t *row, int32_t c)
{
    return (uint32_t)row[c / 2] >> (c % 2 * 4) & 15;
}

/* Nibbles in the order of out.columns, in memory of our own. */
static lore_status order_codes(lore_quantized_reader *r)
{
    const int32_t *columns = r->out.columns;
    uint8_t *ordered = lore_quantized_take((size_t)r->rows, r->row_bytes, 1);
    if (ordered == NULL) {
        return lore_quantized_fail_memory(r);
    }
    for (int32_t i = 0; i < r->rows; i++) {
        const uint8_t *from = r->codes + (size_t)i * r->row_bytes;
        uint8_t *to = ordered + (size_t)i * r->row_bytes;
        for (int32_t c = 0; c < r->cols; c += 2) {
            const uint32_t high = c + 1 < r->cols ? nibble_at(from, columns[c + 1]) : 0;
            to[c / 2] = (uint8_t)(nibble_at(from, columns[c]) | high << 4);
        }
    }
    lore_free_aligned(r->out.data);
    r->out.data = ordered;
    r->codes = ordered;
    return LORE_OK;
}

static lore_status make_i4(lore_quantized_reader *r)
{
    lore_status status = r->out.columns != NULL ? order_codes(r) : LORE_OK;
    r->out.matrix = (lore_matrix){.dtype = LORE_I4,
                                  .rows = r->rows,
                                  .cols = r->cols,
                                  .data = r->codes,
                                  .scales = r->out.scales,
                                  .group = r->group,
                                  .zeros = r->out.zeros,
                                  .columns = r->out.columns};
    return status;
}

/* Symmetric codes of 8 bits with one scale a row are int8 rows. */
static lore_status make_i8(lore_quantized_reader *r)
{
    const size_t size_bytes = (size_t)r->rows * (size_t)r->cols;
    uint8_t *values = r->out.data;
    if (values == NULL) {
        values = lore_quantized_take(size_bytes, 1, 1);
        r->out.data = values;
    }
    if (values == NULL) {
        return lore_quantized_fail_memory(r);
    }
    for (size_t i = 0; i < size_bytes; i++) {
        values[i] = r->codes[i] ^ 0x80;
    }
    r->out.matrix = (lore_matrix){.dtype = LORE_I8,
                                  .rows = r->rows,
                                  .cols = r->cols,
                                  .data = values,
                                  .scales = r->out.scales};
    return LORE_OK;
}

static lore_status make_f32(lore_quantized_reader *r)
{
    const float *scales = r->out.scales;
    const uint8_t *zeros = r->out.zeros;
    float *values = lore_quantized_take((size_t)r->rows, (size_t)r->cols, sizeof(float));
    if (values == NULL) {
        return lore_quantized_fail_memory(r);
    }
    for (int32_t i = 0; i < r->rows; i++) {
        const uint8_t *row = r->codes + (size_t)i * r->row_bytes;
        for (int32_t c = 0; c < r->cols; c++) {
            const int32_t g = r->group_of != NULL ? r->group_of[c] : c / r->group;
            const size_t at = (size_t)i * (size_t)r->groups + (size_t)g;
            const int32_t code = r->bits == 8 ? row[c] : (int32_t)nibble_at(row, c);
            const int32_t zero = zeros != NULL ? zeros[at] : 1 << (r->bits - 1);
            values[(size_t)i * (size_t)r->cols + (size_t)c] = scales[at] * (float)(code - zero);
        }
    }
    lore_quantized_free(&r->out);
    r->out.data = values;
    r->out.matrix =
        (lore_matrix){.dtype = LORE_F32, .rows = r->rows, .cols = r->cols, .data = values};
    return LORE_OK;
}

/* int8 rows that the file holds just so. */
static bool is_plain_i8(const lore_quantized_reader *r)
{
    return r->bits == 8 && r->groups == 1 && r->out.zeros == NULL;
}

static lore_status read_parts(lore_quantized_reader *r)
{
    lore_status status = check_codes(r);
    if (status == LORE_OK) {
        status = check_stored_shape(r);
    }
    if (status == LORE_OK) {
        status = lore_quantized_read_groups(r);
    }
    if (status == LORE_OK && is_plain_i8(r) && lore_tensor_is(r->set->codes, "I8")) {
        r->out.matrix = (lore_matrix){.dtype = LORE_I8,
                                      .rows = r->rows,
                                      .cols = r->cols,
                                      .data = r->set->codes->data,
                                      .scales = r->out.scales};
        return LORE_OK;
    }
    if (status == LORE_OK) {
        status = read_codes(r);
    }
    if (status == LORE_OK && r->bits == 4 && r->group_of != NULL) {
        status = lore_quantized_sort_columns(r);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (r->bits == 4 && (r->groups == 1 || (r->group > 0 && r->group % GROUP_UNIT == 0))) {
        return make_i4(r);
    }
    return is_plain_i8(r) ? make_i8(r) : make_f32(r);
}

lore_status lore_quantized_read(const lore_quantized_config *config, const lore_quantized_set *set,
                                int32_t rows, int32_t cols, lore_quantized *out, lore_error *err)
{
    LORE_ASSERT(rows > 0 && cols > 0 && config->method != LORE_QUANTIZED_NONE);
    lore_quantized_reader r = {
        .config = config, .set = set, .err = err, .rows = rows, .cols = cols};
    lore_status status = LORE_OK;
    if (set->scales == NULL || (set->zeros == NULL && !config->is_zero_optional &&
                                config->method != LORE_QUANTIZED_COMPRESSED)) {
        status =
            lore_fail(err, LORE_ERR_CORRUPT, "'%s' has no %s beside '" LORE_STR_FMT "'", set->path,
                      set->scales == NULL ? "scales" : "zeros", LORE_STR_ARG(set->codes->name));
    } else {
        status = read_parts(&r);
    }
    lore_free_aligned(r.group_of);
    if (status != LORE_OK) {
        lore_quantized_free(&r.out);
        return status;
    }
    *out = r.out;
    return LORE_OK;
}

void lore_quantized_free(lore_quantized *quantized)
{
    lore_free_aligned(quantized->data);
    lore_free_aligned(quantized->scales);
    lore_free_aligned(quantized->zeros);
    lore_free_aligned(quantized->columns);
    *quantized = (lore_quantized){0};
}

static bool is_size(int64_t value)
{
    return value > 0 && value <= INT32_MAX;
}

bool lore_quantized_shape(const lore_quantized_config *config, const lore_quantized_set *set,
                          int32_t *rows, int32_t *cols)
{
    const lore_tensor *t = set->codes;
    int64_t shape[2] = {t->shape[0], t->shape[1]};
    if (t->rank != 2) {
        return false;
    }
    if (config->method == LORE_QUANTIZED_GPTQ) {
        const lore_tensor *order = set->group_of;
        shape[0] = t->shape[1];
        if (!is_size(t->shape[0])) {
            return false;
        }
        shape[1] =
            order != NULL && order->rank == 1 ? order->shape[0] : t->shape[0] * 32 / config->bits;
    } else if (config->method == LORE_QUANTIZED_AWQ) {
        if (!is_size(t->shape[1])) {
            return false;
        }
        shape[0] = t->shape[1] * 8;
        shape[1] = t->shape[0];
    } else if (!lore_tensor_is(t, "I8")) {
        if (set->shape == NULL || set->shape->size_bytes != sizeof shape ||
            !lore_tensor_is(set->shape, "I64")) {
            return false;
        }
        memcpy(shape, set->shape->data, sizeof shape);
    }
    if (!is_size(shape[0]) || !is_size(shape[1])) {
        return false;
    }
    *rows = (int32_t)shape[0];
    *cols = (int32_t)shape[1];
    return true;
}
