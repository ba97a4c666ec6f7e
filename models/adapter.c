/* Reading an adapter: configuration, tensors, values, in this order, and nothing is given out
 * before the last value has been looked at.
 *
 * The base's linear layers are places, numbered through; every place that the configuration means
 * must find its two tensors, and every tensor its place. The file is read, not mapped: it is loaded
 * into a process that serves, and whoever shortens a mapped file meanwhile would end that process.
 */
#include "models/adapter_int.h"

#include "base/file.h"
#include "models/decoder_int.h"
#include "models/weights_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PLACES = 7, NAME_CAP = 128, PATH_CAP = 4096, HALVES = 2 };

#define FILE_NAME "adapter_model.safetensors"
#define CONFIG_NAME "adapter_config.json"
#define PREFIX LORE_STR("base_model.model.") /* what PEFT wraps a model in */

/* The matrices of one layer, as files have them. */
static const struct {
    lore_linear linear;
    int32_t part;
} IN_LAYER[PLACES] = {{LORE_LINEAR_QKV, 0},     {LORE_LINEAR_QKV, 1},
                      {LORE_LINEAR_QKV, 2},     {LORE_LINEAR_ATTENTION_OUT, 0},
                      {LORE_LINEAR_GATE_UP, 0}, {LORE_LINEAR_GATE_UP, 1},
                      {LORE_LINEAR_DOWN, 0}};

/* Place p is IN_LAYER[p % PLACES] of layer p / PLACES; behind all layers is the head. */
typedef struct place {
    lore_linear linear;
    int32_t layer, part;            /* layer -1: the head */
    const lore_linear_part *matrix; /* NULL: this family has no such matrix */
} place;

/* What belongs to one place. */
typedef struct pair {
    lore_adapter_target target;
    const lore_tensor *halves[HALVES]; /* A, B */
    int32_t part;                      /* which of those that its product has in the adapter */
} pair;

typedef struct reader {
    const lore_decoder_config *base;
    const lore_weights *weights; /* or NULL */
    char config_path[PATH_CAP], path[PATH_CAP];
    lore_linear_shape shapes[LORE_LINEARS];
    lore_adapter_config config;
    lore_buf file;
    lore_arena arena; /* of the tensors */
    lore_tensor *tensors;
    int32_t tensor_count, place_count;
    pair *pairs; /* [place_count] */
    lore_error *err;
} reader;

static lore_status no_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the adapter");
}

/* ---- places ---- */

static place place_at(const reader *r, int32_t index)
{
    place p = {LORE_LINEAR_HEAD, -1, 0, NULL};
    if (index < r->place_count - 1) {
        p.layer = index / PLACES;
        p.linear = IN_LAYER[index % PLACES].linear;
        p.part = IN_LAYER[index % PLACES].part;
    }
    const lore_linear_shape *shape = &r->shapes[p.linear];
    p.matrix = p.part < shape->part_count ? &shape->parts[p.part] : NULL;
    return p;
}

static lore_str name_of(const place *p, char name[NAME_CAP])
{
    if (p->layer < 0) {
        snprintf(name, NAME_CAP, "%s", p->matrix->stem);
    } else {
        snprintf(name, NAME_CAP, "model.layers.%d.%s", p->layer, p->matrix->stem);
    }
    return lore_str_from(name);
}

/* The place of a module, or -1. */
static int32_t find_place(const reader *r, lore_str module)
{
    const lore_str prefix = LORE_STR("model.layers.");
    int32_t first = r->place_count - 1, count = 1;
    char name[NAME_CAP];
    if (lore_str_starts(module, prefix)) {
        size_t dot = lore_str_find(module, LORE_STR("."), prefix.len);
        int64_t layer = -1;
        if (dot == SIZE_MAX ||
            !lore_str_to_int64(lore_str_slice(module, prefix.len, dot), &layer) || layer < 0 ||
            layer >= r->base->layers) {
            return -1;
        }
        first = (int32_t)layer * PLACES;
        count = PLACES;
    }
    for (int32_t i = first; i < first + count; i++) {
        place p = place_at(r, i);
        if (p.matrix != NULL && lore_str_equal(module, name_of(&p, name))) {
            return i;
        }
    }
    return -1;
}

/* ---- what is meant ---- */

static lore_status refuse_embedding(reader *r)
{
    lore_adapter_target target;
    lore_status status =
        lore_adapter_config_match(&r->config, LORE_STR("model.embed_tokens"), -1, &target, r->err);
    return status == LORE_OK && target.is_hit
               ? lore_fail(r->err, LORE_ERR_UNSUPPORTED,
                           "target_modules means the embedding table: adapting it is not supported")
               : status;
}

