/* Proves the invariants of the page table: a page has one owner at most, free and owned pages are
 * all pages, lists grow at their end and keep what they hold, a refused reserve changes nothing. */
#include "tests/check.h"

#include "base/clock.h"
#include "generation/kv.h"

enum { PAGES = 23, PAGE_TOKENS = 4, SLOTS = 5, TOKENS_MAX = 60 };

static lore_kv *kv_of(int32_t pages, int32_t page_tokens, int32_t slots, int32_t tokens_max)
{
    lore_error err;
    lore_kv *kv = NULL;
    CHECK_OK(lore_kv_new(pages, page_tokens, slots, tokens_max, &kv, &err), &err);
    return kv;
}

static int32_t owned_by(const lore_kv *kv, int32_t slot)
{
    int32_t count = 0;
    (void)lore_kv_pages(kv, slot, &count);
    return count;
}

TEST(counts_pages_for_tokens)
{
    CHECK_INT(lore_kv_pages_for(0, 4), 0);
    CHECK_INT(lore_kv_pages_for(1, 4), 1);
    CHECK_INT(lore_kv_pages_for(4, 4), 1);
    CHECK_INT(lore_kv_pages_for(5, 4), 2);
    CHECK_INT(lore_kv_pages_for(INT32_MAX, 1), INT32_MAX);
    CHECK_INT(lore_kv_pages_for(INT32_MAX, INT32_MAX), 1);
}

TEST(grows_and_drops)
{
    lore_kv *kv = kv_of(4, 4, 2, 100);
    CHECK_INT(lore_kv_total(kv), 4);
    CHECK(lore_kv_reserve(kv, 0, 5));
    CHECK_INT(owned_by(kv, 0), 2);
    CHECK(lore_kv_reserve(kv, 0, 8)); /* still two pages */
    CHECK(lore_kv_reserve(kv, 0, 1)); /* never shrinks */
    CHECK_INT(owned_by(kv, 0), 2);
    CHECK(lore_kv_reserve(kv, 1, 8));
    CHECK_INT(lore_kv_free_count(kv), 0);
    CHECK(!lore_kv_reserve(kv, 0, 9));
    CHECK_INT(owned_by(kv, 0), 2);
    lore_kv_drop(kv, 1);
    CHECK_INT(lore_kv_free_count(kv), 2);
    CHECK(!lore_kv_reserve(kv, 0, 17)); /* one page too few: takes none of the two */
    CHECK_INT(lore_kv_free_count(kv), 2);
    CHECK(lore_kv_reserve(kv, 0, 16));
    lore_kv_drop(kv, 0);
    lore_kv_drop(kv, 0); /* empty: fine */
    CHECK_INT(lore_kv_free_count(kv), 4);
    lore_kv_free(kv);
    lore_kv_free(NULL);
}

/* What the table must look like, kept apart from it. */
typedef struct model {
    int32_t lists[SLOTS][PAGES];
    int32_t counts[SLOTS];
} model;

static void compare(const lore_kv *kv, model *expected)
{
    bool seen[PAGES] = {false};
    int32_t owned = 0;
    for (int32_t slot = 0; slot < SLOTS; slot++) {
        int32_t count = 0;
        const int32_t *list = lore_kv_pages(kv, slot, &count);
        CHECK(count >= expected->counts[slot]);
        for (int32_t i = 0; i < count; i++) {
            CHECK(list[i] >= 0 && list[i] < PAGES);
            CHECK(!seen[list[i]]);
            seen[list[i]] = true;
            /* A page once given stays where it is. */
            CHECK(i >= expected->counts[slot] || list[i] == expected->lists[slot][i]);
            expected->lists[slot][i] = list[i];
        }
        expected->counts[slot] = count;
        owned += count;
    }
    CHECK_INT(owned + lore_kv_free_count(kv), PAGES);
}

TEST(keeps_its_invariants_under_random_use)
{
    lore_kv *kv = kv_of(PAGES, PAGE_TOKENS, SLOTS, TOKENS_MAX);
    model expected = {0};
    uint64_t seed = 7;
    int32_t refused = 0;
    for (int32_t i = 0; i < 20000; i++) {
        int32_t slot = (int32_t)(lore_random_next(&seed) % SLOTS);
        if (lore_random_next(&seed) % 4 == 0) {
            lore_kv_drop(kv, slot);
            expected.counts[slot] = 0;
        } else {
            int32_t tokens = (int32_t)(lore_random_next(&seed) % (TOKENS_MAX + 1));
            int32_t wanted = lore_kv_pages_for(tokens, PAGE_TOKENS);
            int32_t before = owned_by(kv, slot);
            bool fits = wanted - before <= lore_kv_free_count(kv);
            CHECK_INT(lore_kv_reserve(kv, slot, tokens), fits);
            CHECK_INT(owned_by(kv, slot), fits && wanted > before ? wanted : before);
            refused += !fits;
        }
        compare(kv, &expected);
    }
    CHECK(refused > 100);
    lore_kv_free(kv);
}

TEST(refuses_numbers_that_make_no_sense)
{
    lore_error err;
    lore_kv *kv = NULL;
    CHECK_FAILS(lore_kv_new(0, 4, 1, 8, &kv, &err), LORE_ERR_INVALID, &err, "0 pages");
    CHECK_FAILS(lore_kv_new(4, 0, 1, 8, &kv, &err), LORE_ERR_INVALID, &err, "0 tokens");
    CHECK_FAILS(lore_kv_new(4, 4, -1, 8, &kv, &err), LORE_ERR_INVALID, &err, "-1 sequences");
    CHECK_FAILS(lore_kv_new(4, 4, 1, 0, &kv, &err), LORE_ERR_INVALID, &err, "");
}

static lore_status make_and_free(void *self)
{
    (void)self;
    lore_kv *kv = NULL;
    lore_error err;
    lore_status status = lore_kv_new(PAGES, PAGE_TOKENS, SLOTS, TOKENS_MAX, &kv, &err);
    lore_kv_free(kv);
    return status;
}

TEST(survives_every_failing_allocation)
{
    check_alloc_sweep(make_and_free, NULL);
}

CHECK_MAIN(counts_pages_for_tokens, grows_and_drops, keeps_its_invariants_under_random_use,
           refuses_numbers_that_make_no_sense, survives_every_failing_allocation)
