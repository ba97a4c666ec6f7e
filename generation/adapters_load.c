/* The thread that moves adapters: from the disk to host memory, from there to the backend, and out
 * of both.
 *
 * It does one thing at a time, each found anew under the lock and done without it: free what nobody
 * can ask for any more; close host copies over the budget; then for the oldest in line that can get
 * further, read it, evict what lies in its way, or place it. So no load waits for another's room,
 * and nobody but this thread waits for a file or a device.
 *
 * Who has been short of room for LORE_ADAPTER_PATIENCE_NS is late: nothing is loaded past it, no
 * later request begins (lore_adapters_enter), and what only later ones wait for is evicted as well.
 * The rows in flight end, and it has its turn; so a stream of requests for what is in memory can
 * keep nobody out for ever. */
#include "generation/adapters_int.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>

#define FULL_NS ((int64_t)10000000000) /* how long a device that was full is taken to be so */
#define LOOK_NS ((int64_t)20000000)    /* how often one that is short looks whether it is late */

/* ---- out of memory ---- */

static void close_host(lore_adapters *adapters, lore_adapter_version *version)
{
    lore_adapter *host = version->host;
    version->host = NULL;
    if (host != NULL) {
        adapters->host_bytes -= (int64_t)version->info.size_bytes;
        lore_lock_release(&adapters->lock);
        adapters->source.close(adapters->source.self, host);
        lore_lock_acquire(&adapters->lock);
    }
}

static void unplace(lore_adapters *adapters, lore_adapter_version *version)
{
    lore_adapter_placed *placed = version->placed;
    LORE_ASSERT(version->slot < 0);
    version->placed = NULL;
    if (placed != NULL) {
        adapters->device_bytes -= version->device_bytes;
        lore_lock_release(&adapters->lock);
        adapters->source.unplace(adapters->source.self, placed);
        lore_lock_acquire(&adapters->lock);
    }
}

/* One that nobody can ask for, and nobody has. It stays linked until its memory is free, which is
 * what lore_adapters_remove waits for. */
static bool free_one(lore_adapters *adapters)
{
    lore_adapter_version *v = lore_adapters_next(adapters, NULL);
    while (v != NULL && (v->is_listed || v->users > 0 || v->slot >= 0)) {
        v = lore_adapters_next(adapters, v);
    }
    if (v == NULL) {
        return false;
    }
    lore_adapters_unwant(adapters, v);
    unplace(adapters, v);
    close_host(adapters, v);
    lore_adapter_version **link = &adapters->chains[v->hash % LORE_ADAPTER_CHAINS];
    while (*link != v) {
        link = &(*link)->next;
    }
    *link = v->next;
    adapters->unlisted_count--;
    lore_free(v);
    lore_lock_wake_all(&adapters->lock);
    return true;
}

/* The host copy that was used least recently, but for those that are to be placed. */
static bool drop_host_copy(lore_adapters *adapters)
{
    lore_adapter_version *least = NULL;
    for (lore_adapter_version *v = lore_adapters_next(adapters, NULL); v != NULL;
         v = lore_adapters_next(adapters, v)) {
        if (v->host != NULL && !v->is_wanted && (least == NULL || v->used_at < least->used_at)) {
            least = v;
        }
    }
    if (least != NULL) {
        adapters->host_evictions++;
        close_host(adapters, least);
    }
    return least != NULL;
}

/* ---- the line ---- */

typedef struct survey {
    int64_t idle_bytes, pinned_bytes;
    lore_adapter_version *late; /* the oldest one, or NULL */
    int64_t late_bytes;         /* that gives way to it */
} survey;

/* What may be evicted for `other`, or for anybody. */
static bool gives_way(const lore_adapter_version *v, const lore_adapter_version *other)
{
    return v->placed != NULL && v->slot < 0 && !v->is_pinned &&
           (v->users == 0 || (other != NULL && v->wanted_ns > other->wanted_ns));
}

static bool is_late(lore_adapter_version *v)
{
    v->is_late = v->is_late || (v->is_wanted && v->is_short &&
                                lore_clock_ns() - v->wanted_ns > LORE_ADAPTER_PATIENCE_NS);
    return v->is_late;
}

