/* The families, and how their files are read. Where a field is absent, what holds is what the
 * family's class in transformers would have set; null is a value of its own for those fields that
 * it switches off (sliding_window, the softcaps), and absent for all others. */
#include "models/model_config_int.h"

#include "models/model_folder_int.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>

enum {
    GROUP_MAX = 128 /* query heads that share one key/value head: attention takes them together */
};

#define SEPARATE                                                         \
    .qkv = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, \
    .gate_up = {"mlp.gate_proj", "mlp.up_proj"}
#define NORMED \
    .attention_norm = "input_layernorm", .ffn_norm = "post_attention_layernorm", .eps = 1e-6
#define SILU .activation_key = "hidden_act", .activation = LORE_ACT_SILU

static const lore_family FAMILIES[] = {
    {.model_type = "llama",
     SEPARATE,
     NORMED,
     SILU,
     .bias = LORE_BIAS_ASKED,
     .reads_mlp_bias = true},
    {.model_type = "mistral",
     SEPARATE,
     NORMED,
     SILU,
     .windows = LORE_WINDOW_ALL,
     .window = 4096,
     .kv_heads = 8},
    {.model_type = "qwen2",
     SEPARATE,
     NORMED,
     SILU,
     .bias = LORE_BIAS_QKV,
     .windows = LORE_WINDOW_UPPER,
     .window = 4096,
     .kv_heads = 32},
    {.model_type = "qwen3",
     SEPARATE,
     NORMED,
     SILU,
     .bias = LORE_BIAS_ASKED,
     .has_qk_norm = true,
     .windows = LORE_WINDOW_UPPER,
     .window = 4096,
     .kv_heads = 32,
     .head_dim = 128},
    {.model_type = "phi3",
     .qkv = {"self_attn.qkv_proj"},
     .gate_up = {"mlp.gate_up_proj"},
     .attention_norm = "input_layernorm",
     .ffn_norm = "post_attention_layernorm",
     .eps = 1e-5,
     SILU,
     .windows = LORE_WINDOW_ALL,
     .is_rope_partial = true,
     .is_rope_long = true,
     .original = 4096},
    {.model_type = "gemma2",
     SEPARATE,
     .attention_norm = "input_layernorm",
     .attention_post_norm = "post_attention_layernorm",
     .ffn_norm = "pre_feedforward_layernorm",
     .ffn_post_norm = "post_feedforward_layernorm",
     .eps = 1e-6,
     .is_norm_centred = true,
     .is_embed_scaled = true,
     .has_softcaps = true,
     .activation_key = "hidden_activation",
     .activation = LORE_ACT_GELU_TANH,
     .bias = LORE_BIAS_ASKED,
     .windows = LORE_WINDOW_EVEN,
     .window = 4096,
     .kv_heads = 4,
     .head_dim = 256,
     .is_tied = true},
};

/* ---- the family ---- */

static lore_status read_family(lore_config_reader *r, lore_decoder_config *c)
{
    enum { COUNT = sizeof FAMILIES / sizeof FAMILIES[0], LIST_CAP = 128 };
    char list[LIST_CAP] = "";
    lore_str type = {0};
    size_t len = 0;
    lore_status status = lore_json_get_str_required(r->root, "", "model_type", &type, r->err);
    if (status != LORE_OK) {
        return status;
    }
    for (size_t i = 0; i < COUNT; i++) {
        if (lore_str_equal(type, lore_str_from(FAMILIES[i].model_type))) {
            c->family = &FAMILIES[i];
            return LORE_OK;
        }
        len += (size_t)snprintf(list + len, LIST_CAP - len, "%s%s", i > 0 ? ", " : "",
                                FAMILIES[i].model_type);
        LORE_ASSERT(len < LIST_CAP);
    }
    return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                     "model_type '" LORE_STR_FMT "' is not supported (%s)",
                     LORE_STR_ARG(lore_str_slice(type, 0, type.len < 64 ? type.len : 64)), list);
}

