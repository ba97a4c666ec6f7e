/* Adapters as known trainers write them become PEFT folders that change what they changed: fused
 * matrices are split, split ones joined, rows put in the order of the base. What is damaged, or not
 * understood, is refused by the name of what is wrong, and leaves nothing. Covers
 * adapter_foreign.c.
 */
#include "tests/unit/adapter_fixture.h"

#include "models/adapter_convert.h"
#include "models/adapter_foreign_int.h"
#include "models/quantize_int.h"
#include "models/weights_int.h"

#include <math.h>

enum { RANK = 3, SIDE_MAX = 512, PAIR_MAX = SIDE_MAX * 8 };
static const double ALPHA = 4.5;
static const lore_limits CONVERT_LIMITS = {.model_file_bytes_max = 1 << 30,
                                           .model_header_bytes_max = 1 << 20,
                                           .model_json_bytes_max = 1 << 20,
                                           .adapter_file_bytes_max = 1 << 24,
                                           .adapter_rank_max = 512};

/* One change of one unit; q, k and v have one A, and so have gate and up: they can be fused. */
typedef struct change {
    int32_t rows, cols;
    float a[PAIR_MAX], b[PAIR_MAX]; /* [RANK, cols], [rows, RANK] */
} change;

static change changes[LORE_UNITS];

static lore_decoder_config config_of(const char *family)
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

static void make_changes(const lore_decoder_config *c, int32_t layer)
{
    static const char *const A[LORE_UNITS] = {"qkv", "qkv", "qkv", "o", "gu", "gu", "down", "head"};
    char name[64];
    for (int32_t i = 0; i < LORE_UNITS; i++) {
        change *x = &changes[i];
        x->rows = lore_adapter_unit_rows(c, (lore_adapter_unit)i);
        x->cols = lore_adapter_unit_cols(c, (lore_adapter_unit)i);
        CHECK(x->rows * RANK <= PAIR_MAX && x->cols * RANK <= PAIR_MAX);
        snprintf(name, sizeof name, "A %s %d", A[i], layer);
        adapter_fill(name, x->a, RANK * x->cols);
        snprintf(name, sizeof name, "B %d %d", i, layer);
        adapter_fill(name, x->b, x->rows * RANK);
    }
}

static void path_of(char path[512], const char *name)
{
    snprintf(path, 512, "%s/%s", check_temp_dir(), name);
}

static bool exists(const char *path)
{
    return lore_file_exists(path);
}

/* ---- what trainers write ---- */

static void put(tensor_file *f, const char *name, const float *values, int32_t rows, int32_t cols,
                bool is_turned)
{
    static float turned[PAIR_MAX * 3];
    char shape[64];
    CHECK(rows * cols <= PAIR_MAX * 3);
    for (int32_t i = 0; i < rows * cols; i++) {
        turned[is_turned ? i % cols * rows + i / cols : i] = values[i];
    }
    snprintf(shape, sizeof shape, "%d, %d", is_turned ? cols : rows, is_turned ? rows : cols);
    tensors_add(f, name, "F32", shape, turned, (size_t)(rows * cols) * sizeof *turned);
}

/* A and B under a name with these ends. */
static void put_pair(tensor_file *f, const char *module, const char *const ends[2], const float *a,
                     int32_t cols, const float *b, int32_t rows, bool is_turned)
{
    char name[256];
    snprintf(name, sizeof name, "%s%s", module, ends[0]);
    put(f, name, a, RANK, cols, is_turned);
    snprintf(name, sizeof name, "%s%s", module, ends[1]);
    put(f, name, b, rows, RANK, is_turned);
}

static const char *const PEFT_ENDS[] = {".lora_A.weight", ".lora_B.weight"};
static const char *const NAMES[LORE_UNITS] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",    "lm_head"};

static void write_units(tensor_file *f, int32_t layer, const char *prefix,
                        const char *const names[LORE_UNITS], const char *const ends[2],
                        bool is_turned)
{
    char module[256];
    for (int32_t i = 0; i < LORE_UNIT_HEAD; i++) {
        const change *x = &changes[i];
        snprintf(module, sizeof module,
                 prefix[0] == 'l' && prefix[4] == '_' ? "%slayers_%d_%s" : "%slayers.%d.%s", prefix,
                 layer, names[i]);
        put_pair(f, module, ends, x->a, x->cols, x->b, x->rows, is_turned);
    }
}

static void write_peft(tensor_file *f, const lore_decoder_config *c, int32_t layer)
{
    (void)c;
    write_units(f, layer, "module.model.", NAMES, PEFT_ENDS, false);
}

static void write_mlx(tensor_file *f, const lore_decoder_config *c, int32_t layer)
{
    static const char *const ENDS[] = {".lora_a", ".lora_b"};
    (void)c;
    write_units(f, layer, "model.", NAMES, ENDS, true);
}

