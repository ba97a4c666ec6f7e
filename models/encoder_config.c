/* The families of encoders and their config.json.
 *
 * FAMILIES says how they differ; what is left to read are sizes and the few settings in which
 * models of one family differ. Absent settings have the defaults of the `transformers` library. */
#include "models/encoder_config_int.h"

#include "models/config_reader_int.h"
#include "models/model_folder_int.h"

#include <string.h>

enum {
    TYPES_MAX = 16,
    GROUP_MAX = 128 /* query heads that share one key/value head */
};

#define BERT_NAMES                                                                              \
    .embed_norm = "embeddings.LayerNorm", .words = "embeddings.word_embeddings",                \
    .positions = "embeddings.position_embeddings", .types = "embeddings.token_type_embeddings", \
    .layer = "encoder.layer.%d.",                                                               \
    .qkv = {"attention.self.query", "attention.self.key", "attention.self.value"},              \
    .gate_up = {"intermediate.dense", NULL}, .down = "output.dense",                            \
    .attention_out = "attention.output.dense", .attention_norm = "attention.output.LayerNorm",  \
    .ffn_norm = "output.LayerNorm"
#define ROBERTA_HEAD .head = {"classifier.dense", "classifier.out_proj"}

/* Devlin et al. 2019; Liu et al. 2019; Conneau et al. 2020; Warner et al. 2024; Qwen3 Technical
 * Report 2025. */
static const lore_encoder_family FAMILIES[] = {
    {.model_type = "bert", BERT_NAMES, .head = {"bert.pooler.dense", "classifier"}},
    {.model_type = "roberta", BERT_NAMES, ROBERTA_HEAD},
    {.model_type = "xlm-roberta", BERT_NAMES, ROBERTA_HEAD},
    {.model_type = "modernbert",
     .is_prenorm = true,
     .is_glu = true,
     .is_first_norm_absent = true,
     .words = "embeddings.tok_embeddings",
     .embed_norm = "embeddings.norm",
     .final_norm = "final_norm",
     .layer = "layers.%d.",
     .qkv = {"attn.Wqkv", NULL, NULL},
     .gate_up = {"mlp.Wi", NULL},
     .attention_out = "attn.Wo",
     .attention_norm = "attn_norm",
     .down = "mlp.Wo",
     .ffn_norm = "mlp_norm",
     .head = {"head.dense", "classifier"},
     .head_norm = "head.norm"},
    {.model_type = "qwen3",
     .is_prenorm = true,
     .is_rms = true,
     .is_glu = true,
     .is_causal = true,
     .words = "embed_tokens",
     .final_norm = "norm",
     .layer = "layers.%d.",
     .qkv = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
     .gate_up = {"mlp.gate_proj", "mlp.up_proj"},
     .attention_out = "self_attn.o_proj",
     .attention_norm = "input_layernorm",
     .down = "mlp.down_proj",
     .ffn_norm = "post_attention_layernorm",
     .q_norm = "self_attn.q_norm",
     .k_norm = "self_attn.k_norm"}};

int32_t lore_encoder_config_out(const lore_encoder_config *config)
{
    return config->dense_count > 0 ? config->dense[config->dense_count - 1].out : config->width;
}

static bool is_type(const lore_encoder_config *c, const char *type)
{
    return strcmp(c->family->model_type, type) == 0;
}

static lore_status read_family(lore_config_reader *r, lore_encoder_config *c)
{
    lore_str type = {0};
    lore_status status = lore_json_get_str_required(r->root, "", "model_type", &type, r->err);
    for (size_t i = 0; i < sizeof FAMILIES / sizeof FAMILIES[0] && status == LORE_OK; i++) {
        if (lore_str_equal(type, lore_str_from(FAMILIES[i].model_type))) {
            c->family = &FAMILIES[i];
            return LORE_OK;
        }
    }
    return status == LORE_OK
               ? lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                           "model_type '" LORE_STR_FMT "' is not supported for an encoder (bert, "
                           "roberta, xlm-roberta, modernbert, qwen3)",
                           LORE_STR_ARG(lore_str_slice(type, 0, type.len < 64 ? type.len : 64)))
               : status;
}

