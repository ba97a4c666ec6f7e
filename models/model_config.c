/* Configuration files are trusted least where they are quiet: a field that we do not know may mean
 * another network. The fields that are known to change the forward pass are therefore listed here,
 * with the one value that we compute; everything else (training, library versions, token ids of
 * other tasks) is passed over. */
#include "models/model_config_int.h"

#include "models/model_folder_int.h"

#include <math.h>
#include <string.h>

/* Bounds on sizes. Real models stay far below; the product of any three fits 63 bits. */
enum {
    LAYERS_MAX = 1024,
    WIDTH_MAX = 65536,
    HEADS_MAX = 1024,
    GROUP_MAX = 128, /* query heads that share one key/value head: attention takes them together */
    HEAD_DIM_MAX = 1024,
    FFN_MAX = 1 << 18,
    VOCAB_MAX = 1 << 21,
    CONTEXT_MAX = 1 << 21,
    TYPES_MAX = 16
};
/* Of a norm: in single precision, too, more than the nothing by which a row of equal values would
 * be divided. */
#define EPSILON_MIN 1e-30

typedef struct reader {
    const lore_json *root;
    lore_error *err;
} reader;

static lore_status parse_object(lore_str json, const char *name, lore_json **root, lore_error *err)
{
    lore_status status = lore_json_parse(json, LORE_MODEL_JSON_DEPTH_MAX, root, err);
    if (status != LORE_OK) {
        return lore_model_blame(err, status, name);
    }
    if (!lore_json_is_object(*root)) {
        lore_json_free(*root);
        *root = NULL;
        return lore_fail(err, LORE_ERR_CORRUPT, "'%s' must hold an object", name);
    }
    return LORE_OK;
}

static lore_status need_int(reader *r, const char *key, int64_t max, int32_t *out)
{
    int64_t value = 0;
    lore_status status = lore_json_get_int_required(r->root, "", key, 1, max, &value, r->err);
    *out = (int32_t)value;
    return status;
}

static lore_status may_int(reader *r, const char *key, int64_t max, int32_t *out)
{
    int64_t value = *out;
    lore_status status = lore_json_get_int(r->root, "", key, 1, max, &value, r->err);
    *out = (int32_t)value;
    return status;
}

/* Refuse a flag that is on. */
static lore_status need_off(reader *r, const char *key)
{
    bool value = false;
    lore_status status = lore_json_get_bool(r->root, "", key, &value, r->err);
    return status == LORE_OK && value
               ? lore_fail(r->err, LORE_ERR_UNSUPPORTED, "%s true is not supported", key)
               : status;
}

/* Refuse a string other than the one we compute; absent is fine. */
static lore_status need_text(reader *r, const char *key, const char *wanted)
{
    lore_str value = lore_str_from(wanted);
    lore_status status = lore_json_get_str(r->root, "", key, &value, r->err);
    return status == LORE_OK && !lore_str_equal(value, lore_str_from(wanted))
               ? lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                           "%s '" LORE_STR_FMT "' is not supported (only %s)", key,
                           LORE_STR_ARG(lore_str_slice(value, 0, value.len < 64 ? value.len : 64)),
                           wanted)
               : status;
}

/* Refuse a structure that means another network. */
static lore_status need_absent(reader *r, const char *key)
{
    const lore_json *node = lore_json_get(r->root, key);
    return lore_json_is_object(node) || lore_json_is_array(node)
               ? lore_fail(r->err, LORE_ERR_UNSUPPORTED, "%s is not supported", key)
               : LORE_OK;
}

/* ---- decoders ---- */

static lore_status read_architecture(reader *r, lore_decoder_config *c)
{
    lore_str type = {0};
    lore_status status = lore_json_get_str_required(r->root, "", "model_type", &type, r->err);
    if (status != LORE_OK) {
        return status;
    }
    if (lore_str_equal(type, LORE_STR("qwen3"))) {
        c->architecture = "qwen3";
        c->has_qk_norm = true;
    } else if (lore_str_equal(type, LORE_STR("llama"))) {
        c->architecture = "llama";
    } else {
        return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                         "model_type '" LORE_STR_FMT "' is not supported (llama, qwen3)",
                         LORE_STR_ARG(lore_str_slice(type, 0, type.len < 64 ? type.len : 64)));
    }
    return LORE_OK;
}

