/* lore collections reembed: the vectors of the folder made anew by another encoder. */
#include "base/json.h"
#include "cli/cli.h"
#include "ingest/reembed_run.h"

#include <inttypes.h>
#include <unistd.h>

static bool is_cancelled(void *self)
{
    (void)self;
    return lore_cli_is_interrupted();
}

static void draw(void *self, int64_t done, int64_t total)
{
    (void)self;
    fprintf(stderr, "\r\033[K%" PRId64 "/%" PRId64 " chunks", done, total);
    fflush(stderr);
}

/* The folder without an encoder: its vectors are another's. */
static lore_status reembed(const lore_cli *cli, lore_reembed_counts *counts, lore_error *err)
{
    lore_app app = {0};
    lore_index *index = NULL;
    const bool is_terminal = isatty(STDERR_FILENO) != 0;
    const lore_reembed_options options = {.progress = is_terminal ? draw : NULL,
                                          .is_cancelled = is_cancelled};
    lore_status status = lore_app_open(&cli->config, (lore_app_needs){.embedder = true}, &app, err);
    if (status == LORE_OK) {
        const lore_index_options opening = {
            .config = &cli->config, .backend = app.embed_backend, .is_writer = true};
        status = lore_index_open(cli->config.data, &opening, &index, err);
    }
    if (status == LORE_OK) {
        status = lore_reembed_run(index, app.embedder, &options, counts, err);
    }
    if (is_terminal && counts->chunks > 0) {
        fputs("\r\033[K", stderr);
    }
    lore_index_close(index);
    lore_app_close(&app);
    return status;
}

int lore_cmd_reembed(lore_cli *cli)
{
    lore_error err = {0};
    lore_reembed_counts counts = {0};
    lore_cli_catch_signals();
    lore_status status = reembed(cli, &counts, &err);
    if (status == LORE_ERR_CANCELLED && lore_cli_is_interrupted()) {
        fprintf(stderr, "lore: interrupted; the old vectors are in use, run the command again to "
                        "go on\n");
        return LORE_EXIT_INTERRUPTED;
    }
    if (status != LORE_OK) {
        return lore_cli_fail(cli, &err);
    }
    if (!cli->is_json) {
        printf("%" PRId64 " chunks%s\n", counts.chunks,
               counts.is_same ? ": their vectors are this encoder's already" : " exchanged");
        return LORE_EXIT_DONE;
    }
    lore_buf json;
    lore_json_writer w;
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "object", LORE_STR("lore.reembed"));
    lore_json_string(&w, "encoder", lore_str_from(cli->config.encoder));
    lore_json_int(&w, "chunks", counts.chunks);
    lore_json_int(&w, "embedded", counts.embedded);
    lore_json_boolean(&w, "unchanged", counts.is_same);
    lore_json_end(&w);
    int code = lore_cli_print_json(cli, &json);
    lore_buf_destroy(&json);
    return code;
}
