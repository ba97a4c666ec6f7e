/* Deciding what a quantised folder holds: which matrices get which codes, which file each tensor
 * lies in and where, and the JSON that says so.
 *
 * Matrices that a forward pass multiplies with get codes. The embedding table and the head keep
 * eight bits in an int4 folder: a quarter of a small model's bytes, and the part that four bits
 * hurt most. Positions, classifiers and poolers are small and stay as they are; where the source
 * holds them in codes, they become bf16. Within a file
 * tensors lie by the size of their elements, largest first, so that all are aligned. */
#include "models/quantize_plan_int.h"

#include "models/config_edit_int.h"

#include <stdlib.h>
#include <string.h>

enum {
    GROUP_DEFAULT = 128,
    ROWS_MIN = 8, /* smaller matrices are not worth codes */
    COLS_MIN = 32
};

static const int64_t SHARD_BYTES_DEFAULT = 5000000000; /* as other writers do */

typedef struct planner {
    const lore_weights *weights;
    const lore_quantize_options *options;
    lore_arena *arena;
    lore_quantize_plan *plan;
    lore_error *err;
} planner;

static lore_status fail_memory(lore_error *err)
{
    return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the plan of the new files");
}

/* ---- which form ---- */

static bool holds(lore_str name, const char *part)
{
    return lore_str_find(name, lore_str_from(part), 0) != SIZE_MAX;
}

static bool is_small_part(lore_str module)
{
    return holds(module, "position") || holds(module, "token_type") || holds(module, "pooler") ||
           holds(module, "classifier") || lore_str_equal(module, LORE_STR("score"));
}

static bool is_head(lore_str module)
{
    return lore_str_equal(module, LORE_STR("lm_head"));
}

/* is_coded: the source has no plain numbers to copy. */
static lore_item_form choose_form(const planner *p, lore_str module, int32_t rows, int32_t cols,
                                  bool is_coded)
{
    const bool is_table = holds(module, "embed");
    if (rows < ROWS_MIN || cols < COLS_MIN || is_small_part(module) ||
        (is_table && p->options->is_portable)) {
        return is_coded ? LORE_ITEM_BF16 : LORE_ITEM_COPY;
    }
    const bool is_i4 =
        p->options->to == LORE_I4 && cols % p->plan->group == 0 && !is_table && !is_head(module);
    return is_i4 ? LORE_ITEM_I4 : LORE_ITEM_I8;
}

/* ---- tensors ---- */

static lore_status add_output(const planner *p, lore_item *item, const char *suffix,
                              const char *dtype, size_t element_bytes, int64_t rows, int64_t cols)
{
    lore_output *o = &item->outputs[item->output_count++];
    o->name = lore_str_printf(p->arena, "%s.%s", item->module, suffix);
    o->dtype = dtype;
    o->element_bytes = element_bytes;
    o->rank = cols > 0 ? 2 : 1;
    o->shape[0] = rows;
    o->shape[1] = cols;
    size_t count = (size_t)rows;
    if (o->name.ptr == NULL) {
        return fail_memory(p->err);
    }
    return lore_size_mul(count, cols > 0 ? (size_t)cols : 1, &count) &&
                   lore_size_mul(count, element_bytes, &o->size_bytes)
               ? LORE_OK
               : lore_fail(p->err, LORE_ERR_LIMIT, "matrix '%s' is too large", item->matrix);
}

static void copy_output(lore_item *item)
{
    const lore_tensor *t = item->tensor;
    lore_output *o = &item->outputs[item->output_count++];
    o->name = t->name;
    o->dtype = t->type->name;
    o->element_bytes = t->type->size_bytes;
    o->size_bytes = t->size_bytes;
    o->rank = t->rank;
    memcpy(o->shape, t->shape, sizeof o->shape);
}

static lore_status add_outputs(const planner *p, lore_item *item)
{
    const int64_t rows = item->rows, cols = item->cols, group = p->plan->group;
    lore_status status = LORE_OK;
    if (item->form == LORE_ITEM_COPY) {
        copy_output(item);
        return LORE_OK;
    }
    if (item->form == LORE_ITEM_BF16) {
        return add_output(p, item, "weight", "BF16", 2, rows, cols);
    }
    if (item->form == LORE_ITEM_I8) {
        status = add_output(p, item, "weight", "I8", 1, rows, cols);
        return status == LORE_OK ? add_output(p, item, "weight_scale", "F32", 4, rows, 1) : status;
    }
    status = add_output(p, item, "weight_packed", "I32", 4, rows, (cols + 7) / 8);
    if (status == LORE_OK) {
        status = add_output(p, item, "weight_scale", "BF16", 2, rows, (cols + group - 1) / group);
    }
    return status == LORE_OK ? add_output(p, item, "weight_shape", "I64", 8, 2, 0) : status;
}

