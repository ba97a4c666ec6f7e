/* Write transactions, and collections, which are made and deleted in one.
 *
 * begin takes the database's write lock and reads the counters; put and delete change rows; commit
 * stores the counters, makes it durable, and brings the snapshot forward before it returns. The
 * states:
 *
 *   closed --begin--> open --put, delete--> open --commit--> closed   (without changes: writes
 * nothing) |  --something fails--> failed --rollback--> closed
 *
 * What the caller gave wrongly (LORE_ERR_INVALID, _LIMIT, _NOT_FOUND) is found before anything is
 * written: that document is refused and the transaction goes on. Any other failure may leave rows
 * half changed; then everything but rollback is refused, commit included. */
#include "index/index_int.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"

#include <stdio.h>

enum {
    LOG_BYTES = 4 * 1024 * 1024, /* of the write-ahead log, above which it is moved over */
    /* Readers come and go without a gap, so the log never starts anew by itself: wait for those
     * that are in it. A read takes milliseconds. */
    LOG_BYTES_LONG = 32 * 1024 * 1024,
    LOG_WAIT_MS = 500
};

/* ---- transactions ---- */

void lore_text_forget(lore_index *index)
{
    lore_stmt_free(index->text_insert);
    lore_stmt_free(index->text_remove);
    index->text_insert = index->text_remove = NULL;
    index->text_collection = 0;
}

lore_status lore_meta_put(lore_db *db, lore_str key, const char *text, int64_t number,
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

lore_status lore_index_begin(lore_index *index, lore_error *err)
{
    static const char *const sequence = "SELECT value FROM meta WHERE key='sequence'";
    static const char *const next_chunk = "SELECT value FROM meta WHERE key='next_chunk'";
    LORE_ASSERT(index->is_writer);
    LORE_ASSERT(!index->is_open);
    /* An earlier transaction may have had no memory for its rollback. */
    if (!lore_db_rollback(index->writer)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory rolling back");
    }
    lore_status status = lore_db_exec(index->writer, "BEGIN IMMEDIATE", err);
    if (status == LORE_OK) {
        status = lore_db_number(index->writer, sequence, &index->sequence, err);
    }
    if (status == LORE_OK) {
        status = lore_db_number(index->writer, next_chunk, &index->next_chunk, err);
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
    lore_text_forget(index);
    (void)lore_db_rollback(index->writer); /* the next begin looks again */
    index->is_open = index->has_failed = false;
}

/* May this transaction be written to? After some failures (no memory, a full disk) SQLite has ended
 * it by itself, even when it was a read that failed: what followed would be committed one by one.
 */
lore_status lore_transaction_check(const lore_index *index, lore_error *err)
{
    LORE_ASSERT(index->is_writer);
    LORE_ASSERT(index->is_open);
    if (index->has_failed || !lore_db_in_transaction(index->writer)) {
        return lore_fail(err, LORE_ERR_IO,
                         "something failed earlier in this transaction: it must be rolled back");
    }
    return LORE_OK;
}

lore_status lore_transaction_note(lore_index *index, lore_status status)
{
    index->has_failed = index->has_failed || status != LORE_OK;
    index->has_changes = true;
    return status;
}

lore_status lore_index_commit(lore_index *index, lore_error *err)
{
    lore_status status = lore_transaction_check(index, err);
    if (status == LORE_OK && !index->has_changes) {
        lore_index_rollback(index);
        return LORE_OK;
    }
    if (status == LORE_OK) {
        status = lore_meta_put(index->writer, LORE_STR("sequence"), NULL, index->sequence, err);
    }
    if (status == LORE_OK) {
        status = lore_meta_put(index->writer, LORE_STR("next_chunk"), NULL, index->next_chunk, err);
    }
    if (status == LORE_OK) {
        status = lore_db_exec(index->writer, "COMMIT", err);
    }
    if (status != LORE_OK) {
        lore_index_rollback(index);
        return status;
    }
    index->is_open = false;
    /* It is committed whatever happens now; a snapshot that could not follow is made by the next
     * acquire. */
    lore_error why;
    if (lore_index_refresh(index, &why) != LORE_OK) {
        lore_log(LORE_LOG_WARN, "event=index_refresh_failed reason=\"%s\"", why.message);
    }
    return LORE_OK;
}

lore_status lore_index_checkpoint(lore_index *index, bool is_idle, lore_error *err)
{
    LORE_ASSERT(index->is_writer);
    LORE_ASSERT(!index->is_open);
    int64_t bytes = lore_db_log_bytes(index->writer);
    if (is_idle) {
        return lore_db_checkpoint(index->writer, LORE_CHECKPOINT_TRUNCATE, 0, err);
    }
    if (bytes > LOG_BYTES_LONG) {
        return lore_db_checkpoint(index->writer, LORE_CHECKPOINT_RESTART, LOG_WAIT_MS, err);
    }
    return bytes > LOG_BYTES ? lore_db_checkpoint(index->writer, LORE_CHECKPOINT_PASSIVE, 0, err)
                             : LORE_OK;
}

/* ---- collections ---- */

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

lore_status lore_collection_insert(lore_index *index, lore_str name, lore_error *err)
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

/* ---- collections: in the open transaction, or in one of their own ---- */

typedef struct own_transaction {
    bool is_own;
} own_transaction;

static lore_status enter(lore_index *index, own_transaction *own, lore_error *err)
{
    own->is_own = !index->is_open;
    return own->is_own ? lore_index_begin(index, err) : lore_transaction_check(index, err);
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
    status = lore_db_number(index->writer, count_sql, &count, err);
    if (status == LORE_OK && count >= LORE_COLLECTIONS_MAX) {
        return lore_fail(err, LORE_ERR_LIMIT, "there are %d collections already",
                         LORE_COLLECTIONS_MAX);
    }
    if (status != LORE_OK) {
        return status;
    }
    return lore_transaction_note(index, lore_collection_insert(index, name, err));
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
        ("DELETE FROM chunks WHERE id IN (SELECT c.id FROM documents d JOIN chunks c ON "
         "c.id >= d.first_chunk AND c.id < d.first_chunk + d.chunk_count WHERE d.collection=?1)"),
        "DELETE FROM texts WHERE document IN (SELECT id FROM documents WHERE collection=?1)",
        "DELETE FROM pages WHERE document IN (SELECT id FROM documents WHERE collection=?1)",
        "DELETE FROM sketches WHERE document IN (SELECT id FROM documents WHERE collection=?1)",
        "DELETE FROM bands WHERE collection=?1",
        "DELETE FROM vectors WHERE collection=?1",
        "DELETE FROM documents WHERE collection=?1",
        "DELETE FROM deletions WHERE collection=?1",
        "DELETE FROM collections WHERE id=?1",
    };
    char sql[64];
    lore_text_forget(index);
    lore_status status =
        lore_db_run_all(index->writer, removals, sizeof removals / sizeof removals[0], id, err);
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
        status = lore_transaction_note(index, remove_collection(index, id, err));
    } else {
        status = status == LORE_ERR_NOT_FOUND ? LORE_OK : lore_fail(err, status, "%s", why.message);
    }
    status = leave(index, &own, status, err);
    if (status == LORE_OK && found != NULL) {
        *found = exists;
    }
    return status;
}

