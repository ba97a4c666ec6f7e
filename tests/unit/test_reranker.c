/* A cross-encoder's call ends within its deadline or with all scores, gives the same scores whoever
 * else asks, and a folder that is none is refused by name. What the scores are is the business of
 * tests/golden/golden_encoders.c. */
#include "tests/unit/models_fixture.h"

#include "base/clock.h"
#include "models/reranker.h"

#include <pthread.h>

#define RANKER LORE_FAMILIES "/rank-bert"

enum { TEXTS = 50 };

static const lore_str QUESTION = {"How do I reset the router?", 26};

/* Texts of many lengths, some longer than the model reads. */
static void fill_texts(lore_str texts[TEXTS])
{
    static const char WORDS[] = "hold the button for ten seconds until the light blinks red twice "
                                "then green and wait until it stays green before you connect the "
                                "cable of the router to the socket on the back of the device";
    for (size_t i = 0; i < TEXTS; i++) {
        texts[i] = (lore_str){WORDS, (i * 37) % (sizeof WORDS - 1)};
    }
}

static lore_reranker *open_ranker(const fixture *f)
{
    lore_error err = {0};
    lore_reranker *ranker = NULL;
    CHECK_OK(lore_reranker_open(RANKER, f->backend, &LIMITS, &ranker, &err), &err);
    return ranker;
}

TEST(company_changes_nothing)
{
    lore_str texts[TEXTS];
    float together[TEXTS], alone = 0;
    lore_error err = {0};
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    lore_reranker *ranker = open_ranker(&f);
    fill_texts(texts);
    CHECK_STR(lore_str_from(lore_reranker_name(ranker)), "rank-bert");
    CHECK_STR(lore_str_from(lore_reranker_family(ranker)), "bert");
    CHECK_INT(lore_reranker_tokens_max(ranker), 40);
    CHECK(lore_tokenizer_vocab(lore_reranker_tokenizer(ranker)) > 100);
    CHECK(lore_reranker_parameters(ranker) > 10000);
    CHECK_OK(lore_reranker_score(ranker, QUESTION, texts, TEXTS, 0, together, &err), &err);
    for (int i = 0; i < TEXTS; i++) {
        CHECK(together[i] > 0 && together[i] < 1);
        CHECK_OK(lore_reranker_score(ranker, QUESTION, &texts[i], 1, 0, &alone, &err), &err);
        CHECK_NEAR(together[i], alone, 1e-5);
    }
    CHECK_OK(lore_reranker_score(ranker, QUESTION, texts, 0, 0, together, &err), &err);
    lore_reranker_close(ranker);
    fixture_close(&f);
}

typedef struct caller {
    lore_reranker *ranker;
    lore_str texts[TEXTS];
    float scores[TEXTS];
    lore_status status;
} caller;

static void *score_often(void *self)
{
    caller *c = self;
    for (int i = 0; i < 5 && c->status == LORE_OK; i++) {
        c->status = lore_reranker_score(c->ranker, QUESTION, c->texts, TEXTS,
                                        lore_clock_ns() + INT64_C(60000000000), c->scores, NULL);
    }
    return NULL;
}

