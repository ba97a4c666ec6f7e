/* Unigram: of all ways to cut a text into pieces of the vocabulary the one with the largest sum of
 * scores.
 *
 * Filled once by the tokenizer's loader, const afterwards. All memory is the loader's arena. It
 * works on normalised text: who normalises also turns ' ' into U+2581 (the chain in normalize_int.h
 * or the Metaspace pre-tokenizer), here no character is special. Thread: any, once filled; scratch
 * belongs to one thread.
 * Source: Kudo 2018 (arXiv 1804.10959); order and ties as in `tokenizers`, models/unigram, or as in
 * sentencepiece, unigram_model.cc (EncodeOptimized). */
#ifndef LORE_MODELS_UNIGRAM_INT_H
#define LORE_MODELS_UNIGRAM_INT_H

#include "models/piece_int.h"
#include "models/trie_int.h"

enum { LORE_UNIGRAM_PIECE_BYTES_MAX = 1024 }; /* a byte of text may take as many steps */

typedef struct lore_unigram_piece {
    lore_str text;  /* the id is the index */
    double score;   /* logarithm of its probability */
    bool is_hidden; /* never matched in text (sentencepiece: control, byte and unused pieces) */
} lore_unigram_piece;

typedef struct lore_unigram_options {
    int32_t unk_id;         /* -1: none, then a text that needs it is refused */
    bool has_byte_fallback; /* characters without a piece become pieces <0x00> .. <0xFF> */
    /* Add scores in f32 as the library `sentencepiece` does (0.2.3), and take the score of unknown
     * text from pieces that are not hidden, so that of sums that are equal but for rounding the
     * same one wins. Else as `tokenizers`: f64, all pieces. */
    bool is_single;
} lore_unigram_options;

/* In the order of the trie, so that the pieces met on one walk are neighbours in memory. */
typedef struct lore_unigram_entry {
    double score;
    int32_t id;
    bool is_whole; /* the best path of its own text is the piece itself */
} lore_unigram_entry;

typedef struct lore_unigram {
    lore_trie trie; /* values are indices of entries */
    lore_unigram_entry *entries;
    double unk_score;
    int32_t unk_id;
    bool has_byte_fallback, is_single;
    int32_t byte_ids[256];  /* -1: none */
    size_t piece_bytes_max; /* of the longest piece that is matched */
} lore_unigram;

/* pieces [count] are borrowed for the call; of equal texts the last counts. Fails:
 * LORE_ERR_INVALID (a score that is not finite, unk_id outside), LORE_ERR_LIMIT (a piece that is
 * over LORE_UNIGRAM_PIECE_BYTES_MAX), and as lore_trie_build. An empty piece is never matched. */
LORE_MUST_USE lore_status lore_unigram_init(lore_unigram *unigram, lore_arena *arena,
                                            const lore_unigram_piece *pieces, int32_t count,
                                            lore_unigram_options options, lore_error *err);

/* Best paths to the bytes ahead, kept from text to text. Zeroed but for the arena. */
typedef struct lore_unigram_scratch {
    lore_arena *arena;
    struct lore_unigram_node *nodes;
    size_t room;
} lore_unigram_scratch;

/* Append the pieces of text. O(n): the memory is that of the longest stretch without a place that
 * every path goes through. Neighbours that are unknown become one unk_id, or their bytes, all with
 * the start of the stretch. Any bytes; one that is not UTF-8 is a character. Fails: LORE_ERR_NOMEM,
 * LORE_ERR_INVALID (a character is unknown and there is no unk_id), LORE_ERR_LIMIT (4 GiB). */
LORE_MUST_USE lore_status lore_unigram_encode(const lore_unigram *unigram, lore_str text,
                                              lore_unigram_scratch *scratch, lore_pieces *pieces,
                                              lore_error *err);

#endif
