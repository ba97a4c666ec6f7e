/* The stages of an ingest run that have threads of their own: reader, cleaners, embedders. How they
 * hang together is told in pipeline.c; each is a loop over jobs that ends when its channel does. */
#include "ingest/pipeline_int.h"

#include "base/clock.h"

#include <string.h>

enum { BATCH_TEXTS_MAX = 512, BATCH_JOBS_MAX = BATCH_TEXTS_MAX / LORE_TEXTS_EACH };

/* ---- shared ---- */

bool lore_pipeline_is_stopping(lore_pipeline *p)
{
    return atomic_load_explicit(&p->is_stopping, memory_order_relaxed);
}

void lore_pipeline_stop(lore_pipeline *p)
{
    atomic_store_explicit(&p->is_stopping, true, memory_order_relaxed);
    lore_source_cancel(p->source);
    lore_lock_acquire(&p->lock);
    lore_lock_wake_all(&p->lock);
    lore_lock_release(&p->lock);
}

/* The run itself failed: remember the first reason and stop. */
void lore_pipeline_fail(lore_pipeline *p, const lore_error *why)
{
    lore_lock_acquire(&p->lock);
    if (p->fatal == LORE_OK) {
        p->fatal = why->status;
        p->fatal_error = *why;
    }
    lore_lock_release(&p->lock);
    lore_pipeline_stop(p);
}

/* Failures of one document, as opposed to those that every document would meet. */
bool lore_is_of_document(lore_status status)
{
    return status == LORE_ERR_INVALID || status == LORE_ERR_LIMIT || status == LORE_ERR_NOMEM ||
           status == LORE_ERR_UNSUPPORTED;
}

void lore_job_send(lore_chan *chan, lore_job *j)
{
    /* Never full (invariant 1); closed only behind the last sender. */
    lore_status status = lore_chan_send(chan, j, 0);
    LORE_ASSERT(status == LORE_OK);
}

lore_job *lore_job_receive(lore_chan *chan)
{
    void *item = NULL;
    return lore_chan_recv(chan, &item, 0) == LORE_OK ? item : NULL;
}

/* ---- reader ---- */

static void admit_bytes(lore_pipeline *p, size_t bytes)
{
    lore_lock_acquire(&p->lock);
    while (p->bytes_in_flight > 0 && p->bytes_in_flight + bytes > LORE_BYTES_IN_FLIGHT &&
           !lore_pipeline_is_stopping(p)) {
        (void)lore_lock_wait(&p->lock, lore_clock_ns() + (int64_t)LORE_POLL_MS * 1000000);
    }
    p->bytes_in_flight += bytes;
    lore_lock_release(&p->lock);
}

void *lore_stage_read(void *self)
{
    lore_pipeline *p = self;
    const lore_limits *limits = &p->config->limits;
    bool is_done = false;
    for (int64_t sequence = 0; !lore_pipeline_is_stopping(p); sequence++) {
        lore_job *j = lore_job_receive(p->free_jobs);
        if (j == NULL) {
            break;
        }
        lore_arena_reset(&j->arena);
        j->arena.cap_bytes = lore_document_arena_cap(limits, (size_t)limits->file_bytes_max);
        j->prepared = (lore_prepared){0};
        j->is_known = false;
        lore_status status = lore_source_next(p->source, &j->arena, &j->raw, &is_done, &j->failure);
        status = lore_document_limit(status, &j->arena, &j->failure);
        if (status == LORE_OK && is_done) {
            break;
        }
        j->sequence = sequence;
        j->state = status == LORE_OK ? LORE_JOB_READY : LORE_JOB_FAILED;
        size_t bytes = j->raw.bytes.len;
        j->arena.cap_bytes = lore_document_arena_cap(limits, bytes) + j->arena.used_bytes;
        admit_bytes(p, bytes);
        lore_job_send(p->to_clean, j);
    }
    lore_chan_close(p->to_clean);
    return NULL;
}

/* ---- cleaners ---- */

static bool is_stopping(void *self)
{
    return lore_pipeline_is_stopping(self);
}

