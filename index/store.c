/* The data folder: opening it, and the one writer.
 *
 * A write transaction: begin takes the database's write lock and reads the counters; put and delete change rows;
 * commit stores the counters, makes it durable, and brings the snapshot forward before it returns. The states:
 *
 *   closed --begin--> open --put, delete--> open --commit--> closed      (commit without changes writes nothing)
 *                      |  --something fails--> failed --rollback--> closed
 *
 * What the caller gave wrongly (LORE_ERR_INVALID, _LIMIT, _NOT_FOUND) is found before anything is written: that
 * document is refused and the transaction goes on. Any other failure may leave rows half changed; then everything but
 * rollback is refused, commit included.
 *
 * The full-text tables are contentless: to take a row out, FTS5 must be told the very texts that were put in. They are read
 * from the tables in the same transaction, before those lose them. */
#include "index/index_int.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    APPLICATION = 0x4C4F5245, /* "LORE" */
    FORMAT = 1,               /* formats.md; raise it where an old folder can no longer be read */
    DIM_MAX = 65536,
    LOCK_ATTEMPTS = 10, /* a process that only asks who holds the folder has the lock for an instant */
    LOCK_PAUSE_MS = 20
};

/* ---- the schema: formats.md §1 ---- */

static const char schema[] =
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "INSERT INTO meta VALUES('sequence',0),('next_chunk',1);"
    "CREATE TABLE collections(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
    "  created_ms INTEGER NOT NULL, documents INTEGER NOT NULL DEFAULT 0,"
    "  chunks INTEGER NOT NULL DEFAULT 0, changed INTEGER NOT NULL,"
    "  fusion_weight REAL, refusal TEXT NOT NULL DEFAULT '',"
    "  generation INTEGER NOT NULL DEFAULT 0, base_sequence INTEGER NOT NULL DEFAULT 0,"
    "  base_chunk INTEGER NOT NULL DEFAULT 0, vec_count INTEGER NOT NULL DEFAULT 0,"
    "  vec_checksum INTEGER NOT NULL DEFAULT 0, ann_size INTEGER, ann_checksum INTEGER);"
    "CREATE TABLE documents(id INTEGER PRIMARY KEY AUTOINCREMENT, collection INTEGER NOT NULL,"
    "  external_id TEXT NOT NULL, source TEXT NOT NULL, title TEXT NOT NULL, url TEXT NOT NULL,"
    "  metadata TEXT NOT NULL, media TEXT NOT NULL, hash BLOB NOT NULL, updated_ms INTEGER NOT NULL,"
    "  first_chunk INTEGER NOT NULL, chunk_count INTEGER NOT NULL, UNIQUE(collection, external_id));"
    "CREATE TABLE texts(document INTEGER PRIMARY KEY, runs BLOB NOT NULL, text BLOB NOT NULL);"
    "CREATE TABLE chunks(id INTEGER PRIMARY KEY, document INTEGER NOT NULL, ordinal INTEGER NOT NULL,"
    "  start INTEGER NOT NULL, end INTEGER NOT NULL, heading TEXT NOT NULL);"
    "CREATE TABLE vectors(chunk INTEGER PRIMARY KEY, collection INTEGER NOT NULL, data BLOB NOT NULL);"
    "CREATE INDEX vectors_by_collection ON vectors(collection);"
    "CREATE TABLE deletions(collection INTEGER, sequence INTEGER, first_chunk INTEGER,"
    "  chunk_count INTEGER, PRIMARY KEY(collection, sequence, first_chunk)) WITHOUT ROWID;"
    "PRAGMA application_id=0x4C4F5245; PRAGMA user_version=1;";
static_assert(FORMAT == 1, "the schema sets user_version");

static lore_status read_number(lore_db *db, const char *sql, int64_t *value, lore_error *err)
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

/* Is it ours, and of this version? *is_empty: there is nothing in it yet. */
static lore_status check_schema(lore_index *index, lore_db *db, bool *is_empty, lore_error *err)
{
    static const char *const tables = "SELECT count(*) FROM sqlite_schema";
    static const char *const application = "PRAGMA application_id";
    static const char *const version = "PRAGMA user_version";
    int64_t table_count = 0, id = 0, format = 0;
    lore_status status = read_number(db, tables, &table_count, err);
    if (status == LORE_OK) {
        status = read_number(db, application, &id, err);
    }
    if (status == LORE_OK) {
        status = read_number(db, version, &format, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    *is_empty = table_count == 0 && id == 0;
    if (*is_empty) {
        return LORE_OK;
    }
    if (id != APPLICATION) {
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s' is a database of something else", index->path);
    }
    if (format != FORMAT) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "'%s' has format %lld; this version of lore reads format %d", index->path,
                         (long long)format, FORMAT);
    }
    return LORE_OK;
}

/* ---- collections, inside a transaction ---- */

static lore_status check_name(lore_str name, lore_error *err)
{
    bool is_valid = name.len >= 1 && name.len <= LORE_COLLECTION_NAME_MAX;
    for (size_t i = 0; i < name.len && is_valid; i++) {
        char c = name.ptr[i];
        is_valid = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                   c == '-' || c == '_' || c == '.';
    }
    if (!is_valid) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "collection name '" LORE_STR_FMT "' must be 1 to %d letters, digits, "
                         "'-', '_' or '.'",
                         LORE_STR_ARG(name), LORE_COLLECTION_NAME_MAX);
    }
    return LORE_OK;
}

