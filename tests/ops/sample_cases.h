/* Drawing tokens on a backend under test: penalties, the most probable tokens and the draw against
 * ref, then both against numbers of transformers.
 *
 * Host backends share one implementation of the draw, so for them the comparison shows only that
 * the vector passes before it change nothing; the last two families hold for every backend. */
#ifndef LORE_TESTS_SAMPLE_CASES_H
#define LORE_TESTS_SAMPLE_CASES_H

#include "tests/ops/ops_subject.h"

static void run_sample(const side *at, const float *logits, int32_t rows, int32_t cols,
                       const lore_sample *samples, int32_t *ids, float *logprobs)
{
    grid in = grid_new(at, logits, rows, cols, cols % 4 == 0 ? 8 : 9); /* aligned, or not at all */
    const size_t count = (size_t)rows + 2; /* one sentinel on each side */
    int32_t marks[64];
    CHECK(count <= 64);
    for (size_t i = 0; i < count; i++) {
        marks[i] = -77;
    }
    int32_t *own_ids = upload(at, marks, count * sizeof *marks);
    float *own_logprobs = upload(at, marks, count * sizeof *marks);
    lore_sample *own_samples = upload(at, samples, (size_t)rows * sizeof *samples);
    lore_op_sample(at->queue, own_ids + 1, own_logprobs + 1, in.view, own_samples,
                   lore_drawing_of(samples, rows));
    int32_t taken[64];
    lore_queue_download(at->queue, taken, own_ids, count * sizeof *taken);
    sync(at);
    CHECK_INT(taken[0], -77);
    CHECK_INT(taken[count - 1], -77);
    memcpy(ids, taken + 1, (size_t)rows * sizeof *ids);
    lore_queue_download(at->queue, taken, own_logprobs, count * sizeof *taken);
    sync(at);
    CHECK_INT(taken[0], -77);
    CHECK_INT(taken[count - 1], -77);
    memcpy(logprobs, taken + 1, (size_t)rows * sizeof *logprobs);
    lore_free(grid_take(at, &in));
    lore_backend_free(at->backend, own_ids);
    lore_backend_free(at->backend, own_logprobs);
    lore_backend_free(at->backend, own_samples);
}

/* ---- penalties ---- */

/* Every part alone and together; texts name tokens many times, or not at all. */
CHECK_UNUSED static void cases_penalise(const subject *on)
{
    enum { ROWS = 7, TEXT = 50, BIASES = 3 };
    for (int i = 0; i < 40; i++) {
        const int32_t rows = PICK(0, 1, ROWS), cols = PICK(1, 2, 17, 63, 1000, 5000);
        float *logits = random_floats((size_t)rows * (size_t)cols), *results[2];
        int32_t ids[ROWS * TEXT];
        lore_bias biases[ROWS * BIASES];
        lore_penalty penalties[ROWS];
        for (int32_t k = 0; k < ROWS * TEXT; k++) {
            ids[k] = random_below(cols);
        }
        for (int32_t k = 0; k < ROWS * BIASES; k++) { /* different ids in a row */
            biases[k] = (lore_bias){(k + i) % cols, 200.0f * lore_random_unit(&random_state) - 100};
        }
        for (int32_t r = 0; r < rows; r++) {
            const int32_t count = random_below(TEXT + 1);
            const int32_t which = (i + r) % 8; /* a bit for each of three */
            penalties[r] = (lore_penalty){
                .repetition =
                    (which & 1) == 0 ? 1.0f : 0.5f + 2.0f * lore_random_unit(&random_state),
                .presence = (which & 2) == 0 ? 0.0f : random_value(),
                .frequency = (which & 4) == 0 ? 0.0f : random_value(),
                .ids = ids + TEXT * (size_t)r,
                .count = count,
                .answer_start = random_below(count + 1),
                .biases = biases + BIASES * (size_t)r,
                .bias_count = cols < BIASES || r % 2 == 0 ? 0 : BIASES,
            };
        }
        int which = 0;
        ON_BOTH(on, at)
        {
            grid in = grid_new(at, logits, rows, cols, 5);
            lore_op_penalise(at->queue, in.view, penalties);
            sync(at);
            results[which++] = grid_take(at, &in);
        }
        compare(on, "penalise", results[1], results[0], (size_t)rows * (size_t)cols, 0.0);
        lore_free(logits);
    }
}

/* ---- drawing ---- */

