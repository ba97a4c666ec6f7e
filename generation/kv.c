/* Which page belongs to whom, and which tokens a page that nobody writes any more says.
 *
 * Pages without content lie on a stack: the page given back last is handed out first, since it is
 * the one most likely still in a processor's cache. Published pages lie in a hash table, and while
 * nobody holds them also in a list by age, from which the oldest is taken when the stack is empty.
 * Everything is allocated at once.
 *
 * A published page is named by a serial number that is never used again. Its key is the serial of
 * the page before it in its text (0 for a first page), its scope and its own tokens, and a page is
 * found only where all of these are equal, so the table is a tree of texts and no two contents can
 * be taken for each other: the hash only says where to look. It is keyed with random bits, so that
 * nobody outside can choose tokens that all fall into one chain. The tokens kept here are 4 bytes
 * for each token whose keys and values take kilobytes.
 *
 * States of a page and who makes each transition
 *   free      on the stack, holders 0, serial 0        drop (unpublished), forget
 *   cached    in the list, holders 0, serial > 0       drop (published)
 *   private   holders 1, serial 0                      take_page, for reserve
 *   shared    holders >= 1, serial > 0                 publish, adopt
 *
 * Invariants
 * 1. Every page is in exactly one of these states: free_count + cached_count + held_count =
 *    page_count; holders is the number of slots in whose list the page is, once in each.
 * 2. List entry k of a slot holds the tokens of positions k * page_tokens and following. The first
 *    published[slot] entries are full and were published or found equal to a published page; what
 * is written to the slot's pages lies behind them.
 * 3. A reserve that cannot be met changes nothing.
 * 4. Of two cached pages of one chain the later one is older: whoever holds a page holds those
 *    before it, and drop lets go from the end. So the leaf goes first, and what stays cached can be
 *    found. (A slot that computed what somebody else published first keeps its own copy and hangs
 *    its next pages below the published one; should that one go first, they are merely not found.)
 */
#include "generation/kv.h"

#include "base/clock.h"
#include "base/mem.h"

#include <string.h>

enum { NO_PAGE = -1 };

typedef struct page {
    uint64_t serial, parent; /* 0: not published; the first of its text */
    lore_kv_scope scope;
    uint64_t hash;
    int32_t holders;
    int32_t chain;          /* the next one in its place of the table */
    int32_t older, younger; /* while cached */
} page;

typedef struct slot_state {
    int32_t count;     /* pages in the list */
    int32_t published; /* of these */
    uint64_t tail;     /* the serial that the next published page hangs below */
    lore_kv_scope scope;
} slot_state;

struct lore_kv {
    int32_t page_count, page_tokens, sequences_max, tokens_max;
    int32_t list_cap;   /* pages of one slot at most */
    int32_t free_count; /* of free_pages */
    int32_t cached_count, oldest, youngest;
    int32_t cached_enough; /* cached pages from which on the oldest is used before a free one */
    int64_t evictions;
    uint64_t hash_key, last_serial;
    size_t place_mask;   /* places of the table - 1 */
    int32_t *places;     /* the first page of each chain */
    int32_t *free_pages; /* [page_count] */
    page *pages;         /* [page_count] */
    int32_t *tokens;     /* [page_count, page_tokens] of published pages */
    slot_state *slots;   /* [sequences_max] */
    int32_t *lists;      /* [sequences_max, list_cap] */
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
    lore_free(kv->places);
    lore_free(kv->free_pages);
    lore_free(kv->pages);
    lore_free(kv->tokens);
    lore_free(kv->slots);
    lore_free(kv->lists);
    lore_free(kv);
}

/* False: out of memory. */
static bool take_arrays(lore_kv *kv)
{
    size_t entries = 0, tokens = 0, places = 1;
    while (places < (size_t)kv->page_count) {
        places *= 2;
    }
    if (!lore_size_mul((size_t)kv->sequences_max, (size_t)kv->list_cap, &entries) ||
        !lore_size_mul((size_t)kv->page_count, (size_t)kv->page_tokens, &tokens)) {
        return false;
    }
    kv->place_mask = places - 1;
    kv->places = lore_alloc_zero(places, sizeof *kv->places);
    kv->free_pages = lore_alloc_zero((size_t)kv->page_count, sizeof *kv->free_pages);
    kv->pages = lore_alloc_zero((size_t)kv->page_count, sizeof *kv->pages);
    kv->tokens = lore_alloc_zero(tokens, sizeof *kv->tokens);
    kv->slots = lore_alloc_zero((size_t)kv->sequences_max, sizeof *kv->slots);
    kv->lists = lore_alloc_zero(entries, sizeof *kv->lists);
    return kv->places != NULL && kv->free_pages != NULL && kv->pages != NULL &&
           kv->tokens != NULL && kv->slots != NULL && kv->lists != NULL;
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
                    .tokens_max = tokens_max};
    /* One sequence can never hold more than all pages, however long it may grow. */
    int32_t list_cap = lore_kv_pages_for(tokens_max, page_tokens);
    kv->list_cap = list_cap < page_count ? list_cap : page_count;
    if (!take_arrays(kv)) {
        lore_kv_free(kv);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the page table of %d pages",
                         page_count);
    }
    lore_random_bytes(&kv->hash_key, sizeof kv->hash_key);
    kv->free_count = page_count;
    kv->cached_enough = page_count;
    for (int32_t i = 0; i < page_count; i++) {
        kv->free_pages[i] = page_count - 1 - i; /* the first page handed out is page 0 */
    }
    lore_kv_forget(kv);
    *kv_out = kv;
    return LORE_OK;
}

