/* The op benchmark of a device: shapes of a 7B Mistral and a 1B Llama, many ops back to back and
 * one wait for all of them. They are called as models/decoder.c calls them: what passes between two
 * is in the backend's dtype, and a product with a norm before it or a gate behind it is one op.
 *
 * A launch costs the host microseconds and a wait tens of them, so a single op cannot be timed; a
 * run here is as many as take some milliseconds. Weights of one shape rotate through more than the
 * device's cache holds, as the layers of a model do, and so do scattered pages of keys and values.
 * Times are medians over runs, of one op. Floors are those of bench_report.h: the larger of bytes
 * over the read bandwidth and operations over the product rate. Everything is random. */
#include "bench/bench_ops_device.h"

#include "base/clock.h"
#include "base/mem.h"
#include "bench/bench_ops_lora.h"
#include "bench/bench_peak.h"
#include "bench/bench_report.h"

#include <math.h>
#include <string.h>

enum {
    CASE_MS = 200,
    RUN_NS = 5000000, /* one run of ops takes about so long */
    RUNS_MIN = 5,
    OPS_MAX = 2000,
    ROTATED_MIB = 160, /* of weights of one shape */
    WEIGHTS_MAX = 64,
    BLOCKS_MAX = 16,
    ROWS_MAX = 4096,
    WIDE = 28672,
    FLOATS = 2048 * WIDE, /* of the largest input or output */
    PAGE_TOKENS = 32,
    PAGES = 2240, /* 71,680 tokens: 147 MB of keys and as much of values */
    KV_HEADS = 8,
    HEAD = 128,
    SEQUENCES_MAX = 128,
    VOCABULARY = 128256,
    SAMPLED_MAX = 64
};

typedef struct device_bench {
    const lore_bench_ops_device_options *options;
    lore_backend *backend;
    lore_queue *queue;
    lore_weight *weights[WEIGHTS_MAX];
    void *blocks[BLOCKS_MAX]; /* all that was allocated */
    int32_t weight_count, block_count, turn;
    lore_dtype dtype; /* of what passes between ops */
    float *x, *y;     /* [FLOATS] of the backend, as all below */
    void *keys, *values;
    float *norm; /* [WIDE] */
    int32_t *pages, *row_start, *past, *page_start, *ids;
    float *logprobs, *cosine;
    lore_sample *samples;
} device_bench;

/* ---- memory ---- */

/* *memory_out: so many bytes of them. */
static lore_status take_random(device_bench *d, size_t bytes, void *memory_out, lore_error *err)
{
    enum { SLAB = 1 << 22 };
    void *memory = NULL;
    lore_status status = lore_backend_alloc(d->backend, bytes, &memory, err);
    if (status != LORE_OK) {
        return status;
    }
    LORE_ASSERT(d->block_count < BLOCKS_MAX);
    d->blocks[d->block_count++] = memory;
    memcpy(memory_out, &memory, sizeof memory);
    uint64_t *slab = lore_alloc(SLAB);
    if (slab == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a benchmark");
    }
    lore_bench_draw(slab, SLAB / sizeof *slab);
    for (size_t at = 0; at < bytes; at += SLAB) {
        lore_queue_upload(d->queue, (char *)memory + at, slab,
                          bytes - at < SLAB ? bytes - at : (size_t)SLAB);
    }
    status = lore_queue_sync(d->queue, err);
    lore_free(slab);
    return status;
}

