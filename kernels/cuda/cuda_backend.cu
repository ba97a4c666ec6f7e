/* The cuda backend: one device, its memory, its queues, and the table of ops.
 *
 * A queue is a stream of its own. Copies from the host go through the driver's staging, so the
 * source may be reused on return; copies to the host wait. Nothing else here waits but
 * lore_queue_sync and scratch that has to grow. All state is in the structs: two backends of two
 * devices may live in one process, so every entry that a thread may come through first names its
 * device. */
#include "kernels/cuda/cuda_int.h"

#include "base/mem.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const lore_ops cuda_ops = {
    "cuda",
    lore_cuda_embed,
    lore_cuda_rmsnorm,
    lore_cuda_layernorm,
    lore_cuda_matmul,
    lore_cuda_glu,
    lore_cuda_add,
    lore_cuda_softcap,
    lore_cuda_rope_append,
    lore_cuda_rope_packed,
    lore_cuda_attend_paged,
    lore_cuda_attend_packed,
    lore_cuda_pool,
    lore_cuda_gather,
    lore_cuda_penalise,
    lore_cuda_tops,
    lore_cuda_sample,
    lore_cuda_scan,
};

/* ---- failures ---- */

lore_status lore_cuda_fail(lore_error *err, cudaError_t error, const char *what)
{
    const lore_status status =
        error == cudaErrorMemoryAllocation ? LORE_ERR_NOMEM : LORE_ERR_DEVICE;
    (void)cudaGetLastError(); /* a failed allocation is not for the next launch to find */
    return lore_fail(err, status, "%s: %s", what, cudaGetErrorString(error));
}

void lore_cuda_note(lore_queue *queue, cudaError_t error, const char *call)
{
    if (error != cudaSuccess) {
        lore_error err;
        const lore_status status = lore_cuda_fail(&err, error, "the GPU failed");
        lore_queue_fail(queue, status, "%s, in %.60s", err.message, call);
    }
}

/* ---- the device ---- */

int32_t lore_cuda_device_count(void)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) {
        (void)cudaGetLastError();
        return 0;
    }
    return count;
}

/* Why no device can be opened, in words that say what to do. */
static lore_status refuse_device(cudaError_t error, lore_error *err)
{
    (void)cudaGetLastError();
    switch (error) {
    case cudaErrorInsufficientDriver:
        return lore_fail(err, LORE_ERR_DEVICE,
                         "the NVIDIA driver is too old for CUDA %d: update it, or use the cpu",
                         CUDART_VERSION / 1000);
    case cudaErrorNoDevice:
        return lore_fail(err, LORE_ERR_DEVICE, "no NVIDIA GPU is visible here");
    default:
        return lore_fail(err, LORE_ERR_DEVICE, "no GPU can be used: %s", cudaGetErrorString(error));
    }
}

static lore_status choose_dtype(const lore_backend_options *options, lore_dtype *dtype,
                                lore_error *err)
{
    if (options->precision == LORE_PRECISION_INT8) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "the cuda backend computes in bf16 or f32, not %s",
                         lore_precision_name(options->precision));
    }
    *dtype = options->precision == LORE_PRECISION_F32 ? LORE_F32 : LORE_BF16;
    return LORE_OK;
}

static lore_status cuda_open(const lore_backend_options *options, lore_backend **backend,
                             lore_error *err)
{
    int count = 0;
    cudaDeviceProp facts;
    lore_dtype dtype = LORE_BF16;
    const cudaError_t found = cudaGetDeviceCount(&count);
    if (found != cudaSuccess || count == 0) {
        return refuse_device(found != cudaSuccess ? found : cudaErrorNoDevice, err);
    }
    if (options->device < 0 || options->device >= count) {
        return lore_fail(err, LORE_ERR_INVALID, "there is no GPU %d: %d %s visible here",
                         (int)options->device, count, count == 1 ? "is" : "are");
    }
    cudaError_t error = cudaSetDevice(options->device);
    if (error == cudaSuccess) {
        error = cudaGetDeviceProperties(&facts, options->device);
    }
    if (error != cudaSuccess) {
        return lore_cuda_fail(err, error, "the GPU cannot be used");
    }
    if (facts.major < 8) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "%s has compute capability %d.%d; lore needs 8.0 (Ampere) or later",
                         facts.name, facts.major, facts.minor);
    }
    if (choose_dtype(options, &dtype, err) != LORE_OK) {
        return LORE_ERR_UNSUPPORTED;
    }
    lore_cuda_backend *opened = (lore_cuda_backend *)lore_alloc_zero(1, sizeof *opened);
    if (opened == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the cuda backend");
    }
    opened->device = options->device;
    opened->processors = facts.multiProcessorCount;
    opened->dtype = dtype;
    opened->blas_library = lore_cuda_blas_load();
    snprintf(opened->base.description, sizeof opened->base.description,
             "cuda: %.100s, %.0f GiB, sm_%d%d%s", facts.name,
             (double)facts.totalGlobalMem / (1 << 30), facts.major, facts.minor,
             opened->blas_library != NULL ? "" : ", without cuBLASLt");
    *backend = &opened->base;
    return LORE_OK;
}

