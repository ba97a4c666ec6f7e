/* The exact search of a GPU: what lore bench search --vectors times there, and the end of lore
 * bench search over a data folder. So many random vectors of 384 columns lie in the memory of the
 * device, as int8 and as f16; a search is what index/resident.c does for a pack of queries: they go
 * up from host memory, lore_op_search finds the best rows, hits come down. With a filter, the
 * bitmap of rows that pass goes up, too.
 *
 * The floor is one reading of the vectors, their scales and the bitmap, whatever the number of
 * queries. */
#include "base/clock.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "kernels/search.h"

#include <string.h>

enum {
    ROWS = 1000000, /* where the command line gives no number */
    DIM = 384,
    QUERIES = 64, /* what goes through the vectors in one pass at most */
    SEARCHES = 400,
    WARM = 3,       /* scratch grows */
    SLAB = 1 << 16, /* vectors made at a time */
    SCALES_BYTES = QUERIES * sizeof(float),
    IN_BYTES = SCALES_BYTES + QUERIES * DIM * 2 /* queries of f16 */
};

typedef struct device_bench {
    lore_bench *bench;
    lore_backend *backend;
    lore_queue *queue;
    /* The device's: [rows, DIM], [rows], a bit a row; scales and queries; rows and scores. */
    void *vectors, *scales, *passing, *in, *out;
    void *host_in, *host_out;
    uint64_t *filter; /* of the host */
    size_t filter_bytes;
    int32_t rows, hits;
} device_bench;

typedef struct search_case {
    lore_dtype dtype;
    int32_t queries;
    bool is_filtered;
} search_case;

static lore_status open_memory(device_bench *d, lore_error *err)
{
    const size_t rows = (size_t)d->rows, out = (size_t)QUERIES * (size_t)d->hits * 8;
    d->filter_bytes = (rows + 63) / 64 * sizeof *d->filter;
    const struct {
        void **to;
        size_t bytes;
    } BLOCKS[] = {{&d->vectors, rows * DIM * 2},
                  {&d->scales, rows * sizeof(float)},
                  {&d->passing, d->filter_bytes},
                  {&d->in, IN_BYTES},
                  {&d->out, out}};
    lore_status status = LORE_OK;
    for (size_t i = 0; i < sizeof BLOCKS / sizeof BLOCKS[0] && status == LORE_OK; i++) {
        status = lore_backend_alloc(d->backend, BLOCKS[i].bytes, BLOCKS[i].to, err);
    }
    if (status == LORE_OK) {
        status = lore_backend_alloc_host(d->backend, IN_BYTES, &d->host_in, err);
    }
    if (status == LORE_OK) {
        status = lore_backend_alloc_host(d->backend, out, &d->host_out, err);
    }
    d->filter = lore_alloc(d->filter_bytes);
    return status == LORE_OK && d->filter == NULL
               ? lore_fail(err, LORE_ERR_NOMEM, "no memory for a filter")
               : status;
}

static void close_memory(device_bench *d)
{
    lore_backend_free(d->backend, d->vectors);
    lore_backend_free(d->backend, d->scales);
    lore_backend_free(d->backend, d->passing);
    lore_backend_free(d->backend, d->in);
    lore_backend_free(d->backend, d->out);
    lore_backend_free_host(d->backend, d->host_in);
    lore_backend_free_host(d->backend, d->host_out);
    lore_free(d->filter);
}

/* int8 of every size; as f16, with the exponent of 1/8, numbers of both signs. */
static void draw_words(uint64_t *random, uint64_t *words, size_t count, bool is_f16)
{
    for (size_t i = 0; i < count; i++) {
        const uint64_t drawn = lore_random_next(random);
        words[i] = is_f16 ? (drawn & 0x83ff83ff83ff83ffu) | 0x3000300030003000u : drawn;
    }
}

/* Vectors go up a slab at a time; queries are drawn like them. Half of the rows pass the filter. */
static lore_status fill(device_bench *d, lore_dtype dtype, lore_error *err)
{
    const size_t row = DIM * lore_dtype_size(dtype);
    uint64_t random = 20260101;
    uint64_t *words = lore_alloc(SLAB * row);
    float *scales = lore_alloc(SLAB * sizeof *scales);
    lore_status status = words != NULL && scales != NULL
                             ? LORE_OK
                             : lore_fail(err, LORE_ERR_NOMEM, "no memory for vectors");
    for (int32_t from = 0; status == LORE_OK && from < d->rows; from += SLAB) {
        const size_t count = (size_t)(d->rows - from < SLAB ? d->rows - from : SLAB);
        draw_words(&random, words, count * row / sizeof *words, dtype == LORE_F16);
        for (size_t i = 0; i < count; i++) {
            scales[i] = 0.001f + 0.001f * lore_random_unit(&random);
        }
        lore_queue_upload(d->queue, (char *)d->vectors + (size_t)from * row, words, count * row);
        lore_queue_upload(d->queue, (float *)d->scales + from, scales, count * sizeof *scales);
        status = lore_queue_sync(d->queue, err);
    }
    float *query_scales = d->host_in;
    for (int32_t i = 0; i < QUERIES; i++) {
        query_scales[i] = 0.01f;
    }
    draw_words(&random, (uint64_t *)(void *)((char *)d->host_in + SCALES_BYTES),
               QUERIES * row / sizeof *words, dtype == LORE_F16);
    draw_words(&random, d->filter, d->filter_bytes / sizeof *d->filter, false);
    lore_free(words);
    lore_free(scales);
    return status;
}

