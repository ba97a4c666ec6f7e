/* One document: its id, its hash, its chunks within the encoder's window, and lore_ingest_one. */
#include "tests/unit/ingest_index_fixture.h"

static void identify(bench *b, lore_raw_document raw, lore_arena *arena, lore_prepared *prepared)
{
    lore_error err = {0};
    CHECK_OK(lore_identify(&raw, &b->config, b->embedder, arena, prepared, &err), &err);
}

/* Everything that decides what is stored changes the hash, and nothing else. */
TEST(identity)
{
    bench b;
    lore_arena arena;
    lore_prepared first = {0}, other = {0};
    bench_open(&b, "identity");
    lore_arena_init(&arena, 0);
    lore_raw_document raw = {
        .source = LORE_STR("a.md"), .media = LORE_MEDIA_MARKDOWN, .bytes = LORE_STR("text")};
    identify(&b, raw, &arena, &first);
    CHECK_INT(first.id.len, 28);
    CHECK(lore_str_starts(first.id, LORE_STR("d_")));
    identify(&b, raw, &arena, &other);
    CHECK(memcmp(first.hash, other.hash, 32) == 0);
    for (int change = 0; change < 6; change++) {
        lore_raw_document changed = raw;
        lore_str *fields[] = {&changed.bytes, &changed.title, &changed.url, &changed.metadata,
                              &changed.source};
        if (change < 5) {
            *fields[change] = LORE_STR("changed");
        } else {
            b.config.chunk_tokens++;
        }
        identify(&b, changed, &arena, &other);
        CHECK(memcmp(first.hash, other.hash, 32) != 0);
        /* Only another source is another document. */
        CHECK(lore_str_equal(first.id, other.id) == (change != 4));
    }
    raw.source = LORE_STR("");
    identify(&b, raw, &arena, &first);
    raw.bytes = LORE_STR("other bytes");
    identify(&b, raw, &arena, &other);
    CHECK(!lore_str_equal(first.id, other.id));
    raw.url = LORE_STR("http://x");
    identify(&b, raw, &arena, &first);
    raw.bytes = LORE_STR("again");
    identify(&b, raw, &arena, &other);
    CHECK(lore_str_equal(first.id, other.id));
    lore_arena_destroy(&arena);
    bench_close(&b);
}

TEST(refused_ids)
{
    bench b;
    lore_error err = {0};
    lore_arena arena;
    lore_prepared prepared = {0};
    bench_open(&b, "ids");
    lore_arena_init(&arena, 0);
    lore_raw_document raw = {.id = LORE_STR("a\nb"), .bytes = LORE_STR("x")};
    CHECK_FAILS(lore_identify(&raw, &b.config, b.embedder, &arena, &prepared, &err),
                LORE_ERR_INVALID, &err, "id");
    raw.id = LORE_STR("\xFF");
    CHECK_FAILS(lore_identify(&raw, &b.config, b.embedder, &arena, &prepared, &err),
                LORE_ERR_INVALID, &err, "id");
    b.config.limits.id_bytes_max = 2;
    raw.id = LORE_STR("abc");
    CHECK_FAILS(lore_identify(&raw, &b.config, b.embedder, &arena, &prepared, &err), LORE_ERR_LIMIT,
                &err, "id_bytes_max");
    lore_arena_destroy(&arena);
    bench_close(&b);
}

/* What the encoder reads of each chunk fits its window, prefix and special tokens included, even
 * where title and headings are long. */
