/* Steps that follow one another without waiting: marks in the stream, recordings of it, and copies
 * that go on by themselves.
 *
 * A recording is a graph captured from the stream (CUDA C++ Programming Guide, "CUDA Graphs"): one
 * launch instead of some three hundred. While it is captured nothing runs, so nothing may be
 * allocated or waited for; a call that tries fails, the capture with it, and the stream is as
 * before. Only this thread's calls are held to that: others load weights meanwhile. */
#include "kernels/cuda/cuda_int.h"

#include "base/mem.h"

typedef struct cuda_recording {
    lore_recording base;
    cudaGraphExec_t graph;
} cuda_recording;

/* ---- marks ---- */

void lore_cuda_mark(lore_queue *queue, int32_t which)
{
    lore_cuda_queue *own = lore_cuda_queue_of(queue);
    if (own->marks[which] == NULL) {
        LORE_CUDA_NOTE(queue, cudaEventCreateWithFlags(&own->marks[which], cudaEventDisableTiming));
    }
    if (own->marks[which] != NULL) {
        LORE_CUDA_NOTE(queue, cudaEventRecord(own->marks[which], own->stream));
    }
}

void lore_cuda_wait_mark(lore_queue *queue, int32_t which)
{
    const cudaEvent_t mark = lore_cuda_queue_of(queue)->marks[which];
    LORE_CUDA_NOTE(queue, cudaSetDevice(lore_cuda_backend_of(queue)->device));
    if (mark != NULL) {
        LORE_CUDA_NOTE(queue, cudaEventSynchronize(mark));
    }
}

/* ---- memory that the device reaches ---- */

lore_status lore_cuda_host_alloc(lore_backend *backend, size_t size_bytes, void **memory,
                                 lore_error *err)
{
    void *made = NULL;
    cudaError_t error = cudaSetDevice(((const lore_cuda_backend *)backend)->device);
    if (error == cudaSuccess) {
        error = cudaMallocHost(&made, size_bytes > 0 ? size_bytes : 1);
    }
    if (error != cudaSuccess) {
        return lore_cuda_fail(err, error, "no page-locked memory for copies to the GPU");
    }
    *memory = made;
    return LORE_OK;
}

void lore_cuda_host_free(lore_backend *backend, void *memory)
{
    (void)cudaSetDevice(((const lore_cuda_backend *)backend)->device);
    (void)cudaFreeHost(memory);
}

void lore_cuda_download_later(lore_queue *queue, void *host, const void *from, size_t size_bytes)
{
    LORE_CUDA_NOTE(queue, cudaMemcpyAsync(host, from, size_bytes, cudaMemcpyDeviceToHost,
                                          lore_cuda_queue_of(queue)->stream));
}

enum { STAGE_BYTES_MIN = 64 << 10 };

void *lore_cuda_stage(lore_queue *queue, size_t size_bytes)
{
    lore_cuda_queue *own = lore_cuda_queue_of(queue);
    own->stage = 1 - own->stage;
    lore_cuda_staging *s = &own->staging[own->stage];
    if (s->is_read == NULL) {
        LORE_CUDA_NOTE(queue, cudaEventCreateWithFlags(&s->is_read, cudaEventDisableTiming));
    } else {
        LORE_CUDA_NOTE(queue, cudaEventSynchronize(s->is_read)); /* of the copy before the last */
    }
    if (size_bytes > s->size_bytes) {
        LORE_CUDA_NOTE(queue, cudaFreeHost(s->memory));
        s->memory = NULL;
        s->size_bytes = 2 * size_bytes > STAGE_BYTES_MIN ? 2 * size_bytes : (size_t)STAGE_BYTES_MIN;
        LORE_CUDA_NOTE(queue, cudaMallocHost(&s->memory, s->size_bytes));
        s->size_bytes = s->memory != NULL ? s->size_bytes : 0;
    }
    return s->is_read != NULL ? s->memory : NULL;
}

void lore_cuda_stage_sent(lore_queue *queue)
{
    lore_cuda_queue *own = lore_cuda_queue_of(queue);
    LORE_CUDA_NOTE(queue, cudaEventRecord(own->staging[own->stage].is_read, own->stream));
}

void lore_cuda_stage_close(lore_cuda_queue *queue)
{
    for (int i = 0; i < 2; i++) {
        (void)cudaFreeHost(queue->staging[i].memory);
        if (queue->staging[i].is_read != NULL) {
            (void)cudaEventDestroy(queue->staging[i].is_read);
        }
    }
}

/* ---- recordings ---- */

void lore_cuda_record_begin(lore_queue *queue)
{
    lore_cuda_queue *own = lore_cuda_queue_of(queue);
    LORE_CUDA_NOTE(queue, cudaSetDevice(lore_cuda_backend_of(queue)->device));
    LORE_CUDA_NOTE(queue, cudaStreamBeginCapture(own->stream, cudaStreamCaptureModeThreadLocal));
    own->is_recording = queue->error.status == LORE_OK;
}

/* An executable graph of what was captured. */
static cudaError_t make_graph(cudaStream_t stream, cudaGraphExec_t *made)
{
    cudaGraph_t captured = NULL;
    cudaError_t error = cudaStreamEndCapture(stream, &captured);
    if (error == cudaSuccess) {
        error = cudaGraphInstantiate(made, captured, 0);
    }
    if (error == cudaSuccess) {
        error = cudaGraphUpload(*made, stream); /* not at the first replay, which is waited for */
    }
    if (captured != NULL) {
        (void)cudaGraphDestroy(captured);
    }
    return error;
}

lore_recording *lore_cuda_record_end(lore_queue *queue)
{
    lore_cuda_queue *own = lore_cuda_queue_of(queue);
    if (!own->is_recording) {
        return NULL; /* begin has noted why */
    }
    own->is_recording = false;
    cudaGraphExec_t graph = NULL;
    LORE_CUDA_NOTE(queue, make_graph(own->stream, &graph));
    cuda_recording *made = (cuda_recording *)lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        lore_queue_fail(queue, LORE_ERR_NOMEM, "out of memory for a recording");
    }
    if (queue->error.status != LORE_OK) { /* a launch, the capture or the memory */
        if (graph != NULL) {
            (void)cudaGraphExecDestroy(graph);
        }
        lore_free(made);
        return NULL;
    }
    own->has_recordings = true;
    made->base.backend = queue->backend;
    made->graph = graph;
    return &made->base;
}

void lore_cuda_replay(lore_queue *queue, lore_recording *recording)
{
    LORE_CUDA_NOTE(queue, cudaGraphLaunch(((cuda_recording *)recording)->graph,
                                          lore_cuda_queue_of(queue)->stream));
}

void lore_cuda_recording_free(lore_recording *recording)
{
    cuda_recording *own = (cuda_recording *)recording;
    (void)cudaSetDevice(((const lore_cuda_backend *)recording->backend)->device);
    (void)cudaGraphExecDestroy(own->graph);
    lore_free(own);
}
