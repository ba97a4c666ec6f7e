/* The tables of lore.db, and how a folder of an earlier version comes to have them.
 *
 * The schema is what all steps make, one after the other; step n makes format n of format n - 1,
 * and a new database takes them all. So a folder that was brought forward and one that was made
 * today cannot differ. A step never changes once a release had it: what is wrong with it is mended
 * by the next. All that a folder lacks is done in one transaction, by the first writer that opens
 * it; after a crash or a failure the folder is as it was, and the earlier version still reads it.
 */
#include "index/schema_int.h"

#include "base/log.h"

#include <stdio.h>

enum { APPLICATION = 0x4C4F5245 }; /* "LORE" */

/* formats.md §1. */
static const char *const steps[] = {
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "INSERT INTO meta VALUES('sequence',0),('next_chunk',1);"
    "CREATE TABLE collections(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
    "  created_ms INTEGER NOT NULL, documents INTEGER NOT NULL DEFAULT 0,"
    "  chunks INTEGER NOT NULL DEFAULT 0, changed INTEGER NOT NULL,"
    "  fusion_weight REAL, refusal TEXT NOT NULL DEFAULT '',"
    "  generation INTEGER NOT NULL DEFAULT 0, base_sequence INTEGER NOT NULL DEFAULT 0,"
    "  base_chunk INTEGER NOT NULL DEFAULT 0, vec_count INTEGER NOT NULL DEFAULT 0,"
    "  vec_checksum INTEGER NOT NULL DEFAULT 0, ann_size INTEGER, ann_checksum INTEGER);"
    "CREATE TABLE documents(id INTEGER PRIMARY KEY AUTOINCREMENT, collection INTEGER NOT NULL,"
    "  external_id TEXT NOT NULL, source TEXT NOT NULL, title TEXT NOT NULL, url TEXT NOT NULL,"
    "  metadata TEXT NOT NULL, media TEXT NOT NULL, hash BLOB NOT NULL,"
    "  updated_ms INTEGER NOT NULL, first_chunk INTEGER NOT NULL, chunk_count INTEGER NOT NULL,"
    "  UNIQUE(collection, external_id));"
    "CREATE TABLE texts(document INTEGER PRIMARY KEY, runs BLOB NOT NULL, text BLOB NOT NULL);"
    "CREATE TABLE chunks(id INTEGER PRIMARY KEY, document INTEGER NOT NULL,"
    "  ordinal INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,"
    "  heading TEXT NOT NULL);"
    "CREATE TABLE vectors(chunk INTEGER PRIMARY KEY, collection INTEGER NOT NULL,"
    "  data BLOB NOT NULL);"
    "CREATE INDEX vectors_by_collection ON vectors(collection);"
    "CREATE TABLE deletions(collection INTEGER, sequence INTEGER, first_chunk INTEGER,"
    "  chunk_count INTEGER, PRIMARY KEY(collection, sequence, first_chunk)) WITHOUT ROWID;"
    "PRAGMA application_id=0x4C4F5245",

    "CREATE TABLE pages(document INTEGER PRIMARY KEY, starts BLOB NOT NULL)",

    "ALTER TABLE documents ADD COLUMN version INTEGER NOT NULL DEFAULT 1",

    "ALTER TABLE documents ADD COLUMN near INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE sketches(document INTEGER PRIMARY KEY, data BLOB NOT NULL);"
    "CREATE TABLE bands(collection INTEGER, key INTEGER, document INTEGER,"
    "  PRIMARY KEY(collection, key, document)) WITHOUT ROWID",

    "ALTER TABLE documents ADD COLUMN validators TEXT NOT NULL DEFAULT ''",

    "ALTER TABLE collections ADD COLUMN chunk_tokens INTEGER;"
    "ALTER TABLE collections ADD COLUMN chunk_overlap INTEGER",

    "ALTER TABLE collections ADD COLUMN expansion REAL",

    "CREATE TABLE next_vectors(chunk INTEGER PRIMARY KEY, data BLOB NOT NULL)",
};
enum { FORMAT = sizeof steps / sizeof steps[0] };

int64_t lore_schema_format(void)
{
    return FORMAT;
}

const char *lore_schema_step(int64_t format)
{
    LORE_ASSERT(format >= 1 && format <= FORMAT);
    return steps[format - 1];
}

lore_status lore_schema_read(const char *path, lore_db *db, int64_t *format, lore_error *err)
{
    lore_db_identity identity;
    lore_status status = lore_db_identify(db, &identity, err);
    if (status != LORE_OK) {
        return status;
    }
    if (!identity.is_empty && identity.application != APPLICATION) {
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s' is a database of something else", path);
    }
    if (identity.format > FORMAT) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "'%s' has format %lld, written by a later version of lore; this one reads "
                         "formats up to %d",
                         path, (long long)identity.format, (int)FORMAT);
    }
    if (!identity.is_empty && identity.format < 1) {
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s' is damaged: it has format %lld", path,
                         (long long)identity.format);
    }
    *format = identity.format;
    return LORE_OK;
}

lore_status lore_schema_check(const char *path, lore_db *db, lore_error *err)
{
    int64_t format = 0;
    lore_status status = lore_schema_read(path, db, &format, err);
    if (status == LORE_OK && format == 0) {
        return lore_fail(err, LORE_ERR_NOT_FOUND, "'%s' holds no index yet", path);
    }
    if (status == LORE_OK && format < FORMAT) {
        return lore_fail(
            err, LORE_ERR_UNSUPPORTED,
            "'%s' has format %lld of an earlier version of lore, and reading needs %d: "
            "what writes to the folder (serve, ingest) brings it forward first",
            path, (long long)format, (int)FORMAT);
    }
    return status;
}

static lore_status take_steps(lore_index *index, int64_t from, lore_error *err)
{
    lore_db *db = index->writer;
    char mark[64];
    lore_status status = lore_db_exec(db, "BEGIN IMMEDIATE", err);
    for (int64_t next = from + 1; next <= FORMAT && status == LORE_OK; next++) {
        status = lore_db_exec(db, lore_schema_step(next), err);
    }
    if (status == LORE_OK && from == 0) {
        status = lore_collection_insert(index, LORE_STR("default"), err);
    }
    snprintf(mark, sizeof mark, "PRAGMA user_version=%d", (int)FORMAT);
    if (status == LORE_OK) {
        status = lore_db_exec(db, mark, err);
    }
    if (status == LORE_OK) {
        status = lore_db_exec(db, "COMMIT", err);
    }
    if (status != LORE_OK) {
        (void)lore_db_rollback(db); /* opening fails: the connection goes anyway */
    }
    return status;
}

lore_status lore_schema_upgrade(lore_index *index, lore_error *err)
{
    int64_t format = 0;
    lore_status status = lore_schema_read(index->path, index->writer, &format, err);
    if (status != LORE_OK || format == FORMAT) {
        return status;
    }
    status = take_steps(index, format, err);
    if (format == 0) {
        return status;
    }
    if (status != LORE_OK) {
        return lore_error_prefix(err, "bringing format %lld forward to %d", (long long)format,
                                 (int)FORMAT);
    }
    lore_log(LORE_LOG_INFO, "event=index_upgraded path=\"%s\" from=%lld to=%d", index->path,
             (long long)format, (int)FORMAT);
    return LORE_OK;
}
