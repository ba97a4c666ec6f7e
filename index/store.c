/* The data folder: its lock, its database, and whether both are what they should be.
 *
 * Opening to write: make the folder, take the lock, open or create the database, check that the
 * vectors are this encoder's, make the first snapshot, repair derived files. Opening to read: the
 * same without making anything. */
#include "index/index_int.h"
#include "index/schema_int.h"

#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    DIM_MAX = 65536,
    LOCK_ATTEMPTS =
        10, /* a process that only asks who holds the folder has the lock for an instant */
    LOCK_PAUSE_MS = 20
};

/* ---- opening ---- */

/* From now on the vectors are this encoder's. Files of another vector length are forgotten with it;
 * they are empty, because so is the table of vectors. */
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
        status = lore_meta_put(db, LORE_STR("encoder"), options->encoder, 0, err);
    }
    if (status == LORE_OK) {
        status = lore_meta_put(db, LORE_STR("dim"), NULL, options->dim, err);
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
    bool is_same = lore_str_equal(stored, lore_str_from(options->encoder)) && dim == options->dim;
    if (!is_same && has_vectors) {
        status = lore_fail(err, LORE_ERR_INVALID,
                           "'%s' holds vectors of encoder '" LORE_STR_FMT
                           "' (dim %lld), not of '%s' (dim %d): use that encoder, a new folder, or "
                           "`lore collections reembed`",
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
    lore_status status = lore_db_open(index->path, true, &index->writer, err);
    if (status == LORE_OK) {
        status = lore_schema_upgrade(index, err);
    }
    return status == LORE_OK ? check_encoder(index, index->writer, options, err) : status;
}

static lore_status open_reader(lore_index *index, const lore_index_options *options,
                               lore_error *err)
{
    lore_reader *reader = NULL;
    lore_status status = lore_reader_take(index, &reader, err);
    if (status == LORE_OK) {
        status = lore_schema_check(index->path, reader->db, err);
    }
    if (status == LORE_OK) {
        status = check_encoder(index, reader->db, options, err);
    }
    lore_reader_give(index, reader);
    return status;
}

static lore_status write_lock_note(const lore_index *index, lore_str address, lore_error *err)
{
    char note[1024];
    int length = snprintf(note, sizeof note, "process %lld\n%s" LORE_STR_FMT "%s",
                          (long long)getpid(), address.len > 0 ? "address " : "",
                          LORE_STR_ARG(address), address.len > 0 ? "\n" : "");
    if (length < 0 || (size_t)length >= sizeof note) {
        return lore_fail(err, LORE_ERR_INVALID, "address too long");
    }
    lore_status status = lore_file_lock_note(index->lock_fd, (lore_str){note, (size_t)length}, err);
    return status == LORE_OK ? status : lore_error_prefix(err, "'%s'", index->folder);
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
        status = write_lock_note(index, (lore_str){NULL, 0}, err);
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
    LORE_ASSERT(options->backend == NULL ||
                lore_backend_get_kind(options->backend) != LORE_BACKEND_CUDA);
    made->backend = options->backend;
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
    if (status == LORE_OK && options->device != NULL) {
        status = lore_device_open(made, options->device, &made->device, err);
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
        lore_index_remove_strays(made, true);
        lore_rebuild_wake(made, true); /* until it is done, the index answers from the database */
    }
    *index = made;
    return LORE_OK;
}

void lore_index_close(lore_index *index)
{
    if (index == NULL) {
        return;
    }
    lore_rebuild_stop(index);
    lore_device_stop(index->device);
    if (index->current != NULL) {
        /* Acquire: whoever released the others is done with them. */
        LORE_ASSERT(atomic_load_explicit(&index->current->references, memory_order_acquire) == 1);
        lore_snapshot_release(index->current);
    }
    lore_device_close(index->device);
    lore_reader_close_all(index);
    lore_filter_cache_clear(&index->filters);
    if (index->writer != NULL) {
        lore_index_rollback(index);
        lore_text_forget(index);
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
    return write_lock_note(index, address, err);
}
