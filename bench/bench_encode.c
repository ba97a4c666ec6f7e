/* lore bench encode: chunks a second through the encoder as ingest uses it, and one question as a
 * query does.
 *
 * Chunks are cut from the documents at exact token counts, so that a figure means the same
 * everywhere. The share counts the products with weight matrices alone (two operations a weight and
 * token) against the multiply rate: attention, norms and tables are the encoder's overhead. A GPU
 * gets many chunks with each call, as an ingest gives them. */
#include "api/app.h"
#include "base/clock.h"
#include "bench/bench.h"

#include <string.h>
#include <sys/stat.h>

enum {
    CHUNK_TOKENS =
        200, /* unless others are asked for; with the marks that the encoder puts around */
    CHUNK_TOKENS_MAX = 512,
    CHUNKS = 32, /* of one call, */
    CHUNKS_GPU = 2048,
    TEXT_BYTES = CHUNKS * CHUNK_TOKENS_MAX * 8,
    ENCODE_MS = 3000,
    QUESTION_RUNS = 400,
    RUNS_MIN = 3
};

typedef struct encoding {
    lore_bench *bench;
    lore_embedder *embedder;
    int32_t chunk_tokens, count; /* of a chunk; of a call */
    lore_str chunks[CHUNKS_GPU];
    float *vectors; /* [count, dim] */
} encoding;

/* The precision of its weights: the file holds about so many bytes a parameter. */
static lore_precision precision_of(const lore_config *config, int64_t parameters)
{
    char path[sizeof config->encoder + 32];
    struct stat info;
    snprintf(path, sizeof path, "%s/model.safetensors", config->encoder);
    int64_t bytes = stat(path, &info) == 0 ? (int64_t)info.st_size : 0;
    if (strcmp(config->precision, "auto") != 0) {
        return strcmp(config->precision, "int8") == 0   ? LORE_PRECISION_INT8
               : strcmp(config->precision, "bf16") == 0 ? LORE_PRECISION_BF16
                                                        : LORE_PRECISION_F32;
    }
    return bytes > 0 && bytes < 3 * parameters / 2 ? LORE_PRECISION_INT8 : LORE_PRECISION_BF16;
}

/* Weights that are multiplied with, a token: all but the tables of words and positions. */
static double multiplied(const lore_embedder *embedder)
{
    int64_t rows = lore_tokenizer_vocab(lore_embedder_tokenizer(embedder)) +
                   lore_embedder_tokens_max(embedder);
    return (double)(lore_embedder_parameters(embedder) - rows * lore_embedder_dim(embedder));
}

static lore_status cut_chunks(encoding *e, lore_error *err)
{
    const lore_tokenizer *tokenizer = lore_embedder_tokenizer(e->embedder);
    lore_str text = {0};
    lore_tokens tokens = {0};
    int32_t prefix = 0, suffix = 0;
    (void)lore_tokenizer_prefix(tokenizer, &prefix);
    (void)lore_tokenizer_suffix(tokenizer, &suffix);
    lore_status status = lore_bench_text(e->bench, TEXT_BYTES, &text, err);
    if (status == LORE_OK) {
        status = lore_tokenizer_encode(tokenizer, text, (lore_encode_options){0}, &e->bench->arena,
                                       &tokens, err);
    }
    int32_t own = e->chunk_tokens - prefix - suffix;
    if (status == LORE_OK && tokens.count < 2 * own) {
        return lore_fail(err, LORE_ERR_INVALID, "'%s' has %d tokens, %d are needed",
                         e->bench->documents, tokens.count, 2 * own);
    }
    int32_t cuts = tokens.count / own - (tokens.count % own == 0);
    for (int32_t i = 0; i < e->count && status == LORE_OK; i++) {
        int32_t at = i % cuts * own; /* a small corpus comes again */
        e->chunks[i] = lore_str_slice(text, tokens.starts[at], tokens.starts[at + own]);
    }
    return status;
}

static lore_status encode_chunks(encoding *e, lore_error *err)
{
    return lore_bench_has_gpu(e->bench)
               ? lore_embedder_encode_bulk(e->embedder, e->chunks, e->count, e->vectors, err)
               : lore_embedder_encode(e->embedder, e->chunks, e->count, e->vectors, err);
}