static lore_status read_activation(lore_config_reader *r, lore_decoder_config *c)
{
    static const struct {
        const char *name;
        lore_activation activation;
    } NAMES[] = {{"silu", LORE_ACT_SILU},
                 {"swish", LORE_ACT_SILU},
                 {"gelu", LORE_ACT_GELU},
                 {"gelu_new", LORE_ACT_GELU_TANH},
                 {"gelu_pytorch_tanh", LORE_ACT_GELU_TANH}};
    const char *key = c->family->activation_key;
    lore_str name = {0};
    c->activation = c->family->activation;
    lore_status status = lore_json_get_str(r->root, "", key, &name, r->err);
    if (status != LORE_OK || name.ptr == NULL) {
        return status;
    }
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        if (lore_str_equal(name, lore_str_from(NAMES[i].name))) {
            c->activation = NAMES[i].activation;
            return LORE_OK;
        }
    }
    return lore_fail(r->err, LORE_ERR_UNSUPPORTED, "%s '" LORE_STR_FMT "' is not supported", key,
                     LORE_STR_ARG(lore_str_slice(name, 0, name.len < 64 ? name.len : 64)));
}

static lore_status read_biases(lore_config_reader *r, lore_decoder_config *c)
{
    const lore_family *f = c->family;
    lore_status status = LORE_OK;
    if (f->bias == LORE_BIAS_ASKED) {
        status = lore_json_get_bool(r->root, "", "attention_bias", &c->has_qkv_bias, r->err);
        c->has_output_bias = c->has_qkv_bias;
    } else if (f->bias == LORE_BIAS_NEVER) {
        status = lore_config_need_off(r, "attention_bias");
    } else {
        c->has_qkv_bias = true;
    }
    if (status != LORE_OK) {
        return status;
    }
    return f->reads_mlp_bias ? lore_json_get_bool(r->root, "", "mlp_bias", &c->has_mlp_bias, r->err)
                             : lore_config_need_off(r, "mlp_bias");
}

/* ---- sizes ---- */

static lore_status read_sizes(lore_config_reader *r, lore_decoder_config *c)
{
    const lore_family *f = c->family;
    const struct {
        const char *key;
        int64_t max;
        int32_t *out;
    } fields[] = {{"num_hidden_layers", LORE_LAYERS_MAX, &c->layers},
                  {"hidden_size", LORE_WIDTH_MAX, &c->width},
                  {"num_attention_heads", LORE_HEADS_MAX, &c->heads},
                  {"intermediate_size", LORE_FFN_MAX, &c->ffn},
                  {"vocab_size", LORE_VOCAB_MAX, &c->vocab},
                  {"max_position_embeddings", LORE_CONTEXT_MAX, &c->context}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        lore_status status = lore_config_need_int(r, fields[i].key, fields[i].max, fields[i].out);
        if (status != LORE_OK) {
            return status;
        }
    }
    bool is_null = lore_json_is_null(lore_json_get(r->root, "num_key_value_heads"));
    c->kv_heads = is_null || f->kv_heads == 0 ? c->heads : f->kv_heads;
    c->head_dim = f->head_dim > 0 ? f->head_dim : c->width / c->heads;
    lore_status status =
        lore_config_may_int(r, "num_key_value_heads", LORE_HEADS_MAX, &c->kv_heads);
    if (status == LORE_OK) {
        status = lore_config_may_int(r, "head_dim", LORE_HEAD_DIM_MAX, &c->head_dim);
    }
    if (status == LORE_OK &&
        (c->heads % c->kv_heads != 0 || c->heads / c->kv_heads > GROUP_MAX || c->head_dim < 2 ||
         c->head_dim > LORE_HEAD_DIM_MAX || c->head_dim % 2 != 0)) {
        status = lore_fail(r->err, LORE_ERR_CORRUPT,
                           "%d heads over %d key/value heads of %d do not go together", c->heads,
                           c->kv_heads, c->head_dim);
    }
    return status;
}

