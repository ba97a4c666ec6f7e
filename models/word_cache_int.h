/* Words that came before in a text and their tokens: most words of a text are repeats, and looking
 * one up costs a tenth of cutting it.
 *
 * Belongs to one call of the tokenizer and lives in its arena. An entry is one word of bounded
 * length in a fixed slot: a newcomer takes the place of what is there, nothing grows. */
#ifndef LORE_MODELS_WORD_CACHE_INT_H
#define LORE_MODELS_WORD_CACHE_INT_H

#include "models/piece_int.h"

enum { LORE_WORD_CACHE_BYTES = 32, LORE_WORD_CACHE_TOKENS = 6 };

/* 64 bytes: one line of the processor's cache. */
typedef struct lore_word_entry {
    char word[LORE_WORD_CACHE_BYTES]; /* zeroes behind it */
    int32_t ids[LORE_WORD_CACHE_TOKENS];
    uint8_t starts[LORE_WORD_CACHE_TOKENS];
    uint8_t size; /* of the word, 0: empty */
    uint8_t count;
} lore_word_entry;

typedef struct lore_word_cache {
    lore_word_entry *entries; /* NULL: no cache */
    size_t mask;
} lore_word_cache;

/* As many entries as a text of so many bytes is worth, within limits. False: out of memory. */
LORE_MUST_USE bool lore_word_cache_init(lore_word_cache *cache, lore_arena *arena,
                                        size_t text_bytes);
/* The place of a word: its own entry, or the one it may take (then entry->size is 0). NULL where
 * the word is too long. The entry is good until the next call. */
lore_word_entry *lore_word_cache_find(lore_word_cache *cache, lore_str word);
/* Put the tokens of the word into the entry that was found for it, if they fit. */
void lore_word_cache_put(lore_word_entry *entry, lore_str word, const lore_pieces *pieces);

#endif
