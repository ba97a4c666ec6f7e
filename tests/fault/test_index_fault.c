/* The index under faults: killed in the middle of commits and publications, out of memory at any
 * point, files that cannot grow. Whatever was acknowledged is there afterwards, whole; whatever was
 * not is there whole or not at all. */
#include "base/log.h"
#include "tests/unit/index_fixture.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void swallow(void *self, const char *line)
{
    (void)self;
    (void)line;
}

/* ---- kill -9 ---- */

enum { KILLS = 30, BATCH = 4, DOCUMENTS = 60, BATCH_CHUNKS = 24 };

static const char long_text[] =
    "a text of some length, so that twenty-four pieces of it hold words worth searching for, "
    "again and again, in documents that replace one another while somebody pulls the plug";

/* Round r writes documents (r * BATCH .. ) % DOCUMENTS with vectors of seed r * 1000 + i * 100. */
static bool write_round(lore_index *index, int64_t round, lore_error *err)
{
    if (lore_index_begin(index, err) != LORE_OK) {
        return false;
    }
    for (int i = 0; i < BATCH; i++) {
        char id[16], text[512];
        snprintf(id, sizeof id, "d%d", (int)((round * BATCH + i) % DOCUMENTS));
        snprintf(text, sizeof text, "r%lldx %s", (long long)round, long_text);
        if (fix_put(index, "default", id, text, "", BATCH_CHUNKS,
                    (uint64_t)(round * 1000 + i * 100 + 1), NULL, err) != LORE_OK) {
            return false;
        }
    }
    return lore_index_commit(index, err) == LORE_OK;
}

/* The child: rounds from `first` on, each acknowledged through the pipe, a publication now and
 * then, until killed. */
static void write_for_ever(fixture *f, int64_t first, int out)
{
    lore_error err;
    if (fix_try_open(f, true, "encoder-1", &err) != LORE_OK) {
        _exit(1);
    }
    for (int64_t round = first;; round++) {
        if (!write_round(f->index, round, &err) ||
            write(out, &round, sizeof round) != sizeof round) {
            _exit(2);
        }
        if (round % 5 == 4 && lore_index_publish(f->index, &err) != LORE_OK) {
            _exit(3);
        }
    }
}

/* Is a round in the index, whole? Of the last DOCUMENTS / BATCH rounds all documents are. */
static bool has_round(fixture *f, int64_t round)
{
    char word[32];
    int64_t chunks[8];
    float scores[8] = {0};
    snprintf(word, sizeof word, "r%lldx", (long long)round);
    int32_t found = fix_text(f->index, "default", word, NULL, chunks, NULL, 8);
    CHECK(found == 0 || found == BATCH);
    for (int i = 0; i < BATCH; i++) {
        for (int c = 0; c < BATCH_CHUNKS; c += 23) {
            uint64_t seed = (uint64_t)(round * 1000 + i * 100 + 1 + c);
            CHECK(fix_dense(f->index, "default", seed, NULL, chunks, scores, 1) == 1 || found == 0);
            CHECK((found > 0) == (scores[0] > .99f));
        }
    }
    return found > 0;
}

static void check_database(fixture *f)
{
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    CHECK_OK(lore_db_exec(f->index->writer, "INSERT INTO text_1(text_1) VALUES('integrity-check')",
                          &err),
             &err);
    CHECK_OK(lore_stmt_new(f->index->writer, "PRAGMA quick_check", &stmt, &err), &err);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    CHECK_STR(lore_column_bytes(stmt, 0), "ok");
    lore_stmt_free(stmt);
    CHECK_OK(lore_stmt_new(f->index->writer,
                           "SELECT (SELECT sum(chunk_count) FROM documents), (SELECT count(*) FROM "
                           "chunks), (SELECT count(*) FROM vectors), (SELECT chunks FROM "
                           "collections), (SELECT count(*) FROM text_1_docsize)",
                           &stmt, &err),
             &err);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    for (int i = 1; i < 5; i++) {
        CHECK_INT(lore_column_int(stmt, i), lore_column_int(stmt, 0));
    }
    int64_t live = lore_vectors_live(f->index->current->views[0]);
    CHECK_INT(live, lore_column_int(stmt, 0));
    lore_stmt_free(stmt);
}

