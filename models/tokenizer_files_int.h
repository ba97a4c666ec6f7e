/* Tokenizer files other than tokenizer.json, each rewritten as one: then there is one loader, and
 * what a file means is said in the terms of the `tokenizers` library, as `transformers` does when
 * it converts such files.
 *
 * `config` is the folder's tokenizer_config.json or NULL: the files themselves do not say which
 * special tokens there are, what is put round a text, whether BERT's is lower-cased. What it leaves
 * open is as in the family that the format comes from. Output goes to `json`; all inputs are
 * borrowed, nothing is kept but by `spec`. Thread: any, no state. Fail: LORE_ERR_CORRUPT naming
 * what is wrong, LORE_ERR_UNSUPPORTED, LORE_ERR_LIMIT, LORE_ERR_NOMEM. */
#ifndef LORE_MODELS_TOKENIZER_FILES_INT_H
#define LORE_MODELS_TOKENIZER_FILES_INT_H

#include "base/json.h"
#include "models/normalize_int.h"

/* tokenizer.model of sentencepiece (Llama 2, Mistral, Gemma; T5 in its Unigram form). Not XLM-R's,
 * which stands under another name: that family counts its ids otherwise.
 * spec (its charsmap points into `model`) is what the text goes through before. */
LORE_MUST_USE lore_status lore_sentencepiece_read(lore_str model, const lore_json *config,
                                                  lore_buf *json, lore_normalizer_spec *spec,
                                                  lore_error *err);
/* Lines of `base64 rank` (Llama 3's tokenizer.model, *.tiktoken). */
bool lore_tiktoken_is(lore_str text); /* the first line looks like one */
LORE_MUST_USE lore_status lore_tiktoken_read(lore_str text, const lore_json *config, lore_buf *json,
                                             lore_error *err);
/* vocab.txt of BERT: a token a line. */
LORE_MUST_USE lore_status lore_bert_vocab_read(lore_str text, const lore_json *config,
                                               lore_buf *json, lore_error *err);
/* vocab.json and merges.txt of GPT-2, RoBERTa, Qwen2 (encoder.json and vocab.bpe once). */
LORE_MUST_USE lore_status lore_gpt2_vocab_read(lore_str vocab, lore_str merges,
                                               const lore_json *config, lore_buf *json,
                                               lore_error *err);

/* ---- what they share ---- */

/* "added_tokens": those of the config, then the given ones whose id the config does not have. */
typedef struct lore_special_token {
    int32_t id;
    lore_str content;
    bool is_special;
} lore_special_token;
LORE_MUST_USE lore_status lore_tokenizer_write_added(lore_json_writer *w, const lore_json *config,
                                                     const lore_special_token *tokens,
                                                     int32_t count, lore_error *err);
/* "post_processor" that puts an id before and one behind; -1: none. */
void lore_tokenizer_write_template(lore_json_writer *w, int32_t before, int32_t behind);
/* A flag of the config, `otherwise` where it is not there. */
bool lore_tokenizer_flag(const lore_json *config, const char *key, bool otherwise);
/* config.key as a token's content: a string, or an object that holds it. */
lore_str lore_tokenizer_token(const lore_json *config, const char *key, const char *otherwise);

/* Split pattern and ByteLevel, or ByteLevel with GPT-2's pattern where the pattern is NULL. */
void lore_tokenizer_write_byte_level(lore_json_writer *w, const char *pattern,
                                     bool has_prefix_space);
/* {"type": ...} under a key. */
void lore_tokenizer_write_type(lore_json_writer *w, const char *key, const char *type);

#define LORE_PATTERN_LLAMA3                                                    \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LORE_PATTERN_QWEN2                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

#endif
