/* lore adapters: convert what other trainers write. */
#include "base/json.h"
#include "cli/cli.h"
#include "models/adapter_convert.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

static int print_converted(const lore_cli *cli, const char *folder, const lore_convert_result *r)
{
    if (!cli->is_json) {
        printf("%s\n", folder);
        printf("  matrices    %d, of rank %d at most, from %d tensors\n", (int)r->modules,
               (int)r->rank_max, (int)r->tensors_read);
        printf("  bytes       %.1f MB\n", (double)r->size_bytes / 1e6);
        return LORE_EXIT_DONE;
    }
    lore_buf json;
    lore_json_writer w;
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "folder", lore_str_from(folder));
    lore_json_int(&w, "modules", r->modules);
    lore_json_int(&w, "rank_max", r->rank_max);
    lore_json_int(&w, "tensors_read", r->tensors_read);
    lore_json_int(&w, "bytes", r->size_bytes);
    lore_json_end(&w);
    int code = lore_cli_print_json(cli, &json);
    lore_buf_destroy(&json);
    return code;
}

/* One line on standard error, rewritten; false once the user wants to stop. */
static bool show_progress(void *self, int64_t done, int64_t total)
{
    int64_t *shown = self; /* the percent on the line */
    const int64_t percent = total > 0 ? (int64_t)(100.0 * (double)done / (double)total) : 100;
    if (percent != *shown) {
        fprintf(stderr, "\rconverting %3" PRId64 " %%", percent);
        fflush(stderr);
        *shown = percent;
    }
    return !lore_cli_is_interrupted();
}

static bool goes_on(void *self, int64_t done, int64_t total)
{
    (void)self, (void)done, (void)total;
    return !lore_cli_is_interrupted();
}

static int run_convert(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag_list words = {0};
    int64_t shown = -1;
    lore_convert_options options = {.self = &shown};
    lore_convert_result result;
    double alpha = NAN; /* not given */
    const lore_flag flags[] = {
        {"alpha", 0, LORE_FLAG_NUMBER, &alpha, "X",
         "lora_alpha that it was trained with, where its files do not say it", 0, 0},
    };
    int code = lore_cli_parse(cli, flags, 1, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    if (words.count != 4) { /* the first is the verb */
        return lore_cli_misuse(cli, "adapters convert [--alpha X] MODEL ADAPTER NEW-FOLDER");
    }
    if (!isnan(alpha) && !(alpha > 0)) {
        return lore_cli_misuse(cli, "adapters convert: --alpha must be above 0");
    }
    options.alpha = isnan(alpha) ? 0 : alpha;
    options.progress = !cli->is_json && isatty(STDERR_FILENO) ? show_progress : goes_on;
    lore_cli_catch_signals();
    const char *base = lore_cli_model_folder(cli, words.items[1]);
    lore_status status = lore_adapter_convert(base, words.items[2], words.items[3],
                                              &cli->config.limits, &options, &result, &err);
    if (shown >= 0) {
        fprintf(stderr, "\r\033[K");
    }
    if (status != LORE_OK) {
        code = lore_cli_fail(cli, &err);
        return status == LORE_ERR_CANCELLED ? LORE_EXIT_INTERRUPTED : code;
    }
    return print_converted(cli, words.items[3], &result);
}

int lore_cmd_adapters(lore_cli *cli, int argc, char **argv)
{
    const bool is_convert = argc > 1 && strcmp(argv[1], "convert") == 0; /* has flags of its own */
    return is_convert ? run_convert(cli, argc, argv) : lore_cmd_adapters_served(cli, argc, argv);
}
