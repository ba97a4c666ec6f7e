/* The data folder and its writer: what was committed is there, what was refused or rolled back is not. */
#include "tests/unit/index_fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* Replacing takes the old chunks out of everything; deleting too; ids are never used twice. */
TEST(replace_and_delete)
{
    fixture f;
    lore_error err;
    bool was_replaced = false;
    int64_t chunks[8], first[8];
    fix_init(&f, "replace");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "a", "apples are green", "", 1, 1);
    CHECK_INT(fix_text(f.index, "default", "apple", NULL, first, NULL, 8), 1);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    CHECK_OK(fix_put(f.index, "default", "a", "pears are yellow", "", 1, 2, &was_replaced, &err),
             &err);
    CHECK(was_replaced);
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    CHECK_INT(fix_text(f.index, "default", "apple", NULL, chunks, NULL, 8), 0);
    CHECK_INT(fix_text(f.index, "default", "pear", NULL, chunks, NULL, 8), 1);
    CHECK(chunks[0] > first[0]);
    CHECK_INT(fix_dense(f.index, "default", 1, NULL, chunks, NULL, 8), 1);
    fix_delete_one(f.index, "default", "a");
    CHECK_INT(fix_text(f.index, "default", "pear", NULL, chunks, NULL, 8), 0);
    CHECK_INT(fix_dense(f.index, "default", 1, NULL, chunks, NULL, 8), 0);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    bool found = true;
    CHECK_OK(lore_index_delete_document(f.index, LORE_STR("default"), LORE_STR("a"), &found, &err),
             &err);
    CHECK(!found);
    int64_t sequence = f.index->current->sequence;
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    CHECK_INT(f.index->current->sequence, sequence); /* nothing changed, nothing written */
    fix_put_one(f.index, "default", "a", "plums are blue", "", 1, 3);
    int64_t newest[8];
    CHECK_INT(fix_text(f.index, "default", "plums", NULL, newest, NULL, 8), 1);
    CHECK(newest[0] > first[0] + 1);
    CHECK_OK(lore_db_exec(f.index->writer, "INSERT INTO text_1(text_1) VALUES('integrity-check')",
                          &err),
             &err);
    fix_destroy(&f);
}

/* A transaction that is rolled back leaves nothing; a refused document leaves the rest. */
TEST(rollback_and_refusal)
{
    fixture f;
    lore_error err;
    int64_t chunks[8];
    fix_init(&f, "rollback");
    fix_open(&f, true);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    CHECK_OK(fix_put(f.index, "default", "a", "apples", "", 1, 1, NULL, &err), &err);
    lore_index_rollback(f.index);
    CHECK_INT(fix_text(f.index, "default", "apples", NULL, chunks, NULL, 8), 0);

    CHECK_OK(lore_index_begin(f.index, &err), &err);
    CHECK_OK(fix_put(f.index, "default", "a", "apples", "", 1, 1, NULL, &err), &err);
    CHECK_FAILS(fix_put(f.index, "default", "b", "bad", "[1]", 1, 1, NULL, &err), LORE_ERR_INVALID,
                &err, "must be a JSON object");
    CHECK_FAILS(fix_put(f.index, "default", "b", "bad", "{", 1, 1, NULL, &err), LORE_ERR_INVALID,
                &err, "metadata of document 'b'");
    CHECK_FAILS(fix_put(f.index, "default", "", "bad", "", 1, 1, NULL, &err), LORE_ERR_INVALID,
                &err, "document id");
    CHECK_FAILS(fix_put(f.index, "default", "b", "\xff", "", 1, 1, NULL, &err), LORE_ERR_INVALID,
                &err, "the text of document 'b' is not UTF-8");
    CHECK_FAILS(fix_put(f.index, "nowhere", "b", "bad", "", 1, 1, NULL, &err), LORE_ERR_NOT_FOUND,
                &err, "no collection 'nowhere'");
    float vector[FIX_DIM] = {NAN};
    lore_chunk_row chunk = {0, 3, LORE_STR(""), vector};
    lore_document_row row = {
        .id = LORE_STR("c"), .text = LORE_STR("bad"), .chunks = &chunk, .chunk_count = 1};
    CHECK_FAILS(lore_index_put_document(f.index, LORE_STR("default"), &row, NULL, &err),
                LORE_ERR_INVALID, &err, "not finite");
    chunk = (lore_chunk_row){1, 4, LORE_STR(""), NULL};
    CHECK_FAILS(lore_index_put_document(f.index, LORE_STR("default"), &row, NULL, &err),
                LORE_ERR_INVALID, &err, "outside its text");
    f.config.limits.document_bytes_max = 2;
    CHECK_FAILS(lore_index_put_document(f.index, LORE_STR("default"), &row, NULL, &err),
                LORE_ERR_LIMIT, &err, "document_bytes_max (2)");
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    CHECK_INT(fix_text(f.index, "default", "apples bad", NULL, chunks, NULL, 8), 1);
    fix_destroy(&f);
}

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
    CHECK_OK(lore_index_tune_collection(f.index, LORE_STR("en"), .25, LORE_STR("Ask us."), &err),
             &err);
    CHECK_OK(lore_index_collections(f.index, &arena, &list, &count, &err), &err);
    CHECK_INT(count, 2);
    CHECK_STR(list[0].name, "default");
    CHECK_INT(list[0].documents, 1);
    CHECK_INT(list[0].chunks, 2);
    CHECK(isnan(list[0].fusion_weight));
    CHECK_STR(list[1].name, "en");
    CHECK_NEAR(list[1].fusion_weight, .25, 0);
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

