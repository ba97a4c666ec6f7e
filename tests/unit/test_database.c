/* The SQLite fence: statements, sticky binds, errors in our words, the tokenizer. */
#include "tests/unit/index_fixture.h"

#include <sys/stat.h>
#include <unistd.h>

static lore_db *open_fresh(const char *name)
{
    static char path[512];
    lore_error err;
    lore_db *db = NULL;
    snprintf(path, sizeof path, "%s/%s", check_temp_dir(), name);
    CHECK_OK(lore_db_open(path, true, &db, &err), &err);
    return db;
}

/* Values come back as they went in; NULL pointers are empty, not NULL; NaN is NULL. */
TEST(values)
{
    static const char *const insert = "INSERT INTO t VALUES(?1,?2,?3,?4,?5)";
    static const char *const select = "SELECT * FROM t";
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_db *db = open_fresh("values.db");
    CHECK_OK(lore_db_exec(db, "CREATE TABLE t(a,b,c,d,e)", &err), &err);
    CHECK_OK(lore_db_statement(db, insert, &stmt, &err), &err);
    lore_bind_int(stmt, 1, INT64_MIN);
    lore_bind_float(stmt, 2, (double)NAN);
    lore_bind_text(stmt, 3, (lore_str){NULL, 0});
    lore_bind_text(stmt, 4, (lore_str){"a\0b", 3});
    lore_bind_blob(stmt, 5, "\x01\x02", 2);
    CHECK_OK(lore_stmt_run(stmt, &err), &err);
    CHECK_INT(lore_db_last_row(db), 1);
    CHECK_OK(lore_db_statement(db, select, &stmt, &err), &err);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    CHECK(has_row);
    CHECK(lore_column_int(stmt, 0) == INT64_MIN);
    CHECK(lore_column_is_null(stmt, 1) && isnan(lore_column_float(stmt, 1)));
    CHECK(!lore_column_is_null(stmt, 2));
    CHECK_INT(lore_column_bytes(stmt, 2).len, 0);
    CHECK_INT(lore_column_bytes(stmt, 3).len, 3);
    CHECK(memcmp(lore_column_bytes(stmt, 4).ptr, "\x01\x02", 2) == 0);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    CHECK(!has_row);
    char part[1];
    CHECK_OK(lore_db_read_blob(db, "t", "e", 1, 1, part, 1, &err), &err);
    CHECK_INT(part[0], 2);
    CHECK_FAILS(lore_db_read_blob(db, "t", "e", 1, 1, part, 2, &err), LORE_ERR_CORRUPT, &err,
                "has 2 bytes, not 3");
    CHECK_FAILS(lore_db_read_blob(db, "t", "e", 9, 0, part, 1, &err), LORE_ERR_IO, &err, "");
    lore_db_close(db);
}

/* A failed bind comes out of the step; a wrong statement is an error with the path. */
TEST(failures)
{
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_db *db = open_fresh("failures.db");
    CHECK_FAILS(lore_db_exec(db, "SELEC 1", &err), LORE_ERR_IO, &err, "failures.db");
    CHECK_FAILS(lore_stmt_new(db, "SELECT * FROM nowhere", &stmt, &err), LORE_ERR_IO, &err,
                "no such table: nowhere");
    CHECK_OK(lore_stmt_new(db, "SELECT ?1", &stmt, &err), &err);
    lore_bind_int(stmt, 2, 1);
    lore_bind_int(stmt, 1, 1);
    CHECK_FAILS(lore_stmt_step(stmt, &has_row, &err), LORE_ERR_IO, &err, "range");
    lore_bind_int(stmt, 1, 7);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    CHECK_INT(lore_column_int(stmt, 0), 7);
    lore_stmt_free(stmt);
    CHECK(lore_db_rollback(db)); /* without a transaction: nothing */
    CHECK_OK(lore_db_exec(db, "BEGIN; CREATE TABLE t(a)", &err), &err);
    CHECK(lore_db_in_transaction(db));
    CHECK(lore_db_rollback(db));
    CHECK_FAILS(lore_db_exec(db, "SELECT * FROM t", &err), LORE_ERR_IO, &err, "no such table");
    lore_db_close(db);
    CHECK_FAILS(lore_db_open("/nowhere/at/all.db", true, &db, &err), LORE_ERR_IO, &err,
                "/nowhere/at/all.db");
    CHECK_FAILS(lore_db_open("/nowhere/at/all.db", false, &db, &err), LORE_ERR_IO, &err,
                "/nowhere/at/all.db");
}

