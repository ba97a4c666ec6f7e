/* ref against numbers worked out by hand or by a formula written here a second time, in double;
 * then the same cases as every backend, which prove on ref the sentinels, strides and aliasing that
 * comparing ref with ref cannot fake. */
#include "tests/ops/int4_cases.h"
#include "tests/ops/lora_cases.h"
#include "tests/ops/ops_cases.h"

static side ref;

static void open_ref(void)
{
    side_open(&ref, &(lore_backend_options){.kind = LORE_BACKEND_REF});
}

static void close_ref(void)
{
    sync(&ref);
    side_close(&ref);
}

/* [3, 4] has mean square 12.5. */
TEST(ref_rmsnorm)
{
    open_ref();
    float x[2] = {3.0f, 4.0f}, w[2] = {2.0f, 0.5f};
    lore_op_rmsnorm(ref.queue, lore_view_of(x, 1, 2), lore_view_of(x, 1, 2), w, 0.0f);
    CHECK_NEAR(x[0], 6.0 / sqrt(12.5), 1e-6);
    CHECK_NEAR(x[1], 2.0 / sqrt(12.5), 1e-6);
    close_ref();
}

/* [1, 3] has mean 2 and variance 1. */
TEST(ref_layernorm)
{
    open_ref();
    float x[2] = {1.0f, 3.0f}, w[2] = {2.0f, 5.0f}, b[2] = {0.5f, -1.0f}, out[2];
    lore_op_layernorm(ref.queue, lore_view_of(out, 1, 2), lore_view_of(x, 1, 2), w, b, 3.0f);
    CHECK_NEAR(out[0], -1.0 / 2.0 * 2.0 + 0.5, 1e-6);
    CHECK_NEAR(out[1], 1.0 / 2.0 * 5.0 - 1.0, 1e-6);
    lore_op_layernorm(ref.queue, lore_view_of(out, 1, 2), lore_view_of(x, 1, 2), w, NULL, 3.0f);
    CHECK_NEAR(out[0], -1.0 / 2.0 * 2.0, 1e-6);
    close_ref();
}

/* Two stacked parts, one of int8 with row scales: order of rows, bias, GELU (exact, not the tanh
 * one) and residual. */
TEST(ref_matmul)
{
    open_ref();
    const float first[4] = {1.0f, 2.0f, -1.0f, 0.5f};
    const int8_t second[2] = {10, -20};
    const float scale = 0.25f;
    const lore_matrix parts[2] = {
        {.dtype = LORE_F32, .rows = 2, .cols = 2, .data = first},
        {.dtype = LORE_I8, .rows = 1, .cols = 2, .data = second, .scales = &scale}};
    lore_weight *weight = NULL;
    lore_error err = {0};
    CHECK_OK(lore_weight_pack(ref.backend, parts, 2, LORE_USE_MATMUL, &weight, &err), &err);
    float x[2] = {2.0f, 3.0f}, bias[3] = {-7.0f, 0.0f, 9.0f}, out[3] = {100.0f, 100.0f, 100.0f};
    lore_op_matmul(
        ref.queue, lore_view_of(out, 1, 3), lore_view_of(x, 1, 2), weight,
        (lore_epilogue){.bias = bias, .activation = LORE_ACT_GELU, .is_accumulating = true});
    CHECK_NEAR(out[0], 100.0 + 0.84134474606854, 1e-5);       /* gelu(1) */
    CHECK_NEAR(out[1], 100.0 - 0.5 * 0.30853753872599, 1e-5); /* gelu(-1/2) = -1/2 * Phi(-1/2) */
    CHECK_NEAR(out[2], 100.0 - 0.15865525393146, 1e-5); /* gelu(9 + (20 - 60) / 4) = gelu(-1) */
    lore_weight_free(weight);
    close_ref();
}

