/* Encoders: packed token ids to one vector a sequence. Knows no text.
 *
 * One forward pass serves all families; lore_encoder_family says which parts it has. A pack is
 * tokens of many sequences, one behind the other. Packs are computed in seats, each with a queue
 * and scratch of its own, taken at opening: the caller fills the pack of a seat, submits it and
 * waits for it, and where the backend computes beside the processor fills another one meanwhile.
 * The seats of a lane are of one priority. backend and weights are borrowed and must outlive the
 * encoder (a table's rows stay in the mapped file). Thread: a seat belongs to one at a time. */
#ifndef LORE_MODELS_ENCODER_INT_H
#define LORE_MODELS_ENCODER_INT_H

#include "models/encoder_config_int.h"
#include "models/weights.h"

typedef struct lore_encoder lore_encoder;

/* The first lane's ops go before all others of the backend, the second's after all others. */
typedef enum lore_encoder_lane {
    LORE_ENCODER_QUESTIONS = 0,
    LORE_ENCODER_BULK,
    LORE_ENCODER_LANES
} lore_encoder_lane;

enum { LORE_ENCODER_SEATS_MAX = 2 };

/* What a lane has memory for. */
typedef struct lore_encoder_room {
    int32_t rows;      /* tokens of a pack; at least config->tokens_max */
    int32_t sequences; /* of a pack */
    int32_t seats;     /* packs that may be on their way at once: 1 .. LORE_ENCODER_SEATS_MAX */
} lore_encoder_room;

/* The room that suits a backend: a processor wants packs that its caches hold, one at a time; a
 * device packs that fill it, and the next one there when one ends. dtype: of what passes between
 * two ops. */
lore_encoder_room lore_encoder_choose_room(const lore_encoder_config *config,
                                           lore_backend_kind kind, lore_dtype dtype,
                                           lore_encoder_lane lane);

typedef struct lore_encoder_options {
    lore_encoder_room rooms[LORE_ENCODER_LANES];
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

/* Memory of the encoder, where copies to and from the backend are quickest. */
typedef struct lore_encoder_pack {
    int32_t *ids;       /* [row_start[sequences]], each below vocab */
    int32_t *types;     /* likewise, each below config->types; all 0 until somebody writes */
    int32_t *row_start; /* [sequences + 1]; no sequence empty or longer than tokens_max */
    int32_t sequences;
    int64_t deadline_ns; /* lore_clock_ns: looked at before every layer is submitted; 0: none */
    float *vectors; /* [sequences, dim], of length 1 where config->is_normalised; after the wait */
} lore_encoder_pack;

/* The pack of a seat, below its lane's room->seats. */
lore_encoder_pack *lore_encoder_pack_of(lore_encoder *encoder, lore_encoder_lane lane,
                                        int32_t seat);
/* Begin to compute the pack of a seat; until the wait for it has ended its memory is the encoder's.
 * After a failure nothing is under way. LORE_ERR_DEVICE, LORE_ERR_NOMEM, LORE_ERR_TIMEOUT. */
LORE_MUST_USE lore_status lore_encoder_submit(lore_encoder *encoder, lore_encoder_lane lane,
                                              int32_t seat, lore_error *err);
/* Until the vectors of a submitted pack are there. LORE_ERR_DEVICE. */
LORE_MUST_USE lore_status lore_encoder_wait(lore_encoder *encoder, lore_encoder_lane lane,
                                            int32_t seat, lore_error *err);

#endif
