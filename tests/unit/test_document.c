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
    CHECK_OK(lore_prepare(&raw, &b.config, b.embedder, NULL, &arena, &prepared, &err), &err);
    CHECK(prepared.chunk_count >= 40);
    for (int32_t i = 0; i < prepared.chunk_count; i++) {
        lore_tokens tokens;
        CHECK_OK(lore_tokenizer_encode(lore_embedder_tokenizer(b.embedder), prepared.embed_texts[i],
                                       (lore_encode_options){.add_special = true}, &arena, &tokens,
                                       &err),
                 &err);
        CHECK(tokens.count <= lore_embedder_tokens_max(b.embedder));
    }
    b.config.limits.document_chunks_max = 3;
    CHECK_FAILS(lore_prepare(&raw, &b.config, b.embedder, NULL, &arena, &prepared, &err),
                LORE_ERR_LIMIT, &err, "document_chunks_max");
    lore_buf_destroy(&source);
    lore_arena_destroy(&arena);
    bench_close(&b);
}

static bool wants_interrupt(void *self)
{
    int *left = self;
    return --*left < 0;
}

/* A text of several steps has the tokens of the whole, and is given up between them. */
TEST(tokens_in_steps)
{
    bench b;
    lore_buf source;
    lore_arena arena, scratch;
    lore_prepared prepared = {0};
    lore_error err = {0};
    int32_t count = 0;
    bench_open(&b, "steps");
    lore_buf_init(&source, 0);
    lore_arena_init(&arena, 0);
    lore_arena_init(&scratch, 0);
    for (int i = 0; source.len < 5 * 512 * 1024; i++) {
        lore_buf_printf(&source, "Line %d ends here; and 2 more?!\n\n%s", i,
                        i % 3 == 0 ? "    code =  1\n      more()\n\n" : "");
    }
    for (int i = 0; source.len < 6 * 512 * 1024; i++) { /* no line ends in here */
        lore_buf_printf(&source, "word%d, 17  and %d so-on ", i, i % 7);
    }
    lore_raw_document raw = {.media = LORE_MEDIA_MARKDOWN, .bytes = lore_buf_str(&source)};
    b.config.limits.document_chunks_max = 1000000;
    CHECK_OK(lore_prepare(&raw, &b.config, b.embedder, NULL, &arena, &prepared, &err), &err);
    CHECK(prepared.clean.text.len > 2 * 1024 * 1024);
    CHECK_OK(lore_tokenizer_count(lore_embedder_tokenizer(b.embedder), prepared.clean.text,
                                  &scratch, &count, &err),
             &err);
    CHECK_INT(prepared.token_count, count);
    int cleaning = 0;
    for (size_t at = 0; at < prepared.clean.text.len; at += 64 * 1024) {
        cleaning++;
    }
    int left = cleaning; /* enough for cleaning; the second step is refused */
    const lore_interrupt interrupt = {wants_interrupt, &left};
    CHECK_FAILS(lore_prepare(&raw, &b.config, b.embedder, &interrupt, &arena, &prepared, &err),
                LORE_ERR_CANCELLED, &err, "nothing is written");
    /* One word of more bytes than the tokenizer takes at once is a document like any other. */
    lore_buf_reset(&source);
    lore_arena_reset(&arena);
    while (source.len < 9 * 1024 * 1024) {
        lore_buf_append(&source, LORE_STR("\xE4\xB8\xAD\xE4\xB8\xAD"));
    }
    raw.bytes = lore_buf_str(&source);
    b.config.limits.document_chunks_max = 10000000;
    CHECK_OK(lore_prepare(&raw, &b.config, b.embedder, NULL, &arena, &prepared, &err), &err);
    CHECK(prepared.chunk_count > 1);
    lore_buf_destroy(&source);
    lore_arena_destroy(&scratch);
    lore_arena_destroy(&arena);
    bench_close(&b);
}

