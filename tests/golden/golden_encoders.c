/* Every family of encoders against what sentence-transformers computes from the same folder, and
 * every family of cross-encoders likewise (families/, made by make_encoders.py): tokens, prompts,
 * truncation, pooling, layers behind it, dimensions. The vectors of all texts travel in one pack,
 * so lengths are mixed. */
#include "tests/unit/models_fixture.h"

#include "models/embedder.h"
#include "models/reranker.h"

#include <math.h>

enum { TEXTS_MAX = 16, DIM_MAX = 64 };

/* What rounding may do: the smallest cosine of a vector, the largest difference of a score.
 * Networks of 32 columns with random weights do not average rounding out as trained ones do. */
typedef struct tolerance {
    const char *name;
    lore_backend_kind kind;
    lore_precision precision;
    double cosine, score;
} tolerance;

static const tolerance TOLERANCES[] = {
#ifdef GOLDEN_CUDA
    {"cuda f32", LORE_BACKEND_CUDA, LORE_PRECISION_F32, .999999, 1e-5},
    {"cuda bf16", LORE_BACKEND_CUDA, LORE_PRECISION_BF16, .999, 1e-2},
#else
    {"ref f32", LORE_BACKEND_REF, LORE_PRECISION_F32, .999999, 1e-5},
    {"cpu f32", LORE_BACKEND_CPU, LORE_PRECISION_F32, .999999, 1e-5},
    {"cpu bf16", LORE_BACKEND_CPU, LORE_PRECISION_BF16, .999, 1e-2},
    {"cpu int8", LORE_BACKEND_CPU, LORE_PRECISION_INT8, .997, 2e-2},
#endif
};
enum { TOLERANCES_COUNT = sizeof TOLERANCES / sizeof TOLERANCES[0] };

static int32_t read_strings(const lore_json *list, lore_str texts[TEXTS_MAX])
{
    int32_t count = 0;
    for (const lore_json *n = lore_json_first(list); n != NULL; n = lore_json_next(n)) {
        CHECK(count < TEXTS_MAX);
        texts[count++] = lore_json_str(n);
    }
    CHECK(count > 0);
    return count;
}

