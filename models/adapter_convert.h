/* Converting adapters of other trainers to a PEFT folder, which lore_adapter_open reads.
 *
 * The names that are known are in models/adapter_keys_int.h and docs/formats.md, section 7. Fused
 * matrices are split where the base has them apart (A stands under each), matrices of their own are
 * joined where it has them fused. What is not understood is refused by name. Thread: any. */
#ifndef LORE_MODELS_ADAPTER_CONVERT_H
#define LORE_MODELS_ADAPTER_CONVERT_H

#include "base/config.h"

typedef struct lore_convert_options {
    double alpha; /* lora_alpha, where the files do not say it; 0: they must */
    /* Called after every tensor; false gives up (LORE_ERR_CANCELLED). May be NULL. */
    bool (*progress)(void *self, int64_t done, int64_t total);
    void *self;
} lore_convert_options;

typedef struct lore_convert_result {
    int32_t modules, rank_max, tensors_read;
    int64_t size_bytes; /* of the new tensors */
} lore_convert_result;

/* Write the adapter at `source` (a folder, or a safetensors file in one) for the decoder folder
 * `base` to `out`, which must not exist or be an empty folder. Numbers keep their type, f32 where
 * types are mixed. The new folder is opened against the base before it gets its name. On failure
 * nothing is left.
 * LORE_ERR_INVALID (`out`), LORE_ERR_NOT_FOUND, LORE_ERR_UNSUPPORTED, LORE_ERR_CORRUPT,
 * LORE_ERR_LIMIT, LORE_ERR_IO, LORE_ERR_NOMEM, LORE_ERR_CANCELLED. */
LORE_MUST_USE lore_status lore_adapter_convert(const char *base, const char *source,
                                               const char *out, const lore_limits *limits,
                                               const lore_convert_options *options,
                                               lore_convert_result *result, lore_error *err);

#endif
