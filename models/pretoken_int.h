/* Split patterns of byte-level tokenizers, run by hand: which known regular expression it is, and
 * where its next match ends.
 *
 * Every one of these patterns matches at every position, so a text is cut into its successive
 * matches. Thread: any, no state. */
#ifndef LORE_MODELS_PRETOKEN_INT_H
#define LORE_MODELS_PRETOKEN_INT_H

#include "base/str.h"

typedef enum lore_pretoken {
    LORE_PRETOKEN_WHOLE = 0, /* no pattern: the text is one piece */
    LORE_PRETOKEN_GPT2,      /* GPT-2, RoBERTa, ByteLevel(use_regex) */
    LORE_PRETOKEN_LLAMA3,    /* Llama 3, GPT-4: up to three digits together */
    LORE_PRETOKEN_QWEN2      /* Qwen2, Qwen3, lore's own: each digit alone */
} lore_pretoken;

/* False where the expression is none of ours. */
bool lore_pretoken_of(lore_str regex, lore_pretoken *pattern);
/* End of the piece that starts at byte `at` (at < text.len). Any bytes: invalid UTF-8 counts as
 * symbols, a byte each. */
size_t lore_pretoken_next(lore_pretoken pattern, lore_str text, size_t at);

#endif
