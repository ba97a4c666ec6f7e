/* What the tests that write to an index share: an index in a fresh folder, the shipped encoder. */
#ifndef LORE_TESTS_INGEST_INDEX_FIXTURE_H
#define LORE_TESTS_INGEST_INDEX_FIXTURE_H

#include "tests/unit/ingest_fixture.h"

#include "base/thread.h"
#include "index/snapshot.h"
#include "ingest/ingest.h"

#define ENCODER LORE_SOURCE_DIR "/weights/encoder"

typedef struct bench {
    lore_config config;
    lore_pool *pool;
    lore_backend *backend;
    lore_embedder *embedder;
    lore_index *index;
    lore_writer *writer;
    char folder[256];
} bench;

CHECK_UNUSED static void bench_open(bench *b, const char *name)
{
    lore_error err = {0};
    memset(b, 0, sizeof *b);
    lore_config_default(&b->config);
    snprintf(b->folder, sizeof b->folder, "%s/%s", check_temp_dir(), name);
    CHECK_OK(lore_pool_new(2, &b->pool, &err), &err);
    lore_backend_options options = {.kind = LORE_BACKEND_CPU, .pool = b->pool};
    CHECK_OK(lore_backend_open(&options, &b->backend, &err), &err);
    CHECK_OK(lore_embedder_open(ENCODER, b->backend, &b->config.limits, &b->embedder, &err), &err);
    lore_index_options index_options = {&b->config,
                                        b->backend,
                                        true,
                                        lore_embedder_fingerprint(b->embedder),
                                        lore_embedder_dim(b->embedder),
                                        NULL};
    CHECK_OK(lore_index_open(b->folder, &index_options, &b->index, &err), &err);
    CHECK_OK(lore_writer_open(b->index, &b->writer, &err), &err);
}

/* What no change of the writer can do is done without it: nobody else may write while it is open.
 */
CHECK_UNUSED static void bench_tune(bench *b, const char *collection, double weight,
                                    const char *refusal)
{
    lore_error err = {0};
    lore_writer_close(b->writer);
    b->writer = NULL;
    const lore_collection_settings settings = {.has_weight = true,
                                               .has_refusal = true,
                                               .fusion_weight = weight,
                                               .refusal = lore_str_from(refusal)};
    CHECK_OK(lore_index_set_collection(b->index, lore_str_from(collection), &settings, &err), &err);
    CHECK_OK(lore_writer_open(b->index, &b->writer, &err), &err);
}

CHECK_UNUSED static void bench_close(bench *b)
{
    lore_writer_close(b->writer);
    lore_index_close(b->index);
    lore_embedder_close(b->embedder);
    lore_backend_close(b->backend);
    lore_pool_free(b->pool);
}

CHECK_UNUSED static int64_t bench_documents(bench *b)
{
    lore_error err = {0};
    lore_arena arena;
    lore_collection_info *list = NULL;
    int32_t count = 0;
    int64_t documents = 0;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_index_collections(b->index, &arena, &list, &count, &err), &err);
    for (int32_t i = 0; i < count; i++) {
        documents += list[i].documents;
    }
    lore_arena_destroy(&arena);
    return documents;
}

/* Text of a stored document. */
CHECK_UNUSED static void check_stored(bench *b, const char *collection, lore_str id,
                                      const char *text)
{
    lore_error err = {0};
    lore_arena arena;
    lore_document_info document;
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_index_get_document(b->index, lore_str_from(collection), id, true, &arena,
                                     &document, &err),
             &err);
    CHECK_STR(document.text, text);
    lore_arena_destroy(&arena);
}

#endif
