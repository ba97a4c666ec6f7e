/* Writing a quantised folder: the plan (quantize_plan.c) carried out, block of rows after block.
 *
 * A matrix is taken from the source, whatever its form, read row by row as f32, and coded by the
 * workers of a pool; the codes of a block are written where the plan put them, its scales when the
 * matrix is done. So memory is what one matrix and one block need. Before the folder gets its name
 * it is opened as a model would be, which checks every header and offset once more. */
#include "models/quantize.h"

#include "models/model_folder_int.h"
#include "models/quantize_int.h"
#include "models/quantize_plan_int.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_ROWS = 128, COPY_BYTES = 16 << 20 };

typedef struct writer {
    const char *temporary;
    const lore_limits *limits;
    const lore_quantize_options *options;
    lore_weights *weights;
    lore_arena arena;
    lore_quantize_plan plan;
    lore_quantize_result result;
    int64_t done;          /* values, for the progress */
    double error, squares; /* sums over all matrices */
    lore_error *err;
    int fd; /* of the file being written */
    char path[PATH_MAX];
    size_t data_start; /* in that file */
} writer;

/* One matrix on its way. */
typedef struct coding {
    const lore_item *item;
    lore_matrix matrix;
    int32_t group, first;    /* row of the block */
    size_t row_bytes;        /* of codes */
    float *rows;             /* [workers + 1, cols]; the last one is for importance */
    const float *importance; /* [cols], or NULL */
    uint8_t *codes;          /* [BLOCK_ROWS, row_bytes] */
    void *scales;            /* of all rows: f32, or bf16 [rows, groups] */
    double errors[BLOCK_ROWS], squares[BLOCK_ROWS];
} coding;

static lore_status fail_memory(const writer *w)
{
    return lore_fail(w->err, LORE_ERR_NOMEM, "out of memory for writing '%s'", w->temporary);
}

static lore_status write_at(const writer *w, size_t offset, const void *data, size_t size_bytes)
{
    if (lseek(w->fd, (off_t)(w->data_start + offset), SEEK_SET) < 0) {
        return lore_fail(w->err, LORE_ERR_IO, "cannot write '%s': %s", w->path, strerror(errno));
    }
    return lore_file_write(w->fd, w->path, data, size_bytes, w->err);
}

static lore_status report(writer *w, int64_t more)
{
    w->done += more;
    return w->options->progress == NULL ||
                   w->options->progress(w->options->self, w->done, w->plan.values)
               ? LORE_OK
               : lore_fail(w->err, LORE_ERR_CANCELLED, "interrupted: nothing was written");
}

/* ---- matrices ---- */

static void code_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    coding *c = self;
    const int32_t cols = c->item->cols;
    float *x = c->rows + (size_t)worker * (size_t)cols;
    for (int32_t i = begin; i < end; i++) {
        const int32_t row = c->first + i;
        uint8_t *codes = c->codes + (size_t)i * c->row_bytes;
        double error = 0, squares = 0;
        lore_matrix_read_row(&c->matrix, row, x);
        for (int32_t k = 0; k < cols; k++) {
            squares += (double)x[k] * (double)x[k];
        }
        if (c->item->form == LORE_ITEM_BF16) {
            for (int32_t k = 0; k < cols; k++) {
                ((uint16_t *)(void *)codes)[k] = lore_f32_to_bf16(x[k]);
            }
        } else if (c->item->form == LORE_ITEM_I8) {
            const float scale = lore_quantize_row((int8_t *)codes, x, cols);
            ((float *)c->scales)[row] = scale;
            for (int32_t k = 0; k < cols; k++) {
                const double off = (double)x[k] - (double)(scale * (float)(int8_t)codes[k]);
                error += off * off;
            }
        } else {
            const size_t groups = ((size_t)cols + (size_t)c->group - 1) / (size_t)c->group;
            error = lore_quantize_row_i4(codes, (uint16_t *)c->scales + (size_t)row * groups, x,
                                         c->importance, cols, c->group);
        }
        c->errors[i] = error;
        c->squares[i] = squares;
    }
}