static lore_status insert_collection(lore_index *index, lore_str name, lore_error *err)
{
    static const char *const insert =
        "INSERT INTO collections(name, created_ms, changed) VALUES(?1, ?2, ?3)";
    lore_stmt *stmt = NULL;
    char sql[256];
    lore_status status = lore_db_statement(index->writer, insert, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_text(stmt, 1, name);
    lore_bind_int(stmt, 2, lore_clock_unix_ms());
    lore_bind_int(stmt, 3, index->sequence);
    status = lore_stmt_run(stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    snprintf(sql, sizeof sql,
             "CREATE VIRTUAL TABLE text_%lld USING fts5(title, heading, body, content='', "
             "tokenize='porter lore')",
             (long long)lore_db_last_row(index->writer));
    return lore_db_exec(index->writer, sql, err);
}

static void forget_text_statements(lore_index *index)
{
    lore_stmt_free(index->text_insert);
    lore_stmt_free(index->text_remove);
    index->text_insert = index->text_remove = NULL;
    index->text_collection = 0;
}

/* ---- opening ---- */

static lore_status create_schema(lore_index *index, lore_error *err)
{
    lore_status status = lore_db_exec(index->writer, "BEGIN IMMEDIATE", err);
    if (status == LORE_OK) {
        status = lore_db_exec(index->writer, schema, err);
    }
    if (status == LORE_OK) {
        status = insert_collection(index, LORE_STR("default"), err);
    }
    if (status == LORE_OK) {
        status = lore_db_exec(index->writer, "COMMIT", err);
    }
    if (status != LORE_OK) {
        (void)lore_db_rollback(index->writer); /* opening fails: the connection goes anyway */
    }
    return status;
}

static lore_status put_meta(lore_db *db, lore_str key, const char *text, int64_t number,
                            lore_error *err)
{
    static const char *const sql = "INSERT OR REPLACE INTO meta VALUES(?1, ?2)";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_text(stmt, 1, key);
    if (text != NULL) {
        lore_bind_text(stmt, 2, lore_str_from(text));
    } else {
        lore_bind_int(stmt, 2, number);
    }
    return lore_stmt_run(stmt, err);
}

/* From now on the vectors are this encoder's. Files of another vector length are forgotten with it; they are empty,
 * because so is the table of vectors. */
static lore_status adopt_encoder(lore_index *index, const lore_index_options *options,
                                 lore_error *err)
{
    static const char *const reset =
        "UPDATE collections SET generation=0, base_sequence=0, base_chunk=0, vec_count=0, "
        "vec_checksum=0, ann_size=NULL, ann_checksum=NULL;"
        "UPDATE meta SET value=value+1 WHERE key='sequence'";
    lore_db *db = index->writer;
    lore_status status = lore_db_exec(db, "BEGIN IMMEDIATE", err);
    if (status == LORE_OK) {
        status = put_meta(db, LORE_STR("encoder"), options->encoder, 0, err);
    }
    if (status == LORE_OK) {
        status = put_meta(db, LORE_STR("dim"), NULL, options->dim, err);
    }
    if (status == LORE_OK) {
        status = lore_db_exec(db, reset, err);
    }
    if (status == LORE_OK) {
        status = lore_db_exec(db, "COMMIT", err);
    }
    if (status != LORE_OK) {
        (void)lore_db_rollback(db); /* opening fails: the connection goes anyway */
    }
    return status;
}

/* Do the vectors in the database belong to the encoder in options? */
static lore_status check_encoder(lore_index *index, lore_db *db, const lore_index_options *options,
                                 lore_error *err)
{
    static const char *const sql =
        "SELECT (SELECT value FROM meta WHERE key='encoder'),"
        " (SELECT value FROM meta WHERE key='dim'), EXISTS(SELECT 1 FROM vectors)";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    if (options->encoder == NULL) {
        return LORE_OK;
    }
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_str stored = lore_column_bytes(stmt, 0);
    int64_t dim = lore_column_int(stmt, 1);
    bool has_vectors = lore_column_int(stmt, 2) != 0;
    bool is_same =
        lore_str_equal(stored, lore_str_from(options->encoder)) && dim == options->dim;
    if (!is_same && has_vectors) {
        status = lore_fail(err, LORE_ERR_INVALID,
                           "'%s' holds vectors of encoder '" LORE_STR_FMT
                           "' (dim %lld), not of '%s' (dim %d): ingest into a new folder",
                           index->path, LORE_STR_ARG(stored), (long long)dim, options->encoder,
                           options->dim);
    }
    lore_stmt_reset(stmt);
    if (status == LORE_OK && !is_same && index->is_writer) {
        status = adopt_encoder(index, options, err);
    }
    if (status == LORE_OK) {
        atomic_store_explicit(&index->dim, options->dim, memory_order_relaxed);
    }
    return status;
}

static lore_status open_writer(lore_index *index, const lore_index_options *options,
                               lore_error *err)
{
    bool is_empty = false;
    lore_status status = lore_db_open(index->path, true, &index->writer, err);
    if (status == LORE_OK) {
        status = check_schema(index, index->writer, &is_empty, err);
    }
    if (status == LORE_OK && is_empty) {
        status = create_schema(index, err);
    }
    return status == LORE_OK ? check_encoder(index, index->writer, options, err) : status;
}

static lore_status open_reader(lore_index *index, const lore_index_options *options,
                               lore_error *err)
{
    lore_reader *reader = NULL;
    bool is_empty = false;
    lore_status status = lore_reader_take(index, &reader, err);
    if (status == LORE_OK) {
        status = check_schema(index, reader->db, &is_empty, err);
    }
    if (status == LORE_OK && is_empty) {
        status = lore_fail(err, LORE_ERR_NOT_FOUND, "'%s' holds no index yet", index->folder);
    }
    if (status == LORE_OK) {
        status = check_encoder(index, reader->db, options, err);
    }
    lore_reader_give(index, reader);
    return status;
}

static lore_status write_lock_note(int fd, lore_str address, lore_error *err)
{
    char note[1024];
    int length = snprintf(note, sizeof note, "process %lld\n%s" LORE_STR_FMT "%s",
                          (long long)getpid(), address.len > 0 ? "address " : "",
                          LORE_STR_ARG(address), address.len > 0 ? "\n" : "");
    if (length < 0 || (size_t)length >= sizeof note) {
        return lore_fail(err, LORE_ERR_INVALID, "address too long");
    }
    return lore_file_lock_note(fd, (lore_str){note, (size_t)length}, err);
}

/* What a holder wrote, for people: its address, or else its process. */
static void read_lock_note(lore_str content, lore_buf *out)
{
    lore_str line, process = {NULL, 0}, address = {NULL, 0};
    while (lore_str_next_line(&content, &line)) {
        if (lore_str_starts(line, LORE_STR("process "))) {
            process = line;
        } else if (lore_str_starts(line, LORE_STR("address "))) {
            address = lore_str_slice(line, strlen("address "), line.len);
        }
    }
    lore_str words = address.len > 0 ? address : process;
    lore_buf_append(out, words.len > 0 ? words : LORE_STR("another process"));
}

static lore_status take_lock(lore_index *index, lore_error *err)
{
    char path[LORE_INDEX_PATH_CAP];
    lore_buf content, holder;
    lore_buf_init(&content, 0);
    lore_buf_init(&holder, 0);
    snprintf(path, sizeof path, "%s/lock", index->folder);
    lore_status status = lore_file_lock(path, &index->lock_fd, &content, err);
    for (int i = 1; i < LOCK_ATTEMPTS && status == LORE_ERR_BUSY; i++) {
        lore_clock_sleep_ms(LOCK_PAUSE_MS);
        lore_buf_reset(&content);
        status = lore_file_lock(path, &index->lock_fd, &content, err);
    }
    if (status == LORE_ERR_BUSY) {
        read_lock_note(lore_buf_str(&content), &holder);
        status = lore_fail(err, status, "'%s' is held by %s", index->folder, lore_buf_c(&holder));
    } else if (status == LORE_OK) {
        status = write_lock_note(index->lock_fd, (lore_str){NULL, 0}, err);
    }
    lore_buf_destroy(&content);
    lore_buf_destroy(&holder);
    return status;
}

static lore_status open_folder(lore_index *index, const lore_index_options *options,
                               lore_error *err)
{
    if (!index->is_writer) {
        if (!lore_file_exists(index->path)) {
            return lore_fail(err, LORE_ERR_NOT_FOUND, "'%s' holds no index (no lore.db)",
                             index->folder);
        }
        return open_reader(index, options, err);
    }
    lore_status status = lore_dir_make(index->folder, err);
    if (status == LORE_OK) {
        status = take_lock(index, err);
    }
    return status == LORE_OK ? open_writer(index, options, err) : status;
}

static lore_status index_new(const char *folder, const lore_index_options *options,
                             lore_index **index, lore_error *err)
{
    lore_index *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory opening '%s'", folder);
    }
    made->lock_fd = -1;
    lore_lock_init(&made->lock);
    made->config = options->config;
    made->backend = options->backend;
    made->is_device = options->backend != NULL &&
                      lore_backend_get_kind(options->backend) == LORE_BACKEND_CUDA;
    made->is_writer = options->is_writer;
    int length = snprintf(made->folder, sizeof made->folder, "%s", folder);
    snprintf(made->path, sizeof made->path, "%s/lore.db", made->folder);
    lore_status status = LORE_OK;
    if (length <= 0 || (size_t)length >= sizeof made->folder) {
        status = lore_fail(err, LORE_ERR_INVALID, "data folder '%s': the path is %s", folder,
                           length <= 0 ? "empty" : "too long");
    } else if (options->encoder != NULL && (options->dim < 1 || options->dim > DIM_MAX)) {
        status = lore_fail(err, LORE_ERR_INVALID, "vectors of dim %d: must be 1 to %d",
                           options->dim, DIM_MAX);
    } else if (options->encoder != NULL) {
        size_t size = strlen(options->encoder) + 1;
        made->encoder = lore_alloc(size);
        if (made->encoder == NULL) {
            status = lore_fail(err, LORE_ERR_NOMEM, "out of memory opening '%s'", folder);
        } else {
            memcpy(made->encoder, options->encoder, size);
        }
    }
    if (status != LORE_OK) {
        lore_index_close(made);
        return status;
    }
    *index = made;
    return LORE_OK;
}

lore_status lore_index_open(const char *folder, const lore_index_options *options,
                            lore_index **index, lore_error *err)
{
    lore_index *made = NULL;
    lore_status status = index_new(folder, options, &made, err);
    if (status != LORE_OK) {
        return status;
    }
    status = open_folder(made, options, err);
    if (status == LORE_OK) {
        status = lore_index_refresh(made, err);
    }
    if (status != LORE_OK) {
        lore_index_close(made);
        return status;
    }
    if (made->is_writer) {
        /* Without new files the index answers all the same, from the database. */
        lore_error why;
        if (lore_index_publish_all(made, true, &why) != LORE_OK) {
            lore_log(LORE_LOG_WARN, "event=index_repair_failed reason=\"%s\"", why.message);
        }
    }
    *index = made;
    return LORE_OK;
}

void lore_index_close(lore_index *index)
{
    if (index == NULL) {
        return;
    }
    if (index->current != NULL) {
        /* Acquire: whoever released the others is done with them. */
        LORE_ASSERT(atomic_load_explicit(&index->current->references, memory_order_acquire) == 1);
        lore_snapshot_release(index->current);
    }
    lore_reader_close_all(index);
    if (index->writer != NULL) {
        lore_index_rollback(index);
        forget_text_statements(index);
        lore_db_close(index->writer);
    }
    lore_file_unlock(index->lock_fd);
    lore_lock_destroy(&index->lock);
    lore_free(index->encoder);
    lore_free(index);
}

lore_status lore_index_holder(const char *folder, lore_buf *holder, lore_error *err)
{
    char path[LORE_INDEX_PATH_CAP];
    lore_buf content;
    int fd = -1;
    lore_buf_init(&content, 0);
    int length = snprintf(path, sizeof path, "%s/lock", folder);
    if (length < 0 || (size_t)length >= sizeof path) {
        return lore_fail(err, LORE_ERR_INVALID, "path too long: '%s'", folder);
    }
    if (!lore_file_exists(path)) {
        return LORE_OK;
    }
    lore_status status = lore_file_lock(path, &fd, &content, err);
    if (status == LORE_OK) {
        lore_file_unlock(fd);
    } else if (status == LORE_ERR_BUSY) {
        read_lock_note(lore_buf_str(&content), holder);
        status = lore_buf_failed(holder)
                     ? lore_fail(err, LORE_ERR_NOMEM, "out of memory reading '%s'", path)
                     : LORE_OK;
    }
    lore_buf_destroy(&content);
    return status;
}

lore_status lore_index_announce(lore_index *index, lore_str address, lore_error *err)
{
    LORE_ASSERT(index->is_writer);
    return write_lock_note(index->lock_fd, address, err);
}

/* ---- transactions ---- */

lore_status lore_index_begin(lore_index *index, lore_error *err)
{
    static const char *const sequence = "SELECT value FROM meta WHERE key='sequence'";
    static const char *const next_chunk = "SELECT value FROM meta WHERE key='next_chunk'";
    LORE_ASSERT(index->is_writer);
    LORE_ASSERT(!index->is_open);
    if (!lore_db_rollback(index->writer)) { /* of an earlier transaction, which had no memory for it */
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory rolling back");
    }
    lore_status status = lore_db_exec(index->writer, "BEGIN IMMEDIATE", err);
    if (status == LORE_OK) {
        status = read_number(index->writer, sequence, &index->sequence, err);
    }
    if (status == LORE_OK) {
        status = read_number(index->writer, next_chunk, &index->next_chunk, err);
    }
    if (status != LORE_OK) {
        (void)lore_db_rollback(index->writer); /* the next begin looks again */
        return status;
    }
    index->is_open = true;
    index->sequence++; /* the number that this commit will have */
    index->has_changes = false;
    return LORE_OK;
}

void lore_index_rollback(lore_index *index)
{
    /* The statements of a full-text table created in this transaction would keep it from going. */
    forget_text_statements(index);
    (void)lore_db_rollback(index->writer); /* the next begin looks again */
    index->is_open = index->has_failed = false;
}

/* May this transaction be written to? After some failures (no memory, a full disk) SQLite has ended it by itself, even
 * when it was a read that failed: what followed would be committed one by one. */
static lore_status check_open(const lore_index *index, lore_error *err)
{
    LORE_ASSERT(index->is_writer);
    LORE_ASSERT(index->is_open);
    if (index->has_failed || !lore_db_in_transaction(index->writer)) {
        return lore_fail(err, LORE_ERR_IO,
                         "something failed earlier in this transaction: it must be rolled back");
    }
    return LORE_OK;
}

static lore_status after_write(lore_index *index, lore_status status)
{
    index->has_failed = index->has_failed || status != LORE_OK;
    index->has_changes = true;
    return status;
}

lore_status lore_index_commit(lore_index *index, lore_error *err)
{
    lore_status status = check_open(index, err);
    if (status == LORE_OK && !index->has_changes) {
        lore_index_rollback(index);
        return LORE_OK;
    }
    if (status == LORE_OK) {
        status = put_meta(index->writer, LORE_STR("sequence"), NULL, index->sequence, err);
    }
    if (status == LORE_OK) {
        status = put_meta(index->writer, LORE_STR("next_chunk"), NULL, index->next_chunk, err);
    }
    if (status == LORE_OK) {
        status = lore_db_exec(index->writer, "COMMIT", err);
    }
    if (status != LORE_OK) {
        lore_index_rollback(index);
        return status;
    }
    index->is_open = false;
    /* It is committed whatever happens now; a snapshot that could not follow is made by the next acquire. */
    lore_error why;
    if (lore_index_refresh(index, &why) != LORE_OK) {
        lore_log(LORE_LOG_WARN, "event=index_refresh_failed reason=\"%s\"", why.message);
    }
    return LORE_OK;
}

/* ---- documents ---- */

/* The statements that write the full-text table of a collection. */
static lore_status use_text_table(lore_index *index, int64_t collection, lore_error *err)
{
    char sql[256];
    if (index->text_collection == collection) {
        return LORE_OK;
    }
    forget_text_statements(index);
    snprintf(sql, sizeof sql,
             "INSERT INTO text_%lld(rowid, title, heading, body) VALUES(?1, ?2, ?3, ?4)",
             (long long)collection);
    lore_status status = lore_stmt_new(index->writer, sql, &index->text_insert, err);
    snprintf(sql, sizeof sql,
             "INSERT INTO text_%lld(text_%lld, rowid, title, heading, body) "
             "VALUES('delete', ?1, ?2, ?3, ?4)",
             (long long)collection, (long long)collection);
    if (status == LORE_OK) {
        status = lore_stmt_new(index->writer, sql, &index->text_remove, err);
    }
    if (status == LORE_OK) {
        index->text_collection = collection;
    } else {
        forget_text_statements(index);
    }
    return status;
}

static lore_status write_text(lore_stmt *stmt, int64_t chunk, lore_str title, lore_str heading,
                              lore_str body, lore_error *err)
{
    lore_bind_int(stmt, 1, chunk);
    lore_bind_text(stmt, 2, title);
    lore_bind_text(stmt, 3, heading);
    lore_bind_text(stmt, 4, body);
    return lore_stmt_run(stmt, err);
}

/* Take the chunks of a document out of the full-text table. */
static lore_status remove_texts(lore_index *index, int64_t document, lore_str title,
                                lore_str text, lore_error *err)
{
    static const char *const sql = "SELECT c.id, c.heading, c.start, c.end FROM documents d "
                                   "JOIN chunks c ON c.id >= d.first_chunk "
                                   "AND c.id < d.first_chunk + d.chunk_count WHERE d.id=?1";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, document);
    for (;;) {
        bool has_row = false;
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            return status;
        }
        size_t start = (size_t)lore_column_int(stmt, 2), end = (size_t)lore_column_int(stmt, 3);
        if (start > end || end > text.len) {
            status = lore_fail(err, LORE_ERR_CORRUPT, "'%s' is damaged: chunk %lld has no text",
                               index->path, (long long)lore_column_int(stmt, 0));
        } else {
            status = write_text(index->text_remove, lore_column_int(stmt, 0), title,
                                lore_column_bytes(stmt, 1), lore_str_slice(text, start, end), err);
        }
        if (status != LORE_OK) {
            lore_stmt_reset(stmt);
            return status;
        }
    }
}