/* The matrix that a tensor holds the numbers of; module stays empty for vectors and the like. */
static lore_status find_matrix(const planner *p, const lore_tensor *t, lore_str *module,
                               int32_t *rows, int32_t *cols)
{
    lore_quantized_set set;
    lore_tensor *parts[LORE_PARTS_MAX];
    int32_t count = 0;
    bool is_codes = false;
    lore_str suffix = LORE_STR(".weight");
    *module = lore_weights_module_of(p->weights, t, &is_codes);
    if (module->len > 0) {
        return lore_weights_find_set(p->weights, *module, &set, parts, &count) &&
                       lore_quantized_shape(&p->weights->quantized, &set, rows, cols)
                   ? LORE_OK
                   : lore_fail(p->err, LORE_ERR_CORRUPT,
                               "'%s': tensor '" LORE_STR_FMT "' has an impossible shape",
                               p->weights->shards[t->shard].path, LORE_STR_ARG(t->name));
    }
    if (lore_str_ends(t->name, suffix) && t->rank == 2 && t->type->is_usable && t->shape[0] > 0 &&
        t->shape[0] <= INT32_MAX && t->shape[1] > 0 && t->shape[1] <= INT32_MAX) {
        *module = lore_str_slice(t->name, 0, t->name.len - suffix.len);
        *rows = (int32_t)t->shape[0];
        *cols = (int32_t)t->shape[1];
    }
    return LORE_OK;
}

static lore_status add_item(planner *p, const lore_tensor *t)
{
    lore_item *item = &p->plan->items[p->plan->item_count];
    bool is_codes = false;
    lore_str set_module = lore_weights_module_of(p->weights, t, &is_codes);
    lore_str module = {NULL, 0};
    if ((set_module.len > 0 && !is_codes) || lore_weights_is_scale(p->weights, t->name)) {
        return LORE_OK; /* comes with its codes */
    }
    lore_status status = find_matrix(p, t, &module, &item->rows, &item->cols);
    if (status != LORE_OK) {
        return status;
    }
    item->tensor = t;
    if (module.len > 0) {
        const bool is_coded = set_module.len > 0 || t->type->dtype == LORE_I8;
        item->form = choose_form(p, module, item->rows, item->cols, is_coded);
        item->module = lore_str_to_c(p->arena, module);
        item->matrix =
            item->module == NULL ? NULL : lore_str_printf(p->arena, "%s.weight", item->module).ptr;
        if (item->matrix == NULL) {
            return fail_memory(p->err);
        }
    }
    p->plan->has_head = p->plan->has_head || (is_head(module) && item->form > LORE_ITEM_BF16);
    p->plan->item_count++;
    int64_t values = module.len > 0 ? (int64_t)item->rows * item->cols : 0;
    p->plan->values += values < INT64_MAX - p->plan->values ? values : 0; /* a hostile shape */
    return add_outputs(p, item);
}

/* ---- files ---- */

static void spread_over_files(lore_quantize_plan *plan, int64_t bytes_max)
{
    int64_t used = 0;
    plan->shard_count = 1;
    for (int32_t i = 0; i < plan->item_count; i++) {
        lore_item *item = &plan->items[i];
        int64_t bytes = 0;
        for (int32_t k = 0; k < item->output_count; k++) {
            bytes += (int64_t)item->outputs[k].size_bytes;
        }
        if (used > 0 && bytes > bytes_max - used) {
            plan->shard_count++;
            used = 0;
        }
        used += bytes;
        item->shard = plan->shard_count - 1;
    }
}

/* Elements of eight bytes first, then of four, two, one. */
static void set_offsets(lore_quantize_plan *plan, int32_t shard)
{
    size_t offset = 0;
    for (size_t element_bytes = 8; element_bytes > 0; element_bytes /= 2) {
        for (int32_t i = 0; i < plan->item_count; i++) {
            lore_item *item = &plan->items[i];
            for (int32_t k = 0; item->shard == shard && k < item->output_count; k++) {
                if (item->outputs[k].element_bytes == element_bytes) {
                    item->outputs[k].offset = offset;
                    offset += item->outputs[k].size_bytes;
                }
            }
        }
    }
}

lore_status lore_quantize_plan_make(const lore_weights *weights,
                                    const lore_quantize_options *options, lore_arena *arena,
                                    lore_quantize_plan *plan, lore_error *err)
{
    planner p = {weights, options, arena, plan, err};
    *plan = (lore_quantize_plan){.group = options->group > 0 ? options->group : GROUP_DEFAULT};
    plan->items = LORE_PUSH(arena, lore_item, weights->tensor_count + 1);
    if (plan->items == NULL) {
        return fail_memory(err);
    }
    for (int32_t i = 0; i < weights->tensor_count; i++) {
        lore_status status = add_item(&p, &weights->tensors[i]);
        if (status != LORE_OK) {
            return status;
        }
    }
    spread_over_files(plan, options->shard_bytes_max > 0 ? options->shard_bytes_max
                                                         : SHARD_BYTES_DEFAULT);
    for (int32_t shard = 0; shard < plan->shard_count; shard++) {
        set_offsets(plan, shard);
    }
    return LORE_OK;
}

void lore_quantize_plan_file(const lore_quantize_plan *plan, int32_t shard, char *name, size_t cap)
{
    lore_safetensors_file(shard, plan->shard_count, name, cap);
}

/* ---- JSON ---- */