static lore_status code_blocks(writer *w, coding *c)
{
    lore_pool *pool = w->options->pool;
    lore_status status = LORE_OK;
    for (c->first = 0; c->first < c->item->rows && status == LORE_OK; c->first += BLOCK_ROWS) {
        const int32_t left = c->item->rows - c->first,
                      count = left < BLOCK_ROWS ? left : BLOCK_ROWS;
        if (pool != NULL) {
            lore_pool_for(pool, count, 1, LORE_PRIORITY_LOW, code_rows, c);
        } else {
            code_rows(c, 0, count, 0);
        }
        for (int32_t i = 0; i < count; i++) {
            if (!isfinite(c->squares[i])) {
                return lore_fail(w->err, LORE_ERR_CORRUPT, "matrix '%s' is not finite in row %d",
                                 c->item->matrix, c->first + i);
            }
            w->error += c->errors[i];
            w->squares += c->item->form == LORE_ITEM_BF16 ? 0 : c->squares[i];
        }
        status = write_at(w, c->item->outputs[0].offset + (size_t)c->first * c->row_bytes, c->codes,
                          (size_t)count * c->row_bytes);
        if (status == LORE_OK) {
            status = report(w, (int64_t)count * c->item->cols);
        }
    }
    return status;
}

static void set_importance(const writer *w, coding *c, int32_t workers)
{
    float *means = c->rows + (size_t)workers * (size_t)c->item->cols;
    if (w->options->activations != NULL &&
        lore_activations_find(w->options->activations, c->item->module, means, c->item->cols)) {
        c->importance = means;
    }
}

static lore_status write_matrix(writer *w, const lore_item *item)
{
    const int64_t shape[] = {item->rows, item->cols};
    const int32_t workers = w->options->pool != NULL ? lore_pool_size(w->options->pool) : 1;
    coding *c = lore_alloc_zero(1, sizeof *c);
    if (c == NULL) {
        return fail_memory(w);
    }
    c->item = item;
    c->group = w->plan.group;
    c->row_bytes = item->outputs[0].size_bytes / (size_t)item->rows;
    c->rows = lore_alloc_zero((size_t)workers + 1, (size_t)item->cols * sizeof(float));
    c->codes = lore_alloc_zero(BLOCK_ROWS, c->row_bytes);
    c->scales = lore_alloc(item->outputs[1].size_bytes); /* bf16: of 0 bytes */
    lore_status status =
        c->rows != NULL && c->codes != NULL && c->scales != NULL ? LORE_OK : fail_memory(w);
    if (status == LORE_OK) {
        status = lore_weights_matrix(w->weights, item->matrix, item->rows, item->cols, &c->matrix,
                                     w->err);
    }
    if (status == LORE_OK) {
        set_importance(w, c, workers);
        status = code_blocks(w, c);
        lore_weights_release(w->weights, &c->matrix);
    }
    if (status == LORE_OK && item->output_count > 1) {
        status = write_at(w, item->outputs[1].offset, c->scales, item->outputs[1].size_bytes);
    }
    if (status == LORE_OK && item->form == LORE_ITEM_I4) {
        status = write_at(w, item->outputs[2].offset, shape, sizeof shape);
    }
    lore_free(c->rows);
    lore_free(c->codes);
    lore_free(c->scales);
    lore_free(c);
    return status;
}

static lore_status write_copy(writer *w, const lore_item *item)
{
    const lore_output *o = &item->outputs[0];
    lore_status status = LORE_OK;
    for (size_t at = 0; at < o->size_bytes && status == LORE_OK; at += COPY_BYTES) {
        const size_t left = o->size_bytes - at;
        status = write_at(w, o->offset + at, item->tensor->data + at,
                          left < COPY_BYTES ? left : COPY_BYTES);
        if (status == LORE_OK) {
            status = report(w, 0);
        }
    }
    return status == LORE_OK && item->module != NULL ? report(w, (int64_t)item->rows * item->cols)
                                                     : status;
}

/* ---- files ---- */

static lore_status write_items(writer *w, int32_t shard)
{
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < w->plan.item_count && status == LORE_OK; i++) {
        const lore_item *item = &w->plan.items[i];
        if (item->shard == shard) {
            w->result.matrices_i4 += item->form == LORE_ITEM_I4;
            w->result.matrices_i8 += item->form == LORE_ITEM_I8;
            w->result.tensors_kept += item->form == LORE_ITEM_COPY || item->form == LORE_ITEM_BF16;
            status = item->form == LORE_ITEM_COPY ? write_copy(w, item) : write_matrix(w, item);
        }
    }
    return status;
}

