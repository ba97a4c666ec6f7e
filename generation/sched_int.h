/* The scheduler's struct, shared by arrivals and results (sched.c) and planning (sched_plan.c).
 * The invariants stand in sched.c. Thread: the engine's alone. */
#ifndef LORE_GENERATION_SCHED_INT_H
#define LORE_GENERATION_SCHED_INT_H

#include "generation/sched.h"

#include "base/mem.h"

enum { LORE_SCHED_EOS_MAX = 8, LORE_SCHED_FLIGHT_MAX = 2 };

typedef struct lore_sequence {
    int32_t *tokens; /* lent: prompt, then what was drawn */
    int32_t prompt_count;
    int32_t count;     /* known tokens */
    int32_t total_max; /* known tokens when it ends at the latest */
    int32_t past;      /* tokens whose keys and values are in the pages, or will be once the steps
                          in flight are over */
    int32_t awaited;   /* tokens that steps in flight draw */
    int32_t draw;      /* the last of these is this draw of its step */
    int32_t in_flight; /* steps in flight with rows of it */
    int32_t slot;      /* of the page table, -1: none */
    int32_t cached;    /* of the prompt, found in pages when it was first admitted; -1: not yet */
    bool is_live, is_cancelled;
    bool is_listed;   /* in order */
    bool is_reported; /* its end is: nothing lent is touched any more */
    bool is_steered;  /* what is drawn depends on tokens that the host must know */
    lore_sampling sampling;
    lore_likely *tops; /* lent: [total_max - prompt_count, sampling.tops] */
    uint64_t salt, adapter;
    int32_t adapter_slot; /* -1: none */
    int32_t *cached_tokens;
    void *owner;
} lore_sequence;

/* The arrays of a step are sized for the largest step and lore_step points to
 * them, const, for the decoder. */
typedef struct lore_step_arrays {
    int32_t *ids;            /* [rows_max] */
    int32_t *row_start;      /* [sequences_max + 1] */
    int32_t *past;           /* [sequences_max] */
    int32_t *page_start;     /* [sequences_max + 1] */
    int32_t *pages;          /* [sequences_max, those of one at most] */
    int32_t *logits_rows;    /* [sequences_max] */
    lore_sample *samples;    /* [sequences_max] */
    lore_penalty *penalties; /* [sequences_max] */
    lore_likely *tops;       /* [sequences_max, LORE_TOPS_MAX], written by the decoder */
    int32_t *lengths;        /* [sequences_max] */
    int32_t *adapters;       /* [sequences_max] */
    int32_t *tickets;        /* [sequences_max] whose rows they are */
} lore_step_arrays;

typedef struct lore_planned {
    lore_step step;
    lore_step_arrays fill;
} lore_planned;

struct lore_sched {
    lore_sched_options options;              /* eos_ids points to eos_ids below */
    int32_t eos_ids[LORE_SCHED_EOS_MAX + 1]; /* one may come from lore_sched_end_at */
    lore_arena arena;                        /* all arrays of this struct */
    lore_kv *kv;

    lore_sequence *sequences; /* [sequence_cap], indexed by ticket */
    int32_t sequence_cap;
    int32_t *free_tickets;
    int32_t free_ticket_count;
    int32_t *free_slots;
    int32_t free_slot_count, slot_count;

    int32_t *order; /* tickets by arrival */
    int32_t order_count;
    int32_t admitted; /* the first so many of order hold pages */
    int32_t admitted_max;
    int32_t leaving_count; /* not in order any more, with rows in flight: their pages come back */
    int32_t *cancelled;    /* tickets to be reported by the next apply */
    int32_t cancelled_count;

    lore_planned planned[LORE_SCHED_FLIGHT_MAX];
    int32_t planned_first, planned_count; /* a ring: planned and not applied */
    lore_planned *now;                    /* the step under construction */
    int32_t step_rows_max;                /* of it */
    int32_t piece_rows_max;               /* rows of prompts beside running sequences */
    lore_sched_stats stats;
};

/* Take pages whose tokens are those of the sequence, where there are any; the rest is computed.
 * The sequence has a slot and no page. */
void lore_sched_enter(lore_sched *sched, lore_sequence *seq);
/* The sequence, of which no step in flight has rows, leaves its pages and its slot; tokens stay, so
 * that it can be computed again. */
void lore_sched_leave(lore_sched *sched, lore_sequence *seq);
/* Take cancelled sequences out of the order and free their pages. */
void lore_sched_sweep(lore_sched *sched);

#endif