/* ---- the table of published pages ---- */

static int32_t *tokens_of(const lore_kv *kv, int32_t at)
{
    return kv->tokens + (size_t)at * (size_t)kv->page_tokens;
}

static size_t token_bytes(const lore_kv *kv)
{
    return (size_t)kv->page_tokens * sizeof(int32_t);
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 32;
}

static uint64_t hash_of(const lore_kv *kv, uint64_t parent, lore_kv_scope scope,
                        const int32_t *tokens)
{
    uint64_t hash = mix(mix(mix(kv->hash_key, parent), scope.salt), scope.form);
    hash = mix(hash, scope.adapter);
    for (int32_t i = 0; i < kv->page_tokens; i++) {
        hash = mix(hash, (uint32_t)tokens[i]);
    }
    return mix(hash, kv->hash_key);
}

static bool is_key(const lore_kv *kv, int32_t at, uint64_t parent, lore_kv_scope scope,
                   const int32_t *tokens)
{
    const page *p = &kv->pages[at];
    return p->parent == parent && p->scope.salt == scope.salt && p->scope.form == scope.form &&
           p->scope.adapter == scope.adapter &&
           memcmp(tokens_of(kv, at), tokens, token_bytes(kv)) == 0;
}

static int32_t find(const lore_kv *kv, uint64_t hash, uint64_t parent, lore_kv_scope scope,
                    const int32_t *tokens)
{
    int32_t at = kv->places[hash & kv->place_mask];
    while (at != NO_PAGE &&
           !(kv->pages[at].hash == hash && is_key(kv, at, parent, scope, tokens))) {
        at = kv->pages[at].chain;
    }
    return at;
}

static void forget_page(lore_kv *kv, int32_t at)
{
    page *p = &kv->pages[at];
    int32_t *link = &kv->places[p->hash & kv->place_mask];
    while (*link != at) {
        LORE_ASSERT(*link != NO_PAGE);
        link = &kv->pages[*link].chain;
    }
    *link = p->chain;
    p->serial = 0;
}

/* ---- cached pages by age ---- */

static void push_youngest(lore_kv *kv, int32_t at)
{
    page *p = &kv->pages[at];
    p->older = kv->youngest;
    p->younger = NO_PAGE;
    *(p->older == NO_PAGE ? &kv->oldest : &kv->pages[p->older].younger) = at;
    kv->youngest = at;
    kv->cached_count++;
}

static void unlink_cached(lore_kv *kv, int32_t at)
{
    const page *p = &kv->pages[at];
    LORE_ASSERT(p->holders == 0);
    LORE_ASSERT(p->serial > 0);
    *(p->older == NO_PAGE ? &kv->oldest : &kv->pages[p->older].younger) = p->younger;
    *(p->younger == NO_PAGE ? &kv->youngest : &kv->pages[p->younger].older) = p->older;
    kv->cached_count--;
}

/* ---- slots ---- */

static int32_t *list_of(const lore_kv *kv, int32_t slot)
{
    LORE_ASSERT(slot >= 0);
    LORE_ASSERT(slot < kv->sequences_max);
    return kv->lists + (size_t)slot * (size_t)kv->list_cap;
}

int32_t lore_kv_adopt(lore_kv *kv, int32_t slot, lore_kv_scope scope, const int32_t *tokens,
                      int32_t count)
{
    int32_t *list = list_of(kv, slot);
    slot_state *s = &kv->slots[slot];
    LORE_ASSERT(s->count == 0);
    LORE_ASSERT(count >= 1);
    *s = (slot_state){.scope = scope};
    const int32_t pages_max = (count - 1) / kv->page_tokens;
    while (s->count < pages_max) {
        const int32_t *wanted = tokens + (size_t)s->count * (size_t)kv->page_tokens;
        int32_t at = find(kv, hash_of(kv, s->tail, scope, wanted), s->tail, scope, wanted);
        if (at == NO_PAGE) {
            break;
        }
        if (kv->pages[at].holders == 0) {
            unlink_cached(kv, at);
        }
        kv->pages[at].holders++;
        s->tail = kv->pages[at].serial;
        list[s->count++] = at;
    }
    s->published = s->count;
    return s->count * kv->page_tokens;
}

