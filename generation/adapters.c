/* Names, leases and slots of adapters. What loads them is adapters_load.c.
 *
 * Everything here is short and under one lock; files and devices are the loader's. Versions lie in
 * chains by the hash of their name; of those with one name at most one is listed.
 *
 * States of a version and who makes each transition
 *   wanted    in the loader's line           lease, find, load; the loader, where it evicts what
 *                                            somebody waits for
 *   read      host is there                  the loader
 *   placed    placed is there                the loader
 *   seated    slot >= 0                      lore_adapters_enter
 *   idle      seated, rows = 0               lore_adapters_leave; entered again, or emptied
 *   unlisted  nobody can ask for it          remove, a load in its place
 *   failed    error.status, not wanted       the loader; lease wants it again after RETRY_NS
 *   freed     unlisted, users = 0, slot -1   the loader
 *
 * Invariants
 * 1. Who holds a lease may use the pointer: only the loader frees versions, and none with users.
 * 2. A version with users is placed, wanted, or failed: nobody waits for what nobody loads.
 * 3. What is seated stays placed until no sequence has it and every step that was submitted while
 *    one had it is collected.
 * 4. `placed` and `host` belong to one reading, whose number is `serial`, and never change while
 *    the version is seated: an answer has one set of values. */
#include "generation/adapters_int.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

#define LOOK_NS ((int64_t)250000000)   /* how often one that waits asks whether it still should */
#define RETRY_NS ((int64_t)1000000000) /* a folder that was refused is not read again before */
enum { NAMES_TOLD = 8 };               /* of those that there are, in a message */

/* ---- start and end ---- */

lore_status lore_adapters_new(const lore_adapter_source *source, const lore_limits *limits,
                              void (*wake)(void *self), void *wake_self,
                              lore_adapters **adapters_out, lore_error *err)
{
    lore_adapters *adapters = lore_alloc_zero(1, sizeof *adapters);
    lore_adapter_version **slots = lore_alloc_zero((size_t)source->slots, sizeof *slots);
    if (adapters == NULL || slots == NULL) {
        lore_free(slots);
        lore_free(adapters);
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the adapters");
    }
    adapters->source = *source;
    adapters->limits = *limits;
    adapters->wake = wake;
    adapters->wake_self = wake_self;
    adapters->slots = slots;
    adapters->device_bytes_max =
        limits->adapter_bytes_max > 0 ? limits->adapter_bytes_max : source->device_bytes_max;
    adapters->host_bytes_max = limits->adapter_host_bytes_max > 0 ? limits->adapter_host_bytes_max
                                                                  : source->host_bytes_max;
    adapters->room = adapters->device_bytes_max;
    adapters->late_ns = INT64_MAX;
    adapters->slotless_ns = INT64_MAX;
    lore_lock_init(&adapters->lock);
    lore_status status =
        lore_thread_start(&adapters->loader, "adapters", lore_adapters_run_loader, adapters, err);
    if (status != LORE_OK) {
        lore_lock_destroy(&adapters->lock);
        lore_free(slots);
        lore_free(adapters);
        return status;
    }
    *adapters_out = adapters;
    return LORE_OK;
}

static void close_version(const lore_adapters *adapters, lore_adapter_version *version)
{
    const lore_adapter_source *source = &adapters->source;
    LORE_ASSERT(version->users == 0);
    if (version->slot >= 0) {
        source->seat(source->self, version->slot, NULL);
    }
    if (version->placed != NULL) {
        source->unplace(source->self, version->placed);
    }
    if (version->host != NULL) {
        source->close(source->self, version->host);
    }
    lore_free(version);
}

void lore_adapters_free(lore_adapters *adapters)
{
    if (adapters == NULL) {
        return;
    }
    lore_lock_acquire(&adapters->lock);
    adapters->is_stopping = true;
    lore_lock_wake_all(&adapters->lock);
    lore_lock_release(&adapters->lock);
    lore_thread_join(&adapters->loader);
    for (int32_t i = 0; i < LORE_ADAPTER_CHAINS; i++) {
        while (adapters->chains[i] != NULL) {
            lore_adapter_version *version = adapters->chains[i];
            adapters->chains[i] = version->next;
            close_version(adapters, version);
        }
    }
    lore_lock_destroy(&adapters->lock);
    lore_free(adapters->slots);
    lore_free(adapters);
}

/* ---- shared with the loader ---- */

