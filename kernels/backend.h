/* Backends: where numbers live and who computes them. ref (plain loops), cpu (vector units,
 * run-time dispatch), cuda.
 *
 * A backend is opened once and shared; a queue is one thread's line of work on it. Memory and
 * packed weights belong to the backend that made them. On ref and cpu, device memory is host memory
 * and copies are memcpy. Thread: open/close and pack from one thread at a time; a queue from its
 * owner only. */
#ifndef LORE_KERNELS_BACKEND_H
#define LORE_KERNELS_BACKEND_H

#include "base/thread.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lore_backend lore_backend;
typedef struct lore_recording lore_recording;

typedef enum lore_backend_kind {
    LORE_BACKEND_REF,
    LORE_BACKEND_CPU,
    LORE_BACKEND_CUDA
} lore_backend_kind;
typedef enum lore_precision {
    LORE_PRECISION_AUTO =
        0, /* cpu: int8 where the weight is int8, else bf16 where the machine has it, else f32 */
    LORE_PRECISION_F32,
    LORE_PRECISION_BF16,
    LORE_PRECISION_INT8
} lore_precision;
typedef enum lore_isa {
    LORE_ISA_AUTO = 0,
    LORE_ISA_SCALAR,
    LORE_ISA_AVX2,
    LORE_ISA_AVX512,
    LORE_ISA_AMX
} lore_isa;

typedef struct lore_backend_options {
    lore_backend_kind kind;
    int32_t device;           /* cuda: ordinal */
    lore_pool *pool;          /* borrowed; cpu work runs on it; NULL: the calling thread alone */
    lore_priority priority;   /* in the pool, of ops outside of a lore_queue_begin */
    lore_precision precision; /* of matmul; ref is always f32 */
    lore_isa isa; /* cpu, tests: at most this; LORE_ERR_UNSUPPORTED where the machine lacks it */
} lore_backend_options;

LORE_MUST_USE lore_status lore_backend_open(const lore_backend_options *options,
                                            lore_backend **backend, lore_error *err);
void lore_backend_close(lore_backend *backend);
lore_backend_kind lore_backend_get_kind(const lore_backend *backend);
/* One line for people: "cpu: AVX-512 VNNI BF16, 2 threads" / "cuda: NVIDIA H200, 139 GiB, sm_90".
 * Borrowed. */
const char *lore_backend_describe(const lore_backend *backend);
/* Bytes of the device, and how many of them nobody has taken; 0 and 0 on ref and cpu, whose memory
 * is the process's. */
void lore_backend_memory(const lore_backend *backend, int64_t *free_bytes, int64_t *total_bytes);
bool lore_backend_has_cuda(void); /* was lore built with it? */
/* How many CUDA devices this process could open; 0 where built without. */
int32_t lore_backend_cuda_count(void);
/* Bytes a second that a GPU reads from its memory at best, measured now over gigabytes of it (as
 * much as is free): what benchmarks compare with. LORE_ERR_UNSUPPORTED on ref and cpu. */
LORE_MUST_USE lore_status lore_backend_measure_reads(lore_backend *backend,
                                                     double *bytes_per_second, lore_error *err);
/* The best instruction set of this machine. */
lore_isa lore_backend_isa(void);
const char *lore_isa_name(lore_isa isa);
const char *lore_precision_name(lore_precision precision);

LORE_MUST_USE lore_status lore_queue_open(lore_backend *backend, lore_queue **queue,
                                          lore_error *err);
void lore_queue_close(lore_queue *queue);
/* From here to the next lore_queue_sync the ops of this queue are one piece of work of this
 * priority: where a pool computes it, they own the pool, its workers stay awake between them, and
 * only work of higher priority is let in. Without it each op stands in line alone. */
void lore_queue_begin(lore_queue *queue, lore_priority priority);
/* Wait for all submitted work and end what lore_queue_begin began. Returns (and clears) the first
 * failure since the last sync. */
LORE_MUST_USE lore_status lore_queue_sync(lore_queue *queue, lore_error *err);

/* ---- without waiting ----
 * Work may be submitted before that of the last step is read back. A mark stands behind what was
 * submitted so far and can be waited for by itself. On ref and cpu all is done when it is
 * submitted. */
enum { LORE_MARKS = 2 };
/* Set mark `which` (0 .. LORE_MARKS - 1) and end what lore_queue_begin began, without waiting.
 * Returns (and clears) the first failure noted so far: then the mark is not set. */
LORE_MUST_USE lore_status lore_queue_mark(lore_queue *queue, int32_t which, lore_error *err);
/* Wait for what stands before the mark. Fails where the device failed meanwhile. */
LORE_MUST_USE lore_status lore_queue_wait_mark(lore_queue *queue, int32_t which, lore_error *err);

/* ---- recordings ----
 * Ops between begin and end are noted instead of run; a replay runs them all at the cost of one.
 * Arguments, and with them the sizes of all launches, stay as they were; what memory holds is read
 * anew. The same ops must have run once before in the same sizes, so that scratch is large enough:
 * a recording can neither allocate nor wait. Nor is lore_op_penalise for it, which reads memory of
 * the host. */
