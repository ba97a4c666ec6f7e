/* What adapters change, on every decoder family, is what PEFT changes: of each module u^T D v, as
 * adapters/cases.jsonl has it (made by make_adapters.py), in memory and in the weights of a merged
 * folder. And a folder as PEFT wrote it is read. */
#include "models/merge_lora.h"
#include "models/quantize_int.h"
#include "models/weights_int.h"
#include "tests/unit/adapter_fixture.h"

#define GOLDEN_FOLDER LORE_SOURCE_DIR "/tests/golden"

enum { SIDE_MAX = 512, CHANGES_MAX = 64 };

static lore_decoder_config family_of(const char *family)
{
    char path[512];
    lore_error err = {0};
    lore_buf text;
    lore_decoder_config config;
    lore_buf_init(&text, 0);
    snprintf(path, sizeof path, LORE_FAMILIES "/%s/config.json", family);
    CHECK_OK(lore_file_read(path, 1 << 20, &text, &err), &err);
    CHECK_OK(lore_decoder_config_parse(lore_buf_str(&text), path, &config, &err), &err);
    lore_buf_destroy(&text);
    return config;
}

static double u_delta_v(const lore_adapter *adapter, const lore_adapter_linear *linear,
                        const lore_adapter_part *part)
{
    static float u[SIDE_MAX], v[SIDE_MAX];
    double sum = 0;
    CHECK(part->rows <= SIDE_MAX && linear->cols <= SIDE_MAX);
    adapter_fill("u", u, part->rows);
    adapter_fill("v", v, linear->cols);
    for (int32_t k = 0; k < part->rank; k++) {
        double left = 0, right = 0;
        for (int32_t i = 0; i < part->rows; i++) {
            left += (double)u[i] * (double)adapter_value(adapter, part->b, i * part->rank + k);
        }
        for (int32_t i = 0; i < linear->cols; i++) {
            const int32_t row = part->rank_start + k;
            right +=
                (double)v[i] * (double)adapter_value(adapter, linear->a, row * linear->cols + i);
        }
        sum += left * right;
    }
    return sum * (double)part->scale;
}

/* Where a module's rows stand, told a second time. */
static const lore_adapter_part *part_of(const lore_adapter *adapter, const lore_decoder_config *c,
                                        const char *module, const lore_adapter_linear **linear)
{
    const int32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const struct {
        const char *end;
        lore_linear linear;
        int32_t row_start;
    } ends[] = {
        {".q_proj", LORE_LINEAR_QKV, 0},           {".k_proj", LORE_LINEAR_QKV, q},
        {".v_proj", LORE_LINEAR_QKV, q + kv},      {".qkv_proj", LORE_LINEAR_QKV, 0},
        {".o_proj", LORE_LINEAR_ATTENTION_OUT, 0}, {".gate_proj", LORE_LINEAR_GATE_UP, 0},
        {".up_proj", LORE_LINEAR_GATE_UP, c->ffn}, {".gate_up_proj", LORE_LINEAR_GATE_UP, 0},
        {".down_proj", LORE_LINEAR_DOWN, 0},       {"lm_head", LORE_LINEAR_HEAD, 0}};
    int layer = 0;
    (void)sscanf(module, "model.layers.%d.", &layer);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (lore_str_ends(lore_str_from(module), lore_str_from(ends[i].end))) {
            *linear = lore_adapter_at(adapter, layer, ends[i].linear);
            return adapter_part(*linear, ends[i].row_start);
        }
    }
    return NULL;
}

static lore_weights *weights_of(const char *family)
{
    char path[512];
    lore_error err = {0};
    lore_weights *weights = NULL;
    snprintf(path, sizeof path, LORE_FAMILIES "/%s", family);
    CHECK_OK(lore_weights_open(path, &LIMITS, &weights, &err), &err);
    return weights;
}

/* PEFT writes the head of the base beside an adapter of it. */
static void copy_head(tensor_file *file, const char *name, const lore_weights *weights)
{
    char shape[64];
    const lore_tensor *t = lore_weights_find(weights, LORE_STR("lm_head.weight"));
    t = t != NULL ? t : lore_weights_find(weights, LORE_STR("model.embed_tokens.weight"));
    CHECK(t != NULL && t->rank == 2);
    snprintf(shape, sizeof shape, "%d, %d", (int)t->shape[0], (int)t->shape[1]);
    tensors_add(file, name, t->type->name, shape, t->data, t->size_bytes);
}

