/* A passage is shown to the cross-encoder as it was to the encoder: under its title and heading,
 * since a chunk from the middle of a document often does not name what it is about. */
#include "retrieval/rerank.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>

static lore_str pair_text(const lore_chunk *chunk, lore_arena *arena)
{
    return lore_str_printf(arena, LORE_STR_FMT "%s" LORE_STR_FMT "\n" LORE_STR_FMT,
                           LORE_STR_ARG(chunk->title), chunk->heading.len > 0 ? " > " : "",
                           LORE_STR_ARG(chunk->heading), LORE_STR_ARG(chunk->text));
}

typedef struct place {
    float score;
    int32_t index; /* before */
} place;

static int by_score(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->score != y->score) {
        return (x->score < y->score) - (x->score > y->score);
    }
    return (x->index > y->index) - (x->index < y->index);
}

/* The first `count` items in the order of their scores. */
static lore_status reorder(lore_hits *hits, int32_t count, const float *scores, lore_arena *arena,
                           lore_error *err)
{
    place *places = LORE_PUSH(arena, place, count);
    lore_hit *items = LORE_PUSH(arena, lore_hit, hits->count);
    if (places == NULL || items == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d hits", hits->count);
    }
    for (int32_t i = 0; i < count; i++) {
        places[i] = (place){scores[i], i};
    }
    qsort(places, (size_t)count, sizeof *places, by_score);
    for (int32_t i = 0; i < count; i++) {
        items[i] = hits->items[places[i].index];
        items[i].rerank = places[i].score;
    }
    for (int32_t i = count; i < hits->count; i++) {
        items[i] = hits->items[i];
    }
    hits->items = items;
    return LORE_OK;
}

static lore_status score_hits(lore_reranker *reranker, lore_str question, int32_t count,
                              int64_t deadline_ns, lore_arena *arena, lore_hits *hits,
                              lore_error *err)
{
    lore_str *texts = LORE_PUSH(arena, lore_str, count);
    float *scores = LORE_PUSH(arena, float, count);
    bool has_memory = texts != NULL && scores != NULL;
    for (int32_t i = 0; i < count && has_memory; i++) {
        texts[i] = pair_text(&hits->items[i].chunk, arena);
        has_memory = texts[i].ptr != NULL;
    }
    if (!has_memory) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %d pairs", count);
    }
    lore_status status =
        lore_reranker_score(reranker, question, texts, count, deadline_ns, scores, err);
    return status == LORE_OK ? reorder(hits, count, scores, arena, err) : status;
}

void lore_rerank(lore_reranker *reranker, lore_str question, const lore_rerank_options *options,
                 lore_arena *arena, lore_hits *hits)
{
    LORE_ASSERT(options->pairs > 0 && options->pairs <= LORE_RERANK_PAIRS_MAX);
    lore_error err = {0};
    int64_t start_ns = lore_clock_ns();
    int32_t count = hits->count < options->pairs ? hits->count : options->pairs;
    lore_status status =
        count > 0 ? score_hits(reranker, question, count, options->deadline_ns, arena, hits, &err)
                  : LORE_OK;
    hits->rerank = status == LORE_OK            ? LORE_RERANK_DONE
                   : status == LORE_ERR_TIMEOUT ? LORE_RERANK_LATE
                                                : LORE_RERANK_FAILED;
    if (hits->rerank == LORE_RERANK_FAILED) {
        lore_log(LORE_LOG_WARN, "event=rerank_failed reason=%s",
                 LORE_LOG_STR(lore_str_from(err.message)));
    }
    hits->rerank_ns = lore_clock_ns() - start_ns;
}
