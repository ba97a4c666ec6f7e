/* Logits of every decoder family with an adapter are those of PEFT, whatever its rank
 * (adapters/logits.jsonl, made by make_adapters.py): each rank alone and all of them in one batch,
 * beside a sequence that has none. Neither that one nor a sequence with an adapter notices who its
 * neighbours are. */
#include "tests/unit/adapted_fixture.h"

#include <math.h>

#define GOLDEN_FOLDER LORE_SOURCE_DIR "/tests/golden"

enum {
    TOKENS = 12, /* of the prompt, */
    ROWS = 3,    /* of which so many are known, */
    COLUMNS = 8, /* in so many columns: as in make_adapters.py */
    RANKS = 5,
    SEQUENCES = RANKS + 2, /* one has no adapter, and one that of its neighbour */
    PAGE_TOKENS = 8,
    PAGES = 2, /* of a sequence */
    VOCAB_MAX = 1024
};
static const int32_t KNOWN_ROWS[ROWS] = {0, 5, 11};
/* The slot of each sequence: adapters stand in order of their ranks. */
static const int32_t OWNERS[SEQUENCES] = {4, -1, 0, 3, 3, 1, 2};

/* ---- steps ---- */

typedef struct run {
    lore_decoder *decoder;
    int32_t vocab;
    int32_t ids[SEQUENCES * TOKENS], row_start[SEQUENCES + 1], past[SEQUENCES];
    int32_t page_start[SEQUENCES + 1], pages[SEQUENCES * PAGES], logits_rows[SEQUENCES * ROWS];
    int32_t drawn[SEQUENCES * ROWS];
    lore_sample samples[SEQUENCES * ROWS];
    float logprobs[SEQUENCES * ROWS];
    float *logits; /* [SEQUENCES, ROWS, vocab] of the last step */
} run;

static int32_t token(int32_t position)
{
    return (73 * position + 5) % 256;
}

/* Tokens from .. to - 1 of the prompt in every sequence; of those rows that are known, logits. */
static void step(run *r, const int32_t *owners, int32_t from, int32_t to)
{
    lore_error err = {0};
    int32_t rows = 0, wanted = 0;
    for (int32_t s = 0; s < SEQUENCES; s++) {
        r->row_start[s] = rows;
        r->past[s] = from;
        r->page_start[s] = s * PAGES;
        for (int32_t i = 0; i < PAGES; i++) {
            r->pages[s * PAGES + i] = i * SEQUENCES + s;
        }
        for (int32_t t = from; t < to; t++, rows++) {
            r->ids[rows] = token(t);
            for (int32_t i = 0; i < ROWS; i++) {
                if (KNOWN_ROWS[i] == t) {
                    r->samples[wanted] = (lore_sample){.top_p = 1};
                    r->logits_rows[wanted++] = rows;
                }
            }
        }
    }
    r->row_start[SEQUENCES] = rows;
    r->page_start[SEQUENCES] = SEQUENCES * PAGES;
    const lore_step made = {.ids = r->ids,
                            .batch = {.sequences = SEQUENCES,
                                      .rows = rows,
                                      .row_start = r->row_start,
                                      .past = r->past,
                                      .page_start = r->page_start,
                                      .pages = r->pages,
                                      .rows_max = to - from,
                                      .context_max = to},
                            .logits_rows = r->logits_rows,
                            .samples = r->samples,
                            .logits_count = wanted,
                            .adapters = owners};
    CHECK_OK(lore_decoder_step(r->decoder, &made, r->drawn, r->logprobs, r->logits, &err), &err);
}

