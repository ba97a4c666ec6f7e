/* A table of fixed slots, chosen by hash. */
#include "models/word_cache_int.h"

#include <assert.h>

enum { ENTRIES_MIN = 16, ENTRIES_MAX = 32768, BYTES_AN_ENTRY = 16 };

static_assert(sizeof(lore_word_entry) == 64, "an entry should be one cache line");

bool lore_word_cache_init(lore_word_cache *cache, lore_arena *arena, size_t text_bytes)
{
    size_t entries = ENTRIES_MIN;
    while (entries < ENTRIES_MAX && entries * BYTES_AN_ENTRY < text_bytes) {
        entries *= 2;
    }
    cache->entries = LORE_PUSH(arena, lore_word_entry, entries);
    cache->mask = entries - 1;
    return cache->entries != NULL;
}

/* Multiply and fold each half of the padded word (as wyhash does): four words at once. */
static size_t hash_of(const char word[LORE_WORD_CACHE_BYTES])
{
    uint64_t x[4];
    memcpy(x, word, sizeof x);
    uint64_t a = (x[0] ^ 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;
    uint64_t b = (x[1] ^ 0xbf58476d1ce4e5b9u) * 0xc4ceb9fe1a85ec53u;
    uint64_t c = (x[2] ^ x[3] * 0x94d049bb133111ebu) * 0x9e3779b97f4a7c15u;
    uint64_t h = ((a ^ a >> 32) + (b ^ b >> 29) + (c ^ c >> 31)) * 0x9e3779b97f4a7c15u;
    return (size_t)(h ^ h >> 32);
}

lore_word_entry *lore_word_cache_find(lore_word_cache *cache, lore_str word)
{
    char padded[LORE_WORD_CACHE_BYTES] = {0};
    if (cache->entries == NULL || word.len > sizeof padded) {
        return NULL;
    }
    memcpy(padded, word.ptr, word.len);
    lore_word_entry *entry = &cache->entries[hash_of(padded) & cache->mask];
    if (entry->size != word.len || memcmp(entry->word, padded, sizeof padded) != 0) {
        entry->size = 0;
    }
    return entry;
}

void lore_word_cache_put(lore_word_entry *entry, lore_str word, const lore_pieces *pieces)
{
    if (pieces->count > LORE_WORD_CACHE_TOKENS) {
        return;
    }
    memset(entry->word, 0, sizeof entry->word);
    memcpy(entry->word, word.ptr, word.len);
    for (int32_t i = 0; i < pieces->count; i++) {
        entry->ids[i] = pieces->items[i].id;
        entry->starts[i] = (uint8_t)pieces->items[i].start;
    }
    entry->size = (uint8_t)word.len;
    entry->count = (uint8_t)pieces->count;
}
