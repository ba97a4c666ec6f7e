/* A copy of a database as it is at one moment, through SQLite's online backup.
 *
 * The pages are copied in steps, between which the caller may stop it. By itself such a copy begins
 * anew whenever another process commits, and beside a busy writer would never end; so the
 * connection holds a read transaction from first to last, which in WAL mode keeps nobody from
 * writing. What `finish` does should end in another mode: one file without companions. */
#include "index/backup_int.h"

#include <sqlite3.h>

enum { STEP_PAGES = 2048 };

static lore_status fail_copy(const char *to, sqlite3 *handle, int code, lore_error *err)
{
    int kind = code & 0xff;
    lore_status status = kind == SQLITE_NOMEM || code == SQLITE_IOERR_NOMEM ? LORE_ERR_NOMEM
                         : kind == SQLITE_CORRUPT || kind == SQLITE_NOTADB  ? LORE_ERR_CORRUPT
                                                                            : LORE_ERR_IO;
    const char *words = handle == NULL || sqlite3_errcode(handle) == SQLITE_OK
                            ? sqlite3_errstr(code)
                            : sqlite3_errmsg(handle);
    return lore_fail(err, status, "cannot write '%s': %s", to, words);
}

static lore_status copy_pages(sqlite3_backup *copy, const lore_backup_options *options, int *code,
                              lore_error *err)
{
    for (;;) {
        *code = sqlite3_backup_step(copy, STEP_PAGES);
        int64_t total = sqlite3_backup_pagecount(copy);
        bool goes_on =
            options->progress == NULL ||
            options->progress(options->self, total - sqlite3_backup_remaining(copy), total);
        if (*code != SQLITE_OK) {
            return LORE_OK; /* the caller reads the code; SQLITE_DONE is one */
        }
        if (!goes_on) {
            return lore_fail(err, LORE_ERR_CANCELLED, "the copy was stopped");
        }
    }
}

static lore_status copy_into(sqlite3 *from, sqlite3 *made, const char *to,
                             const lore_backup_options *options, lore_error *err)
{
    int code = SQLITE_OK;
    sqlite3_backup *copy = sqlite3_backup_init(made, "main", from, "main");
    if (copy == NULL) {
        return fail_copy(to, made, sqlite3_errcode(made), err);
    }
    lore_status status = copy_pages(copy, options, &code, err);
    int ended = sqlite3_backup_finish(copy);
    code = code == SQLITE_DONE || code == SQLITE_OK ? ended : code;
    return status == LORE_OK && code != SQLITE_OK ? fail_copy(to, made, code, err) : status;
}

lore_status lore_db_copy(lore_db *db, const char *to, const char *finish,
                         const lore_backup_options *options, lore_error *err)
{
    /* Whoever wants the file whole syncs it once, and throws it away where anything fails. */
    static const char *const set_up = "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF";
    sqlite3 *made = NULL;
    lore_status status = lore_db_exec(db, "BEGIN; SELECT count(*) FROM sqlite_schema", err);
    if (status != LORE_OK) {
        (void)lore_db_rollback(db);
        return status;
    }
    int code = sqlite3_open_v2(
        to, &made, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_exec(made, set_up, NULL, NULL, NULL);
    }
    status = code == SQLITE_OK ? copy_into(lore_db_handle(db), made, to, options, err)
                               : fail_copy(to, made, code, err);
    if (status == LORE_OK) {
        code = sqlite3_exec(made, finish, NULL, NULL, NULL);
        status = code == SQLITE_OK ? LORE_OK : fail_copy(to, made, code, err);
    }
    code = sqlite3_close(made);
    LORE_ASSERT(code == SQLITE_OK);
    if (!lore_db_rollback(db) && status == LORE_OK) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory after a copy");
    }
    return status;
}
