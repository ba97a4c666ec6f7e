/* lore documents and lore collections: what the store holds.
 *
 * Reading opens the folder beside whoever serves it. What changes something needs the writer's
 * lock: where a server has it, the change goes through the server. */
#include "api/routes.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/client.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { PAGE = 1000 };

typedef struct store_flags {
    const char *collection, *cursor;
    int64_t limit;
    bool is_chunks;
} store_flags;

static lore_status open_store(const lore_cli *cli, bool is_writer, lore_app *app, lore_error *err)
{
    lore_app_needs needs = {.index = true, .index_writer = is_writer};
    return lore_app_open(&cli->config, needs, app, err);
}

static int print_buffer(const lore_cli *cli, lore_buf *json)
{
    int code = lore_cli_print_json(cli, json);
    lore_buf_destroy(json);
    return code;
}

/* ---- documents ---- */

static void print_document_line(const lore_document_info *document)
{
    lore_print_plain(stdout, document->id);
    printf("  version %" PRId64 "  %" PRId64 " chunks  ", document->version, document->chunks);
    lore_print_plain(stdout, document->title);
    if (document->source.len > 0) {
        printf("  (");
        lore_print_plain(stdout, document->source);
        printf(")");
    }
    if (document->near.len > 0) {
        printf("  nearly repeats ");
        lore_print_plain(stdout, document->near);
    }
    printf("\n");
}

/* All pages, or with --limit one; the arena is reset between them. */
static lore_status list_pages(const lore_cli *cli, lore_app *app, const store_flags *flags,
                              lore_json_writer *w, lore_buf *cursor, lore_error *err)
{
    lore_arena arena;
    int64_t left = flags->limit > 0 ? flags->limit : INT64_MAX;
    lore_status status = LORE_OK;
    lore_arena_init(&arena, 0);
    do {
        lore_document_info *list = NULL;
        int32_t count = 0;
        lore_str next = {0};
        lore_arena_reset(&arena);
        status = lore_index_list_documents(
            app->index, lore_str_from(flags->collection), lore_buf_str(cursor), (lore_str){NULL, 0},
            left < PAGE ? (int32_t)left : PAGE, &arena, &list, &count, &next, err);
        for (int32_t i = 0; status == LORE_OK && i < count; i++) {
            if (cli->is_json) {
                lore_json_object(w, NULL);
                lore_routes_write_document(w, &list[i]);
                lore_json_end(w);
            } else {
                print_document_line(&list[i]);
            }
        }
        left -= count;
        lore_buf_reset(cursor);
        lore_buf_append(cursor, next);
    } while (status == LORE_OK && cursor->len > 0 && left > 0);
    lore_arena_destroy(&arena);
    return status;
}

static int list_documents(lore_cli *cli, const store_flags *flags)
{
    lore_error err;
    lore_app app = {0};
    lore_buf json, cursor;
    lore_json_writer w;
    lore_buf_init(&json, 0);
    lore_buf_init(&cursor, 0);
    lore_buf_append(&cursor, lore_str_from(flags->cursor));
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_array(&w, "documents");
    lore_status status = open_store(cli, false, &app, &err);
    if (status == LORE_OK) {
        status = list_pages(cli, &app, flags, &w, &cursor, &err);
    }
    lore_app_close(&app);
    int code = LORE_EXIT_DONE;
    lore_json_end(&w);
    if (status != LORE_OK) {
        code = lore_cli_fail(cli, &err);
    } else if (cli->is_json) {
        if (cursor.len > 0) {
            lore_json_string(&w, "next_cursor", lore_buf_str(&cursor));
        } else {
            lore_json_null(&w, "next_cursor");
        }
        lore_json_end(&w);
        code = lore_cli_print_json(cli, &json);
    } else if (cursor.len > 0) {
        fprintf(stderr, "more: --cursor '" LORE_STR_FMT "'\n", LORE_STR_ARG(lore_buf_str(&cursor)));
    }
    lore_buf_destroy(&cursor);
    lore_buf_destroy(&json);
    return code;
}

