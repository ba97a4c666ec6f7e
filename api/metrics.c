/* See metrics.h. A request is one row of a small table: route by status for the counts, route by
 * bucket for the time. Statuses are those this server sends; any other falls into the last one, so
 * that a label can never be made up from outside. */
#include "api/metrics.h"

#include "api/routes.h"
#include "base/clock.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const int32_t STATUSES[] = {200, 201, 400, 403, 404, 405, 408, 413,
                                   415, 417, 429, 499, 500, 501, 503, 504};
/* Upper edges of the buckets in seconds: from a listing to a long answer. */
static const double EDGES[] = {.001, .0025, .005, .01, .025, .05, .1, .25,
                               .5,   1,     2.5,  5,   10,   30,  60};
enum {
    STATUS_COUNT = sizeof STATUSES / sizeof STATUSES[0],
    EDGE_COUNT = sizeof EDGES / sizeof EDGES[0],
    MODE_COUNT = LORE_MODE_PROMPT + 1
};

typedef struct route_counts {
    int64_t by_status[STATUS_COUNT + 1];
    int64_t by_edge[EDGE_COUNT + 1];
    double seconds;
} route_counts;

struct lore_metrics {
    lore_lock lock;                 /* guards all below */
    route_counts *counts;           /* of lore_routes, then of all other addresses together */
    int64_t answers[MODE_COUNT][2]; /* by mode used, refused */
    int64_t reranks[LORE_RERANK_FAILED + 1];
    int64_t prompt_tokens, completion_tokens;
    int64_t refused; /* connections */
    int32_t active, connections;
    int64_t started_ns;
};

lore_metrics *lore_metrics_new(void)
{
    lore_metrics *metrics = lore_alloc_zero(1, sizeof *metrics);
    if (metrics == NULL) {
        return NULL;
    }
    metrics->counts = lore_alloc_zero((size_t)lore_route_count + 1, sizeof *metrics->counts);
    if (metrics->counts == NULL) {
        lore_free(metrics);
        return NULL;
    }
    lore_lock_init(&metrics->lock);
    metrics->started_ns = lore_clock_ns();
    return metrics;
}

void lore_metrics_free(lore_metrics *metrics)
{
    if (metrics != NULL) {
        lore_lock_destroy(&metrics->lock);
        lore_free(metrics->counts);
        lore_free(metrics);
    }
}

static int32_t find_status(int32_t http_status)
{
    int32_t i = 0;
    while (i < STATUS_COUNT && STATUSES[i] != http_status) {
        i++;
    }
    return i;
}

void lore_metrics_request(lore_metrics *metrics, int32_t route, int32_t http_status,
                          int64_t elapsed_ns)
{
    LORE_ASSERT(route >= 0 && route <= lore_route_count);
    double seconds = (double)elapsed_ns / 1e9;
    int32_t edge = 0;
    while (edge < EDGE_COUNT && seconds > EDGES[edge]) {
        edge++;
    }
    lore_lock_acquire(&metrics->lock);
    route_counts *counts = &metrics->counts[route];
    counts->by_status[find_status(http_status == 0 ? 499 : http_status)]++;
    counts->by_edge[edge]++;
    counts->seconds += seconds;
    lore_lock_release(&metrics->lock);
}

void lore_metrics_answer(lore_metrics *metrics, const lore_answer *answer)
{
    lore_lock_acquire(&metrics->lock);
    metrics->answers[answer->mode_used][answer->is_refused]++;
    metrics->reranks[answer->hits.rerank]++;
    metrics->prompt_tokens += answer->prompt_tokens;
    metrics->completion_tokens += answer->completion_tokens;
    lore_lock_release(&metrics->lock);
}

void lore_metrics_active(lore_metrics *metrics, int32_t change)
{
    lore_lock_acquire(&metrics->lock);
    metrics->active += change;
    lore_lock_release(&metrics->lock);
}

void lore_metrics_connection(lore_metrics *metrics, int32_t change)
{
    lore_lock_acquire(&metrics->lock);
    metrics->connections += change;
    lore_lock_release(&metrics->lock);
}

void lore_metrics_refused(lore_metrics *metrics)
{
    lore_lock_acquire(&metrics->lock);
    metrics->refused++;
    lore_lock_release(&metrics->lock);
}

/* ---- the page ---- */

