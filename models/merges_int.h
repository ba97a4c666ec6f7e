/* The merges of a vocabulary that comes without: sentencepiece and tiktoken files give each token a
 * score or rank, and say which two tokens make a third by their bytes alone.
 *
 * Every way to cut a token into two others is a merge; merges are ranked by what they make, best
 * first, and where that is the same as `transformers` does when it converts such files. */
#ifndef LORE_MODELS_MERGES_INT_H
#define LORE_MODELS_MERGES_INT_H

#include "base/str.h"

typedef struct lore_merge_source {
    const lore_str *tokens; /* [count], the id is the index; ptr NULL: takes no part */
    const double *scores;   /* [count], the largest is the best; NULL: the smallest id is */
    int32_t count;
} lore_merge_source;

typedef struct lore_merge_pair {
    int32_t left, right, merged;
    uint16_t left_size, right_size; /* in characters where there are scores, else in bytes */
} lore_merge_pair;

/* *pairs in the arena, in order of rank. Fails: LORE_ERR_LIMIT (tokens of more than 512 bytes, or
 * more of long ones than any real vocabulary has; more than a million merges), LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_merges_find(const lore_merge_source *source, lore_arena *arena,
                                           lore_merge_pair **pairs, size_t *count, lore_error *err);

#endif
