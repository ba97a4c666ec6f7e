/* Vectors of another encoder, made beside those in use, and the exchange of all at once.
 *
 * begin, then next and put until next gives nothing, then exchange. Up to the exchange nothing that
 * searches sees any of it, and whatever ends the work before leaves what is there to go on with.
 * The exchange is one transaction: before it every vector is the old encoder's, after it the new
 * one's. Processes that read the folder with the old encoder keep the snapshot that they have.
 * The index is opened to write, without an encoder, and is of no use but to be closed afterwards.
 * Thread: one. */
#ifndef LORE_INDEX_REEMBED_H
#define LORE_INDEX_REEMBED_H

#include "index/store.h"

typedef struct lore_reembed_chunk { /* strings in the arena */
    int64_t chunk;
    lore_str title, heading, text;
} lore_reembed_chunk;

/* Vectors that were made beside for another encoder are dropped. *chunks: all that need a vector;
 * *left: of these, those that have none yet. *is_same: the folder is this encoder's already. */
LORE_MUST_USE lore_status lore_reembed_begin(lore_index *index, const char *encoder, int32_t dim,
                                             bool *is_same, int64_t *chunks, int64_t *left,
                                             lore_error *err);
/* The next chunks without a vector of the new encoder, at most `limit`. */
LORE_MUST_USE lore_status lore_reembed_next(lore_index *index, int32_t limit, lore_arena *arena,
                                            lore_reembed_chunk **chunks, int32_t *count,
                                            lore_error *err);
/* vectors: f32 [count, dim]. One transaction. */
LORE_MUST_USE lore_status lore_reembed_put(lore_index *index, const lore_reembed_chunk *chunks,
                                           const float *vectors, int32_t count, int32_t dim,
                                           lore_error *err);
/* LORE_ERR_INVALID where a chunk has no vector yet. */
LORE_MUST_USE lore_status lore_reembed_exchange(lore_index *index, lore_error *err);

#endif
