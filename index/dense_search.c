/* Dense search: the vectors of a snapshot nearest to a query, and the scores of given chunks.
 *
 * One heap of the best runs through all parts of all collections asked for, so the result does not
 * depend on how rows are spread over base and tail. A published vector file with a copy on a device
 * is searched there (resident.c), exactly. Otherwise, where a collection has an inverted file, what
 * it covers is not scanned: lists are read as far as they can hold something (ann_margin.c), the
 * rest of the rows as always. Both give the same scores. Dead rows and rows that a filter does not
 * allow are passed over where they would enter the heap; they cannot fill it, so a search that few
 * rows pass reads more lists, down to all of them. The best of what was found are scored again with
 * the vectors of the database (rescore.c): int8 chooses the candidates, not their order. */
#include "index/index_int.h"

#include <math.h>

enum {
    FIRST_LISTS = 32,  /* read first, so that the bound for the others is near its end */
    RESCORED = 64,     /* that int8 chooses, however few are wanted */
    FILTERED_SHARE = 8 /* where fewer than one row in eight is allowed, those are scored alone */
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
    lore_device *device;
    lore_scan *scan;
    const lore_vectors *view;
    const lore_row_set *allowed; /* NULL: all */
    lore_top *top;
    bool is_exact;
} search;

/* ---- the inverted file ---- */

/* A search of the rows that the file covers. What bounds it are the best LORE_ANN_DEPTH of these
 * rows, whatever else the caller's heap holds and however many it wants: that is what the margin
 * was measured for. */
typedef struct probe {
    const search *search;
    const lore_ann *ann;
    float *centre_scores; /* [lists]; -INFINITY once read */
    lore_candidate items[LORE_ANN_DEPTH];
    lore_top best;
} probe;

/* Is there no place for such a score? */
static bool is_full(const lore_top *top, float score)
{
    return top->count == top->cap && score < top->items[0].score;
}

static lore_status read_list(probe *p, int64_t list, lore_error *err)
{
    const search *s = p->search;
    int64_t end = p->ann->starts[list + 1];
    p->centre_scores[list] = -INFINITY;
    for (int64_t begin = p->ann->starts[list]; begin < end; begin += LORE_SCAN_ROWS) {
        int64_t count = end - begin < LORE_SCAN_ROWS ? end - begin : LORE_SCAN_ROWS;
        lore_status status = lore_scan_rows(s->scan, &p->ann->rows, begin, begin + count, err);
        if (status != LORE_OK) {
            return status;
        }
        for (int64_t i = 0; i < count; i++) {
            float score = s->scan->scores[i];
            int64_t chunk = p->ann->rows.ids[begin + i], row = 0;
            if (is_full(&p->best, score) && is_full(s->top, score)) {
                continue; /* nearly all rows end here */
            }
            if ((s->allowed == NULL || lore_row_set_has(s->allowed, chunk)) &&
                lore_vectors_find(s->view, chunk, &row) != NULL) {
                lore_top_offer(&p->best, chunk, score);
                lore_top_offer(s->top, chunk, score);
            }
        }
    }
    return LORE_OK;
}

static lore_status read_lists(probe *p, lore_error *err)
{
    const lore_segment *centres = &p->ann->centres;
    lore_candidate best[FIRST_LISTS];
    lore_top first = {best, 0, FIRST_LISTS};
    lore_status status = lore_scan_rows(p->search->scan, centres, 0, centres->count, err);
    if (status != LORE_OK) {
        return status;
    }
    for (int64_t list = 0; list < centres->count; list++) {
        p->centre_scores[list] = p->search->scan->scores[list];
        lore_top_offer(&first, list, p->centre_scores[list]);
    }
    for (int32_t i = 0; i < first.count && status == LORE_OK; i++) {
        status = read_list(p, best[i].chunk, err);
    }
    /* The others in the order of the file: the bound moves little now, and memory likes it. */
    for (int64_t list = 0; list < centres->count && status == LORE_OK; list++) {
        bool is_filled = p->best.count == p->best.cap;
        float bound = is_filled ? p->best.items[0].score - p->ann->margin : -INFINITY;
        if (p->centre_scores[list] >= bound && p->centre_scores[list] > -INFINITY) {
            status = read_list(p, list, err);
        }
    }
    return status;
}

static lore_status search_ann(const search *s, lore_error *err)
{
    probe p = {.search = s, .ann = s->view->ann};
    p.best = (lore_top){p.items, 0, LORE_ANN_DEPTH};
    p.centre_scores = lore_alloc((size_t)p.ann->centres.count * sizeof(float));
    if (p.centre_scores == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a search");
    }
    lore_status status = read_lists(&p, err);
    lore_free(p.centre_scores);
    return status;
}

/* ---- all rows ---- */

static bool can_use_ann(const search *s)
{
    const lore_ann *ann = s->view->ann;
    return ann != NULL && !s->is_exact && s->top->cap > 0 &&
           (s->allowed == NULL || s->allowed->count >= ann->rows.count / FILTERED_SHARE);
}

static lore_status search_view(const search *s, lore_error *err)
{
    lore_status status = LORE_OK;
    int64_t first_chunk = 0; /* of what is scanned */
    int32_t first_part = 0;
    if (s->view->has_base &&
        lore_device_search(s->device, &s->view->parts[0], s->scan, s->allowed, s->top)) {
        first_part = 1;
    } else if (can_use_ann(s)) {
        status = search_ann(s, err);
        first_chunk = s->view->ann->chunk + 1;
    }
    for (int32_t i = first_part; i < s->view->part_count && status == LORE_OK; i++) {
        status = lore_scan_part(s->scan, &s->view->parts[i], first_chunk, s->allowed, s->top, err);
    }
    return status;
}

static lore_status search_views(lore_index *index, lore_reader *reader, lore_vectors *const *views,
                                int32_t count, const lore_search_options *options, lore_top *top,
                                lore_error *err)
{
    const lore_filter *filter = options->filter;
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        search s = {index->device, &reader->scan, views[i], NULL, top, options->is_exact};
        lore_row_set *allowed = NULL;
        if (filter != NULL) {
            status = lore_filter_set(index, reader->db, filter, views[i]->collection,
                                     views[i]->changed, &allowed, err);
            s.allowed = allowed;
        }
        if (status == LORE_OK) {
            status = search_view(&s, err);
        }
        lore_row_set_release(allowed);
    }
    return status;
}

/* By int8, then the best by the vectors of the database. */
static lore_status order(const lore_index *index, lore_reader *reader, lore_top *top,
                         lore_error *err)
{
    lore_top_sort(top);
    int32_t count = top->count < RESCORED ? top->count : RESCORED;
    lore_status status =
        lore_rescore(reader->db, index->encoder, &reader->scan, top->items, count, err);
    lore_top_order(top);
    lore_top_sort(top);
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
    int32_t cap = options->count > RESCORED ? options->count : RESCORED;
    lore_top top = {LORE_PUSH(arena, lore_candidate, cap), 0, cap};
    if (top.items == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for %d candidates", cap);
    }
    lore_reader *reader = NULL;
    status = lore_reader_take_scan(index, &reader, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_scan_set_query(&reader->scan, query);
    status = search_views(index, reader, views, view_count, options, &top, err);
    if (status == LORE_OK) {
        status = order(index, reader, &top, err);
    }
    lore_reader_give(index, reader);
    if (status != LORE_OK) {
        return status;
    }
    *found = (lore_candidates){top.items, top.count < options->count ? top.count : options->count};
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
