/* The search of vectors, one implementation for ref and cpu: blocks of rows are scored (int8 by the
 * backend's own scan), and what scores better than the last of the best so far is put among them.
 *
 * The list of the best is the output itself, in order. Nearly every row ends at one comparison with
 * its last entry; of rows in no particular order some hits * ln(count / hits) are put in, each for
 * a walk along the list. */
#include "kernels/search.h"

#include "kernels/backend_int.h"

#include <math.h>

enum { BLOCK_ROWS = 8192 }; /* their scores stay in the second-level cache, and on the stack */

static void score_f16(float *scores, const lore_search *search, const uint16_t *query,
                      int64_t first, int64_t count)
{
    const uint16_t *vector = (const uint16_t *)search->vectors + first * search->dim;
    for (int64_t i = 0; i < count; i++, vector += search->dim) {
        double sum = 0.0;
        for (int32_t c = 0; c < search->dim; c++) {
            sum += (double)lore_f16_to_f32(query[c]) * (double)lore_f16_to_f32(vector[c]);
        }
        scores[i] = (float)sum;
    }
}

static void score_block(lore_queue *queue, float *scores, const lore_search *search, int32_t query,
                        int64_t first, int64_t count)
{
    const int64_t at = (int64_t)query * search->dim;
    if (search->dtype == LORE_F16) {
        score_f16(scores, search, (const uint16_t *)search->query + at, first, count);
    } else {
        queue->ops->scan(queue, scores, (const int8_t *)search->query + at,
                         search->query_scales[query],
                         (const int8_t *)search->vectors + first * search->dim,
                         search->scales + first, count, search->dim);
    }
}

/* Rows come in ascending order, so one that equals an entry belongs behind it. */
static void put_in(int32_t *rows, float *scores, int32_t hits, int32_t row, float score)
{
    int32_t at = hits - 1;
    for (; at > 0 && (rows[at - 1] < 0 || scores[at - 1] < score); at--) {
        rows[at] = rows[at - 1];
        scores[at] = scores[at - 1];
    }
    rows[at] = row;
    scores[at] = score;
}

static bool may_pass(const lore_search *search, int64_t row)
{
    return search->passing == NULL || (search->passing[row / 32] >> (row % 32) & 1) != 0;
}

static void search_one(lore_queue *queue, int32_t *rows, float *scores, int32_t hits,
                       const lore_search *search, int32_t query)
{
    float block[BLOCK_ROWS];
    const int32_t last = hits - 1;
    for (int32_t i = 0; i < hits; i++) {
        rows[i] = -1;
        scores[i] = -INFINITY;
    }
    for (int64_t first = 0; first < search->count; first += BLOCK_ROWS) {
        const int64_t left = search->count - first, count = left < BLOCK_ROWS ? left : BLOCK_ROWS;
        score_block(queue, block, search, query, first, count);
        for (int64_t i = 0; i < count && queue->error.status == LORE_OK; i++) {
            const float score = block[i];
            const bool is_better = rows[last] < 0 ? !isnan(score) : score > scores[last];
            if (is_better && may_pass(search, first + i)) {
                put_in(rows, scores, hits, (int32_t)(first + i), score);
            }
        }
    }
}

void lore_host_search(lore_queue *queue, int32_t *rows, float *scores, int32_t hits,
                      const lore_search *search)
{
    for (int32_t query = 0; query < search->queries; query++) {
        search_one(queue, rows + (int64_t)query * hits, scores + (int64_t)query * hits, hits,
                   search, query);
    }
}