TEST(ref_embed)
{
    open_ref();
    const int8_t bytes[4] = {1, -2, 3, 100};
    const float scales[2] = {0.5f, 2.0f};
    const uint16_t halves[2] = {lore_f32_to_f16(1.5f), lore_f32_to_f16(-0.25f)};
    const lore_matrix parts[2] = {
        {.dtype = LORE_I8, .rows = 2, .cols = 2, .data = bytes, .scales = scales},
        {.dtype = LORE_F16, .rows = 1, .cols = 2, .data = halves}};
    lore_weight *table = NULL;
    lore_error err = {0};
    CHECK_OK(lore_weight_pack(ref.backend, parts, 2, LORE_USE_BOTH, &table, &err), &err);
    const int32_t ids[3] = {2, 0, 1};
    float out[6] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
    lore_op_embed(ref.queue, lore_view_of(out, 3, 2), table, ids, 3.0f, true);
    const float want[6] = {5.5f, 0.25f, 2.5f, -2.0f, 19.0f, 601.0f};
    for (int i = 0; i < 6; i++) {
        CHECK_NEAR(out[i], want[i], 0.0);
    }
    lore_op_embed(ref.queue, lore_view_of(out, 1, 2), table, ids, 1.0f, false);
    CHECK_NEAR(out[0], 1.5f, 0.0);
    lore_weight_free(table);
    close_ref();
}

/* Every activation at 1 and at -2, worked out elsewhere; 0 gives 0 and NaN stays NaN. */
TEST(ref_glu)
{
    static const struct {
        lore_activation activation;
        double at_one, at_minus_two;
    } wants[] = {
        {LORE_ACT_NONE, 1.0, -2.0},
        {LORE_ACT_GELU, 0.84134474606854, -0.04550026389636},
        {LORE_ACT_GELU_TANH, 0.84119199060827, -0.04540230591222},
        {LORE_ACT_SILU, 0.73105857863000, -0.23840584404423},
        {LORE_ACT_TANH, 0.76159415595576, -0.96402758007582},
    };
    open_ref();
    for (size_t i = 0; i < sizeof wants / sizeof wants[0]; i++) {
        float gate_up[8] = {1.0f, -2.0f, 0.0f, NAN, 3.0f, 5.0f, 7.0f, 1.0f}, out[4];
        lore_op_glu(ref.queue, lore_view_of(out, 1, 4), lore_view_of(gate_up, 1, 8),
                    wants[i].activation);
        CHECK_NEAR(out[0], 3.0 * wants[i].at_one, 1e-6);
        CHECK_NEAR(out[1], 5.0 * wants[i].at_minus_two, 1e-6);
        CHECK_NEAR(out[2], 0.0, 0.0);
        CHECK(isnan(out[3]));
    }
    close_ref();
}

TEST(ref_add_and_softcap)
{
    open_ref();
    float x[3] = {1.0f, -60.0f, 1e9f}, y[3] = {0.5f, 30.0f, 0.0f};
    lore_op_add(ref.queue, lore_view_of(x, 1, 3), lore_view_of(y, 1, 3));
    CHECK_NEAR(x[0], 1.5, 0.0);
    lore_op_softcap(ref.queue, lore_view_of(x, 1, 3), 30.0f);
    CHECK_NEAR(x[0], 30.0 * 0.04995837495788, 1e-6);
    CHECK_NEAR(x[1], 30.0 * -0.76159415595576, 1e-5);
    CHECK_NEAR(x[2], 30.0, 0.0);
    close_ref();
}

/* One query head and one kv head of size 4 at position 5 of page list {1, 0}, pages of 4 tokens:
 * the pair (0, 2) turns by 90 degrees, the pair (1, 3) not at all; the key has a norm, the query
 * none. */
