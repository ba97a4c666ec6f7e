/* The doors of kernels/: opens a backend by its kind and passes every call on to its driver.
 *
 * Nothing here computes except the dtype conversions, which loaders, packers and `ref` share. What
 * comes from outside (options, matrices of a model file) is refused here with words, so that
 * drivers may assume it is well-formed. */
#include "kernels/backend_int.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- names and sizes ---- */

size_t lore_dtype_size(lore_dtype dtype)
{
    switch (dtype) {
    case LORE_F32:
    case LORE_I32:
        return 4;
    case LORE_F16:
    case LORE_BF16:
        return 2;
    case LORE_I8:
        return 1;
    case LORE_I4:
        break;
    }
    LORE_ASSERT(false); /* two to a byte: callers that may meet I4 ask for rows */
    return 0;
}

const char *lore_dtype_name(lore_dtype dtype)
{
    static const char *const names[] = {"f32", "f16", "bf16", "i8", "i32", "i4"};
    return (unsigned)dtype < sizeof names / sizeof names[0] ? names[dtype] : "unknown";
}

const char *lore_isa_name(lore_isa isa)
{
    static const char *const names[] = {"auto", "scalar", "avx2", "avx512", "amx"};
    return (unsigned)isa < sizeof names / sizeof names[0] ? names[isa] : "unknown";
}

const char *lore_precision_name(lore_precision precision)
{
    static const char *const names[] = {"auto", "f32", "bf16", "int8"};
    return (unsigned)precision < sizeof names / sizeof names[0] ? names[precision] : "unknown";
}

/* ---- conversions ---- */

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float lore_f16_to_f32(uint16_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    const uint32_t exponent = (bits >> 10) & 0x1fu;
    const uint32_t mantissa = bits & 0x3ffu;
    if (exponent == 0x1f) {
        return float_of(sign | 0x7f800000u | mantissa << 13);
    }
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 is exact in f32 */
        const float magnitude = (float)mantissa * 0x1p-24f;
        return sign != 0 ? -magnitude : magnitude;
    }
    return float_of(sign | (exponent + 112u) << 23 | mantissa << 13);
}

float lore_bf16_to_f32(uint16_t bits)
{
    return float_of((uint32_t)bits << 16);
}

uint16_t lore_f32_to_f16(float value)
{
    const uint32_t sign = (bits_of(value) >> 16) & 0x8000u;
    uint32_t bits = bits_of(value) & 0x7fffffffu;
    if (bits > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u); /* any NaN becomes the quiet one */
    }
    if (bits >= 0x477ff000u) {
        return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
    }
    if (bits < 0x38800000u) { /* below 2^-14: a multiple of 2^-24, and 1024 of them is the first
                                 normal number */
        return (uint16_t)(sign | (uint32_t)lrintf(fabsf(value) * 0x1p24f));
    }
    bits += 0xfffu + ((bits >> 13) & 1u);
    return (uint16_t)(sign | (bits - 0x38000000u) >> 13);
}

uint16_t lore_f32_to_bf16(float value)
{
    const uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40u); /* keep a NaN a NaN */
    }
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float lore_quantize_row(int8_t *out, const float *x, int32_t count)
{
    float top = 0.0f;
    for (int32_t i = 0; i < count; i++) {
        const float size = fabsf(x[i]);
        top = size > top ? size : top;
    }
    if (top < 1e-30f) { /* 127 / top would overflow; nothing this small survives a sum anyway */
        memset(out, 0, (size_t)count);
        return 1.0f;
    }
    /* The vector loops use the same two operations, so that every instruction set gets the same
     * integers. */
    const float inverse = 127.0f / top;
    for (int32_t i = 0; i < count; i++) {
        const float scaled = x[i] * inverse;
        const float bounded = scaled < 127.0f ? (scaled > -127.0f ? scaled : -127.0f) : 127.0f;
        out[i] = (int8_t)lrintf(bounded);
    }
    return top / 127.0f;
}

