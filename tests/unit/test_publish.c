/* Publishing: when it happens, what it leaves, and that failing or crashing in the middle loses
 * nothing. */
#include "base/log.h"
#include "tests/unit/index_fixture.h"

#include <sys/stat.h>
#include <unistd.h>

/* The warnings of what these tests break on purpose. */
static void swallow(void *self, const char *line)
{
    (void)self;
    (void)line;
}

/* Names of derived files in the folder, sorted, each followed by a bar. */
static const char *derived_files(const fixture *f)
{
    static char names[1024];
    lore_error err;
    lore_arena arena;
    lore_str *list = NULL;
    size_t count = 0, at = 0;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_dir_list(&arena, f->folder, 100, &list, &count, &err), &err);
    names[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        if (lore_str_starts(list[i], LORE_STR("vec-")) ||
            lore_str_starts(list[i], LORE_STR("ann-"))) {
            at += (size_t)snprintf(names + at, sizeof names - at, LORE_STR_FMT "|",
                                   LORE_STR_ARG(list[i]));
        }
    }
    lore_arena_destroy(&arena);
    return names;
}

#define CHECK_FILES(f, names) CHECK_STR(lore_str_from(derived_files(f)), names)

/* `documents` documents of 50 chunks, vectors of seeds first * 1000 and following. */
static void put_many(fixture *f, int first, int documents)
{
    lore_log_set_sink(swallow, NULL);
    lore_error err;
    char id[16];
    static char text[600];
    memset(text, 'a', sizeof text - 1);
    CHECK_OK(lore_index_begin(f->index, &err), &err);
    for (int i = first; i < first + documents; i++) {
        snprintf(id, sizeof id, "d%d", i);
        CHECK_OK(fix_put(f->index, "default", id, text, "", 50, (uint64_t)i * 1000 + 1, NULL, &err),
                 &err);
    }
    CHECK_OK(lore_index_commit(f->index, &err), &err);
}

/* Documents `first` to `last` are found by the vectors of their chunks, in the base and in the
 * tail. */
static void check_found(fixture *f, int first, int last)
{
    for (int i = first; i <= last; i++) {
        int64_t chunks[1];
        float scores[1];
        char id[16], expected[16];
        uint64_t seed = (uint64_t)i * 1000 + 1 + (uint64_t)(i * 7) % 50;
        CHECK_INT(fix_dense(f->index, "default", seed, NULL, chunks, scores, 1), 1);
        CHECK_NEAR(scores[0], 1, .01);
        snprintf(expected, sizeof expected, "d%d", i);
        fix_document_of(f->index, chunks[0], id, sizeof id);
        CHECK_STR(lore_str_from(id), expected);
    }
}

static const lore_vectors *view_of(const fixture *f)
{
    return f->index->current->views[0];
}

/* A small tail is left alone, a large one becomes a file, a tenth more a new file; the old one
 * goes. */
TEST(when_it_is_worth_it)
{
    fixture f;
    lore_error err;
    fix_init(&f, "worth");
    fix_open(&f, true);
    put_many(&f, 0, 20); /* 1,000 rows */
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    CHECK_FILES(&f, "");
    put_many(&f, 20, 280); /* 15,000 */
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    CHECK_FILES(&f, "vec-1-1.i8|");
    CHECK(view_of(&f)->has_base && view_of(&f)->part_count == 1);
    check_found(&f, 0, 299);
    int64_t sequence = f.index->current->sequence;
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    CHECK_INT(f.index->current->sequence, sequence); /* nothing to do, nothing done */
    put_many(&f, 300, 25);                           /* 1,250 more: below a tenth */
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    CHECK_FILES(&f, "vec-1-1.i8|");
    check_found(&f, 290, 324);
    put_many(&f, 325, 10);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    CHECK_FILES(&f, "vec-1-2.i8|");
    check_found(&f, 0, 334);
    /* Dead rows above a fifth of the base. */
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    for (int i = 0; i < 80; i++) {
        char id[16];
        snprintf(id, sizeof id, "d%d", i);
        CHECK_OK(
            lore_index_delete_document(f.index, LORE_STR("default"), lore_str_from(id), NULL, &err),
            &err);
    }
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    CHECK_INT(lore_vectors_dead(view_of(&f)), 4000);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    CHECK_FILES(&f, "vec-1-3.i8|");
    CHECK_INT(lore_vectors_dead(view_of(&f)), 0);
    fix_close(&f);
    fix_open(&f, true);
    CHECK(view_of(&f)->has_base && view_of(&f)->part_count == 1);
    check_found(&f, 80, 334);
    CHECK_INT(view_of(&f)->published.count, 255 * 50);
    fix_destroy(&f);
}