TEST(killed_at_any_moment)
{
    fixture f;
    uint64_t state = 4711;
    int64_t next = 0; /* the round after the last acknowledged one */
    fix_init(&f, "killed");
    f.config.ann_min_vectors = 1200;
    for (int kill_round = 0; kill_round < KILLS; kill_round++) {
        int acknowledged[2];
        CHECK(pipe(acknowledged) == 0);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            close(acknowledged[0]);
            write_for_ever(&f, next, acknowledged[1]);
        }
        close(acknowledged[1]);
        usleep((useconds_t)(2000 + lore_random_next(&state) % 100000));
        CHECK(kill(child, SIGKILL) == 0);
        int code = 0;
        CHECK(waitpid(child, &code, 0) == child);
        CHECK(WIFSIGNALED(code)); /* it was at work, not failed */
        int64_t round = 0;
        while (read(acknowledged[0], &round, sizeof round) == sizeof round) {
            next = round + 1;
        }
        close(acknowledged[0]);
        fix_open(&f, true);
        for (int64_t r = next - 1; r >= 0 && r > next - DOCUMENTS / BATCH + 1; r -= 3) {
            CHECK(has_round(&f, r));
        }
        next += has_round(&f, next) ? 1 : 0; /* committed, but killed before it could say so */
        CHECK(!has_round(&f, next));
        check_database(&f);
        fix_close(&f);
    }
    fprintf(stderr, "%d kills, %lld commits\n", KILLS, (long long)next);
    fix_destroy(&f);
}

/* ---- out of memory ---- */

enum { MEMORY_SAMPLES = 120 };

static lore_status search_all(fixture *f, lore_arena *arena, lore_error *err)
{
    static const char filter_text[] =
        "{\"type\":\"in\",\"key\":\"product\",\"value\":[\"R1\",\"R2\",7]}";
    lore_search_options options = {NULL, 0, NULL, 20};
    lore_candidates found = {NULL, 0};
    lore_json *json = NULL;
    float query[FIX_DIM], scores[4];
    int64_t chunks[4] = {1, 2, 3, 4};
    lore_chunk loaded[20];
    int32_t count = 0;
    fix_vector(5, query);
    lore_snapshot *snapshot = lore_index_acquire(f->index);
    lore_status status = lore_json_parse(lore_str_from(filter_text), 8, &json, err);
    if (status == LORE_OK) {
        status = lore_search_dense(snapshot, query, &options, arena, &found, err);
    }
    if (status == LORE_OK) {
        status = lore_filter_parse(json, &f->config.limits, arena, &options.filter, err);
    }
    if (status == LORE_OK) {
        status = lore_search_dense(snapshot, query, &options, arena, &found, err);
    }
    if (status == LORE_OK) {
        status = lore_search_text(snapshot, LORE_STR("words worth searching 東京"), &options, arena,
                                  &found, err);
    }
    if (status == LORE_OK) {
        int64_t rows[20];
        for (int32_t i = 0; i < found.count; i++) {
            rows[i] = found.items[i].chunk;
        }
        status = lore_load_chunks(snapshot, rows, found.count, arena, loaded, &count, err);
    }
    if (status == LORE_OK) {
        status = lore_score_dense(snapshot, query, chunks, 4, scores, err);
    }
    lore_json_free(json);
    lore_snapshot_release(snapshot);
    return status;
}

static lore_status list_all(fixture *f, lore_arena *arena, lore_error *err)
{
    lore_collection_info *collections = NULL;
    lore_document_info *documents = NULL, document;
    lore_chunk *chunks = NULL;
    lore_str next = {NULL, 0};
    int32_t count = 0;
    lore_status status = lore_index_collections(f->index, arena, &collections, &count, err);
    if (status == LORE_OK) {
        status = lore_index_list_documents(f->index, LORE_STR("default"), next, next, 5, arena,
                                           &documents, &count, &next, err);
    }
    if (status == LORE_OK) {
        status = lore_index_get_document(f->index, LORE_STR("default"), LORE_STR("d1"), true, arena,
                                         &document, err);
    }
    if (status == LORE_OK) {
        lore_snapshot *snapshot = lore_index_acquire(f->index);
        status = lore_load_document_chunks(snapshot, LORE_STR("default"), LORE_STR("d1"), arena,
                                           &chunks, &count, err);
        lore_snapshot_release(snapshot);
    }
    return status;
}

static lore_status write_all(fixture *f, lore_error *err)
{
    bool found = false;
    lore_status status = lore_index_begin(f->index, err);
    if (status != LORE_OK) {
        return status;
    }
    for (int i = 0; i < 3 && status == LORE_OK; i++) {
        char id[16];
        snprintf(id, sizeof id, "d%d", i);
        status = fix_put(f->index, "default", id, long_text, "{\"product\":\"R2\"}", 20,
                         (uint64_t)i + 1, NULL, err);
    }
    if (status == LORE_OK) {
        status =
            lore_index_delete_document(f->index, LORE_STR("default"), LORE_STR("d0"), &found, err);
    }
    if (status == LORE_OK) {
        return lore_index_commit(f->index, err);
    }
    lore_index_rollback(f->index);
    return status;
}

