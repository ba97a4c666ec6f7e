/* lore adapters list, add and remove: what the serving process has.
 *
 * Adapters belong to a decoder that runs, so adding and removing is asked of the server that holds
 * the data folder; without one, the list is that of the configuration. */
#include "api/routes.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/client.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { REPLY_DEPTH = 8 };

/* ---- the server's ---- */

static lore_status send_body(const lore_cli *cli, lore_str server, const char *path, lore_str body,
                             lore_buf *reply, lore_error *err)
{
    lore_client *client = NULL;
    int32_t http_status = 0;
    lore_status status = lore_client_open(server, &cli->config.limits, &client, err);
    if (status == LORE_OK) {
        status = lore_client_send(client, body.len > 0 ? "POST" : "GET", path, "application/json",
                                  body, reply, &http_status, err);
    }
    if (status == LORE_OK && http_status >= 400) {
        status = lore_client_refusal(reply, http_status, err);
    }
    lore_client_close(client);
    return status;
}

static void print_line(const lore_json *node)
{
    const lore_json *error = lore_json_get(node, "error");
    lore_print_plain(stdout, lore_json_str(lore_json_get(node, "id")));
    printf("  " LORE_STR_FMT "%s%s", LORE_STR_ARG(lore_json_str(lore_json_get(node, "state"))),
           lore_json_bool(lore_json_get(node, "pinned")) ? ", pinned" : "",
           lore_json_bool(lore_json_get(node, "leaving")) ? ", leaving" : "");
    const double bytes = lore_json_number(lore_json_get(node, "size_bytes"));
    if (bytes > 0) {
        printf("  %.1f MB, rank %d", bytes / 1e6,
               (int)lore_json_number(lore_json_get(node, "rank")));
    }
    printf("  %d requests  (", (int)lore_json_number(lore_json_get(node, "requests")));
    lore_print_plain(stdout, lore_json_str(lore_json_get(node, "path")));
    printf(")\n");
    if (lore_json_is_string(error)) {
        printf("    ");
        lore_print_plain(stdout, lore_json_str(error));
        printf("\n");
    }
}

static lore_status print_list(const lore_cli *cli, const lore_buf *reply, lore_error *err)
{
    lore_json *root = NULL;
    if (cli->is_json) {
        fwrite(reply->ptr, 1, reply->len, stdout);
        fputc('\n', stdout);
        return LORE_OK;
    }
    lore_status status = lore_json_parse(lore_buf_str(reply), REPLY_DEPTH, &root, err);
    if (status != LORE_OK) {
        return lore_error_prefix(err, "the server's list of adapters");
    }
    const lore_json *first = lore_json_first(lore_json_get(root, "data"));
    for (const lore_json *node = first; node != NULL; node = lore_json_next(node)) {
        print_line(node);
    }
    if (first == NULL) {
        puts("There are no adapters.");
    }
    lore_json_free(root);
    return LORE_OK;
}

/* ---- the configuration's ---- */

typedef struct gathering {
    lore_arena *arena;
    lore_adapter_view *list; /* [cap] */
    int32_t count, cap;
} gathering;

static lore_status gather(void *self, const lore_adapter_spec *spec, bool is_named, lore_error *err)
{
    gathering *g = self;
    (void)is_named;
    if (g->count == g->cap) {
        const int32_t cap = g->cap == 0 ? 64 : 2 * g->cap;
        lore_adapter_view *list = LORE_PUSH(g->arena, lore_adapter_view, cap);
        if (list == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "no memory for the list");
        }
        if (g->count > 0) {
            memcpy(list, g->list, (size_t)g->count * sizeof *list);
        }
        g->list = list;
        g->cap = cap;
    }
    g->list[g->count++] = (lore_adapter_view){
        .name = spec->name, .folder = spec->folder, .is_pinned = spec->is_pinned};
    return LORE_OK;
}

static lore_status list_configured(lore_cli *cli, lore_buf *json, lore_error *err)
{
    gathering g = {.arena = &cli->arena};
    const lore_adapters_stats stats = {0};
    lore_status status = lore_app_find_adapters(&cli->config, gather, &g, &cli->arena, err);
    if (status == LORE_OK) {
        lore_routes_write_adapters(g.list, g.count, &stats, json);
    }
    return status == LORE_OK && lore_buf_failed(json)
               ? lore_fail(err, LORE_ERR_NOMEM, "no memory for the list")
               : status;
}

/* ---- verbs ---- */

static lore_status run_list(lore_cli *cli, lore_str server, lore_error *err)
{
    lore_buf json;
    lore_buf_init(&json, 0);
    lore_status status =
        server.len > 0 ? send_body(cli, server, "/v1/adapters", (lore_str){NULL, 0}, &json, err)
                       : list_configured(cli, &json, err);
    if (status == LORE_OK) {
        status = print_list(cli, &json, err);
    }
    lore_buf_destroy(&json);
    return status;
}

