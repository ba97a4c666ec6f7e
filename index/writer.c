/* See writer.h. Invariants:
 *
 * 1. A batch belongs to its caller while WAITING (and can be taken back) and to the writer's thread
 *    while TAKEN; DONE gives it back. It lives on its caller's stack: so the queue takes no memory
 *    and cannot fail, and is as long as callers are many, QUEUE_MAX at most.
 * 2. A group is one transaction: whole batches in the order of their arrival. When it fails for a
 *    reason other than one change's content, it is rolled back and every change is tried in a
 *    transaction of its own, so that only the guilty ones fail.
 * 3. Nobody is woken before the commit, and the snapshot that shows it, are there.
 *
 * What can wait happens after the callers are woken: publishing and checkpoints. Neither loses
 * anything when it fails; both are tried again. */
#include "index/writer.h"

#include "base/clock.h"
#include "base/log.h"
#include "index/index_int.h"

enum {
    QUEUE_MAX = 4096,       /* batches waiting; each has a thread that waits for it */
    POLL_MS = 100,          /* how often a waiting caller looks whether it is still wanted */
    PUBLISH_COMMITS = 32,   /* commits between publications while there is no pause */
    IDLE_MS = 2000,         /* a pause after which the index is published and the log emptied */
    UPKEEP_RETRY_MS = 30000 /* after an upkeep that failed, most likely for want of space */
};
#define GROUP_BYTES_MAX ((size_t)32 * 1024 * 1024)

typedef enum batch_state { BATCH_WAITING, BATCH_TAKEN, BATCH_DONE } batch_state;

typedef struct batch {
    struct batch *next;
    lore_change *changes;
    int32_t count; /* 0: publish */
    batch_state state;
    lore_status status; /* of a publication */
    lore_error error;
} batch;

struct lore_writer {
    lore_index *index;
    lore_thread thread;
    lore_lock lock; /* guards the queue, its batches' states, and is_stopping */
    batch *first, *last;
    int32_t queued;
    bool is_stopping;
    /* The thread's own. */
    int64_t commits;   /* since the last publication */
    int64_t upkeep_ns; /* when the pause is long enough; 0: nothing to do */
};

/* ---- one change in the open transaction ---- */

static lore_status put(lore_index *index, lore_change *change, lore_error *err)
{
    bool is_unchanged = false;
    lore_put_outcome made = {0};
    const lore_document_row *row = change->document;
    lore_status status =
        lore_index_is_unchanged(index, change->collection, row->id, row->hash, &is_unchanged, err);
    if (status != LORE_OK || is_unchanged) {
        return status;
    }
    /* The collection is made only for a document that has passed all checks. */
    status = lore_index_put_document(index, change->collection, row, &made, err);
    if (status == LORE_ERR_NOT_FOUND) {
        status = lore_index_create_collection(index, change->collection, err);
        if (status == LORE_OK) {
            status = lore_index_put_document(index, change->collection, row, &made, err);
        }
    }
    change->is_near_duplicate = made.is_near_duplicate;
    change->outcome = made.was_replaced ? LORE_OUTCOME_REPLACED : LORE_OUTCOME_ADDED;
    return status;
}

static lore_status create_collection(lore_index *index, lore_change *change, lore_error *err)
{
    int64_t id = 0;
    lore_error ignored;
    lore_status found = lore_collection_find(index->writer, change->collection, &id, &ignored);
    change->outcome = found == LORE_OK ? LORE_OUTCOME_NONE : LORE_OUTCOME_ADDED;
    return lore_index_create_collection(index, change->collection, err);
}

