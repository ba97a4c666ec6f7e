/* The bytes of one streamed reply, on their way from the thread that makes them to the connection.
 *
 * The HTTP library asks for bytes, the answer's walk hands them out: somewhere the two must meet,
 * and this is the place. A sink owns a thread that runs the producer and a bounded queue of bytes.
 * The producer waits while a slow client leaves the queue full; the consumer waits with a deadline,
 * so it can look after its client. close cancels, joins and frees, whatever state the two are in:
 * nothing outlives it. One producer, one consumer. */
#ifndef LORE_API_SINK_H
#define LORE_API_SINK_H

#include "base/str.h"
#include "base/thread.h"

typedef struct lore_sink lore_sink;

/* What runs on the sink's thread. Its status and error are kept for lore_sink_result. */
typedef lore_status (*lore_sink_run)(void *self, lore_sink *sink, lore_error *err);

/* Start run(self, sink) on a thread. self must live until close has returned. room: bytes that may
 * wait; one write may overshoot it, so the bound is room + the longest write. */
LORE_MUST_USE lore_status lore_sink_open(lore_sink_run run, void *self, size_t room_bytes,
                                         lore_sink **sink, lore_error *err);
void lore_sink_close(lore_sink *sink); /* accepts NULL */

/* Producer. All of bytes or nothing; waits while the queue is full. False: cancelled, or out of
 * memory; the producer should end. */
bool lore_sink_write(lore_sink *sink, lore_str bytes);
bool lore_sink_is_cancelled(lore_sink *sink);

/* Consumer. LORE_OK with *size bytes; LORE_ERR_TIMEOUT at the deadline; LORE_ERR_CANCELLED when the
 * producer has ended and everything was read. */
LORE_MUST_USE lore_status lore_sink_read(lore_sink *sink, char *out, size_t cap_bytes,
                                         int64_t deadline_ns, size_t *size);
/* Wait until there is something to read (LORE_OK), the producer has ended without a byte
 * (LORE_ERR_CANCELLED) or the deadline (LORE_ERR_TIMEOUT). */
LORE_MUST_USE lore_status lore_sink_wait(lore_sink *sink, int64_t deadline_ns);
void lore_sink_cancel(lore_sink *sink); /* any thread */
/* How the producer ended; err is filled where it failed. After LORE_ERR_CANCELLED from read or
 * wait. */
lore_status lore_sink_result(lore_sink *sink, lore_error *err);

#endif
