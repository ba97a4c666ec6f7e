/* Reading documents, chunks and collections out of the database, for answers and for listings.
 *
 * Each call is one read transaction on a reader's connection, so what it gives fits together.
 * Strings are copied into the caller's arena. The text of a chunk is read as a part of the
 * document's BLOB: SQLite then skips what stands before it instead of loading the whole document.
 */
#include "index/index_int.h"

#include <string.h>

static lore_status fail_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory reading documents");
}

/* Column to arena. Failures are collected in *failed, so that a row is checked once. */
static lore_str keep(lore_arena *arena, lore_stmt *stmt, int column, bool *failed)
{
    lore_str copy = lore_str_copy(arena, lore_column_bytes(stmt, column));
    *failed = *failed || copy.ptr == NULL;
    return copy;
}

static lore_status open_read(lore_index *index, lore_reader **reader, lore_error *err)
{
    lore_status status = lore_reader_take(index, reader, err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_db_exec((*reader)->db, "BEGIN", err);
    if (status != LORE_OK) {
        lore_reader_give(index, *reader);
        *reader = NULL;
    }
    return status;
}

/* ---- collections ---- */

lore_status lore_collection_find(lore_db *db, lore_str name, int64_t *collection, lore_error *err)
{
    static const char *const sql = "SELECT id FROM collections WHERE name=?1";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_text(stmt, 1, name);
    status = lore_stmt_step(stmt, &has_row, err);
    if (status == LORE_OK && !has_row) {
        return lore_fail(err, LORE_ERR_NOT_FOUND, "no collection '" LORE_STR_FMT "'",
                         LORE_STR_ARG(name));
    }
    if (status == LORE_OK) {
        *collection = lore_column_int(stmt, 0);
        lore_stmt_reset(stmt);
    }
    return status;
}

static lore_status read_collections(lore_stmt *stmt, lore_arena *arena, lore_collection_info *list,
                                    int32_t *count, lore_error *err)
{
    for (;;) {
        bool has_row = false, failed = false;
        lore_status status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            return status;
        }
        LORE_ASSERT(*count < LORE_COLLECTIONS_MAX); /* the query has a LIMIT */
        lore_collection_info *info = &list[(*count)++];
        info->name = keep(arena, stmt, 0, &failed);
        info->documents = lore_column_int(stmt, 1);
        info->chunks = lore_column_int(stmt, 2);
        info->created_ms = lore_column_int(stmt, 3);
        info->fusion_weight = lore_column_float(stmt, 4);
        info->refusal = keep(arena, stmt, 5, &failed);
        info->chunk_tokens = lore_column_int(stmt, 6);
        info->chunk_overlap = lore_column_int(stmt, 7);
        info->expansion = lore_column_float(stmt, 8);
        if (failed) {
            return fail_memory(err);
        }
    }
}

lore_status lore_index_collections(lore_index *index, lore_arena *arena,
                                   lore_collection_info **list, int32_t *count, lore_error *err)
{
    static const char *const sql =
        "SELECT name, documents, chunks, created_ms, fusion_weight, refusal, "
        "ifnull(chunk_tokens, 0), ifnull(chunk_overlap, -1), expansion FROM collections "
        "ORDER BY name LIMIT ?1";
    lore_reader *reader = NULL;
    lore_stmt *stmt = NULL;
    int32_t have = 0;
    lore_collection_info *infos = LORE_PUSH(arena, lore_collection_info, LORE_COLLECTIONS_MAX);
    if (infos == NULL) {
        return fail_memory(err);
    }
    lore_status status = open_read(index, &reader, err);
    if (status == LORE_OK) {
        status = lore_db_statement(reader->db, sql, &stmt, err);
    }
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, LORE_COLLECTIONS_MAX);
        status = read_collections(stmt, arena, infos, &have, err);
    }
    lore_reader_give(index, reader);
    if (status == LORE_OK) {
        *list = infos;
        *count = have;
    }
    return status;
}

/* ---- documents ---- */