static lore_status take_all(device_bench *d, lore_error *err)
{
    const size_t cache = (size_t)PAGES * PAGE_TOKENS * KV_HEADS * HEAD * sizeof(uint16_t);
    const struct {
        void *to;
        size_t bytes;
    } BLOCKS[] = {{&d->x, (size_t)FLOATS * sizeof(float)},
                  {&d->y, (size_t)FLOATS * sizeof(float)},
                  {&d->keys, cache},
                  {&d->values, cache},
                  {&d->norm, WIDE * sizeof(float)},
                  {&d->cosine, (size_t)ROWS_MAX * HEAD / 2 * sizeof(float)},
                  {&d->pages, PAGES * sizeof(int32_t)},
                  {&d->row_start, (SEQUENCES_MAX + 1) * sizeof(int32_t)},
                  {&d->past, SEQUENCES_MAX * sizeof(int32_t)},
                  {&d->page_start, (SEQUENCES_MAX + 1) * sizeof(int32_t)},
                  {&d->ids, ROWS_MAX * sizeof(int32_t)},
                  {&d->logprobs, ROWS_MAX * sizeof(float)},
                  {&d->samples, SAMPLED_MAX * sizeof(lore_sample)}};
    lore_status status = LORE_OK;
    for (size_t i = 0; i < sizeof BLOCKS / sizeof BLOCKS[0] && status == LORE_OK; i++) {
        status = take_random(d, BLOCKS[i].bytes, BLOCKS[i].to, err);
    }
    return status;
}

static void free_all(device_bench *d)
{
    for (int32_t i = 0; i < d->block_count; i++) {
        lore_backend_free(d->backend, d->blocks[i]);
    }
}

static lore_view passed(const device_bench *d, float *data, int32_t rows, int32_t cols)
{
    return lore_view_as(d->dtype, data, rows, cols);
}

static lore_pages pages_like(const device_bench *d, int32_t kv_heads, int32_t dim)
{
    return (lore_pages){.keys = d->keys,
                        .values = d->values,
                        .dtype = LORE_BF16,
                        .page_count = PAGES,
                        .page_tokens = PAGE_TOKENS,
                        .kv_heads = kv_heads,
                        .head_dim = dim};
}

/* ---- timing ---- */

typedef struct device_case {
    char name[64];
    void (*run)(device_bench *d, const void *self);
    const void *self;
    double operations, bytes; /* of one op; 0: not meaningful */
} device_case;

static lore_status run_ops(device_bench *d, const device_case *one, int32_t count, double *seconds,
                           lore_error *err)
{
    const int64_t begin = lore_clock_ns();
    lore_queue_begin(d->queue, LORE_PRIORITY_NORMAL);
    for (int32_t i = 0; i < count; i++) {
        one->run(d, one->self);
    }
    const lore_status status = lore_queue_sync(d->queue, err);
    *seconds = (double)(lore_clock_ns() - begin) * 1e-9;
    return status;
}

static void print_case(const device_bench *d, const device_case *one,
                       const lore_bench_samples *times)
{
    const lore_bench_ops_device_options *o = d->options;
    const double median = lore_bench_percentile(times, 50.0);
    const double low = lore_bench_percentile(times, 10.0),
                 high = lore_bench_percentile(times, 90.0);
    const double floor = fmax(one->bytes / o->read_rate,
                              o->multiply_rate > 0.0 ? one->operations / o->multiply_rate : 0.0);
    if (o->is_json) {
        fprintf(o->out,
                "{\"case\":\"%s\",\"runs\":%d,\"median_us\":%.2f,\"p10_us\":%.2f,\"p90_us\":%.2f,"
                "\"gops\":%.1f,\"gb_per_s\":%.2f,\"floor_us\":%.2f,\"ratio\":%.3f}\n",
                one->name, (int)times->count, median * 1e6, low * 1e6, high * 1e6,
                one->operations / median * 1e-9, one->bytes / median * 1e-9, floor * 1e6,
                floor > 0.0 ? median / floor : 0.0);
    } else {
        fprintf(o->out, "  %-44s %9.2f us (%.2f to %.2f)", one->name, median * 1e6, low * 1e6,
                high * 1e6);
        if (one->operations > 0.0) {
            fprintf(o->out, " %7.1f TOP/s", one->operations / median * 1e-12);
        }
        if (one->bytes > 0.0) {
            fprintf(o->out, " %7.1f GB/s", one->bytes / median * 1e-9);
        }
        fprintf(o->out, "  %.2fx\n", floor > 0.0 ? median / floor : 0.0);
    }
    fflush(o->out);
}

