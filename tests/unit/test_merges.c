/* Every way to cut a token into two is found, in the order that `transformers` gives them; tokens
 * that take no part are in none; long ones are refused. */
#include "models/merges_int.h"
#include "tests/check.h"

static void order(const lore_str *tokens, const double *scores, int32_t count, const char *wanted)
{
    lore_arena arena;
    lore_error err = {0};
    lore_merge_pair *pairs = NULL;
    size_t found = 0;
    lore_buf joined;
    lore_merge_source source = {tokens, scores, count};
    lore_arena_init(&arena, 0);
    lore_buf_init(&joined, 0);
    CHECK_OK(lore_merges_find(&source, &arena, &pairs, &found, &err), &err);
    for (size_t i = 0; i < found; i++) {
        lore_buf_printf(&joined, "%s" LORE_STR_FMT "+" LORE_STR_FMT, i > 0 ? " " : "",
                        LORE_STR_ARG(tokens[pairs[i].left]), LORE_STR_ARG(tokens[pairs[i].right]));
    }
    CHECK_STR(lore_buf_str(&joined), wanted);
    lore_buf_destroy(&joined);
    lore_arena_destroy(&arena);
}

TEST(order_of_merges)
{
    const lore_str tokens[] = {LORE_STR("b"),  LORE_STR("a"),   LORE_STR("ab"), LORE_STR("aba"),
                               LORE_STR("ba"), LORE_STR("aab"), {NULL, 0},      LORE_STR("aa")};
    const double scores[] = {0, 0, -3, -1, -2, -3, 0, -4};
    /* By rank of what they make, then by the ids of the sides. */
    order(tokens, NULL, 8, "a+b a+ba ab+a b+a a+ab aa+b a+a");
    /* By score, then the longest left side. */
    order(tokens, scores, 8, "ab+a a+ba b+a aa+b a+ab a+b a+a");
}

TEST(characters_are_not_cut)
{
    const lore_str tokens[] = {LORE_STR("\xe7"), LORE_STR("\x9a\x84"), LORE_STR("\xe7\x9a\x84")};
    const double scores[] = {0, 0, 0};
    order(tokens, scores, 3, "");
    order(tokens, NULL, 3, "\xe7+\x9a\x84");
}

TEST(long_tokens_are_refused)
{
    char text[600];
    lore_arena arena;
    lore_error err = {0};
    lore_merge_pair *pairs = NULL;
    size_t count = 0;
    memset(text, 'a', sizeof text);
    lore_str token = {text, sizeof text};
    lore_merge_source source = {&token, NULL, 1};
    lore_arena_init(&arena, 0);
    CHECK_FAILS(lore_merges_find(&source, &arena, &pairs, &count, &err), LORE_ERR_LIMIT, &err,
                "token 0");
    lore_arena_destroy(&arena);
}

CHECK_MAIN(order_of_merges, characters_are_not_cut, long_tokens_are_refused)
