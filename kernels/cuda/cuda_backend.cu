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

enum { SCRATCH_BYTES_MIN = 1 << 20 };

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
    lore_cuda_search,
    lore_cuda_matmul_fused,
    lore_cuda_layers,
    lore_cuda_add_layernorm,
};

/* ---- failures ---- */

/* After these nothing of this process works on the device any more, whatever it tries. */
static bool is_lost(cudaError_t error)
{
    switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorIllegalInstruction:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorExternalDevice:
    case cudaErrorUnknown: /* what is left of one that fell off the bus */
        return true;
    default:
        return false;
    }
}

lore_status lore_cuda_fail(lore_error *err, cudaError_t error, const char *what)
{
    const lore_status status =
        error == cudaErrorMemoryAllocation ? LORE_ERR_NOMEM : LORE_ERR_DEVICE;
    (void)cudaGetLastError(); /* a failed allocation is not for the next launch to find */
    return lore_fail(err, status, "%s: %s%s", what, cudaGetErrorString(error),
                     is_lost(error) ? " (restart lore, this process has lost the GPU; dmesg and "
                                      "nvidia-smi say more)"
                                    : "");
}

lore_status lore_cuda_fail_memory(lore_error *err, size_t size_bytes)
{
    size_t unused = 0, all = 0;
    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&unused, &all);
    return lore_fail(
        err, LORE_ERR_NOMEM,
        "%zu MiB of GPU memory are wanted, %zu of %zu MiB are free: end what else runs "
        "there, take a smaller model, lower limits.step_tokens_max, or use --device "
        "cpu",
        (size_bytes >> 20) + 1, unused >> 20, all >> 20);
}

void lore_cuda_note(lore_queue *queue, cudaError_t error, const char *call)
{
    if (error != cudaSuccess) {
        lore_error err;
        const lore_status status = lore_cuda_fail(&err, error, "the GPU failed");
        lore_queue_fail(queue, status, "%s, in %.60s", err.message, call);
    }
}

/* ---- memory ----
 * Adapters come and go beside a working engine. cudaFree waits until the whole device is idle, and
 * those who launch wait meanwhile; a pool gives and takes in the order of a stream, of one that has
 * nothing else to do. What it took back it keeps for the next, and counts as free. */

/* Without a pool, which some virtual devices do not have, memory is the driver's. */
static cudaError_t open_pool(lore_cuda_backend *backend)
{
    int is_there = 0;
    uint64_t kept_bytes = UINT64_MAX;
    cudaMemPoolProps facts = {};
    facts.allocType = cudaMemAllocationTypePinned;
    facts.location.type = cudaMemLocationTypeDevice;
    facts.location.id = backend->device;
    cudaError_t error =
        cudaDeviceGetAttribute(&is_there, cudaDevAttrMemoryPoolsSupported, backend->device);
    if (error != cudaSuccess || is_there == 0) {
        return error;
    }
    error = cudaStreamCreateWithFlags(&backend->pool_stream, cudaStreamNonBlocking);
    if (error == cudaSuccess) {
        error = cudaMemPoolCreate(&backend->pool, &facts);
    }
    if (error == cudaSuccess) {
        error =
            cudaMemPoolSetAttribute(backend->pool, cudaMemPoolAttrReleaseThreshold, &kept_bytes);
    }
    return error;
}

static void close_pool(lore_cuda_backend *backend)
{
    if (backend->pool_stream != NULL) {
        (void)cudaStreamSynchronize(backend->pool_stream);
    }
    if (backend->pool != NULL) {
        (void)cudaMemPoolDestroy(backend->pool);
    }
    if (backend->pool_stream != NULL) {
        (void)cudaStreamDestroy(backend->pool_stream);
    }
}

/* What nobody has goes back to the driver, behind what is given back right now. */
static void trim_pool(const lore_cuda_backend *backend)
{
    (void)cudaGetLastError();
    if (backend->pool != NULL) {
        (void)cudaStreamSynchronize(backend->pool_stream);
        (void)cudaMemPoolTrimTo(backend->pool, 0);
    }
}

cudaError_t lore_cuda_malloc(const lore_cuda_backend *backend, void **memory, size_t size_bytes)
{
    cudaError_t error = cudaMalloc(memory, size_bytes);
    if (error == cudaErrorMemoryAllocation && backend->pool != NULL) {
        trim_pool(backend);
        error = cudaMalloc(memory, size_bytes);
    }
    return error;
}