static bool is_wanted(const device_bench *d, const char *name)
{
    return d->options->only == NULL || strstr(name, d->options->only) != NULL;
}

static lore_status time_case(device_bench *d, const device_case *one, lore_error *err)
{
    lore_bench_samples times = {0};
    double seconds = 0.0;
    const int64_t budget_ns =
        (d->options->case_ms > 0 ? d->options->case_ms : CASE_MS) * INT64_C(1000000);
    if (!is_wanted(d, one->name)) {
        return LORE_OK;
    }
    lore_status status = run_ops(d, one, 3, &seconds, err); /* scratch, plans */
    if (status == LORE_OK) {
        status = run_ops(d, one, 3, &seconds, err);
    }
    const double wanted = RUN_NS * 1e-9 / (seconds / 3.0 + 1e-9);
    const int32_t count = wanted < 1.0 ? 1 : wanted > OPS_MAX ? (int32_t)OPS_MAX : (int32_t)wanted;
    const int64_t end_ns = lore_clock_ns() + budget_ns;
    while (status == LORE_OK && (times.count < RUNS_MIN || lore_clock_ns() < end_ns)) {
        status = run_ops(d, one, count, &seconds, err);
        lore_bench_sample(&times, seconds / count);
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&times, one->name, err);
    }
    if (status == LORE_OK) {
        print_case(d, one, &times);
    } else {
        status = lore_error_prefix(err, one->name);
    }
    lore_bench_samples_destroy(&times);
    return status;
}

/* ---- matmul ---- */

typedef enum product_kind { NORMED, GATED, ADDED, LOGITS } product_kind;

typedef struct product_shape {
    const char *name;
    product_kind kind;
    int32_t depth, outs;
} product_shape;

static const product_shape product_shapes[] = {
    {"7B qkv", NORMED, 4096, 6144},     {"7B out", ADDED, 4096, 4096},
    {"7B gate_up", GATED, 4096, 28672}, {"7B down", ADDED, 14336, 4096},
    {"7B head", LOGITS, 4096, 32768},   {"1B qkv", NORMED, 2048, 3072},
    {"1B out", ADDED, 2048, 2048},      {"1B gate_up", GATED, 2048, 16384},
    {"1B down", ADDED, 8192, 2048},     {"1B head", LOGITS, 2048, 128256},
};
static const int32_t product_rows[] = {1, 8, 16, 32, 128, 2048};

typedef struct product_work {
    const product_shape *shape;
    int32_t rows;
} product_work;

static void run_product(device_bench *d, const void *self)
{
    const product_work *work = self;
    const product_shape *shape = work->shape;
    const int32_t rows = work->rows, outs = shape->outs;
    const lore_weight *weight = d->weights[d->turn++ % d->weight_count];
    if (shape->kind == ADDED) {
        lore_op_matmul(d->queue, lore_view_of(d->y, rows, outs),
                       passed(d, d->x, rows, shape->depth), weight,
                       (lore_epilogue){.is_accumulating = true});
        return;
    }
    /* x takes less than a quarter of its memory: normed rows lie in the second one, gates behind.
     */
    const bool is_gated = shape->kind == GATED;
    const lore_view sums =
        shape->kind == LOGITS ? lore_view_of(d->y, rows, outs) : passed(d, d->y, rows, outs);
    const lore_fusion fusion = {.norm = d->norm,
                                .eps = 1e-6f,
                                .normed = passed(d, d->x + FLOATS / 4, rows, shape->depth),
                                .is_gated = is_gated,
                                .gate_up = sums};
    lore_op_matmul_fused(d->queue, is_gated ? passed(d, d->x + FLOATS / 2, rows, outs / 2) : sums,
                         lore_view_of(d->x, rows, shape->depth), weight,
                         (lore_epilogue){.activation = is_gated ? LORE_ACT_SILU : LORE_ACT_NONE},
                         &fusion);
}

