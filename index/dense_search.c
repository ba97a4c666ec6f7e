/* Dense search: the vectors of a snapshot nearest to a query, and the scores of given chunks.
 *
 * One heap of the best runs through all parts of all collections asked for, so the result does not
 * depend on how rows are spread over base and tail. Where a collection has a FAISS index, the base
 * is not scanned: the index proposes candidates, their scores come from the same int8 rows. Deleted
 * rows are still in that index, so more are asked for than wanted, and again more while too many of
 * them were dead; a base that cannot fill the list that way is scanned. */
#include "index/index_int.h"

#include <math.h>

enum {
    FETCH_SPARE = 16,  /* beyond twice the wanted number */
    FETCH_GROWTH = 4,  /* each time too few were alive */
    FETCH_MAX = 16384, /* then the exact scan is cheaper */
    ANN_SHARE =
        2 /* with a filter, the FAISS index serves when more than one row in two is allowed */
};

static lore_status check_query(const float *query, int32_t dim, lore_error *err)
{
    for (int32_t i = 0; i < dim; i++) {
        if (!isfinite(query[i])) {
            return lore_fail(err, LORE_ERR_INVALID, "the query vector is not finite at %d", i);
        }
    }
    return LORE_OK;
}

/* One search over the parts of a collection. */
typedef struct search {
    lore_scan *scan;
    const float *query;
    const lore_vectors *view;
    const int64_t *allowed; /* NULL: all */
    int64_t allowed_count;
    lore_top *top;
} search;

/* Keep the proposals that are alive and allowed, in place. */
static int32_t keep_live(const search *s, int64_t *chunks, int32_t count)
{
    const lore_part *base = &s->view->parts[0];
    int32_t kept = 0;
    for (int32_t i = 0; i < count; i++) {
        int64_t row = lore_segment_find(base->segment, chunks[i]);
        if (row >= 0 && !lore_dead_has(base->dead, row) &&
            (s->allowed == NULL || lore_rows_have(s->allowed, s->allowed_count, chunks[i]))) {
            chunks[kept++] = chunks[i];
        }
    }
    return kept;
}

static lore_status offer_proposed(const search *s, const int64_t *chunks, int32_t count,
                                  lore_error *err)
{
    const lore_part *base = &s->view->parts[0];
    for (int32_t i = 0; i < count; i++) {
        int64_t row = lore_segment_find(base->segment, chunks[i]);
        lore_status status = lore_scan_rows(s->scan, base->segment, row, row + 1, err);
        if (status != LORE_OK) {
            return status;
        }
        lore_top_offer(s->top, chunks[i], s->scan->scores[0]);
    }
    return LORE_OK;
}

/* *is_enough false: the proposals do not fill the list although the base could. Nothing was offered
 * then. */
static lore_status search_ann(const search *s, bool *is_enough, lore_error *err)
{
    int32_t fetch = 2 * s->top->cap + FETCH_SPARE;
    int64_t *chunks = NULL;
    float *scores = NULL;
    lore_status status = LORE_OK;
    *is_enough = false;
    while (status == LORE_OK && !*is_enough && fetch <= FETCH_MAX) {
        lore_free(chunks);
        lore_free(scores);
        chunks = lore_alloc((size_t)fetch * sizeof *chunks);
        scores = lore_alloc((size_t)fetch * sizeof *scores);
        int32_t found = 0;
        if (chunks == NULL || scores == NULL) {
            status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for %d candidates", fetch);
            break;
        }
        status = lore_ann_search(s->view->ann, s->query, fetch, chunks, scores, &found, err);
        if (status != LORE_OK) {
            break;
        }
        int32_t live = keep_live(s, chunks, found);
        *is_enough = live >= s->top->cap;
        if (*is_enough) {
            status = offer_proposed(s, chunks, live, err);
        } else if (found < fetch) {
            break; /* the probed lists hold no more */
        }
        fetch *= FETCH_GROWTH;
    }
    lore_free(chunks);
    lore_free(scores);
    return status;
}