static lore_status read_rope(lore_config_reader *r, lore_decoder_config *c)
{
    const lore_rope_rules rules = {.head_dim = c->head_dim,
                                   .context = c->context,
                                   .original = c->family->original,
                                   .is_partial = c->family->is_rope_partial,
                                   .is_plain_or_long = c->family->is_rope_long};
    lore_status status = lore_rope_config_read(r, &rules, &c->rope);
    if (status == LORE_OK) {
        c->context = lore_rope_context(&c->rope, c->context);
    }
    return status;
}

/* ---- windows ---- */

/* null switches it off, absent leaves the family's. */
static lore_status read_window(lore_config_reader *r, lore_decoder_config *c)
{
    bool is_used = c->family->windows != LORE_WINDOW_NONE;
    if (c->family->windows == LORE_WINDOW_UPPER) {
        is_used = false;
        lore_status status =
            lore_json_get_bool(r->root, "", "use_sliding_window", &is_used, r->err);
        if (status != LORE_OK) {
            return status;
        }
    }
    if (!is_used || lore_json_is_null(lore_json_get(r->root, "sliding_window"))) {
        return LORE_OK;
    }
    c->window = c->family->window;
    return lore_config_may_int(r, "sliding_window", LORE_CONTEXT_MAX, &c->window);
}

/* layer_types, where a file has it, decides for families that leave a choice, and must agree with
 * the others. */
static lore_status read_layer_types(lore_config_reader *r, lore_decoder_config *c)
{
    const lore_json *types = lore_json_get(r->root, "layer_types");
    bool is_free =
        c->family->windows == LORE_WINDOW_UPPER || c->family->windows == LORE_WINDOW_EVEN;
    int32_t i = 0;
    if (types == NULL || lore_json_is_null(types)) {
        return LORE_OK;
    }
    if (!lore_json_is_array(types) || lore_json_count(types) != c->layers) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "layer_types must name the kind of %d layers",
                         c->layers);
    }
    for (const lore_json *n = lore_json_first(types); n != NULL; n = lore_json_next(n), i++) {
        lore_str kind = lore_json_str(n);
        bool is_windowed = lore_str_equal(kind, LORE_STR("sliding_attention"));
        if (!is_windowed && !lore_str_equal(kind, LORE_STR("full_attention"))) {
            return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                             "layer_types '" LORE_STR_FMT "' is not supported",
                             LORE_STR_ARG(lore_str_slice(kind, 0, kind.len < 64 ? kind.len : 64)));
        }
        if (is_windowed != c->is_windowed[i] && (!is_free || c->window == 0)) {
            return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                             "layer_types: layer %d is '" LORE_STR_FMT
                             "', which model_type '%s' does not compute there",
                             i, LORE_STR_ARG(kind), c->family->model_type);
        }
        c->is_windowed[i] = is_windowed;
    }
    return LORE_OK;
}

static lore_status read_windows(lore_config_reader *r, lore_decoder_config *c)
{
    int64_t first = 28; /* as in transformers */
    lore_status status = read_window(r, c);
    if (status == LORE_OK && c->family->windows == LORE_WINDOW_UPPER && c->window > 0) {
        status =
            lore_json_get_int(r->root, "", "max_window_layers", 0, LORE_LAYERS_MAX, &first, r->err);
    }
    if (status != LORE_OK) {
        return status;
    }
    for (int32_t i = 0; i < c->layers && c->window > 0; i++) {
        c->is_windowed[i] = c->family->windows == LORE_WINDOW_ALL ||
                            (c->family->windows == LORE_WINDOW_UPPER && i >= first) ||
                            (c->family->windows == LORE_WINDOW_EVEN && i % 2 == 0);
    }
    return read_layer_types(r, c);
}

/* ---- scales ---- */

/* A cap: null is none. */
static lore_status read_cap(lore_config_reader *r, const char *key, double absent, float *out)
{
    double cap = lore_json_is_null(lore_json_get(r->root, key)) ? 0 : absent;
    lore_status status = lore_json_get_number(r->root, "", key, 1e-3, 1e6, &cap, r->err);
    *out = (float)cap;
    return status;
}

