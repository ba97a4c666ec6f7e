/* What index/faiss_c.cpp adds to FAISS's official C API: stopping a computation from inside.
 *
 * FAISS looks at an interrupt callback of the whole process between blocks of distances. Ours asks
 * what the computing thread has set, so that only its own computation stops. Thread: any, each for
 * itself. */
#ifndef LORE_INDEX_FAISS_C_H
#define LORE_INDEX_FAISS_C_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* From now on FAISS's functions called by this thread fail soon after is_wanted(self) became true.
 * NULL: never. */
void lore_faiss_interrupt(bool (*is_wanted)(void *self), void *self);

#ifdef __cplusplus
}
#endif

#endif
