/* One question through both indexes of one snapshot. The walk is lore_retrieve at the end;
 * everything above it is a step of it. */
#include "retrieval/retrieve.h"

#include "base/clock.h"
#include "index/lexical.h"
#include "retrieval/fuse.h"
#include "retrieval/rerank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    OVERFETCH = 2,     /* candidates loaded for each hit wanted: near-duplicates and rows deleted
                          meanwhile drop out */
    OVERFETCH_MIN = 8, /* ... and so many more */
    EXPANSION_PASSAGES = 5, /* whose terms a second search takes */
    SHINGLE_WORDS = 3,      /* near-duplicate test: three-word shingles ... */
    SHINGLES_MAX = 1024     /* ... of a chunk, the first so many */
};
static const double NEAR_DUPLICATE_SHARE =
    0.85; /* ... of which this share occurs in the better hit */

static lore_status embed_question(const lore_retriever *retriever, lore_str question,
                                  lore_arena *arena, lore_hits *hits, lore_error *err)
{
    int32_t dim = lore_embedder_dim(retriever->embedder);
    float *vector = lore_arena_push(arena, (size_t)dim * sizeof *vector);
    if (vector == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for the question's vector");
    }
    int64_t start_ns = lore_clock_ns();
    lore_status status = lore_embedder_encode(retriever->embedder, &question, 1, vector, err);
    hits->embed_ns = lore_clock_ns() - start_ns;
    hits->query_vector = vector;
    return status;
}

/* What is asked for, or the one collection's own, or the config's. */
static lore_status choose_tuning(const lore_retriever *retriever,
                                 const lore_retrieve_options *options, lore_arena *arena,
                                 lore_tuning *tuning, lore_error *err)
{
    const lore_config *config = retriever->config;
    *tuning = options->tuning;
    if (tuning->fusion_weight >= 0.0) {
        return LORE_OK;
    }
    *tuning = (lore_tuning){config->fusion_weight, config->expansion};
    if (options->search.collection_count != 1) {
        return LORE_OK;
    }
    lore_collection_info *list = NULL;
    int32_t count = 0;
    lore_status status = lore_index_collections(retriever->index, arena, &list, &count, err);
    for (int32_t i = 0; status == LORE_OK && i < count; i++) {
        if (!lore_str_equal(list[i].name, options->search.collections[0])) {
            continue;
        }
        const lore_collection_info *own = &list[i];
        tuning->fusion_weight =
            isnan(own->fusion_weight) ? tuning->fusion_weight : own->fusion_weight;
        tuning->expansion = isnan(own->expansion) ? tuning->expansion : own->expansion;
    }
    return status;
}

/* Give every fused candidate its exact cosine, so that scores can be compared and shown. */
static lore_status fill_dense(lore_snapshot *snapshot, const float *query, lore_fused *fused,
                              int32_t count, lore_arena *arena, lore_error *err)
{
    int64_t *chunks = LORE_PUSH(arena, int64_t, count);
    float *scores = LORE_PUSH(arena, float, count);
    if (chunks == NULL || scores == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d candidates", count);
    }
    for (int32_t i = 0; i < count; i++) {
        chunks[i] = fused[i].chunk;
    }
    lore_status status = lore_score_dense(snapshot, query, chunks, count, scores, err);
    for (int32_t i = 0; status == LORE_OK && i < count; i++) {
        fused[i].dense = scores[i];
    }
    return status;
}

/* ---- near-duplicates: the share of a chunk's shingles that a better hit holds too ---- */

typedef struct shingles {
    uint64_t hashes[SHINGLES_MAX]; /* sorted once complete */
    int32_t count;
    uint64_t last[SHINGLE_WORDS];
    int32_t words;
} shingles;

static bool add_shingle(void *self, const lore_word *word)
{
    shingles *s = self;
    if (word->is_bigram) {
        return true; /* its characters were visited too */
    }
    memmove(s->last, s->last + 1, sizeof s->last - sizeof s->last[0]);
    s->last[SHINGLE_WORDS - 1] = lore_str_hash(word->text);
    if (++s->words >= SHINGLE_WORDS) {
        uint64_t hash = 0;
        for (int32_t i = 0; i < SHINGLE_WORDS; i++) {
            hash = hash * 1099511628211U + s->last[i];
        }
        s->hashes[s->count++] = hash;
    }
    return s->count < SHINGLES_MAX;
}

