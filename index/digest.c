/* The digest of an index: one walk in an order that its history does not change.
 *
 * Every field goes in with its length before it, so that no two walks give the same bytes. The
 * full-text index is summed up from a fresh one of some hundred chunks at a time, whose words FTS5
 * gives in order of term, row and place; the int8 rows and the lists of a collection are made of
 * its vectors in the order of the walk. */
#include "index/digest.h"

#include "index/index_int.h"
#include "index/schema_int.h"

#include <stdio.h>
#include <string.h>

enum { BATCH = 512, LISTS_MIN = 1000 /* as rebuild.c has it */ };

typedef struct digest_walk {
    const lore_config *config;
    lore_db *db;
    lore_sha256 parts[LORE_DIGEST_PARTS];
    int64_t collections, documents, chunks;
    int64_t pending;       /* chunks in the fresh index */
    lore_stmt *insert;     /* into it */
    lore_segment *segment; /* int8 rows of the collection; NULL: it has no vectors */
    float *wide;
} digest_walk;

/* ---- fields ---- */

static void add_bytes(lore_sha256 *sha, lore_str bytes)
{
    uint64_t size = bytes.len;
    lore_sha256_update(sha, (lore_str){(const char *)&size, sizeof size});
    lore_sha256_update(sha, bytes);
}

static void add_int(lore_sha256 *sha, int64_t value)
{
    lore_sha256_update(sha, (lore_str){(const char *)&value, sizeof value});
}

/* ---- what is derived ---- */

static lore_status flush_words(digest_walk *walk, lore_error *err)
{
    static const char *const words = "SELECT term, doc, col, offset FROM temp.digest_words";
    lore_sha256 *sha = &walk->parts[LORE_DIGEST_INDEX];
    lore_stmt *stmt = NULL;
    bool has_row = true;
    if (walk->pending == 0) {
        return LORE_OK;
    }
    walk->pending = 0;
    lore_status status = lore_stmt_new(walk->db, words, &stmt, err);
    while (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            break;
        }
        add_bytes(sha, lore_column_bytes(stmt, 0));
        add_int(sha, lore_column_int(stmt, 1));
        add_bytes(sha, lore_column_bytes(stmt, 2));
        add_int(sha, lore_column_int(stmt, 3));
    }
    lore_stmt_free(stmt);
    return status == LORE_OK
               ? lore_db_exec(walk->db,
                              "INSERT INTO temp.digest_text(digest_text) VALUES('delete-all')", err)
               : status;
}

static lore_status add_words(digest_walk *walk, lore_str title, lore_str heading, lore_str body,
                             lore_error *err)
{
    lore_bind_int(walk->insert, 1, walk->pending + 1);
    lore_bind_text(walk->insert, 2, title);
    lore_bind_text(walk->insert, 3, heading);
    lore_bind_text(walk->insert, 4, body);
    lore_status status = lore_stmt_run(walk->insert, err);
    return status == LORE_OK && ++walk->pending == BATCH ? flush_words(walk, err) : status;
}

static lore_status add_vector(digest_walk *walk, lore_str data, lore_error *err)
{
    add_bytes(&walk->parts[LORE_DIGEST_VECTORS], data);
    lore_segment *segment = walk->segment;
    if (segment == NULL || data.len != (size_t)segment->dim * sizeof(uint16_t)) {
        return data.len == 0 ? LORE_OK
                             : lore_fail(err, LORE_ERR_CORRUPT,
                                         "a vector has %zu bytes: try `lore fsck`", data.len);
    }
    for (int32_t i = 0; i < segment->dim; i++) {
        uint16_t half;
        memcpy(&half, data.ptr + (size_t)i * sizeof half, sizeof half);
        walk->wide[i] = lore_f16_to_f32(half);
    }
    lore_segment_push(segment, segment->count + 1, -1, walk->wide);
    return LORE_OK;
}

static void add_segment(lore_sha256 *sha, const lore_segment *segment)
{
    size_t count = (size_t)segment->count;
    add_bytes(sha, (lore_str){(const char *)segment->scales, count * sizeof *segment->scales});
    add_bytes(sha, (lore_str){(const char *)segment->rows, count * (size_t)segment->dim});
}

