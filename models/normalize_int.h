/* Normalizers: what a tokenizer does to text before it looks for tokens, with the way back.
 *
 * A normalizer is a chain of stages, compiled from tokenizer.json's "normalizer" node or from the
 * NormalizerSpec of a sentencepiece model. Each stage maps text to text and keeps for every byte
 * the offset in the source of what it came from, as the NormalizedString of `tokenizers` does (its
 * Unicode versions too: forms are Unicode 9, categories Unicode 8). Stages copy on the first byte
 * that they change: text that the chain leaves alone costs a scan and is returned as it is.
 * Built once in the loader's arena, const afterwards; any thread, no locks. */
#ifndef LORE_MODELS_NORMALIZE_INT_H
#define LORE_MODELS_NORMALIZE_INT_H

#include "base/json.h"
#include "base/str.h"

enum {
    LORE_NORMALIZE_STAGES_MAX = 64,
    /* A text may become so many times as long, and all that its stages write, for each of them that
     * changes it, may be so many times as long (both and 64 bytes more). Of real ones U+FDFA grows
     * most, by 13 with its spaces escaped. */
    LORE_NORMALIZE_GROWTH_MAX = 32,
    LORE_NORMALIZE_WORK_MAX = LORE_NORMALIZE_GROWTH_MAX + LORE_NORMALIZE_STAGES_MAX
};

typedef struct lore_normalizer lore_normalizer;

typedef struct lore_normal {
    lore_str text;          /* the source itself where nothing changed, else in the arena */
    const uint32_t *origin; /* [text.len] source offset of each byte; NULL: byte i is at base + i */
} lore_normal;

/* tokenizer.json's "normalizer". A NULL or null node gives the empty chain. Nothing of the tree is
 * kept. Fails: LORE_ERR_UNSUPPORTED naming the type or the pattern, LORE_ERR_INVALID,
 * LORE_ERR_LIMIT (stages), LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_normalizer_parse(const lore_json *node, lore_arena *arena,
                                                lore_normalizer **normalizer, lore_error *err);

/* NormalizerSpec of a sentencepiece model. */
typedef struct lore_normalizer_spec {
    lore_str charsmap; /* precompiled_charsmap, may be empty; copied */
    bool add_dummy_prefix;
    bool remove_extra_whitespaces;
    bool escape_whitespaces; /* ' ' becomes U+2581 */
} lore_normalizer_spec;
/* Normalises as sentencepiece itself does (longest match in the charsmap, bytes that are not UTF-8
 * become U+FFFD). User-defined symbols are not its concern: the caller cuts them out before. */
LORE_MUST_USE lore_status lore_normalizer_from_spec(const lore_normalizer_spec *spec,
                                                    lore_arena *arena, lore_normalizer **normalizer,
                                                    lore_error *err);

/* True where the chain has no stage. */
bool lore_normalizer_is_empty(const lore_normalizer *normalizer);

/* Run the chain. Any bytes: one that is not UTF-8 stays as it is (BertNormalizer's clean_text
 * drops it). base is added to every offset. O(n). Fails, naming the stage: LORE_ERR_NOMEM,
 * LORE_ERR_LIMIT (a text over 4 GiB, growth, steps of a regular expression). */
LORE_MUST_USE lore_status lore_normalize(const lore_normalizer *normalizer, lore_str text,
                                         size_t base, lore_arena *arena, lore_normal *normal,
                                         lore_error *err);

#endif
