/* lore serve: the app, the HTTP service, and a main thread that waits for signals.
 *
 * Signals are blocked in every thread and taken here with sigwaitinfo, so nothing ever runs inside
 * a handler. The first SIGTERM, SIGINT or SIGHUP (a terminal that closed) drains; a second one,
 * while draining, ends the process. */
#include "api/http.h"
#include "base/clock.h"
#include "base/json.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { ARENAS_MAX = 4 }; /* heaps that all threads share */

static void print_ready_json(const lore_cli *cli, const lore_app *app, const lore_http *http)
{
    lore_buf json;
    lore_json_writer w;
    lore_buf_init(&json, 0);
    lore_json_write_begin(&w, &json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "object", LORE_STR("lore.service"));
    lore_json_string(&w, "address", lore_str_from(lore_http_address(http)));
    lore_json_string(&w, "data", lore_str_from(cli->config.data));
    lore_json_string(&w, "encoder", lore_str_from(lore_embedder_name(app->embedder)));
    if (app->engine != NULL) {
        lore_json_string(&w, "decoder", lore_str_from(lore_engine_info(app->engine)->name));
    } else {
        lore_json_null(&w, "decoder");
    }
    lore_json_int(&w, "pid", getpid());
    lore_json_end(&w);
    (void)lore_cli_print_json(cli, &json);
    lore_buf_destroy(&json);
    fflush(stdout);
}

static void print_adapters(const lore_app *app)
{
    lore_adapters *adapters = app->engine != NULL ? lore_engine_adapters(app->engine) : NULL;
    lore_adapters_stats stats = {0};
    int32_t count = 0;
    if (adapters != NULL) {
        lore_adapters_get_stats(adapters, &stats);
    }
    for (int state = 0; state < LORE_ADAPTER_STATES; state++) {
        count += stats.by_state[state];
    }
    if (count > 0) {
        printf("  adapters    %d, %.1f MB of them loaded\n", (int)count,
               (double)stats.device_bytes / 1e6);
    }
}

static lore_status print_ready(lore_cli *cli, lore_app *app, const lore_http *http, lore_error *err)
{
    lore_collection_info *list = NULL;
    int32_t count = 0;
    lore_status status = lore_index_collections(app->index, &cli->arena, &list, &count, err);
    if (status != LORE_OK || cli->is_json) {
        if (status == LORE_OK) {
            print_ready_json(cli, app, http);
        }
        return status;
    }
    printf("listening on http://%s\n", lore_http_address(http));
    printf("  decoder     %s\n",
           app->engine ? lore_engine_info(app->engine)->name : "none (extractive answers)");
    if (app->engine != NULL && lore_backend_get_kind(app->decode_backend) ==
                                   LORE_BACKEND_CUDA) { /* whose memory is told */
        const lore_decoder_info *info = lore_engine_info(app->engine);
        printf("  device      %s: %.1f GiB of weights, %.1f GiB of keys and values\n",
               lore_backend_describe(app->decode_backend), (double)info->weight_bytes / (1 << 30),
               (double)info->kv_bytes / (1 << 30));
    }
    print_adapters(app);
    printf("  encoder     %s\n", lore_embedder_name(app->embedder));
    printf("  data        %s\n", cli->config.data);
    for (int32_t i = 0; i < count; i++) {
        printf("  collection  " LORE_STR_FMT ": %" PRId64 " documents, %" PRId64 " chunks\n",
               LORE_STR_ARG(list[i].name), list[i].documents, list[i].chunks);
    }
    fflush(stdout);
    return LORE_OK;
}

static const int ENDING[] = {SIGTERM, SIGINT, SIGHUP};
enum { ENDING_COUNT = sizeof ENDING / sizeof ENDING[0] };

