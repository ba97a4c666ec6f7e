/* lore bench serve: questions through real HTTP against a server of its own, which runs as a child
 * and so shows its own start and memory.
 *
 * Each kind of request is asked for some seconds by one client, then by several, each client with
 * a connection of its own and the next question as soon as the last is answered. With documents to
 * ingest, the same again while `lore ingest` hands them to the server, again and again into fresh
 * collections of their own; these are deleted at the end. */
#include "base/clock.h"
#include "base/thread.h"
#include "bench/bench.h"
#include "bench/bench_child.h"
#include "bench/bench_http.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

enum {
    CLIENTS_MAX = 64,
    KIND_MS = 4000,  /* for one kind of request and number of clients */
    WARM = 2,        /* requests of each client that do not count */
    SETTLE_MS = 300, /* after the start, before the memory is looked at */
    STATUS_OK = 200
};

typedef struct kind {
    const char *name, *path, *fields; /* of the body, beside the question */
    bool is_streaming;
} kind;

static const kind KINDS[] = {
    {"/retrieve", "/retrieve", "", false},
    {"/query extract", "/query", ",\"mode\":\"extract\"", false},
    {"/query answer", "/query", ",\"mode\":\"answer\"", false},
    {"/query first text", "/query", ",\"mode\":\"answer\",\"stream\":true", true},
};
enum { KIND_COUNT = sizeof KINDS / sizeof KINDS[0] };

typedef struct serving {
    lore_bench *bench;
    const char *data;
    lore_bench_child server;
    char host[64];
    int32_t port;
    lore_str *questions;
    int32_t count;
    atomic_int asked;             /* so far */
    double quiet_p99[KIND_COUNT]; /* of one client */
} serving;

/* ---- the server ---- */

static lore_status read_address(serving *s, lore_str line, lore_error *err)
{
    lore_json *root = NULL;
    lore_str address = {0};
    int64_t port = 0;
    lore_status status = lore_json_parse(line, LORE_JSON_WRITER_DEPTH_MAX, &root, err);
    if (status == LORE_OK) {
        status = lore_json_get_str_required(root, "", "address", &address, err);
    }
    size_t colon = lore_str_find(address, LORE_STR(":"), 0);
    if (status == LORE_OK &&
        (colon == SIZE_MAX || colon >= sizeof s->host ||
         !lore_str_to_int64(lore_str_slice(address, colon + 1, address.len), &port))) {
        status = lore_fail(err, LORE_ERR_INVALID, "the server's address is '" LORE_STR_FMT "'",
                           LORE_STR_ARG(address));
    }
    if (status == LORE_OK) {
        memcpy(s->host, address.ptr, colon);
        s->host[colon] = '\0';
        s->port = (int32_t)port;
    }
    lore_json_free(root);
    return status;
}

static void report_memory(serving *s, const char *name)
{
    lore_bench_report_figure(
        s->bench->report,
        &(lore_bench_figure){.name = name,
                             .value =
                                 (double)lore_bench_child_memory(&s->server, "VmRSS") / (1 << 20),
                             .unit = "MiB"});
}

static lore_status start_server(serving *s, lore_error *err)
{
    static const char *const words[] = {"serve", "--listen", "127.0.0.1:0"};
    lore_buf line;
    lore_buf_init(&line, 0);
    lore_status status = lore_bench_child_start(s->bench, s->data, words, 3, &s->server, err);
    if (status == LORE_OK) {
        status = lore_bench_child_line(&s->server, &line, NULL, err);
    }
    const int64_t ready_ns = lore_clock_ns() - s->server.started_ns;
    if (status == LORE_OK) {
        status = read_address(s, lore_buf_str(&line), err);
    }
    lore_buf_destroy(&line);
    if (status == LORE_OK) {
        lore_bench_report_figure(s->bench->report,
                                 &(lore_bench_figure){.name = "time to ready",
                                                      .value = (double)ready_ns * 1e-6,
                                                      .unit = "ms"});
        lore_clock_sleep_ms(SETTLE_MS);
        report_memory(s, "memory when idle (resident)");
    }
    return status;
}

/* ---- clients ---- */

/* The next question to ask, with a number behind it: one that was asked before would find its
 * prompt computed. False: out of memory. */
static bool write_body(serving *s, const kind *what, lore_str question, lore_buf *text,
                       lore_buf *json)
{
    lore_json_writer w;
    lore_buf_reset(text);
    lore_buf_reset(json);
    lore_buf_printf(text, LORE_STR_FMT " (%d)", LORE_STR_ARG(question),
                    1 + (int)atomic_fetch_add(&s->asked, 1));
    lore_json_write_begin(&w, json);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "question", lore_buf_str(text));
    lore_buf_append(json, lore_str_from(what->fields));
    lore_json_end(&w);
    return !lore_buf_failed(text) && !lore_buf_failed(json);
}

