/* A device made of the host: every op, copy and mark is put into a list and done by ref only when
 * somebody waits for it, so that whoever reads too early, or writes what is still to be read, gets
 * other numbers. It records as a device does, it can be told to refuse that, and it has a memory of
 * a given size. */
#ifndef LORE_TESTS_DEFERRED_BACKEND_H
#define LORE_TESTS_DEFERRED_BACKEND_H

#include "base/mem.h"
#include "kernels/backend_int.h"
#include "kernels/lora.h"
#include "tests/check.h"

enum { DEFERRED_CALLS = 4096 };

typedef enum deferred_kind {
    CALL_EMBED,
    CALL_RMSNORM,
    CALL_MATMUL,
    CALL_GLU,
    CALL_ADD,
    CALL_SOFTCAP,
    CALL_ROPE,
    CALL_ATTEND,
    CALL_GATHER,
    CALL_PENALISE,
    CALL_TOPS,
    CALL_SAMPLE,
    CALL_COPY,
    CALL_LAYERNORM,
    CALL_PACKED,
    CALL_POOL
} deferred_kind;

typedef struct deferred_call {
    deferred_kind kind;
    lore_view out, x;
    const lore_weight *weight;
    const void *from;
    void *to, *more, *owned; /* owned: host memory of the call, freed when it is done */
    float number;
    bool flag;
    int32_t count;
    size_t bytes;
    lore_activation activation;
    lore_epilogue epilogue;
    lore_lora lora; /* what epilogue.lora, where not NULL, pointed to at the call */
    lore_rope rope;
    lore_pages pages;
    lore_batch batch;
    lore_attention attention;
    int32_t heads, kv_heads, longest;
    lore_pooling pooling;
    lore_drawing drawing;
} deferred_call;

typedef struct deferred_backend {
    lore_backend base;
    lore_backend *ref;
    int64_t total_bytes, taken_bytes;
    bool refuses_recordings, is_lost; /* lost: whoever waits is told so */
    int32_t replays, recordings;
} deferred_backend;

typedef struct deferred_recording {
    lore_recording base;
    deferred_call *calls;
    int32_t count;
} deferred_recording;

typedef struct deferred_queue {
    lore_queue base;
    lore_queue *ref;
    deferred_call calls[DEFERRED_CALLS];
    int32_t done, count, recorded_from; /* -1: not recording */
    int32_t marks[LORE_MARKS];
} deferred_queue;

/* ---- the list ---- */

static void run_matmul(lore_queue *q, const deferred_call *c)
{
    lore_epilogue epilogue = c->epilogue;
    if (epilogue.lora != NULL) {
        epilogue.lora = &c->lora;
    }
    lore_op_matmul(q, c->out, c->x, c->weight, epilogue);
}

static void deferred_run(lore_queue *q, const deferred_call *c)
{
    switch (c->kind) {
    case CALL_EMBED:
        q->ops->embed(q, c->out, c->weight, c->from, c->more, c->number, c->flag);
        return;
    case CALL_RMSNORM:
        lore_op_rmsnorm(q, c->out, c->x, c->from, c->number);
        return;
    case CALL_MATMUL:
        run_matmul(q, c);
        return;
    case CALL_GLU:
        lore_op_glu(q, c->out, c->x, c->activation);
        return;
    case CALL_ADD:
        lore_op_add(q, c->out, c->x);
        return;
    case CALL_SOFTCAP:
        lore_op_softcap(q, c->x, c->number);
        return;
    case CALL_ROPE:
        lore_op_rope_append(q, c->x, &c->rope, &c->pages, &c->batch);
        return;
    case CALL_ATTEND:
        lore_op_attend_paged(q, c->out, c->x, &c->pages, &c->batch, &c->attention);
        return;
    case CALL_GATHER:
        lore_op_gather(q, c->out, c->x, c->from);
        return;
    case CALL_PENALISE:
        lore_op_penalise(q, c->x, c->from);
        return;
    case CALL_TOPS:
        lore_op_tops(q, c->to, c->x, c->from);
        return;
    case CALL_SAMPLE:
        lore_op_sample(q, c->to, c->more, c->x, c->from, c->drawing);
        return;
    case CALL_COPY:
        memcpy(c->to, c->from, c->bytes);
        return;
    case CALL_LAYERNORM:
        lore_op_layernorm(q, c->out, c->x, c->from, c->more, c->number);
        return;
    case CALL_PACKED:
        lore_op_attend_packed(q, c->out, c->x, c->heads, c->kv_heads, c->count, c->from, c->longest,
                              c->flag, &c->attention);
        return;
    case CALL_POOL:
        lore_op_pool(q, c->out, c->x, c->from, c->pooling, c->flag);
        return;
    }
}

