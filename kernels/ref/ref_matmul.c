/* Matrix product and embedding of ref: the weight is a plain f32 matrix, each element of the
 * product one sum in double.
 *
 * The only liberty: four outputs are summed side by side, which changes no sum and lets four
 * additions overlap. */
#include "kernels/ref/ref_int.h"

#include "base/mem.h"

lore_status lore_ref_weight_pack(lore_backend *backend, const lore_matrix *parts, int32_t count,
                                 lore_weight_use use, lore_weight **weight, lore_error *err)
{
    (void)use; /* the same values serve both uses */
    const int32_t cols = parts[0].cols;
    int32_t rows = 0;
    for (int32_t i = 0; i < count; i++) {
        rows += parts[i].rows;
    }
    size_t size_bytes = 0;
    lore_ref_weight *packed = lore_alloc_zero(1, sizeof *packed);
    float *values = NULL;
    if (lore_size_mul((size_t)rows, (size_t)cols, &size_bytes) &&
        lore_size_mul(size_bytes, sizeof *values, &size_bytes)) {
        values = lore_alloc_aligned(size_bytes);
    }
    if (packed == NULL || values == NULL) {
        lore_free(packed);
        lore_free_aligned(values);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a weight of %d x %d", (int)rows,
                         (int)cols);
    }
    float *to = values;
    for (int32_t i = 0; i < count; i++) {
        for (int32_t r = 0; r < parts[i].rows; r++, to += cols) {
            lore_matrix_read_row(&parts[i], r, to);
        }
    }
    packed->base = (lore_weight){backend, rows, cols, size_bytes};
    packed->values = values;
    *weight = &packed->base;
    return LORE_OK;
}

void lore_ref_weight_free(lore_weight *weight)
{
    lore_ref_weight *packed = (lore_ref_weight *)weight;
    lore_free_aligned(packed->values);
    lore_free(packed);
}

void lore_ref_embed(lore_queue *queue, lore_view out, const lore_weight *table, const int32_t *ids,
                    const int32_t *drawn, float scale, bool is_accumulating)
{
    (void)queue;
    LORE_ASSERT(out.cols == table->cols);
    const float *values = ((const lore_ref_weight *)table)->values;
    for (int32_t r = 0; r < out.rows; r++) {
        const int32_t id = lore_host_id(ids, drawn, r);
        LORE_ASSERT(id >= 0 && id < table->rows);
        const float *from = values + (int64_t)id * table->cols;
        float *to = out.data + r * out.stride;
        for (int32_t c = 0; c < out.cols; c++) {
            to[c] = is_accumulating ? to[c] + scale * from[c] : scale * from[c];
        }
    }
}

typedef struct product {
    lore_view out, x;
    const float *w;
    lore_epilogue epilogue;
} product;

static void store(const product *job, int32_t row, int32_t col, double sum)
{
    double value = sum;
    if (job->epilogue.bias != NULL) {
        value += (double)job->epilogue.bias[col];
    }
    value = lore_ref_activate(value, job->epilogue.activation);
    float *to = job->out.data + row * job->out.stride + col;
    *to = job->epilogue.is_accumulating ? *to + (float)value : (float)value;
}

/* Outputs begin .. end-1 of all rows. */
static void multiply(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const product *job = self;
    const int64_t depth = job->x.cols;
    for (int32_t r = 0; r < job->x.rows; r++) {
        const float *x = job->x.data + r * job->x.stride;
        int32_t o = begin;
        for (; o + 4 <= end; o += 4) {
            const float *w = job->w + o * depth;
            double sum[4] = {0};
            for (int64_t k = 0; k < depth; k++) {
                const double value = (double)x[k];
                sum[0] += value * (double)w[k];
                sum[1] += value * (double)w[k + depth];
                sum[2] += value * (double)w[k + 2 * depth];
                sum[3] += value * (double)w[k + 3 * depth];
            }
            for (int32_t i = 0; i < 4; i++) {
                store(job, r, o + i, sum[i]);
            }
        }
        for (; o < end; o++) {
            const float *w = job->w + o * depth;
            double sum = 0;
            for (int64_t k = 0; k < depth; k++) {
                sum += (double)x[k] * (double)w[k];
            }
            store(job, r, o, sum);
        }
    }
}

/* Element (row, col) of a matrix of an adapter. */
static double lora_value(const void *data, lore_dtype dtype, int64_t cols, int32_t row, int32_t col)
{
    const int64_t at = row * cols + col;
    return dtype == LORE_F32 ? (double)((const float *)data)[at]
                             : (double)lore_bf16_to_f32(((const uint16_t *)data)[at]);
}

/* One row; v [p->rank] is scratch. */
static void add_row(float *out, const float *x, int32_t depth, const lore_lora_product *p,
                    lore_dtype dtype, float *v)
{
    for (int32_t k = 0; k < p->rank; k++) {
        double sum = 0;
        for (int32_t c = 0; c < depth; c++) {
            sum += (double)x[c] * lora_value(p->a, dtype, depth, k, c);
        }
        v[k] = (float)sum;
    }
    for (int32_t i = 0; i < p->part_count; i++) {
        const lore_lora_part *part = &p->parts[i];
        for (int32_t o = 0; o < part->columns; o++) {
            double sum = 0;
            for (int32_t k = 0; k < part->rank; k++) {
                sum +=
                    (double)v[part->rank_start + k] * lora_value(part->b, dtype, part->rank, o, k);
            }
            out[part->column_start + o] += (float)((double)part->scale * sum);
        }
    }
}

static void add_lora(lore_queue *queue, lore_view out, lore_view x, const lore_lora *lora)
{
    const lore_lora_rows *rows = &lora->rows;
    float *v = lore_host_scratch(queue, (size_t)lora->rank_max * sizeof *v);
    lore_lora_check(lora, out, x);
    for (int32_t i = 0; i < rows->segments && v != NULL; i++) {
        const lore_lora_product *p = lore_lora_find(lora, i);
        for (int32_t at = rows->starts[i]; p != NULL && at < rows->starts[i + 1]; at++) {
            const int32_t r = rows->order[at];
            LORE_ASSERT(r >= 0 && r < x.rows);
            add_row(out.data + r * out.stride, x.data + r * x.stride, x.cols, p, lora->dtype, v);
        }
    }
}

void lore_ref_matmul(lore_queue *queue, lore_view out, lore_view x, const lore_weight *w,
                     lore_epilogue epilogue)
{
    LORE_ASSERT(out.cols == w->rows);
    LORE_ASSERT(x.cols == w->cols);
    product job = {out, x, ((const lore_ref_weight *)w)->values, epilogue};
    lore_host_for(queue, out.cols, 64, multiply, &job);
    if (epilogue.lora != NULL) {
        add_lora(queue, out, x, epilogue.lora);
    }
}
