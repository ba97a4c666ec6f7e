/* The regular expressions of tokenizer files match what a backtracking engine matches, in the
 * places where engines differ; what is not known is refused with its place; hostile patterns and
 * texts take linear time. (Whole split patterns against hand-written code: test_pretoken.c; against
 * Oniguruma: tests/long/tokenizer_agreement_long.c.) Covers regex_parse.c and regex_compile.c too.
 */
#include "models/regex_int.h"
#include "tests/check.h"

#include <time.h>

/* All matches, joined with '|'. */
static void matches(const char *pattern, const char *text, const char *wanted)
{
    lore_arena arena;
    lore_error err = {0};
    lore_buf joined;
    const lore_regex *regex = NULL;
    size_t start = 0, end = 0, from = 0;
    lore_str s = lore_str_from(text);
    lore_arena_init(&arena, 0);
    lore_buf_init(&joined, 0);
    CHECK_OK(lore_regex_compile(lore_str_from(pattern), &arena, &regex, &err), &err);
    lore_regex_search search = {.regex = regex, .arena = &arena};
    CHECK(lore_regex_begin(&search, s) == LORE_OK);
    while (from <= s.len) {
        CHECK(lore_regex_find(&search, from, &start, &end) == LORE_OK);
        if (start == SIZE_MAX) {
            break;
        }
        CHECK(start >= from && end >= start && end <= s.len);
        if (joined.len > 0) {
            lore_buf_byte(&joined, '|');
        }
        lore_buf_append(&joined, lore_str_slice(s, start, end));
        from = end > start ? end : end + 1;
    }
    CHECK_STR(lore_buf_str(&joined), wanted);
    lore_buf_destroy(&joined);
    lore_arena_destroy(&arena);
}

TEST(what_matches)
{
    matches("a|ab", "abab", "a|a"); /* the first alternative, not the longest */
    matches("(?:ab)+", "ababa", "abab");
    matches("a+?b?", "aab", "a|ab");
    matches("a{2,3}", "aaaaa", "aaa|aa");
    matches("a{2}b", "aaab", "aab");
    matches("[^a-c\\n]+", "abxy\ncz", "xy|z");
    matches("[\\s\\-x]+", "a- xb", "- x");
    matches("\\w+", "ab_1\u00e9 \u2461-", "ab_1\u00e9"); /* a circled digit is no letter */
    matches("\\p{Lu}\\p{^Lu}*", "aBcD", "Bc|D");
    matches("[\\p{L}\\p{M}]+|\\P{L}", "e\u0301!", "e\u0301|!");
    matches("(?i:'s|K)", "'S'\u017fk\u212a", "'S|'\u017f|k|\u212a");
    matches("\\s+(?!\\S)|\\s+", "a   b  ", "  | |  ");
    matches("\\d+(?=,)", "12,34", "12");
    matches("^a|b$", "ab\nab", "a|b|a|b"); /* lines, as in Ruby */
    matches("\\Aa|b\\z", "ab\nab", "a|b");
    matches("a++b|a", "aab", "aab");
    matches("x?+x", "xx", "xx");
    matches("\\x{4e00}|\\u4e01|\\x41", "\u4e00\u4e01A", "\u4e00|\u4e01|A");
    matches("a.c", "abc a\nc", "abc");
    matches("[]a]+", "]a", "]a");
    matches("\xe4\xb8\xad+", "\xe4\xb8\xad\xe4\xb8\xad\xff", "\xe4\xb8\xad\xe4\xb8\xad");
}

static void refuse(const char *pattern, lore_status status, const char *message)
{
    lore_arena arena;
    lore_error err = {0};
    const lore_regex *regex = NULL;
    lore_arena_init(&arena, 0);
    CHECK_FAILS(lore_regex_compile(lore_str_from(pattern), &arena, &regex, &err), status, &err,
                message);
    lore_arena_destroy(&arena);
}

