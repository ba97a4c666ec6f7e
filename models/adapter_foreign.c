/* Reading an adapter of any trainer: the file is found, each tensor gets its meaning from its name
 * (adapter_keys.c), and each pair its scale: from a tensor of its own, from the configuration of
 * PEFT or MLX-LM that lies beside, or from the caller. */
#include "models/adapter_foreign_int.h"

#include "base/file.h"
#include "models/model_folder_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NAMES_MAX = 10000, MODULE_CAP = 160 };

#define CONFIG_NAME "adapter_config.json"

typedef enum config_kind {
    CONFIG_NONE = 0,
    CONFIG_PEFT,
    CONFIG_MLX /* says the scale itself */
} config_kind;

typedef struct reader {
    lore_foreign_adapter *s;
    const lore_decoder_config *base;
    const lore_limits *limits;
    const lore_convert_options *options;
    char folder[LORE_ADAPTER_PATH_CAP];
    config_kind kind;
    lore_adapter_config peft;
    double mlx_scale;
    lore_error *err;
} reader;

/* "model.layers.3.mlp.up_proj" */
static lore_str module_name(int32_t layer, const char *stem, char name[MODULE_CAP])
{
    if (layer < 0) {
        snprintf(name, MODULE_CAP, "%s", stem);
    } else {
        snprintf(name, MODULE_CAP, "model.layers.%d.%s", layer, stem);
    }
    return lore_str_from(name);
}

static lore_status no_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the adapter");
}

/* ---- units ---- */

int32_t lore_adapter_unit_rows(const lore_decoder_config *c, lore_adapter_unit unit)
{
    const int32_t rows[LORE_UNITS] = {[LORE_UNIT_Q] = c->heads * c->head_dim,
                                      [LORE_UNIT_K] = c->kv_heads * c->head_dim,
                                      [LORE_UNIT_V] = c->kv_heads * c->head_dim,
                                      [LORE_UNIT_OUT] = c->width,
                                      [LORE_UNIT_GATE] = c->ffn,
                                      [LORE_UNIT_UP] = c->ffn,
                                      [LORE_UNIT_DOWN] = c->width,
                                      [LORE_UNIT_HEAD] = c->vocab};
    return rows[unit];
}

int32_t lore_adapter_unit_cols(const lore_decoder_config *c, lore_adapter_unit unit)
{
    return unit == LORE_UNIT_OUT    ? c->heads * c->head_dim
           : unit == LORE_UNIT_DOWN ? c->ffn
                                    : c->width;
}

void lore_adapter_units_of(const lore_linear_shape *shape, lore_linear which, int32_t part,
                           lore_adapter_unit *first, int32_t *count)
{
    static const struct {
        lore_adapter_unit first;
        int32_t count;
    } UNITS[LORE_LINEARS] = {[LORE_LINEAR_QKV] = {LORE_UNIT_Q, 3},
                             [LORE_LINEAR_ATTENTION_OUT] = {LORE_UNIT_OUT, 1},
                             [LORE_LINEAR_GATE_UP] = {LORE_UNIT_GATE, 2},
                             [LORE_LINEAR_DOWN] = {LORE_UNIT_DOWN, 1},
                             [LORE_LINEAR_HEAD] = {LORE_UNIT_HEAD, 1}};
    *first = (lore_adapter_unit)((int32_t)UNITS[which].first + part);
    *count = shape->part_count == 1 ? UNITS[which].count : 1;
}

/* ---- files ---- */

static bool is_file_name(lore_str name)
{
    return lore_str_ends(name, LORE_STR(".safetensors")) && name.ptr[0] != '.';
}

/* A folder's one safetensors file, or the one of these names: trainers leave steps beside it. */
static lore_status find_file(reader *r, lore_str *name)
{
    static const char *const KNOWN[] = {"adapter_model.safetensors", "adapters.safetensors",
                                        "pytorch_lora_weights.safetensors"};
    lore_str *names = NULL;
    size_t count = 0;
    int32_t found = 0;
    for (size_t i = 0; i < sizeof KNOWN / sizeof KNOWN[0]; i++) {
        if (lore_model_has(r->folder, KNOWN[i])) {
            *name = lore_str_from(KNOWN[i]);
            return LORE_OK;
        }
    }
    lore_status status = lore_dir_list(&r->s->arena, r->folder, NAMES_MAX, &names, &count, r->err);
    for (size_t i = 0; i < count && status == LORE_OK; i++) {
        if (is_file_name(names[i])) {
            *name = names[i];
            found++;
        }
    }
    if (status == LORE_OK && found != 1) {
        status = lore_fail(r->err, LORE_ERR_NOT_FOUND,
                           found == 0 ? "'%s' holds no safetensors file (others are not read)"
                                      : "'%s' holds several safetensors files: name one of them",
                           r->folder);
    }
    return status;
}