/* Everything the index does, once. */
static lore_status run_all(fixture *f, lore_error *err)
{
    lore_arena arena;
    bool found = false;
    lore_arena_init(&arena, 0);
    lore_status status = fix_try_open(f, true, "encoder-1", err);
    if (status == LORE_OK) {
        status = write_all(f, err);
    }
    if (status == LORE_OK) {
        status = search_all(f, &arena, err);
    }
    if (status == LORE_OK) {
        status = list_all(f, &arena, err);
    }
    if (status == LORE_OK) {
        status = lore_index_publish(f->index, err);
    }
    if (status == LORE_OK) {
        status = lore_index_create_collection(f->index, LORE_STR("extra"), err);
    }
    if (status == LORE_OK) {
        status = lore_index_delete_collection(f->index, LORE_STR("extra"), &found, err);
    }
    lore_arena_destroy(&arena);
    fix_close(f);
    return status;
}

/* A folder with a base, a FAISS index and enough fresh rows that run_all publishes. */
static void prepare(fixture *f)
{
    lore_error err;
    fix_open(f, true);
    CHECK_OK(lore_index_begin(f->index, &err), &err);
    for (int i = 0; i < 30; i++) {
        char id[16];
        snprintf(id, sizeof id, "base%d", i);
        CHECK_OK(fix_put(f->index, "default", id, long_text, "{\"product\":\"R1\"}", 50,
                         (uint64_t)i * 100 + 1, NULL, &err),
                 &err);
    }
    CHECK_OK(lore_index_commit(f->index, &err), &err);
    CHECK_OK(lore_index_publish(f->index, &err), &err);
    fix_close(f);
}

TEST(out_of_memory_anywhere)
{
    fixture f;
    lore_error err;
    lore_log_set_sink(swallow, NULL);
    fix_init(&f, "memory");
    f.config.ann_min_vectors = 1000;
    f.config.limits.row_budget_min_chunks = 10;
    prepare(&f);
    CHECK_OK(run_all(&f, &err), &err);
    int64_t before = lore_mem_count();
    CHECK_OK(run_all(&f, &err), &err);
    int64_t total = lore_mem_count() - before;
    fprintf(stderr, "%lld allocations a run\n", (long long)total);
    int failed = 0;
    for (int sample = 0; sample < 2 * MEMORY_SAMPLES; sample++) {
        int64_t n = 1 + total * (sample / 2) / MEMORY_SAMPLES + sample % 7;
        int64_t live = lore_mem_live();
        lore_mem_fail_at(n, sample % 2 != 0);
        lore_status status = run_all(&f, &err);
        lore_mem_fail_at(0, false);
        if (status != LORE_OK && status != LORE_ERR_NOMEM) {
            CHECK_STOP("allocation %lld (sticky %d): %s: %s", (long long)n, sample % 2,
                       lore_status_name(status), err.message);
        }
        if (lore_mem_live() != live) {
            CHECK_STOP("allocation %lld (sticky %d) leaks %lld blocks", (long long)n, sample % 2,
                       (long long)(lore_mem_live() - live));
        }
        failed += status != LORE_OK;
    }
    CHECK(failed > MEMORY_SAMPLES);
    CHECK_OK(run_all(&f, &err), &err);
    fix_open(&f, true);
    check_database(&f);
    fix_destroy(&f);
    lore_log_set_sink(NULL, NULL);
}

/* ---- files that cannot grow ---- */

/* In a child with a limit on file size: writes fail as on a full disk, then the limit goes and all
 * is well. */
static int fill_up(fixture *f)
{
    lore_error err;
    struct rlimit limit = {1 << 20, RLIM_INFINITY};
    if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR ||
        fix_try_open(f, true, "encoder-1", &err) != LORE_OK || !write_round(f->index, 0, &err) ||
        setrlimit(RLIMIT_FSIZE, &limit) != 0) {
        return 1;
    }
    int64_t round = 1;
    while (round < 200 && write_round(f->index, round, &err)) {
        round++;
    }
    lore_index_rollback(f->index);
    if (round == 200 || err.status != LORE_ERR_IO || strstr(err.message, "lore.db") == NULL) {
        return 2;
    }
    limit.rlim_cur = RLIM_INFINITY;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) {
        return 3;
    }
    for (int64_t r = 0; r < round; r++) {
        if (r > round - DOCUMENTS / BATCH && !has_round(f, r)) {
            return 4;
        }
    }
    if (has_round(f, round) || !write_round(f->index, round, &err) || !has_round(f, round)) {
        return 5;
    }
    check_database(f);
    lore_index_close(f->index);
    return 0;
}

TEST(files_that_cannot_grow)
{
    fixture f;
    int code = 1;
    fix_init(&f, "grow");
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        lore_log_set_sink(swallow, NULL);
        _exit(setjmp(check_exit) == 0 ? fill_up(&f) : 9);
    }
    CHECK(waitpid(child, &code, 0) == child);
    CHECK_INT(WEXITSTATUS(code), 0);
    fix_destroy(&f);
}

CHECK_MAIN(killed_at_any_moment, out_of_memory_anywhere, files_that_cannot_grow)
