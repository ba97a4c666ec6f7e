/* The run, as a line of threads.
 *
 *   reader --to_clean--> cleaners --to_embed--> embedders --to_write--> writer (the caller)
 *      ^------------------------------- free_jobs -----------------------------|
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
 * 4. Bytes read and not yet written are bounded by LORE_BYTES_IN_FLIGHT, but for a single document.
 *
 * Committing: ready jobs gather in `group`, which goes to the index' writer as one batch of
 * changes; there a bad document fails alone. */
#include "ingest/pipeline_int.h"

#include "base/clock.h"
#include "base/log.h"

#include <string.h>

const char *lore_ingest_fate_name(lore_ingest_fate fate)
{
    static const char *const names[] = {"added", "replaced", "unchanged", "deleted", "failed"};
    return names[fate];
}

static bool has_failed(lore_pipeline *p)
{
    lore_lock_acquire(&p->lock);
    bool has = p->fatal != LORE_OK;
    lore_lock_release(&p->lock);
    return has;
}

/* ---- writer ---- */

static void release_job(lore_pipeline *p, lore_job *j)
{
    lore_lock_acquire(&p->lock);
    p->bytes_in_flight -= j->raw.bytes.len;
    lore_lock_wake_all(&p->lock);
    lore_lock_release(&p->lock);
    j->raw.bytes.len = 0;
    /* The reader may have closed nothing yet, but it stops receiving: a send still finds room. */
    lore_job_send(p->free_jobs, j);
}

/* Nothing under a source that could not be read is pruned. */
static void remember_unread(lore_pipeline *p, lore_str source)
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
        lore_pipeline_fail(p, &err);
        return;
    }
    p->unread[p->unread_count++] = copy;
}

static void tell(const lore_pipeline *p, const lore_job *j, lore_ingest_fate fate)
{
    const bool is_written = fate == LORE_FATE_ADDED || fate == LORE_FATE_REPLACED;
    const lore_ingest_event event = {
        .fate = fate,
        .id = j->prepared.id,
        .source = j->raw.source,
        .chunks = is_written ? j->prepared.chunk_count : 0,
        .reason = fate == LORE_FATE_FAILED ? &j->failure : NULL,
    };
    if (p->options->settled != NULL) {
        p->options->settled(p->options->self, &event);
    }
}

static void report_failed(lore_pipeline *p, lore_job *j)
{
    p->counts->failed++;
    remember_unread(p, j->raw.source);
    tell(p, j, LORE_FATE_FAILED);
}

static void count_unchanged(lore_pipeline *p, const lore_job *j)
{
    p->counts->unchanged++;
    tell(p, j, LORE_FATE_UNCHANGED);
}

static void count_written(lore_pipeline *p, const lore_job *j, bool was_replaced)
{
    tell(p, j, was_replaced ? LORE_FATE_REPLACED : LORE_FATE_ADDED);
    p->counts->added += was_replaced ? 0 : 1;
    p->counts->replaced += was_replaced ? 1 : 0;
    p->counts->chunks += j->prepared.chunk_count;
    p->counts->tokens += j->prepared.token_count;
    p->counts->text_bytes += (int64_t)j->prepared.clean.text.len;
}

static void settle_job(lore_pipeline *p, lore_job *j, const lore_change *change)
{
    if (change->status != LORE_OK) {
        j->failure = change->error;
        report_failed(p, j);
        if (!lore_is_of_document(change->status)) {
            lore_pipeline_fail(p, &j->failure);
        }
    } else if (change->outcome == LORE_OUTCOME_NONE) {
        count_unchanged(p, j); /* somebody else wrote the same document meanwhile */
    } else {
        count_written(p, j, change->outcome == LORE_OUTCOME_REPLACED);
        p->counts->near_duplicates += change->is_near_duplicate ? 1 : 0;
    }
}

