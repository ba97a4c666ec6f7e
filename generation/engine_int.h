/* What the engine needs of a decoder, so that tests can put a failing or instant one in its place.
 *
 * The two users are lore_engine_start, with models/decoder.h behind it, and the engine's tests,
 * which let steps fail, stall and answer by rule. */
#ifndef LORE_GENERATION_ENGINE_INT_H
#define LORE_GENERATION_ENGINE_INT_H

#include "generation/adapters_int.h"
#include "generation/engine.h"

typedef struct lore_engine_model {
    void *self;
    /* As lore_decoder_submit and lore_decoder_collect. Called by the engine's thread only. */
    lore_status (*submit)(void *self, const lore_step *step, lore_error *err);
    lore_status (*collect)(void *self, int32_t *ids, float *logprobs, lore_error *err);
    /* As lore_decoder_prepare; NULL: nothing to prepare. */
    lore_status (*prepare)(void *self, bool *is_done, lore_error *err);
    void (*close)(void *self);     /* NULL: nothing to close */
    const lore_decoder_info *info; /* these two live until close */
    const lore_tokenizer *tokenizer;
    lore_adapter_source adapters; /* zeroed: takes none; base_name is info's */
} lore_engine_model;

/* Bytes that adapters may take of a GPU with so many free ones: a sixteenth of them, 8 GiB at most,
 * unless the limit says otherwise. *kept_bytes: how many of them keys and values do not get, which
 * is none where neither adapters nor a limit are configured: one that is loaded while serving then
 * takes what is left. */
int64_t lore_engine_adapter_room(const lore_config *config, int64_t free_bytes,
                                 int64_t *kept_bytes);

/* lore_engine_start with a given model, which is closed by stop, and also when this fails. */
LORE_MUST_USE lore_status lore_engine_start_model(const lore_engine_model *model,
                                                  const lore_limits *limits, lore_engine **engine,
                                                  lore_error *err);

#endif