/* Enough weights of a shape that the cache holds none when its turn comes again. All have the same
 * values: they lie at different places. */
static lore_status pack_weights(device_bench *d, const product_shape *shape, lore_error *err)
{
    const size_t words = (size_t)shape->depth * (size_t)shape->outs / 4;
    uint64_t *numbers = lore_alloc_aligned(words * sizeof *numbers);
    if (numbers == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a benchmark");
    }
    lore_bench_draw(numbers, words);
    const size_t wanted = 1 + (size_t)ROTATED_MIB / ((words * sizeof *numbers >> 20) + 1);
    const lore_matrix matrix = {
        .dtype = LORE_BF16, .rows = shape->outs, .cols = shape->depth, .data = numbers};
    lore_status status = LORE_OK;
    while (status == LORE_OK && d->weight_count < WEIGHTS_MAX && (size_t)d->weight_count < wanted) {
        status = lore_weight_pack(d->backend, &matrix, 1, LORE_USE_MATMUL,
                                  &d->weights[d->weight_count], err);
        d->weight_count += status == LORE_OK;
    }
    lore_free_aligned(numbers);
    return status;
}

static void free_weights(device_bench *d)
{
    for (int32_t i = 0; i < d->weight_count; i++) {
        lore_weight_free(d->weights[i]);
    }
    d->weight_count = 0;
}

/* A shape of so many rows; its weights are packed for the first one that is wanted. */
static lore_status bench_product(device_bench *d, const product_work *work, lore_error *err)
{
    const product_shape *shape = work->shape;
    device_case one = {.run = run_product,
                       .self = work,
                       .operations = 2.0 * work->rows * (double)shape->depth * shape->outs};
    snprintf(one.name, sizeof one.name, "%s %dx%dx%d", shape->name, work->rows, shape->depth,
             shape->outs);
    if (!is_wanted(d, one.name) || (int64_t)work->rows * shape->outs > FLOATS) {
        return LORE_OK; /* no model computes logits of so many rows */
    }
    lore_status status = d->weight_count == 0 ? pack_weights(d, shape, err) : LORE_OK;
    if (status == LORE_OK) {
        one.bytes = (double)lore_weight_bytes(d->weights[0]);
        status = time_case(d, &one, err);
    }
    return status;
}

static lore_status bench_products(device_bench *d, lore_error *err)
{
    lore_status status = LORE_OK;
    for (size_t i = 0; i < sizeof product_shapes / sizeof product_shapes[0]; i++) {
        for (size_t r = 0; r < sizeof product_rows / sizeof product_rows[0]; r++) {
            const product_work work = {&product_shapes[i], product_rows[r]};
            status = status == LORE_OK ? bench_product(d, &work, err) : status;
        }
        free_weights(d);
    }
    return status;
}

/* ---- attention ---- */

typedef struct attention_work {
    const char *name;
    int32_t heads, kv_heads, dim, sequences, rows, past;
    lore_batch batch; /* set before the run */
} attention_work;

