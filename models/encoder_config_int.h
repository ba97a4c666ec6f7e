/* What a model folder says about its encoder, as plain checked numbers: config.json of the families
 * that we know, and the files that sentence-transformers puts beside it.
 *
 * A family is a row of facts: which parts the forward pass has, and what they are called in the
 * weights. Everything of the files that would change the vectors is either read or refused by name.
 * Parsers take bytes and do no I/O; `name` is for messages. Thread: any, no state. */
#ifndef LORE_MODELS_ENCODER_CONFIG_INT_H
#define LORE_MODELS_ENCODER_CONFIG_INT_H

#include "models/rope_int.h"

enum {
    LORE_MODULE_PATH_CAP = 256,
    LORE_DENSE_MAX = 4,     /* layers behind pooling */
    LORE_PROMPT_CAP = 1024, /* bytes of what is put before a text, and a NUL */
    LORE_TENSOR_NAME_CAP = 128
};

/* Names stand without ".weight" and ".bias"; NULL: the family has no such part. */
typedef struct lore_encoder_family {
    const char *model_type; /* of config.json */
    /* the forward pass */
    bool is_prenorm; /* x + f(norm(x)) and a norm at the end, else norm(x + f(x)) */
    bool is_rms;     /* RMS norms, else layer norms */
    bool is_glu;     /* act(gate) * up, else act(up) */
    bool is_causal;
    bool is_first_norm_absent; /* layer 0 attends to the embeddings as they are (ModernBERT) */
    /* the names */
    const char *words, *positions, *types, *embed_norm, *final_norm;
    const char *layer;      /* what stands before the names of a layer, with %d */
    const char *qkv[3];     /* one matrix where only the first is given */
    const char *gate_up[2]; /* up alone, or gate and up, or both in one matrix */
    const char *attention_out, *attention_norm, *down, *ffn_norm, *q_norm, *k_norm;
    /* the layers of a classifier with one label, behind pooling, and the norm of what the first
     * gives; full names */
    const char *head[2], *head_norm;
} lore_encoder_family;

/* One dense layer behind pooling. */
typedef struct lore_dense_config {
    int32_t in, out;
    lore_activation activation;
    bool has_bias;
    char path[LORE_MODULE_PATH_CAP]; /* folder of its weights inside the model's; "": the model's */
    const char *name;                /* static; without ".weight" */
    const char *norm;                /* likewise, of a norm behind the activation; NULL: none */
} lore_dense_config;

typedef struct lore_encoder_config {
    const lore_encoder_family *family;
    int32_t layers, width, heads, kv_heads, head_dim, ffn, vocab, types;
    int32_t positions;      /* rows of the table of positions, or what rope was trained for */
    int32_t position_start; /* of a text's first token (RoBERTa: behind the padding's) */
    float eps;
    lore_activation activation;
    bool has_attention_bias, has_ffn_bias, has_norm_bias;
    /* rope[0] of layers that see all, rope[1] of those that see only a window; dim 0: none */
    lore_rope_config rope[2];
    int32_t global_every, window; /* layer i sees all where i is a multiple of global_every */
    /* from the companions */
    int32_t tokens_max; /* of one text, never more than there are positions for */
    lore_pooling pooling;
    bool is_normalised; /* there is a Normalize module */
    lore_dense_config dense[LORE_DENSE_MAX];
    int32_t dense_count;
    int32_t dimensions; /* of the vectors, where fewer than the model makes; 0: all (Matryoshka) */
    char pooling_path[LORE_MODULE_PATH_CAP]; /* folder of the Pooling module inside the model's, no
                                                slash at its end */
    char query_prompt[LORE_PROMPT_CAP], document_prompt[LORE_PROMPT_CAP];
} lore_encoder_config;

/* What the layers behind pooling make of a width. */
int32_t lore_encoder_config_out(const lore_encoder_config *config);

/* ---- encoder_config.c ---- */

LORE_MUST_USE lore_status lore_encoder_config_parse(lore_str json, const char *name,
                                                    lore_encoder_config *config, lore_error *err);
/* The same of a cross-encoder: a classifier with one label, whose layers become config->dense. */
LORE_MUST_USE lore_status lore_classifier_config_parse(lore_str json, const char *name,
                                                       lore_encoder_config *config,
                                                       lore_error *err);

/* ---- encoder_modules.c: into a config that lore_encoder_config_parse has filled ---- */

/* modules.json: Transformer, Pooling, perhaps Dense, perhaps Normalize. */
LORE_MUST_USE lore_status lore_modules_parse(lore_str json, const char *name,
                                             lore_encoder_config *config, lore_error *err);
/* <Pooling>/config.json */
LORE_MUST_USE lore_status lore_pooling_parse(lore_str json, const char *name,
                                             lore_encoder_config *config, lore_error *err);
/* <Dense>/config.json of the next of config->dense whose sizes are not known yet. */
LORE_MUST_USE lore_status lore_dense_parse(lore_str json, const char *name,
                                           lore_encoder_config *config, lore_error *err);
/* tokenizer_config.json: how long a text may be. Before the next one, which knows better. */
LORE_MUST_USE lore_status lore_text_length_parse(lore_str json, const char *name,
                                                 lore_encoder_config *config, lore_error *err);
/* sentence_bert_config.json */
LORE_MUST_USE lore_status lore_sentence_config_parse(lore_str json, const char *name,
                                                     lore_encoder_config *config, lore_error *err);
/* config_sentence_transformers.json: prompts, similarity, dimensions. */
LORE_MUST_USE lore_status lore_prompts_parse(lore_str json, const char *name,
                                             lore_encoder_config *config, lore_error *err);
/* lore.json: query_prompt, document_prompt, dimensions; they go before the model's own. */
LORE_MUST_USE lore_status lore_encoder_card_parse(lore_str json, const char *name,
                                                  lore_encoder_config *config, lore_error *err);

#endif
