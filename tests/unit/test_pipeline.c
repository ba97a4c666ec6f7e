/* The run: added, unchanged, replaced, failed, pruned, cancelled, and the same index whatever the
 * number of threads. */
#include "tests/unit/ingest_index_fixture.h"

#include "base/clock.h"
#include "models/embedder_int.h"

#include <pthread.h>
#include <unistd.h>

typedef struct observer {
    lore_buf failures; /* "source: message\n" */
    int64_t cancel_at; /* documents seen; 0 never */
    int64_t seen, progress_calls, total;
    int64_t fates[LORE_FATE_FAILED + 1];
} observer;

static void on_settled(void *self, const lore_ingest_event *event)
{
    observer *o = self;
    o->fates[event->fate]++;
    if (event->fate == LORE_FATE_FAILED) {
        lore_buf_printf(&o->failures, LORE_STR_FMT ": %s\n", LORE_STR_ARG(event->source),
                        event->reason->message);
    }
}

static void on_progress(void *self, const lore_ingest_counts *counts, int64_t total)
{
    observer *o = self;
    o->seen = counts->seen;
    o->total = total;
    o->progress_calls++;
}

static bool is_cancelled(void *self)
{
    const observer *o = self;
    return o->cancel_at > 0 && o->seen >= o->cancel_at;
}

static lore_status run_paths(bench *b, const char *const *paths, int32_t count,
                             lore_ingest_options options, lore_ingest_counts *counts,
                             lore_error *err)
{
    lore_source *source = NULL;
    lore_source_options source_options = {.paths = paths, .path_count = count};
    CHECK_OK(lore_source_open(&source_options, &b->config.limits, &source, err), err);
    lore_status status = lore_ingest_run(b->writer, b->embedder, &b->config, source,
                                         &source_options, &options, counts, err);
    lore_source_close(source);
    return status;
}

static lore_ingest_counts run_folder(bench *b, const char *folder, lore_ingest_options options)
{
    lore_error err = {0};
    lore_ingest_counts counts;
    CHECK_OK(run_paths(b, &folder, 1, options, &counts, &err), &err);
    return counts;
}

static void write_document(const char *folder, const char *name, const char *content)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    write_file(path, lore_str_from(content));
}

/* A folder of count Markdown files. */
static void make_folder(char folder[256], const char *name, int count)
{
    lore_error err = {0};
    char file[64], content[256];
    snprintf(folder, 256, "%s/%s", check_temp_dir(), name);
    CHECK_OK(lore_dir_make(folder, &err), &err);
    for (int i = 0; i < count; i++) {
        snprintf(file, sizeof file, "%03d.md", i);
        snprintf(content, sizeof content,
                 "# Document %d\n\nIt speaks of number %d.\n\n## More\n\nText.\n", i, i * i);
        write_document(folder, file, content);
    }
}

TEST(life_of_a_folder)
{
    bench b;
    char folder[256], path[300];
    observer o = {0};
    lore_buf_init(&o.failures, 0);
    bench_open(&b, "life-data");
    make_folder(folder, "life", 70);
    lore_ingest_options options = {.self = &o, .progress = on_progress, .settled = on_settled};
    lore_ingest_counts counts = run_folder(&b, folder, options);
    CHECK_INT(counts.seen, 70);
    CHECK_INT(counts.added, 70);
    CHECK(counts.chunks >= 70);
    CHECK(counts.tokens > 0 && counts.text_bytes > 0);
    CHECK_INT(bench_documents(&b), 70);
    CHECK(o.progress_calls > 0);
    CHECK_INT(o.total, 70);

    counts = run_folder(&b, folder, options);
    CHECK_INT(counts.unchanged, 70);
    CHECK_INT(counts.added + counts.replaced + counts.failed + counts.chunks, 0);

    write_document(folder, "003.md", "# Document 3\n\nChanged.\n");
    write_document(folder, "bad.md", "\x01\x02\x03\x04\x05\x06\x07\x08\x0E\x0F");
    snprintf(path, sizeof path, "%s/005.md", folder);
    CHECK_INT(unlink(path), 0);
    options.is_pruning = true;
    options.is_dry = true;
    options.index = b.index;
    memset(o.fates, 0, sizeof o.fates);
    counts = run_folder(&b, folder, options);
    CHECK_INT(counts.replaced, 1);
    CHECK_INT(counts.deleted, 1);
    CHECK_INT(o.fates[LORE_FATE_REPLACED] + 10 * o.fates[LORE_FATE_DELETED] +
                  100 * o.fates[LORE_FATE_FAILED] + 1000 * o.fates[LORE_FATE_UNCHANGED],
              68111);
    CHECK_INT(bench_documents(&b), 70);
    options.index = NULL; /* nothing there: all are new */
    counts = run_folder(&b, folder, options);
    CHECK_INT(counts.added, 69);
    CHECK_INT(counts.deleted, 0);
    options.is_dry = false;
    counts = run_folder(&b, folder, options);
    CHECK_INT(counts.replaced, 1);
    CHECK_INT(counts.unchanged, 68);
    CHECK_INT(counts.failed, 1);
    CHECK_INT(counts.deleted, 1);
    CHECK_INT(bench_documents(&b), 69);
    CHECK(lore_str_find(lore_buf_str(&o.failures), LORE_STR("bad.md: "), 0) != SIZE_MAX);
    lore_buf_destroy(&o.failures);
    bench_close(&b);
}

