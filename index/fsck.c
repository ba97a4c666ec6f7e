/* Looking at a data folder, and mending it: the order of things.
 *
 *   look    in one read transaction: SQLite's own check, rules over rows, documents, and for each
 *           collection its vectors, files and full-text index; then strays and the request log
 *   mend    with the folder's lock, look and mend rows in one write transaction; then the files:
 *           strays go, a damaged request log is set aside, and the index is opened as any writer
 *           opens it, which makes vector files anew
 *   look    again: what is not found any more is mended
 *
 * A database that SQLite itself finds damaged is not mended beyond its indexes: rows that it cannot
 * read may be anything, and a backup is better than a guess. */
#include "index/fsck_int.h"

#include "base/clock.h"
#include "index/schema_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { NAMES_MAX = 100000, REBUILD_SECONDS = 24 * 3600 };

static const struct {
    const char *name, *what;
    bool is_loss;
} kinds[LORE_FSCK_KINDS] = {
    [LORE_FSCK_DATABASE] = {"database", "the database itself is damaged: restore a backup", true},
    [LORE_FSCK_COLLECTION_OF_DOCUMENT] = {"document_without_collection",
                                          "documents of no collection: they go", true},
    [LORE_FSCK_TEXT_OF_DOCUMENT] = {"document_without_text",
                                    "documents without their text: they go, ingest them again",
                                    true},
    [LORE_FSCK_DOCUMENT_FIELDS] = {"document_not_utf8",
                                   "documents that are not UTF-8: they go, ingest them again",
                                   true},
    [LORE_FSCK_DOCUMENT_METADATA] =
        {"document_metadata", "documents whose metadata is no JSON object: ingest them again",
         true},
    [LORE_FSCK_DOCUMENT_HASH] = {"document_hash",
                                 "documents with a wrong hash: the next ingest reads them again",
                                 false},
    [LORE_FSCK_DOCUMENT_CHUNKS] = {"document_chunks",
                                   "documents with other chunks than they count: found by nobody "
                                   "until they are ingested again",
                                   true},
    [LORE_FSCK_CHUNK_OFFSETS] = {"chunk_offsets",
                                 "documents with chunks outside of their text: found by nobody "
                                 "until they are ingested again",
                                 true},
    [LORE_FSCK_SOURCE_OFFSETS] = {"source_offsets",
                                  "documents that do not know where in their source they are: "
                                  "ingest them again",
                                  true},
    [LORE_FSCK_PAGE_OFFSETS] = {"page_offsets",
                                "documents with wrong page numbers: ingest them again", true},
    [LORE_FSCK_ORPHAN_TEXT] = {"text_without_document", "texts of no document", false},
    [LORE_FSCK_ORPHAN_PAGES] = {"pages_without_document", "pages of no document", false},
    [LORE_FSCK_ORPHAN_SKETCH] = {"sketch_without_document", "sketches of no document", false},
    [LORE_FSCK_NEAR] = {"near_duplicates", "sketches and bands of no document", false},
    [LORE_FSCK_ORPHAN_CHUNK] = {"chunk_without_document", "chunks of no document", false},
    [LORE_FSCK_ORPHAN_VECTOR] = {"vector_without_chunk", "vectors of no chunk", false},
    [LORE_FSCK_VECTOR_OF_CHUNK] = {"chunk_without_vector",
                                   "documents with chunks without a vector: found by nobody until "
                                   "they are ingested again",
                                   true},
    [LORE_FSCK_VECTOR_COLLECTION] = {"vector_collection", "vectors in a wrong collection", false},
    [LORE_FSCK_VECTOR_DAMAGED] =
        {"vector_damaged",
         "documents with vectors that are none: found by nobody until they "
         "are ingested again",
         true},
    [LORE_FSCK_DELETION] = {"deletions", "deletions of what is not deleted", false},
    [LORE_FSCK_SEQUENCE] = {"sequence", "commits that are counted wrong", false},
    [LORE_FSCK_NEXT_CHUNK] = {"next_chunk", "chunk ids that would be given out again", false},
    [LORE_FSCK_COUNTERS] = {"counters", "collections that count wrong", false},
    [LORE_FSCK_FULL_TEXT] = {"full_text",
                             "chunks whose words the full-text index has not, or not "
                             "rightly",
                             false},
    [LORE_FSCK_FULL_TEXT_TABLE] = {"full_text_table",
                                   "full-text tables that are missing, or of no collection", false},
    [LORE_FSCK_VECTOR_FILE] = {"vector_file", "vector files that are damaged, missing or stale",
                               false},
    [LORE_FSCK_INVERTED_FILE] = {"inverted_file", "inverted files that are damaged or missing",
                                 false},
    [LORE_FSCK_STRAY_FILE] = {"stray_file", "files that nothing will ever use", false},
    [LORE_FSCK_REQUEST_LOG] = {"request_log", "the request log is damaged: it is set aside", true},
};

