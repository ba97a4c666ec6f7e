/* Snapshots: what a commit did is seen, an old snapshot stays as it was, another process's commits
 * are noticed, and random work agrees with a model in memory. */
#include "base/log.h"
#include "tests/unit/index_fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* A snapshot does not change while the index goes on; chunks deleted since drop out when loaded. */
TEST(old_snapshots_stay)
{
    fixture f;
    lore_error err;
    lore_arena arena;
    float query[FIX_DIM];
    lore_candidates found;
    lore_str name = LORE_STR("default");
    lore_search_options options = {.collections = &name, .collection_count = 1, .count = 10};
    lore_arena_init(&arena, 0);
    fix_init(&f, "stay");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "a", "apples", "", 1, 1);
    lore_snapshot *old = lore_index_acquire(f.index);
    int64_t sequence = lore_snapshot_sequence(old);
    fix_put_one(f.index, "default", "b", "pears", "", 1, 2);
    fix_delete_one(f.index, "default", "a");
    fix_vector(1, query);
    CHECK_OK(lore_search_dense(old, query, &options, &arena, &found, &err), &err);
    CHECK_INT(found.count, 1);
    CHECK_NEAR(found.items[0].score, 1, .01);
    CHECK_INT(lore_snapshot_chunks(old), 1);
    lore_chunk chunk;
    int32_t count = 9;
    CHECK_OK(lore_load_chunks(old, &found.items[0].chunk, 1, &arena, &chunk, &count, &err), &err);
    CHECK_INT(count, 0);
    lore_snapshot *new = lore_index_acquire(f.index);
    CHECK_INT(lore_snapshot_sequence(new), sequence + 2);
    CHECK_OK(lore_search_dense(new, query, &options, &arena, &found, &err), &err);
    CHECK_INT(found.count, 1);
    CHECK(found.items[0].score < .9f);
    lore_snapshot_release(new);
    lore_snapshot_release(old);
    lore_snapshot_release(NULL);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* Thousands of small commits leave few segments, and each row where it was. */
TEST(small_commits_stay_cheap)
{
    fixture f;
    char id[16];
    int64_t chunks[1];
    fix_init(&f, "commits");
    fix_open(&f, true);
    lore_error err;
    CHECK_OK(lore_db_exec(f.index->writer, "PRAGMA synchronous=OFF", &err), &err);
    for (int i = 0; i < 1000; i++) {
        snprintf(id, sizeof id, "d%d", i);
        fix_put_one(f.index, "default", id, "x", "", 1, (uint64_t)i + 1);
        CHECK(f.index->current->views[0]->part_count <= 12);
    }
    for (uint64_t seed = 1; seed <= 1000; seed += 37) {
        CHECK_INT(fix_dense(f.index, "default", seed, NULL, chunks, NULL, 1), 1);
        CHECK_INT(chunks[0], (int64_t)seed);
    }
    fix_destroy(&f);
}

/* A reader in another process sees a commit as soon as the writer says it is done, publications and
 * all. */