static int print_document(const lore_cli *cli, const store_flags *flags,
                          const lore_document_info *document)
{
    if (!cli->is_json) {
        print_document_line(document);
        printf("\n");
        fwrite(document->text.ptr, 1, document->text.len, stdout);
        printf("\n");
        return LORE_EXIT_DONE;
    }
    lore_buf json;
    lore_json_writer w;
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "object", LORE_STR("lore.document"));
    lore_json_string(&w, "collection", lore_str_from(flags->collection));
    lore_routes_write_document(&w, document);
    lore_routes_write_text(&w, document);
    lore_json_end(&w);
    return print_buffer(cli, &json);
}

static int print_chunks(lore_cli *cli, lore_str id, const lore_chunk *chunks, int32_t count)
{
    lore_buf json;
    lore_json_writer w;
    if (!cli->is_json) {
        for (int32_t i = 0; i < count; i++) {
            printf("%sc_%" PRId64 "  ", i > 0 ? "\n" : "", chunks[i].row);
            lore_print_span(&chunks[i], chunks[i].start, chunks[i].end, stdout);
            printf("  ");
            lore_print_plain(stdout, chunks[i].heading);
            printf("\n");
            lore_wrap wrap;
            lore_wrap_begin(&wrap, stdout, 4);
            lore_wrap_text(&wrap, chunks[i].text);
            lore_wrap_end(&wrap);
        }
        return LORE_EXIT_DONE;
    }
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "document_id", id);
    lore_json_array(&w, "chunks");
    for (int32_t i = 0; i < count; i++) {
        lore_routes_write_chunk(&w, &chunks[i], &cli->arena);
    }
    lore_json_end(&w);
    lore_json_end(&w);
    return print_buffer(cli, &json);
}

static int show_document(lore_cli *cli, const store_flags *flags, lore_str id)
{
    lore_error err;
    lore_app app = {0};
    lore_document_info document = {0};
    lore_chunk *chunks = NULL;
    int32_t count = 0;
    lore_str collection = lore_str_from(flags->collection);
    lore_status status = open_store(cli, false, &app, &err);
    if (status == LORE_OK && flags->is_chunks) {
        lore_snapshot *snapshot = lore_index_acquire(app.index);
        status =
            lore_load_document_chunks(snapshot, collection, id, &cli->arena, &chunks, &count, &err);
        lore_snapshot_release(snapshot);
    } else if (status == LORE_OK) {
        status =
            lore_index_get_document(app.index, collection, id, true, &cli->arena, &document, &err);
    }
    lore_app_close(&app);
    return status != LORE_OK  ? lore_cli_fail(cli, &err)
           : flags->is_chunks ? print_chunks(cli, id, chunks, count)
                              : print_document(cli, flags, &document);
}

/* ---- changes, here or through the server ---- */

typedef struct change {
    const char *method; /* of the server's route */
    lore_str collection;
    lore_str document; /* empty: the collection itself */
    lore_str body;     /* settings of a collection, or empty */
    bool found;        /* out */
} change;

static lore_status change_through_server(lore_cli *cli, lore_str server, change *what,
                                         lore_error *err)
{
    lore_client *client = NULL;
    lore_buf path, reply;
    int32_t http_status = 0;
    lore_buf_init(&path, 0);
    lore_buf_init(&reply, 0);
    lore_buf_append(&path, LORE_STR("/collections/"));
    lore_url_encode(what->collection, &path);
    if (what->document.len > 0) {
        lore_buf_append(&path, LORE_STR("/documents/"));
        lore_url_encode(what->document, &path);
    }
    lore_status status = lore_client_open(server, &cli->config.limits, &client, err);
    if (status == LORE_OK) {
        status = lore_client_send(client, what->method, lore_buf_c(&path), "application/json",
                                  what->body, &reply, &http_status, err);
    }
    if (status == LORE_OK && http_status >= 400 && http_status != 404) {
        status = lore_client_refusal(&reply, http_status, err);
    }
    what->found = http_status < 400;
    lore_client_close(client);
    lore_buf_destroy(&reply);
    lore_buf_destroy(&path);
    return status;
}

