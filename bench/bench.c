/* What the benchmarks stand on: the limits of the machine, documents, questions, a scratch folder.
 */
#include "bench/bench.h"

#include "api/app.h"
#include "base/clock.h"
#include "base/file.h"
#include "bench/bench_child.h"
#include "bench/bench_peak.h"
#include "ingest/ingest.h"

#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BRIEF_SHARE = 4,
    PRODUCT_SIZE = 8192, /* of the matrices that show what a GPU multiplies at best */
    QUESTION_FILE_BYTES_MAX = 64 << 20,
    OPEN_FOLDERS_MAX = 8 /* descriptors that removing the scratch folder may hold */
};

static lore_status measure_gpu(lore_bench *bench, lore_backend *backend, lore_error *err)
{
    const lore_precision precision =
        bench->device.precision == LORE_PRECISION_F32 ? LORE_PRECISION_F32 : LORE_PRECISION_BF16;
    lore_status status = lore_backend_measure_reads(backend, &bench->read_rate, err);
    return status == LORE_OK ? lore_bench_product_peak(backend, PRODUCT_SIZE,
                                                       &bench->multiply_peak[precision], err)
                             : status;
}

static lore_status measure_machine(lore_bench *bench, lore_error *err)
{
    lore_backend *backend = NULL;
    lore_status status = lore_app_device(bench->config, &bench->device, err);
    if (status != LORE_OK) {
        return status;
    }
    bench->device.pool = bench->pool;
    lore_backend_options options = {.kind = LORE_BACKEND_CPU, .pool = bench->pool};
    if (lore_bench_has_gpu(bench)) {
        options = bench->device;
    }
    status = lore_backend_open(&options, &backend, err);
    if (status != LORE_OK) {
        return status;
    }
    snprintf(bench->machine, sizeof bench->machine, "%s", lore_backend_describe(backend));
    if (lore_bench_has_gpu(bench)) {
        status = measure_gpu(bench, backend, err);
        lore_backend_close(backend);
        return status;
    }
    lore_backend_close(backend);
    for (int i = LORE_PRECISION_F32; i <= LORE_PRECISION_INT8; i++) {
        bench->multiply_peak[i] = lore_bench_peak(bench->pool, bench->machine, (lore_precision)i);
    }
    double best = 0.0;
    return lore_bench_read_peak(bench->pool, &best, &bench->read_rate, err);
}

static void report_machine(const lore_bench *bench)
{
    static const struct {
        lore_precision precision;
        const char *name;
    } PEAKS[] = {{LORE_PRECISION_INT8, "int8 multiply rate"},
                 {LORE_PRECISION_BF16, "bf16 multiply rate"},
                 {LORE_PRECISION_F32, "f32 multiply rate"}};
    lore_bench_report_section(bench->report, "machine", bench->machine);
    lore_bench_report_figure(bench->report, &(lore_bench_figure){.name = "read bandwidth",
                                                                 .value = bench->read_rate * 1e-9,
                                                                 .unit = "GB/s"});
    for (size_t i = 0; i < sizeof PEAKS / sizeof PEAKS[0]; i++) {
        double peak = bench->multiply_peak[PEAKS[i].precision];
        if (peak > 0.0) {
            lore_bench_report_figure(
                bench->report,
                &(lore_bench_figure){.name = PEAKS[i].name, .value = peak * 1e-9, .unit = "GOP/s"});
        }
    }
}

