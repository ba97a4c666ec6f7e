/* Hits in the order of a cross-encoder, which reads the question and each passage together.
 *
 * The stage is optional and has a deadline: where it cannot be kept, the hits stay as they were
 * found, and say so. Nothing here fails a question. Thread: any. */
#ifndef LORE_RETRIEVAL_RERANK_H
#define LORE_RETRIEVAL_RERANK_H

#include "models/reranker.h"
#include "retrieval/retrieve.h"

enum {
    LORE_RERANK_PAIRS_MAX = 50
}; /* quality falls again, and time runs away, beyond some depth */

typedef struct lore_rerank_options {
    int32_t pairs;       /* of the best hits, 1..LORE_RERANK_PAIRS_MAX */
    int64_t deadline_ns; /* lore_clock_ns; 0: none */
} lore_rerank_options;

/* Put the first `pairs` hits into the order of their scores (ties as they stood), the others stay
 * behind them. Fills rerank of these hits, and hits->rerank, rerank_ns. Memory of the arena. */
void lore_rerank(lore_reranker *reranker, lore_str question, const lore_rerank_options *options,
                 lore_arena *arena, lore_hits *hits);

#endif