static void deferred_add(lore_queue *queue, deferred_call call)
{
    deferred_queue *own = (deferred_queue *)queue;
    CHECK(own->count < DEFERRED_CALLS);
    own->calls[own->count++] = call;
}

/* All calls before number `until`. */
static void deferred_flush(deferred_queue *own, int32_t until)
{
    lore_error err;
    CHECK(own->recorded_from < 0); /* nobody waits while recording */
    for (; own->done < until; own->done++) {
        deferred_run(own->ref, &own->calls[own->done]);
        lore_free(own->calls[own->done].owned);
    }
    if (lore_queue_sync(own->ref, &err) != LORE_OK) {
        lore_queue_fail(&own->base, err.status, "%s", err.message);
    }
    if (((deferred_backend *)own->base.backend)->is_lost) {
        lore_queue_fail(&own->base, LORE_ERR_DEVICE, "the device is lost");
    }
    if (own->done == own->count) {
        own->done = own->count = 0;
        memset(own->marks, 0, sizeof own->marks);
    }
}

/* ---- ops ---- */

static void deferred_embed(lore_queue *q, lore_view out, const lore_weight *table,
                           const int32_t *ids, const int32_t *drawn, float scale,
                           bool is_accumulating)
{
    deferred_add(q, (deferred_call){.kind = CALL_EMBED,
                                    .out = out,
                                    .weight = table,
                                    .from = ids,
                                    .more = (void *)(uintptr_t)drawn,
                                    .number = scale,
                                    .flag = is_accumulating});
}

static void deferred_rmsnorm(lore_queue *q, lore_view out, lore_view x, const float *w, float eps)
{
    deferred_add(
        q, (deferred_call){.kind = CALL_RMSNORM, .out = out, .x = x, .from = w, .number = eps});
}

static void deferred_matmul(lore_queue *q, lore_view out, lore_view x, const lore_weight *w,
                            lore_epilogue epilogue)
{
    deferred_call call = {
        .kind = CALL_MATMUL, .out = out, .x = x, .weight = w, .epilogue = epilogue};
    if (epilogue.lora != NULL) {
        call.lora = *epilogue.lora;
    }
    deferred_add(q, call);
}

static void deferred_glu(lore_queue *q, lore_view out, lore_view x, lore_activation activation)
{
    deferred_add(q,
                 (deferred_call){.kind = CALL_GLU, .out = out, .x = x, .activation = activation});
}

static void deferred_sum(lore_queue *q, lore_view out, lore_view x)
{
    deferred_add(q, (deferred_call){.kind = CALL_ADD, .out = out, .x = x});
}

static void deferred_softcap(lore_queue *q, lore_view x, float cap)
{
    deferred_add(q, (deferred_call){.kind = CALL_SOFTCAP, .x = x, .number = cap});
}

static void deferred_rope(lore_queue *q, lore_view qkv, const lore_rope *rope,
                          const lore_pages *pages, const lore_batch *batch)
{
    deferred_add(q,
                 (deferred_call){
                     .kind = CALL_ROPE, .x = qkv, .rope = *rope, .pages = *pages, .batch = *batch});
}

static void deferred_attend(lore_queue *q, lore_view out, lore_view queries,
                            const lore_pages *pages, const lore_batch *batch,
                            const lore_attention *attention)
{
    deferred_add(q, (deferred_call){.kind = CALL_ATTEND,
                                    .out = out,
                                    .x = queries,
                                    .pages = *pages,
                                    .batch = *batch,
                                    .attention = *attention});
}

static void deferred_gather(lore_queue *q, lore_view out, lore_view x, const int32_t *rows)
{
    deferred_add(q, (deferred_call){.kind = CALL_GATHER, .out = out, .x = x, .from = rows});
}

