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

#include "base/config.h"
#include "base/file.h"
#include "base/json.h"
#include "models/normalize_int.h"
#include "models/pretoken_int.h"

/* What a folder's files leave to the code that knows the family: told by the config's
 * tokenizer_class or, where it names none, by config.json's model_type. */
typedef enum lore_tokenizer_family {
    LORE_FAMILY_OTHER = 0,
    LORE_FAMILY_LLAMA,
    LORE_FAMILY_QWEN,
    LORE_FAMILY_ROBERTA,
    LORE_FAMILY_XLM_ROBERTA
} lore_tokenizer_family;

/* tokenizer.model of sentencepiece (Llama 2, Mistral, Gemma; T5 in its Unigram form), and XLM-R's
 * sentencepiece.bpe.model, whose ids are counted in fairseq's way: <s> 0, <pad> 1, </s> 2, <unk> 3,
 * each piece one more than in the file, <mask> the last.
 * spec (its charsmap points into `model`) is what the text goes through before. */
LORE_MUST_USE lore_status lore_sentencepiece_read(lore_str model, const lore_json *config,
                                                  lore_tokenizer_family family, lore_buf *json,
                                                  lore_normalizer_spec *spec, lore_error *err);
/* Lines of `base64 rank` (Llama 3's tokenizer.model, *.tiktoken). */
bool lore_tiktoken_is(lore_str text); /* the first line looks like one */
LORE_MUST_USE lore_status lore_tiktoken_read(lore_str text, const lore_json *config,
                                             lore_tokenizer_family family, lore_buf *json,
                                             lore_error *err);
/* vocab.txt of BERT: a token a line. */
LORE_MUST_USE lore_status lore_bert_vocab_read(lore_str text, const lore_json *config,
                                               lore_buf *json, lore_error *err);
/* vocab.json and merges.txt of GPT-2, RoBERTa, Qwen2 (encoder.json and vocab.bpe once). */
LORE_MUST_USE lore_status lore_gpt2_vocab_read(lore_str vocab, lore_str merges,
                                               const lore_json *config,
                                               lore_tokenizer_family family, lore_buf *json,
                                               lore_error *err);

/* Whichever files of the folder its tokenizer is made of, into the hash. */
LORE_MUST_USE lore_status lore_tokenizer_hash(const char *folder, const lore_limits *limits,
                                              lore_sha256 *sha, lore_error *err);

/* ---- what they share ---- */

/* "added_tokens": those of the config, then the given ones whose id the config does not have. */
typedef struct lore_special_token {
    int32_t id;
    lore_str content;
    bool is_special;
    bool takes_left; /* white space before it */
} lore_special_token;
LORE_MUST_USE lore_status lore_tokenizer_write_added(lore_json_writer *w, const lore_json *config,
                                                     const lore_special_token *tokens,
                                                     int32_t count, lore_error *err);
/* "post_processor" that puts an id before and one behind; -1: none. */
void lore_tokenizer_write_template(lore_json_writer *w, int32_t before, int32_t behind);
/* The same of a kind that knows pairs, too: BertProcessing, RobertaProcessing. */
void lore_tokenizer_write_processing(lore_json_writer *w, const char *type, lore_str cls,
                                     int32_t cls_id, lore_str sep, int32_t sep_id);
/* A flag of the config, `otherwise` where it is not there. */
bool lore_tokenizer_flag(const lore_json *config, const char *key, bool otherwise);
/* config.key as a token's content: a string, or an object that holds it. */
lore_str lore_tokenizer_token(const lore_json *config, const char *key, const char *otherwise);

/* Split pattern and ByteLevel, or ByteLevel with GPT-2's pattern where the pattern is NULL. */
void lore_tokenizer_write_byte_level(lore_json_writer *w, const char *pattern,
                                     bool has_prefix_space);
/* {"type": ...} under a key. */
void lore_tokenizer_write_type(lore_json_writer *w, const char *key, const char *type);

#endif
