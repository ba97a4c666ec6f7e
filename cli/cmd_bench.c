/* lore bench: the figures of bench/, made by the binary that users run. Without a word all of them,
 * briefly. */
#include "api/app.h"
#include "base/file.h"
#include "base/json.h"
#include "bench/bench.h"
#include "bench/bench_ops.h"
#include "bench/bench_ops_device.h"
#include "cli/cli.h"

#include <string.h>

enum {
    BRIEF_CASE_MS = 25,
    CLIENTS = 8,
    ADAPTERS_MAX = 1024,
    RANK = 16,
    RANK_MAX = 512,
    CLIENTS_MAX = 64,
    TOKENS_MAX = 32768, /* of a prompt or a context */
    STREAMS_MAX = 256,
    RATE_MAX = 100000,
    SECONDS_MAX = 86400,
    VECTORS_MAX = 50000000,
    CHUNK_MIN = 16,
    CHUNK_MAX = 512,
    FIGURES_BYTES_MAX = 16 << 20
};

typedef struct bench_run {
    lore_cli *cli;
    lore_bench bench;
    lore_bench_ops_options ops;
} bench_run;

static lore_status parse_isa(const char *name, lore_isa *isa, lore_error *err)
{
    for (lore_isa i = LORE_ISA_SCALAR; i <= LORE_ISA_AMX; i++) {
        if (strcmp(name, lore_isa_name(i)) == 0) {
            *isa = i;
            return LORE_OK;
        }
    }
    return lore_fail(err, LORE_ERR_INVALID, "--isa must be scalar, avx2, avx512 or amx, not '%s'",
                     name);
}

static lore_status run_ops(bench_run *run, lore_error *err)
{
    const lore_bench *bench = &run->bench;
    if (!lore_bench_has_gpu(bench)) {
        return lore_bench_ops(&run->ops, err);
    }
    const bool is_f32 = bench->device.precision == LORE_PRECISION_F32;
    const lore_bench_ops_device_options options = {
        .device = bench->device,
        .read_rate = bench->read_rate,
        .multiply_rate = bench->multiply_peak[is_f32 ? LORE_PRECISION_F32 : LORE_PRECISION_BF16],
        .case_ms = run->ops.case_ms,
        .only = run->ops.only,
        .is_json = run->ops.is_json,
        .out = run->ops.out};
    return lore_bench_ops_device(&options, err);
}

/* The op benchmark writes an object a line; they become the members of one section. */
static lore_status run_ops_json(bench_run *run, lore_error *err)
{
    lore_buf text;
    lore_str line;
    FILE *file = tmpfile();
    if (file == NULL) {
        return lore_fail(err, LORE_ERR_IO, "cannot make a temporary file");
    }
    lore_buf_init(&text, 0);
    run->ops.out = file;
    lore_status status = run_ops(run, err);
    if (status == LORE_OK && (fflush(file) != 0 || fseek(file, 0, SEEK_SET) != 0)) {
        status = lore_fail(err, LORE_ERR_IO, "cannot write a temporary file");
    }
    if (status == LORE_OK) {
        status = lore_file_read_fd(fileno(file), "figures", FIGURES_BYTES_MAX, &text, err);
    }
    for (lore_str rest = lore_buf_str(&text);
         status == LORE_OK && lore_str_next_line(&rest, &line);) {
        lore_json_raw(&run->bench.report->w, NULL, line);
    }
    fclose(file);
    lore_buf_destroy(&text);
    return status;
}

static lore_status bench_ops(bench_run *run, lore_error *err)
{
    const char *title = lore_bench_has_gpu(&run->bench)
                            ? "medians of each operation, many back to back"
                            : "best and median of each operation";
    lore_bench_report_section(run->bench.report, "ops", title);
    run->ops.is_json = run->cli->is_json;
    run->ops.out = stdout;
    return run->cli->is_json ? run_ops_json(run, err) : run_ops(run, err);
}

static lore_status bench_serve(lore_bench *bench, lore_error *err)
{
    return bench->soak_seconds > 0 ? lore_bench_soak(bench, err)
           : bench->has_engine     ? lore_bench_rate(bench, err)
                                   : lore_bench_serve(bench, err);
}

