/* adapter_config.json of PEFT (LoraConfig), and its rules of which modules are meant.
 *
 * Fields that change the computation in a way that adapter.h does not are refused by name; those of
 * training, and those that describe how the file came to be, are passed over. fan_in_fan_out is one
 * of these: it says how a base stores its weights, A and B have the same shapes either way, and
 * PEFT resets it for the layers that our families are made of. null is absent.
 *
 * Expressions are Python's (module `re`). Of them regex.c knows the part that such files use, and
 * refuses the rest by name; where the two languages say different things with the same signs, it
 * is refused here. */
#include "models/adapter_int.h"
#include "models/config_reader_int.h"
#include "models/model_folder_int.h"

#include <math.h>

enum {
    NAMES_MAX = 8192,      /* entries of a list: PEFT once wrote every module of a model */
    EXPRESSIONS_MAX = 256, /* of the patterns of one object: each is run on every module */
    ENTRY_BYTES_MAX = 512, /* of a name; expressions have the limit of regex_parse.c */
    SHOWN = 64             /* bytes of an entry in a message */
};
static const double ALPHA_MIN = 1e-6, ALPHA_MAX = 1e6;

typedef struct reader {
    lore_config_reader fields;
    lore_adapter_config *c;
    const lore_limits *limits;
    lore_error *err;
} reader;

static lore_str shown(lore_str text)
{
    return lore_str_slice(text, 0, text.len < SHOWN ? text.len : SHOWN);
}

static lore_status no_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the adapter");
}

static const lore_json *field(const reader *r, const char *key)
{
    const lore_json *node = lore_json_get(r->fields.root, key);
    return lore_json_is_null(node) ? NULL : node;
}

/* ---- refusals ---- */

/* What is there and means "no": false, an empty list, object or string. */
static bool is_nothing(const lore_json *node)
{
    if (lore_json_is_array(node) || lore_json_is_object(node)) {
        return lore_json_count(node) == 0;
    }
    return node == NULL || (lore_json_is_string(node) && lore_json_str(node).len == 0) ||
           (lore_json_is_bool(node) && !lore_json_bool(node));
}

static lore_status refuse_others(const reader *r)
{
    static const struct {
        const char *key, *meaning;
    } OTHERS[] = {{"use_dora", "DoRA"},
                  {"modules_to_save", "replacing whole modules"},
                  {"lora_bias", "a bias in B"},
                  {"trainable_token_indices", "changing the embedding table"},
                  {"target_parameters", "adapting parameters that are no linear layers"},
                  {"layer_replication", "repeating layers"},
                  {"alora_invocation_tokens", "beginning at a token of the prompt (aLoRA)"},
                  {"use_qalora", "QALoRA"},
                  {"use_bdlora", "block-diagonal LoRA"},
                  {"arrow_config", "routing between adapters"},
                  {"kasa_config", "KaSA"},
                  {"monteclora_config", "MonteCLoRA"},
                  {"megatron_config", "Megatron's layers"},
                  {"enable_lora", "merged layers of early versions"}};
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
        if (!is_nothing(field(r, OTHERS[i].key))) {
            return lore_fail(r->err, LORE_ERR_UNSUPPORTED, "%s: %s is not supported", OTHERS[i].key,
                             OTHERS[i].meaning);
        }
    }
    return LORE_OK;
}

/* Some ways to begin take something away from the base; PEFT does so again when it loads the
 * adapter. Saved with path_initial_model_for_weight_conversion it says true here. */
static lore_status refuse_changed_base(const reader *r)
{
    static const char *const KEPT[] = {"gaussian", "eva", "orthogonal"};
    const lore_json *node = field(r, "init_lora_weights");
    lore_str name = lore_json_str(node);
    if (node == NULL || lore_json_is_bool(node)) {
        return LORE_OK;
    }
    for (size_t i = 0; i < sizeof KEPT / sizeof KEPT[0]; i++) {
        if (lore_str_equal_nocase(name, lore_str_from(KEPT[i]))) {
            return LORE_OK;
        }
    }
    return lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                     "init_lora_weights '" LORE_STR_FMT
                     "' is not supported: it changes the base model (PEFT's save_pretrained "
                     "converts with path_initial_model_for_weight_conversion)",
                     LORE_STR_ARG(shown(name)));
}

