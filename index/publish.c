/* Publishing: folding what was committed since into fresh derived files, crash-safely.
 *
 * For each collection that needs it, in this order:
 *   1. write vec-<collection>-<generation + 1>.i8, and ann-... where the collection is large:
 * beside, synced, renamed;
 *   2. one transaction moves the mark (generation, coverage, checksums) and forgets the deletions
 * now covered;
 *   3. the snapshot is refreshed, which maps the new file;
 *   4. files of other generations are removed.
 * A crash before 2 leaves the old pair current and a stray file; after it the new pair, and a stray
 * old file. Strays go in step 4 of the next publication or at the next open. Readers that have an
 * old file mapped keep it: removing only takes its name. Nothing here touches documents: if
 * publishing fails, the index is as good as before. */
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
    ANN_MIN = 1000,    /* whatever the config says, fewer vectors are scanned faster than probed */
    NAMES_MAX = 100000 /* in a data folder */
};

/* ---- is it worth it ---- */

static bool wants_ann(const lore_index *index, const lore_vectors *view)
{
    int64_t live = lore_vectors_live(view);
    return live > index->config->ann_min_vectors && live >= ANN_MIN;
}

static bool needs_publishing(const lore_index *index, const lore_vectors *view)
{
    int64_t base = view->has_base ? view->parts[0].segment->count : 0;
    int64_t dead = lore_vectors_dead(view);
    int64_t tail = lore_vectors_live(view) + dead - base;
    int64_t tail_max = base / TAIL_SHARE > TAIL_MIN ? base / TAIL_SHARE : TAIL_MIN;
    if (tail > tail_max || (view->has_base && dead * DEAD_SHARE > base)) {
        return true;
    }
    return wants_ann(index, view) && view->ann == NULL;
}

/* A collection that stays too small for a file still collects deletions; a publication lets go of
 * them. */
static lore_status has_long_log(const lore_index *index, const lore_vectors *view, bool *is_long,
                                lore_error *err)
{
    static const char *const sql = "SELECT count(*) > ?2 FROM deletions WHERE collection=?1";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
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

static lore_status write_files(lore_index *index, const lore_vectors *view,
                               lore_published *published, lore_error *err)
{
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    char path[LORE_INDEX_PATH_CAP];
    lore_index_file_path(index, "vec", view->collection, published->generation, path);
    lore_status status =
        lore_vec_file_write(path, view->parts, view->part_count, dim, published, err);
    if (status != LORE_OK || !wants_ann(index, view)) {
        return status;
    }
    int64_t threads = index->config->threads > 0 ? index->config->threads : lore_cpu_count();
    lore_index_file_path(index, "ann", view->collection, published->generation, path);
    return lore_ann_write(path, view->parts, view->part_count, dim, (int32_t)threads,
                          &published->ann_size, &published->ann_checksum, err);
}

static lore_status run_mark(lore_db *db, const lore_published *published, lore_error *err)
{
    static const char *const mark =
        "UPDATE collections SET generation=?2, base_sequence=?3, base_chunk=?4, vec_count=?5, "
        "vec_checksum=?6, ann_size=?7, ann_checksum=?8 WHERE id=?1";
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
    if (published->ann_size >= 0) {
        lore_bind_int(stmt, 7, published->ann_size);
        lore_bind_int(stmt, 8, (int64_t)published->ann_checksum);
    }
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

static lore_status publish_view(lore_index *index, const lore_snapshot *snapshot,
                                const lore_vectors *view, lore_error *err)
{
    lore_published next = {.collection = view->collection,
                           .generation = view->published.generation + 1,
                           .sequence = snapshot->sequence,
                           .chunk = snapshot->next_chunk - 1,
                           .ann_size = -1};
    lore_status status = write_files(index, view, &next, err);
    return status == LORE_OK ? move_mark(index->writer, &next, err) : status;
}

/* ---- strays ---- */

static bool is_current(const lore_index *index, const lore_snapshot *snapshot, lore_str name)
{
    char path[LORE_INDEX_PATH_CAP];
    for (int32_t i = 0; i < snapshot->view_count; i++) {
        const lore_published *published = &snapshot->views[i]->published;
        if (published->generation == 0) {
            continue;
        }
        lore_index_file_path(index, "vec", published->collection, published->generation, path);
        bool is_named = lore_str_equal(name, lore_str_from(strrchr(path, '/') + 1));
        if (published->ann_size >= 0 && !is_named) {
            lore_index_file_path(index, "ann", published->collection, published->generation, path);
            is_named = lore_str_equal(name, lore_str_from(strrchr(path, '/') + 1));
        }
        if (is_named) {
            return true;
        }
    }
    return false;
}

/* Whatever looks like a derived file and belongs to no mark. Failing to remove one only wastes
 * space. */
static void remove_strays(const lore_index *index, const lore_snapshot *snapshot)
{
    lore_arena arena;
    lore_error err;
    lore_str *names = NULL;
    size_t count = 0;
    lore_arena_init(&arena, 0);
    lore_status status = lore_dir_list(&arena, index->folder, NAMES_MAX, &names, &count, &err);
    if (status != LORE_OK) {
        lore_log(LORE_LOG_WARN, "event=index_strays_kept reason=\"%s\"", err.message);
        count = 0;
    }
    for (size_t i = 0; i < count; i++) {
        bool is_derived = lore_str_starts(names[i], LORE_STR("vec-")) ||
                          lore_str_starts(names[i], LORE_STR("ann-"));
        if (!is_derived || is_current(index, snapshot, names[i])) {
            continue;
        }
        char path[LORE_INDEX_PATH_CAP];
        snprintf(path, sizeof path, "%s/" LORE_STR_FMT, index->folder, LORE_STR_ARG(names[i]));
        if (unlink(path) != 0) {
            lore_log(LORE_LOG_WARN, "event=index_stray_kept path=\"%s\" reason=\"%s\"", path,
                     strerror(errno));
        }
    }
    lore_arena_destroy(&arena);
}

/* ---- all collections ---- */

static lore_status publish_views(lore_index *index, const lore_snapshot *snapshot, bool is_repair,
                                 bool *has_moved, lore_error *err)
{
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < snapshot->view_count && status == LORE_OK; i++) {
        const lore_vectors *view = snapshot->views[i];
        bool is_needed = needs_publishing(index, view) || (is_repair && view->is_damaged);
        if (!is_needed) {
            status = has_long_log(index, view, &is_needed, err);
        }
        /* Without vectors there is nothing to put into a file, not even their length. */
        bool has_dim = atomic_load_explicit(&index->dim, memory_order_relaxed) > 0;
        if (status == LORE_OK && is_needed && has_dim) {
            status = publish_view(index, snapshot, view, err);
            *has_moved = *has_moved || status == LORE_OK;
        }
    }
    return status;
}

lore_status lore_index_publish_all(lore_index *index, bool is_repair, lore_error *err)
{
    LORE_ASSERT(index->is_writer);
    LORE_ASSERT(!index->is_open);
    if (!lore_db_rollback(index->writer)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory rolling back");
    }
    bool has_moved = false;
    lore_snapshot *snapshot = lore_index_acquire(index);
    lore_status status = publish_views(index, snapshot, is_repair, &has_moved, err);
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
    if (status == LORE_OK && (has_moved || is_repair)) {
        snapshot = lore_index_acquire(index);
        remove_strays(index, snapshot);
        lore_snapshot_release(snapshot);
    }
    return status;
}

lore_status lore_index_publish(lore_index *index, lore_error *err)
{
    return lore_index_publish_all(index, false, err);
}