static lore_status match_places(reader *r)
{
    char name[NAME_CAP];
    bool is_any = false;
    lore_status status = refuse_embedding(r);
    for (int32_t i = 0; i < r->place_count && status == LORE_OK; i++) {
        place p = place_at(r, i);
        lore_adapter_target *target = &r->pairs[i].target;
        if (p.matrix != NULL) {
            status =
                lore_adapter_config_match(&r->config, name_of(&p, name), p.layer, target, r->err);
            is_any = is_any || target->is_hit;
        }
    }
    if (status == LORE_OK && !is_any) {
        status = lore_fail(r->err, LORE_ERR_CORRUPT,
                           "target_modules means no linear layer of the base model (%s of %d "
                           "layers)",
                           r->base->family->model_type, r->base->layers);
    }
    return status == LORE_OK ? LORE_OK : lore_error_prefix(r->err, "'%s'", r->config_path);
}

/* ---- what is there ---- */

static bool is_readable(const lore_tensor *t)
{
    return t->type->is_usable && t->type->dtype != LORE_I8;
}

/* As stored, the same shape and the same values. */
static bool is_same(const lore_tensor *t, const lore_tensor *other)
{
    const size_t count = t->size_bytes / t->type->size_bytes;
    if (!is_readable(t) || !is_readable(other) || t->rank != other->rank ||
        memcmp(t->shape, other->shape, (size_t)t->rank * sizeof t->shape[0]) != 0) {
        return false;
    }
    if (t->type == other->type) {
        return memcmp(t->data, other->data, t->size_bytes) == 0;
    }
    for (size_t i = 0; i < count; i++) {
        if (lore_tensor_value(t, i) != lore_tensor_value(other, i)) {
            return false;
        }
    }
    return true;
}

/* base_model.model.X.weight or X.base_layer.weight, and the base's X.weight is the same. */
static bool is_of_base(const reader *r, const lore_tensor *t)
{
    static const char *const ENDS[] = {".base_layer.weight", ".weight"};
    char name[LORE_TENSOR_NAME_CAP];
    for (size_t i = 0; i < 2 && r->weights != NULL && lore_str_starts(t->name, PREFIX); i++) {
        lore_str end = lore_str_from(ENDS[i]);
        if (lore_str_ends(t->name, end) && t->name.len > PREFIX.len + end.len) {
            lore_str module = lore_str_slice(t->name, PREFIX.len, t->name.len - end.len);
            bool is_tied_head = r->base->is_tied && lore_str_equal(module, LORE_STR("lm_head"));
            module = is_tied_head ? LORE_STR("model.embed_tokens") : module;
            snprintf(name, sizeof name, LORE_STR_FMT ".weight", LORE_STR_ARG(module));
            const lore_tensor *own = lore_weights_find(r->weights, lore_str_from(name));
            return own != NULL && is_same(t, own);
        }
    }
    return false;
}

/* Why a tensor that is neither A nor B makes this another kind of adapter. */
static lore_status refuse_tensor(const reader *r, lore_str name)
{
    static const struct {
        const char *mark, *meaning;
    } KINDS[] = {{".lora_magnitude_vector", "is DoRA's, which is not supported"},
                 {".lora_embedding_", "adapts the embedding table, which is not supported"},
                 {".modules_to_save.", "replaces a module (modules_to_save): not supported"},
                 {".bias", "is a bias, which adapters must not have here"},
                 {".lora_", "is neither lora_A.weight nor lora_B.weight of a module"}};
    const char *meaning = "is no part of an adapter, and no copy of the base's weights";
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        if (lore_str_find(name, lore_str_from(KINDS[i].mark), 0) != SIZE_MAX) {
            meaning = KINDS[i].meaning;
            break;
        }
    }
    return lore_fail(r->err, LORE_ERR_UNSUPPORTED, "'%s': tensor '" LORE_STR_FMT "' %s", r->path,
                     LORE_STR_ARG(name), meaning);
}

/* base_model.model.<module>.lora_A.weight, or lora_A.default.weight as PEFT wrote at first. */
static bool split_name(lore_str name, lore_str *module, int32_t *half)
{
    static const char *const ENDS[HALVES][2] = {{".lora_A.weight", ".lora_A.default.weight"},
                                                {".lora_B.weight", ".lora_B.default.weight"}};
    for (int32_t i = 0; i < HALVES * 2 && lore_str_starts(name, PREFIX); i++) {
        lore_str end = lore_str_from(ENDS[i / 2][i % 2]);
        if (lore_str_ends(name, end) && name.len > PREFIX.len + end.len) {
            *module = lore_str_slice(name, PREFIX.len, name.len - end.len);
            *half = i / 2;
            return true;
        }
    }
    return false;
}

