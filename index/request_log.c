/* See request_log.h. The thread gathers what arrives within FLUSH_MS into one transaction. It opens
 * the file at once, and after a failure again when an entry comes, at most every RETRY_MS: until
 * then entries are dropped. synchronous is NORMAL: losing power may take the last entries, never
 * the file. */
#include "index/request_log.h"

#include "base/clock.h"
#include "base/log.h"
#include "index/index_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    APPLICATION = 0x4C4F5251, /* "LORQ" */
    FORMAT = 1,
    QUEUE_CAP = 1024,
    BATCH_MAX = 256,
    FLUSH_MS = 250,
    RETRY_MS = 10000,
    TRIM_MAX = 10000, /* rows that one transaction deletes: it must stay short */
    STRINGS = 8       /* of an entry */
};
#define LOG_BYTES_MAX ((int64_t)4 * 1024 * 1024)

typedef struct record {
    lore_request_entry entry; /* its strings lie behind it */
    char bytes[];
} record;

struct lore_request_log {
    char path[LORE_INDEX_PATH_CAP];
    int64_t rows_max;
    bool with_questions;
    lore_chan *queue;        /* of records */
    _Atomic int64_t dropped; /* a number without data behind it: relaxed */
    lore_thread thread;
    /* The thread's own. */
    lore_db *db;
    int64_t retry_ns;
};

/* ---- the file ---- */

