/* See reembed_run.h. A batch is read, embedded and written in one transaction of its own. */
#include "ingest/reembed_run.h"

#include "base/mem.h"
#include "ingest/chunk.h"

enum { BATCH_CHUNKS = 256 };

static lore_status embed_batch(lore_index *index, lore_embedder *embedder, lore_arena *arena,
                               int32_t *count, lore_error *err)
{
    lore_reembed_chunk *chunks = NULL;
    const int32_t dim = lore_embedder_dim(embedder);
    lore_status status = lore_reembed_next(index, BATCH_CHUNKS, arena, &chunks, count, err);
    if (status != LORE_OK || *count == 0) {
        return status;
    }
    lore_str *texts = LORE_PUSH(arena, lore_str, *count);
    float *vectors = LORE_PUSH(arena, float, (size_t)*count *(size_t)dim);
    bool has_memory = texts != NULL && vectors != NULL;
    for (int32_t i = 0; i < *count && has_memory; i++) {
        texts[i] = lore_chunk_embed_text(arena, chunks[i].title, chunks[i].heading, chunks[i].text);
        has_memory = texts[i].ptr != NULL;
    }
    if (!has_memory) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for %d chunks", *count);
    }
    status = lore_embedder_encode_bulk(embedder, texts, *count, vectors, err);
    return status == LORE_OK ? lore_reembed_put(index, chunks, vectors, *count, dim, err) : status;
}

lore_status lore_reembed_run(lore_index *index, lore_embedder *embedder,
                             const lore_reembed_options *options, lore_reembed_counts *counts,
                             lore_error *err)
{
    int64_t left = 0;
    int32_t count = 1;
    lore_arena arena;
    *counts = (lore_reembed_counts){0};
    lore_status status =
        lore_reembed_begin(index, lore_embedder_fingerprint(embedder), lore_embedder_dim(embedder),
                           &counts->is_same, &counts->chunks, &left, err);
    if (status != LORE_OK || counts->is_same) {
        return status;
    }
    lore_arena_init(&arena, 0);
    while (status == LORE_OK && count > 0) {
        lore_arena_reset(&arena);
        if (options->is_cancelled != NULL && options->is_cancelled(options->self)) {
            status = lore_fail(err, LORE_ERR_CANCELLED, "cancelled; what was made is kept");
            break;
        }
        status = embed_batch(index, embedder, &arena, &count, err);
        counts->embedded += status == LORE_OK ? count : 0;
        if (options->progress != NULL) {
            options->progress(options->self, counts->chunks - left + counts->embedded,
                              counts->chunks);
        }
    }
    lore_arena_destroy(&arena);
    return status == LORE_OK ? lore_reembed_exchange(index, err) : status;
}
