/* Proves that every index is run exactly once in pieces of the grain, by workers with numbers of
 * their own, whatever the sizes; that loops of several threads exclude one another, that those of
 * high priority go first and interrupt others between two pieces, which then go on; that a span
 * keeps equals out; that a nested loop runs; that failing starts leave nothing behind. */
#include "tests/check.h"

#include "base/clock.h"
#include "base/mem.h"
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
    lore_pool_for(pool, count, grain, LORE_PRIORITY_NORMAL, mark, l);
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
        lore_pool_for(pool, count, 1, LORE_PRIORITY_NORMAL, add_range, &sum);
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
        lore_pool_for(r->pool, 8, 1, l.number % 3 - 1, stay_alone, &l);
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
    lore_pool_for(((turn *)self)->pool, 1, 1, LORE_PRIORITY_NORMAL, hold, self);
    return NULL;
}

static void *run_ordinary(void *self)
{
    lore_pool_for(((turn *)self)->pool, 1, 1, LORE_PRIORITY_NORMAL, take_place, self);
    return NULL;
}

static void *run_urgent(void *self)
{
    lore_pool_for(((turn *)self)->pool, 1, 1, LORE_PRIORITY_HIGH, note_place, self);
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

enum { INTERRUPTED_PIECES = 1 << 20, PIECE_NS = 20000, VISITS = 50 };

typedef struct visit {
    lore_pool *pool;
    uint8_t *runs;          /* of each piece of the long loop, by whoever claimed it */
    _Atomic int active;     /* bodies of the long loop that run now */
    _Atomic int visits;     /* loops of high priority that ran */
    _Atomic int64_t pieces; /* of the long loop so far */
    _Atomic int wrong;
    int64_t pieces_at_visit[VISITS];
} visit;

static void work_long(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    visit *v = self;
    atomic_fetch_add(&v->active, 1);
    for (int32_t i = begin; i < end; i++) {
        v->runs[i]++;
    }
    int64_t until_ns = lore_clock_ns() + PIECE_NS;
    while (atomic_load(&v->visits) < VISITS && lore_clock_ns() < until_ns) {
    }
    atomic_fetch_add(&v->pieces, end - begin);
    atomic_fetch_sub(&v->active, 1);
}

static void look_around(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)worker;
    visit *v = self;
    atomic_fetch_add(&v->wrong, atomic_load(&v->active) != 0);
    atomic_fetch_add(&v->wrong, end - begin != 1);
}

static void *run_visits(void *self)
{
    visit *v = self;
    while (atomic_load(&v->pieces) == 0) {
        lore_clock_sleep_ms(1);
    }
    for (int i = 0; i < VISITS; i++) {
        lore_pool_for(v->pool, 4, 1, LORE_PRIORITY_HIGH, look_around, v);
        v->pieces_at_visit[i] = atomic_load(&v->pieces);
        atomic_fetch_add(&v->visits, 1);
    }
    return NULL;
}

/* A loop that would take ten seconds is interrupted fifty times; the visitors see nobody inside,
 * and every piece of it runs once. Until the last visit its pieces are slow, then they are not: had
 * a visitor waited for the end, it would have found all pieces done. */
static void interrupt(int32_t threads, bool is_span)
{
    visit v = {.runs = lore_alloc_zero(INTERRUPTED_PIECES, 1)};
    lore_error err;
    lore_thread visitor;
    CHECK(v.runs != NULL);
    CHECK_OK(lore_pool_new(threads, &v.pool, &err), &err);
    CHECK_OK(lore_thread_start(&visitor, "visitor", run_visits, &v, &err), &err);
    if (is_span) {
        lore_pool_begin(v.pool, LORE_PRIORITY_LOW);
    }
    lore_pool_for(v.pool, INTERRUPTED_PIECES, 1, LORE_PRIORITY_LOW, work_long, &v);
    if (is_span) {
        lore_pool_end(v.pool);
    }
    lore_thread_join(&visitor);
    CHECK_INT(v.wrong, 0);
    CHECK_INT(v.visits, VISITS);
    CHECK_INT(v.pieces, INTERRUPTED_PIECES);
    CHECK(v.pieces_at_visit[VISITS - 1] < INTERRUPTED_PIECES);
    for (int32_t i = 0; i < INTERRUPTED_PIECES; i++) {
        if (v.runs[i] != 1) {
            CHECK_INT(v.runs[i], 1);
        }
    }
    lore_free(v.runs);
    lore_pool_free(v.pool);
}