static const char schema[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE requests(id INTEGER PRIMARY KEY, request_id TEXT NOT NULL, time_ms INTEGER NOT "
    "NULL, route TEXT NOT NULL, status INTEGER NOT NULL, error TEXT NOT NULL, mode TEXT NOT NULL,"
    "  refused INTEGER NOT NULL, total_ms REAL NOT NULL, embed_ms REAL NOT NULL,"
    "  search_ms REAL NOT NULL, evidence_ms REAL NOT NULL, queue_ms REAL NOT NULL,"
    "  first_token_ms REAL NOT NULL, prompt_tokens INTEGER NOT NULL,"
    "  completion_tokens INTEGER NOT NULL, collection TEXT NOT NULL, adapter TEXT NOT NULL,"
    "  key_id TEXT NOT NULL, question TEXT);"
    "CREATE TABLE usage(day TEXT NOT NULL, collection TEXT NOT NULL, adapter TEXT NOT NULL,"
    "  key_id TEXT NOT NULL, requests INTEGER NOT NULL, refused INTEGER NOT NULL,"
    "  failed INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,"
    "  PRIMARY KEY(day, collection, adapter, key_id)) WITHOUT ROWID;"
    "PRAGMA application_id=0x4C4F5251; PRAGMA user_version=1;"
    "COMMIT";

/* Ours and of this version, or made so where it is empty; else LORE_ERR_CORRUPT. */
static lore_status check_schema(lore_db *db, const char *path, lore_error *err)
{
    lore_db_identity identity;
    lore_status status = lore_db_identify(db, &identity, err);
    if (status != LORE_OK || (identity.application == APPLICATION && identity.format == FORMAT)) {
        return status;
    }
    return identity.is_empty
               ? lore_db_exec(db, schema, err)
               : lore_fail(err, LORE_ERR_CORRUPT, "'%s' is no request log of this version", path);
}

static lore_status try_open(lore_request_log *log, lore_error *err)
{
    lore_status status = lore_db_open(log->path, true, &log->db, err);
    if (status == LORE_OK) {
        status = check_schema(log->db, log->path, err);
    }
    if (status == LORE_OK) {
        status = lore_db_exec(log->db, "PRAGMA synchronous=NORMAL; PRAGMA cache_size=-1024", err);
    }
    if (status != LORE_OK) {
        lore_db_close(log->db);
        log->db = NULL;
    }
    return status;
}

/* Give the file and what belongs to it other names, so that somebody can look at them. */
static void set_aside(lore_request_log *log, const lore_error *why)
{
    static const char *const ENDS[] = {"", "-wal", "-shm"};
    char from[LORE_INDEX_PATH_CAP + 8], to[LORE_INDEX_PATH_CAP + 64];
    int64_t now_ms = lore_clock_unix_ms();
    lore_db_close(log->db);
    log->db = NULL;
    for (size_t i = 0; i < sizeof ENDS / sizeof ENDS[0]; i++) {
        snprintf(from, sizeof from, "%s%s", log->path, ENDS[i]);
        snprintf(to, sizeof to, "%s.damaged-%lld%s", log->path, (long long)now_ms, ENDS[i]);
        if (rename(from, to) != 0 && errno != ENOENT) {
            lore_log(LORE_LOG_WARN, "event=request_log_stuck path=%s reason=%s",
                     LORE_LOG_STR(lore_str_from(from)),
                     LORE_LOG_STR(lore_str_from(strerror(errno))));
        }
    }
    snprintf(to, sizeof to, "%s.damaged-%lld", log->path, (long long)now_ms);
    lore_log(LORE_LOG_WARN, "event=request_log_set_aside path=%s reason=%s effect=\"a new one\"",
             LORE_LOG_STR(lore_str_from(to)), LORE_LOG_STR(lore_str_from(why->message)));
}

static lore_status open_file(lore_request_log *log, lore_error *err)
{
    lore_status status = try_open(log, err);
    if (status == LORE_ERR_CORRUPT) {
        set_aside(log, err);
        status = try_open(log, err);
    }
    return status;
}

/* ---- a batch ---- */

static lore_status insert_request(lore_db *db, const lore_request_entry *entry, lore_error *err)
{
    static const char *const sql =
        "INSERT INTO requests(request_id, time_ms, route, status, error, mode, refused, total_ms, "
        "embed_ms, search_ms, evidence_ms, queue_ms, first_token_ms, prompt_tokens, "
        "completion_tokens, collection, adapter, key_id, question) "
        "VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19)";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    const double times[] = {entry->total_ms,    entry->embed_ms, entry->search_ms,
                            entry->evidence_ms, entry->queue_ms, entry->first_token_ms};
    lore_bind_text(stmt, 1, entry->id);
    lore_bind_int(stmt, 2, entry->time_ms);
    lore_bind_text(stmt, 3, entry->route);
    lore_bind_int(stmt, 4, entry->status);
    lore_bind_text(stmt, 5, entry->error);
    lore_bind_text(stmt, 6, entry->mode);
    lore_bind_int(stmt, 7, entry->is_refused);
    for (int i = 0; i < 6; i++) {
        lore_bind_float(stmt, 8 + i, times[i]);
    }
    lore_bind_int(stmt, 14, entry->prompt_tokens);
    lore_bind_int(stmt, 15, entry->completion_tokens);
    lore_bind_text(stmt, 16, entry->collection);
    lore_bind_text(stmt, 17, entry->adapter);
    lore_bind_text(stmt, 18, entry->key_id);
    if (entry->question.len > 0) {
        lore_bind_text(stmt, 19, entry->question); /* else it stays NULL */
    }
    return lore_stmt_run(stmt, err);
}

static lore_status add_usage(lore_db *db, const lore_request_entry *entry, lore_error *err)
{
    static const char *const sql =
        "INSERT INTO usage VALUES(date(?1 / 1000, 'unixepoch'), ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8) "
        "ON CONFLICT DO UPDATE SET requests=requests+1, refused=refused+excluded.refused, "
        "failed=failed+excluded.failed, prompt_tokens=prompt_tokens+excluded.prompt_tokens, "
        "completion_tokens=completion_tokens+excluded.completion_tokens";
    lore_stmt *stmt = NULL;
    if (entry->mode.len == 0) {
        return LORE_OK;
    }
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, entry->time_ms);
    /* What was not found is a name of the client's making: no row of its own. */
    const bool is_found = entry->status != 404;
    lore_bind_text(stmt, 2, is_found ? entry->collection : LORE_STR(""));
    lore_bind_text(stmt, 3, is_found ? entry->adapter : LORE_STR(""));
    lore_bind_text(stmt, 4, entry->key_id);
    lore_bind_int(stmt, 5, entry->is_refused);
    lore_bind_int(stmt, 6, entry->error.len > 0 || entry->status >= 400);
    lore_bind_int(stmt, 7, entry->prompt_tokens);
    lore_bind_int(stmt, 8, entry->completion_tokens);
    return lore_stmt_run(stmt, err);
}

/* Let go of the oldest. */
static lore_status trim(lore_request_log *log, lore_error *err)
{
    static const char *const requests =
        "DELETE FROM requests WHERE id <= min((SELECT max(id) FROM requests) - ?1, "
        "(SELECT min(id) FROM requests) + ?2)";
    static const char *const days = "DELETE FROM usage WHERE day <= date('now', ?1)";
    char age[32];
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(log->db, requests, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, log->rows_max);
        lore_bind_int(stmt, 2, TRIM_MAX);
        status = lore_stmt_run(stmt, err);
    }
    if (status == LORE_OK) {
        status = lore_db_statement(log->db, days, &stmt, err);
    }
    if (status == LORE_OK) {
        snprintf(age, sizeof age, "-%d days", LORE_USAGE_DAYS_MAX);
        lore_bind_text(stmt, 1, lore_str_from(age));
        status = lore_stmt_run(stmt, err);
    }
    return status;
}

