/* What a merged folder will hold: decided before a byte is written (merge_plan.c), then carried out
 * (merge_lora.c). */
#ifndef LORE_MODELS_MERGE_PLAN_INT_H
#define LORE_MODELS_MERGE_PLAN_INT_H

#include "models/adapter_int.h"
#include "models/safetensors_write_int.h"
#include "models/weights_int.h"

/* One tensor of the new folder. */
typedef struct lore_merge_item {
    lore_output output;
    const lore_tensor *tensor; /* that it is made of; of a quantised matrix its codes */
    const char *matrix; /* made row by row, of this matrix of the base; NULL: of the values */
    int32_t rows, cols; /* of a matrix */
    int32_t shard;
    lore_dtype to;                     /* unless it is copied */
    const lore_adapter_linear *linear; /* what is added to it; NULL: nothing */
    const lore_adapter_part *part;
} lore_merge_item;

typedef struct lore_merge_plan {
    /* borrowed */
    const char *base; /* for messages */
    const lore_decoder_config *config;
    const lore_weights *weights;
    const lore_adapter *adapter;
    const lore_dtype *to; /* NULL: as in the base */
    bool is_coded;        /* the base is quantised */
    lore_arena *arena;
    lore_error *err;
    /* made; items stand as they are written */
    lore_merge_item *items;
    int32_t count, file_count, modules;
    int32_t *file_of; /* [files of the base] by their names */
    bool is_untied;
    int64_t size_bytes;
} lore_merge_plan;

/* LORE_ERR_NOMEM, LORE_ERR_CORRUPT, LORE_ERR_LIMIT. */
LORE_MUST_USE lore_status lore_merge_plan_make(lore_merge_plan *plan);
/* config.json of the new folder, from that of the base. */
LORE_MUST_USE lore_status lore_merge_plan_config(const lore_merge_plan *plan, lore_str old,
                                                 lore_buf *out);

#endif
