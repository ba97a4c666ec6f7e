/* The JSON of a query, read (docs/api.md).
 *
 * Every field of POST /query is checked here, type first, then bounds, so that behind this file a
 * lore_query is known to be sane and no limit is asked about twice. The strings of the parsed query
 * are borrowed from the JSON tree, arrays live in the request's arena. Unknown fields are passed
 * over: clients of other systems send many. */
#include "api/wire.h"

#include <stdio.h>

/* Collections that one question may name: each is a scan of its own, more is a mistake. */
enum { COLLECTIONS_MAX = 32 };
/* JSON numbers are exact to 2^53, so that is the largest seed a client can mean. */
static const int64_t SEED_MAX = (int64_t)1 << 53;

/* A string, or an array of strings, under `key`. Absent leaves *count at 0. */
static lore_status parse_strings(const lore_json *root, const char *key, int64_t count_max,
                                 int64_t bytes_max, lore_arena *arena, const lore_str **list,
                                 int32_t *count, lore_error *err)
{
    const lore_json *node = lore_json_get(root, key);
    if (node == NULL || lore_json_is_null(node)) {
        return LORE_OK;
    }
    if (!lore_json_is_string(node) && !lore_json_is_array(node)) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must be a string or an array of strings", key);
    }
    bool is_array = lore_json_is_array(node);
    int32_t wanted = is_array ? lore_json_count(node) : 1;
    if (wanted > count_max) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must hold at most %lld strings", key,
                         (long long)count_max);
    }
    lore_str *strings = LORE_PUSH(arena, lore_str, wanted);
    if (strings == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for %s", key);
    }
    const lore_json *item = is_array ? lore_json_first(node) : node;
    for (int32_t i = 0; i < wanted; i++, item = lore_json_next(item)) {
        if (!lore_json_is_string(item)) {
            return lore_fail(err, LORE_ERR_INVALID, "%s[%d] must be a string", key, (int)i);
        }
        strings[i] = lore_json_str(item);
        if (strings[i].len == 0 || (int64_t)strings[i].len > bytes_max) {
            return lore_fail(err, LORE_ERR_INVALID, "%s must hold strings of 1 to %lld bytes", key,
                             (long long)bytes_max);
        }
    }
    *list = strings;
    *count = wanted;
    return LORE_OK;
}

static lore_status parse_question(const lore_json *root, const lore_limits *limits,
                                  lore_query *query, lore_error *err)
{
    lore_status status = lore_json_get_str_required(root, "", "question", &query->question, err);
    if (status != LORE_OK) {
        return status;
    }
    if (lore_str_trim(query->question).len == 0) {
        return lore_fail(err, LORE_ERR_INVALID, "question must not be empty");
    }
    if ((int64_t)query->question.len > limits->question_bytes_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "question has %zu bytes, the limit is %lld",
                         query->question.len, (long long)limits->question_bytes_max);
    }
    return LORE_OK;
}

static lore_status parse_mode(const lore_json *root, lore_query *query, lore_error *err)
{
    lore_str name = LORE_STR("answer");
    lore_status status = lore_json_get_str(root, "", "mode", &name, err);
    if (status != LORE_OK) {
        return status;
    }
    for (int mode = LORE_MODE_ANSWER; mode <= LORE_MODE_PROMPT; mode++) {
        if (lore_str_equal(name, lore_str_from(lore_mode_name((lore_mode)mode)))) {
            query->mode = (lore_mode)mode;
            return LORE_OK;
        }
    }
    return lore_fail(err, LORE_ERR_INVALID,
                     "mode must be \"answer\", \"extract\", \"context\" or \"prompt\"");
}