TEST(ref_rope_append)
{
    open_ref();
    float cosine[16], sine[16], keys[32] = {0}, values[32] = {0};
    for (int i = 0; i < 16; i++) {
        cosine[i] = i == 10 ? 0.0f : 1.0f;
        sine[i] = i == 10 ? 1.0f : 0.0f;
    }
    float qkv[12] = {1.0f, 2.0f, 3.0f, 4.0f, 2.0f, 2.0f, -2.0f, 2.0f, 9.0f, 8.0f, 7.0f, 6.0f};
    const float k_norm[4] = {1.0f, 10.0f, 3.0f, 100.0f};
    const int32_t row_start[2] = {0, 1}, past[1] = {5}, page_start[2] = {0, 2}, pages[2] = {1, 0};
    const lore_batch batch = {1, 1, row_start, past, page_start, pages, 1, 6};
    const lore_pages held = {keys, values, LORE_F32, 2, 4, 1, 4};
    float same[12];
    memcpy(same, qkv, sizeof same);
    const lore_rope rope = {cosine, sine, 8, NULL, 1, 4, NULL, k_norm, 0.0f};
    lore_op_rope_append(ref.queue, lore_view_of(qkv, 1, 12), &rope, &held, &batch);
    const float query[4] = {-3.0f, 2.0f, 1.0f, 4.0f}, key[4] = {3.0f, 10.0f, 1.0f, 100.0f};
    for (int i = 0; i < 4; i++) {
        CHECK_NEAR(qkv[i], query[i], 1e-6);
        CHECK_NEAR(keys[4 + i], key[i], 1e-4); /* token 1 of page 0 */
        CHECK_NEAR(values[4 + i], qkv[8 + i], 0.0);
        CHECK_NEAR(keys[i], 0.0, 0.0);
    }
    /* The same row of the tables, as position 5 of a table that starts 2 rows further on. */
    float longer[20] = {0}, longer_sine[20] = {0};
    const int32_t starts[1] = {2};
    memcpy(longer + 4, cosine, sizeof cosine);
    memcpy(longer_sine + 4, sine, sizeof sine);
    const lore_rope shifted = {longer, longer_sine, 10, starts, 1, 4, NULL, k_norm, 0.0f};
    memset(keys, 0, sizeof keys);
    lore_op_rope_append(ref.queue, lore_view_of(same, 1, 12), &shifted, &held, &batch);
    CHECK(memcmp(same, qkv, 4 * sizeof *qkv) == 0);
    for (int i = 0; i < 4; i++) {
        CHECK_NEAR(keys[4 + i], key[i], 1e-4); /* in its place */
    }
    close_ref();
}

/* Attention of the last row of a sequence, by the textbook formula in double, for both layouts of
 * keys. */
TEST(ref_attention)
{
    open_ref();
    enum { N = 7, DIM = 6, GROUP = 2 };
    random_state = seed_of_run();
    float *qkv = random_floats(N * 3 * DIM * GROUP), out[N * DIM * GROUP], paged[DIM * GROUP];
    float keys[N * DIM], values[N * DIM], queries[DIM * GROUP];
    const int32_t row_start[2] = {0, N};
    lore_op_attend_packed(ref.queue, lore_view_of(out, N, DIM * GROUP),
                          lore_view_of(qkv, N, 3 * DIM * GROUP), GROUP, GROUP, 1, row_start, N,
                          false, &(lore_attention){.scale = 0.7f});
    const int32_t head = 1;
    for (int t = 0; t < N; t++) {
        memcpy(keys + t * DIM, qkv + t * 36 + 12 + head * DIM, sizeof(float) * DIM);
        memcpy(values + t * DIM, qkv + t * 36 + 24 + head * DIM, sizeof(float) * DIM);
    }
    for (int j = 0; j < GROUP; j++) { /* the paged one: both query heads share the kv head */
        memcpy(queries + j * DIM, qkv + (N - 1) * 36 + head * DIM, sizeof(float) * DIM);
    }
    const int32_t one_row[2] = {0, 1}, past[1] = {N - 1}, page_start[2] = {0, N},
                  pages[N] = {0, 1, 2, 3, 4, 5, 6};
    const lore_batch batch = {1, 1, one_row, past, page_start, pages, 1, N};
    const lore_pages held = {keys, values, LORE_F32, N, 1, 1, DIM};
    lore_op_attend_paged(ref.queue, lore_view_of(paged, 1, DIM * GROUP),
                         lore_view_of(queries, 1, DIM * GROUP), &held, &batch,
                         &(lore_attention){.scale = 0.7f});
    double weights[N], mass = 0.0;
    for (int t = 0; t < N; t++) {
        double dot = 0.0;
        for (int i = 0; i < DIM; i++) {
            dot += (double)queries[i] * (double)keys[t * DIM + i];
        }
        weights[t] = exp(0.7 * dot);
        mass += weights[t];
    }
    for (int i = 0; i < DIM; i++) {
        double want = 0.0;
        for (int t = 0; t < N; t++) {
            want += weights[t] / mass * (double)values[t * DIM + i];
        }
        CHECK_NEAR(out[(N - 1) * DIM * GROUP + head * DIM + i], want, 1e-5);
        CHECK_NEAR(paged[i], want, 1e-5);
        CHECK_NEAR(paged[DIM + i], want, 1e-5);
    }
    lore_free(qkv);
    close_ref();
}

