/* Support: which sentence of the evidence carries a sentence of an answer.
 *
 * A quotation may be a part of a sentence, change a letter's case or leave out a word or two, but
 * it keeps the order of the words, every figure with its sign or currency and every "not". So the
 * words of both, folded as the full-text index folds them, are compared by their longest common
 * subsequence. */
#include "base/utf8.h"
#include "index/lexical.h"
#include "retrieval/evidence.h"

#include <string.h>

enum {
    SKIPPED_MAX = 2,         /* words of the sentence that a quotation may leave out inside */
    QUOTED_WORDS_MIN = 3,    /* words (CJK: characters) of a quotation */
    SENTENCE_WORDS_MAX = 512 /* words of one sentence that are compared; a longer answer sentence is
                                not supported */
};

typedef struct word_list {
    lore_str text; /* what the words are of */
    uint64_t hash[SENTENCE_WORDS_MAX];
    bool has_digit[SENTENCE_WORDS_MAX];
    int32_t count;
} word_list;

/* The sign or currency that stands directly before a figure and is a part of it, or 0. A hyphen
 * behind a letter or figure joins the two. */
static int32_t mark_before(lore_str text, size_t start)
{
    static const char MARKS[] = "-+<>$£¥￥€−≤≥±~≈";
    const lore_str marks = LORE_STR(MARKS);
    size_t at = start;
    int32_t mark = start > 0 ? lore_utf8_prev(text, &at) : 0;
    for (size_t i = 0; mark != 0 && i < marks.len;) {
        if (lore_utf8_next(marks, &i) == mark) {
            size_t before = at;
            bool is_joint = (mark == '-' || mark == '~') && at > 0 &&
                            !lore_utf8_is_space(lore_utf8_prev(text, &before));
            return is_joint ? 0 : mark;
        }
    }
    return 0;
}

static bool list_word(void *self, const lore_word *word)
{
    word_list *list = self;
    if (word->is_bigram) {
        return true;
    }
    list->hash[list->count] = lore_str_hash(word->text);
    list->has_digit[list->count] = false;
    if (word->text.len > 0 && word->text.ptr[0] >= '0' && word->text.ptr[0] <= '9') {
        list->hash[list->count] ^= (uint64_t)mark_before(list->text, word->start) << 32;
    }
    for (size_t i = 0; i < word->text.len; i++) {
        list->has_digit[list->count] |= word->text.ptr[i] >= '0' && word->text.ptr[i] <= '9';
    }
    return ++list->count < SENTENCE_WORDS_MAX;
}

static lore_status list_words(lore_str text, word_list *list)
{
    list->text = text;
    list->count = 0;
    return lore_words_each(text, list_word, list, NULL);
}

static bool holds(const word_list *list, uint64_t hash)
{
    for (int32_t i = 0; i < list->count; i++) {
        if (list->hash[i] == hash) {
            return true;
        }
    }
    return false;
}

/* Every number of the answer stands in the sentence: a quotation that changes a figure is no
 * quotation. */
static bool holds_numbers(const word_list *answer, const word_list *sentence)
{
    for (int32_t i = 0; i < answer->count; i++) {
        if (answer->has_digit[i] && !holds(sentence, answer->hash[i])) {
            return false;
        }
    }
    return true;
}

/* Length of the longest common subsequence of words, by the usual table of two rows. */
static int32_t common_words(const word_list *a, const word_list *b)
{
    int32_t rows[2][SENTENCE_WORDS_MAX + 1];
    memset(rows, 0, sizeof rows);
    for (int32_t i = 0; i < a->count; i++) {
        int32_t *above = rows[i % 2];
        int32_t *here = rows[(i + 1) % 2];
        for (int32_t j = 0; j < b->count; j++) {
            int32_t skip = above[j + 1] > here[j] ? above[j + 1] : here[j];
            here[j + 1] = a->hash[i] == b->hash[j] ? above[j] + 1 : skip;
        }
    }
    return rows[a->count % 2][b->count];
}

/* A word or two of a sentence are no statement, unless they are all of it. */
static bool is_long_enough(const word_list *answer, const word_list *sentence)
{
    return answer->count >= QUOTED_WORDS_MIN || answer->count >= sentence->count;
}

/* Words whose absence turns a sentence around. */
static bool is_negation(uint64_t hash)
{
    static const char *const NEGATIONS[] = {"not", "no",      "never", "cannot", "without", "nor",
                                            "t",   "neither", "不",    "没",     "无",      "未",
                                            "别",  "勿",      "only",  "except", "unless",  "仅"};
    for (size_t i = 0; i < sizeof NEGATIONS / sizeof NEGATIONS[0]; i++) {
        if (lore_str_hash(lore_str_from(NEGATIONS[i])) == hash) {
            return true;
        }
    }
    return false;
}