TEST(two_processes)
{
    enum { ROUNDS = 60 };
    fixture f;
    lore_error err;
    int done[2], go[2];
    char byte = 'x', id[16];
    fix_init(&f, "processes");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "seed", "apples", "", 1, 1000000);
    fix_close(&f);
    CHECK(pipe(done) == 0 && pipe(go) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) { /* the writer; CHECK works in the parent only */
        bool is_good = fix_try_open(&f, true, "encoder-1", &err) == LORE_OK;
        for (int i = 0; i < ROUNDS && is_good; i++) {
            is_good = lore_index_begin(f.index, &err) == LORE_OK;
            for (int j = 0; j < 4 && is_good; j++) { /* document j of the round has 64 chunks */
                snprintf(id, sizeof id, "d%d", (4 * i + j) % 40);
                is_good =
                    fix_put(f.index, "default", id,
                            "pears and plums in a long long text that "
                            "is cut into sixty-four pieces of which none is empty",
                            "", 64, (uint64_t)(1000 * (4 * i + j)) + 1, NULL, &err) == LORE_OK;
            }
            is_good = is_good && lore_index_commit(f.index, &err) == LORE_OK &&
                      (i % 7 != 6 || lore_index_publish(f.index, &err) == LORE_OK) &&
                      write(done[1], &byte, 1) == 1 && read(go[0], &byte, 1) == 1;
        }
        lore_index_close(f.index);
        _exit(is_good ? 0 : 1);
    }
    fix_open(&f, false);
    for (int i = 0; i < ROUNDS; i++) {
        int64_t chunks[1];
        float scores[1];
        CHECK(read(done[0], &byte, 1) == 1);
        uint64_t newest = (uint64_t)(1000 * (4 * i + 3)) + 1;
        CHECK_INT(fix_dense(f.index, "default", newest + 63, NULL, chunks, scores, 1), 1);
        CHECK_NEAR(scores[0], 1, .01);
        fix_document_of(f.index, chunks[0], id, sizeof id);
        char expected[16];
        snprintf(expected, sizeof expected, "d%d", (4 * i + 3) % 40);
        CHECK_STR(lore_str_from(id), expected);
        lore_snapshot *snapshot = lore_index_acquire(f.index);
        int64_t documents = 4 * (i + 1) < 40 ? 4 * (i + 1) : 40;
        CHECK_INT(lore_snapshot_chunks(snapshot), 1 + 64 * documents);
        CHECK_INT(lore_vectors_live(snapshot->views[0]), 1 + 64 * documents);
        lore_snapshot_release(snapshot);
        CHECK(write(go[1], &byte, 1) == 1);
    }
    int code = 1;
    CHECK(waitpid(child, &code, 0) == child && code == 0);
    fix_destroy(&f);
}

/* A refresh that has no memory leaves the old snapshot; the next acquire catches up. */
static void swallow(void *self, const char *line)
{
    (void)self;
    (void)line;
}

TEST(refresh_catches_up)
{
    lore_log_set_sink(swallow, NULL); /* the warnings are what this is about */
    fixture f;
    lore_error err;
    int64_t chunks[4];
    fix_init(&f, "catches_up");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "a", "apples", "", 1, 1);
    for (int64_t n = 1; n < 400; n += 7) {
        char id[16];
        snprintf(id, sizeof id, "d%d", (int)n);
        CHECK_OK(lore_index_begin(f.index, &err), &err);
        CHECK_OK(fix_put(f.index, "default", id, "pears", "", 1, (uint64_t)n + 1, NULL, &err),
                 &err);
        lore_mem_fail_at(n, true);
        lore_status status = lore_index_commit(f.index, &err);
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_OK || status == LORE_ERR_NOMEM);
        int32_t found = fix_dense(f.index, "default", (uint64_t)n + 1, NULL, chunks, NULL, 4);
        CHECK(found > 0);
        fix_document_of(f.index, chunks[0], id, sizeof id);
        char expected[16];
        snprintf(expected, sizeof expected, "d%d", (int)n);
        CHECK(lore_str_equal(lore_str_from(id), lore_str_from(expected)) == (status == LORE_OK));
    }
    lore_log_set_sink(NULL, NULL);
    fix_destroy(&f);
}

/* ---- threads ---- */

enum { SEARCHERS = 3 };

typedef struct searcher {
    lore_index *index;
    atomic_bool *is_over;
    lore_thread thread;
    int64_t searches;
    lore_error err; /* status LORE_OK: all went well */
} searcher;

/* Both searches and loading, again and again; every answer must fit its snapshot. */
static void *search_on(void *self)
{
    searcher *s = self;
    lore_arena arena;
    lore_search_options options = {.count = 10};
    lore_status status = LORE_OK;
    lore_arena_init(&arena, 0);
    while (status == LORE_OK && !atomic_load(s->is_over)) {
        lore_candidates dense, text;
        lore_chunk chunks[10];
        int64_t rows[10];
        float query[FIX_DIM];
        int32_t count = 0;
        lore_arena_reset(&arena);
        fix_vector((uint64_t)s->searches++, query);
        lore_snapshot *snapshot = lore_index_acquire(s->index);
        status = lore_search_dense(snapshot, query, &options, &arena, &dense, &s->err);
        if (status == LORE_OK && dense.count != 10) {
            status = lore_fail(&s->err, LORE_ERR_CORRUPT, "%d candidates", dense.count);
        }
        if (status == LORE_OK) {
            status =
                lore_search_text(snapshot, LORE_STR("pears"), &options, &arena, &text, &s->err);
        }
        for (int32_t i = 0; i < 10 && status == LORE_OK; i++) {
            rows[i] = dense.items[i].chunk;
        }
        if (status == LORE_OK) {
            status = lore_load_chunks(snapshot, rows, 10, &arena, chunks, &count, &s->err);
        }
        lore_snapshot_release(snapshot);
    }
    s->err.status = status;
    lore_arena_destroy(&arena);
    return NULL;
}

