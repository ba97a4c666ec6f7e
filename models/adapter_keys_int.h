/* What trainers call the tensors of an adapter: from a name to what it means for a decoder.
 *
 * Known are PEFT's names with more or fewer wrappers around them, MLX-LM, torchtune, Meta's and
 * Mistral's own, kohya's with underscores, diffusers', and NeMo's and Megatron's with fused
 * matrices. A name that says anything else is refused, never guessed. Thread: any, no state. */
#ifndef LORE_MODELS_ADAPTER_KEYS_INT_H
#define LORE_MODELS_ADAPTER_KEYS_INT_H

#include "base/str.h"

/* The smallest matrices that trainers tell apart. Fused ones are neighbours in this order. */
typedef enum lore_adapter_unit {
    LORE_UNIT_Q = 0,
    LORE_UNIT_K,
    LORE_UNIT_V,
    LORE_UNIT_OUT,
    LORE_UNIT_GATE,
    LORE_UNIT_UP,
    LORE_UNIT_DOWN,
    LORE_UNIT_HEAD,
    LORE_UNITS
} lore_adapter_unit;

/* In which order B has its rows. */
typedef enum lore_adapter_order {
    LORE_ORDER_STACKED = 0, /* as the base: unit under unit */
    LORE_ORDER_GROUPED,     /* Megatron: for each head of keys its queries, itself, its values */
    LORE_ORDER_PAIRED,      /* Meta: in each head the two numbers that are rotated together */
    LORE_ORDER_TORCHTUNE    /* as Meta where torchtune's model of the family rotates so */
} lore_adapter_order;

typedef enum lore_adapter_role {
    LORE_ROLE_A = 0, /* [rank, in] */
    LORE_ROLE_B,     /* [out, rank] */
    LORE_ROLE_ALPHA, /* one number */
    LORE_ROLE_BASE   /* a copy of the base's head or table, which PEFT writes beside */
} lore_adapter_role;

/* A matrix as some trainer names it behind the number of a layer, or behind all wrappers. */
typedef struct lore_adapter_module {
    const char *name;
    lore_adapter_unit first;
    int32_t count; /* of units */
    lore_adapter_order order;
} lore_adapter_module;

enum { LORE_ADAPTER_MODULES = 38 };
extern const lore_adapter_module lore_adapter_module_table[LORE_ADAPTER_MODULES];

typedef struct lore_adapter_key {
    lore_adapter_role role;
    bool is_transposed; /* MLX: A is [in, rank], B [rank, out] */
    int32_t layer;      /* -1: outside of the layers */
    int32_t module;     /* of lore_adapter_module_table; -1: BASE */
    const char *copy;   /* BASE: what PEFT calls it; else NULL */
} lore_adapter_key;

/* LORE_ERR_UNSUPPORTED: the message names the tensor, not its file. */
LORE_MUST_USE lore_status lore_adapter_key_parse(lore_str name, lore_adapter_key *key,
                                                 lore_error *err);

#endif
