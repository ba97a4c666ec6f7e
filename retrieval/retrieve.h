/* From a question to ranked passages: embed, search both ways, fuse (where the collection is tuned
 * so, search the texts again with terms of the best passages), drop near-duplicates, load,
 * and where there is a reranker, put them into its order.
 *
 * Thread: any. One snapshot serves the whole call, so what is found belongs together. */
#ifndef LORE_RETRIEVAL_RETRIEVE_H
#define LORE_RETRIEVAL_RETRIEVE_H

#include "index/snapshot.h"
#include "models/embedder.h"
#include "models/reranker.h"

typedef struct lore_hit {
    lore_chunk chunk;     /* strings live in the caller's arena */
    float score;          /* fused, [0, 1] */
    float dense, lexical; /* the retrievers' own; dense is always filled (scored exactly), lexical
                             NaN when not found by it */
    float rerank;         /* the reranker's, [0, 1]; NaN: it did not read this one */
} lore_hit;

typedef enum lore_rerank_state {
    LORE_RERANK_OFF = 0,
    LORE_RERANK_DONE,
    LORE_RERANK_LATE,  /* over its deadline: the hits are as they were found */
    LORE_RERANK_FAILED /* likewise */
} lore_rerank_state;

typedef struct lore_hits {
    lore_hit *items; /* best first */
    int32_t count;
    const float *query_vector; /* f32 [dim], unit length */
    int64_t embed_ns, search_ns, rerank_ns;
    lore_rerank_state rerank;
} lore_hits;

typedef struct lore_retriever {
    lore_index *index; /* all borrowed */
    lore_embedder *embedder;
    lore_reranker *reranker; /* NULL: none */
    const lore_config *config;
} lore_retriever;

typedef struct lore_retrieve_options {
    lore_search_options search; /* collections, filter; count is ignored */
    int32_t hits_max;           /* 1..limits.top_k_max */
    lore_tuning tuning;         /* fusion_weight below 0: the collection's own, else the config's */
    int64_t deadline_ns;        /* of the request: reranking ends before it; 0: none */
} lore_retrieve_options;

/* An empty index gives zero hits. Fails: LORE_ERR_NOT_FOUND (collection), LORE_ERR_IO,
 * LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_retrieve(const lore_retriever *retriever, lore_str question,
                                        const lore_retrieve_options *options, lore_arena *arena,
                                        lore_hits *hits, lore_error *err);
/* The same at each of `count` tunings instead of options->tuning, embedded and searched for once,
 * as found and never reranked: what a tuning is chosen by. hits: [count]. */
LORE_MUST_USE lore_status lore_retrieve_tunings(const lore_retriever *retriever, lore_str question,
                                                const lore_retrieve_options *options,
                                                const lore_tuning *tunings, int32_t count,
                                                lore_arena *arena, lore_hits *hits,
                                                lore_error *err);

#endif
