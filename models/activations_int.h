/* Looking on while a decoder steps. */
#ifndef LORE_MODELS_ACTIVATIONS_INT_H
#define LORE_MODELS_ACTIVATIONS_INT_H

#include "models/activations.h"
#include "models/decoder.h"

/* From here to its close the decoder's steps add to `activations`, which must outlive it. The
 * backend is one whose memory is the host's: others are LORE_ERR_UNSUPPORTED. */
LORE_MUST_USE lore_status lore_activations_attach(lore_activations *activations,
                                                  lore_decoder *decoder, lore_error *err);

#endif
