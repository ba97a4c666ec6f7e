/* lore bench: the figures of bench/, made by the binary that users run. `ops` is the only one so
 * far, and what runs when none is named. */
#include "base/file.h"
#include "base/json.h"
#include "bench/bench_ops.h"
#include "cli/cli.h"

#include <string.h>

enum { FIGURES_BYTES_MAX = 16 << 20 };

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

/* The benchmark writes an object a line; the command's promise is one object in all. */
static lore_status run_json(const lore_cli *cli, lore_bench_ops_options *options, lore_error *err)
{
    lore_buf text, json;
    lore_json_writer w;
    lore_str line;
    FILE *file = tmpfile();
    if (file == NULL) {
        return lore_fail(err, LORE_ERR_IO, "cannot make a temporary file");
    }
    lore_buf_init(&text, 0);
    lore_buf_init(&json, 0);
    options->out = file;
    lore_status status = lore_bench_ops(options, err);
    if (status == LORE_OK && (fflush(file) != 0 || fseek(file, 0, SEEK_SET) != 0)) {
        status = lore_fail(err, LORE_ERR_IO, "cannot write a temporary file");
    }
    if (status == LORE_OK) {
        status = lore_file_read_fd(fileno(file), "figures", FIGURES_BYTES_MAX, &text, err);
    }
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "object", LORE_STR("lore.bench"));
    lore_json_array(&w, "ops");
    for (lore_str rest = lore_buf_str(&text); lore_str_next_line(&rest, &line);) {
        lore_json_raw(&w, NULL, line);
    }
    lore_json_end(&w);
    lore_json_end(&w);
    if (status == LORE_OK && lore_cli_print_json(cli, &json) != LORE_EXIT_DONE) {
        status = lore_fail(err, LORE_ERR_NOMEM, "no memory for the figures");
    }
    fclose(file);
    lore_buf_destroy(&json);
    lore_buf_destroy(&text);
    return status;
}

int lore_cmd_bench(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag_list words = {0};
    const char *isa = NULL;
    int64_t case_ms = 0;
    lore_bench_ops_options options = {.out = stdout};
    const lore_flag flags[] = {
        {"only", 0, LORE_FLAG_TEXT, &options.only, "TEXT", "cases whose name holds this", 0, 0},
        {"isa", 0, LORE_FLAG_TEXT, &isa, "ISA", "at most scalar, avx2, avx512 or amx", 0, 0},
        {"case-ms", 0, LORE_FLAG_INTEGER, &case_ms, "N", "time spent on one case (200)", 1, 60000},
    };
    int code = lore_cli_parse(cli, flags, sizeof flags / sizeof flags[0], argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    if (words.count > 1 || (words.count == 1 && strcmp(words.items[0], "ops") != 0)) {
        return lore_cli_misuse(cli, "there is no such benchmark: lore bench ops");
    }
    if (isa != NULL && parse_isa(isa, &options.isa, &err) != LORE_OK) {
        return lore_cli_misuse(cli, "%s", err.message);
    }
    options.threads = (int32_t)cli->config.threads;
    options.case_ms = (int32_t)case_ms;
    options.is_json = cli->is_json;
    lore_status status =
        cli->is_json ? run_json(cli, &options, &err) : lore_bench_ops(&options, &err);
    return status == LORE_OK ? LORE_EXIT_DONE : lore_cli_fail(cli, &err);
}
