/* The run, as a line of threads.
 *
 *   reader --to_clean--> cleaners --to_embed--> embedder --to_write--> writer (the caller)
 *      ^------------------------------ free_jobs -----------------------------|
 *
 * Invariants:
 * 1. A job belongs to exactly one thread: the one that received it last. There are job_count of
 *    them, made at the start; every channel has room for all, so no send ever waits.
 * 2. The writer takes jobs in the order of their sequence numbers (`waiting` holds the early ones),
 *    so the index does not depend on the number of threads, and of two documents with one id the
 *    later one stays.
 * 3. A stage closes the channel behind it when it ends, so the end of the source runs through the
 *    line by itself, and so does a stop: `is_stopping` makes every stage pass jobs on unworked.
 * Only the writer decides to stop for a cancel; any stage may for a failure of the run (`fatal`).
 * 4. Bytes read and not yet written are bounded by BYTES_IN_FLIGHT, but for a single document.
 *
 * Committing: ready jobs gather in `group`; the transaction is opened only when the group is
 * written, so the writer lock is never held while waiting. When a group fails, its documents are
 * written one by one, so that a bad one fails alone. */
#include "ingest/ingest_int.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"

#include <stdatomic.h>
#include <string.h>

enum {
    CLEANERS_MAX = 8,
    GROUP_MAX = 256,
    BATCH_TEXTS = 128, /* chunks the embedder gets at once: several of its own batches */
    BATCH_JOBS = 64,
    JOBS_MORE = 64, /* beside the group: enough small documents to fill a batch twice */
    POLL_MS = 100,  /* cancel and progress */
    PUBLISH_COMMITS = 32
};
#define BYTES_IN_FLIGHT ((size_t)128 * 1024 * 1024)

typedef enum job_state { JOB_READY, JOB_UNCHANGED, JOB_FAILED, JOB_STOPPED } job_state;

typedef struct job {
    int64_t sequence;
    job_state state;
    lore_arena arena; /* everything of this document */
    lore_raw_document raw;
    lore_prepared prepared;
    lore_error failure;
    bool is_known; /* a document with this id was in the index when it was cleaned */
} job;

typedef struct pipeline {
    lore_index *index;
    lore_embedder *embedder;
    const lore_config *config;
    lore_source *source;
    const lore_ingest_options *options;
    lore_str collection;
    int32_t dim;

    job *jobs;
    size_t job_count;
    lore_chan *free_jobs, *to_clean, *to_embed, *to_write;
    lore_thread reader, embed_thread, cleaners[CLEANERS_MAX];
    atomic_int cleaners_left; /* the last one closes the channel behind: acquire-release */
    atomic_bool is_stopping;  /* a flag without data behind it: relaxed */

    lore_lock lock; /* guards the three below; changed: bytes were given back */
    size_t bytes_in_flight;
    lore_status fatal;
    lore_error fatal_error;

    /* The writer's own. */
    job **waiting; /* [job_count], by sequence % job_count */
    int64_t next_sequence;
    job *group[GROUP_MAX];
    int32_t group_count, group_max;
    size_t group_bytes;
    int64_t group_deadline_ns, progress_ns, commits;
    lore_ingest_counts *counts;
    lore_id_set seen;      /* all ids of this run */
    lore_id_set written;   /* of these, those that were replaced or added */
    lore_arena root_arena; /* unreadable sources */
    lore_str *unread;
    size_t unread_count, unread_room;
    bool is_cancelled;
} pipeline;

static bool is_stopping(pipeline *p)
{
    return atomic_load_explicit(&p->is_stopping, memory_order_relaxed);
}

static void stop(pipeline *p)
{
    atomic_store_explicit(&p->is_stopping, true, memory_order_relaxed);
    lore_source_cancel(p->source);
    lore_lock_acquire(&p->lock);
    lore_lock_wake_all(&p->lock);
    lore_lock_release(&p->lock);
}