typedef struct client {
    serving *s;
    int kind;
    int32_t number, clients;
    int64_t until_ns;
    lore_bench_samples times; /* ms */
    int64_t without_text;     /* streams without released text: refusals have some, so none */
    lore_status status;
    lore_error err;
    lore_thread thread;
} client;

static lore_status ask(client *c, lore_bench_http *http, lore_str body, bool counts,
                       lore_error *err)
{
    const kind *what = &KINDS[c->kind];
    lore_bench_reply reply;
    lore_status status = lore_bench_http_post(http, what->path, body, &reply, err);
    if (status != LORE_OK) {
        return status;
    }
    if (reply.status != STATUS_OK || (what->is_streaming && !reply.is_whole)) {
        return lore_fail(err, LORE_ERR_IO, "%s gave %d: " LORE_STR_FMT, what->path,
                         (int)reply.status, LORE_STR_ARG(lore_buf_str(&http->in)));
    }
    const int64_t end_ns = what->is_streaming ? reply.first_text_ns : reply.done_ns;
    if (counts && end_ns == 0) {
        c->without_text++;
    } else if (counts) {
        lore_bench_sample(&c->times, (double)(end_ns - reply.sent_ns) * 1e-6);
    }
    return LORE_OK;
}

static void *run_client(void *self)
{
    client *c = self;
    lore_bench_http http;
    lore_buf text, json;
    lore_buf_init(&text, 0);
    lore_buf_init(&json, 0);
    lore_bench_http_init(&http, c->s->host, c->s->port);
    /* Clients go through the questions at different places. */
    int32_t at = c->number * (c->s->count / c->clients);
    for (int32_t i = 0; c->status == LORE_OK && (i <= WARM || lore_clock_ns() < c->until_ns); i++) {
        c->status = write_body(c->s, &KINDS[c->kind], c->s->questions[at], &text, &json)
                        ? ask(c, &http, lore_buf_str(&json), i >= WARM, &c->err)
                        : lore_fail(&c->err, LORE_ERR_NOMEM, "no memory for requests");
        at = (at + 1) % c->s->count;
    }
    lore_bench_http_close(&http);
    lore_buf_destroy(&json);
    lore_buf_destroy(&text);
    return NULL;
}

/* All times of the clients together, sorted. */
static lore_status ask_for_a_while(serving *s, int which, int32_t count, lore_bench_samples *all,
                                   lore_error *err)
{
    client *clients = lore_alloc_zero((size_t)count, sizeof *clients);
    if (clients == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d clients", (int)count);
    }
    const int64_t until_ns = lore_clock_ns() + lore_bench_budget(s->bench, KIND_MS) * 1000000;
    lore_status status = LORE_OK;
    int32_t started = 0;
    for (; started < count && status == LORE_OK; started++) {
        client *c = &clients[started];
        *c = (client){
            .s = s, .kind = which, .number = started, .clients = count, .until_ns = until_ns};
        status = lore_thread_start(&c->thread, "bench-client", run_client, c, err);
    }
    for (int32_t i = 0; i < count; i++) {
        client *c = &clients[i];
        lore_thread_join(&c->thread);
        if (status == LORE_OK && c->status != LORE_OK) {
            status = c->status;
            *err = c->err;
        }
        all->failed = all->failed || c->times.failed;
        for (int32_t j = 0; j < c->times.count; j++) {
            lore_bench_sample(all, c->times.items[j]);
        }
        if (status == LORE_OK && c->without_text > 0) {
            status = lore_fail(err, LORE_ERR_INVALID, "a stream ended without text");
        }
        lore_bench_samples_destroy(&c->times);
    }
    lore_free(clients);
    return status == LORE_OK ? lore_bench_samples_check(all, KINDS[which].name, err) : status;
}

/* One kind of request at one number of clients. suffix says under which conditions; a ratio to the
 * quiet run follows where there is one. */
static lore_status bench_kind(serving *s, int which, int32_t clients, const char *suffix,
                              lore_error *err)
{
    char name[96];
    lore_bench_samples times = {0};
    lore_status status = ask_for_a_while(s, which, clients, &times, err);
    if (status == LORE_OK) {
        double p99 = lore_bench_percentile(&times, 99.0);
        snprintf(name, sizeof name, "%s, %d client%s%s", KINDS[which].name, (int)clients,
                 clients == 1 ? "" : "s", suffix);
        lore_bench_report_times(s->bench->report, name, "ms", &times);
        if (suffix[0] == '\0') {
            s->quiet_p99[which] = p99;
        } else {
            lore_bench_report_figure(s->bench->report,
                                     &(lore_bench_figure){.name = "  its p99 over the quiet one",
                                                          .value = p99 / s->quiet_p99[which],
                                                          .unit = "times"});
        }
        status = lore_bench_check_cancelled(s->bench, err);
    }
    lore_bench_samples_destroy(&times);
    return status;
}