/* Run statements of one parameter, the document. */
static lore_status run_for(lore_db *db, const char *const *statements, size_t count, int64_t id,
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

static lore_status log_deletion(lore_index *index, int64_t document, lore_error *err)
{
    static const char *const sql =
        "INSERT INTO deletions SELECT collection, ?2, first_chunk, chunk_count FROM documents "
        "WHERE id=?1 AND chunk_count > 0";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, document);
        lore_bind_int(stmt, 2, index->sequence);
        status = lore_stmt_run(stmt, err);
    }
    return status;
}

/* Everything that a document has. The counters of its collection follow. */
static lore_status remove_document(lore_index *index, int64_t collection, int64_t document,
                                   lore_error *err)
{
    static const char *const content =
        "SELECT d.title, t.text FROM documents d JOIN texts t ON t.document=d.id WHERE d.id=?1";
    static const char *const removals[] = {
        "UPDATE collections SET documents=documents-1, chunks=chunks-"
        "(SELECT chunk_count FROM documents WHERE id=?1) "
        "WHERE id=(SELECT collection FROM documents WHERE id=?1)",
        "DELETE FROM vectors WHERE chunk >= (SELECT first_chunk FROM documents WHERE id=?1) AND "
        "chunk < (SELECT first_chunk + chunk_count FROM documents WHERE id=?1)",
        "DELETE FROM chunks WHERE id >= (SELECT first_chunk FROM documents WHERE id=?1) AND "
        "id < (SELECT first_chunk + chunk_count FROM documents WHERE id=?1)",
        "DELETE FROM texts WHERE document=?1",
        "DELETE FROM documents WHERE id=?1",
    };
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = use_text_table(index, collection, err);
    if (status == LORE_OK) {
        status = lore_db_statement(index->writer, content, &stmt, err);
    }
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, document);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK && !has_row) {
        status = lore_fail(err, LORE_ERR_CORRUPT, "'%s' is damaged: document %lld has no text",
                           index->path, (long long)document);
    }
    if (status == LORE_OK) {
        status = remove_texts(index, document, lore_column_bytes(stmt, 0),
                              lore_column_bytes(stmt, 1), err);
    }
    lore_stmt_reset(stmt);
    if (status == LORE_OK) {
        status = log_deletion(index, document, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    return run_for(index->writer, removals, sizeof removals / sizeof removals[0], document, err);
}

/* *document 0: there is none. */
static lore_status find_document(lore_db *db, int64_t collection, lore_str id, int64_t *document,
                                 lore_error *err)
{
    static const char *const sql =
        "SELECT id FROM documents WHERE collection=?1 AND external_id=?2";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, collection);
    lore_bind_text(stmt, 2, id);
    status = lore_stmt_step(stmt, &has_row, err);
    if (status == LORE_OK) {
        *document = has_row ? lore_column_int(stmt, 0) : 0;
        lore_stmt_reset(stmt);
    }
    return status;
}

