/* The part of the contract of ops.h, whose rules hold here too, that searches vectors: no model
 * needs it, the index does. */
#ifndef LORE_KERNELS_SEARCH_H
#define LORE_KERNELS_SEARCH_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Vectors to be searched. int8 rows have scales, f16 ones have none. */
enum { LORE_SEARCH_HITS_MAX = 1024 }; /* of one query */
struct lore_search {
    lore_dtype dtype; /* of queries and vectors: LORE_I8 or LORE_F16 */
    int32_t queries;
    const void *query;         /* [queries, dim] */
    const float *query_scales; /* [queries], int8 alone */
    const void *vectors;       /* [count, dim] */
    const float *scales;       /* [count], int8 alone */
    const uint32_t *passing;   /* bit r % 32 of word r / 32: row r may be found; NULL: all may */
    int64_t count;             /* at most INT32_MAX */
    int32_t dim;
};

/* scores[i] = query_scale * scales[i] * sum_c query[c] vectors[i * dim + c]: the exact scan of int8
 * vectors. */
static inline void lore_op_scan(lore_queue *q, float *scores, const int8_t *query,
                                float query_scale, const int8_t *vectors, const float *scales,
                                int64_t count, int32_t dim)
{
    LORE_ASSERT(dim > 0);
    q->ops->scan(q, scores, query, query_scale, vectors, scales, count, dim);
}

/* rows[i, 0 .. hits-1] = the rows that score best for query i, best first, ties by the lower row,
 * and scores likewise; where fewer pass, row -1 and score -infinity behind them. int8 scores are
 * those of lore_op_scan to the last bit; f16 ones are sums of products in f32, and rows whose
 * scores differ by the rounding of these may change places. A row whose score is NaN is never
 * found. The struct is host memory, read before the call returns. */
static inline void lore_op_search(lore_queue *q, int32_t *rows, float *scores, int32_t hits,
                                  const lore_search *search)
{
    LORE_ASSERT(search->dtype == LORE_I8 || search->dtype == LORE_F16);
    LORE_ASSERT(hits > 0 && hits <= LORE_SEARCH_HITS_MAX);
    LORE_ASSERT(search->dim > 0 && search->queries >= 0);
    LORE_ASSERT(search->count >= 0 && search->count <= INT32_MAX);
    q->ops->search(q, rows, scores, hits, search);
}

#ifdef __cplusplus
}
#endif
#endif
