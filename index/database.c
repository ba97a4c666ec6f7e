/* The fence around SQLite: connections, statements, error codes. The other half of it is
 * store_fts.c.
 *
 * No SQLite type leaves these two files. A connection is used by one thread at a time
 * (SQLITE_OPEN_NOMUTEX); the writer's and the readers' differ only in how they are opened. SQLite
 * allocates through lore_alloc, so a test that makes the N-th allocation fail reaches into it too,
 * and what it forgets shows up as a leak.
 *
 * Binding is sticky: a failed bind is kept in the statement and comes out of the next step, so
 * callers check once. Every failure is mapped to one of our statuses, with the path of the database
 * in the message. */
#include "index/backup_int.h"
#include "index/index_int.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    STATEMENTS_CAP = 64, /* distinct literals of one connection; asserted */
    PAGE_BYTES = 4096,   /* SQLite's default, which we leave */
    BUSY_TIMEOUT_MS =
        10000 /* for checkpoints and recovery; writers exclude each other by the folder's lock */
};

struct lore_stmt {
    sqlite3_stmt *handle;
    lore_db *db;
    int failure;     /* of the first failed bind, SQLITE_OK: none */
    const char *sql; /* the key, for statements of the connection */
};

struct lore_db {
    sqlite3 *handle;
    char path[LORE_INDEX_PATH_CAP];
    lore_stmt statements[STATEMENTS_CAP];
    int32_t statement_count;
    sqlite3_stmt *rollback; /* made at open, so that rolling back needs no memory */
    int64_t log_bytes;
    lore_fts *fts;
};

/* ---- memory: SQLite's allocator on top of ours ---- */

enum { SIZE_HEADER = 16 }; /* SQLite asks for sizes back; 16 keeps the alignment */

static void *memory_alloc(int size)
{
    char *block = lore_alloc((size_t)size + SIZE_HEADER);
    if (block == NULL) {
        return NULL;
    }
    memcpy(block, &size, sizeof size);
    return block + SIZE_HEADER;
}

static void memory_free(void *memory)
{
    if (memory != NULL) {
        lore_free((char *)memory - SIZE_HEADER);
    }
}

static void *memory_realloc(void *memory, int size)
{
    char *block = lore_realloc((char *)memory - SIZE_HEADER, (size_t)size + SIZE_HEADER);
    if (block == NULL) {
        return NULL;
    }
    memcpy(block, &size, sizeof size);
    return block + SIZE_HEADER;
}

static int memory_size(void *memory)
{
    int size = 0;
    if (memory != NULL) {
        memcpy(&size, (char *)memory - SIZE_HEADER, sizeof size);
    }
    return size;
}

static int memory_round(int size)
{
    return (size + 7) & ~7;
}

static int memory_init(void *self)
{
    (void)self;
    return SQLITE_OK;
}

static void memory_shutdown(void *self)
{
    (void)self;
}

/* Once per process, before SQLite wakes up. Should another library have woken it already, it stays
 * with malloc: nothing but the tests' fault injection notices. */
static void configure_sqlite(void)
{
    static const sqlite3_mem_methods methods = {memory_alloc,    memory_free,  memory_realloc,
                                                memory_size,     memory_round, memory_init,
                                                memory_shutdown, NULL};
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* its statistics take a global lock */
    (void)sqlite3_config(SQLITE_CONFIG_MALLOC, &methods);
}

/* ---- errors ---- */

static lore_status status_of(int code)
{
    if (code == SQLITE_IOERR_NOMEM) {
        return LORE_ERR_NOMEM;
    }
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return LORE_ERR_NOMEM;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return LORE_ERR_BUSY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return LORE_ERR_CORRUPT;
    case SQLITE_TOOBIG:
        return LORE_ERR_LIMIT;
    default:
        return LORE_ERR_IO;
    }
}

/* What to do about it, where SQLite's words do not say. */
static const char *advice_for(int code)
{
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return " (another program holds it open to write: a backup, or the sqlite3 shell)";
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return " (restore a backup, or move the folder away and ingest again)";
    case SQLITE_FULL:
        return " (nothing that was acknowledged is lost; free some space)";
    case SQLITE_READONLY:
        return " (the file or its folder may not be written to)";
    default:
        return "";
    }
}

