/* An adapter folder becomes the matrices that its base's products need, in true ranks; a folder
 * that does not fit its base, or is damaged, is refused by the name of what is wrong, and leaves
 * nothing behind. (Values against PEFT: tests/golden/golden_adapters.c.) */
#include "tests/unit/adapter_fixture.h"

#include <unistd.h>

#define SIZES                                                                             \
    "\"hidden_size\": 8, \"num_hidden_layers\": 2, "                                      \
    "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"intermediate_size\": 12, " \
    "\"vocab_size\": 20, \"max_position_embeddings\": 64"
#define CONFIG(more) \
    "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4, \"target_modules\": " more "}"
#define Q "model.layers.0.self_attn.q_proj"
#define V "model.layers.1.self_attn.v_proj"
#define A ".lora_A.weight"
#define B ".lora_B.weight"
#define WRAPPED "base_model.model."

static lore_decoder_config base_of(const char *fields)
{
    char json[1024];
    lore_error err = {0};
    lore_decoder_config config;
    snprintf(json, sizeof json, "{" SIZES ", %s}", fields);
    CHECK_OK(lore_decoder_config_parse(lore_str_from(json), "config.json", &config, &err), &err);
    return config;
}

static const char *folder_of(const char *name)
{
    static char folder[256];
    snprintf(folder, sizeof folder, "%s/%s", check_temp_dir(), name);
    return folder;
}

static lore_adapter *read_as(const char *folder, const lore_decoder_config *config,
                             lore_dtype dtype)
{
    lore_error err = {0};
    lore_adapter *adapter = NULL;
    const lore_adapter_base base = {config, NULL};
    CHECK_OK(lore_adapter_read(folder, &base, dtype, &ADAPTER_LIMITS, &adapter, &err), &err);
    return adapter;
}

/* rows x rank values of B, or of A from a part's first row on, are those of this tensor. */
static void holds(const lore_adapter *adapter, size_t start, int32_t first, const char *tensor,
                  int32_t count)
{
    float wanted[256];
    CHECK(count <= 256 && start % LORE_ADAPTER_ALIGN == 0);
    adapter_fill(tensor, wanted, count);
    for (int32_t i = 0; i < count; i++) {
        CHECK_NEAR(adapter_value(adapter, start, first + i), wanted[i], 0);
    }
}

TEST(matrices_stand_together)
{
    const lore_decoder_config base = base_of("\"model_type\": \"llama\"");
    const char *folder = folder_of("together");
    tensor_file file;
    tensors_begin(&file);
    adapter_pair(&file, V, "F16", 4, 8, 3);
    adapter_pair(&file, "model.layers.1.self_attn.k_proj", "BF16", 4, 8, 1);
    adapter_pair(&file, "model.layers.1.self_attn.q_proj", "F32", 8, 8, 2);
    adapter_pair(&file, "lm_head", "F32", 20, 8, 2);
    adapter_write(folder,
                  CONFIG("[\"q_proj\", \"v_proj\", \"k_proj\", \"lm_head\"], \"layers_pattern\": "
                         "\"layers\", \"layers_to_transform\": [1], \"exclude_modules\": "
                         "[\"0.self_attn.q_proj\"], \"rank_pattern\": {\"v_proj\": 3, \"k_proj\": "
                         "1}"),
                  &file);
    /* lm_head is outside of the layers, but named whole. */
    for (int i = 0; i < 2; i++) {
        lore_adapter *adapter = read_as(folder, &base, i == 0 ? LORE_F32 : LORE_BF16);
        const lore_adapter_linear *qkv = lore_adapter_at(adapter, 1, LORE_LINEAR_QKV);
        const lore_adapter_linear *head = lore_adapter_at(adapter, 0, LORE_LINEAR_HEAD);
        lore_adapter_info info = lore_adapter_get_info(adapter);
        CHECK_INT(info.modules, 4);
        CHECK_INT(info.rank_max, 3);
        CHECK(info.size_bytes >= (size_t)(6 * 8 + 16 + 4 + 12 + 2 * 28) * (i == 0 ? 4 : 2));
        CHECK_INT(qkv->rank, 6);
        CHECK_INT(qkv->cols, 8);
        CHECK_INT(qkv->part_count, 3);
        static const struct {
            int32_t rank, rank_start, rows, row_start;
            const char *a, *b;
        } PARTS[] = {{2, 0, 8, 0, WRAPPED "model.layers.1.self_attn.q_proj" A,
                      WRAPPED "model.layers.1.self_attn.q_proj" B},
                     {1, 2, 4, 8, WRAPPED "model.layers.1.self_attn.k_proj" A,
                      WRAPPED "model.layers.1.self_attn.k_proj" B},
                     {3, 3, 4, 12, WRAPPED V A, WRAPPED V B}};
        for (int k = 0; k < 3; k++) {
            const lore_adapter_part *part = &qkv->parts[k];
            CHECK_INT(part->rank, PARTS[k].rank);
            CHECK_INT(part->rank_start, PARTS[k].rank_start);
            CHECK_INT(part->rows, PARTS[k].rows);
            CHECK_INT(part->row_start, PARTS[k].row_start);
            CHECK_NEAR(part->scale, 4.0 / PARTS[k].rank, 1e-6);
            holds(adapter, qkv->a, part->rank_start * 8, PARTS[k].a, part->rank * 8);
            holds(adapter, part->b, 0, PARTS[k].b, part->rows * part->rank);
        }
        CHECK_INT(head->rank, 2);
        holds(adapter, head->a, 0, WRAPPED "lm_head" A, 16);
        holds(adapter, head->parts[0].b, 0, WRAPPED "lm_head" B, 40);
        CHECK_INT(lore_adapter_at(adapter, 0, LORE_LINEAR_QKV)->part_count, 0);
        CHECK_INT(lore_adapter_at(adapter, 1, LORE_LINEAR_DOWN)->rank, 0);
        lore_adapter_close(adapter);
    }
}

