/* The engine's struct, shared by its thread (engine.c) and by what starts and stops it
 * (engine_open.c). The invariants stand in engine.c. */
#ifndef LORE_GENERATION_ENGINE_STATE_INT_H
#define LORE_GENERATION_ENGINE_STATE_INT_H

#include "base/thread.h"
#include "generation/engine_int.h"
#include "generation/request_int.h"
#include "generation/waker.h"

#include <stdatomic.h>

enum { LORE_NOT_STOPPING = -1 };

struct lore_engine {
    lore_engine_model model;
    lore_limits limits;
    int32_t rows_max, sequences_max;
    int32_t steps_max;          /* in flight */
    int32_t request_cap;        /* running and waiting together */
    lore_request_bounds bounds; /* const after the start */
    lore_chan *arrivals;
    lore_thread thread;
    lore_adapters *adapters; /* NULL: the decoder takes none */
    /* Whether the channel holds &is_nudged: look at the adapters. One such item at most, so that
     * there is room for it. seq_cst: what is looked at comes from under a lock. */
    atomic_bool is_nudged;

    /* Relaxed: a bare count; requests themselves are handed over by the channel's lock. */
    atomic_int_least32_t unfinished;
    /* Absolute deadline of lore_engine_stop, 0 none, or LORE_NOT_STOPPING. Relaxed: nothing else is
     * published with it, and the closed channel wakes the thread. */
    _Atomic int64_t stop_deadline_ns;

    /* The engine thread's alone. */
    lore_sched *sched;
    lore_waker waker;    /* started where two steps are in flight */
    lore_request **live; /* [2 request_cap] */
    int32_t live_count;
    lore_request **parked; /* [2 request_cap] in order of arrival */
    int32_t parked_count;
    int32_t placeless_count; /* of these: request_cap at most */
    lore_adapter_steps steps;
    /* Submitted and not collected: the first so many, oldest first. */
    struct {
        const lore_step *step;
        int64_t submitted_ns;
    } flights[LORE_STEPS_MAX];
    int32_t flight_count;
    int64_t collected_ns;    /* when the last step was */
    bool is_prepared;        /* no shape of steps is left to get ready for, */
    int32_t prepared_shapes; /* of those that there are at this info.step_shapes */
    int64_t row_ns;  /* a row of a step with pieces of prompts takes, smoothed; 0: not known yet */
    int32_t *ids;    /* [sequences_max] drawn by the step */
    float *logprobs; /* [sequences_max] */

    lore_lock stats_lock;   /* guards stats */
    lore_sched_stats stats; /* parked requests are among those waiting */
};

void *lore_engine_run(void *engine); /* the thread */
/* What runs now is to be seen now. */
void lore_engine_publish_stats(lore_engine *engine);
/* Look at the adapters. Any thread. */
void lore_engine_nudge(void *engine);

#endif