/* ---- ingest beside ---- */

typedef struct loader {
    serving *s;
    atomic_bool is_done; /* relaxed: a flag that carries nothing */
    int32_t rounds;
    int64_t chunks;
    double seconds;
    lore_status status;
    lore_error err;
    lore_thread thread;
} loader;

static void *run_loader(void *self)
{
    loader *l = self;
    char collection[64];
    /* A bench of its own: the arena is not for two threads. */
    lore_bench own = *l->s->bench;
    lore_arena_init(&own.arena, 0);
    while (l->status == LORE_OK && !atomic_load_explicit(&l->is_done, memory_order_relaxed)) {
        lore_bench_ingested done;
        snprintf(collection, sizeof collection, "lore-bench-%d", (int)l->rounds);
        l->status = lore_bench_child_ingest(&own, l->s->data, collection, own.load, &done, &l->err);
        l->rounds++;
        l->chunks += done.chunks;
        l->seconds += done.seconds;
    }
    lore_arena_destroy(&own.arena);
    return NULL;
}

static lore_status delete_loads(serving *s, int32_t rounds, lore_error *err)
{
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < rounds && status == LORE_OK; i++) {
        char collection[64];
        lore_bench_child child = {0};
        snprintf(collection, sizeof collection, "lore-bench-%d", (int)i);
        const char *const words[] = {"collections", "delete", collection};
        status = lore_bench_child_start(s->bench, s->data, words, 3, &child, err);
        int code = lore_bench_child_end(&child, 0);
        if (status == LORE_OK && code != 0) {
            status = lore_fail(err, LORE_ERR_IO, "cannot delete collection '%s'", collection);
        }
    }
    return status;
}

static lore_status bench_loaded(serving *s, lore_error *err)
{
    loader l = {.s = s};
    atomic_init(&l.is_done, false);
    lore_status status = lore_thread_start(&l.thread, "bench-loader", run_loader, &l, err);
    for (int k = 0; k < KIND_COUNT && status == LORE_OK; k++) {
        status = bench_kind(s, k, 1, ", while ingesting", err);
    }
    atomic_store_explicit(&l.is_done, true, memory_order_relaxed);
    lore_thread_join(&l.thread);
    if (status == LORE_OK && l.status != LORE_OK) {
        status = l.status;
        *err = l.err;
    }
    if (status == LORE_OK) {
        lore_bench_report_figure(s->bench->report,
                                 &(lore_bench_figure){.name = "chunks ingested beside",
                                                      .value = (double)l.chunks / l.seconds,
                                                      .unit = "1/s"});
        report_memory(s, "memory while ingesting (resident)");
    }
    lore_error ignored;
    lore_status deleted = delete_loads(s, l.rounds, status == LORE_OK ? err : &ignored);
    return status == LORE_OK ? deleted : status;
}

static lore_status run_load(serving *s, lore_error *err)
{
    lore_status status = start_server(s, err);
    for (int k = 0; k < KIND_COUNT && status == LORE_OK; k++) {
        if (s->bench->clients > 1) {
            status = bench_kind(s, k, s->bench->clients, "", err);
        }
        if (status == LORE_OK) { /* the last: the one that others are compared with */
            status = bench_kind(s, k, 1, "", err);
        }
    }
    if (status == LORE_OK) {
        report_memory(s, "memory after that (resident)");
    }
    return status == LORE_OK && s->bench->load != NULL ? bench_loaded(s, err) : status;
}

lore_status lore_bench_serve(lore_bench *bench, lore_error *err)
{
    LORE_ASSERT(bench->clients <= CLIENTS_MAX);
    serving s = {.bench = bench};
    lore_status status = lore_bench_data(bench, &s.data, err);
    if (status == LORE_OK) {
        lore_bench_report_section(bench->report, "serve", s.data);
        status = lore_bench_questions(s.bench, &s.questions, &s.count, err);
    }
    if (status == LORE_OK) {
        status = run_load(&s, err);
    }
    int code = lore_bench_child_end(&s.server, SIGTERM);
    return status == LORE_OK && code != 0
               ? lore_fail(err, LORE_ERR_IO, "lore serve ended with %d", code)
               : status;
}
