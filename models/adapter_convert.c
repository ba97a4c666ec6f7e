/* Writing an adapter of any trainer as PEFT would: for each matrix of the base that something
 * changes one A and one B, and the configuration that says of which ranks and scales they are.
 *
 * A matrix of the base is a row of units (adapter_keys_int.h), and so is a pair of the source.
 * Where a pair covers the matrix, A is copied and B gets those of its rows that belong there. Where
 * several pairs meet in one matrix, their A stand on top of one another, and B has zeros where a
 * row knows nothing of a pair. */
#include "models/adapter_convert.h"

#include "base/file.h"
#include "models/adapter_foreign_int.h"
#include "models/model_folder_int.h"
#include "models/quantize_int.h"
#include "models/safetensors_write_int.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNITS_MAX = 3, STEM_CAP = 128 };

/* A matrix of the base that is changed. */
typedef struct matrix {
    int32_t layer;    /* -1: the head */
    const char *stem; /* "mlp.up_proj" */
    int32_t rows, cols, rank;
    double scale;
    lore_adapter_unit first;
    int32_t unit_count;
    const lore_adapter_pair *pairs[UNITS_MAX]; /* of the units, NULL: unchanged */
} matrix;

/* One new tensor. */
typedef struct entry {
    lore_output output;
    const matrix *matrix; /* NULL: a copy */
    int32_t half;
    const lore_tensor *copy;
} entry;

typedef struct converter {
    const char *base_folder, *temporary;
    const lore_limits *limits;
    const lore_convert_options *options;
    lore_decoder_config base;
    lore_weights *weights;
    lore_foreign_adapter source;
    lore_arena arena;
    matrix *matrices;
    entry *entries;
    int32_t matrix_count, entry_count;
    lore_convert_result result;
    lore_error *err;
    int fd;
    char path[PATH_MAX];
} converter;

static lore_status no_memory(const converter *c)
{
    return lore_fail(c->err, LORE_ERR_NOMEM, "out of memory for the converted adapter");
}

/* ---- the matrices ---- */

/* A pair of several units meets the matrix in neighbours, and counts once. */
static bool is_new(const matrix *m, int32_t unit)
{
    return m->pairs[unit] != NULL && (unit == 0 || m->pairs[unit - 1] != m->pairs[unit]);
}

static lore_status join_pairs(const converter *c, matrix *m)
{
    for (int32_t i = 0; i < m->unit_count; i++) {
        const lore_adapter_pair *pair = m->pairs[i];
        if (!is_new(m, i)) {
            continue;
        }
        if (m->rank > 0 && pair->scale != m->scale) {
            return lore_fail(c->err, LORE_ERR_UNSUPPORTED,
                             "'%s': tensor '" LORE_STR_FMT
                             "' has another scale than others that stand in one matrix of the base "
                             "with it, which is not supported",
                             c->source.path, LORE_STR_ARG(pair->halves[0]->name));
        }
        m->scale = pair->scale;
        m->rank += pair->rank;
    }
    return LORE_OK;
}

static lore_status add_matrix(converter *c, int32_t row, lore_linear which, int32_t part)
{
    const lore_linear_shape shape = lore_decoder_linear(&c->base, which);
    matrix *m = &c->matrices[c->matrix_count];
    *m = (matrix){.layer = row < c->base.layers ? row : -1,
                  .stem = shape.parts[part].stem,
                  .rows = shape.parts[part].rows,
                  .cols = shape.cols};
    lore_adapter_units_of(&shape, which, part, &m->first, &m->unit_count);
    for (int32_t i = 0; i < m->unit_count; i++) {
        m->pairs[i] = c->source.owners[row * (int32_t)LORE_UNITS + (int32_t)m->first + i];
    }
    lore_status status = join_pairs(c, m);
    if (m->rank > 0) {
        c->matrix_count++;
        c->result.modules++;
        c->result.rank_max = m->rank > c->result.rank_max ? m->rank : c->result.rank_max;
    }
    return status;
}

