/* A merged folder holds the base's numbers with scale * B A added, rounded once, in as many files,
 * whatever form the base has; our decoder says with it what it says with sums made here, and with
 * the base and the adapter in a slot. It appears whole or not at all. Covers merge_plan.c. (Changes
 * against PEFT: tests/golden/golden_adapters.c.)
 */
#include "tests/unit/adapter_fixture.h"

#include "models/config_edit_int.h"
#include "models/decoder.h"
#include "models/merge_lora.h"
#include "models/quantize_int.h"
#include "models/weights_int.h"

#include <math.h>

#define SCALE 1.5

enum { PROMPT = 24, VALUES_MAX = 1 << 17, RANK_MAX = 128, VOCAB_MAX = 512 };

static const lore_limits MERGE_LIMITS = {.model_file_bytes_max = 1 << 30,
                                         .model_header_bytes_max = 1 << 20,
                                         .model_json_bytes_max = 64 << 20,
                                         .adapter_file_bytes_max = 1 << 26,
                                         .adapter_rank_max = 512,
                                         .batch_sequences_max = 8,
                                         .step_tokens_max = 512,
                                         .kv_bytes_max = 16 << 20};

static const lore_dtype TYPES[] = {LORE_F32, LORE_F16, LORE_BF16};

static void path_of(char path[512], const char *name)
{
    snprintf(path, 512, "%s/%s", check_temp_dir(), name);
}

static void family_of(char path[512], const char *name)
{
    snprintf(path, 512, LORE_FAMILIES "/%s", name);
}

static bool exists(const char *folder, const char *name)
{
    char path[640];
    snprintf(path, sizeof path, "%s%s%s", folder, name[0] != '\0' ? "/" : "", name);
    return lore_file_exists(path);
}

static void remove_all(const char *folder)
{
    lore_folder_abort(folder);
    CHECK(!lore_file_exists(folder));
}

static lore_weights *weights_of(const char *folder)
{
    lore_error err = {0};
    lore_weights *w = NULL;
    CHECK_OK(lore_weights_open(folder, &MERGE_LIMITS, &w, &err), &err);
    return w;
}

/* ---- what should come out ---- */

/* "X" of a linear layer's "X.weight", in whatever form it is stored. */
static bool is_linear(lore_str name, char module[256])
{
    static const char *const ENDS[] = {".weight", ".qweight", ".weight_packed"};
    for (size_t i = 0; i < 3; i++) {
        const lore_str end = lore_str_from(ENDS[i]);
        if (lore_str_ends(name, end)) {
            const lore_str x = lore_str_slice(name, 0, name.len - end.len);
            snprintf(module, 256, LORE_STR_FMT, LORE_STR_ARG(x));
            return lore_str_ends(x, LORE_STR("_proj")) || lore_str_equal(x, LORE_STR("lm_head"));
        }
    }
    return false;
}

/* Rows and columns of "X.weight" as the base means them. */
static void shape_of(const lore_weights *w, const char *module, int32_t *rows, int32_t *cols)
{
    lore_quantized_set set;
    lore_tensor *parts[LORE_PARTS_MAX];
    int32_t count = 0;
    char name[300];
    if (lore_weights_find_set(w, lore_str_from(module), &set, parts, &count)) {
        CHECK(lore_quantized_shape(&w->quantized, &set, rows, cols));
        return;
    }
    snprintf(name, sizeof name, "%s.weight", module);
    const lore_tensor *t = lore_weights_find(w, lore_str_from(name));
    CHECK(t != NULL && t->rank == 2);
    *rows = (int32_t)t->shape[0];
    *cols = (int32_t)t->shape[1];
}