static lore_status check_kind(reader *r)
{
    lore_str type = {0};
    lore_status status = lore_json_get_str_required(r->fields.root, "", "peft_type", &type, r->err);
    if (status == LORE_OK) {
        status = lore_config_need_text(&r->fields, "peft_type", "LORA");
    }
    if (status == LORE_OK) {
        status = lore_config_need_text(&r->fields, "task_type", "CAUSAL_LM");
    }
    if (status == LORE_OK) {
        status = lore_config_need_text(&r->fields, "bias", "none");
    }
    if (status == LORE_OK) {
        status = refuse_others(r);
    }
    return status == LORE_OK ? refuse_changed_base(r) : status;
}

/* ---- expressions ---- */

/* Compile before + text + behind; text by itself first, so that it cannot close a group of ours. */
static lore_status compile(const reader *r, const char *key, const char *before, lore_str text,
                           const char *behind, lore_regex_search **search)
{
    const lore_regex *regex = NULL;
    lore_arena *arena = &r->c->arena;
    if (lore_str_find(text, LORE_STR("}+"), 0) != SIZE_MAX) {
        lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                  "regular expression '" LORE_STR_FMT "': possessive counts are not supported",
                  LORE_STR_ARG(shown(text)));
        return lore_error_prefix(r->err, "%s", key);
    }
    lore_status status = lore_regex_compile(text, arena, &regex, r->err);
    if (status != LORE_OK) {
        lore_error_prefix(r->err, "%s", key);
        return status;
    }
    lore_str whole =
        lore_str_printf(arena, "%s" LORE_STR_FMT "%s", before, LORE_STR_ARG(text), behind);
    *search = LORE_PUSH(arena, lore_regex_search, 1);
    if (whole.ptr == NULL || *search == NULL) {
        return no_memory(r->err);
    }
    status = lore_regex_compile(whole, arena, &regex, r->err);
    if (status != LORE_OK) {
        lore_error_prefix(r->err, "%s", key);
        return status;
    }
    **search = (lore_regex_search){.regex = regex};
    return LORE_OK;
}

/* ---- lists and objects ---- */

static lore_status copy_entry(const reader *r, const char *key, const lore_json *node,
                              lore_str text, lore_str *out)
{
    if (node == NULL || text.len == 0 || text.len > ENTRY_BYTES_MAX) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "%s must hold names of 1 to %d bytes", key,
                         ENTRY_BYTES_MAX);
    }
    *out = lore_str_copy(&r->c->arena, text);
    return out->ptr != NULL ? LORE_OK : no_memory(r->err);
}

static lore_status check_count(const reader *r, const char *key, const lore_json *node)
{
    return lore_json_count(node) > NAMES_MAX
               ? lore_fail(r->err, LORE_ERR_LIMIT, "%s has %d entries, more than %d", key,
                           lore_json_count(node), NAMES_MAX)
               : LORE_OK;
}

/* A string is an expression for whole names, a list holds ends of names. */
static lore_status read_modules(const reader *r, const char *key, lore_adapter_modules *out)
{
    const lore_json *node = field(r, key);
    if (is_nothing(node)) {
        return LORE_OK;
    }
    if (lore_json_is_string(node)) {
        return compile(r, key, "\\A(?:", lore_json_str(node), ")\\z", &out->search);
    }
    if (!lore_json_is_array(node)) {
        return lore_fail(r->err, LORE_ERR_CORRUPT,
                         "%s must be a list of names or a regular expression", key);
    }
    lore_status status = check_count(r, key, node);
    if (status != LORE_OK) {
        return status;
    }
    out->names = LORE_PUSH(&r->c->arena, lore_str, lore_json_count(node));
    if (out->names == NULL) {
        return no_memory(r->err);
    }
    for (const lore_json *n = lore_json_first(node); n != NULL && status == LORE_OK;
         n = lore_json_next(n)) {
        status = copy_entry(r, key, n, lore_json_str(n), &out->names[out->count++]);
    }
    return status;
}

/* Letters, digits, '_' and '.': an expression that is nearly a name, as nearly all are. */
static bool is_plain(lore_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char x = text.ptr[i], lower = (char)(x | 0x20);
        if (!(lower >= 'a' && lower <= 'z') && !(x >= '0' && x <= '9') && x != '_' && x != '.') {
            return false;
        }
    }
    return true;
}

