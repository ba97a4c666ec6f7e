/* lore bench search: both searches and the whole retrieval on a data folder, question by question.
 *
 * Dense and text times are those of one search on one snapshot, without embedding; "both" is
 * lore_retrieve with everything: embedding, both searches, fusion, loading of the passages. Where
 * the folder has FAISS indexes, the exact scan is timed beside them and recall says how many of its
 * best FAISS found. Where a GPU is configured it does the dense ones. With --vectors nothing of
 * that, but bench_scan.c. */
#include "api/app.h"
#include "base/clock.h"
#include "base/file.h"
#include "bench/bench.h"
#include "index/index_int.h"

#include <inttypes.h>
#include <string.h>

enum {
    SEARCHES = 600, /* of each kind */
    RECALL_BEST = 10,
    COPY_MS = 60000,    /* for the vectors to get to a device */
    FILES_MAX = 1 << 20 /* names in a data folder */
};

typedef struct searching {
    lore_bench *bench;
    lore_app app;
    lore_snapshot *snapshot;
    lore_str *questions;
    int32_t count;
    float *vectors;       /* [count, dim] */
    lore_arena arena;     /* of one search */
    double found, wanted; /* of recall */
} searching;

static lore_status embed_questions(searching *s, lore_error *err)
{
    size_t size = 0;
    int32_t dim = lore_embedder_dim(s->app.embedder);
    if (!lore_size_mul((size_t)s->count, (size_t)dim * sizeof(float), &size) ||
        (s->vectors = lore_arena_push(&s->bench->arena, size)) == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d vectors", s->count);
    }
    return lore_embedder_encode(s->app.embedder, s->questions, s->count, s->vectors, err);
}

typedef lore_status (*search_one)(searching *s, int32_t question, lore_error *err);

static lore_search_options search_options(const searching *s)
{
    return (lore_search_options){.count = (int32_t)s->bench->config->limits.candidates_max};
}

static const float *vector_of(const searching *s, int32_t question)
{
    return s->vectors + (size_t)question * (size_t)lore_embedder_dim(s->app.embedder);
}

static lore_status search_dense(searching *s, int32_t question, lore_error *err)
{
    lore_candidates found;
    const lore_search_options options = search_options(s);
    return lore_search_dense(s->snapshot, vector_of(s, question), &options, &s->arena, &found, err);
}

static lore_status search_exact(searching *s, int32_t question, lore_error *err)
{
    lore_candidates found;
    lore_search_options options = search_options(s);
    options.is_exact = true;
    return lore_search_dense(s->snapshot, vector_of(s, question), &options, &s->arena, &found, err);
}

static lore_status search_text(searching *s, int32_t question, lore_error *err)
{
    lore_candidates found;
    const lore_search_options options = search_options(s);
    return lore_search_text(s->snapshot, s->questions[question], &options, &s->arena, &found, err);
}

static lore_status search_both(searching *s, int32_t question, lore_error *err)
{
    lore_hits hits;
    const lore_retrieve_options options = {.hits_max = (int32_t)s->bench->config->top_k,
                                           .tuning = {-1.0, 0.0}};
    return lore_retrieve(&s->app.answerer.retriever, s->questions[question], &options, &s->arena,
                         &hits, err);
}

static lore_status time_searches(searching *s, const char *name, search_one one, lore_error *err)
{
    lore_bench_samples times = {0};
    const int64_t runs = lore_bench_budget(s->bench, SEARCHES);
    lore_status status = one(s, 0, err); /* caches and prepared statements */
    for (int64_t i = 0; i < runs && status == LORE_OK; i++) {
        lore_arena_reset(&s->arena);
        const int64_t begin = lore_clock_ns();
        status = one(s, (int32_t)(i % s->count), err);
        lore_bench_sample(&times, (double)(lore_clock_ns() - begin) * 1e-6);
    }
    if (status == LORE_OK) {
        status = lore_bench_samples_check(&times, name, err);
    }
    if (status == LORE_OK) {
        lore_bench_report_times(s->bench->report, name, "ms", &times);
        status = lore_bench_check_cancelled(s->bench, err);
    }
    lore_bench_samples_destroy(&times);
    return status;
}