static lore_status read_scales(lore_config_reader *r, lore_decoder_config *c)
{
    double eps = c->family->eps, scalar = c->head_dim;
    lore_status status =
        lore_json_get_number(r->root, "", "rms_norm_eps", LORE_EPSILON_MIN, 1, &eps, r->err);
    if (status == LORE_OK && c->family->has_softcaps) {
        scalar = 256;
        status =
            lore_json_get_number(r->root, "", "query_pre_attn_scalar", 1e-3, 1e9, &scalar, r->err);
        if (status == LORE_OK) {
            status = read_cap(r, "attn_logit_softcapping", 50, &c->attention_softcap);
        }
        if (status == LORE_OK) {
            status = read_cap(r, "final_logit_softcapping", 30, &c->logit_softcap);
        }
    }
    c->eps = (float)eps;
    c->attention_scale = (float)(1 / sqrt(scalar));
    c->embed_scale = c->family->is_embed_scaled ? sqrtf((float)c->width) : 1.0f;
    return status;
}

/* ---- tokens ---- */

static lore_status read_token_id(lore_config_reader *r, const lore_json *node, const char *key,
                                 int32_t vocab, int32_t *id)
{
    double number = lore_json_number(node);
    if (!lore_json_is_number(node) || !(number >= 0 && number < vocab) || number != floor(number)) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "%s must be ids below %d", key, vocab);
    }
    *id = (int32_t)number;
    return LORE_OK;
}

/* bos_token_id: a number. eos_token_id: a number or a list. null and absent change nothing. */
static lore_status read_ends(lore_config_reader *r, lore_decoder_config *c)
{
    const lore_json *bos = lore_json_get(r->root, "bos_token_id");
    const lore_json *eos = lore_json_get(r->root, "eos_token_id");
    lore_status status = LORE_OK;
    if (lore_json_is_number(bos)) {
        status = read_token_id(r, bos, "bos_token_id", c->vocab, &c->bos_id);
    }
    if (status == LORE_OK && lore_json_is_number(eos)) {
        c->eos_count = 1;
        status = read_token_id(r, eos, "eos_token_id", c->vocab, &c->eos_ids[0]);
    }
    if (status != LORE_OK || !lore_json_is_array(eos)) {
        return status;
    }
    if (lore_json_count(eos) > LORE_EOS_MAX) {
        return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                         "more than %d eos_token_id are not supported", LORE_EOS_MAX);
    }
    c->eos_count = 0;
    for (const lore_json *n = lore_json_first(eos); n != NULL && status == LORE_OK;
         n = lore_json_next(n)) {
        status = read_token_id(r, n, "eos_token_id", c->vocab, &c->eos_ids[c->eos_count++]);
    }
    return status;
}

/* ---- files ---- */

static lore_status read_decoder(lore_config_reader *r, lore_decoder_config *c)
{
    static lore_status (*const PARTS[])(lore_config_reader *, lore_decoder_config *) = {
        read_family, read_activation, read_biases, read_sizes,
        read_rope,   read_windows,    read_scales, read_ends};
    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++) {
        lore_status status = PARTS[i](r, c);
        if (status != LORE_OK) {
            return status;
        }
    }
    c->is_tied = c->family->is_tied;
    lore_status status =
        lore_json_get_bool(r->root, "", "tie_word_embeddings", &c->is_tied, r->err);
    return status == LORE_OK ? lore_config_need_off(r, "use_bidirectional_attention") : status;
}