/* Columns may name one element twice (then both count) or never (then it is 0). */
static void read_row_i4(const lore_matrix *matrix, int32_t row, float *out)
{
    const size_t groups =
        ((size_t)matrix->cols + (size_t)matrix->group - 1) / (size_t)matrix->group;
    const uint8_t *bytes =
        (const uint8_t *)matrix->data + (size_t)row * (((size_t)matrix->cols + 1) / 2);
    const float *scales = matrix->scales + (size_t)row * groups;
    const uint8_t *zeros = matrix->zeros != NULL ? matrix->zeros + (size_t)row * groups : NULL;
    memset(out, 0, (size_t)matrix->cols * sizeof *out);
    for (int32_t k = 0; k < matrix->cols; k++) {
        const int32_t at = k / matrix->group, element = bytes[k / 2] >> (k % 2 * 4) & 15;
        const int32_t zero = zeros != NULL ? zeros[at] : 8;
        out[matrix->columns != NULL ? matrix->columns[k] : k] +=
            scales[at] * (float)(element - zero);
    }
}

void lore_matrix_read_row(const lore_matrix *matrix, int32_t row, float *out)
{
    const int32_t cols = matrix->cols;
    const size_t first = (size_t)row * (size_t)cols;
    switch (matrix->dtype) {
    case LORE_F32:
        memcpy(out, (const float *)matrix->data + first, (size_t)cols * sizeof(float));
        return;
    case LORE_F16:
        for (int32_t i = 0; i < cols; i++) {
            out[i] = lore_f16_to_f32(((const uint16_t *)matrix->data + first)[i]);
        }
        return;
    case LORE_BF16:
        for (int32_t i = 0; i < cols; i++) {
            out[i] = lore_bf16_to_f32(((const uint16_t *)matrix->data + first)[i]);
        }
        return;
    case LORE_I8:
        for (int32_t i = 0; i < cols; i++) {
            out[i] = (float)((const int8_t *)matrix->data + first)[i] * matrix->scales[row];
        }
        return;
    case LORE_I4:
        read_row_i4(matrix, row, out);
        return;
    case LORE_I32:
        break;
    }
    LORE_ASSERT(false); /* check_parts let no other dtype in */
}

const lore_matrix *lore_matrix_find_part(const lore_matrix *parts, int32_t *row)
{
    while (*row >= parts->rows) {
        *row -= parts->rows;
        parts++;
    }
    return parts;
}

/* ---- backends ---- */

static const lore_backend_driver *find_driver(lore_backend_kind kind)
{
    switch (kind) {
    case LORE_BACKEND_REF:
        return &lore_ref_driver;
    case LORE_BACKEND_CPU:
        return &lore_cpu_driver;
    case LORE_BACKEND_CUDA:
#ifdef LORE_HAVE_CUDA
        return &lore_cuda_driver;
#else
        return NULL;
#endif
    }
    return NULL;
}

lore_status lore_backend_open(const lore_backend_options *options, lore_backend **backend,
                              lore_error *err)
{
    LORE_ASSERT(options != NULL);
    const lore_backend_driver *driver = find_driver(options->kind);
    if (driver == NULL) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "this lore was built without the cuda backend: build it with "
                         "-DLORE_CUDA=ON, or use --device cpu");
    }
    lore_backend *opened = NULL;
    const lore_status status = driver->open(options, &opened, err);
    if (status != LORE_OK) {
        return status;
    }
    opened->driver = driver;
    opened->options = *options;
    *backend = opened;
    return LORE_OK;
}

void lore_backend_close(lore_backend *backend)
{
    if (backend != NULL) {
        backend->driver->close(backend);
    }
}

lore_backend_kind lore_backend_get_kind(const lore_backend *backend)
{
    return backend->driver->kind;
}

lore_dtype lore_backend_activation_dtype(const lore_backend *backend)
{
    return backend->activation_dtype;
}

const char *lore_backend_describe(const lore_backend *backend)
{
    return backend->description;
}

void lore_backend_memory(const lore_backend *backend, int64_t *free_bytes, int64_t *total_bytes)
{
    *free_bytes = *total_bytes = 0;
    if (backend->driver->memory_facts != NULL) {
        backend->driver->memory_facts(backend, free_bytes, total_bytes);
    }
}

bool lore_backend_has_cuda(void)
{
    return find_driver(LORE_BACKEND_CUDA) != NULL;
}

int32_t lore_backend_cuda_count(void)
{
#ifdef LORE_HAVE_CUDA
    return lore_cuda_device_count();
#else
    return 0;
#endif
}

lore_status lore_backend_measure_reads(lore_backend *backend, double *bytes_per_second,
                                       lore_error *err)
{
#ifdef LORE_HAVE_CUDA
    if (backend->driver->kind == LORE_BACKEND_CUDA) {
        return lore_cuda_measure_reads(backend, bytes_per_second, err);
    }
#endif
    (void)bytes_per_second;
    return lore_fail(err, LORE_ERR_UNSUPPORTED, "'%s' has no memory of its own to measure",
                     backend->description);
}

