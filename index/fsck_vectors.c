/* The vectors of a collection, each by itself and against the files that were made of them.
 *
 * SQLite has no checksums of rows: that a vector is of unit length notices most of what a bad disk
 * does to it, and the vector file, which has one, notices the rest. */
#include "index/fsck_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct vector_walk {
    const lore_collection_state *state;
    const lore_segment *file; /* NULL: none, or none that can be used */
    int64_t row;              /* of the file, next to be met */
    lore_segment *fresh;      /* room for one row */
    float *wide;
    bool is_stale; /* the file is not what the rows give */
} vector_walk;

/* f16 to f32; false where it is no vector of unit length. */
static bool widen(lore_str data, int32_t dim, float *wide)
{
    const double tolerance = .02; /* f16 rounds each number by a two thousandth at most */
    double sum = 0;
    if (data.len != (size_t)dim * sizeof(uint16_t)) {
        return false;
    }
    for (int32_t i = 0; i < dim; i++) {
        uint16_t half;
        memcpy(&half, data.ptr + (size_t)i * sizeof half, sizeof half);
        wide[i] = lore_f16_to_f32(half);
        sum += (double)wide[i] * (double)wide[i];
    }
    return fabs(sqrt(sum) - 1) <= tolerance; /* false for NaN, too */
}

/* A row of the file whose vector is gone must have died since the file was made. */
static lore_status is_dead(lore_fsck_run *run, const vector_walk *walk, int64_t chunk, bool *is,
                           lore_error *err)
{
    static const char *const sql =
        "SELECT EXISTS(SELECT 1 FROM deletions WHERE collection=?1 AND sequence>?2 AND "
        "first_chunk<=?3 AND first_chunk+chunk_count>?3)";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(run->db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, walk->state->published.collection);
        lore_bind_int(stmt, 2, walk->state->published.sequence);
        lore_bind_int(stmt, 3, chunk);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK) {
        *is = has_row && lore_column_int(stmt, 0) != 0;
        lore_stmt_reset(stmt);
    }
    return status;
}

/* Rows of the file before this chunk id have no vector. */
static lore_status pass_dead(lore_fsck_run *run, vector_walk *walk, int64_t chunk, lore_error *err)
{
    lore_status status = LORE_OK;
    while (status == LORE_OK && !walk->is_stale && walk->row < walk->file->count &&
           walk->file->ids[walk->row] < chunk) {
        bool is = false;
        status = is_dead(run, walk, walk->file->ids[walk->row++], &is, err);
        walk->is_stale = status == LORE_OK && !is;
    }
    return status;
}

static lore_status compare(lore_fsck_run *run, vector_walk *walk, int64_t chunk, lore_error *err)
{
    lore_status status = pass_dead(run, walk, chunk, err);
    if (status != LORE_OK || walk->is_stale || chunk > walk->state->published.chunk) {
        return status;
    }
    bool is_there = walk->row < walk->file->count && walk->file->ids[walk->row] == chunk;
    walk->fresh->count = 0;
    lore_segment_push(walk->fresh, chunk, -1, walk->wide);
    const int8_t *row = walk->file->rows + walk->row * run->dim;
    walk->is_stale = !is_there || memcmp(row, walk->fresh->rows, (size_t)run->dim) != 0 ||
                     walk->file->scales[walk->row] != walk->fresh->scales[0];
    walk->row++;
    return LORE_OK;
}

static lore_status note_damaged(lore_fsck_run *run, int64_t chunk, lore_error *err)
{
    static const char *const sql = "SELECT document FROM chunks WHERE id=?1";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(run->db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, chunk);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status != LORE_OK || !has_row) {
        return status; /* of no chunk: noted elsewhere */
    }
    int64_t document = lore_column_int(stmt, 0);
    lore_stmt_reset(stmt);
    return lore_fsck_found_in(run, LORE_FSCK_VECTOR_DAMAGED, document, LORE_FSCK_UNCUT, err);
}

static lore_status walk_vectors(lore_fsck_run *run, vector_walk *walk, lore_error *err)
{
    static const char *const sql =
        "SELECT chunk, data FROM vectors WHERE collection=?1 ORDER BY chunk";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(run->db, sql, &stmt, err);
    bool has_row = true;
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, walk->state->published.collection);
    }
    while (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            break;
        }
        int64_t chunk = lore_column_int(stmt, 0);
        run->vectors++;
        if (!widen(lore_column_bytes(stmt, 1), run->dim, walk->wide)) {
            status = note_damaged(run, chunk, err);
        } else if (walk->file != NULL && !walk->is_stale) {
            status = compare(run, walk, chunk, err);
        }
    }
    lore_stmt_reset(stmt);
    if (status == LORE_OK && walk->file != NULL && !walk->is_stale) {
        status = pass_dead(run, walk, INT64_MAX, err);
    }
    return status;
}

