/* From the order of sequences to the next step: who gets rows, and who has to make room. What must
 * hold is listed in sched.c; this file is read from lore_sched_plan at its end. */
#include "generation/sched_int.h"

#include <string.h>

/* Tokens of the text when the steps in flight are over. */
static int32_t length_of(const lore_sequence *seq)
{
    return seq->count + seq->awaited;
}

static int32_t pending_of(const lore_sequence *seq)
{
    return length_of(seq) - seq->past;
}

static int32_t rows_left(const lore_sched *sched)
{
    return sched->step_rows_max - sched->now->step.batch.rows;
}

static void begin_step(lore_sched *sched)
{
    int32_t at = (sched->planned_first + sched->planned_count) % sched->options.steps_in_flight;
    sched->now = &sched->planned[at];
    lore_step_arrays *fill = &sched->now->fill;
    fill->row_start[0] = 0;
    fill->page_start[0] = 0;
    sched->step_rows_max = sched->options.rows_max;
    sched->now->step = (lore_step){.ids = fill->ids,
                                   .batch = {.row_start = fill->row_start,
                                             .past = fill->past,
                                             .page_start = fill->page_start,
                                             .pages = fill->pages},
                                   .logits_rows = fill->logits_rows,
                                   .samples = fill->samples,
                                   .lengths = fill->lengths};
}

/* How the token after the known ones is drawn. Steps without any penalty stay without the whole
 * array, and those that nobody wants the most probable tokens of likewise. */
static void add_draw(lore_sched *sched, const lore_sequence *seq, int32_t draw)
{
    const lore_sampling *sampling = &seq->sampling;
    const float repetition = sampling->repetition_penalty;
    lore_step_arrays *fill = &sched->now->fill;
    fill->samples[draw] = (lore_sample){.temperature = sampling->temperature,
                                        .top_p = sampling->top_p,
                                        .top_k = sampling->top_k,
                                        .min_p = sampling->min_p,
                                        .seed = sampling->seed,
                                        .position = length_of(seq),
                                        .tops = sampling->tops};
    fill->penalties[draw] = (lore_penalty){.repetition = repetition > 0 ? repetition : 1,
                                           .presence = sampling->presence_penalty,
                                           .frequency = sampling->frequency_penalty,
                                           .ids = seq->tokens,
                                           .count = seq->count,
                                           .answer_start = seq->prompt_count,
                                           .biases = sampling->biases,
                                           .bias_count = sampling->bias_count};
    if (seq->is_steered) {
        sched->now->step.penalties = fill->penalties;
    }
    if (sampling->tops > 0) {
        sched->now->step.tops = fill->tops;
    }
}

/* The next `rows` pending tokens of the sequence enter the step; with the last pending one, the
 * token after it is drawn. A pending token that a step in flight draws goes by its draw. */
static void add_rows(lore_sched *sched, int32_t ticket, int32_t rows)
{
    lore_sequence *seq = &sched->sequences[ticket];
    lore_step_arrays *fill = &sched->now->fill;
    lore_batch *batch = &sched->now->step.batch;
    LORE_ASSERT(rows > 0);
    LORE_ASSERT(rows <= rows_left(sched));
    LORE_ASSERT(batch->sequences < sched->admitted_max);

    int32_t at = batch->sequences++;
    int32_t context = seq->past + rows;
    fill->tickets[at] = ticket;
    fill->past[at] = seq->past;
    fill->lengths[at] = length_of(seq);
    fill->adapters[at] = seq->adapter_slot;
    if (seq->adapter_slot >= 0) {
        sched->now->step.adapters = fill->adapters; /* a step without any stays without it */
    }
    if (seq->past < seq->count) {
        memcpy(fill->ids + batch->rows, seq->tokens + seq->past, (size_t)rows * sizeof(int32_t));
    } else {
        LORE_ASSERT(rows == 1);
        LORE_ASSERT(seq->awaited == 1);
        fill->ids[batch->rows] = LORE_ID_DRAWN(seq->draw);
    }
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
    seq->past = context;
    seq->in_flight++;
    if (context == length_of(seq)) {
        int32_t draw = sched->now->step.logits_count++;
        fill->logits_rows[draw] = batch->rows - 1;
        add_draw(sched, seq, draw);
        seq->draw = draw;
        seq->awaited++;
    }
}

static void preempt_youngest(lore_sched *sched)
{
    LORE_ASSERT(sched->admitted > 1); /* invariant 5: the oldest never has to go */
    sched->admitted--;
    lore_sched_leave(sched, &sched->sequences[sched->order[sched->admitted]]);
    sched->stats.preemptions++;
}

