/* Continuous batching over paged keys and values.
 *
 * The whole state of the queue is one list: `order` holds the live sequences in order of arrival,
 * and the first `admitted` of them own pages. Everything else follows from that line. Admitting
 * moves it one to the right, preempting the youngest moves it one to the left, and a preempted
 * sequence thereby stands at the front of those waiting without being moved at all.
 *
 * States and who makes each transition
 *   waiting      order index >= admitted, no slot            lore_sched_add, preempt_youngest
 *   prefilling   order index < admitted, pending > 1         admit
 *   running      order index < admitted, pending = 1         lore_sched_apply (past grows; back to
 *                                                            prefilling at turn_tokens)
 *   cancelled    in `cancelled`, no slot, not in order       sweep_cancelled
 *   free         on free_tickets                             retire
 * where pending = count - past: the known tokens whose keys and values are not in the pages yet.
 *
 * Invariants
 * 1. A live sequence is in exactly one of `order` and `cancelled`; a ticket is live or free.
 * 2. Exactly the admitted sequences hold a slot of the page table; the others own no page.
 * 3. 0 <= past < count < total_max for every live sequence outside lore_sched_apply: at least one
 *    token is pending, and at least one more may be drawn.
 * 4. admitted <= min(sequences_max, rows_max): every running sequence gets its row in every step,
 * and while some sequence is prefilling, a row is left for it, also under piece_rows_max >= 1.
 * 5. The pages of one sequence alone suffice for its longest form (lore_sched_check), so order[0]
 * can always be given what it needs by preempting all others: it advances in every step, is never
 *    preempted, and ends after at most as many steps as it has tokens. Hence nobody starves and no
 *    two sequences can throw each other out for ever.
 * 6. A sequence planned into a step keeps its pages until that step has been applied: rows are
 *    planned oldest first, and only sequences younger than the one in hand are preempted.
 * 7. Position p of a sequence is computed from tokens[p] at every computation, and token number n
 * is drawn with position n: recomputation after a preemption repeats the same inputs. */
#include "generation/sched.h"

#include "base/mem.h"

#include <string.h>

enum { EOS_IDS_MAX = 8 };

typedef struct sequence {
    int32_t *tokens; /* lent: prompt, then what was drawn */
    int32_t prompt_count;
    int32_t count;     /* known tokens */
    int32_t total_max; /* known tokens when it ends at the latest */
    int32_t past;      /* tokens whose keys and values are in the pages */
    int32_t slot;      /* of the page table, -1: none */
    bool is_live, is_cancelled;
    lore_sampling sampling;
    void *owner;
} sequence;

/* The step under construction. The arrays are sized for the largest step and lore_step points to
 * them, const, for the decoder. */
typedef struct step_arrays {
    int32_t *ids;            /* [rows_max] */
    int32_t *row_start;      /* [sequences_max + 1] */
    int32_t *past;           /* [sequences_max] */
    int32_t *page_start;     /* [sequences_max + 1] */
    int32_t *pages;          /* [page_count]: no page is in two lists */
    int32_t *logits_rows;    /* [sequences_max] */
    lore_sample *samples;    /* [sequences_max] */
    lore_penalty *penalties; /* [sequences_max] */
    int32_t *lengths;        /* [sequences_max] */
    int32_t *tickets;        /* [sequences_max] whose rows they are */
} step_arrays;

struct lore_sched {
    lore_sched_options options;       /* eos_ids points to eos_ids below */
    int32_t eos_ids[EOS_IDS_MAX + 1]; /* one may come from lore_sched_end_at */
    lore_arena arena;                 /* all arrays of this struct */
    lore_kv *kv;

    sequence *sequences; /* [sequence_cap], indexed by ticket */
    int32_t sequence_cap;
    int32_t *free_tickets;
    int32_t free_ticket_count;
    int32_t *free_slots;
    int32_t free_slot_count;

