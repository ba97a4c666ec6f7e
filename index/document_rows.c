/* Putting documents in and taking them out: all rows of one, in the open transaction.
 *
 * The full-text tables are contentless: to take a row out, FTS5 must be told the very texts that
 * were put in. They are read from the tables in the same transaction, before those lose them. */
#include "index/index_int.h"
#include "index/near_int.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/utf8.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- is it a document we can take ---- */

static lore_status check_text(lore_str text, const char *what, lore_str id, lore_error *err)
{
    if (lore_utf8_valid(text) != text.len) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "the %s of document '" LORE_STR_FMT "' is not UTF-8", what,
                         LORE_STR_ARG(id));
    }
    return LORE_OK;
}

static lore_status check_limit(int64_t size, int64_t max, const char *what, const char *limit,
                               lore_str id, lore_error *err)
{
    if (size > max) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "document '" LORE_STR_FMT "' has %lld %s, more than %s (%lld)",
                         LORE_STR_ARG(id), (long long)size, what, limit, (long long)max);
    }
    return LORE_OK;
}

static lore_status check_chunks(const lore_document_row *document, int32_t dim, lore_error *err)
{
    for (int32_t i = 0; i < document->chunk_count; i++) {
        const lore_chunk_row *chunk = &document->chunks[i];
        if (chunk->start > chunk->end || chunk->end > document->text.len) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "chunk %d of document '" LORE_STR_FMT "' lies outside its text", i,
                             LORE_STR_ARG(document->id));
        }
        if (chunk->vector != NULL && dim == 0) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "document '" LORE_STR_FMT
                             "' has vectors, but the index was opened without an encoder",
                             LORE_STR_ARG(document->id));
        }
        for (int32_t j = 0; chunk->vector != NULL && j < dim; j++) {
            if (!(fabsf(chunk->vector[j]) <= 65504.0f)) { /* the largest f16; also NaN */
                return lore_fail(err, LORE_ERR_INVALID,
                                 "the vector of chunk %d of document '" LORE_STR_FMT
                                 "' is not finite",
                                 i, LORE_STR_ARG(document->id));
            }
        }
        lore_status status = check_text(chunk->heading, "heading of a chunk", document->id, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

static lore_status check_document(const lore_index *index, const lore_document_row *document,
                                  lore_error *err)
{
    const lore_limits *limits = &index->config->limits;
    lore_str id = document->id;
    const struct {
        lore_str text;
        const char *name;
    } texts[] = {{document->id, "id"},   {document->source, "source"}, {document->title, "title"},
                 {document->url, "url"}, {document->media, "media"},   {document->text, "text"}};
    if (id.len == 0 || (int64_t)id.len > limits->id_bytes_max) {
        return lore_fail(err, LORE_ERR_INVALID, "a document id must have 1 to %lld bytes, not %zu",
                         (long long)limits->id_bytes_max, id.len);
    }
    lore_status status = check_limit((int64_t)document->text.len, limits->document_bytes_max,
                                     "bytes of text", "document_bytes_max", id, err);
    if (status == LORE_OK) {
        status = check_limit(document->chunk_count, limits->document_chunks_max, "chunks",
                             "document_chunks_max", id, err);
    }
    if (status == LORE_OK) {
        status = check_limit((int64_t)document->metadata.len, limits->metadata_bytes_max,
                             "bytes of metadata", "metadata_bytes_max", id, err);
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0] && status == LORE_OK; i++) {
        status = check_text(texts[i].text, texts[i].name, id, err);
    }
    if (status == LORE_OK) {
        int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
        status = check_chunks(document, dim, err);
    }
    return status;
}

/* The object printed our way: keys and strings without needless escapes, so that filters can
 * compare bytes. */
static lore_status read_metadata(const lore_index *index, const lore_document_row *document,
                                 lore_buf *out, lore_error *err)
{
    if (document->metadata.len == 0) {
        lore_buf_append(out, LORE_STR("{}"));
        return lore_buf_failed(out) ? lore_fail(err, LORE_ERR_NOMEM, "out of memory for metadata")
                                    : LORE_OK;
    }
    lore_json *json = NULL;
    lore_status status = lore_json_parse(document->metadata,
                                         (int32_t)index->config->limits.json_depth_max, &json, err);
    if (status == LORE_OK && !lore_json_is_object(json)) {
        status = lore_fail(err, LORE_ERR_INVALID, "it must be a JSON object");
    }
    if (status == LORE_OK) {
        status = lore_json_print(json, out, err);
    }
    lore_json_free(json);
    if (status != LORE_OK) {
        return lore_error_prefix(err, "metadata of document '" LORE_STR_FMT "'",
                                 LORE_STR_ARG(document->id));
    }
    return LORE_OK;
}

/* ---- taking out ---- */

