/* Merging one word: symbols are a doubly linked list over an array, possible merges a binary heap
 * of (rank, position). Taking the best, checking that it still holds, joining, and pushing the two
 * new pairs is O(log n) each, so a megabyte of one letter costs no more per byte than a sentence
 * does. Most words are short, though, and for those a plain search is faster.
 *
 * A heap entry is never removed early. It is stale when its symbol was swallowed, has no right
 * neighbour any more, or when today's pair makes another token than the entry said. */
#include "models/bpe_int.h"

#include "base/clock.h"
#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

enum { FEW = 24 }; /* symbols of a word that is merged without the heap */

/* ---- tables ---- */

static size_t slots_for(int32_t count)
{
    size_t slots = 16;
    while (slots < 2 * (size_t)count) {
        slots *= 2;
    }
    return slots;
}

/* The finaliser of splitmix64, keyed. A vocabulary made so that its entries meet in one bucket
 * would make loading it quadratic; with a seed that its maker cannot know they spread like any
 * other. */
static uint64_t mix(uint64_t x, uint64_t seed)
{
    x ^= seed;
    x ^= x >> 31;
    x *= 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9u;
    return x ^ x >> 32;
}

static size_t pair_hash(const lore_bpe *bpe, int32_t left, int32_t right)
{
    return (size_t)mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right, bpe->seed);
}

/* Eight bytes at a time; the length is mixed in with the last ones, so zeroes behind the end are
 * not the same as zeroes in the text. */
static size_t text_hash(const lore_bpe *bpe, lore_str text)
{
    uint64_t hash = bpe->seed, word;
    size_t at = 0;
    for (; at + sizeof word <= text.len; at += sizeof word) {
        memcpy(&word, text.ptr + at, sizeof word);
        hash = mix(word, hash);
    }
    word = 0;
    for (size_t i = 0; at + i < text.len; i++) {
        word |= (uint64_t)(uint8_t)text.ptr[at + i] << (8 * i);
    }
    return (size_t)mix(word ^ (uint64_t)text.len << 56, hash);
}

bool lore_bpe_init(lore_bpe *bpe, lore_arena *arena, int32_t vocab, int32_t merges)
{
    size_t token_slots = slots_for(vocab), merge_slots = slots_for(merges);
    *bpe = (lore_bpe){.vocab = vocab, .token_mask = token_slots - 1, .merge_mask = merge_slots - 1};
    bpe->tokens = LORE_PUSH(arena, lore_str, vocab);
    bpe->token_slots = LORE_PUSH(arena, lore_bpe_slot, token_slots);
    bpe->merge_slots = LORE_PUSH(arena, lore_bpe_merge, merge_slots);
    bpe->merge_filter = LORE_PUSH(arena, uint64_t, merge_slots / 16); /* 4 bits a slot */
    bpe->filter_mask = merge_slots * 4 - 1;
    bpe->special = LORE_PUSH(arena, bool, vocab);
    bpe->whole = lore_arena_push_zero(arena, (size_t)vocab, sizeof *bpe->whole);
    bpe->unk_id = -1;
    lore_random_bytes(&bpe->seed, sizeof bpe->seed);
    if (bpe->tokens == NULL || bpe->token_slots == NULL || bpe->merge_slots == NULL ||
        bpe->merge_filter == NULL || bpe->special == NULL || bpe->whole == NULL) {
        return false;
    }
    for (size_t i = 0; i < token_slots; i++) {
        bpe->token_slots[i].id = -1;
    }
    for (size_t i = 0; i < merge_slots; i++) {
        bpe->merge_slots[i].left = -1;
    }
    return true;
}

/* The slot of the text, or the empty one that it would take. */
static size_t slot_of(const lore_bpe *bpe, lore_str bytes, size_t hash)
{
    size_t at = hash & bpe->token_mask;
    for (;; at = (at + 1) & bpe->token_mask) {
        lore_bpe_slot slot = bpe->token_slots[at];
        if (slot.id < 0 ||
            (slot.tag == (uint32_t)(hash >> 32) && lore_str_equal(bpe->tokens[slot.id], bytes))) {
            return at;
        }
    }
}

bool lore_bpe_add_token(lore_bpe *bpe, int32_t id, lore_str bytes)
{
    LORE_ASSERT(id >= 0 && id < bpe->vocab);
    if (bpe->tokens[id].ptr != NULL) {
        return false;
    }
    bpe->tokens[id] = bytes;
    size_t hash = text_hash(bpe, bytes);
    lore_bpe_slot *slot = &bpe->token_slots[slot_of(bpe, bytes, hash)];
    if (slot->id < 0) { /* else the first of equal texts is the one that is found */
        *slot = (lore_bpe_slot){id, (uint32_t)(hash >> 32)};
    }
    return true;
}

int32_t lore_bpe_find(const lore_bpe *bpe, lore_str bytes)
{
    return bpe->token_slots[slot_of(bpe, bytes, text_hash(bpe, bytes))].id;
}

