/* The encoder gives the vectors of an independent float64 implementation, on every backend and
 * precision, whatever the texts are packed with; and a folder that is not what it must be is
 * refused by name. */
#include "tests/unit/models_fixture.h"

#include "models/embedder.h"

#include <pthread.h>

#define ENCODER LORE_SOURCE_DIR "/weights/encoder"
enum { TEXTS_MAX = 64, DIM = 384 };

typedef struct golden {
    lore_json *root;
    lore_str texts[TEXTS_MAX];
    float vectors[TEXTS_MAX][DIM];
    int32_t count;
} golden;

static void golden_open(golden *g)
{
    g->root = read_json(GOLDEN "/encoder.json");
    g->count = 0;
    for (const lore_json *n = lore_json_first(g->root); n != NULL; n = lore_json_next(n)) {
        CHECK(g->count < TEXTS_MAX);
        g->texts[g->count] = lore_json_str(lore_json_get(n, "text"));
        int32_t i = 0;
        for (const lore_json *x = lore_json_first(lore_json_get(n, "vector")); x != NULL;
             x = lore_json_next(x)) {
            CHECK(i < DIM);
            g->vectors[g->count][i++] = (float)lore_json_number(x);
        }
        CHECK_INT(i, DIM);
        g->count++;
    }
    CHECK(g->count > 30);
}

static double cosine(const float *a, const float *b)
{
    double ab = 0, aa = 0, bb = 0;
    for (int32_t i = 0; i < DIM; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb);
}

/* The smallest cosine to the golden vectors is at least `bar`. */
static void compare(lore_backend_kind kind, lore_precision precision, double bar, const char *label)
{
    static golden g;
    static float vectors[TEXTS_MAX][DIM];
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    fixture f = fixture_open(kind, precision);
    golden_open(&g);
    CHECK_OK(lore_embedder_open(ENCODER, f.backend, &LIMITS, &embedder, &err), &err);
    CHECK_OK(lore_embedder_encode(embedder, g.texts, g.count, vectors[0], &err), &err);
    double worst = 1;
    for (int32_t i = 0; i < g.count; i++) {
        double c = cosine(vectors[i], g.vectors[i]), length = 0;
        worst = c < worst ? c : worst;
        for (int32_t k = 0; k < DIM; k++) {
            length += (double)vectors[i][k] * (double)vectors[i][k];
        }
        CHECK_NEAR(length, 1, 1e-4);
    }
    printf("%s: smallest cosine of %d texts %.7f\n", label, g.count, worst);
    CHECK(worst >= bar);
    CHECK_INT(lore_embedder_cut_count(embedder), 1); /* the long one */
    lore_embedder_close(embedder);
    lore_json_free(g.root);
    fixture_close(&f);
}

TEST(cpu_f32_matches)
{
    compare(LORE_BACKEND_CPU, LORE_PRECISION_F32, 0.9999, "cpu f32");
}

TEST(cpu_bf16_matches)
{
    compare(LORE_BACKEND_CPU, LORE_PRECISION_BF16, 0.9995, "cpu bf16");
}

TEST(cpu_int8_matches)
{
    compare(LORE_BACKEND_CPU, LORE_PRECISION_INT8, 0.999, "cpu int8");
}

TEST(ref_matches)
{
    compare(LORE_BACKEND_REF, LORE_PRECISION_F32, 0.9999, "ref");
}

/* A text's vector does not depend on its company: alone, twice, or among a thousand over several
 * windows. */