/* An adapter of every linear layer, and of the head. */
static void write_adapter(const char *folder, const lore_weights *base, int32_t rank, double scale)
{
    char config[512], module[256];
    int32_t rows = 0, cols = 0;
    tensor_file file;
    bool has_head = false;
    tensors_begin(&file);
    for (int32_t i = 0; i < base->tensor_count; i++) {
        if (is_linear(base->tensors[i].name, module)) {
            shape_of(base, module, &rows, &cols);
            adapter_pair(&file, module, "F32", rows, cols, rank);
            has_head = has_head || strcmp(module, "lm_head") == 0;
        }
    }
    if (!has_head) {
        shape_of(base, "model.embed_tokens", &rows, &cols);
        adapter_pair(&file, "lm_head", "F32", rows, cols, rank);
    }
    snprintf(config, sizeof config,
             "{\"peft_type\": \"LORA\", \"r\": %d, \"lora_alpha\": %.9g, "
             "\"target_modules\": \".*_proj|lm_head\"}",
             rank, scale * rank);
    adapter_write(folder, config, &file);
}

/* x += scale * B A, of the numbers that adapter_pair gave. */
static void add_change(double *x, const char *module, int32_t rows, int32_t cols, int32_t rank)
{
    static float a[VALUES_MAX], b[VALUES_MAX];
    char name[300];
    CHECK(rank * cols <= VALUES_MAX && rank * rows <= VALUES_MAX);
    snprintf(name, sizeof name, "base_model.model.%s.lora_A.weight", module);
    adapter_fill(name, a, rank * cols);
    snprintf(name, sizeof name, "base_model.model.%s.lora_B.weight", module);
    adapter_fill(name, b, rank * rows);
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t k = 0; k < cols; k++) {
            double sum = 0;
            for (int32_t r = 0; r < rank; r++) {
                sum += (double)b[i * rank + r] * (double)a[r * cols + k];
            }
            x[i * cols + k] += SCALE * sum;
        }
    }
}

/* The numbers of a plain tensor, or of a matrix in codes; false: it belongs to one. */
static bool read_tensor(lore_weights *w, const lore_tensor *t, double *x, int32_t *count)
{
    char module[256], name[300];
    lore_error err = {0};
    lore_matrix m;
    static float row[VALUES_MAX];
    bool is_codes = false;
    const lore_str set = lore_weights_module_of(w, t, &is_codes);
    if ((set.len > 0 && !is_codes) || lore_weights_is_scale(w, t->name)) {
        return false;
    }
    if (set.len == 0 && t->type->dtype != LORE_I8) {
        *count = (int32_t)(t->size_bytes / t->type->size_bytes);
        CHECK(*count <= VALUES_MAX && t->type->is_usable);
        for (int32_t i = 0; i < *count; i++) {
            float value = 0;
            uint16_t half = 0;
            const size_t size = t->type->size_bytes;
            memcpy(size == 4 ? (void *)&value : &half, t->data + (size_t)i * size, size);
            x[i] = (double)(size == 4                    ? value
                            : t->type->dtype == LORE_F16 ? lore_f16_to_f32(half)
                                                         : lore_bf16_to_f32(half));
        }
        return true;
    }
    if (set.len > 0) {
        snprintf(module, sizeof module, LORE_STR_FMT, LORE_STR_ARG(set));
    } else {
        CHECK(is_linear(t->name, module) || lore_str_starts(t->name, LORE_STR("model.embed")));
        snprintf(module, sizeof module, LORE_STR_FMT, (int)(t->name.len - 7), t->name.ptr);
    }
    int32_t rows = 0, cols = 0;
    shape_of(w, module, &rows, &cols);
    snprintf(name, sizeof name, "%s.weight", module);
    CHECK_OK(lore_weights_matrix(w, name, rows, cols, &m, &err), &err);
    *count = rows * cols;
    CHECK(*count <= VALUES_MAX);
    for (int32_t i = 0; i < rows; i++) {
        lore_matrix_read_row(&m, i, row);
        for (int32_t k = 0; k < cols; k++) {
            x[i * cols + k] = (double)row[k];
        }
    }
    lore_weights_release(w, &m);
    return true;
}

static double rounded(double x, lore_dtype to)
{
    return to == LORE_F32   ? (double)(float)x
           : to == LORE_F16 ? (double)lore_f16_to_f32(lore_f32_to_f16((float)x))
                            : (double)lore_bf16_to_f32(lore_f32_to_bf16((float)x));
}

