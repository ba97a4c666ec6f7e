/* The SQLite fence: statements, sticky binds, errors in our words. */
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

/* A folder that cannot be written to can be read, where the system enforces that at all (not for
 * root). */
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

/* What is no database, or a damaged one, is named with what to do. A writer's log is counted, and
 * is emptied unless a reader needs it. */
TEST(damaged_and_checkpoints)
{
    lore_error err;
    lore_db *db = open_fresh("damaged.db"), *reader = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/damaged.db", check_temp_dir());
    CHECK_OK(lore_db_exec(db, "CREATE TABLE t(a); INSERT INTO t VALUES(1)", &err), &err);
    CHECK(lore_db_log_bytes(db) > 0);
    CHECK_OK(lore_db_open(path, false, &reader, &err), &err);
    CHECK_OK(lore_db_exec(reader, "BEGIN; SELECT * FROM t", &err), &err);
    CHECK_OK(lore_db_exec(db, "INSERT INTO t VALUES(2)", &err), &err);
    CHECK_FAILS(lore_db_checkpoint(db, LORE_CHECKPOINT_TRUNCATE, 0, &err), LORE_ERR_BUSY, &err,
                "another program");
    CHECK_OK(lore_db_checkpoint(db, LORE_CHECKPOINT_PASSIVE, 0, &err), &err);
    CHECK(lore_db_log_bytes(db) > 0);
    CHECK(lore_db_rollback(reader));
    CHECK_OK(lore_db_checkpoint(db, LORE_CHECKPOINT_TRUNCATE, 0, &err), &err);
    CHECK_INT(lore_db_log_bytes(db), 0);
    lore_db_close(reader);
    lore_db_close(db);
    CHECK_OK(lore_file_replace(path, LORE_STR("no database at all, whatever its name says"), &err),
             &err);
    CHECK_FAILS(lore_db_open(path, true, &db, &err), LORE_ERR_CORRUPT, &err, "restore a backup");
}

CHECK_MAIN(values, failures, read_only_folder, damaged_and_checkpoints)
