/* Property: any bytes are a configuration within the documented bounds or an error. Every parser of
 * a model folder's small files sees every input. */
#include "models/model_config_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lore_str input = {(const char *)data, size};
    lore_decoder_config decoder = {0};
    lore_encoder_config encoder = {0};
    if (lore_decoder_config_parse(input, "input", &decoder, NULL) == LORE_OK) {
        LORE_ASSERT(decoder.kv_heads > 0 && decoder.heads % decoder.kv_heads == 0);
        LORE_ASSERT(decoder.head_dim > 0 && decoder.head_dim % 2 == 0);
        LORE_ASSERT(decoder.eos_count <= LORE_EOS_MAX);
    }
    decoder.vocab = 100;
    if (lore_generation_config_parse(input, "input", &decoder, NULL) == LORE_OK) {
        LORE_ASSERT(decoder.eos_count <= LORE_EOS_MAX);
    }
    if (lore_encoder_config_parse(input, "input", &encoder, NULL) == LORE_OK) {
        LORE_ASSERT(encoder.heads > 0 && encoder.width % encoder.heads == 0);
    }
    encoder.positions = 128;
    if (lore_modules_parse(input, "input", &encoder, NULL) == LORE_OK) {
        LORE_ASSERT(encoder.pooling_path[0] != '\0' && encoder.pooling_path[0] != '.');
    }
    if (lore_pooling_parse(input, "input", &encoder, NULL) == LORE_OK) {
        LORE_ASSERT(encoder.pooling <= LORE_POOL_LAST);
    }
    if (lore_sentence_config_parse(input, "input", &encoder, NULL) == LORE_OK) {
        LORE_ASSERT(encoder.tokens_max <= 128);
    }
    return 0;
}
