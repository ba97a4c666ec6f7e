/* Fuzz target of the body of POST /query and POST /retrieve.
 *
 * Property: a body is a query or refused as INVALID or LIMIT with a message; an accepted query is
 * within all its bounds and its strings are UTF-8; the error object of a refusal is valid JSON with
 * that message in it; all memory is given back. */
#include "api/wire.h"
#include "tests/fuzz/fuzz.h"

static void check_query(const lore_query *query, const lore_limits *limits)
{
    LORE_ASSERT(query->question.len > 0);
    LORE_ASSERT((int64_t)query->question.len <= limits->question_bytes_max);
    LORE_ASSERT(lore_utf8_valid(query->question) == query->question.len);
    LORE_ASSERT(query->top_k >= 0 && query->top_k <= limits->top_k_max);
    LORE_ASSERT(query->max_tokens >= 0 && query->max_tokens <= limits->answer_tokens_max);
    LORE_ASSERT(query->history_count <= limits->history_messages_max);
    LORE_ASSERT(query->stop_count <= limits->stop_strings_max);
    LORE_ASSERT(query->variable_count <= limits->variables_max);
    LORE_ASSERT(query->sampling.temperature >= 0 && query->sampling.temperature <= 2);
    LORE_ASSERT(query->sampling.top_p >= 0 && query->sampling.top_p <= 1); /* 0: not given */
    for (int32_t i = 0; i < query->stop_count; i++) {
        LORE_ASSERT(query->stop[i].len > 0);
        LORE_ASSERT((int64_t)query->stop[i].len <= limits->stop_bytes_max);
    }
    size_t history_bytes = 0;
    for (int32_t i = 0; i < query->history_count; i++) {
        history_bytes += query->history[i].content.len;
        LORE_ASSERT(lore_str_equal(query->history[i].role, LORE_STR("user")) ||
                    lore_str_equal(query->history[i].role, LORE_STR("assistant")));
    }
    LORE_ASSERT((int64_t)history_bytes <= limits->history_bytes_max);
}

static void check_refusal(const lore_error *error)
{
    lore_buf out;
    lore_json *root = NULL;
    lore_error err;
    LORE_ASSERT(error->status == LORE_ERR_INVALID || error->status == LORE_ERR_LIMIT);
    lore_buf_init(&out, 0);
    int status = lore_wire_error(error, &out);
    LORE_ASSERT(status == 400 || status == 413);
    LORE_ASSERT(lore_json_parse(lore_buf_str(&out), 8, &root, &err) == LORE_OK);
    LORE_ASSERT(lore_json_str(lore_json_get(lore_json_get(root, "error"), "message")).len > 0);
    lore_json_free(root);
    lore_buf_destroy(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lore_config config;
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_wire_query parsed = {0};
    if (config.limits.top_k_max == 0) {
        lore_config_default(&config);
    }
    lore_arena_init(&arena, 0);
    lore_str body = {(const char *)data, size};
    lore_status status = lore_wire_parse_query(body, &config, &arena, &parsed, &err);
    if (status == LORE_OK) {
        check_query(&parsed.query, &config.limits);
        lore_json_free(parsed.root);
    } else {
        fuzz_check_refusal(status, &err);
        check_refusal(&err);
    }
    fuzz_check_cost(start_ns, size);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
