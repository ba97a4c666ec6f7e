/* What the tests of index/ share: a folder, a backend, documents made from a seed. */
#ifndef LORE_TESTS_INDEX_FIXTURE_H
#define LORE_TESTS_INDEX_FIXTURE_H

#include "base/clock.h"
#include "index/index_int.h"
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FIX_DIM = 32, FIX_CHUNKS_MAX = 64 };

typedef struct fixture {
    lore_config config;
    lore_backend *backend;
    lore_backend *device; /* NULL: none */
    lore_index *index;
    char folder[256];
} fixture;

/* A fresh name under the temporary folder of the test. */
CHECK_UNUSED static void fix_init(fixture *f, const char *name)
{
    lore_error err;
    memset(f, 0, sizeof *f);
    lore_config_default(&f->config);
    f->config.threads = 1; /* ThreadSanitizer does not understand OpenMP barriers */
    snprintf(f->folder, sizeof f->folder, "%s/%s", check_temp_dir(), name);
    lore_backend_options options = {.kind = LORE_BACKEND_REF};
    CHECK_OK(lore_backend_open(&options, &f->backend, &err), &err);
}

CHECK_UNUSED static lore_status fix_try_open(fixture *f, bool is_writer, const char *encoder,
                                             lore_error *err)
{
    lore_index_options options = {
        &f->config, f->backend, is_writer, encoder, encoder == NULL ? 0 : FIX_DIM, f->device};
    return lore_index_open(f->folder, &options, &f->index, err);
}

CHECK_UNUSED static void fix_open(fixture *f, bool is_writer)
{
    lore_error err;
    CHECK_OK(fix_try_open(f, is_writer, "encoder-1", &err), &err);
}

/* Until the background has nothing to do. */
CHECK_UNUSED static void fix_settle(fixture *f)
{
    CHECK(lore_rebuild_wait(f->index, lore_clock_ns() + (int64_t)60 * 1000000000));
}

CHECK_UNUSED static void fix_close(fixture *f)
{
    lore_index_close(f->index);
    f->index = NULL;
}

CHECK_UNUSED static void fix_destroy(fixture *f)
{
    fix_close(f);
    lore_backend_close(f->backend);
}

/* A unit vector that depends on the seed alone. */
CHECK_UNUSED static void fix_vector_of(uint64_t seed, float *out, int32_t dim)
{
    uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
    double sum = 0;
    for (int32_t i = 0; i < dim; i++) {
        out[i] = lore_random_unit(&state) - 0.5f;
        sum += (double)out[i] * (double)out[i];
    }
    for (int32_t i = 0; i < dim; i++) {
        out[i] = (float)((double)out[i] / sqrt(sum));
    }
}

CHECK_UNUSED static void fix_vector(uint64_t seed, float out[FIX_DIM])
{
    fix_vector_of(seed, out, FIX_DIM);
}

/* A document whose text is cut into chunk_count equal pieces; chunk i has the vector of seed + i.
 */
CHECK_UNUSED static lore_status fix_put(lore_index *index, const char *collection, const char *id,
                                        const char *text, const char *metadata, int32_t chunk_count,
                                        uint64_t seed, bool *was_replaced, lore_error *err)
{
    static float vectors[FIX_CHUNKS_MAX][FIX_DIM];
    lore_chunk_row chunks[FIX_CHUNKS_MAX];
    size_t length = strlen(text);
    for (int32_t i = 0; i < chunk_count; i++) {
        fix_vector(seed + (uint64_t)i, vectors[i]);
        chunks[i].start = length * (size_t)i / (size_t)chunk_count;
        chunks[i].end = length * (size_t)(i + 1) / (size_t)chunk_count;
        chunks[i].heading = LORE_STR("Guide > Part");
        chunks[i].vector = vectors[i];
    }
    lore_document_row document = {.id = lore_str_from(id),
                                  .source = LORE_STR("kb/page.md"),
                                  .title = LORE_STR("Title"),
                                  .metadata = lore_str_from(metadata),
                                  .media = LORE_STR("text/markdown"),
                                  .text = lore_str_from(text),
                                  .chunks = chunks,
                                  .chunk_count = chunk_count};
    memcpy(document.hash, &seed, sizeof seed);
    lore_put_outcome outcome = {0};
    lore_status status =
        lore_index_put_document(index, lore_str_from(collection), &document, &outcome, err);
    if (was_replaced != NULL) {
        *was_replaced = outcome.was_replaced;
    }
    return status;
}

