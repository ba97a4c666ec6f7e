/* What adapters add to a step: the products of some layers, as models/decoder.c calls them, are
 * recorded with adapters and without, and the replays timed in turn. The difference is what all
 * launches of adapters cost in their places, waits and caches included; of 32 layers it is what a
 * step pays. The floor is that of the adapters' bytes, each read once.
 *
 * Layers share their weights, which are more than any cache holds, but have adapters of their own.
 * All values are random. */
#include "bench/bench_ops_lora.h"

#include "base/clock.h"
#include "base/mem.h"
#include "bench/bench_peak.h"
#include "bench/bench_report.h"
#include "kernels/lora.h"

#include <string.h>

enum {
    ROWS = 32,
    ADAPTERS = 32,
    LAYERS = 4,
    STEP_LAYERS = 32, /* of the model */
    KINDS = 4,
    DEPTH = 4096,
    FFN = 14336,
    QKV = 6144,
    REPLAYS = 20,
    SAMPLES = 25,
    BLOCKS = 16
};

/* Columns of the parts of a product. */
static const struct {
    int32_t depth, parts, columns[LORE_LORA_PARTS_MAX];
} PRODUCTS[KINDS] = {
    {DEPTH, 3, {4096, 1024, 1024}}, {DEPTH, 1, {4096}}, {DEPTH, 2, {FFN, FFN}}, {FFN, 1, {4096}}};

typedef struct lora_mix {
    const char *name;
    int32_t adapters; /* rows take turns */
    int32_t ranks[3]; /* adapters take turns */
    bool is_q_and_v;  /* alone */
} lora_mix;

static const lora_mix MIXES[] = {{"32 adapters of rank 16", ADAPTERS, {16, 16, 16}, false},
                                 {"32 adapters of ranks 8, 16, 64", ADAPTERS, {8, 16, 64}, false},
                                 {"one adapter of rank 16", 1, {16, 16, 16}, false},
                                 {"32 adapters of rank 16, q and v", ADAPTERS, {16, 16, 16}, true}};

typedef struct lora_bench {
    lore_backend *backend;
    lore_queue *queue;
    const lore_bench_ops_device_options *options;
    lore_weight *weights[KINDS];
    void *blocks[BLOCKS];
    int32_t block_count;
    lore_view x, normed, qkv, mixed, gate_up, hidden;
    float *norm;
    lore_lora_rows rows;
    int32_t rank_max[KINDS];
    double adapter_bytes; /* that a layer reads */
} lora_bench;

static lore_status take(lora_bench *b, size_t bytes, void **memory, lore_error *err)
{
    enum { SLAB = 1 << 22 };
    LORE_ASSERT(b->block_count < BLOCKS);
    lore_status status = lore_backend_alloc(b->backend, bytes, memory, err);
    if (status != LORE_OK) {
        return status;
    }
    b->blocks[b->block_count++] = *memory;
    uint64_t *slab = lore_alloc(SLAB);
    if (slab == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a benchmark");
    }
    lore_bench_draw(slab, SLAB / sizeof *slab);
    for (size_t at = 0; at < bytes; at += SLAB) {
        lore_queue_upload(b->queue, (char *)*memory + at, slab,
                          bytes - at < SLAB ? bytes - at : (size_t)SLAB);
    }
    status = lore_queue_sync(b->queue, err);
    lore_free(slab);
    return status;
}

static lore_status take_view(lora_bench *b, lore_dtype dtype, int32_t cols, lore_view *view,
                             lore_error *err)
{
    void *memory = NULL;
    const size_t bytes = (size_t)ROWS * (size_t)cols * lore_dtype_size(dtype);
    const lore_status status = take(b, bytes, &memory, err);
    *view = lore_view_as(dtype, memory, ROWS, cols);
    return status;
}

static lore_status take_products(lora_bench *b, lore_error *err)
{
    const lore_dtype dtype = lore_backend_activation_dtype(b->backend);
    const struct {
        lore_view *view;
        lore_dtype dtype;
        int32_t cols;
    } VIEWS[] = {{&b->x, LORE_F32, DEPTH},      {&b->normed, dtype, DEPTH},
                 {&b->qkv, dtype, QKV},         {&b->mixed, dtype, DEPTH},
                 {&b->gate_up, dtype, 2 * FFN}, {&b->hidden, dtype, FFN}};
    void *norm = NULL;
    lore_status status = take(b, DEPTH * sizeof *b->norm, &norm, err);
    b->norm = norm;
    for (size_t i = 0; i < sizeof VIEWS / sizeof VIEWS[0] && status == LORE_OK; i++) {
        status = take_view(b, VIEWS[i].dtype, VIEWS[i].cols, VIEWS[i].view, err);
    }
    const size_t words = (size_t)2 * FFN * DEPTH / 4;
    uint64_t *numbers = lore_alloc_aligned(words * sizeof *numbers);
    if (numbers == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a benchmark");
    }
    lore_bench_draw(numbers, words);
    for (int32_t i = 0; i < KINDS && status == LORE_OK; i++) {
        lore_matrix matrix = {.dtype = LORE_BF16, .cols = PRODUCTS[i].depth, .data = numbers};
        for (int32_t k = 0; k < PRODUCTS[i].parts; k++) {
            matrix.rows += PRODUCTS[i].columns[k];
        }
        status = lore_weight_pack(b->backend, &matrix, 1, LORE_USE_MATMUL, &b->weights[i], err);
    }
    lore_free_aligned(numbers);
    return status;
}

