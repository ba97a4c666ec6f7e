/* A cross-encoder: how well a text answers a question, from both read together; from the folder of
 * a BERT, XLM-R or ModernBERT classifier with one label.
 *
 * Far better than comparing two vectors and far slower, so a call has a deadline, and keeps to it
 * within a layer of the network. Reads config.json, the tokenizer (which must know how a pair is
 * put together), tokenizer_config.json for the length, and the weights. Thread: any; one pack of
 * pairs is computed at a time, whoever's, in no promised order. */
#ifndef LORE_MODELS_RERANKER_H
#define LORE_MODELS_RERANKER_H

#include "models/tokenizer.h"
#include "models/weights.h"

typedef struct lore_reranker lore_reranker;

/* backend is borrowed until close. */
LORE_MUST_USE lore_status lore_reranker_open(const char *folder, lore_backend *backend,
                                             const lore_limits *limits, lore_reranker **reranker,
                                             lore_error *err);
void lore_reranker_close(lore_reranker *reranker);
const char *lore_reranker_name(const lore_reranker *reranker); /* borrowed */
/* model_type of config.json: "bert", "xlm-roberta", ... */
const char *lore_reranker_family(const lore_reranker *reranker);
/* Of a pair, special tokens included. */
int32_t lore_reranker_tokens_max(const lore_reranker *reranker);
const lore_tokenizer *lore_reranker_tokenizer(const lore_reranker *reranker); /* borrowed */
int64_t lore_reranker_parameters(const lore_reranker *reranker);

/* scores [count], caller's: the probability that text i answers the question, in [0, 1]; 0 where
 * the network gives no number. A pair that is too long loses the end of its longer text, as
 * transformers' "longest_first" cuts it.
 *
 * deadline_ns (lore_clock_ns; 0: none): as soon as it is clear that the rest would take longer, or
 * it has passed, LORE_ERR_TIMEOUT and no scores. LORE_ERR_NOMEM, LORE_ERR_DEVICE. */
LORE_MUST_USE lore_status lore_reranker_score(lore_reranker *reranker, lore_str question,
                                              const lore_str *texts, int32_t count,
                                              int64_t deadline_ns, float *scores, lore_error *err);

#endif
