/* Lexical search: the terms of a question, OR-ed, ranked by BM25.
 *
 * FTS5 visits every row that holds any term, so cost is the sum of the terms' row counts. In a
 * large collection terms are taken from the rarest until a budget of rows is spent; the common ones
 * left out carry almost no weight in BM25 anyway. In a small collection nothing is left out: there
 * the common terms are what tells rows apart (dropping terms in 5 % of the rows costs cranfield a
 * third of its nDCG). Nothing else is dropped: "to be or not" is four terms, but words that only
 * ask or join count for less where others stand beside them (function_words.c).
 *
 * A term counts once however often it is asked for. Every collection has a table of its own: row
 * counts and average lengths are its own, and a query does not pay for other collections.
 *
 * FTS5's bm25() spends nine tenths of its time looking up the length of each row and counts the
 * rows of each term anew for each query. Ours takes lengths from the view and counts from a cache
 * that lasts until the collection's next commit. The inverse frequency is log(1 + (N - n + .5) / (n
 * + .5)), which stays positive: FTS5's is cut to nothing for a term in half of the rows, and in a
 * handbook about routers that is "router".
 *
 * The query string is made of slices of the question in double quotes, never of bare words, so
 * nothing in it is an operator of FTS5. */
#include "index/text_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the row budget ---- */

static int by_rows(const void *left, const void *right)
{
    const lore_query_term *a = left, *b = right;
    if (a->rows != b->rows) {
        return a->rows < b->rows ? -1 : 1;
    }
    return a->place - b->place;
}

/* Sort the terms; those from *first on, *kept of them, are to be asked for. The others occur
 * nowhere, or are too common or too many. */
static void choose_terms(const lore_limits *limits, const lore_text_state *state,
                         lore_query_term *terms, int32_t count, int32_t *first, int32_t *kept)
{
    bool is_small = state->chunks < limits->row_budget_min_chunks;
    int64_t spent = 0;
    qsort(terms, (size_t)count, sizeof *terms, by_rows);
    *first = *kept = 0;
    while (*first < count && terms[*first].rows == 0) {
        ++*first;
    }
    while (*first + *kept < count && *kept < limits->query_terms_max) {
        spent += terms[*first + *kept].rows;
        /* The rarest term is always asked for. */
        if (!is_small && *kept > 0 && spent > limits->row_budget) {
            break;
        }
        ++*kept;
    }
}

/* "slice" OR "slice" ... A slice is letters and digits, but quotes are doubled all the same. */
static lore_status write_match(const lore_query_term *terms, int32_t count, lore_buf *out,
                               lore_error *err)
{
    for (int32_t i = 0; i < count; i++) {
        lore_buf_append(out, i == 0 ? LORE_STR("\"") : LORE_STR(" OR \""));
        for (size_t at = 0; at < terms[i].slice.len; at++) {
            char c = terms[i].slice.ptr[at];
            if (c == '"') {
                lore_buf_byte(out, c);
            }
            lore_buf_byte(out, c);
        }
        lore_buf_byte(out, '"');
    }
    if (lore_buf_failed(out)) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the terms of a question");
    }
    return LORE_OK;
}

/* ---- the search ---- */

/* Lengths of chunks that come in ascending order: a cursor that gallops through the view. */
typedef struct length_walk {
    const lore_vectors *view;
    int32_t part;
    int64_t row;
} length_walk;

