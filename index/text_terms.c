/* What a question asks the full-text index for: its terms, how much each counts, how common it is,
 * and the terms that the best passages of a first search add. */
#include "index/text_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Of a term that only asks or joins; from 0 to .5 rankings are as good (quality.md). */
static const double FUNCTION_WORD_WEIGHT = 0.15;

/* ---- the terms of a question ---- */

/* The term of the set, perhaps new; NULL: out of memory. */
static lore_query_term *find_term(lore_term_set *set, lore_str stem, size_t start, size_t end)
{
    size_t at = lore_str_hash(stem) & (set->table_size - 1);
    while (set->table[at] != 0) {
        if (lore_str_equal(set->items[set->table[at] - 1].stem, stem)) {
            return &set->items[set->table[at] - 1];
        }
        at = (at + 1) & (set->table_size - 1);
    }
    lore_str kept = lore_str_copy(set->arena, stem);
    if (kept.ptr == NULL) {
        set->has_failed = true;
        return NULL;
    }
    LORE_ASSERT(set->count < set->cap); /* a term takes a byte of the question at least */
    set->items[set->count] = (lore_query_term){
        kept, lore_str_slice(set->question, start, end), set->count, set->weight, 0, 0};
    set->table[at] = ++set->count;
    return &set->items[set->count - 1];
}

static bool add_term(void *self, lore_str stem, size_t start, size_t end)
{
    return find_term(self, stem, start, end) != NULL;
}

static lore_status no_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the terms of a question");
}

static lore_status visit_terms(lore_db *db, lore_str text, lore_term_visit visit,
                               lore_term_set *set, lore_error *err)
{
    lore_status status = lore_fts_terms(lore_db_fts(db), text, visit, set, err);
    return status == LORE_OK && set->has_failed ? no_memory(err) : status;
}

/* Room for as many terms as a text of so many bytes can have: each takes a byte at least (two
 * characters without spaces are six bytes, and three terms). */
static lore_status make_set(size_t bytes, double weight, lore_arena *arena, lore_term_set *set,
                            lore_error *err)
{
    *set = (lore_term_set){.arena = arena, .weight = weight, .table_size = 16};
    set->cap = (int32_t)bytes + 1;
    while (set->table_size < 2 * (size_t)set->cap) {
        set->table_size *= 2;
    }
    set->items = LORE_PUSH(arena, lore_query_term, set->cap);
    set->table = LORE_PUSH(arena, int32_t, set->table_size);
    return set->items != NULL && set->table != NULL ? LORE_OK : no_memory(err);
}

/* The question's terms: those of its subject, then those that stand nowhere but in words nowhere
 * but in words that ask or join. */
lore_status lore_terms_read(lore_db *db, lore_str question, lore_arena *arena, lore_term_set *set,
                            lore_error *err)
{
    lore_status status = make_set(question.len, 1.0, arena, set, err);
    lore_str subject = lore_without_function_words(question, arena);
    if (status == LORE_OK && subject.ptr == NULL) {
        status = no_memory(err);
    }
    if (status == LORE_OK) {
        set->question = question;
        status = visit_terms(db, subject, add_term, set, err);
    }
    if (status == LORE_OK) {
        set->weight = FUNCTION_WORD_WEIGHT;
        status = visit_terms(db, question, add_term, set, err);
    }
    return status;
}

/* ---- how common a term is ---- */