TEST(packing_changes_nothing)
{
    enum { MANY = 1100 };
    static golden g;
    static float alone[TEXTS_MAX][DIM], many[MANY][DIM];
    static lore_str texts[MANY];
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_AUTO);
    golden_open(&g);
    CHECK_OK(lore_embedder_open(ENCODER, f.backend, &LIMITS, &embedder, &err), &err);
    for (int32_t i = 0; i < g.count; i++) {
        CHECK_OK(lore_embedder_encode(embedder, &g.texts[i], 1, alone[i], &err), &err);
    }
    for (int32_t i = 0; i < MANY; i++) {
        texts[i] = g.texts[i % 7]; /* the short ones: quick */
    }
    texts[600] = g.texts[g.count - 1];
    CHECK_OK(lore_embedder_encode(embedder, texts, MANY, many[0], &err), &err);
    for (int32_t i = 0; i < MANY; i++) {
        CHECK(cosine(many[i], alone[i == 600 ? g.count - 1 : i % 7]) > 0.99999);
    }
    CHECK_OK(lore_embedder_encode(embedder, texts, 0, many[0], &err), &err);
    lore_embedder_close(embedder);
    lore_json_free(g.root);
    fixture_close(&f);
}

enum { CALLERS = 8, CALLS = 40 };

typedef struct caller {
    lore_embedder *embedder;
    lore_str text;
    bool is_bulk;
    float vector[DIM];
    lore_status status;
} caller;

static void *call_often(void *self)
{
    caller *c = self;
    for (int i = 0; i < CALLS && c->status == LORE_OK; i++) {
        c->status = c->is_bulk
                        ? lore_embedder_encode_bulk(c->embedder, &c->text, 1, c->vector, NULL)
                        : lore_embedder_encode(c->embedder, &c->text, 1, c->vector, NULL);
    }
    return NULL;
}

/* Callers on CALLERS threads, the first `bulk` of them for an ingest; every one gets its own text's
 * vector. Gives the number of packs. */
static int64_t call_together(int bulk)
{
    static golden g;
    caller callers[CALLERS] = {0};
    pthread_t threads[CALLERS];
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    golden_open(&g);
    CHECK_OK(lore_embedder_open(ENCODER, f.backend, &LIMITS, &embedder, &err), &err);
    for (int i = 0; i < CALLERS; i++) {
        callers[i].embedder = embedder;
        callers[i].text = g.texts[8 + i];
        callers[i].is_bulk = i < bulk;
        CHECK(pthread_create(&threads[i], NULL, call_often, &callers[i]) == 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < CALLERS; i++) {
        CHECK_INT(callers[i].status, LORE_OK);
        CHECK(cosine(callers[i].vector, g.vectors[8 + i]) > 0.9999);
    }
    int64_t packs = lore_embedder_pack_count(embedder);
    lore_embedder_close(embedder);
    lore_json_free(g.root);
    fixture_close(&f);
    return packs;
}

/* Texts that wait at the same time share a pack, and each caller gets its own vector. */
TEST(askers_travel_together)
{
    int64_t packs = call_together(0);
    printf("%d calls of %d threads went in %d packs\n", CALLERS * CALLS, CALLERS, (int)packs);
    CHECK(packs < CALLERS * CALLS);
}

/* Questions and an ingest at once, each in its lane. */
TEST(lanes_do_not_mix)
{
    CHECK(call_together(CALLERS / 2) > 0);
}

/* A call of more tokens than a pack holds does not keep another call from its vector. */
TEST(long_call_and_short_call)
{
    enum { MANY = 60 };
    static golden g;
    static float many[MANY][DIM];
    static lore_str texts[MANY];
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    pthread_t thread;
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    golden_open(&g);
    CHECK_OK(lore_embedder_open(ENCODER, f.backend, &LIMITS, &embedder, &err), &err);
    for (int i = 0; i < MANY; i++) {
        texts[i] = g.texts[i % g.count];
    }
    caller other = {.embedder = embedder, .text = g.texts[9]};
    CHECK(pthread_create(&thread, NULL, call_often, &other) == 0);
    CHECK_OK(lore_embedder_encode(embedder, texts, MANY, many[0], &err), &err);
    pthread_join(thread, NULL);
    CHECK_INT(other.status, LORE_OK);
    CHECK(cosine(other.vector, g.vectors[9]) > 0.9999);
    for (int i = 0; i < MANY; i++) {
        CHECK(cosine(many[i], g.vectors[i % g.count]) > 0.9999);
    }
    lore_embedder_close(embedder);
    lore_json_free(g.root);
    fixture_close(&f);
}

TEST(tells_what_it_is)
{
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_AUTO);
    CHECK_OK(lore_embedder_open(ENCODER, f.backend, &LIMITS, &embedder, &err), &err);
    CHECK_INT(lore_embedder_dim(embedder), DIM);
    CHECK_INT(lore_embedder_tokens_max(embedder), 256);
    CHECK_STR(lore_str_from(lore_embedder_name(embedder)), "lore-encoder-small");
    /* Data folders that this encoder has filled stay valid. */
    CHECK_STR(lore_str_from(lore_embedder_fingerprint(embedder)),
              "45f980087145ecdac72386350a4a668a9cb987b9260a130ceb756168e0fdb372");
    CHECK(lore_embedder_parameters(embedder) > 20000000 &&
          lore_embedder_parameters(embedder) < 21000000);
    CHECK_INT(lore_tokenizer_vocab(lore_embedder_tokenizer(embedder)), 24576);
    lore_embedder_close(embedder);
    fixture_close(&f);
}

