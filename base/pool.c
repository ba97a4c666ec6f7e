/* The worker pool: one parallel loop at a time, handed to threads that spin a little and then
 * sleep.
 *
 * Idea. A loop is cut into pieces of `grain`; whoever is awake claims the next piece with one
 * compare-and-swap, the caller included, so a loop is finished even if no worker wakes in time, and
 * a loop of few pieces wakes few workers. OpenMP was measured to collapse when cores are shared,
 * because its barrier waits for every thread; here nobody waits for a thread that claimed nothing.
 *
 * The danger is a worker that read an old loop and acts in a new one. Therefore:
 *  1. `ticket` holds the loop's number (high half) and the next piece (low half). A piece is
 * claimed only by a compare-and-swap of the ticket that was read before the loop's description.
 *  2. The description (body, self, count, grain) changes only while the ticket is closed: its
 * number is already new and its next piece is PIECE_CLOSED. So a claim that succeeds has read the
 *     description of its own loop.
 *  3. A loop ends when `finished` equals its pieces; only claimed pieces count, hence no worker is
 *     inside a body when lore_pool_for returns.
 * Loop numbers wrap after 2^32 loops; a worker would have to sleep between two instructions that
 * long.
 *
 * Sleeping uses two futex words, each with the pattern "announce, look again, sleep": `wake_word`
 * for the workers, `finished` for the caller. The two sides of each pattern are sequentially
 * consistent, so one of them sees the other. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SPIN_NS = 20000,      /* about what a futex wake costs: longer would only burn a core */
    SPIN_ROUNDS_MIN = 50, /* bounds of the calibration, should the clock be a test's */
    SPIN_ROUNDS_MAX = 5000,
    CALIBRATION_ROUNDS = 1000,
    POOL_THREADS_MAX = 1024
};

#define PIECE_CLOSED 0xFFFFFFFFu

typedef struct pool_worker {
    lore_pool *pool;
    int32_t index;
    lore_thread thread;
} pool_worker;

struct lore_pool {
    /* The loop. Own cache lines: everybody hits the ticket and finished. */
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint32_t finished;
    _Atomic uint32_t caller_sleeps;
    _Alignas(64) _Atomic uint32_t wake_word;
    _Atomic int32_t sleepers;
    atomic_bool is_stopping;
    /* The description of the loop; see invariant 2. Relaxed atomics, ordered by the ticket. */
    _Alignas(64) _Atomic(lore_pool_body) body;
    _Atomic(void *) self;
    _Atomic int32_t count;
    _Atomic int32_t grain;
    /* The gate: who may run a loop. The lock guards the three fields behind it. */
    _Alignas(64) lore_lock gate;
    bool is_busy;
    int32_t waiting;
    int32_t waiting_urgent;

    int32_t size; /* constant from here on */
    int32_t spin_rounds;
    pool_worker *workers; /* size - 1 of them; worker 0 is the caller */
};

/* Which worker of which pool this thread is while it runs a body. */
static _Thread_local lore_pool *current_pool;
static _Thread_local int32_t current_worker;

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int32_t count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void spin_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

static uint64_t ticket_of(uint32_t loop, uint32_t piece)
{
    return (uint64_t)loop << 32 | piece;
}

static uint32_t pieces_of(int32_t count, int32_t grain)
{
    return (uint32_t)(((int64_t)count + grain - 1) / grain);
}

static void run_piece(lore_pool_body body, void *self, uint32_t piece, int32_t count, int32_t grain,
                      int32_t worker)
{
    int64_t begin = (int64_t)piece * grain;
    int64_t end = begin + grain < count ? begin + grain : count;
    body(self, (int32_t)begin, (int32_t)end, worker);
}

/* Claim and run pieces of the current loop until none is left. */
static void run_pieces(lore_pool *pool, int32_t worker)
{
    uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    for (;;) {
        uint32_t piece = (uint32_t)ticket;
        lore_pool_body body = atomic_load_explicit(&pool->body, memory_order_relaxed);
        void *self = atomic_load_explicit(&pool->self, memory_order_relaxed);
        int32_t count = atomic_load_explicit(&pool->count, memory_order_relaxed);
        int32_t grain = atomic_load_explicit(&pool->grain, memory_order_relaxed);
        if (piece == PIECE_CLOSED || piece >= pieces_of(count, grain)) {
            return;
        }
        /* Release on success: the loads above happen before whoever closes the ticket after this
         * claim. Acquire on failure: the ticket may be a new loop's, whose description is next. */
        if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket + 1,
                                                   memory_order_acq_rel, memory_order_acquire)) {
            continue;
        }
        run_piece(body, self, piece, count, grain, worker);
        uint32_t done = atomic_fetch_add(&pool->finished, 1) + 1;
        if (done == pieces_of(count, grain) && atomic_load(&pool->caller_sleeps) != 0) {
            futex_wake(&pool->finished, 1);
        }
        ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    }
}

