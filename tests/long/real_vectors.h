/* Real documents, questions and their vectors for the long tests of the index.
 *
 * The rows are about 100,000 chunks of English and Chinese documentation (three to one), the
 * queries are 1,000 questions of other people's about other things (the hardest: nothing is near
 * them) and 1,000 headings of documents that were left out (how such documents are asked about).
 * Embedding takes minutes, so the data folder is kept: in $LORE_ANN_DATA, or beside the test.
 * Skipped where the documents are not there. */
#ifndef LORE_TESTS_LONG_REAL_VECTORS_H
#define LORE_TESTS_LONG_REAL_VECTORS_H

#include "base/clock.h"
#include "index/index_int.h"
#include "ingest/pipeline.h"
#include "tests/check.h"

#include <sys/stat.h>

#define SHARED LORE_SOURCE_DIR "/../shared/data"
#define ENCODER LORE_SOURCE_DIR "/weights/encoder"

enum { QUERIES = 1000, EN_STEP = 3, ZH_STEP = 7, ROWS_MIN = 90000 };

/* ---- documents of the collection of texts, one JSON object a line ---- */

typedef void (*visit_line)(void *self, int64_t number, const lore_json *json);

static void each_line(const char *path, visit_line visit, void *self)
{
    char command[512];
    snprintf(command, sizeof command, "xz -dc '%s'", path);
    FILE *pipe = popen(command, "r");
    CHECK(pipe != NULL);
    char *line = NULL;
    size_t cap = 0;
    ssize_t length = 0;
    for (int64_t i = 0; (length = getline(&line, &cap, pipe)) > 0; i++) {
        lore_error err;
        lore_json *json = NULL;
        CHECK_OK(lore_json_parse((lore_str){line, (size_t)length}, 32, &json, &err), &err);
        visit(self, i, json);
        lore_json_free(json);
    }
    free(line);
    CHECK_INT(pclose(pipe), 0);
}

typedef struct corpus {
    int64_t step; /* every so many documents are taken, headings come from the others */
    FILE *documents;
    char *headings[QUERIES];
    int32_t heading_count, heading_max;
    int64_t seen;
} corpus;

static void write_document(corpus *c, int64_t number, const lore_json *json)
{
    lore_buf line, text;
    lore_json_writer w;
    char id[32];
    lore_buf_init(&line, 0);
    lore_buf_init(&text, 0);
    const lore_json *sections = lore_json_get(json, "sections");
    for (const lore_json *s = lore_json_first(sections); s != NULL; s = lore_json_next(s)) {
        lore_buf_append(&text, LORE_STR("## "));
        lore_buf_append(&text, lore_json_str(lore_json_get(s, "heading")));
        lore_buf_append(&text, LORE_STR("\n\n"));
        lore_buf_append(&text, lore_json_str(lore_json_get(s, "text")));
        lore_buf_append(&text, LORE_STR("\n\n"));
    }
    snprintf(id, sizeof id, "%lld-%lld", (long long)c->step, (long long)number);
    lore_json_write_begin(&w, &line);
    lore_json_object(&w, NULL);
    lore_json_string(&w, "id", lore_str_from(id));
    lore_json_string(&w, "markdown", lore_buf_str(&text));
    lore_json_end(&w);
    lore_buf_append(&line, LORE_STR("\n"));
    CHECK(!lore_buf_failed(&line));
    lore_str out = lore_buf_str(&line);
    CHECK(fwrite(out.ptr, 1, out.len, c->documents) == out.len);
    lore_buf_destroy(&line);
    lore_buf_destroy(&text);
}

static void visit_document(void *self, int64_t number, const lore_json *json)
{
    corpus *c = self;
    if (number % c->step == 0) {
        if (c->documents != NULL) {
            write_document(c, number, json);
        }
        return;
    }
    const lore_json *sections = lore_json_get(json, "sections");
    for (const lore_json *s = lore_json_first(sections); s != NULL; s = lore_json_next(s)) {
        lore_str heading = lore_json_str(lore_json_get(s, "heading"));
        bool is_question = lore_str_ends(heading, LORE_STR("?")) ||
                           lore_str_ends(heading, LORE_STR("？")) ||
                           lore_str_starts(heading, LORE_STR("How to")) ||
                           lore_str_starts(heading, LORE_STR("如何"));
        /* Every third, so that they come from many documents. */
        if (is_question && c->seen++ % 3 == 0 && c->heading_count < c->heading_max) {
            c->headings[c->heading_count++] = strndup(heading.ptr, heading.len);
        }
    }
}

static void read_corpus(corpus *c)
{
    c->step = EN_STEP;
    c->heading_max = QUERIES * 3 / 4;
    each_line(SHARED "/text/docs-en.jsonl.xz", visit_document, c);
    c->step = ZH_STEP;
    c->heading_max = QUERIES;
    each_line(SHARED "/text/docs-zh.jsonl.xz", visit_document, c);
    CHECK_INT(c->heading_count, QUERIES);
}

