/* lore models quantize: a folder in eight or four bits, and what that costs.
 *
 * With a text the cost is the decoder's perplexity on it before and after, computed as the program
 * computes answers (the cpu backend, its default precision); what goes into each matrix meanwhile
 * weighs the errors of int4. Without a text only the error of the weights can be said. */
#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"
#include "models/perplexity.h"
#include "models/quantize.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES_MAX = 64 << 20, WINDOWS_MAX = 64 };

typedef struct quantize_run {
    const char *from, *to;
    const char *calibration; /* NULL: none */
    lore_dtype dtype;
    int64_t group;
    bool is_portable;
    lore_pool *pool;
    lore_backend *backend;
    lore_activations *activations;
    lore_quantize_result result;
    lore_perplexity_result before, after;
    const char *stage; /* of the progress line */
    int64_t shown;     /* its last number */
    bool has_terminal;
} quantize_run;

/* One line on standard error, rewritten; false once the user wants to stop. */
static bool show_progress(void *self, int64_t done, int64_t total)
{
    quantize_run *run = self;
    int64_t percent = total > 0 ? (int64_t)(100.0 * (double)done / (double)total) : 100;
    if (run->has_terminal && percent != run->shown) {
        fprintf(stderr, "\r%s %3" PRId64 " %%", run->stage, percent);
        fflush(stderr);
        run->shown = percent;
    }
    return !lore_cli_is_interrupted();
}

static void begin_stage(quantize_run *run, const char *stage)
{
    run->stage = stage;
    run->shown = -1;
}

static void end_stage(const quantize_run *run)
{
    if (run->has_terminal && run->shown >= 0) {
        fprintf(stderr, "\r\033[K");
    }
}

static lore_status measure(quantize_run *run, const lore_limits *limits, const char *folder,
                           lore_str text, const char *stage, lore_activations *activations,
                           lore_perplexity_result *result, lore_error *err)
{
    const lore_perplexity_options options = {.windows_max = WINDOWS_MAX,
                                             .activations = activations,
                                             .progress = show_progress,
                                             .self = run};
    begin_stage(run, stage);
    lore_status status = lore_perplexity(folder, run->backend, limits, text, &options, result, err);
    end_stage(run);
    return status;
}

static lore_status write_folder(quantize_run *run, const lore_limits *limits, lore_error *err)
{
    const lore_quantize_options options = {.to = run->dtype,
                                           .group = (int32_t)run->group,
                                           .is_portable = run->is_portable,
                                           .pool = run->pool,
                                           .activations = run->activations,
                                           .progress = show_progress,
                                           .self = run};
    begin_stage(run, "quantising");
    lore_status status = lore_quantize(run->from, run->to, limits, &options, &run->result, err);
    end_stage(run);
    return status;
}

/* The text is read and the first perplexity taken before anything is written, so that a file that
 * is missing or a folder that is no decoder costs nothing. */
static lore_status quantize(quantize_run *run, const lore_limits *limits, lore_error *err)
{
    lore_buf text;
    lore_status status = LORE_OK;
    lore_buf_init(&text, 0);
    if (run->calibration != NULL) {
        status = lore_file_read(run->calibration, TEXT_BYTES_MAX, &text, err);
        if (status == LORE_OK) {
            status = lore_activations_new(&run->activations, err);
        }
        if (status == LORE_OK) {
            status = measure(run, limits, run->from, lore_buf_str(&text), "perplexity before",
                             run->activations, &run->before, err);
        }
    }
    if (status == LORE_OK) {
        status = write_folder(run, limits, err);
    }
    if (status == LORE_OK && run->calibration != NULL) {
        status = measure(run, limits, run->to, lore_buf_str(&text), "perplexity after", NULL,
                         &run->after, err);
    }
    lore_buf_destroy(&text);
    return status;
}

/* ---- printing ---- */

static double change_percent(const quantize_run *run)
{
    return 100 * (run->after.perplexity / run->before.perplexity - 1);
}

static void print_result(const quantize_run *run)
{
    const lore_quantize_result *r = &run->result;
    printf("%s\n", run->to);
    printf("  matrices    %d in int4, %d in int8; %d tensors as they were\n", (int)r->matrices_i4,
           (int)r->matrices_i8, (int)r->tensors_kept);
    printf("  bytes       %.1f MB, were %.1f MB\n", (double)r->bytes_after / 1e6,
           (double)r->bytes_before / 1e6);
    printf("  error       %.3f %% of the weights (root of mean squares)\n",
           100 * r->relative_error);
    if (run->calibration != NULL) {
        printf("  perplexity  %.4f, was %.4f (%+.2f %%) on %" PRId64 " tokens\n",
               run->after.perplexity, run->before.perplexity, change_percent(run),
               run->after.tokens);
    } else {
        printf("  perplexity  not measured: no text was given (--calibration FILE)\n");
    }
}