static lore_status read_decoder_sizes(reader *r, lore_decoder_config *c)
{
    lore_status status = need_int(r, "num_hidden_layers", LAYERS_MAX, &c->layers);
    if (status == LORE_OK) {
        status = need_int(r, "hidden_size", WIDTH_MAX, &c->width);
    }
    if (status == LORE_OK) {
        status = need_int(r, "num_attention_heads", HEADS_MAX, &c->heads);
    }
    c->kv_heads = c->heads;
    if (status == LORE_OK) {
        status = may_int(r, "num_key_value_heads", HEADS_MAX, &c->kv_heads);
    }
    c->head_dim = c->heads > 0 ? c->width / c->heads : 0;
    if (status == LORE_OK) {
        status = may_int(r, "head_dim", HEAD_DIM_MAX, &c->head_dim);
    }
    if (status == LORE_OK) {
        status = need_int(r, "intermediate_size", FFN_MAX, &c->ffn);
    }
    if (status == LORE_OK) {
        status = need_int(r, "vocab_size", VOCAB_MAX, &c->vocab);
    }
    if (status == LORE_OK) {
        status = need_int(r, "max_position_embeddings", CONTEXT_MAX, &c->context);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (c->heads % c->kv_heads != 0 || c->heads / c->kv_heads > GROUP_MAX || c->head_dim < 2 ||
        c->head_dim > HEAD_DIM_MAX || c->head_dim % 2 != 0) {
        return lore_fail(r->err, LORE_ERR_CORRUPT,
                         "%d heads over %d key/value heads of %d do not go together", c->heads,
                         c->kv_heads, c->head_dim);
    }
    return LORE_OK;
}

/* rope_theta stands at the top, or (transformers 5) in rope_parameters; only plain rotation is
 * computed. */
static lore_status read_rope(reader *r, lore_decoder_config *c)
{
    static const char *const PLACES[] = {"rope_scaling", "rope_parameters"};
    c->rope_theta = 10000;
    lore_status status =
        lore_json_get_number(r->root, "", "rope_theta", 1, 1e12, &c->rope_theta, r->err);
    for (size_t i = 0; i < 2 && status == LORE_OK; i++) {
        const lore_json *node = lore_json_get(r->root, PLACES[i]);
        lore_str type = LORE_STR("default");
        if (!lore_json_is_object(node)) {
            continue;
        }
        status = lore_json_get_str(node, PLACES[i], "type", &type, r->err);
        if (status == LORE_OK) {
            status = lore_json_get_str(node, PLACES[i], "rope_type", &type, r->err);
        }
        if (status == LORE_OK && !lore_str_equal(type, LORE_STR("default"))) {
            return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                             "%s of type '" LORE_STR_FMT "' is not supported", PLACES[i],
                             LORE_STR_ARG(lore_str_slice(type, 0, type.len < 64 ? type.len : 64)));
        }
        if (status == LORE_OK) {
            status = lore_json_get_number(node, PLACES[i], "rope_theta", 1, 1e12, &c->rope_theta,
                                          r->err);
        }
    }
    return status;
}

/* Qwen3 names the kind of each layer; all must attend to everything. */
static lore_status check_layer_types(reader *r)
{
    const lore_json *types = lore_json_get(r->root, "layer_types");
    for (const lore_json *n = lore_json_first(types); n != NULL; n = lore_json_next(n)) {
        if (!lore_str_equal(lore_json_str(n), LORE_STR("full_attention"))) {
            return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                             "layer_types: only full_attention is supported");
        }
    }
    return LORE_OK;
}

static lore_status check_decoder_fixed(reader *r)
{
    static const char *const OFF[] = {"attention_bias", "mlp_bias", "use_sliding_window"};
    lore_status status = need_text(r, "hidden_act", "silu");
    for (size_t i = 0; i < sizeof OFF / sizeof OFF[0] && status == LORE_OK; i++) {
        status = need_off(r, OFF[i]);
    }
    if (status == LORE_OK) {
        status = need_absent(r, "quantization_config");
    }
    double rotated = 1;
    if (status == LORE_OK) {
        status = lore_json_get_number(r->root, "", "partial_rotary_factor", 0, 1, &rotated, r->err);
    }
    if (status == LORE_OK && rotated < 1) {
        status = lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                           "partial_rotary_factor below 1 is not supported");
    }
    return status == LORE_OK ? check_layer_types(r) : status;
}

static lore_status read_token_id(reader *r, const lore_json *node, const char *key, int32_t vocab,
                                 int32_t *id)
{
    double number = lore_json_number(node);
    if (!lore_json_is_number(node) || !(number >= 0 && number < vocab) || number != floor(number)) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "%s must be ids below %d", key, vocab);
    }
    *id = (int32_t)number;
    return LORE_OK;
}

/* bos_token_id: a number. eos_token_id: a number or a list. null and absent change nothing. */
static lore_status read_ends(reader *r, lore_decoder_config *c)
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

