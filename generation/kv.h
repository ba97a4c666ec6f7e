/* Bookkeeping of key/value pages: who holds which page, and what those that nobody holds still say.
 * Numbers only, no memory of a device.
 *
 * A full page of known tokens is published: it can be found by its tokens and all before them.
 * Sequences that begin alike share such pages and only read them; when the last holder leaves, a
 * published page stays findable until the room is needed, least recently held first.
 * Invariants: a page is free, cached or held by n sequences; free + cached + held = all; a
 * published page is written by nobody. Thread: the engine's alone. */
#ifndef LORE_GENERATION_KV_H
#define LORE_GENERATION_KV_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct lore_kv lore_kv;

/* Equal tokens are the same content only within one scope. */
typedef struct lore_kv_scope {
    uint64_t salt;    /* who may share: lore_generation.salt */
    uint64_t form;    /* ways of computing equal tokens differently (longrope) */
    uint64_t adapter; /* the reading of it that computed them; 0: the base */
} lore_kv_scope;

/* page_count pages of page_tokens tokens each; slots 0..sequences_max-1, each holding tokens_max
 * tokens at most. Fails: LORE_ERR_INVALID (a number below 1), LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_kv_new(int32_t page_count, int32_t page_tokens,
                                      int32_t sequences_max, int32_t tokens_max, lore_kv **kv,
                                      lore_error *err);
void lore_kv_free(lore_kv *kv);
/* While so many pages or more are cached, the oldest of them is used anew before a page that is
 * free, at least 1; all pages until this is called. Memory that was never touched costs a host
 * nothing. */
void lore_kv_limit_cached(lore_kv *kv, int32_t pages);
/* Begin in an empty slot with the longest run of published pages that spell the beginning of
 * `tokens`. Gives the tokens in them: a multiple of page_tokens and below `count`, since the last
 * token must be computed for what follows it to be drawn. */
int32_t lore_kv_adopt(lore_kv *kv, int32_t slot, lore_kv_scope scope, const int32_t *tokens,
                      int32_t count);
/* The first `count` of `tokens` are computed in the slot's pages: those that are full may be found
 * from now on, and must not be written any more. The slot began with lore_kv_adopt, whose tokens
 * these go on. */
void lore_kv_publish(lore_kv *kv, int32_t slot, const int32_t *tokens, int32_t count);
/* Make room for `tokens` tokens in all of sequence slot; false: not enough free and cached pages,
 * nothing changed. */
bool lore_kv_reserve(lore_kv *kv, int32_t slot, int32_t tokens);
void lore_kv_drop(lore_kv *kv, int32_t slot); /* give back all pages of the slot */
/* Nothing published is true any more. No slot may hold a page (asserted). */
void lore_kv_forget(lore_kv *kv);
/* The pages of the slot in order of position; valid until the next adopt, reserve or drop. */
const int32_t *lore_kv_pages(const lore_kv *kv, int32_t slot, int32_t *count);
/* Pages that hold `tokens` tokens. */
int32_t lore_kv_pages_for(int32_t tokens, int32_t page_tokens);

typedef struct lore_kv_stats {
    int32_t total;
    int32_t free;      /* what a reserve can have: pages that nobody holds */
    int32_t cached;    /* of these, the published ones */
    int64_t evictions; /* published pages that had to make room */
} lore_kv_stats;
void lore_kv_get_stats(const lore_kv *kv, lore_kv_stats *stats);

#endif