/* The collection is over: its rows, and where it is large its lists. */
static lore_status end_vectors(digest_walk *walk, lore_error *err)
{
    lore_sha256 *sha = &walk->parts[LORE_DIGEST_INDEX];
    lore_lists *lists = NULL;
    const lore_stop never = {0};
    lore_segment *segment = walk->segment;
    if (segment == NULL) {
        return LORE_OK;
    }
    lore_status status = LORE_OK;
    add_segment(sha, segment);
    if (segment->count > walk->config->ann_min_vectors && segment->count >= LISTS_MIN) {
        const lore_part part = {segment, NULL};
        status = lore_lists_new(&part, 1, segment->dim, &never, &lists, err);
    }
    if (lists != NULL) {
        size_t count = (size_t)lists->row_count;
        add_segment(sha, lists->centres);
        add_bytes(sha, (lore_str){(const char *)lists->list_of, count * sizeof *lists->list_of});
    }
    lore_lists_free(lists);
    lore_free(walk->wide);
    lore_segment_release(segment);
    walk->segment = NULL;
    walk->wide = NULL;
    return status;
}

/* Room for the rows of a collection. */
static lore_status begin_vectors(digest_walk *walk, int64_t collection, lore_error *err)
{
    static const char *const sql =
        "SELECT count(*), ifnull(max(length(data)), 0) FROM vectors WHERE collection=?1";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(walk->db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, collection);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    int64_t count = lore_column_int(stmt, 0), dim = lore_column_int(stmt, 1) / 2;
    lore_stmt_reset(stmt);
    if (count == 0 || dim == 0) {
        return LORE_OK;
    }
    walk->wide = lore_alloc((size_t)dim * sizeof *walk->wide);
    return walk->wide == NULL ? lore_fail(err, LORE_ERR_NOMEM, "out of memory for a vector")
                              : lore_segment_new(count, (int32_t)dim, &walk->segment, err);
}

/* ---- what is stored ---- */

static lore_status add_chunks(digest_walk *walk, int64_t document, lore_str title, lore_str text,
                              lore_error *err)
{
    static const char *const sql =
        "SELECT c.ordinal, c.start, c.end, c.heading, v.data FROM documents d JOIN chunks c ON "
        "c.id>=d.first_chunk AND c.id<d.first_chunk+d.chunk_count LEFT JOIN vectors v ON "
        "v.chunk=c.id WHERE d.id=?1 ORDER BY c.id";
    lore_sha256 *sha = &walk->parts[LORE_DIGEST_CHUNKS];
    lore_stmt *stmt = NULL;
    bool has_row = true;
    lore_status status = lore_db_statement(walk->db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, document);
    }
    while (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            break;
        }
        uint64_t start = (uint64_t)lore_column_int(stmt, 1),
                 end = (uint64_t)lore_column_int(stmt, 2);
        if (start > end || end > text.len) {
            status = lore_fail(err, LORE_ERR_CORRUPT, "a chunk has no text: try `lore fsck`");
            break;
        }
        for (int i = 0; i < 3; i++) {
            add_int(sha, lore_column_int(stmt, i));
        }
        add_bytes(sha, lore_column_bytes(stmt, 3));
        walk->chunks++;
        status = add_vector(walk, lore_column_bytes(stmt, 4), err);
        if (status == LORE_OK) {
            status = add_words(walk, title, lore_column_bytes(stmt, 3),
                               lore_str_slice(text, start, end), err);
        }
    }
    lore_stmt_reset(stmt);
    return status;
}

static lore_status add_documents(digest_walk *walk, int64_t collection, lore_error *err)
{
    enum { FIELDS = 9, TITLE = 3, TEXT = 7 };
    static const char *const sql =
        "SELECT d.id, d.external_id, d.source, d.title, d.url, d.metadata, d.media, t.text, "
        "t.runs, "
        "p.starts FROM documents d LEFT JOIN texts t ON t.document=d.id LEFT JOIN pages p ON "
        "p.document=d.id WHERE d.collection=?1 ORDER BY d.external_id";
    lore_stmt *stmt = NULL;
    bool has_row = true;
    lore_status status = lore_db_statement(walk->db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, collection);
    }
    while (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            break;
        }
        for (int i = 1; i <= FIELDS; i++) {
            add_bytes(&walk->parts[LORE_DIGEST_DOCUMENTS], lore_column_bytes(stmt, i));
        }
        walk->documents++;
        status = add_chunks(walk, lore_column_int(stmt, 0), lore_column_bytes(stmt, TITLE),
                            lore_column_bytes(stmt, TEXT), err);
    }
    lore_stmt_reset(stmt);
    return status;
}