static lore_status write_shard(writer *w, int32_t shard)
{
    char name[64];
    lore_buf header;
    lore_buf_init(&header, 0);
    lore_quantize_plan_file(&w->plan, shard, name, sizeof name);
    lore_status status = lore_folder_path(w->temporary, name, w->path, w->err);
    if (status == LORE_OK) {
        status = lore_quantize_plan_header(&w->plan, shard, &header, w->err);
    }
    if (status == LORE_OK) {
        status = lore_file_begin(w->path, &w->fd, w->err);
    }
    if (status == LORE_OK) {
        w->data_start = header.len;
        status = lore_file_write(w->fd, w->path, header.ptr, header.len, w->err);
        if (status == LORE_OK) {
            status = write_items(w, shard);
        }
        if (status == LORE_OK) {
            status = lore_file_commit(w->fd, w->path, w->err);
        } else {
            lore_file_abort(w->fd, w->path);
        }
    }
    lore_buf_destroy(&header);
    w->result.files++;
    return status;
}

static lore_status write_json(writer *w, const char *name, const lore_buf *json)
{
    lore_status status = lore_folder_path(w->temporary, name, w->path, w->err);
    return status == LORE_OK ? lore_file_replace(w->path, lore_buf_str(json), w->err) : status;
}

static lore_status write_index(writer *w)
{
    lore_buf json;
    if (w->plan.shard_count == 1) {
        return LORE_OK;
    }
    lore_buf_init(&json, 0);
    lore_status status = lore_quantize_plan_index(&w->plan, &json, w->err);
    if (status == LORE_OK) {
        status = write_json(w, "model.safetensors.index.json", &json);
    }
    lore_buf_destroy(&json);
    return status;
}

static lore_status write_config(writer *w, const char *folder)
{
    lore_buf old, json;
    lore_buf_init(&old, 0);
    lore_buf_init(&json, 0);
    lore_status status = lore_model_read(folder, "config.json", w->limits, &old, w->err);
    if (status == LORE_OK) {
        status =
            lore_quantize_plan_config(&w->plan, w->options->to, lore_buf_str(&old), &json, w->err);
    }
    if (status == LORE_OK) {
        status = write_json(w, "config.json", &json);
    }
    lore_buf_destroy(&old);
    lore_buf_destroy(&json);
    return status;
}

/* Every file must be what its header says. */
static lore_status check_result(writer *w)
{
    lore_weights *written = NULL;
    lore_status status = lore_weights_open(w->temporary, w->limits, &written, w->err);
    if (status == LORE_OK) {
        w->result.bytes_after = lore_weights_bytes(written);
    }
    lore_weights_close(written);
    return status;
}

static lore_status write_folder(writer *w, const char *folder)
{
    static const char *const SKIP[] = {"config.json"};
    lore_status status =
        lore_quantize_plan_make(w->weights, w->options, &w->arena, &w->plan, w->err);
    if (status == LORE_OK) {
        status = write_config(w, folder);
    }
    if (status == LORE_OK) {
        status = lore_folder_copy(folder, w->temporary, SKIP, 1, w->err);
    }
    for (int32_t shard = 0; shard < w->plan.shard_count && status == LORE_OK; shard++) {
        status = write_shard(w, shard);
    }
    if (status == LORE_OK) {
        status = write_index(w);
    }
    return status == LORE_OK ? check_result(w) : status;
}

lore_status lore_quantize(const char *folder, const char *out, const lore_limits *limits,
                          const lore_quantize_options *options, lore_quantize_result *result,
                          lore_error *err)
{
    writer *w = lore_alloc_zero(1, sizeof *w);
    LORE_ASSERT(options->to == LORE_I8 || options->to == LORE_I4);
    LORE_ASSERT(options->group == 0 || options->group == 64 || options->group == 128);
    if (w == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for '%s'", out);
    }
    w->limits = limits;
    w->options = options;
    w->err = err;
    lore_arena_init(&w->arena, 0);
    lore_status status = lore_weights_open(folder, limits, &w->weights, err);
    if (status == LORE_OK) {
        w->result.bytes_before = lore_weights_bytes(w->weights);
        status = lore_folder_begin(out, &w->arena, &w->temporary, err);
    }
    if (status == LORE_OK) {
        status = write_folder(w, folder);
        if (status == LORE_OK) {
            status = lore_folder_commit(w->temporary, out, err);
        }
        if (status != LORE_OK) {
            lore_folder_abort(w->temporary);
        }
    }
    if (status == LORE_OK) {
        w->result.relative_error = w->squares > 0 ? sqrt(w->error / w->squares) : 0;
        *result = w->result;
    }
    lore_weights_close(w->weights);
    lore_arena_destroy(&w->arena);
    lore_free(w);
    return status;
}