static const attention_work attention_shapes[] = {
    {"attention decode 1 at 512, 32:8x128", 32, 8, 128, 1, 1, 512, {0}},
    {"attention decode 1 at 2048, 32:8x128", 32, 8, 128, 1, 1, 2048, {0}},
    {"attention decode 8 at 512, 32:8x128", 32, 8, 128, 8, 1, 512, {0}},
    {"attention decode 32 at 2048, 32:8x128", 32, 8, 128, 32, 1, 2048, {0}},
    {"attention decode 128 at 512, 32:8x128", 32, 8, 128, 128, 1, 512, {0}},
    {"attention decode 1 at 512, 32:8x64", 32, 8, 64, 1, 1, 512, {0}},
    {"attention prefill 512, 32:8x128", 32, 8, 128, 1, 512, 0, {0}},
    {"attention prefill 2048, 32:8x128", 32, 8, 128, 1, 2048, 0, {0}},
    {"attention prefill 4096, 32:8x128", 32, 8, 128, 1, 4096, 0, {0}},
    {"attention prefill 4096, 32:8x64", 32, 8, 64, 1, 4096, 0, {0}},
    {"attention prefill 512 behind 2048, 32:8x128", 32, 8, 128, 1, 512, 2048, {0}},
    {"attention packed 64x128, 12:12x32", 12, 12, 32, 64, 128, -1, {0}},
};

static int32_t pages_of(const attention_work *work)
{
    return (work->past + work->rows + PAGE_TOKENS - 1) / PAGE_TOKENS;
}

static void run_attention(device_bench *d, const void *self)
{
    const attention_work *work = self;
    const int32_t cols = work->heads * work->dim, wide = cols + 2 * work->kv_heads * work->dim;
    const int32_t rows = work->sequences * work->rows;
    const lore_attention attention = {.scale = 0.01f};
    const lore_view out = passed(d, d->y, rows, cols);
    if (work->past < 0) {
        lore_op_attend_packed(d->queue, out, passed(d, d->x, rows, wide), work->heads,
                              work->kv_heads, work->sequences, d->row_start, work->rows, false,
                              &attention);
        return;
    }
    const lore_pages pages = pages_like(d, work->kv_heads, work->dim);
    const lore_view queries = lore_view_columns(passed(d, d->x, rows, wide), 0, cols); /* of qkv */
    const int32_t used = work->sequences * pages_of(work);
    lore_batch batch = work->batch; /* other pages each time, as each layer has its own */
    batch.pages += (int64_t)d->turn++ * used % (PAGES - used + 1);
    lore_op_attend_paged(d->queue, out, queries, &pages, &batch, &attention);
}

/* Pages of a sequence lie scattered: 1021 is prime, so each page comes once. */
static lore_status set_batch(device_bench *d, attention_work *work, lore_error *err)
{
    int32_t starts[SEQUENCES_MAX + 1] = {0}, past[SEQUENCES_MAX] = {0};
    int32_t page_start[SEQUENCES_MAX + 1] = {0};
    int32_t pages[PAGES];
    const int32_t each = pages_of(work);
    LORE_ASSERT(work->sequences * each <= PAGES && work->sequences <= SEQUENCES_MAX);
    for (int32_t i = 0; i < PAGES; i++) {
        pages[i] = (i * 1021) % PAGES;
    }
    for (int32_t s = 0; s <= work->sequences; s++) {
        starts[s] = s * work->rows;
        page_start[s] = s * each;
        if (s < work->sequences) {
            past[s] = work->past;
        }
    }
    lore_queue_upload(d->queue, d->pages, pages, sizeof pages);
    lore_queue_upload(d->queue, d->row_start, starts, sizeof starts);
    lore_queue_upload(d->queue, d->past, past, sizeof past);
    lore_queue_upload(d->queue, d->page_start, page_start, sizeof page_start);
    work->batch = (lore_batch){.sequences = work->sequences,
                               .rows = work->sequences * work->rows,
                               .row_start = d->row_start,
                               .past = d->past,
                               .page_start = d->page_start,
                               .pages = d->pages,
                               .rows_max = work->rows,
                               .context_max = work->past + work->rows};
    return lore_queue_sync(d->queue, err);
}

static lore_status time_batch(device_bench *d, attention_work *work, device_case *one,
                              lore_error *err)
{
    snprintf(one->name, sizeof one->name, "%s", work->name);
    const lore_status status = set_batch(d, work, err);
    return status == LORE_OK ? time_case(d, one, err) : status;
}

