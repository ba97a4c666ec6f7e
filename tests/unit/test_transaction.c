/* Transactions and collections: whole or not at all, and usable after any failure. */
#include "tests/unit/index_fixture.h"

/* A full disk is an error with words, and afterwards the index works on. */
TEST(full_disk)
{
    fixture f;
    lore_error err;
    int64_t chunks[64];
    char id[32];
    fix_init(&f, "full");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "first", "apples", "", 1, 1);
    CHECK_OK(lore_db_exec(f.index->writer, "PRAGMA max_page_count=1", &err), &err);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    lore_status status = LORE_OK;
    for (int i = 0; i < 500 && status == LORE_OK; i++) {
        snprintf(id, sizeof id, "d%d", i);
        status = fix_put(f.index, "default", id, "apples and more apples", "", 8, 1, NULL, &err);
    }
    CHECK_FAILS(status, LORE_ERR_IO, &err, "full");
    CHECK(strstr(err.message, "lore.db") != NULL);
    CHECK_FAILS(fix_put(f.index, "default", "x", "apples", "", 1, 1, NULL, &err), LORE_ERR_IO, &err,
                "rolled back");
    CHECK_FAILS(lore_index_commit(f.index, &err), LORE_ERR_IO, &err, "rolled back");
    lore_index_rollback(f.index);
    CHECK_OK(lore_db_exec(f.index->writer, "PRAGMA max_page_count=1000000", &err), &err);
    CHECK_INT(fix_text(f.index, "default", "apples", NULL, chunks, NULL, 64), 1);
    fix_put_one(f.index, "default", "second", "apples", "", 1, 2);
    CHECK_INT(fix_text(f.index, "default", "apples", NULL, chunks, NULL, 64), 2);
    fix_destroy(&f);
}