static lore_status find_paths(reader *r, const char *path)
{
    lore_str whole = lore_str_from(path), name = {0};
    size_t slash = whole.len;
    if (!lore_file_exists(path)) {
        return lore_fail(r->err, LORE_ERR_NOT_FOUND, "there is no adapter '%s'", path);
    }
    if (lore_file_is_dir(path)) {
        int len = snprintf(r->folder, sizeof r->folder, "%s", path);
        lore_status status = len < LORE_ADAPTER_PATH_CAP
                                 ? find_file(r, &name)
                                 : lore_fail(r->err, LORE_ERR_INVALID, "path too long");
        if (status != LORE_OK) {
            return status;
        }
        len = snprintf(r->s->path, sizeof r->s->path, "%s/" LORE_STR_FMT, path, LORE_STR_ARG(name));
        return len < LORE_ADAPTER_PATH_CAP
                   ? LORE_OK
                   : lore_fail(r->err, LORE_ERR_INVALID, "path too long: '%s/...'", path);
    }
    while (slash > 0 && path[slash - 1] != '/') {
        slash--;
    }
    const lore_str folder = slash == 0 ? LORE_STR(".") : lore_str_slice(whole, 0, slash);
    int len = snprintf(r->s->path, sizeof r->s->path, "%s", path);
    snprintf(r->folder, sizeof r->folder, LORE_STR_FMT, LORE_STR_ARG(folder));
    return len < LORE_ADAPTER_PATH_CAP ? LORE_OK
                                       : lore_fail(r->err, LORE_ERR_INVALID, "path too long");
}

/* {"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}} */
static lore_status read_mlx(reader *r, const lore_json *root)
{
    lore_str type = LORE_STR("lora");
    const lore_json *parameters = lore_json_get(root, "lora_parameters");
    lore_status status = lore_json_get_str(root, "", "fine_tune_type", &type, r->err);
    if (status == LORE_OK && !lore_str_equal(type, LORE_STR("lora"))) {
        status = lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                           "fine_tune_type '" LORE_STR_FMT "' is not supported (lora)",
                           LORE_STR_ARG(lore_str_slice(type, 0, type.len < 64 ? type.len : 64)));
    }
    if (status == LORE_OK && lore_json_get(parameters, "scale") == NULL) {
        status = lore_fail(r->err, LORE_ERR_CORRUPT, "lora_parameters.scale is required");
    }
    if (status == LORE_OK) {
        status = lore_json_get_number(parameters, "lora_parameters", "scale", 1e-6, 1e6,
                                      &r->mlx_scale, r->err);
    }
    r->kind = CONFIG_MLX;
    return status;
}

static lore_status read_config(reader *r)
{
    lore_buf text;
    lore_json *root = NULL;
    char path[LORE_ADAPTER_PATH_CAP + 32];
    if (!lore_model_has(r->folder, CONFIG_NAME)) {
        return LORE_OK;
    }
    snprintf(path, sizeof path, "%s/" CONFIG_NAME, r->folder);
    lore_status status = lore_model_json(r->folder, CONFIG_NAME, r->limits, &root, r->err);
    if (status != LORE_OK) {
        return status;
    }
    if (lore_json_is_object(lore_json_get(root, "lora_parameters"))) {
        status = read_mlx(r, root);
        status = status == LORE_OK ? LORE_OK : lore_model_blame(r->err, status, path);
        lore_json_free(root);
        return status;
    }
    lore_json_free(root);
    lore_buf_init(&text, 0);
    status = lore_model_read(r->folder, CONFIG_NAME, r->limits, &text, r->err);
    if (status == LORE_OK) {
        status = lore_adapter_config_parse(lore_buf_str(&text), path, r->limits, &r->peft, r->err);
    }
    r->kind = status == LORE_OK ? CONFIG_PEFT : CONFIG_NONE;
    lore_buf_destroy(&text);
    return status;
}

/* ---- tensors ---- */

static lore_status blame(const reader *r, const lore_tensor *t, const char *what)
{
    return lore_fail(r->err, LORE_ERR_CORRUPT, "'%s': tensor '" LORE_STR_FMT "' %s", r->s->path,
                     LORE_STR_ARG(t->name), what);
}