void lore_adapters_want(lore_adapters *adapters, lore_adapter_version *version)
{
    if (!version->is_wanted && version->placed == NULL) {
        version->is_wanted = true;
        adapters->wanted_count++;
        version->wanted_ns = lore_clock_ns();
        version->error.status = LORE_OK;
        lore_lock_wake_all(&adapters->lock);
    }
}

void lore_adapters_unwant(lore_adapters *adapters, lore_adapter_version *version)
{
    adapters->wanted_count -= version->is_wanted;
    version->is_wanted = false;
    version->is_short = false;
    version->is_late = false;
}

lore_adapter_version *lore_adapters_next(const lore_adapters *adapters,
                                         const lore_adapter_version *version)
{
    uint64_t chain = 0;
    if (version != NULL) {
        if (version->next != NULL) {
            return version->next;
        }
        chain = version->hash % LORE_ADAPTER_CHAINS + 1;
    }
    while (chain < LORE_ADAPTER_CHAINS && adapters->chains[chain] == NULL) {
        chain++;
    }
    return chain < LORE_ADAPTER_CHAINS ? adapters->chains[chain] : NULL;
}

/* ---- names ---- */

static lore_status check_name(lore_str name, lore_error *err)
{
    bool is_good =
        name.len > 0 && name.len <= LORE_ADAPTER_NAME_MAX && lore_utf8_valid(name) == name.len;
    for (size_t i = 0; i < name.len && is_good; i++) {
        const unsigned char c = (unsigned char)name.ptr[i];
        is_good = c > ' ' && c != 127 && memchr("\"'\\,=", c, 5) == NULL;
    }
    return is_good ? LORE_OK
                   : lore_fail(err, LORE_ERR_INVALID,
                               "the name of an adapter is 1 to %d bytes of UTF-8 without spaces, "
                               "quotes, '\\', ',' and '='",
                               (int)LORE_ADAPTER_NAME_MAX);
}

static lore_adapter_version *find_listed(const lore_adapters *adapters, lore_str name)
{
    const uint64_t hash = lore_str_hash(name);
    lore_adapter_version *version = adapters->chains[hash % LORE_ADAPTER_CHAINS];
    while (version != NULL &&
           !(version->is_listed && version->hash == hash && lore_str_equal(version->name, name))) {
        version = version->next;
    }
    return version;
}

static lore_status refuse_unknown(const lore_adapters *adapters, lore_str name, lore_error *err)
{
    char names[NAMES_TOLD * 24] = "";
    size_t size = 0;
    int32_t told = 0;
    for (const lore_adapter_version *v = lore_adapters_next(adapters, NULL);
         v != NULL && told < NAMES_TOLD; v = lore_adapters_next(adapters, v)) {
        if (v->is_listed && size + v->name.len + 3 < sizeof names) {
            memcpy(names + size, told == 0 ? "" : ", ", told == 0 ? 0 : 2);
            size += told == 0 ? 0 : 2;
            memcpy(names + size, v->name.ptr, v->name.len + 1);
            size += v->name.len;
            told++;
        }
    }
    if (adapters->listed_count == 0) {
        return lore_fail(err, LORE_ERR_NOT_FOUND,
                         "there is no adapter '" LORE_STR_FMT "', nor any other",
                         LORE_STR_ARG(name));
    }
    return lore_fail(err, LORE_ERR_NOT_FOUND,
                     "there is no adapter '" LORE_STR_FMT "'; of %d that there are: %s",
                     LORE_STR_ARG(name), adapters->listed_count, names);
}

static lore_status check_folder(const char *folder, lore_error *err)
{
    char path[4096];
    const int size = snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    if (size < 0 || (size_t)size >= sizeof path || !lore_file_exists(path)) {
        return lore_fail(err, LORE_ERR_NOT_FOUND,
                         "there is no adapter in '%s': no "
                         "adapter_config.json",
                         folder);
    }
    return LORE_OK;
}