lore_status lore_quantize_plan_header(const lore_quantize_plan *plan, int32_t shard, lore_buf *out,
                                      lore_error *err)
{
    lore_json_writer json;
    lore_safetensors_begin(&json, out);
    for (int32_t i = 0; i < plan->item_count; i++) {
        const lore_item *item = &plan->items[i];
        for (int32_t k = 0; item->shard == shard && k < item->output_count; k++) {
            lore_safetensors_add(&json, &item->outputs[k]);
        }
    }
    return lore_safetensors_end(&json, err);
}

lore_status lore_quantize_plan_index(const lore_quantize_plan *plan, lore_buf *out, lore_error *err)
{
    lore_json_writer json;
    int64_t bytes = 0;
    lore_safetensors_index_begin(&json, out);
    for (int32_t i = 0; i < plan->item_count; i++) {
        const lore_item *item = &plan->items[i];
        for (int32_t k = 0; k < item->output_count; k++) {
            bytes += (int64_t)item->outputs[k].size_bytes;
            lore_safetensors_index_add(&json, &item->outputs[k], item->shard, plan->shard_count);
        }
    }
    return lore_safetensors_index_end(&json, bytes, err);
}

/* The names of all matrices of one form; without all, only those that no class name covers. */
static void write_modules(lore_json_writer *json, const lore_quantize_plan *plan,
                          lore_item_form form, bool with_linear)
{
    for (int32_t i = 0; i < plan->item_count; i++) {
        const lore_item *item = &plan->items[i];
        if (item->module != NULL && item->form == form &&
            (with_linear || holds(lore_str_from(item->module), "embed"))) {
            lore_json_string(json, NULL, lore_str_from(item->module));
        }
    }
}

static void write_scheme(lore_json_writer *json, const lore_quantize_plan *plan, const char *name,
                         lore_item_form form, bool is_linear)
{
    const bool is_i4 = form == LORE_ITEM_I4;
    lore_json_object(json, name);
    lore_json_array(json, "targets");
    if (is_linear) {
        lore_json_string(json, NULL, LORE_STR("Linear"));
    }
    if (!is_i4) {
        write_modules(json, plan, form, !is_linear);
    }
    lore_json_end(json);
    lore_json_string(json, "format",
                     is_i4 ? LORE_STR("pack-quantized") : LORE_STR("int-quantized"));
    lore_json_object(json, "weights");
    lore_json_int(json, "num_bits", is_i4 ? 4 : 8);
    lore_json_string(json, "type", LORE_STR("int"));
    lore_json_boolean(json, "symmetric", true);
    lore_json_string(json, "strategy", is_i4 ? LORE_STR("group") : LORE_STR("channel"));
    if (is_i4) {
        lore_json_int(json, "group_size", plan->group);
    }
    lore_json_boolean(json, "dynamic", false);
    lore_json_end(json);
    lore_json_null(json, "input_activations");
    lore_json_null(json, "output_activations");
    lore_json_end(json);
}

static bool has_form(const lore_quantize_plan *plan, lore_item_form form)
{
    for (int32_t i = 0; i < plan->item_count; i++) {
        if (plan->items[i].form == form) {
            return true;
        }
    }
    return false;
}

static void write_quantization(lore_json_writer *json, const lore_quantize_plan *plan,
                               lore_dtype to)
{
    const bool is_i4 = to == LORE_I4, has_i8 = has_form(plan, LORE_ITEM_I8);
    lore_json_object(json, NULL);
    lore_json_string(json, "quant_method", LORE_STR("compressed-tensors"));
    lore_json_string(json, "format",
                     !is_i4   ? LORE_STR("int-quantized")
                     : has_i8 ? LORE_STR("mixed-precision")
                              : LORE_STR("pack-quantized"));
    lore_json_string(json, "quantization_status", LORE_STR("compressed"));
    lore_json_object(json, "config_groups");
    if (is_i4) {
        write_scheme(json, plan, "group_0", LORE_ITEM_I4, true);
    }
    if (has_i8) {
        write_scheme(json, plan, is_i4 ? "group_1" : "group_0", LORE_ITEM_I8, !is_i4);
    }
    lore_json_end(json);
    lore_json_array(json, "ignore");
    write_modules(json, plan, LORE_ITEM_COPY, true);
    write_modules(json, plan, LORE_ITEM_BF16, true);
    if (!plan->has_head) { /* tied: it has no tensor of its own */
        lore_json_string(json, NULL, LORE_STR("lm_head"));
    }
    lore_json_end(json);
    lore_json_end(json);
}

lore_status lore_quantize_plan_config(const lore_quantize_plan *plan, lore_dtype to, lore_str old,
                                      lore_buf *out, lore_error *err)
{
    lore_json_writer json;
    lore_buf value;
    lore_buf_init(&value, 0);
    lore_json_write_begin(&json, &value);
    write_quantization(&json, plan, to);
    const lore_config_edit edit = {"quantization_config", lore_buf_str(&value), true};
    lore_status status = lore_buf_failed(&value)
                             ? fail_memory(err)
                             : lore_config_edit_text(old, "config.json", &edit, 1, out, err);
    lore_buf_destroy(&value);
    return status;
}
