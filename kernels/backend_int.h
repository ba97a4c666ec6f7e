/* What the backends share, for files of kernels/ only: the driver table behind backend.h and the
 * host half of it.
 *
 * A backend embeds lore_backend, lore_queue and lore_weight as the first member of its own structs
 * and gives one lore_backend_driver. ref and cpu take memory, copies and queues from
 * backend_host.c; cuda brings its own (kernels/cuda, built with LORE_HAVE_CUDA). backend.c asserts
 * and checks arguments once, before a driver sees them. */
#ifndef LORE_KERNELS_BACKEND_INT_H
#define LORE_KERNELS_BACKEND_INT_H

#include "kernels/lora.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lore_backend_driver {
    lore_backend_kind kind;
    lore_status (*open)(const lore_backend_options *options, lore_backend **backend,
                        lore_error *err);
    void (*close)(lore_backend *backend);
    lore_status (*queue_open)(lore_backend *backend, lore_queue **queue, lore_error *err);
    void (*queue_close)(lore_queue *queue);
    void (*queue_begin)(lore_queue *queue, lore_priority priority); /* NULL: nothing to own */
    void (*queue_wait)(lore_queue *queue); /* until all is done; notes failures in queue->error */
    lore_status (*memory_alloc)(lore_backend *backend, size_t size_bytes, void **memory,
                                lore_error *err);
    void (*memory_free)(lore_backend *backend, void *memory);
    void (*upload)(lore_queue *queue, void *to, const void *host, size_t size_bytes);
    void (*download)(lore_queue *queue, void *host, const void *from, size_t size_bytes);
    /* Parts are checked: count > 0, equal cols > 0, known dtypes, data and scales present, total
     * rows fit int32. */
    lore_status (*weight_pack)(lore_backend *backend, const lore_matrix *parts, int32_t count,
                               lore_weight_use use, lore_weight **weight, lore_error *err);
    void (*weight_free)(lore_weight *weight);
    /* What only a device needs; NULL on the host, where backend.c does without. */
    void (*memory_facts)(const lore_backend *backend, int64_t *free_bytes, int64_t *total_bytes);
    lore_status (*host_alloc)(lore_backend *backend, size_t size_bytes, void **memory,
                              lore_error *err);
    void (*host_free)(lore_backend *backend, void *memory);
    void (*download_later)(lore_queue *queue, void *host, const void *from, size_t size_bytes);
    void (*mark)(lore_queue *queue, int32_t which);
    void (*wait_mark)(lore_queue *queue, int32_t which);
    void (*record_begin)(lore_queue *queue);
    lore_recording *(*record_end)(lore_queue *queue); /* NULL after noting why */
    void (*replay)(lore_queue *queue, lore_recording *recording);
    void (*recording_free)(lore_recording *recording);
    void (*tune)(lore_queue *queue, bool is_on);
    /* As lora.h has them; NULL: matrices of adapters stay as they are, row-major. */
    size_t (*lora_bytes)(const lore_weight *weight, lore_dtype dtype, int32_t rows, int32_t cols);
    size_t (*lora_pack)(const lore_weight *weight, lore_dtype dtype, int32_t cols, const void *rows,
                        int32_t count, void *to);
} lore_backend_driver;

enum { LORE_BACKEND_DESCRIPTION_CAP = 192 };

struct lore_backend {
    const lore_backend_driver *driver; /* set by lore_backend_open, not by the driver */
    lore_backend_options options;
    lore_dtype activation_dtype; /* set by the driver; a zeroed backend's is f32 */
    char description[LORE_BACKEND_DESCRIPTION_CAP];
};

struct lore_weight {
    lore_backend *backend;
    int32_t rows, cols;
    size_t size_bytes; /* what a matmul reads */
};

struct lore_recording {
    lore_backend *backend;
};

