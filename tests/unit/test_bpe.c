/* Merging, of few symbols and by heap, gives what merging by the definition gives (look at all
 * pairs, join the lowest rank, leftmost first, again), for random merges over random words; each
 * piece says where it starts; characters that are no token become bytes, the unknown token, or
 * nothing. */
#include "models/bpe_int.h"
#include "tests/check.h"

#include "base/clock.h"

enum { LETTERS = 4, MERGES = 60, WORD = 60 };

typedef struct world {
    lore_arena arena;
    lore_bpe bpe;
    int32_t left[MERGES], right[MERGES], merged[MERGES], merges;
} world;

/* 256 bytes, then random merges of what is there; only a, b, c, d take part. */
static void world_make(world *w, uint64_t *seed)
{
    char *bytes;
    lore_arena_init(&w->arena, 0);
    CHECK(lore_bpe_init(&w->bpe, &w->arena, 256 + MERGES, MERGES));
    bytes = lore_arena_push(&w->arena, 256);
    CHECK(bytes != NULL);
    for (int32_t i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        CHECK(lore_bpe_add_token(&w->bpe, i, (lore_str){bytes + i, 1}));
    }
    CHECK(!lore_bpe_add_token(&w->bpe, 7, (lore_str){bytes, 1}));
    lore_bpe_start(&w->bpe, true, false);
    w->merges = 0;
    int32_t ids[LETTERS + MERGES], count = 0, next = 256;
    for (int32_t i = 0; i < LETTERS; i++) {
        ids[count++] = 'a' + i;
    }
    while (w->merges < MERGES) {
        int32_t a = ids[lore_random_next(seed) % (uint64_t)count],
                b = ids[lore_random_next(seed) % (uint64_t)count];
        lore_str x = w->bpe.tokens[a], y = w->bpe.tokens[b];
        char *joined = lore_arena_push(&w->arena, x.len + y.len);
        CHECK(joined != NULL);
        memcpy(joined, x.ptr, x.len);
        memcpy(joined + x.len, y.ptr, y.len);
        int32_t merged = lore_bpe_find(&w->bpe, (lore_str){joined, x.len + y.len});
        if (x.len + y.len > 12) {
            continue;
        }
        if (merged < 0) {
            merged = next++;
            CHECK(lore_bpe_add_token(&w->bpe, merged, (lore_str){joined, x.len + y.len}));
            ids[count++] = merged;
        }
        lore_bpe_add_merge(&w->bpe, a, b, merged);
        w->left[w->merges] = a;
        w->right[w->merges] = b;
        w->merged[w->merges++] = merged;
    }
}

/* The definition. A pair listed twice has its later rank. */
static int32_t merge_slowly(const world *w, int32_t *ids, int32_t count)
{
    for (;;) {
        int32_t best = MERGES, at = -1;
        for (int32_t i = 0; i + 1 < count; i++) {
            int32_t rank = MERGES;
            for (int32_t m = 0; m < w->merges; m++) {
                if (w->left[m] == ids[i] && w->right[m] == ids[i + 1]) {
                    rank = m;
                }
            }
            if (rank < best) {
                best = rank;
                at = i;
            }
        }
        if (at < 0) {
            return count;
        }
        ids[at] = w->merged[best];
        memmove(ids + at + 1, ids + at + 2, (size_t)(count - at - 2) * sizeof *ids);
        count--;
    }
}

TEST(merging_agrees_with_the_definition)
{
    uint64_t seed = 11;
    for (int round = 0; round < 40; round++) {
        world w;
        world_make(&w, &seed);
        lore_bpe_scratch scratch = {.arena = &w.arena};
        lore_pieces pieces = {.arena = &w.arena};
        for (int k = 0; k < 50; k++) {
            char word[WORD];
            int32_t slow[WORD];
            size_t at = 0;
            int32_t size = 1 + (int32_t)(lore_random_next(&seed) % WORD);
            for (int32_t i = 0; i < size; i++) {
                word[i] = (char)('a' + lore_random_next(&seed) % LETTERS);
                slow[i] = word[i];
            }
            int32_t slow_count = merge_slowly(&w, slow, size);
            pieces.count = 0;
            CHECK(lore_bpe_word(&w.bpe, (lore_str){word, (size_t)size}, &scratch, &pieces));
            CHECK_INT(pieces.count, slow_count);
            for (int32_t i = 0; i < pieces.count; i++) {
                CHECK_INT(pieces.items[i].id, slow[i]);
                CHECK_INT(pieces.items[i].start, at);
                at += w.bpe.tokens[slow[i]].len;
            }
        }
        lore_arena_destroy(&w.arena);
    }
}

