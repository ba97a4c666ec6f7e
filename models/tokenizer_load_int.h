/* Loading a tokenizer.json, shared by its two halves: vocabulary (tokenizer_vocab.c) and stages
 * (tokenizer_load.c).
 *
 * A loader fills one tokenizer and lives for one call of lore_tokenizer_parse. */
#ifndef LORE_MODELS_TOKENIZER_LOAD_INT_H
#define LORE_MODELS_TOKENIZER_LOAD_INT_H

#include "base/json.h"
#include "models/tokenizer_int.h"

enum {
    LORE_TOKEN_ID_MAX = 1 << 21, /* largest id: bounds the tables that a file can ask for */
    LORE_BYTE_ALPHABET = 324     /* code points of the byte alphabet are below this */
};

typedef struct lore_tokenizer_loader {
    lore_tokenizer *t;
    lore_error *err;
    int16_t byte_of[LORE_BYTE_ALPHABET]; /* code point -> byte, -1: not in the alphabet; set by
                                            lore_loader_model */
} lore_tokenizer_loader;

/* model and added_tokens: the vocabulary, its merges, and the tokens that are looked for in the
 * text. */
LORE_MUST_USE lore_status lore_loader_model(lore_tokenizer_loader *l, const lore_json *model,
                                            const lore_json *added);
LORE_MUST_USE lore_status lore_loader_added(lore_tokenizer_loader *l, const lore_json *added);

/* ---- reading pieces of the file ---- */
lore_str lore_loader_kind(const lore_json *node); /* its "type" */
bool lore_loader_is_kind(const lore_json *node, const char *kind);
bool lore_loader_is_given(
    const lore_json *node); /* absent and null are the same thing in these files */
bool lore_loader_read_id(const lore_json *node, int32_t *id);
lore_status lore_loader_no_memory(lore_tokenizer_loader *l);
lore_status lore_loader_unsupported(lore_tokenizer_loader *l, const char *stage, lore_str kind);
/* LORE_ERR_UNSUPPORTED where the flag is true. */
lore_status lore_loader_refuse_flag(lore_tokenizer_loader *l, const lore_json *node,
                                    const char *where, const char *key);

#endif
