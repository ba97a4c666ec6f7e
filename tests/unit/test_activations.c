/* What is seen of a matrix's inputs is what the forward pass puts in: behind a norm the mean
 * squares, divided by the squared weights of the norm, are one on average. */
#include "tests/unit/models_fixture.h"

#include "models/perplexity.h"

#define DECODER LORE_SOURCE_DIR "/weights/decoder"

enum { WIDTH = 512, FFN = 1536 };

static const char TEXT[] =
    "Every order can be changed until it is packed. After that, write to us: we will tell you "
    "whether the parcel can still be stopped, and what sending it back would cost.";

/* The mean over columns of mean square / norm weight ^ 2. */
static double share(const lore_activations *a, lore_weights *w, lore_backend *backend,
                    const char *module, const char *norm)
{
    static float means[WIDTH];
    lore_error err = {0};
    float *weights = NULL;
    double sum = 0;
    CHECK(lore_activations_find(a, module, means, WIDTH));
    CHECK_OK(lore_weights_vector(w, norm, WIDTH, backend, &weights, &err), &err);
    for (int i = 0; i < WIDTH; i++) {
        sum += (double)means[i] / ((double)weights[i] * (double)weights[i]);
    }
    lore_backend_free(backend, weights);
    return sum / WIDTH;
}

TEST(inputs_are_seen)
{
    static float means[FFN], others[FFN];
    lore_error err = {0};
    lore_activations *a = NULL;
    lore_weights *w = NULL;
    lore_perplexity_result plain, watched;
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    CHECK_OK(lore_activations_new(&a, &err), &err);
    CHECK(!lore_activations_find(a, "model.layers.0.mlp.down_proj", means, FFN));
    const lore_perplexity_options alone = {.window = 32}, with = {.window = 32, .activations = a};
    CHECK_OK(
        lore_perplexity(DECODER, f.backend, &LIMITS, lore_str_from(TEXT), &alone, &plain, &err),
        &err);
    CHECK_OK(
        lore_perplexity(DECODER, f.backend, &LIMITS, lore_str_from(TEXT), &with, &watched, &err),
        &err);
    CHECK_NEAR(plain.perplexity, watched.perplexity, 0); /* looking on changes nothing */
    CHECK_OK(lore_weights_open(DECODER, &LIMITS, &w, &err), &err);
    CHECK_NEAR(share(a, w, f.backend, "model.layers.0.self_attn.k_proj",
                     "model.layers.0.input_layernorm.weight"),
               1, 0.02);
    CHECK_NEAR(share(a, w, f.backend, "model.layers.7.mlp.gate_proj",
                     "model.layers.7.post_attention_layernorm.weight"),
               1, 0.02);
    CHECK(lore_activations_find(a, "model.layers.3.mlp.down_proj", means, FFN));
    CHECK(lore_activations_find(a, "model.layers.4.mlp.down_proj", others, FFN));
    CHECK(means[0] > 0 && memcmp(means, others, sizeof means) != 0);
    CHECK(lore_activations_find(a, "model.layers.3.self_attn.o_proj", means, WIDTH));
    CHECK(!lore_activations_find(a, "model.layers.3.self_attn.o_proj", means, WIDTH + 1));
    CHECK(!lore_activations_find(a, "model.layers.12.self_attn.o_proj", means, WIDTH));
    CHECK(!lore_activations_find(a, "model.layers.-1.self_attn.o_proj", means, WIDTH));
    CHECK(!lore_activations_find(a, "model.layers.99999999999.self_attn.o_proj", means, WIDTH));
    CHECK(!lore_activations_find(a, "model.layers.3", means, WIDTH));
    CHECK(!lore_activations_find(a, "lm_head", means, WIDTH));
    lore_weights_close(w);
    lore_activations_free(a);
    fixture_close(&f);
}

CHECK_MAIN(inputs_are_seen)