/* The two numbers that are rotated together stand side by side: in place 2 i, 2 i + 1 of a head
 * what a base has in i, i + half. */
static void pair_rows(change *x, int32_t head_dim)
{
    static float out[PAIR_MAX];
    const int32_t half = head_dim / 2;
    for (int32_t row = 0; row < x->rows; row++) {
        const int32_t head = row / head_dim, in = row % head_dim;
        const int32_t from = head * head_dim + in / 2 + in % 2 * half;
        memcpy(out + row * RANK, x->b + from * RANK, RANK * sizeof *out);
    }
    memcpy(x->b, out, (size_t)(x->rows * RANK) * sizeof *out);
}

static void write_meta(tensor_file *f, const lore_decoder_config *c, int32_t layer)
{
    static const char *const META[LORE_UNITS] = {
        "attention.wq",    "attention.wk",    "attention.wv",    "attention.wo",
        "feed_forward.w1", "feed_forward.w3", "feed_forward.w2", ""};
    pair_rows(&changes[LORE_UNIT_Q], c->head_dim);
    pair_rows(&changes[LORE_UNIT_K], c->head_dim);
    write_units(f, layer, "", META, PEFT_ENDS, false);
}

static void write_torchtune(tensor_file *f, const lore_decoder_config *c, int32_t layer)
{
    static const char *const TUNE[LORE_UNITS] = {
        "attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.output_proj",
        "mlp.w1",      "mlp.w3",      "mlp.w2",      ""};
    static const char *const ENDS[] = {".lora_a.weight", ".lora_b.weight"};
    if (strcmp(c->family->model_type, "qwen2") != 0 && strcmp(c->family->model_type, "phi3") != 0) {
        pair_rows(&changes[LORE_UNIT_Q], c->head_dim);
        pair_rows(&changes[LORE_UNIT_K], c->head_dim);
    }
    write_units(f, layer, "", TUNE, ENDS, false);
}

static void write_kohya(tensor_file *f, const lore_decoder_config *c, int32_t layer)
{
    static const char *const SCORED[LORE_UNITS] = {
        "self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "self_attn_o_proj",
        "mlp_gate_proj",    "mlp_up_proj",      "mlp_down_proj",    ""};
    static const char *const ENDS[] = {".lora_down.weight", ".lora_up.weight"};
    char name[256];
    const float alpha = (float)ALPHA;
    (void)c;
    write_units(f, layer, "lora_te_model_", SCORED, ENDS, false);
    for (int32_t i = 0; i < LORE_UNIT_HEAD; i++) {
        snprintf(name, sizeof name, "lora_te_model_layers_%d_%s.alpha", layer, SCORED[i]);
        tensors_add(f, name, "F32", "", &alpha, sizeof alpha);
    }
}

/* For each head of keys: its queries, itself, its values. */
static void write_megatron(tensor_file *f, const lore_decoder_config *c, int32_t layer)
{
    static const char *const ENDS[] = {".adapter.linear_in.weight", ".adapter.linear_out.weight"};
    static float b[PAIR_MAX * 3];
    const int32_t dim = c->head_dim, queries = c->heads / c->kv_heads;
    char module[256];
    int32_t row = 0;
    for (int32_t group = 0; group < c->kv_heads; group++) {
        for (int32_t i = 0; i < (queries + 2) * dim; i++, row++) {
            const int32_t unit = i < queries * dim         ? LORE_UNIT_Q
                                 : i < (queries + 1) * dim ? LORE_UNIT_K
                                                           : LORE_UNIT_V;
            const int32_t from =
                unit == LORE_UNIT_Q ? group * queries * dim + i : group * dim + i % dim;
            memcpy(b + row * RANK, changes[unit].b + from * RANK, RANK * sizeof *b);
        }
    }
    snprintf(module, sizeof module, "module.decoder.layers.%d.self_attention.linear_qkv", layer);
    put_pair(f, module, ENDS, changes[LORE_UNIT_Q].a, c->width, b, row, false);
    snprintf(module, sizeof module, "module.decoder.layers.%d.self_attention.linear_proj", layer);
    const change *out = &changes[LORE_UNIT_OUT], *down = &changes[LORE_UNIT_DOWN];
    put_pair(f, module, ENDS, out->a, out->cols, out->b, out->rows, false);
    memcpy(b, changes[LORE_UNIT_GATE].b, (size_t)(c->ffn * RANK) * sizeof *b);
    memcpy(b + c->ffn * RANK, changes[LORE_UNIT_UP].b, (size_t)(c->ffn * RANK) * sizeof *b);
    snprintf(module, sizeof module, "module.decoder.layers.%d.mlp.linear_fc1", layer);
    put_pair(f, module, ENDS, changes[LORE_UNIT_GATE].a, c->width, b, 2 * c->ffn, false);
    snprintf(module, sizeof module, "module.decoder.layers.%d.mlp.linear_fc2", layer);
    put_pair(f, module, ENDS, down->a, down->cols, down->b, down->rows, false);
}

