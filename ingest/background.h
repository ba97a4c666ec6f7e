/* Threads of low priority that do a caller's work while it waits.
 *
 * A service answers questions on the threads that also receive documents. Cleaning, cutting and
 * embedding a document is done here instead, so that the kernel lets questions go first; and as
 * there are few of these threads, so is the memory that documents take meanwhile. Thread: any. */
#ifndef LORE_INGEST_BACKGROUND_H
#define LORE_INGEST_BACKGROUND_H

#include "base/thread.h"

typedef struct lore_background lore_background;

LORE_MUST_USE lore_status lore_background_open(int32_t threads, lore_background **background,
                                               lore_error *err);
/* Nobody may be waiting any more. Accepts NULL. */
void lore_background_close(lore_background *background);
/* Run work(self) on one of the threads, in its turn, and wait for its end. */
void lore_background_run(lore_background *background, void (*work)(void *self), void *self);

#endif
