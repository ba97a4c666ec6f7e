/* Is a data folder whole (index_check.h)? `verify_index FOLDER` opens it as the next writer would,
 * which is when repairs are made, checks it, and prints one line of JSON: how long opening took (by
 * the clock, and in time of a processor, which other processes do not stretch) and which documents
 * there are. Exit status 1: something is wrong; standard error says what. Without a
 * folder it proves itself: a good folder passes, and each kind of damage is noticed. */
#include "tests/fault/index_check.h"
#include "tests/unit/index_fixture.h"

#include "base/json.h"

#include <time.h>

/* ---- a folder of somebody's ---- */

static lore_status write_documents(lore_index *index, lore_json_writer *w, lore_error *err)
{
    static const char *const sql =
        "SELECT c.name, d.external_id, d.title, d.chunk_count FROM documents d JOIN collections c "
        "ON c.id=d.collection ORDER BY c.name, d.external_id";
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_status status = lore_stmt_new(index->writer, sql, &stmt, err);
    if (status == LORE_OK) {
        status = lore_stmt_step(stmt, &has_row, err);
    }
    while (status == LORE_OK && has_row) {
        lore_json_object(w, NULL);
        lore_json_string(w, "collection", lore_column_bytes(stmt, 0));
        lore_json_string(w, "id", lore_column_bytes(stmt, 1));
        lore_json_string(w, "title", lore_column_bytes(stmt, 2));
        lore_json_int(w, "chunks", lore_column_int(stmt, 3));
        lore_json_end(w);
        status = lore_stmt_step(stmt, &has_row, err);
    }
    lore_stmt_free(stmt);
    return status;
}

/* The encoder that made the vectors: opening wants to know it. False where none is known yet. */
static bool read_encoder(const char *folder, char *encoder, size_t cap, int64_t *dim)
{
    char path[4096];
    lore_error err;
    lore_db *db = NULL;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    snprintf(path, sizeof path, "%s/lore.db", folder);
    lore_status status = lore_db_open(path, true, &db, &err);
    if (status == LORE_OK) {
        status = lore_stmt_new(db, "SELECT value FROM meta WHERE key='encoder'", &stmt, &err);
    }
    if (status == LORE_OK && lore_stmt_step(stmt, &has_row, &err) == LORE_OK && has_row) {
        snprintf(encoder, cap, LORE_STR_FMT, LORE_STR_ARG(lore_column_bytes(stmt, 0)));
        has_row =
            lore_db_number(db, "SELECT value FROM meta WHERE key='dim'", dim, &err) == LORE_OK;
    }
    lore_stmt_free(stmt);
    lore_db_close(db);
    return has_row;
}

static int verify(const char *folder)
{
    fixture f = {0};
    lore_error err = {0};
    char encoder[256];
    int64_t dim = 0;
    lore_buf text;
    lore_json_writer w;
    lore_config_default(&f.config);
    f.config.threads = 1;
    lore_backend_options backend = {.kind = LORE_BACKEND_REF};
    lore_buf_init(&text, 0);
    int64_t start_ns = lore_clock_ns();
    clock_t start_cpu = clock();
    lore_status status = lore_backend_open(&backend, &f.backend, &err);
    if (status == LORE_OK) {
        bool is_known = read_encoder(folder, encoder, sizeof encoder, &dim);
        lore_index_options options = {
            &f.config, f.backend, true, is_known ? encoder : NULL, is_known ? (int32_t)dim : 0,
            NULL};
        status = lore_index_open(folder, &options, &f.index, &err);
    }
    int64_t open_ms = (lore_clock_ns() - start_ns) / 1000000;
    int64_t open_cpu_ms = (int64_t)(clock() - start_cpu) / (CLOCKS_PER_SEC / 1000);
    int32_t problems = status == LORE_OK ? index_check_all(f.index) : 1;
    lore_json_write_begin(&w, &text);
    lore_json_object(&w, NULL);
    lore_json_int(&w, "open_ms", open_ms);
    lore_json_int(&w, "open_cpu_ms", open_cpu_ms);
    lore_json_array(&w, "documents");
    if (status == LORE_OK) {
        status = write_documents(f.index, &w, &err);
    }
    lore_json_end(&w);
    lore_json_end(&w);
    if (status != LORE_OK) {
        fprintf(stderr, "%s\n", err.message);
        problems++;
    }
    printf("%s\n", lore_buf_c(&text));
    lore_buf_destroy(&text);
    lore_index_close(f.index);
    lore_backend_close(f.backend);
    return problems == 0 ? 0 : 1;
}

/* ---- the check itself ---- */

/* Each takes something from one of the places that have to agree. */
static const char *const damages[] = {
    "DELETE FROM chunks WHERE id=3",
    "DELETE FROM vectors WHERE chunk=3",
    "DELETE FROM texts WHERE document=1",
    "DELETE FROM documents WHERE id=1",
    "UPDATE documents SET chunk_count=chunk_count+1 WHERE id=1",
    "UPDATE vectors SET collection=7 WHERE chunk=2",
    "UPDATE collections SET documents=documents+1",
    "UPDATE collections SET chunks=chunks-1",
    "UPDATE meta SET value=2 WHERE key='next_chunk'",
    "INSERT INTO vectors(chunk, collection, data) VALUES(999, 1, x'00')",
    "INSERT INTO text_1(rowid, title, heading, body) VALUES(999, 'a', 'b', 'c')",
    "DELETE FROM text_1_docsize WHERE id=3",
    "UPDATE vectors SET data=zeroblob(64) WHERE chunk=2",
};

TEST(damage_is_noticed)
{
    lore_error err;
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        fixture f;
        char name[32];
        snprintf(name, sizeof name, "damaged-%zu", i);
        fix_init(&f, name);
        fix_open(&f, true);
        fix_put_one(f.index, "default", "a", "some words of a document here", "", 5, 1);
        fix_put_one(f.index, "default", "b", "other words of another one", "", 5, 10);
        CHECK_INT(index_check_all(f.index), 0);
        CHECK_OK(lore_db_exec(f.index->writer, damages[i], &err), &err);
        if (index_check_all(f.index) == 0) {
            CHECK_STOP("not noticed: %s", damages[i]);
        }
        fix_destroy(&f);
    }
}

TEST(stray_files_are_noticed)
{
    static const char *const strays[] = {"vec-1-1.i8", "ann-2-3.faiss", "lore.db-journal", "x.tmp"};
    fixture f;
    lore_error err;
    fix_init(&f, "strays");
    fix_open(&f, true);
    for (size_t i = 0; i < sizeof strays / sizeof strays[0]; i++) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", f.folder, strays[i]);
        CHECK_OK(lore_file_replace(path, LORE_STR("x"), &err), &err);
        CHECK_INT(index_check_all(f.index), 1);
        CHECK(remove(path) == 0);
    }
    CHECK_INT(index_check_all(f.index), 0);
    fix_destroy(&f);
}

int main(int argc, char **argv)
{
    static const check_case *const cases[] = {damage_is_noticed, stray_files_are_noticed};
    if (argc > 1 && strchr(argv[1], '/') != NULL) {
        return verify(argv[1]);
    }
    return check_all(cases, sizeof cases / sizeof cases[0], argc > 1 ? argv[1] : NULL);
}