/* Every stream may use it on return. */
static cudaError_t take_from_pool(const lore_cuda_backend *backend, void **memory,
                                  size_t size_bytes)
{
    if (backend->pool == NULL) {
        return cudaMalloc(memory, size_bytes);
    }
    cudaError_t error =
        cudaMallocFromPoolAsync(memory, size_bytes, backend->pool, backend->pool_stream);
    return error == cudaSuccess ? cudaStreamSynchronize(backend->pool_stream) : error;
}

static lore_status cuda_alloc(lore_backend *backend, size_t size_bytes, void **memory,
                              lore_error *err)
{
    const lore_cuda_backend *own = (const lore_cuda_backend *)backend;
    const size_t wanted = size_bytes > 0 ? size_bytes : 1;
    cudaError_t error = cudaSetDevice(own->device);
    void *made = NULL;
    if (error == cudaSuccess) {
        error = take_from_pool(own, &made, wanted);
    }
    if (error == cudaErrorMemoryAllocation) { /* what it keeps may lie in pieces */
        trim_pool(own);
        error = take_from_pool(own, &made, wanted);
    }
    if (error == cudaErrorMemoryAllocation) {
        return lore_cuda_fail_memory(err, size_bytes);
    }
    if (error != cudaSuccess) {
        return lore_cuda_fail(err, error, "no memory of the GPU");
    }
    *memory = made;
    return LORE_OK;
}

static void cuda_memory(const lore_backend *backend, int64_t *free_bytes, int64_t *total_bytes)
{
    const lore_cuda_backend *own = (const lore_cuda_backend *)backend;
    size_t unused = 0, all = 0;
    uint64_t held = 0, used = 0;
    (void)cudaSetDevice(own->device);
    if (cudaMemGetInfo(&unused, &all) != cudaSuccess) {
        return;
    }
    if (own->pool != NULL &&
        cudaMemPoolGetAttribute(own->pool, cudaMemPoolAttrReservedMemCurrent, &held) ==
            cudaSuccess &&
        cudaMemPoolGetAttribute(own->pool, cudaMemPoolAttrUsedMemCurrent, &used) == cudaSuccess) {
        unused += (size_t)(held > used ? held - used : 0);
    }
    *free_bytes = (int64_t)unused;
    *total_bytes = (int64_t)all;
}

