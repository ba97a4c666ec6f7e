/* Publishing: folding what was committed since into a fresh vector file, crash-safely.
 *
 * For each collection that needs it, in this order:
 *   1. write vec-<collection>-<generation + 1>.i8: beside, synced, renamed;
 *   2. one transaction moves the mark (generation, coverage, checksum) and forgets the deletions
 * now covered;
 *   3. the snapshot is refreshed, which maps the new file;
 *   4. files of other generations are removed.
 * A crash before 2 leaves the old file current and a stray; after it the new file, and a stray old
 * one. Strays go in step 4 of the next publication or at the next open. Readers that have an old
 * file mapped keep it: removing only takes its name. Nothing here touches documents: if publishing
 * fails, the index is as good as before.
 *
 * The writing thread publishes, and rebuild.c where a file is damaged: one at a time
 * (is_publishing). */
#include "index/index_int.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    TAIL_MIN = 1024,   /* rows that are cheap to scan and to read at open: not worth a file */
    TAIL_SHARE = 10,   /* or a tenth of the base */
    DEAD_SHARE = 5,    /* dead rows above a fifth of the base */
    NAMES_MAX = 100000 /* in a data folder */
};

/* ---- is it worth it ---- */

bool lore_vectors_need_publishing(const lore_vectors *view)
{
    int64_t base = view->has_base ? view->parts[0].segment->count : 0;
    int64_t dead = lore_vectors_dead(view);
    int64_t tail = lore_vectors_live(view) + dead - base;
    int64_t tail_max = base / TAIL_SHARE > TAIL_MIN ? base / TAIL_SHARE : TAIL_MIN;
    return view->is_damaged || tail > tail_max || (view->has_base && dead * DEAD_SHARE > base);
}

/* A collection that stays too small for a file still collects deletions; a publication lets go of
 * them. */
static lore_status has_long_log(lore_db *db, const lore_vectors *view, bool *is_long,
                                lore_error *err)
{
    static const char *const sql = "SELECT count(*) > ?2 FROM deletions WHERE collection=?1";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, view->collection);
    lore_bind_int(stmt, 2, TAIL_MIN);
    status = lore_stmt_step(stmt, &has_row, err);
    *is_long = status == LORE_OK && has_row && lore_column_int(stmt, 0) != 0;
    lore_stmt_reset(stmt);
    return status;
}

/* ---- the steps ---- */

static lore_status run_mark(lore_db *db, const lore_published *published, lore_error *err)
{
    static const char *const mark =
        "UPDATE collections SET generation=?2, base_sequence=?3, base_chunk=?4, vec_count=?5, "
        "vec_checksum=?6 WHERE id=?1";
    static const char *const forget = "DELETE FROM deletions WHERE collection=?1 AND sequence<=?2";
    static const char *const count = "UPDATE meta SET value=value+1 WHERE key='sequence'";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(db, mark, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, published->collection);
    lore_bind_int(stmt, 2, published->generation);
    lore_bind_int(stmt, 3, published->sequence);
    lore_bind_int(stmt, 4, published->chunk);
    lore_bind_int(stmt, 5, published->count);
    lore_bind_int(stmt, 6, (int64_t)published->checksum);
    status = lore_stmt_run(stmt, err);
    if (status == LORE_OK) {
        status = lore_db_statement(db, forget, &stmt, err);
    }
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, published->collection);
        lore_bind_int(stmt, 2, published->sequence);
        status = lore_stmt_run(stmt, err);
    }
    return status == LORE_OK ? lore_db_exec(db, count, err) : status;
}

static lore_status move_mark(lore_db *db, const lore_published *published, lore_error *err)
{
    lore_status status = lore_db_exec(db, "BEGIN IMMEDIATE", err);
    if (status == LORE_OK) {
        status = run_mark(db, published, err);
    }
    if (status == LORE_OK) {
        status = lore_db_exec(db, "COMMIT", err);
    }
    if (status != LORE_OK) {
        (void)lore_db_rollback(db); /* begin and publish look again */
    }
    return status;
}

static lore_status publish_view(lore_index *index, lore_db *db, const lore_snapshot *snapshot,
                                const lore_vectors *view, lore_error *err)
{
    lore_published next = view->published;
    next.generation++;
    next.sequence = snapshot->sequence;
    next.chunk = snapshot->next_chunk - 1;
    char path[LORE_INDEX_PATH_CAP];
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    lore_index_vec_path(index, view->collection, next.generation, path);
    lore_status status = lore_vec_file_write(path, view->parts, view->part_count, dim, &next, err);
    return status == LORE_OK ? move_mark(db, &next, err) : status;
}

/* ---- strays ---- */

static bool is_named(lore_str name, const char *path)
{
    return lore_str_equal(name, lore_str_from(strrchr(path, '/') + 1));
}

/* An inverted file that has no mark yet may be about to get it: it goes with its collection, or at
 * open. */