static lore_status claim(reader *r, const lore_tensor *t)
{
    lore_str module = {0};
    int32_t half = 0;
    if (!split_name(t->name, &module, &half)) {
        return is_of_base(r, t) ? LORE_OK : refuse_tensor(r, t->name);
    }
    int32_t index = find_place(r, module);
    const char *wrong = NULL;
    if (index < 0) {
        wrong = "belongs to no linear layer of the base model";
    } else if (!r->pairs[index].target.is_hit) {
        wrong = "belongs to a module that " CONFIG_NAME " does not mean";
    } else if (r->pairs[index].halves[half] != NULL) {
        wrong = "is there under two names";
    } else if (!is_readable(t)) {
        wrong = "must be F32, F16 or BF16";
    }
    if (wrong != NULL) {
        return lore_fail(r->err, LORE_ERR_CORRUPT, "'%s': tensor '" LORE_STR_FMT "' %s", r->path,
                         LORE_STR_ARG(t->name), wrong);
    }
    r->pairs[index].halves[half] = t;
    return LORE_OK;
}

static lore_status check_shape(const reader *r, const lore_tensor *t, int32_t rows, int32_t cols)
{
    const long long first = t->rank > 0 ? (long long)t->shape[0] : 0;
    const long long second = t->rank > 1 ? (long long)t->shape[1] : 0;
    if (t->rank == 2 && first == rows && second == cols) {
        return LORE_OK;
    }
    return t->rank == 2
               ? lore_fail(r->err, LORE_ERR_CORRUPT,
                           "'%s': tensor '" LORE_STR_FMT "' must be [%d, %d], is [%lld, %lld]",
                           r->path, LORE_STR_ARG(t->name), rows, cols, first, second)
               : lore_fail(r->err, LORE_ERR_CORRUPT,
                           "'%s': tensor '" LORE_STR_FMT "' must be [%d, %d], has %d dimensions",
                           r->path, LORE_STR_ARG(t->name), rows, cols, t->rank);
}

static lore_status check_pair(const reader *r, int32_t index)
{
    char name[NAME_CAP];
    const pair *found = &r->pairs[index];
    const place p = place_at(r, index);
    if (!found->target.is_hit) { /* no tensor claimed it */
        return LORE_OK;
    }
    for (int32_t i = 0; i < HALVES; i++) {
        if (found->halves[i] == NULL) {
            return lore_fail(r->err, LORE_ERR_CORRUPT,
                             "'%s' lacks tensor 'base_model.model." LORE_STR_FMT
                             ".lora_%c.weight', which " CONFIG_NAME " means",
                             r->path, LORE_STR_ARG(name_of(&p, name)), "AB"[i]);
        }
    }
    lore_status status =
        check_shape(r, found->halves[0], found->target.rank, r->shapes[p.linear].cols);
    return status == LORE_OK ? check_shape(r, found->halves[1], p.matrix->rows, found->target.rank)
                             : status;
}

/* ---- values ---- */

static lore_adapter_linear *linear_of(lore_adapter *adapter, const place *p)
{
    int32_t layer = p->layer < 0 ? adapter->layers - 1 : p->layer;
    return &adapter->linears[layer * LORE_LINEAR_HEAD + (int32_t)p->linear];
}

static void add_part(const reader *r, lore_adapter *adapter, int32_t index)
{
    const lore_adapter_target *target = &r->pairs[index].target;
    const place p = place_at(r, index);
    const lore_linear_shape *shape = &r->shapes[p.linear];
    lore_adapter_linear *linear = linear_of(adapter, &p);
    r->pairs[index].part = linear->part_count;
    lore_adapter_part *part = &linear->parts[linear->part_count++];
    *part = (lore_adapter_part){.rank = target->rank,
                                .rank_start = linear->rank,
                                .rows = p.matrix->rows,
                                .scale = target->scale};
    for (int32_t i = 0; i < p.part; i++) {
        part->row_start += shape->parts[i].rows;
    }
    linear->cols = shape->cols;
    linear->rank += target->rank;
    adapter->info.modules++;
    adapter->info.rank_max =
        target->rank > adapter->info.rank_max ? target->rank : adapter->info.rank_max;
}

/* Where the next matrix stands. No product here is beyond the file that holds its values. */
static size_t take_bytes(lore_adapter *adapter, int32_t rows, int32_t cols)
{
    size_t at = adapter->info.size_bytes;
    size_t bytes = (size_t)rows * (size_t)cols * lore_dtype_size(adapter->dtype);
    adapter->info.size_bytes =
        at + (bytes + LORE_ADAPTER_ALIGN - 1) / LORE_ADAPTER_ALIGN * LORE_ADAPTER_ALIGN;
    return at;
}