static lore_status check_text(lore_str text, const char *what, lore_str id, lore_error *err)
{
    if (lore_utf8_valid(text) != text.len) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "the %s of document '" LORE_STR_FMT "' is not UTF-8", what,
                         LORE_STR_ARG(id));
    }
    return LORE_OK;
}

static lore_status check_limit(int64_t size, int64_t max, const char *what, const char *limit,
                               lore_str id, lore_error *err)
{
    if (size > max) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "document '" LORE_STR_FMT "' has %lld %s, more than %s (%lld)",
                         LORE_STR_ARG(id), (long long)size, what, limit, (long long)max);
    }
    return LORE_OK;
}

static lore_status check_chunks(const lore_document_row *document, int32_t dim, lore_error *err)
{
    for (int32_t i = 0; i < document->chunk_count; i++) {
        const lore_chunk_row *chunk = &document->chunks[i];
        if (chunk->start > chunk->end || chunk->end > document->text.len) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "chunk %d of document '" LORE_STR_FMT "' lies outside its text", i,
                             LORE_STR_ARG(document->id));
        }
        if (chunk->vector != NULL && dim == 0) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "document '" LORE_STR_FMT
                             "' has vectors, but the index was opened without an encoder",
                             LORE_STR_ARG(document->id));
        }
        for (int32_t j = 0; chunk->vector != NULL && j < dim; j++) {
            if (!(fabsf(chunk->vector[j]) <= 65504.0f)) { /* the largest f16; also NaN */
                return lore_fail(err, LORE_ERR_INVALID,
                                 "the vector of chunk %d of document '" LORE_STR_FMT
                                 "' is not finite",
                                 i, LORE_STR_ARG(document->id));
            }
        }
        lore_status status = check_text(chunk->heading, "heading of a chunk", document->id, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

static lore_status check_document(const lore_index *index, const lore_document_row *document,
                                  lore_error *err)
{
    const lore_limits *limits = &index->config->limits;
    lore_str id = document->id;
    const struct {
        lore_str text;
        const char *name;
    } texts[] = {{document->id, "id"},       {document->source, "source"},
                 {document->title, "title"}, {document->url, "url"},
                 {document->media, "media"}, {document->text, "text"}};
    if (id.len == 0 || (int64_t)id.len > limits->id_bytes_max) {
        return lore_fail(err, LORE_ERR_INVALID, "a document id must have 1 to %lld bytes, not %zu",
                         (long long)limits->id_bytes_max, id.len);
    }
    lore_status status = check_limit((int64_t)document->text.len, limits->document_bytes_max,
                                     "bytes of text", "document_bytes_max", id, err);
    if (status == LORE_OK) {
        status = check_limit(document->chunk_count, limits->document_chunks_max, "chunks",
                             "document_chunks_max", id, err);
    }
    if (status == LORE_OK) {
        status = check_limit((int64_t)document->metadata.len, limits->metadata_bytes_max,
                             "bytes of metadata", "metadata_bytes_max", id, err);
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0] && status == LORE_OK; i++) {
        status = check_text(texts[i].text, texts[i].name, id, err);
    }
    if (status == LORE_OK) {
        int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
        status = check_chunks(document, dim, err);
    }
    return status;
}