static void write_fused(tensor_file *f, const lore_decoder_config *c, int32_t layer)
{
    static float b[PAIR_MAX * 3];
    char module[256];
    int32_t rows = 0;
    for (int32_t i = 0; i < 3; i++) {
        const int32_t count = changes[i].rows * RANK;
        memcpy(b + rows * RANK, changes[i].b, (size_t)count * sizeof *b);
        rows += changes[i].rows;
    }
    snprintf(module, sizeof module, "base_model.model.model.layers.%d.self_attn.qkv_proj", layer);
    put_pair(f, module, PEFT_ENDS, changes[LORE_UNIT_Q].a, c->width, b, rows, false);
    memcpy(b, changes[LORE_UNIT_GATE].b, (size_t)(c->ffn * RANK) * sizeof *b);
    memcpy(b + c->ffn * RANK, changes[LORE_UNIT_UP].b, (size_t)(c->ffn * RANK) * sizeof *b);
    snprintf(module, sizeof module, "base_model.model.model.layers.%d.mlp.gate_up_proj", layer);
    put_pair(f, module, PEFT_ENDS, changes[LORE_UNIT_GATE].a, c->width, b, 2 * c->ffn, false);
    for (int32_t i = LORE_UNIT_OUT; i <= LORE_UNIT_DOWN; i += LORE_UNIT_DOWN - LORE_UNIT_OUT) {
        const change *x = &changes[i];
        snprintf(module, sizeof module, "base_model.model.model.layers.%d.%s", layer, NAMES[i]);
        put_pair(f, module, PEFT_ENDS, x->a, x->cols, x->b, x->rows, false);
    }
}

#define PEFT_CONFIG(targets)                                                             \
    "{\"peft_type\": \"LORA\", \"task_type\": \"CAUSAL_LM\", \"r\": 3, \"lora_alpha\": " \
    "4.5, \"target_modules\": " targets "}"
#define MLX_CONFIG \
    "{\"fine_tune_type\": \"lora\", \"lora_parameters\": {\"rank\": 3, \"scale\": 1.5}}"
#define SEPARATE \
    "[\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\", \"gate_proj\", \"up_proj\", \"down_proj\"]"

static const struct {
    const char *name, *file, *config; /* NULL: the caller says alpha, or tensors do */
    void (*write)(tensor_file *f, const lore_decoder_config *c, int32_t layer);
    bool says_alpha;
} FORMS[] = {
    {"peft", "adapter_model.safetensors", PEFT_CONFIG(SEPARATE), write_peft, true},
    {"mlx", "adapters.safetensors", MLX_CONFIG, write_mlx, true},
    {"torchtune", "adapter_model.safetensors", PEFT_CONFIG(SEPARATE), write_torchtune, true},
    {"meta", "lora.safetensors", NULL, write_meta, false},
    {"kohya", "some name.safetensors", NULL, write_kohya, true},
    {"megatron", "weights.safetensors", NULL, write_megatron, false},
    {"fused", "adapter_model.safetensors",
     PEFT_CONFIG("[\"qkv_proj\", \"o_proj\", \"gate_up_proj\", \"down_proj\"]"), write_fused,
     true}};

/* ---- what comes out ---- */

/* Row `row`, column `col` of what an adapter adds to a product. */
static double added(const lore_adapter *adapter, const lore_adapter_linear *linear, int32_t row,
                    int32_t col)
{
    for (int32_t i = 0; i < linear->part_count; i++) {
        const lore_adapter_part *p = &linear->parts[i];
        double sum = 0;
        if (row < p->row_start || row >= p->row_start + p->rows) {
            continue;
        }
        for (int32_t k = 0; k < p->rank; k++) {
            const int32_t b = (row - p->row_start) * p->rank + k;
            const int32_t a = (p->rank_start + k) * linear->cols + col;
            sum += (double)adapter_value(adapter, p->b, b) *
                   (double)adapter_value(adapter, linear->a, a);
        }
        return sum * (double)p->scale;
    }
    return 0;
}

static void check_layer(const lore_adapter *adapter, int32_t layer)
{
    static const struct {
        lore_linear linear;
        lore_adapter_unit first;
        int32_t count;
    } PRODUCTS[] = {{LORE_LINEAR_QKV, LORE_UNIT_Q, 3},
                    {LORE_LINEAR_ATTENTION_OUT, LORE_UNIT_OUT, 1},
                    {LORE_LINEAR_GATE_UP, LORE_UNIT_GATE, 2},
                    {LORE_LINEAR_DOWN, LORE_UNIT_DOWN, 1}};
    for (size_t p = 0; p < sizeof PRODUCTS / sizeof PRODUCTS[0]; p++) {
        const lore_adapter_linear *linear = lore_adapter_at(adapter, layer, PRODUCTS[p].linear);
        int32_t row = 0;
        for (int32_t u = 0; u < PRODUCTS[p].count; u++) {
            const change *x = &changes[(int32_t)PRODUCTS[p].first + u];
            CHECK_INT(linear->cols, x->cols);
            for (int32_t i = 0; i < x->rows; i++, row++) {
                for (int32_t k = 0; k < x->cols; k++) {
                    double sum = 0;
                    for (int32_t r = 0; r < RANK; r++) {
                        sum += (double)x->b[i * RANK + r] * (double)x->a[r * x->cols + k];
                    }
                    CHECK_NEAR(added(adapter, linear, row, k), sum * ALPHA / RANK, 1e-5);
                }
            }
        }
    }
}