static lore_status bench_attention(device_bench *d, lore_error *err)
{
    lore_status status = LORE_OK;
    for (size_t i = 0;
         i < sizeof attention_shapes / sizeof attention_shapes[0] && status == LORE_OK; i++) {
        attention_work work = attention_shapes[i];
        const double rows = work.rows, past = work.past;
        const double pairs = past < 0.0 ? rows * rows : rows * past + 0.5 * rows * (rows + 1.0);
        device_case one = {.run = run_attention,
                           .self = &work,
                           .operations = 4.0 * pairs * work.sequences * work.heads * work.dim};
        if (work.rows == 1) {
            one.bytes = 2.0 * pairs * work.sequences * work.kv_heads * work.dim * 2.0;
        }
        status = time_batch(d, &work, &one, err);
    }
    return status;
}

/* ---- the others ---- */

typedef struct row_work {
    int32_t rows, cols;
} row_work;

static void run_rmsnorm(device_bench *d, const void *self)
{
    const row_work *work = self;
    lore_op_rmsnorm(d->queue, passed(d, d->y, work->rows, work->cols),
                    lore_view_of(d->x, work->rows, work->cols), d->norm, 1e-6f);
}

static void run_layernorm(device_bench *d, const void *self)
{
    const row_work *work = self;
    lore_op_add_layernorm(d->queue, lore_view_of(d->y, work->rows, work->cols),
                          passed(d, d->y + FLOATS / 2, work->rows, work->cols),
                          passed(d, d->x, work->rows, work->cols), d->norm, d->norm, 1e-6f);
}

static void run_glu(device_bench *d, const void *self)
{
    const row_work *work = self;
    lore_op_glu(d->queue, passed(d, d->y, work->rows, work->cols),
                passed(d, d->x, work->rows, 2 * work->cols), LORE_ACT_SILU);
}

static void run_rope(device_bench *d, const void *self)
{
    const attention_work *work = self;
    const int32_t wide = (work->heads + 2 * work->kv_heads) * work->dim;
    const lore_pages pages = pages_like(d, work->kv_heads, work->dim);
    const lore_rope rope = {.cosine = d->cosine,
                            .sine = d->cosine,
                            .positions_max = ROWS_MAX,
                            .heads = work->heads,
                            .dim = work->dim};
    lore_op_rope_append(d->queue, passed(d, d->y, work->batch.rows, wide), &rope, &pages,
                        &work->batch);
}

typedef struct draw_work {
    int32_t rows;
    lore_drawing drawing;
} draw_work;

static void run_sample(device_bench *d, const void *self)
{
    const draw_work *work = self;
    lore_op_sample(d->queue, d->ids, d->logprobs, lore_view_of(d->x, work->rows, VOCABULARY),
                   d->samples, work->drawing);
}

static lore_status bench_rows(device_bench *d, lore_error *err)
{
    static const struct {
        const char *name;
        void (*run)(device_bench *d, const void *self);
        row_work work;
        double floats, passed; /* read or written, an element of a row */
    } CASES[] = {{"rmsnorm 1x4096", run_rmsnorm, {1, 4096}, 1.0, 1.0},
                 {"rmsnorm 32x4096", run_rmsnorm, {32, 4096}, 1.0, 1.0},
                 {"rmsnorm 2048x4096", run_rmsnorm, {2048, 4096}, 1.0, 1.0},
                 {"add and layernorm 8192x384", run_layernorm, {8192, 384}, 2.0, 2.0},
                 {"glu 1x14336", run_glu, {1, 14336}, 0.0, 3.0},
                 {"glu 32x14336", run_glu, {32, 14336}, 0.0, 3.0},
                 {"glu 2048x14336", run_glu, {2048, 14336}, 0.0, 3.0}};
    const double passed_size = (double)lore_dtype_size(d->dtype);
    lore_status status = LORE_OK;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0] && status == LORE_OK; i++) {
        const row_work *work = &CASES[i].work;
        const double element = CASES[i].floats * sizeof(float) + CASES[i].passed * passed_size;
        device_case one = {
            .run = CASES[i].run, .self = work, .bytes = element * work->rows * work->cols};
        snprintf(one.name, sizeof one.name, "%s", CASES[i].name);
        status = time_case(d, &one, err);
    }
    return status;
}

