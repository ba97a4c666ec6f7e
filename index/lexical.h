/* Words of a text as the full-text index sees them: folded, CJK runs as unigrams and bigrams.
 *
 * A word is a run of letters, digits and marks; case, accents and width are folded away. Runs of
 * scripts without spaces (lore_utf8_is_cjk) give each character and each pair of neighbours. The
 * "s" of a possessive ("router's") is left out. A run above 256 bytes is cut into words of at most
 * that. The same walk feeds the FTS5 tokenizer (where the porter stemmer follows), the query
 * builder and, for retrieval's sentence ranking, plain iteration, so that a word is one thing
 * everywhere. Pure; any thread. */
#ifndef LORE_INDEX_LEXICAL_H
#define LORE_INDEX_LEXICAL_H

#include "base/str.h"

typedef struct lore_word {
    lore_str text;     /* folded (not stemmed); valid only during the call */
    size_t start, end; /* bytes of the original */
    bool is_cjk;       /* a single character or a bigram of a CJK run */
    bool is_bigram;
} lore_word;

/* Calls visit for each word in order; visit returning false stops. In CJK runs each character is
 * followed by its pair with the one before it. Fails only with LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_words_each(lore_str text,
                                          bool (*visit)(void *self, const lore_word *word),
                                          void *self, lore_error *err);

#endif
