/* A query's JSON becomes a query, everything wrong in it is refused by name, and no allocation that
 * fails leaks or breaks. */
#include "api/wire.h"

#include "tests/check.h"

static lore_config config;

static lore_status parse(const char *body, lore_arena *arena, lore_wire_query *query,
                         lore_error *err)
{
    lore_config_default(&config);
    return lore_wire_parse_query(lore_str_from(body), &config, arena, query, err);
}

TEST(a_full_query)
{
    lore_arena arena;
    lore_error err;
    lore_wire_query query = {0};
    lore_arena_init(&arena, 0);
    CHECK_OK(
        parse("{\"question\":\"How?\",\"collection\":[\"a\",\"b\"],\"top_k\":3,"
              "\"filter\":{\"type\":\"eq\",\"key\":\"k\",\"value\":1},\"mode\":\"extract\","
              "\"history\":[{\"role\":\"user\",\"content\":\"x\"}],"
              "\"prompt\":{\"name\":\"p\",\"version\":1,\"variables\":{\"n\":\"v\"}},"
              "\"adapter\":null,\"stream\":true,\"max_tokens\":9,\"temperature\":0.5,"
              "\"top_p\":0.9,\"min_p\":0.05,\"presence_penalty\":-1.5,"
              "\"frequency_penalty\":0.5,\"seed\":42,\"stop\":\"END\",\"metadata\":{\"a\":[1]},"
              "\"something_else\":[{}]}",
              &arena, &query, &err),
        &err);
    CHECK_STR(query.query.question, "How?");
    CHECK_INT(query.query.collection_count, 2);
    CHECK_STR(query.query.collections[1], "b");
    CHECK_INT(query.query.top_k, 3);
    CHECK(query.query.filter != NULL);
    CHECK_INT(query.query.mode, LORE_MODE_EXTRACT);
    CHECK_INT(query.query.history_count, 1);
    CHECK_STR(query.query.prompt_name, "p");
    CHECK_STR(query.query.variables[0].value, "v");
    CHECK_INT(query.query.adapter.len, 0);
    CHECK(query.is_streaming);
    CHECK_INT(query.query.max_tokens, 9);
    CHECK_NEAR(query.query.sampling.temperature, 0.5, 1e-6);
    CHECK_NEAR(query.query.sampling.top_p, 0.9, 1e-6);
    CHECK_NEAR(query.query.sampling.min_p, 0.05, 1e-6);
    CHECK_NEAR(query.query.sampling.presence_penalty, -1.5, 0);
    CHECK_NEAR(query.query.sampling.frequency_penalty, 0.5, 0);
    CHECK_INT(query.query.sampling.top_k, 0); /* the one of the query is of passages */
    CHECK_INT(query.query.sampling.seed, 42);
    CHECK_STR(query.query.stop[0], "END");
    lore_json_free(query.root);
    lore_arena_destroy(&arena);
}

TEST(defaults)
{
    lore_arena arena;
    lore_error err;
    lore_wire_query query = {0};
    lore_arena_init(&arena, 0);
    CHECK_OK(parse("{\"question\":\"How?\",\"history\":null,\"stop\":null}", &arena, &query, &err),
             &err);
    CHECK_INT(query.query.collection_count, 0);
    CHECK_INT(query.query.top_k, 0);
    CHECK_INT(query.query.mode, LORE_MODE_ANSWER);
    CHECK_NEAR(query.query.sampling.top_p, 0, 0); /* as the model's folder says */
    CHECK_NEAR(query.query.sampling.repetition_penalty, 0, 0);
    CHECK_NEAR(query.query.sampling.temperature, 0, 0);
    CHECK_NEAR(query.query.sampling.min_p, 0, 0);
    CHECK_NEAR(query.query.sampling.presence_penalty, 0, 0);
    CHECK_NEAR(query.query.sampling.frequency_penalty, 0, 0);
    CHECK(!query.is_streaming);
    lore_json_free(query.root);
    lore_arena_destroy(&arena);
}