static lore_status take_block(const reader *r, lore_adapter *adapter)
{
    for (int32_t i = 0; i < r->place_count; i++) {
        if (r->pairs[i].target.is_hit) {
            add_part(r, adapter, i);
        }
    }
    for (int32_t i = 0; i < adapter->layers * LORE_LINEAR_HEAD + 1; i++) {
        lore_adapter_linear *linear = &adapter->linears[i];
        linear->a = linear->rank > 0 ? take_bytes(adapter, linear->rank, linear->cols) : 0;
        for (int32_t k = 0; k < linear->part_count; k++) {
            lore_adapter_part *part = &linear->parts[k];
            part->b = take_bytes(adapter, part->rows, part->rank);
        }
    }
    adapter->data = lore_alloc_aligned(adapter->info.size_bytes);
    if (adapter->data == NULL) {
        return no_memory(r->err);
    }
    memset(adapter->data, 0, adapter->info.size_bytes); /* what lies between two matrices, too */
    return LORE_OK;
}

/* lore_f32_to_bf16 of many: a call for each took a third of the time of loading. */
static bool round_values(const uint8_t *data, size_t count, uint16_t *out)
{
    const uint32_t exponent = 0x7f800000;
    bool is_finite = true;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = 0;
        memcpy(&bits, data + i * sizeof bits, sizeof bits);
        uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
        is_finite &= (bits & exponent) != exponent && (rounded & exponent) != exponent;
        out[i] = (uint16_t)(rounded >> 16);
    }
    return is_finite;
}

/* False: a value is no finite number, or none in bf16. */
static bool copy_values(const lore_tensor *t, lore_dtype dtype, uint8_t *out)
{
    const size_t count = t->size_bytes / t->type->size_bytes;
    bool is_finite = true;
    if (dtype == LORE_BF16 && t->type->dtype == LORE_BF16) {
        uint16_t *halves = (uint16_t *)(void *)out;
        memcpy(halves, t->data, t->size_bytes);
        for (size_t i = 0; i < count; i++) {
            is_finite &= (halves[i] & 0x7f80) != 0x7f80;
        }
        return is_finite;
    }
    if (dtype == LORE_BF16 && t->type->dtype == LORE_F32) {
        return round_values(t->data, count, (uint16_t *)(void *)out);
    }
    for (size_t i = 0; i < count; i++) {
        float value = lore_tensor_value(t, i);
        if (dtype == LORE_BF16) {
            uint16_t half = lore_f32_to_bf16(value);
            ((uint16_t *)(void *)out)[i] = half;
            value = lore_bf16_to_f32(half);
        } else {
            ((float *)(void *)out)[i] = value;
        }
        is_finite &= isfinite(value) != 0;
    }
    return is_finite;
}

static lore_status fill_part(const reader *r, lore_adapter *adapter, int32_t index)
{
    const place p = place_at(r, index);
    const pair *found = &r->pairs[index];
    const lore_adapter_linear *linear = linear_of(adapter, &p);
    const lore_adapter_part *part = &linear->parts[found->part];
    const size_t a = linear->a + (size_t)part->rank_start * (size_t)linear->cols *
                                     lore_dtype_size(adapter->dtype);
    const size_t places[HALVES] = {a, part->b};
    for (int32_t i = 0; i < HALVES; i++) {
        if (!copy_values(found->halves[i], adapter->dtype, adapter->data + places[i])) {
            return lore_fail(r->err, LORE_ERR_CORRUPT,
                             "'%s': tensor '" LORE_STR_FMT
                             "' holds a value that is no finite number%s",
                             r->path, LORE_STR_ARG(found->halves[i]->name),
                             adapter->dtype == LORE_BF16 ? " in bf16" : "");
        }
    }
    return LORE_OK;
}

static lore_status fill(const reader *r, lore_adapter *adapter)
{
    lore_status status = take_block(r, adapter);
    for (int32_t i = 0; i < r->place_count && status == LORE_OK; i++) {
        if (r->pairs[i].target.is_hit) {
            status = fill_part(r, adapter, i);
        }
    }
    return status;
}

/* ---- files ---- */

static lore_status read_config(reader *r, const char *folder, const lore_limits *limits)
{
    lore_buf text;
    lore_buf_init(&text, 0);
    lore_status status = lore_model_read(folder, CONFIG_NAME, limits, &text, r->err);
    if (status == LORE_OK) {
        status = lore_adapter_config_parse(lore_buf_str(&text), r->config_path, limits, &r->config,
                                           r->err);
    }
    lore_buf_destroy(&text);
    return status;
}