/* Have the group written and give its jobs back. */
static void commit_group(lore_pipeline *p)
{
    lore_error err;
    if (p->group_count > 0 && !has_failed(p)) {
        for (int32_t i = 0; i < p->group_count; i++) {
            const lore_job *j = p->group[i];
            lore_prepared_row(&j->raw, &j->prepared, p->dim, &p->rows[i]);
            p->changes[i] = (lore_change){
                .kind = LORE_CHANGE_PUT, .collection = p->collection, .document = &p->rows[i]};
        }
        lore_status status = lore_writer_apply(p->writer, p->changes, p->group_count, NULL, &err);
        LORE_ASSERT(status == LORE_OK); /* without a deadline nobody gives up */
        for (int32_t i = 0; i < p->group_count; i++) {
            settle_job(p, p->group[i], &p->changes[i]);
        }
    }
    for (int32_t i = 0; i < p->group_count; i++) {
        release_job(p, p->group[i]);
    }
    p->group_count = 0;
    p->group_bytes = 0;
}

/* The document looked unchanged, but this run has written another one under the same id before it:
 * the later one counts, so it is worked after all, here and alone. */
static lore_status rework(lore_pipeline *p, lore_job *j)
{
    lore_status status =
        lore_prepare(&j->raw, p->config, p->embedder, NULL, &j->arena, &j->prepared, &j->failure);
    if (status == LORE_OK && j->prepared.chunk_count > 0 && !p->options->is_dry) {
        status =
            lore_embedder_encode_bulk(p->embedder, j->prepared.embed_texts, j->prepared.chunk_count,
                                      j->prepared.vectors, &j->failure);
    }
    j->state = status == LORE_OK ? LORE_JOB_READY : LORE_JOB_FAILED;
    return status;
}

static lore_status note_ids(lore_pipeline *p, const lore_job *j, lore_error *err)
{
    lore_status status =
        j->prepared.id.len > 0 ? lore_id_set_add(&p->seen, j->prepared.id, err) : LORE_OK;
    if (status == LORE_OK && j->state == LORE_JOB_READY) {
        status = lore_id_set_add(&p->written, j->prepared.id, err);
    }
    return status;
}

/* A job in its turn. */
static void take_turn(lore_pipeline *p, lore_job *j)
{
    lore_error err;
    if (j->state == LORE_JOB_UNCHANGED && !j->raw.is_unchanged &&
        lore_id_set_has(&p->written, j->prepared.id) && !lore_pipeline_is_stopping(p)) {
        (void)rework(p, j); /* a failure is the job's state */
    }
    if (j->state == LORE_JOB_STOPPED) {
        release_job(p, j);
        return;
    }
    p->counts->seen++;
    const bool is_repeated = lore_id_set_has(&p->written, j->prepared.id);
    if (note_ids(p, j, &err) != LORE_OK) {
        lore_pipeline_fail(p, &err);
    }
    if (j->state == LORE_JOB_READY && !p->options->is_dry) {
        if (p->group_count == 0) {
            p->group_deadline_ns = lore_clock_ns() + p->config->commit_ms * 1000000;
        }
        p->group[p->group_count++] = j;
        p->group_bytes += j->raw.bytes.len;
        if (p->group_count == p->group_max || p->group_bytes > LORE_BYTES_IN_FLIGHT / 4) {
            commit_group(p);
        }
        return;
    }
    if (j->state == LORE_JOB_READY) {
        count_written(p, j, j->is_known || is_repeated);
    } else if (j->state == LORE_JOB_UNCHANGED) {
        count_unchanged(p, j);
    } else {
        report_failed(p, j);
    }
    release_job(p, j);
}

static void look_around(lore_pipeline *p)
{
    const lore_ingest_options *options = p->options;
    int64_t now = lore_clock_ns();
    if (p->group_count > 0 && now >= p->group_deadline_ns) {
        commit_group(p);
    }
    if (!p->is_cancelled && options->is_cancelled != NULL && options->is_cancelled(options->self)) {
        p->is_cancelled = true;
        lore_pipeline_stop(p);
    }
    if (options->progress != NULL && now >= p->progress_ns) {
        p->progress_ns = now + (int64_t)LORE_POLL_MS * 1000000;
        options->progress(options->self, p->counts, lore_source_total(p->source));
    }
}

