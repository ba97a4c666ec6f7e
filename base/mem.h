/* Memory: one swappable allocator and the arenas built on it.
 *
 * Every heap allocation of the product goes through here, so that a test can make the N-th one fail
 * and count what was not freed. Allocation failure is an ordinary error on every path: these
 * functions return NULL. An arena is a chain of blocks freed together; it belongs to one thread at
 * a time. */
#ifndef LORE_BASE_MEM_H
#define LORE_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* size 0 gives a valid pointer. All memory is aligned to 16 bytes. lore_free(NULL) does nothing. */
void *lore_alloc(size_t size_bytes);
void *lore_alloc_zero(size_t count, size_t size_bytes); /* count * size checked for overflow */
void *lore_realloc(void *memory, size_t size_bytes);
void lore_free(void *memory);

/* Aligned to 64 bytes (a cache line, a vector register, an AMX tile row). Free with
 * lore_free_aligned. */
void *lore_alloc_aligned(size_t size_bytes);
void lore_free_aligned(void *memory);

/* product = a * b. Returns false and leaves product alone on overflow. */
bool lore_size_mul(size_t a, size_t b, size_t *product);
bool lore_size_add(size_t a, size_t b, size_t *sum);

/* Failure injection, for tests. After lore_mem_fail_at(n) the n-th allocation from now (counted
 * from 1, over all threads) and, if `sticky`, every later one fails. n = 0 switches it off. */
void lore_mem_fail_at(int64_t n, bool sticky);
int64_t lore_mem_count(void); /* allocations made so far, to size a sweep */
int64_t lore_mem_live(void);  /* allocations not yet freed, to find leaks */

typedef struct lore_arena_block lore_arena_block;
typedef struct lore_arena {
    lore_arena_block *head;
    size_t used_bytes;  /* sum of pushes since the last reset */
    size_t cap_bytes;   /* a push beyond this fails; 0 means no cap */
    size_t block_bytes; /* size of a fresh block */
    bool is_over_cap;   /* the cap, not the machine, refused a push since the last reset */
} lore_arena;

/* Caller-owned struct; init allocates nothing. */
void lore_arena_init(lore_arena *arena, size_t cap_bytes);
void lore_arena_destroy(lore_arena *arena); /* accepts a zeroed arena */
void lore_arena_reset(lore_arena *arena);   /* keeps one block */

/* Uninitialised memory aligned to 16, valid until reset or destroy. NULL when out of memory or over
 * the cap. */
void *lore_arena_push(lore_arena *arena, size_t size_bytes);
void *lore_arena_push_zero(lore_arena *arena, size_t count, size_t size_bytes);

/* Typed convenience: LORE_PUSH(arena, lore_hit, n) gives zeroed memory or NULL. */
#define LORE_PUSH(arena, type, count) \
    ((type *)lore_arena_push_zero((arena), (size_t)(count), sizeof(type)))

#ifdef __cplusplus
}
#endif
#endif
