/* Documents that nearly repeat another one of their collection: found when they are written.
 *
 * `sketches` holds what is known of each document's text, `bands` leads from a part of a sketch to
 * the documents that share it. Both go with their document, in the same transaction. */
#include "index/near_int.h"

#include <string.h>

enum {
    CANDIDATES_MAX = 64
}; /* of one band: a text that stands in a thousand documents has enough */

/* The sketch as it is stored: two bytes a value, in the order of this machine. */
static bool read_sketch(lore_str data, lore_sketch *sketch)
{
    sketch->is_empty = data.len != sizeof sketch->values;
    if (!sketch->is_empty) {
        memcpy(sketch->values, data.ptr, sizeof sketch->values);
    }
    return !sketch->is_empty;
}

/* Look through the documents of one band for a nearer one than *share; ids ascend, so of equally
 * near ones it is the oldest. */
static lore_status search_band(lore_db *db, int64_t collection, const lore_sketch *sketch,
                               int32_t band, double *share, int64_t *near, lore_error *err)
{
    static const char *const sql = "SELECT s.document, s.data FROM bands b JOIN sketches s ON "
                                   "s.document=b.document WHERE b.collection=?1 AND b.key=?2 "
                                   "ORDER BY b.document LIMIT ?3";
    lore_stmt *stmt = NULL;
    bool has_row = true;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, collection);
    lore_bind_int(stmt, 2, lore_sketch_band(sketch, band));
    lore_bind_int(stmt, 3, CANDIDATES_MAX);
    while (has_row) {
        status = lore_stmt_step(stmt, &has_row, err);
        lore_sketch other;
        if (status != LORE_OK || !has_row || !read_sketch(lore_column_bytes(stmt, 1), &other)) {
            continue;
        }
        int64_t document = lore_column_int(stmt, 0);
        double found = lore_sketch_share(sketch, &other);
        if (found > *share || (found == *share && document < *near)) {
            *share = found;
            *near = document;
        }
    }
    return status;
}

lore_status lore_near_find(lore_db *db, int64_t collection, const lore_sketch *sketch,
                           int64_t *near, lore_error *err)
{
    double share = 0;
    lore_status status = LORE_OK;
    *near = 0;
    for (int32_t i = 0; i < LORE_SKETCH_BANDS && status == LORE_OK && !sketch->is_empty; i++) {
        status = search_band(db, collection, sketch, i, &share, near, err);
    }
    *near = share >= LORE_SKETCH_NEAR ? *near : 0;
    return status;
}

static lore_status change_bands(lore_db *db, const char *sql, int64_t collection, int64_t document,
                                const lore_sketch *sketch, lore_error *err)
{
    lore_stmt *stmt = NULL;
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < LORE_SKETCH_BANDS && status == LORE_OK; i++) {
        status = lore_db_statement(db, sql, &stmt, err);
        if (status == LORE_OK) {
            lore_bind_int(stmt, 1, collection);
            lore_bind_int(stmt, 2, lore_sketch_band(sketch, i));
            lore_bind_int(stmt, 3, document);
            status = lore_stmt_run(stmt, err);
        }
    }
    return status;
}

lore_status lore_near_insert(lore_db *db, int64_t collection, int64_t document,
                             const lore_sketch *sketch, lore_error *err)
{
    static const char *const insert = "INSERT INTO sketches(document, data) VALUES(?1, ?2)";
    static const char *const bands = "INSERT INTO bands(collection, key, document) "
                                     "VALUES(?1, ?2, ?3)";
    lore_stmt *stmt = NULL;
    if (sketch->is_empty) {
        return LORE_OK;
    }
    lore_status status = lore_db_statement(db, insert, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, document);
        lore_bind_blob(stmt, 2, sketch->values, sizeof sketch->values);
        status = lore_stmt_run(stmt, err);
    }
    return status == LORE_OK ? change_bands(db, bands, collection, document, sketch, err) : status;
}

lore_status lore_near_remove(lore_db *db, int64_t collection, int64_t document, lore_error *err)
{
    static const char *const select = "SELECT data FROM sketches WHERE document=?1";
    static const char *const remove = "DELETE FROM sketches WHERE document=?1";
    static const char *const bands = "DELETE FROM bands WHERE collection=?1 AND key=?2 AND "
                                     "document=?3";
    lore_sketch sketch = {.is_empty = true};
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(db, select, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, document);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK && has_row) {
        (void)read_sketch(lore_column_bytes(stmt, 0), &sketch);
        lore_stmt_reset(stmt);
    }
    if (status == LORE_OK && !sketch.is_empty) {
        status = change_bands(db, bands, collection, document, &sketch, err);
    }
    if (status == LORE_OK && has_row) {
        status = lore_db_statement(db, remove, &stmt, err);
    }
    if (status == LORE_OK && has_row) {
        lore_bind_int(stmt, 1, document);
        status = lore_stmt_run(stmt, err);
    }
    return status;
}
