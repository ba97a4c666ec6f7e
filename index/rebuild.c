/* The background thread that mends and makes derived files while everything else goes on.
 *
 * What it does, for one collection after the other:
 *   publish  a vector file was damaged or missing at open, or its tail had grown long: fold it anew
 *            (publish.c); searches meanwhile scan the rows that came from the database
 *   load     the inverted file of a large collection: check every byte, map it, swap it in
 *   build    none, a damaged one, or one whose tail or dead have passed a share: cluster with
 * FAISS, measure, write beside, sync, rename, move the mark, swap it in drop     the collection has
 * become small (or the configuration's bound large)
 *
 * Nobody waits for it: searches use the snapshot they hold, with the inverted file it has or none;
 * commits meet it only at the database's write lock, for the one row that marks a file. It runs at
 * low priority on one core, starts only when there is something to do, and ends within a second of
 * being told to. States, guarded by index->lock:
 *
 *   absent --wake--> busy --nothing left--> idle --wake, or RETRY_MS after a failure--> busy
 *   any --stop--> joined
 *
 * A crash after the rename and before the mark leaves a file whose checksum the mark does not know:
 * it is taken for damaged and built anew. */
#include "index/index_int.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
    ANN_MIN = 1000,  /* whatever the config says, fewer vectors are scanned faster than sorted */
    ANN_SHARE = 5,   /* build anew when the tail or the dead pass a fifth of what it covers */
    PAUSE_MS = 300,  /* before building: a command may be about to end, more rows about to come */
    RETRY_MS = 30000 /* after a failure, most likely for want of space or memory */
};

typedef enum job { JOB_NONE, JOB_LOAD, JOB_BUILD, JOB_DROP } job;

/* ---- is there something to do ---- */

/* Rows above the covered ids; those that died among them count, until the tail is merged. */
static int64_t tail_of(const lore_vectors *view)
{
    int64_t tail = 0;
    for (int32_t i = 0; i < view->part_count; i++) {
        const lore_segment *segment = view->parts[i].segment;
        tail += segment->count - lore_segment_lower_bound(segment, view->ann->chunk + 1);
    }
    return tail;
}

static job job_of(const lore_index *index, const lore_vectors *view)
{
    if (index->backend == NULL) {
        return JOB_NONE;
    }
    int64_t live = lore_vectors_live(view);
    bool has_file = view->published.ann_size >= 0;
    if (live <= index->config->ann_min_vectors || live < ANN_MIN) {
        return has_file || view->ann != NULL ? JOB_DROP : JOB_NONE;
    }
    if (view->ann == NULL) {
        return has_file ? JOB_LOAD : JOB_BUILD;
    }
    int64_t covered = view->ann->rows.count, tail = tail_of(view);
    int64_t dead = covered - (live - tail);
    bool is_stale = tail * ANN_SHARE > covered || dead * ANN_SHARE > covered;
    return is_stale ? JOB_BUILD : JOB_NONE;
}

/* ---- the mark ---- */

static lore_status run_mark(lore_db *db, int64_t collection, int64_t size, uint64_t checksum,
                            lore_error *err)
{
    static const char *const sql =
        "UPDATE collections SET ann_size=?2, ann_checksum=?3 WHERE id=?1";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, collection);
    if (size >= 0) {
        lore_bind_int(stmt, 2, size);
        lore_bind_int(stmt, 3, (int64_t)checksum);
    }
    return lore_stmt_run(stmt, err);
}

/* size -1: there is no file any more. */
static lore_status move_mark(const lore_index *index, int64_t collection, int64_t size,
                             uint64_t checksum, lore_error *err)
{
    lore_db *db = NULL;
    lore_status status = lore_db_open(index->path, true, &db, err);
    if (status == LORE_OK) {
        status = run_mark(db, collection, size, checksum, err);
        lore_db_close(db);
    }
    return status;
}

/* ---- the jobs ---- */

/* Opens what `published` says and gives it to the next snapshot. */
static lore_status swap_in(lore_index *index, const lore_published *published, lore_error *err)
{
    char path[LORE_INDEX_PATH_CAP];
    lore_ann *ann = NULL;
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    lore_index_ann_path(index, published->collection, path);
    lore_status status = lore_ann_open(path, published, dim, &ann, err);
    if (status == LORE_OK) {
        status = lore_index_replace_ann(index, published, ann, err);
        lore_ann_release(ann);
    }
    return status;
}