/* One tensor of the merged folder is what it should be. Sums of f32 may fall to the other side of a
 * half way, which is rare, and one unit of the last place. */
static void check_tensor(lore_weights *out, const char *name, const double *x, int32_t count,
                         bool is_changed, const lore_dtype *to, lore_dtype was)
{
    static double found[VALUES_MAX];
    int32_t found_count = 0, others = 0;
    const lore_tensor *t = lore_weights_find(out, lore_str_from(name));
    if (t == NULL) {
        CHECK_STOP("%s is not there", name);
    }
    const lore_dtype type = to != NULL ? *to : was;
    const double unit = type == LORE_F32 ? 1e-6 : type == LORE_F16 ? 0x1p-10 : 0x1p-7;
    CHECK_INT(t->type->dtype, type);
    CHECK(read_tensor(out, t, found, &found_count));
    CHECK_INT(found_count, count);
    for (int32_t i = 0; i < count; i++) {
        const double wanted = rounded(x[i], type);
        others += found[i] != wanted;
        CHECK_NEAR(found[i], wanted, (is_changed ? unit : 0) * (1 + fabs(x[i])));
    }
    CHECK(!is_changed || type == LORE_F32 || others < 3 + count / 100);
    CHECK(is_changed || others == 0);
}

/* ---- merged folders ---- */

/* All tensors of the base are there with what belongs to them, and no others. sums: where not NULL,
 * receives them in f32. */
static void check_folder(const char *folder, lore_weights *base, int32_t rank, bool is_untied,
                         const lore_dtype *to, tensor_file *sums)
{
    static double x[VALUES_MAX];
    static float values[VALUES_MAX];
    char module[256], name[300], shape[64];
    int32_t tensors = 0, rows = 0, cols = 0, count = 0;
    lore_weights *out = weights_of(folder);
    for (int32_t i = 0; i < base->tensor_count + is_untied; i++) {
        const bool is_head = i == base->tensor_count;
        const lore_tensor *t = is_head
                                   ? lore_weights_find(base, LORE_STR("model.embed_tokens.weight"))
                                   : &base->tensors[i];
        if (!read_tensor(base, t, x, &count)) {
            continue;
        }
        bool is_changed = is_head || is_linear(t->name, module);
        if (is_head) {
            snprintf(module, sizeof module, "lm_head");
        }
        snprintf(name, sizeof name, LORE_STR_FMT, LORE_STR_ARG(t->name));
        snprintf(shape, sizeof shape, "%d", count);
        if (is_changed) {
            snprintf(name, sizeof name, "%s.weight", module);
            shape_of(base, is_head ? "model.embed_tokens" : module, &rows, &cols);
            add_change(x, module, rows, cols, rank);
            snprintf(shape, sizeof shape, "%d, %d", rows, cols);
        } else if (t->rank == 2) {
            snprintf(shape, sizeof shape, "%d, %d", (int)t->shape[0], (int)t->shape[1]);
        }
        check_tensor(out, name, x, count, is_changed, to, t->type->dtype);
        for (int32_t k = 0; k < count; k++) {
            values[k] = (float)x[k];
        }
        if (sums != NULL) {
            tensors_add(sums, name, "F32", shape, values, (size_t)count * sizeof *values);
        }
        tensors++;
    }
    CHECK_INT(out->tensor_count, tensors);
    lore_weights_close(out);
}

static lore_merge_result merge(const char *base, const char *adapter, const char *out,
                               const lore_dtype *to)
{
    lore_error err = {0};
    lore_merge_result result;
    const lore_merge_options options = {.to = to};
    CHECK_OK(lore_merge_lora(base, adapter, out, &MERGE_LIMITS, &options, &result, &err), &err);
    lore_weights *w = weights_of(out);
    CHECK_INT(lore_weights_bytes(w), result.bytes_after);
    CHECK_INT(w->shard_count, result.files);
    CHECK_INT(w->tensor_count, result.tensors);
    lore_weights_close(w);
    return result;
}

/* ---- what decoders say ---- */

