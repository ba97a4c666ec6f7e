/* Fuzz target of quantised folders: a quantization_config and the tensors that it is about.
 *
 * The input is a line of JSON, taken as a config.json, then a safetensors file. Property: the
 * configuration is read or refused with a message; every module that the file has a quantised set
 * of gives a matrix of the shape that its tensors state, or is refused by name; of what is given
 * every code, scale, zero and column can be read, columns are a permutation, and the dequantised
 * values are finite or a product that overflows. Nothing outside the input is read. */
#include "models/weights_int.h"
#include "tests/fuzz/fuzz.h"

enum { HEADER_MAX = 1 << 20, ROWS_READ = 64 };

static int by_name(const void *a, const void *b)
{
    return lore_str_compare(((const lore_tensor *)a)->name, ((const lore_tensor *)b)->name);
}

static void check_columns(const lore_matrix *m)
{
    uint8_t *seen = lore_alloc_zero((size_t)m->cols, 1);
    LORE_ASSERT(seen != NULL);
    for (int32_t k = 0; k < m->cols; k++) {
        LORE_ASSERT(m->columns[k] >= 0 && m->columns[k] < m->cols && seen[m->columns[k]] == 0);
        seen[m->columns[k]] = 1;
    }
    lore_free(seen);
}

static void check_matrix(const lore_matrix *m, int32_t rows, int32_t cols)
{
    float *row = lore_alloc((size_t)cols * sizeof(float));
    LORE_ASSERT(row != NULL && m->rows == rows && m->cols == cols);
    LORE_ASSERT(m->dtype == LORE_I4 || m->dtype == LORE_I8 || m->dtype == LORE_F32);
    if (m->dtype == LORE_I4) {
        LORE_ASSERT(m->group > 0 && (m->group % 32 == 0 || m->group >= cols));
    }
    if (m->columns != NULL) {
        check_columns(m);
    }
    for (int32_t i = 0; i < rows; i += rows / ROWS_READ + 1) {
        lore_matrix_read_row(m, i, row);
        for (int32_t k = 0; k < cols; k++) {
            LORE_ASSERT(row[k] == row[k]); /* no NaN */
        }
    }
    lore_free(row);
}

static void check_modules(lore_weights *w)
{
    for (int32_t i = 0; i < w->tensor_count; i++) {
        char name[LORE_TENSOR_NAME_CAP + 8];
        lore_quantized_set set;
        lore_tensor *parts[LORE_PARTS_MAX];
        int32_t count = 0, rows = 0, cols = 0;
        bool is_codes = false;
        lore_matrix m;
        lore_error err = {.status = LORE_OK};
        lore_str module = lore_weights_module_of(w, &w->tensors[i], &is_codes);
        if (!is_codes || !lore_weights_find_set(w, module, &set, parts, &count) ||
            !lore_quantized_shape(&w->quantized, &set, &rows, &cols)) {
            continue;
        }
        snprintf(name, sizeof name, LORE_STR_FMT ".weight", LORE_STR_ARG(module));
        if (strlen(name) != module.len + 7) { /* a name with a NUL cannot be asked for */
            continue;
        }
        lore_status status = lore_weights_matrix(w, name, rows, cols, &m, &err);
        if (status != LORE_OK) {
            fuzz_check_refusal(status, &err);
            LORE_ASSERT(strstr(err.message, "model.safetensors") != NULL);
        } else {
            check_matrix(&m, rows, cols);
            lore_weights_release(w, &m);
        }
    }
    LORE_ASSERT(lore_weights_parameters(w) >= 0);
}

static void check_file(lore_weights *w, lore_str file)
{
    lore_error err = {.status = LORE_OK};
    size_t header_bytes = 0;
    lore_status status = lore_safetensors_parse(file, "model.safetensors", HEADER_MAX, &w->arena,
                                                &w->tensors, &w->tensor_count, &header_bytes, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        w->tensor_count = 0;
        return;
    }
    qsort(w->tensors, (size_t)w->tensor_count, sizeof(lore_tensor), by_name);
    check_modules(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[] = "model.safetensors";
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str rest = {size == 0 ? "" : (const char *)data, size}, line = {NULL, 0};
    lore_shard shard = {.path = path};
    lore_weights w = {.shards = &shard, .shard_count = 1};
    lore_json *root = NULL;
    lore_error err = {.status = LORE_OK};
    lore_arena_init(&w.arena, 0);
    if (lore_str_next_line(&rest, &line) && lore_json_parse(line, 8, &root, &err) == LORE_OK) {
        lore_status status = lore_quantized_config_read(root, &w.quantized, &err);
        if (status != LORE_OK) {
            fuzz_check_refusal(status, &err);
        } else {
            check_file(&w, rest);
        }
    }
    lore_json_free(root);
    fuzz_check_cost(start_ns, size);
    lore_arena_destroy(&w.arena);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
