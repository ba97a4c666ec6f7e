/* What a query searches for: its question, read with those before it where it leans on them.
 *
 * Pure; any thread. */
#ifndef LORE_API_QUESTION_H
#define LORE_API_QUESTION_H

#include "api/answer.h"

/* The question, or for a follow-up "the last question that stood on its own, the follow-ups since,
 * question", at most bytes_max (what is older is cut at its end). Borrowed from the query or in the
 * arena. LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_question_choose(const lore_query *query, size_t bytes_max,
                                               lore_arena *arena, lore_str *chosen,
                                               lore_error *err);

/* Whether the text holds a character of a script without spaces: then our own sentences are
 * Chinese. */
bool lore_question_is_cjk(lore_str text);

#endif
