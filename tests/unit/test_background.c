/* Work is done on another thread while its caller waits, by few threads for many callers. */
#include "ingest/background.h"

#include "base/mem.h"
#include "tests/check.h"

#include <stdatomic.h>
#include <sys/resource.h>

static atomic_int under_way, most_at_once, done;

typedef struct job {
    pthread_t caller;
    bool was_elsewhere;
    int priority;
} job;

static void work(void *self)
{
    job *j = self;
    int now = atomic_fetch_add(&under_way, 1) + 1, most = atomic_load(&most_at_once);
    while (now > most && !atomic_compare_exchange_weak(&most_at_once, &most, now)) {
    }
    j->was_elsewhere = !pthread_equal(j->caller, pthread_self());
    j->priority = getpriority(PRIO_PROCESS, 0);
    atomic_fetch_sub(&under_way, 1);
    atomic_fetch_add(&done, 1);
}

typedef struct caller {
    lore_background *background;
    bool is_right;
} caller;

static void *call_often(void *self)
{
    caller *c = self;
    c->is_right = true;
    for (int i = 0; i < 100; i++) {
        job j = {.caller = pthread_self()};
        lore_background_run(c->background, work, &j);
        c->is_right = c->is_right && j.was_elsewhere && j.priority >= 10;
    }
    return NULL;
}

TEST(many_callers)
{
    enum { CALLERS = 12 };
    lore_error err;
    caller callers[CALLERS];
    pthread_t threads[CALLERS];
    lore_background *background = NULL;
    CHECK_OK(lore_background_open(2, &background, &err), &err);
    for (int i = 0; i < CALLERS; i++) {
        callers[i].background = background;
        CHECK_INT(pthread_create(&threads[i], NULL, call_often, &callers[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(callers[i].is_right);
    }
    CHECK_INT(done, CALLERS * 100);
    CHECK(most_at_once <= 2);
    lore_background_close(background);
}

static lore_status open_once(void *self)
{
    lore_error err;
    lore_background *background = NULL;
    (void)self;
    lore_status status = lore_background_open(2, &background, &err);
    lore_background_close(background);
    return status;
}

TEST(failures)
{
    check_alloc_sweep(open_once, NULL);
    lore_background *background = NULL;
    lore_error err;
    lore_thread_fail_at(2);
    CHECK_FAILS(lore_background_open(2, &background, &err), LORE_ERR_NOMEM, &err, "lore-prepare");
    lore_thread_fail_at(0);
    lore_background_close(NULL);
}

CHECK_MAIN(many_callers, failures)
