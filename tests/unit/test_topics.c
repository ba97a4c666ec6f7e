/* Questions and judgements: every format, what is left out, and what is refused by name. */
#include "tests/check.h"

#include "base/config.h"
#include "eval/topics.h"

static lore_arena arena;

static lore_status parse(const char *queries, const char *qrels, lore_topics *topics,
                         lore_error *err)
{
    lore_config config;
    lore_topic_list list = {0};
    lore_config_default(&config);
    lore_status status = lore_topics_parse_queries(lore_str_from(queries), "queries",
                                                   &config.limits, &arena, &list, err);
    return status == LORE_OK ? lore_topics_join_judgements(lore_str_from(qrels), "qrels", &list,
                                                           &arena, topics, err)
                             : status;
}

static void check_two(const char *queries, const char *qrels)
{
    lore_error err = {0};
    lore_topics topics = {0};
    CHECK_OK(parse(queries, qrels, &topics, &err), &err);
    CHECK_INT(topics.count, 2);
    const lore_topic *first = &topics.items[0];
    CHECK(lore_str_equal(first->id, LORE_STR("1")));
    CHECK(lore_str_equal(first->text, LORE_STR("what eats frogs")));
    CHECK_INT(first->judgement_count, 2);
    CHECK(lore_str_equal(first->judgements[0].document, LORE_STR("d1")));
    CHECK_INT(first->judgements[0].grade, 0);
    CHECK_INT(first->judgements[1].grade, 2);
    CHECK_INT(first->relevant_count, 1);
    CHECK_INT(first->ideal[0], 2);
    lore_arena_destroy(&arena);
}

/* BEIR, TREC and tables of queries meet BEIR and TREC judgements. */
TEST(formats)
{
    const char *const jsonl = "\xef\xbb\xbf{\"_id\": \"2\", \"text\": \"when\"}\r\n\n"
                              "{\"id\": 1, \"text\": \" what eats frogs \"}";
    const char *const tsv = "2\twhen\n1\twhat eats frogs\n";
    const char *const trec = "<top>\n<num> Number: 1\n<title> what eats frogs\n<desc> x\n</top>\n"
                             "<top>\n<num>2</num>\n<title>when</title>\n</top>\n";
    const char *const beir = "query-id\tcorpus-id\tscore\n1\td2\t2\n2\td1\t1\n1\td1\t0\n";
    const char *const plain = "1 0 d2 2\r\n2  0 d1 1\n1\t0\td1\t0";
    const char *const queries[] = {jsonl, tsv, trec};
    for (size_t i = 0; i < 3; i++) {
        check_two(queries[i], beir);
        check_two(queries[i], plain);
    }
}

/* What cannot be evaluated is left out and counted. */
TEST(counts_what_is_left_out)
{
    lore_error err = {0};
    lore_topics topics = {0};
    CHECK_OK(parse("a\tx\nb\tx\nc\tx\ne\tx\n", "b 0 d 1\nc 0 d 0\nd 0 d 1\nc 0 e -2\nb 0 d 1\n",
                   &topics, &err),
             &err);
    CHECK_INT(topics.count, 1);
    CHECK(lore_str_equal(topics.items[0].id, LORE_STR("b")));
    CHECK_INT(topics.items[0].judgement_count, 1); /* the same judgement twice is one */
    CHECK_INT(topics.unjudged, 2);
    CHECK_INT(topics.irrelevant, 1);
    CHECK_INT(topics.unknown, 1);
    lore_arena_destroy(&arena);
}