TEST(early_names_and_fused_layers)
{
    const lore_decoder_config llama = base_of("\"model_type\": \"llama\"");
    const lore_decoder_config phi3 = base_of("\"model_type\": \"phi3\"");
    const char *folder = folder_of("early");
    tensor_file file;
    tensors_begin(&file);
    adapter_tensor(&file, WRAPPED "model.layers.1.mlp.up_proj.lora_A.default.weight", "F32", 2, 8);
    adapter_tensor(&file, WRAPPED "model.layers.1.mlp.up_proj.lora_B.default.weight", "F32", 12, 2);
    adapter_write(folder, CONFIG("[\"model.layers.1.mlp.up_proj\"]"), &file);
    lore_adapter *adapter = read_as(folder, &llama, LORE_F32);
    const lore_adapter_linear *linear = lore_adapter_at(adapter, 1, LORE_LINEAR_GATE_UP);
    CHECK_INT(linear->part_count, 1);
    CHECK_INT(linear->parts[0].row_start, 12);
    CHECK_INT(linear->parts[0].rank_start, 0);
    lore_adapter_close(adapter);

    folder = folder_of("fused");
    tensors_begin(&file);
    adapter_pair(&file, "model.layers.0.self_attn.qkv_proj", "F32", 16, 8, 2);
    adapter_pair(&file, "model.layers.1.self_attn.qkv_proj", "F32", 16, 8, 2);
    adapter_write(folder, CONFIG("[\"qkv_proj\", \"q_proj\"]"), &file);
    adapter = read_as(folder, &phi3, LORE_F32);
    linear = lore_adapter_at(adapter, 1, LORE_LINEAR_QKV);
    CHECK_INT(linear->part_count, 1);
    CHECK_INT(linear->parts[0].rows, 16);
    lore_adapter_close(adapter);
}

/* ---- refusals ---- */

static lore_status try_read(const char *folder, const lore_weights *weights,
                            const lore_limits *limits, lore_error *err)
{
    static lore_decoder_config llama; /* read once: its memory is none of a sweep's */
    if (llama.family == NULL) {
        llama = base_of("\"model_type\": \"llama\"");
    }
    const lore_adapter_base base = {&llama, weights};
    lore_adapter *adapter = NULL;
    lore_status status = lore_adapter_read(folder, &base, LORE_BF16, limits, &adapter, err);
    CHECK((status == LORE_OK) == (adapter != NULL));
    lore_adapter_close(adapter);
    return status;
}

