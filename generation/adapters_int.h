/* The engine's side of the adapters, and what their files share: names and leases (adapters.c), the
 * thread that loads (adapters_load.c), the list (adapters_list.c).
 *
 * The source is what reads and places: a decoder, or what a test has put there. */
#ifndef LORE_GENERATION_ADAPTERS_INT_H
#define LORE_GENERATION_ADAPTERS_INT_H

#include "base/thread.h"
#include "generation/adapters.h"

typedef struct lore_adapter_source {
    void *self;
    int32_t slots;                            /* 0: the decoder takes no adapters */
    const char *base_name;                    /* the decoder's, which no adapter may have */
    int64_t device_bytes_max, host_bytes_max; /* where the limits are 0 */
    /* open, close, place, unplace: the loader's thread alone calls them, without any lock. */
    lore_status (*open)(void *self, const char *folder, const lore_limits *limits,
                        lore_adapter **adapter, lore_adapter_info *info, lore_error *err);
    void (*close)(void *self, lore_adapter *adapter);
    size_t (*bytes)(void *self, const lore_adapter *adapter); /* once it is placed */
    lore_status (*place)(void *self, const lore_adapter *adapter, lore_adapter_placed **placed,
                         lore_error *err);
    void (*unplace)(void *self, lore_adapter_placed *placed);
    /* As lore_decoder_adapter_seat. The engine's thread. */
    void (*seat)(void *self, int32_t slot, const lore_adapter_placed *placed);
} lore_adapter_source;

/* One reading of a folder under a name. Whoever holds a lease of it may keep the pointer. */
typedef struct lore_adapter_version lore_adapter_version;

/* wake(wake_self), from any thread, when the engine should look at what it waits for. Fails:
 * LORE_ERR_NOMEM, a thread that cannot be started. */
LORE_MUST_USE lore_status lore_adapters_new(const lore_adapter_source *source,
                                            const lore_limits *limits, void (*wake)(void *self),
                                            void *wake_self, lore_adapters **adapters,
                                            lore_error *err);
/* Nobody holds a lease or is inside another function, no step is in flight. Accepts NULL. */
void lore_adapters_free(lore_adapters *adapters);

/* Hold what the name stands for now, and let its load begin. LORE_ERR_NOT_FOUND as
 * lore_adapters_find; the reason of a load that failed a moment ago. Thread: any. */
LORE_MUST_USE lore_status lore_adapters_lease(lore_adapters *adapters, lore_str name,
                                              lore_adapter_version **version, lore_error *err);
/* Any thread, where no sequence of the scheduler stands for the lease. */
void lore_adapters_release(lore_adapters *adapters, lore_adapter_version *version);
/* Wait until something has changed, or the deadline. Any thread. */
void lore_adapters_wait(lore_adapters *adapters, int64_t deadline_ns);

/* ---- the engine's thread ---- */

/* Steps that were submitted and collected since the start: what tells when nobody reads a slot any
 * more. */
typedef struct lore_adapter_steps {
    int64_t submitted, collected;
} lore_adapter_steps;

/* For one more sequence, whose request came at arrived_ns: its slot, and the serial that tells its
 * keys and values from others'. LORE_ERR_BUSY, without words: not yet, since the values are not
 * there, no slot is empty, or somebody who came before has been waiting for room for too long; any
 * other status is why it never will be. To be asked in order of arrival, behind a
 * lore_adapters_settle. */
LORE_MUST_USE lore_status lore_adapters_enter(lore_adapters *adapters,
                                              lore_adapter_version *version, int64_t arrived_ns,
                                              int32_t *slot, uint64_t *serial, lore_error *err);
/* The sequence of the lease has ended, with the lease: rows of it may be in flight. */
void lore_adapters_leave(lore_adapters *adapters, lore_adapter_version *version,
                         lore_adapter_steps steps);
/* Empty the slots that no sequence and no step in flight has any more. */
void lore_adapters_settle(lore_adapters *adapters, lore_adapter_steps steps);

/* ---- shared by the files ---- */

enum { LORE_ADAPTER_CHAINS = 256 };
#define LORE_ADAPTER_PATIENCE_NS ((int64_t)500000000) /* before later ones have to make room */

struct lore_adapter_version {
    lore_adapter_version *next; /* in its chain */
    uint64_t hash;
    lore_str name, folder; /* behind the struct, with a NUL behind each */

    /* Guarded by the lock. */
    bool is_listed; /* the name stands for it */
    bool is_pinned;
    bool is_wanted;    /* in the loader's line, by wanted_ns */
    bool is_short;     /* in the line, and there is no room for it */
    bool is_late;      /* and that for too long, until it is placed or given up */
    int32_t users;     /* leases */
    int64_t wanted_ns; /* since when, also once it is placed; INT64_MAX: it has had its turn */
    int64_t used_ms, failed_ns;
    uint64_t used_at; /* of all uses the how manieth: the least goes first */
    uint64_t id;      /* never used again */
    uint64_t serial;
    lore_adapter_info info;
    int64_t device_bytes; /* once it is placed; known with info */
    lore_adapter *host;   /* NULL: not in host memory */
    lore_adapter_placed *placed;
    int32_t slot;     /* -1: none; the engine's thread alone changes it */
    lore_error error; /* of the last load; status LORE_OK: none */

    /* The engine's thread alone. */
    int32_t rows;     /* sequences of the scheduler that have it */
    int64_t leave_at; /* steps that were submitted when the last of them ended */
};

struct lore_adapters {
    lore_adapter_source source;
    lore_limits limits;
    void (*wake)(void *self);
    void *wake_self;
    lore_thread loader;

    lore_lock lock; /* guards what follows, and versions as they say */
    lore_adapter_version *chains[LORE_ADAPTER_CHAINS];
    int32_t listed_count, unlisted_count, wanted_count;
    uint64_t last_serial, last_use, last_id;
    int64_t device_bytes, device_bytes_max, host_bytes, host_bytes_max;
    int64_t room;    /* device_bytes_max, or what the device was found to have */
    int64_t room_ns; /* when it was */
    int64_t late_ns; /* requests after this wait for who is short of room since; INT64_MAX: none */
    int64_t loads, failures, device_evictions, host_evictions, load_ns;
    bool is_stopping;

    /* The engine's thread alone. */
    lore_adapter_version **slots; /* [source.slots], NULL: empty */
    int32_t idle_count;           /* slots whose version has no rows */
    int64_t slotless_ns; /* as late_ns, for want of a slot; since the last lore_adapters_settle */
};

/* Put a version into the loader's line, unless it is there or has nothing to wait for. Lock held.
 */
void lore_adapters_want(lore_adapters *adapters, lore_adapter_version *version);
void lore_adapters_unwant(lore_adapters *adapters, lore_adapter_version *version);
void *lore_adapters_run_loader(void *adapters);
/* The next version of all, in any order; NULL begins and ends. Lock held. */
lore_adapter_version *lore_adapters_next(const lore_adapters *adapters,
                                         const lore_adapter_version *version);

#endif