static lore_sample random_sample(int i)
{
    lore_sample made = {.temperature =
                            i % 5 == 0 ? 0.0f : 0.3f + 2.0f * lore_random_unit(&random_state),
                        .top_p = i % 3 == 0 ? 1.0f : lore_random_unit(&random_state),
                        .top_k = i % 2 == 0 ? 0 : 1 + random_below(40),
                        .min_p = i % 4 < 2 ? 0.0f : 0.5f * lore_random_unit(&random_state),
                        .seed = lore_random_next(&random_state),
                        .position = random_below(1000),
                        .tops = i % 7 == 0 ? 0 : 1 + random_below(LORE_TOPS_MAX)};
    return made;
}

/* Whole numbers, so that there are ties everywhere; NaN and infinities. */
static float *random_logits(int32_t rows, int32_t cols)
{
    float *logits = random_floats((size_t)rows * (size_t)cols);
    for (int32_t r = 0; r < rows; r++) {
        float *row = logits + (size_t)r * (size_t)cols;
        for (int32_t c = 0; c < cols; c++) {
            row[c] = rintf(8.0f * row[c]);
        }
        row[random_below(cols)] = r % 3 == 0 ? NAN : -INFINITY;
        if (r == 5) {
            row[random_below(cols)] = INFINITY;
        }
    }
    return logits;
}

CHECK_UNUSED static void cases_sample(const subject *on)
{
    enum { ROWS = 7 };
    for (int i = 0; i < 60; i++) {
        const int32_t rows = PICK(0, 1, ROWS), cols = PICK(1, 2, 17, 63, 1000, 5000, 40001);
        float *logits = random_logits(rows, cols);
        lore_sample samples[ROWS];
        for (int32_t r = 0; r < rows; r++) {
            samples[r] = random_sample(i + r);
        }
        int32_t want[ROWS], got[ROWS];
        float want_logprobs[ROWS], got_logprobs[ROWS];
        run_sample(&on->ref, logits, rows, cols, samples, want, want_logprobs);
        run_sample(&on->test, logits, rows, cols, samples, got, got_logprobs);
        lore_free(logits);
        for (int32_t r = 0; r < rows; r++) {
            CHECK_INT(got[r], want[r]);
            if (got_logprobs[r] != want_logprobs[r]) { /* equal infinities need no difference */
                CHECK_NEAR(got_logprobs[r], want_logprobs[r], TOLERANCE_LOGPROB);
            }
        }
    }
}

/* Values in the way of shortcuts: rows of equals, rows whose largest ones are beyond what a
 * temperature leaves of them, and temperatures at the ends of what a float holds. */
CHECK_UNUSED static void cases_sample_extremes(const subject *on)
{
    enum { COLS = 9000 };
    static const float temperatures[] = {1e-38f, 1e-6f, 0.02f, 1.0f, 1e6f, 3e38f};
    static const struct {
        float top_p, min_p;
        int32_t top_k;
    } cuts[] = {{1, 0, 0}, {0.5f, 0, 0}, {1, 0, 50}, {0.999f, 0, 8999}, {0.3f, 0.01f, 5000}};
    float *logits = host_new(COLS * sizeof *logits);
    for (int shape = 0; shape < 3; shape++) {
        for (int32_t c = 0; c < COLS; c++) {
            logits[c] = shape == 0   ? 3.0f
                        : shape == 1 ? -10.0f * (float)(c % 100)
                                     : 1e30f * (float)(c % 7 - 3);
        }
        for (size_t t = 0; t < sizeof temperatures / sizeof temperatures[0]; t++) {
            for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++) {
                const lore_sample sample = {.temperature = temperatures[t],
                                            .top_p = cuts[c].top_p,
                                            .top_k = cuts[c].top_k,
                                            .min_p = cuts[c].min_p,
                                            .seed = 1 + c,
                                            .position = (int32_t)t};
                int32_t want, got;
                float want_logprob, got_logprob;
                run_sample(&on->ref, logits, 1, COLS, &sample, &want, &want_logprob);
                run_sample(&on->test, logits, 1, COLS, &sample, &got, &got_logprob);
                CHECK_INT(got, want);
                CHECK_NEAR(got_logprob, want_logprob, TOLERANCE_LOGPROB);
            }
        }
    }
    lore_free(logits);
}

