/* The hand-written split patterns cut as their regular expressions do, at the places where a
 * regular expression engine backtracks, and never lose or double a byte. (Ids of whole texts:
 * test_tokenizer.c.) */
#include "models/pretoken_int.h"
#include "tests/check.h"

#include "base/clock.h"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3                                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN2                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* The pieces of text, joined with '|'. */
static void cut_by(const lore_pretoken *step, const char *text, const char *wanted)
{
    char joined[256];
    size_t used = 0, start = 0, end = 0;
    lore_str s = lore_str_from(text);
    lore_arena arena;
    lore_pretoken_walk walk;
    lore_arena_init(&arena, 0);
    lore_pretoken_init(&walk, step, &arena);
    lore_pretoken_begin(&walk, s);
    while (lore_pretoken_next(&walk, &start, &end)) {
        CHECK(end > start && end <= s.len && used + (end - start) + 1 < sizeof joined);
        memcpy(joined + used, s.ptr + start, end - start);
        used += end - start;
        joined[used++] = '|';
    }
    CHECK(walk.failed == LORE_OK);
    lore_arena_destroy(&arena);
    CHECK_STR(((lore_str){joined, used > 0 ? used - 1 : 0}), wanted);
}

static void cut(lore_pretoken_kind kind, const char *text, const char *wanted)
{
    cut_by(&(lore_pretoken){.kind = kind}, text, wanted);
}

TEST(patterns_are_recognised)
{
    lore_pretoken_kind pattern = LORE_PRETOKEN_GPT2;
    CHECK(lore_pretoken_of(LORE_STR(QWEN2), &pattern));
    CHECK_INT(pattern, LORE_PRETOKEN_QWEN2);
    CHECK(lore_pretoken_of(
        LORE_STR(
            "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"),
        &pattern));
    CHECK_INT(pattern, LORE_PRETOKEN_GPT2);
    CHECK(!lore_pretoken_of(LORE_STR("\\p{L}+"), &pattern));
    CHECK(!lore_pretoken_of(LORE_STR(""), &pattern));
}

TEST(words_and_contractions)
{
    cut(LORE_PRETOKEN_QWEN2, "It's DON'T 'abc", "It|'s| DON|'T| '|abc");
    cut(LORE_PRETOKEN_GPT2, "It's DON'T 'abc", "It|'s| DON|'|T| '|abc");
    cut(LORE_PRETOKEN_QWEN2, "x'\u017ft", "x|'\u017f|t");
    cut(LORE_PRETOKEN_QWEN2, "'LLx'rE", "'LL|x|'rE");
    cut(LORE_PRETOKEN_QWEN2, "(abc) ((abc", "(abc|)| ((|abc");
    cut(LORE_PRETOKEN_QWEN2, "a\u0301b 你好。", "a|\u0301b| 你好|。");
}

TEST(numbers)
{
    cut(LORE_PRETOKEN_QWEN2, "a1234", "a|1|2|3|4");
    cut(LORE_PRETOKEN_LLAMA3, "a1234 5", "a|123|4| |5");
    cut(LORE_PRETOKEN_GPT2, "a1234 5\u00bd", "a|1234| 5\u00bd");
}

TEST(white_space)
{
    cut(LORE_PRETOKEN_QWEN2, "a  b", "a| | b");
    cut(LORE_PRETOKEN_QWEN2, "a   ", "a|   ");
    cut(LORE_PRETOKEN_QWEN2, "a \n  \n  b", "a| \n  \n| | b");
    cut(LORE_PRETOKEN_QWEN2, "a!\r\n\nb", "a|!\r\n\n|b");
    cut(LORE_PRETOKEN_QWEN2, "a\t\tb", "a|\t|\tb");
    cut(LORE_PRETOKEN_GPT2, "a\t\tb", "a|\t|\t|b");
    cut(LORE_PRETOKEN_GPT2, "a \n b", "a| \n| b");
    cut(LORE_PRETOKEN_QWEN2, "a\u3000\u00a0b", "a|\u3000|\u00a0b");
    cut(LORE_PRETOKEN_QWEN2, "a  !", "a| | !");
}