static lore_status fail_db(lore_db *db, int code, lore_error *err)
{
    const char *words = sqlite3_errmsg(db->handle);
    /* After a failed allocation SQLite may have no words, or those of an earlier failure. */
    if (words == NULL || sqlite3_errcode(db->handle) == SQLITE_OK) {
        words = sqlite3_errstr(code);
    }
    lore_status status = status_of(code);
    if (status == LORE_ERR_CORRUPT) {
        return lore_fail(err, status, "'%s' is damaged: %s%s", db->path, words, advice_for(code));
    }
    int reason = (code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_CANTOPEN
                     ? sqlite3_system_errno(db->handle)
                     : 0; /* "disk I/O error" alone does not say that the disk is full */
    return lore_fail(err, status, "'%s': %s%s%s%s", db->path, words, reason != 0 ? ": " : "",
                     reason != 0 ? strerror(reason) : "", advice_for(code));
}

/* ---- connections ---- */

/* A folder on a read-only medium cannot hold the shared memory file of WAL mode. Without a log
 * there is nothing to coordinate with: SQLite may then read the database as a file that never
 * changes. */
static bool must_be_immutable(const char *path)
{
    char beside[LORE_INDEX_PATH_CAP + 8];
    struct stat info;
    snprintf(beside, sizeof beside, "%s-wal", path);
    if (stat(beside, &info) == 0 && info.st_size > 0) {
        return false;
    }
    snprintf(beside, sizeof beside, "%s", path);
    char *slash = strrchr(beside, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    return access(slash == NULL ? "." : beside, W_OK) != 0 && errno != ENOENT;
}

/* "file:<path>?immutable=1" with the characters that mean something in a URI escaped. */
static bool make_uri(const char *path, char *out, size_t cap)
{
    size_t at = (size_t)snprintf(out, cap, "file:");
    for (const char *c = path; *c != '\0'; c++) {
        bool is_plain = strchr("%?#", *c) == NULL;
        int length = snprintf(out + at, cap - at, is_plain ? "%c" : "%%%02X", (unsigned char)*c);
        at += (size_t)length;
        if (at >= cap) {
            return false;
        }
    }
    int length = snprintf(out + at, cap - at, "?immutable=1");
    return at + (size_t)length < cap;
}

static int open_handle(lore_db *db, const char *path, bool is_writer)
{
    int flags = SQLITE_OPEN_NOMUTEX;
    if (is_writer) {
        flags |= SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
        return sqlite3_open_v2(path, &db->handle, flags, NULL);
    }
    flags |= SQLITE_OPEN_READONLY;
    char uri[3 * LORE_INDEX_PATH_CAP];
    if (must_be_immutable(path) && make_uri(path, uri, sizeof uri)) {
        return sqlite3_open_v2(uri, &db->handle, flags | SQLITE_OPEN_URI, NULL);
    }
    return sqlite3_open_v2(path, &db->handle, flags, NULL);
}

/* After each commit. In SQLite's own place for it would be a checkpoint every thousand pages, which
 * the caller of the commit would wait for. */
static int note_log(void *self, sqlite3 *handle, const char *name, int pages)
{
    (void)handle;
    (void)name;
    ((lore_db *)self)->log_bytes = (int64_t)pages * PAGE_BYTES;
    return SQLITE_OK;
}

static int set_up(lore_db *db, bool is_writer)
{
    /* secure_delete is on by default here; FAST still clears what costs no extra page. */
    static const char *const common = "PRAGMA temp_store=MEMORY; PRAGMA secure_delete=FAST;";
    static const char *const writing =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-32768;"
        "PRAGMA journal_size_limit=67108864;";
    static const char *const reading = "PRAGMA cache_size=-8192;";
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    int code = sqlite3_exec(db->handle, common, NULL, NULL, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_exec(db->handle, is_writer ? writing : reading, NULL, NULL, NULL);
    }
    if (code == SQLITE_OK) {
        code = sqlite3_prepare_v3(db->handle, "ROLLBACK", -1, SQLITE_PREPARE_PERSISTENT,
                                  &db->rollback, NULL);
    }
    if (code == SQLITE_OK) {
        code = lore_fts_open(db->handle, &db->fts);
    }
    if (is_writer) {
        (void)sqlite3_wal_hook(db->handle, note_log, db);
    }
    return code;
}

lore_status lore_db_open(const char *path, bool is_writer, lore_db **db, lore_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, configure_sqlite);
    if (strlen(path) >= LORE_INDEX_PATH_CAP) {
        return lore_fail(err, LORE_ERR_INVALID, "path too long: '%s'", path);
    }
    lore_db *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory opening '%s'", path);
    }
    snprintf(made->path, sizeof made->path, "%s", path);
    int code = open_handle(made, path, is_writer);
    if (made->handle == NULL) {
        lore_free(made);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory opening '%s'", path);
    }
    if (code == SQLITE_OK) {
        code = set_up(made, is_writer);
    }
    if (code != SQLITE_OK) {
        lore_status status = fail_db(made, code, err);
        lore_db_close(made);
        return status;
    }
    *db = made;
    return LORE_OK;
}

