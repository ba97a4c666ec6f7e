/* Vectors on a device: copies of vector files in its memory, and exact searches there.
 *
 * After each new snapshot a thread of its own copies what published vector files have no copy yet.
 * A segment gets its copy once, when that is whole, and takes it along when it is freed. A search
 * that finds no copy (yet, or no room for one) scans on the processor, as it does the tail: which
 * of the two it was cannot be told from the answer, the scores are equal to the last bit.
 *
 * Searches that come while the device is busy stand in a line, and nobody serves it but they
 * themselves: who finds the device free takes the first and all behind it that want the same rows
 * of the same segment, up to a pack, searches for all of them in one pass over the vectors, hands
 * out what was found and wakes everybody. A search with a filter is a pack of its own.
 *
 * The decoder plans its memory first; copies take of what it leaves, but for a reserve: products
 * keep workspaces, recordings of steps take room.
 *
 * Whatever fails on the device during a search ends its use for good, with one line in the log; a
 * copy that finds no room is tried again now and then, since what holds the memory may go.
 *
 * Lock: `turn` guards the line, is_busy, is_off, the fields of requests that are marked, and what
 * wakes the thread. The queue and the memory of packs belong to whoever set is_busy; copies have a
 * queue of their own. */
#include "index/index_int.h"

#include "base/clock.h"
#include "base/log.h"
#include "kernels/search.h"

#include <string.h>

enum {
    PACK = 64,              /* queries of one pass: what cuda takes at once */
    ALLOWED_MIN = 2048,     /* fewer rows are scored on the processor before a device is asked */
    PIECE_BYTES = 1 << 26,  /* of an upload: in between it looks whether it is to stop */
    RETRY_MS = 10000,       /* after a copy failed */
    RESERVE_BYTES = 1 << 30 /* of the device stay free, or a sixteenth of it */
};

/* A copy. */
struct lore_resident {
    lore_backend *backend;
    void *rows;
    void *scales;
    /* The pack's: a bit a row, there and here, and the dead set whose complement it is now. */
    void *passing, *host_passing;
    lore_dead *shown;
};

/* A search in the line. On its caller's stack. */
typedef struct request {
    const lore_part *part;
    lore_resident *copy;
    const uint64_t *passing; /* the living rows that a filter lets through; NULL: no filter */
    const lore_scan *query;
    lore_top *top;
    bool is_done;         /* guarded */
    bool is_found;        /* guarded; false: the device failed */
    struct request *next; /* guarded */
} request;

struct lore_device {
    lore_index *index;
    lore_backend *backend;
    lore_lock turn;
    request *first, *last; /* the line; guarded */
    bool is_busy, is_off;  /* guarded */

    /* The pack's, made with the first copy: scales [PACK] and queries [PACK, dim]; rows and scores,
     * [queries, hits] each. */
    lore_queue *queue;
    void *host_in, *host_out, *device_in, *device_out;

    lore_thread copier;
    bool is_wanted, is_copying, is_stopping; /* guarded */
};

enum { SCALES_BYTES = PACK * sizeof(float), HITS = LORE_SEARCH_HITS_MAX };

static size_t in_bytes(int32_t queries, int32_t dim)
{
    return SCALES_BYTES + (size_t)queries * (size_t)dim;
}

static size_t out_bytes(int32_t queries, int32_t hits)
{
    return (size_t)queries * (size_t)hits * (sizeof(int32_t) + sizeof(float));
}

static void turn_off(lore_device *device, const char *reason)
{
    lore_log(LORE_LOG_ERROR, "event=device_search_off reason=%s effect=\"on the processor\"",
             LORE_LOG_STR(lore_str_from(reason)));
    lore_lock_acquire(&device->turn);
    device->is_off = true;
    lore_lock_release(&device->turn);
}

/* ---- a pack ---- */

static void fill_in(lore_device *device, request *const *pack, int32_t count)
{
    float *scales = device->host_in;
    int8_t *queries = (int8_t *)device->host_in + SCALES_BYTES;
    for (int32_t i = 0; i < count; i++) {
        const lore_scan *query = pack[i]->query;
        scales[i] = query->query_scale;
        memcpy(queries + (size_t)i * (size_t)query->dim, query->query, (size_t)query->dim);
    }
}

