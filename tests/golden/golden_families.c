/* Every decoder family against what transformers computes from the same folder
 * (families/, made by make_families.py): logits at every position of three prompts that run
 * together in pieces, 128 greedy tokens, and the end of a text of 2,100 tokens. */
#include "tests/unit/models_fixture.h"

#include "models/decoder.h"

#include <math.h>

enum {
    PROMPTS = 3,
    ROWS_MAX = 64,   /* of a step, all of which may want logits */
    PAGE_TOKENS = 8, /* small, so that sequences lie on many pages */
    LONG_TOKENS = 2100,
    LONG_ROWS = 3,
    GREEDY = 128,
    COLUMN_STEP = 4, /* as in make_families.py */
    PAGES_PER_SEQUENCE = (LONG_TOKENS + PAGE_TOKENS) / PAGE_TOKENS
};

typedef struct variant {
    const char *name; /* of its row in the table of tolerances */
    lore_backend_kind kind;
    lore_precision precision;
    lore_dtype kv_dtype;
} variant;

static const variant REF = {"ref f32", LORE_BACKEND_REF, LORE_PRECISION_F32, LORE_F32};
static const variant F32 = {"cpu f32", LORE_BACKEND_CPU, LORE_PRECISION_F32, LORE_F32};
static const variant BF16 = {"cpu bf16", LORE_BACKEND_CPU, LORE_PRECISION_BF16, LORE_BF16};
static const variant INT8 = {"cpu int8", LORE_BACKEND_CPU, LORE_PRECISION_INT8, LORE_BF16};

/* What rounding may do. logits: the largest over the positions of rms(difference) / rms(expected).
 * gap: a greedy token may differ only where the best two logits are this close. */
typedef struct tolerance {
    double logits, gap;
} tolerance;

/* The one table of tolerances is that of docs/evaluation.md: the last cell of the row. */
static tolerance tolerance_of(const variant *v)
{
    char line[1024];
    tolerance t = {0};
    size_t name = strlen(v->name);
    FILE *file = fopen(LORE_SOURCE_DIR "/docs/evaluation.md", "r");
    CHECK(file != NULL);
    while (t.gap == 0 && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "| ", 2) == 0 && strncmp(line + 2, v->name, name) == 0) {
            char *end = strrchr(line, '|');
            *end = '\0';
            CHECK_INT(sscanf(strrchr(line, '|'), "| %lf, %lf", &t.logits, &t.gap), 2);
        }
    }
    fclose(file);
    CHECK(t.logits > 0 && t.logits < 1 && t.gap > 0);
    return t;
}

/* ---- expected values ---- */

typedef struct expected {
    lore_weights *file;
    const float *ids[PROMPTS], *logits[PROMPTS];
    int32_t counts[PROMPTS];
    const float *next_ids, *next_gaps, *long_logits;
} expected;

static const int32_t LENGTHS[PROMPTS] = {1, 9, 24};

static const float *tensor(lore_weights *file, const char *name, int32_t rows, int32_t cols)
{
    lore_error err = {0};
    lore_matrix matrix = {0};
    CHECK_OK(lore_weights_matrix(file, name, rows, cols, &matrix, &err), &err);
    CHECK(matrix.dtype == LORE_F32);
    return matrix.data;
}

static const float *vector(const fixture *f, lore_weights *file, const char *name, int32_t count)
{
    lore_error err = {0};
    float *values = NULL;
    CHECK_OK(lore_weights_vector(file, name, count, f->backend, &values, &err), &err);
    return values;
}

static expected expected_open(const fixture *f, const char *family, int32_t vocab)
{
    char folder[512], name[32];
    lore_error err = {0};
    const int32_t known = vocab / COLUMN_STEP;
    expected e = {0};
    CHECK_INT(vocab % COLUMN_STEP, 0);
    snprintf(folder, sizeof folder, LORE_FAMILIES "/%s/expected", family);
    CHECK_OK(lore_weights_open(folder, &LIMITS, &e.file, &err), &err);
    for (int32_t i = 0; i < PROMPTS; i++) {
        e.counts[i] = LENGTHS[i];
        snprintf(name, sizeof name, "ids_%d", i);
        e.ids[i] = vector(f, e.file, name, LENGTHS[i]);
        snprintf(name, sizeof name, "logits_%d", i);
        e.logits[i] = tensor(e.file, name, LENGTHS[i], known);
    }
    e.next_ids = vector(f, e.file, "next_ids", GREEDY);
    e.next_gaps = vector(f, e.file, "next_gaps", GREEDY);
    e.long_logits = tensor(e.file, "long_logits", LONG_ROWS, known);
    return e;
}

static void expected_close(const fixture *f, expected *e)
{
    for (int32_t i = 0; i < PROMPTS; i++) {
        lore_backend_free(f->backend, (void *)e->ids[i]);
    }
    lore_backend_free(f->backend, (void *)e->next_ids);
    lore_backend_free(f->backend, (void *)e->next_gaps);
    lore_weights_close(e->file);
}

/* rms(got - wanted) / rms(wanted) over the columns of row `row` of a text that are known: every
 * COLUMN_STEP-th from row % COLUMN_STEP on, so that rows together know all. */
