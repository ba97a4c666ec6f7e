/* Continuous batching over paged keys and values.
 *
 * The whole state of the queue is one list: `order` holds the live sequences in order of arrival,
 * and the first `admitted` of them hold pages. Everything else follows from that line. Admitting
 * moves it one to the right, preempting the youngest moves it one to the left, and a preempted
 * sequence thereby stands at the front of those waiting without being moved at all.
 *
 * States and who makes each transition
 *   waiting      order index >= admitted, no slot            lore_sched_add, preempt_youngest
 *   prefilling   order index < admitted, pending > 1         admit
 *   running      order index < admitted, pending = 1         lore_sched_apply (past grows; back to
 *                                                            prefilling at turn_tokens)
 *   cancelled    in `cancelled`, not in order                lore_sched_sweep
 *   leaving      not in order, in_flight > 0: keeps its slot remove_from_order
 *   free         on free_tickets                             retire, land
 * where pending = count + awaited - past: the tokens whose keys and values are not in the pages yet
 * and in no step in flight. Planning moves past on; what it draws is awaited until it is applied.
 *
 * Invariants
 * 1. A live sequence is in exactly one of `order` and `cancelled`; a ticket is live, leaving or
 *    free.
 * 2. Exactly the admitted and the leaving sequences hold a slot of the page table; the others hold
 *    no page.
 * 3. 0 <= past < count + awaited <= total_max and count < total_max for every live sequence outside
 *    lore_sched_apply: at least one token is pending, and at least one more may be drawn. Of the
 *    pending tokens of a plan at most one of each sequence is unknown, drawn by the step before.
 * 4. admitted <= min(sequences_max, rows_max): every running sequence that need not wait gets its
 *    row in every step, and while some sequence is prefilling, a row is left for it, also under
 *    piece_rows_max >= 1.
 * 5. The pages of one sequence alone suffice for its longest form (lore_sched_check), so order[0]
 *    can always be given what it needs by preempting all others: it advances in every step (in one
 *    of three, where two are in flight), is never preempted, and ends. Hence nobody starves and no
 *    two sequences can throw each other out for ever.
 * 6. A sequence planned into a step keeps its pages until that step has been applied: rows are
 *    planned oldest first, only sequences younger than the one in hand are preempted, and none that
 *    is in flight; one that ends is leaving until then.
 * 7. Rows are written behind what is published: a sequence enters with past at the end of the full
 *    pages it found, and publishes its own when the step that filled them has been applied.
 * 8. Position p of a sequence is computed from tokens[p] at every computation, and token number n
 *    is drawn with position n: recomputation after a preemption repeats the same inputs. */
#include "generation/sched_int.h"

#include <string.h>

/* ---- creation ---- */

void lore_sched_free(lore_sched *sched)
{
    if (sched == NULL) {
        return;
    }
    lore_kv_free(sched->kv);
    lore_arena_destroy(&sched->arena);
    lore_free(sched);
}

/* Pages that one sequence holds at most. */
static int32_t pages_of_one(const lore_sched_options *options)
{
    int32_t pages = lore_kv_pages_for(options->context, options->page_tokens);
    return pages < options->page_count ? pages : options->page_count;
}

/* False: out of memory. */
static bool push_step(lore_sched *sched, lore_step_arrays *fill)
{
    lore_arena *arena = &sched->arena;
    const lore_sched_options *options = &sched->options;
    const int32_t batch = sched->admitted_max;
    fill->ids = LORE_PUSH(arena, int32_t, options->rows_max);
    fill->row_start = LORE_PUSH(arena, int32_t, batch + 1);
    fill->past = LORE_PUSH(arena, int32_t, batch);
    fill->page_start = LORE_PUSH(arena, int32_t, batch + 1);
    fill->pages = LORE_PUSH(arena, int32_t, (size_t)batch * (size_t)pages_of_one(options));
    fill->logits_rows = LORE_PUSH(arena, int32_t, batch);
    fill->samples = LORE_PUSH(arena, lore_sample, batch);
    fill->penalties = LORE_PUSH(arena, lore_penalty, batch);
    fill->tops = LORE_PUSH(arena, lore_likely, (int64_t)batch * LORE_TOPS_MAX);
    fill->lengths = LORE_PUSH(arena, int32_t, batch);
    fill->adapters = LORE_PUSH(arena, int32_t, batch);
    fill->tickets = LORE_PUSH(arena, int32_t, batch);
    return fill->ids != NULL && fill->row_start != NULL && fill->past != NULL &&
           fill->page_start != NULL && fill->pages != NULL && fill->logits_rows != NULL &&
           fill->samples != NULL && fill->penalties != NULL && fill->tops != NULL &&
           fill->lengths != NULL && fill->adapters != NULL && fill->tickets != NULL;
}