lore_status lore_decoder_config_parse(lore_str json, const char *name, lore_decoder_config *config,
                                      lore_error *err)
{
    lore_json *root = NULL;
    lore_decoder_config c = {.bos_id = -1};
    double eps = 1e-6;
    lore_status status = parse_object(json, name, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    reader r = {root, err};
    status = read_architecture(&r, &c);
    if (status == LORE_OK) {
        status = check_decoder_fixed(&r);
    }
    if (status == LORE_OK) {
        status = read_decoder_sizes(&r, &c);
    }
    if (status == LORE_OK) {
        status = read_rope(&r, &c);
    }
    if (status == LORE_OK) {
        status = lore_json_get_number(root, "", "rms_norm_eps", EPSILON_MIN, 1, &eps, err);
    }
    if (status == LORE_OK) {
        status = lore_json_get_bool(root, "", "tie_word_embeddings", &c.is_tied, err);
    }
    if (status == LORE_OK) {
        status = read_ends(&r, &c);
    }
    lore_json_free(root);
    if (status != LORE_OK) {
        return lore_model_blame(err, status, name);
    }
    c.eps = (float)eps;
    *config = c;
    return LORE_OK;
}

lore_status lore_generation_config_parse(lore_str json, const char *name,
                                         lore_decoder_config *config, lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = parse_object(json, name, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    reader r = {root, err};
    status = read_ends(&r, config);
    lore_json_free(root);
    return status == LORE_OK ? LORE_OK : lore_model_blame(err, status, name);
}

/* ---- encoders ---- */

static lore_status read_encoder_sizes(reader *r, lore_encoder_config *c)
{
    c->types = 2; /* BERT's default */
    const struct {
        const char *key;
        int64_t max;
        int32_t *out;
    } fields[] = {{"num_hidden_layers", LAYERS_MAX, &c->layers},
                  {"hidden_size", WIDTH_MAX, &c->width},
                  {"num_attention_heads", HEADS_MAX, &c->heads},
                  {"intermediate_size", FFN_MAX, &c->ffn},
                  {"vocab_size", VOCAB_MAX, &c->vocab},
                  {"max_position_embeddings", CONTEXT_MAX, &c->positions}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        lore_status status = need_int(r, fields[i].key, fields[i].max, fields[i].out);
        if (status != LORE_OK) {
            return status;
        }
    }
    if (c->width % c->heads != 0) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "hidden_size %d is no multiple of %d heads",
                         c->width, c->heads);
    }
    return may_int(r, "type_vocab_size", TYPES_MAX, &c->types);
}

lore_status lore_encoder_config_parse(lore_str json, const char *name, lore_encoder_config *config,
                                      lore_error *err)
{
    lore_json *root = NULL;
    lore_encoder_config c = {0};
    double eps = 1e-12;
    lore_str type = {0};
    lore_status status = parse_object(json, name, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    reader r = {root, err};
    status = lore_json_get_str_required(root, "", "model_type", &type, err);
    if (status == LORE_OK) {
        status = need_text(&r, "model_type", "bert");
    }
    if (status == LORE_OK) {
        status = need_text(&r, "hidden_act", "gelu");
    }
    if (status == LORE_OK) {
        status = need_text(&r, "position_embedding_type", "absolute");
    }
    if (status == LORE_OK) {
        status = need_off(&r, "is_decoder");
    }
    if (status == LORE_OK) {
        status = need_off(&r, "add_cross_attention");
    }
    if (status == LORE_OK) {
        status = need_absent(&r, "quantization_config");
    }
    if (status == LORE_OK) {
        status = read_encoder_sizes(&r, &c);
    }
    if (status == LORE_OK) {
        status = lore_json_get_number(root, "", "layer_norm_eps", EPSILON_MIN, 1, &eps, err);
    }
    lore_json_free(root);
    if (status != LORE_OK) {
        return lore_model_blame(err, status, name);
    }
    c.eps = (float)eps;
    c.tokens_max = c.positions;
    *config = c;
    return LORE_OK;
}

/* "sentence_transformers.models.Pooling" -> "Pooling" */
static lore_str module_kind(const lore_json *module)
{
    lore_str type = lore_json_str(lore_json_get(module, "type"));
    size_t start = type.len;
    while (start > 0 && type.ptr[start - 1] != '.') {
        start--;
    }
    return lore_str_slice(type, start, type.len);
}

/* A plain folder name: the path goes into a file name, and the file is not ours. */
static lore_status set_pooling_path(reader *r, const lore_json *module, lore_encoder_config *c)
{
    lore_str path = lore_json_str(lore_json_get(module, "path"));
    if (path.len == 0 || path.len >= LORE_MODULE_PATH_CAP || path.ptr[0] == '.' ||
        memchr(path.ptr, '/', path.len) != NULL) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "path of Pooling must be the name of a folder");
    }
    memcpy(c->pooling_path, path.ptr, path.len);
    c->pooling_path[path.len] = '\0';
    return LORE_OK;
}

