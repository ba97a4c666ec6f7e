/* What every tokenizer does with a text, however it was made: starts ascend inside the text; where
 * each byte is a token and nothing changes the text, the tokens' bytes are the text; no special
 * token comes of plain text; what the detokeniser gives is valid UTF-8; the head of an encoding is
 * the beginning of the whole. */
#ifndef LORE_TESTS_FUZZ_TOKENS_H
#define LORE_TESTS_FUZZ_TOKENS_H

#include "models/tokenizer_int.h"
#include "tests/fuzz/fuzz.h"

#define FUZZ_TOKENS_TEXT \
    LORE_STR("It's 2024:  \xE4\xBD\xA0\xE5\xA5\xBD, caf\x65\xCC\x81!\n\n <x>\xFF")

/* Whether the tokens' bytes must be the text. */
static inline bool fuzz_tokens_tile(const lore_tokenizer *t)
{
    bool is_exact = t->kind == LORE_TOKENIZER_BPE && t->bpe.is_byte_level &&
                    lore_normalizer_is_empty(t->normalizer);
    for (int b = 0; b < 256; b++) {
        is_exact = is_exact && t->bpe.byte_ids[b] >= 0;
    }
    for (int32_t i = 0; i < t->step_count; i++) {
        is_exact = is_exact && t->steps[i].behavior != LORE_PRETOKEN_REMOVED &&
                   t->steps[i].kind != LORE_PRETOKEN_PREFIX &&
                   t->steps[i].kind != LORE_PRETOKEN_METASPACE &&
                   t->steps[i].kind != LORE_PRETOKEN_BERT;
    }
    for (int k = 0; k < 2; k++) {
        for (int32_t i = 0; i < t->added[k].count; i++) {
            is_exact =
                is_exact && !t->added[k].tokens[i].takes_left && !t->added[k].tokens[i].takes_right;
        }
    }
    return is_exact;
}

static inline void fuzz_tokens(const lore_tokenizer *t, lore_str text)
{
    lore_arena arena;
    lore_tokens tokens, head;
    lore_buf joined, out;
    lore_detok detok = {0};
    lore_error err = {.status = LORE_OK};
    bool is_exact = fuzz_tokens_tile(t);
    lore_arena_init(&arena, 256 << 20);
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
        LORE_ASSERT(!is_exact || tokens.starts[i] == joined.len);
        lore_buf_append(&joined, lore_tokenizer_bytes(t, tokens.ids[i]));
        lore_detok_push(&detok, t, tokens.ids[i], &out);
    }
    lore_detok_finish(&detok, &out);
    LORE_ASSERT(status != LORE_OK || !is_exact || lore_str_equal(lore_buf_str(&joined), text));
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

#endif
