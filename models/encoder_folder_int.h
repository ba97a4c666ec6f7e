/* An encoder's folder: its configuration read from all files that have a say, and the identity of
 * the vectors that it makes.
 *
 * Thread: any, no state. */
#ifndef LORE_MODELS_ENCODER_FOLDER_INT_H
#define LORE_MODELS_ENCODER_FOLDER_INT_H

#include "models/encoder_config_int.h"
#include "models/tokenizer.h"
#include "models/weights.h"

/* A sentence-transformers folder. Vectors are always normalised: they are compared by cosine. */
LORE_MUST_USE lore_status lore_encoder_folder_read(const char *folder, const lore_limits *limits,
                                                   lore_encoder_config *config, lore_error *err);
/* A cross-encoder's folder: a classifier with one label. */
LORE_MUST_USE lore_status lore_classifier_folder_read(const char *folder, const lore_limits *limits,
                                                      lore_encoder_config *config, lore_error *err);
/* The tokenizer must speak the encoder's ids and leave room for text between its special tokens. */
LORE_MUST_USE lore_status lore_encoder_folder_check(const char *folder,
                                                    const lore_encoder_config *config,
                                                    lore_tokenizer *tokenizer, lore_error *err);
/* What makes the vectors of two embedders comparable. The prompt of questions is not part of it: it
 * changes no vector that is stored. dense_weights [config->dense_count]. */
LORE_MUST_USE lore_status lore_encoder_fingerprint(const char *folder, const lore_limits *limits,
                                                   const lore_encoder_config *config,
                                                   const lore_weights *weights,
                                                   lore_weights *const *dense_weights, char hex[65],
                                                   lore_error *err);

#endif
