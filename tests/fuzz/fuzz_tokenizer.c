/* Fuzz target of tokenizer.json.
 *
 * Property: any bytes are a tokenizer or refused with a message that names the file. A tokenizer
 * made of them encodes a text (a fixed one, and the file itself): starts ascend inside the text,
 * and where nothing is normalised the tokens' bytes are the text; what the detokeniser gives is
 * valid UTF-8; the head of an encoding is the beginning of the whole; all memory is given back. */
#include "models/tokenizer_int.h"
#include "tests/fuzz/fuzz.h"

static void check_text(const lore_tokenizer *t, lore_str text)
{
    lore_arena arena;
    lore_tokens tokens, head;
    lore_buf joined, out;
    lore_detok detok = {0};
    lore_error err = {.status = LORE_OK};
    lore_arena_init(&arena, 64 << 20);
    lore_buf_init(&joined, 0);
    lore_buf_init(&out, 0);
    lore_status status =
        lore_tokenizer_encode(t, text, (lore_encode_options){0}, &arena, &tokens, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        tokens.count = 0;
    }
    for (int32_t i = 0; i < tokens.count; i++) {
        LORE_ASSERT(tokens.ids[i] >= 0 && tokens.ids[i] < lore_tokenizer_vocab(t));
        LORE_ASSERT(tokens.starts[i] < text.len);
        LORE_ASSERT(i == 0 || tokens.starts[i] >= tokens.starts[i - 1]);
        LORE_ASSERT(t->is_nfc || tokens.starts[i] == joined.len);
        lore_buf_append(&joined, lore_tokenizer_bytes(t, tokens.ids[i]));
        lore_detok_push(&detok, t, tokens.ids[i], &out);
    }
    lore_detok_finish(&detok, &out);
    LORE_ASSERT(status != LORE_OK || t->is_nfc || lore_str_equal(lore_buf_str(&joined), text));
    LORE_ASSERT(lore_utf8_valid(lore_buf_str(&out)) == out.len);
    if (tokens.count > 1) {
        status = lore_tokenizer_encode_head(t, text, tokens.count / 2, &arena, &head, &err);
        LORE_ASSERT(status == LORE_OK);
        LORE_ASSERT(head.count == tokens.count / 2);
        LORE_ASSERT(memcmp(head.ids, tokens.ids, (size_t)head.count * sizeof *head.ids) == 0);
    }
    lore_buf_destroy(&joined);
    lore_buf_destroy(&out);
    lore_arena_destroy(&arena);
}

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
        check_text(t,
                   LORE_STR("It's 2024:  \xE4\xBD\xA0\xE5\xA5\xBD, caf\x65\xCC\x81!\n\n <x>\xFF"));
        check_text(t, input);
    }
    lore_tokenizer_close(t);
    fuzz_check_cost(start_ns, size);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
