/* What a query reads: an immutable, reference-counted view of the vectors, beside short reads of
 * the database.
 *
 * Dense search covers the published vectors and the exact tail of everything committed since; dead
 * rows are never returned. Candidates whose rows were deleted after the snapshot was taken keep
 * their int8 scores, so their place may change between two searches, and drop out when their chunks
 * are loaded. Thread: any. */
#ifndef LORE_INDEX_SNAPSHOT_H
#define LORE_INDEX_SNAPSHOT_H

#include "base/json.h"
#include "index/store.h"

typedef struct lore_snapshot lore_snapshot;
/* The current one, never NULL. Notices commits of another process. */
lore_snapshot *lore_index_acquire(lore_index *index);
void lore_snapshot_release(lore_snapshot *snapshot); /* accepts NULL */
/* Number of the last commit it covers; publications count. */
int64_t lore_snapshot_sequence(const lore_snapshot *snapshot);
int64_t lore_snapshot_chunks(const lore_snapshot *snapshot);

/* A parsed metadata filter, the OpenAI vector-store grammar: eq ne gt gte lt lte in nin, and, or.
 * In the arena. Messages name the path: filter.filters[1].key ... */
typedef struct lore_filter lore_filter;
LORE_MUST_USE lore_status lore_filter_parse(const lore_json *json, const lore_limits *limits,
                                            lore_arena *arena, const lore_filter **filter,
                                            lore_error *err);

typedef struct lore_candidate {
    int64_t chunk; /* row id */
    float score;   /* dense: cosine; lexical: BM25, larger is better */
} lore_candidate;
typedef struct lore_candidates {
    lore_candidate *items; /* best first, ties by chunk id */
    int32_t count;
} lore_candidates;

typedef struct lore_search_options {
    const lore_str *collections; /* unknown ones are LORE_ERR_NOT_FOUND */
    int32_t collection_count;    /* 0: all */
    const lore_filter *filter;   /* NULL: all */
    int32_t count;               /* candidates wanted */
    bool is_exact;               /* dense: scan also where FAISS would do, to measure its recall */
    /* Lexical: terms typical of these passages join those of the question, with a share of the
     * weight of all, [0, 1) (pseudo-relevance feedback: Abdul-Jaleel et al., TREC 2004, "RM3"). */
    const lore_str *passages;
    int32_t passage_count;
    double expansion;
} lore_search_options;

/* Nearest by cosine. query: f32 [dim], unit length; not finite: LORE_ERR_INVALID. */
LORE_MUST_USE lore_status lore_search_dense(lore_snapshot *snapshot, const float *query,
                                            const lore_search_options *options, lore_arena *arena,
                                            lore_candidates *found, lore_error *err);
/* Lexical: terms of the question (see lexical.h), OR-ed, BM25. A question without any term finds
 * nothing. */
LORE_MUST_USE lore_status lore_search_text(lore_snapshot *snapshot, lore_str question,
                                           const lore_search_options *options, lore_arena *arena,
                                           lore_candidates *found, lore_error *err);
/* How many chunks of all collections hold each word (folded as lore_word is; stemmed inside). For
 * idf weights. */
LORE_MUST_USE lore_status lore_term_rows(lore_snapshot *snapshot, const lore_str *words,
                                         int32_t count, int64_t *rows, lore_error *err);
/* Cosine scores of given chunks, those of int8 rows, within some ten thousandths of what
 * lore_search_dense gives; NaN for rows that are dead or have no vector. */
LORE_MUST_USE lore_status lore_score_dense(lore_snapshot *snapshot, const float *query,
                                           const int64_t *chunks, int32_t count, float *scores,
                                           lore_error *err);

typedef struct lore_chunk {
    int64_t row, document_row;
    int64_t version; /* of the document */
    int32_t ordinal; /* place in its document, from 0 */
    lore_str collection, document_id, title, source, url, heading, metadata;
    lore_str text; /* document text [start, end) */
    size_t start, end;
    const lore_offset_run *pages; /* that it reaches over; none where the document has no pages */
    int32_t page_count;
} lore_chunk;
/* The page, from 1, on which byte `offset` of the document's text stands, which is one of the
 * chunk; 0: the document has no pages. */
int64_t lore_chunk_page(const lore_chunk *chunk, size_t offset);
/* Loads in one read transaction; chunks that are gone are left out, so *found_count <= count; order
 * kept. Strings in the arena. */
LORE_MUST_USE lore_status lore_load_chunks(lore_snapshot *snapshot, const int64_t *rows,
                                           int32_t count, lore_arena *arena, lore_chunk *chunks,
                                           int32_t *found_count, lore_error *err);
/* All chunks of one document, in order. */
LORE_MUST_USE lore_status lore_load_document_chunks(lore_snapshot *snapshot, lore_str collection,
                                                    lore_str document_id, lore_arena *arena,
                                                    lore_chunk **chunks, int32_t *count,
                                                    lore_error *err);

#endif
