/* Questions and what was judged relevant to them: BEIR and TREC folders, and files of questions
 * with their answers.
 *
 * Judgements are `qrels/SPLIT.tsv`, `qrels.tsv`, `qrels.txt` or `qrels` of a folder, lines of
 * "query document grade" (a header may stand first) or "query iteration document grade". Questions
 * are `queries.jsonl` ({"id" or "_id", "text"}), `queries.tsv`, `topics.tsv` (id, tab, text), or
 * TREC topics in `topics` or `topics.txt` (<num>, <title>). Everything read lies in the caller's
 * arena and is in order of id. Files are hostile until checked. Thread: any. */
#ifndef LORE_EVAL_TOPICS_H
#define LORE_EVAL_TOPICS_H

#include "base/config.h"
#include "base/str.h"

enum {
    LORE_TOPICS_MAX = 1000000,    /* questions of one run */
    LORE_GRADE_MAX = 1000000,     /* so that sums stay exact */
    LORE_TOPIC_ANSWERS_MAX = 1000 /* of one question */
};

typedef struct lore_judgement {
    lore_str document;
    int32_t grade;
} lore_judgement;

typedef struct lore_topic {
    lore_str id, text;
    /* of a folder */
    const lore_judgement *judgements; /* in order of document */
    int32_t judgement_count;
    const int32_t *ideal; /* the grades above zero, largest first */
    int32_t relevant_count;
    /* of a file of answers */
    const lore_str *answers; /* none: nothing should be found to answer it */
    int32_t answer_count;
    lore_str document; /* that the answer is in, where the file says; id, or end of the source */
} lore_topic;

typedef struct lore_topics {
    const lore_topic *items; /* those that can be evaluated */
    int32_t count;
    int32_t unjudged;   /* left out: questions without a judgement */
    int32_t irrelevant; /* left out: judged, but nothing is relevant */
    int32_t unknown;    /* left out: judged, but there is no such question */
} lore_topics;

/* split NULL: test. LORE_ERR_INVALID names the file and the line: a line that is none of these, a
 * question twice, a document judged twice with different grades; also where nothing is left.
 * LORE_ERR_NOT_FOUND, LORE_ERR_LIMIT, LORE_ERR_IO, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_topics_read_folder(const char *folder, const char *split,
                                                  const lore_limits *limits, lore_arena *arena,
                                                  lore_topics *topics, lore_error *err);
/* JSON Lines of {"id"?, "question", "answers": [...] or "answer": "..." or null, "document"?}. A
 * question without an id goes by the number of its line. The same failures. */
LORE_MUST_USE lore_status lore_topics_read_answers(const char *path, const lore_limits *limits,
                                                   lore_arena *arena, lore_topics *topics,
                                                   lore_error *err);

/* The parsers, of text that was read; name is for messages. */
typedef struct lore_topic_list {
    lore_topic *items; /* in order of id, each once */
    int32_t count;
} lore_topic_list;
LORE_MUST_USE lore_status lore_topics_parse_queries(lore_str text, const char *name,
                                                    const lore_limits *limits, lore_arena *arena,
                                                    lore_topic_list *list, lore_error *err);
LORE_MUST_USE lore_status lore_topics_parse_answers(lore_str text, const char *name,
                                                    const lore_limits *limits, lore_arena *arena,
                                                    lore_topic_list *list, lore_error *err);
/* Judgements join the questions of the list; counts are filled in `topics`. */
LORE_MUST_USE lore_status lore_topics_join_judgements(lore_str text, const char *name,
                                                      lore_topic_list *list, lore_arena *arena,
                                                      lore_topics *topics, lore_error *err);

#endif
