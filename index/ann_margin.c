/* Which lists must a search read, so that it finds what a scan of all rows would?
 *
 * A list whose centre (the mean of its rows) scores far below the worst candidate kept so far
 * cannot hold many better rows. How far is far depends on how wide the lists are, not on the query:
 * so it is measured once a build, on vectors of the collection itself, and kept as one number. A
 * list is read while
 *
 *     query . centre >= score of the LORE_ANN_DEPTH-th best so far - margin
 *
 * This beats a fixed number of lists: a question that the documents answer reads few, one that
 * nothing answers, whose best rows are spread widely and hardly better than the rest, reads many,
 * and both keep their recall (docs/evaluation.md: a count that was tuned on vectors of the
 * collection lost a tenth of the answers to such questions). */
#include "index/index_int.h"

#include <stdlib.h>

enum { SAMPLES = 256 };
static const double SHARE_FOUND = .99; /* of the best LORE_ANN_DEPTH of all samples */

typedef struct measure {
    const lore_lists *lists;
    lore_scan scan;
    lore_candidate items[LORE_ANN_DEPTH + 1]; /* the sample finds itself first */
    float centre_scores[LORE_LISTS_MAX];
    float gaps[SAMPLES * LORE_ANN_DEPTH];
    int32_t gap_count;
} measure;

static int32_t list_of_chunk(const lore_lists *lists, int64_t chunk)
{
    int64_t low = 0, high = lists->row_count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const lore_row *row = &lists->rows[middle];
        if (row->segment->ids[row->row] < chunk) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return lists->list_of[low];
}

/* How far below the last of its neighbours do the centres of the lists of its neighbours score? */
static lore_status measure_row(measure *m, const lore_part *parts, int32_t part_count,
                               const lore_row *row, lore_error *err)
{
    lore_top top = {m->items, 0, LORE_ANN_DEPTH + 1};
    const lore_segment *centres = m->lists->centres;
    lore_status status = lore_scan_rows(&m->scan, centres, 0, centres->count, err);
    for (int64_t i = 0; i < centres->count && status == LORE_OK; i++) {
        m->centre_scores[i] = m->scan.scores[i];
    }
    for (int32_t i = 0; i < part_count && status == LORE_OK; i++) {
        status = lore_scan_part(&m->scan, &parts[i], 0, NULL, &top, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_top_sort(&top);
    int64_t own = row->segment->ids[row->row];
    float last = top.items[top.count - 1].score;
    for (int32_t i = 0, kept = 0; i < top.count && kept < LORE_ANN_DEPTH; i++) {
        if (top.items[i].chunk != own) {
            int32_t list = list_of_chunk(m->lists, top.items[i].chunk);
            m->gaps[m->gap_count++] = last - m->centre_scores[list];
            kept++;
        }
    }
    return LORE_OK;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;
    return (x > y) - (x < y);
}

lore_status lore_lists_margin(const lore_lists *lists, const lore_part *parts, int32_t part_count,
                              lore_backend *backend, const lore_stop *stop, float *margin,
                              lore_error *err)
{
    float *query = lore_alloc((size_t)lists->dim * sizeof *query);
    measure *m = lore_alloc_zero(1, sizeof *m);
    lore_status status = LORE_OK;
    if (query == NULL || m == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory measuring lists of vectors");
        goto out;
    }
    m->lists = lists;
    status = lore_scan_open(&m->scan, backend, lists->dim, err);
    int64_t samples = lists->row_count < SAMPLES ? lists->row_count : SAMPLES;
    for (int64_t i = 0; i < samples && status == LORE_OK; i++) {
        const lore_row *row = &lists->rows[i * lists->row_count / samples];
        if (lore_stop_wanted(stop)) {
            status = lore_fail(err, LORE_ERR_CANCELLED, "cancelled");
            break;
        }
        lore_row_widen(row, query);
        lore_scan_set_query(&m->scan, query);
        status = measure_row(m, parts, part_count, row, err);
    }
    if (status == LORE_OK && m->gap_count > 0) {
        qsort(m->gaps, (size_t)m->gap_count, sizeof m->gaps[0], by_value);
        *margin = m->gaps[(int32_t)((double)(m->gap_count - 1) * SHARE_FOUND)];
    }
out:
    if (m != NULL) {
        lore_scan_close(&m->scan);
    }
    lore_free(m);
    lore_free(query);
    return status;
}
