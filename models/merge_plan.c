/* Planning a merge: every tensor of the base has one in the new folder, in the file of the same
 * number, but for what belongs to codes. Within a file tensors lie by the size of their elements,
 * largest first, so that all are aligned. */
#include "models/merge_plan_int.h"

#include "models/config_edit_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_CAP = 128 };

#define HEAD LORE_STR("lm_head.weight")
#define TABLE "model.embed_tokens.weight"

static lore_status no_memory(const lore_merge_plan *p)
{
    return lore_fail(p->err, LORE_ERR_NOMEM, "out of memory for merging into '%s'", p->base);
}

/* ---- what is written ---- */

static void set_type(lore_merge_item *t, lore_dtype dtype)
{
    t->to = dtype;
    t->output.dtype = lore_safetensors_type(dtype);
    t->output.element_bytes = lore_dtype_size(dtype);
}

/* The rows of codes, which get the name and the shape of what they stand for. */
static lore_status add_coded(lore_merge_plan *p, lore_merge_item *t, lore_str module)
{
    lore_quantized_set set;
    lore_tensor *parts[LORE_PARTS_MAX];
    int32_t count = 0;
    const int64_t *shape = t->tensor->shape;
    bool is_possible = true;
    if (module.len > 0) {
        is_possible = lore_weights_find_set(p->weights, module, &set, parts, &count) &&
                      lore_quantized_shape(&p->weights->quantized, &set, &t->rows, &t->cols);
    } else {
        is_possible = shape[0] <= INT32_MAX && shape[1] <= INT32_MAX;
        t->rows = is_possible ? (int32_t)shape[0] : 0;
        t->cols = is_possible ? (int32_t)shape[1] : 0;
    }
    if (!is_possible || t->rows < 1 || t->cols < 1) {
        return lore_fail(p->err, LORE_ERR_CORRUPT,
                         "'%s': tensor '" LORE_STR_FMT "' has an impossible shape",
                         p->weights->shards[t->tensor->shard].path, LORE_STR_ARG(t->tensor->name));
    }
    t->output.name = module.len > 0
                         ? lore_str_printf(p->arena, LORE_STR_FMT ".weight", LORE_STR_ARG(module))
                         : t->tensor->name;
    t->matrix = t->output.name.ptr == NULL ? NULL : lore_str_to_c(p->arena, t->output.name);
    t->output.rank = 2;
    t->output.shape[0] = t->rows;
    t->output.shape[1] = t->cols;
    return t->matrix != NULL ? LORE_OK : no_memory(p);
}

/* Only for other programs, or only with codes. */
static bool is_dropped(const lore_merge_plan *p, const lore_tensor *t)
{
    return lore_weights_is_scale(p->weights, t->name) ||
           (p->is_coded && (lore_str_ends(t->name, LORE_STR(".k_scale")) ||
                            lore_str_ends(t->name, LORE_STR(".v_scale"))));
}

static lore_status add_tensor(lore_merge_plan *p, const lore_tensor *tensor)
{
    lore_merge_item *t = &p->items[p->count];
    bool is_codes = false;
    const lore_str module = lore_weights_module_of(p->weights, tensor, &is_codes);
    if ((module.len > 0 && !is_codes) || is_dropped(p, tensor)) {
        return LORE_OK;
    }
    p->count++;
    t->tensor = tensor;
    t->shard = p->file_of[tensor->shard];
    t->output = (lore_output){.name = tensor->name,
                              .dtype = tensor->type->name,
                              .element_bytes = tensor->type->size_bytes,
                              .rank = tensor->rank};
    memcpy(t->output.shape, tensor->shape, sizeof tensor->shape);
    t->to = tensor->type->dtype;
    const bool is_int8 = tensor->type->is_usable && tensor->type->dtype == LORE_I8;
    const bool is_coded = module.len > 0 || (is_int8 && tensor->rank == 2);
    if (p->to != NULL && (is_coded || (tensor->type->is_usable && !is_int8))) {
        set_type(t, *p->to);
    }
    return is_coded ? add_coded(p, t, module) : LORE_OK;
}

static int by_name(const void *a, const void *b)
{
    const lore_merge_item *x = a, *y = b;
    return lore_str_compare(x->output.name, y->output.name);
}

static lore_merge_item *find_item(const lore_merge_plan *p, lore_str name)
{
    const lore_merge_item key = {.output = {.name = name}};
    return bsearch(&key, p->items, (size_t)p->count, sizeof *p->items, by_name);
}

/* The head gets a tensor of its own, of the table's values; it stands last in its file's list. */
static lore_status untie(lore_merge_plan *p)
{
    const lore_merge_item *table = find_item(p, LORE_STR(TABLE));
    lore_merge_item *head = find_item(p, HEAD); /* some exporters write the table twice */
    if (table == NULL) {
        return lore_fail(p->err, LORE_ERR_CORRUPT, "'%s' has no tensor '" TABLE "'",
                         p->weights->shards[0].path);
    }
    if (head == NULL) {
        head = &p->items[p->count++];
    }
    *head = *table;
    head->output.name = HEAD;
    head->matrix = TABLE;
    p->is_untied = true;
    qsort(p->items, (size_t)p->count, sizeof *p->items, by_name);
    return LORE_OK;
}

/* ---- what is changed ---- */

