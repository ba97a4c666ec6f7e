/* The background thread: it builds, swaps under load, mends, survives failures, and stops at once.
 */
#include "base/log.h"
#include "tests/unit/index_fixture.h"

#include <unistd.h>

enum { CHUNKS = 50, SEARCHERS = 3 };

static void swallow(void *self, const char *line)
{
    (void)self;
    (void)line;
}

static lore_status try_put(lore_index *index, int first, int documents, lore_error *err)
{
    static char text[600];
    memset(text, 'a', sizeof text - 1);
    lore_status status = lore_index_begin(index, err);
    for (int i = first; i < first + documents && status == LORE_OK; i++) {
        char id[16];
        snprintf(id, sizeof id, "d%d", i);
        status = fix_put(index, "default", id, text, "", CHUNKS, (uint64_t)i * 1000 + 1, NULL, err);
        if (status != LORE_OK) {
            lore_index_rollback(index);
        }
    }
    return status == LORE_OK ? lore_index_commit(index, err) : status;
}

static lore_status try_delete(lore_index *index, int first, int documents, lore_error *err)
{
    lore_status status = lore_index_begin(index, err);
    for (int i = first; i < first + documents && status == LORE_OK; i++) {
        char id[16];
        snprintf(id, sizeof id, "d%d", i);
        status =
            lore_index_delete_document(index, LORE_STR("default"), lore_str_from(id), NULL, err);
        if (status != LORE_OK) {
            lore_index_rollback(index);
        }
    }
    return status == LORE_OK ? lore_index_commit(index, err) : status;
}

static void put_many(fixture *f, int first, int documents)
{
    lore_error err;
    lore_log_set_sink(swallow, NULL);
    CHECK_OK(try_put(f->index, first, documents, &err), &err);
    CHECK_OK(lore_index_publish(f->index, &err), &err);
}

/* Documents are found by the vectors of their chunks. */
static void check_found(fixture *f, int first, int last)
{
    for (int i = first; i <= last; i++) {
        int64_t chunks[1];
        float scores[1];
        uint64_t seed = (uint64_t)i * 1000 + 1 + (uint64_t)(i * 7) % CHUNKS;
        CHECK_INT(fix_dense(f->index, "default", seed, NULL, chunks, scores, 1), 1);
        CHECK_NEAR(scores[0], 1, .01);
    }
}

static const lore_vectors *view_of(const fixture *f)
{
    return f->index->current->views[0];
}

static bool has_ann_file(const fixture *f)
{
    char path[512];
    snprintf(path, sizeof path, "%s/ann-1.ivf", f->folder);
    return lore_file_exists(path);
}

/* Built above the size, kept over restarts and publications, built anew when the tail or the dead
 * pass a share, dropped when the collection becomes small. */
TEST(life_of_an_inverted_file)
{
    fixture f;
    lore_error err;
    fix_init(&f, "life");
    f.config.ann_min_vectors = 2000;
    fix_open(&f, true);
    put_many(&f, 0, 40);
    fix_settle(&f);
    CHECK(view_of(&f)->ann == NULL && !has_ann_file(&f)); /* 2,000 are not above 2,000 */
    put_many(&f, 40, 20);
    fix_settle(&f);
    CHECK(view_of(&f)->ann != NULL && has_ann_file(&f));
    CHECK_INT(view_of(&f)->ann->rows.count, 3000);
    check_found(&f, 0, 59);
    fix_close(&f);
    fix_open(&f, true);
    check_found(&f, 0, 59);
    fix_settle(&f);
    CHECK(view_of(&f)->ann != NULL);
    put_many(&f, 60, 11); /* 550 more: below a fifth */
    fix_settle(&f);
    CHECK_INT(view_of(&f)->ann->rows.count, 3000);
    check_found(&f, 0, 70);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    put_many(&f, 71, 25); /* a new vector file, and above a fifth */
    fix_settle(&f);
    CHECK_INT(view_of(&f)->ann->rows.count, 4800);
    check_found(&f, 0, 95);
    CHECK_OK(try_delete(f.index, 0, 22, &err), &err);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    fix_settle(&f);
    CHECK_INT(view_of(&f)->ann->rows.count, 3700);
    check_found(&f, 22, 95);
    CHECK_OK(try_delete(f.index, 22, 40, &err), &err);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    fix_settle(&f);
    CHECK(view_of(&f)->ann == NULL && !has_ann_file(&f));
    CHECK_INT(view_of(&f)->published.ann_size, -1);
    check_found(&f, 62, 95);
    fix_destroy(&f);
}