/* The statements that write the full-text table of a collection. */
static lore_status use_text_table(lore_index *index, int64_t collection, lore_error *err)
{
    char sql[256];
    if (index->text_collection == collection) {
        return LORE_OK;
    }
    lore_text_forget(index);
    snprintf(sql, sizeof sql,
             "INSERT INTO text_%lld(rowid, title, heading, body) VALUES(?1, ?2, ?3, ?4)",
             (long long)collection);
    lore_status status = lore_stmt_new(index->writer, sql, &index->text_insert, err);
    snprintf(sql, sizeof sql,
             "INSERT INTO text_%lld(text_%lld, rowid, title, heading, body) "
             "VALUES('delete', ?1, ?2, ?3, ?4)",
             (long long)collection, (long long)collection);
    if (status == LORE_OK) {
        status = lore_stmt_new(index->writer, sql, &index->text_remove, err);
    }
    if (status == LORE_OK) {
        index->text_collection = collection;
    } else {
        lore_text_forget(index);
    }
    return status;
}

static lore_status write_text(lore_stmt *stmt, int64_t chunk, lore_str title, lore_str heading,
                              lore_str body, lore_error *err)
{
    lore_bind_int(stmt, 1, chunk);
    lore_bind_text(stmt, 2, title);
    lore_bind_text(stmt, 3, heading);
    lore_bind_text(stmt, 4, body);
    return lore_stmt_run(stmt, err);
}

/* Take the chunks of a document out of the full-text table. */
static lore_status remove_texts(lore_index *index, int64_t document, lore_str title, lore_str text,
                                lore_error *err)
{
    static const char *const sql = "SELECT c.id, c.heading, c.start, c.end FROM documents d "
                                   "JOIN chunks c ON c.id >= d.first_chunk "
                                   "AND c.id < d.first_chunk + d.chunk_count WHERE d.id=?1";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, document);
    for (;;) {
        bool has_row = false;
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            return status;
        }
        size_t start = (size_t)lore_column_int(stmt, 2), end = (size_t)lore_column_int(stmt, 3);
        if (start > end || end > text.len) {
            status = lore_fail(err, LORE_ERR_CORRUPT, "'%s' is damaged: chunk %lld has no text",
                               index->path, (long long)lore_column_int(stmt, 0));
        } else {
            status = write_text(index->text_remove, lore_column_int(stmt, 0), title,
                                lore_column_bytes(stmt, 1), lore_str_slice(text, start, end), err);
        }
        if (status != LORE_OK) {
            lore_stmt_reset(stmt);
            return status;
        }
    }
}

static lore_status log_deletion(lore_index *index, int64_t document, lore_error *err)
{
    static const char *const sql =
        "INSERT INTO deletions SELECT collection, ?2, first_chunk, chunk_count FROM documents "
        "WHERE id=?1 AND chunk_count > 0";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, document);
        lore_bind_int(stmt, 2, index->sequence);
        status = lore_stmt_run(stmt, err);
    }
    return status;
}

/* Everything that a document has. The counters of its collection follow. */
static lore_status remove_document(lore_index *index, int64_t collection, int64_t document,
                                   lore_error *err)
{
    static const char *const content =
        "SELECT d.title, t.text FROM documents d JOIN texts t ON t.document=d.id WHERE d.id=?1";
    static const char *const removals[] = {
        "UPDATE collections SET documents=documents-1, chunks=chunks-"
        "(SELECT chunk_count FROM documents WHERE id=?1) "
        "WHERE id=(SELECT collection FROM documents WHERE id=?1)",
        "DELETE FROM vectors WHERE chunk >= (SELECT first_chunk FROM documents WHERE id=?1) AND "
        "chunk < (SELECT first_chunk + chunk_count FROM documents WHERE id=?1)",
        "DELETE FROM chunks WHERE id >= (SELECT first_chunk FROM documents WHERE id=?1) AND "
        "id < (SELECT first_chunk + chunk_count FROM documents WHERE id=?1)",
        "DELETE FROM texts WHERE document=?1",
        "DELETE FROM pages WHERE document=?1",
        "DELETE FROM documents WHERE id=?1",
    };
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = use_text_table(index, collection, err);
    if (status == LORE_OK) {
        status = lore_db_statement(index->writer, content, &stmt, err);
    }
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, document);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK && !has_row) {
        status = lore_fail(err, LORE_ERR_CORRUPT, "'%s' is damaged: document %lld has no text",
                           index->path, (long long)document);
    }
    if (status == LORE_OK) {
        status = remove_texts(index, document, lore_column_bytes(stmt, 0),
                              lore_column_bytes(stmt, 1), err);
    }
    lore_stmt_reset(stmt);
    if (status == LORE_OK) {
        status = log_deletion(index, document, err);
    }
    if (status == LORE_OK) {
        status = lore_near_remove(index->writer, collection, document, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    return lore_db_run_all(index->writer, removals, sizeof removals / sizeof removals[0], document,
                           err);
}

/* What is stored under an id already. */
typedef struct stored_document {
    int64_t row; /* 0: nothing */
    int64_t version;
} stored_document;

static lore_status find_document(lore_db *db, int64_t collection, lore_str id,
                                 stored_document *document, lore_error *err)
{
    static const char *const sql =
        "SELECT id, version FROM documents WHERE collection=?1 AND external_id=?2";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, collection);
    lore_bind_text(stmt, 2, id);
    status = lore_stmt_step(stmt, &has_row, err);
    if (status == LORE_OK) {
        *document = (stored_document){0};
        if (has_row) {
            *document = (stored_document){lore_column_int(stmt, 0), lore_column_int(stmt, 1)};
        }
        lore_stmt_reset(stmt);
    }
    return status;
}

