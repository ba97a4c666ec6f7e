/* Databases of earlier formats, as they were released, with documents in them. */
#ifndef LORE_TESTS_FORMAT_FIXTURE_H
#define LORE_TESTS_FORMAT_FIXTURE_H

#define ZEROS_30 "000000000000000000000000000000000000000000000000000000000000"

/* Format 1 as it was released: this text never changes, nor do those that follow it. */
static const char format_1[] =
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE collections(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
    "  created_ms INTEGER NOT NULL, documents INTEGER NOT NULL DEFAULT 0,"
    "  chunks INTEGER NOT NULL DEFAULT 0, changed INTEGER NOT NULL,"
    "  fusion_weight REAL, refusal TEXT NOT NULL DEFAULT '',"
    "  generation INTEGER NOT NULL DEFAULT 0, base_sequence INTEGER NOT NULL DEFAULT 0,"
    "  base_chunk INTEGER NOT NULL DEFAULT 0, vec_count INTEGER NOT NULL DEFAULT 0,"
    "  vec_checksum INTEGER NOT NULL DEFAULT 0, ann_size INTEGER, ann_checksum INTEGER);"
    "CREATE TABLE documents(id INTEGER PRIMARY KEY AUTOINCREMENT, collection INTEGER NOT NULL,"
    "  external_id TEXT NOT NULL, source TEXT NOT NULL, title TEXT NOT NULL, url TEXT NOT NULL,"
    "  metadata TEXT NOT NULL, media TEXT NOT NULL, hash BLOB NOT NULL, updated_ms INTEGER NOT "
    "NULL, first_chunk INTEGER NOT NULL, chunk_count INTEGER NOT NULL,"
    "  UNIQUE(collection, external_id));"
    "CREATE TABLE texts(document INTEGER PRIMARY KEY, runs BLOB NOT NULL, text BLOB NOT NULL);"
    "CREATE TABLE chunks(id INTEGER PRIMARY KEY, document INTEGER NOT NULL, ordinal INTEGER NOT "
    "NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, heading TEXT NOT NULL);"
    "CREATE TABLE vectors(chunk INTEGER PRIMARY KEY, collection INTEGER NOT NULL, data BLOB NOT "
    "NULL);"
    "CREATE INDEX vectors_by_collection ON vectors(collection);"
    "CREATE TABLE deletions(collection INTEGER, sequence INTEGER, first_chunk INTEGER,"
    "  chunk_count INTEGER, PRIMARY KEY(collection, sequence, first_chunk)) WITHOUT ROWID;"
    "CREATE VIRTUAL TABLE text_1 USING fts5(title, heading, body, content='', "
    "tokenize='porter lore');"
    "INSERT INTO meta VALUES('sequence',3),('next_chunk',3),('encoder','encoder-1'),('dim',32);"
    "INSERT INTO collections(id, name, created_ms, documents, chunks, changed, fusion_weight,"
    "  refusal) VALUES(1, 'default', 1700000000000, 1, 2, 3, 0.25, 'none');"
    "INSERT INTO documents VALUES(1, 1, 'a', 'kb/a.md', 'Title', '', '{}', 'text/markdown',"
    "  zeroblob(32), 1700000000000, 1, 2);"
    "INSERT INTO texts VALUES(1, x'', CAST('ships sail 船隻航行' AS BLOB));"
    "INSERT INTO chunks VALUES(1, 1, 0, 0, 11, 'H'), (2, 1, 1, 11, 23, 'H');"
    "INSERT INTO vectors VALUES"
    "  (1, 1, x'003C0000" ZEROS_30 ZEROS_30 "'), (2, 1, x'0000003C" ZEROS_30 ZEROS_30 "');"
    "INSERT INTO text_1(rowid, title, heading, body) VALUES(1, 'Title', 'H', 'ships sail '),"
    "  (2, 'Title', 'H', '船隻航行');"
    "PRAGMA application_id=0x4C4F5245; PRAGMA user_version=1;";

#undef ZEROS_30
#endif
