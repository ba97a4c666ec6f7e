/* lore models merge-lora: a model folder with an adapter in its weights. */
#include "base/json.h"
#include "cli/cli.h"
#include "models/merge_lora.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

typedef struct merge_run {
    const char *base, *adapter, *to;
    const lore_dtype *dtype;
    const char *type; /* of the flag; NULL: not given */
    lore_pool *pool;
    lore_merge_result result;
    int64_t shown; /* last number of the progress line */
    bool has_terminal;
} merge_run;

/* One line on standard error, rewritten; false once the user wants to stop. */
static bool show_progress(void *self, int64_t done, int64_t total)
{
    merge_run *run = self;
    const int64_t percent = total > 0 ? (int64_t)(100.0 * (double)done / (double)total) : 100;
    if (run->has_terminal && percent != run->shown) {
        fprintf(stderr, "\rmerging %3" PRId64 " %%", percent);
        fflush(stderr);
        run->shown = percent;
    }
    return !lore_cli_is_interrupted();
}

static int print_result(const lore_cli *cli, const merge_run *run)
{
    const lore_merge_result *r = &run->result;
    if (!cli->is_json) {
        printf("%s\n", run->to);
        printf("  changed     %d matrices of %d tensors in %d file%s%s\n", (int)r->modules,
               (int)r->tensors, (int)r->files, r->files > 1 ? "s" : "",
               r->is_untied ? "; the head has weights of its own now" : "");
        printf("  bytes       %.1f MB, were %.1f MB\n", (double)r->bytes_after / 1e6,
               (double)r->bytes_before / 1e6);
        return LORE_EXIT_DONE;
    }
    lore_buf json;
    lore_json_writer w;
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "folder", lore_str_from(run->to));
    if (run->type != NULL) {
        lore_json_string(&w, "dtype", lore_str_from(run->type));
    } else {
        lore_json_null(&w, "dtype"); /* as the base has them */
    }
    lore_json_int(&w, "modules", r->modules);
    lore_json_int(&w, "tensors", r->tensors);
    lore_json_int(&w, "files", r->files);
    lore_json_boolean(&w, "untied", r->is_untied);
    lore_json_int(&w, "bytes_before", r->bytes_before);
    lore_json_int(&w, "bytes_after", r->bytes_after);
    lore_json_end(&w);
    int code = lore_cli_print_json(cli, &json);
    lore_buf_destroy(&json);
    return code;
}

static int run_merge(lore_cli *cli, merge_run *run)
{
    lore_error err;
    run->has_terminal = !cli->is_json && isatty(STDERR_FILENO);
    run->shown = -1;
    lore_cli_catch_signals();
    lore_status status = lore_pool_new((int32_t)cli->config.threads, &run->pool, &err);
    if (status == LORE_OK) {
        const lore_merge_options options = {
            .to = run->dtype, .pool = run->pool, .progress = show_progress, .self = run};
        status = lore_merge_lora(run->base, run->adapter, run->to, &cli->config.limits, &options,
                                 &run->result, &err);
    }
    if (run->has_terminal && run->shown >= 0) {
        fprintf(stderr, "\r\033[K");
    }
    lore_pool_free(run->pool);
    if (status != LORE_OK) {
        int code = lore_cli_fail(cli, &err);
        return status == LORE_ERR_CANCELLED ? LORE_EXIT_INTERRUPTED : code;
    }
    return print_result(cli, run);
}

int lore_cmd_models_merge(lore_cli *cli, int argc, char **argv)
{
    static const struct {
        const char *name;
        lore_dtype dtype;
    } TYPES[] = {{"bf16", LORE_BF16}, {"f16", LORE_F16}, {"f32", LORE_F32}};
    lore_flag_list words = {0};
    merge_run run = {0};
    const lore_flag flags[] = {
        {"to", 0, LORE_FLAG_TEXT, &run.type, "TYPE",
         "bf16, f16 or f32 for all tensors; otherwise as the base has them", 0, 0},
    };
    int code = lore_cli_parse(cli, flags, 1, argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    for (size_t i = 0; run.type != NULL && i < sizeof TYPES / sizeof TYPES[0]; i++) {
        if (strcmp(run.type, TYPES[i].name) == 0) {
            run.dtype = &TYPES[i].dtype;
        }
    }
    if (run.type != NULL && run.dtype == NULL) {
        return lore_cli_misuse(cli, "models merge-lora: --to must be bf16, f16 or f32");
    }
    if (words.count != 4) { /* the first is the verb */
        return lore_cli_misuse(cli, "models merge-lora [--to TYPE] MODEL ADAPTER NEW-FOLDER");
    }
    run.base = lore_cli_model_folder(cli, words.items[1]);
    run.adapter = words.items[2];
    run.to = words.items[3];
    return run_merge(cli, &run);
}