static lore_status change_here(lore_cli *cli, change *what, lore_error *err)
{
    lore_app app = {0};
    lore_status status = open_store(cli, true, &app, err);
    if (status != LORE_OK) {
        return status;
    }
    bool is_put = strcmp(what->method, "PUT") == 0;
    lore_change made = {.kind = is_put                   ? LORE_CHANGE_CREATE_COLLECTION
                                : what->document.len > 0 ? LORE_CHANGE_DELETE
                                                         : LORE_CHANGE_DELETE_COLLECTION,
                        .collection = what->collection,
                        .id = what->document};
    lore_collection_settings settings;
    status = lore_collection_settings_parse(what->body, &cli->config.limits, &cli->arena, &settings,
                                            err);
    if (status == LORE_OK) {
        status = lore_writer_apply_one(app.writer, &made, NULL, err);
    }
    if (status == LORE_OK && what->body.len > 0) {
        lore_change set = {.kind = LORE_CHANGE_SET_COLLECTION,
                           .collection = what->collection,
                           .settings = &settings};
        status = lore_writer_apply_one(app.writer, &set, NULL, err);
    }
    what->found = is_put || made.outcome == LORE_OUTCOME_DELETED;
    lore_app_close(&app);
    return status;
}

static lore_status make_change(lore_cli *cli, change *what, lore_error *err)
{
    lore_str server = lore_cli_server(cli, &cli->arena);
    return server.len > 0 ? change_through_server(cli, server, what, err)
                          : change_here(cli, what, err);
}

static int print_changed(const lore_cli *cli, const char *verb, const lore_flag_list *names,
                         int32_t count)
{
    lore_buf json;
    lore_json_writer w;
    if (!cli->is_json) {
        for (int32_t i = 0; i < count; i++) {
            printf("%s %s\n", verb, names->items[i + 1]);
        }
        return LORE_EXIT_DONE;
    }
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_array(&w, verb);
    for (int32_t i = 0; i < count; i++) {
        lore_json_string(&w, NULL, lore_str_from(names->items[i + 1]));
    }
    lore_json_end(&w);
    lore_json_end(&w);
    return print_buffer(cli, &json);
}

/* words[0] is the verb, the rest are ids. */
static int delete_documents(lore_cli *cli, const store_flags *flags, const lore_flag_list *words)
{
    for (int32_t i = 1; i < words->count; i++) {
        lore_error err;
        change what = {.method = "DELETE",
                       .collection = lore_str_from(flags->collection),
                       .document = lore_str_from(words->items[i])};
        lore_status status = make_change(cli, &what, &err);
        if (status == LORE_OK && !what.found) {
            status = lore_fail(&err, LORE_ERR_NOT_FOUND, "no document '%s' in collection '%s'",
                               words->items[i], flags->collection);
        }
        if (status != LORE_OK) {
            return lore_cli_fail(cli, &err);
        }
    }
    return print_changed(cli, "deleted", words, words->count - 1);
}

