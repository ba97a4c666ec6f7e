/* A trie finds its keys and nothing else, whatever the keys, and its size and time stay within
 * bounds for keys that are made to waste units. */
#include "models/trie_int.h"
#include "tests/check.h"

#include "base/clock.h"

enum { KEYS = 3000, LENGTH_MAX = 12 };

static lore_arena arena;

static lore_trie_key random_key(uint64_t *seed, int32_t letters)
{
    size_t len = 1 + lore_random_next(seed) % LENGTH_MAX;
    char *text = lore_arena_push(&arena, len);
    CHECK(text != NULL);
    for (size_t i = 0; i < len; i++) {
        text[i] = (char)(lore_random_next(seed) % (uint64_t)letters);
    }
    return (lore_trie_key){{text, len}, (int32_t)(lore_random_next(seed) % 1000)};
}

/* The largest value of a text, or -1. */
static int32_t find_slowly(const lore_trie_key *keys, size_t count, lore_str text)
{
    int32_t value = -1;
    for (size_t i = 0; i < count; i++) {
        if (lore_str_equal(keys[i].text, text) && keys[i].value > value) {
            value = keys[i].value;
        }
    }
    return value;
}

TEST(finds_what_was_put)
{
    static lore_trie_key keys[KEYS], sorted[KEYS];
    for (int32_t letters = 2; letters <= 256; letters += 127) {
        uint64_t seed = (uint64_t)letters;
        lore_error err;
        lore_trie trie;
        lore_arena_init(&arena, 0);
        for (size_t i = 0; i < KEYS; i++) {
            sorted[i] = keys[i] = random_key(&seed, letters);
        }
        size_t count = lore_trie_sort(sorted, KEYS);
        CHECK_OK(lore_trie_build(&trie, &arena, sorted, count, &err), &err);
        CHECK(trie.count % 256 == 0);
        for (size_t i = 0; i < 300; i++) {
            lore_str known = keys[i].text, other = random_key(&seed, letters).text;
            CHECK_INT(lore_trie_find(&trie, known), find_slowly(keys, KEYS, known));
            CHECK_INT(lore_trie_find(&trie, other), find_slowly(keys, KEYS, other));
        }
        lore_arena_destroy(&arena);
    }
}

TEST(empty_and_prefixes)
{
    lore_error err;
    lore_trie trie;
    lore_trie_key keys[] = {{LORE_STR("ab"), 1}, {LORE_STR("abc"), 2}, {LORE_STR("ab"), 3}};
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_trie_build(&trie, &arena, keys, 0, &err), &err);
    CHECK_INT(lore_trie_find(&trie, LORE_STR("a")), -1);
    CHECK_INT(lore_trie_find(&trie, LORE_STR("")), -1);
    CHECK_INT((int)lore_trie_sort(keys, 3), 2);
    CHECK_OK(lore_trie_build(&trie, &arena, keys, 2, &err), &err);
    CHECK_INT(lore_trie_find(&trie, LORE_STR("a")), -1);
    CHECK_INT(lore_trie_find(&trie, LORE_STR("ab")), 3);
    CHECK_INT(lore_trie_find(&trie, LORE_STR("abc")), 2);
    CHECK_INT(lore_trie_find(&trie, LORE_STR("abcd")), -1);
    lore_arena_destroy(&arena);
}

/* Pairs of labels that differ in one bit, a different one in each block, next to single labels:
 * blocks stay half empty. */
TEST(wasteful_keys_are_bounded)
{
    enum { WASTEFUL = 200000 };
    lore_error err;
    lore_trie trie;
    lore_arena_init(&arena, 0);
    lore_trie_key *keys = lore_arena_push(&arena, WASTEFUL * sizeof *keys);
    char *text = lore_arena_push(&arena, WASTEFUL * 4);
    CHECK(keys != NULL && text != NULL);
    for (int32_t i = 0; i < WASTEFUL; i++) {
        int32_t node = i / 2;
        text[4 * i] = (char)(node >> 10);
        text[4 * i + 1] = (char)(node >> 2);
        text[4 * i + 2] = (char)(node & 3);
        text[4 * i + 3] = (char)(i % 2 == 0 ? 0 : 1 << (node % 8));
        keys[i] = (lore_trie_key){{text + 4 * i, 4}, i};
    }
    int64_t start_ns = lore_clock_ns();
    size_t count = lore_trie_sort(keys, WASTEFUL);
    lore_status status = lore_trie_build(&trie, &arena, keys, count, &err);
    CHECK(status == LORE_OK || status == LORE_ERR_LIMIT);
    CHECK(lore_clock_ns() - start_ns < INT64_C(5000000000));
    lore_arena_destroy(&arena);
}

TEST(memory_runs_out)
{
    lore_error err;
    int64_t n = 1;
    lore_status status = LORE_ERR_NOMEM;
    for (; status != LORE_OK; n++) {
        uint64_t seed = 7;
        lore_trie trie;
        lore_trie_key keys[200];
        lore_arena_init(&arena, 0);
        for (size_t i = 0; i < 200; i++) {
            keys[i] = random_key(&seed, 256);
        }
        size_t count = lore_trie_sort(keys, 200);
        lore_mem_fail_at(n, true);
        status = lore_trie_build(&trie, &arena, keys, count, &err);
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_OK || status == LORE_ERR_NOMEM);
        lore_arena_destroy(&arena);
    }
    CHECK(n > 4);
}

CHECK_MAIN(finds_what_was_put, empty_and_prefixes, wasteful_keys_are_bounded, memory_runs_out)