/* Damaged, missing, or of another moment: answered by scanning, and built anew. */
TEST(damaged_files)
{
    fixture f;
    lore_error err;
    char path[512];
    fix_init(&f, "damaged");
    f.config.ann_min_vectors = 2000;
    fix_open(&f, true);
    put_many(&f, 0, 60);
    fix_settle(&f);
    snprintf(path, sizeof path, "%s/ann-1.ivf", f.folder);
    for (int how = 0; how < 3; how++) {
        uint64_t before = view_of(&f)->published.ann_checksum;
        fix_close(&f);
        if (how == 0) {
            fix_damage(path, 50000);
        } else if (how == 1) {
            CHECK(unlink(path) == 0);
        } else {
            CHECK_OK(lore_file_replace(path, LORE_STR("something else"), &err), &err);
        }
        fix_open(&f, false); /* readers scan */
        CHECK(view_of(&f)->ann == NULL);
        check_found(&f, 0, 59);
        fix_close(&f);
        fix_open(&f, true);
        check_found(&f, 0, 59);
        fix_settle(&f);
        CHECK(view_of(&f)->ann != NULL);
        check_found(&f, 0, 59);
        CHECK(how != 0 || before == 0 || view_of(&f)->ann->rows.count == 3000);
    }
    /* A crash between the file and its mark: the file has no mark, and goes. */
    CHECK_OK(lore_db_exec(f.index->writer, "UPDATE collections SET ann_size=NULL", &err), &err);
    fix_close(&f);
    f.config.ann_min_vectors = 1000000;
    fix_open(&f, true);
    CHECK(!has_ann_file(&f));
    fix_destroy(&f);
}

/* A writer that closes in the middle of everything: within a second, and nothing is left behind. */
TEST(closing_interrupts)
{
    fixture f;
    fix_init(&f, "closing");
    f.config.ann_min_vectors = 2000;
    fix_open(&f, true);
    put_many(&f, 0, 400);
    for (int64_t wait_ms = 0; wait_ms < 600; wait_ms += 60) {
        char path[512];
        lore_clock_sleep_ms(wait_ms);
        int64_t start_ns = lore_clock_ns();
        fix_close(&f);
        CHECK(lore_clock_ns() - start_ns < (int64_t)1000000000);
        snprintf(path, sizeof path, "%s/ann-1.ivf.tmp", f.folder);
        CHECK(!lore_file_exists(path));
        fix_open(&f, true);
        check_found(&f, 0, 3);
    }
    fix_settle(&f);
    CHECK(view_of(&f)->ann != NULL);
    fix_destroy(&f);
}

/* A failure of any step leaves the index answering; the next publication tries again. */
TEST(failing_steps)
{
    fixture f;
    lore_error err;
    fix_init(&f, "failing");
    f.config.ann_min_vectors = 1000;
    lore_log_set_sink(swallow, NULL);
    for (int op = LORE_FILE_OP_WRITE; op <= LORE_FILE_OP_RENAME; op++) {
        fix_open(&f, true);
        put_many(&f, 0, 40);
        fix_settle(&f);
        CHECK(view_of(&f)->ann != NULL);
        CHECK_OK(try_put(f.index, 40, 15, &err), &err); /* above a fifth, below a vector file */
        lore_file_fail_at((lore_file_op)op, 1);
        CHECK_OK(lore_index_publish(f.index, &err), &err);
        fix_settle(&f);
        lore_file_fail_at((lore_file_op)op, 0);
        CHECK_INT(view_of(&f)->ann->rows.count, 2000); /* the old one */
        check_found(&f, 0, 54);
        CHECK_OK(lore_index_publish(f.index, &err), &err);
        fix_settle(&f);
        CHECK_INT(view_of(&f)->ann->rows.count, 2750);
        check_found(&f, 0, 54);
        CHECK_OK(try_delete(f.index, 0, 55, &err), &err);
        CHECK_OK(lore_index_publish(f.index, &err), &err);
        fix_settle(&f);
        fix_close(&f);
    }
    lore_thread_fail_at(1); /* the thread itself */
    fix_open(&f, true);
    put_many(&f, 0, 40);
    lore_thread_fail_at(0);
    check_found(&f, 0, 39);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    fix_settle(&f);
    CHECK(view_of(&f)->ann != NULL);
    fix_destroy(&f);
}

/* ---- swapping under load ---- */

typedef struct searcher {
    lore_thread thread;
    lore_index *index;
    _Atomic bool *is_over;
    int64_t searches, with_ann;
    lore_error err;
} searcher;

/* Both searches of one snapshot, without what was deleted since: the order of those is not the
 * database's any more. One look for both, at one moment. */
