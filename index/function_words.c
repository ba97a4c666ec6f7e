/* Words that ask or join, English and Chinese. They say little about what a text must hold, and in
 * a small collection they are rare enough for BM25 to take them for subjects: of
 * "天津男科需要多少钱" a page that asks 多少钱 ten times would be the best. So text_search.c counts
 * them for less.
 *
 * English is compared word by word; of Chinese, whose words have no edges, each phrase is looked
 * for as it stands. Characters that are often part of other words (和, 有, 在) are not listed. */
#include "index/index_int.h"

#include "index/lexical.h"

#include <string.h>

static const char *const ENGLISH[] = {
    "a",     "an",     "and",  "are",   "as",    "at",    "be",   "been",  "being", "but",  "by",
    "can",   "could",  "did",  "do",    "does",  "doing", "for",  "from",  "had",   "has",  "have",
    "he",    "her",    "him",  "his",   "how",   "i",     "if",   "in",    "into",  "is",   "it",
    "its",   "me",     "may",  "might", "must",  "my",    "of",   "on",    "or",    "our",  "shall",
    "she",   "should", "so",   "such",  "than",  "that",  "the",  "their", "them",  "then", "there",
    "these", "they",   "this", "those", "to",    "was",   "we",   "were",  "what",  "when", "where",
    "which", "while",  "who",  "whom",  "whose", "why",   "will", "with",  "would", "you",  "your"};

static const char *const CHINESE[] = {
    "什么", "什麼", "怎么", "怎麼", "怎样", "怎樣", "哪",   "谁",   "誰",   "多少", "多久",
    "时候", "時候", "几",   "幾",   "吗",   "嗎",   "呢",   "吧",   "啊",   "啥",   "的",
    "了",   "是",   "如何", "为何", "為何", "为什", "為什", "何时", "何時", "请问", "請問"};

static bool blank_english(void *self, const lore_word *word)
{
    lore_str *copy = self;
    for (size_t i = 0; i < sizeof ENGLISH / sizeof ENGLISH[0] && !word->is_cjk; i++) {
        if (lore_str_equal(word->text, lore_str_from(ENGLISH[i]))) {
            memset((char *)(uintptr_t)copy->ptr + word->start, ' ', word->end - word->start);
            break;
        }
    }
    return true;
}

lore_str lore_without_function_words(lore_str question, lore_arena *arena)
{
    lore_str copy = lore_str_copy(arena, question);
    if (copy.ptr == NULL || lore_words_each(question, blank_english, &copy, NULL) != LORE_OK) {
        return (lore_str){0};
    }
    for (size_t i = 0; i < sizeof CHINESE / sizeof CHINESE[0]; i++) {
        lore_str phrase = lore_str_from(CHINESE[i]);
        for (size_t at = 0; (at = lore_str_find(question, phrase, at)) != SIZE_MAX;
             at += phrase.len) {
            memset((char *)(uintptr_t)copy.ptr + at, ' ', phrase.len);
        }
    }
    return copy;
}