/* ---- putting in ---- */

static lore_status insert_document(lore_index *index, int64_t collection,
                                   const lore_document_row *document, int64_t version, int64_t near,
                                   lore_str metadata, lore_error *err)
{
    static const char *const sql =
        "INSERT INTO documents(collection, external_id, source, title, url, metadata, media, hash, "
        "updated_ms, first_chunk, chunk_count, version, near, validators) "
        "VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, collection);
    lore_bind_text(stmt, 2, document->id);
    lore_bind_text(stmt, 3, document->source);
    lore_bind_text(stmt, 4, document->title);
    lore_bind_text(stmt, 5, document->url);
    lore_bind_text(stmt, 6, metadata);
    lore_bind_text(stmt, 7, document->media);
    lore_bind_blob(stmt, 8, document->hash, sizeof document->hash);
    lore_bind_int(stmt, 9, lore_clock_unix_ms());
    lore_bind_int(stmt, 10, index->next_chunk);
    lore_bind_int(stmt, 11, document->chunk_count);
    lore_bind_int(stmt, 12, version);
    lore_bind_int(stmt, 13, near);
    lore_bind_text(stmt, 14, document->validators);
    return lore_stmt_run(stmt, err);
}

static lore_status insert_text(lore_index *index, int64_t row, const lore_document_row *document,
                               lore_error *err)
{
    static const char *const sql = "INSERT INTO texts(document, runs, text) VALUES(?1,?2,?3)";
    static_assert(sizeof(lore_offset_run) == 12, "formats.md §1");
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, row);
    lore_bind_blob(stmt, 2, document->runs, (size_t)document->run_count * sizeof(lore_offset_run));
    lore_bind_blob(stmt, 3, document->text.ptr, document->text.len);
    return lore_stmt_run(stmt, err);
}

static lore_status insert_vector(lore_index *index, int64_t collection, int64_t id,
                                 const float *vector, uint16_t *half, lore_error *err)
{
    static const char *const sql = "INSERT INTO vectors(chunk, collection, data) VALUES(?1,?2,?3)";
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    for (int32_t i = 0; i < dim; i++) {
        half[i] = lore_f32_to_f16(vector[i]);
    }
    lore_bind_int(stmt, 1, id);
    lore_bind_int(stmt, 2, collection);
    lore_bind_blob(stmt, 3, half, (size_t)dim * sizeof *half);
    return lore_stmt_run(stmt, err);
}

static lore_status insert_chunk(lore_index *index, int64_t row, int32_t ordinal,
                                const lore_document_row *document, lore_error *err)
{
    static const char *const sql =
        "INSERT INTO chunks(id, document, ordinal, start, end, heading) VALUES(?1,?2,?3,?4,?5,?6)";
    const lore_chunk_row *chunk = &document->chunks[ordinal];
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, index->next_chunk);
    lore_bind_int(stmt, 2, row);
    lore_bind_int(stmt, 3, ordinal);
    lore_bind_int(stmt, 4, (int64_t)chunk->start);
    lore_bind_int(stmt, 5, (int64_t)chunk->end);
    lore_bind_text(stmt, 6, chunk->heading);
    status = lore_stmt_run(stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    return write_text(index->text_insert, index->next_chunk, document->title, chunk->heading,
                      lore_str_slice(document->text, chunk->start, chunk->end), err);
}

static lore_status insert_chunks(lore_index *index, int64_t collection, int64_t row,
                                 const lore_document_row *document, lore_error *err)
{
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    uint16_t *half = lore_alloc((size_t)dim * sizeof *half);
    if (half == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a vector");
    }
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < document->chunk_count && status == LORE_OK; i++) {
        status = insert_chunk(index, row, i, document, err);
        if (status == LORE_OK && document->chunks[i].vector != NULL) {
            status = insert_vector(index, collection, index->next_chunk, document->chunks[i].vector,
                                   half, err);
        }
        index->next_chunk++;
    }
    lore_free(half);
    return status;
}