void lore_bpe_start(lore_bpe *bpe, bool is_byte_level, bool has_fallback)
{
    bool is_complete = true;
    bpe->is_byte_level = is_byte_level;
    for (int b = 0; b < 256; b++) {
        char byte = (char)b, name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        lore_str text = is_byte_level ? (lore_str){&byte, 1} : (lore_str){name, 6};
        bpe->byte_ids[b] = is_byte_level || has_fallback ? lore_bpe_find(bpe, text) : -1;
        is_complete = is_complete && bpe->byte_ids[b] >= 0;
        if (b < 128) {
            bpe->ascii_ids[b] = lore_bpe_find(bpe, (lore_str){&byte, 1});
        }
    }
    if (!is_byte_level && !is_complete) {
        memset(bpe->byte_ids, -1, sizeof bpe->byte_ids);
    }
}

void lore_bpe_add_merge(lore_bpe *bpe, int32_t left, int32_t right, int32_t merged)
{
    size_t hash = pair_hash(bpe, left, right), slot = hash & bpe->merge_mask;
    size_t bit = hash >> 20 & bpe->filter_mask;
    bpe->merge_filter[bit >> 6] |= (uint64_t)1 << (bit & 63);
    while (bpe->merge_slots[slot].left >= 0 &&
           (bpe->merge_slots[slot].left != left || bpe->merge_slots[slot].right != right)) {
        slot = (slot + 1) & bpe->merge_mask;
    }
    bpe->merge_slots[slot] = (lore_bpe_merge){left, right, bpe->merges++, merged};
}

