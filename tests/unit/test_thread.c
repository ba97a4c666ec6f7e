/* Proves thread start and its injected failure, the signal mask of threads, and that waits end at
 * their deadline on the real clock and on a test's. */
#include "tests/check.h"

#include "base/clock.h"
#include "base/thread.h"

#include <signal.h>
#include <stdatomic.h>

static void *add_one(void *self)
{
    atomic_fetch_add((_Atomic int *)self, 1);
    return NULL;
}

TEST(starts_and_joins)
{
    _Atomic int count = 0;
    lore_thread threads[8] = {0};
    lore_error err;
    for (int i = 0; i < 8; i++) {
        CHECK_OK(lore_thread_start(&threads[i], "a-name-longer-than-15", add_one, &count, &err),
                 &err);
    }
    for (int i = 0; i < 8; i++) {
        lore_thread_join(&threads[i]);
        lore_thread_join(&threads[i]); /* a second time does nothing */
    }
    CHECK_INT(count, 8);
    lore_thread_join(NULL);
}

TEST(start_fails_where_told)
{
    _Atomic int count = 0;
    lore_thread first = {0};
    lore_thread second = {0};
    lore_error err;
    lore_thread_fail_at(2);
    CHECK_OK(lore_thread_start(&first, "first", add_one, &count, &err), &err);
    CHECK_FAILS(lore_thread_start(&second, "second", add_one, &count, &err), LORE_ERR_NOMEM, &err,
                "'second'");
    lore_thread_join(&first);
    lore_thread_join(&second);
    CHECK_INT(count, 1);
    CHECK_OK(lore_thread_start(&second, "second", add_one, &count, &err), &err);
    lore_thread_join(&second);
}

static void *read_mask(void *self)
{
    pthread_sigmask(SIG_SETMASK, NULL, self);
    return NULL;
}

TEST(threads_leave_signals_to_main)
{
    sigset_t mask;
    sigset_t own;
    lore_thread thread;
    lore_error err;
    sigemptyset(&mask);
    CHECK_OK(lore_thread_start(&thread, "mask", read_mask, &mask, &err), &err);
    lore_thread_join(&thread);
    CHECK(sigismember(&mask, SIGTERM) && sigismember(&mask, SIGINT) && sigismember(&mask, SIGPIPE));
    CHECK(!sigismember(&mask, SIGSEGV) && !sigismember(&mask, SIGABRT));
    pthread_sigmask(SIG_SETMASK, NULL, &own);
    CHECK(!sigismember(&own, SIGTERM));
}

TEST(counts_cores)
{
    CHECK(lore_cpu_count() >= 1);
    CHECK(lore_cpu_count() <= 4096);
}

TEST(waits_until_the_deadline)
{
    lore_lock lock;
    lore_lock_init(&lock);
    lore_lock_acquire(&lock);
    int64_t start_ns = lore_clock_ns();
    int64_t deadline_ns = start_ns + 5000000;
    while (lore_lock_wait(&lock, deadline_ns)) {
    }
    CHECK(lore_clock_ns() >= deadline_ns);
    CHECK(!lore_lock_wait(&lock, start_ns)); /* passed before the wait began */
    lore_lock_release(&lock);
    lore_lock_destroy(&lock);
}

static _Atomic int64_t now_ns;

static int64_t advancing_time(void)
{
    return atomic_fetch_add(&now_ns, 1000000000);
}

/* A minute of a test's time passes in a few slices of real time. */
TEST(waits_on_a_replaced_clock)
{
    lore_lock lock;
    lore_lock_init(&lock);
    int64_t real_start_ns = lore_clock_ns();
    atomic_store(&now_ns, 1);
    lore_clock_set_source(advancing_time);
    lore_lock_acquire(&lock);
    int waits = 0;
    while (lore_lock_wait(&lock, INT64_C(60000000000))) {
        waits++;
    }
    lore_lock_release(&lock);
    lore_clock_set_source(NULL);
    CHECK(waits > 0 && waits < 100);
    CHECK(lore_clock_ns() - real_start_ns < INT64_C(5000000000));
    lore_lock_destroy(&lock);
}

typedef struct handover {
    lore_lock lock;
    bool is_set; /* guarded by lock */
} handover;

static void *set_it(void *self)
{
    handover *h = self;
    lore_lock_acquire(&h->lock);
    h->is_set = true;
    lore_lock_wake_one(&h->lock);
    lore_lock_release(&h->lock);
    return NULL;
}

TEST(wakes_a_waiter)
{
    handover h = {.is_set = false};
    lore_thread thread;
    lore_error err;
    lore_lock_init(&h.lock);
    lore_lock_acquire(&h.lock);
    CHECK_OK(lore_thread_start(&thread, "setter", set_it, &h, &err), &err);
    while (!h.is_set) {
        lore_lock_wait(&h.lock, 0);
    }
    lore_lock_release(&h.lock);
    lore_thread_join(&thread);
    lore_lock_destroy(&h.lock);
}

CHECK_MAIN(starts_and_joins, start_fails_where_told, threads_leave_signals_to_main, counts_cores,
           waits_until_the_deadline, waits_on_a_replaced_clock, wakes_a_waiter)
