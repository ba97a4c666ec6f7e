/* The scheduler: state and arrivals in, one filled step out. Pure: no clock, no lock, no device.
 *
 * Continuous batching: each plan mixes the next token of every running sequence with pieces of
 * prompts, within rows_max and sequences_max. Decode rows go first; what is left of the row budget
 * goes to prompts in order of arrival, beside running answers no more of it than
 * lore_sched_limit_pieces allows, so that a long prompt does not stall them. A
 * sequence is admitted only when its prompt and one more page fit, and starts behind the pages of
 * its first tokens that somebody with the same salt computed before it; when pages run out while
 * decoding, the youngest sequence is preempted (its pages dropped, its tokens kept, it is prefilled
 * again later). The oldest is never preempted, so it always finishes: no livelock. States: waiting
 * -> prefilling -> running -> finished; preempted goes back to waiting, at the front.
 * Nothing is allocated after lore_sched_new. Thread: the engine's alone. */
#ifndef LORE_GENERATION_SCHED_H
#define LORE_GENERATION_SCHED_H

#include "generation/kv.h"
#include "generation/stream.h"
#include "models/decoder.h"

/* How tokens are drawn. In a lore_generation (engine.h) 0 leaves top_p, top_k and
 * repetition_penalty to the model's folder. */
typedef struct lore_sampling {
    float temperature; /* 0: greedy */
    float top_p;       /* 1: off */
    int32_t top_k;     /* 0: off */
    uint64_t seed;
    float repetition_penalty; /* of tokens of the prompt and the answer; 0, 1: off */
    float min_p;              /* 0: off */
    float presence_penalty, frequency_penalty; /* of tokens of the answer alone; 0: off */
    const lore_bias *biases;                   /* [bias_count], added to logits of as many tokens */
    int32_t bias_count;
    int32_t tops; /* most probable tokens reported beside each drawn one, 0..LORE_TOPS_MAX; their
                     log probabilities are those behind biases and penalties, as the drawn one's */
} lore_sampling;

typedef struct lore_sequence_request {
    /* The prompt, followed by room for tokens_max more ids, which the scheduler fills. Lent to it
     * until the sequence is reported as finished: a preempted sequence is computed again from here,
     * and so adding one needs no memory and cannot fail for lack of it. */
    int32_t *tokens;
    int32_t prompt_count;   /* 1..context - 1 */
    int32_t tokens_max;     /* new tokens, at least 1; fewer where the context ends first */
    lore_sampling sampling; /* its biases are lent as long as tokens */
    lore_likely *tops;      /* [tokens_max, sampling.tops], filled and lent as tokens are */
    uint64_t salt;          /* pages are shared only with sequences of the same one */
    uint64_t adapter;       /* and of the same adapter: the serial of its values; 0: none */
    int32_t adapter_slot;   /* of the decoder, that has it until the sequence is out of all steps */
    /* Not NULL: receives, before the first token is reported, how many tokens of the prompt were
     * found computed. Lent as long as tokens. */
    int32_t *cached_tokens;
    void *owner; /* handed back in results */
} lore_sequence_request;

typedef struct lore_sched lore_sched;
typedef struct lore_sched_options {
    int32_t rows_max, sequences_max, waiting_max, context;
    int32_t page_tokens, page_count;
    const int32_t *eos_ids; /* copied */
    int32_t eos_count;
    int32_t steps_in_flight; /* that may be planned and not applied; 0, 1: one, 2 at most */
    int32_t turn_tokens; /* a sequence that grows beyond so many tokens is computed again from its
                        first (lore_decoder_info); 0: none is */
} lore_sched_options;

/* Fails: LORE_ERR_INVALID (a bound below 1), LORE_ERR_LIMIT (page lists of more than 2^31 entries),
 * LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_sched_new(const lore_sched_options *options, lore_sched **sched,
                                         lore_error *err);
void lore_sched_free(lore_sched *sched);
/* Could such a sequence ever run? LORE_ERR_LIMIT when it can never fit the context or the pages,
 * LORE_ERR_INVALID for counts below 1. Looks only at what never changes, so any thread may ask. */
LORE_MUST_USE lore_status lore_sched_check(const lore_sched *sched, int32_t prompt_count,
                                           int32_t tokens_max, lore_error *err);
/* LORE_ERR_BUSY: waiting_max reached. LORE_ERR_LIMIT, LORE_ERR_INVALID: as lore_sched_check.
 * *ticket names the sequence until it is finished. */
LORE_MUST_USE lore_status lore_sched_add(lore_sched *sched, const lore_sequence_request *request,
                                         int32_t *ticket, lore_error *err);
/* Its pages are free before the next plan, or when the last step in flight with rows of it has been
 * applied; the next apply reports it, and gives it no more token, even when a step is under way.
 * Cancelling twice is fine. */
void lore_sched_cancel(lore_sched *sched, int32_t ticket);
/* Beside running sequences a step holds at most so many rows of prompts, at least 1; rows_max until
 * this is called. Steps that nobody waits for take what fits. */
void lore_sched_limit_pieces(lore_sched *sched, int32_t rows);
/* Pages kept for prompts that begin alike, as lore_kv_limit_cached; all until this is called. */
void lore_sched_limit_cached(lore_sched *sched, int32_t pages);
/* One more token, beside those of the options, that ends every sequence. Once at most. */
void lore_sched_end_at(lore_sched *sched, int32_t id);
/* Fill a step (its arrays live in the scheduler until it has been applied). rows 0: nothing to
 * compute, but apply may still have cancelled sequences to report.
 *
 * With steps_in_flight 2 a step may be planned while the one before it is not applied. What that
 * one will draw stands in it as LORE_ID_DRAWN. Who ends there (end of text, stop string, length,
 * cancel) has a row in this one for nothing, and keeps its pages until this one has been applied.
 * Sequences with penalties or biases, which are drawn as the host's knowledge of the last token
 * says, and those at their last token or their turn are in every other step only; nobody is
 * preempted whose rows are in flight: who finds no page is left out until then, with all that came
 * after it. */
const lore_step *lore_sched_plan(lore_sched *sched);
/* Take the drawn ids of the oldest step that is not applied. Calls token(self, owner, ticket, id,
 * logprob, finish) for each sequence that got one; return true from it to end the sequence there
 * (stop string); cancelled ones are reported with finish CANCELLED and id -1. finish STOP: id is an
 * end-of-text token. The callback must not call the scheduler. */
typedef bool (*lore_sched_token)(void *self, void *owner, int32_t ticket, int32_t id, float logprob,
                                 lore_finish finish);
void lore_sched_apply(lore_sched *sched, const int32_t *ids, const float *logprobs,
                      lore_sched_token token, void *self);
/* End everything (device failure, shutdown), in place of apply where steps were planned: reports
 * each live sequence once with `finish` and id -1, and forgets what is in the pages. */
void lore_sched_abort(lore_sched *sched, lore_finish finish, lore_sched_token token, void *self);

typedef struct lore_sched_stats {
    int32_t waiting, running;
    int32_t
        pages_free; /* held by no sequence; of these, pages_cached can be found by their tokens */
    int32_t pages_cached, pages_total;
    int64_t preemptions, evictions, prompt_tokens, cached_tokens, generated_tokens, steps;
} lore_sched_stats;
/* running counts every admitted sequence, prefilling ones too. prompt_tokens counts a prompt once,
 * with its first drawn token, however often it was computed; of these, cached_tokens were found
 * when it was admitted for the first time. evictions: cached pages that made room. */
void lore_sched_get_stats(const lore_sched *sched, lore_sched_stats *stats);

#endif