/* The object printed our way: keys and strings without needless escapes, so that filters can compare bytes. */
static lore_status read_metadata(const lore_index *index, const lore_document_row *document,
                                 lore_buf *out, lore_error *err)
{
    if (document->metadata.len == 0) {
        lore_buf_append(out, LORE_STR("{}"));
        return lore_buf_failed(out) ? lore_fail(err, LORE_ERR_NOMEM, "out of memory for metadata")
                                    : LORE_OK;
    }
    lore_json *json = NULL;
    lore_status status = lore_json_parse(document->metadata,
                                         (int32_t)index->config->limits.json_depth_max, &json, err);
    if (status == LORE_OK && !lore_json_is_object(json)) {
        status = lore_fail(err, LORE_ERR_INVALID, "it must be a JSON object");
    }
    if (status == LORE_OK) {
        status = lore_json_print(json, out, err);
    }
    lore_json_free(json);
    if (status != LORE_OK) {
        return lore_error_prefix(err, "metadata of document '" LORE_STR_FMT "'",
                                 LORE_STR_ARG(document->id));
    }
    return LORE_OK;
}

static lore_status insert_document(lore_index *index, int64_t collection,
                                   const lore_document_row *document, lore_str metadata,
                                   lore_error *err)
{
    static const char *const sql =
        "INSERT INTO documents(collection, external_id, source, title, url, metadata, media, hash, "
        "updated_ms, first_chunk, chunk_count) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, collection);
    lore_bind_text(stmt, 2, document->id);
    lore_bind_text(stmt, 3, document->source);
    lore_bind_text(stmt, 4, document->title);
    lore_bind_text(stmt, 5, document->url);
    lore_bind_text(stmt, 6, metadata);
    lore_bind_text(stmt, 7, document->media);
    lore_bind_blob(stmt, 8, document->hash, sizeof document->hash);
    lore_bind_int(stmt, 9, lore_clock_unix_ms());
    lore_bind_int(stmt, 10, index->next_chunk);
    lore_bind_int(stmt, 11, document->chunk_count);
    return lore_stmt_run(stmt, err);
}