static lore_status add_collection(digest_walk *walk, const lore_collection_state *state,
                                  lore_error *err)
{
    int64_t id = state->published.collection;
    for (int i = 0; i < LORE_DIGEST_PARTS; i++) {
        add_bytes(&walk->parts[i], lore_str_from(state->name));
    }
    walk->collections++;
    lore_status status = begin_vectors(walk, id, err);
    if (status == LORE_OK) {
        status = add_documents(walk, id, err);
    }
    if (status == LORE_OK) {
        status = flush_words(walk, err);
    }
    return status == LORE_OK ? end_vectors(walk, err) : status;
}

/* ---- the walk ---- */

static void sort_by_name(lore_collection_state *states, int32_t count)
{
    for (int32_t i = 1; i < count; i++) { /* a thousand at most */
        lore_collection_state moved = states[i];
        int32_t at = i;
        for (; at > 0 && strcmp(states[at - 1].name, moved.name) > 0; at--) {
            states[at] = states[at - 1];
        }
        states[at] = moved;
    }
}

static lore_status walk_all(digest_walk *walk, lore_error *err)
{
    static const char *const fresh =
        "CREATE VIRTUAL TABLE temp.digest_text USING fts5(title, heading, body, content='', "
        "tokenize='porter lore');"
        "CREATE VIRTUAL TABLE temp.digest_words USING fts5vocab(temp, digest_text, instance)";
    static const char *const insert =
        "INSERT INTO temp.digest_text(rowid, title, heading, body) VALUES(?1,?2,?3,?4)";
    lore_collection_state *states = NULL;
    int32_t count = 0;
    lore_status status = lore_db_exec(walk->db, fresh, err);
    if (status == LORE_OK) {
        status = lore_db_exec(walk->db, "BEGIN", err);
    }
    if (status == LORE_OK) {
        status = lore_stmt_new(walk->db, insert, &walk->insert, err);
    }
    if (status == LORE_OK) {
        status = lore_collection_states(walk->db, &states, &count, err);
    }
    sort_by_name(states, count);
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        status = add_collection(walk, &states[i], err);
    }
    lore_free(states);
    lore_stmt_free(walk->insert);
    lore_free(walk->wide);
    lore_segment_release(walk->segment);
    (void)lore_db_rollback(walk->db); /* the connection goes anyway */
    return status;
}

static void write_digest(digest_walk *walk, lore_digest *digest)
{
    lore_sha256 whole;
    uint8_t bytes[32];
    lore_sha256_init(&whole);
    for (int i = 0; i < LORE_DIGEST_PARTS; i++) {
        lore_sha256_final(&walk->parts[i], bytes);
        lore_sha256_hex(bytes, digest->parts[i]);
        lore_sha256_update(&whole, (lore_str){(const char *)bytes, sizeof bytes});
    }
    lore_sha256_final(&whole, bytes);
    lore_sha256_hex(bytes, digest->whole);
    digest->collections = walk->collections;
    digest->documents = walk->documents;
    digest->chunks = walk->chunks;
}

lore_status lore_digest_folder(const char *folder, const lore_config *config, lore_digest *digest,
                               lore_error *err)
{
    char path[LORE_INDEX_PATH_CAP];
    digest_walk walk = {.config = config};
    int length = snprintf(path, sizeof path, "%s/lore.db", folder);
    if (length < 0 || (size_t)length >= sizeof path) {
        return lore_fail(err, LORE_ERR_INVALID, "path too long: '%s'", folder);
    }
    if (!lore_file_exists(path)) {
        return lore_fail(err, LORE_ERR_NOT_FOUND, "'%s' holds no index (no lore.db)", folder);
    }
    for (int i = 0; i < LORE_DIGEST_PARTS; i++) {
        lore_sha256_init(&walk.parts[i]);
    }
    lore_status status = lore_db_open(path, false, &walk.db, err);
    if (status == LORE_OK) {
        status = lore_schema_check(path, walk.db, err);
    }
    if (status == LORE_OK) {
        status = walk_all(&walk, err);
    }
    lore_db_close(walk.db);
    if (status == LORE_OK) {
        write_digest(&walk, digest);
    }
    return status;
}
