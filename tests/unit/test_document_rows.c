/* Documents in and out: replacing and deleting take everything along, refusals leave the rest. */
#include "tests/unit/index_fixture.h"

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
    CHECK_OK(
        lore_db_exec(f.index->writer, "INSERT INTO text_1(text_1) VALUES('integrity-check')", &err),
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

/* Limits are named; a document without chunks or text is a document. */
TEST(limits_and_edges)
{
    fixture f;
    lore_error err;
    bool found = false;
    char long_id[600];
    memset(long_id, 'i', sizeof long_id - 1);
    long_id[sizeof long_id - 1] = '\0';
    fix_init(&f, "limits");
    f.config.limits.document_chunks_max = 3;
    f.config.limits.metadata_bytes_max = 10;
    fix_open(&f, true);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    CHECK_FAILS(fix_put(f.index, "default", "a", "text", "", 4, 1, NULL, &err), LORE_ERR_LIMIT,
                &err, "document_chunks_max (3)");
    CHECK_FAILS(fix_put(f.index, "default", "a", "text", "{\"k\":\"long\"}", 1, 1, NULL, &err),
                LORE_ERR_LIMIT, &err, "metadata_bytes_max (10)");
    CHECK_FAILS(fix_put(f.index, "default", long_id, "text", "", 1, 1, NULL, &err),
                LORE_ERR_INVALID, &err, "1 to 512 bytes");
    lore_document_row empty = {.id = LORE_STR("empty")};
    CHECK_OK(lore_index_put_document(f.index, LORE_STR("default"), &empty, NULL, &err), &err);
    CHECK_OK(lore_index_put_document(f.index, LORE_STR("default"), &empty, NULL, &err), &err);
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    CHECK_OK(lore_index_delete_document(f.index, LORE_STR("default"), empty.id, &found, &err),
             &err);
    CHECK(found);
    CHECK_FAILS(lore_index_delete_document(f.index, LORE_STR("nowhere"), empty.id, &found, &err),
                LORE_ERR_NOT_FOUND, &err, "no collection 'nowhere'");
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    CHECK_INT(f.index->current->chunks, 0);
    fix_destroy(&f);
}

/* Without an encoder there is no length of vectors: documents without them are taken, others not.
 */
TEST(no_encoder)
{
    fixture f;
    lore_error err;
    int64_t chunks[4];
    fix_init(&f, "no_encoder");
    CHECK_OK(fix_try_open(&f, true, NULL, &err), &err);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    CHECK_FAILS(fix_put(f.index, "default", "a", "apples", "", 1, 1, NULL, &err), LORE_ERR_INVALID,
                &err, "without an encoder");
    lore_chunk_row chunk = {0, 6, LORE_STR(""), NULL};
    lore_document_row row = {
        .id = LORE_STR("a"), .text = LORE_STR("apples"), .chunks = &chunk, .chunk_count = 1};
    CHECK_OK(lore_index_put_document(f.index, LORE_STR("default"), &row, NULL, &err), &err);
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    CHECK_INT(fix_text(f.index, "default", "apples", NULL, chunks, NULL, 4), 1);
    CHECK_INT(fix_dense(f.index, "default", 1, NULL, chunks, NULL, 4), 0);
    fix_destroy(&f);
}

CHECK_MAIN(replace_and_delete, rollback_and_refusal, limits_and_edges, no_encoder)