static lore_status insert_text(lore_index *index, int64_t row, const lore_document_row *document,
                               lore_error *err)
{
    static const char *const sql = "INSERT INTO texts(document, runs, text) VALUES(?1,?2,?3)";
    static_assert(sizeof(lore_offset_run) == 12, "formats.md §1");
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, row);
    lore_bind_blob(stmt, 2, document->runs, (size_t)document->run_count * sizeof(lore_offset_run));
    lore_bind_blob(stmt, 3, document->text.ptr, document->text.len);
    return lore_stmt_run(stmt, err);
}

static lore_status insert_vector(lore_index *index, int64_t collection, int64_t id,
                                 const float *vector, uint16_t *half, lore_error *err)
{
    static const char *const sql = "INSERT INTO vectors(chunk, collection, data) VALUES(?1,?2,?3)";
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    for (int32_t i = 0; i < dim; i++) {
        half[i] = lore_f32_to_f16(vector[i]);
    }
    lore_bind_int(stmt, 1, id);
    lore_bind_int(stmt, 2, collection);
    lore_bind_blob(stmt, 3, half, (size_t)dim * sizeof *half);
    return lore_stmt_run(stmt, err);
}

static lore_status insert_chunk(lore_index *index, int64_t row, int32_t ordinal,
                                const lore_document_row *document, lore_error *err)
{
    static const char *const sql =
        "INSERT INTO chunks(id, document, ordinal, start, end, heading) VALUES(?1,?2,?3,?4,?5,?6)";
    const lore_chunk_row *chunk = &document->chunks[ordinal];
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, index->next_chunk);
    lore_bind_int(stmt, 2, row);
    lore_bind_int(stmt, 3, ordinal);
    lore_bind_int(stmt, 4, (int64_t)chunk->start);
    lore_bind_int(stmt, 5, (int64_t)chunk->end);
    lore_bind_text(stmt, 6, chunk->heading);
    status = lore_stmt_run(stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    return write_text(index->text_insert, index->next_chunk, document->title, chunk->heading,
                      lore_str_slice(document->text, chunk->start, chunk->end), err);
}