/* ---- notes ---- */

lore_status lore_fsck_found(lore_fsck_run *run, lore_fsck_kind kind, lore_str subject,
                            lore_error *err)
{
    lore_fsck_note *note = &run->notes[kind];
    note->count++;
    if (note->subject_count == LORE_FSCK_SUBJECTS) {
        return LORE_OK;
    }
    if (note->subjects == NULL) {
        note->subjects = LORE_PUSH(run->arena, lore_str, LORE_FSCK_SUBJECTS);
    }
    lore_str kept = lore_str_copy(run->arena, subject);
    if (note->subjects == NULL || kept.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for what was found");
    }
    note->subjects[note->subject_count++] = kept;
    return LORE_OK;
}

static lore_status put_harmed(lore_fsck_run *run, lore_fsck_kind kind, int64_t document,
                              lore_fsck_harm harm, bool *is_new, lore_error *err)
{
    static const char *const sql =
        "INSERT INTO temp.harmed VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING RETURNING 1";
    lore_stmt *stmt = NULL;
    lore_status status = lore_db_statement(run->db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, document);
        lore_bind_text(stmt, 2, lore_str_from(kinds[kind].name));
        lore_bind_int(stmt, 3, harm);
        status = lore_stmt_step(stmt, is_new, err);
    }
    return status == LORE_OK && *is_new ? lore_stmt_run(stmt, err) : status;
}

lore_status lore_fsck_found_in(lore_fsck_run *run, lore_fsck_kind kind, int64_t document,
                               lore_fsck_harm harm, lore_error *err)
{
    static const char *const sql = "SELECT external_id FROM documents WHERE id=?1";
    lore_stmt *stmt = NULL;
    bool is_new = false, has_row = false;
    lore_status status = put_harmed(run, kind, document, harm, &is_new, err);
    if (status != LORE_OK || !is_new) {
        return status; /* it has been said of this document */
    }
    status = lore_db_statement(run->db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, document);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK && has_row) {
        status = lore_fsck_found(run, kind, lore_column_bytes(stmt, 0), err);
    }
    lore_stmt_reset(stmt);
    return status;
}

lore_status lore_fsck_each(lore_fsck_run *run, const char *sql, lore_fsck_visit visit, void *self,
                           lore_error *err)
{
    lore_stmt *stmt = NULL;
    bool has_row = true;
    lore_status status = lore_stmt_new(run->db, sql, &stmt, err);
    while (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            break;
        }
        status = visit(run, stmt, self, err);
    }
    lore_stmt_free(stmt);
    return status;
}

/* ---- looking ---- */

static lore_status note_integrity(lore_fsck_run *run, lore_stmt *row, void *self, lore_error *err)
{
    lore_str words = lore_column_bytes(row, 0);
    const lore_fsck_kind *kind = self;
    return lore_str_equal(words, LORE_STR("ok")) ? LORE_OK
                                                 : lore_fsck_found(run, *kind, words, err);
}