/* Nothing under way uses it: nobody waits for that here. */
static void cuda_free(lore_backend *backend, void *memory)
{
    const lore_cuda_backend *own = (const lore_cuda_backend *)backend;
    (void)cudaSetDevice(own->device);
    if (own->pool == NULL) {
        (void)cudaFree(memory);
    } else if (memory != NULL) {
        (void)cudaFreeAsync(memory, own->pool_stream);
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

/* Why no device can be opened, in words that say what to do. Without any driver the runtime speaks
 * of one that is too old. */
static lore_status refuse_device(cudaError_t error, lore_error *err)
{
    int driver = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaGetLastError();
    switch (error) {
    case cudaErrorInsufficientDriver:
        if (driver == 0) {
            return lore_fail(err, LORE_ERR_NOT_FOUND,
                             "no NVIDIA driver is installed here (libcuda.so.1); without a GPU use "
                             "--device cpu");
        }
        return lore_fail(err, LORE_ERR_DEVICE,
                         "the NVIDIA driver is for CUDA %d.%d, this lore for CUDA %d: update the "
                         "driver, or use --device cpu",
                         driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000);
    case cudaErrorNoDevice:
        return lore_fail(err, LORE_ERR_NOT_FOUND,
                         "no NVIDIA GPU is visible here (see nvidia-smi and CUDA_VISIBLE_DEVICES); "
                         "without one use --device cpu");
    case cudaErrorDevicesUnavailable:
        return lore_fail(err, LORE_ERR_DEVICE,
                         "the GPU is busy: another process has it to itself (compute mode, see "
                         "nvidia-smi -q -d COMPUTE); wait, or use --device cpu");
    case cudaErrorMemoryAllocation:
        return lore_fail(err, LORE_ERR_NOMEM,
                         "the GPU has no memory left, not even to begin: end what else runs there "
                         "(see nvidia-smi), or use --device cpu");
    default:
        return lore_fail(err, LORE_ERR_DEVICE, "the GPU cannot be used: %s (see nvidia-smi)",
                         cudaGetErrorString(error));
    }
}

__global__ void presence_kernel()
{
}

/* A build holds code for some GPUs only. That this is none of them would else come out with the
 * first kernel, in words that nobody understands. */
static lore_status check_code(const cudaDeviceProp *facts, lore_error *err)
{
    cudaFuncAttributes found;
    const cudaError_t error = cudaFuncGetAttributes(&found, (const void *)presence_kernel);
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction) {
        (void)cudaGetLastError();
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "this lore was built for other GPUs than %s: build it with "
                         "-DCMAKE_CUDA_ARCHITECTURES=%d%d%s, or use --device cpu",
                         facts->name, facts->major, facts->minor,
                         facts->major == 9 && facts->minor == 0 ? "a" : "");
    }
    return error == cudaSuccess ? LORE_OK : refuse_device(error, err);
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
        return refuse_device(error, err);
    }
    if (facts.major < 8) {
        return lore_fail(err, LORE_ERR_UNSUPPORTED,
                         "%s has compute capability %d.%d; lore needs 8.0 (Ampere) or later",
                         facts.name, facts.major, facts.minor);
    }
    lore_status status = check_code(&facts, err);
    if (status == LORE_OK) {
        status = choose_dtype(options, &dtype, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    lore_cuda_backend *opened = (lore_cuda_backend *)lore_alloc_zero(1, sizeof *opened);
    if (opened == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the cuda backend");
    }
    opened->device = options->device;
    opened->processors = facts.multiProcessorCount;
    opened->has_overlap = facts.major >= 9;
    opened->base.activation_dtype = dtype;
    opened->encode_tensor_map =
        facts.major == 9 && facts.minor == 0 ? lore_cuda_find_tensor_map() : NULL;
    opened->dtype = dtype;
    error = open_pool(opened);
    if (error != cudaSuccess) {
        close_pool(opened);
        lore_free(opened);
        return lore_cuda_fail(err, error, "no pool for memory of the GPU");
    }
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
    lore_cuda_ring_close(opened->ring);
    close_pool(opened);
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
    for (int32_t i = 0; i < LORE_MARKS; i++) {
        if (opened->marks[i] != NULL) {
            (void)cudaEventDestroy(opened->marks[i]);
        }
    }
    lore_cuda_stage_close(opened);
    lore_cuda_blas_close(opened->blas);
    for (int32_t i = 0; i < opened->outgrown_count; i++) {
        (void)cudaFree(opened->outgrown[i]);
    }
    (void)cudaFree(opened->scratch.at);
    (void)cudaFree(opened->packets.at);
    (void)cudaFree(opened->arrived);
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
    const size_t arrived_bytes = LORE_CUDA_ARRIVED * sizeof *opened->arrived;
    if (error == cudaSuccess) {
        error = cudaMalloc((void **)&opened->arrived, arrived_bytes);
    }
    if (error == cudaSuccess) {
        error = cudaMemsetAsync(opened->arrived, 0, arrived_bytes, opened->stream);
    }
    if (error != cudaSuccess) {
        cuda_queue_close(&opened->base);
        return lore_cuda_fail(err, error, "no queue on the GPU");
    }
    opened->base.ops = &cuda_ops;
    opened->base.backend = backend;
    opened->priority = LORE_PRIORITY_LOW; /* of a stream that is given none */
    *queue = &opened->base;
    return LORE_OK;
}

/* A stream has one priority for life, so the queue gets another one: once, as a queue's work is of
 * one kind. Where blocks of several streams wait for a place, those of the higher priority take it:
 * a question's need not wait until the kernel of an ingest's pack has run out of blocks. */
static cudaError_t change_priority(lore_cuda_queue *own, lore_priority priority)
{
    int least = 0, greatest = 0; /* numbers fall as priorities rise */
    cudaStream_t stream = NULL;
    cudaError_t error = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    const int wanted = least - ((int)priority - (int)LORE_PRIORITY_LOW);
    if (error == cudaSuccess) {
        error = cudaStreamSynchronize(own->stream);
    }
    if (error == cudaSuccess) {
        error = cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                             wanted > greatest ? wanted : greatest);
    }
    if (error == cudaSuccess) {
        (void)cudaStreamDestroy(own->stream);
        own->stream = stream;
        own->priority = priority;
    }
    return error;
}

