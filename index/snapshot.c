/* The current snapshot: who makes the next one, who may see which, and the readers' connections.
 *
 * Invariants:
 * 1. index->current is always a whole snapshot; it is replaced under the lock, by one pointer.
 * 2. One thread at a time refreshes (is_refreshing); it works without the lock and may read
 * `current` freely, because nobody else replaces it.
 * 3. A snapshot is made inside one read transaction, so it is the state of one commit.
 * 4. A commit of this process refreshes before it returns; a commit of another process is noticed
 * by acquire, which compares sequence numbers. A refresh that fails leaves the old snapshot and
 * is_stale, and the next acquire tries again.
 *
 * A thread holds at most one reader: the pool is bounded, and two threads with one each, wanting
 * another, would wait for ever. */
#include "index/index_int.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

enum {
    READERS_MAX =
        32, /* connections at once; each is three file descriptors and up to 8 MiB of cache */
    READERS_IDLE_MAX = 8,    /* kept open */
    READER_WAIT_MS = 30000,  /* for one of them to become free */
    REFRESH_ATTEMPTS_MAX = 4 /* while another process publishes under our feet */
};

/* ---- readers ---- */

static void reader_close(lore_reader *reader)
{
    if (reader != NULL) {
        lore_scan_close(&reader->scan);
        lore_db_close(reader->db);
        lore_free(reader);
    }
}

static lore_status reader_open(lore_index *index, lore_reader **reader, lore_error *err)
{
    lore_reader *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a reader of the index");
    }
    lore_status status = lore_db_open(index->path, false, &made->db, err);
    if (status != LORE_OK) {
        lore_free(made);
        return status;
    }
    *reader = made;
    return LORE_OK;
}

lore_status lore_reader_take(lore_index *index, lore_reader **reader, lore_error *err)
{
    int64_t deadline = lore_clock_ns() + (int64_t)READER_WAIT_MS * 1000000;
    lore_lock_acquire(&index->lock);
    while (index->idle == NULL && index->reader_count == READERS_MAX) {
        if (!lore_lock_wait(&index->lock, deadline)) {
            lore_lock_release(&index->lock);
            return lore_fail(err, LORE_ERR_BUSY, "all %d readers of the index are busy",
                             READERS_MAX);
        }
    }
    lore_reader *taken = index->idle;
    if (taken != NULL) {
        index->idle = taken->next;
        index->idle_count--;
    } else {
        index->reader_count++;
    }
    lore_lock_release(&index->lock);
    if (taken == NULL) {
        lore_status status = reader_open(index, &taken, err);
        if (status != LORE_OK) {
            lore_lock_acquire(&index->lock);
            index->reader_count--;
            lore_lock_wake_all(&index->lock);
            lore_lock_release(&index->lock);
            return status;
        }
    }
    *reader = taken;
    return LORE_OK;
}

void lore_reader_give(lore_index *index, lore_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    bool is_clean = lore_db_rollback(reader->db);
    lore_fts_allow(lore_db_fts(reader->db), NULL);
    lore_lock_acquire(&index->lock);
    bool is_kept = is_clean && index->idle_count < READERS_IDLE_MAX;
    if (is_kept) {
        reader->next = index->idle;
        index->idle = reader;
        index->idle_count++;
    } else {
        index->reader_count--;
    }
    lore_lock_wake_all(&index->lock);
    lore_lock_release(&index->lock);
    if (!is_kept) {
        reader_close(reader);
    }
}

void lore_reader_close_all(lore_index *index)
{
    LORE_ASSERT(index->idle_count == index->reader_count); /* a search is still running */
    while (index->idle != NULL) {
        lore_reader *reader = index->idle;
        index->idle = reader->next;
        reader_close(reader);
    }
    index->idle_count = index->reader_count = 0;
}

lore_status lore_reader_take_scan(lore_index *index, lore_reader **reader, lore_error *err)
{
    lore_reader *taken = NULL;
    if (index->backend == NULL) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED, "the index was opened without dense search");
    }
    lore_status status = lore_reader_take(index, &taken, err);
    if (status != LORE_OK) {
        return status;
    }
    if (taken->scan.queue == NULL) {
        int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
        status = lore_scan_open(&taken->scan, index->backend, dim, err);
    }
    if (status != LORE_OK) {
        lore_reader_give(index, taken);
        return status;
    }
    *reader = taken;
    return LORE_OK;
}

/* ---- snapshots ---- */

