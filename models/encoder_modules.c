/* The companions of an encoder's config.json are sentence-transformers' files: modules.json names
 * the steps, each step's own file says how, and others say how long a text may be and what is put
 * before it. What changes the vector and is not computed is refused by its name.
 *
 * A vector that leaves the embedder has length 1, whether there is a Normalize module or not: all
 * that is stored is compared by cosine. A folder that asks for a product of vectors of different
 * lengths is therefore refused. */
#include "models/encoder_config_int.h"

#include "models/config_reader_int.h"
#include "models/model_folder_int.h"

#include <string.h>

/* Open a file that holds an object, hand it to one reader, and blame what is wrong on the file. */
static lore_status parse_with(lore_str json, const char *name,
                              lore_status (*read)(lore_config_reader *, lore_encoder_config *),
                              lore_encoder_config *config, lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = lore_config_open(json, name, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_config_reader r = {root, err};
    status = read(&r, config);
    lore_json_free(root);
    return status == LORE_OK ? LORE_OK : lore_model_blame(err, status, name);
}

static lore_str head_of(lore_str s)
{
    return lore_str_slice(s, 0, s.len < 64 ? s.len : 64);
}

/* ---- modules.json ---- */

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
static lore_status set_path(lore_config_reader *r, const lore_json *module,
                            char out[LORE_MODULE_PATH_CAP])
{
    lore_str path = lore_json_str(lore_json_get(module, "path"));
    if (path.len == 0 || path.len >= LORE_MODULE_PATH_CAP || path.ptr[0] == '.' ||
        memchr(path.ptr, '/', path.len) != NULL) {
        return lore_fail(r->err, LORE_ERR_CORRUPT,
                         "path of '" LORE_STR_FMT "' must be the name of a folder",
                         LORE_STR_ARG(head_of(module_kind(module))));
    }
    memcpy(out, path.ptr, path.len);
    out[path.len] = '\0';
    return LORE_OK;
}

static lore_status add_dense(lore_config_reader *r, const lore_json *module, lore_encoder_config *c)
{
    if (c->dense_count == LORE_DENSE_MAX) {
        return lore_fail(r->err, LORE_ERR_UNSUPPORTED, "more than %d Dense are not supported",
                         LORE_DENSE_MAX);
    }
    lore_dense_config *dense = &c->dense[c->dense_count++];
    *dense = (lore_dense_config){.name = "linear"};
    return set_path(r, module, dense->path);
}

/* Transformer, Pooling, any number of Dense, perhaps Normalize at the end. */
static lore_status read_modules(lore_config_reader *r, lore_encoder_config *c)
{
    int32_t i = 0;
    if (!lore_json_is_array(r->root)) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "must hold an array");
    }
    c->dense_count = 0;
    c->is_normalised = false;
    for (const lore_json *n = lore_json_first(r->root); n != NULL; n = lore_json_next(n), i++) {
        lore_str kind = module_kind(n);
        lore_status status = LORE_OK;
        if (i == 0 && lore_str_equal(kind, LORE_STR("Transformer"))) {
            status = lore_json_str(lore_json_get(n, "path")).len > 0
                         ? lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                                     "a Transformer in a folder of its own is not supported")
                         : LORE_OK;
        } else if (i == 1 && lore_str_equal(kind, LORE_STR("Pooling"))) {
            status = set_path(r, n, c->pooling_path);
        } else if (i >= 2 && !c->is_normalised && lore_str_equal(kind, LORE_STR("Dense"))) {
            status = add_dense(r, n, c);
        } else if (i >= 2 && !c->is_normalised && lore_str_equal(kind, LORE_STR("Normalize"))) {
            c->is_normalised = true;
        } else {
            status = lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                               "module %d '" LORE_STR_FMT "' is not supported there (Transformer, "
                               "Pooling, Dense, Normalize)",
                               i, LORE_STR_ARG(head_of(kind)));
        }
        if (status != LORE_OK) {
            return status;
        }
    }
    return i >= 2 ? LORE_OK
                  : lore_fail(r->err, LORE_ERR_CORRUPT, "must hold Transformer and Pooling");
}

