/* Merging an adapter: which tensors the new folder has is decided first (merge_plan.c), then each
 * is made and written, one after another.
 *
 * A tensor is copied as it is, or rounded to another type, or made row by row: read as f32 from
 * whatever form the base has it in, with the row of scale * B A added where the adapter changes it.
 * Memory is the adapter in f32, one block of rows, and one matrix of a quantised base. */
#include "models/merge_lora.h"

#include "models/merge_plan_int.h"
#include "models/model_folder_int.h"
#include "models/quantize_int.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    BLOCK_ROWS = 128,
    BLOCK_VALUES = 1 << 16,
    COPY_BYTES = 16 << 20,
    TILE = 64 /* columns that are summed together: they stay in registers */
};

typedef struct merger {
    const char *base, *temporary;
    const lore_limits *limits;
    const lore_merge_options *options;
    lore_decoder_config config;
    lore_weights *weights;
    lore_adapter *adapter;
    lore_arena arena;
    lore_merge_plan plan;
    int64_t bytes_before, done;
    lore_error *err;
    int fd; /* of the file being written */
    char path[PATH_MAX];
} merger;

/* Rows of one matrix on their way. */
typedef struct block {
    const merger *m;
    const lore_merge_item *item;
    lore_matrix matrix;
    int32_t first; /* row */
    float *rows;   /* [workers, cols] */
    uint8_t *out;  /* [BLOCK_ROWS, cols] of the type to write */
    bool is_finite[BLOCK_ROWS];
} block;

static lore_status no_memory(const merger *m)
{
    return lore_fail(m->err, LORE_ERR_NOMEM, "out of memory for merging into '%s'", m->base);
}

/* ---- values ---- */

static lore_status report(merger *m, size_t more)
{
    m->done += (int64_t)more;
    return m->options->progress == NULL ||
                   m->options->progress(m->options->self, m->done, m->plan.size_bytes)
               ? LORE_OK
               : lore_fail(m->err, LORE_ERR_CANCELLED, "interrupted: nothing was written");
}

static lore_status fail_value(const merger *m, const lore_merge_item *t)
{
    return lore_fail(m->err, LORE_ERR_CORRUPT,
                     "tensor '" LORE_STR_FMT "' holds a value that is no finite number in %s",
                     LORE_STR_ARG(t->output.name), t->output.dtype);
}

/* x += scale * b A, a row of B by all of A. */
static void add_change(const lore_merge_item *t, const lore_adapter *adapter, int32_t row, float *x)
{
    const lore_adapter_part *part = t->part;
    const size_t cols = (size_t)t->cols, rank = (size_t)part->rank;
    const float *values = (const float *)(const void *)adapter->data;
    const float *a = values + t->linear->a / sizeof *a + (size_t)part->rank_start * cols;
    const float *b = values + part->b / sizeof *b + (size_t)row * rank;
    for (size_t c = 0; c < cols; c += TILE) {
        float sums[TILE] = {0};
        const size_t n = cols - c < TILE ? cols - c : TILE;
        for (size_t k = 0; k < rank; k++) {
            const float *from = a + k * cols + c;
            if (n == TILE) { /* a count that the compiler knows */
                for (size_t i = 0; i < TILE; i++) {
                    sums[i] += b[k] * from[i];
                }
            } else {
                for (size_t i = 0; i < n; i++) {
                    sums[i] += b[k] * from[i];
                }
            }
        }
        for (size_t i = 0; i < n; i++) {
            x[c + i] += part->scale * sums[i];
        }
    }
}

/* False: one of them is no finite number in this type. */
static bool round_values(const float *x, size_t count, lore_dtype to, uint8_t *out)
{
    uint16_t *halves = (uint16_t *)(void *)out;
    bool is_finite = true;
    if (to == LORE_F32) {
        memcpy(out, x, count * sizeof *x);
    }
    for (size_t i = 0; i < count; i++) {
        if (to == LORE_F16) {
            halves[i] = lore_f32_to_f16(x[i]);
            is_finite &= (halves[i] & 0x7c00) != 0x7c00;
        } else if (to == LORE_BF16) {
            halves[i] = lore_f32_to_bf16(x[i]);
            is_finite &= (halves[i] & 0x7f80) != 0x7f80;
        } else {
            is_finite &= isfinite(x[i]) != 0;
        }
    }
    return is_finite;
}

