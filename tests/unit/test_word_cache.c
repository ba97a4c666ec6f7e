/* A word is found again with its tokens and never taken for another; long words and many tokens are
 * not kept. */
#include "models/word_cache_int.h"
#include "tests/check.h"

#include "base/clock.h"

TEST(words_come_back)
{
    lore_arena arena;
    lore_word_cache cache;
    uint64_t seed = 9;
    int32_t hits = 0;
    lore_arena_init(&arena, 0);
    CHECK(lore_word_cache_init(&cache, &arena, 5000));
    lore_pieces pieces = {.arena = &arena};
    for (int round = 0; round < 20000; round++) {
        char word[LORE_WORD_CACHE_BYTES];
        /* Few words, some of them NULs: a word of two is not one of one. */
        size_t size = 1 + lore_random_next(&seed) % 3;
        for (size_t i = 0; i < size; i++) {
            word[i] = (char)(lore_random_next(&seed) % 4);
        }
        int32_t expected = (int32_t)size;
        for (size_t i = 0; i < size; i++) {
            expected = expected * 4 + word[i];
        }
        lore_str s = {word, size};
        lore_word_entry *entry = lore_word_cache_find(&cache, s);
        CHECK(entry != NULL);
        if (entry->size > 0) {
            CHECK_INT(entry->count, 2);
            CHECK_INT(entry->ids[0], expected);
            CHECK_INT(entry->ids[1], -expected);
            CHECK_INT(entry->starts[1], 1);
            hits++;
            continue;
        }
        pieces.count = 0;
        CHECK(lore_pieces_push(&pieces, expected, 0) && lore_pieces_push(&pieces, -expected, 1));
        lore_word_cache_put(entry, s, &pieces);
    }
    if (hits < 12000) {
        CHECK_STOP("%d hits", hits);
    }
    lore_arena_destroy(&arena);
}

TEST(what_does_not_fit)
{
    lore_arena arena;
    lore_word_cache cache;
    char word[LORE_WORD_CACHE_BYTES + 1] = {0};
    lore_arena_init(&arena, 0);
    CHECK(lore_word_cache_init(&cache, &arena, 0));
    lore_pieces pieces = {.arena = &arena};
    CHECK(lore_word_cache_find(&cache, (lore_str){word, sizeof word}) == NULL);
    lore_str fits = {word, sizeof word - 1};
    for (int i = 0; i <= LORE_WORD_CACHE_TOKENS; i++) {
        CHECK(lore_pieces_push(&pieces, i, 0));
    }
    lore_word_cache_put(lore_word_cache_find(&cache, fits), fits, &pieces);
    CHECK_INT(lore_word_cache_find(&cache, fits)->size, 0);
    pieces.count = LORE_WORD_CACHE_TOKENS;
    lore_word_cache_put(lore_word_cache_find(&cache, fits), fits, &pieces);
    CHECK_INT(lore_word_cache_find(&cache, fits)->count, LORE_WORD_CACHE_TOKENS);
    lore_arena_destroy(&arena);
}

CHECK_MAIN(words_come_back, what_does_not_fit)