static lore_status make_change(lore_index *index, lore_change *change, lore_error *err)
{
    lore_status status = LORE_OK;
    bool found = false;
    change->outcome = LORE_OUTCOME_NONE;
    change->is_near_duplicate = false;
    switch (change->kind) {
    case LORE_CHANGE_PUT:
        return put(index, change, err);
    case LORE_CHANGE_CREATE_COLLECTION:
        return create_collection(index, change, err);
    case LORE_CHANGE_SET_COLLECTION:
        status = lore_index_set_collection(index, change->collection, change->settings, err);
        change->outcome = LORE_OUTCOME_REPLACED;
        return status;
    case LORE_CHANGE_DELETE:
        status = lore_index_delete_document(index, change->collection, change->id, &found, err);
        break;
    case LORE_CHANGE_DELETE_COLLECTION:
        status = lore_index_delete_collection(index, change->collection, &found, err);
        break;
    }
    change->outcome = found ? LORE_OUTCOME_DELETED : LORE_OUTCOME_NONE;
    return status;
}

/* ---- transactions ---- */

/* A refused change leaves the transaction as it was; any other failure is the transaction's. */
static lore_status make_changes(lore_index *index, lore_change *changes, int32_t count,
                                lore_error *err)
{
    for (int32_t i = 0; i < count; i++) {
        lore_error ignored;
        lore_change *change = &changes[i];
        change->status = make_change(index, change, &change->error);
        if (change->status != LORE_OK && lore_transaction_check(index, &ignored) != LORE_OK) {
            *err = change->error;
            return change->status;
        }
    }
    return LORE_OK;
}

/* One transaction of the batches up to, not including, `end`; or of one change of `only`. */
static lore_status write_transaction(lore_writer *writer, batch *from, const batch *end,
                                     lore_change *only, lore_error *err)
{
    lore_index *index = writer->index;
    lore_status status = lore_index_begin(index, err);
    if (status != LORE_OK) {
        return status;
    }
    if (only != NULL) {
        status = make_changes(index, only, 1, err);
    }
    for (batch *b = from; b != end && status == LORE_OK; b = b->next) {
        status = make_changes(index, b->changes, b->count, err);
    }
    if (status != LORE_OK) {
        lore_index_rollback(index);
        return status;
    }
    status = lore_index_commit(index, err);
    writer->commits += status == LORE_OK ? 1 : 0;
    return status;
}

static void write_group(lore_writer *writer, batch *group, const batch *end)
{
    lore_error err;
    lore_status status = write_transaction(writer, group, end, NULL, &err);
    if (status == LORE_OK) {
        return;
    }
    bool is_locked = status == LORE_ERR_BUSY; /* by another process, for all of them alike */
    for (batch *b = group; b != end; b = b->next) {
        for (int32_t i = 0; i < b->count; i++) {
            lore_change *change = &b->changes[i];
            if (!is_locked) {
                status = write_transaction(writer, NULL, NULL, change, &err);
                is_locked = status == LORE_ERR_BUSY; /* it waited: the others must not, each */
            }
            if (status != LORE_OK) {
                change->status = status;
                change->error = err;
                change->outcome = LORE_OUTCOME_NONE;
            }
        }
    }
}

/* ---- between transactions ---- */

static lore_status publish(lore_writer *writer, lore_error *err)
{
    lore_status status = lore_index_publish(writer->index, err);
    writer->commits = status == LORE_OK ? 0 : writer->commits;
    return status;
}

static bool upkeep_is_done(lore_status status, const lore_error *err)
{
    if (status != LORE_OK && status != LORE_ERR_BUSY) {
        lore_log(LORE_LOG_WARN, "event=index_upkeep_failed reason=%s",
                 LORE_LOG_STR(lore_str_from(err->message)));
    }
    return status == LORE_OK;
}

/* Publish now and then, and after a pause (is_idle) leave everything folded and the log empty: the
 * log also where publishing fails, as that may be for want of the space that the log takes. */
static void keep_up(lore_writer *writer, bool is_idle)
{
    lore_error err;
    lore_status status = LORE_OK;
    if (writer->commits > 0 && (is_idle || writer->commits >= PUBLISH_COMMITS)) {
        status = publish(writer, &err);
    }
    bool is_kept_up = upkeep_is_done(status, &err);
    status = lore_index_checkpoint(writer->index, is_idle, &err);
    is_kept_up = upkeep_is_done(status, &err) && is_kept_up;
    int64_t pause_ms = !is_kept_up ? UPKEEP_RETRY_MS : is_idle ? 0 : IDLE_MS;
    writer->upkeep_ns = pause_ms == 0 ? 0 : lore_clock_ns() + pause_ms * 1000000;
}