/* What opening refuses, and in which words. */
TEST(opening)
{
    fixture f;
    lore_error err;
    char path[512];
    fix_init(&f, "opening");
    CHECK_FAILS(fix_try_open(&f, false, "encoder-1", &err), LORE_ERR_NOT_FOUND, &err,
                "holds no index");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "a", "apples", "", 1, 1);
    fix_close(&f);
    CHECK_FAILS(fix_try_open(&f, true, "encoder-2", &err), LORE_ERR_INVALID, &err,
                "vectors of encoder 'encoder-1'");
    CHECK_FAILS(fix_try_open(&f, false, "encoder-2", &err), LORE_ERR_INVALID, &err, "'encoder-2'");
    CHECK_OK(fix_try_open(&f, false, NULL, &err), &err);
    fix_close(&f);
    fix_open(&f, true);
    fix_delete_one(f.index, "default", "a");
    fix_close(&f);
    CHECK_OK(fix_try_open(&f, true, "encoder-2", &err), &err); /* empty: another may take over */
    fix_close(&f);
    snprintf(path, sizeof path, "%s/lore.db", f.folder);
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    for (int i = 0; i < 5000; i++) {
        fputs("this is no database ", file);
    }
    fclose(file);
    CHECK_FAILS(fix_try_open(&f, true, "encoder-1", &err), LORE_ERR_CORRUPT, &err, path);
    CHECK_FAILS(fix_try_open(&f, false, "encoder-1", &err), LORE_ERR_CORRUPT, &err, path);
    fix_destroy(&f);
}

/* One process writes; others learn who it is. The child holds the folder until told to go. */
TEST(folder_lock)
{
    fixture f;
    lore_error err;
    lore_buf holder;
    int ready[2], leave[2];
    char byte = 0;
    lore_buf_init(&holder, 0);
    fix_init(&f, "lock");
    CHECK(pipe(ready) == 0 && pipe(leave) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (fix_try_open(&f, true, "encoder-1", &err) != LORE_OK || write(ready[1], "1", 1) != 1 ||
            read(leave[0], &byte, 1) != 1 ||
            lore_index_announce(f.index, LORE_STR("127.0.0.1:8080"), &err) != LORE_OK ||
            write(ready[1], "2", 1) != 1 || read(leave[0], &byte, 1) != 1) {
            _exit(1);
        }
        lore_index_close(f.index);
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    CHECK_FAILS(fix_try_open(&f, true, "encoder-1", &err), LORE_ERR_BUSY, &err,
                "is held by process ");
    CHECK(write(leave[1], "1", 1) == 1 && read(ready[0], &byte, 1) == 1);
    CHECK_FAILS(fix_try_open(&f, true, "encoder-1", &err), LORE_ERR_BUSY, &err,
                "is held by 127.0.0.1:8080");
    CHECK_OK(lore_index_holder(f.folder, &holder, &err), &err);
    CHECK_STR(lore_buf_str(&holder), "127.0.0.1:8080");
    fix_open(&f, false); /* readers may come in */
    fix_close(&f);
    CHECK(write(leave[1], "1", 1) == 1);
    int code = 1;
    CHECK(waitpid(child, &code, 0) == child && code == 0);
    lore_buf_reset(&holder);
    CHECK_OK(lore_index_holder(f.folder, &holder, &err), &err);
    CHECK_STR(lore_buf_str(&holder), "");
    fix_open(&f, true);
    lore_buf_destroy(&holder);
    fix_destroy(&f);
}

CHECK_MAIN(replace_and_delete, rollback_and_refusal, full_disk, collections, opening, folder_lock)
