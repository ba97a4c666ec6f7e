/* The line of texts before a lane of the encoder: whoever waits for vectors stands in it, and what
 * stands there at the same time travels in one pack.
 *
 * A request is the texts of one caller, tokenised, and where their vectors go. Nobody serves the
 * line; its callers do. Thread: any, each with requests of its own, which stay where they are from
 * joining until finishing. */
#ifndef LORE_MODELS_EMBED_LINE_INT_H
#define LORE_MODELS_EMBED_LINE_INT_H

#include "models/encoder_int.h"

typedef struct lore_embed_line lore_embed_line;

typedef struct lore_embed_text {
    const int32_t *ids; /* special tokens included */
    int32_t count;      /* 1 .. rows of the lane's room */
    int32_t index;      /* of its vector in the request */
} lore_embed_text;

typedef struct lore_embed_request {
    const lore_embed_text *texts;
    int32_t count; /* at least one */
    float *vectors;
    /* the line's own */
    int32_t taken;      /* texts that went into a pack */
    int32_t done;       /* texts that came back, with a vector or without */
    lore_status status; /* not LORE_OK: its pack failed, nothing of it is in the line */
    lore_error error;
    struct lore_embed_request *next;
} lore_embed_request;

/* The encoder is borrowed. room is the lane's. */
LORE_MUST_USE lore_status lore_embed_line_open(lore_encoder *encoder, lore_encoder_lane lane,
                                               const lore_encoder_room *room,
                                               lore_embed_line **line, lore_error *err);
void lore_embed_line_close(lore_embed_line *line);
/* Stand in line, with all but texts, count and vectors zero. */
void lore_embed_line_join(lore_embed_line *line, lore_embed_request *request);
/* Send packs on their way while there are texts in line and free seats; waits for none of them. */
void lore_embed_line_advance(lore_embed_line *line);
/* Until all texts of a request have their vectors, computing for others too; or the failure of a
 * pack that it had a text in. */
LORE_MUST_USE lore_status lore_embed_line_finish(lore_embed_line *line, lore_embed_request *request,
                                                 lore_error *err);
int64_t lore_embed_line_packs(const lore_embed_line *line); /* sent on their way so far */

#endif