/* ---- adapters ---- */

/* One product of an adapter, its matrices at `*used` of `block`. */
static lore_lora_product lay_out(const lora_mix *mix, int32_t adapter, int32_t kind,
                                 const char *block, size_t *used)
{
    const int32_t rank = mix->ranks[adapter % 3];
    lore_lora_product product = {0};
    product.a = block != NULL ? block + *used : NULL;
    for (int32_t k = 0, column = 0; k < PRODUCTS[kind].parts;
         column += PRODUCTS[kind].columns[k++]) {
        if (!mix->is_q_and_v || (kind == 0 && k != 1)) {
            product.parts[product.part_count++] =
                (lore_lora_part){.rank = rank,
                                 .rank_start = product.rank,
                                 .columns = PRODUCTS[kind].columns[k],
                                 .column_start = column,
                                 .scale = 0.01f};
            product.rank += rank;
        }
    }
    *used += (size_t)product.rank * (size_t)PRODUCTS[kind].depth * sizeof(uint16_t);
    for (int32_t k = 0; k < product.part_count; k++) {
        product.parts[k].b = block != NULL ? block + *used : NULL;
        *used += (size_t)rank * (size_t)product.parts[k].columns * sizeof(uint16_t);
    }
    return product;
}

static size_t fill_table(lora_bench *b, const lora_mix *mix, const char *block,
                         lore_lora_product *table)
{
    size_t used = 0;
    for (int32_t i = 0; i < ADAPTERS * LAYERS * KINDS; i++) {
        const int32_t kind = i % KINDS;
        const lore_lora_product product = lay_out(mix, i / (LAYERS * KINDS), kind, block, &used);
        if (i / (LAYERS * KINDS) < mix->adapters && product.rank > b->rank_max[kind]) {
            b->rank_max[kind] = product.rank;
        }
        if (table != NULL) {
            table[i] = product;
        }
        if (i + 1 == mix->adapters * LAYERS * KINDS) {
            b->adapter_bytes = (double)used / LAYERS;
        }
    }
    return used;
}

/* The adapters of a mix, and who has which: row r has adapter r of as many as there are. */
static lore_status take_adapters(lora_bench *b, const lora_mix *mix, lore_error *err)
{
    int32_t order[ROWS], starts[ADAPTERS + 1];
    const void *adapters[ADAPTERS] = {NULL};
    void *to[5] = {NULL};
    const size_t table_bytes = sizeof(lore_lora_product) * ADAPTERS * LAYERS * KINDS;
    lore_lora_product *table = lore_alloc(table_bytes);
    if (table == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a benchmark");
    }
    memset(b->rank_max, 0, sizeof b->rank_max);
    const size_t sizes[] = {fill_table(b, mix, NULL, NULL), table_bytes, sizeof order,
                            sizeof starts, sizeof adapters};
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < 5 && status == LORE_OK; i++) {
        status = take(b, sizes[i], &to[i], err);
    }
    if (status == LORE_OK) {
        (void)fill_table(b, mix, to[0], table);
        for (int32_t i = 0; i <= ADAPTERS; i++) {
            starts[i] = i < mix->adapters ? i * (ROWS / mix->adapters) : ROWS;
        }
        for (int32_t i = 0; i < ROWS; i++) {
            order[i] = mix->adapters > 1 ? ROWS - 1 - i : i; /* rows of a segment ascend */
        }
        for (int32_t i = 0; i < mix->adapters; i++) {
            adapters[i] = (const lore_lora_product *)to[1] + (size_t)i * LAYERS * KINDS;
        }
        lore_queue_upload(b->queue, to[1], table, table_bytes);
        lore_queue_upload(b->queue, to[2], order, sizeof order);
        lore_queue_upload(b->queue, to[3], starts, sizeof starts);
        lore_queue_upload(b->queue, to[4], adapters, sizeof adapters);
        b->rows = (lore_lora_rows){ADAPTERS, to[2], to[3], to[4]};
        status = lore_queue_sync(b->queue, err);
    }
    lore_free(table);
    return status;
}

/* ---- timing ---- */

static void run_layers(lora_bench *b, bool has_adapters)
{
    const lore_dtype dtype = lore_backend_lora_dtype(b->backend);
    for (int32_t layer = 0; layer < LAYERS; layer++) {
        lore_lora lora[KINDS];
        lore_epilogue epilogues[KINDS] = {{.activation = LORE_ACT_NONE},
                                          {.is_accumulating = true},
                                          {.activation = LORE_ACT_SILU},
                                          {.is_accumulating = true}};
        for (int32_t i = 0; i < KINDS; i++) {
            lora[i] = (lore_lora){b->rows, layer * KINDS + i, b->rank_max[i], dtype};
            epilogues[i].lora = has_adapters && b->rank_max[i] > 0 ? &lora[i] : NULL;
        }
        lore_fusion fusion = {b->norm, 1e-5f, b->normed, false, b->gate_up};
        lore_op_matmul_fused(b->queue, b->qkv, b->x, b->weights[0], epilogues[0], &fusion);
        lore_op_matmul(b->queue, b->x, b->mixed, b->weights[1], epilogues[1]);
        fusion.is_gated = true;
        lore_op_matmul_fused(b->queue, b->hidden, b->x, b->weights[2], epilogues[2], &fusion);
        lore_op_matmul(b->queue, b->x, b->hidden, b->weights[3], epilogues[3]);
    }
}

