/* Proves the invariants of the page table: free and held pages are all pages, lists grow at their
 * end and keep what they hold, a refused reserve changes nothing; a page is shared only where scope
 * and all tokens up to its end are equal, nobody writes what is published, and of what nobody holds
 * the ends of texts make room before their beginnings. */
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

static lore_kv_stats stats_of(const lore_kv *kv)
{
    lore_kv_stats stats;
    lore_kv_get_stats(kv, &stats);
    return stats;
}

static int32_t free_of(const lore_kv *kv)
{
    return stats_of(kv).free;
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
    CHECK_INT(stats_of(kv).total, 4);
    CHECK(lore_kv_reserve(kv, 0, 5));
    CHECK_INT(owned_by(kv, 0), 2);
    CHECK(lore_kv_reserve(kv, 0, 8)); /* still two pages */
    CHECK(lore_kv_reserve(kv, 0, 1)); /* never shrinks */
    CHECK_INT(owned_by(kv, 0), 2);
    CHECK(lore_kv_reserve(kv, 1, 8));
    CHECK_INT(free_of(kv), 0);
    CHECK(!lore_kv_reserve(kv, 0, 9));
    CHECK_INT(owned_by(kv, 0), 2);
    lore_kv_drop(kv, 1);
    CHECK_INT(free_of(kv), 2);
    CHECK(!lore_kv_reserve(kv, 0, 17)); /* one page too few: takes none of the two */
    CHECK_INT(free_of(kv), 2);
    CHECK(lore_kv_reserve(kv, 0, 16));
    lore_kv_drop(kv, 0);
    lore_kv_drop(kv, 0); /* empty: fine */
    CHECK_INT(free_of(kv), 4);
    lore_kv_free(kv);
    lore_kv_free(NULL);
}

static const lore_kv_scope plain = {0};

/* Tokens of a text that differs from all others from position `fork` on. */
static void spell(int32_t *tokens, int32_t count, int32_t fork, int32_t text)
{
    for (int32_t i = 0; i < count; i++) {
        tokens[i] = i < fork ? i : 1000 * (text + 1) + i;
    }
}

/* A slot with `count` tokens computed; gives those that were there already. */
static int32_t compute(lore_kv *kv, int32_t slot, lore_kv_scope scope, const int32_t *tokens,
                       int32_t count)
{
    int32_t found = lore_kv_adopt(kv, slot, scope, tokens, count);
    CHECK(lore_kv_reserve(kv, slot, count));
    lore_kv_publish(kv, slot, tokens, count);
    return found;
}

TEST(finds_full_pages_of_equal_beginnings)
{
    lore_kv *kv = kv_of(16, 4, 4, 40);
    int32_t a[40], b[40], count = 0;
    spell(a, 40, 40, 0);
    spell(b, 40, 9, 1);
    CHECK_INT(compute(kv, 0, plain, a, 11), 0);
    CHECK_INT(compute(kv, 1, plain, b, 20), 8); /* while the first one still holds them */
    const int32_t *one = lore_kv_pages(kv, 0, &count), *two = lore_kv_pages(kv, 1, &count);
    CHECK_INT(two[1], one[1]);
    CHECK(two[2] != one[2]);
    CHECK_INT(free_of(kv), 16 - 6);
    lore_kv_drop(kv, 0);
    lore_kv_drop(kv, 1);
    CHECK_INT(free_of(kv), 16);
    CHECK_INT(stats_of(kv).cached, 5);           /* the half page of the first text says nothing */
    CHECK_INT(compute(kv, 2, plain, b, 20), 16); /* never the last token */
    CHECK_INT(compute(kv, 3, plain, b, 21), 20);
    lore_kv_drop(kv, 2);
    lore_kv_drop(kv, 3);
    CHECK_INT(compute(kv, 0, plain, a, 8), 4);
    lore_kv_drop(kv, 0);
    CHECK_INT(lore_kv_adopt(kv, 0, plain, a, 1), 0);
    CHECK_INT(lore_kv_adopt(kv, 1, (lore_kv_scope){.salt = 1}, b, 20), 0);
    CHECK_INT(lore_kv_adopt(kv, 2, (lore_kv_scope){.form = 1}, b, 20), 0);
    CHECK_INT(lore_kv_adopt(kv, 3, (lore_kv_scope){.adapter = 1}, b, 20), 0);
    lore_kv_forget(kv);
    CHECK_INT(stats_of(kv).cached, 0);
    CHECK_INT(free_of(kv), 16);
    CHECK_INT(compute(kv, 3, plain, b, 20), 0);
    CHECK_INT(stats_of(kv).evictions, 0);
    lore_kv_free(kv);
}

/* Two that compute the same at once keep a page each; one of them is found later, and what the
 * other computed behind it is found as well. */
