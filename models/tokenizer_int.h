/* The tokenizer's struct, shared by its loader (tokenizer_load.c) and its user (tokenizer.c). Const
 * after loading. */
#ifndef LORE_MODELS_TOKENIZER_INT_H
#define LORE_MODELS_TOKENIZER_INT_H

#include "models/bpe_int.h"
#include "models/pretoken_int.h"
#include "models/tokenizer.h"

/* A token that is looked for in the text before it is split. Sorted by first byte, then longest
 * first. */
typedef struct lore_added_token {
    lore_str content;
    int32_t id;
    bool is_special;
    bool is_held_back;  /* recognised only with allow_special */
    bool is_normalized; /* looked for after the normaliser, not before */
} lore_added_token;

struct lore_tokenizer {
    lore_arena arena;
    lore_bpe bpe;
    lore_pretoken pretoken;
    bool is_nfc;
    lore_added_token *added;
    int32_t added_count;
    int32_t added_start[257]; /* tokens that begin with byte b are added_start[b] .. added_start[b +
                                 1] - 1 */
    bool *special;            /* [vocab] */
    int32_t *prefix, *suffix;
    int32_t prefix_count, suffix_count;
};

#endif
