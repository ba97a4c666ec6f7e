/* See sketch.h. Hashes are 64 bits while bins are filled; a sketch keeps 16 of each, so that two
 * different values are taken for equal once in 65,536. */
#include "index/sketch.h"

#include "index/lexical.h"

#include <string.h>

enum { SHINGLE_WORDS = 3, VALUE_BITS = 16 };

typedef struct bins {
    uint64_t least[LORE_SKETCH_VALUES]; /* UINT64_MAX: empty */
    uint64_t last[SHINGLE_WORDS];
    int64_t words;
} bins;

/* The finisher of splitmix64: every bit of the result hangs on every bit of x. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static bool add_word(void *self, const lore_word *word)
{
    bins *b = self;
    if (word->is_bigram) {
        return true; /* its characters come by themselves */
    }
    memmove(b->last, b->last + 1, sizeof b->last - sizeof b->last[0]);
    b->last[SHINGLE_WORDS - 1] = lore_str_hash(word->text);
    if (++b->words >= SHINGLE_WORDS) {
        uint64_t hash = mix(b->last[0] + mix(b->last[1] + mix(b->last[2])));
        uint64_t *least = &b->least[hash % LORE_SKETCH_VALUES];
        *least = hash < *least ? hash : *least;
    }
    return true;
}

/* The bin that an empty one borrows from: the first full one in an order of its own. */
static size_t full_bin(const bins *b, size_t bin)
{
    size_t at = bin;
    for (uint64_t attempt = 1; b->least[at] == UINT64_MAX; attempt++) {
        at = (size_t)(mix(bin * UINT64_C(0x9E3779B97F4A7C15) + attempt) % LORE_SKETCH_VALUES);
    }
    return at;
}

lore_status lore_sketch_text(lore_str text, lore_sketch *sketch, lore_error *err)
{
    bins b = {.words = 0};
    memset(b.least, 0xFF, sizeof b.least);
    *sketch = (lore_sketch){.is_empty = true};
    lore_status status = lore_words_each(text, add_word, &b, err);
    if (status != LORE_OK || b.words < LORE_SKETCH_SHINGLES_MIN + SHINGLE_WORDS - 1) {
        return status;
    }
    sketch->is_empty = false;
    for (size_t i = 0; i < LORE_SKETCH_VALUES; i++) {
        uint64_t hash = b.least[full_bin(&b, i)];
        sketch->values[i] = (uint16_t)(mix(hash) >> (64 - VALUE_BITS));
    }
    return LORE_OK;
}

double lore_sketch_share(const lore_sketch *a, const lore_sketch *b)
{
    int32_t equal = 0;
    if (a->is_empty || b->is_empty) {
        return 0;
    }
    for (size_t i = 0; i < LORE_SKETCH_VALUES; i++) {
        equal += a->values[i] == b->values[i] ? 1 : 0;
    }
    return (double)equal / LORE_SKETCH_VALUES;
}

int64_t lore_sketch_band(const lore_sketch *sketch, int32_t band)
{
    LORE_ASSERT(!sketch->is_empty && band >= 0 && band < LORE_SKETCH_BANDS);
    uint64_t key = (uint64_t)band;
    for (int32_t i = 0; i < LORE_SKETCH_BAND_VALUES; i++) {
        key = mix(key + sketch->values[band * LORE_SKETCH_BAND_VALUES + i]);
    }
    return (int64_t)(key >> 1);
}
