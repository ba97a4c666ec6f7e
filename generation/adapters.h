/* The adapters that a service has: names, the folders behind them, and which of them are in memory.
 *
 * A name stands for a version: one reading of one folder. Values go from the disk to host memory
 * and from there to the decoder's backend, on a thread of their own, and leave again least recently
 * used first, within a budget of bytes on both levels; pinned ones stay. Whoever asks under a name
 * keeps the version that it stood for then until the answer ends: unloading refuses new requests at
 * once and waits for those, replacing leaves them what they have. The engine owns this and says
 * when rows of a version are in flight. Thread: any, but for what generation/adapters_int.h has. */
#ifndef LORE_GENERATION_ADAPTERS_H
#define LORE_GENERATION_ADAPTERS_H

#include "base/config.h"
#include "models/adapter.h"

typedef struct lore_adapters lore_adapters;

enum { LORE_ADAPTER_NAME_MAX = 128 }; /* bytes */

typedef struct lore_adapter_spec { /* strings are copied */
    lore_str name;   /* 1 to 128 bytes of UTF-8 without spaces, controls, quotes, '\\', ',', '=' */
    lore_str folder; /* as lore_adapter_open takes it */
    bool is_pinned;  /* in the backend's memory from the first load on, never evicted */
    bool is_replacing; /* the name may be taken: new requests get the new version */
} lore_adapter_spec;

/* A name for a folder, of which only adapter_config.json is known to be there; it is read when
 * somebody asks. LORE_ERR_INVALID (a name that is taken or not allowed), LORE_ERR_NOT_FOUND (the
 * folder), LORE_ERR_LIMIT (limits.adapters_max), LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_adapters_add(lore_adapters *adapters, const lore_adapter_spec *spec,
                                            lore_error *err);
/* How long a caller waits: until the deadline (0: none), or until is_gone says that nobody needs it
 * any more (NULL: until the deadline alone), which is asked now and then on the caller's thread. */
typedef struct lore_adapter_patience {
    int64_t deadline_ns;
    bool (*is_gone)(void *self);
    void *self;
} lore_adapter_patience;

/* The same, but read and held against the decoder first: before LORE_OK nobody can ask for it, and
 * what the name stood for before still serves. A pinned one is in the backend's memory then. Fails
 * as lore_adapter_open too, LORE_ERR_TIMEOUT, LORE_ERR_CANCELLED. */
LORE_MUST_USE lore_status lore_adapters_load(lore_adapters *adapters, const lore_adapter_spec *spec,
                                             const lore_adapter_patience *patience,
                                             lore_error *err);
/* The name is gone at once; returns when the last request under it has ended and its memory is
 * free. LORE_ERR_NOT_FOUND; LORE_ERR_TIMEOUT, LORE_ERR_CANCELLED: the rest happens without the
 * caller. */
LORE_MUST_USE lore_status lore_adapters_remove(lore_adapters *adapters, lore_str name,
                                               const lore_adapter_patience *patience,
                                               lore_error *err);
/* Is there such a name? LORE_ERR_NOT_FOUND says which there are. is_wanted: somebody is about to
 * ask under it, so that its load may begin. */
LORE_MUST_USE lore_status lore_adapters_find(lore_adapters *adapters, lore_str name, bool is_wanted,
                                             lore_error *err);

typedef enum lore_adapter_state {
    LORE_ADAPTER_DISK = 0, /* not in memory */
    LORE_ADAPTER_LOADING,  /* on its way, or waiting for room */
    LORE_ADAPTER_HOST,     /* in host memory */
    LORE_ADAPTER_DEVICE,   /* in the backend's memory: requests begin at once */
    LORE_ADAPTER_FAILED    /* the last load did; the next request tries again */
} lore_adapter_state;
enum { LORE_ADAPTER_STATES = LORE_ADAPTER_FAILED + 1 };
const char *lore_adapter_state_name(lore_adapter_state state);

typedef struct lore_adapter_view {
    lore_str name, folder, error; /* error: why it has failed, else empty */
    lore_adapter_state state;
    bool is_pinned;
    bool is_leaving;        /* unloaded or replaced, kept by requests under way */
    int32_t requests;       /* that hold it, waiting or running */
    lore_adapter_info info; /* zeros until it was read for the first time */
    uint64_t serial;        /* of the reading: another one for other values; 0: never read */
    int64_t used_ms;        /* unix time of the last request, 0: none yet */
} lore_adapter_view;
/* All of them by name, in the arena. LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_adapters_list(lore_adapters *adapters, lore_arena *arena,
                                             lore_adapter_view **list, int32_t *count,
                                             lore_error *err);

typedef struct lore_adapters_stats {
    int32_t by_state[LORE_ADAPTER_STATES];
    int32_t requests;
    int64_t device_bytes, device_bytes_max; /* of the backend's memory */
    int64_t host_bytes, host_bytes_max;
    int64_t loads, failures, device_evictions, host_evictions;
    int64_t load_ns; /* reading and placing, of all loads together */
} lore_adapters_stats;
void lore_adapters_get_stats(lore_adapters *adapters, lore_adapters_stats *stats);

#endif