static lore_status parse_message(const lore_json *node, int32_t index, lore_prompt_message *message,
                                 lore_error *err)
{
    char path[32];
    snprintf(path, sizeof path, "history[%d]", (int)index);
    if (!lore_json_is_object(node)) {
        return lore_fail(err, LORE_ERR_INVALID, "%s must be an object", path);
    }
    lore_status status = lore_json_get_str_required(node, path, "role", &message->role, err);
    if (status == LORE_OK) {
        status = lore_json_get_str_required(node, path, "content", &message->content, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    /* A role becomes a marker of the prompt: nothing but these two may come from outside. */
    if (!lore_str_equal(message->role, LORE_STR("user")) &&
        !lore_str_equal(message->role, LORE_STR("assistant"))) {
        return lore_fail(err, LORE_ERR_INVALID, "%s.role must be \"user\" or \"assistant\"", path);
    }
    return LORE_OK;
}

static lore_status parse_history(const lore_json *root, const lore_limits *limits,
                                 lore_arena *arena, lore_query *query, lore_error *err)
{
    const lore_json *node = lore_json_get(root, "history");
    if (node == NULL || lore_json_is_null(node)) {
        return LORE_OK;
    }
    if (!lore_json_is_array(node)) {
        return lore_fail(err, LORE_ERR_INVALID, "history must be an array");
    }
    int32_t count = lore_json_count(node);
    if (count > limits->history_messages_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "history has %d messages, the limit is %lld",
                         (int)count, (long long)limits->history_messages_max);
    }
    lore_prompt_message *messages = LORE_PUSH(arena, lore_prompt_message, count);
    if (messages == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for history");
    }
    int64_t bytes = 0;
    const lore_json *item = lore_json_first(node);
    for (int32_t i = 0; i < count; i++, item = lore_json_next(item)) {
        lore_status status = parse_message(item, i, &messages[i], err);
        if (status != LORE_OK) {
            return status;
        }
        bytes += (int64_t)messages[i].content.len;
    }
    if (bytes > limits->history_bytes_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "history has %lld bytes, the limit is %lld",
                         (long long)bytes, (long long)limits->history_bytes_max);
    }
    query->history = messages;
    query->history_count = count;
    return LORE_OK;
}

static lore_status parse_variables(const lore_json *prompt, const lore_limits *limits,
                                   lore_arena *arena, lore_query *query, lore_error *err)
{
    const lore_json *node = lore_json_get(prompt, "variables");
    if (node == NULL || lore_json_is_null(node)) {
        return LORE_OK;
    }
    if (!lore_json_is_object(node)) {
        return lore_fail(err, LORE_ERR_INVALID, "prompt.variables must be an object");
    }
    int32_t count = lore_json_count(node);
    if (count > limits->variables_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "prompt.variables has %d members, the limit is %lld",
                         (int)count, (long long)limits->variables_max);
    }
    lore_prompt_variable *variables = LORE_PUSH(arena, lore_prompt_variable, count);
    if (variables == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for prompt.variables");
    }
    const lore_json *item = lore_json_first(node);
    for (int32_t i = 0; i < count; i++, item = lore_json_next(item)) {
        variables[i].name = lore_json_key(item);
        if (!lore_json_is_string(item)) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "prompt.variables." LORE_STR_FMT " must be a string",
                             LORE_STR_ARG(variables[i].name));
        }
        variables[i].value = lore_json_str(item);
    }
    query->variables = variables;
    query->variable_count = count;
    return LORE_OK;
}

static lore_status parse_prompt(const lore_json *root, const lore_limits *limits, lore_arena *arena,
                                lore_query *query, lore_error *err)
{
    const lore_json *node = lore_json_get(root, "prompt");
    if (node == NULL || lore_json_is_null(node)) {
        return LORE_OK;
    }
    if (!lore_json_is_object(node)) {
        return lore_fail(err, LORE_ERR_INVALID, "prompt must be an object");
    }
    int64_t version = 1; /* prompts are files for now: each has one version */
    lore_status status = lore_json_get_str(node, "prompt", "name", &query->prompt_name, err);
    if (status == LORE_OK) {
        status = lore_json_get_int(node, "prompt", "version", 1, 1, &version, err);
    }
    if (status == LORE_OK) {
        status = parse_variables(node, limits, arena, query, err);
    }
    return status;
}

/* top_k of a query is of passages; that of sampling is the model's folder's. */
static lore_status parse_sampling(const lore_json *root, lore_query *query, lore_error *err)
{
    double temperature = 0, top_p = 0, min_p = 0, repetition = 0, presence = 0, frequency = 0;
    int64_t seed = 0;
    const struct {
        const char *key;
        double least, most;
        double *value; /* 0 stays where there is none: off, or as the model's folder says */
    } numbers[] = {{"temperature", 0, 2, &temperature},
                   {"top_p", 0.001, 1, &top_p},
                   {"min_p", 0, 1, &min_p},
                   {"repetition_penalty", LORE_PENALTY_MIN, LORE_PENALTY_MAX, &repetition},
                   {"presence_penalty", -2, 2, &presence},
                   {"frequency_penalty", -2, 2, &frequency}};
    lore_status status = lore_json_get_int(root, "", "seed", 0, SEED_MAX, &seed, err);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && status == LORE_OK; i++) {
        status = lore_json_get_number(root, "", numbers[i].key, numbers[i].least, numbers[i].most,
                                      numbers[i].value, err);
    }
    if (status == LORE_OK) {
        query->sampling = (lore_sampling){.temperature = (float)temperature,
                                          .top_p = (float)top_p,
                                          .seed = (uint64_t)seed,
                                          .repetition_penalty = (float)repetition,
                                          .min_p = (float)min_p,
                                          .presence_penalty = (float)presence,
                                          .frequency_penalty = (float)frequency};
    }
    return status;
}