static void print_head(lore_buf *out, const char *name, const char *type, const char *help)
{
    lore_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void print_gauge(lore_buf *out, const char *name, const char *help, double value)
{
    print_head(out, name, "gauge", help);
    lore_buf_printf(out, "%s %.17g\n", name, value);
}

static void print_counter(lore_buf *out, const char *name, const char *help, int64_t value)
{
    print_head(out, name, "counter", help);
    lore_buf_printf(out, "%s %" PRId64 "\n", name, value);
}

/* The value of the label. */
static const char *route_name(int32_t route, char out[LORE_ROUTE_NAME_CAP])
{
    if (route == lore_route_count) {
        return "other";
    }
    lore_route_name(route, out);
    return out;
}

static void print_requests(const lore_metrics *metrics, lore_buf *out)
{
    print_head(out, "lore_requests_total", "counter", "Requests by route and status.");
    for (int32_t route = 0; route <= lore_route_count; route++) {
        char name[LORE_ROUTE_NAME_CAP];
        for (int32_t i = 0; i <= STATUS_COUNT; i++) {
            int64_t count = metrics->counts[route].by_status[i];
            if (count > 0) {
                char status[16] = "other";
                if (i < STATUS_COUNT) {
                    snprintf(status, sizeof status, "%d", (int)STATUSES[i]);
                }
                lore_buf_printf(out,
                                "lore_requests_total{route=\"%s\",status=\"%s\"} %" PRId64 "\n",
                                route_name(route, name), status, count);
            }
        }
    }
}

static void print_seconds(const lore_metrics *metrics, lore_buf *out)
{
    print_head(out, "lore_request_seconds", "histogram",
               "Time from the first byte of a request to the last of its reply.");
    for (int32_t route = 0; route <= lore_route_count; route++) {
        const route_counts *counts = &metrics->counts[route];
        char room[LORE_ROUTE_NAME_CAP];
        const char *name = route_name(route, room);
        int64_t total = 0;
        for (int32_t i = 0; i <= EDGE_COUNT; i++) {
            total += counts->by_edge[i];
        }
        if (total == 0) {
            continue;
        }
        int64_t below = 0;
        for (int32_t i = 0; i < EDGE_COUNT; i++) {
            below += counts->by_edge[i];
            lore_buf_printf(out,
                            "lore_request_seconds_bucket{route=\"%s\",le=\"%g\"} %" PRId64 "\n",
                            name, EDGES[i], below);
        }
        lore_buf_printf(out, "lore_request_seconds_bucket{route=\"%s\",le=\"+Inf\"} %" PRId64 "\n",
                        name, total);
        lore_buf_printf(out, "lore_request_seconds_sum{route=\"%s\"} %.9g\n", name,
                        counts->seconds);
        lore_buf_printf(out, "lore_request_seconds_count{route=\"%s\"} %" PRId64 "\n", name, total);
    }
}

static void print_answers(const lore_metrics *metrics, lore_buf *out)
{
    print_head(out, "lore_answers_total", "counter", "Answers by the mode that gave them.");
    for (int32_t mode = 0; mode < MODE_COUNT; mode++) {
        for (int32_t refused = 0; refused < 2; refused++) {
            lore_buf_printf(out,
                            "lore_answers_total{mode_used=\"%s\",refused=\"%s\"} %" PRId64 "\n",
                            lore_mode_name((lore_mode)mode), refused ? "true" : "false",
                            metrics->answers[mode][refused]);
        }
    }
    static const char *const OUTCOMES[] = {[LORE_RERANK_DONE] = "done",
                                           [LORE_RERANK_LATE] = "deadline",
                                           [LORE_RERANK_FAILED] = "error"};
    print_head(out, "lore_reranks_total", "counter", "What came of the reranker, where one is.");
    for (int32_t i = LORE_RERANK_DONE; i <= LORE_RERANK_FAILED; i++) {
        lore_buf_printf(out, "lore_reranks_total{outcome=\"%s\"} %" PRId64 "\n", OUTCOMES[i],
                        metrics->reranks[i]);
    }
    print_head(out, "lore_tokens_total", "counter", "Tokens of prompts and of answers.");
    lore_buf_printf(out, "lore_tokens_total{kind=\"prompt\"} %" PRId64 "\n",
                    metrics->prompt_tokens);
    lore_buf_printf(out, "lore_tokens_total{kind=\"completion\"} %" PRId64 "\n",
                    metrics->completion_tokens);
}

static void print_engine(const lore_app *app, lore_buf *out)
{
    if (app->engine == NULL) {
        return;
    }
    lore_sched_stats stats = {0};
    lore_engine_get_stats(app->engine, &stats);
    print_gauge(out, "lore_engine_waiting", "Sequences that wait for the decoder.", stats.waiting);
    print_gauge(out, "lore_engine_running", "Sequences that are being decoded.", stats.running);
    print_gauge(out, "lore_engine_pages_free", "Free key/value pages.", stats.pages_free);
    print_gauge(out, "lore_engine_pages_cached",
                "Of the free pages, those that can be found again.", stats.pages_cached);
    print_gauge(out, "lore_engine_pages_total", "Key/value pages.", stats.pages_total);
    print_counter(out, "lore_engine_preemptions_total", "Sequences put back for want of pages.",
                  stats.preemptions);
    print_counter(out, "lore_engine_evictions_total", "Cached pages that made room for others.",
                  stats.evictions);
    print_counter(out, "lore_engine_prompt_tokens_total", "Tokens of prompts that were read.",
                  stats.prompt_tokens);
    print_counter(out, "lore_engine_cached_tokens_total",
                  "Of these, tokens that an earlier request had read.", stats.cached_tokens);
    print_counter(out, "lore_engine_steps_total", "Steps of the decoder.", stats.steps);
}

/* Those in memory, each by its name, which needs no escapes (adapters.h). */
static lore_status print_loaded(lore_adapters *adapters, lore_buf *out, lore_error *err)
{
    lore_arena arena;
    lore_adapter_view *list = NULL;
    int32_t count = 0;
    lore_arena_init(&arena, 0);
    lore_status status = lore_adapters_list(adapters, &arena, &list, &count, err);
    print_head(out, "lore_adapter_size_bytes", "gauge", "Of an adapter that is in memory.");
    for (int32_t i = 0; status == LORE_OK && i < count; i++) {
        const lore_adapter_view *view = &list[i];
        if (!view->is_leaving &&
            (view->state == LORE_ADAPTER_HOST || view->state == LORE_ADAPTER_DEVICE)) {
            lore_buf_printf(
                out, "lore_adapter_size_bytes{adapter=\"" LORE_STR_FMT "\",state=\"%s\"} %zu\n",
                LORE_STR_ARG(view->name), lore_adapter_state_name(view->state),
                view->info.size_bytes);
        }
    }
    lore_arena_destroy(&arena);
    return status;
}

static lore_status print_adapters(const lore_app *app, lore_buf *out, lore_error *err)
{
    lore_adapters *adapters = app->engine != NULL ? lore_engine_adapters(app->engine) : NULL;
    if (adapters == NULL) {
        return LORE_OK;
    }
    lore_adapters_stats stats;
    lore_adapters_get_stats(adapters, &stats);
    print_head(out, "lore_adapters", "gauge", "Adapters by where they are.");
    for (int state = 0; state < LORE_ADAPTER_STATES; state++) {
        lore_buf_printf(out, "lore_adapters{state=\"%s\"} %d\n",
                        lore_adapter_state_name((lore_adapter_state)state),
                        (int)stats.by_state[state]);
    }
    print_gauge(out, "lore_adapter_requests", "Requests that hold an adapter.", stats.requests);
    print_gauge(out, "lore_adapter_device_bytes", "Adapters in the decoder's memory.",
                (double)stats.device_bytes);
    print_gauge(out, "lore_adapter_device_bytes_max", "What they may take of it.",
                (double)stats.device_bytes_max);
    print_gauge(out, "lore_adapter_host_bytes", "Adapters in host memory.",
                (double)stats.host_bytes);
    print_gauge(out, "lore_adapter_host_bytes_max", "What they may take of it.",
                (double)stats.host_bytes_max);
    print_counter(out, "lore_adapter_loads_total", "Loads into the decoder's memory.", stats.loads);
    print_counter(out, "lore_adapter_failures_total", "Loads that failed.", stats.failures);
    print_head(out, "lore_adapter_load_seconds_total", "counter", "Time of all loads together.");
    lore_buf_printf(out, "lore_adapter_load_seconds_total %.9g\n", (double)stats.load_ns / 1e9);
    print_head(out, "lore_adapter_evictions_total", "counter", "Adapters that made room.");
    lore_buf_printf(out, "lore_adapter_evictions_total{memory=\"device\"} %" PRId64 "\n",
                    stats.device_evictions);
    lore_buf_printf(out, "lore_adapter_evictions_total{memory=\"host\"} %" PRId64 "\n",
                    stats.host_evictions);
    return print_loaded(adapters, out, err);
}

static lore_status print_index(const lore_app *app, lore_buf *out, lore_error *err)
{
    if (app->index == NULL) {
        return LORE_OK;
    }
    lore_arena arena;
    lore_arena_init(&arena, (size_t)app->config->limits.arena_bytes_max);
    lore_collection_info *list = NULL;
    int32_t count = 0;
    lore_status status = lore_index_collections(app->index, &arena, &list, &count, err);
    if (status == LORE_OK) { /* names hold letters, digits and "-_." alone: no escapes needed */
        print_head(out, "lore_index_documents", "gauge", "Documents of a collection.");
        for (int32_t i = 0; i < count; i++) {
            lore_buf_printf(out,
                            "lore_index_documents{collection=\"" LORE_STR_FMT "\"} %" PRId64 "\n",
                            LORE_STR_ARG(list[i].name), list[i].documents);
        }
        print_head(out, "lore_index_chunks", "gauge", "Chunks of a collection.");
        for (int32_t i = 0; i < count; i++) {
            lore_buf_printf(out, "lore_index_chunks{collection=\"" LORE_STR_FMT "\"} %" PRId64 "\n",
                            LORE_STR_ARG(list[i].name), list[i].chunks);
        }
    }
    lore_arena_destroy(&arena);
    return status;
}

/* Resident memory in bytes; 0 where /proc does not say. */
static int64_t resident_bytes(void)
{
    int64_t size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file != NULL) {
        if (fscanf(file, "%" SCNd64 " %" SCNd64, &size, &resident) != 2) {
            resident = 0;
        }
        fclose(file);
    }
    return resident * sysconf(_SC_PAGESIZE);
}

