/* Tests make their own adapter folders: a configuration and tensors whose values follow from their
 * names (fill() of tests/golden/make_adapters.py). */
#ifndef LORE_TESTS_ADAPTER_FIXTURE_H
#define LORE_TESTS_ADAPTER_FIXTURE_H

#include "models/adapter_int.h"
#include "tests/unit/safetensors_fixture.h"

static const lore_limits ADAPTER_LIMITS = {.model_header_bytes_max = 1 << 20,
                                           .model_json_bytes_max = 1 << 20,
                                           .adapter_file_bytes_max = 1 << 20,
                                           .adapter_rank_max = 512};

/* Multiples of 1 / 64 up to a half, which bf16 holds too. */
CHECK_UNUSED static void adapter_fill(const char *name, float *values, int32_t count)
{
    uint64_t state = lore_str_hash(lore_str_from(name)) % (UINT64_C(1) << 31);
    for (int32_t i = 0; i < count; i++) {
        state = (state * 1103515245 + 12345) % (UINT64_C(1) << 31);
        values[i] = (float)((int32_t)((state >> 16) % 65) - 32) / 64;
    }
}

/* A tensor of such values, which name gives, under any name; dtype "F32", "F16" or "BF16". */
CHECK_UNUSED static void adapter_tensor(tensor_file *f, const char *name, const char *dtype,
                                        int32_t rows, int32_t cols)
{
    char shape[64];
    const int32_t count = rows * cols;
    float *values = lore_alloc((size_t)count * sizeof *values);
    uint16_t *halves = lore_alloc((size_t)count * sizeof *halves);
    CHECK(values != NULL && halves != NULL);
    adapter_fill(name, values, count);
    snprintf(shape, sizeof shape, "%d, %d", rows, cols);
    for (int32_t i = 0; i < count; i++) {
        halves[i] = dtype[0] == 'B' ? lore_f32_to_bf16(values[i]) : lore_f32_to_f16(values[i]);
    }
    bool is_f32 = strcmp(dtype, "F32") == 0;
    tensors_add(f, name, dtype, shape, is_f32 ? (const void *)values : halves,
                (size_t)count * (is_f32 ? sizeof *values : sizeof *halves));
    lore_free(halves);
    lore_free(values);
}

/* A and B of a module as PEFT names them. */
CHECK_UNUSED static void adapter_pair(tensor_file *f, const char *module, const char *dtype,
                                      int32_t rows, int32_t cols, int32_t rank)
{
    char name[256];
    snprintf(name, sizeof name, "base_model.model.%s.lora_A.weight", module);
    adapter_tensor(f, name, dtype, rank, cols);
    snprintf(name, sizeof name, "base_model.model.%s.lora_B.weight", module);
    adapter_tensor(f, name, dtype, rows, rank);
}

CHECK_UNUSED static void adapter_write(const char *folder, const char *config, tensor_file *f)
{
    write_file(folder, "adapter_config.json", lore_str_from(config));
    tensors_write(f, folder, "adapter_model.safetensors");
}

CHECK_UNUSED static float adapter_value(const lore_adapter *adapter, size_t start, int32_t index)
{
    const uint8_t *at = adapter->data + start + (size_t)index * lore_dtype_size(adapter->dtype);
    uint16_t half = 0;
    float value = 0;
    if (adapter->dtype == LORE_F32) {
        memcpy(&value, at, sizeof value);
        return value;
    }
    memcpy(&half, at, sizeof half);
    return lore_bf16_to_f32(half);
}

/* The part that changes the rows from `row_start` on, or NULL. */
CHECK_UNUSED static const lore_adapter_part *adapter_part(const lore_adapter_linear *linear,
                                                          int32_t row_start)
{
    for (int32_t i = 0; i < linear->part_count; i++) {
        if (linear->parts[i].row_start == row_start) {
            return &linear->parts[i];
        }
    }
    return NULL;
}

#endif
