/* Figures. Word lists, English and Chinese: short, because a missed question only loses a bonus. */
#include "retrieval/figure.h"

#include "base/utf8.h"
#include "index/lexical.h"

#include <string.h>

static bool holds_any(lore_str folded, const char *const *needles, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (lore_str_find(folded, lore_str_from(needles[i]), 0) != SIZE_MAX) {
            return true;
        }
    }
    return false;
}

bool lore_asks_for_figure(lore_str question, lore_arena *arena)
{
    static const char *const ASKING[] = {
        " how long ",  " how soon ", " how quick",   " how fast ",  " how often ", " how late ",
        " how early ", " how many ", " how much ",   " how large ", " how big ",   " how far ",
        " how old ",   " how high ", " when ",       " what time ", " what hour ", " price ",
        " cost ",      " costs ",    " limit ",      " maximum ",   " deadline ",  " expire ",
        " last date ", " last day ", " which year ", " what year ", " what date ", " which day ",
        "多少",        "几",         "多久",         "多长",        "何时",        "什么时候",
        "价格",        "费用",       "最晚",         "最多",        "日期",        "便宜"};
    lore_buf words;
    lore_buf_init(&words, 0);
    lore_status status = lore_utf8_fold(question, &words, NULL);
    for (size_t i = 0; i < words.len; i++) {
        if (memchr(",.;:?!()'\"", words.ptr[i], 10) != NULL) {
            words.ptr[i] = ' '; /* "When?" asks as "when" does */
        }
    }
    lore_str padded = status == LORE_OK ? lore_str_printf(arena, " " LORE_STR_FMT " ",
                                                          LORE_STR_ARG(lore_buf_str(&words)))
                                        : (lore_str){0};
    lore_buf_destroy(&words);
    return padded.ptr != NULL && holds_any(padded, ASKING, sizeof ASKING / sizeof ASKING[0]);
}

static bool is_number_word(void *self, const lore_word *word)
{
    static const char *const NUMBERS[] = {
        "one",   "two",   "three",    "four",   "five",    "six",        "seven",  "eight",
        "nine",  "ten",   "eleven",   "twelve", "fifteen", "twenty",     "thirty", "half",
        "once",  "twice", "midnight", "noon",   "hundred", "thousand",   "third",  "quarter",
        "sixty", "forty", "fifty",    "ninety", "free",    "immediately"};
    bool *found = self;
    for (size_t i = 0; i < sizeof NUMBERS / sizeof NUMBERS[0] && !*found; i++) {
        *found = lore_str_equal(word->text, lore_str_from(NUMBERS[i]));
    }
    return !*found;
}

bool lore_has_figure(lore_str sentence)
{
    static const char *const CHINESE[] = {"一天", "两天", "三天", "七天", "一年", "两年", "三年",
                                          "两台", "三台", "五台", "一个", "两个", "三个", "五个",
                                          "一次", "两次", "半",   "免费", "七折", "折"};
    bool found = holds_any(sentence, CHINESE, sizeof CHINESE / sizeof CHINESE[0]);
    for (size_t i = 0; i < sentence.len && !found; i++) {
        found = sentence.ptr[i] >= '0' && sentence.ptr[i] <= '9';
    }
    if (!found && lore_words_each(sentence, is_number_word, &found, NULL) != LORE_OK) {
        return false;
    }
    return found;
}