/* A writer rebuilds a damaged or missing file in the background; it and readers answer without. */
TEST(damaged_files)
{
    fixture f;
    lore_error err;
    char path[512];
    fix_init(&f, "damaged");
    fix_open(&f, true);
    put_many(&f, 0, 50);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    CHECK_FILES(&f, "vec-1-1.i8|");
    check_found(&f, 0, 49);
    fix_close(&f);
    snprintf(path, sizeof path, "%s/vec-1-1.i8", f.folder);
    fix_damage(path, 5000);
    fix_open(&f, false);
    CHECK(!view_of(&f)->has_base && view_of(&f)->is_damaged);
    check_found(&f, 0, 49);
    fix_close(&f);
    fix_open(&f, true);
    check_found(&f, 0, 49);
    fix_settle(&f);
    CHECK_FILES(&f, "vec-1-2.i8|");
    CHECK(view_of(&f)->has_base && !view_of(&f)->is_damaged);
    check_found(&f, 0, 49);
    fix_close(&f);
    snprintf(path, sizeof path, "%s/vec-1-2.i8", f.folder);
    CHECK(unlink(path) == 0);
    snprintf(path, sizeof path, "%s/vec-1-9.i8", f.folder); /* strays, as a crash leaves them */
    CHECK_OK(lore_file_replace(path, LORE_STR("x"), &err), &err);
    snprintf(path, sizeof path, "%s/ann-1.ivf.tmp", f.folder);
    CHECK_OK(lore_file_replace(path, LORE_STR("x"), &err), &err);
    snprintf(path, sizeof path, "%s/ann-1.ivf", f.folder);
    CHECK_OK(lore_file_replace(path, LORE_STR("x"), &err), &err);
    fix_open(&f, true);
    fix_settle(&f);
    CHECK_FILES(&f, "vec-1-3.i8|");
    check_found(&f, 0, 49);
    fix_destroy(&f);
}

/* Rebuilt from the database, the file is byte for byte the file that was lost. */
TEST(rebuilding_is_exact)
{
    fixture f;
    lore_error err;
    fix_init(&f, "exact");
    fix_open(&f, true);
    put_many(&f, 0, 30);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    lore_segment *before = lore_segment_acquire(view_of(&f)->parts[0].segment);
    fix_close(&f);
    char path[512];
    snprintf(path, sizeof path, "%s/vec-1-1.i8", f.folder);
    CHECK(unlink(path) == 0);
    fix_open(&f, true);
    fix_settle(&f);
    const lore_segment *after = view_of(&f)->parts[0].segment;
    size_t count = (size_t)before->count;
    CHECK_INT(after->count, before->count);
    CHECK(memcmp(after->ids, before->ids, count * sizeof(int64_t)) == 0);
    CHECK(memcmp(after->scales, before->scales, count * sizeof(float)) == 0);
    CHECK(memcmp(after->lengths, before->lengths, count * sizeof(int32_t)) == 0);
    CHECK(memcmp(after->rows, before->rows, count * FIX_DIM) == 0);
    CHECK(before->lengths[0] > 0);
    lore_segment_release(before);
    fix_destroy(&f);
}

