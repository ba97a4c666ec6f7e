/* Fuzz target of an encoder's config.json and its companions: every parser sees every input.
 *
 * Property: any bytes are a configuration within the documented bounds or refused with a message
 * that names the file; all memory is given back. */
#include "models/encoder_config_int.h"
#include "tests/fuzz/fuzz.h"

enum { POSITIONS = 130, START = 2, WIDTH = 64 };

/* A parser took the input (true), or refused it as it should. */
static bool is_taken(lore_status status, const lore_error *err)
{
    if (status != LORE_OK) {
        fuzz_check_refusal(status, err);
        LORE_ASSERT(strstr(err->message, "input.json") != NULL);
    }
    return status == LORE_OK;
}

static void check_network(const lore_encoder_config *c)
{
    LORE_ASSERT(c->family != NULL && c->layers > 0 && c->ffn > 0 && c->vocab > 0);
    LORE_ASSERT(c->heads > 0 && c->kv_heads > 0 && c->heads % c->kv_heads == 0);
    LORE_ASSERT(c->head_dim > 0 && c->head_dim <= LORE_WIDTH_MAX && c->global_every > 0);
    LORE_ASSERT(c->tokens_max > 0 && c->tokens_max <= c->positions - c->position_start);
    LORE_ASSERT(c->eps > 0 && c->window >= 0);
    for (int i = 0; i < 2; i++) {
        LORE_ASSERT(c->rope[i].dim == 0 || (c->rope[i].dim % 2 == 0 && c->rope[i].theta > 1));
    }
}

static void check_path(const char *path)
{
    size_t length = strnlen(path, LORE_MODULE_PATH_CAP);
    LORE_ASSERT(length > 0 && length < LORE_MODULE_PATH_CAP && path[0] != '.');
    LORE_ASSERT(strchr(path, '/') == NULL);
}

static void check_modules(lore_str input)
{
    lore_encoder_config c = {.width = WIDTH, .positions = POSITIONS, .position_start = START};
    lore_error err = {.status = LORE_OK};
    if (is_taken(lore_modules_parse(input, "input.json", &c, &err), &err)) {
        check_path(c.pooling_path);
        LORE_ASSERT(c.dense_count >= 0 && c.dense_count <= LORE_DENSE_MAX);
        for (int32_t i = 0; i < c.dense_count; i++) {
            check_path(c.dense[i].path);
        }
    }
    if (is_taken(lore_pooling_parse(input, "input.json", &c, &err), &err)) {
        LORE_ASSERT(c.pooling <= LORE_POOL_LAST);
    }
    c.dense_count = 1;
    c.dense[0] = (lore_dense_config){0};
    if (is_taken(lore_dense_parse(input, "input.json", &c, &err), &err)) {
        LORE_ASSERT(c.dense[0].in == WIDTH && c.dense[0].out > 0);
    }
}

static void check_companions(lore_str input)
{
    lore_encoder_config c = {.width = WIDTH, .positions = POSITIONS, .position_start = START};
    lore_error err = {.status = LORE_OK};
    c.tokens_max = POSITIONS - START;
    if (is_taken(lore_text_length_parse(input, "input.json", &c, &err), &err)) {
        LORE_ASSERT(c.tokens_max > 0 && c.tokens_max <= POSITIONS - START);
    }
    if (is_taken(lore_sentence_config_parse(input, "input.json", &c, &err), &err)) {
        LORE_ASSERT(c.tokens_max > 0 && c.tokens_max <= POSITIONS - START);
    }
    (void)is_taken(lore_prompts_parse(input, "input.json", &c, &err), &err);
    (void)is_taken(lore_encoder_card_parse(input, "input.json", &c, &err), &err);
    LORE_ASSERT(strnlen(c.query_prompt, LORE_PROMPT_CAP) < LORE_PROMPT_CAP);
    LORE_ASSERT(strnlen(c.document_prompt, LORE_PROMPT_CAP) < LORE_PROMPT_CAP);
    LORE_ASSERT(c.dimensions >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str input = {(const char *)data, size};
    lore_encoder_config c;
    lore_error err = {.status = LORE_OK};
    if (is_taken(lore_encoder_config_parse(input, "input.json", &c, &err), &err)) {
        check_network(&c);
    }
    if (is_taken(lore_classifier_config_parse(input, "input.json", &c, &err), &err)) {
        check_network(&c);
        LORE_ASSERT(lore_encoder_config_out(&c) == 1);
    }
    check_modules(input);
    check_companions(input);
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