void lore_db_close(lore_db *db)
{
    if (db == NULL) {
        return;
    }
    for (int32_t i = 0; i < db->statement_count; i++) {
        (void)sqlite3_finalize(db->statements[i].handle);
    }
    (void)sqlite3_finalize(db->rollback);
    int code = sqlite3_close(db->handle);
    LORE_ASSERT(code == SQLITE_OK); /* a statement of somebody's is still alive */
    lore_fts_close(db->fts);        /* after the connection, which calls into it */
    lore_free(db);
}

lore_status lore_db_exec(lore_db *db, const char *sql, lore_error *err)
{
    int code = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? LORE_OK : fail_db(db, code, err);
}

/* Statements still in flight would make the rollback fail, or answer SQLITE_ABORT later. */
bool lore_db_rollback(lore_db *db)
{
    for (int32_t i = 0; i < db->statement_count; i++) {
        lore_stmt_reset(&db->statements[i]);
    }
    if (lore_db_in_transaction(db)) {
        (void)sqlite3_step(db->rollback);
        (void)sqlite3_reset(db->rollback);
    }
    return !lore_db_in_transaction(db);
}

bool lore_db_in_transaction(const lore_db *db)
{
    return sqlite3_get_autocommit(db->handle) == 0;
}

int64_t lore_db_log_bytes(const lore_db *db)
{
    return db->log_bytes;
}

lore_status lore_db_checkpoint(lore_db *db, lore_checkpoint how, int32_t wait_ms, lore_error *err)
{
    static const int MODES[] = {SQLITE_CHECKPOINT_PASSIVE, SQLITE_CHECKPOINT_RESTART,
                                SQLITE_CHECKPOINT_TRUNCATE};
    sqlite3_busy_timeout(db->handle, wait_ms);
    int code = sqlite3_wal_checkpoint_v2(db->handle, "main", MODES[how], NULL, NULL);
    lore_status status = code == SQLITE_OK ? LORE_OK : fail_db(db, code, err);
    sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    if (status == LORE_OK && how != LORE_CHECKPOINT_PASSIVE) {
        db->log_bytes = 0;
    }
    return status;
}

void *lore_db_handle(lore_db *db)
{
    return db->handle;
}

lore_fts *lore_db_fts(lore_db *db)
{
    return db->fts;
}

int64_t lore_db_last_row(const lore_db *db)
{
    return sqlite3_last_insert_rowid(db->handle);
}

/* ---- statements ---- */

static lore_status prepare(lore_db *db, const char *sql, unsigned flags, lore_stmt *stmt,
                           lore_error *err)
{
    int code = sqlite3_prepare_v3(db->handle, sql, -1, flags, &stmt->handle, NULL);
    if (code != SQLITE_OK) {
        return fail_db(db, code, err);
    }
    stmt->db = db;
    stmt->failure = SQLITE_OK;
    stmt->sql = sql;
    return LORE_OK;
}

lore_status lore_db_statement(lore_db *db, const char *sql, lore_stmt **stmt, lore_error *err)
{
    for (int32_t i = 0; i < db->statement_count; i++) {
        if (db->statements[i].sql == sql) {
            lore_stmt_reset(&db->statements[i]);
            *stmt = &db->statements[i];
            return LORE_OK;
        }
    }
    LORE_ASSERT(db->statement_count < STATEMENTS_CAP);
    lore_stmt *made = &db->statements[db->statement_count];
    lore_status status = prepare(db, sql, SQLITE_PREPARE_PERSISTENT, made, err);
    if (status == LORE_OK) {
        db->statement_count++;
        *stmt = made;
    }
    return status;
}

lore_status lore_stmt_new(lore_db *db, const char *sql, lore_stmt **stmt, lore_error *err)
{
    lore_stmt *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a statement on '%s'", db->path);
    }
    lore_status status = prepare(db, sql, 0, made, err);
    if (status != LORE_OK) {
        lore_free(made);
        return status;
    }
    *stmt = made;
    return LORE_OK;
}

void lore_stmt_free(lore_stmt *stmt)
{
    if (stmt != NULL) {
        (void)sqlite3_finalize(stmt->handle);
        lore_free(stmt);
    }
}

void lore_stmt_reset(lore_stmt *stmt)
{
    if (stmt != NULL) {
        (void)sqlite3_reset(stmt->handle);
        (void)sqlite3_clear_bindings(stmt->handle);
        stmt->failure = SQLITE_OK;
    }
}

static void note(lore_stmt *stmt, int code)
{
    if (code != SQLITE_OK && stmt->failure == SQLITE_OK) {
        stmt->failure = code;
    }
}

void lore_bind_int(lore_stmt *stmt, int index, int64_t value)
{
    note(stmt, sqlite3_bind_int64(stmt->handle, index, value));
}

