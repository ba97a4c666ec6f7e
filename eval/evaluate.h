/* A collection, asked questions whose answers are known: what `lore eval` runs.
 *
 * Questions are asked one after the other, in order of id, through the same calls as those of
 * users, so the same data folder and settings give the same table. A document's rank is that of its
 * best passage. Thread: one. */
#ifndef LORE_EVAL_EVALUATE_H
#define LORE_EVAL_EVALUATE_H

#include "api/answer.h"
#include "eval/fit.h"
#include "eval/table.h"
#include "eval/topics.h"

typedef struct lore_evaluation {
    const lore_answerer *answerer; /* borrowed */
    lore_str collection;
    int32_t depth;  /* passages that a ranking is made of */
    lore_mode mode; /* of answers: LORE_MODE_ANSWER or LORE_MODE_EXTRACT */
    void *self;
    bool (*is_stopped)(void *self);                            /* may be NULL */
    void (*progress)(void *self, int32_t done, int32_t total); /* may be NULL */
    /* How it went: */
    int64_t absent;        /* documents judged relevant that the collection does not have */
    int32_t rerank_missed; /* questions that the reranker did not finish in time */
} lore_evaluation;

/* Figures ndcg@10, recall@10, recall@100 (of depth >= 100, else recall@depth), mrr@10, map. run,
 * where not NULL, gets the rankings as lines of a TREC run file. LORE_ERR_NOT_FOUND: no such
 * collection, or none of the judged documents is in it; LORE_ERR_CANCELLED; those of retrieval.
 */
LORE_MUST_USE lore_status lore_evaluate_retrieval(lore_evaluation *evaluation,
                                                  const lore_topics *topics, lore_arena *arena,
                                                  lore_table *table, lore_buf *run,
                                                  lore_error *err);
/* nDCG@10 at all weights, and of them the best: figures lexical, dense, configured and fitted
 * ndcg@10. LORE_ERR_INVALID: too few questions. */
LORE_MUST_USE lore_status lore_evaluate_weights(lore_evaluation *evaluation,
                                                const lore_topics *topics, lore_arena *arena,
                                                lore_table *table, lore_fit *fit, lore_error *err);
/* Of questions with an answer (a refusal scores 0): exact_match, f1, rouge_l, answer_in_output,
 * passage_recall (a passage holds an answer), citation_recall (a citation does) and
 * citation_precision (of the citations, those that do), each of the named document where one is
 * named; of all: citation_verified (document[start:end] is the cited text), refusal_precision,
 * _recall and _f1. */
LORE_MUST_USE lore_status lore_evaluate_answers(lore_evaluation *evaluation,
                                                const lore_topics *topics, lore_arena *arena,
                                                lore_table *table, lore_error *err);

#endif
