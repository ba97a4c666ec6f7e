/* Questions that want a number, a date or an amount ("how long", "when", "what price"), and
 * sentences that hold one.
 *
 * Pure; any thread. */
#ifndef LORE_RETRIEVAL_FIGURE_H
#define LORE_RETRIEVAL_FIGURE_H

#include "base/str.h"

/* Out of memory counts as no. */
bool lore_asks_for_figure(lore_str question, lore_arena *arena);
bool lore_has_figure(lore_str sentence);

#endif