static lore_adapter *read_back(const char *folder, const lore_decoder_config *config)
{
    lore_error err = {0};
    lore_adapter *adapter = NULL;
    const lore_adapter_base base = {config, NULL};
    CHECK_OK(lore_adapter_read(folder, &base, LORE_F32, &ADAPTER_LIMITS, &adapter, &err), &err);
    return adapter;
}

static void check_form(const char *family, size_t form)
{
    char base[512], from[512], to[512], path[640];
    lore_error err = {0};
    lore_convert_result result;
    tensor_file file;
    const lore_decoder_config config = config_of(family);
    const lore_convert_options options = {.alpha = FORMS[form].says_alpha ? 0 : ALPHA};
    snprintf(base, sizeof base, LORE_FAMILIES "/%s", family);
    path_of(from, FORMS[form].name);
    path_of(to, "converted");
    tensors_begin(&file);
    for (int32_t layer = 0; layer < config.layers; layer++) {
        make_changes(&config, layer);
        FORMS[form].write(&file, &config, layer);
    }
    tensors_write(&file, from, FORMS[form].file);
    if (FORMS[form].config != NULL) {
        write_file(from, "adapter_config.json", lore_str_from(FORMS[form].config));
    }
    snprintf(path, sizeof path, "%s/%s", from, FORMS[form].file); /* a file is as good */
    CHECK_OK(lore_adapter_convert(base, form % 2 == 0 ? from : path, to, &CONVERT_LIMITS, &options,
                                  &result, &err),
             &err);
    lore_adapter *adapter = read_back(to, &config);
    CHECK_INT(lore_adapter_get_info(adapter).modules, result.modules);
    CHECK_INT(lore_adapter_get_info(adapter).rank_max, result.rank_max);
    for (int32_t layer = 0; layer < config.layers; layer++) {
        make_changes(&config, layer);
        check_layer(adapter, layer);
    }
    lore_adapter_close(adapter);
    lore_folder_abort(from);
    lore_folder_abort(to);
}

TEST(all_forms_for_all_families)
{
    static const char *const BASES[] = {"llama", "llama3", "mistral", "qwen2", "phi3", "gemma2"};
    for (size_t i = 0; i < sizeof BASES / sizeof BASES[0]; i++) {
        for (size_t form = 0; form < sizeof FORMS / sizeof FORMS[0]; form++) {
            check_form(BASES[i], form);
        }
    }
}

/* The configuration says which modules, ranks and scales, and numbers keep their type. */
TEST(ranks_scales_and_types)
{
    char from[512], to[512], path[640];
    lore_error err = {0};
    lore_convert_result result;
    const lore_decoder_config config = config_of("llama");
    const lore_convert_options options = {0};
    const float alphas[] = {3, 8};
    tensor_file file;
    path_of(from, "mixed");
    path_of(to, "mixed-out");
    tensors_begin(&file);
    adapter_tensor(&file, "lora_te_layers_0_mlp_up_proj.lora_down.weight", "BF16", 2, config.width);
    adapter_tensor(&file, "lora_te_layers_0_mlp_up_proj.lora_up.weight", "BF16", config.ffn, 2);
    tensors_add(&file, "lora_te_layers_0_mlp_up_proj.alpha", "F32", "1", &alphas[0], 4);
    adapter_tensor(&file, "lora_te_lm_head.lora_down.weight", "BF16", 4, config.width);
    adapter_tensor(&file, "lora_te_lm_head.lora_up.weight", "BF16", config.vocab, 4);
    tensors_add(&file, "lora_te_lm_head.alpha", "F32", "", &alphas[1], 4);
    tensors_write(&file, from, "a.safetensors");
    CHECK_OK(lore_adapter_convert(LORE_FAMILIES "/llama", from, to, &CONVERT_LIMITS, &options,
                                  &result, &err),
             &err);
    CHECK_INT(result.modules, 2);
    CHECK_INT(result.rank_max, 4);
    CHECK_INT(result.tensors_read, 6);
    CHECK_INT(result.size_bytes,
              2 * (2 * (config.width + config.ffn) + 4 * (config.width + config.vocab)));
    lore_adapter *adapter = read_back(to, &config);
    const lore_adapter_linear *up = lore_adapter_at(adapter, 0, LORE_LINEAR_GATE_UP);
    const lore_adapter_linear *head = lore_adapter_at(adapter, 0, LORE_LINEAR_HEAD);
    CHECK_INT(up->part_count, 1);
    CHECK_INT(up->parts[0].row_start, config.ffn);
    CHECK_NEAR(up->parts[0].scale, 1.5, 0);
    CHECK_INT(head->rank, 4);
    CHECK_NEAR(head->parts[0].scale, 2, 0);
    lore_adapter_close(adapter);
    snprintf(path, sizeof path, "%s/adapter_config.json", to);
    lore_json *root = read_json(path);
    const lore_json *targets = lore_json_get(root, "target_modules");
    CHECK_INT(lore_json_count(targets), 2);
    CHECK_STR(lore_json_str(lore_json_first(targets)), "model.layers.0.mlp.up_proj");
    lore_json_free(root);
    lore_folder_abort(to);
}

