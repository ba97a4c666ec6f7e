/* An answer's words against the words that were expected.
 *
 * Words are those of the full-text index (folded, Chinese character by character), without a, an
 * and the. Exact match and F1 are SQuAD's (Rajpurkar et al., EMNLP 2016), ROUGE-L is the F1 of the
 * longest common subsequence (Lin, 2004); each is the best over the expected answers. Pure.
 * Thread: any. */
#ifndef LORE_EVAL_WORDING_H
#define LORE_EVAL_WORDING_H

#include "base/str.h"

enum { LORE_WORDING_WORDS_MAX = 8192 }; /* of one text; what is behind them is not compared */

typedef struct lore_wording {
    double exact, f1, rouge_l; /* [0, 1] */
    bool is_held;              /* an expected answer's words stand together in the text */
} lore_wording;

/* LORE_ERR_NOMEM. Without expected answers everything is zero. */
LORE_MUST_USE lore_status lore_wording_compare(lore_str text, const lore_str *expected,
                                               int32_t count, lore_arena *arena,
                                               lore_wording *wording, lore_error *err);

/* The text without the markers [1] .. [markers] that citations leave in it. In the arena; ptr NULL:
 * out of memory. */
lore_str lore_wording_unmarked(lore_str text, int32_t markers, lore_arena *arena);

#endif
