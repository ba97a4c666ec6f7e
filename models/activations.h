/* What goes into each matrix of a decoder's layers: the mean square of every input channel, over
 * the rows of a text. A channel that carries much makes the errors of its column count.
 *
 * Filled by lore_perplexity, used by lore_quantize. Thread: one at a time. */
#ifndef LORE_MODELS_ACTIVATIONS_H
#define LORE_MODELS_ACTIVATIONS_H

#include "base/str.h"

typedef struct lore_activations lore_activations;

LORE_MUST_USE lore_status lore_activations_new(lore_activations **activations, lore_error *err);
void lore_activations_free(lore_activations *activations);
/* The mean squares of the inputs of "model.layers.3.mlp.down_proj" and the like, into means[cols].
 * False where nothing was seen of it, or it has other columns. */
bool lore_activations_find(const lore_activations *activations, const char *module, float *means,
                           int32_t cols);

#endif