/* PEFT's copy of the head goes along, if it is one. */
TEST(copies_of_the_base_go_along)
{
    char from[512], to[512];
    lore_error err = {0};
    lore_convert_result result;
    const lore_decoder_config config = config_of("llama");
    const lore_convert_options options = {.alpha = 2};
    lore_weights *weights = NULL;
    path_of(from, "head");
    path_of(to, "head-out");
    CHECK_OK(lore_weights_open(LORE_FAMILIES "/llama", &LIMITS, &weights, &err), &err);
    const lore_tensor *head = lore_weights_find(weights, LORE_STR("lm_head.weight"));
    CHECK(head != NULL);
    for (int is_same = 1; is_same >= 0; is_same--) {
        char shape[64];
        tensor_file file;
        tensors_begin(&file);
        adapter_pair(&file, "lm_head", "BF16", config.vocab, config.width, 2);
        uint8_t *values = lore_alloc(head->size_bytes);
        CHECK(values != NULL);
        memcpy(values, head->data, head->size_bytes);
        values[7] ^= is_same ? 0 : 1;
        snprintf(shape, sizeof shape, "%d, %d", config.vocab, config.width);
        tensors_add(&file, "lm_head.base_layer.weight", head->type->name, shape, values,
                    head->size_bytes);
        lore_free(values);
        tensors_write(&file, from, "adapter_model.safetensors");
        lore_status status = lore_adapter_convert(LORE_FAMILIES "/llama", from, to, &CONVERT_LIMITS,
                                                  &options, &result, &err);
        CHECK((status == LORE_OK) == is_same);
        CHECK(is_same || strstr(err.message, "lm_head.base_layer.weight") != NULL);
        lore_folder_abort(to);
    }
    lore_weights_close(weights);
}

/* ---- refusals ---- */

#define UP "model.layers.0.mlp.up_proj"

/* One pair of matrices for llama, with something else beside or in place of it. */
static void put_up(tensor_file *f, const char *a, const char *b)
{
    const lore_decoder_config c = config_of("llama");
    if (a != NULL) {
        adapter_tensor(f, a, "F32", 2, c.width);
    }
    if (b != NULL) {
        adapter_tensor(f, b, "F32", c.ffn, 2);
    }
}

static void refuse_from(const char *from, double alpha, lore_status status, const char *words)
{
    char to[512], beside[512];
    lore_error err = {0};
    lore_convert_result result;
    const lore_convert_options options = {.alpha = alpha};
    path_of(to, "refused");
    path_of(beside, "refused.tmp");
    CHECK_FAILS(lore_adapter_convert(LORE_FAMILIES "/llama", from, to, &CONVERT_LIMITS, &options,
                                     &result, &err),
                status, &err, words);
    CHECK(!exists(to) && !exists(beside));
}

static void refuse_file(tensor_file *file, const char *config, lore_status status,
                        const char *words)
{
    char from[512];
    path_of(from, "wrong");
    tensors_write(file, from, "adapter_model.safetensors");
    if (config != NULL) {
        write_file(from, "adapter_config.json", lore_str_from(config));
    }
    refuse_from(from, config != NULL ? 0 : 2, status, words);
    lore_folder_abort(from);
}

