/* Sets of chunk ids that a filter lets through, as bitmaps, and the ones that were asked for last.
 *
 * A bitmap answers in one look whether a row is in, and where few are, gives them as runs: chunks
 * of a document have ids side by side. A million chunks are 125 KB.
 *
 * Finding the documents that pass reads the metadata of all (docs/evaluation.md: 50 ms for 165,000
 * documents), so the sets of the last filters stay. One is good for the commit it was made at; for
 * a later one only documents with chunks since are looked at, which is all there is: metadata never
 * changes without new chunk ids, and what was deleted is dead in the parts of a view and gone from
 * the full-text index. */
#ifndef LORE_INDEX_ROW_SET_H
#define LORE_INDEX_ROW_SET_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Never changes once others see it; counted. */
typedef struct lore_row_set {
    _Atomic int32_t references;
    int64_t count; /* ids in it */
    int64_t first; /* the id of bit 0 */
    int64_t word_count;
    uint64_t words[];
} lore_row_set;

typedef struct lore_row_range {
    int64_t first, count;
} lore_row_range;

/* What `base` (NULL: nothing) and the ranges hold. */
LORE_MUST_USE lore_status lore_row_set_new(const lore_row_set *base, const lore_row_range *ranges,
                                           int64_t range_count, lore_row_set **set,
                                           lore_error *err);
lore_row_set *lore_row_set_acquire(lore_row_set *set);
void lore_row_set_release(lore_row_set *set); /* accepts NULL */
static inline bool lore_row_set_has(const lore_row_set *set, int64_t row)
{
    uint64_t at = (uint64_t)row - (uint64_t)set->first; /* below `first` it is huge */
    return at / 64 < (uint64_t)set->word_count && (set->words[at / 64] >> (at % 64) & 1) != 0;
}
/* The first run [*begin, *end) of ids at or above `from`; false: there is none. */
bool lore_row_set_run(const lore_row_set *set, int64_t from, int64_t *begin, int64_t *end);

/* ---- filter_cache.c ---- */

enum { LORE_FILTERS_KEPT = 32 };

typedef struct lore_filter_entry {
    char *key; /* of the collection and everything the filter says; NULL: a free place */
    size_t key_size;
    int64_t changed;    /* the collection's last commit that it covers */
    int64_t next_chunk; /* ids below are covered */
    int64_t whole_at;   /* next_chunk when all documents were last looked at */
    int64_t used;       /* when it was last asked for */
    lore_row_set *set;
} lore_filter_entry;

/* Guarded by the lock of the index. */
typedef struct lore_filter_cache {
    lore_filter_entry entries[LORE_FILTERS_KEPT];
    int64_t clock;
} lore_filter_cache;
void lore_filter_cache_clear(lore_filter_cache *cache);

#endif