static lore_status add_matrices(converter *c)
{
    const int32_t layers = c->base.layers;
    lore_status status = LORE_OK;
    c->matrices = LORE_PUSH(&c->arena, matrix, (layers + 1) * (int32_t)LORE_UNITS + 1);
    if (c->matrices == NULL) {
        return no_memory(c);
    }
    for (int32_t row = 0; row <= layers; row++) {
        for (int32_t i = 0; i < LORE_LINEARS; i++) {
            const int32_t parts = lore_decoder_linear(&c->base, (lore_linear)i).part_count;
            const bool is_here = (i == LORE_LINEAR_HEAD) == (row == layers);
            for (int32_t k = 0; k < parts && is_here && status == LORE_OK; k++) {
                status = add_matrix(c, row, (lore_linear)i, k);
            }
        }
    }
    return status == LORE_OK && c->matrix_count == 0
               ? lore_fail(c->err, LORE_ERR_CORRUPT, "'%s' holds no adapter", c->source.path)
               : status;
}

/* ---- the tensors ---- */

static lore_str module_of(const matrix *m, char name[STEM_CAP])
{
    if (m->layer < 0) {
        snprintf(name, STEM_CAP, "%s", m->stem);
    } else {
        snprintf(name, STEM_CAP, "model.layers.%d.%s", m->layer, m->stem);
    }
    return lore_str_from(name);
}

static lore_status add_half(converter *c, const matrix *m, int32_t half)
{
    char name[STEM_CAP];
    const lore_dtype dtype = c->source.dtype;
    entry *e = &c->entries[c->entry_count++];
    e->matrix = m;
    e->half = half;
    e->output = (lore_output){
        .name = lore_str_printf(&c->arena, "base_model.model." LORE_STR_FMT ".lora_%c.weight",
                                LORE_STR_ARG(module_of(m, name)), "AB"[half]),
        .dtype = lore_safetensors_type(dtype),
        .element_bytes = lore_dtype_size(dtype),
        .rank = 2,
        .shape = {half == 0 ? m->rank : m->rows, half == 0 ? m->cols : m->rank}};
    e->output.size_bytes = (size_t)e->output.shape[0] * (size_t)e->output.shape[1] *
                           e->output.element_bytes; /* of bounded sizes */
    return e->output.name.ptr != NULL ? LORE_OK : no_memory(c);
}

static void add_copy(converter *c, const lore_tensor *t, const char *name)
{
    entry *e = &c->entries[c->entry_count++];
    e->copy = t;
    e->output = (lore_output){.name = lore_str_from(name),
                              .dtype = t->type->name,
                              .element_bytes = t->type->size_bytes,
                              .size_bytes = t->size_bytes,
                              .rank = t->rank};
    memcpy(e->output.shape, t->shape, sizeof t->shape);
}

static int by_size(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->output.element_bytes != y->output.element_bytes) {
        return x->output.element_bytes > y->output.element_bytes ? -1 : 1;
    }
    return lore_str_compare(x->output.name, y->output.name);
}

static lore_status add_entries(converter *c)
{
    lore_status status = LORE_OK;
    size_t offset = 0;
    c->entries = LORE_PUSH(&c->arena, entry, 2 * c->matrix_count + 2);
    if (c->entries == NULL) {
        return no_memory(c);
    }
    for (int32_t i = 0; i < 2 * c->matrix_count && status == LORE_OK; i++) {
        status = add_half(c, &c->matrices[i / 2], i % 2);
    }
    for (int32_t i = 0; i < 2 && status == LORE_OK; i++) {
        if (c->source.copies[i] != NULL) {
            add_copy(c, c->source.copies[i], c->source.copy_names[i]);
        }
    }
    if (status == LORE_OK) {
        qsort(c->entries, (size_t)c->entry_count, sizeof *c->entries, by_size);
    }
    for (int32_t i = 0; i < c->entry_count && status == LORE_OK; i++) {
        c->entries[i].output.offset = offset;
        offset += c->entries[i].output.size_bytes;
    }
    c->result.size_bytes = (int64_t)offset;
    return status;
}

/* ---- values ---- */