static lore_status read_activation(lore_config_reader *r, const char *key, const char *usual,
                                   lore_activation *activation)
{
    static const struct {
        const char *name;
        lore_activation activation;
    } NAMES[] = {{"gelu", LORE_ACT_GELU},
                 {"gelu_new", LORE_ACT_GELU_TANH},
                 {"gelu_pytorch_tanh", LORE_ACT_GELU_TANH},
                 {"silu", LORE_ACT_SILU}};
    lore_str value = lore_str_from(usual);
    lore_status status = lore_json_get_str(r->root, "", key, &value, r->err);
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0] && status == LORE_OK; i++) {
        if (lore_str_equal(value, lore_str_from(NAMES[i].name))) {
            *activation = NAMES[i].activation;
            return LORE_OK;
        }
    }
    return status == LORE_OK
               ? lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                           "%s '" LORE_STR_FMT "' is not supported (gelu, gelu_new, silu)", key,
                           LORE_STR_ARG(lore_str_slice(value, 0, value.len < 64 ? value.len : 64)))
               : status;
}

static lore_status read_eps(lore_config_reader *r, const char *key, double usual, float *eps)
{
    lore_status status =
        lore_json_get_number(r->root, "", key, LORE_EPSILON_MIN, 1, &usual, r->err);
    *eps = (float)usual;
    return status;
}

static lore_status read_sizes(lore_config_reader *r, lore_encoder_config *c)
{
    const struct {
        const char *key;
        int64_t max;
        int32_t *out;
    } fields[] = {{"num_hidden_layers", LORE_LAYERS_MAX, &c->layers},
                  {"hidden_size", LORE_WIDTH_MAX, &c->width},
                  {"num_attention_heads", LORE_HEADS_MAX, &c->heads},
                  {"intermediate_size", LORE_FFN_MAX, &c->ffn},
                  {"vocab_size", LORE_VOCAB_MAX, &c->vocab},
                  {"max_position_embeddings", LORE_CONTEXT_MAX, &c->positions}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        lore_status status = lore_config_need_int(r, fields[i].key, fields[i].max, fields[i].out);
        if (status != LORE_OK) {
            return status;
        }
    }
    c->kv_heads = c->heads;
    c->head_dim = c->width / c->heads;
    return LORE_OK;
}

/* ---- BERT, RoBERTa ---- */

/* RoBERTa counts positions from the one behind the padding's own. */
static lore_status read_position_start(lore_config_reader *r, lore_encoder_config *c)
{
    int64_t padding = 1;
    lore_status status =
        lore_json_get_int(r->root, "", "pad_token_id", 0, c->vocab - 1, &padding, r->err);
    c->position_start = (int32_t)padding + 1;
    if (status == LORE_OK && c->position_start >= c->positions) {
        return lore_fail(r->err, LORE_ERR_CORRUPT,
                         "pad_token_id %d leaves none of %d positions for a text", (int)padding,
                         c->positions);
    }
    return status;
}

static lore_status read_bert(lore_config_reader *r, lore_encoder_config *c)
{
    static const char *const OFF[] = {"is_decoder", "add_cross_attention"};
    c->types = 2; /* the library's default */
    c->has_attention_bias = c->has_ffn_bias = c->has_norm_bias = true;
    c->global_every = 1;
    lore_status status = read_activation(r, "hidden_act", "gelu", &c->activation);
    if (status == LORE_OK) {
        status = lore_config_need_text(r, "position_embedding_type", "absolute");
    }
    for (size_t i = 0; i < sizeof OFF / sizeof OFF[0] && status == LORE_OK; i++) {
        status = lore_config_need_off(r, OFF[i]);
    }
    if (status == LORE_OK) {
        status = read_eps(r, "layer_norm_eps", 1e-12, &c->eps);
    }
    if (status == LORE_OK) {
        status = lore_config_may_int(r, "type_vocab_size", TYPES_MAX, &c->types);
    }
    return status == LORE_OK && !is_type(c, "bert") ? read_position_start(r, c) : status;
}