/* NULL where the pair does not merge. */
static const lore_bpe_merge *merge_of(const lore_bpe *bpe, int32_t left, int32_t right)
{
    size_t hash = pair_hash(bpe, left, right), slot = hash & bpe->merge_mask;
    size_t bit = hash >> 20 & bpe->filter_mask;
    if ((bpe->merge_filter[bit >> 6] >> (bit & 63) & 1) == 0) {
        return NULL;
    }
    while (bpe->merge_slots[slot].left >= 0) {
        const lore_bpe_merge *merge = &bpe->merge_slots[slot];
        if (merge->left == left && merge->right == right) {
            return merge;
        }
        slot = (slot + 1) & bpe->merge_mask;
    }
    return NULL;
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

/* ---- symbols ---- */

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

/* Bytes that are no token (no text has them, most likely) are dropped or unknown, as in
 * `tokenizers`. */
static int32_t split_bytes(const lore_bpe *bpe, lore_str word, lore_bpe_symbol *symbols)
{
    int32_t count = 0;
    bool was_unknown = false;
    for (size_t i = 0; i < word.len; i++) {
        int32_t id = bpe->byte_ids[(uint8_t)word.ptr[i]];
        bool is_unknown = id < 0;
        bool is_fused = is_unknown && was_unknown && bpe->fuses_unknown;
        id = is_unknown ? bpe->unk_id : id;
        if (id >= 0 && !is_fused) {
            symbols[count++] = (lore_bpe_symbol){.id = id, .start = (uint32_t)i};
        }
        was_unknown = is_unknown;
    }
    return count;
}

static int32_t split_chars(const lore_bpe *bpe, lore_str word, lore_bpe_symbol *symbols)
{
    int32_t count = 0;
    bool was_unknown = false;
    for (size_t at = 0, next = 0; at < word.len; at = next) {
        int32_t c = lore_utf8_next(word, &next);
        int32_t id =
            c < 128 ? bpe->ascii_ids[c] : lore_bpe_find(bpe, lore_str_slice(word, at, next));
        bool is_unknown = id < 0 && bpe->byte_ids[0] < 0;
        if (id >= 0) {
            symbols[count++] = (lore_bpe_symbol){.id = id, .start = (uint32_t)at};
        }
        for (size_t i = at; i < next && id < 0 && !is_unknown; i++) {
            symbols[count++] =
                (lore_bpe_symbol){.id = bpe->byte_ids[(uint8_t)word.ptr[i]], .start = (uint32_t)i};
        }
        if (is_unknown && bpe->unk_id >= 0 && !(was_unknown && bpe->fuses_unknown)) {
            symbols[count++] = (lore_bpe_symbol){.id = bpe->unk_id, .start = (uint32_t)at};
        }
        was_unknown = is_unknown;
    }
    return count;
}

/* ---- merging ---- */

/* Few symbols: look for the best pair again after each merge. The ranks of the pairs are kept where
 * the heap would be. */
static int32_t merge_few(const lore_bpe *bpe, lore_bpe_scratch *scratch, int32_t count)
{
    lore_bpe_symbol *symbols = scratch->symbols;
    lore_bpe_candidate *pairs = scratch->heap; /* pairs[i] is of symbols i and i + 1 */
    const lore_bpe_candidate none = {INT32_MAX, 0, -1};
    for (int32_t i = 0; i + 1 < count; i++) {
        const lore_bpe_merge *merge = merge_of(bpe, symbols[i].id, symbols[i + 1].id);
        pairs[i] = merge != NULL ? (lore_bpe_candidate){merge->rank, i, merge->merged} : none;
    }
    while (count > 1) {
        int32_t best = 0;
        for (int32_t i = 1; i + 1 < count; i++) {
            best = pairs[i].rank < pairs[best].rank ? i : best;
        }
        if (pairs[best].rank == INT32_MAX) {
            break;
        }
        symbols[best].id = pairs[best].merged;
        count--;
        for (int32_t i = best + 1; i < count; i++) {
            symbols[i] = symbols[i + 1];
            pairs[i - 1] = pairs[i];
        }
        for (int32_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < count; i++) {
            const lore_bpe_merge *merge = merge_of(bpe, symbols[i].id, symbols[i + 1].id);
            pairs[i] = merge != NULL ? (lore_bpe_candidate){merge->rank, i, merge->merged} : none;
        }
    }
    return count;
}

/* Offer the merge of the symbol at `at` with its right neighbour, if there is one. */
static void offer(const lore_bpe *bpe, lore_bpe_scratch *scratch, int32_t *heap_count, int32_t at)
{
    const lore_bpe_symbol *symbol = &scratch->symbols[at];
    if (symbol->next < 0) {
        return;
    }
    const lore_bpe_merge *merge = merge_of(bpe, symbol->id, scratch->symbols[symbol->next].id);
    if (merge != NULL) {
        heap_push(scratch->heap, heap_count, (lore_bpe_candidate){merge->rank, at, merge->merged});
    }
}

static bool still_holds(const lore_bpe *bpe, const lore_bpe_symbol *symbols,
                        lore_bpe_candidate candidate)
{
    const lore_bpe_symbol *symbol = &symbols[candidate.at];
    if (symbol->id < 0 || symbol->next < 0) {
        return false;
    }
    const lore_bpe_merge *merge = merge_of(bpe, symbol->id, symbols[symbol->next].id);
    return merge != NULL && merge->merged == candidate.merged;
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

static int32_t merge_many(const lore_bpe *bpe, lore_bpe_scratch *scratch, int32_t count)
{
    lore_bpe_symbol *symbols = scratch->symbols;
    int32_t heap_count = 0, kept = 0;
    for (int32_t i = 0; i < count; i++) {
        symbols[i].prev = i - 1;
        symbols[i].next = i + 1 < count ? i + 1 : -1;
    }
    for (int32_t i = 0; i < count; i++) {
        offer(bpe, scratch, &heap_count, i);
    }
    while (heap_count > 0) {
        lore_bpe_candidate best = heap_pop(scratch->heap, &heap_count);
        if (!still_holds(bpe, symbols, best)) {
            continue;
        }
        join(symbols, best.at, best.merged);
        if (symbols[best.at].prev >= 0) {
            offer(bpe, scratch, &heap_count, symbols[best.at].prev);
        }
        offer(bpe, scratch, &heap_count, best.at);
    }
    for (int32_t i = 0; i >= 0; i = symbols[i].next) {
        symbols[kept++] = symbols[i]; /* kept <= i: never overtakes the walk */
    }
    return kept;
}

bool lore_bpe_word(const lore_bpe *bpe, lore_str word, lore_bpe_scratch *scratch,
                   lore_pieces *pieces)
{
    LORE_ASSERT(word.len > 0 && word.len <= LORE_BPE_WORD_BYTES_MAX);
    int32_t whole = lore_bpe_find(bpe, word);
    whole = whole >= 0 && bpe->special[whole] ? -1 : whole;
    if (whole >= 0 &&
        (bpe->ignores_merges ||
         atomic_load_explicit(&bpe->whole[whole], memory_order_relaxed) == LORE_BPE_WHOLE)) {
        return lore_pieces_push(pieces, whole, 0);
    }
    if (!reserve(scratch, word.len)) {
        return false;
    }
    int32_t count = bpe->is_byte_level ? split_bytes(bpe, word, scratch->symbols)
                                       : split_chars(bpe, word, scratch->symbols);
    if (count > 1) {
        count = count <= FEW ? merge_few(bpe, scratch, count) : merge_many(bpe, scratch, count);
    }
    if (whole >= 0) {
        bool is_whole = count == 1 && scratch->symbols[0].id == whole;
        atomic_store_explicit(&bpe->whole[whole], is_whole ? LORE_BPE_WHOLE : LORE_BPE_IN_PARTS,
                              memory_order_relaxed);
    }
    for (int32_t i = 0; i < count; i++) {
        if (!lore_pieces_push(pieces, scratch->symbols[i].id, scratch->symbols[i].start)) {
            return false;
        }
    }
    return true;
}