/* The run itself failed: remember the first reason and stop. */
static void fail_run(pipeline *p, const lore_error *why)
{
    lore_lock_acquire(&p->lock);
    if (p->fatal == LORE_OK) {
        p->fatal = why->status;
        p->fatal_error = *why;
    }
    lore_lock_release(&p->lock);
    stop(p);
}

static bool has_failed(pipeline *p)
{
    lore_lock_acquire(&p->lock);
    bool has = p->fatal != LORE_OK;
    lore_lock_release(&p->lock);
    return has;
}

/* Failures of one document, as opposed to those that every document would meet. */
static bool is_of_document(lore_status status)
{
    return status == LORE_ERR_INVALID || status == LORE_ERR_LIMIT || status == LORE_ERR_NOMEM ||
           status == LORE_ERR_UNSUPPORTED;
}

static void send(lore_chan *chan, job *j)
{
    /* Never full (invariant 1); closed only behind the last sender. */
    lore_status status = lore_chan_send(chan, j, 0);
    LORE_ASSERT(status == LORE_OK);
}

static job *receive(lore_chan *chan)
{
    void *item = NULL;
    return lore_chan_recv(chan, &item, 0) == LORE_OK ? item : NULL;
}

/* ---- reader ---- */

static void admit_bytes(pipeline *p, size_t bytes)
{
    lore_lock_acquire(&p->lock);
    while (p->bytes_in_flight > 0 && p->bytes_in_flight + bytes > BYTES_IN_FLIGHT &&
           !is_stopping(p)) {
        (void)lore_lock_wait(&p->lock, lore_clock_ns() + (int64_t)POLL_MS * 1000000);
    }
    p->bytes_in_flight += bytes;
    lore_lock_release(&p->lock);
}

static void *run_reader(void *self)
{
    pipeline *p = self;
    const lore_limits *limits = &p->config->limits;
    bool is_done = false;
    for (int64_t sequence = 0; !is_stopping(p); sequence++) {
        job *j = receive(p->free_jobs);
        if (j == NULL) {
            break;
        }
        lore_arena_reset(&j->arena);
        j->arena.cap_bytes = lore_document_arena_cap(limits, (size_t)limits->file_bytes_max);
        j->prepared = (lore_prepared){0};
        j->is_known = false;
        lore_status status = lore_source_next(p->source, &j->arena, &j->raw, &is_done, &j->failure);
        if (status == LORE_OK && is_done) {
            break;
        }
        j->sequence = sequence;
        j->state = status == LORE_OK ? JOB_READY : JOB_FAILED;
        size_t bytes = j->raw.bytes.len;
        j->arena.cap_bytes = lore_document_arena_cap(limits, bytes) + j->arena.used_bytes;
        admit_bytes(p, bytes);
        send(p->to_clean, j);
    }
    lore_chan_close(p->to_clean);
    return NULL;
}

/* ---- cleaners ---- */

static lore_status clean_job(pipeline *p, job *j)
{
    uint8_t stored[32];
    lore_error *err = &j->failure;
    lore_status status =
        lore_identify(&j->raw, p->config, p->embedder, &j->arena, &j->prepared, err);
    if (status == LORE_OK) {
        status = lore_index_document_hash(p->index, p->collection, j->prepared.id, stored,
                                          &j->is_known, err);
    }
    if (status != LORE_OK) {
        return status;
    }
    if (j->is_known && memcmp(stored, j->prepared.hash, sizeof stored) == 0) {
        j->state = JOB_UNCHANGED;
        return LORE_OK;
    }
    return lore_prepare(&j->raw, p->config, p->embedder, &j->arena, &j->prepared, err);
}