/* A right pair of Q with one more tensor, or with other halves. */
static void refused(const char *config, const char *a_shape, const char *b_shape, const char *more,
                    lore_status status, const char *text)
{
    static const float zeros[64] = {0};
    const char *folder = folder_of("refused");
    lore_error err = {0};
    tensor_file file;
    int rows = 0, cols = 0;
    tensors_begin(&file);
    if (a_shape != NULL) {
        CHECK(sscanf(a_shape, "%d, %d", &rows, &cols) == 2);
        tensors_add(&file, WRAPPED Q A, "F32", a_shape, zeros, (size_t)(rows * cols) * 4);
    }
    if (b_shape != NULL) {
        CHECK(sscanf(b_shape, "%d, %d", &rows, &cols) == 2);
        tensors_add(&file, WRAPPED Q B, "F32", b_shape, zeros, (size_t)(rows * cols) * 4);
    }
    if (more != NULL) {
        tensors_add(&file, more, "F32", "2, 8", zeros, 64);
    }
    adapter_write(folder, config, &file);
    CHECK_FAILS(try_read(folder, NULL, &ADAPTER_LIMITS, &err), status, &err, text);
    CHECK(try_read(folder, NULL, &ADAPTER_LIMITS, NULL) == status);
    CHECK(status == LORE_OK || strstr(err.message, folder) != NULL);
}

#define ONE CONFIG("[\"" Q "\"]")
#define MORE(tensor, status, text) refused(ONE, "2, 8", "8, 2", tensor, status, text)

TEST(what_does_not_fit_is_refused)
{
    MORE(NULL, LORE_OK, "");
    refused(CONFIG("[\"gate_up_proj\"]"), "2, 8", "8, 2", NULL, LORE_ERR_CORRUPT,
            "target_modules means no linear layer of the base model (llama of 2 layers)");
    refused(CONFIG("[\"q_proj\"]"), "2, 8", "8, 2", NULL, LORE_ERR_CORRUPT,
            "lacks tensor 'base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight'");
    refused(ONE, "2, 8", NULL, NULL, LORE_ERR_CORRUPT, "lacks tensor '" WRAPPED Q B "'");
    refused(ONE, NULL, "8, 2", NULL, LORE_ERR_CORRUPT, "lacks tensor '" WRAPPED Q A "'");
    refused(ONE, NULL, NULL, NULL, LORE_ERR_CORRUPT, "lacks tensor");
    refused(ONE, "3, 8", "8, 2", NULL, LORE_ERR_CORRUPT, "'" WRAPPED Q A "' must be [2, 8], is [3");
    refused(ONE, "2, 7", "8, 2", NULL, LORE_ERR_CORRUPT, "must be [2, 8], is [2, 7]");
    refused(ONE, "2, 8", "2, 8", NULL, LORE_ERR_CORRUPT, "must be [8, 2], is [2, 8]");
    refused(CONFIG("[\"embed_tokens\"]"), "2, 8", "8, 2", NULL, LORE_ERR_UNSUPPORTED,
            "embedding table");
    refused(CONFIG("[\"" Q "\"], \"use_dora\": true"), "2, 8", "8, 2", NULL, LORE_ERR_UNSUPPORTED,
            "adapter_config.json': use_dora");
    MORE(WRAPPED V A, LORE_ERR_CORRUPT, "a module that adapter_config.json does not mean");
    MORE(WRAPPED "model.layers.2.self_attn.q_proj" A, LORE_ERR_CORRUPT, "no linear layer");
    MORE(WRAPPED "model.layers.00.self_attn.q_proj" A, LORE_ERR_CORRUPT, "no linear layer");
    MORE(WRAPPED "model.layers.0.self_attn.qkv_proj" A, LORE_ERR_CORRUPT, "no linear layer");
    MORE(WRAPPED "model.layers.0" A, LORE_ERR_CORRUPT, "no linear layer");
    MORE(WRAPPED Q ".lora_A.default.weight", LORE_ERR_CORRUPT, "under two names");
    MORE(WRAPPED Q ".lora_A.other.weight", LORE_ERR_UNSUPPORTED, "neither lora_A.weight");
    MORE(WRAPPED Q ".lora_magnitude_vector", LORE_ERR_UNSUPPORTED, "is DoRA's");
    MORE(WRAPPED Q ".lora_B.bias", LORE_ERR_UNSUPPORTED, "is a bias");
    MORE(WRAPPED "model.embed_tokens.lora_embedding_A", LORE_ERR_UNSUPPORTED, "embedding table");
    MORE(WRAPPED "lm_head.modules_to_save.weight", LORE_ERR_UNSUPPORTED, "modules_to_save");
    MORE(WRAPPED "lm_head.weight", LORE_ERR_UNSUPPORTED, "no copy of the base's weights");
    MORE(Q A, LORE_ERR_UNSUPPORTED, "neither lora_A.weight");
}

