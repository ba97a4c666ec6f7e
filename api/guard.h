/* The guard: what of a decoder's text may be released.
 *
 * A sentence passes when a sentence of the evidence carries it (retrieval/support.c); where the
 * model's card asks for it, only one that ranks nearly as well as the best may. Two questions are
 * asked before a sentence is complete, because tokens cost time: may it be released already, and
 * can it be released at all. Both give what waiting would have given. Pure; any thread. */
#ifndef LORE_API_GUARD_H
#define LORE_API_GUARD_H

#include "retrieval/evidence.h"

typedef struct lore_guard {
    const lore_evidence *evidence;
    bool is_on;     /* off: every sentence passes, cited where one carries it */
    bool is_strict; /* with is_on: only sentences within `ratio` of the best may be quoted */
    double ratio;
} lore_guard;

/* A sentence without its markers: false, it is refused; true, *carrier is the sentence of the
 * evidence that it cites, -1: none (only where the guard is off). Out of memory refuses. */
bool lore_guard_judge(const lore_guard *guard, lore_str sentence, lore_arena *arena,
                      int32_t *carrier);
/* The text ends with a whole sentence of the evidence that may be quoted, word for word: it passes,
 * and nothing that can follow changes that. */
bool lore_guard_is_settled(const lore_guard *guard, lore_str sentence);
/* However the text goes on, its sentence will be refused. Markers are allowed in it. */
bool lore_guard_is_lost(const lore_guard *guard, lore_str beginning, lore_arena *arena);
/* A copy without [n] markers and the spaces before them: citations are made from the evidence, not
 * taken on trust. ptr NULL: out of memory. */
lore_str lore_guard_unmarked(lore_str sentence, lore_arena *arena);

#endif
