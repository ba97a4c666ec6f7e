/* Each kind of damage is found by its name, beside and without a writer; a repair makes the folder
 * whole again and says what is lost; nothing is changed that is right. */
#include "index/fsck.h"
#include "index/schema_int.h"
#include "tests/fault/index_check.h"
#include "tests/unit/format_fixture.h"
#include "tests/unit/index_fixture.h"

#include <unistd.h>

typedef struct damage {
    const char *sql;     /* done to a whole folder */
    const char *finding; /* what it is called */
    const char *subject; /* that is named; NULL: any */
    bool is_loss;
} damage;

/* Folders hold document a (chunks 1..3) and b (4..6) of collection 1, and of collection 2 c (7). */
static const damage damages[] = {
    {"UPDATE documents SET collection=77 WHERE id=2", "document_without_collection", "b", true},
    {"DELETE FROM texts WHERE document=1", "document_without_text", "a", true},
    {"UPDATE documents SET title=CAST(x'ff41' AS TEXT) WHERE id=1", "document_not_utf8", "a", true},
    {"UPDATE texts SET text=x'f0288cbc61626364656667686970' WHERE document=2", "document_not_utf8",
     "b", true},
    {"UPDATE documents SET metadata='[1]' WHERE id=2", "document_metadata", "b", true},
    {"UPDATE documents SET hash=x'00' WHERE id=2", "document_hash", "b", false},
    {"UPDATE documents SET chunk_count=2 WHERE id=1", "document_chunks", "a", true},
    {"DELETE FROM chunks WHERE id=5", "document_chunks", "b", true},
    {"UPDATE chunks SET ordinal=9 WHERE id=5", "document_chunks", "b", true},
    {"UPDATE chunks SET end=1000 WHERE id=2", "chunk_offsets", "a", true},
    {"UPDATE chunks SET start=end+1 WHERE id=2", "chunk_offsets", "a", true},
    {"UPDATE chunks SET end=2 WHERE id=7", "chunk_offsets", "c", true}, /* inside a character */
    {"UPDATE texts SET runs=x'00112233' WHERE document=1", "source_offsets", "a", true},
    {"UPDATE texts SET runs=x'050000000000000001000000040000000100000001000000' WHERE document=1",
     "source_offsets", "a", true}, /* not ascending */
    {"UPDATE texts SET runs=x'000000000000000007000000' WHERE document=1", "source_offsets", "a",
     true},
    {"INSERT INTO pages VALUES(1, x'00000000ff000000')", "page_offsets", "a", true},
    {"INSERT INTO pages VALUES(3, x'0000000002000000')", "page_offsets", "c", true},
    {"INSERT INTO texts VALUES(99, x'', x'61')", "text_without_document", "text 99", false},
    {"INSERT INTO pages VALUES(99, x'')", "pages_without_document", "pages 99", false},
    {"INSERT INTO sketches VALUES(99, x'00')", "sketch_without_document", "sketch 99", false},
    {"INSERT INTO bands VALUES(1, 5, 2)", "sketch_without_document", "bands 2", false},
    {"INSERT INTO sketches VALUES(99, zeroblob(256))", "near_duplicates", "sketch 99", false},
    {"INSERT INTO sketches VALUES(1, zeroblob(7))", "near_duplicates", "sketch 1", false},
    {"INSERT INTO bands VALUES(1, 5, 99)", "near_duplicates", "band 99", false},
    {"INSERT INTO bands VALUES(2, 5, 1)", "near_duplicates", "band 1", false},
    {"INSERT INTO chunks VALUES(8, 99, 0, 0, 1, '')", "chunk_without_document", "c_8", false},
    {"INSERT INTO vectors SELECT 8, 1, data FROM vectors WHERE chunk=1", "vector_without_chunk",
     "c_8", false},
    {"DELETE FROM vectors WHERE chunk=4", "chunk_without_vector", "b", true},
    {"UPDATE vectors SET collection=2 WHERE chunk=4", "vector_collection", "c_4", false},
    {"UPDATE vectors SET data=zeroblob(64) WHERE chunk=1", "vector_damaged", "a", true},
    {"UPDATE vectors SET data=x'0102' WHERE chunk=7", "vector_damaged", "c", true},
    {"UPDATE vectors SET data=CAST(x'00fc' || data AS BLOB) WHERE chunk=7", "vector_damaged", "c",
     true},
    {"INSERT INTO deletions VALUES(1, 2, 1, 1)", "deletions", "chunks from c_1", false},
    {"INSERT INTO deletions VALUES(9, 1, 500, 1)", "deletions", NULL, false},
    {"INSERT INTO deletions VALUES(1, 999, 500, 1)", "deletions", NULL, false},
    {"UPDATE meta SET value=0 WHERE key='sequence'", "sequence", "meta", false},
    {"DELETE FROM meta WHERE key='next_chunk'", "sequence", "meta", false},
    {"UPDATE meta SET value=7 WHERE key='next_chunk'", "next_chunk", "meta", false},
    {"UPDATE collections SET documents=9 WHERE id=2", "counters", "second", false},
    {"UPDATE collections SET chunks=0 WHERE id=1", "counters", "default", false},
    {"INSERT INTO text_1(rowid, title, heading, body) VALUES(999, 'a', 'b', 'c')", "full_text",
     "default", false},
    {"INSERT INTO text_1(text_1, rowid, title, heading, body) VALUES('delete', 2, '', '', 'berth')",
     "full_text", "c_2", false},
    {"INSERT INTO text_1(rowid, title, heading, body) VALUES(2, '', '', 'more')", "full_text",
     "c_2", false},
    {"DELETE FROM text_1_docsize WHERE id=3", "full_text", "c_3", false},
    {"UPDATE text_2_data SET block=x'63' WHERE id=1", "full_text", "second", false},
    {"UPDATE text_2_data SET block=zeroblob(40) WHERE id>10", "full_text", NULL, false},
    {"DROP TABLE text_2", "full_text_table", "second", false},
    {"CREATE VIRTUAL TABLE text_7 USING fts5(title, content='', tokenize='porter lore')",
     "full_text_table", "text_7", false},
};

