/* The BERT encoder: packed token ids to one vector a sequence. Knows no text.
 *
 * A pack is up to rows_max tokens of up to sequences_max sequences, one behind the other. All
 * scratch is taken at opening. backend and weights are borrowed and must outlive the encoder (a
 * table's rows stay in the mapped file). Thread: one at a time in each lane. */
#ifndef LORE_MODELS_ENCODER_INT_H
#define LORE_MODELS_ENCODER_INT_H

#include "models/model_config_int.h"
#include "models/weights.h"

typedef struct lore_encoder lore_encoder;

/* Two packs can be on their way at once; the first lane's ops go before all others in the pool, the
 * second's after all others. */
typedef enum lore_encoder_lane {
    LORE_ENCODER_QUESTIONS = 0,
    LORE_ENCODER_BULK,
    LORE_ENCODER_LANES
} lore_encoder_lane;

LORE_MUST_USE lore_status lore_encoder_open(const lore_encoder_config *config,
                                            lore_weights *weights, lore_backend *backend,
                                            int32_t rows_max, int32_t sequences_max,
                                            lore_encoder **encoder, lore_error *err);
void lore_encoder_close(lore_encoder *encoder);

/* ids [row_start[sequences]], each below vocab; row_start [sequences + 1], no sequence empty or
 * longer than positions; vectors f32 [sequences, width], host. All borrowed for the call.
 * LORE_ERR_DEVICE, LORE_ERR_NOMEM. */
LORE_MUST_USE lore_status lore_encoder_forward(lore_encoder *encoder, lore_encoder_lane lane,
                                               const int32_t *ids, const int32_t *row_start,
                                               int32_t sequences, float *vectors, lore_error *err);

#endif
