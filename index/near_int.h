/* Inside index/: documents that nearly repeat others, see near_duplicates.c. All of it happens
 * inside the transaction of the caller, who writes the document itself. */
#ifndef LORE_INDEX_NEAR_INT_H
#define LORE_INDEX_NEAR_INT_H

#include "index/index_int.h"
#include "index/sketch.h"

/* *near: row of the document of the collection whose text has most in common with the sketch, as
 * far as that makes them near-duplicates; 0: none. */
LORE_MUST_USE lore_status lore_near_find(lore_db *db, int64_t collection, const lore_sketch *sketch,
                                         int64_t *near, lore_error *err);
LORE_MUST_USE lore_status lore_near_insert(lore_db *db, int64_t collection, int64_t document,
                                           const lore_sketch *sketch, lore_error *err);
LORE_MUST_USE lore_status lore_near_remove(lore_db *db, int64_t collection, int64_t document,
                                           lore_error *err);

#endif
