/* What a model folder says about its network: config.json and its companions, as plain checked
 * numbers.
 *
 * Everything that would change the computation is either read or refused by name; sizes are
 * bounded, so that products of a few of them cannot overflow. Parsers take bytes and do no I/O.
 * `name` is for messages. Thread: any, no state. */
#ifndef LORE_MODELS_MODEL_CONFIG_INT_H
#define LORE_MODELS_MODEL_CONFIG_INT_H

#include "base/str.h"
#include "kernels/ops.h"

enum { LORE_EOS_MAX = 8 };

/* Llama, Qwen3. */
typedef struct lore_decoder_config {
    int32_t layers, width, heads, kv_heads, head_dim, ffn, vocab, context;
    float eps;
    double rope_theta;
    bool is_tied;     /* logits with the embedding table */
    bool has_qk_norm; /* Qwen3 */
    int32_t eos_ids[LORE_EOS_MAX];
    int32_t eos_count;
    int32_t bos_id;           /* -1: none */
    const char *architecture; /* static: "llama", "qwen3" */
} lore_decoder_config;

LORE_MUST_USE lore_status lore_decoder_config_parse(lore_str json, const char *name,
                                                    lore_decoder_config *config, lore_error *err);
/* generation_config.json: its bos and eos go before those of config.json. */
LORE_MUST_USE lore_status lore_generation_config_parse(lore_str json, const char *name,
                                                       lore_decoder_config *config,
                                                       lore_error *err);

/* BERT in a sentence-transformers folder. */
enum { LORE_MODULE_PATH_CAP = 256 };
typedef struct lore_encoder_config {
    int32_t layers, width, heads, ffn, vocab, positions, types;
    float eps;
    int32_t tokens_max; /* sentence_bert_config.json, never more than positions */
    lore_pooling pooling;
    bool is_normalised;
    char pooling_path[LORE_MODULE_PATH_CAP]; /* folder of the Pooling module inside the model's, no
                                                slash at its end */
} lore_encoder_config;

LORE_MUST_USE lore_status lore_encoder_config_parse(lore_str json, const char *name,
                                                    lore_encoder_config *config, lore_error *err);
/* modules.json: Transformer, Pooling, perhaps Normalize. */
LORE_MUST_USE lore_status lore_modules_parse(lore_str json, const char *name,
                                             lore_encoder_config *config, lore_error *err);
/* <Pooling>/config.json */
LORE_MUST_USE lore_status lore_pooling_parse(lore_str json, const char *name,
                                             lore_encoder_config *config, lore_error *err);
/* sentence_bert_config.json */
LORE_MUST_USE lore_status lore_sentence_config_parse(lore_str json, const char *name,
                                                     lore_encoder_config *config, lore_error *err);

#endif
