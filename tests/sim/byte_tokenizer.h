/* A tokenizer for tests: one token a byte, the ChatML markers, and what merges the test asks for.
 *
 * Ids: 0 <|endoftext|>, 1 <|im_start|>, 2 <|im_end|>, 3 <|pad|> (as in the shipped decoder), then 4
 * + byte, then one for each merge. */
#ifndef LORE_TESTS_SIM_BYTE_TOKENIZER_H
#define LORE_TESTS_SIM_BYTE_TOKENIZER_H

#include "base/utf8.h"
#include "models/tokenizer.h"

#include <string.h>

enum { BYTE_TOKENIZER_FIRST = 4, BYTE_TOKENIZER_FIRST_MERGE = 4 + 256 };

/* Two tokens, written in bytes, that become one. Both must exist: a byte, or an earlier merge. */
typedef struct byte_merge {
    const char *left, *right;
} byte_merge;

/* The printable character that stands for a byte in tokenizer.json (GPT-2's table), JSON-escaped.
 */
static inline void byte_tokenizer_append(lore_buf *out, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t byte = (uint8_t)bytes[i];
        int32_t shifted = 256;
        for (int32_t b = 0; b < 256; b++) {
            bool is_printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
            if (b == byte) {
                shifted = is_printable ? b : shifted;
                break;
            }
            shifted += !is_printable;
        }
        char encoded[4];
        size_t length = lore_utf8_encode(shifted, encoded);
        if (shifted == '"' || shifted == '\\') {
            lore_buf_byte(out, '\\');
        }
        lore_buf_append(out, (lore_str){encoded, length});
    }
}

static inline void byte_tokenizer_vocab(lore_buf *json, const byte_merge *merges, int32_t count)
{
    static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>",
                                           "<|pad|>"};
    for (int32_t i = 0; i < BYTE_TOKENIZER_FIRST; i++) {
        lore_buf_printf(json, "%s\"%s\":%d", i == 0 ? "" : ",", specials[i], i);
    }
    for (int32_t i = 0; i < 256; i++) {
        char byte = (char)(uint8_t)i;
        lore_buf_printf(json, ",\"");
        byte_tokenizer_append(json, &byte, 1);
        lore_buf_printf(json, "\":%d", BYTE_TOKENIZER_FIRST + i);
    }
    for (int32_t i = 0; i < count; i++) {
        lore_buf_printf(json, ",\"");
        byte_tokenizer_append(json, merges[i].left, strlen(merges[i].left));
        byte_tokenizer_append(json, merges[i].right, strlen(merges[i].right));
        lore_buf_printf(json, "\":%d", BYTE_TOKENIZER_FIRST_MERGE + i);
    }
}

/* NULL with *err set on failure. */
static inline lore_tokenizer *byte_tokenizer_new(const byte_merge *merges, int32_t count,
                                                 lore_error *err)
{
    lore_buf json;
    lore_buf_init(&json, 0);
    lore_buf_printf(&json, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
                           "\"added_tokens\":[");
    static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>",
                                           "<|pad|>"};
    for (int32_t i = 0; i < BYTE_TOKENIZER_FIRST; i++) {
        lore_buf_printf(&json,
                        "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,"
                        "\"rstrip\":false,\"normalized\":false,\"special\":true}",
                        i == 0 ? "" : ",", i, specials[i]);
    }
    lore_buf_printf(
        &json,
        "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Sequence\","
        "\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
        "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
        "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}]},"
        "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\","
        "\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"
        "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
        "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
        "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,"
        "\"vocab\":{",
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|"
        " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+");
    byte_tokenizer_vocab(&json, merges, count);
    lore_buf_printf(&json, "},\"merges\":[");
    for (int32_t i = 0; i < count; i++) {
        lore_buf_printf(&json, "%s[\"", i == 0 ? "" : ",");
        byte_tokenizer_append(&json, merges[i].left, strlen(merges[i].left));
        lore_buf_printf(&json, "\",\"");
        byte_tokenizer_append(&json, merges[i].right, strlen(merges[i].right));
        lore_buf_printf(&json, "\"]");
    }
    lore_buf_printf(&json, "]}}");
    lore_tokenizer *tokenizer = NULL;
    if (lore_buf_failed(&json)) {
        (void)lore_fail(err, LORE_ERR_NOMEM, "out of memory for a tokenizer");
    } else if (lore_tokenizer_parse(lore_buf_str(&json), "bytes", &tokenizer, err) != LORE_OK) {
        tokenizer = NULL;
    }
    lore_buf_destroy(&json);
    return tokenizer;
}

#endif