TEST(callers_share_the_encoder)
{
    enum { CALLERS = 4 };
    static caller callers[CALLERS];
    pthread_t threads[CALLERS];
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    lore_reranker *ranker = open_ranker(&f);
    for (int i = 0; i < CALLERS; i++) {
        callers[i].ranker = ranker;
        fill_texts(callers[i].texts);
        CHECK(pthread_create(&threads[i], NULL, score_often, &callers[i]) == 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(callers[i].status, LORE_OK);
        for (int k = 0; k < TEXTS; k++) {
            CHECK_NEAR(callers[i].scores[k], callers[0].scores[k], 1e-5);
        }
    }
    lore_reranker_close(ranker);
    fixture_close(&f);
}

/* A clock that moves by a step whenever somebody looks. */
static int64_t clock_ns, clock_step_ns, clock_looks;

static int64_t tick(void)
{
    clock_looks++;
    return clock_ns += clock_step_ns;
}

/* Score all texts with so many looks at the clock before the deadline. Gives how many there were.
 */
static int64_t looks_until_late(lore_reranker *ranker, int64_t looks, lore_status *status)
{
    lore_str texts[TEXTS];
    float scores[TEXTS];
    lore_error err = {0};
    fill_texts(texts);
    clock_ns = 1000000;
    clock_step_ns = 1000;
    clock_looks = 0;
    lore_clock_set_source(tick);
    *status = lore_reranker_score(ranker, QUESTION, texts, TEXTS, clock_ns + looks * clock_step_ns,
                                  scores, &err);
    lore_clock_set_source(NULL);
    CHECK(*status == LORE_OK || *status == LORE_ERR_TIMEOUT);
    return clock_looks;
}

/* The deadline ends a call before any work, inside a pack, or as soon as the first packs show that
 * the rest would take too long: well before it has passed. */
TEST(the_deadline_holds)
{
    lore_str texts[TEXTS];
    float scores[TEXTS];
    lore_error err = {0};
    lore_status status = LORE_OK;
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    lore_reranker *ranker = open_ranker(&f);
    fill_texts(texts);
    CHECK_FAILS(lore_reranker_score(ranker, QUESTION, texts, TEXTS, 1, scores, &err),
                LORE_ERR_TIMEOUT, &err, "longer than its deadline");
    int64_t all = looks_until_late(ranker, 1000000, &status);
    CHECK_INT(status, LORE_OK);
    for (int64_t looks = 1; looks < all; looks++) {
        int64_t used = looks_until_late(ranker, looks, &status);
        /* One look sees that it has passed, one measures the pack that was given up. */
        CHECK(status == LORE_OK || used <= looks + 2);
        CHECK(looks > 2 || status == LORE_ERR_TIMEOUT);
    }
    /* Half of the time that is needed: seen after the first packs, not at the end. */
    CHECK(looks_until_late(ranker, all / 2, &status) < all / 2);
    CHECK_INT(status, LORE_ERR_TIMEOUT);
    CHECK_OK(lore_reranker_score(ranker, QUESTION, texts, TEXTS, 0, scores, &err), &err);
    lore_reranker_close(ranker);
    fixture_close(&f);
}

static void refuse(const char *folder, lore_status status, const char *message)
{
    lore_error err = {0};
    lore_reranker *ranker = NULL;
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    CHECK_FAILS(lore_reranker_open(folder, f.backend, &LIMITS, &ranker, &err), status, &err,
                message);
    CHECK(strstr(err.message, folder) != NULL);
    fixture_close(&f);
}

/* A copy of the reranker's folder, made of links, in which one file is then replaced. */
static void replace(const char *file, const char *content, lore_status status, const char *message)
{
    static const char *const FILES[] = {"config.json", "tokenizer.json", "model.safetensors"};
    static int number;
    char folder[256], from[512], to[512];
    snprintf(folder, sizeof folder, "%s/ranker-%d", check_temp_dir(), number++);
    CHECK(lore_dir_make(folder, NULL) == LORE_OK);
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
        snprintf(from, sizeof from, RANKER "/%s", FILES[i]);
        snprintf(to, sizeof to, "%s/%s", folder, FILES[i]);
        CHECK(strcmp(FILES[i], file) == 0 || symlink(from, to) == 0);
    }
    write_file(folder, file, lore_str_from(content));
    refuse(folder, status, message);
}

TEST(broken_folders_are_named)
{
    static const char SMALL[] =
        "{\"model_type\": \"bert\", \"hidden_size\": 32, \"num_hidden_layers\": 2, "
        "\"num_attention_heads\": 4, \"intermediate_size\": 48, \"vocab_size\": 160, "
        "\"max_position_embeddings\": 4, \"num_labels\": 1}";
    refuse(LORE_FAMILIES "/enc-bert", LORE_ERR_UNSUPPORTED, "one label");
    refuse(LORE_FAMILIES "/enc-modernbert", LORE_ERR_UNSUPPORTED, "one label");
    refuse(LORE_FAMILIES "/enc-qwen3", LORE_ERR_UNSUPPORTED,
           "model_type 'qwen3' is not supported for a");
    replace("config.json", "{", LORE_ERR_CORRUPT, "config.json");
    replace("config.json", SMALL, LORE_ERR_CORRUPT, "leave no room for a pair in 4 tokens");
    replace("model.safetensors", "12345678901", LORE_ERR_CORRUPT, "model.safetensors");
    replace("tokenizer.json",
            "{\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"u\", \"vocab\": {\"u\": 0}}}",
            LORE_ERR_UNSUPPORTED, "how a pair is put together");
    replace("tokenizer.json",
            "{\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"u\", \"vocab\": {\"u\": 0}}, "
            "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
            "[{\"Sequence\": {\"id\": \"A\"}}], \"pair\": [{\"Sequence\": {\"id\": \"A\"}}, "
            "{\"Sequence\": {\"id\": \"B\"}}], \"special_tokens\": {}}}",
            LORE_ERR_UNSUPPORTED, "begins with no special token");
}

static lore_status open_and_score(void *self)
{
    fixture *f = self;
    lore_reranker *ranker = NULL;
    lore_str texts[TEXTS];
    float scores[TEXTS];
    lore_error err = {0};
    fill_texts(texts);
    lore_status status = lore_reranker_open(RANKER, f->backend, &LIMITS, &ranker, &err);
    if (status == LORE_OK) {
        status = lore_reranker_score(ranker, QUESTION, texts, TEXTS, 0, scores, &err);
    }
    lore_reranker_close(ranker);
    return status;
}

TEST(out_of_memory_is_an_error)
{
    fixture f = fixture_open(LORE_BACKEND_CPU, LORE_PRECISION_F32);
    int64_t before = lore_mem_count();
    CHECK_INT(open_and_score(&f), LORE_OK);
    int64_t total = lore_mem_count() - before, step = total / 60 + 1;
    for (int64_t n = 1; n <= total; n += step) {
        int64_t live = lore_mem_live();
        lore_mem_fail_at(n, false);
        lore_status status = open_and_score(&f);
        lore_mem_fail_at(0, false);
        CHECK(status == LORE_ERR_NOMEM || status == LORE_OK);
        CHECK_INT(lore_mem_live(), live);
    }
    fixture_close(&f);
}

CHECK_MAIN(company_changes_nothing, callers_share_the_encoder, the_deadline_holds,
           broken_folders_are_named, out_of_memory_is_an_error)
