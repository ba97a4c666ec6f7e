/* Fuzz target of a decoder's config.json and generation_config.json: every parser sees every input.
 *
 * Property: any bytes are a configuration within the documented bounds or refused with a message
 * that names the file; all memory is given back. */
#include "models/model_config_int.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

/* A parser took the input (true), or refused it as it should. */
static bool is_taken(lore_status status, const lore_error *err)
{
    if (status != LORE_OK) {
        fuzz_check_refusal(status, err);
        LORE_ASSERT(strstr(err->message, "input.json") != NULL);
    }
    return status == LORE_OK;
}

/* Rows of the tables at both ends: finite, and no larger than the scale of the result. */
static void check_rope(const lore_decoder_config *decoder)
{
    static float cosine[LORE_HEAD_DIM_MAX], sine[LORE_HEAD_DIM_MAX];
    lore_rope_config rope = decoder->rope;
    LORE_ASSERT(rope.dim >= 2 && rope.dim <= decoder->head_dim && rope.dim % 2 == 0);
    for (int i = 0; i < 2; i++) {
        const int32_t rows = lore_rope_row_count(&rope, decoder->context);
        LORE_ASSERT(rows >= decoder->context);
        lore_rope_rows(&rope, i == 0 ? 0 : rows - 1, 1, cosine, sine);
        for (int32_t k = 0; k < rope.dim / 2; k++) {
            LORE_ASSERT(fabs(cosine[k]) <= rope.scale * 1.001);
            LORE_ASSERT(fabs(sine[k]) <= rope.scale * 1.001);
        }
    }
}

static void check_decoder(lore_str input)
{
    lore_decoder_config decoder = {0};
    lore_error err = {.status = LORE_OK};
    if (is_taken(lore_decoder_config_parse(input, "input.json", &decoder, &err), &err)) {
        LORE_ASSERT(decoder.family != NULL);
        LORE_ASSERT(decoder.layers > 0 && decoder.layers <= LORE_LAYERS_MAX);
        LORE_ASSERT(decoder.width > 0 && decoder.ffn > 0 && decoder.vocab > 0 && decoder.eps > 0);
        LORE_ASSERT(decoder.context > 0 && decoder.context <= LORE_CONTEXT_MAX);
        LORE_ASSERT(decoder.kv_heads > 0 && decoder.heads % decoder.kv_heads == 0);
        LORE_ASSERT(decoder.head_dim > 0 && decoder.head_dim % 2 == 0);
        LORE_ASSERT(decoder.window >= 0 && decoder.attention_softcap >= 0);
        LORE_ASSERT(isfinite(decoder.attention_scale) && decoder.attention_scale > 0);
        LORE_ASSERT(decoder.eos_count >= 0 && decoder.eos_count <= LORE_EOS_MAX);
        check_rope(&decoder);
    }
    decoder = (lore_decoder_config){.vocab = 100};
    if (is_taken(lore_generation_config_parse(input, "input.json", &decoder, &err), &err)) {
        LORE_ASSERT(decoder.eos_count >= 0 && decoder.eos_count <= LORE_EOS_MAX);
        for (int32_t i = 0; i < decoder.eos_count; i++) {
            LORE_ASSERT(decoder.eos_ids[i] >= 0 && decoder.eos_ids[i] < decoder.vocab);
        }
        LORE_ASSERT(decoder.generation.temperature >= 0 && decoder.generation.top_k >= 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str input = {(const char *)data, size};
    check_decoder(input);
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