lore_status lore_index_document_hash(lore_index *index, lore_str collection, lore_str id,
                                     uint8_t hash[32], bool *found, lore_error *err)
{
    static const char *const sql =
        "SELECT d.hash FROM documents d JOIN collections c ON c.id=d.collection "
        "WHERE c.name=?1 AND d.external_id=?2";
    lore_reader *reader = NULL;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_reader_take(index, &reader, err);
    if (status == LORE_OK) {
        status = lore_db_statement(reader->db, sql, &stmt, err);
    }
    if (status == LORE_OK) {
        lore_bind_text(stmt, 1, collection);
        lore_bind_text(stmt, 2, id);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK && has_row) {
        lore_str bytes = lore_column_bytes(stmt, 0);
        has_row = bytes.len == 32; /* anything else never matches, so the document is taken again */
        if (has_row) {
            memcpy(hash, bytes.ptr, 32);
        }
    }
    lore_reader_give(index, reader);
    if (status == LORE_OK) {
        *found = has_row;
    }
    return status;
}

lore_status lore_index_document_validators(lore_index *index, lore_str collection, lore_str id,
                                           lore_arena *arena, lore_str *validators, lore_error *err)
{
    static const char *const sql =
        "SELECT d.validators FROM documents d JOIN collections c ON c.id=d.collection "
        "WHERE c.name=?1 AND d.external_id=?2";
    lore_reader *reader = NULL;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_reader_take(index, &reader, err);
    *validators = (lore_str){"", 0};
    if (status == LORE_OK) {
        status = lore_db_statement(reader->db, sql, &stmt, err);
    }
    if (status == LORE_OK) {
        lore_bind_text(stmt, 1, collection);
        lore_bind_text(stmt, 2, id);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK && has_row) {
        *validators = lore_str_copy(arena, lore_column_bytes(stmt, 0));
        if (validators->ptr == NULL) {
            status = lore_fail(err, LORE_ERR_NOMEM, "out of memory reading a document");
        }
    }
    lore_reader_give(index, reader);
    return status;
}

/* The columns of a lore_document_info, in its order. */
#define DOCUMENT_COLUMNS                                                                  \
    "d.id, d.external_id, d.source, d.title, d.url, d.metadata, d.media, d.chunk_count, " \
    "d.updated_ms, length(t.text), d.version, "                                           \
    "(SELECT n.external_id FROM documents n WHERE n.id=d.near) "

static lore_status read_document(lore_stmt *stmt, lore_arena *arena, lore_document_info *document,
                                 lore_error *err)
{
    bool failed = false;
    *document = (lore_document_info){
        .row = lore_column_int(stmt, 0),
        .id = keep(arena, stmt, 1, &failed),
        .source = keep(arena, stmt, 2, &failed),
        .title = keep(arena, stmt, 3, &failed),
        .url = keep(arena, stmt, 4, &failed),
        .metadata = keep(arena, stmt, 5, &failed),
        .media = keep(arena, stmt, 6, &failed),
        .chunks = lore_column_int(stmt, 7),
        .updated_ms = lore_column_int(stmt, 8),
        .text_bytes = lore_column_int(stmt, 9),
        .version = lore_column_int(stmt, 10),
        .near = keep(arena, stmt, 11, &failed),
    };
    return failed ? fail_memory(err) : LORE_OK;
}

static lore_status read_text(lore_db *db, lore_arena *arena, lore_document_info *document,
                             lore_error *err)
{
    static const char *const sql = "SELECT text, runs FROM texts WHERE document=?1";
    lore_stmt *stmt = NULL;
    bool has_row = false, failed = false;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, document->row);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status != LORE_OK || !has_row) {
        return status;
    }
    document->text = keep(arena, stmt, 0, &failed);
    lore_str bytes = lore_column_bytes(stmt, 1);
    size_t count = bytes.len / sizeof(lore_offset_run);
    lore_offset_run *runs = LORE_PUSH(arena, lore_offset_run, count);
    if (runs != NULL) {
        memcpy(runs, bytes.ptr, count * sizeof *runs);
    }
    document->runs = runs;
    document->run_count = (int32_t)count;
    lore_stmt_reset(stmt);
    return failed || runs == NULL ? fail_memory(err) : LORE_OK;
}