/* Behaviours as `tokenizers` has them. */
TEST(what_becomes_of_matches)
{
    static const struct {
        lore_pretoken_behavior behavior;
        const char *wanted, *inverted;
    } CASES[] = {{LORE_PRETOKEN_ISOLATED, "-|-|a|-|b|-|-", "-|-|a|-|b|-|-"},
                 {LORE_PRETOKEN_REMOVED, "a|b", "-|-|-|-|-"},
                 {LORE_PRETOKEN_MERGED_PREVIOUS, "-|-|a-|b-|-", "-|-a|-b|-|-"},
                 {LORE_PRETOKEN_MERGED_NEXT, "-|-a|-b|-|-", "-|-|a-|b-|-"},
                 {LORE_PRETOKEN_CONTIGUOUS, "--|a|-|b|--", "--|a|-|b|--"}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        lore_pretoken step = {
            .kind = LORE_PRETOKEN_LITERAL, .behavior = CASES[i].behavior, .literal = LORE_STR("-")};
        cut_by(&step, "--a-b--", CASES[i].wanted);
        step.is_inverted = true;
        cut_by(&step, "--a-b--", CASES[i].inverted);
        cut_by(&step, "", "");
    }
}

TEST(classes_of_characters)
{
    cut_by(&(lore_pretoken){.kind = LORE_PRETOKEN_SPACE, .behavior = LORE_PRETOKEN_REMOVED},
           " a\u3000b\n", "a|b");
    cut(LORE_PRETOKEN_NUMBER, "a12\u00bd", "a|1|2|\u00bd");
    cut(LORE_PRETOKEN_PUNCT, "a,b\u3002c$", "a|,|b|\u3002|c|$");
    cut(LORE_PRETOKEN_BERT, " a,b  \u3002c\n", "a|,|b|\u3002|c");
    /* b2 stands for superscript two in the byte alphabet, which is a number. */
    cut_by(&(lore_pretoken){.kind = LORE_PRETOKEN_NUMBER, .is_mapped = true}, "a1\xc2\xb2",
           "a|1|\xc2|\xb2");
}

static void fill(char *bytes, size_t size, uint64_t *seed)
{
    for (size_t i = 0; i < size; i++) {
        uint64_t x = lore_random_next(seed);
        bytes[i] = (char)(x % 3 == 0 ? x >> 8 : (uint64_t) " \n'a1\xe4\xbd\xa0"[x % 8]);
    }
}

/* Random bytes: what is written by hand cuts where the expression itself does, and nothing is lost
 * or doubled, invalid UTF-8 or not. */
TEST(by_hand_and_by_the_machine)
{
    static const char *const PATTERNS[] = {GPT2, LLAMA3, QWEN2};
    uint64_t seed = 5;
    char bytes[64];
    for (int p = 0; p < 3; p++) {
        lore_pretoken steps[2] = {{0}, {.kind = LORE_PRETOKEN_REGEX}};
        lore_arena arena;
        lore_error err = {0};
        lore_pretoken_walk walks[2];
        lore_arena_init(&arena, 0);
        CHECK(lore_pretoken_of(lore_str_from(PATTERNS[p]), &steps[0].kind));
        CHECK_INT(steps[0].kind, p);
        CHECK_OK(lore_regex_compile(lore_str_from(PATTERNS[p]), &arena, &steps[1].regex, &err),
                 &err);
        lore_pretoken_init(&walks[0], &steps[0], &arena);
        lore_pretoken_init(&walks[1], &steps[1], &arena);
        for (int round = 0; round < 2000; round++) {
            lore_str s = {bytes, 1 + lore_random_next(&seed) % sizeof bytes};
            size_t at = 0, start[2], end[2];
            fill(bytes, s.len, &seed);
            lore_pretoken_begin(&walks[0], s);
            lore_pretoken_begin(&walks[1], s);
            while (lore_pretoken_next(&walks[0], &start[0], &end[0])) {
                CHECK_INT(start[0], at);
                CHECK(lore_pretoken_next(&walks[1], &start[1], &end[1]));
                CHECK(start[1] == start[0] && end[1] == end[0]);
                at = end[0];
            }
            CHECK(!lore_pretoken_next(&walks[1], &start[1], &end[1]));
            CHECK_INT(at, s.len);
        }
        lore_arena_destroy(&arena);
    }
}

CHECK_MAIN(patterns_are_recognised, words_and_contractions, numbers, white_space,
           what_becomes_of_matches, classes_of_characters, by_hand_and_by_the_machine)
