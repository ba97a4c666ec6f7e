/* A set of byte strings with a number each, walked a byte at a time: what greedy longest match
 * (WordPiece) and all-prefixes search (Unigram) need.
 *
 * A double array (Aoe 1989): the child of node n by byte b is the unit base[n] ^ b, and it is one
 * if that unit names n as its parent. A step is one load and one compare. Built once by a loader
 * into its arena, const afterwards; any thread, no locks. */
#ifndef LORE_MODELS_TRIE_INT_H
#define LORE_MODELS_TRIE_INT_H

#include "base/str.h"

enum { LORE_TRIE_ROOT = 0, LORE_TRIE_NONE = -1 };

typedef struct lore_trie_unit {
    uint32_t base;   /* children are at base ^ byte; the highest bit: a string ends here */
    uint32_t parent; /* UINT32_MAX: a free unit */
} lore_trie_unit;

typedef struct lore_trie {
    lore_trie_unit *units; /* [count], a multiple of 256: base ^ byte is always inside */
    int32_t *values;       /* [count], of units at which a string ends */
    size_t count;
} lore_trie;

typedef struct lore_trie_key {
    lore_str text; /* 1 or more bytes, borrowed for the call */
    int32_t value; /* 0 or more */
} lore_trie_key;

/* Sort keys by text; of those with the same text the one with the largest value stays. Gives how
 * many are left. */
size_t lore_trie_sort(lore_trie_key *keys, size_t count);
/* keys as lore_trie_sort leaves them. Time is O(1) in each byte, whatever they are. Fails:
 * LORE_ERR_NOMEM, LORE_ERR_LIMIT (2^28 units, or keys made to waste them). */
LORE_MUST_USE lore_status lore_trie_build(lore_trie *trie, lore_arena *arena,
                                          const lore_trie_key *keys, size_t count, lore_error *err);

/* The child of node by byte, or LORE_TRIE_NONE. */
static inline int64_t lore_trie_step(const lore_trie *trie, int64_t node, uint8_t byte)
{
    uint32_t at = (trie->units[node].base & 0x7FFFFFFF) ^ byte;
    return trie->units[at].parent == (uint32_t)node ? (int64_t)at : LORE_TRIE_NONE;
}

/* Value of the string that ends at node, or -1. */
static inline int32_t lore_trie_value(const lore_trie *trie, int64_t node)
{
    return (trie->units[node].base & 0x80000000) != 0 ? trie->values[node] : -1;
}

/* Value of the whole text, or -1. */
int32_t lore_trie_find(const lore_trie *trie, lore_str text);

#endif