/* ---- ModernBERT, Qwen3 ---- */

static lore_status check_head_dim(lore_config_reader *r, const lore_encoder_config *c)
{
    bool is_right = c->head_dim % 2 == 0 && c->head_dim <= LORE_HEAD_DIM_MAX;
    return is_right ? LORE_OK
                    : lore_fail(r->err, LORE_ERR_CORRUPT, "heads of %d elements cannot be rotated",
                                c->head_dim);
}

/* layer_types must say what global_every says: the library writes both. */
static lore_status check_layer_types(lore_config_reader *r, const lore_encoder_config *c)
{
    const lore_json *types = lore_json_get(r->root, "layer_types");
    int32_t i = 0;
    if (types == NULL || lore_json_is_null(types)) {
        return LORE_OK;
    }
    for (const lore_json *n = lore_json_first(types); n != NULL; n = lore_json_next(n), i++) {
        bool is_global = i % c->global_every == 0;
        if (!lore_str_equal(lore_json_str(n), is_global ? LORE_STR("full_attention")
                                                        : LORE_STR("sliding_attention"))) {
            return lore_fail(
                r->err, LORE_ERR_UNSUPPORTED,
                "layer_types[%d] does not follow from every %d. layer attending to all", i,
                c->global_every);
        }
    }
    return i == c->layers
               ? LORE_OK
               : lore_fail(r->err, LORE_ERR_CORRUPT,
                           "layer_types has %d entries, num_hidden_layers is %d", i, c->layers);
}

/* The distance between the first two layers that attend to all, where the file does not say it. */
static int32_t guess_global_every(const lore_json *types, int32_t usual)
{
    int32_t i = 0;
    for (const lore_json *n = lore_json_first(types); n != NULL; n = lore_json_next(n), i++) {
        if (i > 0 && lore_str_equal(lore_json_str(n), LORE_STR("full_attention"))) {
            return i;
        }
    }
    return i > 1 ? i : usual;
}

/* One of the two kinds of layers: theta by its old name at the top, or in an object of its own. */
static lore_status read_layer_rope(lore_config_reader *r, const char *kind, const char *key,
                                   double usual, const lore_encoder_config *c,
                                   lore_rope_config *rope)
{
    const lore_json *ropes = lore_json_get(r->root, "rope_parameters");
    const lore_json *node = lore_json_get(ropes, kind);
    lore_str type = LORE_STR("default");
    *rope = (lore_rope_config){.theta = usual, .dim = c->head_dim, .scale = 1};
    lore_status status = lore_json_get_number(r->root, "", key, 1.0001, 1e12, &rope->theta, r->err);
    if (status != LORE_OK || node == NULL || lore_json_is_null(node)) {
        return status;
    }
    status = lore_json_get_str(node, kind, "rope_type", &type, r->err);
    if (status == LORE_OK && !lore_str_equal(type, LORE_STR("default"))) {
        return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                         "rope_type '" LORE_STR_FMT "' is not supported for layers of %s",
                         LORE_STR_ARG(lore_str_slice(type, 0, type.len < 64 ? type.len : 64)),
                         kind);
    }
    return status == LORE_OK
               ? lore_json_get_number(node, kind, "rope_theta", 1.0001, 1e12, &rope->theta, r->err)
               : status;
}

