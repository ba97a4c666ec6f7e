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
#include "index/index_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct term {
    lore_str stem;  /* as the index holds it; in the arena */
    lore_str slice; /* of the question, which gives the stem again */
    int32_t place;  /* among the distinct terms of the question */
    double weight;  /* of 1; less where it only asks or joins */
    int64_t rows;   /* of the collection that hold it, where looked up */
} term;

typedef struct term_set {
    lore_arena *arena;
    lore_str question;
    term *items;
    int32_t count, cap;
    int32_t
        *table; /* open addressing: index + 1 of an item, 0 empty; [table_size], a power of two */
    size_t table_size;
    double weight; /* of the terms that are added */
    bool has_failed;
} term_set;

/* Of a term that only asks or joins; from 0 to .5 rankings are as good (quality.md). */
static const double FUNCTION_WORD_WEIGHT = 0.15;

/* ---- the terms of a question ---- */

static bool add_term(void *self, lore_str stem, size_t start, size_t end)
{
    term_set *set = self;
    size_t at = lore_str_hash(stem) & (set->table_size - 1);
    while (set->table[at] != 0) {
        if (lore_str_equal(set->items[set->table[at] - 1].stem, stem)) {
            return true;
        }
        at = (at + 1) & (set->table_size - 1);
    }
    lore_str kept = lore_str_copy(set->arena, stem);
    if (kept.ptr == NULL) {
        set->has_failed = true;
        return false;
    }
    LORE_ASSERT(set->count < set->cap); /* a term takes a byte of the question at least */
    set->items[set->count] =
        (term){kept, lore_str_slice(set->question, start, end), set->count, set->weight, 0};
    set->table[at] = ++set->count;
    return true;
}

/* The question's terms: those of its subject, then those that stand nowhere but in words that ask
 * or join. A term takes a byte of the question at least (two characters without spaces are six
 * bytes, and three terms), so the question's length bounds their number. */
static lore_status read_terms(lore_db *db, lore_str question, lore_arena *arena, term_set *set,
                              lore_error *err)
{
    *set = (term_set){.arena = arena, .question = question, .weight = 1.0, .table_size = 16};
    set->cap = (int32_t)question.len + 1;
    while (set->table_size < 2 * (size_t)set->cap) {
        set->table_size *= 2;
    }
    set->items = LORE_PUSH(arena, term, set->cap);
    set->table = LORE_PUSH(arena, int32_t, set->table_size);
    lore_str subject = lore_without_function_words(question, arena);
    if (set->items == NULL || set->table == NULL || subject.ptr == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the terms of a question");
    }
    lore_status status = lore_fts_terms(lore_db_fts(db), subject, add_term, set, err);
    if (status == LORE_OK) {
        set->weight = FUNCTION_WORD_WEIGHT;
        status = lore_fts_terms(lore_db_fts(db), question, add_term, set, err);
    }
    if (status == LORE_OK && set->has_failed) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the terms of a question");
    }
    return status;
}

/* ---- how common a term is ---- */

/* What the read transaction sees of a collection. */
typedef struct text_state {
    const lore_vectors *view;
    int64_t collection, changed, chunks;
    bool exists; /* it may have been deleted since the snapshot was taken */
} text_state;

static lore_status read_state(lore_db *db, const lore_vectors *view, text_state *state,
                              lore_error *err)
{
    static const char *const sql = "SELECT changed, chunks FROM collections WHERE id=?1";
    lore_stmt *stmt = NULL;
    *state = (text_state){.view = view, .collection = view->collection};
    lore_status status = lore_db_statement(db, sql, &stmt, err);
    if (status == LORE_OK) {
        lore_bind_int(stmt, 1, view->collection);
        status = lore_stmt_step(stmt, &state->exists, err);
    }
    if (status == LORE_OK && state->exists) {
        state->changed = lore_column_int(stmt, 0);
        state->chunks = lore_column_int(stmt, 1);
        lore_stmt_reset(stmt);
    }
    return status;
}

static lore_term_count *count_slot(lore_index *index, const text_state *state, const term *t,
                                   uint64_t *key)
{
    *key = lore_str_hash(t->stem) ^ (uint64_t)state->collection * 0x9E3779B97F4A7C15u;
    return &index->term_counts[*key % LORE_TERM_COUNTS];
}

static bool recall_count(lore_index *index, const text_state *state, term *t)
{
    uint64_t key = 0;
    const lore_term_count *slot = count_slot(index, state, t, &key);
    lore_lock_acquire(&index->lock);
    bool is_known = slot->key == key && slot->changed == state->changed;
    if (is_known) {
        t->rows = slot->rows;
    }
    lore_lock_release(&index->lock);
    return is_known;
}

static void remember_count(lore_index *index, const text_state *state, const term *t)
{
    uint64_t key = 0;
    lore_term_count *slot = count_slot(index, state, t, &key);
    lore_lock_acquire(&index->lock);
    *slot = (lore_term_count){key, state->changed, t->rows};
    lore_lock_release(&index->lock);
}

/* A temporary table of each connection looks into the full-text index. */
static lore_status open_counts(lore_db *db, int64_t collection, lore_stmt **stmt, lore_error *err)
{
    char sql[256];
    snprintf(sql, sizeof sql,
             "CREATE VIRTUAL TABLE IF NOT EXISTS temp.terms_%lld USING "
             "fts5vocab(main, text_%lld, row)",
             (long long)collection, (long long)collection);
    lore_status status = lore_db_exec(db, sql, err);
    if (status != LORE_OK) {
        return status;
    }
    snprintf(sql, sizeof sql, "SELECT doc FROM temp.terms_%lld WHERE term=?1",
             (long long)collection);
    return lore_stmt_new(db, sql, stmt, err);
}