static lore_adapter_pair *pair_at(const reader *r, int32_t layer, int32_t module)
{
    const int32_t row = layer < 0 ? r->base->layers : layer;
    return &r->s->pairs[(size_t)row * LORE_ADAPTER_MODULES + (size_t)module];
}

static bool is_float(const lore_tensor *t)
{
    return t->type->is_usable && t->type->dtype != LORE_I8;
}

/* Of torchtune's models those of Qwen rotate halves, as transformers does, and Phi-3's too. */
static lore_adapter_order order_of(const reader *r, lore_adapter_order order)
{
    if (order != LORE_ORDER_TORCHTUNE) {
        return order;
    }
    static const char *const PAIRED[] = {"llama", "mistral", "gemma2"};
    for (size_t i = 0; i < sizeof PAIRED / sizeof PAIRED[0]; i++) {
        if (strcmp(r->base->family->model_type, PAIRED[i]) == 0) {
            return LORE_ORDER_PAIRED;
        }
    }
    return LORE_ORDER_STACKED;
}

static lore_status claim(reader *r, const lore_tensor *t)
{
    lore_adapter_key key;
    lore_status status = lore_adapter_key_parse(t->name, &key, r->err);
    if (status != LORE_OK) {
        return lore_error_prefix(r->err, "'%s'", r->s->path);
    }
    if (key.role == LORE_ROLE_BASE) {
        const int32_t i = strstr(key.copy, "embed_tokens") != NULL;
        if (r->s->copies[i] != NULL) {
            return blame(r, t, "is there under two names");
        }
        r->s->copies[i] = t;
        r->s->copy_names[i] = key.copy;
        return LORE_OK;
    }
    if (key.layer >= r->base->layers) {
        return blame(r, t, "belongs to a layer that the base model has not");
    }
    if (!is_float(t)) {
        return blame(r, t, "must be F32, F16 or BF16");
    }
    const lore_adapter_module *module = &lore_adapter_module_table[key.module];
    lore_adapter_pair *pair = pair_at(r, key.layer, key.module);
    const lore_tensor **place =
        key.role == LORE_ROLE_ALPHA ? &pair->alpha : &pair->halves[key.role];
    if (*place != NULL) {
        return blame(r, t, "is there under two names");
    }
    if (key.role != LORE_ROLE_ALPHA) {
        const lore_tensor *other = pair->halves[1 - (int32_t)key.role];
        if (other != NULL && pair->is_transposed != key.is_transposed) {
            return blame(r, t, "and its other half are of different trainers");
        }
        pair->is_transposed = key.is_transposed;
    }
    *place = t;
    pair->first = module->first;
    pair->count = module->count;
    pair->order = order_of(r, module->order);
    return LORE_OK;
}

/* ---- pairs ---- */

static lore_status check_shape(const reader *r, const lore_tensor *t, int32_t rows, int32_t cols)
{
    const bool is_matrix = t->rank == 2;
    if (is_matrix && t->shape[0] == rows && t->shape[1] == cols) {
        return LORE_OK;
    }
    return lore_fail(r->err, LORE_ERR_CORRUPT,
                     "'%s': tensor '" LORE_STR_FMT "' must be [%d, %d], %s [%lld, %lld]",
                     r->s->path, LORE_STR_ARG(t->name), rows, cols,
                     is_matrix ? "is" : "is no matrix:", t->rank > 0 ? (long long)t->shape[0] : 1,
                     t->rank > 1 ? (long long)t->shape[1] : 1);
}

static lore_status check_shapes(const reader *r, lore_adapter_pair *pair)
{
    const lore_tensor *a = pair->halves[0], *b = pair->halves[1];
    const int64_t rank = a->rank == 2 ? a->shape[pair->is_transposed ? 1 : 0] : 0;
    const int32_t cols = lore_adapter_unit_cols(r->base, pair->first);
    int32_t rows = 0;
    if (a->rank != 2 || rank < 1) {
        return blame(r, a, "is no matrix of one column or more");
    }
    if (rank > r->limits->adapter_rank_max) {
        return lore_fail(r->err, LORE_ERR_LIMIT,
                         "'%s': tensor '" LORE_STR_FMT
                         "' has rank %lld, over limits.adapter_rank_max (%lld)",
                         r->s->path, LORE_STR_ARG(a->name), (long long)rank,
                         (long long)r->limits->adapter_rank_max);
    }
    pair->rank = (int32_t)rank;
    for (int32_t i = 0; i < pair->count; i++) {
        rows += lore_adapter_unit_rows(r->base, (lore_adapter_unit)((int32_t)pair->first + i));
    }
    const bool is_turned = pair->is_transposed;
    lore_status status =
        check_shape(r, a, is_turned ? cols : pair->rank, is_turned ? pair->rank : cols);
    return status == LORE_OK
               ? check_shape(r, b, is_turned ? pair->rank : rows, is_turned ? rows : pair->rank)
               : status;
}