/* In the order of a whole run. ops has options of its own. */
static const struct {
    const char *name;
    lore_status (*run)(lore_bench *bench, lore_error *err); /* NULL: ops */
} BENCHES[] = {
    {"ops", NULL},
    {"encode", lore_bench_encode},
    {"prefill", lore_bench_prefill},
    {"decode", lore_bench_decode},
    {"search", lore_bench_search},
    {"ingest", lore_bench_ingest},
    {"start", lore_bench_start},
    {"serve", bench_serve},
};
enum { BENCH_COUNT = sizeof BENCHES / sizeof BENCHES[0] };

static lore_status run_benches(bench_run *run, const char *only, lore_error *err)
{
    lore_status status = lore_bench_open(&run->bench, err);
    lore_limits_settle(&run->cli->config.limits, lore_bench_has_gpu(&run->bench));
    for (int i = 0; i < BENCH_COUNT && status == LORE_OK; i++) {
        if (only == NULL || strcmp(only, BENCHES[i].name) == 0) {
            status =
                BENCHES[i].run != NULL ? BENCHES[i].run(&run->bench, err) : bench_ops(run, err);
        }
        if (status == LORE_OK) {
            status = lore_bench_check_cancelled(&run->bench, err);
        }
    }
    lore_bench_close(&run->bench);
    return status;
}

/* Documents and questions of the demo, where the program stands in its repository: below the
 * working folder, else beside the folder of the prompts. */
static const char *find_demo(lore_cli *cli, const char *name)
{
    lore_str here = lore_str_printf(&cli->arena, "corpora/%s", name);
    lore_str there = lore_str_printf(&cli->arena, "%s/../corpora/%s", cli->config.prompts, name);
    return here.ptr != NULL && !lore_file_exists(here.ptr) && there.ptr != NULL &&
                   lore_file_exists(there.ptr)
               ? there.ptr
               : here.ptr;
}

static bool is_bench(const char *name)
{
    for (int i = 0; i < BENCH_COUNT; i++) {
        if (strcmp(name, BENCHES[i].name) == 0) {
            return true;
        }
    }
    return false;
}

/* "1,8,32": ascending, so that contexts are filled once. */
static lore_status parse_list(const char *text, const char *flag, int32_t max,
                              lore_bench_list *list, lore_error *err)
{
    lore_str rest = lore_str_from(text != NULL ? text : "");
    while (rest.len > 0) {
        int64_t number = 0;
        const size_t comma = lore_str_find(rest, LORE_STR(","), 0);
        const size_t end = comma == SIZE_MAX ? rest.len : comma;
        const int32_t before = list->count > 0 ? list->items[list->count - 1] : 0;
        if (list->count == LORE_BENCH_LIST_MAX ||
            !lore_str_to_int64(lore_str_slice(rest, 0, end), &number) || number <= before ||
            number > max) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "--%s must be at most %d ascending numbers of 1 to %d, not '%s'", flag,
                             (int)LORE_BENCH_LIST_MAX, (int)max, text);
        }
        list->items[list->count++] = (int32_t)number;
        rest = lore_str_slice(rest, end < rest.len ? end + 1 : end, rest.len);
    }
    return LORE_OK;
}

/* What serves other programs and measures nothing itself. */
static int run_for_others(lore_cli *cli, const char *prompts)
{
    lore_error err = {0};
    lore_backend_options device = {0};
    lore_pool *pool = NULL;
    lore_status status = lore_app_device(&cli->config, &device, &err);
    if (status == LORE_OK) {
        status = lore_pool_new((int32_t)cli->config.threads, &pool, &err);
        device.pool = pool;
    }
    if (status == LORE_OK) {
        status = prompts != NULL ? lore_bench_greedy(&cli->config, &device, prompts, &err)
                                 : lore_bench_start_once(&cli->config, &device, &err);
    }
    lore_pool_free(pool);
    return status == LORE_OK ? LORE_EXIT_DONE : lore_cli_fail(cli, &err);
}