/* adapter: a folder, or NULL. */
static void logits_with(const char *folder, const char *adapter, float logits[VOCAB_MAX])
{
    lore_error err = {0};
    lore_decoder *decoder = NULL;
    lore_adapter *opened = NULL;
    lore_adapter_placed *placed = NULL;
    int32_t ids[PROMPT], row_start[] = {0, PROMPT}, past[] = {0}, page_start[] = {0, 1},
                         pages[] = {0}, rows[] = {PROMPT - 1}, slot = 0, drawn = 0;
    float logprob = 0;
    const lore_sample sample = {.top_p = 1};
    const lore_decoder_options options = {
        .kv_dtype = LORE_F32, .page_count = 4, .adapter_slots = adapter != NULL};
    fixture f = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32);
    memset(logits, 0, VOCAB_MAX * sizeof *logits);
    CHECK_OK(lore_decoder_open(folder, f.backend, &MERGE_LIMITS, &options, &decoder, &err), &err);
    if (adapter != NULL) {
        CHECK_OK(lore_adapter_open(adapter, decoder, LORE_F32, &MERGE_LIMITS, &opened, &err), &err);
        CHECK_OK(lore_decoder_adapter_place(decoder, opened, &placed, &err), &err);
        lore_decoder_adapter_seat(decoder, 0, placed);
    }
    for (int32_t i = 0; i < PROMPT; i++) {
        ids[i] = 37 * i % 250;
    }
    CHECK(lore_decoder_get_info(decoder)->vocab <= VOCAB_MAX);
    const lore_step step = {
        .ids = ids,
        .batch = {1, PROMPT, row_start, past, page_start, pages, PROMPT, PROMPT},
        .adapters = adapter != NULL ? &slot : NULL,
        .logits_rows = rows,
        .samples = &sample,
        .logits_count = 1};
    CHECK_OK(lore_decoder_step(decoder, &step, &drawn, &logprob, logits, &err), &err);
    if (adapter != NULL) {
        lore_decoder_adapter_seat(decoder, 0, NULL);
        lore_decoder_adapter_unplace(decoder, placed);
        lore_adapter_close(opened);
    }
    lore_decoder_close(decoder);
    fixture_close(&f);
}

/* Root of mean squares of the difference, over that of what is wanted. */
static double distance(const float *found, const float *wanted, int32_t count)
{
    double off = 0, all = 0;
    for (int32_t i = 0; i < count; i++) {
        off += pow((double)found[i] - (double)wanted[i], 2);
        all += pow((double)wanted[i], 2);
    }
    return sqrt(off / all);
}

static const struct {
    const char *name;
    int32_t rank, modules;
    bool is_untied;
} FAMILY[] = {{"llama", 1, 15, false},
              {"llama-biases", 8, 15, false},
              {"llama-dynamic", 16, 15, false},
              {"llama-linear", 64, 15, false},
              {"llama-yarn", 128, 15, false},
              {"llama3", 8, 15, true},
              {"mistral", 16, 15, false},
              {"qwen2", 64, 15, true},
              {"qwen2-window", 1, 22, false},
              {"qwen3", 128, 15, true},
              {"phi3", 8, 9, false},
              {"phi3-partial", 16, 9, true},
              {"phi3-long", 1, 9, false},
              {"gemma2", 8, 22, true}};

/* Files that are no tensors are copied; so a folder of sums becomes a model. */
static void write_sums(const char *to, const char *merged, tensor_file *sums)
{
    static const char *const SKIP[] = {"model.safetensors"};
    lore_error err = {0};
    CHECK_OK(lore_dir_make(to, &err), &err);
    CHECK_OK(lore_folder_copy(merged, to, SKIP, 1, &err), &err);
    tensors_write(sums, to, "model.safetensors");
}

