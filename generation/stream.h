/* The tokens of one answer on their way from the engine to the thread that asked: one producer, one
 * consumer.
 *
 * The ring holds the whole answer, so a push neither blocks nor fails and a slow client costs
 * nobody. Two holders, and a list while the stream is in one; the last of them frees. Events carry
 * id, log probability, the most probable tokens where they were asked for, and flags. */
#ifndef LORE_GENERATION_STREAM_H
#define LORE_GENERATION_STREAM_H

#include "kernels/ops.h"

typedef struct lore_stream lore_stream;

typedef enum lore_finish {
    LORE_FINISH_NONE = 0, /* still going */
    LORE_FINISH_STOP,     /* end-of-text token or stop string */
    LORE_FINISH_LENGTH,   /* max_tokens or the context */
    LORE_FINISH_CANCELLED,
    LORE_FINISH_ERROR
} lore_finish;
/* "stop", "length", "cancelled", "error"; "none" while still going. */
const char *lore_finish_name(lore_finish finish);

typedef struct lore_token_event {
    int32_t id;
    float logprob;
    const lore_likely *tops; /* most probable first, as many as asked for, for as long as the
                             consumer's reference; NULL: none were, or the event carries no token */
    lore_finish finish;      /* not NONE: the last event; id is -1 when it carries no token */
    /* Last event only: a stop string began inside this token. So many bytes at the end of the text
     * that lore_detok_push has given for all tokens, this one included, are not of the answer; nor
     * are, where finish is STOP, bytes that wait in the consumer's lore_detok for more. */
    int32_t cut_bytes;
    int32_t cached_tokens; /* of the prompt, that were not computed again; the same in all events
                              but those of an answer that never began: 0 */
} lore_token_event;

/* ---- engine side ---- */

/* Room for tokens_max tokens (at least 0), `tops` most probable ones beside each, and a last event
 * without a token. Comes with two references, one a side. NULL: out of memory. */
lore_stream *lore_stream_new(int32_t tokens_max, int32_t tops);
/* [tokens_max, tops], for the engine to fill: what lies beside a token is written before its event
 * is pushed. */
lore_likely *lore_stream_tops(lore_stream *stream);
/* At most tokens_max events and one more, nothing after the one that ends the answer (asserted). */
void lore_stream_push(lore_stream *stream, lore_token_event event);
/* Why the answer ends in LORE_FINISH_ERROR, where there is a reason that is only this request's.
 * Before the last event. */
void lore_stream_set_error(lore_stream *stream, const lore_error *error);
/* Streams whose consumers are to be woken, first come first. Zeroed: none. A stream in it cannot
 * go, whoever releases it. */
typedef struct lore_stream_list {
    lore_stream *first, *last;
} lore_stream_list;
/* lore_stream_push for an engine that has no time to wake anybody: where the consumer sleeps, the
 * stream is put into the list, unless it is still in one. */
void lore_stream_push_later(lore_stream *stream, lore_token_event event, lore_stream_list *list);
/* The one list behind the other; `from` is empty then. */
void lore_stream_list_join(lore_stream_list *list, lore_stream_list *from);
/* From any thread, which alone has the list; it is empty then. */
void lore_stream_list_wake(lore_stream_list *list);
/* True once the consumer has cancelled, or has released its reference: then nobody is listening. */
bool lore_stream_is_cancelled(const lore_stream *stream);

/* ---- consumer side ---- */

/* LORE_OK, LORE_ERR_TIMEOUT at the deadline (0: none), LORE_ERR_CANCELLED after the last event was
 * taken. */
LORE_MUST_USE lore_status lore_stream_next(lore_stream *stream, int64_t deadline_ns,
                                           lore_token_event *event);
/* Once the last event was taken: what lore_stream_set_error said, for as long as the consumer's
 * reference; NULL: nothing. */
const lore_error *lore_stream_error(const lore_stream *stream);
/* The engine notices within one step and still sends a last event. May be called from any thread
 * that knows the consumer's reference to be held, and more than once. */
void lore_stream_cancel(lore_stream *stream);

/* ---- both ---- */

/* Give up one reference. NULL is fine. */
void lore_stream_release(lore_stream *stream);

#endif
