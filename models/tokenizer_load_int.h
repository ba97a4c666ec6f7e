/* Loading a tokenizer.json, shared by its parts: the whole and its post-processor
 * (tokenizer_load.c), vocabulary and model (tokenizer_vocab.c), added tokens (tokenizer_added.c),
 * pre-tokenizer (pretoken_load.c), decoder (detok_load.c).
 *
 * A loader fills one tokenizer and lives for one call of lore_tokenizer_parse. */
#ifndef LORE_MODELS_TOKENIZER_LOAD_INT_H
#define LORE_MODELS_TOKENIZER_LOAD_INT_H

#include "base/json.h"
#include "models/tokenizer_int.h"

enum {
    LORE_TOKEN_ID_MAX = 1 << 21 /* largest id: bounds the tables that a file can ask for */
};

typedef struct lore_tokenizer_loader {
    lore_tokenizer *t;
    const lore_normalizer_spec *spec; /* of a sentencepiece model; NULL: the file's normalizer */
    lore_error *err;
    bool is_byte_level;                  /* set by lore_loader_pre_tokenizer */
    int16_t byte_of[LORE_BYTE_ALPHABET]; /* code point -> byte, -1: not in the alphabet; set by
                                            lore_loader_model */
} lore_tokenizer_loader;

/* lore_tokenizer_parse, with the normalizer of a sentencepiece model where spec is not NULL. */
LORE_MUST_USE lore_status lore_loader_parse(lore_str json, const char *name,
                                            const lore_normalizer_spec *spec,
                                            lore_tokenizer **tokenizer, lore_error *err);

/* In this order. */
LORE_MUST_USE lore_status lore_loader_pre_tokenizer(lore_tokenizer_loader *l,
                                                    const lore_json *node);
LORE_MUST_USE lore_status lore_loader_model(lore_tokenizer_loader *l, const lore_json *model,
                                            const lore_json *added);
/* Behind the normalizer, which some of them pass through. */
LORE_MUST_USE lore_status lore_loader_added(lore_tokenizer_loader *l, const lore_json *added);
LORE_MUST_USE lore_status lore_loader_decoder(lore_tokenizer_loader *l, const lore_json *node);

/* The bytes that a token's text stands for in a byte-level vocabulary. A text outside the alphabet
 * stands for itself, as every text does where the vocabulary is not byte-level. In the arena; ptr
 * NULL: out of memory. */
lore_str lore_loader_bytes(lore_tokenizer_loader *l, lore_str text);

/* ---- reading pieces of the file ---- */
lore_str lore_loader_kind(const lore_json *node); /* its "type" */
bool lore_loader_is_kind(const lore_json *node, const char *kind);
bool lore_loader_is_given(
    const lore_json *node); /* absent and null are the same thing in these files */
bool lore_loader_read_id(const lore_json *node, int32_t *id);
lore_status lore_loader_no_memory(lore_tokenizer_loader *l);
lore_status lore_loader_unsupported(lore_tokenizer_loader *l, const char *stage, lore_str kind);

#endif