static bool can_use_ann(const search *s)
{
    return s->view->ann != NULL && !s->scan->is_device && s->top->cap > 0 &&
           (s->allowed == NULL || s->allowed_count > s->view->parts[0].segment->count / ANN_SHARE);
}

static lore_status search_view(const search *s, lore_error *err)
{
    lore_status status = LORE_OK;
    bool is_base_done = false;
    if (can_use_ann(s)) {
        status = search_ann(s, &is_base_done, err);
    }
    for (int32_t i = is_base_done ? 1 : 0; i < s->view->part_count && status == LORE_OK; i++) {
        status =
            lore_scan_part(s->scan, &s->view->parts[i], s->allowed, s->allowed_count, s->top, err);
    }
    return status;
}

static lore_status search_views(lore_reader *reader, const float *query, lore_vectors *const *views,
                                int32_t count, const lore_filter *filter, lore_top *top,
                                lore_error *err)
{
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        search s = {&reader->scan, query, views[i], NULL, 0, top};
        int64_t *allowed = NULL;
        if (filter != NULL) {
            status = lore_filter_rows(filter, reader->db, views[i]->collection, &allowed,
                                      &s.allowed_count, err);
            s.allowed = allowed;
        }
        if (status == LORE_OK) {
            status = search_view(&s, err);
        }
        lore_free(allowed);
    }
    return status;
}

lore_status lore_search_dense(lore_snapshot *snapshot, const float *query,
                              const lore_search_options *options, lore_arena *arena,
                              lore_candidates *found, lore_error *err)
{
    lore_index *index = snapshot->index;
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    lore_vectors **views = NULL;
    int32_t view_count = 0;
    lore_status status = lore_snapshot_select(snapshot, options, arena, &views, &view_count, err);
    if (status != LORE_OK) {
        return status;
    }
    if (dim == 0 || options->count <= 0) {
        *found = (lore_candidates){NULL, 0};
        return LORE_OK;
    }
    status = check_query(query, dim, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_top top = {LORE_PUSH(arena, lore_candidate, options->count), 0, options->count};
    if (top.items == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for %d candidates", options->count);
    }
    lore_reader *reader = NULL;
    status = lore_reader_take_scan(index, &reader, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_scan_set_query(&reader->scan, query);
    status = search_views(reader, query, views, view_count, options->filter, &top, err);
    lore_reader_give(index, reader);
    if (status != LORE_OK) {
        return status;
    }
    lore_top_sort(&top);
    *found = (lore_candidates){top.items, top.count};
    return LORE_OK;
}

static lore_status score_one(lore_snapshot *snapshot, lore_scan *scan, int64_t chunk, float *score,
                             lore_error *err)
{
    int64_t row = 0;
    const lore_part *part = NULL;
    for (int32_t i = 0; i < snapshot->view_count && part == NULL; i++) {
        part = lore_vectors_find(snapshot->views[i], chunk, &row);
    }
    if (part == NULL) {
        *score = NAN;
        return LORE_OK;
    }
    lore_status status = lore_scan_rows(scan, part->segment, row, row + 1, err);
    if (status == LORE_OK) {
        *score = scan->scores[0];
    }
    return status;
}

lore_status lore_score_dense(lore_snapshot *snapshot, const float *query, const int64_t *chunks,
                             int32_t count, float *scores, lore_error *err)
{
    lore_index *index = snapshot->index;
    int32_t dim = atomic_load_explicit(&index->dim, memory_order_relaxed);
    for (int32_t i = 0; i < count; i++) {
        scores[i] = NAN;
    }
    if (dim == 0 || count <= 0) {
        return LORE_OK;
    }
    lore_status status = check_query(query, dim, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_reader *reader = NULL;
    status = lore_reader_take_scan(index, &reader, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_scan_set_query(&reader->scan, query);
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        status = score_one(snapshot, &reader->scan, chunks[i], &scores[i], err);
    }
    lore_reader_give(index, reader);
    return status;
}