TEST(what_is_wrong_is_named)
{
    static const char *const CASES[][2] = {
        {"", "body"},
        {"[]", "body"},
        {"{\"question\":\"a\"} x", "body"},
        {"{}", "question"},
        {"{\"question\":7}", "question"},
        {"{\"question\":\" \\n\"}", "question"},
        {"{\"question\":\"a\",\"collection\":{}}", "collection"},
        {"{\"question\":\"a\",\"collection\":[\"\"]}", "collection"},
        {"{\"question\":\"a\",\"top_k\":51}", "top_k"},
        {"{\"question\":\"a\",\"filter\":3}", "filter"},
        {"{\"question\":\"a\",\"mode\":\"\"}", "mode"},
        {"{\"question\":\"a\",\"history\":[3]}", "history[0]"},
        {"{\"question\":\"a\",\"history\":[{\"role\":\"system\",\"content\":\"\"}]}",
         "history[0].role"},
        {"{\"question\":\"a\",\"prompt\":{\"version\":3}}", "prompt.version"},
        {"{\"question\":\"a\",\"prompt\":{\"variables\":{\"x\":1}}}", "prompt.variables.x"},
        {"{\"question\":\"a\",\"stream\":1}", "stream"},
        {"{\"question\":\"a\",\"temperature\":2.5}", "temperature"},
        {"{\"question\":\"a\",\"top_p\":0}", "top_p"},
        {"{\"question\":\"a\",\"repetition_penalty\":0}", "repetition_penalty"},
        {"{\"question\":\"a\",\"min_p\":1.1}", "min_p"},
        {"{\"question\":\"a\",\"presence_penalty\":-2.1}", "presence_penalty"},
        {"{\"question\":\"a\",\"frequency_penalty\":\"1\"}", "frequency_penalty"},
        {"{\"question\":\"a\",\"seed\":-1}", "seed"},
        {"{\"question\":\"a\",\"stop\":[1]}", "stop[0]"},
        {"{\"question\":\"a\",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]}",
         "stop"},
        {"{\"question\":\"a\",\"metadata\":1}", "metadata"},
        {"{\"question\":\"a\",\"adapter\":1}", "adapter"}};
    lore_arena arena;
    lore_error err;
    lore_wire_query query = {0};
    lore_arena_init(&arena, 0);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CHECK_FAILS(parse(CASES[i][0], &arena, &query, &err), LORE_ERR_INVALID, &err, CASES[i][1]);
        CHECK_INT(strncmp(err.message, CASES[i][1], strlen(CASES[i][1])), 0);
    }
    lore_arena_destroy(&arena);
}

TEST(limits)
{
    lore_arena arena;
    lore_error err;
    lore_wire_query query = {0};
    lore_buf body;
    lore_arena_init(&arena, 0);
    lore_buf_init(&body, 0);
    lore_buf_printf(&body, "{\"question\":\"%0*d\"}", 8193, 1);
    CHECK_FAILS(parse(lore_buf_c(&body), &arena, &query, &err), LORE_ERR_LIMIT, &err, "8192");
    lore_buf_reset(&body);
    lore_buf_printf(&body, "{\"question\":\"a\",\"history\":[");
    for (int i = 0; i < 33; i++) {
        lore_buf_printf(&body, "%s{\"role\":\"user\",\"content\":\"x\"}", i > 0 ? "," : "");
    }
    lore_buf_printf(&body, "]}");
    CHECK_FAILS(parse(lore_buf_c(&body), &arena, &query, &err), LORE_ERR_LIMIT, &err, "history");
    lore_buf_destroy(&body);
    lore_arena_destroy(&arena);
}

static lore_status parse_once(void *self)
{
    lore_arena arena;
    lore_error err;
    lore_wire_query query = {0};
    lore_arena_init(&arena, 0);
    lore_status status = parse(self, &arena, &query, &err);
    if (status == LORE_OK) {
        lore_json_free(query.root);
    }
    lore_arena_destroy(&arena);
    return status;
}

TEST(every_allocation_may_fail)
{
    check_alloc_sweep(parse_once,
                      "{\"question\":\"How?\",\"collection\":[\"a\"],\"stop\":[\"x\"],"
                      "\"filter\":{\"type\":\"and\",\"filters\":[{\"type\":\"eq\",\"key\":\"k\","
                      "\"value\":1}]},\"history\":[{\"role\":\"user\",\"content\":\"x\"}],"
                      "\"prompt\":{\"variables\":{\"n\":\"v\"}},\"metadata\":{\"a\":1}}");
}

CHECK_MAIN(a_full_query, defaults, what_is_wrong_is_named, limits, every_allocation_may_fail)