TEST(families)
{
    static float found[VOCAB_MAX], wanted[VOCAB_MAX], before[VOCAB_MAX], seated[VOCAB_MAX];
    char from[512], adapter[512], to[512], sums_folder[512];
    path_of(adapter, "adapter");
    path_of(to, "merged");
    path_of(sums_folder, "sums");
    for (size_t i = 0; i < sizeof FAMILY / sizeof FAMILY[0]; i++) {
        tensor_file sums;
        family_of(from, FAMILY[i].name);
        lore_weights *base = weights_of(from);
        write_adapter(adapter, base, FAMILY[i].rank, SCALE);
        const lore_merge_result result = merge(from, adapter, to, &TYPES[0]);
        CHECK_INT(result.modules, FAMILY[i].modules);
        CHECK(result.is_untied == FAMILY[i].is_untied);
        tensors_begin(&sums);
        check_folder(to, base, FAMILY[i].rank, result.is_untied, &TYPES[0], &sums);
        write_sums(sums_folder, to, &sums);
        logits_with(from, NULL, before);
        logits_with(to, NULL, found);
        logits_with(sums_folder, NULL, wanted);
        logits_with(from, adapter, seated);
        CHECK_NEAR(distance(found, wanted, VOCAB_MAX), 0, 1e-4);
        CHECK_NEAR(distance(seated, found, VOCAB_MAX), 0, 1e-4);
        CHECK(distance(before, wanted, VOCAB_MAX) > 0.01);
        lore_weights_close(base);
        remove_all(to);
        remove_all(sums_folder);
    }
}

/* Rounded once, and without a type each tensor as it was. */
TEST(types)
{
    char from[512], adapter[512], to[512], path[640];
    path_of(adapter, "adapter");
    path_of(to, "typed");
    static const char *const NAMES[] = {"float32", "float16", "bfloat16"};
    for (size_t i = 0; i < 4; i++) {
        family_of(from, i % 2 == 0 ? "llama-biases" : "gemma2");
        const lore_dtype *type = i < 3 ? &TYPES[i] : NULL;
        lore_weights *base = weights_of(from);
        write_adapter(adapter, base, 16, SCALE);
        const lore_merge_result result = merge(from, adapter, to, type);
        check_folder(to, base, 16, result.is_untied, type, NULL);
        snprintf(path, sizeof path, "%s/config.json", to);
        lore_json *root = read_json(path);
        CHECK_STR(lore_json_str(lore_json_get(root, "dtype")), i < 3 ? NAMES[i] : "bfloat16");
        CHECK(lore_json_bool(lore_json_get(root, "tie_word_embeddings")) == false);
        CHECK(exists(to, "tokenizer.json") && exists(to, "generation_config.json"));
        lore_json_free(root);
        lore_weights_close(base);
        remove_all(to);
    }
}

static const char *file_of(const lore_weights *w, const lore_tensor *t)
{
    return strrchr(w->shards[t->shard].path, '/') + 1;
}

TEST(as_many_files_as_the_base)
{
    char from[512], adapter[512], to[512];
    path_of(adapter, "adapter");
    path_of(to, "files");
    family_of(from, "llama3");
    lore_weights *base = weights_of(from);
    write_adapter(adapter, base, 4, SCALE);
    const lore_merge_result result = merge(from, adapter, to, NULL);
    lore_weights *out = weights_of(to);
    CHECK_INT(result.files, 2);
    CHECK(exists(to, "model.safetensors.index.json") && !exists(to, "model.safetensors"));
    for (int32_t i = 0; i < base->tensor_count; i++) {
        const lore_tensor *t = lore_weights_find(out, base->tensors[i].name);
        CHECK(t != NULL);
        CHECK_STR(lore_str_from(file_of(out, t)), file_of(base, &base->tensors[i]));
    }
    CHECK(lore_weights_find(out, LORE_STR("lm_head.weight")) != NULL);
    lore_weights_close(out);
    lore_weights_close(base);
    remove_all(to);
}

