/* What a model folder says about its decoder: config.json and generation_config.json, as plain
 * checked numbers.
 *
 * An architecture is a row of facts (lore_family); there is one forward pass (decoder.c), which
 * follows them. Everything that would change the computation is either read or refused by name;
 * sizes are bounded, so that products of a few of them cannot overflow. Parsers take bytes and do
 * no I/O. `name` is for messages. Thread: any, no state. */
#ifndef LORE_MODELS_MODEL_CONFIG_INT_H
#define LORE_MODELS_MODEL_CONFIG_INT_H

#include "kernels/ops.h"
#include "models/decoder.h"
#include "models/rope_int.h"

/* Which projections of attention have biases. */
typedef enum lore_family_bias {
    LORE_BIAS_NEVER = 0,
    LORE_BIAS_QKV,  /* query, key and value, always */
    LORE_BIAS_ASKED /* these and the output's, where attention_bias is true */
} lore_family_bias;

/* Which layers see a window only. layer_types, where the file has it, must say the same of
 * families without a choice. */
typedef enum lore_family_window {
    LORE_WINDOW_NONE = 0,
    LORE_WINDOW_ALL,   /* where sliding_window is a number */
    LORE_WINDOW_UPPER, /* from max_window_layers on, where use_sliding_window is true */
    LORE_WINDOW_EVEN   /* layers 0, 2, 4, ... */
} lore_family_window;

/* The facts of one model_type. Tensor names are stems behind `model.layers.<n>.`, ".weight" and
 * ".bias" follow; NULL: there is none. */
typedef struct lore_family {
    const char *model_type;
    const char *qkv[3];     /* or one matrix that holds all three */
    const char *gate_up[2]; /* or one */
    const char *attention_norm, *attention_post_norm, *ffn_norm, *ffn_post_norm;
    bool has_qk_norm;     /* self_attn.q_norm, self_attn.k_norm */
    bool is_norm_centred; /* norms hold w - 1 */
    bool is_embed_scaled; /* by sqrt(width) */
    bool has_softcaps;    /* reads the caps and query_pre_attn_scalar */
    bool reads_mlp_bias;  /* else mlp_bias true is refused */
    bool is_rope_partial; /* partial_rotary_factor is computed */
    bool is_rope_long;    /* rope is plain or longrope */
    lore_family_bias bias;
    lore_family_window windows;
    const char *activation_key;
    lore_activation activation; /* what holds without the key */
    double eps;                 /* and without rms_norm_eps */
    int32_t kv_heads;           /* num_key_value_heads; 0: as many as heads */
    int32_t head_dim;           /* head_dim; 0: width / heads */
    int32_t window;             /* sliding_window; 0: none */
    int32_t original;           /* original_max_position_embeddings; 0: the context */
    bool is_tied;               /* tie_word_embeddings */
} lore_family;

/* The products of a decoder that weights are packed for, each with all matrices that see the same
 * input on top of one another. LORE_LINEAR_HEAD stands once, behind the layers. */
typedef enum lore_linear {
    LORE_LINEAR_QKV = 0,
    LORE_LINEAR_ATTENTION_OUT,
    LORE_LINEAR_GATE_UP,
    LORE_LINEAR_DOWN,
    LORE_LINEAR_HEAD,
    LORE_LINEARS
} lore_linear;

enum { LORE_LINEAR_PARTS_MAX = 3 };

/* A tensor, or one of those that stand in one weight on top of one another. */
typedef struct lore_linear_part {
    const char *stem;
    int32_t rows;
} lore_linear_part;

typedef struct lore_linear_shape {
    lore_linear_part parts[LORE_LINEAR_PARTS_MAX];
    int32_t part_count, cols;
} lore_linear_shape;

typedef struct lore_decoder_config {
    const lore_family *family;
    int32_t layers, width, heads, kv_heads, head_dim, ffn, vocab;
    int32_t context; /* positions that it can be asked for */
    float eps;
    lore_rope_config rope;
    bool is_tied; /* logits with the embedding table */
    bool has_qkv_bias, has_output_bias, has_mlp_bias;
    lore_activation activation; /* of the gate */
    float embed_scale;
    float attention_scale, attention_softcap, logit_softcap; /* caps: 0: none */
    int32_t window;                                          /* 0: none */
    bool is_windowed[LORE_LAYERS_MAX];
    int32_t eos_ids[LORE_EOS_MAX];
    int32_t eos_count;
    int32_t bos_id; /* -1: none */
    lore_generation_defaults generation;
} lore_decoder_config;

LORE_MUST_USE lore_status lore_decoder_config_parse(lore_str json, const char *name,
                                                    lore_decoder_config *config, lore_error *err);
/* The config.json of a folder. */
LORE_MUST_USE lore_status lore_decoder_config_read(const char *folder, const lore_limits *limits,
                                                   lore_decoder_config *config, lore_error *err);
/* generation_config.json: its bos and eos go before those of config.json. */
LORE_MUST_USE lore_status lore_generation_config_parse(lore_str json, const char *name,
                                                       lore_decoder_config *config,
                                                       lore_error *err);
/* Of which tensors a product is made in the files of this decoder. */
lore_linear_shape lore_decoder_linear(const lore_decoder_config *config, lore_linear which);

#endif