static bool is_current(const lore_index *index, const lore_snapshot *snapshot, lore_str name,
                       bool at_open)
{
    char path[LORE_INDEX_PATH_CAP];
    if (!at_open && lore_str_ends(name, LORE_STR(".tmp"))) {
        return true; /* being written */
    }
    for (int32_t i = 0; i < snapshot->view_count; i++) {
        const lore_published *published = &snapshot->views[i]->published;
        lore_index_vec_path(index, published->collection, published->generation, path);
        if (published->generation > 0 && is_named(name, path)) {
            return true;
        }
        lore_index_ann_path(index, published->collection, path);
        if ((!at_open || published->ann_size >= 0) && is_named(name, path)) {
            return true;
        }
    }
    return false;
}

/* Whatever looks like a derived file and belongs to no mark. Failing to remove one only wastes
 * space. */
void lore_index_remove_strays(lore_index *index, bool at_open)
{
    lore_arena arena;
    lore_error err;
    lore_str *names = NULL;
    size_t count = 0;
    lore_arena_init(&arena, 0);
    lore_snapshot *snapshot = lore_index_acquire(index);
    lore_status status = lore_dir_list(&arena, index->folder, NAMES_MAX, &names, &count, &err);
    if (status != LORE_OK) {
        lore_log(LORE_LOG_WARN, "event=index_strays_kept reason=\"%s\"", err.message);
        count = 0;
    }
    for (size_t i = 0; i < count; i++) {
        bool is_derived = lore_str_starts(names[i], LORE_STR("vec-")) ||
                          lore_str_starts(names[i], LORE_STR("ann-"));
        if (!is_derived || is_current(index, snapshot, names[i], at_open)) {
            continue;
        }
        char path[LORE_INDEX_PATH_CAP];
        snprintf(path, sizeof path, "%s/" LORE_STR_FMT, index->folder, LORE_STR_ARG(names[i]));
        if (unlink(path) != 0) {
            lore_log(LORE_LOG_WARN, "event=index_stray_kept path=\"%s\" reason=\"%s\"", path,
                     strerror(errno));
        }
    }
    lore_snapshot_release(snapshot);
    lore_arena_destroy(&arena);
}

/* ---- all collections ---- */

static lore_status publish_views(lore_index *index, lore_db *db, const lore_snapshot *snapshot,
                                 bool *has_moved, lore_error *err)
{
    lore_status first = LORE_OK;
    for (int32_t i = 0; i < snapshot->view_count; i++) {
        const lore_vectors *view = snapshot->views[i];
        lore_error why;
        lore_status status = LORE_OK;
        bool is_needed = lore_vectors_need_publishing(view);
        if (!is_needed) {
            status = has_long_log(db, view, &is_needed, &why);
        }
        /* Without vectors there is nothing to put into a file, not even their length. */
        bool has_dim = atomic_load_explicit(&index->dim, memory_order_relaxed) > 0;
        if (status == LORE_OK && is_needed && has_dim) {
            status = publish_view(index, db, snapshot, view, &why);
            *has_moved = *has_moved || status == LORE_OK;
        }
        if (status != LORE_OK && first == LORE_OK) { /* the other collections all the same */
            first = status;
            *err = why;
        }
    }
    return first;
}

static void begin_publishing(lore_index *index)
{
    lore_lock_acquire(&index->lock);
    while (index->is_publishing) {
        (void)lore_lock_wait(&index->lock, 0); /* the publishing thread always ends it */
    }
    index->is_publishing = true;
    lore_lock_release(&index->lock);
}

static void end_publishing(lore_index *index)
{
    lore_lock_acquire(&index->lock);
    index->is_publishing = false;
    lore_lock_wake_all(&index->lock);
    lore_lock_release(&index->lock);
}

lore_status lore_index_publish_through(lore_index *index, lore_db *db, lore_error *err)
{
    if (!lore_db_rollback(db)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory rolling back");
    }
    begin_publishing(index);
    bool has_moved = false;
    lore_snapshot *snapshot = lore_index_acquire(index);
    lore_status status = publish_views(index, db, snapshot, &has_moved, err);
    lore_snapshot_release(snapshot);
    if (has_moved) {
        lore_error why;
        lore_status refreshed = lore_index_refresh(index, &why);
        if (status == LORE_OK && refreshed != LORE_OK) {
            status = lore_fail(err, refreshed, "%s", why.message);
        }
    }
    /* After a failed refresh the snapshot still uses the old files: strays then wait for the next
     * time. */
    if (status == LORE_OK && has_moved) {
        lore_index_remove_strays(index, false);
    }
    end_publishing(index);
    return status;
}

lore_status lore_index_publish(lore_index *index, lore_error *err)
{
    LORE_ASSERT(index->is_writer);
    LORE_ASSERT(!index->is_open);
    lore_status status = lore_index_publish_through(index, index->writer, err);
    lore_rebuild_wake(index, false);
    return status;
}