/* One row of attention by the definition, in double: who is seen, how scores are capped, which head
 * of keys is read. x is [n, (h + 2g) e]. */
static void attend_plainly(const float *x, int32_t rows, int32_t heads, int32_t kv_heads,
                           int32_t dim, bool is_causal, const lore_attention *attention,
                           int32_t row, int32_t head, double *out)
{
    const int32_t cols = (heads + 2 * kv_heads) * dim, kv = head * kv_heads / heads;
    const float *query = x + row * cols + head * dim;
    double mass = 0.0;
    memset(out, 0, (size_t)dim * sizeof *out);
    for (int32_t t = 0; t < rows; t++) {
        const int32_t distance = row - t, window = attention->window;
        const bool is_near = is_causal ? distance < window : abs(distance) <= window;
        if ((is_causal && distance < 0) || (window > 0 && !is_near)) {
            continue;
        }
        const float *key = x + t * cols + (heads + kv) * dim, *value = key + kv_heads * dim;
        double score = 0.0;
        for (int32_t i = 0; i < dim; i++) {
            score += (double)attention->scale * (double)query[i] * (double)key[i];
        }
        if (attention->softcap > 0.0f) {
            score = (double)attention->softcap * tanh(score / (double)attention->softcap);
        }
        mass += exp(score);
        for (int32_t i = 0; i < dim; i++) {
            out[i] += exp(score) * (double)value[i];
        }
    }
    for (int32_t i = 0; i < dim; i++) {
        out[i] /= mass;
    }
}

/* Windows, caps, grouped heads and causality of both attentions against that definition; the pages
 * are a copy of the packed keys and values. */