TEST(quantised_bases_are_unfolded)
{
    static const char *const BASES[] = {"quant-int8", "quant-int4", "quant-gptq",
                                        "quant-gptq-order", "quant-awq"};
    static float found[VOCAB_MAX];
    char from[512], adapter[512], to[512], path[640];
    lore_error err = {0};
    lore_merge_result result;
    const lore_merge_options plain = {.to = NULL};
    path_of(adapter, "adapter");
    path_of(to, "unfolded");
    for (size_t i = 0; i < sizeof BASES / sizeof BASES[0]; i++) {
        family_of(from, BASES[i]);
        lore_weights *base = weights_of(from);
        write_adapter(adapter, base, 8, SCALE);
        CHECK_FAILS(lore_merge_lora(from, adapter, to, &MERGE_LIMITS, &plain, &result, &err),
                    LORE_ERR_UNSUPPORTED, &err, "is quantised");
        CHECK(!exists(to, ""));
        result = merge(from, adapter, to, &TYPES[i % 3]);
        check_folder(to, base, 8, result.is_untied, &TYPES[i % 3], NULL);
        snprintf(path, sizeof path, "%s/config.json", to);
        lore_json *root = read_json(path);
        CHECK(lore_json_get(root, "quantization_config") == NULL);
        lore_json_free(root);
        logits_with(to, NULL, found);
        lore_weights_close(base);
        remove_all(to);
    }
}

/* The decoder of a tied base passes over a head that its file has, too; and Gemma is tied where the
 * file does not say. */
TEST(a_head_written_twice_is_changed_once)
{
    char from[512], base_folder[512], adapter[512], to[512];
    char path[640];
    lore_buf old, config;
    tensor_file file;
    path_of(base_folder, "twice");
    path_of(adapter, "adapter");
    path_of(to, "once");
    family_of(from, "gemma2");
    static const char *const SKIP[] = {"model.safetensors", "config.json"};
    const lore_config_edit untold = {.key = "tie_word_embeddings"};
    lore_error err = {0};
    lore_weights *one = weights_of(from);
    CHECK_OK(lore_dir_make(base_folder, &err), &err);
    CHECK_OK(lore_folder_copy(from, base_folder, SKIP, 2, &err), &err);
    snprintf(path, sizeof path, "%s/config.json", from);
    lore_buf_init(&old, 0);
    lore_buf_init(&config, 0);
    CHECK_OK(lore_file_read(path, 1 << 20, &old, &err), &err);
    CHECK_OK(lore_config_edit_text(lore_buf_str(&old), path, &untold, 1, &config, &err), &err);
    write_file(base_folder, "config.json", lore_buf_str(&config));
    lore_buf_destroy(&old);
    lore_buf_destroy(&config);
    tensors_begin(&file);
    for (int32_t i = 0; i < one->tensor_count; i++) {
        const lore_tensor *t = &one->tensors[i];
        char name[256], shape[64];
        snprintf(name, sizeof name, LORE_STR_FMT, LORE_STR_ARG(t->name));
        snprintf(shape, sizeof shape, t->rank == 1 ? "%d" : "%d, %d", (int)t->shape[0],
                 (int)t->shape[1]);
        tensors_add(&file, name, t->type->name, shape, t->data, t->size_bytes);
        if (strcmp(name, "model.embed_tokens.weight") == 0) {
            tensors_add(&file, "lm_head.weight", t->type->name, shape, t->data, t->size_bytes);
        }
    }
    tensors_write(&file, base_folder, "model.safetensors");
    lore_weights *base = weights_of(base_folder);
    write_adapter(adapter, base, 2, SCALE);
    const lore_merge_result result = merge(base_folder, adapter, to, NULL);
    CHECK(result.is_untied);
    check_folder(to, base, 2, false, NULL, NULL);
    snprintf(path, sizeof path, "%s/config.json", to);
    lore_json *root = read_json(path);
    const lore_json *tied = lore_json_get(root, "tie_word_embeddings");
    CHECK(lore_json_is_bool(tied) && !lore_json_bool(tied));
    lore_json_free(root);
    lore_weights_close(base);
    lore_weights_close(one);
    remove_all(to);
}

/* ---- refusals ---- */