static void *run_cleaner(void *self)
{
    pipeline *p = self;
    lore_chan *next = p->options->is_dry ? p->to_write : p->to_embed;
    for (job *j = receive(p->to_clean); j != NULL; j = receive(p->to_clean)) {
        if (j->state == JOB_READY && is_stopping(p)) {
            j->state = JOB_STOPPED;
        } else if (j->state == JOB_READY && clean_job(p, j) != LORE_OK) {
            j->state = JOB_FAILED;
            if (!is_of_document(j->failure.status)) {
                fail_run(p, &j->failure);
            }
        }
        send(next, j);
    }
    if (atomic_fetch_sub_explicit(&p->cleaners_left, 1, memory_order_acq_rel) == 1) {
        lore_chan_close(next);
    }
    return NULL;
}

/* ---- embedder ---- */

/* Texts of several documents on their way through the encoder together. */
typedef struct batch {
    lore_str texts[BATCH_TEXTS];
    float *targets[BATCH_TEXTS];
    float *vectors; /* [BATCH_TEXTS, dim] */
    int32_t count;
} batch;

static lore_status flush_batch(pipeline *p, batch *b, lore_error *err)
{
    if (b->count == 0) {
        return LORE_OK;
    }
    lore_status status = lore_embedder_encode(p->embedder, b->texts, b->count, b->vectors, err);
    size_t dim = (size_t)p->dim;
    for (int32_t i = 0; i < b->count && status == LORE_OK; i++) {
        memcpy(b->targets[i], b->vectors + (size_t)i * dim, dim * sizeof(float));
    }
    b->count = 0;
    return status;
}

static lore_status embed_jobs(pipeline *p, batch *b, job *const *jobs, int32_t count,
                              lore_error *err)
{
    lore_status status = LORE_OK;
    for (int32_t i = 0; i < count; i++) {
        const lore_prepared *prepared = &jobs[i]->prepared;
        int32_t chunks = jobs[i]->state == JOB_READY ? prepared->chunk_count : 0;
        for (int32_t k = 0; k < chunks && status == LORE_OK && !is_stopping(p); k++) {
            b->texts[b->count] = prepared->embed_texts[k];
            b->targets[b->count++] = prepared->vectors + (size_t)k * (size_t)p->dim;
            status = b->count == BATCH_TEXTS ? flush_batch(p, b, err) : LORE_OK;
        }
    }
    return status == LORE_OK ? flush_batch(p, b, err) : status;
}

/* Embed a handful of jobs; where that fails, each alone, so that only the guilty fails. */
static void embed_or_fail(pipeline *p, batch *b, job *const *jobs, int32_t count)
{
    lore_error err;
    if (embed_jobs(p, b, jobs, count, &err) == LORE_OK) {
        return;
    }
    b->count = 0;
    for (int32_t i = 0; i < count; i++) {
        job *j = jobs[i];
        if (j->state == JOB_READY && embed_jobs(p, b, &j, 1, &j->failure) != LORE_OK) {
            b->count = 0;
            j->state = JOB_FAILED;
            if (!is_of_document(j->failure.status)) {
                fail_run(p, &j->failure);
            }
        }
    }
}

/* Take what is there, up to a full batch, but wait only for the first. Gives how many. */
static int32_t take_jobs(pipeline *p, job *jobs[BATCH_JOBS])
{
    int32_t count = 0, texts = 0;
    void *item = receive(p->to_embed);
    while (item != NULL) {
        jobs[count] = item;
        texts += jobs[count++]->prepared.chunk_count;
        bool is_full = count == BATCH_JOBS || texts >= BATCH_TEXTS;
        if (is_full || lore_chan_try_recv(p->to_embed, &item) != LORE_OK) {
            break;
        }
    }
    return count;
}