static void write_case(const char *folder, const lore_json *root, const lore_weights *weights)
{
    char name[256];
    lore_error err = {0};
    tensor_file file;
    lore_buf config;
    lore_buf_init(&config, 0);
    tensors_begin(&file);
    CHECK_OK(lore_json_print(lore_json_get(root, "config"), &config, &err), &err);
    const lore_json *tensors = lore_json_get(root, "tensors");
    for (const lore_json *t = lore_json_first(tensors); t != NULL; t = lore_json_next(t)) {
        const lore_json *first = lore_json_first(t), *rows = lore_json_next(first);
        snprintf(name, sizeof name, LORE_STR_FMT, LORE_STR_ARG(lore_json_str(first)));
        if (strstr(name, ".base_layer.") != NULL) {
            copy_head(&file, name, weights);
            continue;
        }
        adapter_tensor(&file, name, "F32", (int32_t)lore_json_number(rows),
                       (int32_t)lore_json_number(lore_json_next(rows)));
    }
    adapter_write(folder, lore_buf_c(&config), &file);
    lore_buf_destroy(&config);
}

static void compare(const lore_json *root, lore_dtype dtype)
{
    char folder[512], family[64];
    lore_error err = {0};
    lore_adapter *adapter = NULL;
    int32_t count = 0;
    snprintf(family, sizeof family, LORE_STR_FMT,
             LORE_STR_ARG(lore_json_str(lore_json_get(root, "family"))));
    snprintf(folder, sizeof folder, "%s/%s", check_temp_dir(), family);
    const lore_decoder_config config = family_of(family);
    lore_weights *weights = weights_of(family);
    const lore_adapter_base base = {&config, weights};
    write_case(folder, root, weights);
    CHECK_OK(lore_adapter_read(folder, &base, dtype, &ADAPTER_LIMITS, &adapter, &err), &err);
    const lore_json *changes = lore_json_get(root, "changes");
    for (const lore_json *n = lore_json_first(changes); n != NULL; n = lore_json_next(n), count++) {
        char module[256];
        const lore_json *first = lore_json_first(n);
        const lore_adapter_linear *linear = NULL;
        const double wanted = lore_json_number(lore_json_next(first));
        snprintf(module, sizeof module, LORE_STR_FMT, LORE_STR_ARG(lore_json_str(first)));
        const lore_adapter_part *part = part_of(adapter, &config, module, &linear);
        if (part == NULL) {
            CHECK_STOP("%s: nothing for %s", family, module);
        }
        CHECK_NEAR(u_delta_v(adapter, linear, part), wanted, 1e-5 * (1 + fabs(wanted)));
    }
    CHECK(count > 0 && count <= CHANGES_MAX);
    CHECK_INT(lore_adapter_get_info(adapter).modules, count);
    lore_adapter_close(adapter);
    lore_weights_close(weights);
}

static double value_of(const lore_tensor *t, int32_t row, int32_t col)
{
    const size_t at = ((size_t)row * (size_t)t->shape[1] + (size_t)col) * t->type->size_bytes;
    uint16_t half = 0;
    float value = 0;
    if (t->type->dtype == LORE_F32) {
        memcpy(&value, t->data + at, sizeof value);
        return (double)value;
    }
    memcpy(&half, t->data + at, sizeof half);
    return (double)(t->type->dtype == LORE_F16 ? lore_f16_to_f32(half) : lore_bf16_to_f32(half));
}

/* u^T (W' - W) v; a head that had the table's weights has its own now. */
static double u_difference_v(const lore_weights *base, const lore_weights *merged,
                             const char *module)
{
    static float u[SIDE_MAX], v[SIDE_MAX];
    char name[300];
    double sum = 0;
    snprintf(name, sizeof name, "%s.weight", module);
    const lore_tensor *to = lore_weights_find(merged, lore_str_from(name));
    const lore_tensor *from = lore_weights_find(base, lore_str_from(name));
    from = from != NULL ? from : lore_weights_find(base, LORE_STR("model.embed_tokens.weight"));
    CHECK(to != NULL && from != NULL && to->type->dtype == LORE_F32);
    const int32_t rows = (int32_t)to->shape[0], cols = (int32_t)to->shape[1];
    CHECK(rows <= SIDE_MAX && cols <= SIDE_MAX);
    adapter_fill("u", u, rows);
    adapter_fill("v", v, cols);
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t k = 0; k < cols; k++) {
            sum += (double)u[i] * (value_of(to, i, k) - value_of(from, i, k)) * (double)v[k];
        }
    }
    return sum;
}

