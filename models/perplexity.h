/* How well a decoder predicts a text: the exponential of its mean loss in nats a token.
 *
 * The text is cut into windows of as many tokens, each read as one sequence from its beginning
 * (with the tokens that the tokenizer puts before every text); every token of it but the first
 * counts. So figures are comparable between copies of one model, not with figures of a sliding
 * window. Thread: any; the backend is used by nobody else meanwhile. */
#ifndef LORE_MODELS_PERPLEXITY_H
#define LORE_MODELS_PERPLEXITY_H

#include "base/config.h"
#include "kernels/backend.h"
#include "models/activations.h"

typedef struct lore_perplexity_options {
    int32_t window;                /* tokens; 0: 512; at most the model's context */
    int32_t windows_max;           /* spread evenly over the text; 0: all there are */
    lore_activations *activations; /* a new one to be filled on the way; may be NULL */
    bool (*progress)(void *self, int64_t done, int64_t total); /* windows; false gives up */
    void *self;
} lore_perplexity_options;

typedef struct lore_perplexity_result {
    double perplexity;
    int64_t tokens; /* that were predicted */
} lore_perplexity_result;

/* Of the decoder in `folder`, which is opened for it. A text of less than two tokens is
 * LORE_ERR_INVALID; otherwise fails as lore_decoder_open and lore_decoder_step. */
LORE_MUST_USE lore_status lore_perplexity(const char *folder, lore_backend *backend,
                                          const lore_limits *limits, lore_str text,
                                          const lore_perplexity_options *options,
                                          lore_perplexity_result *result, lore_error *err);

#endif
