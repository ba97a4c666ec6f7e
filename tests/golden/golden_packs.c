/* The vector of a text does not depend on what else is encoded with it, nor on how many threads do
 * it: the same bits alone, in packs of any company and order, on one thread and on several. What
 * `lore digest` says of two ingests rests on this. */
#include "base/config.h"
#include "base/thread.h"
#include "models/embedder.h"
#include "tests/check.h"

#include <stdio.h>
#include <string.h>

enum { TEXTS = 16, TEXT_CAP = 700, DIM_MAX = 1024 };

static char texts[TEXTS][TEXT_CAP];
static float alone[TEXTS][DIM_MAX];

/* Lengths from one word to more than a pack of short ones; English and Chinese. */
static void make_texts(void)
{
    static const char *const words[] = {"harbour ",  "of ", "berths ", "the pilot waits, ",
                                        "船隻航行 ", "42 ", "it's ",   "opens; "};
    uint64_t state = 7;
    for (int i = 0; i < TEXTS; i++) {
        int count = 1 + i * i / 3;
        for (int j = 0; j < count && strlen(texts[i]) + 32 < TEXT_CAP; j++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            strncat(texts[i], words[state >> 61], TEXT_CAP - strlen(texts[i]) - 1);
        }
    }
}

static lore_embedder *open_embedder(lore_backend *backend, const lore_limits *limits)
{
    lore_error err;
    lore_embedder *embedder = NULL;
    CHECK_OK(
        lore_embedder_open(LORE_SOURCE_DIR "/weights/encoder", backend, limits, &embedder, &err),
        &err);
    CHECK(lore_embedder_dim(embedder) <= DIM_MAX);
    return embedder;
}

static void check_same(const lore_embedder *embedder, const float *vectors, const int *order,
                       int count, const char *what)
{
    size_t dim = (size_t)lore_embedder_dim(embedder);
    for (int i = 0; i < count; i++) {
        if (memcmp(vectors + (size_t)i * dim, alone[order[i]], dim * sizeof *vectors) != 0) {
            CHECK_STOP("%s: text %d of %zu bytes has another vector than alone", what, order[i],
                       strlen(texts[order[i]]));
        }
    }
}

/* All texts, from the last to the first and shuffled, at once and in calls of seven. */
static void check_packs(lore_embedder *embedder, int orders, const char *what)
{
    static float vectors[TEXTS * DIM_MAX];
    static const int steps[] = {TEXTS - 1, 7, 1}; /* without a divisor in common with TEXTS */
    lore_error err;
    for (int k = 0; k < orders; k++) {
        lore_str company[TEXTS];
        int order[TEXTS];
        for (int i = 0; i < TEXTS; i++) {
            order[i] = (i * steps[k] + k) % TEXTS;
            company[i] = lore_str_from(texts[order[i]]);
        }
        CHECK_OK(lore_embedder_encode_bulk(embedder, company, TEXTS, vectors, &err), &err);
        check_same(embedder, vectors, order, TEXTS, what);
        for (int i = 0; i + 7 <= TEXTS; i += 7) {
            CHECK_OK(lore_embedder_encode_passages(embedder, company + i, 7, vectors, &err), &err);
            check_same(embedder, vectors, order + i, 7, what);
        }
    }
}

static void check_precision(lore_precision precision, int orders)
{
    lore_config config;
    lore_error err;
    lore_config_default(&config);
    for (int32_t threads = 1; threads <= 2; threads++) {
        lore_pool *pool = NULL;
        lore_backend *backend = NULL;
        char what[64];
        CHECK_OK(lore_pool_new(threads, &pool, &err), &err);
        const lore_backend_options options = {
            .kind = LORE_BACKEND_CPU, .pool = pool, .precision = precision};
        CHECK_OK(lore_backend_open(&options, &backend, &err), &err);
        lore_embedder *embedder = open_embedder(backend, &config.limits);
        for (int i = 0; i < TEXTS && threads == 1; i++) {
            lore_str text = lore_str_from(texts[i]);
            CHECK_OK(lore_embedder_encode_passages(embedder, &text, 1, alone[i], &err), &err);
        }
        snprintf(what, sizeof what, "%s, %d threads", lore_precision_name(precision), (int)threads);
        check_packs(embedder, orders, what);
        lore_embedder_close(embedder);
        lore_backend_close(backend);
        lore_pool_free(pool);
    }
}

TEST(company_and_threads)
{
    make_texts();
    check_precision(LORE_PRECISION_AUTO, 3); /* int8, as the shipped weights are */
    check_precision(LORE_PRECISION_F32, 1);
}

CHECK_MAIN(company_and_threads)