static bool push_arrays(lore_sched *sched)
{
    lore_arena *arena = &sched->arena;
    const int32_t cap = sched->sequence_cap;
    sched->sequences = LORE_PUSH(arena, lore_sequence, cap);
    sched->free_tickets = LORE_PUSH(arena, int32_t, cap);
    sched->order = LORE_PUSH(arena, int32_t, cap);
    sched->cancelled = LORE_PUSH(arena, int32_t, cap);
    sched->free_slots = LORE_PUSH(arena, int32_t, sched->slot_count);
    bool is_done = sched->sequences != NULL && sched->free_tickets != NULL &&
                   sched->order != NULL && sched->cancelled != NULL && sched->free_slots != NULL;
    for (int32_t i = 0; i < sched->options.steps_in_flight && is_done; i++) {
        is_done = push_step(sched, &sched->planned[i].fill);
    }
    return is_done;
}

static void fill_free_lists(lore_sched *sched)
{
    for (int32_t i = sched->sequence_cap - 1; i >= 0; i--) {
        sched->free_tickets[sched->free_ticket_count++] = i;
    }
    for (int32_t i = sched->slot_count - 1; i >= 0; i--) {
        sched->free_slots[sched->free_slot_count++] = i;
    }
}

lore_status lore_sched_new(const lore_sched_options *options, lore_sched **sched_out,
                           lore_error *err)
{
    if (options->rows_max < 1 || options->sequences_max < 1 || options->waiting_max < 1 ||
        options->context < 2 || options->sequences_max > INT32_MAX / 4 ||
        options->waiting_max > INT32_MAX / 4 || options->steps_in_flight < 0 ||
        options->steps_in_flight > LORE_SCHED_FLIGHT_MAX) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "cannot schedule %d rows, %d sequences and %d waiting requests in a "
                         "context of %d tokens, %d steps at once",
                         options->rows_max, options->sequences_max, options->waiting_max,
                         options->context, options->steps_in_flight);
    }
    if (options->eos_count < 0 || options->eos_count > LORE_SCHED_EOS_MAX) {
        return lore_fail(err, LORE_ERR_INVALID, "%d end-of-text tokens, at most %d are possible",
                         options->eos_count, (int)LORE_SCHED_EOS_MAX);
    }
    lore_sched *sched = lore_alloc_zero(1, sizeof *sched);
    if (sched == NULL) {
        return lore_fail(err, LORE_ERR_NOMEM, "out of memory for the scheduler");
    }
    sched->options = *options;
    for (int32_t i = 0; i < options->eos_count; i++) {
        sched->eos_ids[i] = options->eos_ids[i];
    }
    sched->options.eos_ids = sched->eos_ids;
    sched->piece_rows_max = options->rows_max;
    sched->admitted_max =
        options->sequences_max < options->rows_max ? options->sequences_max : options->rows_max;
    if (sched->options.steps_in_flight == 0) {
        sched->options.steps_in_flight = 1;
    }
    /* What has ended keeps slot and ticket while a second step in flight has rows of it. */
    int32_t leaving = sched->admitted_max * (sched->options.steps_in_flight - 1);
    sched->slot_count = sched->admitted_max + leaving;
    sched->sequence_cap = options->sequences_max + options->waiting_max + leaving;
    lore_arena_init(&sched->arena, 0);
    lore_status status = lore_kv_new(options->page_count, options->page_tokens, sched->slot_count,
                                     options->context, &sched->kv, err);
    if (status == LORE_OK && (int64_t)sched->admitted_max * pages_of_one(options) > INT32_MAX) {
        status = lore_fail(err, LORE_ERR_LIMIT, "%d sequences of %d pages each are too many",
                           sched->admitted_max, pages_of_one(options));
    }
    if (status == LORE_OK && !push_arrays(sched)) {
        status = lore_fail(err, LORE_ERR_NOMEM, "out of memory for the scheduler");
    }
    if (status != LORE_OK) {
        lore_sched_free(sched);
        return status;
    }
    fill_free_lists(sched);
    *sched_out = sched;
    return LORE_OK;
}

