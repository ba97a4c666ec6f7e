/* Matmul on the cpu backend: packing of weights, and the driver that cuts a product into tiles.
 *
 * A weight is packed once into panels: 64 (or 16, or a few) outputs side by side, with the depth
 * running through memory in the order in which the kernel of this machine reads it. A panel of a
 * starter model is 24 to 200 KB and stays in the first or second cache while all rows of a block
 * pass over it; no further blocking over depth is needed there.
 *
 * Rows are turned into the kernel's input type once; then an item is a run of panels against a
 * block of rows. The block (all rows of a step, mostly) stays in the second-level cache and a panel
 * in the first or second while the tiles of the block pass over it, so that each weight comes from
 * memory once, whether one row wants it or hundreds. While the tiles of one panel are multiplied,
 * the next one is fetched: a single row is bound by memory, many rows by the multipliers, and
 * between the two neither waits for the other. No separate matrix-vector code is needed, a tile of
 * one row is one. */
#include "kernels/cpu/cpu_int.h"

#include "base/mem.h"

#include <string.h>

enum {
    ALIGN_BYTES = 64,
    BLOCK_BYTES = 384 * 1024, /* of turned rows: leaves room for panels in a cache of 1 MB */
    /* Of weights in an item. A trip to the pool costs a microsecond, and 128 KB take five. One long
     * run for each thread was measured 8 % faster than four short ones, because a core fetches
     * ahead only inside of its run; 4 MB are 150 us. */
    ITEM_BYTES_MIN = 128 * 1024,
    ITEM_BYTES_MAX = 4 * 1024 * 1024,
    /* Of products in an item, for each output of a panel and element of a group: a kernel makes
     * about one to two of those per nanosecond, so that an item ends within 150 us. */
    ITEM_PRODUCTS = 131072,
    PREPARE_ELEMENTS_MIN = 32768, /* below this, turning rows is not worth the pool */
    PRODUCT_GROUP = 4,            /* elements that one instruction multiplies, at most */
    INT8_DEPTH_MAX = 65536        /* 65,793 * 255 * 127 is the end of int32 */
};

static int64_t round_up(int64_t value, int64_t step)
{
    return (value + step - 1) / step * step;
}

/* ---- packing ---- */

static size_t weight_element_size(lore_packing packing)
{
    return packing == LORE_PACKED_F32 ? 4 : packing == LORE_PACKED_BF16 ? 2 : 1;
}

/* int8 rows meet I4 weights as they are: keeping them costs half of the memory that rounding them
 * to int8 would. Weights that come in int8 stay what they are, with one scale a row, and so do the
 * rows they meet: what a finer one for rows alone would save is small beside what their makers
 * rounded away, and a decoder's speed is the bytes it reads. What is rounded here is rounded in
 * units of columns; cpu_matmul_units.c says what that buys. */
static lore_packing choose_packing(const lore_cpu_backend *backend, const lore_matrix *parts,
                                   int32_t count)
{
    const lore_precision asked = backend->base.options.precision;
    const bool may_quantise = asked == LORE_PRECISION_AUTO || asked == LORE_PRECISION_INT8;
    bool is_int8 = true;
    for (int32_t i = 0; i < count; i++) {
        is_int8 = is_int8 && parts[i].dtype == LORE_I8;
    }
    if (may_quantise && lore_cpu_int4_fits(parts, count)) {
        return LORE_PACKED_I4;
    }
    if (may_quantise && is_int8) {
        return LORE_PACKED_I8;
    }
    if (asked == LORE_PRECISION_INT8) {
        return LORE_PACKED_I8_UNITS;
    }
    const bool has_bf16 =
        backend->isa >= LORE_ISA_AVX512 && (backend->features & LORE_CPU_AVX512_BF16) != 0;
    return asked == LORE_PRECISION_BF16 || (asked == LORE_PRECISION_AUTO && has_bf16)
               ? LORE_PACKED_BF16
               : LORE_PACKED_F32;
}

/* One row of a part in the element type of the packing, at `to`; `wide` is scratch for cols
 * floats. Returns the scale that the sums of this row must be multiplied with. */