static lore_snapshot *snapshot_new(lore_index *index, int32_t view_cap)
{
    lore_snapshot *made = lore_alloc_zero(1, sizeof *made);
    lore_vectors **views = lore_alloc_zero((size_t)view_cap, sizeof(lore_vectors *));
    if (made == NULL || views == NULL) {
        lore_free(made);
        lore_free(views);
        return NULL;
    }
    atomic_init(&made->references, 1);
    made->index = index;
    made->views = views;
    return made;
}

void lore_snapshot_release(lore_snapshot *snapshot)
{
    if (snapshot == NULL ||
        atomic_fetch_sub_explicit(&snapshot->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    for (int32_t i = 0; i < snapshot->view_count; i++) {
        lore_vectors_release(snapshot->views[i]);
    }
    lore_free(snapshot->views);
    lore_free(snapshot);
}

int64_t lore_snapshot_sequence(const lore_snapshot *snapshot)
{
    return snapshot->sequence;
}

int64_t lore_snapshot_chunks(const lore_snapshot *snapshot)
{
    return snapshot->chunks;
}

/* ---- making the next one ---- */

static void read_state(lore_stmt *stmt, lore_collection_state *state)
{
    memset(state, 0, sizeof *state);
    lore_str name = lore_column_bytes(stmt, 1);
    snprintf(state->name, sizeof state->name, LORE_STR_FMT, LORE_STR_ARG(name));
    state->changed = lore_column_int(stmt, 2);
    state->chunks = lore_column_int(stmt, 3);
    state->published.collection = lore_column_int(stmt, 0);
    state->published.generation = lore_column_int(stmt, 4);
    state->published.sequence = lore_column_int(stmt, 5);
    state->published.chunk = lore_column_int(stmt, 6);
    state->published.count = lore_column_int(stmt, 7);
    state->published.checksum = (uint64_t)lore_column_int(stmt, 8);
    state->published.ann_size = lore_column_is_null(stmt, 9) ? -1 : lore_column_int(stmt, 9);
    state->published.ann_checksum = (uint64_t)lore_column_int(stmt, 10);
}

lore_status lore_collection_states(lore_db *db, lore_collection_state **states, int32_t *count,
                                   lore_error *err)
{
    static const char *const sql =
        "SELECT id, name, changed, chunks, generation, base_sequence, base_chunk, vec_count, "
        "vec_checksum, ann_size, ann_checksum FROM collections ORDER BY id";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    lore_collection_state *list = NULL;
    int32_t have = 0, cap = 0;
    while (status == LORE_OK) {
        bool has_row = false;
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            break;
        }
        if (have == cap) {
            cap = cap == 0 ? 8 : 2 * cap;
            lore_collection_state *grown = lore_realloc(list, (size_t)cap * sizeof *list);
            if (grown == NULL) {
                lore_stmt_reset(stmt);
                status = lore_fail(err, LORE_ERR_NOMEM, "out of memory reading collections");
                break;
            }
            list = grown;
        }
        read_state(stmt, &list[have++]);
    }
    if (status != LORE_OK) {
        lore_free(list);
        return status;
    }
    *states = list;
    *count = have;
    return LORE_OK;
}

static lore_status read_meta(lore_index *index, lore_db *db, lore_snapshot *next, lore_error *err)
{
    static const char *const sql = "SELECT key, value FROM meta";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    int64_t dim = 0;
    bool has_row = status == LORE_OK, is_foreign = false;
    while (status == LORE_OK && has_row) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            break;
        }
        lore_str key = lore_column_bytes(stmt, 0);
        if (lore_str_equal(key, LORE_STR("sequence"))) {
            next->sequence = lore_column_int(stmt, 1);
        } else if (lore_str_equal(key, LORE_STR("next_chunk"))) {
            next->next_chunk = lore_column_int(stmt, 1);
        } else if (lore_str_equal(key, LORE_STR("dim"))) {
            dim = lore_column_int(stmt, 1);
        } else if (lore_str_equal(key, LORE_STR("encoder")) && index->encoder != NULL) {
            is_foreign = !lore_str_equal(lore_column_bytes(stmt, 1), lore_str_from(index->encoder));
        }
    }
    if (status == LORE_OK && dim > 0) {
        int32_t known = atomic_load_explicit(&index->dim, memory_order_relaxed);
        if (is_foreign || (known != 0 && known != dim)) {
            return lore_fail(err, LORE_ERR_INVALID, "'%s' now holds the vectors of another encoder",
                             index->path);
        }
        atomic_store_explicit(&index->dim, (int32_t)dim, memory_order_relaxed);
    }
    return status;
}

