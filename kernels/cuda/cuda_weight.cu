/* Weights on the device: row-major f32 or bf16, one block for all stacked parts.
 *
 * Parts of the dtype that is wanted are copied as they are. Others are unfolded on the host on the
 * way (cuda_upload.cu): f16 and int4 groups round to the backend's precision; rows of int8 keep
 * their whole numbers, which bf16 holds exactly, and their scales. */
#include "kernels/cuda/cuda_int.h"

#include "base/mem.h"

#include <string.h>

/* Where a part's rows go to, for the threads that write them. */
typedef struct unfolding {
    const lore_matrix *part;
    lore_dtype dtype;
    bool has_failed; /* a thread had no memory; atomic */
} unfolding;

/* int4 in groups: through f32, in the order of its columns. */
static bool round_groups(const lore_matrix *part, int64_t first, int64_t count, uint16_t *to)
{
    float *row = (float *)lore_alloc((size_t)part->cols * sizeof *row);
    if (row == NULL) {
        return false;
    }
    for (int64_t r = 0; r < count; r++) {
        lore_matrix_read_row(part, (int32_t)(first + r), row);
        for (int32_t c = 0; c < part->cols; c++) {
            *to++ = lore_f32_to_bf16(row[c]);
        }
    }
    lore_free(row);
    return true;
}

static void round_values(const lore_matrix *part, size_t first, size_t count, uint16_t *to)
{
    for (size_t i = first; i < first + count; i++) {
        float value = part->dtype == LORE_I8    ? (float)((const int8_t *)part->data)[i]
                      : part->dtype == LORE_F16 ? lore_f16_to_f32(((const uint16_t *)part->data)[i])
                                                : ((const float *)part->data)[i];
        *to++ = lore_f32_to_bf16(value);
    }
}

static void unfold_rows(void *self, char *to, int64_t first, int64_t count)
{
    unfolding *u = (unfolding *)self;
    const size_t cols = (size_t)u->part->cols, row_bytes = cols * lore_dtype_size(u->dtype);
    if (u->part->dtype == u->dtype) {
        memcpy(to, (const char *)u->part->data + (size_t)first * row_bytes,
               (size_t)count * row_bytes);
        return;
    }
    if (u->dtype == LORE_BF16 && u->part->dtype != LORE_I4) {
        round_values(u->part, (size_t)first * cols, (size_t)count * cols, (uint16_t *)to);
        return;
    }
    if (u->dtype == LORE_BF16) {
        if (!round_groups(u->part, first, count, (uint16_t *)to)) {
            __atomic_store_n(&u->has_failed, true, __ATOMIC_RELAXED); /* read when all are done */
        }
        return;
    }
    for (int64_t r = 0; r < count; r++) {
        lore_matrix_read_row(u->part, (int32_t)(first + r), (float *)to + (size_t)r * cols);
    }
}

static cudaError_t copy_parts(lore_cuda_weight *packed, const lore_matrix *parts, int32_t count)
{
    const size_t row_bytes = (size_t)parts[0].cols * lore_dtype_size(packed->dtype);
    char *to = (char *)packed->values;
    cudaError_t error = cudaSuccess;
    for (int32_t i = 0; i < count && error == cudaSuccess; i++) {
        unfolding u = {&parts[i], packed->dtype, false};
        error = lore_cuda_upload_large(packed->base.backend, to, parts[i].rows, row_bytes,
                                       unfold_rows, &u);
        error = error == cudaSuccess && u.has_failed ? cudaErrorMemoryAllocation : error;
        to += (size_t)parts[i].rows * row_bytes;
    }
    return error;
}

/* The scales of all rows, 1 where a part has none; NULL where no part has any. */
static cudaError_t copy_scales(lore_cuda_weight *packed, const lore_matrix *parts, int32_t count)
{
    bool has_any = false;
    for (int32_t i = 0; i < count; i++) {
        has_any = has_any || (parts[i].dtype == LORE_I8 && packed->dtype != LORE_F32);
    }
    if (!has_any) {
        return cudaSuccess;
    }
    const size_t size_bytes = (size_t)packed->base.rows * sizeof(float);
    float *scales = (float *)lore_alloc(size_bytes);
    if (scales == NULL) {
        return cudaErrorMemoryAllocation;
    }
    float *to = scales;
    for (int32_t i = 0; i < count; i++) {
        for (int32_t r = 0; r < parts[i].rows; r++) {
            *to++ = parts[i].dtype == LORE_I8 ? parts[i].scales[r] : 1.0f;
        }
    }
    cudaError_t error = cudaMalloc((void **)&packed->scales, size_bytes);
    if (error == cudaSuccess) {
        error = cudaMemcpy(packed->scales, scales, size_bytes, cudaMemcpyHostToDevice);
    }
    lore_free(scales);
    return error;
}

/* Parts that are all int8 stay so. What is only embedded keeps full precision where it has more
 * than the backend's. */
static lore_dtype choose_dtype(const lore_cuda_backend *backend, const lore_matrix *parts,
                               int32_t count, lore_weight_use use)
{
    lore_dtype dtype = backend->dtype;
    int32_t whole = 0;
    for (int32_t i = 0; i < count; i++) {
        whole += parts[i].dtype == LORE_I8;
    }
    if (whole == count && backend->dtype == LORE_BF16) {
        return LORE_I8;
    }
    for (int32_t i = 0; i < count && use == LORE_USE_EMBED; i++) {
        dtype = parts[i].dtype != LORE_BF16 ? LORE_F32 : dtype;
    }
    return dtype;
}

lore_status lore_cuda_weight_pack(lore_backend *backend, const lore_matrix *parts, int32_t count,
                                  lore_weight_use use, lore_weight **weight, lore_error *err)
{
    const lore_cuda_backend *own = (const lore_cuda_backend *)backend;
    lore_cuda_weight *packed = (lore_cuda_weight *)lore_alloc_zero(1, sizeof *packed);
    if (packed == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a weight");
    }
    int32_t rows = 0;
    for (int32_t i = 0; i < count; i++) {
        rows += parts[i].rows;
    }
    packed->dtype = choose_dtype(own, parts, count, use);
    size_t size_bytes = 0;
    if (!lore_size_mul((size_t)rows, (size_t)parts[0].cols, &size_bytes) ||
        !lore_size_mul(size_bytes, lore_dtype_size(packed->dtype), &size_bytes)) {
        lore_free(packed);
        return lore_fail(err, LORE_ERR_NOMEM, "a weight of %d x %d is too large", (int)rows,
                         (int)parts[0].cols);
    }
    packed->base = {backend, rows, parts[0].cols, size_bytes};
    cudaError_t error = cudaSetDevice(own->device);
    if (error == cudaSuccess) {
        error = lore_cuda_malloc(own, &packed->values, size_bytes > 0 ? size_bytes : 1);
    }
    if (error == cudaSuccess) {
        error = copy_parts(packed, parts, count);
    }
    if (error == cudaSuccess) {
        error = copy_scales(packed, parts, count);
    }
    if (error != cudaSuccess) {
        lore_cuda_weight_free(&packed->base);
        return error == cudaErrorMemoryAllocation
                   ? lore_cuda_fail_memory(err, size_bytes)
                   : lore_cuda_fail(err, error, "a weight does not get to the GPU");
    }
    *weight = &packed->base;
    return LORE_OK;
}

void lore_cuda_weight_free(lore_weight *weight)
{
    lore_cuda_weight *packed = (lore_cuda_weight *)weight;
    (void)cudaFree(packed->values);
    (void)cudaFree(packed->scales);
    lore_free(packed);
}
