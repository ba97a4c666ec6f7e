/* Merging one word: symbols are a doubly linked list over an array, possible merges a binary heap
 * of (rank, position). Taking the best, checking that it still holds, joining, and pushing the two
 * new pairs is O(log n) each, so a megabyte of one letter costs no more per byte than a sentence
 * does.
 *
 * A heap entry is never removed early. It is stale when its symbol was swallowed, has no right
 * neighbour any more, or when today's pair makes another token than the entry said. */
#include "models/bpe_int.h"

#include <string.h>

/* ---- tables ---- */

static size_t slots_for(int32_t count)
{
    size_t slots = 16;
    while (slots < 2 * (size_t)count) {
        slots *= 2;
    }
    return slots;
}

static size_t pair_hash(int32_t left, int32_t right)
{
    uint64_t x = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    x ^= x >> 31; /* the finaliser of splitmix64 */
    x *= 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9u;
    return (size_t)(x ^ x >> 32);
}

bool lore_bpe_init(lore_bpe *bpe, lore_arena *arena, int32_t vocab, int32_t merges)
{
    size_t token_slots = slots_for(vocab), merge_slots = slots_for(merges);
    *bpe = (lore_bpe){.vocab = vocab, .token_mask = token_slots - 1, .merge_mask = merge_slots - 1};
    bpe->tokens = LORE_PUSH(arena, lore_str, vocab);
    bpe->token_slots = LORE_PUSH(arena, int32_t, token_slots);
    bpe->merge_slots = LORE_PUSH(arena, lore_bpe_merge, merge_slots);
    bpe->merged = LORE_PUSH(arena, int32_t, merges);
    if (bpe->tokens == NULL || bpe->token_slots == NULL || bpe->merge_slots == NULL ||
        bpe->merged == NULL) {
        return false;
    }
    for (size_t i = 0; i < token_slots; i++) {
        bpe->token_slots[i] = -1;
    }
    for (size_t i = 0; i < merge_slots; i++) {
        bpe->merge_slots[i].left = -1;
    }
    return true;
}

bool lore_bpe_add_token(lore_bpe *bpe, int32_t id, lore_str bytes)
{
    LORE_ASSERT(id >= 0 && id < bpe->vocab);
    if (bpe->tokens[id].ptr != NULL) {
        return false;
    }
    bpe->tokens[id] = bytes;
    size_t slot = (size_t)lore_str_hash(bytes) & bpe->token_mask;
    while (bpe->token_slots[slot] >= 0) {
        slot = (slot + 1) & bpe->token_mask;
    }
    bpe->token_slots[slot] = id;
    return true;
}

int32_t lore_bpe_find(const lore_bpe *bpe, lore_str bytes)
{
    size_t slot = (size_t)lore_str_hash(bytes) & bpe->token_mask;
    while (bpe->token_slots[slot] >= 0) {
        if (lore_str_equal(bpe->tokens[bpe->token_slots[slot]], bytes)) {
            return bpe->token_slots[slot];
        }
        slot = (slot + 1) & bpe->token_mask;
    }
    return -1;
}

void lore_bpe_add_merge(lore_bpe *bpe, int32_t left, int32_t right, int32_t merged)
{
    size_t slot = pair_hash(left, right) & bpe->merge_mask;
    while (bpe->merge_slots[slot].left >= 0 &&
           (bpe->merge_slots[slot].left != left || bpe->merge_slots[slot].right != right)) {
        slot = (slot + 1) & bpe->merge_mask;
    }
    bpe->merge_slots[slot] = (lore_bpe_merge){left, right, bpe->merges};
    bpe->merged[bpe->merges++] = merged;
}

/* Rank of a pair, -1 where it does not merge. */
static int32_t rank_of(const lore_bpe *bpe, int32_t left, int32_t right)
{
    size_t slot = pair_hash(left, right) & bpe->merge_mask;
    while (bpe->merge_slots[slot].left >= 0) {
        if (bpe->merge_slots[slot].left == left && bpe->merge_slots[slot].right == right) {
            return bpe->merge_slots[slot].rank;
        }
        slot = (slot + 1) & bpe->merge_mask;
    }
    return -1;
}

/* ---- the heap ---- */

