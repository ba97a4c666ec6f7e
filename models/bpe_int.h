/* Byte pair encoding: a vocabulary of byte strings, ranked merges of pairs, and the merging of one
 * word.
 *
 * Filled once by the tokenizer's loader, const afterwards. All memory is the loader's arena.
 * Thread: any, once filled. */
#ifndef LORE_MODELS_BPE_INT_H
#define LORE_MODELS_BPE_INT_H

#include "base/str.h"

enum {
    LORE_BPE_WORD_BYTES_MAX = 8 << 20
}; /* one piece between splits; 28 bytes of scratch a byte */

typedef struct lore_bpe_merge {
    int32_t left, right; /* left -1: an empty slot */
    int32_t rank;
} lore_bpe_merge;

typedef struct lore_bpe {
    lore_str *tokens; /* [vocab] bytes of each id; ptr NULL: no such id */
    int32_t vocab;
    int32_t *token_slots; /* hash of bytes -> id, -1 empty; power of two */
    size_t token_mask;
    lore_bpe_merge *merge_slots; /* hash of (left, right) -> rank; power of two */
    size_t merge_mask;
    int32_t *merged; /* [merges] id that the merge of this rank makes */
    int32_t merges;
    int32_t byte_ids[256];
    bool ignores_merges; /* a word that is a token as a whole is that token */
} lore_bpe;

/* A piece of a word while it is being merged; afterwards the first `count` of them are the tokens.
 */
typedef struct lore_bpe_symbol {
    int32_t id;         /* -1: swallowed by its left neighbour */
    int32_t prev, next; /* -1: none */
} lore_bpe_symbol;

typedef struct lore_bpe_candidate {
    int32_t rank, at;
} lore_bpe_candidate;

/* Scratch of lore_bpe_word, kept from word to word in an arena. */
typedef struct lore_bpe_scratch {
    lore_arena *arena;
    lore_bpe_symbol *symbols;
    lore_bpe_candidate *heap;
    size_t room; /* bytes of the longest word it can take */
} lore_bpe_scratch;

/* Room for ids below vocab and for `merges` merges. False: out of memory. */
LORE_MUST_USE bool lore_bpe_init(lore_bpe *bpe, lore_arena *arena, int32_t vocab, int32_t merges);
/* Make bytes (borrowed) the token `id`, findable. False: the id is taken. */
LORE_MUST_USE bool lore_bpe_add_token(lore_bpe *bpe, int32_t id, lore_str bytes);
int32_t lore_bpe_find(const lore_bpe *bpe, lore_str bytes); /* -1: none */
/* Call for ranks 0, 1, 2 ... A pair that comes again takes the later rank. */
void lore_bpe_add_merge(lore_bpe *bpe, int32_t left, int32_t right, int32_t merged);

/* Tokens of one word of 1..LORE_BPE_WORD_BYTES_MAX bytes: scratch->symbols[0 .. *count - 1].id. O(n
 * log n). False: out of memory. (Sennrich et al. 2016, in the order that `tokenizers` merges:
 * lowest rank, leftmost first.) */
LORE_MUST_USE bool lore_bpe_word(const lore_bpe *bpe, lore_str word, lore_bpe_scratch *scratch,
                                 int32_t *count);

#endif
