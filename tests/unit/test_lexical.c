/* The walk over words: what is a word, what it folds to, where it lies. */
#include "index/index_int.h"
#include "tests/check.h"

#include <stdio.h>
#include <string.h>

typedef struct recorder {
    char text[4096]; /* "word|word|" */
    lore_str source;
    bool has_bad_place;
    int32_t left; /* stop after so many */
} recorder;

static bool record(void *self, const lore_word *word)
{
    recorder *r = self;
    size_t at = strlen(r->text);
    snprintf(r->text + at, sizeof r->text - at, LORE_STR_FMT "|", LORE_STR_ARG(word->text));
    r->has_bad_place = r->has_bad_place || word->start >= word->end || word->end > r->source.len ||
                       (word->is_bigram && !word->is_cjk);
    return --r->left != 0;
}

static const char *walk(const char *text, bool is_query)
{
    static recorder r;
    lore_error err;
    memset(&r, 0, sizeof r);
    r.source = lore_str_from(text);
    CHECK_OK(is_query ? lore_words_each_query(r.source, record, &r, &err)
                      : lore_words_each(r.source, record, &r, &err),
             &err);
    CHECK(!r.has_bad_place);
    return r.text;
}

#define CHECK_WALK(text, words) CHECK_STR(lore_str_from(walk((text), false)), words)
#define CHECK_ASKED(text, words) CHECK_STR(lore_str_from(walk((text), true)), words)

/* Case, accents, width and ligatures are folded; everything but letters and digits separates. */
TEST(western_words)
{
    CHECK_WALK("", "");
    CHECK_WALK(" .,;! \n", "");
    CHECK_WALK("Hello, World-2!", "hello|world|2|");
    CHECK_WALK("R2 max_tokens=10", "r2|max|tokens|10|");
    CHECK_WALK("Café ÉCOLE naïve", "cafe|ecole|naive|");
    CHECK_WALK("cafe\xCC\x81 x", "cafe|x|"); /* e + combining acute */
    CHECK_WALK("Straße", "strasse|");
    CHECK_WALK("ＡＢＣ１２３", "abc123|");
    CHECK_WALK("ﬁne", "fine|");
    CHECK_WALK("Привет МИР", "привет|мир|");
    CHECK_WALK("x\xCC\x81", "x|");
    CHECK_WALK("\xCC\x81 x", "x|"); /* a mark alone is no word */
}

/* The possessive goes, other apostrophes separate. */
TEST(apostrophes)
{
    CHECK_WALK("the router's light", "the|router|light|");
    CHECK_WALK("the router\xE2\x80\x99s", "the|router|");
    CHECK_WALK("don't l'hôtel", "don|t|l|hotel|");
    CHECK_WALK("it's's sixties's", "it|s|sixties|");
    CHECK_WALK("'s", "s|");
    CHECK_WALK("a'sb", "a|sb|");
}

/* Runs of scripts without spaces: characters and pairs; for questions pairs, or the one character.
 */
TEST(cjk_runs)
{
    CHECK_WALK("人工智能", "人|工|人工|智|工智|能|智能|");
    CHECK_ASKED("人工智能", "人工|工智|智能|");
    CHECK_ASKED("东京", "东京|");
    CHECK_ASKED("水", "水|");
    CHECK_ASKED("水。火", "水|火|");
    CHECK_ASKED("重置R2路由器", "重置|r2|路由|由器|");
    CHECK_WALK("用Wi-Fi吗", "用|wi|fi|吗|");
    CHECK_WALK("서울", "서|울|서울|");
    CHECK_ASKED("東京タワー", "東京|京タ|タワ|ワー|");
    CHECK_ASKED("abc水", "abc|水|");
}

/* A run of any length is cut into words that fit. */
TEST(long_words)
{
    char text[1001];
    memset(text, 'a', 1000);
    text[1000] = '\0';
    const char *words = walk(text, false);
    CHECK_INT(strlen(words), 1004); /* 256 + 256 + 256 + 232, and four bars */
    for (int i = 0; i + 1 < 1000; i += 2) {
        memcpy(text + i, "é", 2);
    }
    CHECK_INT(strlen(walk(text, false)), 504);
}

/* The visitor may stop. */
TEST(stopping)
{
    recorder r = {.source = LORE_STR("one two three 水火"), .left = 2};
    lore_error err;
    CHECK_OK(lore_words_each(r.source, record, &r, &err), &err);
    CHECK_STR(lore_str_from(r.text), "one|two|");
    r = (recorder){.source = LORE_STR("水火木"), .left = 2};
    CHECK_OK(lore_words_each(r.source, record, &r, &err), &err);
    CHECK_STR(lore_str_from(r.text), "水|火|");
}

/* A slice of the text at a word's place gives that word again: the query builder relies on it. */
static bool ask_again(void *self, const lore_word *word)
{
    lore_str source = *(lore_str *)self;
    lore_error err;
    recorder r = {.source = lore_str_slice(source, word->start, word->end)};
    char expected[600];
    snprintf(expected, sizeof expected, LORE_STR_FMT "|", LORE_STR_ARG(word->text));
    CHECK_OK(lore_words_each_query(r.source, record, &r, &err), &err);
    CHECK_STR(lore_str_from(r.text), expected);
    return true;
}

TEST(slices_give_the_word)
{
    lore_error err;
    lore_str text =
        LORE_STR("The Café's naïve 人工智能 ｶﾞｷﾞ ภาษาไทย 東京タワー x² ﬁne don't ２０２４年 Ⅷ ½");
    CHECK_OK(lore_words_each_query(text, ask_again, &text, &err), &err);
}

static lore_status fold_all(void *self)
{
    recorder r = {.source = LORE_STR("Hello Café 東京タワー")};
    lore_error err;
    (void)self;
    return lore_words_each(r.source, record, &r, &err);
}

TEST(out_of_memory)
{
    check_alloc_sweep(fold_all, NULL);
}

CHECK_MAIN(western_words, apostrophes, cjk_runs, long_words, stopping, slices_give_the_word,
           out_of_memory)
