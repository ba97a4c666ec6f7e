/* An adapter as its trainer wrote it, read and understood (adapter_foreign.c), before it is written
 * anew (adapter_convert.c). */
#ifndef LORE_MODELS_ADAPTER_FOREIGN_INT_H
#define LORE_MODELS_ADAPTER_FOREIGN_INT_H

#include "models/adapter_convert.h"
#include "models/adapter_int.h"
#include "models/adapter_keys_int.h"
#include "models/safetensors_int.h"

enum { LORE_ADAPTER_HALVES = 2, LORE_ADAPTER_PATH_CAP = 4096 };

/* One change: A, B and what it is scaled by. */
typedef struct lore_adapter_pair {
    const lore_tensor *halves[LORE_ADAPTER_HALVES]; /* A, B; NULL, NULL: there is no such pair */
    const lore_tensor *alpha;                       /* or NULL */
    bool is_transposed;
    lore_adapter_order order; /* never TORCHTUNE */
    lore_adapter_unit first;
    int32_t count, rank;
    double scale;
} lore_adapter_pair;

typedef struct lore_foreign_adapter {
    char path[LORE_ADAPTER_PATH_CAP]; /* of the tensors */
    lore_buf file;
    lore_arena arena;
    lore_tensor *tensors;
    int32_t tensor_count;
    lore_dtype dtype;         /* that all halves have, else LORE_F32 */
    lore_adapter_pair *pairs; /* [layers + 1, LORE_ADAPTER_MODULES]; the last row: no layer */
    const lore_adapter_pair **owners; /* [layers + 1, LORE_UNITS] who changes a unit, or NULL */
    const lore_tensor *copies[2];     /* of the base's head and table, or NULL ... */
    const char *copy_names[2];        /* ... as PEFT calls them */
} lore_foreign_adapter;

/* Rows and columns of a unit. */
int32_t lore_adapter_unit_rows(const lore_decoder_config *config, lore_adapter_unit unit);
int32_t lore_adapter_unit_cols(const lore_decoder_config *config, lore_adapter_unit unit);
/* The units that a matrix of the base holds. */
void lore_adapter_units_of(const lore_linear_shape *shape, lore_linear which, int32_t part,
                           lore_adapter_unit *first, int32_t *count);

/* Destroy it in every case. */
LORE_MUST_USE lore_status lore_foreign_adapter_read(const char *path,
                                                    const lore_decoder_config *base,
                                                    const lore_limits *limits,
                                                    const lore_convert_options *options,
                                                    lore_foreign_adapter *source, lore_error *err);
void lore_foreign_adapter_destroy(lore_foreign_adapter *source);

#endif