typedef struct terms {
    char text[512];
} terms;

static bool keep_term(void *self, lore_str term, size_t start, size_t end)
{
    terms *t = self;
    size_t at = strlen(t->text);
    CHECK(start < end);
    snprintf(t->text + at, sizeof t->text - at, LORE_STR_FMT "|", LORE_STR_ARG(term));
    return at < 100;
}

/* Questions are folded, paired and stemmed; FTS5's stemmer leaves other scripts alone. */
TEST(terms_of_questions)
{
    lore_error err;
    terms t = {""};
    lore_db *db = open_fresh("terms.db");
    CHECK_OK(lore_db_terms(db, LORE_STR("Resetting the ROUTERS' Cafés 人工智能 работы"), keep_term,
                           &t, &err),
             &err);
    CHECK_STR(lore_str_from(t.text), "reset|the|router|cafe|人工|工智|智能|работы|");
    t.text[0] = '\0';
    CHECK_OK(lore_db_terms(db, (lore_str){NULL, 0}, keep_term, &t, &err), &err);
    CHECK_STR(lore_str_from(t.text), "");
    lore_db_close(db);
}

/* Pairs lie at the place of a character: a run of n characters is n words long. */
TEST(lengths_of_runs)
{
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_db *db = open_fresh("lengths.db");
    CHECK_OK(lore_db_exec(db,
                          "CREATE VIRTUAL TABLE f USING fts5(a, content='', tokenize='porter lore');"
                          "INSERT INTO f(rowid, a) VALUES(1, '人工智能 ab')",
                          &err),
             &err);
    CHECK_OK(lore_stmt_new(db, "SELECT sz FROM f_docsize", &stmt, &err), &err);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    CHECK_INT(lore_column_bytes(stmt, 0).ptr[0], 5);
    lore_stmt_free(stmt);
    lore_db_close(db);
}

/* lore_allowed looks rows up in the list it was given, and nothing is in no list. */
TEST(allowed_rows)
{
    static const char *const sql =
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<20) "
        "SELECT group_concat(i) FROM n WHERE lore_allowed(i)";
    const int64_t rows[] = {2, 3, 5, 7, 11, 13, 17, 19};
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_db *db = open_fresh("allowed.db");
    CHECK_OK(lore_db_statement(db, sql, &stmt, &err), &err);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    CHECK(lore_column_is_null(stmt, 0));
    lore_db_allow(db, rows, 8);
    CHECK_OK(lore_db_statement(db, sql, &stmt, &err), &err);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    CHECK_STR(lore_column_bytes(stmt, 0), "2,3,5,7,11,13,17,19");
    lore_db_close(db);
}

/* A folder that cannot be written to can be read, where the system enforces that at all (not for root). */
TEST(read_only_folder)
{
    fixture f;
    lore_error err;
    int64_t chunks[4];
    if (geteuid() == 0) {
        CHECK_SKIP("root may write everywhere");
    }
    fix_init(&f, "100%?#");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "a", "apples", "", 1, 1);
    fix_close(&f);
    CHECK(chmod(f.folder, 0555) == 0);
    fix_open(&f, false);
    CHECK_INT(fix_text(f.index, "default", "apples", NULL, chunks, NULL, 4), 1);
    fix_close(&f);
    lore_status status = fix_try_open(&f, true, "encoder-1", &err);
    CHECK(chmod(f.folder, 0755) == 0);
    CHECK_FAILS(status, LORE_ERR_IO, &err, f.folder);
    fix_destroy(&f);
}

CHECK_MAIN(values, failures, terms_of_questions, lengths_of_runs, allowed_rows, read_only_folder)
