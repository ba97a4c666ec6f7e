/* Proves that every index is run exactly once in pieces of the grain, by workers with numbers of
 * their own, whatever the sizes; that loops of several threads exclude one another and urgent ones
 * go first; that a nested loop runs; that failing starts leave nothing behind. */
#include "tests/check.h"

#include "base/clock.h"
#include "base/thread.h"

#include <stdatomic.h>

enum { COUNT_MAX = 5000 };

typedef struct loop {
    _Atomic int runs[COUNT_MAX];
    _Atomic int inside[64]; /* bodies running now as worker i: never more than one */
    int32_t count, grain, workers;
    _Atomic int wrong;
} loop;

static void mark(void *self, int32_t begin, int32_t end, int32_t worker)
{
    loop *l = self;
    if (begin >= end || end - begin > l->grain || begin % l->grain != 0 || end > l->count ||
        worker < 0 || worker >= l->workers) {
        atomic_fetch_add(&l->wrong, 1);
        return;
    }
    if (atomic_fetch_add(&l->inside[worker], 1) != 0) {
        atomic_fetch_add(&l->wrong, 1);
    }
    for (int32_t i = begin; i < end; i++) {
        atomic_fetch_add(&l->runs[i], 1);
    }
    atomic_fetch_sub(&l->inside[worker], 1);
}

static void check_loop(lore_pool *pool, loop *l, int32_t count, int32_t grain)
{
    for (int32_t i = 0; i < COUNT_MAX; i++) {
        l->runs[i] = 0;
    }
    l->count = count;
    l->grain = grain;
    l->workers = lore_pool_size(pool);
    lore_pool_for(pool, count, grain, false, mark, l);
    CHECK_INT(l->wrong, 0);
    for (int32_t i = 0; i < COUNT_MAX; i++) {
        CHECK_INT(l->runs[i], i < count);
    }
}

TEST(runs_every_index_once)
{
    static loop l;
    lore_error err;
    for (int32_t threads = 1; threads <= 5; threads++) {
        lore_pool *pool = NULL;
        CHECK_OK(lore_pool_new(threads, &pool, &err), &err);
        CHECK_INT(lore_pool_size(pool), threads);
        uint64_t seed = 3;
        check_loop(pool, &l, 0, 1);
        check_loop(pool, &l, -5, 1);
        check_loop(pool, &l, 1, 1);
        check_loop(pool, &l, COUNT_MAX, INT32_MAX);
        for (int i = 0; i < 150; i++) {
            int32_t count = (int32_t)(lore_random_next(&seed) % COUNT_MAX);
            int32_t grain = 1 + (int32_t)(lore_random_next(&seed) % (i % 2 == 0 ? 7 : 900));
            check_loop(pool, &l, count, grain);
        }
        lore_pool_free(pool);
    }
    lore_pool_free(NULL);
}

static void add_range(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    atomic_fetch_add((_Atomic int64_t *)self, end - begin);
}

/* Many tiny loops back to back: the danger is a worker of one loop acting in the next. */
TEST(keeps_loops_apart)
{
    lore_pool *pool = NULL;
    lore_error err;
    CHECK_OK(lore_pool_new(4, &pool, &err), &err);
    for (int i = 0; i < 20000; i++) {
        _Atomic int64_t sum = 0;
        int32_t count = 2 + i % 13;
        lore_pool_for(pool, count, 1, false, add_range, &sum);
        CHECK_INT(sum, count);
        if (i % 4000 == 0) {
            lore_clock_sleep_ms(1); /* let the workers fall asleep */
        }
    }
    lore_pool_free(pool);
}

enum { RIVALS = 4 };

typedef struct rival {
    lore_pool *pool;
    _Atomic int active[RIVALS]; /* bodies of each rival's loop that run now */
    _Atomic int pieces;
    _Atomic int wrong;
    _Atomic int next;
} rival;

typedef struct rival_loop {
    rival *shared;
    int number;
} rival_loop;

static void stay_alone(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    rival_loop *l = self;
    rival *r = l->shared;
    atomic_fetch_add(&r->active[l->number], 1);
    for (int other = 0; other < RIVALS; other++) {
        if (other != l->number && atomic_load(&r->active[other]) != 0) {
            atomic_fetch_add(&r->wrong, 1);
        }
    }
    atomic_fetch_add(&r->pieces, end - begin);
    atomic_fetch_sub(&r->active[l->number], 1);
}

static void *run_rival(void *self)
{
    rival *r = self;
    rival_loop l = {r, atomic_fetch_add(&r->next, 1)};
    for (int i = 0; i < 1000; i++) {
        lore_pool_for(r->pool, 8, 1, l.number == 0, stay_alone, &l);
    }
    return NULL;
}

TEST(loops_of_threads_exclude_each_other)
{
    rival r = {.pool = NULL};
    lore_thread threads[RIVALS];
    lore_error err;
    CHECK_OK(lore_pool_new(3, &r.pool, &err), &err);
    for (int i = 0; i < RIVALS; i++) {
        CHECK_OK(lore_thread_start(&threads[i], "rival", run_rival, &r, &err), &err);
    }
    for (int i = 0; i < RIVALS; i++) {
        lore_thread_join(&threads[i]);
    }
    CHECK_INT(r.wrong, 0);
    CHECK_INT(r.pieces, RIVALS * 1000 * 8);
    lore_pool_free(r.pool);
}