static int print_json(const lore_cli *cli, const quantize_run *run)
{
    const lore_quantize_result *r = &run->result;
    lore_buf json;
    lore_json_writer w;
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "folder", lore_str_from(run->to));
    lore_json_string(&w, "dtype", run->dtype == LORE_I4 ? LORE_STR("int4") : LORE_STR("int8"));
    lore_json_int(&w, "matrices_int4", r->matrices_i4);
    lore_json_int(&w, "matrices_int8", r->matrices_i8);
    lore_json_int(&w, "tensors_kept", r->tensors_kept);
    lore_json_int(&w, "files", r->files);
    lore_json_int(&w, "bytes_before", r->bytes_before);
    lore_json_int(&w, "bytes_after", r->bytes_after);
    lore_json_float(&w, "relative_error", r->relative_error);
    if (run->calibration != NULL) {
        lore_json_float(&w, "perplexity_before", run->before.perplexity);
        lore_json_float(&w, "perplexity_after", run->after.perplexity);
        lore_json_int(&w, "perplexity_tokens", run->after.tokens);
    }
    lore_json_end(&w);
    int code = lore_cli_print_json(cli, &json);
    lore_buf_destroy(&json);
    return code;
}

/* ---- the command ---- */

static int run_quantize(lore_cli *cli, quantize_run *run)
{
    lore_error err;
    run->has_terminal = !cli->is_json && isatty(STDERR_FILENO);
    lore_cli_catch_signals();
    lore_status status = lore_pool_new((int32_t)cli->config.threads, &run->pool, &err);
    if (status == LORE_OK) {
        const lore_backend_options options = {.kind = LORE_BACKEND_CPU, .pool = run->pool};
        status = lore_backend_open(&options, &run->backend, &err);
    }
    if (status == LORE_OK) {
        status = quantize(run, &cli->config.limits, &err);
    }
    lore_activations_free(run->activations);
    lore_backend_close(run->backend);
    lore_pool_free(run->pool);
    if (status != LORE_OK) {
        int code = lore_cli_fail(cli, &err);
        return status == LORE_ERR_CANCELLED ? LORE_EXIT_INTERRUPTED : code;
    }
    if (cli->is_json) {
        return print_json(cli, run);
    }
    print_result(run);
    return LORE_EXIT_DONE;
}

int lore_cmd_models_quantize(lore_cli *cli, int argc, char **argv)
{
    lore_flag_list words = {0};
    const char *to = NULL;
    quantize_run run = {0};
    const lore_flag flags[] = {
        {"to", 0, LORE_FLAG_TEXT, &to, "TYPE", "int8 or int4", 0, 0},
        {"group", 0, LORE_FLAG_INTEGER, &run.group, "N",
         "int4: columns that share a scale, 64 or 128 (default)", 64, 128},
        {"portable", 0, LORE_FLAG_SWITCH, &run.is_portable, NULL,
         "leave the embedding table alone, so that transformers loads it too", 0, 0},
        {"calibration", 0, LORE_FLAG_TEXT, &run.calibration, "FILE",
         "a text: weighs errors, and shows a decoder's perplexity before and after", 0, 0},
    };
    int code = lore_cli_parse(cli, flags, sizeof flags / sizeof flags[0], argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    bool is_i4 = to != NULL && strcmp(to, "int4") == 0;
    if (!is_i4 && (to == NULL || strcmp(to, "int8") != 0)) {
        return lore_cli_misuse(cli, "models quantize: --to must be int8 or int4");
    }
    if (run.group != 0 && (!is_i4 || (run.group != 64 && run.group != 128))) {
        return lore_cli_misuse(cli, "models quantize: --group is 64 or 128, of int4");
    }
    if (words.count != 3) { /* the first is the verb */
        return lore_cli_misuse(cli, "models quantize --to int8|int4 FOLDER NEW-FOLDER");
    }
    run.dtype = is_i4 ? LORE_I4 : LORE_I8;
    run.from = words.items[1];
    run.to = words.items[2];
    return run_quantize(cli, &run);
}
