/* The waker: streams come as a list, once a step, and one lock hands the list over. */
#include "generation/waker.h"

#include "base/log.h"

static void *run_waker(void *self)
{
    lore_waker *waker = self;
    lore_stream_list list = {0};
    do {
        lore_stream_list_wake(&list);
        lore_lock_acquire(&waker->lock);
        while (waker->sent.first == NULL && !waker->is_stopping) {
            (void)lore_lock_wait(&waker->lock, 0); /* the engine thread stops us */
        }
        lore_stream_list_join(&list, &waker->sent);
        lore_lock_release(&waker->lock);
    } while (list.first != NULL); /* stopping, and all are awake */
    return NULL;
}

void lore_waker_start(lore_waker *waker)
{
    lore_error err;
    lore_lock_init(&waker->lock);
    if (lore_thread_start(&waker->thread, "waker", run_waker, waker, &err) != LORE_OK) {
        lore_log(LORE_LOG_WARN, "event=no_waker status=%s message=\"%s\"",
                 lore_status_name(err.status), err.message);
        lore_lock_destroy(&waker->lock);
    }
}

void lore_waker_push(lore_waker *waker, lore_stream *stream, lore_token_event event)
{
    if (waker->thread.is_started) {
        lore_stream_push_later(stream, event, &waker->asleep);
    } else {
        lore_stream_push(stream, event);
    }
}

void lore_waker_send(lore_waker *waker)
{
    if (waker->asleep.first != NULL) {
        lore_lock_acquire(&waker->lock);
        lore_stream_list_join(&waker->sent, &waker->asleep);
        lore_lock_release(&waker->lock);
        lore_lock_wake_one(&waker->lock);
    }
}

void lore_waker_stop(lore_waker *waker)
{
    if (!waker->thread.is_started) {
        return;
    }
    lore_waker_send(waker);
    lore_lock_acquire(&waker->lock);
    waker->is_stopping = true;
    lore_lock_release(&waker->lock);
    lore_lock_wake_one(&waker->lock);
    lore_thread_join(&waker->thread);
    lore_lock_destroy(&waker->lock);
}