static int by_hash(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static lore_status make_shingles(lore_str text, shingles *s, lore_error *err)
{
    s->count = 0;
    s->words = 0;
    lore_status status = lore_words_each(text, add_shingle, s, err);
    qsort(s->hashes, (size_t)s->count, sizeof s->hashes[0], by_hash);
    return status;
}

/* True when nearly everything `later` says stands in `earlier`. */
static bool is_covered(const shingles *later, const shingles *earlier)
{
    int32_t common = 0;
    int32_t j = 0;
    for (int32_t i = 0; i < later->count; i++) {
        while (j < earlier->count && earlier->hashes[j] < later->hashes[i]) {
            j++;
        }
        common += j < earlier->count && earlier->hashes[j] == later->hashes[i];
    }
    return later->count > 0 && (double)common >= NEAR_DUPLICATE_SHARE * later->count;
}

/* Keep the first hits_max chunks that a better one of another document does not already say. */
static lore_status keep_distinct(const lore_chunk *chunks, int32_t count,
                                 const lore_retrieve_options *options, const lore_fused *fused,
                                 lore_arena *arena, lore_hits *hits, lore_error *err)
{
    shingles *kept = LORE_PUSH(arena, shingles, options->hits_max + 1);
    hits->items = LORE_PUSH(arena, lore_hit, options->hits_max);
    if (kept == NULL || hits->items == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d hits", options->hits_max);
    }
    int32_t f = 0;
    for (int32_t i = 0; i < count && hits->count < options->hits_max; i++) {
        while (fused[f].chunk != chunks[i].row) {
            f++; /* loaded chunks keep the order of the fused list; the missing ones were deleted
                    meanwhile */
        }
        lore_status status = make_shingles(chunks[i].text, &kept[hits->count], err);
        if (status != LORE_OK) {
            return status;
        }
        bool is_duplicate = false;
        for (int32_t k = 0; k < hits->count && !is_duplicate; k++) {
            is_duplicate = hits->items[k].chunk.document_row != chunks[i].document_row &&
                           is_covered(&kept[hits->count], &kept[k]);
        }
        if (!is_duplicate) {
            hits->items[hits->count++] =
                (lore_hit){chunks[i], fused[f].score, fused[f].dense, fused[f].lexical, NAN};
        }
    }
    return LORE_OK;
}

static lore_status load_hits(lore_snapshot *snapshot, const lore_fused *fused, int32_t count,
                             const lore_retrieve_options *options, lore_arena *arena,
                             lore_hits *hits, lore_error *err)
{
    int32_t wanted = options->hits_max * OVERFETCH + OVERFETCH_MIN;
    wanted = wanted < count ? wanted : count;
    int64_t *rows = LORE_PUSH(arena, int64_t, wanted);
    lore_chunk *chunks = LORE_PUSH(arena, lore_chunk, wanted);
    if (rows == NULL || chunks == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d passages", wanted);
    }
    for (int32_t i = 0; i < wanted; i++) {
        rows[i] = fused[i].chunk;
    }
    int32_t found = 0;
    lore_status status = lore_load_chunks(snapshot, rows, wanted, arena, chunks, &found, err);
    if (status != LORE_OK) {
        return status;
    }
    return keep_distinct(chunks, found, options, fused, arena, hits, err);
}

typedef struct both {
    lore_candidates dense, text;
} both;

/* options->search for as many candidates as fusion takes. */
static lore_search_options wide_search(const lore_retriever *retriever,
                                       const lore_retrieve_options *options)
{
    lore_search_options search = options->search;
    search.count = (int32_t)retriever->config->limits.candidates_max;
    return search;
}

static lore_status search_both(const lore_retriever *retriever, lore_snapshot *snapshot,
                               lore_str question, const lore_retrieve_options *options,
                               const float *query, lore_arena *arena, both *found, lore_error *err)
{
    const lore_search_options search = wide_search(retriever, options);
    lore_status status = lore_search_dense(snapshot, query, &search, arena, &found->dense, err);
    return status == LORE_OK
               ? lore_search_text(snapshot, question, &search, arena, &found->text, err)
               : status;
}

static lore_status fuse_both(const lore_retriever *retriever, const both *found, double weight,
                             lore_arena *arena, lore_fused **fused, int32_t *count, lore_error *err)
{
    lore_candidates dense = found->dense, text = found->text;
    *fused = LORE_PUSH(arena, lore_fused, dense.count + text.count);
    if (*fused == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d candidates",
                         dense.count + text.count);
    }
    *count = retriever->config->fusion_rrf ? lore_fuse_ranks(dense, text, weight, *fused)
                                           : lore_fuse_scores(dense, text, weight, *fused);
    return LORE_OK;
}