static void refused(const char *from, const char *adapter, const lore_dtype *type,
                    lore_status status, const char *words)
{
    char to[512], beside[512];
    lore_error err = {0};
    lore_merge_result result;
    const lore_merge_options options = {.to = type};
    path_of(to, "refused");
    path_of(beside, "refused.tmp");
    CHECK_FAILS(lore_merge_lora(from, adapter, to, &MERGE_LIMITS, &options, &result, &err), status,
                &err, words);
    CHECK(!exists(to, "") && !exists(beside, ""));
}

TEST(what_does_not_fit_is_refused)
{
    char from[512], adapter[512], other[512], to[512], path[640];
    lore_error err = {0}, loader = {0};
    lore_adapter *none = NULL;
    lore_merge_result result;
    const lore_merge_options options = {.to = NULL};
    path_of(adapter, "adapter");
    path_of(other, "other");
    path_of(to, "there");
    family_of(from, "llama");
    lore_weights *base = weights_of(from);
    write_adapter(adapter, base, 2, SCALE);
    refused("/nowhere", adapter, NULL, LORE_ERR_NOT_FOUND, "'/nowhere' has no config.json");
    refused(from, "/nowhere", NULL, LORE_ERR_NOT_FOUND, "/nowhere");
    family_of(other, "enc-bert");
    refused(other, adapter, NULL, LORE_ERR_UNSUPPORTED, "model_type 'bert' is not supported");
    CHECK_FAILS(lore_merge_lora(from, adapter, from, &MERGE_LIMITS, &options, &result, &err),
                LORE_ERR_INVALID, &err, "exists: give the name of a new folder");
    write_file(to, "note", LORE_STR("mine"));
    CHECK_FAILS(lore_merge_lora(from, adapter, to, &MERGE_LIMITS, &options, &result, &err),
                LORE_ERR_INVALID, &err, "exists");
    CHECK(exists(to, "note"));
    /* By the words of the loader. */
    family_of(other, "qwen2-window");
    lore_weights *wrong = weights_of(other);
    lore_buf text;
    lore_decoder_config config;
    lore_buf_init(&text, 0);
    snprintf(path, sizeof path, "%s/config.json", other);
    CHECK_OK(lore_file_read(path, 1 << 20, &text, &err), &err);
    CHECK_OK(lore_decoder_config_parse(lore_buf_str(&text), path, &config, &err), &err);
    const lore_adapter_base held = {&config, wrong};
    lore_status status = lore_adapter_read(adapter, &held, LORE_F32, &MERGE_LIMITS, &none, &loader);
    CHECK(status != LORE_OK);
    refused(other, adapter, NULL, status, loader.message);
    lore_buf_destroy(&text);
    lore_weights_close(wrong);
    lore_weights_close(base);
}

TEST(numbers_must_be_finite)
{
    char from[512], adapter[512];
    path_of(adapter, "large");
    family_of(from, "llama");
    lore_weights *base = weights_of(from);
    write_adapter(adapter, base, 2, 4e5);
    refused(from, adapter, &TYPES[1], LORE_ERR_CORRUPT, "no finite number in F16");
    lore_weights_close(base);
}

static bool give_up(void *self, int64_t done, int64_t total)
{
    int64_t *last = self;
    CHECK(done >= *last && done <= total);
    *last = done;
    return done * 2 < total;
}

TEST(it_can_be_interrupted)
{
    char from[512], adapter[512], to[512], beside[512];
    lore_error err = {0};
    lore_merge_result result;
    int64_t last = 0;
    path_of(adapter, "adapter");
    path_of(to, "given-up");
    path_of(beside, "given-up.tmp");
    family_of(from, "llama3");
    lore_weights *base = weights_of(from);
    write_adapter(adapter, base, 2, SCALE);
    const lore_merge_options options = {.progress = give_up, .self = &last};
    CHECK_FAILS(lore_merge_lora(from, adapter, to, &MERGE_LIMITS, &options, &result, &err),
                LORE_ERR_CANCELLED, &err, "interrupted");
    CHECK(last > 0 && !exists(to, "") && !exists(beside, ""));
    lore_weights_close(base);
}