static lore_status look_at_tables(lore_fsck_run *run, lore_error *err)
{
    lore_fsck_kind kind = LORE_FSCK_DATABASE;
    lore_status status = lore_fsck_each(run, "PRAGMA integrity_check", note_integrity, &kind, err);
    if (status != LORE_OK || run->notes[LORE_FSCK_DATABASE].count > 0) {
        return status;
    }
    status = lore_fsck_rows(run, err);
    if (status == LORE_OK) {
        status = lore_fsck_documents(run, err);
    }
    lore_collection_state *states = NULL;
    int32_t count = 0;
    int64_t dim = 0;
    if (status == LORE_OK) {
        status = lore_db_number(run->db, "SELECT value FROM meta WHERE key='dim'", &dim, err);
    }
    run->dim = dim > 0 && dim <= INT32_MAX ? (int32_t)dim : 0;
    if (status == LORE_OK) {
        status = lore_collection_states(run->db, &states, &count, err);
    }
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        status = lore_fsck_vectors(run, &states[i], err);
        if (status == LORE_OK) {
            status = lore_fsck_text(run, &states[i], err);
        }
    }
    lore_free(states);
    return status;
}

/* What SQLite cannot read is a finding, not a failure. Inside a transaction. */
static lore_status look(lore_fsck_run *run, lore_error *err)
{
    lore_error why;
    memset(run->notes, 0, sizeof run->notes);
    run->documents = run->chunks = run->vectors = run->files = 0;
    lore_status status = look_at_tables(run, &why);
    if (status == LORE_ERR_CORRUPT) {
        return lore_fsck_found(run, LORE_FSCK_DATABASE, lore_str_from(why.message), err);
    }
    return status == LORE_OK ? status : lore_fail(err, status, "%s", why.message);
}

lore_status lore_fsck_brief(const char *path, lore_db *db, bool has_rules, lore_error *err)
{
    lore_arena arena;
    lore_fsck_kind kind = LORE_FSCK_DATABASE;
    lore_arena_init(&arena, 0);
    lore_fsck_run *run = LORE_PUSH(&arena, lore_fsck_run, 1);
    if (run == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a check of '%s'", path);
    }
    *run = (lore_fsck_run){.arena = &arena, .db = db};
    lore_status status = lore_fsck_each(run, "PRAGMA integrity_check", note_integrity, &kind, err);
    if (status == LORE_OK && has_rules && run->notes[kind].count == 0) {
        status = lore_fsck_rows(run, err);
    }
    for (int i = 0; i < LORE_FSCK_KINDS && status == LORE_OK; i++) {
        if (run->notes[i].count > 0) {
            status = lore_fail(err, LORE_ERR_CORRUPT, "'%s' is damaged (%s): try `lore fsck`", path,
                               kinds[i].what);
        }
    }
    lore_arena_destroy(&arena);
    return status;
}

static lore_status look_at_log(lore_fsck_run *run, lore_error *err)
{
    char path[LORE_INDEX_PATH_CAP];
    lore_db *database = run->db, *log = NULL;
    lore_fsck_kind kind = LORE_FSCK_REQUEST_LOG;
    lore_error why;
    snprintf(path, sizeof path, "%s/log.db", run->folder);
    if (!lore_file_exists(path)) {
        return LORE_OK;
    }
    run->files++;
    lore_status status = lore_db_open(path, false, &log, &why);
    if (status == LORE_OK) {
        run->db = log;
        status = lore_fsck_each(run, "PRAGMA integrity_check", note_integrity, &kind, &why);
        run->db = database;
    }
    lore_db_close(log);
    if (status == LORE_ERR_CORRUPT) {
        return lore_fsck_found(run, kind, lore_str_from(why.message), err);
    }
    return status == LORE_OK ? status : lore_fail(err, status, "%s", why.message);
}