static lore_status bench_rope(device_bench *d, lore_error *err)
{
    static const attention_work SHAPES[] = {{"rope 1, 32:8x128", 32, 8, 128, 1, 1, 512, {0}},
                                            {"rope 32, 32:8x128", 32, 8, 128, 32, 1, 2048, {0}},
                                            {"rope 2048, 32:8x128", 32, 8, 128, 1, 2048, 0, {0}}};
    lore_status status = LORE_OK;
    for (size_t i = 0; i < sizeof SHAPES / sizeof SHAPES[0] && status == LORE_OK; i++) {
        attention_work work = SHAPES[i];
        /* Of all heads what is passed is read, queries are written, keys and values go to pages. */
        const double element =
            (2.0 * work.heads + 2.0 * work.kv_heads) * (double)lore_dtype_size(d->dtype) +
            2.0 * work.kv_heads * (double)lore_dtype_size(LORE_BF16);
        device_case one = {.run = run_rope,
                           .self = &work,
                           .bytes = element * work.dim * work.rows * work.sequences};
        status = time_batch(d, &work, &one, err);
    }
    return status;
}

static lore_status bench_sampling(device_bench *d, lore_error *err)
{
    static const struct {
        const char *name;
        lore_sample sample;
    } KINDS[] = {{"greedy", {.top_p = 1.0f}},
                 {"temperature", {.temperature = 0.8f, .top_p = 1.0f}},
                 {"top_k 50, top_p .9", {.temperature = 0.8f, .top_p = 0.9f, .top_k = 50}}};
    static const int32_t ROWS[] = {1, SAMPLED_MAX};
    lore_sample samples[SAMPLED_MAX];
    lore_status status = LORE_OK;
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0] && status == LORE_OK; i++) {
        for (int32_t r = 0; r < SAMPLED_MAX; r++) {
            samples[r] = KINDS[i].sample;
            samples[r].seed = (uint64_t)r;
        }
        lore_queue_upload(d->queue, d->samples, samples, sizeof samples);
        for (size_t n = 0; n < 2 && status == LORE_OK; n++) {
            const draw_work work = {ROWS[n], lore_drawing_of(samples, SAMPLED_MAX)};
            device_case one = {
                .run = run_sample, .self = &work, .bytes = 4.0 * work.rows * VOCABULARY};
            snprintf(one.name, sizeof one.name, "sample %dx%d %s", work.rows, VOCABULARY,
                     KINDS[i].name);
            status = time_case(d, &one, err);
        }
    }
    return status;
}

lore_status lore_bench_ops_device(const lore_bench_ops_device_options *options, lore_error *err)
{
    LORE_ASSERT(options->out != NULL);
    device_bench d = {.options = options};
    lore_status (*const parts[])(device_bench * d, lore_error * err) = {
        bench_attention, bench_products, bench_sampling, bench_rows, bench_rope};
    lore_status status = lore_backend_open(&options->device, &d.backend, err);
    if (status == LORE_OK) {
        d.dtype = lore_backend_activation_dtype(d.backend);
        status = lore_queue_open(d.backend, &d.queue, err);
    }
    if (status == LORE_OK) {
        status = take_all(&d, err);
    }
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && status == LORE_OK; i++) {
        status = parts[i](&d, err);
    }
    status = status == LORE_OK ? lore_bench_ops_lora(d.backend, d.queue, options, err) : status;
    free_all(&d);
    lore_queue_close(d.queue);
    lore_backend_close(d.backend);
    return status;
}
