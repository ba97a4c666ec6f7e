/* Encoders: packed token ids to one vector a sequence. Knows no text.
 *
 * One forward pass serves all families; lore_encoder_family says which parts it has. A pack is up
 * to rows_max tokens of up to sequences_max sequences, one behind the other. All scratch is taken
 * at opening. backend and weights are borrowed and must outlive the encoder (a table's rows stay in
 * the mapped file). Thread: one at a time in each lane. */
#ifndef LORE_MODELS_ENCODER_INT_H
#define LORE_MODELS_ENCODER_INT_H

#include "models/encoder_config_int.h"
#include "models/weights.h"

typedef struct lore_encoder lore_encoder;

/* Two packs can be on their way at once; the first lane's ops go before all others in the pool, the
 * second's after all others. */
typedef enum lore_encoder_lane {
    LORE_ENCODER_QUESTIONS = 0,
    LORE_ENCODER_BULK,
    LORE_ENCODER_LANES
} lore_encoder_lane;

typedef struct lore_encoder_options {
    int32_t rows_max; /* at least config->tokens_max */
    int32_t sequences_max;
    int32_t lanes; /* how many of them: 1, or LORE_ENCODER_LANES */
} lore_encoder_options;

/* dense_weights [config->dense_count]: where each dense layer's tensors are. */
LORE_MUST_USE lore_status lore_encoder_open(const lore_encoder_config *config,
                                            lore_weights *weights,
                                            lore_weights *const *dense_weights,
                                            lore_backend *backend,
                                            const lore_encoder_options *options,
                                            lore_encoder **encoder, lore_error *err);
void lore_encoder_close(lore_encoder *encoder);
/* Values of one vector: config->dimensions, or all. */
int32_t lore_encoder_dim(const lore_encoder *encoder);

typedef struct lore_encoder_pack {
    const int32_t *ids;       /* [row_start[sequences]], each below vocab */
    const int32_t *types;     /* likewise, each below config->types; NULL: all 0 */
    const int32_t *row_start; /* [sequences + 1]; no sequence empty or longer than tokens_max */
    int32_t sequences;
    int64_t deadline_ns; /* lore_clock_ns: looked at before every layer; 0: none */
} lore_encoder_pack;

/* vectors f32 [sequences, dim], host: of length 1 where config->is_normalised. All borrowed for the
 * call. LORE_ERR_DEVICE, LORE_ERR_NOMEM, LORE_ERR_TIMEOUT. */
LORE_MUST_USE lore_status lore_encoder_forward(lore_encoder *encoder, lore_encoder_lane lane,
                                               const lore_encoder_pack *pack, float *vectors,
                                               lore_error *err);

#endif
