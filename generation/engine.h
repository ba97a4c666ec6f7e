/* The one thread that owns the decoder, its pages and its scheduler.
 *
 * Requests come through a bounded channel (too many: LORE_ERR_BUSY at once), answers leave through
 * streams. Stop strings are judged here, on detokenised text, so one owner knows why a sequence
 * ended; tokens after the match are not sent, and tokens that hold the start of a possible match
 * are held back until it is decided. Thread: submit from any; start/stop from the owner. */
#ifndef LORE_GENERATION_ENGINE_H
#define LORE_GENERATION_ENGINE_H

#include "generation/adapters.h"
#include "generation/sched.h"

typedef struct lore_engine lore_engine;

/* What config->kv_dtype means on this backend. bf16 pages halve what attention reads and what a
 * sequence occupies; "auto" takes them everywhere but on `ref`, with which results are compared. */
LORE_MUST_USE lore_status lore_engine_kv_dtype(const lore_config *config,
                                               const lore_backend *backend, lore_dtype *dtype,
                                               lore_error *err);
/* Opens the decoder of folder on backend (borrowed until stop) and starts the thread. Fails: as
 * lore_decoder_open, LORE_ERR_INVALID for a limit that makes no sense, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_engine_start(const char *folder, lore_backend *backend,
                                            const lore_config *config, lore_engine **engine,
                                            lore_error *err);
/* One more token that ends every answer (the chat template's end of a turn, which not every model
 * lists); -1 changes nothing. Before the first submit. */
void lore_engine_end_at(lore_engine *engine, int32_t id);
/* Refuses new work, lets accepted sequences finish until the deadline (0: none), cancels the rest,
 * joins, closes. Returns at most two steps after the deadline. Every stream gets its last event.
 * Nobody may be inside another function of the engine any more when this returns. Accepts NULL. */
void lore_engine_stop(lore_engine *engine, int64_t deadline_ns);

typedef struct lore_generation {
    const int32_t *prompt; /* copied by submit */
    int32_t prompt_count;
    int32_t tokens_max;     /* of the answer; fewer where the context ends first */
    lore_sampling sampling; /* its biases are copied */
    const lore_str *stop;   /* copied */
    int32_t stop_count;
    /* Whom it is asked for. Keys and values of a prompt's beginning are computed once for all
     * requests of equal salt, and the time to the first token shows whether they were there:
     * whoever must not learn what others ask needs another salt. Different adapters share nothing
     * in any case. */
    uint64_t salt;
    lore_str adapter; /* a name; empty: the base. Its load begins with the submit */
} lore_generation;

/* Until its adapter is in memory a request waits beside the scheduler, in nobody's way; where the
 * load fails, the stream ends in LORE_FINISH_ERROR and lore_stream_error says why. Never does the
 * base answer for an adapter.
 *
 * LORE_ERR_BUSY (limits.queue_requests_max are waiting while all places of the batch are taken),
 * LORE_ERR_LIMIT (prompt, answer or stop strings too long, too many biases: the message has both
 * numbers),
 * LORE_ERR_INVALID (an id outside the vocabulary, a sampling parameter out of its range),
 * LORE_ERR_NOT_FOUND (the adapter; or as its load failed a moment ago), LORE_ERR_CANCELLED
 * (stopping), LORE_ERR_NOMEM. The caller releases the stream.
 *
 * The same seed gives the same answer always on `ref`; on other backends only as far as the step's
 * shape does not change rounding. */
LORE_MUST_USE lore_status lore_engine_submit(lore_engine *engine, const lore_generation *generation,
                                             lore_stream **stream, lore_error *err);

const lore_decoder_info *lore_engine_info(const lore_engine *engine);
const lore_tokenizer *lore_engine_tokenizer(const lore_engine *engine);
/* Any thread. waiting counts requests that wait for their adapter, too. */
void lore_engine_get_stats(lore_engine *engine, lore_sched_stats *stats);
/* NULL: limits.adapters_max is 0. */
lore_adapters *lore_engine_adapters(const lore_engine *engine);
/* What a client's `model`, `adapter` or `adapter_id` means: *adapter is empty for the base (its
 * name, or nothing), else the name, of an adapter that there is. is_wanted: a submit will follow,
 * so that the load may begin. LORE_ERR_NOT_FOUND, as for any name where engine is NULL. */
LORE_MUST_USE lore_status lore_engine_choose(const lore_engine *engine, lore_str name,
                                             bool is_wanted, lore_str *adapter, lore_error *err);

#endif
