/* Writing a quantised copy of a model folder: int8 rows, or int4 with a scale for each group of 64
 * or 128 columns.
 *
 * Any folder that opens is a source, a quantised one too. The result is a folder that opens like
 * any other and that other programs read as compressed-tensors (docs/formats.md §6). It appears
 * under its name when it is whole: it is written beside, synced, then renamed. Thread: any. */
#ifndef LORE_MODELS_QUANTIZE_H
#define LORE_MODELS_QUANTIZE_H

#include "base/config.h"
#include "base/thread.h"
#include "kernels/ops.h"
#include "models/activations.h"

typedef struct lore_quantize_options {
    lore_dtype to;           /* LORE_I8 or LORE_I4 */
    int32_t group;           /* I4: 64 or 128; 0: 128 */
    bool is_portable;        /* the embedding table keeps plain numbers */
    int64_t shard_bytes_max; /* of one file; 0: 5 GB */
    lore_pool *pool;         /* borrowed; NULL: this thread alone */
    /* I4: errors of a column count by what goes into it. NULL, and for matrices that were not seen:
     * all columns alike. */
    const lore_activations *activations;
    /* Called after every block of rows; false gives up (LORE_ERR_CANCELLED). May be NULL. */
    bool (*progress)(void *self, int64_t done, int64_t total);
    void *self;
} lore_quantize_options;

typedef struct lore_quantize_result {
    int32_t matrices_i4, matrices_i8, tensors_kept; /* matrices made of each kind; copied tensors */
    int32_t files;
    int64_t bytes_before, bytes_after;
    double relative_error; /* of the matrices: square root of squared error over squares */
} lore_quantize_result;

/* Write `folder`, quantised, to `out`, which must not exist or be an empty folder. In int4 the
 * embedding table, the head and matrices whose columns are no multiple of the group get int8 rows;
 * vectors, positions, classifiers and poolers are copied as they are. Transformers cannot share an
 * int8 table with the head: is_portable is for folders that it should load. On failure nothing is
 * left.
 * LORE_ERR_INVALID (`out`), LORE_ERR_IO, LORE_ERR_CORRUPT, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_quantize(const char *folder, const char *out,
                                        const lore_limits *limits,
                                        const lore_quantize_options *options,
                                        lore_quantize_result *result, lore_error *err);

#endif
