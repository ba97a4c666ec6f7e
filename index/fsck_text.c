/* Does the full-text index of a collection hold the words of its texts, and no others?
 *
 * The index has no content to compare with, so the texts are read into a fresh one, some hundred
 * chunks at a time, and the words of both are summed up for each chunk: term, column and place,
 * hashed. Sums do not mind the order, and both indexes are walked front to back. Lengths and
 * averages, which BM25 needs, are compared as FTS5 stores them. */
#include "index/fsck_int.h"

#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 512, TOTALS = 4 }; /* rows, and words of each column */

typedef struct text_walk {
    const lore_collection_state *state;
    int64_t *ids; /* of the collection's chunks, ascending */
    uint64_t *sums;
    int64_t count, room;
    uint64_t totals[TOTALS];
    int64_t pending; /* chunks in the fresh index */
    bool is_strange; /* words, lengths or totals of what is no chunk */
} text_walk;

static int64_t place_of(const text_walk *walk, int64_t chunk)
{
    int64_t low = 0, high = walk->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (walk->ids[middle] < chunk) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < walk->count && walk->ids[low] == chunk ? low : -1;
}

/* ---- words ---- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9); /* splitmix64: Steele et al., OOPSLA 2014 */
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

/* Adds (or takes away) the words of an index, a row of fts5vocab each. */
static lore_status sum_words(lore_fsck_run *run, text_walk *walk, const char *table, bool is_taken,
                             lore_error *err)
{
    char sql[128];
    lore_stmt *stmt = NULL;
    bool has_row = true;
    snprintf(sql, sizeof sql, "SELECT term, doc, col, offset FROM temp.%s", table);
    lore_status status = lore_stmt_new(run->db, sql, &stmt, err);
    while (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            break;
        }
        uint64_t word = lore_str_hash(lore_column_bytes(stmt, 0));
        uint64_t column = lore_str_hash(lore_column_bytes(stmt, 2));
        uint64_t sum = mix(word ^ mix(column + (uint64_t)lore_column_int(stmt, 3)));
        int64_t at = place_of(walk, lore_column_int(stmt, 1));
        if (at < 0) {
            walk->is_strange = true;
        } else {
            walk->sums[at] += is_taken ? 0 - sum : sum;
        }
    }
    lore_stmt_free(stmt);
    return status;
}

/* ---- lengths ---- */

/* The first row of an index's data: varints of rows and of words of each column. */
static lore_status add_totals(lore_fsck_run *run, text_walk *walk, const char *table, bool is_taken,
                              lore_error *err)
{
    char sql[128];
    lore_stmt *stmt = NULL;
    bool has_row = false;
    snprintf(sql, sizeof sql, "SELECT block FROM %s_data WHERE id=1", table);
    lore_status status = lore_stmt_new(run->db, sql, &stmt, err);
    if (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
    }
    lore_str block = has_row ? lore_column_bytes(stmt, 0) : (lore_str){NULL, 0};
    uint64_t value = 0;
    int field = 0;
    for (size_t i = 0; i < block.len && field < TOTALS; i++) {
        unsigned char byte = (unsigned char)block.ptr[i];
        value = value << 7 | (byte & 0x7f);
        if (byte < 0x80) {
            walk->totals[field++] += is_taken ? 0 - value : value;
            value = 0;
        }
    }
    lore_stmt_free(stmt);
    return status;
}

static lore_status compare_lengths(lore_fsck_run *run, text_walk *walk, lore_error *err)
{
    char sql[256];
    lore_stmt *stmt = NULL;
    bool has_row = true;
    snprintf(sql, sizeof sql,
             "SELECT f.id FROM temp.fsck_fresh_docsize f LEFT JOIN main.text_%lld_docsize m ON "
             "m.id=f.id WHERE m.sz IS NOT f.sz",
             (long long)walk->state->published.collection);
    lore_status status = lore_stmt_new(run->db, sql, &stmt, err);
    while (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            break;
        }
        int64_t at = place_of(walk, lore_column_int(stmt, 0));
        walk->sums[at < 0 ? 0 : at] += 1; /* no words sum up to this */
    }
    lore_stmt_free(stmt);
    return status;
}

/* What is in the fresh index is counted, and it is emptied. */
static lore_status flush(lore_fsck_run *run, text_walk *walk, lore_error *err)
{
    if (walk->pending == 0) {
        return LORE_OK;
    }
    walk->pending = 0;
    lore_status status = sum_words(run, walk, "fsck_fresh_words", false, err);
    if (status == LORE_OK) {
        status = compare_lengths(run, walk, err);
    }
    if (status == LORE_OK) {
        status = add_totals(run, walk, "temp.fsck_fresh", false, err);
    }
    return status == LORE_OK
               ? lore_db_exec(run->db,
                              "INSERT INTO temp.fsck_fresh(fsck_fresh) VALUES('delete-all')", err)
               : status;
}

/* ---- the texts ---- */

