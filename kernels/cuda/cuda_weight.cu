/* Weights on the device: row-major f32 or bf16, one block for all stacked parts.
 *
 * Parts of the dtype that is wanted are copied as they are. Others are unfolded on the host, a slab
 * of rows at a time, and copied: f16 and int4 groups round to the backend's precision; rows of int8
 * keep their whole numbers, which bf16 holds exactly, and their scales. The copy of one slab runs
 * beside the unfolding of the next. */
#include "kernels/cuda/cuda_int.h"

#include "base/mem.h"

#include <string.h>

enum { SLAB_BYTES = 8 << 20 };

/* Row `row` of a part in the weight's dtype. row_f32 is scratch of [cols]. */
static void convert_row(const lore_matrix *part, int32_t row, lore_dtype dtype, float *row_f32,
                        void *to)
{
    if (dtype == LORE_F32) {
        lore_matrix_read_row(part, row, (float *)to);
        return;
    }
    const int8_t *whole = (const int8_t *)part->data + (int64_t)row * part->cols;
    if (part->dtype != LORE_I8) {
        lore_matrix_read_row(part, row, row_f32);
    }
    for (int32_t c = 0; c < part->cols; c++) {
        ((uint16_t *)to)[c] =
            lore_f32_to_bf16(part->dtype == LORE_I8 ? (float)whole[c] : row_f32[c]);
    }
}

typedef struct slabs {
    cudaStream_t stream;
    char *memory[2]; /* pinned */
    cudaEvent_t is_free[2];
    float *row;
    int32_t rows; /* of one slab */
    int turn;
} slabs;

static void slabs_free(slabs *s)
{
    (void)cudaStreamSynchronize(s->stream);
    for (int i = 0; i < 2; i++) {
        (void)cudaFreeHost(s->memory[i]);
        (void)(s->is_free[i] != NULL && cudaEventDestroy(s->is_free[i]));
    }
    (void)cudaStreamDestroy(s->stream);
    lore_free(s->row);
}

static cudaError_t slabs_new(slabs *s, size_t row_bytes, int32_t cols)
{
    s->rows = row_bytes >= SLAB_BYTES ? 1 : (int32_t)(SLAB_BYTES / row_bytes);
    s->row = (float *)lore_alloc((size_t)cols * sizeof *s->row);
    cudaError_t error = s->row == NULL ? cudaErrorMemoryAllocation : cudaSuccess;
    for (int i = 0; i < 2 && error == cudaSuccess; i++) {
        error = cudaMallocHost((void **)&s->memory[i], (size_t)s->rows * row_bytes);
        if (error == cudaSuccess) {
            error = cudaEventCreateWithFlags(&s->is_free[i], cudaEventDisableTiming);
        }
    }
    return error;
}

/* All rows of a part, slab after slab, to `to` on the device. */
static cudaError_t copy_part(slabs *s, const lore_matrix *part, lore_dtype dtype, char *to)
{
    const size_t row_bytes = (size_t)part->cols * lore_dtype_size(dtype);
    cudaError_t error = cudaSuccess;
    for (int32_t first = 0; first < part->rows && error == cudaSuccess; first += s->rows) {
        const int32_t rows = part->rows - first < s->rows ? part->rows - first : s->rows;
        const int turn = s->turn++ % 2;
        error = cudaEventSynchronize(s->is_free[turn]); /* its last copy */
        const char *as_it_is = (const char *)part->data + (size_t)first * row_bytes;
        if (part->dtype == dtype) {
            memcpy(s->memory[turn], as_it_is, (size_t)rows * row_bytes);
        }
        for (int32_t r = 0; r < rows && part->dtype != dtype; r++) {
            convert_row(part, first + r, dtype, s->row, s->memory[turn] + (size_t)r * row_bytes);
        }
        if (error == cudaSuccess) {
            error = cudaMemcpyAsync(to + (size_t)first * row_bytes, s->memory[turn],
                                    (size_t)rows * row_bytes, cudaMemcpyHostToDevice, s->stream);
        }
        if (error == cudaSuccess) {
            error = cudaEventRecord(s->is_free[turn], s->stream);
        }
    }
    return error;
}

static cudaError_t copy_parts(lore_cuda_weight *packed, const lore_matrix *parts, int32_t count)
{
    slabs s = {};
    const size_t row_bytes = (size_t)parts[0].cols * lore_dtype_size(packed->dtype);
    cudaError_t error = cudaStreamCreateWithFlags(&s.stream, cudaStreamNonBlocking);
    if (error != cudaSuccess) {
        return error;
    }
    error = slabs_new(&s, row_bytes, parts[0].cols);
    char *to = (char *)packed->values;
    for (int32_t i = 0; i < count && error == cudaSuccess; i++) {
        error = copy_part(&s, &parts[i], packed->dtype, to);
        to += (size_t)parts[i].rows * row_bytes;
    }
    const cudaError_t last = cudaStreamSynchronize(s.stream);
    slabs_free(&s);
    return error != cudaSuccess ? error : last;
}

/* The scales of all rows, 1 where a part has none; NULL where no part has any. */
static cudaError_t copy_scales(lore_cuda_weight *packed, const lore_matrix *parts, int32_t count)
{
    bool has_any = false;
    for (int32_t i = 0; i < count; i++) {
        has_any = has_any || (parts[i].dtype == LORE_I8 && packed->dtype == LORE_BF16);
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

/* What is only embedded keeps full precision where it has more than the backend's. */
static lore_dtype choose_dtype(const lore_cuda_backend *backend, const lore_matrix *parts,
                               int32_t count, lore_weight_use use)
{
    lore_dtype dtype = backend->dtype;
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
        error = cudaMalloc(&packed->values, size_bytes > 0 ? size_bytes : 1);
    }
    if (error == cudaSuccess) {
        error = copy_parts(packed, parts, count);
    }
    if (error == cudaSuccess) {
        error = copy_scales(packed, parts, count);
    }
    if (error != cudaSuccess) {
        lore_cuda_weight_free(&packed->base);
        return lore_cuda_fail(err, error, "a weight does not get to the GPU");
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