static survey look(lore_adapters *adapters)
{
    survey seen = {0};
    for (lore_adapter_version *v = lore_adapters_next(adapters, NULL); v != NULL;
         v = lore_adapters_next(adapters, v)) {
        seen.idle_bytes += gives_way(v, NULL) ? v->device_bytes : 0;
        seen.pinned_bytes += v->placed != NULL && v->is_pinned ? v->device_bytes : 0;
        if (is_late(v) && (seen.late == NULL || v->wanted_ns < seen.late->wanted_ns)) {
            seen.late = v;
        }
    }
    for (lore_adapter_version *v = lore_adapters_next(adapters, NULL);
         v != NULL && seen.late != NULL; v = lore_adapters_next(adapters, v)) {
        seen.late_bytes += gives_way(v, seen.late) ? v->device_bytes : 0;
    }
    adapters->late_ns = seen.late != NULL ? seen.late->wanted_ns : INT64_MAX;
    return seen;
}

static int64_t shortage(const lore_adapters *adapters, const lore_adapter_version *v)
{
    return adapters->device_bytes + v->device_bytes - adapters->room;
}

/* Can the version, which is wanted, get further now? */
static bool is_doable(lore_adapters *adapters, lore_adapter_version *v, const survey *seen)
{
    if (v->host == NULL) {
        return adapters->host_bytes <= adapters->host_bytes_max;
    }
    if (v->device_bytes > adapters->room - seen->pinned_bytes) {
        return true; /* to be refused */
    }
    v->is_short = shortage(adapters, v) > (v == seen->late ? seen->late_bytes : seen->idle_bytes);
    if (v->is_short && v->users == 0 && !v->is_pinned) {
        lore_adapters_unwant(adapters, v); /* nobody waits */
        return false;
    }
    return !v->is_short;
}

static lore_adapter_version *first_doable(lore_adapters *adapters, const survey *seen)
{
    lore_adapter_version *first = NULL;
    for (lore_adapter_version *v = lore_adapters_next(adapters, NULL); v != NULL;
         v = lore_adapters_next(adapters, v)) {
        if (v->is_wanted && v->wanted_ns <= adapters->late_ns && is_doable(adapters, v, seen) &&
            (first == NULL || v->wanted_ns < first->wanted_ns)) {
            first = v;
        }
    }
    return first;
}

/* The engine hears of what is placed and of what has failed. */
static void tell(lore_adapters *adapters)
{
    (void)look(adapters); /* who is late now */
    lore_lock_wake_all(&adapters->lock);
    lore_lock_release(&adapters->lock);
    adapters->wake(adapters->wake_self);
    lore_lock_acquire(&adapters->lock);
}

static void fail(lore_adapters *adapters, lore_adapter_version *v, lore_error *err)
{
    const bool is_listed = v->is_listed;
    lore_error_prefix(err, "adapter '" LORE_STR_FMT "'", LORE_STR_ARG(v->name));
    v->error = *err;
    v->failed_ns = lore_clock_ns();
    lore_adapters_unwant(adapters, v);
    adapters->failures++;
    tell(adapters);
    if (is_listed) { /* else it is the error of whoever loads it */
        lore_lock_release(&adapters->lock);
        lore_log(LORE_LOG_WARN, "event=adapter_failed reason=%s",
                 LORE_LOG_STR(lore_str_from(err->message)));
        lore_lock_acquire(&adapters->lock);
    }
}

/* ---- into memory ---- */

/* Which one goes first? One that nobody waits for, of those the least recently used. */
static bool goes_before(const lore_adapter_version *a, const lore_adapter_version *b)
{
    return (a->users > 0) != (b->users > 0) ? a->users == 0 : a->used_at < b->used_at;
}

static void evict_for(lore_adapters *adapters, const lore_adapter_version *other)
{
    lore_adapter_version *least = NULL;
    for (lore_adapter_version *v = lore_adapters_next(adapters, NULL); v != NULL;
         v = lore_adapters_next(adapters, v)) {
        if (gives_way(v, other) && (least == NULL || goes_before(v, least))) {
            least = v;
        }
    }
    LORE_ASSERT(least != NULL); /* is_doable has counted */
    adapters->device_evictions++;
    unplace(adapters, least);
    if (least->users > 0) {
        lore_adapters_want(adapters, least);
    }
}