/* ---- queues and memory ---- */

lore_status lore_queue_open(lore_backend *backend, lore_queue **queue, lore_error *err)
{
    return backend->driver->queue_open(backend, queue, err);
}

void lore_queue_close(lore_queue *queue)
{
    if (queue != NULL) {
        queue->backend->driver->queue_close(queue);
    }
}

void lore_queue_begin(lore_queue *queue, lore_priority priority)
{
    if (queue->backend->driver->queue_begin != NULL) {
        queue->backend->driver->queue_begin(queue, priority);
    }
}

/* The first failure since it was last taken. */
static lore_status take_failure(lore_queue *queue, lore_error *err)
{
    const lore_status status = queue->error.status;
    if (status != LORE_OK) {
        if (err != NULL) {
            *err = queue->error;
        }
        queue->error.status = LORE_OK;
    }
    return status;
}

lore_status lore_queue_sync(lore_queue *queue, lore_error *err)
{
    queue->backend->driver->queue_wait(queue);
    return take_failure(queue, err);
}

lore_status lore_queue_mark(lore_queue *queue, int32_t which, lore_error *err)
{
    const lore_backend_driver *driver = queue->backend->driver;
    LORE_ASSERT(which >= 0 && which < LORE_MARKS);
    if (driver->mark != NULL) {
        driver->mark(queue, which);
    } else {
        driver->queue_wait(queue); /* for nothing but to end what was begun */
    }
    return take_failure(queue, err);
}

lore_status lore_queue_wait_mark(lore_queue *queue, int32_t which, lore_error *err)
{
    LORE_ASSERT(which >= 0 && which < LORE_MARKS);
    if (queue->backend->driver->wait_mark != NULL) {
        queue->backend->driver->wait_mark(queue, which);
    }
    return take_failure(queue, err);
}

bool lore_backend_can_record(const lore_backend *backend)
{
    return backend->driver->record_begin != NULL;
}

void lore_queue_record_begin(lore_queue *queue)
{
    LORE_ASSERT(lore_backend_can_record(queue->backend));
    queue->backend->driver->record_begin(queue);
}

lore_status lore_queue_record_end(lore_queue *queue, lore_recording **recording, lore_error *err)
{
    *recording = queue->backend->driver->record_end(queue);
    const lore_status status = take_failure(queue, err);
    LORE_ASSERT((status == LORE_OK) == (*recording != NULL));
    return status;
}

void lore_queue_replay(lore_queue *queue, lore_recording *recording)
{
    queue->backend->driver->replay(queue, recording);
}

void lore_recording_free(lore_recording *recording)
{
    if (recording != NULL) {
        recording->backend->driver->recording_free(recording);
    }
}

void lore_queue_tune(lore_queue *queue, bool is_on)
{
    if (queue->backend->driver->tune != NULL) {
        queue->backend->driver->tune(queue, is_on);
    }
}

void lore_queue_fail(lore_queue *queue, lore_status status, const char *format, ...)
{
    if (queue->error.status != LORE_OK) {
        return; /* later failures are mostly echoes of the first */
    }
    char message[LORE_ERROR_MESSAGE_CAP];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    (void)lore_fail(&queue->error, status, "%s", message);
}

lore_status lore_backend_alloc(lore_backend *backend, size_t size_bytes, void **memory,
                               lore_error *err)
{
    return backend->driver->memory_alloc(backend, size_bytes, memory, err);
}

void lore_backend_free(lore_backend *backend, void *memory)
{
    if (memory != NULL) {
        backend->driver->memory_free(backend, memory);
    }
}

lore_status lore_backend_alloc_host(lore_backend *backend, size_t size_bytes, void **memory,
                                    lore_error *err)
{
    if (backend->driver->host_alloc != NULL) {
        return backend->driver->host_alloc(backend, size_bytes, memory, err);
    }
    return lore_host_alloc(backend, size_bytes, memory, err);
}

void lore_backend_free_host(lore_backend *backend, void *memory)
{
    if (memory != NULL && backend->driver->host_free != NULL) {
        backend->driver->host_free(backend, memory);
    } else if (memory != NULL) {
        lore_host_free(backend, memory);
    }
}

void lore_queue_upload(lore_queue *queue, void *to, const void *host, size_t size_bytes)
{
    if (size_bytes > 0) {
        queue->backend->driver->upload(queue, to, host, size_bytes);
    }
}