static void *run_embedder(void *self)
{
    pipeline *p = self;
    job *jobs[BATCH_JOBS];
    batch b = {.count = 0};
    b.vectors = lore_alloc_zero((size_t)BATCH_TEXTS * (size_t)p->dim, sizeof(float));
    if (b.vectors == NULL) {
        lore_error err;
        lore_fail(&err, LORE_ERR_NOMEM, "out of memory for a batch of vectors");
        fail_run(p, &err);
    }
    for (int32_t count = take_jobs(p, jobs); count > 0; count = take_jobs(p, jobs)) {
        if (!is_stopping(p)) {
            embed_or_fail(p, &b, jobs, count);
        }
        for (int32_t i = 0; i < count; i++) {
            bool is_unworked = jobs[i]->state == JOB_READY && is_stopping(p);
            jobs[i]->state = is_unworked ? JOB_STOPPED : jobs[i]->state;
            send(p->to_write, jobs[i]);
        }
    }
    lore_free(b.vectors);
    lore_chan_close(p->to_write);
    return NULL;
}

/* ---- writer ---- */

static void release_job(pipeline *p, job *j)
{
    lore_lock_acquire(&p->lock);
    p->bytes_in_flight -= j->raw.bytes.len;
    lore_lock_wake_all(&p->lock);
    lore_lock_release(&p->lock);
    j->raw.bytes.len = 0;
    /* The reader may have closed nothing yet, but it stops receiving: a send still finds room. */
    send(p->free_jobs, j);
}

/* Nothing under a source that could not be read is pruned. */
static void remember_unread(pipeline *p, lore_str source)
{
    const char *mark = source.len > 0 ? memrchr(source.ptr, '#', source.len) : NULL;
    lore_str file = mark == NULL ? source : lore_str_slice(source, 0, (size_t)(mark - source.ptr));
    bool is_line = mark != NULL && lore_media_of(file, (lore_str){"", 0}) == LORE_MEDIA_JSONL;
    lore_str copy = lore_str_copy(&p->root_arena, is_line ? file : source);
    if (p->unread_count == p->unread_room && copy.ptr != NULL) {
        size_t room = p->unread_room == 0 ? 16 : p->unread_room * 2;
        lore_str *grown = lore_realloc(p->unread, room * sizeof *grown);
        copy.ptr = grown == NULL ? NULL : copy.ptr;
        p->unread = grown == NULL ? p->unread : grown;
        p->unread_room = grown == NULL ? p->unread_room : room;
    }
    if (copy.ptr == NULL) {
        lore_error err;
        lore_fail(&err, LORE_ERR_NOMEM, "out of memory remembering '" LORE_STR_FMT "'",
                  LORE_STR_ARG(source));
        fail_run(p, &err);
        return;
    }
    p->unread[p->unread_count++] = copy;
}

static void report_failed(pipeline *p, job *j)
{
    p->counts->failed++;
    remember_unread(p, j->raw.source);
    if (p->options->failed != NULL) {
        lore_str name = j->raw.source.len > 0 ? j->raw.source : j->prepared.id;
        p->options->failed(p->options->self, name, &j->failure);
    }
}

static void count_written(pipeline *p, const job *j, bool was_replaced)
{
    p->counts->added += was_replaced ? 0 : 1;
    p->counts->replaced += was_replaced ? 1 : 0;
    p->counts->chunks += j->prepared.chunk_count;
    p->counts->tokens += j->prepared.token_count;
    p->counts->text_bytes += (int64_t)j->prepared.clean.text.len;
}

/* One transaction. */
static lore_status write_jobs(pipeline *p, job *const *jobs, int32_t count, lore_error *err)
{
    bool were_replaced[GROUP_MAX];
    lore_writer_acquire();
    lore_status status = lore_index_begin(p->index, err);
    bool is_begun = status == LORE_OK;
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        lore_document_row row;
        lore_prepared_row(&jobs[i]->raw, &jobs[i]->prepared, p->dim, &row);
        status = lore_index_put_document(p->index, p->collection, &row, &were_replaced[i], err);
    }
    if (status == LORE_OK) {
        status = lore_index_commit(p->index, err);
    } else if (is_begun) {
        lore_index_rollback(p->index);
    }
    if (status == LORE_OK && ++p->commits % PUBLISH_COMMITS == 0) {
        lore_error why;
        if (lore_index_publish(p->index, &why) != LORE_OK) {
            lore_log(LORE_LOG_WARN, "event=publish_failed reason=\"%s\"", why.message);
        }
    }
    lore_writer_release();
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        count_written(p, jobs[i], were_replaced[i]);
    }
    return status;
}