static int32_t length_of(void *self, int64_t chunk)
{
    length_walk *walk = self;
    for (; walk->part < walk->view->part_count; walk->part++, walk->row = 0) {
        const lore_segment *segment = walk->view->parts[walk->part].segment;
        if (segment->count == 0 || segment->ids[segment->count - 1] < chunk) {
            continue;
        }
        int64_t low = walk->row, step = 1;
        while (low + step < segment->count && segment->ids[low + step] < chunk) {
            low += step;
            step *= 2;
        }
        int64_t high = low + step < segment->count ? low + step : segment->count - 1;
        while (low < high) {
            int64_t middle = low + (high - low) / 2;
            if (segment->ids[middle] < chunk) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        walk->row = low;
        return segment->ids[low] == chunk ? segment->lengths[low] : -1;
    }
    return -1;
}

static lore_status run_match(lore_db *db, const lore_text_state *state, lore_str match,
                             bool is_filtered, lore_top *top, lore_error *err)
{
    char sql[256];
    lore_stmt *stmt = NULL;
    long long id = (long long)state->collection;
    snprintf(sql, sizeof sql,
             "SELECT rowid, lore_rank(text_%lld) FROM text_%lld WHERE text_%lld MATCH ?1%s", id, id,
             id, is_filtered ? " AND lore_allowed(rowid)" : "");
    lore_status status = lore_stmt_new(db, sql, &stmt, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_bind_text(stmt, 1, match);
    for (;;) {
        bool has_row = false;
        status = lore_stmt_step(stmt, &has_row, err);
        if (status != LORE_OK || !has_row) {
            break;
        }
        lore_top_offer(top, lore_column_int(stmt, 0), (float)lore_column_float(stmt, 1));
    }
    lore_stmt_free(stmt);
    return status;
}

/* Ask for terms[0 .. count - 1]. */
static lore_status ask(lore_db *db, const lore_text_state *state, const lore_query_term *terms,
                       int32_t count, bool is_filtered, lore_top *top, lore_error *err)
{
    double *inverse = lore_alloc((size_t)count * sizeof *inverse);
    lore_buf match;
    lore_buf_init(&match, 0);
    lore_status status = inverse == NULL ? lore_fail(err, LORE_ERR_NOMEM, "out of memory ranking")
                                         : write_match(terms, count, &match, err);
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        inverse[i] = terms[i].weight * lore_term_inverse_frequency(state, &terms[i]);
    }
    if (status == LORE_OK) {
        length_walk walk = {state->view, 0, 0};
        lore_ranking ranking = {inverse, length_of, &walk};
        lore_fts_rank(lore_db_fts(db), &ranking);
        status = run_match(db, state, lore_buf_str(&match), is_filtered, top, err);
        lore_fts_rank(lore_db_fts(db), NULL);
    }
    lore_free(inverse);
    lore_buf_destroy(&match);
    return status;
}

static lore_status search_rows(lore_index *index, lore_db *db, const lore_text_state *state,
                               const lore_term_set *set, const lore_search_options *options,
                               lore_top *top, lore_error *err)
{
    const lore_filter *filter = options->filter;
    lore_row_set *allowed = NULL;
    lore_query_term *terms = set->items;
    int32_t count = set->count, first = 0, kept = 0;
    lore_status status = lore_terms_count(index, db, state, terms, count, err);
    if (status == LORE_OK && options->passage_count > 0 && options->expansion > 0) {
        status = lore_terms_expand(index, db, state, options, set, &terms, &count, err);
    }
    if (status == LORE_OK) {
        choose_terms(&index->config->limits, state, terms, count, &first, &kept);
    }
    if (status == LORE_OK && kept > 0 && filter != NULL) {
        status =
            lore_filter_set(index, db, filter, state->collection, state->changed, &allowed, err);
        lore_fts_allow(lore_db_fts(db), allowed);
    }
    if (status == LORE_OK && kept > 0) {
        status = ask(db, state, terms + first, kept, filter != NULL, top, err);
    }
    lore_fts_allow(lore_db_fts(db), NULL);
    lore_row_set_release(allowed);
    return status;
}

/* One read transaction a collection, so that counts and rows fit together. Ended by COMMIT: a
 * rollback would take the temporary table with it. On failure lore_reader_give rolls back. */
static lore_status search_collection(lore_index *index, lore_db *db, const lore_vectors *view,
                                     const lore_term_set *set, const lore_search_options *options,
                                     lore_top *top, lore_error *err)
{
    lore_text_state state;
    lore_status status = lore_db_exec(db, "BEGIN", err);
    if (status == LORE_OK) {
        status = lore_text_state_read(db, view, &state, err);
    }
    if (status == LORE_OK && state.exists) {
        status = search_rows(index, db, &state, set, options, top, err);
    }
    return status == LORE_OK ? lore_db_exec(db, "COMMIT", err) : status;
}

static lore_status search_collections(lore_snapshot *snapshot, lore_db *db, lore_str question,
                                      const lore_search_options *options,
                                      lore_vectors *const *views, int32_t count, lore_arena *arena,
                                      lore_top *top, lore_error *err)
{
    lore_term_set set;
    lore_status status = lore_terms_read(db, question, arena, &set, err);
    for (int32_t i = 0; i < count && status == LORE_OK && set.count > 0; i++) {
        status = search_collection(snapshot->index, db, views[i], &set, options, top, err);
    }
    return status;
}

lore_status lore_search_text(lore_snapshot *snapshot, lore_str question,
                             const lore_search_options *options, lore_arena *arena,
                             lore_candidates *found, lore_error *err)
{
    lore_vectors **views = NULL;
    int32_t view_count = 0;
    lore_status status = lore_snapshot_select(snapshot, options, arena, &views, &view_count, err);
    if (status != LORE_OK) {
        return status;
    }
    const lore_limits *limits = &snapshot->index->config->limits;
    if ((int64_t)question.len > limits->history_bytes_max + limits->question_bytes_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "a question of %zu bytes is too long", question.len);
    }
    if (options->count <= 0) {
        *found = (lore_candidates){NULL, 0};
        return LORE_OK;
    }
    lore_top top = {LORE_PUSH(arena, lore_candidate, options->count), 0, options->count};
    if (top.items == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for %d candidates", options->count);
    }
    lore_reader *reader = NULL;
    status = lore_reader_take(snapshot->index, &reader, err);
    if (status != LORE_OK) {
        return status;
    }
    status = search_collections(snapshot, reader->db, question, options, views, view_count, arena,
                                &top, err);
    lore_reader_give(snapshot->index, reader);
    if (status != LORE_OK) {
        return status;
    }
    lore_top_sort(&top);
    *found = (lore_candidates){top.items, top.count};
    return LORE_OK;
}