bool lore_backend_can_record(const lore_backend *backend); /* false on ref and cpu */
void lore_queue_record_begin(lore_queue *queue);
/* NULL after a failure, which is returned and cleared; the queue goes on as before. */
LORE_MUST_USE lore_status lore_queue_record_end(lore_queue *queue, lore_recording **recording,
                                                lore_error *err);
void lore_queue_replay(lore_queue *queue, lore_recording *recording);
void lore_recording_free(lore_recording *recording); /* NULL: nothing */

/* Ops between on and off may take time to find the fastest of several ways to compute what they are
 * asked for in sizes that the queue has not met before, and it keeps to those found. Off waits for
 * all of them. Sizes met first elsewhere keep to a way that is only likely to be the fastest: how a
 * size is computed never changes. Nothing on ref and cpu, which have one way. */
void lore_queue_tune(lore_queue *queue, bool is_on);

/* Memory of the backend, 64-byte aligned, uninitialised. */
LORE_MUST_USE lore_status lore_backend_alloc(lore_backend *backend, size_t size_bytes,
                                             void **memory, lore_error *err);
/* At once, and without waiting: ops under way must not know it any more. */
void lore_backend_free(lore_backend *backend, void *memory);
/* Host memory that the device reads and writes by itself (page-locked), 64-byte aligned; plain
 * memory on ref and cpu. */
LORE_MUST_USE lore_status lore_backend_alloc_host(lore_backend *backend, size_t size_bytes,
                                                  void **memory, lore_error *err);
void lore_backend_free_host(lore_backend *backend, void *memory);
/* Host to backend and back, in queue order. upload: source may be reused on return, but memory of
 * lore_backend_alloc_host only behind a mark or a sync. download: complete on return.
 * download_later: into such memory, complete behind a mark or a sync. */
void lore_queue_upload(lore_queue *queue, void *to, const void *host, size_t size_bytes);
void lore_queue_download(lore_queue *queue, void *host, const void *from, size_t size_bytes);
void lore_queue_download_later(lore_queue *queue, void *host, const void *from, size_t size_bytes);

/* One matrix in host memory: [rows, cols] row-major; int8 has one f32 scale a row.
 *
 * I4: a row is (cols + 1) / 2 bytes, element 2k in the low half of byte k, each 0 .. 15. Stored
 * column k belongs to group k / group and stands for scale * (element - zero); it multiplies
 * x[columns[k]], or x[k] without columns (GPTQ's act-order; Frantar et al. 2022). */
typedef struct lore_matrix {
    lore_dtype dtype;
    int32_t rows, cols;
    const void *data;
    const float *scales;    /* int8: [rows]; I4: [rows, groups], groups = cols / group rounded up */
    int32_t group;          /* I4: a multiple of 32, or at least cols: one scale a row */
    const uint8_t *zeros;   /* I4: [rows, groups], or NULL: all 8 */
    const int32_t *columns; /* I4: [cols], each in 0 .. cols - 1, or NULL */
} lore_matrix;

/* Row `row` of a matrix of any dtype as f32, in the order of x. */
void lore_matrix_read_row(const lore_matrix *matrix, int32_t row, float *out);

/* What a weight is packed for. cpu embeds from the rows as they are given: a table that no matmul
 * reads takes no memory there. */
typedef enum lore_weight_use {
    LORE_USE_MATMUL = 0,
    LORE_USE_BOTH, /* tied embeddings */
    LORE_USE_EMBED
} lore_weight_use;

/* Stack `count` matrices of equal cols on top of one another (q, k, v; gate, up) and pack them for
 * their use. I4 parts that differ in group or columns are packed in the precision of a backend for
 * f32. The matrices may be freed after the call, except that ref and cpu borrow the rows of what is
 * embedded (and all that belongs to them): those live until lore_weight_free. */
LORE_MUST_USE lore_status lore_weight_pack(lore_backend *backend, const lore_matrix *parts,
                                           int32_t count, lore_weight_use use, lore_weight **weight,
                                           lore_error *err);
void lore_weight_free(lore_weight *weight);
int32_t lore_weight_rows(const lore_weight *weight);
int32_t lore_weight_cols(const lore_weight *weight);
size_t lore_weight_bytes(const lore_weight *weight); /* memory a matmul reads */

/* Conversions used by loaders: one f16/bf16 value to f32, and back with round to nearest even. */
float lore_f16_to_f32(uint16_t bits);
float lore_bf16_to_f32(uint16_t bits);
uint16_t lore_f32_to_f16(float value);
uint16_t lore_f32_to_bf16(float value);
/* Symmetric int8 of one row: out[i] = round(x[i] / scale), ties to even, returns scale = max|x| /
 * 127 (1 when all are below 1e-30, which count as zero). */
float lore_quantize_row(int8_t *out, const float *x, int32_t count);

#ifdef __cplusplus
}
#endif
#endif
