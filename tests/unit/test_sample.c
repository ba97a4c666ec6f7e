/* The draw against the rules spelt out: a whole row sorted, cut by rank, by share and by the
 * largest probability, one after another, and then walked along to where the random number falls.
 *
 * tests/ops holds backends against each other, but those on the host share kernels/sample.c. */
#include "base/clock.h"
#include "kernels/backend_int.h"
#include "tests/check.h"

enum { COUNT_MAX = 400 };

static float plain_clean(float *x, int32_t count)
{
    float top = -INFINITY;
    for (int32_t i = 0; i < count; i++) {
        x[i] = isnan(x[i]) ? -INFINITY : x[i];
        top = x[i] > top ? x[i] : top;
    }
    return top;
}

static double plain_sum_exp(const float *x, int32_t count, float top)
{
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++) {
        sum += x[i] == top ? 1.0 : exp((double)x[i] - (double)top);
    }
    return sum;
}

static const lore_row_math plain_math = {plain_clean, plain_sum_exp};

static int by_rank(const void *a, const void *b)
{
    const lore_candidate *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit) - (x->logit > y->logit)
                                : (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b)
{
    const lore_candidate *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static double weight(const lore_candidate *at, float top, const lore_sample *sample)
{
    return exp(((double)at->logit - (double)top) / (double)sample->temperature);
}

/* What the rules leave of a sorted row. */
static int32_t keep(const lore_candidate *row, int32_t count, const lore_sample *sample)
{
    int32_t kept = sample->top_k > 0 && sample->top_k < count ? sample->top_k : count;
    double mass = 0.0, sum = 0.0;
    for (int32_t i = 0; i < kept; i++) {
        mass += weight(&row[i], row[0].logit, sample);
    }
    for (int32_t i = 0; i < kept && sample->top_p < 1.0f; i++) {
        sum += weight(&row[i], row[0].logit, sample);
        if (sum >= (double)sample->top_p * mass) {
            kept = i + 1;
        }
    }
    while (kept > 1 && weight(&row[kept - 1], row[0].logit, sample) < (double)sample->min_p) {
        kept--;
    }
    return kept;
}

/* Rows that nothing but min_p cuts are drawn from in the order of ids, others in that of rank. */
static int32_t draw_plainly(const float *logits, int32_t count, const lore_sample *sample)
{
    lore_candidate row[COUNT_MAX];
    uint64_t place = (uint64_t)sample->position;
    uint64_t state = sample->seed ^ lore_random_next(&place);
    const double unit = (double)(lore_random_next(&state) >> 11) * 0x1p-53;
    for (int32_t i = 0; i < count; i++) {
        row[i] = (lore_candidate){logits[i], i};
    }
    qsort(row, (size_t)count, sizeof *row, by_rank);
    const float top = row[0].logit;
    const int32_t kept = keep(row, count, sample);
    if (sample->top_p >= 1.0f && (sample->top_k == 0 || sample->top_k >= count)) {
        qsort(row, (size_t)kept, sizeof *row, by_id);
    }
    double total = 0.0, sum = 0.0;
    for (int32_t i = 0; i < kept; i++) {
        total += weight(&row[i], top, sample);
    }
    for (int32_t i = 0; i < kept; i++) {
        sum += weight(&row[i], top, sample);
        if (sum > unit * total) {
            return row[i].id;
        }
    }
    return row[kept - 1].id;
}

TEST(draws_as_the_rules_say)
{
    uint64_t random = 3;
    for (int round = 0; round < 4000; round++) {
        float logits[COUNT_MAX], copy[COUNT_MAX], logprob;
        lore_candidate candidates[COUNT_MAX];
        const int32_t count = 1 + (int32_t)(lore_random_next(&random) % COUNT_MAX);
        for (int32_t i = 0; i < count; i++) { /* quarters: ties now and then */
            logits[i] = rintf(40.0f * lore_random_unit(&random) - 20.0f) / 4.0f;
        }
        const uint64_t kind = lore_random_next(&random); /* a bit a rule */
        const lore_sample sample = {
            .temperature = 0.1f + 2.0f * lore_random_unit(&random),
            .top_p = (kind & 1) == 0 ? 1.0f : lore_random_unit(&random),
            .top_k = (kind & 2) == 0 ? 0 : (int32_t)(lore_random_next(&random) % 60),
            .min_p = (kind & 4) == 0 ? 0.0f : lore_random_unit(&random) * lore_random_unit(&random),
            .seed = lore_random_next(&random),
            .position = round};
        const int32_t want = draw_plainly(logits, count, &sample);
        int32_t id = -1;
        memcpy(copy, logits, sizeof copy);
        lore_sample_row(&id, &logprob, copy, count, &sample, candidates, &plain_math);
        CHECK_INT(id, want);
        float top = plain_clean(logits, count);
        CHECK_NEAR(logprob, (double)(logits[id] - top) - log(plain_sum_exp(logits, count, top)),
                   1e-6);
    }
}

/* At a temperature of 0 nothing of the rest counts. */
TEST(takes_the_largest_when_cold)
{
    float logits[4] = {1.0f, NAN, 7.0f, 7.0f}, logprob;
    lore_candidate candidates[4];
    int32_t id = -1;
    const lore_sample sample = {.top_p = 0.1f, .top_k = 3, .min_p = 0.9f, .seed = 5};
    lore_sample_row(&id, &logprob, logits, 4, &sample, candidates, &plain_math);
    CHECK_INT(id, 2);
    CHECK_NEAR(logprob, -log(2.0 + exp(-6.0)), 1e-6);
}

CHECK_MAIN(draws_as_the_rules_say, takes_the_largest_when_cold)
