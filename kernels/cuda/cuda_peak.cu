/* What the memory of a device gives at best, for benchmarks to be compared with: a kernel that only
 * reads and sums.
 *
 * The buffer is gigabytes, far more than a cache of tens of megabytes, and holds random bits, since
 * zeros may be compressed on their way and do not heat the wires. Every thread has several loads of
 * 16 bytes under way; the sums are written, so that no load can be left out. Ways of reading with
 * different depths take turns, and the median of the best is the answer: medians are compared with
 * it. */
#include "kernels/cuda/cuda_int.h"

enum {
    READ_MIB = 4096,
    READ_MIB_LEAST = 512, /* where a device has little left: still several times its cache */
    THREADS = 512,
    BLOCKS_EACH = 4, /* of a multiprocessor: all 2048 threads of it */
    PASSES = 15,
    WARM_PASSES = 2
};

/* splitmix64 of the place: as random as a weight's bits. */
__global__ void fill_kernel(uint4 *to, size_t count)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        uint64_t a = (i + 1) * 0x9e3779b97f4a7c15ull;
        a = (a ^ (a >> 30)) * 0xbf58476d1ce4e5b9ull;
        a = (a ^ (a >> 27)) * 0x94d049bb133111ebull;
        const uint64_t b = (a ^ (a >> 31)) * 0xd6e8feb86659fd93ull;
        to[i] = make_uint4((uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b, (uint32_t)(b >> 32));
    }
}

/* Each thread sums DEPTH words of 16 bytes at a time, the grid apart; sums [threads of the grid].
 */
template <int DEPTH>
__global__ void __launch_bounds__(THREADS)
    read_kernel(uint32_t *sums, const uint4 *from, size_t count)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    const size_t self = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t sum = 0;
    size_t i = self;
    for (; i + (DEPTH - 1) * step < count; i += DEPTH * step) {
        uint4 words[DEPTH];
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            words[k] = __ldg(from + i + k * step);
        }
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            sum += words[k].x + words[k].y + words[k].z + words[k].w;
        }
    }
    for (; i < count; i += step) {
        const uint4 word = __ldg(from + i);
        sum += word.x + word.y + word.z + word.w;
    }
    sums[self] = sum;
}

typedef struct reading {
    uint4 *words;
    uint32_t *sums;
    size_t count; /* of words */
    int blocks;
    cudaStream_t stream;
    cudaEvent_t begin, end;
} reading;

static void reading_free(reading *r)
{
    (void)(r->begin != NULL && cudaEventDestroy(r->begin));
    (void)(r->end != NULL && cudaEventDestroy(r->end));
    (void)(r->stream != NULL && cudaStreamDestroy(r->stream));
    (void)cudaFree(r->words);
    (void)cudaFree(r->sums);
}

/* As many gigabytes as the device has left, down to the least. */
static cudaError_t take_words(reading *r)
{
    cudaError_t error = cudaErrorMemoryAllocation;
    for (size_t mib = READ_MIB; mib >= READ_MIB_LEAST && error != cudaSuccess; mib /= 2) {
        error = cudaMalloc((void **)&r->words, mib << 20);
        r->count = (mib << 20) / sizeof(uint4);
        if (error != cudaSuccess) {
            (void)cudaGetLastError(); /* not for the next launch to find */
        }
    }
    return error;
}

static cudaError_t reading_new(reading *r, const lore_cuda_backend *backend)
{
    r->blocks = backend->processors * BLOCKS_EACH;
    cudaError_t error = cudaSetDevice(backend->device);
    if (error == cudaSuccess) {
        error = take_words(r);
    }
    if (error == cudaSuccess) {
        error = cudaMalloc((void **)&r->sums, (size_t)r->blocks * THREADS * sizeof *r->sums);
    }
    if (error == cudaSuccess) {
        error = cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking);
    }
    if (error == cudaSuccess) {
        error = cudaEventCreate(&r->begin);
    }
    if (error == cudaSuccess) {
        error = cudaEventCreate(&r->end);
    }
    if (error == cudaSuccess) {
        fill_kernel<<<r->blocks, THREADS, 0, r->stream>>>(r->words, r->count);
        error = cudaGetLastError();
    }
    return error;
}

typedef void (*read_function)(uint32_t *sums, const uint4 *from, size_t count);

static cudaError_t time_pass(const reading *r, read_function way, float *ms)
{
    cudaError_t error = cudaEventRecord(r->begin, r->stream);
    if (error == cudaSuccess) {
        way<<<r->blocks, THREADS, 0, r->stream>>>(r->sums, r->words, r->count);
        error = cudaGetLastError();
    }
    if (error == cudaSuccess) {
        error = cudaEventRecord(r->end, r->stream);
    }
    if (error == cudaSuccess) {
        error = cudaEventSynchronize(r->end);
    }
    return error == cudaSuccess ? cudaEventElapsedTime(ms, r->begin, r->end) : error;
}

/* Sorts them by insertion. */
static float median_of(float *times)
{
    for (int i = 1; i < PASSES; i++) {
        const float time = times[i];
        int at = i;
        for (; at > 0 && times[at - 1] > time; at--) {
            times[at] = times[at - 1];
        }
        times[at] = time;
    }
    return times[PASSES / 2];
}

static cudaError_t time_reads(const reading *r, double *rate)
{
    static const read_function ways[] = {read_kernel<2>, read_kernel<4>, read_kernel<8>};
    enum { WAYS = sizeof ways / sizeof ways[0] };
    float times[WAYS][PASSES];
    cudaError_t error = cudaSuccess;
    for (int pass = -WARM_PASSES; pass < PASSES; pass++) {
        for (int way = 0; way < WAYS && error == cudaSuccess; way++) {
            float ms = 0.0f;
            error = time_pass(r, ways[way], &ms);
            times[way][pass < 0 ? 0 : pass] = ms;
        }
    }
    *rate = 0.0;
    for (int way = 0; way < WAYS && error == cudaSuccess; way++) {
        const double seconds = (double)median_of(times[way]) * 1e-3;
        const double reached = (double)(r->count * sizeof(uint4)) / seconds;
        *rate = reached > *rate ? reached : *rate;
    }
    return error;
}

extern "C" lore_status lore_cuda_measure_reads(lore_backend *backend, double *bytes_per_second,
                                               lore_error *err)
{
    reading r = {};
    double rate = 0.0;
    cudaError_t error = reading_new(&r, (const lore_cuda_backend *)backend);
    if (error == cudaSuccess) {
        error = time_reads(&r, &rate);
    }
    reading_free(&r);
    if (error != cudaSuccess) {
        return lore_cuda_fail(err, error, "the GPU's memory cannot be measured");
    }
    *bytes_per_second = rate;
    return LORE_OK;
}