/* Commit the group and give its jobs back. */
static void commit_group(pipeline *p)
{
    lore_error err;
    lore_status status = LORE_OK;
    if (p->group_count > 0 && !has_failed(p)) {
        status = write_jobs(p, p->group, p->group_count, &err);
    }
    for (int32_t i = 0; i < p->group_count; i++) {
        job *j = p->group[i];
        if (status != LORE_OK && !has_failed(p) && write_jobs(p, &j, 1, &j->failure) != LORE_OK) {
            report_failed(p, j);
            if (!is_of_document(j->failure.status)) {
                fail_run(p, &j->failure);
            }
        }
        release_job(p, j);
    }
    p->group_count = 0;
    p->group_bytes = 0;
}

/* The document looked unchanged, but this run has written another one under the same id before it:
 * the later one counts, so it is worked after all, here and alone. */
static lore_status rework(pipeline *p, job *j)
{
    lore_status status =
        lore_prepare(&j->raw, p->config, p->embedder, &j->arena, &j->prepared, &j->failure);
    if (status == LORE_OK && j->prepared.chunk_count > 0 && !p->options->is_dry) {
        status = lore_embedder_encode(p->embedder, j->prepared.embed_texts, j->prepared.chunk_count,
                                      j->prepared.vectors, &j->failure);
    }
    j->state = status == LORE_OK ? JOB_READY : JOB_FAILED;
    return status;
}

static lore_status note_ids(pipeline *p, const job *j, lore_error *err)
{
    lore_status status =
        j->prepared.id.len > 0 ? lore_id_set_add(&p->seen, j->prepared.id, err) : LORE_OK;
    if (status == LORE_OK && j->state == JOB_READY) {
        status = lore_id_set_add(&p->written, j->prepared.id, err);
    }
    return status;
}

/* A job in its turn. */
static void take_turn(pipeline *p, job *j)
{
    lore_error err;
    if (j->state == JOB_UNCHANGED && lore_id_set_has(&p->written, j->prepared.id) &&
        !is_stopping(p)) {
        (void)rework(p, j); /* a failure is the job's state */
    }
    if (j->state == JOB_STOPPED) {
        release_job(p, j);
        return;
    }
    p->counts->seen++;
    if (note_ids(p, j, &err) != LORE_OK) {
        fail_run(p, &err);
    }
    if (j->state == JOB_READY && !p->options->is_dry) {
        if (p->group_count == 0) {
            p->group_deadline_ns = lore_clock_ns() + p->config->commit_ms * 1000000;
        }
        p->group[p->group_count++] = j;
        p->group_bytes += j->raw.bytes.len;
        if (p->group_count == p->group_max || p->group_bytes > BYTES_IN_FLIGHT / 4) {
            commit_group(p);
        }
        return;
    }
    if (j->state == JOB_READY) {
        count_written(p, j, j->is_known);
    } else if (j->state == JOB_UNCHANGED) {
        p->counts->unchanged++;
    } else {
        report_failed(p, j);
    }
    release_job(p, j);
}

static void look_around(pipeline *p)
{
    const lore_ingest_options *options = p->options;
    int64_t now = lore_clock_ns();
    if (p->group_count > 0 && now >= p->group_deadline_ns) {
        commit_group(p);
    }
    if (!p->is_cancelled && options->is_cancelled != NULL && options->is_cancelled(options->self)) {
        p->is_cancelled = true;
        stop(p);
    }
    if (options->progress != NULL && now >= p->progress_ns) {
        p->progress_ns = now + (int64_t)POLL_MS * 1000000;
        options->progress(options->self, p->counts, lore_source_total(p->source));
    }
}

