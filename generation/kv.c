/* Which page belongs to which sequence.
 *
 * A stack of free pages and one list of owned pages a slot, all allocated at once. The stack hands
 * out the page given back last, which is the one most likely still in a cache.
 *
 * Invariants
 * 1. Every page is either on the free stack (owner -1) or in the list of exactly one slot (owner is
 *    that slot): free_count + the sum of counts = page_count.
 * 2. List entry k of a slot holds the tokens of positions k * page_tokens and following.
 * 3. A reserve that cannot be met changes nothing. */
#include "generation/kv.h"

#include "base/mem.h"

struct lore_kv {
    int32_t page_count, page_tokens, sequences_max, tokens_max;
    int32_t list_cap;   /* pages of one slot at most */
    int32_t free_count; /* of free_pages */
    int32_t *free_pages;
    int32_t *owners; /* [page_count] slot or -1 */
    int32_t *counts; /* [sequences_max] pages in each list */
    int32_t *lists;  /* [sequences_max, list_cap] */
};

int32_t lore_kv_pages_for(int32_t tokens, int32_t page_tokens)
{
    return tokens / page_tokens + (tokens % page_tokens != 0);
}

void lore_kv_free(lore_kv *kv)
{
    if (kv == NULL) {
        return;
    }
    lore_free(kv->lists);
    lore_free(kv->counts);
    lore_free(kv->owners);
    lore_free(kv->free_pages);
    lore_free(kv);
}

lore_status lore_kv_new(int32_t page_count, int32_t page_tokens, int32_t sequences_max,
                        int32_t tokens_max, lore_kv **kv_out, lore_error *err)
{
    if (page_count < 1 || page_tokens < 1 || sequences_max < 1 || tokens_max < 1) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "cannot manage %d pages of %d tokens for %d sequences of %d tokens: every "
                         "number must be at least 1",
                         page_count, page_tokens, sequences_max, tokens_max);
    }
    lore_kv *kv = lore_alloc_zero(1, sizeof *kv);
    if (kv == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the page table");
    }
    *kv = (lore_kv){.page_count = page_count,
                    .page_tokens = page_tokens,
                    .sequences_max = sequences_max,
                    .tokens_max = tokens_max,
                    .free_count = page_count};
    /* One sequence can never own more than all pages, however long it may grow. */
    int32_t list_cap = lore_kv_pages_for(tokens_max, page_tokens);
    kv->list_cap = list_cap < page_count ? list_cap : page_count;
    size_t entries = 0;
    bool is_small = lore_size_mul((size_t)sequences_max, (size_t)kv->list_cap, &entries);
    kv->free_pages = lore_alloc_zero((size_t)page_count, sizeof(int32_t));
    kv->owners = lore_alloc_zero((size_t)page_count, sizeof(int32_t));
    kv->counts = lore_alloc_zero((size_t)sequences_max, sizeof(int32_t));
    kv->lists = is_small ? lore_alloc_zero(entries, sizeof(int32_t)) : NULL;
    if (kv->free_pages == NULL || kv->owners == NULL || kv->counts == NULL || kv->lists == NULL) {
        lore_kv_free(kv);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the page table of %d pages",
                         page_count);
    }
    for (int32_t i = 0; i < page_count; i++) {
        kv->free_pages[i] = page_count - 1 - i; /* the first page handed out is page 0 */
        kv->owners[i] = -1;
    }
    *kv_out = kv;
    return LORE_OK;
}

bool lore_kv_reserve(lore_kv *kv, int32_t slot, int32_t tokens)
{
    LORE_ASSERT(slot >= 0);
    LORE_ASSERT(slot < kv->sequences_max);
    LORE_ASSERT(tokens >= 0);
    LORE_ASSERT(tokens <= kv->tokens_max);
    int32_t wanted = lore_kv_pages_for(tokens, kv->page_tokens);
    int32_t missing = wanted - kv->counts[slot];
    if (missing > kv->free_count) {
        return false;
    }
    int32_t *list = kv->lists + (size_t)slot * (size_t)kv->list_cap;
    while (kv->counts[slot] < wanted) {
        int32_t page = kv->free_pages[--kv->free_count];
        LORE_ASSERT(kv->owners[page] == -1);
        kv->owners[page] = slot;
        list[kv->counts[slot]++] = page;
    }
    return true;
}

void lore_kv_drop(lore_kv *kv, int32_t slot)
{
    LORE_ASSERT(slot >= 0);
    LORE_ASSERT(slot < kv->sequences_max);
    const int32_t *list = kv->lists + (size_t)slot * (size_t)kv->list_cap;
    while (kv->counts[slot] > 0) {
        int32_t page = list[--kv->counts[slot]];
        LORE_ASSERT(kv->owners[page] == slot);
        kv->owners[page] = -1;
        kv->free_pages[kv->free_count++] = page;
    }
}

const int32_t *lore_kv_pages(const lore_kv *kv, int32_t slot, int32_t *count)
{
    LORE_ASSERT(slot >= 0);
    LORE_ASSERT(slot < kv->sequences_max);
    *count = kv->counts[slot];
    return kv->lists + (size_t)slot * (size_t)kv->list_cap;
}

int32_t lore_kv_free_count(const lore_kv *kv)
{
    return kv->free_count;
}

int32_t lore_kv_total(const lore_kv *kv)
{
    return kv->page_count;
}
