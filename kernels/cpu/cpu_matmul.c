/* Matmul on the cpu backend: packing of weights, and the driver that cuts a product into tiles.
 *
 * A weight is packed once into panels: 64 (or 16, or a few) outputs side by side, with the depth
 * running through memory in the order in which the kernel of this machine reads it. A panel of a
 * starter model is 24 to 200 KB and stays in the first or second cache while all rows of a block
 * pass over it; no further blocking over depth is needed there.
 *
 * Two ways to spread the work:
 * - many rows: an item is a block of rows against all panels. It turns its own rows into the
 * kernel's input type, in scratch that stays in its core's cache.
 * - few rows (decoding): rows are turned once, then an item is a run of panels. Each weight is read
 * once, in order, by one core, so memory bandwidth is the bound; no separate matrix-vector code is
 * needed, a tile of one row is one. */
#include "kernels/cpu/cpu_int.h"

#include "base/mem.h"

#include <string.h>

enum {
    BLOCK_ROWS = 96, /* a whole number of tiles of 6 and of 32 rows */
    ALIGN_BYTES = 64,
    PIECE_BYTES_MIN =
        96 * 1024, /* of work for one trip to the pool, about 4 us of memory reading */
    PREPARE_ELEMENTS_MIN = 32768, /* below this, turning rows is not worth the pool */
    INT8_DEPTH_MAX = 65536        /* 65,793 * 255 * 127 is the end of int32 */
};

static int64_t round_up(int64_t value, int64_t step)
{
    return (value + step - 1) / step * step;
}

/* ---- packing ---- */

static size_t weight_element_size(lore_precision precision)
{
    return precision == LORE_PRECISION_F32 ? 4 : precision == LORE_PRECISION_BF16 ? 2 : 1;
}

static lore_precision choose_precision(const lore_cpu_backend *backend, const lore_matrix *parts,
                                       int32_t count)
{
    const lore_precision asked = backend->base.options.precision;
    if (asked != LORE_PRECISION_AUTO) {
        return asked;
    }
    bool is_int8 = true;
    for (int32_t i = 0; i < count; i++) {
        is_int8 = is_int8 && parts[i].dtype == LORE_I8;
    }
    if (is_int8) {
        return LORE_PRECISION_INT8;
    }
    const bool has_bf16 =
        backend->isa >= LORE_ISA_AVX512 && (backend->features & LORE_CPU_AVX512_BF16) != 0;
    return has_bf16 ? LORE_PRECISION_BF16 : LORE_PRECISION_F32;
}

/* One row of a part in the element type of the precision, at `to`; `wide` is scratch for cols
 * floats. Returns the scale that the sums of this row must be multiplied with. */
static float convert_row(lore_precision precision, const lore_matrix *part, int32_t row, void *to,
                         float *wide)
{
    const size_t cols = (size_t)part->cols;
    const bool is_int8 = part->dtype == LORE_I8;
    const int8_t *bytes = (const int8_t *)part->data + (is_int8 ? (size_t)row * cols : 0);
    if (precision == LORE_PRECISION_INT8 && is_int8) {
        memcpy(to, bytes, cols);
        return part->scales[row];
    }
    if (precision == LORE_PRECISION_BF16 &&
        is_int8) { /* whole numbers up to 256 are exact in bf16 */
        for (size_t k = 0; k < cols; k++) {
            ((uint16_t *)to)[k] = lore_f32_to_bf16((float)bytes[k]);
        }
        return part->scales[row];
    }
    lore_matrix_read_row(part, row, wide);
    if (precision == LORE_PRECISION_INT8) {
        return lore_quantize_row(to, wide, part->cols);
    }
    if (precision == LORE_PRECISION_BF16) {
        for (size_t k = 0; k < cols; k++) {
            ((uint16_t *)to)[k] = lore_f32_to_bf16(wide[k]);
        }
        return 1.0f;
    }
    memcpy(to, wide, cols * sizeof(float));
    return 1.0f;
}

/* Put row `o`, `depth` elements in memory order, between the other rows of its panel. */
static void scatter_row(const lore_cpu_weight *w, int32_t o, const char *row, size_t element)
{
    const lore_matmul_kernel *kernel = w->kernel;
    const size_t group_bytes = (size_t)kernel->group * element;
    char *to = (char *)w->panels + (size_t)(o / kernel->panel) * w->panel_bytes +
               (size_t)(o % kernel->panel) * group_bytes;
    for (int32_t g = 0; g < w->depth / kernel->group; g++) {
        memcpy(to, row + (size_t)g * group_bytes, group_bytes);
        to += (size_t)kernel->panel * group_bytes;
    }
}