TEST(ref_attention_masks)
{
    enum { ROWS = 13, HEADS = 6, KV_HEADS = 2, DIM = 4, COLS = (HEADS + 2 * KV_HEADS) * DIM };
    open_ref();
    random_state = seed_of_run();
    float *x = random_floats(ROWS * COLS), keys[KV_HEADS * ROWS * DIM],
          values[KV_HEADS * ROWS * DIM];
    for (int t = 0; t < ROWS; t++) { /* one page of all tokens: [g, t, e] */
        for (int j = 0; j < KV_HEADS; j++) {
            const float *key = x + t * COLS + (HEADS + j) * DIM;
            memcpy(keys + (j * ROWS + t) * DIM, key, DIM * sizeof *key);
            memcpy(values + (j * ROWS + t) * DIM, key + KV_HEADS * DIM, DIM * sizeof *key);
        }
    }
    const int32_t row_start[2] = {0, ROWS}, past[1] = {0}, page_start[2] = {0, 1}, pages[1] = {0};
    const lore_batch batch = {1, ROWS, row_start, past, page_start, pages, ROWS, ROWS};
    const lore_pages held = {keys, values, LORE_F32, 1, ROWS, KV_HEADS, DIM};
    const lore_view qkv = lore_view_of(x, ROWS, COLS),
                    queries = lore_view_columns(qkv, 0, HEADS * DIM);
    static const lore_attention cases[] = {
        {0.7f, 0.0f, 0},  {0.7f, 0.0f, 1},  {0.7f, 0.0f, 5},
        {2.0f, 0.8f, 0},  {2.0f, 0.8f, 3},  {0.7f, 0.0f, ROWS - 1},
        {0.7f, 0.0f, 99}, {-1.0f, 0.0f, 2}, {0.7f, 50.0f, 0}};
    for (size_t c = 0; c < 3 * (sizeof cases / sizeof cases[0]); c++) {
        const lore_attention *attention = &cases[c / 3];
        float out[ROWS * HEADS * DIM];
        const lore_view to = lore_view_of(out, ROWS, HEADS * DIM);
        if (c % 3 == 2) {
            lore_op_attend_paged(ref.queue, to, queries, &held, &batch, attention);
        } else {
            lore_op_attend_packed(ref.queue, to, qkv, HEADS, KV_HEADS, 1, row_start, ROWS,
                                  c % 3 == 1, attention);
        }
        for (int32_t i = 0; i < ROWS * HEADS; i++) {
            double want[DIM];
            attend_plainly(x, ROWS, HEADS, KV_HEADS, DIM, c % 3 != 0, attention, i / HEADS,
                           i % HEADS, want);
            for (int32_t k = 0; k < DIM; k++) {
                CHECK_NEAR(out[i * DIM + k], want[k], 1e-5);
            }
        }
    }
    lore_free(x);
    close_ref();
}

/* Heads of 6 of which 4 are rotated: pairs (0, 2) and (1, 3), by the position in their own
 * sequence; the last two pass through, but for the norm; values are left alone. */
TEST(ref_rope_packed)
{
    open_ref();
    const float cosine[4] = {1.0f, 1.0f, 0.0f, 1.0f}, sine[4] = {0.0f, 0.0f, 1.0f, 0.0f};
    const float norm[6] = {1.0f, 2.0f, 1.0f, 1.0f, 3.0f, 1.0f};
    float x[2 * 18], want[2 * 18];
    for (int i = 0; i < 36; i++) {
        x[i] = i % 6 == 5 ? 2.0f : i % 2 == 0 ? -2.0f : 2.0f; /* mean square 4 */
        want[i] = x[i];
    }
    for (int i = 6; i < 12; i++) { /* the key of position 0 has its norm only */
        want[i] = x[i] / 2.0f * norm[i - 6];
        want[18 + i] = x[18 + i] / 2.0f * norm[i - 6];
    }
    for (int i = 18; i < 30; i += 6) { /* position 1 turns its pair (0, 2) by 90 degrees */
        const float first = want[i];
        want[i] = -want[i + 2];
        want[i + 2] = first;
    }
    const int32_t starts[3] = {0, 2, 2};
    const lore_rope rope = {cosine, sine, 2, NULL, 1, 4, NULL, norm, 0.0f};
    lore_op_rope_packed(ref.queue, lore_view_of(x, 2, 18), &rope, 1, 6, 2, starts);
    for (int i = 0; i < 36; i++) {
        CHECK_NEAR(x[i], want[i], 1e-6);
    }
    close_ref();
}

