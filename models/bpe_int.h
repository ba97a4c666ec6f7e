/* Byte pair encoding: a vocabulary of byte strings, ranked merges of pairs, and the merging of one
 * word. Words start as bytes (GPT-2 and what came of it) or as characters (sentencepiece); then a
 * character that is no token becomes tokens of its bytes, or the unknown token.
 *
 * The vocabulary serves tokenizers of the other kinds too, without merges. Filled once by the
 * tokenizer's loader, const afterwards. All memory is the loader's arena. Thread: any, once
 * filled. */
#ifndef LORE_MODELS_BPE_INT_H
#define LORE_MODELS_BPE_INT_H

#include "models/piece_int.h"

#include <stdatomic.h>

enum {
    LORE_BPE_WORD_BYTES_MAX = 8 << 20 /* one piece between splits; 40 bytes of scratch a byte */
};

typedef struct lore_bpe_merge {
    int32_t left, right; /* left -1: an empty slot */
    int32_t rank;
    int32_t merged; /* what they make */
} lore_bpe_merge;

typedef struct lore_bpe_slot {
    int32_t id;   /* -1: empty */
    uint32_t tag; /* more of the hash: most texts that are no token are told by it alone */
} lore_bpe_slot;

typedef struct lore_bpe {
    lore_str *tokens; /* [vocab] bytes of each id; ptr NULL: no such id */
    int32_t vocab;
    uint64_t seed; /* of both hashes, random: no file can know which of its entries collide */
    lore_bpe_slot *token_slots; /* by hash of bytes; power of two */
    size_t token_mask;
    lore_bpe_merge *merge_slots; /* hash of (left, right); power of two */
    size_t merge_mask;
    uint64_t *merge_filter; /* a bit for each hash, eight times as many as merges: most pairs do not
                             * merge, and that should not cost a miss in the big table */
    size_t filter_mask;
    int32_t merges;
    bool is_byte_level;     /* words start as bytes */
    int32_t byte_ids[256];  /* byte-level: of each byte; else of the fallback <0x00> .. <0xFF>, all
                             * of  them or none. -1: there is none */
    int32_t unk_id;         /* -1: what is unknown is dropped */
    bool fuses_unknown;     /* unknown characters side by side are one token */
    bool ignores_merges;    /* a word that is a token as a whole is that token */
    int32_t ascii_ids[128]; /* not byte-level: of each ASCII character, -1: none */
    /* [vocab] lore_bpe_whole. Any thread may write, all would write the same, and nothing else
     * hangs on it: relaxed. */
    _Atomic uint8_t *whole;
    bool *special; /* [vocab] never made of text, but where the text cannot be written without (a
                    * single byte or character): who wants them looks for them before */
} lore_bpe;

/* Whether merging the bytes of a token gives that token: found out when a word is just that, and
 * remembered. */
typedef enum lore_bpe_whole {
    LORE_BPE_UNTRIED = 0,
    LORE_BPE_WHOLE,
    LORE_BPE_IN_PARTS
} lore_bpe_whole;

/* A piece of a word while it is being merged. */
typedef struct lore_bpe_symbol {
    int32_t id; /* -1: swallowed by its left neighbour */
    uint32_t start;
    int32_t prev, next; /* -1: none */
} lore_bpe_symbol;

typedef struct lore_bpe_candidate {
    int32_t rank, at, merged;
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

/* The vocabulary is complete: look up what words start with. has_fallback: what is no token becomes
 * tokens of its bytes, if all of <0x00> .. <0xFF> are there. */
void lore_bpe_start(lore_bpe *bpe, bool is_byte_level, bool has_fallback);

/* Append the tokens of one word of 1..LORE_BPE_WORD_BYTES_MAX bytes, any bytes. O(n log n). False:
 * out of memory. (Sennrich et al. 2016, in the order that `tokenizers` merges: lowest rank,
 * leftmost first.) */
LORE_MUST_USE bool lore_bpe_word(const lore_bpe *bpe, lore_str word, lore_bpe_scratch *scratch,
                                 lore_pieces *pieces);

#endif
