/* For tests: an embedder whose lanes have rooms of one's own, so that what a device does, several
 * packs on their way at once, can be seen on any backend. */
#ifndef LORE_MODELS_EMBEDDER_INT_H
#define LORE_MODELS_EMBEDDER_INT_H

#include "models/embedder.h"
#include "models/encoder_int.h"

/* rooms [LORE_ENCODER_LANES], each of at least the rows that the longest text may have; NULL: what
 * suits the backend, as lore_embedder_open has it. */
LORE_MUST_USE lore_status lore_embedder_open_rooms(const char *folder, lore_backend *backend,
                                                   const lore_encoder_room *rooms,
                                                   const lore_limits *limits,
                                                   lore_embedder **embedder, lore_error *err);

#endif