TEST(what_is_refused)
{
    const lore_status no = LORE_ERR_UNSUPPORTED;
    refuse("(?<=a)b", no, "kind of group");
    refuse("(?!ab)", no, "looking ahead");
    refuse("(a", no, "without end");
    refuse("a)", no, "nothing opened");
    refuse("[a", no, "without end");
    refuse("[z-a]", no, "range");
    refuse("[a[b]]", no, "set in a set");
    refuse("[a&&b]", no, "set in a set");
    refuse("\\p{Han}", no, "name");
    refuse("\\b", no, "escape");
    refuse("\\1", no, "escape");
    refuse("a\\", no, "backslash");
    refuse("(?:a*)*", no, "may be empty");
    refuse("(?:ab)++", no, "possessive");
    refuse("a{5,2}", no, "count");
    refuse("a{1001}", no, "count");
    refuse("(?i:\u00e9)", no, "case");
    refuse("(?:(?:a{1000}b){1000}c){1000}", LORE_ERR_LIMIT, "steps");
    char deep[200];
    memset(deep, '(', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    refuse(deep, no, "nesting");
    char *large = malloc(8192);
    CHECK(large != NULL);
    memset(large, 'a', 8191);
    large[8191] = '\0';
    refuse(large, LORE_ERR_LIMIT, "bytes");
    free(large);
}

/* Each of these is quadratic or worse for an engine that only goes back. */
TEST(hostile_text_takes_no_time)
{
    static const struct {
        const char *pattern, *unit;
    } CASES[] = {{"\\s+$", " "},     {"(?:a|aa)+b", "a"},    {"a*a*a*c", "a"},
                 {"a++b|a++c", "a"}, {"\\s*[\\r\\n]+", " "}, {"(?:a+b?)+c", "a"}};
    enum { SIZE = 200000 };
    char *text = malloc(SIZE);
    CHECK(text != NULL);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        lore_arena arena;
        lore_error err = {0};
        const lore_regex *regex = NULL;
        size_t start = 0, end = 0;
        memset(text, CASES[i].unit[0], SIZE);
        text[SIZE - 1] = '.';
        lore_arena_init(&arena, 0);
        CHECK_OK(lore_regex_compile(lore_str_from(CASES[i].pattern), &arena, &regex, &err), &err);
        lore_regex_search search = {.regex = regex, .arena = &arena};
        clock_t began = clock(); /* processor time: the machine may be busy with others */
        CHECK(lore_regex_begin(&search, (lore_str){text, SIZE}) == LORE_OK);
        CHECK(lore_regex_find(&search, 0, &start, &end) == LORE_OK);
        CHECK(start == SIZE_MAX);
        CHECK(clock() - began < 3 * CLOCKS_PER_SEC);
        lore_arena_destroy(&arena);
    }
    free(text);
}

/* What is too much is refused with the pattern, whether it comes in one text or in many; neither
 * takes a second or more memory than some dozen bytes a byte. */
TEST(hostile_patterns_are_stopped)
{
    static const char *const PATTERNS[] = {
        "a{0,1000}a{0,1000}b",
        "(?:a|a|a|a|a|a|a|a){150}c",
        "(?:a{10}|a{11}){20}a{9}b",
        "(?:[ab]{1,40}b?){40}c",
        "(?:a+b?)+c",
        "(?:a|b|(?:a*b)+)+d",
        "a{1000}b",
        "(?:[^b]{1,900}){1,2}c",
        "\\w+?\\w+?\\w+?\\w+?c",
    };
    enum { SIZE = 1 << 20, PIECE = 64 };
    char *text = malloc(SIZE);
    CHECK(text != NULL);
    memset(text, 'a', SIZE);
    for (size_t i = 0; i < 2 * sizeof PATTERNS / sizeof PATTERNS[0]; i++) {
        lore_str pattern = lore_str_from(PATTERNS[i / 2]);
        size_t start = 0, end = 0, piece = i % 2 == 0 ? SIZE : PIECE;
        lore_arena arena;
        lore_error err = {0};
        const lore_regex *regex = NULL;
        lore_arena_init(&arena, 0);
        CHECK_OK(lore_regex_compile(pattern, &arena, &regex, &err), &err);
        lore_regex_search search = {.regex = regex, .arena = &arena};
        lore_status status = LORE_OK;
        clock_t began = clock();
        for (size_t at = 0; at < SIZE && status == LORE_OK; at += piece) {
            CHECK(lore_regex_begin(&search, (lore_str){text + at, piece}) == LORE_OK);
            status = lore_regex_find(&search, 0, &start, &end);
            CHECK(status != LORE_OK || start == SIZE_MAX);
        }
        int64_t took_ms = (int64_t)(clock() - began) * 1000 / CLOCKS_PER_SEC;
        if (took_ms > 1000) {
            fprintf(stderr, "%s: %lld ms\n", PATTERNS[i / 2], (long long)took_ms);
        }
        CHECK(took_ms < 3000); /* sanitizers */
        CHECK(arena.used_bytes < 64 * SIZE);
        if (status != LORE_OK) {
            CHECK_FAILS(lore_regex_explain(regex, status, &err), LORE_ERR_LIMIT, &err,
                        PATTERNS[i / 2]);
        } else {
            CHECK(i > 1); /* the first one is too much for certain */
        }
        lore_arena_destroy(&arena);
    }
    free(text);
}

CHECK_MAIN(hostile_patterns_are_stopped, what_matches, what_is_refused, hostile_text_takes_no_time)