static void make_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    block *b = self;
    const size_t cols = (size_t)b->item->cols;
    float *x = b->rows + (size_t)worker * cols;
    for (int32_t i = begin; i < end; i++) {
        lore_matrix_read_row(&b->matrix, b->first + i, x);
        if (b->item->part != NULL) {
            add_change(b->item, b->m->adapter, b->first + i, x);
        }
        b->is_finite[i] = round_values(x, cols, b->item->to,
                                       b->out + (size_t)i * cols * b->item->output.element_bytes);
    }
}

static lore_status write_blocks(merger *m, block *b)
{
    const size_t row_bytes = (size_t)b->item->cols * b->item->output.element_bytes;
    lore_status status = LORE_OK;
    for (b->first = 0; b->first < b->item->rows && status == LORE_OK; b->first += BLOCK_ROWS) {
        const int32_t left = b->item->rows - b->first,
                      count = left < BLOCK_ROWS ? left : BLOCK_ROWS;
        if (m->options->pool != NULL) {
            lore_pool_for(m->options->pool, count, 1, LORE_PRIORITY_LOW, make_rows, b);
        } else {
            make_rows(b, 0, count, 0);
        }
        for (int32_t i = 0; i < count; i++) {
            if (!b->is_finite[i]) {
                return fail_value(m, b->item);
            }
        }
        status = lore_file_write(m->fd, m->path, b->out, (size_t)count * row_bytes, m->err);
        if (status == LORE_OK) {
            status = report(m, (size_t)count * row_bytes);
        }
    }
    return status;
}

static lore_status write_matrix(merger *m, const lore_merge_item *t)
{
    const int32_t workers = m->options->pool != NULL ? lore_pool_size(m->options->pool) : 1;
    block *b = lore_alloc_zero(1, sizeof *b);
    if (b == NULL) {
        return no_memory(m);
    }
    b->m = m;
    b->item = t;
    b->rows = lore_alloc_zero((size_t)workers, (size_t)t->cols * sizeof(float));
    b->out = lore_alloc_zero(BLOCK_ROWS, (size_t)t->cols * t->output.element_bytes);
    lore_status status =
        b->rows != NULL && b->out != NULL
            ? lore_weights_matrix(m->weights, t->matrix, t->rows, t->cols, &b->matrix, m->err)
            : no_memory(m);
    if (status == LORE_OK) {
        status = write_blocks(m, b);
        lore_weights_release(m->weights, &b->matrix);
    }
    lore_free(b->rows);
    lore_free(b->out);
    lore_free(b);
    return status;
}

static lore_status write_copy(merger *m, const lore_merge_item *t)
{
    lore_status status = LORE_OK;
    for (size_t at = 0; at < t->tensor->size_bytes && status == LORE_OK; at += COPY_BYTES) {
        const size_t left = t->tensor->size_bytes - at,
                     size = left < COPY_BYTES ? left : COPY_BYTES;
        status = lore_file_write(m->fd, m->path, t->tensor->data + at, size, m->err);
        if (status == LORE_OK) {
            status = report(m, size);
        }
    }
    return status;
}