int lore_cmd_documents(lore_cli *cli, int argc, char **argv)
{
    lore_flag_list words = {0};
    store_flags store = {.collection = "default"};
    const lore_flag flags[] = {
        {"collection", 'c', LORE_FLAG_TEXT, &store.collection, "NAME", "of this one (default)", 0,
         0},
        {"limit", 0, LORE_FLAG_INTEGER, &store.limit, "N", "list: at most so many", 1, INT32_MAX},
        {"cursor", 0, LORE_FLAG_TEXT, &store.cursor, "ID", "list: go on behind this one", 0, 0},
        {"chunks", 0, LORE_FLAG_SWITCH, &store.is_chunks, NULL, "show: its chunks, not its text", 0,
         0},
    };
    int code = lore_cli_parse(cli, flags, sizeof flags / sizeof flags[0], argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    const char *verb = words.count > 0 ? words.items[0] : "";
    if (strcmp(verb, "list") == 0 && words.count == 1) {
        return list_documents(cli, &store);
    }
    if (strcmp(verb, "show") == 0 && words.count == 2) {
        return show_document(cli, &store, lore_str_from(words.items[1]));
    }
    if (strcmp(verb, "delete") == 0 && words.count >= 2) {
        return delete_documents(cli, &store, &words);
    }
    return lore_cli_misuse(cli, "documents list, documents show ID or documents delete ID...");
}

/* ---- collections ---- */

static int list_collections(lore_cli *cli)
{
    lore_error err;
    lore_app app = {0};
    lore_collection_info *list = NULL;
    int32_t count = 0;
    lore_status status = open_store(cli, false, &app, &err);
    if (status == LORE_OK) {
        status = lore_index_collections(app.index, &cli->arena, &list, &count, &err);
    }
    lore_app_close(&app);
    if (status != LORE_OK) {
        return lore_cli_fail(cli, &err);
    }
    if (cli->is_json) {
        lore_buf json;
        lore_buf_init(&json, 0);
        lore_routes_write_collections(list, count, &json);
        return print_buffer(cli, &json);
    }
    for (int32_t i = 0; i < count; i++) {
        printf(LORE_STR_FMT "  %" PRId64 " documents, %" PRId64 " chunks",
               LORE_STR_ARG(list[i].name), list[i].documents, list[i].chunks);
        if (!isnan(list[i].fusion_weight)) {
            printf(", fusion weight %.2f", list[i].fusion_weight);
        }
        if (!isnan(list[i].expansion)) {
            printf(", expansion %.2f", list[i].expansion);
        }
        if (list[i].chunk_tokens > 0) {
            printf(", chunks of %" PRId64 " tokens", list[i].chunk_tokens);
        }
        if (list[i].chunk_overlap >= 0) {
            printf(", overlap %" PRId64, list[i].chunk_overlap);
        }
        if (list[i].refusal.len > 0) {
            printf(", refusal: ");
            lore_print_plain(stdout, list[i].refusal);
        }
        putchar('\n');
    }
    return LORE_EXIT_DONE;
}

typedef struct collection_flags {
    int64_t tokens, overlap; /* 0, -1: not given */
    const char *refusal;
} collection_flags;

/* The flags of `create` as the body of the server's route. */
static void write_settings(const collection_flags *given, lore_buf *out)
{
    lore_json_writer w;
    if (given->tokens == 0 && given->overlap < 0 && given->refusal == NULL) {
        return;
    }
    lore_json_write_begin(&w, out);
    lore_json_object(&w, NULL);
    if (given->tokens > 0) {
        lore_json_int(&w, "chunk_tokens", given->tokens);
    }
    if (given->overlap >= 0) {
        lore_json_int(&w, "chunk_overlap", given->overlap);
    }
    if (given->refusal != NULL) {
        lore_json_string(&w, "refusal", lore_str_from(given->refusal));
    }
    lore_json_end(&w);
}

int lore_cmd_collections(lore_cli *cli, int argc, char **argv)
{
    lore_error err;
    lore_flag_list words = {0};
    collection_flags given = {.overlap = -1};
    const lore_flag flags[] = {
        {"chunk-tokens", 0, LORE_FLAG_INTEGER, &given.tokens, "TOKENS",
         "create: tokens that a chunk aims at", 16, 8192},
        {"overlap", 0, LORE_FLAG_INTEGER, &given.overlap, "N",
         "create: sentences that a chunk shares with the last one", 0, 16},
        {"refusal", 0, LORE_FLAG_TEXT, &given.refusal, "TEXT",
         "create: what is said where nothing supports an answer", 0, 0},
    };
    int code = lore_cli_parse(cli, flags, sizeof flags / sizeof flags[0], argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    const char *verb = words.count > 0 ? words.items[0] : "";
    bool is_create = strcmp(verb, "create") == 0, is_delete = strcmp(verb, "delete") == 0;
    if (strcmp(verb, "list") == 0 && words.count == 1) {
        return list_collections(cli);
    }
    if (strcmp(verb, "reembed") == 0 && words.count == 1) {
        return lore_cmd_reembed(cli);
    }
    if (words.count != 2 || (!is_create && !is_delete)) {
        return lore_cli_misuse(cli, "collections list, collections create NAME, collections delete "
                                    "NAME or collections reembed");
    }
    lore_buf body;
    lore_buf_init(&body, 0);
    if (is_create) {
        write_settings(&given, &body);
    }
    change what = {.method = is_create ? "PUT" : "DELETE",
                   .collection = lore_str_from(words.items[1]),
                   .body = lore_buf_str(&body)};
    lore_status status = lore_buf_failed(&body)
                             ? lore_fail(&err, LORE_ERR_NOMEM, "no memory for the settings")
                             : make_change(cli, &what, &err);
    lore_buf_destroy(&body);
    if (status == LORE_OK && !what.found) {
        status = lore_fail(&err, LORE_ERR_NOT_FOUND, "no collection '%s'", words.items[1]);
    }
    return status == LORE_OK ? print_changed(cli, is_create ? "created" : "deleted", &words, 1)
                             : lore_cli_fail(cli, &err);
}
