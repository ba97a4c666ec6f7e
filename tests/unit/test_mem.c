/* Proves alignment, overflow checks, failure injection, leak counting, and that an arena keeps what
 * it hands out apart, honours its cap and gives all back. */
#include "tests/check.h"

#include "base/clock.h"

static bool is_aligned(const void *memory, uintptr_t alignment)
{
    return (uintptr_t)memory % alignment == 0;
}

TEST(allocates_aligned)
{
    for (size_t size = 0; size < 300; size += 7) {
        void *plain = lore_alloc(size);
        void *wide = lore_alloc_aligned(size);
        CHECK(plain != NULL && is_aligned(plain, 16));
        CHECK(wide != NULL && is_aligned(wide, 64));
        lore_free(plain);
        lore_free_aligned(wide);
    }
    lore_free(NULL);
    lore_free_aligned(NULL);
}

TEST(refuses_overflow)
{
    volatile size_t half = SIZE_MAX / 2; /* volatile: the compiler would warn of the absurd sizes */
    CHECK(lore_alloc_zero(half, 3) == NULL);
    CHECK(lore_alloc_aligned(half * 2 + 1) == NULL);
    size_t result = 42;
    CHECK(!lore_size_mul(half, 3, &result));
    CHECK(!lore_size_add(half, half + 2, &result));
    CHECK_INT(result, 42);
    CHECK(lore_size_mul(6, 7, &result) && result == 42);
    CHECK(lore_size_add(half, half + 1, &result) && result == SIZE_MAX);
}

TEST(counts_what_lives)
{
    int64_t live = lore_mem_live();
    int64_t made = lore_mem_count();
    char *a = lore_alloc(10);
    char *b = lore_realloc(NULL, 10);
    CHECK_INT(lore_mem_live() - live, 2);
    b = lore_realloc(b, 1000);
    CHECK(b != NULL);
    CHECK_INT(lore_mem_live() - live, 2);
    CHECK_INT(lore_mem_count() - made, 3);
    lore_free(a);
    lore_free(b);
    CHECK_INT(lore_mem_live() - live, 0);
}

TEST(fails_where_told)
{
    lore_mem_fail_at(2, false);
    void *first = lore_alloc(1);
    void *second = lore_alloc(1);
    void *third = lore_alloc_zero(1, 1);
    CHECK(first != NULL && second == NULL && third != NULL);
    lore_mem_fail_at(1, true);
    void *kept = lore_realloc(first, 100); /* fails and leaves the memory alone */
    void *aligned = lore_alloc_aligned(8);
    lore_mem_fail_at(0, false);
    CHECK(kept == NULL && aligned == NULL);
    void *after = lore_alloc(1);
    CHECK(after != NULL);
    lore_free(first);
    lore_free(third);
    lore_free(after);
}

/* Every push is filled with a pattern of its own; none may have changed at the end. */
TEST(arena_keeps_pushes_apart)
{
    enum { PUSHES = 2000 };
    static unsigned char *pushed[PUSHES];
    static size_t sizes[PUSHES];
    lore_arena arena;
    lore_arena_init(&arena, 0);
    uint64_t seed = 7;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < PUSHES; i++) {
            uint64_t kind = lore_random_next(&seed) % 100;
            sizes[i] = (size_t)(lore_random_next(&seed) % (kind == 0 ? 200000 : 200));
            pushed[i] = lore_arena_push(&arena, sizes[i]);
            CHECK(pushed[i] != NULL && is_aligned(pushed[i], 16));
            memset(pushed[i], i & 0xFF, sizes[i]);
        }
        for (int i = 0; i < PUSHES; i++) {
            for (size_t at = 0; at < sizes[i]; at++) {
                CHECK_INT(pushed[i][at], i & 0xFF);
            }
        }
        lore_arena_reset(&arena);
        CHECK_INT(arena.used_bytes, 0);
    }
    lore_arena_destroy(&arena);
    lore_arena_destroy(&arena);
}

TEST(arena_honours_its_cap)
{
    lore_arena arena;
    lore_arena_init(&arena, 1000);
    CHECK(lore_arena_push(&arena, 1001) == NULL);
    CHECK(lore_arena_push(&arena, 500) != NULL);
    CHECK(lore_arena_push(&arena, 500) == NULL); /* 512 + 512 */
    CHECK(lore_arena_push(&arena, 400) != NULL);
    lore_arena_reset(&arena);
    CHECK(lore_arena_push(&arena, 900) != NULL);
    CHECK(lore_arena_push(&arena, SIZE_MAX) == NULL);
    CHECK(lore_arena_push(&arena, SIZE_MAX - 20) == NULL);
    CHECK(lore_arena_push_zero(&arena, SIZE_MAX / 2, 4) == NULL);
    lore_arena_destroy(&arena);
}

TEST(arena_zeroes_and_accepts_zeroed)
{
    lore_arena arena = {0};
    int32_t *numbers = LORE_PUSH(&arena, int32_t, 100);
    CHECK(numbers != NULL);
    memset(numbers, 0xFF, 100 * sizeof *numbers);
    lore_arena_reset(&arena);
    numbers = LORE_PUSH(&arena, int32_t, 100);
    for (int i = 0; i < 100; i++) {
        CHECK_INT(numbers[i], 0);
    }
    lore_arena_destroy(&arena);
    lore_arena untouched = {0};
    lore_arena_reset(&untouched);
    lore_arena_destroy(&untouched);
    lore_arena_destroy(NULL);
}

TEST(arena_reset_gives_memory_back)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    int64_t live = lore_mem_live();
    for (int i = 0; i < 50; i++) {
        CHECK(lore_arena_push(&arena, 50000) != NULL);
    }
    CHECK(lore_mem_live() - live > 10);
    lore_arena_reset(&arena);
    CHECK(lore_mem_live() - live <= 1);
    lore_arena_destroy(&arena);
    CHECK_INT(lore_mem_live(), live);
}

static lore_status push_some(void *self)
{
    (void)self;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    lore_status status = LORE_OK;
    for (int i = 0; i < 10; i++) {
        if (lore_arena_push(&arena, 30000) == NULL) {
            status = LORE_ERR_NOMEM;
        }
    }
    lore_arena_destroy(&arena);
    return status;
}

TEST(arena_survives_failures)
{
    check_alloc_sweep(push_some, NULL);
}

CHECK_MAIN(allocates_aligned, refuses_overflow, counts_what_lives, fails_where_told,
           arena_keeps_pushes_apart, arena_honours_its_cap, arena_zeroes_and_accepts_zeroed,
           arena_reset_gives_memory_back, arena_survives_failures)
