/* A sentence of an answer is carried by a sentence of the evidence when it says that sentence's
 * words in their order, whole or in part; a changed figure, another order or more than a slip of
 * the pen is not carried. */
#include "retrieval/evidence.h"
#include "tests/check.h"

static lore_sentence sentences[] = {
    {.text = {"Hold the reset button for ten seconds until the light blinks.", 61}},
    {.text = {"The warranty lasts 24 months from the day of purchase and covers all parts of the "
              "device.",
              89}},
    {.text = {"按住重置按钮10秒，直到指示灯闪烁。", 50}},
};
static const lore_evidence evidence = {.sentences = sentences, .count = 3};

static int32_t carrier_in(const lore_evidence *where, lore_str text)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    int32_t carrier = lore_evidence_support(where, text, &arena);
    lore_arena_destroy(&arena);
    return carrier;
}

static void check_carrier(const char *text, int32_t expected)
{
    int32_t carrier = carrier_in(&evidence, lore_str_from(text));
    if (carrier != expected) {
        CHECK_STOP("'%s' is carried by %d, not %d", text, carrier, expected);
    }
}

TEST(quotations)
{
    for (int32_t i = 0; i < evidence.count; i++) { /* the literals' lengths are right, too */
        CHECK_INT(sentences[i].text.len, strlen(sentences[i].text.ptr));
        check_carrier(sentences[i].text.ptr, i);
    }
    check_carrier("Hold the reset button for ten seconds.", 0);
    check_carrier("until the light blinks", 0);
    check_carrier("Hold the button for ten seconds.", 0); /* a word left out */
    check_carrier("Hold the button until the light blinks.",
                  -1);                 /* four: that says something else */
    check_carrier("The warranty", -1); /* two words are no statement */
    check_carrier("HOLD the Reset-Button, for ten seconds; until the light BLINKS!", 0);
    check_carrier("The warranty lasts ２４ months.", 1); /* full-width digits are digits */
    check_carrier("按住重置按钮10秒", 2);
    check_carrier("直到指示灯闪烁！", 2);
}

/* A sign or a currency is a part of its figure; a hyphen inside of a range is none. */
TEST(signs_and_currencies)
{
    static lore_sentence figures[] = {
        {.text = LORE_STR("Keep the battery above -20 degrees and charge it for 10-20 minutes.")},
        {.text = LORE_STR("The trial costs €5 a month after the first thirty days.")},
        {.text = LORE_STR("延长保修每年￥30，最多三年。")},
    };
    const lore_evidence where = {.sentences = figures, .count = 3};
    CHECK_INT(carrier_in(&where, LORE_STR("Keep the battery above -20 degrees")), 0);
    CHECK_INT(carrier_in(&where, LORE_STR("Keep the battery above 20 degrees")), -1);
    CHECK_INT(carrier_in(&where, LORE_STR("charge it for 10-20 minutes")), 0);
    CHECK_INT(carrier_in(&where, LORE_STR("The trial costs €5 a month")), 1);
    CHECK_INT(carrier_in(&where, LORE_STR("The trial costs $5 a month")), -1);
    CHECK_INT(carrier_in(&where, LORE_STR("The trial costs 5 a month")), -1);
    CHECK_INT(carrier_in(&where, LORE_STR("延长保修每年￥30")), 2);
}

/* Leaving out a "not" or an "only" makes another statement of the same words. */
TEST(negations)
{
    static lore_sentence negated[] = {
        {.text = {"Do not hold the button while the ring is white.", 47}},
        {.text = {"备用码只能使用一次，不要存在手机里。", 54}},
    };
    const lore_evidence where = {.sentences = negated, .count = 2};
    CHECK_INT(carrier_in(&where, LORE_STR("Do hold the button while the ring is white.")), -1);
    CHECK_INT(carrier_in(&where, LORE_STR("Do not hold the button while the ring is white.")), 0);
    CHECK_INT(carrier_in(&where, LORE_STR("备用码只能使用一次，要存在手机里。")), -1);
    CHECK_INT(carrier_in(&where, LORE_STR("备用码只能使用一次")), 1);
}