/* What vpdpbusd adds too much because inputs are stored plus 128. */
static int32_t undo_offset(const int8_t *row, int32_t cols)
{
    int32_t sum = 0;
    for (int32_t k = 0; k < cols; k++) {
        sum += row[k];
    }
    return -128 * sum;
}

static void fill(lore_cpu_weight *w, const lore_matrix *parts, int32_t count, char *row,
                 float *wide)
{
    const lore_precision precision = w->kernel->precision;
    const size_t element = weight_element_size(precision);
    int32_t o = 0;
    for (int32_t i = 0; i < count; i++) {
        for (int32_t r = 0; r < parts[i].rows; r++, o++) {
            w->scales[o] = convert_row(precision, &parts[i], r, row, wide);
            scatter_row(w, o, row, element);
            if (w->start != NULL) {
                w->start[o] = undo_offset((const int8_t *)row, parts[i].cols);
            }
        }
    }
}

/* Sizes and memory of an empty packed weight; what was allocated is in w even on failure. */
static lore_status allocate(lore_cpu_weight *w, bool is_table, lore_error *err)
{
    const lore_matmul_kernel *kernel = w->kernel;
    const size_t element = weight_element_size(kernel->precision);
    w->depth = (int32_t)round_up(w->base.cols, kernel->depth_step);
    w->panel_count = (int32_t)(round_up(w->base.rows, kernel->panel) / kernel->panel);
    w->panel_bytes = (size_t)w->depth * (size_t)kernel->panel * element;
    size_t panels_bytes = 0;
    if (lore_size_mul((size_t)w->panel_count, w->panel_bytes, &panels_bytes)) {
        w->panels = lore_alloc_aligned(panels_bytes);
    }
    w->scales = lore_alloc_zero((size_t)w->base.rows, sizeof *w->scales);
    const bool has_start = kernel->few->row_kind == LORE_ROW_U8;
    if (has_start) {
        w->start =
            lore_alloc_zero((size_t)w->panel_count * (size_t)kernel->panel, sizeof *w->start);
    }
    if (is_table) {
        w->parts = lore_alloc_zero((size_t)w->part_count, sizeof *w->parts);
    }
    if (w->panels == NULL || w->scales == NULL || (has_start && w->start == NULL) ||
        (is_table && w->parts == NULL)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a weight of %d x %d",
                         (int)w->base.rows, (int)w->base.cols);
    }
    memset(w->panels, 0, panels_bytes); /* the padding must be zeros */
    w->base.size_bytes = panels_bytes + (size_t)w->base.rows * (sizeof *w->scales +
                                                                (has_start ? sizeof *w->start : 0));
    return LORE_OK;
}

/* The scales are needed only where one of them is not 1. */
static void drop_unit_scales(lore_cpu_weight *w)
{
    for (int32_t o = 0; o < w->base.rows; o++) {
        if (w->scales[o] != 1.0f) {
            return;
        }
    }
    lore_free(w->scales);
    w->scales = NULL;
}

lore_status lore_cpu_weight_pack(lore_backend *backend, const lore_matrix *parts, int32_t count,
                                 bool is_table, lore_weight **weight, lore_error *err)
{
    const lore_cpu_backend *cpu = (const lore_cpu_backend *)backend;
    const int32_t cols = parts[0].cols;
    const lore_precision precision = choose_precision(cpu, parts, count);
    if (precision == LORE_PRECISION_INT8 && cols > INT8_DEPTH_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "a weight of %d columns is too wide for int8 sums (at most %d)", (int)cols,
                         INT8_DEPTH_MAX);
    }
    lore_cpu_weight *w = lore_alloc_zero(1, sizeof *w);
    if (w == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a weight");
    }
    w->base.backend = backend;
    w->base.cols = cols;
    for (int32_t i = 0; i < count; i++) {
        w->base.rows += parts[i].rows;
    }
    w->part_count = count;
    w->kernel = lore_cpu_find_kernel(cpu, precision);
    lore_status status = allocate(w, is_table, err);
    float *wide = lore_alloc_zero((size_t)w->depth, sizeof *wide);
    char *row = lore_alloc_zero((size_t)w->depth, sizeof(float)); /* stays zero behind cols */
    if (status == LORE_OK && (wide == NULL || row == NULL)) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for packing a weight");
    }
    if (status == LORE_OK) {
        fill(w, parts, count, row, wide);
        drop_unit_scales(w);
        if (is_table) {
            memcpy(w->parts, parts, (size_t)count * sizeof *parts);
        }
        *weight = &w->base;
    } else {
        lore_cpu_weight_free(&w->base);
    }
    lore_free(wide);
    lore_free(row);
    return status;
}

