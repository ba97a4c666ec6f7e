/* Rotary positions: what a configuration says about the angles, and the tables made of it.
 *
 * A pair i of a head at position p is rotated by p * f(i); every kind of scaling is a rule for f,
 * and perhaps one factor on the result, so that the rotation itself (kernels) knows tables only.
 * The rules are those of transformers, whose single precision is kept: a network was trained with
 * angles rounded in the same places. Thread: any, no state. */
#ifndef LORE_MODELS_ROPE_INT_H
#define LORE_MODELS_ROPE_INT_H

#include "kernels/backend.h"
#include "models/config_reader_int.h"

enum { LORE_HEAD_DIM_MAX = 1024 };

typedef enum lore_rope_kind {
    LORE_ROPE_PLAIN = 0, /* f(i) = theta^(-2i / dim) */
    LORE_ROPE_LINEAR,
    LORE_ROPE_DYNAMIC,
    LORE_ROPE_LLAMA3,
    LORE_ROPE_YARN,
    LORE_ROPE_LONG
} lore_rope_kind;

/* Fields of other kinds are 0. */
typedef struct lore_rope_config {
    lore_rope_kind kind;
    double theta;
    int32_t dim;      /* elements of a head that are rotated, the first ones */
    int32_t original; /* positions that the network knew before it was stretched */
    double factor;
    double scale;                               /* of the result (yarn, long), else 1 */
    double low_freq_factor, high_freq_factor;   /* llama3 */
    double ramp_low, ramp_high;                 /* yarn: between these pairs f changes */
    float short_factors[LORE_HEAD_DIM_MAX / 2]; /* long: [dim / 2] */
    float long_factors[LORE_HEAD_DIM_MAX / 2];  /* long: [dim / 2] */
} lore_rope_config;

/* What the caller's model makes of its file. */
typedef struct lore_rope_rules {
    int32_t head_dim;
    int32_t context;       /* max_position_embeddings */
    int32_t original;      /* where the file does not say; 0: context */
    bool is_partial;       /* partial_rotary_factor below 1 is computed */
    bool is_plain_or_long; /* no other kinds; "su" and "yarn" are old names of long (Phi-3) */
} lore_rope_rules;

/* Read rope_theta, partial_rotary_factor and rope_scaling or rope_parameters (transformers 5).
 * Other kinds, and missing or senseless numbers, are refused by name. */
LORE_MUST_USE lore_status lore_rope_config_read(lore_config_reader *r, const lore_rope_rules *rules,
                                                lore_rope_config *config);

/* Positions that a model of `context` positions can be asked for: scaling that is switched on
 * afterwards leaves max_position_embeddings as it was. */
int32_t lore_rope_context(const lore_rope_config *config, int32_t context);

/* Longrope has two tables: texts of up to `original` tokens are rotated by the short factors,
 * longer ones by the long factors from their first token on. They stand behind one another:
 * `original` rows of the short one, then `positions` rows of the long one; one table where texts
 * have no more than `original` positions, and for all other kinds. */
int32_t lore_rope_row_count(const lore_rope_config *config, int32_t positions);
/* The row that is position 0 of a text of so many tokens. */
int32_t lore_rope_start(const lore_rope_config *config, int32_t tokens);

/* Rows first .. first + count - 1 of both tables, [count, dim / 2] each.
 *
 * Dynamic scaling follows the length of the text: row p is made for a text of p + 1 tokens. That is
 * what transformers computes token by token; the rows of a prompt longer than `original` it rotates
 * all for the prompt's whole length, which a table by position cannot, so there they differ. */
void lore_rope_rows(const lore_rope_config *config, int32_t first, int32_t count, float *cosine,
                    float *sine);

/* The tables of texts of up to `positions` tokens in memory of the queue's backend, to be freed
 * with lore_backend_free. Fails: LORE_ERR_NOMEM, LORE_ERR_DEVICE. */
LORE_MUST_USE lore_status lore_rope_upload(const lore_rope_config *config, int32_t positions,
                                           lore_backend *backend, lore_queue *queue, float **cosine,
                                           float **sine, lore_error *err);

#endif