lore_status lore_modules_parse(lore_str json, const char *name, lore_encoder_config *config,
                               lore_error *err)
{
    lore_json *root = NULL;
    lore_status status = lore_json_parse(json, LORE_MODEL_JSON_DEPTH_MAX, &root, err);
    if (status == LORE_OK) {
        lore_config_reader r = {root, err};
        status = read_modules(&r, config);
    }
    lore_json_free(root);
    return status == LORE_OK ? LORE_OK : lore_model_blame(err, status, name);
}

/* ---- <Pooling>/config.json ---- */

typedef struct pooling_mode {
    const char *flag, *word; /* files name the mode by a flag each; newer ones by a word */
    int pooling;             /* -1: not supported */
} pooling_mode;
static const pooling_mode MODES[] = {
    {"pooling_mode_mean_tokens", "mean", LORE_POOL_MEAN},
    {"pooling_mode_cls_token", "cls", LORE_POOL_CLS},
    {"pooling_mode_lasttoken", "lasttoken", LORE_POOL_LAST},
    {"pooling_mode_max_tokens", "max", -1},
    {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", -1},
    {"pooling_mode_weightedmean_tokens", "weightedmean", -1}};
enum { MODES_COUNT = sizeof MODES / sizeof MODES[0] };

/* Exactly one of the modes that we compute. */
static lore_status read_mode(lore_config_reader *r, lore_encoder_config *c)
{
    lore_str word = {0};
    const pooling_mode *found = NULL;
    int count = 0;
    lore_status status = lore_json_get_str(r->root, "", "pooling_mode", &word, r->err);
    for (size_t i = 0; i < MODES_COUNT && status == LORE_OK; i++) {
        bool is_on = word.len > 0 && lore_str_equal(word, lore_str_from(MODES[i].word));
        if (word.len == 0) {
            status = lore_json_get_bool(r->root, "", MODES[i].flag, &is_on, r->err);
        }
        found = is_on ? &MODES[i] : found;
        count += is_on;
        if (status == LORE_OK && is_on && MODES[i].pooling < 0) {
            return lore_fail(r->err, LORE_ERR_UNSUPPORTED, "%s is not supported", MODES[i].flag);
        }
    }
    if (status == LORE_OK && word.len > 0 && count == 0) {
        return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                         "pooling_mode '" LORE_STR_FMT "' is not supported",
                         LORE_STR_ARG(head_of(word)));
    }
    if (status == LORE_OK && count != 1) {
        return lore_fail(r->err, LORE_ERR_UNSUPPORTED, "%d pooling modes are on, must be one",
                         count);
    }
    if (status == LORE_OK) {
        c->pooling = (lore_pooling)found->pooling;
    }
    return status;
}

static lore_status read_pooling(lore_config_reader *r, lore_encoder_config *c)
{
    static const char *const WIDTHS[] = {"word_embedding_dimension", "embedding_dimension"};
    for (size_t i = 0; i < sizeof WIDTHS / sizeof WIDTHS[0]; i++) {
        int32_t width = c->width;
        lore_status status = lore_config_may_int(r, WIDTHS[i], LORE_WIDTH_MAX, &width);
        if (status != LORE_OK) {
            return status;
        }
        if (width != c->width) {
            return lore_fail(r->err, LORE_ERR_CORRUPT, "%s is %d, hidden_size %d", WIDTHS[i], width,
                             c->width);
        }
    }
    bool with_prompt = true;
    lore_status status = lore_json_get_bool(r->root, "", "include_prompt", &with_prompt, r->err);
    if (status == LORE_OK && !with_prompt) {
        return lore_fail(r->err, LORE_ERR_UNSUPPORTED, "include_prompt false is not supported");
    }
    return status == LORE_OK ? read_mode(r, c) : status;
}

lore_status lore_pooling_parse(lore_str json, const char *name, lore_encoder_config *config,
                               lore_error *err)
{
    return parse_with(json, name, read_pooling, config, err);
}

/* ---- <Dense>/config.json ---- */