static void log_step(const lore_vectors *view, const char *step, int64_t start_ns,
                     const lore_lists *lists)
{
    lore_log(LORE_LOG_INFO, "event=ann_%s collection=%s vectors=%lld lists=%d elapsed_ms=%lld",
             step, view->name, (long long)lists->row_count, lists->list_count,
             (long long)((lore_clock_ns() - start_ns) / 1000000));
}

static lore_status build(lore_index *index, const lore_snapshot *snapshot, const lore_vectors *view,
                         const lore_stop *stop, lore_error *err)
{
    int64_t start_ns = lore_clock_ns();
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    lore_lists *lists = NULL;
    float margin = 0;
    char path[LORE_INDEX_PATH_CAP];
    lore_published made = view->published;
    lore_log(LORE_LOG_INFO, "event=ann_begin collection=%s vectors=%lld", view->name,
             (long long)lore_vectors_live(view));
    lore_status status = lore_lists_new(view->parts, view->part_count, dim, stop, &lists, err);
    if (status == LORE_OK) {
        log_step(view, "sorted", start_ns, lists);
        status = lore_lists_margin(lists, view->parts, view->part_count, index->backend, stop,
                                   &margin, err);
    }
    if (status == LORE_OK) {
        lore_index_ann_path(index, view->collection, path);
        status = lore_ann_write(path, lists, view->collection, snapshot->next_chunk - 1, margin,
                                &made.ann_size, &made.ann_checksum, err);
    }
    if (status == LORE_OK) {
        status = move_mark(index, view->collection, made.ann_size, made.ann_checksum, err);
    }
    if (status == LORE_OK) {
        status = swap_in(index, &made, err);
    }
    if (status == LORE_OK) {
        log_step(view, "ready", start_ns, lists);
    }
    lore_lists_free(lists);
    return status;
}

static lore_status drop(lore_index *index, const lore_vectors *view, lore_error *err)
{
    char path[LORE_INDEX_PATH_CAP];
    const lore_published none = {.collection = view->collection, .ann_size = -1};
    lore_status status = move_mark(index, none.collection, none.ann_size, 0, err);
    if (status == LORE_OK) {
        status = lore_index_replace_ann(index, &none, NULL, err);
    }
    lore_index_ann_path(index, view->collection, path);
    if (status == LORE_OK && unlink(path) != 0 && errno != ENOENT) {
        lore_log(LORE_LOG_WARN, "event=index_stray_kept path=\"%s\" reason=\"%s\"", path,
                 strerror(errno));
    }
    return status;
}

/* Until the pause is over or the thread is to stop. */
static bool pause_is_over(lore_index *index)
{
    int64_t deadline_ns = lore_clock_ns() + (int64_t)PAUSE_MS * 1000000;
    bool is_waiting = true;
    lore_lock_acquire(&index->lock);
    while (is_waiting && !atomic_load_explicit(&index->rebuild_stopping, memory_order_relaxed)) {
        is_waiting = lore_lock_wait(&index->lock, deadline_ns);
    }
    lore_lock_release(&index->lock);
    return !is_waiting;
}

static lore_status run_job(lore_index *index, int64_t collection, const lore_stop *stop,
                           lore_error *err)
{
    lore_snapshot *snapshot = lore_index_acquire(index);
    const lore_vectors *view = lore_snapshot_view(snapshot, collection);
    job next = view == NULL ? JOB_NONE : job_of(index, view);
    lore_status status = LORE_OK;
    if (next == JOB_LOAD) {
        status = swap_in(index, &view->published, err);
        if (status == LORE_ERR_CORRUPT || status == LORE_ERR_NOT_FOUND) {
            lore_log(LORE_LOG_WARN, "event=index_file_unusable reason=\"%s\"", err->message);
            status = LORE_OK;
            next = JOB_BUILD;
        }
    } else if (next == JOB_BUILD && !pause_is_over(index)) {
        next = JOB_NONE;
    }
    if (next == JOB_BUILD) {
        status = build(index, snapshot, view, stop, err);
    } else if (next == JOB_DROP) {
        status = drop(index, view, err);
    }
    lore_snapshot_release(snapshot);
    return status;
}

static lore_status publish(lore_index *index, lore_error *err)
{
    lore_db *db = NULL;
    lore_status status = lore_db_open(index->path, true, &db, err);
    if (status == LORE_OK) {
        status = lore_index_publish_through(index, db, err);
        lore_db_close(db);
    }
    return status;
}

/* ---- the thread ---- */

static bool is_stopping(void *self)
{
    /* Relaxed: it only ends a wait earlier; joining orders everything else. */
    return atomic_load_explicit(&((lore_index *)self)->rebuild_stopping, memory_order_relaxed);
}