static double distance(const float *got, const float *wanted, int32_t row, int32_t vocab)
{
    const int32_t first = row % COLUMN_STEP, known = vocab / COLUMN_STEP;
    double difference = 0, size = 0;
    for (int32_t i = 0; i < known; i++) {
        const double value = (double)wanted[row * known + i];
        const double error = (double)got[first + i * COLUMN_STEP] - value;
        difference += error * error;
        size += value * value;
    }
    return isfinite(difference) ? sqrt(difference / size) : INFINITY;
}

/* ---- running ---- */

typedef struct run {
    lore_decoder *decoder;
    int32_t vocab;
    int32_t ids[ROWS_MAX], row_start[PROMPTS + 1], past[PROMPTS], page_start[PROMPTS + 1];
    int32_t pages[PROMPTS * PAGES_PER_SEQUENCE], logits_rows[ROWS_MAX], drawn[ROWS_MAX];
    lore_sample samples[ROWS_MAX];
    float logprobs[ROWS_MAX], *logits;
    int32_t lengths[PROMPTS];
    lore_step step;
} run;

static void begin(run *r)
{
    r->step = (lore_step){.ids = r->ids,
                          .batch = {.row_start = r->row_start,
                                    .past = r->past,
                                    .page_start = r->page_start,
                                    .pages = r->pages},
                          .logits_rows = r->logits_rows,
                          .samples = r->samples,
                          .lengths = r->lengths};
    r->row_start[0] = 0;
    r->page_start[0] = 0;
}

/* Rows ids[0 .. rows) of a text of `length` tokens in the end, which owns the pages first_page + i
 * * page_stride; the last logits_rows of them want logits. */
static void add(run *r, const int32_t *ids, int32_t rows, int32_t past, int32_t length,
                int32_t first_page, int32_t page_stride, int32_t logits_rows)
{
    lore_batch *b = &r->step.batch;
    int32_t n = b->sequences++, pages = (past + rows + PAGE_TOKENS - 1) / PAGE_TOKENS;
    memcpy(r->ids + b->rows, ids, (size_t)rows * sizeof *ids);
    for (int32_t i = 0; i < logits_rows; i++) {
        r->samples[r->step.logits_count] = (lore_sample){.temperature = 0, .top_p = 1};
        r->logits_rows[r->step.logits_count++] = b->rows + rows - logits_rows + i;
    }
    b->rows += rows;
    r->past[n] = past;
    r->lengths[n] = length;
    r->row_start[n + 1] = b->rows;
    for (int32_t i = 0; i < pages; i++) {
        r->pages[r->page_start[n] + i] = first_page + i * page_stride;
    }
    r->page_start[n + 1] = r->page_start[n] + pages;
    b->rows_max = rows > b->rows_max ? rows : b->rows_max;
    b->context_max = past + rows > b->context_max ? past + rows : b->context_max;
}

static void step(run *r)
{
    lore_error err = {0};
    CHECK_OK(lore_decoder_step(r->decoder, &r->step, r->drawn, r->logprobs, r->logits, &err), &err);
}

/* Three prompts together, in pieces of different lengths, pages interleaved. */
static double run_prompts(run *r, const expected *e)
{
    static const int32_t PIECES[PROMPTS] = {1, 4, 7};
    int32_t done[PROMPTS] = {0}, ids[ROWS_MAX];
    double worst = 0;
    for (bool is_going = true; is_going;) {
        int32_t who[ROWS_MAX], at[ROWS_MAX], count = 0;
        is_going = false;
        begin(r);
        for (int32_t i = 0; i < PROMPTS; i++) {
            int32_t rows = e->counts[i] - done[i] < PIECES[i] ? e->counts[i] - done[i] : PIECES[i];
            for (int32_t k = 0; k < rows; k++) {
                ids[k] = (int32_t)e->ids[i][done[i] + k];
                who[count] = i;
                at[count++] = done[i] + k;
            }
            if (rows > 0) {
                add(r, ids, rows, done[i], e->counts[i], i, PROMPTS, rows);
                done[i] += rows;
                is_going = true;
            }
        }
        if (is_going) {
            step(r);
        }
        for (int32_t k = 0; k < count; k++) {
            double d = distance(r->logits + (size_t)k * (size_t)r->vocab, e->logits[who[k]], at[k],
                                r->vocab);
            worst = d > worst ? d : worst;
        }
    }
    return worst;
}

/* The expected tokens are fed whatever was drawn; the result is the widest gap at which another one
 * was. A text that comes to its turn is fed from its first token again. */
static double run_greedy(run *r, const expected *e, int32_t *equal)
{
    const int32_t turn = lore_decoder_get_info(r->decoder)->turn_tokens;
    int32_t ids[ROWS_MAX + GREEDY], count = e->counts[1], past = 0;
    double widest = 0;
    for (int32_t k = 0; k < count; k++) {
        ids[k] = (int32_t)e->ids[1][k];
    }
    CHECK(turn < ROWS_MAX);
    *equal = 0;
    for (int32_t k = 0; k < GREEDY; k++) {
        int32_t wanted = (int32_t)e->next_ids[k];
        past = count - 1 == turn ? 0 : past;
        begin(r);
        add(r, ids + past, count - past, past, count, 0, 1, 1);
        step(r);
        past = count;
        ids[count++] = wanted;
        *equal += r->drawn[0] == wanted;
        if (r->drawn[0] != wanted && e->next_gaps[k] > widest) {
            widest = e->next_gaps[k];
        }
    }
    return widest;
}