lore_status lore_decoder_config_parse(lore_str json, const char *name, lore_decoder_config *config,
                                      lore_error *err)
{
    lore_json *root = NULL;
    lore_decoder_config c = {
        .bos_id = -1,
        .generation = {.temperature = 1, .top_p = 1, .top_k = 50, .repetition_penalty = 1}};
    lore_status status = lore_config_open(json, name, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_config_reader r = {root, err};
    status = read_decoder(&r, &c);
    lore_json_free(root);
    if (status != LORE_OK) {
        return lore_model_blame(err, status, name);
    }
    *config = c;
    return LORE_OK;
}

static lore_status read_generation(lore_config_reader *r, lore_generation_defaults *g)
{
    double temperature = g->temperature, top_p = g->top_p, penalty = g->repetition_penalty;
    int64_t top_k = g->top_k;
    lore_status status = lore_json_get_bool(r->root, "", "do_sample", &g->is_sampled, r->err);
    if (status == LORE_OK) {
        status = lore_json_get_number(r->root, "", "temperature", 0, 100, &temperature, r->err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_number(r->root, "", "top_p", 0, 1, &top_p, r->err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_number(r->root, "", "repetition_penalty", LORE_PENALTY_MIN,
                                      LORE_PENALTY_MAX, &penalty, r->err);
    }
    if (status == LORE_OK) { /* -1: how some write "off" */
        status = lore_json_get_int(r->root, "", "top_k", -1, INT32_MAX, &top_k, r->err);
    }
    g->temperature = (float)temperature;
    g->top_p = (float)top_p;
    g->top_k = top_k > 0 ? (int32_t)top_k : 0;
    g->repetition_penalty = (float)penalty;
    return status;
}

lore_status lore_decoder_config_read(const char *folder, const lore_limits *limits,
                                     lore_decoder_config *config, lore_error *err)
{
    char name[PATH_MAX];
    lore_buf text;
    lore_buf_init(&text, 0);
    snprintf(name, sizeof name, "%s/config.json", folder); /* for messages: may be cut */
    lore_status status = lore_model_read(folder, "config.json", limits, &text, err);
    if (status == LORE_OK) {
        status = lore_decoder_config_parse(lore_buf_str(&text), name, config, err);
    }
    lore_buf_destroy(&text);
    return status;
}

lore_status lore_generation_config_parse(lore_str json, const char *name,
                                         lore_decoder_config *config, lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = lore_config_open(json, name, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_config_reader r = {root, err};
    status = read_ends(&r, config);
    if (status == LORE_OK) {
        status = read_generation(&r, &config->generation);
    }
    lore_json_free(root);
    return status == LORE_OK ? LORE_OK : lore_model_blame(err, status, name);
}

/* ---- what products are made of ---- */

/* The parts that a family's file has: as listed, or all rows in one. */
static void take_parts(lore_linear_shape *shape, const char *const *stems, const int32_t *rows,
                       int32_t count)
{
    int32_t total = 0;
    for (int32_t i = 0; i < count; i++) {
        total += rows[i];
        if (stems[i] != NULL) {
            shape->parts[shape->part_count++] = (lore_linear_part){stems[i], rows[i]};
        }
    }
    if (shape->part_count == 1) {
        shape->parts[0].rows = total;
    }
}

lore_linear_shape lore_decoder_linear(const lore_decoder_config *c, lore_linear which)
{
    const int32_t q_rows = c->heads * c->head_dim, kv_rows = c->kv_heads * c->head_dim;
    const struct {
        const char *const *stems;
        int32_t rows[LORE_LINEAR_PARTS_MAX], count, cols;
    } linears[LORE_LINEARS] = {
        [LORE_LINEAR_QKV] = {c->family->qkv, {q_rows, kv_rows, kv_rows}, 3, c->width},
        [LORE_LINEAR_ATTENTION_OUT] = {(const char *[]){"self_attn.o_proj"}, {c->width}, 1, q_rows},
        [LORE_LINEAR_GATE_UP] = {c->family->gate_up, {c->ffn, c->ffn}, 2, c->width},
        [LORE_LINEAR_DOWN] = {(const char *[]){"mlp.down_proj"}, {c->width}, 1, c->ffn},
        [LORE_LINEAR_HEAD] = {(const char *[]){"lm_head"}, {c->vocab}, 1, c->width}};
    lore_linear_shape shape = {.cols = linears[which].cols};
    take_parts(&shape, linears[which].stems, linears[which].rows, linears[which].count);
    return shape;
}
