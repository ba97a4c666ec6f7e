/* Fuzz target of the vocabularies that are lines of text: tiktoken, BERT's vocab.txt, GPT-2's
 * vocab.json and merges.txt (one behind the other, parted by a NUL). The first byte says which.
 *
 * Property: any bytes become a tokenizer.json, or are refused with a reason; of what they become
 * the loader makes a tokenizer or refuses it, and that tokenizer behaves (fuzz_tokens.h); all
 * memory is given back. */
#include "models/tokenizer_files_int.h"
#include "tests/fuzz/fuzz_tokens.h"

#define CONFIG                                                                               \
    "{\"tokenizer_class\": \"Qwen2Tokenizer\", \"unk_token\": \"a\", \"cls_token\": \"b\", " \
    "\"added_tokens_decoder\": {\"7\": {\"content\": \"<x>\"}}}"

static lore_status read_as(int kind, lore_str text, const lore_json *config, lore_buf *json,
                           lore_error *err)
{
    if (kind == 0) {
        return lore_tiktoken_read(text, config, LORE_FAMILY_LLAMA, json, err);
    }
    if (kind == 1) {
        return lore_bert_vocab_read(text, config, json, err);
    }
    size_t edge = lore_str_find(text, LORE_STR("\0"), 0);
    edge = edge == SIZE_MAX ? text.len : edge;
    lore_str merges = lore_str_slice(text, edge < text.len ? edge + 1 : edge, text.len);
    return lore_gpt2_vocab_read(lore_str_slice(text, 0, edge), merges, config,
                                config != NULL ? LORE_FAMILY_QWEN : LORE_FAMILY_ROBERTA, json, err);
}

static void check(int kind, lore_str text, const lore_json *config)
{
    lore_buf json;
    lore_tokenizer *t = NULL;
    lore_error err = {.status = LORE_OK};
    lore_buf_init(&json, 0);
    lore_status status = read_as(kind, text, config, &json, &err);
    if (status == LORE_OK) {
        status = lore_tokenizer_parse(lore_buf_str(&json), "vocab", &t, &err);
    }
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
    } else {
        fuzz_tokens(t, FUZZ_TOKENS_TEXT);
        fuzz_tokens(t, text);
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
    LORE_ASSERT(lore_json_parse(LORE_STR(CONFIG), 4, &config, NULL) == LORE_OK);
    check(data[0] % 3, (lore_str){(const char *)data + 1, size - 1},
          data[0] % 2 == 0 ? config : NULL);
    lore_json_free(config);
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