extern const lore_backend_driver lore_ref_driver;
extern const lore_backend_driver lore_cpu_driver;
#ifdef LORE_HAVE_CUDA
extern const lore_backend_driver lore_cuda_driver;
int32_t lore_cuda_device_count(void);
lore_status lore_cuda_measure_reads(lore_backend *backend, double *bytes_per_second,
                                    lore_error *err); /* cuda_peak.cu */
#endif

/* Note a failure in the queue; only the first since the last sync is kept. */
void lore_queue_fail(lore_queue *queue, lore_status status, const char *format, ...)
    LORE_PRINTF(3, 4);

/* The part that holds row `row` of stacked parts; *row becomes the row inside it. */
const lore_matrix *lore_matrix_find_part(const lore_matrix *parts, int32_t *row);

/* ---- memory, copies and queues of the backends that live on the host (backend_host.c) ---- */
typedef struct lore_host_queue {
    lore_queue base;
    void *scratch; /* grows to the largest op seen, so that a warm step allocates nothing */
    size_t scratch_bytes;
    bool has_pool; /* between begin and wait */
} lore_host_queue;

lore_status lore_host_queue_open(lore_backend *backend, const lore_ops *ops, lore_queue **queue,
                                 lore_error *err);
void lore_host_queue_close(lore_queue *queue);
void lore_host_queue_begin(lore_queue *queue, lore_priority priority);
void lore_host_queue_wait(lore_queue *queue);
lore_status lore_host_alloc(lore_backend *backend, size_t size_bytes, void **memory,
                            lore_error *err);
void lore_host_free(lore_backend *backend, void *memory);
void lore_host_upload(lore_queue *queue, void *to, const void *host, size_t size_bytes);
void lore_host_download(lore_queue *queue, void *host, const void *from, size_t size_bytes);

/* At least size_bytes of 64-byte aligned scratch of this queue, valid until the next call; NULL
 * after noting the failure. */
void *lore_host_scratch(lore_queue *queue, size_t size_bytes);
/* Threads that lore_host_for spreads over: worker numbers are below it. */
int32_t lore_host_threads(const lore_queue *queue);
/* body over [0, count) in pieces of `grain` on the backend's pool; here and now where there is none
 * or one piece. */
void lore_host_for(lore_queue *queue, int32_t count, int32_t grain, lore_pool_body body,
                   void *self);

/* Whose row lore_op_embed and lore_op_embed_drawn take for row i. drawn NULL: ids are all there. */
static inline int32_t lore_host_id(const int32_t *ids, const int32_t *drawn, int32_t i)
{
    return ids[i] < 0 && drawn != NULL ? drawn[-1 - ids[i]] : ids[i];
}

/* ---- sampling, one implementation for ref and cpu (sample.c) ---- */
/* The two passes over a whole row that are worth a vector unit; neither decides between tokens. */
typedef struct lore_row_math {
    float (*clean)(float *x,
                   int32_t count); /* NaN becomes -inf in place; gives the largest value */
    /* sum of exp(x[i] - top), where x[i] == top counts 1 (so that infinities of one sign are alike)
     */
    double (*sum_exp)(const float *x, int32_t count, float top);
} lore_row_math;
typedef struct lore_candidate {
    float logit;
    int32_t id;
} lore_candidate;
/* lore_op_penalise and lore_op_tops. */
void lore_host_penalise(lore_queue *queue, lore_view logits, const lore_penalty *penalties);
void lore_host_tops(lore_queue *queue, lore_likely *tops, lore_view logits,
                    const lore_sample *samples, const lore_row_math *math);
/* One row of lore_op_sample. candidates [count] is scratch. */
void lore_sample_row(int32_t *id, float *logprob, float *logits, int32_t count,
                     const lore_sample *sample, lore_candidate *candidates,
                     const lore_row_math *math);

/* ---- search of vectors, one implementation for ref and cpu (search.c) ---- */
void lore_host_search(lore_queue *queue, int32_t *rows, float *scores, int32_t hits,
                      const lore_search *search);

#ifdef __cplusplus
}
#endif
#endif