/* A copy of the encoder's folder, made of links, in which one file is then replaced. */
static void copy_encoder(char folder[256], const char *name)
{
    static const char *const FILES[] = {"config.json",       "modules.json",
                                        "tokenizer.json",    "sentence_bert_config.json",
                                        "model.safetensors", "1_Pooling/config.json"};
    char pooling[300];
    lore_error err = {0};
    snprintf(folder, 256, "%s/%s", check_temp_dir(), name);
    snprintf(pooling, sizeof pooling, "%s/1_Pooling", folder);
    CHECK_OK(lore_dir_make(pooling, &err), &err);
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
        link_file(folder, FILES[i], "encoder");
    }
}

static void refuse(const char *file, const char *content, lore_status status, const char *message)
{
    static int number;
    char folder[256], name[32], path[400];
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    snprintf(name, sizeof name, "broken-%d", number++);
    copy_encoder(folder, name);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    CHECK(unlink(path) == 0);
    if (content != NULL) {
        write_file(folder, file, lore_str_from(content));
    }
    CHECK_FAILS(lore_embedder_open(folder, f.backend, &LIMITS, &embedder, &err), status, &err,
                message);
    CHECK(strstr(err.message, folder) != NULL);
    fixture_close(&f);
}

TEST(broken_folders_are_named)
{
    refuse("config.json", NULL, LORE_ERR_NOT_FOUND, "config.json");
    refuse("config.json", "{", LORE_ERR_CORRUPT, "config.json");
    refuse("config.json", "{\"model_type\": \"t5\"}", LORE_ERR_UNSUPPORTED, "t5");
    refuse("config.json",
           "{\"model_type\": \"bert\", \"hidden_size\": 384, \"num_hidden_layers\": 6, "
           "\"num_attention_heads\": 6,"
           "\"intermediate_size\": 1536, \"vocab_size\": 24577, \"max_position_embeddings\": 512}",
           LORE_ERR_CORRUPT, "must be [24577, 384], is [24576, 384]");
    refuse("modules.json", NULL, LORE_ERR_NOT_FOUND, "modules.json");
    refuse("modules.json",
           "[{\"type\": \"a.Transformer\", \"path\": \"\"}, {\"type\": \"a.Dense\"}]",
           LORE_ERR_UNSUPPORTED, "Dense");
    refuse("modules.json",
           "[{\"type\": \"a.Transformer\", \"path\": \"\"}, {\"type\": \"a.Pooling\", \"path\": "
           "\"1_Pooling\"}, {\"type\": \"a.Dense\", \"path\": \"2_Dense\"}]",
           LORE_ERR_NOT_FOUND, "2_Dense/config.json");
    refuse("modules.json",
           "[{\"type\": \"a.Transformer\", \"path\": \"\"}, {\"type\": \"a.Pooling\", \"path\": "
           "\"../x\"}]",
           LORE_ERR_CORRUPT, "modules.json");
    refuse("1_Pooling/config.json", "{\"pooling_mode_max_tokens\": true}", LORE_ERR_UNSUPPORTED,
           "pooling_mode_max_tokens");
    refuse("1_Pooling/config.json",
           "{\"word_embedding_dimension\": 7, \"pooling_mode_cls_token\": true}", LORE_ERR_CORRUPT,
           "word_embedding_dimension");
    refuse("sentence_bert_config.json", "{\"do_lower_case\": true}", LORE_ERR_UNSUPPORTED,
           "do_lower_case");
    refuse("tokenizer.json", "{\"model\": {\"type\": \"WordLevel\"}}", LORE_ERR_UNSUPPORTED,
           "WordLevel");
    refuse("model.safetensors", NULL, LORE_ERR_NOT_FOUND, "model.safetensors");
    refuse("model.safetensors", "12345678901", LORE_ERR_CORRUPT, "model.safetensors");
}