/* Wait until wake_word is not `seen` any more. */
static void wait_for_loop(lore_pool *pool, uint32_t seen)
{
    for (int32_t i = 0; i < pool->spin_rounds; i++) {
        if (atomic_load_explicit(&pool->wake_word, memory_order_acquire) != seen) {
            return;
        }
        spin_pause();
    }
    while (atomic_load(&pool->wake_word) == seen) {
        atomic_fetch_add(&pool->sleepers, 1);
        futex_wait(&pool->wake_word, seen); /* returns at once if the word has changed */
        atomic_fetch_sub(&pool->sleepers, 1);
    }
}

static void *worker_main(void *argument)
{
    pool_worker *worker = argument;
    lore_pool *pool = worker->pool;
    current_pool = pool;
    current_worker = worker->index;
    uint32_t seen =
        0; /* the word's first value: a loop begun before this thread ran is not missed */
    for (;;) {
        wait_for_loop(pool, seen);
        seen = atomic_load_explicit(&pool->wake_word, memory_order_acquire);
        if (atomic_load_explicit(&pool->is_stopping, memory_order_acquire)) {
            return NULL;
        }
        run_pieces(pool, worker->index);
    }
}

/* Make the sleeping workers look: as many as can be of use. */
static void wake_workers(lore_pool *pool, int32_t useful)
{
    atomic_fetch_add(&pool->wake_word, 1);
    if (atomic_load(&pool->sleepers) > 0) {
        futex_wake(&pool->wake_word, useful);
    }
}

static void wait_for_finish(lore_pool *pool, uint32_t pieces)
{
    for (int32_t i = 0; i < pool->spin_rounds; i++) {
        if (atomic_load_explicit(&pool->finished, memory_order_acquire) == pieces) {
            return;
        }
        spin_pause();
    }
    atomic_store(&pool->caller_sleeps, 1);
    for (;;) {
        uint32_t finished = atomic_load(&pool->finished);
        if (finished == pieces) {
            break;
        }
        futex_wait(&pool->finished, finished);
    }
    atomic_store(&pool->caller_sleeps, 0);
}

static void gate_enter(lore_pool *pool, bool urgent)
{
    lore_lock_acquire(&pool->gate);
    pool->waiting++;
    pool->waiting_urgent += urgent ? 1 : 0;
    while (pool->is_busy || (!urgent && pool->waiting_urgent > 0)) {
        lore_lock_wait(&pool->gate, 0);
    }
    pool->waiting--;
    pool->waiting_urgent -= urgent ? 1 : 0;
    pool->is_busy = true;
    lore_lock_release(&pool->gate);
}

static void gate_leave(lore_pool *pool)
{
    lore_lock_acquire(&pool->gate);
    pool->is_busy = false;
    if (pool->waiting > 0) {
        lore_lock_wake_all(&pool->gate);
    }
    lore_lock_release(&pool->gate);
}

static void run_serially(int32_t count, int32_t grain, lore_pool_body body, void *self,
                         int32_t worker)
{
    uint32_t pieces = pieces_of(count, grain);
    for (uint32_t piece = 0; piece < pieces; piece++) {
        run_piece(body, self, piece, count, grain, worker);
    }
}

static void run_in_parallel(lore_pool *pool, int32_t count, int32_t grain, lore_pool_body body,
                            void *self)
{
    uint32_t pieces = pieces_of(count, grain);
    uint32_t loop = (uint32_t)(atomic_load_explicit(&pool->ticket, memory_order_relaxed) >> 32) + 1;
    /* Invariant 2. An exchange and not a store: it reads the last claim of the old loop and so
     * happens after it, and with it after the claimer's look at the description, which therefore
     * cannot be the one stored below. */
    atomic_exchange_explicit(&pool->ticket, ticket_of(loop, PIECE_CLOSED), memory_order_acq_rel);
    atomic_store_explicit(&pool->body, body, memory_order_relaxed);
    atomic_store_explicit(&pool->self, self, memory_order_relaxed);
    atomic_store_explicit(&pool->count, count, memory_order_relaxed);
    atomic_store_explicit(&pool->grain, grain, memory_order_relaxed);
    atomic_store_explicit(&pool->finished, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->ticket, ticket_of(loop, 0), memory_order_release);
    int32_t others = pool->size - 1;
    wake_workers(pool, pieces - 1 < (uint32_t)others ? (int32_t)(pieces - 1) : others);
    run_pieces(pool, 0);
    wait_for_finish(pool, pieces);
}