static lore_status match(reader *r, lore_str module, int32_t layer, lore_adapter_target *target)
{
    lore_status status = lore_adapter_config_match(&r->peft, module, layer, target, r->err);
    return status == LORE_OK ? LORE_OK
                             : lore_error_prefix(r->err, "'%s/" CONFIG_NAME "'", r->folder);
}

/* What PEFT's configuration says of the module by the trainer's own name for it, else by those that
 * the base has for its parts. */
static lore_status set_peft_scale(reader *r, lore_adapter_pair *pair, int32_t layer,
                                  const char *name)
{
    static const char *const STEMS[LORE_UNITS] = {
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",    "lm_head"};
    char module[MODULE_CAP];
    lore_adapter_target target;
    lore_status status = match(r, module_name(layer, name, module), layer, &target);
    for (int32_t i = 0; i < pair->count && status == LORE_OK && !target.is_hit; i++) {
        const lore_str stem = module_name(layer, STEMS[(int32_t)pair->first + i], module);
        status = match(r, stem, layer, &target);
    }
    if (status == LORE_OK && !target.is_hit) {
        return blame(r, pair->halves[0], "belongs to a module that " CONFIG_NAME " does not mean");
    }
    if (status == LORE_OK && target.rank != pair->rank) {
        status =
            lore_fail(r->err, LORE_ERR_CORRUPT,
                      "'%s': tensor '" LORE_STR_FMT "' has rank %d, " CONFIG_NAME " says %d",
                      r->s->path, LORE_STR_ARG(pair->halves[0]->name), pair->rank, target.rank);
    }
    pair->scale = (double)target.scale;
    return status;
}

static lore_status set_scale(reader *r, lore_adapter_pair *pair, int32_t layer, const char *name)
{
    const lore_tensor *t = pair->alpha;
    if (t != NULL) {
        const double alpha =
            t->size_bytes == t->type->size_bytes ? (double)lore_tensor_value(t, 0) : NAN;
        pair->scale = alpha / pair->rank;
        return alpha > 0 && isfinite(alpha) ? LORE_OK : blame(r, t, "must be one number above 0");
    }
    if (r->kind == CONFIG_PEFT) {
        return set_peft_scale(r, pair, layer, name);
    }
    if (r->kind == CONFIG_MLX) {
        pair->scale = r->mlx_scale;
        return LORE_OK;
    }
    pair->scale = r->options->alpha / pair->rank;
    return r->options->alpha > 0
               ? LORE_OK
               : lore_fail(r->err, LORE_ERR_CORRUPT,
                           "'%s' says no scale (no " CONFIG_NAME ", no tensor '...alpha'): name "
                           "the alpha that it was trained with (--alpha)",
                           r->s->path);
}

static lore_status own_units(reader *r, const lore_adapter_pair *pair, int32_t row)
{
    for (int32_t i = 0; i < pair->count; i++) {
        const lore_adapter_pair **owner =
            &r->s->owners[row * (int32_t)LORE_UNITS + (int32_t)pair->first + i];
        if (*owner != NULL) {
            return blame(r, pair->halves[0], "changes what another tensor changes, too");
        }
        *owner = pair;
    }
    return LORE_OK;
}

static lore_status check_pair(reader *r, int32_t row, int32_t module)
{
    lore_adapter_pair *pair = &r->s->pairs[(size_t)row * LORE_ADAPTER_MODULES + (size_t)module];
    const lore_tensor *a = pair->halves[0], *b = pair->halves[1];
    if (a == NULL || b == NULL) {
        const lore_tensor *alone = a != NULL ? a : b != NULL ? b : pair->alpha;
        return alone == NULL ? LORE_OK : blame(r, alone, "has no other half");
    }
    const int32_t layer = row < r->base->layers ? row : -1;
    lore_status status = check_shapes(r, pair);
    if (status == LORE_OK) {
        status = set_scale(r, pair, layer, lore_adapter_module_table[module].name);
    }
    return status == LORE_OK ? own_units(r, pair, row) : status;
}

/* Every matrix of the base that PEFT's configuration means must be changed by something. */
static lore_status check_meant(reader *r, int32_t row, lore_linear which)
{
    char name[MODULE_CAP];
    const lore_linear_shape shape = lore_decoder_linear(r->base, which);
    const int32_t layer = row < r->base->layers ? row : -1;
    for (int32_t i = 0; i < shape.part_count; i++) {
        lore_adapter_unit first = LORE_UNIT_Q;
        int32_t count = 0;
        lore_adapter_target target;
        lore_adapter_units_of(&shape, which, i, &first, &count);
        const lore_str module = module_name(layer, shape.parts[i].stem, name);
        lore_status status = match(r, module, layer, &target);
        bool is_there = false;
        for (int32_t k = 0; k < count; k++) {
            is_there =
                is_there || r->s->owners[row * (int32_t)LORE_UNITS + (int32_t)first + k] != NULL;
        }
        if (status == LORE_OK && target.is_hit && !is_there) {
            status = lore_fail(r->err, LORE_ERR_CORRUPT,
                               "'%s' changes nothing of '%s', which " CONFIG_NAME " means",
                               r->s->path, name);
        }
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

static lore_status check_all(reader *r)
{
    const int32_t layers = r->base->layers;
    lore_status status = LORE_OK;
    for (int32_t row = 0; row <= layers && status == LORE_OK; row++) {
        for (int32_t i = 0; i < LORE_ADAPTER_MODULES && status == LORE_OK; i++) {
            status = check_pair(r, row, i);
        }
        for (int32_t i = 0; i < LORE_LINEARS && status == LORE_OK; i++) {
            const bool is_here = (i == LORE_LINEAR_HEAD) == (row == layers);
            status =
                r->kind == CONFIG_PEFT && is_here ? check_meant(r, row, (lore_linear)i) : LORE_OK;
        }
    }
    return status;
}

/* ---- the whole ---- */

static void set_dtype(lore_foreign_adapter *s, int32_t rows)
{
    bool is_first = true;
    for (int32_t i = 0; i < rows * LORE_ADAPTER_MODULES; i++) {
        for (int32_t k = 0; k < LORE_ADAPTER_HALVES; k++) {
            const lore_tensor *t = s->pairs[i].halves[k];
            if (t != NULL) {
                s->dtype = is_first || s->dtype == t->type->dtype ? t->type->dtype : LORE_F32;
                is_first = false;
            }
        }
    }
}

static lore_status read_tensors(reader *r)
{
    lore_foreign_adapter *s = r->s;
    size_t header_bytes = 0;
    const int32_t rows = r->base->layers + 1;
    s->pairs = LORE_PUSH(&s->arena, lore_adapter_pair, rows * LORE_ADAPTER_MODULES);
    s->owners = LORE_PUSH(&s->arena, const lore_adapter_pair *, rows *(int32_t)LORE_UNITS);
    if (s->pairs == NULL || s->owners == NULL) {
        return no_memory(r->err);
    }
    lore_status status =
        lore_file_read(s->path, (size_t)r->limits->adapter_file_bytes_max, &s->file, r->err);
    if (status == LORE_OK) {
        status = lore_safetensors_parse(lore_buf_str(&s->file), s->path,
                                        (size_t)r->limits->model_header_bytes_max, &s->arena,
                                        &s->tensors, &s->tensor_count, &header_bytes, r->err);
    }
    for (int32_t i = 0; i < s->tensor_count && status == LORE_OK; i++) {
        status = claim(r, &s->tensors[i]);
    }
    if (status == LORE_OK) {
        set_dtype(s, rows);
        status = check_all(r);
    }
    return status;
}

lore_status lore_foreign_adapter_read(const char *path, const lore_decoder_config *base,
                                      const lore_limits *limits,
                                      const lore_convert_options *options,
                                      lore_foreign_adapter *source, lore_error *err)
{
    lore_buf_init(&source->file, 0);
    lore_arena_init(&source->arena, 0);
    lore_error own; /* words are put before it, so there must be one */
    reader *r = lore_alloc_zero(1, sizeof *r);
    if (r == NULL) {
        return no_memory(err);
    }
    r->s = source;
    r->base = base;
    r->limits = limits;
    r->options = options;
    r->err = err != NULL ? err : &own;
    lore_status status = find_paths(r, path);
    if (status == LORE_OK) {
        status = read_config(r);
    }
    if (status == LORE_OK) {
        status = read_tensors(r);
    }
    lore_adapter_config_destroy(&r->peft);
    lore_free(r);
    return status;
}

void lore_foreign_adapter_destroy(lore_foreign_adapter *source)
{
    lore_arena_destroy(&source->arena);
    lore_buf_destroy(&source->file);
}