void lore_queue_download(lore_queue *queue, void *host, const void *from, size_t size_bytes)
{
    if (size_bytes > 0) {
        queue->backend->driver->download(queue, host, from, size_bytes);
    }
}

void lore_queue_download_later(lore_queue *queue, void *host, const void *from, size_t size_bytes)
{
    if (size_bytes > 0 && queue->backend->driver->download_later != NULL) {
        queue->backend->driver->download_later(queue, host, from, size_bytes);
    } else {
        lore_queue_download(queue, host, from, size_bytes);
    }
}

/* ---- weights ---- */

/* What only int8 and I4 have. */
static lore_status check_quantised(const lore_matrix *part, int32_t index, lore_error *err)
{
    const bool is_i4 = part->dtype == LORE_I4, has_scales = is_i4 || part->dtype == LORE_I8;
    if (has_scales != (part->scales != NULL)) {
        return lore_fail(err, LORE_ERR_INVALID, "matrix %d of dtype %s comes %s scales", (int)index,
                         lore_dtype_name(part->dtype), has_scales ? "without" : "with");
    }
    if (!is_i4 && (part->group != 0 || part->zeros != NULL || part->columns != NULL)) {
        return lore_fail(err, LORE_ERR_INVALID, "matrix %d of dtype %s comes with groups",
                         (int)index, lore_dtype_name(part->dtype));
    }
    if (is_i4 && (part->group <= 0 || (part->group % 32 != 0 && part->group < part->cols))) {
        return lore_fail(err, LORE_ERR_INVALID, "matrix %d has groups of %d columns, not of 32s",
                         (int)index, (int)part->group);
    }
    for (int32_t k = 0; part->columns != NULL && k < part->cols; k++) {
        if (part->columns[k] < 0 || part->columns[k] >= part->cols) {
            return lore_fail(err, LORE_ERR_INVALID, "matrix %d of %d columns names column %d",
                             (int)index, (int)part->cols, (int)part->columns[k]);
        }
    }
    return LORE_OK;
}

static lore_status check_parts(const lore_matrix *parts, int32_t count, lore_error *err)
{
    int64_t rows = 0;
    for (int32_t i = 0; i < count; i++) {
        const lore_matrix *part = &parts[i];
        if (part->dtype != LORE_F32 && part->dtype != LORE_F16 && part->dtype != LORE_BF16 &&
            part->dtype != LORE_I8 && part->dtype != LORE_I4) {
            return lore_fail(err, LORE_ERR_UNSUPPORTED,
                             "matrix %d has dtype %s, which no matmul takes", (int)i,
                             lore_dtype_name(part->dtype));
        }
        if (part->rows <= 0 || part->cols <= 0 || part->data == NULL) {
            return lore_fail(err, LORE_ERR_INVALID, "matrix %d is empty (%d x %d)", (int)i,
                             (int)part->rows, (int)part->cols);
        }
        if (part->cols != parts[0].cols) {
            return lore_fail(err, LORE_ERR_INVALID,
                             "matrix %d has %d columns, the one before it %d", (int)i,
                             (int)part->cols, (int)parts[0].cols);
        }
        const lore_status status = check_quantised(part, i, err);
        if (status != LORE_OK) {
            return status;
        }
        rows += part->rows;
    }
    if (rows > INT32_MAX - 4096) { /* room for padding to whole panels */
        return lore_fail(err, LORE_ERR_LIMIT, "stacked matrices have %lld rows", (long long)rows);
    }
    return LORE_OK;
}

lore_status lore_weight_pack(lore_backend *backend, const lore_matrix *parts, int32_t count,
                             lore_weight_use use, lore_weight **weight, lore_error *err)
{
    LORE_ASSERT(count > 0);
    const lore_status status = check_parts(parts, count, err);
    if (status != LORE_OK) {
        return status;
    }
    return backend->driver->weight_pack(backend, parts, count, use, weight, err);
}

void lore_weight_free(lore_weight *weight)
{
    if (weight != NULL) {
        weight->backend->driver->weight_free(weight);
    }
}

int32_t lore_weight_rows(const lore_weight *weight)
{
    return weight->rows;
}

int32_t lore_weight_cols(const lore_weight *weight)
{
    return weight->cols;
}

size_t lore_weight_bytes(const lore_weight *weight)
{
    return weight->size_bytes;
}