TEST(damaged_tensors_are_refused)
{
    const lore_decoder_config c = config_of("llama");
    float values[SIDE_MAX] = {0};
    char shape[64];
    tensor_file file;
    static const float ALPHAS[] = {0, -1, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        tensors_begin(&file);
        put_up(&file, UP ".lora_down.weight", UP ".lora_up.weight");
        tensors_add(&file, UP ".alpha", "F32", "", &ALPHAS[i], 4);
        refuse_file(&file, NULL, LORE_ERR_CORRUPT, "'" UP ".alpha' must be one number above 0");
    }
    tensors_begin(&file);
    put_up(&file, UP ".lora_down.weight", UP ".lora_up.weight");
    tensors_add(&file, UP ".alpha", "F32", "2", values, 8);
    refuse_file(&file, NULL, LORE_ERR_CORRUPT, "'" UP ".alpha' must be one number");
    tensors_begin(&file);
    put_up(&file, UP ".lora_down.weight", UP ".lora_up.weight");
    tensors_add(&file, UP ".alpha", "F32", "0", values, 0);
    refuse_file(&file, NULL, LORE_ERR_CORRUPT, "'" UP ".alpha' must be one number");
    for (int half = 0; half < 2; half++) { /* not a number, in A or B */
        tensors_begin(&file);
        values[5] = half == 0 ? NAN : -INFINITY;
        put_up(&file, half == 0 ? NULL : UP ".lora_A.weight",
               half == 0 ? UP ".lora_B.weight" : NULL);
        snprintf(shape, sizeof shape, half == 0 ? "2, %d" : "%d, 2", half == 0 ? c.width : c.ffn);
        tensors_add(&file, half == 0 ? UP ".lora_A.weight" : UP ".lora_B.weight", "F32", shape,
                    values, (size_t)(2 * (half == 0 ? c.width : c.ffn)) * 4);
        refuse_file(&file, NULL, LORE_ERR_CORRUPT,
                    half == 0 ? "'" UP ".lora_A.weight' holds a value that is no finite number"
                              : "'" UP ".lora_B.weight' holds a value that is no finite number");
    }
    tensors_begin(&file);
    adapter_tensor(&file, UP ".lora_A.weight", "F32", 2, c.width + 1);
    put_up(&file, NULL, UP ".lora_B.weight");
    refuse_file(&file, NULL, LORE_ERR_CORRUPT, "must be [2, ");
    tensors_begin(&file);
    put_up(&file, UP ".lora_A.weight", NULL);
    adapter_tensor(&file, UP ".lora_B.weight", "F32", c.ffn, 3);
    refuse_file(&file, NULL, LORE_ERR_CORRUPT, "'" UP ".lora_B.weight' must be [");
    tensors_begin(&file);
    tensors_add(&file, UP ".lora_A.weight", "F32", "8", values, 32);
    put_up(&file, NULL, UP ".lora_B.weight");
    refuse_file(&file, NULL, LORE_ERR_CORRUPT, "is no matrix");
    tensors_begin(&file);
    snprintf(shape, sizeof shape, "0, %d", c.width);
    tensors_add(&file, UP ".lora_A.weight", "F32", shape, values, 0);
    put_up(&file, NULL, UP ".lora_B.weight");
    refuse_file(&file, NULL, LORE_ERR_CORRUPT, "is no matrix");
    tensors_begin(&file);
    adapter_tensor(&file, UP ".lora_A.weight", "F32", 600, c.width);
    adapter_tensor(&file, UP ".lora_B.weight", "F32", c.ffn, 600);
    refuse_file(&file, NULL, LORE_ERR_LIMIT, "has rank 600, over limits.adapter_rank_max (512)");
    tensors_begin(&file);
    put_up(&file, UP ".lora_A.weight", NULL);
    memset(values, 0, sizeof values);
    tensors_add(&file, UP ".lora_B.weight", "I8", "16", values, 16);
    refuse_file(&file, NULL, LORE_ERR_CORRUPT, "must be F32, F16 or BF16");
}

TEST(tensors_that_do_not_belong_are_refused)
{
    static const struct {
        const char *a, *b, *more_a, *more_b;
        lore_status status;
        const char *words;
    } CASES[] = {
        {UP ".lora_A.weight", NULL, NULL, NULL, LORE_ERR_CORRUPT, "has no other half"},
        {NULL, UP ".lora_up.weight", NULL, NULL, LORE_ERR_CORRUPT, "has no other half"},
        {UP ".lora_A.weight", UP ".lora_B.weight", "base_model.model." UP ".lora_A.weight", NULL,
         LORE_ERR_CORRUPT, "is there under two names"},
        {UP ".lora_A.weight", UP ".lora_B.weight", "layers.0.mlp.w3.lora_a.weight",
         "layers.0.mlp.w3.lora_b.weight", LORE_ERR_CORRUPT, "changes what another tensor changes"},
        {UP ".lora_A.weight", UP ".lora_b", NULL, NULL, LORE_ERR_CORRUPT, "different trainers"},
        {"model.layers.2.mlp.up_proj.lora_A.weight", NULL, NULL, NULL, LORE_ERR_CORRUPT,
         "a layer that the base model has not"},
        {UP ".lora_A.weight", UP ".lora_B.weight", UP ".lora_magnitude_vector.default.weight", NULL,
         LORE_ERR_UNSUPPORTED, "is DoRA's"},
        {UP ".lora_A.weight", UP ".lora_B.weight", "model.layers.0.mlp.fc1.lora_A.weight", NULL,
         LORE_ERR_UNSUPPORTED, "'model.layers.0.mlp.fc1.lora_A.weight' has a name that is not"},
        {"\\u001b[2J.lora_A.weight", NULL, NULL, NULL, LORE_ERR_UNSUPPORTED, "not understood"}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        tensor_file file;
        tensors_begin(&file);
        put_up(&file, CASES[i].a, CASES[i].b);
        put_up(&file, CASES[i].more_a, CASES[i].more_b);
        refuse_file(&file, NULL, CASES[i].status, CASES[i].words);
    }
    tensor_file empty;
    tensors_begin(&empty);
    refuse_file(&empty, NULL, LORE_ERR_CORRUPT, "holds no adapter");
}

