/* What the rows of lore.db must have in common, as questions to SQLite, and how they come to have
 * it again.
 *
 * A mend is the same list of statements whatever was found: on rows that are right they change
 * nothing. What cannot be derived goes, whole: a chunk without its vector would be found by words
 * and not by meaning, so a document keeps all of its chunks or none. Its text stays where there is
 * one, and its hash is cleared, so that the next ingest of it writes it anew. */
#include "index/fsck_int.h"

#include <stdio.h>

typedef struct rule {
    lore_fsck_kind kind;
    lore_fsck_harm harm; /* to the document in the second column; 0: none */
    const char *sql;     /* a row each: the subject, and where there is harm the document */
} rule;

static const rule rules[] = {
    {LORE_FSCK_COLLECTION_OF_DOCUMENT, LORE_FSCK_GONE,
     "SELECT external_id, id FROM documents WHERE collection NOT IN (SELECT id FROM collections)"},
    {LORE_FSCK_TEXT_OF_DOCUMENT, LORE_FSCK_GONE,
     "SELECT external_id, id FROM documents WHERE id NOT IN (SELECT document FROM texts)"},
    {LORE_FSCK_DOCUMENT_HASH, LORE_FSCK_REREAD,
     "SELECT external_id, id FROM documents WHERE length(hash)<>32 OR typeof(hash)<>'blob'"},
    {LORE_FSCK_DOCUMENT_CHUNKS, LORE_FSCK_UNCUT,
     "SELECT external_id, id FROM documents d WHERE chunk_count<>(SELECT count(*) FROM chunks c "
     "WHERE c.id>=d.first_chunk AND c.id<d.first_chunk+d.chunk_count AND c.document=d.id AND "
     "c.ordinal=c.id-d.first_chunk)"},
    {LORE_FSCK_DOCUMENT_CHUNKS, LORE_FSCK_UNCUT,
     "SELECT d.external_id, d.id FROM chunks c JOIN documents d ON d.id=c.document WHERE "
     "c.id<d.first_chunk OR c.id>=d.first_chunk+d.chunk_count"},
    {LORE_FSCK_ORPHAN_TEXT, 0,
     "SELECT 'text ' || document FROM texts WHERE document NOT IN (SELECT id FROM documents)"},
    {LORE_FSCK_ORPHAN_PAGES, 0,
     "SELECT 'pages ' || document FROM pages WHERE document NOT IN (SELECT id FROM documents)"},
    {LORE_FSCK_ORPHAN_SKETCH, 0,
     "SELECT 'sketch ' || document FROM sketches WHERE document NOT IN (SELECT id FROM documents)"},
    {LORE_FSCK_ORPHAN_SKETCH, 0,
     "SELECT DISTINCT 'bands ' || b.document FROM bands b LEFT JOIN documents d ON "
     "d.id=b.document AND d.collection=b.collection LEFT JOIN sketches s ON s.document=b.document "
     "WHERE d.id IS NULL OR s.document IS NULL"},
    {LORE_FSCK_NEAR, 0,
     "SELECT 'sketch ' || document FROM sketches WHERE length(data)<>256 OR document NOT IN "
     "(SELECT "
     "id FROM documents)"},
    {LORE_FSCK_NEAR, 0,
     "SELECT 'band ' || b.document FROM bands b LEFT JOIN documents d ON d.id=b.document WHERE "
     "d.id IS NULL OR d.collection<>b.collection OR b.document NOT IN (SELECT document FROM "
     "sketches)"},
    {LORE_FSCK_ORPHAN_CHUNK, 0,
     "SELECT 'c_' || c.id FROM chunks c LEFT JOIN documents d ON d.id=c.document WHERE d.id IS "
     "NULL OR c.id<d.first_chunk OR c.id>=d.first_chunk+d.chunk_count"},
    {LORE_FSCK_ORPHAN_VECTOR, 0,
     "SELECT 'c_' || chunk FROM vectors WHERE chunk NOT IN (SELECT id FROM chunks)"},
    {LORE_FSCK_VECTOR_OF_CHUNK, LORE_FSCK_UNCUT,
     "SELECT DISTINCT d.external_id, d.id FROM chunks c JOIN documents d ON d.id=c.document WHERE "
     "c.id NOT IN (SELECT chunk FROM vectors) AND EXISTS(SELECT 1 FROM meta WHERE key='dim')"},
    {LORE_FSCK_VECTOR_COLLECTION, 0,
     "SELECT 'c_' || v.chunk FROM vectors v JOIN chunks c ON c.id=v.chunk JOIN documents d ON "
     "d.id=c.document WHERE v.collection<>d.collection"},
    {LORE_FSCK_DELETION, 0,
     "SELECT 'chunks from c_' || x.first_chunk FROM deletions x LEFT JOIN collections k ON "
     "k.id=x.collection WHERE k.id IS NULL OR x.sequence>(SELECT value FROM meta WHERE "
     "key='sequence') OR EXISTS(SELECT 1 FROM chunks c WHERE c.id>=x.first_chunk AND "
     "c.id<x.first_chunk+x.chunk_count)"},
    {LORE_FSCK_SEQUENCE, 0,
     "SELECT 'meta' WHERE (SELECT count(*) FROM meta WHERE key IN ('sequence', 'next_chunk') AND "
     "typeof(value)='integer')<>2 OR (SELECT value FROM meta WHERE key='sequence')<(SELECT "
     "ifnull(max(max(changed, base_sequence)), 0) FROM collections)"},
    {LORE_FSCK_NEXT_CHUNK, 0,
     "SELECT 'meta' WHERE (SELECT value FROM meta WHERE key='next_chunk')<=max((SELECT "
     "ifnull(max(id), 0) FROM chunks), (SELECT ifnull(max(chunk), 0) FROM vectors), (SELECT "
     "ifnull(max(base_chunk), 0) FROM collections), (SELECT ifnull(max(first_chunk+chunk_count-1), "
     "0) FROM deletions))"},
    {LORE_FSCK_COUNTERS, 0,
     "SELECT name FROM collections c WHERE documents<>(SELECT count(*) FROM documents d WHERE "
     "d.collection=c.id) OR chunks<>(SELECT total(chunk_count) FROM documents d WHERE "
     "d.collection=c.id)"},
    {LORE_FSCK_FULL_TEXT_TABLE, 0,
     "SELECT name FROM sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL TABLE text_%' AND name NOT IN "
     "(SELECT 'text_' || id FROM collections)"},
};