static void hand_out(const lore_device *device, request *const *pack, int32_t count, int32_t hits)
{
    const int32_t *rows = device->host_out;
    const float *scores = (const float *)(const void *)(rows + (size_t)count * (size_t)hits);
    for (int32_t i = 0; i < count; i++, rows += hits, scores += hits) {
        const request *r = pack[i];
        for (int32_t hit = 0; hit < r->top->cap && rows[hit] >= 0; hit++) {
            lore_top_offer(r->top, r->part->segment->ids[rows[hit]], scores[hit]);
        }
    }
}

/* Little-endian words of 64 are the words of 32 that the op reads. */
static size_t word_count(const lore_segment *segment)
{
    return ((size_t)segment->count + 63) / 64;
}

/* Have the device know which rows may be found; gives that, or NULL where all may. What is dead is
 * the same for one search after the other, until the next deletion. */
static const uint32_t *show_passing(lore_queue *queue, const request *r)
{
    lore_resident *copy = r->copy;
    const size_t count = word_count(r->part->segment);
    const uint64_t *words = r->passing;
    if (words == NULL && (r->part->dead == NULL || r->part->dead == copy->shown)) {
        return r->part->dead == NULL ? NULL : copy->passing;
    }
    lore_dead_release(copy->shown);
    copy->shown = NULL;
    if (words == NULL) {
        uint64_t *living = copy->host_passing;
        for (size_t i = 0; i < count; i++) {
            living[i] = ~r->part->dead->words[i];
        }
        words = living;
        copy->shown = lore_dead_acquire(r->part->dead);
    }
    lore_queue_upload(queue, copy->passing, words, count * sizeof *words);
    return copy->passing;
}

static lore_status search_pack(lore_device *device, request *const *pack, int32_t count,
                               lore_error *err)
{
    const request *r = pack[0];
    const int32_t dim = r->part->segment->dim;
    lore_queue *queue = device->queue;
    int32_t hits = 0;
    for (int32_t i = 0; i < count; i++) {
        hits = pack[i]->top->cap > hits ? pack[i]->top->cap : hits;
    }
    fill_in(device, pack, count);
    int8_t *in = device->device_in;
    int32_t *rows = device->device_out;
    float *scores = (float *)(void *)(rows + (size_t)count * (size_t)hits);
    lore_queue_begin(queue, LORE_PRIORITY_HIGH);
    lore_queue_upload(queue, in, device->host_in, in_bytes(count, dim));
    const lore_search search = {LORE_I8,
                                count,
                                in + SCALES_BYTES,
                                (const float *)(const void *)in,
                                r->copy->rows,
                                r->copy->scales,
                                show_passing(queue, r),
                                r->part->segment->count,
                                dim};
    lore_op_search(queue, rows, scores, hits, &search);
    lore_queue_download_later(queue, device->host_out, rows, out_bytes(count, hits));
    lore_status status = lore_queue_sync(queue, err);
    if (status == LORE_OK) {
        hand_out(device, pack, count, hits);
    }
    return status;
}

/* ---- the line ---- */

static bool goes_with(const request *a, const request *b)
{
    return a->copy == b->copy && a->part->dead == b->part->dead && a->passing == NULL &&
           b->passing == NULL;
}

/* Take the first of the line, which is not empty, and those that go with it. Lock held. */
static int32_t take_pack(lore_device *device, request **pack)
{
    request *left = NULL, **end = &left;
    int32_t count = 1;
    pack[0] = device->first;
    device->last = NULL;
    for (request *r = pack[0]->next; r != NULL; r = r->next) {
        if (count < PACK && goes_with(pack[0], r)) {
            pack[count++] = r;
        } else {
            *end = r;
            end = &r->next;
            device->last = r;
        }
    }
    *end = NULL;
    device->first = left;
    return count;
}

static void serve_pack(lore_device *device)
{
    request *pack[PACK];
    lore_error err;
    const int32_t count = take_pack(device, pack);
    bool is_found = !device->is_off;
    device->is_busy = true;
    lore_lock_release(&device->turn);
    if (is_found && search_pack(device, pack, count, &err) != LORE_OK) {
        turn_off(device, err.message);
        is_found = false;
    }
    lore_lock_acquire(&device->turn);
    for (int32_t i = 0; i < count; i++) {
        pack[i]->is_found = is_found;
        pack[i]->is_done = true;
    }
    device->is_busy = false;
    lore_lock_wake_all(&device->turn);
}