static double cosine(const float *got, const lore_json *wanted, int32_t dim)
{
    double ab = 0, aa = 0, bb = 0;
    CHECK_INT(lore_json_count(wanted), dim);
    const lore_json *n = lore_json_first(wanted);
    for (int32_t i = 0; i < dim; i++, n = lore_json_next(n)) {
        double a = (double)got[i], b = lore_json_number(n);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    CHECK_NEAR(aa, 1, 1e-5);
    return ab / sqrt(aa * bb);
}

/* The smallest cosine of the vectors to a list of expected ones. */
static double compare(const float *vectors, const lore_json *wanted, int32_t count, int32_t dim)
{
    double worst = 1;
    CHECK_INT(lore_json_count(wanted), count);
    const lore_json *n = lore_json_first(wanted);
    for (int32_t i = 0; i < count; i++, n = lore_json_next(n)) {
        worst = fmin(worst, cosine(vectors + i * dim, n, dim));
    }
    return worst;
}

static void check_encoder(const char *name, const tolerance *t, int32_t dim, int32_t cut)
{
    char folder[512], path[600];
    float vectors[TEXTS_MAX * DIM_MAX];
    lore_str texts[TEXTS_MAX];
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    fixture f = fixture_open(t->kind, t->precision);
    snprintf(folder, sizeof folder, LORE_FAMILIES "/%s", name);
    snprintf(path, sizeof path, "%s/expected.json", folder);
    lore_json *root = read_json(path);
    int32_t count = read_strings(lore_json_get(root, "texts"), texts);
    CHECK_OK(lore_embedder_open(folder, f.backend, &LIMITS, &embedder, &err), &err);
    CHECK_INT(lore_embedder_dim(embedder), dim);
    CHECK_OK(lore_embedder_encode(embedder, texts, count, vectors, &err), &err);
    double query = compare(vectors, lore_json_get(root, "query"), count, dim);
    CHECK_OK(lore_embedder_encode_bulk(embedder, texts, count, vectors, &err), &err);
    double document = compare(vectors, lore_json_get(root, "document"), count, dim);
    CHECK_OK(lore_embedder_encode_passages(embedder, texts, count, vectors, &err), &err);
    double passage = compare(vectors, lore_json_get(root, "document"), count, dim);
    printf("%-16s %-8s smallest cosine: questions %.7f, documents %.7f\n", name, t->name, query,
           document);
    CHECK(query >= t->cosine);
    CHECK(document >= t->cosine);
    CHECK(passage >= t->cosine);
    CHECK(lore_embedder_cut_count(embedder) >= cut);
    lore_embedder_close(embedder);
    lore_json_free(root);
    fixture_close(&f);
}

static void check_reranker(const char *name, const tolerance *t)
{
    char folder[512], path[600];
    float scores[TEXTS_MAX];
    lore_str texts[TEXTS_MAX];
    lore_error err = {0};
    lore_reranker *reranker = NULL;
    fixture f = fixture_open(t->kind, t->precision);
    snprintf(folder, sizeof folder, LORE_FAMILIES "/%s", name);
    snprintf(path, sizeof path, "%s/expected.json", folder);
    lore_json *root = read_json(path);
    int32_t count = read_strings(lore_json_get(root, "passages"), texts);
    lore_str questions[TEXTS_MAX];
    int32_t questions_count = read_strings(lore_json_get(root, "queries"), questions);
    CHECK_OK(lore_reranker_open(folder, f.backend, &LIMITS, &reranker, &err), &err);
    double worst = 0;
    const lore_json *row = lore_json_first(lore_json_get(root, "scores"));
    for (int32_t q = 0; q < questions_count; q++, row = lore_json_next(row)) {
        CHECK_OK(lore_reranker_score(reranker, questions[q], texts, count, 0, scores, &err), &err);
        CHECK_INT(lore_json_count(row), count);
        const lore_json *n = lore_json_first(row);
        for (int32_t i = 0; i < count; i++, n = lore_json_next(n)) {
            worst = fmax(worst, fabs((double)scores[i] - lore_json_number(n)));
        }
    }
    printf("%-16s %-8s largest difference of a score %.7f\n", name, t->name, worst);
    CHECK(worst <= t->score);
    lore_reranker_close(reranker);
    lore_json_free(root);
    fixture_close(&f);
}

static void check_everywhere(const char *name, int32_t dim, int32_t cut)
{
    for (int i = 0; i < TOLERANCES_COUNT; i++) {
        check_encoder(name, &TOLERANCES[i], dim, cut);
    }
}

/* First token, an own limit of 24 tokens. */
TEST(bert)
{
    check_everywhere("enc-bert", 32, 3);
}

/* Mean of all tokens, a dense layer, gelu by tanh, names that begin with "bert.", f16. */
TEST(bert_dense)
{
    check_everywhere("enc-bert-dense", 24, 3);
}

/* Positions behind the padding's, prompts, f16. */
TEST(xlm_roberta)
{
    check_everywhere("enc-xlmr", 32, 3);
}

/* Windows of 4 tokens on each side, two thetas, a default prompt, no Normalize, bf16. */
TEST(modernbert)
{
    check_everywhere("enc-modernbert", 32, 3);
}

/* Causal, last token, an instruction for questions, 20 of 32 dimensions, bf16. */
TEST(qwen3)
{
    check_everywhere("enc-qwen3", 20, 3);
}

TEST(rerankers)
{
    for (int i = 0; i < TOLERANCES_COUNT; i++) {
        check_reranker("rank-bert", &TOLERANCES[i]);
        check_reranker("rank-xlmr", &TOLERANCES[i]);
        check_reranker("rank-modernbert",
                       &TOLERANCES[i]); /* mean of all tokens, norm in the head */
    }
}

CHECK_MAIN(bert, bert_dense, xlm_roberta, modernbert, qwen3, rerankers)
