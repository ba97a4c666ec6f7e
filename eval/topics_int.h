/* Shared by the readers of questions and of judgements. */
#ifndef LORE_EVAL_TOPICS_INT_H
#define LORE_EVAL_TOPICS_INT_H

#include "eval/topics.h"

/* Ids go into tables and run files: 1 to 512 bytes, no control characters. */
LORE_MUST_USE lore_status lore_topic_check_id(lore_str id, const char *name, int64_t line,
                                              lore_error *err);
/* Number of lines, at least 1: room for what a file of lines can hold. */
size_t lore_topic_lines(lore_str text);

#endif