static bool is_before(lore_bpe_candidate a, lore_bpe_candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void heap_push(lore_bpe_candidate *heap, int32_t *count, lore_bpe_candidate candidate)
{
    int32_t i = (*count)++;
    while (i > 0 && is_before(candidate, heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = candidate;
}

static lore_bpe_candidate heap_pop(lore_bpe_candidate *heap, int32_t *count)
{
    lore_bpe_candidate best = heap[0], last = heap[--*count];
    int32_t i = 0;
    for (;;) {
        int32_t child = 2 * i + 1;
        if (child + 1 < *count && is_before(heap[child + 1], heap[child])) {
            child++;
        }
        if (child >= *count || !is_before(heap[child], last)) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return best;
}

/* ---- one word ---- */

/* Symbols and heap for a word of `size` bytes. A merge takes one entry off and adds at most two,
 * and there are fewer merges than bytes: 2 * size entries are enough. */
static bool reserve(lore_bpe_scratch *scratch, size_t size)
{
    if (size <= scratch->room) {
        return true;
    }
    size_t room = scratch->room > 0 ? scratch->room : 64;
    while (room < size) {
        room *= 2;
    }
    scratch->symbols = lore_arena_push(scratch->arena, room * sizeof *scratch->symbols);
    scratch->heap = lore_arena_push(scratch->arena, 2 * room * sizeof *scratch->heap);
    scratch->room = scratch->symbols != NULL && scratch->heap != NULL ? room : 0;
    return scratch->room > 0;
}

/* Offer the merge of the symbol at `at` with its right neighbour, if there is one. */
static void offer(const lore_bpe *bpe, lore_bpe_scratch *scratch, int32_t *heap_count, int32_t at)
{
    const lore_bpe_symbol *symbol = &scratch->symbols[at];
    if (symbol->next < 0) {
        return;
    }
    int32_t rank = rank_of(bpe, symbol->id, scratch->symbols[symbol->next].id);
    if (rank >= 0) {
        heap_push(scratch->heap, heap_count, (lore_bpe_candidate){rank, at});
    }
}

static bool still_holds(const lore_bpe *bpe, const lore_bpe_symbol *symbols,
                        lore_bpe_candidate candidate)
{
    const lore_bpe_symbol *symbol = &symbols[candidate.at];
    if (symbol->id < 0 || symbol->next < 0) {
        return false;
    }
    int32_t rank = rank_of(bpe, symbol->id, symbols[symbol->next].id);
    return rank >= 0 && bpe->merged[rank] == bpe->merged[candidate.rank];
}

/* The symbol at `at` becomes `merged` and swallows its right neighbour. */
static void join(lore_bpe_symbol *symbols, int32_t at, int32_t merged)
{
    int32_t right = symbols[at].next;
    symbols[at].id = merged;
    symbols[at].next = symbols[right].next;
    if (symbols[right].next >= 0) {
        symbols[symbols[right].next].prev = at;
    }
    symbols[right].id = -1;
}

bool lore_bpe_word(const lore_bpe *bpe, lore_str word, lore_bpe_scratch *scratch, int32_t *count)
{
    LORE_ASSERT(word.len > 0 && word.len <= LORE_BPE_WORD_BYTES_MAX);
    int32_t size = (int32_t)word.len, heap_count = 0, kept = 0;
    if (!reserve(scratch, word.len)) {
        return false;
    }
    lore_bpe_symbol *symbols = scratch->symbols;
    int32_t whole = bpe->ignores_merges ? lore_bpe_find(bpe, word) : -1;
    if (whole >= 0) {
        symbols[0].id = whole;
        *count = 1;
        return true;
    }
    for (int32_t i = 0; i < size; i++) {
        symbols[i] = (lore_bpe_symbol){bpe->byte_ids[(uint8_t)word.ptr[i]], i - 1,
                                       i + 1 < size ? i + 1 : -1};
    }
    for (int32_t i = 0; i < size; i++) {
        offer(bpe, scratch, &heap_count, i);
    }
    while (heap_count > 0) {
        lore_bpe_candidate best = heap_pop(scratch->heap, &heap_count);
        if (!still_holds(bpe, symbols, best)) {
            continue;
        }
        join(symbols, best.at, bpe->merged[best.rank]);
        if (symbols[best.at].prev >= 0) {
            offer(bpe, scratch, &heap_count, symbols[best.at].prev);
        }
        offer(bpe, scratch, &heap_count, best.at);
    }
    for (int32_t i = 0; i >= 0; i = symbols[i].next) {
        symbols[kept++].id = symbols[i].id; /* kept <= i: never overtakes the walk */
    }
    *count = kept;
    return true;
}