/* ---- the thread ---- */

static size_t size_of(const batch *b)
{
    size_t bytes = 0;
    for (int32_t i = 0; i < b->count; i++) {
        bytes += b->changes[i].kind == LORE_CHANGE_PUT ? b->changes[i].document->text.len : 0;
    }
    return bytes;
}

/* Take the batches of the next group off the queue; *end is where it ends. NULL: there is none, and
 * it is time for upkeep or the end. A publication is a group of its own. Lock held. */
static batch *take_group(lore_writer *writer, const batch **end)
{
    batch *group = writer->first;
    int32_t count = 0;
    size_t bytes = 0;
    batch *b = group;
    for (; b != NULL; b = b->next) {
        count += b->count;
        bytes += size_of(b);
        bool is_over = count > LORE_CHANGES_MAX || bytes > GROUP_BYTES_MAX;
        if (b != group && (is_over || b->count == 0 || group->count == 0)) {
            break;
        }
        b->state = BATCH_TAKEN;
        writer->queued--;
    }
    writer->first = b;
    writer->last = b == NULL ? NULL : writer->last;
    *end = b;
    return group;
}

/* Lock held. The batches are their callers' again. */
static void give_back(batch *group, const batch *end)
{
    while (group != end) {
        batch *next = group->next;
        group->state = BATCH_DONE;
        group = next;
    }
}

static void *run(void *self)
{
    lore_writer *writer = self;
    lore_thread_lower_priority(); /* questions go first */
    lore_lock_acquire(&writer->lock);
    for (;;) {
        const batch *end = NULL;
        batch *group = take_group(writer, &end);
        bool is_stopping = writer->is_stopping;
        bool is_due = writer->upkeep_ns != 0 && lore_deadline_passed(writer->upkeep_ns);
        if (group == NULL && !is_due && !is_stopping) {
            (void)lore_lock_wait(&writer->lock, writer->upkeep_ns);
            continue;
        }
        lore_lock_release(&writer->lock);
        if (group == NULL) {
            keep_up(writer, true);
            if (is_stopping) {
                return NULL;
            }
            lore_lock_acquire(&writer->lock);
            continue;
        }
        if (group->count == 0) {
            group->status = publish(writer, &group->error);
        } else {
            write_group(writer, group, end);
        }
        lore_lock_acquire(&writer->lock);
        give_back(group, end);
        lore_lock_wake_all(&writer->lock);
        lore_lock_release(&writer->lock);
        keep_up(writer, false);
        lore_lock_acquire(&writer->lock);
    }
}

/* ---- for callers ---- */

lore_status lore_writer_open(lore_index *index, lore_writer **writer, lore_error *err)
{
    LORE_ASSERT(index->is_writer);
    lore_writer *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the writer of the index");
    }
    made->index = index;
    lore_lock_init(&made->lock);
    lore_status status = lore_thread_start(&made->thread, "lore-write", run, made, err);
    if (status != LORE_OK) {
        lore_lock_destroy(&made->lock);
        lore_free(made);
        return status;
    }
    *writer = made;
    return LORE_OK;
}

void lore_writer_close(lore_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    lore_lock_acquire(&writer->lock);
    writer->is_stopping = true;
    lore_lock_wake_all(&writer->lock);
    lore_lock_release(&writer->lock);
    lore_thread_join(&writer->thread);
    LORE_ASSERT(writer->first == NULL);
    lore_lock_destroy(&writer->lock);
    lore_free(writer);
}

lore_index *lore_writer_index(const lore_writer *writer)
{
    return writer->index;
}

