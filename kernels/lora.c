/* Matrices of adapters on their way to a backend: in its layout, or row by row as they came. */
#include "kernels/backend_int.h"

#include <string.h>

lore_dtype lore_backend_lora_dtype(const lore_backend *backend)
{
    const bool is_exact = backend->driver->kind == LORE_BACKEND_REF ||
                          backend->options.precision == LORE_PRECISION_F32;
    return is_exact ? LORE_F32 : LORE_BF16;
}

static size_t row_bytes(lore_dtype dtype, int32_t cols)
{
    return (size_t)cols * lore_dtype_size(dtype);
}

size_t lore_lora_bytes(const lore_weight *weight, lore_dtype dtype, int32_t rows, int32_t cols)
{
    const lore_backend *backend = weight->backend;
    const size_t size_bytes = backend->driver->lora_bytes != NULL
                                  ? backend->driver->lora_bytes(weight, dtype, rows, cols)
                                  : (size_t)rows * row_bytes(dtype, cols);
    return (size_bytes + LORE_LORA_ALIGN - 1) / LORE_LORA_ALIGN * LORE_LORA_ALIGN;
}

size_t lore_lora_pack(const lore_weight *weight, lore_dtype dtype, int32_t rows, int32_t cols,
                      const void *data, int32_t first, int32_t count, void *to)
{
    const char *from = (const char *)data + (size_t)first * row_bytes(dtype, cols);
    LORE_ASSERT(first % LORE_LORA_PANEL == 0 && count >= 0 && count <= rows - first);
    LORE_ASSERT(count % LORE_LORA_PANEL == 0 || first + count == rows);
    if (weight->backend->driver->lora_pack != NULL) {
        return weight->backend->driver->lora_pack(weight, dtype, cols, from, count, to);
    }
    memcpy(to, from, (size_t)count * row_bytes(dtype, cols));
    return (size_t)count * row_bytes(dtype, cols);
}
