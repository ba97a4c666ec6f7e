/* Two ranked lists into one: pure functions, blind to input order.
 *
 * Plain reciprocal-rank fusion often loses to the better retriever alone (Bruch et al. 2023;
 * measured again on our sets), so the default is a weighted sum of min-max-normalised scores.
 * Thread: any. */
#ifndef LORE_RETRIEVAL_FUSE_H
#define LORE_RETRIEVAL_FUSE_H

#include "index/snapshot.h"

typedef struct lore_fused {
    int64_t chunk;
    float score;          /* in [0, 1] */
    float dense, lexical; /* the retrievers' own scores; NaN where one did not find it */
} lore_fused;

/* fused has room for dense.count + text.count items, best first, ties by chunk id. Returns how
 * many. weight is the dense share in [0, 1]. Missing from a list counts as that list's minimum. */
int32_t lore_fuse_scores(lore_candidates dense, lore_candidates text, double weight,
                         lore_fused *fused);
/* Reciprocal rank fusion, k = 60 (Cormack, Clarke, Buettcher 2009), scaled so that first in both
 * lists is 1. */
int32_t lore_fuse_ranks(lore_candidates dense, lore_candidates text, double weight,
                        lore_fused *fused);

#endif
