/* The second look at what a scan has found: products with the vectors of the database.
 *
 * int8 rows and an int8 query change a score by some ten thousandths, which is as much as the
 * scores of neighbours differ by: of the ten best one in ninety is another (docs/evaluation.md). So
 * the best few are read from the database, 2 bytes a number, and ordered anew. They come by their
 * keys in one read transaction, some microseconds each while the system holds the pages; a second
 * file of them would be 768 bytes a row of dim 384, for the tenth part of a search. */
#include "index/index_int.h"

#include <string.h>

enum { SUMS = 8 }; /* side by side, so that none waits for the one before */

static float product(const float *query, const char *half, int32_t dim)
{
    float sums[SUMS] = {0};
    for (int32_t i = 0; i < dim; i++) {
        uint16_t bits;
        memcpy(&bits, half + sizeof bits * (size_t)i, sizeof bits);
        sums[i % SUMS] += query[i] * lore_f16_to_f32(bits);
    }
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
           ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

static lore_status rescore_one(lore_stmt *stmt, const lore_scan *scan, lore_candidate *item,
                               lore_error *err)
{
    bool has_row = false;
    const size_t size = (size_t)scan->dim * sizeof(uint16_t);
    lore_bind_int(stmt, 1, item->chunk);
    lore_status status = lore_stmt_step(stmt, &has_row, err);
    if (status != LORE_OK || !has_row) {
        return status;
    }
    lore_str half = lore_column_bytes(stmt, 0);
    if (half.len == size) {
        item->score = product(scan->exact, half.ptr, scan->dim);
    } else {
        status = lore_fail(err, LORE_ERR_CORRUPT, "the vector of chunk %lld has %zu bytes, not %zu",
                           (long long)item->chunk, half.len, size);
    }
    lore_stmt_reset(stmt);
    return status;
}

/* Are the vectors of the database still those of the query's encoder? Another process may have
 * exchanged them (reembed.h), and a snapshot outlives that. encoder NULL: whose they are does not
 * matter. */
static lore_status is_of_encoder(lore_db *db, const char *encoder, bool *is_it, lore_error *err)
{
    static const char *const sql = "SELECT 1 FROM meta WHERE key='encoder' AND value=?1";
    lore_stmt *stmt = NULL;
    *is_it = true;
    if (encoder == NULL) {
        return LORE_OK;
    }
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_text(stmt, 1, lore_str_from(encoder));
        status = lore_stmt_step(stmt, is_it, err);
        lore_stmt_reset(stmt);
    }
    return status;
}

lore_status lore_rescore(lore_db *db, const char *encoder, const lore_scan *scan,
                         lore_candidate *items, int32_t count, lore_error *err)
{
    lore_stmt *stmt = NULL;
    bool is_it = false;
    lore_status status = lore_db_exec(db, "BEGIN", err); /* one for all: each would cost locks */
    if (status == LORE_OK) {
        status = is_of_encoder(db, encoder, &is_it, err);
    }
    count = is_it ? count : 0;
    if (status == LORE_OK) {
        status = lore_db_statement(db, "SELECT data FROM vectors WHERE chunk=?1", &stmt, err);
    }
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        status = rescore_one(stmt, scan, &items[i], err);
    }
    return status == LORE_OK ? lore_db_exec(db, "COMMIT", err) : status;
}