static lore_status parse_bounds(const lore_json *root, const lore_limits *limits, lore_query *query,
                                lore_error *err)
{
    int64_t top_k = 0, max_tokens = 0;
    lore_status status = lore_json_get_int(root, "", "top_k", 1, limits->top_k_max, &top_k, err);
    if (status == LORE_OK) {
        status = lore_json_get_int(root, "", "max_tokens", 1, limits->answer_tokens_max,
                                   &max_tokens, err);
    }
    if (status == LORE_OK) {
        query->top_k = (int32_t)top_k;
        query->max_tokens = (int32_t)max_tokens;
    }
    return status;
}

/* metadata is the client's own note: it must be an object and of bounded size, nothing reads it. */
static lore_status check_metadata(const lore_json *root, const lore_limits *limits, lore_error *err)
{
    const lore_json *node = lore_json_get(root, "metadata");
    if (node == NULL || lore_json_is_null(node)) {
        return LORE_OK;
    }
    if (!lore_json_is_object(node)) {
        return lore_fail(err, LORE_ERR_INVALID, "metadata must be an object");
    }
    lore_buf text;
    lore_buf_init(&text, 0);
    lore_status status = lore_json_print(node, &text, err);
    if (status == LORE_OK && (int64_t)text.len > limits->metadata_bytes_max) {
        status = lore_fail(err, LORE_ERR_LIMIT, "metadata has %zu bytes, the limit is %lld",
                           text.len, (long long)limits->metadata_bytes_max);
    }
    lore_buf_destroy(&text);
    return status;
}

static lore_status parse_filter(const lore_json *root, const lore_limits *limits, lore_arena *arena,
                                lore_query *query, lore_error *err)
{
    const lore_json *node = lore_json_get(root, "filter");
    if (node == NULL || lore_json_is_null(node)) {
        return LORE_OK;
    }
    return lore_filter_parse(node, limits, arena, &query->filter, err);
}

static lore_status parse_fields(const lore_json *root, const lore_config *config, lore_arena *arena,
                                lore_wire_query *parsed, lore_error *err)
{
    const lore_limits *limits = &config->limits;
    lore_query *query = &parsed->query;
    if (!lore_json_is_object(root)) {
        return lore_fail(err, LORE_ERR_INVALID, "body must be a JSON object");
    }
    lore_status status = parse_question(root, limits, query, err);
    if (status == LORE_OK) {
        status = parse_strings(root, "collection", COLLECTIONS_MAX, 128, arena, &query->collections,
                               &query->collection_count, err);
    }
    if (status == LORE_OK) {
        status = parse_bounds(root, limits, query, err);
    }
    if (status == LORE_OK) {
        status = parse_filter(root, limits, arena, query, err);
    }
    if (status == LORE_OK) {
        status = parse_mode(root, query, err);
    }
    if (status == LORE_OK) {
        status = parse_history(root, limits, arena, query, err);
    }
    if (status == LORE_OK) {
        status = parse_prompt(root, limits, arena, query, err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_str(root, "", "adapter", &query->adapter, err);
    }
    if (status == LORE_OK && query->adapter.len > LORE_ADAPTER_NAME_MAX) { /* it goes to the log */
        status = lore_fail(err, LORE_ERR_INVALID, "adapter: has %zu bytes, at most %d are allowed",
                           query->adapter.len, (int)LORE_ADAPTER_NAME_MAX);
    }
    if (status == LORE_OK) {
        status = lore_json_get_bool(root, "", "stream", &parsed->is_streaming, err);
    }
    if (status == LORE_OK) {
        status = parse_sampling(root, query, err);
    }
    if (status == LORE_OK) {
        status = parse_strings(root, "stop", limits->stop_strings_max, limits->stop_bytes_max,
                               arena, &query->stop, &query->stop_count, err);
    }
    return status == LORE_OK ? check_metadata(root, limits, err) : status;
}

lore_status lore_wire_parse_query(lore_str body, const lore_config *config, lore_arena *arena,
                                  lore_wire_query *parsed, lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = lore_json_parse(body, (int32_t)config->limits.json_depth_max, &root, err);
    if (status != LORE_OK) {
        if (status == LORE_ERR_NOMEM) {
            return status;
        }
        /* Nested too deep is a limit, but not one of size: 400, like everything else wrong here. */
        lore_error reason = *err;
        return lore_fail(err, LORE_ERR_INVALID, "body: %s", reason.message);
    }
    lore_wire_query query = {.root = root};
    status = parse_fields(root, config, arena, &query, err);
    if (status != LORE_OK) {
        lore_json_free(root);
        return status;
    }
    *parsed = query;
    return LORE_OK;
}