static void make_folder(fixture *f)
{
    lore_error err;
    fix_open(f, true);
    CHECK_OK(lore_index_create_collection(f->index, LORE_STR("second"), &err), &err);
    fix_put_one(f->index, "default", "a", "berth nine is free, the pilot waits", "", 3, 1);
    fix_put_one(f->index, "default", "b", "boats of more than nine metres", "{\"k\":1}", 3, 10);
    fix_put_one(f->index, "second", "c", "船隻航行", "", 1, 20);
    fix_close(f);
}

static void run_sql(const fixture *f, const char *file, const char *sql)
{
    lore_error err;
    char path[512];
    lore_db *db = NULL;
    snprintf(path, sizeof path, "%s/%s", f->folder, file);
    CHECK_OK(lore_db_open(path, true, &db, &err), &err);
    CHECK_OK(lore_db_exec(db, sql, &err), &err);
    lore_db_close(db);
}

static void check(const fixture *f, bool repair, lore_arena *arena, lore_fsck_report *report)
{
    lore_error err;
    const lore_fsck_options options = {&f->config, f->backend, repair};
    CHECK_OK(lore_fsck(f->folder, &options, arena, report, &err), &err);
}

static const lore_fsck_finding *find(const lore_fsck_report *report, const char *name)
{
    for (int32_t i = 0; i < report->count; i++) {
        if (strcmp(report->findings[i].name, name) == 0) {
            return &report->findings[i];
        }
    }
    return NULL;
}

static bool names(const lore_fsck_finding *finding, const char *subject)
{
    bool is_named = subject == NULL;
    for (int32_t i = 0; i < finding->subject_count; i++) {
        is_named = is_named || lore_str_starts(finding->subjects[i], lore_str_from(subject));
    }
    return is_named;
}

/* Whatever else a damage breaks with it, its own name is among the findings. */
static const lore_fsck_finding *must_find(const lore_fsck_report *report, const damage *done)
{
    const lore_fsck_finding *finding = find(report, done->finding);
    if (finding == NULL || !names(finding, done->subject)) {
        CHECK_STOP("not found after '%s': %s (%d other findings)", done->sql, done->finding,
                   report->count);
    }
    return finding;
}

static void check_damage(fixture *f, const damage *done)
{
    lore_arena arena;
    lore_fsck_report report;
    lore_arena_init(&arena, 0);
    run_sql(f, "lore.db", done->sql);
    check(f, false, &arena, &report);
    const lore_fsck_finding *finding = must_find(&report, done);
    CHECK_INT(finding->is_loss, done->is_loss);
    CHECK(!finding->is_mended);
    check(f, true, &arena, &report);
    (void)must_find(&report, done);
    for (int32_t i = 0; i < report.count; i++) {
        if (!report.findings[i].is_mended) {
            CHECK_STOP("not mended after '%s': %s", done->sql, report.findings[i].name);
        }
    }
    check(f, false, &arena, &report);
    CHECK_INT(report.count, 0);
    fix_open(f, true);
    if (index_check_all(f->index) != 0) {
        CHECK_STOP("not whole after '%s'", done->sql);
    }
    fix_close(f);
    lore_arena_destroy(&arena);
}