static void compare_merged(const lore_json *root)
{
    static const lore_dtype F32 = LORE_F32;
    char base[512], adapter[512], merged[512], family[64];
    lore_error err = {0};
    lore_limits limits = ADAPTER_LIMITS;
    limits.model_file_bytes_max = LIMITS.model_file_bytes_max;
    const lore_merge_options options = {.to = &F32};
    lore_merge_result result;
    lore_weights *after = NULL;
    snprintf(family, sizeof family, LORE_STR_FMT,
             LORE_STR_ARG(lore_json_str(lore_json_get(root, "family"))));
    snprintf(base, sizeof base, LORE_FAMILIES "/%s", family);
    snprintf(adapter, sizeof adapter, "%s/%s", check_temp_dir(), family); /* of compare() */
    snprintf(merged, sizeof merged, "%s/merged", check_temp_dir());
    CHECK_OK(lore_merge_lora(base, adapter, merged, &limits, &options, &result, &err), &err);
    CHECK_OK(lore_weights_open(merged, &LIMITS, &after, &err), &err);
    lore_weights *before = weights_of(family);
    const lore_json *changes = lore_json_get(root, "changes");
    CHECK_INT(result.modules, lore_json_count(changes));
    for (const lore_json *n = lore_json_first(changes); n != NULL; n = lore_json_next(n)) {
        char module[256];
        const double wanted = lore_json_number(lore_json_next(lore_json_first(n)));
        snprintf(module, sizeof module, LORE_STR_FMT,
                 LORE_STR_ARG(lore_json_str(lore_json_first(n))));
        CHECK_NEAR(u_difference_v(before, after, module), wanted, 1e-5 * (1 + fabs(wanted)));
    }
    lore_weights_close(after);
    lore_weights_close(before);
    lore_folder_abort(merged);
}

TEST(changes_are_those_of_peft)
{
    lore_error err = {0};
    lore_buf text;
    int32_t cases = 0;
    lore_buf_init(&text, 0);
    CHECK_OK(lore_file_read(GOLDEN_FOLDER "/adapters/cases.jsonl", 1 << 20, &text, &err), &err);
    lore_str rest = lore_buf_str(&text), line;
    for (; lore_str_next_line(&rest, &line); cases++) {
        lore_json *root = NULL;
        CHECK_OK(lore_json_parse(line, 16, &root, &err), &err);
        compare(root, LORE_F32);
        compare(root, LORE_BF16); /* which holds these values */
        compare_merged(root);
        lore_json_free(root);
    }
    CHECK_INT(cases, 14);
    lore_buf_destroy(&text);
}

TEST(folder_as_written)
{
    static const char MODULE[] = "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight";
    float wanted[SIDE_MAX];
    lore_error err = {0};
    lore_adapter *adapter = NULL;
    const lore_decoder_config config = family_of("llama");
    const lore_adapter_base base = {&config, NULL};
    CHECK_OK(lore_adapter_read(GOLDEN_FOLDER "/adapters/written", &base, LORE_F32, &ADAPTER_LIMITS,
                               &adapter, &err),
             &err);
    CHECK_INT(lore_adapter_get_info(adapter).modules, 1);
    const lore_adapter_part *part =
        adapter_part(lore_adapter_at(adapter, 0, LORE_LINEAR_QKV), config.width);
    CHECK(part != NULL);
    CHECK_INT(part->rank, 1);
    CHECK_NEAR(part->scale, 2, 0);
    adapter_fill(MODULE, wanted, part->rows);
    for (int32_t i = 0; i < part->rows; i++) {
        CHECK_NEAR(adapter_value(adapter, part->b, i), wanted[i], 0);
    }
    lore_adapter_close(adapter);
}

CHECK_MAIN(changes_are_those_of_peft, folder_as_written)