const lore_vectors *lore_snapshot_view(const lore_snapshot *snapshot, int64_t collection)
{
    for (int32_t i = 0; snapshot != NULL && i < snapshot->view_count; i++) {
        if (snapshot->views[i]->collection == collection) {
            return snapshot->views[i];
        }
    }
    return NULL;
}

/* The view of one collection: shared with the old snapshot, advanced from it, or loaded. */
static lore_status next_view(lore_index *index, lore_db *db, const lore_snapshot *old,
                             const lore_collection_state *state, bool may_rebuild,
                             lore_vectors **view, lore_error *err)
{
    const lore_vectors *known = lore_snapshot_view(old, state->published.collection);
    if (known == NULL || known->published.generation != state->published.generation) {
        return lore_vectors_load(index, db, state, known, may_rebuild, view, err);
    }
    if (known->changed == state->changed) {
        *view = lore_vectors_acquire((lore_vectors *)(uintptr_t)known);
        return LORE_OK;
    }
    return lore_vectors_advance(index, db, known, state, old->sequence, old->next_chunk, view, err);
}

static lore_status make_snapshot(lore_index *index, lore_db *db, bool may_rebuild,
                                 lore_snapshot **snapshot, lore_error *err)
{
    lore_collection_state *states = NULL;
    int32_t count = 0;
    lore_status status = lore_collection_states(db, &states, &count, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_snapshot *made = snapshot_new(index, count);
    if (made == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for a snapshot");
    } else {
        status = read_meta(index, db, made, err);
    }
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        status =
            next_view(index, db, index->current, &states[i], may_rebuild, &made->views[i], err);
        if (status == LORE_OK) {
            made->view_count++;
            made->chunks += states[i].chunks;
        }
    }
    lore_free(states);
    if (status != LORE_OK) {
        lore_snapshot_release(made);
        return status;
    }
    *snapshot = made;
    return LORE_OK;
}

static lore_status read_sequence(lore_db *db, int64_t *sequence, lore_error *err)
{
    static const char *const sql = "SELECT value FROM meta WHERE key='sequence'";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK && has_row) {
        *sequence = lore_column_int(stmt, 0);
        lore_stmt_reset(stmt);
    }
    return status;
}

/* A file may vanish between reading its mark and opening it, when another process publishes: then
 * the mark has moved on and the next attempt finds the new file. Where the mark stands still the
 * file is really lost. */
static lore_status try_refresh(lore_index *index, lore_db *db, lore_snapshot **snapshot,
                               lore_error *err)
{
    int64_t seen = -1;
    lore_status status = LORE_OK;
    for (int32_t attempt = 0; attempt < REFRESH_ATTEMPTS_MAX; attempt++) {
        int64_t sequence = 0;
        status = lore_db_exec(db, "BEGIN", err);
        if (status == LORE_OK) {
            status = read_sequence(db, &sequence, err);
        }
        bool may_rebuild = sequence == seen || attempt + 1 == REFRESH_ATTEMPTS_MAX;
        if (status == LORE_OK) {
            status = make_snapshot(index, db, may_rebuild, snapshot, err);
        }
        (void)lore_db_rollback(db); /* reading only; the reader's giver looks again */
        if (status == LORE_OK || status == LORE_ERR_NOMEM || may_rebuild) {
            return status;
        }
        seen = sequence;
    }
    return status;
}

/* Until end_refresh nobody else replaces the current snapshot. */
static void begin_refresh(lore_index *index)
{
    lore_lock_acquire(&index->lock);
    while (index->is_refreshing) {
        (void)lore_lock_wait(&index->lock, 0); /* the refreshing thread always ends it */
    }
    index->is_refreshing = true;
    lore_lock_release(&index->lock);
}

/* next becomes the current one; NULL keeps it. */
static void end_refresh(lore_index *index, lore_snapshot *next, bool is_stale)
{
    lore_lock_acquire(&index->lock);
    lore_snapshot *old = index->current;
    if (next != NULL) {
        index->current = next;
    }
    index->is_stale = is_stale;
    index->is_refreshing = false;
    lore_lock_wake_all(&index->lock);
    lore_lock_release(&index->lock);
    if (next != NULL) {
        lore_snapshot_release(old);
        lore_device_wake(index->device);
    }
}

lore_status lore_index_refresh(lore_index *index, lore_error *err)
{
    begin_refresh(index);
    lore_reader *reader = NULL;
    lore_snapshot *next = NULL;
    lore_status status = lore_reader_take(index, &reader, err);
    if (status == LORE_OK) {
        status = try_refresh(index, reader->db, &next, err);
    }
    lore_reader_give(index, reader);
    end_refresh(index, next, status != LORE_OK);
    return status;
}