TEST(whole_words_may_win)
{
    uint64_t seed = 3;
    world w;
    world_make(&w, &seed);
    lore_bpe_scratch scratch = {.arena = &w.arena};
    lore_pieces pieces = {.arena = &w.arena};
    int32_t id = 256 + 20;
    w.bpe.ignores_merges = true;
    CHECK(w.bpe.tokens[id].ptr != NULL);
    CHECK(lore_bpe_word(&w.bpe, w.bpe.tokens[id], &scratch, &pieces));
    CHECK_INT(pieces.count, 1);
    CHECK_INT(pieces.items[0].id, id);
    w.bpe.special[id] = true; /* text never becomes one */
    pieces.count = 0;
    CHECK(lore_bpe_word(&w.bpe, w.bpe.tokens[id], &scratch, &pieces));
    CHECK(pieces.count > 1 || pieces.items[0].id == id);
    lore_arena_destroy(&w.arena);
}

/* A megabyte of one letter is merged in time that is not felt. */
TEST(long_words_are_no_trap)
{
    enum { SIZE = 1 << 20 };
    uint64_t seed = 1;
    world w;
    world_make(&w, &seed);
    lore_bpe_scratch scratch = {.arena = &w.arena};
    lore_pieces pieces = {.arena = &w.arena};
    char *word = malloc(SIZE);
    CHECK(word != NULL);
    memset(word, 'a', SIZE);
    int64_t start = lore_clock_ns();
    CHECK(lore_bpe_word(&w.bpe, (lore_str){word, SIZE}, &scratch, &pieces));
    CHECK(lore_clock_ns() - start < (int64_t)5e9);
    CHECK(pieces.count >= SIZE / 12 && pieces.count <= SIZE);
    free(word);
    lore_arena_destroy(&w.arena);
}

/* 0 <unk>, 1 a, 2 de (U+7684), 3 "ad", 4 d; 5 .. 260 <0x00> .. <0xFF>. */
static void check_ids(bool has_fallback, int32_t unk_id, bool fuses, const char *text,
                      const int32_t *wanted, int32_t wanted_count)
{
    static const char *const TEXTS[] = {"<unk>", "a", "\xe7\x9a\x84", "ad", "d"};
    lore_arena arena;
    lore_bpe bpe;
    lore_arena_init(&arena, 0);
    CHECK(lore_bpe_init(&bpe, &arena, 261, 1));
    for (int32_t i = 0; i < 261; i++) {
        lore_str token =
            i < 5 ? lore_str_from(TEXTS[i]) : lore_str_printf(&arena, "<0x%02X>", i - 5);
        CHECK(lore_bpe_add_token(&bpe, i, token));
    }
    lore_bpe_add_merge(&bpe, 1, 4, 3);
    lore_bpe_start(&bpe, false, has_fallback);
    bpe.unk_id = unk_id;
    bpe.fuses_unknown = fuses;
    lore_bpe_scratch scratch = {.arena = &arena};
    lore_pieces pieces = {.arena = &arena};
    CHECK(lore_bpe_word(&bpe, lore_str_from(text), &scratch, &pieces));
    CHECK_INT(pieces.count, wanted_count);
    for (int32_t i = 0; i < wanted_count; i++) {
        CHECK_INT(pieces.items[i].id, wanted[i]);
    }
    lore_arena_destroy(&arena);
}

TEST(characters_may_be_unknown)
{
    const char *text = "ad\u7684xyd\u00e9";
    check_ids(true, 0, true, text, (const int32_t[]){3, 2, 125, 126, 4, 5 + 0xc3, 5 + 0xa9}, 7);
    check_ids(false, 0, true, text, (const int32_t[]){3, 2, 0, 4, 0}, 5);
    check_ids(false, 0, false, text, (const int32_t[]){3, 2, 0, 0, 4, 0}, 6);
    check_ids(false, -1, true, text, (const int32_t[]){3, 2, 4}, 3);
}

CHECK_MAIN(merging_agrees_with_the_definition, whole_words_may_win, long_words_are_no_trap,
           characters_may_be_unknown)