/* ---- arrivals and departures ---- */

/* Known tokens when such a sequence ends at the latest. */
static int32_t total_of(const lore_sched *sched, int32_t prompt_count, int32_t tokens_max)
{
    int32_t room = sched->options.context - prompt_count;
    return prompt_count + (tokens_max < room ? tokens_max : room);
}

lore_status lore_sched_check(const lore_sched *sched, int32_t prompt_count, int32_t tokens_max,
                             lore_error *err)
{
    const lore_sched_options *options = &sched->options;
    if (prompt_count < 1 || tokens_max < 1) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "a prompt of %d tokens and an answer of %d: both must be at least 1",
                         prompt_count, tokens_max);
    }
    if (prompt_count > options->context - 1) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "the prompt has %d tokens, the model's context of %d takes at most %d",
                         prompt_count, options->context, options->context - 1);
    }
    /* The last token is drawn but never fed, so it needs no place. */
    int32_t places = total_of(sched, prompt_count, tokens_max) - 1;
    if (lore_kv_pages_for(places, options->page_tokens) > options->page_count) {
        return lore_fail(err, LORE_ERR_LIMIT,
                         "the prompt of %d tokens and its answer need room for %d tokens, all "
                         "key/value pages together hold %lld",
                         prompt_count, places,
                         (long long)options->page_count * (long long)options->page_tokens);
    }
    return LORE_OK;
}

static bool is_steered(const lore_sampling *sampling)
{
    return (sampling->repetition_penalty != 0 && sampling->repetition_penalty != 1) ||
           sampling->presence_penalty != 0 || sampling->frequency_penalty != 0 ||
           sampling->bias_count > 0;
}

lore_status lore_sched_add(lore_sched *sched, const lore_sequence_request *request, int32_t *ticket,
                           lore_error *err)
{
    lore_status status = lore_sched_check(sched, request->prompt_count, request->tokens_max, err);
    if (status != LORE_OK) {
        return status;
    }
    if (sched->order_count - sched->admitted >= sched->options.waiting_max ||
        sched->free_ticket_count == 0) {
        return lore_fail(err, LORE_ERR_BUSY, "%d requests are waiting already",
                         sched->order_count - sched->admitted);
    }
    *ticket = sched->free_tickets[--sched->free_ticket_count];
    sched->sequences[*ticket] = (lore_sequence){
        .tokens = request->tokens,
        .prompt_count = request->prompt_count,
        .count = request->prompt_count,
        .total_max = total_of(sched, request->prompt_count, request->tokens_max),
        .slot = -1,
        .cached = -1,
        .is_live = true,
        .is_listed = true,
        .is_steered = is_steered(&request->sampling),
        .sampling = request->sampling,
        .tops = request->tops,
        .salt = request->salt,
        .adapter = request->adapter,
        .adapter_slot = request->adapter != 0 ? request->adapter_slot : -1,
        .cached_tokens = request->cached_tokens,
        .owner = request->owner,
    };
    sched->order[sched->order_count++] = *ticket;
    return LORE_OK;
}

/* A text beyond turn_tokens is computed otherwise from its first token on, and finds only pages of
 * such texts. */
void lore_sched_enter(lore_sched *sched, lore_sequence *seq)
{
    const int32_t turn = sched->options.turn_tokens;
    const lore_kv_scope scope = {
        .salt = seq->salt, .form = turn > 0 && seq->count > turn, .adapter = seq->adapter};
    seq->past = lore_kv_adopt(sched->kv, seq->slot, scope, seq->tokens, seq->count);
}