static int run_and_print(bench_run *run, const char *only)
{
    lore_error err = {0};
    lore_buf json;
    lore_bench_report report;
    lore_buf_init(&json, 0);
    lore_bench_report_begin(&report, run->cli->is_json ? NULL : stdout,
                            run->cli->is_json ? &json : NULL);
    run->bench.report = &report;
    lore_cli_catch_signals();
    lore_status status = run_benches(run, only, &err);
    lore_bench_report_end(&report);
    int code = status != LORE_OK   ? lore_cli_fail(run->cli, &err)
               : run->cli->is_json ? lore_cli_print_json(run->cli, &json)
                                   : LORE_EXIT_DONE;
    lore_buf_destroy(&json);
    return code;
}

/* Flags as they were typed. */
typedef struct bench_flags {
    const char *isa, *questions, *prompts, *contexts, *batches;
    int64_t case_ms, clients, chunk, vectors, seconds, soak_seconds, adapters, rank;
    bool is_once;
} bench_flags;

/* Into the run; what is wrong with them in err. */
static lore_status take_flags(bench_run *run, const bench_flags *flags, const char *only,
                              lore_error *err)
{
    lore_bench *bench = &run->bench;
    lore_status status = flags->isa != NULL ? parse_isa(flags->isa, &run->ops.isa, err) : LORE_OK;
    if (status == LORE_OK) {
        status = parse_list(flags->prompts, "prompt", TOKENS_MAX, &bench->prompts, err);
    }
    if (status == LORE_OK) {
        status = parse_list(flags->contexts, "context", TOKENS_MAX, &bench->contexts, err);
    }
    if (status == LORE_OK) {
        status = parse_list(flags->batches, "batch", STREAMS_MAX, &bench->batches, err);
    }
    if (status == LORE_OK && !(bench->rate >= 0.0 && bench->rate <= RATE_MAX)) {
        status = lore_fail(err, LORE_ERR_INVALID, "--rate must be at most %d", (int)RATE_MAX);
    }
    if (status == LORE_OK && bench->has_engine && bench->rate == 0.0 && !bench->finds_rate) {
        status = lore_fail(err, LORE_ERR_INVALID, "--engine needs --rate or --find-rate");
    }
    bench->has_engine = bench->has_engine || bench->finds_rate || bench->rate > 0.0;
    run->ops.threads = (int32_t)run->cli->config.threads;
    run->ops.case_ms = flags->case_ms > 0 || only != NULL ? (int32_t)flags->case_ms : BRIEF_CASE_MS;
    bench->config = &run->cli->config;
    bench->is_brief = only == NULL;
    bench->data = run->cli->data;
    bench->questions =
        flags->questions != NULL ? flags->questions : find_demo(run->cli, "qa.jsonl");
    bench->clients = (int32_t)flags->clients;
    bench->chunk = (int32_t)flags->chunk;
    bench->vectors = (int32_t)flags->vectors;
    bench->adapters = (int32_t)flags->adapters;
    bench->adapter_rank = (int32_t)flags->rank;
    bench->seconds = (int32_t)flags->seconds;
    bench->soak_seconds = (int32_t)flags->soak_seconds;
    bench->is_cancelled = lore_cli_is_interrupted;
    return status;
}

