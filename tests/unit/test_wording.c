/* Words of answers: SQuAD's exact match and F1, ROUGE-L, and whether an answer is held. */
#include "tests/check.h"

#include "eval/wording.h"

static lore_arena arena;

static lore_wording compare(const char *text, const char *first, const char *second)
{
    lore_error err = {0};
    lore_wording wording;
    const lore_str expected[] = {lore_str_from(first), lore_str_from(second)};
    CHECK_OK(lore_wording_compare(lore_str_from(text), expected, second != NULL ? 2 : 1, &arena,
                                  &wording, &err),
             &err);
    return wording;
}

/* Case, punctuation and articles do not count; the order of words does. */
TEST(english)
{
    lore_wording w = compare("The Eiffel Tower!", "eiffel tower", NULL);
    CHECK_NEAR(w.exact, 1.0, 0);
    CHECK_NEAR(w.f1, 1.0, 0);
    CHECK_NEAR(w.rouge_l, 1.0, 0);
    CHECK(w.is_held);
    w = compare("tower eiffel", "eiffel tower", NULL);
    CHECK_NEAR(w.exact, 0.0, 0);
    CHECK_NEAR(w.f1, 1.0, 0);
    CHECK_NEAR(w.rouge_l, 0.5, 0);
    CHECK(!w.is_held);
    /* two of four words given, two of three wanted: P 1/2, R 2/3 */
    w = compare("it opens at eight", "opens at nine", NULL);
    CHECK_NEAR(w.f1, 2.0 * .5 * (2.0 / 3.0) / (.5 + 2.0 / 3.0), 1e-15);
    CHECK_NEAR(w.rouge_l, w.f1, 0);
    lore_arena_destroy(&arena);
}

/* Chinese counts by characters, each once, not by the pairs that the index adds. */
TEST(chinese)
{
    lore_wording w = compare("北京市。", "北京", NULL);
    CHECK_NEAR(w.f1, 2.0 * (2.0 / 3.0) / (2.0 / 3.0 + 1.0), 1e-15);
    CHECK(w.is_held);
    CHECK_NEAR(w.exact, 0.0, 0);
    lore_arena_destroy(&arena);
}

/* Repeated words count as often as in the text that has fewer; the best answer counts. */
TEST(counts_and_alternatives)
{
    lore_wording w = compare("ding ding ding", "ding dong", "ding ding");
    CHECK_NEAR(w.f1, .8, 1e-15); /* P 2/3, R 1 with the second */
    CHECK(w.is_held);
    w = compare("", "ding", NULL);
    CHECK_NEAR(w.f1 + w.rouge_l + w.exact, 0.0, 0);
    w = compare("?!", "...", NULL); /* no words at all: nothing is right */
    CHECK(!w.is_held);
    CHECK_NEAR(w.f1 + w.exact, 0.0, 0);
    lore_arena_destroy(&arena);
}

/* Markers of citations go, other brackets stay. */
TEST(markers)
{
    const struct {
        const char *text, *expected;
    } cases[] = {{"Yes. [1] No. [12]", "Yes.  No. "},
                 {"x[13] y[0]", "x[13] y[0]"},
                 {"[a] [1", "[a] [1"},
                 {"", ""},
                 {"[1][2]", ""},
                 {"[-1]", "[-1]"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lore_str out = lore_wording_unmarked(lore_str_from(cases[i].text), 12, &arena);
        CHECK(lore_str_equal(out, lore_str_from(cases[i].expected)));
    }
    lore_arena_destroy(&arena);
}

/* Every failing allocation is an error, and nothing leaks. */
TEST(out_of_memory)
{
    const lore_str expected = LORE_STR("the heron eats frogs");
    for (int64_t n = 1;; n++) {
        lore_error err = {0};
        lore_wording wording;
        lore_mem_fail_at(n, true);
        lore_status status =
            lore_wording_compare(LORE_STR("A heron eats."), &expected, 1, &arena, &wording, &err);
        lore_mem_fail_at(0, false);
        lore_arena_destroy(&arena);
        if (status == LORE_OK) {
            CHECK(n > 1);
            break;
        }
        CHECK_INT(status, LORE_ERR_NOMEM);
    }
}

CHECK_MAIN(english, chinese, counts_and_alternatives, markers, out_of_memory)
