/* Fuzz target of config.json and its companions: every parser sees every input.
 *
 * Property: any bytes are a configuration within the documented bounds or refused with a message
 * that names the file; all memory is given back. */
#include "models/model_config_int.h"
#include "tests/fuzz/fuzz.h"

/* A parser took the input (true), or refused it as it should. */
static bool is_taken(lore_status status, const lore_error *err)
{
    if (status != LORE_OK) {
        fuzz_check_refusal(status, err);
        LORE_ASSERT(strstr(err->message, "input.json") != NULL);
    }
    return status == LORE_OK;
}

static void check_decoder(lore_str input)
{
    lore_decoder_config decoder = {0};
    lore_error err = {.status = LORE_OK};
    if (is_taken(lore_decoder_config_parse(input, "input.json", &decoder, &err), &err)) {
        LORE_ASSERT(decoder.layers > 0 && decoder.width > 0 && decoder.ffn > 0);
        LORE_ASSERT(decoder.vocab > 0 && decoder.context > 0 && decoder.eps > 0);
        LORE_ASSERT(decoder.kv_heads > 0 && decoder.heads % decoder.kv_heads == 0);
        LORE_ASSERT(decoder.head_dim > 0 && decoder.head_dim % 2 == 0);
        LORE_ASSERT(decoder.eos_count >= 0 && decoder.eos_count <= LORE_EOS_MAX);
        LORE_ASSERT(decoder.architecture != NULL);
    }
    decoder = (lore_decoder_config){.vocab = 100};
    if (is_taken(lore_generation_config_parse(input, "input.json", &decoder, &err), &err)) {
        LORE_ASSERT(decoder.eos_count >= 0 && decoder.eos_count <= LORE_EOS_MAX);
        for (int32_t i = 0; i < decoder.eos_count; i++) {
            LORE_ASSERT(decoder.eos_ids[i] >= 0 && decoder.eos_ids[i] < decoder.vocab);
        }
    }
}

static void check_encoder(lore_str input)
{
    lore_encoder_config encoder = {0};
    lore_error err = {.status = LORE_OK};
    if (is_taken(lore_encoder_config_parse(input, "input.json", &encoder, &err), &err)) {
        LORE_ASSERT(encoder.layers > 0 && encoder.ffn > 0 && encoder.vocab > 0);
        LORE_ASSERT(encoder.heads > 0 && encoder.width % encoder.heads == 0);
        LORE_ASSERT(encoder.positions > 0 && encoder.eps > 0);
    }
    encoder = (lore_encoder_config){.positions = 128};
    if (is_taken(lore_modules_parse(input, "input.json", &encoder, &err), &err)) {
        size_t length = strnlen(encoder.pooling_path, LORE_MODULE_PATH_CAP);
        LORE_ASSERT(length > 0 && length < LORE_MODULE_PATH_CAP);
        LORE_ASSERT(encoder.pooling_path[0] != '.' && encoder.pooling_path[0] != '/');
        LORE_ASSERT(strstr(encoder.pooling_path, "..") == NULL);
    }
    if (is_taken(lore_pooling_parse(input, "input.json", &encoder, &err), &err)) {
        LORE_ASSERT(encoder.pooling <= LORE_POOL_LAST);
    }
    if (is_taken(lore_sentence_config_parse(input, "input.json", &encoder, &err), &err)) {
        LORE_ASSERT(encoder.tokens_max >= 0 && encoder.tokens_max <= 128);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str input = {(const char *)data, size};
    check_decoder(input);
    check_encoder(input);
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