static bool stand_in_line(lore_device *device, request *own)
{
    lore_lock_acquire(&device->turn);
    if (device->last == NULL) {
        device->first = own;
    } else {
        device->last->next = own;
    }
    device->last = own;
    while (!own->is_done) {
        if (device->is_busy) {
            (void)lore_lock_wait(&device->turn, 0); /* who is busy always ends it */
        } else {
            serve_pack(device);
        }
    }
    lore_lock_release(&device->turn);
    return own->is_found;
}

/* ---- which rows pass ---- */

/* Allowed chunks come in runs, as rows do. */
static void set_allowed(uint64_t *words, const lore_segment *segment, const lore_row_set *allowed)
{
    int64_t first = 0, end = 0;
    while (lore_row_set_run(allowed, end, &first, &end)) {
        int64_t row = lore_segment_lower_bound(segment, first);
        for (; row < segment->count && segment->ids[row] < end; row++) {
            words[row >> 6] |= (uint64_t)1 << (row & 63);
        }
    }
}

static uint64_t *passing_rows(const lore_part *part, const lore_row_set *allowed)
{
    const size_t count = word_count(part->segment);
    uint64_t *words = lore_alloc_zero(count, sizeof *words);
    if (words == NULL) {
        return NULL;
    }
    set_allowed(words, part->segment, allowed);
    for (size_t i = 0; i < count && part->dead != NULL; i++) {
        words[i] &= ~part->dead->words[i];
    }
    return words;
}

static bool read_flag(lore_device *device, const bool *flag)
{
    lore_lock_acquire(&device->turn);
    const bool is = *flag;
    lore_lock_release(&device->turn);
    return is;
}

bool lore_device_search(lore_device *device, const lore_part *part, const lore_scan *query,
                        const lore_row_set *allowed, lore_top *top)
{
    /* Acquire: the copy was whole before its thread showed it. */
    lore_resident *copy = atomic_load_explicit(&part->segment->resident, memory_order_acquire);
    const bool is_few = allowed != NULL && allowed->count < ALLOWED_MIN;
    if (device == NULL || copy == NULL || is_few || top->cap == 0 || top->cap > HITS ||
        read_flag(device, &device->is_off)) {
        return false;
    }
    request own = {.part = part, .copy = copy, .query = query, .top = top};
    uint64_t *passing = allowed != NULL ? passing_rows(part, allowed) : NULL;
    if (allowed != NULL && passing == NULL) {
        return false; /* the scan needs no memory */
    }
    own.passing = passing;
    bool is_found = stand_in_line(device, &own);
    lore_free(passing);
    return is_found;
}

/* ---- copies ---- */

void lore_resident_free(lore_resident *copy)
{
    if (copy != NULL) {
        lore_backend_free(copy->backend, copy->rows);
        lore_backend_free(copy->backend, copy->scales);
        lore_backend_free(copy->backend, copy->passing);
        lore_backend_free_host(copy->backend, copy->host_passing);
        lore_dead_release(copy->shown);
        lore_free(copy);
    }
}

