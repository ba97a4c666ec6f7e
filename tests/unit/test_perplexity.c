/* Perplexity is the exponential of the mean loss that the decoder's logits give, however the text
 * is cut into steps; texts without a prediction and decoders that are none are refused. */
#include "tests/unit/models_fixture.h"

#include "models/decoder.h"
#include "models/perplexity.h"

#define DECODER LORE_SOURCE_DIR "/weights/decoder"

static const char TEXT[] =
    "The warranty covers defects in material and workmanship for two years from the date of "
    "purchase. It does not cover damage caused by water, by falls or by repairs that others made. "
    "Send the product, with a copy of the receipt, to the address below; we repair or replace it "
    "within fourteen days and pay for the way back. Batteries are covered for six months only, "
    "because they wear out with use. If you have questions, write to us or call between nine and "
    "five on working days.";

enum { WINDOW = 80, PAGE = 32 };

/* The loss of the first `count` ids as one sequence in one step. */
static double loss_of(lore_decoder *decoder, const int32_t *ids, int32_t count)
{
    static int32_t rows[WINDOW], drawn[WINDOW], pages[WINDOW / PAGE + 1];
    static float logprobs[WINDOW];
    static lore_sample samples[WINDOW];
    int32_t row_start[] = {0, count}, past[] = {0}, page_start[] = {0, WINDOW / PAGE + 1};
    int32_t vocab = lore_decoder_get_info(decoder)->vocab;
    lore_error err = {0};
    double loss = 0;
    for (int32_t i = 0; i < count; i++) {
        rows[i] = i;
        samples[i].top_p = 1;
    }
    for (int32_t i = 0; i < WINDOW / PAGE + 1; i++) {
        pages[i] = i;
    }
    float *logits = malloc((size_t)count * (size_t)vocab * sizeof(float));
    CHECK(logits != NULL);
    lore_step step = {.ids = ids,
                      .batch = {1, count, row_start, past, page_start, pages, count, count},
                      .logits_rows = rows,
                      .samples = samples,
                      .logits_count = count};
    CHECK_OK(lore_decoder_step(decoder, &step, drawn, logprobs, logits, &err), &err);
    for (int32_t i = 0; i + 1 < count; i++) {
        const float *row = logits + (size_t)i * (size_t)vocab;
        double sum = 0;
        for (int32_t k = 0; k < vocab; k++) {
            sum += exp((double)row[k] - (double)row[ids[i + 1]]);
        }
        loss += log(sum);
    }
    free(logits);
    return loss;
}

TEST(it_is_the_mean_loss)
{
    lore_error err = {0};
    lore_decoder *decoder = NULL;
    lore_arena arena;
    lore_tokens tokens;
    lore_perplexity_result result;
    int32_t prefix = 0;
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    const lore_decoder_options options = {.rows_max = WINDOW,
                                          .sequences_max = WINDOW,
                                          .page_tokens = PAGE,
                                          .page_count = WINDOW / PAGE + 1};
    lore_arena_init(&arena, 0);
    CHECK_OK(lore_decoder_open(DECODER, f.backend, &LIMITS, &options, &decoder, &err), &err);
    const lore_tokenizer *tokenizer = lore_decoder_tokenizer(decoder);
    CHECK_OK(lore_tokenizer_encode(tokenizer, lore_str_from(TEXT), (lore_encode_options){0}, &arena,
                                   &tokens, &err),
             &err);
    (void)lore_tokenizer_prefix(tokenizer, &prefix);
    CHECK_INT(prefix, 0); /* this model begins with the text itself */
    CHECK(tokens.count >= WINDOW);
    double wanted = loss_of(decoder, tokens.ids, WINDOW) / (WINDOW - 1);
    const lore_perplexity_options one = {.window = WINDOW, .windows_max = 1};
    CHECK_OK(lore_perplexity(DECODER, f.backend, &LIMITS, lore_str_from(TEXT), &one, &result, &err),
             &err);
    CHECK_INT(result.tokens, WINDOW - 1); /* in two pieces */
    CHECK_NEAR(log(result.perplexity), wanted, 1e-4);
    const lore_perplexity_options whole = {.window = 4096}; /* a short text is one window */
    CHECK_OK(
        lore_perplexity(DECODER, f.backend, &LIMITS, lore_str_from(TEXT), &whole, &result, &err),
        &err);
    CHECK_INT(result.tokens, tokens.count - 1);
    lore_decoder_close(decoder);
    lore_arena_destroy(&arena);
    fixture_close(&f);
}

static bool give_up(void *self, int64_t done, int64_t total)
{
    *(int64_t *)self = done;
    return done < 2 && total > 2;
}

TEST(it_refuses_and_can_be_interrupted)
{
    lore_error err = {0};
    lore_perplexity_result result;
    int64_t windows = 0;
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_INT8);
    const lore_perplexity_options options = {.window = 16, .progress = give_up, .self = &windows};
    CHECK_FAILS(lore_perplexity(DECODER, f.backend, &LIMITS, LORE_STR(""), &options, &result, &err),
                LORE_ERR_INVALID, &err, "no perplexity");
    CHECK_FAILS(
        lore_perplexity(DECODER, f.backend, &LIMITS, lore_str_from(TEXT), &options, &result, &err),
        LORE_ERR_CANCELLED, &err, "interrupted");
    CHECK_INT(windows, 2);
    CHECK(lore_perplexity(LORE_SOURCE_DIR "/weights/encoder", f.backend, &LIMITS,
                          lore_str_from(TEXT), &options, &result, &err) != LORE_OK);
    fixture_close(&f);
}

CHECK_MAIN(it_is_the_mean_loss, it_refuses_and_can_be_interrupted)
