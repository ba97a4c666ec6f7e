/* Opening the shipped models with every call on a file and every thread start failing in turn, and
 * many of the allocations (tests/fault/sweep.h). */
#define SWEEP_EVERY 1
#include "tests/fault/sweep.h"

#include "base/config.h"
#include "models/decoder.h"
#include "models/embedder.h"

#define ENCODER LORE_SOURCE_DIR "/weights/encoder"
#define DECODER LORE_SOURCE_DIR "/weights/decoder"

/* Their vocabularies make a hundred thousand allocations, all alike: even this sweep takes samples
 * of them. */
static int64_t sample_model(int64_t n)
{
    return n + 1 + n / 32;
}

typedef struct models {
    lore_config config;
    lore_pool *pool;
    lore_backend *backend;
} models;

static lore_status open_models(void *self, lore_error *err)
{
    models *m = self;
    lore_embedder *embedder = NULL;
    lore_decoder *decoder = NULL;
    lore_status status = lore_embedder_open(ENCODER, m->backend, &m->config.limits, &embedder, err);
    if (status == LORE_OK) {
        status = lore_decoder_open(DECODER, m->backend, &m->config.limits, NULL, &decoder, err);
    }
    lore_decoder_close(decoder);
    lore_embedder_close(embedder);
    return status;
}

static int32_t nothing_to_check(void *self, lore_status status)
{
    (void)self;
    (void)status;
    return 0;
}

TEST(opening_models)
{
    static models m;
    lore_error err;
    lore_config_default(&m.config);
    CHECK_OK(lore_pool_new(2, &m.pool, &err), &err);
    lore_backend_options options = {.kind = LORE_BACKEND_CPU, .pool = m.pool};
    CHECK_OK(lore_backend_open(&options, &m.backend, &err), &err);
    sweep s = {.name = "opening models", .run = open_models, .check = nothing_to_check, .self = &m};
    sweep_files(&s);
    s.next = sample_model;
    sweep_allocations(&s);
    lore_backend_close(m.backend);
    lore_pool_free(m.pool);
}

CHECK_MAIN(opening_models)