static lore_status clean_job(lore_pipeline *p, lore_job *j)
{
    const lore_interrupt interrupt = {is_stopping, p};
    uint8_t stored[32];
    lore_error *err = &j->failure;
    lore_status status =
        lore_identify(&j->raw, p->config, p->embedder, &j->arena, &j->prepared, err);
    if (status == LORE_OK && p->index != NULL) {
        status = lore_index_document_hash(p->index, p->collection, j->prepared.id, stored,
                                          &j->is_known, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (j->raw.is_unchanged ||
        (j->is_known && memcmp(stored, j->prepared.hash, sizeof stored) == 0)) {
        j->state = LORE_JOB_UNCHANGED;
        return LORE_OK;
    }
    status =
        lore_prepare(&j->raw, p->config, p->embedder, &interrupt, &j->arena, &j->prepared, err);
    if (status == LORE_OK && p->options->is_unembedded) {
        size_t count = (size_t)j->prepared.chunk_count * (size_t)p->dim;
        memset(j->prepared.vectors, 0, count * sizeof(float));
    }
    return status;
}

void *lore_stage_clean(void *self)
{
    lore_pipeline *p = self;
    const bool is_embedded = !p->options->is_dry && !p->options->is_unembedded;
    lore_chan *next = is_embedded ? p->to_embed : p->to_write;
    for (lore_job *j = lore_job_receive(p->to_clean); j != NULL;
         j = lore_job_receive(p->to_clean)) {
        if (j->state == LORE_JOB_READY && lore_pipeline_is_stopping(p)) {
            j->state = LORE_JOB_STOPPED;
        } else if (j->state == LORE_JOB_READY && clean_job(p, j) != LORE_OK) {
            bool is_cancelled = j->failure.status == LORE_ERR_CANCELLED;
            j->state = is_cancelled ? LORE_JOB_STOPPED : LORE_JOB_FAILED;
            if (!is_cancelled && !lore_is_of_document(j->failure.status)) {
                lore_pipeline_fail(p, &j->failure);
            }
        }
        lore_job_send(next, j);
    }
    if (atomic_fetch_sub_explicit(&p->cleaners_left, 1, memory_order_acq_rel) == 1) {
        lore_chan_close(next);
    }
    return NULL;
}

/* ---- embedder ---- */

/* Texts of several documents on their way through the encoder together. */
typedef struct batch {
    lore_str texts[BATCH_TEXTS_MAX];
    float *targets[BATCH_TEXTS_MAX];
    float *vectors; /* [batch_texts, dim] */
    int32_t count;
} batch;

static lore_status flush_batch(lore_pipeline *p, batch *b, lore_error *err)
{
    if (b->count == 0) {
        return LORE_OK;
    }
    lore_status status =
        lore_embedder_encode_bulk(p->embedder, b->texts, b->count, b->vectors, err);
    size_t dim = (size_t)p->dim;
    for (int32_t i = 0; i < b->count && status == LORE_OK; i++) {
        memcpy(b->targets[i], b->vectors + (size_t)i * dim, dim * sizeof(float));
    }
    b->count = 0;
    return status;
}

static lore_status embed_jobs(lore_pipeline *p, batch *b, lore_job *const *jobs, int32_t count,
                              lore_error *err)
{
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < count; i++) {
        const lore_prepared *prepared = &jobs[i]->prepared;
        int32_t chunks = jobs[i]->state == LORE_JOB_READY ? prepared->chunk_count : 0;
        for (int32_t k = 0; k < chunks && status == LORE_OK && !lore_pipeline_is_stopping(p); k++) {
            b->texts[b->count] = prepared->embed_texts[k];
            b->targets[b->count++] = prepared->vectors + (size_t)k * (size_t)p->dim;
            status = b->count == p->batch_texts ? flush_batch(p, b, err) : LORE_OK;
        }
    }
    return status == LORE_OK ? flush_batch(p, b, err) : status;
}

/* Embed a handful of jobs; where that fails, each alone, so that only the guilty fails. */
static void embed_or_fail(lore_pipeline *p, batch *b, lore_job *const *jobs, int32_t count)
{
    lore_error err;
    if (embed_jobs(p, b, jobs, count, &err) == LORE_OK) {
        return;
    }
    b->count = 0;
    for (int32_t i = 0; i < count; i++) {
        lore_job *j = jobs[i];
        if (j->state == LORE_JOB_READY && embed_jobs(p, b, &j, 1, &j->failure) != LORE_OK) {
            b->count = 0;
            j->state = LORE_JOB_FAILED;
            if (!lore_is_of_document(j->failure.status)) {
                lore_pipeline_fail(p, &j->failure);
            }
        }
    }
}

/* Take what is there, up to a full batch, but wait only for the first. Gives how many. */
static int32_t take_jobs(lore_pipeline *p, lore_job *jobs[BATCH_JOBS_MAX])
{
    int32_t count = 0, texts = 0;
    void *item = lore_job_receive(p->to_embed);
    while (item != NULL) {
        jobs[count] = item;
        texts += jobs[count++]->prepared.chunk_count;
        bool is_full = count == p->batch_jobs || texts >= p->batch_texts;
        if (is_full || lore_chan_try_recv(p->to_embed, &item) != LORE_OK) {
            break;
        }
    }
    return count;
}

void *lore_stage_embed(void *self)
{
    lore_pipeline *p = self;
    lore_job *jobs[BATCH_JOBS_MAX];
    batch b = {.count = 0};
    LORE_ASSERT(p->batch_texts <= BATCH_TEXTS_MAX && p->batch_jobs <= BATCH_JOBS_MAX);
    b.vectors = lore_alloc_zero((size_t)p->batch_texts * (size_t)p->dim, sizeof(float));
    if (b.vectors == NULL) {
        lore_error err;
        lore_fail(&err, LORE_ERR_NOMEM, "out of memory for a batch of vectors");
        lore_pipeline_fail(p, &err);
    }
    for (int32_t count = take_jobs(p, jobs); count > 0; count = take_jobs(p, jobs)) {
        if (!lore_pipeline_is_stopping(p)) {
            embed_or_fail(p, &b, jobs, count);
        }
        for (int32_t i = 0; i < count; i++) {
            bool is_unworked = jobs[i]->state == LORE_JOB_READY && lore_pipeline_is_stopping(p);
            jobs[i]->state = is_unworked ? LORE_JOB_STOPPED : jobs[i]->state;
            lore_job_send(p->to_write, jobs[i]);
        }
    }
    lore_free(b.vectors);
    if (atomic_fetch_sub_explicit(&p->embedders_left, 1, memory_order_acq_rel) == 1) {
        lore_chan_close(p->to_write);
    }
    return NULL;
}