/* The same row gives the same token and the same bits whatever stands beside it. */
CHECK_UNUSED static void cases_sample_neighbours(const subject *on)
{
    enum { ROWS = 40, COLS = 3001 };
    float *logits = random_logits(ROWS, COLS);
    lore_sample samples[ROWS];
    for (int32_t r = 0; r < ROWS; r++) {
        samples[r] = random_sample(r);
    }
    int32_t alone[ROWS], together[ROWS];
    float alone_logprobs[ROWS], together_logprobs[ROWS];
    for (int32_t r = 0; r < ROWS; r++) {
        run_sample(&on->test, logits + (size_t)r * COLS, 1, COLS, samples + r, alone + r,
                   alone_logprobs + r);
    }
    for (int32_t rows = 2; rows <= ROWS; rows += 19) {
        for (int32_t first = 0; first + rows <= ROWS; first += rows) {
            run_sample(&on->test, logits + (size_t)first * COLS, rows, COLS, samples + first,
                       together + first, together_logprobs + first);
        }
        const size_t count = (size_t)(ROWS / rows * rows);
        CHECK(memcmp(alone, together, count * sizeof *alone) == 0);
        CHECK(memcmp(alone_logprobs, together_logprobs, count * sizeof *alone_logprobs) == 0);
    }
    lore_free(logits);
}

/* ---- the most probable tokens ---- */

static void run_tops(const side *at, const float *logits, int32_t rows, int32_t cols,
                     const lore_sample *samples, lore_likely *tops)
{
    grid in = grid_new(at, logits, rows, cols, 3);
    const size_t count = (size_t)(rows + 1) * LORE_TOPS_MAX;
    for (size_t i = 0; i < count; i++) {
        tops[i] = (lore_likely){-77, -77.0f};
    }
    lore_likely *own = upload(at, tops, count * sizeof *tops);
    lore_sample *own_samples = upload(at, samples, (size_t)rows * sizeof *samples);
    lore_op_tops(at->queue, own, in.view, own_samples);
    lore_queue_download(at->queue, tops, own, count * sizeof *tops);
    sync(at);
    lore_free(grid_take(at, &in));
    lore_backend_free(at->backend, own);
    lore_backend_free(at->backend, own_samples);
}

CHECK_UNUSED static void cases_tops(const subject *on)
{
    enum { ROWS = 7 };
    for (int i = 0; i < 40; i++) {
        const int32_t rows = PICK(0, 1, ROWS), cols = PICK(1, 2, 17, 63, 1023, 1024, 1025, 40001);
        float *logits = random_logits(rows, cols);
        lore_sample samples[ROWS];
        lore_likely want[(ROWS + 1) * LORE_TOPS_MAX], got[(ROWS + 1) * LORE_TOPS_MAX];
        for (int32_t r = 0; r < rows; r++) {
            samples[r] = random_sample(i + r);
        }
        run_tops(&on->ref, logits, rows, cols, samples, want);
        run_tops(&on->test, logits, rows, cols, samples, got);
        lore_free(logits);
        for (int32_t k = 0; k < (rows + 1) * LORE_TOPS_MAX; k++) {
            const int32_t r = k / LORE_TOPS_MAX, at = k % LORE_TOPS_MAX;
            const bool is_wanted = r < rows && at < samples[r].tops && at < cols;
            CHECK(is_wanted == (want[k].id != -77));
            CHECK_INT(got[k].id, want[k].id);
            if (got[k].logprob != want[k].logprob) { /* equal infinities need no difference */
                CHECK_NEAR(got[k].logprob, want[k].logprob, TOLERANCE_LOGPROB);
            }
        }
    }
}

/* ---- numbers of transformers ---- */

/* transformers 5.23.0 on the logits below after the tokens 3 5 3 (the prompt) and 0 9 4 0:
 *
 *     bias = {(6,): 1.5, (3,): -.75, (1,): 4.}
 *     one = [SequenceBiasLogitsProcessor(bias), RepetitionPenaltyLogitsProcessor(r)]
 *     two = [TemperatureLogitsWarper(t), TopKLogitsWarper(k), TopPLogitsWarper(p),
 *            MinPLogitsWarper(m)]
 *     y = LogitsProcessorList(one)(ids, x); softmax(LogitsProcessorList(two)(ids, y))
 *
 * with those left out that are off here. It has no penalty of presence and frequency: the last case
 * takes frequency times count and presence off y, as vLLM does. */
typedef struct golden_draw {
    bool has_bias;
    float repetition, presence, frequency, temperature;
    int32_t top_k;
    float top_p, min_p;
    double want[10];
} golden_draw;

static const float golden_logits[10] = {2.5f,  -1.25f, 0.5f,  3.0f, 1.75f,
                                        -0.5f, 2.0f,   0.25f, 1.0f, -2.0f};