static float convert_row(lore_packing packing, const lore_matrix *part, int32_t row, void *to,
                         float *wide)
{
    const size_t cols = (size_t)part->cols;
    const bool is_int8 = part->dtype == LORE_I8;
    const int8_t *bytes = (const int8_t *)part->data + (is_int8 ? (size_t)row * cols : 0);
    if (packing == LORE_PACKED_I8) {
        LORE_ASSERT(is_int8);
        memcpy(to, bytes, cols);
        return part->scales[row];
    }
    if (packing == LORE_PACKED_BF16 && is_int8) { /* whole numbers up to 256 are exact in bf16 */
        for (size_t k = 0; k < cols; k++) {
            ((uint16_t *)to)[k] = lore_f32_to_bf16((float)bytes[k]);
        }
        return part->scales[row];
    }
    lore_matrix_read_row(part, row, wide);
    if (packing == LORE_PACKED_BF16) {
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
    const lore_packing packing = w->kernel->packing;
    const size_t element = weight_element_size(packing);
    int32_t o = 0;
    for (int32_t i = 0; i < count; i++) {
        for (int32_t r = 0; r < parts[i].rows; r++, o++) {
            w->scales[o] = convert_row(packing, &parts[i], r, row, wide);
            scatter_row(w, o, row, element);
            if (w->start != NULL) {
                w->start[o] = undo_offset((const int8_t *)row, parts[i].cols);
            }
        }
    }
}

/* Sizes of an empty packed weight. */
static void measure(lore_cpu_weight *w, const lore_matrix *parts)
{
    const lore_matmul_kernel *kernel = w->kernel;
    w->panel_count = (int32_t)(round_up(w->base.rows, kernel->panel) / kernel->panel);
    if (kernel->prepare_units == NULL) {
        w->depth = (int32_t)round_up(w->base.cols, kernel->depth_step);
        w->panel_bytes =
            (size_t)w->depth * (size_t)kernel->panel * weight_element_size(kernel->packing);
        return;
    }
    w->unit = kernel->packing == LORE_PACKED_I4 ? lore_cpu_int4_unit(&parts[0]) : LORE_INT8_UNIT;
    for (int32_t i = 0; i < w->part_count; i++) {
        w->has_zeros =
            w->has_zeros || (kernel->packing == LORE_PACKED_I4 && parts[i].zeros != NULL);
    }
    w->depth = (int32_t)round_up(w->base.cols, w->unit);
    w->panel_bytes = lore_cpu_units_panel_bytes(w);
}

/* Memory of a measured one; what was allocated is in w even on failure. */
static lore_status allocate(lore_cpu_weight *w, const int32_t *columns, bool is_table,
                            lore_error *err)
{
    const lore_matmul_kernel *kernel = w->kernel;
    size_t panels_bytes = 0;
    if (lore_size_mul((size_t)w->panel_count, w->panel_bytes, &panels_bytes)) {
        w->panels = lore_alloc_aligned(panels_bytes);
    }
    const bool has_start = kernel->few->row_kind == LORE_ROW_U8;
    const bool has_scales = w->unit == 0; /* those of units lie in the panels */
    if (has_scales) {
        w->scales = lore_alloc_zero((size_t)w->base.rows, sizeof *w->scales);
    }
    if (columns != NULL) {
        w->columns = lore_alloc((size_t)w->base.cols * sizeof *w->columns);
    }
    if (has_start) {
        w->start =
            lore_alloc_zero((size_t)w->panel_count * (size_t)kernel->panel, sizeof *w->start);
    }
    if (is_table) {
        w->parts = lore_alloc_zero((size_t)w->part_count, sizeof *w->parts);
    }
    if (w->panels == NULL || (has_scales && w->scales == NULL) || (has_start && w->start == NULL) ||
        (is_table && w->parts == NULL) || (columns != NULL && w->columns == NULL)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a weight of %d x %d",
                         (int)w->base.rows, (int)w->base.cols);
    }
    if (columns != NULL) {
        memcpy(w->columns, columns, (size_t)w->base.cols * sizeof *w->columns);
    }
    memset(w->panels, 0, panels_bytes); /* the padding must be zeros */
    w->base.size_bytes =
        panels_bytes + (size_t)w->base.rows * ((has_scales ? sizeof *w->scales : 0) +
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

/* A table that no matmul reads: nothing is packed. */
static lore_status keep_rows(lore_cpu_weight *w, const lore_matrix *parts, lore_weight **weight,
                             lore_error *err)
{
    w->parts = lore_alloc((size_t)w->part_count * sizeof *parts);
    if (w->parts == NULL) {
        lore_cpu_weight_free(&w->base);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a weight");
    }
    memcpy(w->parts, parts, (size_t)w->part_count * sizeof *parts);
    *weight = &w->base;
    return LORE_OK;
}

lore_status lore_cpu_weight_pack(lore_backend *backend, const lore_matrix *parts, int32_t count,
                                 lore_weight_use use, lore_weight **weight, lore_error *err)
{
    const lore_cpu_backend *cpu = (const lore_cpu_backend *)backend;
    const int32_t cols = parts[0].cols;
    const lore_packing packing = choose_packing(cpu, parts, count);
    if (packing == LORE_PACKED_I8 && cols > INT8_DEPTH_MAX) {
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
    if (use == LORE_USE_EMBED) {
        return keep_rows(w, parts, weight, err);
    }
    w->kernel = lore_cpu_find_kernel(cpu, packing);
    measure(w, parts);
    lore_status status =
        allocate(w, packing == LORE_PACKED_I4 ? parts[0].columns : NULL, use == LORE_USE_BOTH, err);
    float *wide = lore_alloc_zero((size_t)w->depth, sizeof *wide);
    char *row = lore_alloc_zero((size_t)w->depth, sizeof(float)); /* stays zero behind cols */
    if (status == LORE_OK && (wide == NULL || row == NULL)) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for packing a weight");
    }
    if (status == LORE_OK) {
        if (w->unit > 0) {
            lore_cpu_units_fill(w, parts, count, (uint8_t *)row, wide);
        } else {
            fill(w, parts, count, row, wide);
            drop_unit_scales(w);
        }
        if (use == LORE_USE_BOTH) {
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
    lore_free(w->columns);
    lore_free(w->parts);
    lore_free(w);
}

/* ---- the product ---- */

typedef struct product {
    lore_view out, x;
    const lore_cpu_weight *w;
    const lore_matmul_form *form;
    lore_epilogue epilogue;
    const char *rows;  /* turned, or x itself where the form takes f32 */
    float *row_scales; /* one a turned row */
    int64_t row_bytes; /* from one row to the next */
    int64_t low;       /* in units: from a row to its low plane, or 0 */
    int32_t block_rows, blocks;
    int32_t run_panels;
    lore_cpu_lora *lora; /* or NULL */
    int32_t shrinks;     /* its items, which come first */
} product;

static size_t row_element_size(lore_row_kind kind)
{
    static const size_t sizes[] = {4, 4, 2, 1, 1, 2, 1};
    return sizes[kind];
}

static void prepare_row(const product *job, int32_t row, char *to)
{
    const lore_cpu_weight *w = job->w;
    const float *x = job->x.data + row * job->x.stride;
    if (job->form->row_kind == LORE_ROW_UNITS) {
        const lore_unit_row turn = {job->x.cols, w->depth, w->unit, w->columns, job->low};
        w->kernel->prepare_units(to, x, &turn);
    } else {
        job->row_scales[row] =
            w->kernel->prepare(job->form->row_kind, to, x, job->x.cols, w->depth);
    }
}

/* Turn rows begin .. end-1 of x; whole tiles where the form reads them. */
static void prepare_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    const product *job = self;
    char *to = (char *)job->rows + begin * job->row_bytes;
    for (int32_t r = begin; r < end; r++, to += job->row_bytes) {
        prepare_row(job, r, to);
    }
    if (job->form->reads_whole_tile && end == job->x.rows) {
        const int64_t padded = round_up(end, job->form->rows_max);
        memset(to, 0, (size_t)((padded - end) * job->row_bytes));
    }
}

/* Share the lines of the panel behind this one out among the groups of the tiles that multiply this
 * one. The last share may reach beyond the panel: into the one that is next. */
static void look_ahead(lore_tile *tile, int32_t index, int32_t count, const char *next,
                       size_t panel_bytes)
{
    const int64_t total = (int64_t)panel_bytes / ALIGN_BYTES, groups = tile->groups;
    const int64_t lines = (total + count * groups - 1) / (count * groups);
    tile->ahead = next + index * lines * groups * ALIGN_BYTES;
    tile->ahead_lines = index * lines * groups < total ? (int32_t)lines : 0;
}

/* Rows first .. first+rows-1 against panels panel_begin .. panel_end-1, tile by tile. */
static void multiply_tiles(const product *job, int32_t first, int32_t rows, int32_t panel_begin,
                           int32_t panel_end)
{
    const lore_cpu_weight *w = job->w;
    const lore_matmul_form *form = job->form;
    const int32_t panel = w->kernel->panel, groups = w->depth / w->kernel->group;
    const int32_t tiles = (rows + form->rows_max - 1) / form->rows_max;
    float sums[LORE_MATMUL_ROWS_MAX * LORE_MATMUL_PANEL_MAX] __attribute__((aligned(ALIGN_BYTES)));
    if (job->lora != NULL) {
        lore_cpu_lora_fetch(job->lora, panel_begin * panel);
    }
    for (int32_t p = panel_begin; p < panel_end; p++) {
        const int32_t col = p * panel,
                      cols = job->out.cols - col < panel ? job->out.cols - col : panel;
        const char *b = (const char *)w->panels + (size_t)p * w->panel_bytes;
        lore_tile tile = {.groups = groups,
                          .unit_groups = w->unit / w->kernel->group,
                          .units_at = w->depth,
                          .low = job->low,
                          .has_zeros = w->has_zeros,
                          .zero = w->kernel->packing == LORE_PACKED_I4 ? LORE_INT4_ZERO
                                                                       : LORE_INT8_ZERO,
                          .a_stride = job->row_bytes,
                          .b = b,
                          .start = w->start != NULL ? w->start + col : NULL,
                          .sums = sums};
        lore_finish finish = {
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
        for (int32_t t = 0; t < tiles; t++) {
            /* Tiles of nearly equal height: a low one reads weights faster than it multiplies. */
            const int32_t at = form->reads_whole_tile ? t * form->rows_max : rows * t / tiles;
            const int32_t next =
                form->reads_whole_tile ? (t + 1) * form->rows_max : rows * (t + 1) / tiles;
            const int32_t row = first + at;
            finish.rows = (next < rows ? next : rows) - at;
            tile.rows = finish.rows;
            tile.a = job->rows + row * job->row_bytes;
            if (p + 1 < panel_end) {
                look_ahead(&tile, t, tiles, b + w->panel_bytes, w->panel_bytes);
            } else {
                tile.ahead_lines = 0;
            }
            form->sum(&tile);
            finish.out = job->out.data + row * job->out.stride + col;
            finish.row_scales = form->is_integer ? job->row_scales + row : NULL;
            w->kernel->finish(&finish);
        }
        if (job->lora != NULL) {
            lore_cpu_lora_expand(job->lora, first, rows, col, col + cols);
        }
    }
}

/* Items are numbered (run of panels, block of rows): the blocks follow one another on one run. */
static void multiply_item(const product *job, int32_t item)
{
    const int32_t first = item % job->blocks * job->block_rows, left = job->x.rows - first;
    const int32_t rows = left < job->block_rows ? left : job->block_rows;
    const int32_t panel = item / job->blocks * job->run_panels;
    const int32_t panels = job->w->panel_count - panel;
    const int32_t next = panel + (panels < job->run_panels ? panels : job->run_panels);
    multiply_tiles(job, first, rows, panel, next);
}

static void multiply_items(void *self, int32_t begin, int32_t end, int32_t worker)
{
    const product *job = self;
    if (job->form->begin != NULL) {
        job->form->begin();
    }
    for (int32_t item = begin; item < end; item++) {
        if (item < job->shrinks) {
            lore_cpu_lora_shrink(job->lora, item, worker);
        } else {
            multiply_item(job, item - job->shrinks);
        }
    }
    if (job->form->end != NULL) {
        job->form->end();
    }
}

/* Blocks of equal size, whole tiles, as few as the cache allows. */
static void plan_blocks(product *job)
{
    const int64_t tile = job->form->rows_max, rows = job->x.rows;
    const int64_t most = BLOCK_BYTES / job->row_bytes / tile * tile;
    job->blocks = (int32_t)(most < tile ? (rows + tile - 1) / tile : (rows + most - 1) / most);
    job->block_rows = (int32_t)round_up((rows + job->blocks - 1) / job->blocks, tile);
    job->blocks = (int32_t)((rows + job->block_rows - 1) / job->block_rows);
}

static int64_t at_least(int64_t value, int64_t least)
{
    return value > least ? value : least;
}

/* How many panels make one item: enough to be worth a trip, few enough for every thread to get one
 * and to let others in. Returns the number of runs. */
static int32_t plan_runs(product *job, int32_t threads)
{
    const lore_matmul_kernel *kernel = job->w->kernel;
    const int64_t panels = job->w->panel_count, bytes = (int64_t)job->w->panel_bytes;
    const int64_t work = bytes * (1 + job->x.rows / 8);
    const int64_t worth = (ITEM_BYTES_MIN + work - 1) / work;
    const int64_t even = (panels + threads - 1) / threads;
    const int64_t unit =
        (int64_t)kernel->panel * (kernel->group < PRODUCT_GROUP ? kernel->group : PRODUCT_GROUP);
    const int64_t products = (int64_t)job->block_rows * job->w->depth * kernel->panel;
    int64_t most = at_least(ITEM_PRODUCTS * unit / products, 1);
    most = most < ITEM_BYTES_MAX / bytes ? most : at_least(ITEM_BYTES_MAX / bytes, 1);
    int64_t run = at_least(worth, even);
    run = run < most ? run : most;
    /* As many runs for each thread, where there are enough panels. */
    const int64_t runs = round_up((panels + run - 1) / run, threads);
    job->run_panels = (int32_t)((panels + runs - 1) / runs);
    return (int32_t)((panels + job->run_panels - 1) / job->run_panels);
}

/* Turn the rows: in the pool where they are many. False: no memory, noted in the queue. So many
 * bytes of scratch are left for others. */
static bool prepare(lore_queue *queue, product *job, int32_t threads, size_t others, char **scratch)
{
    const lore_matmul_form *form = job->form;
    if (form->row_kind == LORE_ROW_F32) {
        job->rows = (const char *)job->x.data;
        job->row_bytes = job->x.stride * (int64_t)sizeof(float);
        *scratch = others > 0 ? lore_host_scratch(queue, others) : NULL;
        return others == 0 || *scratch != NULL;
    }
    const int32_t rows = job->x.rows;
    const int64_t units = job->w->unit > 0 ? job->w->depth / job->w->unit : 0;
    const int64_t plane = (int64_t)job->w->depth * (int64_t)row_element_size(form->row_kind) +
                          units * (int64_t)sizeof(lore_unit);
    job->low = job->w->kernel->packing == LORE_PACKED_I8_UNITS ? plane : 0;
    job->row_bytes = round_up(plane + job->low, ALIGN_BYTES);
    const int64_t padded = round_up(rows, form->rows_max);
    const size_t rows_bytes = (size_t)(padded * job->row_bytes);
    char *memory = lore_host_scratch(queue, others + rows_bytes + (size_t)padded * sizeof(float));
    if (memory == NULL) {
        return false;
    }
    *scratch = memory;
    memory += others;
    job->rows = memory;
    job->row_scales = (float *)(void *)(memory + rows_bytes);
    const bool is_big = (int64_t)rows * job->x.cols >= PREPARE_ELEMENTS_MIN;
    lore_host_for(queue, rows, is_big ? rows / (4 * threads) + 1 : rows, prepare_rows, job);
    return true;
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
    const int32_t threads = lore_host_threads(queue);
    product job = {.out = out,
                   .x = x,
                   .w = weight,
                   .form = x.rows <= kernel->few_max ? kernel->few : kernel->many,
                   .epilogue = epilogue};
    const lore_lora *lora = epilogue.lora;
    char *scratch = NULL;
    if (!prepare(queue, &job, threads, lora != NULL ? lore_cpu_lora_scratch(queue, lora, w) : 0,
                 &scratch)) {
        return;
    }
    if (lora != NULL) {
        job.lora = lore_cpu_lora_begin(queue, lora, w, out, x, scratch, &job.shrinks);
    }
    plan_blocks(&job);
    const int32_t items = plan_runs(&job, threads) * job.blocks;
    lore_host_for(queue, job.shrinks + items, 1, multiply_items, &job);
}