static lore_status make_version(const lore_adapter_spec *spec, lore_adapter_version **version,
                                lore_error *err)
{
    lore_status status = check_name(spec->name, err);
    if (status != LORE_OK) {
        return status;
    }
    if (spec->folder.len == 0 || memchr(spec->folder.ptr, '\0', spec->folder.len) != NULL) {
        return lore_fail(err, LORE_ERR_INVALID, "the folder of adapter '" LORE_STR_FMT "' is empty",
                         LORE_STR_ARG(spec->name));
    }
    lore_adapter_version *made =
        lore_alloc_zero(1, sizeof *made + spec->name.len + spec->folder.len + 2);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for an adapter");
    }
    char *text = (char *)(made + 1);
    memcpy(text, spec->name.ptr, spec->name.len);
    memcpy(text + spec->name.len + 1, spec->folder.ptr, spec->folder.len);
    made->name = (lore_str){text, spec->name.len};
    made->folder = (lore_str){text + spec->name.len + 1, spec->folder.len};
    made->hash = lore_str_hash(made->name);
    made->is_pinned = spec->is_pinned;
    made->slot = -1;
    *version = made;
    return LORE_OK;
}

/* May the name be given to a new version? */
static lore_status check_free(const lore_adapters *adapters, const lore_adapter_spec *spec,
                              lore_error *err)
{
    const lore_adapter_version *there = find_listed(adapters, spec->name);
    if (lore_str_equal(spec->name, lore_str_from(adapters->source.base_name))) {
        return lore_fail(err, LORE_ERR_INVALID, "'%s' is the decoder's own name",
                         adapters->source.base_name);
    }
    if (there != NULL && !spec->is_replacing) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "adapter '" LORE_STR_FMT "' is there already, from '" LORE_STR_FMT
                         "': load_inplace (--replace) puts another in its place",
                         LORE_STR_ARG(spec->name), LORE_STR_ARG(there->folder));
    }
    if (there == NULL && adapters->listed_count >= adapters->limits.adapters_max) {
        return lore_fail(err, LORE_ERR_LIMIT, "there are %d adapters, limits.adapters_max is %lld",
                         adapters->listed_count, (long long)adapters->limits.adapters_max);
    }
    return LORE_OK;
}

static void link_version(lore_adapters *adapters, lore_adapter_version *version)
{
    lore_adapter_version **chain = &adapters->chains[version->hash % LORE_ADAPTER_CHAINS];
    version->id = ++adapters->last_id;
    version->used_at = ++adapters->last_use;
    version->next = *chain;
    *chain = version;
    adapters->unlisted_count++;
}

static void unlist(lore_adapters *adapters, lore_adapter_version *version)
{
    version->is_listed = false;
    version->is_pinned = false;
    adapters->listed_count--;
    adapters->unlisted_count++;
    lore_lock_wake_all(&adapters->lock); /* the loader frees it */
}

/* From now on the name stands for it. */
static void publish(lore_adapters *adapters, lore_adapter_version *version)
{
    lore_adapter_version *before = find_listed(adapters, version->name);
    if (before != NULL) {
        unlist(adapters, before);
    }
    version->is_listed = true;
    adapters->listed_count++;
    adapters->unlisted_count--;
}

lore_status lore_adapters_add(lore_adapters *adapters, const lore_adapter_spec *spec,
                              lore_error *err)
{
    lore_adapter_version *version = NULL;
    lore_status status = make_version(spec, &version, err);
    if (status == LORE_OK) {
        status = check_folder(version->folder.ptr, err);
    }
    if (status != LORE_OK) {
        lore_free(version);
        return status;
    }
    lore_lock_acquire(&adapters->lock);
    status = check_free(adapters, spec, err);
    if (status == LORE_OK) {
        link_version(adapters, version);
        publish(adapters, version);
        if (version->is_pinned) {
            lore_adapters_want(adapters, version);
        }
    }
    lore_lock_release(&adapters->lock);
    if (status != LORE_OK) {
        lore_free(version);
    }
    return status;
}

/* A look at what the lock guards is worth it again. */
static lore_status wait_change(lore_adapters *adapters, const lore_adapter_patience *patience,
                               lore_error *err)
{
    const int64_t look_ns = lore_clock_ns() + LOOK_NS;
    const bool is_last = patience->deadline_ns != 0 && patience->deadline_ns < look_ns;
    (void)lore_lock_wait(&adapters->lock, is_last ? patience->deadline_ns : look_ns);
    if (lore_deadline_passed(patience->deadline_ns)) {
        return lore_fail(err, LORE_ERR_TIMEOUT, "the deadline has passed");
    }
    lore_lock_release(&adapters->lock);
    const bool is_gone = patience->is_gone != NULL && patience->is_gone(patience->self);
    lore_lock_acquire(&adapters->lock);
    return is_gone ? lore_fail(err, LORE_ERR_CANCELLED, "nobody waits any more") : LORE_OK;
}

