/* Writing a model folder with an adapter added to its weights: W' = W + scale * B A.
 *
 * The merged folder needs no adapter any more and opens in any program that opens its base; it has
 * the files of the base, as many of tensors too. Sums are f32 and rounded once. It appears under
 * its name when it is whole. Thread: any. */
#ifndef LORE_MODELS_MERGE_LORA_H
#define LORE_MODELS_MERGE_LORA_H

#include "base/config.h"
#include "base/thread.h"
#include "kernels/ops.h"

typedef struct lore_merge_options {
    const lore_dtype *to; /* of all tensors: LORE_F32, LORE_F16 or LORE_BF16; NULL: as in the base,
                             tensor by tensor */
    lore_pool *pool;      /* borrowed; NULL: this thread alone */
    /* Called after every block of rows; false gives up (LORE_ERR_CANCELLED). May be NULL. */
    bool (*progress)(void *self, int64_t done, int64_t total);
    void *self;
} lore_merge_options;

typedef struct lore_merge_result {
    int32_t modules; /* matrices that were changed */
    int32_t tensors; /* of the new folder */
    int32_t files;
    bool is_untied; /* the head has got weights of its own */
    int64_t bytes_before, bytes_after;
} lore_merge_result;

/* Write `base` with `adapter` (folders) to `out`, which must not exist or be an empty folder. What
 * lore_adapter_open refuses is refused here likewise. A quantised base is unfolded to `to`, and
 * refused without. Where the head is adapted and shared with the embedding table, the new folder
 * has both. On failure nothing is left.
 * LORE_ERR_INVALID (`out`), LORE_ERR_UNSUPPORTED, LORE_ERR_CORRUPT (also: a number that `to` cannot
 * hold), LORE_ERR_IO, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_merge_lora(const char *base, const char *adapter, const char *out,
                                          const lore_limits *limits,
                                          const lore_merge_options *options,
                                          lore_merge_result *result, lore_error *err);

#endif