/* How many of the exact scan's best are among as many of the index's. */
static lore_status compare_one(searching *s, int32_t question, lore_error *err)
{
    lore_candidates exact = {0}, found = {0};
    lore_search_options options = search_options(s);
    options.is_exact = true;
    lore_arena_reset(&s->arena);
    lore_status status =
        lore_search_dense(s->snapshot, vector_of(s, question), &options, &s->arena, &exact, err);
    options.is_exact = false;
    if (status == LORE_OK) {
        status = lore_search_dense(s->snapshot, vector_of(s, question), &options, &s->arena, &found,
                                   err);
    }
    for (int32_t i = 0; status == LORE_OK && i < exact.count && i < RECALL_BEST; i++) {
        s->wanted += 1.0;
        for (int32_t j = 0; j < found.count && j < RECALL_BEST; j++) {
            s->found += found.items[j].chunk == exact.items[i].chunk;
        }
    }
    return status;
}

static lore_status bench_faiss(searching *s, lore_error *err)
{
    lore_status status = time_searches(s, "dense, exact scan", search_exact, err);
    for (int32_t i = 0; i < s->count && status == LORE_OK; i++) {
        status = compare_one(s, i, err);
    }
    if (status == LORE_OK && s->wanted > 0.0) {
        lore_bench_report_figure(s->bench->report,
                                 &(lore_bench_figure){.name = "recall of FAISS against it, best 10",
                                                      .value = s->found / s->wanted,
                                                      .unit = "",
                                                      .samples = s->count});
    }
    return status;
}

static lore_status has_faiss(searching *s, const char *folder, bool *has, lore_error *err)
{
    lore_str *names = NULL;
    size_t count = 0;
    lore_status status = lore_dir_list(&s->arena, folder, FILES_MAX, &names, &count, err);
    *has = false;
    for (size_t i = 0; i < count && status == LORE_OK; i++) {
        *has = *has || lore_str_starts(names[i], LORE_STR("ann-"));
    }
    return status;
}

static lore_status run_searches(searching *s, lore_error *err)
{
    bool has = false;
    char title[96];
    lore_status status = has_faiss(s, s->app.config->data, &has, err);
    has = has && s->app.index->device == NULL;
    snprintf(title, sizeof title, "%" PRId64 " chunks, %s%s", lore_snapshot_chunks(s->snapshot),
             has ? "FAISS" : "exact scan", s->app.index->device != NULL ? " on the device" : "");
    lore_bench_report_section(s->bench->report, "search", title);
    if (status == LORE_OK) {
        status = time_searches(s, has ? "dense, FAISS" : "dense, exact scan", search_dense, err);
    }
    if (status == LORE_OK && has) {
        status = bench_faiss(s, err);
    }
    if (status == LORE_OK) {
        status = time_searches(s, "text", search_text, err);
    }
    return status == LORE_OK
               ? time_searches(s, "both, with embedding and passages", search_both, err)
               : status;
}

lore_status lore_bench_search(lore_bench *bench, lore_error *err)
{
    if (bench->vectors > 0) {
        return lore_bench_has_gpu(bench) ? lore_bench_device_search(bench, err)
                                         : lore_bench_scan(bench, err);
    }
    searching s = {.bench = bench};
    const char *data = NULL;
    lore_arena_init(&s.arena, 0);
    lore_status status = lore_bench_data(bench, &data, err);
    lore_config *config = LORE_PUSH(&bench->arena, lore_config, 1);
    if (status == LORE_OK && config == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "no memory for a configuration");
    }
    if (status == LORE_OK) {
        *config = *bench->config;
        if (strlen(data) >= sizeof config->data) {
            status = lore_fail(err, LORE_ERR_LIMIT, "the path of '%s' is too long", data);
        } else {
            memcpy(config->data, data, strlen(data) + 1);
        }
    }
    if (status == LORE_OK) {
        const lore_app_needs needs = {.embedder = true, .index = true, .device_search = true};
        status = lore_app_open(config, needs, &s.app, err);
    }
    if (status == LORE_OK) {
        status = lore_bench_questions(bench, &s.questions, &s.count, err);
    }
    if (status == LORE_OK) {
        status = embed_questions(&s, err);
    }
    if (status == LORE_OK && s.app.index->device != NULL &&
        !lore_device_wait(s.app.index->device, lore_clock_ns() + COPY_MS * 1000000LL)) {
        status = lore_fail(err, LORE_ERR_TIMEOUT, "the vectors are still on the way to the device");
    }
    if (status == LORE_OK) {
        s.snapshot = lore_index_acquire(s.app.index);
        status = run_searches(&s, err);
        lore_snapshot_release(s.snapshot);
    }
    lore_app_close(&s.app);
    lore_arena_destroy(&s.arena);
    return status == LORE_OK ? lore_bench_device_search(bench, err) : status;
}