/* Taken along, as a device's staging does. */
static void deferred_penalise(lore_queue *q, lore_view logits, const lore_penalty *penalties)
{
    size_t ids_count = 0, bias_count = 0, rows = (size_t)logits.rows;
    for (size_t r = 0; r < rows; r++) {
        ids_count += (size_t)penalties[r].count;
        bias_count += (size_t)penalties[r].bias_count;
    }
    lore_penalty *kept = lore_alloc(rows * sizeof *kept + bias_count * sizeof(lore_bias) +
                                    ids_count * sizeof(int32_t));
    CHECK(kept != NULL);
    lore_bias *biases = (lore_bias *)(kept + rows);
    int32_t *ids = (int32_t *)(biases + bias_count);
    for (size_t r = 0; r < rows; r++) {
        kept[r] = penalties[r];
        kept[r].biases = biases;
        kept[r].ids = ids;
        for (int32_t i = 0; i < penalties[r].bias_count; i++) {
            *biases++ = penalties[r].biases[i];
        }
        for (int32_t i = 0; i < penalties[r].count; i++) {
            *ids++ = penalties[r].ids[i];
        }
    }
    deferred_add(q,
                 (deferred_call){.kind = CALL_PENALISE, .x = logits, .from = kept, .owned = kept});
}

static void deferred_tops(lore_queue *q, lore_likely *tops, lore_view logits,
                          const lore_sample *samples)
{
    deferred_add(q, (deferred_call){.kind = CALL_TOPS, .to = tops, .x = logits, .from = samples});
}

static void deferred_sample(lore_queue *q, int32_t *ids, float *logprobs, lore_view logits,
                            const lore_sample *samples, lore_drawing widest)
{
    deferred_add(q, (deferred_call){.kind = CALL_SAMPLE,
                                    .to = ids,
                                    .more = logprobs,
                                    .x = logits,
                                    .from = samples,
                                    .drawing = widest});
}

/* ---- an encoder's ---- */

static void deferred_layernorm(lore_queue *q, lore_view out, lore_view x, const float *w,
                               const float *b, float eps)
{
    deferred_add(q, (deferred_call){.kind = CALL_LAYERNORM,
                                    .out = out,
                                    .x = x,
                                    .from = w,
                                    .more = (void *)(uintptr_t)b,
                                    .number = eps});
}

static void deferred_packed(lore_queue *q, lore_view out, lore_view qkv, int32_t heads,
                            int32_t kv_heads, int32_t sequences, const int32_t *row_start,
                            int32_t rows_max, bool is_causal, const lore_attention *attention)
{
    deferred_add(q, (deferred_call){.kind = CALL_PACKED,
                                    .out = out,
                                    .x = qkv,
                                    .heads = heads,
                                    .kv_heads = kv_heads,
                                    .count = sequences,
                                    .from = row_start,
                                    .longest = rows_max,
                                    .flag = is_causal,
                                    .attention = *attention});
}

static void deferred_pool(lore_queue *q, lore_view out, lore_view x, const int32_t *row_start,
                          lore_pooling pooling, bool is_normalised)
{
    deferred_add(q, (deferred_call){.kind = CALL_POOL,
                                    .out = out,
                                    .x = x,
                                    .from = row_start,
                                    .pooling = pooling,
                                    .flag = is_normalised});
}

static const lore_ops deferred_ops = {.name = "deferred",
                                      .embed = deferred_embed,
                                      .rmsnorm = deferred_rmsnorm,
                                      .matmul = deferred_matmul,
                                      .glu = deferred_glu,
                                      .add = deferred_sum,
                                      .softcap = deferred_softcap,
                                      .rope_append = deferred_rope,
                                      .attend_paged = deferred_attend,
                                      .gather = deferred_gather,
                                      .penalise = deferred_penalise,
                                      .tops = deferred_tops,
                                      .sample = deferred_sample,
                                      .layernorm = deferred_layernorm,
                                      .attend_packed = deferred_packed,
                                      .pool = deferred_pool};

/* ---- the driver ---- */

static lore_status deferred_queue_open(lore_backend *backend, lore_queue **queue, lore_error *err)
{
    deferred_queue *made = lore_alloc_zero(1, sizeof *made);
    CHECK(made != NULL);
    made->base.ops = &deferred_ops;
    made->base.backend = backend;
    made->recorded_from = -1;
    *queue = &made->base;
    return lore_queue_open(((deferred_backend *)backend)->ref, &made->ref, err);
}

static void deferred_wait(lore_queue *queue)
{
    deferred_flush((deferred_queue *)queue, ((deferred_queue *)queue)->count);
}

static void deferred_queue_close(lore_queue *queue)
{
    deferred_wait(queue);
    lore_queue_close(((deferred_queue *)queue)->ref);
    lore_free(queue);
}

