/* A thread that wakes those who sleep on their streams, so that the engine's does not have to: 64
 * wake-ups take longer than all else that the host does for a step of a GPU.
 *
 * Embedded in the engine, whose thread alone calls all of this. Zeroed, or where the thread could
 * not be started: a push wakes at once. */
#ifndef LORE_GENERATION_WAKER_H
#define LORE_GENERATION_WAKER_H

#include "base/thread.h"
#include "generation/stream.h"

typedef struct lore_waker {
    lore_thread thread;
    lore_stream_list asleep; /* pushed to since the last lore_waker_send; the engine thread's */
    lore_lock lock;          /* guards the two below */
    lore_stream_list sent;
    bool is_stopping;
} lore_waker;

/* A waker in zeroed memory. A failure is logged. */
void lore_waker_start(lore_waker *waker);
/* lore_stream_push; the consumer sleeps on until lore_waker_send. */
void lore_waker_push(lore_waker *waker, lore_stream *stream, lore_token_event event);
/* Have those woken who have been pushed to. Costs one wake-up at most. */
void lore_waker_send(lore_waker *waker);
/* All are awake and no stream is held any more when this returns. Accepts a zeroed one. */
void lore_waker_stop(lore_waker *waker);

#endif