static lore_status find_document(lore_db *db, lore_str collection, lore_str id, lore_arena *arena,
                                 lore_document_info *document, lore_error *err)
{
    static const char *const sql =
        "SELECT " DOCUMENT_COLUMNS "FROM collections c JOIN documents d ON d.collection=c.id "
        "JOIN texts t ON t.document=d.id "
        "WHERE c.name=?1 AND d.external_id=?2";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    int64_t ignored = 0;
    lore_status status = lore_collection_find(db, collection, &ignored, err);
    if (status == LORE_OK) {
        status = lore_db_statement(db, sql, &stmt, err);
    }
    if (status == LORE_OK) {
        lore_bind_text(stmt, 1, collection);
        lore_bind_text(stmt, 2, id);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK && !has_row) {
        return lore_fail(err, LORE_ERR_NOT_FOUND,
                         "no document '" LORE_STR_FMT "' in collection '" LORE_STR_FMT "'",
                         LORE_STR_ARG(id), LORE_STR_ARG(collection));
    }
    if (status == LORE_OK) {
        status = read_document(stmt, arena, document, err);
        lore_stmt_reset(stmt);
    }
    return status;
}

lore_status lore_index_get_document(lore_index *index, lore_str collection, lore_str id,
                                    bool with_text, lore_arena *arena, lore_document_info *document,
                                    lore_error *err)
{
    lore_reader *reader = NULL;
    lore_document_info made = {0};
    lore_status status = open_read(index, &reader, err);
    if (status == LORE_OK) {
        status = find_document(reader->db, collection, id, arena, &made, err);
    }
    if (status == LORE_OK && with_text) {
        status = read_text(reader->db, arena, &made, err);
    }
    lore_reader_give(index, reader);
    if (status == LORE_OK) {
        *document = made;
    }
    return status;
}

/* Up to limit rows into list; *has_more says whether there is another. */
static lore_status read_page(lore_stmt *stmt, lore_arena *arena, int32_t limit,
                             lore_document_info *list, int32_t *count, bool *has_more,
                             lore_error *err)
{
    for (;;) {
        bool has_row = false;
        lore_status status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            return status;
        }
        if (*count == limit) {
            *has_more = true;
            return LORE_OK;
        }
        status = read_document(stmt, arena, &list[*count], err);
        if (status != LORE_OK) {
            return status;
        }
        ++*count;
    }
}

lore_status lore_index_list_documents(lore_index *index, lore_str collection, lore_str cursor,
                                      lore_str source_prefix, int32_t limit, lore_arena *arena,
                                      lore_document_info **list, int32_t *count, lore_str *next,
                                      lore_error *err)
{
    static const char *const sql =
        "SELECT " DOCUMENT_COLUMNS "FROM documents d JOIN texts t ON t.document=d.id "
        "WHERE d.collection=?1 AND d.external_id>?2 AND "
        "substr(d.source, 1, length(?3))=?3 "
        "ORDER BY d.external_id LIMIT ?4";
    LORE_ASSERT(limit > 0);
    lore_reader *reader = NULL;
    lore_stmt *stmt = NULL;
    int64_t row = 0;
    int32_t have = 0;
    bool has_more = false;
    lore_document_info *page = LORE_PUSH(arena, lore_document_info, limit);
    if (page == NULL) {
        return fail_memory(err);
    }
    lore_status status = open_read(index, &reader, err);
    if (status == LORE_OK) {
        status = lore_collection_find(reader->db, collection, &row, err);
    }
    if (status == LORE_OK) {
        status = lore_db_statement(reader->db, sql, &stmt, err);
    }
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, row);
        lore_bind_text(stmt, 2, cursor);
        lore_bind_text(stmt, 3, source_prefix);
        lore_bind_int(stmt, 4, (int64_t)limit + 1);
        status = read_page(stmt, arena, limit, page, &have, &has_more, err);
    }
    lore_reader_give(index, reader);
    if (status == LORE_OK) {
        *list = page;
        *count = have;
        *next = has_more ? page[have - 1].id : (lore_str){"", 0};
    }
    return status;
}

/* ---- chunks ---- */