TEST(configurations_are_held_to)
{
    static const struct {
        const char *config;
        lore_status status;
        const char *words;
    } CASES[] = {
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 4, \"target_modules\": "
         "[\"up_proj\"]}",
         LORE_ERR_CORRUPT, "has rank 2, adapter_config.json says 4"},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4, \"target_modules\": "
         "[\"q_proj\"]}",
         LORE_ERR_CORRUPT, "belongs to a module that adapter_config.json does not mean"},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4, \"target_modules\": "
         "[\"up_proj\"]}",
         LORE_ERR_CORRUPT, "changes nothing of 'model.layers.1.mlp.up_proj'"},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4, \"use_dora\": true, "
         "\"target_modules\": [\"up_proj\"]}",
         LORE_ERR_UNSUPPORTED, "DoRA is not supported"},
        {"{\"r\": 2}", LORE_ERR_CORRUPT, "peft_type"},
        {"[]", LORE_ERR_CORRUPT, "adapter_config.json"},
        {"{\"fine_tune_type\": \"dora\", \"lora_parameters\": {\"scale\": 1}}",
         LORE_ERR_UNSUPPORTED, "fine_tune_type 'dora' is not supported"},
        {"{\"fine_tune_type\": \"lora\", \"lora_parameters\": {\"rank\": 2}}", LORE_ERR_CORRUPT,
         "lora_parameters.scale is required"},
        {"{\"lora_parameters\": {\"scale\": -1}}", LORE_ERR_CORRUPT, "lora_parameters.scale"},
        {"{\"lora_parameters\": {\"scale\": \"1\"}}", LORE_ERR_CORRUPT, "lora_parameters.scale"}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        tensor_file file;
        tensors_begin(&file);
        put_up(&file, UP ".lora_A.weight", UP ".lora_B.weight");
        refuse_file(&file, CASES[i].config, CASES[i].status, CASES[i].words);
    }
}

/* Ranks of parts that are joined add up; scales must be one. */
TEST(joined_parts_have_one_scale)
{
    char from[512], to[512];
    lore_error err = {0};
    lore_convert_result result;
    const lore_decoder_config c = config_of("phi3");
    const lore_convert_options options = {0};
    path_of(from, "joined");
    path_of(to, "joined-out");
    for (int is_same = 1; is_same >= 0; is_same--) {
        const float alphas[] = {4, is_same ? 8 : 6};
        tensor_file file;
        tensors_begin(&file);
        adapter_tensor(&file, "layers.1.mlp.w1.lora_a.weight", "F32", 2, c.width);
        adapter_tensor(&file, "layers.1.mlp.w1.lora_b.weight", "F32", c.ffn, 2);
        adapter_tensor(&file, "layers.1.mlp.w3.lora_a.weight", "F16", 4, c.width);
        adapter_tensor(&file, "layers.1.mlp.w3.lora_b.weight", "F32", c.ffn, 4);
        tensors_add(&file, "layers.1.mlp.w1.alpha", "F32", "", &alphas[0], 4);
        tensors_add(&file, "layers.1.mlp.w3.alpha", "F32", "", &alphas[1], 4);
        tensors_write(&file, from, "a.safetensors");
        lore_status status = lore_adapter_convert(LORE_FAMILIES "/phi3", from, to, &CONVERT_LIMITS,
                                                  &options, &result, &err);
        if (!is_same) {
            CHECK_INT(status, LORE_ERR_UNSUPPORTED);
            CHECK(strstr(err.message, "has another scale") != NULL && !exists(to));
            continue;
        }
        CHECK_OK(status, &err);
        lore_adapter *adapter = read_back(to, &c);
        const lore_adapter_linear *linear = lore_adapter_at(adapter, 1, LORE_LINEAR_GATE_UP);
        CHECK_INT(linear->rank, 6);
        CHECK_NEAR(linear->parts[0].scale, 2, 0);
        CHECK_NEAR(adapter_value(adapter, linear->parts[0].b, 2), 0, 0); /* gate knows no up */
        CHECK_NEAR(adapter_value(adapter, linear->parts[0].b, c.ffn * 6 + 1), 0, 0);
        lore_adapter_close(adapter);
        lore_folder_abort(to);
    }
}

