/* Fuzz target of what `lore eval` reads: questions up to the first NUL, behind it judgements, and
 * the same bytes as a table of an earlier run.
 *
 * Property: everything is read or refused with a message. What is read is in order of id, each id
 * once; what is left to evaluate has a relevant document, an ideal that falls, and counts that add
 * up; a table that is read is written and read again as the same table. */
#include "base/config.h"
#include "eval/table.h"
#include "eval/topics.h"
#include "tests/fuzz/fuzz.h"

static void check_order(const lore_topic *items, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        LORE_ASSERT(items[i].id.len > 0 && items[i].text.len > 0);
        LORE_ASSERT(i == 0 || lore_str_compare(items[i - 1].id, items[i].id) < 0);
    }
}

static void check_topics(const lore_topics *topics, int32_t questions)
{
    LORE_ASSERT(topics->count > 0);
    LORE_ASSERT(topics->count + topics->unjudged + topics->irrelevant == questions);
    check_order(topics->items, topics->count);
    for (int32_t t = 0; t < topics->count; t++) {
        const lore_topic *topic = &topics->items[t];
        LORE_ASSERT(topic->relevant_count > 0 && topic->relevant_count <= topic->judgement_count);
        for (int32_t i = 0; i < topic->relevant_count; i++) {
            LORE_ASSERT(topic->ideal[i] > 0 && (i == 0 || topic->ideal[i] <= topic->ideal[i - 1]));
        }
    }
}

static void check_table(lore_str text, lore_arena *arena)
{
    lore_error err = {.status = LORE_OK};
    lore_table table, again;
    lore_status status = lore_table_parse(text, "table", arena, &table, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        return;
    }
    lore_buf first, second;
    lore_buf_init(&first, 0);
    lore_buf_init(&second, 0);
    lore_table_write(&table, &first);
    status = lore_table_parse(lore_buf_str(&first), "table", arena, &again, &err);
    LORE_ASSERT(status == LORE_OK);
    lore_table_write(&again, &second);
    LORE_ASSERT(lore_str_equal(lore_buf_str(&first), lore_buf_str(&second)));
    lore_buf_destroy(&first);
    lore_buf_destroy(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lore_str all = {(const char *)data, size};
    size_t nul = lore_str_find(all, (lore_str){"", 1}, 0);
    lore_str questions = lore_str_slice(all, 0, nul == SIZE_MAX ? size : nul);
    lore_str behind = nul == SIZE_MAX ? (lore_str){"", 0} : lore_str_slice(all, nul + 1, size);
    lore_config config;
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_topic_list list = {0};
    lore_topics topics = {0};
    int64_t start_ns = fuzz_cpu_ns();
    lore_config_default(&config);
    lore_arena_init(&arena, 0);
    lore_status status =
        lore_topics_parse_answers(questions, "qa", &config.limits, &arena, &list, &err);
    if (status == LORE_OK) {
        check_order(list.items, list.count);
    } else {
        fuzz_check_refusal(status, &err);
    }
    status = lore_topics_parse_queries(questions, "queries", &config.limits, &arena, &list, &err);
    if (status == LORE_OK) {
        int32_t count = list.count;
        check_order(list.items, count);
        status = lore_topics_join_judgements(behind, "qrels", &list, &arena, &topics, &err);
        if (status == LORE_OK) {
            check_topics(&topics, count);
        }
    }
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
    }
    check_table(behind, &arena);
    lore_arena_destroy(&arena);
    fuzz_check_cost(start_ns, size);
    return 0;
}