static void run_writer(pipeline *p)
{
    for (;;) {
        void *item = NULL;
        int64_t deadline = lore_clock_ns() + (int64_t)POLL_MS * 1000000;
        if (p->group_count > 0 && p->group_deadline_ns < deadline) {
            deadline = p->group_deadline_ns;
        }
        lore_status status = lore_chan_recv(p->to_write, &item, deadline);
        if (status == LORE_ERR_CANCELLED) {
            break;
        }
        if (status == LORE_OK) {
            job *arrived = item;
            p->waiting[(size_t)arrived->sequence % p->job_count] = arrived;
        }
        for (;;) {
            job **place = &p->waiting[(size_t)p->next_sequence % p->job_count];
            job *next = *place;
            if (next == NULL) {
                break;
            }
            *place = NULL;
            p->next_sequence++;
            take_turn(p, next);
        }
        look_around(p);
    }
    commit_group(p);
}

/* ---- start and end ---- */

static int32_t cleaner_count(const lore_config *config)
{
    int64_t threads = config->threads > 0 ? config->threads : lore_cpu_count();
    int64_t wanted = threads / 2; /* the encoder's pool works on all cores meanwhile */
    return (int32_t)(wanted < 1 ? 1 : wanted > CLEANERS_MAX ? CLEANERS_MAX : wanted);
}

static lore_status make_jobs(pipeline *p, int32_t cleaners, lore_error *err)
{
    p->job_count = (size_t)p->group_max + 2 * (size_t)cleaners + JOBS_MORE;
    p->jobs = lore_alloc_zero(p->job_count, sizeof *p->jobs);
    p->waiting = lore_alloc_zero(p->job_count, sizeof *p->waiting);
    p->free_jobs = lore_chan_new(p->job_count);
    p->to_clean = lore_chan_new(p->job_count);
    p->to_embed = lore_chan_new(p->job_count);
    p->to_write = lore_chan_new(p->job_count);
    if (p->jobs == NULL || p->waiting == NULL || p->free_jobs == NULL || p->to_clean == NULL ||
        p->to_embed == NULL || p->to_write == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory starting the ingest run");
    }
    for (size_t i = 0; i < p->job_count; i++) {
        lore_arena_init(&p->jobs[i].arena, 0);
        send(p->free_jobs, &p->jobs[i]);
    }
    return LORE_OK;
}

/* Fewer cleaners than wanted will do; without one of the three kinds nothing moves. The reader
 * comes last: until it runs, no job is under way and closing to_clean ends all others. */
static lore_status start_threads(pipeline *p, int32_t cleaners, lore_error *err)
{
    lore_status status = LORE_OK;
    if (!p->options->is_dry) {
        status = lore_thread_start(&p->embed_thread, "lore-embed", run_embedder, p, err);
    }
    int32_t started = 0;
    /* Counted up front, so that an early finisher cannot take itself for the last one. */
    atomic_store(&p->cleaners_left, cleaners);
    while (status == LORE_OK && started < cleaners) {
        status = lore_thread_start(&p->cleaners[started], "lore-clean", run_cleaner, p, err);
        started += status == LORE_OK ? 1 : 0;
    }
    if (started > 0 && started < cleaners) {
        lore_log(LORE_LOG_WARN, "event=cleaners_missing wanted=%d started=%d", cleaners, started);
        atomic_fetch_sub_explicit(&p->cleaners_left, cleaners - started, memory_order_acq_rel);
        status = LORE_OK;
    }
    if (status == LORE_OK) {
        status = lore_thread_start(&p->reader, "lore-read", run_reader, p, err);
    }
    if (status != LORE_OK) {
        lore_chan_close(p->to_clean);
        if (started == 0) {
            lore_chan_close(p->to_embed);
        }
    }
    return status;
}