static void run_writer(lore_pipeline *p)
{
    for (;;) {
        void *item = NULL;
        int64_t deadline = lore_clock_ns() + (int64_t)LORE_POLL_MS * 1000000;
        if (p->group_count > 0 && p->group_deadline_ns < deadline) {
            deadline = p->group_deadline_ns;
        }
        lore_status status = lore_chan_recv(p->to_write, &item, deadline);
        if (status == LORE_ERR_CANCELLED) {
            break;
        }
        if (status == LORE_OK) {
            lore_job *arrived = item;
            p->waiting[(size_t)arrived->sequence % p->job_count] = arrived;
        }
        for (;;) {
            lore_job **place = &p->waiting[(size_t)p->next_sequence % p->job_count];
            lore_job *next = *place;
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
    return (int32_t)(wanted < 1 ? 1 : wanted > LORE_CLEANERS_MAX ? LORE_CLEANERS_MAX : wanted);
}

/* Beside the group and what is with the cleaners: enough for a batch of each embedder. */
static lore_status make_jobs(lore_pipeline *p, int32_t cleaners, lore_error *err)
{
    const int32_t embedders = lore_embedder_bulk_calls(p->embedder);
    p->batch_texts = lore_embedder_bulk_texts(p->embedder);
    p->batch_jobs = p->batch_texts / LORE_TEXTS_EACH;
    p->job_count =
        (size_t)p->group_max + 2 * (size_t)cleaners + (size_t)embedders * (size_t)p->batch_jobs;
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
        lore_job_send(p->free_jobs, &p->jobs[i]);
    }
    return LORE_OK;
}

/* Start up to `wanted` threads of a stage. `left` counts those that have not ended, up front, so
 * that an early finisher cannot take itself for the last one. Fewer than wanted will do, none will
 * not. */
static lore_status start_stage(lore_pipeline *p, lore_thread *threads, int32_t wanted,
                               atomic_int *left, const char *name, void *(*stage)(void *),
                               lore_error *err)
{
    lore_status status = LORE_OK;
    int32_t started = 0;
    atomic_store(left, wanted);
    while (status == LORE_OK && started < wanted) {
        status = lore_thread_start(&threads[started], name, stage, p, err);
        started += status == LORE_OK ? 1 : 0;
    }
    if (started > 0 && started < wanted) {
        lore_log(LORE_LOG_WARN, "event=threads_missing name=%s wanted=%d started=%d", name, wanted,
                 started);
        atomic_fetch_sub_explicit(left, wanted - started, memory_order_acq_rel);
    }
    return started > 0 ? LORE_OK : status;
}

/* Without one of the three kinds nothing moves. The reader comes last: until it runs, no job is
 * under way and closing to_clean ends all others. */
static lore_status start_threads(lore_pipeline *p, int32_t cleaners, lore_error *err)
{
    const int32_t embedders = lore_embedder_bulk_calls(p->embedder);
    lore_status status = LORE_OK;
    LORE_ASSERT(embedders <= LORE_EMBEDDERS_MAX);
    if (!p->options->is_dry && !p->options->is_unembedded) {
        status = start_stage(p, p->embedders, embedders, &p->embedders_left, "lore-embed",
                             lore_stage_embed, err);
    }
    if (status == LORE_OK) {
        status = start_stage(p, p->cleaners, cleaners, &p->cleaners_left, "lore-clean",
                             lore_stage_clean, err);
    }
    const bool has_cleaners = status == LORE_OK;
    if (status == LORE_OK) {
        status = lore_thread_start(&p->reader, "lore-read", lore_stage_read, p, err);
    }
    if (status != LORE_OK) {
        lore_chan_close(p->to_clean);
        if (!has_cleaners) {
            lore_chan_close(p->to_embed);
        }
    }
    return status;
}

static void join_threads(lore_pipeline *p)
{
    lore_thread_join(&p->reader);
    for (int32_t i = 0; i < LORE_CLEANERS_MAX; i++) {
        lore_thread_join(&p->cleaners[i]);
    }
    for (int32_t i = 0; i < LORE_EMBEDDERS_MAX; i++) {
        lore_thread_join(&p->embedders[i]);
    }
}

static void destroy(lore_pipeline *p)
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
static lore_status finish(lore_pipeline *p, const lore_source_options *source_options,
                          lore_error *err)
{
    const lore_ingest_options *options = p->options;
    lore_status status = LORE_OK;
    if (options->is_pruning && p->index != NULL) {
        lore_prune_options prune = {.collection = p->collection,
                                    .paths = source_options->paths,
                                    .path_count = source_options->path_count,
                                    .roots = options->roots,
                                    .root_count = options->root_count,
                                    .source = p->source,
                                    .seen = &p->seen,
                                    .kept_roots = p->unread,
                                    .kept_count = p->unread_count,
                                    .writer = options->is_dry ? NULL : p->writer,
                                    .run = options};
        status = lore_prune(p->index, &prune, &p->counts->deleted, err);
    }
    return status == LORE_OK && !options->is_dry ? lore_writer_publish(p->writer, err) : status;
}

static lore_status run(lore_pipeline *p, const lore_source_options *source_options, lore_error *err)
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

/* The validators of a page as it was stored, if nothing else has changed since. What cannot be
 * found out is not known: then the page is fetched. */
static lore_str known_validators(void *self, const lore_raw_document *raw, lore_arena *arena)
{
    const lore_pipeline *p = self;
    const lore_str none = {"", 0};
    lore_prepared prepared = {.id = none};
    lore_str stored = none, settings = none;
    lore_status status = lore_identify(raw, p->config, p->embedder, arena, &prepared, NULL);
    if (status == LORE_OK && p->index != NULL) {
        status = lore_index_document_validators(p->index, p->collection, prepared.id, arena,
                                                &stored, NULL);
    }
    if (status == LORE_OK && stored.len > 0) {
        status = lore_validators_join(raw, p->config, p->embedder, arena, &settings, NULL);
    }
    bool is_current = status == LORE_OK && settings.len > 0 && lore_str_starts(stored, settings);
    return is_current ? lore_str_slice(stored, settings.len, stored.len) : none;
}

static lore_status make_collection(lore_pipeline *p, lore_error *err)
{
    lore_change change = {.kind = LORE_CHANGE_CREATE_COLLECTION, .collection = p->collection};
    return lore_writer_apply_one(p->writer, &change, NULL, err);
}

/* A dry run makes no collection: where that is missing, there is nothing to compare with. */
static lore_status find_collection(lore_pipeline *p, lore_error *err)
{
    lore_arena arena;
    lore_collection_info *list = NULL;
    int32_t count = 0;
    bool is_found = false;
    if (p->index == NULL) {
        return LORE_OK;
    }
    lore_arena_init(&arena, 0);
    lore_status status = lore_index_collections(p->index, &arena, &list, &count, err);
    for (int32_t i = 0; i < count && status == LORE_OK; i++) {
        is_found = is_found || lore_str_equal(list[i].name, p->collection);
    }
    p->index = is_found ? p->index : NULL;
    lore_arena_destroy(&arena);
    return status;
}

lore_status lore_ingest_run(lore_writer *writer, lore_embedder *embedder, const lore_config *config,
                            lore_source *source, const lore_source_options *source_options,
                            const lore_ingest_options *options, lore_ingest_counts *counts,
                            lore_error *err)
{
    lore_pipeline p = {.index = options->is_dry ? options->index : lore_writer_index(writer),
                       .writer = writer,
                       .embedder = embedder,
                       .config = config,
                       .source = source,
                       .options = options,
                       .dim = lore_embedder_dim(embedder),
                       .counts = counts};
    p.collection = options->collection.len > 0 ? options->collection : LORE_STR("default");
    p.group_max = (int32_t)(config->commit_documents < 1                ? 1
                            : config->commit_documents > LORE_GROUP_MAX ? LORE_GROUP_MAX
                                                                        : config->commit_documents);
    *counts = (lore_ingest_counts){0};
    lore_lock_init(&p.lock);
    lore_arena_init(&p.root_arena, 0);
    lore_status status = options->is_dry ? find_collection(&p, err) : make_collection(&p, err);
    lore_config *own = NULL;
    if (status == LORE_OK && p.index != NULL) {
        status = lore_index_collection_config(p.index, p.collection, config, &own, err);
        p.config = own != NULL ? own : config;
    }
    if (status == LORE_OK) {
        lore_source_ask(source, known_validators, &p);
        status = run(&p, source_options, err);
    }
    lore_free(own);
    if (options->progress != NULL) {
        options->progress(options->self, counts, lore_source_total(source));
    }
    destroy(&p);
    return status;
}
