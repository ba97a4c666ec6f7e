/* Words are cut as BERT does it (golden_pieces compares with `tokenizers`): longest first, unknown
 * as a whole, never inside a character, and the text into words by space and punctuation. */
#include "models/wordpiece_int.h"
#include "tests/check.h"

static lore_arena arena;
static lore_wordpiece model;

static void open_model(void)
{
    static const char *const list[] = {"[UNK]", "un",   "##aff", "##able",   "##a", "u",
                                       "##",    "##ff", "\xc3",  "\xc3\xa9", "un",  "##\xe4\xbd"};
    lore_str tokens[sizeof list / sizeof list[0]];
    lore_error err;
    int32_t count = sizeof list / sizeof list[0];
    for (int32_t i = 0; i < count; i++) {
        tokens[i] = lore_str_from(list[i]);
    }
    lore_arena_init(&arena, 0);
    lore_wordpiece_options options = {LORE_STR("##"), 0, 10};
    CHECK_OK(lore_wordpiece_init(&model, &arena, tokens, count, options, &err), &err);
}

static lore_pieces cut(const char *word)
{
    lore_pieces pieces = {.arena = &arena};
    CHECK(lore_wordpiece_word(&model, lore_str_from(word), &pieces));
    return pieces;
}

TEST(longest_first)
{
    open_model();
    lore_pieces pieces = cut("unaffable");
    CHECK_INT(pieces.count, 3);
    CHECK_INT(pieces.items[0].id, 10); /* the later of the equal ones */
    CHECK_INT(pieces.items[1].id, 2);
    CHECK_INT(pieces.items[1].start, 2);
    CHECK_INT(pieces.items[2].id, 3);
    CHECK_INT(pieces.items[2].start, 5);
    CHECK_INT(cut("").count, 0);
    lore_arena_destroy(&arena);
}

TEST(unknown_as_a_whole)
{
    open_model();
    CHECK_INT(cut("unaffables").count, 1);
    CHECK_INT(cut("unaffables").items[0].id, 0);
    CHECK_INT(cut("unaaaaaaaa").count, 9);           /* ten characters */
    CHECK_INT(cut("unaaaaaaaaa").items[0].id, 0);    /* eleven */
    CHECK_INT(cut("\xc3\xa9").items[0].id, 9);       /* not its first byte */
    CHECK_INT(cut("un\xe4\xbd\xa0").items[0].id, 0); /* nor inside a word */
    CHECK_INT(cut("##").items[0].id, 6);             /* a word may look like a prefix */
    lore_arena_destroy(&arena);
}

TEST(words_of_text)
{
    lore_str text = LORE_STR("  Hi, you_two\xc2\xa0$5\xe3\x80\x82"
                             "caf\xc3\xa9 \xff! "),
             word;
    const char *wanted[] = {"Hi",           ",",           "you",  "_", "two", "$", "5",
                            "\xe3\x80\x82", "caf\xc3\xa9", "\xff", "!"};
    size_t at = 0, count = 0;
    while (lore_wordpiece_next(text, &at, &word)) {
        CHECK(count < sizeof wanted / sizeof wanted[0]);
        CHECK_STR(word, wanted[count]);
        count++;
    }
    CHECK_INT((int)count, (int)(sizeof wanted / sizeof wanted[0]));
    CHECK(at == text.len);
}

TEST(bad_options_are_refused)
{
    lore_str token = LORE_STR("a");
    lore_error err;
    lore_arena_init(&arena, 0);
    lore_wordpiece_options options = {LORE_STR("##"), 1, 100};
    CHECK_FAILS(lore_wordpiece_init(&model, &arena, &token, 1, options, &err), LORE_ERR_INVALID,
                &err, "unknown token 1");
    options = (lore_wordpiece_options){LORE_STR("##"), 0, 1001};
    CHECK_FAILS(lore_wordpiece_init(&model, &arena, &token, 1, options, &err), LORE_ERR_LIMIT, &err,
                "max_input_chars_per_word");
    options.word_chars_max = 100;
    lore_mem_fail_at(1, true);
    CHECK_FAILS(lore_wordpiece_init(&model, &arena, &token, 1, options, &err), LORE_ERR_NOMEM, &err,
                "memory");
    lore_mem_fail_at(0, false);
    lore_arena_destroy(&arena);
}

CHECK_MAIN(longest_first, unknown_as_a_whole, words_of_text, bad_options_are_refused)