/* Searches go on undisturbed while the index is written and published. */
TEST(searching_while_writing)
{
    fixture f;
    lore_error err;
    atomic_bool is_over = false;
    searcher searchers[SEARCHERS];
    fix_init(&f, "threads");
    f.config.ann_min_vectors = 2000;
    fix_open(&f, true);
    CHECK_OK(lore_db_exec(f.index->writer, "PRAGMA synchronous=OFF", &err), &err);
    fix_put_one(f.index, "default", "first",
                "many pears in a text of sixty-four pieces, so long "
                "that none of them is empty",
                "", 64, 1);
    for (int i = 0; i < SEARCHERS; i++) {
        searchers[i] = (searcher){.index = f.index, .is_over = &is_over};
        CHECK_OK(
            lore_thread_start(&searchers[i].thread, "searcher", search_on, &searchers[i], &err),
            &err);
    }
    lore_status status = LORE_OK;
    for (int i = 0; i < 120 && status == LORE_OK; i++) {
        char id[16];
        snprintf(id, sizeof id, "d%d", i % 60);
        status = lore_index_begin(f.index, &err);
        if (status == LORE_OK) {
            status = fix_put(f.index, "default", id,
                             "many pears in a text of sixty-four pieces, so "
                             "long that none of them is empty",
                             "", 64, (uint64_t)i * 64, NULL, &err);
        }
        if (status == LORE_OK) {
            status = lore_index_commit(f.index, &err);
        }
        if (status == LORE_OK && i % 10 == 9) {
            status = lore_index_publish(f.index, &err);
        }
    }
    atomic_store(&is_over, true);
    for (int i = 0; i < SEARCHERS; i++) {
        lore_thread_join(&searchers[i].thread);
    }
    CHECK_OK(status, &err);
    for (int i = 0; i < SEARCHERS; i++) {
        CHECK_OK(searchers[i].err.status, &searchers[i].err);
        CHECK(searchers[i].searches > 0);
    }
    fix_destroy(&f);
}

/* ---- random work against a model ---- */

enum { MODEL_DOCUMENTS = 300, MODEL_STEPS = 10000 };

typedef struct model {
    uint64_t seeds[2][MODEL_DOCUMENTS]; /* of each document of two collections, 0: there is none */
    int32_t chunks[2][MODEL_DOCUMENTS];
} model;

static const char *const model_names[] = {"default", "other"};

/* The best score for a query in the model, and how many chunks it has. */
static float model_best(const model *m, int collection, const float *query, int64_t *count)
{
    float best = -2;
    *count = 0;
    for (int d = 0; d < MODEL_DOCUMENTS; d++) {
        for (int32_t c = 0; c < m->chunks[collection][d]; c++, ++*count) {
            float vector[FIX_DIM];
            double sum = 0;
            fix_vector(m->seeds[collection][d] + (uint64_t)c, vector);
            for (int i = 0; i < FIX_DIM; i++) {
                sum += (double)(query[i] * vector[i]);
            }
            best = (float)sum > best ? (float)sum : best;
        }
    }
    return best;
}

static void check_model(const fixture *f, const model *m, uint64_t *state)
{
    int collection = (int)(lore_random_next(state) % 2);
    int64_t chunks[4], count = 0;
    float scores[4], query[FIX_DIM];
    uint64_t seed = lore_random_next(state);
    fix_vector(seed, query);
    float best = model_best(m, collection, query, &count);
    int32_t found = fix_dense(f->index, model_names[collection], seed, NULL, chunks, scores, 4);
    CHECK_INT(found, count < 4 ? count : 4);
    if (found > 0) {
        CHECK_NEAR(scores[0], best, .02);
    }
    /* Every document has a word of its own, its seed; the replaced ones must not be found. */
    int d = (int)(lore_random_next(state) % MODEL_DOCUMENTS);
    char word[32], id[16], expected[16];
    snprintf(word, sizeof word, "w%llux", (unsigned long long)m->seeds[collection][d]);
    found = fix_text(f->index, model_names[collection], word, NULL, chunks, scores, 4);
    CHECK_INT(found, m->chunks[collection][d] > 0 ? 1 : 0);
    if (found == 1) {
        snprintf(expected, sizeof expected, "d%d", d);
        fix_document_of(f->index, chunks[0], id, sizeof id);
        CHECK_STR(lore_str_from(id), expected);
    }
}