static lore_status read_modules(reader *r, lore_encoder_config *c)
{
    static const char *const ORDER[] = {"Transformer", "Pooling", "Normalize"};
    int32_t i = 0;
    if (!lore_json_is_array(r->root)) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "must hold an array");
    }
    for (const lore_json *n = lore_json_first(r->root); n != NULL; n = lore_json_next(n), i++) {
        lore_str kind = module_kind(n);
        if (i >= 3 || !lore_str_equal(kind, lore_str_from(ORDER[i]))) {
            return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                             "module %d '" LORE_STR_FMT
                             "' is not supported there (Transformer, Pooling, Normalize)",
                             i,
                             LORE_STR_ARG(lore_str_slice(kind, 0, kind.len < 64 ? kind.len : 64)));
        }
        lore_status status = i == 1 ? set_pooling_path(r, n, c) : LORE_OK;
        if (status != LORE_OK) {
            return status;
        }
        if (i == 0 && lore_json_str(lore_json_get(n, "path")).len > 0) {
            return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                             "a Transformer in a folder of its own is not supported");
        }
    }
    c->is_normalised = i == 3;
    return i >= 2 ? LORE_OK
                  : lore_fail(r->err, LORE_ERR_CORRUPT, "must hold Transformer and Pooling");
}

lore_status lore_modules_parse(lore_str json, const char *name, lore_encoder_config *config,
                               lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = lore_json_parse(json, LORE_MODEL_JSON_DEPTH_MAX, &root, err);
    if (status == LORE_OK) {
        reader r = {root, err};
        status = read_modules(&r, config);
    }
    lore_json_free(root);
    return status == LORE_OK ? LORE_OK : lore_model_blame(err, status, name);
}

/* Exactly one of the modes that we compute. */
static lore_status read_pooling(reader *r, lore_encoder_config *c)
{
    static const struct {
        const char *key;
        int pooling; /* -1: not supported */
    } MODES[] = {
        {"pooling_mode_mean_tokens", LORE_POOL_MEAN}, {"pooling_mode_cls_token", LORE_POOL_CLS},
        {"pooling_mode_lasttoken", LORE_POOL_LAST},   {"pooling_mode_max_tokens", -1},
        {"pooling_mode_mean_sqrt_len_tokens", -1},    {"pooling_mode_weightedmean_tokens", -1}};
    int count = 0;
    for (size_t i = 0; i < sizeof MODES / sizeof MODES[0]; i++) {
        bool is_on = false;
        lore_status status = lore_json_get_bool(r->root, "", MODES[i].key, &is_on, r->err);
        if (status != LORE_OK) {
            return status;
        }
        if (is_on && MODES[i].pooling < 0) {
            return lore_fail(r->err, LORE_ERR_UNSUPPORTED, "%s is not supported", MODES[i].key);
        }
        if (is_on) {
            c->pooling = (lore_pooling)MODES[i].pooling;
            count++;
        }
    }
    return count == 1 ? LORE_OK
                      : lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                                  "%d pooling modes are on, must be one", count);
}

lore_status lore_pooling_parse(lore_str json, const char *name, lore_encoder_config *config,
                               lore_error *err)
{
    lore_json *root = NULL;
    int32_t width = config->width;
    lore_status status = parse_object(json, name, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    reader r = {root, err};
    status = may_int(&r, "word_embedding_dimension", WIDTH_MAX, &width);
    if (status == LORE_OK && width != config->width) {
        status = lore_fail(err, LORE_ERR_CORRUPT, "word_embedding_dimension is %d, hidden_size %d",
                           width, config->width);
    }
    if (status == LORE_OK) {
        status = read_pooling(&r, config);
    }
    lore_json_free(root);
    return status == LORE_OK ? LORE_OK : lore_model_blame(err, status, name);
}

lore_status lore_sentence_config_parse(lore_str json, const char *name, lore_encoder_config *config,
                                       lore_error *err)
{
    lore_json *root = NULL;
    int32_t tokens_max = config->positions;
    lore_status status = parse_object(json, name, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    reader r = {root, err};
    status = may_int(&r, "max_seq_length", CONTEXT_MAX, &tokens_max);
    if (status == LORE_OK) {
        status = need_off(&r, "do_lower_case");
    }
    lore_json_free(root);
    if (status != LORE_OK) {
        return lore_model_blame(err, status, name);
    }
    config->tokens_max = tokens_max < config->positions ? tokens_max : config->positions;
    return LORE_OK;
}
