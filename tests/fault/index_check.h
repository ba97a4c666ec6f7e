/* Is a data folder whole? Everything that the tables, the full-text index, the vectors in memory
 * and the files of a folder must have in common, asked of an open index; each answer that is not
 * "nothing" is a sentence on standard error. Run after every fault, kill and loss of power. */
#ifndef LORE_TESTS_INDEX_CHECK_H
#define LORE_TESTS_INDEX_CHECK_H

#include "base/clock.h"
#include "index/index_int.h"
#include "tests/check.h"

#include <stdio.h>

typedef struct index_check {
    const char *problem;
    const char *sql; /* gives how often the problem is there */
} index_check;

static const index_check index_checks[] = {
    {"documents of no collection",
     "SELECT count(*) FROM documents WHERE collection NOT IN (SELECT id FROM collections)"},
    {"chunks of no document",
     "SELECT count(*) FROM chunks WHERE document NOT IN (SELECT id FROM documents)"},
    {"documents with other chunks than they count",
     "SELECT count(*) FROM documents d WHERE chunk_count<>(SELECT count(*) FROM chunks WHERE "
     "document=d.id) OR chunk_count<>(SELECT count(*) FROM chunks WHERE document=d.id AND id>="
     "d.first_chunk AND id<d.first_chunk+d.chunk_count)"},
    {"texts of no document",
     "SELECT count(*) FROM texts WHERE document NOT IN (SELECT id FROM documents)"},
    {"documents without their text",
     "SELECT count(*) FROM documents WHERE id NOT IN (SELECT document FROM texts)"},
    {"vectors of no chunk",
     "SELECT count(*) FROM vectors WHERE chunk NOT IN (SELECT id FROM chunks)"},
    {"chunks without their vector",
     "SELECT count(*) FROM chunks WHERE id NOT IN (SELECT chunk FROM vectors)"},
    {"vectors in another collection than their document",
     "SELECT count(*) FROM vectors v JOIN chunks c ON c.id=v.chunk JOIN documents d ON "
     "d.id=c.document WHERE v.collection<>d.collection"},
    {"chunk ids that will be given out again",
     "SELECT count(*) FROM chunks WHERE id>=(SELECT value FROM meta WHERE key='next_chunk')"},
    {"collections that count their documents wrong",
     "SELECT count(*) FROM collections c WHERE documents<>(SELECT count(*) FROM documents d WHERE "
     "d.collection=c.id)"},
    {"collections that count their chunks wrong",
     "SELECT count(*) FROM collections c WHERE chunks<>(SELECT total(chunk_count) FROM documents d "
     "WHERE d.collection=c.id)"},
};

/* The same of one collection's full-text index: %lld is its number. */
static const index_check index_text_checks[] = {
    {"chunks that the full-text index has not", "SELECT count(*) FROM chunks c JOIN documents d ON "
                                                "d.id=c.document WHERE d.collection=%lld AND "
                                                "c.id NOT IN (SELECT id FROM text_%lld_docsize)"},
    {"full-text rows of no chunk",
     "SELECT count(*) FROM text_%2$lld_docsize WHERE id NOT IN (SELECT c.id FROM chunks c JOIN "
     "documents d ON d.id=c.document WHERE d.collection=%1$lld)"},
    {"full-text words of no chunk",
     "SELECT count(DISTINCT doc) FROM temp.words_%2$lld WHERE doc NOT IN (SELECT c.id FROM chunks "
     "c "
     "JOIN documents d ON d.id=c.document WHERE d.collection=%1$lld)"},
    {"chunks without full-text words", "SELECT count(*) FROM chunks c JOIN documents d ON "
                                       "d.id=c.document WHERE d.collection=%lld AND "
                                       "c.id NOT IN (SELECT DISTINCT doc FROM temp.words_%lld)"},
};

CHECK_UNUSED static int32_t index_report(const lore_index *index, int64_t times,
                                         const char *problem)
{
    if (times != 0) {
        fprintf(stderr, "'%s': %lld %s\n", index->folder, (long long)times, problem);
    }
    return times != 0;
}