static lore_status write_records(lore_request_log *log, record *const *records, int32_t count,
                                 lore_error *err)
{
    lore_status status = log->db == NULL ? open_file(log, err) : LORE_OK;
    if (status != LORE_OK) {
        return status;
    }
    status = lore_db_exec(log->db, "BEGIN IMMEDIATE", err);
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        status = insert_request(log->db, &records[i]->entry, err);
        if (status == LORE_OK) {
            status = add_usage(log->db, &records[i]->entry, err);
        }
    }
    if (status == LORE_OK) {
        status = trim(log, err);
    }
    if (status == LORE_OK) {
        status = lore_db_exec(log->db, "COMMIT", err);
    }
    if (status != LORE_OK) {
        (void)lore_db_rollback(log->db); /* the next BEGIN would fail, and then the file is opened
                                            anew */
    }
    return status;
}

static void drop(lore_request_log *log, int64_t count)
{
    atomic_fetch_add_explicit(&log->dropped, count, memory_order_relaxed);
}

static void give_up(lore_request_log *log, int32_t count, const lore_error *why)
{
    lore_log(LORE_LOG_WARN, "event=request_log_failed dropped=%d reason=%s", (int)count,
             LORE_LOG_STR(lore_str_from(why->message)));
    lore_db_close(log->db);
    log->db = NULL;
    log->retry_ns = lore_clock_ns() + (int64_t)RETRY_MS * 1000000;
}

/* Whatever happens, the records are done with. */
static void write_batch(lore_request_log *log, record **records, int32_t count)
{
    lore_error err;
    bool may_try = log->db != NULL || lore_deadline_passed(log->retry_ns);
    lore_status status = may_try ? write_records(log, records, count, &err) : LORE_ERR_IO;
    if (status == LORE_ERR_CORRUPT && log->db != NULL) {
        set_aside(log, &err);
        status = write_records(log, records, count, &err);
    }
    drop(log, status == LORE_OK ? 0 : count);
    if (status == LORE_OK && lore_db_log_bytes(log->db) > LOG_BYTES_MAX) {
        lore_status moved = lore_db_checkpoint(log->db, LORE_CHECKPOINT_PASSIVE, 0, &err);
        (void)moved; /* a reader in its way, or no space: the next batch tries again */
    }
    if (status != LORE_OK && may_try) {
        give_up(log, count, &err);
    }
    for (int32_t i = 0; i < count; i++) {
        lore_free(records[i]);
    }
}

/* ---- the thread ---- */

/* Wait for the first, then take what comes within FLUSH_MS. 0: the log is being closed. */
static int32_t gather(lore_request_log *log, record *records[BATCH_MAX])
{
    void *item = NULL;
    int32_t count = 0;
    lore_status status = lore_chan_recv(log->queue, &item, 0);
    int64_t deadline_ns = lore_clock_ns() + (int64_t)FLUSH_MS * 1000000;
    while (status == LORE_OK) {
        records[count++] = item;
        if (count == BATCH_MAX) {
            break;
        }
        status = lore_chan_recv(log->queue, &item, deadline_ns);
    }
    return count;
}

static void *run(void *self)
{
    lore_request_log *log = self;
    record *records[BATCH_MAX];
    lore_error err;
    lore_thread_lower_priority();
    if (open_file(log, &err) != LORE_OK) {
        give_up(log, 0, &err);
    }
    for (int32_t count = gather(log, records); count > 0; count = gather(log, records)) {
        write_batch(log, records, count);
    }
    lore_db_close(log->db);
    return NULL;
}

/* ---- for callers ---- */

lore_status lore_request_log_open(const lore_request_log_options *options, lore_request_log **log,
                                  lore_error *err)
{
    LORE_ASSERT(options->rows_max > 0);
    lore_request_log *made = lore_alloc_zero(1, sizeof *made);
    lore_chan *queue = lore_chan_new(QUEUE_CAP);
    lore_status status = LORE_OK;
    if (made == NULL || queue == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "no memory for the request log");
    } else {
        made->queue = queue;
        made->rows_max = options->rows_max;
        made->with_questions = options->with_questions;
        int length = snprintf(made->path, sizeof made->path, "%s/log.db", options->folder);
        if (length < 0 || (size_t)length >= sizeof made->path) {
            status = lore_fail(err, LORE_ERR_INVALID, "path too long: '%s'", options->folder);
        }
    }
    if (status == LORE_OK) {
        status = lore_thread_start(&made->thread, "lore-log", run, made, err);
    }
    if (status != LORE_OK) {
        lore_chan_free(queue);
        lore_free(made);
        return status;
    }
    *log = made;
    return LORE_OK;
}