/* Whether the answer's words stand together in the sentence: at most SKIPPED_MAX words of the
 * sentence are left out between the first and the last of them, and none that turns the meaning
 * around. The full table of the longest common subsequence is walked back from its end. */
static bool stands_together(const word_list *answer, const word_list *sentence, lore_arena *arena)
{
    size_t width = (size_t)sentence->count + 1;
    int16_t *table = LORE_PUSH(arena, int16_t, ((size_t)answer->count + 1) * width);
    if (table == NULL) {
        return false;
    }
    for (size_t i = 1; i <= (size_t)answer->count; i++) {
        for (size_t j = 1; j < width; j++) {
            int16_t above = table[(i - 1) * width + j];
            int16_t left = table[i * width + j - 1];
            bool is_same = answer->hash[i - 1] == sentence->hash[j - 1];
            table[i * width + j] = is_same        ? (int16_t)(table[(i - 1) * width + j - 1] + 1)
                                   : above > left ? above
                                                  : left;
        }
    }
    int32_t skipped = 0;
    bool has_begun = false;
    size_t i = (size_t)answer->count;
    for (size_t j = width - 1; i > 0 && j > 0;) {
        if (answer->hash[i - 1] == sentence->hash[j - 1]) {
            has_begun = true;
            i--;
            j--;
        } else if (table[(i - 1) * width + j] > table[i * width + j - 1]) {
            i--;
        } else {
            if (table[i * width + j] == 0) {
                break; /* everything that matches is behind us */
            }
            skipped += has_begun;
            if (has_begun && is_negation(sentence->hash[j - 1])) {
                return false;
            }
            j--;
        }
    }
    return skipped <= SKIPPED_MAX;
}

/* Of the answer's words, in order; the rest is a slip of the pen. */
static const double CARRIED_SHARE = 0.9;

int32_t lore_evidence_support(const lore_evidence *evidence, lore_str answer_sentence,
                              lore_arena *arena)
{
    word_list *answer = LORE_PUSH(arena, word_list, 1);
    word_list *sentence = LORE_PUSH(arena, word_list, 1);
    if (answer == NULL || sentence == NULL || list_words(answer_sentence, answer) != LORE_OK ||
        answer->count == 0 || answer->count == SENTENCE_WORDS_MAX) {
        return -1; /* what cannot be checked is not supported */
    }
    int32_t best = -1;
    int32_t best_common = 0;
    for (int32_t i = 0; i < evidence->count; i++) {
        if (list_words(evidence->sentences[i].text, sentence) != LORE_OK) {
            return -1;
        }
        int32_t common = common_words(answer, sentence);
        if (common > best_common && (double)common >= CARRIED_SHARE * answer->count &&
            holds_numbers(answer, sentence) && is_long_enough(answer, sentence) &&
            stands_together(answer, sentence, arena)) {
            best = i;
            best_common = common;
        }
    }
    return best;
}

/* An answer that a sentence carries has at most count / CARRIED_SHARE words, so the rest of them,
 * which are slips, are bounded; and its words stand in a window of the sentence that leaves out
 * SKIPPED_MAX at most. Both hold for every beginning of it. */
static bool may_carry(const word_list *beginning, const word_list *sentence)
{
    int32_t slips = (int32_t)(sentence->count * (1.0 / CARRIED_SHARE - 1.0) + 1e-9);
    int32_t wanted = beginning->count - slips;
    if (wanted <= 0) {
        return true;
    }
    if (!holds_numbers(beginning, sentence)) {
        return false;
    }
    word_list window;
    for (int32_t from = 0; from + wanted <= sentence->count; from++) {
        int32_t left = sentence->count - from;
        window.count =
            beginning->count + SKIPPED_MAX < left ? beginning->count + SKIPPED_MAX : left;
        memcpy(window.hash, sentence->hash + from, (size_t)window.count * sizeof window.hash[0]);
        if (common_words(beginning, &window) >= wanted) {
            return true;
        }
    }
    return false;
}

bool lore_evidence_may_support(const lore_evidence *evidence, int32_t count, lore_str beginning)
{
    word_list words, sentence;
    if (list_words(beginning, &words) != LORE_OK || words.count == SENTENCE_WORDS_MAX) {
        return true; /* what cannot be told is left to the whole sentence */
    }
    if (words.count < 2) {
        return true;
    }
    words.count--;
    for (int32_t i = 0; i < count; i++) {
        if (list_words(evidence->sentences[i].text, &sentence) != LORE_OK ||
            may_carry(&words, &sentence)) {
            return true;
        }
    }
    return false;
}