static lore_status why_given_up(const lore_apply_options *options, lore_error *err)
{
    return lore_deadline_passed(options->deadline_ns)
               ? lore_fail(err, LORE_ERR_TIMEOUT,
                           "other writers kept the index busy; nothing is written")
               : lore_fail(err, LORE_ERR_CANCELLED, "cancelled; nothing is written");
}

/* Does the caller give up? Asked without the lock. */
static bool gives_up(const lore_apply_options *options)
{
    return lore_deadline_passed(options->deadline_ns) ||
           (options->is_cancelled != NULL && options->is_cancelled(options->self));
}

/* Until when to wait before asking the caller again; 0: for ever. */
static int64_t next_look(const lore_apply_options *options)
{
    int64_t look_ns = lore_clock_ns() + (int64_t)POLL_MS * 1000000;
    return options->is_cancelled != NULL ? look_ns : options->deadline_ns;
}

static void append(lore_writer *writer, batch *b)
{
    if (writer->last == NULL) {
        writer->first = b;
    } else {
        writer->last->next = b;
    }
    writer->last = b;
    writer->queued++;
    lore_lock_wake_all(&writer->lock);
}

static void take_back(lore_writer *writer, const batch *b)
{
    batch *before = NULL;
    for (batch *at = writer->first; at != b; at = at->next) {
        before = at;
    }
    if (before == NULL) {
        writer->first = b->next;
    } else {
        before->next = b->next;
    }
    writer->last = writer->last == b ? before : writer->last;
    writer->queued--;
}

/* Queue the batch and wait until it is done; false: the caller gave up before its turn. */
static bool hand_over(lore_writer *writer, batch *b, const lore_apply_options *options)
{
    bool is_queued = false, is_given_up = gives_up(options);
    int64_t look_ns = next_look(options);
    lore_lock_acquire(&writer->lock);
    LORE_ASSERT(!writer->is_stopping);
    while (b->state != BATCH_DONE) {
        if (is_given_up && b->state == BATCH_WAITING) {
            if (is_queued) {
                take_back(writer, b);
            }
            break;
        }
        if (!is_queued && writer->queued < QUEUE_MAX) {
            append(writer, b);
            is_queued = true;
        }
        /* Once taken it ends by itself; before that the caller is asked now and then. */
        (void)lore_lock_wait(&writer->lock, b->state == BATCH_TAKEN ? 0 : look_ns);
        if (b->state == BATCH_WAITING && lore_deadline_passed(look_ns)) {
            lore_lock_release(&writer->lock);
            is_given_up = gives_up(options);
            look_ns = next_look(options);
            lore_lock_acquire(&writer->lock);
        }
    }
    bool is_done = b->state == BATCH_DONE;
    lore_lock_release(&writer->lock);
    return is_done;
}

lore_status lore_writer_apply(lore_writer *writer, lore_change *changes, int32_t count,
                              const lore_apply_options *options, lore_error *err)
{
    static const lore_apply_options PATIENT = {0};
    LORE_ASSERT(count >= 1 && count <= LORE_CHANGES_MAX);
    options = options != NULL ? options : &PATIENT;
    batch b = {.changes = changes, .count = count};
    return hand_over(writer, &b, options) ? LORE_OK : why_given_up(options, err);
}

lore_status lore_writer_apply_one(lore_writer *writer, lore_change *change,
                                  const lore_apply_options *options, lore_error *err)
{
    lore_status status = lore_writer_apply(writer, change, 1, options, err);
    return status != LORE_OK || change->status == LORE_OK
               ? status
               : lore_fail(err, change->status, "%s", change->error.message);
}

lore_status lore_writer_publish(lore_writer *writer, lore_error *err)
{
    static const lore_apply_options PATIENT = {0};
    batch b = {.count = 0};
    bool is_done = hand_over(writer, &b, &PATIENT);
    LORE_ASSERT(is_done);
    return b.status == LORE_OK ? LORE_OK : lore_fail(err, b.status, "%s", b.error.message);
}