/* ---- questions ---- */

typedef struct questions {
    char *texts[QUERIES];
    int32_t count, max;
    int64_t step;
} questions;

static void visit_question(void *self, int64_t number, const lore_json *json)
{
    questions *q = self;
    lore_str text = lore_json_str(lore_json_get(json, "question"));
    if (number % q->step == 0 && q->count < q->max && text.len > 0) {
        q->texts[q->count++] = strndup(text.ptr, text.len);
    }
}

static void read_questions(questions *q)
{
    static const struct {
        const char *path;
        int32_t count, step;
    } files[] = {{SHARED "/qa/dev-domain-en.jsonl.xz", 400, 7},
                 {SHARED "/qa/dev-squad-en.jsonl.xz", 350, 13},
                 {SHARED "/qa/dev-zh.jsonl.xz", 250, 16}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        q->max += files[i].count;
        q->step = files[i].step;
        each_line(files[i].path, visit_question, q);
    }
    CHECK_INT(q->count, QUERIES);
}

/* ---- the product around it ---- */

typedef struct bench {
    lore_config config;
    lore_pool *pool;
    lore_backend *backend;
    lore_embedder *embedder;
    lore_index *index;
    char folder[512];
    float *vectors; /* [QUERIES, dim] */
} bench;

static void open_models(bench *b)
{
    lore_error err;
    CHECK_OK(lore_pool_new(0, &b->pool, &err), &err);
    lore_backend_options options = {.kind = LORE_BACKEND_CPU, .pool = b->pool};
    CHECK_OK(lore_backend_open(&options, &b->backend, &err), &err);
    CHECK_OK(lore_embedder_open(ENCODER, b->backend, &b->config.limits, &b->embedder, &err), &err);
}

static void open_index(bench *b)
{
    lore_error err;
    lore_index_options options = {&b->config,
                                  b->backend,
                                  true,
                                  lore_embedder_fingerprint(b->embedder),
                                  lore_embedder_dim(b->embedder),
                                  NULL};
    CHECK_OK(lore_index_open(b->folder, &options, &b->index, &err), &err);
}

static void ingest(bench *b, const char *documents)
{
    lore_error err;
    lore_writer *writer = NULL;
    lore_source *source = NULL;
    lore_ingest_counts counts;
    lore_source_options from = {.paths = &documents, .path_count = 1};
    lore_ingest_options options = {.self = NULL};
    CHECK_OK(lore_writer_open(b->index, &writer, &err), &err);
    CHECK_OK(lore_source_open(&from, &b->config.limits, &source, &err), &err);
    CHECK_OK(
        lore_ingest_run(writer, b->embedder, &b->config, source, &from, &options, &counts, &err),
        &err);
    lore_source_close(source);
    lore_writer_close(writer);
}

static void embed(bench *b, char *const *texts)
{
    lore_error err;
    lore_str strings[QUERIES];
    for (int i = 0; i < QUERIES; i++) {
        strings[i] = lore_str_from(texts[i]);
    }
    CHECK_OK(lore_embedder_encode(b->embedder, strings, QUERIES, b->vectors, &err), &err);
}

static void prepare(bench *b, corpus *c)
{
    const char *kept = getenv("LORE_ANN_DATA");
    struct stat info;
    char path[600];
    lore_config_default(&b->config);
    if (stat(SHARED "/text/docs-en.jsonl.xz", &info) != 0 || stat(ENCODER, &info) != 0) {
        CHECK_SKIP("no documents beside the repository");
    }
    snprintf(b->folder, sizeof b->folder, "%s", kept != NULL ? kept : "ann-recall-data");
    open_models(b);
    open_index(b);
    lore_snapshot *snapshot = lore_index_acquire(b->index);
    bool is_there = lore_snapshot_chunks(snapshot) >= ROWS_MIN;
    lore_snapshot_release(snapshot);
    snprintf(path, sizeof path, "%s/documents.jsonl", b->folder);
    if (!is_there) {
        c->documents = fopen(path, "w");
        CHECK(c->documents != NULL);
    }
    read_corpus(c);
    if (!is_there) {
        CHECK_INT(fclose(c->documents), 0);
        ingest(b, path);
        CHECK_INT(remove(path), 0);
    }
    lore_index_close(b->index);
    b->index = NULL;
    size_t size = (size_t)QUERIES * (size_t)lore_embedder_dim(b->embedder) * sizeof(float);
    b->vectors = lore_alloc(size);
    CHECK(b->vectors != NULL);
}

static void close_models(bench *b)
{
    lore_embedder_close(b->embedder);
    lore_backend_close(b->backend);
    lore_pool_free(b->pool);
    lore_free(b->vectors);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

#endif
