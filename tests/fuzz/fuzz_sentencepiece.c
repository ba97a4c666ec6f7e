/* Fuzz target of sentencepiece's tokenizer.model.
 *
 * Property: any bytes become a tokenizer.json and a normalizer, or are refused with a reason; of
 * what they become the loader makes a tokenizer or refuses it, and that tokenizer behaves
 * (fuzz_tokens.h); all memory is given back. The first byte picks a config and
 * whether ids are counted as fairseq does. */
#include "models/tokenizer_files_int.h"
#include "models/tokenizer_load_int.h"
#include "tests/fuzz/fuzz_tokens.h"

static const char *const CONFIGS[] = {
    "{}", "{\"legacy\": false, \"add_eos_token\": true}",
    "{\"add_prefix_space\": false, \"added_tokens_decoder\": {\"5\": {\"content\": \"<x>\", "
    "\"special\": true, \"rstrip\": true}}}"};

static void check(lore_str model, const lore_json *config, lore_tokenizer_family family)
{
    lore_buf json;
    lore_normalizer_spec spec;
    lore_tokenizer *t = NULL;
    lore_error err = {.status = LORE_OK};
    lore_buf_init(&json, 0);
    lore_status status = lore_sentencepiece_read(model, config, family, &json, &spec, &err);
    if (status == LORE_OK) {
        status = lore_loader_parse(lore_buf_str(&json), "tokenizer.model", &spec, &t, &err);
    }
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
    } else {
        fuzz_tokens(t, FUZZ_TOKENS_TEXT);
        fuzz_tokens(t, model);
    }
    lore_tokenizer_close(t);
    lore_buf_destroy(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_json *config = NULL;
    if (size == 0) {
        return 0;
    }
    const char *text = CONFIGS[data[0] % (sizeof CONFIGS / sizeof CONFIGS[0])];
    LORE_ASSERT(lore_json_parse(lore_str_from(text), 4, &config, NULL) == LORE_OK);
    check((lore_str){(const char *)data + 1, size - 1}, config,
          data[0] % 8 == 7 ? LORE_FAMILY_XLM_ROBERTA : LORE_FAMILY_OTHER);
    lore_json_free(config);
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