/* Entries of a folder of /proc; 0 where it cannot be read. */
static int64_t count_entries(const char *path)
{
    int64_t count = 0;
    DIR *folder = opendir(path);
    if (folder != NULL) {
        for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
            count += entry->d_name[0] != '.';
        }
        closedir(folder);
    }
    return count;
}

static void print_process(const lore_metrics *metrics, lore_buf *out)
{
    print_gauge(out, "process_resident_memory_bytes", "Resident memory.", (double)resident_bytes());
    print_gauge(out, "process_open_fds", "Open descriptors.",
                (double)count_entries("/proc/self/fd"));
    print_gauge(out, "lore_threads", "Threads of the process.",
                (double)count_entries("/proc/self/task"));
    print_gauge(out, "lore_allocations", "Pieces of memory that are in use.",
                (double)lore_mem_live());
    print_gauge(out, "lore_uptime_seconds", "Time since the service started.",
                (double)(lore_clock_ns() - metrics->started_ns) / 1e9);
    print_head(out, "lore_build_info", "gauge", "Always 1; the label is what matters.");
    lore_buf_printf(out, "lore_build_info{version=\"%s\"} 1\n", LORE_VERSION);
}

lore_status lore_metrics_print(lore_metrics *metrics, const lore_app *app, lore_buf *out,
                               lore_error *err)
{
    lore_lock_acquire(&metrics->lock);
    print_requests(metrics, out);
    print_seconds(metrics, out);
    print_answers(metrics, out);
    print_gauge(out, "lore_requests_active", "Requests under way.", metrics->active);
    print_gauge(out, "lore_connections_open", "Connections of clients.", metrics->connections);
    print_counter(out, "lore_connections_refused_total", "Connections over one of the caps.",
                  metrics->refused);
    lore_lock_release(&metrics->lock);
    print_engine(app, out);
    lore_status status = print_adapters(app, out, err);
    if (app->log != NULL) {
        print_counter(out, "lore_request_log_dropped_total",
                      "Requests that the request log could not take.",
                      lore_request_log_dropped(app->log));
    }
    if (status == LORE_OK) {
        status = print_index(app, out, err);
    }
    print_process(metrics, out);
    return status;
}