/* A copy of the current snapshot with one view exchanged. *next NULL: the collection is gone. */
static lore_status exchange_ann(lore_index *index, const lore_published *published, lore_ann *ann,
                                lore_snapshot **next, lore_error *err)
{
    const lore_snapshot *old = index->current;
    if (lore_snapshot_view(old, published->collection) == NULL) {
        return LORE_OK;
    }
    lore_snapshot *made = snapshot_new(index, old->view_count);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a snapshot");
    }
    made->sequence = old->sequence;
    made->next_chunk = old->next_chunk;
    made->chunks = old->chunks;
    for (int32_t i = 0; i < old->view_count; i++) {
        lore_vectors *view = old->views[i];
        lore_status status = LORE_OK;
        if (view->collection == published->collection) {
            status = lore_vectors_with_ann(view, published, ann, &made->views[i], err);
        } else {
            made->views[i] = lore_vectors_acquire(view);
        }
        if (status != LORE_OK) {
            lore_snapshot_release(made);
            return status;
        }
        made->view_count++;
    }
    *next = made;
    return LORE_OK;
}

lore_status lore_index_replace_ann(lore_index *index, const lore_published *published,
                                   lore_ann *ann, lore_error *err)
{
    lore_snapshot *next = NULL;
    begin_refresh(index);
    bool is_stale = index->is_stale; /* changed only by whoever refreshes: us */
    lore_status status = exchange_ann(index, published, ann, &next, err);
    end_refresh(index, next, is_stale);
    return status;
}

/* Has another process committed since? Only readers need to ask: while we hold the folder, nobody
 * else writes. */
static lore_status is_behind(lore_index *index, int64_t known, bool *out, lore_error *err)
{
    int64_t sequence = known;
    lore_reader *reader = NULL;
    lore_status status = lore_reader_take(index, &reader, err);
    if (status == LORE_OK) {
        status = read_sequence(reader->db, &sequence, err);
    }
    lore_reader_give(index, reader);
    *out = status == LORE_OK && sequence != known;
    return status;
}

lore_snapshot *lore_index_acquire(lore_index *index)
{
    lore_error err = {LORE_OK, ""};
    lore_status status = LORE_OK;
    lore_lock_acquire(&index->lock);
    bool must_refresh = index->is_stale;
    int64_t known = index->current->sequence;
    lore_lock_release(&index->lock);
    if (!must_refresh && !index->is_writer) {
        status = is_behind(index, known, &must_refresh, &err);
    }
    if (status == LORE_OK && must_refresh) {
        status = lore_index_refresh(index, &err);
    }
    if (status != LORE_OK) {
        lore_log(LORE_LOG_WARN, "event=index_refresh_failed reason=\"%s\"", err.message);
    }
    lore_lock_acquire(&index->lock);
    lore_snapshot *snapshot = index->current;
    atomic_fetch_add_explicit(&snapshot->references, 1, memory_order_relaxed);
    lore_lock_release(&index->lock);
    return snapshot;
}

/* ---- choosing collections ---- */

lore_status lore_snapshot_select(lore_snapshot *snapshot, const lore_search_options *options,
                                 lore_arena *arena, lore_vectors ***views, int32_t *count,
                                 lore_error *err)
{
    if (options->count > snapshot->index->config->limits.candidates_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "%d candidates are more than candidates_max (%lld)",
                         options->count, (long long)snapshot->index->config->limits.candidates_max);
    }
    if (options->collection_count == 0) {
        *views = snapshot->views;
        *count = snapshot->view_count;
        return LORE_OK;
    }
    lore_vectors **chosen = LORE_PUSH(arena, lore_vectors *, options->collection_count);
    if (chosen == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a search");
    }
    int32_t have = 0;
    for (int32_t i = 0; i < options->collection_count; i++) {
        lore_vectors *found = NULL;
        for (int32_t j = 0; j < snapshot->view_count && found == NULL; j++) {
            if (lore_str_equal(options->collections[i], lore_str_from(snapshot->views[j]->name))) {
                found = snapshot->views[j];
            }
        }
        if (found == NULL) {
            return lore_fail(err, LORE_ERR_NOT_FOUND, "no collection '" LORE_STR_FMT "'",
                             LORE_STR_ARG(options->collections[i]));
        }
        bool is_new = true; /* naming a collection twice searches it once */
        for (int32_t j = 0; j < have; j++) {
            is_new = is_new && chosen[j] != found;
        }
        if (is_new) {
            chosen[have++] = found;
        }
    }
    *views = chosen;
    *count = have;
    return LORE_OK;
}