    int32_t *order; /* tickets by arrival */
    int32_t order_count;
    int32_t admitted; /* the first so many of order own pages */
    int32_t admitted_max;
    int32_t *cancelled; /* tickets to be reported by the next apply */
    int32_t cancelled_count;

    step_arrays fill;
    lore_step step;
    int32_t step_rows_max;  /* of the step under construction */
    int32_t piece_rows_max; /* rows of prompts beside running sequences */
    bool is_planned;        /* a step with rows is out and not applied yet */
    lore_sched_stats stats;
};

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

static bool push_arrays(lore_sched *sched)
{
    lore_arena *arena = &sched->arena;
    const lore_sched_options *options = &sched->options;
    int32_t cap = sched->sequence_cap, batch = sched->admitted_max;
    step_arrays *fill = &sched->fill;
    sched->sequences = LORE_PUSH(arena, sequence, cap);
    sched->free_tickets = LORE_PUSH(arena, int32_t, cap);
    sched->order = LORE_PUSH(arena, int32_t, cap);
    sched->cancelled = LORE_PUSH(arena, int32_t, cap);
    sched->free_slots = LORE_PUSH(arena, int32_t, batch);
    fill->ids = LORE_PUSH(arena, int32_t, options->rows_max);
    fill->row_start = LORE_PUSH(arena, int32_t, batch + 1);
    fill->past = LORE_PUSH(arena, int32_t, batch);
    fill->page_start = LORE_PUSH(arena, int32_t, batch + 1);
    fill->pages = LORE_PUSH(arena, int32_t, options->page_count);
    fill->logits_rows = LORE_PUSH(arena, int32_t, batch);
    fill->samples = LORE_PUSH(arena, lore_sample, batch);
    fill->penalties = LORE_PUSH(arena, lore_penalty, batch);
    fill->lengths = LORE_PUSH(arena, int32_t, batch);
    fill->tickets = LORE_PUSH(arena, int32_t, batch);
    const void *all[] = {sched->sequences, sched->free_tickets, sched->order,
                         sched->cancelled, sched->free_slots,   fill->ids,
                         fill->row_start,  fill->past,          fill->page_start,
                         fill->pages,      fill->logits_rows,   fill->samples,
                         fill->penalties,  fill->lengths,       fill->tickets};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i] == NULL) {
            return false;
        }
    }
    return true;
}

static void fill_free_lists(lore_sched *sched)
{
    for (int32_t i = sched->sequence_cap - 1; i >= 0; i--) {
        sched->free_tickets[sched->free_ticket_count++] = i;
    }
    for (int32_t i = sched->admitted_max - 1; i >= 0; i--) {
        sched->free_slots[sched->free_slot_count++] = i;
    }
}

