/* lore backup and lore restore: an index as one file, and back. */
#include "index/backup.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <time.h>
#include <unistd.h>

typedef struct copy_run {
    const char *verb;
    bool has_terminal;
} copy_run;

static bool show_progress(void *self, int64_t done, int64_t total)
{
    const copy_run *run = self;
    if (run->has_terminal && total > 0) {
        fprintf(stderr, "\r%s %3" PRId64 " %%", run->verb, 100 * done / total);
        fflush(stderr);
    }
    return !lore_cli_is_interrupted();
}

static int print_info(const lore_cli *cli, const char *object, const char *file,
                      const lore_backup_info *info, double seconds)
{
    lore_buf json;
    lore_json_writer w;
    if (!cli->is_json) {
        lore_print_plain(stdout, lore_str_from(file));
        printf(": %" PRId64 " documents in %" PRId64 " collections, %" PRId64 " chunks, %.1f MB, "
               "%.1f s\n",
               info->documents, info->collections, info->chunks, (double)info->size_bytes / 1e6,
               seconds);
        return LORE_EXIT_DONE;
    }
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "object", lore_str_from(object));
    lore_json_string(&w, "file", lore_str_from(file));
    lore_json_int(&w, "collections", info->collections);
    lore_json_int(&w, "documents", info->documents);
    lore_json_int(&w, "chunks", info->chunks);
    lore_json_int(&w, "bytes", info->size_bytes);
    lore_json_double(&w, "seconds", seconds);
    lore_json_end(&w);
    int code = lore_cli_print_json(cli, &json);
    lore_buf_destroy(&json);
    return code;
}

/* A folder is given: a file in it that says when it was made. */
static const char *file_in(lore_cli *cli, const char *path)
{
    char stamp[32];
    time_t now = (time_t)(lore_clock_unix_ms() / 1000);
    struct tm utc;
    if (!lore_file_is_dir(path) || gmtime_r(&now, &utc) == NULL) {
        return path;
    }
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &utc);
    return lore_str_printf(&cli->arena, "%s/lore-%s.backup", path, stamp).ptr;
}

static int run_copy(lore_cli *cli, int argc, char **argv, bool is_restore)
{
    lore_error err;
    lore_flag_list words = {0};
    lore_backup_info info = {0};
    const char *name = is_restore ? "restore" : "backup";
    copy_run run = {name, false};
    int code = lore_cli_parse(cli, NULL, 0, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    if (words.count != 1) {
        return lore_cli_misuse(cli, "%s takes one file: --data names the folder", name);
    }
    const lore_backup_options options = {show_progress, &run};
    run.has_terminal = !cli->is_json && isatty(STDERR_FILENO) != 0;
    const char *file = is_restore ? words.items[0] : file_in(cli, words.items[0]);
    if (file == NULL) {
        (void)lore_fail(&err, LORE_ERR_NOMEM, "no memory for a path");
        return lore_cli_fail(cli, &err);
    }
    lore_cli_catch_signals();
    int64_t begun_ns = lore_clock_ns();
    lore_status status = is_restore ? lore_restore(file, cli->config.data, &options, &info, &err)
                                    : lore_backup(cli->config.data, file, &options, &info, &err);
    if (run.has_terminal) {
        fprintf(stderr, "\r\033[K");
    }
    return status == LORE_OK ? print_info(cli, is_restore ? "lore.restore" : "lore.backup", file,
                                          &info, (double)(lore_clock_ns() - begun_ns) / 1e9)
                             : lore_cli_fail(cli, &err);
}

int lore_cmd_backup(lore_cli *cli, int argc, char **argv)
{
    return run_copy(cli, argc, argv, false);
}

int lore_cmd_restore(lore_cli *cli, int argc, char **argv)
{
    return run_copy(cli, argc, argv, true);
}