TEST(ref_pool_and_gather)
{
    open_ref();
    float x[6] = {1.0f, 2.0f, 5.0f, 6.0f, -3.0f, 4.0f}, out[4];
    const int32_t starts[3] = {0, 2, 3}, rows[2] = {2, 0};
    const lore_view in = lore_view_of(x, 3, 2), to = lore_view_of(out, 2, 2);
    lore_op_pool(ref.queue, to, in, starts, LORE_POOL_MEAN, false);
    CHECK_NEAR(out[0], 3.0, 1e-6);
    CHECK_NEAR(out[1], 4.0, 1e-6);
    lore_op_pool(ref.queue, to, in, starts, LORE_POOL_LAST, true);
    CHECK_NEAR(out[0], 5.0 / sqrt(61.0), 1e-6);
    CHECK_NEAR(out[3], 0.8, 1e-6);
    lore_op_pool(ref.queue, to, in, starts, LORE_POOL_CLS, false);
    CHECK_NEAR(out[1], 2.0, 0.0);
    lore_op_gather(ref.queue, to, in, rows);
    CHECK_NEAR(out[0], -3.0, 0.0);
    CHECK_NEAR(out[3], 2.0, 0.0);
    close_ref();
}

TEST(ref_scan)
{
    open_ref();
    const int8_t query[3] = {127, -128, 5}, vectors[6] = {127, -128, 0, 1, 1, 1};
    const float scales[2] = {0.5f, 2.0f};
    float scores[2];
    lore_op_scan(ref.queue, scores, query, 0.25f, vectors, scales, 2, 3);
    CHECK_NEAR(scores[0], (127.0 * 127.0 + 128.0 * 128.0) * 0.125, 1e-2);
    CHECK_NEAR(scores[1], 4.0 * 0.5, 1e-6);
    close_ref();
}

/* ---- sampling ---- */

static int32_t draw(const float *logits, int32_t count, lore_sample sample, float *logprob)
{
    int32_t id = -1;
    run_sample(&ref, logits, 1, count, &sample, &id, logprob);
    return id;
}

/* Greedy: ties to the lowest id, NaN is -inf, nothing else gives 0; the log probability is of the
 * whole row. */
TEST(ref_sample_greedy)
{
    open_ref();
    const lore_sample greedy = {.top_p = 1.0f};
    float logprob;
    CHECK_INT(draw((float[]){1.0f, 3.0f, 3.0f, NAN}, 4, greedy, &logprob), 1);
    CHECK_NEAR(logprob, -log(2.0 + exp(-2.0)), 1e-6);
    CHECK_INT(draw((float[]){NAN, NAN, NAN}, 3, greedy, &logprob), 0);
    CHECK(!isnan(logprob));
    CHECK_INT(draw((float[]){NAN, -INFINITY, -5.0f}, 3, greedy, &logprob), 2);
    CHECK_NEAR(logprob, 0.0, 0.0);
    CHECK_INT(draw((float[]){1.0f, INFINITY, 2.0f, INFINITY}, 4, greedy, &logprob), 1);
    CHECK_NEAR(logprob, -log(2.0), 1e-6);
    CHECK_INT(
        draw((float[]){NAN, NAN}, 2, (lore_sample){.temperature = 1.0f, .top_p = 0.5f}, &logprob),
        0);
    close_ref();
}

/* By hand: a positive logit is divided, another one multiplied, each once however often its token
 * is named; rows are penalised by themselves; NaN and infinities stay what they are. */