/* Room for the pending token of order[at], at the cost of younger ones. False: it was the youngest
 * itself and had to go, or the next apply will give pages back or make the youngest one free to go.
 */
static bool make_room(lore_sched *sched, int32_t at)
{
    const lore_sequence *seq = &sched->sequences[sched->order[at]];
    while (!lore_kv_reserve(sched->kv, seq->slot, length_of(seq))) {
        const lore_sequence *youngest = &sched->sequences[sched->order[sched->admitted - 1]];
        if (sched->leaving_count > 0 || youngest->in_flight > 0) {
            return false;
        }
        preempt_youngest(sched);
        if (sched->admitted == at) {
            return false;
        }
    }
    return true;
}

/* Whether the step in flight has to be applied before more of this sequence can be planned: it ends
 * there, or its next token is drawn as the host's knowledge of the last one says, or it comes to
 * its turn. */
static bool must_wait(const lore_sched *sched, const lore_sequence *seq)
{
    return seq->awaited > 0 && (length_of(seq) == seq->total_max || seq->is_steered ||
                                length_of(seq) - 1 == sched->options.turn_tokens);
}

/* Pages of a sequence that prefills were reserved on admission, except where it has come to its
 * turn and begins anew. Gives how many have room; the others are left out of this step. */
static int32_t plan_running(lore_sched *sched)
{
    for (int32_t i = 0; i < sched->admitted; i++) {
        int32_t ticket = sched->order[i];
        const lore_sequence *seq = &sched->sequences[ticket];
        if (must_wait(sched, seq)) {
            continue;
        }
        if (!make_room(sched, i)) {
            return i;
        }
        if (pending_of(seq) == 1) {
            add_rows(sched, ticket, 1);
        }
    }
    return sched->admitted;
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
    int32_t running = sched->now->step.batch.rows;
    if (running > 0 && sched->piece_rows_max < sched->step_rows_max - running) {
        sched->step_rows_max = running + sched->piece_rows_max;
    }
}

static void add_prompt_piece(lore_sched *sched, int32_t ticket)
{
    int32_t pending = pending_of(&sched->sequences[ticket]), left = rows_left(sched);
    add_rows(sched, ticket, pending < left ? pending : left);
}

static void plan_prefilling(lore_sched *sched, int32_t ready)
{
    for (int32_t i = 0; i < ready && rows_left(sched) > 0; i++) {
        if (pending_of(&sched->sequences[sched->order[i]]) > 1) {
            add_prompt_piece(sched, sched->order[i]); /* it has its pages: plan_running */
        }
    }
}

/* Let the first waiting sequence in. The page beyond its known tokens keeps it from being thrown
 * out again by its very first tokens, which would be a prefill for nothing. False: no room. */
static bool admit(lore_sched *sched)
{
    lore_sequence *seq = &sched->sequences[sched->order[sched->admitted]];
    int32_t slot = sched->free_slots[sched->free_slot_count - 1];
    int32_t places_max = seq->total_max - 1;
    int32_t extra = sched->options.page_tokens;
    int32_t places = extra < places_max - seq->count ? seq->count + extra : places_max;
    sched->free_slot_count--;
    seq->slot = slot;
    lore_sched_enter(sched, seq);
    if (!lore_kv_reserve(sched->kv, slot, places)) {
        lore_sched_leave(sched, seq);
        return false;
    }
    sched->admitted++;
    if (seq->cached < 0) {
        seq->cached = seq->past;
        if (seq->cached_tokens != NULL) {
            *seq->cached_tokens = seq->cached;
        }
    }
    return true;
}

/* First come, first served, without exception: a small request behind a large one waits, because
 * letting it pass would let small ones starve the large one for ever. A sequence preempted a moment
 * ago comes back in the same plan only where it now finds pages of others in place of its own. */
static void plan_admissions(lore_sched *sched)
{
    while (sched->admitted < sched->order_count && sched->admitted < sched->admitted_max &&
           rows_left(sched) > 0 && admit(sched)) {
        add_prompt_piece(sched, sched->order[sched->admitted - 1]);
    }
}

const lore_step *lore_sched_plan(lore_sched *sched)
{
    LORE_ASSERT(sched->planned_count < sched->options.steps_in_flight);
    lore_sched_sweep(sched);
    begin_step(sched);
    int32_t ready = plan_running(sched);
    limit_step(sched);
    plan_prefilling(sched, ready);
    if (ready == sched->admitted) {
        plan_admissions(sched);
    }
    sched->planned_count += sched->now->step.batch.rows > 0;
    LORE_ASSERT(sched->planned_count > 0 || sched->order_count == 0); /* invariant 5 */
    return &sched->now->step;
}