/* ---- how common words are, for idf weights outside ---- */

/* Add the collection's rows of each word to rows[]. A word that is several terms counts as its
 * rarest. */
static lore_status add_counts(lore_index *index, lore_db *db, const lore_vectors *view,
                              lore_term_set *sets, int32_t count, int64_t *rows, lore_error *err)
{
    lore_text_state state;
    lore_status status = lore_db_exec(db, "BEGIN", err);
    if (status == LORE_OK) {
        status = lore_text_state_read(db, view, &state, err);
    }
    for (int32_t i = 0; status == LORE_OK && state.exists && i < count; i++) {
        status = lore_terms_count(index, db, &state, sets[i].items, sets[i].count, err);
        int64_t rarest = sets[i].count > 0 ? sets[i].items[0].rows : 0;
        for (int32_t t = 1; t < sets[i].count; t++) {
            rarest = sets[i].items[t].rows < rarest ? sets[i].items[t].rows : rarest;
        }
        rows[i] += rarest;
    }
    return status == LORE_OK ? lore_db_exec(db, "COMMIT", err) : status;
}

lore_status lore_term_rows(lore_snapshot *snapshot, const lore_str *words, int32_t count,
                           int64_t *rows, lore_error *err)
{
    lore_arena arena;
    lore_reader *reader = NULL;
    lore_arena_init(&arena, 0);
    lore_term_set *sets = LORE_PUSH(&arena, lore_term_set, count + 1);
    lore_status status =
        sets == NULL ? lore_fail(err, LORE_ERR_NOMEM, "out of memory counting %d words", count)
                     : lore_reader_take(snapshot->index, &reader, err);
    for (int32_t i = 0; status == LORE_OK && i < count; i++) {
        rows[i] = 0;
        status = lore_terms_read(reader->db, words[i], &arena, &sets[i], err);
    }
    for (int32_t v = 0; status == LORE_OK && v < snapshot->view_count; v++) {
        status =
            add_counts(snapshot->index, reader->db, snapshot->views[v], sets, count, rows, err);
    }
    lore_reader_give(snapshot->index, reader);
    lore_arena_destroy(&arena);
    return status;
}
