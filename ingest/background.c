/* See background.h. A job lives on the stack of the caller that waits for it, so the only queue is
 * a channel of pointers, and a caller that finds it full waits before it. */
#include "ingest/background.h"

#include "base/mem.h"

enum { JOBS_CAP = 256, THREADS_MAX = 8 };

typedef struct background_job {
    void (*work)(void *self);
    void *self;
    bool is_done; /* guarded by the lock of the background */
} background_job;

struct lore_background {
    lore_chan *jobs;
    lore_lock lock;
    lore_thread threads[THREADS_MAX];
};

static void *run_jobs(void *self)
{
    lore_background *background = self;
    void *item = NULL;
    lore_thread_lower_priority();
    while (lore_chan_recv(background->jobs, &item, 0) == LORE_OK) {
        background_job *job = item;
        job->work(job->self);
        lore_lock_acquire(&background->lock);
        job->is_done = true;
        lore_lock_wake_all(&background->lock);
        lore_lock_release(&background->lock);
    }
    return NULL;
}

lore_status lore_background_open(int32_t threads, lore_background **background, lore_error *err)
{
    LORE_ASSERT(threads >= 1 && threads <= THREADS_MAX);
    lore_background *made = lore_alloc_zero(1, sizeof *made);
    if (made == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for background threads");
    }
    lore_lock_init(&made->lock);
    made->jobs = lore_chan_new(JOBS_CAP);
    lore_status status = made->jobs != NULL
                             ? LORE_OK
                             : lore_fail(err, LORE_ERR_NOMEM, "no memory for background threads");
    for (int32_t i = 0; i < threads && status == LORE_OK; i++) {
        status = lore_thread_start(&made->threads[i], "lore-prepare", run_jobs, made, err);
    }
    if (status != LORE_OK) {
        lore_background_close(made);
        return status;
    }
    *background = made;
    return LORE_OK;
}

void lore_background_close(lore_background *background)
{
    if (background == NULL) {
        return;
    }
    if (background->jobs != NULL) {
        lore_chan_close(background->jobs);
    }
    for (int32_t i = 0; i < THREADS_MAX; i++) {
        lore_thread_join(&background->threads[i]);
    }
    lore_chan_free(background->jobs);
    lore_lock_destroy(&background->lock);
    lore_free(background);
}

void lore_background_run(lore_background *background, void (*work)(void *self), void *self)
{
    background_job job = {work, self, false};
    lore_status status = lore_chan_send(background->jobs, &job, 0);
    LORE_ASSERT(status == LORE_OK); /* closed only when nobody hands over any more */
    lore_lock_acquire(&background->lock);
    while (!job.is_done) {
        (void)lore_lock_wait(&background->lock, 0);
    }
    lore_lock_release(&background->lock);
}