static lore_status note_row(lore_fsck_run *run, lore_stmt *row, void *self, lore_error *err)
{
    const rule *asked = self;
    return asked->harm == 0
               ? lore_fsck_found(run, asked->kind, lore_column_bytes(row, 0), err)
               : lore_fsck_found_in(run, asked->kind, lore_column_int(row, 1), asked->harm, err);
}

lore_status lore_fsck_rows(lore_fsck_run *run, lore_error *err)
{
    static const char *const harmed =
        "DROP TABLE IF EXISTS temp.harmed;"
        "CREATE TABLE temp.harmed(document INTEGER, kind TEXT, harm INTEGER NOT NULL,"
        "  PRIMARY KEY(document, kind))";
    lore_status status = lore_db_exec(run->db, harmed, err);
    for (size_t i = 0; i < sizeof rules / sizeof rules[0] && status == LORE_OK; i++) {
        rule asked = rules[i];
        status = lore_fsck_each(run, asked.sql, note_row, &asked, err);
    }
    return status;
}

/* ---- mending ---- */

/* In this order: what goes takes with it what hangs on it. */
static const char *const mends[] = {
    "DELETE FROM documents WHERE id IN (SELECT document FROM temp.harmed WHERE harm=3)",
    "DELETE FROM texts WHERE document NOT IN (SELECT id FROM documents)",
    "DELETE FROM pages WHERE document NOT IN (SELECT id FROM documents)",
    "DELETE FROM sketches WHERE document NOT IN (SELECT id FROM documents)",
    "DELETE FROM bands WHERE document NOT IN (SELECT document FROM sketches) OR NOT EXISTS(SELECT "
    "1 "
    "FROM documents d WHERE d.id=bands.document AND d.collection=bands.collection)",
    "DELETE FROM sketches WHERE length(data)<>256 OR document NOT IN (SELECT id FROM documents)",
    "DELETE FROM bands WHERE document NOT IN (SELECT document FROM sketches) OR "
    "collection<>(SELECT "
    "d.collection FROM documents d WHERE d.id=bands.document)",
    "DELETE FROM pages WHERE document IN (SELECT document FROM temp.harmed WHERE "
    "kind='page_offsets')",
    "UPDATE texts SET runs=x'' WHERE document IN (SELECT document FROM temp.harmed WHERE "
    "kind='source_offsets')",
    "UPDATE documents SET metadata='{}' WHERE id IN (SELECT document FROM temp.harmed WHERE "
    "kind='document_metadata')",
    "UPDATE documents SET first_chunk=1, chunk_count=0 WHERE id IN (SELECT document FROM "
    "temp.harmed WHERE "
    "harm=2)",
    "UPDATE documents SET hash=zeroblob(32) WHERE id IN (SELECT document FROM temp.harmed)",
    "DELETE FROM chunks WHERE id IN (SELECT c.id FROM chunks c LEFT JOIN documents d ON "
    "d.id=c.document WHERE d.id IS NULL OR c.id<d.first_chunk OR "
    "c.id>=d.first_chunk+d.chunk_count)",
    "DELETE FROM vectors WHERE chunk NOT IN (SELECT id FROM chunks)",
    "UPDATE vectors SET collection=(SELECT d.collection FROM chunks c JOIN documents d ON "
    "d.id=c.document WHERE c.id=vectors.chunk) WHERE collection<>(SELECT d.collection FROM chunks "
    "c "
    "JOIN documents d ON d.id=c.document WHERE c.id=vectors.chunk)",
    "UPDATE collections SET documents=(SELECT count(*) FROM documents d WHERE "
    "d.collection=collections.id), chunks=(SELECT ifnull(sum(chunk_count), 0) FROM documents d "
    "WHERE d.collection=collections.id)",
    "INSERT OR REPLACE INTO meta VALUES('next_chunk', max(1, (SELECT ifnull(max(value), 0) FROM "
    "meta WHERE key='next_chunk' AND typeof(value)='integer'), (SELECT ifnull(max(id), 0)+1 FROM "
    "chunks), (SELECT ifnull(max(base_chunk), 0)+1 FROM collections), (SELECT "
    "ifnull(max(first_chunk+chunk_count), 0) FROM documents)))",
    /* A commit of its own, so that whoever reads loads everything anew. */
    "INSERT OR REPLACE INTO meta VALUES('sequence', 1 + max((SELECT ifnull(max(value), 0) FROM "
    "meta "
    "WHERE key='sequence' AND typeof(value)='integer'), (SELECT ifnull(max(max(changed, "
    "base_sequence)), 0) FROM collections)))",
};