static void join_threads(pipeline *p)
{
    lore_thread_join(&p->reader);
    for (int32_t i = 0; i < CLEANERS_MAX; i++) {
        lore_thread_join(&p->cleaners[i]);
    }
    lore_thread_join(&p->embed_thread);
}

static void destroy(pipeline *p)
{
    for (size_t i = 0; p->jobs != NULL && i < p->job_count; i++) {
        lore_arena_destroy(&p->jobs[i].arena);
    }
    lore_free(p->jobs);
    lore_free(p->waiting);
    lore_chan_free(p->free_jobs);
    lore_chan_free(p->to_clean);
    lore_chan_free(p->to_embed);
    lore_chan_free(p->to_write);
    lore_id_set_destroy(&p->seen);
    lore_id_set_destroy(&p->written);
    lore_free(p->unread);
    lore_arena_destroy(&p->root_arena);
    lore_lock_destroy(&p->lock);
}

/* After a whole walk: delete what is gone, fold the tail into the derived files. */
static lore_status finish(pipeline *p, const lore_source_options *source_options, lore_error *err)
{
    const lore_ingest_options *options = p->options;
    lore_status status = LORE_OK;
    if (options->is_pruning) {
        lore_prune_options prune = {.collection = p->collection,
                                    .paths = source_options->paths,
                                    .path_count = source_options->path_count,
                                    .seen = &p->seen,
                                    .kept_roots = p->unread,
                                    .kept_count = p->unread_count,
                                    .is_dry = options->is_dry,
                                    .self = options->self,
                                    .is_cancelled = options->is_cancelled};
        status = lore_prune(p->index, &prune, &p->counts->deleted, err);
    }
    if (status == LORE_OK && !options->is_dry) {
        lore_writer_acquire();
        status = lore_index_publish(p->index, err);
        lore_writer_release();
    }
    return status;
}

static lore_status run(pipeline *p, const lore_source_options *source_options, lore_error *err)
{
    int32_t cleaners = cleaner_count(p->config);
    lore_status status = make_jobs(p, cleaners, err);
    if (status != LORE_OK) {
        return status;
    }
    status = start_threads(p, cleaners, err);
    if (status == LORE_OK) {
        run_writer(p);
    }
    join_threads(p);
    if (status == LORE_OK && p->fatal != LORE_OK) {
        return lore_fail(err, p->fatal, "%s", p->fatal_error.message);
    }
    if (status == LORE_OK && p->is_cancelled) {
        return lore_fail(err, LORE_ERR_CANCELLED, "cancelled; what was committed is kept");
    }
    return status == LORE_OK ? finish(p, source_options, err) : status;
}

static lore_status make_collection(pipeline *p, lore_error *err)
{
    lore_writer_acquire();
    lore_status status = lore_index_create_collection(p->index, p->collection, err);
    lore_writer_release();
    return status;
}

lore_status lore_ingest_run(lore_index *index, lore_embedder *embedder, const lore_config *config,
                            lore_source *source, const lore_source_options *source_options,
                            const lore_ingest_options *options, lore_ingest_counts *counts,
                            lore_error *err)
{
    pipeline p = {.index = index,
                  .embedder = embedder,
                  .config = config,
                  .source = source,
                  .options = options,
                  .dim = lore_embedder_dim(embedder),
                  .counts = counts};
    p.collection = options->collection.len > 0 ? options->collection : LORE_STR("default");
    p.group_max = (int32_t)(config->commit_documents < 1           ? 1
                            : config->commit_documents > GROUP_MAX ? GROUP_MAX
                                                                   : config->commit_documents);
    *counts = (lore_ingest_counts){0};
    lore_lock_init(&p.lock);
    lore_arena_init(&p.root_arena, 0);
    lore_status status = options->is_dry ? LORE_OK : make_collection(&p, err);
    if (status == LORE_OK) {
        status = run(&p, source_options, err);
    }
    if (options->progress != NULL) {
        options->progress(options->self, counts, lore_source_total(source));
    }
    destroy(&p);
    return status;
}