/* Does a row of `collections` name the file? */
static lore_status is_named(lore_fsck_run *run, lore_str name, bool *is, lore_error *err)
{
    static const char *const sql =
        "SELECT EXISTS(SELECT 1 FROM collections WHERE (generation>0 AND "
        "printf('vec-%d-%d.i8', id, generation)=?1) OR (ann_size IS NOT NULL AND "
        "printf('ann-%d.ivf', id)=?1))";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_db_statement(run->db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_text(stmt, 1, name);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    if (status == LORE_OK) {
        *is = lore_column_int(stmt, 0) != 0;
        lore_stmt_reset(stmt);
    }
    return status;
}

/* Only where nobody can be writing one. */
static lore_status look_for_strays(lore_fsck_run *run, lore_error *err)
{
    lore_str *names = NULL;
    size_t count = 0;
    if (!run->is_held || run->notes[LORE_FSCK_DATABASE].count > 0) {
        return LORE_OK;
    }
    lore_status status = lore_dir_list(run->arena, run->folder, NAMES_MAX, &names, &count, err);
    for (size_t i = 0; i < count && status == LORE_OK; i++) {
        bool is_ours = lore_str_starts(names[i], LORE_STR("vec-")) ||
                       lore_str_starts(names[i], LORE_STR("ann-"));
        bool is_stray = lore_str_ends(names[i], LORE_STR(".tmp"));
        if (is_ours && !is_stray) {
            status = is_named(run, names[i], &is_stray, err);
            is_stray = !is_stray;
        }
        if (status == LORE_OK && is_stray) {
            status = lore_fsck_found(run, LORE_FSCK_STRAY_FILE, names[i], err);
        }
    }
    return status;
}

static bool is_clean(const lore_fsck_run *run)
{
    int64_t count = 0;
    for (int i = 0; i < LORE_FSCK_KINDS; i++) {
        count += run->notes[i].count;
    }
    return count == 0;
}

static lore_status look_at_all(lore_fsck_run *run, lore_error *err)
{
    lore_status status = lore_db_exec(run->db, "BEGIN", err);
    if (status == LORE_OK) {
        status = look(run, err);
    }
    if (status == LORE_OK) {
        status = look_for_strays(run, err);
    }
    if (!lore_db_rollback(run->db) && status == LORE_OK) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory ending the look");
    }
    return status == LORE_OK ? look_at_log(run, err) : status;
}

/* ---- mending ---- */

static lore_status remove_strays(lore_fsck_run *run, lore_error *err)
{
    const lore_fsck_note *note = &run->notes[LORE_FSCK_STRAY_FILE];
    for (int32_t i = 0; i < note->subject_count; i++) {
        char path[LORE_INDEX_PATH_CAP];
        snprintf(path, sizeof path, "%s/" LORE_STR_FMT, run->folder,
                 LORE_STR_ARG(note->subjects[i]));
        if (unlink(path) != 0 && errno != ENOENT) {
            return lore_fail(err, LORE_ERR_IO, "cannot remove '%s': %s", path, strerror(errno));
        }
    }
    return LORE_OK;
}

static lore_status set_log_aside(lore_fsck_run *run, lore_error *err)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    char from[LORE_INDEX_PATH_CAP], to[LORE_INDEX_PATH_CAP];
    int64_t now_ms = lore_clock_unix_ms();
    for (size_t i = 0; i < 3 && run->notes[LORE_FSCK_REQUEST_LOG].count > 0; i++) {
        snprintf(from, sizeof from, "%s/log.db%s", run->folder, ends[i]);
        snprintf(to, sizeof to, "%s/log.db.damaged-%lld%s", run->folder, (long long)now_ms,
                 ends[i]);
        if (rename(from, to) != 0 && errno != ENOENT) {
            return lore_fail(err, LORE_ERR_IO, "cannot rename '%s': %s", from, strerror(errno));
        }
    }
    return LORE_OK;
}

/* Look again and mend what is seen, in one transaction: nothing is mended that was not looked at.
 */
