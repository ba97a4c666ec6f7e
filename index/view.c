/* One collection's vectors at one moment: the published base, the tail of segments committed since,
 * the dead of both.
 *
 * Invariants:
 * 1. A view never changes once it is in a snapshot; the next one shares its segments and dead sets.
 * 2. Chunk ids ascend from part to part: ids are handed out in order, and a part is what came after
 * the one before.
 * 3. Every vector of the collection that is in the database at the view's commit is live in exactly
 * one part.
 * 4. Each tail segment has at least twice the live rows of the next one, so thousands of small
 * commits leave a dozen segments, and each row is copied a logarithmic number of times. The base is
 * never merged here: publishing does that.
 *
 * 5. An inverted file, where there is one, holds every row up to its chunk id that was alive when
 * it was made; what died since is dead or gone in the parts.
 *
 * A view is loaded (the vector file, then the rows they do not cover) or advanced (the rows of the
 * commits since). Either way what is new comes from SQLite, in one read transaction, quantised from
 * the stored f16: both ways give the same bytes. */
#include "index/index_int.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

void lore_index_vec_path(const lore_index *index, int64_t collection, int64_t generation,
                         char path[LORE_INDEX_PATH_CAP])
{
    snprintf(path, LORE_INDEX_PATH_CAP, "%s/vec-%lld-%lld.i8", index->folder, (long long)collection,
             (long long)generation);
}

void lore_index_ann_path(const lore_index *index, int64_t collection,
                         char path[LORE_INDEX_PATH_CAP])
{
    snprintf(path, LORE_INDEX_PATH_CAP, "%s/ann-%lld.ivf", index->folder, (long long)collection);
}

/* ---- life ---- */

static lore_vectors *vectors_new(const lore_collection_state *state, int32_t part_cap)
{
    lore_vectors *made = lore_alloc_zero(1, sizeof *made);
    lore_part *parts = lore_alloc_zero((size_t)part_cap, sizeof *parts);
    if (made == NULL || parts == NULL) {
        lore_free(made);
        lore_free(parts);
        return NULL;
    }
    atomic_init(&made->references, 1);
    made->collection = state->published.collection;
    memcpy(made->name, state->name, sizeof made->name);
    made->changed = state->changed;
    made->chunks = state->chunks;
    made->published = state->published;
    made->parts = parts;
    return made;
}

lore_vectors *lore_vectors_acquire(lore_vectors *vectors)
{
    atomic_fetch_add_explicit(&vectors->references, 1, memory_order_relaxed);
    return vectors;
}

void lore_vectors_release(lore_vectors *vectors)
{
    if (vectors == NULL ||
        atomic_fetch_sub_explicit(&vectors->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    for (int32_t i = 0; i < vectors->part_count; i++) {
        lore_segment_release(vectors->parts[i].segment);
        lore_dead_release(vectors->parts[i].dead);
    }
    lore_ann_release(vectors->ann);
    lore_free(vectors->parts);
    lore_free(vectors);
}

static lore_status fail_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory for vectors");
}

/* ---- what the database has ---- */

static lore_status count_rows(lore_db *db, int64_t collection, int64_t first_chunk, int64_t *count,
                              lore_error *err)
{
    static const char *const sql = "SELECT count(*) FROM vectors WHERE collection=?1 AND chunk>=?2";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, collection);
    lore_bind_int(stmt, 2, first_chunk);
    status = lore_stmt_step(stmt, &has_row, err);
    if (status == LORE_OK) {
        *count = lore_column_int(stmt, 0);
        lore_stmt_reset(stmt);
    }
    return status;
}

/* The word counts of a row as FTS5 keeps them: a varint a column (7 bits a byte, high bits first).
 */
static int32_t sum_lengths(lore_str sizes)
{
    uint64_t sum = 0, value = 0;
    for (size_t i = 0; i < sizes.len; i++) {
        unsigned char byte = (unsigned char)sizes.ptr[i];
        value = value << 7 | (byte & 0x7f);
        if (byte < 0x80) {
            sum += value;
            value = 0;
        }
    }
    return sizes.len == 0 || sum > INT32_MAX ? -1 : (int32_t)sum;
}

static lore_status fill(lore_segment *segment, lore_stmt *stmt, int64_t cap, float *wide,
                        lore_error *err)
{
    size_t size = (size_t)segment->dim * sizeof(uint16_t);
    for (;;) {
        bool has_row = false;
        lore_status status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            return status;
        }
        lore_str half = lore_column_bytes(stmt, 1);
        if (half.len != size || segment->count == cap) {
            return lore_fail(err, LORE_ERR_CORRUPT,
                             "the vector of chunk %lld has %zu bytes, not %zu",
                             (long long)lore_column_int(stmt, 0), half.len, size);
        }
        for (int32_t i = 0; i < segment->dim; i++) {
            uint16_t bits;
            memcpy(&bits, half.ptr + 2 * i, sizeof bits);
            wide[i] = lore_f16_to_f32(bits);
        }
        int32_t length = sum_lengths(lore_column_bytes(stmt, 2));
        lore_segment_push(segment, lore_column_int(stmt, 0), length, wide);
    }
}