static lore_status write_rounded(merger *m, const lore_merge_item *t)
{
    const size_t count = t->tensor->size_bytes / t->tensor->type->size_bytes;
    float *x = lore_alloc(2 * BLOCK_VALUES * sizeof *x); /* numbers, and what they become */
    lore_status status = x != NULL ? LORE_OK : no_memory(m);
    for (size_t at = 0; at < count && status == LORE_OK; at += BLOCK_VALUES) {
        const size_t n = count - at < BLOCK_VALUES ? count - at : BLOCK_VALUES;
        uint8_t *out = (uint8_t *)(x + BLOCK_VALUES);
        for (size_t i = 0; i < n; i++) {
            x[i] = lore_tensor_value(t->tensor, at + i);
        }
        status = round_values(x, n, t->to, out)
                     ? lore_file_write(m->fd, m->path, out, n * t->output.element_bytes, m->err)
                     : fail_value(m, t);
        if (status == LORE_OK) {
            status = report(m, n * t->output.element_bytes);
        }
    }
    lore_free(x);
    return status;
}

/* ---- files ---- */

static lore_status write_item(merger *m, const lore_merge_item *t)
{
    if (t->matrix != NULL) {
        return write_matrix(m, t);
    }
    const bool is_kept = !t->tensor->type->is_usable || t->tensor->type->dtype == t->to;
    return is_kept ? write_copy(m, t) : write_rounded(m, t);
}