static void cuda_close(lore_backend *backend)
{
    lore_cuda_backend *opened = (lore_cuda_backend *)backend;
    if (opened->blas_library != NULL) {
        dlclose(opened->blas_library);
    }
    lore_free(opened);
}

/* ---- queues ---- */

static void cuda_queue_close(lore_queue *queue)
{
    lore_cuda_queue *opened = lore_cuda_queue_of(queue);
    if (opened->stream != NULL) {
        (void)cudaStreamSynchronize(opened->stream);
        (void)cudaStreamDestroy(opened->stream);
    }
    lore_cuda_blas_close(opened->blas);
    (void)cudaFree(opened->scratch);
    lore_free(opened);
}

static lore_status cuda_queue_open(lore_backend *backend, lore_queue **queue, lore_error *err)
{
    lore_cuda_queue *opened = (lore_cuda_queue *)lore_alloc_zero(1, sizeof *opened);
    if (opened == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for a queue");
    }
    cudaError_t error = cudaSetDevice(((const lore_cuda_backend *)backend)->device);
    if (error == cudaSuccess) {
        error = cudaStreamCreateWithFlags(&opened->stream, cudaStreamNonBlocking);
    }
    if (error != cudaSuccess) {
        cuda_queue_close(&opened->base);
        return lore_cuda_fail(err, error, "no queue on the GPU");
    }
    opened->base.ops = &cuda_ops;
    opened->base.backend = backend;
    *queue = &opened->base;
    return LORE_OK;
}

/* The device is a thread's own setting: whoever begins or waits may be new here. */
static void cuda_queue_begin(lore_queue *queue, lore_priority priority)
{
    (void)priority; /* streams of one process share the device as it sees fit */
    LORE_CUDA_NOTE(queue, cudaSetDevice(lore_cuda_backend_of(queue)->device));
}

static void cuda_queue_wait(lore_queue *queue)
{
    LORE_CUDA_NOTE(queue, cudaSetDevice(lore_cuda_backend_of(queue)->device));
    LORE_CUDA_NOTE(queue, cudaStreamSynchronize(lore_cuda_queue_of(queue)->stream));
}

void *lore_cuda_scratch(lore_queue *queue, size_t size_bytes)
{
    lore_cuda_queue *own = lore_cuda_queue_of(queue);
    if (size_bytes <= own->scratch_bytes) {
        return own->scratch;
    }
    LORE_CUDA_NOTE(queue, cudaStreamSynchronize(own->stream)); /* ops under way use the old one */
    LORE_CUDA_NOTE(queue, cudaFree(own->scratch));
    own->scratch = NULL;
    own->scratch_bytes = 0;
    const cudaError_t error = cudaMalloc(&own->scratch, size_bytes);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        lore_queue_fail(queue, LORE_ERR_NOMEM, "out of GPU memory for %zu bytes of scratch",
                        size_bytes);
        return NULL;
    }
    own->scratch_bytes = size_bytes;
    return own->scratch;
}

/* ---- memory ---- */

static lore_status cuda_alloc(lore_backend *backend, size_t size_bytes, void **memory,
                              lore_error *err)
{
    const int device = ((const lore_cuda_backend *)backend)->device;
    cudaError_t error = cudaSetDevice(device);
    void *made = NULL;
    if (error == cudaSuccess) {
        error = cudaMalloc(&made, size_bytes > 0 ? size_bytes : 1);
    }
    if (error != cudaSuccess) {
        char what[96];
        snprintf(what, sizeof what, "no %zu bytes of GPU memory", size_bytes);
        return lore_cuda_fail(err, error, what);
    }
    *memory = made;
    return LORE_OK;
}

static void cuda_free(lore_backend *backend, void *memory)
{
    (void)cudaSetDevice(((const lore_cuda_backend *)backend)->device);
    (void)cudaFree(memory);
}

static void cuda_upload(lore_queue *queue, void *to, const void *host, size_t size_bytes)
{
    LORE_CUDA_NOTE(queue, cudaMemcpyAsync(to, host, size_bytes, cudaMemcpyHostToDevice,
                                          lore_cuda_queue_of(queue)->stream));
}

static void cuda_download(lore_queue *queue, void *host, const void *from, size_t size_bytes)
{
    const cudaStream_t stream = lore_cuda_queue_of(queue)->stream;
    LORE_CUDA_NOTE(queue, cudaMemcpyAsync(host, from, size_bytes, cudaMemcpyDeviceToHost, stream));
    LORE_CUDA_NOTE(queue, cudaStreamSynchronize(stream));
}

extern "C" const lore_backend_driver lore_cuda_driver = {
    LORE_BACKEND_CUDA,     cuda_open,        cuda_close,
    cuda_queue_open,       cuda_queue_close, cuda_queue_begin,
    cuda_queue_wait,       cuda_alloc,       cuda_free,
    cuda_upload,           cuda_download,    lore_cuda_weight_pack,
    lore_cuda_weight_free,
};
