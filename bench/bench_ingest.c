/* lore bench ingest: a folder through the whole way to the disk, as `lore ingest` does it, into a
 * fresh data folder; and the same once more without the encoder, where every vector is zeros: what
 * reading, cleaning, cutting, full text and commits take.
 *
 * The command runs as a child, so its memory is its own; the second run is in this process, which
 * has done nothing large before. Every commit is on the disk as in production. */
#include "bench/bench.h"

#include "api/app.h"
#include "base/clock.h"
#include "bench/bench_child.h"
#include "ingest/ingest.h"

#include <stdio.h>
#include <sys/resource.h>

/* Into a fresh data folder of the scratch folder, all but the encoder. */
static lore_status ingest_unembedded(lore_bench *bench, lore_ingest_counts *counts, double *seconds,
                                     lore_error *err)
{
    lore_app app = {0};
    lore_config config = *bench->config;
    lore_source *source = NULL;
    const lore_app_needs needs = {.embedder = true, .index = true, .index_writer = true};
    const lore_source_options from = {.paths = &bench->documents, .path_count = 1};
    const lore_ingest_options options = {.is_unembedded = true};
    int length = snprintf(config.data, sizeof config.data, "%s/unembedded", bench->scratch);
    LORE_ASSERT(length > 0 && (size_t)length < sizeof config.data);
    lore_status status = lore_app_open(&config, needs, &app, err);
    if (status == LORE_OK) {
        status = lore_source_open(&from, &config.limits, &source, err);
    }
    int64_t begun_ns = lore_clock_ns();
    if (status == LORE_OK) {
        status = lore_ingest_run(app.writer, app.embedder, &config, source, &from, &options, counts,
                                 err);
    }
    *seconds = (double)(lore_clock_ns() - begun_ns) * 1e-9;
    lore_source_close(source);
    lore_app_close(&app);
    return status;
}

static lore_status measure_unembedded(lore_bench *bench, lore_error *err)
{
    lore_ingest_counts counts;
    double seconds = 0;
    struct rusage usage = {0};
    lore_status status = ingest_unembedded(bench, &counts, &seconds, err);
    if (status != LORE_OK) {
        return status;
    }
    (void)getrusage(RUSAGE_SELF, &usage); /* fails for no process that runs */
    const lore_bench_figure figures[] = {
        {.name = "text without the encoder",
         .value = (double)counts.text_bytes * 1e-6 / seconds,
         .unit = "MB/s"},
        {.name = "most memory without the encoder's work",
         .value = (double)usage.ru_maxrss / 1024,
         .unit = "MiB"},
    };
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        lore_bench_report_figure(bench->report, &figures[i]);
    }
    return LORE_OK;
}

lore_status lore_bench_ingest(lore_bench *bench, lore_error *err)
{
    lore_bench_ingested done;
    lore_status status = lore_bench_scratch(bench, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_str data = lore_str_printf(&bench->arena, "%s/ingest", bench->scratch);
    if (data.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a path");
    }
    lore_bench_report_section(bench->report, "ingest", bench->documents);
    if (bench->is_unembedded) {
        return measure_unembedded(bench, err);
    }
    status = lore_bench_child_ingest(bench, data.ptr, "default", bench->documents, &done, err);
    if (status == LORE_OK && (done.chunks == 0 || done.seconds <= 0.0)) {
        status = lore_fail(err, LORE_ERR_INVALID, "'%s' gave no chunks", bench->documents);
    }
    if (status != LORE_OK) {
        return status;
    }
    const double seconds = done.seconds;
    const lore_bench_figure figures[] = {
        {.name = "documents", .value = (double)done.documents, .unit = ""},
        {.name = "documents a second", .value = (double)done.documents / seconds, .unit = "1/s"},
        {.name = "chunks a second", .value = (double)done.chunks / seconds, .unit = "1/s"},
        {.name = "tokens a chunk", .value = (double)done.tokens / (double)done.chunks, .unit = ""},
        {.name = "text", .value = (double)done.text_bytes * 1e-6 / seconds, .unit = "MB/s"},
        {.name = "most memory (resident)",
         .value = (double)done.peak_bytes / (1 << 20),
         .unit = "MiB"},
    };
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        lore_bench_report_figure(bench->report, &figures[i]);
    }
    return measure_unembedded(bench, err);
}