static void model_step(fixture *f, model *m, uint64_t *state)
{
    lore_error err;
    char id[16], text[64];
    int d = (int)(lore_random_next(state) % MODEL_DOCUMENTS);
    int collection = (int)(lore_random_next(state) % 2);
    bool was = m->chunks[collection][d] > 0, flag = false;
    snprintf(id, sizeof id, "d%d", d);
    if (lore_random_next(state) % 3 == 0) {
        CHECK_OK(lore_index_delete_document(f->index, lore_str_from(model_names[collection]),
                                            lore_str_from(id), &flag, &err),
                 &err);
        m->chunks[collection][d] = 0;
        m->seeds[collection][d] = 0;
    } else {
        uint64_t seed = lore_random_next(state) >> 8;
        int32_t chunks = 1 + (int32_t)(lore_random_next(state) % 5);
        snprintf(text, sizeof text, "w%llux and several words besides", (unsigned long long)seed);
        CHECK_OK(
            fix_put(f->index, model_names[collection], id, text, "", chunks, seed, &flag, &err),
            &err);
        m->chunks[collection][d] = chunks;
        m->seeds[collection][d] = seed;
        if (strlen(text) / (size_t)chunks < 25) { /* its word is cut: make the document one chunk */
            CHECK_OK(fix_put(f->index, model_names[collection], id, text, "", 1, seed, &flag, &err),
                     &err);
            m->chunks[collection][d] = 1;
            was = true;
        }
    }
    CHECK(flag == was);
}

TEST(random_work_agrees_with_a_model)
{
    fixture f;
    lore_error err;
    static model m;
    uint64_t seed = 20260101, state = seed;
    fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
    memset(&m, 0, sizeof m);
    fix_init(&f, "model");
    fix_open(&f, true);
    CHECK_OK(lore_db_exec(f.index->writer, "PRAGMA synchronous=OFF", &err), &err);
    CHECK_OK(lore_index_create_collection(f.index, LORE_STR("other"), &err), &err);
    for (int step = 0; step < MODEL_STEPS;) {
        int batch = 1 + (int)(lore_random_next(&state) % 20);
        model saved = m;
        CHECK_OK(lore_index_begin(f.index, &err), &err);
        for (int i = 0; i < batch; i++, step++) {
            model_step(&f, &m, &state);
        }
        if (lore_random_next(&state) % 8 == 0) {
            lore_index_rollback(f.index);
            m = saved;
        } else {
            CHECK_OK(lore_index_commit(f.index, &err), &err);
        }
        check_model(&f, &m, &state);
        uint64_t event = lore_random_next(&state) % 64;
        if (event < 4) {
            CHECK_OK(lore_index_publish(f.index, &err), &err);
        } else if (event == 4) {
            fix_close(&f);
            fix_open(&f, true);
            CHECK_OK(lore_db_exec(f.index->writer, "PRAGMA synchronous=OFF", &err), &err);
        } else if (event == 5) {
            bool found = false;
            CHECK_OK(lore_index_delete_collection(f.index, LORE_STR("other"), &found, &err), &err);
            CHECK_OK(lore_index_create_collection(f.index, LORE_STR("other"), &err), &err);
            memset(m.seeds[1], 0, sizeof m.seeds[1]);
            memset(m.chunks[1], 0, sizeof m.chunks[1]);
        }
    }
    CHECK_OK(
        lore_db_exec(f.index->writer, "INSERT INTO text_1(text_1) VALUES('integrity-check')", &err),
        &err);
    fix_destroy(&f);
}

CHECK_MAIN(old_snapshots_stay, small_commits_stay_cheap, two_processes, refresh_catches_up,
           searching_while_writing, random_work_agrees_with_a_model)