TEST(values_are_rounded)
{
    static const float values[16] = {1.00390625f, 1.01171875f, -1.0039063f, 1e-40f, -0.f, 3.38e38f};
    static const float zeros[16] = {0};
    const lore_decoder_config base = base_of("\"model_type\": \"llama\"");
    const char *folder = folder_of("rounded");
    tensor_file file;
    tensors_begin(&file);
    tensors_add(&file, WRAPPED Q A, "F32", "2, 8", values, sizeof values);
    tensors_add(&file, WRAPPED Q B, "F32", "8, 2", zeros, sizeof zeros);
    adapter_write(folder, ONE, &file);
    lore_adapter *adapter = read_as(folder, &base, LORE_BF16);
    const lore_adapter_linear *linear = lore_adapter_at(adapter, 0, LORE_LINEAR_QKV);
    for (int32_t i = 0; i < 16; i++) {
        uint16_t half = 0;
        memcpy(&half, adapter->data + linear->a + (size_t)i * sizeof half, sizeof half);
        CHECK_INT(half, lore_f32_to_bf16(values[i]));
    }
    lore_adapter_close(adapter);
}

TEST(values_must_be_numbers)
{
    const struct {
        float value;
        lore_status status;
    } values[] = {{NAN, LORE_ERR_CORRUPT},
                  {-INFINITY, LORE_ERR_CORRUPT},
                  {3.38e38f, LORE_OK},
                  {3.4028234e38f, LORE_ERR_CORRUPT}}; /* infinite in bf16 */
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        for (int half = 0; half < 2; half++) {
            float numbers[2][16] = {{0}};
            const char *folder = folder_of("values");
            lore_error err = {0};
            tensor_file file;
            numbers[half][15] = values[i].value;
            tensors_begin(&file);
            tensors_add(&file, WRAPPED Q A, "F32", "2, 8", numbers[0], 64);
            tensors_add(&file, WRAPPED Q B, "F32", "8, 2", numbers[1], 64);
            adapter_write(folder, ONE, &file);
            lore_status status = try_read(folder, NULL, &ADAPTER_LIMITS, &err);
            CHECK_INT(status, values[i].status);
            CHECK(status == LORE_OK ||
                  strstr(err.message, half == 0 ? WRAPPED Q A : WRAPPED Q B) != NULL);
        }
    }
    static const uint16_t infinite[16] = {[3] = 0x7f80}, zeros[16] = {0};
    const char *folder = folder_of("halves");
    lore_error err = {0};
    tensor_file file;
    tensors_begin(&file);
    tensors_add(&file, WRAPPED Q A, "BF16", "2, 8", infinite, 32);
    tensors_add(&file, WRAPPED Q B, "F16", "8, 2", zeros, 32);
    adapter_write(folder, ONE, &file);
    CHECK_FAILS(try_read(folder, NULL, &ADAPTER_LIMITS, &err), LORE_ERR_CORRUPT, &err,
                WRAPPED Q A "' holds a value that is no finite number");
    tensors_begin(&file);
    tensors_add(&file, WRAPPED Q A, "I8", "2, 8", zeros, 16);
    adapter_write(folder, ONE, &file);
    CHECK_FAILS(try_read(folder, NULL, &ADAPTER_LIMITS, &err), LORE_ERR_CORRUPT, &err,
                "must be F32, F16 or BF16");
}

/* PEFT writes the base's head beside an adapter of the head. */
TEST(copies_of_the_base_are_passed_over)
{
    static const char COPY[] = WRAPPED "lm_head.base_layer.weight";
    lore_error err = {0};
    lore_weights *weights = NULL;
    tensor_file file;
    float values[160];
    tensors_begin(&file);
    adapter_tensor(&file, "lm_head.weight", "BF16", 20, 8);
    tensors_write(&file, folder_of("base"), "model.safetensors");
    CHECK_OK(lore_weights_open(folder_of("base"), &LIMITS, &weights, &err), &err);
    for (int is_other = 0; is_other < 2; is_other++) {
        adapter_fill("lm_head.weight", values, 160);
        values[159] += is_other ? 1.f / 64 : 0;
        tensors_begin(&file);
        adapter_pair(&file, "lm_head", "F32", 20, 8, 2);
        tensors_add(&file, COPY, "F32", "20, 8", values, sizeof values);
        const char *folder = folder_of("copy");
        adapter_write(folder, CONFIG("[\"lm_head\"]"), &file);
        lore_status status = try_read(folder, weights, &ADAPTER_LIMITS, &err);
        CHECK_INT(status, is_other ? LORE_ERR_UNSUPPORTED : LORE_OK);
        CHECK_FAILS(try_read(folder, NULL, &ADAPTER_LIMITS, &err), LORE_ERR_UNSUPPORTED, &err,
                    COPY);
    }
    lore_weights_close(weights);
}

