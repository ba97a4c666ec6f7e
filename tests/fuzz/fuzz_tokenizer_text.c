/* Fuzz target of encoding: any bytes as a text for the tokenizers of the shipped models and for one
 * of single bytes.
 *
 * Property: decode(encode(text)) is the text, in NFC where the tokenizer normalises; starts ascend
 * and lead back to each token's bytes; no special token comes of plain text; counting counts what
 * encoding gives; the head of an encoding is its beginning; time is n log n. */
#include "models/tokenizer_int.h"
#include "tests/fuzz/fuzz.h"
#include "tests/sim/byte_tokenizer.h"

static const char *const FOLDERS[] = {LORE_SOURCE_DIR "/weights/encoder",
                                      LORE_SOURCE_DIR "/weights/decoder"};
enum { TOKENIZERS = sizeof FOLDERS / sizeof FOLDERS[0] + 1 };

/* They live as long as the process. */
static lore_tokenizer *const *tokenizers(void)
{
    static lore_tokenizer *all[TOKENIZERS];
    static const byte_merge merges[] = {{"a", "b"}, {"ab", "ab"}, {" ", "a"}, {"\n", "\n"}};
    if (all[0] == NULL) {
        lore_error err = {.status = LORE_OK};
        lore_config config;
        lore_config_default(&config);
        all[0] = byte_tokenizer_new(merges, 4, &err);
        LORE_ASSERT(all[0] != NULL);
        for (size_t i = 1; i < TOKENIZERS; i++) {
            if (lore_tokenizer_open(FOLDERS[i - 1], &config.limits, &all[i], &err) != LORE_OK) {
                fprintf(stderr, "%s\n", err.message);
                abort();
            }
        }
    }
    return all;
}

static void check_same(const lore_tokenizer *t, lore_str text, const lore_tokens *tokens,
                       lore_arena *arena)
{
    lore_tokens head;
    int32_t count = 0;
    lore_arena scratch;
    lore_error err;
    lore_arena_init(&scratch, 0);
    LORE_ASSERT(lore_tokenizer_count(t, text, &scratch, &count, &err) == LORE_OK);
    LORE_ASSERT(count == tokens->count);
    lore_arena_destroy(&scratch);
    int32_t wanted = tokens->count / 3 + 1;
    LORE_ASSERT(lore_tokenizer_encode_head(t, text, wanted, arena, &head, &err) == LORE_OK);
    LORE_ASSERT(head.count == (wanted < tokens->count ? wanted : tokens->count));
    for (int32_t i = 0; i < head.count; i++) {
        LORE_ASSERT(head.ids[i] == tokens->ids[i]);
        LORE_ASSERT(head.starts[i] == tokens->starts[i]);
    }
}

/* What the tokens should say: the text, normalised where the tokenizer does. */
static void append_expected(const lore_tokenizer *t, lore_str text, lore_buf *out)
{
    if (!lore_normalizer_is_empty(t->normalizer) && lore_utf8_valid(text) == text.len) {
        LORE_ASSERT(lore_utf8_nfc(text, out, NULL) == LORE_OK);
    } else {
        lore_buf_append(out, text);
    }
}

static void check(const lore_tokenizer *t, lore_str text)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_arena arena;
    lore_tokens tokens;
    lore_buf joined, expected;
    lore_error err = {.status = LORE_OK};
    lore_arena_init(&arena, 64 << 20);
    lore_buf_init(&joined, 0);
    lore_buf_init(&expected, 0);
    lore_status status =
        lore_tokenizer_encode(t, text, (lore_encode_options){0}, &arena, &tokens, &err);
    LORE_ASSERT(status == LORE_OK);
    for (int32_t i = 0; i < tokens.count; i++) {
        LORE_ASSERT(!lore_tokenizer_is_special(t, tokens.ids[i]));
        LORE_ASSERT(!lore_normalizer_is_empty(t->normalizer) || tokens.starts[i] == joined.len);
        LORE_ASSERT(i == 0 || tokens.starts[i] >= tokens.starts[i - 1]);
        LORE_ASSERT(tokens.starts[i] < text.len);
        lore_buf_append(&joined, lore_tokenizer_bytes(t, tokens.ids[i]));
    }
    append_expected(t, text, &expected);
    bool is_partly_normal =
        !lore_normalizer_is_empty(t->normalizer) && lore_utf8_valid(text) != text.len;
    LORE_ASSERT(is_partly_normal || lore_str_equal(lore_buf_str(&joined), lore_buf_str(&expected)));
    check_same(t, text, &tokens, &arena);
    lore_buf_destroy(&joined);
    lore_buf_destroy(&expected);
    lore_arena_destroy(&arena);
    fuzz_check_cost(start_ns, text.len);
    LORE_ASSERT(lore_mem_live() == live);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lore_tokenizer *const *all = tokenizers();
    lore_str text = {size == 0 ? "" : (const char *)data, size};
    char *repeated = fuzz_repeated(text);
    for (int i = 0; i < TOKENIZERS; i++) {
        check(all[i], text);
        if (repeated != NULL) {
            check(all[i], (lore_str){repeated, FUZZ_REPEATED_BYTES});
        }
    }
    lore_free(repeated);
    return 0;
}