/* Of the collections above `after`, the first with something to do; 0: none. */
static int64_t next_collection(lore_index *index, int64_t after)
{
    int64_t found = 0;
    lore_snapshot *snapshot = lore_index_acquire(index);
    for (int32_t i = 0; i < snapshot->view_count && found == 0; i++) {
        const lore_vectors *view = snapshot->views[i];
        if (view->collection > after && job_of(index, view) != JOB_NONE) {
            found = view->collection;
        }
    }
    lore_snapshot_release(snapshot);
    return found;
}

/* Everything there is to do; what fails for one collection does not keep the others waiting. */
static bool work(lore_index *index, bool must_publish)
{
    lore_error err;
    lore_stop stop = {is_stopping, index};
    bool is_done = true;
    if (must_publish && publish(index, &err) != LORE_OK) {
        lore_log(LORE_LOG_WARN, "event=index_repair_failed reason=\"%s\"", err.message);
        is_done = false;
    }
    int64_t collection = next_collection(index, 0);
    while (collection != 0 && !is_stopping(index)) {
        lore_status status = run_job(index, collection, &stop, &err);
        if (status != LORE_OK && status != LORE_ERR_CANCELLED) {
            lore_log(LORE_LOG_WARN, "event=ann_failed reason=\"%s\"", err.message);
            is_done = false;
        }
        collection = next_collection(index, collection);
    }
    return is_done;
}

static void *run(void *self)
{
    lore_index *index = self;
    int64_t retry_ns = 0;
    bool must_publish = false;
    lore_thread_lower_priority();
    lore_lock_acquire(&index->lock);
    while (!is_stopping(index)) {
        if (!index->rebuild_wanted && (retry_ns == 0 || !lore_deadline_passed(retry_ns))) {
            index->rebuild_busy = false;
            lore_lock_wake_all(&index->lock);
            (void)lore_lock_wait(&index->lock, retry_ns);
            continue;
        }
        must_publish = must_publish || index->rebuild_publish;
        index->rebuild_wanted = index->rebuild_publish = false;
        index->rebuild_busy = true;
        lore_lock_release(&index->lock);
        bool is_done = work(index, must_publish);
        must_publish = must_publish && !is_done;
        retry_ns = is_done ? 0 : lore_clock_ns() + (int64_t)RETRY_MS * 1000000;
        lore_lock_acquire(&index->lock);
    }
    index->rebuild_busy = false;
    lore_lock_wake_all(&index->lock);
    lore_lock_release(&index->lock);
    return NULL;
}

/* ---- for others of index/ ---- */

void lore_rebuild_wake(lore_index *index, bool at_open)
{
    LORE_ASSERT(index->is_writer);
    bool must_publish = false, is_wanted = false;
    lore_snapshot *snapshot = lore_index_acquire(index);
    for (int32_t i = 0; i < snapshot->view_count; i++) {
        const lore_vectors *view = snapshot->views[i];
        must_publish = must_publish || (at_open && lore_vectors_need_publishing(view));
        is_wanted = is_wanted || must_publish || job_of(index, view) != JOB_NONE;
    }
    lore_snapshot_release(snapshot);
    if (!is_wanted) {
        return;
    }
    lore_lock_acquire(&index->lock);
    index->rebuild_wanted = true;
    index->rebuild_publish = index->rebuild_publish || must_publish;
    lore_lock_wake_all(&index->lock);
    lore_lock_release(&index->lock);
    lore_error err;
    if (!index->rebuilder.is_started &&
        lore_thread_start(&index->rebuilder, "lore-rebuild", run, index, &err) != LORE_OK) {
        lore_log(LORE_LOG_WARN, "event=index_repair_failed reason=\"%s\"", err.message);
    }
}

void lore_rebuild_stop(lore_index *index)
{
    lore_lock_acquire(&index->lock);
    atomic_store_explicit(&index->rebuild_stopping, true, memory_order_relaxed);
    lore_lock_wake_all(&index->lock);
    lore_lock_release(&index->lock);
    lore_thread_join(&index->rebuilder);
}

bool lore_rebuild_wait(lore_index *index, int64_t deadline_ns)
{
    bool is_waiting = index->rebuilder.is_started;
    lore_lock_acquire(&index->lock);
    while (is_waiting && (index->rebuild_wanted || index->rebuild_busy) &&
           !lore_deadline_passed(deadline_ns)) {
        (void)lore_lock_wait(&index->lock, deadline_ns);
    }
    bool is_idle = !index->rebuild_wanted && !index->rebuild_busy;
    lore_lock_release(&index->lock);
    return is_idle;
}