static const char *right_folder(void)
{
    tensor_file file;
    const char *folder = folder_of("right");
    tensors_begin(&file);
    adapter_pair(&file, Q, "F32", 8, 8, 2);
    adapter_pair(&file, V, "BF16", 4, 8, 3);
    adapter_write(folder,
                  CONFIG("\".*(?:0.self_attn.q|1.self_attn.v)_proj\", \"rank_pattern\": "
                         "{\"v_proj\": 3, \"(k|q)_proj\": 2}"),
                  &file);
    return folder;
}

TEST(damaged_files_are_refused)
{
    char path[512];
    lore_error err = {0};
    lore_buf text;
    const char *folder = right_folder();
    lore_buf_init(&text, 0);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    CHECK_OK(lore_file_read(path, 1 << 20, &text, &err), &err);
    CHECK_OK(try_read(folder, NULL, &ADAPTER_LIMITS, &err), &err);
    for (size_t size = 0; size < text.len; size += 7) {
        CHECK_OK(lore_file_replace(path, lore_str_slice(lore_buf_str(&text), 0, size), &err), &err);
        CHECK_FAILS(try_read(folder, NULL, &ADAPTER_LIMITS, &err), LORE_ERR_CORRUPT, &err,
                    "adapter_model.safetensors");
    }
    for (size_t at = 0; at < text.len; at++) { /* whatever a byte becomes, nothing breaks */
        text.ptr[at] ^= 0x14;
        CHECK_OK(lore_file_replace(path, lore_buf_str(&text), &err), &err);
        (void)try_read(folder, NULL, &ADAPTER_LIMITS, &err);
        text.ptr[at] ^= 0x14;
    }
    CHECK(unlink(path) == 0);
    CHECK_FAILS(try_read(folder, NULL, &ADAPTER_LIMITS, &err), LORE_ERR_NOT_FOUND, &err,
                "has no adapter_model.safetensors");
    write_file(folder, "adapter_model.bin", LORE_STR("x"));
    CHECK_FAILS(try_read(folder, NULL, &ADAPTER_LIMITS, &err), LORE_ERR_NOT_FOUND, &err,
                "only adapter_model.bin");
    write_file(folder, "adapter_config.json", LORE_STR("{\"peft_type\": "));
    CHECK_FAILS(try_read(folder, NULL, &ADAPTER_LIMITS, &err), LORE_ERR_CORRUPT, &err,
                "adapter_config.json");
    CHECK_FAILS(try_read("/nowhere", NULL, &ADAPTER_LIMITS, &err), LORE_ERR_NOT_FOUND, &err,
                "adapter_config.json");
    lore_buf_destroy(&text);
}

TEST(limits_are_named)
{
    lore_error err = {0};
    lore_limits limits = ADAPTER_LIMITS;
    const char *folder = right_folder();
    limits.adapter_rank_max = 2;
    CHECK_FAILS(try_read(folder, NULL, &limits, &err), LORE_ERR_CORRUPT, &err,
                "rank_pattern.v_proj");
    limits = ADAPTER_LIMITS;
    limits.adapter_file_bytes_max = 500;
    CHECK_FAILS(try_read(folder, NULL, &limits, &err), LORE_ERR_LIMIT, &err,
                "adapter_model.safetensors");
    limits = ADAPTER_LIMITS;
    limits.model_header_bytes_max = 100;
    CHECK_FAILS(try_read(folder, NULL, &limits, &err), LORE_ERR_LIMIT, &err,
                "model_header_bytes_max");
    limits = ADAPTER_LIMITS;
    limits.model_json_bytes_max = 10;
    CHECK_FAILS(try_read(folder, NULL, &limits, &err), LORE_ERR_LIMIT, &err, "adapter_config.json");
}

static lore_status read_once(void *self)
{
    lore_error err = {0};
    return try_read(self, NULL, &ADAPTER_LIMITS, &err);
}

TEST(memory_runs_out_anywhere)
{
    char folder[256];
    snprintf(folder, sizeof folder, "%s", right_folder());
    check_alloc_sweep(read_once, folder);
}

CHECK_MAIN(matrices_stand_together, early_names_and_fused_layers, what_does_not_fit_is_refused,
           values_are_rounded, values_must_be_numbers, copies_of_the_base_are_passed_over,
           damaged_files_are_refused, limits_are_named, memory_runs_out_anywhere)