TEST(high_priority_interrupts_between_pieces)
{
    for (int32_t threads = 1; threads <= 3; threads++) {
        interrupt(threads, false);
        interrupt(threads, true);
    }
}

typedef struct guest {
    lore_pool *pool;
    lore_priority priority;
    _Atomic int *is_inside; /* the host's span */
    _Atomic int *has_left;
    _Atomic int met, loops;
} guest;

static void meet(void *self, int32_t begin, int32_t end, int32_t worker)
{
    (void)begin;
    (void)end;
    (void)worker;
    guest *g = self;
    atomic_fetch_add(&g->met, atomic_load(g->is_inside));
}

static void *run_guest(void *self)
{
    guest *g = self;
    while (atomic_load(g->has_left) == 0) {
        lore_pool_for(g->pool, 4, 1, g->priority, meet, g);
        atomic_fetch_add(&g->loops, 1);
    }
    return NULL;
}

/* Between the loops of a span nobody of the same or a lower priority gets in, and everybody gets in
 * between two spans. Only high priority meets the span. */
TEST(spans_keep_equals_out)
{
    _Atomic int is_inside = 0, has_left = 0;
    lore_pool *pool = NULL;
    lore_error err;
    lore_thread threads[3];
    guest guests[3];
    CHECK_OK(lore_pool_new(2, &pool, &err), &err);
    for (int i = 0; i < 3; i++) {
        guests[i] = (guest){pool, (lore_priority)(i - 1), &is_inside, &has_left, 0, 0};
        CHECK_OK(lore_thread_start(&threads[i], "guest", run_guest, &guests[i], &err), &err);
    }
    int64_t until_ns = lore_clock_ns() + 10 * 1000000000LL;
    while ((guests[0].loops == 0 || guests[1].loops == 0 || guests[2].met == 0) &&
           lore_clock_ns() < until_ns) {
        lore_pool_begin(pool, LORE_PRIORITY_NORMAL);
        is_inside = 1;
        for (int i = 0; i < 20; i++) {
            _Atomic int64_t sum = 0;
            lore_pool_for(pool, 5, 2, LORE_PRIORITY_LOW, add_range, &sum); /* the span's counts */
            CHECK_INT(sum, 5);
        }
        is_inside = 0;
        lore_pool_end(pool);
        lore_clock_sleep_ms(1);
    }
    has_left = 1;
    for (int i = 0; i < 3; i++) {
        lore_thread_join(&threads[i]);
        CHECK(guests[i].loops > 0);
    }
    CHECK_INT(guests[0].met, 0);
    CHECK_INT(guests[1].met, 0);
    CHECK(guests[2].met > 0);
    lore_pool_free(pool);
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
        lore_pool_for(call.shared->pool, 10, 3, LORE_PRIORITY_NORMAL, run_inner, &call);
    }
}

TEST(nested_loops_keep_their_worker)
{
    nest n = {.pool = NULL};
    lore_error err;
    CHECK_OK(lore_pool_new(3, &n.pool, &err), &err);
    lore_pool_for(n.pool, 100, 1, LORE_PRIORITY_NORMAL, run_outer, &n);
    lore_pool_for(n.pool, 1, 1, LORE_PRIORITY_NORMAL, run_outer, &n);
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
           urgent_callers_go_first, high_priority_interrupts_between_pieces, spans_keep_equals_out,
           nested_loops_keep_their_worker, failing_starts_leave_nothing)