void lore_sched_leave(lore_sched *sched, lore_sequence *seq)
{
    lore_kv_drop(sched->kv, seq->slot);
    sched->free_slots[sched->free_slot_count++] = seq->slot;
    seq->slot = -1;
    seq->past = 0;
}

/* What steps in flight still read and write stays until they have been applied. */
static void remove_from_order(lore_sched *sched, int32_t ticket)
{
    lore_sequence *seq = &sched->sequences[ticket];
    int32_t at = 0;
    while (sched->order[at] != ticket) {
        at++;
        LORE_ASSERT(at < sched->order_count);
    }
    if (at < sched->admitted) {
        sched->admitted--;
        if (seq->in_flight == 0) {
            lore_sched_leave(sched, seq);
        } else {
            sched->leaving_count++;
        }
    }
    seq->is_listed = false;
    sched->order_count--;
    memmove(sched->order + at, sched->order + at + 1,
            (size_t)(sched->order_count - at) * sizeof(int32_t));
}

/* The end of a sequence is reported. Once no step in flight has rows of it, its ticket may name
 * another one. */
static void retire(lore_sched *sched, int32_t ticket)
{
    lore_sequence *seq = &sched->sequences[ticket];
    seq->is_live = false;
    seq->is_reported = true;
    if (seq->in_flight == 0) {
        *seq = (lore_sequence){.slot = -1};
        sched->free_tickets[sched->free_ticket_count++] = ticket;
    }
}

/* A step with rows of the sequence is over. False: the sequence was before it, and goes now. */
static bool land(lore_sched *sched, int32_t ticket)
{
    lore_sequence *seq = &sched->sequences[ticket];
    LORE_ASSERT(seq->in_flight > 0);
    seq->in_flight--;
    if (seq->is_listed) {
        return true;
    }
    if (seq->in_flight == 0) {
        sched->leaving_count--;
        lore_sched_leave(sched, seq);
        if (seq->is_reported) {
            retire(sched, ticket);
        }
    }
    return false;
}

void lore_sched_cancel(lore_sched *sched, int32_t ticket)
{
    LORE_ASSERT(ticket >= 0);
    LORE_ASSERT(ticket < sched->sequence_cap);
    LORE_ASSERT(sched->sequences[ticket].is_live);
    /* Only marked: a step in flight may still write to its pages. */
    sched->sequences[ticket].is_cancelled = true;
}

void lore_sched_sweep(lore_sched *sched)
{
    for (int32_t i = 0; i < sched->order_count;) {
        int32_t ticket = sched->order[i];
        if (sched->sequences[ticket].is_cancelled) {
            remove_from_order(sched, ticket);
            sched->cancelled[sched->cancelled_count++] = ticket;
        } else {
            i++;
        }
    }
}

static void report_cancelled(lore_sched *sched, lore_sched_token token, void *self)
{
    while (sched->cancelled_count > 0) {
        int32_t ticket = sched->cancelled[--sched->cancelled_count];
        void *owner = sched->sequences[ticket].owner;
        retire(sched, ticket);
        (void)token(self, owner, ticket, -1, 0.0f, LORE_FINISH_CANCELLED);
    }
}

/* ---- results ---- */

void lore_sched_end_at(lore_sched *sched, int32_t id)
{
    LORE_ASSERT(sched->options.eos_count <= LORE_SCHED_EOS_MAX);
    sched->eos_ids[sched->options.eos_count++] = id;
}

static bool is_eos(const lore_sched *sched, int32_t id)
{
    for (int32_t i = 0; i < sched->options.eos_count; i++) {
        if (sched->eos_ids[i] == id) {
            return true;
        }
    }
    return false;
}

/* One drawn token: remember it, report it, and end the sequence where it ends. With turn_tokens 0
 * no count is the turn: a sequence has a prompt. */