/* Chunks a second, and how that spread; the floor of a call is its products with weights. */
static void report_chunks(const encoding *e, lore_bench_samples *rates)
{
    char name[64];
    const double rate = lore_bench_percentile(rates, 50.0);
    const double peak =
        e->bench
            ->multiply_peak[precision_of(e->bench->config, lore_embedder_parameters(e->embedder))];
    const double operations = 2.0 * multiplied(e->embedder) * e->chunk_tokens;
    snprintf(name, sizeof name, "chunks of %d tokens, %d at a time", e->chunk_tokens, e->count);
    lore_bench_report_figure(
        e->bench->report, &(lore_bench_figure){.name = name,
                                               .value = rate,
                                               .unit = "chunks/s",
                                               .share = peak > 0.0 ? operations * rate / peak : 0.0,
                                               .limit = "of the multiply rate",
                                               .samples = rates->count});
    for (int32_t i = 0; i < rates->count / 2; i++) { /* times, ascending again */
        const double slow = rates->items[i];
        rates->items[i] = rates->items[rates->count - 1 - i];
        rates->items[rates->count - 1 - i] = slow;
    }
    for (int32_t i = 0; i < rates->count; i++) {
        rates->items[i] = e->count * 1e3 / rates->items[i];
    }
    lore_bench_report_median(e->bench->report, "  a call", "ms", rates,
                             peak > 0.0 ? operations * e->count / peak * 1e3 : 0.0);
}

static lore_status bench_chunks(encoding *e, lore_error *err)
{
    lore_bench_samples rates = {0};
    const int64_t budget_ns = lore_bench_budget(e->bench, ENCODE_MS) * 1000000;
    lore_status status = encode_chunks(e, err);
    const int64_t start = lore_clock_ns();
    while (status == LORE_OK && (rates.count < RUNS_MIN || lore_clock_ns() - start < budget_ns)) {
        const int64_t begin = lore_clock_ns();
        status = encode_chunks(e, err);
        lore_bench_sample(&rates, e->count / ((double)(lore_clock_ns() - begin) * 1e-9));
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&rates, "encoding", err);
    }
    if (status == LORE_OK) {
        report_chunks(e, &rates);
    }
    lore_bench_samples_destroy(&rates);
    return status;
}

static lore_status bench_questions(encoding *e, lore_error *err)
{
    lore_str *questions = NULL;
    int32_t count = 0;
    lore_bench_samples times = {0};
    lore_status status = lore_bench_questions(e->bench, &questions, &count, err);
    for (int64_t i = 0; status == LORE_OK && i < lore_bench_budget(e->bench, QUESTION_RUNS); i++) {
        const int64_t begin = lore_clock_ns();
        status = lore_embedder_encode(e->embedder, &questions[i % count], 1, e->vectors, err);
        lore_bench_sample(&times, (double)(lore_clock_ns() - begin) * 1e-6);
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&times, "encoding a question", err);
    }
    if (status == LORE_OK) {
        lore_bench_report_times(e->bench->report, "one question", "ms", &times);
    }
    lore_bench_samples_destroy(&times);
    return status;
}

static lore_status run_encode(encoding *e, lore_backend *backend, lore_error *err)
{
    lore_bench *bench = e->bench;
    lore_status status = lore_embedder_open(bench->config->encoder, backend, &bench->config->limits,
                                            &e->embedder, err);
    if (status != LORE_OK) {
        return status;
    }
    e->vectors =
        LORE_PUSH(&bench->arena, float, (size_t)(e->count * lore_embedder_dim(e->embedder)));
    if (e->vectors == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for vectors");
    }
    lore_bench_report_section(bench->report, "encode", lore_embedder_name(e->embedder));
    status = cut_chunks(e, err);
    if (status == LORE_OK) {
        status = bench_chunks(e, err);
    }
    return status == LORE_OK ? bench_questions(e, err) : status;
}

lore_status lore_bench_encode(lore_bench *bench, lore_error *err)
{
    encoding *e = LORE_PUSH(&bench->arena, encoding, 1);
    lore_backend *backend = NULL;
    if (e == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for chunks");
    }
    e->bench = bench;
    e->chunk_tokens = bench->chunk > 0 ? bench->chunk : CHUNK_TOKENS;
    e->count = lore_bench_has_gpu(bench) ? CHUNKS_GPU : CHUNKS;
    lore_status status = lore_backend_open(&bench->device, &backend, err);
    if (status == LORE_OK) {
        status = run_encode(e, backend, err);
    }
    lore_embedder_close(e->embedder);
    lore_backend_close(backend);
    return status;
}