static lore_status search_once(device_bench *d, const search_case *one, lore_error *err)
{
    const size_t row = DIM * lore_dtype_size(one->dtype);
    const size_t found = (size_t)one->queries * (size_t)d->hits;
    int32_t *rows = d->out;
    const lore_search search = {
        one->dtype, one->queries, (char *)d->in + SCALES_BYTES,         d->in,
        d->vectors, d->scales,    one->is_filtered ? d->passing : NULL, d->rows,
        DIM};
    lore_queue_begin(d->queue, LORE_PRIORITY_HIGH);
    lore_queue_upload(d->queue, d->in, d->host_in, SCALES_BYTES + (size_t)one->queries * row);
    if (one->is_filtered) {
        lore_queue_upload(d->queue, d->passing, d->filter, d->filter_bytes);
    }
    lore_op_search(d->queue, rows, (float *)(void *)(rows + found), d->hits, &search);
    lore_queue_download_later(d->queue, d->host_out, rows, found * 8);
    return lore_queue_sync(d->queue, err);
}

static double bytes_of(const device_bench *d, const search_case *one)
{
    const double scale = one->dtype == LORE_I8 ? sizeof(float) : 0.0;
    return d->rows * (DIM * (double)lore_dtype_size(one->dtype) + scale) +
           (one->is_filtered ? (double)d->filter_bytes : 0.0);
}

static lore_status time_case(device_bench *d, const search_case *one, lore_error *err)
{
    char name[64];
    lore_bench_samples times = {0};
    const int64_t runs = WARM + lore_bench_budget(d->bench, SEARCHES);
    lore_status status = LORE_OK;
    snprintf(name, sizeof name, "%s, %d %s%s", lore_dtype_name(one->dtype), (int)one->queries,
             one->queries == 1 ? "query" : "queries", one->is_filtered ? ", half of it pass" : "");
    for (int64_t i = 0; i < runs && status == LORE_OK; i++) {
        const int64_t begin = lore_clock_ns();
        status = search_once(d, one, err);
        if (i >= WARM) {
            lore_bench_sample(&times, (double)(lore_clock_ns() - begin) * 1e-6);
        }
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&times, name, err);
    }
    if (status == LORE_OK) {
        lore_bench_report_median(d->bench->report, name, "ms", &times,
                                 bytes_of(d, one) / d->bench->read_rate * 1e3);
        status = lore_bench_check_cancelled(d->bench, err);
    }
    lore_bench_samples_destroy(&times);
    return status;
}

static lore_status run_cases(device_bench *d, lore_error *err)
{
    static const search_case CASES[] = {{LORE_I8, 1, false},  {LORE_I8, 1, true},
                                        {LORE_I8, 8, false},  {LORE_I8, QUERIES, false},
                                        {LORE_F16, 1, false}, {LORE_F16, QUERIES, false}};
    lore_status status = open_memory(d, err);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0] && status == LORE_OK; i++) {
        if (i == 0 || CASES[i].dtype != CASES[i - 1].dtype) {
            status = fill(d, CASES[i].dtype, err);
        }
        if (status == LORE_OK) {
            status = time_case(d, &CASES[i], err);
        }
    }
    close_memory(d);
    return status;
}

lore_status lore_bench_device_search(lore_bench *bench, lore_error *err)
{
    device_bench d = {.bench = bench,
                      .rows = bench->vectors > 0 ? bench->vectors : ROWS,
                      .hits = (int32_t)bench->config->limits.candidates_max};
    char title[128];
    if (!lore_bench_has_gpu(bench)) {
        return LORE_OK;
    }
    if (d.hits > LORE_SEARCH_HITS_MAX) {
        d.hits = LORE_SEARCH_HITS_MAX; /* above that the index scans on the processor */
    }
    snprintf(title, sizeof title, "%d x %d on the device, %d hits", (int)d.rows, (int)DIM,
             (int)d.hits);
    lore_bench_report_section(bench->report, "device_search", title);
    lore_status status = lore_backend_open(&bench->device, &d.backend, err);
    if (status == LORE_OK) {
        status = lore_queue_open(d.backend, &d.queue, err);
    }
    if (status == LORE_OK) {
        status = run_cases(&d, err);
    }
    lore_queue_close(d.queue);
    lore_backend_close(d.backend);
    return status;
}
