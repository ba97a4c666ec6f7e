/* The tokenizer's struct, shared by its loader (tokenizer_load.c and beside it) and its users
 * (tokenizer.c, detok.c). Const after loading. */
#ifndef LORE_MODELS_TOKENIZER_INT_H
#define LORE_MODELS_TOKENIZER_INT_H

#include "models/bpe_int.h"
#include "models/normalize_int.h"
#include "models/pretoken_int.h"
#include "models/tokenizer.h"
#include "models/unigram_int.h"
#include "models/wordpiece_int.h"

typedef enum lore_tokenizer_kind {
    LORE_TOKENIZER_BPE = 0,
    LORE_TOKENIZER_WORDPIECE,
    LORE_TOKENIZER_UNIGRAM
} lore_tokenizer_kind;

/* A token that is looked for in the text before it is split. */
typedef struct lore_added_token {
    lore_str content;
    lore_str pattern; /* what is looked for: the content, normalised where the text is */
    int32_t id;
    bool is_special;
    bool is_held_back;            /* recognised only with allow_special */
    bool is_normalized;           /* looked for after the normaliser, not before */
    bool is_single_word;          /* not beside a letter, digit or the like */
    bool takes_left, takes_right; /* white space there belongs to it */
} lore_added_token;

/* Added tokens sorted by pattern, and where a text is one: of tokens with the same pattern the
 * first counts, and the first that is not held back where that one is. */
typedef struct lore_added_table {
    lore_added_token *tokens;
    int32_t count;
    lore_trie trie;      /* pattern -> index of its first token */
    uint8_t begins[256]; /* bytes that a pattern begins with: 1 any, | 2 one not held back */
} lore_added_table;

struct lore_tokenizer {
    lore_arena arena;
    lore_tokenizer_kind kind;
    lore_bpe bpe; /* of every kind: the vocabulary */
    lore_wordpiece wordpiece;
    lore_unigram unigram;
    bool cuts_before_space; /* no merge joins anything to a U+2581 behind it */
    lore_normalizer *normalizer;
    lore_pretoken *steps;
    int32_t step_count;
    lore_added_table added[2]; /* [is_normalized] */
    lore_str *bytes;           /* [vocab] what each token says */
    bool *is_added;            /* [vocab] */
    int32_t ids_max;           /* the network knows so many: lore_tokenizer_limit */
    int32_t first_spaces;      /* at most so many are dropped where a decoded text begins */
    int32_t *prefix, *suffix;
    int32_t *middle; /* between the two texts of a pair; NULL: pairs are put together otherwise */
    int32_t prefix_count, suffix_count, middle_count;
};

#endif