/* Where row i of a unit stands in the B of a pair. */
static int32_t source_row(const lore_decoder_config *c, const lore_adapter_pair *pair,
                          lore_adapter_unit unit, int32_t i)
{
    const int32_t dim = c->head_dim, head = i / dim, in_head = i % dim;
    if (pair->order == LORE_ORDER_PAIRED) {
        const int32_t half = in_head / (dim / 2), place = in_head % (dim / 2);
        return head * dim + 2 * place + half;
    }
    if (pair->order == LORE_ORDER_GROUPED) {
        const int32_t queries = c->heads / c->kv_heads, group = queries + 2;
        const int32_t place = unit == LORE_UNIT_Q   ? head / queries * group + head % queries
                              : unit == LORE_UNIT_K ? head * group + queries
                                                    : head * group + queries + 1;
        return place * dim + in_head;
    }
    for (int32_t u = (int32_t)pair->first; u < (int32_t)unit; u++) {
        i += lore_adapter_unit_rows(c, (lore_adapter_unit)u);
    }
    return i;
}

/* Types are those of the source, or f32: nothing is rounded. False: no finite number. */
static bool put_value(uint8_t *out, lore_dtype dtype, size_t i, float value)
{
    const uint16_t half = dtype == LORE_F16 ? lore_f32_to_f16(value) : lore_f32_to_bf16(value);
    if (dtype == LORE_F32) {
        memcpy(out + i * sizeof value, &value, sizeof value);
    } else {
        memcpy(out + i * sizeof half, &half, sizeof half);
    }
    return isfinite(value);
}

static bool put_a(const converter *c, const matrix *m, const lore_adapter_pair *pair,
                  int32_t rank_start, uint8_t *out)
{
    const size_t cols = (size_t)m->cols, rank = (size_t)pair->rank;
    bool is_finite = true;
    for (size_t k = 0; k < rank; k++) {
        for (size_t i = 0; i < cols; i++) {
            const float value = lore_tensor_value(
                pair->halves[0], pair->is_transposed ? i * rank + k : k * cols + i);
            is_finite &=
                put_value(out, c->source.dtype, ((size_t)rank_start + k) * cols + i, value);
        }
    }
    return is_finite;
}

/* The rows of one unit, which begin at row_start of the matrix. */
static bool put_b(const converter *c, const matrix *m, int32_t unit, int32_t row_start,
                  int32_t rank_start, uint8_t *out)
{
    const lore_adapter_pair *pair = m->pairs[unit];
    const lore_adapter_unit which = (lore_adapter_unit)((int32_t)m->first + unit);
    const int32_t rows = lore_adapter_unit_rows(&c->base, which);
    const size_t rank = (size_t)pair->rank;
    size_t all_rows = 0;
    bool is_finite = true;
    for (int32_t i = 0; i < pair->count; i++) {
        all_rows +=
            (size_t)lore_adapter_unit_rows(&c->base, (lore_adapter_unit)((int32_t)pair->first + i));
    }
    for (int32_t i = 0; i < rows; i++) {
        const size_t from = (size_t)source_row(&c->base, pair, which, i);
        const size_t to = (size_t)(row_start + i) * (size_t)m->rank + (size_t)rank_start;
        for (size_t k = 0; k < rank; k++) {
            const float value = lore_tensor_value(
                pair->halves[1], pair->is_transposed ? k * all_rows + from : from * rank + k);
            is_finite &= put_value(out, c->source.dtype, to + k, value);
        }
    }
    return is_finite;
}