/* Of the document's runs those that the chunk reaches over. */
static void cut_pages(const lore_offset_run *runs, int32_t count, lore_chunk *chunk)
{
    while (count > 1 && runs[1].text <= chunk->start) {
        runs++;
        count--;
    }
    while (count > 1 && runs[count - 1].text >= chunk->end) {
        count--;
    }
    chunk->pages = count > 0 ? runs : NULL;
    chunk->page_count = count;
}

static lore_status read_pages(lore_db *db, lore_arena *arena, lore_chunk *chunk, lore_error *err)
{
    static const char *const sql = "SELECT runs FROM texts WHERE document=?1";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, chunk->document_row);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status != LORE_OK || !has_row) {
        return status;
    }
    lore_str bytes = lore_column_bytes(stmt, 0);
    size_t count = bytes.len / sizeof(lore_offset_run);
    lore_offset_run *runs = LORE_PUSH(arena, lore_offset_run, count);
    if (runs == NULL) {
        return fail_memory(err);
    }
    if (count > 0) {
        memcpy(runs, bytes.ptr, count * sizeof *runs);
    }
    cut_pages(runs, (int32_t)count, chunk);
    return LORE_OK;
}

static lore_status read_chunk(lore_db *db, lore_stmt *stmt, lore_arena *arena, lore_chunk *chunk,
                              lore_error *err)
{
    bool failed = false;
    int64_t start = lore_column_int(stmt, 3), end = lore_column_int(stmt, 4);
    if (start < 0 || end < start) {
        return lore_fail(err, LORE_ERR_CORRUPT, "chunk %lld has no text",
                         (long long)lore_column_int(stmt, 0));
    }
    *chunk = (lore_chunk){
        .row = lore_column_int(stmt, 0),
        .document_row = lore_column_int(stmt, 1),
        .ordinal = (int32_t)lore_column_int(stmt, 2),
        .start = (size_t)start,
        .end = (size_t)end,
        .heading = keep(arena, stmt, 5, &failed),
        .collection = keep(arena, stmt, 6, &failed),
        .document_id = keep(arena, stmt, 7, &failed),
        .title = keep(arena, stmt, 8, &failed),
        .source = keep(arena, stmt, 9, &failed),
        .url = keep(arena, stmt, 10, &failed),
        .metadata = keep(arena, stmt, 11, &failed),
        .version = lore_column_int(stmt, 12),
    };
    bool has_pages = lore_media_has_pages(lore_column_bytes(stmt, 13));
    char *text = lore_arena_push(arena, chunk->end - chunk->start + 1);
    if (failed || text == NULL) {
        return fail_memory(err);
    }
    text[chunk->end - chunk->start] = '\0';
    chunk->text = (lore_str){text, chunk->end - chunk->start};
    lore_status status = lore_db_read_blob(db, "texts", "text", chunk->document_row, chunk->start,
                                           text, chunk->text.len, err);
    return status == LORE_OK && has_pages ? read_pages(db, arena, chunk, err) : status;
}

static lore_status load_rows(lore_db *db, const int64_t *rows, int32_t count, lore_arena *arena,
                             lore_chunk *chunks, int32_t *found_count, lore_error *err)
{
    static const char *const sql =
        "SELECT c.id, c.document, c.ordinal, c.start, c.end, c.heading, l.name, d.external_id, "
        "d.title, d.source, d.url, d.metadata, d.version, d.media FROM chunks c JOIN documents d "
        "ON "
        "d.id=c.document "
        "JOIN collections l ON l.id=d.collection WHERE c.id=?1";
    lore_stmt *stmt = NULL;
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        bool has_row = false;
        status = lore_db_statement(db, sql, &stmt, err);
        if (status == LORE_OK) {
            lore_bind_int(stmt, 1, rows[i]);
            status = lore_stmt_step(stmt, &has_row, err);
        }
        if (status == LORE_OK && has_row) {
            status = read_chunk(db, stmt, arena, &chunks[*found_count], err);
            ++*found_count;
        }
    }
    return status;
}

lore_status lore_load_chunks(lore_snapshot *snapshot, const int64_t *rows, int32_t count,
                             lore_arena *arena, lore_chunk *chunks, int32_t *found_count,
                             lore_error *err)
{
    lore_reader *reader = NULL;
    int32_t have = 0;
    lore_status status = open_read(snapshot->index, &reader, err);
    if (status == LORE_OK) {
        status = load_rows(reader->db, rows, count, arena, chunks, &have, err);
    }
    lore_reader_give(snapshot->index, reader);
    if (status == LORE_OK) {
        *found_count = have;
    }
    return status;
}