static const golden_draw golden_draws[] = {
    {false,
     1,
     0,
     0,
     1,
     0,
     1,
     0,
     {0.233869, 0.0055, 0.031651, 0.385585, 0.110472, 0.011644, 0.141849, 0.02465, 0.052183,
      0.002598}},
    {true,
     1,
     0,
     0,
     1,
     0,
     1,
     0,
     {0.147531, 0.189434, 0.019966, 0.114897, 0.069689, 0.007345, 0.401031, 0.01555, 0.032919,
      0.001639}},
    {false,
     1.3f,
     0,
     0,
     1,
     0,
     1,
     0,
     {0.19741, 0.008266, 0.04757, 0.290005, 0.11087, 0.015062, 0.213195, 0.037048, 0.07843,
      0.002143}},
    {true,
     1.3f,
     0,
     0,
     1,
     0,
     1,
     0,
     {0.095913, 0.219284, 0.023112, 0.079134, 0.053867, 0.007318, 0.464224, 0.018, 0.038106,
      0.001041}},
    {true,
     1.3f,
     0,
     0,
     0.7f,
     5,
     1,
     0,
     {0.066796, 0.217667, 0, 0.050751, 0.029297, 0, 0.635489, 0, 0, 0}},
    {false, 1, 0, 0, 0.8f, 0, 0.8f, 0, {0.293815, 0, 0, 0.548918, 0, 0, 0.157268, 0, 0, 0}},
    {false,
     1,
     0,
     0,
     1.3f,
     0,
     1,
     0.2f,
     {0.248336, 0, 0, 0.364817, 0.139471, 0, 0.169045, 0, 0.07833, 0}},
    {false,
     1.3f,
     0,
     0,
     0.9f,
     6,
     0.9f,
     0.15f,
     {0.221841, 0, 0, 0.340124, 0.116855, 0, 0.241635, 0, 0.079545, 0}},
    {true,
     0.8f,
     0,
     0,
     1.1f,
     8,
     0.7f,
     0.3f,
     {0.258395, 0.183751, 0, 0.194493, 0, 0, 0.363361, 0, 0, 0}},
    {false, 1, 0, 0, 0.6f, 4, 1, 0.25f, {0.302941, 0, 0, 0.697059, 0, 0, 0, 0, 0, 0}},
    {true,
     1.3f,
     0.6f,
     0.4f,
     0.9f,
     0,
     1,
     0,
     {0.020603, 0.244638, 0.020081, 0.07883, 0.016926, 0.005596, 0.562905, 0.015211, 0.035,
      0.000211}},
};

/* Each token is drawn as often as it should be, and those that are cut off never. */
CHECK_UNUSED static void cases_golden_draws(const subject *on)
{
    enum { COLS = 10, ROWS = 50, BATCHES = 160, DRAWS = ROWS * BATCHES };
    static const int32_t text[] = {3, 5, 3, 0, 9, 4, 0};
    static const lore_bias biases[] = {{6, 1.5f}, {3, -0.75f}, {1, 4.0f}};
    for (size_t g = 0; g < sizeof golden_draws / sizeof golden_draws[0]; g++) {
        const golden_draw *golden = &golden_draws[g];
        const lore_penalty penalty = {.repetition = golden->repetition,
                                      .presence = golden->presence,
                                      .frequency = golden->frequency,
                                      .ids = text,
                                      .count = 7,
                                      .answer_start = 3,
                                      .biases = biases,
                                      .bias_count = golden->has_bias ? 3 : 0};
        grid in = grid_new(&on->test, golden_logits, 1, COLS, 0);
        lore_op_penalise(on->test.queue, in.view, &penalty);
        sync(&on->test);
        float *penalised = grid_take(&on->test, &in), *rows = host_new(sizeof(float[ROWS * COLS]));
        int32_t counts[COLS] = {0}, ids[ROWS];
        float logprobs[ROWS];
        lore_sample samples[ROWS];
        for (int32_t batch = 0; batch < BATCHES; batch++) {
            for (int32_t r = 0; r < ROWS; r++) {
                memcpy(rows + r * COLS, penalised, COLS * sizeof *rows);
                samples[r] = (lore_sample){.temperature = golden->temperature,
                                           .top_p = golden->top_p,
                                           .top_k = golden->top_k,
                                           .min_p = golden->min_p,
                                           .seed = 7 + (uint64_t)r,
                                           .position = batch};
            }
            run_sample(&on->test, rows, ROWS, COLS, samples, ids, logprobs);
            for (int32_t r = 0; r < ROWS; r++) {
                counts[ids[r]]++;
            }
        }
        lore_free(penalised);
        lore_free(rows);
        for (int32_t c = 0; c < COLS; c++) {
            const double want = golden->want[c], sigma = sqrt(want * (1.0 - want) / DRAWS);
            CHECK_NEAR((double)counts[c] / DRAWS, want, 4.5 * sigma);
        }
    }
}

#endif