static void take_token(lore_sched *sched, int32_t ticket, int32_t id, float logprob,
                       const lore_likely *tops, lore_sched_token token, void *self)
{
    lore_sequence *seq = &sched->sequences[ticket];
    if (seq->count == seq->prompt_count) {
        sched->stats.prompt_tokens += seq->prompt_count;
        sched->stats.cached_tokens += seq->cached;
    }
    sched->stats.generated_tokens++;
    if (seq->sampling.tops > 0) {
        const size_t wanted = (size_t)seq->sampling.tops;
        memcpy(seq->tops + (size_t)(seq->count - seq->prompt_count) * wanted, tops,
               wanted * sizeof *tops);
    }
    seq->tokens[seq->count++] = id;
    lore_finish finish = is_eos(sched, id)              ? LORE_FINISH_STOP
                         : seq->count == seq->total_max ? LORE_FINISH_LENGTH
                                                        : LORE_FINISH_NONE;
    if (token(self, seq->owner, ticket, id, logprob, finish) || finish != LORE_FINISH_NONE) {
        remove_from_order(sched, ticket);
        retire(sched, ticket);
    } else if (seq->count - 1 == sched->options.turn_tokens) {
        lore_kv_drop(sched->kv, seq->slot); /* what is published in them stays true of others */
        lore_sched_enter(sched, seq);
    }
}

/* The oldest step that was planned and not applied; NULL: there is none. */
static const lore_planned *end_step(lore_sched *sched)
{
    if (sched->planned_count == 0) {
        return NULL;
    }
    const lore_planned *planned = &sched->planned[sched->planned_first];
    sched->planned_first = (sched->planned_first + 1) % sched->options.steps_in_flight;
    sched->planned_count--;
    return planned;
}

void lore_sched_apply(lore_sched *sched, const int32_t *ids, const float *logprobs,
                      lore_sched_token token, void *self)
{
    const lore_planned *planned = end_step(sched);
    int32_t draw = 0;
    sched->stats.steps += planned != NULL;
    for (int32_t i = 0; planned != NULL && i < planned->step.batch.sequences; i++) {
        const lore_step_arrays *fill = &planned->fill;
        const int32_t ticket = fill->tickets[i], end = fill->row_start[i + 1];
        lore_sequence *seq = &sched->sequences[ticket];
        const bool is_drawn =
            draw < planned->step.logits_count && fill->logits_rows[draw] == end - 1;
        const int32_t at = draw;
        draw += is_drawn;
        if (!land(sched, ticket)) {
            continue; /* it ended in the step before, when this one was planned already */
        }
        lore_kv_publish(sched->kv, seq->slot, seq->tokens,
                        fill->past[i] + end - fill->row_start[i]);
        seq->awaited -= is_drawn;
        if (is_drawn && !seq->is_cancelled) {
            take_token(sched, ticket, ids[at], logprobs[at],
                       fill->tops + (size_t)at * LORE_TOPS_MAX, token, self);
        }
    }
    lore_sched_sweep(sched);
    report_cancelled(sched, token, self);
}

void lore_sched_abort(lore_sched *sched, lore_finish finish, lore_sched_token token, void *self)
{
    for (const lore_planned *planned = end_step(sched); planned != NULL;
         planned = end_step(sched)) {
        for (int32_t i = 0; i < planned->step.batch.sequences; i++) {
            (void)land(sched, planned->fill.tickets[i]);
        }
    }
    lore_sched_sweep(sched);
    report_cancelled(sched, token, self);
    while (sched->order_count > 0) {
        int32_t ticket = sched->order[0];
        void *owner = sched->sequences[ticket].owner;
        remove_from_order(sched, ticket);
        retire(sched, ticket);
        (void)token(self, owner, ticket, -1, 0.0f, finish);
    }
    lore_kv_forget(sched->kv); /* a step that failed may have written anything anywhere */
}

void lore_sched_get_stats(const lore_sched *sched, lore_sched_stats *stats)
{
    *stats = sched->stats;
    stats->waiting = sched->order_count - sched->admitted;
    stats->running = sched->admitted;
    lore_kv_stats pages;
    lore_kv_get_stats(sched->kv, &pages);
    stats->pages_free = pages.free;
    stats->pages_cached = pages.cached;
    stats->pages_total = pages.total;
    stats->evictions = pages.evictions;
}

void lore_sched_limit_cached(lore_sched *sched, int32_t pages)
{
    lore_kv_limit_cached(sched->kv, pages);
}