static lore_status deferred_alloc(lore_backend *backend, size_t bytes, void **memory,
                                  lore_error *err)
{
    ((deferred_backend *)backend)->taken_bytes += (int64_t)bytes;
    return lore_host_alloc(backend, bytes, memory, err);
}

/* What is uploaded here is page-locked or waited for at once, so that the source need not be taken
 * along: a source that is reused too early shows. */
static void deferred_upload(lore_queue *queue, void *to, const void *host, size_t bytes)
{
    deferred_add(queue, (deferred_call){.kind = CALL_COPY, .to = to, .from = host, .bytes = bytes});
}

static void deferred_download(lore_queue *queue, void *host, const void *from, size_t bytes)
{
    deferred_wait(queue);
    memcpy(host, from, bytes);
}

static void deferred_download_later(lore_queue *queue, void *host, const void *from, size_t bytes)
{
    deferred_upload(queue, host, from, bytes);
}

static lore_status deferred_pack(lore_backend *backend, const lore_matrix *parts, int32_t count,
                                 lore_weight_use use, lore_weight **weight, lore_error *err)
{
    return lore_weight_pack(((deferred_backend *)backend)->ref, parts, count, use, weight, err);
}

static void deferred_memory(const lore_backend *backend, int64_t *unused, int64_t *total)
{
    const deferred_backend *own = (const deferred_backend *)backend;
    *total = own->total_bytes;
    *unused = own->total_bytes - own->taken_bytes;
}

static void deferred_mark(lore_queue *queue, int32_t which)
{
    ((deferred_queue *)queue)->marks[which] = ((deferred_queue *)queue)->count;
}

static void deferred_wait_mark(lore_queue *queue, int32_t which)
{
    deferred_flush((deferred_queue *)queue, ((deferred_queue *)queue)->marks[which]);
}

static void deferred_record_begin(lore_queue *queue)
{
    ((deferred_queue *)queue)->recorded_from = ((deferred_queue *)queue)->count;
}

static lore_recording *deferred_record_end(lore_queue *queue)
{
    deferred_queue *own = (deferred_queue *)queue;
    deferred_backend *backend = (deferred_backend *)queue->backend;
    int32_t first = own->recorded_from, count = own->count - first;
    own->recorded_from = -1;
    own->count = first;
    if (backend->refuses_recordings) {
        lore_queue_fail(queue, LORE_ERR_DEVICE, "recordings are refused");
        return NULL;
    }
    deferred_recording *made = lore_alloc_zero(1, sizeof *made);
    CHECK(made != NULL && count > 0);
    made->base.backend = queue->backend;
    made->calls = lore_alloc((size_t)count * sizeof *made->calls);
    CHECK(made->calls != NULL);
    memcpy(made->calls, own->calls + first, (size_t)count * sizeof *made->calls);
    made->count = count;
    backend->recordings++;
    return &made->base;
}

static void deferred_replay(lore_queue *queue, lore_recording *recording)
{
    deferred_recording *made = (deferred_recording *)recording;
    ((deferred_backend *)queue->backend)->replays++;
    for (int32_t i = 0; i < made->count; i++) {
        deferred_add(queue, made->calls[i]);
    }
}

static void deferred_recording_free(lore_recording *recording)
{
    lore_free(((deferred_recording *)recording)->calls);
    lore_free(recording);
}

static const lore_backend_driver deferred_driver = {.kind = LORE_BACKEND_CUDA,
                                                    .queue_open = deferred_queue_open,
                                                    .queue_close = deferred_queue_close,
                                                    .queue_wait = deferred_wait,
                                                    .memory_alloc = deferred_alloc,
                                                    .memory_free = lore_host_free,
                                                    .upload = deferred_upload,
                                                    .download = deferred_download,
                                                    .weight_pack = deferred_pack,
                                                    .memory_facts = deferred_memory,
                                                    .host_alloc = lore_host_alloc,
                                                    .host_free = lore_host_free,
                                                    .download_later = deferred_download_later,
                                                    .mark = deferred_mark,
                                                    .wait_mark = deferred_wait_mark,
                                                    .record_begin = deferred_record_begin,
                                                    .record_end = deferred_record_end,
                                                    .replay = deferred_replay,
                                                    .recording_free = deferred_recording_free};

static deferred_backend deferred_open(lore_backend *ref, int64_t total_bytes)
{
    return (deferred_backend){
        .base = {.driver = &deferred_driver}, .ref = ref, .total_bytes = total_bytes};
}

#endif