/* re.match(rf"(.*\.)?({key})$", name) */
static lore_status read_pattern(const reader *r, const char *key, const lore_json *node,
                                lore_adapter_pattern *out, int32_t *expressions)
{
    lore_status status = copy_entry(r, key, node, lore_json_key(node), &out->text);
    if (status != LORE_OK || is_plain(out->text)) {
        return status;
    }
    if (++*expressions > EXPRESSIONS_MAX) {
        return lore_fail(r->err, LORE_ERR_LIMIT, "%s has more than %d regular expressions", key,
                         EXPRESSIONS_MAX);
    }
    return compile(r, key, "\\A(?:.*\\.)?(?:", out->text, ")\\z", &out->search);
}

/* rank_pattern, alpha_pattern: objects of numbers. */
static lore_status read_patterns(const reader *r, const char *key, double min, double max,
                                 bool is_whole, lore_adapter_patterns *out)
{
    const lore_json *node = field(r, key);
    int32_t expressions = 0;
    if (node == NULL) {
        return LORE_OK;
    }
    if (!lore_json_is_object(node)) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "%s must be an object", key);
    }
    lore_status status = check_count(r, key, node);
    if (status != LORE_OK) {
        return status;
    }
    out->items = LORE_PUSH(&r->c->arena, lore_adapter_pattern, lore_json_count(node));
    if (out->items == NULL) {
        return no_memory(r->err);
    }
    for (const lore_json *n = lore_json_first(node); n != NULL && status == LORE_OK;
         n = lore_json_next(n)) {
        double value = lore_json_number(n);
        lore_adapter_pattern *pattern = &out->items[out->count++];
        if (!lore_json_is_number(n) || !(value >= min && value <= max) ||
            (is_whole && value != floor(value))) {
            return lore_fail(
                r->err, LORE_ERR_CORRUPT, "%s." LORE_STR_FMT " must be a%s number from %g to %g",
                key, LORE_STR_ARG(shown(lore_json_key(n))), is_whole ? " whole" : "", min, max);
        }
        pattern->value = value;
        status = read_pattern(r, key, n, pattern, &expressions);
    }
    return status;
}

/* ---- layers ---- */

static lore_status read_layer(const reader *r, const lore_json *node)
{
    double layer = lore_json_number(node);
    if (!lore_json_is_number(node) || !(layer >= 0 && layer < LORE_LAYERS_MAX) ||
        layer != floor(layer)) {
        return lore_fail(r->err, LORE_ERR_CORRUPT,
                         "layers_to_transform must hold numbers of layers, 0 to %d",
                         LORE_LAYERS_MAX - 1);
    }
    r->c->is_layer[(int32_t)layer] = true;
    return LORE_OK;
}

/* layers_pattern: before the number of the layer, re.match(rf"(?:^|.*?\.){entry}\.(\d+)\.", name).
 * Our names have one number, so which one was matched is no question. */
static lore_status read_layer_patterns(const reader *r)
{
    static const char KEY[] = "layers_pattern";
    const lore_json *node = field(r, KEY);
    lore_adapter_patterns *out = &r->c->layers;
    lore_status status = LORE_OK;
    if (is_nothing(node)) {
        return LORE_OK;
    }
    bool is_list = lore_json_is_array(node);
    int32_t count = is_list ? lore_json_count(node) : 1;
    if (count > EXPRESSIONS_MAX) {
        return lore_fail(r->err, LORE_ERR_LIMIT, "%s has more than %d entries", KEY,
                         EXPRESSIONS_MAX);
    }
    out->items = LORE_PUSH(&r->c->arena, lore_adapter_pattern, count);
    if (out->items == NULL) {
        return no_memory(r->err);
    }
    for (const lore_json *n = is_list ? lore_json_first(node) : node;
         n != NULL && status == LORE_OK; n = is_list ? lore_json_next(n) : NULL) {
        lore_adapter_pattern *pattern = &out->items[out->count++];
        status = copy_entry(r, KEY, n, lore_json_str(n), &pattern->text);
        if (status == LORE_OK) {
            status = compile(r, KEY, "\\A(?:.*\\.)?(?:", pattern->text, ")\\.[0-9]+\\.",
                             &pattern->search);
        }
    }
    return status;
}