/* Vector files are made from the rows again: what they cover and what died since is forgotten. */
static const char *const forget_files[] = {
    "DELETE FROM deletions",
    "UPDATE collections SET changed=(SELECT value FROM meta WHERE key='sequence'), generation=0, "
    "base_sequence=0, base_chunk=0, vec_count=0, vec_checksum=0, ann_size=NULL, ann_checksum=NULL",
};

static lore_status run_all(lore_db *db, const char *const *statements, size_t count,
                           lore_error *err)
{
    lore_status status = LORE_OK;
    for (size_t i = 0; i < count && status == LORE_OK; i++) {
        status = lore_db_exec(db, statements[i], err);
    }
    return status;
}

/* Of tables that no collection has. */
static lore_status drop_tables(lore_fsck_run *run, lore_error *err)
{
    static const char *const sql =
        "SELECT name FROM sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL TABLE text_%' AND name NOT "
        "IN (SELECT 'text_' || id FROM collections) LIMIT 1";
    for (;;) {
        lore_stmt *stmt = NULL;
        bool has_row = false;
        char drop[256];
        lore_status status = lore_stmt_new(run->db, sql, &stmt, err);
        if (status == LORE_OK) {
            status = lore_stmt_step(stmt, &has_row, err);
        }
        if (status == LORE_OK && has_row) {
            snprintf(drop, sizeof drop, "DROP TABLE \"" LORE_STR_FMT "\"",
                     LORE_STR_ARG(lore_column_bytes(stmt, 0)));
        }
        lore_stmt_free(stmt);
        if (status != LORE_OK || !has_row) {
            return status;
        }
        status = lore_db_exec(run->db, drop, err);
        if (status != LORE_OK) {
            return status;
        }
    }
}

static bool has_any(const lore_fsck_run *run, lore_fsck_kind from, lore_fsck_kind to)
{
    for (lore_fsck_kind kind = from; kind <= to; kind++) {
        if (run->notes[kind].count > 0) {
            return true;
        }
    }
    return false;
}

static lore_status mend_texts(lore_fsck_run *run, lore_error *err)
{
    static const char *const next = "SELECT min(id) FROM collections WHERE id>?1";
    lore_status status = drop_tables(run, err);
    int64_t id = 0;
    while (status == LORE_OK) {
        lore_stmt *stmt = NULL;
        bool has_row = false;
        status = lore_db_statement(run->db, next, &stmt, err);
        if (status == LORE_OK) {
            lore_bind_int(stmt, 1, id);
            status = lore_stmt_step(stmt, &has_row, err);
        }
        if (status != LORE_OK || lore_column_is_null(stmt, 0)) {
            break;
        }
        id = lore_column_int(stmt, 0);
        lore_stmt_reset(stmt);
        status = lore_fsck_mend_text(run, id, err);
    }
    return status;
}

lore_status lore_fsck_mend_rows(lore_fsck_run *run, lore_error *err)
{
    lore_status status = run_all(run->db, mends, sizeof mends / sizeof mends[0], err);
    bool is_row = has_any(run, LORE_FSCK_COLLECTION_OF_DOCUMENT, LORE_FSCK_NEXT_CHUNK);
    if (status == LORE_OK &&
        (is_row || has_any(run, LORE_FSCK_FULL_TEXT, LORE_FSCK_FULL_TEXT_TABLE))) {
        status = mend_texts(run, err);
        is_row = true; /* files hold the lengths of texts */
    }
    if (status == LORE_OK && (is_row || run->notes[LORE_FSCK_VECTOR_FILE].count > 0)) {
        status = run_all(run->db, forget_files, sizeof forget_files / sizeof forget_files[0], err);
    }
    return status;
}
