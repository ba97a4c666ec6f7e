/* The body of POST /query, any bytes.
 *
 * Property: parsing ends with LORE_OK or with INVALID, LIMIT or NOMEM and a message; an accepted
 * query is within its bounds, its strings are UTF-8 without NUL inside the body's tree, and the
 * error object of a refusal is valid JSON. */
#include "api/wire.h"
#include "base/utf8.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
    LORE_ASSERT(query->sampling.top_p > 0 && query->sampling.top_p <= 1);
    for (int32_t i = 0; i < query->stop_count; i++) {
        LORE_ASSERT(query->stop[i].len > 0);
    }
}

static void check_refusal(const lore_error *error)
{
    lore_buf out;
    lore_json *root = NULL;
    lore_error err;
    LORE_ASSERT(error->message[0] != '\0');
    LORE_ASSERT(error->status == LORE_ERR_INVALID || error->status == LORE_ERR_LIMIT ||
                error->status == LORE_ERR_NOMEM);
    lore_buf_init(&out, 0);
    int status = lore_wire_error(error, &out);
    LORE_ASSERT(status == 400 || status == 413 || status == 503);
    LORE_ASSERT(lore_json_parse(lore_buf_str(&out), 8, &root, &err) == LORE_OK);
    lore_json_free(root);
    lore_buf_destroy(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lore_config config;
    lore_arena arena;
    lore_error err = {0};
    lore_wire_query parsed = {0};
    if (config.limits.top_k_max == 0) {
        lore_config_default(&config);
    }
    lore_arena_init(&arena, 1 << 20);
    lore_str body = {(const char *)data, size};
    if (lore_wire_parse_query(body, &config, &arena, &parsed, &err) == LORE_OK) {
        check_query(&parsed.query, &config.limits);
        lore_json_free(parsed.root);
    } else {
        check_refusal(&err);
    }
    lore_arena_destroy(&arena);
    return 0;
}