/* Of two documents with one id in one run the later stays, also when it equals what was stored. */
TEST(repeated_ids)
{
    bench b;
    char folder[256], path[300];
    bench_open(&b, "repeat-data");
    make_folder(folder, "repeat", 0);
    write_document(folder, "d.jsonl", "{\"id\":\"x\",\"text\":\"One.\"}\n");
    snprintf(path, sizeof path, "%s/d.jsonl", folder);
    CHECK_INT(run_folder(&b, path, (lore_ingest_options){0}).added, 1);
    write_document(folder, "d.jsonl",
                   "{\"id\":\"x\",\"text\":\"Zero.\"}\n{\"id\":\"x\",\"text\":\"Two.\"}\n");
    lore_ingest_counts counts = run_folder(&b, path, (lore_ingest_options){0});
    CHECK_INT(counts.replaced, 2);
    check_stored(&b, "default", LORE_STR("x"), "Two.");
    /* Line 2 is now what line 1 becomes, and line 1 something else. */
    write_document(folder, "d.jsonl",
                   "{\"id\":\"x\",\"text\":\"Three.\"}\n{\"id\":\"x\",\"text\":\"Two.\"}\n");
    counts = run_folder(&b, path, (lore_ingest_options){0});
    CHECK_INT(counts.seen, 2);
    CHECK_INT(counts.replaced, 2);
    check_stored(&b, "default", LORE_STR("x"), "Two.");
    bench_close(&b);
}

/* Errors of lines and of missing files are told, and nothing under them is pruned. */
TEST(failures_stay_alone)
{
    bench b;
    observer o = {0};
    lore_error err = {0};
    lore_ingest_counts counts;
    char folder[256];
    lore_buf_init(&o.failures, 0);
    bench_open(&b, "fail-data");
    make_folder(folder, "fail", 2);
    write_document(folder, "l.jsonl",
                   "{\"id\":\"l1\",\"text\":\"One.\"}\n{\"id\":\"l2\",\"text\":\"Two.\"}\n");
    lore_ingest_options options = {.self = &o, .settled = on_settled, .is_pruning = true};
    CHECK_INT(run_folder(&b, folder, options).added, 4);
    write_document(folder, "l.jsonl",
                   "{\"id\":\"l1\",\"text\":\"One.\"}\n{\"id\":\"l2\",\"text\":5}\n");
    const char *paths[] = {folder, "/no/such/file.md"};
    CHECK_OK(run_paths(&b, paths, 2, options, &counts, &err), &err);
    CHECK_INT(counts.failed, 2);
    CHECK_INT(counts.deleted, 0);
    CHECK_INT(bench_documents(&b), 4);
    CHECK(lore_str_find(lore_buf_str(&o.failures), LORE_STR("l.jsonl#2: line 2: "), 0) != SIZE_MAX);
    CHECK(lore_str_find(lore_buf_str(&o.failures), LORE_STR("/no/such/file.md: "), 0) != SIZE_MAX);
    lore_buf_destroy(&o.failures);
    bench_close(&b);
}

/* What was committed before a cancel stays, the rest comes with the next run. */
TEST(cancelled)
{
    bench b;
    char folder[256];
    observer o = {.cancel_at = 1};
    lore_error err = {0};
    lore_ingest_counts counts;
    bench_open(&b, "cancel-data");
    b.config.commit_documents = 4;
    make_folder(folder, "cancel", 200);
    const char *path = folder;
    lore_ingest_options options = {
        .self = &o, .progress = on_progress, .is_cancelled = is_cancelled, .is_pruning = true};
    CHECK_FAILS(run_paths(&b, &path, 1, options, &counts, &err), LORE_ERR_CANCELLED, &err, "kept");
    int64_t kept = bench_documents(&b);
    CHECK_INT(kept, counts.added);
    CHECK(kept < 200);
    CHECK_INT(counts.deleted, 0);
    counts = run_folder(&b, folder, (lore_ingest_options){0});
    CHECK_INT(counts.unchanged, kept);
    CHECK_INT(bench_documents(&b), 200);
    bench_close(&b);
}