TEST(keeps_one_of_two_equal_pages)
{
    lore_kv *kv = kv_of(8, 4, 2, 20);
    int32_t a[20];
    spell(a, 20, 20, 0);
    CHECK_INT(lore_kv_adopt(kv, 0, plain, a, 20), 0);
    CHECK_INT(lore_kv_adopt(kv, 1, plain, a, 20), 0);
    CHECK(lore_kv_reserve(kv, 0, 8));
    CHECK(lore_kv_reserve(kv, 1, 12));
    lore_kv_publish(kv, 0, a, 7);
    lore_kv_publish(kv, 1, a, 12);
    lore_kv_publish(kv, 0, a, 8);
    lore_kv_drop(kv, 1);
    CHECK_INT(stats_of(kv).cached, 2);
    lore_kv_drop(kv, 0);
    CHECK_INT(stats_of(kv).cached, 3);
    CHECK_INT(free_of(kv), 8);
    CHECK_INT(lore_kv_adopt(kv, 0, plain, a, 20), 12);
    lore_kv_free(kv);
}

TEST(gives_up_the_ends_of_the_oldest_texts_first)
{
    lore_kv *kv = kv_of(6, 4, 3, 24);
    int32_t a[24], b[24];
    spell(a, 24, 0, 0);
    spell(b, 24, 0, 1);
    compute(kv, 0, plain, a, 12);
    compute(kv, 1, plain, b, 12);
    lore_kv_drop(kv, 0);
    lore_kv_drop(kv, 1);
    CHECK(lore_kv_reserve(kv, 2, 8)); /* nothing is free: two pages of the first text go */
    CHECK_INT(stats_of(kv).evictions, 2);
    CHECK_INT(lore_kv_adopt(kv, 0, plain, a, 13), 4);
    CHECK_INT(lore_kv_adopt(kv, 1, plain, b, 13), 12);
    CHECK(!lore_kv_reserve(kv, 0, 12)); /* what is held cannot be had */
    lore_kv_drop(kv, 1);
    lore_kv_drop(kv, 0); /* the first text is the younger one now */
    lore_kv_drop(kv, 2);
    CHECK(lore_kv_reserve(kv, 2, 20)); /* two free pages, then the second text */
    CHECK_INT(stats_of(kv).evictions, 5);
    CHECK_INT(lore_kv_adopt(kv, 0, plain, a, 13), 4);
    lore_kv_free(kv);
}

/* What the table must look like, kept apart from it: what a page says is what was written there. */
typedef struct model {
    int32_t lists[SLOTS][PAGES];
    int32_t counts[SLOTS];
    int32_t texts[SLOTS], computed[SLOTS];
    uint64_t salts[SLOTS];
    int32_t said[PAGES][PAGE_TOKENS];
    uint64_t salt_of[PAGES];
} model;

static void compare(const lore_kv *kv, model *expected)
{
    int32_t holders[PAGES] = {0}, held = 0;
    for (int32_t slot = 0; slot < SLOTS; slot++) {
        int32_t count = 0, tokens[TOKENS_MAX];
        const int32_t *list = lore_kv_pages(kv, slot, &count);
        CHECK(count >= expected->counts[slot]);
        spell(tokens, TOKENS_MAX, expected->texts[slot] * 3, expected->texts[slot]);
        for (int32_t i = 0; i < count; i++) {
            CHECK(list[i] >= 0 && list[i] < PAGES);
            held += holders[list[i]]++ == 0;
            /* A page once given stays where it is. */
            CHECK(i >= expected->counts[slot] || list[i] == expected->lists[slot][i]);
            expected->lists[slot][i] = list[i];
        }
        expected->counts[slot] = count;
        for (int32_t i = 0; i < expected->computed[slot]; i++) {
            const int32_t page = list[i / PAGE_TOKENS];
            CHECK_INT(expected->said[page][i % PAGE_TOKENS], tokens[i]);
            CHECK(expected->salt_of[page] == expected->salts[slot]);
        }
    }
    CHECK_INT(held + free_of(kv), PAGES);
    CHECK(stats_of(kv).cached <= free_of(kv));
}

/* Texts 0..5 fork at three times their number; computing writes to what was not found. */
static void begin_text(lore_kv *kv, model *m, int32_t slot, uint64_t *seed, int32_t *found_tokens)
{
    int32_t tokens[TOKENS_MAX];
    const int32_t text = (int32_t)(lore_random_next(seed) % 6);
    const uint64_t salt = lore_random_next(seed) % 2;
    const int32_t most = 1 + (int32_t)(lore_random_next(seed) % TOKENS_MAX);
    spell(tokens, TOKENS_MAX, text * 3, text);
    lore_kv_drop(kv, slot);
    m->counts[slot] = 0;
    m->texts[slot] = text;
    m->salts[slot] = salt;
    m->computed[slot] = lore_kv_adopt(kv, slot, (lore_kv_scope){.salt = salt}, tokens, most);
    CHECK(m->computed[slot] < most);
    *found_tokens += m->computed[slot];
}