static lore_status write_settings(lore_index *index, lore_str name,
                                  const lore_collection_settings *settings, lore_error *err)
{
    static const char *const sql =
        "UPDATE collections SET fusion_weight=iif(?2, ?3, fusion_weight), "
        "refusal=iif(?4, ?5, refusal), chunk_tokens=iif(?6, nullif(?7, 0), chunk_tokens), "
        "chunk_overlap=iif(?8, nullif(?9, -1), chunk_overlap), "
        "expansion=iif(?10, ?11, expansion) WHERE id=?1";
    int64_t id = 0;
    lore_stmt *stmt = NULL;
    lore_status status = lore_collection_find(index->writer, name, &id, err);
    if (status == LORE_OK) {
        status = lore_db_statement(index->writer, sql, &stmt, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, id);
    lore_bind_int(stmt, 2, settings->has_weight);
    lore_bind_float(stmt, 3, settings->fusion_weight);
    lore_bind_int(stmt, 4, settings->has_refusal);
    lore_bind_text(stmt, 5, settings->refusal.ptr != NULL ? settings->refusal : LORE_STR(""));
    lore_bind_int(stmt, 6, settings->has_tokens);
    lore_bind_int(stmt, 7, settings->chunk_tokens);
    lore_bind_int(stmt, 8, settings->has_overlap);
    lore_bind_int(stmt, 9, settings->chunk_overlap);
    lore_bind_int(stmt, 10, settings->has_expansion);
    lore_bind_float(stmt, 11, settings->expansion);
    return lore_transaction_note(index, lore_stmt_run(stmt, err));
}

lore_status lore_index_set_collection(lore_index *index, lore_str name,
                                      const lore_collection_settings *settings, lore_error *err)
{
    own_transaction own;
    LORE_ASSERT(index->is_writer);
    if (settings->has_refusal && lore_utf8_valid(settings->refusal) != settings->refusal.len) {
        return lore_fail(err, LORE_ERR_INVALID, "the refusal text is not UTF-8");
    }
    lore_status status = enter(index, &own, err);
    return status == LORE_OK ? leave(index, &own, write_settings(index, name, settings, err), err)
                             : status;
}