enum { WAITERS = 6 };

typedef struct turn {
    lore_pool *pool;
    _Atomic int holds; /* the first loop is running and keeps the pool */
    _Atomic int release;
    _Atomic int place;
    _Atomic int urgent_place;
} turn;

static void hold(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)begin;
    (void)end;
    (void)worker;
    turn *t = self;
    atomic_store(&t->holds, 1);
    while (atomic_load(&t->release) == 0) {
        lore_clock_sleep_ms(1);
    }
}

static void take_place(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)begin;
    (void)end;
    (void)worker;
    atomic_fetch_add(&((turn *)self)->place, 1);
}

static void note_place(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)begin;
    (void)end;
    (void)worker;
    turn *t = self;
    atomic_store(&t->urgent_place, atomic_fetch_add(&t->place, 1));
}

static void *run_hold(void *self)
{
    lore_pool_for(((turn *)self)->pool, 1, 1, false, hold, self);
    return NULL;
}

static void *run_ordinary(void *self)
{
    lore_pool_for(((turn *)self)->pool, 1, 1, false, take_place, self);
    return NULL;
}

static void *run_urgent(void *self)
{
    lore_pool_for(((turn *)self)->pool, 1, 1, true, note_place, self);
    return NULL;
}

/* However late an urgent caller comes to the gate, it is the next one through. */
TEST(urgent_callers_go_first)
{
    for (int urgent = 0; urgent < WAITERS; urgent++) {
        turn t = {.urgent_place = -1};
        lore_thread holder;
        lore_thread waiters[WAITERS];
        lore_error err;
        CHECK_OK(lore_pool_new(2, &t.pool, &err), &err);
        CHECK_OK(lore_thread_start(&holder, "hold", run_hold, &t, &err), &err);
        while (atomic_load(&t.holds) == 0) {
            lore_clock_sleep_ms(1);
        }
        for (int i = 0; i < WAITERS; i++) {
            CHECK_OK(lore_thread_start(&waiters[i], "waiter",
                                       i == urgent ? run_urgent : run_ordinary, &t, &err),
                     &err);
            lore_clock_sleep_ms(5); /* until it waits at the gate */
        }
        atomic_store(&t.release, 1);
        lore_thread_join(&holder);
        for (int i = 0; i < WAITERS; i++) {
            lore_thread_join(&waiters[i]);
        }
        CHECK_INT(t.urgent_place, 0);
        CHECK_INT(t.place, WAITERS);
        lore_pool_free(t.pool);
    }
}

typedef struct nest {
    lore_pool *pool;
    _Atomic int64_t sum;
    _Atomic int wrong;
} nest;

typedef struct nested_call {
    nest *shared;
    int32_t worker; /* of the outer body */
} nested_call;

static void run_inner(void *self, int32_t begin, int32_t end, int32_t worker)
{
    nested_call *call = self;
    atomic_fetch_add(&call->shared->wrong, worker != call->worker || end - begin > 3);
    atomic_fetch_add(&call->shared->sum, end - begin);
}

static void run_outer(void *self, int32_t begin, int32_t end, int32_t worker)
{
    nested_call call = {self, worker};
    for (int32_t i = begin; i < end; i++) {
        lore_pool_for(call.shared->pool, 10, 3, false, run_inner, &call);
    }
}

TEST(nested_loops_keep_their_worker)
{
    nest n = {.pool = NULL};
    lore_error err;
    CHECK_OK(lore_pool_new(3, &n.pool, &err), &err);
    lore_pool_for(n.pool, 100, 1, false, run_outer, &n);
    lore_pool_for(n.pool, 1, 1, false, run_outer, &n);
    CHECK_INT(n.sum, 1010);
    CHECK_INT(n.wrong, 0);
    lore_pool_free(n.pool);
}

TEST(failing_starts_leave_nothing)
{
    lore_error err;
    lore_pool *pool = NULL;
    for (int64_t n = 1; n <= 3; n++) {
        lore_thread_fail_at(n);
        CHECK_FAILS(lore_pool_new(4, &pool, &err), LORE_ERR_NOMEM, &err, "cannot start thread");
        CHECK(pool == NULL);
    }
    lore_thread_fail_at(0);
    for (int64_t n = 1; n <= 2; n++) {
        lore_mem_fail_at(n, false);
        CHECK_FAILS(lore_pool_new(2, &pool, &err), LORE_ERR_NOMEM, &err, "out of memory");
        lore_mem_fail_at(0, false);
        CHECK(pool == NULL);
    }
}

CHECK_MAIN(runs_every_index_once, keeps_loops_apart, loops_of_threads_exclude_each_other,
           urgent_callers_go_first, nested_loops_keep_their_worker, failing_starts_leave_nothing)
