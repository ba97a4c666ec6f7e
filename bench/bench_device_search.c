/* The device half of lore bench search: lore_op_search over a million vectors of 384 columns in the
 * memory of a GPU, from queries in host memory to hits in host memory.
 *
 * The floor is the vectors' bytes at the rate at which lore_op_add moves bytes, timed a moment
 * before: two arrays read and one written, each element touched once. */
#include "api/app.h"
#include "base/clock.h"
#include "bench/bench.h"

#include <stdio.h>
#include <string.h>

enum {
    ROWS = 1000000,
    DIM = 384,
    QUERIES = 64,
    SEARCHES = 400,
    ADD_ROWS = 65536, /* 256 MiB an array */
    ADD_COLS = 1024,
    ADDS = 10 /* of one timing */
};

typedef struct device_bench {
    lore_bench *bench;
    lore_backend *backend;
    lore_queue *queue;
    void *vectors, *scales, *in, *out; /* the device's; a query is read from the vectors' bytes */
    void *host;                        /* queries and hits */
    int32_t hits;
    double rate; /* bytes a second of lore_op_add */
} device_bench;

/* int8 of every size; as f16, with the exponent of 1/8, numbers of both signs. */
static void fill_random(uint64_t *words, size_t count, bool is_f16)
{
    uint64_t state = 20260101;
    for (size_t i = 0; i < count; i++) {
        const uint64_t drawn = lore_random_next(&state);
        words[i] = is_f16 ? (drawn & 0x83ff83ff83ff83ffu) | 0x3000300030003000u : drawn;
    }
}

static lore_status upload_random(device_bench *d, bool is_f16, lore_error *err)
{
    const size_t size = (size_t)ROWS * DIM * (is_f16 ? 2 : 1);
    uint64_t *words = lore_alloc(size);
    if (words == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for vectors");
    }
    fill_random(words, size / sizeof *words, is_f16);
    lore_queue_upload(d->queue, d->vectors, words, size);
    memcpy(d->host, words, (size_t)QUERIES * DIM * (is_f16 ? 2 : 1));
    float *scales = (float *)(void *)words; /* the vectors are on their way: room for these */
    uint64_t state = 7;
    for (int32_t i = 0; i < ROWS; i++) {
        scales[i] = 0.5f + lore_random_unit(&state);
    }
    lore_queue_upload(d->queue, d->scales, scales, ROWS * sizeof(float));
    lore_status status = lore_queue_sync(d->queue, err);
    lore_free(words);
    return status;
}

static lore_status open_memory(device_bench *d, lore_error *err)
{
    const size_t in = QUERIES * (2 * DIM + sizeof(float));
    const size_t out = (size_t)QUERIES * (size_t)d->hits * 8;
    const size_t add = (size_t)ADD_ROWS * ADD_COLS * 2 * sizeof(float);
    const size_t vectors = (size_t)ROWS * DIM * 2;
    lore_status status =
        lore_backend_alloc(d->backend, vectors > add ? vectors : add, &d->vectors, err);
    if (status == LORE_OK) {
        status = lore_backend_alloc(d->backend, ROWS * sizeof(float), &d->scales, err);
    }
    if (status == LORE_OK) {
        status = lore_backend_alloc(d->backend, in, &d->in, err);
    }
    if (status == LORE_OK) {
        status = lore_backend_alloc(d->backend, out, &d->out, err);
    }
    return status == LORE_OK ? lore_backend_alloc_host(d->backend, in + out, &d->host, err)
                             : status;
}

static void close_memory(device_bench *d)
{
    lore_backend_free(d->backend, d->vectors);
    lore_backend_free(d->backend, d->scales);
    lore_backend_free(d->backend, d->in);
    lore_backend_free(d->backend, d->out);
    lore_backend_free_host(d->backend, d->host);
}

static lore_status time_adds(device_bench *d, lore_error *err)
{
    const lore_view to = lore_view_of(d->vectors, ADD_ROWS, ADD_COLS);
    const lore_view from = lore_view_of(to.data + (size_t)ADD_ROWS * ADD_COLS, ADD_ROWS, ADD_COLS);
    const double bytes = 3.0 * ADD_ROWS * ADD_COLS * sizeof(float) * ADDS;
    for (int round = 0; round < 5; round++) { /* the best; the first one warms up */
        const int64_t begin = lore_clock_ns();
        for (int i = 0; i < ADDS; i++) {
            lore_op_add(d->queue, to, from);
        }
        lore_status status = lore_queue_sync(d->queue, err);
        if (status != LORE_OK) {
            return status;
        }
        const double rate = bytes / ((double)(lore_clock_ns() - begin) * 1e-9);
        d->rate = rate > d->rate ? rate : d->rate;
    }
    lore_bench_report_figure(d->bench->report,
                             &(lore_bench_figure){.name = "read and write of the device",
                                                  .value = d->rate * 1e-9,
                                                  .unit = "GB/s",
                                                  .samples = 5});
    return LORE_OK;
}

