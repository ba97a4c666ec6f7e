/* Property: any bytes are a tokenizer or an error. A tokenizer made of them encodes the same bytes
 * as text, its tokens' bytes tile that text where nothing is normalised, and what the detokeniser
 * gives is valid UTF-8. Input that is no tokenizer is text for one that was loaded before, if the
 * corpus holds one. */
#include "base/utf8.h"
#include "models/tokenizer_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(const lore_tokenizer *t, lore_str text)
{
    lore_arena arena;
    lore_tokens tokens;
    lore_buf out;
    lore_detok detok = {0};
    size_t bytes = 0;
    lore_arena_init(&arena, 64 << 20);
    lore_buf_init(&out, 0);
    if (lore_tokenizer_encode(t, text, (lore_encode_options){0}, &arena, &tokens, NULL) ==
        LORE_OK) {
        for (int32_t i = 0; i < tokens.count; i++) {
            LORE_ASSERT(tokens.starts[i] <= text.len);
            bytes += lore_tokenizer_bytes(t, tokens.ids[i]).len;
            lore_detok_push(&detok, t, tokens.ids[i], &out);
        }
        lore_detok_finish(&detok, &out);
        LORE_ASSERT(t->is_nfc || bytes == text.len);
        LORE_ASSERT(lore_utf8_valid(lore_buf_str(&out)) == out.len);
    }
    lore_buf_destroy(&out);
    lore_arena_destroy(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lore_tokenizer *last; /* kept on purpose: inputs after it are texts for it */
    lore_str input = {(const char *)data, size};
    lore_tokenizer *t = NULL;
    if (lore_tokenizer_parse(input, "input", &t, NULL) == LORE_OK) {
        run(t, input);
        lore_tokenizer_close(last);
        last = t;
    } else if (last != NULL) {
        run(last, input);
    }
    return 0;
}