void lore_request_log_close(lore_request_log *log)
{
    if (log == NULL) {
        return;
    }
    lore_chan_close(log->queue); /* what is in it is still received */
    lore_thread_join(&log->thread);
    lore_chan_free(log->queue);
    lore_free(log);
}

/* An entry with its strings in one piece of memory, or NULL. */
static record *copy_entry(const lore_request_entry *entry, bool with_question)
{
    lore_request_entry copy = *entry;
    copy.question.len = with_question ? entry->question.len : 0;
    lore_str *const strings[STRINGS] = {&copy.id,     &copy.route,      &copy.error,
                                        &copy.mode,   &copy.collection, &copy.adapter,
                                        &copy.key_id, &copy.question};
    size_t size = sizeof(record);
    for (int i = 0; i < STRINGS; i++) {
        if (!lore_size_add(size, strings[i]->len, &size)) {
            return NULL;
        }
    }
    record *made = lore_alloc(size);
    if (made == NULL) {
        return NULL;
    }
    char *at = made->bytes;
    for (int i = 0; i < STRINGS; i++) {
        if (strings[i]->len > 0) {
            memcpy(at, strings[i]->ptr, strings[i]->len);
        }
        strings[i]->ptr = at;
        at += strings[i]->len;
    }
    made->entry = copy;
    return made;
}

void lore_request_log_push(lore_request_log *log, const lore_request_entry *entry)
{
    record *made = copy_entry(entry, log->with_questions);
    if (made == NULL || lore_chan_try_send(log->queue, made) != LORE_OK) {
        lore_free(made);
        drop(log, 1);
    }
}

int64_t lore_request_log_dropped(const lore_request_log *log)
{
    return atomic_load_explicit(&log->dropped, memory_order_relaxed);
}

/* ---- usage ---- */

static lore_status read_usage(lore_db *db, int32_t days, lore_arena *arena, lore_usage *rows,
                              int32_t *count, lore_error *err)
{
    static const char *const version = "PRAGMA user_version";
    static const char *const sql =
        "SELECT day, collection, adapter, key_id, requests, refused, failed, prompt_tokens, "
        "completion_tokens FROM usage WHERE day > date('now', ?1) ORDER BY day, collection, "
        "adapter, key_id LIMIT ?2";
    char age[32];
    lore_stmt *stmt = NULL;
    int64_t format = 0;
    lore_status status = lore_db_number(db, version, &format, err);
    if (status == LORE_OK && format == FORMAT) { /* 0: the thread has only just made the file */
        status = lore_db_statement(db, sql, &stmt, err);
    }
    if (status != LORE_OK || stmt == NULL) {
        return status;
    }
    snprintf(age, sizeof age, "-%d days", (int)days);
    lore_bind_text(stmt, 1, lore_str_from(age));
    lore_bind_int(stmt, 2, LORE_USAGE_ROWS_MAX + 1);
    for (;;) {
        bool has_row = false, failed = false;
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            return status;
        }
        if (*count == LORE_USAGE_ROWS_MAX) {
            return lore_fail(err, LORE_ERR_LIMIT, "more than %d rows: ask for fewer days",
                             LORE_USAGE_ROWS_MAX);
        }
        lore_usage *row = &rows[(*count)++];
        lore_str *const strings[] = {&row->day, &row->collection, &row->adapter, &row->key_id};
        for (int i = 0; i < 4; i++) {
            *strings[i] = lore_str_copy(arena, lore_column_bytes(stmt, i));
            failed = failed || strings[i]->ptr == NULL;
        }
        if (failed) {
            return lore_fail(err, LORE_ERR_NOMEM, "no memory for usage");
        }
        row->requests = lore_column_int(stmt, 4);
        row->refused = lore_column_int(stmt, 5);
        row->failed = lore_column_int(stmt, 6);
        row->prompt_tokens = lore_column_int(stmt, 7);
        row->completion_tokens = lore_column_int(stmt, 8);
    }
}

lore_status lore_request_log_usage(const lore_request_log *log, int32_t days, lore_arena *arena,
                                   lore_usage **rows, int32_t *count, lore_error *err)
{
    lore_db *db = NULL;
    int32_t have = 0;
    lore_usage *list = LORE_PUSH(arena, lore_usage, LORE_USAGE_ROWS_MAX);
    if (list == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for usage");
    }
    lore_status status = LORE_OK;
    if (lore_file_exists(log->path)) { /* made with the first entry */
        status = lore_db_open(log->path, false, &db, err);
        if (status == LORE_OK) {
            status = read_usage(db, days, arena, list, &have, err);
        }
        lore_db_close(db);
    }
    if (status == LORE_OK) {
        *rows = list;
        *count = have;
    }
    return status;
}
