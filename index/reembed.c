/* See reembed.h. `next_vectors` holds what is made beside; whose it is stands in `meta` as
 * next_encoder and next_dim. Rows whose chunk died meanwhile (an ingest between two runs) go with
 * the exchange: chunk ids are never used twice. */
#include "index/reembed.h"

#include "index/index_int.h"

#include <math.h>

static const char *const missing_sql =
    "SELECT count(*) FROM vectors WHERE chunk NOT IN (SELECT chunk FROM next_vectors)";

static lore_status begin_writing(lore_index *index, lore_error *err)
{
    LORE_ASSERT(index->is_writer && !index->is_open);
    if (!lore_db_rollback(index->writer)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory rolling back");
    }
    return lore_db_exec(index->writer, "BEGIN IMMEDIATE", err);
}

static lore_status end_writing(lore_index *index, lore_status status, lore_error *err)
{
    if (status == LORE_OK) {
        status = lore_db_exec(index->writer, "COMMIT", err);
    }
    if (status != LORE_OK) {
        (void)lore_db_rollback(index->writer); /* the next begin looks again */
    }
    return status;
}

/* Do these two rows of `meta` say this encoder? */
static lore_status is_encoder(lore_db *db, const char *encoder_key, const char *dim_key,
                              const char *encoder, int32_t dim, bool *is_it, lore_error *err)
{
    static const char *const sql = "SELECT (SELECT value FROM meta WHERE key=?1)=?3 AND "
                                   "(SELECT value FROM meta WHERE key=?2)=?4";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_text(stmt, 1, lore_str_from(encoder_key));
    lore_bind_text(stmt, 2, lore_str_from(dim_key));
    lore_bind_text(stmt, 3, lore_str_from(encoder));
    lore_bind_int(stmt, 4, dim);
    status = lore_stmt_step(stmt, &has_row, err);
    if (status == LORE_OK) {
        *is_it = has_row && lore_column_int(stmt, 0) != 0;
        lore_stmt_reset(stmt);
    }
    return status;
}

static lore_status begin_anew(lore_index *index, const char *encoder, int32_t dim, lore_error *err)
{
    lore_status status = begin_writing(index, err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_db_exec(index->writer, "DELETE FROM next_vectors", err);
    if (status == LORE_OK) {
        status = lore_meta_put(index->writer, LORE_STR("next_encoder"), encoder, 0, err);
    }
    if (status == LORE_OK) {
        status = lore_meta_put(index->writer, LORE_STR("next_dim"), NULL, dim, err);
    }
    return end_writing(index, status, err);
}

lore_status lore_reembed_begin(lore_index *index, const char *encoder, int32_t dim, bool *is_same,
                               int64_t *chunks, int64_t *left, lore_error *err)
{
    static const char *const all = "SELECT count(*) FROM vectors";
    lore_db *db = index->writer;
    bool is_begun = false;
    /* What makes files of the vectors in the background must not run into the exchange. */
    lore_rebuild_stop(index);
    lore_status status = is_encoder(db, "encoder", "dim", encoder, dim, is_same, err);
    if (status == LORE_OK && !*is_same) {
        status = is_encoder(db, "next_encoder", "next_dim", encoder, dim, &is_begun, err);
    }
    if (status == LORE_OK && !*is_same && !is_begun) {
        status = begin_anew(index, encoder, dim, err);
    }
    if (status == LORE_OK) {
        status = lore_db_number(db, all, chunks, err);
    }
    return status == LORE_OK ? lore_db_number(db, missing_sql, left, err) : status;
}

static lore_status read_chunk(lore_stmt *stmt, lore_arena *arena, lore_reembed_chunk *chunk,
                              lore_error *err)
{
    *chunk = (lore_reembed_chunk){
        .chunk = lore_column_int(stmt, 0),
        .title = lore_str_copy(arena, lore_column_bytes(stmt, 1)),
        .heading = lore_str_copy(arena, lore_column_bytes(stmt, 2)),
        .text = lore_str_copy(arena, lore_column_bytes(stmt, 3)),
    };
    bool has_memory =
        chunk->title.ptr != NULL && chunk->heading.ptr != NULL && chunk->text.ptr != NULL;
    return has_memory ? LORE_OK : lore_fail(err, LORE_ERR_NOMEM, "out of memory reading chunks");
}

lore_status lore_reembed_next(lore_index *index, int32_t limit, lore_arena *arena,
                              lore_reembed_chunk **chunks, int32_t *count, lore_error *err)
{
    /* In order of chunk, so the last one made says where to go on; documents that were written
     * since an interrupted run have higher ids. */
    static const char *const sql =
        "SELECT c.id, d.title, c.heading, substr(t.text, c.start+1, c.end-c.start) "
        "FROM vectors v JOIN chunks c ON c.id=v.chunk JOIN documents d ON d.id=c.document "
        "JOIN texts t ON t.document=d.id "
        "WHERE v.chunk>(SELECT ifnull(max(chunk), 0) FROM next_vectors) ORDER BY v.chunk LIMIT ?1";
    lore_stmt *stmt = NULL;
    lore_reembed_chunk *list = LORE_PUSH(arena, lore_reembed_chunk, limit);
    *count = 0;
    if (list == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory reading chunks");
    }
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, limit);
    }
    bool has_row = status == LORE_OK;
    while (status == LORE_OK && has_row) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status == LORE_OK && has_row) {
            status = read_chunk(stmt, arena, &list[*count], err);
            ++*count;
        }
    }
    lore_stmt_reset(stmt);
    *chunks = list;
    return status;
}