CHECK_UNUSED static int32_t index_ask(const lore_index *index, lore_db *db, const char *sql,
                                      const char *problem)
{
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_stmt_new(db, sql, &stmt, &err);
    if (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, &err);
    }
    int64_t times = status == LORE_OK && has_row ? lore_column_int(stmt, 0) : -1;
    lore_stmt_free(stmt);
    if (status != LORE_OK) {
        fprintf(stderr, "'%s': %s: %s\n", index->folder, problem, err.message);
    }
    return index_report(index, times, problem);
}

CHECK_UNUSED static int32_t index_check_text(const lore_index *index, lore_db *db,
                                             int64_t collection)
{
    lore_error err;
    char sql[512];
    int32_t problems = 0;
    snprintf(sql, sizeof sql,
             "INSERT INTO text_%lld(text_%lld) VALUES('integrity-check');"
             "CREATE VIRTUAL TABLE temp.words_%lld USING fts5vocab(main, text_%lld, instance)",
             (long long)collection, (long long)collection, (long long)collection,
             (long long)collection);
    if (lore_db_exec(db, sql, &err) != LORE_OK) {
        fprintf(stderr, "'%s': full-text index: %s\n", index->folder, err.message);
        return 1;
    }
    for (size_t i = 0; i < sizeof index_text_checks / sizeof index_text_checks[0]; i++) {
        int length = snprintf(sql, sizeof sql, index_text_checks[i].sql, (long long)collection,
                              (long long)collection);
        LORE_ASSERT(length > 0 && (size_t)length < sizeof sql);
        problems += index_ask(index, db, sql, index_text_checks[i].problem);
    }
    snprintf(sql, sizeof sql, "DROP TABLE temp.words_%lld", (long long)collection);
    return problems + (lore_db_exec(db, sql, &err) != LORE_OK);
}

/* The f16 of the database as floats of unit length. */
CHECK_UNUSED static void index_read_vector(lore_str data, int32_t dim, float *out)
{
    double sum = 0;
    for (int32_t i = 0; i < dim; i++) {
        _Float16 half;
        memcpy(&half, data.ptr + (size_t)i * sizeof half, sizeof half);
        out[i] = (float)half;
        sum += (double)out[i] * (double)out[i];
    }
    for (int32_t i = 0; i < dim; i++) {
        out[i] = (float)((double)out[i] / sqrt(sum));
    }
}

/* What searches see is what the table has: each vector finds itself, and nothing else is there. */
CHECK_UNUSED static int32_t index_check_vectors(lore_index *index, lore_db *db)
{
    static const char *const sql = "SELECT chunk, data FROM vectors ORDER BY chunk";
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    int64_t rows = 0, lost = 0, live = 0;
    lore_snapshot *snapshot = lore_index_acquire(index);
    int32_t dim = atomic_load(&index->dim);
    float *vector = lore_alloc(((size_t)dim + 1) * sizeof *vector);
    lore_status status = lore_stmt_new(db, sql, &stmt, &err);
    if (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, &err);
    }
    while (status == LORE_OK && has_row) {
        int64_t chunk = lore_column_int(stmt, 0);
        float score = 0;
        lore_str data = lore_column_bytes(stmt, 1);
        bool is_right = data.len == (size_t)dim * sizeof(_Float16);
        if (is_right) {
            index_read_vector(data, dim, vector);
            status = lore_score_dense(snapshot, vector, &chunk, 1, &score, &err);
        }
        lost += !is_right || !(score > .99f);
        rows++;
        if (status == LORE_OK) {
            status = lore_stmt_step(stmt, &has_row, &err);
        }
    }
    lore_stmt_free(stmt);
    lore_free(vector);
    for (int32_t i = 0; i < snapshot->view_count; i++) {
        live += lore_vectors_live(snapshot->views[i]);
    }
    lore_snapshot_release(snapshot);
    if (status != LORE_OK) {
        fprintf(stderr, "'%s': vectors: %s\n", index->folder, err.message);
        return 1;
    }
    return index_report(index, lost, "vectors that a search does not find") +
           index_report(index, live - rows, "more vectors in searches than in the database");
}

