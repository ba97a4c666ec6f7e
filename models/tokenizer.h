/* Text to token ids and back, exactly as the `tokenizers` library does it.
 *
 * BPE (byte-level, and sentencepiece's with byte fallback), WordPiece and Unigram, with the
 * normalizers, pre-tokenizers, post-processors and decoders of the families that we run; any other
 * is LORE_ERR_UNSUPPORTED and named. Special tokens inside text are recognised only where the
 * caller says so: text of documents, questions and history never becomes a special token. Added
 * tokens that are not special but written <like this> (Qwen's <think>) are held back likewise;
 * other added tokens are always recognised. truncation and padding of the file are not ours to do
 * and ignored. Const after opening (but for what it remembers of words, atomically): any thread. */
#ifndef LORE_MODELS_TOKENIZER_H
#define LORE_MODELS_TOKENIZER_H

#include "base/config.h"
#include "base/str.h"

typedef struct lore_tokenizer lore_tokenizer;

typedef struct lore_tokens {
    int32_t *ids;
    uint32_t *starts; /* byte offset in the text of each token's first byte, ascending; where a
                       * normaliser changed the text, that of what the byte was made of */
    int32_t count;
} lore_tokens;

typedef struct lore_encode_options {
    bool allow_special; /* recognise special tokens written in the text (templates only) */
    bool add_special;   /* run the post-processor (BOS, [CLS] ...) */
    /* With allow_special, a byte for each of the text, 1 where it is not the template's own: no
     * special token is recognised that holds such a byte. NULL: all of it is. */
    const uint8_t *foreign;
} lore_encode_options;

/* From a folder's tokenizer.json, else tokenizer.model (sentencepiece, tiktoken), *.tiktoken,
 * sentencepiece.bpe.model, vocab.json with merges.txt, or vocab.txt; all but the first with the
 * folder's tokenizer_config.json and config.json. */
LORE_MUST_USE lore_status lore_tokenizer_open(const char *folder, const lore_limits *limits,
                                              lore_tokenizer **tokenizer, lore_error *err);
/* The same from the bytes of a tokenizer.json (the fuzz target's entrance). */
LORE_MUST_USE lore_status lore_tokenizer_parse(lore_str json, const char *name,
                                               lore_tokenizer **tokenizer, lore_error *err);
void lore_tokenizer_close(lore_tokenizer *tokenizer);
int32_t lore_tokenizer_vocab(const lore_tokenizer *tokenizer); /* largest id + 1 */
/* The network has rows for ids below `vocab` only. Added tokens may lie beyond: from then on a text
 * in which one is recognised is refused (LORE_ERR_INVALID). LORE_ERR_CORRUPT where other tokens do,
 * or those that the post-processor adds. Call it right after opening. */
LORE_MUST_USE lore_status lore_tokenizer_limit(lore_tokenizer *tokenizer, int32_t vocab,
                                               const char *folder, lore_error *err);

/* Ids of text (any bytes; byte-level needs no valid UTF-8), arrays in the arena. O(n log n) for
 * hostile text too. */
LORE_MUST_USE lore_status lore_tokenizer_encode(const lore_tokenizer *tokenizer, lore_str text,
                                                lore_encode_options options, lore_arena *arena,
                                                lore_tokens *tokens, lore_error *err);
/* The first tokens_max ids of the text alone (no post-processor, no special tokens recognised),
 * without reading further: what an encoder that cuts its input needs. */
LORE_MUST_USE lore_status lore_tokenizer_encode_head(const lore_tokenizer *tokenizer, lore_str text,
                                                     int32_t tokens_max, lore_arena *arena,
                                                     lore_tokens *tokens, lore_error *err);
/* Ids that the post-processor puts before and behind every text. Borrowed. */
const int32_t *lore_tokenizer_prefix(const lore_tokenizer *tokenizer, int32_t *count);
const int32_t *lore_tokenizer_suffix(const lore_tokenizer *tokenizer, int32_t *count);
/* What it puts between the two texts of a pair, which stands between the same ids as a single text;
 * NULL where the file has no such pairs. */
const int32_t *lore_tokenizer_middle(const lore_tokenizer *tokenizer, int32_t *count);
/* How many tokens, without keeping them. Uses and resets nothing but `scratch`. */
LORE_MUST_USE lore_status lore_tokenizer_count(const lore_tokenizer *tokenizer, lore_str text,
                                               lore_arena *scratch, int32_t *count,
                                               lore_error *err);
int32_t lore_tokenizer_id(const lore_tokenizer *tokenizer,
                          lore_str token); /* exact content of a token, -1: none */
bool lore_tokenizer_is_special(const lore_tokenizer *tokenizer, int32_t id);
/* What one token says in a text (specials: their content). Borrowed; empty for ids outside the
 * vocabulary. */
lore_str lore_tokenizer_bytes(const lore_tokenizer *tokenizer, int32_t id);

/* Streaming detokeniser: bytes are released only at UTF-8 boundaries; special tokens are dropped.
 * Caller-owned, zero-initialised. */
typedef struct lore_detok {
    char pending[4];
    int32_t pending_count;
    bool has_begun; /* a token has come: no space is dropped from here on */
} lore_detok;
/* Append what became complete. Invalid bytes turn into U+FFFD once they cannot complete any more.
 */
void lore_detok_push(lore_detok *detok, const lore_tokenizer *tokenizer, int32_t id, lore_buf *out);
void lore_detok_finish(lore_detok *detok, lore_buf *out);

#endif
