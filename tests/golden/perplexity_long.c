/* int8 activations change the perplexity of the default decoder by at most half a percent against
 * f32, on about 20,000 tokens of real documents (../shared/data/sample-docs). bf16 is printed
 * beside them.
 *
 * Documents are joined and read in windows of 512 tokens; each window is one sequence from its
 * first token on, and every token but the first counts. */
#include "tests/unit/models_fixture.h"

#include "models/perplexity.h"

#define DECODER LORE_SOURCE_DIR "/weights/decoder"
#define SAMPLES SHARED "/data/sample-docs"

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

static double perplexity(lore_precision precision, const char *label)
{
    lore_error err = {0};
    lore_arena arena;
    lore_buf text;
    lore_perplexity_result result;
    const lore_perplexity_options options = {.window = 512, .windows_max = 40};
    fixture f = fixture_open(LORE_BACKEND_CPU, precision);
    lore_arena_init(&arena, 0);
    lore_buf_init(&text, 0);
    read_folder(&arena, SAMPLES, &text);
    CHECK_OK(
        lore_perplexity(DECODER, f.backend, &LIMITS, lore_buf_str(&text), &options, &result, &err),
        &err);
    printf("cpu %s: perplexity %.4f on %lld tokens\n", label, result.perplexity,
           (long long)result.tokens);
    CHECK(result.tokens >= 20000);
    lore_buf_destroy(&text);
    lore_arena_destroy(&arena);
    fixture_close(&f);
    return result.perplexity;
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
