/* lore doctor: what this machine offers and whether lore can work on it.
 *
 * Each check is one function that reports one or more lines; a line that is not OK says what to do.
 * Nothing is changed: the data folder is opened for reading. */
#include "api/app.h"
#include "api/http.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/client.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/statvfs.h>

typedef enum verdict { VERDICT_OK, VERDICT_WARN, VERDICT_FAIL } verdict;

static const double GIB = 1 << 30;

enum { LOW_MEMORY_MB = 1024, LOW_DISK_MB = 512, MAPS_BYTES_MAX = 4 << 20 };

typedef struct doctor {
    lore_cli *cli;
    lore_buf json;
    lore_json_writer w;
    int32_t failures;
    lore_backend *backend;
    lore_embedder *embedder; /* of the encoder check, for the data folder's */
} doctor;

LORE_PRINTF(4, 5)
static void report(doctor *d, verdict what, const char *name, const char *format, ...)
{
    static const char *const WORDS[] = {"OK", "WARN", "FAIL"};
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    d->failures += what == VERDICT_FAIL;
    if (!d->cli->is_json) {
        printf("%-4s  %-10s %s\n", WORDS[what], name, message);
        fflush(stdout);
        return;
    }
    lore_json_object(&d->w, NULL);
    lore_json_string(&d->w, "name", lore_str_from(name));
    lore_json_string(&d->w, "state", lore_str_from(WORDS[what]));
    lore_json_string(&d->w, "message", lore_str_from(message));
    lore_json_end(&d->w);
}

/* ---- the machine ---- */

static void check_cpu(doctor *d)
{
    lore_error err;
    const lore_backend_options options = {.kind = LORE_BACKEND_CPU};
    if (lore_backend_open(&options, &d->backend, &err) != LORE_OK) {
        report(d, VERDICT_FAIL, "cpu", "%s", err.message);
        return;
    }
    bool is_slow = lore_backend_isa() == LORE_ISA_SCALAR;
    report(d, is_slow ? VERDICT_WARN : VERDICT_OK, "cpu", "%s; %d cores for this process%s",
           lore_backend_describe(d->backend), (int)lore_cpu_count(),
           is_slow ? ": no AVX2, answers will take seconds" : "");
}