static lore_status select_rows(lore_db *db, int64_t collection, int64_t first_chunk,
                               lore_stmt **stmt, lore_error *err)
{
    char sql[256];
    snprintf(sql, sizeof sql,
             "SELECT v.chunk, v.data, s.sz FROM vectors v LEFT JOIN text_%lld_docsize s "
             "ON s.id=v.chunk WHERE v.collection=?1 AND v.chunk>=?2 ORDER BY v.chunk",
             (long long)collection);
    lore_status status = lore_stmt_new(db, sql, stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(*stmt, 1, collection);
        lore_bind_int(*stmt, 2, first_chunk);
    }
    return status;
}

/* A segment of the rows from first_chunk on, or NULL where there are none. */
static lore_status read_rows(lore_index *index, lore_db *db, int64_t collection,
                             int64_t first_chunk, lore_segment **segment, lore_error *err)
{
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    int64_t count = 0;
    lore_stmt *stmt = NULL;
    lore_segment *made = NULL;
    *segment = NULL;
    lore_status status = count_rows(db, collection, first_chunk, &count, err);
    if (status != LORE_OK || count == 0) {
        return status;
    }
    float *wide = lore_alloc((size_t)dim * sizeof(float));
    if (wide == NULL) {
        return fail_memory(err);
    }
    status = lore_segment_new(count, dim, &made, err);
    if (status == LORE_OK) {
        status = select_rows(db, collection, first_chunk, &stmt, err);
    }
    if (status == LORE_OK) {
        status = fill(made, stmt, count, wide, err);
    }
    lore_stmt_free(stmt);
    lore_free(wide);
    if (status != LORE_OK) {
        lore_segment_release(made);
        return status;
    }
    *segment = made;
    return LORE_OK;
}

/* ---- building a view ---- */

static lore_status add_rows(lore_index *index, lore_db *db, lore_vectors *view, int64_t first_chunk,
                            lore_error *err)
{
    lore_segment *segment = NULL;
    lore_status status = read_rows(index, db, view->collection, first_chunk, &segment, err);
    if (status != LORE_OK || segment == NULL) {
        return status;
    }
    view->parts[view->part_count++] = (lore_part){segment, NULL};
    return LORE_OK;
}

/* Mark what was deleted after a commit. Ids that no part knows (rows born and dead since) change
 * nothing. */
static lore_status apply_deletions(lore_db *db, lore_vectors *view, int64_t sequence,
                                   lore_error *err)
{
    static const char *const sql = "SELECT first_chunk, chunk_count FROM deletions "
                                   "WHERE collection=?1 AND sequence>?2";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    bool *is_own = lore_alloc_zero((size_t)view->part_count, sizeof *is_own);
    if (is_own == NULL) {
        return fail_memory(err);
    }
    bool has_row = true;
    lore_bind_int(stmt, 1, view->collection);
    lore_bind_int(stmt, 2, sequence);
    while (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            break;
        }
        int64_t first = lore_column_int(stmt, 0), count = lore_column_int(stmt, 1);
        for (int32_t i = 0; i < view->part_count && status == LORE_OK; i++) {
            status = lore_part_kill(&view->parts[i], first, count, &is_own[i], err);
        }
    }
    lore_stmt_reset(stmt);
    lore_free(is_own);
    return status;
}

static void drop_parts(lore_vectors *view, int32_t from)
{
    for (int32_t i = from; i < view->part_count; i++) {
        lore_segment_release(view->parts[i].segment);
        lore_dead_release(view->parts[i].dead);
    }
    view->part_count = from;
}

/* Restore invariant 4: merge the tail from the first segment that is too small for what follows it.
 */
static lore_status merge_tail(lore_index *index, lore_vectors *view, lore_error *err)
{
    int32_t first = view->has_base ? 1 : 0;
    while (view->part_count > first && lore_part_live(&view->parts[view->part_count - 1]) == 0) {
        drop_parts(view, view->part_count - 1);
    }
    if (view->part_count <= first) {
        return LORE_OK;
    }
    int32_t from = view->part_count - 1;
    int64_t live = lore_part_live(&view->parts[from]);
    while (from > first && lore_part_live(&view->parts[from - 1]) < 2 * live) {
        from--;
        live += lore_part_live(&view->parts[from]);
    }
    if (from == view->part_count - 1) {
        return LORE_OK;
    }
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    lore_segment *merged = NULL;
    lore_status status =
        lore_parts_merge(&view->parts[from], view->part_count - from, dim, &merged, err);
    if (status != LORE_OK) {
        return status;
    }
    drop_parts(view, from);
    view->parts[view->part_count++] = (lore_part){merged, NULL};
    return LORE_OK;
}

/* The published vector file. What cannot be used is left out and noted; only a lack of memory is a
 * failure. The inverted file is not opened here: rebuild.c does that in the background. */
