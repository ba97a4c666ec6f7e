/* Folders of earlier formats become folders of this one, whole or not at all; those of later ones
 * and of other programs are refused in words. */
#include "index/schema_int.h"
#include "tests/fault/index_check.h"
#include "tests/unit/format_fixture.h"
#include "tests/unit/index_fixture.h"

#include <unistd.h>

static lore_db *open_raw(const fixture *f)
{
    lore_error err;
    lore_db *db = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/lore.db", f->folder);
    CHECK_OK(lore_dir_make(f->folder, &err), &err);
    CHECK_OK(lore_db_open(path, true, &db, &err), &err);
    return db;
}

static void make_folder(const fixture *f, const char *sql)
{
    lore_error err;
    lore_db *db = open_raw(f);
    CHECK_OK(lore_db_exec(db, sql, &err), &err);
    lore_db_close(db);
}

/* The folder that somebody has who wrote to format 1 and brought it forward as far as `format`. */
static void make_format(const fixture *f, int64_t format)
{
    char mark[64];
    make_folder(f, format_1);
    for (int64_t next = 2; next <= format; next++) {
        make_folder(f, lore_schema_step(next));
    }
    snprintf(mark, sizeof mark, "PRAGMA user_version=%d", (int)format);
    make_folder(f, mark);
}

static int64_t ask(const fixture *f, const char *sql)
{
    lore_error err;
    int64_t number = -1;
    lore_db *db = open_raw(f);
    CHECK_OK(lore_db_number(db, sql, &number, &err), &err);
    lore_db_close(db);
    return number;
}

/* Every column of every table, one a line. */
static void describe(lore_db *db, lore_buf *out)
{
    static const char *const sql =
        "SELECT t.name || ' ' || c.cid || ' ' || c.name || ' ' || c.type || ' ' || c.\"notnull\" "
        "|| ' ' || ifnull(c.dflt_value, '-') || ' ' || c.pk FROM sqlite_schema t "
        "JOIN pragma_table_info(t.name) c WHERE t.name NOT LIKE 'text_%' ORDER BY t.name, c.cid";
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = true;
    CHECK_OK(lore_stmt_new(db, sql, &stmt, &err), &err);
    for (;;) {
        CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
        if (!has_row) {
            break;
        }
        lore_buf_append(out, lore_column_bytes(stmt, 0));
        lore_buf_append(out, LORE_STR("\n"));
    }
    lore_stmt_free(stmt);
}

/* Readers say what is missing; a writer mends it, and then the folder is like a new one, with all
 * that it held. */
TEST(earlier_formats)
{
    lore_buf fresh, old;
    lore_buf_init(&fresh, 0);
    lore_buf_init(&old, 0);
    fixture f;
    fix_init(&f, "fresh");
    fix_open(&f, true);
    describe(f.index->writer, &fresh);
    fix_destroy(&f);
    for (int64_t format = 1; format < lore_schema_format(); format++) {
        lore_error err;
        int64_t chunks[4];
        char name[32];
        snprintf(name, sizeof name, "format-%d", (int)format);
        fix_init(&f, name);
        make_format(&f, format);
        CHECK_FAILS(fix_try_open(&f, false, "encoder-1", &err), LORE_ERR_UNSUPPORTED, &err,
                    "of an earlier version of lore");
        fix_open(&f, true);
        lore_buf_reset(&old);
        describe(f.index->writer, &old);
        CHECK_STR(lore_buf_str(&old), lore_buf_c(&fresh));
        CHECK_INT(fix_text(f.index, "default", "航行", NULL, chunks, NULL, 4), 1);
        CHECK_INT(chunks[0], 2);
        CHECK_INT(fix_dense(f.index, "default", 1, NULL, chunks, NULL, 4), 2);
        CHECK_INT(index_check_all(f.index), 0);
        fix_put_one(f.index, "default", "b", "new words", "", 1, 5);
        fix_delete_one(f.index, "default", "a");
        CHECK_INT(index_check_all(f.index), 0);
        fix_close(&f);
        fix_open(&f, false);
        CHECK_INT(fix_text(f.index, "default", "sail", NULL, chunks, NULL, 4), 0);
        CHECK_INT(fix_text(f.index, "default", "words", NULL, chunks, NULL, 4), 1);
        fix_destroy(&f);
    }
    lore_buf_destroy(&fresh);
    lore_buf_destroy(&old);
}

/* A step that fails leaves the folder as it was, for the version that wrote it. */
TEST(all_or_nothing)
{
    fixture f;
    lore_error err;
    fix_init(&f, "half");
    make_folder(&f, format_1);
    make_folder(&f, "CREATE TABLE pages(somebody)");
    CHECK_FAILS(fix_try_open(&f, true, "encoder-1", &err), LORE_ERR_IO, &err,
                "bringing format 1 forward to ");
    CHECK(strstr(err.message, "pages") != NULL);
    CHECK_INT(ask(&f, "PRAGMA user_version"), 1);
    CHECK_INT(ask(&f, "SELECT count(*) FROM sqlite_schema WHERE sql LIKE '%starts%'"), 0);
    make_folder(&f, "DROP TABLE pages");
    fix_open(&f, true);
    fix_close(&f);
    CHECK_INT(ask(&f, "PRAGMA user_version"), lore_schema_format());
    fix_destroy(&f);
}

/* What is not ours to read is said, and not touched. */
TEST(refused)
{
    static const struct {
        const char *sql, *words;
        lore_status status;
    } cases[] = {
        {"PRAGMA user_version=1000", "has format 1000, written by a later version",
         LORE_ERR_UNSUPPORTED},
        {"PRAGMA user_version=0", "it has format 0", LORE_ERR_CORRUPT},
        {"PRAGMA user_version=-3", "it has format -3", LORE_ERR_CORRUPT},
        {"PRAGMA application_id=7", "of something else", LORE_ERR_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fixture f;
        lore_error err;
        char name[32];
        snprintf(name, sizeof name, "refused-%zu", i);
        fix_init(&f, name);
        make_folder(&f, format_1);
        make_folder(&f, cases[i].sql);
        CHECK_FAILS(fix_try_open(&f, true, "encoder-1", &err), cases[i].status, &err,
                    cases[i].words);
        CHECK_FAILS(fix_try_open(&f, false, "encoder-1", &err), cases[i].status, &err,
                    cases[i].words);
        CHECK_INT(ask(&f, "SELECT count(*) FROM sqlite_schema WHERE name='pages'"), 0);
        fix_destroy(&f);
    }
}

/* A file that somebody made and left empty is no index to a reader. */
TEST(empty_file)
{
    fixture f;
    lore_error err;
    fix_init(&f, "empty");
    make_folder(&f, "");
    CHECK_FAILS(fix_try_open(&f, false, "encoder-1", &err), LORE_ERR_NOT_FOUND, &err,
                "holds no index");
    fix_open(&f, true);
    fix_destroy(&f);
}

CHECK_MAIN(earlier_formats, all_or_nothing, refused, empty_file)