static lore_status read_layers(const reader *r)
{
    static const char KEY[] = "layers_to_transform";
    const lore_json *node = field(r, KEY);
    bool is_list = lore_json_is_array(node);
    r->c->has_layers = node != NULL && !(is_list && lore_json_count(node) == 0);
    bool has_pattern = !is_nothing(field(r, "layers_pattern"));
    if ((r->c->has_layers || has_pattern) && lore_json_is_string(field(r, "target_modules"))) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "%s goes with a list of target_modules only",
                         r->c->has_layers ? KEY : "layers_pattern");
    }
    if (!r->c->has_layers) {
        return has_pattern
                   ? lore_fail(r->err, LORE_ERR_CORRUPT, "layers_pattern needs layers_to_transform")
                   : LORE_OK;
    }
    if (!is_list) {
        lore_status status = read_layer(r, node);
        return status == LORE_OK ? read_layer_patterns(r) : status;
    }
    for (const lore_json *n = lore_json_first(node); n != NULL; n = lore_json_next(n)) {
        lore_status status = read_layer(r, n);
        if (status != LORE_OK) {
            return status;
        }
    }
    return read_layer_patterns(r);
}

/* ---- the file ---- */

static lore_status read_ranks(reader *r)
{
    lore_adapter_config *c = r->c;
    const int64_t rank_max = r->limits->adapter_rank_max;
    lore_status status = lore_config_need_int(&r->fields, "r", rank_max, &c->rank);
    if (status == LORE_OK && field(r, "lora_alpha") == NULL) {
        status = lore_fail(r->err, LORE_ERR_CORRUPT, "lora_alpha is required");
    }
    if (status == LORE_OK) {
        status = lore_json_get_number(r->fields.root, "", "lora_alpha", ALPHA_MIN, ALPHA_MAX,
                                      &c->alpha, r->err);
    }
    if (status == LORE_OK) {
        status =
            lore_json_get_bool(r->fields.root, "", "use_rslora", &c->is_rank_stabilised, r->err);
    }
    if (status == LORE_OK) {
        status = read_patterns(r, "rank_pattern", 1, (double)rank_max, true, &c->ranks);
    }
    return status == LORE_OK
               ? read_patterns(r, "alpha_pattern", ALPHA_MIN, ALPHA_MAX, false, &c->alphas)
               : status;
}

static lore_status read_targets(reader *r)
{
    const lore_json *targets = field(r, "target_modules");
    if (is_nothing(targets)) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "target_modules names no module");
    }
    r->c->is_all_linear = lore_str_equal_nocase(lore_json_str(targets), LORE_STR("all-linear"));
    lore_status status =
        r->c->is_all_linear ? LORE_OK : read_modules(r, "target_modules", &r->c->targets);
    if (status == LORE_OK) {
        status = read_modules(r, "exclude_modules", &r->c->excluded);
    }
    return status == LORE_OK ? read_layers(r) : status;
}

lore_status lore_adapter_config_parse(lore_str json, const char *name, const lore_limits *limits,
                                      lore_adapter_config *config, lore_error *err)
{
    lore_json *root = NULL;
    lore_error own; /* words are put before it, so there must be one */
    err = err != NULL ? err : &own;
    lore_status status = lore_config_open(json, name, &root, err);
    if (status != LORE_OK) {
        return status;
    }
    *config = (lore_adapter_config){0};
    lore_arena_init(&config->arena, 0);
    reader r = {.fields = {root, err}, .c = config, .limits = limits, .err = err};
    status = check_kind(&r);
    if (status == LORE_OK) {
        status = read_ranks(&r);
    }
    if (status == LORE_OK) {
        status = read_targets(&r);
    }
    lore_json_free(root);
    if (status != LORE_OK) {
        lore_adapter_config_destroy(config);
        return lore_model_blame(err, status, name);
    }
    return LORE_OK;
}

void lore_adapter_config_destroy(lore_adapter_config *config)
{
    lore_arena_destroy(&config->arena);
}

/* ---- matching ---- */

static lore_status is_found(lore_adapter_config *c, lore_regex_search *search, lore_str text,
                            bool *is_hit, lore_error *err)
{
    size_t start = 0, end = 0;
    search->arena = &c->arena; /* a configuration may have been moved since */
    lore_status status = lore_regex_begin(search, text);
    if (status == LORE_OK) {
        status = lore_regex_find(search, 0, &start, &end);
    }
    *is_hit = status == LORE_OK && start != SIZE_MAX;
    return status == LORE_OK ? LORE_OK : lore_regex_explain(search->regex, status, err);
}