TEST(rows)
{
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        fixture f;
        char name[32];
        snprintf(name, sizeof name, "rows-%zu", i);
        fix_init(&f, name);
        make_folder(&f);
        check_damage(&f, &damages[i]);
        fix_destroy(&f);
    }
}

/* A whole folder has no findings, and looking leaves every byte of the database as it was. */
TEST(whole)
{
    fixture f;
    lore_error err;
    lore_arena arena;
    lore_fsck_report report;
    lore_buf before, after;
    char path[512];
    lore_arena_init(&arena, 0);
    lore_buf_init(&before, 0);
    lore_buf_init(&after, 0);
    fix_init(&f, "whole");
    const lore_fsck_options options = {&f.config, f.backend, false};
    CHECK_FAILS(lore_fsck(f.folder, &options, &arena, &report, &err), LORE_ERR_NOT_FOUND, &err,
                "holds no index");
    make_folder(&f);
    snprintf(path, sizeof path, "%s/lore.db", f.folder);
    CHECK_OK(lore_file_read(path, 1 << 24, &before, &err), &err);
    check(&f, false, &arena, &report);
    CHECK_INT(report.count, 0);
    CHECK_INT(report.documents, 3);
    CHECK_INT(report.chunks, 7);
    CHECK_INT(report.vectors, 7);
    CHECK(!report.is_served);
    check(&f, true, &arena, &report); /* nothing to mend: nothing written */
    CHECK_OK(lore_file_read(path, 1 << 24, &after, &err), &err);
    CHECK(lore_str_equal(lore_buf_str(&before), lore_buf_str(&after)));
    lore_buf_destroy(&before);
    lore_buf_destroy(&after);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* An earlier format is named, and brought forward where it may be. */
TEST(earlier_format)
{
    fixture f;
    lore_error err;
    lore_arena arena;
    lore_fsck_report report;
    lore_arena_init(&arena, 0);
    fix_init(&f, "earlier");
    CHECK_OK(lore_dir_make(f.folder, &err), &err);
    run_sql(&f, "lore.db", format_1);
    const lore_fsck_options options = {&f.config, f.backend, false};
    CHECK_FAILS(lore_fsck(f.folder, &options, &arena, &report, &err), LORE_ERR_UNSUPPORTED, &err,
                "of an earlier version");
    check(&f, true, &arena, &report);
    CHECK_INT(report.count, 0);
    CHECK_INT(report.documents, 1);
    check(&f, false, &arena, &report);
    CHECK_INT(report.count, 0);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* Beside a writer: it is looked at, damage is found, and a repair is refused. */
TEST(served)
{
    fixture f;
    lore_error err;
    lore_arena arena;
    lore_fsck_report report;
    lore_arena_init(&arena, 0);
    fix_init(&f, "served");
    make_folder(&f);
    fix_open(&f, true);
    check(&f, false, &arena, &report);
    CHECK_INT(report.count, 0);
    CHECK(report.is_served);
    CHECK_OK(lore_db_exec(f.index->writer, "DELETE FROM texts WHERE document=1", &err), &err);
    check(&f, false, &arena, &report);
    CHECK(find(&report, "document_without_text") != NULL);
    const lore_fsck_options options = {&f.config, f.backend, true};
    CHECK_FAILS(lore_fsck(f.folder, &options, &arena, &report, &err), LORE_ERR_BUSY, &err,
                "stop it to repair");
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* Enough vectors for a file of them and, with a low bound, for an inverted one. */
static void make_large(fixture *f)
{
    lore_error err;
    f->config.ann_min_vectors = 1000;
    fix_open(f, true);
    CHECK_OK(lore_index_begin(f->index, &err), &err);
    for (uint64_t i = 0; i < 24; i++) {
        char id[16];
        snprintf(id, sizeof id, "d%d", (int)i);
        CHECK_OK(fix_put(f->index, "default", id,
                         "some words that are long enough to be cut into sixty pieces of one or "
                         "two bytes each, more or less, and then a few more of them",
                         "", 60, 100 * i, NULL, &err),
                 &err);
    }
    CHECK_OK(lore_index_commit(f->index, &err), &err);
    CHECK_OK(lore_index_publish(f->index, &err), &err);
    fix_settle(f);
    fix_delete_one(f->index, "default", "d3"); /* dead rows are in the file and may be */
    fix_close(f);
}

static void mend_files(fixture *f, const char *finding, const char *subject)
{
    lore_arena arena;
    lore_fsck_report report;
    const damage done = {"a file", finding, subject, false};
    lore_arena_init(&arena, 0);
    check(f, false, &arena, &report);
    (void)must_find(&report, &done);
    check(f, true, &arena, &report);
    CHECK(must_find(&report, &done)->is_mended);
    check(f, false, &arena, &report);
    CHECK_INT(report.count, 0);
    lore_arena_destroy(&arena);
}

/* Damaged, missing, stale and stray files. */
TEST(files)
{
    fixture f;
    lore_error err;
    lore_arena arena;
    lore_fsck_report report;
    char vectors[512], inverted[512], path[512];
    lore_arena_init(&arena, 0);
    fix_init(&f, "files");
    make_large(&f);
    snprintf(vectors, sizeof vectors, "%s/vec-1-1.i8", f.folder);
    snprintf(inverted, sizeof inverted, "%s/ann-1.ivf", f.folder);
    CHECK(lore_file_exists(vectors) && lore_file_exists(inverted));
    check(&f, false, &arena, &report);
    CHECK_INT(report.count, 0);
    CHECK_INT(report.files, 2);
    fix_damage(vectors, 40000);
    mend_files(&f, "vector_file", "vec-1-1.i8 (damaged)");
    CHECK(remove(vectors) == 0);
    mend_files(&f, "vector_file", "vec-1-1.i8 (missing)");
    fix_damage(inverted, 20000);
    mend_files(&f, "inverted_file", "ann-1.ivf (damaged)");
    CHECK(remove(inverted) == 0);
    mend_files(&f, "inverted_file", "ann-1.ivf (missing)");
    run_sql(&f, "lore.db",
            "UPDATE vectors SET data=(SELECT data FROM vectors WHERE chunk=70) "
            "WHERE chunk=71");
    mend_files(&f, "vector_file", "vec-1-1.i8 (not made of these rows)");
    for (int i = 0; i < 3; i++) {
        static const char *const strays[] = {"vec-1-9.i8", "ann-4.ivf", "vec-1-2.i8.tmp"};
        snprintf(path, sizeof path, "%s/%s", f.folder, strays[i]);
        CHECK_OK(lore_file_replace(path, LORE_STR("x"), &err), &err);
        mend_files(&f, "stray_file", strays[i]);
        CHECK(!lore_file_exists(path));
    }
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* A request log that cannot be read makes way; a database that cannot be read is only said to be.
 */
TEST(databases)
{
    fixture f;
    lore_error err;
    lore_arena arena;
    lore_fsck_report report;
    char path[512];
    lore_arena_init(&arena, 0);
    fix_init(&f, "databases");
    make_folder(&f);
    snprintf(path, sizeof path, "%s/log.db", f.folder);
    CHECK_OK(lore_file_replace(path,
                               LORE_STR("no database, whatever its name may say, and as long "
                                        "as that of one would be, more than a hundred bytes"),
                               &err),
             &err);
    const damage log = {"log.db", "request_log", NULL, true};
    check(&f, false, &arena, &report);
    (void)must_find(&report, &log);
    check(&f, true, &arena, &report);
    CHECK(must_find(&report, &log)->is_mended);
    CHECK(!lore_file_exists(path));
    snprintf(path, sizeof path, "%s/lore.db", f.folder);
    fix_damage(path, 3 * 4096 + 3); /* the header of a page of a table */
    const damage database = {"a page", "database", NULL, true};
    check(&f, true, &arena, &report);
    CHECK(!must_find(&report, &database)->is_mended);
    fix_damage(path, 0);
    check(&f, false, &arena, &report);
    CHECK(!must_find(&report, &database)->is_mended);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* An index of SQLite's that does not fit its table is made anew. */
TEST(index_of_a_table)
{
    fixture f;
    lore_arena arena;
    lore_fsck_report report;
    lore_arena_init(&arena, 0);
    fix_init(&f, "reindex");
    make_folder(&f);
    run_sql(&f, "lore.db",
            "PRAGMA writable_schema=1; CREATE TABLE kept(rootpage); INSERT INTO kept SELECT "
            "rootpage FROM sqlite_schema WHERE name='vectors_by_collection'; DELETE FROM "
            "sqlite_schema WHERE name='vectors_by_collection'");
    run_sql(&f, "lore.db",
            "INSERT INTO vectors SELECT 8, 1, data FROM vectors WHERE chunk=1; PRAGMA "
            "writable_schema=1; INSERT INTO sqlite_schema SELECT 'index', 'vectors_by_collection', "
            "'vectors', rootpage, 'CREATE INDEX vectors_by_collection ON vectors(collection)' FROM "
            "kept; DROP TABLE kept");
    const damage done = {"an index", "database", NULL, true};
    check(&f, true, &arena, &report);
    CHECK(must_find(&report, &done)->is_mended);
    check(&f, true, &arena, &report); /* and then the vector of no chunk is seen */
    CHECK(find(&report, "vector_without_chunk") != NULL);
    check(&f, false, &arena, &report);
    CHECK_INT(report.count, 0);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

CHECK_MAIN(rows, whole, earlier_format, served, files, databases, index_of_a_table)