static lore_status fill(const converter *c, const entry *e, uint8_t *out)
{
    const matrix *m = e->matrix;
    int32_t row = 0, starts[UNITS_MAX] = {0}, rank = 0;
    for (int32_t i = 0; i < m->unit_count; i++) {
        starts[i] = is_new(m, i) ? rank : i > 0 ? starts[i - 1] : 0;
        rank += is_new(m, i) ? m->pairs[i]->rank : 0;
        bool is_finite = true;
        if (m->pairs[i] != NULL && e->half == 1) {
            is_finite = put_b(c, m, i, row, starts[i], out);
        } else if (is_new(m, i)) {
            is_finite = put_a(c, m, m->pairs[i], starts[i], out);
        }
        if (!is_finite) {
            return lore_fail(c->err, LORE_ERR_CORRUPT,
                             "'%s': tensor '" LORE_STR_FMT
                             "' holds a value that is no finite number",
                             c->source.path, LORE_STR_ARG(m->pairs[i]->halves[e->half]->name));
        }
        row += lore_adapter_unit_rows(&c->base, (lore_adapter_unit)((int32_t)m->first + i));
    }
    return LORE_OK;
}

/* ---- files ---- */

static lore_status write_entry(const converter *c, const entry *e)
{
    if (e->copy != NULL) {
        return lore_file_write(c->fd, c->path, e->copy->data, e->copy->size_bytes, c->err);
    }
    uint8_t *out = lore_alloc_zero(1, e->output.size_bytes);
    lore_status status = out != NULL ? fill(c, e, out) : no_memory(c);
    if (status == LORE_OK) {
        status = lore_file_write(c->fd, c->path, out, e->output.size_bytes, c->err);
    }
    lore_free(out);
    const lore_convert_options *o = c->options;
    return status == LORE_OK && o->progress != NULL &&
                   !o->progress(o->self, (int64_t)(e->output.offset + e->output.size_bytes),
                                c->result.size_bytes)
               ? lore_fail(c->err, LORE_ERR_CANCELLED, "interrupted: nothing was written")
               : status;
}

static lore_status write_tensors(converter *c)
{
    lore_buf header;
    lore_json_writer json;
    lore_buf_init(&header, 0);
    lore_safetensors_begin(&json, &header);
    for (int32_t i = 0; i < c->entry_count; i++) {
        lore_safetensors_add(&json, &c->entries[i].output);
    }
    lore_status status = lore_safetensors_end(&json, c->err);
    if (status == LORE_OK) {
        status = lore_folder_path(c->temporary, "adapter_model.safetensors", c->path, c->err);
    }
    if (status == LORE_OK) {
        status = lore_file_begin(c->path, &c->fd, c->err);
    }
    if (status == LORE_OK) {
        status = lore_file_write(c->fd, c->path, header.ptr, header.len, c->err);
        for (int32_t i = 0; i < c->entry_count && status == LORE_OK; i++) {
            status = write_entry(c, &c->entries[i]);
        }
        if (status == LORE_OK) {
            status = lore_file_commit(c->fd, c->path, c->err);
        } else {
            lore_file_abort(c->fd, c->path);
        }
    }
    lore_buf_destroy(&header);
    return status;
}

/* ---- adapter_config.json ---- */

/* "up_proj" where all layers have it, else the whole names. */
static void print_targets(const converter *c, lore_json_writer *json)
{
    char name[STEM_CAP];
    lore_json_array(json, "target_modules");
    for (int32_t i = 0; i < c->matrix_count; i++) {
        const matrix *m = &c->matrices[i];
        const char *dot = strrchr(m->stem, '.');
        int32_t layers = 0;
        for (int32_t k = 0; k < c->matrix_count; k++) {
            layers += strcmp(c->matrices[k].stem, m->stem) == 0;
        }
        if (layers < c->base.layers || dot == NULL) {
            lore_json_string(json, NULL, module_of(m, name));
        } else if (m->layer == 0) {
            lore_json_string(json, NULL, lore_str_from(dot + 1));
        }
    }
    lore_json_end(json);
}

/* What differs from the first matrix. */
static void print_pattern(const converter *c, lore_json_writer *json, bool is_alpha)
{
    char name[STEM_CAP];
    const matrix *first = &c->matrices[0];
    lore_json_object(json, is_alpha ? "alpha_pattern" : "rank_pattern");
    for (int32_t i = 0; i < c->matrix_count; i++) {
        const matrix *m = &c->matrices[i];
        const double alpha = m->scale * m->rank;
        if (!is_alpha && m->rank != first->rank) {
            lore_json_int(json, module_of(m, name).ptr, m->rank);
        } else if (is_alpha && alpha != first->scale * first->rank) {
            lore_json_float(json, module_of(m, name).ptr, alpha);
        }
    }
    lore_json_end(json);
}