static void read_folder(lore_adapters *adapters, lore_adapter_version *v)
{
    const lore_adapter_source *source = &adapters->source;
    lore_adapter *host = NULL;
    lore_adapter_info info = {0};
    lore_error err;
    const int64_t begin_ns = lore_clock_ns();
    lore_lock_release(&adapters->lock);
    lore_status status =
        source->open(source->self, v->folder.ptr, &adapters->limits, &host, &info, &err);
    const int64_t bytes = status == LORE_OK ? (int64_t)source->bytes(source->self, host) : 0;
    const int64_t elapsed_ns = lore_clock_ns() - begin_ns;
    if (status == LORE_OK) {
        lore_log(LORE_LOG_INFO, "event=adapter_read name=%s bytes=%zu ms=%.1f",
                 LORE_LOG_STR(v->name), info.size_bytes, (double)elapsed_ns / 1e6);
    }
    lore_lock_acquire(&adapters->lock);
    adapters->load_ns += elapsed_ns;
    if (status == LORE_ERR_NOMEM && drop_host_copy(adapters)) {
        return; /* and again */
    }
    if (status != LORE_OK) {
        fail(adapters, v, &err);
        return;
    }
    v->host = host;
    v->info = info;
    v->device_bytes = bytes;
    v->serial = ++adapters->last_serial;
    adapters->host_bytes += (int64_t)info.size_bytes;
    lore_lock_wake_all(&adapters->lock);
}

static void place(lore_adapters *adapters, lore_adapter_version *v)
{
    const lore_adapter_source *source = &adapters->source;
    lore_adapter_placed *placed = NULL;
    lore_error err;
    const int64_t begin_ns = lore_clock_ns();
    lore_lock_release(&adapters->lock);
    lore_status status = source->place(source->self, v->host, &placed, &err);
    lore_lock_acquire(&adapters->lock);
    adapters->load_ns += lore_clock_ns() - begin_ns;
    if (status == LORE_ERR_NOMEM && adapters->device_bytes > 0) {
        adapters->room = adapters->device_bytes; /* what the device has not is no room */
        adapters->room_ns = lore_clock_ns();
        return;
    }
    if (status != LORE_OK) {
        fail(adapters, v, &err);
        return;
    }
    v->placed = placed;
    lore_adapters_unwant(adapters, v);
    adapters->device_bytes += v->device_bytes;
    adapters->loads++;
    tell(adapters);
}

static void refuse(lore_adapters *adapters, lore_adapter_version *v, int64_t pinned_bytes)
{
    lore_error err;
    lore_fail(&err, LORE_ERR_LIMIT,
              "it takes %" PRId64 " bytes where %" PRId64 " are for adapters (%" PRId64
              " allowed by limits.adapter_bytes_max), pinned ones have %" PRId64,
              v->device_bytes, adapters->room, adapters->device_bytes_max, pinned_bytes);
    fail(adapters, v, &err);
}

static void advance(lore_adapters *adapters, lore_adapter_version *v, const survey *seen)
{
    if (v->host == NULL) {
        read_folder(adapters, v);
    } else if (v->device_bytes > adapters->room - seen->pinned_bytes) {
        refuse(adapters, v, seen->pinned_bytes);
    } else if (shortage(adapters, v) > 0) {
        evict_for(adapters, v == seen->late ? v : NULL);
    } else {
        place(adapters, v);
    }
}

/* The line, as far as it gets. False: there is nobody in it who can get further now. */
static bool advance_line(lore_adapters *adapters)
{
    if (lore_clock_ns() - adapters->room_ns > FULL_NS) {
        adapters->room = adapters->device_bytes_max;
    }
    const survey seen = look(adapters);
    lore_adapter_version *version = first_doable(adapters, &seen);
    if (version != NULL) {
        advance(adapters, version, &seen);
    }
    return version != NULL;
}

void *lore_adapters_run_loader(void *self)
{
    lore_adapters *adapters = self;
    lore_lock_acquire(&adapters->lock);
    while (!adapters->is_stopping) {
        if ((adapters->unlisted_count > 0 && free_one(adapters)) ||
            (adapters->host_bytes > adapters->host_bytes_max && drop_host_copy(adapters)) ||
            (adapters->wanted_count > 0 && advance_line(adapters))) {
            continue;
        }
        const bool is_line = adapters->wanted_count > 0;
        adapters->late_ns = is_line ? adapters->late_ns : INT64_MAX;
        (void)lore_lock_wait(&adapters->lock, is_line ? lore_clock_ns() + LOOK_NS : 0);
    }
    lore_lock_release(&adapters->lock);
    return NULL;
}