/* Ask the full-text index again, with terms of the best passages. */
static lore_status expand(const lore_retriever *retriever, lore_snapshot *snapshot,
                          lore_str question, const lore_retrieve_options *options, double expansion,
                          const lore_fused *fused, int32_t count, lore_arena *arena, both *found,
                          lore_error *err)
{
    int64_t rows[EXPANSION_PASSAGES];
    lore_chunk chunks[EXPANSION_PASSAGES];
    lore_str texts[EXPANSION_PASSAGES];
    int32_t wanted = count < EXPANSION_PASSAGES ? count : EXPANSION_PASSAGES;
    lore_search_options search = wide_search(retriever, options);
    for (int32_t i = 0; i < wanted; i++) {
        rows[i] = fused[i].chunk;
    }
    lore_status status =
        lore_load_chunks(snapshot, rows, wanted, arena, chunks, &search.passage_count, err);
    if (status != LORE_OK) {
        return status;
    }
    for (int32_t i = 0; i < search.passage_count; i++) {
        texts[i] = chunks[i].text;
    }
    search.passages = texts;
    search.expansion = expansion;
    return lore_search_text(snapshot, question, &search, arena, &found->text, err);
}

/* The candidates of both searches as hits, by this tuning. */
static lore_status rank(const lore_retriever *retriever, lore_snapshot *snapshot, lore_str question,
                        const lore_retrieve_options *options, lore_tuning tuning, both found,
                        lore_arena *arena, lore_hits *hits, lore_error *err)
{
    lore_fused *fused = NULL;
    int32_t count = 0;
    lore_status status =
        fuse_both(retriever, &found, tuning.fusion_weight, arena, &fused, &count, err);
    if (status == LORE_OK && tuning.expansion > 0 && count > 0) {
        status = expand(retriever, snapshot, question, options, tuning.expansion, fused, count,
                        arena, &found, err);
        if (status == LORE_OK) {
            status = fuse_both(retriever, &found, tuning.fusion_weight, arena, &fused, &count, err);
        }
    }
    if (status == LORE_OK) {
        status = fill_dense(snapshot, hits->query_vector, fused, count, arena, err);
    }
    return status == LORE_OK ? load_hits(snapshot, fused, count, options, arena, hits, err)
                             : status;
}

/* Let the reranker order the hits, and keep what was asked for. */
static void rerank(const lore_retriever *retriever, lore_str question,
                   const lore_retrieve_options *options, lore_arena *arena, lore_hits *hits)
{
    const lore_config *config = retriever->config;
    lore_rerank_options rerank_options = {.pairs = (int32_t)config->rerank_pairs,
                                          .deadline_ns =
                                              lore_clock_ns() + config->rerank_ms * 1000000};
    if (options->deadline_ns != 0 && options->deadline_ns < rerank_options.deadline_ns) {
        rerank_options.deadline_ns = options->deadline_ns;
    }
    lore_rerank(retriever->reranker, question, &rerank_options, arena, hits);
    hits->count = hits->count < options->hits_max ? hits->count : options->hits_max;
}

lore_status lore_retrieve(const lore_retriever *retriever, lore_str question,
                          const lore_retrieve_options *options, lore_arena *arena, lore_hits *hits,
                          lore_error *err)
{
    LORE_ASSERT(options->hits_max > 0);
    lore_hits found = {0};
    lore_tuning tuning;
    lore_status status = embed_question(retriever, question, arena, &found, err);
    if (status != LORE_OK) {
        return status;
    }
    status = choose_tuning(retriever, options, arena, &tuning, err);
    if (status != LORE_OK) {
        return status;
    }
    int64_t start_ns = lore_clock_ns();
    lore_snapshot *snapshot = lore_index_acquire(retriever->index);
    lore_retrieve_options wider = *options; /* the reranker chooses among more than are wanted */
    if (retriever->reranker != NULL && wider.hits_max < retriever->config->rerank_pairs) {
        wider.hits_max = (int32_t)retriever->config->rerank_pairs;
    }
    both candidates = {0};
    status = search_both(retriever, snapshot, question, &wider, found.query_vector, arena,
                         &candidates, err);
    if (status == LORE_OK) {
        status =
            rank(retriever, snapshot, question, &wider, tuning, candidates, arena, &found, err);
    }
    lore_snapshot_release(snapshot);
    if (status != LORE_OK) {
        return status;
    }
    found.search_ns = lore_clock_ns() - start_ns;
    if (retriever->reranker != NULL) {
        rerank(retriever, question, options, arena, &found);
    }
    *hits = found;
    return LORE_OK;
}

lore_status lore_retrieve_tunings(const lore_retriever *retriever, lore_str question,
                                  const lore_retrieve_options *options, const lore_tuning *tunings,
                                  int32_t count, lore_arena *arena, lore_hits *hits,
                                  lore_error *err)
{
    LORE_ASSERT(options->hits_max > 0);
    lore_hits base = {0};
    both candidates = {0};
    lore_status status = embed_question(retriever, question, arena, &base, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_snapshot *snapshot = lore_index_acquire(retriever->index);
    status = search_both(retriever, snapshot, question, options, base.query_vector, arena,
                         &candidates, err);
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        hits[i] = base;
        status = rank(retriever, snapshot, question, options, tunings[i], candidates, arena,
                      &hits[i], err);
    }
    lore_snapshot_release(snapshot);
    return status;
}
