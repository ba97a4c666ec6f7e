/* Weights on their way to the device: gigabytes that lie in the page cache, copied at the speed of
 * the bus.
 *
 * The copy engine only keeps its pace when it reads page-locked memory, and one core fills such
 * memory slower than the engine empties it. So there is a ring of page-locked pieces: all threads
 * of the pool fill one (a copy from the mapped file, or whatever a weight is unfolded to) while the
 * engine still reads those before it. The ring stays with the backend, a few megabytes against
 * making it anew for each of some hundred weights. */
#include "kernels/cuda/cuda_int.h"

#include "base/mem.h"

enum { PIECES = 4, PIECE_BYTES = 8 << 20, GRAIN_BYTES = 256 << 10 };

struct lore_cuda_ring {
    cudaStream_t stream;
    char *memory[PIECES];
    cudaEvent_t is_free[PIECES];
    size_t piece_bytes;
    unsigned turn;
};

static void ring_close(lore_cuda_ring *ring)
{
    if (ring->stream != NULL) {
        (void)cudaStreamSynchronize(ring->stream);
        (void)cudaStreamDestroy(ring->stream);
    }
    for (int i = 0; i < PIECES; i++) {
        (void)cudaFreeHost(ring->memory[i]);
        (void)(ring->is_free[i] != NULL && cudaEventDestroy(ring->is_free[i]) != cudaSuccess);
    }
    lore_free(ring);
}

static cudaError_t ring_open(lore_cuda_ring **opened, size_t piece_bytes)
{
    lore_cuda_ring *ring = (lore_cuda_ring *)lore_alloc_zero(1, sizeof *ring);
    if (ring == NULL) {
        return cudaErrorMemoryAllocation;
    }
    ring->piece_bytes = piece_bytes;
    cudaError_t error = cudaStreamCreateWithFlags(&ring->stream, cudaStreamNonBlocking);
    for (int i = 0; i < PIECES && error == cudaSuccess; i++) {
        error = cudaMallocHost((void **)&ring->memory[i], piece_bytes);
        if (error == cudaSuccess) {
            error = cudaEventCreateWithFlags(&ring->is_free[i], cudaEventDisableTiming);
        }
    }
    if (error != cudaSuccess) {
        ring_close(ring);
        return error;
    }
    *opened = ring;
    return cudaSuccess;
}

void lore_cuda_ring_close(lore_cuda_ring *ring)
{
    if (ring != NULL) {
        ring_close(ring);
    }
}

/* Rows [first, first + count) of a source, filled by the pool. */
typedef struct filling {
    lore_cuda_fill fill;
    void *self;
    char *to;
    int64_t first;
    size_t row_bytes;
} filling;

static void fill_rows(void *self, int32_t begin, int32_t end, int32_t worker)
{
    const filling *f = (const filling *)self;
    (void)worker;
    f->fill(f->self, f->to + (size_t)begin * f->row_bytes, f->first + begin, end - begin);
}

static void fill_piece(const lore_cuda_backend *backend, filling *f, int32_t rows)
{
    const int32_t grain = f->row_bytes >= GRAIN_BYTES ? 1 : (int32_t)(GRAIN_BYTES / f->row_bytes);
    if (backend->base.options.pool == NULL) {
        fill_rows(f, 0, rows, 0);
        return;
    }
    lore_pool_for(backend->base.options.pool, rows, grain, LORE_PRIORITY_NORMAL, fill_rows, f);
}

static cudaError_t take_ring(lore_cuda_backend *backend, size_t row_bytes)
{
    const size_t wanted = row_bytes > PIECE_BYTES ? row_bytes : (size_t)PIECE_BYTES;
    cudaError_t error = cudaSetDevice(backend->device);
    if (error == cudaSuccess && (backend->ring == NULL || backend->ring->piece_bytes < wanted)) {
        lore_cuda_ring_close(backend->ring);
        backend->ring = NULL;
        error = ring_open(&backend->ring, wanted);
    }
    return error;
}

cudaError_t lore_cuda_upload_large(lore_backend *backend, void *to, int64_t rows, size_t row_bytes,
                                   lore_cuda_fill fill, void *self)
{
    lore_cuda_backend *own = (lore_cuda_backend *)backend;
    if (rows == 0 || row_bytes == 0) {
        return cudaSuccess;
    }
    cudaError_t error = take_ring(own, row_bytes);
    const int64_t most = error == cudaSuccess ? (int64_t)(own->ring->piece_bytes / row_bytes) : 1;
    for (int64_t first = 0; first < rows && error == cudaSuccess; first += most) {
        lore_cuda_ring *ring = own->ring;
        const int32_t count = (int32_t)(rows - first < most ? rows - first : most);
        const unsigned turn = ring->turn++ % PIECES;
        filling f = {fill, self, ring->memory[turn], first, row_bytes};
        error = cudaEventSynchronize(ring->is_free[turn]); /* its last copy, of any weight */
        if (error == cudaSuccess) {
            fill_piece(own, &f, count);
            error =
                cudaMemcpyAsync((char *)to + (size_t)first * row_bytes, ring->memory[turn],
                                (size_t)count * row_bytes, cudaMemcpyHostToDevice, ring->stream);
        }
        if (error == cudaSuccess) {
            error = cudaEventRecord(ring->is_free[turn], ring->stream);
        }
    }
    /* Queues have streams of their own, which know nothing of this one. */
    const cudaError_t last =
        own->ring != NULL ? cudaStreamSynchronize(own->ring->stream) : cudaSuccess;
    return error != cudaSuccess ? error : last;
}
