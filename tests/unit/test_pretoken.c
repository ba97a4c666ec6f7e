/* The hand-written split patterns cut as their regular expressions do, at the places where a
 * regular expression engine backtracks, and never lose or double a byte. (Ids of whole texts:
 * test_tokenizer.c.) */
#include "models/pretoken_int.h"
#include "tests/check.h"

#include "base/clock.h"

#define QWEN2                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* The pieces of text, joined with '|'. */
static void cut(lore_pretoken pattern, const char *text, const char *wanted)
{
    char joined[256];
    size_t used = 0;
    lore_str s = lore_str_from(text);
    for (size_t at = 0; at < s.len;) {
        size_t end = lore_pretoken_next(pattern, s, at);
        CHECK(end > at && end <= s.len && used + (end - at) + 1 < sizeof joined);
        memcpy(joined + used, s.ptr + at, end - at);
        used += end - at;
        joined[used++] = '|';
        at = end;
    }
    CHECK_STR(((lore_str){joined, used > 0 ? used - 1 : 0}), wanted);
}

TEST(patterns_are_recognised)
{
    lore_pretoken pattern = LORE_PRETOKEN_WHOLE;
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
    cut(LORE_PRETOKEN_WHOLE, "a b\nc", "a b\nc");
}

/* Random bytes: every pattern moves on and ends, invalid UTF-8 or not. */
TEST(any_bytes_are_cut)
{
    uint64_t seed = 5;
    char bytes[64];
    for (int round = 0; round < 3000; round++) {
        for (size_t i = 0; i < sizeof bytes; i++) {
            uint64_t x = lore_random_next(&seed);
            bytes[i] = (char)(x % 3 == 0 ? x >> 8 : (uint64_t) " \n'a1\xe4\xbd\xa0"[x % 8]);
        }
        lore_str s = {bytes, sizeof bytes};
        for (int p = LORE_PRETOKEN_WHOLE; p <= LORE_PRETOKEN_QWEN2; p++) {
            for (size_t at = 0; at < s.len;) {
                size_t end = lore_pretoken_next((lore_pretoken)p, s, at);
                CHECK(end > at && end <= s.len);
                at = end;
            }
        }
    }
}

CHECK_MAIN(patterns_are_recognised, words_and_contractions, numbers, white_space, any_bytes_are_cut)
