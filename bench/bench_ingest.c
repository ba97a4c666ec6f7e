/* lore bench ingest: a folder through the whole way to the disk, as `lore ingest` does it, into a
 * fresh data folder.
 *
 * The command runs as a child, so its memory is its own, and every commit is on the disk as in
 * production. */
#include "bench/bench.h"

#include "bench/bench_child.h"

#include <inttypes.h>

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
    return LORE_OK;
}
