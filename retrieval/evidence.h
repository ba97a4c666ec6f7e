/* The sentences of the hits ranked against the question.
 *
 * The ranking serves three users: the extractive answer (a sentence, verbatim), the passages
 * trimmed for the prompt, and the check that an answer of the decoder is supported. It also decides
 * whether anything supports an answer at all. Scores mix how much of the question's weighted words
 * a sentence (and, less so, its passage and heading) covers with the cosine of their vectors; both
 * are absolute, so that a threshold means the same in every collection of a size. Thread: any. */
#ifndef LORE_RETRIEVAL_EVIDENCE_H
#define LORE_RETRIEVAL_EVIDENCE_H

#include "retrieval/retrieve.h"

typedef struct lore_sentence {
    int32_t hit;       /* index into the hits */
    size_t start, end; /* bytes of the document's text (not of the chunk) */
    lore_str text;
    float score;          /* [0, 1]-ish, larger is better */
    float lexical, dense; /* its parts */
} lore_sentence;

typedef struct lore_evidence {
    lore_sentence *sentences; /* best first */
    int32_t count;
    float support;     /* how well the best passage supports an answer: compared with
                          config->refuse_below */
    int32_t *passages; /* hits in order of their best sentence, for the prompt */
    int32_t passage_count;
    int64_t elapsed_ns;
} lore_evidence;

LORE_MUST_USE lore_status lore_evidence_rank(const lore_retriever *retriever, lore_str question,
                                             const lore_hits *hits, lore_arena *arena,
                                             lore_evidence *evidence, lore_error *err);

/* Put the hits into the order of the evidence (best sentence first), keep hits_max of them and the
 * sentences inside them. */
LORE_MUST_USE lore_status lore_evidence_reorder(lore_evidence *evidence, lore_hits *hits,
                                                int32_t hits_max, lore_arena *arena,
                                                lore_error *err);

/* The hit's best sentences (config evidence_sentences) in document order, one a line, under its
 * heading line, as the prompt shows it. */
lore_str lore_evidence_passage(const lore_evidence *evidence, const lore_hits *hits, int32_t hit,
                               int32_t sentences_max, lore_arena *arena);

/* Support of one sentence of an answer: the index of the ranked sentence that carries it, -1: none
 * does. It is carried when its words (folded, in order) stand together in the ranked sentence, with
 * at most a word or two left out, no figure changed and no negation dropped. The citation is that
 * sentence's span. Out of memory counts as not carried. */
int32_t lore_evidence_support(const lore_evidence *evidence, lore_str answer_sentence,
                              lore_arena *arena);
/* Whether a sentence of an answer that begins like this may yet be carried by one of the `count`
 * best ranked sentences. False is final: however it goes on, lore_evidence_support will not name
 * one of them. The last word may be unfinished and is not looked at. */
bool lore_evidence_may_support(const lore_evidence *evidence, int32_t count, lore_str beginning);

#endif