TEST(one)
{
    bench b;
    lore_error err = {0};
    lore_arena arena;
    lore_ingest_result result = {0};
    bench_open(&b, "one");
    lore_arena_init(&arena, 0);
    lore_raw_document raw = {.id = LORE_STR("manual"),
                             .media = LORE_MEDIA_MARKDOWN,
                             .bytes = LORE_STR("# T\n\nHold the button.\n")};
    const lore_ingest_one_options where = {.collection = LORE_STR("new-one")};
    CHECK_OK(lore_ingest_one(b.writer, b.embedder, &b.config, &where, &raw, &arena, &result, &err),
             &err);
    CHECK_INT(result.fate, LORE_FATE_ADDED);
    CHECK_STR(result.id, "manual");
    check_stored(&b, "new-one", result.id, "Hold the button.");
    CHECK_OK(lore_ingest_one(b.writer, b.embedder, &b.config, &where, &raw, &arena, &result, &err),
             &err);
    CHECK_INT(result.fate, LORE_FATE_UNCHANGED);
    raw.bytes = LORE_STR("# T\n\nPress it.\n");
    CHECK_OK(lore_ingest_one(b.writer, b.embedder, &b.config, &where, &raw, &arena, &result, &err),
             &err);
    CHECK_INT(result.fate, LORE_FATE_REPLACED);
    check_stored(&b, "new-one", result.id, "Press it.");
    /* Refused documents leave the stored one alone. */
    raw.bytes = LORE_STR("a\0b");
    CHECK_FAILS(
        lore_ingest_one(b.writer, b.embedder, &b.config, &where, &raw, &arena, &result, &err),
        LORE_ERR_INVALID, &err, "NUL");
    check_stored(&b, "new-one", LORE_STR("manual"), "Press it.");
    raw.bytes = LORE_STR("x");
    const lore_ingest_one_options bad = {.collection = LORE_STR("bad name!")};
    CHECK_FAILS(lore_ingest_one(b.writer, b.embedder, &b.config, &bad, &raw, &arena, &result, &err),
                LORE_ERR_INVALID, &err, "");
    raw.bytes = LORE_STR(""); /* no text is legal */
    CHECK_OK(lore_ingest_one(b.writer, b.embedder, &b.config, &where, &raw, &arena, &result, &err),
             &err);
    check_stored(&b, "new-one", LORE_STR("manual"), "");
    lore_arena_destroy(&arena);
    bench_close(&b);
}

/* What a caller of lore_ingest_one with callbacks sees. */
typedef struct caller {
    bench *b;
    int asked;
    int cancel_at;           /* the call of is_cancelled that says yes; 0: none */
    int write_at;            /* the call during which somebody else writes ... */
    const char *writes_same; /* ... this text */
    lore_status status;
} caller;

static lore_status write_other(caller *c)
{
    lore_arena arena;
    lore_error err = {0};
    lore_ingest_result result = {0};
    lore_arena_init(&arena, 0);
    lore_raw_document raw = {
        .id = LORE_STR("long"), .media = LORE_MEDIA_TEXT, .bytes = lore_str_from(c->writes_same)};
    lore_status status =
        lore_ingest_one(c->b->writer, c->b->embedder, &c->b->config, &(lore_ingest_one_options){0},
                        &raw, &arena, &result, &err);
    lore_arena_destroy(&arena);
    return status;
}

static bool caller_left(void *self)
{
    caller *c = self;
    if (++c->asked == c->write_at) {
        c->status = write_other(c);
    }
    return c->asked == c->cancel_at;
}

/* The caller is asked between batches and before the write, in the background too, and a document
 * that somebody else wrote meanwhile is not written again. */