/* long_ids() of make_families.py, in pieces; the last rows want logits. */
static double run_long(run *r, const expected *e)
{
    static int32_t ids[LONG_TOKENS];
    uint32_t state = 12345;
    double worst = 0;
    for (int32_t i = 0; i < LONG_TOKENS; i++) {
        state = (state * 1103515245u + 12345u) % 0x80000000u;
        ids[i] = (int32_t)((state >> 16) % 256);
    }
    for (int32_t past = 0; past < LONG_TOKENS;) {
        int32_t left = LONG_TOKENS - past, rows = left < ROWS_MAX ? left : ROWS_MAX;
        if (left > ROWS_MAX && left < ROWS_MAX + LONG_ROWS) {
            rows = left - LONG_ROWS; /* the rows that count stay together */
        }
        begin(r);
        add(r, ids + past, rows, past, LONG_TOKENS, 0, 1, rows == left ? LONG_ROWS : 0);
        step(r);
        past += rows;
    }
    for (int32_t i = 0; i < LONG_ROWS; i++) {
        double d = distance(r->logits + (size_t)i * (size_t)r->vocab, e->long_logits, i, r->vocab);
        worst = d > worst ? d : worst;
    }
    return worst;
}

static void family(const char *name, const variant *v, tolerance t)
{
    char folder[512];
    lore_error err = {0};
    run *r = lore_alloc_zero(1, sizeof *r);
    CHECK(r != NULL);
    fixture f = fixture_open(v->kind, v->precision);
    fixture host = fixture_open(LORE_BACKEND_REF, LORE_PRECISION_F32); /* expected values */
    lore_decoder_options options = {.rows_max = ROWS_MAX,
                                    .sequences_max = ROWS_MAX,
                                    .page_tokens = PAGE_TOKENS,
                                    .page_count = PROMPTS * PAGES_PER_SEQUENCE,
                                    .kv_dtype = v->kv_dtype};
    snprintf(folder, sizeof folder, LORE_FAMILIES "/%s", name);
    CHECK_OK(lore_decoder_open(folder, f.backend, &LIMITS, &options, &r->decoder, &err), &err);
    r->vocab = lore_decoder_get_info(r->decoder)->vocab;
    r->logits = lore_alloc((size_t)ROWS_MAX * (size_t)r->vocab * sizeof(float));
    CHECK(r->logits != NULL);
    expected e = expected_open(&host, name, r->vocab);
    int32_t equal = 0;
    double prompts = run_prompts(r, &e), gap = run_greedy(r, &e, &equal), end = run_long(r, &e);
    printf("%-18s %-9s prompts %.2g, %d of %d greedy tokens (widest gap %.2g), 2,100 tokens %.2g\n",
           name, v->name, prompts, equal, GREEDY, gap, end);
    CHECK(prompts <= t.logits && end <= t.logits);
    CHECK(gap <= t.gap);
    expected_close(&host, &e);
    lore_decoder_close(r->decoder);
    fixture_close(&f);
    fixture_close(&host);
    lore_free(r->logits);
    lore_free(r);
}

static const char *const NAMES[] = {
    "llama",     "llama-biases", "llama-linear", "llama-dynamic", "llama-yarn", "llama3",
    "mistral",   "qwen2",        "qwen2-window", "qwen3",         "phi3",       "phi3-partial",
    "phi3-long", "gemma2",       "quant-int8",   "quant-int4",    "quant-gptq", "quant-gptq-order",
    "quant-awq"};

static void all(const variant *v)
{
    const tolerance t = tolerance_of(v);
    const char *only = getenv("LORE_FAMILY"); /* for a person who mends one */
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        if (only == NULL || strcmp(only, NAMES[i]) == 0) {
            family(NAMES[i], v, t);
        }
    }
}

TEST(ref)
{
    all(&REF);
}

TEST(cpu_f32)
{
    all(&F32);
}

TEST(cpu_bf16)
{
    all(&BF16);
}

TEST(cpu_int8)
{
    all(&INT8);
}

#ifdef GOLDEN_CUDA
static const variant CUDA_F32 = {"cuda f32", LORE_BACKEND_CUDA, LORE_PRECISION_F32, LORE_F32};
static const variant CUDA_BF16 = {"cuda bf16", LORE_BACKEND_CUDA, LORE_PRECISION_BF16, LORE_BF16};

TEST(cuda_f32)
{
    all(&CUDA_F32);
}

TEST(cuda_bf16)
{
    all(&CUDA_BF16);
}

CHECK_MAIN(cuda_f32, cuda_bf16)
#else
CHECK_MAIN(ref, cpu_f32, cpu_bf16, cpu_int8)
#endif
