/* Bitmaps of chunk ids. */
#include "index/row_set.h"

#include "base/mem.h"

enum { WORD = 64 };

static int64_t floor_word(int64_t id)
{
    return id - id % WORD;
}

static void set_range(lore_row_set *set, lore_row_range range)
{
    uint64_t at = (uint64_t)(range.first - set->first);
    const uint64_t end = at + (uint64_t)range.count;
    while (at < end) {
        uint64_t last = at - at % WORD + WORD;
        last = last < end ? last : end;
        uint64_t bits = last - at == WORD ? UINT64_MAX : ((uint64_t)1 << (last - at)) - 1;
        set->words[at / WORD] |= bits << (at % WORD);
        at = last;
    }
}

static int64_t count_bits(const lore_row_set *set)
{
    int64_t count = 0;
    for (int64_t i = 0; i < set->word_count; i++) {
        count += __builtin_popcountll(set->words[i]);
    }
    return count;
}

lore_status lore_row_set_new(const lore_row_set *base, const lore_row_range *ranges,
                             int64_t range_count, lore_row_set **set, lore_error *err)
{
    bool is_empty = base == NULL || base->word_count == 0;
    int64_t low = is_empty ? INT64_MAX : base->first;
    int64_t high = is_empty ? 0 : base->first + base->word_count * WORD;
    for (int64_t i = 0; i < range_count; i++) {
        int64_t end = ranges[i].first + ranges[i].count;
        low = ranges[i].first < low ? ranges[i].first : low;
        high = end > high ? end : high;
    }
    int64_t first = low < high ? floor_word(low) : 0;
    int64_t words = low < high ? (high - first + WORD - 1) / WORD : 0;
    lore_row_set *made = lore_alloc_zero(1, sizeof *made + (size_t)words * sizeof(uint64_t));
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a filter");
    }
    atomic_init(&made->references, 1);
    made->first = first;
    made->word_count = words;
    for (int64_t i = 0; !is_empty && i < base->word_count; i++) {
        made->words[(base->first - first) / WORD + i] = base->words[i];
    }
    for (int64_t i = 0; i < range_count; i++) {
        set_range(made, ranges[i]);
    }
    made->count = count_bits(made);
    *set = made;
    return LORE_OK;
}

lore_row_set *lore_row_set_acquire(lore_row_set *set)
{
    atomic_fetch_add_explicit(&set->references, 1, memory_order_relaxed);
    return set;
}

void lore_row_set_release(lore_row_set *set)
{
    /* Release: our reads come before the free; acquire: whoever frees sees them done. */
    if (set != NULL && atomic_fetch_sub_explicit(&set->references, 1, memory_order_acq_rel) == 1) {
        lore_free(set);
    }
}

/* The first bit from `at` on that is set (or, where is_set is false, clear); the end where none is.
 */
static int64_t find_bit(const lore_row_set *set, int64_t at, bool is_set)
{
    const int64_t end = set->word_count * WORD;
    while (at < end) {
        uint64_t word = is_set ? set->words[at / WORD] : ~set->words[at / WORD];
        word >>= at % WORD;
        if (word != 0) {
            return at + __builtin_ctzll(word);
        }
        at = floor_word(at) + WORD;
    }
    return end;
}

bool lore_row_set_run(const lore_row_set *set, int64_t from, int64_t *begin, int64_t *end)
{
    int64_t at = from > set->first ? from - set->first : 0;
    at = find_bit(set, at, true);
    if (at >= set->word_count * WORD) {
        return false;
    }
    *begin = set->first + at;
    *end = set->first + find_bit(set, at, false);
    return true;
}