static lore_status mend_tables(lore_fsck_run *run, lore_error *err)
{
    lore_status status = LORE_OK;
    if (run->notes[LORE_FSCK_DATABASE].count > 0) {
        status = lore_db_exec(run->db, "REINDEX", err);
        return status == LORE_ERR_CORRUPT ? LORE_OK : status; /* the next look says so */
    }
    status = lore_db_exec(run->db, "BEGIN IMMEDIATE", err);
    if (status == LORE_OK) {
        status = look(run, err);
    }
    if (status == LORE_OK && run->notes[LORE_FSCK_DATABASE].count == 0 && !is_clean(run)) {
        status = lore_fsck_mend_rows(run, err);
    }
    if (status == LORE_OK) {
        status = lore_db_exec(run->db, "COMMIT", err);
    }
    if (status != LORE_OK) {
        (void)lore_db_rollback(run->db); /* the connection goes anyway */
    }
    return status;
}

/* As the next writer would: it brings an earlier format forward and makes missing files. */
static lore_status open_as_writer(const char *folder, const lore_fsck_options *options,
                                  lore_str encoder, int32_t dim, lore_error *err)
{
    lore_index *index = NULL;
    const lore_index_options opening = {.config = options->config,
                                        .backend = options->backend,
                                        .is_writer = true,
                                        .encoder = dim > 0 ? encoder.ptr : NULL,
                                        .dim = dim};
    lore_status status = lore_index_open(folder, &opening, &index, err);
    if (status == LORE_OK) {
        (void)lore_rebuild_wait(index, lore_clock_ns() + (int64_t)REBUILD_SECONDS * 1000000000);
        lore_index_close(index);
    }
    return status;
}

static lore_status read_encoder(lore_fsck_run *run, lore_stmt *row, void *self, lore_error *err)
{
    lore_str *encoder = self;
    *encoder = lore_str_copy(run->arena, lore_column_bytes(row, 0));
    return encoder->ptr != NULL ? LORE_OK : lore_fail(err, LORE_ERR_NOMEM, "out of memory");
}

/* ---- the whole ---- */

static lore_status take_lock(lore_fsck_run *run, bool repair, int *lock, lore_error *err)
{
    char path[LORE_INDEX_PATH_CAP];
    lore_buf holder;
    lore_error why;
    lore_buf_init(&holder, 0);
    snprintf(path, sizeof path, "%s/lock", run->folder);
    lore_status status = lore_file_lock(path, lock, &holder, &why);
    lore_buf_destroy(&holder);
    run->is_held = status == LORE_OK;
    if (status == LORE_OK || !repair) {
        return LORE_OK; /* looking may be done beside a writer, and on a medium without any */
    }
    return status == LORE_ERR_BUSY
               ? lore_fail(err, status, "'%s' is held by another process: stop it to repair",
                           run->folder)
               : lore_fail(err, status, "%s", why.message);
}

/* Look, and where that is wanted mend, with the database open. *is_mended: something was. */
static lore_status run_open(lore_fsck_run *run, bool repair, lore_str *encoder, bool *is_mended,
                            lore_error *err)
{
    lore_status status = lore_db_open(run->path, repair, &run->db, err);
    if (status == LORE_OK) {
        status = look_at_all(run, err);
    }
    *is_mended = status == LORE_OK && repair && !is_clean(run);
    if (*is_mended) {
        lore_fsck_note before[LORE_FSCK_KINDS]; /* the second look sees tables alone */
        memcpy(before, run->notes, sizeof before);
        status = mend_tables(run, err);
        memcpy(run->notes, before, sizeof before);
        if (status == LORE_OK) {
            status = remove_strays(run, err);
        }
        if (status == LORE_OK) {
            status = set_log_aside(run, err);
        }
        if (status == LORE_OK && run->notes[LORE_FSCK_DATABASE].count == 0) {
            status = lore_fsck_each(run, "SELECT value FROM meta WHERE key='encoder'", read_encoder,
                                    encoder, err);
        }
    }
    lore_db_close(run->db);
    run->db = NULL;
    return status;
}

