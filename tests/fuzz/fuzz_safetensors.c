/* Fuzz target of the safetensors header.
 *
 * Property: any bytes are a checked file or refused with a message that names it. Of what is taken
 * every tensor lies inside the data, is as long as its shape and type say, and none overlaps
 * another; nothing outside the input is read. */
#include "models/safetensors_int.h"
#include "tests/fuzz/fuzz.h"

static void check_tensor(const lore_tensor *tensor, lore_str file, const uint8_t **end)
{
    size_t bytes = tensor->type->size_bytes;
    LORE_ASSERT(tensor->rank >= 0 && tensor->rank <= LORE_TENSOR_RANK_MAX);
    for (int32_t i = 0; i < tensor->rank; i++) {
        LORE_ASSERT(tensor->shape[i] >= 0);
        LORE_ASSERT(lore_size_mul(bytes, (size_t)tensor->shape[i], &bytes));
    }
    LORE_ASSERT(bytes == tensor->size_bytes);
    LORE_ASSERT(tensor->name.len > 0 && tensor->name.len < LORE_TENSOR_NAME_CAP);
    LORE_ASSERT(tensor->data >= *end);
    LORE_ASSERT(bytes <= (size_t)((const uint8_t *)file.ptr + file.len - tensor->data));
    *end = tensor->data + bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t live = lore_mem_live(), start_ns = fuzz_cpu_ns();
    lore_str file = {(const char *)data, size};
    lore_arena arena;
    lore_error err = {.status = LORE_OK};
    lore_tensor *tensors = NULL;
    int32_t count = 0;
    size_t header_bytes = 0;
    lore_arena_init(&arena, 0);
    lore_status status = lore_safetensors_parse(file, "model.safetensors", size, &arena, &tensors,
                                                &count, &header_bytes, &err);
    if (status != LORE_OK) {
        fuzz_check_refusal(status, &err);
        LORE_ASSERT(strstr(err.message, "model.safetensors") != NULL);
    } else {
        LORE_ASSERT(header_bytes >= 8 && header_bytes <= size);
        const uint8_t *end = data + header_bytes;
        for (int32_t i = 0; i < count; i++) {
            check_tensor(&tensors[i], file, &end);
        }
    }
    fuzz_check_cost(start_ns, size);
    lore_arena_destroy(&arena);
    LORE_ASSERT(lore_mem_live() == live);
    return 0;
}