static lore_status write_config(converter *c)
{
    lore_buf text;
    lore_json_writer json;
    const matrix *first = &c->matrices[0];
    lore_buf_init(&text, 0);
    lore_json_write_begin(&json, &text);
    lore_json_object(&json, NULL);
    lore_json_string(&json, "peft_type", LORE_STR("LORA"));
    lore_json_string(&json, "task_type", LORE_STR("CAUSAL_LM"));
    lore_json_string(&json, "base_model_name_or_path", lore_str_from(c->base_folder));
    lore_json_string(&json, "bias", LORE_STR("none"));
    lore_json_boolean(&json, "inference_mode", true);
    lore_json_int(&json, "r", first->rank);
    lore_json_float(&json, "lora_alpha", first->scale * first->rank);
    lore_json_float(&json, "lora_dropout", 0);
    lore_json_boolean(&json, "fan_in_fan_out", false);
    print_targets(c, &json);
    print_pattern(c, &json, false);
    print_pattern(c, &json, true);
    lore_json_end(&json);
    lore_status status =
        lore_buf_failed(&text)
            ? no_memory(c)
            : lore_folder_path(c->temporary, "adapter_config.json", c->path, c->err);
    if (status == LORE_OK) {
        status = lore_file_replace(c->path, lore_buf_str(&text), c->err);
    }
    lore_buf_destroy(&text);
    return status;
}

/* ---- the whole ---- */

static lore_status read_base(converter *c)
{
    lore_status status = lore_decoder_config_read(c->base_folder, c->limits, &c->base, c->err);
    if (status == LORE_OK) {
        status = lore_weights_open(c->base_folder, c->limits, &c->weights, c->err);
    }
    return status;
}

/* At last it must be an adapter of this base. */
static lore_status write_folder(converter *c)
{
    const lore_adapter_base base = {&c->base, c->weights};
    lore_adapter *adapter = NULL;
    lore_status status = write_config(c);
    if (status == LORE_OK) {
        status = write_tensors(c);
    }
    if (status == LORE_OK) {
        status = lore_adapter_read(c->temporary, &base, LORE_F32, c->limits, &adapter, c->err);
    }
    lore_adapter_close(adapter);
    return status;
}

static lore_status convert(converter *c, const char *source, const char *out)
{
    lore_status status = read_base(c);
    if (status == LORE_OK) {
        status =
            lore_foreign_adapter_read(source, &c->base, c->limits, c->options, &c->source, c->err);
    }
    if (status == LORE_OK) {
        status = add_matrices(c);
    }
    if (status == LORE_OK) {
        status = add_entries(c);
    }
    if (status == LORE_OK) {
        status = lore_folder_begin(out, &c->arena, &c->temporary, c->err);
    }
    if (status != LORE_OK) {
        return status;
    }
    status = write_folder(c);
    if (status == LORE_OK) {
        status = lore_folder_commit(c->temporary, out, c->err);
    }
    if (status != LORE_OK) {
        lore_folder_abort(c->temporary);
    }
    return status;
}

lore_status lore_adapter_convert(const char *base, const char *source, const char *out,
                                 const lore_limits *limits, const lore_convert_options *options,
                                 lore_convert_result *result, lore_error *err)
{
    converter *c = lore_alloc_zero(1, sizeof *c);
    if (c == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for '%s'", out);
    }
    c->base_folder = base;
    c->limits = limits;
    c->options = options;
    c->err = err;
    lore_arena_init(&c->arena, 0);
    lore_status status = convert(c, source, out);
    if (status == LORE_OK) {
        *result = c->result;
        result->tensors_read = c->source.tensor_count;
    }
    lore_foreign_adapter_destroy(&c->source);
    lore_weights_close(c->weights);
    lore_arena_destroy(&c->arena);
    lore_free(c);
    return status;
}