/* The name, or what stands behind one of its dots. */
static bool ends_as(lore_str module, lore_str name, bool *is_whole)
{
    *is_whole = module.len == name.len;
    return lore_str_ends(module, name) &&
           (*is_whole || module.ptr[module.len - name.len - 1] == '.');
}

/* *is_whole: a list holds the name itself, which layers_to_transform does not cut. */
static lore_status match_modules(lore_adapter_config *c, const lore_adapter_modules *modules,
                                 lore_str module, bool *is_hit, bool *is_whole, lore_error *err)
{
    *is_hit = *is_whole = false;
    if (modules->search != NULL) {
        *is_whole = true;
        return is_found(c, modules->search, module, is_hit, err);
    }
    for (int32_t i = 0; i < modules->count && !*is_whole; i++) {
        bool is_this_whole = false;
        if (ends_as(module, modules->names[i], &is_this_whole)) {
            *is_hit = true;
            *is_whole = is_this_whole;
        }
    }
    return LORE_OK;
}

/* As an expression: a dot stands for any character. */
static bool ends_as_plain(lore_str module, lore_str text)
{
    if (text.len > module.len) {
        return false;
    }
    size_t start = module.len - text.len;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] != '.' && text.ptr[i] != module.ptr[start + i]) {
            return false;
        }
    }
    return start == 0 || module.ptr[start - 1] == '.';
}

/* The value of the first pattern that matches. */
static lore_status match_patterns(lore_adapter_config *c, const lore_adapter_patterns *patterns,
                                  lore_str module, double *value, lore_error *err)
{
    for (int32_t i = 0; i < patterns->count; i++) {
        const lore_adapter_pattern *pattern = &patterns->items[i];
        bool is_hit = false;
        if (pattern->search == NULL) {
            is_hit = ends_as_plain(module, pattern->text);
        } else {
            lore_status status = is_found(c, pattern->search, module, &is_hit, err);
            if (status != LORE_OK) {
                return status;
            }
        }
        if (is_hit) {
            *value = pattern->value;
            break;
        }
    }
    return LORE_OK;
}

static lore_status match_layer(lore_adapter_config *c, lore_str module, int32_t layer, bool *is_hit,
                               lore_error *err)
{
    *is_hit = layer >= 0 && c->is_layer[layer];
    if (!*is_hit || c->layers.count == 0) {
        return LORE_OK;
    }
    *is_hit = false;
    for (int32_t i = 0; i < c->layers.count && !*is_hit; i++) {
        lore_status status = is_found(c, c->layers.items[i].search, module, is_hit, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

static lore_status match_target(lore_adapter_config *c, lore_str module, int32_t layer,
                                bool *is_hit, lore_error *err)
{
    bool is_excluded = false, is_whole = false;
    *is_hit = false;
    lore_status status = match_modules(c, &c->excluded, module, &is_excluded, &is_whole, err);
    if (status != LORE_OK || is_excluded) {
        return status;
    }
    if (c->is_all_linear) { /* all but the head, says PEFT */
        *is_hit = layer >= 0;
        return LORE_OK;
    }
    status = match_modules(c, &c->targets, module, is_hit, &is_whole, err);
    return status == LORE_OK && *is_hit && !is_whole && c->has_layers
               ? match_layer(c, module, layer, is_hit, err)
               : status;
}

lore_status lore_adapter_config_match(lore_adapter_config *c, lore_str module, int32_t layer,
                                      lore_adapter_target *target, lore_error *err)
{
    double rank = c->rank, alpha = c->alpha;
    *target = (lore_adapter_target){0};
    lore_status status = match_target(c, module, layer, &target->is_hit, err);
    if (status == LORE_OK && target->is_hit) {
        status = match_patterns(c, &c->ranks, module, &rank, err);
    }
    if (status == LORE_OK && target->is_hit) {
        status = match_patterns(c, &c->alphas, module, &alpha, err);
    }
    target->rank = (int32_t)rank;
    target->scale = (float)(alpha / (c->is_rank_stabilised ? sqrt(rank) : rank));
    return status;
}