static lore_status search_once(device_bench *d, lore_dtype dtype, int32_t queries, lore_error *err)
{
    const size_t row = (size_t)DIM * lore_dtype_size(dtype);
    const size_t size = (size_t)queries * row;
    const size_t found = (size_t)queries * (size_t)d->hits;
    char *in = d->in, *hits = (char *)d->host + QUERIES * (2 * DIM + sizeof(float));
    int32_t *rows = d->out;
    const lore_search search = {dtype,     queries, in,   d->scales, d->vectors,
                                d->scales, NULL,    ROWS, DIM};
    lore_queue_begin(d->queue, LORE_PRIORITY_HIGH);
    lore_queue_upload(d->queue, in, d->host, size);
    lore_op_search(d->queue, rows, (float *)(void *)(rows + found), d->hits, &search);
    lore_queue_download_later(d->queue, hits, rows, found * 8);
    return lore_queue_sync(d->queue, err);
}

static lore_status time_case(device_bench *d, lore_dtype dtype, int32_t queries, lore_error *err)
{
    char name[64];
    lore_bench_samples times = {0};
    const int64_t runs = lore_bench_budget(d->bench, SEARCHES);
    snprintf(name, sizeof name, "%s, %d %s", lore_dtype_name(dtype), (int)queries,
             queries == 1 ? "query" : "queries");
    lore_status status = search_once(d, dtype, queries, err); /* scratch grows */
    for (int64_t i = 0; i < runs && status == LORE_OK; i++) {
        const int64_t begin = lore_clock_ns();
        status = search_once(d, dtype, queries, err);
        lore_bench_sample(&times, (double)(lore_clock_ns() - begin) * 1e-3);
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&times, name, err);
    }
    if (status == LORE_OK) {
        const double bytes = (double)ROWS * DIM * (double)lore_dtype_size(dtype);
        const double median = lore_bench_percentile(&times, 50) * 1e-6;
        lore_bench_report_times(d->bench->report, name, "us", &times);
        lore_bench_report_figure(d->bench->report,
                                 &(lore_bench_figure){.name = "  bytes of vectors",
                                                      .value = bytes / median * 1e-9,
                                                      .unit = "GB/s",
                                                      .share = bytes / median / d->rate,
                                                      .limit = "of its read and write",
                                                      .samples = times.count});
        status = lore_bench_check_cancelled(d->bench, err);
    }
    lore_bench_samples_destroy(&times);
    return status;
}

static lore_status run_device(device_bench *d, lore_error *err)
{
    static const int32_t counts[] = {1, 8, QUERIES};
    lore_status status = open_memory(d, err);
    if (status == LORE_OK) {
        status = time_adds(d, err);
    }
    for (int is_f16 = 0; is_f16 < 2 && status == LORE_OK; is_f16++) {
        status = upload_random(d, is_f16 != 0, err);
        for (size_t i = 0; i < sizeof counts / sizeof counts[0] && status == LORE_OK; i++) {
            status = time_case(d, is_f16 != 0 ? LORE_F16 : LORE_I8, counts[i], err);
        }
    }
    close_memory(d);
    return status;
}

lore_status lore_bench_device_search(lore_bench *bench, lore_error *err)
{
    lore_backend_options options = {0};
    device_bench d = {.bench = bench, .hits = (int32_t)bench->config->limits.candidates_max};
    lore_status status = lore_app_device(bench->config, &options, err);
    if (status != LORE_OK || options.kind != LORE_BACKEND_CUDA) {
        return status;
    }
    if (d.hits > LORE_SEARCH_HITS_MAX) {
        d.hits = LORE_SEARCH_HITS_MAX; /* above that the index scans on the processor */
    }
    char title[128];
    snprintf(title, sizeof title, "%d x %d on the device, %d hits", (int)ROWS, (int)DIM,
             (int)d.hits);
    lore_bench_report_section(bench->report, "device_search", title);
    status = lore_app_open_device(bench->config, NULL, &d.backend, err);
    if (status == LORE_OK) {
        status = lore_queue_open(d.backend, &d.queue, err);
    }
    if (status == LORE_OK) {
        status = run_device(&d, err);
    }
    lore_queue_close(d.queue);
    lore_backend_close(d.backend);
    return status;
}