static lore_status insert_chunks(lore_index *index, int64_t collection, int64_t row,
                                 const lore_document_row *document, lore_error *err)
{
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    uint16_t *half = lore_alloc((size_t)dim * sizeof *half);
    if (half == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a vector");
    }
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < document->chunk_count && status == LORE_OK; i++) {
        status = insert_chunk(index, row, i, document, err);
        if (status == LORE_OK && document->chunks[i].vector != NULL) {
            status = insert_vector(index, collection, index->next_chunk,
                                   document->chunks[i].vector, half, err);
        }
        index->next_chunk++;
    }
    lore_free(half);
    return status;
}

static lore_status count_document(lore_index *index, int64_t collection, int64_t documents,
                                  int64_t chunks, lore_error *err)
{
    static const char *const sql = "UPDATE collections SET documents=documents+?2, "
                                   "chunks=chunks+?3, changed=?4 WHERE id=?1";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, collection);
    lore_bind_int(stmt, 2, documents);
    lore_bind_int(stmt, 3, chunks);
    lore_bind_int(stmt, 4, index->sequence);
    return lore_stmt_run(stmt, err);
}

static lore_status write_document(lore_index *index, int64_t collection, int64_t replaced,
                                  const lore_document_row *document, lore_str metadata,
                                  lore_error *err)
{
    int64_t row = 0;
    lore_status status = LORE_OK;
    if (replaced != 0) {
        status = remove_document(index, collection, replaced, err);
    }
    if (status == LORE_OK) {
        status = use_text_table(index, collection, err);
    }
    if (status == LORE_OK) {
        status = insert_document(index, collection, document, metadata, err);
    }
    if (status == LORE_OK) {
        row = lore_db_last_row(index->writer);
        status = insert_text(index, row, document, err);
    }
    if (status == LORE_OK) {
        status = insert_chunks(index, collection, row, document, err);
    }
    return status == LORE_OK ? count_document(index, collection, 1, document->chunk_count, err)
                             : status;
}

lore_status lore_index_put_document(lore_index *index, lore_str collection,
                                    const lore_document_row *document, bool *was_replaced,
                                    lore_error *err)
{
    int64_t id = 0, replaced = 0;
    lore_buf metadata;
    lore_buf_init(&metadata, 0);
    lore_status status = check_open(index, err);
    if (status == LORE_OK) {
        status = check_document(index, document, err);
    }
    if (status == LORE_OK) {
        status = read_metadata(index, document, &metadata, err);
    }
    if (status == LORE_OK) {
        status = lore_collection_find(index->writer, collection, &id, err);
    }
    if (status == LORE_OK) {
        status = find_document(index->writer, id, document->id, &replaced, err);
    }
    if (status == LORE_OK) {
        status = after_write(index, write_document(index, id, replaced, document,
                                                   lore_buf_str(&metadata), err));
    }
    if (status == LORE_OK && was_replaced != NULL) {
        *was_replaced = replaced != 0;
    }
    lore_buf_destroy(&metadata);
    return status;
}