/* What whoever started us wants ignored (nohup; a shell's background job) stays ignored. */
static sigset_t ending_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    for (int32_t i = 0; i < ENDING_COUNT; i++) {
        struct sigaction action;
        if (sigaction(ENDING[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN) {
            sigaddset(&set, ENDING[i]);
        }
    }
    return set;
}

static void wait_for_signal(void)
{
    const sigset_t set = ending_signals();
    while (sigwaitinfo(&set, NULL) < 0) {
    }
}

/* A second signal must not wait for the drain. */
static void end_hard(int number)
{
    (void)number;
    _exit(LORE_EXIT_INTERRUPTED);
}

static void arm_second_signal(void)
{
    const sigset_t set = ending_signals();
    struct sigaction action = {.sa_handler = end_hard};
    sigemptyset(&action.sa_mask);
    for (int32_t i = 0; i < ENDING_COUNT; i++) {
        if (sigismember(&set, ENDING[i]) == 1) {
            sigaction(ENDING[i], &action, NULL);
        }
    }
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static lore_status announce(lore_app *app, const lore_http *http, lore_arena *arena,
                            lore_error *err)
{
    if (app->writer == NULL) {
        return LORE_OK; /* of a read-only folder: nothing can be handed over, so nobody asks */
    }
    lore_str address = lore_str_printf(arena, "http://%s", lore_http_local_address(http));
    return lore_index_announce(app->index, address, err);
}

static lore_status serve(lore_cli *cli, lore_app *app, lore_error *err)
{
    lore_http *http = NULL;
    lore_status status = lore_http_start(app, &http, err);
    if (status == LORE_OK) {
        status = announce(app, http, &cli->arena, err);
    }
    if (status == LORE_OK) {
        status = print_ready(cli, app, http, err);
    }
    if (status == LORE_OK) {
        wait_for_signal();
        arm_second_signal();
        lore_log(LORE_LOG_INFO, "event=draining deadline_ms=%" PRId64,
                 cli->config.limits.drain_timeout_ms);
    }
    lore_http_stop(http, lore_clock_ns() + cli->config.limits.drain_timeout_ms * 1000000);
    return status;
}

/* A flag that stands for a key; NULL: not given. */
static lore_status set_text(lore_cli *cli, const char *key, const char *value, lore_error *err)
{
    return value == NULL
               ? LORE_OK
               : lore_config_set(&cli->config, lore_str_from(key), lore_str_from(value), err);
}

int lore_cmd_serve(lore_cli *cli, int argc, char **argv)
{
    lore_error err = {0};
    lore_flag_list words = {0};
    const char *listen = NULL, *adapters = NULL, *pinned = NULL;
    const lore_flag flags[] = {
        {"listen", 'l', LORE_FLAG_TEXT, &listen, "ADDR:PORT", "where to listen (127.0.0.1:8080)", 0,
         0},
        {"adapters", 0, LORE_FLAG_TEXT, &adapters, "LIST",
         "LoRA adapters: NAME=FOLDER,... and folders of adapters", 0, 0},
        {"pin", 0, LORE_FLAG_TEXT, &pinned, "NAME,...",
         "adapters that never leave the decoder's memory", 0, 0},
    };
    int code = lore_cli_parse(cli, flags, sizeof flags / sizeof flags[0], argc, argv, &words);
    if (code != LORE_EXIT_CONTINUE) {
        return code;
    }
    if (words.count > 0) {
        return lore_cli_misuse(cli, "serve takes no argument '%s'", words.items[0]);
    }
    if (set_text(cli, "listen", listen, &err) != LORE_OK ||
        set_text(cli, "adapters", adapters, &err) != LORE_OK ||
        set_text(cli, "adapters_pinned", pinned, &err) != LORE_OK) {
        return lore_cli_misuse(cli, "%s", err.message);
    }
    const sigset_t set = ending_signals();
    signal(SIGPIPE, SIG_IGN);               /* a client that leaves is an error of its write */
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before any thread starts: all inherit it */
    /* Each connection has a thread. Left alone, the C library gives threads eight arenas for each
     * core, and none gives back what a burst of requests has used. */
    mallopt(M_ARENA_MAX, ARENAS_MAX);
    lore_app app = {0};
    lore_app_needs needs = {.embedder = true,
                            .reranker = true,
                            .index = true,
                            .index_writer = true,
                            .engine = true,
                            .service = true};
    lore_status status = lore_app_open(&cli->config, needs, &app, &err);
    if (status == LORE_OK) {
        malloc_trim(0); /* parsing the models took much more than is kept of them */
        status = serve(cli, &app, &err);
    }
    lore_app_close(&app);
    return status == LORE_OK ? LORE_EXIT_DONE : lore_cli_fail(cli, &err);
}