void lore_bind_float(lore_stmt *stmt, int index, double value)
{
    note(stmt, sqlite3_bind_double(stmt->handle, index, value)); /* NaN becomes NULL by itself */
}

void lore_bind_text(lore_stmt *stmt, int index, lore_str value)
{
    const char *text = value.ptr == NULL ? "" : value.ptr; /* NULL would bind NULL */
    note(stmt,
         sqlite3_bind_text64(stmt->handle, index, text, value.len, SQLITE_STATIC, SQLITE_UTF8));
}

void lore_bind_blob(lore_stmt *stmt, int index, const void *data, size_t size_bytes)
{
    note(stmt, sqlite3_bind_blob64(stmt->handle, index, data == NULL ? "" : data, size_bytes,
                                   SQLITE_STATIC));
}

lore_status lore_stmt_step(lore_stmt *stmt, bool *has_row, lore_error *err)
{
    int code = stmt->failure != SQLITE_OK ? stmt->failure : sqlite3_step(stmt->handle);
    if (code == SQLITE_ROW) {
        *has_row = true;
        return LORE_OK;
    }
    lore_status status = code == SQLITE_DONE ? LORE_OK : fail_db(stmt->db, code, err);
    lore_stmt_reset(stmt);
    if (status == LORE_OK) {
        *has_row = false;
    }
    return status;
}

lore_status lore_stmt_run(lore_stmt *stmt, lore_error *err)
{
    bool has_row = true;
    while (has_row) {
        lore_status status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

int64_t lore_column_int(lore_stmt *stmt, int index)
{
    return sqlite3_column_int64(stmt->handle, index);
}

double lore_column_float(lore_stmt *stmt, int index)
{
    return lore_column_is_null(stmt, index) ? (double)__builtin_nanf("")
                                            : sqlite3_column_double(stmt->handle, index);
}

/* column_blob on TEXT gives its UTF-8 bytes as they are; column_text would want a NUL behind them.
 */
lore_str lore_column_bytes(lore_stmt *stmt, int index)
{
    const void *data = sqlite3_column_blob(stmt->handle, index);
    lore_str bytes = {data, (size_t)sqlite3_column_bytes(stmt->handle, index)};
    return data == NULL ? (lore_str){"", 0} : bytes;
}

bool lore_column_is_null(lore_stmt *stmt, int index)
{
    return sqlite3_column_type(stmt->handle, index) == SQLITE_NULL;
}

lore_status lore_db_read_blob(lore_db *db, const char *table, const char *column, int64_t row,
                              size_t offset, char *out, size_t size_bytes, lore_error *err)
{
    sqlite3_blob *blob = NULL;
    int code = sqlite3_blob_open(db->handle, "main", table, column, row, 0, &blob);
    if (code != SQLITE_OK) {
        return fail_db(db, code, err);
    }
    lore_status status = LORE_OK;
    size_t have = (size_t)sqlite3_blob_bytes(blob);
    if (offset > have || size_bytes > have - offset) {
        status = lore_fail(err, LORE_ERR_CORRUPT,
                           "'%s' is damaged: row %lld of %s has %zu bytes, not %zu", db->path,
                           (long long)row, table, have, offset + size_bytes);
    } else {
        code = sqlite3_blob_read(blob, out, (int)size_bytes, (int)offset);
        status = code == SQLITE_OK ? LORE_OK : fail_db(db, code, err);
    }
    (void)sqlite3_blob_close(blob);
    return status;
}

lore_status lore_db_number(lore_db *db, const char *sql, int64_t *value, lore_error *err)
{
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK && has_row) {
        *value = lore_column_int(stmt, 0);
        lore_stmt_reset(stmt);
    }
    return status;
}

lore_status lore_db_identify(lore_db *db, lore_db_identity *identity, lore_error *err)
{
    static const char *const tables = "SELECT count(*) FROM sqlite_schema";
    static const char *const application = "PRAGMA application_id";
    static const char *const version = "PRAGMA user_version";
    int64_t table_count = 0;
    *identity = (lore_db_identity){0};
    lore_status status = lore_db_number(db, tables, &table_count, err);
    if (status == LORE_OK) {
        status = lore_db_number(db, application, &identity->application, err);
    }
    if (status == LORE_OK) {
        status = lore_db_number(db, version, &identity->format, err);
    }
    identity->is_empty = table_count == 0 && identity->application == 0;
    return status;
}

lore_status lore_db_run_all(lore_db *db, const char *const *statements, size_t count, int64_t id,
                            lore_error *err)
{
    for (size_t i = 0; i < count; i++) {
        lore_stmt *stmt = NULL;
        lore_status status = lore_db_statement(db, statements[i], &stmt, err);
        if (status == LORE_OK) {
            lore_bind_int(stmt, 1, id);
            status = lore_stmt_run(stmt, err);
        }
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}