TEST(changes)
{
    /* one word of seven is more than a slip, one of sixteen is one */
    check_carrier("Press the reset button for ten seconds.", -1);
    check_carrier("The warranty lasts 24 months from the date of purchase and covers all parts of "
                  "the device.",
                  1);
    check_carrier("The warranty lasts 36 months from the day of purchase and covers all parts of "
                  "the device.",
                  -1);
    check_carrier("The warranty lasts 24 months from the day of purchase and covers all 3 parts of "
                  "the device.",
                  -1); /* an added figure is a changed one */
    check_carrier("The light blinks until ten seconds for the reset button hold.", -1);
    check_carrier("blinks light the until seconds ten for button reset the hold", -1);
    check_carrier("按住重置按钮20秒，直到指示灯闪烁。", -1);
    check_carrier("松开电源按钮10秒，直到指示灯闪烁。", -1);
    check_carrier("闪烁指示灯直到，10秒按钮重置按住。", -1);
    check_carrier("Bananas grow in the tropics.", -1);
}

TEST(nothing_to_compare)
{
    static const lore_evidence NONE = {0};
    check_carrier("", -1);
    check_carrier("...", -1);
    check_carrier(" \n", -1);
    CHECK_INT(carrier_in(&NONE, sentences[0].text), -1);
}

/* The better ranked one of two that carry it; the one that carries more where both carry. */
TEST(several_carriers)
{
    lore_sentence twice[] = {
        {.text = LORE_STR("one two three four five six seven eight nine SLIP")},
        {.text = LORE_STR("one two three four five six seven eight nine ten")},
        {.text = LORE_STR("One two three four five six seven eight nine ten, too.")},
    };
    lore_evidence all = {.sentences = twice, .count = 3};
    CHECK_INT(carrier_in(&all, LORE_STR("one two three four five six seven eight nine ten")), 1);
    CHECK_INT(carrier_in(&all, LORE_STR("one two three four")), 0);
}

/* 511 words are compared; with 512 the list is full and nobody knows what else follows. */
TEST(long_sentences)
{
    lore_buf text;
    lore_buf_init(&text, 0);
    for (int i = 0; i < 511; i++) {
        lore_buf_printf(&text, "word%c%c ", 'a' + i % 26, 'a' + i / 26);
    }
    lore_sentence one = {.text = lore_buf_str(&text)};
    lore_evidence long_one = {.sentences = &one, .count = 1};
    CHECK_INT(carrier_in(&long_one, lore_buf_str(&text)), 0);
    lore_buf_append(&text, LORE_STR("last"));
    one.text = lore_buf_str(&text);
    CHECK_INT(carrier_in(&long_one, lore_buf_str(&text)), -1);
    for (int i = 0; i < 600; i++) {
        lore_buf_append(&text, LORE_STR(" more words"));
    }
    one.text = lore_buf_str(&text);
    CHECK_INT(carrier_in(&long_one, lore_buf_str(&text)), -1);
    CHECK_INT(carrier_in(&long_one, LORE_STR("wordaa wordba wordca")), 0); /* a long carrier */
    lore_buf_destroy(&text);
}

static lore_status support_once(void *self)
{
    int32_t carrier = carrier_in(&evidence, LORE_STR("按住重置按钮10秒"));
    *(int32_t *)self = carrier;
    return carrier == 2 || carrier == -1 ? LORE_OK : LORE_ERR_CORRUPT;
}

TEST(out_of_memory_carries_nothing)
{
    int32_t carrier = 0;
    check_alloc_sweep(support_once, &carrier);
    CHECK_INT(carrier, 2);
    lore_mem_fail_at(1, true);
    (void)support_once(&carrier);
    lore_mem_fail_at(0, false);
    CHECK_INT(carrier, -1);
}

CHECK_MAIN(quotations, signs_and_currencies, negations, changes, nothing_to_compare,
           several_carriers, long_sentences, out_of_memory_carries_nothing)
