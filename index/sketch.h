/* A sketch of a text: what it has in common with another can be told from the two sketches.
 *
 * The text is taken as the set of its shingles, three words in a row (characters, where a script
 * has no spaces), folded as for search. Of all shingles that fall into one of 128 bins the smallest
 * hash is kept; bins stay empty in short texts and borrow another's value (Li, Owen, Zhang: One
 * Permutation Hashing, NIPS 2012; Shrivastava: Optimal Densification, ICML 2017). The share of
 * equal values is that of common shingles, .04 give or take. Groups of values, the bands, find the
 * candidates: texts that share nine tenths have a band in common in 99.5 of 100 cases. Pure; the
 * same text gives the same sketch on any machine. Thread: any. */
#ifndef LORE_INDEX_SKETCH_H
#define LORE_INDEX_SKETCH_H

#include "base/str.h"

#include <stdint.h>

enum {
    LORE_SKETCH_VALUES = 128,
    LORE_SKETCH_BANDS = 6,
    LORE_SKETCH_BAND_VALUES = 5,
    LORE_SKETCH_SHINGLES_MIN = 16 /* a shorter text says too little to be compared */
};
/* Texts that have so much in common are near-duplicates. */
#define LORE_SKETCH_NEAR 0.85

typedef struct lore_sketch {
    bool is_empty; /* the text is too short */
    uint16_t values[LORE_SKETCH_VALUES];
} lore_sketch;

/* Fails only with LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_sketch_text(lore_str text, lore_sketch *sketch, lore_error *err);
/* Share of common shingles, 0 to 1; 0 where one is empty. */
double lore_sketch_share(const lore_sketch *a, const lore_sketch *b);
/* Key of a band, 0 .. LORE_SKETCH_BANDS - 1. Not of an empty one. */
int64_t lore_sketch_band(const lore_sketch *sketch, int32_t band);

#endif
