/* lore bench: the figures of bench/, made by the binary that users run. Without a word all of them,
 * briefly. */
#include "base/file.h"
#include "base/json.h"
#include "bench/bench.h"
#include "bench/bench_ops.h"
#include "cli/cli.h"

#include <string.h>

enum {
    BRIEF_CASE_MS = 25,
    CLIENTS = 8,
    CLIENTS_MAX = 64,
    PROMPT_MAX = 4096,
    STREAMS_MAX = 32,
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
    lore_status status = lore_bench_ops(&run->ops, err);
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
    lore_bench_report_section(run->bench.report, "ops", "best and median of each operation");
    run->ops.is_json = run->cli->is_json;
    run->ops.out = stdout;
    return run->cli->is_json ? run_ops_json(run, err) : lore_bench_ops(&run->ops, err);
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
    {"serve", lore_bench_serve},
};
enum { BENCH_COUNT = sizeof BENCHES / sizeof BENCHES[0] };

static lore_status run_benches(bench_run *run, const char *only, lore_error *err)
{
    lore_status status = lore_bench_open(&run->bench, err);
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

int lore_cmd_bench(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag_list words = {0};
    const char *isa = NULL, *questions = NULL;
    int64_t case_ms = 0, clients = CLIENTS, prompt = 0, streams = 0, chunk = 0;
    bench_run run = {.cli = cli};
    const lore_flag flags[] = {
        {"only", 0, LORE_FLAG_TEXT, &run.ops.only, "TEXT", "ops: cases whose name holds this", 0,
         0},
        {"isa", 0, LORE_FLAG_TEXT, &isa, "ISA", "ops: at most scalar, avx2, avx512 or amx", 0, 0},
        {"case-ms", 0, LORE_FLAG_INTEGER, &case_ms, "N", "ops: time spent on one case (200)", 1,
         60000},
        {"questions", 0, LORE_FLAG_TEXT, &questions, "FILE",
         "JSONL with \"question\" (corpora/qa.jsonl)", 0, 0},
        {"clients", 0, LORE_FLAG_INTEGER, &clients, "N", "serve: so many at a time beside one (8)",
         1, CLIENTS_MAX},
        {"chunk", 0, LORE_FLAG_INTEGER, &chunk, "TOKENS", "encode: tokens of a chunk (200)",
         CHUNK_MIN, CHUNK_MAX},
        {"prompt", 0, LORE_FLAG_INTEGER, &prompt, "N", "prefill, decode: tokens of a prompt (400)",
         1, PROMPT_MAX},
        {"streams", 0, LORE_FLAG_INTEGER, &streams, "N",
         "decode: only so many at a time (1, 2, 4 and so on)", 1, STREAMS_MAX},
        {"while-ingesting", 0, LORE_FLAG_TEXT, &run.bench.load, "PATH",
         "serve: measure again while this is ingested", 0, 0},
    };
    int code = lore_cli_parse(cli, flags, sizeof flags / sizeof flags[0], argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    const char *only = words.count > 0 ? words.items[0] : NULL;
    if (words.count > 2 || (only != NULL && !is_bench(only))) {
        return lore_cli_misuse(cli, "there is no such benchmark: ops, encode, prefill, decode, "
                                    "search, ingest or serve, then a folder of documents");
    }
    if (isa != NULL && parse_isa(isa, &run.ops.isa, &err) != LORE_OK) {
        return lore_cli_misuse(cli, "%s", err.message);
    }
    run.ops.threads = (int32_t)cli->config.threads;
    run.ops.case_ms = case_ms > 0 || only != NULL ? (int32_t)case_ms : BRIEF_CASE_MS;
    run.bench.config = &cli->config;
    run.bench.is_brief = only == NULL;
    run.bench.data = cli->data;
    run.bench.documents = words.count > 1 ? words.items[1] : find_demo(cli, "help");
    run.bench.questions = questions != NULL ? questions : find_demo(cli, "qa.jsonl");
    run.bench.clients = (int32_t)clients;
    run.bench.prompt = (int32_t)prompt;
    run.bench.chunk = (int32_t)chunk;
    run.bench.streams = (int32_t)streams;
    run.bench.is_cancelled = lore_cli_is_interrupted;
    if (run.bench.documents == NULL || run.bench.questions == NULL) {
        lore_fail(&err, LORE_ERR_NOMEM, "no memory for a path");
        return lore_cli_fail(cli, &err);
    }
    return run_and_print(&run, only);
}