/* rms(got - wanted) / rms(wanted) over what is known of one row. */
static double distance(const run *r, const float *logits, int32_t row, const lore_json *wanted)
{
    const lore_json *at = lore_json_first(lore_json_get(wanted, "logits"));
    double difference = 0, size = 0;
    for (int32_t i = 0; i < row * COLUMNS; i++) {
        at = lore_json_next(at);
    }
    for (int32_t i = 0; i < COLUMNS; i++, at = lore_json_next(at)) {
        const double value = lore_json_number(at);
        const double got = (double)logits[KNOWN_ROWS[row] + r->vocab / COLUMNS * i];
        difference += (got - value) * (got - value);
        size += value * value;
    }
    return isfinite(difference) ? sqrt(difference / size) : INFINITY;
}

static double farther(double a, double b)
{
    return b <= a ? a : b; /* a NaN sticks */
}

/* The whole prompt at once, and its last token as a row of its own. */
static double check_logits(run *r, lore_json *const *cases)
{
    const size_t vocab = (size_t)r->vocab;
    double worst = 0;
    step(r, OWNERS, 0, TOKENS);
    for (int32_t s = 0; s < SEQUENCES; s++) {
        for (int32_t i = 0; i < ROWS && OWNERS[s] >= 0; i++) {
            const float *logits = r->logits + (size_t)(s * ROWS + i) * vocab;
            worst = farther(worst, distance(r, logits, i, cases[OWNERS[s]]));
        }
    }
    step(r, OWNERS, 0, TOKENS - 1);
    step(r, OWNERS, TOKENS - 1, TOKENS);
    for (int32_t s = 0; s < SEQUENCES; s++) {
        if (OWNERS[s] >= 0) {
            const float *logits = r->logits + (size_t)s * vocab;
            worst = farther(worst, distance(r, logits, ROWS - 1, cases[OWNERS[s]]));
        }
    }
    return worst;
}

/* In steps of one shape: a sequence without an adapter among others that have some, and one with an
 * adapter among others that have none, to the last bit. */
static void check_neighbours(run *r, int32_t from, int32_t to)
{
    const int32_t alone[SEQUENCES] = {-1, -1, -1, 3, -1, -1, -1};
    const size_t each = (size_t)(from > 0 ? 1 : ROWS) * (size_t)r->vocab, all = SEQUENCES * each;
    float *mixed = lore_alloc(all * sizeof *mixed), *base = lore_alloc(all * sizeof *base);
    CHECK(mixed != NULL && base != NULL);
    if (from > 0) { /* the same texts before them */
        step(r, OWNERS, 0, from);
    }
    step(r, OWNERS, from, to);
    memcpy(mixed, r->logits, all * sizeof *mixed);
    step(r, NULL, from, to);
    memcpy(base, r->logits, all * sizeof *base);
    CHECK(memcmp(mixed + each, base + each, each * sizeof *mixed) == 0);
    CHECK(memcmp(mixed, base, each * sizeof *mixed) != 0);
    if (from == 0) { /* else what stands in their pages is not the same */
        step(r, alone, from, to);
        CHECK(memcmp(r->logits + 3 * each, mixed + 3 * each, each * sizeof *mixed) == 0);
        CHECK(memcmp(mixed + 4 * each, mixed + 3 * each, each * sizeof *mixed) == 0);
        CHECK(memcmp(r->logits + 4 * each, base + 4 * each, each * sizeof *mixed) == 0);
    }
    lore_free(mixed);
    lore_free(base);
}

/* ---- families ---- */

typedef struct variant {
    const char *name;
    lore_backend_kind kind;
    lore_precision precision;
    lore_dtype kv_dtype;
    double
        logits; /* the largest distance; of rounding, as docs/evaluation.md has it for families */
} variant;

