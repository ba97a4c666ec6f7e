/* A question that leans on the one before it is searched for together with it, in English and in
 * Chinese; one that stands on its own stays alone; and what is searched for never grows beyond its
 * bound nor ends inside a character. */
#include "api/question.h"

#include "base/utf8.h"
#include "tests/check.h"

enum { BYTES_MAX = 8192 };

static const lore_prompt_message one_turn[] = {
    {{"user", 4}, {"How do I reset the router?", 26}},
    {{"assistant", 9}, {"Hold the button for ten seconds.", 32}},
};

static lore_query query_after(const lore_prompt_message *history, int32_t count, const char *text)
{
    return (lore_query){
        .question = lore_str_from(text), .history = history, .history_count = count};
}

/* The question behind one turn is searched for as `expected`. */
static void check_chosen(const char *text, const char *expected)
{
    lore_error err;
    lore_arena arena;
    lore_str chosen = {0};
    lore_query query = query_after(one_turn, 2, text);
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_question_choose(&query, BYTES_MAX, &arena, &chosen, &err), &err);
    CHECK_STR(chosen, expected);
    lore_arena_destroy(&arena);
}

TEST(what_points_back_is_read_with_the_last_question)
{
    static const char *const LEANING[] = {
        "And for how long should one hold?",
        "Where do I find it?",
        "Where do I find it？",
        "What about the blue light on the left side?",
        "HOW ABOUT the other model of the series?",
        "Are THEY covered by the warranty as well?",
        "Why?",
        "How much does that cost abroad?",
        "Can I still use the card after that?",
        "How do I get there from the station?",
        "How much does it cost with the large battery?",
        "那个型号有几年保修？",
        "它的指示灯在什么位置可以看到？",
        "那保修期从什么时候开始计算？",
        "蓝色的指示灯代表什么意思呢？",
        "多久？",
    };
    for (size_t i = 0; i < sizeof LEANING / sizeof LEANING[0]; i++) {
        char both[256];
        snprintf(both, sizeof both, "How do I reset the router? %s", LEANING[i]);
        check_chosen(LEANING[i], both);
    }
}

TEST(a_new_topic_stays_alone)
{
    static const char *const ALONE[] = {
        "How long does the warranty last?",
        "Do you sell salt and pepper in the shop?", /* "and" points back at the start only */
        "Which items are made in Italy?",           /* "it" inside a word */
        "保修期有多长，从什么时候开始计算？",
        "What is the fee that applies to transfers abroad?",
        "Is there a fee for transfers abroad?",
        "Is it possible to pay by card in the shop?",
        "How much does it cost to send a parcel?",
        "从那不勒斯寄包裹需要几天？",
        "呢子大衣可以机洗还是只能干洗？",
    };
    for (size_t i = 0; i < sizeof ALONE / sizeof ALONE[0]; i++) {
        check_chosen(ALONE[i], ALONE[i]);
    }
}

TEST(history)
{
    lore_error err;
    lore_arena arena;
    lore_str chosen = {0};
    static const lore_prompt_message TURNS[] = {
        {{"user", 4}, {"How do I reset the router?", 26}},
        {{"assistant", 9}, {"Hold the button.", 16}},
        {{"user", 4}, {"How long is the warranty?", 25}},
        {{"assistant", 9}, {"Two years.", 10}},
    };
    lore_arena_init(&arena, 0);
    lore_query query = query_after(NULL, 0, "And where is it?");
    CHECK_OK(lore_question_choose(&query, BYTES_MAX, &arena, &chosen, &err), &err);
    CHECK(chosen.ptr == query.question.ptr && chosen.len == query.question.len);
    query =
        query_after(TURNS, 4, "And where is it?"); /* the newest question, not the newest turn */
    CHECK_OK(lore_question_choose(&query, BYTES_MAX, &arena, &chosen, &err), &err);
    CHECK_STR(chosen, "How long is the warranty? And where is it?");
    /* A follow-up of a follow-up leans on what both are about. */
    static const lore_prompt_message CHAIN[] = {
        {{"user", 4}, {"How long is the warranty?", 25}},
        {{"user", 4}, {"How do I reset the router?", 26}},
        {{"assistant", 9}, {"Hold the button.", 16}},
        {{"user", 4}, {"And for how long?", 17}},
    };
    query = query_after(CHAIN, 4, "Where is it?");
    CHECK_OK(lore_question_choose(&query, BYTES_MAX, &arena, &chosen, &err), &err);
    CHECK_STR(chosen, "How do I reset the router? And for how long? Where is it?");
    query = query_after(TURNS + 1, 1, "And where is it?"); /* nobody asked anything before */
    CHECK_OK(lore_question_choose(&query, BYTES_MAX, &arena, &chosen, &err), &err);
    CHECK_STR(chosen, "And where is it?");
    lore_arena_destroy(&arena);
}