static lore_status check_same(lore_snapshot *snapshot, const lore_candidates found[2],
                              lore_arena *arena, lore_error *err)
{
    int64_t rows[20], left[2][10];
    lore_chunk chunks[20];
    int32_t alive = 0, counts[2] = {0};
    for (int32_t i = 0; i < 20; i++) {
        rows[i] = found[i / 10].items[i % 10].chunk;
    }
    lore_status status = lore_load_chunks(snapshot, rows, 20, arena, chunks, &alive, err);
    for (int32_t i = 0; i < 20 && status == LORE_OK; i++) {
        bool is_alive = false;
        for (int32_t k = 0; k < alive && !is_alive; k++) {
            is_alive = chunks[k].row == rows[i];
        }
        if (is_alive) {
            left[i / 10][counts[i / 10]++] = rows[i];
        }
    }
    for (int32_t i = 0; i < counts[0] && i < counts[1] && status == LORE_OK; i++) {
        if (left[0][i] != left[1][i]) {
            status = lore_fail(err, LORE_ERR_CORRUPT, "a snapshot changed");
        }
    }
    return status;
}

/* A document that is never deleted must be found in every snapshot, with whatever file it has; a
 * snapshot gives the same answer twice, as far as its rows are still there. */
static void *search_on(void *self)
{
    searcher *s = self;
    lore_arena arena;
    lore_status status = LORE_OK;
    lore_arena_init(&arena, 0);
    while (status == LORE_OK && !atomic_load(s->is_over)) {
        lore_candidates found[2];
        lore_search_options options = {.count = 10};
        float query[FIX_DIM];
        lore_arena_reset(&arena);
        fix_vector((uint64_t)(s->searches++ % 20) * 1000 + 1, query); /* documents 0 to 19 */
        lore_snapshot *snapshot = lore_index_acquire(s->index);
        s->with_ann += snapshot->views[0]->ann != NULL;
        for (int i = 0; i < 2 && status == LORE_OK; i++) {
            status = lore_search_dense(snapshot, query, &options, &arena, &found[i], &s->err);
        }
        if (status == LORE_OK &&
            (found[0].count != 10 || found[1].count != 10 || found[0].items[0].score < .99f)) {
            status = lore_fail(&s->err, LORE_ERR_CORRUPT, "%d found, best %.3f", found[0].count,
                               (double)found[0].items[0].score);
        }
        if (status == LORE_OK) {
            status = check_same(snapshot, found, &arena, &s->err);
        }
        lore_snapshot_release(snapshot);
    }
    s->err.status = status;
    lore_arena_destroy(&arena);
    return NULL;
}

/* Documents come and go in waves that each make the file stale; several swaps happen while
 * searchers search and commits commit. */
TEST(swapping_under_load)
{
    fixture f;
    lore_error err;
    _Atomic bool is_over = false;
    searcher searchers[SEARCHERS];
    fix_init(&f, "load");
    f.config.ann_min_vectors = 1500;
    fix_open(&f, true);
    CHECK_OK(lore_db_exec(f.index->writer, "PRAGMA synchronous=OFF", &err), &err);
    put_many(&f, 0, 40);
    for (int i = 0; i < SEARCHERS; i++) {
        searchers[i] = (searcher){.index = f.index, .is_over = &is_over};
        CHECK_OK(
            lore_thread_start(&searchers[i].thread, "searcher", search_on, &searchers[i], &err),
            &err);
    }
    lore_status status = LORE_OK;
    int swaps = 0;
    int64_t covered = 0, deadline_ns = lore_clock_ns() + (int64_t)60 * 1000000000;
    for (int wave = 0; swaps < 4 && status == LORE_OK && !lore_deadline_passed(deadline_ns);
         wave++) {
        status = try_put(f.index, 20 + wave % 30, 3, &err);
        if (status == LORE_OK && wave % 3 == 2) {
            status = try_delete(f.index, 20 + wave * 7 % 30, 1, &err);
        }
        if (status == LORE_OK) {
            status = lore_index_publish(f.index, &err);
        }
        lore_snapshot *snapshot = lore_index_acquire(f.index);
        const lore_ann *ann = snapshot->views[0]->ann;
        int64_t now = ann == NULL ? 0 : ann->chunk;
        lore_snapshot_release(snapshot);
        swaps += now != covered;
        covered = now;
        lore_clock_sleep_ms(10);
    }
    atomic_store(&is_over, true);
    for (int i = 0; i < SEARCHERS; i++) {
        lore_thread_join(&searchers[i].thread);
    }
    CHECK_OK(status, &err);
    CHECK(swaps >= 4);
    for (int i = 0; i < SEARCHERS; i++) {
        CHECK_OK(searchers[i].err.status, &searchers[i].err);
        CHECK(searchers[i].with_ann > 0);
    }
    fix_settle(&f);
    check_found(&f, 0, 19);
    fix_destroy(&f);
}

CHECK_MAIN(life_of_an_inverted_file, damaged_files, closing_interrupts, failing_steps,
           swapping_under_load)