static lore_status upload(lore_device *device, lore_queue *queue, void *to, const void *from,
                          size_t size_bytes, lore_error *err)
{
    for (size_t at = 0; at < size_bytes; at += PIECE_BYTES) {
        const size_t left = size_bytes - at;
        if (read_flag(device, &device->is_stopping)) {
            return lore_fail(err, LORE_ERR_CANCELLED, "cancelled");
        }
        lore_queue_upload(queue, (char *)to + at, (const char *)from + at,
                          left < PIECE_BYTES ? left : PIECE_BYTES);
        lore_status status = lore_queue_sync(queue, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

static lore_status fill_copy(lore_device *device, lore_queue *queue, const lore_segment *segment,
                             lore_resident *copy, lore_error *err)
{
    const size_t count = (size_t)segment->count, bytes = count * (size_t)segment->dim;
    const size_t word_bytes = word_count(segment) * sizeof(uint64_t);
    lore_status status = lore_backend_alloc(copy->backend, bytes, &copy->rows, err);
    if (status == LORE_OK) {
        status = lore_backend_alloc(copy->backend, count * sizeof(float), &copy->scales, err);
    }
    if (status == LORE_OK) {
        status = lore_backend_alloc(copy->backend, word_bytes, &copy->passing, err);
    }
    if (status == LORE_OK) {
        status = lore_backend_alloc_host(copy->backend, word_bytes, &copy->host_passing, err);
    }
    if (status == LORE_OK) {
        status = upload(device, queue, copy->rows, segment->rows, bytes, err);
    }
    return status == LORE_OK
               ? upload(device, queue, copy->scales, segment->scales, count * sizeof(float), err)
               : status;
}

static int64_t copy_bytes(const lore_segment *segment)
{
    return segment->count * (segment->dim + (int64_t)sizeof(float));
}

static bool has_room(const lore_backend *backend, int64_t size_bytes)
{
    int64_t unused = 0, total = 0;
    lore_backend_memory(backend, &unused, &total);
    const int64_t share = total / 16, reserve = share < RESERVE_BYTES ? share : RESERVE_BYTES;
    return total == 0 || size_bytes <= unused - reserve;
}

static lore_status make_copy(lore_device *device, lore_queue *queue, lore_segment *segment,
                             lore_error *err)
{
    lore_resident *copy = lore_alloc_zero(1, sizeof *copy);
    if (copy == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for vectors on a device");
    }
    copy->backend = device->backend;
    lore_status status = fill_copy(device, queue, segment, copy, err);
    if (status != LORE_OK) {
        lore_resident_free(copy);
        return status;
    }
    atomic_store_explicit(&segment->resident, copy, memory_order_release); /* whole from here on */
    return LORE_OK;
}

/* What packs need, once the length of vectors is known. Nobody searches before the first copy. */
static lore_status open_packs(lore_device *device, int32_t dim, lore_error *err)
{
    if (device->queue != NULL) {
        return LORE_OK;
    }
    lore_backend *backend = device->backend;
    const size_t in = in_bytes(PACK, dim), out = out_bytes(PACK, HITS);
    lore_status status = LORE_OK;
    void **host[] = {&device->host_in, &device->host_out};
    void **own[] = {&device->device_in, &device->device_out};
    for (int i = 0; i < 2 && status == LORE_OK; i++) { /* what an earlier try has made stays */
        if (*host[i] == NULL) {
            status = lore_backend_alloc_host(backend, i == 0 ? in : out, host[i], err);
        }
        if (status == LORE_OK && *own[i] == NULL) {
            status = lore_backend_alloc(backend, i == 0 ? in : out, own[i], err);
        }
    }
    return status == LORE_OK ? lore_queue_open(backend, &device->queue, err) : status;
}

/* The first of a snapshot's vector files that is worth a copy and has none. */
static lore_segment *next_segment(const lore_snapshot *snapshot, int32_t *view)
{
    for (; *view < snapshot->view_count; (*view)++) {
        const lore_vectors *vectors = snapshot->views[*view];
        lore_segment *base = vectors->has_base ? vectors->parts[0].segment : NULL;
        if (base != NULL && base->count >= LORE_RESIDENT_ROWS_MIN && base->count <= INT32_MAX &&
            atomic_load_explicit(&base->resident, memory_order_relaxed) == NULL) {
            return base;
        }
    }
    return NULL;
}

static void log_copy(const lore_vectors *view, lore_status status, const char *reason)
{
    const lore_segment *base = view->parts[0].segment;
    const long long bytes = copy_bytes(base);
    if (status == LORE_OK) {
        lore_log(LORE_LOG_INFO, "event=vectors_on_device collection=%s vectors=%lld bytes=%lld",
                 view->name, (long long)base->count, bytes);
    } else {
        lore_log(LORE_LOG_WARN,
                 "event=vectors_not_on_device collection=%s vectors=%lld bytes=%lld reason=\"%s\"",
                 view->name, (long long)base->count, bytes, reason);
    }
}

/* All copies that the snapshot asks for; false: something failed. `told` keeps a failure that goes
 * on from filling the log. */
static bool make_copies(lore_device *device, const lore_snapshot *snapshot, lore_queue *queue,
                        bool *told)
{
    lore_error err;
    bool is_done = true;
    int32_t view = 0;
    for (lore_segment *segment = next_segment(snapshot, &view); segment != NULL;
         view++, segment = next_segment(snapshot, &view)) {
        lore_status status =
            has_room(device->backend, copy_bytes(segment))
                ? open_packs(device, segment->dim, &err)
                : lore_fail(&err, LORE_ERR_NOMEM, "the device has no room, but for its reserve");
        if (status == LORE_OK) {
            status = make_copy(device, queue, segment, &err);
        }
        if (status == LORE_ERR_CANCELLED) {
            return true;
        }
        is_done = is_done && status == LORE_OK;
        if (status == LORE_OK || !*told) {
            log_copy(snapshot->views[view], status, err.message);
        }
    }
    *told = !is_done;
    return is_done;
}

static bool copy_all(lore_device *device, bool *told)
{
    lore_error err;
    lore_queue *queue = NULL;
    lore_snapshot *snapshot = lore_index_acquire(device->index);
    int32_t view = 0;
    bool is_done = true;
    if (next_segment(snapshot, &view) != NULL) {
        if (lore_queue_open(device->backend, &queue, &err) != LORE_OK) {
            lore_log(LORE_LOG_WARN, "event=vectors_not_on_device reason=\"%s\"", err.message);
            is_done = false;
        } else {
            is_done = make_copies(device, snapshot, queue, told);
            lore_queue_close(queue);
        }
    }
    lore_snapshot_release(snapshot);
    return is_done;
}

static void *run(void *self)
{
    lore_device *device = self;
    int64_t retry_ns = 0;
    bool told = false;
    lore_thread_lower_priority();
    lore_lock_acquire(&device->turn);
    while (!device->is_stopping) {
        if (device->is_off ||
            (!device->is_wanted && (retry_ns == 0 || !lore_deadline_passed(retry_ns)))) {
            device->is_copying = device->is_wanted = false;
            lore_lock_wake_all(&device->turn);
            (void)lore_lock_wait(&device->turn, device->is_off ? 0 : retry_ns);
            continue;
        }
        device->is_wanted = false;
        device->is_copying = true;
        lore_lock_release(&device->turn);
        const bool is_done = copy_all(device, &told);
        retry_ns = is_done ? 0 : lore_clock_ns() + (int64_t)RETRY_MS * 1000000;
        lore_lock_acquire(&device->turn);
    }
    lore_lock_release(&device->turn);
    return NULL;
}

/* ---- life ---- */

void lore_device_wake(lore_device *device)
{
    if (device != NULL) {
        lore_lock_acquire(&device->turn);
        device->is_wanted = true;
        lore_lock_wake_all(&device->turn);
        lore_lock_release(&device->turn);
    }
}

bool lore_device_wait(lore_device *device, int64_t deadline_ns)
{
    lore_lock_acquire(&device->turn);
    while ((device->is_wanted || device->is_copying) && !lore_deadline_passed(deadline_ns)) {
        (void)lore_lock_wait(&device->turn, deadline_ns);
    }
    const bool is_idle = !device->is_wanted && !device->is_copying;
    lore_lock_release(&device->turn);
    return is_idle;
}

lore_status lore_device_open(lore_index *index, lore_backend *backend, lore_device **device,
                             lore_error *err)
{
    lore_device *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for searches on a device");
    }
    made->index = index;
    made->backend = backend;
    lore_lock_init(&made->turn);
    lore_status status = lore_thread_start(&made->copier, "lore-resident", run, made, err);
    if (status != LORE_OK) {
        lore_lock_destroy(&made->turn);
        lore_free(made);
        return status;
    }
    *device = made;
    return LORE_OK;
}

void lore_device_stop(lore_device *device)
{
    if (device != NULL) {
        lore_lock_acquire(&device->turn);
        device->is_stopping = true;
        lore_lock_wake_all(&device->turn);
        lore_lock_release(&device->turn);
        lore_thread_join(&device->copier);
    }
}

void lore_device_close(lore_device *device)
{
    if (device == NULL) {
        return;
    }
    LORE_ASSERT(device->first == NULL); /* a search is still running */
    lore_device_stop(device);
    if (device->queue != NULL) {
        lore_queue_close(device->queue);
    }
    lore_backend_free_host(device->backend, device->host_in);
    lore_backend_free_host(device->backend, device->host_out);
    lore_backend_free(device->backend, device->device_in);
    lore_backend_free(device->backend, device->device_out);
    lore_lock_destroy(&device->turn);
    lore_free(device);
}
