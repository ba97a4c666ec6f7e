/* Terms of questions and passages, and how common they are: what text_search.c ranks by. */
#ifndef LORE_INDEX_TEXT_INT_H
#define LORE_INDEX_TEXT_INT_H

#include "index/index_int.h"

typedef struct lore_query_term {
    lore_str stem;  /* as the index holds it; in the arena */
    lore_str slice; /* of the question, which gives the stem again */
    int32_t place;  /* among the distinct terms of the question */
    double weight;  /* of 1; less where it only asks or joins */
    int32_t count;  /* in the passage that is being read */
    int64_t rows;   /* of the collection that hold it, where looked up */
} lore_query_term;

typedef struct lore_term_set {
    lore_arena *arena;
    lore_str question;
    lore_query_term *items;
    int32_t count, cap;
    int32_t
        *table; /* open addressing: index + 1 of an item, 0 empty; [table_size], a power of two */
    size_t table_size;
    double weight; /* of the terms that are added */
    bool has_failed;
} lore_term_set;

/* What the read transaction sees of a collection. */
typedef struct lore_text_state {
    const lore_vectors *view;
    int64_t collection, changed, chunks;
    bool exists; /* it may have been deleted since the snapshot was taken */
} lore_text_state;

/* The question's terms, each once. */
LORE_MUST_USE lore_status lore_terms_read(lore_db *db, lore_str question, lore_arena *arena,
                                          lore_term_set *set, lore_error *err);
LORE_MUST_USE lore_status lore_text_state_read(lore_db *db, const lore_vectors *view,
                                               lore_text_state *state, lore_error *err);
/* Fills rows of each: from the index's cache, or counted. In a read transaction. */
LORE_MUST_USE lore_status lore_terms_count(lore_index *index, lore_db *db,
                                           const lore_text_state *state, lore_query_term *terms,
                                           int32_t count, lore_error *err);
double lore_term_inverse_frequency(const lore_text_state *state, const lore_query_term *t);
/* The question's terms and the best of options->passages, which get options->expansion of the
 * weight of all. *terms in the question's arena. */
LORE_MUST_USE lore_status lore_terms_expand(lore_index *index, lore_db *db,
                                            const lore_text_state *state,
                                            const lore_search_options *options,
                                            const lore_term_set *question, lore_query_term **terms,
                                            int32_t *count, lore_error *err);

#endif