static int parse_flags(bench_run *run, bench_flags *to, int argc, char **argv,
                       lore_flag_list *words)
{
    const lore_flag flags[] = {
        {"only", 0, LORE_FLAG_TEXT, &run->ops.only, "TEXT", "ops: cases whose name holds this", 0,
         0},
        {"isa", 0, LORE_FLAG_TEXT, &to->isa, "ISA", "ops: at most scalar, avx2, avx512 or amx", 0,
         0},
        {"case-ms", 0, LORE_FLAG_INTEGER, &to->case_ms, "N", "ops: time spent on one case (200)", 1,
         60000},
        {"questions", 0, LORE_FLAG_TEXT, &to->questions, "FILE",
         "JSONL with \"question\" (corpora/qa.jsonl)", 0, 0},
        {"clients", 0, LORE_FLAG_INTEGER, &to->clients, "N",
         "serve: so many at a time beside one (8)", 1, CLIENTS_MAX},
        {"chunk", 0, LORE_FLAG_INTEGER, &to->chunk, "TOKENS", "encode: tokens of a chunk (200)",
         CHUNK_MIN, CHUNK_MAX},
        {"without-encoder", 0, LORE_FLAG_SWITCH, &run->bench.is_unembedded, NULL,
         "ingest: only the run in which every vector is zeros", 0, 0},
        {"prompt", 0, LORE_FLAG_TEXT, &to->prompts, "LIST",
         "prefill: tokens of prompts (400), as 512,2048", 0, 0},
        {"context", 0, LORE_FLAG_TEXT, &to->contexts, "LIST",
         "decode: tokens before the steps (400)", 0, 0},
        {"batch", 0, LORE_FLAG_TEXT, &to->batches, "LIST",
         "decode: streams at a time (1, 2, 4 and so on)", 0, 0},
        {"adapters", 0, LORE_FLAG_INTEGER, &to->adapters, "N",
         "decode: the same with so many LoRA adapters, in turns", 1, ADAPTERS_MAX},
        {"rank", 0, LORE_FLAG_INTEGER, &to->rank, "N",
         "decode: of these, on all linear layers (16)", 1, RANK_MAX},
        {"vectors", 0, LORE_FLAG_INTEGER, &to->vectors, "N",
         "search: only the exact search of so many random vectors", 1, VECTORS_MAX},
        {"while-ingesting", 0, LORE_FLAG_TEXT, &run->bench.load, "PATH",
         "serve: measure again while this is ingested", 0, 0},
        {"engine", 0, LORE_FLAG_SWITCH, &run->bench.has_engine, NULL,
         "serve: the engine alone, requests at random moments", 0, 0},
        {"rate", 0, LORE_FLAG_NUMBER, &run->bench.rate, "N", "serve --engine: requests a second", 0,
         0},
        {"find-rate", 0, LORE_FLAG_SWITCH, &run->bench.finds_rate, NULL,
         "serve --engine: the highest at which answers begin in 2 s", 0, 0},
        {"seconds", 0, LORE_FLAG_INTEGER, &to->seconds, "N", "serve --engine: of each load (20)", 1,
         SECONDS_MAX},
        {"soak", 0, LORE_FLAG_INTEGER, &to->soak_seconds, "SECONDS",
         "serve: mixed traffic on the engine, then a look for leaks", 1, SECONDS_MAX},
        {"once", 0, LORE_FLAG_SWITCH, &to->is_once, NULL, "start: be the process that is timed", 0,
         0},
    };
    return lore_cli_parse(run->cli, flags, sizeof flags / sizeof flags[0], argc, argv, words);
}

int lore_cmd_bench(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag_list words = {0};
    bench_flags flags = {.clients = CLIENTS, .rank = RANK};
    bench_run run = {.cli = cli};
    int code = parse_flags(&run, &flags, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    const char *only = words.count > 0 ? words.items[0] : NULL;
    const bool is_greedy = only != NULL && strcmp(only, "greedy") == 0;
    if (words.count > 2 || (only != NULL && !is_greedy && !is_bench(only)) ||
        (is_greedy && words.count != 2)) {
        return lore_cli_misuse(cli, "there is no such benchmark: ops, encode, prefill, decode, "
                                    "search, ingest, start or serve, then a folder of documents; "
                                    "or greedy, then a file of prompts");
    }
    if (is_greedy || (flags.is_once && only != NULL && strcmp(only, "start") == 0)) {
        return run_for_others(cli, is_greedy ? words.items[1] : NULL);
    }
    if (take_flags(&run, &flags, only, &err) != LORE_OK) {
        return lore_cli_misuse(cli, "%s", err.message);
    }
    run.bench.documents = words.count > 1 ? words.items[1] : find_demo(cli, "help");
    if (run.bench.documents == NULL || run.bench.questions == NULL) {
        lore_fail(&err, LORE_ERR_NOMEM, "no memory for a path");
        return lore_cli_fail(cli, &err);
    }
    return run_and_print(&run, only);
}
