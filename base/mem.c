/* The allocator and the arenas.
 *
 * lore_alloc is malloc plus two counters: how many allocations were made (a test injects a failure
 * at one of them) and how many are alive (a test looks for leaks). The counters are relaxed
 * atomics: they order nothing, they only count. An arena is a chain of blocks; small pushes are cut
 * from the head block, a push that would waste much of a fresh block gets a block of its own behind
 * the head, so the rest of the head stays usable. Under AddressSanitizer the unused part of a block
 * is poisoned, so that a read past a push is found although the block goes on. */
#include "base/mem.h"

#include "base/error.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define LORE_MEM_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LORE_MEM_POISON 1
#endif
#endif
#ifdef LORE_MEM_POISON
#include <sanitizer/asan_interface.h>
#define POISON(memory, size) ASAN_POISON_MEMORY_REGION((memory), (size))
#define UNPOISON(memory, size) ASAN_UNPOISON_MEMORY_REGION((memory), (size))
#else
#define POISON(memory, size) ((void)(memory), (void)(size))
#define UNPOISON(memory, size) ((void)(memory), (void)(size))
#endif

enum {
    MEM_ALIGN = 16,          /* what malloc gives and what arenas promise */
    MEM_ALIGN_WIDE = 64,     /* a cache line */
    ARENA_BLOCK = 64 * 1024, /* few blocks for a request, little waste for a small one */
    ARENA_OWN_BLOCK = 4      /* a push of a quarter of a block or more gets its own */
};

static _Atomic int64_t made_count;
static _Atomic int64_t live_count;
static _Atomic int64_t fail_index; /* the made_count that fails, 0: none */
static atomic_bool fail_is_sticky;

/* Count one allocation. False when a test wants this one to fail. */
static bool allocation_allowed(void)
{
    int64_t index = atomic_fetch_add_explicit(&made_count, 1, memory_order_relaxed) + 1;
    int64_t failing = atomic_load_explicit(&fail_index, memory_order_relaxed);
    if (failing == 0 || index < failing) {
        return true;
    }
    return index > failing && !atomic_load_explicit(&fail_is_sticky, memory_order_relaxed);
}

static void *count_live(void *memory)
{
    if (memory != NULL) {
        atomic_fetch_add_explicit(&live_count, 1, memory_order_relaxed);
    }
    return memory;
}

void *lore_alloc(size_t size_bytes)
{
    if (!allocation_allowed()) {
        return NULL;
    }
    return count_live(malloc(size_bytes == 0 ? 1 : size_bytes));
}

void *lore_alloc_zero(size_t count, size_t size_bytes)
{
    size_t total = 0;
    if (!lore_size_mul(count, size_bytes, &total) || !allocation_allowed()) {
        return NULL;
    }
    return count_live(calloc(total == 0 ? 1 : total, 1));
}

void *lore_realloc(void *memory, size_t size_bytes)
{
    if (memory == NULL) {
        return lore_alloc(size_bytes);
    }
    if (!allocation_allowed()) {
        return NULL;
    }
    return realloc(memory, size_bytes == 0 ? 1 : size_bytes);
}

void lore_free(void *memory)
{
    if (memory != NULL) {
        atomic_fetch_sub_explicit(&live_count, 1, memory_order_relaxed);
        free(memory);
    }
}

void *lore_alloc_aligned(size_t size_bytes)
{
    size_t padded = 0;
    if (!lore_size_add(size_bytes == 0 ? 1 : size_bytes, MEM_ALIGN_WIDE - 1, &padded) ||
        !allocation_allowed()) {
        return NULL;
    }
    return count_live(aligned_alloc(MEM_ALIGN_WIDE, padded - padded % MEM_ALIGN_WIDE));
}

void lore_free_aligned(void *memory)
{
    lore_free(memory);
}

bool lore_size_mul(size_t a, size_t b, size_t *product)
{
    size_t result = 0;
    if (__builtin_mul_overflow(a, b, &result)) {
        return false;
    }
    *product = result;
    return true;
}

bool lore_size_add(size_t a, size_t b, size_t *sum)
{
    size_t result = 0;
    if (__builtin_add_overflow(a, b, &result)) {
        return false;
    }
    *sum = result;
    return true;
}

void lore_mem_fail_at(int64_t n, bool sticky)
{
    LORE_ASSERT(n >= 0);
    atomic_store_explicit(&fail_is_sticky, sticky, memory_order_relaxed);
    atomic_store_explicit(&fail_index, n == 0 ? 0 : lore_mem_count() + n, memory_order_relaxed);
}