/* Pooling modes other than the starter's, on the same weights: CLS and last differ from mean. */
TEST(pooling_follows_the_folder)
{
    char folder[256];
    static float vectors[3][DIM];
    static const char *const MODES[] = {"pooling_mode_mean_tokens", "pooling_mode_cls_token",
                                        "pooling_mode_lasttoken"};
    char fingerprints[3][65];
    lore_error err = {0};
    lore_str text = LORE_STR("How do I reset the router?");
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    copy_encoder(folder, "pooling");
    for (int i = 0; i < 3; i++) {
        char content[128];
        lore_embedder *embedder = NULL;
        snprintf(content, sizeof content, "{\"%s\": true}", MODES[i]);
        write_file(folder, "1_Pooling/config.json", lore_str_from(content));
        CHECK_OK(lore_embedder_open(folder, f.backend, &LIMITS, &embedder, &err), &err);
        CHECK_OK(lore_embedder_encode(embedder, &text, 1, vectors[i], &err), &err);
        memcpy(fingerprints[i], lore_embedder_fingerprint(embedder), 65);
        lore_embedder_close(embedder);
    }
    CHECK(cosine(vectors[0], vectors[1]) < 0.99);
    CHECK(cosine(vectors[0], vectors[2]) < 0.99);
    CHECK(strcmp(fingerprints[0], fingerprints[1]) != 0);
    CHECK(strcmp(fingerprints[1], fingerprints[2]) != 0);
    fixture_close(&f);
}

/* What lore.json says goes before the model's own files; prompts change the side that they are for,
 * and only what changes the vectors of documents changes the fingerprint. */
