/* sentencepiece's precompiled_charsmap: replacements of character sequences, compiled by its
 * trainer.
 *
 * A blob is the size of a trie in bytes, the trie as units of a double array, both u32 little
 * endian, then the replacements, each with a NUL behind it; the value of a key is the offset of its
 * replacement. Const once open; any thread. Source: sentencepiece, normalizer.cc
 * (DecodePrecompiledCharsMap) and darts-clone, darts.h. */
#ifndef LORE_MODELS_CHARSMAP_INT_H
#define LORE_MODELS_CHARSMAP_INT_H

#include "base/str.h"

enum {
    LORE_CHARSMAP_BYTES_MAX = 4 << 20, /* real ones have 0.3 MB; all of it is walked at loading */
    LORE_CHARSMAP_KEY_MAX = 256,       /* bytes of a key; real ones have 18 */
    LORE_CHARSMAP_IS_KEY = 1,
    LORE_CHARSMAP_BEGINS = 2,      /* a longer key */
    LORE_CHARSMAP_BEGINS_ASCII = 4 /* one whose second character is ASCII, too */
};

typedef struct lore_charsmap {
    const uint32_t *units;
    size_t count;
    lore_str replacements;
    uint8_t ascii[128]; /* of each ASCII character, LORE_CHARSMAP_* flags */
} lore_charsmap;

/* Copies the blob into the arena and walks the whole trie. Fails: LORE_ERR_CORRUPT (empty, sizes or
 * offsets beyond the end, cycles, replacements that are not UTF-8), LORE_ERR_LIMIT,
 * LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_charsmap_open(lore_charsmap *map, lore_str blob, lore_arena *arena,
                                             lore_error *err);

/* Bytes of the shortest (or longest) key that text begins with and its replacement, borrowed from
 * the map; 0: none. */
size_t lore_charsmap_match(const lore_charsmap *map, lore_str text, bool is_longest,
                           lore_str *replacement);

#endif