void lore_kv_publish(lore_kv *kv, int32_t slot, const int32_t *tokens, int32_t count)
{
    const int32_t *list = list_of(kv, slot);
    slot_state *s = &kv->slots[slot];
    const int32_t full = count / kv->page_tokens;
    LORE_ASSERT(full <= s->count);
    for (; s->published < full; s->published++) {
        const int32_t *own = tokens + (size_t)s->published * (size_t)kv->page_tokens;
        const uint64_t hash = hash_of(kv, s->tail, s->scope, own);
        int32_t at = find(kv, hash, s->tail, s->scope, own);
        if (at == NO_PAGE) {
            at = list[s->published];
            page *p = &kv->pages[at];
            LORE_ASSERT(p->holders == 1);
            LORE_ASSERT(p->serial == 0);
            memcpy(tokens_of(kv, at), own, token_bytes(kv));
            p->serial = ++kv->last_serial;
            p->parent = s->tail;
            p->scope = s->scope;
            p->hash = hash;
            p->chain = kv->places[hash & kv->place_mask];
            kv->places[hash & kv->place_mask] = at;
        }
        s->tail = kv->pages[at].serial;
    }
}

void lore_kv_limit_cached(lore_kv *kv, int32_t pages)
{
    LORE_ASSERT(pages >= 1);
    kv->cached_enough = pages;
}

/* Free pages first, what is cached may still be of use; but not more of that than is enough. */
static int32_t take_page(lore_kv *kv)
{
    int32_t at = kv->oldest;
    if (kv->free_count > 0 && kv->cached_count < kv->cached_enough) {
        at = kv->free_pages[--kv->free_count];
    } else {
        unlink_cached(kv, at);
        forget_page(kv, at);
        kv->evictions++;
    }
    LORE_ASSERT(kv->pages[at].holders == 0);
    LORE_ASSERT(kv->pages[at].serial == 0);
    kv->pages[at].holders = 1;
    return at;
}

bool lore_kv_reserve(lore_kv *kv, int32_t slot, int32_t tokens)
{
    int32_t *list = list_of(kv, slot);
    slot_state *s = &kv->slots[slot];
    LORE_ASSERT(tokens >= 0);
    LORE_ASSERT(tokens <= kv->tokens_max);
    const int32_t wanted = lore_kv_pages_for(tokens, kv->page_tokens);
    if (wanted - s->count > kv->free_count + kv->cached_count) {
        return false;
    }
    while (s->count < wanted) {
        list[s->count++] = take_page(kv);
    }
    return true;
}

void lore_kv_drop(lore_kv *kv, int32_t slot)
{
    const int32_t *list = list_of(kv, slot);
    slot_state *s = &kv->slots[slot];
    while (s->count > 0) {
        int32_t at = list[--s->count];
        page *p = &kv->pages[at];
        LORE_ASSERT(p->holders > 0);
        if (--p->holders > 0) {
            continue;
        }
        if (p->serial > 0) {
            push_youngest(kv, at);
        } else {
            kv->free_pages[kv->free_count++] = at;
        }
    }
}

void lore_kv_forget(lore_kv *kv)
{
    LORE_ASSERT(kv->free_count + kv->cached_count == kv->page_count);
    for (int32_t at = kv->oldest; kv->cached_count > 0; at = kv->pages[at].younger) {
        kv->pages[at].serial = 0;
        kv->free_pages[kv->free_count++] = at;
        kv->cached_count--;
    }
    kv->oldest = NO_PAGE;
    kv->youngest = NO_PAGE;
    for (size_t i = 0; i <= kv->place_mask; i++) {
        kv->places[i] = NO_PAGE;
    }
}

/* ---- facts ---- */

const int32_t *lore_kv_pages(const lore_kv *kv, int32_t slot, int32_t *count)
{
    const int32_t *list = list_of(kv, slot);
    *count = kv->slots[slot].count;
    return list;
}

void lore_kv_get_stats(const lore_kv *kv, lore_kv_stats *stats)
{
    *stats = (lore_kv_stats){.total = kv->page_count,
                             .free = kv->free_count + kv->cached_count,
                             .cached = kv->cached_count,
                             .evictions = kv->evictions};
}