/* begin, put one, commit */
CHECK_UNUSED static void fix_put_one(lore_index *index, const char *collection, const char *id,
                                     const char *text, const char *metadata, int32_t chunk_count,
                                     uint64_t seed)
{
    lore_error err;
    CHECK_OK(lore_index_begin(index, &err), &err);
    CHECK_OK(fix_put(index, collection, id, text, metadata, chunk_count, seed, NULL, &err), &err);
    CHECK_OK(lore_index_commit(index, &err), &err);
}

CHECK_UNUSED static void fix_delete_one(lore_index *index, const char *collection, const char *id)
{
    lore_error err;
    bool found = false;
    CHECK_OK(lore_index_begin(index, &err), &err);
    CHECK_OK(lore_index_delete_document(index, lore_str_from(collection), lore_str_from(id), &found,
                                        &err),
             &err);
    CHECK(found);
    CHECK_OK(lore_index_commit(index, &err), &err);
}

/* Chunk ids of the best for one collection, best first. Returns how many. */
CHECK_UNUSED static int32_t fix_dense(lore_index *index, const char *collection, uint64_t seed,
                                      const lore_filter *filter, int64_t *chunks, float *scores,
                                      int32_t count)
{
    lore_error err;
    lore_arena arena;
    lore_candidates found;
    float query[FIX_DIM];
    lore_str name = lore_str_from(collection);
    lore_search_options options = {
        .collections = &name, .collection_count = 1, .filter = filter, .count = count};
    lore_arena_init(&arena, 0);
    fix_vector(seed, query);
    lore_snapshot *snapshot = lore_index_acquire(index);
    CHECK_OK(lore_search_dense(snapshot, query, &options, &arena, &found, &err), &err);
    for (int32_t i = 0; i < found.count; i++) {
        chunks[i] = found.items[i].chunk;
        if (scores != NULL) {
            scores[i] = found.items[i].score;
        }
    }
    int32_t have = found.count;
    lore_snapshot_release(snapshot);
    lore_arena_destroy(&arena);
    return have;
}

CHECK_UNUSED static int32_t fix_text(lore_index *index, const char *collection,
                                     const char *question, const lore_filter *filter,
                                     int64_t *chunks, float *scores, int32_t count)
{
    lore_error err;
    lore_arena arena;
    lore_candidates found;
    lore_str name = lore_str_from(collection);
    lore_search_options options = {
        .collections = &name, .collection_count = 1, .filter = filter, .count = count};
    lore_arena_init(&arena, 0);
    lore_snapshot *snapshot = lore_index_acquire(index);
    CHECK_OK(lore_search_text(snapshot, lore_str_from(question), &options, &arena, &found, &err),
             &err);
    for (int32_t i = 0; i < found.count; i++) {
        chunks[i] = found.items[i].chunk;
        if (scores != NULL) {
            scores[i] = found.items[i].score;
        }
    }
    int32_t have = found.count;
    lore_snapshot_release(snapshot);
    lore_arena_destroy(&arena);
    return have;
}

/* The external id of the document that a chunk belongs to, "" when it is gone. */
CHECK_UNUSED static void fix_document_of(lore_index *index, int64_t chunk, char *out, size_t cap)
{
    lore_error err;
    lore_arena arena;
    lore_chunk loaded;
    int32_t count = 0;
    lore_arena_init(&arena, 0);
    lore_snapshot *snapshot = lore_index_acquire(index);
    CHECK_OK(lore_load_chunks(snapshot, &chunk, 1, &arena, &loaded, &count, &err), &err);
    out[0] = '\0';
    if (count == 1) {
        snprintf(out, cap, LORE_STR_FMT, LORE_STR_ARG(loaded.document_id));
    }
    lore_snapshot_release(snapshot);
    lore_arena_destroy(&arena);
}

/* Every byte of a file is shifted from `at` on, `count` of them. */
CHECK_UNUSED static void fix_damage(const char *path, long at)
{
    FILE *file = fopen(path, "r+b");
    CHECK(file != NULL);
    CHECK(fseek(file, at, SEEK_SET) == 0);
    int c = fgetc(file);
    CHECK(fseek(file, at, SEEK_SET) == 0);
    CHECK(fputc(c ^ 0x55, file) != EOF);
    CHECK(fclose(file) == 0);
}

#endif