lore_status lore_index_delete_document(lore_index *index, lore_str collection, lore_str id,
                                       bool *found, lore_error *err)
{
    int64_t row = 0, document = 0;
    lore_status status = check_open(index, err);
    if (status == LORE_OK) {
        status = lore_collection_find(index->writer, collection, &row, err);
    }
    if (status == LORE_OK) {
        status = find_document(index->writer, row, id, &document, err);
    }
    if (status == LORE_OK && document != 0) {
        status = remove_document(index, row, document, err);
        if (status == LORE_OK) {
            status = count_document(index, row, 0, 0, err);
        }
        status = after_write(index, status);
    }
    if (status == LORE_OK && found != NULL) {
        *found = document != 0;
    }
    return status;
}

/* ---- collections: in the open transaction, or in one of their own ---- */

typedef struct own_transaction {
    bool is_own;
} own_transaction;

static lore_status enter(lore_index *index, own_transaction *own, lore_error *err)
{
    own->is_own = !index->is_open;
    return own->is_own ? lore_index_begin(index, err) : check_open(index, err);
}

static lore_status leave(lore_index *index, const own_transaction *own, lore_status status,
                         lore_error *err)
{
    if (own->is_own && status == LORE_OK) {
        return lore_index_commit(index, err);
    }
    if (own->is_own) {
        lore_index_rollback(index);
    }
    return status;
}

static lore_status create_collection(lore_index *index, lore_str name, lore_error *err)
{
    static const char *const count_sql = "SELECT count(*) FROM collections";
    int64_t id = 0, count = 0;
    lore_error ignored;
    lore_status status = lore_collection_find(index->writer, name, &id, &ignored);
    if (status == LORE_OK) {
        return LORE_OK;
    }
    if (status != LORE_ERR_NOT_FOUND) {
        return lore_fail(err, status, "%s", ignored.message);
    }
    status = read_number(index->writer, count_sql, &count, err);
    if (status == LORE_OK && count >= LORE_COLLECTIONS_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "there are %d collections already",
                         LORE_COLLECTIONS_MAX);
    }
    if (status != LORE_OK) {
        return status;
    }
    return after_write(index, insert_collection(index, name, err));
}

lore_status lore_index_create_collection(lore_index *index, lore_str name, lore_error *err)
{
    own_transaction own;
    LORE_ASSERT(index->is_writer);
    lore_status status = check_name(name, err);
    if (status == LORE_OK) {
        status = enter(index, &own, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    return leave(index, &own, create_collection(index, name, err), err);
}

static lore_status remove_collection(lore_index *index, int64_t id, lore_error *err)
{
    static const char *const removals[] = {
        "DELETE FROM chunks WHERE id IN (SELECT c.id FROM documents d JOIN chunks c ON "
        "c.id >= d.first_chunk AND c.id < d.first_chunk + d.chunk_count WHERE d.collection=?1)",
        "DELETE FROM texts WHERE document IN (SELECT id FROM documents WHERE collection=?1)",
        "DELETE FROM vectors WHERE collection=?1",
        "DELETE FROM documents WHERE collection=?1",
        "DELETE FROM deletions WHERE collection=?1",
        "DELETE FROM collections WHERE id=?1",
    };
    char sql[64];
    forget_text_statements(index);
    lore_status status =
        run_for(index->writer, removals, sizeof removals / sizeof removals[0], id, err);
    if (status != LORE_OK) {
        return status;
    }
    snprintf(sql, sizeof sql, "DROP TABLE text_%lld", (long long)id);
    return lore_db_exec(index->writer, sql, err);
}

lore_status lore_index_delete_collection(lore_index *index, lore_str name, bool *found,
                                         lore_error *err)
{
    own_transaction own;
    int64_t id = 0;
    lore_error why;
    LORE_ASSERT(index->is_writer);
    lore_status status = enter(index, &own, err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_collection_find(index->writer, name, &id, &why);
    bool exists = status == LORE_OK;
    if (exists) {
        status = after_write(index, remove_collection(index, id, err));
    } else {
        status = status == LORE_ERR_NOT_FOUND ? LORE_OK : lore_fail(err, status, "%s", why.message);
    }
    status = leave(index, &own, status, err);
    if (status == LORE_OK && found != NULL) {
        *found = exists;
    }
    return status;
}

lore_status lore_index_tune_collection(lore_index *index, lore_str name, double fusion_weight,
                                       lore_str refusal, lore_error *err)
{
    static const char *const sql =
        "UPDATE collections SET fusion_weight=?2, refusal=?3 WHERE id=?1";
    own_transaction own;
    int64_t id = 0;
    lore_stmt *stmt = NULL;
    LORE_ASSERT(index->is_writer);
    if (lore_utf8_valid(refusal) != refusal.len) {
        return lore_fail(err, LORE_ERR_INVALID, "the refusal text is not UTF-8");
    }
    lore_status status = enter(index, &own, err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_collection_find(index->writer, name, &id, err);
    if (status == LORE_OK) {
        status = lore_db_statement(index->writer, sql, &stmt, err);
    }
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, id);
        lore_bind_float(stmt, 2, fusion_weight);
        lore_bind_text(stmt, 3, refusal);
        status = after_write(index, lore_stmt_run(stmt, err));
    }
    return leave(index, &own, status, err);
}
