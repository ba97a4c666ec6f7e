/* An adapter in memory (adapter.c), and what its configuration says (adapter_config.c).
 *
 * All values lie in one block, so that one copy moves an adapter; places in it are offsets in
 * bytes. Ranks are those of the file: nothing is padded but the starts of matrices. */
#ifndef LORE_MODELS_ADAPTER_INT_H
#define LORE_MODELS_ADAPTER_INT_H

#include "base/json.h"
#include "models/adapter.h"
#include "models/model_config_int.h"
#include "models/regex_int.h"

enum { LORE_ADAPTER_ALIGN = 64 }; /* bytes: where matrices start in the block */

/* ---- in memory ---- */

/* Outputs row_start .. + rows of a product get scale * (h[rank_start .. + rank] B^T). */
typedef struct lore_adapter_part {
    int32_t rank, rank_start;
    int32_t rows, row_start;
    float scale;
    size_t b; /* [rows, rank] */
} lore_adapter_part;

/* h = x A^T: the A of all parts on top of one another, so that x is read once. */
typedef struct lore_adapter_linear {
    int32_t rank, cols; /* of A: the sum over the parts; 0: nothing is changed here */
    size_t a;           /* [rank, cols] */
    int32_t part_count; /* those that are changed, in order of their rows */
    lore_adapter_part parts[LORE_LINEAR_PARTS_MAX];
} lore_adapter_linear;

struct lore_adapter {
    lore_adapter_info info;
    lore_dtype dtype;
    int32_t layers;
    lore_adapter_linear *linears; /* [layers, LORE_LINEAR_HEAD], and behind them the head's */
    uint8_t *data;                /* [info.size_bytes] */
};

static inline const lore_adapter_linear *lore_adapter_at(const lore_adapter *adapter, int32_t layer,
                                                         lore_linear which)
{
    int32_t row = which == LORE_LINEAR_HEAD ? adapter->layers - 1 : layer;
    return &adapter->linears[row * LORE_LINEAR_HEAD + (int32_t)which];
}

/* What an adapter is held against. weights, where not NULL: PEFT writes the base's head beside an
 * adapter of it, and only a copy of what the base has is passed over. */
typedef struct lore_adapter_base {
    const lore_decoder_config *config;
    const lore_weights *weights;
} lore_adapter_base;

/* lore_adapter_open where there is no decoder. */
LORE_MUST_USE lore_status lore_adapter_read(const char *folder, const lore_adapter_base *base,
                                            lore_dtype dtype, const lore_limits *limits,
                                            lore_adapter **adapter, lore_error *err);

/* ---- adapter_config.json ---- */

/* A key of rank_pattern or alpha_pattern, or an entry of layers_pattern. */
typedef struct lore_adapter_pattern {
    lore_str text;
    lore_regex_search *search; /* NULL: the text is a name */
    double value;
} lore_adapter_pattern;

typedef struct lore_adapter_patterns {
    lore_adapter_pattern *items;
    int32_t count;
} lore_adapter_patterns;

/* target_modules or exclude_modules: one expression for whole names, or ends of names. */
typedef struct lore_adapter_modules {
    lore_regex_search *search; /* NULL: names */
    lore_str *names;
    int32_t count;
} lore_adapter_modules;

typedef struct lore_adapter_config {
    lore_arena arena; /* of all below */
    int32_t rank;
    double alpha;
    bool is_rank_stabilised; /* use_rslora: alpha over the root of the rank */
    bool is_all_linear;
    lore_adapter_modules targets, excluded;
    bool has_layers; /* layers_to_transform is there */
    bool is_layer[LORE_LAYERS_MAX];
    lore_adapter_patterns layers, ranks, alphas;
} lore_adapter_config;

/* What the configuration says of one module. */
typedef struct lore_adapter_target {
    bool is_hit;
    int32_t rank;
    float scale;
} lore_adapter_target;

/* json: the file; name: for messages. Destroy what LORE_OK gave. */
LORE_MUST_USE lore_status lore_adapter_config_parse(lore_str json, const char *name,
                                                    const lore_limits *limits,
                                                    lore_adapter_config *config, lore_error *err);
void lore_adapter_config_destroy(lore_adapter_config *config);
/* The rules of PEFT for a module of the base model ("model.layers.3.mlp.up_proj"); layer -1: it is
 * outside of the layers. For one thread at a time. LORE_ERR_LIMIT: an expression takes too
 * long; LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_adapter_config_match(lore_adapter_config *config, lore_str module,
                                                    int32_t layer, lore_adapter_target *target,
                                                    lore_error *err);

#endif
