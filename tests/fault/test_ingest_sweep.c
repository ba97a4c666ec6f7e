/* Reading a small folder into an index with every allocation, call on a file
 * and thread start failing in turn. A document that fails is reported and fails alone; a run that
 * fails keeps what it committed; the next run makes the folder whole (sweep.h, index_check.h). */
#include "tests/fault/sweep.h"

#include "tests/fault/index_check.h"
#include "tests/unit/ingest_index_fixture.h"

typedef struct ingest_life {
    bench b; /* its index and writer are open only during a run */
    char documents[256];
    int64_t failed; /* documents of the last run */
} ingest_life;

static void count_failure(void *self, const lore_ingest_event *event)
{
    ((ingest_life *)self)->failed += event->reason != NULL && event->reason->message[0] != '\0';
}

static lore_status ingest(ingest_life *life, lore_error *err)
{
    bench *b = &life->b;
    const char *path = life->documents;
    lore_source_options source_options = {.paths = &path, .path_count = 1};
    lore_ingest_options options = {.self = life, .settled = count_failure, .is_pruning = true};
    lore_ingest_counts counts;
    lore_source *source = NULL;
    lore_status status = lore_source_open(&source_options, &b->config.limits, &source, err);
    if (status == LORE_OK) {
        status = lore_ingest_run(b->writer, b->embedder, &b->config, source, &source_options,
                                 &options, &counts, err);
        LORE_ASSERT(status != LORE_OK || counts.failed == life->failed); /* each has its reason */
    }
    lore_source_close(source);
    return status;
}

static lore_status open_index(bench *b, lore_error *err)
{
    lore_index_options options = {.config = &b->config,
                                  .backend = b->backend,
                                  .is_writer = true,
                                  .encoder = lore_embedder_fingerprint(b->embedder),
                                  .dim = lore_embedder_dim(b->embedder)};
    return lore_index_open(b->folder, &options, &b->index, err);
}

static void close_index(bench *b)
{
    lore_writer_close(b->writer);
    lore_index_close(b->index);
    b->writer = NULL;
    b->index = NULL;
}

static lore_status live(void *self, lore_error *err)
{
    ingest_life *life = self;
    bench *b = &life->b;
    life->failed = 0;
    lore_status status = open_index(b, err);
    if (status == LORE_OK) {
        status = lore_writer_open(b->index, &b->writer, err);
    }
    if (status == LORE_OK) {
        status = ingest(life, err);
    }
    if (status == LORE_OK) {
        status = lore_writer_publish(b->writer, err);
    }
    close_index(b);
    return status;
}

static int32_t check_life(void *self, lore_status status)
{
    ingest_life *life = self;
    bench *b = &life->b;
    lore_error err;
    int64_t failed = life->failed, count = 0;
    CHECK_OK(open_index(b, &err), &err);
    int32_t problems = index_check_all(b->index);
    CHECK_OK(lore_db_number(b->index->writer, "SELECT count(*) FROM documents", &count, &err),
             &err);
    close_index(b);
    if (status == LORE_OK && count + failed != 3) {
        fprintf(stderr, "%lld documents, %lld failed\n", (long long)count, (long long)failed);
        problems++;
    }
    return problems;
}

static void start_over(void *self)
{
    sweep_remove_folder(((ingest_life *)self)->b.folder);
}

static void run_sweep(const char *name, void (*how)(sweep *s))
{
    static const char *const texts[] = {
        "# Router\n\n## Reset\n\nHold the button for ten seconds. All settings are lost.\n",
        "<html><head><title>Lights</title></head><body><p>A blue light is a good sign.</p></body>",
        "Plain words about a warranty of 24 months.\n"};
    static const char *const names[] = {"router.md", "lights.html", "warranty.txt"};
    static ingest_life life;
    bench_open(&life.b, name);
    close_index(&life.b);
    life.b.config.threads = 2;
    snprintf(life.documents, sizeof life.documents, "%s/%s-documents", check_temp_dir(), name);
    lore_error err;
    CHECK_OK(lore_dir_make(life.documents, &err), &err);
    for (int i = 0; i < 3; i++) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", life.documents, names[i]);
        write_file(path, lore_str_from(texts[i]));
    }
    sweep s = {
        .name = name, .prepare = start_over, .run = live, .check = check_life, .self = &life};
    how(&s);
    bench_close(&life.b);
}

TEST(files_of_an_ingest)
{
    run_sweep("files of an ingest", sweep_files);
}

TEST(memory_of_an_ingest)
{
    run_sweep("memory of an ingest", sweep_allocations);
}

CHECK_MAIN(files_of_an_ingest, memory_of_an_ingest)
