/* Figures of a ranking against graded judgements, as trec_eval defines them.
 *
 * Pure: the same input gives the same digits. A grade above zero is relevant, and it is the gain.
 * Source: Järvelin and Kekäläinen, TOIS 2002 (nDCG, gains not raised to a power); trec_eval 9
 * (ndcg_cut, recall, recip_rank, map). Thread: any. */
#ifndef LORE_EVAL_RANKING_H
#define LORE_EVAL_RANKING_H

#include "eval/topics.h"

/* Grades of the ranked documents, best first: grades[i] of documents[i], 0 where nobody judged. */
void lore_ranking_grades(const lore_topic *topic, const lore_str *documents, int32_t count,
                         int32_t *grades);

/* Over the first `cut` of `count` documents. All need topic->relevant_count > 0. */
double lore_ranking_ndcg(const lore_topic *topic, const int32_t *grades, int32_t count,
                         int32_t cut);
double lore_ranking_recall(const lore_topic *topic, const int32_t *grades, int32_t count,
                           int32_t cut);
double lore_ranking_reciprocal(const int32_t *grades, int32_t count, int32_t cut);
double lore_ranking_average_precision(const lore_topic *topic, const int32_t *grades,
                                      int32_t count);

#endif