void lore_pool_for(lore_pool *pool, int32_t count, int32_t grain, bool urgent, lore_pool_body body,
                   void *self)
{
    LORE_ASSERT(grain > 0);
    if (count <= 0) {
        return;
    }
    if (current_pool != NULL) {
        LORE_ASSERT(current_pool ==
                    pool); /* scratch is per worker, and we are none of the other's */
        run_serially(count, grain, body, self, current_worker);
        return;
    }
    gate_enter(pool, urgent);
    current_pool = pool;
    current_worker = 0;
    if (pool->size == 1 || count <= grain) {
        run_serially(count, grain, body, self, 0);
    } else {
        run_in_parallel(pool, count, grain, body, self);
    }
    current_pool = NULL;
    gate_leave(pool);
}

/* How many pauses fill SPIN_NS: their length differs tenfold between processors. */
static int32_t calibrate_spin(void)
{
    int64_t start_ns = lore_clock_ns();
    for (int32_t i = 0; i < CALIBRATION_ROUNDS; i++) {
        spin_pause();
    }
    int64_t took_ns = lore_clock_ns() - start_ns;
    int64_t rounds =
        took_ns <= 0 ? SPIN_ROUNDS_MIN : (int64_t)SPIN_NS * CALIBRATION_ROUNDS / took_ns;
    return (int32_t)(rounds < SPIN_ROUNDS_MIN   ? SPIN_ROUNDS_MIN
                     : rounds > SPIN_ROUNDS_MAX ? SPIN_ROUNDS_MAX
                                                : rounds);
}

static lore_status start_workers(lore_pool *pool, lore_error *err)
{
    for (int32_t i = 1; i < pool->size; i++) {
        pool_worker *worker = &pool->workers[i - 1];
        *worker = (pool_worker){.pool = pool, .index = i};
        char name[16];
        snprintf(name, sizeof name, "lore-pool-%d", (int)(i % 10000));
        lore_status status = lore_thread_start(&worker->thread, name, worker_main, worker, err);
        if (status != LORE_OK) {
            return status;
        }
    }
    return LORE_OK;
}

lore_status lore_pool_new(int32_t threads, lore_pool **pool, lore_error *err)
{
    LORE_ASSERT(threads >= 0);
    int32_t cores = lore_cpu_count();
    int32_t size = threads == 0 ? cores : threads;
    if (size > POOL_THREADS_MAX) {
        size = POOL_THREADS_MAX; /* more would only add to the wait at the ticket */
    }
    lore_pool *made = lore_alloc_aligned(sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the worker pool");
    }
    *made = (lore_pool){.size = size};
    /* Spinning helps only where the thread that is waited for has a core of its own. */
    made->spin_rounds = size <= cores ? calibrate_spin() : 0;
    atomic_store(&made->ticket, ticket_of(0, PIECE_CLOSED));
    atomic_store(&made->grain, 1);
    lore_lock_init(&made->gate);
    lore_status status = LORE_OK;
    made->workers = lore_alloc_zero((size_t)size, sizeof *made->workers);
    if (made->workers == NULL) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for the worker pool");
    } else {
        status = start_workers(made, err);
    }
    if (status != LORE_OK) {
        lore_pool_free(made);
        return status;
    }
    *pool = made;
    return LORE_OK;
}

void lore_pool_free(lore_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    atomic_store(&pool->is_stopping, true);
    wake_workers(pool, INT_MAX);
    for (int32_t i = 0; pool->workers != NULL && i < pool->size - 1; i++) {
        lore_thread_join(&pool->workers[i].thread);
    }
    lore_lock_destroy(&pool->gate);
    lore_free(pool->workers);
    lore_free_aligned(pool);
}

int32_t lore_pool_size(const lore_pool *pool)
{
    return pool->size;
}
