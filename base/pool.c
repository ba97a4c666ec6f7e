/* The worker pool: one owner at a time, whose loops are handed to threads that spin a little and
 * then sleep.
 *
 * Idea. A loop is cut into pieces of `grain`; whoever is awake claims the next piece with one
 * compare-and-swap, the caller included, so a loop is finished even if no worker wakes in time, and
 * a loop of few pieces wakes few workers. OpenMP was measured to collapse when cores are shared,
 * because its barrier waits for every thread; here nobody waits for a thread that claimed nothing.
 *
 * A caller of higher priority does not wait for the owner's whole loop: while one stands at the
 * gate nobody claims another piece of a lower loop, the owner waits for the pieces that run, leaves
 * and comes back for the rest. Between the loops of a span it does the same.
 *
 * The danger is a worker that read an old loop and acts in a new one. Therefore:
 *  1. `ticket` holds the loop's number (high half) and the next piece (low half). A piece is
 * claimed only by a compare-and-swap of the ticket that was read before the loop's description.
 *  2. The description (body, self, count, grain, rank) changes only while the ticket is closed,
 * that is, its next piece is PIECE_CLOSED; it opens again with a new number. So a claim that
 *     succeeds has read the description of its own loop.
 *  3. A loop ends, or is put off, by closing the ticket: the pieces below the one that was next are
 * all that were ever claimed. When `finished` has reached it, no worker is inside a body. What was
 *     put off goes on as a new loop whose first piece is the one that was next.
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
    HOT_SPIN_FACTOR = 5,  /* inside a span: longer than what an op does alone between two loops */
    SPIN_ROUNDS_MIN = 50, /* bounds of the calibration, should the clock be a test's */
    SPIN_ROUNDS_MAX = 5000,
    CALIBRATION_ROUNDS = 1000,
    POOL_THREADS_MAX = 1024
};

/* Ranks at the gate: two for each priority, because an owner that was interrupted comes back before
 * others of its priority. */
enum {
    RANK_STEP = 2,
    RANK_LOWEST = RANK_STEP * LORE_PRIORITY_LOW,
    RANK_HIGHEST = RANK_STEP * LORE_PRIORITY_HIGH + 1,
    RANK_NONE = RANK_LOWEST - 1,
    RANKS = RANK_HIGHEST - RANK_LOWEST + 1
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
    atomic_bool is_hot; /* a span owns the pool: the next loop is near. Relaxed: it is a hint */
    /* The highest rank at the gate, RANK_NONE when nobody is. Written under the gate's
     * lock; read relaxed by whoever claims, because a piece more or less does no harm. */
    _Atomic int32_t pressing;
    /* The description of the loop; see invariant 2. Relaxed atomics, ordered by the ticket. */
    _Alignas(64) _Atomic(lore_pool_body) body;
    _Atomic(void *) self;
    _Atomic int32_t count;
    _Atomic int32_t grain;
    _Atomic int32_t rank;
    /* The gate: who owns the pool. The lock guards the two fields behind it, and pressing. */
    _Alignas(64) lore_lock gate;
    bool is_busy;
    int32_t waiting[RANKS]; /* the lowest rank first */

    int32_t size; /* constant from here on */
    int32_t spin_rounds;
    pool_worker *workers; /* size - 1 of them; worker 0 is the caller */
};

/* Which worker of which pool this thread is while it runs a body. */
static _Thread_local lore_pool *current_pool;
static _Thread_local int32_t current_worker;
/* The pool that this thread owns from lore_pool_begin to lore_pool_end. */
static _Thread_local lore_pool *span_pool;
static _Thread_local int32_t span_rank;

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

/* Does somebody at the gate go before an owner, or somebody else there, of this rank? */
static bool is_pressed(lore_pool *pool, int32_t rank)
{
    return atomic_load_explicit(&pool->pressing, memory_order_relaxed) > rank;
}