static lore_status read_modernbert(lore_config_reader *r, lore_encoder_config *c)
{
    const struct {
        const char *key;
        bool *out;
    } flags[] = {{"attention_bias", &c->has_attention_bias},
                 {"mlp_bias", &c->has_ffn_bias},
                 {"norm_bias", &c->has_norm_bias}};
    int32_t span = 128;
    c->global_every = guess_global_every(lore_json_get(r->root, "layer_types"), 3);
    lore_status status = read_activation(r, "hidden_activation", "gelu", &c->activation);
    for (size_t i = 0; i < sizeof flags / sizeof flags[0] && status == LORE_OK; i++) {
        status = lore_json_get_bool(r->root, "", flags[i].key, flags[i].out, r->err);
    }
    if (status == LORE_OK) {
        status = read_eps(r, "norm_eps", 1e-5, &c->eps);
    }
    if (status == LORE_OK) {
        status = lore_config_may_int(r, "local_attention", LORE_CONTEXT_MAX, &span);
    }
    c->window = span / 2; /* on each side */
    if (status == LORE_OK && c->window == 0) {
        status =
            lore_fail(r->err, LORE_ERR_UNSUPPORTED, "local_attention below 2 is not supported");
    }
    if (status == LORE_OK) {
        status =
            lore_config_may_int(r, "global_attn_every_n_layers", LORE_LAYERS_MAX, &c->global_every);
    }
    if (status == LORE_OK) {
        status = check_layer_types(r, c);
    }
    if (status == LORE_OK) {
        status = lore_config_need_absent(r, "rope_scaling");
    }
    if (status == LORE_OK) {
        status = read_layer_rope(r, "full_attention", "global_rope_theta", 160000, c, &c->rope[0]);
    }
    if (status == LORE_OK) {
        status = read_layer_rope(r, "sliding_attention", "local_rope_theta", 10000, c, &c->rope[1]);
    }
    return status == LORE_OK ? check_head_dim(r, c) : status;
}

/* A table of angles by position cannot hold angles that depend on how long the text is. */
static lore_status check_rope_kind(lore_config_reader *r, const lore_rope_config *rope)
{
    bool is_by_length = rope->kind == LORE_ROPE_DYNAMIC || rope->kind == LORE_ROPE_LONG;
    return is_by_length ? lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                                    "rope scaling of type '%s', which follows the length of each "
                                    "text, is not supported for an encoder",
                                    rope->kind == LORE_ROPE_LONG ? "longrope" : "dynamic")
                        : LORE_OK;
}

static lore_status read_qwen3(lore_config_reader *r, lore_encoder_config *c)
{
    static const char *const OFF[] = {"use_sliding_window", "attention_bias"};
    c->head_dim = 128; /* the library's default, whatever the width */
    c->global_every = 1;
    lore_status status = read_activation(r, "hidden_act", "silu", &c->activation);
    if (status == LORE_OK) {
        status = read_eps(r, "rms_norm_eps", 1e-6, &c->eps);
    }
    if (status == LORE_OK) {
        status = lore_config_may_int(r, "num_key_value_heads", c->heads, &c->kv_heads);
    }
    if (status == LORE_OK) {
        status = lore_config_may_int(r, "head_dim", LORE_HEAD_DIM_MAX, &c->head_dim);
    }
    for (size_t i = 0; i < sizeof OFF / sizeof OFF[0] && status == LORE_OK; i++) {
        status = lore_config_need_off(r, OFF[i]);
    }
    if (status == LORE_OK) {
        status = check_layer_types(r, c);
    }
    if (status == LORE_OK && (c->heads % c->kv_heads != 0 || c->heads / c->kv_heads > GROUP_MAX)) {
        status = lore_fail(r->err, LORE_ERR_CORRUPT, "%d heads are not 1 to %d times %d key heads",
                           c->heads, GROUP_MAX, c->kv_heads);
    }
    if (status == LORE_OK) {
        status = check_head_dim(r, c);
    }
    if (status != LORE_OK) {
        return status;
    }
    const lore_rope_rules rules = {.head_dim = c->head_dim, .context = c->positions};
    status = lore_rope_config_read(r, &rules, &c->rope[0]);
    if (status == LORE_OK) {
        status = check_rope_kind(r, &c->rope[0]);
    }
    if (status == LORE_OK) {
        c->positions = lore_rope_context(&c->rope[0], c->positions);
    }
    return status;
}

/* ---- the whole ---- */

