/* lore fsck: is the data folder whole, and what can be mended. */
#include "base/json.h"
#include "cli/cli.h"
#include "index/fsck.h"

#include <inttypes.h>

enum { SHOWN = 10 }; /* subjects of a finding; --json has more */

static void print_report(const lore_fsck_report *report)
{
    for (int32_t i = 0; i < report->count; i++) {
        const lore_fsck_finding *finding = &report->findings[i];
        printf("%s  %" PRId64 "  %s%s\n", finding->name, finding->count, finding->what,
               finding->is_mended ? " (mended)" : "");
        for (int32_t j = 0; j < finding->subject_count && j < SHOWN; j++) {
            printf("    ");
            lore_print_plain(stdout, finding->subjects[j]);
            putchar('\n');
        }
        if (finding->count > SHOWN) {
            printf("    ... %" PRId64 " more\n", finding->count - SHOWN);
        }
    }
    printf("%" PRId64 " documents, %" PRId64 " chunks, %" PRId64 " vectors, %" PRId64
           " files: %s\n",
           report->documents, report->chunks, report->vectors, report->files,
           report->count == 0 ? "nothing wrong" : "see above");
    if (report->is_served) {
        fprintf(stderr, "another process has the folder: it was looked at as of one moment, and "
                        "stray files were not looked for\n");
    }
}

static int print_json(const lore_cli *cli, const lore_fsck_report *report, bool is_clean)
{
    lore_buf json;
    lore_json_writer w;
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "object", LORE_STR("lore.fsck"));
    lore_json_boolean(&w, "clean", is_clean);
    lore_json_boolean(&w, "served", report->is_served);
    lore_json_int(&w, "documents", report->documents);
    lore_json_int(&w, "chunks", report->chunks);
    lore_json_int(&w, "vectors", report->vectors);
    lore_json_int(&w, "files", report->files);
    lore_json_array(&w, "findings");
    for (int32_t i = 0; i < report->count; i++) {
        const lore_fsck_finding *finding = &report->findings[i];
        lore_json_object(&w, NULL);
        lore_json_string(&w, "name", lore_str_from(finding->name));
        lore_json_string(&w, "message", lore_str_from(finding->what));
        lore_json_int(&w, "count", finding->count);
        lore_json_boolean(&w, "mended", finding->is_mended);
        lore_json_boolean(&w, "loss", finding->is_loss);
        lore_json_array(&w, "subjects");
        for (int32_t j = 0; j < finding->subject_count; j++) {
            lore_json_string(&w, NULL, finding->subjects[j]);
        }
        lore_json_end(&w);
        lore_json_end(&w);
    }
    lore_json_end(&w);
    lore_json_end(&w);
    int code = lore_cli_print_json(cli, &json);
    lore_buf_destroy(&json);
    return code;
}

int lore_cmd_fsck(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag_list words = {0};
    lore_fsck_report report = {0};
    lore_fsck_options options = {.config = &cli->config};
    const lore_backend_options backend_options = {.kind = LORE_BACKEND_CPU};
    lore_backend *backend = NULL;
    const lore_flag flags[] = {
        {"repair", 0, LORE_FLAG_SWITCH, &options.repair, NULL, "mend what can be mended", 0, 0},
    };
    int code = lore_cli_parse(cli, flags, sizeof flags / sizeof flags[0], argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    if (words.count > 0) {
        return lore_cli_misuse(cli, "fsck takes no arguments: --data names the folder");
    }
    lore_status status = lore_backend_open(&backend_options, &backend, &err);
    options.backend = backend;
    if (status == LORE_OK) {
        status = lore_fsck(cli->config.data, &options, &cli->arena, &report, &err);
    }
    lore_backend_close(backend);
    if (status != LORE_OK) {
        return lore_cli_fail(cli, &err);
    }
    bool is_clean = true, is_loss = false;
    for (int32_t i = 0; i < report.count; i++) {
        is_clean = is_clean && report.findings[i].is_mended;
        is_loss = is_loss || report.findings[i].is_loss;
    }
    if (cli->is_json) {
        code = print_json(cli, &report, is_clean);
    } else {
        print_report(&report);
        code = LORE_EXIT_DONE;
    }
    return code != LORE_EXIT_DONE ? code
           : !is_clean            ? LORE_EXIT_FAILED
           : is_loss              ? LORE_EXIT_PARTLY
                                  : LORE_EXIT_DONE;
}