static lore_status mark(lore_merge_plan *p, const lore_linear_part *part, int32_t layer,
                        const lore_adapter_linear *linear, const lore_adapter_part *change)
{
    char name[NAME_CAP];
    if (layer < 0) {
        snprintf(name, sizeof name, "%s.weight", part->stem);
    } else {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, part->stem);
    }
    lore_merge_item *t = find_item(p, lore_str_from(name));
    if (t == NULL) {
        return lore_fail(p->err, LORE_ERR_CORRUPT, "'%s' has no tensor '%s'",
                         p->weights->shards[0].path, name);
    }
    t->linear = linear;
    t->part = change;
    t->rows = part->rows;
    t->cols = linear->cols;
    if (t->matrix == NULL) {
        t->matrix = lore_str_to_c(p->arena, t->output.name);
    }
    p->modules++;
    return t->matrix != NULL ? LORE_OK : no_memory(p);
}

/* The parts of the adapter are those matrices of the product whose rows they begin with. */
static lore_status mark_linear(lore_merge_plan *p, int32_t layer, lore_linear which)
{
    const lore_linear_shape shape = lore_decoder_linear(p->config, which);
    const lore_adapter_linear *linear = lore_adapter_at(p->adapter, layer, which);
    lore_status status = LORE_OK;
    int32_t row = 0, next = 0;
    for (int32_t i = 0; i < shape.part_count && status == LORE_OK; i++) {
        if (next < linear->part_count && linear->parts[next].row_start == row) {
            status = mark(p, &shape.parts[i], layer, linear, &linear->parts[next++]);
        }
        row += shape.parts[i].rows;
    }
    return status;
}

static lore_status mark_all(lore_merge_plan *p)
{
    lore_status status = mark_linear(p, -1, LORE_LINEAR_HEAD);
    for (int32_t layer = 0; layer < p->config->layers && status == LORE_OK; layer++) {
        for (int32_t i = 0; i < LORE_LINEAR_HEAD && status == LORE_OK; i++) {
            status = mark_linear(p, layer, (lore_linear)i);
        }
    }
    return status;
}

/* ---- the plan ---- */

/* The files of the base by their names: "model-00001-of-00003.safetensors" is the first. */
static lore_status order_files(lore_merge_plan *p)
{
    const lore_weights *w = p->weights;
    p->file_of = LORE_PUSH(p->arena, int32_t, w->shard_count);
    for (int32_t i = 0; p->file_of != NULL && i < w->shard_count; i++) {
        for (int32_t k = 0; k < w->shard_count; k++) {
            p->file_of[i] += strcmp(w->shards[k].path, w->shards[i].path) < 0;
        }
    }
    p->file_count = w->shard_count;
    return p->file_of != NULL ? LORE_OK : no_memory(p);
}

static int by_place(const void *a, const void *b)
{
    const lore_merge_item *x = a, *y = b;
    if (x->shard != y->shard) {
        return x->shard < y->shard ? -1 : 1;
    }
    if (x->output.element_bytes != y->output.element_bytes) { /* largest first: all are aligned */
        return x->output.element_bytes > y->output.element_bytes ? -1 : 1;
    }
    return by_name(a, b);
}

static lore_status set_offsets(lore_merge_plan *p)
{
    size_t offset = 0;
    qsort(p->items, (size_t)p->count, sizeof *p->items, by_place);
    for (int32_t i = 0; i < p->count; i++) {
        lore_output *o = &p->items[i].output;
        size_t bytes = o->element_bytes;
        bool fits = true;
        for (int32_t k = 0; k < o->rank; k++) {
            fits = fits && lore_size_mul(bytes, (size_t)o->shape[k], &bytes);
        }
        offset = i > 0 && p->items[i - 1].shard == p->items[i].shard ? offset : 0;
        o->size_bytes = bytes;
        o->offset = offset;
        if (!fits || bytes > INT64_MAX / 4 || offset > INT64_MAX / 4) {
            return lore_fail(p->err, LORE_ERR_LIMIT, "tensor '" LORE_STR_FMT "' is too large",
                             LORE_STR_ARG(o->name));
        }
        offset += bytes;
        p->size_bytes += (int64_t)bytes;
    }
    return LORE_OK;
}

lore_status lore_merge_plan_make(lore_merge_plan *p)
{
    const lore_weights *w = p->weights;
    lore_status status = order_files(p);
    p->items = LORE_PUSH(p->arena, lore_merge_item, w->tensor_count + 1); /* and the head's */
    if (status == LORE_OK && p->items == NULL) {
        status = no_memory(p);
    }
    for (int32_t i = 0; i < w->tensor_count && status == LORE_OK; i++) {
        status = add_tensor(p, &w->tensors[i]);
    }
    if (status == LORE_OK) {
        qsort(p->items, (size_t)p->count, sizeof *p->items, by_name);
        if (p->config->is_tied && lore_adapter_at(p->adapter, -1, LORE_LINEAR_HEAD)->rank > 0) {
            status = untie(p);
        }
    }
    if (status == LORE_OK) {
        status = mark_all(p);
    }
    return status == LORE_OK ? set_offsets(p) : status;
}

/* ---- config.json ---- */

lore_status lore_merge_plan_config(const lore_merge_plan *p, lore_str old, lore_buf *out)
{
    static const char *const TYPES[] = {
        [LORE_F32] = "\"float32\"", [LORE_F16] = "\"float16\"", [LORE_BF16] = "\"bfloat16\""};
    lore_config_edit edits[4];
    int32_t count = 0;
    if (p->is_coded) { /* and is so no more */
        edits[count++] = (lore_config_edit){.key = "quantization_config"};
    }
    if (p->is_untied) {
        edits[count++] = (lore_config_edit){"tie_word_embeddings", LORE_STR("false"), true};
    }
    if (p->to != NULL) { /* its name in two generations of transformers */
        const lore_str type = lore_str_from(TYPES[*p->to]);
        edits[count++] = (lore_config_edit){"torch_dtype", type, false};
        edits[count++] = (lore_config_edit){"dtype", type, false};
    }
    return lore_config_edit_text(old, "config.json", edits, count, out, p->err);
}