lore_status lore_bench_open(lore_bench *bench, lore_error *err)
{
    lore_arena_init(&bench->arena, 0);
    lore_status status = lore_pool_new((int32_t)bench->config->threads, &bench->pool, err);
    if (status == LORE_OK) {
        status = measure_machine(bench, err);
    }
    if (status == LORE_OK) {
        report_machine(bench);
    }
    return status;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

void lore_bench_close(lore_bench *bench)
{
    if (bench->scratch[0] != '\0') {
        nftw(bench->scratch, remove_entry, OPEN_FOLDERS_MAX, FTW_DEPTH | FTW_PHYS);
        bench->scratch[0] = '\0';
    }
    lore_pool_free(bench->pool);
    bench->pool = NULL;
    lore_arena_destroy(&bench->arena);
}

/* ---- for the benchmarks ---- */

lore_status lore_bench_read_now(const lore_bench *bench, double *rate, lore_error *err)
{
    double best = 0.0;
    *rate = bench->read_rate;
    return lore_bench_has_gpu(bench) ? LORE_OK
                                     : lore_bench_read_peak(bench->pool, &best, rate, err);
}

int64_t lore_bench_budget(const lore_bench *bench, int64_t full)
{
    return bench->is_brief ? (full + BRIEF_SHARE - 1) / BRIEF_SHARE : full;
}

lore_status lore_bench_check_cancelled(const lore_bench *bench, lore_error *err)
{
    return bench->is_cancelled != NULL && bench->is_cancelled()
               ? lore_fail(err, LORE_ERR_CANCELLED, "interrupted")
               : LORE_OK;
}

lore_status lore_bench_scratch(lore_bench *bench, lore_error *err)
{
    if (bench->scratch[0] != '\0') {
        return LORE_OK;
    }
    const char *base = getenv("TMPDIR");
    char path[sizeof bench->scratch];
    int length = snprintf(path, sizeof path, "%s/lore-bench-XXXXXX",
                          base != NULL && base[0] != '\0' ? base : "/tmp");
    if (length < 0 || (size_t)length >= sizeof path || mkdtemp(path) == NULL) {
        return lore_fail(err, LORE_ERR_IO, "cannot make a scratch folder '%s'", path);
    }
    memcpy(bench->scratch, path, sizeof path);
    return LORE_OK;
}

lore_status lore_bench_data(lore_bench *bench, const char **data, lore_error *err)
{
    if (bench->data != NULL) {
        *data = bench->data;
        return LORE_OK;
    }
    lore_status status = lore_bench_scratch(bench, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_str path = lore_str_printf(&bench->arena, "%s/data", bench->scratch);
    if (path.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a path");
    }
    if (!bench->has_scratch_data) {
        lore_bench_ingested done;
        status = lore_bench_child_ingest(bench, path.ptr, "default", bench->documents, &done, err);
        if (status != LORE_OK) {
            return status;
        }
        bench->has_scratch_data = true;
    }
    *data = path.ptr;
    return LORE_OK;
}

static lore_status append_documents(lore_bench *bench, lore_source *source, size_t bytes_max,
                                    lore_buf *out, lore_error *err)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_status status = LORE_OK;
    bool done = false;
    while (status == LORE_OK && out->len < bytes_max) {
        lore_raw_document raw = {0};
        lore_clean_document clean = {0};
        lore_arena_reset(&arena);
        status = lore_source_next(source, &arena, &raw, &done, err);
        if (status != LORE_OK || done) {
            break;
        }
        status = lore_clean(&raw, &bench->config->limits, NULL, &arena, &clean, err);
        lore_buf_append(out, clean.text);
        lore_buf_byte(out, '\n');
    }
    lore_arena_destroy(&arena);
    if (status == LORE_OK && lore_buf_failed(out)) {
        status = lore_fail(err, LORE_ERR_NOMEM, "no memory for the text of '%s'", bench->documents);
    }
    return status;
}

lore_status lore_bench_text(lore_bench *bench, size_t bytes_max, lore_str *text, lore_error *err)
{
    lore_source *source = NULL;
    const lore_source_options options = {.paths = &bench->documents, .path_count = 1};
    lore_status status = lore_source_open(&options, &bench->config->limits, &source, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_buf out;
    lore_buf_init(&out, 0);
    status = append_documents(bench, source, bytes_max, &out, err);
    lore_source_close(source);
    if (status == LORE_OK) {
        *text = lore_str_copy(&bench->arena, lore_buf_str(&out));
        status = text->ptr == NULL ? lore_fail(err, LORE_ERR_NOMEM, "no memory for text") : LORE_OK;
    }
    lore_buf_destroy(&out);
    return status;
}

static lore_status take_question(lore_bench *bench, lore_str line, lore_str *question,
                                 lore_error *err)
{
    lore_json *root = NULL;
    lore_str found = {0};
    lore_status status =
        lore_json_parse(line, (int32_t)bench->config->limits.json_depth_max, &root, err);
    if (status == LORE_OK) {
        status = lore_json_get_str_required(root, "", "question", &found, err);
    }
    if (status == LORE_OK) {
        *question = lore_str_copy(&bench->arena, found);
        status = question->ptr == NULL ? lore_fail(err, LORE_ERR_NOMEM, "no memory for questions")
                                       : LORE_OK;
    }
    lore_json_free(root);
    return status == LORE_OK ? LORE_OK : lore_error_prefix(err, bench->questions);
}

lore_status lore_bench_questions(lore_bench *bench, lore_str **questions, int32_t *count_out,
                                 lore_error *err)
{
    lore_buf file;
    lore_buf_init(&file, 0);
    lore_status status = lore_file_read(bench->questions, QUESTION_FILE_BYTES_MAX, &file, err);
    int32_t lines = 0, count = 0;
    lore_str line = {0};
    for (lore_str rest = lore_buf_str(&file); lore_str_next_line(&rest, &line);) {
        lines++;
    }
    lore_str *list = LORE_PUSH(&bench->arena, lore_str, lines + 1);
    if (status == LORE_OK && list == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "no memory for questions");
    }
    for (lore_str rest = lore_buf_str(&file);
         status == LORE_OK && count < lines && lore_str_next_line(&rest, &line);) {
        if (lore_str_trim(line).len > 0) {
            status = take_question(bench, line, &list[count], err);
            count++;
        }
    }
    lore_buf_destroy(&file);
    if (status == LORE_OK && count == 0) {
        status = lore_fail(err, LORE_ERR_INVALID, "'%s' holds no question", bench->questions);
    }
    *questions = list;
    *count_out = count;
    return status;
}
