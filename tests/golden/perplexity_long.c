/* int8 activations change the perplexity of the default decoder by at most half a percent against
 * f32, on about 20,000 tokens of real documents (../shared/data/sample-docs). bf16 is printed
 * beside them.
 *
 * Documents are joined and read in windows of 512 tokens; each window is one sequence from its
 * first token on, and every token but the first counts. */
#include "tests/unit/models_fixture.h"

#include "models/decoder.h"

#define DECODER LORE_SOURCE_DIR "/weights/decoder"
#define SAMPLES SHARED "/data/sample-docs"

enum { WINDOW = 512, WINDOWS = 40, PAGE = 32 };

/* Append the text of all files under the folder, in order of their names, up to a megabyte. */
static void read_folder(lore_arena *arena, const char *folder, lore_buf *text)
{
    lore_error err = {0};
    lore_str *names = NULL;
    size_t count = 0;
    CHECK_OK(lore_dir_list(arena, folder, 1000, &names, &count, &err), &err);
    for (size_t i = 0; i < count; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/" LORE_STR_FMT, folder, LORE_STR_ARG(names[i]));
        if (lore_file_is_dir(path)) {
            read_folder(arena, path, text);
        } else if (i % 3 == 0) { /* a third of each folder: all kinds within the budget */
            CHECK_OK(lore_file_read(path, 1 << 20, text, &err), &err);
            lore_buf_byte(text, '\n');
        }
    }
}

static double window_loss(lore_decoder *decoder, const int32_t *ids, float *logits)
{
    static int32_t pages[WINDOW / PAGE], rows[WINDOW], drawn[WINDOW];
    static float logprobs[WINDOW];
    static lore_sample samples[WINDOW];
    int32_t row_start[] = {0, WINDOW}, past[] = {0}, page_start[] = {0, WINDOW / PAGE};
    int32_t vocab = lore_decoder_get_info(decoder)->vocab;
    lore_error err = {0};
    double loss = 0;
    for (int32_t i = 0; i < WINDOW / PAGE; i++) {
        pages[i] = i;
    }
    for (int32_t i = 0; i < WINDOW - 1; i++) {
        rows[i] = i;
        samples[i].top_p = 1;
    }
    lore_step step = {ids,
                      {1, WINDOW, row_start, past, page_start, pages, WINDOW, WINDOW},
                      rows,
                      samples,
                      WINDOW - 1};
    CHECK_OK(lore_decoder_step(decoder, &step, drawn, logprobs, logits, &err), &err);
    for (int32_t i = 0; i < WINDOW - 1; i++) {
        const float *row = logits + (size_t)i * (size_t)vocab;
        double sum = 0;
        for (int32_t k = 0; k < vocab; k++) {
            sum += exp((double)row[k] - (double)row[drawn[i]]);
        }
        loss += log(sum) + (double)row[drawn[i]] - (double)row[ids[i + 1]];
    }
    return loss;
}

static double perplexity(lore_precision precision, const char *label)
{
    lore_error err = {0};
    lore_decoder *decoder = NULL;
    lore_arena arena;
    lore_buf text;
    lore_tokens tokens;
    fixture f = fixture_open(LORE_BACKEND_CPU, precision);
    lore_decoder_options options = {.rows_max = WINDOW,
                                    .sequences_max = WINDOW,
                                    .page_tokens = PAGE,
                                    .page_count = WINDOW / PAGE};
    CHECK_OK(lore_decoder_open(DECODER, f.backend, &LIMITS, &options, &decoder, &err), &err);
    lore_arena_init(&arena, 0);
    lore_buf_init(&text, 0);
    read_folder(&arena, SAMPLES, &text);
    CHECK_OK(lore_tokenizer_encode(lore_decoder_tokenizer(decoder), lore_buf_str(&text),
                                   (lore_encode_options){0}, &arena, &tokens, &err),
             &err);
    float *logits = malloc(WINDOW * (size_t)lore_decoder_get_info(decoder)->vocab * sizeof(float));
    CHECK(logits != NULL);
    double loss = 0;
    int32_t windows = 0, stride = tokens.count / WINDOW / WINDOWS; /* spread over all documents */
    CHECK(stride >= 1);
    for (int32_t w = 0; w < WINDOWS; w++, windows++) {
        loss += window_loss(decoder, tokens.ids + (size_t)w * (size_t)stride * WINDOW, logits);
    }
    double result = exp(loss / ((double)windows * (WINDOW - 1)));
    printf("cpu %s: perplexity %.4f on %d tokens\n", label, result, windows * (WINDOW - 1));
    free(logits);
    lore_buf_destroy(&text);
    lore_arena_destroy(&arena);
    lore_decoder_close(decoder);
    fixture_close(&f);
    return result;
}

TEST(int8_keeps_the_perplexity)
{
    if (!lore_file_is_dir(SAMPLES)) {
        CHECK_SKIP("../shared/data/sample-docs is not there");
    }
    double f32 = perplexity(LORE_PRECISION_F32, "f32");
    double int8 = perplexity(LORE_PRECISION_INT8, "int8");
    printf("int8 / f32 - 1 = %+.3f %%\n", 100 * (int8 / f32 - 1));
    CHECK(fabs(int8 / f32 - 1) <= 0.005);
}

TEST(bf16_keeps_the_perplexity)
{
    if (!lore_file_is_dir(SAMPLES)) {
        CHECK_SKIP("../shared/data/sample-docs is not there");
    }
    double f32 = perplexity(LORE_PRECISION_F32, "f32");
    double bf16 = perplexity(LORE_PRECISION_BF16, "bf16");
    printf("bf16 / f32 - 1 = %+.3f %%\n", 100 * (bf16 / f32 - 1));
    CHECK(fabs(bf16 / f32 - 1) <= 0.005);
}

CHECK_MAIN(int8_keeps_the_perplexity, bf16_keeps_the_perplexity)