TEST(cancelling)
{
    bench b;
    lore_error err = {0};
    lore_arena arena;
    lore_buf text;
    lore_ingest_result result = {0};
    lore_background *background = NULL;
    bench_open(&b, "cancelling");
    lore_arena_init(&arena, 0);
    lore_buf_init(&text, 0);
    CHECK_OK(lore_background_open(1, &background, &err), &err);
    b.config.chunk_tokens = 16;
    for (int i = 0; i < 200; i++) {
        lore_buf_printf(&text, "Line %d says that the boat number %d left the harbour.\n\n", i, i);
    }
    lore_raw_document raw = {
        .id = LORE_STR("long"), .media = LORE_MEDIA_TEXT, .bytes = lore_buf_str(&text)};
    caller c = {.b = &b};
    lore_ingest_one_options options = {
        .background = background, .self = &c, .is_cancelled = caller_left};
    for (c.cancel_at = 1; c.cancel_at < 100; c.cancel_at++) {
        c.asked = 0;
        if (lore_ingest_one(b.writer, b.embedder, &b.config, &options, &raw, &arena, &result,
                            &err) == LORE_OK) {
            break;
        }
        CHECK_INT(err.status, LORE_ERR_CANCELLED);
        CHECK_INT(bench_documents(&b), 0);
    }
    CHECK(c.cancel_at > 3 && c.cancel_at < 100); /* several batches, and the look before writing */
    CHECK_INT(result.fate, LORE_FATE_ADDED);
    c = (caller){.b = &b};
    CHECK_OK(
        lore_ingest_one(b.writer, b.embedder, &b.config, &options, &raw, &arena, &result, &err),
        &err);
    CHECK_INT(result.fate, LORE_FATE_UNCHANGED);
    CHECK_INT(c.asked, 0); /* nothing to embed or write */
    raw.bytes = LORE_STR("The same words.");
    c = (caller){.b = &b, .write_at = 1, .writes_same = "The same words."};
    options.background = NULL;
    CHECK_OK(
        lore_ingest_one(b.writer, b.embedder, &b.config, &options, &raw, &arena, &result, &err),
        &err);
    CHECK_INT(c.status, LORE_OK);
    CHECK_INT(result.fate, LORE_FATE_UNCHANGED);
    raw.bytes = LORE_STR("Other words.");
    options = (lore_ingest_one_options){.deadline_ns = 1};
    CHECK_FAILS(
        lore_ingest_one(b.writer, b.embedder, &b.config, &options, &raw, &arena, &result, &err),
        LORE_ERR_TIMEOUT, &err, "nothing is written");
    lore_background_close(background);
    lore_buf_destroy(&text);
    lore_arena_destroy(&arena);
    bench_close(&b);
}

/* A cap that is too small is a limit; a machine without memory is not. */
TEST(caps_are_limits)
{
    bench b;
    lore_error err = {0};
    lore_arena arena;
    lore_ingest_result result = {0};
    bench_open(&b, "caps");
    lore_arena_init(&arena, 256);
    lore_raw_document raw = {.id = LORE_STR("a"),
                             .media = LORE_MEDIA_TEXT,
                             .bytes = LORE_STR("Some words that need a little memory to cut.")};
    CHECK_FAILS(lore_ingest_one(b.writer, b.embedder, &b.config, &(lore_ingest_one_options){0},
                                &raw, &arena, &result, &err),
                LORE_ERR_LIMIT, &err, "arena_bytes_max");
    lore_arena_reset(&arena);
    CHECK_INT(lore_document_limit(LORE_ERR_NOMEM, &arena, &err), LORE_ERR_NOMEM);
    CHECK(lore_arena_push(&arena, 257) == NULL);
    CHECK_INT(lore_document_limit(LORE_ERR_IO, &arena, &err), LORE_ERR_IO);
    CHECK_INT(lore_document_limit(LORE_ERR_NOMEM, &arena, &err), LORE_ERR_LIMIT);
    lore_arena_destroy(&arena);
    bench_close(&b);
}

CHECK_MAIN(identity, refused_ids, fits_the_window, tokens_in_steps, one, cancelling,
           caps_are_limits)
