/* All vectors of a folder made anew by another encoder: see index/reembed.h. */
#ifndef LORE_INGEST_REEMBED_RUN_H
#define LORE_INGEST_REEMBED_RUN_H

#include "index/reembed.h"
#include "models/embedder.h"

typedef struct lore_reembed_counts {
    int64_t chunks, embedded; /* embedded: by this run; the others were there already */
    bool is_same;             /* nothing to do: the folder is this encoder's */
} lore_reembed_counts;

typedef struct lore_reembed_options {
    void *self; /* for the callbacks, which may be NULL */
    void (*progress)(void *self, int64_t done, int64_t total);
    bool (*is_cancelled)(void *self); /* LORE_ERR_CANCELLED; what was made is kept */
} lore_reembed_options;

/* Chunks stay as they are cut; what is longer than the encoder's window is read as far as that. */
LORE_MUST_USE lore_status lore_reembed_run(lore_index *index, lore_embedder *embedder,
                                           const lore_reembed_options *options,
                                           lore_reembed_counts *counts, lore_error *err);

#endif