/* Claim and run pieces of the current loop until none is left or somebody more urgent waits. */
static void run_pieces(lore_pool *pool, int32_t worker)
{
    uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    for (;;) {
        uint32_t piece = (uint32_t)ticket;
        lore_pool_body body = atomic_load_explicit(&pool->body, memory_order_relaxed);
        void *self = atomic_load_explicit(&pool->self, memory_order_relaxed);
        int32_t count = atomic_load_explicit(&pool->count, memory_order_relaxed);
        int32_t grain = atomic_load_explicit(&pool->grain, memory_order_relaxed);
        int32_t rank = atomic_load_explicit(&pool->rank, memory_order_relaxed);
        if (piece == PIECE_CLOSED || piece >= pieces_of(count, grain) || is_pressed(pool, rank)) {
            return;
        }
        /* Release on success: the loads above happen before whoever closes the ticket after this
         * claim. Acquire on failure: the ticket may be a new loop's, whose description is next. */
        if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket + 1,
                                                   memory_order_acq_rel, memory_order_acquire)) {
            continue;
        }
        run_piece(body, self, piece, count, grain, worker);
        atomic_fetch_add(&pool->finished, 1);
        if (atomic_load(&pool->caller_sleeps) != 0) {
            futex_wake(&pool->finished, 1);
        }
        ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    }
}

/* How long a worker looks for the next loop before it sleeps; asked again in each round, because a
 * span may begin or end meanwhile. */
static int32_t spin_rounds_now(lore_pool *pool)
{
    bool is_hot = atomic_load_explicit(&pool->is_hot, memory_order_relaxed);
    return is_hot ? HOT_SPIN_FACTOR * pool->spin_rounds : pool->spin_rounds;
}