/* An encoder that takes two packs at a time, as a device's does: two embedders keep it busy. */
static void pair_embedders(bench *b)
{
    const lore_encoder_room room = {.rows = 256, .sequences = 16, .seats = 2};
    const lore_encoder_room rooms[] = {room, room};
    lore_error err = {0};
    lore_embedder_close(b->embedder);
    CHECK_OK(
        lore_embedder_open_rooms(ENCODER, b->backend, rooms, &b->config.limits, &b->embedder, &err),
        &err);
    CHECK_INT(lore_embedder_bulk_calls(b->embedder), 2);
}

/* Rows in order of the source: with one thread or many the chunks come out alike. */
TEST(order)
{
    enum { ROUNDS = 3 };
    lore_arena arena;
    lore_chunk chunks[ROUNDS][64];
    int32_t counts[ROUNDS] = {0};
    char folder[256];
    lore_error err = {0};
    make_folder(folder, "order", 20);
    lore_arena_init(&arena, 0);
    for (int round = 0; round < ROUNDS; round++) {
        bench b;
        char name[16];
        snprintf(name, sizeof name, "order-%d", round);
        bench_open(&b, name);
        b.config.threads = round == 0 ? 1 : 16;
        if (round == 2) {
            pair_embedders(&b);
        }
        run_folder(&b, folder, (lore_ingest_options){0});
        int64_t rows[64];
        for (int64_t i = 0; i < 64; i++) {
            rows[i] = i + 1;
        }
        lore_snapshot *snapshot = lore_index_acquire(b.index);
        CHECK_OK(lore_load_chunks(snapshot, rows, 64, &arena, chunks[round], &counts[round], &err),
                 &err);
        lore_snapshot_release(snapshot);
        bench_close(&b);
    }
    CHECK(counts[0] >= 20);
    for (int round = 1; round < ROUNDS; round++) {
        CHECK_INT(counts[0], counts[round]);
        for (int32_t i = 0; i < counts[0]; i++) {
            CHECK_INT(chunks[0][i].row, chunks[round][i].row);
            CHECK(lore_str_equal(chunks[0][i].text, chunks[round][i].text));
            CHECK(lore_str_equal(chunks[0][i].source, chunks[round][i].source));
        }
    }
    lore_arena_destroy(&arena);
}

/* Documents on a slow pipe are found while the run goes on. */
typedef struct slow_feed {
    int fd;
    bench *b;
    int64_t found_early;
} slow_feed;

static void *feed_slowly(void *self)
{
    slow_feed *f = self;
    const char *first = "{\"id\":\"a\",\"text\":\"First.\"}\n",
               *second = "{\"id\":\"b\",\"text\":\"Second.\"}\n";
    if (write(f->fd, first, strlen(first)) > 0) {
        for (int i = 0; i < 100 && f->found_early == 0; i++) {
            usleep(50000);
            bool found = false;
            uint8_t hash[32];
            lore_status status = lore_index_document_hash(f->b->index, LORE_STR("default"),
                                                          LORE_STR("a"), hash, &found, NULL);
            f->found_early = status == LORE_OK && found ? 1 : 0;
        }
        if (write(f->fd, second, strlen(second)) < 0) {
            f->found_early = -1;
        }
    }
    close(f->fd);
    return NULL;
}

TEST(lands_early)
{
    bench b;
    int ends[2];
    pthread_t thread;
    lore_error err = {0};
    lore_source *source = NULL;
    lore_ingest_counts counts;
    const char *path = "-";
    bench_open(&b, "stream-data");
    CHECK_INT(pipe(ends), 0);
    slow_feed f = {ends[1], &b, 0};
    lore_source_options source_options = {.paths = &path, .path_count = 1, .stdin_fd = ends[0]};
    lore_ingest_options options = {0};
    CHECK_OK(lore_source_open(&source_options, &b.config.limits, &source, &err), &err);
    CHECK_INT(pthread_create(&thread, NULL, feed_slowly, &f), 0);
    CHECK_OK(lore_ingest_run(b.writer, b.embedder, &b.config, source, &source_options, &options,
                             &counts, &err),
             &err);
    pthread_join(thread, NULL);
    CHECK_INT(counts.added, 2);
    CHECK_INT(f.found_early, 1);
    lore_source_close(source);
    close(ends[0]);
    bench_close(&b);
}