TEST(prompts_and_dimensions_follow_the_folder)
{
    static const char *const CARDS[] = {"{\"name\": \"x\"}", "{\"query_prompt\": \"query: \"}",
                                        "{\"document_prompt\": \"query: \"}",
                                        "{\"dimensions\": 100}"};
    static float questions[4][DIM], documents[4][DIM];
    char folder[256], fingerprints[4][65];
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    lore_str text = LORE_STR("How do I reset the router?"),
             asked = LORE_STR("query: How do I reset "
                              "the router?");
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    copy_encoder(folder, "prompts");
    for (int i = 0; i < 4; i++) {
        write_file(folder, "lore.json", lore_str_from(CARDS[i]));
        CHECK_OK(lore_embedder_open(folder, f.backend, &LIMITS, &embedder, &err), &err);
        CHECK_INT(lore_embedder_dim(embedder), i == 3 ? 100 : DIM);
        CHECK_OK(lore_embedder_encode(embedder, &text, 1, questions[i], &err), &err);
        CHECK_OK(lore_embedder_encode_bulk(embedder, &text, 1, documents[i], &err), &err);
        memcpy(fingerprints[i], lore_embedder_fingerprint(embedder), 65);
        lore_embedder_close(embedder);
    }
    CHECK(cosine(questions[0], documents[0]) > 0.99999);
    CHECK(cosine(questions[1], questions[0]) < 0.999);
    CHECK(cosine(documents[1], documents[0]) > 0.99999);
    CHECK(cosine(documents[2], questions[1]) > 0.99999);
    CHECK(cosine(questions[2], questions[0]) > 0.99999);
    CHECK(strcmp(fingerprints[0], fingerprints[1]) == 0);
    CHECK(strcmp(fingerprints[0], fingerprints[2]) != 0);
    CHECK(strcmp(fingerprints[0], fingerprints[3]) != 0);
    double length = 0;
    for (int i = 0; i < 100; i++) {
        length += (double)questions[3][i] * (double)questions[3][i];
    }
    CHECK_NEAR(length, 1, 1e-5);
    CHECK(fabs((double)(questions[3][0] / questions[3][1] - questions[0][0] / questions[0][1])) <
          1e-3);
    write_file(folder, "lore.json", LORE_STR("{\"name\": \"x\"}"));
    CHECK_OK(lore_embedder_open(folder, f.backend, &LIMITS, &embedder, &err), &err);
    CHECK_OK(lore_embedder_encode_passages(embedder, &asked, 1, questions[0], &err), &err);
    CHECK(cosine(questions[0], questions[1]) > 0.99999);
    lore_embedder_close(embedder);
    write_file(folder, "lore.json", LORE_STR("{\"dimensions\": 385}"));
    CHECK_FAILS(lore_embedder_open(folder, f.backend, &LIMITS, &embedder, &err), LORE_ERR_CORRUPT,
                &err, "385 dimensions are wanted of vectors of 384");
    fixture_close(&f);
}

/* A model that could read more than the limit is cut at the limit. */
TEST(the_limit_cuts)
{
    lore_limits limits = LIMITS;
    lore_error err = {0};
    lore_embedder *embedder = NULL;
    lore_str text = LORE_STR("one two three four five six seven eight nine ten eleven twelve "
                             "thirteen fourteen fifteen sixteen seventeen");
    float vector[DIM];
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    limits.encoder_tokens_max = 16;
    CHECK_OK(lore_embedder_open(ENCODER, f.backend, &limits, &embedder, &err), &err);
    CHECK_INT(lore_embedder_tokens_max(embedder), 16);
    CHECK_OK(lore_embedder_encode(embedder, &text, 1, vector, &err), &err);
    CHECK_INT(lore_embedder_cut_count(embedder), 1);
    lore_embedder_close(embedder);
    fixture_close(&f);
}

static lore_status open_and_encode(void *self)
{
    fixture *f = self;
    lore_embedder *embedder = NULL;
    lore_str text = LORE_STR("reset");
    float vector[DIM];
    lore_error err = {0};
    lore_status status = lore_embedder_open(ENCODER, f->backend, &LIMITS, &embedder, &err);
    if (status == LORE_OK) {
        status = lore_embedder_encode(embedder, &text, 1, vector, &err);
    }
    lore_embedder_close(embedder);
    return status;
}

/* Every 17th allocation of opening and encoding fails once; the whole sweep is in the long tests.
 */
TEST(out_of_memory_is_an_error)
{
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_INT8);
    int64_t before = lore_mem_count();
    CHECK_INT(open_and_encode(&f), LORE_OK);
    int64_t total = lore_mem_count() - before, step = total / 24 + 1;
    for (int64_t n = 1; n <= total; n += step) {
        int64_t live = lore_mem_live();
        lore_mem_fail_at(n, false);
        lore_status status = open_and_encode(&f);
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_ERR_NOMEM || status == LORE_OK);
        CHECK_INT(lore_mem_live(), live);
    }
    fixture_close(&f);
}

CHECK_MAIN(cpu_f32_matches, cpu_bf16_matches, cpu_int8_matches, ref_matches,
           packing_changes_nothing, askers_travel_together, lanes_do_not_mix,
           long_call_and_short_call, tells_what_it_is, broken_folders_are_named,
           pooling_follows_the_folder, prompts_and_dimensions_follow_the_folder, the_limit_cuts,
           out_of_memory_is_an_error)
