/* What we add to full-text search: terms of questions, lengths of CJK runs, allowed rows. Ranking:
 * test_text_search.c. */
#include "tests/unit/index_fixture.h"

static lore_db *open_fresh(const char *name)
{
    static char path[512];
    lore_error err;
    lore_db *db = NULL;
    snprintf(path, sizeof path, "%s/%s", check_temp_dir(), name);
    CHECK_OK(lore_db_open(path, true, &db, &err), &err);
    return db;
}

typedef struct terms {
    char text[512];
} terms;

static bool keep_term(void *self, lore_str term, size_t start, size_t end)
{
    terms *t = self;
    size_t at = strlen(t->text);
    CHECK(start < end);
    snprintf(t->text + at, sizeof t->text - at, LORE_STR_FMT "|", LORE_STR_ARG(term));
    return at < 100;
}

/* Texts are folded, paired and stemmed; FTS5's stemmer leaves other scripts alone. */
TEST(terms_of_questions)
{
    lore_error err;
    terms t = {""};
    lore_db *db = open_fresh("terms.db");
    CHECK_OK(lore_fts_terms(lore_db_fts(db),
                            LORE_STR("Resetting the ROUTERS' Cafés 人工智能 работы"), keep_term, &t,
                            &err),
             &err);
    CHECK_STR(lore_str_from(t.text), "reset|the|router|cafe|人|工|人工|智|工智|能|智能|работы|");
    t.text[0] = '\0';
    CHECK_OK(lore_fts_terms(lore_db_fts(db), (lore_str){NULL, 0}, keep_term, &t, &err), &err);
    CHECK_STR(lore_str_from(t.text), "");
    lore_db_close(db);
}

/* Pairs lie at the place of a character: a run of n characters is n words long. */
TEST(lengths_of_runs)
{
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_db *db = open_fresh("lengths.db");
    CHECK_OK(
        lore_db_exec(db,
                     "CREATE VIRTUAL TABLE f USING fts5(a, content='', tokenize='porter lore');"
                     "INSERT INTO f(rowid, a) VALUES(1, '人工智能 ab')",
                     &err),
        &err);
    CHECK_OK(lore_stmt_new(db, "SELECT sz FROM f_docsize", &stmt, &err), &err);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    CHECK_INT(lore_column_bytes(stmt, 0).ptr[0], 5);
    lore_stmt_free(stmt);
    lore_db_close(db);
}

/* lore_allowed looks rows up in the list it was given, and nothing is in no list. */
TEST(allowed_rows)
{
    static const char *const sql =
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<20) "
        "SELECT group_concat(i) FROM n WHERE lore_allowed(i)";
    const lore_row_range ranges[] = {{2, 2}, {5, 1}, {7, 1}, {11, 1}, {13, 1}, {17, 1}, {19, 1}};
    lore_row_set *rows = NULL;
    lore_error err;
    lore_stmt *stmt = NULL;
    bool has_row = false;
    lore_db *db = open_fresh("allowed.db");
    CHECK_OK(lore_db_statement(db, sql, &stmt, &err), &err);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    CHECK(lore_column_is_null(stmt, 0));
    CHECK_OK(lore_row_set_new(NULL, ranges, 7, &rows, &err), &err);
    lore_fts_allow(lore_db_fts(db), rows);
    CHECK_OK(lore_db_statement(db, sql, &stmt, &err), &err);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    CHECK_STR(lore_column_bytes(stmt, 0), "2,3,5,7,11,13,17,19");
    lore_row_set_release(rows);
    lore_db_close(db);
}

CHECK_MAIN(terms_of_questions, lengths_of_runs, allowed_rows)
