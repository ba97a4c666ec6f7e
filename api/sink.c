/* See sink.h.
 *
 * Invariants: (1) buf.ptr[taken .. buf.len) is what the consumer has not read; (2) is_ended is set
 * once, by the producer's thread, as its last act under the lock; (3) after is_cancelled nothing is
 * added any more. States: running -> ended, either way through cancelled. */
#include "api/sink.h"

#include "base/mem.h"

#include <string.h>

struct lore_sink {
    lore_lock lock; /* guards buf, taken, is_cancelled, is_ended, status, error */
    lore_buf buf;
    size_t taken;
    size_t room;
    bool is_cancelled, is_ended;
    lore_status status;
    lore_error error;
    lore_sink_run run; /* const after open, like self */
    void *self;
    lore_thread thread;
};

static void *produce(void *self)
{
    lore_sink *sink = self;
    lore_error error = {0};
    lore_status status = sink->run(sink->self, sink, &error);
    lore_lock_acquire(&sink->lock);
    sink->status = status;
    sink->error = error;
    sink->is_ended = true;
    lore_lock_wake_all(&sink->lock);
    lore_lock_release(&sink->lock);
    return NULL;
}

lore_status lore_sink_open(lore_sink_run run, void *self, size_t room_bytes, lore_sink **sink_out,
                           lore_error *err)
{
    lore_sink *sink = lore_alloc_zero(1, sizeof *sink);
    if (sink == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "no memory for a stream");
    }
    lore_lock_init(&sink->lock);
    lore_buf_init(&sink->buf, 0);
    sink->room = room_bytes;
    sink->run = run;
    sink->self = self;
    lore_status status = lore_thread_start(&sink->thread, "lore-stream", produce, sink, err);
    if (status != LORE_OK) {
        lore_sink_close(sink);
        return status;
    }
    *sink_out = sink;
    return LORE_OK;
}

void lore_sink_cancel(lore_sink *sink)
{
    lore_lock_acquire(&sink->lock);
    sink->is_cancelled = true;
    lore_lock_wake_all(&sink->lock);
    lore_lock_release(&sink->lock);
}

void lore_sink_close(lore_sink *sink)
{
    if (sink == NULL) {
        return;
    }
    lore_sink_cancel(sink);
    lore_thread_join(&sink->thread);
    lore_buf_destroy(&sink->buf);
    lore_lock_destroy(&sink->lock);
    lore_free(sink);
}

bool lore_sink_write(lore_sink *sink, lore_str bytes)
{
    lore_lock_acquire(&sink->lock);
    while (!sink->is_cancelled && sink->buf.len - sink->taken >= sink->room) {
        (void)lore_lock_wait(&sink->lock, 0); /* close always cancels, so this cannot hang */
    }
    bool is_open = !sink->is_cancelled;
    if (is_open) {
        lore_buf_append(&sink->buf, bytes);
        is_open = !lore_buf_failed(&sink->buf);
        lore_lock_wake_all(&sink->lock);
    }
    lore_lock_release(&sink->lock);
    return is_open;
}

bool lore_sink_is_cancelled(lore_sink *sink)
{
    lore_lock_acquire(&sink->lock);
    bool is_cancelled = sink->is_cancelled;
    lore_lock_release(&sink->lock);
    return is_cancelled;
}

/* Lock held. The state a reader asks about; waits for a change of it until the deadline. */
static lore_status wait_readable(lore_sink *sink, int64_t deadline_ns)
{
    while (sink->buf.len == sink->taken) {
        if (sink->is_ended) {
            return LORE_ERR_CANCELLED;
        }
        if (!lore_lock_wait(&sink->lock, deadline_ns)) {
            return LORE_ERR_TIMEOUT;
        }
    }
    return LORE_OK;
}

lore_status lore_sink_wait(lore_sink *sink, int64_t deadline_ns)
{
    lore_lock_acquire(&sink->lock);
    lore_status status = wait_readable(sink, deadline_ns);
    lore_lock_release(&sink->lock);
    return status;
}

lore_status lore_sink_read(lore_sink *sink, char *out, size_t cap_bytes, int64_t deadline_ns,
                           size_t *size)
{
    lore_lock_acquire(&sink->lock);
    lore_status status = wait_readable(sink, deadline_ns);
    if (status == LORE_OK) {
        size_t left = sink->buf.len - sink->taken;
        *size = left < cap_bytes ? left : cap_bytes;
        memcpy(out, sink->buf.ptr + sink->taken, *size);
        sink->taken += *size;
        if (sink->taken == sink->buf.len && !lore_buf_failed(&sink->buf)) {
            lore_buf_reset(&sink->buf); /* keeps its memory; the sticky failure must stay */
            sink->taken = 0;
        }
        lore_lock_wake_all(&sink->lock);
    }
    lore_lock_release(&sink->lock);
    return status;
}

lore_status lore_sink_result(lore_sink *sink, lore_error *err)
{
    lore_lock_acquire(&sink->lock);
    lore_status status = sink->status;
    if (status != LORE_OK && err != NULL) {
        *err = sink->error;
    }
    lore_lock_release(&sink->lock);
    return status;
}