/* A line of /proc/meminfo in MB; -1 where there is none. */
static int64_t memory_mb(const char *name)
{
    char line[128];
    int64_t found = -1;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file != NULL && found < 0 && fgets(line, sizeof line, file) != NULL) {
        size_t size = strlen(name);
        if (strncmp(line, name, size) == 0 && line[size] == ':') {
            int64_t kilobytes = 0;
            found = sscanf(line + size + 1, "%" SCNd64, &kilobytes) == 1 ? kilobytes / 1024 : -1;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

static void check_memory(doctor *d)
{
    int64_t total = memory_mb("MemTotal"), available = memory_mb("MemAvailable");
    bool is_low = available >= 0 && available < LOW_MEMORY_MB;
    report(d, is_low ? VERDICT_WARN : VERDICT_OK, "memory",
           "%" PRId64 " MB, %" PRId64 " MB available%s", total, available,
           is_low ? ": close other programs or lower limits.kv_bytes_max" : "");
}

static void check_gpu(doctor *d)
{
#ifdef LORE_HAVE_CUDA
    int32_t count = lore_backend_cuda_count(), i = 0;
    do { /* also where there is none: the attempt says why */
        lore_error err;
        lore_backend *backend = NULL;
        const lore_backend_options options = {.kind = LORE_BACKEND_CUDA, .device = i};
        int64_t unused = 0, total = 0;
        if (lore_backend_open(&options, &backend, &err) == LORE_OK) {
            lore_backend_memory(backend, &unused, &total);
            report(d, VERDICT_OK, "gpu", "%s, %.1f GiB free", lore_backend_describe(backend),
                   (double)unused / GIB);
        } else {
            const bool is_absent = err.status == LORE_ERR_NOT_FOUND;
            report(d, is_absent ? VERDICT_OK : VERDICT_WARN, "gpu", "%s%s",
                   is_absent ? "none: " : "", err.message);
        }
        lore_backend_close(backend);
    } while (++i < count);
#else
    report(d, VERDICT_OK, "gpu", "none: built without CUDA (cmake -DLORE_CUDA=ON with nvcc)");
#endif
}

/* The shared libraries of this process that are not the C library, by their file names, which hold
 * their versions. */
static void check_libraries(doctor *d)
{
    static const char *const NAMES[] = {"libsqlite3", "libfaiss",   "libopenblas", "libmd4c",
                                        "libxml2",    "libcjson",   "libutf8proc", "libuchardet",
                                        "libblas",    "libarchive", "libexpat"};
    lore_buf maps, found;
    lore_error err;
    lore_str line;
    lore_buf_init(&maps, MAPS_BYTES_MAX);
    lore_buf_init(&found, 0);
    FILE *file = fopen("/proc/self/maps", "re");
    if (file == NULL || lore_file_read_fd(fileno(file), "/proc/self/maps", MAPS_BYTES_MAX, &maps,
                                          &err) != LORE_OK) {
        lore_buf_reset(&maps);
    }
    lore_str rest = lore_buf_str(&maps);
    while (lore_str_next_line(&rest, &line)) {
        for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
            size_t at = lore_str_find(line, lore_str_from(NAMES[i]), 0);
            lore_str name =
                at == SIZE_MAX ? (lore_str){NULL, 0} : lore_str_slice(line, at, line.len);
            if (name.len > 0 && lore_str_find(lore_buf_str(&found), name, 0) == SIZE_MAX) {
                lore_buf_printf(&found, ", " LORE_STR_FMT, LORE_STR_ARG(name));
            }
        }
    }
    report(d, VERDICT_OK, "libraries", "libmicrohttpd %s, %s%s", lore_http_library(),
           lore_client_library(), lore_buf_c(&found));
    if (file != NULL) {
        fclose(file);
    }
    lore_buf_destroy(&found);
    lore_buf_destroy(&maps);
}

/* ---- the models ---- */

static void check_encoder(doctor *d)
{
    lore_error err;
    const lore_config *config = &d->cli->config;
    int64_t start = lore_clock_ns();
    if (d->backend == NULL) {
        return;
    }
    if (lore_embedder_open(config->encoder, d->backend, &config->limits, &d->embedder, &err) !=
        LORE_OK) {
        report(d, VERDICT_FAIL, "encoder", "%s; set encoder in the configuration", err.message);
        return;
    }
    lore_str text = LORE_STR("Does it load?");
    float *vector = lore_alloc((size_t)lore_embedder_dim(d->embedder) * sizeof *vector);
    lore_status status = vector == NULL ? lore_fail(&err, LORE_ERR_NOMEM, "no memory for a vector")
                                        : lore_embedder_encode(d->embedder, &text, 1, vector, &err);
    lore_free(vector);
    if (status != LORE_OK) {
        report(d, VERDICT_FAIL, "encoder", "%s", err.message);
        return;
    }
    report(d, VERDICT_OK, "encoder", "%s, %.1f M parameters, %d dimensions, loads in %.2f s (%s)",
           lore_embedder_name(d->embedder), (double)lore_embedder_parameters(d->embedder) / 1e6,
           (int)lore_embedder_dim(d->embedder), (double)(lore_clock_ns() - start) / 1e9,
           config->encoder);
}

/* The folder opens and a pair of texts gets a score. */
static void check_reranker(doctor *d)
{
    lore_error err;
    const lore_config *config = &d->cli->config;
    int64_t start = lore_clock_ns();
    lore_reranker *reranker = NULL;
    float score = 0;
    if (strcmp(config->reranker, "none") == 0) {
        report(d, VERDICT_OK, "reranker", "none is configured: passages stay as they were found");
        return;
    }
    if (d->backend == NULL) {
        return;
    }
    lore_status status =
        lore_file_is_dir(config->reranker)
            ? lore_reranker_open(config->reranker, d->backend, &config->limits, &reranker, &err)
            : lore_fail(&err, LORE_ERR_NOT_FOUND, "no folder at '%s'", config->reranker);
    if (status == LORE_OK) {
        const lore_str text = LORE_STR("Does it load?");
        status = lore_reranker_score(reranker, text, &text, 1, 0, &score, &err);
    }
    if (status == LORE_OK) {
        report(d, VERDICT_OK, "reranker", "%s (%s), %.1f M parameters, loads in %.2f s (%s)",
               lore_reranker_name(reranker), lore_reranker_family(reranker),
               (double)lore_reranker_parameters(reranker) / 1e6,
               (double)(lore_clock_ns() - start) / 1e9, config->reranker);
    } else {
        report(d, VERDICT_FAIL, "reranker",
               "%s; set reranker in the configuration, or reranker=none", err.message);
    }
    lore_reranker_close(reranker);
}

static void check_decoder(doctor *d)
{
    lore_error err;
    const lore_config *config = &d->cli->config;
    int64_t start = lore_clock_ns();
    lore_backend *backend = NULL;
    lore_decoder *decoder = NULL;
    const lore_decoder_options options = {.kv_dtype = LORE_BF16};
    if (strcmp(config->decoder, "none") == 0) {
        report(d, VERDICT_WARN, "decoder", "none is configured: answers are quotations");
        return;
    }
    if (lore_app_open_device(config, NULL, &backend, &err) != LORE_OK) {
        report(d, VERDICT_FAIL, "decoder", "%s", err.message);
        return;
    }
    if (lore_decoder_open(config->decoder, backend, &config->limits, &options, &decoder, &err) ==
        LORE_OK) {
        const lore_decoder_info *info = lore_decoder_get_info(decoder);
        report(d, VERDICT_OK, "decoder",
               "%s, %.1f M parameters, context %d, %.2f GiB of weights, %.2f GiB of keys and "
               "values, loads in %.2f s (%s)",
               info->name, (double)info->parameters / 1e6, (int)info->context,
               (double)info->weight_bytes / GIB, (double)info->kv_bytes / GIB,
               (double)(lore_clock_ns() - start) / 1e9, config->decoder);
    } else {
        report(d, VERDICT_FAIL, "decoder", "%s; set decoder in the configuration, or decoder=none",
               err.message);
    }
    lore_decoder_close(decoder);
    lore_backend_close(backend);
}

static void check_prompts(doctor *d)
{
    lore_error err;
    lore_prompt_template *opened = NULL;
    const char *folder = d->cli->config.prompts;
    if (lore_prompt_open(folder, LORE_STR("default"), &opened, &err) == LORE_OK) {
        report(d, VERDICT_OK, "prompts", "default.txt in %s", folder);
    } else {
        report(d, VERDICT_FAIL, "prompts", "%s; set prompts in the configuration", err.message);
    }
    lore_prompt_close(opened);
}

/* ---- the data ---- */

static void check_disk(doctor *d, const char *folder)
{
    struct statvfs info;
    if (statvfs(folder, &info) == 0) {
        int64_t free_mb = (int64_t)(info.f_bavail * info.f_frsize / (1024 * 1024));
        bool is_low = free_mb < LOW_DISK_MB;
        report(d, is_low ? VERDICT_WARN : VERDICT_OK, "disk", "%" PRId64 " MB free at %s%s",
               free_mb, folder, is_low ? ": make room before ingesting" : "");
    }
}

static void check_data(doctor *d)
{
    lore_error err;
    lore_cli *cli = d->cli;
    const char *folder = cli->config.data;
    lore_index *index = NULL;
    lore_collection_info *list = NULL;
    int32_t count = 0;
    int64_t documents = 0, chunks = 0;
    lore_index_options options = {.config = &cli->config,
                                  .backend = d->backend,
                                  .encoder =
                                      d->embedder ? lore_embedder_fingerprint(d->embedder) : NULL,
                                  .dim = d->embedder ? lore_embedder_dim(d->embedder) : 0};
    if (d->backend == NULL) {
        return;
    }
    lore_status status = lore_index_open(folder, &options, &index, &err);
    if (status == LORE_OK) {
        status = lore_index_collections(index, &cli->arena, &list, &count, &err);
    }
    for (int32_t i = 0; status == LORE_OK && i < count; i++) {
        documents += list[i].documents;
        chunks += list[i].chunks;
    }
    lore_str server = lore_cli_server(cli, &cli->arena);
    if (status == LORE_OK) {
        report(d, VERDICT_OK, "data",
               "%s: %d collections, %" PRId64 " documents, %" PRId64 " chunks%s" LORE_STR_FMT,
               folder, (int)count, documents, chunks, server.len > 0 ? ", served at " : "",
               LORE_STR_ARG(server));
        check_disk(d, folder);
    } else if (status == LORE_ERR_NOT_FOUND) {
        report(d, VERDICT_WARN, "data", "no data folder at '%s' yet: run `lore ingest PATH`",
               folder);
        check_disk(d, ".");
    } else {
        report(d, VERDICT_FAIL, "data", "%s", err.message);
    }
    lore_index_close(index);
}

int lore_cmd_doctor(lore_cli *cli, int argc, char **argv)
{
    lore_flag_list words = {0};
    int code = lore_cli_parse(cli, NULL, 0, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    doctor d = {.cli = cli};
    lore_buf_init(&d.json, 0);
    lore_json_write_begin(&d.w, &d.json);
    lore_json_object(&d.w, NULL);
    lore_json_string(&d.w, "object", LORE_STR("lore.doctor"));
    lore_json_string(&d.w, "version", LORE_STR(LORE_VERSION));
    lore_json_array(&d.w, "checks");
    check_cpu(&d);
    check_memory(&d);
    check_gpu(&d);
    check_libraries(&d);
    check_encoder(&d);
    check_reranker(&d);
    check_decoder(&d);
    check_prompts(&d);
    check_data(&d);
    lore_json_end(&d.w);
    lore_json_end(&d.w);
    code = cli->is_json ? lore_cli_print_json(cli, &d.json) : LORE_EXIT_DONE;
    lore_embedder_close(d.embedder);
    lore_backend_close(d.backend);
    lore_buf_destroy(&d.json);
    return d.failures > 0 ? LORE_EXIT_FAILED : code;
}