static lore_status read_dense_activation(lore_config_reader *r, lore_dense_config *dense)
{
    static const struct {
        const char *name;
        lore_activation activation;
    } NAMES[] = {{"torch.nn.modules.linear.Identity", LORE_ACT_NONE},
                 {"torch.nn.modules.activation.Tanh", LORE_ACT_TANH},
                 {"torch.nn.modules.activation.GELU", LORE_ACT_GELU},
                 {"torch.nn.modules.activation.SiLU", LORE_ACT_SILU}};
    lore_str value = lore_str_from(NAMES[1].name); /* the library's default */
    lore_status status = lore_json_get_str(r->root, "", "activation_function", &value, r->err);
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0] && status == LORE_OK; i++) {
        if (lore_str_equal(value, lore_str_from(NAMES[i].name))) {
            dense->activation = NAMES[i].activation;
            return LORE_OK;
        }
    }
    return status == LORE_OK ? lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                                         "activation_function '" LORE_STR_FMT "' is not supported",
                                         LORE_STR_ARG(head_of(value)))
                             : status;
}

static lore_status read_dense(lore_config_reader *r, lore_encoder_config *c)
{
    static const char *const PLACES[] = {"module_input_name", "module_output_name"};
    int32_t i = 0;
    while (i < c->dense_count && c->dense[i].out > 0) {
        i++;
    }
    LORE_ASSERT(i < c->dense_count);
    lore_dense_config *dense = &c->dense[i];
    int32_t width = i > 0 ? c->dense[i - 1].out : c->width, out = 0;
    lore_status status = lore_config_need_int(r, "in_features", LORE_WIDTH_MAX, &dense->in);
    if (status == LORE_OK && dense->in != width) {
        status = lore_fail(r->err, LORE_ERR_CORRUPT, "in_features is %d, what comes in has %d",
                           dense->in, width);
    }
    if (status == LORE_OK) {
        status = lore_config_need_int(r, "out_features", LORE_WIDTH_MAX, &out);
    }
    dense->has_bias = true;
    if (status == LORE_OK) {
        status = lore_json_get_bool(r->root, "", "bias", &dense->has_bias, r->err);
    }
    if (status == LORE_OK) {
        status = read_dense_activation(r, dense);
    }
    if (status == LORE_OK) {
        status = lore_config_need_off(r, "use_residual");
    }
    for (size_t k = 0; k < sizeof PLACES / sizeof PLACES[0] && status == LORE_OK; k++) {
        status = lore_config_need_text(r, PLACES[k], "sentence_embedding");
    }
    if (status == LORE_OK) {
        dense->out = out;
    }
    return status;
}

lore_status lore_dense_parse(lore_str json, const char *name, lore_encoder_config *config,
                             lore_error *err)
{
    return parse_with(json, name, read_dense, config, err);
}

/* ---- how long a text may be ---- */

static void set_tokens_max(lore_encoder_config *c, double tokens)
{
    int32_t most = c->positions - c->position_start;
    c->tokens_max = tokens < (double)most ? (int32_t)tokens : most;
}

/* A tokenizer without a limit has one of 1e30. */
static lore_status read_text_length(lore_config_reader *r, lore_encoder_config *c)
{
    double tokens = c->positions;
    lore_status status =
        lore_json_get_number(r->root, "", "model_max_length", 1, 1e300, &tokens, r->err);
    if (status == LORE_OK) {
        set_tokens_max(c, tokens);
    }
    return status;
}

lore_status lore_text_length_parse(lore_str json, const char *name, lore_encoder_config *config,
                                   lore_error *err)
{
    return parse_with(json, name, read_text_length, config, err);
}

static lore_status read_sentence_config(lore_config_reader *r, lore_encoder_config *c)
{
    int32_t tokens = c->tokens_max;
    lore_status status = lore_config_may_int(r, "max_seq_length", LORE_CONTEXT_MAX, &tokens);
    if (status == LORE_OK) {
        set_tokens_max(c, tokens);
        status = lore_config_need_off(r, "do_lower_case");
    }
    return status;
}

lore_status lore_sentence_config_parse(lore_str json, const char *name, lore_encoder_config *config,
                                       lore_error *err)
{
    return parse_with(json, name, read_sentence_config, config, err);
}

/* ---- what is put before a text, and what is left of a vector ---- */