/* ---- files ---- */

/* Where somebody writes meanwhile, the file of this moment may have made way for the next one. */
static lore_status has_moved(lore_fsck_run *run, const lore_published *published, bool *has,
                             lore_error *err)
{
    static const char *const sql =
        "SELECT generation, ifnull(ann_checksum, 0) FROM collections WHERE id=?1";
    lore_db *db = NULL;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    *has = false;
    if (run->is_held) {
        return LORE_OK;
    }
    lore_status status = lore_db_open(run->path, false, &db, err);
    if (status == LORE_OK) {
        status = lore_db_statement(db, sql, &stmt, err);
    }
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, published->collection);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK) {
        *has = !has_row || lore_column_int(stmt, 0) != published->generation ||
               (uint64_t)lore_column_int(stmt, 1) != published->ann_checksum;
    }
    lore_db_close(db);
    return status;
}

static lore_status note_file(lore_fsck_run *run, lore_fsck_kind kind,
                             const lore_published *published, const char *path, const char *why,
                             lore_error *err)
{
    bool has = false;
    lore_status status = has_moved(run, published, &has, err);
    if (status != LORE_OK || has) {
        return status;
    }
    const char *name = strrchr(path, '/') + 1;
    lore_str subject = why == NULL
                           ? lore_str_printf(run->arena, "%s (not made of these rows)", name)
                           : lore_str_printf(run->arena, "%s (%s)", name, why);
    return lore_fsck_found(run, kind, subject, err);
}

/* Missing and damaged files are findings; what keeps us from looking is a failure. */
static lore_status note_unusable(lore_fsck_run *run, lore_fsck_kind kind,
                                 const lore_published *published, const char *path,
                                 lore_status status, const lore_error *why, lore_error *err)
{
    if (status == LORE_ERR_NOT_FOUND || status == LORE_ERR_CORRUPT) {
        const char *words = status == LORE_ERR_NOT_FOUND ? "missing" : "damaged";
        return note_file(run, kind, published, path, words, err);
    }
    return status == LORE_OK ? status : lore_fail(err, status, "%s", why->message);
}

static lore_status open_file(lore_fsck_run *run, const lore_published *published, const char *path,
                             lore_segment **file, lore_error *err)
{
    lore_error why;
    if (published->generation == 0) {
        return LORE_OK;
    }
    run->files++;
    lore_status status = lore_vec_file_open(path, published, run->dim, file, &why);
    return note_unusable(run, LORE_FSCK_VECTOR_FILE, published, path, status, &why, err);
}

static lore_status look_at_inverted(lore_fsck_run *run, const lore_published *published,
                                    lore_error *err)
{
    char path[LORE_INDEX_PATH_CAP];
    lore_ann *ann = NULL;
    lore_error why;
    if (published->ann_size < 0) {
        return LORE_OK;
    }
    run->files++;
    snprintf(path, sizeof path, "%s/ann-%lld.ivf", run->folder, (long long)published->collection);
    lore_status status = lore_ann_open(path, published, run->dim, &ann, &why);
    lore_ann_release(ann);
    return note_unusable(run, LORE_FSCK_INVERTED_FILE, published, path, status, &why, err);
}

lore_status lore_fsck_vectors(lore_fsck_run *run, const lore_collection_state *state,
                              lore_error *err)
{
    const lore_published *published = &state->published;
    char path[LORE_INDEX_PATH_CAP];
    vector_walk walk = {.state = state};
    lore_segment *file = NULL;
    if (run->dim == 0) {
        return LORE_OK; /* no vectors yet, or ones that a rule has noted */
    }
    snprintf(path, sizeof path, "%s/vec-%lld-%lld.i8", run->folder,
             (long long)published->collection, (long long)published->generation);
    lore_status status = open_file(run, published, path, &file, err);
    if (status == LORE_OK) {
        status = lore_segment_new(1, run->dim, &walk.fresh, err);
    }
    walk.wide = lore_alloc((size_t)run->dim * sizeof *walk.wide);
    if (status == LORE_OK && walk.wide == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for a vector");
    }
    walk.file = file;
    if (status == LORE_OK) {
        status = walk_vectors(run, &walk, err);
    }
    if (status == LORE_OK && walk.is_stale) {
        status = note_file(run, LORE_FSCK_VECTOR_FILE, published, path, NULL, err);
    }
    lore_free(walk.wide);
    lore_segment_release(walk.fresh);
    lore_segment_release(file);
    return status == LORE_OK ? look_at_inverted(run, published, err) : status;
}