static lore_status tell_failure(const lore_adapter_version *version, lore_error *err)
{
    if (err != NULL) {
        *err = version->error;
    }
    return version->error.status;
}

/* Wait for the first reading of a version that the caller has a lease of. */
static lore_status await_load(lore_adapters *adapters, const lore_adapter_version *version,
                              const lore_adapter_patience *patience, lore_error *err)
{
    for (;;) {
        if (version->is_pinned ? version->placed != NULL : version->serial > 0) {
            return LORE_OK;
        }
        if (version->error.status != LORE_OK && !version->is_wanted) {
            return tell_failure(version, err);
        }
        lore_status status = wait_change(adapters, patience, err);
        if (status != LORE_OK) {
            return lore_error_prefix(err, "adapter '" LORE_STR_FMT "' is not loaded%s",
                                     LORE_STR_ARG(version->name),
                                     version->is_short ? ", all room for adapters is in use" : "");
        }
    }
}

lore_status lore_adapters_load(lore_adapters *adapters, const lore_adapter_spec *spec,
                               const lore_adapter_patience *patience, lore_error *err)
{
    lore_adapter_version *version = NULL;
    lore_status status = make_version(spec, &version, err);
    if (status != LORE_OK) {
        return status;
    }
    lore_lock_acquire(&adapters->lock);
    status = check_free(adapters, spec, err); /* before the work, and again after it */
    if (status != LORE_OK) {
        lore_lock_release(&adapters->lock);
        lore_free(version);
        return status;
    }
    link_version(adapters, version);
    version->users = 1;
    lore_adapters_want(adapters, version);
    status = await_load(adapters, version, patience, err);
    if (status == LORE_OK) {
        status = check_free(adapters, spec, err);
    }
    if (status == LORE_OK) {
        publish(adapters, version);
    }
    version->users--;
    lore_lock_wake_all(&adapters->lock);
    lore_lock_release(&adapters->lock);
    return status;
}

/* Is it still in its chain? */
static bool is_linked(const lore_adapters *adapters, uint64_t hash, uint64_t id)
{
    const lore_adapter_version *at = adapters->chains[hash % LORE_ADAPTER_CHAINS];
    while (at != NULL && at->id != id) {
        at = at->next;
    }
    return at != NULL;
}

lore_status lore_adapters_remove(lore_adapters *adapters, lore_str name,
                                 const lore_adapter_patience *patience, lore_error *err)
{
    lore_lock_acquire(&adapters->lock);
    lore_adapter_version *version = find_listed(adapters, name);
    lore_status status = version != NULL ? LORE_OK : refuse_unknown(adapters, name, err);
    if (status == LORE_OK) {
        const uint64_t hash = version->hash, id = version->id;
        unlist(adapters, version);
        while (status == LORE_OK && is_linked(adapters, hash, id)) {
            status = wait_change(adapters, patience, err);
            if (status != LORE_OK) {
                lore_error_prefix(err,
                                  "adapter '" LORE_STR_FMT
                                  "' takes no requests any more, some are still under way",
                                  LORE_STR_ARG(name));
            }
        }
    }
    lore_lock_release(&adapters->lock);
    return status;
}

lore_status lore_adapters_find(lore_adapters *adapters, lore_str name, bool is_wanted,
                               lore_error *err)
{
    lore_lock_acquire(&adapters->lock);
    lore_adapter_version *version = find_listed(adapters, name);
    lore_status status = version != NULL ? LORE_OK : refuse_unknown(adapters, name, err);
    if (status == LORE_OK && is_wanted && version->error.status == LORE_OK) {
        version->used_at = ++adapters->last_use; /* else it were the first to go again */
        lore_adapters_want(adapters, version);
    }
    lore_lock_release(&adapters->lock);
    return status;
}

/* ---- leases ---- */

lore_status lore_adapters_lease(lore_adapters *adapters, lore_str name,
                                lore_adapter_version **version_out, lore_error *err)
{
    lore_lock_acquire(&adapters->lock);
    lore_adapter_version *version = find_listed(adapters, name);
    lore_status status = version != NULL ? LORE_OK : refuse_unknown(adapters, name, err);
    if (status == LORE_OK && !version->is_wanted && version->error.status != LORE_OK &&
        version->host == NULL && lore_clock_ns() - version->failed_ns < RETRY_NS) {
        status = tell_failure(version, err);
    }
    if (status == LORE_OK) {
        version->users++;
        version->used_ms = lore_clock_unix_ms();
        version->used_at = ++adapters->last_use;
        lore_adapters_want(adapters, version);
        *version_out = version;
    }
    lore_lock_release(&adapters->lock);
    return status;
}