static lore_status write_data(merger *m, int32_t shard, const lore_buf *header)
{
    lore_status status = lore_file_begin(m->path, &m->fd, m->err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_file_write(m->fd, m->path, header->ptr, header->len, m->err);
    for (int32_t i = 0; i < m->plan.count && status == LORE_OK; i++) {
        status = m->plan.items[i].shard == shard ? write_item(m, &m->plan.items[i]) : LORE_OK;
    }
    if (status == LORE_OK) {
        return lore_file_commit(m->fd, m->path, m->err);
    }
    lore_file_abort(m->fd, m->path);
    return status;
}

static lore_status write_shard(merger *m, int32_t shard)
{
    char name[64];
    lore_buf header;
    lore_json_writer json;
    lore_buf_init(&header, 0);
    lore_safetensors_file(shard, m->plan.file_count, name, sizeof name);
    lore_safetensors_begin(&json, &header);
    for (int32_t i = 0; i < m->plan.count; i++) {
        if (m->plan.items[i].shard == shard) {
            lore_safetensors_add(&json, &m->plan.items[i].output);
        }
    }
    lore_status status = lore_safetensors_end(&json, m->err);
    if (status == LORE_OK) {
        status = lore_folder_path(m->temporary, name, m->path, m->err);
    }
    if (status == LORE_OK) {
        status = write_data(m, shard, &header);
    }
    lore_buf_destroy(&header);
    return status;
}

static lore_status write_index(merger *m)
{
    lore_buf text;
    lore_json_writer json;
    if (m->plan.file_count == 1) {
        return LORE_OK;
    }
    lore_buf_init(&text, 0);
    lore_safetensors_index_begin(&json, &text);
    for (int32_t i = 0; i < m->plan.count; i++) {
        lore_safetensors_index_add(&json, &m->plan.items[i].output, m->plan.items[i].shard,
                                   m->plan.file_count);
    }
    lore_status status = lore_safetensors_index_end(&json, m->plan.size_bytes, m->err);
    if (status == LORE_OK) {
        status = lore_folder_path(m->temporary, "model.safetensors.index.json", m->path, m->err);
    }
    if (status == LORE_OK) {
        status = lore_file_replace(m->path, lore_buf_str(&text), m->err);
    }
    lore_buf_destroy(&text);
    return status;
}

static lore_status write_config(merger *m)
{
    lore_buf old, text;
    lore_buf_init(&old, 0);
    lore_buf_init(&text, 0);
    lore_status status = lore_model_read(m->base, "config.json", m->limits, &old, m->err);
    if (status == LORE_OK) {
        status = lore_merge_plan_config(&m->plan, lore_buf_str(&old), &text);
    }
    if (status == LORE_OK) {
        status = lore_folder_path(m->temporary, "config.json", m->path, m->err);
    }
    if (status == LORE_OK) {
        status = lore_file_replace(m->path, lore_buf_str(&text), m->err);
    }
    lore_buf_destroy(&old);
    lore_buf_destroy(&text);
    return status;
}

/* ---- the whole ---- */

static lore_status read_base(merger *m)
{
    lore_status status = lore_decoder_config_read(m->base, m->limits, &m->config, m->err);
    if (status == LORE_OK) {
        status = lore_weights_open(m->base, m->limits, &m->weights, m->err);
    }
    if (status != LORE_OK) {
        return status;
    }
    m->bytes_before = lore_weights_bytes(m->weights);
    m->plan.is_coded = m->weights->quantized.method != LORE_QUANTIZED_NONE;
    for (int32_t i = 0; i < m->weights->tensor_count; i++) {
        const lore_stored_type *type = m->weights->tensors[i].type;
        m->plan.is_coded = m->plan.is_coded || (type->is_usable && type->dtype == LORE_I8);
    }
    return m->plan.is_coded && m->options->to == NULL
               ? lore_fail(m->err, LORE_ERR_UNSUPPORTED,
                           "base '%s' is quantised: say what its weights shall be unfolded to "
                           "(--to bf16, f16 or f32)",
                           m->base)
               : LORE_OK;
}

static lore_status plan(merger *m)
{
    lore_merge_plan *p = &m->plan;
    p->base = m->base;
    p->config = &m->config;
    p->weights = m->weights;
    p->adapter = m->adapter;
    p->to = m->options->to;
    p->arena = &m->arena;
    p->err = m->err;
    return lore_merge_plan_make(p);
}

/* At last every file must be what its header says. */
static lore_status write_folder(merger *m)
{
    static const char *const SKIP[] = {"config.json"};
    lore_weights *written = NULL;
    lore_status status = write_config(m);
    if (status == LORE_OK) {
        status = lore_folder_copy(m->base, m->temporary, SKIP, 1, m->err);
    }
    for (int32_t shard = 0; shard < m->plan.file_count && status == LORE_OK; shard++) {
        status = write_shard(m, shard);
    }
    if (status == LORE_OK) {
        status = write_index(m);
    }
    if (status == LORE_OK) {
        status = lore_weights_open(m->temporary, m->limits, &written, m->err);
    }
    lore_weights_close(written);
    return status;
}

static lore_status merge(merger *m, const char *adapter, const char *out)
{
    lore_status status = read_base(m);
    if (status == LORE_OK) {
        const lore_adapter_base base = {&m->config, m->weights};
        status = lore_adapter_read(adapter, &base, LORE_F32, m->limits, &m->adapter, m->err);
    }
    if (status == LORE_OK) {
        status = plan(m);
    }
    if (status == LORE_OK) {
        status = lore_folder_begin(out, &m->arena, &m->temporary, m->err);
    }
    if (status != LORE_OK) {
        return status;
    }
    status = write_folder(m);
    if (status == LORE_OK) {
        status = lore_folder_commit(m->temporary, out, m->err);
    }
    if (status != LORE_OK) {
        lore_folder_abort(m->temporary);
    }
    return status;
}

lore_status lore_merge_lora(const char *base, const char *adapter, const char *out,
                            const lore_limits *limits, const lore_merge_options *options,
                            lore_merge_result *result, lore_error *err)
{
    LORE_ASSERT(options->to == NULL || *options->to == LORE_F32 || *options->to == LORE_F16 ||
                *options->to == LORE_BF16);
    merger *m = lore_alloc_zero(1, sizeof *m);
    if (m == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for '%s'", out);
    }
    m->base = base;
    m->limits = limits;
    m->options = options;
    m->err = err;
    lore_arena_init(&m->arena, 0);
    lore_status status = merge(m, adapter, out);
    if (status == LORE_OK) {
        *result = (lore_merge_result){.modules = m->plan.modules,
                                      .tensors = m->plan.count,
                                      .files = m->plan.file_count,
                                      .is_untied = m->plan.is_untied,
                                      .bytes_before = m->bytes_before,
                                      .bytes_after = m->plan.size_bytes};
    }
    lore_adapter_close(m->adapter);
    lore_weights_close(m->weights);
    lore_arena_destroy(&m->arena);
    lore_free(m);
    return status;
}
