/* Threads, locks, the bounded channel and the worker pool: all that may start or block a thread.
 *
 * Thread start can be made to fail by tests (lore_thread_fail_at). Everything that blocks takes a
 * deadline (lore_clock_ns, 0 means wait for ever, which only an owner of the other end may use).
 * Hold at most one lock. */
#ifndef LORE_BASE_THREAD_H
#define LORE_BASE_THREAD_H

#include "base/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- threads ---- */
typedef struct lore_thread {
    pthread_t handle;
    bool is_started;
} lore_thread;
LORE_MUST_USE lore_status lore_thread_start(lore_thread *thread, const char *name,
                                            void *(*run)(void *), void *self, lore_error *err);
void lore_thread_join(lore_thread *thread); /* accepts a thread that never started */
/* The calling thread yields to all that have not called this, from now on: for work that nobody
 * watches. Where the system refuses, it stays as it is. */
void lore_thread_lower_priority(void);
void lore_thread_fail_at(int64_t n); /* tests: the n-th start from now fails; 0 off */
int32_t lore_cpu_count(void); /* cores this process may use (affinity and cgroup), at least 1 */

/* ---- condition with a deadline on the monotonic clock ---- */
typedef struct lore_lock {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
} lore_lock;
void lore_lock_init(lore_lock *lock);
void lore_lock_destroy(lore_lock *lock);
void lore_lock_acquire(lore_lock *lock);
void lore_lock_release(lore_lock *lock);
/* Lock held. False: the deadline passed. True may come for nothing: test the condition in a loop.
 */
bool lore_lock_wait(lore_lock *lock, int64_t deadline_ns);
void lore_lock_wake_one(lore_lock *lock);
void lore_lock_wake_all(lore_lock *lock);

/* ---- bounded channel of pointers: many senders, many receivers, first in first out ---- */
typedef struct lore_chan lore_chan;
lore_chan *lore_chan_new(size_t cap); /* NULL: out of memory */
void lore_chan_free(lore_chan *chan); /* what is still inside is the caller's to drain first */
/* LORE_OK, LORE_ERR_TIMEOUT, or LORE_ERR_CANCELLED once closed. Ownership of item moves only on
 * LORE_OK. */
LORE_MUST_USE lore_status lore_chan_send(lore_chan *chan, void *item, int64_t deadline_ns);
/* LORE_ERR_BUSY when full. */
LORE_MUST_USE lore_status lore_chan_try_send(lore_chan *chan, void *item);
/* Items sent before close are still received; then LORE_ERR_CANCELLED. */
LORE_MUST_USE lore_status lore_chan_recv(lore_chan *chan, void **item, int64_t deadline_ns);
/* LORE_ERR_BUSY when empty. */
LORE_MUST_USE lore_status lore_chan_try_recv(lore_chan *chan, void **item);
void lore_chan_close(lore_chan *chan);
size_t lore_chan_count(lore_chan *chan);

/* ---- worker pool: one owner at a time ----
 * Workers spin briefly, then sleep on a futex. lore_pool_for runs body(self, begin, end, worker)
 * over [0, count) cut into pieces of `grain` (the caller's thread takes part; worker is
 * 0..lore_pool_size-1) and returns when all are done. A call from inside a body runs serially. Body
 * must not block.
 *
 * Callers wait for one another, those of high priority first. One that waits also interrupts a loop
 * of lower priority, between two pieces: therefore a piece should take no more than some 200 us.
 * From lore_pool_begin to lore_pool_end the calling thread owns the pool, its loops have the span's
 * priority, and workers stay awake between them; only a higher priority is let in meanwhile. Spans
 * are for a row of loops that follow one another closely, and do not nest. */
typedef enum lore_priority {
    LORE_PRIORITY_LOW = -1,   /* nobody waits for the result: ingest */
    LORE_PRIORITY_NORMAL = 0, /* decoding */
    LORE_PRIORITY_HIGH = 1    /* somebody waits, and it takes milliseconds: a question's vector */
} lore_priority;
typedef struct lore_pool lore_pool;
typedef void (*lore_pool_body)(void *self, int32_t begin, int32_t end, int32_t worker);
/* threads 0: lore_cpu_count. */
LORE_MUST_USE lore_status lore_pool_new(int32_t threads, lore_pool **pool, lore_error *err);
void lore_pool_free(lore_pool *pool);
int32_t lore_pool_size(const lore_pool *pool);
void lore_pool_for(lore_pool *pool, int32_t count, int32_t grain, lore_priority priority,
                   lore_pool_body body, void *self);
void lore_pool_begin(lore_pool *pool, lore_priority priority);
void lore_pool_end(lore_pool *pool);

#ifdef __cplusplus
}
#endif
#endif
