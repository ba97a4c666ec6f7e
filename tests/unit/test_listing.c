/* Reading documents and chunks back: whole, in pages, in order. */
#include "tests/unit/index_fixture.h"

/* A document can be read back whole: fields, text, offsets, chunks. */
TEST(document_reads_back)
{
    fixture f;
    lore_error err;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    fix_init(&f, "reads_back");
    fix_open(&f, true);
    const lore_offset_run runs[] = {{0, 10, 1}, {5, 40, 0}, {8, 50, 1}};
    float vector[FIX_DIM];
    fix_vector(1, vector);
    const lore_chunk_row chunks[] = {{0, 5, LORE_STR("A > B"), vector},
                                     {3, 11, LORE_STR(""), NULL}};
    lore_document_row row = {.id = LORE_STR("d_1"),
                             .source = LORE_STR("kb/reset.md"),
                             .title = LORE_STR("Résumé"),
                             .url = LORE_STR("https://example.org/"),
                             .metadata = LORE_STR("{ \"caf\\u00e9\" : [1, true] }"),
                             .media = LORE_STR("text/plain"),
                             .text = LORE_STR("hello world"),
                             .runs = runs,
                             .run_count = 3,
                             .chunks = chunks,
                             .chunk_count = 2};
    for (int i = 0; i < 32; i++) {
        row.hash[i] = (uint8_t)i;
    }
    lore_put_outcome outcome = {true, true};
    bool found = false;
    uint8_t hash[32];
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    CHECK_OK(lore_index_put_document(f.index, LORE_STR("default"), &row, &outcome, &err), &err);
    CHECK(!outcome.was_replaced);
    CHECK_OK(lore_index_document_hash(f.index, LORE_STR("default"), row.id, hash, &found, &err),
             &err);
    CHECK(!found); /* not yet committed */
    CHECK_OK(lore_index_commit(f.index, &err), &err);

    lore_document_info info;
    CHECK_OK(
        lore_index_get_document(f.index, LORE_STR("default"), row.id, true, &arena, &info, &err),
        &err);
    CHECK_STR(info.id, "d_1");
    CHECK_STR(info.source, "kb/reset.md");
    CHECK_STR(info.title, "Résumé");
    CHECK_STR(info.url, "https://example.org/");
    CHECK_STR(info.metadata, "{\"café\":[1,true]}");
    CHECK_STR(info.media, "text/plain");
    CHECK_STR(info.text, "hello world");
    CHECK_INT(info.text_bytes, 11);
    CHECK_INT(info.chunks, 2);
    CHECK_INT(info.run_count, 3);
    CHECK(memcmp(info.runs, runs, sizeof runs) == 0);
    CHECK(info.updated_ms > 0);
    CHECK_OK(lore_index_document_hash(f.index, LORE_STR("default"), row.id, hash, &found, &err),
             &err);
    CHECK(found && memcmp(hash, row.hash, 32) == 0);

    lore_chunk *loaded = NULL;
    int32_t count = 0;
    lore_snapshot *snapshot = lore_index_acquire(f.index);
    CHECK_OK(lore_load_document_chunks(snapshot, LORE_STR("default"), row.id, &arena, &loaded,
                                       &count, &err),
             &err);
    CHECK_INT(count, 2);
    CHECK_STR(loaded[0].text, "hello");
    CHECK_STR(loaded[1].text, "lo world");
    CHECK_STR(loaded[0].heading, "A > B");
    CHECK_INT(loaded[1].ordinal, 1);
    int64_t rows[] = {loaded[1].row, 999, loaded[0].row};
    lore_chunk again[3];
    CHECK_OK(lore_load_chunks(snapshot, rows, 3, &arena, again, &count, &err), &err);
    CHECK_INT(count, 2); /* in the order asked for, without the one that is not there */
    CHECK_STR(again[0].text, "lo world");
    CHECK_STR(again[1].text, "hello");
    CHECK_STR(again[0].document_id, "d_1");
    CHECK_STR(again[0].collection, "default");
    CHECK_STR(again[0].metadata, "{\"café\":[1,true]}");
    lore_snapshot_release(snapshot);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* Chunks of a document with pages know the page of each of their bytes, however they are loaded;
 * those of others have none. */
TEST(chunks_know_their_pages)
{
    fixture f;
    lore_error err;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    fix_init(&f, "pages");
    fix_open(&f, true);
    const lore_offset_run runs[] = {{0, 1, 0}, {5, 2, 0}, {8, 4, 0}};
    const lore_chunk_row parts[] = {{0, 5, LORE_STR(""), NULL}, {3, 11, LORE_STR(""), NULL}};
    lore_document_row row = {.id = LORE_STR("paged"),
                             .media = LORE_STR("application/pdf"),
                             .text = LORE_STR("hello world"),
                             .runs = runs,
                             .run_count = 3,
                             .chunks = parts,
                             .chunk_count = 2};
    lore_put_outcome outcome;
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    CHECK_OK(lore_index_put_document(f.index, LORE_STR("default"), &row, &outcome, &err), &err);
    row.id = LORE_STR("plain");
    row.media = LORE_STR("text/plain");
    CHECK_OK(lore_index_put_document(f.index, LORE_STR("default"), &row, &outcome, &err), &err);
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    lore_snapshot *snapshot = lore_index_acquire(f.index);
    for (int is_paged = 0; is_paged < 2; is_paged++) {
        lore_chunk *loaded = NULL, again[2];
        int32_t count = 0;
        CHECK_OK(lore_load_document_chunks(snapshot, LORE_STR("default"),
                                           is_paged ? LORE_STR("paged") : LORE_STR("plain"), &arena,
                                           &loaded, &count, &err),
                 &err);
        const int64_t rows[] = {loaded[0].row, loaded[1].row};
        CHECK_OK(lore_load_chunks(snapshot, rows, 2, &arena, again, &count, &err), &err);
        for (int how = 0; how < 2; how++) {
            const lore_chunk *chunks = how == 0 ? loaded : again;
            CHECK_INT(lore_chunk_page(&chunks[0], 0), is_paged ? 1 : 0);
            CHECK_INT(lore_chunk_page(&chunks[0], 4), is_paged ? 1 : 0);
            CHECK_INT(lore_chunk_page(&chunks[1], 3), is_paged ? 1 : 0);
            CHECK_INT(lore_chunk_page(&chunks[1], 5), is_paged ? 2 : 0);
            CHECK_INT(lore_chunk_page(&chunks[1], 10), is_paged ? 4 : 0);
            CHECK_INT(chunks[0].page_count, is_paged ? 1 : 0); /* only what it reaches over */
        }
    }
    lore_snapshot_release(snapshot);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* Offsets inside a verbatim run move with it, others give the run's start. */
TEST(offsets_map_back)
{
    const lore_offset_run runs[] = {{0, 10, 1}, {5, 40, 0}, {8, 50, 1}};
    CHECK_INT(lore_offset_to_source(runs, 3, 0), 10);
    CHECK_INT(lore_offset_to_source(runs, 3, 4), 14);
    CHECK_INT(lore_offset_to_source(runs, 3, 5), 40);
    CHECK_INT(lore_offset_to_source(runs, 3, 7), 40);
    CHECK_INT(lore_offset_to_source(runs, 3, 9), 51);
    CHECK_INT(lore_offset_to_source(runs, 0, 9), 0);
}

/* Pages of a listing join to the whole, in order; a prefix of the source narrows it. */
TEST(listing_pages)
{
    fixture f;
    lore_error err;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    fix_init(&f, "listing");
    fix_open(&f, true);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    for (int i = 0; i < 25; i++) {
        char id[16], source[16];
        snprintf(id, sizeof id, "d%02d", i);
        snprintf(source, sizeof source, i % 2 == 0 ? "even/%d" : "odd/%d", i);
        lore_document_row row = {
            .id = lore_str_from(id), .source = lore_str_from(source), .text = LORE_STR("x")};
        CHECK_OK(lore_index_put_document(f.index, LORE_STR("default"), &row, NULL, &err), &err);
    }
    CHECK_OK(lore_index_commit(f.index, &err), &err);
    lore_str cursor = {NULL, 0};
    int32_t seen = 0, pages = 0;
    do {
        lore_document_info *list = NULL;
        int32_t count = 0;
        CHECK_OK(lore_index_list_documents(f.index, LORE_STR("default"), cursor, LORE_STR("even/"),
                                           5, &arena, &list, &count, &cursor, &err),
                 &err);
        for (int32_t i = 0; i < count; i++, seen += 1) {
            char id[16];
            snprintf(id, sizeof id, "d%02d", 2 * seen);
            CHECK_STR(list[i].id, id);
            CHECK_INT(list[i].text.len, 0); /* not asked for */
            CHECK_INT(list[i].text_bytes, 1);
        }
        pages++;
    } while (cursor.len > 0);
    CHECK_INT(seen, 13);
    CHECK_INT(pages, 3);
    lore_document_info info;
    CHECK_FAILS(lore_index_get_document(f.index, LORE_STR("default"), LORE_STR("nope"), false,
                                        &arena, &info, &err),
                LORE_ERR_NOT_FOUND, &err, "no document 'nope' in collection 'default'");
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* A damaged row is an error that says so, not a read outside the text. */
TEST(damaged_rows)
{
    fixture f;
    lore_error err;
    lore_arena arena;
    lore_chunk chunk, *chunks = NULL;
    int32_t count = 0;
    int64_t row = 1;
    lore_arena_init(&arena, 0);
    fix_init(&f, "damaged");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "a", "apples", "", 1, 1);
    CHECK_OK(lore_db_exec(f.index->writer, "UPDATE chunks SET end=1000000", &err), &err);
    lore_snapshot *snapshot = lore_index_acquire(f.index);
    CHECK_FAILS(lore_load_chunks(snapshot, &row, 1, &arena, &chunk, &count, &err), LORE_ERR_CORRUPT,
                &err, "damaged");
    CHECK_FAILS(lore_load_document_chunks(snapshot, LORE_STR("default"), LORE_STR("a"), &arena,
                                          &chunks, &count, &err),
                LORE_ERR_CORRUPT, &err, "do not fit");
    lore_snapshot_release(snapshot);
    CHECK_OK(lore_index_begin(f.index, &err), &err);
    CHECK_FAILS(lore_index_delete_document(f.index, LORE_STR("default"), LORE_STR("a"), NULL, &err),
                LORE_ERR_CORRUPT, &err, "has no text");
    lore_index_rollback(f.index);
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

/* The arena's cap is a limit like any other. */
TEST(arena_too_small)
{
    fixture f;
    lore_error err;
    lore_arena arena;
    lore_document_info info;
    static char text[100001];
    memset(text, 'a', sizeof text - 1);
    fix_init(&f, "arena");
    fix_open(&f, true);
    fix_put_one(f.index, "default", "a", text, "", 1, 1);
    lore_arena_init(&arena, 80000);
    CHECK_FAILS(lore_index_get_document(f.index, LORE_STR("default"), LORE_STR("a"), true, &arena,
                                        &info, &err),
                LORE_ERR_NOMEM, &err, "");
    lore_arena_destroy(&arena);
    fix_destroy(&f);
}

CHECK_MAIN(document_reads_back, chunks_know_their_pages, offsets_map_back, listing_pages,
           damaged_rows, arena_too_small)
