/* The vectors of a real encoder, for the script that compares them with those of another program
 * (tests/e2e/test_minilm.py): reads a JSON array of texts and writes one f32 vector of each.
 *
 * What it works on comes in the environment, because the model is no part of the repository:
 * LORE_MINILM folder of the model, LORE_MINILM_TEXTS, LORE_MINILM_VECTORS files, LORE_PRECISION.
 * Alone it checks nothing and is skipped. */
#include "tests/unit/models_fixture.h"

#include "models/embedder.h"

#include <stdlib.h>

static lore_precision precision_of(const char *name)
{
    return strcmp(name, "int8") == 0  ? LORE_PRECISION_INT8
           : strcmp(name, "f32") == 0 ? LORE_PRECISION_F32
                                      : LORE_PRECISION_AUTO;
}

static lore_str *read_texts(const lore_json *root, int32_t count)
{
    lore_str *texts = lore_alloc((size_t)count * sizeof *texts);
    CHECK(texts != NULL);
    int32_t i = 0;
    for (const lore_json *n = lore_json_first(root); n != NULL; n = lore_json_next(n)) {
        texts[i++] = lore_json_str(n);
    }
    return texts;
}

TEST(texts_become_vectors)
{
    const char *folder = getenv("LORE_MINILM"), *from = getenv("LORE_MINILM_TEXTS");
    const char *to = getenv("LORE_MINILM_VECTORS"), *precision = getenv("LORE_PRECISION");
    if (folder == NULL || from == NULL || to == NULL || precision == NULL) {
        CHECK_SKIP("no model is given (tests/e2e/test_minilm.py gives one)");
    }
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    fixture f = fixture_open(LORE_BACKEND_CPU, precision_of(precision));
    lore_json *root = read_json(from);
    int32_t count = lore_json_count(root);
    lore_str *texts = read_texts(root, count);
    CHECK_OK(lore_embedder_open(folder, f.backend, &LIMITS, &embedder, &err), &err);
    size_t size_bytes = (size_t)count * (size_t)lore_embedder_dim(embedder) * sizeof(float);
    float *vectors = lore_alloc(size_bytes);
    CHECK(vectors != NULL);
    CHECK_OK(lore_embedder_encode_bulk(embedder, texts, count, vectors, &err), &err);
    lore_str bytes = {(const char *)vectors, size_bytes};
    CHECK_OK(lore_file_replace(to, bytes, &err), &err);
    lore_free(vectors);
    lore_free(texts);
    lore_embedder_close(embedder);
    lore_json_free(root);
    fixture_close(&f);
}

CHECK_MAIN(texts_become_vectors)
