/* Bookkeeping of key/value pages: which page belongs to which sequence. Numbers only, no memory of
 * a device.
 *
 * Invariants: a page is free or owned by exactly one sequence; free + owned = all. Thread: the
 * engine's alone. */
#ifndef LORE_GENERATION_KV_H
#define LORE_GENERATION_KV_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct lore_kv lore_kv;

/* page_count pages of page_tokens tokens each; slots 0..sequences_max-1, each holding tokens_max
 * tokens at most. Fails: LORE_ERR_INVALID (a number below 1), LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_kv_new(int32_t page_count, int32_t page_tokens,
                                      int32_t sequences_max, int32_t tokens_max, lore_kv **kv,
                                      lore_error *err);
void lore_kv_free(lore_kv *kv);
/* Make room for `tokens` tokens in all of sequence slot; false: not enough free pages, nothing
 * changed. */
bool lore_kv_reserve(lore_kv *kv, int32_t slot, int32_t tokens);
void lore_kv_drop(lore_kv *kv, int32_t slot); /* give back all pages of the slot */
/* The pages of the slot in order of position; valid until the next reserve or drop. */
const int32_t *lore_kv_pages(const lore_kv *kv, int32_t slot, int32_t *count);
/* Pages that hold `tokens` tokens. */
int32_t lore_kv_pages_for(int32_t tokens, int32_t page_tokens);
int32_t lore_kv_free_count(const lore_kv *kv);
int32_t lore_kv_total(const lore_kv *kv);

#endif