static void family(const variant *v, const char *name, lore_json *const *cases)
{
    char folder[512];
    lore_error err = {0};
    run *r = lore_alloc_zero(1, sizeof *r);
    lore_adapter_placed *placed[RANKS] = {0};
    fixture f = fixture_open(v->kind, v->precision);
    const lore_decoder_options options = {.rows_max = SEQUENCES * TOKENS,
                                          .sequences_max = SEQUENCES * ROWS,
                                          .page_tokens = PAGE_TOKENS,
                                          .page_count = SEQUENCES * PAGES,
                                          .kv_dtype = v->kv_dtype,
                                          .adapter_slots = RANKS};
    CHECK(r != NULL);
    snprintf(folder, sizeof folder, LORE_FAMILIES "/%s", name);
    lore_limits limits = LIMITS;
    limits.adapter_rank_max = 128;
    CHECK_OK(lore_decoder_open(folder, f.backend, &limits, &options, &r->decoder, &err), &err);
    r->vocab = lore_decoder_get_info(r->decoder)->vocab;
    r->logits = lore_alloc((size_t)SEQUENCES * ROWS * (size_t)r->vocab * sizeof(float));
    CHECK(r->logits != NULL);
    for (int32_t i = 0; i < RANKS; i++) {
        lore_adapter *adapter =
            adapted_open(r->decoder, (int32_t)lore_json_number(lore_json_get(cases[i], "rank")),
                         lore_json_number(lore_json_get(cases[i], "alpha")), true);
        CHECK_OK(lore_decoder_adapter_place(r->decoder, adapter, &placed[i], &err), &err);
        lore_decoder_adapter_seat(r->decoder, i, placed[i]);
        lore_adapter_close(adapter); /* nobody looks at it again */
    }
    const double worst = check_logits(r, cases);
    printf("%-16s %-9s %.2g\n", name, v->name, worst);
    CHECK(worst <= v->logits);
    check_neighbours(r, 0, TOKENS);
    check_neighbours(r, TOKENS - 1, TOKENS);
    for (int32_t i = 0; i < RANKS; i++) {
        lore_decoder_adapter_seat(r->decoder, i, NULL);
        lore_decoder_adapter_unplace(r->decoder, placed[i]);
    }
    lore_decoder_close(r->decoder);
    fixture_close(&f);
    lore_free(r->logits);
    lore_free(r);
}

static void all(const variant *v)
{
    lore_error err = {0};
    lore_buf text;
    int32_t families = 0;
    lore_buf_init(&text, 0);
    CHECK_OK(lore_file_read(GOLDEN_FOLDER "/adapters/logits.jsonl", 1 << 20, &text, &err), &err);
    lore_str rest = lore_buf_str(&text), line;
    for (lore_json *cases[RANKS]; lore_str_next_line(&rest, &line); families++) {
        char name[64];
        for (int32_t i = 0; i < RANKS; i++) {
            CHECK(i == 0 || lore_str_next_line(&rest, &line));
            CHECK_OK(lore_json_parse(line, 16, &cases[i], &err), &err);
        }
        snprintf(name, sizeof name, LORE_STR_FMT,
                 LORE_STR_ARG(lore_json_str(lore_json_get(cases[0], "family"))));
        family(v, name, cases);
        for (int32_t i = 0; i < RANKS; i++) {
            lore_json_free(cases[i]);
        }
    }
    CHECK_INT(families, 14);
    lore_buf_destroy(&text);
}

TEST(logits_on_ref)
{
    all(&(variant){"ref f32", LORE_BACKEND_REF, LORE_PRECISION_F32, LORE_F32, 1e-4});
}

TEST(logits_on_cpu_f32)
{
    all(&(variant){"cpu f32", LORE_BACKEND_CPU, LORE_PRECISION_F32, LORE_F32, 1e-4});
}

TEST(logits_on_cpu_bf16)
{
    all(&(variant){"cpu bf16", LORE_BACKEND_CPU, LORE_PRECISION_BF16, LORE_BF16, 5e-2});
}

TEST(logits_on_cpu_int8)
{
    all(&(variant){"cpu int8", LORE_BACKEND_CPU, LORE_PRECISION_INT8, LORE_BF16, 1.5e-1});
}

CHECK_MAIN(logits_on_ref, logits_on_cpu_f32, logits_on_cpu_bf16, logits_on_cpu_int8)
