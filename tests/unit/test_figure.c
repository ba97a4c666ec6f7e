/* Questions that want a number are told from others, whatever punctuation they end with, and
 * sentences that hold a number, in digits or in words, from those that do not. */
#include "retrieval/figure.h"

#include "tests/check.h"

static void check_asks(const char *question, bool expected)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    bool asks = lore_asks_for_figure(lore_str_from(question), &arena);
    lore_arena_destroy(&arena);
    if (asks != expected) {
        CHECK_STOP("'%s' %s for a figure", question, asks ? "asks" : "does not ask");
    }
}

TEST(questions)
{
    static const char *const ASKING[] = {
        "How long does delivery take?",
        "HOW MANY users may join",
        "Until when can I return it?",
        "When?",
        "What is the price?",
        "The limit, please: what is it?",
        "How long?",
        "(what time) do you open",
        "保修期是多久？",
        "一共多少钱",
        "什么时候发货",
        "最多可以添加几个用户",
    };
    static const char *const OTHERS[] = {
        "Who may return an item?",
        "How do I reset the router?",
        "Whenever I print, the light blinks. Why?", /* "when" inside a word */
        "Is this an unlimited plan?",
        "Is it costly to repair?",
        "怎么重置路由器",
        "",
    };
    for (size_t i = 0; i < sizeof ASKING / sizeof ASKING[0]; i++) {
        check_asks(ASKING[i], true);
    }
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
        check_asks(OTHERS[i], false);
    }
}

TEST(sentences)
{
    static const char *const WITH[] = {
        "Hold it for 10 seconds.",
        "Hold it for Ten seconds.",
        "We close at noon.",
        "Returns are free.",
        "Version 2",
        "三天内发货。",
        "运费全部免费。",
        "可以添加五个用户。",
    };
    static const char *const WITHOUT[] = {
        "Hold the button.", "Someone often tends the stone.", "按住按钮。", "", "...",
    };
    for (size_t i = 0; i < sizeof WITH / sizeof WITH[0]; i++) {
        if (!lore_has_figure(lore_str_from(WITH[i]))) {
            CHECK_STOP("no figure in '%s'", WITH[i]);
        }
    }
    for (size_t i = 0; i < sizeof WITHOUT / sizeof WITHOUT[0]; i++) {
        if (lore_has_figure(lore_str_from(WITHOUT[i]))) {
            CHECK_STOP("a figure in '%s'", WITHOUT[i]);
        }
    }
}

/* Both answers at once: the first time everything is there, and then no once memory is out. */
static lore_status ask_once(void *self)
{
    bool *was_yes = self;
    lore_arena arena;
    lore_arena_init(&arena, 0);
    *was_yes = lore_asks_for_figure(LORE_STR("How long is it?"), &arena) &&
               lore_has_figure(LORE_STR("It is twelve metres."));
    lore_arena_destroy(&arena);
    return LORE_OK;
}

TEST(out_of_memory_counts_as_no)
{
    bool was_yes = false;
    check_alloc_sweep(ask_once, &was_yes);
    CHECK(was_yes); /* the last run of the sweep failed nowhere */
    lore_mem_fail_at(1, true);
    ask_once(&was_yes);
    lore_mem_fail_at(0, false);
    CHECK(!was_yes);
}

CHECK_MAIN(questions, sentences, out_of_memory_counts_as_no)