typedef struct change_flags {
    const char *name, *folder; /* folder NULL: remove */
    bool is_pinned, is_replacing;
} change_flags;

static lore_status write_change(const change_flags *change, lore_buf *body, lore_error *err)
{
    lore_json_writer w;
    lore_json_write_begin(&w, body);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "lora_name", lore_str_from(change->name));
    if (change->folder != NULL) {
        char path[PATH_MAX];
        if (realpath(change->folder, path) == NULL) { /* the server stands elsewhere */
            return lore_fail(err, LORE_ERR_NOT_FOUND, "there is no folder '%s'", change->folder);
        }
        lore_json_string(&w, "lora_path", lore_str_from(path));
        lore_json_boolean(&w, "load_inplace", change->is_replacing);
        lore_json_boolean(&w, "pinned", change->is_pinned);
    }
    lore_json_end(&w);
    return lore_buf_failed(body) ? lore_fail(err, LORE_ERR_NOMEM, "no memory for the request")
                                 : LORE_OK;
}

static lore_status run_change(const lore_cli *cli, lore_str server, const change_flags *change,
                              lore_error *err)
{
    lore_buf body, reply;
    if (server.len == 0) {
        return lore_fail(err, LORE_ERR_NOT_FOUND,
                         "no `lore serve` has the data folder '%s': name adapters in --adapters "
                         "when you start it",
                         cli->config.data);
    }
    lore_buf_init(&body, 0);
    lore_buf_init(&reply, 0);
    const bool is_add = change->folder != NULL;
    lore_status status = write_change(change, &body, err);
    if (status == LORE_OK) {
        status =
            send_body(cli, server, is_add ? "/v1/load_lora_adapter" : "/v1/unload_lora_adapter",
                      lore_buf_str(&body), &reply, err);
    }
    lore_buf_destroy(&reply);
    lore_buf_destroy(&body);
    if (status == LORE_OK && cli->is_json) {
        lore_buf json;
        lore_json_writer w;
        lore_buf_init(&json, 0);
        lore_json_write_begin(&w, &json);
        lore_json_object(&w, NULL);
        lore_json_string(&w, is_add ? "added" : "removed", lore_str_from(change->name));
        lore_json_end(&w);
        status = lore_buf_failed(&json) ? lore_fail(err, LORE_ERR_NOMEM, "no memory for the output")
                                        : LORE_OK;
        if (status == LORE_OK) {
            (void)lore_cli_print_json(cli, &json);
        }
        lore_buf_destroy(&json);
    } else if (status == LORE_OK) {
        printf("%s %s\n", is_add ? "added" : "removed", change->name);
    }
    return status;
}

int lore_cmd_adapters_served(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag_list words = {0};
    const char *adapters = NULL;
    change_flags change = {0};
    const lore_flag flags[] = {
        {"adapters", 0, LORE_FLAG_TEXT, &adapters, "LIST",
         "list, where nobody serves: NAME=FOLDER,... and folders of adapters", 0, 0},
        {"pin", 0, LORE_FLAG_SWITCH, &change.is_pinned, NULL,
         "add: never leaves the decoder's memory", 0, 0},
        {"replace", 0, LORE_FLAG_SWITCH, &change.is_replacing, NULL,
         "add: in place of what has the name; answers under way keep that", 0, 0},
    };
    int code = lore_cli_parse(cli, flags, sizeof flags / sizeof flags[0], argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    const char *verb = words.count > 0 ? words.items[0] : "";
    const bool is_list = strcmp(verb, "list") == 0 && words.count == 1;
    const bool is_add = strcmp(verb, "add") == 0 && words.count == 3;
    if (!is_list && !is_add && !(strcmp(verb, "remove") == 0 && words.count == 2)) {
        return lore_cli_misuse(cli, "adapters list, add NAME FOLDER, remove NAME, or convert ...");
    }
    if (adapters != NULL && lore_config_set(&cli->config, LORE_STR("adapters"),
                                            lore_str_from(adapters), &err) != LORE_OK) {
        return lore_cli_misuse(cli, "%s", err.message);
    }
    change.name = is_list ? NULL : words.items[1];
    change.folder = is_add ? words.items[2] : NULL;
    lore_str server = lore_cli_server(cli, &cli->arena);
    lore_status status =
        is_list ? run_list(cli, server, &err) : run_change(cli, server, &change, &err);
    return status == LORE_OK ? LORE_EXIT_DONE : lore_cli_fail(cli, &err);
}