/* Collections have names of their own rules, their own documents, and go with all they hold. */
TEST(collections)
{
    fixture f;
    lore_error err;
    lore_arena arena;
    lore_collection_info *list = NULL;
    int32_t count = 0;
    int64_t chunks[8];
    bool found = false;
    lore_arena_init(&arena, 0);
    fix_init(&f, "collections");
    fix_open(&f, true);
    CHECK_FAILS(lore_index_create_collection(f.index, LORE_STR("a b"), &err), LORE_ERR_INVALID,
                &err, "collection name 'a b'");
    CHECK_FAILS(lore_index_create_collection(f.index, LORE_STR(""), &err), LORE_ERR_INVALID, &err,
                "collection name");
    CHECK_OK(lore_index_create_collection(f.index, LORE_STR("en"), &err), &err);
    CHECK_OK(lore_index_create_collection(f.index, LORE_STR("en"), &err), &err);
    fix_put_one(f.index, "en", "a", "apples", "", 1, 1);
    fix_put_one(f.index, "default", "a", "apples pears", "", 2, 5);
    lore_collection_settings set;
    CHECK_OK(lore_collection_settings_parse(
                 LORE_STR("{\"fusion_weight\": 0.75, \"expansion\": 0.5, \"refusal\": \"Ask us.\", "
                          "\"chunk_tokens\": 64, \"chunk_overlap\": 0}"),
                 &f.config.limits, &arena, &set, &err),
             &err);
    CHECK_OK(lore_index_set_collection(f.index, LORE_STR("en"), &set, &err), &err);
    /* what is not named stays, null is the configuration's */
    CHECK_OK(lore_collection_settings_parse(
                 LORE_STR("{\"fusion_weight\": 0.25, \"chunk_overlap\": null}"), &f.config.limits,
                 &arena, &set, &err),
             &err);
    CHECK_OK(lore_index_set_collection(f.index, LORE_STR("en"), &set, &err), &err);
    static const char *const wrong[] = {"[]", "{\"refusal\": 1}", "{\"chunk_tokens\": 3}",
                                        "{\"chunk_overlap\": 99}", "{\"fusion_weight\": 2}"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK_FAILS(lore_collection_settings_parse(lore_str_from(wrong[i]), &f.config.limits,
                                                   &arena, &set, &err),
                    LORE_ERR_INVALID, &err, "");
    }
    lore_config *own = NULL;
    CHECK_OK(lore_index_collection_config(f.index, LORE_STR("default"), &f.config, &own, &err),
             &err);
    CHECK(own == NULL);
    CHECK_OK(lore_index_collection_config(f.index, LORE_STR("nowhere"), &f.config, &own, &err),
             &err);
    CHECK(own == NULL);
    CHECK_OK(lore_index_collection_config(f.index, LORE_STR("en"), &f.config, &own, &err), &err);
    CHECK_INT(own->chunk_tokens, 64);
    CHECK_INT(own->chunk_overlap_sentences, f.config.chunk_overlap_sentences);
    lore_free(own);
    CHECK_OK(lore_index_collections(f.index, &arena, &list, &count, &err), &err);
    CHECK_INT(count, 2);
    CHECK_STR(list[0].name, "default");
    CHECK_INT(list[0].documents, 1);
    CHECK_INT(list[0].chunks, 2);
    CHECK(isnan(list[0].fusion_weight) && isnan(list[0].expansion));
    CHECK_STR(list[1].name, "en");
    CHECK_NEAR(list[1].fusion_weight, .25, 0);
    CHECK_NEAR(list[1].expansion, .5, 0);
    CHECK_STR(list[1].refusal, "Ask us.");
    CHECK_INT(fix_text(f.index, "en", "apples", NULL, chunks, NULL, 8), 1);
    CHECK_INT(fix_dense(f.index, "en", 1, NULL, chunks, NULL, 8), 1);
    CHECK_INT(fix_dense(f.index, "default", 1, NULL, chunks, NULL, 8), 2);

    CHECK_OK(lore_index_delete_collection(f.index, LORE_STR("en"), &found, &err), &err);
    CHECK(found);
    CHECK_OK(lore_index_delete_collection(f.index, LORE_STR("en"), &found, &err), &err);
    CHECK(!found);
    CHECK_OK(lore_index_collections(f.index, &arena, &list, &count, &err), &err);
    CHECK_INT(count, 1);
    lore_stmt *stmt = NULL;
    bool has_row = false;
    CHECK_OK(lore_stmt_new(f.index->writer,
                           "SELECT (SELECT count(*) FROM chunks) + (SELECT count(*) FROM vectors) "
                           "+ (SELECT count(*) FROM texts) + (SELECT count(*) FROM documents)",
                           &stmt, &err),
             &err);
    CHECK_OK(lore_stmt_step(stmt, &has_row, &err), &err);
    CHECK_INT(lore_column_int(stmt, 0), 2 + 2 + 1 + 1);
    lore_stmt_free(stmt);
    CHECK_OK(lore_index_create_collection(f.index, LORE_STR("en"), &err), &err);
    CHECK_INT(fix_text(f.index, "en", "apples", NULL, chunks, NULL, 8), 0);
    CHECK_INT(fix_dense(f.index, "en", 1, NULL, chunks, NULL, 8), 0);
    /* Created, filled and dropped in one transaction that is then rolled back. */
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    CHECK_OK(lore_index_create_collection(f.index, LORE_STR("tmp"), &err), &err);
    CHECK_OK(fix_put(f.index, "tmp", "a", "apples", "", 1, 1, NULL, &err), &err);
    CHECK_OK(lore_index_delete_collection(f.index, LORE_STR("default"), &found, &err), &err);
    lore_index_rollback(f.index);
    CHECK_INT(fix_text(f.index, "default", "apples", NULL, chunks, NULL, 8), 1);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* A read that runs out of memory makes SQLite end the transaction by itself: nothing may be written
 * after it. */
TEST(ended_behind_our_back)
{
    fixture f;
    lore_error err;
    int64_t chunks[4];
    fix_init(&f, "ended");
    fix_open(&f, true);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    CHECK_OK(fix_put(f.index, "default", "a", "apples", "", 1, 1, NULL, &err), &err);
    CHECK_OK(lore_db_exec(f.index->writer, "ROLLBACK", &err), &err);
    CHECK_FAILS(fix_put(f.index, "default", "b", "apples", "", 1, 1, NULL, &err), LORE_ERR_IO, &err,
                "must be rolled back");
    CHECK_FAILS(lore_index_create_collection(f.index, LORE_STR("x"), &err), LORE_ERR_IO, &err,
                "must be rolled back");
    CHECK_FAILS(lore_index_commit(f.index, &err), LORE_ERR_IO, &err, "must be rolled back");
    CHECK_OK(lore_index_begin(f.index, &err), &err); /* a failed commit has rolled back */
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    CHECK_INT(fix_text(f.index, "default", "apples", NULL, chunks, NULL, 4), 0);
    fix_put_one(f.index, "default", "a", "apples", "", 1, 1);
    CHECK_INT(fix_text(f.index, "default", "apples", NULL, chunks, NULL, 4), 1);
    fix_destroy(&f);
}

CHECK_MAIN(full_disk, collections, ended_behind_our_back)