TEST(refuses_by_name)
{
    const struct {
        const char *queries, *qrels, *words;
    } cases[] = {
        {"", "1 0 d 1", "'queries' has no questions"},
        {"\n \n", "1 0 d 1", "'queries' has no questions"},
        {"1\tx\n1\ty\n", "1 0 d 1", "'1' stands there twice"},
        {"{\"id\":\"1\"}", "1 0 d 1", "'queries' line 1: text"},
        {"{\"id\":\"1\",\"text\":\"x\"}\n{", "1 0 d 1", "'queries' line 2"},
        {"{\"text\":\"x\"}", "1 0 d 1", "line 1: an id must have"},
        {"{\"id\":[],\"text\":\"x\"}", "1 0 d 1", "id must be a string"},
        {"{\"id\":\"a\\tb\",\"text\":\"x\"}", "1 0 d 1", "control characters"},
        {"{\"id\":\"a\",\"text\":\"  \"}", "1 0 d 1", "line 1: a question must have"},
        {"no tab here", "1 0 d 1", "line 1: a question is an id, a tab"},
        {"<top>\n<num> 1\n</top>", "1 0 d 1", "line 1: a topic needs"},
        {"1\t\xff", "1 0 d 1", "'queries' is not UTF-8"},
        {"1\tx", "", "judges nothing relevant"},
        {"1\tx", "query\tdoc\tgrade\n", "judges nothing relevant"},
        {"1\tx", "1 0 d 0", "judges nothing relevant"},
        {"1\tx", "2 0 d 1", "judges nothing relevant"},
        {"1\tx", "1 0 d 1\n1 d", "'qrels' line 2: a judgement is"},
        {"1\tx", "1 0 d 1 5", "'qrels' line 1: a judgement is"},
        {"1\tx", "1 0 d 1\n1 0 e high", "'qrels' line 2: a judgement is"},
        {"1\tx", "1 0 d 0.5", "'qrels' line 1: a judgement is"},
        {"1\tx", "1 0 d 99999999999", "'qrels' line 1: a judgement is"},
        {"1\tx", "1\t\t1\n", "'qrels' line 1: an id must have"},
        {"1\tx", "1 0 d 1\n1 0 d 2", "'1' judges document 'd' twice"},
        {"1\tx", "1 0 \xff 1", "'qrels' is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lore_error err = {0};
        lore_topics topics = {0};
        CHECK_INT(parse(cases[i].queries, cases[i].qrels, &topics, &err), LORE_ERR_INVALID);
        if (strstr(err.message, cases[i].words) == NULL) {
            CHECK_STOP("'%s' is not in '%s'", cases[i].words, err.message);
        }
        lore_arena_destroy(&arena);
    }
}

static lore_status parse_answers(const char *text, lore_topic_list *list, lore_error *err)
{
    lore_config config;
    lore_config_default(&config);
    return lore_topics_parse_answers(lore_str_from(text), "qa", &config.limits, &arena, list, err);
}

/* answers or answer; none means that nothing answers it; a line number stands in for an id. */
TEST(answers)
{
    lore_error err = {0};
    lore_topic_list list = {0};
    CHECK_OK(parse_answers("{\"id\":\"b\",\"question\":\"x\",\"answers\":[\"one\",\" \",\"two\"]}\n"
                           "{\"question\":\"y\",\"answer\":null}\n"
                           "{\"id\":\"c\",\"question\":\"z\",\"answer\":\"three\","
                           "\"document\":\"z.md\"}\n{\"id\":\"d\",\"question\":\"w\","
                           "\"answers\":[]}",
                           &list, &err),
             &err);
    CHECK_INT(list.count, 4);
    CHECK(lore_str_equal(list.items[0].id, LORE_STR("2")));
    CHECK_INT(list.items[0].answer_count, 0);
    CHECK_INT(list.items[1].answer_count, 2);
    CHECK(lore_str_equal(list.items[1].answers[1], LORE_STR("two")));
    CHECK(lore_str_equal(list.items[2].document, LORE_STR("z.md")));
    CHECK_INT(list.items[3].answer_count, 0);
    lore_arena_destroy(&arena);
    const char *const bad[] = {"{\"question\":\"x\"}",
                               "{\"answer\":\"x\"}",
                               "{\"question\":\"x\",\"answers\":\"x\"}",
                               "{\"question\":\"x\",\"answers\":[1]}",
                               "{\"question\":\"x\",\"answer\":1}",
                               "[]",
                               ""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_INT(parse_answers(bad[i], &list, &err), LORE_ERR_INVALID);
        CHECK(strstr(err.message, "'qa'") != NULL);
        lore_arena_destroy(&arena);
    }
}

/* Every failing allocation is an error, and nothing leaks. */
TEST(out_of_memory)
{
    for (int64_t n = 1;; n++) {
        lore_error err = {0};
        lore_topics topics = {0};
        lore_mem_fail_at(n, true);
        lore_status status =
            parse("{\"id\":\"1\",\"text\":\"x\"}", "1 0 d 1\n1 0 e 2\n", &topics, &err);
        lore_mem_fail_at(0, false);
        lore_arena_destroy(&arena);
        if (status == LORE_OK) {
            CHECK(n > 1);
            break;
        }
        CHECK_INT(status, LORE_ERR_NOMEM);
    }
}

CHECK_MAIN(formats, counts_what_is_left_out, refuses_by_name, answers, out_of_memory)