lore_status lore_sched_new(const lore_sched_options *options, lore_sched **sched_out,
                           lore_error *err)
{
    if (options->rows_max < 1 || options->sequences_max < 1 || options->waiting_max < 1 ||
        options->context < 2 || options->waiting_max > INT32_MAX - options->sequences_max) {
        return lore_fail(err, LORE_ERR_INVALID,
                         "cannot schedule %d rows, %d sequences and %d waiting requests in a "
                         "context of %d tokens",
                         options->rows_max, options->sequences_max, options->waiting_max,
                         options->context);
    }
    if (options->eos_count < 0 || options->eos_count > EOS_IDS_MAX) {
        return lore_fail(err, LORE_ERR_INVALID, "%d end-of-text tokens, at most %d are possible",
                         options->eos_count, (int)EOS_IDS_MAX);
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
    sched->sequence_cap = options->sequences_max + options->waiting_max;
    lore_arena_init(&sched->arena, 0);
    lore_status status = lore_kv_new(options->page_count, options->page_tokens, sched->admitted_max,
                                     options->context, &sched->kv, err);
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
    sched->sequences[*ticket] = (sequence){
        .tokens = request->tokens,
        .prompt_count = request->prompt_count,
        .count = request->prompt_count,
        .total_max = total_of(sched, request->prompt_count, request->tokens_max),
        .slot = -1,
        .is_live = true,
        .sampling = request->sampling,
        .owner = request->owner,
    };
    sched->order[sched->order_count++] = *ticket;
    return LORE_OK;
}

/* The sequence leaves its pages; tokens stay, so that it can be computed again. */
static void drop_pages(lore_sched *sched, sequence *seq)
{
    lore_kv_drop(sched->kv, seq->slot);
    sched->free_slots[sched->free_slot_count++] = seq->slot;
    seq->slot = -1;
    seq->past = 0;
}

static void remove_from_order(lore_sched *sched, int32_t ticket)
{
    int32_t at = 0;
    while (sched->order[at] != ticket) {
        at++;
        LORE_ASSERT(at < sched->order_count);
    }
    if (at < sched->admitted) {
        sched->admitted--;
        drop_pages(sched, &sched->sequences[ticket]);
    }
    sched->order_count--;
    memmove(sched->order + at, sched->order + at + 1,
            (size_t)(sched->order_count - at) * sizeof(int32_t));
}

/* A sequence that is in no list any more: its ticket may name another one from now on. */
static void retire(lore_sched *sched, int32_t ticket)
{
    sched->sequences[ticket] = (sequence){.slot = -1};
    sched->free_tickets[sched->free_ticket_count++] = ticket;
}

void lore_sched_cancel(lore_sched *sched, int32_t ticket)
{
    LORE_ASSERT(ticket >= 0);
    LORE_ASSERT(ticket < sched->sequence_cap);
    LORE_ASSERT(sched->sequences[ticket].is_live);
    /* Only marked: a step that is under way may still write to its pages. */
    sched->sequences[ticket].is_cancelled = true;
}

/* Take marked sequences out of the order and free their pages. */
static void sweep_cancelled(lore_sched *sched)
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

/* ---- planning ---- */

static int32_t pending_of(const sequence *seq)
{
    return seq->count - seq->past;
}

static int32_t rows_left(const lore_sched *sched)
{
    return sched->step_rows_max - sched->step.batch.rows;
}

static void begin_step(lore_sched *sched)
{
    step_arrays *fill = &sched->fill;
    fill->row_start[0] = 0;
    fill->page_start[0] = 0;
    sched->step_rows_max = sched->options.rows_max;
    sched->step = (lore_step){.ids = fill->ids,
                              .batch = {.row_start = fill->row_start,
                                        .past = fill->past,
                                        .page_start = fill->page_start,
                                        .pages = fill->pages},
                              .logits_rows = fill->logits_rows,
                              .samples = fill->samples,
                              .lengths = fill->lengths};
}

/* Steps without any penalty stay without the whole array. */
static void add_penalty(lore_sched *sched, const sequence *seq, lore_penalty *penalty)
{
    float factor = seq->sampling.repetition_penalty;
    *penalty = (lore_penalty){factor > 0 ? factor : 1, seq->tokens, seq->count};
    if (penalty->factor != 1) {
        sched->step.penalties = sched->fill.penalties;
    }
}

/* The next `rows` pending tokens of the sequence enter the step; with the last pending one, the
 * token after it is drawn. */
static void add_rows(lore_sched *sched, int32_t ticket, int32_t rows)
{
    const sequence *seq = &sched->sequences[ticket];
    step_arrays *fill = &sched->fill;
    lore_batch *batch = &sched->step.batch;
    LORE_ASSERT(rows > 0);
    LORE_ASSERT(rows <= rows_left(sched));
    LORE_ASSERT(batch->sequences < sched->admitted_max);

    int32_t at = batch->sequences++;
    int32_t context = seq->past + rows;
    fill->tickets[at] = ticket;
    fill->past[at] = seq->past;
    fill->lengths[at] = seq->count;
    memcpy(fill->ids + batch->rows, seq->tokens + seq->past, (size_t)rows * sizeof(int32_t));
    batch->rows += rows;
    fill->row_start[at + 1] = batch->rows;

    int32_t owned = 0;
    const int32_t *list = lore_kv_pages(sched->kv, seq->slot, &owned);
    int32_t pages = lore_kv_pages_for(context, sched->options.page_tokens);
    LORE_ASSERT(pages <= owned);
    memcpy(fill->pages + fill->page_start[at], list, (size_t)pages * sizeof(int32_t));
    fill->page_start[at + 1] = fill->page_start[at] + pages;

    batch->rows_max = rows > batch->rows_max ? rows : batch->rows_max;
    batch->context_max = context > batch->context_max ? context : batch->context_max;
    if (context == seq->count) {
        int32_t draw = sched->step.logits_count++;
        fill->logits_rows[draw] = batch->rows - 1;
        fill->samples[draw] = (lore_sample){.temperature = seq->sampling.temperature,
                                            .top_p = seq->sampling.top_p,
                                            .top_k = seq->sampling.top_k,
                                            .seed = seq->sampling.seed,
                                            .position = seq->count};
        add_penalty(sched, seq, &fill->penalties[draw]);
    }
}

static void preempt_youngest(lore_sched *sched)
{
    LORE_ASSERT(sched->admitted > 1); /* invariant 5: the oldest never has to go */
    sched->admitted--;
    drop_pages(sched, &sched->sequences[sched->order[sched->admitted]]);
    sched->stats.preemptions++;
}

/* Room for the pending token of order[at], at the cost of younger ones. False: it was the youngest
 * itself and had to go. */
static bool make_room(lore_sched *sched, int32_t at)
{
    const sequence *seq = &sched->sequences[sched->order[at]];
    while (!lore_kv_reserve(sched->kv, seq->slot, seq->count)) {
        preempt_youngest(sched);
        if (sched->admitted == at) {
            return false;
        }
    }
    return true;
}

/* Pages of a sequence that prefills were reserved on admission, except where it has come to its
 * turn and needs one more. */
static void plan_running(lore_sched *sched)
{
    for (int32_t i = 0; i < sched->admitted; i++) {
        int32_t ticket = sched->order[i];
        if (make_room(sched, i) && pending_of(&sched->sequences[ticket]) == 1) {
            add_rows(sched, ticket, 1);
        }
    }
}

void lore_sched_limit_pieces(lore_sched *sched, int32_t rows)
{
    LORE_ASSERT(rows >=
                1); /* invariant 4: something is left for the oldest when it is prefilling */
    sched->piece_rows_max = rows;
}

/* Somebody waits for this step: it must not take long. */
static void limit_step(lore_sched *sched)
{
    int32_t running = sched->step.batch.rows;
    if (running > 0 && sched->piece_rows_max < sched->step_rows_max - running) {
        sched->step_rows_max = running + sched->piece_rows_max;
    }
}

static void add_prompt_piece(lore_sched *sched, int32_t ticket)
{
    int32_t pending = pending_of(&sched->sequences[ticket]), left = rows_left(sched);
    add_rows(sched, ticket, pending < left ? pending : left);
}

static void plan_prefilling(lore_sched *sched)
{
    for (int32_t i = 0; i < sched->admitted && rows_left(sched) > 0; i++) {
        if (pending_of(&sched->sequences[sched->order[i]]) > 1) {
            add_prompt_piece(sched, sched->order[i]); /* it has its pages: plan_running */
        }
    }
}

/* Let the first waiting sequence in. The page beyond its known tokens keeps it from being thrown
 * out again by its very first tokens, which would be a prefill for nothing. False: no room. */
static bool admit(lore_sched *sched)
{
    sequence *seq = &sched->sequences[sched->order[sched->admitted]];
    int32_t slot = sched->free_slots[sched->free_slot_count - 1];
    int32_t places_max = seq->total_max - 1;
    int32_t extra = sched->options.page_tokens;
    int32_t places = extra < places_max - seq->count ? seq->count + extra : places_max;
    if (!lore_kv_reserve(sched->kv, slot, places)) {
        return false;
    }
    sched->free_slot_count--;
    seq->slot = slot;
    sched->admitted++;
    return true;
}

/* First come, first served, without exception: a small request behind a large one waits, because
 * letting it pass would let small ones starve the large one for ever. A sequence preempted a moment
 * ago cannot come back here in the same plan: somebody older holds a page of what it had. */
static void plan_admissions(lore_sched *sched)
{
    while (sched->admitted < sched->order_count && sched->admitted < sched->admitted_max &&
           rows_left(sched) > 0 && admit(sched)) {
        add_prompt_piece(sched, sched->order[sched->admitted - 1]);
    }
}

const lore_step *lore_sched_plan(lore_sched *sched)
{
    LORE_ASSERT(!sched->is_planned);
    sweep_cancelled(sched);
    begin_step(sched);
    plan_running(sched);
    limit_step(sched);
    plan_prefilling(sched);
    plan_admissions(sched);
    sched->is_planned = sched->step.batch.rows > 0;
    LORE_ASSERT(sched->is_planned || sched->order_count == 0); /* invariant 5 */
    return &sched->step;
}

/* ---- results ---- */

void lore_sched_end_at(lore_sched *sched, int32_t id)
{
    LORE_ASSERT(sched->options.eos_count <= EOS_IDS_MAX);
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
                       lore_sched_token token, void *self)
{
    sequence *seq = &sched->sequences[ticket];
    if (seq->count == seq->prompt_count) {
        sched->stats.prompt_tokens += seq->prompt_count;
    }
    sched->stats.generated_tokens++;
    seq->tokens[seq->count++] = id;
    lore_finish finish = is_eos(sched, id)              ? LORE_FINISH_STOP
                         : seq->count == seq->total_max ? LORE_FINISH_LENGTH
                                                        : LORE_FINISH_NONE;
    if (token(self, seq->owner, ticket, id, logprob, finish) || finish != LORE_FINISH_NONE) {
        remove_from_order(sched, ticket);
        retire(sched, ticket);
    } else if (seq->count - 1 == sched->options.turn_tokens) {
        seq->past = 0; /* its pages stay, what is in them is written again */
    }
}

void lore_sched_apply(lore_sched *sched, const int32_t *ids, const float *logprobs,
                      lore_sched_token token, void *self)
{
    int32_t sequences = sched->is_planned ? sched->step.batch.sequences : 0;
    int32_t draw = 0;
    sched->stats.steps += sched->is_planned;
    sched->is_planned = false;
    for (int32_t i = 0; i < sequences; i++) {
        int32_t ticket = sched->fill.tickets[i];
        sequence *seq = &sched->sequences[ticket];
        seq->past += sched->fill.row_start[i + 1] - sched->fill.row_start[i];
        if (seq->past < seq->count) {
            continue; /* a piece of a prompt: nothing was drawn */
        }
        if (!seq->is_cancelled) {
            take_token(sched, ticket, ids[draw], logprobs[draw], token, self);
        }
        draw++;
    }
    sweep_cancelled(sched);
    report_cancelled(sched, token, self);
}

void lore_sched_abort(lore_sched *sched, lore_finish finish, lore_sched_token token, void *self)
{
    sched->is_planned = false;
    sweep_cancelled(sched);
    report_cancelled(sched, token, self);
    while (sched->order_count > 0) {
        int32_t ticket = sched->order[0];
        void *owner = sched->sequences[ticket].owner;
        remove_from_order(sched, ticket);
        retire(sched, ticket);
        (void)token(self, owner, ticket, -1, 0.0f, finish);
    }
}

void lore_sched_get_stats(const lore_sched *sched, lore_sched_stats *stats)
{
    *stats = sched->stats;
    stats->waiting = sched->order_count - sched->admitted;
    stats->running = sched->admitted;
    stats->pages_free = lore_kv_free_count(sched->kv);
    stats->pages_total = lore_kv_total(sched->kv);
}