lore_status lore_text_state_read(lore_db *db, const lore_vectors *view, lore_text_state *state,
                                 lore_error *err)
{
    static const char *const sql = "SELECT changed, chunks FROM collections WHERE id=?1";
    lore_stmt *stmt = NULL;
    *state = (lore_text_state){.view = view, .collection = view->collection};
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

static lore_term_count *count_slot(lore_index *index, const lore_text_state *state,
                                   const lore_query_term *t, uint64_t *key)
{
    *key = lore_str_hash(t->stem) ^ (uint64_t)state->collection * 0x9E3779B97F4A7C15u;
    return &index->term_counts[*key % LORE_TERM_COUNTS];
}

static bool recall_count(lore_index *index, const lore_text_state *state, lore_query_term *t)
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

static void remember_count(lore_index *index, const lore_text_state *state,
                           const lore_query_term *t)
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
lore_status lore_terms_count(lore_index *index, lore_db *db, const lore_text_state *state,
                             lore_query_term *terms, int32_t count, lore_error *err)
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

/* ---- terms of passages ---- */

enum { EXPANSION_TERMS = 20 }; /* 10 and 40 give nearly the same rankings */

double lore_term_inverse_frequency(const lore_text_state *state, const lore_query_term *t)
{
    double rows = (double)t->rows;
    double others = (double)state->chunks > rows ? (double)state->chunks - rows : 0;
    return log(1 + (others + .5) / (rows + .5));
}

static bool count_term(void *self, lore_str stem, size_t start, size_t end)
{
    lore_query_term *t = find_term(self, stem, start, end);
    if (t != NULL) {
        t->count++;
    }
    return t != NULL;
}

static int by_weight(const void *left, const void *right)
{
    const lore_query_term *a = left, *b = right;
    return a->weight != b->weight ? (a->weight < b->weight) - (a->weight > b->weight)
                                  : a->place - b->place;
}

/* The terms of the passages, those that tell them best from others first: how often each is in a
 * passage, saturated as in BM25, times its inverse frequency. */
static lore_status read_passages(lore_index *index, lore_db *db, const lore_text_state *state,
                                 const lore_search_options *options, lore_term_set *set,
                                 lore_error *err)
{
    static const double k = 1.2;
    lore_status status = LORE_OK;
    for (int32_t p = 0; p < options->passage_count && status == LORE_OK; p++) {
        set->question = options->passages[p];
        status = visit_terms(db, set->question, count_term, set, err);
        for (int32_t i = 0; i < set->count; i++) {
            set->items[i].weight += set->items[i].count / (set->items[i].count + k);
            set->items[i].count = 0;
        }
    }
    if (status == LORE_OK) {
        status = lore_terms_count(index, db, state, set->items, set->count, err);
    }
    for (int32_t i = 0; i < set->count; i++) {
        set->items[i].weight *= lore_term_inverse_frequency(state, &set->items[i]);
    }
    qsort(set->items, (size_t)set->count, sizeof *set->items, by_weight);
    set->count = set->count < EXPANSION_TERMS ? set->count : EXPANSION_TERMS;
    return status;
}

lore_status lore_terms_expand(lore_index *index, lore_db *db, const lore_text_state *state,
                              const lore_search_options *options, const lore_term_set *question,
                              lore_query_term **terms, int32_t *count, lore_error *err)
{
    lore_term_set typical;
    size_t bytes = 0;
    double asked = 0, found = 0;
    for (int32_t p = 0; p < options->passage_count; p++) {
        bytes += options->passages[p].len;
    }
    lore_status status = make_set(bytes, 0.0, question->arena, &typical, err);
    if (status == LORE_OK) {
        status = read_passages(index, db, state, options, &typical, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_query_term *all =
        LORE_PUSH(question->arena, lore_query_term, question->count + EXPANSION_TERMS);
    if (all == NULL) {
        return no_memory(err);
    }
    for (int32_t i = 0; i < typical.count; i++) {
        found += typical.items[i].weight;
    }
    for (int32_t i = 0; i < question->count; i++) {
        all[i] = question->items[i];
        asked += all[i].weight;
        all[i].weight *= 1 - options->expansion;
    }
    *count = question->count;
    for (int32_t i = 0; i < typical.count; i++) {
        int32_t at = 0;
        while (at < *count && !lore_str_equal(all[at].stem, typical.items[i].stem)) {
            at++;
        }
        if (at == *count) {
            all[(*count)++] = typical.items[i];
            all[at].place = at;
            all[at].weight = 0;
        }
        all[at].weight += options->expansion * asked * typical.items[i].weight / found;
    }
    *terms = all;
    return LORE_OK;
}