static void go_on(lore_kv *kv, model *m, int32_t slot, int32_t tokens_to)
{
    int32_t tokens[TOKENS_MAX], count = 0;
    spell(tokens, TOKENS_MAX, m->texts[slot] * 3, m->texts[slot]);
    const int32_t *list = lore_kv_pages(kv, slot, &count);
    for (int32_t i = m->computed[slot]; i < tokens_to; i++) {
        m->said[list[i / PAGE_TOKENS]][i % PAGE_TOKENS] = tokens[i];
        m->salt_of[list[i / PAGE_TOKENS]] = m->salts[slot];
    }
    m->computed[slot] = tokens_to > m->computed[slot] ? tokens_to : m->computed[slot];
    lore_kv_publish(kv, slot, tokens, m->computed[slot]);
}

TEST(keeps_its_invariants_under_random_use)
{
    lore_kv *kv = kv_of(PAGES, PAGE_TOKENS, SLOTS, TOKENS_MAX);
    static model expected;
    uint64_t seed = 7;
    int32_t refused = 0, found = 0;
    for (int32_t i = 0; i < 20000; i++) {
        int32_t slot = (int32_t)(lore_random_next(&seed) % SLOTS);
        if (i % 5000 == 4999) {
            for (int32_t s = 0; s < SLOTS; s++) {
                lore_kv_drop(kv, s);
                expected.counts[s] = 0;
                expected.computed[s] = 0;
            }
            lore_kv_forget(kv);
            CHECK_INT(stats_of(kv).cached, 0);
            memset(expected.said, 0, sizeof expected.said);
        } else if (lore_random_next(&seed) % 4 == 0) {
            begin_text(kv, &expected, slot, &seed, &found);
        } else {
            int32_t tokens = (int32_t)(lore_random_next(&seed) % (TOKENS_MAX + 1));
            int32_t wanted = lore_kv_pages_for(tokens, PAGE_TOKENS);
            int32_t before = owned_by(kv, slot);
            bool fits = wanted - before <= free_of(kv);
            CHECK_INT(lore_kv_reserve(kv, slot, tokens), fits);
            CHECK_INT(owned_by(kv, slot), fits && wanted > before ? wanted : before);
            refused += !fits;
            if (fits) {
                go_on(kv, &expected, slot, tokens);
            }
        }
        compare(kv, &expected);
    }
    CHECK(refused > 100);
    CHECK(found > 1000);
    CHECK(stats_of(kv).evictions > 100);
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

/* Texts one after the other, of two full pages and one that is not: with enough cached pages, those
 * of the oldest text are used again and the rest of the memory stays untouched. */
TEST(keeps_no_more_than_is_enough)
{
    enum { WHOLE = 100, ENOUGH = 6, TEXTS = 40, LENGTH = 9 };
    for (int limited = 0; limited < 2; limited++) {
        lore_kv *kv = kv_of(WHOLE, PAGE_TOKENS, 1, TOKENS_MAX);
        bool is_touched[WHOLE] = {false};
        int32_t touched = 0;
        if (limited) {
            lore_kv_limit_cached(kv, ENOUGH);
        }
        for (int32_t text = 0; text < TEXTS; text++) {
            int32_t tokens[LENGTH], count = 0;
            for (int32_t i = 0; i < LENGTH; i++) {
                tokens[i] = 100 * text + i;
            }
            CHECK_INT(lore_kv_adopt(kv, 0, (lore_kv_scope){0}, tokens, LENGTH), 0);
            CHECK(lore_kv_reserve(kv, 0, LENGTH));
            const int32_t *pages = lore_kv_pages(kv, 0, &count);
            for (int32_t i = 0; i < count; i++) {
                touched += !is_touched[pages[i]];
                is_touched[pages[i]] = true;
            }
            lore_kv_publish(kv, 0, tokens, LENGTH);
            lore_kv_drop(kv, 0);
            CHECK_INT(lore_kv_adopt(kv, 0, (lore_kv_scope){0}, tokens, LENGTH), 8); /* the last */
            lore_kv_drop(kv, 0);
        }
        CHECK(limited ? touched <= ENOUGH + 3 : touched > 2 * TEXTS);
        CHECK(stats_of(kv).cached <= (limited ? ENOUGH + 1 : WHOLE));
        lore_kv_free(kv);
    }
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

CHECK_MAIN(counts_pages_for_tokens, grows_and_drops, finds_full_pages_of_equal_beginnings,
           keeps_one_of_two_equal_pages, gives_up_the_ends_of_the_oldest_texts_first,
           keeps_its_invariants_under_random_use, keeps_no_more_than_is_enough,
           refuses_numbers_that_make_no_sense, survives_every_failing_allocation)