static lore_status read_tensors(reader *r, const char *folder, const lore_limits *limits)
{
    size_t header_bytes = 0;
    if (!lore_model_has(folder, FILE_NAME)) {
        return lore_fail(r->err, LORE_ERR_NOT_FOUND, "adapter folder '%s' has no " FILE_NAME "%s",
                         folder,
                         lore_model_has(folder, "adapter_model.bin")
                             ? ", only adapter_model.bin, which is not read"
                             : "");
    }
    lore_status status =
        lore_file_read(r->path, (size_t)limits->adapter_file_bytes_max, &r->file, r->err);
    if (status != LORE_OK) {
        return status;
    }
    status = lore_safetensors_parse(lore_buf_str(&r->file), r->path,
                                    (size_t)limits->model_header_bytes_max, &r->arena, &r->tensors,
                                    &r->tensor_count, &header_bytes, r->err);
    for (int32_t i = 0; i < r->tensor_count && status == LORE_OK; i++) {
        status = claim(r, &r->tensors[i]);
    }
    for (int32_t i = 0; i < r->place_count && status == LORE_OK; i++) {
        status = check_pair(r, i);
    }
    return status;
}

static lore_status read_folder(reader *r, const char *folder, const lore_limits *limits)
{
    if (snprintf(r->path, PATH_CAP, "%s/" FILE_NAME, folder) >= PATH_CAP ||
        snprintf(r->config_path, PATH_CAP, "%s/" CONFIG_NAME, folder) >= PATH_CAP) {
        return lore_fail(r->err, LORE_ERR_INVALID, "path of the adapter folder is too long");
    }
    for (int32_t i = 0; i < LORE_LINEARS; i++) {
        r->shapes[i] = lore_decoder_linear(r->base, (lore_linear)i);
    }
    r->place_count = r->base->layers * PLACES + 1;
    r->pairs = LORE_PUSH(&r->arena, pair, r->place_count);
    if (r->pairs == NULL) {
        return no_memory(r->err);
    }
    lore_status status = read_config(r, folder, limits);
    if (status == LORE_OK) {
        status = match_places(r);
    }
    return status == LORE_OK ? read_tensors(r, folder, limits) : status;
}

static lore_status make(const reader *r, lore_dtype dtype, lore_adapter **adapter)
{
    lore_adapter *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return no_memory(r->err);
    }
    made->dtype = dtype;
    made->layers = r->base->layers;
    made->linears =
        lore_alloc_zero((size_t)made->layers * LORE_LINEAR_HEAD + 1, sizeof *made->linears);
    lore_status status = made->linears != NULL ? fill(r, made) : no_memory(r->err);
    if (status != LORE_OK) {
        lore_adapter_close(made);
        return status;
    }
    *adapter = made;
    return LORE_OK;
}

/* ---- public ---- */

lore_status lore_adapter_read(const char *folder, const lore_adapter_base *base, lore_dtype dtype,
                              const lore_limits *limits, lore_adapter **adapter, lore_error *err)
{
    lore_error own; /* words are put before it, so there must be one */
    LORE_ASSERT(dtype == LORE_F32 || dtype == LORE_BF16);
    reader *r = lore_alloc_zero(1, sizeof *r);
    if (r == NULL) {
        return no_memory(err);
    }
    r->base = base->config;
    r->weights = base->weights;
    r->err = err != NULL ? err : &own;
    lore_buf_init(&r->file, 0);
    lore_arena_init(&r->arena, 0);
    lore_status status = read_folder(r, folder, limits);
    if (status == LORE_OK) {
        status = make(r, dtype, adapter);
    }
    lore_adapter_config_destroy(&r->config);
    lore_arena_destroy(&r->arena);
    lore_buf_destroy(&r->file);
    lore_free(r);
    return status;
}

lore_status lore_adapter_open(const char *folder, const lore_decoder *base, lore_dtype dtype,
                              const lore_limits *limits, lore_adapter **adapter, lore_error *err)
{
    const lore_adapter_base held = {&base->config, base->weights};
    return lore_adapter_read(folder, &held, dtype, limits, adapter, err);
}

void lore_adapter_close(lore_adapter *adapter)
{
    if (adapter != NULL) {
        lore_free_aligned(adapter->data);
        lore_free(adapter->linears);
        lore_free(adapter);
    }
}

lore_adapter_info lore_adapter_get_info(const lore_adapter *adapter)
{
    return adapter->info;
}