void lore_adapters_release(lore_adapters *adapters, lore_adapter_version *version)
{
    lore_lock_acquire(&adapters->lock);
    LORE_ASSERT(version->users > 0);
    version->users--;
    if (version->users == 0) {
        lore_lock_wake_all(&adapters->lock);
    }
    lore_lock_release(&adapters->lock);
}

void lore_adapters_wait(lore_adapters *adapters, int64_t deadline_ns)
{
    lore_lock_acquire(&adapters->lock);
    (void)lore_lock_wait(&adapters->lock, deadline_ns);
    lore_lock_release(&adapters->lock);
}

/* ---- slots, on the engine's thread ---- */

static int32_t find_empty_slot(const lore_adapters *adapters)
{
    for (int32_t i = 0; i < adapters->source.slots; i++) {
        if (adapters->slots[i] == NULL) {
            return i;
        }
    }
    return -1;
}

lore_status lore_adapters_enter(lore_adapters *adapters, lore_adapter_version *version,
                                int64_t arrived_ns, int32_t *slot, uint64_t *serial,
                                lore_error *err)
{
    const lore_adapter_source *source = &adapters->source;
    bool is_new = false;
    lore_status status = LORE_OK;
    lore_lock_acquire(&adapters->lock);
    /* A pinned one keeps its room in any case, so that nobody gains by its waiting. */
    const bool is_behind = arrived_ns > adapters->late_ns && !version->is_pinned;
    if (version->placed == NULL && !version->is_wanted && version->error.status != LORE_OK) {
        status = tell_failure(version, err);
    } else if (version->placed == NULL) {
        status = LORE_ERR_BUSY;
    } else if (is_behind || arrived_ns > adapters->slotless_ns) {
        status = LORE_ERR_BUSY; /* another one comes first */
        if (is_behind && version->wanted_ns <= adapters->late_ns) {
            version->wanted_ns = arrived_ns; /* placed for nobody before: it gives way, too */
        }
    } else if (version->slot < 0) {
        version->slot = find_empty_slot(adapters);
        is_new = version->slot >= 0;
        status = is_new ? LORE_OK : LORE_ERR_BUSY;
        if (!is_new && lore_clock_ns() - arrived_ns > LORE_ADAPTER_PATIENCE_NS) {
            adapters->slotless_ns = arrived_ns;
        }
    }
    *slot = version->slot;
    *serial = version->serial;
    lore_lock_release(&adapters->lock);
    if (status != LORE_OK) {
        return status;
    }
    if (is_new) { /* from now on the loader leaves it alone */
        adapters->slots[version->slot] = version;
        source->seat(source->self, version->slot, version->placed);
    } else if (version->rows == 0) {
        adapters->idle_count--;
    }
    version->rows++;
    return LORE_OK;
}

void lore_adapters_leave(lore_adapters *adapters, lore_adapter_version *version,
                         lore_adapter_steps steps)
{
    LORE_ASSERT(version->rows > 0);
    if (--version->rows == 0) {
        version->leave_at = steps.submitted;
        adapters->idle_count++;
    }
    lore_adapters_release(adapters, version); /* seated: it stays until it is settled */
}

void lore_adapters_settle(lore_adapters *adapters, lore_adapter_steps steps)
{
    const lore_adapter_source *source = &adapters->source;
    adapters->slotless_ns = INT64_MAX;
    for (int32_t i = 0; i < source->slots && adapters->idle_count > 0; i++) {
        lore_adapter_version *version = adapters->slots[i];
        if (version == NULL || version->rows > 0 || steps.collected < version->leave_at) {
            continue;
        }
        source->seat(source->self, i, NULL);
        adapters->slots[i] = NULL;
        adapters->idle_count--;
        lore_lock_acquire(&adapters->lock);
        version->slot = -1;
        version->wanted_ns = INT64_MAX;
        lore_lock_wake_all(&adapters->lock);
        lore_lock_release(&adapters->lock);
    }
}