TEST(ref_penalise)
{
    open_ref();
    float x[2][10] = {{3.0f, -2.0f, 0.0f, 5.0f, 1.0f, NAN, -INFINITY, INFINITY, 8.0f, -8.0f},
                      {3.0f, -2.0f, 0.0f, 5.0f, 1.0f, NAN, -INFINITY, INFINITY, 8.0f, -8.0f}};
    static const int32_t ids[] = {3, 0, 3, 1, 3, 2, 5, 6, 7, 9, 9};
    const lore_penalty penalties[2] = {{.repetition = 2.0f, .ids = ids, .count = 11},
                                       {.repetition = 0.5f, .ids = ids, .count = 2}};
    const float want[2][10] = {
        {1.5f, -4.0f, 0, 2.5f, 1.0f, NAN, -INFINITY, INFINITY, 8.0f, -16.0f},
        {6.0f, -2.0f, 0, 10.0f, 1.0f, NAN, -INFINITY, INFINITY, 8.0f, -8.0f}};
    lore_op_penalise(ref.queue, lore_view_of(x[0], 2, 10), penalties);
    for (int r = 0; r < 2; r++) {
        for (int c = 0; c < 10; c++) {
            CHECK(x[r][c] == want[r][c] || (isnan(want[r][c]) && isnan(x[r][c])));
        }
    }
    const lore_penalty none[1] = {{.repetition = 1.0f, .ids = ids, .count = 11}};
    lore_op_penalise(ref.queue, lore_view_of(x[0], 1, 10), none);
    CHECK_NEAR(x[0][0], 1.5, 0.0);
    lore_op_penalise(ref.queue, lore_view_of(x[0], 0, 10), NULL); /* an empty batch is legal */
    close_ref();
}

/* By hand: first the bias, then the factor, then what the answer's tokens (those from the fourth
 * on) have cost: a frequency for each time, a presence once. */
TEST(ref_penalise_adds)
{
    open_ref();
    float x[6] = {3.0f, -2.0f, 0.0f, 5.0f, 1.0f, NAN};
    static const int32_t ids[] = {3, 0, 3, 1, 4, 1, 5, 1};
    static const lore_bias biases[] = {{1, 6.0f}, {2, -100.0f}};
    const lore_penalty penalty = {.repetition = 2.0f,
                                  .presence = 0.25f,
                                  .frequency = 1.0f,
                                  .ids = ids,
                                  .count = 8,
                                  .answer_start = 3,
                                  .biases = biases,
                                  .bias_count = 2};
    const float want[6] = {1.5f, -1.25f, -100.0f, 2.5f, -0.75f, NAN};
    lore_op_penalise(ref.queue, lore_view_of(x, 1, 6), &penalty);
    for (int c = 0; c < 6; c++) {
        CHECK(x[c] == want[c] || (isnan(x[c]) && isnan(want[c])));
    }
    close_ref();
}

/* By hand: largest first, the lowest id among equals; NaN is -inf; no more than were asked for. */
TEST(ref_tops)
{
    open_ref();
    const float logits[5] = {1.0f, 3.0f, NAN, 3.0f, -INFINITY};
    const lore_sample sample = {.tops = 4};
    lore_likely tops[2 * LORE_TOPS_MAX];
    const double total = log(2.0 + exp(-2.0));
    run_tops(&ref, logits, 1, 5, &sample, tops);
    CHECK_INT(tops[0].id, 1);
    CHECK_INT(tops[1].id, 3);
    CHECK_INT(tops[2].id, 0);
    CHECK_INT(tops[3].id, 2);
    CHECK_INT(tops[4].id, -77);
    CHECK_NEAR(tops[0].logprob, -total, 1e-6);
    CHECK_NEAR(tops[2].logprob, -2.0 - total, 1e-6);
    CHECK(tops[3].logprob == -INFINITY);
    close_ref();
}

/* The tokens that may come are exactly those that temperature, top_k, top_p and min_p leave, each
 * as often as it should: probabilities 1/2, 1/4, 1/8, 1/8 at temperature 1. */
