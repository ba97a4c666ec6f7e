/* The service in this process: started, asked over real connections, stopped, with every
 * allocation, call on a file and thread start failing in turn, the libraries' included. A request
 * may be refused or its connection closed; the service itself goes on, stops in time, keeps what it
 * acknowledged, and the next requests of the same process are answered (sweep.h). */
#include "tests/fault/sweep.h"

#include "api/http.h"
#include "tests/fault/index_check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

typedef struct server_life {
    lore_config config;
    lore_app app;
    bool is_put, is_deleted; /* acknowledged in the last run */
    bool is_certain;         /* no call of the last run failed */
} server_life;

/* ---- a client ---- */

/* The status of the reply, 0 where the connection was closed without one. Reads to the end. */
static int ask(uint16_t port, const char *request)
{
    static char reply[1 << 20];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 30};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t used = 0, length = strlen(request);
    CHECK(fd >= 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
        send(fd, request, length, MSG_NOSIGNAL) == (ssize_t)length) {
        ssize_t got = 1;
        while (got > 0 && used < sizeof reply - 1) {
            got = recv(fd, reply + used, sizeof reply - 1 - used, 0);
            CHECK(got >= 0 || errno != EAGAIN); /* nobody is left hanging */
            used += got > 0 ? (size_t)got : 0;
        }
    }
    close(fd);
    reply[used] = '\0';
    int status = 0;
    return sscanf(reply, "HTTP/1.1 %d", &status) == 1 ? status : 0;
}

static int send_request(uint16_t port, const char *method, const char *path, const char *body)
{
    char request[2048];
    snprintf(request, sizeof request,
             "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
             method, path, strlen(body), body);
    return ask(port, request);
}

/* ---- a life of the service ---- */

/* A failure inside may refuse a request; it must not be taken for the client's fault. */
static bool is_refusal(int status)
{
    return status == 0 || status == 429 || status == 500 || status == 503 || status == 504;
}

static lore_status ask_all(server_life *life, uint16_t port, lore_error *err)
{
    static const char *const question =
        "{\"question\": \"How long is the button held?\", \"max_tokens\": 2}";
    static const char *const streamed =
        "{\"question\": \"How long is the button held?\", \"max_tokens\": 2, \"stream\": true}";
    const struct {
        const char *method, *path, *body;
        int status, other;
    } requests[] = {
        {"GET", "/health", "", 200, 200},
        {"PUT", "/collections/default/documents/new", "{\"markdown\": \"# A\\n\\nNew words.\"}",
         201, 200},
        {"POST", "/retrieve", question, 200, 200},
        {"POST", "/query", question, 200, 200},
        {"POST", "/query", streamed, 200, 200},
        {"GET", "/collections/default/documents", "", 200, 200},
        {"DELETE", "/collections/default/documents/new", "", 200, 404},
        {"GET", "/metrics", "", 200, 200},
    };
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        int status = send_request(port, requests[i].method, requests[i].path, requests[i].body);
        bool is_done = status == requests[i].status || status == requests[i].other;
        if (!is_done && (life->is_certain || !is_refusal(status))) {
            return lore_fail(err, LORE_ERR_INVALID, "%s %s gave %d", requests[i].method,
                             requests[i].path, status);
        }
        life->is_put = requests[i].method[1] == 'U' ? is_done : life->is_put;
        life->is_deleted = requests[i].method[0] == 'D' ? is_done : life->is_deleted;
    }
    return LORE_OK;
}

static lore_status live(void *self, lore_error *err)
{
    server_life *life = self;
    lore_http *http = NULL;
    lore_status status = lore_http_start(&life->app, &http, err);
    if (status != LORE_OK) {
        return status;
    }
    const char *port = strrchr(lore_http_address(http), ':') + 1;
    status = ask_all(life, (uint16_t)strtol(port, NULL, 10), err);
    int64_t start_ns = lore_clock_ns();
    lore_http_stop(http, start_ns + INT64_C(20000000000));
    if (lore_clock_ns() - start_ns > INT64_C(10000000000)) {
        status = lore_fail(err, LORE_ERR_TIMEOUT, "stopping took too long");
    }
    return status;
}

/* Before a run with a failure anything may be refused; the next attempt is certain. */
static void expect_failures(void *self)
{
    ((server_life *)self)->is_certain = false;
}

static int32_t check_life(void *self, lore_status status)
{
    server_life *life = self;
    lore_error err;
    uint8_t hash[32];
    bool is_there = false;
    (void)status;
    /* Whatever was left of a failed transaction is gone when the writer has begun another thing. */
    CHECK_OK(lore_writer_publish(life->app.writer, &err), &err);
    int32_t problems = index_check_folder(life->app.index);
    CHECK_OK(lore_index_document_hash(life->app.index, LORE_STR("default"), LORE_STR("new"), hash,
                                      &is_there, &err),
             &err);
    problems += life->is_deleted && is_there;
    problems += life->is_put && !life->is_deleted && !is_there && life->is_certain;
    life->is_certain = true;
    return problems;
}

static void open_app(server_life *life)
{
    lore_error err;
    lore_config *config = &life->config;
    lore_config_default(config);
    snprintf(config->device, sizeof config->device, "cpu");
    config->threads = 1; /* nobody starts OpenMP's threads, whose failure ends a process */
    snprintf(config->data, sizeof config->data, "%s/served", check_temp_dir());
    snprintf(config->encoder, sizeof config->encoder, "%s/weights/encoder", LORE_SOURCE_DIR);
    snprintf(config->decoder, sizeof config->decoder, "%s/weights/decoder", LORE_SOURCE_DIR);
    snprintf(config->prompts, sizeof config->prompts, "%s/prompts", LORE_SOURCE_DIR);
    snprintf(config->listen, sizeof config->listen, "127.0.0.1:0");
    lore_app_needs needs = {
        .embedder = true, .index = true, .index_writer = true, .engine = true, .service = true};
    CHECK_OK(lore_app_open(config, needs, &life->app, &err), &err);
}

static void put_page(server_life *life)
{
    lore_error err;
    lore_arena arena;
    lore_ingest_result result;
    const lore_ingest_one_options options = {.collection = LORE_STR("default")};
    lore_raw_document raw = {
        .id = LORE_STR("page"),
        .media = LORE_MEDIA_MARKDOWN,
        .bytes = LORE_STR("# Router\n\n## Reset\n\nHold the button for ten seconds.\n")};
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_ingest_one(life->app.writer, life->app.embedder, &life->config, &options, &raw,
                             &arena, &result, &err),
             &err);
    lore_arena_destroy(&arena);
}

static void run_sweep(const char *name, void (*how)(sweep *s))
{
    static server_life life;
    memset(&life, 0, sizeof life);
    sweep_held held = sweep_count_held();
    open_app(&life);
    put_page(&life);
    sweep s = {.name = name,
               .prepare = expect_failures,
               .run = live,
               .check = check_life,
               .self = &life,
               .keeps_caches = true};
    how(&s);
    lore_app_close(&life.app);
    s.keeps_caches = false;
    sweep_check_held(&s, name, held);
}

TEST(files_of_a_server)
{
    run_sweep("files of a server", sweep_files);
}

TEST(memory_of_a_server)
{
    run_sweep("memory of a server", sweep_allocations);
}

CHECK_MAIN(files_of_a_server, memory_of_a_server)