TEST(the_older_question_is_cut_between_characters)
{
    static const char OLDER[] = "a重é置😀路由器";
    lore_error err;
    lore_arena arena;
    const lore_prompt_message turn = {LORE_STR("user"), lore_str_from(OLDER)};
    lore_query query = query_after(&turn, 1, "那它呢？");
    size_t own = query.question.len;
    lore_arena_init(&arena, 0);
    for (size_t bytes_max = 0; bytes_max < own + sizeof OLDER + 8; bytes_max++) {
        lore_str chosen = {0};
        CHECK_OK(lore_question_choose(&query, bytes_max, &arena, &chosen, &err), &err);
        CHECK(chosen.len <= bytes_max || chosen.len == own);
        CHECK_INT(lore_utf8_valid(chosen), chosen.len);
        CHECK(lore_str_ends(chosen, query.question));
        if (chosen.len > own) { /* the older one's first characters and a blank */
            CHECK(lore_str_starts(turn.content, lore_str_slice(chosen, 0, chosen.len - own - 1)));
            CHECK(chosen.len + 4 > bytes_max || bytes_max >= own + sizeof OLDER);
        }
    }
    lore_str chosen = {0};
    CHECK_OK(lore_question_choose(&query, own + 1 + 9, &arena, &chosen, &err), &err);
    CHECK_STR(chosen, "a重é置 那它呢？");
    CHECK_OK(lore_question_choose(&query, own + 1 + 8, &arena, &chosen, &err), &err);
    CHECK_STR(chosen, "a重é 那它呢？");
    lore_arena_destroy(&arena);
}

TEST(scripts_without_spaces)
{
    CHECK(lore_question_is_cjk(LORE_STR("怎么重置路由器？")));
    CHECK(lore_question_is_cjk(LORE_STR("reset 路由器")));
    CHECK(!lore_question_is_cjk(LORE_STR("How do I reset it?")));
    CHECK(!lore_question_is_cjk(LORE_STR("Où est-il — “là” ?")));
    CHECK(!lore_question_is_cjk(LORE_STR("")));
}

static lore_status choose_once(void *self)
{
    lore_error err;
    lore_arena arena;
    lore_str chosen = {0};
    const lore_query *query = self;
    lore_arena_init(&arena, 0);
    lore_status status = lore_question_choose(query, BYTES_MAX, &arena, &chosen, &err);
    bool is_right =
        status != LORE_OK ||
        lore_str_equal(chosen, LORE_STR("How do I reset the router? Is it blue at all?"));
    lore_arena_destroy(&arena);
    return is_right ? status : LORE_ERR_CORRUPT; /* the wrong question is worse than none */
}

TEST(every_allocation_may_fail)
{
    lore_query query = query_after(one_turn, 2, "Is it blue at all?");
    CHECK_INT(choose_once(&query), LORE_OK);
    check_alloc_sweep(choose_once, &query);
}

CHECK_MAIN(what_points_back_is_read_with_the_last_question, a_new_topic_stays_alone, history,
           the_older_question_is_cut_between_characters, scripts_without_spaces,
           every_allocation_may_fail)
