/* A charsmap finds the shortest and the longest key, and one with anything out of place is refused
 * with its reason. */
#include "models/charsmap_int.h"
#include "tests/check.h"
#include "tests/unit/charsmap_fixture.h"

static lore_arena arena;
static charsmap_fixture f;
static const char *const PAIRS[] = {"A",  "a", "e\xcc\x81", "\xc3\xa9", "\xc2\xbd", "1/2",
                                    "\t", " ", "AB",        "",         NULL};

TEST(finds_keys)
{
    lore_error err;
    lore_charsmap map;
    lore_str replacement;
    lore_arena_init(&arena, 0);
    fixture_make(&f, PAIRS);
    CHECK_OK(lore_charsmap_open(&map, fixture_blob(&f), &arena, &err), &err);
    CHECK_INT((int)lore_charsmap_match(&map, LORE_STR("ABC"), false, &replacement), 1);
    CHECK_STR(replacement, "a");
    CHECK_INT((int)lore_charsmap_match(&map, LORE_STR("ABC"), true, &replacement), 2);
    CHECK_STR(replacement, "");
    CHECK_INT((int)lore_charsmap_match(&map, LORE_STR("e\xcc\x81\xcc\x81"), true, &replacement), 3);
    CHECK_STR(replacement, "\xc3\xa9");
    CHECK_INT((int)lore_charsmap_match(&map, LORE_STR("e\xcc"), true, &replacement), 0);
    CHECK_INT((int)lore_charsmap_match(&map, LORE_STR("\xff"), true, &replacement), 0);
    CHECK_INT((int)lore_charsmap_match(&map, LORE_STR(""), true, &replacement), 0);
    CHECK_INT((int)lore_charsmap_match(&map, (lore_str){"\0A", 2}, true, &replacement), 0);
    CHECK_INT(map.ascii['A'],
              LORE_CHARSMAP_IS_KEY | LORE_CHARSMAP_BEGINS | LORE_CHARSMAP_BEGINS_ASCII);
    CHECK_INT(map.ascii['e'], LORE_CHARSMAP_BEGINS);
    CHECK_INT(map.ascii['b'], 0);
    lore_arena_destroy(&arena);
}

static void refused(lore_str blob, const char *why)
{
    lore_error err;
    lore_charsmap map;
    lore_arena_init(&arena, 0);
    CHECK_FAILS(lore_charsmap_open(&map, blob, &arena, &err), LORE_ERR_CORRUPT, &err, why);
    lore_arena_destroy(&arena);
}

TEST(bad_blobs_are_refused)
{
    fixture_make(&f, PAIRS);
    refused(LORE_STR(""), "trie has 0 bytes");
    refused(LORE_STR("\4\0\0"), "trie has 0 bytes");
    refused((lore_str){"\0\0\0\0abc", 7}, "trie has 0 bytes");
    refused((lore_str){"\xff\xff\xff\xff\0\0\0\0", 8}, "4294967295 bytes");
    refused((lore_str){f.blob, 1000}, "trie has");
    refused((lore_str){f.blob, f.size - 8}, "begins at"); /* the last replacements are cut off */
    size_t key = 256 ^ 'A', base = key ^ (fixture_get(&f, key) >> 10);
    uint32_t value = fixture_get(&f, base), unit = fixture_get(&f, key);
    fixture_set(&f, base, 0x7FFFFFFF);
    refused(fixture_blob(&f), "begins at 2147483647");
    fixture_set(&f, base, value + 3); /* the second byte of U+00E9 */
    refused(fixture_blob(&f), "inside a character");
    fixture_set(&f, base, value);
    fixture_set(&f, key, unit | 512 | 0x1FFFFFU << 10);
    refused(fixture_blob(&f), "behind its");
    fixture_set(&f, key, (uint32_t)(key ^ 256) << 10 | 'A'); /* its children are the root's */
    refused(fixture_blob(&f), "cycle");
    fixture_set(&f, key, unit);
    f.blob[f.size - 2] = (char)0xFF;
    refused(fixture_blob(&f), "not UTF-8");
}

TEST(memory_runs_out)
{
    lore_error err;
    lore_status status = LORE_ERR_NOMEM;
    fixture_make(&f, PAIRS);
    for (int64_t n = 1; status != LORE_OK; n++) {
        lore_charsmap map;
        lore_arena_init(&arena, 0);
        lore_mem_fail_at(n, true);
        status = lore_charsmap_open(&map, fixture_blob(&f), &arena, &err);
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_OK || status == LORE_ERR_NOMEM);
        lore_arena_destroy(&arena);
    }
}

CHECK_MAIN(finds_keys, bad_blobs_are_refused, memory_runs_out)