/* The chunks of one document share its strings, and their texts are slices of its text. */
static lore_status read_document_chunks(lore_db *db, lore_str collection,
                                        const lore_document_info *document, lore_arena *arena,
                                        lore_chunk *chunks, int32_t *count, lore_error *err)
{
    static const char *const sql =
        "SELECT c.id, c.ordinal, c.start, c.end, c.heading FROM documents d JOIN chunks c ON "
        "c.id >= d.first_chunk AND c.id < d.first_chunk + d.chunk_count WHERE d.id=?1 "
        "ORDER BY c.id";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_int(stmt, 1, document->row);
    for (;;) {
        bool has_row = false, failed = false;
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            return status;
        }
        size_t start = (size_t)lore_column_int(stmt, 2), end = (size_t)lore_column_int(stmt, 3);
        if (*count == document->chunks || start > end || end > document->text.len) {
            return lore_fail(err, LORE_ERR_CORRUPT,
                             "the chunks of document '" LORE_STR_FMT "' do not fit its text",
                             LORE_STR_ARG(document->id));
        }
        chunks[(*count)++] = (lore_chunk){
            .row = lore_column_int(stmt, 0),
            .document_row = document->row,
            .version = document->version,
            .ordinal = (int32_t)lore_column_int(stmt, 1),
            .collection = collection,
            .document_id = document->id,
            .title = document->title,
            .source = document->source,
            .url = document->url,
            .heading = keep(arena, stmt, 4, &failed),
            .metadata = document->metadata,
            .text = lore_str_slice(document->text, start, end),
            .start = start,
            .end = end,
        };
        if (lore_media_has_pages(document->media)) {
            cut_pages(document->runs, document->run_count, &chunks[*count - 1]);
        }
        if (failed) {
            return fail_memory(err);
        }
    }
}

static lore_status load_document_chunks(lore_db *db, lore_str collection, lore_str document_id,
                                        lore_arena *arena, lore_chunk **chunks, int32_t *count,
                                        lore_error *err)
{
    lore_document_info document = {0};
    lore_str name = lore_str_copy(arena, collection);
    if (name.ptr == NULL) {
        return fail_memory(err);
    }
    lore_status status = find_document(db, collection, document_id, arena, &document, err);
    if (status == LORE_OK) {
        status = read_text(db, arena, &document, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    int32_t have = 0;
    lore_chunk *list = LORE_PUSH(arena, lore_chunk, document.chunks);
    if (list == NULL) {
        return fail_memory(err);
    }
    status = read_document_chunks(db, name, &document, arena, list, &have, err);
    if (status == LORE_OK) {
        *chunks = list;
        *count = have;
    }
    return status;
}

lore_status lore_load_document_chunks(lore_snapshot *snapshot, lore_str collection,
                                      lore_str document_id, lore_arena *arena, lore_chunk **chunks,
                                      int32_t *count, lore_error *err)
{
    lore_reader *reader = NULL;
    lore_status status = open_read(snapshot->index, &reader, err);
    if (status == LORE_OK) {
        status =
            load_document_chunks(reader->db, collection, document_id, arena, chunks, count, err);
    }
    lore_reader_give(snapshot->index, reader);
    return status;
}

/* ---- offsets ---- */

bool lore_media_has_pages(lore_str media)
{
    return lore_str_equal(media, LORE_STR("application/pdf"));
}

int64_t lore_chunk_page(const lore_chunk *chunk, size_t offset)
{
    return (int64_t)lore_offset_to_source(chunk->pages, chunk->page_count, offset);
}

size_t lore_offset_to_source(const lore_offset_run *runs, int32_t count, size_t text_offset)
{
    int32_t low = 0, high = count; /* the last run that starts at or before the offset */
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (runs[middle].text <= text_offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) {
        return 0;
    }
    const lore_offset_run *run = &runs[low - 1];
    return run->source + (run->is_exact != 0 ? text_offset - run->text : 0);
}