static lore_status record(lora_bench *b, bool has_adapters, lore_recording **made, lore_error *err)
{
    lore_queue_begin(b->queue, LORE_PRIORITY_NORMAL);
    run_layers(b, has_adapters); /* scratch, plans */
    lore_status status = lore_queue_sync(b->queue, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_queue_record_begin(b->queue);
    run_layers(b, has_adapters);
    return lore_queue_record_end(b->queue, made, err);
}

/* Seconds of a layer, without and with, in turn. */
static lore_status time_both(lora_bench *b, lore_recording *const recordings[2], double medians[2],
                             lore_error *err)
{
    lore_bench_samples times[2] = {{0}, {0}};
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < 2 * (SAMPLES + 1) && status == LORE_OK; i++) {
        const int64_t begin = lore_clock_ns();
        lore_queue_begin(b->queue, LORE_PRIORITY_NORMAL);
        for (int32_t k = 0; k < REPLAYS; k++) {
            lore_queue_replay(b->queue, recordings[i % 2]);
        }
        status = lore_queue_sync(b->queue, err);
        if (i > 1) { /* the first of each warms up */
            lore_bench_sample(&times[i % 2],
                              (double)(lore_clock_ns() - begin) * 1e-9 / (REPLAYS * LAYERS));
        }
    }
    for (int32_t i = 0; i < 2; i++) {
        if (status == LORE_OK) {
            status = lore_bench_samples_check(&times[i], "adapters", err);
        }
        if (status == LORE_OK) {
            medians[i] = lore_bench_percentile(&times[i], 50.0);
        }
        lore_bench_samples_destroy(&times[i]);
    }
    return status;
}

static void print_mix(const lora_bench *b, const lora_mix *mix, const double medians[2])
{
    const lore_bench_ops_device_options *o = b->options;
    const double added = medians[1] - medians[0], floor = b->adapter_bytes / o->read_rate;
    const double scale = STEP_LAYERS * 1e3; /* to ms of a step */
    if (o->is_json) {
        fprintf(o->out,
                "{\"case\":\"adapters, %s\",\"base_ms\":%.4f,\"with_ms\":%.4f,\"added_ms\":%.4f,"
                "\"floor_ms\":%.4f,\"ratio\":%.3f}\n",
                mix->name, medians[0] * scale, medians[1] * scale, added * scale, floor * scale,
                added / floor);
    } else {
        fprintf(o->out, "  adapters, %-34s %9.3f ms beside %.3f ms of products  %.2fx\n", mix->name,
                added * scale, medians[0] * scale, added / floor);
    }
    fflush(o->out);
}

static lore_status bench_mix(lora_bench *b, const lora_mix *mix, lore_error *err)
{
    lore_recording *recordings[2] = {NULL, NULL};
    double medians[2] = {0.0, 0.0};
    const int32_t before = b->block_count;
    lore_status status = take_adapters(b, mix, err);
    for (int32_t i = 0; i < 2 && status == LORE_OK; i++) {
        status = record(b, i == 1, &recordings[i], err);
    }
    if (status == LORE_OK) {
        status = time_both(b, recordings, medians, err);
    }
    if (status == LORE_OK) {
        print_mix(b, mix, medians);
    }
    lore_recording_free(recordings[0]);
    lore_recording_free(recordings[1]);
    while (b->block_count > before) {
        lore_backend_free(b->backend, b->blocks[--b->block_count]);
    }
    return status;
}

lore_status lore_bench_ops_lora(lore_backend *backend, lore_queue *queue,
                                const lore_bench_ops_device_options *options, lore_error *err)
{
    lora_bench b = {.backend = backend, .queue = queue, .options = options};
    const bool is_wanted = options->only == NULL || strstr("adapters", options->only) != NULL;
    if (!is_wanted || !lore_backend_can_record(backend) ||
        lore_backend_lora_dtype(backend) != LORE_BF16) {
        return LORE_OK;
    }
    lore_status status = take_products(&b, err);
    for (size_t i = 0; i < sizeof MIXES / sizeof MIXES[0] && status == LORE_OK; i++) {
        status = bench_mix(&b, &MIXES[i], err);
    }
    for (int32_t i = 0; i < b.block_count; i++) {
        lore_backend_free(backend, b.blocks[i]);
    }
    for (int32_t i = 0; i < KINDS; i++) {
        lore_weight_free(b.weights[i]);
    }
    return status == LORE_OK ? status : lore_error_prefix(err, "adapters");
}