TEST(ref_sample_frequencies)
{
    open_ref();
    const float third = logf(2.0f), logits[4] = {0.0f, third, 2.0f * third, 0.0f};
    static const struct {
        float temperature, top_p;
        int32_t top_k;
        float min_p;
        double want[4];
    } cases[] = {
        {1.0f, 1.0f, 0, 0, {0.125, 0.25, 0.5, 0.125}},
        {0.5f, 1.0f, 0, 0, {1.0 / 22, 4.0 / 22, 16.0 / 22, 1.0 / 22}},
        {1.0f, 1.0f, 2, 0, {0.0, 1.0 / 3, 2.0 / 3, 0.0}},
        {1.0f, 0.6f, 0, 0, {0.0, 1.0 / 3, 2.0 / 3, 0.0}},
        {1.0f, 0.8f, 0, 0, {1.0 / 7, 2.0 / 7, 4.0 / 7, 0.0}}, /* the lower id of the two equals */
        {1.0f, 0.65f, 2, 0, {0.0, 0.0, 1.0, 0.0}},           /* of the two kept the first has 2/3 */
        {1.0f, 0.0f, 0, 0, {0.0, 0.0, 1.0, 0.0}},            /* never none */
        {1.0f, 1.0f, 0, 0.3f, {0.0, 1.0 / 3, 2.0 / 3, 0.0}}, /* an eighth is a quarter of a half */
        {2.0f, 1.0f, 0, 0.6f, {0.0, 0.414214, 0.585786, 0.0}}, /* of what the temperature makes */
        {1.0f, 0.9f, 3, 0.3f, {0.0, 1.0 / 3, 2.0 / 3, 0.0}},
        {1.0f, 1.0f, 0, 1.0f, {0.0, 0.0, 1.0, 0.0}}, /* never none */
    };
    enum { DRAWS = 4000 };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        int32_t counts[4] = {0};
        for (int32_t i = 0; i < DRAWS; i++) {
            const lore_sample sample = {.temperature = cases[c].temperature,
                                        .top_p = cases[c].top_p,
                                        .top_k = cases[c].top_k,
                                        .min_p = cases[c].min_p,
                                        .seed = 7 + (uint64_t)(i % 5),
                                        .position = i};
            float logprob;
            const int32_t id = draw(logits, 4, sample, &logprob);
            CHECK(id >= 0 && id < 4);
            counts[id]++;
        }
        for (int i = 0; i < 4; i++) {
            const double sigma = sqrt(cases[c].want[i] * (1.0 - cases[c].want[i]) / DRAWS);
            CHECK_NEAR((double)counts[i] / DRAWS, cases[c].want[i], 4.5 * sigma);
        }
    }
    close_ref();
}

/* The draw is a function of seed and position alone, and both matter. */
TEST(ref_sample_repeats)
{
    open_ref();
    float logits[100] = {0}, logprob;
    int32_t by_seed = 0, by_position = 0;
    for (int i = 0; i < 50; i++) {
        const lore_sample one = {.temperature = 1.0f, .top_p = 1.0f, .seed = 5, .position = i};
        lore_sample other = one;
        const int32_t id = draw(logits, 100, one, &logprob);
        CHECK_INT(draw(logits, 100, one, &logprob), id);
        other.seed = 6;
        by_seed += draw(logits, 100, other, &logprob) != id;
        other = one;
        other.position = i + 1;
        by_position += draw(logits, 100, other, &logprob) != id;
    }
    CHECK(by_seed > 40);
    CHECK(by_position > 40);
    close_ref();
}

/* The cases of every backend, on ref itself. */
TEST(ref_cases)
{
    subject on;
    subject_open(&on,
                 (lore_backend_options){.kind = LORE_BACKEND_REF, .precision = LORE_PRECISION_F32},
                 3, "ref");
    cases_matmul(&on);
    cases_int4(&on);
    cases_lora(&on);
    cases_small(&on);
    subject_close(&on);
}

CHECK_MAIN(ref_rmsnorm, ref_layernorm, ref_matmul, ref_embed, ref_glu, ref_add_and_softcap,
           ref_rope_append, ref_attention, ref_attention_masks, ref_rope_packed,
           ref_pool_and_gather, ref_scan, ref_sample_greedy, ref_penalise, ref_penalise_adds,
           ref_tops, ref_sample_frequencies, ref_sample_repeats, ref_cases)
