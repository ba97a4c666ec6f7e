/* Fuzz target of tokenizer.json.
 *
 * Property: any bytes are a tokenizer or refused with a message that names the file. A tokenizer
 * made of them encodes a text (a fixed one, and the file itself) as fuzz_tokens.h says; all memory
 * is given back. */
#include "tests/fuzz/fuzz_tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str input = {(const char *)data, size};
    lore_tokenizer *t = NULL;
    lore_error err = {.status = LORE_OK};
    lore_status status = lore_tokenizer_parse(input, "tokenizer.json", &t, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(strstr(err.message, "tokenizer.json") != NULL);
    } else {
        fuzz_tokens(t, FUZZ_TOKENS_TEXT);
        fuzz_tokens(t, input);
    }
    lore_tokenizer_close(t);
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