TEST(files_are_found_or_named)
{
    char from[512], path[640], to[512];
    lore_error err = {0};
    lore_convert_result result;
    const lore_convert_options options = {.alpha = 2};
    tensor_file file;
    path_of(from, "files");
    path_of(to, "files-out");
    refuse_from("/nowhere", 2, LORE_ERR_NOT_FOUND, "there is no adapter '/nowhere'");
    write_file(from, "adapter_model.bin", LORE_STR("pickle"));
    refuse_from(from, 2, LORE_ERR_NOT_FOUND, "holds no safetensors file");
    tensors_begin(&file);
    put_up(&file, UP ".lora_A.weight", UP ".lora_B.weight");
    tensors_write(&file, from, "0000100_adapters.safetensors");
    refuse_from(from, 0, LORE_ERR_CORRUPT, "says no scale");
    tensors_begin(&file);
    put_up(&file, UP ".lora_A.weight", UP ".lora_B.weight");
    tensors_write(&file, from, "0000200_adapters.safetensors");
    refuse_from(from, 2, LORE_ERR_NOT_FOUND, "several safetensors files");
    snprintf(path, sizeof path, "%s/0000100_adapters.safetensors", from);
    CHECK_OK(lore_adapter_convert(LORE_FAMILIES "/llama", path, to, &CONVERT_LIMITS, &options,
                                  &result, &err),
             &err);
    CHECK_FAILS(lore_adapter_convert(LORE_FAMILIES "/llama", path, to, &CONVERT_LIMITS, &options,
                                     &result, &err),
                LORE_ERR_INVALID, &err, "exists");
    CHECK_FAILS(
        lore_adapter_convert("/nowhere", path, to, &CONVERT_LIMITS, &options, &result, &err),
        LORE_ERR_NOT_FOUND, &err, "/nowhere");
    /* Every beginning of the file is too short. */
    lore_buf text;
    lore_buf_init(&text, 0);
    CHECK_OK(lore_file_read(path, 1 << 20, &text, &err), &err);
    for (size_t length = 0; length < text.len; length += 1 + length / 7) {
        write_file(from, "0000100_adapters.safetensors", (lore_str){text.ptr, length});
        refuse_from(path, 2, LORE_ERR_CORRUPT, "0000100_adapters.safetensors");
    }
    lore_buf_destroy(&text);
    lore_folder_abort(to);
}

static bool give_up(void *self, int64_t done, int64_t total)
{
    int64_t *last = self;
    CHECK(done >= *last && done <= total);
    *last = done;
    return done * 2 < total;
}

static lore_status convert_and_remove(void *from)
{
    char to[512], beside[512];
    lore_error err = {0};
    lore_convert_result result;
    const lore_convert_options options = {.alpha = 2};
    path_of(to, "swept");
    path_of(beside, "swept.tmp");
    lore_status status = lore_adapter_convert(LORE_FAMILIES "/llama", from, to, &CONVERT_LIMITS,
                                              &options, &result, &err);
    CHECK(!exists(beside) && exists(to) == (status == LORE_OK));
    lore_folder_abort(to);
    return status;
}

TEST(failures_leave_nothing)
{
    char from[512], to[512], beside[512];
    lore_error err = {0};
    lore_convert_result result;
    int64_t last = 0;
    tensor_file file;
    path_of(from, "small");
    path_of(to, "given-up");
    path_of(beside, "given-up.tmp");
    tensors_begin(&file);
    put_up(&file, UP ".lora_A.weight", UP ".lora_B.weight");
    tensors_write(&file, from, "a.safetensors");
    const lore_convert_options options = {.alpha = 2, .progress = give_up, .self = &last};
    CHECK_FAILS(lore_adapter_convert(LORE_FAMILIES "/llama", from, to, &CONVERT_LIMITS, &options,
                                     &result, &err),
                LORE_ERR_CANCELLED, &err, "interrupted");
    CHECK(last > 0 && !exists(to) && !exists(beside));
    for (int op = LORE_FILE_OP_WRITE; op <= LORE_FILE_OP_RENAME; op++) {
        int64_t n = 1;
        lore_status status = LORE_ERR_IO;
        for (; status != LORE_OK; n++) {
            lore_file_fail_at((lore_file_op)op, n);
            status = convert_and_remove(from);
            lore_file_fail_at((lore_file_op)op, 0);
            CHECK(status == LORE_OK || status == LORE_ERR_IO);
        }
        CHECK(n > 3);
    }
    check_alloc_sweep(convert_and_remove, from);
}

CHECK_MAIN(all_forms_for_all_families, ranks_scales_and_types, copies_of_the_base_go_along,
           damaged_tensors_are_refused, tensors_that_do_not_belong_are_refused,
           configurations_are_held_to, joined_parts_have_one_scale, files_are_found_or_named,
           failures_leave_nothing)
