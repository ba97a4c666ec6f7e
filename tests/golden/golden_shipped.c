/* Logits of the shipped decoder on a backend beside those of ref, which computes in f32: a page of
 * English and one of Chinese of the help centre, both in one step and with logits at some of their
 * tokens. A trained model of real size: here rounding averages out, as it does not in the tiny ones
 * of golden_families.c.
 *
 * GOLDEN_CUDA: the device alone. */
#include "base/config.h"
#include "base/file.h"
#include "base/mem.h"
#include "models/decoder.h"
#include "tests/unit/models_fixture.h"

#include <math.h>
#include <string.h>

enum { TEXTS = 2, TOKENS = 64, EVERY = 4, ROWS = TEXTS * TOKENS, WANTED = ROWS / EVERY };

static const char *const FILES[TEXTS] = {
    LORE_SOURCE_DIR "/corpora/help/en/router/update-firmware-nest-r1.html",
    LORE_SOURCE_DIR "/corpora/help/zh/router/r1-factory-reset.md"};

typedef struct subject {
    fixture f;
    lore_decoder *decoder;
} subject;

static subject open_shipped(lore_backend_kind kind, lore_precision precision, lore_dtype kv_dtype)
{
    lore_config config;
    lore_config_default(&config);
    const lore_decoder_options options = {
        .rows_max = ROWS, .sequences_max = WANTED, .page_count = 8, .kv_dtype = kv_dtype};
    subject s = {.f = fixture_open(kind, precision)};
    lore_error err = {0};
    CHECK_OK(lore_decoder_open(LORE_SOURCE_DIR "/weights/decoder", s.f.backend, &config.limits,
                               &options, &s.decoder, &err),
             &err);
    return s;
}

static void close_shipped(subject *s)
{
    lore_decoder_close(s->decoder);
    fixture_close(&s->f);
}

/* The tokens behind the first third of each page. */
static void read_texts(const lore_decoder *d, int32_t *ids)
{
    lore_arena arena;
    lore_arena_init(&arena, 0);
    for (int32_t i = 0; i < TEXTS; i++) {
        lore_error err = {0};
        lore_buf text;
        lore_tokens tokens = {0};
        lore_buf_init(&text, 1 << 20);
        CHECK_OK(lore_file_read(FILES[i], 1 << 20, &text, &err), &err);
        CHECK_OK(lore_tokenizer_encode(lore_decoder_tokenizer(d), (lore_str){text.ptr, text.len},
                                       (lore_encode_options){0}, &arena, &tokens, &err),
                 &err);
        CHECK(tokens.count >= 2 * TOKENS);
        memcpy(ids + i * TOKENS, tokens.ids + tokens.count / 3, TOKENS * sizeof *ids);
        lore_buf_destroy(&text);
    }
    lore_arena_destroy(&arena);
}

/* [WANTED, vocab]; lore_free. */
static float *logits_of(const subject *s)
{
    static int32_t ids[ROWS], rows[WANTED], drawn[WANTED];
    static float logprobs[WANTED];
    static lore_sample samples[WANTED];
    const lore_decoder_info *info = lore_decoder_get_info(s->decoder);
    const int32_t each = (TOKENS + info->page_tokens - 1) / info->page_tokens;
    const int32_t row_start[TEXTS + 1] = {0, TOKENS, ROWS}, past[TEXTS] = {0, 0};
    const int32_t page_start[TEXTS + 1] = {0, each, 2 * each};
    int32_t pages[8];
    CHECK(2 * each <= info->page_count && info->page_count <= 8);
    for (int32_t i = 0; i < 2 * each; i++) {
        pages[i] = i;
    }
    for (int32_t i = 0; i < WANTED; i++) {
        rows[i] = (i + 1) * EVERY - 1;
        samples[i] = (lore_sample){.top_p = 1};
    }
    read_texts(s->decoder, ids);
    const lore_step step = {
        .ids = ids,
        .batch = {TEXTS, ROWS, row_start, past, page_start, pages, TOKENS, TOKENS},
        .logits_rows = rows,
        .samples = samples,
        .logits_count = WANTED};
    float *logits = lore_alloc((size_t)WANTED * (size_t)info->vocab * sizeof *logits);
    lore_error err = {0};
    CHECK(logits != NULL);
    CHECK_OK(lore_decoder_step(s->decoder, &step, drawn, logprobs, logits, &err), &err);
    return logits;
}

/* rms(difference) / rms(ref) over all logits, within `most`. */
static void check_beside_ref(lore_backend_kind kind, lore_precision precision, double most)
{
    subject s = open_shipped(kind, precision, LORE_BF16);
    const int32_t vocab = lore_decoder_get_info(s.decoder)->vocab;
    float *got = logits_of(&s);
    close_shipped(&s);
    subject ref = open_shipped(LORE_BACKEND_REF, LORE_PRECISION_F32, LORE_F32);
    float *wanted = logits_of(&ref);
    close_shipped(&ref);
    double difference = 0, size = 0, worst = 0;
    for (int32_t r = 0; r < WANTED; r++) {
        double row = 0, of_row = 0;
        for (int32_t i = r * vocab; i < (r + 1) * vocab; i++) {
            const double error = (double)got[i] - (double)wanted[i];
            row += error * error;
            of_row += (double)wanted[i] * (double)wanted[i];
        }
        worst = fmax(worst, sqrt(row / of_row));
        difference += row;
        size += of_row;
    }
    const double error = sqrt(difference / size);
    printf("%s: error %.2g of the logits' size, of one row at most %.2g\n",
           lore_precision_name(precision), error, worst);
    CHECK(error <= most);
    lore_free(got);
    lore_free(wanted);
}

#ifdef GOLDEN_CUDA
TEST(shipped_decoder_bf16)
{
    check_beside_ref(LORE_BACKEND_CUDA, LORE_PRECISION_BF16, 1e-2);
}
#else
TEST(shipped_decoder_bf16)
{
    check_beside_ref(LORE_BACKEND_CPU, LORE_PRECISION_BF16, 1e-2);
}
#endif

CHECK_MAIN(shipped_decoder_bf16)
