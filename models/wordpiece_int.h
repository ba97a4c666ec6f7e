/* WordPiece: a word is cut into the longest tokens of the vocabulary from left to right, and the
 * cutting of text into words as BERT does it.
 *
 * Filled once by the tokenizer's loader, const afterwards. All memory is the loader's arena.
 * Thread: any, once filled. Source: `tokenizers`, models/wordpiece and pre_tokenizers/bert. */
#ifndef LORE_MODELS_WORDPIECE_INT_H
#define LORE_MODELS_WORDPIECE_INT_H

#include "models/piece_int.h"
#include "models/trie_int.h"

enum { LORE_WORDPIECE_CHARS_MAX = 1000 }; /* cutting a word may take the square of its length */

typedef struct lore_wordpiece {
    lore_trie trie;
    int64_t inside; /* node behind the continuing prefix, LORE_TRIE_NONE: no token has it */
    int32_t unk_id;
    int32_t word_chars_max;
} lore_wordpiece;

typedef struct lore_wordpiece_options {
    lore_str prefix;        /* of tokens that continue a word; "##" in BERT, may be empty */
    int32_t unk_id;         /* of words that cannot be cut */
    int32_t word_chars_max; /* longer words are unknown; 100 in BERT */
} lore_wordpiece_options;

/* tokens [vocab], ptr NULL or empty where no text has the id; of equal ones the last counts.
 * Borrowed for the call. Fails: LORE_ERR_INVALID (unk_id outside the vocabulary), LORE_ERR_LIMIT
 * (word_chars_max not in 1 .. LORE_WORDPIECE_CHARS_MAX), and as lore_trie_build. */
LORE_MUST_USE lore_status lore_wordpiece_init(lore_wordpiece *wordpiece, lore_arena *arena,
                                              const lore_str *tokens, int32_t vocab,
                                              lore_wordpiece_options options, lore_error *err);

/* Append the tokens of one word: 1 or more, unk_id alone where it cannot be cut; none for an empty
 * word. False: out of memory. */
LORE_MUST_USE bool lore_wordpiece_word(const lore_wordpiece *wordpiece, lore_str word,
                                       lore_pieces *pieces);

/* BertPreTokenizer as a walk: the next word at or behind *at, which moves behind it. Words are cut
 * by white space, and every punctuation character is one. False: only white space was left. Any
 * bytes; a byte that is not UTF-8 counts as a letter. */
bool lore_wordpiece_next(lore_str text, size_t *at, lore_str *word);

#endif