void lore_cpu_weight_free(lore_weight *weight)
{
    lore_cpu_weight *w = (lore_cpu_weight *)weight;
    lore_free_aligned(w->panels);
    lore_free(w->scales);
    lore_free(w->start);
    lore_free(w->parts);
    lore_free(w);
}

/* ---- the product ---- */

typedef struct product {
    lore_view out, x;
    const lore_cpu_weight *w;
    const lore_matmul_form *form;
    lore_epilogue epilogue;
    char *prepared;    /* turned rows: of the whole batch, or BLOCK_ROWS a worker */
    float *row_scales; /* one a turned row */
    int64_t row_bytes; /* from one turned row to the next */
} product;

static size_t row_element_size(lore_row_kind kind)
{
    static const size_t sizes[] = {4, 4, 2, 1, 1, 2};
    return sizes[kind];
}

/* Rows first .. first+rows-1 of x, turned, to `to`; whole tiles where the form reads them. */
static void prepare_rows(const product *job, int32_t first, int32_t rows, char *to, float *scales)
{
    for (int32_t r = 0; r < rows; r++) {
        const float *x = job->x.data + (first + r) * job->x.stride;
        scales[r] = job->w->kernel->prepare(job->form->row_kind, to + r * job->row_bytes, x,
                                            job->x.cols, job->w->depth);
    }
    if (job->form->reads_whole_tile) {
        const int64_t end = round_up(rows, job->form->rows_max);
        memset(to + rows * job->row_bytes, 0, (size_t)((end - rows) * job->row_bytes));
    }
}

/* The tiles of rows first .. first+rows-1 (turned: at `a`) and some panels. */
static void multiply_tiles(const product *job, const char *a, int64_t a_stride,
                           const float *row_scales, int32_t first, int32_t rows,
                           int32_t panel_begin, int32_t panel_end)
{
    const lore_cpu_weight *w = job->w;
    const lore_matmul_form *form = job->form;
    const int32_t panel = w->kernel->panel, groups = w->depth / w->kernel->group;
    float sums[LORE_MATMUL_ROWS_MAX * LORE_MATMUL_PANEL_MAX] __attribute__((aligned(ALIGN_BYTES)));
    if (form->begin != NULL) {
        form->begin();
    }
    for (int32_t p = panel_begin; p < panel_end; p++) {
        const int32_t col = p * panel,
                      cols = job->out.cols - col < panel ? job->out.cols - col : panel;
        const char *b = (const char *)w->panels + (size_t)p * w->panel_bytes;
        lore_finish tile = {
            .out_stride = job->out.stride,
            .cols = cols,
            .sums = sums,
            .sums_stride = panel,
            .is_integer = form->is_integer,
            .scales = w->scales != NULL ? w->scales + col : NULL,
            .bias = job->epilogue.bias != NULL ? job->epilogue.bias + col : NULL,
            .activation = job->epilogue.activation,
            .is_accumulating = job->epilogue.is_accumulating,
        };
        for (int32_t r = 0; r < rows; r += form->rows_max) {
            tile.rows = rows - r < form->rows_max ? rows - r : form->rows_max;
            form->tile(tile.rows, groups, a + r * a_stride, a_stride, b,
                       w->start != NULL ? w->start + col : NULL, sums);
            tile.out = job->out.data + (first + r) * job->out.stride + col;
            tile.row_scales = form->is_integer ? row_scales + r : NULL;
            w->kernel->finish(&tile);
        }
    }
    if (form->end != NULL) {
        form->end();
    }
}