int64_t lore_mem_count(void)
{
    return atomic_load_explicit(&made_count, memory_order_relaxed);
}

int64_t lore_mem_live(void)
{
    return atomic_load_explicit(&live_count, memory_order_relaxed);
}

/* ---- arenas ---- */

struct lore_arena_block {
    lore_arena_block *next;
    size_t size_bytes; /* of the data behind this header */
    size_t used_bytes;
    size_t padding; /* keeps the data aligned to 16 */
};
static_assert(sizeof(lore_arena_block) % MEM_ALIGN == 0, "data behind a block header is aligned");

static char *block_data(lore_arena_block *block)
{
    return (char *)(block + 1);
}

static lore_arena_block *block_new(size_t size_bytes)
{
    size_t total = 0;
    if (!lore_size_add(size_bytes, sizeof(lore_arena_block), &total)) {
        return NULL;
    }
    lore_arena_block *block = lore_alloc(total);
    if (block != NULL) {
        *block = (lore_arena_block){.size_bytes = size_bytes};
        POISON(block_data(block), size_bytes);
    }
    return block;
}

static void block_free(lore_arena_block *block)
{
    UNPOISON(block_data(block), block->size_bytes);
    lore_free(block);
}

/* The block that has room for size bytes: the head, a fresh head, or one of its own. */
static lore_arena_block *block_with_room(lore_arena *arena, size_t size_bytes)
{
    lore_arena_block *head = arena->head;
    if (head != NULL && head->size_bytes - head->used_bytes >= size_bytes) {
        return head;
    }
    bool needs_own = head != NULL && size_bytes >= arena->block_bytes / ARENA_OWN_BLOCK;
    size_t fresh_bytes =
        needs_own || size_bytes > arena->block_bytes ? size_bytes : arena->block_bytes;
    lore_arena_block *block = block_new(fresh_bytes);
    if (block == NULL) {
        return NULL;
    }
    if (needs_own) {
        block->next = head->next;
        head->next = block;
    } else {
        block->next = head;
        arena->head = block;
    }
    return block;
}

void lore_arena_init(lore_arena *arena, size_t cap_bytes)
{
    *arena = (lore_arena){.cap_bytes = cap_bytes, .block_bytes = ARENA_BLOCK};
}

void lore_arena_destroy(lore_arena *arena)
{
    if (arena == NULL) {
        return;
    }
    for (lore_arena_block *block = arena->head; block != NULL;) {
        lore_arena_block *next = block->next;
        block_free(block);
        block = next;
    }
    arena->head = NULL;
    arena->used_bytes = 0;
}

/* Keeps one block of the ordinary size, if there is one: a request that needed much must not hold
 * its memory while the thread waits for the next. */
void lore_arena_reset(lore_arena *arena)
{
    lore_arena_block *kept = NULL;
    for (lore_arena_block *block = arena->head; block != NULL;) {
        lore_arena_block *next = block->next;
        if (kept == NULL && block->size_bytes == arena->block_bytes) {
            kept = block;
        } else {
            block_free(block);
        }
        block = next;
    }
    if (kept != NULL) {
        kept->next = NULL;
        kept->used_bytes = 0;
        POISON(block_data(kept), kept->size_bytes);
    }
    arena->head = kept;
    arena->used_bytes = 0;
    arena->is_over_cap = false;
}

void *lore_arena_push(lore_arena *arena, size_t size_bytes)
{
    size_t padded = 0;
    size_t used = 0;
    if (!lore_size_add(size_bytes == 0 ? 1 : size_bytes, MEM_ALIGN - 1, &padded)) {
        return NULL;
    }
    padded -= padded % MEM_ALIGN;
    if (!lore_size_add(arena->used_bytes, padded, &used) ||
        (arena->cap_bytes != 0 && used > arena->cap_bytes)) {
        arena->is_over_cap = true;
        return NULL;
    }
    if (arena->block_bytes == 0) {
        arena->block_bytes = ARENA_BLOCK; /* a zeroed arena was never initialised, which is fine */
    }
    lore_arena_block *block = block_with_room(arena, padded);
    if (block == NULL) {
        return NULL;
    }
    char *memory = block_data(block) + block->used_bytes;
    block->used_bytes += padded;
    arena->used_bytes = used;
    UNPOISON(memory, size_bytes);
    return memory;
}

void *lore_arena_push_zero(lore_arena *arena, size_t count, size_t size_bytes)
{
    size_t total = 0;
    if (!lore_size_mul(count, size_bytes, &total)) {
        return NULL;
    }
    void *memory = lore_arena_push(arena, total);
    if (memory != NULL) {
        memset(memory, 0, total);
    }
    return memory;
}