/* Does the file belong to what the current snapshot uses, or is it one of those always there? */
CHECK_UNUSED static bool index_knows_file(lore_index *index, lore_str name)
{
    static const char *const others[] = {"lore.db", "lore.db-wal", "lore.db-shm", "lock",
                                         "log.db",  "log.db-wal",  "log.db-shm"};
    char path[LORE_INDEX_PATH_CAP];
    bool is_known = false;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        is_known = is_known || lore_str_equal(name, lore_str_from(others[i]));
    }
    lore_snapshot *snapshot = lore_index_acquire(index);
    for (int32_t i = 0; i < snapshot->view_count; i++) {
        const lore_published *published = &snapshot->views[i]->published;
        lore_index_vec_path(index, published->collection, published->generation, path);
        is_known = is_known || (published->generation > 0 &&
                                lore_str_equal(name, lore_str_from(strrchr(path, '/') + 1)));
        lore_index_ann_path(index, published->collection, path);
        bool has_ann = published->ann_size >= 0 || snapshot->views[i]->ann != NULL;
        is_known =
            is_known || (has_ann && lore_str_equal(name, lore_str_from(strrchr(path, '/') + 1)));
    }
    lore_snapshot_release(snapshot);
    return is_known;
}

/* Nothing lies in the folder that nobody will ever use. */
CHECK_UNUSED static int32_t index_check_files(lore_index *index)
{
    lore_arena arena;
    lore_error err;
    lore_str *names = NULL;
    size_t count = 0;
    int32_t problems = 0;
    lore_arena_init(&arena, 0);
    if (lore_dir_list(&arena, index->folder, 10000, &names, &count, &err) != LORE_OK) {
        fprintf(stderr, "%s\n", err.message);
        problems++;
    }
    for (size_t i = 0; i < count; i++) {
        if (!index_knows_file(index, names[i])) {
            fprintf(stderr, "'%s': stray file '" LORE_STR_FMT "'\n", index->folder,
                    LORE_STR_ARG(names[i]));
            problems++;
        }
    }
    lore_arena_destroy(&arena);
    return problems;
}

/* Problems found, through a connection of its own; 0 is a whole folder. */
CHECK_UNUSED static int32_t index_check_folder(lore_index *index)
{
    lore_error err;
    lore_db *db = NULL;
    /* What is made in the background is made; strays are removed with it. */
    bool is_idle = lore_rebuild_wait(index, lore_clock_ns() + INT64_C(600000000000));
    int32_t problems = index_report(index, !is_idle, "background threads that never finish");
    if (lore_db_open(index->path, true, &db, &err) != LORE_OK) {
        fprintf(stderr, "%s\n", err.message);
        return problems + 1;
    }
    problems += index_ask(index, db,
                          "SELECT count(*) FROM pragma_integrity_check WHERE "
                          "integrity_check<>'ok'",
                          "problems of the database");
    for (size_t i = 0; i < sizeof index_checks / sizeof index_checks[0]; i++) {
        problems += index_ask(index, db, index_checks[i].sql, index_checks[i].problem);
    }
    lore_snapshot *snapshot = lore_index_acquire(index);
    for (int32_t i = 0; i < snapshot->view_count; i++) {
        problems += index_check_text(index, db, snapshot->views[i]->collection);
    }
    lore_snapshot_release(snapshot);
    problems += index_check_vectors(index, db);
    lore_db_close(db);
    return problems + index_check_files(index);
}

/* The same where the calling thread is the one that writes to the index. */
CHECK_UNUSED static int32_t index_check_all(lore_index *index)
{
    /* A rollback that failed for want of memory is done by the next writer before it begins. */
    int32_t problems = index_report(index, !lore_db_rollback(index->writer), "rollbacks that fail");
    return problems + index_check_folder(index);
}

#endif