static lore_status set_prompt(lore_config_reader *r, const char *key, lore_str prompt,
                              char out[LORE_PROMPT_CAP])
{
    if (prompt.len >= LORE_PROMPT_CAP) {
        return lore_fail(r->err, LORE_ERR_LIMIT, "%s has more than %d bytes", key,
                         LORE_PROMPT_CAP - 1);
    }
    if (prompt.len > 0) {
        memcpy(out, prompt.ptr, prompt.len);
    }
    out[prompt.len] = '\0';
    return LORE_OK;
}

/* The first prompt of `names` that the file has, else the default one, else none. */
static lore_status choose_prompt(lore_config_reader *r, const char *const *names, size_t count,
                                 lore_str usual, char out[LORE_PROMPT_CAP])
{
    const lore_json *prompts = lore_json_get(r->root, "prompts");
    const lore_json *chosen = NULL;
    for (size_t i = 0; i < count && chosen == NULL; i++) {
        chosen = lore_json_get(prompts, names[i]);
    }
    for (const lore_json *n = lore_json_first(prompts); n != NULL && chosen == NULL;
         n = lore_json_next(n)) {
        chosen = usual.len > 0 && lore_str_equal(lore_json_key(n), usual) ? n : NULL;
    }
    if (chosen != NULL && !lore_json_is_null(chosen) && !lore_json_is_string(chosen)) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "prompts must be strings");
    }
    if (chosen == NULL && usual.len > 0) {
        return lore_fail(r->err, LORE_ERR_CORRUPT,
                         "default_prompt_name '" LORE_STR_FMT "' is not in prompts",
                         LORE_STR_ARG(head_of(usual)));
    }
    return set_prompt(r, "prompts", lore_json_str(chosen), out);
}

static lore_status read_dimensions(lore_config_reader *r, const char *key, lore_encoder_config *c)
{
    return lore_config_may_int(r, key, LORE_WIDTH_MAX, &c->dimensions);
}

static lore_status read_prompts(lore_config_reader *r, lore_encoder_config *c)
{
    static const char *const QUERY[] = {"query"};
    static const char *const DOCUMENT[] = {"document", "passage", "corpus"};
    lore_str usual = {0}, similarity = LORE_STR("cosine");
    lore_status status = lore_json_get_str(r->root, "", "default_prompt_name", &usual, r->err);
    if (status == LORE_OK) {
        status = choose_prompt(r, QUERY, 1, usual, c->query_prompt);
    }
    if (status == LORE_OK) {
        status = choose_prompt(r, DOCUMENT, sizeof DOCUMENT / sizeof DOCUMENT[0], usual,
                               c->document_prompt);
    }
    if (status == LORE_OK) {
        status = lore_json_get_str(r->root, "", "similarity_fn_name", &similarity, r->err);
    }
    if (status == LORE_OK && !c->is_normalised && !lore_str_equal(similarity, LORE_STR("cosine"))) {
        return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                         "similarity_fn_name '" LORE_STR_FMT
                         "' without a Normalize module is not supported",
                         LORE_STR_ARG(head_of(similarity)));
    }
    return status == LORE_OK ? read_dimensions(r, "truncate_dim", c) : status;
}

lore_status lore_prompts_parse(lore_str json, const char *name, lore_encoder_config *config,
                               lore_error *err)
{
    return parse_with(json, name, read_prompts, config, err);
}

static lore_status read_card(lore_config_reader *r, lore_encoder_config *c)
{
    const struct {
        const char *key;
        char *out;
    } prompts[] = {{"query_prompt", c->query_prompt}, {"document_prompt", c->document_prompt}};
    for (size_t i = 0; i < sizeof prompts / sizeof prompts[0]; i++) {
        lore_str text = lore_str_from(prompts[i].out);
        lore_status status = lore_json_get_str(r->root, "", prompts[i].key, &text, r->err);
        if (status == LORE_OK && text.ptr != prompts[i].out) {
            status = set_prompt(r, prompts[i].key, text, prompts[i].out);
        }
        if (status != LORE_OK) {
            return status;
        }
    }
    return read_dimensions(r, "dimensions", c);
}

lore_status lore_encoder_card_parse(lore_str json, const char *name, lore_encoder_config *config,
                                    lore_error *err)
{
    return parse_with(json, name, read_card, config, err);
}
