/* The product in one place, free of HTTP: a question in, an answer with checked citations out.
 *
 * lore_answer_run retrieves, ranks the evidence, refuses where nothing supports an answer, fills
 * the prompt, lets the decoder write, holds each sentence against the evidence and puts the
 * extractive answer where the decoder's does not stand. Sentences are handed to `delta` once they
 * have passed. Thread: any, one call per request; everything of the result lives in the request's
 * arena. */
#ifndef LORE_API_ANSWER_H
#define LORE_API_ANSWER_H

#include "generation/engine.h"
#include "generation/prompt.h"
#include "retrieval/evidence.h"

#include <stdatomic.h>

typedef enum lore_mode {
    LORE_MODE_ANSWER = 0,
    LORE_MODE_EXTRACT,
    LORE_MODE_CONTEXT,
    LORE_MODE_PROMPT
} lore_mode;
const char *lore_mode_name(lore_mode mode);

typedef struct lore_query { /* strings borrowed; limits checked by whoever filled it (wire.c, cli)
                             */
    lore_str question;
    const lore_str *collections; /* count 0: "default" */
    int32_t collection_count;
    int32_t top_k; /* 0: config */
    const lore_filter *filter;
    lore_mode mode;
    const lore_prompt_message *history;
    int32_t history_count;
    lore_str prompt_name; /* empty: "default" */
    const lore_prompt_variable *variables;
    int32_t variable_count;
    lore_str adapter;   /* as lore_engine_choose takes it */
    int32_t max_tokens; /* 0: config */
    lore_sampling sampling;
    const lore_str *stop;
    int32_t stop_count;
    int64_t deadline_ns;
} lore_query;

typedef struct lore_citation {
    int32_t marker;                  /* 1-based: passages[marker - 1] */
    size_t answer_start, answer_end; /* bytes of the answer that it supports, marker not included */
    int32_t hit;
    size_t start, end;   /* bytes of the document's text */
    lore_str cited_text; /* document[start:end], checked against the store */
} lore_citation;

typedef struct lore_answer {
    char id[32];       /* "q_..." */
    int64_t created;   /* unix seconds */
    lore_str question; /* query_used */
    lore_str text;     /* the answer; in mode prompt the prompt's text; in mode context empty */
    bool is_refused;
    lore_mode mode, mode_used;
    lore_hits hits;
    lore_citation *citations;
    int32_t citation_count;
    const char *model; /* "lore-small"; "extractive" without a decoder */
    lore_str adapter;  /* empty: none */
    const char *prompt_name;
    const char *finish_reason; /* stop, length, cancelled */
    int32_t prompt_tokens, completion_tokens;
    int32_t cached_tokens; /* of the prompt: read by the decoder for an earlier request */
    float support;
    double embed_ms, search_ms, rerank_ms, evidence_ms, queue_ms, first_token_ms, total_ms;
} lore_answer;

typedef struct lore_answerer { /* const after start; shared by all threads; everything borrowed */
    lore_retriever retriever;
    lore_engine *engine;                /* NULL: extractive answers only */
    const lore_template *chat_template; /* of the engine's model; NULL without an engine */
    const lore_prompt_template *const *prompts;
    int32_t prompt_count;
    const lore_config *config;
    atomic_bool *is_failing; /* set to whether the last answer failed in the decoder; may be NULL */
} lore_answerer;

typedef struct lore_answer_events { /* all may be NULL; on the caller's thread, in this order:
                                       passages, then delta and citation mixed */
    void *self;
    void (*passages)(void *self, const lore_answer *answer); /* after retrieval, before any text */
    void (*delta)(void *self, lore_str text);                /* released text, in order */
    void (*citation)(void *self, const lore_answer *answer, const lore_citation *citation);
    bool (*is_gone)(void *self); /* polled while waiting; true: cancel */
} lore_answer_events;

/* LORE_ERR_BUSY (engine queue full), LORE_ERR_NOT_FOUND (collection, prompt, adapter), why an
 * adapter could not be loaded,
 * LORE_ERR_INVALID, LORE_ERR_CANCELLED, LORE_ERR_TIMEOUT, ... */
LORE_MUST_USE lore_status lore_answer_run(const lore_answerer *answerer, const lore_query *query,
                                          const lore_answer_events *events, lore_arena *arena,
                                          lore_answer *answer, lore_error *err);

#endif
