/* Large packs on a GPU: texts of all lengths in packs of thousands of rows, two on their way at
 * once, from several callers, give the vectors that the processor gives one small pack after the
 * other; and questions get theirs meanwhile. */
#include "tests/unit/models_fixture.h"

#include "models/embedder.h"

#include <math.h>
#include <pthread.h>

#define ENCODER LORE_SOURCE_DIR "/weights/encoder"
#define DOCUMENT LORE_SOURCE_DIR "/docs/architecture.md"

enum { TEXTS = 1500, DIM = 384, CALLERS = 4, ROUNDS = 4 };

static lore_buf document;
static lore_str texts[TEXTS];
static float expected[TEXTS][DIM];

/* Pieces of a document, most of some hundred bytes, some of a few and some too long. */
static void cut_texts(void)
{
    lore_error err = {0};
    lore_buf_init(&document, 0);
    CHECK_OK(lore_file_read(DOCUMENT, 1 << 20, &document, &err), &err);
    for (size_t i = 0; i < document.len; i++) { /* pieces begin and end anywhere */
        document.ptr[i] = (unsigned char)document.ptr[i] < 0x80 ? document.ptr[i] : ' ';
    }
    const lore_str all = lore_buf_str(&document);
    size_t at = 0;
    for (size_t i = 0; i < TEXTS; i++) {
        const size_t length = i % 50 == 0 ? 3000 : i % 7 == 0 ? 1 + i % 30 : 40 + i * 37 % 600;
        at = at + length > all.len ? i % 100 : at;
        texts[i] = lore_str_slice(all, at, at + length);
        at += length;
    }
}

/* What the GPU's encoder and the processor's in f32 make of the same rows may part by rounding. */
static double smallest_cosine(const float *got, const float *want, int32_t count)
{
    double worst = 1.0;
    for (int32_t i = 0; i < count; i++) {
        double ab = 0.0, aa = 0.0, bb = 0.0;
        for (int32_t k = 0; k < DIM; k++) {
            const double a = (double)got[i * DIM + k], b = (double)want[i * DIM + k];
            ab += a * b;
            aa += a * a;
            bb += b * b;
        }
        const double cosine = ab / sqrt(aa * bb);
        worst = cosine >= worst ? worst : cosine; /* a NaN sticks */
    }
    return worst;
}

static void fill_expected(void)
{
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    CHECK_OK(lore_embedder_open(ENCODER, f.backend, &LIMITS, &embedder, &err), &err);
    CHECK_OK(lore_embedder_encode_bulk(embedder, texts, TEXTS, expected[0], &err), &err);
    lore_embedder_close(embedder);
    fixture_close(&f);
}

typedef struct caller {
    lore_embedder *embedder;
    int32_t number;
    double worst;
} caller;

/* The last caller asks one question after the other. */
static void *call_often(void *self)
{
    caller *c = self;
    float *vectors = lore_alloc(sizeof expected);
    c->worst = vectors != NULL ? 1.0 : 0.0;
    for (int32_t i = 0; i < ROUNDS && vectors != NULL; i++) {
        const int32_t first = c->number * 100 + i * 30;
        const int32_t count = c->number == CALLERS - 1 ? 1 : TEXTS - first;
        lore_status status =
            count == 1
                ? lore_embedder_encode(c->embedder, &texts[first], 1, vectors, NULL)
                : lore_embedder_encode_bulk(c->embedder, texts + first, count, vectors, NULL);
        const double worst =
            status == LORE_OK ? smallest_cosine(vectors, expected[first], count) : 0.0;
        c->worst = worst >= c->worst ? c->worst : worst;
    }
    lore_free(vectors);
    return NULL;
}

static void compare(lore_precision precision, double bar)
{
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    caller callers[CALLERS];
    pthread_t threads[CALLERS];
    fixture f = fixture_open(LORE_BACKEND_CUDA, precision);
    cut_texts();
    fill_expected();
    CHECK_OK(lore_embedder_open(ENCODER, f.backend, &LIMITS, &embedder, &err), &err);
    CHECK_INT(lore_embedder_bulk_calls(embedder), 2);
    for (int32_t i = 0; i < CALLERS; i++) {
        callers[i] = (caller){.embedder = embedder, .number = i};
        CHECK(pthread_create(&threads[i], NULL, call_often, &callers[i]) == 0);
    }
    for (int32_t i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int32_t i = 0; i < CALLERS; i++) {
        printf("caller %d: smallest cosine %.7f\n", (int)i, callers[i].worst);
        CHECK(callers[i].worst >= bar);
    }
    printf("%d packs\n", (int)lore_embedder_pack_count(embedder));
    lore_embedder_close(embedder);
    lore_buf_destroy(&document);
    fixture_close(&f);
}

TEST(large_packs_f32)
{
    compare(LORE_PRECISION_F32, .99999);
}

TEST(large_packs_bf16)
{
    compare(LORE_PRECISION_BF16, .9995);
}

CHECK_MAIN(large_packs_f32, large_packs_bf16)