static lore_status add_base(lore_index *index, lore_vectors *view, bool may_rebuild,
                            lore_error *err)
{
    const lore_published *published = &view->published;
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    char path[LORE_INDEX_PATH_CAP];
    lore_segment *base = NULL;
    lore_error why;
    lore_index_vec_path(index, view->collection, published->generation, path);
    lore_status status = lore_vec_file_open(path, published, dim, &base, &why);
    if (status != LORE_OK) {
        if (status == LORE_ERR_NOMEM || !may_rebuild) {
            return lore_fail(err, status, "%s", why.message);
        }
        lore_log(LORE_LOG_WARN, "event=index_file_unusable reason=\"%s\"", why.message);
        view->is_damaged = true;
        return LORE_OK;
    }
    view->parts[view->part_count++] = (lore_part){base, NULL};
    view->has_base = true;
    return LORE_OK;
}

lore_status lore_vectors_load(lore_index *index, lore_db *db, const lore_collection_state *state,
                              const lore_vectors *old, bool may_rebuild, lore_vectors **vectors,
                              lore_error *err)
{
    lore_vectors *view = vectors_new(state, 2);
    if (view == NULL) {
        return fail_memory(err);
    }
    view->ann = lore_ann_acquire(old == NULL ? NULL : old->ann);
    lore_status status = LORE_OK;
    if (state->published.generation > 0) {
        status = add_base(index, view, may_rebuild, err);
    }
    if (status == LORE_OK) {
        int64_t covered = view->has_base ? state->published.chunk + 1 : 0;
        status = add_rows(index, db, view, covered, err);
    }
    if (status == LORE_OK && view->has_base) {
        status = apply_deletions(db, view, state->published.sequence, err);
    }
    if (status != LORE_OK) {
        lore_vectors_release(view);
        return status;
    }
    *vectors = view;
    return LORE_OK;
}

static void share_parts(lore_vectors *view, const lore_vectors *old)
{
    view->has_base = old->has_base;
    view->is_damaged = old->is_damaged;
    for (int32_t i = 0; i < old->part_count; i++) {
        view->parts[i].segment = lore_segment_acquire(old->parts[i].segment);
        view->parts[i].dead = lore_dead_acquire(old->parts[i].dead);
    }
    view->part_count = old->part_count;
}

lore_status lore_vectors_advance(lore_index *index, lore_db *db, const lore_vectors *old,
                                 const lore_collection_state *state, int64_t sequence,
                                 int64_t next_chunk, lore_vectors **vectors, lore_error *err)
{
    lore_vectors *view = vectors_new(state, old->part_count + 1);
    if (view == NULL) {
        return fail_memory(err);
    }
    share_parts(view, old);
    view->ann = lore_ann_acquire(old->ann);
    lore_status status = apply_deletions(db, view, sequence, err);
    if (status == LORE_OK) {
        status = add_rows(index, db, view, next_chunk, err);
    }
    if (status == LORE_OK) {
        status = merge_tail(index, view, err);
    }
    if (status != LORE_OK) {
        lore_vectors_release(view);
        return status;
    }
    *vectors = view;
    return LORE_OK;
}

lore_status lore_vectors_with_ann(const lore_vectors *old, const lore_published *published,
                                  lore_ann *ann, lore_vectors **vectors, lore_error *err)
{
    lore_collection_state state = {
        .changed = old->changed, .chunks = old->chunks, .published = old->published};
    memcpy(state.name, old->name, sizeof state.name);
    lore_vectors *view = vectors_new(&state, old->part_count);
    if (view == NULL) {
        return fail_memory(err);
    }
    share_parts(view, old);
    view->ann = lore_ann_acquire(ann);
    view->published.ann_size = published->ann_size;
    view->published.ann_checksum = published->ann_checksum;
    *vectors = view;
    return LORE_OK;
}

/* ---- questions ---- */

int64_t lore_vectors_live(const lore_vectors *vectors)
{
    int64_t live = 0;
    for (int32_t i = 0; i < vectors->part_count; i++) {
        live += lore_part_live(&vectors->parts[i]);
    }
    return live;
}

int64_t lore_vectors_dead(const lore_vectors *vectors)
{
    int64_t dead = 0;
    for (int32_t i = 0; i < vectors->part_count; i++) {
        dead += vectors->parts[i].dead == NULL ? 0 : vectors->parts[i].dead->count;
    }
    return dead;
}

const lore_part *lore_vectors_find(const lore_vectors *vectors, int64_t chunk, int64_t *row)
{
    for (int32_t i = 0; i < vectors->part_count; i++) {
        const lore_part *part = &vectors->parts[i];
        int64_t last = part->segment->count - 1;
        if (last < 0 || chunk < part->segment->ids[0] || chunk > part->segment->ids[last]) {
            continue;
        }
        int64_t at = lore_segment_find(part->segment, chunk);
        if (at >= 0 && !lore_dead_has(part->dead, at)) {
            *row = at;
            return part;
        }
    }
    return NULL;
}