TEST(fits_the_window)
{
    bench b;
    lore_error err = {0};
    lore_arena arena;
    lore_buf source;
    lore_prepared prepared = {0};
    bench_open(&b, "window");
    lore_arena_init(&arena, 0);
    lore_buf_init(&source, 0);
    lore_buf_printf(&source, "# A title that goes on and on about many things at once, really\n\n");
    for (int i = 0; i < 40; i++) {
        lore_buf_printf(&source, "## Section %d with quite a long heading, too, of its own\n\n", i);
        for (int k = 0; k < 30; k++) {
            lore_buf_printf(&source, "Sentence %d has several words and a number %d. ", k, k * i);
        }
        lore_buf_append(
            &source,
            LORE_STR("\n\n\xE9\x95\xBF\xE6\x8C\x89\xE6\x8C\x89\xE9\x92\xAE\xE3\x80\x82\n\n"));
    }
    lore_raw_document raw = {.media = LORE_MEDIA_MARKDOWN, .bytes = lore_buf_str(&source)};
    CHECK_OK(lore_prepare(&raw, &b.config, b.embedder, &arena, &prepared, &err), &err);
    CHECK(prepared.chunk_count >= 40);
    for (int32_t i = 0; i < prepared.chunk_count; i++) {
        lore_tokens tokens;
        CHECK_OK(lore_tokenizer_encode(lore_embedder_tokenizer(b.embedder), prepared.embed_texts[i],
                                       (lore_encode_options){false, true}, &arena, &tokens, &err),
                 &err);
        CHECK(tokens.count <= lore_embedder_tokens_max(b.embedder));
    }
    b.config.limits.document_chunks_max = 3;
    CHECK_FAILS(lore_prepare(&raw, &b.config, b.embedder, &arena, &prepared, &err), LORE_ERR_LIMIT,
                &err, "document_chunks_max");
    lore_buf_destroy(&source);
    lore_arena_destroy(&arena);
    bench_close(&b);
}

TEST(one)
{
    bench b;
    lore_error err = {0};
    lore_arena arena;
    lore_str id;
    char outcome = 0;
    bench_open(&b, "one");
    lore_arena_init(&arena, 0);
    lore_raw_document raw = {.id = LORE_STR("manual"),
                             .media = LORE_MEDIA_MARKDOWN,
                             .bytes = LORE_STR("# T\n\nHold the button.\n")};
    lore_str where = LORE_STR("new-one");
    CHECK_OK(
        lore_ingest_one(b.index, b.embedder, &b.config, where, &raw, &arena, &outcome, &id, &err),
        &err);
    CHECK_INT(outcome, 'a');
    CHECK_STR(id, "manual");
    check_stored(&b, "new-one", id, "Hold the button.");
    CHECK_OK(
        lore_ingest_one(b.index, b.embedder, &b.config, where, &raw, &arena, &outcome, &id, &err),
        &err);
    CHECK_INT(outcome, 'u');
    raw.bytes = LORE_STR("# T\n\nPress it.\n");
    CHECK_OK(
        lore_ingest_one(b.index, b.embedder, &b.config, where, &raw, &arena, &outcome, &id, &err),
        &err);
    CHECK_INT(outcome, 'r');
    check_stored(&b, "new-one", id, "Press it.");
    /* Refused documents leave the stored one alone. */
    raw.bytes = LORE_STR("a\0b");
    CHECK_FAILS(
        lore_ingest_one(b.index, b.embedder, &b.config, where, &raw, &arena, &outcome, &id, &err),
        LORE_ERR_INVALID, &err, "NUL");
    check_stored(&b, "new-one", LORE_STR("manual"), "Press it.");
    raw.bytes = LORE_STR("x");
    CHECK_FAILS(lore_ingest_one(b.index, b.embedder, &b.config, LORE_STR("bad name!"), &raw, &arena,
                                &outcome, &id, &err),
                LORE_ERR_INVALID, &err, "");
    raw.bytes = LORE_STR(""); /* no text is legal */
    CHECK_OK(
        lore_ingest_one(b.index, b.embedder, &b.config, where, &raw, &arena, &outcome, &id, &err),
        &err);
    check_stored(&b, "new-one", LORE_STR("manual"), "");
    lore_arena_destroy(&arena);
    bench_close(&b);
}

CHECK_MAIN(identity, refused_ids, fits_the_window, one)