/* Wait until wake_word is not `seen` any more. */
static void wait_for_loop(lore_pool *pool, uint32_t seen)
{
    for (int32_t i = 0; i < spin_rounds_now(pool); i++) {
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

/* ---- the gate ---- */

/* Lock held: somebody of this rank came (1) or went (-1). */
static void count_waiting(lore_pool *pool, int32_t rank, int32_t change)
{
    pool->waiting[rank - RANK_LOWEST] += change;
    int32_t highest = RANK_HIGHEST;
    while (highest > RANK_NONE && pool->waiting[highest - RANK_LOWEST] == 0) {
        highest--;
    }
    atomic_store_explicit(&pool->pressing, highest, memory_order_relaxed);
}

/* Lock held: wait for the turn of this rank and take it. */
static void take_turn(lore_pool *pool, int32_t rank)
{
    if (pool->is_busy || is_pressed(pool, rank)) {
        count_waiting(pool, rank, 1);
        while (pool->is_busy || is_pressed(pool, rank)) {
            lore_lock_wait(&pool->gate, 0);
        }
        count_waiting(pool, rank, -1);
    }
    pool->is_busy = true;
}

static void gate_enter(lore_pool *pool, int32_t rank)
{
    lore_lock_acquire(&pool->gate);
    take_turn(pool, rank);
    lore_lock_release(&pool->gate);
}

/* Lock held. */
static void end_turn(lore_pool *pool)
{
    pool->is_busy = false;
    if (atomic_load_explicit(&pool->pressing, memory_order_relaxed) != RANK_NONE) {
        lore_lock_wake_all(&pool->gate);
    }
}

static void gate_leave(lore_pool *pool)
{
    lore_lock_acquire(&pool->gate);
    end_turn(pool);
    lore_lock_release(&pool->gate);
}

/* Let those of higher priority in and come back before the equals. In one go, or an equal could
 * slip in behind the first visitor. */
static void gate_yield(lore_pool *pool, int32_t rank)
{
    lore_lock_acquire(&pool->gate);
    end_turn(pool);
    take_turn(pool, rank + 1);
    lore_lock_release(&pool->gate);
}

/* ---- loops ---- */

/* What one call of lore_pool_for asks for. */
typedef struct pool_loop {
    lore_pool_body body;
    void *self;
    int32_t count, grain;
    int32_t rank; /* of its owner */
} pool_loop;

/* Pieces from `first` on in this thread. Returns the first one not run. */
static uint32_t run_serially(lore_pool *pool, const pool_loop *loop, uint32_t first)
{
    uint32_t pieces = pieces_of(loop->count, loop->grain);
    uint32_t piece = first;
    while (piece < pieces && !is_pressed(pool, loop->rank)) {
        run_piece(loop->body, loop->self, piece++, loop->count, loop->grain, current_worker);
    }
    return piece;
}

/* Pieces from `first` on in all threads. Returns the first one not run; all before it are done. */
static uint32_t run_in_parallel(lore_pool *pool, const pool_loop *loop, uint32_t first)
{
    uint32_t number =
        (uint32_t)(atomic_load_explicit(&pool->ticket, memory_order_relaxed) >> 32) + 1;
    atomic_store_explicit(&pool->body, loop->body, memory_order_relaxed);
    atomic_store_explicit(&pool->self, loop->self, memory_order_relaxed);
    atomic_store_explicit(&pool->count, loop->count, memory_order_relaxed);
    atomic_store_explicit(&pool->grain, loop->grain, memory_order_relaxed);
    atomic_store_explicit(&pool->rank, loop->rank, memory_order_relaxed);
    atomic_store_explicit(&pool->finished, first, memory_order_relaxed);
    atomic_store_explicit(&pool->ticket, ticket_of(number, first), memory_order_release);
    uint32_t left = pieces_of(loop->count, loop->grain) - first;
    int32_t others = pool->size - 1;
    wake_workers(pool, left - 1 < (uint32_t)others ? (int32_t)(left - 1) : others);
    run_pieces(pool, 0);
    /* Invariants 2 and 3. An exchange and not a store: it reads the last claim of this loop and so
     * happens after it, and with it after the claimer's look at the description, which therefore
     * cannot be the one that the next loop stores. */
    uint64_t last = atomic_exchange_explicit(&pool->ticket, ticket_of(number, PIECE_CLOSED),
                                             memory_order_acq_rel);
    wait_for_finish(pool, (uint32_t)last);
    return (uint32_t)last;
}

/* The pool is ours. Returns the first piece not run, which is the number of pieces at the end. */
static uint32_t run_loop(lore_pool *pool, const pool_loop *loop, uint32_t first)
{
    current_pool = pool;
    current_worker = 0;
    bool is_serial = pool->size == 1 || loop->count <= loop->grain;
    uint32_t next =
        is_serial ? run_serially(pool, loop, first) : run_in_parallel(pool, loop, first);
    current_pool = NULL;
    return next;
}

/* Inside a body: here and now, whoever waits. */
static void run_nested(const pool_loop *loop)
{
    uint32_t pieces = pieces_of(loop->count, loop->grain);
    for (uint32_t piece = 0; piece < pieces; piece++) {
        run_piece(loop->body, loop->self, piece, loop->count, loop->grain, current_worker);
    }
}

void lore_pool_for(lore_pool *pool, int32_t count, int32_t grain, lore_priority priority,
                   lore_pool_body body, void *self)
{
    LORE_ASSERT(grain > 0);
    LORE_ASSERT(priority >= LORE_PRIORITY_LOW && priority <= LORE_PRIORITY_HIGH);
    if (count <= 0) {
        return;
    }
    bool is_span = span_pool == pool;
    int32_t rank = is_span ? span_rank : RANK_STEP * (int32_t)priority;
    pool_loop loop = {body, self, count, grain, rank};
    if (current_pool != NULL) {
        /* Scratch is per worker, and we are none of another pool's. */
        LORE_ASSERT(current_pool == pool);
        run_nested(&loop);
        return;
    }
    if (!is_span) {
        gate_enter(pool, rank);
    }
    uint32_t pieces = pieces_of(count, grain);
    for (uint32_t next = 0; next < pieces;) {
        if (is_pressed(pool, rank)) {
            gate_yield(pool, rank);
            atomic_store_explicit(&pool->is_hot, is_span, memory_order_relaxed);
        }
        next = run_loop(pool, &loop, next);
    }
    if (!is_span) {
        gate_leave(pool);
    }
}

void lore_pool_begin(lore_pool *pool, lore_priority priority)
{
    LORE_ASSERT(span_pool == NULL && current_pool == NULL);
    LORE_ASSERT(priority >= LORE_PRIORITY_LOW && priority <= LORE_PRIORITY_HIGH);
    span_pool = pool;
    span_rank = RANK_STEP * (int32_t)priority;
    gate_enter(pool, span_rank);
    atomic_store_explicit(&pool->is_hot, true, memory_order_relaxed);
}

void lore_pool_end(lore_pool *pool)
{
    LORE_ASSERT(span_pool == pool);
    atomic_store_explicit(&pool->is_hot, false, memory_order_relaxed);
    span_pool = NULL;
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
    atomic_store(&made->pressing, RANK_NONE);
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
