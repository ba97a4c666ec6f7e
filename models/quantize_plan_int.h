/* What a quantised folder will hold: decided before a byte is written (quantize_plan.c), then
 * carried out (quantize.c). */
#ifndef LORE_MODELS_QUANTIZE_PLAN_INT_H
#define LORE_MODELS_QUANTIZE_PLAN_INT_H

#include "models/quantize.h"
#include "models/safetensors_write_int.h"
#include "models/weights_int.h"

typedef enum lore_item_form {
    LORE_ITEM_COPY, /* the tensor's bytes */
    LORE_ITEM_BF16, /* X.weight */
    LORE_ITEM_I8,   /* X.weight, X.weight_scale */
    LORE_ITEM_I4    /* X.weight_packed, X.weight_scale, X.weight_shape */
} lore_item_form;

enum { LORE_OUTPUTS_MAX = 3 };

/* One tensor of the old files, or one matrix, and what becomes of it. */
typedef struct lore_item {
    lore_item_form form;
    const lore_tensor *tensor; /* COPY */
    const char *module;        /* the X of a matrix "X.weight" */
    const char *matrix;        /* "X.weight" */
    int32_t rows, cols;
    int32_t shard;
    lore_output outputs[LORE_OUTPUTS_MAX];
    int32_t output_count;
} lore_item;

typedef struct lore_quantize_plan {
    lore_item *items;
    int32_t item_count;
    int32_t shard_count;
    int32_t group;
    int64_t values; /* of all items: for the progress */
    bool has_head;  /* lm_head is a matrix of its own */
} lore_quantize_plan;

/* Everything lies in the arena. LORE_ERR_NOMEM, LORE_ERR_CORRUPT. */
LORE_MUST_USE lore_status lore_quantize_plan_make(const lore_weights *weights,
                                                  const lore_quantize_options *options,
                                                  lore_arena *arena, lore_quantize_plan *plan,
                                                  lore_error *err);
/* config.json with its new quantization_config. */
LORE_MUST_USE lore_status lore_quantize_plan_config(const lore_quantize_plan *plan, lore_dtype to,
                                                    lore_str old, lore_buf *out, lore_error *err);
/* The header of one file, length in front. */
LORE_MUST_USE lore_status lore_quantize_plan_header(const lore_quantize_plan *plan, int32_t shard,
                                                    lore_buf *out, lore_error *err);
/* The name of a file of the model: "model.safetensors" where there is one. */
void lore_quantize_plan_file(const lore_quantize_plan *plan, int32_t shard, char *name, size_t cap);
/* model.safetensors.index.json */
LORE_MUST_USE lore_status lore_quantize_plan_index(const lore_quantize_plan *plan, lore_buf *out,
                                                   lore_error *err);

#endif