/* A chunk of a document, in the way that ingesting indexes it. */
typedef lore_status (*chunk_visit)(lore_fsck_run *run, void *self, int64_t chunk, lore_str title,
                                   lore_str heading, lore_str body, lore_error *err);

static lore_status each_chunk_of(lore_fsck_run *run, int64_t document, lore_str title,
                                 lore_str text, chunk_visit visit, void *self, lore_error *err)
{
    static const char *const sql =
        "SELECT c.id, c.heading, c.start, c.end FROM documents d JOIN chunks c ON "
        "c.id>=d.first_chunk AND c.id<d.first_chunk+d.chunk_count WHERE d.id=?1";
    lore_stmt *stmt = NULL;
    bool has_row = true;
    lore_status status = lore_db_statement(run->db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, document);
    }
    while (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            return status;
        }
        uint64_t start = (uint64_t)lore_column_int(stmt, 2),
                 end = (uint64_t)lore_column_int(stmt, 3);
        bool is_inside = start <= end && end <= text.len; /* else it has been noted */
        status = visit(run, self, lore_column_int(stmt, 0), title, lore_column_bytes(stmt, 1),
                       is_inside ? lore_str_slice(text, start, end) : (lore_str){NULL, 0}, err);
    }
    lore_stmt_reset(stmt);
    return status;
}

static lore_status each_chunk(lore_fsck_run *run, int64_t collection, chunk_visit visit, void *self,
                              lore_error *err)
{
    static const char *const sql = "SELECT d.id, d.title, t.text FROM documents d JOIN texts t ON "
                                   "t.document=d.id WHERE d.collection=?1 ORDER BY d.id";
    lore_stmt *stmt = NULL;
    bool has_row = true;
    lore_status status = lore_db_statement(run->db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, collection);
    }
    while (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            return status;
        }
        status = each_chunk_of(run, lore_column_int(stmt, 0), lore_column_bytes(stmt, 1),
                               lore_column_bytes(stmt, 2), visit, self, err);
    }
    lore_stmt_reset(stmt);
    return status;
}

static lore_status index_chunk(lore_stmt *stmt, int64_t chunk, lore_str title, lore_str heading,
                               lore_str body, lore_error *err)
{
    lore_bind_int(stmt, 1, chunk);
    lore_bind_text(stmt, 2, title);
    lore_bind_text(stmt, 3, heading);
    lore_bind_text(stmt, 4, body);
    return lore_stmt_run(stmt, err);
}

static lore_status index_fresh(lore_fsck_run *run, void *self, int64_t chunk, lore_str title,
                               lore_str heading, lore_str body, lore_error *err)
{
    text_walk *walk = self;
    char sql[] = "INSERT INTO temp.fsck_fresh(rowid, title, heading, body) VALUES(?1,?2,?3,?4)";
    lore_stmt *stmt = NULL;
    lore_status status = lore_stmt_new(run->db, sql, &stmt, err);
    if (status == LORE_OK) {
        status = index_chunk(stmt, chunk, title, heading, body, err);
    }
    lore_stmt_free(stmt);
    if (status == LORE_OK && ++walk->pending == BATCH) {
        status = flush(run, walk, err);
    }
    return status;
}

/* ---- one collection ---- */

static lore_status list_chunk(lore_fsck_run *run, void *self, int64_t chunk, lore_str title,
                              lore_str heading, lore_str body, lore_error *err)
{
    text_walk *walk = self;
    (void)run, (void)title, (void)heading, (void)body;
    if (walk->count == walk->room) {
        int64_t room = walk->room == 0 ? 1024 : 2 * walk->room;
        int64_t *grown = lore_realloc(walk->ids, (size_t)room * sizeof *grown);
        if (grown == NULL) {
            return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the chunks of a collection");
        }
        walk->ids = grown;
        walk->room = room;
    }
    walk->ids[walk->count++] = chunk;
    return LORE_OK;
}