/* Many rows: items are blocks of rows. */
static void multiply_blocks(void *self, int32_t begin, int32_t end, int32_t worker)
{
    const product *job = self;
    char *prepared = job->prepared + worker * (BLOCK_ROWS * job->row_bytes);
    float *row_scales = job->row_scales + worker * BLOCK_ROWS;
    for (int32_t block = begin; block < end; block++) {
        const int32_t first = block * BLOCK_ROWS;
        const int32_t rows = job->x.rows - first < BLOCK_ROWS ? job->x.rows - first : BLOCK_ROWS;
        if (job->form->row_kind == LORE_ROW_F32) {
            multiply_tiles(job, (const char *)(job->x.data + first * job->x.stride),
                           job->x.stride * (int64_t)sizeof(float), NULL, first, rows, 0,
                           job->w->panel_count);
            continue;
        }
        prepare_rows(job, first, rows, prepared, row_scales);
        multiply_tiles(job, prepared, job->row_bytes, row_scales, first, rows, 0,
                       job->w->panel_count);
    }
}

/* Few rows: items are panels. */
static void multiply_panels(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const product *job = self;
    if (job->form->row_kind == LORE_ROW_F32) {
        multiply_tiles(job, (const char *)job->x.data, job->x.stride * (int64_t)sizeof(float), NULL,
                       0, job->x.rows, begin, end);
        return;
    }
    multiply_tiles(job, job->prepared, job->row_bytes, job->row_scales, 0, job->x.rows, begin, end);
}

static void prepare_batch(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const product *job = self;
    prepare_rows(job, begin, end - begin, job->prepared + begin * job->row_bytes,
                 job->row_scales + begin);
}

/* How many panels make one item: enough to be worth a trip, few enough to share out evenly. */
static int32_t panels_of_item(const product *job, int32_t threads)
{
    const int64_t work = (int64_t)job->w->panel_bytes * (1 + job->x.rows / 8);
    const int64_t least = (PIECE_BYTES_MIN + work - 1) / work;
    const int64_t even = (job->w->panel_count + 4 * threads - 1) / (4 * threads);
    return (int32_t)(least > even ? least : even);
}

static void multiply_few(lore_queue *queue, product *job, int32_t threads)
{
    if (job->form->row_kind != LORE_ROW_F32) {
        const bool is_big = (int64_t)job->x.rows * job->x.cols >= PREPARE_ELEMENTS_MIN;
        const int32_t rows_max = job->form->rows_max;
        const int32_t grain =
            is_big ? (int32_t)round_up(job->x.rows / (2 * threads) + 1, rows_max) : job->x.rows;
        lore_host_for(queue, job->x.rows, grain, prepare_batch, job);
    }
    lore_host_for(queue, job->w->panel_count, panels_of_item(job, threads), multiply_panels, job);
}

void lore_cpu_matmul(lore_queue *queue, lore_view out, lore_view x, const lore_weight *w,
                     lore_epilogue epilogue)
{
    LORE_ASSERT(out.cols == w->rows);
    LORE_ASSERT(x.cols == w->cols);
    if (x.rows == 0) {
        return;
    }
    const lore_cpu_weight *weight = (const lore_cpu_weight *)w;
    const lore_matmul_kernel *kernel = weight->kernel;
    const lore_matmul_form *form = x.rows <= kernel->few_max ? kernel->few : kernel->many;
    product job = {.out = out, .x = x, .w = weight, .form = form, .epilogue = epilogue};

    const int32_t threads = lore_host_threads(queue);
    const int32_t blocks = (x.rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const bool has_many = blocks >= 2 * threads;
    if (form->row_kind != LORE_ROW_F32) {
        job.row_bytes = round_up((int64_t)weight->depth * (int64_t)row_element_size(form->row_kind),
                                 ALIGN_BYTES);
        const int64_t rows =
            has_many ? (int64_t)threads * BLOCK_ROWS : round_up(x.rows, form->rows_max);
        const size_t prepared_bytes = (size_t)(rows * job.row_bytes);
        job.prepared = lore_host_scratch(queue, prepared_bytes + (size_t)rows * sizeof(float));
        if (job.prepared == NULL) {
            return;
        }
        job.row_scales = (float *)(void *)(job.prepared + prepared_bytes);
    }
    if (has_many) {
        lore_host_for(queue, blocks, 1, multiply_blocks, &job);
    } else {
        multiply_few(queue, &job, threads);
    }
}