static lore_status read_encoder(lore_config_reader *r, lore_encoder_config *c)
{
    lore_status status = read_family(r, c);
    if (status == LORE_OK) {
        status = read_sizes(r, c);
    }
    if (status == LORE_OK && !is_type(c, "qwen3") && c->width % c->heads != 0) {
        status = lore_fail(r->err, LORE_ERR_CORRUPT, "hidden_size %d is no multiple of %d heads",
                           c->width, c->heads);
    }
    if (status != LORE_OK) {
        return status;
    }
    status = is_type(c, "modernbert") ? read_modernbert(r, c)
             : is_type(c, "qwen3")    ? read_qwen3(r, c)
                                      : read_bert(r, c);
    c->tokens_max = c->positions - c->position_start;
    return status;
}

/* What ModernBERT lets a file choose of its classifier. */
static lore_status read_modernbert_head(lore_config_reader *r, lore_encoder_config *c)
{
    lore_str pooling = LORE_STR("cls");
    c->dense[0].has_bias = false;
    lore_status status =
        read_activation(r, "classifier_activation", "gelu", &c->dense[0].activation);
    if (status == LORE_OK) {
        status = lore_json_get_bool(r->root, "", "classifier_bias", &c->dense[0].has_bias, r->err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_str(r->root, "", "classifier_pooling", &pooling, r->err);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (lore_str_equal(pooling, LORE_STR("mean"))) {
        c->pooling = LORE_POOL_MEAN;
    } else if (!lore_str_equal(pooling, LORE_STR("cls"))) {
        return lore_fail(
            r->err, LORE_ERR_UNSUPPORTED,
            "classifier_pooling '" LORE_STR_FMT "' is not supported (cls, mean)",
            LORE_STR_ARG(lore_str_slice(pooling, 0, pooling.len < 64 ? pooling.len : 64)));
    }
    return LORE_OK;
}

/* One label: num_labels, or as many as id2label names. Two are what the library writes where a file
 * says nothing. */
static lore_status read_head(lore_config_reader *r, lore_encoder_config *c)
{
    const lore_json *names = lore_json_get(r->root, "id2label");
    int32_t labels = lore_json_is_object(names) ? lore_json_count(names) : 2;
    lore_status status = lore_config_may_int(r, "num_labels", LORE_VOCAB_MAX, &labels);
    if (status != LORE_OK) {
        return status;
    }
    if (c->family->head[0] == NULL) {
        return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                         "model_type '%s' is not supported for a reranker (bert, roberta, "
                         "xlm-roberta, modernbert)",
                         c->family->model_type);
    }
    if (labels != 1) {
        return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                         "a reranker must have one label (id2label), not %d", labels);
    }
    c->pooling = LORE_POOL_CLS;
    c->dense_count = 2;
    c->dense[0] = (lore_dense_config){.in = c->width,
                                      .out = c->width,
                                      .activation = LORE_ACT_TANH,
                                      .has_bias = true,
                                      .name = c->family->head[0],
                                      .norm = c->family->head_norm};
    c->dense[1] =
        (lore_dense_config){.in = c->width, .out = 1, .has_bias = true, .name = c->family->head[1]};
    return is_type(c, "modernbert") ? read_modernbert_head(r, c) : LORE_OK;
}

static lore_status parse(lore_str json, const char *name, bool is_classifier,
                         lore_encoder_config *config, lore_error *err)
{
    lore_json *root = NULL;
    lore_encoder_config c = {0};
    lore_status status = lore_config_open(json, name, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_config_reader r = {root, err};
    status = read_encoder(&r, &c);
    if (status == LORE_OK && is_classifier) {
        status = read_head(&r, &c);
    }
    lore_json_free(root);
    if (status != LORE_OK) {
        return lore_model_blame(err, status, name);
    }
    *config = c;
    return LORE_OK;
}

lore_status lore_encoder_config_parse(lore_str json, const char *name, lore_encoder_config *config,
                                      lore_error *err)
{
    return parse(json, name, false, config, err);
}

lore_status lore_classifier_config_parse(lore_str json, const char *name,
                                         lore_encoder_config *config, lore_error *err)
{
    return parse(json, name, true, config, err);
}