static lore_status count_document(lore_index *index, int64_t collection, int64_t documents,
                                  int64_t chunks, lore_error *err)
{
    static const char *const sql = "UPDATE collections SET documents=documents+?2, "
                                   "chunks=chunks+?3, changed=?4 WHERE id=?1";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(index->writer, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, collection);
    lore_bind_int(stmt, 2, documents);
    lore_bind_int(stmt, 3, chunks);
    lore_bind_int(stmt, 4, index->sequence);
    return lore_stmt_run(stmt, err);
}

static lore_status write_document(lore_index *index, int64_t collection, stored_document replaced,
                                  const lore_document_row *document, lore_str metadata,
                                  lore_put_outcome *outcome, lore_error *err)
{
    static const lore_sketch none = {.is_empty = true};
    const lore_sketch *sketch = document->sketch != NULL ? document->sketch : &none;
    int64_t row = 0, near = 0;
    lore_status status = LORE_OK;
    *outcome = (lore_put_outcome){.was_replaced = replaced.row != 0};
    if (replaced.row != 0) {
        status = remove_document(index, collection, replaced.row, err);
    }
    if (status == LORE_OK) {
        status = use_text_table(index, collection, err);
    }
    if (status == LORE_OK) {
        status = lore_near_find(index->writer, collection, sketch, &near, err);
        outcome->is_near_duplicate = near != 0;
    }
    if (status == LORE_OK) {
        status =
            insert_document(index, collection, document, replaced.version + 1, near, metadata, err);
    }
    if (status == LORE_OK) {
        row = lore_db_last_row(index->writer);
        status = insert_text(index, row, document, err);
    }
    if (status == LORE_OK) {
        status = lore_near_insert(index->writer, collection, row, sketch, err);
    }
    if (status == LORE_OK) {
        status = insert_chunks(index, collection, row, document, err);
    }
    return status == LORE_OK ? count_document(index, collection, 1, document->chunk_count, err)
                             : status;
}

lore_status lore_index_is_unchanged(lore_index *index, lore_str collection, lore_str id,
                                    const uint8_t hash[32], bool *is_unchanged, lore_error *err)
{
    static const char *const sql =
        "SELECT 1 FROM collections c JOIN documents d ON d.collection=c.id "
        "WHERE c.name=?1 AND d.external_id=?2 AND d.hash=?3";
    lore_stmt *stmt = NULL;
    lore_status status = lore_transaction_check(index, err);
    if (status == LORE_OK) {
        status = lore_db_statement(index->writer, sql, &stmt, err);
    }
    if (status == LORE_OK) {
        lore_bind_text(stmt, 1, collection);
        lore_bind_text(stmt, 2, id);
        lore_bind_blob(stmt, 3, hash, 32);
        status = lore_stmt_step(stmt, is_unchanged, err);
        lore_stmt_reset(stmt);
    }
    return status;
}

lore_status lore_index_put_document(lore_index *index, lore_str collection,
                                    const lore_document_row *document, lore_put_outcome *outcome,
                                    lore_error *err)
{
    int64_t id = 0;
    lore_put_outcome made = {0};
    stored_document replaced = {0};
    lore_buf metadata;
    lore_buf_init(&metadata, 0);
    lore_status status = lore_transaction_check(index, err);
    if (status == LORE_OK) {
        status = check_document(index, document, err);
    }
    if (status == LORE_OK) {
        status = read_metadata(index, document, &metadata, err);
    }
    if (status == LORE_OK) {
        status = lore_collection_find(index->writer, collection, &id, err);
    }
    if (status == LORE_OK) {
        status = find_document(index->writer, id, document->id, &replaced, err);
    }
    if (status == LORE_OK) {
        status = lore_transaction_note(index, write_document(index, id, replaced, document,
                                                             lore_buf_str(&metadata), &made, err));
    }
    if (status == LORE_OK && outcome != NULL) {
        *outcome = made;
    }
    lore_buf_destroy(&metadata);
    return status;
}

lore_status lore_index_delete_document(lore_index *index, lore_str collection, lore_str id,
                                       bool *found, lore_error *err)
{
    int64_t row = 0;
    stored_document document = {0};
    lore_status status = lore_transaction_check(index, err);
    if (status == LORE_OK) {
        status = lore_collection_find(index->writer, collection, &row, err);
    }
    if (status == LORE_OK) {
        status = find_document(index->writer, row, id, &document, err);
    }
    if (status == LORE_OK && document.row != 0) {
        status = remove_document(index, row, document.row, err);
        if (status == LORE_OK) {
            status = count_document(index, row, 0, 0, err);
        }
        status = lore_transaction_note(index, status);
    }
    if (status == LORE_OK && found != NULL) {
        *found = document.row != 0;
    }
    return status;
}