/* The device is a thread's own setting: whoever begins or waits may be new here. */
static void cuda_queue_begin(lore_queue *queue, lore_priority priority)
{
    LORE_CUDA_NOTE(queue, cudaSetDevice(lore_cuda_backend_of(queue)->device));
    if (lore_cuda_queue_of(queue)->priority != priority) {
        LORE_CUDA_NOTE(queue, change_priority(lore_cuda_queue_of(queue), priority));
    }
}

static void cuda_queue_wait(lore_queue *queue)
{
    LORE_CUDA_NOTE(queue, cudaSetDevice(lore_cuda_backend_of(queue)->device));
    LORE_CUDA_NOTE(queue, cudaStreamSynchronize(lore_cuda_queue_of(queue)->stream));
}

/* False after noting the failure. *is_new: it holds nothing of what it held. */
static bool grow(lore_queue *queue, lore_cuda_memory *memory, size_t size_bytes, bool *is_new)
{
    lore_cuda_queue *own = lore_cuda_queue_of(queue);
    *is_new = size_bytes > memory->size_bytes;
    if (!*is_new) {
        return true;
    }
    if (own->is_recording) {
        lore_queue_fail(queue, LORE_ERR_DEVICE,
                        "a recording needs %zu bytes of scratch, its first run had %zu", size_bytes,
                        memory->size_bytes);
        return false;
    }
    if (own->has_recordings && memory->at != NULL) {
        LORE_ASSERT(own->outgrown_count < LORE_CUDA_OUTGROWN);
        own->outgrown[own->outgrown_count++] = memory->at;
    } else {
        LORE_CUDA_NOTE(queue, cudaStreamSynchronize(own->stream)); /* ops under way use it */
        LORE_CUDA_NOTE(queue, cudaFree(memory->at));
    }
    const size_t least = memory->size_bytes + memory->size_bytes / 4;
    size_t grown = size_bytes > least ? size_bytes : least;
    grown = grown > SCRATCH_BYTES_MIN ? grown : (size_t)SCRATCH_BYTES_MIN;
    *memory = {NULL, 0};
    const cudaError_t error = lore_cuda_malloc(lore_cuda_backend_of(queue), &memory->at, grown);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        lore_queue_fail(queue, LORE_ERR_NOMEM,
                        "out of GPU memory for %zu MiB that a step needs beside its pages: lower "
                        "limits.vram_bytes_max or limits.step_tokens_max",
                        grown >> 20);
        return false;
    }
    memory->size_bytes = grown;
    return true;
}

void *lore_cuda_scratch(lore_queue *queue, size_t size_bytes)
{
    lore_cuda_memory *scratch = &lore_cuda_queue_of(queue)->scratch;
    bool is_new = false;
    return grow(queue, scratch, size_bytes, &is_new) ? scratch->at : NULL;
}

uint32_t *lore_cuda_packets(lore_queue *queue, size_t count, uint64_t **packets)
{
    lore_cuda_queue *own = lore_cuda_queue_of(queue);
    const size_t size_bytes = (count + 2) * sizeof **packets;
    bool is_new = false;
    if (!grow(queue, &own->packets, size_bytes, &is_new)) {
        return NULL;
    }
    if (is_new) {
        LORE_CUDA_NOTE(queue,
                       cudaMemsetAsync(own->packets.at, 0, own->packets.size_bytes, own->stream));
    }
    *packets = (uint64_t *)own->packets.at + 2;
    return (uint32_t *)own->packets.at;
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
    LORE_BACKEND_CUDA,
    cuda_open,
    cuda_close,
    cuda_queue_open,
    cuda_queue_close,
    cuda_queue_begin,
    cuda_queue_wait,
    cuda_alloc,
    cuda_free,
    cuda_upload,
    cuda_download,
    lore_cuda_weight_pack,
    lore_cuda_weight_free,
    cuda_memory,
    lore_cuda_host_alloc,
    lore_cuda_host_free,
    lore_cuda_download_later,
    lore_cuda_mark,
    lore_cuda_wait_mark,
    lore_cuda_record_begin,
    lore_cuda_record_end,
    lore_cuda_replay,
    lore_cuda_recording_free,
    lore_cuda_tune,
    NULL, /* matrices of adapters stay row-major */
    NULL,
};