static int ascending(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static lore_status walk_index(lore_fsck_run *run, text_walk *walk, lore_error *err)
{
    char sql[512], main_table[64];
    long long id = (long long)walk->state->published.collection;
    snprintf(sql, sizeof sql,
             "CREATE VIRTUAL TABLE temp.fsck_words USING fts5vocab(main, text_%lld, instance);"
             "CREATE VIRTUAL TABLE temp.fsck_fresh USING fts5(title, heading, body, content='', "
             "tokenize='porter lore');"
             "CREATE VIRTUAL TABLE temp.fsck_fresh_words USING fts5vocab(temp, fsck_fresh, "
             "instance)",
             id);
    snprintf(main_table, sizeof main_table, "main.text_%lld", id);
    lore_status status = lore_db_exec(run->db, sql, err);
    if (status == LORE_OK) {
        status = each_chunk(run, (int64_t)id, index_fresh, walk, err);
    }
    if (status == LORE_OK) {
        status = flush(run, walk, err);
    }
    if (status == LORE_OK) {
        status = sum_words(run, walk, "fsck_words", true, err);
    }
    return status == LORE_OK ? add_totals(run, walk, main_table, true, err) : status;
}

static lore_status drop_walk(lore_fsck_run *run, lore_error *err)
{
    return lore_db_exec(
        run->db,
        "DROP TABLE IF EXISTS temp.fsck_fresh_words;"
        "DROP TABLE IF EXISTS temp.fsck_fresh; DROP TABLE IF EXISTS temp.fsck_words",
        err);
}

static lore_status note_walk(lore_fsck_run *run, const text_walk *walk, lore_error *err)
{
    lore_status status = LORE_OK;
    bool is_strange = walk->is_strange;
    for (int i = 0; i < TOTALS; i++) {
        is_strange = is_strange || walk->totals[i] != 0;
    }
    for (int64_t i = 0; i < walk->count && status == LORE_OK; i++) {
        if (walk->sums[i] != 0) {
            char name[32];
            snprintf(name, sizeof name, "c_%lld", (long long)walk->ids[i]);
            status = lore_fsck_found(run, LORE_FSCK_FULL_TEXT, lore_str_from(name), err);
            is_strange = false;
        }
    }
    return status == LORE_OK && is_strange
               ? lore_fsck_found(run, LORE_FSCK_FULL_TEXT, lore_str_from(walk->state->name), err)
               : status;
}

/* The table and the four that FTS5 keeps it in. */
static lore_status has_tables(lore_fsck_run *run, int64_t collection, bool *has, lore_error *err)
{
    char sql[256];
    lore_stmt *stmt = NULL;
    bool has_row = false;
    long long id = (long long)collection;
    snprintf(sql, sizeof sql,
             "SELECT count(*) FROM sqlite_schema WHERE name IN ('text_%lld', 'text_%lld_data', "
             "'text_%lld_idx', 'text_%lld_docsize', 'text_%lld_config')",
             id, id, id, id, id);
    lore_status status = lore_stmt_new(run->db, sql, &stmt, err);
    if (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
    }
    *has = status == LORE_OK && has_row && lore_column_int(stmt, 0) == 5;
    lore_stmt_free(stmt);
    return status;
}

lore_status lore_fsck_text(lore_fsck_run *run, const lore_collection_state *state, lore_error *err)
{
    text_walk walk = {.state = state};
    bool has = false;
    lore_error why, dropped;
    lore_status status = has_tables(run, state->published.collection, &has, err);
    if (status == LORE_OK && !has) {
        return lore_fsck_found(run, LORE_FSCK_FULL_TEXT_TABLE, lore_str_from(state->name), err);
    }
    if (status == LORE_OK) {
        status = each_chunk(run, state->published.collection, list_chunk, &walk, err);
    }
    if (walk.count > 0) {
        qsort(walk.ids, (size_t)walk.count, sizeof *walk.ids, ascending);
    }
    walk.sums = lore_alloc_zero((size_t)walk.count + 1, sizeof *walk.sums);
    if (status == LORE_OK && walk.sums == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for the chunks of a collection");
    }
    if (status == LORE_OK) {
        status = walk_index(run, &walk, &why);
        lore_status ended = drop_walk(run, &dropped);
        if (status == LORE_OK && ended != LORE_OK) {
            status = ended;
            why = dropped;
        }
        if (status == LORE_OK) {
            status = note_walk(run, &walk, err);
        } else if (status == LORE_ERR_CORRUPT) { /* FTS5 itself cannot read on */
            status = lore_fsck_found(run, LORE_FSCK_FULL_TEXT, lore_str_from(state->name), err);
        } else {
            *err = why;
        }
    }
    lore_free(walk.sums);
    lore_free(walk.ids);
    return status;
}

/* ---- mending ---- */

static lore_status index_again(lore_fsck_run *run, void *self, int64_t chunk, lore_str title,
                               lore_str heading, lore_str body, lore_error *err)
{
    (void)run;
    return index_chunk(self, chunk, title, heading, body, err);
}

lore_status lore_fsck_mend_text(lore_fsck_run *run, int64_t collection, lore_error *err)
{
    char sql[256];
    lore_stmt *insert = NULL;
    long long id = (long long)collection;
    snprintf(sql, sizeof sql,
             "DROP TABLE IF EXISTS text_%lld;"
             "CREATE VIRTUAL TABLE text_%lld USING fts5(title, heading, body, content='', "
             "tokenize='porter lore')",
             id, id);
    lore_status status = lore_db_exec(run->db, sql, err);
    snprintf(sql, sizeof sql,
             "INSERT INTO text_%lld(rowid, title, heading, body) VALUES(?1,?2,?3,?4)", id);
    if (status == LORE_OK) {
        status = lore_stmt_new(run->db, sql, &insert, err);
    }
    if (status == LORE_OK) {
        status = each_chunk(run, collection, index_again, insert, err);
    }
    lore_stmt_free(insert);
    return status;
}