/* How many rows hold each term. */
static lore_status count_rows(lore_index *index, lore_db *db, const text_state *state, term *terms,
                              int32_t count, lore_error *err)
{
    lore_stmt *stmt = NULL;
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        bool has_row = false;
        if (recall_count(index, state, &terms[i])) {
            continue;
        }
        if (stmt == NULL) {
            status = open_counts(db, state->collection, &stmt, err);
        }
        if (status == LORE_OK) {
            lore_bind_text(stmt, 1, terms[i].stem);
            status = lore_stmt_step(stmt, &has_row, err);
        }
        if (status == LORE_OK) {
            terms[i].rows = has_row ? lore_column_int(stmt, 0) : 0;
            lore_stmt_reset(stmt);
            remember_count(index, state, &terms[i]);
        }
    }
    lore_stmt_free(stmt);
    return status;
}

/* ---- the row budget ---- */

static int by_rows(const void *left, const void *right)
{
    const term *a = left, *b = right;
    if (a->rows != b->rows) {
        return a->rows < b->rows ? -1 : 1;
    }
    return a->place - b->place;
}

/* Sort the terms; those from *first on, *kept of them, are to be asked for. The others occur
 * nowhere, or are too common or too many. */
static void choose_terms(const lore_limits *limits, const text_state *state, term *terms,
                         int32_t count, int32_t *first, int32_t *kept)
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
static lore_status write_match(const term *terms, int32_t count, lore_buf *out, lore_error *err)
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

static lore_status run_match(lore_db *db, const text_state *state, lore_str match, bool is_filtered,
                             lore_top *top, lore_error *err)
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
static lore_status ask(lore_db *db, const text_state *state, const term *terms, int32_t count,
                       bool is_filtered, lore_top *top, lore_error *err)
{
    double *inverse = lore_alloc((size_t)count * sizeof *inverse);
    lore_buf match;
    lore_buf_init(&match, 0);
    lore_status status = inverse == NULL ? lore_fail(err, LORE_ERR_NOMEM, "out of memory ranking")
                                         : write_match(terms, count, &match, err);
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        double rows = (double)terms[i].rows;
        double others = (double)state->chunks > rows ? (double)state->chunks - rows : 0;
        inverse[i] = terms[i].weight * log(1 + (others + .5) / (rows + .5));
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

static lore_status search_rows(lore_index *index, lore_db *db, const text_state *state,
                               const term_set *set, const lore_filter *filter, lore_top *top,
                               lore_error *err)
{
    int64_t *allowed = NULL;
    int64_t allowed_count = 0;
    int32_t first = 0, kept = 0;
    lore_status status = count_rows(index, db, state, set->items, set->count, err);
    if (status == LORE_OK) {
        choose_terms(&index->config->limits, state, set->items, set->count, &first, &kept);
    }
    if (status == LORE_OK && kept > 0 && filter != NULL) {
        status = lore_filter_rows(filter, db, state->collection, &allowed, &allowed_count, err);
        lore_fts_allow(lore_db_fts(db), allowed, allowed_count);
    }
    if (status == LORE_OK && kept > 0) {
        status = ask(db, state, set->items + first, kept, filter != NULL, top, err);
    }
    lore_fts_allow(lore_db_fts(db), NULL, 0);
    lore_free(allowed);
    return status;
}

/* One read transaction a collection, so that counts and rows fit together. Ended by COMMIT: a
 * rollback would take the temporary table with it. On failure lore_reader_give rolls back. */
static lore_status search_collection(lore_index *index, lore_db *db, const lore_vectors *view,
                                     const term_set *set, const lore_filter *filter, lore_top *top,
                                     lore_error *err)
{
    text_state state;
    lore_status status = lore_db_exec(db, "BEGIN", err);
    if (status == LORE_OK) {
        status = read_state(db, view, &state, err);
    }
    if (status == LORE_OK && state.exists) {
        status = search_rows(index, db, &state, set, filter, top, err);
    }
    return status == LORE_OK ? lore_db_exec(db, "COMMIT", err) : status;
}

static lore_status search_collections(lore_snapshot *snapshot, lore_db *db, lore_str question,
                                      const lore_search_options *options,
                                      lore_vectors *const *views, int32_t count, lore_arena *arena,
                                      lore_top *top, lore_error *err)
{
    term_set set;
    lore_status status = read_terms(db, question, arena, &set, err);
    for (int32_t i = 0; i < count && status == LORE_OK && set.count > 0; i++) {
        status = search_collection(snapshot->index, db, views[i], &set, options->filter, top, err);
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
                              term_set *sets, int32_t count, int64_t *rows, lore_error *err)
{
    text_state state;
    lore_status status = lore_db_exec(db, "BEGIN", err);
    if (status == LORE_OK) {
        status = read_state(db, view, &state, err);
    }
    for (int32_t i = 0; status == LORE_OK && state.exists && i < count; i++) {
        status = count_rows(index, db, &state, sets[i].items, sets[i].count, err);
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
    term_set *sets = LORE_PUSH(&arena, term_set, count + 1);
    lore_status status =
        sets == NULL ? lore_fail(err, LORE_ERR_NOMEM, "out of memory counting %d words", count)
                     : lore_reader_take(snapshot->index, &reader, err);
    for (int32_t i = 0; status == LORE_OK && i < count; i++) {
        rows[i] = 0;
        status = read_terms(reader->db, words[i], &arena, &sets[i], err);
    }
    for (int32_t v = 0; status == LORE_OK && v < snapshot->view_count; v++) {
        status =
            add_counts(snapshot->index, reader->db, snapshot->views[v], sets, count, rows, err);
    }
    lore_reader_give(snapshot->index, reader);
    lore_arena_destroy(&arena);
    return status;
}