/* A disk that fails at the n-th write, sync or rename leaves neither folder. */
TEST(a_failing_disk_leaves_nothing)
{
    char from[512], adapter[512], to[512], beside[512];
    lore_error err = {0};
    lore_merge_result result;
    path_of(adapter, "adapter");
    path_of(to, "failing");
    path_of(beside, "failing.tmp");
    family_of(from, "llama3");
    lore_weights *base = weights_of(from);
    write_adapter(adapter, base, 2, SCALE);
    const lore_merge_options options = {.to = &TYPES[0]};
    for (int op = LORE_FILE_OP_WRITE; op <= LORE_FILE_OP_RENAME; op++) {
        int64_t failures = 0;
        for (int64_t n = 1;; n++) {
            lore_file_fail_at((lore_file_op)op, n);
            lore_status status =
                lore_merge_lora(from, adapter, to, &MERGE_LIMITS, &options, &result, &err);
            lore_file_fail_at((lore_file_op)op, 0);
            CHECK(!exists(beside, ""));
            if (status == LORE_OK) {
                break;
            }
            CHECK_INT(status, LORE_ERR_IO);
            CHECK(!exists(to, ""));
            failures++;
        }
        CHECK(failures > 2);
        remove_all(to);
    }
    lore_weights_close(base);
}

/* A base of one quantised matrix: each allocation of merging it can fail in a second. */
static void write_small_base(const char *folder)
{
    char from[512], path[640], name[256], shape[64];
    lore_error err = {0};
    lore_buf config;
    tensor_file file;
    family_of(from, "quant-int4");
    lore_weights *base = weights_of(from);
    tensors_begin(&file);
    for (int32_t i = 0; i < base->tensor_count; i++) {
        const lore_tensor *t = &base->tensors[i];
        if (lore_str_starts(t->name, LORE_STR("model.layers.0.mlp.down_proj."))) {
            snprintf(name, sizeof name, LORE_STR_FMT, LORE_STR_ARG(t->name));
            const int cols = t->rank > 1 ? (int)t->shape[1] : 0;
            snprintf(shape, sizeof shape, t->rank == 1 ? "%d" : "%d, %d", (int)t->shape[0], cols);
            tensors_add(&file, name, t->type->name, shape, t->data, t->size_bytes);
        }
    }
    lore_weights_close(base);
    tensors_write(&file, folder, "model.safetensors");
    lore_buf_init(&config, 0);
    snprintf(path, sizeof path, "%s/config.json", from);
    CHECK_OK(lore_file_read(path, 1 << 20, &config, &err), &err);
    write_file(folder, "config.json", lore_buf_str(&config));
    lore_buf_destroy(&config);
}

static lore_status merge_and_remove(void *adapter)
{
    char from[512], to[512], beside[512];
    lore_error err = {0};
    lore_merge_result result;
    path_of(from, "small-base");
    path_of(to, "swept");
    path_of(beside, "swept.tmp");
    const lore_merge_options options = {.to = &TYPES[2]};
    lore_status status = lore_merge_lora(from, adapter, to, &MERGE_LIMITS, &options, &result, &err);
    CHECK(!exists(beside, "") && exists(to, "") == (status == LORE_OK));
    lore_folder_abort(to);
    return status;
}

TEST(out_of_memory_is_an_error)
{
    char from[512], adapter[512];
    tensor_file file;
    path_of(adapter, "small");
    path_of(from, "small-base");
    write_small_base(from);
    tensors_begin(&file);
    adapter_pair(&file, "model.layers.0.mlp.down_proj", "F32", 32, 64, 2);
    adapter_write(adapter,
                  "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4, \"target_modules\": "
                  "[\"model.layers.0.mlp.down_proj\"]}",
                  &file);
    check_alloc_sweep(merge_and_remove, adapter);
}

CHECK_MAIN(families, types, as_many_files_as_the_base, quantised_bases_are_unfolded,
           a_head_written_twice_is_changed_once, what_does_not_fit_is_refused,
           numbers_must_be_finite, it_can_be_interrupted, a_failing_disk_leaves_nothing,
           out_of_memory_is_an_error)