static lore_status insert(lore_db *db, int64_t chunk, const float *vector, uint16_t *half,
                          int32_t dim, lore_error *err)
{
    static const char *const sql = "INSERT OR REPLACE INTO next_vectors VALUES(?1, ?2)";
    lore_stmt *stmt = NULL;
    for (int32_t i = 0; i < dim; i++) {
        if (!isfinite(vector[i])) {
            return lore_fail(err, LORE_ERR_INVALID, "the vector of chunk %lld is not finite",
                             (long long)chunk);
        }
        half[i] = lore_f32_to_f16(vector[i]);
    }
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, chunk);
        lore_bind_blob(stmt, 2, half, (size_t)dim * sizeof *half);
        status = lore_stmt_run(stmt, err);
    }
    return status;
}

lore_status lore_reembed_put(lore_index *index, const lore_reembed_chunk *chunks,
                             const float *vectors, int32_t count, int32_t dim, lore_error *err)
{
    uint16_t *half = lore_alloc((size_t)dim * sizeof *half);
    if (half == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a vector");
    }
    lore_status status = begin_writing(index, err);
    const bool is_begun = status == LORE_OK;
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        status = insert(index->writer, chunks[i].chunk, vectors + (size_t)i * (size_t)dim, half,
                        dim, err);
    }
    status = is_begun ? end_writing(index, status, err) : status;
    lore_free(half);
    lore_error ignored;
    (void)!lore_index_checkpoint(index, false, &ignored); /* tried again by the next */
    return status;
}

lore_status lore_reembed_exchange(lore_index *index, lore_error *err)
{
    static const char *const exchange =
        "UPDATE vectors SET data=(SELECT n.data FROM next_vectors n WHERE n.chunk=vectors.chunk);"
        "DELETE FROM next_vectors;"
        "UPDATE meta SET value=(SELECT value FROM meta WHERE key='next_encoder') "
        "WHERE key='encoder';"
        "UPDATE meta SET value=(SELECT value FROM meta WHERE key='next_dim') WHERE key='dim';"
        "DELETE FROM meta WHERE key IN ('next_encoder', 'next_dim');"
        "UPDATE meta SET value=value+1 WHERE key='sequence';"
        "DELETE FROM deletions;"
        "UPDATE collections SET changed=(SELECT value FROM meta WHERE key='sequence'), "
        "generation=0, base_sequence=0, base_chunk=0, vec_count=0, vec_checksum=0, ann_size=NULL, "
        "ann_checksum=NULL";
    int64_t missing = 0;
    lore_status status = begin_writing(index, err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_db_number(index->writer, missing_sql, &missing, err);
    if (status == LORE_OK && missing > 0) {
        status = lore_fail(err, LORE_ERR_INVALID, "%lld chunks have no vector of the new encoder",
                           (long long)missing);
    }
    if (status == LORE_OK) {
        status = lore_db_exec(index->writer, exchange, err);
    }
    return end_writing(index, status, err);
}
