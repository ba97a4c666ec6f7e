/* Quantised matrices as other programs write them: GPTQ, AWQ, compressed-tensors.
 *
 * config.json's quantization_config says which writer it was; one matrix is then a set of tensors
 * (codes, scales, zeros, groups of columns) whose shapes say the rest. lore_quantized_read makes of
 * a set the matrix that backends pack: I4 as they lie on disk but for their order, int8 rows, or
 * f32 where neither can hold the same values. Formats: docs/formats.md §6. Thread: any, no state.
 */
#ifndef LORE_MODELS_QUANTIZED_INT_H
#define LORE_MODELS_QUANTIZED_INT_H

#include "base/json.h"
#include "kernels/backend.h"
#include "models/safetensors_int.h"

typedef enum lore_quantized_method {
    LORE_QUANTIZED_NONE = 0, /* plain tensors, int8 rows with `<name>_scale` among them */
    LORE_QUANTIZED_GPTQ,
    LORE_QUANTIZED_AWQ,
    LORE_QUANTIZED_COMPRESSED /* compressed-tensors */
} lore_quantized_method;

enum { LORE_QUANTIZED_SCHEMES_MAX = 16 };

typedef struct lore_quantized_config {
    lore_quantized_method method;
    int32_t bits;                               /* GPTQ: where the tensors leave it open */
    int32_t groups[LORE_QUANTIZED_SCHEMES_MAX]; /* columns that share a scale; 0: a whole row */
    int32_t group_count;
    bool is_zero_less_one; /* GPTQ's first format stores zeros minus one */
    bool is_zero_optional; /* AWQ without zero points */
} lore_quantized_config;

/* The tensors of one matrix. */
typedef struct lore_quantized_set {
    const lore_tensor *codes;    /* qweight, weight_packed or an int8 weight */
    const lore_tensor *scales;   /* scales, weight_scale */
    const lore_tensor *zeros;    /* qzeros, weight_zero_point, or NULL */
    const lore_tensor *group_of; /* g_idx, weight_g_idx, or NULL */
    const lore_tensor *shape;    /* weight_shape, or NULL */
    const char *path;            /* file of the codes, for messages */
} lore_quantized_set;

/* A matrix and the memory it stands on; what is NULL is borrowed from the file or not there. */
typedef struct lore_quantized {
    lore_matrix matrix;
    void *data, *scales, *zeros, *columns;
} lore_quantized;

/* What quantization_config of a config.json (the root of which is given; NULL: no such file) says.
 * LORE_ERR_UNSUPPORTED names what we do not compute, LORE_ERR_CORRUPT and _INVALID what is wrong.
 */
LORE_MUST_USE lore_status lore_quantized_config_read(const lore_json *root,
                                                     lore_quantized_config *config,
                                                     lore_error *err);

/* Rows and columns that a set stands for; false where its tensors have impossible shapes. */
bool lore_quantized_shape(const lore_quantized_config *config, const lore_quantized_set *set,
                          int32_t *rows, int32_t *cols);

/* The set as a [rows, cols] matrix. Every shape, index and scale is checked. LORE_ERR_CORRUPT,
 * LORE_ERR_UNSUPPORTED, LORE_ERR_NOMEM; messages name file and tensor. Free with
 * lore_quantized_free; what is borrowed lives as long as the tensors. */
LORE_MUST_USE lore_status lore_quantized_read(const lore_quantized_config *config,
                                              const lore_quantized_set *set, int32_t rows,
                                              int32_t cols, lore_quantized *out, lore_error *err);
void lore_quantized_free(lore_quantized *quantized);

#endif