/* Threads that cannot be started: fewer cleaners do, without the others the run fails at once. */
TEST(without_threads)
{
    bench b;
    char folder[256];
    const char *path = folder;
    lore_error err = {0};
    lore_ingest_counts counts;
    bench_open(&b, "threads-data");
    b.config.threads = 8; /* four cleaners: starts 2 to 5, after the embedder, before the reader */
    make_folder(folder, "threads", 5);
    for (int64_t n = 1; n <= 6; n++) {
        lore_thread_fail_at(n);
        lore_status status = run_paths(&b, &path, 1, (lore_ingest_options){0}, &counts, &err);
        lore_thread_fail_at(0);
        bool is_cleaner = n >= 3 && n <= 5;
        CHECK_INT(status == LORE_OK, is_cleaner);
    }
    CHECK_INT(bench_documents(&b), 5);
    pair_embedders(&b); /* starts 1 and 2, and the cleaners' from 3 on */
    for (int64_t n = 1; n <= 3; n++) {
        lore_thread_fail_at(n);
        lore_status status = run_paths(&b, &path, 1, (lore_ingest_options){0}, &counts, &err);
        lore_thread_fail_at(0);
        CHECK_INT(status == LORE_OK, n == 2);
    }
    bench_close(&b);
}

/* Memory failing anywhere: the run ends, with an error or with documents that failed, and the next
 * run makes it whole. */
TEST(without_memory)
{
    bench b;
    char folder[256];
    const char *path = folder;
    lore_error err = {0};
    lore_ingest_counts counts;
    bench_open(&b, "memory-data");
    make_folder(folder, "memory", 3);
    for (int64_t n = 1; n <= 120; n += 1 + n / 12) {
        lore_source *source = NULL;
        lore_source_options source_options = {.paths = &path, .path_count = 1};
        lore_ingest_options options = {.is_dry = n % 2 == 0, .index = b.index};
        CHECK_OK(lore_source_open(&source_options, &b.config.limits, &source, &err), &err);
        lore_mem_fail_at(n, false);
        (void)!lore_ingest_run(b.writer, b.embedder, &b.config, source, &source_options, &options,
                               &counts, &err);
        lore_mem_fail_at(0, false);
        lore_source_close(source);
    }
    CHECK_OK(run_paths(&b, &path, 1, (lore_ingest_options){0}, &counts, &err), &err);
    CHECK_INT(counts.failed, 0);
    CHECK_INT(bench_documents(&b), 3);
    bench_close(&b);
}

/* PUTs from several threads while a run goes on: all of them land. */
typedef struct putter {
    bench *b;
    int first;
    lore_status status;
} putter;

static void *put_some(void *self)
{
    putter *p = self;
    lore_arena arena;
    lore_error err = {0};
    lore_arena_init(&arena, 0);
    for (int i = 0; i < 10 && p->status == LORE_OK; i++) {
        char id[32];
        lore_ingest_result result;
        snprintf(id, sizeof id, "put%d", p->first + i);
        lore_raw_document raw = {.id = lore_str_from(id),
                                 .media = LORE_MEDIA_TEXT,
                                 .bytes = LORE_STR("Some words here.")};
        lore_arena_reset(&arena);
        p->status = lore_ingest_one(p->b->writer, p->b->embedder, &p->b->config,
                                    &(lore_ingest_one_options){0}, &raw, &arena, &result, &err);
    }
    lore_arena_destroy(&arena);
    return NULL;
}

TEST(beside_puts)
{
    bench b;
    char folder[256];
    pthread_t threads[2];
    bench_open(&b, "puts-data");
    make_folder(folder, "puts", 30);
    putter putters[2] = {{&b, 0, LORE_OK}, {&b, 100, LORE_OK}};
    for (int i = 0; i < 2; i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, put_some, &putters[i]), 0);
    }
    lore_ingest_counts counts = run_folder(&b, folder, (lore_ingest_options){0});
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(putters[i].status, LORE_OK);
    }
    CHECK_INT(counts.added, 30);
    CHECK_INT(bench_documents(&b), 50);
    bench_close(&b);
}

CHECK_MAIN(life_of_a_folder, repeated_ids, failures_stay_alone, cancelled, order, lands_early,
           without_threads, without_memory, beside_puts)