static lore_status run_once(lore_fsck_run *run, bool repair, lore_str *encoder, bool *is_mended,
                            lore_error *err)
{
    int lock = -1;
    lore_status status = take_lock(run, repair, &lock, err);
    if (status == LORE_OK) {
        status = run_open(run, repair, encoder, is_mended, err);
    }
    lore_file_unlock(lock);
    return status;
}

/* Is there an index, of this format or one that a repair brings forward? */
static lore_status check_format(lore_fsck_run *run, const lore_fsck_options *options,
                                lore_error *err)
{
    lore_db *db = NULL;
    int64_t format = 0;
    if (!lore_file_exists(run->path)) {
        return lore_fail(err, LORE_ERR_NOT_FOUND, "'%s' holds no index (no lore.db)", run->folder);
    }
    lore_status status = lore_db_open(run->path, false, &db, err);
    if (status == LORE_OK) {
        status = lore_schema_read(run->path, db, &format, err);
    }
    bool is_old = status == LORE_OK && format > 0 && format < lore_schema_format();
    if (status == LORE_OK && !(is_old && options->repair)) {
        status = lore_schema_check(run->path, db, err);
    }
    lore_db_close(db);
    return status == LORE_OK && is_old
               ? open_as_writer(run->folder, options, (lore_str){NULL, 0}, 0, err)
               : status;
}

static lore_status write_report(const lore_fsck_run *before, const lore_fsck_run *after,
                                lore_arena *arena, lore_fsck_report *report, lore_error *err)
{
    lore_fsck_finding *findings = LORE_PUSH(arena, lore_fsck_finding, LORE_FSCK_KINDS);
    int32_t count = 0;
    if (findings == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a report");
    }
    for (int i = 0; i < LORE_FSCK_KINDS; i++) {
        /* A mend may uncover what could not be seen before. */
        const lore_fsck_note *note =
            before->notes[i].count > 0 ? &before->notes[i] : &after->notes[i];
        if (note->count > 0) {
            findings[count++] = (lore_fsck_finding){kinds[i].name,
                                                    kinds[i].what,
                                                    note->count,
                                                    note->subjects,
                                                    note->subject_count,
                                                    kinds[i].is_loss,
                                                    after->notes[i].count == 0};
        }
    }
    *report = (lore_fsck_report){findings,       count,        after->documents, after->chunks,
                                 after->vectors, after->files, !before->is_held};
    return LORE_OK;
}

lore_status lore_fsck(const char *folder, const lore_fsck_options *options, lore_arena *arena,
                      lore_fsck_report *report, lore_error *err)
{
    lore_str encoder = {NULL, 0};
    bool is_mended = false;
    lore_error why;
    lore_fsck_run *runs = LORE_PUSH(arena, lore_fsck_run, 2);
    if (runs == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a check of '%s'", folder);
    }
    lore_fsck_run *before = &runs[0], *after = &runs[1];
    *before = (lore_fsck_run){.folder = folder, .config = options->config, .arena = arena};
    if (strlen(folder) >= sizeof before->path - 128) {
        return lore_fail(err, LORE_ERR_INVALID, "path too long: '%s'", folder);
    }
    snprintf(before->path, sizeof before->path, "%s/lore.db", folder);
    lore_status status = check_format(before, options, &why);
    if (status == LORE_OK) {
        status = run_once(before, options->repair, &encoder, &is_mended, &why);
    }
    if (status == LORE_ERR_CORRUPT) { /* not even open */
        status = lore_fsck_found(before, LORE_FSCK_DATABASE, lore_str_from(why.message), err);
        return status == LORE_OK ? write_report(before, before, arena, report, err) : status;
    }
    *after = *before;
    if (status == LORE_OK && is_mended && before->notes[LORE_FSCK_DATABASE].count == 0) {
        status = open_as_writer(folder, options, encoder, before->dim, &why);
    }
    if (status == LORE_OK && is_mended) {
        status = run_once(after, false, &encoder, &is_mended, &why);
    }
    return status == LORE_OK ? write_report(before, after, arena, report, err)
                             : lore_fail(err, status, "%s", why.message);
}