/* Any write, sync or rename that fails is an error; the index goes on with what it had, open or
 * reopened. */
TEST(failing_writes)
{
    fixture f;
    lore_error err;
    fix_init(&f, "failing");
    fix_open(&f, true);
    put_many(&f, 0, 60);
    int failures = 0;
    for (int op = LORE_FILE_OP_WRITE; op <= LORE_FILE_OP_RENAME; op++) {
        lore_status status = LORE_ERR_IO;
        for (int64_t n = 1; n < 50 && status != LORE_OK; n++) {
            /* Forget the files, so that there is something to publish. */
            CHECK_OK(lore_db_exec(f.index->writer,
                                  "UPDATE collections SET generation=generation+1, base_chunk=0, "
                                  "vec_count=0; UPDATE meta SET value=value+1 "
                                  "WHERE key='sequence'",
                                  &err),
                     &err);
            CHECK_OK(lore_index_refresh(f.index, &err), &err);
            lore_file_fail_at((lore_file_op)op, n);
            status = lore_index_publish(f.index, &err);
            lore_file_fail_at((lore_file_op)op, 0);
            CHECK(status == LORE_OK || status == LORE_ERR_IO);
            check_found(&f, 0, 5);
            failures += status != LORE_OK;
            fix_close(&f);
            fix_open(&f, true);
            fix_settle(&f);
            check_found(&f, 50, 59);
        }
    }
    CHECK(failures >= 4);
    fix_destroy(&f);
}

/* A collection without a file forgets its deletions once they are many. */
TEST(long_log)
{
    fixture f;
    lore_error err;
    fix_init(&f, "log");
    fix_open(&f, true);
    CHECK_OK(lore_db_exec(f.index->writer, "PRAGMA synchronous=OFF", &err), &err);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    for (int i = 0; i < 1100; i++) {
        CHECK_OK(fix_put(f.index, "default", "same", "text", "", 1, 1, NULL, &err), &err);
    }
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    CHECK_FILES(&f, "vec-1-1.i8|");
    lore_stmt *stmt = NULL;
    bool has_row = false;
    CHECK_OK(lore_stmt_new(f.index->writer, "SELECT count(*) FROM deletions", &stmt, &err), &err);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    CHECK_INT(lore_column_int(stmt, 0), 0);
    lore_stmt_free(stmt);
    fix_destroy(&f);
}

/* Without vectors there is nothing to publish, with them gone an empty file. */
TEST(no_vectors)
{
    fixture f;
    lore_error err;
    bool found = false;
    int64_t chunks[4];
    fix_init(&f, "none");
    CHECK_OK(fix_try_open(&f, true, NULL, &err), &err);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    CHECK_FILES(&f, "");
    CHECK_INT(fix_dense(f.index, "default", 1, NULL, chunks, NULL, 4), 0);
    fix_close(&f);
    fix_open(&f, true);
    put_many(&f, 0, 30);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    for (int i = 0; i < 30; i++) {
        char id[16];
        snprintf(id, sizeof id, "d%d", i);
        CHECK_OK(lore_index_delete_document(f.index, LORE_STR("default"), lore_str_from(id), &found,
                                            &err),
                 &err);
    }
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    CHECK_OK(lore_index_publish(f.index, &err), &err);
    CHECK_FILES(&f, "vec-1-2.i8|");
    CHECK_INT(view_of(&f)->published.count, 0);
    CHECK_INT(fix_dense(f.index, "default", 1, NULL, chunks, NULL, 4), 0);
    put_many(&f, 0, 1);
    check_found(&f, 0, 0);
    /* The files of a collection go with it. */
    CHECK_OK(lore_index_delete_collection(f.index, LORE_STR("default"), &found, &err), &err);
    fix_close(&f);
    fix_open(&f, true);
    CHECK_FILES(&f, "");
    fix_destroy(&f);
}

CHECK_MAIN(when_it_is_worth_it, damaged_files, rebuilding_is_exact, failing_writes, long_log,
           no_vectors)
